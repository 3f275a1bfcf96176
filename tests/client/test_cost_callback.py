"""The record of what may be billed: complete, told once, and lost on no way out of a call."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from scripted_server import (
    ANSWER,
    COUNTS,
    DONE,
    FINISH,
    USAGE,
    Server,
    Step,
    Wire,
    events,
    hang,
    hang_before_departure,
    outcomes,
    slow,
    stalled,
    status,
    tried,
    whole,
)
from virtual_clock import now, run_virtually

from minillmlib import (
    AttemptOutcome,
    AuthenticationError,
    ChatNode,
    CompletionResponse,
    ConnectError,
    CostResolution,
    EmptyResponseError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    ReadError,
    StaleConnectionError,
)
from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.client.retry import RetryQuota

BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
LATER = 30.0  # long after everything that still goes on has come to its end
CALLBACK_SECS = 10.0


@pytest.fixture(autouse=True)
def full_bucket(monkeypatch):
    """Fill the bucket of retries, of which the process has one, for each run."""

    def fill():
        monkeypatch.setattr("minillmlib.client.completion.retry_quota", RetryQuota())

    fill()
    return fill


@pytest.fixture
def errors(caplog) -> Callable[[], list[logging.LogRecord]]:
    """Return what was logged as an error."""
    caplog.set_level(logging.ERROR)
    return lambda: caplog.records


# The ways out of a completion. Each gives what the caller got and the attempts he can see.


async def to_its_end(server: Server, settings, *, streamed: bool):
    result = await tried(server, settings, streamed=streamed)
    return result, result.attempts


async def by_aclose(server: Server, settings, *, streamed: bool):
    stream = ChatNode.root("s").chat_streaming("u", server.generator(), settings)
    await anext(stream)
    await stream.aclose()
    return None, stream.attempts


async def by_async_with(server: Server, settings, *, streamed: bool):
    async with ChatNode.root("s").chat_streaming("u", server.generator(), settings) as stream:
        async for _ in stream:
            break
    return None, stream.attempts


async def by_break_alone(server: Server, settings, *, streamed: bool):
    stream = ChatNode.root("s").chat_streaming("u", server.generator(), settings)
    async for _ in stream:
        break
    handles = [stream]
    del stream
    with pytest.warns(ResourceWarning, match="dropped"):
        handles.clear()
    gc.collect()
    return None, None


async def by_aclose_of_another_task(server: Server, settings, *, streamed: bool):
    stream = ChatNode.root("s").chat_streaming("u", server.generator(), settings)

    async def read():
        return [chunk async for chunk in stream]

    reader = asyncio.create_task(read())
    await asyncio.sleep(1)
    await stream.aclose()
    server.readers.append(reader)
    return None, stream.attempts


async def by_cancelling(server: Server, settings, *, streamed: bool):
    task = asyncio.create_task(tried(server, settings, streamed=streamed))
    await asyncio.sleep(1)
    task.cancel()
    asked_at = now()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (now(), task.cancelled()) == (asked_at, True)
    return None, None


async def by_cancelling_twice(server: Server, settings, *, streamed: bool):
    task = asyncio.create_task(tried(server, settings, streamed=streamed))
    await asyncio.sleep(1)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return None, None


async def by_a_time_out_around_it(server: Server, settings, *, streamed: bool):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await tried(server, settings, streamed=streamed)
    return None, None


class Way(NamedTuple):
    """A way out, what the server does meanwhile, what the caller gets, and the record."""

    how: Callable[..., Awaitable]
    steps: Sequence[Step]
    outcomes: str
    end: type | None = None
    settings: Mapping[str, Any] = {}
    modes: str = "whole streamed"

    @property
    def is_waited_for(self) -> bool:
        """Whether the caller is there to wait for the callback."""
        return self.how in (to_its_end, by_aclose, by_async_with, by_aclose_of_another_task)


EMPTY = {"crash_on_empty_response": True}
PIECE = stalled(events("o"))
LONG = status(503, {"retry-after": "9"})
WAYS = {
    "answered": Way(to_its_end, [ANSWER], "answered", CompletionResponse),
    "answered in the end": Way(to_its_end, [status(500), ConnectError, ANSWER],
        "failed not_sent answered", CompletionResponse),
    "rejected": Way(to_its_end, [whole("")] * 3, "rejected rejected rejected",
        MaxRetriesExceededError, EMPTY),
    "rejected once": Way(to_its_end, [whole("")], "rejected", EmptyResponseError,
        {**EMPTY, "retry": 0}),
    "exhausted": Way(to_its_end, [status(503)] * 3, "denied denied denied",
        MaxRetriesExceededError),
    "failed": Way(to_its_end, [status(401)], "denied", AuthenticationError),
    "failed to connect": Way(to_its_end, [ConnectError], "not_sent", ConnectError, {"retry": 0}),
    "stale": Way(to_its_end, [StaleConnectionError, ANSWER], "failed answered",
        CompletionResponse),
    "cancelled in a request": Way(by_cancelling, [hang], "abandoned"),
    "cancelled twice": Way(by_cancelling_twice, [hang], "abandoned"),
    "cancelled before departure": Way(by_cancelling, [hang_before_departure], "not_sent"),
    "cancelled in the second request": Way(by_cancelling, [status(503), hang], "denied abandoned", None,
        {"back_off_time": 0.1}),
    "cancelled in a wait": Way(by_cancelling, [LONG], "denied"),
    "cancelled in the second wait": Way(by_cancelling, [status(500), LONG], "failed denied", None,
        {"back_off_time": 0.1}),
    "timed out around it": Way(by_a_time_out_around_it, [hang], "abandoned"),
    "cancelled in a body": Way(by_cancelling, [stalled(whole("ok"))], "abandoned"),
    "cancelled in a stream": Way(by_cancelling, [PIECE], "abandoned", modes="streamed"),
    "stream failed": Way(to_its_end, [events("o", breaks_off=True)], "failed", ReadError,
        modes="streamed"),
    "stream left by aclose": Way(by_aclose, [PIECE], "abandoned", modes="streamed"),
    "stream left by async with": Way(by_async_with, [PIECE], "abandoned", modes="streamed"),
    "stream left after a retry": Way(by_async_with, [status(503), PIECE], "denied abandoned", None,
        {}, "streamed"),
    "stream left by break": Way(by_break_alone, [PIECE], "abandoned", modes="streamed"),
    "stream closed while it opens": Way(by_aclose_of_another_task, [slow(5, ANSWER)], "abandoned",
        modes="streamed"),
    "stream closed in a wait": Way(by_aclose_of_another_task, [LONG], "denied", modes="streamed"),
}  # fmt: skip


def ways():
    """All ways out, whole and streamed where both make sense."""
    cases = [
        pytest.param(way, mode == "streamed", id=f"{name} ({mode})")
        for name, way in WAYS.items()
        for mode in way.modes.split()
    ]
    return pytest.mark.parametrize(("way", "streamed"), cases)


# The callbacks. Each keeps what it was told before it does what it does.


def plain(told):
    return told.append


def coroutine(told):
    async def callback(info):
        await asyncio.sleep(0.5)
        told.append(info)

    return callback


def raising(told):
    def callback(info):
        told.append(info)
        raise ReadError("the callback's own, which nothing may take for the call's")

    return callback


def raising_later(told):
    async def callback(info):
        told.append(info)
        await asyncio.sleep(0.5)
        raise ReadError("the callback's own")

    return callback


def hanging(told):
    async def callback(info):
        told.append(info)
        await asyncio.Event().wait()

    return callback


def walk(way: Way, streamed, make_callback):
    """The report, the outcome and the attempts for the caller, and the time that it took."""
    random.seed(20)
    told, server = [], Server(way.steps)
    settings = {"retry": 2, "cost_callback": make_callback(told), **way.settings}

    async def main():
        result, attempts = await way.how(
            server, NodeCompletionParameters(**settings), streamed=streamed
        )
        ended, known = now(), list(told)
        await asyncio.sleep(LATER)
        assert [reader.result() for reader in server.readers] in ([], [[]])
        return result, attempts, ended, known

    return told, *run_virtually(main())


def check_told(way: Way, told, result, attempts):
    (info,) = told
    assert outcomes(info.attempts) == way.outcomes
    assert attempts in (None, info.attempts)
    assert [attempt.number for attempt in info.attempts] == list(range(1, len(info.attempts) + 1))
    assert type(result) is (way.end or type(None))
    may_be_billed = any(word in way.outcomes.split() for word in ("failed", "abandoned"))
    expected = CostResolution.UNKNOWN if may_be_billed else CostResolution.RESOLVED
    assert info.resolution is expected
    for attempt in info.attempts:
        free = attempt.outcome in (AttemptOutcome.NOT_SENT, AttemptOutcome.DENIED)
        assert (attempt.cost is None) == free


@pytest.mark.parametrize("make_callback", [plain, coroutine])
@ways()
def test_a_callback_is_called_once_with_all_attempts(way, streamed, make_callback, errors):
    told, result, attempts, _, _ = walk(way, streamed, make_callback)
    check_told(way, told, result, attempts)
    assert errors() == []


@ways()
def test_a_plain_callback_was_called_when_the_caller_goes_on(way, streamed):
    told, _, _, _, known = walk(way, streamed, plain)
    assert known == told or way.how is by_break_alone  # whose destructor asks the loop to do it


@ways()
def test_a_coroutine_has_ended_when_the_caller_goes_on(way, streamed):
    told, _, _, _, known = walk(way, streamed, coroutine)
    assert known == (told if way.is_waited_for else [])


@pytest.mark.parametrize("make_callback", [raising, raising_later])
@ways()
def test_a_callback_that_raises_loses_nothing_and_is_logged(way, streamed, make_callback, errors):
    told, result, attempts, _, _ = walk(way, streamed, make_callback)
    check_told(way, told, result, attempts)
    (record,) = errors()
    assert (record.name, record.levelname) == ("minillmlib", "ERROR")
    assert "cost_callback failed" in record.getMessage()
    assert record.exc_info[0] is ReadError


@ways()
def test_a_callback_that_hangs_is_given_up_after_ten_seconds_and_logged(way, streamed, errors):
    told, result, attempts, ended, _ = walk(way, streamed, hanging)
    check_told(way, told, result, attempts)
    waits = CALLBACK_SECS if way.is_waited_for else 0.0
    _, _, _, without, _ = walk(way, streamed, plain)
    assert ended - without == pytest.approx(waits)
    assert [record.getMessage() for record in errors()] == [
        "a cost_callback did not end within 10 s"
    ]


# More of what a callback is told, and when.


@BOTH
def test_the_costs_of_all_attempts_are_added_up(streamed):
    failure = json.dumps({"error": {"message": "x"}, "usage": USAGE}).encode()
    told, server = [], Server([status(500, body=failure), whole(""), status(503), ANSWER])
    settings = NodeCompletionParameters(retry=3, cost_callback=told.append, **EMPTY)
    response = run_virtually(tried(server, settings, streamed=streamed))
    (info,) = told
    assert (info.cost, info.resolution) == (Decimal("0.000015"), CostResolution.RESOLVED)
    assert (info.prompt_tokens, info.completion_tokens) == (9, 3)
    assert outcomes(response.attempts) == "failed rejected denied answered"
    assert response.cost.cost == Decimal("0.000005")


@BOTH
def test_a_completion_for_which_nothing_could_be_sent_is_told_as_free(streamed):
    told, server = [], Server([])
    generator = (
        server.generator()
        .with_api_key_from_env("NO_SUCH_KEY")
        .replace(credential=EnvironmentKey(("NO_SUCH_KEY",)))
    )
    settings = NodeCompletionParameters(retry=3, cost_callback=told.append)
    error = run_virtually(tried(server, settings, streamed=streamed, generator=generator))
    (info,) = told
    assert (type(error), error.was_sent) == (AuthenticationError, False)
    assert (info.attempts, info.cost, info.resolution) == ((), 0, CostResolution.RESOLVED)


def test_final_counts_of_a_stream_that_is_left_after_them_are_its_cost():
    told, server = [], Server([events("ok", FINISH, COUNTS, DONE)])

    async def main():
        settings = NodeCompletionParameters(cost_callback=told.append)
        async with ChatNode.root("s").chat_streaming("u", server.generator(), settings) as stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    break

    run_virtually(main())
    assert outcomes(told[0].attempts) == "abandoned"
    assert told[0].resolution is CostResolution.RESOLVED


@BOTH
def test_a_coroutine_is_not_forgotten_when_the_caller_is_cancelled_while_it_waits(streamed):
    told, futures, server = [], weakref.WeakSet(), Server([ANSWER])

    async def callback(info):
        future = asyncio.get_running_loop().create_future()
        futures.add(future)
        await future  # which only this coroutine holds
        told.append(info)

    async def main():
        settings = NodeCompletionParameters(cost_callback=callback)
        task = asyncio.create_task(tried(server, settings, streamed=streamed))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        await asyncio.sleep(0)  # the loop itself holds it in the turn in which it ends
        gc.collect()
        for future in futures:
            future.set_result(None)
        await asyncio.sleep(1)

    run_virtually(main())
    assert [outcomes(info.attempts) for info in told] == ["answered"]


def dropped_in_the_middle(told, drop):
    """Return the outcome of dropping the only handle of a stream that has begun."""

    async def main():
        settings = NodeCompletionParameters(cost_callback=lambda info: told.append((info, place())))
        generator = Server([PIECE]).generator()
        handles = [ChatNode.root("s").chat_streaming("u", generator, settings)]
        await anext(handles[0])
        await drop(handles)
        return handles, place()

    return run_virtually(main())


def place() -> int:
    return threading.get_ident()


def test_a_stream_dropped_in_another_thread_is_told_in_its_own():
    async def drop(handles):
        await asyncio.to_thread(handles.clear)
        await asyncio.sleep(0)

    told = []
    with pytest.warns(ResourceWarning, match="dropped"):
        _, home = dropped_in_the_middle(told, drop)
    ((info, where),) = told
    assert (outcomes(info.attempts), where) == ("abandoned", home)


def test_a_stream_dropped_after_its_loop_is_told_at_once():
    async def keep(_handles):
        pass

    told = []
    handles, _ = dropped_in_the_middle(told, keep)
    assert told == []
    with pytest.warns(ResourceWarning, match="dropped"):
        handles.clear()
    ((info, _),) = told
    assert outcomes(info.attempts) == "abandoned"


def test_a_stream_dropped_between_two_attempts_is_told():
    told, server = [], Server([status(503)])

    async def main():
        settings = NodeCompletionParameters(retry=1, cost_callback=told.append)
        stream = ChatNode.root("s").chat_streaming("u", server.generator(), settings)
        await stream.__aenter__()
        del stream
        gc.collect()
        await asyncio.sleep(LATER)

    with pytest.warns(ResourceWarning, match="dropped"):
        run_virtually(main())
    assert [outcomes(info.attempts) for info in told] == ["denied"]


# Cancelled at any turn of the loop.


def after_turns(turns: int, server: Wire, settings, *, streamed: bool):
    """Cancels after so many turns; whether there was still something to cancel."""

    async def main():
        task = asyncio.create_task(tried(server, settings, streamed=streamed))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            return False
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return True

    return run_virtually(main())


@BOTH
def test_a_call_cancelled_at_any_turn_tells_every_request_that_left(streamed, full_bucket):
    steps = [status(503), StaleConnectionError, ConnectError, whole(""), ANSWER]
    seen = set()
    for turns in range(1, 200):
        full_bucket()
        told, server = [], Wire(steps)
        settings = NodeCompletionParameters(
            retry=9, back_off_time=0, cost_callback=told.append, **EMPTY
        )
        was_cancelled = after_turns(turns, server, settings, streamed=streamed)
        (info,) = told
        sent = [attempt for attempt in info.attempts if attempt.was_sent]
        refused_to_connect = sum(attempt.error == "ConnectError" for attempt in info.attempts)
        assert len(sent) + refused_to_connect == server.left
        assert len(info.attempts) - server.left in (0, 1)  # C3: one may not have left
        assert all(attempt.cost is None for attempt in info.attempts if not attempt.was_sent)
        seen.add(outcomes(info.attempts))
        if not was_cancelled:
            break
    before = "denied failed not_sent rejected"
    assert {f"{before} answered", f"{before} abandoned", f"{before} not_sent", before} <= seen
    assert {
        "not_sent",
        "abandoned",
        "denied",
        "denied abandoned",
        "denied failed abandoned",
    } <= seen
    assert not was_cancelled
