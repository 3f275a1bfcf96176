"""Leaving a call at any moment: the error out, the record made, the connection closed at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import NamedTuple

import pytest
from answer_pieces import TEXT, USD, generator_at, refused, streamed, whole
from interrupt_at_each_await import Deed, Stepped
from server import Exchange
from threaded_server import HANG_UP, HANG_UP_SECS, Pieces, ThreadedServer, wait_until

from minillmlib import (
    Attempt,
    AttemptOutcome,
    ChatNode,
    CostInfo,
    CostResolution,
    NodeCompletionParameters,
    run,
)

WIRES = ("openai", "anthropic")


@pytest.fixture(autouse=True)
def _nothing_is_said_at_the_end(caplog):
    """No task's error is lost, and nothing that was dropped complains when it is collected."""
    yield
    gc.collect(1)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def as_whole(root, generator, settings):
    return await root.chat("u", generator, settings)


async def as_stream(root, generator, settings):
    async with root.chat_streaming("u", generator, settings) as stream:
        async for _ in stream:
            pass
    return stream.node


async def as_bare_stream(root, generator, settings):
    stream = root.chat_streaming("u", generator, settings)
    async for _ in stream:
        pass
    return stream.node


MODES = {"whole": as_whole, "stream": as_stream, "bare stream": as_bare_stream}


class Story(NamedTuple):
    """Whether connections are kept, and what the server does before it answers."""

    keeps: bool
    first: tuple[Pieces, ...] = ()


STORIES = {
    "on a new connection": Story(keeps=False),
    "on a kept connection": Story(keeps=True),
    "tried again after a refusal": Story(keeps=True, first=(refused(),)),
    "sent again after its connection broke": Story(keeps=True, first=((HANG_UP,),)),
}


class Case:
    """One way to call one server, interrupted again and again, and all that must then hold."""

    def __init__(self, server: ThreadedServer, wire: str, mode: str, story: Story) -> None:
        self.server = server
        self.story = story
        self.hang_ups: list[float] = []
        self.generator = generator_at(server, wire)
        self._call = MODES[mode]
        server.usual = (whole if mode == "whole" else streamed)(wire, keeps=story.keeps)

    def begin(self, root: ChatNode, records: list[CostInfo]) -> Coroutine:
        settings = NodeCompletionParameters(
            cost_callback=records.append, retry=1, back_off_time=0.003
        )
        return self._call(root, self.generator, settings)

    def stepped(self, root: ChatNode, records: list, at: int, deed: Deed, **how) -> Stepped:
        """A call that is interrupted at this wait; the server says nothing more from then on."""

        def freeze_and_do(task: asyncio.Task) -> None:
            self.server.freeze()
            deed(task)

        self.server.script.extend(self.story.first)
        self.server.is_stepped = True
        call = self.begin(root, records)
        return Stepped(call, at, freeze_and_do, on_wait=self.server.go_on, **how)

    async def works(self) -> None:
        """The next call: it is answered, with one record of a known cost."""
        root, records = ChatNode.root("s"), []
        self.server.script.clear()
        self.server.is_stepped = False
        self.server.thaw()
        assert (await self.begin(root, records)).text == TEXT
        assert [(one.resolution, one.cost) for one in records] == [(CostResolution.RESOLVED, USD)]

    async def interrupted(self, at: int, deed: Deed, around=Stepped.run, **how) -> tuple:
        """Interrupts one call; gives it, and how it ended."""
        server, root, records = self.server, ChatNode.root("s"), []
        seen, begun = len(server.requests), server.started
        call = self.stepped(root, records, at, deed, **how)
        task = asyncio.create_task(around(call))
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert len(records) == 1, "the record is there before control leaves, and only once"
        if call.interrupted_at is None:
            return call, ended
        assert root.children() == []
        await self.is_left_tidy(call.interrupted_at)
        own = server.requests[seen:]
        await self.works()
        await self.has_only_what_it_keeps()
        check_record(records, server.started - 1 - begun, own)
        return call, ended

    async def is_left_tidy(self, since: float) -> None:
        """No task is left, and no connection at work."""
        own = {asyncio.current_task()}
        while asyncio.all_tasks() != own or self.server.unanswered():
            left = asyncio.all_tasks() - own, self.server.unanswered()
            assert time.monotonic() < since + HANG_UP_SECS, left
            await asyncio.sleep(0.0005)
        self.note_hang_ups(since)

    def note_hang_ups(self, since: float) -> None:
        ends = [one.ended_at for one in self.server.connections if one.ended_at is not None]
        self.hang_ups += [end - since for end in ends if end > since]

    async def has_only_what_it_keeps(self) -> None:
        """Wait until no connection but that of the last call is open."""
        kept = {self.server.requests[-1].connection} if self.story.keeps else set()
        async with asyncio.timeout(HANG_UP_SECS):
            while not kept.issuperset(self.server.open_connections()):
                await asyncio.sleep(0.0005)

    async def at_every_wait(self, deed: Deed, error: type[BaseException], **how) -> int:
        """Interrupts call after call, one wait later each time, until one ends by itself."""
        await self.works()
        for at in itertools.count(1):
            call, ended = await self.interrupted(at, deed, **how)
            if call.interrupted_at is None:
                assert ended.text == TEXT
                return call.waits
            assert type(ended) is error
        raise AssertionError


