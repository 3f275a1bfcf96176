"""What is done to the text of a thread: placeholders filled in, and a beginning put back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from minillmlib.values.messages import Message, TextPart

__all__ = ["Prefill", "filled"]

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


def filled(
    messages: Sequence[Message], values: Mapping[str, str | int | float]
) -> tuple[Message, ...]:
    """The messages with each `{name}` replaced by its value, in one pass. O(text).

    Only plain names are looked up: no attributes, no format codes. A value is text and is not
    looked into again; a name without a value stays as it is.
    """
    if not values:
        return tuple(messages)
    return tuple(_filled_message(message, values) for message in messages)


def _filled_message(message: Message, values: Mapping[str, str | int | float]) -> Message:
    def fill(text: str) -> str:
        return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)

    if isinstance(message.content, str):
        return msgspec.structs.replace(message, content=fill(message.content))
    parts = tuple(
        TextPart(text=fill(part.text)) if isinstance(part, TextPart) else part
        for part in message.content
    )
    return msgspec.structs.replace(message, content=parts)


class Prefill:
    """Puts the forced beginning back in front of an answer, exactly once.

    Some servers repeat in a whole answer what was `sent` of the beginning (llama.cpp does), so
    there it is looked for; no stream is known to repeat it.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text or ""

    @property
    def sent(self) -> str:
        """The part of the beginning that is sent: vendors refuse white space at its end."""
        return self._text.rstrip() or self._text

    def first(self, delta: str) -> str:
        """The first text of a stream with the beginning before it; the rest stays as it is."""
        text, self._text = self._text + delta, ""
        return text

    def whole(self, content: str) -> str:
        """A whole answer with the beginning before it."""
        if self._text and content.startswith(self.sent):
            rest = content.removeprefix(self.sent)
            blank = self._text.removeprefix(self.sent)
            return self._text + rest.removeprefix(blank)
        return self._text + content
