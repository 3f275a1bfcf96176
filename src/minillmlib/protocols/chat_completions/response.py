"""Parses answers of the chat-completions wire, whole and in chunks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from itertools import count, filterfalse
from typing import Annotated, Literal, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    convert_plain,
    decode_json,
    excerpt_of,
    json_text,
    string_or_empty,
)
from minillmlib.protocols.chat_completions.usage import UsageParser, usage_record
from minillmlib.protocols.errors import base_resp_code, error_from_payload, error_without_key
from minillmlib.protocols.finish_reasons import (
    FINISH_REASONS,
    check_finish_reason,
    parse_finish_reason,
)
from minillmlib.streaming.accumulator import PLAIN_ENDS, add_pieces, join_pieces, whole_response
from minillmlib.types.media import AudioPart, ImagePart, Media, sniff_type
from minillmlib.types.reasoning import REQUIRED_KEY, ReasoningBlock, ReasoningDelta
from minillmlib.types.responses import CompletionResponse, FinishReason, StreamChunk, TokenLogprob
from minillmlib.types.tools import ToolCallDelta
from minillmlib.types.usage import Usage

Pieces: TypeAlias = dict[str, list[JsonValue]]  # the unread keys of all messages of a body

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
# The types of calls that need no word of their own. Any other one is kept in the call's `extra`.
_CALL_TYPES = ("function", "custom", "", None)
_TEXT_KEYS = ("text", "summary", "thinking")  # of a block of reasoning
_FUNCTION_KEYS = frozenset(_Function.__struct_fields__)
_CUSTOM_KEYS = frozenset(_Custom.__struct_encode_fields__)


class _Audio(msgspec.Struct):
    data: str | None = None
    transcript: str | None = None


class _Message(msgspec.Struct, gc=False):
    """A message or a delta. Mistral sends content as a list of typed pieces.

    `function_call` is the one call of the time before `tool_calls`.
    """

    content: str | list[JsonObject | str] | None = None
    refusal: str | None = None
    tool_calls: list[JsonObject] | None = None  # whole, since their other keys go back
    function_call: JsonObject | None = None
    images: list[JsonObject] | None = None
    audio: _Audio | None = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None
    reasoning_details: JsonValue = None
    thinking_blocks: JsonValue = None


class _Choice(msgspec.Struct, gc=False, rename={"camel_finish_reason": "finishReason"}):
    index: int | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None
    camel_finish_reason: str | None = None  # beside a null one (llmcord#84)
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


# The keys of a body, a choice and a message that are read, or that say nothing: `obfuscation` is
# padding of random length. Any other key is kept in `extra`.
_READ_OF_BODY = frozenset((*_Body.__struct_encode_fields__, "obfuscation"))
_READ_OF_CHOICE = frozenset(_Choice.__struct_encode_fields__)
_READ_OF_MESSAGE = frozenset((*_Message.__struct_encode_fields__, "role"))
PLAIN_ROLES = ("assistant", "", None)  # of an answer; any other role is kept in `extra`


class _PlainFunction(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None


class _PlainCall(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    function: _PlainFunction
    index: int | None = None
    id: str | None = None
    type: Literal["function"] | None = None


# The fields of these three stand in the order of the wire, in which they are found fastest.
class _PlainDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["assistant", ""] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: None = None
    tool_calls: list[_PlainCall] | None = None
    function_call: None = None


class _PlainChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    index: JsonValue = None
    delta: _PlainDelta
    logprobs: None = None
    finish_reason: Literal[""] | None = None
    native_finish_reason: None = None
    stop_reason: None = None  # vLLM's
    token_ids: None = None


class _PlainChunk(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Nearly every event of a stream: a piece of text or of a call, and what each event repeats.

    An event that fits it has nothing else, and is no error. What it repeats is read from the other
    events, of which a stream has two at least.
    """

    id: str | None = None
    provider: JsonValue = None
    object: Literal["chat.completion.chunk"] | None = None
    created: JsonValue = None
    model: str | None = None
    service_tier: JsonValue = None
    system_fingerprint: JsonValue = None
    choices: tuple[_PlainChoice]
    usage: None = None
    error: None = None
    obfuscation: JsonValue = None


