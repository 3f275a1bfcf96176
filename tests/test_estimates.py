"""Estimates: the most that a request can cost, or what is missing to say so."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    Message,
    NodeCompletionParameters,
    ResponseFormat,
    TokenPrice,
    ToolDefinition,
    Usage,
)

GENERATOR = GeneratorInfo.custom("own", "https://own.example/v1", "m")
RATES = st.decimals(0, 100, places=2)
BRIEF = CompletionParameters(max_tokens=10)


@st.composite
def prices(draw, tiers: int = 3) -> TokenPrice:
    rate_or_none = st.none() | RATES
    more = {}
    if tiers > 1 and draw(st.booleans()):
        more = {"threshold": draw(st.integers(0, 300)), "above": draw(prices(tiers - 1))}
    return TokenPrice(
        draw(RATES), draw(RATES), cache_read=draw(rate_or_none), cache_write=draw(rate_or_none),
        cache_write_1h=draw(rate_or_none), **more,
    )  # fmt: skip


@given(prices(), st.text(max_size=150), st.text(max_size=20), st.integers(0, 50), st.data())
def test_no_usage_within_the_bounds_costs_more_than_the_estimate(price, text, system, most, data):
    node = ChatNode.root(system).add_user(text)
    params = CompletionParameters(max_tokens=most)
    estimate = node.estimate_cost(GENERATOR.with_token_price(price), params)
    left = len(text.encode("utf-8", "replace")) + len(system.encode("utf-8", "replace")) + 20
    buckets = []
    for _ in range(3):
        buckets.append(data.draw(st.integers(0, left)))
        left -= buckets[-1]
    usage = Usage(
        uncached_input_tokens=buckets[0],
        cache_read_tokens=buckets[1],
        cache_write_tokens=buckets[2],
        cache_write_1h_tokens=data.draw(st.integers(0, buckets[2])),
        completion_tokens=data.draw(st.integers(0, most)),
    )
    assert estimate.missing == ()
    assert price.cost_of(usage) <= estimate.ceiling


def test_a_price_that_is_highest_in_its_middle_is_estimated_by_that():
    above = TokenPrice(100, 100, threshold=200, above=TokenPrice(1, 1))
    price = TokenPrice(1, 1, threshold=100, above=above)
    node = ChatNode.root("s").add_user("x" * 500)
    estimate = node.estimate_cost(GENERATOR.with_token_price(price), BRIEF)
    dearest = Usage(uncached_input_tokens=200, completion_tokens=10)
    assert estimate.ceiling == price.cost_of(dearest) == Decimal("0.021")


NODE = ChatNode.root("s").add_user("u")
PRICED = GENERATOR.with_token_price(TokenPrice(1, 5))


def ceiling(node: ChatNode, params=BRIEF, generator=PRICED) -> Decimal:
    return node.estimate_cost(generator, params).ceiling


SCHEMA = {"type": "object", "description": "x" * 1999}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [ToolDefinition(name="f", description="x" * 1999)]},
        {"response_format": ResponseFormat.json_schema(SCHEMA)},
    ],
    ids=["tools", "schema"],
)
def test_what_stands_in_the_prompt_beside_the_messages_counts(more):
    assert ceiling(NODE, BRIEF.replace(**more)) > ceiling(NODE) + Decimal("0.001999")


@pytest.mark.parametrize(
    "settings",
    [
        {"system_prompt": "x" * 999},
        {"format_kwargs": {"u": "x" * 999}},
    ],
    ids=["system prompt", "placeholder"],
)
def test_what_the_settings_put_into_the_prompt_counts(settings):
    node, _ = ChatNode.from_messages([Message.user("{u}")])
    params = NodeCompletionParameters(params=BRIEF, **settings)
    assert ceiling(node, params) > ceiling(node) + Decimal("0.000990")


def test_a_letter_of_several_bytes_may_be_several_tokens():
    assert ceiling(NODE.add_user("\u0950" * 999)) >= ceiling(NODE.add_user("x" * 2997))


def test_a_tool_brings_along_what_its_vendor_says_about_tools():
    """Anthropic's is some hundred tokens for the first tool, whatever its length."""
    generator = PRICED.with_provider(AnthropicProvider())
    params = BRIEF.replace(tools=[ToolDefinition(name="f")])
    added = ceiling(NODE, params, generator) - ceiling(NODE, BRIEF, generator)
    assert added >= Decimal("0.0008")


@pytest.mark.parametrize(
    ("node", "generator", "params", "missing"),
    [
        (NODE, GENERATOR, BRIEF, "a price"),
        (NODE, PRICED, CompletionParameters(), "max_tokens"),
        (ChatNode.root("s").add_user([ImagePart.from_url("https://x.example/i.png")]), PRICED,
            BRIEF, "image"),
        *(
            (NODE, PRICED, BRIEF.replace(extra={key: value}), f"extra\\['{key}'\\]")
            for key, value in (("n", 2), ("best_of", 2), ("max_tokens", 999), ("plugins", []),
                ("web_search_options", {}), ("service_tier", "priority"), ("prediction", {}))
        ),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(node, generator, params, missing):
    estimate = node.estimate_cost(generator, params)
    assert estimate.ceiling is None
    (said,) = estimate.missing
    assert re.search(missing, said)


def test_extra_keys_that_cost_nothing_change_nothing():
    assert ceiling(NODE, BRIEF.replace(extra={"user": "u-1"})) == ceiling(NODE)
