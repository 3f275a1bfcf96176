"""Nothing leaves this machine where the network is forbidden, by no engine and through no proxy."""

from __future__ import annotations

import contextlib

import httpx2
import pytest
from server import serving

from minillmlib import ChatNode, ConnectError, GeneratorInfo, NodeCompletionParameters
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import ScriptedReply, ScriptedTransport, forbid_network, use_transport

ANSWER = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
FAR = "http://192.0.2.1/v1"  # an address that nobody has
BRIEF = NodeCompletionParameters(timeout_secs=5, retry=0)
ROOT = ChatNode.root("s")


async def answer(exchange):
    await exchange.answer(ANSWER)


@contextlib.asynccontextmanager
async def plain_engine():
    yield None


@contextlib.asynccontextmanager
async def httpx_engine():
    async with httpx2.AsyncClient() as client:
        yield HttpxTransport(client)


every_engine = pytest.mark.parametrize(
    "engine", [plain_engine, httpx_engine], ids=["aiohttp", "httpx2"]
)


async def ask(url: str, transport=None, proxy=None) -> str | None:
    generator = GeneratorInfo.custom("mine", url, "m").replace(transport=transport)
    if proxy is not None:
        generator = generator.with_proxy(proxy)
    return (await ROOT.chat("u", generator, BRIEF)).text


@every_engine
async def test_another_machine_is_not_connected(engine):
    async with engine() as transport:
        with forbid_network(), pytest.raises(ConnectError, match="192.0.2.1") as caught:
            await ask(FAR, transport)
    assert (caught.value.was_sent, caught.value.is_retryable) == (False, False)
    assert "ScriptedTransport" in str(caught.value)


@every_engine
@pytest.mark.parametrize("host", ["api.openai.com", "localhost.example", "127.0.0.1.example",
                                  "0x7f000001.example", "[2001:db8::1]"])  # fmt: skip
async def test_a_name_is_not_even_looked_up(engine, host, monkeypatch):
    def look_up(*_args, **_more):
        raise AssertionError("a name was looked up")

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    async with engine() as transport:
        with forbid_network(), pytest.raises(ConnectError, match="blocked"):
            await ask(f"https://{host}/v1", transport)


@every_engine
async def test_a_server_of_this_machine_answers(engine):
    async with engine() as transport, serving(answer) as (url, exchanges):
        with forbid_network():
            assert await ask(url, transport) == "ok"
            assert await ask(url.replace("127.0.0.1", "localhost"), transport) == "ok"
    assert len(exchanges) == 2


@every_engine
async def test_a_server_of_this_machine_can_be_forbidden_too_even_over_an_open_connection(engine):
    async with engine() as transport, serving(answer) as (url, exchanges):
        assert await ask(url, transport) == "ok"
        with forbid_network(allow_loopback=False), pytest.raises(ConnectError, match="blocked"):
            await ask(url, transport)
        assert await ask(url, transport) == "ok"
    assert len(exchanges) == 2


@every_engine
async def test_a_proxy_of_this_machine_is_no_way_out(engine):
    async with engine() as transport, serving(answer) as (url, exchanges):
        proxy = url.removesuffix("/v1")
        assert await ask(FAR, transport, proxy) == "ok"
        with forbid_network(), pytest.raises(ConnectError, match="blocked"):
            await ask(FAR, transport, proxy)
    assert len(exchanges) == 1


async def test_scripts_and_mocks_are_not_concerned():
    mock = httpx2.MockTransport(lambda request: httpx2.Response(200, content=ANSWER))
    with forbid_network(allow_loopback=False):
        with use_transport(ScriptedTransport([ScriptedReply.json(ANSWER)])):
            assert await ask(FAR) == "ok"
        async with httpx2.AsyncClient(transport=mock) as client:
            assert await ask(FAR, HttpxTransport(client)) == "ok"


async def test_the_inner_of_two_holds_until_its_end():
    async with serving(answer) as (url, _):
        with forbid_network(allow_loopback=False):
            with forbid_network():
                assert await ask(url) == "ok"
            with pytest.raises(ConnectError, match="also to 127.0.0.1"):
                await ask(url)
        assert await ask(url) == "ok"
