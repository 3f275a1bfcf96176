"""A loopback server that goes wrong in just the way a test wants, on both wires.

Use it for the fault matrix. It reads from the request which wire to speak, and whether a stream was
asked for; `fault_plays` and `fault_wires` have what it does and what it sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from fault_wires import counts_in, wire_of_path
from server import Connection, Exchange, Server

__all__ = ["FaultExchange", "FaultServer", "Play", "at", "nobody", "overfull"]

Play = Callable[["FaultExchange"], Awaitable[None]]


class FaultExchange(Exchange):
    """One request, with the wire it is in."""

    def __init__(self, connection: Connection, head: bytes, number: int) -> None:
        super().__init__(connection, head, number)
        self.wire = wire_of_path(self.path)

    async def send(self, data: bytes) -> None:
        await super().send(data)
        await asyncio.sleep(0)  # the client takes it before anything else happens

    def has_counts(self, out: int) -> bool:
        """Whether counts with so much output were sent."""
        return counts_in(self.payload, out)

    async def good(self) -> None:
        """Answer as it should be."""
        if self.is_stream:
            await self.start_events(*self.wire.events())
            await self.end()
        else:
            await self.answer(self.wire.completion())

    async def take_rest(self) -> None:
        """Take in the rest of a request that was answered early."""
        self.body = await self.connection.read_exactly(self.length)
        self.has_all = True


class FaultServer(Server):
    """Plays one fault to everyone who connects. `ledger` has each request that came in any part."""

    make_exchange = FaultExchange

    def __init__(self, play: Play, *, scheme: str = "http", reads_body: bool = True) -> None:
        super().__init__(self._play_to_the_end)
        self.ledger: list[FaultExchange] = []
        self._play = play
        self._scheme = scheme
        self._reads_body = reads_body

    @property
    def url(self) -> str:
        return self.origin.replace("http:", f"{self._scheme}:")

    async def _play_to_the_end(self, exchange: FaultExchange) -> None:
        if exchange.method == "GET":  # no completion, but a question about one
            await exchange.answer(b'{"detail": "Not Found"}', "404 Not Found")
            return
        await self._play(exchange)
        if not exchange.is_whole:
            await exchange.silence()

    async def receive(self, connection: Connection) -> Exchange:
        if self._scheme == "https":  # there is no request in plain words
            await connection.read_exactly(1)
            return FaultExchange(connection, b"", 0)
        return await super().receive(connection)

    def start_exchange(self, connection: Connection, head: bytes) -> Exchange:
        exchange = super().start_exchange(connection, head)
        if exchange.method != "GET":
            self.ledger.append(exchange)
            exchange.number = len(self.ledger)
        return exchange

    async def read_body(self, exchange: Exchange) -> None:
        if self._reads_body:
            await super().read_body(exchange)
        else:
            exchange.connection.transport.pause_reading()

    async def is_rid_of_all(self, secs: float) -> bool:
        """Wait until the client holds only connections on which all answers were whole.

        Return whether that was so in time.
        """
        until = time.monotonic() + secs
        while any(self._is_held(connection) for connection in self.connections):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.005)
        return True

    @staticmethod
    def _is_held(connection: Connection) -> bool:
        exchange = connection.exchange
        return not connection.is_over and not (exchange is not None and exchange.is_whole)


@contextlib.asynccontextmanager
async def nobody(_play: Play) -> AsyncIterator[FaultServer]:
    """Give an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = FaultServer(_play)
        server.origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield server


@contextlib.asynccontextmanager
async def overfull(_play: Play) -> AsyncIterator[FaultServer]:
    """Give a server that takes no more connections: new ones are neither accepted nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        server = FaultServer(_play)
        server.origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield server


def at(*, scheme: str = "http", reads_body: bool = True) -> Callable[[Play], FaultServer]:
    """Return a place where a fault is played."""
    return lambda play: FaultServer(play, scheme=scheme, reads_body=reads_body)


CAN_BE_OVERFULL = sys.platform == "linux"  # others refuse at once
