"""The open containers of a value, which is built while its text comes."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.buffer import InputBuffer
from minillmlib.json_repair.changes import JsonChangeKind as Kind

Container: TypeAlias = "dict[str, Any] | list[Any]"

MAX_DEPTH = 512
# Places in a container: before an element or key, after a value, before the value of a key, before
# its colon, within a string.
INSIDE, AFTER, VALUE, COLON, STRING = range(5)

# Closing brackets: more than nine in a row end the outermost container.
_BRACKETS = r"(?:[}\])\uff5d\uff3d]\s*+){1,9}+"
# Group 1: the colon of a key. Group 2: the brace after a string without a colon.
_OPEN_STRING = r'"[^"\\\n]*+'
_STRING_AND_BRACE = rf'{_OPEN_STRING}(?:"\s*+(\}})?+)?+'
_KEY = rf'{_OPEN_STRING}(?:"\s*+(?:(:)|{_STRING_AND_BRACE})?+)?+'
# Group 3: the colon of a key in single quotes.
_SINGLE_KEY = r"'[^'\\\n]*+(?:'\s*+(:)?+)?+"
_BRACKET_AND_KEY = re.compile(rf"{_BRACKETS}(?:,\s*+(?:{_KEY}|{_SINGLE_KEY})?+)?+")
# After brackets and a comma, group 1: an object. Group 2: a flat array. Group 3: the bracket after
# strings, numbers and literals.
_FLAT_ITEM = r'(?:"[^"\\\n]*+"?+|[-+.\w]++)\s*+'
_ITEMS = rf"{_FLAT_ITEM}(?:,\s*+(?:{_FLAT_ITEM})?+)*+(\])?+"
_BRACKET_AND_ITEM = re.compile(
    rf"{_BRACKETS}(?:,\s*+(?:(\{{)|(?:\[\s*+(?=([^\s\[])?+))|{_ITEMS})?+)?+"
)
# Group 1 is the first key of an object.
_OBJECT = r"""(?:\{\s*+(?:["']([^"'\\\n]*+)["']?+)?+)?+"""
NEXT_OBJECT = re.compile(_OBJECT)
_BRACE_AND_OBJECT = re.compile(rf"[}}\uff5d]\s*+(?:,\s*+{_OBJECT})?+")
_ITEM_GROUPS: dict[type, int] = {dict: 1, list: 2}  # by the type of the last item so far
_FLAT_ITEMS = 3  # for any other type


OPENERS = {"}": "{", "]": "[", ")": "("}
_SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())
_PERHAPS_AFTER_STRING = f"{_SPACES},`{{}}[]()"


class StringEnd(NamedTuple):
    """The brackets after a string without a closing quote, and the whole text after it."""

    closers: str
    opens_object: bool
    tail: str


def split_end(text: str, closers: str) -> StringEnd:
    """Find the brackets at the end of a string that close open containers.

    The string itself does not open these. A comma and an opening brace may follow them.
    """
    kept = text.rstrip(_SPACES)
    opens_object = kept.endswith("{")
    kept = kept.removesuffix("{").rstrip(_SPACES).removesuffix(",")
    string = kept.rstrip(f"{_SPACES}}}])")
    found = "".join(kept[len(string) :].split())
    is_open = any(string.count(OPENERS[char]) > string.count(char) for char in found)
    if is_open or not closers[::-1].startswith(found):
        found = ""
    return StringEnd(found, opens_object, text[len(string) :])


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

    def last_member(self) -> Any:
        """Return the last member of the innermost container, which is an object; None if empty."""
        members = self.containers[-1]
        return members[next(reversed(members))] if members else None

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

    def refresh_string(self) -> None:
        """Store the known text of the string, without an end that may be stripped later."""
        if self.string_parts:
            text = "".join(self.string_parts)
            self.string_parts = [text]
            container, slot = self._slot
            container[slot] = text.rstrip(_PERHAPS_AFTER_STRING)

    def string_text(self) -> str:
        """Return the known text of the string."""
        return "".join(self.string_parts)

    def finish_string(self) -> None:
        if self.string_parts:
            self._store_string(self.string_text())
            self.string_parts = []

    def finish_unclosed_string(self, text: str) -> None:
        """Store this part of the string, without a comma and white space at its end."""
        self._store_string(text.rstrip().removesuffix(",").rstrip())
        self.string_parts = []

    def _store_string(self, text: str) -> None:
        container, slot = self._slot
        container[slot] = text

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
    depth, kind = inner, None
    if closers[-1] != char:
        if char in closers:
            if char == "}" and closers[-1] == "]" and _is_next_item(buffer, pos, containers):
                return inner + 1, Kind.WRONG_BRACKET
            depth, kind = closers.rindex(char), Kind.MISSING_BRACKET
        else:
            following = buffer.char_at(buffer.skip_space(pos + 1))
            closes_nothing = char == ")" or (following != "" and following in ',"')
            depth, kind = inner + closes_nothing, Kind.WRONG_BRACKET
    if depth or not _continues(buffer, pos, containers[0]):
        return depth, kind
    # If another bracket follows, it closes what is open inside, and this one nothing.
    is_last = buffer.char_at(buffer.skip_space(pos + 1)) == ","
    return (inner if inner and is_last else inner + 1), Kind.WRONG_BRACKET


def is_key_of_item(key: str | None, items: Any, outer: Any) -> bool:
    """Whether a key is one of the last of these items, but not of the object around them."""
    if key is None or type(items) is not list or not items or type(outer) is not dict:
        return False
    return type(items[-1]) is dict and key in items[-1] and key not in outer


def _is_next_item(buffer: InputBuffer, pos: int, containers: list[Any]) -> bool:
    key = buffer.match(_BRACE_AND_OBJECT, pos)[1]
    return is_key_of_item(key, containers[-1], containers[-2])


def _continues(buffer: InputBuffer, pos: int, outermost: Any) -> bool:
    """Whether brackets, a comma, and then a key or an item show that the container goes on."""
    if type(outermost) is dict:
        return buffer.match(_BRACKET_AND_KEY, pos).lastindex is not None
    group = buffer.match(_BRACKET_AND_ITEM, pos).lastindex
    if group is None or not outermost:
        return False
    return group == _ITEM_GROUPS.get(type(outermost[-1]), _FLAT_ITEMS)
