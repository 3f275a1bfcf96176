"""Proxies: those of the environment and those of a generator, on both engines."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from proxy_server import ProxyServer
from server import Server

from minillmlib import (
    ChatNode,
    ConnectError,
    GeneratorInfo,
    HttpRequest,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    TlsError,
)
from minillmlib.auth.secret import Secret
from minillmlib.transport.aiohttp import AiohttpTransport

ANSWER = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
FAR = "http://llm.example.test:8000/v1"  # a name that only the proxy knows
LOGIN = "me:p%40ss w0rd!".replace(" ", "%20")  # as in an address
PLAIN_LOGIN = "me:p@ss w0rd!"
BRIEF = NodeCompletionParameters(timeout_secs=5, retry=0)


async def answer(exchange):
    if exchange.is_stream:
        await exchange.start_events(*EVENTS)
        await exchange.end()
    else:
        await exchange.answer(ANSWER)


def at(url: str) -> GeneratorInfo:
    return GeneratorInfo.custom("far", url, "m")


async def ask(generator: GeneratorInfo) -> str:
    """Ask twice, whole and streamed; both must say the same."""
    whole = (await ChatNode.root("s").chat("u", generator, BRIEF)).text
    async with ChatNode.root("s").chat_streaming("u", generator, BRIEF) as stream:
        streamed = "".join([chunk.delta async for chunk in stream])
    assert whole == streamed
    return whole


@asynccontextmanager
async def proxied(**options) -> AsyncIterator[tuple[ProxyServer, Server]]:
    async with (
        Server(answer) as server,
        ProxyServer(int(server.origin.rpartition(":")[2]), **options) as proxy,
    ):
        yield proxy, server


@pytest.fixture(params=["aiohttp", "httpx2"])
async def through(request):
    """A function that gives a generator one of our engines."""
    if request.param == "aiohttp":
        yield lambda generator: generator
        return
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async with httpx2.AsyncClient() as client:
        yield lambda generator: generator.with_transport(HttpxTransport(client))


# The environment. The httpx engine leaves it to the client, which reads it when it is made.


@pytest.mark.parametrize(
    "name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
)  # fmt: skip
async def test_a_proxy_of_the_environment_is_used(monkeypatch, name):
    async with proxied() as (proxy, server):
        monkeypatch.setenv(name, proxy.origin)
        assert await ask(at(FAR)) == "ok"
    assert proxy.lines == [f"POST {FAR}/chat/completions"] * 2
    assert len(server.requests) == 2


async def test_an_address_without_a_scheme_is_an_http_proxy(monkeypatch):
    async with proxied() as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
        assert await ask(at(FAR)) == "ok"


async def test_a_change_of_the_environment_counts_at_once(monkeypatch):
    async with proxied() as (proxy, server):
        generator = at(server.url)
        assert await ask(generator) == "ok"
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        assert await ask(generator) == "ok"
        assert len(proxy.requests) == 2
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert await ask(generator) == "ok"
        assert len(proxy.requests) == 2


@pytest.mark.parametrize(
    "no_proxy",
    ["*", "127.0.0.1", "example.org, 127.0.0.1", "127.0.0.1:@", "127.0.0.0/8", "10.0.0.0/8,127.0.0.1/32"],
)  # fmt: skip
async def test_no_proxy_names_those_that_are_reached_directly(monkeypatch, no_proxy):
    async with proxied(refusal="500 No") as (proxy, server):
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        port = server.origin.rpartition(":")[2]
        monkeypatch.setenv("NO_PROXY", no_proxy.replace("@", port))
        assert await ask(at(server.url)) == "ok"
    assert proxy.requests == []


@pytest.mark.parametrize("no_proxy", ["", "example.org", "127.0.0.1:1", "10.0.0.0/8", "27.0.0.1"])
async def test_no_proxy_names_nobody_else(monkeypatch, no_proxy):
    async with proxied() as (proxy, server):
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert await ask(at(server.url)) == "ok"
    assert len(proxy.requests) == 2


async def test_the_header_proxy_of_a_cgi_script_is_nobodys_proxy(monkeypatch):
    async with proxied() as (proxy, server):
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        assert await ask(at(server.url)) == "ok"
    assert proxy.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_no_proxy_elsewhere_is_told_what_this_machine_is_asked(monkeypatch, host):
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:3128")
    async with Server(answer) as server:
        port = server.origin.rpartition(":")[2]
        generator = at(f"http://{host}:{port}/v1").with_api_key("sk-of-this-machine")
        try:
            assert await ask(generator) == "ok"
        except ConnectError as error:  # a machine may have no such address
            assert "proxy" not in str(error)


async def test_netrc_is_never_read(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password of-netrc")
    monkeypatch.setenv("NETRC", str(netrc))
    async with proxied() as (proxy, server):
        monkeypatch.setenv("HTTP_PROXY", proxy.origin)
        assert await ask(at(FAR)) == "ok"
    for exchange in (*proxy.requests, *server.requests):
        assert not {"authorization", "proxy-authorization"} & exchange.headers.keys()


@pytest.mark.parametrize(
    "address", ["ftp://proxy:21", "http://", "http://proxy:port", "environment"]
)
async def test_an_environment_without_sense_is_an_error_that_says_so(monkeypatch, address):
    monkeypatch.setenv("HTTP_PROXY", address)
    with pytest.raises(InvalidParameterError, match="HTTP_PROXY.*address of a proxy") as caught:
        await ask(at(FAR))
    assert not caught.value.was_sent


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
async def test_a_socks_proxy_is_refused_with_the_way_out(monkeypatch, scheme):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:of-socks@127.0.0.1:1080")
    with pytest.raises(InvalidParameterError, match="SOCKS.*HttpxTransport") as caught:
        await ask(at(FAR))
    assert not caught.value.was_sent
    assert "of-socks" not in str(caught.value)


# A generator's own.


async def test_a_generator_names_its_proxy_whatever_the_environment_says(monkeypatch, through):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    async with proxied() as (proxy, server):
        assert await ask(through(at(FAR).with_proxy(proxy.origin))) == "ok"
    assert proxy.lines == [f"POST {FAR}/chat/completions"] * 2
    assert len(server.requests) == 2


async def test_a_generator_may_go_without_any(monkeypatch, through):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with proxied() as (_, server):
        assert await ask(through(at(server.url).with_proxy(None))) == "ok"


async def test_a_proxy_is_told_who_asks_and_the_server_is_not(through):
    async with proxied(login=PLAIN_LOGIN) as (proxy, server):
        url = proxy.origin.replace("://", f"://{LOGIN}@")
        assert await ask(through(at(FAR).with_proxy(url))) == "ok"
    assert all("proxy-authorization" not in exchange.headers for exchange in server.requests)


async def test_the_environment_may_tell_a_proxy_who_asks(monkeypatch):
    async with proxied(login=PLAIN_LOGIN) as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", proxy.origin.replace("://", f"://{LOGIN}@"))
        assert await ask(at(FAR)) == "ok"


@pytest.mark.parametrize("url", [FAR, "https://llm.example.test/v1"])
async def test_a_proxy_that_wants_a_password_is_named_and_not_asked_again(through, url):
    async with proxied(login="me:right") as (proxy, server):
        generator = at(url).with_proxy(proxy.origin.replace("://", "://me:very-wrong@"))
        with pytest.raises(ConnectError, match="with_proxy") as caught:
            await ChatNode.root("s").chat("u", through(generator))
    error = caught.value
    assert f"the proxy {proxy.origin} refused" in str(error)
    assert "407" in str(error)
    assert "very-wrong" not in str(error)
    assert not error.is_retryable
    assert not error.was_sent
    assert server.requests == []


@pytest.mark.parametrize("url", [FAR, "https://llm.example.test/v1"])
async def test_a_proxy_of_the_callers_own_client_that_wants_a_password_says_so(url):
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async with proxied(login="me:right") as (proxy, _):
        async with httpx2.AsyncClient(proxy=proxy.origin) as client:
            generator = at(url).with_transport(HttpxTransport(client))
            with pytest.raises(ConnectError, match="the proxy refused.*407") as caught:
                await ChatNode.root("s").chat("u", generator)
    assert not caught.value.was_sent


@pytest.mark.parametrize(
    ("status", "is_retryable"),
    [("403 Forbidden", False), ("499 Closed", False), ("500 Broken", True), ("503 Busy", True)],
)
async def test_a_tunnel_that_is_refused_was_not_sent(through, status, is_retryable):
    async with proxied(refusal=status) as (proxy, _):
        generator = at("https://llm.example.test/v1").with_proxy(proxy.origin)
        with pytest.raises(ConnectError, match=status[:3]) as caught:
            await ChatNode.root("s").chat("u", through(generator))
    assert caught.value.is_retryable is is_retryable
    assert not caught.value.was_sent


async def test_a_proxy_that_nobody_listens_at_is_named(through):
    generator = at(FAR).with_proxy("http://me:of-nobody@127.0.0.1:9")
    with pytest.raises(ConnectError, match="through the proxy http://127.0.0.1:9") as caught:
        await ChatNode.root("s").chat("u", through(generator))
    assert "of-nobody" not in str(caught.value)


async def test_a_tunnel_to_a_server_without_tls_is_a_tls_error(through):
    async def speak_plainly(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    async with plain, ProxyServer(plain.sockets[0].getsockname()[1]) as proxy:
        generator = at("https://llm.example.test/v1").with_proxy(proxy.origin)
        with pytest.raises(TlsError):
            await ChatNode.root("s").chat("u", through(generator))
    assert proxy.lines == ["CONNECT llm.example.test:443"]


OVER_TLS = """
import asyncio, logging, sys
from minillmlib import *

