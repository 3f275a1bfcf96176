"""A loopback server in a thread of its own that answers by script and writes down what it saw.

It stands outside the event loop of the client, so it sees a hang-up when it happens and not when
the client's loop has time.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from ssl import SSLContext
from typing import Self

PATIENCE_SECS = 0.05  # how long a piece is held back until the client waits for it
HANG_UP_SECS = 0.1  # promised; a server in a thread of its own sees it, also on a busy machine
HANG_UP = b""  # a piece: the connection is reset instead of an answer

Pieces = tuple[bytes, ...]
Answer = Pieces | Callable[["Request"], Pieces]


def wait_until(is_so: Callable[[], bool], secs: float = HANG_UP_SECS) -> None:
    """Waits for it, but not for long."""
    end = time.monotonic() + secs
    while not is_so():
        assert time.monotonic() < end, f"it did not happen within {secs} s"
        time.sleep(0.0005)


class Request:
    """One whole request, and how much of its answer has not gone out."""

    def __init__(self, connection: Connection, head: bytes, body: bytes) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        self.pieces_left = 1


class Connection(asyncio.Protocol):
    """One accepted connection: how many requests began on it, and when the client hung up."""

    def __init__(self, server: LedgerServer) -> None:
        self.begun = 0
        self.ended_at: float | None = None
        self.transport: asyncio.Transport
        self._server = server
        self._pending = b""
        self._playing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._server.connections.append(self)
        if not self._server.reads:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if not self._pending:
            self.begun += 1
        self._pending += data
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        is_query = head.startswith(b"GET ") and self._pending.endswith(b"\r\n\r\n")
        if is_query or (length and len(rest) >= int(length)):
            self._pending = b""
            request = Request(self, head, rest)
            self._server.requests.append(request)
            self._server.look_who_is_there()
            self._playing = asyncio.ensure_future(self._play(request))

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        if self._playing is not None:
            self._playing.cancel()

    async def _play(self, request: Request) -> None:
        server, ice = self._server, self._server.ice
        server.has_waited.clear()
        pieces = server.script.popleft() if server.script else server.usual
        if callable(pieces):
            pieces = pieces(request)
        for number, piece in enumerate(pieces, 1):
            if server.is_frozen or server.ice != ice:
                return
            if piece == HANG_UP:
                self.transport.abort()
                return
            self.transport.write(piece)
            request.pieces_left = len(pieces) - number
            await server.pause()


class LedgerServer:
    """Answers every request with `usual`, or with the next of `script` as long as there is one.

    Its answers come as fast as they can, or with a pause between their pieces, or, if it is
    stepped, each piece only when the client waits for it. After its first piece an answer goes on
    only when there were as many requests as `meeting` says. `freeze` keeps the server from sending
    anything more, and `thaw` lets it answer again what comes after: the answers that were frozen
    never end, so only the client can end their connections.
    """

    def __init__(self, usual: Answer, *, reads: bool = True, tls: SSLContext | None = None) -> None:
        self.usual = usual
        self.reads = reads
        self.script: deque[Answer] = deque()
        self.connections: list[Connection] = []
        self.requests: list[Request] = []
        self.is_frozen = False
        self.ice = 0
        self.is_stepped = False
        self.meeting = 0
        self.pause_secs = 0.0
        self.port = 0
        self.has_waited = asyncio.Event()
        self.has_met = asyncio.Event()
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ledger", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def begun(self) -> int:
        """How many requests came in any part."""
        return sum(connection.begun for connection in self.connections)

    def open_connections(self) -> list[Connection]:
        """Those that the client has not ended."""
        return [connection for connection in self.connections if connection.ended_at is None]

    def unanswered(self) -> list[Connection]:
        """Open connections that are at work, or never had a request."""
        busy = {request.connection for request in self.requests if request.pieces_left}
        return [one for one in self.open_connections() if one in busy or one.begun == 0]

    def freeze(self) -> None:
        """Sends nothing more."""
        self.is_frozen = True
        self.ice += 1

    def read_on(self) -> None:
        """Begins to read, if it did not."""
        self.reads = True
        for connection in self.connections:
            self._loop.call_soon_threadsafe(connection.transport.resume_reading)

    def thaw(self) -> None:
        """Answers what comes from now on."""
        self.is_frozen = False

    def go_on(self) -> None:
        """The client waits, so the next piece would be seen on its own."""
        self._loop.call_soon_threadsafe(self.has_waited.set)

    def look_who_is_there(self) -> None:
        """Ends the waiting for others."""
        if len(self.requests) >= self.meeting:
            self.has_met.set()

    async def pause(self) -> None:
        """What lies between two pieces of an answer."""
        await self.has_met.wait()
        if not self.is_stepped:
            await asyncio.sleep(self.pause_secs)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECS):
                await self.has_waited.wait()
        self.has_waited.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        self._in_loop(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_loop(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        make = lambda: Connection(self)  # noqa: E731 - a factory
        self._server = await self._loop.create_server(
            make, "127.0.0.1", 0, ssl=self._tls, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        for connection in self.open_connections():
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
