"""What is told about a completion: to the log, attempt by attempt, and to its callback, once."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from minillmlib.values.attempts import Attempt, CostInfo
from minillmlib.values.parameters import CostCallback

if TYPE_CHECKING:
    from asyncio import Task
    from logging import Logger

__all__ = [
    "Reporting",
    "all_reported",
    "finished",
    "log_attempt",
    "report",
    "report_later",
    "waited_for",
]

CALLBACK_SECS = 10.0

Reporting: TypeAlias = "Task[None] | None"

# The tasks of callbacks that are at work; the loop itself would forget them.
_reporting: set[Task[None]] = set()


def report(callback: CostCallback, info: CostInfo) -> Reporting:
    """Calls back. Gives the task of a coroutine function, for those who can wait for it.

    Whatever the callback raises is logged: it loses neither the record nor the answer.
    """
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    try:
        answer = callback(info)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - the caller's own code
        _logger().exception("a cost_callback failed")
        return None
    return _begun(_to_the_end(answer), answer) if inspect.isawaitable(answer) else None


def report_later(
    callback: CostCallback, later: Callable[[], Awaitable[CostInfo]], now: Callable[[], CostInfo]
) -> Reporting:
    """Calls back with what `later` gives; if there is no more time for it, with what is known."""

    async def work() -> None:
        info = None
        try:
            info = await later()
        finally:  # also when the loop comes to its end meanwhile
            task = report(callback, now() if info is None else info)
            if task is not None:
                await finished(task)

    task = _begun(work())
    return report(callback, now()) if task is None else task


def _begun(work: Coroutine[object, object, None], inner: object = None) -> Reporting:
    """The work as a task that somebody holds, or None if the loop has ended."""
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        for coroutine in (work, inner):
            if inspect.iscoroutine(coroutine):
                coroutine.close()
        _logger().error("a coroutine of a cost_callback was not run: its event loop has ended")
        return None
    _reporting.add(task)
    task.add_done_callback(_reporting.discard)
    return task


async def finished(task: Task[None]) -> None:
    """Waits for the end of a task; when cancelled, leaves it to go on."""
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    await asyncio.wait({task})


async def all_reported() -> None:
    """Waits for all reports that are under way in this event loop."""
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    loop = asyncio.get_running_loop()
    while under_way := {task for task in _reporting if task.get_loop() is loop}:
        await asyncio.wait(under_way)


async def waited_for(task: Reporting) -> None:
    """Waits for a callback, but not for ever."""
    if task is None:
        return
    import asyncio  # noqa: PLC0415 - see `transport.exchange`

    _, unfinished = await asyncio.wait({task}, timeout=CALLBACK_SECS)
    if unfinished:
        task.cancel()
        _logger().error("a cost_callback did not end within %g s", CALLBACK_SECS)


async def _to_the_end(answer: Awaitable[None]) -> None:
    try:
        await answer
    except Exception:  # noqa: BLE001 - the caller's own code
        _logger().exception("a cost_callback failed")
    finally:
        if inspect.iscoroutine(answer):
            answer.close()  # if it was never begun


def log_attempt(attempt: Attempt) -> None:
    """One line at level DEBUG: never a body, a header or anything else that could be secret."""
    logger = _logger()
    if logger.isEnabledFor(10):
        where = urlsplit(attempt.url)
        logger.debug(
            "POST %s%s: %s, status %s, %d bytes sent, %.3f s, request %s",
            where.netloc, where.path, attempt.outcome.value, attempt.status, attempt.sent_bytes,
            attempt.elapsed_secs, attempt.request_id,
        )  # fmt: skip


def _logger() -> Logger:
    import logging  # noqa: PLC0415 - a tenth of our import

    return logging.getLogger("minillmlib")
