"""Calls the cost callback of a completion, once, and waits for it within bounds."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING

from minillmlib.deferred_imports import asyncio_module, logger, no_loop_error
from minillmlib.types.costs import CostInfo
from minillmlib.types.parameters import CostCallback

if TYPE_CHECKING:
    from asyncio import Future, Task

CALLBACK_SECS = 10.0

# The running callbacks; the event loop itself would forget their tasks.
_running: dict[Future[None], Task[None]] = {}


class Report:
    """The callbacks that still run. Await it for their end; when cancelled, they go on."""

    def __init__(self, *ends: Future[None]) -> None:
        self.ends = ends

    def __await__(self) -> Generator[object, None, None]:
        if self.ends:
            yield from asyncio_module().wait(set(self.ends)).__await__()


DONE = Report()


def report(
    callback: CostCallback,
    info: CostInfo,
    note_failure: Callable[[BaseException], object] = lambda _: None,
) -> Report:
    """Call `callback`. If it is a coroutine function, run its coroutine, at most 10 s.

    A failure of the callback is logged and noted: it loses neither the record nor the answer.
    """
    try:
        answer = callback(info)
    except (Exception, asyncio_module().CancelledError) as error:  # noqa: BLE001 - the caller's code
        logger().error("a cost_callback failed", exc_info=error)
        note_failure(error)
        return DONE
    if isinstance(answer, Report):  # a context has reported to its callbacks
        return answer
    if not inspect.isawaitable(answer):
        return DONE

    def drop() -> Report:
        if inspect.iscoroutine(answer):
            answer.close()
        logger().error("a coroutine of a cost_callback was not run: its event loop has ended")
        return DONE

    start = partial(_run, answer, note_failure)
    start_again = partial(_spawn, start, drop, CALLBACK_SECS)
    return _spawn(start, start_again, CALLBACK_SECS)


async def _run(answer: Awaitable[None], note_failure: Callable[[BaseException], object]) -> None:
    try:
        await answer
    except asyncio_module().CancelledError as error:  # it took too long, or the loop ends
        note_failure(error)
        raise
    except Exception as error:  # noqa: BLE001 - the caller's own code
        logger().error("a cost_callback failed", exc_info=error)
        note_failure(error)


def report_deferred(
    callback: CostCallback | None, fetch: Callable[[], Awaitable[CostInfo]], known: CostInfo
) -> Report:
    """Call `callback`, if there is one, with what `fetch` returns in time, else what is `known`."""

    def report_now(info: CostInfo = known) -> Report:
        return DONE if callback is None else report(callback, info)

    async def fetch_and_report() -> None:
        info = known
        try:
            info = await fetch()
        finally:  # also when the loop ends meanwhile
            await report_now(info)

    return _spawn(fetch_and_report, report_now)


def _spawn(
    start: Callable[[], Coroutine[object, object, None]],
    on_not_started: Callable[[], Report],
    timeout_secs: float | None = None,
) -> Report:
    """Run `start()` in a task, which is cancelled after `timeout_secs`.

    Call `on_not_started` where no loop is running, or if the loop ends and cancels the task
    before its first step.
    """
    try:
        loop = asyncio_module().get_running_loop()
    except RecursionError:  # a RuntimeError, too
        raise
    except RuntimeError:
        return on_not_started()
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
    return Report(end)


async def flush() -> None:
    """Wait for all callbacks that now run in this event loop."""
    try:
        loop = asyncio_module().get_running_loop()
    except RuntimeError as error:
        raise no_loop_error(error) from None
    await asyncio_module().sleep(0)  # lets a stream that was just dropped start its own
    await Report(*(end for end in _running if end.get_loop() is loop))
