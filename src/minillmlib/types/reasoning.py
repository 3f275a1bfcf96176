"""What a model thinks before it answers: how much, its text, and its sealed blocks."""

from typing import Literal

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject

__all__ = [
    "Reasoning",
    "ReasoningBlock",
    "ReasoningConfig",
    "ReasoningDelta",
]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


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
