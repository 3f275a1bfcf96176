"""Modules of the standard library that are imported on first use, because their import is slow.

To the rest of `import minillmlib`, asyncio would add a half, logging a twentieth, json a thirtieth.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


@cache
def asyncio_module() -> ModuleType:
    """Return asyncio. A program with a running event loop has imported it already."""
    import asyncio  # noqa: PLC0415 - see above

    return asyncio


@cache
def json_module() -> ModuleType:
    """Return the standard library's json, which unlike msgspec encodes any number."""
    import json  # noqa: PLC0415 - see above

    return json


@cache
def logger() -> Logger:
    """Return the library's logger, `minillmlib`."""
    import logging  # noqa: PLC0415 - see above

    return logging.getLogger("minillmlib")
