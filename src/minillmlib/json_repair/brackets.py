"""What a closing bracket means where another one was due."""

from __future__ import annotations

import re
from typing import Any

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import JsonChangeKind as Kind

__all__ = ["is_key_after_bracket", "meaning_of"]

_SPACE = re.compile(r"\s*+")
_BRACKET_AND_KEY = re.compile(
    r'[}\])]\s*+(?:,\s*+(?:"[^"\\\n]*+(?:"\s*+(?:(:)|"[^"\\\n]*+(?:"\s*+(\})?+)?+)?+)?+)?+)?+'
)


def meaning_of(
    char: str, window: Window, pos: int, containers: list[Any], closers: str
) -> tuple[int, Kind | None]:
    """How many containers stay open after the closing bracket there, and what was guessed."""
    inner = len(closers) - 1
    if closers[-1] == char:
        goes_on = char == "}" and not inner and is_key_after_bracket(window, pos)
        return (1, Kind.WRONG_BRACKET) if goes_on else (inner, None)
    if char not in closers:
        following = window.char(pos + 1)
        if following.isspace():
            following = window.char(window.look(_SPACE, pos + 1).end())
        goes_on = char == ")" or (following != "" and following in ',"')  # it closes nothing
        return inner + goes_on, Kind.WRONG_BRACKET
    is_for_inner = char == "}" and inner == 1 and type(containers[0]) is dict
    if is_for_inner and is_key_after_bracket(window, pos):
        return inner, Kind.WRONG_BRACKET
    return closers.rindex(char), Kind.MISSING_BRACKET


def is_key_after_bracket(window: Window, pos: int) -> bool:
    """Whether a comma and another key follow the bracket there, so that the object goes on.

    A string without a colon is a key, too, if a string and a closing bracket follow it.
    """
    following = window.text[pos + 1 : pos + 2]
    if following not in {",", ""} and not following.isspace():
        return False
    return window.look(_BRACKET_AND_KEY, pos).lastindex is not None
