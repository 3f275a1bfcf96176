"""A thread, a generator and the settings become one call."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
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
    return Call(
        generator=generator,
        messages=_with_system(messages, settings.system_prompt),
        settings=settings,
        stream=stream,
    )


def _with_system(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    if not system_prompt or any(message.role is Role.SYSTEM for message in messages):
        return tuple(messages)
    return (Message.system(system_prompt), *messages)
