"""The transport whose server is a child process, started at the first request."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import msgspec

from minillmlib.auth.secret import Secret
from minillmlib.errors import ConnectError, LocalModelError, ReadError
from minillmlib.local.server import LocalServer, shared_server
from minillmlib.transport import default
from minillmlib.transport.base import HttpRequest, HttpResponse, note_not_sent, was_sent

CREDENTIAL_HEADERS = ("authorization", "x-api-key")


class LocalTransport(msgspec.Struct, frozen=True):
    """Sends every request to this process's server of `model`, whatever origin its URL names.

    Holds only the path of a GGUF file, or None for the built-in model. So it can be compared,
    pickled and sent to another process, which starts its own server.
    """

    model: str | os.PathLike[str] | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send `request` once, with the server's key; start the server if it is not running.

        A start continues when the call that began it is cancelled, and serves the next call.
        Raises the errors of `LocalServer.start` and `Transport.send`, and `LocalModelError` if
        the server's process ended during the exchange.
        """
        try:
            server = shared_server(self.model)
            if not server.is_running:
                await asyncio.to_thread(server.start)
        except BaseException as error:
            note_not_sent(error)
            raise
        try:
            return await default.shared_engine().send(_readdress(request, server))
        except (ConnectError, ReadError) as error:
            end = await asyncio.to_thread(server.describe_end)
            if end is None:
                raise
            failure = LocalModelError(
                f"the local model's process ended during the call ({end}); "
                "the next call starts a new one"
            )
            failure.was_sent = was_sent(error)
            raise failure from error


def _readdress(request: HttpRequest, server: LocalServer) -> HttpRequest:
    """Replace the origin and the credential of `request` by those of the server."""
    origin = urlsplit(server.url)
    url = urlsplit(request.url)._replace(scheme=origin.scheme, netloc=origin.netloc).geturl()
    others = (pair for pair in request.headers if pair[0].lower() not in CREDENTIAL_HEADERS)
    headers = (*others, ("authorization", Secret(f"Bearer {server.key}")))
    return msgspec.structs.replace(request, url=url, headers=headers, proxy=None)
