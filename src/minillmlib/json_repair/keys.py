"""Reads a quoted key as a whole, so that a missing closing quote can be found."""

from __future__ import annotations

import re
from typing import NamedTuple

from minillmlib.json_repair.buffer import InputBuffer
from minillmlib.json_repair.quotes import is_closer, is_key_end, quote_size
from minillmlib.json_repair.strings import certain_text_pattern, read_special, unescape

__all__ = ["QuotedKey", "read_quoted_key"]

_COLON_IN_KEY = re.compile(r"([\w$ -]*+):")


class QuotedKey(NamedTuple):
    """The text of a key, where it ends, and what was unusual."""

    text: str
    end: int
    inner_quotes: list[int]
    is_closed: bool


def read_quoted_key(buffer: InputBuffer, start: int, opener: str) -> QuotedKey | None:
    """Return the key whose text begins there, or None if the text ends within it."""
    text, pos, parts, inner = buffer.text, start, list[str](), list[int]()
    pattern = certain_text_pattern(opener)
    can_touch = len(opener) == 3 or opener == '\\"'
    while True:
        match = pattern.match(text, pos)
        assert match is not None
        if match[0]:
            parts.append(unescape(match[0]) if "\\" in match[0] else match[0])
            pos = match.end()
        if buffer.char_at(pos) == "":
            return None
        if not is_closer(buffer, pos, opener):
            part, pos, _ = read_special(buffer, pos)
            parts.append(part)
            continue
        size = quote_size(buffer, pos, opener)
        if is_key_end(buffer, pos + size, has_inner=bool(inner) and not can_touch):
            return QuotedKey("".join(parts), pos + size, inner, is_closed=True)
        if not inner and (colon := _COLON_IN_KEY.match("".join(parts[:1]))):
            return QuotedKey(colon[1].strip(), start + colon.end(1), [], is_closed=False)
        parts.append(text[pos + size - 1])
        inner.append(pos)
        pos += size
