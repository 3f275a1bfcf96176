"""The engine over real sockets: what is sent, how long is waited, how connections end."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

import aiohttp
import msgspec
import pytest
from server import serving

import minillmlib
from minillmlib import (
    ChatNode,
    ConnectError,
    GeneratorInfo,
    GenericProvider,
    IncompleteStreamError,
    NodeCompletionParameters,
    ReadError,
    RequestTimeoutError,
)

ANSWER = b'{"choices":[{"index":0,"message":{"content":"ok"},"finish_reason":"stop"}]}'
SAID = b'data: {"choices":[{"index":0,"delta":{"content":"ok"}}]}\n\n'
FINISHED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
COUNTED = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
ROOT = ChatNode.root("s")
SHORT = NodeCompletionParameters(timeout_secs=0.3)
BRIEF = NodeCompletionParameters(timeout_secs=5, retry=0)


def at(url: str) -> GeneratorInfo:
    return GeneratorInfo.custom("loopback", url, "m").with_api_key("sk-loopback")


async def answer(exchange):
    await exchange.answer(ANSWER)


async def forever():
    await asyncio.Event().wait()


async def test_a_request_is_one_post_with_its_headers_and_body():
    async with serving(answer) as (url, exchanges):
        assert (await ROOT.chat("u", at(url))).text == "ok"
    (exchange,) = exchanges
    assert exchange.request_line == "POST /v1/chat/completions HTTP/1.1"
    assert exchange.headers["authorization"] == "Bearer sk-loopback"
    assert exchange.headers["accept"] == "application/json"
    assert exchange.headers["accept-encoding"] == "identity"
    assert exchange.headers["content-length"] == str(len(exchange.body))
    assert b'"content":"u"' in exchange.body


class HostProvider(GenericProvider):
    """A gateway that goes by the host, whatever the address."""

    def finalize(self, request, auth):
        return msgspec.structs.replace(request, headers=(*request.headers, ("Host", "of.its.own")))


async def test_the_host_that_a_provider_names_is_the_only_one():
    async with serving(answer) as (url, exchanges):
        await ROOT.chat("u", at(url).with_provider(HostProvider()))
    assert exchanges[0].request_head.lower().count(b"\r\nhost:") == 1
    assert exchanges[0].headers["host"] == "of.its.own"


async def test_the_body_follows_its_headers_at_once_even_if_they_ask_for_leave():
    async with serving(answer) as (url, exchanges):
        await ROOT.chat("u", at(url).with_header("Expect", "100-continue"), BRIEF)
    assert b'"content":"u"' in exchanges[0].body


async def test_a_call_takes_no_task_of_its_own():
    started = []

    def count(loop, work, **more):
        started.append(work)
        return asyncio.Task(work, loop=loop, **more)

    async with serving(answer) as (url, _):
        await ROOT.chat("u", at(url))
        loop = asyncio.get_running_loop()
        loop.set_task_factory(count)
        await ROOT.chat("u", at(url))
        loop.set_task_factory(None)
    assert [work for work in started if "loopback" not in work.cr_code.co_filename] == []


class NarrowSocket(socket.socket):
    """A way out that takes little at a time, as over a slow network."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def test_a_connection_that_has_not_taken_all_of_a_request_is_not_used_again(monkeypatch):
    monkeypatch.setattr(socket, "socket", NarrowSocket)
    taken = []

    async def answer_early(reader, writer):
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))
        await is_over.wait()
        writer.transport.abort()

    is_over = asyncio.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(answer_early, sock=listening, limit=4096)
    info = at(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
    assert (await ROOT.chat("u" * 900_000, info)).text == "ok"
    assert (await ROOT.chat("u", info, BRIEF)).text == "ok"
    is_over.set()
    server.close()
    await asyncio.sleep(0)
    assert len(taken) == 2


async def test_a_kept_connection_serves_again_after_a_whole_answer_and_after_a_stream():
    async def both(exchange):
        if b'"stream":true' not in exchange.body:
            return await exchange.answer(ANSWER)
        await exchange.start_events()
        await exchange.chunk(SAID + FINISHED + COUNTED + DONE)
        await asyncio.sleep(0.02)
        return await exchange.end()

    async with serving(both) as (url, exchanges):
        for _ in range(2):
            await ROOT.chat("u", at(url))
            async with ROOT.chat_streaming("u", at(url)) as stream:
                async for _ in stream:
                    pass
    assert [exchange.connection.number for exchange in exchanges] == [1, 1, 1, 1]


async def test_a_kept_connection_holds_nothing_of_the_streams_that_it_carried():
    async def stream_slowly(exchange):
        await exchange.start_events()
        await asyncio.sleep(0.01)
        await exchange.chunk(SAID + FINISHED + COUNTED + DONE)
        await exchange.end()

    async with serving(stream_slowly) as (url, exchanges):
        for _ in range(5):
            async with ROOT.chat_streaming("u", at(url)) as stream:
                async for _ in stream:
                    pass
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is aiohttp.ClientResponse]
    assert {exchange.connection.number for exchange in exchanges} == {1}
    assert not kept


