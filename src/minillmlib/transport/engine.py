"""The engine that sends when the caller has handed in none."""

from __future__ import annotations

from functools import cache

from minillmlib.transport.contract import Transport

__all__ = ["default_transport", "set_default_transport", "shared_engine"]

_override: Transport | None = None


def default_transport() -> Transport:
    """What carries the requests of generators without a transport of their own."""
    return _override or shared_engine()


def set_default_transport(transport: Transport | None) -> Transport | None:
    """Puts a transport in the engine's place, or None to take it out; returns the one before."""
    global _override
    previous, _override = _override, transport
    return previous


@cache
def shared_engine() -> Transport:
    """The process's one engine. The HTTP library is imported at the first call."""
    from minillmlib.transport.aiohttp_engine import AiohttpTransport  # noqa: PLC0415 - see above

    return AiohttpTransport()
