"""The changes that a repair makes, and its result."""

from enum import StrEnum
from typing import Any

import msgspec

from minillmlib.json_repair.buffer import InputBuffer

MAX_CHANGES = 1000


class JsonChangeKind(StrEnum):
    """The kind of a change, in words."""

    SURROUNDINGS = "text around the value was ignored"
    THOUGHTS = "thoughts were ignored"
    FENCE = "the fence of a code block was ignored"
    OTHER_VALUES = "other values in the text were not used"
    LOST_PART = "a part of the JSON around the value could not be used"
    COMMENT = "a comment was ignored"
    JUNK = "something without a meaning here was ignored"
    MISSING_COMMA = "a comma was missing"
    EXTRA_COMMA = "there was an extra comma"
    MISSING_COLON = "a colon was missing, or was another character"
    MISSING_BRACKET = "a bracket was missing"
    WRONG_BRACKET = "there was a bracket of the wrong kind, or an extra one"
    OTHER_QUOTES = "the quotes were not double quotes"
    MISSING_QUOTE = "a closing quote was missing"
    INNER_QUOTE = "a quote inside a string was not escaped"
    UNQUOTED_KEY = "a key had no quotes"
    UNQUOTED_STRING = "a string had no quotes"
    OTHER_LITERAL = "a literal was not written as JSON does"
    NOT_A_NUMBER = "a number that JSON cannot express became null"
    NONSTANDARD_NUMBER = "a number was not written as JSON does"
    CONTROL_CHARACTER = "a control character in a string was not escaped"
    NONSTANDARD_ESCAPE = "an escape does not exist in JSON"
    LONE_SURROGATE = "half a surrogate pair became U+FFFD"
    CONCATENATION = "strings were concatenated"
    REPEATED_KEY = "a key was repeated, and its last value was used"
    MISSING_VALUE = "a value was missing and became null"
    TRUNCATED_KEY = "a key was truncated and omitted"
    TRUNCATED_LITERAL = "a literal was truncated and completed"
    TRUNCATED_VALUE = "the text ended within a value"


class JsonChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change.

    Attributes:
        position: The place, as an index into the text.
        kind: The kind; as a `str`, a sentence.
    """

    position: int
    kind: JsonChangeKind


class RepairResult(msgspec.Struct, frozen=True, kw_only=True):
    """A value found in a text, and the changes that were needed to read it.

    Attributes:
        value: The value.
        changes: The first thousand changes in the order of the text; none if it was JSON.
        complete: Whether the end of the value was seen, and none of its JSON is outside of it.
        candidates: Every object or array of the text that is not inside another, in order;
            `value` is one of them, or the list of those that commas join.
        alternatives: The other values that the text may mean, the likeliest first: the list of
            the candidates that stand in a row, and each whose end was seen, but no remarks.
    """

    value: Any
    changes: tuple[JsonChange, ...] = ()
    complete: bool = True
    candidates: tuple[Any, ...] = ()
    alternatives: tuple[Any, ...] = ()


class ChangeLog:
    """The changes so far, up to a limit, nearly in the order of the text."""

    def __init__(self, buffer: InputBuffer, max_changes: int) -> None:
        self._max_changes = max_changes
        self.changes: list[tuple[int, JsonChangeKind]] = []
        self._buffer = buffer

    @property
    def remaining(self) -> int:
        """How many more changes are kept."""
        return self._max_changes - len(self.changes)

    def add(self, kind: JsonChangeKind, pos: int | None = None) -> bool:
        """Record a change at an index of the buffer, by default the next; return if it is kept."""
        if len(self.changes) < self._max_changes:
            buffer = self._buffer
            self.changes.append((buffer.offset + (buffer.pos if pos is None else pos), kind))
            return True
        return False
