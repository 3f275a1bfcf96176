"""Extracts the JSON from the text of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillmlib import json_repair
from minillmlib.errors import IncompleteJsonError, JsonRepairError, NoJsonFoundError
from minillmlib.json_value import excerpt

if TYPE_CHECKING:
    from minillmlib.json_repair import RepairResult


def extract_json(
    text: str, *, refusal: str | None, is_truncated: bool, is_end_known: bool = True
) -> RepairResult:
    """Return the JSON in the text, repaired if necessary.

    Raises `NoJsonFoundError` if there is none or the model refused. A truncated text raises
    `IncompleteJsonError`, unless its last object or array is complete; and so does a text whose
    end is not known to be the model's, if its value breaks off.
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
        return found
    raise IncompleteJsonError(
        "the answer was cut before the end of its JSON; raise its limit on tokens if there is one, "
        "or accept the JSON so far with allow_incomplete_json",
        partial=text,
    )


def _may_continue(found: RepairResult) -> bool:
    is_closed = found.complete and isinstance(found.value, dict | list)
    return not is_closed or found.candidates[-1] is not found.value
