"""Budgets: money is set aside before it can be spent, and nothing set aside is ever lost."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import threading
from decimal import Decimal

import pytest
from budgeted_calls import (
    ANSWERED,
    CEILING,
    MICRO,
    NODE,
    USAGE_JSON,
    Paid,
    ceiling_of,
    state,
    within,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from openrouter_server import COST, PRICE, Router
from scripted_server import (
    ANSWER,
    BOTH,
    COUNTS,
    DONE,
    FINISH,
    Server,
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
    Budget,
    BudgetExceededError,
    CompletionContext,
    CompletionParameters,
    CostEstimate,
    CostOutcome,
    CostResolution,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    MaxRetriesExceededError,
    Usage,
)
from minillmlib.testing import ScriptedReply


def told_by(reports: list):
    return lambda info, *_meta: reports.append(info)


@pytest.fixture(autouse=True)
def _full_bucket(quota):
    """Retries enough for each test."""


@pytest.fixture(autouse=True)
def _nothing_is_said_at_the_end(caplog):
    yield
    gc.collect(1)
    assert [entry for entry in caplog.records if entry.name in ("asyncio", "minillmlib")] == []


# Many at once.


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_calls_at_once_never_pass_the_cap(seed):
    async def ask() -> bool:
        try:
            await NODE.complete(generator, within(budget))
        except BudgetExceededError as error:
            assert (error.attempts, error.was_sent) == ((), False)
            return False
        return True

    async def ask_later(secs: float) -> bool:
        await asyncio.sleep(secs)
        return await ask()

    async def main() -> list[bool]:
        starts = random.Random(seed)
        return await asyncio.gather(*(ask_later(starts.random() * 3) for _ in range(1000)))

    budget = Budget(CEILING * 30)
    server = Paid(budget, seed)
    generator = Server([]).generator().with_transport(server)
    answered = run_virtually(main())
    assert state(budget) == (server.bill, 0)
    assert server.requests == sum(answered) < 1000
    assert server.most > budget.limit - CEILING  # all of it was at work
    assert budget.remaining < CEILING  # nothing was refused that fits


def test_a_thousand_calls_cancelled_at_any_time_leave_nothing_reserved():
    async def main() -> None:
        tasks = [
            asyncio.create_task(NODE.complete(generator, within(budget, cost_callback=tell)))
            for _ in range(1000)
        ]
        loop, places = asyncio.get_running_loop(), random.Random(9)
        for task in tasks:
            loop.call_later(places.random(), task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    reports = []
    tell = told_by(reports)
    budget = Budget(CEILING * 2000)
    generator = Server([]).generator().with_transport(Paid(budget, 5))
    run_virtually(main())
    lost = sum(info.resolution is CostResolution.UNKNOWN for info in reports)
    known = sum(info.cost for info in reports)
    assert len(reports) == 1000
    assert 0 < lost < 1000
    assert state(budget) == (known + lost * CEILING, 0)


def cancelled_after(turns: int, budget: Budget, server: Wire, *, streamed: bool) -> bool:
    async def main() -> bool:
        params = within(budget, retry=9, crash_on_empty_response=True)
        task = asyncio.create_task(tried(server, params, streamed=streamed))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            return False
        task.cancel()
        await asyncio.wait({task})
        return True

    return run_virtually(main())


@BOTH
def test_a_call_cancelled_at_any_turn_leaves_nothing_reserved(streamed):
    for turns in range(200):
        budget, server = Budget(1), Wire([status(503), whole(""), ANSWER])
        was_cancelled = cancelled_after(turns, budget, server, streamed=streamed)
        assert budget.reserved == 0
        # Answers of which nobody took the counts keep their ceiling; refusals cost nothing.
        assert budget.spent in (0, CEILING, ANSWERED, ANSWERED + CEILING, 2 * ANSWERED)
        if not was_cancelled:
            break
    assert not was_cancelled
    assert budget.spent == 2 * ANSWERED


def test_threads_share_a_budget_and_lose_no_cent():
    def work(seed: int) -> None:
        places = random.Random(seed)
        for _ in range(2000):
            try:
                reservation = child.reserve(CostEstimate(ceiling=Decimal(7)))
            except BudgetExceededError:
                refused.append(1)
                continue
            cost = Decimal(places.randrange(8))
            reservation.settle(CostOutcome.resolved(cost, Usage()))
            spent[seed] += cost

    parent, refused, spent = Budget(20000), [], [Decimal(0)] * 4
    child = parent.child(15000)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(parent) == state(child) == (sum(spent), 0)
    assert child.spent <= child.limit
    assert refused


# Refused before anything is sent.


@BOTH
@pytest.mark.parametrize(
    ("budget", "more", "says"),
    [
        (Budget(CEILING - MICRO / 10), {}, "only .* of the budget"),
        (Budget(1).child(0), {}, "only .0 of the budget"),
        (Budget(0).child(1), {}, "only .0 of the budget"),
        (Budget(1), {"params": CompletionParameters()}, "max_tokens"),
    ],
    ids=["too small", "of its own nothing", "of the parent nothing", "no limit on the answer"],
)
def test_what_the_budget_cannot_cover_is_not_sent_and_reported_once(budget, more, says, streamed):
    reports, server = [], Server([])
    params = within(budget, retry=3, cost_callback=reports.append).replace(**more)
    error = run_virtually(tried(server, params, streamed=streamed))
    assert type(error) is BudgetExceededError
    assert re.search(says, str(error))
    assert error.attempts == ()
    assert (server.requests, error.was_sent, error.is_retryable) == ([], False, False)
    (info,) = reports
    assert (info.attempts, info.cost, info.resolution) == ((), 0, CostResolution.RESOLVED)
    assert state(budget) == (0, 0)
    assert budget.parent is None or state(budget.parent) == (0, 0)


def test_a_request_without_a_price_is_refused_and_told_what_is_missing():
    generator = GeneratorInfo.openai("m").with_api_key("k").with_transport(Server([]))
    error = run_virtually(tried(Server([]), within(Budget(1)), streamed=False, generator=generator))
    assert type(error) is BudgetExceededError
    assert "with_token_price" in str(error)


def test_the_whole_budget_may_be_used():
    budget = Budget(CEILING)
    answer = run_virtually(tried(Server([ANSWER]), within(budget), streamed=False))
    assert answer.content == "ok"
    assert state(budget) == (ANSWERED, 0)
    assert budget.remaining == CEILING - ANSWERED


def test_a_parent_pays_for_its_children_and_what_it_refuses_is_given_back():
    parent = Budget(CEILING + ANSWERED)
    first, second = parent.child(1), parent.child(1)
    run_virtually(tried(Server([ANSWER]), within(first), streamed=False))
    run_virtually(tried(Server([ANSWER]), within(second), streamed=False))
    assert (state(first), state(second)) == ((ANSWERED, 0), (ANSWERED, 0))
    assert state(parent) == (2 * ANSWERED, 0)
    error = run_virtually(tried(Server([]), within(second), streamed=False))
    assert type(error) is BudgetExceededError
    assert f"{parent.limit:f}" in str(error)
    assert (state(second), state(parent)) == ((ANSWERED, 0), (2 * ANSWERED, 0))


@pytest.mark.parametrize("limit", [-1, 0.5, "x", "NaN", "inf", True, None])
def test_a_limit_that_is_no_amount_is_refused(limit):
    with pytest.raises(InvalidParameterError, match="amount of USD"):
        Budget(limit)


# What a cost that is not known does.


@BOTH
@pytest.mark.parametrize(
    ("step", "outcome", "spent"),
    [
        (whole("ok", usage=None), "answered", CEILING),
        (status(500), "failed", CEILING),
        (stalled(whole("ok")), "failed", CEILING),
        (hang, "failed", CEILING),
        (hang_before_departure, "not_sent", 0),
        (status(503), "denied", 0),
        (status(401), "denied", 0),
    ],
    ids=["no counts", "500", "cut off", "no answer", "not sent", "503", "401"],
)
def test_an_unknown_cost_stays_set_aside_whole_and_a_refusal_costs_nothing(
    step, outcome, spent, streamed
):
    budget = Budget(1)
    params = within(budget, timeout_secs=5)
    result = run_virtually(tried(Server([step]), params, streamed=streamed))
    assert outcomes(result.attempts) == outcome
    assert state(budget) == (spent, 0)


def test_an_unpriced_cost_stays_set_aside_whole():
    budget = Budget(10)
    budget.reserve(CostEstimate(ceiling=Decimal(7))).settle(CostOutcome.unpriced(Usage()))
    assert state(budget) == (7, 0)


@pytest.mark.parametrize("with_callback", [True, False])
def test_a_late_cost_settles_what_was_set_aside(with_callback):
    async def main() -> None:
        generator = router.generator().with_token_price(PRICE)
        most = ceiling_of(generator)
        async with NODE.complete_streaming(generator, params) as stream:
            await anext(stream)
            assert state(budget) == (0, most)
        assert state(budget) == (most, 0)
        await asyncio.sleep(30)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    reports, budget, router = [], Budget(1), Router()
    params = within(budget, cost_callback=reports.append if with_callback else None)
    run_virtually(main())
    assert len(reports) == with_callback
    assert state(budget) == (COST, 0)


def test_late_costs_change_nothing_of_what_was_known_before():
    async def main() -> None:
        params = within(budget, retry=1, crash_on_empty_response=True)
        async with CompletionContext(generator, {}, told_by(reports)) as context:
            with pytest.raises(MaxRetriesExceededError):
                await NODE.complete_tracked(context, params)
            assert state(budget) == (COST + ceiling_of(generator), 0)

    usage = {"prompt_tokens": 3, "completion_tokens": 1, "cost": float(COST)}
    steps = [whole("", usage=usage), status(502, {"x-generation-id": "gen-a"})]
    reports, budget = [], Budget(1)
    generator = Router(steps).generator().with_token_price(PRICE)
    run_virtually(main())
    (info,) = reports
    assert outcomes(info.attempts) == "rejected failed"
    assert (info.cost, state(budget)) == (2 * COST, (2 * COST, 0))


def test_a_late_record_that_never_comes_leaves_the_ceiling_set_aside():
    async def main() -> None:
        async with CompletionContext(generator, {}, told_by(reports)) as context:
            stream = NODE.complete_streaming_tracked(context, within(budget))
            await anext(stream)
            await stream.cancel()

    reports, budget = [], Budget(1)
    generator = Router(pendings=99).generator().with_token_price(PRICE)
    run_virtually(main())
    assert state(budget) == (ceiling_of(generator), 0)


def test_a_true_cost_above_the_ceiling_is_recorded_and_what_follows_is_refused():
    usage = {"prompt_tokens": 10**6, "completion_tokens": 0}
    budget = Budget(CEILING * 3)
    server = Server([whole("ok", usage=usage)])
    answer = run_virtually(tried(server, within(budget), streamed=False))
    assert (answer.cost.cost, state(budget)) == (1, (1, 0))
    assert budget.remaining == CEILING * 3 - 1 < 0
    error = run_virtually(tried(server, within(budget), streamed=False))
    assert type(error) is BudgetExceededError
    assert len(server.requests) == 1


class Careless(GenericProvider):
    """A provider of the caller's own that makes an amount out of what it likes."""

    def __init__(self, amount: object) -> None:
        super().__init__()
        self.amount = amount

    def cost_of(self, usage, price):
        if isinstance(self.amount, Exception):
            raise self.amount
        return CostOutcome.resolved(self.amount, usage)


