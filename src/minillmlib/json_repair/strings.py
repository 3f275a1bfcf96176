"""Reads strings and quoted keys, from their opening quote to their end."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from minillmlib.json_repair.buffer import LOOK_BEHIND, InputBuffer
from minillmlib.json_repair.changes import ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import ParseStack, split_end
from minillmlib.json_repair.quotes import (
    CLOSERS,
    PLUS,
    Ending,
    NestedQuotes,
    bracket_of_code,
    brackets_before_key,
    closer_size,
    find_code,
    is_key_end,
    opener_at,
    starts_raw_json,
    value_ending,
)

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\n": ""}
_ESCAPES |= {char: char for char in "\"'`\\/"}
_HEX = "[0-9a-fA-F]"
# An escape of JSON that is no half of a surrogate pair.
ESCAPE = rf"\\(?:[\"\\/bfnrt]|u(?![dD][89a-fA-F]){_HEX}{{4}})"
_ESCAPE_GROUPS = re.compile(r"\\(?:u(....)|(.))")
_CONTROLS = re.compile(r"[\x00-\x1f]*+")
_HALF = rf"u{_HEX}{{0,4}}+"
_BYTE = rf"x{_HEX}{{0,2}}+"
# Any escape; two if the first may be half of a surrogate pair.
_ANY_ESCAPE = re.compile(rf"\\(?:{_HALF}(?:\\(?:{_HALF})?+)?+|{_BYTE}|(?s:.))?+")
_PAIR = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)")
_TRUNCATED_HALF = rf"u(?:{_HEX}{{0,3}}|[dD][89abAB]..(?:\\(?:u{_HEX}{{0,3}})?)?)"
_TRUNCATED_ESCAPE = re.compile(rf"\\(?:{_TRUNCATED_HALF}|x{_HEX}?)?")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]..")
_BYTE_ESCAPE = re.compile(r"\\x(..)")
_COLON_IN_KEY = re.compile(r"([\w$ -]*+):")


@cache
def _text_pattern(opener: str, *, has_controls: bool = False) -> re.Pattern[str]:
    """Return the pattern of text without quotes; with control characters once one was reported."""
    controls = "" if has_controls else r"\x00-\x1f"
    text = rf"[^{re.escape(CLOSERS[opener])}\\{controls}]*+"
    return re.compile(text if opener == '\\"' else f"{text}(?:{ESCAPE}{text})*+")


def unescape(text: str) -> str:
    """Decode the escapes of a text, all of which are JSON's."""
    return _ESCAPE_GROUPS.sub(_decode_escape, text)


