"""Text that comes in pieces, with look-ahead.

A decision that needs more text raises `NeedMoreInput` before it changes anything, and is repeated
when there is more. To stay linear for any size of pieces, a long undecided text is looked at again
only after it has grown by a quarter, and a few characters are scanned only if somebody asks.
"""

from __future__ import annotations

import re

LOOK_BEHIND = 64  # characters that stay readable after they were consumed
_SHORT_REST = 64
_MIN_PORTION = 128
_SURROGATE = re.compile("[\ud800-\udfff]")
# With the characters that have no width, such as a byte order mark.
SPACES = r"[\s\u200b\u2060\ufeff]*+"
SPACE = re.compile(SPACES)
_LINE = re.compile(r"[^\n]*+")
_TO_BRACKET = re.compile(r"[^}\]]*+")
_BLOCK_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+(?:\*/)?+")


class NeedMoreInput(Exception):  # noqa: N818 - it is no error
    """A decision has to wait for the text that follows."""


class InputBuffer:
    """The part of a text that is not consumed yet, and a little of what was consumed."""

    def __init__(self) -> None:
        self.text = ""
        self.pos = 0  # index of the next character to consume
        self.is_ended = False  # whether no more text will come
        self.offset = 0  # position of `text` in the whole text
        self.surrogates: list[int] = []  # positions in the whole text of replaced halves
        self._pending: list[str] = []
        self._pending_chars = 0
        self._newline = -1

    def add(self, piece: str) -> bool:
        """Store a piece; return whether there is enough to scan even if nobody looks."""
        self._pending.append(piece)
        self._pending_chars += len(piece)
        return self._pending_chars >= _MIN_PORTION

    def refill(self) -> bool:
        """Append the stored pieces if scanning on is worth it; return whether it is."""
        rest = len(self.text) - self.pos
        if not self._pending_chars or (rest > _SHORT_REST and self._pending_chars * 4 < rest):
            return False
        self._append_pending()
        return True

    def finish(self, piece: str) -> None:
        self._pending.append(piece)
        self._append_pending()
        self.is_ended = True

    def _append_pending(self) -> None:
        added = "".join(self._pending)
        if not added.isascii() and _SURROGATE.search(added):
            start = self.offset + len(self.text)
            self.surrogates += (start + half.start() for half in _SURROGATE.finditer(added))
            added = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", added)
        dropped = max(self.pos - LOOK_BEHIND, 0)
        self.offset += dropped
        self.pos -= dropped
        self.text = self.text[dropped:] + added
        self._newline = -1
        self._pending.clear()
        self._pending_chars = 0

    def match(self, pattern: re.Pattern[str], pos: int) -> re.Match[str]:
        """Match a pattern that always matches, and wait if more text could extend the match."""
        match = pattern.match(self.text, pos)
        assert match is not None
        if not self.is_ended and match.end() == len(self.text):
            raise NeedMoreInput
        return match

    def skip_space(self, pos: int) -> int:
        return self.match(SPACE, pos).end()

    def skip_escaped_space(self, pos: int) -> int:
        """Skip white space and escaped line breaks and tabs, which models write between tokens."""
        while True:
            pos = self.skip_space(pos)
            if self.char_at(pos) != "\\" or self.char_at(pos + 1) not in ("n", "r", "t"):
                return pos
            following = self.char_at(pos + 2)
            if following.isalpha() or following == "_":
                return pos
            pos += 2

    def char_at(self, pos: int) -> str:
        """Return the character there, or `""` at the end of the whole text."""
        try:
            return self.text[pos]
        except IndexError:
            if self.is_ended:
                return ""
        raise NeedMoreInput

    def is_last_line(self, pos: int) -> bool:
        """Whether no line follows the one there."""
        if self._newline < pos:
            self._newline = self.text.find("\n", pos)
            if self._newline < 0 and not self.is_ended:
                raise NeedMoreInput
            self._newline %= len(self.text) + 1
        return self._newline == len(self.text)

    def comment_end(self, pos: int) -> int:
        """Return the end of the comment that begins there with `/` or `#`; `pos` if none does."""
        following = self.char_at(pos + 1) if self.text[pos] == "/" else "/"
        if following not in ("/", "*"):
            return pos
        pattern = _BLOCK_COMMENT if following == "*" else _LINE
        if pattern is _LINE and self.is_last_line(pos):
            pattern = _TO_BRACKET  # or nothing would close the value
        return self.match(pattern, pos).end()
