"""Whether a whole answer is one that the call's settings take, and what they make of it."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from minillmlib import json_repair
from minillmlib.client.prepare import Call
from minillmlib.errors import (
    EmptyResponseError,
    JsonRepairError,
    NoJsonFoundError,
    RejectedResponseError,
    ResponseValidationError,
)
from minillmlib.json_value import JsonValue, excerpt
from minillmlib.structured.json_answer import json_in
from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse

__all__ = ["NOT_PARSED", "Accepted", "accept", "corrected"]

NOT_PARSED = object()
Accepted: TypeAlias = tuple[CompletionResponse, JsonValue]
REFUSALS: tuple[JsonValue, ...] = (None, "", {}, [])

CORRECTION = """{problem}

Answer again, with the whole JSON and nothing else. It must fit this JSON schema:
{schema}"""


def accept(call: Call, response: CompletionResponse) -> Accepted:
    """The answer as the settings want it, and the value of its type if one is expected.

    Raises a `RejectedResponseError` for an answer that they refuse.
    """
    settings, result_type = call.settings, call.result_type
    if settings.crash_on_empty_response and _says_nothing(response):
        raise EmptyResponseError(
            f"the model said nothing (finish reason {response.finish_reason}); "
            "with a limit on tokens it may have thought all of them away"
        )
    is_typed = result_type is not None
    is_json = settings.parse_json or is_typed
    if response.tool_calls or not (is_json or settings.crash_on_refusal):
        return response, NOT_PARSED
    try:
        content = _json_of(call, response, is_wanted=is_json)
    except NoJsonFoundError:
        if is_typed or settings.crash_on_refusal:
            raise
        return response, NOT_PARSED
    if not is_json:
        return response, NOT_PARSED
    try:
        parsed = NOT_PARSED if result_type is None else result_type.parse(content)
    except ResponseValidationError as error:
        error.partial = response.content
        raise
    return _with_content(response, content), parsed


def _says_nothing(response: CompletionResponse) -> bool:
    return not (response.text.strip() or response.tool_calls or response.media)


def _json_of(call: Call, response: CompletionResponse, *, is_wanted: bool) -> str:
    """The text of the JSON that an answer holds; as it came, if it is not wanted itself."""
    is_truncated = is_wanted and response.is_truncated and not call.settings.allow_incomplete_json
    found = json_in(response.content, refusal=response.refusal, is_truncated=is_truncated)
    if call.settings.crash_on_refusal and found.value in REFUSALS:
        raise NoJsonFoundError(
            f"the answer holds no JSON but {excerpt(response.text)}", partial=response.text
        )
    try:
        return json_repair.repair_json(response.content) if is_wanted else response.content
    except JsonRepairError as error:  # it can be read, but is too deep to be written
        raise NoJsonFoundError(str(error), partial=response.text) from None


def _with_content(response: CompletionResponse, content: str) -> CompletionResponse:
    """The response with another text; what was sealed within the old one stands after it."""
    if content == response.content:
        return response
    blocks = tuple(
        msgspec.structs.replace(block, text_before=len(content)) if block.text_before else block
        for block in response.reasoning_blocks
    )
    return msgspec.structs.replace(response, content=content, reasoning_blocks=blocks)


def corrected(
    call: Call, response: CompletionResponse, error: RejectedResponseError
) -> Call | None:
    """The call with the wrong answer, and what is wrong with it, as further turns.

    None for an answer that says nothing, or that the model refused: it would teach nothing.
    """
    if call.result_type is None or response.refusal is not None or not response.content.strip():
        return None
    problem = str(error)[:1].upper() + str(error)[1:]
    correction = CORRECTION.format(problem=problem, schema=call.result_type.schema_text)
    turns = (Message.assistant(response.content), Message.user(correction))
    end = len(call.messages) - bool(call.settings.force_prepend)  # which the answer begins with
    messages = (*call.messages[:end], *turns, *call.messages[end:])
    return msgspec.structs.replace(call, messages=messages)
