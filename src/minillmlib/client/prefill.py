"""The forced beginning of an answer: sent as its last turn, and put back in front of the rest."""

from __future__ import annotations

__all__ = ["Prefill"]

# A shorter beginning may well be how the rest begins, too: "[" before "[1], [2]]".
SHORTEST_STREAMED_ECHO = 2


class Prefill:
    """Puts the forced beginning back in front of an answer, exactly once.

    Some servers repeat in their answer what was `sent` of the beginning: llama.cpp in whole
    answers, Mistral in streams as well. So the answer's own beginning is compared.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text or ""
        self.is_over = not text  # nothing will be put in front any more
        self.held = ""  # the first text of a stream, while it may yet be a repetition

    @property
    def sent(self) -> str:
        """The part of the beginning that is sent: vendors refuse white space at its end."""
        return self._text.rstrip() or self._text

    def next(self, delta: str) -> str:
        """What of a stream can be told once `delta` has come; perhaps nothing yet."""
        if self.is_over:
            return delta
        self.held += delta
        is_long = len(self.sent) >= SHORTEST_STREAMED_ECHO
        if is_long and len(self.held) < len(self._text) and self._text.startswith(self.held):
            return ""
        return self.rest()

    def rest(self) -> str:
        """What was held back, with the beginning: for the end of a stream."""
        if len(self.sent) >= SHORTEST_STREAMED_ECHO:
            text = self.whole(self.held)
        else:
            text = self._text + self.held
        self._text = self.held = ""
        self.is_over = True
        return text

    def whole(self, content: str) -> str:
        """A whole answer with the beginning before it."""
        if self._text and content.startswith(self.sent):
            rest = content.removeprefix(self.sent)
            blank = self._text.removeprefix(self.sent)
            return self._text + rest.removeprefix(blank)
        return self._text + content
