"""Adds up the chunks of an answer. A stream and a whole answer become a response the same way."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, is_json, memory_of
from minillmlib.streaming.reasoning_blocks import ReasoningAccumulator
from minillmlib.streaming.tool_calls import MAX_PIECES, ToolCallAccumulator, append_piece
from minillmlib.types.media import AudioPart, Media
from minillmlib.types.reasoning import REASONING_KEYS, ReasoningDelta
from minillmlib.types.responses import (
    SHARED_FIELDS,
    CompletionResponse,
    FinishReason,
    StreamChunk,
)
from minillmlib.types.tools import ToolCall, ToolCallDelta
from minillmlib.types.usage import Usage, UsageUpdate

OBJECT_BYTES = 320  # memory of a call, a medium or an unread key, beside its content
PIECE_BYTES = 72  # of a piece of a text that is not joined before the end
SHORT_CHARS = 512  # of a piece that is worth being joined


def _join_media(chunks: list[tuple[Media, ...]]) -> tuple[Media, ...]:
    """Return the images, then one sound made of all its pieces."""
    media = [part for parts in chunks for part in parts]
    sounds = [part for part in media if isinstance(part, AudioPart)]
    others = [part for part in media if not isinstance(part, AudioPart)]
    if not sounds:
        return tuple(others)
    data = b"".join(part.data or b"" for part in sounds)
    return (*others, msgspec.structs.replace(sounds[0], data=data))


def add_pieces(pieces: dict[str, list[JsonValue]], extra: JsonObject) -> None:
    """Add further values of unread keys, for `join_pieces`."""
    for key, value in extra.items():
        pieces.setdefault(key, []).append(value)


def join_pieces(pieces: dict[str, list[JsonValue]]) -> JsonObject:
    """Return one value for each key: texts and lists concatenated, objects merged by the same rule.

    Of any other values the last one counts, as of a text that is the same each time.
    """
    return {key: _join_values(values) for key, values in pieces.items()}


def _join_values(values: list[JsonValue], *, is_nested: bool = False) -> JsonValue:
    if all(isinstance(value, list) for value in values):
        return [*chain.from_iterable(values)]
    if is_nested or len(values) == 1:
        return values[-1]
    if all(isinstance(value, dict) for value in values):
        inner: dict[str, list[JsonValue]] = {}
        for value in values:
            add_pieces(inner, value)
        return {key: _join_values(found, is_nested=True) for key, found in inner.items()}
    if all(isinstance(value, str) for value in values) and len(set(values)) > 1:
        return "".join(values)
    return values[-1]


def _is_equal(old: JsonValue, new: JsonValue) -> bool:
    try:
        return bool(old == new)
    except RecursionError:  # values nested too deeply
        return False


def _concatenate(values: list[JsonValue]) -> JsonValue:
    if isinstance(values[0], str):
        return "".join(values)
    return tuple(chain.from_iterable(values))


def _size(value: JsonValue) -> int:
    return len(value) if isinstance(value, str) else memory_of(value)


class _Rule(NamedTuple):
    """How the values that the chunks have in one field become the response's value."""

    combine: Callable[[list[JsonValue]], JsonValue] = _concatenate
    size: Callable[[JsonValue], int] = _size  # counts against `Limits.text_chars`


# Of the fields that chunk and response share, these have code of their own. Every other one holds
# content beside the text; one without a rule here is concatenated, text or tuple.
_FACTS = ("id", "model", "finish_reason", "raw_finish_reason", "usage", "usage_record", "extra")
_OWN_CODE = (*_FACTS, "tool_calls", "reasoning_blocks", "reasoning_key")
_RULES: dict[str, _Rule] = {
    "refusal_reason": _Rule(lambda reasons: reasons[-1]),
    "media": _Rule(
        _join_media, lambda parts: sum(len(part.data or b"") + OBJECT_BYTES for part in parts)
    ),
}
_CONTENT = {name: _RULES.get(name, _Rule()) for name in SHARED_FIELDS if name not in _OWN_CODE}


