"""An event loop whose clock jumps: waits are exact, and take no time.

Use it for every test about waiting. The clock stands still while anything is ready and jumps to the
next timer when nothing is. So `loop.time()` is what a program has waited for, to the digit.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualClockLoop", "now", "run_virtually"]

T = TypeVar("T")

STUCK_SECS = 2.0


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of waiting for time to pass, lets it pass."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if ready:
            return ready
        if timeout is not None:
            self.now += max(timeout, 0.0)
            return ready
        # No timer at all: only another thread could still wake the loop.
        ready = super().select(STUCK_SECS)
        if not ready:
            raise RuntimeError("nothing will ever happen: the program waits without a timer")
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop at virtual time, which begins at 0."""

    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    async def shutdown_default_executor(self, *_: object) -> None:
        """Wait for the threads without a limit: they end in real time."""
        await super().shutdown_default_executor()

    def be_busy(self, secs: float) -> None:
        """Let time pass in which the loop does not turn, as when code blocks."""
        self._jumping.now += secs


def now() -> float:
    """The time of the loop that runs."""
    return asyncio.get_running_loop().time()


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`, at virtual time."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)
