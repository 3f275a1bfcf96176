"""One event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import TypeVar

from minillmlib.errors import InvalidParameterError

__all__ = ["run_in_background"]

T = TypeVar("T")

END_SECS = 2.0

_start_lock = threading.Lock()
_current: _BackgroundLoop | None = None


def run_in_background(coroutine: Coroutine[object, object, T]) -> T:
    """Runs `coroutine` in the process's background loop and waits for its result."""
    background = _background_loop()
    if threading.get_ident() == background.thread.ident:
        coroutine.close()
        raise InvalidParameterError("run() would wait for itself here; use await")
    future = asyncio.run_coroutine_threadsafe(coroutine, background.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


class _BackgroundLoop:
    """A running loop, ended with the program."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="minillmlib", daemon=True)
        self.thread.start()
        atexit.register(self.end)

    def end(self) -> None:
        """Closes the kept connections and the loop."""
        if self.process_id != os.getpid():
            return  # a forked child: the loop runs in the parent
        with contextlib.suppress(TimeoutError):
            closing = self.loop.shutdown_asyncgens()
            asyncio.run_coroutine_threadsafe(closing, self.loop).result(END_SECS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(END_SECS)
        if not self.loop.is_running():
            self.loop.close()


def _background_loop() -> _BackgroundLoop:
    """The process's loop; a forked child gets one of its own."""
    global _current  # noqa: PLW0603 - the one lazily made loop
    with _start_lock:
        if _current is None or _current.process_id != os.getpid():
            _current = _BackgroundLoop()
        return _current
