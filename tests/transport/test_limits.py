"""The limits on waits, and on what one exchange takes: both sides of each."""

from __future__ import annotations

import asyncio
import math

import pytest
from virtual_clock import run_virtually

from minillmlib import (
    HttpRequest,
    Limits,
    MalformedResponseError,
    MiniLLMError,
    NodeCompletionParameters,
    ReadError,
    RequestTimeoutError,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.transport.exchange import Exchange
from minillmlib.transport.timeout import Timeout, TimeoutBudget, TimeoutScope

REQUEST = HttpRequest(url="https://host.example/v1", headers=(), body=b"{}")
LONG = Timeout(10.0, "total")


class Time:
    """A loop of which only the time is asked."""

    now = 100.0

    def time(self) -> float:
        return self.now


def budget_of(*, stream: bool, **settings: float) -> tuple[TimeoutBudget, Time]:
    time = Time()
    return TimeoutBudget(NodeCompletionParameters(**settings), time, stream=stream), time


@pytest.mark.parametrize(
    ("settings", "stream", "response", "chunk"),
    [
        ({}, False, Timeout(600.0, "total"), None),
        ({}, True, Timeout(120.0, "silence"), Timeout(120.0, "silence")),
        ({"timeout_secs": 9}, False, Timeout(9, "total"), None),
        ({"timeout_secs": 9}, True, Timeout(9, "silence"), Timeout(9, "silence")),
        ({"timeout_secs": 0}, False, Timeout(None, "total"), None),
        ({"timeout_secs": 0}, True, Timeout(None, "silence"), Timeout(None, "silence")),
        ({"timeout_secs": 0, "progress_timeout_secs": 7}, True, Timeout(None, "silence"),
         Timeout(7, "progress", 7)),
        ({"timeout_secs": 9, "progress_timeout_secs": 9}, True, Timeout(9, "silence"),
         Timeout(9, "silence")),
        ({"timeout_secs": 9, "progress_timeout_secs": 8}, True, Timeout(9, "silence"),
         Timeout(8, "progress", 8)),
        ({"deadline_secs": 8, "timeout_secs": 9}, False, Timeout(8, "deadline", 8), None),
        ({"deadline_secs": 9, "timeout_secs": 9}, False, Timeout(9, "total"), None),
        ({"deadline_secs": 8, "timeout_secs": 9}, True, Timeout(8, "deadline", 8),
         Timeout(8, "deadline", 8)),
        ({"deadline_secs": 8, "timeout_secs": 0}, True, Timeout(8, "deadline", 8),
         Timeout(8, "deadline", 8)),
    ],
)  # fmt: skip
def test_the_first_wait_has_the_nearest_limit(settings, stream, response, chunk):
    budget, _ = budget_of(stream=stream, **settings)
    assert budget.response_timeout() == response
    if stream:
        assert budget.chunk_timeout() == chunk
    deadline = settings.get("deadline_secs")
    assert budget.remaining() == (math.inf if deadline is None else deadline)
    assert budget.deadline_timeout() == (
        Timeout(None, "deadline") if deadline is None else Timeout(deadline, "deadline", deadline)
    )


def test_what_was_waited_is_taken_from_the_limits():
    budget, time = budget_of(stream=False, timeout_secs=9, deadline_secs=20)
    assert budget.response_timeout(4) == Timeout(5, "total", 9)
    time.now += 12
    assert budget.remaining() == 8
    assert budget.response_timeout() == Timeout(8, "deadline", 20)
    assert budget.response_timeout(1) == Timeout(8, "total", 9)
    time.now += 9
    assert budget.remaining() == -1
    assert budget.deadline_timeout() == Timeout(-1, "deadline", 20)
    unlimited, _ = budget_of(stream=False, timeout_secs=0)
    assert unlimited.response_timeout(4) == Timeout(None, "total")


def test_signs_of_life_fill_five_silences_and_progress_begins_them_anew():
    budget, _ = budget_of(stream=True, timeout_secs=9)
    for quiet, timeout in [
        (36, Timeout(9, "silence")), (1, Timeout(8, "progress", 45)),
        (5, Timeout(3, "progress", 45)),
    ]:  # fmt: skip
        budget.record_wait(quiet)
        assert budget.chunk_timeout() == timeout
    budget.record_progress()
    assert budget.chunk_timeout() == Timeout(9, "silence")
    budget.record_wait(37)
    assert budget.chunk_timeout() == Timeout(8, "progress", 45)


WORDS = [
    (Timeout(0.5, "total"), "within 0.5 s the response did not complete; raise timeout_secs if the "
     "model may take longer"),
    (Timeout(2.0, "silence"), "within 2 s no byte arrived; raise timeout_secs if the model may "
     "take longer"),
    (Timeout(1.0, "silence", 30.0), "within 30 s no byte arrived; raise timeout_secs if the model "
     "may take longer"),
    (Timeout(1.0, "progress", 600), "within 600 s the server kept the connection alive but sent "
     "nothing new; raise progress_timeout_secs if the model may take longer"),
    (Timeout(1.0, "deadline", 0.25), "within 0.25 s the completion did not end; raise "
     "deadline_secs if it may take longer"),
]  # fmt: skip


@pytest.mark.parametrize(("timeout", "words"), WORDS)
def test_a_wait_that_is_over_names_its_limit_and_the_setting(timeout, words):
    async def wait() -> tuple[float, RequestTimeoutError]:
        scope = TimeoutScope()
        with pytest.raises(RequestTimeoutError) as caught:
            with scope.within(timeout):
                await asyncio.sleep(1000)
        return scope.waited_secs, caught.value

    waited, error = run_virtually(wait())
    assert waited == pytest.approx(timeout.secs)
    assert (str(error), error.clock) == (words, timeout.clock)


async def fetched(reply: ScriptedReply, limits: Limits) -> bytes:
    return await Exchange(ScriptedTransport(lambda _: reply), REQUEST, limits).fetch(LONG)


async def events_of(reply: ScriptedReply, limits: Limits) -> list[str]:
    exchange = Exchange(ScriptedTransport(lambda _: reply), REQUEST, limits)
    await exchange.open(LONG)
    events = []
    while (found := await exchange.next_events(LONG)) is not None:
        events += [event.data for event in found]
    exchange.close()
    return events


BODY = ScriptedReply(pieces=(b'{"a": ', b"[1, 2]}"), headers={"x-a": "bc"})
STREAM = ScriptedReply.events(b"data: [1, 2]\n\n", b"data: 3\n\ndata: 4\n\n")
BOUNDS = [
    # What is read, a limit, the least that is enough, and what the error calls it.
    (fetched, BODY, "body_bytes", 13, "a response"),
    (fetched, BODY, "header_bytes", 5, "headers"),
    (events_of, STREAM, "header_bytes", 29, "headers"),
    (fetched, BODY, "json_values", 3, "a response"),
    (events_of, STREAM, "json_values", 2, "an event"),
    (events_of, STREAM, "stream_bytes", 32, "a stream"),
]  # fmt: skip


@pytest.mark.parametrize(("read", "reply", "name", "least", "what"), BOUNDS)
async def test_a_limit_is_the_most_that_is_taken(read, reply, name, least, what):
    assert await read(reply, Limits(**{name: least}))
    with pytest.raises(MiniLLMError) as caught:
        await read(reply, Limits(**{name: least - 1}))
    assert what in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "br", " GZIP ", "identity, gzip", "unknown"])