AMISS = [Decimal("NaN"), Decimal(-1), Decimal("Infinity"), 0.5, None, KeyError("rate")]


@BOTH
@pytest.mark.parametrize("step", [ANSWER, status(500, body=b'{"usage": %b}' % USAGE_JSON)],
                         ids=["answer", "failure"])  # fmt: skip
@pytest.mark.parametrize("amount", AMISS, ids=repr)
def test_an_amount_that_is_none_is_an_unknown_cost(amount, step, streamed):
    reports, budget, server = [], Budget(1), Server([step])
    generator = server.generator().with_provider(Careless(amount))
    params = within(budget, cost_callback=reports.append)
    run_virtually(tried(server, params, streamed=streamed, generator=generator))
    assert state(budget) == (CEILING, 0)
    (info,) = reports
    assert (info.cost, info.resolution) == (0, CostResolution.UNKNOWN)


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal(-1), Decimal("Infinity"), 0.5])
def test_an_estimate_is_an_amount(amount):
    with pytest.raises(InvalidParameterError, match="USD"):
        CostEstimate(ceiling=amount)


# Streams, and attempts one after the other.


@pytest.mark.parametrize("place", range(6))
def test_a_stream_left_anywhere_holds_nothing_back(place):
    async def main() -> None:
        async with NODE.complete_streaming(server.generator(), within(budget)) as stream:
            for _ in range(place):
                await anext(stream, None)

    budget, server = Budget(1), Server([events("a", "b", FINISH, COUNTS, DONE)])
    run_virtually(main())
    is_counted = place >= 4  # once the counts have come
    assert state(budget) == (ANSWERED if is_counted else CEILING, 0)


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
def test_a_stream_that_is_dropped_holds_nothing_back():
    async def main() -> None:
        stream = NODE.complete_streaming(Server([events("a", FINISH)]).generator(), within(budget))
        await anext(stream)
        del stream
        await asyncio.sleep(0)
        assert state(budget) == (CEILING, 0)

    budget = Budget(1)
    run_virtually(main())


