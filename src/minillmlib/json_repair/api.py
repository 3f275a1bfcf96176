"""Repairs broken JSON text, whole or in pieces."""

from __future__ import annotations

import contextlib
import json
import re
from operator import itemgetter
from typing import Any

import msgspec

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.changes import MAX_CHANGES, JsonChange, JsonChangeKind, RepairResult
from minillmlib.json_repair.scalars import parse_scalar
from minillmlib.json_repair.scanner import Scanner
from minillmlib.json_repair.select import Candidate

_MEMBERS_ONLY = re.compile(r'\s*+"[^"\\\n]*+"\s*+:')
_OPENERS = frozenset("\"'(\u201c\u2018\u201e\u00ab")
_DOUBTFUL = {JsonChangeKind.UNQUOTED_STRING, JsonChangeKind.INNER_QUOTE}
_SURROUNDING_CHARS = " \t\r\n\ufeff"
# One value in a fence or in prose without brackets or tags, decoded at once: 29 us, not 127.
_PROSE = r"[^{\[<]*+"
_CONTAINER = r"""(?>(?:\{\s*+["}]|\[\s*+["{\[\]-]).*[}\]])"""
_ONLY_VALUE = re.compile(rf"""{_PROSE}({_CONTAINER})(?!\s*+,\s*+"){_PROSE}\Z""", re.DOTALL)
_TOKEN = re.compile(r"[-+.\w]++")
_DECODER = msgspec.json.Decoder()


def loads(text: str) -> Any:
    """Return the value of a JSON text, repaired if need be.

    It is the last object or array of the text, or the first of several that follow each other
    without a word between them, and never one from `<think>` parts. O(length).

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _find_value(text)


def repair_json(text: str) -> str:
    """Return the text unchanged if it is JSON, or else `loads(text)` as JSON text.

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    with contextlib.suppress(ValueError, RecursionError):
        _DECODER.decode(text)
        return text
    try:
        return json.dumps(_find_value(text), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise JsonRepairError("the JSON is nested too deeply to be written here") from None


def repair(text: str) -> RepairResult:
    """Return the same value as `loads`, and every change that was needed for it.

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return PartialJson().finish(text)
    return RepairResult(value=value, candidates=(value,))


def _find_value(text: str) -> Any:
    if only := _ONLY_VALUE.match(text):
        with contextlib.suppress(ValueError, RecursionError):
            return _DECODER.decode(only[1])
    scanner = Scanner(max_changes=0)
    scanner.finish(text)
    best = scanner.best()
    return best.value if best else _repair_prose(scanner).value


class PartialJson:
    """The values in a text that comes in pieces.

    A finished part of a value is never taken back: keys, elements and finished scalars stay,
    strings and containers only grow. Numbers and literals appear when they are finished. Where
    the text is broken, the last string may still lose its end or turn out to be a key, and a
    `</think>` without its beginning takes back all before it. The pieces may be of any size; the
    end is that of `repair` on the whole text.
    """

    def __init__(self) -> None:
        self._scanner = Scanner()

    def feed(self, piece: str) -> None:
        """Add the next piece. Raises `JsonRepairError` if the text nests too deeply."""
        self._scanner.feed(piece)

    @property
    def value(self) -> Any:
        """The known part of the value, or None before it begins.

        The containers are the same ones each time and still grow; copy what must not. Raises
        `JsonRepairError` if the text so far nests too deeply.
        """
        self._scanner.catch_up()
        self._scanner.stack.refresh_string()
        best = self._scanner.best()
        return None if best is None else best.value

    def finish(self, piece: str = "") -> RepairResult:
        """Add the last piece and return the result. Raises `JsonRepairError` if there is none."""
        scanner = self._scanner
        scanner.finish(piece)
        best = scanner.best()
        if best is None:
            return _repair_prose(scanner)
        return RepairResult(
            value=best.value,
            changes=_changes_of(best, scanner),
            complete=best.is_complete,
            candidates=tuple(candidate.value for candidate in scanner.candidates),
        )


def _changes_of(best: Candidate, scanner: Scanner) -> tuple[JsonChange, ...]:
    """Return the changes in this value and around it; of other values, only that they exist."""
    others = [candidate for candidate in scanner.candidates if candidate is not best]
    changes = [(other.start, JsonChangeKind.OTHER_VALUES) for other in others[:MAX_CHANGES]]
    changes += [
        (position, JsonChangeKind.LONE_SURROGATE)
        for position in scanner.buffer.surrogates[:MAX_CHANGES]
    ]
    spans = iter(others)
    other = next(spans, None)
    for change in scanner.log.changes:
        while other and other.end is not None and change[0] >= other.end:
            other = next(spans, None)
        if other is None or change[0] < other.start:
            changes.append(change)
    changes.sort(key=itemgetter(0))
    return _as_changes(changes)


def _as_changes(changes: list[tuple[int, JsonChangeKind]]) -> tuple[JsonChange, ...]:
    return tuple(JsonChange(position=place, kind=kind) for place, kind in changes[:MAX_CHANGES])


def _repair_prose(scanner: Scanner) -> RepairResult:
    """Read the last code block of a text without objects or arrays, or else all of the text."""
    if scanner.last_block and (found := _repair_block(*scanner.last_block, scanner)):
        return found
    return _repair_scalar("".join(scanner.prose))


def _repair_block(text: str, start: int, scanner: Scanner) -> RepairResult | None:
    try:
        found = _repair_scalar(text)
    except JsonRepairError:
        return None
    if not found.complete and type(found.value) is not dict:
        return None
    end = start + len(text)
    around = [change for change in scanner.log.changes if not start <= change[0] < end]
    inside = [(start + change.position, change.kind) for change in found.changes]
    return msgspec.structs.replace(found, changes=_as_changes(sorted(around + inside)))


def _repair_scalar(text: str) -> RepairResult:
    """Read a text that is one string, tuple, number or literal, or members without braces."""
    if _MEMBERS_ONLY.match(text):
        found = _repair_after("{", text)
        first = JsonChange(position=0, kind=JsonChangeKind.MISSING_BRACKET)
        return msgspec.structs.replace(found, changes=(first, *found.changes))
    alone = text.strip(_SURROUNDING_CHARS)
    if alone[:1] in _OPENERS and len(alone) > 1 and (alone[0] != "(" or alone[-1] == ")"):
        for closer in ("]", ""):
            found = _repair_after("[", text + closer)
            is_sure = _DOUBTFUL.isdisjoint(change.kind for change in found.changes)
            is_whole = type(found.value) is list and found.complete == bool(closer)
            if is_whole and len(found.value) > 1:
                break
            if is_sure and is_whole and found.value:
                return msgspec.structs.replace(found, value=found.value[0], candidates=())
    if _TOKEN.fullmatch(alone):
        value, kind = parse_scalar(alone)
        if kind is not JsonChangeKind.UNQUOTED_STRING:
            changes = () if kind is None else (JsonChange(position=text.index(alone), kind=kind),)
            return RepairResult(value=value, changes=changes)
    raise JsonRepairError(f"there is no JSON in the text: {alone[:80]!r}")


def _repair_after(bracket: str, text: str) -> RepairResult:
    """Repair the text as if this bracket were before it."""
    found = PartialJson().finish(bracket + text)
    changes = tuple(
        msgspec.structs.replace(change, position=max(change.position - 1, 0))
        for change in found.changes
    )
    return msgspec.structs.replace(found, changes=changes)
