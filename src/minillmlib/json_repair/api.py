"""Repairs broken JSON text, whole or in pieces that can be looked at while they come."""

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
from minillmlib.json_repair.select import Candidate, row_of

_MEMBERS_ONLY = re.compile(r'\s*+"[^"\\\n]*+"\s*+:')
_OPENERS = frozenset("\"'(\u201c\u2018\u201e\u00ab")
_DOUBTFUL = {
    JsonChangeKind.UNQUOTED_STRING,
    JsonChangeKind.INNER_QUOTE,
    JsonChangeKind.MISSING_QUOTE,
}
_SURROUNDING_CHARS = " \t\r\n\ufeff"
# One value in a fence or in prose without brackets or tags, decoded at once: 29 us, not 127.
_PROSE = r"[^{\[<\uff5b\uff3b]*+"
_CONTAINER = r"""(?>(?:\{\s*+["}]|\[\s*+["{\[\]-]).*[}\]])"""
_ONLY_VALUE = re.compile(rf"""{_PROSE}({_CONTAINER})(?!\s*+,\s*+"){_PROSE}\Z""", re.DOTALL)
_KEY = re.compile(r"""["']\s*+:\s*+\Z""")  # before a value: the brace around it is missing
_TOKEN = re.compile(r"[-+.\w]++")
_DECODER = msgspec.json.Decoder()


def loads(text: str) -> Any:
    """Return the value of a JSON text, repaired if need be.

    It is the last object or array of the text, or the first of several that follow each other
    without a word between them, and never one from `<think>` parts. O(length).

    Raises:
        JsonRepairError: Nothing in the text could be JSON.

    Examples:
        >>> loads("Sure! {city: 'Oslo',}")
        {'city': 'Oslo'}
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _find_value(text)


def repair_json(text: str) -> str:
    """Return the text unchanged if it is JSON, or else `loads(text)` as JSON text.

    Raises:
        JsonRepairError: Nothing in the text could be JSON.

    Examples:
        >>> repair_json("[1, 2,")
        '[1, 2]'
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

    Examples:
        >>> found = repair('{"city": "Os')
        >>> found.value, found.complete
        ({'city': 'Os'}, False)
    """
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return PartialJson().finish(text)
    return RepairResult(value=value, candidates=(value,))


def _find_value(text: str) -> Any:
    if (only := _ONLY_VALUE.match(text)) and not _KEY.search(text, 0, only.start(1)):
        with contextlib.suppress(ValueError, RecursionError):
            return _DECODER.decode(only[1])
    scanner = Scanner(max_changes=0)
    scanner.finish(text)
    best = scanner.best()
    if best is None:
        return _repair_prose(scanner).value
    candidates = scanner.candidates
    if len(candidates) == 1:
        return best.value
    return _value_of(candidates[row_of(candidates, candidates.index(best), is_joined=True)])


def _value_of(row: list[Candidate]) -> Any:
    return row[0].value if len(row) == 1 else [candidate.value for candidate in row]


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
        candidates = scanner.candidates
        row = row_of(candidates, candidates.index(best), is_joined=True)
        return RepairResult(
            value=_value_of(candidates[row]),
            changes=_changes_of(row, scanner),
            complete=_is_whole(candidates[row]),
            candidates=tuple(candidate.value for candidate in candidates),
            alternatives=_alternatives(candidates, row),
        )


class IncrementalJson(PartialJson):
    """The values in a text that comes in pieces, as snapshots that no later text changes.

    A text that begins with a quote may be one string, whatever follows: it waits for its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._string: list[str] | None = []
        self._is_blank = True

    def feed(self, piece: str) -> None:
        """Add the next piece. Raises `JsonRepairError` if the text nests too deeply."""
        if self._is_blank and (start := piece.lstrip()):
            self._is_blank = False
            if start[0] != '"':
                self._string = None
        if self._string is None:
            super().feed(piece)
        else:
            self._string.append(piece)

    def finish(self, piece: str = "") -> RepairResult:
        """Add the last piece and return the result. Raises `JsonRepairError` if there is none."""
        if self._string is None:
            return super().finish(piece)
        return repair("".join(self._string) + piece)

    def snapshot(self) -> Any:
        """Return the known part of the value, which no later text changes, or None.

        Snapshots share finished parts. O(unfinished parts: a string, and the number of elements
        of each open container and of an array at the end of an open object). Raises
        `JsonRepairError` if the text so far nests too deeply.
        """
        value = self.value
        path = self._scanner.stack.path()
        if not path or path[0][0] is not value:
            return value
        inner: Any = None
        for container, slot in reversed(path):
            copy: Any = container.copy()
            if inner is not None:
                copy[slot] = inner
            if type(copy) is dict and copy:
                last = next(reversed(copy))
                if last != slot and type(copy[last]) is list:
                    copy[last] = copy[last].copy()  # it may continue: `{"a": [1], [2]}`
            inner = copy
        return inner