def _decode_escape(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _ESCAPES[escape[2]]


def _read_special(buffer: InputBuffer, pos: int) -> tuple[str, int, Kind | None]:
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
    return _ESCAPES.get(escape[1], escape[:2]), pos + 2, Kind.NONSTANDARD_ESCAPE


class QuotedKey(NamedTuple):
    """The text of a key, its end, and the problems in it."""

    text: str
    end: int
    inner_quotes: list[int]
    is_closed: bool


def read_quoted_key(buffer: InputBuffer, start: int, opener: str) -> QuotedKey | None:
    """Return the key whose text begins there, or None if the text ends within it.

    A key is read as a whole, so that a missing closing quote can be found.
    """
    text, pos, parts, inner = buffer.text, start, list[str](), list[int]()
    pattern = _text_pattern(opener)
    can_touch = len(opener) == 3 or opener == '\\"'
    while True:
        match = pattern.match(text, pos)
        assert match is not None
        if match[0]:
            parts.append(unescape(match[0]) if "\\" in match[0] else match[0])
            pos = match.end()
        if buffer.char_at(pos) == "":
            return None
        size = closer_size(buffer, pos, opener)
        if not size:
            part, pos, _ = _read_special(buffer, pos)
            parts.append(part)
            continue
        if is_key_end(buffer, pos + size, has_inner=bool(inner) and not can_touch):
            return QuotedKey("".join(parts), pos + size, inner, is_closed=True)
        if not inner and (colon := _COLON_IN_KEY.match("".join(parts[:1]))):
            return QuotedKey(colon[1].strip(), start + colon.end(1), [], is_closed=False)
        parts.append(text[pos + size - 1])
        inner.append(pos)
        pos += size


class StringReader:
    """Reads values that are strings, one after the other."""

    def __init__(self, buffer: InputBuffer, stack: ParseStack, log: ChangeLog) -> None:
        self._buffer = buffer
        self._stack = stack
        self._log = log
        self._code_end = 0  # position in the whole text: quotes before it are in code
        self._checked_for_code = 0

    def start(self, opener: str) -> None:
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
        self._pattern = _text_pattern(opener, has_controls=self._has_controls)
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
        if text := match[0]:
            if self._nested.closers:
                self._nested.record_text(text)
            self._stack.string_parts.append(unescape(text) if "\\" in text else text)
            buffer.pos = match.end()
        if buffer.char_at(buffer.pos) == "":
            return self._end_with_text()
        size = closer_size(buffer, buffer.pos, self._opener)
        if not size:
            self._take_special()
            return Ending.CONTENT
        ending = self._ending(size)
        if ending is Ending.CONTENT:
            self._take_quote(size)
        elif ending is Ending.CONCATENATES:
            self._concatenate(size)
        elif ending is Ending.MISSING_CLOSER:
            self._end_before_key()
        else:
            self._stack.finish_string()
            buffer.pos += size
        return ending

    def _end_with_text(self) -> Ending:
        """End the string with the text, or before brackets that close all that is open."""
        stack = self._stack
        text = stack.string_text().rstrip()
        if text.endswith("```"):
            text = text.rstrip("`")
        end = split_end(text, stack.closers)
        if end.closers != stack.closers[::-1] or end.opens_object:
            stack.finish_string()
            return Ending.TRUNCATED
        self._log.add(Kind.MISSING_QUOTE)
        stack.finish_unclosed_string(text.removesuffix(end.tail))
        # Without a control character, it may be the beginning of a longer string of valid JSON.
        return Ending.CLOSED_BY_BRACKETS if self._has_controls else Ending.TRUNCATED

    def _end_before_key(self) -> None:
        """End the string before the next key or item, or before brackets before that."""
        stack, buffer = self._stack, self._buffer
        # First, since it may need more of the text, and then all of this is done again.
        end = brackets_before_key(buffer, buffer.pos, stack, self._last_text)
        self._log.add(Kind.MISSING_QUOTE)
        text = stack.string_text()
        if not end or not text.endswith(end.tail):
            stack.finish_unclosed_string(text)
            return
        stack.finish_unclosed_string(text.removesuffix(end.tail))
        for _ in end.closers:
            stack.close()
        if end.opens_object:
            stack.open({}, "}")

    def _take_special(self) -> None:
        text, end, kind = _read_special(self._buffer, self._buffer.pos)
        if kind is not None:
            self._log.add(kind)
            if kind is Kind.CONTROL_CHARACTER:
                self._has_controls = True
                self._pattern = _text_pattern(self._opener, has_controls=True)
        self._stack.string_parts.append(text)
        self._buffer.pos = end

    def _take_quote(self, size: int) -> None:
        buffer = self._buffer
        end = buffer.pos + size
        surroundings = f'{self._last_text()[-2:]}"{buffer.text[end : end + 1]}'
        if self._nested.may_start and (bracket := bracket_of_code(surroundings)):
            self._look_for_code()
            self._nested.start(bracket)
        self._log.add(Kind.INNER_QUOTE)
        self._nested.record_quote(surroundings)
        self._stack.string_parts.append(buffer.text[end - 1])
        buffer.pos = end

    def _look_for_code(self) -> None:
        pos = self._buffer.offset + self._buffer.pos
        if pos >= self._checked_for_code:
            end, is_code = find_code(self._buffer, self._buffer.pos)
            self._checked_for_code = self._buffer.offset + end
            if is_code:
                self._code_end = self._checked_for_code

    def _last_text(self) -> str:
        """Return the last characters of the string, as they were written."""
        buffer = self._buffer
        start = max(self._start - buffer.offset, buffer.pos - LOOK_BEHIND, 0)
        return buffer.text[start : buffer.pos]

    def _ending(self, size: int) -> Ending:
        buffer = self._buffer
        if len(self._opener) == 3:
            return Ending.CLOSES if size == 3 else Ending.CONTENT
        if self._code_end and buffer.offset + buffer.pos < self._code_end:
            return Ending.CONTENT
        if self._is_raw and self._last_text().rstrip()[-1:] not in ("}", "]"):
            return Ending.CONTENT
        return value_ending(buffer, buffer.pos + size, self._stack, self._last_text, self._nested)

    def _concatenate(self, size: int) -> None:
        buffer = self._buffer
        plus = buffer.match(PLUS, buffer.skip_space(buffer.pos + size))
        opener = opener_at(buffer, plus.end())
        self._log.add(Kind.CONCATENATION)
        if "/" in plus[0]:
            self._log.add(Kind.COMMENT, plus.start() + plus[0].index("/"))
        self._start_part(opener, plus.end() + len(opener), is_raw=False)
