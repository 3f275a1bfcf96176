"""What was guessed when a text was repaired."""

from enum import StrEnum
from typing import Any

import msgspec

from minillmlib.json_repair.buffer import Window

__all__ = ["MOST_CHANGES", "ChangeLog", "JsonChange", "JsonChangeKind", "RepairResult"]

MOST_CHANGES = 1000


class JsonChangeKind(StrEnum):
    """What was not JSON, in words."""

    SURROUNDINGS = "text around the value was ignored"
    THOUGHTS = "thoughts were ignored"
    FENCE = "the fence of a code block was ignored"
    OTHER_VALUES = "other values in the text were not taken"
    COMMENT = "a comment was ignored"
    JUNK = "something that means nothing here was ignored"
    MISSING_COMMA = "a comma was missing"
    EXTRA_COMMA = "a comma was too many"
    MISSING_COLON = "a colon was missing, or was another sign"
    MISSING_BRACKET = "a closing bracket was missing"
    WRONG_BRACKET = "a bracket was of the wrong kind or too many"
    OTHER_QUOTES = "the quotes were not double quotes"
    MISSING_QUOTE = "a closing quote was missing"
    INNER_QUOTE = "a quote inside a string was not escaped"
    BARE_KEY = "a key had no quotes"
    BARE_STRING = "a string had no quotes"
    OTHER_LITERAL = "a literal was not written as JSON does"
    NOT_A_NUMBER = "a number that JSON cannot express became null"
    ODD_NUMBER = "a number was not written as JSON does"
    CONTROL_CHARACTER = "a control character in a string was not escaped"
    ODD_ESCAPE = "an escape was not one of JSON's"
    LONE_SURROGATE = "half a surrogate pair became U+FFFD"
    JOINED = "strings were concatenated"
    REPEATED_KEY = "a key came again, and its last value counts"
    MISSING_VALUE = "a value was missing and became null"
    CUT_KEY = "a key was cut off and left out"
    CUT_LITERAL = "a literal was cut off and completed"
    CUT_VALUE = "the text ended within a value"


class JsonChange(msgspec.Struct, frozen=True, kw_only=True):
    """One guess.

    Attributes:
        position: Where, as an index into the text.
        kind: What was guessed; as a `str`, a sentence.
    """

    position: int
    kind: JsonChangeKind


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """A value found in a text, and what had to be guessed for it.

    Attributes:
        value: The value.
        changes: The guesses in the order of the text, none if it was JSON; the first thousand.
        complete: Whether the value came to its end. False if the text ended before it did.
        candidates: Every object or array that the text holds outside of each other, in order;
            `value` is one of them.
    """

    value: Any
    changes: tuple[JsonChange, ...] = ()
    complete: bool = True
    candidates: tuple[Any, ...] = ()


class ChangeLog:
    """The guesses so far, the first thousand unless fewer are wanted.

    Attributes:
        changes: The place and kind of each, nearly in the order of the text.
        surrogates: Where halves of surrogate pairs stood as characters.
    """

    def __init__(self, window: Window, most: int) -> None:
        self._most = most
        self.changes: list[tuple[int, JsonChangeKind]] = []
        self.surrogates = window.surrogates
        self._window = window

    @property
    def room(self) -> int:
        """How many more are kept."""
        return self._most - len(self.changes)

    def add(self, kind: JsonChangeKind, pos: int | None = None) -> bool:
        """A guess at this index of the window, or at its next character. Whether it was kept."""
        if len(self.changes) < self._most:
            window = self._window
            self.changes.append((window.before + (window.pos if pos is None else pos), kind))
            return True
        return False
