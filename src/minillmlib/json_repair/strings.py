"""One string, from its opening quote to its end."""

from __future__ import annotations

import re
from itertools import islice

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.escapes import ODD_RUNS, REPLACEMENT, decoded, odd_part
from minillmlib.json_repair.nested_quotes import InnerQuotes
from minillmlib.json_repair.parse_stack import Growing
from minillmlib.json_repair.quotes import (
    PLUS,
    Ending,
    holds_raw_json,
    opener_at,
    quote_size,
    value_ending,
)
from minillmlib.json_repair.string_patterns import CLOSERS, INNER_QUOTES, run_of

__all__ = ["StringReader"]

TAIL = 64
_NEXT = re.compile(r'"\s*+\+\s*+"')
# A run of strings that are joined, all but the first one whole.
_JOINED = re.compile(
    r"""(["']\s*+\+\s*+")(?=[^"])([^"\\\x00-\x1f]*+(?:"\s*+\+\s*+"(?=[^"])[^"\\\x00-\x1f]*+)*+)"""
)
_SPACE = re.compile(r"\s*+")


class StringReader:
    """Reads values that are strings, one after the other."""

    def __init__(self, window: Window, growing: Growing, guesses: ChangeLog) -> None:
        self._window = window
        self._growing = growing
        self._guesses = guesses
        self._guess = guesses.add
        self._opener = ""
        self._inner = InnerQuotes()
        self._is_raw = False
        self._is_told = False  # that control characters are in the string
        self._start = 0
        self._tail = ""

    def begin(self, opener: str) -> None:
        """Consumes the quote that opens the string."""
        window = self._window
        pos = window.pos + len(opener)
        self._is_raw = holds_raw_json(window, pos)
        if opener != '"':
            self._guess(Kind.OTHER_QUOTES)
        self._opener = opener
        self._is_told = False
        self._inner.begin(opener)
        self._tail = ""
        window.pos = pos
        self._growing.begin_string()

    def read(self) -> Ending:
        """Consumes what there is of the string, up to its end."""
        self._start = self._window.pos
        try:
            ending = Ending.CONTENT
            while ending is Ending.CONTENT or ending is Ending.JOINS:
                ending = self._read_part()
        finally:
            self._tail = self._last_text()
        return ending

    def _read_part(self) -> Ending:
        """Consumes the text before the next quote that may be the end, and the quote."""
        window = self._window
        run = run_of(self._opener, self._growing.is_in_object, self._is_raw, self._is_told)
        match = run.match(window.text, window.pos)
        assert match is not None
        if match[0]:
            if match.lastindex:
                self._tell_last_quote(match.start(1), 1)
            self._take(match[0], window.pos, is_inner=match.lastindex is not None)
        char = window.char(window.pos)
        if char == "":
            self._growing.end_string()
            return Ending.CUT
        if char not in CLOSERS[self._opener] and not self._is_escaped_quote(char):
            return self._odd_part(char)
        if not self._is_raw and self._opener in "\"'":
            joined = _JOINED.match(window.text, window.pos)
            if joined:
                self._take_joined(joined)
                return Ending.JOINS
        size = quote_size(window, window.pos, self._opener)
        ending = self._ending(size)
        if ending is Ending.CONTENT:
            self._guess(Kind.INNER_QUOTE)
            self._tell_last_quote(window.pos, size)
            self._inner.read(window.text, window.pos, window.pos + size, self._last_text())
            self._growing.parts.append(window.text[window.pos + size - 1])
            window.pos += size
        elif ending is Ending.JOINS:
            self._join(size)
        else:
            self._end(ending, size)
        return ending

    def _take(self, text: str, pos: int, *, is_inner: bool) -> None:
        end = pos + len(text)
        if is_inner or self._inner.closers:
            self._inner.read(self._window.text, pos, end, self._last_text())
        if is_inner:
            self.tell_inner_quotes(self._opener, pos, end)
        self._growing.parts.append(decoded(text) if "\\" in text else text)
        self._window.pos = end

    def _is_escaped_quote(self, char: str) -> bool:
        is_escape = char == "\\" and self._opener == '\\"'
        return is_escape and self._window.char(self._window.pos + 1) == '"'

    def _odd_part(self, char: str) -> Ending:
        window = self._window
        if char == "\\":
            for pattern, size, kind_of_all in ODD_RUNS:
                if found := pattern.match(window.text, window.pos):
                    self._take_escapes(found, size, kind_of_all)
                    return Ending.CONTENT
        text, end, kind = odd_part(window, window.pos, char)
        if kind is not None:
            self._guess(kind)
            self._is_told |= kind is Kind.CONTROL_CHARACTER
        self._growing.parts.append(text)
        window.pos = end
        return Ending.CONTENT

    def _take_escapes(self, found: re.Match[str], size: int, kind: Kind) -> None:
        for place in islice(range(found.start(), found.end(), size), self._guesses.room):
            self._guess(kind, place)
        is_lone = kind is Kind.LONE_SURROGATE
        text = REPLACEMENT * (len(found[0]) // size) if is_lone else found[0]
        self._growing.parts.append(text)
        self._window.pos = found.end()

    def tell_inner_quotes(self, opener: str, start: int, end: int) -> None:
        """Tells each quote there that is not escaped."""
        found = INNER_QUOTES[opener].finditer(self._window.text, start, end)
        quotes = (match.start() for match in found if match[1])
        for place in islice(quotes, self._guesses.room):
            self._guess(Kind.INNER_QUOTE, place)

    def _tell_last_quote(self, pos: int, size: int) -> None:
        text, after = self._window.text, pos + size
        before = self._tail[-2:] + text[max(self._start, pos - 2) : pos]
        self._inner.last(before[-2:], text[after : after + 1])

    def _last_text(self) -> str:
        """The last characters of the string, as they were written."""
        window = self._window
        new = window.text[max(self._start, window.pos - TAIL) : window.pos]
        return (self._tail + new)[-TAIL:]

    def _ending(self, size: int) -> Ending:
        window = self._window
        if len(self._opener) == 3:
            return Ending.CLOSES if size == 3 else Ending.CONTENT
        if self._is_raw and self._last_text().rstrip()[-1:] not in ("}", "]"):
            return Ending.CONTENT
        return value_ending(window, window.pos + size, self._growing, self._last_text, self._inner)

    def _end(self, ending: Ending, size: int) -> None:
        if ending is Ending.LOST:
            self._guess(Kind.MISSING_QUOTE)
            self._growing.end_string(is_stripped=True)
        else:
            self._growing.end_string()
            self._window.pos += size

    def _join(self, size: int) -> None:
        window = self._window
        plus = window.look(PLUS, window.look(_SPACE, window.pos + size).end())
        opener = opener_at(window, plus.end())
        self._guess(Kind.JOINED)
        if "/" in plus[0]:
            self._guess(Kind.COMMENT, plus.start() + plus[0].index("/"))
        self._opener, self._is_raw = opener, False
        self._inner.begin(opener)
        self._tail = self._last_text()
        window.pos = self._start = plus.end() + len(opener)

    def _take_joined(self, joined: re.Match[str]) -> None:
        window, texts = self._window, joined[2]
        self._guess(Kind.JOINED)
        if '"' in texts:
            places = _NEXT.finditer(window.text, *joined.span(2))
            for place in islice(places, self._guesses.room):
                self._guess(Kind.JOINED, place.start())
            texts = _NEXT.sub("", texts)
        self._growing.parts.append(texts)
        self._opener = '"'
        self._inner.begin('"')
        self._tail = (self._last_text() + texts)[-TAIL:]
        window.pos = self._start = joined.end()
