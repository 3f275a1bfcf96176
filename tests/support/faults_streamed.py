"""Rows of the fault matrix for a stream: its framing, its pace, its end, and its events."""

from __future__ import annotations

import re
from typing import Any

from fault_cells import Fault, late, right, wrong
from fault_plays import (
    DONE,
    ENDING,
    FAILS,
    PING,
    REASON,
    REST,
    SAY,
    START,
    answers,
    drips,
    send_pieces,
    streams,
)
from fault_server import FaultExchange, Play
from fault_wires import (
    CHAT,
    COUNTS,
    PARTIAL,
    RESPONSES,
    TEXT,
    Counts,
    ResponsesWire,
    Wire,
    encode,
    event,
)

from minillmlib import (
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    OverloadedError,
    RateLimitError,
    ReadError,
    RequestTimeoutError,
    ServerError,
)

__all__ = ["FAULTS"]

STREAMED = {"modes": ("streamed",)}
ANTHROPIC = {"modes": ("streamed",), "providers": ("anthropic",)}
ON_CHAT = {"modes": ("streamed",), "providers": CHAT}
ON_RESPONSES = {"modes": ("streamed",), "providers": RESPONSES}
# Wires whose finish, counts and end are events of their own.
APART = {"modes": ("streamed",), "providers": (*CHAT, "anthropic")}
WHOLE = (START, SAY, REST, ENDING, DONE)
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def reframed(change: Any, size: int | None = None, pause: float = 0.0) -> Play:
    """A whole stream with its bytes changed, in chunks of `size` bytes."""

    async def play(exchange: FaultExchange) -> None:
        data = change(b"".join(exchange.wire.events()))
        step = size or len(data)
        await exchange.start_events()
        for start in range(0, len(data), step):
            await exchange.chunk(data[start : start + step])
            await exchange.silence(pause)
        await exchange.end()

    return play


def split_at(mark: bytes, data_of: Any) -> Play:
    """A whole stream in two chunks, cut within the mark."""

    async def play(exchange: FaultExchange) -> None:
        data = data_of(exchange.wire)
        place = data.index(mark) + 1
        await exchange.start_events(data[:place])
        await exchange.silence(0.03)
        await exchange.chunk(data[place:])
        await exchange.end()

    return play


def in_many_lines(data: bytes) -> bytes:
    """Each JSON over several data lines."""
    return data.replace(b',"', b',\ndata: "')


def saying(text: str) -> Any:
    """A whole stream that says this instead."""
    return lambda wire: b"".join((wire.start(), wire.say(text), wire.ending(), wire.done()))


def says_bytes(data: bytes) -> Any:
    """An event with these bytes in its text."""
    return lambda wire: wire.say("MARK").replace(b"MARK", data)


def of_kind(kind: str | None) -> Play:
    """A whole stream under this content type."""

    async def play(exchange: FaultExchange) -> None:
        await exchange.head(kind=kind)
        for piece in exchange.wire.events():
            await exchange.chunk(piece)
        await exchange.end()

    return play


def same(data: bytes) -> bytes:
    return data


FRAMING = [
    Fault(name=name, play=play, expect=right(), **STREAMED)
    for name, play in (
        ("a byte order mark", reframed(lambda data: b"\xef\xbb\xbf" + data)),
        ("a byte order mark, in small bits", reframed(lambda data: b"\xef\xbb\xbf" + data, 8)),
        ("lines that end in CR", reframed(lambda data: data.replace(b"\n", b"\r"))),
        ("lines that end in CRLF, in small bits",
         reframed(lambda data: data.replace(b"\n", b"\r\n"), 9)),
        ("a CRLF in two chunks",
         split_at(b"\r\n", lambda wire: b"".join(wire.events()).replace(b"\n", b"\r\n"))),
        ("an event of many data lines", reframed(in_many_lines)),
        ("an event of many data lines, in small bits", reframed(in_many_lines, 11)),
        ("everything in one chunk", reframed(same)),
        ("no blank after the colon", reframed(lambda data: data.replace(b"data: ", b"data:"))),
        ("comments, ids and retries between",
         reframed(lambda data: data.replace(b"data: ", b": hi\nid: 7\nretry: 1\ndata: "))),
        ("fields of the frame that nobody knows",
         reframed(lambda data: data.replace(b"data: ", b"foo: bar\njusttext\ndata: "))),
        ("a last event without its blank line",
         reframed(lambda data: data.removesuffix(b"\n"))),
        ("a stream with a character set", of_kind('text/event-stream; charset="utf-8"')),
        ("a stream of no declared kind", of_kind(None)),
    )
]  # fmt: skip