@BOTH
def test_each_attempt_is_set_aside_by_itself(streamed):
    budget, seen = Budget(1), []

    async def look(request):
        seen.append(state(budget))
        return await Server([status(500)]).send(request)

    server = Server([look, look, look])
    error = run_virtually(tried(server, within(budget, retry=2), streamed=streamed))
    assert type(error) is MaxRetriesExceededError
    assert seen == [(0, CEILING), (CEILING, CEILING), (2 * CEILING, CEILING)]
    assert state(budget) == (3 * CEILING, 0)


@BOTH
def test_a_retry_that_the_budget_cannot_cover_ends_the_call_with_all_attempts(streamed):
    budget, reports, server = Budget(CEILING * 2), [], Server([status(500), status(502)])
    params = within(budget, retry=5, cost_callback=reports.append)
    error = run_virtually(tried(server, params, streamed=streamed))
    assert type(error) is BudgetExceededError
    assert "nothing was sent" not in str(error)
    assert outcomes(error.attempts) == "failed failed"
    assert error.was_sent
    (info,) = reports
    assert info.attempts == error.attempts
    assert state(budget) == (2 * CEILING, 0)


@BOTH
def test_a_call_that_waits_for_its_retry_holds_nothing_back(streamed):
    async def main() -> None:
        task = asyncio.create_task(tried(server, params, streamed=streamed))
        await asyncio.sleep(1)
        assert state(budget) == (0, 0)
        task.cancel()
        await asyncio.wait({task})

    budget, server = Budget(1), Server([status(503, {"retry-after": "9"})])
    params = within(budget, retry=1)
    run_virtually(main())
    assert state(budget) == (0, 0)


