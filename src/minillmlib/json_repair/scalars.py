"""Values without quotes or brackets: numbers, literals, and what stands in their place."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from minillmlib.json_repair.changes import JsonChangeKind as Kind

__all__ = ["completed", "scalar_of"]

_DECODER = msgspec.json.Decoder()

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+", re.ASCII)
_SHORT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]{1,15}+)?+", re.ASCII)
_DIGITS = "[0-9]++(?:_[0-9]++)*+"
_ODD_NUMBER = re.compile(
    rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?[0-9]++)?+", re.ASCII
)
_ZEROS_FIRST = re.compile(r"[+-]?0[0-9]")
_MOST_DIGITS = 4300  # Python refuses to read longer ones

_LITERALS = {"true": True, "false": False, "null": None}
_NUMBERS_BEGIN = frozenset("+-.0123456789")
_BARE_STRING = Kind.BARE_STRING
_NO_NUMBERS = {"nan", "infinity", "inf"}
_WORDS: dict[str, tuple[Any, Kind]] = {  # in lower case
    **{word: (value, Kind.OTHER_LITERAL) for word, value in _LITERALS.items()},
    **dict.fromkeys(("none", "nil", "undefined"), (None, Kind.OTHER_LITERAL)),
    **dict.fromkeys(_NO_NUMBERS, (None, Kind.NOT_A_NUMBER)),
}


def scalar_of(token: str) -> tuple[Any, Kind | None]:
    """The value that a token without quotes stands for, and what was guessed."""
    if token in _LITERALS:
        return _LITERALS[token], None
    if token[0] in _NUMBERS_BEGIN:
        return _number_of(token)
    return _WORDS.get(token.lower()) or (token, _BARE_STRING)


def _number_of(token: str) -> tuple[Any, Kind | None]:
    if _SHORT_NUMBER.fullmatch(token):
        return _DECODER.decode(token), None
    if token.lstrip("+-").lower() in _NO_NUMBERS:
        return None, Kind.NOT_A_NUMBER
    is_json = _NUMBER.fullmatch(token) is not None
    is_number = is_json or (_ODD_NUMBER.fullmatch(token) and not _ZEROS_FIRST.match(token))
    if not is_number or len(token) > _MOST_DIGITS:
        return token, Kind.BARE_STRING
    number = float(token) if set(token) & set(".eE") else int(token)
    if number in {math.inf, -math.inf}:
        return None, Kind.NOT_A_NUMBER
    return number, None if is_json else Kind.ODD_NUMBER


def completed(token: str) -> tuple[Any, Kind]:
    """The value of the last token of a text that ended before anything followed it."""
    for words in (_LITERALS, {"True": True, "False": False, "None": None}):
        for word, value in words.items():
            if word.startswith(token):
                return value, Kind.CUT_LITERAL
    if token[0] in "+-.0123456789":
        return _cut_number(token)
    value, kind = scalar_of(token)
    return value, kind or Kind.CUT_LITERAL


def _cut_number(token: str) -> tuple[Any, Kind]:
    """A number may go on after the cut; what is there of it is the value."""
    found = _NUMBER.match(token)
    if found and token[found.end() :].lower() in {".", "e", "e+", "e-"}:
        token = found[0]
    elif token in {"-", "+", "."}:
        return None, Kind.CUT_LITERAL
    value, kind = scalar_of(token)
    return value, kind or Kind.CUT_LITERAL
