"""A loopback HTTP server whose every byte a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request as it came, and the wire to answer on."""

    def __init__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, connection: int):
        self.seen: list[Exchange] = []  # all exchanges so far, with this one
        lines = head.decode("latin-1").split("\r\n")
        self.request_line = lines[0]
        parted = (line.partition(":") for line in lines[1:] if line)
        self.headers = {name.lower(): value.strip() for name, _, value in parted}
        self.body = body
        self.connection = connection
        self.has_hung_up = asyncio.Event()
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, status: str = "200 OK", kind: str = "application/json"):
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.send(head.encode() + body)

    async def start_events(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    def hang_up(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler):
    """Serves `handler` on 127.0.0.1; yields the base URL and the list of exchanges so far."""
    exchanges: list[Exchange] = []
    connections = 0
    tasks: set[asyncio.Task] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        connection = connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                exchange = Exchange(head, body, writer, connection)
                exchanges.append(exchange)
                exchange.seen = list(exchanges)
                watcher = asyncio.create_task(watch(reader, exchange))
                await handler(exchange)
                watcher.cancel()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def watch(reader: asyncio.StreamReader, exchange: Exchange) -> None:
        while not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.005)
        exchange.has_hung_up.set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", exchanges
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
