"""What a budget does at each of many steps: who may be sent, who waits, what is spent and set aside."""

from __future__ import annotations

import pytest
from budget_tape import play

from golden import GOLDEN
from minillmlib import Budget
from minillmlib.types.budgets import LeasedBudget


def alone(limit: str) -> dict[str, Budget]:
    return {"budget": Budget(limit)}


def family() -> dict[str, Budget]:
    parent = Budget(12)
    child = parent.child(8)
    return {
        "parent": parent,
        "child": child,
        "sister": parent.child(6),
        "grandchild": child.child(4),
    }


PLANS = {
    "a small budget": lambda: play(alone("10"), 1),
    "a large budget": lambda: play(alone("40"), 2),
    "a family": lambda: play(family(), 3, 100),
    "another family": lambda: play(family(), 4, 100),
    "a lease": lambda: play({"lease": LeasedBudget()}, 5, 90),
    "another lease": lambda: play({"lease": LeasedBudget()}, 6, 90),
}


def whole_tape() -> str:
    """The tapes of all plans, each below its name."""
    return "".join("\n".join([f"# {name}", *tape(), "", ""]) for name, tape in PLANS.items())


@pytest.mark.parametrize("name", PLANS)
def test_each_step_of_a_budget_is_that_of_its_tape(name):
    recorded = (GOLDEN / "budget_tapes.txt").read_text()
    found = recorded.partition(f"# {name}\n")[2].partition("\n\n")[0].splitlines()
    assert PLANS[name]() == found
