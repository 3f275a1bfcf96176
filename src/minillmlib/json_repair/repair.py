"""Broken JSON text to a value: the functions, and the form for text that is still coming."""

from __future__ import annotations

import json
import re
from operator import itemgetter
from typing import Any

import msgspec

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.changes import MOST_CHANGES, JsonChange, JsonChangeKind, RepairResult
from minillmlib.json_repair.parse_stack import Candidate
from minillmlib.json_repair.scalars import scalar_of
from minillmlib.json_repair.scanner import Scanner
from minillmlib.json_repair.select import Choice

__all__ = ["PartialJson", "loads", "repair", "repair_json"]

_MEMBERS_ONLY = re.compile(r'\s*+"[^"\\\n]*+"\s*+:')
_OPENERS = frozenset("\"'(\u201c\u2018\u201e\u00ab")
_IN_DOUBT = {JsonChangeKind.BARE_STRING, JsonChangeKind.INNER_QUOTE}
_AROUND = " \t\r\n\ufeff"
_BEGINNING = 1000  # characters that mostly show that a text is no single value
# A value that is surely one, in a fence or in prose without brackets or tags.
_ALONE = re.compile(
    r"""[^{\[<]*+((?>(?:\{\s*+["}]|\[\s*+["{\[\]-]).*[}\]]))(?!\s*+,\s*+")[^{\[<]*+\Z""", re.DOTALL
)
_TOKEN = re.compile(r"[-+.\w]++")
_DECODER = msgspec.json.Decoder()


def loads(text: str) -> Any:
    """The value of a JSON text, or of what was meant to be one.

    The last object or array of the text; of several that follow each other without a word between
    them, the first. Never a value from `<think>` parts. O(length).

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _meant(text)


def repair_json(text: str) -> str:
    """The text if it is JSON, unchanged, else the JSON text of `loads(text)`.

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    try:
        _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _written(_meant(text))
    return text


def repair(text: str) -> RepairResult:
    """The value of a text as `loads` gives it, with everything that was guessed for it.

    Raises:
        JsonRepairError: Nothing in the text could be JSON.
    """
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return PartialJson().finish(text)
    return RepairResult(value=value, candidates=(value,))


def _meant(text: str) -> Any:
    if alone := _ALONE.match(text):
        try:
            return _DECODER.decode(alone[1])
        except (ValueError, RecursionError):
            pass
    scanner = Scanner(most_guesses=0)
    scanner.finish(text)
    chosen = Choice(scanner.candidates).chosen()
    return chosen.value if chosen else _in_prose(scanner).value


