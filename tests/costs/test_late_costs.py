"""Costs that a provider publishes after the call: when it is asked, how often, and what it may say."""

from __future__ import annotations

from decimal import Decimal

import pytest
from openrouter_server import COST, Router, pending, record
from scripted_server import hang, slow, status
from virtual_clock import now, run_virtually

from minillmlib import (
    ChatNode,
    ConnectError,
    CostInfo,
    CostUpdated,
    MiniLLMError,
    NodeCompletionParameters,
    OpenRouterProvider,
    ReadError,
    observe,
)
from minillmlib.testing import ScriptedReply

FAILED = status(502, {"x-generation-id": "gen-a"})
PENDING, FOUND = pending("gen-a"), record("gen-a")
EMPTY = ScriptedReply.json({"data": {}})
GATEWAY = status(404, message="no such route")
ALL = [0.5, 1.5, 3.5, 7.5, 15.5, 23.5]
SLOW = [slow(9.5, PENDING), slow(9.0, PENDING)]


class Timed(Router):
    """Notes when it is asked for a record, as the n-th second after the start."""

    def __init__(self, steps, replies):
        super().__init__(steps, replies=replies, pendings=99)
        self.times: list[float] = []

    async def _told(self, request):
        self.times.append(now())
        return await super()._told(request)


def told(
    steps, replies, *, params=None, provider=None
) -> tuple[list[float], list[CostInfo], float]:
    """When a record was asked for, what the callback was told, and when the call had ended."""

    async def main() -> float:
        generator = router.generator()
        if provider is not None:
            generator = generator.with_provider(provider)
        settings = NodeCompletionParameters(cost_callback=infos.append, retry=1, back_off_time=0)
        stream = ChatNode.root("s").chat_streaming("u", generator, params or settings)
        try:
            await stream.collect()
        except MiniLLMError:
            ended = now()
        await stream.cancel()
        assert ended == 0.0, "the call itself does not wait"
        return now()

    infos: list[CostInfo] = []
    router = Timed(steps, replies)
    return router.times, infos, run_virtually(main())


@pytest.mark.parametrize(
    ("replies", "times", "cost"),
    [
        ([FOUND], ALL[:1], COST),
        ([PENDING, FOUND], ALL[:2], COST),
        ([PENDING] * 5 + [FOUND], ALL, COST),
        ([PENDING] * 6 + [FOUND], ALL, None),
        ([EMPTY, EMPTY, FOUND], ALL[:3], COST),
        *[([status(code), FOUND], ALL[:2], COST) for code in (408, 425, 429, 500, 503, 599)],
        *[([status(code), FOUND], ALL[:1], None) for code in (301, 400, 401, 403, 409, 426, 499)],
        ([GATEWAY, FOUND], ALL[:1], None),
        ([ConnectError, ReadError, FOUND], ALL[:3], COST),
        ([ConnectError, ConnectError, ConnectError, FOUND], ALL[:3], None),
        ([ConnectError, ConnectError, PENDING, ConnectError, ConnectError, FOUND], ALL, COST),
        ([hang, hang, hang], [0.5, 11.5, 23.5], None),
        ([slow(9.5, PENDING), slow(9.5, PENDING), slow(5, FOUND)], [0.5, 11.0, 22.5], COST),
        ([slow(9.5, PENDING), slow(9.5, PENDING), slow(8, FOUND)], [0.5, 11.0, 22.5], None),
        ([*SLOW, slow(4, PENDING), FOUND], [0.5, 11.0, 22.0], None),
        ([*SLOW, slow(3.5, PENDING), slow(0.4, FOUND)], [0.5, 11.0, 22.0, 29.5], COST),
        ([*SLOW, slow(3.5, PENDING), slow(0.6, FOUND)], [0.5, 11.0, 22.0, 29.5], None),
        ([ScriptedReply(pieces=(b"<html>",)), FOUND], ALL[:2], COST),
    ],
)  # fmt: skip
def test_a_record_is_asked_for_at_these_seconds(replies, times, cost):
    steps, events = [FAILED, status(400)], []
    with observe(events.append):
        asked, (info,), _ = told(steps, replies)
    assert asked == times
    first, second = info.attempts
    assert (first.cost.is_unknown, first.cost.cost) == (cost is None, cost or Decimal(0))
    assert second.cost is None
    updated = [event.attempt for event in events if isinstance(event, CostUpdated)]
    assert updated == ([] if cost is None else [first])


def test_of_two_attempts_each_is_asked_for_in_the_time_that_is_left():
    steps = [FAILED, status(502, {"x-generation-id": "gen-b"})]
    asked, (info,), ended = told(steps, [PENDING, FOUND])
    assert asked == [0.5, 1.5, 2.0, 3.0]
    assert ended == 3.0
    assert [attempt.cost.cost for attempt in info.attempts] == [COST, COST]


class Wrong(OpenRouterProvider):
    """A provider that makes a mistake in one of its functions."""

    def __init__(self, **functions):
        self.billing = OpenRouterProvider.billing.replace(**functions)


def mistake(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("wrong", "replies", "times"),
    [
        ("parse_deferred_usage", [FOUND, FOUND], ALL),
        ("is_usage_pending", [PENDING, FOUND], ALL[:1]),
    ],
)
def test_a_mistake_of_a_provider_leaves_the_cost_unknown(wrong, replies, times):
    provider = Wrong(**{wrong: mistake})
    asked, (info,), _ = told([FAILED, status(400)], [*replies, *[FOUND] * 9], provider=provider)
    assert asked == times
    assert info.attempts[0].cost.is_unknown


class Lost(OpenRouterProvider):
    def resolve_post_stream(self, base_url, response_id):
        raise ZeroDivisionError


def test_without_an_address_nothing_is_asked_for():
    for provider, step in ((Lost(), FAILED), (None, status(502))):
        asked, (info,), ended = told([step, status(400)], [FOUND], provider=provider)
        assert (asked, ended) == ([], 0.0)
        assert info.attempts[0].cost.is_unknown
