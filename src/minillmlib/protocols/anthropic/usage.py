"""Token counts of Anthropic's wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.json_value import JsonObject
from minillmlib.types.usage import Count, Usage

__all__ = ["AnthropicUsage", "counted", "merged"]

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


class _ServerTools(msgspec.Struct):
    """What Anthropic asks a fee for: $10 for a thousand searches (pricing page, November 2026)."""

    web_search_requests: Count | None = None


class _Iteration(_Counts, kw_only=True):
    input_tokens: Count
    model: str | None = None  # the message's own unless it is another


class AnthropicUsage(_Counts, kw_only=True):
    """A record of counts. With `iterations` the top level may be only a part of the whole."""

    iterations: list[_Iteration] | None = None
    server_tool_use: _ServerTools | None = None

    @property
    def non_token_charges(self) -> str | None:
        """What of the bill no price per token tells."""
        models = {part.model or "the message's own" for part in self.iterations or ()}
        if len(models) > 1:
            return f"several models: {', '.join(sorted(models))}"
        searches = self.server_tool_use.web_search_requests if self.server_tool_use else None
        return f"web searches: {searches}" if searches else None


def merged(earlier: JsonObject, later: JsonObject) -> JsonObject:
    """Two sound records of one message as one: of each count the last that is not null.

    The input may be found to have been another, but what was written once stays written.
    """
    both = earlier | _told(later)
    both["output_tokens"] = max(earlier["output_tokens"], later["output_tokens"])
    for name in ("cache_creation", "output_tokens_details", "server_tool_use"):
        if earlier.get(name) and later.get(name):
            both[name] = earlier[name] | _told(later[name])
    if _has_outgrown_lifetimes(both, later):
        del both["cache_creation"]
    return both


def _has_outgrown_lifetimes(both: JsonObject, later: JsonObject) -> bool:
    """Whether the lifetimes, which only the first record tells, are of a total before this one.

    Tokens for an hour may be among the new ones if there were any before; then the lifetimes
    stay and contradict the total, unless the iterations tell their own.
    """
    split = both.get("cache_creation")
    if not split or later.get("cache_creation"):
        return False
    for_5m, for_1h = (split.get(f"ephemeral_{age}_input_tokens") or 0 for age in ("5m", "1h"))
    is_other = for_5m + for_1h != (both.get("cache_creation_input_tokens") or 0)
    return is_other and (bool(both.get("iterations")) or not for_1h)


def _told(record: JsonObject) -> JsonObject:
    return {name: count for name, count in record.items() if count is not None}


def counted(usage: AnthropicUsage) -> Usage | None:
    """The counts: on this wire `input_tokens` leaves out what the cache read or wrote.

    Compaction, advisors and models that were tried before another one are told in `iterations`
    alone, so those are added up. None for a record that contradicts itself.
    """
    whole = _of(usage)
    if whole is not None and usage.iterations:
        whole = _added([_of(part) for part in usage.iterations], whole)
    return whole and msgspec.structs.replace(whole, non_token_charges=usage.non_token_charges)


def _added(parts: Sequence[Usage | None], top: Usage) -> Usage | None:
    """The sum of the iterations, of which the top level tells all or some, but never more.

    Their thoughts may be told at the top level only.
    """
    known = [part for part in parts if part is not None]
    sums = {name: sum(getattr(part, name) for part in known) for name in COUNTS}
    sums["reasoning_tokens"] = max(sums["reasoning_tokens"], top.reasoning_tokens)
    if len(known) < len(parts) or any(getattr(top, name) > sums[name] for name in COUNTS):
        return None
    return Usage(**sums)


def _of(counts: _Counts) -> Usage | None:
    written = counts.cache_creation_input_tokens or 0
    by_lifetime = counts.cache_creation or _CacheCreation()
    for_5m = by_lifetime.ephemeral_5m_input_tokens or 0
    for_1h = by_lifetime.ephemeral_1h_input_tokens or 0
    if counts.cache_creation is not None and for_5m + for_1h != written:
        return None
    thought = (counts.output_tokens_details or _OutputDetails()).thinking_tokens or 0
    if thought > counts.output_tokens:
        return None
    if counts.input_tokens is None:  # what the cache held is no input without the rest of it
        return Usage(completion_tokens=counts.output_tokens, reasoning_tokens=thought)
    return Usage(
        uncached_input_tokens=counts.input_tokens,
        cache_read_tokens=counts.cache_read_input_tokens or 0,
        cache_write_tokens=written,
        cache_write_1h_tokens=for_1h,
        completion_tokens=counts.output_tokens,
        reasoning_tokens=thought,
    )
