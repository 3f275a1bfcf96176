"""The width of a run follows what the server takes: each rule, on both sides of its bound."""

from __future__ import annotations

import asyncio

import pytest
from manual_clock import Clock

from minillmlib import (
    Attempt,
    AttemptOutcome,
    GeneratorInfo,
    InvalidParameterError,
    Width,
)
from minillmlib.bulk import width as rules
from minillmlib.bulk.width import mark_call, width_for

GENERATOR = GeneratorInfo.custom("t", "https://t.example/v1", "m")


@pytest.fixture
def clock(monkeypatch):
    return Clock().install(monkeypatch)


def attempts(*statuses: int | None) -> list[Attempt]:
    return [
        Attempt(
            number=number, url="https://t.example/v1", model="m", sent_bytes=1, started_at=0.0,
            elapsed_secs=1.0, outcome=AttemptOutcome.DENIED, status=status,
        )
        for number, status in enumerate(statuses, start=1)
    ]  # fmt: skip


def take(width: Width, count: int = 1) -> None:
    """Take places that are free, for which nothing needs to wait."""
    for _ in range(count):
        with pytest.raises(StopIteration):
            width.acquire().send(None)


def play(width: Width, *calls: tuple[int | None, ...]) -> None:
    """Have these calls in flight together; then they end in this order, with these statuses."""
    take(width, len(calls))
    for statuses in calls:
        width.release(attempts(*statuses))


def good(count: int) -> list[tuple[int]]:
    return [(200,)] * count


def test_a_width_has_a_text_and_values_of_its_own():
    width = Width()
    assert repr(width) == "Width(limit=20, in_use=0, maximum=200)"
    assert width.history == [(0.0, 20)]
    take(width, 3)
    assert repr(width) == "Width(limit=20, in_use=3, maximum=200)"
    assert repr(Width(5, 3)) == "Width(limit=5, in_use=0, maximum=5)"
    assert repr(Width(maximum=7, start=2)) == "Width(limit=2, in_use=0, maximum=7)"
    assert repr(Width(1, 1)) == "Width(limit=1, in_use=0, maximum=1)"


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ((None,), "the start of a width must be a whole number, not None"),
        ((1, None), "the maximum of a width must be a whole number, not None"),
        ((0,), "the start of a width must be at least 1, not 0"),
        ((1, 0), "the maximum of a width must be at least 1, not 0"),
        ((1.5,), "the start of a width must be a whole number, not 1.5"),
        ((1, "2"), "the maximum of a width must be a whole number, not '2'"),
    ],
)
def test_what_is_no_width_is_refused_by_name(values, error):
    with pytest.raises(InvalidParameterError) as caught:
        Width(*values)
    assert str(caught.value) == error


def test_a_width_doubles_once_as_many_calls_were_taken_as_it_permits(clock):
    width = Width(4, 64)
    clock.now += 1.5
    play(width, *good(4))
    assert (width.limit, width.in_use) == (8, 0)
    clock.now += 2
    play(width, *good(7))
    assert width.limit == 8
    play(width, *good(1))
    assert width.history == [(0.0, 4), (1.5, 8), (3.5, 16)]


@pytest.mark.parametrize(("most", "limit"), [(7, 10), (8, 20), (9, 20), (10, 20)])
def test_a_width_grows_only_if_four_fifths_of_it_were_used(most, limit):
    width = Width(10, 100)
    play(width, *good(most))
    for _ in range(10 - most):
        play(width, *good(1))
    assert width.limit == limit


def test_each_round_counts_its_own_calls_and_the_most_of_them_in_flight():
    width = Width(10, 100)
    for _ in range(10):
        play(width, *good(1))
    play(width, *good(9))
    assert width.limit == 10
    play(width, *good(1))
    assert width.limit == 20
    play(width, *good(15))  # too few at a time
    play(width, *good(5))
    play(width, *good(5))
    play(width, *good(15))
    assert width.limit == 20
    play(width, *good(16))
    play(width, *good(4))
    assert width.limit == 40


