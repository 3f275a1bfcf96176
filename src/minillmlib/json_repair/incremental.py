"""JSON values that can be looked at while their text comes."""

from __future__ import annotations

from typing import Any

import msgspec

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.api import PartialJson, repair
from minillmlib.json_repair.changes import RepairResult


class IncrementalJson(PartialJson):
    """The values in a text that comes in pieces, as snapshots that no later text changes.

    A text that begins with a quote may be one string, whatever follows: it waits for its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._string: list[str] | None = []
        self._is_blank = True

    def feed(self, piece: str) -> None:
        """Add the next piece. Raises `JsonRepairError` if the text nests too deeply."""
        if self._is_blank and (start := piece.lstrip()):
            self._is_blank = False
            if start[0] != '"':
                self._string = None
        if self._string is None:
            super().feed(piece)
        else:
            self._string.append(piece)

    def finish(self, piece: str = "") -> RepairResult:
        """Add the last piece and return the result. Raises `JsonRepairError` if there is none."""
        if self._string is None:
            return super().finish(piece)
        return repair("".join(self._string) + piece)

    def snapshot(self) -> Any:
        """Return the known part of the value, which no later text changes, or None.

        Snapshots share finished parts. O(unfinished parts: a string, and the number of elements
        of each open container and of an array at the end of an open object). Raises
        `JsonRepairError` if the text so far nests too deeply.
        """
        value = self.value
        path = self._scanner.stack.path()
        if not path or path[0][0] is not value:
            return value
        inner: Any = None
        for container, slot in reversed(path):
            copy: Any = container.copy()
            if inner is not None:
                copy[slot] = inner
            if type(copy) is dict and copy:
                last = next(reversed(copy))
                if last != slot and type(copy[last]) is list:
                    copy[last] = copy[last].copy()  # it may continue: `{"a": [1], [2]}`
            inner = copy
        return inner


class IncrementalObject(PartialJson):
    """The members of the one object that a text consists of.

    A member is finished when what follows shows its end, and then keeps its value. So a repeated
    key is an error, and so is a second object that would be the better one. Text that is not JSON
    is an error only if it is strict, and is repaired otherwise.

    Attributes:
        fields: The members so far.
        pending_key: The key of the member that is not finished, or None.
    """

    def __init__(self, *, is_strict: bool) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}
        self.pending_key: str | None = None
        self._pieces: list[str] = []
        self._is_strict = is_strict
        self._is_blank = True
        self._skipped = 0  # candidates before the first object with a member

    def feed(self, piece: str) -> None:
        """Add the next piece. Raises `JsonRepairError` for text that cannot be an object."""
        if self._is_blank and (start := piece.strip(" \t\r\n")):
            self._is_blank = False
            if self._is_strict and start[0] != "{":
                raise JsonRepairError(
                    f"the arguments are no JSON object, they begin with {start[:80]!r}"
                )
        if self._is_strict:
            self._pieces.append(piece)
        super().feed(piece)
        self._update()

    def finish_fields(self) -> dict[str, Any]:
        """Return all members at the end of the text; none for no text or, if lenient, for null."""
        if self._is_blank:
            return self.fields
        value = self.finish().value
        self._update()
        if self._is_strict:
            self._check_whole()
        elif value is None:
            return self.fields
        if not isinstance(value, dict):
            raise JsonRepairError(
                f"the arguments are not an object, but of the type {type(value).__name__}"
            )
        if self.fields and value is not self.fields:
            raise JsonRepairError("the arguments are more than one object")
        self.fields, self.pending_key = value, None
        return value

    def _update(self) -> None:
        self._scanner.catch_up()
        stack = self._scanner.stack
        if self._is_strict and (changes := self._scanner.log.changes):
            position, kind = min(changes)
            raise JsonRepairError(
                f"the arguments are not JSON: at character {position} "
                f"a repair would be needed ({kind})"
            )
        found = self._first_object()
        has_second = self._is_strict and len(self._scanner.candidates) > 1
        if has_second or (self.fields and found is not self.fields):
            raise JsonRepairError("the arguments are more than one object")
        if stack.repeated_key is not None:
            raise JsonRepairError(f"the argument {stack.repeated_key[:80]!r} is there twice")
        stack.refresh_string()
        path = stack.path()
        self.fields = found
        self.pending_key = path[0][1] if path and path[0][0] is found else None

    def _first_object(self) -> dict[str, Any]:
        """Return the first object with a member, or an empty one."""
        candidates = self._scanner.candidates
        while self._skipped < len(candidates):
            value = candidates[self._skipped].value
            if value and isinstance(value, dict):
                return value
            if self._skipped == len(candidates) - 1:
                break
            self._skipped += 1
        return {}

    def _check_whole(self) -> None:
        """Check for what the repair does not record, such as a byte order mark."""
        try:
            msgspec.json.decode("".join(self._pieces))
        except (ValueError, RecursionError) as error:
            raise JsonRepairError(f"the arguments are not JSON: {error}") from None
