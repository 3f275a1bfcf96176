"""Streams that always settle: left in any way at any place, with a cost told only later."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import asynccontextmanager, nullcontext

import httpx2
import pytest
from openrouter_server import BYOK_COST, COST, Router, generation_id, long_stream, pending, record
from scripted_server import USAGE, event, events, hang, status, whole
from server import serving
from virtual_clock import now, run_virtually

from minillmlib import (
    AttemptOutcome,
    ChatNode,
    CompletionContext,
    ConnectError,
    CostResolution,
    GeneratorInfo,
    NodeCompletionParameters,
    ReadError,
    TokenPrice,
)
from minillmlib.client import deferred_cost as late
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import ScriptedReply
from minillmlib.transport.aiohttp import AiohttpTransport

pytestmark = pytest.mark.long

POSITIONS = range(1, 201)


@pytest.fixture(autouse=True)
def _nothing_is_said_at_the_end(caplog):
    """No task's error is lost, and no task is destroyed while it is pending."""
    yield
    gc.collect(1)
    assert [entry for entry in caplog.records if entry.name in ("asyncio", "minillmlib")] == []


async def read(stream, count: int) -> None:
    for _ in range(count):
        await anext(stream)


# The ways to leave a stream after so many chunks.


async def by_cancel(stream, count: int) -> None:
    await read(stream, count)
    info = await stream.cancel()
    assert (info.cost, info.resolution) == (COST, CostResolution.RESOLVED)
    assert info.attempts == stream.attempts


async def by_cancelling_its_task(stream, count: int) -> None:
    async def read_on() -> None:
        async with stream:
            await read(stream, count)
            has_read.set()
            await read(stream, 999)

    has_read = asyncio.Event()
    task = asyncio.create_task(read_on())
    await has_read.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_break(stream, count: int) -> None:
    async with stream:
        number = 0
        async for _ in stream:
            number += 1
            if number == count:
                break


async def by_an_error(stream, count: int) -> None:
    with contextlib.suppress(LookupError):
        async with stream:
            await read(stream, count)
            raise LookupError


async def by_a_time_out(stream, count: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with stream:
            await read(stream, count)
            async with asyncio.timeout(0):
                await read(stream, 999)


async def by_drop(stream, count: int) -> None:
    await read(stream, count)


LEAVING = (by_cancel, by_cancelling_its_task, by_break, by_an_error, by_a_time_out, by_drop)


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__)
def test_a_stream_left_at_any_of_200_places_is_reported_once_with_the_late_cost(leave):
    async def main() -> None:
        async with CompletionContext(router.generator(), {}, told) as context:
            for position in POSITIONS:
                await leave(root.complete_streaming_tracked(context), position)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def told(info, _meta) -> None:
        reports.append(info)

    reports, router, root = [], Router(), ChatNode.root("s").add_user("u")
    run_virtually(main())
    ids = [generation_id(number) for number in POSITIONS]
    assert sorted(attempt.response_id for info in reports for attempt in info.attempts) == (
        sorted(ids)
    )
    assert {(info.cost, info.resolution) for info in reports} == {(COST, CostResolution.RESOLVED)}
    assert {info.attempts[0].outcome for info in reports} == {AttemptOutcome.ABANDONED}
    assert Counter(router.asked) == dict.fromkeys(ids, 2)
    assert root.children() == []


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
def test_a_context_that_is_closed_just_after_a_stream_was_dropped_waits_for_its_report():
    ((info, after),) = one(Router(), by_drop)
    assert (info.cost, after) == (COST, 1.5)


def one(router: Router, leave, settings=None, *, count: int = 3):
    """The reports of one stream that is left, with the time of each after the leaving."""

    async def main() -> None:
        async with CompletionContext(router.generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context, settings)
            await leave(stream, count)
            left.append(now())
            del stream
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def told(info, _meta) -> None:
        reports.append((info, now()))

    reports, left = [], []
    run_virtually(main())
    return [(info, at - left[0]) for info, at in reports]


async def by_break_anyhow(stream, count: int) -> None:
    async with stream:
        await read(stream, count)


def test_the_counts_of_the_record_are_the_natives_ones():
    ((info, _),) = one(Router(), by_break)
    (attempt,) = info.attempts
    usage = attempt.cost.usage
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (2500, 8000)
    assert (usage.completion_tokens, usage.reasoning_tokens) == (320, 120)
    assert (info.prompt_tokens, info.completion_tokens) == (10500, 320)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"is_byok": True, "total_cost": 0.0004, "upstream_inference_cost": 0.0096}, BYOK_COST),
        ({"is_byok": False, "upstream_inference_cost": 0.0096}, COST),
    ],
    ids=["own key", "no own key"],
)
def test_the_vendors_bill_counts_only_with_a_key_of_ones_own(fields, cost):
    ((info, _),) = one(Router(fields=fields), by_break)
    assert info.cost == cost