_plain_decoder = msgspec.json.Decoder(_PlainChunk)


class _PlainMessage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: str
    role: Literal["assistant", ""] | None = None
    refusal: None = None
    annotations: Annotated[list[JsonValue], msgspec.Meta(max_length=0)] | None = None
    tool_calls: Annotated[list[JsonValue], msgspec.Meta(max_length=0)] | None = None
    function_call: None = None
    audio: None = None
    reasoning_content: None = None
    reasoning: None = None


class _PlainWholeChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    message: _PlainMessage
    finish_reason: Literal["stop"]
    index: int | None = None
    logprobs: None = None
    stop_reason: None = None  # vLLM's


class PlainAnswer(msgspec.Struct, gc=False, kw_only=True):
    """The facts of a whole body that is no error (see `is_error_payload`), on any wire."""

    id: str = ""
    model: str = ""
    object: Literal["chat.completion", "text_completion", "response"] | None = None
    type: Literal["message"] | None = None
    error: None = None
    base_resp: None = None


class _PlainCompletion(PlainAnswer, gc=False, kw_only=True):
    """Nearly every whole answer without calls: one choice of one text that the model ended."""

    choices: tuple[_PlainWholeChoice]
    created: Annotated[int, msgspec.Meta(gt=0)] | None = None  # see `_unread_of_body`


def parse_completion(raw: JsonValue, parse_usage: UsageParser) -> CompletionResponse:
    """Return a whole answer. Raises an `ApiError` for an error sent with status 200."""
    plain = convert_plain(raw, _PlainCompletion)
    if plain is not None:  # saves a seventh of the steps of a call
        return text_response(
            raw,
            plain,
            plain.choices[0].message.content,
            "stop",
            usage=parse_usage(raw),
            extra=unread_keys(raw, _READ_OF_BODY),
        )
    if is_error_payload(raw):
        raise error_from_payload(raw, partial=_partial_text(raw))
    body = convert_json(raw, _Body)
    messages = [choice.message for choice in body.choices or () if choice.message is not None]
    if not messages:
        no_choices = MalformedResponseError(f"the answer has no choices: {excerpt_of(raw)}")
        raise error_without_key(raw) or no_choices
    position = count()  # a whole answer numbers its calls by their place
    for message in messages:
        for call in message.tool_calls or ():  # a copy of what `raw` holds
            call["index"] = next(position)
    fields = _content_fields(body, raw)
    # Nothing to put together, though some may share a number.
    blocks = tuple(ReasoningBlock(fields=one.fields) for one in fields.pop("reasoning_blocks", ()))
    chunk = StreamChunk(
        id=string_or_empty(body.id),
        model=string_or_empty(body.model),
        **_usage_fields(raw, parse_usage),
        **fields,
    )
    response = whole_response([chunk], raw)
    return msgspec.structs.replace(response, reasoning_blocks=blocks) if blocks else response


def text_response(  # noqa: PLR0913 - shared with other wires
    raw: JsonObject,
    plain: PlainAnswer,
    text: str,
    word: str,
    *,
    usage: Usage | None,
    extra: JsonObject,
) -> CompletionResponse:
    """Return a whole answer of one text that the model ended."""
    record = None
    if usage is None or not usage.is_complete:
        usage, record = None, usage_record(raw)
    return CompletionResponse(
        id=plain.id,
        model=plain.model,
        content=text,
        finish_reason=FinishReason.STOP,
        raw_finish_reason=word,
        usage=usage,
        usage_record=record,
        extra=extra,
        raw_response=raw,
    )


