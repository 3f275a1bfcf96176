"""Whether a whole answer is one that the call's settings take."""

from __future__ import annotations

from minillmlib.errors import EmptyResponseError, MalformedResponseError, NoJsonFoundError
from minillmlib.values.json import decode_json, excerpt
from minillmlib.values.parameters import NodeCompletionParameters
from minillmlib.values.responses import CompletionResponse

__all__ = ["accept"]


def accept(settings: NodeCompletionParameters, response: CompletionResponse) -> None:
    """Raises a `RejectedResponseError` for an answer that the settings refuse."""
    says_nothing = not (response.text.strip() or response.tool_calls or response.media)
    if settings.crash_on_empty_response and says_nothing:
        raise EmptyResponseError(
            f"the model said nothing (finish reason {response.finish_reason}); "
            "with a limit on tokens it may have thought all of them away"
        )
    if settings.crash_on_refusal and not response.tool_calls and not _holds_json(response.content):
        raise NoJsonFoundError(
            f"the answer holds no JSON: {excerpt(response.text)}", partial=response.text
        )


def _holds_json(text: str) -> bool:
    """Whether there is a JSON object or array with something in it, alone or within prose."""
    starts = [place for place in map(text.find, "{[") if place >= 0]
    end = max(map(text.rfind, "}]"))
    if not starts or end < min(starts):
        return False
    try:
        return bool(decode_json(text[min(starts) : end + 1]))
    except MalformedResponseError:
        return False
