"""Extracts the JSON from the text of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillmlib import json_repair
from minillmlib.errors import IncompleteJsonError, JsonRepairError, NoJsonFoundError
from minillmlib.json_value import JsonValue, excerpt

if TYPE_CHECKING:
    from minillmlib.json_repair import RepairResult


def extract_json(
    text: str,
    *,
    refusal: str | None,
    is_truncated: bool,
    is_end_known: bool = True,
    accepts_part: bool = False,
) -> RepairResult:
    """Return the JSON in the text, repaired if necessary.

    Raises `NoJsonFoundError` if there is none, if the model refused, or if only a part of it can
    be read and no part is accepted. A truncated text raises `IncompleteJsonError`, unless its last
    object or array is complete; and so does a text whose end is not known to be the model's, if
    its value breaks off.
    """
    if refusal is not None:
        raise NoJsonFoundError(
            f"the answer holds no JSON, the model refused: {excerpt(refusal)}", partial=refusal
        )
    try:
        found = json_repair.repair(text)
    except JsonRepairError as error:
        if not is_truncated:
            raise NoJsonFoundError(
                f"the answer cannot be read as JSON: {error}", partial=text
            ) from None
        found = None
    is_cut = found is None or (is_truncated and _may_continue(found))
    if found is not None and not is_cut and (is_end_known or found.complete):
        if not (accepts_part or found.complete):
            _check_whole(found, text)
        return found
    raise IncompleteJsonError(
        "the answer was cut before the end of its JSON; raise its limit on tokens if there is one, "
        "or accept the JSON so far with allow_incomplete_json",
        partial=text,
    )


def _may_continue(found: RepairResult) -> bool:
    is_closed = found.complete and isinstance(found.value, dict | list)
    return not is_closed or not _is_last(found.candidates[-1], found.value)


def _is_last(candidate: JsonValue, value: JsonValue) -> bool:
    """Whether this is the value, or the last of those that commas join to it."""
    return candidate is value or (type(value) is list and candidate is (value or [None])[-1])


def _check_whole(found: RepairResult, text: str) -> None:
    """Refuse a value if more of its JSON is around it, which could not be read."""
    for change in found.changes:
        if change.kind is json_repair.JsonChangeKind.LOST_PART:
            rest = text[change.position :]
            raise NoJsonFoundError(
                "the JSON of the answer is broken: it can be read only in part, "
                f"and is lost at character {change.position}: {excerpt(rest)}",
                partial=text,
            )
