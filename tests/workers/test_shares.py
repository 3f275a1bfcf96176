"""Shares and leases: whatever workers do, together they never get more than the whole."""

from __future__ import annotations

import itertools
import math
import pickle
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillmlib import Bank, Budget, InvalidParameterError, Lease, Pace

USD = st.decimals(0, 1000, places=6)
COUNTS = st.integers(1, 64)


@given(USD, COUNTS)
def test_the_shares_of_a_budget_are_equal_and_sum_up_to_it(limit, count):
    shares = [one.limit for one in Budget(limit).split(count)]
    assert len(shares) == count
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= Decimal("0.000001")
    assert min(shares) >= 0


@given(st.integers(1, 100_000), st.integers(1, 100_000), COUNTS)
def test_the_shares_of_a_pace_are_equal_and_sum_up_to_it(requests, tokens, count):
    pace = Pace(requests, input_tokens_per_minute=tokens)
    if min(requests, tokens) < count:
        with pytest.raises(InvalidParameterError, match="cannot be shared by"):
            pace.split(count)
        return
    shares = pace.split(count)
    for name, whole in (("requests_per_minute", requests), ("input_tokens_per_minute", tokens)):
        parts = [getattr(share, name) for share in shares]
        assert sum(parts) == whole
        assert max(parts) - min(parts) <= 1
    assert {share.output_tokens_per_minute for share in shares} == {None}


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2", None])
def test_a_number_of_shares_is_a_whole_number(count):
    for whole in (Budget(1), Pace()):
        with pytest.raises(InvalidParameterError, match="number of shares"):
            whole.split(count)


def test_a_budget_in_use_cannot_be_split():
    spent, parent = Budget(1), Budget(1)
    spent.charge(Decimal("0.1"))
    for budget in (spent, parent.child(1)):
        with pytest.raises(InvalidParameterError, match="make a new one of what remains"):
            budget.split(2)


