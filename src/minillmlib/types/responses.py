"""The answer of a model, whole and in chunks."""

import enum
from decimal import Decimal
from typing import Generic, Self, TypeAlias, TypeVar

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, is_json
from minillmlib.structured.json_answer import extract_json
from minillmlib.types.costs import Attempt, CostOutcome, CostResolution, CostTotal, TokenPrice
from minillmlib.types.media import Media
from minillmlib.types.messages import Message
from minillmlib.types.reasoning import REQUIRED_KEY, Reasoning, ReasoningBlock, ReasoningDelta
from minillmlib.types.tools import ToolCall, ToolCallDelta
from minillmlib.types.usage import Usage

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


# After these, JSON and tool arguments that break off count as truncated.
_UNKNOWN_ENDS = (None, FinishReason.UNKNOWN, FinishReason.ERROR)
_TRUNCATED = (FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.PAUSE)


class RequestReport(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The keys of the request body that were sent, and what was omitted and why."""

    sent: tuple[str, ...]
    omitted: dict[str, str] = {}


_Bytes: TypeAlias = bytes  # within the class, the name is its field


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A token of the answer and the natural logarithm of its probability.

    `bytes` are its bytes, because a character may be spread over several tokens; None if the server
    did not send them. `top` are the most likely tokens at its place, as many as were asked for.
    """

    token: str
    logprob: float
    bytes: _Bytes | None = None
    top: "tuple[TokenLogprob, ...]" = ()


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
    reasoning_key: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning_blocks: tuple[BlockT, ...] = ()
    usage: Usage | None = None
    usage_record: JsonObject | None = None
    extra: JsonObject = {}


SHARED_FIELDS = _ResponseFields.__struct_fields__


class CompletionResponse(
    _ResponseFields[ToolCall, ReasoningBlock], frozen=True, kw_only=True, omit_defaults=True
):
    """One whole answer of a model.

    `content` is its text. `refusal` is the words with which the model refused, or else
    `refusal_reason`: why, in the words of the vendor or of this library. `finish_reason` is then
    `CONTENT_FILTER`; it is `TOOL_CALLS` whenever there are `tool_calls`. `media` are the generated
    images and audio. `reasoning` is the visible text of the reasoning, `reasoning_key` the key
    under which a chat-completions server sent it, and `reasoning_blocks` the signed or
    encrypted parts, which only the model `origin` can read. `logprobs` are the tokens of the answer
    with their probabilities, if the parameter of that name asked for them.

    `raw_finish_reason` is the wire's word, and `raw_response` the decoded body (None for a
    stream). `usage` is None if the server sent no usable counts; `cost` is then unknown, and
    `usage_record` holds the counts as they came. `extra` holds the keys of the answer that nothing
    else reads, such as `citations` and `annotations`, also those of a stream. `request_report`
    lists what was sent and omitted, and `attempts` every request made for the answer, including
    failed ones.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini")
        >>> response = run(ChatNode.root().chat("Hello", generator)).response
        >>> response.finish_reason, response.usage.prompt_tokens, response.is_truncated
        (<FinishReason.STOP: 'stop'>, 10, False)
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
        """Whether a limit, a filter or a pause ended the answer, and not the model.

        Also if the end is unknown (`is_end_known`) and the arguments of a tool call break off.
        """
        if self.is_end_known or not self.tool_calls:
            return self.finish_reason in _TRUNCATED
        return not all(is_json(call.arguments) for call in self.tool_calls)

    @property
    def is_end_known(self) -> bool:
        """Whether the server gave a reason, of those listed, why the answer ends.

        If not, JSON or tool arguments that break off are truncated.
        """
        return self.finish_reason not in _UNKNOWN_ENDS

    def json(self) -> JsonValue:
        """Return the value of the JSON in `content`, repaired if necessary. O(text).

        Raises `NoJsonFoundError`, and `IncompleteJsonError` for truncated JSON; use
        `loads(content)` to get the part that arrived.
        """
        found = extract_json(
            self.content,
            refusal=self.refusal,
            is_truncated=self.is_truncated,
            is_end_known=self.is_end_known,
        )
        return found.value

    @property
    def total_cost(self) -> CostTotal:
        """The cost of all attempts, including failed and rejected ones."""
        if not self.attempts:
            return CostTotal.of([self.cost])
        return CostTotal.of(attempt.cost for attempt in self.attempts)

    def reprice(self, price: TokenPrice) -> CostTotal:
        """Return what all attempts would have cost at another price. See `CostInfo.reprice`."""
        if self.attempts:
            return CostTotal.of(attempt.reprice(price) for attempt in self.attempts)
        is_copy = self.cost.resolution is CostResolution.RESOLVED and not self.cost.cost
        return CostTotal() if is_copy else CostTotal.of([self.cost.reprice(price)])

    def without_cost(self) -> Self:
        """Return this response with a cost of zero, for a copy of a node: only one is paid."""
        free = CostOutcome.resolved(Decimal(0), self.usage or Usage())
        return msgspec.structs.replace(self, cost=free, attempts=())

    def to_assistant_message(self) -> Message:
        """Return the answer as a message of a conversation.

        The message of a refused answer has no reasoning blocks.
        """
        text, blocks = self.reasoning, () if self.refusal else self.reasoning_blocks
        reasoning = None
        if text or blocks or (self.tool_calls and self.reasoning_key == REQUIRED_KEY):
            key, origin = self.reasoning_key, self.origin
            reasoning = Reasoning(text=text, blocks=blocks, origin=origin, key=key)
        calls = self.tool_calls and [call.with_origin(self.origin) for call in self.tool_calls]
        return Message.assistant(self.text, calls, media=self.media, reasoning=reasoning)


class StreamChunk(
    _ResponseFields[ToolCallDelta, ReasoningDelta], frozen=True, kw_only=True, gc=False
):
    """One piece of a streamed answer: `delta` is the new text.

    The other fields are those of `CompletionResponse`, each with the new part of its value. `media`
    are whole images, and pieces of the answer's one sound. `usage` is the counts so far, read from
    the provider's `usage_record`. `extra` is not read from a chunk of nothing but text and what
    each chunk repeats; the values of its keys in `extra_pieces` continue those of earlier chunks,
    any other replaces an earlier one. `is_end` is the wire's end marker: nothing after it belongs
    to the answer.
    """

    delta: str = ""
    is_end: bool = False
    extra_pieces: tuple[str, ...] = ()

    @property
    def has_only_text(self) -> bool:
        """Whether no field but `delta` holds a part of the answer."""
        return not (
            self.reasoning
            or self.tool_calls
            or self.media
            or self.refusal
            or self.refusal_reason
            or self.reasoning_blocks
            or self.reasoning_key
            or self.logprobs
        )
