"""A key in quotes, read as a whole, so that a missing closing quote can be found."""

from __future__ import annotations

import re
from typing import NamedTuple

from minillmlib.json_repair.escapes import next_part
from minillmlib.json_repair.quotes import KEY_RUNS, key_ending, quote_size
from minillmlib.json_repair.window import Window

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
    place, parts, inner = start, list[str](), list[int]()
    while True:
        while part := next_part(window, place, opener, KEY_RUNS[opener]):
            parts.append(part[0])
            place = part[1]
        if window.char(place) == "":
            return None
        size = quote_size(window, place, opener)
        if key_ending(window, place + size):
            return QuotedKey("".join(parts), place + size, inner, is_closed=True)
        if colon := _COLON_IN_KEY.match("".join(parts[:1])):
            return QuotedKey(colon[1].strip(), start + colon.end(1), [], is_closed=False)
        parts.append(window.text[place + size - 1])
        inner.append(place)
        place += size