def check_record(records: list[CostInfo], begun: int, requests: list[Exchange]) -> None:
    """The one record, beside what a server knows that saw so many requests begin."""
    (record,) = records
    assert len([attempt for attempt in record.attempts if attempt.was_sent]) == begun
    for attempt in record.attempts:
        check_cost(attempt)
    last = record.attempts[-1]
    left = requests[-1].remaining_pieces if last.was_sent and requests else 0
    if last.status is None or left > 1:  # of a stream the last piece only ends the body
        assert last.outcome in (AttemptOutcome.ABANDONED, AttemptOutcome.NOT_SENT)


def check_cost(attempt: Attempt) -> None:
    """A cost is exact, unknown or none, and never a guess."""
    match attempt.outcome:
        case AttemptOutcome.NOT_SENT | AttemptOutcome.DENIED:
            assert attempt.cost is None
        case AttemptOutcome.ANSWERED:
            assert attempt.cost.resolution is CostResolution.RESOLVED
            assert attempt.cost.cost == USD
        case _:  # exact if the last counts had come, which are not Anthropic's first ones
            resolution, cost = attempt.cost.resolution, attempt.cost.cost
            assert resolution is CostResolution.UNKNOWN or cost == USD


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@contextlib.contextmanager
def case_of(wire: str, mode: str, story: str, request):
    """A case, at whose end every connection and every file must be closed."""
    with ThreadedServer(()) as server:
        case = Case(server, wire, mode, STORIES[story])
        before = open_files()
        yield case
        wait_until(lambda: not server.open_connections() and open_files() <= before)
        request.node.user_properties.append(
            ("slowest_hang_up_ms", round(1000 * max(case.hang_ups), 2))
        )


HOW = {
    "while it waits": {},
    "when what it waits for has come": {"when": "ready"},
    "twice": {"again": True},
}


def cancel(task: asyncio.Task) -> None:
    task.cancel()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
def test_a_call_can_be_cancelled_at_every_wait(wire, mode, story, how, request):
    with case_of(wire, mode, story, request) as case:
        waits = asyncio.run(case.at_every_wait(cancel, asyncio.CancelledError, **HOW[how]))
    request.node.user_properties.append(("waits", waits))
    assert waits > 5


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_a_call_can_be_cancelled_while_its_host_is_looked_up(mode, how, request):
    with case_of("openai", mode, "on a new connection", request) as case:
        case.generator = case.generator.with_base_url(
            case.server.url.replace("127.0.0.1", "localhost")
        )
        asyncio.run(case.works())
        for at in itertools.count(1):  # every loop looks up anew
            call, _ = asyncio.run(case.interrupted(at, cancel, **HOW[how]))
            if call.interrupted_at is None:
                break
    request.node.user_properties.append(("waits", call.waits))
    assert call.waits > 8


