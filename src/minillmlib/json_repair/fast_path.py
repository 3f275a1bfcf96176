"""Reads the common tokens of a value quickly, and leaves the others to the slow reader.

Each pattern looks ahead as far as the slow reader would, so both decide the same.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from minillmlib.json_repair.buffer import SPACE, InputBuffer
from minillmlib.json_repair.changes import ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import (
    AFTER,
    INSIDE,
    MAX_DEPTH,
    VALUE,
    Container,
    ParseStack,
    close_bracket,
)
from minillmlib.json_repair.quotes import LITERALS
from minillmlib.json_repair.scalars import parse_scalar
from minillmlib.json_repair.strings import ESCAPE, unescape

_INTEGER = r"0|-?[1-9][0-9]{0,15}+"
_NUMBER = r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]{1,2}+)?+"
_SCALAR = rf"(?:(?P<integer>{_INTEGER})|(?P<unquoted>{_NUMBER}|[A-Za-z]\w*+))"
_WORDS = r"(?P<words>[A-Za-z]\w*+(?: [A-Za-z]\w*+)++)"


def _string(quote: str, name: str, code: str = "") -> str:
    """Return the pattern of a string whose inner quotes can only be text: `say "hi" to`, `it's`.

    Such a string takes 2.5 to 3 times as long in the slow reader, which alone reads code: a quote
    after one of these characters.
    """
    text = rf"[^{quote}\\\x00-\x1f]*+"
    no_other_opener = rf'(?!{quote}[{quote}\w]|[{{\[]\s*+")'
    before_word = rf"(?:(?<=[^\s,{{\[{code}])|(?<=[^\s,{{\[{code}] )){quote}(?=\w)"
    before_words = rf"{quote}(?= [^\W\d][\w \t]*+[^\w \t}}\]])"
    before_stop = rf"(?<=\w){quote}(?=[.!?;])"
    before_closer = rf"{quote}(?={quote}\s*+[,}}\]])"
    inner = f"{ESCAPE}|{before_word}|{before_words}|{before_stop}|{before_closer}"
    return rf"{quote}{no_other_opener}(?P<{name}>{text}(?:(?:{inner}){text})*+){quote}"


_STRING = "|".join([_string('"', "double"), _string("'", "single")])
_KEY_TEXTS = r'"([^"\\\x00-\x1f]*+)"', r"'([^'\\\x00-\x1f]*+)'", r"([A-Za-z_$][\w$-]*+)"
# A key without its colon, before a value that shows it: 5.6 times as fast as in the slow reader.
_VALUE_AHEAD = rf'"[^"\\]*+"|-?[0-9][0-9.]*+|{"|".join(sorted(LITERALS))}'
_KEY_ALONE = rf'"([^"\\\x00-\x1f]++)"(\s*+)(?=(?:{_VALUE_AHEAD})\s*+[,}}]|(?<=\s)[{{\[])'
_KEY = rf"\s*+(?:(?:{'|'.join(_KEY_TEXTS)})\s*+:|{_KEY_ALONE})\s*+"

_QUOTED_KEY_AHEAD = r'(?="[^"\\\x00-\x1f]*+"\s*+:)'
_MEMBER_AHEAD = r"""(?=\s*+(?:\}|"[^"\\]*+"\s*+[:"{\[0-9-]|(?:'[^'\\]*+'|[\w$-]++)\s*+:))"""
_AFTER_MEMBER = rf"\s*+(?:(?=\}})|,{_MEMBER_AHEAD}|(?<=\s){_QUOTED_KEY_AHEAD})"
# A key, and its value if that is common, too.
COMMON_MEMBER = re.compile(rf"{_KEY}(?:(?:{_STRING}|{_SCALAR}){_AFTER_MEMBER}|(?=\S))")

_QUOTED_ITEM_AHEAD = r'(?="[^"\\\x00-\x1f]++"\s*+[,\]"])'
_ITEM_AHEAD = r'(?=\s*+"[^"\\]*+"\s*+[:,}\]]|\s*+[' + r"'0-9{\[\]-])"
_AFTER_STRING = rf"\s*+(?:(?=\])|,{_ITEM_AHEAD}|(?<=\s){_QUOTED_ITEM_AHEAD})"
_AFTER_SCALAR = r"\s*+(?:(?=\])|,)"
_ITEM = "|".join([_string('"', "double", "("), _string("'", "single", "(")])
COMMON_ITEM = re.compile(
    rf"\s*+(?:(?:{_ITEM}){_AFTER_STRING}|(?:{_SCALAR}|{_WORDS}){_AFTER_SCALAR})"
)

_WHITE = " \n\t\r"
_STARTS = frozenset("\"'{[(-_$\u201c\u201d\u201e\u2018\u2019\u00ab")  # of values and keys
_match_space = SPACE.match
_match_object = re.compile(r"""\{(?:[^\s"'0-9.-]|\s*+"[^"\\\n]*+"\s*+[^\s,])""").match  # no set
_ESCAPE_OR_QUOTE = {quote: re.compile(rf"\\.|({quote})") for quote in "\"'"}

# A container that is valid JSON is decoded by `json`: 14 kB with one fault take 192 us, not 980.
_MIN_CHARS = 500
_MAX_FAILURES = 8  # each may cost the rest of the text
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class FastPath:
    """Reads common tokens and builds their values."""

    def __init__(self, buffer: InputBuffer, stack: ParseStack, log: ChangeLog) -> None:
        self._buffer = buffer
        self._stack = stack
        self._log = log
        self._failures = 0

    # One loop with local variables: as functions, hostile texts took up to nine times as long,
    # since a call costs as much as a token may.
    def scan_common(self) -> None:  # noqa: C901, PLR0912, PLR0915 - see above
        """Consume the common tokens that follow, up to one that is not, or the end of the value."""
        buffer, stack, record = self._buffer, self._stack, self._log.add
        text, pos, offset = buffer.text, buffer.pos, buffer.offset
        containers, closers = stack.containers, stack.closers
        top, is_object = containers[-1], stack.is_in_object
        place, comma_at = stack.place, stack.comma_at
        last_start = len(text) - _MIN_CHARS if buffer.is_ended else -1
        is_logging = self._log.remaining > 0
        try:
            while True:
                char = text[pos]
                if char in "}])" and place != VALUE:
                    depth = len(closers) - 1
                    if closers[-1] != char or not depth:
                        depth, kind = close_bracket(char, buffer, pos, containers, closers)
                        if kind and is_logging:
                            is_logging = record(kind, pos)
                    del containers[depth:]
                    closers = closers[:depth]
                    pos += 1
                    if comma_at >= 0:
                        if is_logging:
                            is_logging = record(Kind.EXTRA_COMMA, comma_at - offset)
                        comma_at = -1
                    if not depth:
                        break
                    top, place = containers[-1], AFTER
                    is_object = type(top) is dict
                    continue
                if place == AFTER:
                    if char == ",":
                        comma_at = offset + pos
                        pos += 1
                        place = INSIDE
                        continue
                    if char in _STARTS or char.isalnum():
                        if is_logging:
                            is_logging = record(Kind.MISSING_COMMA, pos)
                        place = INSIDE
                if char in _WHITE:
                    pos = _match_space(text, pos).end()  # type: ignore[union-attr]  # always matches
                    continue
                if place == AFTER:
                    break
                if place == INSIDE and is_object:
                    member = COMMON_MEMBER.match(text, pos)
                    if member is None:
                        break
                    while member is not None:
                        key = member[1]
                        if key is None or key in top:
                            key = self._set_key(member)
                        else:
                            stack.key = key
                        pos = member.end()
                        if not member.lastgroup:
                            place = VALUE
                            break
                        top[key] = self._scalar(member)
                        member = COMMON_MEMBER.match(text, pos) if text[pos - 1] == "," else None
                    if place == VALUE:
                        comma_at = -1
                        continue
                elif char in "{[":
                    is_worth_trying = pos < last_start and self._failures < _MAX_FAILURES
                    if is_worth_trying and (valid := self._decode_valid(pos)):
                        stack.add_value(valid[0])
                        pos, place, comma_at = valid[1], AFTER, -1
                        continue
                    container: Container
                    if len(closers) == MAX_DEPTH:
                        break
                    if char == "[":
                        container = []
                        closers += "]"
                    elif _match_object(text, pos):
                        container = {}
                        closers += "}"
                    else:
                        break
                    if is_object:
                        top[stack.key] = container
                    else:
                        top.append(container)
                    containers.append(container)
                    top, is_object = container, char == "{"
                    place, comma_at = INSIDE, -1
                    pos += 1
                    continue
                elif closers[-1] == "]" and (item := COMMON_ITEM.match(text, pos)):
                    while item is not None:
                        top.append(self._scalar(item))
                        pos = item.end()
                        item = COMMON_ITEM.match(text, pos) if text[pos - 1] == "," else None
                else:
                    break
                comma_at = -1
                if text[pos - 1] == ",":
                    comma_at = offset + pos - 1
                elif text[pos] == '"':
                    if is_logging:
                        is_logging = record(Kind.MISSING_COMMA, pos)
                else:
                    place = AFTER
        except IndexError:
            pass  # the text ends
        finally:
            buffer.pos = pos
            stack.closers, stack.is_in_object = closers, is_object
            stack.place, stack.comma_at = place, comma_at

    def _set_key(self, match: re.Match[str]) -> str:
        """Set the key of a member: group 1 (double quotes), 2 (single), 3 (none), 4 (no colon)."""
        group = 1
        if match[4] is not None:
            group = 4
        elif match[1] is None:
            group, kind = (2, Kind.OTHER_QUOTES) if match[3] is None else (3, Kind.UNQUOTED_KEY)
            self._log.add(kind, match.start(group) - (group == 2))
        key: str = match[group]
        if self._stack.set_key(key):
            self._log.add(Kind.REPEATED_KEY, match.start(group) - (group != 3))
        if group == 4:
            self._log.add(Kind.MISSING_COLON, match.end(5))
        return key

    def _scalar(self, match: re.Match[str]) -> Any:
        """Return the value in the last group, whose name is its kind."""
        name = match.lastgroup
        if name == "integer":
            return int(match["integer"])
        assert name is not None
        text: str = match[name]
        if name == "unquoted" or name == "words":  # noqa: PLR1714 - this is faster
            value, kind = parse_scalar(text)
            if kind is not None:
                self._log.add(kind, match.start(name))
            return value
        quote = '"'
        if name != "double":
            quote = "'"
            self._log.add(Kind.OTHER_QUOTES, match.start(name) - 1)
        if quote in text and self._log.remaining:
            for found in _ESCAPE_OR_QUOTE[quote].finditer(match.string, *match.span(name)):
                if found[1]:
                    self._log.add(Kind.INNER_QUOTE, found.start())
        return unescape(text) if "\\" in text else text

    def _decode_valid(self, pos: int) -> tuple[Any, int] | None:
        """Return the value that begins there and its end, if it is JSON without any doubt."""
        text = self._buffer.text
        try:
            value, end = _SCAN(text, pos)
            if not _HALF_PAIR.search(text, pos, end):
                return value, end
        except (ValueError, RecursionError, StopIteration):
            pass
        self._failures += 1
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isfinite(number):
        return number
    raise ValueError


_SCAN = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
).scan_once  # type: ignore[attr-defined]  # as `raw_decode` calls it