def parse_chunk(data: str, parse_usage: UsageParser) -> StreamChunk | None:
    """Return one event of a stream, or None for one without content."""
    try:
        chunk = _plain_decoder.decode(data)
    except (ValueError, RecursionError):
        return parse_any_chunk(data, parse_usage)
    delta = chunk.choices[0].delta
    text, reasoning = delta.content, delta.reasoning_content
    if text and reasoning is None and delta.reasoning is None and delta.tool_calls is None:
        return StreamChunk(id=chunk.id or "", model=chunk.model or "", delta=text)
    key = REQUIRED_KEY
    if reasoning is None:
        key, reasoning = "reasoning", delta.reasoning
    if not (text or reasoning or delta.tool_calls):
        return parse_any_chunk(data, parse_usage)
    return StreamChunk(
        id=chunk.id or "",
        model=chunk.model or "",
        delta=text or "",
        reasoning=reasoning or "",
        reasoning_key="" if reasoning is None else key,
        tool_calls=tuple(map(_plain_call, delta.tool_calls or ())),
    )


def _plain_call(call: _PlainCall) -> ToolCallDelta:
    function = call.function
    return ToolCallDelta(
        index=call.index,
        id=call.id or "",
        name=function.name or "",
        arguments=function.arguments or "",
    )


def parse_any_chunk(
    data: str, parse_usage: UsageParser, as_chat: Callable[[JsonValue], JsonValue] | None = None
) -> StreamChunk | None:
    """Return an event that may hold anything; `as_chat` turns another wire's body into this one's.

    An error is looked for before the choices: servers send it with empty choices too.
    """
    data = data.strip()
    if data == "[DONE]":
        return StreamChunk(is_end=True)
    if not data or data.startswith(":"):  # relays send their keep-alives as data
        return None
    raw = decode_json(data)
    if as_chat is not None:
        raw = as_chat(raw)
    if is_error_payload(raw):
        raise error_from_payload(raw, partial=_partial_text(raw))
    body = convert_json(raw, _Body)
    if not body.choices and not body.usage and (error := error_without_key(raw)):
        raise error
    fields = _content_fields(body, raw)
    may_hold_usage = (
        body.usage is not None
        or not body.choices
        or fields["finish_reason"]
        or any(choice.usage for choice in body.choices)
    )
    return StreamChunk(
        id=string_or_empty(body.id),
        model=string_or_empty(body.model),
        **(_usage_fields(raw, parse_usage) if may_hold_usage else {}),
        **fields,
    )


def _partial_text(raw: JsonValue) -> str:
    """Return the text beside an error, if the rest has its usual shape."""
    try:
        return _all_text(convert_json(raw, _Body).choices or ())
    except MalformedResponseError:
        return ""


def _all_text(choices: Iterable[_Choice]) -> str:
    return "".join(_text(choice.delta or choice.message) for choice in choices)


def is_error_payload(payload: JsonValue) -> bool:
    """Whether a JSON body that came with a success status is an error."""
    if isinstance(payload, list):  # as Gemini sends errors
        return bool(payload and isinstance(payload[0], dict) and payload[0].get("error"))
    if not isinstance(payload, dict):
        return False
    is_named = payload.get("object") == "error" or payload.get("type") == "error"
    has_code = "base_resp" in payload and base_resp_code(payload)
    return is_named or bool(payload.get("error") or has_code)


def _content_fields(body: _Body, raw: JsonObject) -> JsonObject:
    """Return the fields of a chunk in all choices, which are one answer, whatever their indexes.

    Some servers count the index up (foundry-local#144), others send the text and the calls of one
    answer as two choices.
    """
    choices = body.choices or ()
    pieces: Pieces = {}
    fields: JsonObject = {"finish_reason": None}
    for choice in choices:
        found = _choice_fields(choice, choices, pieces)
        fields = _join_choices(fields, found) if len(choices) > 1 else found
    extra = _unread_of_body(raw)
    for choice in raw["choices"] if choices else ():
        _add_unread(choice, extra, pieces)
    if extra or pieces:
        fields["extra"] = extra | join_pieces(pieces)
        fields["extra_pieces"] = tuple(pieces)
    return fields


def _unread_of_body(raw: JsonObject) -> JsonObject:
    extra = unread_keys(raw, _READ_OF_BODY)
    if extra.get("created") == 0:  # Azure's events about its filter have empty facts
        del extra["created"]
    return extra


