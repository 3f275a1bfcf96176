"""Validates a complete response against the call's settings and parses its result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection

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
from minillmlib.structured.json_answer import extract_json
from minillmlib.structured.result_type import ResultType
from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse

NOT_PARSED = object()
NO_ANSWER: Collection[JsonValue] = (None, "", {}, [])

CORRECTION = """{problem}

Answer again, with the whole JSON and nothing else. It must fit this JSON schema:
{schema}"""


def validate(call: Call, response: CompletionResponse) -> tuple[CompletionResponse, JsonValue]:
    """Return the response in the form that the settings want, and the value of the expected type.

    Raises a `RejectedResponseError` for an answer that they reject.
    """
    settings, result_type = call.settings, call.result_type
    has_words = response.refusal is not None or response.text.strip()
    is_empty = not (has_words or response.tool_calls or response.media)
    if settings.crash_on_empty_response and is_empty:
        raise EmptyResponseError(
            f"the model said nothing (finish reason {response.finish_reason}); "
            "with a limit on tokens it may have spent all of them on reasoning"
        )
    is_json = settings.parse_json or result_type is not None
    if response.tool_calls or not (is_json or settings.crash_on_refusal):
        return response, NOT_PARSED
    try:
        content = _json_content(call, response, is_json=is_json)
    except NoJsonFoundError:
        if result_type is not None or settings.crash_on_refusal:
            raise
        return response, NOT_PARSED
    try:
        parsed = NOT_PARSED if result_type is None else result_type.parse(content)
    except ResponseValidationError as error:
        if result_type is not None and (other := _parse_alternative(result_type, response.content)):
            content, parsed = other
        else:
            error.partial = response.content
            raise
    return _with_content(response, content), parsed


def _parse_alternative(
    result_type: ResultType[JsonValue], text: str
) -> tuple[str, JsonValue] | None:
    """Return the JSON and the value of the likeliest other value in the text that fits the type."""
    for value in json_repair.repair(text).alternatives:
        with contextlib.suppress(ResponseValidationError, RecursionError):
            content = json.dumps(value, ensure_ascii=False)
            return content, result_type.parse(content)
    return None


def _json_content(call: Call, response: CompletionResponse, *, is_json: bool) -> str:
    """Return the repaired JSON of an answer; its content as it came if no JSON is wanted."""
    is_strict = is_json and not call.settings.allow_incomplete_json
    found = extract_json(
        response.content,
        refusal=response.refusal,
        is_truncated=is_strict and response.is_truncated,
        is_end_known=not is_strict or (response.is_end_known and not _fills_limit(call, response)),
        accepts_part=not is_strict,
    )
    if call.settings.crash_on_refusal and found.value in NO_ANSWER:
        raise NoJsonFoundError(
            f"the answer holds no JSON but {excerpt(response.text)}", partial=response.text
        )
    try:
        return json_repair.repair_json(response.content) if is_json else response.content
    except JsonRepairError as error:  # it can be read, but is too deep to be written
        raise NoJsonFoundError(str(error), partial=response.text) from None


def _fills_limit(call: Call, response: CompletionResponse) -> bool:
    """Whether the answer is as long as it may be: some gateways call a cut a plain end."""
    limit, usage = call.settings.params.max_tokens, response.usage
    return limit is not None and usage is not None and usage.completion_tokens >= limit


def _with_content(response: CompletionResponse, content: str) -> CompletionResponse:
    """Replace the text of the response; what was sealed within the old one stands after it."""
    if content == response.content:
        return response
    blocks = tuple(
        msgspec.structs.replace(block, text_before=len(content)) if block.text_before else block
        for block in response.reasoning_blocks
    )
    return msgspec.structs.replace(response, content=content, reasoning_blocks=blocks)


def with_correction(
    call: Call, response: CompletionResponse, error: RejectedResponseError
) -> Call | None:
    """Return the call with the wrong answer, and what is wrong with it, as further turns.

    Return None if the answer is empty or refused, since there is nothing to correct.
    """
    if call.result_type is None or response.refusal is not None or not response.content.strip():
        return None
    problem = str(error)[:1].upper() + str(error)[1:]
    correction = CORRECTION.format(problem=problem, schema=call.result_type.schema_text)
    turns = (Message.assistant(response.content), Message.user(correction))
    end = len(call.messages) - bool(call.settings.force_prepend)  # the answer begins with it
    messages = (*call.messages[:end], *turns, *call.messages[end:])
    return msgspec.structs.replace(call, messages=messages, prefix=None)
