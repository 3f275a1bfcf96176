"""The reasoning of a model: how much of it, its text, and its blocks."""

from typing import Literal, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject
from minillmlib.types.values import check_choice, check_fields, check_number

# Kimi and DeepSeek refuse tool calls that come back without this key, be it empty.
REQUIRED_KEY = "reasoning_content"
# OpenRouter's and MiniMax's blocks, and LiteLLM's for Claude.
BLOCK_KEYS = ("reasoning_details", "thinking_blocks")
# The keys under which servers of the chat-completions wire send reasoning. Of several in one
# answer, the first is the one that goes back. The last is a part of the content itself.
REASONING_KEYS = (*BLOCK_KEYS, REQUIRED_KEY, "reasoning", "content")

Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _check_budget(name: str, value: object) -> None:
    check_number(f"the {name} of reasoning", value, minimum=1, is_whole=True)


class ReasoningConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The amount of reasoning: an `effort`, or a budget of `max_tokens`, not both.

    Models differ in what they accept. A wire that cannot carry the setting raises
    `InvalidParameterError`; for an unsuitable model the server returns an error.
    """

    effort: Effort | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.effort is None) == (self.max_tokens is None):
            raise InvalidParameterError("reasoning needs either an effort or max_tokens")
        check_fields(self, {"max_tokens": _check_budget})
        check_choice("the reasoning effort", self.effort, get_args(Effort))


class ReasoningBlock(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One block that only its provider can read: signed, encrypted, or of a tool at the vendor.

    `fields` is the block as it was sent. It follows the first `text_before` characters of the
    message's text and the first `calls_before` of its tool calls.
    """

    fields: JsonObject
    text_before: int = 0
    calls_before: int = 0


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reasoning before an assistant's message.

    `blocks` go back to the provider unchanged and in their places, but only to `origin`, the model
    that made them. `key` is the key under which a chat-completions server sent the reasoning, and
    under which it may want it back.
    """

    text: str = ""
    blocks: tuple[ReasoningBlock, ...] = ()
    origin: str = ""
    key: str = ""


class ReasoningDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a block in a stream.

    A delta with a `type` may start a new block; others continue the current one. A text in
    `input` is a piece of JSON, for a tool that runs at the vendor.
    """

    index: int
    fields: JsonObject