def _add_unread(choice: JsonObject, extra: JsonObject, pieces: Pieces) -> None:
    """Add the unread keys of a choice and its message: pieces in a message, and lists in both."""
    for key, value in unread_keys(choice, _READ_OF_CHOICE).items():
        if isinstance(value, list):  # such as vLLM's `token_ids`
            add_pieces(pieces, {key: value})
        else:
            extra[key] = value
    message = choice.get("delta")
    if message is None:
        message = choice.get("message") or {}
    if unread := unread_of_message(message, _READ_OF_MESSAGE):
        add_pieces(pieces, unread)


def _join_choices(fields: JsonObject, more: JsonObject) -> JsonObject:
    """Return the fields of two choices as one. Of two ends, one that is not plain wins."""
    names = ("finish_reason", "raw_finish_reason")
    key = fields.get("reasoning_key") or more.get("reasoning_key", "")
    reason, another = fields["finish_reason"], more["finish_reason"]
    is_later = another is not None and (reason is None or reason in PLAIN_ENDS)
    end = more if is_later and (reason is None or another not in PLAIN_ENDS) else fields
    joined = {name: end.get(name) for name in names} | {"reasoning_key": key}
    for name in (fields | more).keys() - joined.keys():
        values = [found[name] for found in (fields, more) if found.get(name)]
        if values:
            joined[name] = values[0] + values[1] if len(values) > 1 else values[0]
    return joined


def unread_keys(raw: JsonObject, read: AbstractSet[str]) -> JsonObject:
    """Return the keys that are not in `read` and hold something."""
    unread: JsonObject = {}
    if raw.keys() <= read:  # as in most choices and messages
        return unread
    for key in filterfalse(read.__contains__, raw):
        value = raw[key]
        if value or value == 0:
            unread[key] = value
    return unread


def unread_of_message(message: JsonObject, read: AbstractSet[str]) -> JsonObject:
    """Return the same of a message, with a role that is not the assistant's."""
    unread = unread_keys(message, read)
    if message.get("role") not in PLAIN_ROLES:
        unread["role"] = message["role"]
    return unread


