"""The JSON in the text of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillmlib import json_repair
from minillmlib.errors import IncompleteJsonError, JsonRepairError, NoJsonFoundError
from minillmlib.json_value import excerpt

if TYPE_CHECKING:
    from minillmlib.json_repair import RepairResult

__all__ = ["json_in"]


def json_in(text: str, *, refusal: str | None, is_truncated: bool) -> RepairResult:
    """What is found in the text, repaired if need be. What was refused in words has none.

    Raises `NoJsonFoundError`, and for a text that was cut `IncompleteJsonError`, unless an object
    or array ends in it and is the last one that begins.
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
    if found is not None and not (is_truncated and _may_go_on(found)):
        return found
    raise IncompleteJsonError(
        "the answer was cut before its JSON came to an end; raise the limit on its tokens if there "
        "is one, or take what there is with allow_incomplete_json",
        partial=text,
    )


def _may_go_on(found: RepairResult) -> bool:
    is_closed = found.complete and isinstance(found.value, dict | list)
    return not is_closed or found.candidates[-1] is not found.value
