"""Where what has no quotes ends: numbers, literals, and strings that lack them."""

from __future__ import annotations

import re

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import Growing
from minillmlib.json_repair.quotes import FLAT_LIST, is_key_at, is_last_string_at
from minillmlib.json_repair.scalars import scalar_of

__all__ = ["end_of_bare"]

_SIMPLE = re.compile(r"([-+.\w]*+)(\s*+)")
_KEY_AFTER_COMMA = re.compile(r",(\s*+)(?:[\w$-]++\s*+([:=])?+)?+")
_WORD_AFTER_COMMA = re.compile(r",\s*+([^\W\d]\w*+\s*+)?+")
_AFTER_COMMA = frozenset("\"'`\u201c\u2018}],{/#\\.\u2026")
_COMMENT_AHEAD = re.compile(r"\s(?://|/\*|#)|/\*[^*]*+\*/")
_TEXT = r"[^,{}\])\n\"]++|\{[^{}\n\"]*+\}?+"
_NO_END = r",(?=\s*+(?:[\w$-]++\s*+[^\s:=\w$-]|[^\s\w$\"'`\u201c\u2018}\],{/#\\.\u2026-]))"
_BARE = re.compile(f"(?:{_TEXT})*+")
_BARE_IN_OBJECT = re.compile(f"(?:{_TEXT}|{_NO_END})*+")


def end_of_bare(window: Window, growing: Growing) -> int:
    """Where the number, literal or text without quotes ends that begins here."""
    match = window.look(_SIMPLE, window.pos)
    if match[1] and _ends_here(window, growing, match):
        return match.end(1)
    place = window.pos
    bare = _BARE_IN_OBJECT if growing.is_in_object else _BARE
    while True:
        place = window.look(bare, place).end()
        if _is_end(window, growing, place):
            break
        place += 1
    comment = _COMMENT_AHEAD.search(window.text, window.pos, place)
    return comment.start() if comment else place


def _is_end(window: Window, growing: Growing, pos: int) -> bool:
    char = window.char(pos)
    if char == ",":
        return _is_end_at_comma(window, growing, pos)
    if char == '"':
        return growing.is_in_object and is_key_at(window, pos)
    return char in ("", "\n") or growing.awaits(char)


def _ends_here(window: Window, growing: Growing, match: re.Match[str]) -> bool:
    char = window.char(match.end())
    if char == "" or char in "}])" or "\n" in match[2]:
        return True
    if char == ",":
        is_scalar = scalar_of(match[1])[1] is not Kind.BARE_STRING
        if is_scalar and match[1][0].isalpha():
            return True
        return _is_end_at_comma(window, growing, match.end()) or (
            is_scalar and _is_end_before_odd_member(window, match.end())
        )
    if not growing.is_in_object and match[2] and (char in "-+." or char.isdecimal()):
        return scalar_of(match[1])[1] is not Kind.BARE_STRING
    if char == "{" and not match[2]:
        return scalar_of(match[1])[1] is not Kind.BARE_STRING
    return char in "\"'{[#/" and match[2] != ""


def _is_end_before_odd_member(window: Window, pos: int) -> bool:
    """Whether a key without a colon or a list without a key follows the comma there."""
    word = window.look(_WORD_AFTER_COMMA, pos)
    char = window.char(word.end())
    if word[1] is None:
        return char == "[" and window.look(FLAT_LIST, word.end())[1] is not None
    return char == '"' and is_last_string_at(window, word.end())


def _is_end_at_comma(window: Window, growing: Growing, pos: int) -> bool:
    """In an object, a comma that no key follows belongs to the text: `1,000`."""
    if not growing.is_in_object:
        return True
    match = window.look(_KEY_AFTER_COMMA, pos)
    char = window.char(match.end(1))
    return match[2] is not None or char == "" or char in _AFTER_COMMA