TEXTS = [
    Fault(name="a character in two chunks", expect=right("Ebbe um 06:12 \u2014 tief"),
          play=split_at("\u2014".encode(), saying("Ebbe um 06:12 \u2014 tief")), **STREAMED),
    Fault(name="text in an event that is not UTF-8", expect=right("Low \ufffd\ufffd tide"),
          play=streams(START, says_bytes(b"Low \xff\xfe tide"), ENDING, DONE), **STREAMED),
    Fault(name="separators of lines in an event", expect=right("a\u2028b\u2029c\x85d\x1ce"),
          play=streams(saying("a\u2028b\u2029c\x85d\x1ce")), **STREAMED),
    Fault(name="half a surrogate pair in an event", expect=right("Low \ufffd tide"),
          play=streams(START, says_bytes(b"Low \\ud800 tide"), ENDING, DONE), **STREAMED),
    Fault(name="an empty text in a stream", play=streams(START, ENDING, DONE), expect=right(""),
          **STREAMED),
    Fault(name="a page under the name of a stream",
          play=answers(b"<!DOCTYPE html><html><title>Hello</title></html>",
                       kind="text/event-stream"),
          expect=wrong(MalformedResponseError, says="Hello"), **STREAMED),
    Fault(name="a page in place of a stream", expect=wrong(MalformedResponseError, says="Hello"),
          play=answers(b"<!DOCTYPE html><html><title>Hello</title></html>", kind="text/html"),
          **STREAMED),
    Fault(name="a stream under the name of plain text", expect=right(),
          play=of_kind("text/plain"), **STREAMED),
]  # fmt: skip


def unknown_events(wire: Wire) -> bytes:
    """Events that a wire may have one day."""
    if wire.name == "anthropic":
        new = {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "x": 1}}
        return event({"type": "news", "x": [1]}, "news") + event(new) + wire.ping()
    if isinstance(wire, ResponsesWire):
        new = {"type": "response.output_text.news", "output_index": 0, "item_id": "msg_1", "x": 1}
        return event({"type": "response.news", "x": [1]}) + event(new, new["type"])
    choice = {"index": 0, "delta": {"new": [1]}, "finish_reason": None, "x": {}}
    return event({"object": "chat.completion.news", "x": {"y": 1}, "choices": [choice]})


def deep_event(wire: Wire) -> bytes:
    return b'data: {"type":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"


NEWS = [
    Fault(name="events that nobody knows", expect=right(),
          play=streams(START, unknown_events, SAY, unknown_events, REST, ENDING, DONE),
          **STREAMED),
    Fault(name="pings between", play=streams(START, PING, SAY, PING, REST, ENDING, PING, DONE),
          expect=right(), **STREAMED),
    Fault(name="text after the end marker", play=streams(*WHOLE, SAY, 0.02, SAY), expect=right(),
          **STREAMED),
    Fault(name="an error after the end marker", play=streams(*WHOLE, FAILS), expect=right(),
          **STREAMED),
    Fault(name="an event that is not JSON", expect=wrong(MalformedResponseError, text=PARTIAL),
          play=streams(START, SAY, b'data: {"choi\n\n', REST, ENDING, DONE), **STREAMED),
    Fault(name="an event of another shape", expect=wrong(MalformedResponseError, text=PARTIAL),
          play=streams(START, SAY, b'data: {"choices":5,"type":3}\n\n', REST, ENDING, DONE),
          **STREAMED),
    Fault(name="an event that is a number", expect=wrong(MalformedResponseError, text=PARTIAL),
          play=streams(START, SAY, b"data: 3\n\n", REST, ENDING, DONE), **STREAMED),
    Fault(name="an event nested 100,000 deep", expect=wrong(MalformedResponseError, text=PARTIAL),
          play=streams(START, SAY, deep_event, REST, ENDING, DONE), **STREAMED),
]  # fmt: skip


