"""One value, from its opening bracket to its end: the tokens that need thought.

A table of states. Each step consumes something, opens or closes a container, or changes the state;
what a step looks at beyond that is bounded by the next few quotes or by the end of a token, so
that the whole is linear. A step that needs text which has not come raises `MoreTextNeeded` before
it changes anything, and is made again.
"""

from __future__ import annotations

import re
from itertools import islice

from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.fast_path import AFTER, INSIDE, VALUE, TokenReader
from minillmlib.json_repair.keys import quoted_key
from minillmlib.json_repair.quotes import FLAT_LIST, Ending, is_last_string_at, opener_at
from minillmlib.json_repair.scalars import completed, scalar_of
from minillmlib.json_repair.unquoted import end_of_bare
from minillmlib.json_repair.valid import WORTH_TRYING

__all__ = ["ValueReader"]

_QUOTE_AND_COLON = re.compile(r"[\"']?+\s*+(:)?+")
_BARE_KEY = re.compile(r"[^:=,{}\[\]\"'\n\u201c\u2018]*+\s*+")
_KEY_AND_VALUE = re.compile(r"([^\W\d][\w$-]*+):(?!//)\s*+(\S.*+)", re.DOTALL)
_PARENTHESIS = re.compile(r"\(\s*+")
_ONE_IN_PARENTHESES = re.compile(
    r"""\(\s*+(?:(?:"[^"\\\n]*+"?+|'[^'\\\n]*+'?+|[\w.+-]++)\s*+(?:\)\s*+([,}\])]|\Z)?+)?+)?+"""
)
_COLON = re.compile(r":|=>?+")
_COMMAS = re.compile(r"[,\s]++")
_JUNK = re.compile(r".[^\w\s,{}\[\]()$\"'`\u201c-\u201e\u2018\u2019\u00ab\\/#<-]*+", re.DOTALL)
_JUNK_FOR_KEY = re.compile(r".[:={\[\s]*+", re.DOTALL)
_JUNK_FOR_VALUE = re.compile(r"[:=;\s\ufeff\u200b\u180e]++")


