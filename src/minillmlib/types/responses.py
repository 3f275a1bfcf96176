"""What comes back from a model, whole or in chunks, and how chunks become a whole."""

import enum
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Self

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.attempts import Attempt
from minillmlib.types.costs import CostOutcome, CostTotal
from minillmlib.types.media import AudioPart, Media
from minillmlib.types.messages import Message
from minillmlib.types.reasoning import (
    Reasoning,
    ReasoningAccumulator,
    ReasoningBlock,
    ReasoningDelta,
)
from minillmlib.types.tools import ToolCall, ToolCallAccumulator, ToolCallDelta
from minillmlib.types.usage import Usage, UsageUpdate

__all__ = [
    "CompletionResponse",
    "FinishReason",
    "RequestReport",
    "ResponseAccumulator",
    "StreamChunk",
    "whole_response",
]


class FinishReason(enum.StrEnum):
    """Why the model stopped, in one vocabulary for all wires."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    PAUSE = "pause"
    ERROR = "error"
    UNKNOWN = "unknown"


# After these there may have been more to come.
_CUT = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.PAUSE)


class RequestReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of a call went to the server: the keys of the body, and what was left out and why."""

    sent: tuple[str, ...]
    omitted: dict[str, str] = {}


class CompletionResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One whole answer of a model.

    `content` is what it wrote, `refusal` its words (or the vendor's) for not answering;
    `finish_reason` is then `CONTENT_FILTER`. `tool_calls` is what it wants called, with
    `TOOL_CALLS` as the reason, whatever the wire says. `media` are the images and the sound that
    it made. `reasoning` is what it thought, as far as it is shown, and `reasoning_blocks` the same
    as the provider seals it; `origin` is the provider and model that answered.

    `raw_finish_reason` is the wire's own word, `raw_response` the whole body as it came (None
    when streamed). `usage` is None when the server sent no usable counts; `cost` then says so,
    and `usage_record` is what it sent instead.
    `request_report` says what of the call was sent, and `attempts` lists every request that was
    made for it, also those that failed before.
    """

    id: str = ""
    model: str = ""
    content: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    media: tuple[Media, ...] = ()
    reasoning: str = ""
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    origin: str = ""
    usage: Usage | None = None
    usage_record: JsonObject | None = None
    cost: CostOutcome = CostOutcome.unknown()
    request_id: str | None = None
    request_report: RequestReport | None = None
    attempts: tuple[Attempt, ...] = ()
    raw_response: JsonValue = None

    @property
    def text(self) -> str:
        """What the model said in the end: its answer, or the words with which it declined."""
        return self.refusal or self.content

    @property
    def is_truncated(self) -> bool:
        """Whether something else than the model ended the answer: a limit, a filter, a pause."""
        return self.finish_reason in _CUT

    def json(self) -> JsonValue:
        """The value of the JSON in `content`, which is repaired if need be. O(text).

        Raises `NoJsonFoundError`, and `IncompleteJsonError` for JSON that was cut; what there
        is of that, `loads(content)` gives.
        """
        from minillmlib.structured.json_answer import json_in  # noqa: PLC0415 - takes a while

        return json_in(self.content, refusal=self.refusal, is_truncated=self.is_truncated).value

    @property
    def total_cost(self) -> CostTotal:
        """What the completion cost in all its attempts, the failed and rejected ones included."""
        if not self.attempts:
            return CostTotal.of([self.cost])
        return CostTotal.of(attempt.cost for attempt in self.attempts)

    def without_cost(self) -> Self:
        """The same for a copy, which costs nothing: the cost stays with the one that was paid."""
        free = CostOutcome.resolved(Decimal(0), self.usage or Usage())
        return msgspec.structs.replace(self, cost=free, attempts=())

    def to_assistant_message(self) -> Message:
        """The answer as a message of a conversation.

        What a model had begun to say before it declined is not part of it, nor are its blocks.
        """
        blocks = () if self.refusal else self.reasoning_blocks
        thought = self.reasoning or blocks
        reasoning = Reasoning(text=self.reasoning, blocks=blocks, origin=self.origin)
        return Message.assistant(
            self.text,
            self.tool_calls,
            media=self.media,
            reasoning=reasoning if thought else None,
        )


class StreamChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a streamed answer; `delta` is the new text, `reasoning` new thought.

    `media` are whole images and pieces of the answer's one sound. `is_end` is the wire's own end
    marker: whatever follows it is not part of the answer. `usage` is what it tells of the counts,
    `usage_record` the provider's own record of them.
    """

    id: str = ""
    model: str = ""
    delta: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    media: tuple[Media, ...] = ()
    reasoning: str = ""
    reasoning_blocks: tuple[ReasoningDelta, ...] = ()
    usage: Usage | None = None
    usage_record: JsonObject | None = None
    is_end: bool = False


