"""Blocking functions for code that is not asynchronous: one event loop in a background thread."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

from minillmlib.client.completion import threads_of_tasks
from minillmlib.deferred_imports import asyncio_module, logger
from minillmlib.errors import InvalidParameterError, ReadError

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

END_SECS = 2.0


@runtime_checkable
class Readable(Protocol[T_co]):
    """A stream of the library, the values of its `partial_json()`, or an asynchronous generator."""

    def __anext__(self) -> Awaitable[T_co]: ...

    def aclose(self) -> Awaitable[None]: ...


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine to its end and return its result; works in notebooks too.

    All calls share one background event loop, so connections are reused between them. Ctrl-C
    cancels the coroutine. `SystemExit` and `KeyboardInterrupt` in the coroutine, its tasks or
    callbacks end this call only and are raised by it. Raises `InvalidParameterError` when called
    from that loop itself.

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

    Also takes `stream.partial_json()`, `run_tools_streaming`, `complete_many_streaming`,
    `map_complete` and any asynchronous generator, and yields their values.

    Examples:
        >>> stream = ChatNode.root().chat_streaming("Hello", GeneratorInfo.openai("gpt-4o-mini"))
        >>> for chunk in iterate(stream):
        ...     print(chunk.delta, end="")
        Paris.
    """
    if not isinstance(stream, Readable):
        raise InvalidParameterError(
            "iterate() takes a stream, as from node.chat_streaming(...), "
            f"not {type(stream).__name__}"
        )
    return _Chunks(stream)


class _Chunks(Generator[T, None, None]):
    """The generator of `iterate`. One by `yield` would end at Ctrl-C as after a whole answer."""

    _stream: Readable[T] | None = None  # also if Ctrl-C ends the constructor

    def __init__(self, stream: Readable[T]) -> None:
        self._is_ours = True
        self._arrived: deque[T] = deque()  # here an interrupt between two threads loses nothing
        self._process_id = os.getpid()
        self._stream = stream

    def send(self, _value: None) -> T:
        if not self._arrived and self._stream is not None:
            try:
                _run_in_background(self._fetch)
            except InvalidParameterError:
                self._is_ours = False  # another task is reading it
                raise
        if not self._arrived:
            self.close()
            raise StopIteration
        return self._arrived.popleft()

    async def _fetch(self) -> None:
        assert self._stream is not None
        with contextlib.suppress(StopAsyncIteration):
            self._arrived.append(await self._stream.__anext__())

    def throw(self, kind, value=None, trace=None) -> NoReturn:  # type: ignore[no-untyped-def] # noqa: ANN001
        self.close()
        super().throw(kind, value, trace)
        raise AssertionError  # the base class has raised

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None or not self._is_ours or self._process_id != os.getpid():
            return  # a forked child: the stream is the parent's
        self._arrived.clear()
        try:
            _run_in_background(partial(_close, stream))
        except InvalidParameterError:
            pass  # the program and its loop have ended
        except SystemExit as error:
            if error.args != (_PROGRAM_END,):
                raise

    def __del__(self) -> None:
        self.close()


async def _close(stream: Readable[object]) -> None:
    await stream.aclose()


