"""One pass over a text that should be JSON.

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
from minillmlib.json_repair.changes import MOST_CHANGES, JsonChange
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.growing import Candidate, Growing
from minillmlib.json_repair.quotes import (
    Ending,
    holds_raw_json,
    key_ending,
    opener_at,
    unclosed_key,
    value_ending,
)
from minillmlib.json_repair.scalars import completed, scalar_of
from minillmlib.json_repair.strings import next_part
from minillmlib.json_repair.window import MoreTextNeeded, Window

__all__ = ["MOST_DEPTH", "Scanner"]

MOST_DEPTH = 512

_NUMBER = r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]{1,2}+)?+"
_DOUBLE, _SINGLE = r'"([^"\\\x00-\x1f]*+)"', r"'([^'\\\x00-\x1f]*+)'"
_SCALAR = rf"(?:{_DOUBLE}|{_SINGLE}|({_NUMBER}|[Tt]rue|[Ff]alse|null|None))"
_KEY = rf"\s*+(?:{_DOUBLE}|{_SINGLE}|([A-Za-z_$][\w$-]*+))\s*+:\s*+"
_KEY_AHEAD = r"""\s*+(?:"[^"\\]*+"|'[^'\\]*+'|[\w$-]++)\s*+:"""
_STRING_AHEAD = r'\s*+"[^"\\]*+"\s*+[:,}\]]'
# What needs little thought. Each looks ahead as far as the slow way would, to decide the same.
_CLEAN_MEMBER = re.compile(rf"{_KEY}{_SCALAR}\s*+(?:(?=\}})|,(?={_KEY_AHEAD}))")
_CLEAN_KEY = re.compile(rf"{_KEY}(?=\S)")
_CLEAN_ITEM = re.compile(rf"\s*+{_SCALAR}\s*+(?:(?=\])|,(?={_STRING_AHEAD}|\s*+['0-9{{\[-]))")

_SPACE = re.compile(r"\s*+")
_LINE = re.compile(r"[^\n]*+")
_COMMENT = re.compile(r"/\*(?:[^*]++|\*(?!/))*+(?:\*/)?+")
_CLOSE_AND_KEY = re.compile(r'[}\])]\s*+(?:,\s*+(?:"[^"\\\n]*+(?:"\s*+(:)?+)?+)?+)?+')
_SIMPLE = re.compile(r"([-+.\w]*+)(\s*+)")
_KEY_AFTER_COMMA = re.compile(r",(\s*+)(?:[\w$-]++\s*+([:=])?+)?+")
_AFTER_COMMA = frozenset("\"'`\u201c\u2018}],{/#\\")
_COMMENT_AHEAD = re.compile(r"\s(?://|/\*|#)")
_WORD = re.compile(r"[\w+-]*+")
_BARE = re.compile(r"[^,}\])\n]*+")
_BARE_KEY = re.compile(r"[^:=,{}\[\]\"'\n\u201c\u2018]*+")
_COLON = re.compile(r":|=>?+")
_FENCE = re.compile(r"`++")
_PLUS = re.compile(r"\s*+\+\s*+")
_SET = re.compile(r'\{\s*+(?:"[^"\\\n]*+(?:"\s*+(,)?+)?+|-?+(?:[0-9.]++\s*+(,)?+)?+)')
_THOUGHTS = frozenset({"think", "thinking", "thought", "thoughts", "reasoning"})
_END_OF_THOUGHTS = re.compile(rf"</(?:{'|'.join(sorted(_THOUGHTS))})>")
_TAG = re.compile(r"<(/?)([a-z]{0,10}+)>?+")
_OUTSIDE = re.compile(r"[^{\[`<]*+")
_BETWEEN = " \t\r\n,;\ufeff"
_QUOTE_CLASS = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab"
_OBJECT_BEGINS = re.compile(
    rf"\{{\s*+(?:([}}{{{_QUOTE_CLASS}\\/#])|[\w$-]++[\w$ -]*+\s*+([:=])?+)?+"
)
_ARRAY_BEGINS = re.compile(
    rf"\[\s*+(?:([\]\[{{({_QUOTE_CLASS}\\/#.+-])|([0-9])|[\w$-]++[\w$ -]*+\s*+([,\]])?+)?+"
)


