"""The answer of a model, whole and in chunks."""

import enum
from decimal import Decimal
from typing import Generic, Self, TypeVar

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.attempts import Attempt
from minillmlib.types.costs import CostOutcome, CostTotal
from minillmlib.types.media import Media
from minillmlib.types.messages import Message
from minillmlib.types.reasoning import Reasoning, ReasoningBlock, ReasoningDelta
from minillmlib.types.tools import ToolCall, ToolCallDelta
from minillmlib.types.usage import Usage

__all__ = ["SHARED_FIELDS", "CompletionResponse", "FinishReason", "RequestReport", "StreamChunk"]

CallT = TypeVar("CallT")
BlockT = TypeVar("BlockT")


class FinishReason(enum.StrEnum):
    """Why the model stopped, in one vocabulary for all wires."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    PAUSE = "pause"
    ERROR = "error"
    UNKNOWN = "unknown"


# After these the model may have had more to write.
_TRUNCATED = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.PAUSE)


class RequestReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The keys of the request body that were sent, and what was omitted and why."""

    sent: tuple[str, ...]
    omitted: dict[str, str] = {}


class _ResponseFields(msgspec.Struct, Generic[CallT, BlockT], frozen=True, kw_only=True):
    """The fields that a chunk and a whole response share."""

    id: str = ""
    model: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    refusal: str | None = None
    refusal_reason: str | None = None
    tool_calls: tuple[CallT, ...] = ()
    media: tuple[Media, ...] = ()
    reasoning: str = ""
    reasoning_blocks: tuple[BlockT, ...] = ()
    usage: Usage | None = None
    usage_record: JsonObject | None = None


SHARED_FIELDS = _ResponseFields.__struct_fields__


class CompletionResponse(
    _ResponseFields[ToolCall, ReasoningBlock], frozen=True, kw_only=True, omit_defaults=True
):
    """One whole answer of a model.

    Attributes:
        id: The server's id of the answer.
        model: The model that answered, as the server names it.
        content: The text that the model wrote.
        finish_reason: Why it stopped: `TOOL_CALLS` whenever there is a call, `CONTENT_FILTER`
            when it refused.
        raw_finish_reason: The wire's word for the finish reason.
        refusal: The words with which the model refused, or else `refusal_reason`. None if it
            did not refuse.
        refusal_reason: Why it refused, in the words of the vendor or of this library.
        tool_calls: The calls that it asks for.
        media: The images and the sound that it generated.
        reasoning: The text of its reasoning, as far as the vendor shows it.
        reasoning_blocks: The reasoning as the provider seals it.
        origin: The provider and model, for which the blocks are meant.
        usage: The token counts. None if the server sent no usable ones; `cost` then says so.
        usage_record: The counts as the server sent them, if they are not usable.
        cost: The cost of the request that brought this answer.
        request_id: The server's id of the request.
        request_report: What was sent, and what was omitted.
        attempts: Every request made for the answer, including those that failed.
        raw_response: The whole decoded body, or None for a stream.
    """

    content: str = ""
    origin: str = ""
    cost: CostOutcome = CostOutcome.unknown()
    request_id: str | None = None
    request_report: RequestReport | None = None
    attempts: tuple[Attempt, ...] = ()
    raw_response: JsonValue = None

    def __post_init__(self) -> None:
        if self.refusal_reason is not None and self.refusal is None:
            msgspec.structs.force_setattr(self, "refusal", self.refusal_reason)

    @property
    def text(self) -> str:
        """The text that the model wrote: its answer, or else the words with which it refused."""
        return self.content or self.refusal_words or ""

    @property
    def refusal_words(self) -> str | None:
        """The refusal in the words of the model itself, or None if it gave none."""
        return None if self.refusal == self.refusal_reason else self.refusal

    @property
    def is_truncated(self) -> bool:
        """Whether a limit, a filter or a pause ended the answer, and not the model."""
        return self.finish_reason in _TRUNCATED

    def json(self) -> JsonValue:
        """Return the value of the JSON in `content`, repaired if necessary. O(text).

        Raises `NoJsonFoundError`, and `IncompleteJsonError` for truncated JSON; use
        `loads(content)` to get the part that arrived.
        """
        from minillmlib.structured.json_answer import extract_json  # noqa: PLC0415 - slow to import

        found = extract_json(self.content, refusal=self.refusal, is_truncated=self.is_truncated)
        return found.value

    @property
    def total_cost(self) -> CostTotal:
        """The cost of all attempts, including failed and rejected ones."""
        if not self.attempts:
            return CostTotal.of([self.cost])
        return CostTotal.of(attempt.cost for attempt in self.attempts)

    def without_cost(self) -> Self:
        """Return this response with a cost of zero, for a copy of a node: only one is paid."""
        free = CostOutcome.resolved(Decimal(0), self.usage or Usage())
        return msgspec.structs.replace(self, cost=free, attempts=())

    def to_assistant_message(self) -> Message:
        """Return the answer as a message of a conversation.

        The message of a refused answer has no sealed blocks.
        """
        blocks = () if self.refusal else self.reasoning_blocks
        reasoning = Reasoning(text=self.reasoning, blocks=blocks, origin=self.origin)
        return Message.assistant(
            self.text,
            self.tool_calls,
            media=self.media,
            reasoning=reasoning if self.reasoning or blocks else None,
        )


class StreamChunk(_ResponseFields[ToolCallDelta, ReasoningDelta], frozen=True, kw_only=True):
    """One piece of a streamed answer.

    The fields are those of `CompletionResponse`, each with the new part of its value.

    Attributes:
        delta: The new text.
        refusal: New words with which the model refuses.
        refusal_reason: Why the model refused, in the words of the vendor or of this library.
        media: Whole images, and pieces of the answer's one sound.
        usage: The token counts so far, as the chunk reports them.
        usage_record: The provider's record, from which `usage` was read.
        is_end: Whether this is the wire's end marker: nothing after it belongs to the answer.
    """

    delta: str = ""
    is_end: bool = False