def broken_choice(wire: Wire) -> bytes:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
    error = {"code": 429, "message": "Rate limit exceeded",
             "metadata": {"error_type": "rate_limit_exceeded"}}  # fmt: skip
    return event({"id": "gen-1", "choices": [choice], "error": error})


def failed_end(wire: Wire) -> bytes:
    response = {"status": "failed", **wire.failure(500)}
    return event({"type": "response.failed", "response": response}, "response.failed")


ERRORS = [
    Fault(name="an error event after some text", play=streams(START, SAY, FAILS),
          expect=wrong(ServerError, text=PARTIAL), **STREAMED),
    Fault(name="an overload event after some text",
          play=streams(START, SAY, lambda wire: wire.error_event(529)),
          expect=wrong(OverloadedError, text=PARTIAL), **STREAMED),
    Fault(name="an error event that stays open", play=streams(START, SAY, FAILS, then="silence"),
          expect=wrong(ServerError, text=PARTIAL), **STREAMED),
    Fault(name="an error event before any text", play=streams(FAILS), expect=wrong(ServerError),
          **STREAMED),
    Fault(name="an error event and then more text",
          play=streams(START, SAY, FAILS, REST, ENDING, DONE),
          expect=wrong(ServerError, text=PARTIAL), **STREAMED),
    Fault(name="an error event in plain words", expect=wrong(ServerError, text=PARTIAL,
                                                             says="it broke"),
          play=streams(START, SAY, b"event: error\ndata: it broke\n\n"), **STREAMED),
    Fault(name="an error field in place of data", expect=wrong(ServerError, text=PARTIAL),
          play=streams(START, SAY, b'error: {"code":500,"message":"No."}\n\n'), **STREAMED),
    Fault(name="an error in a chunk that finishes", play=streams(START, SAY, broken_choice),
          expect=wrong(RateLimitError, text=PARTIAL), **ON_CHAT),
    Fault(name="an error event after the counts", play=streams(START, SAY, REST, ENDING, FAILS),
          expect=wrong(ServerError, "R", TEXT), **APART),
    Fault(name="an answer that fails after some text", play=streams(START, SAY, failed_end),
          expect=wrong(ServerError, text=PARTIAL), **ON_RESPONSES),
    Fault(name="an error in one piece for a stream", expect=wrong(ServerError),
          play=answers(lambda wire: encode(wire.failure(500))), **STREAMED),
]  # fmt: skip


def counted_twice(first: Counts, second: Counts) -> Play:
    """A stream with two records of its counts."""
    return streams(
        START, SAY, REST,
        lambda wire: wire.ending(usage=wire.usage(first)),
        lambda wire: wire.counted(wire.usage(second)),
        DONE,
    )  # fmt: skip


LESS, MORE = Counts(out=100), Counts(out=500)
ENDED_TWICE = [
    Fault(name="equal counts twice", play=counted_twice(COUNTS, COUNTS), expect=right(),
          **STREAMED),
    Fault(name="counts that grow", play=counted_twice(COUNTS, MORE), expect=right(counts=MORE),
          **APART),
    Fault(name="counts that shrink", play=counted_twice(COUNTS, LESS), expect=right(),
          **STREAMED),
    Fault(name="two finish reasons", expect=right(),
          play=streams(START, SAY, REST, REASON, lambda wire: wire.ending("length"), DONE),
          **APART),
    Fault(name="an end marker twice", play=streams(*WHOLE, DONE), expect=right(), **STREAMED),
]  # fmt: skip

CUT = wrong(IncompleteStreamError, text=PARTIAL)
BROKEN = wrong(ReadError, text=PARTIAL)
BROKEN_LATER = wrong(ReadError, text=TEXT)


def cut_in_a_chunk(*pieces: Any, pause: float = 0.0) -> Play:
    """Pieces of a stream, then the beginning of a chunk, then nothing."""

    async def play(exchange: FaultExchange) -> None:
        await send_pieces(exchange, pieces)
        await exchange.silence(pause)
        await exchange.send(b"fff\r\ndata: {")
        exchange.close()

    return play


