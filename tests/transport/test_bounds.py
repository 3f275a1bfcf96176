"""However much a server sends, the call ends with an error that says so, and memory is bounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from server import Exchange, serving

from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CostResolution,
    GeneratorInfo,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    MiniLLMError,
    NodeCompletionParameters,
    ProtocolError,
    ReadError,
    RequestTimeoutError,
)
from minillmlib.streaming.sse import SseDecoder
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

MIB = 1024 * 1024
SPARE = 16 * MIB  # beside twice the limit that is met
SOON_SECS = 20.0

GOOD = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
FINISHED = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)

Play = Callable[[Exchange], Awaitable[None]]


# What servers send. One that goes on for ever ends with the connection.


def body(size: int, status: str = "200 OK", start: bytes = b"", unit: bytes = b"x") -> Play:
    """A body of so many bytes."""

    async def play(exchange: Exchange) -> None:
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        )
        await exchange.send(head.encode() + start)
        left = size - len(start)
        piece = unit * (MIB // len(unit))
        while left > len(piece):
            await exchange.send(piece)
            left -= len(piece)
        await exchange.send((unit * (left // len(unit))).ljust(left))

    return play


def stream(endless: bytes, start: bytes = b"", pause_secs: float = 0) -> Play:
    """Some events, and then the same bytes again and again."""

    async def play(exchange: Exchange) -> None:
        await exchange.start_events()
        if start:
            await exchange.chunk(start)
        while True:
            await exchange.chunk(endless)
            await asyncio.sleep(pause_secs)

    return play


def raw(start: bytes, endless: bytes = b"") -> Play:
    """Bytes that are no proper HTTP, and then the same again and again."""

    async def play(exchange: Exchange) -> None:
        await exchange.send(start)
        while endless:
            await exchange.send(endless)

    return play


def said(size: int, field: str = "content") -> bytes:
    """An event that says something long."""
    return b'data: {"choices":[{"delta":{"%b":"%b"}}]}\n\n' % (field.encode(), b"x" * size)


def called(size: int) -> bytes:
    """An event that goes on with the arguments of a call."""
    call = b'{"index":0,"function":{"name":"f","arguments":"%b"}}' % (b"x" * size)
    return b'data: {"choices":[{"delta":{"tool_calls":[%b]}}]}\n\n' % call


# Memory, in a process of its own that may grow by twice the limit and a little.


class Bomb(NamedTuple):
    """What is sent, the error it must become, and the limit that counts, in bytes."""

    play: Play
    error: str | None
    limit: int
    streaming: bool = False
    limits: Mapping[str, int] = {}
    is_bound: bool = True  # by the system; else only measured


BODY, EVENT = Limits().body_bytes, Limits().event_bytes
LINES = (b"data:" + b"x" * 1000 + b"\n") * 64
MALFORMED, EXCEEDED = "MalformedResponseError", "LimitExceededError"

BOMBS = {
    "a body of 65 MB": Bomb(body(65 * MIB), EXCEEDED, BODY),
    "an error's body of 65 MB": Bomb(body(65 * MIB, "500 Oops"), EXCEEDED, BODY),
    "a body of 65 MB in place of a stream": Bomb(body(65 * MIB), EXCEEDED, BODY, True),
    "a body of 63 MB that is not JSON": Bomb(body(63 * MIB), MALFORMED, BODY),
    "a body of 63 MB of brackets": Bomb(body(63 * MIB, unit=b"["), EXCEEDED, BODY),
    "a compressed body of 70 MB": Bomb(
        raw(JSON_HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 70 * MIB)),
        MALFORMED, 0),
    "a line without end": Bomb(stream(b"x" * 65536, b"data: "), EXCEEDED, EVENT, True),
    "a comment without end": Bomb(stream(b"x" * 65536, b": "), EXCEEDED, EVENT, True),
    "an event without end": Bomb(stream(LINES), EXCEEDED, EVENT, True),
    "text without end": Bomb(stream(said(65536)), EXCEEDED, Limits().text_chars, True),
    "arguments without end": Bomb(stream(called(65536)), EXCEEDED, Limits().text_chars, True),
    "comments without end": Bomb(
        stream(b": ping\n\n" * 4096), EXCEEDED, 4 * MIB, True, {"stream_bytes": 4 * MIB}),
    "comments after the finish": Bomb(
        stream(b": ping\n\n" * 4096, FINISHED), None, 4 * MIB, True, {"stream_bytes": 4 * MIB}),
    "anything after the end": Bomb(stream(b"x" * 65536, FINISHED + DONE), None, EVENT, True),
    "heads without end": Bomb(raw(JSON_HEAD, b"x-a: y\r\n" * 4096), "ProtocolError", 0),
    "a head's line without end": Bomb(raw(JSON_HEAD + b"x: ", b"y" * 65536), "LimitExceededError", 0),
    "trailers without end": Bomb(
        raw(CHUNKED + b"1\r\n1\r\n0\r\n" + b"x-a: y\r\n" * 999), "ProtocolError", 0),
    "an event of short lines": Bomb(
        stream(b"data:ab\n" * 4096), EXCEEDED, MIB, True, {"event_bytes": MIB}, False),
    "a body of many small values": Bomb(
        body(60 * MIB, start=b'{"a":[', unit=b"[],"), EXCEEDED, BODY),
    "an event of many small values": Bomb(
        stream(b"data: [" + b"[]," * (5 * MIB) + b"]\n\n"), EXCEEDED, EVENT, True),
    "a body of four-byte characters": Bomb(
        body(63 * MIB, unit="\U0001f600".encode()), MALFORMED, BODY),
    "a body of letters with one four-byte character": Bomb(
        body(63 * MIB, start="\U0001f600".encode()), MALFORMED, BODY),
    "an error's body of 63 MB with one": Bomb(
        body(63 * MIB, "500 Oops", start="\U0001f600".encode()), "ServerError", BODY),
}  # fmt: skip


class Bounded:
    """The process that is asked to make calls."""

    def __init__(self) -> None:
        child = Path(__file__).parents[1] / "support" / "bounded_child.py"
        # With one arena the allocator does not reserve what it does not use.
        self._process = subprocess.Popen(
            [sys.executable, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        )  # fmt: skip

    def ask(self, job: Mapping[str, object]) -> dict[str, object]:
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def bounded():
    if sys.platform != "linux":
        pytest.skip("the memory of a process is bounded and measured as Linux does it")
    process = Bounded()
    yield process
    process.close()


@asynccontextmanager
async def bombing(play: Play):
    """A server that answers well to warm the client up, and then as `play` says."""

    async def answer(exchange: Exchange) -> None:
        if "x-warm" not in exchange.headers:
            await play(exchange)
        elif b'"stream":true' not in exchange.body:
            await exchange.answer(GOOD)
        else:
            await exchange.start_events()
            await exchange.chunk(FINISHED + DONE)
            await exchange.end()

    async with serving(answer) as (url, _):
        yield url


@pytest.mark.parametrize("name", BOMBS)
async def test_memory_grows_by_no_more_than_twice_the_limit(name, bounded):
    bomb = BOMBS[name]
    room = 2 * bomb.limit + SPARE
    async with bombing(bomb.play) as url:
        job = {"url": url, "streaming": bomb.streaming, "limits": dict(bomb.limits),
               "params": {"deadline_secs": SOON_SECS}, "room": room if bomb.is_bound else None}  # fmt: skip
        result = await asyncio.to_thread(bounded.ask, job)
    assert result["error"] == bomb.error, result
    assert result["peak"] <= room, result
    assert result["secs"] <= SOON_SECS
    assert bomb.error or result["text"] == "ok"


# Each limit, made small.


class Asked(NamedTuple):
    """How a server is asked."""

    streaming: bool = False
    limits: Limits = Limits()
    carrying: Callable[[GeneratorInfo], GeneratorInfo] = lambda generator: generator
    heard: asyncio.Event | None = None  # set with the first chunk


async def failure_of(play: Play, asked: Asked, **clocks: float) -> MiniLLMError:
    """The error of a call to that server, which must see the connection end."""
    ended = asyncio.Event()

    async def watched(exchange: Exchange) -> None:
        try:
            await play(exchange)
        finally:
            ended.set()

    async with serving(watched) as (url, _):
        generator = GeneratorInfo.custom("bomb", url, "m").replace(limits=asked.limits)
        params = NodeCompletionParameters(**{"deadline_secs": SOON_SECS} | clocks)
        root, text = ChatNode.root("s"), []
        started = time.monotonic()
        with pytest.raises(MiniLLMError) as caught:
            if not asked.streaming:
                await root.chat("u", asked.carrying(generator), params)
            async with root.chat_streaming("u", asked.carrying(generator), params) as answer:
                async for chunk in answer:
                    text.append(chunk.delta)
                    if asked.heard is not None:
                        asked.heard.set()
        assert time.monotonic() - started < SOON_SECS
        await asyncio.wait_for(ended.wait(), SOON_SECS)
    assert root.children() == []
    assert caught.value.partial.startswith("".join(text))
    assert caught.value.attempts[-1].cost.resolution is CostResolution.UNKNOWN
    return caught.value


SMALL = {
    "body_bytes": [body(2000), body(2000, "500 Oops"), body(2000, start=b"{")],
    "event_bytes": [
        stream(b"x" * 99, b"data:"), stream(b"data:xxx\n"), stream(b"x" * 99, b":"),
        stream(b"x" * 99, b"event:"), stream(b"x" * 99),
    ],
    "stream_bytes": [
        stream(b": ping\n\n"), stream(b"\n"), stream(b"id: 1\nretry: 3\n"), stream(b"data:\n\n"),
        stream(b'data: {"choices":[{"delta":{}}]}\n\n'),
        stream(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'),
    ],
    "json_values": [
        body(60_000, start=b"[", unit=b"[],"), stream(b"data: [" + b"[]," * 600 + b"]\n\n"),
        body(60_000, "500 Oops", start=b"[", unit=b"{},"),
    ],
    "text_chars": [
        stream(said(90)), stream(said(90, "reasoning")), stream(said(90, "reasoning_content")),
        stream(said(90, "refusal")),
        stream(called(90)), stream(said(90) + said(90, "reasoning") + called(90)),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "play"), [(name, play) for name, plays in SMALL.items() for play in plays]
)
async def test_what_goes_beyond_a_limit_is_an_error_that_names_it(name, play):
    larger = {"event_bytes": 8192, "stream_bytes": 65536, "body_bytes": 65536, "text_chars": 65536}
    limits = Limits(**larger | {name: 1000})
    for streaming in (True, False) if name == "body_bytes" else (True,):
        error = await failure_of(play, Asked(streaming, limits))
        assert isinstance(error, LimitExceededError)
        assert name in str(error)
        assert "1,000" in str(error)
        assert not error.is_retryable


async def test_signs_of_life_are_no_progress():
    play = stream(b": ping\n\n", pause_secs=0.02)
    error = await failure_of(play, Asked(True), timeout_secs=0.5, progress_timeout_secs=0.3)
    assert isinstance(error, RequestTimeoutError)
    assert error.clock == "progress"


def lines_until_the_limit(line: bytes, most_bytes: int) -> int:
    """How many bytes of an event a decoder takes in before it refuses."""
    decoder, piece = SseDecoder(most_bytes), line * 100
    for count in range(1, 3 * most_bytes // len(piece) + 2):
        try:
            decoder.feed(piece)
        except LimitExceededError:
            return count * len(piece)
    return sys.maxsize


@pytest.mark.parametrize(
    "line",
    [
        b"data: one line of an event with some text in it\n",
        b"data\n",
        b"data:\n",
        b"error: x\n",
    ],
)
def test_every_line_of_an_event_counts(line):
    assert lines_until_the_limit(line, 100_000) <= 200_000


# HTTP itself: refused by the engine, whichever it is.

TOO_MANY = {
    "more than 64 kB in all": b"".join(b"x-%d: %b\r\n" % (i, b"y" * 7000) for i in range(10)),
    "one of more than 64 kB": b"x: " + b"y" * 70_000 + b"\r\n",
    "one with a long name": b"x" * 70_000 + b": y\r\n",
    "10,000": b"".join(b"x-%d: y\r\n" % i for i in range(10_000)),
    "more than 64 kB under one name": (b"x-a: " + b"y" * 7000 + b"\r\n") * 10,
}
LENGTHS = {
    "20 digits": b"Content-Length: 99999999999999999999\r\n",
    "a negative one": b"Content-Length: -5\r\n",
    "two": b"Content-Length: 1\r\nContent-Length: 2\r\n",
    "no number": b"Content-Length: x\r\n",
}
CHUNKS = {
    "of 2^68 bytes": b"f" * 17 + b"\r\n",
    "with a size of 10,000 digits": b"1" * 10_000 + b"\r\n",
    "with a size that is no number": b"xyz\r\n",
    "of less than nothing": b"-5\r\nabcde\r\n",
    "longer than it says": b"1\r\nabc\r\n",
}


class Engine(NamedTuple):
    """What carries the requests of a generator."""

    name: str
    carrying: Callable[[GeneratorInfo], GeneratorInfo]


@pytest.fixture(params=["aiohttp", "httpx2"])
async def engine(request):
    if request.param == "aiohttp":
        yield Engine("aiohttp", lambda generator: generator)
        return
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async with httpx2.AsyncClient() as client:
        yield Engine("httpx2", lambda generator: generator.with_transport(HttpxTransport(client)))


@pytest.mark.parametrize("name", TOO_MANY)
async def test_too_many_headers_are_refused(name, engine):
    play = raw(JSON_HEAD + TOO_MANY[name] + LENGTH)
    for streaming in (False, True):
        error = await failure_of(play, Asked(streaming, carrying=engine.carrying), timeout_secs=5)
        assert isinstance(error, LimitExceededError | ProtocolError)


@pytest.mark.parametrize("name", LENGTHS)
async def test_a_length_that_cannot_be_is_refused(name, engine):
    play = raw(JSON_HEAD + LENGTHS[name] + b"\r\n" + GOOD)
    error = await failure_of(play, Asked(carrying=engine.carrying), timeout_secs=1)
    is_awaited = engine.name == "httpx2" and isinstance(error, RequestTimeoutError)
    assert is_awaited or isinstance(error, ProtocolError)


@pytest.mark.parametrize("name", CHUNKS)
async def test_a_chunk_that_cannot_be_is_refused(name, engine):
    play = raw(CHUNKED + CHUNKS[name])
    error = await failure_of(play, Asked(carrying=engine.carrying), timeout_secs=1)
    is_awaited = engine.name == "httpx2" and isinstance(error, RequestTimeoutError)
    assert is_awaited or isinstance(error, ProtocolError)


@pytest.mark.parametrize("name", CHUNKS)
async def test_a_chunk_that_cannot_be_is_refused_in_the_middle_of_a_stream(name, engine):
    heard = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.start_events()
        await exchange.chunk(said(5))
        await heard.wait()
        await exchange.send(CHUNKS[name])

    error = await failure_of(play, Asked(True, Limits(), engine.carrying, heard), timeout_secs=1)
    is_awaited = engine.name == "httpx2" and "2^" in name
    assert isinstance(error, RequestTimeoutError if is_awaited else ProtocolError | ReadError)
    assert error.partial == "xxxxx"


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP ", "deflate", "br", "zstd", "x", "gzip, identity"]
)
async def test_a_compressed_answer_is_refused_unread(encoding, engine):
    packed = gzip.compress(b" " * MIB)
    head = JSON_HEAD + b"Content-Encoding: %b\r\n" % encoding.encode()
    play = raw(head + b"Content-Length: %d\r\n\r\n%b" % (len(packed), packed))
    error = await failure_of(play, Asked(carrying=engine.carrying))
    assert isinstance(error, MalformedResponseError)
    assert "compressed" in str(error)


@pytest.mark.parametrize(
    "endless",
    [raw(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 99), raw(CHUNKED, b"0" * 4096),
     raw(CHUNKED + b"5;a=", b"x" * 4096)],
    ids=["early hints", "zeros of a size", "an extension"],
)  # fmt: skip
async def test_a_server_that_never_comes_to_the_point_meets_a_clock(endless):
    error = await failure_of(endless, Asked(), timeout_secs=0.3)
    assert isinstance(error, RequestTimeoutError)


# JSON that no machine can hold.

HUGE = {
    "100,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "a number of 5,000 digits": b"9" * 5000,
    "a number beyond all": b"1e999",
    "a number below all": b"-1e999",
}
PLACES = {
    "openai whole": b'{"choices":[{"message":{"content":"ok"}}],"usage":{"prompt_tokens":@}}',
    "openai event": b'{"choices":[{"delta":{"content":"ok"}}],"usage":{"prompt_tokens":@}}',
    "anthropic whole": b'{"content":[{"type":"text","text":"ok"}],"usage":{"input_tokens":@}}',
    "anthropic event": b'{"type":"message_start","message":{"usage":{"input_tokens":@}}}',
}


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("place", PLACES)
async def test_a_value_that_no_machine_can_hold_is_malformed(place, value):
    data = PLACES[place].replace(b"@", HUGE[value])
    streaming = "event" in place
    reply = (
        ScriptedReply.events(b"data: " + data + b"\n\n") if streaming else ScriptedReply.json(data)
    )
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    generator = generator.with_transport(ScriptedTransport([reply]))
    if place.startswith("anthropic"):
        generator = generator.with_provider(AnthropicProvider())
    started = time.monotonic()
    with pytest.raises(MalformedResponseError):
        if streaming:
            await anext(ChatNode.root("s").chat_streaming("u", generator))
        else:
            await ChatNode.root("s").chat("u", generator)
    assert time.monotonic() - started < 2