def _choice_fields(choice: _Choice, choices: Iterable[_Choice], pieces: Pieces) -> JsonObject:
    """Return the fields of a chunk; add to `pieces` what its content parts hold beside.

    Raises an `ApiError` with the text of all choices if this one reports a failure.
    """
    message = choice.delta or choice.message or _Message()
    native = choice.native_finish_reason
    # Some servers send "" until the end.
    word = choice.finish_reason or choice.camel_finish_reason or native or None
    reason = None if word is None else FINISH_REASONS.get(word) or parse_finish_reason(word)
    if choice.error:
        raise error_from_payload({"error": choice.error}, partial=_all_text(choices))
    if reason is FinishReason.ERROR:
        check_finish_reason(reason, word, _all_text(choices))
    rest: JsonObject = {"finish_reason": reason, "raw_finish_reason": native or word}
    if choice.logprobs:
        rest["logprobs"] = _logprobs(choice.logprobs, "content")
    texts = _text_only_delta(message)
    if texts is not None:  # saves a third of the time of a whole answer
        return {"delta": texts[0], "reasoning": texts[1], "reasoning_key": texts[2], **rest}
    content = message.content
    parts = _read_parts(content, pieces) if isinstance(content, list) else _Parts()
    return {
        "delta": parts.text or _text(message),
        "refusal": message.refusal or parts.refusal or None,
        "reasoning": _reasoning(message) or parts.reasoning,
        "reasoning_key": _reasoning_key(message),
        "reasoning_blocks": tuple(_reasoning_blocks(message)),
        "tool_calls": _tool_calls(message),
        "media": (*parts.media, *_media(message)),
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
    content = message.content
    if isinstance(content, list):
        content = "".join(map(_text_of_part, content))
    return content or (message.audio and message.audio.transcript) or ""


def _text_of_part(part: JsonObject | str) -> str:
    if isinstance(part, str):
        return part
    return string_or_empty(part.get("text")) if part.get("type") in (None, *_TEXT_PARTS) else ""


def _reasoning(message: _Message) -> str:
    """Return the reasoning's text, under any of its names, and never twice."""
    for text in (message.reasoning_content, message.reasoning):
        if isinstance(text, str) and text:
            return text
    return "".join(
        next(filter(None, (string_or_empty(detail.get(key)) for key in _TEXT_KEYS)), "")
        for detail in _reasoning_details(message)
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
    parts = message.content if isinstance(message.content, list) else ()
    has_thinking = any(isinstance(part, dict) and part.get("type") == "thinking" for part in parts)
    return "content" if has_thinking else ""


class _Parts(msgspec.Struct):
    """The content of a list of parts, by kind."""

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    media: tuple[Media, ...] = ()


_TEXT_PARTS = ("text", "output_text")
# The types of content parts, and the field of `_Parts` for each. A miss is refused.
_PARTS = {
    **dict.fromkeys(_TEXT_PARTS, "text"),
    "refusal": "refusal",
    "thinking": "reasoning",  # Mistral's, with a list of texts
    "reasoning": "reasoning",  # Databricks', with a summary; gpt-oss', with content or a text
    "reasoning_text": "reasoning",
    "summary_text": "reasoning",
    "image_url": "media",
    "reference": "extra",  # Mistral's, of documents
    "tool_reference": "extra",
}
_REASONING_KEYS = ("thinking", "reasoning", "text", "content", "summary")


def _read_parts(content: list[JsonObject | str], pieces: Pieces) -> _Parts:
    """Return the content of a list; add to `pieces` what is not read.

    Raises `MalformedResponseError` for a part of unknown kind.
    """
    parts = _Parts()
    for item in content:
        part = {"text": item} if isinstance(item, str) else item
        kind = part.get("type", "text" if "text" in part else None)
        field = _PARTS.get(kind) if isinstance(kind, str) else None
        if field == "media":
            parts.media += (_parse_image(part),)
        elif field == "extra":
            add_pieces(pieces, {"content": [part]})
        elif field == "reasoning":
            parts.reasoning += _read_reasoning_part(part, pieces)
        elif field is not None and isinstance(text := part.get(field, ""), str | None):
            setattr(parts, field, getattr(parts, field) + (text or ""))
            add_pieces(pieces, unread_keys(part, {"type", "index", field}))
        else:
            raise MalformedResponseError(
                f"the answer holds a content part of unknown kind ({excerpt_of(kind)}): "
                f"{excerpt_of(part)}"
            )
    return parts


def _read_reasoning_part(part: JsonObject, pieces: Pieces) -> str:
    """Return the text of a part, under the first key that has one; keep what is not read."""
    add_pieces(pieces, unread_keys(part, {"type", "index", *_REASONING_KEYS}))
    for key in _REASONING_KEYS:
        value = part.get(key)
        items = value if isinstance(value, list) else [value]
        inner = [item for item in items if isinstance(item, dict)]
        texts = [item for item in items if isinstance(item, str)]
        texts += [string_or_empty(item.get("text")) for item in inner]
        if any(texts):
            for item in inner:
                add_pieces(pieces, unread_keys(item, {"type", "text"}))
            return "".join(texts)
    return ""


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
    """Return the calls; the old `function_call` counts only if there is no other."""
    if message.function_call is not None and not message.tool_calls:
        return (_tool_call({"index": 0, "function": message.function_call}),)
    return tuple(map(_tool_call, message.tool_calls or ()))


def _tool_call(raw: JsonObject) -> ToolCallDelta:
    call = convert_json(raw, _Call)
    inner = raw.get("function") or {}
    has_known_keys = raw.keys() <= _CALL_KEYS and inner.keys() <= _FUNCTION_KEYS
    has_known_type = call.type in _CALL_TYPES
    if has_known_keys and has_known_type and call.custom is None:  # as in nearly all
        return _call_delta(call)
    extra = {key: value for key, value in raw.items() if key not in _CALL_KEYS}
    read: dict[str, AbstractSet[str]] = {"function": _FUNCTION_KEYS}
    if call.custom is not None:
        read = {"function": frozenset(), "custom": _CUSTOM_KEYS}
    for name, known in read.items():
        inner = raw.get(name) or {}
        if more := {key: value for key, value in inner.items() if key not in known}:
            extra[name] = more
    if call.custom is not None or not has_known_type:
        extra["type"] = call.type if call.custom is None else "custom"
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
