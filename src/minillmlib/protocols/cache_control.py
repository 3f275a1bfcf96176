"""Which cache marks of a conversation are sent, where a vendor takes only so many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

from minillmlib.json_value import JsonObject
from minillmlib.types.messages import CacheTtl, Message, Role

__all__ = [
    "cache_control", "has_block", "has_text", "kept_marks", "mark_message", "marks_left_out"
]  # fmt: skip

MOST_MARKS = 4  # Anthropic, and everybody who passes Claude's marks on

CanBear = Callable[[Message], bool]  # whether a message has anything a mark can stand on


def has_text(message: Message) -> bool:
    """Whether a mark can stand on it where marks stand on texts only."""
    return bool((message.text or "").strip())


def has_block(message: Message) -> bool:
    """Whether a mark can stand on it where calls, results and media bear marks, too."""
    is_of_tools = bool(message.tool_calls) or message.tool_call_id is not None
    return has_text(message) or bool(message.attachments) or is_of_tools


def kept_marks(messages: Sequence[Message], can_bear: CanBear) -> dict[int, CacheTtl]:
    """The marks to send, by the place of their message: the last ones, when there are too many.

    A longer lifetime must come before a shorter one. A mark before one of an hour is written for
    an hour anyway, so it says so. What counts is the vendor's order: all system text comes first,
    wherever it stands in the conversation.
    """
    if not any(map(attrgetter("cache_ttl"), messages)):
        return {}
    marked = [place for place, m in enumerate(messages) if m.cache_ttl and can_bear(m)]
    marked.sort(key=lambda place: messages[place].role is not Role.SYSTEM)
    kept = marked[-MOST_MARKS:]
    for_an_hour = [rank for rank, place in enumerate(kept) if messages[place].cache_ttl == "1h"]
    last_long = max(for_an_hour, default=-1)
    return {place: "1h" if rank <= last_long else "5m" for rank, place in enumerate(kept)}


def marks_left_out(messages: Sequence[Message], can_bear: CanBear) -> dict[str, str]:
    """What a receipt says of marks that are not sent."""
    marked = [message for message in messages if message.cache_ttl is not None]
    if not marked:
        return {}
    able = sum(map(can_bear, marked))
    reasons = []
    if able > MOST_MARKS:
        reasons.append(f"only the last {MOST_MARKS} can be sent")
    if able < len(marked):
        reasons.append("a message without content for it bears none")
    return {"cache marks": "; ".join(reasons)} if reasons else {}


def cache_control(ttl: CacheTtl) -> JsonObject:
    """The mark as it stands on a block. Five minutes are the default and need no word."""
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def mark_message(body: JsonObject, ttl: CacheTtl) -> None:
    """Puts the mark on the last text of a message of the chat-completions wire, which has one."""
    content = body["content"]
    if isinstance(content, str):
        content = body["content"] = [{"type": "text", "text": content}]
    for part in reversed(content):
        if part["type"] == "text" and part["text"].strip():
            part["cache_control"] = cache_control(ttl)
            break
