"""Token counts that a gateway writes as floats."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

import minillmlib
from minillmlib import ChatNode, CostResolution, GeneratorInfo, TokenPrice
from minillmlib.testing import ScriptedReply, ScriptedTransport

CHAT = {
    "prompt_tokens": 11.0, "completion_tokens": 5.0, "total_tokens": 16.0,
    "prompt_tokens_details": {"cached_tokens": 4.0},
    "completion_tokens_details": {"reasoning_tokens": 2.0},
}  # fmt: skip
CLAUDE = {
    "input_tokens": 7.0, "output_tokens": 5.0, "cache_read_input_tokens": 4.0,
    "cache_creation_input_tokens": 0.0, "output_tokens_details": {"thinking_tokens": 2.0},
}  # fmt: skip


def events(*values: dict) -> ScriptedReply:
    return ScriptedReply.events(*(b"data: " + json.dumps(v).encode() + b"\n\n" for v in values))


def replies(wire: str, usage: dict) -> tuple[ScriptedReply, ScriptedReply]:
    if wire == "claude":
        message = {"id": "m", "model": "c", "stop_reason": "end_turn", "usage": usage,
                   "content": [{"type": "text", "text": "ok"}]}  # fmt: skip
        start = {"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
               "usage": {"output_tokens": usage["output_tokens"]}}  # fmt: skip
        return ScriptedReply.json(message), events(start, end, {"type": "message_stop"})
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    delta = {"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}
    return (ScriptedReply.json({"choices": [choice], "usage": usage}),
            events({"choices": [delta]}, {"choices": [], "usage": usage}))  # fmt: skip


def responses(wire: str, usage: dict):
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    if wire == "claude":
        generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    transport = ScriptedTransport(replies(wire, usage))
    generator = generator.with_token_price(TokenPrice(1, 2).with_cache_rates("0.5", 1))
    generator = generator.with_transport(transport)
    yield minillmlib.run(ChatNode.root("s").chat("u", generator)).response
    stream = ChatNode.root("s").chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    yield stream.node.response


@pytest.mark.parametrize(("wire", "usage"), [("chat", CHAT), ("claude", CLAUDE)])
def test_whole_floats_are_counts(wire, usage):
    for response in responses(wire, usage):
        counts = response.usage
        assert (counts.prompt_tokens, counts.cache_read_tokens) == (11, 4)
        assert (counts.completion_tokens, counts.reasoning_tokens) == (5, 2)
        assert all(type(n) is int for n in (counts.prompt_tokens, counts.completion_tokens))
        assert response.cost.resolution is CostResolution.RESOLVED
        assert response.cost.cost == Decimal(7 + 10 + 2) / 10**6


@pytest.mark.parametrize("count", [14417.92, -5.0, 1e300, "5", True])
@pytest.mark.parametrize(
    ("wire", "usage", "key"),
    [("chat", CHAT, "completion_tokens"), ("claude", CLAUDE, "output_tokens")],
)
def test_any_other_number_is_no_count_and_is_kept(wire, usage, key, count):
    for response in responses(wire, {**usage, key: count}):
        assert response.content in ("ok", "")
        assert response.usage is None
        assert response.cost.resolution is CostResolution.UNKNOWN
        assert response.usage_record is not None
