"""What holds of every bill: buckets that add up, prices that are plain sums, totals that are honest."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from typing import Any

import msgspec
import pytest
from bill_records import chat, claude
from bill_wires import WIRES, Record, streamed, whole
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minillmlib import (
    Attempt,
    AttemptOutcome,
    Budget,
    BudgetExceededError,
    CostEstimate,
    CostInfo,
    CostOutcome,
    CostResolution,
    CostTotal,
    InvalidParameterError,
    TokenPrice,
    Usage,
)

pytestmark = pytest.mark.long

MOST = 2**53
# The same examples in every run.
PURE = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
CALLS = settings(PURE, max_examples=40)
MANY_CALLS = settings(PURE, max_examples=200)
CHAT_WIRES = sorted(name for name, wire in WIRES.items() if not wire.is_claude)

BUCKETS = ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "completion_tokens")
COUNTS = st.integers(0, 9) | st.integers(0, 2**40)
FEW = st.integers(0, 4)
ANY_COUNT = st.integers(0, MOST)
CENTS = st.integers(0, 10**11).map(lambda cents: Decimal(cents).scaleb(-2))
RATES = st.integers(0, 10**12).map(lambda nanos: Decimal(nanos).scaleb(-9))


@st.composite
def usages(draw: Any, counts: st.SearchStrategy[int] = COUNTS) -> Usage:
    written, completion = draw(counts), draw(counts)
    return Usage(
        uncached_input_tokens=draw(counts),
        cache_read_tokens=draw(counts),
        cache_write_tokens=written,
        cache_write_1h_tokens=draw(st.integers(0, written)),
        completion_tokens=completion,
        reasoning_tokens=draw(st.integers(0, completion)),
    )


@st.composite
def prices(draw: Any, rates: st.SearchStrategy[Decimal] = RATES) -> TokenPrice:
    """A price with or without rates of its own for the cache."""
    maybe = st.none() | rates
    more = {name: draw(maybe) for name in ("cache_read", "cache_write", "cache_write_1h")}
    return TokenPrice(draw(rates), draw(rates), **more)


def plus(left: Usage, right: Usage) -> Usage:
    names = (name for name in Usage.__struct_fields__ if name.endswith("_tokens"))
    return Usage(**{name: getattr(left, name) + getattr(right, name) for name in names})


def by_fractions(price: TokenPrice, usage: Usage) -> Fraction:
    """The bill in whole numbers, where nothing can be rounded."""
    otherwise = {name: price.input if rate is None else rate for name, rate in (
        ("read", price.cache_read), ("5m", price.cache_write), ("1h", price.cache_write_1h))}  # fmt: skip
    for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
    parts = (
        (usage.uncached_input_tokens, price.input),
        (usage.cache_read_tokens, otherwise["read"]),
        (for_5m, otherwise["5m"]),
        (usage.cache_write_1h_tokens, otherwise["1h"]),
        (usage.completion_tokens, price.output),
    )
    return sum(count * Fraction(rate) for count, rate in parts) / 10**6


# Buckets.


@CALLS
@given(usages())
def test_the_buckets_of_anthropic_are_those_of_the_record(usage):
    assume(usage.prompt_tokens)
    for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
    record = claude(
        usage.uncached_input_tokens, usage.completion_tokens, usage.cache_read_tokens, for_5m,
        usage.cache_write_1h_tokens, output_tokens_details={"thinking_tokens": usage.reasoning_tokens},
    )  # fmt: skip
    assert whole("anthropic", record).response.usage == usage
    assert streamed("anthropic", WIRES["anthropic"].cut(record)).response.usage == usage


def chat_record(usage: Usage, *, hides_thoughts: bool, tells_misses: bool) -> Record:
    written = usage.completion_tokens - (usage.reasoning_tokens if hides_thoughts else 0)
    record: Record = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": usage.total_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if tells_misses and not usage.cache_write_tokens:
        return record | {
            "prompt_cache_hit_tokens": usage.cache_read_tokens,
            "prompt_cache_miss_tokens": usage.uncached_input_tokens,
        }
    details = {
        "cached_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    return record | {"prompt_tokens_details": details}


@CALLS
@given(usages(), st.booleans(), st.booleans(), st.sampled_from(CHAT_WIRES))
def test_the_buckets_of_every_other_wire_add_up_to_its_prompt(usage, hides, misses, wire):
    assume(usage.prompt_tokens)
    record = chat_record(usage, hides_thoughts=hides, tells_misses=misses)
    for node in (whole(wire, record), streamed(wire, [record])):
        read = node.response.usage
        assert [getattr(read, name) for name in BUCKETS] == [
            getattr(usage, name) for name in BUCKETS
        ]
        assert read.reasoning_tokens == usage.reasoning_tokens
        assert read.prompt_tokens == record["prompt_tokens"]
        assert read.total_tokens == record["total_tokens"]


MAYBE = st.none() | FEW
ANY_CHAT_RECORD = st.fixed_dictionaries({
    "prompt_tokens": st.integers(0, 8),
    "completion_tokens": FEW,
    "total_tokens": st.none() | st.integers(0, 12),
    "prompt_tokens_details": st.none() | st.fixed_dictionaries(
        {"cached_tokens": MAYBE, "cache_write_tokens": MAYBE}),
    "completion_tokens_details": st.none() | st.fixed_dictionaries({"reasoning_tokens": MAYBE}),
    "prompt_cache_hit_tokens": MAYBE,
    "prompt_cache_miss_tokens": MAYBE,
})  # fmt: skip


def adds_up(record: Record) -> bool:
    """Whether all that a chat record tells can be true at once."""
    details = record["prompt_tokens_details"] or {}
    hits, cached = record["prompt_cache_hit_tokens"], details.get("cached_tokens")
    read = (hits if cached is None else cached) or 0
    held = read + (details.get("cache_write_tokens") or 0)
    prompt, total = record["prompt_tokens"], record["total_tokens"]
    written = record["completion_tokens"] if total is None else total - prompt
    thought = (record["completion_tokens_details"] or {}).get("reasoning_tokens") or 0
    return (
        prompt > 0
        and held <= prompt
        and thought <= written >= record["completion_tokens"]
        and hits in (None, read)
        and record["prompt_cache_miss_tokens"] in (None, prompt - held)
    )


@MANY_CALLS
@given(ANY_CHAT_RECORD)
def test_a_chat_record_is_used_if_and_only_if_it_adds_up(record):
    usage = whole("openai", record).response.usage
    assert (usage is not None) == adds_up(record)
    if usage is not None:
        prompt, total = record["prompt_tokens"], record["total_tokens"]
        assert usage.prompt_tokens == prompt
        assert usage.total_tokens == (
            prompt + record["completion_tokens"] if total is None else total
        )


@MANY_CALLS
@given(FEW, FEW, FEW, FEW, FEW, FEW, FEW)
def test_an_anthropic_record_is_used_if_and_only_if_it_adds_up(
    fresh, read, written, for_5m, for_1h, out, mind
):
    record = claude(fresh, out, read, for_5m, for_1h) | {
        "cache_creation_input_tokens": written,
        "output_tokens_details": {"thinking_tokens": mind},
    }
    usage = whole("anthropic", record).response.usage
    is_sound = for_5m + for_1h == written and mind <= out
    assert (usage is not None) == (is_sound and fresh + read + written > 0)
    assert usage is None or usage.prompt_tokens == fresh + read + written


@CALLS
@given(st.lists(usages().filter(lambda usage: usage.prompt_tokens), min_size=1, max_size=4))
def test_iterations_are_added_up(parts):
    iterations = [
        claude(
            part.uncached_input_tokens, part.completion_tokens, part.cache_read_tokens,
            part.cache_write_tokens - part.cache_write_1h_tokens, part.cache_write_1h_tokens,
            type="message", model="m",
        )
        for part in parts
    ]  # fmt: skip
    record = iterations[-1] | {"iterations": iterations}
    expected = reduce(plus, parts, Usage())
    expected = msgspec.structs.replace(expected, reasoning_tokens=0)
    assert whole("anthropic", record).response.usage == expected
    assert streamed("anthropic", [iterations[0], record]).response.usage == expected


# Prices.


@PURE
@given(prices(), usages())
def test_a_bill_is_exact(price, usage):
    assert Fraction(price.cost_of(usage)) == by_fractions(price, usage)


@PURE
@given(prices(CENTS), usages(ANY_COUNT))
def test_a_bill_of_any_size_is_exact_in_cents_a_million(price, usage):
    assert Fraction(price.cost_of(usage)) == by_fractions(price, usage)


@PURE
@given(prices(), usages(), usages())
def test_a_bill_of_two_requests_is_the_sum_of_their_bills(price, left, right):
    assert price.cost_of(plus(left, right)) == price.cost_of(left) + price.cost_of(right)


@PURE
@given(prices(), usages())
def test_a_bill_is_the_sum_over_its_buckets(price, usage):
    one_by_one = [
        Usage(uncached_input_tokens=usage.uncached_input_tokens),
        Usage(cache_read_tokens=usage.cache_read_tokens),
        Usage(cache_write_tokens=usage.cache_write_tokens,
              cache_write_1h_tokens=usage.cache_write_1h_tokens),
        Usage(completion_tokens=usage.completion_tokens),
    ]  # fmt: skip
    assert price.cost_of(usage) == sum(map(price.cost_of, one_by_one))
    # Thoughts are in the output already.
    assert price.cost_of(Usage(reasoning_tokens=usage.reasoning_tokens)) == 0


@PURE
@given(prices(), usages(), usages())
def test_more_tokens_never_cost_less(price, usage, more):
    assert price.cost_of(plus(usage, more)) >= price.cost_of(usage) >= 0


@PURE
@given(prices(), usages(), RATES)
def test_a_higher_price_never_costs_less(price, usage, by):
    def raised(rate: Decimal | None) -> Decimal | None:
        return None if rate is None else rate + by

    higher = TokenPrice(
        price.input + by, price.output + by, cache_read=raised(price.cache_read),
        cache_write=raised(price.cache_write), cache_write_1h=raised(price.cache_write_1h),
    )  # fmt: skip
    assert higher.cost_of(usage) >= price.cost_of(usage)


@PURE
@given(prices(), prices(), usages(), st.integers(-2, 2))
def test_the_whole_request_costs_the_price_above_a_threshold_or_none_of_it(low, high, usage, by):
    threshold = max(0, usage.prompt_tokens + by)
    price = TokenPrice(
        low.input, low.output, cache_read=low.cache_read, cache_write=low.cache_write,
        cache_write_1h=low.cache_write_1h, threshold=threshold, next_tier=high,
    )  # fmt: skip
    used = high if usage.prompt_tokens > threshold else low
    assert price.cost_of(usage) == used.cost_of(usage)
    assert price.has_rates_for(usage) == used.has_rates_for(usage)


@PURE
@given(prices(), usages())
def test_only_what_is_written_for_an_hour_needs_a_rate_of_its_own(price, usage):
    is_covered = price.cache_write_1h is not None or not usage.cache_write_1h_tokens
    assert price.has_rates_for(usage) == is_covered
    assert not price.has_rates_for(Usage(uncached_input_tokens=1, non_token_charges="a fee"))


# Totals.

COSTS = RATES | st.integers(0, 10**9).map(Decimal)
TOTALS = st.builds(CostTotal, cost=COSTS, unpriced=FEW, unknown=FEW)
OUTCOMES = st.none() | st.one_of(
    COSTS.map(lambda cost: CostOutcome.resolved(cost, Usage())),
    st.builds(CostOutcome.unpriced, usages()),
    st.just(CostOutcome.unknown()),
)


@PURE
@given(TOTALS, TOTALS, TOTALS)
def test_totals_add_up_in_any_order(one, two, three):
    assert one + two == two + one
    assert (one + two) + three == one + (two + three)
    assert one + CostTotal() == CostTotal() + one == one


@PURE
@given(st.lists(OUTCOMES, max_size=6), st.lists(OUTCOMES, max_size=6), st.randoms())
def test_a_total_is_the_sum_of_its_parts_however_they_are_dealt(left, right, rng):
    both = [*left, *right]
    rng.shuffle(both)
    assert CostTotal.of(both) == CostTotal.of(left) + CostTotal.of(right)
    kinds = [outcome.resolution for outcome in both if outcome is not None]
    total = CostTotal.of(both)
    assert total.unpriced == kinds.count(CostResolution.UNPRICED)
    assert total.unknown == kinds.count(CostResolution.UNKNOWN)
    known = (outcome.cost for outcome in both if outcome is not None)
    assert Fraction(total.cost) == sum(map(Fraction, known))


@PURE
@given(TOTALS)
def test_a_total_is_a_number_only_if_nothing_is_missing(total):
    is_whole = (total.unpriced, total.unknown) == (0, 0)
    assert total.is_exact == is_whole
    if is_whole:
        assert float(total) == float(total.cost)
        assert str(total) == f"${total.cost:f}"
        return
    with pytest.raises(InvalidParameterError, match="at least"):
        float(total)
    assert str(total).startswith(f"at least ${total.cost:f} (")
    assert ("unpriced" in str(total)) == (total.unpriced > 0)
    assert ("unknown" in str(total)) == (total.unknown > 0)


@PURE
@given(st.lists(TOTALS, max_size=5))
def test_what_is_missing_once_is_missing_in_every_sum(totals):
    assert sum(totals, CostTotal()).is_exact == all(total.is_exact for total in totals)


def test_a_total_adds_to_nothing_else():
    for other in (1, Decimal(1), None):
        with pytest.raises(TypeError):
            CostTotal() + other


# Precision.


def test_the_largest_counts_at_the_largest_price_are_not_rounded():
    price = TokenPrice("999999999.999", "999999999.999")
    usage = Usage(uncached_input_tokens=MOST, completion_tokens=MOST)
    assert Fraction(price.cost_of(usage)) == 2 * MOST * Fraction(999_999_999_999, 10**9)


def test_a_small_price_of_many_digits_is_not_rounded():
    price = TokenPrice("0.1234567890123456789", 0)
    usage = Usage(uncached_input_tokens=10**10 - 1)
    assert (
        Fraction(price.cost_of(usage)) == (10**10 - 1) * Fraction("0.1234567890123456789") / 10**6
    )


def test_a_huge_total_does_not_swallow_a_tiny_cost():
    # 2**53 tokens at 10**9 dollars, and one token at a billionth of a dollar, a million.
    huge, tiny = CostTotal(cost=Decimal(MOST * 1000)), CostTotal(cost=Decimal("1e-15"))
    assert Fraction((huge + tiny).cost) == MOST * 1000 + Fraction(1, 10**15)


def test_a_program_that_rounds_its_own_numbers_does_not_round_a_bill():
    usage = Usage(uncached_input_tokens=123_456, completion_tokens=7_891)
    with decimal.localcontext(prec=4):
        # 123456 x 3 + 7891 x 15 = 370368 + 118365
        assert TokenPrice(3, 15).cost_of(usage) == Decimal("0.488733")


def test_a_program_that_rounds_its_own_numbers_does_not_round_a_total():
    with decimal.localcontext(prec=4):
        total = CostTotal(cost=Decimal("12.3456")) + CostTotal(cost=Decimal("0.0001"))
        assert total.cost == Decimal("12.3457")


def attempt_of(cost: Decimal) -> Attempt:
    return Attempt(
        number=1, url="", model="m", sent_bytes=1, started_at=0.0, elapsed_secs=0.0,
        outcome=AttemptOutcome.FAILED, cost=CostOutcome.resolved(cost, Usage()),
    )  # fmt: skip


# A program may round, refuse to, or have no room for our exponents.
CONTEXTS = (
    decimal.Context(prec=2),
    decimal.Context(prec=3, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation]),
    decimal.Context(prec=1, rounding=decimal.ROUND_UP, Emin=-1, Emax=1, traps=[]),
)


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_context_of_a_program_changes_a_sum(context):
    one, two = Decimal("12345.678"), Decimal("0.0000009")
    with decimal.localcontext(context):
        info = CostInfo.of((attempt_of(one), attempt_of(two)))
        total = CostTotal.of([CostOutcome.resolved(one, Usage()), attempt_of(two).cost])
        routed = chat(9, 4, 13, is_byok=True, cost=12345.678, cost_details={
            "upstream_inference_cost": 0.0000009})  # fmt: skip
        stated = whole("openrouter", routed).response.cost.cost
    assert info.cost == total.cost == stated == Decimal("12345.6780009")
    assert str(total) == "$12345.6780009"


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_context_of_a_program_changes_a_budget(context):
    with decimal.localcontext(context):
        parent = Budget("20000.00000001")
        budget = parent.child("12345.6789")
        first = budget.reserve(CostEstimate(ceiling=Decimal("12345.6788")))
        second = budget.reserve(CostEstimate(ceiling=Decimal("0.0001")))
        with pytest.raises(BudgetExceededError):
            budget.reserve(CostEstimate(ceiling=Decimal("1e-12")))
        first.settle(CostOutcome.unknown())
        first.settle(CostOutcome.resolved(Decimal("1.00000001"), Usage()))
        second.settle(None)
        left = (budget.remaining, parent.remaining)
    assert budget.spent == Decimal("1.00000001")
    assert left == (Decimal("12344.67889999"), Decimal("19999.00000000"))


def test_a_cost_that_is_told_again_is_not_spent_again():
    budget, cost = Budget("10"), CostOutcome.resolved(Decimal("0.7"), Usage())
    known, unknown = (budget.reserve(CostEstimate(ceiling=Decimal(1))) for _ in range(2))
    for _ in range(2):
        known.settle(cost)
        unknown.settle(CostOutcome.unknown())
        assert (budget.spent, budget.reserved) == (Decimal("1.7"), 0)
    for _ in range(2):
        known.settle(cost)
        unknown.settle(cost)
        assert (budget.spent, budget.reserved) == (Decimal("1.4"), 0)


def test_a_number_of_a_million_digits_is_never_written_out():
    sums = CostTotal(cost=Decimal(1)) + CostTotal(cost=Decimal("1e-900000"))
    assert len(sums.cost.as_tuple().digits) <= 1000
