"""Reads one string, from its opening quote to its end."""

from __future__ import annotations

import re
from functools import cache
from typing import TypeAlias

from minillmlib.json_repair.buffer import LOOK_BEHIND, InputBuffer
from minillmlib.json_repair.changes import ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import ParseStack
from minillmlib.json_repair.quotes import (
    CLOSERS,
    PLUS,
    Ending,
    NestedQuotes,
    is_closer,
    opener_at,
    quote_size,
    starts_raw_json,
    value_ending,
)

__all__ = ["ESCAPE", "StringReader", "certain_text_pattern", "read_special", "unescape"]

Part: TypeAlias = "tuple[str, int, Kind | None]"

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_SIMPLE_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = "[0-9a-fA-F]"
# An escape of JSON that is no half of a surrogate pair.
ESCAPE = rf"\\(?:[\"\\/bfnrt]|u(?![dD][89a-fA-F]){_HEX}{{4}})"
_ESCAPE_GROUPS = re.compile(r"\\(?:u(....)|(.))")
_CONTROLS = re.compile(r"[\x00-\x1f]*+")
_SPACE = re.compile(r"\s*+")
_HALF = rf"u{_HEX}{{0,4}}+"
_BYTE = rf"x{_HEX}{{0,2}}+"
# Any escape; two if the first may be half of a surrogate pair.
_ANY_ESCAPE = re.compile(rf"\\(?:{_HALF}(?:\\(?:{_HALF})?+)?+|{_BYTE}|(?s:.))?+")
_PAIR = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)")
_TRUNCATED_HALF = rf"u(?:{_HEX}{{0,3}}|[dD][89abAB]..(?:\\(?:u{_HEX}{{0,3}})?)?)"
_TRUNCATED_ESCAPE = re.compile(rf"\\(?:{_TRUNCATED_HALF}|x{_HEX}?)?")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]..")
_BYTE_ESCAPE = re.compile(r"\\x(..)")


@cache
def certain_text_pattern(opener: str, *, has_controls: bool = False) -> re.Pattern[str]:
    """Return the pattern of text that certainly belongs to a string that this quote opens.

    Control characters belong to it once one was reported.
    """
    controls = "" if has_controls else r"\x00-\x1f"
    text = rf"[^{re.escape(CLOSERS[opener])}\\{controls}]*+"
    return re.compile(text if opener == '\\"' else f"{text}(?:{ESCAPE}{text})*+")


def unescape(text: str) -> str:
    """Decode the escapes of a text, all of which are JSON's."""
    return _ESCAPE_GROUPS.sub(_decode_escape, text)