def test_the_id_of_the_header_serves_where_nothing_else_told_it():
    router = Router([long_stream(1, with_id=False)])
    ((info, _),) = one(router, by_break)
    assert (info.resolution, router.asked) == (CostResolution.RESOLVED, [generation_id(1)] * 2)


def test_a_stream_left_before_its_first_piece_is_asked_for_by_the_id_of_its_header():
    router = Router()
    ((info, _),) = one(router, by_break_anyhow, count=0)
    assert (info.cost, router.asked) == (COST, [generation_id(1)] * 2)


def test_a_stream_left_after_its_counts_needs_no_query():
    router = Router([long_stream(1, chunks=1)])

    async def read_to_the_counts(stream, _count):
        async with stream:
            async for chunk in stream:
                if chunk.usage is not None:
                    break

    ((info, after),) = one(router, read_to_the_counts)
    assert (info.cost, info.resolution, after) == (COST, CostResolution.RESOLVED, 0)
    assert (outcome_of(info), router.asked) == (AttemptOutcome.ABANDONED, [])


def outcome_of(info) -> AttemptOutcome:
    (attempt,) = info.attempts
    return attempt.outcome


def test_a_record_that_never_comes_is_unknown_within_half_a_minute():
    router = Router(pendings=99)
    ((info, after),) = one(router, by_break)
    assert (info.cost, info.resolution) == (0, CostResolution.UNKNOWN)
    assert 20 < after <= 30
    assert len(router.asked) == 6


GATEWAYS = {
    "fastapi": ScriptedReply.json({"detail": "Not Found"}, status=404),
    "llama.cpp": ScriptedReply.json({"error": {"message": "File Not Found", "code": 404}},
        status=404),
    "openai": ScriptedReply.json({"error": {"message": "Invalid URL (GET /v1/generation)"}},
        status=404),
    "fastify": ScriptedReply.json({"message": "Route GET:/v1/generation not found",
        "error": "Not Found"}, status=404),
    "a page": ScriptedReply(pieces=(b"<html>Cannot GET /generation?id=1</html>",), status=404),
    "nothing": ScriptedReply(pieces=(b"",), status=404),
    "refused": status(401, message="No."),
    "moved": status(302),
    "wrong method": status(405),
}  # fmt: skip


@pytest.mark.parametrize("reply", GATEWAYS.values(), ids=GATEWAYS)
def test_a_server_that_has_no_such_records_is_asked_once(reply):
    router = Router(replies=[reply])
    ((info, after),) = one(router, by_break)
    assert (info.resolution, after, len(router.asked)) == (CostResolution.UNKNOWN, 0.5, 1)


def test_a_server_that_cannot_be_reached_three_times_is_given_up():
    router = Router(replies=[ConnectError] * 9)
    ((info, after),) = one(router, by_break)
    assert (info.resolution, len(router.asked)) == (CostResolution.UNKNOWN, 3)
    assert after == 3.5


@pytest.mark.parametrize(
    "replies",
    [[status(500)], [status(429)], [ConnectError, ReadError], [hang], [ScriptedReply.json({})],
     [ScriptedReply(pieces=(b"<html>",))], [record("x", total_cost=None)]],
    ids=["500", "429", "no connection", "silence", "no record", "no JSON", "no cost yet"],
)  # fmt: skip
def test_what_is_wrong_for_a_while_is_asked_again(replies):
    router = Router(replies=replies, pendings=0)
    ((info, _),) = one(router, by_break)
    assert (info.cost, info.resolution) == (COST, CostResolution.RESOLVED)
    assert len(router.asked) == len(replies) + 1


def test_a_stream_that_breaks_is_reported_with_its_late_cost():
    broken = events("o", breaks_off=True)
    headers = {**broken.headers, "x-generation-id": "gen-broken"}
    router = Router([ScriptedReply(pieces=broken.pieces, headers=headers, breaks_off=True)])

    async def collect(stream, _count):
        with pytest.raises(ReadError):
            await stream.collect()

    ((info, _),) = one(router, collect)
    assert (outcome_of(info), info.cost) == (AttemptOutcome.FAILED, COST)


