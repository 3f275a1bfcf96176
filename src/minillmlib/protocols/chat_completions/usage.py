"""Reads the token counts of the chat-completions wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, convert_plain
from minillmlib.protocols.billing_facts import StandardPrice, add_billing_facts
from minillmlib.protocols.stated_costs import cost_in_record
from minillmlib.types.usage import Count, Usage, UsageUpdate, convert_counts

UsageParser: TypeAlias = Callable[[JsonValue], Usage | None]


class PlainInputDetails(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    cached_tokens: Count | None = 0
    cache_write_tokens: Count | None = 0
    audio_tokens: Literal[0] | None = 0
    image_tokens: Literal[0] | None = 0
    text_tokens: JsonValue = None


class PlainOutputDetails(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    reasoning_tokens: Count | None = 0
    audio_tokens: Literal[0] | None = 0
    image_tokens: Literal[0] | None = 0
    text_tokens: JsonValue = None
    accepted_prediction_tokens: JsonValue = None
    rejected_prediction_tokens: JsonValue = None


class PlainUsage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """OpenAI's record for nothing but text, as nearly all servers send it."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count | None = None
    prompt_tokens_details: PlainInputDetails | None = None
    completion_tokens_details: PlainOutputDetails | None = None


class _PlainBody(StandardPrice, gc=False):
    """Nearly every body with counts. It is read in a tenth of the steps."""

    usage: PlainUsage | None = None


class _Lifetimes(msgspec.Struct):
    ephemeral_5m_input_tokens: Count | None = None
    ephemeral_1h_input_tokens: Count | None = None


class _InputDetails(msgspec.Struct):
    """Parts of the input: OpenAI's names, then LiteLLM's, then Alibaba's."""

    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_creation_tokens: Count | None = None
    cache_creation_token_details: _Lifetimes | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _Lifetimes | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    # The names of OpenAI's Responses, also on this wire (mlx-vlm: earendil-works/pi#2326).
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None
    # DeepSeek, Moonshot, Mistral
    prompt_cache_hit_tokens: Count | None = None
    prompt_cache_miss_tokens: Count | None = None
    cached_tokens: Count | None = None
    num_cached_tokens: Count | None = None
    prompt_token_details: _InputDetails | None = None
    # Anthropic's names, from gateways: a part of `prompt_tokens` or not.
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_creation: _Lifetimes | None = None
    # Perplexity
    reasoning_tokens: Count | None = None
    citation_tokens: JsonValue = None
    search_context_size: JsonValue = None

    @property
    def input_parts(self) -> list[_InputDetails]:
        parts = self.prompt_tokens_details, self.input_tokens_details, self.prompt_token_details
        return [part for part in parts if part is not None]

    @property
    def is_perplexity(self) -> bool:
        return self.search_context_size is not None or self.citation_tokens is not None


class _ContradictionError(ValueError):
    """Two counts of a record cannot both be right."""


def parse_usage(raw: JsonValue) -> Usage | None:
    """Return the usage of a body or chunk in disjoint buckets, or None if there is none to trust.

    Cached tokens, read and written, are part of `prompt_tokens` on this wire, unless they have
    Anthropic's names and the total says otherwise. A record that contradicts itself is not used,
    nor is one with a count that is negative, fractional or absurd: a guess at its meaning would be
    a number that nobody sent.
    """
    plain = convert_plain(raw, _PlainBody)
    if plain is not None and plain.usage is not None:
        return plain_buckets(plain.usage)
    record = usage_record(raw)
    if record is None:
        return None
    try:
        usage = _buckets(convert_counts(record, _Usage))
    except ValueError:
        return None
    usage = add_billing_facts(usage, raw, record)
    stated = cost_in_record(record)
    return usage if stated is None else usage.with_native_cost(*stated)


def usage_record(raw: JsonValue) -> JsonObject | None:
    """Return the record of counts as the server sent it, or None if there is none.

    A value that is not an object is kept under its key.
    """
    record = raw.get("usage") if isinstance(raw, dict) else None
    if record is None or record == {}:
        record = next(_misplaced_records(raw), None)
    return record if isinstance(record, dict | None) else {"usage": record}


def _misplaced_records(raw: JsonValue) -> Iterator[JsonValue]:
    """Yield the records of Moonshot, in a choice, and of Groq."""
    choices = raw.get("choices") if isinstance(raw, dict) else None
    places = [*choices, raw.get("x_groq")] if isinstance(choices, list) else []
    for place in places:
        record = place.get("usage") if isinstance(place, dict) else None
        if record is not None and record != {}:
            yield record


def merge_usage(earlier: UsageUpdate, later: UsageUpdate) -> UsageUpdate:
    """Return two records of one request as one. Counts are cumulative, so nothing is added.

    Each record is complete, so the later one wins, even if unusable, unless it counts less
    input.
    """
    before, usage = earlier.usage, later.usage
    if before is None or usage is None:
        return later
    wider = before if before.prompt_tokens > usage.prompt_tokens else usage
    priced = before if usage.native_cost is None else usage
    usage = msgspec.structs.replace(
        wider,
        completion_tokens=max(before.completion_tokens, usage.completion_tokens),
        reasoning_tokens=max(before.reasoning_tokens, usage.reasoning_tokens),
        native_cost=priced.native_cost,
        native_cost_source=priced.native_cost_source,
    )
    return UsageUpdate(usage=usage, record=later.record)