ENDS = [
    Fault(name="a proper end without a finish", play=streams(START, SAY), expect=CUT, **STREAMED),
    Fault(name="a proper end after counts but without a finish", expect=CUT,
          play=streams(START, SAY, lambda wire: wire.counted()), **ON_CHAT),
    Fault(name="a proper end within an event", expect=CUT,
          play=streams(START, SAY, lambda wire: wire.reason()[:-20]), **STREAMED),
    Fault(name="a proper end within the counts", expect=right(cost="U"),
          play=streams(START, SAY, REST, lambda wire: wire.ending()[:-20]), **ON_CHAT),
    Fault(name="a proper end before any event", play=streams(),
          expect=wrong(IncompleteStreamError), **STREAMED),
    Fault(name="only the beginning of a stream", play=streams(START),
          expect=wrong(IncompleteStreamError), **STREAMED),
    Fault(name="only an end marker", play=streams(DONE), expect=wrong(IncompleteStreamError),
          **STREAMED),
    Fault(name="an end marker after text, without a reason", play=streams(START, SAY, REST, DONE),
          expect=right(cost="U"), **APART),
    Fault(name="the end marker of another wire, without a reason",
          play=streams(START, SAY, REST, DONE),
          expect=wrong(IncompleteStreamError, text=TEXT), **ON_RESPONSES),
    Fault(name="counts and an end marker after text, without a reason", expect=right(),
          play=streams(START, SAY, REST, lambda wire: wire.counted(), DONE), **ON_CHAT),
    Fault(name="the connection ends between two chunks", expect=BROKEN,
          play=streams(START, SAY, 0.05, then="close"), **STREAMED),
    Fault(name="the connection ends within a chunk", play=cut_in_a_chunk(START, SAY, pause=0.05),
          expect=BROKEN, **STREAMED),
    Fault(name="the connection ends within a chunk, at once", play=cut_in_a_chunk(START, SAY),
          expect=BROKEN, **STREAMED),
    Fault(name="a reset after some text", play=streams(START, SAY, 0.05, then="reset"),
          expect=BROKEN, **STREAMED),
    Fault(name="a finish and no end marker", play=streams(START, SAY, REST, ENDING),
          expect=right(), **STREAMED),
    Fault(name="a finish, then the connection ends", expect=right(),
          play=streams(START, SAY, REST, ENDING, 0.05, then="close"), **STREAMED),
    Fault(name="a finish, then a reset", expect=right(),
          play=streams(START, SAY, REST, ENDING, 0.05, then="reset"), **STREAMED),
    Fault(name="an end marker, then the connection ends at once", expect=right(),
          play=streams(*WHOLE, then="close"), **STREAMED),
    Fault(name="a finish without counts, then the connection ends", expect=right(cost="U"),
          play=streams(START, SAY, REST, REASON, 0.05, then="close"), **STREAMED),
    Fault(name="the connection ends within a chunk, behind a slow reader", expect=BROKEN_LATER,
          play=cut_in_a_chunk(START, SAY, 0.05, REST), pause_secs=0.2, **STREAMED),
    Fault(name="an end marker, then the connection ends, behind a slow reader", expect=right(),
          play=streams(START, SAY, 0.05, REST, ENDING, DONE, then="close"), pause_secs=0.2,
          **STREAMED),
    Fault(name="a proper end without a finish, behind a slow reader", pause_secs=0.2,
          play=streams(START, SAY, 0.05, REST),
          expect=wrong(IncompleteStreamError, text=TEXT), **STREAMED),
    Fault(name="an end marker, then nothing ends", play=streams(*WHOLE, then="silence"),
          expect=right(secs=0.25), **STREAMED),
]  # fmt: skip

GRACE = 0.2
BRIEF = {"timeout_secs": 0.4, "progress_timeout_secs": 0.5}
STALLED = late(RequestTimeoutError, 0.4, "silence", PARTIAL)
STUCK = late(RequestTimeoutError, 0.5, "progress", PARTIAL)

