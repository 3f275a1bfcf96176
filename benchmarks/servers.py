"""Runs a small, fast chat-completions server of raw bytes in a separate process."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

TEXT = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}],'
BODY = TEXT + b'"usage":{"prompt_tokens":9,"completion_tokens":1}}'
WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    + BODY
)
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
END = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}\n\ndata: [DONE]\n\n'
)
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"


async def _serve(pipe: Connection, gap_secs: float, events: int, fault_share: float) -> None:
    chance = random.Random(1)  # noqa: S311 - every run has the same faults
    seen = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                seen += 1
                if chance.random() < fault_share:
                    if chance.random() < 0.5:
                        writer.write(BUSY)
                        continue
                    writer.transport.abort()
                    return
                if b'"stream":true' not in body:
                    writer.write(WHOLE)
                    continue
                writer.write(EVENTS_HEAD)
                for _ in range(events):
                    await asyncio.sleep(gap_secs)
                    writer.write(EVENT)
                writer.write(END)
                break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=8192)
    pipe.send(server.sockets[0].getsockname()[1])
    while not pipe.poll():  # noqa: ASYNC110 - a pipe has no event to wait for
        await asyncio.sleep(0.05)
    pipe.send(seen)


def _main(pipe: Connection, gap_secs: float, events: int, fault_share: float) -> None:
    asyncio.run(_serve(pipe, gap_secs, events, fault_share))


class BenchmarkServer:
    """The URL of a server and, once it has ended, the number of its requests."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.seen = 0


@contextmanager
def run_server(
    *, gap_secs: float = 0.0, events: int = 5, fault_share: float = 0.0
) -> Iterator[BenchmarkServer]:
    """Serve complete responses, and streams of `events` with `gap_secs` between them.

    A share of the requests gets a 503 or loses its connection.
    """
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_main, args=(there, gap_secs, events, fault_share), daemon=True
    )
    process.start()
    server = BenchmarkServer(here.recv())
    try:
        yield server
    finally:
        here.send(None)
        server.seen = here.recv()
        process.join(5)
