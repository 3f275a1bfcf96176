"""The engines among users' other tools: recorders, tracers, mocks, loops of every kind."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from urllib.parse import urlsplit

import aiohttp
import msgspec
import pytest
from server import Server, serving

from minillmlib import (
    ChatNode,
    CompletionContext,
    GeneratorInfo,
    InvalidParameterError,
    LimitExceededError,
    Limits,
    MiniLLMError,
    NodeCompletionParameters,
    ReadError,
)
from minillmlib.transport.base import HttpRequest
from minillmlib.transport.default import shared_engine

ANSWER = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
SAID = b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ROOT = ChatNode.root("s")
BRIEF = NodeCompletionParameters(timeout_secs=5, retry=0)


def at(url: str) -> GeneratorInfo:
    return GeneratorInfo.custom("loopback", url, "m").with_api_key("sk-loopback")


async def answer(exchange):
    if exchange.is_stream:
        await exchange.start_events(SAID, DONE)
        await exchange.end()
    else:
        await exchange.answer(ANSWER)


async def read(generator: GeneratorInfo, text: str = "u") -> str:
    async with ROOT.chat_streaming(text, generator, BRIEF) as stream:
        return "".join([chunk.delta async for chunk in stream])


# What is sent can be seen where recorders, mocks and tracers of aiohttp look for it.


@pytest.mark.parametrize("chars", [1, 100_000, 3_000_000])
async def test_a_recorder_sees_the_whole_request_in_aiohttps_own_arguments(monkeypatch, chars):
    seen, real = [], aiohttp.ClientSession._request

    async def record(session, method, url, **options):
        seen.append((method, str(url), options))
        return await real(session, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", record)
    async with serving(answer) as (url, exchanges):
        assert (await ROOT.chat("x" * chars, at(url), BRIEF)).text == "ok"
        assert await read(at(url), "x" * chars) == "ok"
    for (method, seen_url, options), exchange in zip(seen, exchanges, strict=True):
        assert (method, seen_url) == ("POST", f"{url}/chat/completions")
        assert options["data"] == exchange.body
        assert "x" * chars in msgspec.json.decode(options["data"])["messages"][-1]["content"]
        assert dict(options["headers"])["Authorization"] == "Bearer sk-loopback"


# They stand in for aiohttp's method before the engine is imported, and pass for it.
EARLY_RECORDERS = {
    "a function that wraps it": """
        @functools.wraps(real)
        async def recorder(*args, **options):
            seen.append(options["data"])
            return await real(*args, **options)""",
    "an object that has its attributes": """
        class Recorder:
            __class__ = property(lambda _: type(real))
            def __getattr__(self, name):
                return getattr(real, name)
            def __get__(self, session, owner=None):
                return self if session is None else functools.partial(self, session)
            async def __call__(self, *args, **options):
                seen.append(options["data"])
                return await real(*args, **options)
        recorder = Recorder()""",
}


@pytest.mark.parametrize("recorder", EARLY_RECORDERS)
async def test_a_recorder_that_was_there_before_the_engine_sees_the_requests(recorder):
    program = f"""
        import aiohttp, functools
        seen, real = [], aiohttp.ClientSession._request
        {EARLY_RECORDERS[recorder].strip()}
        aiohttp.ClientSession._request = recorder
        print(asyncio.run(ask()), asyncio.run(ask()), len(seen))
        aiohttp.ClientSession._request = real
        print(asyncio.run(ask()), len(seen))
    """
    async with Server(answer) as server:
        assert await run_program(program, server.url) == ("ok ok 2\nok 2\n", "")


BAD_ADDRESSES = [
    "ftp://127.0.0.1/v1",
    "http://127.0.0.1:99999/v1",
    "http:///v1",
    "v1",
    "http://[::1/v1",
]


@pytest.mark.parametrize("is_recorded", [False, True])
@pytest.mark.parametrize("url", BAD_ADDRESSES)
async def test_an_address_that_is_none_is_told_before_anything_is_sent(
    monkeypatch, url, is_recorded
):
    real = aiohttp.ClientSession._request

    async def record(session, *args, **options):
        return await real(session, *args, **options)

    if is_recorded:
        monkeypatch.setattr(aiohttp.ClientSession, "_request", record)
    request = HttpRequest(url=url, headers=(), body=b"{}")
    with pytest.raises(InvalidParameterError, match="not a usable address") as caught:
        await shared_engine().send(request)
    assert caught.value.was_sent is False


@pytest.mark.parametrize("path", ["", "/model@1"])
async def test_a_user_name_in_an_address_never_replaces_the_key_of_the_request(path):
    key = (("Authorization", "Bearer sk-loopback"),)
    async with serving(answer) as (url, exchanges):
        await shared_engine().send(HttpRequest(url=url + path, headers=key, body=b"{}"))
        named = url.replace("http://", "http://user:password@") + path
        with pytest.raises(InvalidParameterError, match="not a usable address or header"):
            await shared_engine().send(HttpRequest(url=named, headers=key, body=b"{}"))
        await shared_engine().send(HttpRequest(url=named, headers=(), body=b"{}"))
    sent = [exchange.headers["authorization"] for exchange in exchanges]
    assert sent == ["Bearer sk-loopback", "Basic dXNlcjpwYXNzd29yZA=="]
    assert [exchange.path for exchange in exchanges] == [f"/v1{path}"] * 2


async def _add_header(request, handler):
    request.headers["X-Trace"] = "1"
    return await handler(request)


ADDED = {"headers": {"headers": {"X-Trace": "1"}}, "middlewares": {"middlewares": (_add_header,)}}


@pytest.mark.parametrize("added", ADDED)
async def test_what_instrumentation_gives_to_every_new_session_is_sent(monkeypatch, added):
    real = aiohttp.ClientSession.__init__

    def instrumented(session, *args, **options):
        real(session, *args, **ADDED[added], **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", instrumented)
    async with serving(answer) as (url, exchanges):
        await ROOT.chat("u", at(url), BRIEF)
    assert exchanges[0].headers["x-trace"] == "1"


async def test_the_sessions_that_a_recorder_put_its_class_under_are_recorded_to_their_end(
    monkeypatch,
):
    seen = []

    with pytest.warns(DeprecationWarning, match="Inheritance class"):

        class Recorder(aiohttp.ClientSession):
            async def _request(self, *args, **options):
                seen.append(options["data"])
                return await super()._request(*args, **options)

    async with serving(answer) as (url, exchanges):
        with monkeypatch.context() as patch:
            patch.setattr(aiohttp, "ClientSession", Recorder)
            await ROOT.chat("u", at(url), BRIEF)
        await ROOT.chat("u", at(url), BRIEF)
    assert seen == [exchange.body for exchange in exchanges]


@pytest.mark.parametrize("part", ["session", "connector"])
async def test_a_session_that_something_else_has_closed_is_replaced(monkeypatch, part):
    sessions, real = [], aiohttp.TCPConnector.connect

    async def note(connector, request, *args):
        sessions.append(request.session)
        return await real(connector, request, *args)

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", note)
    async with serving(answer) as (url, exchanges):
        await ROOT.chat("u", at(url), BRIEF)
        await (sessions[0] if part == "session" else sessions[0].connector).close()
        await ROOT.chat("u", at(url), BRIEF)
    assert len(exchanges) == 2


@pytest.mark.parametrize("method", ["send", "start"])
async def test_a_kept_connection_that_breaks_with_a_bare_error_of_the_system_is_replaced(
    monkeypatch, method
):
    owner = aiohttp.ClientRequest if method == "send" else aiohttp.ClientResponse
    real, broken = getattr(owner, method), []

    async def break_once(part, connection):
        if not broken:
            broken.append(part)
            raise BrokenPipeError(32, "Broken pipe")
        return await real(part, connection)

    async with serving(answer) as (url, _):
        await ROOT.chat("u", at(url), BRIEF)
        monkeypatch.setattr(owner, method, break_once)
        response = await ROOT.chat("u", at(url), BRIEF)
    assert (response.text, len(broken)) == ("ok", 1)


@pytest.mark.parametrize("chars", [1, 100_000, 3_000_000])
async def test_a_tracer_sees_the_body_that_is_sent(monkeypatch, chars):
    sent = []
    config = aiohttp.TraceConfig()

    async def note(_session, _context, params):
        sent.append(params.chunk)

    config.on_request_chunk_sent.append(note)
    real = aiohttp.ClientSession.__init__

    def with_tracer(session, *args, **options):  # as OpenTelemetry and Sentry do it
        real(session, *args, trace_configs=[config], **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", with_tracer)
    async with serving(answer) as (url, exchanges):
        await ROOT.chat("x" * chars, at(url), BRIEF)
    assert b"".join(sent) == exchanges[0].body


async def test_the_headers_and_the_body_of_a_request_are_sent_by_one_system_call():
    sent_to = []

    def note(_frame, event, function):
        if event == "c_call" and function.__name__ in ("send", "sendmsg", "sendall"):
            sent_to.append(function.__self__.getpeername()[1])

    async with serving(answer) as (url, _):
        generator = at(url)
        await ROOT.chat("u", generator)  # connects
        sys.setprofile(note)
        try:
            await ROOT.chat("u", generator)
            assert await read(generator) == "ok"
        finally:
            sys.setprofile(None)
        assert sent_to.count(urlsplit(url).port) == 2


async def test_a_connection_that_ends_while_a_tracer_waits_is_replaced(monkeypatch):
    async def answer_and_reset(exchange):
        await exchange.answer(ANSWER)
        asyncio.get_running_loop().call_later(0.1, exchange.reset)

    async def wait(_session, _context, _params):
        await asyncio.sleep(0.2)

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(wait)
    real = aiohttp.ClientSession.__init__

    def with_tracer(session, *args, **options):
        real(session, *args, trace_configs=[config], **options)

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", with_tracer)
    async with serving(answer_and_reset) as (url, exchanges):
        await ROOT.chat("first", at(url), BRIEF)
        node = await ROOT.chat("second", at(url), BRIEF)
    assert [attempt.error for attempt in node.response.attempts] == ["StaleConnectionError", None]
    assert [b"second" in exchange.body for exchange in exchanges] == [False, True]


async def test_a_mock_that_breaks_the_connection_is_asked_once(monkeypatch):
    asked = []

    async def mock(_session, method, url, **_options):
        asked.append(url)
        raise aiohttp.ServerDisconnectedError

    monkeypatch.setattr(aiohttp.ClientSession, "_request", mock)
    with pytest.raises(ReadError):
        await ROOT.chat("u", at("https://mocked.example/v1"))
    assert len(asked) == 1


# Mocks and applications behind the caller's own httpx2 client.


def mock_answer(httpx2, request):
    if b'"stream":true' in request.content:
        kind = {"content-type": "text/event-stream"}
        return httpx2.Response(200, content=SAID + DONE, headers=kind)
    return httpx2.Response(200, content=ANSWER, headers={"content-type": "application/json"})


async def application(_scope, receive, send):
    is_stream = b'"stream":true' in (await receive())["body"]
    kind = b"text/event-stream" if is_stream else b"application/json"
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
    await send(head)
    for piece in (SAID, DONE) if is_stream else (ANSWER,):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("kind", ["mock", "coroutine", "asgi", "hook"])
async def test_the_transports_of_httpx2_for_tests_answer(kind):
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async def mock_in_a_coroutine(request):
        return mock_answer(httpx2, request)

    async def read_it(response):
        await response.aread()

    transport = httpx2.MockTransport(lambda request: mock_answer(httpx2, request))
    if kind == "coroutine":
        transport = httpx2.MockTransport(mock_in_a_coroutine)
    if kind in ("asgi", "hook"):
        transport = httpx2.ASGITransport(application)
    hooks = {"response": [read_it]} if kind == "hook" else {}
    async with httpx2.AsyncClient(transport=transport, event_hooks=hooks) as client:
        generator = at("https://mocked.example/v1").with_transport(HttpxTransport(client))
        assert (await ROOT.chat("u", generator, BRIEF)).text == "ok"
        assert await read(generator) == "ok"
        async with ROOT.chat_streaming("u", generator, BRIEF) as stream:
            await anext(stream)


async def test_what_a_transport_without_steps_raises_may_have_been_sent():
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    def break_off(request):
        raise httpx2.ReadError("gone", request=request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(break_off)) as client:
        generator = at("https://mocked.example/v1").with_transport(HttpxTransport(client))
        with pytest.raises(ReadError) as caught:
            await ROOT.chat("u", generator)
    assert caught.value.was_sent


# Headers.


async def with_headers(count: int, chars: int, limits: Limits) -> None:
    lines = tuple(f"x-{number}: {'h' * chars}" for number in range(count))

    async def answer(exchange):
        await exchange.answer(ANSWER, headers=lines)

    async with serving(answer) as (url, _):
        await ROOT.chat("u", at(url).replace(limits=limits), BRIEF)


@pytest.mark.parametrize(("count", "chars"), [(1, 60_000), (3, 20_000), (300, 100)])
async def test_headers_within_the_limit_are_taken_however_they_are_spread(count, chars):
    await with_headers(count, chars, Limits())


async def test_headers_may_be_as_large_as_the_generator_allows():
    await with_headers(1, 200_000, Limits(header_bytes=1 << 18))


@pytest.mark.parametrize(("count", "chars"), [(1, 70_000), (1, 200_000), (2, 40_000)])
async def test_headers_beyond_the_limit_are_an_error_that_names_it(count, chars):
    with pytest.raises(LimitExceededError, match="65,536 bytes; raise header_bytes"):
        await with_headers(count, chars, Limits())


async def test_a_lower_limit_on_headers_counts_too():
    with pytest.raises(LimitExceededError, match="1,000 bytes; raise header_bytes"):
        await with_headers(1, 2_000, Limits(header_bytes=1_000))


# Loops, and what is left on standard error: nothing, also in development mode.

BEGIN = """
import asyncio, gc, logging, os, sys
from minillmlib import *

