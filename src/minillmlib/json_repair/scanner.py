"""Finds the values in a text and reads them, token by token.

A table of states. Each step consumes something, opens or closes a container, or changes the state,
and looks ahead to the next few quotes or the end of a token at most, so that the whole is linear.
A step that needs more text raises `NeedMoreInput` before it changes anything, and is repeated.
"""

from __future__ import annotations

import re

from minillmlib.json_repair.buffer import LOOK_BEHIND, SPACE, SPACES, InputBuffer, NeedMoreInput
from minillmlib.json_repair.changes import MAX_CHANGES, ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.fast_path import FastPath
from minillmlib.json_repair.parse_stack import (
    AFTER,
    COLON,
    INSIDE,
    NEXT_OBJECT,
    STRING,
    VALUE,
    ParseStack,
    close_bracket,
    is_key_of_item,
)
from minillmlib.json_repair.quotes import (
    FLAT_LIST,
    LITERALS,
    WIDE_BRACKETS,
    Ending,
    is_last_string_at,
    opener_at,
)
from minillmlib.json_repair.scalars import complete_scalar, parse_scalar, unquoted_end
from minillmlib.json_repair.select import NO_RANKING, Candidate, rank
from minillmlib.json_repair.strings import StringReader, read_quoted_key

_WORD = re.compile(r"[\w+-]*+")
_FENCE = re.compile(r"`++")
_THOUGHTS = ("reasoning", "think", "thinking", "thought", "thoughts")
_TAG = re.compile(r"<(/?)([a-z]{0,10}+)>?+")
_END_OF_THOUGHTS = re.compile(rf"</(?:{'|'.join(_THOUGHTS)})>")
_SEPARATORS = " \t\r\n,;\ufeff"
_NO_COMMA = " \t\r\n}])"
_REST_CHARS = 100
# After a value and a comma: what looks like a key or an item of JSON around the value.
_REST = re.compile(
    r"""(?:"[^"\n]*+"|'[^'\n]*+'|-?[0-9][0-9.]*+|true|false|null)\s*+[:,}\]]"""
    r"""|[\w$-]++\s*+:[^{}\[\]]*+[}\]]"""
)
# Before a value: what looks like its key, and a member before it.
_KEY_BEFORE = re.compile(r"""[,{]\s*+"[^"\n]*+"\s*+:\s*+\Z""")
# At the beginning of a text or block, group 1: the value of a member.
_VALUE_START = r"""(["'{\[-]|[0-9]|[A-Za-z]++)"""
_QUOTED = r"""(?:"[^"\\\n]*+"?+|'[^'\\\n]*+'?+)"""
_MEMBER = re.compile(rf"\s*+(?:{_QUOTED}\s*+(?::\s*+{_VALUE_START}?+)?+)?+")
_ANY_QUOTE = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\uff02"
_BRACE, _BRACKET = r"[{\uff5b]", r"[\[\uff3b]"

# Prose, and the beginning of what may be a value. The last group shows how sure that is; if it is
# group 1, the prose, there is no value.
_PROSE = r"((?:[^{\[`<\uff5b\uff3b]++|<(?![a-z/]|\Z))*+)"  # group 1
_SURE_OBJECT = rf"([}}{{,{_ANY_QUOTE}\\/#])"  # group 2
_PERHAPS_OBJECT = r"[\w$-]++[\w$ -]*+[\"']?+\s*+([:=])?+"  # group 3
_SURE_ARRAY = rf"([\]\[{{\uff5b\uff3b(,{_ANY_QUOTE}\\/#.+-])"  # group 4
_ADDRESS = rf":(?:/(?:/[^\s,\[\]{{}}{_ANY_QUOTE}]*+\s*+(,|\](?!\())?+)?+)?+"  # group 6
_MORE_WORDS = r"[\w$ -]*+\s*+(?:([,\]])|\"(,)?+)?+"  # groups 7 and 8
_PERHAPS_ARRAY = rf"([0-9])|[\w$-]++(?:{_ADDRESS}|{_MORE_WORDS})?+"  # groups 5 to 8
_OUTSIDE = re.compile(
    rf"{_PROSE}(?:{_BRACE}{SPACES}(?:{_SURE_OBJECT}|{_PERHAPS_OBJECT})?+"
    rf"|{_BRACKET}{SPACES}(?:{_SURE_ARRAY}|{_PERHAPS_ARRAY})?+)?+"
)
_SURE_GROUPS = frozenset({2, 4})