def test_each_attempt_is_settled_by_its_own_record():
    steps = [status(503), status(502, {"x-generation-id": "gen-a"}), None]
    settings = NodeCompletionParameters(retry=2)
    router = Router(steps)
    ((info, _),) = one(router, by_break, settings)
    assert [attempt.cost and attempt.cost.cost for attempt in info.attempts] == [None, COST, COST]
    assert (info.cost, info.resolution) == (2 * COST, CostResolution.RESOLVED)
    assert [attempt.number for attempt in info.attempts] == [1, 2, 3]
    assert router.asked == ["gen-a"] * 2 + [generation_id(3)] * 2


def test_a_price_of_ones_own_does_not_stand_before_what_openrouter_says():
    settings = NodeCompletionParameters(token_price=TokenPrice(1000, 1000))
    ((info, _),) = one(Router(), by_break, settings)
    assert info.cost == COST


# What ends with the program.


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("leave", [by_break, by_drop, by_cancelling_its_task])
def test_a_loop_that_ends_before_the_record_comes_reports_what_is_known(leave, kind):
    async def main() -> None:
        context = CompletionContext(Router().generator(), {}, told[kind])
        await leave(ChatNode.root("s").add_user("u").complete_streaming_tracked(context), 3)

    async def told_later(info, _meta) -> None:
        await asyncio.sleep(0)
        reports.append(info)

    told = {"plain": lambda info, _meta: reports.append(info), "coroutine": told_later}
    reports = []
    run_virtually(main())
    (info,) = reports
    assert (outcome_of(info), info.resolution) == (AttemptOutcome.ABANDONED, CostResolution.UNKNOWN)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_a_stream_dropped_after_its_loop_is_reported_at_once(kind, caplog):
    async def main() -> None:
        context = CompletionContext(Router().generator(), {}, told[kind])
        held.append(ChatNode.root("s").add_user("u").complete_streaming_tracked(context))
        await read(held[0], 2)

    async def told_later(info, _meta) -> None:
        reports.append(info)

    told = {"plain": lambda info, _meta: reports.append(info), "coroutine": told_later}
    held, reports = [], []
    run_virtually(main())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        held.clear()
    if kind == "plain":
        assert [outcome_of(info) for info in reports] == [AttemptOutcome.ABANDONED]
    else:
        (entry,) = caplog.records
        assert "its event loop has ended" in entry.getMessage()
        caplog.clear()


PROGRAM = """
import minillmlib as m
from openrouter_server import Router

def told(info, meta):
    print(meta, len(info.attempts), info.resolution.value, info.cost)

context = m.CompletionContext(Router().generator(), "report:", told)
stream = m.ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
"""


@pytest.mark.parametrize(
    ("ending", "out"),
    [
        ("for _ in m.iterate(stream): break", "report: 1 unknown 0\n"),
        ("next(m.iterate(stream)); m.run(stream.cancel())", f"report: 1 resolved {COST}\n"),
        ("next(m.iterate(stream)); m.run(context.aclose())", f"report: 1 resolved {COST}\n"),
    ],
    ids=["and ends", "by cancel", "and closes its context"],
)
def test_a_program_that_blocks_leaves_a_stream_and_is_told(ending, out):
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + ending],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": path},
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == (out, "", 0)


# cancel and collect.


