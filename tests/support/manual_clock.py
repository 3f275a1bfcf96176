"""A time that stands still until a test moves it, or that is the one of a virtual event loop.

Use it for code that reads the time and does not wait; `virtual_clock` is for what waits.
"""

from __future__ import annotations

import asyncio

import pytest

EPOCH = 1_790_000_000.0


class Clock:
    """Seconds since any moment, and since 1970."""

    now = 5000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return EPOCH + self.now - 5000.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        monkeypatch.setattr("time.monotonic", self.monotonic)
        monkeypatch.setattr("time.time", self.time)
        return self


def follow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all code have the time of the event loop that runs, which began at `EPOCH`."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("time.monotonic", loop.time)
    monkeypatch.setattr("time.time", lambda: EPOCH + loop.time())
