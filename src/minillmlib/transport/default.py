"""The engine that sends when the caller has handed in none."""

from __future__ import annotations

from functools import cache

from minillmlib.errors import ConnectError
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport

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
    """The process's one engine."""
    return _SharedEngine()


class _SharedEngine:
    """The aiohttp engine, imported at the first request.

    That takes a tenth of a second, so it happens beside the event loop, which goes on meanwhile.
    """

    def __init__(self) -> None:
        self._engine: Transport | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """See `Transport.send`."""
        if self._engine is None:
            import asyncio  # noqa: PLC0415 - a third of our import, and the running loop has it

            request.departure.may_have_left = False
            try:
                await asyncio.to_thread(_import_engine)
            except OSError as error:
                raise ConnectError(f"the HTTP engine could not be loaded ({error})") from None
            self._engine = _engine()  # here, not in a thread: many requests may have waited
        return await self._engine.send(request)


@cache
def _engine() -> Transport:
    return _import_engine()()


def _import_engine() -> type[Transport]:
    from minillmlib.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - see above

    return AiohttpTransport
