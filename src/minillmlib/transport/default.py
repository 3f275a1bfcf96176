"""The engine for generators without a transport of their own."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import ConnectError, InvalidParameterError
from minillmlib.locks import import_lock
from minillmlib.transport.base import (
    HttpRequest,
    HttpResponse,
    Transport,
    check_transport,
    note_not_sent,
)

_overrides: list[Transport] = []  # in place of the engine; the last one is used


def default_transport() -> Transport:
    """Return the transport of generators that name none."""
    return _overrides[-1] if _overrides else shared_engine()


@contextmanager
def override_default_transport(transport: Transport) -> Iterator[None]:
    """Replace the engine by `transport` until this ends, in whatever order several of them end."""
    if transport is None:
        raise InvalidParameterError("use_transport needs a transport, not None")
    check_transport(transport)
    _overrides.append(transport)
    try:
        yield
    finally:
        last = next(n for n in reversed(range(len(_overrides))) if _overrides[n] is transport)
        del _overrides[last]


def transport_below(transport: Transport) -> Transport:
    """Return what sends for a transport that wraps the one of generators without one of their own.

    That is the next outer one if it is in use itself, else the one in use.
    """
    for number, override in enumerate(_overrides):
        if _wraps(override, transport):
            return _overrides[number - 1] if number else shared_engine()
    return default_transport()


def _wraps(transport: Transport | None, inner: Transport) -> bool:
    while transport is not None and transport is not inner:
        transport = getattr(transport, "__dict__", {}).get("inner")  # a mock has any attribute
    return transport is inner


@cache
def shared_engine() -> Transport:
    """Return the one engine of the process."""
    return _SharedEngine()


class _SharedEngine:
    """The aiohttp engine, imported at the first request.

    The import takes a tenth of a second, so it runs in a thread while the event loop goes on.
    """

    def __init__(self) -> None:
        self._engine: Transport | None = None

    def send(self, request: HttpRequest) -> Coroutine[Any, Any, HttpResponse]:
        """Send `request` once. See `Transport.send`."""
        engine = self._engine
        return self._load_and_send(request) if engine is None else engine.send(request)

    async def _load_and_send(self, request: HttpRequest) -> HttpResponse:
        try:
            await asyncio_module().to_thread(_import_engine)
        except OSError as error:
            raise ConnectError(f"the HTTP engine could not be loaded ({error})") from None
        except BaseException as error:
            note_not_sent(error)
            raise
        self._engine = _engine()  # not in the thread: many requests may have waited
        return await self._engine.send(request)


def _engine() -> Transport:
    """Return the one engine, also to threads that ask for it at the same time."""
    with import_lock:
        return _new_engine()


@cache
def _new_engine() -> Transport:
    return _import_engine()()


def _import_engine() -> type[Transport]:
    with import_lock:
        from minillmlib.transport.aiohttp import AiohttpTransport  # noqa: PLC0415 - see above

    return AiohttpTransport
