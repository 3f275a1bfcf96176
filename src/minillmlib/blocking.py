"""Blocking functions for code that is not asynchronous: one event loop in a background thread."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from minillmlib.client.completion import threads_of_tasks
from minillmlib.client.stream import StreamingCompletion
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import InvalidParameterError
from minillmlib.streaming.partial_json import PartialJsonStream

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

END_SECS = 2.0


class Readable(Protocol[T_co]):
    """A stream, or the values of its `partial_json()`."""

    def __anext__(self) -> Coroutine[object, object, T_co]: ...

    def aclose(self) -> Coroutine[object, object, None]: ...


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end and return its result; works in notebooks too.

    All calls share one background event loop, so connections are reused between them. Ctrl-C
    cancels the coroutine. Raises `InvalidParameterError` when called from that loop itself.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini")
        >>> run(ChatNode.root().chat("The capital of France?", generator)).text
        'Paris.'
    """
    if not isinstance(coroutine, Coroutine):
        raise InvalidParameterError(
            f"run() takes a coroutine, as in run(node.chat(...)), not {type(coroutine).__name__}; "
            "read a stream with iterate()"
        )
    return _run_in_background(lambda: coroutine)


def iterate(stream: Readable[T]) -> Generator[T, None, None]:
    """Yield the chunks of a stream in a plain `for` loop; leaving the loop closes the connection.

    Also takes `stream.partial_json()` and yields its values.

    Examples:
        >>> stream = ChatNode.root().chat_streaming("Hello", GeneratorInfo.openai("gpt-4o-mini"))
        >>> for chunk in iterate(stream):
        ...     print(chunk.delta, end="")
        Paris.
    """
    if not isinstance(stream, StreamingCompletion | PartialJsonStream):
        raise InvalidParameterError(
            "iterate() takes a stream, as from node.chat_streaming(...), "
            f"not {type(stream).__name__}"
        )
    return _iterate(stream)


def _iterate(stream: Readable[T]) -> Generator[T, None, None]:
    is_ours = True
    try:
        while chunk := _run_in_background(lambda: _next_chunk(stream)):
            yield chunk[0]
    except InvalidParameterError:
        is_ours = False  # another task is reading it
        raise
    finally:
        with contextlib.suppress(InvalidParameterError):  # the program and its loop have ended
            if is_ours:
                _run_in_background(stream.aclose)


async def _next_chunk(stream: Readable[T]) -> tuple[T] | None:
    try:
        return (await stream.__anext__(),)
    except StopAsyncIteration:
        return None


def _run_in_background(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run the coroutine that `make` returns in the background loop and return its result.

    `make` is called in that loop, so that Ctrl-C between making and starting the coroutine leaves
    no coroutine behind.
    """
    background = _background_loop()
    if threading.get_ident() == background.thread.ident or background.loop.is_closed():
        make().close()
        raise InvalidParameterError(
            "run() cannot be used inside a coroutine that run() runs (use await), "
            "nor after the program has ended"
        )
    job = _Job(background.loop, make)
    try:
        background.loop.call_soon_threadsafe(job.start)
        job.done.wait()
    except BaseException:
        background.loop.call_soon_threadsafe(job.cancel)
        job.done.wait(END_SECS)  # lets the coroutine clean up
        raise
    return job.result()


class _Job(Generic[T]):
    """One coroutine in the background loop. `start` and `cancel` must be called in that loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[object, object, T]]
    ) -> None:
        self.done = threading.Event()
        self._loop = loop
        self._make = make
        self._thread = threading.current_thread()
        self._task: asyncio.Task[tuple[T] | BaseException] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())
        threads_of_tasks[self._task] = self._thread
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[tuple[T] | BaseException]) -> None:
        del threads_of_tasks[task]
        self.done.set()

    async def _run(self) -> tuple[T] | BaseException:
        """Return any exception as a value, because SystemExit would end the loop."""
        try:
            return (await self._make(),)
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            return error

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._make().close()
            self.done.set()

    def result(self) -> T:
        assert self._task
        outcome = self._task.result()  # raises CancelledError if it was cancelled before it ran
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome[0]


class _BackgroundLoop:
    """A running event loop that ends with the program."""

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.loop: asyncio.AbstractEventLoop = asyncio_module().new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="minillmlib", daemon=True)
        self.thread.start()
        atexit.register(self.end)

    def end(self) -> None:
        """Close the pooled connections and the loop."""
        if self.process_id != os.getpid():
            return  # a forked child: the loop runs in the parent
        job = _Job(self.loop, _end_tasks)
        self.loop.call_soon_threadsafe(job.start)
        job.done.wait(END_SECS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(END_SECS)
        if not self.loop.is_running():
            self.loop.close()


async def _end_tasks() -> None:
    asyncio = asyncio_module()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


_start_lock = threading.Lock()
_current: _BackgroundLoop | None = None


def _background_loop() -> _BackgroundLoop:
    """Return the loop of this process, starting it on the first call."""
    global _current  # noqa: PLW0603 - the one lazily made loop
    with _start_lock:
        if _current is None:
            _current = _BackgroundLoop()
        return _current


def _forget_loop() -> None:
    """Forget the loop in a forked child: it runs in the parent, whose threads may hold the lock."""
    global _current, _start_lock
    _current, _start_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)
