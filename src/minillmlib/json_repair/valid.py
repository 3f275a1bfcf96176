"""Valid values in a text that is none, at the speed of a JSON parser."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from minillmlib.json_repair.buffer import Window

__all__ = ["WORTH_TRYING", "ValidValues"]

WORTH_TRYING = 500  # characters: a try in vain costs more than reading a short value
_MOST_TRIES = 8  # in vain, since each costs up to all of the text
_BEGINS = re.compile(r"[{\[]\s*+[\"{\[\]}0-9tfn-]")
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


class ValidValues:
    """Looks for them at the next character."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._tries = _MOST_TRIES

    @property
    def may_come(self) -> bool:
        """Whether it is worth to look."""
        return self._window.is_whole and self._tries > 0

    def next(self) -> tuple[Any, int] | None:
        """The value that begins here and where it ends, if the text is whole and it is JSON."""
        window = self._window
        text, pos = window.text, window.pos
        if self._tries == 0 or not window.is_whole or not _BEGINS.match(text, pos):
            return None
        try:
            value, end = _SCAN(text, pos)
        except (ValueError, RecursionError, StopIteration):
            self._tries -= 1
            return None
        has_escapes = text.find("\\u", pos, end) >= 0
        return None if has_escapes and _HALF_PAIR.search(text, pos, end) else (value, end)


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isfinite(number):
        return number
    raise ValueError


def _refused(name: str) -> None:
    raise ValueError(name)


_SCAN = json.JSONDecoder(
    object_pairs_hook=_unrepeated, parse_float=_finite, parse_constant=_refused
).scan_once  # type: ignore[attr-defined]  # as `raw_decode` calls it
