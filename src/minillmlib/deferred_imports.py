"""Imports asyncio on first use: it takes half as long as everything else together."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from minillmlib.errors import InvalidParameterError
from minillmlib.locks import delay_forks_over_imports, import_lock

if TYPE_CHECKING:
    from logging import Logger


@cache
def asyncio_module() -> ModuleType:
    """Return asyncio. A program with a running event loop has imported it already."""
    return _import()[0]


def no_loop_error(error: RuntimeError) -> Exception:
    """Return the error to raise where `get_running_loop` has raised `error`."""
    if isinstance(error, RecursionError):
        return error
    return InvalidParameterError(
        "no event loop of asyncio runs here, and minillmlib needs one. In plain code, call "
        "minillmlib.run(...). Under trio, call that in a thread, as in "
        "`await trio.to_thread.run_sync(run, node.chat(...))`, or run asyncio inside trio with "
        "trio-asyncio; under anyio, choose its backend asyncio"
    )


@cache
def logger() -> Logger:
    """Return the library's logger, `minillmlib`. asyncio brings logging along."""
    return _import()[1]


@cache
def _import() -> tuple[ModuleType, Logger]:
    import logging  # noqa: PLC0415 - see above

    delay_forks_over_imports()
    with import_lock:
        import asyncio  # noqa: PLC0415 - see above

        with suppress(OSError):  # no file may be opened now
            # Event loops import it on first use, without the lock.
            import concurrent.futures.thread  # noqa: F401, PLC0415 - see above

    return asyncio, logging.getLogger("minillmlib")
