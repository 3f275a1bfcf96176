"""One value, from its opening bracket to its end.

A table of states and an explicit stack instead of recursion. Each step consumes something, opens or
closes a container, or changes the state; what a step looks at beyond that is bounded by the next
few quotes or by the end of a token, so that the whole is linear. A step that needs text which has
not come raises `MoreTextNeeded` before it changes anything, and is made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.bare import end_of_bare
from minillmlib.json_repair.between import SPACE, Between
from minillmlib.json_repair.brackets import meaning_of
from minillmlib.json_repair.changes import Guesses
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.clean import (
    CLEAN_ITEM,
    CLEAN_MEMBER,
    JUNK_BEFORE_KEY,
    KEY_ONLY,
    PLAIN_ITEM,
    PLAIN_VALUE,
    TRIPLE,
)
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

# Where in a container the next token is.
INSIDE, AFTER, VALUE = range(3)  # before an element or key, after a value, before a key's value

_WHITE = " \n\t\r"
_BEGINNINGS = frozenset("\"'{[(-_$\u201c\u201d\u201e\u2018\u2019\u00ab")  # of values and keys
_match_space = SPACE.match
_QUOTE_AND_COLON = re.compile(r"[\"']?+\s*+(:)?+")
_BARE_KEY = re.compile(r"[^:=,{}\[\]\"'\n\u201c\u2018]*+\s*+")
_COLON = re.compile(r":|=>?+")
_COMMAS = re.compile(r"[,\s]++")
_JUNK = re.compile(r".[^\w\s,{}\[\]()$\"'`\u201c-\u201e\u2018\u2019\u00ab\\/#<-]*+", re.DOTALL)
_JUNK_FOR_KEY = re.compile(r".[:={\[\s]*+", re.DOTALL)
_JUNK_FOR_VALUE = re.compile(r"[:=;\s\ufeff\u200b\u180e]++")
_QUOTED_AND_COMMA = r"""(?:"[^"\\\n]*+(?:"\s*+(,)?+)?+|'[^'\\\n]*+(?:'\s*+(,)?+)?+)"""
_match_object = re.compile(
    r"""\{(?:[^\s"'0-9.-]|\s*+"[^"\\\n]*+"\s*+[^\s,])"""
).match  # surely no set
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
        self._guesses = guesses
        self._guess = guesses.add
        self._valid_values = valid_values
        between = Between(window, guesses)
        self._next_char = between.next_char
        self._skip = between.skip
        self._comment_end = between.comment_end
        self._is_end_of_block = between.is_end_of_block
        self._strings = StringReader(window, self.growing, guesses)
        self._place = INSIDE
        self._comma_at = -1

    # Containers.

    def begin(self, char: str) -> Container:
        """Begins the value that this bracket opens."""
        self.is_complete = False
        window = self.window
        if char == "[":
            self.growing.begin([], "]")
            window.pos += 1
            self._comma_at = -1
            self._go_on(INSIDE)
        else:
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
        self._go_on(INSIDE)

    def _abandon(self) -> None:
        """Ends the value where its text ends."""
        self._guess(Kind.CUT_VALUE)
        while self.growing.open:
            self.growing.end()
        self.step = None

    # From token to token.

    def _go_on(self, place: int) -> None:
        self._place = place
        self.step = self._tokens

    def _tokens(self) -> None:  # noqa: C901, PLR0912, PLR0915 - a call costs as much as a token may
        """Consumes the tokens that need little thought, and then one that needs more."""
        window, growing, guess = self.window, self.growing, self._guess
        text, pos, before = window.text, window.pos, window.before
        containers, closers = growing.open, growing.closers
        top, is_object = containers[-1], growing.is_in_object
        place, comma_at = self._place, self._comma_at
        may_be_valid = self._valid_values.may_come
        is_telling = self._guesses.room > 0
        try:
            while True:
                char = text[pos]
                if char in "}])" and place != VALUE:
                    depth = len(closers) - 1
                    if closers[-1] != char or not depth:
                        depth, kind = meaning_of(char, window, pos, containers, closers)
                        if kind and is_telling:
                            is_telling = guess(kind, pos)
                    del containers[depth:]
                    closers = closers[:depth]
                    pos += 1
                    if comma_at >= 0:
                        if is_telling:
                            is_telling = guess(Kind.EXTRA_COMMA, comma_at - before)
                        comma_at = -1
                    if not depth:
                        break
                    top, place = containers[-1], AFTER
                    is_object = type(top) is dict
                    continue
                if place == AFTER:
                    if char == ",":
                        comma_at = before + pos
                        pos += 1
                        place = INSIDE
                        continue
                    if char in _BEGINNINGS or char.isalnum():
                        if is_telling:
                            is_telling = guess(Kind.MISSING_COMMA, pos)
                        place = INSIDE
                if char in _WHITE:
                    pos = _match_space(text, pos).end()  # type: ignore[union-attr]  # it always matches
                    continue
                if char in "/#":
                    end = self._comment_end(pos, char)
                    if end == pos:
                        break
                    if is_telling:
                        is_telling = guess(Kind.COMMENT, pos)
                    pos = end
                    continue
                if place == AFTER:
                    break
                if place == INSIDE and is_object:
                    if char in "{[(":
                        if not top or char == "(":
                            match = JUNK_BEFORE_KEY.match(text, pos)
                            if not match:
                                break
                            if is_telling:
                                is_telling = guess(Kind.JUNK, pos)
                            pos = match.end()
                            continue
                        if char == "{" and closers[-2:-1] == "]":
                            del containers[-1]
                            closers = closers[:-1]
                        elif char == "[" and type(last := next(reversed(top.values()))) is list:
                            containers.append(last)
                            closers += "]"
                            pos += 1
                        else:
                            break
                        if is_telling:
                            is_telling = guess(Kind.WRONG_BRACKET, pos)
                        top, is_object = containers[-1], False
                        continue
                    if match := CLEAN_MEMBER.match(text, pos):
                        key = self._key_of(match)
                        if not match.lastgroup:
                            pos, place, comma_at = match.end(), VALUE, -1
                            continue
                        top[key] = self._scalar_of(match)
                    elif match := KEY_ONLY.match(text, pos):
                        self._key_of(match)
                        pos, place, comma_at = match.end(), AFTER, -1
                        if is_telling:
                            is_telling = guess(Kind.JUNK, pos)
                        continue
                    else:
                        break
                elif char in "{[":
                    is_worth_trying = may_be_valid and len(text) - pos > _WORTH_TRYING
                    if is_worth_trying or len(closers) == MOST_DEPTH:
                        break
                    container: Container
                    if char == "[":
                        container = []
                        closers += "]"
                    elif _match_object(text, pos):
                        container = {}
                        closers += "}"
                    else:
                        break
                    if is_object:
                        top[growing.key] = container
                    else:
                        top.append(container)
                    containers.append(container)
                    top, is_object = container, char == "{"
                    place, comma_at = INSIDE, -1
                    pos += 1
                    continue
                elif char in "\"'" and text[pos + 1] == char == text[pos + 2]:
                    match = TRIPLE.match(text, pos)
                    if not match:
                        break
                    if is_object:
                        top[growing.key] = self._scalar_of(match)
                    else:
                        top.append(self._scalar_of(match))
                    pos, place, comma_at = match.end(), AFTER, -1
                    continue
                elif closers[-1] == "]" and (match := CLEAN_ITEM.match(text, pos)):
                    top.append(self._scalar_of(match))
                elif match := (PLAIN_VALUE if is_object else PLAIN_ITEM).match(text, pos):
                    if match.lastindex == 1:
                        if is_telling:
                            is_telling = guess(Kind.JUNK, pos)
                        if is_object:
                            top[growing.key] = None
                    elif is_object:
                        top[growing.key] = self._scalar_of(match)
                    else:
                        top.append(self._scalar_of(match))
                    pos, place, comma_at = match.end(), AFTER, -1
                    continue
                else:
                    break
                pos = match.end()
                comma_at = -1
                if text[pos - 1] == ",":
                    comma_at = before + pos - 1
                elif text[pos] == '"':
                    if is_telling:
                        is_telling = guess(Kind.MISSING_COMMA, pos)
                else:
                    place = AFTER
        except IndexError:
            pass  # where the text ends
        finally:
            window.pos = pos
            growing.closers, growing.is_in_object = closers, is_object
            self._place, self._comma_at = place, comma_at
        if containers:
            self._odd_token()
        else:
            self.is_complete = True
            self.step = None

    def _key_of(self, match: re.Match[str]) -> str:
        """The key in one of the first three groups: in double quotes, in single quotes, in none."""
        key: str | None = match[1]
        group = 1
        if key is None:
            group, kind = (2, Kind.OTHER_QUOTES) if match[3] is None else (3, Kind.BARE_KEY)
            key = match[group]
            self._guess(kind, match.start(group) - (group == 2))
        self.growing.key = key
        if key in self.growing.open[-1]:
            self._tell_repeated_key(key, match.start(group) - (group < 3))
        return key

    def _scalar_of(self, match: re.Match[str]) -> Any:
        """The value in the last group, whose name says what it is."""
        name = match.lastgroup or ""
        text: str = match[name]
        if name == "integer":
            return int(text)
        if name in ("bare", "words"):
            value, kind = scalar_of(text)
            if kind is not None:
                self._guess(kind, match.start(name))
            return value
        quote = match.string[match.start(name) - 1]
        if name != "double":
            self._guess(Kind.OTHER_QUOTES, match.start(name) - (1 if name == "single" else 3))
        if quote in text:
            self._strings.tell_inner_quotes(quote, *match.span(name))
        return decoded(text) if "\\" in text else text

    def _odd_token(self) -> None:
        window, place = self.window, self._place
        start = window.pos
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

    def _take_key(self, key: str) -> None:
        growing = self.growing
        growing.key = key
        self._comma_at = -1
        if key in growing.open[-1]:
            self._tell_repeated_key(key, self.window.pos)

    def _tell_repeated_key(self, key: str, pos: int) -> None:
        growing = self.growing
        if len(growing.open) == 1:
            growing.repeated = key
        self._guess(Kind.REPEATED_KEY, pos)

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
            self._guess(Kind.JUNK)
            self._go_on(AFTER)
        else:
            self._guess(Kind.MISSING_COLON)
            self._go_on(VALUE)

    # Values.

    def _value_at(self, char: str) -> None:
        window = self.window
        if char and char in "{[(":
            is_long = len(window.text) - window.pos > _WORTH_TRYING
            if char != "(" and is_long and (found := self._valid_values.next()):
                self.growing.put(found[0])
                window.pos = found[1]
                self._go_on(AFTER)
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
