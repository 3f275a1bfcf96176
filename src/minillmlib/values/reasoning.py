"""What a model thinks before it answers: how much, its text, and its sealed blocks."""

from typing import Literal

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.values.json import JsonObject

__all__ = ["Reasoning", "ReasoningBlocks", "ReasoningConfig", "ReasoningDelta"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Of a block that comes in pieces, these grow; everything else is replaced.
GROWING = ("thinking", "signature", "text", "summary", "data")


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


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """What an assistant's message was thought out with.

    `blocks` are as the provider sent them, some of them signed or sealed, and go back to it
    unchanged. They are meant for `origin`, the model that made them, and are sent to no other.
    """

    text: str = ""
    blocks: tuple[JsonObject, ...] = ()
    origin: str = ""


class ReasoningDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a block in a stream."""

    index: int
    fields: JsonObject


class ReasoningBlocks:
    """Puts pieces of blocks together, in the order in which the blocks began.

    A piece goes on with the block of its index, unless it names another type than that block
    has: OpenRouter numbers a summary and the sealed block beside it alike.
    """

    __slots__ = ("_blocks", "_by_index")

    def __init__(self) -> None:
        self._blocks: list[dict[str, list[object]]] = []
        self._by_index: dict[int, dict[str, list[object]]] = {}

    def add(self, delta: ReasoningDelta) -> None:
        """Takes in the next piece."""
        kind = delta.fields.get("type")
        block = self._by_index.get(delta.index)
        if block is None or kind not in (None, *block.get("type", [None])):
            block = self._by_index[delta.index] = {}
            self._blocks.append(block)
        for name, value in delta.fields.items():
            if name in GROWING and isinstance(value, str) and block.get(name) != [None]:
                block.setdefault(name, []).append(value)
            elif value is not None or name not in block:
                block[name] = [value]

    def finished(self) -> tuple[JsonObject, ...]:
        """The blocks."""
        return tuple(
            {name: _joined(name, pieces) for name, pieces in block.items()}
            for block in self._blocks
        )


def _joined(name: str, pieces: list[object]) -> object:
    if name in GROWING and all(isinstance(piece, str) for piece in pieces):
        return "".join(map(str, pieces))
    return pieces[-1]