_ITEM = r"""(?:"[^"\\\n]*+"?+|'[^'\\\n]*+'?+|[\w.+-]++)"""
_OPEN_PARENTHESIS = re.compile(r"\(\s*+")
# Group 1 is the end of the text or what follows the closing parenthesis.
_ITEM_IN_PARENTHESES = re.compile(rf"\(\s*+(?:{_ITEM}\s*+(?:\)\s*+([,}}\])]|\Z)?+)?+)?+")
_STRING_OF_SET = r"""(?:"[^"\\\n]*+(?:"\s*+(,)?+)?+|'[^'\\\n]*+(?:'\s*+(,)?+)?+)"""
_NUMBER_OF_SET = r"-?+(?:[0-9.]++\s*+(,|(?<=[0-9])\})?+)?+"
# A group is there if a comma follows the first item, or a brace a number.
_SET = re.compile(rf"{_BRACE}{SPACES}(?:{_STRING_OF_SET}|{_NUMBER_OF_SET})")
_CLOSERS = {"{": "}", "[": "]", "(": ")"}

_COLON = re.compile(r":|\uff1a|=>?+")
_COMMAS = re.compile(r"[,\s]++")
_QUOTE_AND_COLON = re.compile(r"[\"']?+\s*+(:)?+")
_UNQUOTED_KEY = re.compile(r"[^:=,{}\[\]\"'\n\u201c\u2018]*+\s*+")
_KEY_AND_VALUE = re.compile(r"([^\W\d][\w$-]*+):(?!//)\s*+(\S.*+)", re.DOTALL)
_WIDE_CLOSERS = "\uff5d\uff3d"
_JUNK = re.compile(
    rf".[^\w\s,{{}}\[\]()${_ANY_QUOTE}\uff5b\uff3b{_WIDE_CLOSERS}\\/#<-]*+", re.DOTALL
)
_JUNK_FOR_KEY = re.compile(r".[:={\[\s]*+", re.DOTALL)
_JUNK_FOR_VALUE = re.compile(r"[:=;\s\ufeff\u200b\u180e]++")
# Brackets in the place of a key.
_OPEN_BRACKETS = r"[{\[][:={\[\s]*+(?=\S)"
_REMARK = r"\([^:=,{}\[\]\"'\n\u201c\u2018]*+(?=[{}\[\],])"
_BRACKETS_FOR_KEY = re.compile(f"{_OPEN_BRACKETS}|{_REMARK}")


