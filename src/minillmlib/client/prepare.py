"""Turns a thread, a generator and the settings into one call. Writes nothing elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter, is_not
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from minillmlib.client.placeholders import fill_placeholders, fill_text, parts_of
from minillmlib.client.prefill import Prefill
from minillmlib.client.prefix_cache import EncodedPrefix
from minillmlib.errors import EmptyThreadError, InvalidParameterError, MiniLLMError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.protocols.chat_completions.dialect import AS_SENT
from minillmlib.protocols.chat_completions.request import EARLIER_REASONING
from minillmlib.providers.published_prices import is_published
from minillmlib.structured.result_type import ResultType
from minillmlib.transport.base import Transport
from minillmlib.transport.default import default_transport
from minillmlib.types.costs import TokenPrice
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import (
    DEFAULT_PARAMETERS,
    NodeCompletionParameters,
    ParametersLike,
    ResponseFormat,
    TypedParameters,
    node_parameters,
)
from minillmlib.types.reasoning import REQUIRED_KEY, Reasoning
from minillmlib.types.tools import ToolCall

METERED_TOOLS = ("mcp_servers", "tools")  # usage reports whether these were actually used

SCHEMA_INSTRUCTION = """Answer with JSON and nothing else. It must fit this JSON schema:
{schema}"""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one completion needs; the thread is a snapshot.

    `messages` are those to send. `thread` are the same before neighbours were merged, from the
    place `first_place` of the path in the tree on; `given` and `params` are what the call was
    prepared from. `choices` is the number of answers that the one request asks for. `prefix` holds
    the messages that an earlier call encoded (perhaps none), if the messages are sent unmodified;
    None if the body must be built whole.
    """

    generator: GeneratorInfo
    messages: tuple[Message, ...]
    settings: NodeCompletionParameters
    stream: bool
    thread: Sequence[Message] = ()
    first_place: int = 0
    choices: int = 1
    omitted: Mapping[str, str] = {}
    result_type: ResultType[JsonValue] | None = None
    prefix: EncodedPrefix | None = None
    given: Sequence[Message] = ()
    params: ParametersLike = None

    @property
    def wants_usage(self) -> bool:
        """Whether to ask for token counts, on wires that must be asked."""
        return self.settings.cost_tracking or self.settings.budget is not None

    @property
    def needs_validation(self) -> bool:
        """Whether the settings ask for more than an answer of any form."""
        settings = self.settings
        crashes = settings.crash_on_refusal or settings.crash_on_empty_response
        return settings.parse_json or crashes or self.result_type is not None

    @property
    def prefill(self) -> Prefill | None:
        """The forced prefix of one answer, which remembers how far it is put in front."""
        prefix = self.settings.force_prepend
        if not prefix:
            return None
        return Prefill(prefix, is_exact=self.generator.provider.capabilities.prompt_key is not None)

    @property
    def transport(self) -> Transport:
        """The transport that carries this call."""
        return self.generator.transport or default_transport()

    def with_generator(self, generator: GeneratorInfo) -> Call:
        """Return the call with the same thread and settings to another generator."""
        try:
            return prepare(self.given, generator, self.params, stream=self.stream)
        except MiniLLMError:
            raise
        except Exception as error:
            raise provider_error("prepare the call", error) from error


def provider_error(task: str, error: Exception) -> InvalidParameterError:
    """Return what is raised for the error of a provider, which may be the caller's own."""
    problem = f"the provider could not {task} ({type(error).__name__}: {error})"
    return InvalidParameterError(problem)


