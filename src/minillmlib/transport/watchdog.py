"""Waits that may not take for ever, and the event loop that they are in."""

from __future__ import annotations

from functools import cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from minillmlib.errors import Clock, RequestTimeoutError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle

__all__ = ["Bound", "Watchdog", "running_loop"]

_RAN_OUT: dict[Clock, str] = {
    "total": "the whole answer did not come; raise timeout_secs if the model may take longer",
    "silence": "not one byte came; raise timeout_secs if the model may take longer",
    "progress": "the server only kept the connection alive and said nothing new; "
    "raise progress_timeout_secs if the model may take longer",
    "deadline": "the completion did not end; raise deadline_secs if it may take longer",
}


class Bound(NamedTuple):
    """How long a wait may take (None: for ever), and the clock that says so.

    `shown_secs` is the setting that the clock was made from, for its error.
    """

    secs: float | None
    clock: Clock
    shown_secs: float | None = None


class Watchdog:
    """Bounds the waits of one exchange, one at a time: `with watchdog.within(bound): await ...`.

    What runs out is a `RequestTimeoutError`; a cancellation by anybody else passes on as it is,
    also one of the same moment. Never spans a `yield` to the caller of the library.

    One timer serves all waits, since to set and to cancel one for each would take longer than
    all else that is done for a piece of a stream. So it stays when its wait is over, and when it
    goes off too early for the wait of then, it is set again.
    """

    __slots__ = (
        "_began", "_bound", "_cancellations", "_current_task", "_due", "_goes_off_at",
        "_has_bitten", "_is_closed", "_loop", "_task", "_timer", "waited_secs",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = running_loop()
        self._current_task = _asyncio().current_task
        self._timer: TimerHandle | None = None
        self._goes_off_at = 0.0
        self._bound = Bound(None, "total")
        self._began = 0.0
        self._due: float | None = None
        self._task: Task[object] | None = None  # which waits
        self._cancellations = 0  # of it, that others had asked for before
        self._has_bitten = False
        self._is_closed = False
        self.waited_secs = 0.0  # how long the last wait took

    def within(self, bound: Bound) -> Self:
        """This watchdog, for a wait of so long."""
        self._bound = bound
        return self

    def __enter__(self) -> None:
        task = self._task = self._current_task(self._loop)
        assert task is not None
        self._cancellations = task.cancelling()
        began = self._began = self._loop.time()
        secs = self._bound.secs
        if secs is None:
            self._due = None
            return
        due = self._due = began + secs
        if self._timer is None or due < self._goes_off_at:
            self._set(due)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.waited_secs = self._loop.time() - self._began
        task, self._task = self._task, None
        if self._is_closed:
            self.close()
        if self._has_bitten:
            self._has_bitten = False
            assert task is not None
            is_only_ours = task.uncancel() <= self._cancellations
            if is_only_ours and isinstance(error, _asyncio().CancelledError):
                raise self._timeout() from None

    def close(self) -> None:
        """Stops the timer: at once, or at the end of a wait that is not over."""
        self._is_closed = True
        if self._timer is not None and self._task is None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._goes_off_at = due
        self._timer = self._loop.call_at(due, self._go_off)

    def _go_off(self) -> None:
        self._timer = None
        if self._task is None or self._due is None:
            return  # nobody waits; the next wait sets it
        if self._goes_off_at < self._due:
            self._set(self._due)
            return
        self._has_bitten = True
        self._task.cancel()

    def _timeout(self) -> RequestTimeoutError:
        secs, clock, shown = self._bound
        shown = secs if shown is None else shown
        return RequestTimeoutError(f"within {shown:g} s {_RAN_OUT[clock]}", clock=clock)


@cache
def _asyncio() -> ModuleType:
    """A third of our import; a program with a running loop has it already."""
    import asyncio  # noqa: PLC0415

    return asyncio


def running_loop() -> AbstractEventLoop:
    """The event loop that runs."""
    loop: AbstractEventLoop = _asyncio().get_running_loop()
    return loop
