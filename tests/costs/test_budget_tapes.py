"""What a budget does at each of many steps: who may be sent, who waits, what is spent and set aside."""

from __future__ import annotations

from decimal import Decimal

import pytest
from budget_tape import play

from golden import GOLDEN
from minillmlib import Budget, BudgetExceededError, CostEstimate, CostOutcome, Usage
from minillmlib.types import budgets
from minillmlib.types.budgets import LeasedBudget, Reservation
from minillmlib.types.costs import EXACT


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
    recorded = (GOLDEN / "values" / "budget_tapes.txt").read_text()
    found = recorded.partition(f"# {name}\n")[2].partition("\n\n")[0].splitlines()
    assert PLANS[name]() == found


# --- single steps -----------------------------------------------------------------------------------


def asks(budget: Budget, ceiling: str, owner: object = None) -> Reservation:
    return budget.enqueue(CostEstimate(ceiling=Decimal(ceiling)), owner)


def test_who_leaves_the_line_is_told_whether_money_or_its_place_was_missing():
    budget = Budget(10)
    asks(budget, "5")
    waiting = [asks(budget, ceiling) for ceiling in ("6", "5", "4.50")]
    assert [one.is_waiting for one in waiting] == [True] * 3
    for one in reversed(waiting):
        one.settle(None)
    state = (
        "of the budget of $10 remain: $0 are spent, and $5 are set aside for 1 request in progress; "
        "it was not sent"
    )
    assert [str(one.error) for one in waiting] == [
        f"the request may cost $6, but only $5 {state}",
        f"the request may cost $5, but others came before it in line, and $5 {state}",
        f"the request may cost $4.5, but others came before it in line, and $5 {state}",
    ]
    with pytest.raises(BudgetExceededError, match="may cost \\$6"):
        waiting[0].check()


def test_the_whole_of_a_budget_may_be_asked_for_and_no_more():
    budget = Budget(10)
    whole = asks(budget, "10")
    assert (budget.reserved, asks(budget, "10.01").error is None) == (10, False)
    assert asks(budget, "10").is_waiting
    whole.settle(None)
    assert (budget.reserved, budget.remaining) == (10, 0)


def test_an_estimate_without_a_ceiling_is_refused_with_what_is_missing():
    with pytest.raises(BudgetExceededError) as caught:
        Budget(10).enqueue(CostEstimate(missing=("a price", "a limit")))
    assert str(caught.value) == (
        "a budget needs the maximum cost of a request, and this is missing for it: a price; a limit; "
        "the request was not sent"
    )


def test_an_owner_does_not_wait_for_itself_and_is_forgotten_at_the_end():
    budget = Budget(10)
    first, other = asks(budget, "6", "Ann"), asks(budget, "2", "Bob")
    assert asks(budget, "5", "Ann").error is not None, "she would wait for herself"
    assert asks(budget, "5", "Bob").is_waiting, "for Ann, who may release her part"
    for one in (first, other):
        one.settle(None)
    assert set(budget._queue.held) == {"Bob"}
    assert (budget.reserved, budget.remaining) == (5, 5)


def test_who_cannot_be_told_because_its_loop_is_closed_holds_nothing():
    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    budget = Budget(10)
    lost = budget.new_reservation(CostEstimate(ceiling=Decimal(6)))
    lost.when_decided(closed)
    lost.join()
    assert (budget.reserved, lost.is_waiting) == (0, False)
    late = []
    lost.when_decided(lambda: late.append(1))
    assert late == [1], "told at once"


def test_a_lease_waits_for_more_as_long_as_a_request_in_progress_may_release_it():
    lease = LeasedBudget()
    lease.grow(Decimal(5), may_come=True)
    first = asks(lease, "5")
    second = asks(lease, "6")
    lease.grow(Decimal(0), may_come=False)
    assert (second.is_waiting, lease.shortfall, lease.unspent) == (True, 6, 5)
    first.settle(None)
    assert second.is_waiting
    assert lease.grow(Decimal(0), may_come=False) == 5
    assert second.error is not None


class InterruptedContext:
    """Adds and subtracts as decimals do, until it is interrupted."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> object:
        def count(*numbers: Decimal) -> Decimal:
            self.steps -= 1
            if self.steps == 0:
                raise KeyboardInterrupt
            return getattr(EXACT, name)(*numbers)

        return count


def sums(*budgets: Budget) -> list[tuple[Decimal, Decimal]]:
    return [(budget.spent, budget.reserved) for budget in budgets]


@pytest.mark.parametrize("act", ["charge", "hold", "settle"])
def test_an_interrupt_at_any_step_leaves_all_of_a_sum_or_nothing(act, monkeypatch):
    interrupts = 0
    for steps in range(1, 30):
        parent = Budget(10)
        child = parent.child(8)
        earlier, again = asks(child, "3", "Ann"), None
        before = sums(parent, child)
        with monkeypatch.context() as patch:
            patch.setattr(budgets, "EXACT", InterruptedContext(steps))
            try:
                if act == "charge":
                    child.charge(Decimal(1))
                elif act == "hold":
                    again = child.new_reservation(CostEstimate(ceiling=Decimal(2)), "Ann")
                    again.join()
                else:
                    earlier.settle(CostOutcome.resolved(Decimal(2), Usage()))
            except KeyboardInterrupt:
                interrupts += 1
                assert sums(parent, child) == before
                if act == "hold":
                    assert again.is_waiting
                    parent._queue.serve()
                elif act == "settle":
                    earlier.settle(CostOutcome.resolved(Decimal(2), Usage()))
                else:
                    child.charge(Decimal(1))
        after = {"charge": (1, 3), "hold": (0, 5), "settle": (2, 0)}[act]
        assert sums(parent, child) == [after, after]
        earlier.settle(None)
        if again is not None:
            again.settle(None)
        assert [one[1] for one in sums(parent, child)] == [0, 0]
        assert parent._queue.held == {}
    assert 3 < interrupts < 29