def prepare(
    messages: Sequence[Message],
    generator: GeneratorInfo,
    params: ParametersLike,
    *,
    stream: bool,
    prefix: EncodedPrefix | None = None,
) -> Call:
    """Return the call for these messages. Raises `InvalidParameterError` if they cannot be sent."""
    check_generator(generator)
    if not messages:
        raise EmptyThreadError("there is no message to send")
    given, first_place = messages, 0
    if messages[0].is_blank and len(messages) > 1:
        messages, first_place = messages[1:], 1
    settings = params or DEFAULT_PARAMETERS
    if type(settings) is not NodeCompletionParameters:
        settings = node_parameters(params)
    result_type = why_no_schema = None
    if settings is not DEFAULT_PARAMETERS:
        _check_settings(settings, generator)
        if _changes_messages(settings):
            prefix = None
            form = resolve_result_type(_fill_settings(settings), generator)
            settings, result_type, instruction, why_no_schema = form
            count = len(messages) + (instruction is not None)
            messages = _apply_settings(messages, settings, instruction)
            first_place -= len(messages) - count  # a system prompt of the settings has no node
    # The last encoded message may have to be merged with the first new one.
    start = 0 if prefix is None else max(prefix.count - 1, 0)
    merged = merge_adjacent(messages[start:], generator)
    new, omitted = _drop_foreign_parts(merged, generator, messages[:start])
    if new is not merged or start + len(new) < len(messages):
        prefix = None
    if why_no_schema is not None:
        omitted["the schema of the answer"] = why_no_schema
    if settings.force_prepend:
        new = _add_prefill(new, settings.force_prepend, generator)
    return Call(
        generator=generator,
        messages=(*messages[:start], *new) if start else new,
        thread=messages,
        first_place=first_place,
        settings=settings,
        stream=stream,
        omitted=omitted,
        result_type=result_type,
        prefix=prefix,
        given=given,
        params=params,
    )


def _check_settings(settings: NodeCompletionParameters, generator: GeneratorInfo) -> None:
    """Raise `InvalidParameterError` if the settings lack, or exclude, what the call is given."""
    if generator.fallbacks and settings.token_price is not None:
        raise InvalidParameterError(
            "a token_price of the call would price the answers of several generators; give each "
            "its own with with_token_price"
        )
    params = settings.params
    if not params.tools and (params.tool_choice or params.parallel_tool_calls is not None):
        raise InvalidParameterError(
            "tool_choice and parallel_tool_calls need tools; add tools to the parameters, or use "
            "run_tools"
        )


def _add_prefill(
    messages: tuple[Message, ...], text: str, generator: GeneratorInfo
) -> tuple[Message, ...]:
    """Return the messages with the forced beginning as the last turn, if the wire has turns."""
    capabilities = generator.provider.capabilities
    reason = capabilities.why_no_prefill(generator.model)
    if reason is not None:
        raise InvalidParameterError(f"force_prepend cannot be used here: {reason}")
    if capabilities.prompt_key is not None:
        return messages
    return (*messages, Message.assistant(Prefill(text).sent_text))


def _apply_settings(
    messages: Sequence[Message], settings: NodeCompletionParameters, instruction: str | None
) -> tuple[Message, ...]:
    thread = fill_placeholders(messages, settings.format_kwargs)
    if settings.system_prompt:
        prompt, others = Message.system(settings.system_prompt), thread
        if _is_bare_system(thread[0]):
            prompt = msgspec.structs.replace(thread[0], content=settings.system_prompt)
            others = thread[1:]
        if not any(message.role is Role.SYSTEM for message in others):
            thread = (prompt, *others)
    if instruction is not None:
        thread = (*thread, Message.user(instruction))
    if settings.use_cache:
        last = msgspec.structs.replace(thread[-1], cache_ttl=thread[-1].cache_ttl or "5m")
        thread = (*thread[:-1], last)
    return thread


def _is_bare_system(message: Message) -> bool:
    """Whether this is a system prompt of spaces only, which some wires leave out."""
    is_text = not message.attachments and not (message.text or "").strip()
    return message.role is Role.SYSTEM and is_text


def check_generator(generator: object) -> None:
    """Raise `InvalidParameterError` for anything that is not a generator."""
    if not isinstance(generator, GeneratorInfo):
        raise InvalidParameterError(
            "the generator must be a GeneratorInfo, for example GeneratorInfo.openai(model), "
            f"not {type(generator).__name__}"
        )


