"""What is told about a completion: to the log, attempt by attempt, and to its callback, once."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from minillmlib.types.attempts import Attempt, CostInfo
from minillmlib.types.parameters import CostCallback

if TYPE_CHECKING:
    from asyncio import Future, Task
    from logging import Logger

__all__ = [
    "Reporting",
    "all_reported",
    "log_attempt",
    "log_failure",
    "report",
    "report_later",
    "waited_for",
]

CALLBACK_SECS = 10.0

Reporting: TypeAlias = "Future[None] | None"

# The work of callbacks until it has ended; the loop itself would forget the tasks.
_reporting: dict[Future[None], Task[None]] = {}


def report(callback: CostCallback, info: CostInfo) -> Reporting:
    """Calls back. Of a coroutine function gives the future of its end, for those who can wait.

    Whatever the callback raises is logged: it loses neither the record nor the answer.
    """
    import asyncio  # noqa: PLC0415 - see `transport.watchdog`

    try:
        answer = callback(info)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller's own code
        log_failure(error)
        return None
    if not inspect.isawaitable(answer):
        return None

    def work() -> Coroutine[object, object, None]:
        return _to_the_end(answer)

    def lost() -> None:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        _logger().error("a coroutine of a cost_callback was not run: its event loop has ended")

    def again() -> None:
        if _begun(work, lost, CALLBACK_SECS) is None:
            lost()

    over = _begun(work, again, CALLBACK_SECS)
    if over is None:
        lost()
    return over


def report_later(
    callback: CostCallback, later: Callable[[], Awaitable[CostInfo]], now: Callable[[], CostInfo]
) -> Reporting:
    """Calls back with what `later` gives; if there is no more time for it, with what is known."""

    async def work() -> None:
        info = None
        try:
            info = await later()
        finally:  # also when the loop comes to its end meanwhile
            await waited_for(report(callback, now() if info is None else info))

    def at_once() -> Reporting:
        return report(callback, now())

    return _begun(work, at_once) or at_once()


def _begun(
    make: Callable[[], Coroutine[object, object, None]],
    unbegun: Callable[[], object],
    secs: float | None = None,
) -> Reporting:
    """The end of a work that has now begun, as a task, or None if the loop has ended.

    Given up after so many `secs`. A loop that ends may cancel a task before its first step;
    then `unbegun` is called.
    """
    import asyncio  # noqa: PLC0415 - see `transport.watchdog`

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    over: Future[None] = loop.create_future()
    has_begun = False

    async def work() -> None:
        nonlocal has_begun
        has_begun = True
        await make()

    def end(_task: Task[None]) -> None:
        if timer is not None:
            timer.cancel()
        if not has_begun:
            unbegun()
        del _reporting[over]
        if not over.done():
            over.set_result(None)

    def give_up() -> None:
        task.cancel()
        _logger().error("a cost_callback did not end within %g s", secs)
        if not over.done():  # nobody waits for one that does not heed it
            over.set_result(None)

    task = loop.create_task(work())
    timer = None if secs is None else loop.call_later(secs, give_up)
    _reporting[over] = task
    task.add_done_callback(end)
    return over


async def waited_for(over: Reporting) -> None:
    """Waits for an end; when cancelled, leaves the work to go on."""
    import asyncio  # noqa: PLC0415 - see `transport.watchdog`

    if over is not None:
        await asyncio.wait({over})


async def all_reported() -> None:
    """Waits for all reports that are now under way in this event loop."""
    import asyncio  # noqa: PLC0415 - see `transport.watchdog`

    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)  # in which a stream that was just dropped begins its own
    under_way = {over for over in _reporting if over.get_loop() is loop and not over.done()}
    if under_way:
        await asyncio.wait(under_way)


async def _to_the_end(answer: Awaitable[None]) -> None:
    try:
        await answer
    except Exception as error:  # noqa: BLE001 - the caller's own code
        log_failure(error)


def log_failure(error: BaseException) -> None:
    """What a callback raised."""
    _logger().error("a cost_callback failed", exc_info=error)


def log_attempt(attempt: Attempt) -> None:
    """One line at level DEBUG: never a body, a header or anything else that could be secret."""
    if sys.is_finalizing():  # a stream that outlives its program; nothing can be imported now
        return
    logger = _logger()
    if logger.isEnabledFor(10):
        where = urlsplit(attempt.url)
        logger.debug(
            "POST %s%s: %s, status %s, %d bytes sent, %.3f s, request %s",
            where.netloc, where.path, attempt.outcome.value, attempt.status, attempt.sent_bytes,
            attempt.elapsed_secs, attempt.request_id,
        )  # fmt: skip


@cache
def _logger() -> Logger:
    import logging  # noqa: PLC0415 - a tenth of our import

    return logging.getLogger("minillmlib")
