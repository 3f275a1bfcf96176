"""Recorders and mocks of other packages, as docs/testing.md says. `make newest` installs them."""

from __future__ import annotations

import asyncio

import aiohttp
import httpx2
import msgspec
import pytest
from answer_pieces import TEXT, streamed, whole
from short_answers import said
from short_answers import streamed as scripted_events
from threaded_server import ThreadedServer

from minillmlib import (
    ChatNode,
    ConnectError,
    GeneratorInfo,
    NodeCompletionParameters,
    RateLimitError,
    run,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import forbid_network

REASON = "`make newest` installs it"
ONCE = NodeCompletionParameters(retry=0, timeout_secs=5)
ROOT = ChatNode.root("s")
FAR = GeneratorInfo.openai("gpt-4o-mini").with_api_key("sk-planted-0123456789")
ADDRESS = "https://api.openai.com/v1/chat/completions"
SECRET = "sk-planted-0123456789"
KINDS = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])


def ask(generator: GeneratorInfo, is_stream: bool) -> str | None:
    async def read() -> str:
        async with ROOT.chat_streaming("u", generator, ONCE) as stream:
            return "".join([chunk.delta async for chunk in stream])

    return run(read()) if is_stream else run(ROOT.chat("u", generator, ONCE)).text


@KINDS
def test_vcrpy_records_and_replays(is_stream, tmp_path):
    vcr = pytest.importorskip("vcr", reason=REASON)
    recorder = vcr.VCR(
        match_on=["method", "uri", "body"], filter_headers=["authorization", "x-api-key"]
    )
    cassette = tmp_path / "cassette.yaml"
    answer = streamed("openai") if is_stream else whole("openai")
    with ThreadedServer(answer) as server:
        generator = GeneratorInfo.custom("mine", server.url, "m").with_api_key(SECRET)
        with recorder.use_cassette(str(cassette)):
            assert ask(generator, is_stream) == TEXT
    assert len(server.requests) == 1
    with (
        recorder.use_cassette(str(cassette), record_mode="none"),
        forbid_network(allow_loopback=False),
    ):
        assert ask(generator, is_stream) == TEXT
    assert SECRET not in cassette.read_text()


@KINDS
def test_a_first_recording_of_vcrpy_is_a_real_call(is_stream, tmp_path):
    vcr = pytest.importorskip("vcr", reason=REASON)
    with vcr.use_cassette(str(tmp_path / "cassette.yaml")), forbid_network():
        with pytest.raises(ConnectError, match="blocked"):
            ask(FAR, is_stream)


@pytest.fixture
def mocked():
    """The addresses of aioresponses, if it works with this aiohttp."""
    package = pytest.importorskip("aioresponses", reason=REASON)

    async def try_it() -> None:
        with package.aioresponses() as addresses:
            addresses.get("http://mock.example", body=b"")
            async with aiohttp.ClientSession() as session, session.get("http://mock.example"):
                pass

    try:
        asyncio.run(try_it())
    except TypeError as error:
        pytest.skip(f"aioresponses does not work with aiohttp {aiohttp.__version__}: {error}")
    with package.aioresponses() as addresses:
        yield addresses


@KINDS
def test_aioresponses_answers(is_stream, mocked):
    body = b"".join((scripted_events("Par", "is.") if is_stream else said("Paris.")).pieces)
    kind = "text/event-stream" if is_stream else "application/json"
    mocked.post(ADDRESS, body=body, content_type=kind)
    with forbid_network(allow_loopback=False):
        assert ask(FAR, is_stream) == "Paris."


def test_aioresponses_fails(mocked):
    error = {"error": {"message": "busy"}}
    mocked.post(ADDRESS, status=429, payload=error, headers={"retry-after": "3"})
    with pytest.raises(RateLimitError) as caught:
        ask(FAR, is_stream=False)
    assert caught.value.retry_after_secs == 3


def test_pytest_httpserver_is_a_server_of_this_machine():
    package = pytest.importorskip("pytest_httpserver", reason=REASON)
    body = msgspec.json.decode(b"".join(said("Paris.").pieces))
    with package.HTTPServer() as server, forbid_network():
        server.expect_request("/v1/chat/completions", method="POST").respond_with_json(body)
        assert ask(GeneratorInfo.custom("mine", server.url_for("/v1"), "m"), False) == "Paris."
        assert len(server.log) == 1


def test_respx_does_not_reach_our_engines_so_the_guard_does():
    respx = pytest.importorskip("respx", reason=REASON)

    async def through_httpx2() -> None:
        async with httpx2.AsyncClient() as client:
            await ROOT.chat("u", FAR.with_transport(HttpxTransport(client)), ONCE)

    with respx.mock(assert_all_called=False) as router, forbid_network():
        router.post(ADDRESS)
        for call in (lambda: ask(FAR, False), lambda: asyncio.run(through_httpx2())):
            with pytest.raises(ConnectError, match="blocked"):
                call()


def test_a_mock_of_httpx2_answers():
    body = b"".join(said("Paris.").pieces)
    mock = httpx2.MockTransport(lambda request: httpx2.Response(200, content=body))

    async def call() -> str | None:
        async with httpx2.AsyncClient(transport=mock) as client:
            return (await ROOT.chat("u", FAR.with_transport(HttpxTransport(client)), ONCE)).text

    with forbid_network(allow_loopback=False):
        assert asyncio.run(call()) == "Paris."