def is_plain(chunk: StreamChunk) -> bool:
    """Whether no field but `delta`, `id` and `model` says anything."""
    # One expression, because it is asked of every chunk and true of most.
    return not (
        chunk.finish_reason is not None
        or chunk.is_end
        or chunk.extra
        or chunk.usage is not None
        or chunk.usage_record is not None
        or chunk.reasoning
        or chunk.tool_calls
        or chunk.media
        or chunk.refusal
        or chunk.refusal_reason
        or chunk.reasoning_blocks
        or chunk.reasoning_key
        or chunk.logprobs
    )


PLAIN_ENDS = (FinishReason.STOP, FinishReason.TOOL_CALLS)  # of an answer that is whole


class ResponseAccumulator:
    """Adds up the chunks of one stream. `response()` costs O(text), `add` O(1)."""

    def __init__(
        self, merge: Callable[[UsageUpdate, UsageUpdate], UsageUpdate] | None = None
    ) -> None:
        self._merge = merge
        self.id = ""
        self.model = ""
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None
        self.has_ended = False
        self._update: UsageUpdate | None = None  # None until the first record of counts
        self.last_record: JsonObject | None = None  # of counts, as the server sent it
        self._has_final_usage = False
        self._is_counted = False  # whether the counts came after all content
        self._reasoning_key = ""
        self._deltas: list[str] = []
        self._content: dict[str, list[JsonValue]] = {}
        self._tool_calls: ToolCallAccumulator | None = None
        self._blocks: ReasoningAccumulator | None = None
        self._extra: JsonObject = {}  # the last value of each key
        self._extra_pieces: dict[str, list[JsonValue]] = {}
        self.is_finish_refuted = False  # whether content ever followed a finish reason
        self.chars = 0  # of all texts, and about the memory of all other content
        self.extra_chars = 0  # the same of the unread keys
        self._other_chars = 0  # of all content but the text
        self._object_bytes = 0  # memory of unread keys and their pieces, beside their content
        self._is_ascii = True  # whether all texts are

    def add(self, chunk: StreamChunk) -> bool:
        """Add the next chunk, in the order of arrival. Return whether it holds content."""
        delta = chunk.delta
        has_content = False if chunk.has_only_text else self._add_content(chunk)
        if delta:
            has_content = True
            self._deltas.append(delta)
            self.chars += len(delta)
            self._is_counted = False
            if not delta.isascii():
                self._is_ascii = False
        if chunk.extra:
            self._add_extra(chunk)
        if has_content and self.finish_reason is not None:
            self._refute_finish()
        if not self.id:
            self.id = chunk.id
        if chunk.model:
            self.model = chunk.model
        if chunk.is_end:
            self.has_ended = True
        if chunk.finish_reason is not None and self.finish_reason in (None, *PLAIN_ENDS):
            self._end(chunk)
        if chunk.usage is not None or chunk.usage_record is not None:
            self._add_usage(UsageUpdate(usage=chunk.usage, record=chunk.usage_record))
        return has_content

    def add_texts(self, chunks: Sequence[StreamChunk], max_chars: int) -> bool:
        """Add chunks that are `is_plain`, in a tenth of the time of `add`.

        Return False, and add none, if there is more to do: an end was seen, or a limit is exceeded.
        """
        text = "".join([chunk.delta for chunk in chunks])
        if self.finish_reason is not None or self.chars + len(text) > max_chars:
            return False
        if not text:
            return True
        self._deltas.append(text)
        self.chars += len(text)
        self._is_counted = False
        if not text.isascii():
            self._is_ascii = False
        if not self.id:
            self.id = next((chunk.id for chunk in chunks if chunk.id), "")
        for chunk in reversed(chunks):
            if chunk.model:
                self.model = chunk.model
                break
        return True

    def _end(self, chunk: StreamChunk) -> None:
        """Note the finish reason. Of several, the first counts, unless a later one is not plain.

        Azure's asynchronous filter blocks an answer after its end.
        """
        if self.finish_reason is None or chunk.finish_reason not in PLAIN_ENDS:
            self.finish_reason = chunk.finish_reason
            self.raw_finish_reason = chunk.raw_finish_reason

    def _refute_finish(self) -> None:
        """Forget a finish reason that content follows; Gemini sent one with each chunk."""
        self.finish_reason = self.raw_finish_reason = None
        self._has_final_usage = False
        self.is_finish_refuted = True

    def _add_extra(self, chunk: StreamChunk) -> None:
        grown = 0
        for key, value in chunk.extra.items():
            if key in chunk.extra_pieces:
                if key not in self._extra_pieces:
                    self._object_bytes += OBJECT_BYTES
                    grown += len(key)
                add_pieces(self._extra_pieces, {key: value})
                grown += _size(value)
                self._object_bytes += PIECE_BYTES
            elif key not in self._extra:
                self._extra[key] = value
                self._object_bytes += OBJECT_BYTES
                grown += len(key) + _size(value)
            elif not _is_equal(self._extra[key], value):
                grown += _size(value) - _size(self._extra[key])
                self._extra[key] = value
        self.extra_chars += grown

    def _add_blocks(self, blocks: tuple[ReasoningDelta, ...]) -> list[int]:
        """Add pieces of blocks. Return the numbers of those whose `input` grew."""
        calls_before = 0 if self._tool_calls is None else len(self._tool_calls)
        grown = []
        size = 0 if self._blocks is None else self._blocks.size
        for block in blocks:
            self._blocks = self._blocks or ReasoningAccumulator()
            is_known = self._blocks.add(block, self.chars - self._other_chars, calls_before)
            if is_known and "input" in block.fields:
                grown.append(block.index)
        if self._blocks is not None:
            self.chars += self._blocks.size - size
            self._other_chars += self._blocks.size - size
            self._is_ascii = self._is_ascii and self._blocks.is_ascii
        return grown

    def _add_content(self, chunk: StreamChunk) -> bool:
        """Add all but the text. Return whether there is any that is not sealed."""
        inputs = self._add_blocks(chunk.reasoning_blocks)
        if chunk.reasoning_key not in ("", self._reasoning_key):
            keys = (self._reasoning_key, chunk.reasoning_key)
            self._reasoning_key = next((key for key in REASONING_KEYS if key in keys), keys[1])
        has_content = bool(chunk.tool_calls)
        chars = 0
        for call in chunk.tool_calls:
            if call.index in inputs and not call.name:
                continue  # the input of a tool that runs at the vendor
            self._tool_calls = self._tool_calls or ToolCallAccumulator()
            count = len(self._tool_calls)
            self._tool_calls.add(call)
            chars += len(call.arguments) + len(call.name) + len(call.id)
            if len(self._tool_calls) > count:
                chars += OBJECT_BYTES
            if call.extra:
                chars += memory_of(call.extra)
            self._is_ascii = self._is_ascii and call.arguments.isascii()
        for name, rule in _CONTENT.items():
            if value := getattr(chunk, name):
                has_content = True
                values = self._content.setdefault(name, [])
                if isinstance(value, str):
                    append_piece(values, value)
                    self._is_ascii = self._is_ascii and value.isascii()
                else:
                    values.append(value)
                chars += rule.size(value)
        self.chars += chars
        self._other_chars += chars
        if has_content:
            self._is_counted = False
        return has_content

    def _add_usage(self, update: UsageUpdate) -> None:
        self._is_counted = True
        self._has_final_usage = self.finish_reason is not None
        self.last_record = update.record
        if self._update is not None and self._merge is not None:
            update = self._merge(self._update, update)
        self._update = update

    def join_pieces(self) -> None:
        """Join the pieces of the text before their number takes memory. Amortized O(text).

        Long pieces stay as they are: their number takes little, and what they leave behind much.
        """
        deltas = self._deltas
        is_due = len(deltas) >= MAX_PIECES and len(deltas) >= len(deltas[0]) // 256
        if is_due and len(deltas) * SHORT_CHARS >= self.chars:
            self._deltas = ["".join(deltas)]

    @property
    def memory_bytes(self) -> int:
        """About the memory of what was added, or of the response.

        A character that is not ASCII may make each of a joined text take four bytes.
        """
        char_bytes = 1 if self._is_ascii else 4
        return (self.chars + self.extra_chars) * char_bytes + self._object_bytes

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._deltas)

    @property
    def usage(self) -> Usage | None:
        """The final counts, or None: counts sent before the finish reason are not the bill.

        Counts between the last content and an end marker without a finish reason are final.
        """
        is_last = self.has_ended and self.finish_reason is None and self._is_counted
        return self.partial_usage if self._has_final_usage or is_last else None

    @property
    def partial_usage(self) -> Usage | None:
        """The counts so far, final or not, if they include input: a lower bound."""
        return None if self._update is None else _complete_usage(self._update.usage)

    @property
    def usage_record(self) -> JsonObject | None:
        """The provider's own record, if no record came that can be the bill."""
        if self._update is None or self.usage is not None:
            return None
        is_unusable = self._update.usage is None
        return self._update.record if is_unusable else self.last_record

    @property
    def is_complete(self) -> bool:
        """Whether the wire said that the answer is finished.

        An end marker without a finish reason is enough only after text or a complete call: some
        servers never send a reason (earendil-works/pi#6225), others end an overflow this way
        and send nothing else (lmstudio-bug-tracker#2339).
        """
        if self.finish_reason is not None:
            return True
        has_calls = self._tool_calls is not None and self._tool_calls.is_complete()
        return self.has_ended and (bool(self._deltas) or has_calls)

    def check(self) -> None:
        """Raise `MalformedResponseError` if a part of the answer cannot be used."""
        if self._tool_calls is not None:
            self._tool_calls.check_names()

    def response(self) -> CompletionResponse:
        """Return everything added so far as one response."""
        content = {name: _CONTENT[name].combine(values) for name, values in self._content.items()}
        if self._extra or self._extra_pieces:
            content["extra"] = self._extra | join_pieces(self._extra_pieces)
        calls = () if self._tool_calls is None else self._tool_calls.calls()
        is_refused = "refusal" in content or "refusal_reason" in content
        reason = _normalize_finish_reason(self.finish_reason, calls, is_refused=is_refused)
        return CompletionResponse(
            id=self.id,
            model=self.model,
            content=self.text,
            finish_reason=reason,
            raw_finish_reason=self.raw_finish_reason,
            tool_calls=calls,
            reasoning_key=self._reasoning_key,
            reasoning_blocks=() if self._blocks is None else self._blocks.blocks(),
            usage=self.usage,
            usage_record=self.usage_record,
            **content,
        )


