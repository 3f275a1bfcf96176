"""Provider batches over kills, broken connections and restarts: nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from batch_vendors import VENDORS, Anthropic, OpenAi, OpenRouter, Vendor, fates_of
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st
from virtual_clock import run_virtually

from minillmlib import (
    AnthropicProvider,
    BadRequestError,
    Budget,
    BulkOutcome,
    CompletionParameters,
    MalformedResponseError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    map_complete,
)

PARAMS = NodeCompletionParameters(
    params=CompletionParameters(max_tokens=50), retry=4, crash_on_empty_response=True
)
AGAIN = ("429", "500", "expired", "canceled", "wrong")  # fates that another batch may better


def small(vendor: type[Vendor]) -> type[Vendor]:
    """A vendor whose batches have two rows at most."""
    base = {OpenAi: OpenAiProvider, Anthropic: AnthropicProvider, OpenRouter: OpenRouterProvider}
    batches = type(base[vendor].batches)
    of_two = type("OfTwo", (batches,), {"max_rows": 2})
    provider = type("Small", (base[vendor],), {"batches": of_two()})
    return type("Small" + vendor.__name__, (vendor,), {"provider": provider()})


async def run_once(vendor: Vendor, items: list[str], journal: Path, budget: Budget | None = None):
    """The outcomes of a run, or None if the client was killed."""
    vendor.killed = asyncio.Event()
    bulk = map_complete(
        items, vendor.generator, PARAMS, journal=journal, batch=True, ordered=True, budget=budget
    )
    async with bulk:
        outcomes = asyncio.ensure_future(bulk.collect())
        death = asyncio.ensure_future(vendor.killed.wait())
        await asyncio.wait({outcomes, death}, return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not vendor.killed.is_set():
            return outcomes.result()
        outcomes.cancel()
    return None


def restart_until_done(
    vendor: Vendor, items: list[str], fault: Callable[[int, int], str | None]
) -> tuple[list[BulkOutcome[None]], Budget]:
    """Run and run again, with `fault(run, request)`, until the outcomes are there."""
    with TemporaryDirectory() as folder:
        for number in range(50):
            start = len(vendor.requests)
            vendor.fault = lambda n, _, start=start, number=number: fault(number, n - start)
            budget = Budget(1)
            outcomes = run_virtually(run_once(vendor, items, Path(folder, "journal"), budget))
            if outcomes is not None:
                return outcomes, budget
    raise AssertionError("the run never ends")


def check(vendor: Vendor, items: list[str], outcomes: list[BulkOutcome[None]], budget: Budget):
    assert [one.index for one in outcomes] == list(range(len(items)))
    has_bare_batch = any(batch.results == [] for batch in vendor.batches.values())
    for item, outcome in zip(items, outcomes, strict=True):
        fates = fates_of(item)
        if has_bare_batch and not vendor.tries[item]:  # nobody can say whose that batch is
            assert "may have been billed" in str(outcome.error)
            continue
        last = next((fate for fate in fates if fate not in AGAIN), "ok")
        submissions = fates.index(last) + 1 if last in fates else len(fates) + 1
        assert vendor.tries[item] == submissions, f"{item} was submitted {vendor.tries[item]} times"
        assert vendor.ran[item] == (last == "ok") + fates.count("wrong")
        error = outcome.error
        if isinstance(error, MaxRetriesExceededError):
            error = error.last_error
        if last == "ok":
            assert outcome.text == item.upper()
        else:
            kind = BadRequestError if last == "400" else MalformedResponseError
            assert isinstance(error, kind) or type(outcome.error) is MaxRetriesExceededError
    costs = [attempt.cost for one in outcomes for attempt in one.cost.attempts]
    known = sum((cost.cost for cost in costs if cost is not None), Decimal(0))
    assert known == vendor.bill
    if not any(cost is not None and cost.is_unknown for cost in costs):
        assert budget.spent == vendor.bill
    assert budget.spent >= vendor.bill
    assert budget.reserved == 0


ITEMS = ["a", "b!expired", "c!400", "d!500,wrong", "e"]


@pytest.mark.parametrize(
    ("kind", "is_full"),
    [*((kind, False) for kind in VENDORS), (OpenAi, True)],
    ids=["OpenAi", "Anthropic", "OpenRouter", "OpenAi-full"],
)
@pytest.mark.parametrize("moment", ["before", "after", "read"])
@pytest.mark.parametrize("way", ["kill ", ""], ids=["killed", "cut"])
def test_one_kill_or_cut_at_any_request_changes_nothing(kind, moment, way, is_full):
    count = 0
    while True:
        count += 1
        vendor = small(kind)(seed=count)
        vendor.refusals = [("token_limit_exceeded", "The pool is full.", None)] * is_full
        place = count

        def fault(run, n, place=place):
            return way + moment if (run, n) == (0, place) else None

        outcomes, budget = restart_until_done(vendor, ITEMS, fault)
        check(vendor, ITEMS, outcomes, budget)
        if count > len(vendor.requests):
            break
    assert count > 15


@st.composite
def texts(draw):
    fates = draw(st.lists(st.sampled_from(AGAIN), max_size=2))
    end = draw(st.sampled_from(["", "", "400", "missing"]))
    return ",".join([*fates, *([end] if end else [])])


MOMENTS = [f"{way}{moment}" for way in ("kill ", "") for moment in ("before", "after", "read")]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(
    kind=st.sampled_from(VENDORS),
    ends=st.lists(texts(), min_size=1, max_size=7),
    plan=st.lists(
        st.dictionaries(st.integers(1, 25), st.sampled_from(MOMENTS), max_size=4), max_size=6
    ),
    full=st.integers(0, 2),
    strangers=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(  # a batch without results, of which nobody can say whose it is
    kind=Anthropic, ends=["", "", "missing", "missing"], plan=[{2: "kill after"}], full=0,
    strangers=False, seed=0,
)  # fmt: skip
@example(  # the same of the first batch, after which the other might have been sent
    kind=Anthropic, ends=["missing", "missing", "", ""], plan=[{1: "kill after"}], full=0,
    strangers=False, seed=0,
)  # fmt: skip
def test_any_number_of_kills_and_cuts(kind, ends, plan, full, strangers, seed):
    vendor = small(kind)(seed=seed)
    items = [f"{place}!{end}" if end else str(place) for place, end in enumerate(ends)]
    if kind is OpenAi:
        vendor.refusals = [("token_limit_exceeded", "The pool is full.", None)] * full
    if strangers:
        plain = vendor.create
        vendor.create = lambda rows, tag=None: with_a_stranger(vendor, plain, rows, tag)
    outcomes, budget = restart_until_done(
        vendor, items, lambda run, n: plan[run].get(n) if run < len(plan) else None
    )
    note(vendor.log)
    check(vendor, items, outcomes, budget)


def with_a_stranger(vendor: Vendor, create, rows, tag):
    """Another program creates a batch that looks alike at the same moment."""
    ours = create(rows, tag)
    others = [(f"other-{place}", body) for place, (_, body) in enumerate(rows)]
    bill, tries = vendor.bill, vendor.tries.copy()
    theirs = create(others, None)
    vendor.bill, vendor.tries = bill, tries
    theirs.results = [(name, "ok", vendor.answer("theirs")) for name, _ in others]
    return ours
