"""Honest money: the invariants that must hold of every completion, against the provider's books.

Use `check` after each call to a `MoneyProvider`. C10 is not here: it is about a journal on disk,
which the library does not have.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec
from billing_provider import TEXTS, Line, Plan
from threaded_server import wait_until

from minillmlib import (
    Attempt,
    AttemptOutcome,
    ChatNode,
    CompletionContext,
    CostInfo,
    CostOutcome,
    CostResolution,
    CostTotal,
    GeneratorInfo,
    MiniLLMError,
)

RESOLVED, UNPRICED, UNKNOWN = (
    CostResolution.RESOLVED, CostResolution.UNPRICED, CostResolution.UNKNOWN,
)  # fmt: skip
WITH_AN_ANSWER = (AttemptOutcome.ANSWERED, AttemptOutcome.REJECTED)
TAKEN_TEXTS = {"nothing": tuple(TEXTS), "empty": ("prose", "json"), "prose": ("json",)}


class Asked(NamedTuple):
    """The plan of a call, and its settings."""

    plan: Plan
    retry: int
    refuses: str
    callback: str
    is_budgeted: bool

    @property
    def takes_the_text(self) -> bool:
        """Whether the settings take what the model says."""
        return self.plan.text in TAKEN_TEXTS[self.refuses]

    @property
    def raises(self) -> bool:
        """Whether the callback does."""
        return self.callback.startswith("raises")


class Call:
    """One completion: its plan, what the client reported of it, and how it ended."""

    def __init__(
        self, number: int, asked: Asked, place: ChatNode, generator: GeneratorInfo
    ) -> None:
        self.number = number
        self.asked = asked
        self.place = place
        self.generator = generator
        self.context: CompletionContext | None = None
        self.ceiling: Decimal | None = None  # what each attempt takes from the budget
        self.reports: list[CostInfo] = []
        self.attempts: tuple[Attempt, ...] | None = None  # as the call itself gave them
        self.error: MiniLLMError | None = None
        self.node: ChatNode | None = None
        self.is_begun = False
        self.is_over = False
        self.is_checked = False
        self.is_heard = asked.callback != "none"

    @property
    def said(self) -> str:
        """The text by which the provider knows the call."""
        return f"call {self.number}"

    def succeed(self, node: ChatNode) -> None:
        """It was answered."""
        self.node, self.attempts, self.is_over = node, node.response.attempts, True

    def fail(self, error: MiniLLMError) -> None:
        """It came to nothing."""
        self.error, self.attempts, self.is_over = error, error.attempts, True

    def callback(self) -> Callable | None:
        """A callback that reports to this call, and then behaves as planned."""

        def tell(info: CostInfo) -> None:
            self.reports.append(info)
            if self.asked.raises:
                raise ZeroDivisionError

        async def tell_later(info: CostInfo) -> None:
            await asyncio.sleep(0)
            tell(info)

        if not self.is_heard:
            return None
        return tell_later if self.asked.callback in ("coroutine", "raises later") else tell

    def final(self) -> tuple[Attempt, ...]:
        """The attempts with all that is known of them in the end."""
        return self.reports[0].attempts if self.reports else self.attempts or ()


def check(call: Call, lines: Sequence[Line], asked_later: Collection[str] = ()) -> None:
    """Everything that must hold of one completion that is over.

    `asked_later` are the ids of the answers after whose cost the client asked.
    """
    if not call.is_begun:
        assert not call.reports
        assert not lines
        return
    final = call.final()
    check_report(call)
    check_numbers(final)
    check_coverage(final, lines)
    check_list_of_error(call, lines)
    for attempt in final:
        check_unsent(attempt)
    for attempt, line in zip(heard(final, lines), lines, strict=False):
        check_attempt(call.asked, attempt, line)
    check_info(CostInfo.of(final), final, lines)
    if call.reports:
        check_info(call.reports[0], final, lines)
        check_upgrade(call.attempts, final)
        check_late_news(call, lines, asked_later)
    check_node(call, lines)


def check_report(call: Call) -> None:
    """C1, C7: exactly one report of each completion, whatever became of it or of the callback."""
    if call.is_heard:
        assert len(call.reports) == 1, f"{len(call.reports)} reports"
    else:
        assert call.attempts is not None


def check_numbers(attempts: Sequence[Attempt]) -> None:
    """C1, C7: one record per attempt, each with its number."""
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))


def check_coverage(attempts: Sequence[Attempt], lines: Sequence[Line]) -> None:
    """C2, C3: as many attempts that may have left as requests that came.

    One that was left, or written to a connection that the server had closed, may be lost.
    """
    sent = [attempt for attempt in attempts if attempt.was_sent]
    assert all(one.outcome is not AttemptOutcome.ABANDONED for one in sent[:-1])
    certain = [
        one for one in sent if one.outcome is not AttemptOutcome.ABANDONED and not is_stale(one)
    ]
    wait_until(lambda: len(lines) >= len(certain), 5)
    assert len(lines) <= len(sent), "a request without a record"


def is_stale(attempt: Attempt) -> bool:
    """Whether it was written to a kept connection that the server may have closed."""
    return attempt.error == "StaleConnectionError"


def heard(attempts: Sequence[Attempt], lines: Sequence[Line]) -> list[Attempt]:
    """The attempts to which the lines of the books belong, in their order."""
    sent = [attempt for attempt in attempts if attempt.was_sent]
    lost = next((one for one in sent if is_stale(one) and len(lines) < len(sent)), None)
    return [attempt for attempt in sent if attempt is not lost]


def check_list_of_error(call: Call, lines: Sequence[Line]) -> None:
    """C11: an error lists the requests the server saw, and those that never came to it."""
    if call.error is not None:
        attempts = call.error.attempts
        assert all(one.outcome is not AttemptOutcome.ABANDONED for one in attempts)
        never_came = len([one for one in attempts if not one.was_sent])
        came = len(heard(attempts, lines))
        assert came == len(lines)
        assert len(attempts) - came - never_came in (0, 1)


def check_unsent(attempt: Attempt) -> None:
    """C3: nothing is charged for what never left."""
    if not attempt.was_sent:
        assert attempt.cost is None
        assert attempt.status is None


def check_attempt(asked: Asked, attempt: Attempt, line: Line) -> None:
    """C4, C5: what is known of one request is the truth, and the rest is said to be unknown."""
    if not line.play.is_billed:
        assert attempt.outcome is AttemptOutcome.DENIED or went_away(attempt)
    if attempt.outcome is AttemptOutcome.DENIED:
        assert not line.play.is_billed
        assert attempt.cost is None
        return
    assert attempt.cost is not None, "work without a record of its cost"
    if attempt.outcome in WITH_AN_ANSWER:
        assert (attempt.outcome is AttemptOutcome.ANSWERED) == asked.takes_the_text
    check_cost(attempt.cost, line)
    check_knowledge(attempt, line)


def went_away(attempt: Attempt) -> bool:
    """Whether the client, or a clock of it, ended the attempt before all of the answer came."""
    return attempt.outcome is AttemptOutcome.ABANDONED or attempt.error == "RequestTimeoutError"


def check_cost(cost: CostOutcome, line: Line) -> None:
    """C4, C5: a number is the bill to its last digit, and nothing else is a number."""
    if cost.resolution is RESOLVED:
        assert line.has_price
        assert cost.cost == line.owed > 0
    else:
        assert cost.cost == 0
    if cost.resolution is UNPRICED:
        assert not line.has_price
    if cost.resolution is UNKNOWN:
        assert cost.usage is None
        assert cost.minimum_usage is None or is_within(cost.minimum_usage, line)
    else:
        assert cost.usage is not None
        counts = msgspec.structs.replace(cost.usage, native_cost=None, native_cost_source=None)
        assert counts == line.usage


def is_within(minimum_usage: msgspec.Struct, line: Line) -> bool:
    """Whether counts are not more than were consumed."""
    names = [name for name in minimum_usage.__struct_fields__ if name.endswith("_tokens")]
    return all(getattr(minimum_usage, name) <= getattr(line.usage, name) for name in names)


def check_knowledge(attempt: Attempt, line: Line) -> None:
    """C2, C4: counts that came are known, and others are not, unless they were looked up later."""
    assert attempt.cost is not None
    is_known = attempt.cost.resolution is not UNKNOWN
    if is_known:
        assert line.tells_all or line.is_kept
    elif not went_away(attempt):
        assert not line.tells_all


def check_upgrade(earlier: Sequence[Attempt] | None, final: Sequence[Attempt]) -> None:
    """C5: later news make an unknown cost known, once, and change nothing else."""
    for before, after in zip(earlier or final, final, strict=True):
        if before != after:
            assert before.cost is not None
            assert after.cost is not None
            assert (before.cost.resolution, after.cost.resolution) == (UNKNOWN, RESOLVED)
            assert msgspec.structs.replace(after, cost=before.cost) == before


def check_late_news(call: Call, lines: Sequence[Line], asked_later: Collection[str]) -> None:
    """C4, C5: what can be asked for later is asked for and then known; what is known is not."""
    for attempt, line in zip(heard(call.final(), lines), lines, strict=False):
        if attempt.response_id and line.is_kept and attempt.cost is not None:
            assert attempt.cost.resolution is RESOLVED
    for attempt, line in zip(heard(call.attempts or (), lines), lines, strict=False):
        is_known = attempt.cost is None or attempt.cost.resolution is not UNKNOWN
        assert not (is_known and line.id in asked_later)


def check_info(info: CostInfo, final: Sequence[Attempt], lines: Sequence[Line]) -> None:
    """C5, C6, C8: the sum is the whole bill if it says so, and otherwise a part of it."""
    assert info.attempts == final
    check_amount(info.cost)
    owed = sum((line.owed for line in lines), Decimal(0))
    costs = [attempt.cost for attempt in final if attempt.cost is not None]
    resolutions = {cost.resolution for cost in costs}
    least_known = next((one for one in (UNKNOWN, UNPRICED) if one in resolutions), RESOLVED)
    assert info.resolution is least_known
    known = sum((cost.cost + cost.minimum_cost for cost in costs), Decimal(0))
    assert info.cost == known <= owed
    if info.resolution is RESOLVED:
        assert info.cost == owed
    check_tokens(info, costs, lines)
    check_total(CostTotal.of(costs), costs, owed)


def check_tokens(info: CostInfo, costs: Sequence[CostOutcome], lines: Sequence[Line]) -> None:
    """C6: the counts are those of the books if all are known, and otherwise not more."""
    billed = [line.usage for line in lines if line.play.is_billed]
    is_whole = all(cost.resolution is not UNKNOWN for cost in costs)
    for name in ("prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens"):
        consumed = sum(getattr(usage, name) for usage in billed)
        assert getattr(info, name) <= consumed
        assert getattr(info, name) == consumed or not is_whole


def check_total(total: CostTotal, costs: Sequence[CostOutcome], owed: Decimal) -> None:
    """C6, C8: a total is exact or says «at least», in whatever order it is added up."""
    assert total == CostTotal.of(random.Random(0).sample(costs, len(costs)))
    check_amount(total.cost)
    assert total.cost <= owed
    assert not total.is_exact or total.cost == owed
    assert total.is_exact != str(total).startswith("at least")


def check_amount(amount: Decimal) -> None:
    """C8: money is a finite decimal number, and never negative."""
    assert isinstance(amount, Decimal)
    assert amount.is_finite()
    assert amount >= 0


def check_node(call: Call, lines: Sequence[Line]) -> None:
    """C6, C7: an answer's node costs what all attempts at it cost, with or without a callback."""
    if call.node is None:
        return
    assert call.attempts is not None
    assert call.node.response.attempts == call.attempts
    assert call.attempts[-1].outcome is AttemptOutcome.ANSWERED
    assert (call.node.text or "") == TEXTS[call.asked.plan.text]
    costs = [attempt.cost for attempt in call.attempts if attempt.cost is not None]
    assert call.node.response.cost == call.attempts[-1].cost
    assert call.node.cost == CostTotal.of(costs)
    check_total(call.node.cost, costs, sum((line.owed for line in lines), Decimal(0)))


def check_budget_share(call: Call) -> Decimal:
    """Return what a call takes of its budget: its known cost, or else its ceiling."""
    if call.ceiling is None:
        return Decimal(0)
    costs = [attempt.cost for attempt in call.final() if attempt.cost is not None]
    return sum(
        (cost.cost if cost.resolution is RESOLVED else call.ceiling for cost in costs), Decimal(0)
    )
