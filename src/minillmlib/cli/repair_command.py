"""The command that repairs JSON: one text, or one text in each line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from minillmlib import JsonRepairError, repair, repair_json
from minillmlib.cli.terminal import show_error, show_note

__all__ = ["mend"]


def mend(path: Path | None, *, is_strict: bool, shows_changes: bool) -> bool:
    """Writes the JSON of a file, or of the standard input. Whether all of it could be written.

    Of JSON lines, each is repaired and written before the next is read.
    """
    is_whole = True
    with _opened(path) as source:
        for place, text in _texts(source):
            try:
                mended = _mended(text, place, is_strict=is_strict, shows_changes=shows_changes)
            except JsonRepairError as error:
                show_error(f"{place}{error}")
                is_whole = False
            else:
                sys.stdout.write(mended + "\n")
    return is_whole


def _opened(path: Path | None) -> contextlib.AbstractContextManager[TextIO]:
    if path is None:
        return contextlib.nullcontext(sys.stdin)
    return path.open(encoding="utf-8", errors="replace")


def _texts(source: TextIO) -> Iterator[tuple[str, str]]:
    """The text, or each line of JSON lines after a name for it.

    They are JSON lines if the first two that are not blank begin like containers and the first
    of them has its end.
    """
    start = ""
    numbered = enumerate(source, start=1)
    for number, line in numbered:
        start += line
        if not line.strip():
            continue
        if not _is_container(start):
            break
        for next_number, following in numbered:
            if following.strip():
                if following.lstrip()[0] not in "{[":
                    start += following
                    break
                yield f"line {number}: ", start.strip()
                yield f"line {next_number}: ", following.strip()
                yield from ((f"line {at}: ", text.strip()) for at, text in numbered if text.strip())
                return
        break
    yield "", (start + source.read()).rstrip("\n")


def _is_container(text: str) -> bool:
    if text.lstrip()[0] not in "{[":
        return False
    try:
        return repair(text).complete
    except JsonRepairError:
        return False


def _mended(text: str, place: str, *, is_strict: bool, shows_changes: bool) -> str:
    if not (is_strict or shows_changes):
        return repair_json(text)
    found = repair(text)
    for change in found.changes if shows_changes else ():
        show_note(f"{place}character {change.position}: {change.kind}")
    if is_strict and found.changes:
        first = found.changes[0]
        raise JsonRepairError(f"this is not JSON: character {first.position}: {first.kind}")
    return repair_json(text)
