"""Timeouts: what a completion allows its next wait, and the scope that ends a wait."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self

from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import Clock, RequestTimeoutError
from minillmlib.types.parameters import NodeCompletionParameters

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle

DEFAULT_TOTAL_SECS = 600.0
DEFAULT_SILENCE_SECS = 120.0
PROGRESS_FACTOR = 5  # how many silences a server may fill with signs of life

TICK_SECS = 0.005  # timeouts that end within it expire together

_MESSAGES: dict[Clock, str] = {
    "total": "the response did not complete; raise timeout_secs if the model may take longer",
    "silence": "no byte arrived; raise timeout_secs if the model may take longer",
    "progress": "the server kept the connection alive but sent nothing new; "
    "raise progress_timeout_secs if the model may take longer",
    "deadline": "the completion did not end; raise deadline_secs if it may take longer",
}


class Timeout(NamedTuple):
    """Seconds that a wait may take (None: no limit), and the clock that limits it.

    `shown_secs` is the setting that the clock was made from, for the error message.
    """

    secs: float | None
    clock: Clock
    shown_secs: float | None = None


@lru_cache(maxsize=64)
def _timeout_of(secs: float | None, is_stream: bool) -> Timeout:  # noqa: FBT001 - the key of a cache
    """Return the limit on a wait that the setting `timeout_secs` means: None is the default."""
    default = DEFAULT_SILENCE_SECS if is_stream else DEFAULT_TOTAL_SECS
    return Timeout(default if secs is None else secs or None, "silence" if is_stream else "total")


class TimeoutScope:
    """Limits the waits of one exchange, one at a time: `with scope.within(timeout): await ...`.

    Raises `RequestTimeoutError` when time is up. Any other cancellation passes unchanged, also
    one that comes at the same moment. Never spans a `yield` to the caller of the library.
    """

    due_at = math.inf
    waited_secs = 0.0  # by the last wait
    _is_expired = False
    _other_cancellations: int  # of the waiting task, requested before the wait
    _started_at: float
    _task: Task[object]
    _timeout: Timeout

    def __init__(self) -> None:
        self.loop = loop = asyncio_module().get_running_loop()
        # Kept on the loop: a table would keep a dropped one alive.
        timer: _LoopTimer | None = vars(loop).get("_minillmlib_timer")
        if timer is None:
            timer = vars(loop)["_minillmlib_timer"] = _LoopTimer(loop)
        self._timer = timer

    def within(self, timeout: Timeout) -> Self:
        """Return this scope with the timeout of its next wait."""
        self._timeout = timeout
        return self

    def __enter__(self) -> None:
        self._task = asyncio_module().current_task(self.loop)
        self._other_cancellations = self._task.cancelling()
        self._started_at = self.loop.time()
        secs = self._timeout.secs
        if secs is not None:
            self.due_at = self._started_at + secs
            self._timer.add(self)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.waited_secs = self.loop.time() - self._started_at
        self._timer.scopes.discard(self)
        if self._is_expired:
            self._is_expired = False
            is_only_ours = self._task.uncancel() <= self._other_cancellations
            if is_only_ours and isinstance(error, asyncio_module().CancelledError):
                raise self._error() from None

    def expire(self) -> None:
        """Cancel the wait, whose time is up."""
        self.due_at = math.inf
        self._is_expired = True
        self._task.cancel()

    def _error(self) -> RequestTimeoutError:
        secs, clock, shown = self._timeout
        shown = secs if shown is None else shown
        return RequestTimeoutError(f"within {shown:g} s {_MESSAGES[clock]}", clock=clock)


class _LoopTimer:
    """The one timer of an event loop, shared by all its scopes.

    To set and cancel a timer for each wait would take longer than all other work on a piece of a
    stream. So the timer stays set when a wait ends, and is set again if it fires too early for
    the waits of that moment.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: TimerHandle | None = None
        self._due_at = math.inf
        self.scopes: set[TimeoutScope] = set()

    def add(self, scope: TimeoutScope) -> None:
        """Expire `scope` when it is due, unless it is removed from `scopes` before."""
        if scope.due_at < self._due_at:
            self._set(scope.due_at)
        self.scopes.add(scope)  # last: a scope that was not entered must not cancel its task

    def _set(self, when: float) -> None:
        handle = self._loop.call_at(when, self._on_timer)
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._due_at = handle, when

    def _on_timer(self) -> None:
        self._handle, self._due_at = None, math.inf
        now = self._loop.time()
        for scope in [each for each in self.scopes if each.due_at <= now]:
            scope.expire()
        due_at = min((each.due_at for each in self.scopes), default=math.inf)
        if due_at < math.inf:
            self._set(max(due_at, now + TICK_SECS))


class TimeoutBudget:
    """How long the next wait of a completion may take."""

    _progress_secs = 0.0  # of a stream; 0: no limit
    _quiet_secs = 0.0  # waited since the server said anything new

    def __init__(
        self, settings: NodeCompletionParameters, loop: AbstractEventLoop, *, stream: bool
    ) -> None:
        self._loop = loop
        self._deadline_secs = secs = settings.deadline_secs
        self._deadline = math.inf if secs is None else loop.time() + secs
        self._timeout = timeout = _timeout_of(settings.timeout_secs, stream)
        if stream:
            secs = settings.progress_timeout_secs
            self._progress_secs = (timeout.secs or 0) * PROGRESS_FACTOR if secs is None else secs

    def remaining(self) -> float:
        """Return the seconds to the deadline; infinity without one."""
        return self._deadline - self._loop.time() if self._deadline_secs is not None else math.inf

    def deadline_timeout(self) -> Timeout:
        """Return the limit on a wait that no server is to blame for."""
        return self._before_deadline(Timeout(None, "deadline"))

    def response_timeout(self, waited_secs: float = 0) -> Timeout:
        """Return the limit on a whole answer, or on the wait for a stream's headers.

        `waited_secs` of it are over.
        """
        secs, clock, _ = self._timeout
        if secs is None or not waited_secs:
            return self._before_deadline(self._timeout)
        return self._before_deadline(Timeout(secs - waited_secs, clock, secs))

    def chunk_timeout(self) -> Timeout:
        """Return the limit on the wait for the next bytes of a stream."""
        timeout = self._timeout
        if self._progress_secs:
            remaining = self._progress_secs - self._quiet_secs
            if timeout.secs is None or remaining < timeout.secs:
                timeout = Timeout(remaining, "progress", self._progress_secs)
        return self._before_deadline(timeout)

    def record_wait(self, secs: float) -> None:
        """Count a wait for the server in which nothing new may have come."""
        self._quiet_secs += secs

    def record_progress(self) -> None:
        """Note that the server said something new."""
        self._quiet_secs = 0.0

    def _before_deadline(self, timeout: Timeout) -> Timeout:
        if self._deadline_secs is None:
            return timeout
        remaining = self.remaining()
        if remaining >= (math.inf if timeout.secs is None else timeout.secs):
            return timeout
        return Timeout(remaining, "deadline", self._deadline_secs)
