"""Values that others look at while their text comes."""

from __future__ import annotations

from typing import Any

import msgspec

from minillmlib.errors import JsonRepairError
from minillmlib.json_repair.changes import RepairResult
from minillmlib.json_repair.repair import PartialJson, repair

__all__ = ["LiveFields", "LiveJson"]


class LiveJson(PartialJson):
    """The values in a text that comes in pieces, each as it was when it was looked at.

    A text that begins with a quote may be one string, whatever that holds: it waits for its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._string: list[str] | None = []
        self._is_blank = True

    def feed(self, piece: str) -> None:
        """Takes the next piece in. Raises `JsonRepairError` if it nests too deeply."""
        if self._is_blank and (begun := piece.lstrip()):
            self._is_blank = False
            if begun[0] != '"':
                self._string = None
        if self._string is None:
            super().feed(piece)
        else:
            self._string.append(piece)

    def finish(self, piece: str = "") -> RepairResult:
        """The end of the text has come. Raises `JsonRepairError` if it held nothing."""
        if self._string is None:
            return super().finish(piece)
        return repair("".join(self._string) + piece)

    def snapshot(self) -> Any:
        """What there is of the value, which no later text changes, or None before it begins.

        Snapshots share the parts that are finished. O(what is not: a string, and the number of
        elements of each open container and of an array at the end of an open object). Raises
        `JsonRepairError` if it nests too deeply.
        """
        value = self.value
        path = self._scanner.growing.path()
        if not path or path[0][0] is not value:
            return value
        inner: Any = None
        for container, place in reversed(path):
            copy: Any = container.copy()
            if inner is not None:
                copy[place] = inner
            if type(copy) is dict and copy:
                last = next(reversed(copy))
                if last != place and type(copy[last]) is list:
                    copy[last] = copy[last].copy()  # it may go on: `{"a": [1], [2]}`
            inner = copy
        return inner


class LiveFields(PartialJson):
    """The members of the one object that a text consists of.

    A member is finished when what follows shows its end, and keeps its value then. So a key
    that comes again is an error, and so is a second object that would be the better one; what
    is not JSON is one only where it is strict, and is repaired otherwise.

    Attributes:
        fields: The members so far.
        growing: The key of the one that is not finished, or None.
    """

    def __init__(self, *, is_strict: bool) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}
        self.growing: str | None = None
        self._pieces: list[str] = []
        self._is_strict = is_strict
        self._is_blank = True
        self._passed = 0

    def feed(self, piece: str) -> None:
        """Takes the next piece in. Raises `JsonRepairError` for what cannot be an object."""
        if self._is_blank and (begun := piece.strip(" \t\r\n")):
            self._is_blank = False
            if self._is_strict and begun[0] != "{":
                raise JsonRepairError(
                    f"the arguments are no JSON object, they begin with {begun[:80]!r}"
                )
        if self._is_strict:
            self._pieces.append(piece)
        super().feed(piece)
        self._look()

    def finish_fields(self) -> dict[str, Any]:
        """The end of the text has come. No text is no member; where it is lenient, so is null."""
        if self._is_blank:
            return self.fields
        value = self.finish().value
        self._look()
        if self._is_strict:
            self._check_whole()
        elif value is None:
            return self.fields
        if not isinstance(value, dict):
            raise JsonRepairError(
                f"the arguments are no object but of the type {type(value).__name__}"
            )
        if self.fields and value is not self.fields:
            raise JsonRepairError("the arguments are more than one object")
        self.fields, self.growing = value, None
        return value

    def _look(self) -> None:
        self._scanner.catch_up()
        growing = self._scanner.growing
        self._check_strictly()
        found = self._first_object()
        if self.fields and found is not self.fields:
            raise JsonRepairError("the arguments are more than one object")
        if growing.repeated is not None:
            raise JsonRepairError(f"the argument {growing.repeated[:80]!r} came twice")
        growing.refresh()
        path = growing.path()
        self.fields = found
        self.growing = path[0][1] if path and path[0][0] is found else None

    def _first_object(self) -> dict[str, Any]:
        """The first object that has a member, if there is one."""
        candidates = self._scanner.candidates
        while self._passed < len(candidates):
            value = candidates[self._passed].value
            if value and isinstance(value, dict):
                return value
            if self._passed == len(candidates) - 1:
                break
            self._passed += 1
        return {}

    def _check_strictly(self) -> None:
        if not self._is_strict:
            return
        if changes := self._scanner.guesses.changes:
            place, kind = min(changes)
            raise JsonRepairError(
                f"the arguments are not JSON: at character {place} "
                f"a repair would be needed ({kind})"
            )
        if len(self._scanner.candidates) > 1:
            raise JsonRepairError("the arguments are more than one object")

    def _check_whole(self) -> None:
        """For what the repair does not tell, such as a byte order mark."""
        try:
            msgspec.json.decode("".join(self._pieces))
        except (ValueError, RecursionError) as error:
            raise JsonRepairError(f"the arguments are not JSON: {error}") from None
