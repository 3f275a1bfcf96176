"""Scripted completions of every kind of cost, each with what it truly cost.

Use it in tests of sums of costs, and for trees with every kind of answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from bill_wires import WIRES, Record, body_of, claude_events, stream_of

from minillmlib import ChatNode, CostTotal, GeneratorInfo, NodeCompletionParameters, TokenPrice
from minillmlib.testing import ScriptedReply, ScriptedTransport

PRICE = TokenPrice(1, 5)


AGAIN = NodeCompletionParameters(retry=1, back_off_time=0, crash_on_empty_response=True)


class Owed(NamedTuple):
    """The cost of one message by the books of the test, in millionths of a dollar."""

    millionths: int = 0
    unpriced: int = 0
    unknown: int = 0

    def plus(self, other: Owed) -> Owed:
        return Owed(*map(sum, zip(self, other, strict=True)))

    @property
    def total(self) -> CostTotal:
        cost = Decimal(self.millionths).scaleb(-6)
        return CostTotal(cost=cost, unpriced=self.unpriced, unknown=self.unknown)


class Script(NamedTuple):
    """The answers to one completion, and what they cost together."""

    wire: str
    replies: list[ScriptedReply]
    owed: Owed
    price: TokenPrice | None = PRICE
    is_streamed: bool = False

    @property
    def generator(self) -> GeneratorInfo:
        generator = GeneratorInfo.custom("vendor", "https://vendor.example/v1", "m")
        generator = generator.replace(provider=WIRES[self.wire].provider, token_price=self.price)
        return generator.with_transport(ScriptedTransport(self.replies))


def counted(rng: random.Random) -> tuple[Record, int]:
    """A record, and what it comes to at $1 in and $5 out."""
    prompt, completion = rng.randint(1, 10**6), rng.randint(0, 10**4)
    return {"prompt_tokens": prompt, "completion_tokens": completion}, prompt + 5 * completion


def answer(record: Record | None, *, wire: str = "openai", status: int = 200) -> ScriptedReply:
    return ScriptedReply.json(body_of(WIRES[wire], record), status=status)


def priced(rng: random.Random) -> Script:
    record, owed = counted(rng)
    return Script("openai", [answer(record)], Owed(owed))


def stated(rng: random.Random) -> Script:
    record, _ = counted(rng)
    owed = rng.randint(0, 10**7)
    reply = answer(record | {"cost": owed / 10**6}, wire="openrouter")
    return Script("openrouter", [reply], Owed(owed), price=None)


def unpriced(rng: random.Random) -> Script:
    return Script("openai", [answer(counted(rng)[0])], Owed(unpriced=1), price=None)


def unknown(rng: random.Random) -> Script:
    record = rng.choice([None, {"prompt_tokens": -1, "completion_tokens": 1}])
    return Script("openai", [answer(record)], Owed(unknown=1))


def refused_first(rng: random.Random) -> Script:
    """Nothing was done, so nothing is owed."""
    again = priced(rng)
    refused = ScriptedReply.json({"error": {"message": "busy"}}, status=rng.choice([429, 503, 529]))
    return again._replace(replies=[refused, *again.replies])


def failed_first(rng: random.Random) -> Script:
    """Nobody knows what was done."""
    again = priced(rng)
    failed = ScriptedReply.json({"error": {"message": "broke"}}, status=rng.choice([500, 502, 504]))
    return again._replace(replies=[failed, *again.replies], owed=again.owed.plus(Owed(unknown=1)))


def empty_first(rng: random.Random) -> Script:
    """Both answers are paid for."""
    again = priced(rng)
    record, owed = counted(rng)
    body = body_of(WIRES["openai"], record)
    body["choices"][0]["message"]["content"] = ""
    replies = [ScriptedReply.json(body), *again.replies]
    return again._replace(replies=replies, owed=again.owed.plus(Owed(owed)))


def cut_first(rng: random.Random) -> Script:
    """A stream that ended after the counts of its input, which is what it cost at least."""
    record = {"input_tokens": rng.randint(1, 10**6), "output_tokens": 1}
    output = rng.randint(0, 10**4)
    events = claude_events([record, {"output_tokens": output}])
    cut = stream_of(events[:2])
    broken = ScriptedReply.events(*cut.pieces, breaks_off=True)
    least = record["input_tokens"] + 5
    owed = Owed(least + record["input_tokens"] + 5 * max(output, 1), unknown=1)
    return Script("anthropic", [broken, stream_of(events)], owed, is_streamed=True)


KINDS: list[Callable[[random.Random], Script]] = [
    priced, stated, unpriced, unknown, refused_first, failed_first, empty_first, cut_first,
]  # fmt: skip


async def completed(node: ChatNode, script: Script) -> ChatNode:
    if not script.is_streamed:
        return await node.complete(script.generator, AGAIN)
    async with node.complete_streaming(script.generator, AGAIN) as stream:
        async for _ in stream:
            pass
    return stream.node
