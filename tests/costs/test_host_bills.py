"""What single hosts and gateways count and state in ways of their own."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from bill_records import CONTRADICTIONS, HOSTS, PLAIN, SONNET, chat, claude
from bill_wires import (
    WIRES,
    Record,
    body_of,
    generator_of,
    read_stream,
    stream_of,
    streamed,
    whole,
)

import minillmlib
from minillmlib import Budget, ChatNode, CostResolution, CostTotal, NodeCompletionParameters
from minillmlib.testing import ScriptedReply

WAYS = ("whole", "streamed")
LITELLM = {"x-litellm-call-id": "4a5b", "x-litellm-version": "1.110.2"}
COST = "x-litellm-response-cost"


def asked(wire: str, way: str, record: Record, price=None) -> ChatNode:
    return whole(wire, record, price) if way == "whole" else streamed(wire, [record], price)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_read_whole(name, way):
    bill = HOSTS[name]
    response = asked(bill.wire, way, bill.records, bill.price).response
    assert response.usage == bill.buckets
    if bill.cost is None:
        assert response.cost.resolution is CostResolution.UNPRICED
    else:
        assert response.cost.resolution is CostResolution.RESOLVED
        assert response.cost.cost == Decimal(bill.cost)
        assert response.cost.source == response.usage.native_cost_source


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_counts_of_a_host_that_cannot_all_be_right_are_unknown_and_kept(name, way):
    record = CONTRADICTIONS[name]
    response = asked("deepseek", way, record, PLAIN).response
    assert (response.usage, response.cost.resolution) == (None, CostResolution.UNKNOWN)
    assert response.cost.record == record


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ticks", [-5, 0, True, "3157000", 1e30, 10**30, None])
def test_ticks_that_can_be_no_cost_leave_it_to_the_price(ticks, way):
    record = chat(30, 5, 35, cost_in_usd_ticks=ticks)
    assert asked("xai", way, record).response.cost.resolution is CostResolution.UNPRICED
    assert asked("xai", way, record, PLAIN).response.cost.cost == Decimal("0.000055")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("total", [-0.1, 0, "NaN", "much", 1e30, None, [1]])
def test_a_total_that_can_be_no_cost_leaves_it_unpriced(total, way):
    parts = {"input_tokens_cost": 0.1, "output_tokens_cost": 0.1}
    record = chat(30, 5, 35, cost={**parts, "total_cost": total})
    assert asked("xai", way, record).response.cost.resolution is CostResolution.UNPRICED


def by_gateway(wire: str, way: str, record: Record, headers: dict[str, str], price=None):
    """The answer of a gateway with these headers."""
    if way == "whole":
        reply = ScriptedReply.json(body_of(WIRES[wire], record))
    else:
        reply = stream_of(WIRES[wire].events(WIRES[wire].cut(record)))
    reply = msgspec.structs.replace(reply, headers={**reply.headers, **headers})
    generator = generator_of(wire, price, reply)
    if way == "streamed":
        return read_stream(generator).response
    return minillmlib.run(ChatNode.root("Be brief.").chat("Hi", generator)).response


RECORDS = {"openai": chat(30, 5, 35), "deepseek": chat(30, 5, 35), "anthropic": claude(30, 5)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", RECORDS)
def test_the_cost_in_litellms_header_stands_before_any_price(wire, way):
    response = by_gateway(wire, way, RECORDS[wire], {**LITELLM, COST: "1.35e-05"}, PLAIN)
    assert response.cost.resolution is CostResolution.RESOLVED
    assert response.cost.cost == response.usage.native_cost == Decimal("0.0000135")
    assert response.cost.source == f"header {COST}"
    assert response.request_id == "4a5b"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", RECORDS)
def test_the_cost_in_litellms_counts_is_in_usd(wire, way):
    response = by_gateway(wire, way, {**RECORDS[wire], "cost": 0.00042}, LITELLM)
    assert response.cost.resolution is CostResolution.RESOLVED
    assert (response.cost.cost, response.cost.source) == (
        Decimal("0.00042"), "usage.cost of LiteLLM",
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "amount",
    ["0", "0.0", "-1", "NaN", "inf", "", "None", "12 EUR", "1e30", "1e-999999", "9" * 10_000],
)
def test_a_cost_of_litellm_that_can_be_none_is_not_believed(amount, way):
    headers = {**LITELLM, COST: amount}
    response = by_gateway("deepseek", way, RECORDS["deepseek"], headers)
    assert response.cost.resolution is CostResolution.UNPRICED
    response = by_gateway("deepseek", way, RECORDS["deepseek"], headers, PLAIN)
    assert response.cost.cost == Decimal("0.000055")


@pytest.mark.parametrize("way", WAYS)
def test_a_cost_without_litellms_headers_is_of_an_unknown_unit(way):
    response = by_gateway("deepseek", way, {**RECORDS["deepseek"], "cost": 0.00042}, {})
    assert response.cost.resolution is CostResolution.UNPRICED


@pytest.mark.parametrize("way", WAYS)
def test_counts_that_cannot_be_trusted_stay_unknown_whatever_the_header_states(way):
    headers = {**LITELLM, COST: "0.5"}
    response = by_gateway("deepseek", way, CONTRADICTIONS["two inputs"], headers)
    assert response.cost.resolution is CostResolution.UNKNOWN


def test_a_failure_of_a_gateway_has_its_call_id():
    reply = ScriptedReply(pieces=(b'{"error": "No."}',), status=400, headers=LITELLM)
    with pytest.raises(minillmlib.BadRequestError) as caught:
        minillmlib.run(ChatNode.root("s").chat("Hi", generator_of("openai", None, reply)))
    assert caught.value.request_id == "4a5b"


# A stream that was left early.

FIRST = claude(1000, 1, 400)
LEFT = Decimal("0.003135")  # 1000 x 3 + 400 x 0.3 + 1 x 15 = 3000 + 120 + 15


async def leave_early(settings=None, price=SONNET):
    """What a stream of Claude cost that was left after its first text."""
    events = WIRES["anthropic"].events([FIRST, claude(1000, 300, 400)])
    pieces = [b"data: %s\n\n" % msgspec.json.encode(event) for event in events]
    reply = ScriptedReply.events(*pieces)
    generator = generator_of("anthropic", price, reply)
    async with ChatNode.root("s").chat_streaming("Hi", generator, settings) as stream:
        await anext(stream)
        return await stream.cancel()


async def test_claudes_stream_that_is_left_early_cost_at_least_its_input():
    info = await leave_early()
    (attempt,) = info.attempts
    assert attempt.cost.resolution is info.resolution is CostResolution.UNKNOWN
    assert (attempt.cost.cost, attempt.cost.minimum_cost) == (Decimal(0), LEFT)
    assert (info.cost, info.prompt_tokens, info.cache_read_tokens) == (LEFT, 1400, 400)
    assert str(CostTotal.of([attempt.cost])) == "at least $0.003135 (1 unknown)"


async def test_a_stream_that_is_left_early_without_a_price_has_only_its_counts():
    info = await leave_early(price=None)
    assert (info.cost, info.prompt_tokens) == (Decimal(0), 1400)


async def test_a_lower_bound_does_not_release_a_budget():
    budget = Budget("1")
    params = minillmlib.CompletionParameters(max_tokens=1000)
    await leave_early(NodeCompletionParameters(budget=budget, params=params))
    assert budget.spent > Decimal("0.015")  # the ceiling: a thousand tokens of output


def test_a_stream_that_breaks_off_cost_at_least_its_input():
    events = WIRES["anthropic"].events([FIRST, claude(1000, 300, 400)])[:3]
    generator = generator_of("anthropic", SONNET, stream_of(events))
    with pytest.raises(minillmlib.IncompleteStreamError) as caught:
        read_stream(generator)
    total = CostTotal.of(attempt.cost for attempt in caught.value.attempts)
    assert total.cost >= LEFT
    assert not total.is_exact


def test_counts_on_every_chunk_are_a_lower_bound_on_the_chat_wire():
    said = WIRES["vllm"].events([chat(1000, 1, 1001), chat(1000, 2, 1002)])[:1]
    settings = NodeCompletionParameters(retry=0)
    generator = generator_of("vllm", PLAIN, stream_of(said))
    with pytest.raises(minillmlib.IncompleteStreamError) as caught:
        list(minillmlib.iterate(ChatNode.root("s").chat_streaming("Hi", generator, settings)))
    (attempt,) = caught.value.attempts
    assert CostTotal.of([attempt.cost]) == CostTotal(cost=Decimal("0.001005"), unknown=1)
