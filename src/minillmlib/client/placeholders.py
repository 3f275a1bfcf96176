"""Fills the `{placeholders}` of a thread at call time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from minillmlib.types.messages import Message, TextPart

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

Values = Mapping[str, str | int | float]


def fill_text(text: str, values: Values) -> str:
    """Replace each `{name}` by its value, in one pass. O(text).

    Only plain names are looked up: no attributes, no format codes. Values are text and are not
    searched again; a name without a value stays as it is.
    """
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)


def fill_placeholders(messages: Sequence[Message], values: Values) -> tuple[Message, ...]:
    """Return the messages with their placeholders filled."""
    if not values:
        return tuple(messages)
    return tuple(_fill_message(message, values) for message in messages)


def find_placeholders(message: Message) -> list[str]:
    """Return the names of the placeholders in a message, in order."""
    texts = (part.text for part in parts_of(message) if isinstance(part, TextPart))
    return [name for text in texts for name in PLACEHOLDER.findall(text)]


def parts_of(message: Message) -> Sequence[object]:
    """Return the content of a message as parts, one if it is a text."""
    content = message.content
    return (TextPart(text=content),) if isinstance(content, str) else content


def _fill_message(message: Message, values: Values) -> Message:
    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=fill_text(message.content, values))
    parts = tuple(
        TextPart(text=fill_text(part.text, values)) if isinstance(part, TextPart) else part
        for part in message.content
    )
    return msgspec.structs.replace(message, content=parts)