def test_a_width_stops_at_its_maximum(clock):
    width = Width(4, 6)
    for _ in range(4):
        clock.now += 1
        play(width, *good(width.limit))
    assert width.history == [(0.0, 4), (1.0, 6)]


@pytest.mark.parametrize(
    ("statuses", "limit"),
    [
        ((200,), 20), ((201,), 20), ((400,), 20), ((404,), 20), ((499,), 20),
        ((500,), 10), ((501,), 10), ((502,), 10), ((504,), 10), ((None,), 10),
        ((429,), 8), ((503,), 8), ((529,), 8), ((428,), 20), ((430,), 20), ((528,), 10),
        ((200, 200), 10), ((400, 200), 10), ((500, 200), 10), ((200, None), 10),
        ((429, 200), 8), ((200, 503), 8), ((500, 529), 8), ((), 10),
    ],
)  # fmt: skip
def test_what_the_last_call_of_a_round_was_told_decides_about_the_width(statuses, limit):
    width = Width(10, 100)
    play(width, *good(9), statuses)
    assert (width.limit, width.in_use) == (limit, 0)


@pytest.mark.parametrize(
    ("statuses", "missing"), [((500,), 10), ((None,), 10), ((200, 200), 1), ((), 1)]
)
def test_after_an_error_of_the_server_a_round_begins_anew(statuses, missing):
    width = Width(10, 100)
    play(width, *good(9), statuses)
    play(width, *good(missing - 1))
    assert width.limit == 10
    play(width, *good(1))
    assert width.limit == 20


@pytest.mark.parametrize("status", [429, 500])
def test_a_round_that_begins_anew_forgets_how_many_were_in_flight(status):
    width = Width(10, 100)
    play(width, *good(9), (status,))
    before = width.limit
    for _ in range(before):
        play(width, *good(1))
    assert width.limit == before
    for _ in range(4):  # 8 grows by 5 % a round, which adds up
        play(width, *good(width.limit))
    assert width.limit == {429: 9, 500: 160 if before == 20 else 100}[status]


def test_a_refusal_cuts_a_fifth_at_most_once_in_fifteen_seconds(clock):
    width = Width(100, 200)
    play(width, (429,))
    for secs, limit in ((0, 80), (14.5, 80), (0.5, 64), (14.9, 64), (0.1, 51), (100, 40)):
        clock.now += secs
        play(width, (503,), (529,))
        assert width.limit == limit
    assert width.history == [(0.0, 100), (0.0, 80), (15.0, 64), (30.0, 51), (130.0, 40)]


def test_a_cut_leaves_at_least_one_call():
    width = Width(1, 9)
    play(width, (429,))
    assert (width.limit, width.history) == (1, [(0.0, 1)])
    play(width, *good(1))
    assert width.limit == 1
    for _ in range(14):  # 1.05 to the fifteenth is the first that is more than two
        play(width, *good(1))
    assert width.limit == 2


def test_after_a_refusal_a_width_grows_by_a_twentieth_a_round(clock):
    width = Width(100, 200)
    play(width, (429,))
    limits = []
    for _ in range(6):
        clock.now += 100
        play(width, *good(width.limit))
        limits.append(width.limit)
    assert limits == [84, 88, 92, 97, 102, 107]


def test_parts_of_calls_are_grown_by_only_if_the_width_was_used():
    width = Width(12, 100)
    play(width, (429,))  # 9.6
    play(width, *good(9))  # 10.08
    assert width.limit == 10
    for _ in range(10):
        play(width, *good(1))
    play(width, *good(10))  # 10.584
    assert width.limit == 10
    play(width, *good(10))  # 11.1132
    assert width.limit == 11


@pytest.mark.parametrize(("start", "maximum"), [(4, 4), (5, 3)])
def test_a_fixed_width_learns_nothing(start, maximum):
    width = Width(start, maximum)
    play(width, *[(429,)] * start)
    play(width, *good(start))
    assert (width.limit, width.in_use, len(width.history)) == (start, 0, 1)


def test_a_history_ends_when_it_is_long(monkeypatch):
    monkeypatch.setattr(rules, "MAX_HISTORY", 3)
    width = Width(1, 100)
    for _ in range(5):
        play(width, *good(width.limit))
    assert [limit for _, limit in width.history] == [1, 2, 4]
    assert width.limit == 32


