"""Serves canned bytes, fast enough not to be the bottleneck; `run.py` starts it as a process.

Run by hand, `python benchmarks/canned.py` prints the port of each mode, and serves both wires on
all of them until its standard input ends. It reads only the path and the length of the body.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from typing import cast

EVENTS_PER_BURST = 500
EVENTS_PACED = 75
PACE_SECS = 1 / 50
LATENCY_SECS = 0.05

WORD = "word "
CHAT_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": WORD},
                 "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}  # fmt: skip
ANTHROPIC_ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": WORD}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 1},
}  # fmt: skip


def chat_events(count: int) -> Iterator[bytes]:
    """Yield a stream of the chat-completions wire."""

    def event(choices: list[object], **more: object) -> bytes:
        chunk = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000,
            "model": "gpt-4o-mini", "choices": choices, **more,
        }  # fmt: skip
        return b"data: %s\n\n" % json.dumps(chunk, separators=(",", ":")).encode()

    for number in range(count):
        delta = {"content": f"{WORD}{number} "}
        yield event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    yield event([], usage={"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9})
    yield b"data: [DONE]\n\n"


def anthropic_events(count: int) -> Iterator[bytes]:
    """Yield a stream of the Anthropic wire."""

    def event(kind: str, **more: object) -> bytes:
        data = json.dumps({"type": kind, **more}, separators=(",", ":")).encode()
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)

    yield event("message_start", message=ANTHROPIC_ANSWER | {"content": [], "stop_reason": None})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for number in range(count):
        delta = {"type": "text_delta", "text": f"{WORD}{number} "}
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    yield event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": count},
    )
    yield event("message_stop")


def whole_response(answer: dict[str, object]) -> bytes:
    """Return a complete response with its head."""
    body = json.dumps(answer, separators=(",", ":")).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame_chunks(events: Iterator[bytes]) -> list[bytes]:
    """Return the writes of a stream: the head, a chunk for each event, the end."""
    return [HEAD, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


STREAMS = {"openai": chat_events, "anthropic": anthropic_events}
WHOLE = {"openai": whole_response(CHAT_ANSWER), "anthropic": whole_response(ANTHROPIC_ANSWER)}
BURST = {wire: b"".join(frame_chunks(events(EVENTS_PER_BURST))) for wire, events in STREAMS.items()}
PACED = {wire: frame_chunks(events(EVENTS_PACED)) for wire, events in STREAMS.items()}


class CannedConnection(asyncio.Protocol):
    """One connection, which stays open for any number of requests."""

    def __init__(self, answer: Callable[[CannedConnection, str], None]) -> None:
        self.answer = answer
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is none of asyncio's

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) > 0:
            head = bytes(self.buffer[:end]).lower()
            rest = head.partition(b"content-length:")[2]
            size = end + 4 + int(rest.partition(b"\r\n")[0])
            if len(self.buffer) < size:
                return
            del self.buffer[:size]
            path = head.partition(b"\r\n")[0]
            self.answer(self, "anthropic" if b"/messages" in path else "openai")

    def write(self, data: bytes) -> None:
        """Write, unless the client has disconnected."""
        if not self.transport.is_closing():
            self.transport.write(data)


def answer_at_once(connection: CannedConnection, wire: str) -> None:
    """Send a complete response."""
    connection.write(WHOLE[wire])


def answer_later(connection: CannedConnection, wire: str) -> None:
    """Send a complete response after the latency."""
    loop = asyncio.get_running_loop()
    loop.call_later(LATENCY_SECS, connection.write, WHOLE[wire])


def stream_burst(connection: CannedConnection, wire: str) -> None:
    """Send a stream in one write."""
    connection.write(BURST[wire])


def stream_paced(connection: CannedConnection, wire: str) -> None:
    """Send a stream of 50 events a second. The streams start at different times."""
    loop = asyncio.get_running_loop()
    pieces = iter(PACED[wire])
    start = loop.time() + PACE_SECS * (id(connection) // 64 % 97) / 97

    def step(number: int) -> None:
        if (piece := next(pieces, None)) is not None:
            connection.write(piece)
            loop.call_at(start + number * PACE_SECS, step, number + 1)

    step(0)


MODES = {
    "at_once": answer_at_once, "later": answer_later, "burst": stream_burst, "paced": stream_paced,
}  # fmt: skip


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    servers = {
        name: await loop.create_server(
            lambda a=answer: CannedConnection(a), "127.0.0.1", 0, backlog=4096
        )
        for name, answer in MODES.items()
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
