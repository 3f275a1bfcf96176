"""Twice as much input takes twice as long, however it is made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import msgspec
import pytest
from cost_of_work import Work, check_linear

import minillmlib
from minillmlib import ChatNode, GeneratorInfo, MiniLLMError, NodeCompletionParameters
from minillmlib.client.placeholders import fill_text
from minillmlib.json_value import decode_json
from minillmlib.protocols.errors import error_from_reply
from minillmlib.streaming.accumulator import ResponseAccumulator
from minillmlib.streaming.reasoning_blocks import ReasoningAccumulator
from minillmlib.streaming.sse import SseDecoder
from minillmlib.streaming.tool_calls import ToolCallAccumulator
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import StreamChunk
from minillmlib.types.tools import ToolCallDelta

pytestmark = pytest.mark.long


# Bytes of a stream.

KIB, MIB = 1024, 1024 * 1024


def decoding(first: bytes, piece: bytes, last: bytes = b"\n\n") -> Work:
    def work(size: int) -> None:
        decoder = SseDecoder()
        decoder.feed(first)
        for _ in range(size // len(piece)):
            decoder.feed(piece)
        decoder.feed(last)

    return work


STREAMS = {
    "one line in pieces of 1 kB": (decoding(b"data:", b"x" * KIB), 2 * MIB),
    "one comment in pieces of 1 kB": (decoding(b":", b"x" * KIB), 2 * MIB),
    "one line in pieces of a byte": (decoding(b"data:", b"x"), 50 * KIB),
    "one event of many lines": (decoding(b"", b"data: x\n" * 128), 128 * KIB),
    "line ends": (decoding(b"", b"\r" * KIB), 128 * KIB),
    "many events": (decoding(b"", b"data: x\n\n" * 128), 128 * KIB),
    "many ids": (decoding(b"", b"id: 1\nevent: x\n" * 64), 128 * KIB),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_decoded_in_linear_time(name):
    check_linear(*STREAMS[name])


# Pieces of calls, of thoughts, and of everything.


def calling(delta_of: Callable[[int], ToolCallDelta]) -> Work:
    def work(size: int) -> None:
        calls = ToolCallAccumulator()
        for number in range(size):
            calls.add(delta_of(number))
        calls.is_complete()
        calls.calls()

    return work


def thinking(delta_of: Callable[[int], ReasoningDelta]) -> Work:
    def work(size: int) -> None:
        blocks = ReasoningAccumulator()
        for number in range(size):
            blocks.add(delta_of(number), number, number)
        blocks.blocks()

    return work


def folding(size: int) -> None:
    fold = ResponseAccumulator()
    for number in range(size):
        block = ReasoningDelta(index=number % 7, fields={"type": "thinking", "thinking": "x"})
        call = ToolCallDelta(index=number % 5, name="f", arguments="x")
        fold.add(
            StreamChunk(
                delta="x", reasoning="x", refusal="x", tool_calls=(call,), reasoning_blocks=(block,)
            )
        )
    assert len(fold.response().content) == size


CALLS = {
    "pieces with an index": (lambda n: ToolCallDelta(index=0, name="f", arguments="xy"), 10_000),
    "pieces with nothing but text": (
        lambda n: ToolCallDelta(name="" if n else "f", arguments="xy"), 10_000),
    "pieces of JSON": (lambda n: ToolCallDelta(index=0, name="f", arguments="1"), 2_000),
    "calls with an index": (lambda n: ToolCallDelta(index=n, id=f"c{n}", name="f"), 10_000),
    "calls with one index": (lambda n: ToolCallDelta(index=0, id=f"c{n}", name="f"), 10_000),
    "pieces of one id": (lambda n: ToolCallDelta(id="c", name="f", arguments="xy"), 10_000),
    "calls with an id and no index": (lambda n: ToolCallDelta(id=f"c{n}", name="f"), 500),
    "calls with a name only": (lambda n: ToolCallDelta(name="f", arguments="xy"), 200),
    "a name in pieces": (lambda n: ToolCallDelta(index=0, name=f"{n:0500}"), 1_000),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_put_together_in_linear_time(name):
    delta_of, size = CALLS[name]
    check_linear(calling(delta_of), size)


THOUGHTS = {
    "one block": lambda n: ReasoningDelta(index=0, fields={"type": "t", "thinking": "x" * 20}),
    "many blocks": lambda n: ReasoningDelta(index=n, fields={"type": "t", "thinking": "x"}),
    "two kinds of one index": lambda n: ReasoningDelta(
        index=0, fields={"type": "ab"[n % 2], "text": "x"}),
    "many fields": lambda n: ReasoningDelta(index=0, fields={"type": "t", f"f{n}": "x"}),
    "pieces of a block that is none": lambda n: ReasoningDelta(index=n, fields={"input": "x"}),
    "an input": lambda n: ReasoningDelta(
        index=0, fields={"input": "x"} if n else {"type": "t", "input": {}}),
}  # fmt: skip


@pytest.mark.parametrize("name", THOUGHTS)
def test_thoughts_are_put_together_in_linear_time(name):
    check_linear(thinking(THOUGHTS[name]), 10_000)


def test_everything_is_put_together_in_linear_time():
    check_linear(folding, 5_000)


# Texts.


def texts(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit))


HOSTILE = [
    "{",
    "{a",
    "{a}",
    "}",
    "{{",
    "{}",
    "{aaaaaaaaaaaaaaaa",
    "{a{a}",
    "{a b}",
    "{" + "a" * 999,
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_placeholders_are_filled_in_linear_time(unit):
    text = texts(unit)
    check_linear(lambda size: fill_text(text(size), {"a": "{a}{a}", "b": 1}), 256 * KIB)


def ours(read: Callable[[], object]) -> None:
    """Run it; an error of ours will do."""
    with contextlib.suppress(MiniLLMError):
        read()


JSON_UNITS = ["\\ud800", "\\", "\\u", "[", '"', '"\\ud800",', "\ud800", "{", " ", "9", "\\\\ud800"]


@pytest.mark.parametrize("unit", JSON_UNITS)
def test_broken_json_is_refused_in_linear_time(unit):
    text = texts(unit)
    check_linear(lambda size: ours(lambda: decode_json('"' + text(size))), 256 * KIB)


FAILURES = [
    "<title>", "</title>", "\n", "\x00", "prompt is ", '{"error":', "x", "<title></title>",
    " 'a b", ' "a ', " `", "'message': ", "input token count ", "exceed ", "try again in 1",
    "data: x\n\n", "data: {\n\n", ":\n",
]  # fmt: skip


@pytest.mark.parametrize("unit", FAILURES)
def test_an_error_body_is_read_in_linear_time(unit):
    text = texts(unit)
    check_linear(lambda size: error_from_reply(500, {}, text(size).encode()), 256 * KIB)
    encode = msgspec.json.encode  # in a message, where words are looked for
    check_linear(lambda size: error_from_reply(500, {}, encode({"error": text(size)})), 256 * KIB)


# By the library's own door.

EVENTS: dict[str, Callable[[int], Iterable[bytes]]] = {
    "text": lambda n: [b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'] * n,
    "thought": lambda n: [b'data: {"choices":[{"delta":{"reasoning":"x"}}]}\n\n'] * n,
    "counts": lambda n: [
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'] * n,
    "comments": lambda n: [b": ping\n\n"] * n,
}  # fmt: skip


@pytest.mark.parametrize("at_once", [1, 100], ids=["one by one", "in heaps"])
@pytest.mark.parametrize("name", EVENTS)
def test_a_stream_is_read_in_linear_time(name, at_once):
    params = NodeCompletionParameters(force_prepend="x" * 1000) if name == "text" else None

    def work(size: int) -> None:
        events = list(EVENTS[name](size))
        heaps = [b"".join(events[i : i + at_once]) for i in range(0, size, at_once)]
        reply = ScriptedReply.events(*heaps, b"data: [DONE]\n\n")
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
        generator = generator.with_transport(ScriptedTransport([reply]))
        stream = ChatNode.root("s").chat_streaming("u", generator, params)
        ours(lambda: list(minillmlib.iterate(stream)))

    check_linear(work, 500)