def _decode_escape(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _SIMPLE_ESCAPES.get(escape[2], escape[2])


def read_special(buffer: InputBuffer, pos: int) -> Part:
    """Decode control characters or an unusual escape; return the text, its end and the change."""
    if buffer.text[pos] != "\\":
        controls = _CONTROLS.match(buffer.text, pos)
        assert controls is not None
        return controls[0], controls.end(), Kind.CONTROL_CHARACTER
    match = buffer.match(_ANY_ESCAPE, pos)
    escape, end = match[0], match.end()
    if pair := _PAIR.fullmatch(escape):
        return bytes.fromhex(pair[1] + pair[2]).decode("utf-16-be"), end, None
    if end == len(buffer.text) and _TRUNCATED_ESCAPE.fullmatch(escape):
        return "", end, Kind.TRUNCATED_VALUE
    if _LONE_SURROGATE.match(escape):
        return _REPLACEMENT, pos + 6, Kind.LONE_SURROGATE
    if byte := _BYTE_ESCAPE.fullmatch(escape):
        return chr(int(byte[1], 16)), end, Kind.NONSTANDARD_ESCAPE
    return _decode_unknown_escape(escape[1]), pos + 2, Kind.NONSTANDARD_ESCAPE


def _decode_unknown_escape(char: str) -> str:
    if char == "\n":
        return ""  # a line that continues in the next one
    return char if char in "\"'`\\/" else _SIMPLE_ESCAPES.get(char, "\\" + char)


class StringReader:
    """Reads values that are strings, one after the other."""

    def __init__(self, buffer: InputBuffer, stack: ParseStack, log: ChangeLog) -> None:
        self._buffer = buffer
        self._stack = stack
        self._log = log

    def start(self, opener: str) -> None:
        """Consume the quote that opens the string."""
        pos = self._buffer.pos + len(opener)
        is_raw = starts_raw_json(self._buffer, pos)
        if opener != '"':
            self._log.add(Kind.OTHER_QUOTES)
        self._stack.start_string()
        self._has_controls = False
        self._start_part(opener, pos, is_raw=is_raw)

    def _start_part(self, opener: str, pos: int, *, is_raw: bool) -> None:
        self._opener = opener
        self._is_raw = is_raw
        self._pattern = certain_text_pattern(opener, has_controls=self._has_controls)
        self._nested = NestedQuotes(opener)
        self._buffer.pos = pos
        self._start = self._buffer.offset + pos

    def read(self) -> Ending:
        """Consume the known text of the string, up to its end."""
        ending = Ending.CONTENT
        while ending is Ending.CONTENT or ending is Ending.CONCATENATES:
            ending = self._read_part()
        return ending

    def _read_part(self) -> Ending:
        """Consume the text before the next quote that may close the string, and the quote."""
        buffer = self._buffer
        match = self._pattern.match(buffer.text, buffer.pos)
        assert match is not None
        if match[0]:
            self._take(match[0], match.end())
        if buffer.char_at(buffer.pos) == "":
            self._stack.finish_string()
            return Ending.TRUNCATED
        if not is_closer(buffer, buffer.pos, self._opener):
            self._take_special()
            return Ending.CONTENT
        size = quote_size(buffer, buffer.pos, self._opener)
        ending = self._ending(size)
        if ending is Ending.CONTENT:
            self._take_quote(size)
        elif ending is Ending.CONCATENATES:
            self._concatenate(size)
        elif ending is Ending.MISSING_CLOSER:
            self._log.add(Kind.MISSING_QUOTE)
            self._stack.finish_string(is_stripped=True)
        else:
            self._stack.finish_string()
            buffer.pos += size
        return ending

    def _take(self, text: str, end: int) -> None:
        buffer = self._buffer
        if self._nested.closers:
            self._nested.read(buffer.text, buffer.pos, end, self._last_text())
        self._stack.string_parts.append(unescape(text) if "\\" in text else text)
        buffer.pos = end

    def _take_special(self) -> None:
        text, end, kind = read_special(self._buffer, self._buffer.pos)
        if kind is not None:
            self._log.add(kind)
            if kind is Kind.CONTROL_CHARACTER:
                self._has_controls = True
                self._pattern = certain_text_pattern(self._opener, has_controls=True)
        self._stack.string_parts.append(text)
        self._buffer.pos = end

    def _take_quote(self, size: int) -> None:
        buffer, before = self._buffer, self._last_text()
        text, end = buffer.text, buffer.pos + size
        self._log.add(Kind.INNER_QUOTE)
        self._nested.record_quote(before[-2:], text[end : end + 1])
        self._nested.read(text, buffer.pos, end, before)
        self._stack.string_parts.append(text[end - 1])
        buffer.pos = end

    def _last_text(self) -> str:
        """Return the last characters of the string, as they were written."""
        buffer = self._buffer
        start = max(self._start - buffer.offset, buffer.pos - LOOK_BEHIND, 0)
        return buffer.text[start : buffer.pos]

    def _ending(self, size: int) -> Ending:
        buffer = self._buffer
        if len(self._opener) == 3:
            return Ending.CLOSES if size == 3 else Ending.CONTENT
        if self._is_raw and self._last_text().rstrip()[-1:] not in ("}", "]"):
            return Ending.CONTENT
        return value_ending(buffer, buffer.pos + size, self._stack, self._last_text, self._nested)

    def _concatenate(self, size: int) -> None:
        buffer = self._buffer
        plus = buffer.match(PLUS, buffer.match(_SPACE, buffer.pos + size).end())
        opener = opener_at(buffer, plus.end())
        self._log.add(Kind.CONCATENATION)
        if "/" in plus[0]:
            self._log.add(Kind.COMMENT, plus.start() + plus[0].index("/"))
        self._start_part(opener, plus.end() + len(opener), is_raw=False)