def test_what_is_under_way_is_seen_and_settled_in_time():
    async def main() -> None:
        task = asyncio.create_task(tried(server, within(budget), streamed=False))
        await asyncio.sleep(1)
        assert (state(budget), budget.remaining) == ((0, CEILING), 1 - CEILING)
        await task
        assert now() == 5

    budget, server = Budget(1), Server([slow(5, ANSWER)])
    run_virtually(main())
    assert state(budget) == (ANSWERED, 0)


def test_warming_a_cache_is_paid_from_the_budget_and_refused_without_money():
    async def main() -> None:
        info = await NODE.ensure_cached(generator, within(budget))
        assert (info.cost, state(budget)) == (50 * MICRO, (50 * MICRO, 0))
        with pytest.raises(BudgetExceededError):
            await NODE.ensure_cached(generator, within(budget.child(0)))

    usage = {"input_tokens": 20, "cache_creation_input_tokens": 30, "output_tokens": 0}
    reply = {"type": "message", "role": "assistant", "id": "m", "model": "c", "content": [],
        "stop_reason": "max_tokens", "usage": usage}  # fmt: skip
    server, budget = Server([ScriptedReply.json(reply)]), Budget(1)
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    generator = generator.with_transport(server).with_token_price(PRICE)
    run_virtually(main())
    assert len(server.requests) == 1