async def test_a_stream_closed_while_it_is_read_leaves_nothing_behind():
    async def begin(exchange):
        await exchange.start_events()
        await exchange.chunk(SAID)
        await exchange.has_hung_up.wait()

    async with serving(begin) as (url, _):
        stream = ROOT.chat_streaming("u", at(url))
        await anext(stream)
        reading = asyncio.create_task(collect(stream))
        await asyncio.sleep(0.01)  # it waits for more
        await stream.aclose()
        await reading
        del stream, reading
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one) is aiohttp.ClientResponse]
    assert not kept


def test_one_generator_works_in_several_event_loops_in_turn():
    async def once():
        async with serving(answer) as (url, _):
            return (await ROOT.chat("u", at(url))).text

    assert [asyncio.run(once()) for _ in range(3)] == ["ok"] * 3


async def test_nobody_listening_is_a_connect_error_that_names_the_address():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(ConnectError, match=url):
        await ROOT.chat("u", at(url))


async def test_an_unknown_host_is_a_connect_error():
    with pytest.raises(ConnectError, match=r"no-such-host\.invalid"):
        await ROOT.chat("u", at("https://no-such-host.invalid/v1"))


async def test_https_towards_a_plain_server_is_a_tls_error():
    async def plain(reader, writer):
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(minillmlib.TlsError):
            await ROOT.chat("u", at(f"https://127.0.0.1:{port}/v1"))


async def test_a_server_that_hangs_up_is_a_read_error():
    async def hang_up(exchange):
        exchange.hang_up()

    async with serving(hang_up) as (url, exchanges):
        with pytest.raises(ReadError):
            await ROOT.chat("u", at(url))
    assert len(exchanges) == 1, "a request is never sent twice by the engine"


async def test_a_kept_connection_that_the_server_has_closed_is_replaced_at_once():
    async def answer_and_close(exchange):
        await exchange.answer(ANSWER)
        if exchange.connection.number == 1:
            exchange.close()

    async with serving(answer_and_close) as (url, exchanges):
        for _ in range(3):
            assert (await ROOT.chat("u", at(url))).text == "ok"
    assert [exchange.connection.number for exchange in exchanges] == [1, 2, 2]


async def test_a_kept_connection_that_closes_under_the_request_is_replaced_once():
    async def reset_the_second(exchange):
        if len(exchange.seen) == 2:
            return exchange.hang_up()
        return await exchange.answer(ANSWER)

    async with serving(reset_the_second) as (url, exchanges):
        assert (await ROOT.chat("u", at(url))).text == "ok"
        assert (await ROOT.chat("u", at(url))).text == "ok"
    assert [exchange.connection.number for exchange in exchanges] == [1, 1, 2]


async def test_the_second_try_takes_a_new_connection_though_others_are_kept():
    async def once_each(exchange):
        if sum(seen.connection.number == exchange.connection.number for seen in exchange.seen) > 1:
            return exchange.hang_up()
        await asyncio.sleep(0.05)
        return await exchange.answer(ANSWER)

    async with serving(once_each) as (url, exchanges):
        await asyncio.gather(*(ROOT.chat("u", at(url)) for _ in range(5)))
        assert (await ROOT.chat("u", at(url))).text == "ok"
    assert len(exchanges) == 7


async def test_an_answer_that_had_begun_is_never_asked_for_again():
    async def begin_and_close(exchange):
        if len(exchange.seen) == 2:
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-")
            return exchange.close()
        return await exchange.answer(ANSWER)

    async with serving(begin_and_close) as (url, exchanges):
        await ROOT.chat("u", at(url))
        with pytest.raises(ReadError):
            await ROOT.chat("u", at(url))
    assert len(exchanges) == 2