@pytest.mark.parametrize("how", ["when what it waits for has come", "twice"])
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_a_call_through_httpx_can_be_cancelled_at_every_wait(mode, story, how, request):
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async def main() -> int:
        async with httpx2.AsyncClient() as client:
            case.generator = case.generator.with_transport(HttpxTransport(client))
            return await case.at_every_wait(cancel, asyncio.CancelledError, **HOW[how])

    with case_of("openai", mode, story, request) as case:
        waits = asyncio.run(main())
    request.node.user_properties.append(("waits", waits))
    assert waits > 5


@pytest.mark.parametrize("mode", MODES)
def test_a_call_cancelled_before_its_first_step_does_nothing(mode):
    async def main() -> None:
        task = asyncio.create_task(MODES[mode](root, generator_at(server, "openai"), settings))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    root, records = ChatNode.root("s"), []
    settings = NodeCompletionParameters(cost_callback=records.append)
    with ThreadedServer(()) as server:
        asyncio.run(main())
    assert (records, root.children(), server.connections) == ([], [], [])


class Expiry:
    """A time-out from outside that runs out when it is told to."""

    def now(self, _task: asyncio.Task) -> None:
        self._clock.reschedule(asyncio.get_running_loop().time())

    async def around(self, call: Stepped) -> object:
        async with asyncio.timeout(None) as self._clock:
            return await call