def _changes_messages(settings: NodeCompletionParameters) -> bool:
    """Whether the settings change the messages. Those of most calls do not."""
    return bool(
        settings.format_kwargs
        or settings.system_prompt
        or settings.force_prepend
        or settings.use_cache
        or settings.params.response_format
        or isinstance(settings, TypedParameters)
    )


class ResolvedResultType(NamedTuple):
    """The settings with the form of the answer.

    If the wire does not take the schema (`why_no_schema`), the prompt states it (`instruction`).
    """

    settings: NodeCompletionParameters
    result_type: ResultType[JsonValue] | None = None
    instruction: str | None = None
    why_no_schema: str | None = None


def resolve_result_type(
    settings: NodeCompletionParameters, generator: GeneratorInfo
) -> ResolvedResultType:
    """Return how the model is asked for the expected type; the settings as they are without one."""
    if not isinstance(settings, TypedParameters):
        return ResolvedResultType(settings)
    result_type: ResultType[JsonValue] = settings.result_type
    untyped = settings.without_type()
    form = ResponseFormat.json_schema(result_type.schema, strict=result_type.is_strict)
    reason = _why_no_schema(form, untyped, generator)
    if reason is None:
        params = untyped.params.replace(response_format=form)
        return ResolvedResultType(untyped.with_params(params), result_type)
    instruction = SCHEMA_INSTRUCTION.format(schema=result_type.schema_text)
    reason += "; the prompt states it instead"
    return ResolvedResultType(untyped, result_type, instruction, reason)


def _why_no_schema(
    form: ResponseFormat, settings: NodeCompletionParameters, generator: GeneratorInfo
) -> str | None:
    if settings.params.response_format is not None:
        return "the parameters have a response_format of their own"
    if settings.force_prepend:
        return "a forced beginning does not fit a schema"
    return generator.provider.capabilities.why_no_schema(generator.model, form)


def _fill_settings(settings: NodeCompletionParameters) -> NodeCompletionParameters:
    prompt, prefix, values = settings.system_prompt, settings.force_prepend, settings.format_kwargs
    if not (prompt or prefix):
        return settings
    return msgspec.structs.replace(
        settings,
        system_prompt=prompt and fill_text(prompt, values),
        force_prepend=prefix and fill_text(prefix, values),
    )


def price_of(call: Call) -> TokenPrice | None:
    """Return the price of a call: its own, else its generator's.

    A published price is that of a standard request, and of no other.
    """
    price = call.settings.token_price or call.generator.token_price
    if price is None or price.source is None or not is_published(price):
        return price
    unpriced = unpriced_keys(call, call.settings.params.extra)
    return None if set(unpriced) - set(METERED_TOOLS) else price


def unpriced_keys(call: Call, body: Mapping[str, JsonValue]) -> list[str]:
    """Return the keys of a body with which the call may cost more than its tokens."""
    billing, extra = call.generator.provider.billing, call.settings.params.extra
    unknown = [
        key for key, value in extra.items() if value is not None and key not in billing.priced_extra
    ]
    return list(dict.fromkeys([*billing.unpriced_keys(body), *unknown]))


def model_key(generator: GeneratorInfo) -> str:
    """Return the key of a provider and model, for the parts that only they can read."""
    kept = vars(generator)
    key: str | None = kept.get("_model_key")
    if key is None:
        provider = generator.provider
        key = f"{type(provider).__name__}:{generator.model}"
        if provider.capabilities.is_generic:
            key += f"@{urlsplit(generator.base_url).netloc}"
        kept["_model_key"] = key
    return key


