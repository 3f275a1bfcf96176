"""The facts about a prompt cache, and which breakpoints are sent; a vendor takes only so many."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from minillmlib.json_value import JsonObject
from minillmlib.types.messages import CacheTtl, Message, Role, has_breakpoint

MAX_BREAKPOINTS = 4  # at Anthropic, and at everybody who passes Claude's breakpoints on
BREAKPOINTS = "cache breakpoints"
TOO_MANY = f"only the last {MAX_BREAKPOINTS} can be sent"
NO_CONTENT = "a message without content takes none"

SupportsBreakpoint = Callable[[Message], bool]
Effect: TypeAlias = Literal["everything", "system", "messages", "nothing"]

# They choose among the model's tokens, or say whose the request is.
OUTSIDE_PROMPT: Mapping[str, Effect] = MappingProxyType(
    {
        "max_tokens": "nothing",
        "temperature": "nothing",
        "top_p": "nothing",
        "top_k": "nothing",
        "frequency_penalty": "nothing",
        "presence_penalty": "nothing",
        "repetition_penalty": "nothing",
        "stop": "nothing",
        "seed": "nothing",
        "logprobs": "nothing",
        "metadata": "nothing",
        "user": "nothing",
        "safety_identifier": "nothing",
        "store": "nothing",
    }
)


class PromptCache(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt cache of a model, as its vendor documents it.

    A prompt begins with the tools. `cache_plan` and `cache_verdict` read these facts; no request
    depends on them.

    Attributes:
        supports_breakpoint: Function of a message: whether it can carry a cache breakpoint. None
            if breakpoints are not sent.
        is_automatic: Whether prompts are cached without a breakpoint.
        min_tokens: The tokens of the shortest prefix that is cached, or None if that is not known.
        lifetime_secs: How long an unused prefix is kept without a breakpoint, at least. None if
            that is not known.
        has_system_first: Whether all system text comes before the other messages.
        effects: What a change of a parameter, or of a key of `extra`, invalidates: "everything",
            "system" (and the messages), "messages" or "nothing". The key "images" stands for
            whether the prompt has some. The effect of any other parameter is not known.
    """

    supports_breakpoint: Callable[[Message], bool] | None = None
    is_automatic: bool = True
    min_tokens: int | None = None
    lifetime_secs: int | None = None
    has_system_first: bool = False
    effects: Mapping[str, Effect] = OUTSIDE_PROMPT


def has_text(message: Message) -> bool:
    """Whether a breakpoint can be set on it where only texts carry them."""
    return bool((message.text or "").strip())


def has_block(message: Message) -> bool:
    """Whether a breakpoint can be set on it where calls, results and media carry them too."""
    is_of_tools = bool(message.tool_calls) or message.tool_call_id is not None
    return has_text(message) or bool(message.attachments) or is_of_tools


def select_breakpoints(
    messages: Sequence[Message], supports_breakpoint: SupportsBreakpoint
) -> dict[int, CacheTtl]:
    """Return the breakpoints to send, by message index: the last ones if there are too many.

    A longer lifetime must come before a shorter one. A prefix before one of an hour is written
    for an hour anyway, so its breakpoints say so. The vendor's order counts: all system text
    comes first, wherever it is in the conversation.
    """
    if not has_breakpoint(messages):
        return {}
    found = [n for n, m in enumerate(messages) if m.cache_ttl and supports_breakpoint(m)]
    found.sort(key=lambda index: messages[index].role is not Role.SYSTEM)
    kept = found[-MAX_BREAKPOINTS:]
    for_an_hour = [rank for rank, index in enumerate(kept) if messages[index].cache_ttl == "1h"]
    last_long = max(for_an_hour, default=-1)
    return {index: "1h" if rank <= last_long else "5m" for rank, index in enumerate(kept)}


def omitted_breakpoints(
    messages: Sequence[Message], supports_breakpoint: SupportsBreakpoint
) -> dict[str, str]:
    """Return why some breakpoints are not sent, for the request report."""
    if not has_breakpoint(messages):
        return {}
    wanted = [message for message in messages if message.cache_ttl is not None]
    count = sum(map(supports_breakpoint, wanted))
    reasons = []
    if count > MAX_BREAKPOINTS:
        reasons.append(TOO_MANY)
    if count < len(wanted):
        reasons.append(NO_CONTENT)
    return {BREAKPOINTS: "; ".join(reasons)} if reasons else {}


def cache_control(ttl: CacheTtl) -> JsonObject:
    """Return the value of a block's `cache_control`. Five minutes are the vendor's default."""
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def add_breakpoint(body: JsonObject, ttl: CacheTtl) -> None:
    """Add the breakpoint to the last text of a chat-completions message, which has one."""
    content = body["content"]
    if isinstance(content, str):
        content = body["content"] = [{"type": "text", "text": content}]
    for part in reversed(content):
        if part["type"] == "text" and part["text"].strip():
            part["cache_control"] = cache_control(ttl)
            break