async def test_an_error_whose_body_breaks_off_keeps_its_status():
    async def cut(exchange):
        await exchange.send(b"HTTP/1.1 401 No\r\nContent-Length: 500\r\n\r\n{")
        exchange.close()

    async with serving(cut) as (url, _):
        with pytest.raises(minillmlib.AuthenticationError, match="401"):
            await ROOT.chat("u", at(url))


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_compressed_answer_is_refused_and_says_what_to_do(streaming):
    async def compressed(exchange):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n"
        await exchange.send(head + b"\x1f\x8b")

    async with serving(compressed) as (url, _):
        with pytest.raises(minillmlib.MalformedResponseError, match="compress"):
            if streaming:
                await collect(ROOT.chat_streaming("u", at(url)))
            else:
                await ROOT.chat("u", at(url))


async def test_a_server_that_dies_at_work_is_not_asked_again():
    async def die_at_work(exchange):
        if len(exchange.seen) == 2:
            await asyncio.sleep(1.2)
            return exchange.hang_up()
        return await exchange.answer(ANSWER)

    async with serving(die_at_work) as (url, exchanges):
        await ROOT.chat("u", at(url))
        with pytest.raises(ReadError):
            await ROOT.chat("u", at(url))
    assert len(exchanges) == 2


async def test_an_answer_shorter_than_promised_is_a_read_error():
    async def short(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + ANSWER)
        exchange.close()

    async with serving(short) as (url, _):
        with pytest.raises(ReadError):
            await ROOT.chat("u", at(url))


