"""Token counts of Anthropic's wire."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.values.usage import Count, Usage

__all__ = ["COUNTS", "AnthropicUsage", "counted"]

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
    model: str | None = None


class AnthropicUsage(_Counts, kw_only=True):
    """A record of counts. With `iterations` the top level is only a part of what was consumed."""

    iterations: list[_Iteration] | None = None
    server_tool_use: _ServerTools | None = None

    @property
    def not_by_token(self) -> str | None:
        """What of the bill no price per token tells."""
        models = {part.model for part in self.iterations or () if part.model}
        if len(models) > 1:
            return f"several models: {', '.join(sorted(models))}"
        searches = self.server_tool_use.web_search_requests if self.server_tool_use else None
        return f"web searches: {searches}" if searches else None


def counted(usage: AnthropicUsage) -> Usage | None:
    """The counts: on this wire `input_tokens` leaves out what the cache read or wrote.

    Compaction, advisors and models that were tried before another one are told in `iterations`
    alone, so those are added up. None for a record that contradicts itself.
    """
    counts: Sequence[_Counts] = usage.iterations or (usage,)
    parts = [_of(part) for part in counts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    sums = {name: sum(getattr(part, name) for part in known) for name in COUNTS}
    return Usage(**sums, not_by_token=usage.not_by_token)


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
    return Usage(
        uncached_input_tokens=counts.input_tokens or 0,
        cache_read_tokens=counts.cache_read_input_tokens or 0,
        cache_write_tokens=written,
        cache_write_1h_tokens=for_1h,
        completion_tokens=counts.output_tokens,
        reasoning_tokens=thought,
    )
