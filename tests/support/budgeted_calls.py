"""One question under a budget, what it may cost and costs, and a server that keeps the bill."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal

from scripted_server import USAGE, Server, whole

from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    NodeCompletionParameters,
)

BRIEF = CompletionParameters(max_tokens=10)
NODE = ChatNode.root("s").add_user("u")
MICRO = Decimal("0.000001")
USAGE_JSON = json.dumps(USAGE).encode()
ANSWERED = 5 * MICRO  # what `ANSWER` costs: 3 tokens in at $1, 1 out at $2


def ceiling_of(generator: GeneratorInfo) -> Decimal:
    """The estimate of the one question of these tests."""
    return NODE.estimate_cost(generator, BRIEF).ceiling


CEILING = ceiling_of(Server([]).generator())


def within(budget: Budget, **more) -> NodeCompletionParameters:
    return NodeCompletionParameters(params=BRIEF, budget=budget, **{"back_off_time": 0, **more})


def state(budget: Budget) -> tuple[Decimal, Decimal]:
    return budget.spent, budget.reserved


class Paid:
    """A server that asks a random price within the estimate, and keeps the bill."""

    def __init__(self, budget: Budget, seed: int) -> None:
        self.bill, self.requests, self.most = Decimal(0), 0, Decimal(0)
        self._budget = budget
        self._random = random.Random(seed)

    async def send(self, request):
        self.requests += 1
        self._look()
        await asyncio.sleep(self._random.random())
        usage = {"prompt_tokens": self._random.randrange(1, 100), "completion_tokens": 10}
        self.bill += (usage["prompt_tokens"] + 20) * MICRO
        assert (usage["prompt_tokens"] + 20) * MICRO <= CEILING
        self._look()
        return await Server([whole("ok", usage=usage)]).send(request)

    def _look(self) -> None:
        spent_and_reserved = sum(state(self._budget))
        assert self.bill <= self._budget.limit
        assert spent_and_reserved <= self._budget.limit
        self.most = max(self.most, spent_and_reserved)
