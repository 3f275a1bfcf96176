"""What a pace does at each of many steps: who goes when, for what charge, and how long the rest waits."""

from __future__ import annotations

import pytest
from pace_tape import Plan, play

from golden import GOLDEN
from minillmlib import RateLimits

REFUSALS = ("answered", "answered", "refused", "failed")
WAITS = (0.0, 0.0, 0.02, 0.3, 2.0)


def stated(kind, limit, *remaining):
    """What a server states of one kind of limit: so many remain, of which one is chosen each time."""
    return tuple(
        RateLimits(**{f"limit_{kind}": limit, f"remaining_{kind}": left}) for left in remaining
    )


PLANS = {
    "requests": Plan({"requests_per_minute": 90}, 1, WAITS, REFUSALS),
    "tokens of prompts": Plan({"input_tokens_per_minute": 9000}, 2, WAITS, REFUSALS),
    "tokens of answers": Plan(
        {"output_tokens_per_minute": 3000}, 3, WAITS, ("answered", "answered without counts", "failed")
    ),
    "all three, shared": Plan(
        {"requests_per_minute": 500, "input_tokens_per_minute": 90_000,
         "output_tokens_per_minute": 10_001},
        4, WAITS, REFUSALS, stated("tokens", 60_000, 59_000, 20_000, 10), shares=3,
    ),
    "nothing known": Plan({}, 5, WAITS, REFUSALS, steps=100),
    "refused for ever": Plan(
        {}, 6, (0.3, 7.0, 40.0, 90.0), ("refused", "refused for 3.5"), steps=80
    ),
    "refused for long": Plan({}, 7, (0.1, 5.0), ("answered", "refused for 599", "refused for 601")),
    "slow, and refused": Plan({}, 8, (5.0, 20.0, 50.0), REFUSALS, steps=80),
    "stated requests": Plan(
        {}, 9, WAITS, ("answered", "answered", "answered", "refused"),
        stated("requests", 60, 59, 30, 3, 0), steps=100,
    ),
    "stated tokens": Plan(
        {}, 10, WAITS, REFUSALS, stated("tokens", 30_000, 29_000, 15_000, 100), steps=100
    ),
    "stated of each": Plan(
        {}, 11, WAITS, REFUSALS,
        (*stated("input_tokens", 9000, 9000, 0), *stated("output_tokens", 4000, 3999, 100),
         *stated("tokens", 20_000, 100), *stated("requests", 1000, 990)), steps=100,
    ),
    "stated too low": Plan(
        {}, 12, (0.0, 0.1, 0.5, 1.5), ("answered",), stated("requests", 30, 29, 29, 30), steps=100
    ),
    "stated otherwise each time": Plan(
        {}, 13, (0.0, 0.1, 1.0), ("answered",),
        tuple(RateLimits(limit_requests=limit, remaining_requests=20)
              for limit in (40, 50, 60, 70)),
    ),
    "stated too low for long": Plan(
        {}, 15, (0.5, 1.0, 1.5), ("answered",), stated("requests", 120, 119, 120, 60), steps=100
    ),
    "changed twelve times": Plan(
        {}, 16, (0.1, 1.0), ("answered",),
        tuple(RateLimits(limit_requests=limit, remaining_requests=20) for limit in range(40, 60)),
    ),
    "refused as stated": Plan(
        {}, 17, (0.1, 0.5, 3.0), ("answered", "refused", "refused"),
        (*stated("tokens", 90_000, 0, 1000, 80_000), *stated("requests", 600, 598, 300, 0)),
        steps=120,
    ),
    "refused, and taken again": Plan(
        {}, 18, (0.5, 2.0, 12.0), ("refused", "refused", "refused", "answered"), steps=120, most=3
    ),
    "refused in turn": Plan(
        {}, 19, (0.0, 0.1, 1.0), ("refused", "refused", "refused", "answered"), steps=150, most=5
    ),
    "granted": Plan(
        {}, 20, (0.0, 0.3, 2.0), REFUSALS, steps=80,
        grants=((2, 0.0, 0.5), (5, 1.0, 0.0), (20, 0.5, 0.1), (3, 4.0, 2.0), (1, 0.0, 0.0)),
    ),
    "granted, and tokens limited": Plan(
        {"input_tokens_per_minute": 9000}, 21, (0.1, 1.0, 9.0), REFUSALS, steps=60,
        grants=((2, 0.0, 0.7), (40, 0.5, 0.05)),
    ),
    "stated far too low": Plan(
        {}, 14, (0.0, 0.01, 3.0), ("answered",), stated("tokens", 500, 500, 400), steps=80
    ),
}  # fmt: skip


def whole_tape():
    """The tapes of all plans, each below its name."""
    return "".join("\n".join([f"# {name}", *play(plan), "", ""]) for name, plan in PLANS.items())


@pytest.mark.parametrize("name", PLANS)
def test_each_step_of_a_pace_is_that_of_its_tape(name):
    recorded = (GOLDEN / "values" / "pace_tapes.txt").read_text()
    found = recorded.partition(f"# {name}\n")[2].partition("\n\n")[0].splitlines()
    assert play(PLANS[name]) == found
