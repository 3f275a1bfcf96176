"""What stands between values: white space, comments, and what means nothing."""

from __future__ import annotations

import re

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind

__all__ = ["SPACE", "TAG", "THOUGHTS", "Between"]

SPACE = re.compile(r"\s*+")
_LINE = re.compile(r"[^\n]*+")
_TO_BRACKET = re.compile(r"[^}\]]*+")
_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+(?:\*/)?+")
THOUGHTS = frozenset({"think", "thinking", "thought", "thoughts", "reasoning"})
TAG = re.compile(r"<(/?)([a-z]{0,10}+)>?+")


class Between:
    """Consumes it."""

    def __init__(self, window: Window, guesses: ChangeLog) -> None:
        self._window = window
        self._guess = guesses.add

    def next_char(self) -> str:
        """Consumes white space and comments; the character after them, `""` at the end."""
        window = self._window
        char = window.text[window.pos : window.pos + 1]
        if "0" <= char <= "~" or char in ('"', ","):
            return char
        while True:
            match = SPACE.match(window.text, window.pos)
            window.pos = match.end()  # type: ignore[union-attr]  # it always matches
            char = window.char(window.pos)
            if char not in ("/", "#"):
                return char
            end = self.comment_end(window.pos, char)
            if end == window.pos:
                return char
            self._guess(Kind.COMMENT)
            window.pos = end

    def comment_end(self, pos: int, char: str) -> int:
        """Where the comment ends that begins there with this character, if one does."""
        window = self._window
        following = window.char(pos + 1) if char == "/" else "/"
        if following not in ("/", "*"):
            return pos
        pattern = _COMMENT if following == "*" else _LINE
        if pattern is _LINE and window.is_last_line(pos):
            pattern = _TO_BRACKET  # or nothing would end the value
        return window.look(pattern, pos).end()

    def skip(self, kind: Kind, what: re.Pattern[str]) -> None:
        """Consumes what means nothing here, however much of it there is, as one guess."""
        end = self._window.look(what, self._window.pos).end()
        self._guess(kind)
        self._window.pos = end

    def is_end_of_block(self, char: str) -> bool:
        """Whether a fence or the end of thoughts stands where a value should go on."""
        window = self._window
        if char == "`":
            return window.char(window.pos + 1) == "`" and window.char(window.pos + 2) == "`"
        if char == "<":
            match = window.look(TAG, window.pos)
            return match[1] == "/" and match[2] in THOUGHTS
        return False
