"""The engine that sends when the caller has handed in none."""

from __future__ import annotations

from functools import cache

from minillmlib.transport.contract import Transport

__all__ = ["default_transport"]


@cache
def default_transport() -> Transport:
    """The process's shared engine. The HTTP library is imported at the first call."""
    from minillmlib.transport.aiohttp_engine import AiohttpTransport  # noqa: PLC0415 - see above

    return AiohttpTransport()
