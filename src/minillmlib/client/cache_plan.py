"""Tells what becomes of the cache breakpoints of a call before it is made."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from itertools import compress, count
from operator import attrgetter

from minillmlib.client.prepare import Call, prepare, price_of
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import encode_json
from minillmlib.protocols.cache_control import (
    NO_CONTENT,
    TOO_MANY,
    PromptCache,
    select_breakpoints,
)
from minillmlib.types.caching import BreakpointState, CachePlan, PlannedBreakpoint
from minillmlib.types.messages import SYSTEM, CacheTtl, Message, has_breakpoint
from minillmlib.types.parameters import ParametersLike

_TTL = attrgetter("cache_ttl")
BYTES_PER_TOKEN = 4  # of English text and JSON, about

# By the state of a breakpoint, unless its own reason says more.
_REASONS: dict[BreakpointState, str] = {
    "automatic": "this service caches by itself",
    "no cache": "this model has no prompt cache",
    "too short": f"an estimate, of {BYTES_PER_TOKEN} bytes a token",
}


def plan_cache(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike
) -> CachePlan:
    """Return the plan of the breakpoints in these messages. Nothing is sent."""
    call = prepare(messages, generator, params, stream=False)
    cache = generator.provider.capabilities.prompt_cache(generator.model)
    thread, sent = call.thread, marked_places(call)
    system = {index for index, message in enumerate(thread) if message.role is SYSTEM}
    order = reading_order(len(thread), system, cache)
    lengths = _prefix_lengths(call, order)
    minimum = None if cache is None else cache.min_tokens
    planned = []
    for index, message in enumerate(thread):
        ttl = sent.get(index, message.cache_ttl)
        if ttl is None:
            continue
        tokens = lengths[index]
        state, reason = _state_of(message, cache, is_sent=index in sent)
        if state == "marked" and _is_below(minimum, tokens):
            state = "too short"
        planned.append(
            PlannedBreakpoint(
                place=min(index + call.first_place, len(messages) - 1),
                name=place_name(index, call.first_place, is_system=index in system),
                ttl=ttl,
                state=state,
                tokens=tokens,
                reason=reason or _REASONS.get(state, ""),
            )
        )
    return CachePlan(
        model=generator.model,
        breakpoints=tuple(planned),
        is_automatic=cache is not None and cache.is_automatic,
        min_tokens=minimum,
        prompt_tokens=lengths[order[-1]],
        advice=_advice(cache, planned, lengths[order[-1]]),
        token_price=price_of(call),
    )


def marked_places(call: Call) -> dict[int, CacheTtl]:
    """Return the breakpoints that are sent, by their messages' indexes in the call's thread."""
    extra = call.settings.params.extra
    if not extra and not has_breakpoint(call.messages):  # as in most calls
        return {}
    cache = call.generator.provider.capabilities.prompt_cache(call.generator.model)
    if cache is None or cache.supports_breakpoint is None:
        return {}
    selected = select_breakpoints(call.messages, cache.supports_breakpoint)
    # Messages with a breakpoint are merged with those before them only, and never dropped.
    ends, places = (compress(count(), map(_TTL, some)) for some in (call.messages, call.thread))
    place_of = dict(zip(ends, places, strict=True))
    marks = {place_of[index]: ttl for index, ttl in selected.items()}
    match extra.get("cache_control"):  # Anthropic's own breakpoint, at the end of the prompt
        case {"ttl": "1h"}:
            marks[len(call.thread) - 1] = "1h"
        case dict():
            marks[len(call.thread) - 1] = "5m"
    return marks


def reading_order(length: int, system: Container[int], cache: PromptCache | None) -> list[int]:
    """Return the indexes of messages in the order in which the vendor's cache reads them."""
    order = list(range(length))
    if cache is not None and cache.has_system_first:
        order.sort(key=lambda index: index not in system)
    return order


def place_name(index: int, first_place: int, *, is_system: bool) -> str:
    """Return the name of a message for people, by its place in the path."""
    return "system prompt" if is_system and not index else f"message {index + first_place}"


def _state_of(
    message: Message, cache: PromptCache | None, *, is_sent: bool
) -> tuple[BreakpointState, str]:
    if cache is None:
        return "no cache", ""
    if cache.supports_breakpoint is None:
        return "automatic", ""
    if is_sent:
        return "marked", ""
    return "dropped", TOO_MANY if cache.supports_breakpoint(message) else NO_CONTENT


def _prefix_lengths(call: Call, order: Sequence[int]) -> dict[int, int | None]:
    """Return the estimated length of the prompt up to each message, with the tools before it."""
    tools = call.settings.params.tools
    length: int | None = len(encode_json(tools)) // BYTES_PER_TOKEN if tools else 0
    lengths = {}
    for index in order:
        tokens = _estimate_tokens(call.thread[index], call.generator)
        length = None if length is None or tokens is None else length + tokens
        lengths[index] = length
    return lengths


def _estimate_tokens(message: Message, generator: GeneratorInfo) -> int | None:
    """Return about how long a message is, or None if it has media of unknown size."""
    count_media = generator.provider.billing.max_media_tokens
    media = [count_media(generator.model, part) for part in (*message.attachments, *message.media)]
    if None in media:
        return None
    texts = [message.text or "", *(call.name + call.arguments for call in message.tool_calls)]
    size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
    if message.reasoning is not None:
        size += len(encode_json(message.reasoning))
    return math.ceil(size / BYTES_PER_TOKEN) + sum(filter(None, media))


def _is_below(minimum: int | None, tokens: int | None) -> bool:
    return minimum is not None and tokens is not None and tokens < minimum


def _advice(
    cache: PromptCache | None, planned: Sequence[PlannedBreakpoint], tokens: int | None
) -> str:
    if cache is None:
        return "Nothing will be cached: this model has no prompt cache."
    if _is_below(cache.min_tokens, tokens):
        return "Probably nothing will be cached: the whole prompt is shorter than the minimum."
    if cache.is_automatic:
        return "Keep the beginning of the prompt the same: what matches is read by itself."
    if not planned:
        return (
            "Nothing will be cached: set a breakpoint with cache_breakpoint() or with_cache(True)."
        )
    if not any(each.state == "marked" for each in planned):
        return "Probably nothing will be cached: set a breakpoint further down."
    return ""