class ValueReader:
    """Reads values, one after the other, and builds them as their text comes."""

    def __init__(self, buffer: InputBuffer, log: ChangeLog) -> None:
        self.stack = ParseStack()
        self.is_complete = False  # whether the end of the last value was seen
        self._buffer = buffer
        self._record = log.add
        self._fast_path = FastPath(buffer, self.stack, log)
        self._strings = StringReader(buffer, self.stack, log)

    def open(self, bracket: str) -> None:
        self.is_complete = False
        buffer, stack = self._buffer, self.stack
        if bracket == "{" and buffer.match(_SET, buffer.pos).lastindex is None:
            stack.open({}, "}")
        else:
            stack.open([], _CLOSERS[bracket])
            if bracket != "[":
                self._record(Kind.WRONG_BRACKET)
        buffer.pos += 1

    def open_members(self) -> None:
        """Open an object without its brace."""
        self.is_complete = False
        self.stack.open({}, "}")

    def _abandon(self) -> None:
        """End the value where its text ends."""
        self._record(Kind.TRUNCATED_VALUE)
        self._close_all()

    def _close_all(self) -> None:
        while self.stack.containers:
            self.stack.close()

    def step(self) -> None:
        """Consume the common tokens that follow, and then one that is not common."""
        stack = self.stack
        if stack.place == STRING:
            ending = self._strings.read()
            stack.place = INSIDE if ending is Ending.MISSING_CLOSER else AFTER
            if ending is Ending.TRUNCATED:
                self._abandon()
            elif ending is Ending.CLOSED_BY_BRACKETS:
                self._close_all()
                self.is_complete = True
        elif stack.place == COLON:
            self._read_colon()
        else:
            self._fast_path.scan_common()
            if stack.containers:
                self._scan_rare()
            else:
                self.is_complete = True

    def _scan_rare(self) -> None:
        buffer, place = self._buffer, self.stack.place
        start = buffer.pos
        if place == VALUE and buffer.text[start : start + 1].isalnum():
            self._read_unquoted()
            return
        char = self._next_char()
        if buffer.pos != start:
            return  # it was a comment
        is_value = place != INSIDE or not self.stack.is_in_object
        if char in WIDE_BRACKETS and (is_value or char in _WIDE_CLOSERS):
            self._read_wide_bracket(WIDE_BRACKETS[char])
        elif place == AFTER:
            self._read_after_value(char)
        elif place == INSIDE and char == ",":
            self._skip(Kind.EXTRA_COMMA, _COMMAS)
        elif place == INSIDE and self.stack.is_in_object:
            self._read_key(char)
        else:
            self.stack.comma_at = -1
            self._read_value(char)

    def _read_wide_bracket(self, bracket: str) -> None:
        buffer, stack = self._buffer, self.stack
        if bracket in "{[" and stack.place == AFTER:
            self._record(Kind.MISSING_COMMA)
            stack.place = INSIDE
        elif bracket in "{[" or stack.place == VALUE:
            self._read_value(bracket)
        else:
            depth, _ = close_bracket(bracket, buffer, buffer.pos, stack.containers, stack.closers)
            self._record(Kind.WRONG_BRACKET)
            while len(stack.containers) > depth:
                stack.close()
            buffer.pos += 1
            stack.place = AFTER
            self.is_complete = not depth

    def _next_char(self) -> str:
        """Consume white space and comments, and return the next character, or `""` at the end."""
        buffer = self._buffer
        while True:
            buffer.pos = SPACE.match(buffer.text, buffer.pos).end()  # type: ignore[union-attr]  # always matches
            char = buffer.char_at(buffer.pos)
            kind, end = Kind.COMMENT, buffer.pos
            if char in ("/", "#"):
                end = buffer.comment_end(buffer.pos)
            elif char == "\\":
                kind, end = Kind.JUNK, buffer.skip_escaped_space(buffer.pos)
            if end == buffer.pos:
                return char
            self._record(kind)
            buffer.pos = end

    def _skip(self, kind: Kind, pattern: re.Pattern[str]) -> None:
        """Consume all that matches, as one change."""
        end = self._buffer.match(pattern, self._buffer.pos).end()
        self._record(kind)
        self._buffer.pos = end

    def _is_end_of_block(self, char: str) -> bool:
        """Whether a fence or the end of thoughts is there, where a value should continue."""
        buffer = self._buffer
        if char == "`":
            return buffer.char_at(buffer.pos + 1) == "`" and buffer.char_at(buffer.pos + 2) == "`"
        if char == "<":
            tag = buffer.match(_TAG, buffer.pos)
            return tag[1] == "/" and tag[2] in _THOUGHTS
        return False

    def _read_after_value(self, char: str) -> None:
        if char == "" or self._is_end_of_block(char):
            self._abandon()
        elif char == ":" and not self.stack.is_in_object:
            self._use_item_as_key()
        elif opener_at(self._buffer, self._buffer.pos):
            self._record(Kind.MISSING_COMMA)
            self.stack.place = INSIDE
        else:
            self._skip(Kind.JUNK, _JUNK)

    def _use_item_as_key(self) -> None:
        """Handle a colon in an array: the array should have ended, or an object started."""
        stack = self.stack
        items = stack.containers[-1]
        if not items or type(items[-1]) is not str:
            self._skip(Kind.JUNK, _JUNK)
            return
        self._record(Kind.MISSING_BRACKET)
        key = items.pop()
        if items and len(stack.containers) > 1 and type(stack.containers[-2]) is dict:
            stack.close()
        else:
            stack.open({}, "}")
        self._take_key(key, self._buffer.pos)

    def _take_key(self, key: str, end: int) -> None:
        if self.stack.set_key(key):
            self._record(Kind.REPEATED_KEY)
        self._buffer.pos = end
        self.stack.place = COLON

    def _read_key(self, char: str) -> None:
        buffer, pos = self._buffer, self._buffer.pos
        has_members = bool(self.stack.containers[-1])
        if char == "" or self._is_end_of_block(char):
            self._abandon()
        elif opener := opener_at(buffer, pos):
            self._read_quoted_key(opener)
        elif (char == "(" or (char in "{[" and not has_members)) and (
            brackets := _BRACKETS_FOR_KEY.match(buffer.text, pos)
        ):
            self._record(Kind.JUNK)
            buffer.pos = brackets.end()
        elif char in "{[" and has_members and self._leave_object(char):
            self._record(Kind.WRONG_BRACKET)
        elif char == "[" and buffer.match(FLAT_LIST, pos)[1]:
            self.stack.comma_at = -1
            self._skip(Kind.JUNK, FLAT_LIST)
            self.stack.place = AFTER
        else:
            self._read_unquoted_key()

    def _leave_object(self, char: str) -> bool:
        """Continue the array around this object, or its last member if that is an array."""
        stack = self.stack
        last, members = stack.last_member(), stack.containers[-1]
        if char == "[" and type(last) is list:
            stack.enter(last, "]")
            has_lists = bool(last) and type(last[0]) is list and type(last[-1]) is list
            if not has_lists:
                self._buffer.pos += 1  # its items are those of the array
            return True
        is_item = len(stack.containers) > 1 and type(stack.containers[-2]) is list
        key = self._buffer.match(NEXT_OBJECT, self._buffer.pos)[1] if char == "{" else None
        if is_key_of_item(key, last, members):
            stack.enter(last, "]")
            return True
        if char == "{" and is_item:
            stack.close()
            return True
        return False

    def _read_quoted_key(self, opener: str) -> None:
        buffer = self._buffer
        key = read_quoted_key(buffer, buffer.pos + len(opener), opener)
        if key is None:
            self._record(Kind.TRUNCATED_KEY)
            buffer.pos = len(buffer.text)
            return
        for pos in key.inner_quotes:
            self._record(Kind.INNER_QUOTE, pos)
        if not key.is_closed:
            self._record(Kind.MISSING_QUOTE)
        elif opener != '"':
            self._record(Kind.OTHER_QUOTES)
        self._take_key(key.text, key.end)

    def _read_unquoted_key(self) -> None:
        buffer = self._buffer
        match = buffer.match(_UNQUOTED_KEY, buffer.pos)
        key, end = match[0].strip(), match.end()
        char = buffer.char_at(end)
        if char == "":
            self._record(Kind.TRUNCATED_KEY)
            buffer.pos = end
        elif not key:
            self._skip(Kind.JUNK, _JUNK_FOR_KEY)
        elif char in ("'", '"') and buffer.match(_QUOTE_AND_COLON, end)[1]:
            self._record(Kind.MISSING_QUOTE)
            self._take_key(key, end + 1)
        elif char in (":", "=") or (
            char == '"' and key.isidentifier() and is_last_string_at(buffer, end)
        ):
            self._record(Kind.UNQUOTED_KEY)
            self._take_key(key, end)
        else:
            self._record(Kind.JUNK)
            buffer.pos = end

    def _read_colon(self) -> None:
        buffer = self._buffer
        char = self._next_char()
        if char in (":", "=", "\uff1a"):
            match = buffer.match(_COLON, buffer.pos)
            if match[0] != ":":
                self._record(Kind.MISSING_COLON)
            buffer.pos = match.end()
            self.stack.place = VALUE
        elif char == "":
            self._record(Kind.TRUNCATED_KEY)
            self._abandon()
        elif char in ",}])":
            self._take_lone_key()
        else:
            self._record(Kind.MISSING_COLON)
            self.stack.place = VALUE

    def _take_lone_key(self) -> None:
        """Ignore a key without a value, unless it is `"key: value"` or an item of a list before."""
        member, items = _KEY_AND_VALUE.fullmatch(self.stack.key), self.stack.last_member()
        if type(items) is list and items and type(items[-1]) is str:
            self._record(Kind.WRONG_BRACKET)
            self.stack.enter(items, "]")
            self.stack.add_value(self.stack.key)
        elif member:
            self._record(Kind.MISSING_QUOTE)
            self._take_key(member[1], self._buffer.pos)
            self.stack.add_value(member[2])
        else:
            self._record(Kind.JUNK)
        self.stack.place = AFTER

    def _read_value(self, char: str) -> None:
        buffer = self._buffer
        if char and char in "{[(":
            if char == "(" and buffer.match(_ITEM_IN_PARENTHESES, buffer.pos)[1] is not None:
                self._skip(Kind.WRONG_BRACKET, _OPEN_PARENTHESIS)
            else:
                self.open(char)
        elif not (char == "`" and self._is_end_of_block(char)) and (
            opener := opener_at(buffer, buffer.pos)
        ):
            self._strings.start(opener)
            self.stack.place = STRING
        elif char == "" or char in ",}])" or self._is_end_of_block(char):
            if self.stack.is_in_object:
                self._record(Kind.MISSING_VALUE)
                self.stack.add_value(None)
            self.stack.place = AFTER
        elif char in ":=;\ufeff\u200b\u180e":
            self._skip(Kind.JUNK, _JUNK_FOR_VALUE)
        else:
            self._read_unquoted()

    def _read_unquoted(self) -> None:
        """Read a number, a literal, or a string without quotes."""
        buffer, stack = self._buffer, self.stack
        end = unquoted_end(buffer, stack)
        token = buffer.text[buffer.pos : end].rstrip()
        stack.place = AFTER
        if not token.strip(".\u2026"):
            self._record(Kind.JUNK)
            if stack.is_in_object and token != "":
                stack.add_value(None)
            buffer.pos = max(end, buffer.pos + 1)
            return
        if token[-1] == '"' and token.count('"') % 2:
            self._record(Kind.MISSING_QUOTE)
            token = token[:-1].rstrip() or token
        parse = complete_scalar if end == len(buffer.text) else parse_scalar
        value, kind = parse(token)
        if kind is not None:
            self._record(kind)
        stack.add_value(value)
        buffer.pos = end


