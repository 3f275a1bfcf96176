"""Valid values in a text that is none, at the speed of a JSON parser."""

from __future__ import annotations

import json
import math
import re
from typing import Any

__all__ = ["valid_at"]

_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def valid_at(text: str, pos: int) -> tuple[Any, int] | None:
    """The value that begins there and where it ends, if all of it is JSON without oddities."""
    try:
        value, end = _SCAN(text, pos)
    except (ValueError, StopIteration, RecursionError):
        return None
    return None if _HALF_PAIR.search(text, pos, end) else (value, end)


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
).scan_once
