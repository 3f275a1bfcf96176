"""Reads answers of Anthropic's wire, whole or as events."""

from collections.abc import Callable
from typing import Literal

import msgspec

from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    convert_plain,
    decode_json,
    excerpt,
    excerpt_of,
    json_text,
    string_or_empty,
)
from minillmlib.protocols.chat_completions.response import (
    PlainAnswer,
    is_error_payload,
    text_response,
    unread_keys,
    unread_of_message,
)
from minillmlib.protocols.chat_completions.usage import UsageParser, usage_record
from minillmlib.protocols.errors import error_from_payload, error_without_key
from minillmlib.protocols.finish_reasons import check_finish_reason, parse_finish_reason
from minillmlib.streaming.accumulator import whole_response
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.tools import ToolCallDelta

# The field that each kind of delta extends, in a block that must go back unchanged.
DELTA_FIELDS = {
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "compaction_delta": "content",
}


# The key that is read of each kind of delta. A miss is kept in `extra`, under its kind.
_DELTA_KEYS = {"text_delta": "text", "input_json_delta": "partial_json", **DELTA_FIELDS}
# Events without content of their own. A miss is kept in `extra`, under its type.
_KNOWN_EVENTS = ("message_stop", "content_block_stop", "ping")


class _StopDetails(msgspec.Struct):
    category: str | None = None
    explanation: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: JsonValue = ""
    id: JsonValue = None
    name: JsonValue = None
    input: JsonValue = None
    thinking: JsonValue = ""
    to: JsonObject = {}


class _BlockDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal[
        "text_delta", "input_json_delta", "thinking_delta", "signature_delta", "compaction_delta"
    ]
    text: JsonValue = ""
    partial_json: JsonValue = ""
    thinking: JsonValue = ""
    signature: JsonValue = ""
    content: JsonValue = ""


