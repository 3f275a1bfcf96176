"""A price is for one tier, one region and one kind of tokens; what an answer says of others counts."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from scripted_server import Server
from short_answers import said

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    CostResolution,
    GeneratorInfo,
    InvalidParameterError,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

PRICE = TokenPrice(1, 10)
CHAT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CLAUDE = {"input_tokens": 1000, "output_tokens": 100}
STANDARD_COST = Decimal("0.002")


def as_stream(*events: dict) -> ScriptedReply:
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(one) for one in events))


def chat_reply(usage: dict, top: dict, *, streamed: bool) -> ScriptedReply:
    if not streamed:
        choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
        return ScriptedReply.json({"id": "1", "choices": [choice], "usage": CHAT | usage, **top})
    return as_stream(
        {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}], **top},
        {"choices": [], "usage": CHAT | usage, **top},
    )


def claude_reply(usage: dict, top: dict, *, streamed: bool) -> ScriptedReply:
    if not streamed:
        text = {"type": "text", "text": "hi"}
        return ScriptedReply.json(
            {"content": [text], "stop_reason": "end_turn", "usage": CLAUDE | usage, **top}
        )
    message = {"id": "1", "model": "m", "usage": CLAUDE | usage | {"output_tokens": 1}}
    text = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "hi"},
    }
    return as_stream(
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        text,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 100},
        },
        {"type": "message_stop"},
    )


def ask(wire: str, usage: dict, top: dict, price: TokenPrice, *, streamed: bool):
    make = chat_reply if wire == "chat" else claude_reply
    reply = make(usage, top, streamed=streamed)
    generator = GeneratorInfo.custom("c", "https://c.example/v1", "claude-sonnet-4-6")
    if wire == "claude":
        generator = generator.with_provider(AnthropicProvider())
    generator = generator.with_token_price(price).with_transport(ScriptedTransport([reply]))
    root = ChatNode.root("s")
    if streamed:
        return minillmlib.run(root.chat_streaming("q", generator).collect()).response
    return minillmlib.run(root.chat("q", generator)).response


# The wire, what the record of counts says beside the counts, and what the answer says beside it.
OTHER = [
    ("chat", {}, {"service_tier": "priority"}),
    ("chat", {}, {"service_tier": "flex"}),
    ("chat", {}, {"service_tier": "scale"}),
    ("chat", {}, {"service_tier": "batch"}),
    ("chat", {}, {"service_tier": "performance"}),
    ("chat", {}, {"service_tier": "auto"}),
    ("chat", {}, {"service_tier": "of next year"}),
    ("chat", {}, {"service_tier": 3}),
    ("chat", {}, {"service_tier": {"name": "default"}}),
    ("chat", {"service_tier": "priority"}, {}),
    ("chat", {"inference_geo": "us"}, {}),
    ("chat", {}, {"inference_geo": "eu"}),
    ("chat", {"prompt_tokens_details": {"audio_tokens": 40}}, {}),
    ("chat", {"prompt_tokens_details": {"cached_tokens": 8, "image_tokens": 40}}, {}),
    ("chat", {"prompt_tokens_details": {"video_tokens": 900}}, {}),
    ("chat", {"completion_tokens_details": {"audio_tokens": 90, "text_tokens": 10}}, {}),
    ("chat", {"completion_tokens_details": {"image_tokens": 90}}, {}),
    ("chat", {"prompt_audio_seconds": 3}, {}),
    ("chat", {"tool_usage": {"web_search": {"requests": 2}}}, {}),
    ("chat", {"server_tool_use": {"web_search_requests": 1}}, {}),
    ("chat", {"num_search_queries": 2}, {}),
    ("chat", {"num_sources_used": 2}, {}),
    ("chat", {"server_side_tool_usage_details": {"code_interpreter_calls": 1}}, {}),
    ("chat", {"request_fee": 0.01}, {}),
    ("chat", {"grounding_queries": 1}, {}),
    ("claude", {"service_tier": "priority"}, {}),
    ("claude", {"service_tier": "batch"}, {}),
    ("claude", {"service_tier": "unheard of"}, {}),
    ("claude", {"inference_geo": "us"}, {}),
    ("claude", {"speed": "fast"}, {}),
    ("claude", {"server_tool_use": {"web_search_requests": 2}}, {}),
    ("claude", {"server_tool_use": {"code_execution_requests": 2}}, {}),
    ("claude", {"image_tokens": 3}, {}),
]

PLAIN = [
    ("chat", {}, {"service_tier": "default"}),
    ("chat", {}, {"service_tier": None}),
    ("chat", {}, {"service_tier": "on_demand"}),
    ("chat", {"prompt_tokens_details": {"audio_tokens": 0, "text_tokens": 1000}}, {}),
    ("chat", {"completion_tokens_details": {"image_tokens": None}}, {}),
    ("chat", {"tool_usage": {"web_search": {"requests": 0}}}, {}),
    ("chat", {"queue_time": 0.2, "total_time": 1.5}, {}),
    ("claude", {"service_tier": "standard"}, {}),
    ("claude", {"inference_geo": "not_available"}, {}),
    ("claude", {"inference_geo": "global", "speed": "standard"}, {}),
    ("claude", {"server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 3}}, {}),
]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("wire", "usage", "top"), OTHER)
def test_what_is_billed_otherwise_is_unpriced_and_says_so(wire, usage, top, streamed):
    response = ask(wire, usage, top, PRICE, streamed=streamed)
    assert response.cost.resolution is CostResolution.UNPRICED
    counts = response.usage
    assert counts.service_tier or counts.surcharges or counts.non_token_charges


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("wire", "usage", "top"), PLAIN)
def test_what_is_billed_as_usual_has_its_price(wire, usage, top, streamed):
    cost = ask(wire, usage, top, PRICE, streamed=streamed).cost
    assert (cost.resolution, cost.cost) == (CostResolution.RESOLVED, STANDARD_COST)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("wire", "usage", "top", "price"),
    [
        ("chat", {}, {"service_tier": "priority"}, TokenPrice(1, 10, service_tier="priority")),
        ("claude", {"service_tier": "batch"}, {}, TokenPrice(1, 10, service_tier="batch")),
        ("claude", {"inference_geo": "us"}, {}, TokenPrice(1, 10, covers=("inference_geo us",))),
        (
            "chat",
            {"prompt_tokens_details": {"image_tokens": 40}},
            {},
            TokenPrice(1, 10, covers=("audio tokens", "image tokens")),
        ),
    ],
)
def test_a_price_given_for_it_is_taken(wire, usage, top, price, streamed):
    cost = ask(wire, usage, top, price, streamed=streamed).cost
    assert (cost.resolution, cost.cost) == (CostResolution.RESOLVED, STANDARD_COST)


def test_a_price_of_another_tier_is_not_the_standard_price():
    cost = ask("chat", {}, {}, TokenPrice(1, 10, service_tier="priority"), streamed=False).cost
    assert cost.resolution is CostResolution.UNPRICED


@pytest.mark.parametrize("wrong", [{"service_tier": 3}, {"covers": "audio tokens"}])
def test_a_price_for_something_that_is_no_text_is_refused(wrong):
    with pytest.raises(InvalidParameterError):
        TokenPrice(1, 10, **wrong)


@pytest.mark.parametrize(
    "extra",
    [{"search": True}, {"web_search_options": {}}, {"plugins": []}, {"audio": {}}, {"new_key": 1}],
)
def test_a_key_that_nobody_knows_has_no_known_cost(extra):
    generator = Server([said("x")]).generator().with_token_price(PRICE)
    params = CompletionParameters(max_tokens=9, extra=extra)
    estimate = ChatNode.root("s").add_user("q").estimate_cost(generator, params)
    assert (estimate.ceiling, len(estimate.missing)) == (None, 1)
