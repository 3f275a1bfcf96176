"""Redaction of secrets in server responses, in every form in which gateways echo them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from minillmlib.auth.secret import HIDDEN, Secret

MIN_SECRET_CHARS = 6  # a shorter one protects nothing, and redacting it would garble any text

HTML_NAMES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}

TextT = TypeVar("TextT", str, bytes)


class Redactor:
    """Removes secrets from texts: as they are, in JSON, in HTML, in a URL and in base64.

    Keeps no text of a secret and no pattern of it.
    """

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: Secret) -> None:
        self._secrets = secrets

    def redact(self, text: TextT) -> TextT:
        """Return `text` without the secrets. Meant for failures: it takes milliseconds."""
        for secret in self._secrets:
            for pattern in _patterns(secret.expose_token()):
                if isinstance(text, bytes):
                    text = re.sub(pattern.encode(), HIDDEN.encode(), text)
                else:
                    text = re.sub(pattern, HIDDEN, text)
        return text

    def redact_all(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {name: self.redact(text) for name, text in texts.items()}


def _patterns(secret: str) -> Iterator[str]:
    """Yield patterns for a secret; none can match in two ways, so none backtracks for long."""
    if len(secret) >= MIN_SECRET_CHARS:
        yield "".join(map(_char_pattern, secret))
        yield from _base64_patterns(secret.encode())


def _char_pattern(char: str) -> str:
    """Return a pattern for one character as JSON, HTML or a URL may write it."""
    if char.isalnum() or char in "-_":
        return char
    code = ord(char)
    forms = [
        re.escape(char),
        re.escape("\\" + char),
        rf"\\u(?i:{code:04x})",
        rf"%(?i:{code:02x})",
        rf"&#0*{code};",
        rf"&#[xX]0*(?i:{code:x});",
        *([HTML_NAMES[char]] if char in HTML_NAMES else []),
    ]
    return f"(?:{'|'.join(forms)})"


def _base64_patterns(data: bytes) -> Iterator[str]:
    """Yield patterns for each offset of `data` in base64, maybe cut in lines.

    Base64 encodes three bytes at a time, so the text before shifts it by none, one or two. The
    characters at both ends depend on the neighbours and are omitted.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            text = encode(b"\0" * shift + data).decode().rstrip("=")[(0, 2, 3)[shift] :][:-2]
            if len(text) >= MIN_SECRET_CHARS:
                yield r"(?:\s|\\[rn])*".join(map(_char_pattern, text))
