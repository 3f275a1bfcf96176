"""Fills the `{placeholders}` of a thread at call time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from minillmlib.types.messages import Message, Role, TextPart

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
PLACEHOLDER = re.compile(rf"\{{({_NAME})\}}")
_PLACEHOLDER_OR_LITERAL = re.compile(rf"\{{\{{({_NAME})\}}\}}|\{{({_NAME})\}}")

_WITHIN_PLACEHOLDER = re.compile(rf"(?<=\{{)(?={_NAME}\}})")

# The texts of models and tools stay as they are: nobody wrote them as templates.
TEMPLATE_ROLES = (Role.SYSTEM, Role.USER)

Values = Mapping[str, str | int | float]


def fill_text(text: str, values: Values) -> str:
    """Replace each `{name}` by its value, and `{{name}}` by `{name}`, in one pass. O(text).

    Only plain names are looked up: no attributes, no format codes. Values are text and are not
    searched again; a name without a value stays as it is, with all its braces.
    """

    def fill(found: re.Match[str]) -> str:
        literal, name = found.groups()
        if literal is None:
            return str(values.get(name, found[0]))
        return f"{{{literal}}}" if literal in values else found[0]

    return _PLACEHOLDER_OR_LITERAL.sub(fill, text)


def without_placeholders(text: str) -> str | tuple[TextPart, ...]:
    """Return a text that nobody wrote as a template, as content in which nothing is filled."""
    parts = _WITHIN_PLACEHOLDER.split(text)
    return text if len(parts) == 1 else tuple(TextPart(text=part) for part in parts)


def fill_placeholders(messages: Sequence[Message], values: Values) -> tuple[Message, ...]:
    """Return the messages with the placeholders of the system and the user filled."""
    if not values:
        return tuple(messages)
    return tuple(
        _fill_message(message, values) if message.role in TEMPLATE_ROLES else message
        for message in messages
    )


def find_placeholders(message: Message) -> list[str]:
    """Return the names of the placeholders in a message, in order. Models and tools have none."""
    if message.role not in TEMPLATE_ROLES:
        return []
    texts = (part.text for part in parts_of(message) if isinstance(part, TextPart))
    found = (match for text in texts for match in _PLACEHOLDER_OR_LITERAL.finditer(text))
    return [match[2] for match in found if match[2] is not None]


def parts_of(message: Message) -> Sequence[object]:
    """Return the content of a message as parts, one if it is a text."""
    content = message.content
    return (TextPart(text=content),) if isinstance(content, str) else content


def _fill_message(message: Message, values: Values) -> Message:
    content = message.content
    if isinstance(content, str):
        if "{" not in content:
            return message
        return msgspec.structs.replace(message, content=fill_text(content, values))
    parts = tuple(
        TextPart(text=fill_text(part.text, values)) if isinstance(part, TextPart) else part
        for part in content
    )
    return msgspec.structs.replace(message, content=parts)
