"""One string, from its opening quote to its end."""

from __future__ import annotations

import re

from minillmlib.json_repair.changes import Guesses
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.escapes import next_part
from minillmlib.json_repair.growing import TAIL, Growing
from minillmlib.json_repair.quotes import (
    CLOSERS,
    INNER_QUOTES,
    RUNS,
    Ending,
    holds_raw_json,
    opener_at,
    quote_size,
    value_ending,
)
from minillmlib.json_repair.window import Window

__all__ = ["StringReader"]

_PLUS = re.compile(r"\s*+\+\s*+")


class StringReader:
    """Reads values that are strings, one after the other."""

    def __init__(self, window: Window, growing: Growing, guesses: Guesses) -> None:
        self._window = window
        self._growing = growing
        self._guess = guesses.add
        self._opener = ""
        self._is_raw = False
        self._has_controls = False

    def begin(self, opener: str) -> None:
        """Consumes the quote that opens the string."""
        window = self._window
        pos = window.pos + len(opener)
        self._is_raw = holds_raw_json(window, pos)
        if opener != '"':
            self._guess(Kind.OTHER_QUOTES)
        self._opener = opener
        self._has_controls = False
        window.pos = pos
        self._growing.begin_string()

    def read(self) -> Ending:
        """Consumes what there is of the string, up to its end."""
        window, growing = self._window, self._growing
        while True:
            self._read_text()
            if window.char(window.pos) == "":
                growing.end_string()
                return Ending.CUT
            size = quote_size(window, window.pos, self._opener)
            ending = self._ending(size)
            if ending is Ending.CONTENT:
                self._guess(Kind.INNER_QUOTE)
                quote = window.text[window.pos + size - 1]
                growing.add_text(quote, quote)
                window.pos += size
            elif ending is Ending.JOINS:
                self._join(size)
            else:
                self._end(ending, size)
                return ending

    def _read_text(self) -> None:
        """Consumes the text before the next quote that may be the end."""
        window, opener = self._window, self._opener
        run = RUNS[opener, self._has_controls]
        while part := next_part(window, window.pos, opener, run):
            text, end, kind = part
            if kind is Kind.INNER_QUOTE:
                self.tell_inner_quotes(opener, window.pos, end)
            elif kind is not None:
                self._guess(kind)
                if kind is Kind.CONTROL_CHARACTER:
                    self._has_controls = True
                    run = RUNS[opener, True]
            self._growing.add_text(text, window.text[max(window.pos, end - TAIL) : end])
            window.pos = end
            if window.text[end : end + 1] in CLOSERS[opener]:
                break

    def tell_inner_quotes(self, opener: str, start: int, end: int) -> None:
        """Tells each quote there that is not escaped."""
        for match in INNER_QUOTES[opener].finditer(self._window.text, start, end):
            if match[1]:
                self._guess(Kind.INNER_QUOTE, match.start())

    def _ending(self, size: int) -> Ending:
        window, growing = self._window, self._growing
        if len(self._opener) == 3:
            return Ending.CLOSES if size == 3 else Ending.CONTENT
        if self._is_raw and growing.tail.rstrip()[-1:] not in ("}", "]"):
            return Ending.CONTENT
        return value_ending(window, window.pos + size, growing)

    def _end(self, ending: Ending, size: int) -> None:
        if ending is Ending.LOST:
            self._guess(Kind.MISSING_QUOTE)
            self._growing.end_string(is_stripped=True)
        else:
            self._growing.end_string()
            self._window.pos += size

    def _join(self, size: int) -> None:
        window = self._window
        plus = window.look(_PLUS, window.pos + size)
        opener = opener_at(window, plus.end())
        self._guess(Kind.JOINED)
        self._opener, self._is_raw = opener, False
        window.pos = plus.end() + len(opener)
