"""Secrets cut out of what a server says, in any form in which gateways repeat them."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

__all__ = ["HIDDEN", "Redactor"]

HIDDEN = "[hidden]"
SHORTEST_SECRET = 6  # a shorter one hides nothing, and cutting it out would garble any text


TextT = TypeVar("TextT", str, bytes)


class Exposable(Protocol):
    """What a `Secret` is here."""

    def expose_secret(self) -> str:
        """The text itself."""
        ...


class Redactor:
    """Finds some secrets as they are, in JSON, in HTML, in a URL and in base64.

    Nothing of a secret is kept: neither its text nor a pattern of it.
    """

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: Exposable) -> None:
        self._secrets = secrets

    def redact(self, text: TextT) -> TextT:
        """`text` without the secrets. Meant for failures: it costs milliseconds."""
        for secret in self._exposed():
            for form in _forms(secret):
                if isinstance(text, bytes):
                    text = re.sub(form.encode(), HIDDEN.encode(), text)
                else:
                    text = re.sub(form, HIDDEN, text)
        return text

    def redact_plain(self, texts: Mapping[str, str]) -> Mapping[str, str]:
        """The mapping without the secrets as they are. Meant for every answer: it costs nothing."""
        if not texts:
            return texts
        for secret in self._exposed():
            if secret in "\n".join(texts.values()):
                texts = {name: text.replace(secret, HIDDEN) for name, text in texts.items()}
        return texts

    def redact_all(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The same mapping without the secrets."""
        return {name: self.redact(text) for name, text in texts.items()}

    def _exposed(self) -> list[str]:
        texts = [secret.expose_secret() for secret in self._secrets]
        return [text for text in texts if len(text) >= SHORTEST_SECRET]


def _forms(secret: str) -> Iterator[str]:
    """Patterns for a secret; none can match in two ways, so none can backtrack for long."""
    yield "".join(map(_character, secret))
    yield from _in_base64(secret.encode())


def _character(char: str) -> str:
    """One character, which JSON, HTML or a URL may have written otherwise."""
    if char.isalnum() or char in "-_":
        return char
    code = ord(char)
    named = html.escape(char)
    forms = [
        re.escape(char),
        re.escape("\\" + char),
        rf"\\u(?i:{code:04x})",
        rf"%(?i:{code:02x})",
        rf"&#0*{code};",
        rf"&#[xX]0*(?i:{code:x});",
        *([re.escape(named)] if named != char else []),
    ]
    return f"(?:{'|'.join(forms)})"


def _in_base64(data: bytes) -> Iterator[str]:
    """Base64 takes three bytes at a time, so what stands before shifts it by none, one or two.

    The characters at both ends depend on the neighbours and are left out. It may be cut in lines.
    """
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            text = encode(b"\0" * shift + data).decode().rstrip("=")[(0, 2, 3)[shift] :][:-2]
            if len(text) >= SHORTEST_SECRET:
                yield r"(?:\s|\\[rn])*".join(map(_character, text))
