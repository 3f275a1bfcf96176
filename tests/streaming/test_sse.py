"""The event-stream rules of the WHATWG, case by case, and a few that JSON streams add."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillmlib
from minillmlib import ChatNode, GeneratorInfo
from minillmlib.streaming.sse import SseDecoder, SseEvent
from minillmlib.testing import ScriptedReply, ScriptedTransport

BOM = "\ufeff"
LONG = "x" * 2048

# The vectors of web-platform-tests' eventsource suite: the stream, and the data, names and ids
# it dispatches. A plain string stands for an event of type "message" with no id.
VECTORS = {
    "bom": (f"{BOM}data:1\n\n{BOM}data:2\n\ndata:3\n\n", ["1", "3"]),
    "bom-2": (f"{BOM}{BOM}data:1\n\ndata:2\n\ndata:3\n\n", ["2", "3"]),
    "comments": (
        f"data:1\r:\0\n:\r\ndata:2\n:{LONG}\rdata:3\n:data:fail\r:{LONG}\ndata:4\n\n",
        ["1\n2\n3\n4"],
    ),
    "data-before-final-empty-line": (
        "retry:1000\ndata:test1\n\nid:test\ndata:test2", ["test1"]),
    "field-data": ("data:\n\ndata\ndata\n\ndata:test\n\n", ["", "\n", "test"]),
    "field-event": (
        "event:test\ndata:x\n\ndata:x\n\n", [SseEvent("x", "test"), SseEvent("x")]),
    "field-event-empty": ("event: \ndata:data\n\n", ["data"]),
    "field-id": ("id: \u2026\nretry: 200\ndata: hello\n\n", [SseEvent("hello", id="\u2026")]),
    "field-id-2": (
        "id: \u2026\nretry: 200\ndata: hello\n\ndata: again\n\n",
        [SseEvent("hello", id="\u2026"), SseEvent("again", id="\u2026")],
    ),
    "field-id-3 persists": (
        "id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\ndata: d\n\n",
        [SseEvent(data, id=name) for data, name in ("a1", "b1", "c2", "d2")],
    ),
    "field-id-3 resets": (
        "id: 1\ndata: a\n\nid:\ndata: b\n\ndata: c\n\n",
        [SseEvent("a", id="1"), SseEvent("b"), SseEvent("c")],
    ),
    "field-id-3 resets without a colon": (
        "id: 1\ndata: a\n\nid\ndata: b\n\ndata: c\n\n",
        [SseEvent("a", id="1"), SseEvent("b"), SseEvent("c")],
    ),
    **{
        f"field-id-null {position}": (f"id: {value}\ndata: hello\n\n", ["hello"])
        for position, value in enumerate(["\0\0", "x\0", "\0x", "x\0x", " \0"], start=1)
    },
    "field-parsing": (
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\r"
        "data:\r\n data:32\ndata:4\n\n",
        ["\0\n 2\n1\n3\n\n4"],
    ),
    "field-retry": ("retry:03000\ndata:test\n\n", ["test"]),
    "field-retry-bogus": ("retry:3000\nretry:1000x\ndata:test\n\n", ["test"]),
    "field-retry-empty": ("retry\ndata:test\n\n", ["test"]),
    "field-unknown": (
        "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        ["test\n\ntest"],
    ),
    "leading-space": ("data:\ttest\rdata: \ndata:test\n\n", ["\ttest\n\ntest"]),
    "newlines": ("data:test\r\ndata\ndata:test\r\n\r", ["test\n\ntest"]),
    "null-character": ("data:\0\n\n", ["\0"]),
    "utf-8": ("data:ok\u2026\n\n", ["ok\u2026"]),
    "event-data": (
        "data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\n"
        "data:end\n\n",
        ["msg\nmsg", "", "end"],
    ),
    # Beyond the suite: only CR, LF and CRLF end a line, whatever a text library thinks.
    **{
        f"U+{ord(char):04X} is content": (f'data:{{"a":"b{char}c"}}\n\n', [f'{{"a":"b{char}c"}}'])
        for char in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
    },
    "crlf only": ("data:1\r\n\r\ndata:2\r\n\r\n", ["1", "2"]),
    "cr only": ("data:1\r\rdata:2\r\r", ["1", "2"]),
    "a blank line between comments dispatches nothing": (": a\n\n: b\n\n", []),
    "an event that does not end is not dispatched": ("data:1\n\ndata:2\n", ["1"]),
    "four bytes of one character": ("data:\U0001f600\n\n", ["\U0001f600"]),
    "a CR, then a CRLF": ("data:a\r\r\ndata:b\r\n\r\n", ["a", "b"]),
    "each event without a blank line has its own name and id": (
        'id: 1\nevent: a\ndata: {"n":1}\nevent: b\nid: 2\ndata: {"n":2}\ndata: {"n":3}\n\ndata: x\n\n',
        [SseEvent('{"n":1}', "a", "1"), SseEvent('{"n":2}', "b", "2"),
         SseEvent('{"n":3}', "b", "2"), SseEvent("x", id="2")],
    ),
    "an event without a blank line has the name before it, the last also the one behind": (
        "data: {}\nevent: a\ndata: []\nevent: b\nid: 3\n\n", [SseEvent("{}"), SseEvent("[]", "b", "3")],
    ),
    "a name between the lines of one event is the event's": (
        'event: a\ndata: {"n":\nevent: b\ndata: 1}\n\n', [SseEvent('{"n":\n1}', "b")]),
    "llama.cpp's error field": ('error: {"code":1}\n\n', [SseEvent('{"code":1}', "error")]),
}  # fmt: skip


def decode(pieces) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def expected(name: str) -> list[SseEvent]:
    return [SseEvent(item) if isinstance(item, str) else item for item in VECTORS[name][1]]


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_gives_its_events_whole_and_byte_by_byte(name):
    data = VECTORS[name][0].encode()
    assert decode([data]) == expected(name)
    assert decode(data[i : i + 1] for i in range(len(data))) == expected(name)


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_gives_its_events_at_every_two_split_and_100_random_splits(name):
    data = VECTORS[name][0].encode()
    for cut in range(len(data) + 1):
        assert decode([data[:cut], data[cut:]]) == expected(name)
    chance = random.Random(name)
    for _ in range(100):
        assert decode(split_at_random(data, chance)) == expected(name)


def split_at_random(data: bytes, chance: random.Random) -> list[bytes]:
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(1, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.lists(st.text(alphabet="data:\r\n \0xé\u2028\ufeff", max_size=30), max_size=12))
def test_how_a_stream_is_cut_never_matters(pieces):
    data = "".join(pieces).encode()
    assert decode([piece.encode() for piece in pieces]) == decode([data])


PARTS = (
    "data: x\n\n", 'data: {"a":"é\u2028😀"}\n\n', f"data: {'l' * 60}\n\n", "event: e\ndata: y\n\n",
    "event: q\r\ndata: w\r\n\r\n", "data: z\r\n\r\n", "data: a\ndata: b\n\n", "data:c", "event: f\n",
    "id: 7\n", ": c\n\n", "error: {}\n\n", "data: {}\n", "event: é\ndata: []\n", "\n", "\r", "\r\n", "\r\r\n",
)  # fmt: skip


def told(pieces, most_bytes: int) -> tuple[list[SseEvent], bool]:
    """The events, and whether they were too large in the end."""
    decoder, events = SseDecoder(most_bytes), []
    try:
        for piece in (*pieces, b""):
            events += decoder.feed(piece)
    except minillmlib.LimitExceededError:
        return events, True
    return events, False


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8), st.data())
def test_whole_events_are_read_like_those_that_come_byte_by_byte(parts, data):
    text = "".join(["data: first\n\n", *parts]).encode()
    near_ends = [i for i in range(1, len(text)) if text[i - 1] in b"\r\n" or text[i] in b"\r\n"]
    cuts = sorted(data.draw(st.lists(st.sampled_from(near_ends), max_size=3)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    byte_by_byte = [text[i : i + 1] for i in range(len(text))]
    for most_bytes in (100, 150, 10_000):
        assert told(pieces, most_bytes) == told(byte_by_byte, most_bytes)


@given(st.binary(max_size=200))
def test_any_bytes_decode_without_an_error(data):
    decode([data])


def test_bytes_that_are_not_utf_8_become_replacement_characters():
    assert decode([b"data:a\xffb\n\n"]) == [SseEvent("a\ufffdb")]


CHUNK = (
    b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


def generator_for(status: int, headers: dict[str, str], body: bytes) -> GeneratorInfo:
    reply = ScriptedReply(pieces=(body,), status=status, headers=headers)
    transport = ScriptedTransport([reply])
    return GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(transport)


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream", "text/event-stream;", "text/event-stream; charset=windows-1252",
     "TEXT/Event-Stream", None],
)  # fmt: skip
async def test_an_event_stream_is_known_by_its_media_type(content_type):
    headers = {} if content_type is None else {"content-type": content_type}
    async with ChatNode.root("x").chat_streaming("y", generator_for(200, headers, CHUNK)) as stream:
        assert "".join([chunk.delta async for chunk in stream]) == "ok"


@pytest.mark.parametrize("content_type", ["x bogus", "text/x-bogus", "text/html", "text/plain"])
async def test_events_under_another_media_type_are_known_by_their_first_bytes(content_type):
    generator = generator_for(200, {"content-type": content_type}, CHUNK)
    async with ChatNode.root("x").chat_streaming("y", generator) as stream:
        assert "".join([chunk.delta async for chunk in stream]) == "ok"


@pytest.mark.parametrize("status", [201, 202, 210, 246, 299])  # 246 is Portkey's, of a flagged text
async def test_events_of_any_success_are_read(status):
    generator = generator_for(status, {"content-type": "text/event-stream"}, CHUNK)
    async with ChatNode.root("x").chat_streaming("y", generator) as stream:
        assert "".join([chunk.delta async for chunk in stream]) == "ok"
    assert stream.node.response.attempts[0].status == status


@pytest.mark.parametrize("status", [204, 205, 404, 410, 503])
async def test_the_body_of_a_failure_or_of_no_content_is_not_read_as_events(status):
    generator = generator_for(status, {"content-type": "text/event-stream"}, CHUNK)
    kind = minillmlib.ApiError if status >= 400 else minillmlib.MalformedResponseError
    with pytest.raises(kind):
        await anext(ChatNode.root("x").chat_streaming("y", generator))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_says_where_it_led(status):
    headers = {"location": "https://elsewhere.example/"}
    with pytest.raises(minillmlib.RedirectError, match=r"https://elsewhere\.example/"):
        await anext(ChatNode.root("x").chat_streaming("y", generator_for(status, headers, b"")))


def test_a_line_that_has_not_ended_may_be_as_long_as_the_limit_and_no_longer():
    decoder = SseDecoder(max_bytes=100)
    decoder.feed(b"data: ")
    assert decoder.feed(b"x" * 94) == []
    with pytest.raises(minillmlib.LimitExceededError):
        decoder.feed(b"x")
