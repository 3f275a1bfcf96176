"""The clocks of one completion. All are monotonic; those of a stream run only while we wait."""

from __future__ import annotations

from minillmlib.transport.exchange import Bound, running_loop
from minillmlib.values.parameters import NodeCompletionParameters

__all__ = ["Clocks", "sleep"]

DEFAULT_TOTAL_SECS = 600.0
DEFAULT_SILENCE_SECS = 120.0
PROGRESS_FACTOR = 5  # how many silences a server may fill with signs of life


async def sleep(secs: float) -> None:
    """Waits."""
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    await asyncio.sleep(secs)


class Clocks:
    """How long the next wait may take."""

    def __init__(self, settings: NodeCompletionParameters, *, stream: bool) -> None:
        self._deadline_secs = settings.deadline_secs
        self._loop = running_loop()
        self._deadline = (
            None if self._deadline_secs is None else self._loop.time() + self._deadline_secs
        )
        default = DEFAULT_SILENCE_SECS if stream else DEFAULT_TOTAL_SECS
        # None is the default, 0 no bound.
        self._timeout = default if settings.timeout_secs is None else settings.timeout_secs or None
        progress = settings.progress_timeout_secs
        if progress is None:
            progress = (self._timeout or 0) * PROGRESS_FACTOR
        self._progress = progress or None
        self._quiet = 0.0  # waited since anything new was said

    def left(self) -> float | None:
        """Seconds to the deadline, or None if there is none."""
        return None if self._deadline is None else self._deadline - self._loop.time()

    def whole(self) -> Bound:
        """The bound on a whole answer."""
        return self._tightest(Bound(self._timeout, "total"))

    def first_byte(self) -> Bound:
        """The bound on the wait for a stream's headers."""
        return self._tightest(Bound(self._timeout, "silence"))

    def next_piece(self) -> Bound:
        """The bound on the wait for the next piece of a stream."""
        silence = Bound(self._timeout, "silence")
        if self._progress is None:
            return self._tightest(silence)
        return self._tightest(
            silence, Bound(self._progress - self._quiet, "progress", self._progress)
        )

    def waited(self, secs: float) -> None:
        """Some waiting for the server has passed."""
        self._quiet += secs

    def progressed(self) -> None:
        """The server said something new."""
        self._quiet = 0.0

    def _tightest(self, *bounds: Bound) -> Bound:
        if self._deadline is None and len(bounds) == 1:
            return bounds[0]
        deadline = Bound(self.left(), "deadline", self._deadline_secs)
        known = [bound for bound in (*bounds, deadline) if bound.secs is not None]
        return min(known, key=lambda bound: bound.secs or 0.0, default=bounds[0])
