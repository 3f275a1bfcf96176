"""A loopback server that goes wrong in just the way a test wants, and keeps account of it.

Works on the bytes of a socket, so that it can send what no HTTP library would. It speaks both
wires: which one, and whether a stream was asked for, it reads from the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from fault_wires import Wire, counts_in, wire_of_path

__all__ = ["Exchange", "FaultServer", "Play", "Sent", "nobody", "overfull", "serving"]

Play = Callable[["Exchange"], Awaitable[None]]
KEPT_BYTES = 1 << 20  # of what was sent, per request


@dataclass
class Sent:
    """What happened to one request, as the server knows it: a line of the ledger."""

    path: str
    headers: dict[str, str]
    method: str = "POST"
    body: bytes = b""
    has_all: bool = False
    """Whether the whole request came."""
    status: int | None = None
    """The status that was sent, once all the headers were."""
    request_id: str | None = None
    sent_bytes: int = 0
    payload: bytearray = field(default_factory=bytearray)
    """The beginning of what was sent, without the framing of HTTP."""
    is_whole: bool = False
    """Whether the answer was sent to its end."""
    hung_up_at: float | None = None
    """When the client went away."""
    closed_at: float | None = None
    """When the server ended the connection."""

    def has_counts(self, out: int) -> bool:
        """Whether counts with so much output were sent."""
        return counts_in(self.payload, out)


class Exchange:
    """One request, and the wire to answer on. Every wait ends when the client hangs up."""

    def __init__(self, line: _Line, sent: Sent, wire: Wire, number: int) -> None:
        self.sent = sent
        self.wire = wire
        self.number = number
        """Counts the requests of the server, from 1."""
        self._line = line
        self._is_chunked = False

    @property
    def is_stream(self) -> bool:
        return b'"stream":true' in self.sent.body

    @property
    def is_over(self) -> bool:
        """Whether nothing more can be sent."""
        return self._line.is_over

    async def send(self, data: bytes) -> None:
        """Sends bytes as they are, and waits until the client takes more."""
        await self._line.send(data)
        self.sent.sent_bytes += len(data)

    async def body(self, data: bytes) -> None:
        """Sends a piece of the body, in a chunk if the answer has those."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        self.sent.payload += data[: KEPT_BYTES - len(self.sent.payload)]

    async def head(
        self,
        status: str = "200 OK",
        kind: str | None = "application/json",
        *,
        length: int | None = None,
        headers: tuple[str, ...] = (),
    ) -> None:
        """Sends the status and the headers; without a length the body comes in chunks."""
        self._is_chunked = length is None
        framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
        named = f"req-{self.number}"
        lines = [f"HTTP/1.1 {status}", f"x-request-id: {named}", framing, *headers]
        if kind is not None:
            lines.append(f"Content-Type: {kind}")
        await self.send("\r\n".join((*lines, "", "")).encode())
        self.sent.status, self.sent.request_id = int(status[:3]), named

    async def end(self) -> None:
        """Ends the body properly."""
        if self._is_chunked:
            await self.send(b"0\r\n\r\n")
        self.sent.is_whole = True

    async def bare(self, status: str) -> None:
        """Sends a head that ends the answer, too."""
        await self.send(f"HTTP/1.1 {status}\r\n\r\n".encode())
        self.sent.status, self.sent.is_whole = int(status[:3]), True

    async def answer(
        self,
        body: bytes,
        status: str = "200 OK",
        kind: str | None = "application/json",
        headers: tuple[str, ...] = (),
    ) -> None:
        """Sends a whole answer."""
        await self.head(status, kind, length=len(body), headers=headers)
        await self.body(body)
        await self.end()

    async def stream(self, *events: bytes) -> None:
        """Sends the head of an event stream, and events."""
        await self.head(kind="text/event-stream")
        for event in events:
            await self.body(event)

    async def good(self) -> None:
        """Answers as it should be."""
        if self.is_stream:
            await self.stream(*self.wire.events())
            await self.end()
        else:
            await self.answer(self.wire.completion())

    async def take_rest(self) -> None:
        """Takes in the rest of a request that was answered early."""
        self.sent.body = await self._line.exactly(int(self.sent.headers["content-length"]))
        self.sent.has_all = True

    async def silence(self, secs: float | None = None) -> None:
        """Sends nothing: until the client hangs up, or for a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._line.hung_up.wait(), secs)

    async def close(self) -> None:
        """Ends the connection as programs do, once everything is out."""
        self._line.close()

    async def reset(self) -> None:
        """Breaks the connection, as a crash does."""
        self._line.reset()


class _Line(asyncio.Protocol):
    """A connection. Bytes are taken in as they come, so that an end is noticed at once."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._taken = bytearray()
        self._arrived = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self.hung_up = asyncio.Event()
        self.sent: Sent | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.task = asyncio.get_running_loop().create_task(self._server.serve(self))
        self._server.lines.append(self)

    def data_received(self, data: bytes) -> None:
        self._taken += data
        self._arrived.set()

    def eof_received(self) -> bool:
        self._note_end()
        return False  # nothing more is said, either

    def connection_lost(self, error: Exception | None) -> None:
        self._note_end()

    def pause_writing(self) -> None:
        self._may_send.clear()

    def resume_writing(self) -> None:
        self._may_send.set()

    def _note_end(self) -> None:
        if self.sent is not None and self.sent.hung_up_at is None and self.sent.closed_at is None:
            self.sent.hung_up_at = time.monotonic()
        for event in (self.hung_up, self._arrived, self._may_send):
            event.set()

    @property
    def is_over(self) -> bool:
        return self.hung_up.is_set() or self.transport.is_closing()

    async def until(self, mark: bytes) -> bytes:
        """Takes bytes up to and with a mark."""
        while mark not in self._taken:
            await self._more()
        return self._take(self._taken.index(mark) + len(mark))

    async def exactly(self, count: int) -> bytes:
        """Takes so many bytes."""
        self.transport.resume_reading()
        while len(self._taken) < count:
            await self._more()
        return self._take(count)

    async def _more(self) -> None:
        if self.is_over:
            raise ConnectionResetError
        self._arrived.clear()
        await self._arrived.wait()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._taken[:count])
        del self._taken[:count]
        return taken

    async def send(self, data: bytes) -> None:
        await self._may_send.wait()
        if self.is_over:
            raise ConnectionResetError
        self.transport.write(data)
        await asyncio.sleep(0)

    def stop_reading(self) -> None:
        self.transport.pause_reading()

    def close(self) -> None:
        self._note_close()
        self.transport.close()

    def reset(self) -> None:
        if not self.transport.is_closing():
            self._note_close()
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _note_close(self) -> None:
        if self.sent is not None and self.sent.closed_at is None:
            self.sent.closed_at = time.monotonic()