def whole_response(chunks: Sequence[StreamChunk], raw: JsonValue) -> CompletionResponse:
    """Return a whole answer from chunks that hold all of it, assembled like a stream's.

    The counts of the last chunk are final, because the body is whole.
    """
    last = chunks[-1]
    usage = _complete_usage(last.usage)
    record = last.usage_record if usage is None else None
    if len(chunks) == 1 and last.has_only_text:
        return CompletionResponse(
            id=last.id,
            model=last.model,
            content=last.delta,
            finish_reason=_normalize_finish_reason(last.finish_reason, (), is_refused=False),
            raw_finish_reason=last.raw_finish_reason,
            usage=usage,
            usage_record=record,
            extra=last.extra,
            raw_response=raw,
        )
    accumulator = ResponseAccumulator()
    for chunk in chunks:
        accumulator.add(chunk)
    accumulator.check()
    return msgspec.structs.replace(
        accumulator.response(), usage=usage, usage_record=record, raw_response=raw
    )


def chunk_of(response: CompletionResponse) -> StreamChunk:
    """Return a whole response as the only chunk of a stream."""
    fields = {name: getattr(response, name) for name in SHARED_FIELDS}
    fields["refusal"] = response.refusal_words
    fields["tool_calls"] = tuple(
        ToolCallDelta(
            index=index, id=call.id, name=call.name, arguments=call.arguments, extra=call.extra
        )
        for index, call in enumerate(response.tool_calls)
    )
    fields["reasoning_blocks"] = tuple(
        ReasoningDelta(index=index, fields=block.fields)
        for index, block in enumerate(response.reasoning_blocks)
    )
    return StreamChunk(delta=response.content, **fields)


def _complete_usage(usage: Usage | None) -> Usage | None:
    return usage if usage is not None and usage.is_complete else None


def _normalize_finish_reason(
    reason: FinishReason | None, calls: tuple[ToolCall, ...], *, is_refused: bool
) -> FinishReason:
    """Return the reason of a finished answer. Its content outranks a plain `stop`."""
    if reason in (None, FinishReason.STOP, FinishReason.TOOL_CALLS):
        if calls and (reason is not None or all(is_json(call.arguments) for call in calls)):
            return FinishReason.TOOL_CALLS
        if is_refused:
            return FinishReason.CONTENT_FILTER
        if reason is FinishReason.TOOL_CALLS:
            return FinishReason.STOP
    return FinishReason.UNKNOWN if reason is None else reason
