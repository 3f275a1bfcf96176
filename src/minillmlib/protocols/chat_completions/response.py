"""The chat-completions dialect: OpenAI's wire, which most servers speak with an accent.

Pure functions of facts. What differs between servers is a field of `ChatDialect`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from minillmlib.errors import (
    ApiError,
    InvalidParameterError,
    MalformedResponseError,
    ServerError,
)
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    decode_json,
    excerpt_of,
    json_text,
    string_or_empty,
)
from minillmlib.protocols.chat_completions.media import media_in
from minillmlib.protocols.chat_completions.messages import (
    MessageCapabilities,
    message_body,
    naming_json,
)
from minillmlib.protocols.chat_completions.usage import usage_record
from minillmlib.protocols.errors import error_from_payload, is_error_payload
from minillmlib.protocols.fields import add_extra, write_parameters
from minillmlib.streaming.accumulator import whole_response
from minillmlib.types.media import Media
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningBlock, ReasoningConfig, ReasoningDelta
from minillmlib.types.responses import CompletionResponse, FinishReason, StreamChunk
from minillmlib.types.tools import (
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    as_tool,
    as_tool_choice,
)
from minillmlib.types.usage import Usage

__all__ = [
    "ALL_FIELDS",
    "OPENAI_FIELDS",
    "ChatDialect",
    "build_body",
    "parse_chunk",
    "parse_completion",
]

OPENAI_FIELDS: Mapping[str, str] = {
    "max_tokens": "max_completion_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop": "stop",
    "seed": "seed",
}

ALL_FIELDS: Mapping[str, str] = {
    **OPENAI_FIELDS,
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
}

UsageParser: TypeAlias = Callable[[JsonValue], Usage | None]


class ChatDialect(msgspec.Struct, frozen=True, kw_only=True):
    """The facts in which servers of this wire differ.

    Attributes:
        name: What the wire is called in error messages.
        fields: The generation fields the server knows, and its words for them.
        has_stream_options: Whether usage in a stream must be asked for by `stream_options`.
        messages: What its messages may hold.
        has_reasoning_object: Whether it takes a `reasoning` object, with a budget, in place of
            `reasoning_effort`.
        reasoning_echo: The key under which an assistant's reasoning goes back to it:
            `reasoning_details` its blocks, `reasoning_content` its text.
    """

    name: str = "the chat-completions wire"
    fields: Mapping[str, str] = msgspec.field(default_factory=lambda: ALL_FIELDS)
    has_stream_options: bool = True
    messages: MessageCapabilities = MessageCapabilities()
    has_reasoning_object: bool = False
    reasoning_echo: str | None = None


def build_body(  # noqa: PLR0913 - the contract's five, and the facts
    dialect: ChatDialect,
    model: str,
    messages: Sequence[Message],
    params: CompletionParameters,
    *,
    stream: bool,
    include_usage: bool,
) -> JsonObject:
    """The body of a request."""
    if params.response_format is not None and params.response_format.schema is None:
        messages = naming_json(messages)
    sent = [message_body(message, dialect.messages, dialect.name) for message in messages]
    if dialect.reasoning_echo is not None:
        for one, message in zip(sent, messages, strict=True):
            one.update(_echo(message, dialect.reasoning_echo))
    body: JsonObject = {"model": model, "messages": sent}
    body |= write_parameters(params, dialect.fields, dialect.name)
    body |= _structured(params) | _reasoning_body(dialect, params.reasoning)
    if stream:
        body["stream"] = True
        if include_usage and dialect.has_stream_options:
            body["stream_options"] = {"include_usage": True}
    return add_extra(body, params.extra)


def _structured(params: CompletionParameters) -> JsonObject:
    """The keys of the fields that are more than a number or a text."""
    body: JsonObject = {}
    if params.response_format is not None:
        body["response_format"] = _format_body(params.response_format)
    if params.tools:
        body["tools"] = [_tool_body(as_tool(tool)) for tool in params.tools]
    if params.tool_choice is not None:
        body["tool_choice"] = _choice_body(as_tool_choice(params.tool_choice))
    if params.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = params.parallel_tool_calls
    return body


def _reasoning_body(dialect: ChatDialect, reasoning: ReasoningConfig | None) -> JsonObject:
    if reasoning is None:
        return {}
    if dialect.has_reasoning_object:
        fields = {"effort": reasoning.effort, "max_tokens": reasoning.max_tokens}
        return {"reasoning": {name: value for name, value in fields.items() if value is not None}}
    if reasoning.effort is None:
        raise InvalidParameterError(f"{dialect.name} has no reasoning max_tokens; give an effort")
    return {"reasoning_effort": reasoning.effort}


def _echo(message: Message, key: str) -> JsonObject:
    """What a model thought, for a server that wants it back."""
    if message.reasoning is None:
        return {}
    is_text = key == "reasoning_content"
    echo = message.reasoning.text if is_text else [b.fields for b in message.reasoning.blocks]
    return {key: echo} if echo else {}


def _format_body(form: ResponseFormat) -> JsonObject:
    if form.schema is None:
        return {"type": "json_object"}
    schema = {"name": form.name, "schema": form.schema, "strict": form.strict}
    return {"type": "json_schema", "json_schema": schema}


def _tool_body(tool: ToolDefinition) -> JsonObject:
    function: JsonObject = {"name": tool.name, "parameters": tool.parameters}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice_body(choice: ToolChoice) -> JsonValue:
    if choice.name is None:
        return choice.mode
    return {"type": "function", "function": {"name": choice.name}}


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: JsonValue = None


class _Custom(msgspec.Struct):
    """A call of OpenAI's free kind, whose input is any text."""

    name: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: JsonValue = None
    function: _Function | None = None
    custom: _Custom | None = None