@pytest.mark.parametrize("junk", [b"not http at all\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
async def test_what_is_not_http_is_a_protocol_error_without_the_key(junk):
    async def send_junk(exchange):
        await exchange.send(junk)
        exchange.close()

    async with serving(send_junk) as (url, _):
        with pytest.raises(minillmlib.ProtocolError) as caught:
            await ROOT.chat("u", at(url))
    assert caught.value.__cause__ is None
    assert "sk-loopback" not in str(caught.value)


async def test_a_redirect_is_refused_and_the_key_goes_nowhere_else():
    async def redirect(exchange):
        if exchange.request_line.startswith("POST /v1"):
            location = b"Location: /elsewhere\r\n"
            await exchange.send(
                b"HTTP/1.1 307 Temporary Redirect\r\n" + location + b"Content-Length: 0\r\n\r\n"
            )

    async with serving(redirect) as (url, exchanges):
        with pytest.raises(minillmlib.RedirectError, match="elsewhere"):
            await ROOT.chat("u", at(url))
    assert len(exchanges) == 1


async def ends_within(secs: float, awaitable):
    started = time.monotonic()
    try:
        return await awaitable
    finally:
        assert time.monotonic() - started < secs


async def stall(_exchange):
    await forever()


async def drip_headers(exchange):
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(0.05)


async def drip_body(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("slow", [stall, drip_headers, drip_body])
async def test_the_time_out_of_a_whole_answer_is_a_total_however_the_server_drips(slow):
    async with serving(slow) as (url, exchanges):
        with pytest.raises(RequestTimeoutError, match="timeout_secs") as caught:
            await ends_within(1.5, ROOT.chat("u", at(url), SHORT))
        assert isinstance(caught.value, TimeoutError)
        await asyncio.wait_for(exchanges[0].has_hung_up.wait(), 1)


async def test_the_time_out_of_a_stream_is_silence():
    async def silent_after_text(exchange):
        await exchange.start_events()
        await exchange.chunk(SAID)
        await forever()

    async with serving(silent_after_text) as (url, exchanges):
        with pytest.raises(RequestTimeoutError) as caught:
            async for _ in ROOT.chat_streaming("u", at(url), SHORT):
                pass
        assert caught.value.partial == "ok"
        await asyncio.wait_for(exchanges[0].has_hung_up.wait(), 1)


async def test_a_long_stream_outlives_the_time_out_as_long_as_something_comes():
    async def slow_but_alive(exchange):
        await exchange.start_events()
        for _ in range(8):
            await exchange.chunk(SAID)
            await asyncio.sleep(0.1)
            await exchange.chunk(b": still working\n\n")
        await exchange.chunk(FINISHED + DONE)
        await exchange.end()

    async with serving(slow_but_alive) as (url, _):
        async with ROOT.chat_streaming("u", at(url), SHORT) as stream:
            assert "".join([chunk.delta async for chunk in stream]) == "ok" * 8


async def test_a_slow_reader_is_not_a_silent_server():
    async def quick(exchange):
        await exchange.start_events()
        for event in (SAID, SAID, FINISHED, DONE):
            await exchange.chunk(event)
            await asyncio.sleep(0.05)
        await exchange.end()

    async with serving(quick) as (url, _), ROOT.chat_streaming("u", at(url), SHORT) as stream:
        text = ""
        async for chunk in stream:
            text += chunk.delta
            await asyncio.sleep(0.4)
    assert text == "okok"


async def test_zero_is_no_time_out():
    async def late(exchange):
        await asyncio.sleep(0.5)
        await exchange.answer(ANSWER)

    async with serving(late) as (url, _):
        unbounded = NodeCompletionParameters(timeout_secs=0)
        assert (await ROOT.chat("u", at(url), unbounded)).text == "ok"


async def test_token_counts_that_never_come_are_awaited_for_a_short_grace_only():
    async def finished_but_open(exchange):
        await exchange.start_events()
        await exchange.chunk(SAID + FINISHED)
        await forever()

    async with serving(finished_but_open) as (url, _):
        stream = ROOT.chat_streaming("u", at(url))
        chunks = await ends_within(4, collect(stream))
    assert "".join(chunks) == "ok"
    assert stream.response.usage is None
    assert stream.response.cost.resolution is minillmlib.CostResolution.UNKNOWN


async def collect(stream):
    return [chunk.delta async for chunk in stream]


async def test_leaving_a_stream_closes_its_connection_at_once():
    async def endless(exchange):
        await exchange.start_events()
        while not exchange.has_hung_up.is_set():
            await exchange.chunk(SAID)
            await asyncio.sleep(0.01)

    async with serving(endless) as (url, exchanges):
        async with ROOT.chat_streaming("u", at(url)) as stream:
            await anext(stream)
        await asyncio.wait_for(exchanges[0].has_hung_up.wait(), 0.5)

        async def read_on():
            async for _ in ROOT.chat_streaming("u", at(url)):
                pass

        task = asyncio.create_task(read_on())
        while len(exchanges) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(exchanges[1].has_hung_up.wait(), 0.5)


async def test_a_stream_that_is_dropped_closes_its_connection_soon_and_warns():
    async def endless(exchange):
        await exchange.start_events()
        while not exchange.has_hung_up.is_set():
            await exchange.chunk(SAID)
            await asyncio.sleep(0.01)

    async def read_one():
        async for chunk in ROOT.chat_streaming("u", at(url)):
            return chunk.delta
        return ""

    async with serving(endless) as (url, exchanges):
        with pytest.warns(ResourceWarning, match="async with"):
            assert await read_one() == "ok"
        await asyncio.wait_for(exchanges[0].has_hung_up.wait(), 1)


@pytest.mark.parametrize("ending", ["clean", "reset", "cut inside a chunk"])
async def test_a_stream_that_stops_before_its_end_signal_is_an_error_with_the_text(ending):
    async def cut(exchange):
        await exchange.start_events()
        await exchange.chunk(SAID)
        await asyncio.sleep(0.02)
        if ending == "clean":
            return await exchange.end()
        if ending == "cut inside a chunk":
            await exchange.send(b"fff\r\ndata: {")
            return exchange.close()
        return exchange.hang_up()

    kind = IncompleteStreamError if ending == "clean" else ReadError
    async with serving(cut) as (url, _):
        with pytest.raises(kind) as caught:
            await collect(ROOT.chat_streaming("u", at(url)))
    assert caught.value.partial == "ok"
    assert caught.value.is_retryable


async def test_the_request_id_of_the_server_is_on_the_response_and_on_the_error():
    async def named(exchange):
        head = b"HTTP/1.1 %b\r\nx-request-id: req-7\r\nContent-Length: %d\r\n\r\n"
        if b"fail" in exchange.body:
            await exchange.send(head % (b"500 Oops", 2) + b"{}")
        else:
            await exchange.send(head % (b"200 OK", len(ANSWER)) + ANSWER)

    async with serving(named) as (url, _):
        answer = await ROOT.chat("u", at(url))
        assert answer.response.request_id == "req-7"
        with pytest.raises(minillmlib.ServerError) as caught:
            await ROOT.chat("fail", at(url))
        assert caught.value.request_id == "req-7"


async def test_two_hundred_calls_at_once():
    async with serving(answer) as (url, exchanges):
        answers = await asyncio.gather(*(ROOT.chat(str(i), at(url)) for i in range(200)))
    assert len(exchanges) == 200
    assert {node.text for node in answers} == {"ok"}