# The development mode says how long each step took.
logging.getLogger("asyncio").addFilter(lambda record: "Executing" not in record.msg)
generator = GeneratorInfo.custom("t", sys.argv[1], "m")

async def ask():
    return (await ChatNode.root("s").chat("u", generator)).text

def run_by_hand(coroutine, close=True, new=asyncio.new_event_loop):
    loop = new()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        if close:
            loop.close()
"""

BY_HAND = {
    "closed": "for _ in range(3): print(run_by_hand(ask()))",
    "closed, then another": "print(run_by_hand(ask()), asyncio.run(ask()), run(ask()))",
    "closed, and collected": """
        for _ in range(3):
            print(run_by_hand(ask()))
            gc.collect()""",
    "closed in threads": """
        import threading
        work = lambda: os.write(1, (run_by_hand(ask()) + "\\n").encode())
        threads = [threading.Thread(target=work) for _ in range(3)]
        [each.start() for each in threads]; [each.join() for each in threads]""",
    "two at a time": """
        async def both():
            return await asyncio.gather(ask(), ask())
        print(*run_by_hand(both()))
        print(run_by_hand(ask()))""",
    "uvloop": """
        import uvloop
        for _ in range(3): print(run_by_hand(ask(), new=uvloop.new_event_loop))""",
}


async def run_program(program: str, url: str, *options: str, **extra: str) -> tuple[str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, *options, "-c", BEGIN + textwrap.dedent(program), url,
        env={**os.environ, **extra}, stdout=-1, stderr=-1,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 0, err.decode()
    return out.decode(), err.decode()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("name", BY_HAND)
async def test_a_loop_that_is_closed_by_hand_ends_in_silence(certified, name, tls):
    if name == "uvloop":
        pytest.importorskip("uvloop")
    context, file = certified
    async with Server(answer, tls=context if tls else None) as server:
        # In development mode uvloop itself hangs when it is closed by hand.
        options = () if name == "uvloop" else ("-X", "dev", "-W", "error")
        out, err = await run_program(BY_HAND[name], server.url, *options, SSL_CERT_FILE=file)
    assert (out.split(), err) == (["ok"] * 3, "")


async def test_no_read_asks_for_so_much_memory_that_it_is_mapped_for_it_alone():
    program = """
        import socket
        sizes, receive = [], socket.socket.recv
        def recorded(self, size):
            sizes.append(size)
            return receive(self, size)
        socket.socket.recv = recorded
        print(asyncio.run(ask()), max(sizes))
    """
    async with Server(answer) as server:
        out, _ = await run_program(program, server.url)
    assert out == "ok 65536\n"  # glibc maps 128 KiB and more


async def test_a_loop_that_is_never_closed_ends_in_silence():
    async with Server(answer) as server:
        program = "print(run_by_hand(ask(), close=False))"
        assert await run_program(program, server.url) == ("ok\n", "")


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_kept_connection_that_the_server_ends_leaves_nothing_on_standard_error(how):
    async def answer_and_go(exchange):
        await answer(exchange)
        await asyncio.sleep(0.05)
        getattr(exchange, how)()

    program = """
        async def main():
            for _ in range(3):
                print(await ask())
                await asyncio.sleep(0.2)
                gc.collect()
        asyncio.run(main())
    """
    async with Server(answer_and_go) as server:
        out, err = await run_program(program, server.url, "-X", "dev", "-W", "error")
    assert (out.split(), err) == (["ok"] * 3, "")


async def test_names_are_resolved_by_the_system_though_aiodns_is_there():
    program = """
        import types
        class DNSError(Exception): pass
        class DNSResolver:
            def __init__(self, *args, **options): pass
            def gethostbyname(self, *args): pass
            async def getaddrinfo(self, host, **options): raise DNSError(4, "not found")
        fake = types.ModuleType("aiodns")
        fake.DNSResolver, fake.error = DNSResolver, types.SimpleNamespace(DNSError=DNSError)
        sys.modules["aiodns"] = fake
        print(asyncio.run(ask()))
    """
    async with Server(answer) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        assert await run_program(program, url) == ("ok\n", "")


def in_no_loop(coroutine) -> MiniLLMError:
    """What the first step of a coroutine raises, driven as by a loop that is not asyncio's."""
    try:
        coroutine.send(None)
    except MiniLLMError as error:
        return error
    finally:
        coroutine.close()
    raise AssertionError


async def flush_costs() -> None:
    await CompletionContext(at("https://x.example/v1"), None, lambda *_: None).aclose()


FOREIGN = {
    "chat": lambda: ROOT.chat("u", at("https://x.example/v1")),
    "complete": lambda: ROOT.add_user("u").complete(at("https://x.example/v1")),
    "stream": lambda: ROOT.chat_streaming("u", at("https://x.example/v1")).__anext__(),
    "collect": lambda: ROOT.chat_streaming("u", at("https://x.example/v1")).collect(),
    "context": flush_costs,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_loop_is_an_error_that_names_the_way_out(name):
    error = in_no_loop(FOREIGN[name]())
    assert isinstance(error, InvalidParameterError)
    assert "trio.to_thread.run_sync(run, " in str(error)
    assert "asyncio" in str(error)
    assert not error.was_sent
