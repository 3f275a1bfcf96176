"""A loopback server whose every byte a test decides, and which keeps account of what it saw.

Use `serving(handler)` to answer over a real socket in the event loop of the test. `Server` is
also the core of `FaultServer` (one fault after the other, on both wires), of `ThreadedServer` (in
a thread of its own, for what must be seen at once) and of `CacheServer` (a prompt cache).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any, Self

Handler = Callable[[Any], Awaitable[object]]

KEPT_BYTES = 1 << 20  # of what was sent, per request


class Exchange:
    """One request as it came, the connection to answer on, and an account of what was sent.

    Every wait ends when the client hangs up.
    """

    def __init__(self, connection: Connection, head: bytes, number: int) -> None:
        self.connection = connection
        self.number = number  # of the server's requests, from 1
        self.request_head = head
        self.request_line, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.path = (*self.request_line.split(" "), "")[:2]
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        self.body = b""
        self.has_all = False  # whether the whole request came
        self.status: int | None = None  # once all the headers are sent
        self.request_id: str | None = None
        self.payload = bytearray()  # the beginning of what was sent, without the framing of HTTP
        self.is_whole = False  # whether the answer was sent to its end
        self.is_chunked = True

    @property
    def length(self) -> int:
        """How many bytes the body has."""
        return int(self.headers.get("content-length", "0"))

    @property
    def seen(self) -> list[Exchange]:
        """All exchanges of the server up to this one."""
        requests = self.connection.server.requests
        return requests[: requests.index(self) + 1]

    @property
    def is_stream(self) -> bool:
        return b'"stream":true' in self.body

    @property
    def has_hung_up(self) -> asyncio.Event:
        """Set once the client has gone."""
        return self.connection.has_ended

    async def send(self, data: bytes) -> None:
        """Send bytes as they are, and wait until the client takes more."""
        await self.connection.send(data)

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body, in a chunk unless the head had a length."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data)
        self.note_payload(data)

    def note_payload(self, data: bytes) -> None:
        """Keep the beginning of what was sent."""
        self.payload += data[: KEPT_BYTES - len(self.payload)]

    async def head(
        self,
        status: str = "200 OK",
        kind: str | None = "application/json",
        *,
        length: int | None = None,
        headers: tuple[str, ...] = (),
    ) -> None:
        """Send the status and the headers; without a length the body comes in chunks."""
        self.is_chunked = length is None
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        request_id = f"req-{self.number}"
        lines = [f"HTTP/1.1 {status}", f"x-request-id: {request_id}", framing, *headers]
        if kind is not None:
            lines.append(f"Content-Type: {kind}")
        await self.send("\r\n".join((*lines, "", "")).encode())
        self.status, self.request_id = int(status[:3]), request_id

    async def bare(self, status: str) -> None:
        """Send a head that ends the answer, too."""
        await self.send(f"HTTP/1.1 {status}\r\n\r\n".encode())
        self.status, self.is_whole = int(status[:3]), True

    async def answer(
        self,
        body: bytes,
        status: str = "200 OK",
        kind: str | None = "application/json",
        headers: tuple[str, ...] = (),
    ) -> None:
        """Send a whole answer."""
        await self.head(status, kind, length=len(body), headers=headers)
        await self.chunk(body)
        await self.end()

    async def start_events(self, *events: bytes) -> None:
        """Send the head of an event stream, and events, each in a chunk."""
        await self.head(kind="text/event-stream")
        for event in events:
            await self.chunk(event)

    async def end(self) -> None:
        """End the body properly."""
        if self.is_chunked:
            await self.send(b"0\r\n\r\n")
        self.is_whole = True

    async def silence(self, secs: float | None = None) -> None:
        """Send nothing: until the client hangs up, or for a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.has_hung_up.wait(), secs)

    def close(self) -> None:
        """End the connection as programs do, once everything is out."""
        self.connection.close()

    def hang_up(self) -> None:
        """Drop the connection, with what is not out."""
        self.connection.transport.abort()

    def reset(self) -> None:
        """Break the connection, as a crash does."""
        self.connection.reset()


