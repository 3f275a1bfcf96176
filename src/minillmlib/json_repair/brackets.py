"""What a closing bracket means where another one was due."""

from __future__ import annotations

import re
from enum import Enum, auto

from minillmlib.json_repair.growing import Growing
from minillmlib.json_repair.window import Window

__all__ = ["Closing", "is_key_after_bracket", "meaning_of"]

_SPACE = re.compile(r"\s*+")
_BRACKET_AND_KEY = re.compile(r'[}\])]\s*+(?:,\s*+(?:"[^"\\\n]*+(?:"\s*+(:)?+)?+)?+)?+')


class Closing(Enum):
    """What a closing bracket closes."""

    INNERMOST = auto()
    INNERMOST_IN_ITS_PLACE = auto()  # it is of the wrong kind
    OUTER = auto()  # the brackets of what is open within are missing
    NOTHING = auto()  # it is one too many


def meaning_of(char: str, window: Window, growing: Growing) -> Closing:
    """What the closing bracket means that stands at the next character."""
    if growing.closers[-1] == char:
        goes_on = (
            char == "}" and len(growing.open) == 1 and is_key_after_bracket(window, window.pos)
        )
        return Closing.NOTHING if goes_on else Closing.INNERMOST
    if not growing.awaits(char):
        is_stray = _is_in_between(char, window)
        return Closing.NOTHING if is_stray else Closing.INNERMOST_IN_ITS_PLACE
    is_for_inner = char == "}" and len(growing.open) == 2 and type(growing.open[-2]) is dict
    if is_for_inner and is_key_after_bracket(window, window.pos):
        return Closing.INNERMOST_IN_ITS_PLACE
    return Closing.OUTER


def is_key_after_bracket(window: Window, pos: int) -> bool:
    """Whether a comma and another key follow the bracket there, so that the object goes on."""
    following = window.text[pos + 1 : pos + 2]
    if following != "," and following != "" and not following.isspace():
        return False
    return window.look(_BRACKET_AND_KEY, pos)[1] is not None


def _is_in_between(char: str, window: Window) -> bool:
    """Whether the value goes on after a bracket that closes nothing."""
    following = window.char(window.look(_SPACE, window.pos + 1).end())
    return char == ")" or (following != "" and following in ',"')