@pytest.mark.parametrize("read", [fetched, events_of])
async def test_a_compressed_answer_is_refused(read, encoding):
    reply = ScriptedReply(pieces=(b"{}",), headers={"content-encoding": encoding})
    with pytest.raises(MalformedResponseError) as caught:
        await read(reply, Limits())
    assert str(caught.value) == (
        "the server compressed its response although the request forbids it; switch compression "
        "off there or at the gateway in front of it"
    )


@pytest.mark.parametrize("encoding", ["", " ", "identity", " Identity "])
async def test_an_answer_that_is_not_compressed_is_read(encoding):
    reply = ScriptedReply(pieces=(b"{}",), headers={"content-encoding": encoding})
    assert await fetched(reply, Limits()) == b"{}"


@pytest.mark.parametrize(("status", "body"), [(300, b""), (399, b""), (400, b""), (500, b"")])
async def test_the_compressed_body_of_an_error_is_not_read(status, body):
    reply = ScriptedReply(pieces=(b"{}",), status=status, headers={"content-encoding": "gzip"})
    assert await fetched(reply, Limits()) == body


@pytest.mark.parametrize("status", [200, 299, 300, 399, 400, 401, 599])
async def test_only_of_an_error_the_body_may_break_off(status):
    reply = ScriptedReply(pieces=(b"{",), status=status, breaks_off=True)
    if status < 400:
        with pytest.raises(ReadError):
            await fetched(reply, Limits())
    else:
        assert await fetched(reply, Limits()) == b"{"


