"""Writing a prompt to the provider's cache before it is needed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.pipeline.complete import complete
from minillmlib.pipeline.plan import plan
from minillmlib.values.attempts import CostInfo
from minillmlib.values.messages import Message, Role
from minillmlib.values.parameters import ParametersLike, node_parameters

__all__ = ["warmed"]

PLACEHOLDER = "."  # what stands after the mark, where a wire wants the user to have the last word


async def warmed(
    messages: Sequence[Message], generator: GeneratorInfo, params: ParametersLike
) -> CostInfo:
    """Sends the prompt for its cache only. Raises `InvalidParameterError` where there is none."""
    if not messages:
        raise EmptyThreadError("there is nothing to cache")
    settings = node_parameters(params)
    provider = generator.provider
    refusal = provider.warm_refusal(generator.model, settings.params)
    if refusal is not None:
        raise InvalidParameterError(f"nothing can be warmed here: {refusal}")
    tokens = provider.least_output_tokens(generator.model)
    brief = settings.replace(
        params=settings.params.replace(max_tokens=tokens),
        force_prepend=None,
        use_cache=False,
        crash_on_refusal=False,
        crash_on_empty_response=False,
    )
    call = plan(_marked(messages), generator, brief, stream=False)
    response = await complete(call)
    return CostInfo.of(response.attempts)


def _marked(messages: Sequence[Message]) -> list[Message]:
    """The messages up to the last mark, and a word of the user after them if they need one."""
    marks = [place for place, message in enumerate(messages) if message.cache_ttl is not None]
    prefix = list(messages[: marks[-1] + 1] if marks else messages)
    if not marks:
        prefix[-1] = msgspec.structs.replace(prefix[-1], cache_ttl="5m")
    if prefix[-1].role in (Role.SYSTEM, Role.ASSISTANT):
        prefix.append(Message.user(PLACEHOLDER))
    return prefix