def test_the_rules_have_these_numbers():
    assert (rules.START, rules.MAXIMUM, rules.MAX_HISTORY) == (20, 200, 10_000)


async def settled(*tasks: asyncio.Task) -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_who_came_first_goes_first_when_a_place_is_free():
    width = Width(2, 2)
    tasks = [asyncio.ensure_future(width.acquire()) for _ in range(5)]
    assert await settled(*tasks) == [True, True, False, False, False]
    assert width.in_use == 2
    width.release()
    assert width.in_use == 2, "the place is that of the next one at once"
    late = asyncio.ensure_future(width.acquire())
    assert await settled(*tasks, late) == [True, True, True, False, False, False]
    for _ in range(3):
        width.release()
    assert await settled(*tasks, late) == [True] * 6
    for _ in range(2):
        width.release()
    assert width.in_use == 0


async def test_a_width_that_has_grown_lets_several_go():
    width = Width(2, 8)
    tasks = [asyncio.ensure_future(width.acquire()) for _ in range(7)]
    await settled(*tasks)
    width.release(attempts(200))
    assert await settled(*tasks) == [True] * 3 + [False] * 4
    width.release(attempts(200))
    assert width.limit == 4
    assert await settled(*tasks) == [True] * 6 + [False]
    assert width.in_use == 4
    for _ in range(3):
        width.release()
    assert await settled(*tasks) == [True] * 7
    width.release()
    width.release()
    assert width.in_use == 0


async def test_a_waiter_that_gives_up_takes_no_place_and_one_that_had_it_returns_it():
    width = Width(1, 1)
    take(width)
    first, second, third = (asyncio.ensure_future(width.acquire()) for _ in range(3))
    await settled()
    first.cancel()
    await settled()
    assert first.cancelled()
    width.release()  # the place of the second, who does not know it yet
    second.cancel()
    assert await settled(second, third) == [True, True]
    assert second.cancelled()
    assert not third.cancelled()
    assert width.in_use == 1
    width.release()
    assert width.in_use == 0
    take(width)


def test_a_waiter_whose_event_loop_was_closed_holds_nobody_up():
    width = Width(1, 1)
    take(width)
    lost = width.acquire()

    async def wait_in_vain() -> None:
        lost.send(None)

    asyncio.run(wait_in_vain())

    async def main() -> None:
        waiting = asyncio.ensure_future(width.acquire())
        await asyncio.sleep(0)
        width.release()
        assert width.in_use == 1
        await waiting

    asyncio.run(main())
    lost.close()


@pytest.mark.parametrize("was_given_a_place", [False, True])
def test_a_waiter_of_a_closed_event_loop_returns_a_place_only_if_it_was_given_one(
    was_given_a_place,
):
    width = Width(1, 1)
    take(width)
    lost, loop = width.acquire(), asyncio.new_event_loop()

    async def wait_in_vain() -> None:
        lost.send(None)

    loop.run_until_complete(wait_in_vain())
    if was_given_a_place:
        width.release()
        assert width.in_use == 1, "the place is that of the one that waits"
    loop.close()
    if not was_given_a_place:
        width.release()
        assert width.in_use == 0, "nobody is there to take the place"
    lost.close()
    assert width.in_use == 0
    take(width)
    assert width.in_use == 1


async def test_a_run_has_the_width_that_was_given_or_that_of_its_server():
    own = Width(3)
    assert width_for(own, GENERATOR) is own
    assert repr(width_for(7, GENERATOR)) == "Width(limit=7, in_use=0, maximum=7)"
    shared = width_for(None, GENERATOR)
    assert repr(shared) == "Width(limit=20, in_use=0, maximum=200)"
    assert width_for(None, GENERATOR.replace(model="another")) is shared
    assert width_for(None, GENERATOR.with_api_key("k")) is not shared

    async def item() -> None:
        mark_call()
        assert width_for(None, GENERATOR) is not shared
        assert width_for(own, GENERATOR) is own

    await asyncio.create_task(item())
    assert width_for(None, GENERATOR) is shared
