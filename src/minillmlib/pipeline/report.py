"""What is told about a completion: to the log, attempt by attempt, and to its callback, once."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from minillmlib.values.attempts import Attempt, CostInfo
from minillmlib.values.parameters import CostCallback

if TYPE_CHECKING:
    from asyncio import Task
    from logging import Logger

__all__ = ["Reporting", "log_attempt", "report", "waited_for"]

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
    if not inspect.isawaitable(answer):
        return None
    work = _to_the_end(answer)
    try:
        task = asyncio.get_running_loop().create_task(work)
    except RuntimeError:
        work.close()
        _logger().error("a cost_callback was not called: its event loop has ended")
        return None
    _reporting.add(task)
    task.add_done_callback(_reporting.discard)
    return task


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
