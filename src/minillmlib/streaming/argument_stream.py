"""The arguments of a tool call while they stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from minillmlib import json_repair
from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    JsonRepairError,
    MiniLLMError,
    MissingFieldError,
)
from minillmlib.json_value import JsonObject, JsonValue, excerpt

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["ArgumentStream", "FieldStream"]


class ArgumentStream:
    """The arguments of one tool call, field by field, long before the call is whole.

    Fed with the text of the call's `ToolCallDelta`s, in pieces of any size. Any number of tasks
    may wait for its fields. As a context manager it finishes at the end of the block; an error
    that leaves the block reaches whoever waits. O(text), and for each piece O(number of fields
    waited for, and length of the string that grows).

    What is told of a field stays. So a field that comes twice, or a second object in the text,
    is a `JsonRepairError`.

    Args:
        strict: Whether the first thing that is not JSON is a `JsonRepairError`. Otherwise it is
            repaired as by `repair`, also where the text ends within a value.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._reader = json_repair.IncrementalObject(is_strict=strict)
        self._fields: dict[str, _Field] = {}
        self._open: dict[str, _Field] = {}  # those of which more is to be told
        self._result: JsonObject | None = None
        self._error: Exception | None = None

    def field(self, name: str) -> FieldStream:
        """The top-level field of this name, before, while or after it comes."""
        if not isinstance(name, str):
            raise InvalidParameterError(f"a field's name is a string, not {type(name).__name__}")
        if name not in self._fields:
            self._fields[name] = self._open[name] = _Field()
            self._tell()
        return FieldStream(name, self._fields[name])

    def feed(self, piece: str) -> None:
        """Takes the next piece in, such as `delta.arguments`.

        Raises:
            JsonRepairError: The arguments cannot be read; everybody who waits is told, too.
        """
        if not isinstance(piece, str):
            raise InvalidParameterError(
                f"feed() takes text, as delta.arguments is, not {type(piece).__name__}"
            )
        if self._is_over:
            raise InvalidParameterError("the arguments have ended, so no more can be fed")
        try:
            self._reader.feed(piece)
        except JsonRepairError as error:
            self.fail(error)
            raise
        self._tell()

    def finish(self) -> JsonObject:
        """All arguments: the end has come, and who still waits is told. May be called again.

        No text at all is no argument. Raises `JsonRepairError` for what is no object, or what
        the arguments failed with before.
        """
        if self._error is not None:
            raise self._error
        if self._result is None:
            try:
                self._result = self._reader.finish_fields()
            except JsonRepairError as error:
                self.fail(error)
                raise
            self._tell()
        return self._result

    def fail(self, error: Exception) -> None:
        """The arguments will not come to their end: everybody who waits is told by this error."""
        if not isinstance(error, Exception):
            raise InvalidParameterError(f"fail() takes an exception, not {type(error).__name__}")
        if not self._is_over:
            self._error = error
            self._tell()

    @property
    def _is_over(self) -> bool:
        return self._result is not None or self._error is not None

    def _tell(self) -> None:
        reader = self._reader
        for name, field in [*self._open.items()]:
            if name in reader.fields and self._error is None:
                field.show(reader.fields[name], is_finished=name != reader.pending_key)
            elif self._is_over:
                field.fail(self._error or _missing(name, tuple(reader.fields)))
            if field.is_over:
                del self._open[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.fail(error if isinstance(error, MiniLLMError) else _left())

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.fail(_left())


def _missing(name: str, fields: tuple[str, ...]) -> MissingFieldError:
    told = excerpt(", ".join(map(repr, fields))) or "none"
    return MissingFieldError(f"the call has no argument {name!r}; it has: {told}", fields=fields)


def _left() -> IncompleteStreamError:
    return IncompleteStreamError("the arguments were left before their end")


class FieldStream:
    """One top-level field of streamed arguments. Any number of tasks may use it at any time.

    Attributes:
        name: The name of the field.
    """

    def __init__(self, name: str, field: _Field) -> None:
        self.name = name
        self._field = field

    async def wait(self) -> JsonValue:
        """The value, as soon as it is finished.

        Raises:
            MissingFieldError: The arguments have ended without it.
            Exception: What else the arguments failed with, as given to `fail`.
        """
        return await self._field.finished()

    def delta(self) -> AsyncIterator[str]:
        """The text of a string from its beginning, in the pieces it comes in.

        White space and a comma wait for what follows them. Any other value has no pieces.
        Raises as `wait` does.
        """
        return _Pieces(self._field)

    def __repr__(self) -> str:
        return f"<FieldHandle of {self.name!r}>"


class _Pieces:
    """One reader's place in a string that grows."""

    def __init__(self, field: _Field) -> None:
        self._field = field
        self._place = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        piece = await self._field.text_from(self._place)
        if not piece:
            raise StopAsyncIteration
        self._place += len(piece)
        return piece


class _Field:
    """What is known of a field, and who waits for more of it."""

    def __init__(self) -> None:
        self.is_over = False
        self._text = ""
        self._value: JsonValue = None
        self._error: Exception | None = None
        self._ends: set[Future[None]] = set()
        self._pieces: set[Future[None]] = set()

    def show(self, value: JsonValue, *, is_finished: bool) -> None:
        if isinstance(value, str) and len(value) > len(self._text):
            self._text = value
            _wake(self._pieces)
        if is_finished:
            self._value = value
            self._end()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._end()

    def _end(self) -> None:
        self.is_over = True
        _wake(self._pieces)
        _wake(self._ends)

    async def finished(self) -> JsonValue:
        while not self.is_over:
            await _woken(self._ends)
        if self._error is not None:
            raise self._error
        return self._value

    async def text_from(self, place: int) -> str:
        while len(self._text) == place and not self.is_over:
            await _woken(self._pieces)
        if len(self._text) == place and self._error is not None:
            raise self._error
        return self._text[place:]


async def _woken(waiters: set[Future[None]]) -> None:
    import asyncio  # noqa: PLC0415 - see `transport.watchdog`

    waiter = asyncio.get_running_loop().create_future()
    waiters.add(waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)


def _wake(waiters: set[Future[None]]) -> None:
    """Also from another thread, where an abandoned stream may be collected."""
    for waiter in tuple(waiters):
        with contextlib.suppress(RuntimeError):  # its loop has ended
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter)
    waiters.clear()


def _resolve(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
