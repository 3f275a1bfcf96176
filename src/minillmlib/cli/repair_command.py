"""Repairs JSON: one text, or JSON lines one by one. Reports every value that it does not write."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from minillmlib import JsonChangeKind, JsonRepairError, RepairResult, repair
from minillmlib.cli.terminal import decode_lines, show_error, show_line
from minillmlib.cli.tree_view import DIM
from minillmlib.json_repair.changes import MAX_CHANGES

OUTSIDE_CHANGES = {JsonChangeKind.SURROUNDINGS, JsonChangeKind.FENCE, JsonChangeKind.JUNK}


_RECORD_START = re.compile(r"\{\s*[\"']")


class _Text(NamedTuple):
    """A text to repair, and its place in the input, or `""` if it is the whole input."""

    place: str
    text: str


class _Repaired(NamedTuple):
    """The values of a text as JSON.

    `lost` is the place of a value that is not among them. `is_cut_off`: the text ended within the
    last one.
    """

    written: list[str]
    lost: int | None = None
    is_cut_off: bool = False


def repair_stream(path: Path | None, *, is_strict: bool, shows_changes: bool) -> bool:
    """Write the JSON of a file or of standard input; return whether nothing is missing.

    Of JSON lines, each is repaired and written before the next is read.
    """
    is_whole, cut_off = True, ""
    with path.open("rb") if path else nullcontext(sys.stdin.buffer) as source:
        for place, text in _texts(decode_lines(source)):
            if cut_off:
                show_error(f"{cut_off}the value does not end on its line")
                is_whole, cut_off = False, ""
            try:
                result = _repair(text, place, is_strict=is_strict, shows_changes=shows_changes)
            except JsonRepairError as error:
                show_error(f"{place}{error}")
                is_whole = False
                continue
            sys.stdout.writelines(f"{one}\n" for one in result.written)
            cut_off = place if result.is_cut_off else ""
            if result.lost is not None:
                show_error(
                    f"{place}the value at character {result.lost} was not written: the text has "
                    "several, with words between them; put each on a line of its own"
                )
                is_whole = False
    return is_whole


def _texts(lines: Iterator[str]) -> Iterator[_Text]:
    """Yield the whole text, or each line of JSON lines.

    The source is JSON lines if its first two lines that are not blank are values alone, or if all
    values of the text are, or if an object begins on every line.
    """
    start, first = "", list[_Text]()
    named = (_Text(f"line {number}: ", line) for number, line in enumerate(lines, start=1))
    for one in named:
        start += one.text
        if one.text.strip():
            if not _is_json(one.text) and _container(one.text) is None:
                break
            first.append(_strip(one))
        if len(first) == 2:
            yield from first
            yield from (_strip(one) for one in named if one.text.strip())
            return
    whole = (start + "".join(one.text for one in named)).rstrip("\r\n")
    yield from _records(whole) or [_Text("", whole)]


def _strip(one: _Text) -> _Text:
    return _Text(one.place, one.text.strip())


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        msgspec.json.decode(text)
        return True
    return False


def _container(line: str) -> RepairResult | None:
    """Return the object or list that a line begins with and holds to its end, else None."""
    with suppress(JsonRepairError):
        if line.lstrip()[:1] in ("{", "["):
            result = repair(line)
            return result if result.complete else None
    return None


def _records(text: str) -> list[_Text]:
    """Return the lines of a text of several values, if each is on a line of its own; else none."""
    if _is_json(text):
        return []
    try:
        candidates = list(repair(text).candidates)
    except JsonRepairError:
        candidates = []
    lines = [
        _Text(f"line {number}: ", line.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    starts = [_RECORD_START.match(line) for line in text.split("\n") if line.strip()]
    if len(starts) > 1 and all(starts):  # no single object looks like this
        return lines
    containers = [found for one in lines if (found := _container(one.text)) is not None]
    values = [value for found in containers for value in found.candidates]
    scalars = sum(_is_json(one.text) and one.text[0] not in "{[" for one in lines)
    return lines if values == candidates and len(containers) + scalars > 1 else []


def _repair(text: str, place: str, *, is_strict: bool, shows_changes: bool) -> _Repaired:
    if _is_json(text):
        return _Repaired([text])
    result = repair(text)
    for change in result.changes if shows_changes else ():
        show_line(f"{place}character {change.position}: {change.kind}", DIM)
    if is_strict:
        first = result.changes[0]
        raise JsonRepairError(
            f"this is not valid JSON: character {first.position}: {first.kind}; "
            "omit --strict to repair it"
        )
    lost = _first_unused(result)
    if lost is None:
        return _Repaired([_encode(result.value)], is_cut_off=not result.complete)
    if OUTSIDE_CHANGES.isdisjoint(change.kind for change in result.changes):
        return _Repaired(list(map(_encode, result.candidates)), is_cut_off=not result.complete)
    return _Repaired([_encode(result.value)], lost=lost)


def _first_unused(result: RepairResult) -> int | None:
    """Return the place of the first value that is not part of the result, or None."""
    unused = (c.position for c in result.changes if c.kind is JsonChangeKind.OTHER_VALUES)
    is_listed = len(result.changes) < MAX_CHANGES or len(result.candidates) < 2
    return next(unused, None if is_listed else result.changes[-1].position)


def _encode(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise JsonRepairError("the JSON is nested too deeply to be written here") from None
