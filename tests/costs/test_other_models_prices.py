"""What was counted can be priced anew, and what was not counted stays unknown."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_answers import said, scripted

from minillmlib import (
    ChatNode,
    CostInfo,
    CostOutcome,
    CostTotal,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    TokenPrice,
    Usage,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

PRICE = TokenPrice(1, 2)
DEARER = TokenPrice(10, 20, cache_read=5)
counts = st.integers(0, 10**9)


def counted(prompt: int, completion: int, **more: object) -> ScriptedReply:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, **more}
    return ScriptedReply.json(json.loads(said("ok").pieces[0]) | {"usage": usage})


async def test_a_tree_is_repriced_with_its_failures_and_what_is_unknown():
    generator = scripted(
        counted(1_000_000, 0), said("no counts"),
        ScriptedReply(pieces=(b'{"choices": [',)), counted(0, 0),
    )  # fmt: skip
    root = ChatNode.root("s")
    await root.chat("a", generator.with_token_price(PRICE))
    await root.chat("b", generator)
    with pytest.raises(MiniLLMError):
        await root.chat("c", generator)
    await root.chat("d", generator)
    assert root.reprice(DEARER) == CostTotal(cost=Decimal(10), unknown=2)
    assert root.subtree_cost() == CostTotal(cost=Decimal(1), unknown=2), "as it was"


async def test_what_a_local_model_did_for_nothing_has_a_price_elsewhere():
    generator = scripted(counted(1_000_000, 500_000)).with_token_price(TokenPrice(0, 0))
    node = await ChatNode.root("s").chat("a", generator)
    assert node.cost == CostTotal()
    assert node.reprice(DEARER) == CostTotal(cost=Decimal(20))


async def test_a_copy_is_paid_once_under_any_price():
    node = await ChatNode.root("s").chat("a", scripted(counted(1_000_000, 0)))
    assert node.copy_thread().root_node.reprice(DEARER) == CostTotal()


async def test_answers_that_were_asked_for_together_share_one_price():
    choice = json.loads(said("ok").pieces[0])["choices"][0]
    usage = {"prompt_tokens": 1000, "completion_tokens": 300}
    body = {"choices": [{**choice, "index": n} for n in range(3)], "usage": usage}
    openai = GeneratorInfo.openai("gpt-4o-mini").with_api_key("k").with_token_price(PRICE)
    generator = openai.with_transport(ScriptedTransport([ScriptedReply.json(body)]))
    root = ChatNode.root("s").add_user("u")
    await root.complete_many(3, generator)
    assert root.subtree_cost().cost == Decimal("0.0016")
    assert Decimal("0.016") <= root.reprice(DEARER).cost <= Decimal("0.01601")


@given(counts, counts, counts)
def test_the_same_price_gives_the_same_cost(uncached, read, completion):
    usage = Usage(
        uncached_input_tokens=uncached + 1, cache_read_tokens=read, completion_tokens=completion
    )
    cost = CostOutcome.resolved(DEARER.cost_of(usage), usage)
    assert cost.reprice(DEARER) == cost
    assert CostOutcome.unpriced(usage).reprice(DEARER) == cost
    minimum = CostOutcome.unknown(minimum_usage=usage).reprice(DEARER)
    assert (minimum.is_unknown, minimum.minimum_cost) == (True, cost.cost)


@pytest.mark.parametrize("fields", [
    {"service_tier": "priority"}, {"non_token_charges": "web searches"},
    {"surcharges": ("audio tokens",)}, {"cache_write_tokens": 5, "cache_write_1h_tokens": 5},
])  # fmt: skip
def test_tokens_without_a_rate_are_unpriced(fields):
    usage = Usage(uncached_input_tokens=5, **fields)
    assert CostOutcome.resolved(Decimal(9), usage).reprice(PRICE) == CostOutcome.unpriced(usage)


def test_a_stated_cost_without_counts_says_nothing_of_another_price():
    cost = CostOutcome.resolved(Decimal(9), Usage(native_cost=Decimal(9)))
    assert cost.reprice(PRICE).is_unknown
    assert CostOutcome.resolved(Decimal(9), Usage()).reprice(PRICE).is_unknown


async def test_a_bill_is_repriced_and_a_missing_price_is_told():
    infos: list[CostInfo] = []
    settings = NodeCompletionParameters(cost_callback=infos.append)
    node = await ChatNode.root("s").chat("a", scripted(counted(1_000_000, 0)), settings)
    assert infos[0].reprice(DEARER) == CostTotal(cost=Decimal(10))
    with pytest.raises(InvalidParameterError, match="with_published_price"):
        node.reprice(GeneratorInfo.openai("unlisted").token_price)