class ResponseAccumulator:
    """Adds up the chunks of one stream. `response()` costs O(text), `add` O(1)."""

    __slots__ = (
        "_blocks",
        "_counted",
        "_deltas",
        "_has_final_usage",
        "_is_counted",
        "_last_record",
        "_media",
        "_merge",
        "_reasoning",
        "_refusals",
        "_text_chars",
        "_tool_calls",
        "chars",
        "finish_reason",
        "has_ended",
        "id",
        "model",
        "raw_finish_reason",
    )

    def __init__(
        self, merge: Callable[[UsageUpdate, UsageUpdate], UsageUpdate] | None = None
    ) -> None:
        self._merge = merge
        self.id = ""
        self.model = ""
        self.finish_reason: FinishReason | None = None
        self.raw_finish_reason: str | None = None
        self.has_ended = False
        self._counted: UsageUpdate | None = None  # None until the first record of counts
        self._last_record: JsonObject | None = None
        self._has_final_usage = False
        self._is_counted = False  # whether the counts came after all that was said
        self._deltas: list[str] = []
        self._text_chars = 0
        self._media: list[Media] = []
        self._refusals: list[str] = []
        self._tool_calls = ToolCallAccumulator()
        self._reasoning: list[str] = []
        self._blocks = ReasoningAccumulator()
        self.chars = 0  # of all that was said; of media, bytes

    def add(self, chunk: StreamChunk) -> None:
        """Takes in the next chunk, in the order of arrival."""
        for block in chunk.reasoning_blocks:
            self._blocks.add(block, self._text_chars, len(self._tool_calls))
        if chunk.delta:
            self._deltas.append(chunk.delta)
            chars = len(chunk.delta)
            self._text_chars += chars
            self.chars += chars
            self._is_counted = False
        if chunk.reasoning or chunk.tool_calls or chunk.refusal or chunk.media:
            self._add_other(chunk)
        if not self.id:
            self.id = chunk.id
        if chunk.model:
            self.model = chunk.model
        if chunk.is_end:
            self.has_ended = True
        if chunk.finish_reason is not None and self.finish_reason is None:
            self.finish_reason = chunk.finish_reason
            self.raw_finish_reason = chunk.raw_finish_reason
        if chunk.usage is not None or chunk.usage_record is not None:
            self._count(UsageUpdate(usage=chunk.usage, record=chunk.usage_record))

    def _add_other(self, chunk: StreamChunk) -> None:
        """What of a chunk is not text."""
        refusal = chunk.refusal or ""
        if refusal:
            self._refusals.append(refusal)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
        self.chars += len(chunk.reasoning) + len(refusal)
        for call in chunk.tool_calls:
            self._tool_calls.add(call)
            self.chars += len(call.arguments) + len(call.name) + len(call.id)
        for part in chunk.media:
            self._media.append(part)
            self.chars += len(part.data or b"")
        if refusal or chunk.tool_calls:
            self._is_counted = False

    def _count(self, told: UsageUpdate) -> None:
        self._is_counted = True
        self._has_final_usage = self.finish_reason is not None
        self._last_record = told.record
        if self._counted is not None and self._merge is not None:
            told = self._merge(self._counted, told)
        self._counted = told

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._deltas)

    @property
    def usage(self) -> Usage | None:
        """The counts, once they are final: those sent before the finish are not the bill.

        The record of a whole answer is final as it is, and so is one between the last text and
        an end marker without a finish.
        """
        is_last = self.has_ended and self.finish_reason is None and self._is_counted
        is_final = self._has_final_usage or is_last
        return self.partial_usage if is_final else None

    @property
    def partial_usage(self) -> Usage | None:
        """The counts so far, final or not, if they hold any input: a lower bound."""
        return None if self._counted is None else _bill(self._counted.usage)

    @property
    def usage_record(self) -> JsonObject | None:
        """A record as the provider sent it, if none came that can be the bill."""
        if self._counted is None or self.usage is not None:
            return None
        is_broken = self._counted.usage is None
        return self._counted.record if is_broken else self._last_record

    @property
    def is_complete(self) -> bool:
        """Whether the wire said that the answer is finished.

        An end marker without a reason is enough only after text or a whole call: some servers
        never give a reason (earendil-works/pi#6225), others end an overflow that way without a
        word (lmstudio-bug-tracker#2339).
        """
        if self.finish_reason is not None:
            return True
        return self.has_ended and (bool(self._deltas) or self._tool_calls.are_whole())

    def response(self) -> CompletionResponse:
        """Everything added so far, as one answer."""
        refusal, usage = "".join(self._refusals) or None, self.usage
        tool_calls = self._tool_calls.finished()
        return CompletionResponse(
            id=self.id,
            model=self.model,
            content=self.text,
            finish_reason=_settled(self.finish_reason, refusal, tool_calls),
            raw_finish_reason=self.raw_finish_reason,
            refusal=refusal,
            tool_calls=tool_calls,
            media=_joined_media(self._media),
            reasoning="".join(self._reasoning),
            reasoning_blocks=self._blocks.finished(),
            usage=usage,
            usage_record=None if usage is not None else self.usage_record,
        )


