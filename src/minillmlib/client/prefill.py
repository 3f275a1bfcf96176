"""The forced prefix of an answer: sent as its last turn, and put back in front of the rest."""

from __future__ import annotations

# A shorter prefix may well be how the rest begins, too: "[" before "[1], [2]]".
MIN_STREAMED_ECHO = 2


class Prefill:
    """Puts the forced prefix back in front of an answer, exactly once.

    Some servers repeat in their answer the `sent_text` of the prefix: llama.cpp in whole
    answers, Mistral in streams as well. So the answer's own beginning is compared, unless
    `is_exact` says that a text was continued: then what looks repeated is written twice.
    """

    def __init__(self, text: str, *, is_exact: bool = False) -> None:
        self._text = text
        self._is_exact = is_exact
        self.is_done = False  # nothing will be put in front any more
        self._may_repeat = not is_exact and len(self.sent_text) >= MIN_STREAMED_ECHO
        self.held = ""  # the first text of a stream, while it may yet be a repetition

    @property
    def sent_text(self) -> str:
        """The part of the prefix that is sent: vendors refuse white space at its end."""
        return self._text.rstrip() or self._text

    def feed(self, delta: str) -> str:
        """Return the text of a stream that `delta` makes certain; perhaps none yet."""
        if self.is_done:
            return delta
        self.held += delta
        is_part = len(self.held) < len(self._text) and self._text.startswith(self.held)
        return "" if self._may_repeat and is_part else self.flush()

    def flush(self) -> str:
        """Return the held text with the prefix, at the end of a stream."""
        text = self.prepend(self.held) if self._may_repeat else self._text + self.held
        self._text = self.held = ""
        self.is_done = True
        return text

    def prepend(self, content: str) -> str:
        """Return a whole answer with the prefix before it."""
        if not self._is_exact and content.startswith(self.sent_text):
            rest = content.removeprefix(self.sent_text)
            blank = self._text.removeprefix(self.sent_text)
            return self._text + rest.removeprefix(blank)
        return self._text + content
