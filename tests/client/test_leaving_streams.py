"""Leaving a stream in every way there is: the connection closed, one record, nothing added."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import pytest
from answer_pieces import begun, generator_at, streamed, word
from threaded_server import HANG_UP, HANG_UP_SECS, ThreadedServer, wait_until

from minillmlib import (
    AttemptOutcome,
    ChatNode,
    CostInfo,
    CostResolution,
    IncompleteStreamError,
    NodeCompletionParameters,
    iterate,
)

WIRES = ("openai", "anthropic")
DROPPED_SECS = 1.0


@pytest.fixture(autouse=True)
def _nothing_is_said_at_the_end(caplog):
    """No task's error is lost, and nothing that was dropped complains when it is collected."""
    yield
    gc.collect(1)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


MINE = LookupError("mine")


class Leaving:
    """The moment in which a stream is left, marked by those that leave it."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> None:
        self.at = time.monotonic()


async def by_break(stream, leaving):
    async with stream:
        async for _ in stream:
            leaving.now()
            break


async def before_the_first_piece(stream, leaving):
    async with stream:
        leaving.now()


async def by_closing_it(stream, leaving):
    async for _ in stream:
        leaving.now()
        await stream.aclose()
    await stream.aclose()


async def by_an_error_in_the_loop(stream, leaving):
    async with stream:
        async for _ in stream:
            leaving.now()
            raise MINE


async def cancelled_in_the_loop(stream, leaving):
    async with stream:
        async for _ in stream:
            leaving.now()
            asyncio.current_task().cancel()
            await asyncio.Event().wait()


async def cancelled_while_it_waits(stream, leaving):
    def cancel() -> None:
        leaving.now()
        task.cancel()

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    await anext(stream)
    loop.call_later(0.02, cancel)
    async for _ in stream:
        pass


async def by_a_time_out_around_it(stream, leaving):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as clock, stream:
        await anext(stream)
        loop.call_later(0.02, leaving.now)
        clock.reschedule(loop.time() + 0.02)
        async for _ in stream:
            pass


async def closed_by_another_task(stream, leaving):
    async def read() -> None:
        async for _ in stream:
            has_begun.set()

    has_begun = asyncio.Event()
    reading = asyncio.create_task(read())
    await has_begun.wait()
    leaving.now()
    await stream.aclose()
    await reading


LEAVING = {
    by_break: None,
    before_the_first_piece: None,
    by_closing_it: None,
    by_an_error_in_the_loop: LookupError,
    cancelled_in_the_loop: asyncio.CancelledError,
    cancelled_while_it_waits: asyncio.CancelledError,
    by_a_time_out_around_it: TimeoutError,
    closed_by_another_task: None,
}


def endless(wire: str, *, talks: bool) -> ThreadedServer:
    """A server that begins a stream and then is silent, or talks on and on."""
    said = (word(wire, "one "),) * (10_000 if talks else 1)
    server = ThreadedServer((*begun(), *said))
    server.pause_secs = 0.001
    return server


def check_left(records: list[CostInfo], server: ThreadedServer, since: float, secs: float) -> None:
    """One record of one attempt that was left, and a hang-up."""
    wait_until(lambda: not server.open_connections(), secs)
    assert server.connections[0].ended_at - since < secs
    (record,) = records
    assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.ABANDONED]
    assert record.resolution is CostResolution.UNKNOWN


@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_is_left_hangs_up_at_once(wire, leave, talks):
    async def main() -> None:
        stream = root.chat_streaming("u", generator_at(server, wire), settings)
        (ended,) = await asyncio.gather(leave(stream, leaving), return_exceptions=True)
        assert type(ended) is (LEAVING[leave] or type(None))
        assert ended is MINE or not isinstance(ended, LookupError)
        assert len(records) == 1
        await asyncio.to_thread(check_left, records, server, leaving.at, HANG_UP_SECS)
        if isinstance(ended, asyncio.CancelledError | TimeoutError):
            with pytest.raises(IncompleteStreamError):
                await anext(stream)
        else:
            assert await anext(stream, None) is None
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert stream.attempts == records[0].attempts

    records, root, leaving = [], ChatNode.root("s"), Leaving()
    settings = NodeCompletionParameters(cost_callback=records.append)
    with endless(wire, talks=talks) as server:
        asyncio.run(main())
    assert root.children() == []
    assert len(records) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_loop_over_a_stream_leaves_it(kind):
    async def main() -> None:
        async with root.chat_streaming("u", generator_at(server, "openai"), settings) as stream:
            async for _ in stream:
                raise kind

    records, root = [], ChatNode.root("s")
    settings = NodeCompletionParameters(cost_callback=records.append)
    with endless("openai", talks=True) as server:
        with pytest.raises(kind):
            asyncio.run(main())
        check_left(records, server, time.monotonic(), HANG_UP_SECS)
    assert root.children() == []


def break_off(chunks):
    for _ in chunks:
        break
    chunks.close()


def drop(chunks):
    next(chunks)


def raise_in_the_loop(chunks):
    with contextlib.suppress(LookupError):
        for _ in chunks:
            raise MINE
    chunks.close()


@pytest.mark.parametrize("leave", [break_off, drop, raise_in_the_loop], ids=lambda it: it.__name__)
def test_a_blocking_loop_that_is_left_hangs_up_at_once(leave):
    records = []
    settings = NodeCompletionParameters(cost_callback=records.append)
    with endless("openai", talks=True) as server:
        root = ChatNode.root("s")
        leave(iterate(root.chat_streaming("u", generator_at(server, "openai"), settings)))
        check_left(records, server, time.monotonic(), HANG_UP_SECS)


def drop_here(held: list) -> None:
    held.clear()


def drop_in_another_thread(held: list) -> None:
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()


def drop_in_a_cycle(held: list) -> None:
    cycle = [held.pop()]
    cycle.append(cycle)
    del cycle
    gc.collect()


DROPPING = (drop_here, drop_in_another_thread, drop_in_a_cycle)


@pytest.mark.parametrize("drop", DROPPING, ids=lambda it: it.__name__)
@pytest.mark.parametrize("talks", [False, True], ids=["silent", "talking"])
def test_a_stream_that_is_dropped_hangs_up_within_a_second_and_warns(drop, talks):
    async def main() -> None:
        held = [root.chat_streaming("u", generator_at(server, "openai"), settings)]
        async for _ in held[0]:
            break
        with pytest.warns(ResourceWarning, match="async with"):
            drop(held)
        dropped_at = time.monotonic()
        async with asyncio.timeout(DROPPED_SECS):
            while not records:
                await asyncio.sleep(0)
        await asyncio.to_thread(check_left, records, server, dropped_at, DROPPED_SECS)

    records, root = [], ChatNode.root("s")
    settings = NodeCompletionParameters(cost_callback=records.append)
    with endless("openai", talks=talks) as server:
        asyncio.run(main())
    assert root.children() == []


def test_a_stream_that_broke_and_was_tried_again_is_recorded_as_soon_as_it_is_dropped():
    async def read_one(stream) -> None:
        await anext(stream)

    records, root = [], ChatNode.root("s")
    settings = NodeCompletionParameters(cost_callback=records.append, retry=1, back_off_time=0)
    gc.disable()
    try:
        with (
            ThreadedServer((*begun(), word("openai", "one "))) as server,
            asyncio.Runner() as runner,
        ):
            server.script.append((*begun(), HANG_UP))
            stream = root.chat_streaming("u", generator_at(server, "openai"), settings)
            runner.run(read_one(stream))
            with pytest.warns(ResourceWarning, match="async with"):
                del stream
            runner.run(asyncio.sleep(0.01))
            assert [len(record.attempts) for record in records] == [2]
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")  # aiohttp's, of its loop
def test_a_stream_that_outlives_its_loop_is_closed_with_it_and_recorded_when_dropped():
    async def main() -> None:
        await anext(held[0])

    records = []
    settings = NodeCompletionParameters(cost_callback=records.append)
    with endless("openai", talks=True) as server:
        root = ChatNode.root("s")
        held = [root.chat_streaming("u", generator_at(server, "openai"), settings)]
        asyncio.run(main())
        wait_until(lambda: not server.open_connections())
        with pytest.warns(ResourceWarning, match="async with"):
            held.clear()
        check_left(records, server, time.monotonic(), HANG_UP_SECS)


def test_a_stream_that_was_never_read_is_dropped_without_a_word():
    records = []
    settings = NodeCompletionParameters(cost_callback=records.append)
    with ThreadedServer(()) as server:
        ChatNode.root("s").chat_streaming("u", generator_at(server, "openai"), settings)
        gc.collect()
        assert server.connections == []
    assert records == []


@pytest.mark.parametrize("wire", WIRES)
def test_no_clock_runs_while_the_reader_thinks(wire):
    async def main() -> str:
        async with ChatNode.root("s").chat_streaming("u", generator, settings) as stream:
            async for _ in stream:
                await asyncio.sleep(0.2)
        return stream.node.text

    settings = NodeCompletionParameters(timeout_secs=0.15, progress_timeout_secs=0.15)
    head, *events = streamed(wire, words=("one ", "two "))
    first = next(number for number, event in enumerate(events, 1) if b"one" in event)
    pieces = (head + b"".join(events[:first]), events[first], b"".join(events[first + 1 :]))
    with ThreadedServer(pieces) as server:
        server.pause_secs = 0.25
        generator = generator_at(server, wire)
        assert asyncio.run(main()) == "one two "
