"""The open containers of a value, which is built while its text comes."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, TypeAlias

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.buffer import InputBuffer
from minillmlib.json_repair.changes import JsonChangeKind as Kind

Container: TypeAlias = "dict[str, Any] | list[Any]"

MAX_DEPTH = 512
# Places in a container: before an element or key, after a value, before the value of a key, before
# its colon, within a string.
INSIDE, AFTER, VALUE, COLON, STRING = range(5)

# Group 1: the colon of a key. Group 2: the brace after a string without a colon.
_OPEN_STRING = r'"[^"\\\n]*+'
_STRING_AND_BRACE = rf'{_OPEN_STRING}(?:"\s*+(\}})?+)?+'
_KEY = rf'{_OPEN_STRING}(?:"\s*+(?:(:)|{_STRING_AND_BRACE})?+)?+'
_BRACKET_AND_KEY = re.compile(rf"[}}\])]\s*+(?:,\s*+(?:{_KEY})?+)?+")


class ParseStack:
    """The open containers, the innermost last, and the string that is being read."""

    def __init__(self) -> None:
        self.containers: list[Any] = []  # `is_in_object` tells dicts and lists apart
        self.closers = ""
        self.is_in_object = False  # whether the innermost container is one
        self.key = ""  # for the next value of an object
        self.place = INSIDE  # of the next token
        self.comma_at = -1  # position of the comma just before it, or -1
        self.repeated_key: str | None = None  # of an outermost object
        self.string_parts: list[str] = []
        self._slot: tuple[Any, Any] = (None, None)  # container and key or index of the string

    def open(self, container: Container, closer: str) -> None:
        """Add a new container to the innermost one and enter it."""
        if len(self.containers) >= MAX_DEPTH:
            raise JsonRepairError(f"the JSON is nested more than {MAX_DEPTH} levels deep")
        if self.containers:
            self.add_value(container)
        self.enter(container, closer)
        self.comma_at = -1

    def enter(self, container: Container, closer: str) -> None:
        """Make a container the innermost one."""
        self.containers.append(container)
        self.closers += closer
        self.is_in_object = type(container) is dict
        self.place = INSIDE

    def close(self) -> None:
        self.containers.pop()
        self.closers = self.closers[:-1]
        self.is_in_object = bool(self.containers) and type(self.containers[-1]) is dict

    def set_key(self, key: str) -> bool:
        """Set the key of the next value; return whether the object has it already."""
        self.key = key
        self.comma_at = -1
        if key not in self.containers[-1]:
            return False
        if len(self.containers) == 1:
            self.repeated_key = key
        return True

    def add_value(self, value: Any) -> None:
        """Add a finished value to the innermost container."""
        top = self.containers[-1]
        if type(top) is dict:
            top[self.key] = value
        else:
            top.append(value)

    def start_string(self) -> None:
        """Add a string that grows."""
        self.add_value("")
        self._slot = (self.containers[-1], self.key if self.is_in_object else -1)
        self.string_parts = []

    def refresh_string(self, *, is_stripped: bool = True) -> None:
        """Store the known text of the string, without an end that may be stripped later."""
        if self.string_parts:
            text = "".join(self.string_parts)
            self.string_parts = [text]
            container, slot = self._slot
            container[slot] = text.rstrip().removesuffix(",").rstrip() if is_stripped else text

    def finish_string(self, *, is_stripped: bool = False) -> None:
        """Store the string; if stripped, without a comma and white space at its end."""
        self.refresh_string(is_stripped=is_stripped)
        self.string_parts = []

    def path(self) -> list[tuple[Container, Any]]:
        """Return the open containers, each with the key or index of what grows in it, or None."""
        slots = [_slot_of(inner, outer) for outer, inner in pairwise(self.containers)]
        last = self._slot[1] if self.place == STRING else None
        return list(zip(self.containers, [*slots, last], strict=False))


def _slot_of(inner: Container, outer: Container) -> Any:
    if isinstance(outer, list):
        return -1
    last = next(reversed(outer))
    if outer[last] is inner:
        return last
    return next(key for key in outer if outer[key] is inner)  # the key was repeated


def close_bracket(
    char: str, buffer: InputBuffer, pos: int, containers: list[Any], closers: str
) -> tuple[int, Kind | None]:
    """Return how many containers stay open after the closing bracket there, and the change."""
    inner = len(closers) - 1
    if closers[-1] == char:
        object_continues = char == "}" and not inner and _is_before_key(buffer, pos)
        return (1, Kind.WRONG_BRACKET) if object_continues else (inner, None)
    if char not in closers:
        following = buffer.char_at(buffer.skip_space(pos + 1))
        closes_nothing = char == ")" or (following != "" and following in ',"')
        return inner + closes_nothing, Kind.WRONG_BRACKET
    is_for_inner = char == "}" and inner == 1 and type(containers[0]) is dict
    if is_for_inner and _is_before_key(buffer, pos):
        return inner, Kind.WRONG_BRACKET
    return closers.rindex(char), Kind.MISSING_BRACKET


def _is_before_key(buffer: InputBuffer, pos: int) -> bool:
    """Whether a comma and another key follow the bracket there, so that the object continues."""
    return buffer.match(_BRACKET_AND_KEY, pos).lastindex is not None
