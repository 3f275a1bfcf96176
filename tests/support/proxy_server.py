"""A proxy for plain HTTP and for tunnels, which notes who asks it for what.

Use it where a request must go through a proxy, or must not. It resolves no name: every target is
the server at `target_port` of this machine, so that tests can use names that do not exist.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re

from server import Exchange, Server


class ProxyServer(Server):
    """Forwards every request to `target_port`; with a `login` ("user:password") only who knows it.

    `refusal` is a status line for all who ask, instead of a connection.
    """

    def __init__(
        self, target_port: int, *, login: str | None = None, refusal: str | None = None
    ) -> None:
        super().__init__(self._forward)
        self.target_port = target_port
        self.refusal = refusal
        self._wanted = login and f"Basic {base64.b64encode(login.encode()).decode()}"

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    @property
    def lines(self) -> list[str]:
        """What was asked for: the method and the target of each request."""
        return [exchange.request_line.rpartition(" ")[0] for exchange in self.requests]

    async def _forward(self, exchange: Exchange) -> None:
        if self.refusal is not None:
            await exchange.answer(b"no", self.refusal, "text/plain")
            return
        if self._wanted not in (None, exchange.headers.get("proxy-authorization")):
            await exchange.answer(b"who?", "407 Proxy Authentication Required", "text/plain")
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        try:
            if exchange.method == "CONNECT":
                await exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await _tunnel(exchange, reader, writer)
            else:
                writer.write(_origin_form(exchange))
                await exchange.send(await _read_answer(reader))
        finally:
            writer.transport.abort()


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    """A whole answer, framed by a length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length is None:
        return head + await reader.readuntil(b"0\r\n\r\n")
    return head + await reader.readexactly(int(length[1]))


async def _tunnel(
    exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    up = asyncio.create_task(_pump_up(exchange, writer))
    try:
        while data := await reader.read(65536):
            await exchange.send(data)
    finally:
        up.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await up


async def _pump_up(exchange: Exchange, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(await exchange.connection.read_some())


def _origin_form(exchange: Exchange) -> bytes:
    """The request as a server takes it, without what was meant for the proxy."""
    path = "/" + exchange.path.split("/", 3)[3]
    headers = {k: v for k, v in exchange.headers.items() if k != "proxy-authorization"}
    lines = [f"{exchange.method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join((*lines, "", "")).encode() + exchange.body