@pytest.mark.parametrize("story", ["on a new connection", "tried again after a refusal"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
def test_a_time_out_from_outside_may_come_at_every_wait(wire, mode, story, request):
    expiry = Expiry()
    with case_of(wire, mode, story, request) as case:
        asyncio.run(case.at_every_wait(expiry.now, TimeoutError, around=expiry.around))


def raising(error: BaseException) -> Deed:
    """Let a callback in the loop raise it, as a signal would."""

    def stop() -> None:
        raise error

    return lambda _task: asyncio.get_running_loop().call_soon(stop)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wire", WIRES)
def test_an_interrupt_of_the_loop_may_come_at_every_wait(wire, mode, kind, request):
    with case_of(wire, mode, "on a kept connection", request) as case:
        for at in itertools.count(1):
            root, records, error = ChatNode.root("s"), [], kind()
            seen, begun = len(case.server.requests), case.server.started
            call = case.stepped(root, records, at, raising(error))
            try:
                assert asyncio.run(call.run()).text == TEXT
                break
            except kind as caught:
                assert caught is error
            assert len(records) == 1
            assert root.children() == []
            wait_until(lambda: not case.server.open_connections())
            case.note_hang_ups(call.interrupted_at)
            own = case.server.requests[seen:]
            asyncio.run(case.works())
            check_record(records, case.server.started - 1 - begun, own)
    assert at > 8


class Told:
    """A `cost_callback` that is a coroutine function and takes its time."""

    def __init__(self) -> None:
        self.records: list[CostInfo] = []
        self.is_done = False

    async def __call__(self, info: CostInfo) -> None:
        self.records.append(info)
        await asyncio.sleep(0)
        self.is_done = True


async def cancelled_at(at: int, mode: str, server: ThreadedServer) -> tuple[ChatNode, Told, bool]:
    """One call, cancelled at this wait; whether it was there."""
    root, told = ChatNode.root("s"), Told()
    settings = NodeCompletionParameters(cost_callback=told)
    begun = MODES[mode](root, generator_at(server, "openai"), settings)
    call = Stepped(begun, at, cancel, on_wait=server.go_on)
    (ended,) = await asyncio.gather(asyncio.create_task(call.run()), return_exceptions=True)
    async with asyncio.timeout(HANG_UP_SECS):
        while not told.is_done or asyncio.all_tasks() != {asyncio.current_task()}:
            await asyncio.sleep(0)
    is_cancelled = call.interrupted_at is not None
    assert (type(ended) is asyncio.CancelledError) is is_cancelled
    return root, told, is_cancelled


async def all_cancelled(mode: str, server: ThreadedServer) -> list[tuple[ChatNode, Told, bool]]:
    """Calls with a callback that must be waited for, each cancelled one wait later."""
    server.usual = whole("openai") if mode == "whole" else streamed("openai")
    server.is_stepped = True
    calls = [await cancelled_at(1, mode, server)]
    while calls[-1][2]:
        calls.append(await cancelled_at(len(calls) + 1, mode, server))
    return calls[:-1]


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_to_be_waited_for_is_called_once_wherever_the_call_is_cancelled(mode):
    with ThreadedServer(()) as server:
        calls = asyncio.run(all_cancelled(mode, server))
    assert len(calls) > 8
    assert [len(told.records) for _, told, _ in calls] == [1] * len(calls)


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_call_does_not_wait_for_its_callback(mode):
    async def tell(info: CostInfo) -> None:
        records.append(info)
        await may_end.wait()

    async def main() -> None:
        settings = NodeCompletionParameters(cost_callback=tell)
        call = MODES[mode](ChatNode.root("s"), generator_at(server, "openai"), settings)
        task = asyncio.create_task(call)
        await asyncio.to_thread(wait_until, lambda: bool(server.requests), 5)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=HANG_UP_SECS)
        may_end.set()
        assert done == {task}
        assert task.cancelled()

    records, may_end = [], asyncio.Event()
    with ThreadedServer(()) as server:
        asyncio.run(main())
    assert len(records) == 1


@pytest.mark.parametrize(
    "mode",
    [
        "whole",
        "stream",
        "bare stream",
    ],
)
def test_a_call_cancelled_while_it_waits_for_its_callback_adds_nothing(mode):
    with ThreadedServer(()) as server:
        calls = asyncio.run(all_cancelled(mode, server))
    assert [root.children() for root, _, _ in calls] == [[]] * len(calls)


@pytest.mark.parametrize("mode", MODES)
def test_a_callback_may_interrupt_the_program_and_is_not_called_again(mode):
    def interrupt(info: CostInfo) -> None:
        records.append(info)
        raise KeyboardInterrupt

    records = []
    settings = NodeCompletionParameters(cost_callback=interrupt)
    with ThreadedServer(whole("openai") if mode == "whole" else streamed("openai")) as server:
        generator = generator_at(server, "openai")
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(MODES[mode](ChatNode.root("s"), generator, settings))
        assert [record.cost for record in records] == [USD]
        wait_until(lambda: not server.open_connections())
        assert asyncio.run(MODES[mode](ChatNode.root("s"), generator, None)).text == TEXT


@pytest.mark.parametrize("mode", ["whole", "stream"])
def test_ctrl_c_in_a_blocking_call_hangs_up_and_leaves_a_record(mode):
    def press() -> None:
        wait_until(lambda: bool(server.requests), 5)
        os.kill(os.getpid(), signal.SIGINT)
        pressed.append(time.monotonic())

    records, pressed, root = [], [], ChatNode.root("s")
    settings = NodeCompletionParameters(cost_callback=records.append)
    with ThreadedServer(()) as server:
        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):
            run(MODES[mode](root, generator_at(server, "openai"), settings))
        assert [attempt.outcome for attempt in records[0].attempts] == [AttemptOutcome.ABANDONED]
        assert len(records) == 1
        wait_until(lambda: not server.open_connections())
        assert server.connections[0].ended_at - pressed[0] < HANG_UP_SECS
        assert root.children() == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("mode", MODES)
def test_a_call_cancelled_while_its_request_is_being_sent_closes_its_connection(mode):
    async def main() -> None:
        root = ChatNode.root("x" * 8_000_000)
        before = open_files()
        task = asyncio.create_task(MODES[mode](root, generator_at(server, "openai"), None))
        await asyncio.to_thread(wait_until, lambda: bool(server.connections))
        await asyncio.sleep(0.05)  # what the sockets' buffers take is written by now
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.05)
        is_open = open_files() > before + 1  # the server's own end
        server.start_reading()
        await asyncio.to_thread(wait_until, lambda: not server.open_connections(), 5)
        assert (is_open, server.requests) == (False, [])

    with ThreadedServer(whole("openai"), reads=False) as server:
        asyncio.run(main())


def test_a_long_prompt_is_sent_without_a_warning():
    with ThreadedServer(whole("openai")) as server:
        root = ChatNode.root("x" * 1_100_000)
        assert asyncio.run(as_whole(root, generator_at(server, "openai"), None)).text == TEXT
