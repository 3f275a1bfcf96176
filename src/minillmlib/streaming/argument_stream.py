"""Reads the arguments of a tool call while they stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from minillmlib import json_repair
from minillmlib.deferred_imports import asyncio_module
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


class ArgumentStream:
    """The arguments of one tool call, field by field, before the call is complete.

    Feed it the `arguments` of the call's `ToolCallDelta`s, in pieces of any size. Any number of
    tasks may wait for its fields. As a context manager it finishes at the end of the block; an
    exception that leaves the block is raised in the waiting tasks. O(text), and for each piece
    O(fields waited for + length of the growing string).

    A field never changes once it was delivered. Therefore a repeated field, or a second object in
    the text, raises `JsonRepairError`.

    Args:
        strict: Whether invalid JSON raises `JsonRepairError`. Otherwise it is repaired as by
            `repair`, including a text that ends within a value.

    Examples:
        >>> async def read():
        ...     with ArgumentStream() as arguments:
        ...         arguments.feed('{"path": "a.txt", "text": "Hi')
        ...         return await arguments.field("path").wait()
        >>> run(read())
        'a.txt'
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._reader = json_repair.IncrementalObject(is_strict=strict)
        self._fields: dict[str, _FieldState] = {}
        self._pending: dict[str, _FieldState] = {}  # not complete yet
        self._result: JsonObject | None = None
        self._error: Exception | None = None

    def field(self, name: str) -> FieldStream:
        """Return the top-level field of this name, before, while or after it arrives."""
        if not isinstance(name, str):
            raise InvalidParameterError(
                f"the name of a field must be a string, not {type(name).__name__}"
            )
        if name not in self._fields:
            self._fields[name] = self._pending[name] = _FieldState()
            self._notify()
        return FieldStream(name, self._fields[name])

    def feed(self, piece: str) -> None:
        """Add the next piece, such as `delta.arguments`.

        Raises:
            JsonRepairError: The arguments cannot be read. Waiting tasks get this error as well.
        """
        if not isinstance(piece, str):
            raise InvalidParameterError(
                f"feed() takes text such as delta.arguments, not {type(piece).__name__}"
            )
        if self._has_ended:
            raise InvalidParameterError(
                "the arguments have ended; feed a new ArgumentStream for another call"
            )
        try:
            self._reader.feed(piece)
        except JsonRepairError as error:
            self.fail(error)
            raise
        self._notify()

    def finish(self) -> JsonObject:
        """Return all arguments, and notify the waiting tasks of the end. May be called again.

        An empty text means no arguments. Raises `JsonRepairError` if the text is not an object,
        or the earlier error of the arguments.
        """
        if self._error is not None:
            raise self._error
        if self._result is None:
            try:
                self._result = self._reader.finish_fields()
            except JsonRepairError as error:
                self.fail(error)
                raise
            self._notify()
        return self._result

    def fail(self, error: Exception) -> None:
        """End the arguments with an error, which is raised in the waiting tasks."""
        if not isinstance(error, Exception):
            raise InvalidParameterError(f"fail() takes an exception, not {type(error).__name__}")
        if not self._has_ended:
            self._error = error
            self._notify()

    @property
    def _has_ended(self) -> bool:
        return self._result is not None or self._error is not None

    def _notify(self) -> None:
        reader = self._reader
        for name, field in [*self._pending.items()]:
            if name in reader.fields and self._error is None:
                field.update(reader.fields[name])
                if name != reader.pending_key:
                    field.complete()
            elif self._has_ended:
                existing = excerpt(", ".join(map(repr, reader.fields))) or "none"
                missing = f"the call has no argument {name!r}; it has: {existing}"
                error = MissingFieldError(missing, fields=tuple(reader.fields))
                field.complete(self._error or error)
            if field.is_complete:
                del self._pending[name]

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
            self.fail(error if isinstance(error, MiniLLMError) else _abandoned_error())

    def __del__(self) -> None:
        if getattr(self, "_pending", None):
            self.fail(_abandoned_error())


def _abandoned_error() -> IncompleteStreamError:
    return IncompleteStreamError("the arguments were abandoned before their end")


class FieldStream:
    """One top-level field of streamed arguments. Any number of tasks may use it at any time."""

    def __init__(self, name: str, field: _FieldState) -> None:
        self.name = name
        self._field = field

    async def wait(self) -> JsonValue:
        """Return the value as soon as it is complete.

        Raises:
            MissingFieldError: The arguments ended without the field.
            Exception: The arguments failed with this error, as passed to `fail`.
        """
        while not self._field.is_complete:
            await _wait(self._field.end_waiters)
        if self._field.error is not None:
            raise self._field.error
        return self._field.value

    def delta(self) -> AsyncIterator[str]:
        """Iterate over the pieces of a string from its start, as they arrive.

        White space and commas are held back until more text follows. Any other value has no
        pieces. Raises the same errors as `wait`.
        """
        return _Pieces(self._field)

    def __repr__(self) -> str:
        return f"<FieldStream of {self.name!r}>"


class _Pieces:
    def __init__(self, field: _FieldState) -> None:
        self._field = field
        self._position = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        field = self._field
        while len(field.text) == self._position and not field.is_complete:
            await _wait(field.piece_waiters)
        piece = field.text[self._position :]
        if not piece:
            raise field.error or StopAsyncIteration
        self._position += len(piece)
        return piece


class _FieldState:
    """The state of a field, and the tasks that wait for it."""

    def __init__(self) -> None:
        self.is_complete = False
        self.text = ""
        self.value: JsonValue = None
        self.error: Exception | None = None
        self.end_waiters: set[Future[None]] = set()
        self.piece_waiters: set[Future[None]] = set()

    def update(self, value: JsonValue) -> None:
        self.value = value
        if isinstance(value, str) and len(value) > len(self.text):
            self.text = value
            _wake(self.piece_waiters)

    def complete(self, error: Exception | None = None) -> None:
        self.error = error
        self.is_complete = True
        _wake(self.piece_waiters)
        _wake(self.end_waiters)


async def _wait(waiters: set[Future[None]]) -> None:
    waiter = asyncio_module().get_running_loop().create_future()
    waiters.add(waiter)
    try:
        await waiter
    finally:
        waiters.discard(waiter)


def _wake(waiters: set[Future[None]]) -> None:
    """Wake the waiting tasks. Runs in any thread, because `__del__` may."""
    for waiter in tuple(waiters):
        try:
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter)
        except RuntimeError:
            if not waiter.get_loop().is_closed():
                raise
    waiters.clear()


def _resolve(waiter: Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
