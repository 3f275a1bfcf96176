"""The door to asyncio, which is imported on first use: it takes half as long as all the rest."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


@cache
def asyncio_module() -> ModuleType:
    """Return asyncio. A program with a running event loop has imported it already."""
    return _import()[0]


@cache
def logger() -> Logger:
    """Return the library's logger, `minillmlib`. asyncio brings logging along."""
    return _import()[1]


@cache
def _import() -> tuple[ModuleType, Logger]:
    import asyncio  # noqa: PLC0415 - see above
    import logging  # noqa: PLC0415 - see above

    return asyncio, logging.getLogger("minillmlib")
