"""Parses answers of the chat-completions wire, whole and in chunks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError, ServerError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    decode_json,
    excerpt_of,
    json_text,
    string_or_empty,
)
from minillmlib.protocols.chat_completions.usage import UsageParser, usage_record
from minillmlib.protocols.errors import base_resp_code, error_from_payload, error_without_key
from minillmlib.protocols.finish_reasons import FINISH_REASONS
from minillmlib.streaming.accumulator import whole_response
from minillmlib.types.media import AudioPart, ImagePart, Media, sniff_type
from minillmlib.types.reasoning import REQUIRED_KEY, ReasoningBlock, ReasoningDelta
from minillmlib.types.responses import CompletionResponse, FinishReason, StreamChunk, TokenLogprob
from minillmlib.types.tools import ToolCallDelta

RAW_SAMPLES = "audio/pcm"  # 24 kHz, 16 bit: the one format without a signature


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: JsonValue = None


class _Custom(_Function, gc=False, rename={"arguments": "input"}):
    """A call of OpenAI's free kind, whose input is any text."""

    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: JsonValue = None
    type: JsonValue = None
    function: _Function | None = None
    custom: _Custom | None = None


_CALL_KEYS = frozenset(_Call.__struct_fields__)
_TEXT_KEYS = ("text", "summary", "thinking")  # of a block of reasoning
_FUNCTION_KEYS = frozenset(_Function.__struct_fields__)