class Scanner:
    """Reads a text piece by piece and keeps the values it holds, as far as they have come."""

    def __init__(self, max_changes: int = MAX_CHANGES) -> None:
        self.candidates: list[Candidate] = []  # the last perhaps still growing
        self._ranking = NO_RANKING  # of all candidates but the last, as only that can change
        self.prose: list[str] = []  # before the first candidate
        self.last_block: tuple[str, int] | None = None  # whole, in the prose; its position
        self._block_start = (0, 0)  # position, and pieces of prose before it
        self.buffer = InputBuffer()
        self.log = ChangeLog(self.buffer, max_changes)
        self._record = self.log.add
        self._reader = ValueReader(self.buffer, self.log)
        self.stack = self._reader.stack
        self._is_at_end = False
        self._is_fenced = False
        self._is_listed = False
        self._is_in_prose = False
        self._is_thinking = False
        self._is_block_start = True
        # After a candidate: `""`, or a comma; None if other text follows.
        self._gap: str | None = None
        self._rest = ""  # the beginning of the text after that comma
        self._rest_start = 0

    def feed(self, piece: str) -> None:
        """Add the next piece of the text. O(piece), averaged over all pieces."""
        if self.buffer.add(piece):
            self.catch_up()

    def catch_up(self) -> None:
        """Read the text so far, as far as it can be decided."""
        if self.buffer.refill():
            self._run()

    def finish(self, piece: str) -> None:
        """Add the last piece and close what is open."""
        self.buffer.finish(piece)
        self._run()

    def best(self) -> Candidate | None:
        """Return the best candidate so far, if there is one."""
        return rank(self.candidates[-1], self._ranking)[0] if self.candidates else None

    def _run(self) -> None:
        reader = self._reader
        try:
            while not self._is_at_end:
                if not self.stack.containers:
                    self._scan_outside()
                    continue
                while self.stack.containers:
                    reader.step()
                candidate = self.candidates[-1]
                candidate.is_complete = reader.is_complete
                candidate.end = self.buffer.offset + self.buffer.pos
                self._gap = ""
        except NeedMoreInput:
            pass

    def _scan_outside(self) -> None:
        """Consume prose, a fence or a tag, or start a value."""
        buffer = self.buffer
        if self._is_block_start and self._start_members():
            return
        match = _OUTSIDE.match(buffer.text, buffer.pos)
        assert match is not None
        end = match.end(1)
        if end > buffer.pos:
            self._skip_prose(end)
        char = buffer.char_at(end)
        if char == "":
            self._end_gap()
            self._is_at_end = True
        elif char == "`":
            self._skip_backticks()
        elif char == "<":
            self._skip_tag()
        else:
            self._start_or_skip(char, match)

    def _skip_prose(self, end: int) -> None:
        buffer = self.buffer
        text = buffer.text[buffer.pos : end]
        if not self.candidates:
            self.prose.append(text)
        words = text.lstrip(_SEPARATORS)
        if self._gap is not None:
            self._read_gap(text, end)
        if words and not self._is_in_prose:
            self._is_in_prose = True
            self._is_listed = False
            self._record(Kind.SURROUNDINGS, end - len(words))
        buffer.pos = end

    def _read_gap(self, text: str, end: int) -> None:
        """Record the text after a candidate: brackets and a comma join it to the next."""
        rest = text if self._rest else text.lstrip(_NO_COMMA)
        if self._gap == "" and rest:
            self._gap = "," if rest[0] == "," else None
            rest = rest[1:].lstrip(_NO_COMMA)
        if self._gap == "," and rest and len(self._rest) < _REST_CHARS:
            if not self._rest:
                self._rest_start = end - len(rest) + self.buffer.offset
            self._rest = (self._rest + rest)[:_REST_CHARS]

    def _end_gap(self) -> bool:
        """Return whether the last candidate is joined to what follows."""
        is_joined = self._gap == "," and not self._rest
        if self._rest and _REST.match(self._rest):
            self.candidates[-1].is_part = True
            self._record(Kind.LOST_PART, self._rest_start - self.buffer.offset)
        self._gap, self._rest = None, ""
        return is_joined

    def _start_members(self) -> bool:
        """Start an object whose opening brace is missing, if members begin the text or block."""
        buffer = self.buffer
        if buffer.text.startswith(("{", "["), buffer.pos):
            self._is_block_start = False
            return False
        member = buffer.match(_MEMBER, buffer.pos)
        self._is_block_start = False
        start = member[1]
        if start is None or (start.isalpha() and start not in LITERALS):
            return False
        buffer.pos = buffer.skip_space(buffer.pos)
        position = buffer.offset + buffer.pos
        self._record(Kind.MISSING_BRACKET)
        self._reader.open_members()
        self._add_candidate(position, is_weak=False)
        return True

    def _skip_backticks(self) -> None:
        buffer = self.buffer
        fence = buffer.match(_FENCE, buffer.pos)
        if len(fence[0]) < 3:
            self._skip_prose(fence.end())
            return
        language = buffer.match(_WORD, fence.end())
        self._end_gap()
        self._record(Kind.FENCE)
        self._is_fenced = not self._is_fenced
        self._is_in_prose = self._is_listed = False
        buffer.pos = language.end() if self._is_fenced else fence.end()
        self._is_block_start = self._is_fenced
        if self._is_fenced:
            self._block_start = buffer.offset + buffer.pos, len(self.prose)
        elif not self.candidates:
            position, pieces = self._block_start
            self.last_block = "".join(self.prose[pieces:]), position

    def _skip_tag(self) -> None:
        buffer = self.buffer
        tag = buffer.match(_TAG, buffer.pos)
        if tag[2] not in _THOUGHTS or not tag[0].endswith(">"):
            self._skip_prose(buffer.pos + 1)
        elif tag[1]:  # the thoughts began before the text
            self._gap, self._rest = None, ""
            self.candidates.clear()
            self._ranking = NO_RANKING
            self.log.changes.clear()
            self.prose.clear()
            self.last_block = None
            self._end_thoughts(tag.end())
        elif self._is_thinking:
            buffer.pos = tag.end()
        elif end := _END_OF_THOUGHTS.search(buffer.text, tag.end()):
            self._end_thoughts(end.end())
        elif not buffer.is_ended:
            raise NeedMoreInput
        else:
            self._is_thinking = True  # to the end: there is nothing else in the text
            buffer.pos = tag.end()

    def _end_thoughts(self, end: int) -> None:
        self._end_gap()
        self._record(Kind.THOUGHTS)
        self._is_block_start = True
        self._is_fenced = self._is_in_prose = self._is_listed = False
        self.buffer.pos = end

    def _start_or_skip(self, char: str, match: re.Match[str]) -> None:
        buffer, end = self.buffer, match.end()
        is_sure = match.lastindex in _SURE_GROUPS
        is_wide = char > "\uff00"
        is_at_end = end == len(buffer.text)
        if is_at_end and not buffer.is_ended:
            raise NeedMoreInput
        is_prose = (match.lastindex == 1 and not is_at_end) or (is_wide and not is_sure)
        if self._is_in_prose and not is_wide:
            is_prose = match.lastindex == 1 or (not is_sure and buffer.text[end - 1] == "]")
        if is_prose:
            self._skip_prose(buffer.pos + 1)
            return
        start = buffer.offset + buffer.pos
        is_part = self._is_in_prose and self._is_after_key()
        if is_wide:
            self._record(Kind.WRONG_BRACKET)
            char = WIDE_BRACKETS[char]
        self._reader.open(char)
        self._add_candidate(start, is_weak=char == "[" and not is_sure)
        if is_part:
            self.candidates[-1].is_part = True
            self._record(Kind.LOST_PART, start - buffer.offset)

    def _is_after_key(self) -> bool:
        """Whether a comma, a key and a colon are before the next value."""
        buffer = self.buffer
        before = buffer.text[max(buffer.pos - LOOK_BEHIND, 0) : buffer.pos]
        return _KEY_BEFORE.search(before) is not None

    def _add_candidate(self, start: int, *, is_weak: bool) -> None:
        is_joined = self._gap == "," and self._end_gap()
        if self.candidates:
            self._ranking = rank(self.candidates[-1], self._ranking)
        candidate = Candidate(
            value=self.stack.containers[0],
            start=start,
            is_fenced=self._is_fenced,
            is_listed=self._is_listed or is_joined,
            is_joined=is_joined,
            is_weak=is_weak,
        )
        self.candidates.append(candidate)
        self._is_in_prose, self._is_listed = False, True
