"""Token counts of the chat-completions wire."""

from __future__ import annotations

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.usage import Count, Usage

__all__ = ["parse_usage", "usage_record"]


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Count | None = None
    prompt_cache_miss_tokens: Count | None = None


def parse_usage(raw: JsonValue) -> Usage | None:
    """The usage of a body or chunk in disjoint buckets, or None if it has none to trust.

    Cached tokens, read and written, are part of `prompt_tokens` on this wire. A record that
    contradicts itself is not used, nor is one with a count that is negative, fractional or
    absurd: a guess at what it meant would be a number that nobody sent.
    """
    try:
        usage = msgspec.convert(raw["usage"], _Usage)
    except (ValueError, TypeError, KeyError):
        return None
    details = usage.prompt_tokens_details or _PromptDetails()
    hits, misses = usage.prompt_cache_hit_tokens, usage.prompt_cache_miss_tokens
    read = (hits if details.cached_tokens is None else details.cached_tokens) or 0
    written = details.cache_write_tokens or 0
    uncached = usage.prompt_tokens - read - written
    completion = _completion_of(usage)
    thought = (usage.completion_tokens_details or _CompletionDetails()).reasoning_tokens or 0
    if completion is None or uncached < 0 or thought > completion:
        return None
    if hits not in (None, read) or misses not in (None, uncached):  # DeepSeek's own split
        return None
    return Usage(
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=thought,
    )


def _completion_of(usage: _Usage) -> int | None:
    """All that was written: xAI and Gemini leave the thoughts out of it, but not out of the total.

    None if it is not told, or if the parts exceed the total.
    """
    if usage.total_tokens is None:
        return usage.completion_tokens
    rest = usage.total_tokens - usage.prompt_tokens
    return rest if rest >= (usage.completion_tokens or 0) else None


def usage_record(raw: JsonValue) -> JsonObject | None:
    """The record of counts as it came, if there is one that says anything.

    What should be one and is none is kept with its key.
    """
    record = raw.get("usage") if isinstance(raw, dict) else None
    if record is None or record == {}:
        return None
    return record if isinstance(record, dict) else {"usage": record}