class Connection(asyncio.Protocol):
    """One accepted connection. Bytes are taken in as they come, so that an end is seen at once."""

    def __init__(self, server: Server) -> None:
        self.number = 0
        self.started = 0  # requests of which at least a byte came
        self.ended_at: float | None = None
        self.has_ended = asyncio.Event()
        self.exchange: Exchange | None = None  # the last one
        self.transport: asyncio.Transport
        self.task: asyncio.Task[None]
        self.server = server
        self._received = bytearray()
        self._is_between_requests = True
        self._has_arrived = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.server.accept(self)

    def data_received(self, data: bytes) -> None:
        self.started += self._is_between_requests
        self._is_between_requests = False
        self._received += data
        self._has_arrived.set()

    def eof_received(self) -> None:
        self._note_end()

    def connection_lost(self, _error: Exception | None) -> None:
        self._note_end()

    def pause_writing(self) -> None:
        self._may_send.clear()

    def resume_writing(self) -> None:
        self._may_send.set()

    def _note_end(self) -> None:
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        for event in (self.has_ended, self._has_arrived, self._may_send):
            event.set()
        self.server.note_end(self)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be sent."""
        return self.has_ended.is_set() or self.transport.is_closing()

    async def read_until(self, end: bytes) -> bytes:
        """Take bytes up to and with an end."""
        while end not in self._received:
            await self._wait_for_more()
        return self._take(self._received.index(end) + len(end))

    async def read_exactly(self, count: int) -> bytes:
        """Take so many bytes."""
        self.transport.resume_reading()
        while len(self._received) < count:
            await self._wait_for_more()
        return self._take(count)

    async def read_some(self) -> bytes:
        """Take what is there, once something is."""
        while not self._received:
            await self._wait_for_more()
        return self._take(len(self._received))

    async def _wait_for_more(self) -> None:
        if self.is_over:
            raise ConnectionResetError
        self._has_arrived.clear()
        await self._has_arrived.wait()

    def _take(self, count: int) -> bytes:
        data = bytes(self._received[:count])
        del self._received[:count]
        return data

    def note_request(self) -> None:
        """Count what comes from now on as the next request."""
        self._is_between_requests = not self._received
        self.started += bool(self._received)

    async def send(self, data: bytes) -> None:
        await self._may_send.wait()
        if self.is_over:
            raise ConnectionResetError
        self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        if not self.transport.is_closing():
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class Server:
    """Plays one handler to everyone who connects to 127.0.0.1, in the event loop that opens it.

    `connections` and `requests` are its account: a request is there once all of it came.
    """

    make_exchange = Exchange

    def __init__(self, handler: Handler, *, tls: SSLContext | None = None) -> None:
        self.connections: list[Connection] = []
        self.requests: list[Any] = []
        self.origin = ""
        self._handler = handler
        self._tls = tls
        self._heads = 0

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"{self.origin}/v1"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", 0, ssl=self._tls, backlog=2048
        )
        port = self._listener.sockets[0].getsockname()[1]
        self.origin = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._listener.close()
        for connection in self.connections:
            connection.task.cancel()
            connection.reset()  # also what a client may have forgotten ends with it
        tasks = [connection.task for connection in self.connections]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def accept(self, connection: Connection) -> None:
        """Begin to serve a new connection."""
        self.connections.append(connection)
        connection.number = len(self.connections)
        connection.task = asyncio.get_running_loop().create_task(self.serve(connection))

    def note_end(self, connection: Connection) -> None:
        """Note that the client, or the server, has ended a connection."""

    async def serve(self, connection: Connection) -> None:
        """Answer the requests of one connection until it ends."""
        try:
            while not connection.is_over:
                exchange = await self.receive(connection)
                await self._handler(exchange)
        except ConnectionError:
            pass
        finally:
            connection.close()

    async def receive(self, connection: Connection) -> Exchange:
        """Read one request."""
        exchange = self.start_exchange(connection, await connection.read_until(b"\r\n\r\n"))
        await self.read_body(exchange)
        return exchange

    def start_exchange(self, connection: Connection, head: bytes) -> Exchange:
        """Note that the head of a request is here."""
        self._heads += 1
        connection.exchange = self.make_exchange(connection, head, self._heads)
        return connection.exchange

    async def read_body(self, exchange: Exchange) -> None:
        """Read the rest of a request, which is then seen as a whole."""
        exchange.body = await exchange.connection.read_exactly(exchange.length)
        exchange.has_all = True
        exchange.connection.note_request()
        self.requests.append(exchange)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[str, list[Exchange]]]:
    """Serve `handler`; yield the base URL and the growing list of exchanges."""
    async with Server(handler) as server:
        yield server.url, server.requests
