"""Which cache marks of a conversation are sent, where a vendor takes only so many."""

from __future__ import annotations

from collections.abc import Sequence

from minillmlib.values.json import JsonObject
from minillmlib.values.messages import CacheTtl, Message, Role

__all__ = ["cache_control", "kept_marks", "mark_message", "marks_left_out"]

MOST_MARKS = 4  # Anthropic, and everybody who passes Claude's marks on


def kept_marks(messages: Sequence[Message]) -> dict[int, CacheTtl]:
    """The marks to send, by the place of their message: the last ones, when there are too many.

    A longer lifetime must come before a shorter one. A mark before one of an hour is written for
    an hour anyway, so it says so. What counts is the vendor's order: all system text comes first,
    wherever it stands in the conversation.
    """
    marked = [place for place, message in enumerate(messages) if message.cache_ttl is not None]
    marked.sort(key=lambda place: messages[place].role is not Role.SYSTEM)
    kept = marked[-MOST_MARKS:]
    for_an_hour = [rank for rank, place in enumerate(kept) if messages[place].cache_ttl == "1h"]
    last_long = max(for_an_hour, default=-1)
    return {place: "1h" if rank <= last_long else "5m" for rank, place in enumerate(kept)}


def marks_left_out(messages: Sequence[Message]) -> dict[str, str]:
    """What a receipt says of marks beyond those that are sent."""
    if sum(message.cache_ttl is not None for message in messages) <= MOST_MARKS:
        return {}
    return {"cache marks": f"only the last {MOST_MARKS} can be sent"}


def cache_control(ttl: CacheTtl) -> JsonObject:
    """The mark as it stands on a block. Five minutes are the default and need no word."""
    return {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}


def mark_message(body: JsonObject, ttl: CacheTtl) -> None:
    """Puts the mark on the last text of a message of the chat-completions wire."""
    content = body["content"]
    if isinstance(content, str):
        content = body["content"] = [{"type": "text", "text": content}]
    for part in reversed(content or []):
        if part["type"] == "text" and part["text"]:
            part["cache_control"] = cache_control(ttl)
            break
