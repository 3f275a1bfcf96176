"""A thread, a generator and the settings become one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from minillmlib.client.placeholders import filled, filled_text, merged
from minillmlib.client.prefill import Prefill
from minillmlib.client.prefix_cache import Past, are_written_alone
from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.providers.published_prices import is_published
from minillmlib.structured.result_type import ResultType
from minillmlib.transport.base import Transport
from minillmlib.transport.default import default_transport
from minillmlib.types.costs import TokenPrice
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import (
    NodeCompletionParameters,
    ParametersLike,
    ResponseFormat,
    TypedParameters,
    node_parameters,
)

__all__ = ["Call", "check_generator", "formed", "plan", "price_of"]

TOLD = ("mcp_servers", "tools")  # whether the vendor's own tools were used, the usage tells

INSTRUCTION = """Answer with JSON and nothing else. It must fit this JSON schema:
{schema}"""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one completion needs; the thread is a snapshot.

    `past` is there if the first messages are sent as they are, so that earlier calls may have
    written them.
    """

    generator: GeneratorInfo
    messages: tuple[Message, ...]
    settings: NodeCompletionParameters
    stream: bool
    omitted: Mapping[str, str] = {}
    result_type: ResultType[JsonValue] | None = None
    past: Past | None = None

    @property
    def origin(self) -> str:
        """The provider and model, for which sealed reasoning is meant."""
        return origin_of(self.generator)

    @property
    def known(self) -> int:
        """How many of the first messages an earlier call has written as they are, without marks."""
        return 0 if self.past is None or self.past.turns is None else self.past.turns.count

    @property
    def wants_usage(self) -> bool:
        """Whether token counts are asked for, where a wire must be asked."""
        return self.settings.cost_tracking or self.settings.budget is not None

    @property
    def transport(self) -> Transport:
        """What carries this call."""
        return self.generator.transport or default_transport()


def plan(
    messages: Sequence[Message],
    generator: GeneratorInfo,
    params: ParametersLike,
    *,
    stream: bool,
    past: Past | None = None,
) -> Call:
    """The call for these messages. Raises `InvalidParameterError` before anything is sent."""
    check_generator(generator)
    if not messages:
        raise EmptyThreadError("there is no message to send")
    settings = node_parameters(params)
    if _leave_alone(settings):
        return _plain(messages, generator, settings, stream=stream, past=past)
    settings, result_type, instruction, unformed = formed(_filled_settings(settings), generator)
    whole = merged(filled(messages, settings.format_kwargs))
    whole = _with_system(whole, settings.system_prompt)
    if instruction is not None:
        whole = merged((*whole, Message.user(instruction)))
    if settings.use_cache:
        last = msgspec.structs.replace(whole[-1], cache_ttl=whole[-1].cache_ttl or "5m")
        whole = (*whole[:-1], last)
    whole = _with_beginning(whole, settings.force_prepend, generator)
    own, omitted = _own(whole, generator)
    if unformed is not None:
        omitted["the schema of the answer"] = unformed
    return Call(
        generator=generator,
        messages=own,
        settings=settings,
        stream=stream,
        omitted=omitted,
        result_type=result_type,
    )


def _leave_alone(settings: NodeCompletionParameters) -> bool:
    """Whether the settings do nothing to the messages, as those of most calls."""
    return not (
        isinstance(settings, TypedParameters)
        or settings.format_kwargs
        or settings.system_prompt
        or settings.force_prepend
        or settings.use_cache
        or settings.params.response_format
    )


def _plain(
    messages: Sequence[Message],
    generator: GeneratorInfo,
    settings: NodeCompletionParameters,
    *,
    stream: bool,
    past: Past | None,
) -> Call:
    """The call with such settings, without another look at what was sent before as it is."""
    known = 0
    if past is not None and are_written_alone(generator.provider):
        known = past.find(generator.provider, origin_of(generator))
    else:
        past = None
    begin = max(known - 1, 0)  # the last of them may be joined with the first that is new
    new, omitted = _own(merged(messages[begin:]), generator)
    if begin + len(new) < len(messages) or omitted:
        past = None
    return Call(
        generator=generator,
        messages=(*messages[:begin], *new) if begin else new,
        settings=settings,
        stream=stream,
        omitted=omitted,
        past=past,
    )


