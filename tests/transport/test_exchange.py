"""One exchange: what it learned can be read however it ends."""

from __future__ import annotations

import asyncio
import gc

import pytest

from minillmlib import (
    ConnectError,
    HttpRequest,
    InvalidParameterError,
    Limits,
    LocalModelError,
    ReadError,
    RequestTimeoutError,
    Secret,
    StaleConnectionError,
    TlsError,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.transport.exchange import Exchange
from minillmlib.transport.timeout import Timeout

KEY = "sk-canary-0123456789"
REQUEST = HttpRequest(
    url="https://host.example/v1",
    headers=(("Authorization", Secret(f"Bearer {KEY}")), ("Accept", "*/*")),
    body=b"{}",
)
LONG, SHORT = Timeout(10.0, "total"), Timeout(0.02, "silence")


class Engine:
    """Does what it is given, in place of sending."""

    def __init__(self, act):
        self.send = act


def exchange_with(transport) -> Exchange:
    return Exchange(transport, REQUEST, Limits())


def raising(error: BaseException):
    async def send(_request):
        await asyncio.sleep(0)
        raise error

    return Engine(send)


def unsent(error: BaseException) -> BaseException:
    error.was_sent = False
    return error


@pytest.mark.parametrize(
    ("error", "was_sent"),
    [
        (ConnectError("no"), False), (TlsError("no"), False), (ReadError("no"), True),
        (StaleConnectionError("no"), True), (InvalidParameterError("no"), True),
        (ValueError("no"), True), (asyncio.CancelledError(), True),
        (unsent(ReadError("no")), False), (unsent(InvalidParameterError("no")), False),
        (unsent(LocalModelError("no")), False), (unsent(ValueError("no")), False),
        (unsent(asyncio.CancelledError()), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["fetch", "open"])
async def test_what_an_engine_raises_says_whether_the_request_was_sent(way, error, was_sent):
    exchange = exchange_with(raising(error))
    assert not exchange.was_sent
    with pytest.raises(type(error)):
        await getattr(exchange, way)(LONG)
    assert exchange.was_sent is was_sent
    assert (exchange.status, exchange.headers) == (None, {})


async def test_a_request_counts_as_sent_while_an_engine_is_at_it():
    async def send(_request):
        await asyncio.Event().wait()

    exchange = exchange_with(Engine(send))
    task = asyncio.create_task(exchange.open(LONG))
    await asyncio.sleep(0)
    assert exchange.was_sent
    task.cancel()
    await asyncio.wait({task})
    assert exchange.was_sent, "the engine did not say"


async def test_a_time_out_before_anything_was_sent_is_known():
    async def send(_request):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            error.was_sent = False
            raise

    exchange = exchange_with(Engine(send))
    with pytest.raises(RequestTimeoutError):
        await exchange.fetch(SHORT)
    assert not exchange.was_sent
    assert exchange.waited_secs >= 0.02


async def test_status_and_headers_are_there_after_the_body_broke():
    reply = ScriptedReply(pieces=(b"{",), headers={"X-Id": "7"}, breaks_off=True)
    exchange = exchange_with(ScriptedTransport([reply]))
    with pytest.raises(ReadError):
        await exchange.fetch(LONG)
    assert (exchange.status, exchange.headers, exchange.was_sent) == (200, {"x-id": "7"}, True)


async def test_the_body_of_an_error_may_break():
    reply = ScriptedReply(pieces=(b"{",), status=401, breaks_off=True)
    exchange = exchange_with(ScriptedTransport([reply]))
    assert await exchange.fetch(LONG) == b"{"


async def test_an_exchange_that_is_closed_while_it_opens_closes_what_comes():
    closed = []

    class Response:
        status, headers = 200, {}

        async def read(self):
            return b""

        def close(self):
            closed.append(self)

    async def send(_request):
        await asyncio.sleep(0.01)
        return Response()

    exchange = exchange_with(Engine(send))
    task = asyncio.create_task(exchange.open(LONG))
    await asyncio.sleep(0)
    exchange.close()
    await task
    assert exchange.is_closed
    assert closed


async def test_a_stream_does_not_keep_its_request():
    request = HttpRequest(url=REQUEST.url, headers=(), body=b"x")

    class Once(ScriptedTransport):
        async def send(self, request):
            response = await super().send(request)
            self.requests.clear()
            return response

    exchange = Exchange(Once([ScriptedReply.events(b"data: 1\n\n")]), request, Limits())
    await exchange.open(LONG)
    assert not any(one is request for one in gc.get_referents(exchange))
    assert [event.data for event in await exchange.next_events(LONG)] == ["1"]
    assert await exchange.next_events(LONG) is None


def test_headers_are_plain_text_only_when_they_are_exposed():
    assert REQUEST.expose_headers() == [("Authorization", f"Bearer {KEY}"), ("Accept", "*/*")]
    for shown in (repr(REQUEST), repr(REQUEST.headers), f"{REQUEST}"):
        assert KEY not in shown
