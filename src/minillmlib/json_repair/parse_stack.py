"""Values that are built while their text comes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

__all__ = ["Candidate", "Container", "Growing"]

Container: TypeAlias = "dict[str, Any] | list[Any]"


class Candidate:
    """One object or array of a text, which grows in place and never loses anything.

    Attributes:
        value: What there is of it.
        start: Where it begins.
        end: Where it ends, once that is known.
        is_complete: Whether its end was seen.
        is_fenced: Whether it stands in a code block.
        is_listed: Whether only white space is between the one before and this.
        is_weak: Whether it may be a remark in brackets.
    """

    __slots__ = ("end", "is_complete", "is_fenced", "is_listed", "is_weak", "start", "value")

    def __init__(
        self,
        value: Container,
        start: int,
        *,
        is_fenced: bool,
        is_listed: bool,
        is_weak: bool,
    ) -> None:
        self.value = value
        self.start = start
        self.end: int | None = None
        self.is_complete = False
        self.is_fenced = is_fenced
        self.is_listed = is_listed
        self.is_weak = is_weak


class Growing:
    """The containers that are open, the innermost last, and the string in the making.

    Attributes:
        open: The containers.
        closers: The brackets that close them.
        is_in_object: Whether the innermost container is an object.
        key: The key for the next value of an object.
        parts: The text of the string in the making.
        repeated: A key of an outermost object that came again, or None.
    """

    __slots__ = (
        "_is_in_string", "_slot", "closers", "is_in_object", "key", "open", "parts", "repeated",
    )  # fmt: skip

    def __init__(self) -> None:
        self.open: list[Any] = []  # of containers; what it is shows `is_in_object`
        self.closers = ""
        self.is_in_object = False
        self.key = ""
        self.repeated: str | None = None
        self.parts: list[str] = []
        self._is_in_string = False
        self._slot: tuple[Any, Any] = (None, None)

    def awaits(self, closer: str) -> bool:
        """Whether such a bracket would close something."""
        return closer in self.closers

    def begin(self, container: Container, closer: str) -> None:
        """Opens a container within the innermost one."""
        if self.open:
            self.put(container)
        self.go_on(container, closer)

    def go_on(self, container: Container, closer: str) -> None:
        """Opens a container that is in the innermost one already."""
        self.open.append(container)
        self.closers += closer
        self.is_in_object = type(container) is dict

    def end(self) -> None:
        """Closes the innermost container."""
        self.open.pop()
        self.closers = self.closers[:-1]
        self.is_in_object = bool(self.open) and type(self.open[-1]) is dict

    def put(self, value: Any) -> None:
        """Adds a finished value to the innermost container."""
        top = self.open[-1]
        if type(top) is dict:
            top[self.key] = value
        else:
            top.append(value)

    def begin_string(self) -> None:
        """Adds a string that will grow."""
        self.put("")
        top = self.open[-1]
        self._slot = (top, self.key if type(top) is dict else -1)
        self.parts = []
        self._is_in_string = True

    def refresh(self) -> None:
        """Shows what there is of the string in its container, but for what may be stripped yet."""
        if self.parts:
            self._show(is_stripped=True)

    def end_string(self, *, is_stripped: bool = False) -> None:
        """Finishes the string; stripped, without the comma and white space at its end."""
        self._show(is_stripped=is_stripped)
        self.parts = []
        self._is_in_string = False

    def _show(self, *, is_stripped: bool) -> None:
        text = "".join(self.parts)
        self.parts[:] = [text]
        container, slot = self._slot
        container[slot] = text.rstrip().removesuffix(",").rstrip() if is_stripped else text

    def path(self) -> list[tuple[Container, Any]]:
        """The open containers, each with the key or index of what grows in it, or None."""
        places = [_place_of(inner, outer) for outer, inner in pairwise(self.open)]
        last = self._slot[1] if self._is_in_string else None
        return list(zip(self.open, [*places, last], strict=False))


def _place_of(inner: Container, outer: Container) -> Any:
    if isinstance(outer, list):
        return -1
    last = next(reversed(outer))
    if outer[last] is inner:
        return last
    return next(key for key in outer if outer[key] is inner)  # the key came before
