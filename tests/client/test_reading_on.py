"""Reading a stream on that has ended before its end: an error, never the end of a whole answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading

import pytest
from answer_pieces import begun, generator_at, word
from short_answers import scripted, streamed
from threaded_server import ThreadedServer

from minillmlib import (
    ChatNode,
    IncompleteStreamError,
    InvalidParameterError,
    NodeCompletionParameters,
    RequestTimeoutError,
    iterate,
    run,
)

WIRES = ("openai", "anthropic")
START = "[1, "  # of JSON, so that partial_json() gives it at once
ONCE = NodeCompletionParameters(retry=0)


@pytest.fixture(params=WIRES)
def slow(request):
    """A server that sends one word and then is silent."""
    with ThreadedServer((*begun(), word(request.param, START))) as server:
        yield generator_at(server, request.param)


async def read_patiently(chunks, secs=0.03) -> list:
    """Read as many programs do: a wait that takes too long is tried again."""
    got = []
    while True:
        with contextlib.suppress(TimeoutError):
            try:
                got.append(await asyncio.wait_for(anext(chunks), secs))
            except StopAsyncIteration:
                return got


DOORS = {
    "chunks": lambda stream: stream,
    "text": lambda stream: stream.text(),
    "json": lambda stream: stream.partial_json(),
}


@pytest.mark.parametrize("door", DOORS)
async def test_a_part_read_with_time_outs_from_outside_never_passes_for_the_whole(slow, door):
    root = ChatNode.root("s")
    stream = root.chat_streaming("u", slow, ONCE)
    chunks = DOORS[door](stream)
    assert await anext(chunks)
    with pytest.raises(IncompleteStreamError, match="progress_timeout_secs") as caught:
        await read_patiently(chunks)
    assert caught.value.partial == START
    assert len(caught.value.attempts) == 1
    with pytest.raises(IncompleteStreamError):
        await stream.collect()
    with pytest.raises(InvalidParameterError, match="end"):
        _ = stream.node
    assert root.children() == []


async def test_a_stream_cancelled_before_its_first_byte_cannot_be_read_on(slow):
    stream = ChatNode.root("s").chat_streaming("u", slow.with_transport(Never()), ONCE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), stream:
            pass
    with pytest.raises(IncompleteStreamError):
        async for _ in stream:
            pass


class Never:
    async def send(self, _request):
        await asyncio.Event().wait()


async def test_closing_a_cancelled_stream_does_not_make_its_part_a_whole(slow):
    stream = ChatNode.root("s").chat_streaming("u", slow, ONCE)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stream.collect(), 0.03)
    await stream.aclose()
    with pytest.raises(IncompleteStreamError):
        await anext(stream, None)


async def test_a_loop_that_is_cancelled_over_a_chunk_leaves_no_whole_behind(slow):
    async def read() -> None:
        async with stream:
            async for _ in stream:
                await asyncio.Event().wait()

    stream = ChatNode.root("s").chat_streaming("u", slow, ONCE)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(read(), 0.05)
    with pytest.raises(IncompleteStreamError):
        await anext(stream)


async def test_a_time_limit_of_the_library_is_not_the_end_of_the_stream_either(slow):
    stream = ChatNode.root("s").chat_streaming("u", slow, ONCE.replace(timeout_secs=0.03))
    assert (await anext(stream)).delta == START
    with pytest.raises(RequestTimeoutError):
        await anext(stream)
    with pytest.raises(IncompleteStreamError, match="RequestTimeoutError") as caught:
        await anext(stream)
    assert caught.value.partial == START


async def test_a_chunk_may_be_awaited_in_a_task_that_is_kept():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")), ONCE)
    got, task = [], None
    while True:
        task = task or asyncio.ensure_future(anext(stream))
        done, _ = await asyncio.wait({task}, timeout=0.001)
        if done:
            try:
                got.append((await task).delta)
            except StopAsyncIteration:
                break
            task = None
    assert "".join(got) == stream.node.text == "ab"


async def test_what_the_caller_closed_has_ended():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")), ONCE)
    assert (await anext(stream)).delta == "a"
    await stream.aclose()
    assert await anext(stream, None) is None


def test_a_blocking_loop_goes_on_after_ctrl_c_with_an_error(slow):
    stream = ChatNode.root("s").chat_streaming("u", slow, ONCE)
    chunks = iterate(stream)
    assert next(chunks).delta == START
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(chunks)
    timer.join()
    for again in (chunks, iterate(stream)):
        with pytest.raises(IncompleteStreamError):
            next(again)
    chunks.close()
    assert next(chunks, None) is None
    with pytest.raises(IncompleteStreamError):
        run(stream.collect())


@pytest.mark.parametrize("wire", WIRES)
async def test_the_text_in_that_error_has_no_key(wire):
    key = "sk-proj-" + "Ab12Cd34Ef56"
    with ThreadedServer((*begun(), word(wire, f"Your key is {key}."))) as server:
        stream = ChatNode.root().chat_streaming(
            "u", generator_at(server, wire).with_api_key(key), ONCE
        )
        assert key in (await anext(stream)).delta  # the words of the model
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.03)
        with pytest.raises(IncompleteStreamError) as caught:
            await anext(stream)
    assert caught.value.partial == "Your key is [hidden]."
