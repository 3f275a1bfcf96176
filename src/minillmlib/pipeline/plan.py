"""A thread, a generator and the settings become one call."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.pipeline.fill import Prefill, filled
from minillmlib.transport.contract import Transport
from minillmlib.transport.engine import default_transport
from minillmlib.values.messages import Message, Role
from minillmlib.values.parameters import NodeCompletionParameters, ParametersLike, node_parameters

__all__ = ["Call", "plan"]

DEFAULT_TOTAL_SECS = 600.0
DEFAULT_SILENCE_SECS = 120.0


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one completion needs; the thread is a snapshot."""

    generator: GeneratorInfo
    messages: tuple[Message, ...]
    settings: NodeCompletionParameters
    stream: bool
    has_foreign_reasoning: bool = False

    @property
    def origin(self) -> str:
        """The provider and model, for which sealed reasoning is meant."""
        return origin_of(self.generator)

    @property
    def transport(self) -> Transport:
        """What carries this call."""
        return self.generator.transport or default_transport()

    @property
    def timeout_secs(self) -> float | None:
        """The bound on the whole answer, or on silence when streaming; None for no bound."""
        if self.settings.timeout_secs is not None:
            return self.settings.timeout_secs or None
        return DEFAULT_SILENCE_SECS if self.stream else DEFAULT_TOTAL_SECS


def plan(
    messages: Sequence[Message],
    generator: GeneratorInfo,
    params: ParametersLike,
    *,
    stream: bool,
) -> Call:
    """The call for these messages. Raises `InvalidParameterError` before anything is sent."""
    if not isinstance(generator, GeneratorInfo):
        raise InvalidParameterError(
            "the generator must be a GeneratorInfo, for example GeneratorInfo.openai(model), "
            f"not {type(generator).__name__}"
        )
    if not messages:
        raise EmptyThreadError("there is no message to send")
    settings = node_parameters(params)
    whole = _with_system(filled(messages, settings.format_kwargs), settings.system_prompt)
    whole = _with_beginning(whole, settings.force_prepend, generator)
    own = _without_foreign_reasoning(whole, origin_of(generator))
    return Call(
        generator=generator,
        messages=own,
        settings=settings,
        stream=stream,
        has_foreign_reasoning=own != whole,
    )


def origin_of(generator: GeneratorInfo) -> str:
    """The name under which a generator's reasoning is kept."""
    return f"{type(generator.provider).__name__}:{generator.model}"


def _without_foreign_reasoning(messages: Sequence[Message], origin: str) -> tuple[Message, ...]:
    """The messages without blocks of other models, which would be refused or leak."""
    return tuple(
        message
        if message.reasoning is None or message.reasoning.origin == origin
        else msgspec.structs.replace(message, reasoning=None)
        for message in messages
    )


def _with_beginning(
    messages: tuple[Message, ...], beginning: str | None, generator: GeneratorInfo
) -> tuple[Message, ...]:
    if not beginning:
        return messages
    refusal = generator.provider.prefill_refusal
    if refusal is not None:
        raise InvalidParameterError(f"force_prepend cannot be used here: {refusal}")
    return (*messages, Message.assistant(Prefill(beginning).sent))


def _with_system(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    if not system_prompt or any(message.role is Role.SYSTEM for message in messages):
        return tuple(messages)
    return (Message.system(system_prompt), *messages)
