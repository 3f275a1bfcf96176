"""Repairs JSON: one text, or JSON lines one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TextIO

from minillmlib import JsonRepairError, repair, repair_json
from minillmlib.cli.terminal import show_error, show_line
from minillmlib.cli.tree_view import DIM


def repair_stream(path: Path | None, *, is_strict: bool, shows_changes: bool) -> bool:
    """Write the JSON of a file or of standard input; return whether every text had some.

    Of JSON lines, each is repaired and written before the next is read.
    """
    is_complete = True
    opened = path.open(encoding="utf-8", errors="replace") if path else nullcontext(sys.stdin)
    with opened as source:
        for place, text in _texts(source):
            try:
                repaired = _repair(text, place, is_strict=is_strict, shows_changes=shows_changes)
            except JsonRepairError as error:
                show_error(f"{place}{error}")
                is_complete = False
            else:
                sys.stdout.write(repaired + "\n")
    return is_complete


def _texts(source: TextIO) -> Iterator[tuple[str, str]]:
    """Yield the whole text after `""`, or each line of JSON lines after its name.

    The source is JSON lines if its first two lines that are not blank start like containers and
    the first of them is complete.
    """
    start, first = "", list[tuple[str, str]]()
    named = ((f"line {number}: ", line) for number, line in enumerate(source, start=1))
    for name, line in named:
        if not start:
            line = line.removeprefix("\ufeff")  # noqa: PLW2901 - without the byte order mark
        start += line
        if line.strip():
            if not (line.lstrip()[0] in "{[" if first else _is_container(line)):
                break
            first.append((name, line.strip()))
        if len(first) == 2:
            yield from first
            yield from ((name, line.strip()) for name, line in named if line.strip())
            return
    yield "", (start + source.read()).rstrip("\n")


def _is_container(text: str) -> bool:
    with suppress(JsonRepairError):
        return text.lstrip()[0] in "{[" and repair(text).complete
    return False


def _repair(text: str, place: str, *, is_strict: bool, shows_changes: bool) -> str:
    if is_strict or shows_changes:
        changes = repair(text).changes
        for change in changes if shows_changes else ():
            show_line(f"{place}character {change.position}: {change.kind}", DIM)
        if is_strict and changes:
            first = changes[0]
            raise JsonRepairError(
                f"this is not valid JSON: character {first.position}: {first.kind}; "
                "omit --strict to repair it"
            )
    return repair_json(text)