class Formed(NamedTuple):
    """The settings with the form of the answer.

    `instruction` tells the form in the prompt where the wire does not, for the reason
    `omitted`.
    """

    settings: NodeCompletionParameters
    result_type: ResultType[JsonValue] | None = None
    instruction: str | None = None
    omitted: str | None = None


def formed(settings: NodeCompletionParameters, generator: GeneratorInfo) -> Formed:
    """The settings as they are, unless they expect a type."""
    if not isinstance(settings, TypedParameters):
        return Formed(settings)
    result_type: ResultType[JsonValue] = settings.result_type
    untyped = settings.untyped()
    form = ResponseFormat.json_schema(result_type.schema, strict=result_type.is_strict)
    omitted = _why_not(form, untyped, generator)
    if omitted is None:
        return Formed(
            untyped.with_params(untyped.params.replace(response_format=form)), result_type
        )
    instruction = INSTRUCTION.format(schema=result_type.schema_text)
    return Formed(untyped, result_type, instruction, f"{omitted}; it is told in the prompt")


def _why_not(
    form: ResponseFormat, settings: NodeCompletionParameters, generator: GeneratorInfo
) -> str | None:
    if settings.params.response_format is not None:
        return "the parameters have a response_format of their own"
    if settings.force_prepend:
        return "a forced beginning is not in the form"
    return generator.provider.capabilities.why_no_schema(generator.model, form)


def check_generator(generator: object) -> None:
    """Raises `InvalidParameterError` unless it is one."""
    if not isinstance(generator, GeneratorInfo):
        raise InvalidParameterError(
            "the generator must be a GeneratorInfo, for example GeneratorInfo.openai(model), "
            f"not {type(generator).__name__}"
        )


def _filled_settings(settings: NodeCompletionParameters) -> NodeCompletionParameters:
    """The settings with the placeholders in their own texts filled in."""
    if not settings.format_kwargs:
        return settings
    texts = {name: getattr(settings, name) for name in ("system_prompt", "force_prepend")}
    filled_in = {
        name: filled_text(text, settings.format_kwargs) for name, text in texts.items() if text
    }
    return msgspec.structs.replace(settings, **filled_in)


def price_of(call: Call) -> TokenPrice | None:
    """The price of a call: its own, or its generator's.

    A published one is that of a standard request, and of no other.
    """
    price = call.settings.token_price or call.generator.token_price
    if price is None or price.source is None or not is_published(price):
        return price
    others = call.generator.provider.billing.unpriced_keys(call.settings.params.extra)
    return None if set(others) - set(TOLD) else price


def origin_of(generator: GeneratorInfo) -> str:
    """The name under which a generator's reasoning is kept."""
    return f"{type(generator.provider).__name__}:{generator.model}"


def _own(
    messages: tuple[Message, ...], generator: GeneratorInfo
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """The messages without what other models sealed and this wire cannot take back; and why.

    Foreign blocks would be refused, or leak.
    """
    if not any(map(attrgetter("reasoning"), messages)) and not any(
        map(attrgetter("media"), messages)
    ):
        return messages, {}
    origin = origin_of(generator)
    omitted: dict[str, str] = {}
    own = []
    for message in messages:
        reasoning, media = message.reasoning, message.media
        if reasoning is not None and reasoning.origin != origin:
            omitted["reasoning of earlier turns"] = "it was made by another model"
            reasoning = None
        replayable = generator.provider.capabilities.replayable_media
        kept = tuple(part for part in media if part.kind in replayable)
        if kept != media:
            omitted["media of earlier answers"] = "this wire takes none back from the assistant"
        if reasoning is not message.reasoning or kept != media:
            message = msgspec.structs.replace(message, reasoning=reasoning, media=kept)  # noqa: PLW2901
        own.append(message)
    return tuple(own), omitted


def _with_beginning(
    messages: tuple[Message, ...], beginning: str | None, generator: GeneratorInfo
) -> tuple[Message, ...]:
    if not beginning:
        return messages
    refusal = generator.provider.capabilities.why_no_prefill(generator.model)
    if refusal is not None:
        raise InvalidParameterError(f"force_prepend cannot be used here: {refusal}")
    return (*messages, Message.assistant(Prefill(beginning).sent))


def _with_system(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    if not system_prompt or any(message.role is Role.SYSTEM for message in messages):
        return tuple(messages)
    return (Message.system(system_prompt), *messages)
