"""Contexts: every completion is reported once, whatever becomes of it and of its callback."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from openrouter_server import COST, Router
from scripted_server import (
    ANSWER,
    COUNTS,
    DONE,
    FINISH,
    Server,
    Step,
    Wire,
    events,
    hang,
    outcomes,
    says,
    status,
    whole,
)
from virtual_clock import now, run_virtually

from minillmlib import (
    AuthenticationError,
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionContext,
    CompletionParameters,
    CostCallbackError,
    CostInfo,
    CostResolution,
    InvalidParameterError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    NoJsonFoundError,
    ReadError,
    RequestTimeoutError,
)

ROOT = ChatNode.root("s")
NODE = ROOT.add_user("u")
CALLBACK_SECS = 10.0
MINE = LookupError("mine")


@pytest.fixture(autouse=True)
def _full_bucket(quota):
    """Retries enough for each test."""


@pytest.fixture
def errors(caplog) -> Callable[[], list[str]]:
    """Return what was logged as an error."""
    return lambda: [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"]


@pytest.fixture(autouse=True)
def _no_task_is_lost(caplog):
    yield
    gc.collect(1)
    assert [entry for entry in caplog.records if entry.name == "asyncio"] == []


# The doors.


async def by_complete(context, params):
    await NODE.complete_tracked(context, params)


async def by_chat(context, params):
    await ChatNode.root("s").chat_tracked("u", context, params)


async def by_a_chat_in_pieces(context, params):
    await ChatNode.root("s").chat_streaming_tracked("u", context, params).collect()


async def by_a_loop(context, params):
    async with NODE.complete_streaming_tracked(context, params) as stream:
        async for _ in stream:
            pass


async def by_collect(context, params):
    await NODE.complete_streaming_tracked(context, params).collect()


DOORS = pytest.mark.parametrize(
    "door",
    [by_complete, by_chat, by_a_chat_in_pieces, by_a_loop, by_collect],
    ids=lambda door: door.__name__,
)

# The ways out.


async def to_its_end(door, context, params):
    await door(context, params)


async def cancelled(door, context, params):
    task = asyncio.create_task(door(context, params))
    asyncio.get_running_loop().call_later(1, task.cancel)
    await task


async def timed_out(door, context, params):
    async with asyncio.timeout(1):
        await door(context, params)


class Way(NamedTuple):
    """The steps of the server, the end of the completion, and the report."""

    steps: Sequence[Step]
    outcomes: str
    error: type[BaseException] | None = None
    how: Callable = to_its_end
    settings: Mapping[str, Any] = {}


PROSE = {"crash_on_refusal": True}
NO_MONEY = {"budget": Budget(0), "params": CompletionParameters(max_tokens=1)}
WAYS = {
    "answered": Way([ANSWER], "answered"),
    "answered at last": Way([status(500), status(503), ANSWER], "failed denied answered"),
    "refused": Way([status(401)], "denied", AuthenticationError),
    "rejected": Way([says("prose")], "rejected", NoJsonFoundError, settings={**PROSE, "retry": 0}),
    "rejected at first": Way([whole(""), ANSWER], "rejected answered",
        settings={"crash_on_empty_response": True}),
    "exhausted": Way([status(500)] * 3, "failed failed failed", MaxRetriesExceededError),
    "too slow": Way([hang], "failed", RequestTimeoutError,
        settings={"timeout_secs": 1, "retry": 0}),
    "broken off": Way([events("o", breaks_off=True)], "failed", ReadError,
        settings={"retry": 0}),
    "cancelled": Way([hang], "abandoned", asyncio.CancelledError, cancelled),
    "cancelled in a retry": Way([status(500), hang], "failed abandoned", asyncio.CancelledError,
        cancelled),
    "timed out around it": Way([hang], "abandoned", TimeoutError, timed_out),
    "no money": Way([], "", BudgetExceededError, settings=NO_MONEY),
}  # fmt: skip
EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

# The callbacks. Each notes what it was told before it does what it does.


def plain(told):
    return lambda *args: told.append(args)


def coroutine(told):
    async def callback(*args):
        await asyncio.sleep(0.5)
        told.append(args)

    return callback


def raising(told):
    def callback(*args):
        told.append(args)
        raise MINE

    return callback


def raising_later(told):
    async def callback(*args):
        told.append(args)
        await asyncio.sleep(0.5)
        raise MINE

    return callback


def hanging(told):
    async def callback(*args):
        told.append(args)
        await asyncio.Event().wait()

    return callback


def hanging_on(told):
    """Do not even heed that it is cancelled."""

    async def callback(*args):
        told.append(args)
        for secs in (99, 1):
            try:
                await asyncio.sleep(secs)
            except asyncio.CancelledError:
                continue

    return callback


async def walk(way: Way, door, context) -> None:
    """The completion, with the context closed after it; raises what `aclose` does."""
    settings = {"retry": 2, "back_off_time": 0.1, **way.settings}
    try:
        await way.how(door, context, NodeCompletionParameters(**settings))
    except BaseException as error:  # noqa: BLE001 - also a cancellation
        assert type(error) is way.error
    else:
        assert way.error is None
    await context.aclose()


def check_told(way: Way, told, meta) -> None:
    ((info, told_meta),) = told
    assert isinstance(info, CostInfo)
    assert told_meta is meta
    assert outcomes(info.attempts) == way.outcomes
    assert [attempt.number for attempt in info.attempts] == list(range(1, len(info.attempts) + 1))
    may_be_billed = any(word in way.outcomes.split() for word in ("failed", "abandoned"))
    expected = CostResolution.UNKNOWN if may_be_billed else CostResolution.RESOLVED
    assert info.resolution is expected


@pytest.mark.parametrize("make", [plain, coroutine])
@DOORS
@EVERY_WAY
def test_a_context_is_told_once_of_all_attempts(way, door, make, errors):
    async def main() -> None:
        await walk(way, door, CompletionContext(Server(way.steps).generator(), meta, make(told)))
        assert len(told) == 1  # for which `aclose` has waited
        assert asyncio.all_tasks() == {asyncio.current_task()}

    told, meta = [], {"for": "a test"}
    run_virtually(main())
    check_told(way, told, meta)
    assert errors() == []


@pytest.mark.parametrize("make", [raising, raising_later])
@DOORS
@EVERY_WAY
def test_what_a_callback_raises_is_logged_and_raised_when_the_context_is_closed(
    way, door, make, errors
):
    async def main() -> None:
        context = CompletionContext(Server(way.steps).generator(), meta, make(told))
        with pytest.raises(CostCallbackError, match="LookupError") as raised:
            await walk(way, door, context)
        assert raised.value.__cause__ is MINE
        await context.aclose()  # told once
        assert asyncio.all_tasks() == {asyncio.current_task()}

    told, meta = [], None
    run_virtually(main())
    check_told(way, told, meta)
    assert errors() == ["a cost_callback failed"]


@DOORS
@EVERY_WAY
def test_a_callback_that_hangs_is_given_up_logged_and_told_when_the_context_is_closed(
    way, door, errors
):
    async def main() -> None:
        context = CompletionContext(Server(way.steps).generator(), meta, hanging(told))
        with pytest.raises(CostCallbackError, match="CancelledError"):
            await walk(way, door, context)
        assert CALLBACK_SECS <= now() < CALLBACK_SECS + 2
        await asyncio.sleep(99)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    told, meta = [], 7
    run_virtually(main())
    check_told(way, told, meta)
    assert errors() == ["a cost_callback did not end within 10 s"]


@DOORS
@EVERY_WAY
def test_a_callback_that_does_not_heed_its_end_holds_nobody_up(way, door, errors):
    async def main() -> None:
        await walk(way, door, CompletionContext(Server(way.steps).generator(), 7, hanging_on(told)))
        assert CALLBACK_SECS <= now() < CALLBACK_SECS + 2
        await asyncio.sleep(99)

    told = []
    run_virtually(main())
    check_told(way, told, 7)
    assert errors() == ["a cost_callback did not end within 10 s"]


# A callback of the call's own beside the context's.


@pytest.mark.parametrize("own", [plain, coroutine, raising, raising_later, hanging])
@pytest.mark.parametrize("make", [plain, coroutine, raising, raising_later, hanging])
def test_a_callback_of_the_calls_own_is_told_as_well(make, own):
    async def main() -> None:
        context = CompletionContext(Server([ANSWER]).generator(), "meta", make(told))
        params = NodeCompletionParameters().with_cost_callback(own(own_told))
        await NODE.complete_tracked(context, params)
        is_good = {make, own} <= {plain, coroutine}
        if not is_good:
            with pytest.raises(CostCallbackError):
                await context.aclose()
        await context.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    told, own_told = [], []
    run_virtually(main())
    ((info, meta),), ((own_info,),) = told, own_told
    assert (info, meta) == (own_info, "meta")


@pytest.mark.parametrize("turns", range(12))
def test_no_callback_is_lost_when_the_loop_ends_at_any_turn_after_a_completion(turns):
    async def main() -> None:
        context = CompletionContext(Wire([ANSWER]).generator(), "meta", at_once(told))
        params = NodeCompletionParameters(cost_callback=at_once(own_told))
        task = asyncio.create_task(NODE.complete_tracked(context, params))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()

    def at_once(told):
        async def callback(*args):
            told.append(args)

        return callback

    told, own_told = [], []
    run_virtually(main())
    assert (len(told), len(own_told)) in ((1, 1), (0, 0))
    assert turns < 2 or told


def test_fifty_completions_at_once_are_told_fifty_times():
    async def main() -> None:
        server = Server([ANSWER] * 50)
        async with CompletionContext(server.generator(), None, coroutine(told)) as context:
            await asyncio.gather(*(by_complete(context, None) for _ in range(50)))

    told = []
    run_virtually(main())
    assert [outcomes(info.attempts) for info, _ in told] == ["answered"] * 50


def test_leaving_a_context_waits_for_late_costs_and_a_completion_does_not():
    async def main() -> None:
        router = Router([status(502, {"x-generation-id": "gen-a"})])
        async with CompletionContext(router.generator(), None, coroutine(told)) as context:
            with pytest.raises(Exception, match="502"):
                await NODE.complete_tracked(context)
            assert (now(), told) == (0, [])
        assert now() == 2.0  # two queries, and the callback's own half second

    told = []
    run_virtually(main())
    assert [(info.cost, info.resolution) for info, _ in told] == [(COST, CostResolution.RESOLVED)]


def test_a_context_is_closed_in_time_while_other_completions_go_on_and_on():
    async def go_on(context) -> None:
        while True:
            await NODE.complete_tracked(context)

    async def main() -> None:
        busy = CompletionContext(Server(itertools.repeat(ANSWER)).generator(), None, coroutine([]))
        others = []
        for _ in range(3):
            others.append(asyncio.create_task(go_on(busy)))
            await asyncio.sleep(0.2)
        async with CompletionContext(
            Server([ANSWER]).generator(), None, coroutine(told)
        ) as context:
            await NODE.complete_tracked(context)
        assert now() < 3
        for other in others:
            other.cancel()

    told = []
    run_virtually(main())
    assert len(told) == 1


def test_an_error_in_the_block_of_a_context_goes_on_as_it_is():
    async def main() -> None:
        async with CompletionContext(Server([ANSWER]).generator(), None, raising(told)) as context:
            await NODE.complete_tracked(context)
            raise KeyError

    told = []
    with pytest.raises(KeyError):
        run_virtually(main())
    assert len(told) == 1


def test_a_context_names_the_program_to_openrouter():
    async def main() -> None:
        context = CompletionContext(generator, None, print, "https://app.example", "App")
        await NODE.complete_tracked(context)

    server = Server([ANSWER])
    generator = Router().generator().with_transport(server)
    silent = generator.replace(app_title="old")
    run_virtually(main())
    headers = dict(server.requests[0].headers)
    assert headers["HTTP-Referer"] == "https://app.example"
    assert headers["X-OpenRouter-Title"] == "App"
    kept = CompletionContext(silent, None, print)
    assert (kept.generator.app_title, kept.generator.app_url) == ("old", None)


@pytest.mark.parametrize("args", [("model", None, print), (Router().generator(), None, "print")])
def test_a_context_of_anything_else_is_refused(args):
    with pytest.raises(InvalidParameterError, match="CompletionContext"):
        CompletionContext(*args)


# with_cost_tracking.


def streams(server: Server) -> list[bool]:
    return ["stream_options" in json.loads(request.body) for request in server.requests]


def after_one_stream(params: NodeCompletionParameters) -> tuple[Server, CostResolution]:
    async def main():
        node = ROOT.add_user("u").complete_streaming(server.generator(), params)
        async with node as stream:
            async for _ in stream:
                pass
        return stream.response.cost.resolution

    server = Server([events("o", FINISH, COUNTS, DONE)])
    return server, run_virtually(main())


@pytest.mark.parametrize(
    "params", [NodeCompletionParameters(), NodeCompletionParameters().with_cost_tracking(True)]
)
def test_counts_are_asked_for_and_told_unless_switched_off(params):
    told = []
    server, resolution = after_one_stream(params.with_cost_callback(told.append))
    assert (streams(server), resolution) == ([True], CostResolution.RESOLVED)
    assert [info.resolution for info in told] == [CostResolution.RESOLVED]


def test_without_cost_tracking_no_counts_are_asked_for_and_nothing_is_told():
    told = []
    params = NodeCompletionParameters(cost_callback=told.append).with_cost_tracking(False)
    server, resolution = after_one_stream(params)
    assert streams(server) == [False]
    assert resolution is CostResolution.RESOLVED  # this server sends them unasked, before its end
    assert told == []


def test_a_budget_asks_for_counts_in_any_case():
    budget, told = Budget(1), []
    params = NodeCompletionParameters(
        params=CompletionParameters(max_tokens=9), budget=budget, cost_callback=told.append
    ).with_cost_tracking(False)
    server, resolution = after_one_stream(params)
    assert (streams(server), resolution) == ([True], CostResolution.RESOLVED)
    assert (budget.reserved, told) == (0, [])
    assert 0 < budget.spent < budget.limit / 1000


def test_a_context_tracks_in_any_case():
    async def main() -> None:
        context = CompletionContext(server.generator(), None, plain(told))
        await by_collect(context, params)

    told, own_told = [], []
    params = NodeCompletionParameters(cost_callback=own_told.append).with_cost_tracking(False)
    server = Server([ANSWER])
    run_virtually(main())
    assert streams(server) == [True]
    assert (len(told), own_told) == (1, [])


def test_cost_tracking_is_a_switch():
    with pytest.raises(InvalidParameterError, match="cost_tracking"):
        NodeCompletionParameters().with_cost_tracking("no")
