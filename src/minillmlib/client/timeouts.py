"""The timeouts of one completion. All are monotonic; those of a stream run only while we wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minillmlib.transport.timeout import Timeout
from minillmlib.types.parameters import NodeCompletionParameters

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["TimeoutBudget"]

DEFAULT_TOTAL_SECS = 600.0
DEFAULT_SILENCE_SECS = 120.0
PROGRESS_FACTOR = 5  # how many silences a server may fill with signs of life


class TimeoutBudget:
    """How long the next wait of a completion may take."""

    def __init__(
        self, settings: NodeCompletionParameters, loop: AbstractEventLoop, *, stream: bool
    ) -> None:
        self._loop = loop
        self._deadline_secs = settings.deadline_secs
        self._deadline: float | None = None
        if self._deadline_secs is not None:
            self._deadline = self._loop.time() + self._deadline_secs
        default = DEFAULT_SILENCE_SECS if stream else DEFAULT_TOTAL_SECS
        # None is the default, 0 no limit.
        secs = default if settings.timeout_secs is None else settings.timeout_secs or None
        self._timeout = Timeout(secs, "silence" if stream else "total")
        progress_secs = settings.progress_timeout_secs
        self._progress_secs = (
            (secs or 0) * PROGRESS_FACTOR if progress_secs is None else progress_secs
        )
        self._quiet_secs = 0.0  # waited since the server said anything new

    def remaining(self) -> float | None:
        """Return the seconds to the deadline, or None without one."""
        return None if self._deadline is None else self._deadline - self._loop.time()

    def response_timeout(self) -> Timeout:
        """Return the limit on a whole answer, or on the wait for a stream's headers."""
        if self._deadline is None:
            return self._timeout
        return self._before_deadline(self._timeout)

    def chunk_timeout(self) -> Timeout:
        """Return the limit on the wait for the next bytes of a stream."""
        timeout = self._timeout
        if self._progress_secs:
            remaining = self._progress_secs - self._quiet_secs
            if timeout.secs is None or remaining < timeout.secs:
                timeout = Timeout(remaining, "progress", self._progress_secs)
        return timeout if self._deadline is None else self._before_deadline(timeout)

    def record_wait(self, secs: float) -> None:
        """Count a wait for the server in which nothing new may have come."""
        self._quiet_secs += secs

    def record_progress(self) -> None:
        """Note that the server said something new."""
        self._quiet_secs = 0.0

    def _before_deadline(self, timeout: Timeout) -> Timeout:
        remaining = self.remaining()
        if remaining is None or (timeout.secs is not None and timeout.secs <= remaining):
            return timeout
        return Timeout(remaining, "deadline", self._deadline_secs)