def test_cancel_again_and_again_reports_once():
    async def main() -> None:
        async with CompletionContext(Router().generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            await read(stream, 5)
            first, second = await asyncio.gather(stream.cancel(), stream.cancel())
            await stream.aclose()
            assert first == second == await stream.cancel() == reports[0]

    def told(info, _meta) -> None:
        reports.append(info)

    reports = []
    run_virtually(main())
    assert len(reports) == 1


def test_cancel_of_a_stream_that_another_task_reads_ends_its_loop():
    async def main() -> None:
        async with CompletionContext(Router([hang]).generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            reader = asyncio.create_task(anext(stream, None))
            await asyncio.sleep(1)
            info = await stream.cancel()
            assert await reader is None
            assert outcome_of(info) is AttemptOutcome.ABANDONED

    def told(info, _meta) -> None:
        reports.append(info)

    reports = []
    run_virtually(main())
    assert len(reports) == 1


def test_cancel_that_is_itself_cancelled_still_reports():
    async def main() -> None:
        async with CompletionContext(Router().generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            await read(stream, 5)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await stream.cancel()
            assert reports == []

    def told(info, _meta) -> None:
        reports.append(info)

    reports = []
    run_virtually(main())
    assert [info.cost for info in reports] == [COST]


def test_cancel_before_the_first_step_sends_nothing_and_reports_nothing():
    async def main() -> None:
        async with CompletionContext(router.generator(), {}, reports.append) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            info = await stream.cancel()
            assert (info.attempts, info.resolution) == ((), CostResolution.RESOLVED)
            assert await anext(stream, None) is None

    reports, router = [], Router()
    run_virtually(main())
    assert (router.requests, reports) == (0, [])


def test_collect_gives_the_node_and_reports_the_cost_of_the_whole():
    async def main() -> None:
        async with CompletionContext(router.generator(), {}, told) as context:
            node = await root.complete_streaming_tracked(context).collect()
            assert (node.text, node.parent) == ("x" * 9, root)
            assert len(reports) == 1

    def told(info, _meta) -> None:
        reports.append(info)

    reports, router = [], Router([long_stream(1, chunks=9)])
    root = ChatNode.root("s").add_user("u")
    run_virtually(main())
    assert (reports[0].cost, router.asked) == (COST, [])
    assert outcome_of(reports[0]) is AttemptOutcome.ANSWERED


def test_cancel_after_the_end_gives_the_cost_and_reports_no_more():
    async def main() -> None:
        async with CompletionContext(router.generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            await stream.collect()
            assert await stream.cancel() == reports[0]
            assert stream.node.text == "x"

    def told(info, _meta) -> None:
        reports.append(info)

    reports, router = [], Router([long_stream(1, chunks=1)])
    run_virtually(main())
    assert len(reports) == 1


# Over real sockets.


@asynccontextmanager
async def over_httpx2():
    async with httpx2.AsyncClient() as client:
        yield HttpxTransport(client)


async def route(exchange) -> None:
    """A stream without an end; of its record first that it is pending, then the record."""
    if exchange.request_line.startswith("POST"):
        await exchange.start_events()
        while not exchange.has_hung_up.is_set():
            await exchange.chunk(event({"content": "x"}, id="gen-1"))
            await asyncio.sleep(0.005)
        return
    queries = [one for one in exchange.seen if one.request_line.startswith("GET")]
    reply = pending("gen-1") if len(queries) == 1 else record("gen-1")
    status_line = "404 Not Found" if len(queries) == 1 else "200 OK"
    await exchange.answer(b"".join(reply.pieces), status_line)


@pytest.mark.parametrize("make", [lambda: nullcontext(AiohttpTransport()), over_httpx2],
                         ids=["aiohttp", "httpx2"])  # fmt: skip
async def test_a_late_cost_comes_over_a_real_connection(make, monkeypatch):
    monkeypatch.setattr(late, "WAITS_SECS", (0.01,) * 6)
    reports = []
    async with serving(route) as (url, exchanges), make() as transport:
        generator = GeneratorInfo.openrouter("a/m").with_base_url(url).with_api_key("k")
        generator = generator.with_transport(transport)
        async with CompletionContext(
            generator, {}, lambda info, _: reports.append(info)
        ) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            await read(stream, 3)
            info = await stream.cancel()
    assert reports == [info]
    assert (info.cost, info.resolution) == (COST, CostResolution.RESOLVED)
    asked = [exchange for exchange in exchanges if exchange.request_line.startswith("GET")]
    assert [exchange.request_line for exchange in asked] == [
        "GET /v1/generation?id=gen-1 HTTP/1.1"
    ] * 2
    assert [exchange.headers["authorization"] for exchange in asked] == ["Bearer k"] * 2
    assert [exchange.body for exchange in asked] == [b""] * 2


# A whole answer, cancelled at any turn.


def whole_with_an_id() -> ScriptedReply:
    reply = whole("ok", id=generation_id(1), usage={**USAGE, "cost": float(COST)})
    return ScriptedReply(
        pieces=reply.pieces, headers={**reply.headers, "x-generation-id": generation_id(1)}
    )


def after_turns(turns: int, reports: list) -> bool:
    async def main() -> bool:
        router = Router([whole_with_an_id()])
        async with CompletionContext(router.generator(), {}, tell) as context:
            task = asyncio.create_task(ChatNode.root("s").chat_tracked("u", context))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_cancelled = task.cancel()
            await asyncio.wait({task})
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return was_cancelled

    def tell(info, meta) -> None:
        reports.append((info, meta))

    return run_virtually(main())


def test_a_whole_answer_cancelled_at_any_turn_is_known_later_once_its_headers_have_come():
    told = []
    for turns in range(1, 50):
        reports = []
        was_cancelled = after_turns(turns, reports)
        ((info, _),) = reports
        (attempt,) = info.attempts
        is_known = attempt.status is not None or not attempt.was_sent
        assert info.resolution is (CostResolution.RESOLVED if is_known else CostResolution.UNKNOWN)
        assert info.cost == (COST if attempt.status == 200 else 0)
        told.append(attempt.outcome)
        if not was_cancelled:
            break
    assert told[-1] is AttemptOutcome.ANSWERED
    assert told.count(AttemptOutcome.ABANDONED) >= 2