class _Sound(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None


class _Said(msgspec.Struct, gc=False):
    """A message or a delta. Mistral sends content as a list of typed pieces.

    `function_call` is the one call of the days before `tool_calls`.
    """

    content: str | list[JsonObject] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    images: list[JsonObject] | None = None
    audio: _Sound | None = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None
    reasoning_details: JsonValue = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    message: _Said | None = None
    delta: _Said | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    error: JsonValue = None


class _Body(msgspec.Struct, gc=False):
    """The parts we read of a completion or of a chunk. Relays send ids of any type."""

    id: JsonValue = None
    model: JsonValue = None
    object: JsonValue = None
    choices: list[_Choice] | None = None
    usage: JsonValue = None
    error: JsonValue = None


_chunk_decoder = msgspec.json.Decoder(_Body)


def parse_completion(raw: JsonValue, usage_of: UsageParser) -> CompletionResponse:
    """A whole answer. Raises an `ApiError` for an error sent with status 200."""
    if is_error_payload(raw):
        raise error_from_payload(raw)
    body = convert_json(raw, _Body)
    choice = _first_choice(body)
    if choice is None or choice.message is None:
        raise MalformedResponseError(f"the answer has no choices: {excerpt_of(raw)}")
    # A whole message numbers its calls by their place.
    for position, call in enumerate(choice.message.tool_calls or ()):
        call.index = position
    chunk = StreamChunk(
        id=string_or_empty(body.id),
        model=string_or_empty(body.model),
        **_counted(raw, usage_of),
        **_said_in(choice),
    )
    response = whole_response([chunk], raw)
    if not chunk.reasoning_blocks:
        return response
    # Nothing to put together, though some may share a number.
    blocks = tuple(ReasoningBlock(fields=detail) for detail in _details_in(choice.message))
    return msgspec.structs.replace(response, reasoning_blocks=blocks)


def parse_chunk(data: str, usage_of: UsageParser) -> StreamChunk | None:
    """One event of a stream, or None for one that says nothing.

    An error is looked for before the choices: servers send it with empty choices too.
    """
    try:
        body = _chunk_decoder.decode(data)
    except (ValueError, RecursionError):
        data = data.strip()
        if data == "[DONE]":
            return StreamChunk(is_end=True)
        if not data or data.startswith(":"):  # relays send their keep-alives as data
            return None
        body = _mended_chunk(data)
    if body.error or body.object == "error":
        raise error_from_payload(decode_json(data), partial=_partial_of(body))
    choice = _first_choice(body)
    name, model = string_or_empty(body.id), string_or_empty(body.model)
    if choice is not None and body.usage is None and not _ends(choice):
        words = None if choice.delta is None else _words_alone(choice.delta)
        if words is not None:  # as in nearly all
            return StreamChunk(id=name, model=model, delta=words[0], reasoning=words[1])
    return StreamChunk(
        id=name,
        model=model,
        **(_counted(decode_json(data), usage_of) if _may_hold_usage(body, choice) else {}),
        **_said_in(choice),
    )


def _ends(choice: _Choice) -> bool:
    return bool(choice.finish_reason or choice.native_finish_reason or choice.error)


def _words_alone(said: _Said) -> tuple[str, str] | None:
    """The text and the thought of what was said, or None if it says anything else."""
    says_more = (
        said.tool_calls
        or said.reasoning_details
        or said.refusal
        or said.images
        or said.audio
        or said.function_call
    )
    text, thought = said.content or "", said.reasoning_content or said.reasoning or ""
    if says_more or not isinstance(text, str) or not isinstance(thought, str):
        return None
    return text, thought


def _counted(raw: JsonValue, usage_of: UsageParser) -> JsonObject:
    return {"usage": usage_of(raw), "usage_record": usage_record(raw)}


def _mended_chunk(text: str) -> _Body:
    payload = decode_json(text)
    if is_error_payload(payload):
        raise error_from_payload(payload)
    return convert_json(payload, _Body)


def _said_in(choice: _Choice | None) -> JsonObject:
    if choice is None:
        return {}
    said = choice.delta or choice.message or _Said()
    reason = FinishReason.of(choice.finish_reason or None)  # some servers keep "" until the end
    if choice.error or reason is FinishReason.ERROR:
        raise _failure_of(choice, _text_of(said))
    end = {
        "finish_reason": reason,
        "raw_finish_reason": choice.native_finish_reason or choice.finish_reason,
    }
    words = _words_alone(said)
    if words is not None:
        return {"delta": words[0], "reasoning": words[1], **end}
    return {
        "delta": _text_of(said),
        "refusal": said.refusal or None,
        "reasoning": _thought_in(said),
        "reasoning_blocks": _blocks_in(said),
        "tool_calls": _calls_in(said),
        "media": _media_in(said),
        **end,
    }


def _thought_in(said: _Said) -> str:
    """The reasoning's text, under any of its names, and never twice."""
    for text in (said.reasoning_content, said.reasoning):
        if isinstance(text, str) and text:
            return text
    if said.reasoning_details is None and not isinstance(said.content, list):
        return ""
    pieces = said.content if isinstance(said.content, list) else ()
    thinking = [piece.get("thinking") for piece in pieces if piece.get("type") == "thinking"]
    inner = [item for items in thinking if isinstance(items, list) for item in items]
    parts = [*_details_in(said), *(item for item in inner if isinstance(item, dict))]
    return "".join(
        string_or_empty(part.get("text")) or string_or_empty(part.get("summary")) for part in parts
    )


def _blocks_in(said: _Said) -> tuple[ReasoningDelta, ...]:
    if said.reasoning_details is None:
        return ()
    return tuple(
        ReasoningDelta(index=_block_index(detail, position), fields=detail)
        for position, detail in enumerate(_details_in(said))
    )


def _block_index(detail: JsonObject, position: int) -> int:
    index = detail.get("index")
    return index if isinstance(index, int) else position


def _details_in(said: _Said) -> list[JsonObject]:
    details = said.reasoning_details if isinstance(said.reasoning_details, list) else []
    return [detail for detail in details if isinstance(detail, dict)]


def _media_in(said: _Said) -> tuple[Media, ...]:
    if said.images is None and said.audio is None:
        return ()
    return media_in(said.images or (), said.audio.data if said.audio else None)


def _calls_in(said: _Said) -> tuple[ToolCallDelta, ...]:
    if said.function_call is not None:
        return (_call_delta(_Call(index=0, function=said.function_call)),)
    return tuple(map(_call_delta, said.tool_calls or ()))


def _call_delta(call: _Call) -> ToolCallDelta:
    function = call.function or _Function()
    if call.custom is not None:
        function = _Function(name=call.custom.name, arguments=call.custom.input)
    arguments = function.arguments
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):  # some servers send the object itself
        arguments = json_text(arguments)
    return ToolCallDelta(
        index=call.index, id=string_or_empty(call.id), name=function.name or "", arguments=arguments
    )


def _may_hold_usage(body: _Body, choice: _Choice | None) -> bool:
    return body.usage is not None or choice is None or bool(choice.finish_reason)


def _first_choice(body: _Body) -> _Choice | None:
    """The choice with index 0: of several, the one that is the answer."""
    for choice in body.choices or ():
        if not choice.index:  # some servers leave it out
            return choice
    return None


def _failure_of(choice: _Choice, partial: str) -> ApiError:
    if choice.error:
        return error_from_payload({"error": choice.error}, partial=partial)
    return ServerError(
        f"the server broke the answer off ({choice.finish_reason})",
        status=200,
        code=choice.finish_reason,
        partial=partial,
    )


def _partial_of(body: _Body) -> str:
    choice = _first_choice(body)
    said = choice and (choice.delta or choice.message)
    return _text_of(said) if said else ""


def _text_of(said: _Said) -> str:
    """The text; of a spoken answer, what was said."""
    if not isinstance(said.content, list):
        return said.content or (said.audio and said.audio.transcript) or ""
    texts = (piece.get("text") for piece in said.content if piece.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))
