"""How two requests differ, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from minillmlib.json_value import JsonValue, excerpt
from minillmlib.recording.records import RecordedRequest

MAX_SHOWN = 5
MAX_LEAVES = 10_000  # of a body that are compared
CONTEXT_CHARS = 20  # shown before the first difference of two texts
SHOWN_CHARS = 60
ABSENT = "nothing"

Leaves = dict[str, JsonValue]


def nearest(
    asked: RecordedRequest, recorded: Iterable[tuple[int, RecordedRequest]]
) -> tuple[int, list[str]] | None:
    """Return the line of the recorded request that differs least, and its differences."""
    wanted = _leaves_of(asked)
    best: tuple[tuple[int, float], int, Leaves] | None = None
    for line, request in recorded:
        found = _leaves_of(request)
        names = _different(wanted, found)
        score = len(names), -sum(_likeness(wanted.get(name), found.get(name)) for name in names)
        if best is None or score < best[0]:
            best = score, line, found
    if best is None:
        return None
    _, line, found = best
    return line, [_describe(name, found, wanted) for name in _different(wanted, found)]


def _different(one: Leaves, other: Leaves) -> list[str]:
    names = dict.fromkeys([*one, *other])
    return [name for name in names if one.get(name, ABSENT) != other.get(name, ABSENT)]


def _likeness(one: JsonValue, other: JsonValue) -> float:
    """Return from 0 to 1 how alike the starts of two texts are."""
    if not isinstance(one, str) or not isinstance(other, str):
        return 0.0
    return difflib.SequenceMatcher(None, one[:200], other[:200]).quick_ratio()


def _leaves_of(request: RecordedRequest) -> Leaves:
    leaves: Leaves = {"the method": request.method, "the address": request.url}
    for name, value in request.compared_headers.items():
        leaves[f"the header {name}"] = value
    data = request.body.data
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        leaves["body"] = data.decode("utf-8", "replace")
        return leaves
    return leaves | dict(islice(_walk("body", value), MAX_LEAVES))


def _walk(name: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    """Yield the leaves of a value, with their paths. Recurses no deeper than JSON is decoded."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _walk(f"{name}.{key}", part)
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from _walk(f"{name}[{number}]", part)
    else:
        yield name, value


def _describe(name: str, recorded: Leaves, wanted: Leaves) -> str:
    one, other = recorded.get(name, ABSENT), wanted.get(name, ABSENT)
    if isinstance(one, str) and isinstance(other, str):
        start = _first_difference(one, other)
        texts = [
            _excerpt_at(text, start, has=name in of)
            for text, of in ((one, recorded), (other, wanted))
        ]
    else:
        texts = [
            excerpt(repr(value), SHOWN_CHARS) if name in of else ABSENT
            for value, of in ((one, recorded), (other, wanted))
        ]
    return f"{name}: recorded {texts[0]}, now {texts[1]}"


def _first_difference(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _excerpt_at(text: str, start: int, *, has: bool) -> str:
    if not has:
        return ABSENT
    start = max(0, start - CONTEXT_CHARS)
    mark = "\N{HORIZONTAL ELLIPSIS}" if start else ""
    return repr(mark + excerpt(text[start:], SHOWN_CHARS))
