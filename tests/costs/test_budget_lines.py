"""A request that does not fit into a budget yet waits in line, and is refused when it cannot fit."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import threading
from decimal import Decimal

import pytest
from budgeted_calls import ANSWERED, BRIEF, CEILING, NODE, Paid, state, within
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import ANSWER, COUNTS, FINISH, Server, events, hang, slow, status
from virtual_clock import now, run_virtually

from minillmlib import (
    Budget,
    BudgetExceededError,
    CostEstimate,
    CostOutcome,
    InvalidParameterError,
    Usage,
    iterate,
    run,
)


def asked(server: Server, budget: Budget, *, streamed: bool = False, **more):
    generator = server.generator()
    if streamed:
        return NODE.complete_streaming(generator, within(budget, **more)).collect()
    return NODE.complete(generator, within(budget, **more))


async def outcome(call) -> object:
    """The time at which a call was answered, or its error."""
    try:
        await call
    except BudgetExceededError as error:
        return error
    return now()


@pytest.mark.parametrize("streamed", [False, True])
def test_calls_that_fit_one_after_the_other_are_all_answered_in_their_order(streamed):
    async def main():
        calls = [asked(server, budget, streamed=streamed) for _ in range(10)]
        return await asyncio.gather(*map(outcome, calls))

    budget = Budget(CEILING * 2 + ANSWERED * 10)  # for two at once
    reply = events("a", FINISH, COUNTS) if streamed else ANSWER
    server = Server([slow(1, reply)] * 10)
    assert run_virtually(main()) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert budget.reserved == 0


def test_what_cannot_fit_even_if_all_in_progress_were_free_is_refused_at_once():
    async def main():
        first = asyncio.create_task(outcome(asked(server, budget)))
        await asyncio.sleep(1)
        dear = within(budget).with_params(BRIEF.replace(max_tokens=2000))
        error = await outcome(NODE.complete(server.generator(), dear))
        assert type(error) is BudgetExceededError
        assert (now(), error.attempts) == (1, ())
        assert await first == 5

    budget, server = Budget(CEILING * 2), Server([slow(5, ANSWER)])
    run_virtually(main())


def test_the_error_says_what_is_set_aside_and_for_how_many():
    async def main():
        calls = [asyncio.create_task(outcome(asked(server, budget))) for _ in range(2)]
        await asyncio.sleep(1)
        error = await outcome(asked(server, budget, deadline_secs=3))
        assert now() == 4
        assert await asyncio.gather(*calls) == [9, 9]
        return error

    budget, server = Budget(CEILING * 2), Server([slow(9, ANSWER)] * 2)
    error = run_virtually(main())
    assert type(error) is BudgetExceededError
    assert f"${(2 * CEILING).normalize():f} are set aside for 2 requests in progress" in str(error)
    assert not error.was_sent
    assert state(budget) == (2 * ANSWERED, 0)


def test_a_line_moves_on_when_the_first_in_it_gives_up_or_is_cancelled():
    async def main():
        first = asyncio.create_task(outcome(asked(server, budget)))
        await asyncio.sleep(0)
        dear = asyncio.create_task(NODE.complete(wordy, within(budget).with_params(long)))
        await asyncio.sleep(0)
        late = asyncio.create_task(outcome(asked(server, budget)))
        await asyncio.sleep(1)
        assert not late.done()  # it would fit, but the other came first
        dear.cancel()
        assert await late == 6
        assert await first == 9

    long = BRIEF.replace(max_tokens=2000)
    server = Server([slow(9, ANSWER), slow(5, ANSWER)])
    wordy = Server([]).generator()
    budget = Budget(NODE.estimate_cost(wordy, long).ceiling + CEILING - ANSWERED)
    run_virtually(main())
    assert state(budget) == (2 * ANSWERED, 0)


def test_a_child_that_waits_for_itself_keeps_nobody_else_waiting():
    async def main():
        calls = [asked(slowly, small), asked(server, small), asked(server, parent)]
        return await asyncio.gather(*map(outcome, calls))

    parent = Budget(CEILING * 2)
    small = parent.child(CEILING + ANSWERED)
    slowly, server = Server([slow(9, ANSWER)]), Server([slow(1, ANSWER)] * 2)
    assert run_virtually(main()) == [9, 10, 1]


def test_a_task_that_holds_a_stream_open_does_not_wait_for_itself():
    async def main():
        async with NODE.complete_streaming(server.generator(), within(budget)) as stream:
            async for _ in stream:
                error = await outcome(asked(server, budget))
                assert now() == 0
                return error
        return None

    budget, server = Budget(CEILING + ANSWERED), Server([events("a", "b", FINISH)])
    assert type(run_virtually(main())) is BudgetExceededError


def test_a_stream_that_is_closed_while_it_waits_leaves_the_line():
    async def main():
        first = asyncio.create_task(outcome(asked(server, budget)))
        await asyncio.sleep(0)
        stream = NODE.complete_streaming(server.generator(), within(budget))
        reader = asyncio.create_task(stream.collect())
        await asyncio.sleep(1)
        await stream.aclose()
        with pytest.raises(InvalidParameterError):
            await reader
        assert now() == 1
        assert stream.attempts == ()
        await first

    budget, server = Budget(CEILING), Server([slow(5, ANSWER)])
    run_virtually(main())
    assert state(budget) == (ANSWERED, 0)


@pytest.mark.parametrize("deadline_secs", [None, 30])
@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("way", ["aclose", "cancel"])
def test_a_stream_closed_just_when_it_may_go_sends_nothing_that_is_not_booked(
    way, steps, deadline_secs
):
    async def main():
        first = budget.reserve(CostEstimate(ceiling=CEILING))
        settings = within(budget, deadline_secs=deadline_secs)
        stream = NODE.complete_streaming(server.generator(), settings)
        reader = asyncio.create_task(stream.collect())
        await asyncio.sleep(1)
        first.settle(None)
        for _ in range(steps):
            await asyncio.sleep(0)
        await getattr(stream, way)()
        await asyncio.wait({reader})
        assert len(stream.attempts) == len(server.requests)

    budget, server = Budget(CEILING), Server([events("a", FINISH, COUNTS)])
    run_virtually(main())
    assert budget.reserved == 0
    assert (budget.spent == 0) == (not server.requests)


@pytest.mark.parametrize("deadline_secs", [None, 30])
@pytest.mark.parametrize("steps", range(4))
def test_a_call_cancelled_just_when_it_may_go_is_cancelled(steps, deadline_secs):
    async def main():
        first = budget.reserve(CostEstimate(ceiling=CEILING))
        task = asyncio.create_task(asked(server, budget, deadline_secs=deadline_secs))
        await asyncio.sleep(1)
        first.settle(None)
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert now() == 1

    budget, server = Budget(CEILING), Server([slow(5, ANSWER)])
    run_virtually(main())
    assert budget.reserved == 0


def test_a_thread_that_holds_a_stream_open_does_not_wait_for_itself():
    def work() -> None:
        for _ in iterate(NODE.complete_streaming(server.generator(), within(budget))):
            try:
                run(asked(Server([ANSWER]), budget))
            except BudgetExceededError as error:
                errors.append(error)

    budget, server = Budget(CEILING + ANSWERED), Server([events("a", FINISH, COUNTS)])
    errors: list[BudgetExceededError] = []
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert errors


def test_tasks_of_one_run_wait_for_each_other():
    async def main():
        return await asyncio.gather(*(asked(server, budget) for _ in range(3)))

    budget, server = Budget(CEILING + 2 * ANSWERED), Server([slow(0.01, ANSWER)] * 3)
    assert len(run(main())) == 3


def test_a_request_that_waits_behind_another_is_not_told_that_its_money_is_missing():
    async def main():
        budget.reserve(CostEstimate(ceiling=CEILING))
        dear = within(budget).with_params(BRIEF.replace(max_tokens=20))
        before = asyncio.create_task(NODE.complete(server.generator(), dear))
        await asyncio.sleep(0)
        error = await outcome(asked(server, budget, deadline_secs=2))
        before.cancel()
        return error

    budget, server = Budget(2 * CEILING), Server([])
    assert "others came before it in line" in str(run_virtually(main()))


def test_requests_that_cost_nothing_are_not_in_progress_for_ever():
    budget = Budget(1)
    budget.reserve(CostEstimate(ceiling=Decimal(0))).settle(None)
    with pytest.raises(BudgetExceededError, match="set aside for 0 requests"):
        budget.reserve(CostEstimate(ceiling=Decimal(2)))


def test_what_was_paid_elsewhere_is_no_request_in_progress():
    parent = Budget(2)
    budget = parent.child(1)
    budget.charge(Decimal("0.5"))
    for each, spent in ((budget, "0.5"), (parent, "0.5")):
        assert each.spent == Decimal(spent)
        with pytest.raises(BudgetExceededError, match="set aside for 0 requests"):
            each.reserve(CostEstimate(ceiling=Decimal(2)))


def test_an_unknown_cost_counts_whole_and_ends_the_wait_of_those_who_cannot_fit_then():
    async def main():
        first = asyncio.create_task(asked(server, budget, timeout_secs=2))
        await asyncio.sleep(0)
        error = await outcome(asked(server, budget))
        assert now() == 2
        await asyncio.wait({first})
        return error

    budget, server = Budget(CEILING), Server([hang])
    assert "set aside for 0 requests" in str(run_virtually(main()))


def test_whoever_waited_in_a_loop_that_was_closed_leaves_nothing_reserved():
    budget = Budget(CEILING)
    first = budget.reserve(CostEstimate(ceiling=CEILING))
    loop = asyncio.new_event_loop()
    task = loop.create_task(asked(Server([ANSWER]), budget))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    task._log_destroy_pending = False
    loop.close()
    first.settle(None)
    assert state(budget) == (0, 0)
    assert run_virtually(outcome(asked(Server([ANSWER]), budget))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_of_a_thousand_calls_cancelled_or_late_none_is_refused_that_fits(seed):
    async def main():
        async def ask() -> str:
            await asyncio.sleep(places.random() * 5)
            late = places.random() < 0.2
            params = within(budget, deadline_secs=places.random() * 3 if late else None)
            try:
                await NODE.complete(generator, params)
            except BudgetExceededError:
                return "late" if late else "refused"
            except TimeoutError:
                return "late"
            return "answered"

        tasks = [asyncio.create_task(ask()) for _ in range(1000)]
        for task in places.sample(tasks, 100):
            asyncio.get_running_loop().call_later(places.random() * 9, task.cancel)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert "answered" in ends
        if "refused" in ends:
            assert budget.remaining < CEILING
        return ends

    places = random.Random(seed)
    budget = Budget(CEILING * 25)
    server = Paid(budget, seed)
    generator = Server([]).generator().with_transport(server)
    ends = run_virtually(main())
    assert "refused" in ends
    assert budget.reserved == 0
    assert server.bill <= budget.spent <= budget.limit


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_reservations_are_granted_in_their_order_and_never_pass_a_limit(data):
    amounts = st.integers(0, 20)
    root = Budget(data.draw(st.integers(0, 40)))
    budgets = [root, root.child(15), root.child(30)]
    waiting, held = [], []
    for step in data.draw(st.lists(st.tuples(st.integers(0, 3), amounts), max_size=60)):
        kind, amount = step
        if kind < 2:
            budget = budgets[amount % 3]
            reservation = budget.enqueue(CostEstimate(ceiling=Decimal(amount)))
            waiting.append((budget, reservation))
        elif kind == 2 and held:
            budget, reservation = held.pop(amount % len(held))
            reservation.settle(CostOutcome.resolved(Decimal(amount % 3), Usage()))
        elif kind == 3 and waiting:
            waiting.pop(amount % len(waiting))[1].settle(None)
        decided = [pair for pair in waiting if not pair[1].is_waiting]
        held += [pair for pair in decided if pair[1].error is None]
        waiting = [pair for pair in waiting if pair[1].is_waiting]
        for budget in budgets:
            assert budget.reserved >= 0
            if budget.spent <= budget.limit:
                of_it = [one for owner, one in held if owner is budget or owner.parent is budget]
                assert budget.reserved == sum(one.ceiling for one in of_it)
        for place, (budget, reservation) in enumerate(waiting):
            chain = {budget, budget.parent} - {None}
            earlier = waiting[:place]
            fits = all(one.remaining >= reservation.ceiling for one in chain)
            assert not fits or any(chain & {b, b.parent} for b, _ in earlier)
    for _, reservation in held + waiting:
        reservation.settle(None)
    for budget in budgets:
        assert budget.reserved == 0


def test_threads_and_loops_wait_for_one_budget():
    def work() -> None:
        async def main() -> None:
            await asyncio.gather(*(asked(Server([slow(0.001, ANSWER)]), budget) for _ in range(20)))

        asyncio.run(main())

    budget = Budget(CEILING * 3)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(budget) == (80 * ANSWERED, 0)


def test_a_retry_waits_in_line_too():
    async def main():
        calls = [asked(failing, budget, retry=1), asked(server, budget)]
        return await asyncio.gather(*map(outcome, calls))

    budget = Budget(CEILING + ANSWERED)
    failing, server = Server([status(503), ANSWER]), Server([slow(5, ANSWER)])
    assert run_virtually(main()) == [5, 5]


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_budget_is_not_copied_into_another_process(take):
    with pytest.raises(InvalidParameterError, match="give each process its share"):
        take(Budget(1))
