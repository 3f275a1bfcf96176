"""What is done to a thread before a call: placeholders filled in, neighbours joined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import attrgetter, is_

import msgspec

from minillmlib.types.messages import Message, TextPart

__all__ = ["PLACEHOLDER", "filled", "filled_text", "merged", "placeholders_in"]

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

Values = Mapping[str, str | int | float]


def filled_text(text: str, values: Values) -> str:
    """The text with each `{name}` replaced by its value, in one pass. O(text).

    Only plain names are looked up: no attributes, no format codes. A value is text and is not
    looked into again; a name without a value stays as it is.
    """
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def filled(messages: Sequence[Message], values: Values) -> tuple[Message, ...]:
    """The messages with their placeholders filled in."""
    if not values:
        return tuple(messages)
    return tuple(_filled_message(message, values) for message in messages)


def placeholders_in(message: Message) -> list[str]:
    """The names of the placeholders in a message, in order."""
    if isinstance(message.content, str):
        return PLACEHOLDER.findall(message.content)
    texts = (part.text for part in message.content if isinstance(part, TextPart))
    return [name for text in texts for name in PLACEHOLDER.findall(text)]


def _filled_message(message: Message, values: Values) -> Message:
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=filled_text(message.content, values))
    parts = tuple(
        TextPart(text=filled_text(part.text, values)) if isinstance(part, TextPart) else part
        for part in message.content
    )
    return msgspec.structs.replace(message, content=parts)


def merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages with plain neighbours of one role joined, since many servers want turns.

    Texts are joined by an empty line, and blank ones left out. What has calls, results or
    reasoning stays by itself, and so does what ends with a cache mark: it stays where it was put.
    """
    roles = list(map(attrgetter("role"), messages))
    if not any(map(is_, roles, roles[1:])):  # as in most conversations
        return tuple(messages)
    turns: list[Message] = []
    for message in messages:
        if turns and _are_one_turn(turns[-1], message):
            turns[-1] = _joined(turns[-1], message)
        else:
            turns.append(message)
    return tuple(turns)


def _are_one_turn(first: Message, second: Message) -> bool:
    return (
        first.role is second.role
        and first.cache_ttl is None
        and not any(
            message.tool_calls or message.tool_call_id or message.reasoning or message.media
            for message in (first, second)
        )
    )


def _joined(first: Message, second: Message) -> Message:
    if isinstance(first.content, str) and isinstance(second.content, str):
        content = "\n\n".join(text for text in (first.content, second.content) if text.strip())
        return msgspec.structs.replace(second, content=content)
    parts = [
        part
        for message in (first, second)
        for part in (
            (TextPart(text=message.content),)
            if isinstance(message.content, str)
            else message.content
        )
    ]
    return msgspec.structs.replace(second, content=tuple(parts))
