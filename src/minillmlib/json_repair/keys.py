"""A key in quotes, read as a whole, so that a missing closing quote can be found."""

from __future__ import annotations

import re
from typing import NamedTuple

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.escapes import decoded, odd_part
from minillmlib.json_repair.quotes import key_ending, quote_size
from minillmlib.json_repair.string_patterns import CLOSERS, INNER_QUOTES, key_run_of

__all__ = ["QuotedKey", "quoted_key"]

_COLON_IN_KEY = re.compile(r"([\w$ -]*+):")


class QuotedKey(NamedTuple):
    """The key's text, where it ends, and what was odd."""

    text: str
    end: int
    inner_quotes: list[int]
    is_closed: bool


def quoted_key(window: Window, start: int, opener: str) -> QuotedKey | None:
    """The key that begins there, or None if the text ends within it."""
    text, place, parts, inner = window.text, start, list[str](), list[int]()
    while True:
        match = key_run_of(opener, bool(inner)).match(text, place)
        assert match is not None
        if match[0]:
            parts.append(decoded(match[0]) if "\\" in match[0] else match[0])
            if match.lastindex:
                inner += _quotes_in(opener, match)
            place = match.end()
        char = window.char(place)
        if char == "":
            return None
        if char not in CLOSERS[opener] and not _is_escaped_quote(window, place, opener):
            part, place, _ = odd_part(window, place, char)
            parts.append(part)
            continue
        size = quote_size(window, place, opener)
        if key_ending(window, place + size):
            return QuotedKey("".join(parts), place + size, inner, is_closed=True)
        if not inner and (colon := _COLON_IN_KEY.match("".join(parts[:1]))):
            return QuotedKey(colon[1].strip(), start + colon.end(1), [], is_closed=False)
        parts.append(text[place + size - 1])
        inner.append(place)
        place += size


def _is_escaped_quote(window: Window, place: int, opener: str) -> bool:
    return opener == '\\"' and window.text[place] == "\\" and window.char(place + 1) == '"'


def _quotes_in(opener: str, match: re.Match[str]) -> list[int]:
    found = INNER_QUOTES[opener].finditer(match.string, *match.span())
    return [quote.start() for quote in found if quote[1]]
