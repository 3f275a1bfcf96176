"""Writing a prompt to the provider's cache before it is needed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.client.complete import complete
from minillmlib.client.prepare import check_generator, formed, plan
from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.types.attempts import CostInfo
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import ParametersLike, node_parameters
from minillmlib.types.tools import ToolCall

__all__ = ["warmed"]

PLACEHOLDER = "."  # what stands after the mark, where a wire wants something to stand there


async def warmed(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike
) -> CostInfo:
    """Sends the prompt for its cache only. Raises `InvalidParameterError` where there is none."""
    check_generator(generator)
    if not messages:
        raise EmptyThreadError("there is nothing to cache")
    settings = formed(node_parameters(params), generator).settings
    capabilities, model = generator.provider.capabilities, generator.model
    refusal = capabilities.why_no_warmup(model, settings.params)
    if refusal is not None:
        raise InvalidParameterError(f"nothing can be warmed here: {refusal}")
    tokens = capabilities.min_output_tokens(model, settings.params)
    brief = settings.replace(
        params=settings.params.replace(max_tokens=tokens),
        force_prepend=None,
        use_cache=False,
        parse_json=False,
        crash_on_refusal=False,
        crash_on_empty_response=False,
    )
    prefix = _marked(messages, whole=settings.use_cache)
    call = plan([*prefix, *_afterwards(prefix)], generator, brief, stream=False)
    response, _ = await complete(call)
    return CostInfo.of(response.attempts)


def _marked(messages: Sequence[Message], *, whole: bool) -> list[Message]:
    """The messages up to the last mark. The last one gets it if there is none, or for all."""
    marks = [place for place, message in enumerate(messages) if message.cache_ttl is not None]
    prefix = list(messages if whole or not marks else messages[: marks[-1] + 1])
    if prefix[-1].cache_ttl is None:
        prefix[-1] = msgspec.structs.replace(prefix[-1], cache_ttl="5m")
    return prefix


def _afterwards(prefix: Sequence[Message]) -> list[Message]:
    """What must follow for the request to be taken: results of open calls, or a user's word."""
    calls = _open_calls(prefix)
    if calls:
        return [Message.tool_result(call.id, PLACEHOLDER) for call in calls]
    if prefix[-1].role in (Role.SYSTEM, Role.ASSISTANT):
        return [Message.user(PLACEHOLDER)]
    return []


def _open_calls(prefix: Sequence[Message]) -> list[ToolCall]:
    """The calls at the end that have no result yet."""
    given = set()
    for message in reversed(prefix):
        if message.tool_call_id is None:
            return [call for call in message.tool_calls if call.id not in given]
        given.add(message.tool_call_id)
    return []
