"""One value, from its opening bracket to its end.

A table of states and an explicit stack instead of recursion. Each step consumes something, opens or
closes a container, or changes the state; what a step looks at beyond that is bounded by the next
few quotes or by the end of a token, so that the whole is linear. A step that needs text which has
not come raises `MoreTextNeeded` before it changes anything, and is made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.bare import end_of_bare
from minillmlib.json_repair.between import SPACE, Between
from minillmlib.json_repair.brackets import Closing, meaning_of
from minillmlib.json_repair.changes import Guesses
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.clean import CLEAN_ITEM, CLEAN_KEY, CLEAN_MEMBER
from minillmlib.json_repair.escapes import decoded
from minillmlib.json_repair.growing import Container, Growing
from minillmlib.json_repair.keys import quoted_key
from minillmlib.json_repair.quotes import Ending, opener_at
from minillmlib.json_repair.scalars import completed, scalar_of
from minillmlib.json_repair.strings import StringReader
from minillmlib.json_repair.valid import ValidValues
from minillmlib.json_repair.window import Window

__all__ = ["ValueReader"]

MOST_DEPTH = 512
_CLOSERS = {"{": "}", "[": "]", "(": ")"}
_WORTH_TRYING = 500  # characters: a try in vain costs more than reading a short value

_QUOTE_AND_COLON = re.compile(r"[\"']?+\s*+(:)?+")
_BARE_KEY = re.compile(r"[^:=,{}\[\]\"'\n\u201c\u2018]*+\s*+")
_COLON = re.compile(r":|=>?+")
_COMMAS = re.compile(r"[,\s]++")
_JUNK = re.compile(r".[^\w\s,{}\[\]()$\"'`\u201c-\u201e\u2018\u2019\u00ab\\/#<-]*+", re.DOTALL)
_JUNK_FOR_KEY = re.compile(r".[:={\[\s]*+", re.DOTALL)
_JUNK_FOR_VALUE = re.compile(r"[:=;\s\ufeff\u200b\u180e]++")
_QUOTED_AND_COMMA = r"""(?:"[^"\\\n]*+(?:"\s*+(,)?+)?+|'[^'\\\n]*+(?:'\s*+(,)?+)?+)"""
_SET = re.compile(rf"\{{\s*+(?:{_QUOTED_AND_COMMA}|-?+(?:[0-9.]++\s*+(,)?+)?+)")


class ValueReader:
    """Reads values, one after the other, and builds them as their text comes.

    Attributes:
        window: The text.
        growing: What is open.
        step: What to do next; None outside of a value.
        is_complete: Whether the last value's end was seen.
    """

    def __init__(self, window: Window, guesses: Guesses, valid_values: ValidValues) -> None:
        self.window = window
        self.growing = Growing()
        self.step: Callable[[], None] | None = None
        self.is_complete = False
        self._guess = guesses.add
        self._valid_values = valid_values
        between = Between(window, guesses)
        self._next_char = between.next_char
        self._skip = between.skip
        self._is_end_of_block = between.is_end_of_block
        self._strings = StringReader(window, self.growing, guesses)
        self._comma_at = -1

    # Containers.

    def begin(self, char: str) -> Container:
        """Begins the value that this bracket opens."""
        self.is_complete = False
        self._open(char)
        value: Container = self.growing.open[0]
        return value

    def _open(self, char: str) -> None:
        window, growing = self.window, self.growing
        if len(growing.open) >= MOST_DEPTH:
            raise JsonRepairError(f"the JSON is nested more than {MOST_DEPTH} levels deep")
        if char == "{" and window.look(_SET, window.pos).lastindex is None:
            growing.begin({}, "}")
        else:
            growing.begin([], _CLOSERS[char])
            if char != "[":
                self._guess(Kind.WRONG_BRACKET)
        window.pos += 1
        self._comma_at = -1
        self.step = self._inside()

    def _inside(self) -> Callable[[], None]:
        return self._member if self.growing.is_in_object else self._element

    def _close(self, char: str) -> None:
        window, growing = self.window, self.growing
        closing = meaning_of(char, window, growing)
        if closing is Closing.NOTHING:
            self._guess(Kind.WRONG_BRACKET)
        else:
            if closing is not Closing.INNERMOST:
                is_wrong = closing is Closing.INNERMOST_IN_ITS_PLACE
                self._guess(Kind.WRONG_BRACKET if is_wrong else Kind.MISSING_BRACKET)
            while closing is Closing.OUTER and growing.closers[-1] != char:
                growing.end()
            self._pop()
        window.pos += 1
        if self._comma_at >= 0:
            self._guess(Kind.EXTRA_COMMA, self._comma_at - window.before)
            self._comma_at = -1
        if growing.open:
            self.step = self._after

    def _pop(self) -> None:
        self.growing.end()
        if not self.growing.open:
            self.is_complete = True
            self.step = None

    def _abandon(self) -> None:
        """Ends the value where its text ends."""
        self._guess(Kind.CUT_VALUE)
        while self.growing.open:
            self.growing.end()
        self.step = None

    # Between values.

    def _after(self) -> None:
        """After a value within a container."""
        char = self._next_char()
        if char == ",":
            self._comma_at = self.window.place(self.window.pos)
            self.window.pos += 1
            self.step = self._inside()
        elif char and char in "}])":
            self._close(char)
        elif char == "" or self._is_end_of_block(char):
            self._abandon()
        elif char == ":" and not self.growing.is_in_object:
            self._element_as_key()
        elif char.isalnum() or char in "{[(-_$" or opener_at(self.window, self.window.pos):
            self._guess(Kind.MISSING_COMMA)
            self.step = self._inside()
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

    def _element(self) -> None:
        """Before an element of an array, or its end."""
        window, items = self.window, self.growing.open[-1]
        text = window.text
        while match := CLEAN_ITEM.match(text, window.pos):
            items.append(self._clean_scalar(match, 1))
            if not self._pass_clean(match):
                return
        char = self._next_char()
        if char == ",":
            self._skip(Kind.EXTRA_COMMA, _COMMAS)
        elif char and char in "}])":
            self._close(char)
        else:
            self._comma_at = -1
            self._value_at(char)

    def _pass_clean(self, match: re.Match[str]) -> bool:
        """Consumes a value that needed no thought. Whether another one may follow at once."""
        window = self.window
        window.pos = end = match.end()
        if match.string[end - 1] == ",":
            self._comma_at = window.before + end - 1
            return True
        self._comma_at = -1
        char = match.string[end]
        if char == '"':
            self._guess(Kind.MISSING_COMMA)
            return True
        self.step = self._after
        self._close(char)
        return False

    # Keys.

    def _member(self) -> None:
        """Before a key of an object, or its end."""
        window, members = self.window, self.growing.open[-1]
        text = window.text
        while match := CLEAN_MEMBER.match(text, window.pos):
            key = match[1] if match[1] is not None else self._clean_key(match)
            if key in members:
                self._tell_repeated_key(key)
            value = match[4]
            is_plain = value is not None and '"' not in value and "\\" not in value
            members[key] = value if is_plain else self._clean_scalar(match, 4)
            if not self._pass_clean(match):
                return
        if match := CLEAN_KEY.match(text, window.pos):
            self._take_key(match[1] if match[1] is not None else self._clean_key(match))
            window.pos = match.end()
            self.step = self._value
            if text[match.end()] not in "/#":
                self._value_at(text[match.end()])
            return
        char = self._next_char()
        if char == ",":
            self._skip(Kind.EXTRA_COMMA, _COMMAS)
        elif char and char in "}])":
            self._close(char)
        elif char == "" or self._is_end_of_block(char):
            self._abandon()
        else:
            self._odd_member(char)

    def _odd_member(self, char: str) -> None:
        if opener := opener_at(self.window, self.window.pos):
            self._quoted_key(opener)
        elif self.growing.open[-1] and char in "{[" and self._is_without_key(char):
            self._guess(Kind.WRONG_BRACKET)
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
        self.step = self._element
        return True

    def _clean_key(self, match: re.Match[str]) -> str:
        if match[2] is not None:
            self._guess(Kind.OTHER_QUOTES, match.start(2) - 1)
            return match[2]
        self._guess(Kind.BARE_KEY, match.start(3))
        return match[3]

    def _clean_scalar(self, match: re.Match[str], first: int) -> Any:
        """The value in one of three groups: in double quotes, in single quotes, in none."""
        group = match.lastindex or first
        text = match[group]
        if group == first + 2:
            value, kind = scalar_of(text)
            if kind is not None:
                self._guess(kind, match.start(group))
            return value
        if group == first + 1:
            self._guess(Kind.OTHER_QUOTES, match.start(group) - 1)
        if ('"' if group == first else "'") in text:
            self._strings.tell_inner_quotes('"' if group == first else "'", *match.span(group))
        return decoded(text) if "\\" in text else text

    def _take_key(self, key: str) -> None:
        growing = self.growing
        growing.key = key
        self._comma_at = -1
        if key in growing.open[-1]:
            self._tell_repeated_key(key)

    def _tell_repeated_key(self, key: str) -> None:
        window, growing = self.window, self.growing
        if len(growing.open) == 1:
            growing.repeated = key
        self._guess(Kind.REPEATED_KEY, SPACE.match(window.text, window.pos).end())  # type: ignore[union-attr]  # it always matches

    def _quoted_key(self, opener: str) -> None:
        window = self.window
        key = quoted_key(window, window.pos + len(opener), opener)
        if key is None:
            self._guess(Kind.CUT_KEY)
            window.pos = len(window.text)
            return
        for place in key.inner_quotes:
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
            self.step = self._value
        elif char == "":
            self._guess(Kind.CUT_KEY)
            self._abandon()
        elif char in ",}])":
            self._guess(Kind.JUNK)
            self.step = self._after
        else:
            self._guess(Kind.MISSING_COLON)
            self.step = self._value

    # Values.

    def _value(self) -> None:
        self._value_at(self._next_char())

    def _value_at(self, char: str) -> None:
        window = self.window
        if char and char in "{[(":
            is_long = len(window.text) - window.pos > _WORTH_TRYING
            if char != "(" and is_long and (found := self._valid_values.next()):
                self.growing.put(found[0])
                window.pos = found[1]
                self.step = self._after
            else:
                self._open(char)
        elif opener := opener_at(window, window.pos):
            self._strings.begin(opener)
            self.step = self._string
        elif char == "" or char in ",}])" or self._is_end_of_block(char):
            if self.growing.is_in_object:
                self._guess(Kind.MISSING_VALUE)
                self.growing.put(None)
            self.step = self._after
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
            self.step = self._after
            return
        if token[-1] == '"' and token.count('"') % 2:
            self._guess(Kind.MISSING_QUOTE)
            token = token[:-1].rstrip() or token
        value, kind = (completed if end == len(window.text) else scalar_of)(token)
        if kind is not None:
            self._guess(kind)
        self.growing.put(value)
        window.pos = end
        self.step = self._after

    def _string(self) -> None:
        """Within a string: what there is of it is consumed at once."""
        ending = self._strings.read()
        if ending is Ending.CUT:
            self._abandon()
        else:
            self.step = self._inside() if ending is Ending.LOST else self._after
