"""The one door to asyncio, whose import is a third of ours."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["asyncio_module", "running_loop"]


@cache
def asyncio_module() -> ModuleType:
    """Return asyncio. A program with a running event loop has imported it already."""
    import asyncio  # noqa: PLC0415 - see above

    return asyncio


def running_loop() -> AbstractEventLoop:
    """Return the running event loop."""
    loop: AbstractEventLoop = asyncio_module().get_running_loop()
    return loop
