"""What a model thinks before it answers: how much, its text, and its sealed blocks."""

from typing import Literal

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json

__all__ = [
    "Reasoning",
    "ReasoningAccumulator",
    "ReasoningBlock",
    "ReasoningConfig",
    "ReasoningDelta",
]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Of a block that comes in pieces, these grow; everything else is replaced.
GROWING = ("thinking", "signature", "text", "summary", "data", "content")


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much the model may think: an `effort`, or a budget of `max_tokens`, not both.

    Which of them, and which efforts, a model takes differs; a wire that has no word for it
    refuses it with `InvalidParameterError`, and a model that does not know it by its server.
    """

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.effort is None) == (self.max_tokens is None):
            raise InvalidParameterError("reasoning needs either an effort or max_tokens")
        is_count = isinstance(self.max_tokens, int) and not isinstance(self.max_tokens, bool)
        if self.max_tokens is not None and not (is_count and self.max_tokens > 0):
            raise InvalidParameterError("the max_tokens of reasoning must be a number above 0")
        if self.effort is not None and self.effort not in EFFORTS:
            raise InvalidParameterError(
                f"the reasoning effort is one of {', '.join(EFFORTS)}, not {self.effort!r}"
            )


class ReasoningBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One block that only its provider understands: signed, sealed, or of the vendor's own tools.

    `fields` is the block as it was sent. Its place is after `text_before` characters of the
    message's text and `calls_before` of its tool calls.
    """

    fields: JsonObject
    text_before: int = 0
    calls_before: int = 0


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an assistant's message was thought out with.

    `blocks` go back to the provider unchanged and in their places. They are meant for `origin`,
    the model that made them, and are sent to no other.
    """

    text: str = ""
    blocks: tuple[ReasoningBlock, ...] = ()
    origin: str = ""


class ReasoningDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a block in a stream. One with a `type` may begin a block, others go on with one.

    A text under `input` is a piece of JSON, for a tool that runs at the vendor.
    """

    index: int
    fields: JsonObject


class _Growing:
    """A block that is not finished."""

    __slots__ = ("calls_before", "pieces", "text_before")

    def __init__(self, text_before: int, calls_before: int) -> None:
        self.pieces: dict[str, list[object]] = {}
        self.text_before = text_before
        self.calls_before = calls_before

    def grow(self, fields: JsonObject) -> None:
        for name, value in fields.items():
            grows = isinstance(value, str) and (name in GROWING or name == "input")
            if grows and self.pieces.get(name) != [None]:
                self.pieces.setdefault(name, []).append(value)
            elif value is not None or name not in self.pieces:
                self.pieces[name] = [value]

    def finished(self) -> ReasoningBlock:
        fields = {name: _joined(name, pieces) for name, pieces in self.pieces.items()}
        return ReasoningBlock(
            fields=fields, text_before=self.text_before, calls_before=self.calls_before
        )


class ReasoningAccumulator:
    """Puts pieces of blocks together, in the order in which the blocks began.

    A piece goes on with the block of its index, unless it names another type than that block
    has: OpenRouter numbers a summary and the sealed block beside it alike.
    """

    __slots__ = ("_blocks", "_by_index")

    def __init__(self) -> None:
        self._blocks: list[_Growing] = []
        self._by_index: dict[int, _Growing] = {}

    def add(self, delta: ReasoningDelta, text_before: int, calls_before: int) -> None:
        """Takes in the next piece; the counts are what the message holds before it."""
        kind = delta.fields.get("type")
        block = self._by_index.get(delta.index)
        if block is None and kind is None:
            return  # it goes on with a text or a call, which are put together elsewhere
        if block is None or kind not in (None, *block.pieces.get("type", [None])):
            block = self._by_index[delta.index] = _Growing(text_before, calls_before)
            self._blocks.append(block)
        block.grow(delta.fields)

    def finished(self) -> tuple[ReasoningBlock, ...]:
        """The blocks."""
        return tuple(block.finished() for block in self._blocks)


def _joined(name: str, pieces: list[object]) -> JsonValue:
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if name == "input" and 0 < len(texts) < len(pieces):  # it began as an empty object
        return _input_of("".join(texts))
    return "".join(texts) if texts and len(texts) == len(pieces) else pieces[-1]


def _input_of(text: str) -> JsonValue:
    """The value of streamed JSON; what is none stays the text that it is."""
    try:
        return decode_json(text)
    except MalformedResponseError:
        return text
