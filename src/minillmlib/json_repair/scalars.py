"""Values without quotes or brackets: numbers, literals, and what stands in their place."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from minillmlib.json_repair.changes import JsonChangeKind as Kind

__all__ = ["completed", "scalar_of"]

_DECODER = msgspec.json.Decoder()

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?+([eE][+-]?[0-9]++)?+", re.ASCII)
_SHORT_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]{1,15}+)?+(?![\d.eE])", re.ASCII)
_ODD_NUMBER = re.compile(r"[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+", re.ASCII)
_ZEROS_FIRST = re.compile(r"[+-]?0[0-9]")
_GROUPED = re.compile(r"[+-]?[0-9]++(?:_[0-9]++)++", re.ASCII)
_MOST_DIGITS = 4300  # Python refuses to read longer ones

_LITERALS = {"true": True, "false": False, "null": None}
_TOKENS: dict[str, tuple[Any, Kind | None]] = {
    **{token: (value, None) for token, value in _LITERALS.items()},
    "True": (True, Kind.OTHER_LITERAL),
    "False": (False, Kind.OTHER_LITERAL),
    "None": (None, Kind.OTHER_LITERAL),
}
_OTHERS = {"none": None, "nil": None, "undefined": None}
_NO_NUMBERS = {"nan", "infinity", "inf"}


def scalar_of(token: str) -> tuple[Any, Kind | None]:
    """The value that a token without quotes stands for, and what was guessed."""
    if (known := _TOKENS.get(token)) is not None:
        return known
    if token[0] in "+-.0123456789":
        return _number_of(token)
    lower = token.lower()
    if lower in _LITERALS:
        return _LITERALS[lower], Kind.OTHER_LITERAL
    if lower in _OTHERS:
        return _OTHERS[lower], Kind.OTHER_LITERAL
    if lower in _NO_NUMBERS:
        return None, Kind.NOT_A_NUMBER
    return token, Kind.BARE_STRING


def _number_of(token: str) -> tuple[Any, Kind | None]:
    if _SHORT_NUMBER.fullmatch(token):
        return _DECODER.decode(token), None
    if (found := _NUMBER.fullmatch(token)) and len(token) <= _MOST_DIGITS:
        if found[1] is None and found[2] is None:
            return int(token), None
        number = float(token)
        return (number, None) if math.isfinite(number) else (None, Kind.NOT_A_NUMBER)
    if token.lstrip("+-").lower() in _NO_NUMBERS:
        return None, Kind.NOT_A_NUMBER
    if len(token) <= _MOST_DIGITS:
        if _GROUPED.fullmatch(token) and not _ZEROS_FIRST.match(token):
            return int(token), Kind.ODD_NUMBER
        if _ODD_NUMBER.fullmatch(token) and not _ZEROS_FIRST.match(token):
            return _odd_number(token)
    return token, Kind.BARE_STRING


def _odd_number(token: str) -> tuple[Any, Kind]:
    if not set(token) & set(".eE"):
        return int(token), Kind.ODD_NUMBER
    number = float(token)
    return (number, Kind.ODD_NUMBER) if math.isfinite(number) else (None, Kind.NOT_A_NUMBER)


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
