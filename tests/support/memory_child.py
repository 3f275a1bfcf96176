"""A process that reads hostile answers under a bound on its memory, each in a fork of its own.

Run it by its path. It prints one object of JSON: what came of each kind of answer, by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minillmlib import ChatNode, GeneratorInfo, Limits, MiniLLMError, NodeCompletionParameters

LIMIT = 4 * 1024 * 1024
# Beside twice the limit: one piece with its values, the allocator's arenas of 1 MiB, and the blocks
# that a list or a table holds twice while it grows.
SPARE = 3 * 1024 * 1024
PIECE_BYTES = 64 * 1024
ONCE = NodeCompletionParameters(retry=0)
PNG = "data:image/png;base64,iVBORw0KGgo="
NAMES = range(1000)

Make = Callable[[int], Any]  # of the nth item


class Kind(NamedTuple):
    """An answer: its wire, its bytes, and how it is asked for."""

    wire: str
    pieces: Callable[[], Iterator[bytes]]
    is_streamed: bool = True
    status: int = 200


def encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def gathered(items: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of a size as sockets give them."""
    piece = bytearray()
    for item in items:
        piece += item
        while len(piece) >= PIECE_BYTES:
            yield bytes(piece[:PIECE_BYTES])
            del piece[:PIECE_BYTES]
    yield bytes(piece)


def events(make: Make, size: int = 4 * LIMIT) -> Callable[[], Iterator[bytes]]:
    """A stream of so many bytes that does not end."""

    def pieces() -> Iterator[bytes]:
        sent = number = 0
        is_same = make(2) == make(3)
        event = b""
        while sent < size:
            if number < 3 or not is_same:
                event = b"data:" + encode(make(number)) + b"\n\n"
            yield event
            sent, number = sent + len(event), number + 1

    return lambda: gathered(pieces())


def whole(start: bytes, make: Make, end: bytes, size: int) -> Callable[[], Iterator[bytes]]:
    """A body with items between its start and its end."""

    def pieces() -> Iterator[bytes]:
        yield start
        sent = number = 0
        is_same = make(2) == make(3)
        item = b""
        while sent < size:
            if number < 3 or not is_same:
                item = (b"," if number else b"") + encode(make(number))
            yield item
            sent, number = sent + len(item), number + 1
        yield end

    return lambda: gathered(pieces())


