"""Calls the cost callback of a completion, once, and waits for it within bounds."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from minillmlib.event_loop import asyncio_module
from minillmlib.types.costs import CostInfo
from minillmlib.types.parameters import CostCallback

if TYPE_CHECKING:
    from asyncio import Future, Task
    from logging import Logger

__all__ = ["Report", "flush", "log_failure", "logger", "report", "report_deferred", "wait"]

CALLBACK_SECS = 10.0

Report: TypeAlias = "Future[None] | None"  # done when the callback is; None if it is already

# The running callbacks; the event loop itself would forget their tasks.
_running: dict[Future[None], Task[None]] = {}


def report(callback: CostCallback, info: CostInfo) -> Report:
    """Call `callback`. If it is a coroutine function, return a future for its end.

    What the callback raises is logged: it loses neither the record nor the answer.
    """
    try:
        answer = callback(info)
    except (Exception, asyncio_module().CancelledError) as error:  # noqa: BLE001 - the caller's code
        log_failure(error)
        return None
    if not inspect.isawaitable(answer):
        return None

    def start() -> Coroutine[object, object, None]:
        return _await_logged(answer)

    def drop() -> None:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        logger().error("a coroutine of a cost_callback was not run: its event loop has ended")

    def start_again() -> None:
        if _spawn(start, drop, CALLBACK_SECS) is None:
            drop()

    end = _spawn(start, start_again, CALLBACK_SECS)
    if end is None:
        drop()
    return end


def report_deferred(
    callback: CostCallback | None,
    fetch: Callable[[], Awaitable[CostInfo]],
    known: Callable[[], CostInfo],
) -> Report:
    """Call `callback`, if there is one, with what `fetch` returns in time, else what is `known`."""

    async def fetch_and_report() -> None:
        info = None
        try:
            info = await fetch()
        finally:  # also when the loop ends meanwhile
            await wait(report_now(info))

    def report_now(info: CostInfo | None = None) -> Report:
        return None if callback is None else report(callback, info or known())

    return _spawn(fetch_and_report, report_now) or report_now()


def _spawn(
    start: Callable[[], Coroutine[object, object, None]],
    on_not_started: Callable[[], object],
    timeout_secs: float | None = None,
) -> Report:
    """Start `start()` as a task and return a future for its end, or None if no loop is running.

    It is cancelled after `timeout_secs`. A loop that ends may cancel a task before its first
    step; then `on_not_started` is called.
    """
    try:
        loop = asyncio_module().get_running_loop()
    except RuntimeError:
        return None
    end: Future[None] = loop.create_future()
    has_started = False

    async def run() -> None:
        nonlocal has_started
        has_started = True
        await start()

    def finish(_task: Task[None]) -> None:
        if timer is not None:
            timer.cancel()
        if not has_started:
            on_not_started()
        del _running[end]
        if not end.done():
            end.set_result(None)

    def give_up() -> None:
        task.cancel()
        logger().error("a cost_callback did not end within %g s", timeout_secs)
        if not end.done():  # do not wait for one that ignores its cancellation
            end.set_result(None)

    task = loop.create_task(run())
    timer = None if timeout_secs is None else loop.call_later(timeout_secs, give_up)
    _running[end] = task
    task.add_done_callback(finish)
    return end


async def wait(end: Report) -> None:
    """Wait for the end of a callback; when cancelled, let the callback go on."""
    if end is not None:
        await asyncio_module().wait({end})


async def flush() -> None:
    """Wait for all callbacks that now run in this event loop."""
    asyncio = asyncio_module()
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # lets a stream that was just dropped start its own
    running = {end for end in _running if end.get_loop() is loop and not end.done()}
    if running:
        await asyncio.wait(running)


async def _await_logged(answer: Awaitable[None]) -> None:
    try:
        await answer
    except Exception as error:  # noqa: BLE001 - the caller's own code
        log_failure(error)


def log_failure(error: BaseException) -> None:
    """Log what a callback raised."""
    logger().error("a cost_callback failed", exc_info=error)


@cache
def logger() -> Logger:
    import logging  # noqa: PLC0415 - a tenth of our import

    return logging.getLogger("minillmlib")
