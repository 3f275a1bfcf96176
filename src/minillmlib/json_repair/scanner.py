"""A text that holds JSON somewhere: what stands around the values, and where they begin."""

from __future__ import annotations

import re

from minillmlib.json_repair.brackets import is_key_after_bracket
from minillmlib.json_repair.buffer import MoreTextNeeded, Window
from minillmlib.json_repair.changes import MOST_CHANGES, ChangeLog
from minillmlib.json_repair.changes import JsonChangeKind as Kind
from minillmlib.json_repair.parse_stack import Candidate, Container
from minillmlib.json_repair.reader import ValueReader
from minillmlib.json_repair.trivia import TAG, THOUGHTS
from minillmlib.json_repair.valid import WORTH_TRYING, ValidValues

__all__ = ["Scanner"]

_WORD = re.compile(r"[\w+-]*+")
_FENCE = re.compile(r"`++")
_END_OF_THOUGHTS = re.compile(rf"</(?:{'|'.join(sorted(THOUGHTS))})>")
_BETWEEN = " \t\r\n,;\ufeff"
_QUOTE_CLASS = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab"
# Prose, and what begins with a bracket, if the first or last group but the prose is there: surely
# an object; perhaps one; surely an array; perhaps one, with a number,
# an address, words or a word that lacks its first quote.
_OUTSIDE = re.compile(
    rf"((?:[^{{\[`<]++|<(?![a-z/]|\Z))*+)"
    rf"(?:\{{\s*+(?:([}}{{,{_QUOTE_CLASS}\\/#])|[\w$-]++[\w$ -]*+[\"']?+\s*+([:=])?+)?+"
    rf"|\[\s*+(?:([\]\[{{(,{_QUOTE_CLASS}\\/#.+-])|([0-9])|[\w$-]++"
    rf"(?::(?:/(?:/[^\s,\[\]{{}}{_QUOTE_CLASS}]*+\s*+(,|\](?!\())?+)?+)?+"  # an address
    rf"|[\w$ -]*+\s*+(?:([,\]])|\"(,)?+)?+)?+)?+)?+"
)
_SURE = frozenset({2, 4})


class Scanner:
    """Reads a text piece by piece and keeps the values it holds, as far as they have come.

    Attributes:
        candidates: The objects and arrays of the text, the last perhaps still growing.
        guesses: What was guessed so far.
        prose: The text before the first candidate.
        fenced: The last whole code block of it, and where that begins.
        growing: What is open of the last candidate.
    """

    def __init__(self, most_guesses: int = MOST_CHANGES) -> None:
        self.candidates: list[Candidate] = []
        self.prose: list[str] = []
        self.fenced: tuple[str, int] | None = None
        self._fence_at = 0
        self._proses_before_fence = 0
        self._window = Window()
        self.guesses = ChangeLog(self._window, most_guesses)
        self._guess = self.guesses.add
        self._valid_values = ValidValues(self._window)
        self._reader = ValueReader(self._window, self.guesses, self._valid_values)
        self.growing = self._reader.growing
        self._is_at_end = False
        self._is_fenced = False
        self._is_listed = False
        self._is_in_prose = False
        self._is_thinking = False

    def feed(self, piece: str) -> None:
        """Takes the next piece of the text in. O(piece), taken over all pieces."""
        if self._window.hold(piece):
            self.catch_up()

    def catch_up(self) -> None:
        """Reads what was fed, as far as it can be decided."""
        if self._window.catch_up():
            self._run()

    def finish(self, piece: str) -> None:
        """Takes the last piece in, and closes what is open."""
        self._window.end(piece)
        self._run()

    def _run(self) -> None:
        reader = self._reader
        try:
            while not self._is_at_end:
                if reader.step is None:
                    self._outside()
                    continue
                while reader.step is not None:
                    reader.step()
                self._end_candidate(is_complete=reader.is_complete)
        except MoreTextNeeded:
            pass

    # Outside of any value.

    def _outside(self) -> None:
        window = self._window
        match = _OUTSIDE.match(window.text, window.pos)
        assert match is not None
        end = match.end(1)
        if end > window.pos:
            self._pass_prose(end)
        char = window.char(end)
        if char == "":
            self._is_at_end = True
        elif char == "`":
            self._pass_backticks()
        elif char == "<":
            self._pass_tag()
        else:
            self._begin_or_pass(char, match)

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
        if self._is_fenced:
            self._fence_at, self._proses_before_fence = window.place(window.pos), len(self.prose)
        elif not self.candidates:
            self.fenced = "".join(self.prose[self._proses_before_fence :]), self._fence_at

    def _pass_tag(self) -> None:
        window = self._window
        match = window.look(TAG, window.pos)
        if match[2] not in THOUGHTS or not match[0].endswith(">"):
            self._pass_prose(window.pos + 1)
        elif match[1]:
            self.candidates.clear()
            self.guesses.changes.clear()
            self.prose.clear()
            self.fenced = None
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

    def _begin_or_pass(self, char: str, match: re.Match[str]) -> None:
        window, end = self._window, match.end()
        is_sure = match.lastindex in _SURE
        is_truncated = end == len(window.text)
        if is_truncated and not window.is_whole:
            raise MoreTextNeeded
        if self._is_in_prose:
            is_bracketed_word = not is_sure and window.text[end - 1] == "]"
            begins = match.lastindex != 1 and not is_bracketed_word
        else:
            begins = match.lastindex != 1 or is_truncated
        if not begins:
            self._pass_prose(window.pos + 1)
            return
        start = window.before + window.pos
        is_long = len(window.text) - window.pos > WORTH_TRYING
        valid = self._valid() if is_long and window.is_whole else None
        candidate = Candidate(
            self._reader.begin(char) if valid is None else valid,
            start,
            is_fenced=self._is_fenced,
            is_listed=self._is_listed,
            is_weak=char == "[" and not is_sure,
        )
        self.candidates.append(candidate)
        self._is_in_prose, self._is_listed = False, True
        if valid is not None:
            self._end_candidate(is_complete=True)

    def _valid(self) -> Container | None:
        """The value that begins here, consumed, if it is JSON and does not go on."""
        window, found = self._window, self._valid_values.next()
        if found is None or is_key_after_bracket(window, found[1] - 1):
            return None
        window.pos = found[1]
        return found[0]  # type: ignore[no-any-return]  # it began with a bracket

    def _end_candidate(self, *, is_complete: bool) -> None:
        candidate = self.candidates[-1]
        candidate.is_complete = is_complete
        candidate.end = self._window.before + self._window.pos
