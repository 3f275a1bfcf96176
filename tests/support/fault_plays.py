"""The moves of a server that goes wrong, to be put together to a play of `FaultServer`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from operator import methodcaller

from fault_server import FaultExchange, Play
from fault_wires import PARTIAL, PIECES, Wire, encode

__all__ = [
    "DONE", "ENDING", "FAILS", "PING", "REASON", "REST", "SAY", "START", "answers", "bare",
    "completes",
    "cut_short", "do", "drips", "fails", "of", "raw", "send_pieces", "silent", "streams",
]  # fmt: skip

Bytes = bytes | Callable[[Wire], bytes]

START, DONE, ENDING, REASON, PING, FAILS = map(
    methodcaller, ("start", "done", "ending", "reason", "ping", "error_event")
)
SAY, REST = methodcaller("say", PARTIAL), methodcaller("say", PIECES[1])


def of(wire: Wire, piece: Bytes) -> bytes:
    """The bytes of a piece on this wire."""
    return piece if isinstance(piece, bytes) else piece(wire)


async def do(exchange: FaultExchange, move: str) -> None:
    """Make a move by its name: `end`, `silence`, `close` or `reset`."""
    done = getattr(exchange, move)()
    if done is not None:
        await done


def answers(
    body: Bytes,
    status: str = "200 OK",
    kind: str | None = "application/json",
    headers: tuple[str, ...] = (),
) -> Play:
    """Answer in one piece, also where a stream was asked for."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.answer(of(exchange.wire, body), status, kind, headers)

    return play


def fails(status: int, *headers: str, message: str = "No.") -> Play:
    """Answer with a status and the wire's own error."""
    return answers(
        lambda wire: encode(wire.failure(status, message)), f"{status} No", headers=headers
    )


def completes(usage: Callable[[Wire], object]) -> Play:
    """Answer as it should be, whole or in events, but with these counts."""

    async def play(exchange: FaultExchange) -> None:
        counts = usage(exchange.wire)
        if exchange.is_stream:
            await exchange.start_events(*exchange.wire.events(counts))
            await exchange.end()
        else:
            await exchange.answer(exchange.wire.completion(usage=counts))

    return play


def streams(*pieces: Bytes | float, then: str = "end") -> Play:
    """Send pieces of an event stream, each in a chunk of its own, with waits between them.

    `then` is a method of `FaultExchange`: `end`, `close`, `reset` or `silence`.
    """

    async def play(exchange: FaultExchange) -> None:
        await send_pieces(exchange, pieces)
        await do(exchange, then)

    return play


async def send_pieces(exchange: FaultExchange, pieces: Iterable[Bytes | float]) -> None:
    """The head of an event stream, and its pieces."""
    await exchange.start_events()
    for piece in pieces:
        if isinstance(piece, float):
            await asyncio.sleep(piece)
        else:
            await exchange.chunk(of(exchange.wire, piece))


def drips(*pieces: Bytes, forever: Bytes, each_secs: float = 0.0, size: int | None = None) -> Play:
    """Send pieces of a stream, then one again and again, in bits of `size` bytes."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.start_events(*(of(exchange.wire, piece) for piece in pieces))
        again = of(exchange.wire, forever)
        while True:
            for start in range(0, len(again), size or len(again)):
                await exchange.chunk(again[start : start + (size or len(again))])
                await asyncio.sleep(each_secs)

    return play


def raw(*pieces: bytes | float, then: str = "close") -> Play:
    """Send bytes that may not even be HTTP."""

    async def play(exchange: FaultExchange) -> None:
        for piece in pieces:
            if isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                await exchange.send(piece)
        await do(exchange, then)

    return play


def bare(status: str) -> Play:
    """Answer with a head that needs no body."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.bare(status)

    return play


def cut_short(status: str, body: Bytes, promised: int, then: str = "close") -> Play:
    """Promise more bytes than it sends."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.head(status, length=promised)
        await exchange.chunk(of(exchange.wire, body))
        await do(exchange, then)

    return play


async def silent(exchange: FaultExchange) -> None:
    """Say nothing at all."""
    await exchange.silence()
