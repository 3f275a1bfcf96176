"""One event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

from minillmlib.errors import InvalidParameterError

__all__ = ["run_in_background"]

T = TypeVar("T")

END_SECS = 2.0

_start_lock = threading.Lock()
_current: _BackgroundLoop | None = None


def run_in_background(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Runs the coroutine that `make` gives in the process's background loop, to its end.

    `make` is called in that loop, so that no coroutine is left over when Ctrl-C comes between
    its making and its start.
    """
    background = _background_loop()
    if threading.get_ident() == background.thread.ident or background.loop.is_closed():
        make().close()
        raise InvalidParameterError(
            "run() cannot be used from inside a coroutine that run() runs (use await), "
            "nor after the program has ended"
        )
    job = _Job(make)
    try:
        background.loop.call_soon_threadsafe(job.start)
        job.done.wait()
    except BaseException:
        background.loop.call_soon_threadsafe(job.cancel)
        job.done.wait(END_SECS)  # for the coroutine's own cleaning up
        raise
    return job.result()


class _Job(Generic[T]):
    """One coroutine on its way through the loop. All but `done` and `result` run in the loop."""

    def __init__(self, make: Callable[[], Coroutine[object, object, T]]) -> None:
        self.done = threading.Event()
        self._make = make
        self._task: asyncio.Task[None] | None = None
        self._outcome: tuple[T] | BaseException = asyncio.CancelledError()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self.done.set())

    async def _run(self) -> None:
        """Keeps whatever ends the coroutine for the caller: SystemExit would end the loop."""
        try:
            self._outcome = (await self._make(),)
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._outcome = error

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._make().close()
            self.done.set()

    def result(self) -> T:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome[0]


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
            asyncio.run_coroutine_threadsafe(_end_tasks(), self.loop).result(END_SECS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(END_SECS)
        if not self.loop.is_running():
            self.loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def _forget() -> None:
    """In a forked child: the loop runs in the parent, where another thread may hold the lock."""
    global _current, _start_lock
    _current, _start_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _background_loop() -> _BackgroundLoop:
    """The process's loop, made at the first use."""
    global _current  # noqa: PLW0603 - the one lazily made loop
    with _start_lock:
        if _current is None:
            _current = _BackgroundLoop()
        return _current