def _written(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise JsonRepairError("the JSON is nested too deeply to be written here") from None


class PartialJson:
    """The values in a text that comes in pieces.

    A finished part of a value is never taken back: keys, elements and finished scalars stay,
    strings and containers only grow. Numbers and literals appear when they are finished. Where
    the text is broken, the last string may yet lose its end or turn out to be a key, and
    `</think>` without its beginning takes back all that came before. The pieces may be of any
    size; the end is that of `repair` on the whole text.
    """

    def __init__(self) -> None:
        self._scanner = Scanner()
        self._choice = Choice(self._scanner.candidates)

    def feed(self, piece: str) -> None:
        """Takes the next piece in. Raises `JsonRepairError` if the text nests too deeply."""
        self._scanner.feed(piece)

    @property
    def value(self) -> Any:
        """What there is of the value, or None before it begins.

        The containers are the same ones each time and go on growing; copy what must not. Raises
        `JsonRepairError` if what was fed nests too deeply.
        """
        self._scanner.catch_up()
        self._scanner.growing.refresh()
        chosen = self._choice.chosen()
        return None if chosen is None else chosen.value

    def finish(self, piece: str = "") -> RepairResult:
        """The end of the text has come. Raises `JsonRepairError` if it held nothing."""
        scanner = self._scanner
        scanner.finish(piece)
        chosen = self._choice.chosen()
        if chosen is None:
            return _in_prose(scanner)
        return RepairResult(
            value=chosen.value,
            changes=_changes_for(chosen, scanner),
            complete=chosen.is_complete,
            candidates=tuple(candidate.value for candidate in scanner.candidates),
        )


def _changes_for(chosen: Candidate, scanner: Scanner) -> tuple[JsonChange, ...]:
    """The guesses for this value; another value's are not told, only that it is there."""
    others = [candidate for candidate in scanner.candidates if candidate is not chosen]
    changes = [(other.start, JsonChangeKind.OTHER_VALUES) for other in others[:MOST_CHANGES]]
    changes += [
        (place, JsonChangeKind.LONE_SURROGATE)
        for place in scanner.guesses.surrogates[:MOST_CHANGES]
    ]
    spans = iter(others)
    other = next(spans, None)
    for change in scanner.guesses.changes:
        while other and other.end is not None and change[0] >= other.end:
            other = next(spans, None)
        if other is None or change[0] < other.start:
            changes.append(change)
    changes.sort(key=itemgetter(0))
    return tuple(JsonChange(position=place, kind=kind) for place, kind in changes[:MOST_CHANGES])


def _in_prose(scanner: Scanner) -> RepairResult:
    """What the last code block of a text without objects or arrays is, or else all of it."""
    if scanner.fenced and (found := _in_block(*scanner.fenced, scanner)):
        return found
    return _without_brackets("".join(scanner.prose))


def _in_block(text: str, start: int, scanner: Scanner) -> RepairResult | None:
    try:
        found = _without_brackets(text)
    except JsonRepairError:
        return None
    if not found.complete and type(found.value) is not dict:
        return None
    end = start + len(text)
    around = [change for change in scanner.guesses.changes if not start <= change[0] < end]
    within = [(start + change.position, change.kind) for change in found.changes]
    guesses = sorted(around + within)[:MOST_CHANGES]
    changes = tuple(JsonChange(position=place, kind=kind) for place, kind in guesses)
    return msgspec.structs.replace(found, changes=changes)


def _without_brackets(text: str) -> RepairResult:
    """A text that is one string, tuple, number or literal, or members without their brackets."""
    if _MEMBERS_ONLY.match(text):
        found = _within("{", text)
        first = JsonChange(position=0, kind=JsonChangeKind.MISSING_BRACKET)
        return msgspec.structs.replace(found, changes=(first, *found.changes))
    alone = text.strip(_AROUND)
    if alone[:1] in _OPENERS and len(alone) > 1 and (alone[0] != "(" or alone[-1] == ")"):
        if len(text) > _BEGINNING and _is_list_of_many(text):
            raise _nothing_in(alone)
        for closer in ("]", ""):
            found = _within("[", text + closer)
            is_sure = _IN_DOUBT.isdisjoint(change.kind for change in found.changes)
            is_whole = type(found.value) is list and found.complete == bool(closer)
            if is_sure and is_whole and len(found.value) == 1:
                return msgspec.structs.replace(found, value=found.value[0], candidates=())
    if _TOKEN.fullmatch(alone):
        value, kind = scalar_of(alone)
        if kind is not JsonChangeKind.BARE_STRING:
            changes = () if kind is None else (JsonChange(position=text.index(alone), kind=kind),)
            return RepairResult(value=value, changes=changes)
    raise _nothing_in(alone)


def _nothing_in(text: str) -> JsonRepairError:
    return JsonRepairError(f"there is no JSON in the text: {text[:80]!r}")


def _within(bracket: str, text: str) -> RepairResult:
    """What the text is after this bracket."""
    found = PartialJson().finish(bracket + text)
    changes = tuple(
        msgspec.structs.replace(change, position=max(change.position - 1, 0))
        for change in found.changes
    )
    return msgspec.structs.replace(found, changes=changes)


def _is_list_of_many(text: str) -> bool:
    """Whether more than one element comes of the beginning of a text after a bracket."""
    partial = PartialJson()
    partial.feed("[" + text[:_BEGINNING])
    value = partial.value
    return type(value) is list and len(value) > 1
