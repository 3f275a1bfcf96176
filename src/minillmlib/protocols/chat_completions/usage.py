"""Reads the token counts of the chat-completions wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.usage import Count, Usage, UsageUpdate

UsageParser: TypeAlias = Callable[[JsonValue], Usage | None]


class _TokenDetails(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None
    prompt_cache_hit_tokens: Count | None = None
    prompt_cache_miss_tokens: Count | None = None


def parse_usage(raw: JsonValue) -> Usage | None:
    """Return the usage of a body or chunk in disjoint buckets, or None if it has none to trust.

    Cached tokens, read and written, are part of `prompt_tokens` on this wire. A record that
    contradicts itself is not used, nor is one with a count that is negative, fractional or
    absurd: a guess at its meaning would be a number that nobody sent.
    """
    try:
        usage = msgspec.convert(raw["usage"], _Usage)
    except (ValueError, TypeError, KeyError):
        return None
    details = usage.prompt_tokens_details or _TokenDetails()
    hits, misses = usage.prompt_cache_hit_tokens, usage.prompt_cache_miss_tokens
    read = (hits if details.cached_tokens is None else details.cached_tokens) or 0
    written = details.cache_write_tokens or 0
    uncached = usage.prompt_tokens - read - written
    completion = _completion_tokens(usage)
    reasoning = (usage.completion_tokens_details or _TokenDetails()).reasoning_tokens or 0
    if completion is None or uncached < 0 or reasoning > completion:
        return None
    if hits not in (None, read) or misses not in (None, uncached):  # DeepSeek's split
        return None
    return Usage(
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )


def usage_record(raw: JsonValue) -> JsonObject | None:
    """Return the record of counts as the server sent it, or None if there is none.

    A value that is not an object is kept under its key.
    """
    record = raw.get("usage") if isinstance(raw, dict) else None
    if record is None or record == {}:
        return None
    return record if isinstance(record, dict) else {"usage": record}


def merge_usage(earlier: UsageUpdate, later: UsageUpdate) -> UsageUpdate:
    """Return two records of one request as one. Counts are cumulative, so nothing is added.

    Each record is complete, so the later one wins, even if unusable, unless it counts less
    input.
    """
    before, usage = earlier.usage, later.usage
    if before is None or usage is None:
        return later
    wider = before if before.prompt_tokens > usage.prompt_tokens else usage
    usage = msgspec.structs.replace(
        wider,
        completion_tokens=max(before.completion_tokens, usage.completion_tokens),
        reasoning_tokens=max(before.reasoning_tokens, usage.reasoning_tokens),
        native_cost=before.native_cost if usage.native_cost is None else usage.native_cost,
    )
    return UsageUpdate(usage=usage, record=later.record)


def _completion_tokens(usage: _Usage) -> int | None:
    """Return all tokens of the output, or None if they are missing or exceed the total.

    xAI and Gemini count reasoning in the total only.
    """
    if usage.total_tokens is None:
        return usage.completion_tokens
    rest = usage.total_tokens - usage.prompt_tokens
    return rest if rest >= (usage.completion_tokens or 0) else None
