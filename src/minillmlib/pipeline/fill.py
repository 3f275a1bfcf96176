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

    Some servers repeat it at the start of their answer and some do not (llama.cpp does both),
    so the first text is held back for as long as it may still be the repetition.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._held = ""
        self._is_settled = not text

    def feed(self, delta: str) -> str:
        """What may be shown once `delta` has come."""
        if self._is_settled:
            return delta
        self._held += delta
        if self._text.startswith(self._held) and self._held != self._text:
            return ""
        return self.end()

    @property
    def held(self) -> str:
        """What has come but is not shown yet."""
        return "" if self._is_settled else self._held

    def end(self) -> str:
        """What is still to be shown when nothing more comes."""
        if self._is_settled:
            return ""
        self._is_settled = True
        is_repeated = self._held.startswith(self._text)
        return self._held if is_repeated else self._text + self._held
