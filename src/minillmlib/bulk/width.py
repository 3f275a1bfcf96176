"""How many calls are in flight: as many as the server takes."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NoReturn

from minillmlib.client.pacing import share, wake
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.locks import fork_safe_lock
from minillmlib.types.costs import Attempt
from minillmlib.types.values import check_required_number

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event

START, MAXIMUM = 20, 200
SLOW_START_FACTOR = 2.0
GROWTH = 1.05
CUT = 0.8
COOLDOWN_SECS = 15.0
USED = 0.8  # of the width, for it to grow
MAX_HISTORY = 10_000
REFUSALS = frozenset((429, 503, 529))  # the server has no room


class Width:
    """The number of calls in flight at the same time, adapted to what the server takes.

    It doubles with every round of calls that the server accepted, until the first refusal (429,
    503, 529). A refusal reduces it by 20 %, at most once in 15 seconds; from then on it grows by
    5 % a round. It grows only if it was used, and after other server errors it waits.

    Runs that share a `Width`, and those that name none and ask one server with one key, have their
    calls in flight together. Tasks, threads and event loops may share a width.

    Args:
        start: The width at the beginning.
        maximum: The maximum calls in flight. With `start` as `maximum` the width is fixed.

    Attributes:
        limit: The width now.
        in_use: The calls in flight.
        history: Each change as seconds since the beginning and the width from then on.
    """

    def __init__(self, start: int = START, maximum: int = MAXIMUM) -> None:
        for name, value in (("start", start), ("maximum", maximum)):
            check_required_number(f"the {name} of a width", value, minimum=1, is_whole=True)
        self.limit: int = start
        self.maximum: int = max(start, maximum)
        self.in_use: int = 0
        self._is_fixed = start >= maximum
        self.history: list[tuple[float, int]] = [(0.0, start)]
        self._started = time.monotonic()
        self._exact = float(start)  # growth by 5 % of less than 20 adds up
        self._is_slow_start = True
        self._clean = self._peak = 0  # calls that were taken, and the most in flight, of a round
        self._cut_at = -COOLDOWN_SECS
        self._waiters: deque[_Waiter] = deque()
        self._lock = fork_safe_lock()

    async def acquire(self) -> None:
        """Wait until one more call may be in flight. First come, first served."""
        with self._lock:
            if self.in_use < self.limit and not self._waiters:
                self._take()
                return
            waiter = _Waiter()
            self._waiters.append(waiter)
        try:
            await waiter.called.wait()
        except BaseException:
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            if waiter.has_place:
                self.release()
            raise

    def release(self, attempts: Sequence[Attempt] = ()) -> None:
        """Note that a call ended, and what the server said to its attempts."""
        with self._lock:
            self.in_use -= 1
            if attempts and not self._is_fixed:
                # No answer is as bad as an error of the server.
                self._learn([attempt.status or 500 for attempt in attempts])
            while self._waiters and self.in_use < self.limit:
                waiter = self._waiters.popleft()
                with contextlib.suppress(RuntimeError):  # its loop is closed
                    wake(waiter.loop, waiter.called)
                    self._take()
                    waiter.has_place = True

    def _take(self) -> None:
        self.in_use += 1
        self._peak = max(self._peak, self.in_use)

    def _learn(self, statuses: Sequence[int]) -> None:
        now = time.monotonic() - self._started
        if not REFUSALS.isdisjoint(statuses):
            self._is_slow_start = False
            self._clean = self._peak = 0
            if now - self._cut_at >= COOLDOWN_SECS:
                self._cut_at = now
                self._set(self._exact * CUT, now)
        elif max(statuses) >= 500:
            self._clean = self._peak = 0
        elif len(statuses) == 1:
            self._clean += 1
            if self._clean >= self.limit:
                if self._peak >= USED * self.limit:
                    factor = SLOW_START_FACTOR if self._is_slow_start else GROWTH
                    self._set(self._exact * factor, now)
                self._clean = self._peak = 0

    def _set(self, width: float, now: float) -> None:
        self._exact = min(max(width, 1.0), float(self.maximum))
        if int(self._exact) != self.limit:
            self.limit = int(self._exact)
            if len(self.history) < MAX_HISTORY:
                self.history.append((now, self.limit))

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a width cannot be pickled or copied: it counts the calls of this process; give each "
            "process a number"
        )

    def __repr__(self) -> str:
        return f"Width(limit={self.limit}, in_use={self.in_use}, maximum={self.maximum})"


class _Waiter:
    """A call in line for a place, in its event loop."""

    __slots__ = ("called", "has_place", "loop")

    def __init__(self) -> None:
        asyncio = asyncio_module()
        self.loop: AbstractEventLoop = asyncio.get_running_loop()
        self.called: Event = asyncio.Event()
        self.has_place = False


# Whether this is part of an item of a run, such as a tool.
_is_in_call: ContextVar[bool] = ContextVar("_is_in_call", default=False)


def mark_call() -> None:
    """Note that all that follows in this task is part of an item of a run."""
    _is_in_call.set(True)


def width_for(width: int | Width | None, generator: GeneratorInfo) -> Width:
    """Return the given width, a fixed one, or that of all runs at this server with this key.

    A run in an item of another run has its own: it would wait for a place that only its end frees.
    """
    if isinstance(width, Width):
        return width
    if width is not None:
        return Width(width, width)
    return Width() if _is_in_call.get() else share(Width, generator)
