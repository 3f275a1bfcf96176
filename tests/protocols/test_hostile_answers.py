"""Hostile answers by the library's own door: one error of ours, or a whole answer to go on from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import pytest
from fuzz_inputs import FACTOR, SEED, Corpus, pieces_of, recorded
from fuzz_parsers import (
    CLAUDE,
    PARSERS,
    RESPONSES,
    ROUTER,
    check_error,
    check_response,
    fed,
    outcome_of,
)
from short_answers import RESPONSE

from minillmlib import (
    ChatNode,
    CostResolution,
    GeneratorInfo,
    MiniLLMError,
    Provider,
    TokenPrice,
)
from minillmlib.json_value import decode_json
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

ANSWERS = 1_000 * FACTOR  # for each wire, whole and streamed

CHAT_END = b"data: [DONE]\n\n"
CLAUDE_END = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
GOOD_CHAT = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}]}'
RESPONSES_END = b'data: {"type":"response.completed","response":{"status":"completed"}}\n\n'
GOOD_RESPONSE = msgspec.json.encode(RESPONSE)
GOOD_CLAUDE = b'{"content":[{"type":"text","text":"ok"}],"stop_reason":"end_turn"}'


class Wire(NamedTuple):
    """A provider, what it is fed with, how its streams end, and a good answer."""

    provider: Provider
    whole: Corpus
    events: Corpus
    streams: Corpus
    end: bytes
    good: bytes

    def generator(self, *replies: ScriptedReply) -> GeneratorInfo:
        generator = GeneratorInfo.custom("hostile", "https://hostile.example/v1", "m")
        generator = generator.with_provider(self.provider).with_api_key("sk-hostile")
        generator = generator.with_token_price(TokenPrice("1", "5"))
        return generator.with_transport(ScriptedTransport(replies))


@pytest.fixture(scope="module", params=["chat", "claude", "responses"])
def wire(request) -> Wire:
    known = recorded()
    if request.param == "chat":
        return Wire(ROUTER, known.chat_whole, known.chat_chunk, known.chat_streams, CHAT_END,
                    GOOD_CHAT)  # fmt: skip
    if request.param == "responses":
        return Wire(RESPONSES, known.responses_whole, known.responses_chunk,
                    known.responses_streams, RESPONSES_END, GOOD_RESPONSE)  # fmt: skip
    return Wire(CLAUDE, known.claude_whole, known.claude_chunk, known.claude_streams, CLAUDE_END,
                GOOD_CLAUDE)  # fmt: skip


def streams(wire: Wire, count: int, seed: object = SEED) -> Iterator[bytes]:
    """Recorded streams with broken bytes, and recorded events in any order, some hostile."""
    chance = random.Random(f"{seed} streams")
    yield from wire.streams.inputs(count // 2, seed)
    for _ in range(count - count // 2):
        events = [
            wire.events.hostile(chance)
            if chance.random() < 0.2
            else chance.choice(wire.events.seeds)
            for _ in range(chance.randint(1, 8))
        ]
        lines = (b"\ndata: ".join(event.split(b"\n")) for event in events)
        yield b"".join(b"data: " + line + b"\n\n" for line in lines) + wire.end


async def knock(wire: Wire, reply: ScriptedReply, *, streaming: bool) -> bool:
    """Asks for an answer and, if it is taken, goes on from there. Whether it was taken."""
    root = ChatNode.root("s")
    generator = wire.generator(reply, ScriptedReply.json(wire.good))
    said = []
    try:
        if streaming:
            async with root.chat_streaming("u", generator) as stream:
                async for chunk in stream:
                    said.append(chunk.delta)
            node = stream.node
        else:
            node = await root.chat("u", generator)
    except MiniLLMError as error:
        check_error(error)
        assert error.partial.startswith("".join(said))
        assert len(error.attempts) == 1
        assert error.was_sent
        assert root.children() == []
        return False
    check_response(node.response)
    assert not streaming or "".join(said) == node.response.content
    cost = node.response.cost
    assert cost.cost >= 0
    assert (cost.resolution is CostResolution.UNKNOWN) == (node.response.usage is None)
    for call in node.tool_calls:
        node = node.add_tool_result(call.id, "result")
    assert (await node.chat("go on", generator)).text == "ok"
    return True


async def test_a_hostile_whole_answer_is_an_error_or_a_turn_to_go_on_from(wire):
    taken = 0
    for data in wire.whole.inputs(ANSWERS, "door"):
        taken += await knock(wire, ScriptedReply.json(data), streaming=False)
    assert taken > ANSWERS // 20


async def test_a_hostile_stream_is_an_error_or_a_turn_to_go_on_from(wire):
    taken = 0
    chance = random.Random(f"{SEED} pieces")
    for data in streams(wire, ANSWERS):
        reply = ScriptedReply.events(*pieces_of(data, chance), breaks_off=chance.random() < 0.2)
        taken += await knock(wire, reply, streaming=True)
    assert taken > ANSWERS // 20


async def test_a_hostile_answer_in_one_piece_to_a_streaming_request_is_no_different(wire):
    for data in wire.whole.inputs(ANSWERS // 4, "in one piece"):
        await knock(wire, ScriptedReply.json(data), streaming=True)


async def test_a_hostile_error_answer_is_an_error_with_its_status(wire):
    chance = random.Random(f"{SEED} statuses")
    for data in recorded().failures.inputs(ANSWERS // 4, "door"):
        status = chance.choice((300, 400, 401, 404, 429, 500, 503))
        reply = ScriptedReply.json(data, status=status)
        with pytest.raises(MiniLLMError) as caught:
            await ChatNode.root("s").chat("u", wire.generator(reply))
        check_error(caught.value)
        assert caught.value.status == status


# Values so deep that they can just be read, but perhaps no longer handled.


def deepest() -> int:
    """How many nested arrays can be read from here."""
    low, high = 1, 200_000
    while high - low > 1:
        depth = (low + high) // 2
        is_read = not isinstance(outcome_of(decode_json, b"[" * depth + b"]" * depth), MiniLLMError)
        low, high = (depth, high) if is_read else (low, depth)
    return low


DEEP_PLACES = {
    "chat completion": [
        '{"choices":[{"message":{"tool_calls":[{"function":{"name":"f","arguments":@}}]}}]}',
        '{"choices":[{"message":{"reasoning_details":[{"type":"x","x":@}]}}]}',
        '{"choices":[{"message":{"content":@}}]}', '{"choices":[{"message":{"images":[{"image_url":@}]}}]}',
    ],
    "chat chunk": [
        '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":@}}]}}]}',
        '{"choices":[{"delta":{"reasoning_details":[{"type":"x","x":@}]}}]}', '{"error":@}',
    ],
    "claude message": [
        '{"content":[{"type":"tool_use","name":"f","input":@}]}',
        '{"content":[{"type":"text","text":@}]}',
        '{"content":[{"type":"x","x":@}]}', '{"content":@}',
    ],
    "claude event": [
        '{"type":"content_block_start","content_block":{"type":"tool_use","name":"f","input":@}}',
        '{"type":"content_block_start","content_block":{"type":"x","input":@}}',
        '{"type":"content_block_delta","delta":{"type":"text_delta","text":@}}',
    ],
    "failure": [
        '{"error":@}', '{"error":{"message":@}}', '{"message":{"detail":@}}', "@",
        '{"error":{"message":"m","metadata":{"raw":@}}}', '{"detail":[{"msg":@}]}', '{"detail":[@]}',
        '{"detail":[{"loc":["body"],"msg":"m","ctx":@}]}',
        '{"detail":[{"loc":@,"msg":"m"}]}',
    ],
    "usage": ['{"usage":@}', '{"usage":{"prompt_tokens":@}}', '{"message":@}'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, places in DEEP_PLACES.items() for place in places]
)
def test_a_value_that_can_just_be_read_is_handled_in_every_place(name, place):
    edge = deepest()
    for depth in range(max(1, edge - 60), edge + 2):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = opening * depth + "1" + closing * depth
            for read in PARSERS[name].readers:
                fed(read, place.replace("@", inner).encode())