class FaultServer:
    """Plays one fault to everyone who connects. `ledger` has a line for each request."""

    def __init__(self, play: Play, *, scheme: str = "http", reads_body: bool = True) -> None:
        self.ledger: list[Sent] = []
        self.lines: list[_Line] = []
        self.url = ""
        self._play = play
        self._scheme = scheme
        self._reads_body = reads_body

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Line(self), "127.0.0.1", 0)
        self.url = f"{self._scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        for line in self.lines:
            line.task.cancel()
            line.reset()  # also what a client may have forgotten ends with it
        await asyncio.gather(*(line.task for line in self.lines), return_exceptions=True)

    async def serve(self, line: _Line) -> None:
        """Plays to one connection until it ends."""
        with contextlib.suppress(ConnectionError):
            while not line.is_over:
                exchange = await self._next(line)
                if exchange.sent.method == "GET":
                    await exchange.answer(b'{"detail": "Not Found"}', "404 Not Found")
                    continue
                await self._play(exchange)
                if not exchange.sent.is_whole:
                    await exchange.silence()
            line.close()

    async def _next(self, line: _Line) -> Exchange:
        if self._scheme == "https":  # there is no request in plain words
            await line.exactly(1)
            return Exchange(line, Sent("", {}), wire_of_path(""), 0)
        head = (await line.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        parted = (text.partition(":") for text in head[1:] if text)
        headers = {name.lower(): value.strip() for name, _, value in parted}
        method, path = head[0].split(" ")[:2]
        sent = line.sent = Sent(path, headers, method)
        if method == "GET":  # no completion, but a question about one
            return Exchange(line, sent, wire_of_path(path), 0)
        self.ledger.append(sent)
        if self._reads_body:
            sent.body = await line.exactly(int(headers.get("content-length", "0")))
            sent.has_all = True
        else:
            line.stop_reading()
        return Exchange(line, sent, wire_of_path(path), len(self.ledger))

    async def is_rid_of_all(self, secs: float) -> bool:
        """Whether, soon, the client holds no connection on which an answer was not whole."""
        until = time.monotonic() + secs
        while any(self._is_held(line) for line in self.lines):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    @staticmethod
    def _is_held(line: _Line) -> bool:
        return not line.is_over and not (line.sent is not None and line.sent.is_whole)


@contextlib.asynccontextmanager
async def nobody(_play: Play) -> AsyncIterator[FaultServer]:
    """An address of which is known that nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = FaultServer(_play)
        server.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield server


@contextlib.asynccontextmanager
async def overfull(_play: Play) -> AsyncIterator[FaultServer]:
    """A server that takes no more connections: new ones are neither accepted nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        server = FaultServer(_play)
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield server


def serving(*, scheme: str = "http", reads_body: bool = True) -> Callable[[Play], FaultServer]:
    """A place where a fault is played."""
    return lambda play: FaultServer(play, scheme=scheme, reads_body=reads_body)


CAN_BE_OVERFULL = sys.platform == "linux"  # others refuse at once