# Any sequence, against a model.


AMOUNTS = st.decimals(0, 20, places=6)
COSTS = st.one_of(
    st.none(),
    st.just(CostOutcome.unknown()),
    st.just(CostOutcome.unpriced(Usage())),
    AMOUNTS.map(lambda cost: CostOutcome.resolved(cost, Usage())),
)


def is_known(cost: CostOutcome | None) -> bool:
    return cost is None or cost.resolution is CostResolution.RESOLVED


class Entry:
    """What the model knows of one reservation: the last thing it learned that stands."""

    def __init__(self, owner: int, ceiling: Decimal) -> None:
        self.owner, self.ceiling = owner, ceiling
        self.is_settled, self.spent, self.is_final = False, Decimal(0), False

    def learn(self, cost: CostOutcome | None) -> None:
        if self.is_final:
            return
        self.is_settled, self.is_final = True, is_known(cost)
        self.spent = (cost.cost if cost else Decimal(0)) if self.is_final else self.ceiling


class BudgetMachine(RuleBasedStateMachine):
    """Three budgets in a row, and every reservation ever made."""

    def __init__(self) -> None:
        super().__init__()
        top = Budget(40)
        middle = top.child(30)
        self.budgets = [top, middle, middle.child(20)]
        self.entries, self.reservations = [], []

    def of(self, level: int) -> list[Entry]:
        return [entry for entry in self.entries if entry.owner >= level]

    def used(self, level: int) -> Decimal:
        return sum(
            (entry.spent if entry.is_settled else entry.ceiling for entry in self.of(level)),
            Decimal(0),
        )

    @rule(owner=st.integers(0, 2), ceiling=AMOUNTS)
    def reserve(self, owner, ceiling):
        fits = all(
            self.used(level) + ceiling <= self.budgets[level].limit for level in range(owner + 1)
        )
        try:
            reservation = self.budgets[owner].reserve(CostEstimate(ceiling=ceiling))
        except BudgetExceededError:
            assert not fits
            return
        assert fits
        self.entries.append(Entry(owner, ceiling))
        self.reservations.append(reservation)

    @rule(place=st.integers(0, 99), cost=COSTS)
    def settle(self, place, cost):
        if self.entries:
            self.reservations[place % len(self.entries)].settle(cost)
            self.entries[place % len(self.entries)].learn(cost)

    @invariant()
    def the_books_agree(self):
        for level, budget in enumerate(self.budgets):
            spent = sum((entry.spent for entry in self.of(level)), Decimal(0))
            assert budget.spent == spent
            assert budget.reserved == self.used(level) - spent
            assert budget.remaining == budget.limit - self.used(level)


BudgetMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestAnySequence = BudgetMachine.TestCase


@given(st.lists(COSTS, max_size=6))
def test_only_the_first_known_cost_counts(costs):
    budget = Budget(100)
    reservation = budget.reserve(CostEstimate(ceiling=Decimal(7)))
    for cost in costs:
        reservation.settle(cost)
    known = [cost.cost if cost else 0 for cost in costs if is_known(cost)]
    if not costs:
        assert state(budget) == (0, 7)
    else:
        assert state(budget) == (known[0] if known else 7, 0)
