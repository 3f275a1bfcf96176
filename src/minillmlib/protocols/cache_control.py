"""Selects the cache breakpoints of a conversation that are sent; a vendor takes only so many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from minillmlib.json_value import JsonObject
from minillmlib.types.messages import CacheTtl, Message, Role

MAX_BREAKPOINTS = 4  # at Anthropic, and at everybody who passes Claude's breakpoints on
BREAKPOINTS = "cache breakpoints"

SupportsBreakpoint = Callable[[Message], bool]


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
    if not any(map(attrgetter("cache_ttl"), messages)):
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
    wanted = [message for message in messages if message.cache_ttl is not None]
    count = sum(map(supports_breakpoint, wanted))
    reasons = []
    if count > MAX_BREAKPOINTS:
        reasons.append(f"only the last {MAX_BREAKPOINTS} can be sent")
    if count < len(wanted):
        reasons.append("a message without content takes none")
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
