"""The clocks of one completion. All are monotonic; those of a stream run only while we wait."""

from __future__ import annotations

from minillmlib.event_loop import asyncio_module, running_loop
from minillmlib.transport.timeout import Timeout
from minillmlib.types.parameters import NodeCompletionParameters

__all__ = ["Clocks", "sleep"]

DEFAULT_TOTAL_SECS = 600.0
DEFAULT_SILENCE_SECS = 120.0
PROGRESS_FACTOR = 5  # how many silences a server may fill with signs of life


async def sleep(secs: float) -> None:
    """Waits."""
    await asyncio_module().sleep(secs)


class Clocks:
    """How long the next wait may take."""

    def __init__(self, settings: NodeCompletionParameters, *, stream: bool) -> None:
        self._deadline_secs = settings.deadline_secs
        self._deadline: float | None = None
        if self._deadline_secs is not None:
            self._loop = running_loop()
            self._deadline = self._loop.time() + self._deadline_secs
        default = DEFAULT_SILENCE_SECS if stream else DEFAULT_TOTAL_SECS
        # None is the default, 0 no bound.
        timeout = default if settings.timeout_secs is None else settings.timeout_secs or None
        self._bound = Timeout(timeout, "silence" if stream else "total")
        progress = settings.progress_timeout_secs
        self._progress = (timeout or 0) * PROGRESS_FACTOR if progress is None else progress
        self._quiet = 0.0  # waited since anything new was said

    def left(self) -> float | None:
        """Seconds to the deadline, or None if there is none."""
        return None if self._deadline is None else self._deadline - self._loop.time()

    def first_wait(self) -> Timeout:
        """The bound on a whole answer, or on the wait for a stream's headers."""
        return self._before_deadline(self._bound)

    def next_piece(self) -> Timeout:
        """The bound on the wait for the next piece of a stream."""
        bound = self._bound
        if self._progress:
            left = self._progress - self._quiet
            if bound.secs is None or left < bound.secs:
                bound = Timeout(left, "progress", self._progress)
        return bound if self._deadline is None else self._before_deadline(bound)

    def waited(self, secs: float) -> None:
        """Some waiting for the server has passed."""
        self._quiet += secs

    def progressed(self) -> None:
        """The server said something new."""
        self._quiet = 0.0

    def _before_deadline(self, bound: Timeout) -> Timeout:
        left = self.left()
        if left is None or (bound.secs is not None and bound.secs <= left):
            return bound
        return Timeout(left, "deadline", self._deadline_secs)