PACE = [
    Fault(name="silence after the head", play=streams(then="silence"), settings=BRIEF,
          expect=late(RequestTimeoutError, 0.4, "silence"), **STREAMED),
    Fault(name="silence after some text", play=streams(START, SAY, then="silence"),
          settings=BRIEF, expect=STALLED, **STREAMED),
    Fault(name="silence until the deadline", play=streams(START, SAY, then="silence"),
          settings={"deadline_secs": 0.4}, expect=late(RequestTimeoutError, 0.4, "deadline",
                                                       PARTIAL), **STREAMED),
    Fault(name="only comments", play=drips(START, SAY, forever=b": hi\n\n", each_secs=0.1),
          settings=BRIEF, expect=STUCK, **STREAMED),
    Fault(name="only pings", play=drips(START, SAY, forever=PING, each_secs=0.1), settings=BRIEF,
          expect=STUCK, **STREAMED),
    Fault(name="pings before anything", play=drips(forever=PING, each_secs=0.1), settings=BRIEF,
          expect=late(RequestTimeoutError, 0.5, "progress"), **STREAMED),
    Fault(name="empty pieces of text", settings=BRIEF, expect=STUCK,
          play=drips(START, SAY, forever=lambda wire: wire.say(""), each_secs=0.1), **STREAMED),
    Fault(name="an event byte by byte", play=drips(START, SAY, forever=b"data: {", each_secs=0.1,
                                                   size=1),
          settings=BRIEF, expect=STUCK, **STREAMED),
    Fault(name="text for longer than the deadline", settings={"deadline_secs": 0.5},
          play=drips(START, forever=lambda wire: wire.say("tick "), each_secs=0.1),
          expect=late(RequestTimeoutError, 0.5, "deadline", re.compile("(tick ){3,6}")),
          **STREAMED),
    Fault(name="text that is slow but comes", settings={"timeout_secs": 0.4},
          play=streams(START, 0.25, SAY, 0.25, REST, 0.25, ENDING, DONE),
          expect=right(secs=0.75), **STREAMED),
    Fault(name="a finish, then silence in place of counts", expect=right(secs=GRACE, cost="U"),
          play=streams(START, SAY, REST, REASON, then="silence"), grace_secs=GRACE, **STREAMED),
    Fault(name="a finish and counts, then silence", expect=right(secs=GRACE),
          play=streams(START, SAY, REST, ENDING, then="silence"), grace_secs=GRACE, **STREAMED),
    Fault(name="a finish, then only pings", expect=right(secs=GRACE, cost="U"),
          play=drips(START, SAY, REST, REASON, forever=PING, each_secs=0.05), grace_secs=GRACE,
          **STREAMED),
]  # fmt: skip


async def cut_short_stream(exchange: FaultExchange) -> None:
    await exchange.head(kind="text/event-stream", length=9999)
    await exchange.chunk(exchange.wire.start() + exchange.wire.say(PARTIAL))
    await exchange.silence(0.05)
    exchange.close()


SMALL = Limits(event_bytes=5000, stream_bytes=50_000)
FLOOD = b"x" * 4000
LIMITS = [
    Fault(name="a line without an end", limits=SMALL, play=drips(START, SAY, forever=FLOOD),
          expect=wrong(LimitExceededError, text=PARTIAL, says="event_bytes"), **STREAMED),
    Fault(name="a long line beside the text, in one chunk", limits=SMALL,
          play=streams(lambda wire: wire.start() + wire.say(PARTIAL) + b"data: " + FLOOD * 2),
          expect=wrong(LimitExceededError, text=PARTIAL, says="event_bytes"), **STREAMED),
    Fault(name="an event of lines without an end", limits=SMALL,
          play=drips(START, SAY, forever=b"data: " + b"x" * 400 + b"\n"),
          expect=wrong(LimitExceededError, text=PARTIAL, says="event_bytes"), **STREAMED),
    # What Azure's filters report counts, too.
    Fault(name="text without an end", limits=Limits(text_chars=4000),
          play=drips(START, forever=lambda wire: wire.say("tick ")),
          expect=wrong(LimitExceededError, text=re.compile("(tick ){600,801}"), says="text_chars"),
          **STREAMED),
    Fault(name="comments without an end", limits=SMALL,
          play=drips(START, SAY, forever=b": " + b"x" * 900 + b"\n\n"),
          expect=wrong(LimitExceededError, text=PARTIAL, says="stream_bytes"), **STREAMED),
    Fault(name="a stream shorter than its length",
          play=cut_short_stream, expect=BROKEN, **STREAMED),
]  # fmt: skip


FAULTS = [*FRAMING, *TEXTS, *NEWS, *ERRORS, *ENDED_TWICE, *ENDS, *PACE, *LIMITS]