class Worker:
    """What a worker leases, spends and gives back; it may die with all that it holds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = self.spent = Decimal(0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lease", "spend", "give back", "die", "wait"]),
        st.integers(0, 3),  # the worker
        st.integers(0, 200),  # requests, or hundredths of a second
        st.decimals(0, 1, places=4),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sampled_from([1, 7, 60, 600, 6000, 100_000]), st.decimals(0, 2, places=4))
def test_a_bank_never_grants_more_than_the_cap_and_the_rate(steps, per_minute, cap):
    now = 0.0
    bank = Bank(per_minute, cap, clock=lambda: now)
    workers = [Worker(f"worker {number}") for number in range(4)]
    spent, lost = Decimal(0), Decimal(0)
    slots: list[float] = []
    for number, (what, place, count, usd) in enumerate(steps):
        worker = workers[place]
        if what == "lease":
            lease = bank.lease(worker.name, count, usd, worker.held)
            assert lease.requests <= count
            assert lease.usd <= usd
            worker.held += lease.usd
            slots += [
                now + lease.wait_secs + place * lease.interval_secs
                for place in range(lease.requests)
            ]
        elif what == "spend":
            part = min(usd, worker.held)
            worker.held -= part
            spent += part
        elif what == "give back":
            part = min(usd, worker.held)
            worker.held -= part
            bank.give_back(worker.name, part, worker.held)
        elif what == "die":  # another one comes, perhaps with its name
            lost += worker.held
            workers[place] = Worker(worker.name if count % 2 else f"worker {place} {number}")
        else:
            now += count / 100
        assert spent + lost + sum(one.held for one in workers) + bank.remaining <= cap
    slots.sort()
    for first, start in enumerate(slots):  # in no minute more than the rate
        inside = sum(start <= slot < start + 60 for slot in slots[first:])
        assert inside <= per_minute
    if len(slots) > 1:  # evenly
        gaps = [later - slot for slot, later in itertools.pairwise(slots)]
        assert min(gaps) > 60 / per_minute - 1e-6


def test_money_that_is_given_back_can_be_leased_again():
    bank = Bank(usd="0.10")
    assert bank.lease("a", 0, Decimal("0.08")).usd == Decimal("0.08")
    short = bank.lease("b", 0, Decimal("0.08"))
    assert (short.usd, short.may_come) == (Decimal("0.02"), True)
    bank.give_back("a", Decimal("0.05"))
    rest = bank.lease("b", 0, Decimal("0.08"), Decimal("0.02"))
    assert (rest.usd, rest.may_come) == (Decimal("0.05"), False)  # the rest of `a` is spent


def test_nobody_can_give_back_what_was_not_leased():
    bank = Bank(usd="0.10")
    bank.give_back("a", Decimal(5))
    bank.lease("a", 0, Decimal("0.01"), Decimal(7))
    bank.give_back("a", Decimal(5))
    assert bank.remaining <= Decimal("0.10")


def test_what_workers_hold_of_an_earlier_bank_is_not_free():
    bank = Bank(usd="0.10")
    lease = bank.lease("a", 0, Decimal("0.10"), Decimal("0.04"))
    assert lease.usd == Decimal("0.06")


WRONG = [None, "1", float("nan"), -1, Decimal("NaN"), Decimal(-1), Decimal("Infinity"), 10**5000]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: type(wrong).__name__)
def test_a_worker_that_asks_for_nonsense_harms_no_other(wrong):
    bank = Bank(600, "0.10", clock=lambda: 0.0)
    for arguments in [("a", wrong, Decimal(0)), ("a", 1, wrong), ("a", 1, Decimal(0), wrong)]:
        with pytest.raises(InvalidParameterError):
            bank.lease(*arguments)
    for arguments in [("a", wrong), ("a", Decimal(0), wrong), (5, Decimal(0))]:
        with pytest.raises(InvalidParameterError):
            bank.give_back(*arguments)
    lease = bank.lease("b", 1, Decimal("0.10"))
    assert (lease.requests, lease.wait_secs, lease.usd) == (1, 0, Decimal("0.10"))


def test_money_of_a_worker_that_is_silent_is_not_waited_for():
    now = 0.0
    bank = Bank(usd="0.10", clock=lambda: now)
    bank.lease("dead", 0, Decimal("0.10"))
    assert bank.lease("b", 0, Decimal("0.01")).may_come
    now = 61.0
    lease = bank.lease("b", 0, Decimal("0.01"))
    assert (lease.usd, lease.may_come) == (0, False)


def test_a_lease_is_at_most_a_second_of_the_rate():
    bank = Bank(6000)
    lease = bank.lease("a", 500, Decimal(0))
    assert 95 <= lease.requests <= 100
    assert math.isclose(lease.requests * lease.interval_secs, 1, rel_tol=0.02)
    assert bank.lease("b", 500, Decimal(0)).wait_secs > 0.9


@pytest.mark.parametrize(
    ("per_minute", "asked", "granted", "interval"),
    [
        (None, 7, 7, 0.0), (None, 0, 0, 0.0), (600, 0, 0, 0.1020408), (600, 1, 1, 0.1020408),
        (600, 9, 9, 0.1020408), (600, 10, 9, 0.1020408), (600, 500, 9, 0.1020408),
        (30, 5, 1, 2.0408163), (1, 5, 1, 61.2244898), (100_000, 2000, 1633, 0.0006122449),
    ],
)  # fmt: skip
def test_requests_are_leased_for_a_second_at_98_percent_of_the_rate(
    per_minute, asked, granted, interval
):
    now = 5000.0
    bank = Bank(per_minute, clock=lambda: now)
    lease = bank.lease("a", asked, Decimal(3))
    assert (lease.requests, lease.wait_secs, lease.usd, lease.may_come) == (granted, 0, 3, False)
    assert lease.interval_secs == pytest.approx(interval, rel=1e-5)
    assert bank.remaining is None
    bank.give_back("a", Decimal(3))
    assert bank.remaining is None
    second = bank.lease("b", 1, Decimal(0))
    assert second.wait_secs == pytest.approx(granted * interval)
    now += 0.05
    third = bank.lease("a", 1, Decimal(0))
    taken = (granted + 1) * interval
    assert third.wait_secs == pytest.approx(max(taken - 0.05, 0), abs=1e-4)
    now += 200
    assert bank.lease("a", 1, Decimal(0)).wait_secs == 0


def test_money_goes_from_hand_to_hand_to_the_cent():
    now = 5000.0
    bank = Bank(usd="1.00", clock=lambda: now)

    def lease(worker: str, usd: str, held: str = "0") -> tuple[str, bool, str]:
        one = bank.lease(worker, 0, Decimal(usd), Decimal(held))
        return str(one.usd), one.may_come, str(bank.remaining)

    def give_back(worker: str, usd: str, held: str = "0") -> str:
        assert bank.give_back(worker, Decimal(usd), Decimal(held)) is None
        return str(bank.remaining)

    assert lease("a", "0.40") == ("0.40", False, "0.60")
    assert lease("b", "0.80") == ("0.60", True, "0.00")
    assert give_back("a", "0.10", "0.10") == "0.10"
    assert lease("c", "0.20") == ("0.10", True, "0.00")
    assert give_back("b", "0.50") == "0.50"  # the rest is spent
    assert give_back("b", "0.50") == "0.50"
    assert give_back("nobody", "0.50") == "0.50"
    assert give_back("a", "0.90") == "0.60"  # and never more than it had
    assert lease("a", "0") == ("0", True, "0.60")
    assert lease("d", "1") == ("0.60", True, "0.00")
    assert lease("c", "1", "0.10") == ("0.00", True, "0.00")
    assert lease("d", "1", "0.20") == ("0.00", True, "0.00")
    now += 59.5
    assert lease("d", "1", "0.20") == ("0.00", True, "0.00")
    now += 0.5
    assert lease("d", "1", "0.20") == ("0.00", False, "0.00")
    assert lease("e", "1", "0") == ("0.00", True, "0.00")
    assert give_back("d", "0.10", "0.10") == "0.10"
    now += 60
    assert lease("e", "1", "0") == ("0.10", False, "0.00")


@pytest.mark.parametrize(
    ("free", "held", "asked", "granted", "remaining"),
    [
        ("1", "0.3", "0.5", "0.5", "0.2"), ("1", "0.3", "0.7", "0.7", "0"),
        ("1", "0.3", "0.8", "0.7", "0"), ("1", "1", "0.1", "0", "0"), ("1", "5", "0.1", "0", "0"),
        ("1", "0", "0", "0", "1"),
    ],
)  # fmt: skip
def test_money_of_an_earlier_bank_stays_that_of_its_worker(free, held, asked, granted, remaining):
    bank = Bank(usd=free, clock=lambda: 0.0)
    assert bank.lease("a", 0, Decimal(asked), Decimal(held)).usd == Decimal(granted)
    assert bank.remaining == Decimal(remaining)
    known = min(Decimal(held), Decimal(free)) + Decimal(granted)
    bank.give_back("a", Decimal(9))
    assert bank.remaining == Decimal(remaining) + known


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Lease(requests=1.5), "the requests of a lease must be a whole number, not 1.5"),
        (lambda: Lease(wait_secs=None), "the wait_secs of a lease must be a number, not None"),
        (lambda: Lease(interval_secs="1"),
         "the interval_secs of a lease must be a finite number, not '1'"),
        (lambda: Lease(wait_secs=-0.1), "the wait_secs of a lease must be at least 0, not -0.1"),
        (lambda: Lease(usd="1"),
         "the usd of a lease must be an amount of USD, finite and not negative, not '1'"),
        (lambda: Bank(0), "requests_per_minute must be at least 1, not 0"),
        (lambda: Bank(1.5), "requests_per_minute must be a whole number, not 1.5"),
        (lambda: Bank(usd=-1), "a bank's usd must be an amount of USD, finite and not negative, "
         "not -1"),
        (lambda: Bank().lease("a", 1.5, Decimal(0)),
         "the requests that a worker leases must be a whole number, not 1.5"),
        (lambda: Bank().lease(5, 1, Decimal(0)), "the name of a worker must be a text, not int"),
        (lambda: Bank().lease("a", 1, 0),
         "the usd of a worker must be an amount of USD, finite and not negative, not 0"),
        (lambda: Bank().give_back("a", Decimal(0), 0),
         "the held USD of a worker must be an amount of USD, finite and not negative, not 0"),
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused_by_its_name(make, error):
    with pytest.raises(InvalidParameterError) as caught:
        make()
    assert str(caught.value) == error


def test_a_lease_of_nothing_is_one():
    assert Lease() == Lease(
        requests=0, wait_secs=0.0, interval_secs=0.0, usd=Decimal(0), may_come=False
    )
    assert (Bank(1).remaining, Bank(usd=1).remaining) == (None, 1)


def test_a_bank_is_not_copied_and_a_lease_is():
    with pytest.raises(InvalidParameterError, match="its copies would grant the same money"):
        pickle.dumps(Bank(usd=1))
    lease = Lease(requests=3, wait_secs=0.5, interval_secs=0.1, usd=Decimal("0.1"))
    assert pickle.loads(pickle.dumps(lease)) == lease


@pytest.mark.parametrize(
    "fields",
    [
        {"requests": -1},
        {"requests": None},
        {"wait_secs": float("nan")},
        {"interval_secs": -1},
        {"usd": 0.1},
    ],
)
def test_a_lease_of_another_bank_must_make_sense(fields):
    with pytest.raises(InvalidParameterError):
        Lease(**fields)
