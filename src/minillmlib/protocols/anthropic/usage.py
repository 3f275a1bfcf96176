"""Reads the token counts of Anthropic's wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, convert_plain
from minillmlib.protocols.billing_facts import StandardPrice, add_billing_facts
from minillmlib.protocols.chat_completions.usage import merge_usage as keep_wider
from minillmlib.types.usage import Count, Usage, UsageUpdate, convert_counts

COUNTS = tuple(name for name in Usage.__struct_fields__ if name.endswith("_tokens"))


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _Counts(msgspec.Struct, kw_only=True):
    output_tokens: Count
    input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None


class _PlainOutputDetails(_OutputDetails, gc=False, forbid_unknown_fields=True):
    pass


class _PlainCacheCreation(_CacheCreation, gc=False, forbid_unknown_fields=True):
    pass


class _PlainUsage(StandardPrice, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Nearly every record. It is read in a quarter of the steps."""

    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _PlainCacheCreation | None = None
    output_tokens_details: _PlainOutputDetails | None = None
    server_tool_use: None = None


class _ServerTools(msgspec.Struct):
    """Anthropic asks a fee for them: $10 for a thousand searches (pricing page, November 2026)."""

    web_search_requests: Count | None = None


class _Iteration(_Counts, kw_only=True):
    input_tokens: Count
    model: str | None = None  # None for the model of the message


class _Usage(_Counts, kw_only=True):
    """A record of counts. With `iterations` the top level may be only a part of the whole."""

    iterations: list[_Iteration] | None = None
    server_tool_use: _ServerTools | None = None

    @property
    def non_token_charges(self) -> str | None:
        """The part of the bill that no price per token covers."""
        models = {part.model or "the message's own" for part in self.iterations or ()}
        if len(models) > 1:
            return f"several models: {', '.join(sorted(models))}"
        searches = self.server_tool_use.web_search_requests if self.server_tool_use else None
        return f"web searches: {searches}" if searches else None


def parse_usage(raw: JsonValue) -> Usage | None:
    """Return the usage of a body or event, or None if the counts cannot be trusted.

    On this wire `input_tokens` excludes what the cache read or wrote. Compaction, advisors and
    models that were tried before another one are listed in `iterations` alone, so those are
    added up. A record that contradicts itself is not used.
    """
    try:
        record = raw.get("message", raw)["usage"]
        plain = convert_plain(record, _PlainUsage)
        if plain is not None:
            return _buckets(plain)
        usage = convert_counts(record, _Usage)
        if usage.input_tokens is None and raw.get("type") != "message_delta":
            return None
        whole = _buckets(usage)
        if usage.iterations:
            whole = _sum_of(list(map(_buckets, usage.iterations)), whole)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    whole = msgspec.structs.replace(whole, non_token_charges=usage.non_token_charges)
    return add_billing_facts(whole, {}, record)


def _sum_of(parts: Sequence[Usage], top: Usage) -> Usage:
    """Return the sum of the iterations; the top level has all or some of it, but never more.

    Reasoning may be counted at the top level only.
    """
    sums = {name: sum(getattr(part, name) for part in parts) for name in COUNTS}
    sums["reasoning_tokens"] = max(sums["reasoning_tokens"], top.reasoning_tokens)
    if any(getattr(top, name) > sums[name] for name in COUNTS):
        raise ValueError
    return Usage(**sums)


def _buckets(counts: _Counts | _PlainUsage) -> Usage:
    """Return the counts. Raises `ValueError` if they contradict each other."""
    written, for_1h, reasoning = counts.cache_creation_input_tokens or 0, 0, 0
    if (by_lifetime := counts.cache_creation) is not None:
        for_1h = by_lifetime.ephemeral_1h_input_tokens or 0
        if (by_lifetime.ephemeral_5m_input_tokens or 0) + for_1h != written:
            raise ValueError
    if (details := counts.output_tokens_details) is not None:
        reasoning = details.thinking_tokens or 0
    if reasoning > counts.output_tokens:
        raise ValueError
    if counts.input_tokens is None:  # cached input alone is not the input
        return Usage(completion_tokens=counts.output_tokens, reasoning_tokens=reasoning)
    return Usage(
        uncached_input_tokens=counts.input_tokens,
        cache_read_tokens=counts.cache_read_input_tokens or 0,
        cache_write_tokens=written,
        cache_write_1h_tokens=for_1h,
        completion_tokens=counts.output_tokens,
        reasoning_tokens=reasoning,
    )


def merge_usage(earlier: UsageUpdate, later: UsageUpdate) -> UsageUpdate:
    """Return two records of one message as one: of each count the last one that was sent.

    A single record that cannot be used spoils the bill.
    """
    if earlier.usage is None or later.usage is None:
        return later if later.usage is None else earlier
    if earlier.record is None or later.record is None:  # a subclass that keeps none
        return keep_wider(earlier, later)
    record = _merge_records(earlier.record, later.record)
    # The merged record may be as partial as the last event of a stream.
    usage = parse_usage({"type": "message_delta", "usage": record})
    return UsageUpdate(usage=usage, record=later.record if usage is None else record)


def _merge_records(earlier: JsonObject, later: JsonObject) -> JsonObject:
    """Merge two sound records. Input counts may be corrected; output never shrinks."""
    both = earlier | _without_nulls(later)
    both["output_tokens"] = max(earlier["output_tokens"], later["output_tokens"])
    for name in ("cache_creation", "output_tokens_details", "server_tool_use"):
        if earlier.get(name) and later.get(name):
            both[name] = earlier[name] | _without_nulls(later[name])
    if _has_outdated_lifetimes(both, later):
        del both["cache_creation"]
    return both


def _has_outdated_lifetimes(both: JsonObject, later: JsonObject) -> bool:
    """Whether the lifetimes, which only the first record has, are of an earlier total.

    New tokens may be written for an hour if earlier ones were; then the lifetimes stay and
    contradict the total, unless the iterations have lifetimes.
    """
    split = both.get("cache_creation")
    if not split or later.get("cache_creation"):
        return False
    for_5m, for_1h = (split.get(f"ephemeral_{age}_input_tokens") or 0 for age in ("5m", "1h"))
    is_other = for_5m + for_1h != (both.get("cache_creation_input_tokens") or 0)
    return is_other and (bool(both.get("iterations")) or not for_1h)


def _without_nulls(record: JsonObject) -> JsonObject:
    return {name: count for name, count in record.items() if count is not None}
