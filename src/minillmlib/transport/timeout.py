"""Waits that may not take for ever, and the event loop that they are in."""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from minillmlib.errors import Clock, RequestTimeoutError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle

__all__ = ["Bound", "Watchdog", "running_loop"]

TICK_SECS = 0.005  # many waits that end together are looked through together

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
    """

    __slots__ = (
        "_alarm", "_began", "_bound", "_cancellations", "_has_bitten", "_loop", "_task", "due",
        "waited_secs",
    )  # fmt: skip
    _bound: Bound
    _began: float
    _task: Task[object]  # which waits
    _cancellations: int  # of it, that others had asked for before

    def __init__(self) -> None:
        self._loop = running_loop()
        self._alarm = _alarm_of(self._loop)
        self._has_bitten = False
        self.due = math.inf
        self.waited_secs = 0.0  # how long the last wait took

    def within(self, bound: Bound) -> Self:
        """This watchdog, for a wait of so long."""
        self._bound = bound
        return self

    def __enter__(self) -> None:
        self._task = _asyncio().current_task(self._loop)
        self._cancellations = self._task.cancelling()
        self._began = self._loop.time()
        secs = self._bound.secs
        if secs is not None:
            self.due = self._began + secs
            self._alarm.watch(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.waited_secs = self._loop.time() - self._began
        self._alarm.watched.discard(self)
        if self._has_bitten:
            self._has_bitten = False
            is_only_ours = self._task.uncancel() <= self._cancellations
            if is_only_ours and isinstance(error, _asyncio().CancelledError):
                raise self._timeout() from None

    def bite(self) -> None:
        """Ends the wait, which has taken too long."""
        self.due = math.inf
        self._has_bitten = True
        self._task.cancel()

    def _timeout(self) -> RequestTimeoutError:
        secs, clock, shown = self._bound
        shown = secs if shown is None else shown
        return RequestTimeoutError(f"within {shown:g} s {_RAN_OUT[clock]}", clock=clock)


class _Alarm:
    """The timer of one event loop, for all its watchdogs.

    To set and to cancel one for each wait would take longer than all else that is done for a piece
    of a stream. So it stays when a wait is over, and when it goes off too early for those of then,
    it is set again.
    """

    __slots__ = ("_goes_off_at", "_loop", "_timer", "watched")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: TimerHandle | None = None
        self._goes_off_at = math.inf
        self.watched: set[Watchdog] = set()

    def watch(self, watchdog: Watchdog) -> None:
        """Until it is taken out of `watched`."""
        self.watched.add(watchdog)
        if watchdog.due < self._goes_off_at:
            self._set(watchdog.due)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._goes_off_at = when
        self._timer = self._loop.call_at(when, self._go_off)

    def _go_off(self) -> None:
        self._timer, self._goes_off_at = None, math.inf
        now = self._loop.time()
        for watchdog in [one for one in self.watched if one.due <= now]:
            watchdog.bite()
        due = min((one.due for one in self.watched), default=math.inf)
        if due < math.inf:
            self._set(max(due, now + TICK_SECS))


_alarms: dict[AbstractEventLoop, _Alarm] = {}


def _alarm_of(loop: AbstractEventLoop) -> _Alarm:
    alarm = _alarms.get(loop)
    if alarm is None:
        for other in list(_alarms):
            if other.is_closed():
                _alarms.pop(other, None)
        alarm = _alarms[loop] = _Alarm(loop)
    return alarm


@cache
def _asyncio() -> ModuleType:
    """A third of our import; a program with a running loop has it already."""
    import asyncio  # noqa: PLC0415

    return asyncio


def running_loop() -> AbstractEventLoop:
    """The event loop that runs."""
    loop: AbstractEventLoop = _asyncio().get_running_loop()
    return loop
