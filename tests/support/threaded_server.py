"""A loopback server in a thread of its own that answers by script, piece by piece.

Use it where it must be seen when a client hangs up: it stands outside the event loop of the client,
so it sees that when it happens, and not when the client's loop has time. Use it also for programs
with several loops, threads or processes. `answer_pieces` has answers for it.
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

from server import Connection, Exchange, Server

PATIENCE_SECS = 0.05  # how long a piece is held back until the client waits for it
HANG_UP_SECS = 0.1  # promised; a server in a thread of its own sees it, also on a busy machine
HANG_UP = b""  # a piece: the connection is reset instead of an answer

Pieces = tuple[bytes, ...]
Answer = Pieces | Callable[[Exchange], Pieces]


def wait_until(is_so: Callable[[], bool], secs: float = HANG_UP_SECS) -> None:
    """Wait for it, but not for long."""
    end = time.monotonic() + secs
    while not is_so():
        assert time.monotonic() < end, f"it did not happen within {secs} s"
        time.sleep(0.0005)


class ScriptedExchange(Exchange):
    """One request, and how many pieces of its answer have not gone out."""

    def __init__(self, connection: Connection, head: bytes, number: int) -> None:
        super().__init__(connection, head, number)
        self.remaining_pieces = 1


class ThreadedServer(Server):
    """Answers every request with `usual`, or with the next of `script` as long as there is one.

    Its answers come as fast as they can, or with a pause between their pieces, or, if it is
    stepped, each piece only when the client waits for it. After its first piece an answer goes on
    only when there were as many requests as `meeting` says. `freeze` keeps the server from sending
    anything more, and `thaw` lets it answer again what comes after: the answers that were frozen
    never end, so only the client can end their connections.
    """

    make_exchange = ScriptedExchange

    def __init__(self, usual: Answer, *, reads: bool = True, tls: SSLContext | None = None) -> None:
        super().__init__(self._play, tls=tls)
        self.usual = usual
        self.reads = reads
        self.script: deque[Answer] = deque()
        self.is_frozen = False
        self.is_stepped = False
        self.meeting = 0
        self.pause_secs = 0.0
        self._freezes = 0
        self._client_waits = asyncio.Event()
        self._has_met = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="server", daemon=True)

    @property
    def started(self) -> int:
        """How many requests came in any part."""
        return sum(connection.started for connection in self.connections)

    def open_connections(self) -> list[Connection]:
        """Those that the client has not ended."""
        return [connection for connection in self.connections if connection.ended_at is None]

    def unanswered(self) -> list[Connection]:
        """Open connections that are at work, or never had a request."""
        busy = {request.connection for request in self.requests if request.remaining_pieces}
        return [one for one in self.open_connections() if one in busy or one.started == 0]

    def freeze(self) -> None:
        """Send nothing more."""
        self.is_frozen = True
        self._freezes += 1

    def thaw(self) -> None:
        """Answer what comes from now on."""
        self.is_frozen = False

    def start_reading(self) -> None:
        """Begin to read, if it did not."""
        self.reads = True
        for connection in self.connections:
            self._loop.call_soon_threadsafe(connection.transport.resume_reading)

    def go_on(self) -> None:
        """Send the next piece: the client waits, so it will be seen on its own."""
        self._loop.call_soon_threadsafe(self._client_waits.set)

    def accept(self, connection: Connection) -> None:
        super().accept(connection)
        if not self.reads:
            connection.transport.pause_reading()

    def note_end(self, connection: Connection) -> None:
        connection.task.cancel()

    async def _play(self, exchange: ScriptedExchange) -> None:
        if len(self.requests) >= self.meeting:
            self._has_met.set()
        freezes = self._freezes
        self._client_waits.clear()
        pieces = self.script.popleft() if self.script else self.usual
        if callable(pieces):
            pieces = pieces(exchange)
        for number, piece in enumerate(pieces, 1):
            if self.is_frozen or self._freezes != freezes:
                return
            if piece == HANG_UP:
                exchange.hang_up()
                return
            exchange.connection.transport.write(piece)
            exchange.remaining_pieces = len(pieces) - number
            await self._pause()

    async def _pause(self) -> None:
        """Wait between two pieces of an answer."""
        await self._has_met.wait()
        if not self.is_stepped:
            await asyncio.sleep(self.pause_secs)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECS):
                await self._client_waits.wait()
        self._client_waits.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)