class _DeltaEvent(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Nearly every event of a stream. An event that fits it has nothing else, and is no error.

    The fields stand in the order of the wire, in which they are found fastest.
    """

    type: Literal["content_block_delta"]
    index: JsonValue = 0
    delta: _BlockDelta


# An event without a type but with one of these may hold a part of an answer of some wire.
_KEYS_OF_EVENTS = frozenset(
    (
        "candidates", "choices", "content", "content_block", "delta", "event", "id", "index",
        "message", "output", "role", "stop_reason", "text", "usage",
    )
)  # fmt: skip
_TOOL_USE_KEYS = frozenset(("type", "id", "name", "input"))

_delta_decoder = msgspec.json.Decoder(_DeltaEvent)


class _StartedMessage(msgspec.Struct):
    id: JsonValue = None
    model: JsonValue = None


class _End(msgspec.Struct):
    stop_reason: str | None = None
    stop_details: JsonObject | None = None


class _WholeMessage(_End, kw_only=True):
    content: list[JsonObject]
    id: JsonValue = None
    model: JsonValue = None


class _PlainBlock(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class _PlainMessage(PlainAnswer, gc=False, kw_only=True):
    """Nearly every whole answer without calls: one text that the model ended."""

    content: tuple[_PlainBlock]
    stop_reason: Literal["end_turn"]
    role: Literal["assistant", ""] | None = None
    stop_details: None = None


_READ_OF_MESSAGE = frozenset((*_WholeMessage.__struct_fields__, "type", "role", "usage"))
_READ_OF_TEXT = frozenset(("type", "text"))
_READ_OF_STOP_DETAILS = frozenset(("type", *_StopDetails.__struct_fields__))  # of a refusal


def parse_message(raw: JsonValue, parse_usage: UsageParser) -> CompletionResponse:
    """Return a whole answer; its blocks are put together as those of a stream are."""
    plain = convert_plain(raw, _PlainMessage)
    if plain is not None:  # saves a fifth of the steps of a call
        return text_response(
            raw,
            plain,
            plain.content[0].text,
            "end_turn",
            usage=parse_usage(raw),
            extra=unread_keys(raw, _READ_OF_MESSAGE),
        )
    if is_error_payload(raw):
        raise error_from_payload(raw)
    if isinstance(raw, dict) and not raw.get("content") and (error := error_without_key(raw)):
        raise error
    message = convert_json(raw, _WholeMessage)
    head: JsonObject = {
        "id": string_or_empty(message.id),
        "model": string_or_empty(message.model),
    }
    end = _end_chunk(message, raw, parse_usage, unread_of_message(raw, _READ_OF_MESSAGE))
    blocks = (_block_chunk(block, index) for index, block in enumerate(message.content))
    return whole_response([StreamChunk(**head), *filter(None, blocks), end], raw)


def parse_event(data: str, parse_usage: UsageParser) -> StreamChunk | None:
    """Return one event, by the `type` inside its JSON, or None for one without content."""
    try:
        event = _delta_decoder.decode(data)
    except (ValueError, RecursionError):
        return _parse_other_event(data, parse_usage)
    text = event.delta.text
    if text and isinstance(text, str) and event.delta.type == "text_delta":
        return StreamChunk(delta=text)
    return _delta_chunk(event.delta, _number(event.index))


class EventReader:
    """Reads one stream with `parse`. An instance belongs to one stream."""

    def __init__(self, parse: Callable[[str], StreamChunk | None]) -> None:
        self._parse = parse
        self._id = ""
        self._blocks: set[int] = set()  # that began, of those that go back unchanged

    def __call__(self, data: str) -> StreamChunk | None:
        """Return one event.

        Raises `MalformedResponseError` if it starts another message, or continues a block that
        did not begin, such as a signature without its thinking.
        """
        chunk = self._parse(data)
        if chunk is None:
            return None
        for block in chunk.reasoning_blocks:
            if "type" in block.fields:
                self._blocks.add(block.index)
            elif block.index not in self._blocks and "input" not in block.fields:
                raise MalformedResponseError(
                    f"the stream continues block {block.index}, which did not begin: "
                    f"{excerpt_of(block.fields)}"
                )
        if chunk.id:
            if chunk.id != (self._id or chunk.id):
                raise MalformedResponseError(
                    f"the stream of {excerpt(self._id)} holds another message, {excerpt(chunk.id)}"
                )
            self._id = chunk.id
        return chunk


def _parse_other_event(data: str, parse_usage: UsageParser) -> StreamChunk | None:
    raw = decode_json(data)
    if is_error_payload(raw):
        raise error_from_payload(raw)
    match raw:
        case {"type": "message_start", "message": message}:
            start = convert_json(message, _StartedMessage)
            name, model = string_or_empty(start.id), string_or_empty(start.model)
            extra = unread_of_message(message, _READ_OF_MESSAGE)
            return StreamChunk(id=name, model=model, extra=extra, **_usage_fields(raw, parse_usage))
        case {"type": "content_block_start", "content_block": {"type": str()} as block}:
            return _block_chunk(block, _number(raw.get("index")))
        case {"type": "content_block_delta", "delta": {"type": str()} as delta}:
            return _other_delta_chunk(delta, raw)
        case {"type": "message_delta", "delta": delta}:
            end = convert_json(delta, _End)
            extra = unread_keys(raw, {"type", "delta", "usage"})
            extra |= unread_keys(delta, _READ_OF_MESSAGE)
            return _end_chunk(end, raw, parse_usage, extra)
        case {"type": str() as kind}:
            return _marker_chunk(kind, raw)
    return _untyped_chunk(raw, data)


def _marker_chunk(kind: str, raw: JsonObject) -> StreamChunk | None:
    """Return the end marker, or an event that is kept since nothing reads it."""
    extra = unread_keys(raw, {"type", "index"})
    if extra and kind not in _KNOWN_EVENTS:
        return StreamChunk(extra={kind: [raw]}, extra_pieces=(kind,))
    is_end = kind == "message_stop"
    return StreamChunk(is_end=is_end, extra=extra) if is_end or extra else None


def _untyped_chunk(raw: JsonValue, data: str) -> StreamChunk:
    """Keep an event without a type that holds no part of an answer."""
    if (error := error_without_key(raw)) is not None:
        raise error
    if isinstance(raw, dict) and raw and not raw.keys() & _KEYS_OF_EVENTS:
        return StreamChunk(extra=raw)  # such as the `hook_results` with which Portkey begins
    raise MalformedResponseError(f"a stream event has no type: {excerpt(data)}")


def _other_delta_chunk(raw: JsonObject, event: JsonObject) -> StreamChunk | None:
    """Return a delta of an unknown kind, or one with keys that nothing reads."""
    kind = raw["type"]
    extra, chunk = unread_keys(event, {"type", "delta", "index"}), None
    pieces: JsonObject = {}
    if kind == "citations_delta":
        pieces = {"citations": [raw.get("citation")]}
    elif kind in _DELTA_KEYS:
        read = {key: raw[key] for key in ("type", _DELTA_KEYS[kind]) if key in raw}
        extra |= unread_keys(raw, read.keys())
        chunk = _delta_chunk(convert_json(read, _BlockDelta), _number(event.get("index")))
    else:
        pieces = {kind: [raw]}
    if not (extra or pieces):
        return chunk
    return msgspec.structs.replace(
        chunk or StreamChunk(), extra=extra | pieces, extra_pieces=tuple(pieces)
    )


def _end_chunk(
    end: _End, raw: JsonValue, parse_usage: UsageParser, extra: JsonObject
) -> StreamChunk:
    is_refusal, details = end.stop_reason == "refusal", end.stop_details or {}
    if details and not (is_refusal and details.keys() <= _READ_OF_STOP_DETAILS):
        extra = {**extra, "stop_details": details}
    finish_reason = parse_finish_reason(end.stop_reason)
    check_finish_reason(finish_reason, end.stop_reason, "")
    return StreamChunk(
        finish_reason=finish_reason,
        raw_finish_reason=end.stop_reason,
        refusal_reason=_refusal_reason(details) if is_refusal else None,
        extra=extra,
        **_usage_fields(raw, parse_usage),
    )


def _refusal_reason(raw: JsonObject) -> str:
    details = convert_json(raw, _StopDetails)
    return details.explanation or f"the model refused ({details.category or 'no reason given'})"


def _usage_fields(raw: JsonValue, parse_usage: UsageParser) -> JsonObject:
    return {"usage": parse_usage(raw), "usage_record": usage_record(raw.get("message", raw))}


def _checked_text(text: JsonValue) -> str:
    if not isinstance(text, str):
        raise MalformedResponseError(f"a text block holds {excerpt_of(text)}")
    return text


def _block_chunk(raw: JsonObject, index: int) -> StreamChunk | None:
    """Return a block at its start, or a whole one. A block of another kind is kept unchanged."""
    block = convert_json(raw, _Block)
    if block.type == "text":
        text, extra = _checked_text(block.text), unread_keys(raw, _READ_OF_TEXT)
        if not (text or extra):
            return None
        return StreamChunk(delta=text, extra=extra, extra_pieces=tuple(extra))
    if block.type == "tool_use":
        call = ToolCallDelta(
            index=index,
            id=string_or_empty(block.id),
            name=string_or_empty(block.name),
            arguments=json_text(block.input) if block.input else "",  # a stream has it in pieces
            extra={key: value for key, value in raw.items() if key not in _TOOL_USE_KEYS},
        )
        return StreamChunk(tool_calls=(call,))
    # From a fallback on, another model answers.
    model = string_or_empty(block.to.get("model")) if block.type == "fallback" else ""
    sealed = ReasoningDelta(index=index, fields=raw)
    reasoning = string_or_empty(block.thinking)
    return StreamChunk(model=model, reasoning=reasoning, reasoning_blocks=(sealed,))


def _delta_chunk(delta: _BlockDelta, index: int) -> StreamChunk | None:
    if delta.type == "text_delta":
        text = _checked_text(delta.text)
        return StreamChunk(delta=text) if text else None
    if delta.type == "input_json_delta":
        piece = string_or_empty(delta.partial_json)
        # Of a call of the caller's tool, or of the vendor's.
        call = ToolCallDelta(index=index, arguments=piece)
        sealed = ReasoningDelta(index=index, fields={"input": piece})
        return StreamChunk(tool_calls=(call,), reasoning_blocks=(sealed,)) if piece else None
    name = DELTA_FIELDS[delta.type]
    text = string_or_empty(getattr(delta, name))
    sealed = ReasoningDelta(index=index, fields={name: text})
    return StreamChunk(reasoning=text if name == "thinking" else "", reasoning_blocks=(sealed,))


def _number(index: JsonValue) -> int:
    """Return the number of a block; a relay that omits it has only one."""
    return index if isinstance(index, int) else 0
