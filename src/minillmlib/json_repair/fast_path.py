"""The tokens of a value that need little thought, and what is open around them.

An explicit stack instead of recursion, and one loop with local variables, since a call costs as
much as a token may. A token that needs text which has not come, or more thought, is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.brackets import meaning_of
from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import ChangeLog
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
from minillmlib.json_repair.parse_stack import Container, Growing
from minillmlib.json_repair.scalars import scalar_of
from minillmlib.json_repair.strings import StringReader
from minillmlib.json_repair.trivia import SPACE, Between
from minillmlib.json_repair.valid import WORTH_TRYING, ValidValues

__all__ = ["AFTER", "INSIDE", "VALUE", "TokenReader"]

MOST_DEPTH = 512
_CLOSERS = {"{": "}", "[": "]", "(": ")"}

# Where in a container the next token is.
INSIDE, AFTER, VALUE = range(3)  # before an element or key, after a value, before a key's value

_WHITE = " \n\t\r"
_BEGINNINGS = frozenset("\"'{[(-_$\u201c\u201d\u201e\u2018\u2019\u00ab")  # of values and keys
_match_space = SPACE.match
_QUOTED_AND_COMMA = r"""(?:"[^"\\\n]*+(?:"\s*+(,)?+)?+|'[^'\\\n]*+(?:'\s*+(,)?+)?+)"""
_match_object = re.compile(
    r"""\{(?:[^\s"'0-9.-]|\s*+"[^"\\\n]*+"\s*+[^\s,])"""
).match  # surely no set
_SET = re.compile(rf"\{{\s*+(?:{_QUOTED_AND_COMMA}|-?+(?:[0-9.]++\s*+(,|(?<=[0-9])\}})?+)?+)")


class TokenReader:
    """Reads values, one after the other, and builds them as their text comes.

    Attributes:
        window: The text.
        growing: What is open.
        step: What to do next; None outside of a value.
        is_complete: Whether the last value's end was seen.
    """

    def __init__(self, window: Window, guesses: ChangeLog, valid_values: ValidValues) -> None:
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
            value: Container = []
            self.growing.go_on(value, "]")
            window.pos += 1
            self._comma_at, self._place, self.step = -1, INSIDE, self._tokens
            return value
        self._open(char)
        return self.growing.open[0]  # type: ignore[no-any-return]  # it was opened just now

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
                        member: re.Match[str] | None = match
                        while member is not None:
                            key = member[1]
                            if key is None or key in top:
                                key = self._key_of(member)
                            else:
                                growing.key = key
                            pos = member.end()
                            if not member.lastgroup:
                                place = VALUE
                                break
                            top[key] = self._scalar_of(member)
                            member = CLEAN_MEMBER.match(text, pos) if text[pos - 1] == "," else None
                        if place == VALUE:
                            comma_at = -1
                            continue
                    elif match := KEY_ONLY.match(text, pos):
                        self._key_of(match)
                        pos, place, comma_at = match.end(), AFTER, -1
                        if is_telling:
                            is_telling = guess(Kind.JUNK, pos)
                        continue
                    else:
                        break
                elif char in "{[":
                    is_worth_trying = may_be_valid and len(text) - pos > WORTH_TRYING
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
                    item: re.Match[str] | None = match
                    while item is not None:
                        top.append(self._scalar_of(item))
                        pos = item.end()
                        item = CLEAN_ITEM.match(text, pos) if text[pos - 1] == "," else None
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
        name = match.lastgroup
        if name == "integer":
            return int(match["integer"])
        assert name is not None
        text: str = match[name]
        if name == "bare" or name == "words":  # noqa: PLR1714 - this is faster
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

    def _odd_token(self) -> None:
        """Consumes a token that needs more thought."""
        raise NotImplementedError
