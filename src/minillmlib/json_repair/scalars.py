"""Values without quotes or brackets: numbers, literals and unquoted strings, and where they end."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from minillmlib.json_repair.buffer import SPACES, InputBuffer
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import ParseStack
from minillmlib.json_repair.quotes import (
    FLAT_LIST,
    OPENING_BRACKETS,
    OTHER_COMMAS,
    WIDE_BRACKETS,
    is_key_at,
    is_last_string_at,
)

_DECODER = msgspec.json.Decoder()

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+", re.ASCII)
_SHORT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]{1,15}+)?+", re.ASCII)
_DIGITS = "[0-9]++(?:_[0-9]++)*+"
_DECIMAL = rf"(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})"
_NONSTANDARD_NUMBER = re.compile(rf"[+-]?{_DECIMAL}(?:[eE][+-]?[0-9]++)?+", re.ASCII)
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
_MAX_DIGITS = 4300  # Python refuses to read longer ones

_LITERALS = {"true": True, "false": False, "null": None}
_NUMBER_STARTS = frozenset("+-.0123456789")
_NO_NUMBERS = {"nan", "infinity", "inf"}
_WORDS: dict[str, tuple[Any, Kind]] = {  # in lower case
    **{word: (value, Kind.OTHER_LITERAL) for word, value in _LITERALS.items()},
    **dict.fromkeys(("none", "nil", "undefined"), (None, Kind.OTHER_LITERAL)),
    **dict.fromkeys(_NO_NUMBERS, (None, Kind.NOT_A_NUMBER)),
}
_COMPLETIONS = {**_LITERALS, "True": True, "False": False, "None": None}
_UNQUOTED_STRING = Kind.UNQUOTED_STRING

_WORD = re.compile(r"([-+.\w]*+)(\s*+)")
_KEY_AFTER_COMMA = re.compile(rf",({SPACES})(?:[\w$-]++\s*+([:=])?+)?+")
_WORD_AFTER_COMMA = re.compile(r",\s*+([^\W\d]\w*+\s*+)?+")
_STARTS_AFTER_COMMA = frozenset("\"'`\u201c\u2018\uff02\uff5d\uff3d}],{/#\\.\u2026")
_COMMENT = re.compile(r"\s(?://|/\*|#)|/\*[^*]*+\*/")
_PLAIN = r"[^,{}\])\n\"]++"
_BRACES = r"\{[^{}\n\"]*+\}?+"
_WORD_WITHOUT_COLON = r"[\w$-]++\s*+[^\s:=\w$-]"
_NO_KEY_OR_VALUE = r"[^\s\w$\"'`\u201c\u2018}\],{/#\\.\u2026-]"
_COMMA_IN_TEXT = rf",(?=\s*+(?:{_WORD_WITHOUT_COLON}|{_NO_KEY_OR_VALUE}))"
_UNQUOTED = re.compile(f"(?:{_PLAIN}|{_BRACES})*+")
_UNQUOTED_IN_OBJECT = re.compile(f"(?:{_PLAIN}|{_BRACES}|{_COMMA_IN_TEXT})*+")


def parse_scalar(token: str) -> tuple[Any, Kind | None]:
    """Return the value of an unquoted token and the change that it needed."""
    if token in _LITERALS:
        return _LITERALS[token], None
    if token[0] in _NUMBER_STARTS:
        return _parse_number(token)
    return _WORDS.get(token.lower()) or (token, _UNQUOTED_STRING)


def _parse_number(token: str) -> tuple[Any, Kind | None]:
    if _SHORT_NUMBER.fullmatch(token):
        return _DECODER.decode(token), None
    if token.lstrip("+-").lower() in _NO_NUMBERS:
        return None, Kind.NOT_A_NUMBER
    is_json = _NUMBER.fullmatch(token) is not None
    is_number = is_json or (_NONSTANDARD_NUMBER.fullmatch(token) and not _LEADING_ZERO.match(token))
    if not is_number or len(token) > _MAX_DIGITS:
        return token, _UNQUOTED_STRING
    number = float(token) if set(token) & set(".eE") else int(token)
    if number in {math.inf, -math.inf}:
        return None, Kind.NOT_A_NUMBER
    return number, None if is_json else Kind.NONSTANDARD_NUMBER


def complete_scalar(token: str) -> tuple[Any, Kind]:
    """Return the value of an unquoted token that the end of the text may have truncated."""
    for word, value in _COMPLETIONS.items():
        if word.startswith(token):
            return value, Kind.TRUNCATED_LITERAL
    if token[0] in _NUMBER_STARTS:
        number = _NUMBER.match(token)
        if number and token[number.end() :].lower() in {".", "e", "e+", "e-"}:
            token = number[0]
        elif token in {"-", "+", "."}:
            return None, Kind.TRUNCATED_LITERAL
    value, kind = parse_scalar(token)
    return value, kind or Kind.TRUNCATED_LITERAL


def unquoted_end(buffer: InputBuffer, stack: ParseStack) -> int:
    """Return the end of the number, literal or unquoted string at the next character."""
    word = buffer.match(_WORD, buffer.pos)
    if word[1] and _is_whole_value(buffer, stack, word):
        return word.end(1)
    pos = buffer.pos
    pattern = _UNQUOTED_IN_OBJECT if stack.is_in_object else _UNQUOTED
    while not _is_end(buffer, stack, pos := buffer.match(pattern, pos).end()):
        pos += 1
    comment = _COMMENT.search(buffer.text, buffer.pos, pos)
    return comment.start() if comment else pos


def _is_end(buffer: InputBuffer, stack: ParseStack, pos: int) -> bool:
    char = buffer.char_at(pos)
    if char == ",":
        return _is_end_at_comma(buffer, stack, pos)
    if char == '"':
        return stack.is_in_object and is_key_at(buffer, pos)
    return char in ("", "\n") or char in stack.closers


def _is_whole_value(buffer: InputBuffer, stack: ParseStack, word: re.Match[str]) -> bool:
    end = word.end()
    char = buffer.char_at(end)
    if char == "" or char in "}])" or "\n" in word[2]:
        return True
    is_scalar = parse_scalar(word[1])[1] is not _UNQUOTED_STRING
    if is_scalar and (char == "\\" or char in OTHER_COMMAS or char in WIDE_BRACKETS):
        return _is_end_at_other(buffer, stack, end)
    is_before_value = char == "{" and not word[2]
    if not stack.is_in_object and word[2]:
        is_before_value = char in "-+." or char.isdecimal()
    if char != "," and not is_before_value:
        return char in "\"'{[#/" and word[2] != ""
    if char != "," or (is_scalar and word[1][0].isalpha()):
        return is_scalar
    return _is_end_at_comma(buffer, stack, end) or (is_scalar and _is_before_list(buffer, end))


def _is_end_at_other(buffer: InputBuffer, stack: ParseStack, pos: int) -> bool:
    """Whether a full-width bracket, an escaped line break, or a comma and the next token follow."""
    char = buffer.char_at(pos)
    if char == "\\":
        return buffer.skip_escaped_space(pos) > pos
    if char in WIDE_BRACKETS:
        return True
    after = buffer.skip_space(pos + 1)
    if stack.is_in_object:
        return is_key_at(buffer, after)
    char = buffer.char_at(after)
    return char in OPENING_BRACKETS or char in ('"', "-") or char.isdecimal()


def _is_before_list(buffer: InputBuffer, pos: int) -> bool:
    """Whether a list without a key or a key without a colon follows the comma there."""
    word = buffer.match(_WORD_AFTER_COMMA, pos)
    char = buffer.char_at(word.end())
    if word[1] is None:
        return char == "[" and buffer.match(FLAT_LIST, word.end())[1] is not None
    return char == '"' and is_last_string_at(buffer, word.end())


def _is_end_at_comma(buffer: InputBuffer, stack: ParseStack, pos: int) -> bool:
    """Whether the comma there ends the text; in an object, not if no key follows: `1,000`."""
    if not stack.is_in_object:
        return True
    match = buffer.match(_KEY_AFTER_COMMA, pos)
    char = buffer.char_at(match.end(1))
    return match[2] is not None or char == "" or char in _STARTS_AFTER_COMMA