def text(start: bytes, unit: bytes, end: bytes, size: int) -> Callable[[], Iterator[bytes]]:
    return lambda: gathered(iter((start, *[unit * 1000] * (size // len(unit) // 1000), end)))


def delta(**parts: Any) -> Any:
    return {"choices": [{"delta": parts}]}


def head(number: int) -> Any:
    return {"index": number, "id": str(number), "function": {"name": "f", "arguments": ""}}


def token(_number: int) -> Any:
    return {"token": "ab", "logprob": -1.5, "bytes": [97, 98]}


def block(number: int, **fields: Any) -> Any:
    return {"type": "content_block_start", "index": number, "content_block": fields}


def piece(**fields: Any) -> Any:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


CHAT: dict[str, Make] = {
    "heads of calls": lambda n: delta(tool_calls=[head(n)]),
    "heads of calls by the thousand": lambda n: delta(tool_calls=[head(1000 * n + k) for k in NAMES]),
    "ids of calls": lambda n: delta(tool_calls=[{"index": n, "id": str(n)}]),
    "keys of one call": lambda n: delta(tool_calls=[{**head(0), f"k{n}": {}}]),
    "arguments": lambda n: delta(
        tool_calls=[{"index": 0, "function": {"name": "" if n else "f", "arguments": "ab"}}]),
    "halves of characters": lambda n: delta(tool_calls=[{"index": n, "function": {"arguments": "@"}}]),
    "texts of a byte": lambda _: delta(content="a"),
    "texts of 64 kB": lambda _: delta(content="a" * 65_000),
    "texts after a wide character": lambda n: delta(content="a" * 65_000 if n else "\U0001f600"),
    "reasoning of a byte": lambda _: delta(reasoning="a"),
    "reasoning after a wide character": lambda n: delta(reasoning="a" * 65_000 if n else "\U0001f600"),
    "words of a refusal": lambda _: delta(refusal="ab"),
    "blocks of reasoning": lambda n: delta(reasoning_details=[{"index": n}]),
    "texts of a block": lambda _: delta(reasoning_details=[{"index": 0, "text": "ab"}]),
    "keys of a block": lambda n: delta(reasoning_details=[{"index": 0, f"k{n}": 0}]),
    "images": lambda _: delta(images=[{"image_url": PNG}]),
    "images by the hundred": lambda _: delta(images=[{"image_url": PNG}] * 100),
    "sounds": lambda _: delta(audio={"data": "AAAA"}),
    "probabilities": lambda n: {"choices": [{"delta": {}, "logprobs": {"content": [token(n)] * 100}}]},
    "unread keys": lambda n: {"choices": [], f"k{n}": 1},
    "unread keys of a message": lambda n: delta(**{f"k{n}": 1}),
    "annotations": lambda _: delta(annotations=[{}] * 100),
    "empty lists": lambda _: delta(annotations=[[]] * 10_000),
    "parts that are kept": lambda _: delta(content=[{"type": "reference", "a": 1}]),
}  # fmt: skip
CLAUDE: dict[str, Make] = {
    "heads of calls": lambda n: block(n, type="tool_use", id=str(n), name="f", input={}),
    "texts of a byte": lambda _: piece(type="text_delta", text="a"),
    "texts of 64 kB": lambda _: piece(type="text_delta", text="a" * 65_000),
    "thinking": lambda n: piece(type="thinking_delta", thinking="ab") if n else block(0, type="thinking"),
    "signatures": lambda n: piece(type="signature_delta", signature="ab") if n else block(0, type="thinking"),
    "blocks": lambda n: block(n, type="thinking"),
    "tools of the vendor": lambda n: block(n, type="server_tool_use", id="a", name="b", input={}),
    "blocks of many keys": lambda n: block(n, type="x", **{f"k{k}": [] for k in range(20)}),
    "citations": lambda _: piece(type="citations_delta", citation=[{}] * 100),
    "unknown deltas": lambda n: piece(type=f"k{n}"),
    "unknown events": lambda _: {"type": "x", "a": 1},
    "unknown ends": lambda n: {"type": "message_delta", "delta": {f"k{n}": 1}},
}  # fmt: skip

ANSWER, ANSWER_END = b'{"choices":[{"message":{"content":"",', b'},"finish_reason":"stop"}]}'
SAID, SAID_END = b'{"choices":[{"message":{"content":"', b'"},"finish_reason":"stop"}]}'
FAILED, FAILED_END = b'{"error":{"message":"', b'"}}'
WIDE = "\U0001f600".encode()
SIZE = LIMIT * 9 // 10

KINDS = {
    **{f"chat: {name}": Kind("chat", events(make)) for name, make in CHAT.items()},
    **{f"anthropic: {name}": Kind("anthropic", events(make)) for name, make in CLAUDE.items()},
    **{
        f"{'streamed' if is_streamed else 'whole'}: {name}": Kind("chat", pieces, is_streamed, status)
        for is_streamed in (True, False)
        for name, (pieces, status) in {
            "heads of calls": (whole(ANSWER + b'"tool_calls":[', head, b"]" + ANSWER_END, SIZE), 200),
            "blocks": (whole(ANSWER + b'"reasoning_details":[', lambda _: {}, b"]" + ANSWER_END, SIZE), 200),
            "a text": (text(SAID, b"a", SAID_END, SIZE), 200),
            "a body of events": (events(CHAT["texts of a byte"], SIZE // 2), 200),
            "an error": (text(FAILED, b"a", FAILED_END, SIZE), 400),
            "an error inside a success": (text(FAILED, b"a", FAILED_END, SIZE), 200),
            "a short error with a wide character": (text(FAILED + WIDE, b"a", FAILED_END, SIZE // 8), 400),
            "an error of many lists": (whole(b'{"error":[', lambda _: [], b"]}", SIZE), 400),
            "an endless line of an error": (text(b"", b"x", b"", 4 * LIMIT), 500),
        }.items()
    },
    "event: an error": Kind("chat", text(b"data: " + FAILED, b"a", FAILED_END + b"\n\n", SIZE)),
    "event: a named error": Kind("chat", text(b"event: error\ndata: ", b"a", b"\n\n", SIZE)),
    "event: an error of Claude": Kind(
        "anthropic", text(b'data: {"type":"error",' + FAILED[1:], b"a", FAILED_END + b"\n\n", SIZE)),
}  # fmt: skip


class Replies:
    """A transport whose answers have these pieces, which are made one by one."""

    def __init__(self, kind: Kind) -> None:
        self.status = kind.status
        is_events = kind.is_streamed and kind.status == 200
        self.headers = {"content-type": "text/event-stream" if is_events else "application/json"}
        self._pieces = kind.pieces()

    async def send(self, _request: object) -> Any:
        return self

    async def read(self) -> bytes:
        # Half a pair cannot be encoded, so that it is put in here.
        return next(self._pieces, b"").replace(b'"@"', rb'"\ud83d"')

    def close(self) -> None:
        pass


async def ask(kind: Kind, limits: Limits) -> None:
    generator = GeneratorInfo.custom("x", "https://x.example/v1", "m")
    if kind.wire == "anthropic":
        generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("sk-none")
    generator = generator.with_transport(Replies(kind)).replace(limits=limits)
    root = ChatNode.root("s")
    if kind.is_streamed:
        async with root.chat_streaming("u", generator, ONCE) as stream:
            async for _ in stream:
                pass
    else:
        await root.chat("u", generator, ONCE)


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def outcome_of(kind: Kind) -> dict[str, object]:
    # `json_values` has a memory of its own: some hundred bytes for each value of one event.
    limits = Limits(
        stream_bytes=LIMIT, body_bytes=LIMIT, event_bytes=LIMIT, json_values=LIMIT // 200
    )
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free already must not hide what a call takes
    size = status_bytes("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * LIMIT + SPARE,) * 2)
    try:
        asyncio.run(ask(kind, limits))
        result = {"error": None, "text": ""}
    except MiniLLMError as error:
        text = str(error)
        result = {"error": type(error).__name__, "text": text[:300], "chars": len(text)}
    except BaseException as error:  # noqa: BLE001 - MemoryError above all
        result = {"error": f"bare {type(error).__name__}", "text": str(error)[:300]}
    return {**result, "peak": status_bytes("VmPeak") - size}


def main() -> None:
    short = {"chat": CHAT["texts of a byte"], "anthropic": CLAUDE["texts of a byte"]}
    for wire, make in short.items():  # what is imported late is imported now
        for is_streamed in (True, False):
            for status in (200, 400):
                with contextlib.suppress(MiniLLMError):
                    asyncio.run(ask(Kind(wire, events(make, 100), is_streamed, status), Limits()))
    for name, kind in KINDS.items():
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.write(theirs, json.dumps(outcome_of(kind)).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as result:
            found = json.loads(result.read() or b'{"error": "the process died"}')
        os.waitpid(child, 0)
        print(json.dumps({"name": name, **found}), flush=True)


if __name__ == "__main__":
    main()
