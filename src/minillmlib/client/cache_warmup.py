"""Warms a prompt cache: a request whose answer nobody needs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.client.completion import complete
from minillmlib.client.prepare import check_generator, prepare, resolve_result_type
from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.types.costs import CostInfo
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import ParametersLike, node_parameters

FILLER = "."  # stands after the breakpoint where a wire wants something to stand there


async def warm_cache(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike
) -> CostInfo:
    """Send the prompt for its cache only; return what it cost.

    Fallbacks are not asked: another model has another cache. Raises `InvalidParameterError` where
    there is no cache to warm.
    """
    check_generator(generator)
    if not messages:
        raise EmptyThreadError("there is nothing to cache")
    generator = generator.replace(fallbacks=())
    settings = resolve_result_type(node_parameters(params), generator).settings
    capabilities, model = generator.provider.capabilities, generator.model
    reason = capabilities.why_no_warmup(model, settings.params)
    if reason is not None:
        raise InvalidParameterError(f"nothing can be warmed here: {reason}")
    max_tokens = capabilities.min_output_tokens(model, settings.params)
    brief = settings.replace(
        params=settings.params.replace(max_tokens=max_tokens),
        force_prepend=None,
        use_cache=False,
        parse_json=False,
        crash_on_refusal=False,
        crash_on_empty_response=False,
    )
    prefix = _up_to_breakpoint(messages, whole=settings.use_cache)
    call = prepare([*prefix, *_required_turns(prefix)], generator, brief, stream=False)
    completed = await complete(call)
    return CostInfo.of(completed.response.attempts)


def _up_to_breakpoint(messages: Sequence[Message], *, whole: bool) -> list[Message]:
    """Return the messages up to the last breakpoint; the last one gets it if there is none."""
    breakpoints = [place for place, message in enumerate(messages) if message.cache_ttl is not None]
    prefix = list(messages if whole or not breakpoints else messages[: breakpoints[-1] + 1])
    if prefix[-1].cache_ttl is None:
        prefix[-1] = msgspec.structs.replace(prefix[-1], cache_ttl="5m")
    return prefix


def _required_turns(prefix: Sequence[Message]) -> list[Message]:
    """Return what must follow for the request to be accepted: tool results, or a user's turn."""
    answered = set()
    for message in reversed(prefix):
        if message.tool_call_id is None:
            break
        answered.add(message.tool_call_id)
    unanswered = [call.id for call in message.tool_calls if call.id not in answered]
    if unanswered:
        return [Message.tool_result(call_id, FILLER) for call_id in unanswered]
    if prefix[-1].role in (Role.SYSTEM, Role.ASSISTANT):
        return [Message.user(FILLER)]
    return []
