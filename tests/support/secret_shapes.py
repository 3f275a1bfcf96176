"""Keys of every shape, the ways in which a server may echo one, and how a trace is found."""

from __future__ import annotations

import base64
import html
import itertools
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

__all__ = ["ECHOES", "REFUSED_SHAPES", "SHAPES", "Canary"]

VERY_LONG = 4096
TAIL = b"; ask your administrator"

# What a caller may hand over, made of a word that stands nowhere else. These can all be sent.
SHAPES: dict[str, Callable[[str], str]] = {
    "plain": lambda word: f"sk-{word}",
    "trailing newline": lambda word: f"sk-{word}\n",
    "trailing CRLF": lambda word: f"sk-{word}\r\n",
    "surrounding blanks": lambda word: f"  sk-{word} ",
    "surrounding tabs": lambda word: f"\tsk-{word}\t\n",
    "inner blank": lambda word: f"sk-{word} {word}",
    "very long": lambda word: ("sk-" + word * VERY_LONG)[:VERY_LONG],
    "quotes and backslashes": lambda word: f'sk-"{word}\'\\{word}"\\n',
    "percent and plus": lambda word: f"sk+{word}%2B{word}+%zz",
    "like a URL": lambda word: f"https://{word}.example/a?b={word}&c=<d>",
    "like JSON": lambda word: f'{{"key": "{word}", "n": [1, "{word}"]}}',
    "like base64": lambda word: f"{word}/{word}+{word}==",
}

# These no header can carry.
REFUSED_SHAPES: dict[str, Callable[[str], str]] = {
    "inner newline": lambda word: f"sk-{word}\n{word}",
    "inner CRLF": lambda word: f"sk-{word}\r\nX-Injected: {word}",
    "inner tab": lambda word: f"sk-{word}\t{word}",
    "not ASCII": lambda word: f"sk-{word}é{word}",
    "escape": lambda word: f"sk-{word}\x1b[8m{word}",
}

_numbers = itertools.count(1)


class Canary:
    """One key, as it was given and as it is sent, and the eye for its traces."""

    def __init__(self, shape: str) -> None:
        word = f"Canary{next(_numbers):05d}Zq7"
        self.shape = shape
        self.given = {**SHAPES, **REFUSED_SHAPES}[shape](word)
        self.sent = self.given.strip()
        parts = (word, word[:11], word[-8:])  # a part of it would be a trace, too
        forms = [form for part in parts for form in (part, *self._in_base64(part))]
        self._pattern = re.compile("|".join(map(re.escape, forms)))
        self._bytes_pattern = re.compile(self._pattern.pattern.encode())

    @staticmethod
    def _in_base64(word: str) -> Iterator[str]:
        """The word inside of any base64, without the characters that its neighbours decide."""
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + word.encode()).decode().rstrip("=")
            yield text[(0, 2, 3)[shift] :][:-2]

    def trace_in(self, text: str | bytes | bytearray) -> str | None:
        """Where the text shows the key: some of what stands around it, but nothing of the key."""
        if isinstance(text, str):
            pattern = self._pattern
        else:
            pattern, text = self._bytes_pattern, bytes(text)
        found = pattern.search(text)
        if found is None:
            return None
        start, end = found.span()
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        before, after = text[max(0, start - 60) : start], text[end : end + 20]
        return f"{before}•••{self._pattern.sub('•••', after)}"


def _in_base64_after(before: bytes) -> Callable[[str], bytes]:
    return lambda key: base64.b64encode(before + key.encode() + TAIL)


# How the key stands in what a server says, with the content type.
ECHOES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "plain text": (lambda key: b"bad key " + key.encode() + TAIL, "text/plain"),
    "URL-encoded": (lambda key: b"bad key " + quote(key, safe="").encode() + TAIL, "text/plain"),
    "base64": (_in_base64_after(b""), "text/plain"),
    "base64, shifted by one": (_in_base64_after(b"k"), "text/plain"),
    "base64, shifted by two": (_in_base64_after(b"k="), "text/plain"),
    "JSON": (
        lambda key: json.dumps({"error": {"message": f"bad key {key}", "code": key}}).encode(),
        "application/json",
    ),
    "HTML": (
        lambda key: (
            f"<html><title>No {html.escape(key)}</title><p>{html.escape(key)}</p></html>".encode()
        ),
        "text/html",
    ),
}
