"""Reads answers of the Responses wire, whole or as events.

An answer is a list of items. The text, the calls of the caller's tools and the refusals are read;
all other items, such as sealed reasoning and the calls of the vendor's tools, are kept whole in
`reasoning_blocks`, to go back in their places.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError, ServerError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
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
)
from minillmlib.protocols.chat_completions.usage import UsageParser, usage_record
from minillmlib.protocols.errors import error_from_payload, error_without_key
from minillmlib.protocols.finish_reasons import parse_finish_reason
from minillmlib.protocols.responses.request import CUSTOM, MESSAGE
from minillmlib.streaming.accumulator import add_pieces, join_pieces, whole_response
from minillmlib.types.media import ImagePart
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import CompletionResponse, FinishReason, StreamChunk, TokenLogprob
from minillmlib.types.tools import ToolCallDelta
from minillmlib.types.usage import Usage

# The items that are calls of the caller's tools, and the key of their arguments.
_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
# Why the model stopped, by the last item of a whole answer. A miss is `UNKNOWN`: it may be a call
# that the server waits for, as it does after those of the second kind.
_LAST_ITEMS = dict.fromkeys(
    (
        MESSAGE, "reasoning", *_CALLS, "web_search_call", "file_search_call",
        "code_interpreter_call", "image_generation_call", "mcp_call", "mcp_list_tools",
        "tool_search_output",
        "shell_call_output", "compaction",
    ),
    FinishReason.STOP,
) | dict.fromkeys(
    (
        "mcp_approval_request", "computer_call", "local_shell_call", "shell_call",
        "apply_patch_call", "tool_search_call",
    ),
    FinishReason.PAUSE,
)  # fmt: skip
_READ_OF_CALL = frozenset(("type", "id", "status", "call_id", "name", *_CALLS.values()))
_READ_OF_MESSAGE = frozenset(("type", "id", "status", "role", "content", "phase"))
# The kinds of the parts of a message and of reasoning: the key of their text, and whether it is
# reasoning. A miss is refused.
_PARTS = {
    "output_text": "text",
    "refusal": "refusal",
    "reasoning_text": "text",
    "summary_text": "text",
}
_READ_OF_PART = frozenset(("type", "text", "refusal", "annotations", "logprobs"))

# The keys of a response that are read, and those with which it repeats the request. Any other
# key is kept in `extra`.
_READ_OF_RESPONSE = frozenset((
    "id", "object", "model", "status", "output", "output_text", "error", "incomplete_details",
    "usage", "tool_usage",
))  # fmt: skip
_ECHOES = frozenset((
    "background", "conversation", "frequency_penalty", "include", "input", "instructions",
    "max_output_tokens", "max_tool_calls", "metadata", "parallel_tool_calls", "presence_penalty",
    "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning", "safety_identifier", "store", "stream", "temperature",
    "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
))  # fmt: skip
_KEPT_NOWHERE = _READ_OF_RESPONSE | _ECHOES

# The ends of an answer, by its status or by the name of the event. A miss is `UNKNOWN`.
_ENDS = ("completed", "incomplete", "failed")
_UNFINISHED = ("queued", "in_progress")
# The events that say nothing which the `done` of their item, or the end, does not repeat.
_SILENT = frozenset((
    "response.in_progress", "response.queued", "response.content_part.added",
    "response.reasoning_summary_part.added", "response.reasoning_summary_part.done", "keepalive",
))  # fmt: skip

Place: TypeAlias = tuple[str, int]  # of a part in its item: the key of its list, its number


class _TextDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Nearly every event of a stream. An event that fits it has nothing else, and is no error.

    The fields stand in the order of the wire, in which they are found fastest.
    """

    type: Literal["response.output_text.delta"]
    sequence_number: JsonValue = None
    item_id: str | None = None
    output_index: int | None = None
    content_index: int = 0
    delta: str
    logprobs: tuple[()] | None = None
    obfuscation: JsonValue = None