def _run_in_background(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run the coroutine that `make` returns in the background loop and return its result.

    `make` is called in that loop, so that Ctrl-C between making and starting the coroutine leaves
    no coroutine behind.
    """
    job = _Job(make)
    try:
        background = _background_loop(job)
    except BaseException:
        make().close()
        raise
    try:
        background.loop.call_soon_threadsafe(job.start, background)
        job.done.wait()
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            background.loop.call_soon_threadsafe(job.cancel)
            job.done.wait(END_SECS)  # lets the coroutine clean up
        raise
    return job.result(background)


_PROGRAM_END = "the program has ended"


def _refuse_after_end() -> NoReturn:
    if threading.current_thread().daemon:
        raise SystemExit(_PROGRAM_END)  # which ends the thread without a traceback
    raise InvalidParameterError("run() cannot be used after the program has ended")


class _Event:
    """An event for one waiting thread. `set` must be called in the loop's thread.

    It is one lock, because Ctrl-C in the Python code of `threading.Event` leaves that locked.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._lock.release()

    def wait(self, timeout_secs: float = -1) -> None:
        if not self.is_set:
            self._lock.acquire(timeout=timeout_secs)


class _Job(Generic[T_co]):
    """One coroutine in the background loop. `start` and `cancel` must be called in that loop."""

    def __init__(self, make: Callable[[], Coroutine[object, object, T_co]]) -> None:
        self.done = _Event()
        self.thread = threading.current_thread()
        self._make = make
        self._outcome: tuple[T_co] | BaseException | None = None
        self._failure: BaseException | None = None  # raised instead of the outcome
        self._task: asyncio.Task[tuple[T_co] | BaseException] | None = None

    def start(self, background: _BackgroundLoop) -> None:
        self._task = background.loop.create_task(self._run())
        threads_of_tasks[self._task] = self.thread
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[tuple[T_co] | BaseException]) -> None:
        del threads_of_tasks[task]
        self._task = None  # its error's traceback may lead back here
        if task.cancelled():  # before its first step
            self._make().close()
            self._outcome = asyncio_module().CancelledError()
        else:
            self._outcome = task.result()
        self.done.set()

    async def _run(self) -> tuple[T_co] | BaseException:
        """Return any exception as a value, because SystemExit would end the loop."""
        _job.set(weakref.ref(self))
        try:
            return (await self._make(),)
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            # Without this frame, a job that is left is not part of a cycle, and ends at once.
            return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self.done.is_set:
            self._make().close()
            self.done.set()

    def interrupt(self, error: BaseException, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel the coroutine; `error` is raised in the thread that waits for it."""
        self._failure = error
        self.cancel()
        loop.call_later(END_SECS, self.done.set)  # whatever the coroutine does meanwhile

    def fail(self, error: BaseException) -> None:
        """Raise `error` in the thread that waits, now."""
        self._failure = error
        self.done.set()

    def result(self, background: _BackgroundLoop) -> T_co:
        outcome = self._failure or self._outcome
        self._failure = self._outcome = None
        assert outcome
        try:
            if isinstance(outcome, BaseException):
                if background.is_ending and self.thread.daemon:
                    _refuse_after_end()  # whatever it is, it comes of the end
                raise outcome
            return outcome[0]
        finally:
            del outcome  # the error's traceback has this frame


# The run() whose coroutine, or a task of it, is executed.
_job: ContextVar[weakref.ref[_Job[object]]] = ContextVar("_job")


class _BackgroundLoop:
    """A running event loop that ends with the program.

    `SystemExit` and `KeyboardInterrupt` in a task or callback stop an event loop. This one goes on,
    and the exception goes to the `run` that the task belongs to.
    """

    def __init__(self) -> None:
        self.process_id = os.getpid()
        self.is_ending = self.is_dead = False
        # By their ids, as long as anybody waits for them; iterated over in another thread.
        self.jobs: weakref.WeakValueDictionary[int, _Job[object]] = weakref.WeakValueDictionary()
        self.loop: asyncio.AbstractEventLoop = asyncio_module().new_event_loop()
        self.thread = threading.Thread(target=self._serve, name="minillmlib", daemon=True)
        self.thread.start()
        atexit.register(self.end)

    def _serve(self) -> None:
        while not self.is_ending:
            try:
                self.loop.run_forever()  # a coroutine may call `stop`
            except (SystemExit, KeyboardInterrupt) as error:
                self._deliver(error)
            except BaseException as error:  # noqa: BLE001 - told to those that wait
                self._die(error)
                return

    def _deliver(self, error: BaseException) -> None:
        """Raise `error` in the `run` it comes from, else in the main thread's, else in any."""
        jobs = self._running_jobs()
        owner = _owner_of(error)
        jobs.sort(key=lambda job: (job is not owner, job.thread is not threading.main_thread()))
        if jobs:
            jobs[0].interrupt(error, self.loop)
        else:
            logger().error(
                "a task of the background event loop raised %s after its run() had ended",
                type(error).__name__,
                exc_info=error,
            )

    def _running_jobs(self) -> list[_Job[object]]:
        jobs = [reference() for reference in self.jobs.valuerefs()]
        return [job for job in jobs if job is not None and not job.done.is_set]

    def _die(self, error: BaseException) -> None:
        """Raise a typed error in every `run`; the next one starts a new loop."""
        with _start_lock:
            self.is_dead = True
        for job in self._running_jobs():
            job.fail(
                ReadError(
                    f"the background event loop has ended ({type(error).__name__}: {error}), and "
                    "with it all that run() and iterate() ran; call them again to start a new loop"
                )
            )

    def end(self) -> None:
        """Close the pooled connections and the loop."""
        if self.process_id != os.getpid() or self.is_dead:
            return  # a forked child: the loop runs in the parent
        with _start_lock:
            self.is_ending = True
        job = _Job(_end_tasks)
        self.loop.call_soon_threadsafe(job.start, self)
        job.done.wait(END_SECS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(END_SECS)
        if not self.loop.is_running():
            self.loop.close()


def _owner_of(error: BaseException) -> _Job[object] | None:
    """Return the job in whose context a callback of the loop raised `error`, if any."""
    trace = error.__traceback__
    while trace is not None:
        handle = trace.tb_frame.f_locals.get("self")
        if isinstance(handle, asyncio_module().Handle):
            context = getattr(handle, "_context", None)  # other loops may have none
            owner = None if context is None else context.get(_job)
            return None if owner is None else owner()
        trace = trace.tb_next
    return None


async def _end_tasks() -> None:
    asyncio = asyncio_module()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


# Held again where the garbage collector closes an unread `iterate` within `_background_loop`.
_start_lock = threading.RLock()
_current: _BackgroundLoop | None = None


def _background_loop(job: _Job[T]) -> _BackgroundLoop:
    """Return the loop of this process for `job`; start it on the first call, or if it has died."""
    global _current  # noqa: PLW0603 - the one lazily made loop
    with _start_lock:
        if _current is None or _current.is_dead:
            _current = _BackgroundLoop()
        if threading.get_ident() == _current.thread.ident:
            raise InvalidParameterError(
                "run() cannot be used inside a coroutine that run() runs; use await"
            )
        if _current.is_ending:
            _refuse_after_end()
        _current.jobs[id(job)] = job
        return _current


def _forget_loop() -> None:
    """Forget the loop in a forked child: it runs in the parent, whose threads may hold the lock."""
    global _current, _start_lock
    _current, _start_lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)