# The development mode says how long each step took.
logging.getLogger("asyncio").addFilter(lambda record: "Executing" not in record.msg)
url, proxy, engine = sys.argv[1:]
generator = GeneratorInfo.custom("far", url, "m").with_api_key("sk-over-tls")
if proxy:
    generator = generator.with_proxy(proxy)

async def ask(generator):
    for _ in range(2):
        print((await ChatNode.root("s").chat("u", generator)).text)
    async with ChatNode.root("s").chat_streaming("u", generator) as stream:
        print("".join([chunk.delta async for chunk in stream]))

async def main():
    if engine == "aiohttp":
        return await ask(generator)
    import httpx2
    from minillmlib.httpx import HttpxTransport
    async with httpx2.AsyncClient() as client:
        await ask(generator.with_transport(HttpxTransport(client)))

asyncio.run(main())
"""


@pytest.mark.parametrize("engine", ["aiohttp", "httpx2"])
@pytest.mark.parametrize("where", ["environment", "generator", "no_proxy"])
async def test_https_goes_through_a_tunnel_that_knows_no_key(certified, engine, where):
    pytest.importorskip("httpx2")
    context, file = certified
    async with (
        Server(answer, tls=context) as server,
        ProxyServer(int(server.origin.rpartition(":")[2]), login=PLAIN_LOGIN) as proxy,
    ):
        address = proxy.origin.replace("://", f"://{LOGIN}@")
        extra = {"SSL_CERT_FILE": file}
        if where != "generator":
            extra["HTTPS_PROXY"] = address
        if where == "no_proxy":
            extra["NO_PROXY"] = "127.0.0.1"
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", "-W", "error", "-c", OVER_TLS,
            server.url, address if where == "generator" else "", engine,
            env={**os.environ, **extra}, stdout=-1, stderr=-1,
        )  # fmt: skip
        out, err = await asyncio.wait_for(child.communicate(), 30)
    assert (out.split(), err) == ([b"ok"] * 3, b"")
    target = server.origin.partition("://")[2]
    assert set(proxy.lines) == (set() if where == "no_proxy" else {f"CONNECT {target}"})
    assert all("sk-over-tls" not in str(exchange.headers) for exchange in proxy.requests)


# Its password is a secret.


def test_a_password_is_in_no_text_of_a_generator():
    generator = at(FAR).with_proxy("http://me:of-the-proxy@proxy.example:3128")
    assert isinstance(generator.proxy, Secret)
    shown = repr(generator), str(generator), f"{generator}", repr(vars(type(generator)))
    assert all("of-the-proxy" not in text for text in shown)
    assert "proxy http://proxy.example:3128" in repr(generator)
    with pytest.raises(InvalidParameterError):
        pickle.dumps(generator)


def test_a_proxy_without_a_password_is_pickled_with_its_generator():
    for proxy in ("http://proxy.example:3128", None, "environment"):
        generator = at(FAR).with_proxy(proxy)
        assert pickle.loads(pickle.dumps(generator)) == generator
    assert at(FAR).with_proxy("environment") == at(FAR)


@pytest.mark.parametrize(
    "proxy",
    ["", "  ", "ftp://me:of-a-typo@p:1", "http://me:of-a-typo@", "http://me:of-a-typo@p:port",
     "http://me:of-a-typo@p:1/path", "http://me:of-a-typ\u00f6@p:1", "http://p:0", 3128, b"http://p:1"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_the_password(proxy):
    with pytest.raises(InvalidParameterError, match="a proxy must look like") as caught:
        at(FAR).with_proxy(proxy)
    error: BaseException | None = caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "minillmlib" in trace.tb_frame.f_code.co_filename:
                assert "of-a-typo" not in repr(trace.tb_frame.f_locals)
            trace = trace.tb_next
        assert "of-a-typo" not in str(error)
        error = error.__cause__ or error.__context__


async def test_a_bad_address_in_the_environment_is_refused_without_the_environment(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:of-a-typo@p:port")
    request = HttpRequest(url="https://llm.example.test/v1", headers=(), body=b"")
    with pytest.raises(InvalidParameterError, match="HTTPS_PROXY") as caught:
        await AiohttpTransport().send(request)
    assert "of-a-typo" not in str(caught.value)
    trace = caught.value.__traceback__
    while trace is not None:
        if "minillmlib" in trace.tb_frame.f_code.co_filename:
            assert "of-a-typo" not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next


async def test_a_server_that_says_the_password_is_redacted(through):
    async def echo(exchange):
        await exchange.answer(b'{"error":{"message":"not for of-the-proxy"}}', "400 Bad")

    async with (
        Server(echo) as server,
        ProxyServer(int(server.origin.rpartition(":")[2])) as proxy,
    ):
        address = proxy.origin.replace("://", "://me:of-the-proxy@")
        with pytest.raises(MiniLLMError, match="not for") as caught:
            await ChatNode.root("s").chat("u", through(at(FAR).with_proxy(address)), BRIEF)
    assert "of-the-proxy" not in str(caught.value)


async def test_a_key_for_this_machine_does_not_leave_it_through_a_proxy():
    generator = at("http://127.0.0.1:9/v1").with_api_key("sk-of-this-machine")
    with pytest.raises(InvalidParameterError, match="through http://proxy.example:3128"):
        await ask(generator.with_proxy("http://me:x@proxy.example:3128"))
    with pytest.raises(ConnectError):
        await ask(generator.with_proxy("http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "proxy", ["http://me:of-the-proxy@127.0.0.1:9", "socks5://me:of-the-proxy@p"]
)
async def test_no_frame_of_a_failure_holds_the_key_or_the_password(proxy):
    generator = at("https://llm.example.test/v1").with_api_key("sk-in-no-frame").with_proxy(proxy)
    with pytest.raises(MiniLLMError) as caught:
        await ChatNode.root("s").chat("u", generator)
    trace = caught.value.__traceback__
    while trace is not None:
        if "minillmlib" in trace.tb_frame.f_code.co_filename:
            shown = repr(trace.tb_frame.f_locals)
            assert "sk-in-no-frame" not in shown
            assert "of-the-proxy" not in shown
        trace = trace.tb_next
