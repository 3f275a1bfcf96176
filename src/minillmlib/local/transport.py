"""The transport whose server is a child process, started when the first request comes."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import msgspec

from minillmlib.errors import ConnectError, LocalModelError, ReadError
from minillmlib.local.server import LocalServer, shared_server
from minillmlib.transport.base import HttpRequest, HttpResponse

__all__ = ["LocalTransport"]

CREDENTIAL_HEADERS = ("authorization", "x-api-key")


class LocalTransport(msgspec.Struct, frozen=True):
    """Sends every request to this process's server of `model`, whatever origin its URL names.

    Holds nothing but the name of a GGUF file, or None for the built-in model, so it can be
    compared, pickled and sent to another process, which then starts a server of its own.
    """

    model: str | os.PathLike[str] | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends `request` once, with the server's key, after starting the server if need be.

        A start goes on when the call that began it is cancelled; the next call finds it.
        Raises what `LocalServer.start` raises, what `Transport.send` raises, and
        `LocalModelError` when the server's process ended during the exchange.
        """
        from minillmlib.transport.default import shared_engine  # noqa: PLC0415 - only now needed

        request.departure.may_have_left = False
        server = shared_server(self.model)
        if not server.is_running:
            await asyncio.to_thread(server.start)
        try:
            return await shared_engine().send(_addressed(request, server))
        except (ConnectError, ReadError) as error:
            end = await asyncio.to_thread(server.describe_end)
            if end is None:
                raise
            raise LocalModelError(
                f"the local model's process ended during the call ({end}); "
                "the next call starts a new one"
            ) from error


def _addressed(request: HttpRequest, server: LocalServer) -> HttpRequest:
    """`request` with the server's origin and key in place of its own."""
    ours, asked = urlsplit(server.url), urlsplit(request.url)
    url = asked._replace(scheme=ours.scheme, netloc=ours.netloc).geturl()
    kept = tuple(pair for pair in request.headers if pair[0].lower() not in CREDENTIAL_HEADERS)
    headers = (*kept, ("authorization", f"Bearer {server.key}"))
    return msgspec.structs.replace(request, url=url, headers=headers)