def _drop_foreign_parts(
    messages: tuple[Message, ...], generator: GeneratorInfo, earlier: Sequence[Message]
) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Drop the parts that only other models read, and rejected media; return a report of them.

    Other models' reasoning would leak, and the keys of their tool calls would be refused. Returns
    the same messages if there is nothing to change. The `earlier` ones come before them.
    """
    for message in messages:
        if message.reasoning or message.media or message.tool_calls:
            break
    else:
        return messages, {}
    key, replayable = model_key(generator), generator.provider.capabilities.replayable_media
    omitted: dict[str, str] = {}
    kept = []
    for message in messages:
        if not (message.reasoning or message.media or message.tool_calls):
            kept.append(message)
            continue
        reasoning, media, calls = message.reasoning, message.media, message.tool_calls
        if reasoning is not None and reasoning.origin != key:
            omitted[EARLIER_REASONING] = "it was made by another model"
            reasoning = None
        if not all(part.kind in replayable for part in media):
            omitted["media of earlier answers"] = "this wire takes none back from the assistant"
            media = tuple(part for part in media if part.kind in replayable)
        foreign = [call for call in calls if call.origin not in ("", key)]
        if foreign:
            if any(call.extra for call in foreign):
                omitted["further keys of tool calls"] = "they are for the model that made the call"
            calls = tuple(_without_origin(call) if call in foreign else call for call in calls)
        parts = {"reasoning": reasoning, "media": media, "tool_calls": calls}
        is_same = all(getattr(message, name) is part for name, part in parts.items())
        kept.append(message if is_same else msgspec.structs.replace(message, **parts))
    kept = _fill_reasoning(kept, generator, earlier)
    is_changed = any(map(is_not, kept, messages))
    return (tuple(kept), omitted) if is_changed else (messages, omitted)


def _without_origin(call: ToolCall) -> ToolCall:
    """Return a call without what only the model that made it knows."""
    return msgspec.structs.replace(call, extra={}, origin="")


def _fill_reasoning(
    messages: list[Message], generator: GeneratorInfo, earlier: Sequence[Message]
) -> list[Message]:
    """Give tool calls without reasoning an empty one, once the server has shown that it has a key.

    Kimi and DeepSeek refuse a turn with calls and without `reasoning_content`, even if another
    model made it, or no reasoning. Only earlier messages decide, so that a message is encoded
    alike whatever follows it.
    """
    if generator.provider.dialect.reasoning_echo != AS_SENT:
        return messages
    if all(message.reasoning or not message.tool_calls for message in messages):
        return messages
    empty = Reasoning(origin=model_key(generator), key=REQUIRED_KEY)
    known = filter(None, map(attrgetter("reasoning"), earlier))
    has_key = any(_shows_key(reasoning, empty) for reasoning in known)
    filled = []
    for message in messages:
        if message.reasoning is not None:
            has_key = has_key or _shows_key(message.reasoning, empty)
        needs_it = has_key and message.tool_calls and message.reasoning is None
        filled.append(msgspec.structs.replace(message, reasoning=empty) if needs_it else message)
    return filled


def _shows_key(reasoning: Reasoning, like: Reasoning) -> bool:
    return (reasoning.origin, reasoning.key) == (like.origin, like.key)


def merge_adjacent(messages: Sequence[Message], generator: GeneratorInfo) -> tuple[Message, ...]:
    """Merge plain neighbours of one role, since many servers demand alternating turns.

    A wire that sends one text has no turns, so its messages stay as they are. Else texts are
    separated by an empty line, and blank ones are dropped. A message with tool calls, results or
    reasoning stays alone, and so does one that ends with a cache breakpoint.
    """
    role = None
    for message in messages:
        if message.role is role:
            break
        role = message.role
    else:  # they alternate, as in most conversations
        return tuple(messages)
    if generator.provider.capabilities.prompt_key is not None:
        return tuple(messages)
    turns: list[Message] = []
    for message in messages:
        if turns and _is_one_turn(turns[-1], message):
            turns[-1] = _merge(turns[-1], message)
        else:
            turns.append(message)
    return tuple(turns)


def _is_one_turn(first: Message, second: Message) -> bool:
    return (
        first.role is second.role
        and first.cache_ttl is None
        and not any(
            message.tool_calls or message.tool_call_id or message.reasoning or message.media
            for message in (first, second)
        )
    )


def _merge(first: Message, second: Message) -> Message:
    if isinstance(first.content, str) and isinstance(second.content, str):
        text = "\n\n".join(text for text in (first.content, second.content) if text.strip())
        return msgspec.structs.replace(second, content=text)
    parts = (*parts_of(first), *parts_of(second))
    return msgspec.structs.replace(second, content=parts)
