"""Reads answers, whole or as events: an event has the form of a whole answer."""

import json
from typing import Annotated

import msgspec

from minillmlib import (
    CompletionResponse,
    FinishReason,
    MalformedResponseError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamChunk,
    Usage,
)

BLOCKED = (
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "MODEL_ARMOR", "ESCALATION",
)  # fmt: skip
FINISH_REASONS = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "MALFORMED_RESPONSE": FinishReason.ERROR,
    **dict.fromkeys(BLOCKED, FinishReason.CONTENT_FILTER),
}
ERRORS = {"UNAVAILABLE": OverloadedError, "RESOURCE_EXHAUSTED": RateLimitError}

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Counts(msgspec.Struct):
    """The counts of a whole answer, or of a stream so far. An absent one is 0."""

    promptTokenCount: Count = 0  # noqa: N815 - the wire's names
    cachedContentTokenCount: Count = 0  # noqa: N815
    toolUsePromptTokenCount: Count = 0  # noqa: N815
    candidatesTokenCount: Count = 0  # noqa: N815
    thoughtsTokenCount: Count = 0  # noqa: N815
    totalTokenCount: Count | None = None  # noqa: N815


def parse_answer(raw):
    """Return a whole answer."""
    text, fields = _read(raw)
    fields["finish_reason"] = fields["finish_reason"] or FinishReason.UNKNOWN
    if fields["usage"] is not None:
        fields["usage_record"] = None
    return CompletionResponse(content=text, raw_response=raw, **fields)


def parse_event(data):
    """Return the chunk in one event. The last one has the finish reason and the counts."""
    text, fields = _read(json.loads(data))
    return StreamChunk(delta=text, **fields)


def parse_usage(raw):
    """Return the counts, or None if they contradict each other or have no input.

    The prompt includes what a cache gave; thoughts are not among the candidates' tokens.
    """
    try:
        counts = msgspec.convert(raw["usageMetadata"], Counts)
    except (KeyError, TypeError, ValueError):
        return None
    read = counts.promptTokenCount + counts.toolUsePromptTokenCount
    written = counts.candidatesTokenCount + counts.thoughtsTokenCount
    uncached = read - counts.cachedContentTokenCount
    is_sum = counts.totalTokenCount in (None, read + written)
    if not counts.promptTokenCount or uncached < 0 or not is_sum:
        return None
    return Usage(
        uncached_input_tokens=uncached,
        cache_read_tokens=counts.cachedContentTokenCount,
        completion_tokens=written,
        reasoning_tokens=counts.thoughtsTokenCount,
    )


def merge_usage(earlier, later):
    """Return the running totals: of each count the last one that was sent."""
    record = {**(earlier.record or {}), **(later.record or {})}
    usage = parse_usage({"usageMetadata": record})
    return msgspec.structs.replace(later, usage=usage, record=record)


def _read(raw):
    """Return the visible text of an answer or event, and the fields that both have."""
    if raw.get("error"):
        raise _error(raw["error"])
    if not raw.keys() & {"candidates", "promptFeedback", "usageMetadata"}:
        raise MalformedResponseError("the body is no answer of generateContent")
    candidates = raw.get("candidates") or [{}]
    parts = (candidates[0].get("content") or {}).get("parts") or []
    if not all("text" in part for part in parts):
        raise MalformedResponseError("the answer has a part that is not text")
    block = None if raw.get("candidates") else (raw.get("promptFeedback") or {}).get("blockReason")
    word = candidates[0].get("finishReason")
    reason = None if word is None else FINISH_REASONS.get(word, FinishReason.UNKNOWN)
    refusal = None
    if block is not None:
        word, reason = block, FinishReason.CONTENT_FILTER
        refusal = f"the prompt was blocked ({block})"
    elif reason is FinishReason.CONTENT_FILTER:
        refusal = candidates[0].get("finishMessage") or f"the answer was blocked ({word})"
    fields = {
        "id": raw.get("responseId", ""),
        "model": raw.get("modelVersion", ""),
        "finish_reason": reason,
        "raw_finish_reason": word,
        "refusal_reason": refusal,
        "reasoning": "".join(part["text"] for part in parts if part.get("thought")),
        "usage": parse_usage(raw),
        "usage_record": raw.get("usageMetadata"),
    }
    return "".join(part["text"] for part in parts if not part.get("thought")), fields


def _error(error):
    """Return the error that an event of a stream, or a body with status 200, reports."""
    kind = ERRORS.get(error.get("status"), ServerError)
    message = f"the server reported an error inside a successful response: {error.get('message')}"
    return kind(message, status=200, code=error.get("status"))