class Scanner:
    """Reads a text piece by piece and keeps the values it holds, as far as they have come.

    Attributes:
        candidates: The objects and arrays of the text, the last perhaps still growing.
        changes: What was guessed so far.
        prose: The text before the first candidate.
    """

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.changes: list[JsonChange] = []
        self.prose: list[str] = []
        self._window = Window()
        self._growing = Growing()
        self._step: Callable[[], None] | None = self._outside
        self._opener = ""
        self._is_raw = False
        self._is_doubled = False
        self._has_controls = False
        self._comma_at = -1
        self._is_fenced = False
        self._is_listed = False
        self._is_in_prose = False
        self._is_thinking = False

    def feed(self, piece: str) -> None:
        """Takes the next piece of the text in. O(piece), taken over all pieces."""
        if self._window.add(piece):
            self._run()

    def finish(self) -> None:
        """Says that the text is whole, and closes what is open."""
        self._window.end()
        self._run()

    @property
    def surrogates(self) -> list[int]:
        """Where the text holds halves of surrogate pairs as characters."""
        return self._window.surrogates

    def refresh(self) -> None:
        """Shows the string in the making, too, in the last candidate."""
        self._growing.refresh()

    def _run(self) -> None:
        try:
            while self._step is not None:
                self._step()
        except MoreTextNeeded:
            pass

    def _guess(self, kind: Kind, pos: int | None = None) -> None:
        if len(self.changes) < MOST_CHANGES:
            place = self._window.place(self._window.pos if pos is None else pos)
            self.changes.append(JsonChange(position=place, kind=kind))

    # Outside of any value.

    def _outside(self) -> None:
        window = self._window
        match = _OUTSIDE.match(window.text, window.pos)
        assert match is not None
        if match[0]:
            self._pass_prose(match.end())
            return
        char = window.char(window.pos)
        if char == "":
            self._step = None
        elif char == "`":
            self._pass_backticks()
        elif char == "<":
            self._pass_tag()
        else:
            self._begin_or_pass(char)

    def _pass_prose(self, end: int) -> None:
        window = self._window
        text = window.text[window.pos : end]
        if not self.candidates:
            self.prose.append(text)
        words = text.lstrip(_BETWEEN)
        if words and not self._is_in_prose:
            self._is_in_prose = True
            self._is_listed = False
            self._guess(Kind.SURROUNDINGS, end - len(words))
        window.pos = end

    def _pass_backticks(self) -> None:
        window = self._window
        match = window.look(_FENCE, window.pos)
        if len(match[0]) < 3:
            self._pass_prose(match.end())
            return
        word = window.look(_WORD, match.end())
        self._guess(Kind.FENCE)
        self._is_fenced = not self._is_fenced
        self._is_in_prose = self._is_listed = False
        window.pos = word.end() if self._is_fenced else match.end()

    def _pass_tag(self) -> None:
        window = self._window
        match = window.look(_TAG, window.pos)
        if match[2] not in _THOUGHTS or not match[0].endswith(">"):
            self._pass_prose(window.pos + 1)
        elif match[1]:
            self.candidates.clear()
            self.changes.clear()
            self.prose.clear()
            self._end_thoughts(match.end())
        elif self._is_thinking:
            window.pos = match.end()
        elif end := _END_OF_THOUGHTS.search(window.text, match.end()):
            self._end_thoughts(end.end())
        elif not window.is_whole:
            raise MoreTextNeeded
        else:
            self._is_thinking = True  # and never stops: what it holds is all there is
            window.pos = match.end()

    def _end_thoughts(self, end: int) -> None:
        self._guess(Kind.THOUGHTS)
        self._is_fenced = self._is_in_prose = self._is_listed = False
        self._window.pos = end

    def _begin_or_pass(self, char: str) -> None:
        window = self._window
        match = window.look(_OBJECT_BEGINS if char == "{" else _ARRAY_BEGINS, window.pos)
        is_sure = match.lastindex == 1
        is_cut = match.end() == len(window.text) and not self._is_in_prose
        is_bracketed_word = self._is_in_prose and not is_sure and match[0].endswith("]")
        if not (match.lastindex or is_cut) or is_bracketed_word:
            self._pass_prose(window.pos + 1)
            return
        start = window.place(window.pos)
        self._open(char)
        candidate = Candidate(self._growing.open[0], start)
        candidate.is_fenced, candidate.is_listed = self._is_fenced, self._is_listed
        candidate.is_weak = char == "[" and not is_sure
        self.candidates.append(candidate)
        self._is_in_prose, self._is_listed = False, True

    # Containers.

    def _open(self, char: str) -> None:
        window, growing = self._window, self._growing
        if len(growing.open) >= MOST_DEPTH:
            raise JsonRepairError(f"the JSON is nested more than {MOST_DEPTH} levels deep")
        if char == "{" and window.look(_SET, window.pos).lastindex is None:
            growing.begin({}, "}")
        else:
            growing.begin([], {"{": "}", "[": "]", "(": ")"}[char])
            if char != "[":
                self._guess(Kind.WRONG_BRACKET)
        window.pos += 1
        self._comma_at = -1
        self._step = self._inside()

    def _inside(self) -> Callable[[], None]:
        return self._member if self._growing.is_in_object else self._element

    def _close(self, char: str) -> None:
        window, growing = self._window, self._growing
        if growing.closers[-1] == char and not self._goes_on(char):
            self._pop()
        elif growing.closers[-1] == char or (char == ")" and not growing.awaits(char)):
            self._guess(Kind.WRONG_BRACKET)  # too many
        elif not growing.awaits(char) or self._belongs_to_inner(char):
            self._guess(Kind.WRONG_BRACKET)
            self._pop()
        else:
            self._guess(Kind.MISSING_BRACKET)
            while growing.closers[-1] != char:
                growing.end()
            self._pop()
        window.pos += 1
        if self._comma_at >= 0:
            self._guess(Kind.EXTRA_COMMA, self._comma_at - window.place(0))
            self._comma_at = -1
        if growing.open:
            self._step = self._after
        elif self.candidates[-1].is_complete:
            self.candidates[-1].end = window.place(window.pos)

    def _goes_on(self, char: str) -> bool:
        """Whether another key follows the bracket that should end it all."""
        return len(self._growing.open) == 1 and char == "}" and self._is_key_after_bracket()

    def _belongs_to_inner(self, char: str) -> bool:
        """Whether `}` was written for `]`: an outer object goes on after it."""
        growing = self._growing
        is_outer_object = len(growing.open) > 1 and type(growing.open[-2]) is dict
        is_last = growing.awaits(char) and len(growing.open) == 2
        return char == "}" and is_outer_object and is_last and self._is_key_after_bracket()

    def _is_key_after_bracket(self) -> bool:
        return self._window.look(_CLOSE_AND_KEY, self._window.pos)[1] is not None

    def _pop(self) -> None:
        self._growing.end()
        if not self._growing.open:
            self.candidates[-1].is_complete = True
            self._step = self._outside

    def _abandon(self) -> None:
        """Ends the value where its text ends."""
        self._guess(Kind.CUT_VALUE)
        while self._growing.open:
            self._growing.end()
        self.candidates[-1].end = self._window.place(self._window.pos)
        self._step = self._outside

    # Between values.

    def _next_char(self) -> str:
        """Consumes white space and comments; the character after them, `""` at the end."""
        window = self._window
        while True:
            match = _SPACE.match(window.text, window.pos)
            window.pos = match.end()  # type: ignore[union-attr]  # it always matches
            char = window.char(window.pos)
            if char not in ("/", "#") or not self._pass_comment(char):
                return char

    def _pass_comment(self, char: str) -> bool:
        window = self._window
        following = window.char(window.pos + 1) if char == "/" else "/"
        if following not in ("/", "*"):
            return False
        match = window.look(_LINE if following == "/" else _COMMENT, window.pos)
        self._guess(Kind.COMMENT)
        window.pos = match.end()
        return True

    def _pass_junk(self, chars: int = 1) -> None:
        self._guess(Kind.JUNK)
        self._window.pos += chars

    def _is_end_of_block(self, char: str) -> bool:
        """Whether a fence or the end of thoughts stands where a value should go on."""
        window = self._window
        if char == "`":
            return window.char(window.pos + 1) == "`" and window.char(window.pos + 2) == "`"
        if char == "<":
            match = window.look(_TAG, window.pos)
            return match[1] == "/" and match[2] in _THOUGHTS
        return False

    def _after(self) -> None:
        """After a value within a container."""
        char = self._next_char()
        if char == ",":
            self._comma_at = self._window.place(self._window.pos)
            self._window.pos += 1
            self._step = self._inside()
        elif char and char in "}])":
            self._close(char)
        elif char == "" or self._is_end_of_block(char):
            self._abandon()
        elif char.isalnum() or char in "{[(-_$" or opener_at(self._window, self._window.pos):
            self._guess(Kind.MISSING_COMMA)
            self._step = self._inside()
        else:
            self._pass_junk()

    def _element(self) -> None:
        """Before an element of an array, or its end."""
        window, put = self._window, self._growing.put
        while match := _CLEAN_ITEM.match(window.text, window.pos):
            put(match[1] if match[1] is not None else self._clean_scalar(match, 2))
            if not self._pass_clean(match):
                return
        char = self._next_char()
        if char == ",":
            self._pass_extra_comma()
        elif char and char in "}])":
            self._close(char)
        else:
            self._comma_at = -1
            self._value()

    def _pass_clean(self, match: re.Match[str]) -> bool:
        """Consumes a value that needed no thought. Whether another one may follow at once."""
        window = self._window
        window.pos = match.end()
        if window.text[match.end() - 1] != ",":
            self._comma_at = -1
            self._step = self._after
            return False
        self._comma_at = window.place(match.end() - 1)
        return True

    def _pass_extra_comma(self) -> None:
        self._guess(Kind.EXTRA_COMMA)
        self._window.pos += 1

    # Keys.

    def _member(self) -> None:
        """Before a key of an object, or its end."""
        window, growing = self._window, self._growing
        while match := _CLEAN_MEMBER.match(window.text, window.pos):
            self._take_key(match[1] if match[1] is not None else self._clean_key(match))
            growing.put(match[4] if match[4] is not None else self._clean_scalar(match, 5))
            if not self._pass_clean(match):
                return
        if match := _CLEAN_KEY.match(window.text, window.pos):
            self._take_key(match[1] if match[1] is not None else self._clean_key(match))
            window.pos = match.end()
            self._step = self._value
            return
        char = self._next_char()
        if char == ",":
            self._pass_extra_comma()
        elif char and char in "}])":
            self._close(char)
        elif char == "" or self._is_end_of_block(char):
            self._abandon()
        elif opener := opener_at(window, window.pos):
            self._quoted_key(opener)
        else:
            self._bare_key()

    def _clean_key(self, match: re.Match[str]) -> str:
        if match[2] is not None:
            self._guess(Kind.OTHER_QUOTES, match.start(2) - 1)
            return match[2]
        self._guess(Kind.BARE_KEY, match.start(3))
        return match[3]

    def _clean_scalar(self, match: re.Match[str], group: int) -> Any:
        """The value that stands in this group or the next one."""
        if match[group] is not None:
            self._guess(Kind.OTHER_QUOTES, match.start(group) - 1)
            return match[group]
        value, kind = scalar_of(match[group + 1])
        if kind is not None:
            self._guess(kind, match.start(group + 1))
        return value

    def _take_key(self, key: str) -> None:
        growing = self._growing
        growing.key = key
        if key in growing.open[-1]:
            window = self._window
            self._guess(Kind.REPEATED_KEY, _SPACE.match(window.text, window.pos).end())  # type: ignore[union-attr]  # it always matches
        self._comma_at = -1

    def _quoted_key(self, opener: str) -> None:
        """A key is read as a whole, so that one whose closing quote is missing can be found."""
        window = self._window
        size = len(opener)
        start = place = window.pos + size
        parts: list[str] = []
        inner: list[int] = []
        while True:
            while part := next_part(window, place, opener):
                parts.append(part[0])
                place = part[1]
            if window.char(place) == "":
                self._guess(Kind.CUT_KEY)
                window.pos = place
                return
            if key_ending(window, place + size):
                break
            if (key := unclosed_key("".join(parts[:1]))) is not None:
                self._guess(Kind.MISSING_QUOTE)
                self._take_key(key.strip())
                window.pos = start + len(key)
                self._step = self._colon
                return
            parts.append(window.text[place])
            inner.append(place)
            place += size
        for quote in inner:
            self._guess(Kind.INNER_QUOTE, quote)
        if opener != '"':
            self._guess(Kind.OTHER_QUOTES)
        self._take_key("".join(parts))
        window.pos = place + size
        self._step = self._colon

    def _bare_key(self) -> None:
        window = self._window
        match = window.look(_BARE_KEY, window.pos)
        char = window.char(match.end())
        key = match[0].strip()
        if char == "" and key:
            self._guess(Kind.CUT_KEY)
            window.pos = match.end()
        elif not key or char not in (":", "="):
            self._pass_junk(len(match[0]) or 1)
        else:
            self._guess(Kind.BARE_KEY)
            self._take_key(key)
            window.pos = match.end()
            self._step = self._colon

    def _colon(self) -> None:
        window = self._window
        char = self._next_char()
        if char in (":", "="):
            match = window.look(_COLON, window.pos)
            if match[0] != ":":
                self._guess(Kind.MISSING_COLON)
            window.pos = match.end()
            self._step = self._value
        elif char == "":
            self._guess(Kind.CUT_KEY)
            self._abandon()
        elif char in ",}])":
            self._guess(Kind.JUNK)
            self._step = self._after
        else:
            self._guess(Kind.MISSING_COLON)
            self._step = self._value

    # Values.

    def _value(self) -> None:
        window = self._window
        char = self._next_char()
        if char and char in "{[(":
            self._open(char)
        elif opener := opener_at(window, window.pos):
            self._begin_string(opener)
        elif char == "" or char in ",}])" or self._is_end_of_block(char):
            if self._growing.is_in_object:
                self._guess(Kind.MISSING_VALUE)
                self._growing.put(None)
            self._step = self._after
        elif char in ":=;":
            self._pass_junk()
        else:
            self._bare()

    def _bare(self) -> None:
        """A number, a literal, or a string without quotes."""
        window = self._window
        end = self._end_of_bare()
        token = window.text[window.pos : end].rstrip()
        if not token.strip(".\u2026"):
            self._guess(Kind.JUNK)
            if self._growing.is_in_object and token != "":
                self._growing.put(None)
            window.pos = max(end, window.pos + 1)
            self._step = self._after
            return
        if end == len(window.text):
            value, kind = completed(token)
        else:
            value, kind = scalar_of(token)
        if kind is not None:
            self._guess(kind)
        self._growing.put(value)
        window.pos = end
        self._step = self._after

    def _end_of_bare(self) -> int:
        window, growing = self._window, self._growing
        match = window.look(_SIMPLE, window.pos)
        if match[1] and self._ends_here(match):
            return match.end(1)
        place = window.pos
        while True:
            place = window.look(_BARE, place).end()
            char = window.char(place)
            if char in ("", "\n") or (char == "," and self._is_end_at_comma(place)):
                break
            if char != "," and growing.awaits(char):
                break
            place += 1
        comment = _COMMENT_AHEAD.search(window.text, window.pos, place)
        return comment.start() if comment else place

    def _ends_here(self, match: re.Match[str]) -> bool:
        char = self._window.char(match.end())
        if char == "" or char in "}])" or "\n" in match[2]:
            return True
        if char == ",":
            return self._is_end_at_comma(match.end())
        if not self._growing.is_in_object and match[2] and (char in "-+." or char.isdecimal()):
            return scalar_of(match[1])[1] is not Kind.BARE_STRING
        return char in "\"'{[#/" and (match[2] != "" or char == '"')

    def _is_end_at_comma(self, pos: int) -> bool:
        """In an object, a comma that no key follows belongs to the text: `1,000`."""
        if not self._growing.is_in_object:
            return True
        match = self._window.look(_KEY_AFTER_COMMA, pos)
        char = self._window.char(match.end(1))
        return match[2] is not None or char == "" or char in _AFTER_COMMA

    def _begin_string(self, opener: str) -> None:
        window = self._window
        pos = window.pos + len(opener)
        is_doubled = opener == '"' and window.char(pos) == '"' and window.char(pos + 1).isalnum()
        is_raw = not is_doubled and holds_raw_json(window, pos)
        if opener != '"' or is_doubled:
            self._guess(Kind.OTHER_QUOTES)
        self._opener, self._is_raw, self._is_doubled = opener, is_raw, is_doubled
        self._has_controls = False
        window.pos = pos + is_doubled
        self._growing.begin_string()
        self._step = self._string

    def _string(self) -> None:
        """Within a string: what there is of it is consumed at once."""
        window, growing = self._window, self._growing
        while part := next_part(window, window.pos, self._opener):
            text, end, kind = part
            if kind is not None and not (kind is Kind.CONTROL_CHARACTER and self._has_controls):
                self._guess(kind)
                self._has_controls |= kind is Kind.CONTROL_CHARACTER
            growing.add_text(text)
            window.pos = end
        if window.char(window.pos) == "":
            growing.end_string()
            self._abandon()
            return
        size = 2 if self._opener == '\\"' else 1
        ending = self._ending(size)
        if ending is Ending.CONTENT:
            self._guess(Kind.INNER_QUOTE)
            growing.add_text(window.text[window.pos + size - 1])
            window.pos += size
        elif ending is Ending.JOINS:
            self._join_strings(size)
        elif ending is Ending.LOST:
            self._guess(Kind.MISSING_QUOTE)
            growing.end_string(is_stripped=True)
            self._step = self._member
        else:
            self._close_string(size)

    def _close_string(self, size: int) -> None:
        if len(self._opener) == 3:
            size = 3
        self._growing.end_string()
        self._window.pos += size + self._is_doubled
        self._step = self._after

    def _ending(self, size: int) -> Ending:
        window, growing = self._window, self._growing
        place = window.pos + size
        if len(self._opener) == 3:
            is_end = window.char(place) == window.char(place + 1) == self._opener[0]
            return Ending.CLOSES if is_end else Ending.CONTENT
        if self._is_doubled:
            if window.char(place) != '"':
                return Ending.CONTENT
            place += 1
        if self._is_raw and growing.tail.rstrip()[-1:] not in ("}", "]"):
            return Ending.CONTENT
        return value_ending(window, place, growing)

    def _join_strings(self, size: int) -> None:
        window = self._window
        plus = window.look(_PLUS, window.pos + size)
        opener = opener_at(window, plus.end())
        self._guess(Kind.JOINED)
        self._opener, self._is_raw, self._is_doubled = opener, False, False
        window.pos = plus.end() + len(opener)
