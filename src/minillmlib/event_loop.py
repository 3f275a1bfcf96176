"""The one door to asyncio, whose import is a third of ours."""

from __future__ import annotations

from functools import cache
from types import ModuleType

__all__ = ["asyncio_module"]


@cache
def asyncio_module() -> ModuleType:
    """Return asyncio. A program with a running event loop has imported it already."""
    import asyncio  # noqa: PLC0415 - see above

    return asyncio