class ValueReader(TokenReader):
    """Reads values, one after the other, and builds them as their text comes."""

    def _odd_token(self) -> None:
        window, place = self.window, self._place
        start = window.pos
        if place == VALUE and window.text[start : start + 1].isalnum():
            self._bare()
            return
        char = self._next_char()
        if window.pos != start:
            return  # it was a comment
        if place == AFTER:
            self._odd_after(char)
        elif place == INSIDE and char == ",":
            self._skip(Kind.EXTRA_COMMA, _COMMAS)
        elif place == INSIDE and self.growing.is_in_object:
            self._odd_member(char)
        else:
            self._comma_at = -1
            self._value_at(char)

    def _odd_after(self, char: str) -> None:
        """After a value within a container."""
        if char == "" or self._is_end_of_block(char):
            self._abandon()
        elif char == ":" and not self.growing.is_in_object:
            self._element_as_key()
        elif opener_at(self.window, self.window.pos):
            self._guess(Kind.MISSING_COMMA)
            self._place = INSIDE
        else:
            self._skip(Kind.JUNK, _JUNK)

    def _element_as_key(self) -> None:
        """In an array, a string and a colon: the array should have ended, or an object begun."""
        growing = self.growing
        items = growing.open[-1]
        if not items or type(items[-1]) is not str:
            self._skip(Kind.JUNK, _JUNK)
            return
        self._guess(Kind.MISSING_BRACKET)
        key = items.pop()
        if items and len(growing.open) > 1 and type(growing.open[-2]) is dict:
            growing.end()
        else:
            growing.begin({}, "}")
        self._take_key(key)
        self.step = self._colon

    # Keys.

    def _odd_member(self, char: str) -> None:
        """Before a key of an object."""
        if char == "" or self._is_end_of_block(char):
            self._abandon()
        elif opener := opener_at(self.window, self.window.pos):
            self._quoted_key(opener)
        elif self.growing.open[-1] and char in "{[" and self._is_without_key(char):
            self._guess(Kind.WRONG_BRACKET)
        elif char == "[" and self.window.look(FLAT_LIST, self.window.pos)[1]:
            self._comma_at = -1
            self._skip(Kind.JUNK, FLAT_LIST)
            self._go_on(AFTER)
        else:
            self._bare_key()

    def _is_without_key(self, char: str) -> bool:
        """Goes on in the array before this object, or in its last member if that is an array."""
        growing = self.growing
        members = growing.open[-1]
        if char == "{" and len(growing.open) > 1 and type(growing.open[-2]) is list:
            growing.end()
        elif char == "[" and type(last := next(reversed(members.values()))) is list:
            growing.go_on(last, "]")
            self.window.pos += 1
        else:
            return False
        self._go_on(INSIDE)
        return True

    def _quoted_key(self, opener: str) -> None:
        window = self.window
        key = quoted_key(window, window.pos + len(opener), opener)
        if key is None:
            self._guess(Kind.CUT_KEY)
            window.pos = len(window.text)
            return
        for place in islice(key.inner_quotes, self._guesses.room):
            self._guess(Kind.INNER_QUOTE, place)
        if not key.is_closed:
            self._guess(Kind.MISSING_QUOTE)
        elif opener != '"':
            self._guess(Kind.OTHER_QUOTES)
        self._take_key(key.text)
        window.pos = key.end
        self.step = self._colon

    def _bare_key(self) -> None:
        window = self.window
        match = window.look(_BARE_KEY, window.pos)
        char = window.char(match.end())
        key = match[0].strip()
        if char == "" and key:
            self._guess(Kind.CUT_KEY)
            window.pos = match.end()
        elif key and char in ("'", '"') and window.look(_QUOTE_AND_COLON, match.end())[1]:
            self._guess(Kind.MISSING_QUOTE)
            self._take_key(key)
            window.pos = match.end() + 1
            self.step = self._colon
        elif not key:
            self._skip(Kind.JUNK, _JUNK_FOR_KEY)
        elif char == '"' and key.isidentifier() and is_last_string_at(window, match.end()):
            self._guess(Kind.BARE_KEY)
            self._take_key(key)
            window.pos = match.end()
            self.step = self._colon
        elif char not in (":", "="):
            self._guess(Kind.JUNK)
            window.pos = match.end()
        else:
            self._guess(Kind.BARE_KEY)
            self._take_key(key)
            window.pos = match.end()
            self.step = self._colon

    def _colon(self) -> None:
        window = self.window
        char = self._next_char()
        if char in (":", "="):
            match = window.look(_COLON, window.pos)
            if match[0] != ":":
                self._guess(Kind.MISSING_COLON)
            window.pos = match.end()
            self._go_on(VALUE)
        elif char == "":
            self._guess(Kind.CUT_KEY)
            self._abandon()
        elif char in ",}])":
            self._key_alone()
        else:
            self._guess(Kind.MISSING_COLON)
            self._go_on(VALUE)

    def _key_alone(self) -> None:
        """A key without a value means nothing, but for `"key: value"`."""
        lost = _KEY_AND_VALUE.fullmatch(self.growing.key)
        if lost:
            self._guess(Kind.MISSING_QUOTE)
            self._take_key(lost[1])
            self.growing.put(lost[2])
        else:
            self._guess(Kind.JUNK)
        self._go_on(AFTER)

    # Values.

    def _value_at(self, char: str) -> None:
        window = self.window
        if char and char in "{[(":
            is_long = len(window.text) - window.pos > WORTH_TRYING
            if char != "(" and is_long and (found := self._valid_values.next()):
                self.growing.put(found[0])
                window.pos = found[1]
                self._go_on(AFTER)
            elif char == "(" and window.look(_ONE_IN_PARENTHESES, window.pos)[1] is not None:
                self._skip(Kind.WRONG_BRACKET, _PARENTHESIS)
            else:
                self._open(char)
        elif opener := opener_at(window, window.pos):
            self._strings.begin(opener)
            self.step = self._string
            self._string()
        elif char == "" or char in ",}])" or self._is_end_of_block(char):
            if self.growing.is_in_object:
                self._guess(Kind.MISSING_VALUE)
                self.growing.put(None)
            self._go_on(AFTER)
        elif char in ":=;\ufeff\u200b\u180e":
            self._skip(Kind.JUNK, _JUNK_FOR_VALUE)
        else:
            self._bare()

    def _bare(self) -> None:
        """A number, a literal, or a string without quotes."""
        window = self.window
        end = end_of_bare(window, self.growing)
        token = window.text[window.pos : end].rstrip()
        if not token.strip(".\u2026"):
            self._guess(Kind.JUNK)
            if self.growing.is_in_object and token != "":
                self.growing.put(None)
            window.pos = max(end, window.pos + 1)
            self._go_on(AFTER)
            return
        if token[-1] == '"' and token.count('"') % 2:
            self._guess(Kind.MISSING_QUOTE)
            token = token[:-1].rstrip() or token
        value, kind = (completed if end == len(window.text) else scalar_of)(token)
        if kind is not None:
            self._guess(kind)
        self.growing.put(value)
        window.pos = end
        self._go_on(AFTER)

    def _string(self) -> None:
        """Within a string: what there is of it is consumed at once."""
        ending = self._strings.read()
        if ending is Ending.CUT:
            self._abandon()
        else:
            self._go_on(INSIDE if ending is Ending.LOST else AFTER)