_delta_decoder = msgspec.json.Decoder(_TextDelta)


class _PlainPart(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[JsonValue], msgspec.Meta(max_length=0)] | None = None
    logprobs: Annotated[list[JsonValue], msgspec.Meta(max_length=0)] | None = None


class _PlainItem(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The only item of most answers: a message of one text and nothing else."""

    type: Literal["message"]
    content: tuple[_PlainPart]
    id: JsonValue = None
    status: JsonValue = None
    role: JsonValue = None


class _PlainResponse(PlainAnswer, gc=False, kw_only=True):
    """Nearly every whole answer without reasoning and calls: one text that the model ended."""

    output: tuple[_PlainItem]
    status: Literal["completed"]


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: JsonValue = None


class _Item:
    """One item of a stream, and the parts of it that have arrived."""

    __slots__ = ("annotations", "is_done", "is_named", "kind", "logprobs", "parts", "whole_parts")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.parts: set[Place] = set()  # of which some text came
        self.whole_parts: set[Place] = set()  # whose end came
        self.annotations: Counter[Place] = Counter()
        self.logprobs: set[Place] = set()  # of which some came
        self.is_named = False  # of a call
        self.is_done = False


class _Chunk:
    """The content of one event."""

    def __init__(self) -> None:
        self.fields: JsonObject = {}
        self.pieces: dict[str, list[JsonValue]] = {}

    def add(self, name: str, value: JsonValue) -> None:
        """Add to a text or a tuple."""
        if value:
            self.fields[name] = self.fields[name] + value if name in self.fields else value

    def chunk(self, **more: JsonValue) -> StreamChunk | None:
        """Return the chunk, or None if there is nothing in it."""
        extra = more.pop("extra", {})
        if self.pieces:
            more["extra_pieces"] = tuple(self.pieces)
            extra = {**extra, **join_pieces(self.pieces)}
        if not (self.fields or more or extra):
            return None
        return StreamChunk(**self.fields, **more, extra=extra)


def parse_response(raw: JsonValue, parse_usage: UsageParser) -> CompletionResponse:
    """Return a whole answer. Raises an `ApiError` for one that failed, which has status 200 too."""
    plain = convert_plain(raw, _PlainResponse)
    if plain is not None:  # saves a quarter of the steps of a call
        text, usage = plain.output[0].content[0].text, parse_usage(raw)
        extra = _unread_of_response(raw, usage)
        return text_response(raw, plain, text, "completed", usage=usage, extra=extra)
    if is_error_payload(raw):
        raise error_from_payload(raw)
    output = _object(raw).get("output")
    if output is None and _object(raw).get("status") in ("incomplete", "failed"):
        output = []  # as some send it
    if not isinstance(output, list):
        no_output = MalformedResponseError(f"the answer has no output: {excerpt_of(raw)}")
        raise error_without_key(raw) or no_output
    reader = EventReader(parse_usage)
    chunks = [reader.read_item(index, item) for index, item in enumerate(output)]
    return whole_response([*filter(None, chunks), reader.read_end(raw, "")], raw)


def _unread_of_response(raw: JsonObject, usage: Usage | None) -> JsonObject:
    extra = unread_keys(raw, _KEPT_NOWHERE)
    if usage is not None and usage.non_token_charges and "tool_usage" in raw:
        extra["tool_usage"] = raw["tool_usage"]  # which else is all zeros
    return extra


class EventReader:
    """Reads one stream. An instance belongs to one stream.

    Items are known by their `output_index`: relays change their ids from event to event. A server
    without indexes has ids, or else the last item is meant.
    """

    def __init__(self, parse_usage: UsageParser) -> None:
        self._parse_usage = parse_usage
        self._id = ""
        self._items: dict[int, _Item] = {}
        self._indexes: dict[str, int] = {}  # by the ids of items
        self._call_ids: set[str] = set()
        self._last = -1  # the index of the item that began last
        self._next = 0  # the index after all others
        self._has_output = False  # whether a message or a call began
        self._place = (-1, -1)  # of the message and the part that the text is in
        self._reasoning_place: tuple[int, Place] | None = None

    def __call__(self, data: str) -> StreamChunk | None:
        """Return one event, by the `type` inside its JSON, or None for one without content."""
        try:
            event = _delta_decoder.decode(data)
        except (ValueError, RecursionError):
            return self._read_other(data)
        index = event.output_index
        if index is None:
            index = self._indexes.get(event.item_id or "", self._last)
        if not event.delta or (index, event.content_index) != self._place:
            return self._read_other(data)
        return StreamChunk(delta=event.delta)

    def _read_other(self, data: str) -> StreamChunk | None:
        data = data.strip()
        if data == "[DONE]" or not data or data.startswith(":"):
            return None  # OpenRouter's mark, which is no end of this wire
        raw = decode_json(data)
        if is_error_payload(raw):
            raise error_from_payload(raw)
        kind = raw.get("type") if isinstance(raw, dict) else None
        if not isinstance(kind, str):
            no_type = MalformedResponseError(f"a stream event has no type: {excerpt(data)}")
            raise error_without_key(raw) or no_type
        name = kind.removeprefix("response.") if kind.startswith("response.") else ""
        if name in _ENDS:
            return self.read_end(_object(raw.get("response")), name)
        read = _READERS.get(name)
        if read is not None:
            return read(self, raw)
        # The `done` of an item repeats what the events of it say, whatever they are called.
        if kind in _SILENT or "item_id" in raw or "output_index" in raw:
            return None
        return StreamChunk(extra={kind: [raw]}, extra_pieces=(kind,))

    def read_item(self, index: int, raw: JsonValue) -> StreamChunk | None:
        """Return what a whole item holds and no event before has brought."""
        chunk = _Chunk()
        self._finish_item(chunk, index, raw)
        return chunk.chunk()

    def read_end(self, raw: JsonObject, name: str) -> StreamChunk:
        """Return the end of an answer from the response in the last event, or in a whole body.

        Raises an `ApiError` if the answer failed.
        """
        status = raw.get("status")
        if name in ("incomplete", "failed") or status in (None, *_UNFINISHED):
            status = name or status
        if status in ("failed", "cancelled"):
            raise _failure(raw, status)
        if status in _UNFINISHED:
            raise MalformedResponseError(
                f"the answer is {status}: the server works on in the background, which this "
                "library does not wait for; leave out 'background'"
            )
        chunk = _Chunk()
        if name:
            self._add_unstreamed(chunk, raw.get("output"))
        reason, word = self._finish_reason(raw, status)
        if name and not raw.get("output"):  # relays omit what they have streamed
            raw = {**raw, "output": [{"type": item.kind} for item in self._items.values()]}
        usage = self._parse_usage(raw)
        found = chunk.chunk(
            id="" if self._id else string_or_empty(raw.get("id")),
            model=string_or_empty(raw.get("model")),
            finish_reason=reason,
            raw_finish_reason=word,
            usage=usage,
            usage_record=usage_record(raw),
            extra=_unread_of_response(raw, usage),
            is_end=True,
        )
        assert found is not None
        return found

    def _finish_reason(
        self, raw: JsonObject, status: JsonValue
    ) -> tuple[FinishReason | None, str | None]:
        """Return why the model stopped, which this wire does not say in a word, and its status.

        Calls and refusals outrank a plain end later. What cut an answer off for a reason that is
        not known has cut it off all the same.
        """
        if status is None:
            return None, None
        if status == "incomplete":
            word = _object(raw.get("incomplete_details")).get("reason")
            reason = parse_finish_reason(word) if isinstance(word, str) else None
            is_cut = reason in (FinishReason.LENGTH, FinishReason.CONTENT_FILTER)
            return reason if is_cut else FinishReason.PAUSE, string_or_empty(word) or "incomplete"
        if status == "completed":
            last = self._items[self._next - 1].kind if self._items else MESSAGE
            return _LAST_ITEMS.get(last, FinishReason.UNKNOWN), "completed"
        return FinishReason.UNKNOWN, excerpt_of(status)

    def _start(self, raw: JsonObject) -> StreamChunk | None:
        response = _object(raw.get("response"))
        name = string_or_empty(response.get("id"))
        if name != (self._id or name):
            raise MalformedResponseError(
                f"the stream of {excerpt(self._id)} holds another answer, {excerpt(name)}"
            )
        self._id = name
        return _Chunk().chunk(id=name, model=string_or_empty(response.get("model")))

    def _begin_item(self, raw: JsonObject) -> StreamChunk | None:
        item = _object(raw.get("item"))
        chunk, index = _Chunk(), self._new_index(raw, item)
        earlier = self._items.get(index)
        if earlier is None:
            self._begin(chunk, index, item)
        elif earlier.is_done or earlier.kind != item.get("type"):
            raise MalformedResponseError(
                f"item {index} of the answer begins twice: {excerpt_of(raw)}"
            )
        return chunk.chunk()

    def _begin(self, chunk: _Chunk, index: int, raw: JsonObject) -> _Item:
        """Begin an item: take its place among the others."""
        kind = raw.get("type")
        if not isinstance(kind, str):
            raise MalformedResponseError(f"an item of the answer has no type: {excerpt_of(raw)}")
        item = self._items[index] = _Item(kind)
        self._last, self._next = index, max(self._next, index + 1)
        has_output, self._has_output = self._has_output, self._has_output or _is_output(kind)
        if kind == MESSAGE:
            phase = raw.get("phase")
            if phase is not None or has_output:
                start = {"type": MESSAGE} | ({} if phase is None else {"phase": phase})
                chunk.add("reasoning_blocks", (ReasoningDelta(index=index, fields=start),))
        elif kind in _CALLS:
            self._name_call(chunk, index, item, raw)
        else:
            chunk.add("reasoning_blocks", (ReasoningDelta(index=index, fields={"type": kind}),))
        return item

    def _name_call(self, chunk: _Chunk, index: int, item: _Item, raw: JsonObject) -> None:
        item.is_named = bool(raw.get("name"))
        if item.is_named:
            extra = {"type": CUSTOM} if item.kind == "custom_tool_call" else {}
            call_id = string_or_empty(raw.get("call_id")) or string_or_empty(raw.get("id"))
            self._call_ids.add(call_id)
            call = ToolCallDelta(
                index=index,
                id=call_id,
                name=string_or_empty(raw["name"]),
                extra=extra,
            )
            chunk.add("tool_calls", (call,))

    def _finish(self, raw: JsonObject) -> StreamChunk | None:
        item = _object(raw.get("item"))
        index = _number(raw.get("output_index"), -1)
        if index < 0:
            index = self._indexes.get(string_or_empty(item.get("id")), -1)
        if index < 0:
            last = self._items.get(self._last)
            is_last = last is not None and not last.is_done and last.kind == item.get("type")
            index = self._last if is_last else self._new_index(raw, item)
        return self.read_item(index, item)

    def _finish_item(self, chunk: _Chunk, index: int, raw: JsonValue) -> None:
        found, whole = self._items.get(index), _object(raw)
        item = self._begin(chunk, index, whole) if found is None else found
        if item.is_done:
            return
        if item.kind != whole.get("type"):
            raise MalformedResponseError(
                f"item {index} of the answer was {excerpt(item.kind)} and is now "
                f"{excerpt_of(whole.get('type'))}"
            )
        item.is_done = True
        if item.kind == MESSAGE:
            self._add_parts(chunk, index, item, "content", whole.get("content"))
            add_pieces(chunk.pieces, unread_keys(whole, _READ_OF_MESSAGE))
        elif item.kind in _CALLS:
            self._finish_call(chunk, index, item, whole)
        else:
            for key in ("summary", "content") if item.kind == "reasoning" else ():
                self._add_parts(chunk, index, item, key, whole.get(key))
            if item.kind == "image_generation_call":
                chunk.add("media", _images(whole))
            chunk.add("reasoning_blocks", (ReasoningDelta(index=index, fields=whole),))

    def _finish_call(self, chunk: _Chunk, index: int, item: _Item, raw: JsonObject) -> None:
        if not item.is_named:
            self._name_call(chunk, index, item, raw)
        self._add_arguments(chunk, index, item, raw.get(_CALLS[item.kind]), is_whole=True)
        extra = {key: value for key, value in raw.items() if key not in _READ_OF_CALL}
        if extra := {key: value for key, value in extra.items() if value is not None}:
            chunk.add("tool_calls", (ToolCallDelta(index=index, extra=extra),))

    def _add_arguments(
        self, chunk: _Chunk, index: int, item: _Item, value: JsonValue, *, is_whole: bool
    ) -> None:
        """Add a piece of a call's arguments, or the whole if no piece came."""
        place = (_CALLS[item.kind], 0)
        if value and not (is_whole and place in item.parts):
            item.parts.add(place)
            text = value if isinstance(value, str) else json_text(value)  # some send the object
            chunk.add("tool_calls", (ToolCallDelta(index=index, arguments=text),))

    def _read_arguments(self, raw: JsonObject) -> StreamChunk | None:
        index = self._index(raw)
        item = self._items.get(index)
        if item is None or item.kind not in _CALLS:
            raise MalformedResponseError(
                f"the stream continues call {index}, which did not begin: {excerpt_of(raw)}"
            )
        chunk = _Chunk()
        if "delta" in raw:
            self._add_arguments(chunk, index, item, raw["delta"], is_whole=False)
        else:
            self._add_arguments(chunk, index, item, raw.get(_CALLS[item.kind]), is_whole=True)
        return chunk.chunk()

    def _add_parts(
        self, chunk: _Chunk, index: int, item: _Item, key: str, parts: JsonValue
    ) -> None:
        """Add the parts of a whole item that did not come in pieces."""
        if isinstance(parts, str):  # old servers
            parts = [{"type": "output_text" if item.kind == MESSAGE else "summary_text",
                      "text": parts}]  # fmt: skip
        for number, part in enumerate(parts if isinstance(parts, list) else ()):
            self._add_part(chunk, index, item, (key, number), part)

    def _add_part(
        self, chunk: _Chunk, index: int, item: _Item, place: Place, raw: JsonValue
    ) -> None:
        if place in item.whole_parts:
            return
        item.whole_parts.add(place)
        part = _object(raw)
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in _PARTS:
            raise MalformedResponseError(
                f"the answer holds a content part of unknown kind ({excerpt_of(kind)}): "
                f"{excerpt_of(raw)}"
            )
        text = part.get(_PARTS[kind])
        self._add_text(chunk, (index, item), place, text, kind=kind, is_whole=True)
        annotations, logprobs = part.get("annotations"), part.get("logprobs")
        if isinstance(annotations, list) and annotations[item.annotations[place] :]:
            add_pieces(chunk.pieces, {"annotations": annotations[item.annotations[place] :]})
        if isinstance(logprobs, list) and place not in item.logprobs:
            chunk.add("logprobs", _logprobs(logprobs))
        add_pieces(chunk.pieces, unread_keys(part, _READ_OF_PART))

    def _add_text(  # noqa: PLR0913 - private
        self,
        chunk: _Chunk,
        where: tuple[int, _Item],
        place: Place,
        value: JsonValue,
        *,
        kind: str,
        is_whole: bool,
    ) -> None:
        """Add a piece of a part's text, or the whole if no piece came."""
        index, item = where
        text = _text(value)
        if not text or (is_whole and place in item.parts):
            return
        item.parts.add(place)
        if item.kind != MESSAGE:
            here = (index, place)
            is_paragraph = self._reasoning_place not in (None, here)
            self._reasoning_place = here
            chunk.add("reasoning", "\n\n" + text if is_paragraph else text)
            return
        if (index, place[1]) < self._place:
            raise MalformedResponseError(
                f"the stream goes back to message {index}, part {place[1]}, after a later one"
            )
        self._place = (index, place[1])
        chunk.add("refusal" if kind == "refusal" else "delta", text)

    def _read_text(self, raw: JsonObject) -> StreamChunk | None:
        """Read an event with a piece of text, or with the whole of it."""
        kind, key = _TEXT_EVENTS[raw["type"].rpartition(".")[0].removeprefix("response.")]
        index, chunk = self._index(raw), _Chunk()
        wanted = MESSAGE if kind in ("output_text", "refusal") else "reasoning"
        item = self._items.get(index)
        if item is None:  # a relay that omits the beginnings of items
            item = self._begin(chunk, index, {"type": wanted})
        elif item.kind != wanted:
            raise MalformedResponseError(
                f"item {index} of the answer is {excerpt(item.kind)} and has {excerpt_of(raw)}"
            )
        place = (key, _number(raw.get("summary_index" if key == "summary" else "content_index")))
        is_whole = "delta" not in raw
        value = raw.get(_PARTS[kind]) if is_whole else raw["delta"]
        self._add_text(chunk, (index, item), place, value, kind=kind, is_whole=is_whole)
        logprobs = raw.get("logprobs")
        if isinstance(logprobs, list) and logprobs and not (is_whole and place in item.logprobs):
            item.logprobs.add(place)
            chunk.add("logprobs", _logprobs(logprobs))
        return chunk.chunk()

    def _read_annotation(self, raw: JsonObject) -> StreamChunk | None:
        item, chunk = self._items.get(self._index(raw)), _Chunk()
        if item is not None and raw.get("annotation") is not None:
            item.annotations["content", _number(raw.get("content_index"))] += 1
            add_pieces(chunk.pieces, {"annotations": [raw["annotation"]]})
        return chunk.chunk()

    def _read_part(self, raw: JsonObject) -> StreamChunk | None:
        """Read the end of a part, which repeats the whole of it."""
        index, chunk = self._index(raw), _Chunk()
        item, part = self._items.get(index), _object(raw.get("part"))
        if item is not None and not item.is_done:
            place = ("content", _number(raw.get("content_index")))
            self._add_part(chunk, index, item, place, part)
        return chunk.chunk()

    def _add_unstreamed(self, chunk: _Chunk, output: JsonValue) -> None:
        """Add what the last event alone holds. It repeats all that came before, with other ids.

        One event cannot say what stood between the texts and calls in it: such items are kept in
        `extra`.
        """
        items = list(map(_object, output if isinstance(output, list) else ()))
        kinds = [string_or_empty(item.get("type")) for item in items]
        if not self._items:
            self._add_all(chunk, items)
            return
        for index, begun in self._items.items():
            if not begun.is_done and kinds[index : index + 1] == [begun.kind]:
                self._finish_item(chunk, index, items[index])
        known = [begun.kind for begun in self._items.values()]
        has_more_calls = sum(kind in _CALLS for kind in kinds) > sum(
            kind in _CALLS for kind in known
        )
        for item, kind in zip(items, kinds, strict=True):
            call_id = string_or_empty(item.get("call_id"))
            is_missing = has_more_calls and kind in _CALLS and call_id not in self._call_ids
            if is_missing or (kind == MESSAGE and MESSAGE not in known):
                self._finish_item(chunk, self._next, item)

    def _add_all(self, chunk: _Chunk, items: Sequence[JsonObject]) -> None:
        """Add the items of an answer of which nothing was streamed."""
        has_content = is_mixed = False
        for index, item in enumerate(items):
            count = len(chunk.fields.get("reasoning_blocks", ()))
            self._finish_item(chunk, index, item)
            is_sealed = len(chunk.fields.get("reasoning_blocks", ())) > count
            is_mixed = is_mixed or (has_content and is_sealed)
            has_content = not chunk.fields.keys().isdisjoint(("delta", "refusal", "tool_calls"))
        if is_mixed:
            del chunk.fields["reasoning_blocks"]
            add_pieces(chunk.pieces, {"output": items})

    def _index(self, raw: JsonObject) -> int:
        index = _number(raw.get("output_index"), -1)
        if index >= 0:
            return index
        return self._indexes.get(string_or_empty(raw.get("item_id")), max(self._last, 0))

    def _new_index(self, raw: JsonObject, item: JsonObject) -> int:
        index = _number(raw.get("output_index"), self._next)
        if name := string_or_empty(item.get("id")):
            self._indexes[name] = index
        return index


_Reader: TypeAlias = Callable[[EventReader, JsonObject], StreamChunk | None]

# The events with text: the kind of the part, and the key of its list in the item.
_TEXT_EVENTS = {
    "output_text": ("output_text", "content"),
    "refusal": ("refusal", "content"),
    "reasoning_text": ("reasoning_text", "content"),
    "reasoning_summary_text": ("summary_text", "summary"),
}
# The events that are read. A miss is for `EventReader`.
_READERS: Mapping[str, _Reader] = {
    "created": EventReader._start,  # noqa: SLF001 - of the class above
    "output_item.added": EventReader._begin_item,  # noqa: SLF001
    "output_item.done": EventReader._finish,  # noqa: SLF001
    "content_part.done": EventReader._read_part,  # noqa: SLF001
    "output_text.annotation.added": EventReader._read_annotation,  # noqa: SLF001
    **{
        f"{call}.{end}": EventReader._read_arguments  # noqa: SLF001
        for call in ("function_call_arguments", "custom_tool_call_input")
        for end in ("delta", "done")
    },
    **{
        f"{text}.{end}": EventReader._read_text  # noqa: SLF001
        for text in _TEXT_EVENTS
        for end in ("delta", "done")
    },
}


def _failure(raw: JsonObject, status: str) -> Exception:
    error = raw.get("error")
    if error:
        return error_from_payload({"error": error})
    return ServerError(
        f"the server broke the answer off ({status}) without a reason", status=200, code=status
    )


def _is_output(kind: str) -> bool:
    return kind == MESSAGE or kind in _CALLS


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _number(value: JsonValue, default: int = 0) -> int:
    return value if type(value) is int and value >= 0 else default


def _text(value: JsonValue) -> str:
    if not isinstance(value, str | None):
        raise MalformedResponseError(f"a text of the answer is {excerpt_of(value)}")
    return value or ""


def _logprobs(records: Iterable[JsonValue]) -> tuple[TokenLogprob, ...]:
    return tuple(filter(None, map(_logprob, records)))


def _logprob(record: JsonValue) -> TokenLogprob | None:
    """Return a token, or None for what is none: it is not the answer itself."""
    try:
        found = msgspec.convert(record, _Logprob)
        data = None if found.bytes is None else bytes(found.bytes)
    except (ValueError, OverflowError):
        return None
    top = found.top_logprobs if isinstance(found.top_logprobs, list) else ()
    return TokenLogprob(token=found.token, logprob=found.logprob, bytes=data, top=_logprobs(top))


def _images(item: JsonObject) -> tuple[ImagePart, ...]:
    data = item.get("result")
    if not data:
        return ()
    try:
        return (ImagePart.from_bytes(base64.b64decode(_text(data), validate=True)),)
    except (binascii.Error, ValueError, InvalidParameterError) as error:
        raise MalformedResponseError(f"the answer holds a broken image: {error}") from None
