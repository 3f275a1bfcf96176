"""Reservations that are made, wait and end on budgets, and all that is seen of that from outside.

A tape is a text with a line for each step, as in `pace_tape`.
"""

from __future__ import annotations

import random
import re
from decimal import Decimal

from minillmlib import Budget, BudgetExceededError, CostEstimate, CostOutcome, Usage
from minillmlib.types.budgets import LeasedBudget, Reservation

OUTCOMES = {
    "nothing": None,
    "0.4": CostOutcome.resolved(Decimal("0.4"), Usage()),
    "3": CostOutcome.resolved(Decimal(3), Usage()),
    "an unknown cost": CostOutcome.unknown(),
    "an unpriced cost": CostOutcome.unpriced(Usage()),
}


def amounts_of(error: BudgetExceededError) -> str:
    """The numbers in the text of an error, and whether others came first."""
    return " ".join(re.findall(r"\$-?[\d.]*\d|others|\d+ requests?", str(error)))


class Tape:
    """Plays steps on budgets and notes what each leads to."""

    def __init__(self, budgets: dict[str, Budget]) -> None:
        self.budgets = budgets
        self.lines: list[str] = []
        self.told: list[str] = []
        self.names: dict[Reservation, int] = {}
        self.settled: dict[Reservation, int] = {}
        self.refused: set[int] = set()
        self.states: dict[str, str] = {}

    def add(self, name: str, ceiling: str, owner: str | None) -> None:
        """Let a reservation join the line of a budget."""
        reservation = self.budgets[name].new_reservation(
            CostEstimate(ceiling=Decimal(ceiling)), owner
        )
        number = self.names[reservation] = len(self.names)
        reservation.when_decided(lambda: self.told.append(f"{number} is decided"))
        reservation.join()
        by = f" by {owner}" if owner else ""
        self.note(f"{number} asks {name} for {ceiling}{by}")

    def settle(self, reservation: Reservation, how: str) -> None:
        reservation.settle(OUTCOMES[how])
        self.settled[reservation] = self.settled.get(reservation, 0) + 1
        self.note(f"{self.names[reservation]} costs {how}")

    def note(self, what: str) -> None:
        """Write a line about a step, with the state of each reservation that is new."""
        facts = [what, *self.told]
        self.told.clear()
        for reservation, number in self.names.items():
            if reservation.error is not None and number not in self.refused:
                self.refused.add(number)
                facts.append(f"{number} is refused: {amounts_of(reservation.error)}")
        waiting = [
            str(number) for reservation, number in self.names.items() if reservation.is_waiting
        ]
        facts += [f"waiting {' '.join(waiting)}"] if waiting else []
        for name, budget in self.budgets.items():
            state = f"{name} {budget.spent}+{budget.reserved} leaves {budget.remaining}"
            if isinstance(budget, LeasedBudget):
                state += f" of {budget.limit}, {budget.shortfall} short, {budget.unspent} unspent"
            if state != self.states.get(name):
                facts.append(state)
            self.states[name] = state
        self.lines.append("; ".join(facts))


def play(budgets: dict[str, Budget], seed: int, steps: int = 60) -> list[str]:
    """Return the lines of random steps."""
    dice = random.Random(seed)
    pick = lambda some: some[int(dice.random() * len(some))]  # noqa: E731 - the same in any Python
    tape, names = Tape(budgets), list(budgets)
    for _ in range(steps):
        step, budget = dice.random(), budgets[pick(names)]
        open_ = [one for one in tape.names if one.error is None and tape.settled.get(one, 0) < 2]
        if step < 0.02:
            amount = pick(["0.25", "1"])
            budget.charge(Decimal(amount))
            tape.note(f"{amount} is paid elsewhere")
        elif step < 0.04:
            held = budget.hold(Decimal("0.75"))
            tape.names[held] = len(tape.names)
            tape.note("0.75 is held")
        elif step < 0.08:
            try:
                budget.reserve(CostEstimate(ceiling=Decimal("1.5"))).settle(None)
                tape.note("1.5 fits")
            except BudgetExceededError as error:
                tape.note(f"1.5 does not fit: {amounts_of(error)}")
        elif isinstance(budget, LeasedBudget) and step < 0.3:
            may_come, amount = dice.random() < 0.7, pick(["0", "2.5", "4"])
            unused = budget.grow(Decimal(amount), may_come=may_come)
            tape.note(
                f"{amount} is granted, {'' if may_come else 'no '}more may come, {unused} unused"
            )
        elif isinstance(budget, LeasedBudget) and step < 0.34:
            tape.note(f"{budget.shrink()} is given back")
        elif open_ and step > 0.55:
            tape.settle(pick(open_), pick([*OUTCOMES, *["nothing", "0.4"] * 4]))
        else:
            ceiling, owner = pick(["0.5", "2", "3.5", "9"]), pick([None, None, "Ann", "Bob"])
            tape.add(pick(names), ceiling, owner)
    return tape.lines