def whole_response(chunks: Sequence[StreamChunk], raw: JsonValue) -> CompletionResponse:
    """A whole answer from chunks that hold all of it, assembled like a stream's.

    The last chunk has the counts: a whole body is final, so whatever they say is the bill.
    """
    last = chunks[-1]
    usage = _bill(last.usage)
    record = last.usage_record if usage is None else None
    if len(chunks) == 1 and not (last.tool_calls or last.media or last.reasoning_blocks):
        return CompletionResponse(  # a text, as most are
            id=last.id,
            model=last.model,
            content=last.delta,
            finish_reason=_settled(last.finish_reason, last.refusal, ()),
            raw_finish_reason=last.raw_finish_reason,
            refusal=last.refusal,
            reasoning=last.reasoning,
            usage=usage,
            usage_record=record,
            raw_response=raw,
        )
    fold = ResponseAccumulator()
    for chunk in chunks:
        fold.add(chunk)
    return msgspec.structs.replace(
        fold.response(), usage=usage, usage_record=record, raw_response=raw
    )


def _bill(usage: Usage | None) -> Usage | None:
    return usage if usage is not None and usage.is_complete else None


def _joined_media(media: list[Media]) -> tuple[Media, ...]:
    """The images, then the one sound, whose pieces follow each other."""
    if not media:
        return ()
    sounds = [part for part in media if isinstance(part, AudioPart)]
    others = [part for part in media if not isinstance(part, AudioPart)]
    if not sounds:
        return tuple(others)
    data = b"".join(part.data or b"" for part in sounds)
    return (*others, msgspec.structs.replace(sounds[0], data=data))


def _settled(
    reason: FinishReason | None, refusal: str | None, tool_calls: tuple[ToolCall, ...]
) -> FinishReason:
    """The reason of a finished answer: what it holds outranks a wire's plain `stop`."""
    if reason in (None, FinishReason.STOP, FinishReason.TOOL_CALLS):
        if tool_calls:
            return FinishReason.TOOL_CALLS
        if refusal is not None:
            return FinishReason.CONTENT_FILTER
        if reason is FinishReason.TOOL_CALLS:
            return FinishReason.STOP
    return FinishReason.UNKNOWN if reason is None else reason