class IncrementalObject(PartialJson):
    """The members of the one object that a text consists of.

    A member is finished when what follows shows its end, and then keeps its value. So a repeated
    key is an error, and so is a second object that would be the better one. Text that is not JSON
    is an error only if it is strict, and is repaired otherwise.

    Attributes:
        fields: The members so far.
        pending_key: The key of the member that is not finished, or None.
    """

    def __init__(self, *, is_strict: bool) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}
        self.pending_key: str | None = None
        self._pieces: list[str] = []
        self._is_strict = is_strict
        self._is_blank = True
        self._skipped = 0  # candidates before the first object with a member

    def feed(self, piece: str) -> None:
        """Add the next piece. Raises `JsonRepairError` for text that cannot be an object."""
        if self._is_blank and (start := piece.strip(" \t\r\n")):
            self._is_blank = False
            if self._is_strict and start[0] != "{":
                raise JsonRepairError(
                    f"the arguments are no JSON object, they begin with {start[:80]!r}"
                )
        if self._is_strict:
            self._pieces.append(piece)
        super().feed(piece)
        self._update()

    def finish_fields(self) -> dict[str, Any]:
        """Return all members at the end of the text; none for no text or, if lenient, for null."""
        if self._is_blank:
            return self.fields
        value = self.finish().value
        self._update()
        if self._is_strict:
            try:  # the repair does not record all, such as a byte order mark
                _DECODER.decode("".join(self._pieces))
            except (ValueError, RecursionError) as error:
                raise JsonRepairError(f"the arguments are not JSON: {error}") from None
        elif value is None:
            return self.fields
        if not isinstance(value, dict):
            raise JsonRepairError(
                f"the arguments are not an object, but of the type {type(value).__name__}"
            )
        if self.fields and value is not self.fields:
            raise JsonRepairError("the arguments are more than one object")
        self.fields, self.pending_key = value, None
        return value

    def _update(self) -> None:
        self._scanner.catch_up()
        stack = self._scanner.stack
        if self._is_strict and (changes := self._scanner.log.changes):
            position, kind = min(changes)
            raise JsonRepairError(
                f"the arguments are not JSON: at character {position} "
                f"a repair would be needed ({kind})"
            )
        found = self._first_object()
        has_second = self._is_strict and len(self._scanner.candidates) > 1
        if has_second or (self.fields and found is not self.fields):
            raise JsonRepairError("the arguments are more than one object")
        if stack.repeated_key is not None:
            raise JsonRepairError(f"the argument {stack.repeated_key[:80]!r} is there twice")
        stack.refresh_string()
        path = stack.path()
        self.fields = found
        self.pending_key = path[0][1] if path and path[0][0] is found else None

    def _first_object(self) -> dict[str, Any]:
        """Return the first object with a member, or an empty one."""
        candidates = self._scanner.candidates
        while self._skipped < len(candidates):
            value = candidates[self._skipped].value
            if value and isinstance(value, dict):
                return value
            if self._skipped == len(candidates) - 1:
                break
            self._skipped += 1
        return {}


def _alternatives(candidates: list[Candidate], row: slice) -> tuple[Any, ...]:
    """Return the list of the values in a row, and then the other candidates from the last on."""
    longer = candidates[row_of(candidates, row.start, is_joined=False)]
    lists = [_value_of(longer)] if len(longer) > row.stop - row.start and _is_whole(longer) else []
    others = candidates[: row.start] + candidates[row.stop :]
    whole = [
        one.value
        for one in reversed(others)
        if one.value and one.is_complete and not (one.is_weak or one.is_part)
    ]
    return (*lists, *whole)


def _is_whole(row: list[Candidate]) -> bool:
    return all(one.is_complete and not one.is_part for one in row)


def _changes_of(row: slice, scanner: Scanner) -> tuple[JsonChange, ...]:
    """Return the changes in these values and around; of other values, only that they exist."""
    others = scanner.candidates[: row.start] + scanner.candidates[row.stop :]
    changes: list[tuple[int, JsonChangeKind]] = []
    if row.stop - row.start > 1:
        changes = [(scanner.candidates[row.start].start, JsonChangeKind.MISSING_BRACKET)]
    changes += [(other.start, JsonChangeKind.OTHER_VALUES) for other in others[:MAX_CHANGES]]
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
