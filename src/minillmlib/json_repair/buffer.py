"""Text that comes in pieces, and looking ahead in it.

A decision that needs text which has not come yet is put off: it raises `MoreTextNeeded` before
anything was changed, and is made again when there is more. So that this stays linear however
small the pieces are, long undecided text is not looked at again before it has grown by a quarter.
Nothing is scanned for a few characters that nobody asks for.
"""

from __future__ import annotations

import re

__all__ = ["MoreTextNeeded", "Window"]

_SHORT = 64
_PORTION = 128
_SURROGATE = re.compile("[\ud800-\udfff]")


class MoreTextNeeded(Exception):  # noqa: N818 - it is no error
    """A decision has to wait for the text that follows."""


class Window:
    """The part of a text that is not consumed yet.

    Attributes:
        text: That part, from `pos` on.
        pos: Where the next character to be consumed is.
        is_whole: Whether no more text will come.
        before: How much of the text was consumed before that part.
        surrogates: Where halves of surrogate pairs were replaced.
    """

    __slots__ = (
        "_held",
        "_held_chars",
        "_newline",
        "before",
        "is_whole",
        "pos",
        "surrogates",
        "text",
    )

    def __init__(self) -> None:
        self.text = ""
        self.pos = 0
        self.is_whole = False
        self.surrogates: list[int] = []
        self.before = 0
        self._held: list[str] = []
        self._held_chars = 0
        self._newline = -1

    def hold(self, piece: str) -> bool:
        """Takes a piece in. Says whether there is enough to go on scanning even if nobody looks."""
        self._held.append(piece)
        self._held_chars += len(piece)
        return self._held_chars >= _PORTION

    def catch_up(self) -> bool:
        """Takes in what was held back, if that is worth to go on scanning. Says whether it was."""
        rest = len(self.text) - self.pos
        if not self._held_chars or (rest > _SHORT and self._held_chars * 4 < rest):
            return False
        self._join()
        return True

    def end(self, piece: str) -> None:
        """Takes the last piece in."""
        self._held.append(piece)
        self._join()
        self.is_whole = True

    def _join(self) -> None:
        added = "".join(self._held)
        if not added.isascii() and _SURROGATE.search(added):
            start = self.before + len(self.text)
            self.surrogates += (start + half.start() for half in _SURROGATE.finditer(added))
            added = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", added)
        self.before += self.pos
        self.text = self.text[self.pos :] + added
        self.pos = 0
        self._newline = -1
        self._held.clear()
        self._held_chars = 0

    def place(self, pos: int) -> int:
        """The index in the whole text of an index in this part of it."""
        return self.before + pos

    def look(self, pattern: re.Pattern[str], pos: int) -> re.Match[str]:
        """What a pattern finds there that always matches, and that more text could only extend."""
        match = pattern.match(self.text, pos)
        assert match is not None
        if not self.is_whole and match.end() == len(self.text):
            raise MoreTextNeeded
        return match

    def is_last_line(self, pos: int) -> bool:
        """Whether no line follows the one there."""
        if self._newline < pos:
            self._newline = self.text.find("\n", pos)
            if self._newline < 0 and not self.is_whole:
                raise MoreTextNeeded
            self._newline %= len(self.text) + 1
        return self._newline == len(self.text)

    def char(self, pos: int) -> str:
        """The character there, or `""` at the end of the whole text."""
        try:
            return self.text[pos]
        except IndexError:
            if self.is_whole:
                return ""
        raise MoreTextNeeded
