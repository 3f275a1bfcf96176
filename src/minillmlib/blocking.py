"""The blocking door: the same library for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine, Iterator
from typing import TypeVar

from minillmlib.errors import InvalidParameterError
from minillmlib.tree.node import StreamingCompletion
from minillmlib.values.responses import StreamChunk

__all__ = ["iterate", "run"]

T = TypeVar("T")

END_SECS = 2.0

_start_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = (0, 0)  # the process and the thread that run the loop


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Runs a coroutine to its end and returns its result; works in notebooks too.

    All calls share one background event loop, so connections are kept between them. Ctrl-C
    cancels the coroutine. Raises `InvalidParameterError` when called from that loop itself.
    """
    loop = _background_loop()
    if threading.get_ident() == _owner[1]:
        coroutine.close()
        raise InvalidParameterError("run() would wait for itself here; use await")
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate(stream: StreamingCompletion) -> Iterator[StreamChunk]:
    """The chunks of a stream in a plain `for` loop; leaving the loop closes the connection."""
    try:
        while (chunk := run(_next_chunk(stream))) is not None:
            yield chunk
    finally:
        run(stream.aclose())


async def _next_chunk(stream: StreamingCompletion) -> StreamChunk | None:
    return await anext(stream, None)


def _background_loop() -> asyncio.AbstractEventLoop:
    """The loop in its own thread; a forked child gets one of its own."""
    global _loop, _owner  # noqa: PLW0603 - the one lazily made loop
    with _start_lock:
        if _loop is None or _owner[0] != os.getpid():
            _loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_loop.run_forever, name="minillmlib", daemon=True)
            thread.start()
            _owner = (os.getpid(), thread.ident or 0)
            atexit.register(_end, _loop, thread, os.getpid())
    return _loop


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process_id: int) -> None:
    """Closes the kept connections and the loop when the program ends."""
    if process_id != os.getpid():
        return
    with contextlib.suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result(END_SECS)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(END_SECS)
    if not loop.is_running():
        loop.close()