def plain_buckets(counts: PlainUsage) -> Usage | None:
    """Return the counts in disjoint buckets, or None if they contradict each other."""
    read = written = reasoning = 0
    if (details := counts.prompt_tokens_details) is not None:
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
    if (parts := counts.completion_tokens_details) is not None:
        reasoning = parts.reasoning_tokens or 0
    prompt, completion, total = counts.prompt_tokens, counts.completion_tokens, counts.total_tokens
    if total is not None:
        if total < prompt + completion:
            return None
        completion = total - prompt  # see `_output_by_total`
    if completion < reasoning or prompt < read + written:
        return None
    return Usage(
        uncached_input_tokens=prompt - read - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )


def _output_by_total(prompt: int, completion: int | None, total: int | None) -> int:
    """Return all tokens of the output. xAI and Gemini count reasoning in the total only."""
    if total is None and completion is None:
        raise _ContradictionError
    if total is None:
        return completion or 0
    if total < prompt + (completion or 0):
        raise _ContradictionError
    return total - prompt


def _buckets(counts: _Usage) -> Usage:
    """Return the counts. Raises `_ContradictionError` if they contradict each other."""
    prompt = counts.prompt_tokens or counts.input_tokens
    prompt = counts.prompt_tokens if prompt is None else prompt
    if prompt is None:
        raise _ContradictionError
    completion, reasoning = _output_tokens(counts), _reasoning_tokens(counts)
    total = counts.total_tokens
    if counts.is_perplexity and total in (None, prompt + (completion or 0)):
        completion, total = (completion or 0) + reasoning, None  # reasoning is in neither
    read, written = _cache_tokens(counts)
    prompt += _tokens_outside(counts, prompt, completion or 0, total)
    completion = _output_by_total(prompt, completion, total)
    uncached = prompt - read - written
    is_split = counts.prompt_cache_miss_tokens in (None, uncached)  # DeepSeek's
    is_input = counts.input_tokens in (None, 0, prompt, uncached)
    is_output = counts.output_tokens in (None, 0, counts.completion_tokens, completion)
    if uncached < 0 or reasoning > completion or not (is_split and is_input and is_output):
        raise _ContradictionError
    return Usage(
        uncached_input_tokens=uncached,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_tokens_for_1h(counts, written),
        completion_tokens=completion,
        reasoning_tokens=reasoning,
    )


def _single_count(*counts: int | None) -> int | None:
    """Return the count that several fields agree on, or None if none has it."""
    given = {count for count in counts if count is not None}
    if len(given) > 1:
        raise _ContradictionError
    return given.pop() if given else None


def _cache_tokens(counts: _Usage) -> tuple[int, int]:
    """Return the tokens read from a cache, and those written to one."""
    read, written = _cache_tokens_inside(counts)
    return (
        _single_count(read, counts.cache_read_input_tokens) or 0,
        _single_count(written, counts.cache_creation_input_tokens) or 0,
    )


def _cache_tokens_inside(counts: _Usage) -> tuple[int | None, int | None]:
    """Return the counts under the names of this wire, which are parts of the input."""
    parts = counts.input_parts
    read = _single_count(
        counts.prompt_cache_hit_tokens,
        counts.cached_tokens,
        counts.num_cached_tokens,
        *(part.cached_tokens for part in parts),
    )
    written = _single_count(
        *(part.cache_write_tokens for part in parts),
        *(part.cache_creation_tokens for part in parts),
        *(part.cache_creation_input_tokens for part in parts),
    )
    return read, written


def _tokens_for_1h(counts: _Usage, written: int) -> int:
    parts = counts.input_parts
    splits = [
        counts.cache_creation,
        *(part.cache_creation for part in parts),
        *(part.cache_creation_token_details for part in parts),
    ]
    given = [split for split in splits if split is not None]
    for_5m = _single_count(*(split.ephemeral_5m_input_tokens or 0 for split in given)) or 0
    for_1h = _single_count(*(split.ephemeral_1h_input_tokens or 0 for split in given)) or 0
    if given and for_5m + for_1h != written:
        raise _ContradictionError
    return for_1h


def _tokens_outside(counts: _Usage, prompt: int, completion: int, total: int | None) -> int:
    """Return the tokens of the cache, by Anthropic's names, that `prompt` does not include.

    A gateway may have left them outside, as Anthropic does, or counted them in; only the total
    shows it, or the same counts under OpenAI's names.
    """
    named = (counts.cache_read_input_tokens or 0) + (counts.cache_creation_input_tokens or 0)
    if not named:
        return 0
    if total is None:
        read, written = _cache_tokens_inside(counts)
        if (read or 0) + (written or 0) != named:
            raise _ContradictionError
        return 0
    rest, reasoning = total - prompt - completion, _reasoning_tokens(counts)
    is_inside = rest in (0, reasoning)
    is_outside = rest in (named, named + reasoning)
    if is_inside == is_outside:
        raise _ContradictionError
    return named if is_outside else 0


def _output_tokens(counts: _Usage) -> int | None:
    """Return the tokens of the output under either name."""
    completion = counts.completion_tokens or counts.output_tokens
    return counts.completion_tokens if completion is None else completion


def _reasoning_tokens(counts: _Usage) -> int:
    parts = (counts.completion_tokens_details, counts.output_tokens_details)
    given = (part.reasoning_tokens for part in parts if part is not None)
    return _single_count(counts.reasoning_tokens, *given) or 0