class _Audio(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None


class _Message(msgspec.Struct, gc=False):
    """A message or a delta. Mistral sends content as a list of typed pieces.

    `function_call` is the one call of the time before `tool_calls`.
    """

    content: str | list[JsonObject] | None = None
    refusal: str | None = None
    tool_calls: list[JsonObject] | None = None  # whole, since their other keys go back
    function_call: _Function | None = None
    images: list[JsonObject] | None = None
    audio: _Audio | None = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None
    reasoning_details: JsonValue = None
    thinking_blocks: JsonValue = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    error: JsonValue = None
    logprobs: JsonValue = None
    usage: JsonValue = None  # of Moonshot's streams


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: JsonValue = None
    top_logprobs: JsonValue = None


class _Body(msgspec.Struct, gc=False):
    """The parts of a completion or of a chunk that we read. Relays send ids of any type."""

    id: JsonValue = None
    model: JsonValue = None
    object: JsonValue = None
    choices: list[_Choice] | None = None
    usage: JsonValue = None
    error: JsonValue = None


_chunk_decoder = msgspec.json.Decoder(_Body)


def parse_completion(raw: JsonValue, parse_usage: UsageParser) -> CompletionResponse:
    """Return a whole answer. Raises an `ApiError` for an error sent with status 200."""
    if is_error_payload(raw):
        raise error_from_payload(raw)
    body = convert_json(raw, _Body)
    choice = _first_choice(body)
    if choice is None or choice.message is None:
        no_choices = MalformedResponseError(f"the answer has no choices: {excerpt_of(raw)}")
        raise error_without_key(raw) or no_choices
    # A whole message numbers its calls by their place.
    if choice.message.tool_calls:
        numbered = enumerate(choice.message.tool_calls)
        choice.message.tool_calls = [{**call, "index": position} for position, call in numbered]
    chunk = StreamChunk(
        id=string_or_empty(body.id),
        model=string_or_empty(body.model),
        **_usage_fields(raw, parse_usage),
        **_choice_fields(choice),
    )
    response = whole_response([chunk], raw)
    if not chunk.reasoning_blocks:
        return response
    # Nothing to put together, though some may share a number.
    blocks = tuple(ReasoningBlock(fields=detail) for detail in _reasoning_details(choice.message))
    return msgspec.structs.replace(response, reasoning_blocks=blocks)


def parse_chunk(data: str, parse_usage: UsageParser) -> StreamChunk | None:
    """Return one event of a stream, or None for one without content.

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
        payload = decode_json(data)  # not quite JSON, or not in our shape
        if is_error_payload(payload):
            raise error_from_payload(payload) from None
        body = convert_json(payload, _Body)
    choice = _first_choice(body)
    if body.error or body.object == "error":
        partial = _text(choice.delta or choice.message) if choice else ""
        raise error_from_payload(decode_json(data), partial=partial)
    name, model = string_or_empty(body.id), string_or_empty(body.model)
    has_more = choice and (
        choice.finish_reason
        or choice.native_finish_reason
        or choice.error
        or choice.logprobs
        or choice.usage
    )
    if choice is not None and body.usage is None and not has_more:
        texts = None if choice.delta is None else _text_only_delta(choice.delta)
        if texts is not None:  # as in nearly all
            return StreamChunk(
                id=name, model=model, delta=texts[0], reasoning=texts[1], reasoning_key=texts[2]
            )
    may_hold_usage = body.usage is not None or choice is None or has_more
    raw = decode_json(data) if may_hold_usage else None
    if choice is None and not body.usage and (error := error_without_key(raw)):
        raise error
    if isinstance(raw, dict) and "base_resp" in raw and base_resp_code(raw):
        partial = _text(choice.delta or choice.message) if choice else ""
        raise error_from_payload(raw, partial=partial)
    return StreamChunk(
        id=name,
        model=model,
        **(_usage_fields(raw, parse_usage) if may_hold_usage else {}),
        **(_choice_fields(choice) if choice else {}),
    )


def is_error_payload(payload: JsonValue) -> bool:
    """Whether a JSON body that came with a success status is an error."""
    if isinstance(payload, list):  # as Gemini sends errors
        return bool(payload and isinstance(payload[0], dict) and payload[0].get("error"))
    if not isinstance(payload, dict):
        return False
    is_named = payload.get("object") == "error" or payload.get("type") == "error"
    has_code = "base_resp" in payload and base_resp_code(payload)
    return is_named or bool(payload.get("error") or has_code)


def _first_choice(body: _Body) -> _Choice | None:
    """Return the choice with index 0: of several, the one that is the answer."""
    for choice in body.choices or ():
        if not choice.index:  # some servers omit it
            return choice
    return None


def _choice_fields(choice: _Choice) -> JsonObject:
    """Return the fields of a chunk. Raises an `ApiError` if the choice reports a failure."""
    message = choice.delta or choice.message or _Message()
    word = choice.finish_reason or None  # some servers send "" until the end
    reason = None if word is None else FINISH_REASONS.get(word, FinishReason.UNKNOWN)
    if choice.error:
        raise error_from_payload({"error": choice.error}, partial=_text(message))
    if reason is FinishReason.ERROR:
        raise ServerError(
            f"the server broke the answer off ({choice.finish_reason})",
            status=200,
            code=choice.finish_reason,
            partial=_text(message),
        )
    rest: JsonObject = {
        "finish_reason": reason,
        "raw_finish_reason": choice.native_finish_reason or choice.finish_reason,
    }
    if choice.logprobs:
        rest["logprobs"] = _logprobs(choice.logprobs, "content")
    texts = _text_only_delta(message)
    if texts is not None:  # saves a third of the time of a whole answer
        return {"delta": texts[0], "reasoning": texts[1], "reasoning_key": texts[2], **rest}
    return {
        "delta": _text(message),
        "refusal": message.refusal or None,
        "reasoning": _reasoning(message),
        "reasoning_key": _reasoning_key(message),
        "reasoning_blocks": tuple(_reasoning_blocks(message)),
        "tool_calls": _tool_calls(message),
        "media": _media(message),
        **rest,
    }


def _logprobs(record: JsonValue, key: str) -> tuple[TokenLogprob, ...]:
    """Return the tokens in a list of a record, without what is none: it is not the answer itself.

    Old servers send records of another shape.
    """
    items = record.get(key) if isinstance(record, dict) else None
    tokens = (_token_logprob(item, key) for item in (items if isinstance(items, list) else ()))
    return tuple(filter(None, tokens))


def _token_logprob(item: JsonValue, key: str) -> TokenLogprob | None:
    try:
        found = msgspec.convert(item, _Logprob)
    except (ValueError, OverflowError):
        return None
    try:
        data = bytes(found.bytes) if isinstance(found.bytes, list) else None
    except (ValueError, TypeError, OverflowError):
        data = None
    top = () if key == "top_logprobs" else _logprobs(item, "top_logprobs")
    return TokenLogprob(token=found.token, logprob=found.logprob, bytes=data, top=top)


def _usage_fields(raw: JsonValue, parse_usage: UsageParser) -> JsonObject:
    return {"usage": parse_usage(raw), "usage_record": usage_record(raw)}


def _text_only_delta(message: _Message) -> tuple[str, str, str] | None:
    """Return text, reasoning and its key of a message, or None if it holds anything else."""
    has_more = (
        message.tool_calls
        or message.reasoning_details
        or message.thinking_blocks
        or message.refusal
        or message.images
        or message.audio
        or message.function_call
    )
    text, reasoning = message.content or "", message.reasoning_content or message.reasoning or ""
    if has_more or not isinstance(text, str) or not isinstance(reasoning, str):
        return None
    if message.reasoning_content is None and message.reasoning is None:  # as in most
        return text, "", ""
    return text, reasoning, _reasoning_key(message)


def _text(message: _Message | None) -> str:
    """Return the text; of a spoken answer, its transcript."""
    if message is None:
        return ""
    if not isinstance(message.content, list):
        return message.content or (message.audio and message.audio.transcript) or ""
    texts = (piece.get("text") for piece in message.content if piece.get("type") == "text")
    return "".join(text for text in texts if isinstance(text, str))


def _reasoning(message: _Message) -> str:
    """Return the reasoning's text, under any of its names, and never twice."""
    for text in (message.reasoning_content, message.reasoning):
        if isinstance(text, str) and text:
            return text
    pieces = message.content if isinstance(message.content, list) else ()
    thinking = [piece.get("thinking") for piece in pieces if piece.get("type") == "thinking"]
    inner = [item for items in thinking if isinstance(items, list) for item in items]
    parts = [*_reasoning_details(message), *(item for item in inner if isinstance(item, dict))]
    return "".join(
        next(filter(None, (string_or_empty(part.get(key)) for key in _TEXT_KEYS)), "")
        for part in parts
    )


def _reasoning_key(message: _Message) -> str:
    """Return the key under which the server sends reasoning, be it empty, or "" for none."""
    if _objects(message.reasoning_details):
        return "reasoning_details"
    if _objects(message.thinking_blocks):
        return "thinking_blocks"
    if isinstance(message.reasoning_content, str):
        return REQUIRED_KEY
    if isinstance(message.reasoning, str):
        return "reasoning"
    return "content" if isinstance(message.content, list) and _reasoning(message) else ""


def _reasoning_blocks(message: _Message) -> Iterator[ReasoningDelta]:
    for position, detail in enumerate(_reasoning_details(message)):
        index = detail.get("index")
        yield ReasoningDelta(index=index if isinstance(index, int) else position, fields=detail)


def _reasoning_details(message: _Message) -> list[JsonObject]:
    """Return the blocks of reasoning, under either of their names."""
    return _objects(message.reasoning_details) or _objects(message.thinking_blocks)


def _objects(value: JsonValue) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _tool_calls(message: _Message) -> tuple[ToolCallDelta, ...]:
    if message.function_call is not None:
        return (_call_delta(_Call(index=0, function=message.function_call)),)
    return tuple(map(_tool_call, message.tool_calls or ()))


def _tool_call(raw: JsonObject) -> ToolCallDelta:
    call = convert_json(raw, _Call)
    inner = raw.get("function") or {}
    is_plain = raw.keys() <= _CALL_KEYS and inner.keys() <= _FUNCTION_KEYS
    if is_plain and call.custom is None:  # as in nearly all
        return _call_delta(call)
    extra = {key: value for key, value in raw.items() if key not in _CALL_KEYS}
    if more := {key: value for key, value in inner.items() if key not in _FUNCTION_KEYS}:
        extra["function"] = more
    if call.custom is not None:
        extra["type"] = "custom"
    return msgspec.structs.replace(_call_delta(call), extra=extra)


def _call_delta(call: _Call) -> ToolCallDelta:
    function = call.custom or call.function or _Function()
    arguments = "" if function.arguments is None else function.arguments
    if not isinstance(arguments, str):  # some servers send the object itself
        arguments = json_text(arguments)
    return ToolCallDelta(
        index=call.index,
        id=string_or_empty(call.id),
        name=function.name or "",
        arguments=arguments,
    )


def _media(message: _Message) -> tuple[Media, ...]:
    images = tuple(map(_parse_image, message.images or ()))
    audio = message.audio and message.audio.data
    return (*images, _parse_audio(audio)) if audio else images


def _parse_image(item: JsonObject) -> ImagePart:
    match item.get("image_url"):
        case {"url": str(url)} | str(url):
            try:
                return ImagePart.from_url(url)
            except InvalidParameterError as error:
                raise MalformedResponseError(f"the answer holds a broken image: {error}") from None
    raise MalformedResponseError(f"the answer holds an unknown image: {excerpt_of(item)}")


def _parse_audio(data: str) -> AudioPart:
    try:
        samples = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedResponseError("the answer holds a broken sound (no base64)") from None
    return AudioPart(data=samples, media_type=sniff_type(samples, "audio/") or RAW_SAMPLES)