@pytest.mark.parametrize(
    ("kind", "is_stream"),
    [("text/event-stream", True), ("Text/Event-Stream ; charset=utf-8", True), ("", False),
     ("application/json", False), ("x; text/event-stream", False)],
)  # fmt: skip
async def test_the_content_type_declares_a_stream(kind, is_stream):
    reply = ScriptedReply(pieces=(b"x",), headers={"content-type": kind})
    exchange = Exchange(ScriptedTransport([reply]), REQUEST, Limits())
    assert (exchange.status, dict(exchange.headers), exchange.was_sent) == (None, {}, False)
    await exchange.open(LONG)
    assert (exchange.is_stream, exchange.status) == (is_stream, 200)
    assert (dict(exchange.headers), exchange.accept) == ({"content-type": kind}, None)
    assert exchange.was_sent is True
    exchange.close()
    assert exchange.is_closed
    assert await exchange.next_piece(LONG) == b""


async def test_a_body_that_is_no_stream_is_a_document():
    for pieces in ((b'{"a": 1}',), (b" ", b'{"a"', b": 1}"), (b'{"a": 1}\n',)):
        reply = ScriptedReply(pieces=pieces)
        exchange = Exchange(ScriptedTransport([reply]), REQUEST, Limits())
        await exchange.open(LONG)
        for _ in pieces:
            assert await exchange.next_events(LONG) == []
        assert await exchange.next_events(LONG) is None
        assert exchange.document.strip() == b'{"a": 1}'
        assert await exchange.next_events(LONG) is None
        assert (exchange.is_stream, exchange.unread) == (False, b"")


async def test_an_empty_stream_has_neither_events_nor_a_document():
    for reply in (ScriptedReply.events(), ScriptedReply.events(b"\n")):
        exchange = Exchange(ScriptedTransport([reply]), REQUEST, Limits())
        await exchange.open(LONG)
        assert not await exchange.next_events(LONG)
        assert await exchange.next_events(LONG) is None
        assert exchange.document is None


async def test_the_rest_of_a_stream_is_read_up_to_the_limit_of_an_event():
    class Reading(ScriptedTransport):
        taken = 0

        async def send(self, request):
            response = await super().send(request)
            read = response.read

            async def count() -> bytes:
                piece = await read()
                self.taken += len(piece)
                return piece

            response.read = count
            return response

    reply = ScriptedReply.events(*[b"1234567890"] * 9)
    for limit, taken in ((1, 10), (10, 10), (11, 20), (1000, 90)):
        transport = Reading([reply])
        exchange = Exchange(transport, REQUEST, Limits(event_bytes=limit))
        await exchange.open(LONG)
        await exchange.drain(5)
        assert (transport.taken, exchange.is_closed) == (taken, True)


async def test_a_drain_that_breaks_or_takes_too_long_is_no_error():
    broken = Exchange(ScriptedTransport([ScriptedReply.events(breaks_off=True)]), REQUEST, Limits())
    await broken.open(LONG)
    await broken.drain(5)
    assert broken.is_closed
