"""A streamed answer says what a whole one says, and what a model sealed goes back as it came."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from short_answers import ANSWER, CLAUDE
from strategies_answers import (
    DONE,
    INTERLEAVED,
    RANDOMS,
    ChatAnswer,
    calls_in,
    chat_answers,
    chat_body,
    chat_stream,
    claude_bodies,
    claude_stream,
    text_in,
)

import minillmlib
from golden import GOLDEN, LONG_STREAMS, STREAMS, golden_generator, reply_of
from minillmlib import (
    AnthropicProvider,
    AudioPart,
    ChatNode,
    CompletionResponse,
    GeneratorInfo,
    MiniLLMError,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    StreamChunk,
    TokenLogprob,
    TokenPrice,
    ToolCall,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.responses import SHARED_FIELDS

# The same examples in every run.
AGREEMENT = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
CLAUDE_WIRE = AnthropicProvider()


def generator_of(provider: Provider, reply: ScriptedReply, model: str = "m") -> GeneratorInfo:
    generator = GeneratorInfo.custom("vendor", "https://vendor.example/v1", model)
    priced = generator.with_provider(provider).with_token_price(TokenPrice("1", "5"))
    return priced.with_transport(ScriptedTransport([reply]))


def whole_of(provider: Provider, body: dict[str, Any]) -> ChatNode:
    generator = generator_of(provider, ScriptedReply.json(body))
    return minillmlib.run(ChatNode.root("s").chat("u", generator))


def streamed_of(provider: Provider, reply: ScriptedReply) -> tuple[list[StreamChunk], ChatNode]:
    stream = ChatNode.root("s").chat_streaming("u", generator_of(provider, reply))
    return list(minillmlib.iterate(stream)), stream.node


def said_by(response: CompletionResponse) -> CompletionResponse:
    """A response without what differs by right: the request, and whether a body came whole.

    A record that is no bill is kept as it came, of a stream's one that came last.
    """
    cost = msgspec.structs.replace(response.cost, record=None)
    return msgspec.structs.replace(
        response, request_report=None, attempts=(), raw_response=None, usage_record=None, cost=cost
    )


def shown(chunks: list[StreamChunk], field: str) -> str:
    return "".join(getattr(chunk, field) or "" for chunk in chunks)


@AGREEMENT
@given(claude_bodies(), RANDOMS)
def test_anthropics_answers_are_the_same_streamed_and_whole(body, rng):
    whole = whole_of(CLAUDE_WIRE, body)
    chunks, streamed = streamed_of(CLAUDE_WIRE, claude_stream(rng, body))
    odd = streamed.response.extra.pop("not_yet_invented", [])  # deltas that a whole answer has not
    assert all(delta["type"] == "not_yet_invented" for delta in odd)
    assert said_by(streamed.response) == said_by(whole.response)
    assert streamed.message == whole.message
    response, blocks = whole.response, body["content"]
    models = [body["model"], *(made["to"]["model"] for made in blocks if "to" in made)]
    assert (response.id, response.model) == (body["id"], models[-1])
    assert shown(chunks, "delta") == response.content == text_in(blocks)
    assert shown(chunks, "refusal") == ""  # this wire has no words of the model's for it
    assert shown(chunks, "refusal_reason") == (response.refusal_reason or "")
    assert response.refusal == response.refusal_reason
    assert response.text == (streamed.text or "") == response.content
    thought = "".join(made.get("thinking", "") for made in blocks)
    assert shown(chunks, "reasoning") == response.reasoning == thought
    assert response.tool_calls == calls_in(blocks)
    sealed = [
        (made, len(text_in(blocks[:place])), len(calls_in(blocks[:place])))
        for place, made in enumerate(blocks)
        if made["type"] not in ("text", "tool_use")
    ]
    kept = [
        (made.fields, made.text_before, made.calls_before) for made in response.reasoning_blocks
    ]
    assert kept == sealed


@AGREEMENT
@given(chat_answers(), st.sampled_from([OpenAiProvider(), OpenRouterProvider()]), RANDOMS)
def test_chat_answers_are_the_same_streamed_and_whole(answer, provider, rng):
    whole = whole_of(provider, chat_body(answer))
    chunks, streamed = streamed_of(provider, chat_stream(rng, answer))
    assert without_places(streamed) == without_places(whole)
    response = whole.response
    assert (response.id, response.model) == (answer.id, answer.model)
    assert shown(chunks, "delta") == response.content == answer.text
    assert shown(chunks, "refusal") == (response.refusal or "") == (answer.refusal or "")
    assert response.text == (streamed.text or "") == (answer.text or answer.refusal or "")
    assert shown(chunks, "reasoning") == response.reasoning == answer.thought
    assert response.tool_calls == tuple(answer.calls)
    assert [made.fields for made in response.reasoning_blocks] == answer.details
    assert [logprob_body(one) for one in response.logprobs] == answer.logprobs
    assert response.raw_finish_reason == (answer.native or answer.finish)
    assert len(response.media) == answer.images + (answer.sound is not None)
    if answer.sound is not None:
        assert response.media[-1] == AudioPart(data=answer.sound, media_type="audio/pcm")


FULL = ChatAnswer(
    id="i", model="m", text="t", refusal="No.", thinks_in="details", thought="hm",
    details=[{"type": "reasoning.text", "text": "hm", "index": 0}],
    calls=[ToolCall(id="c", name="f", arguments="{}")], images=1, sound=None, finish="stop",
    native="end", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    logprobs=[{"token": "t", "logprob": -1.0, "bytes": [116], "top_logprobs": []}],
)  # fmt: skip
REFUSED = {"content": [], "stop_reason": "refusal", "usage": {"input_tokens": "odd"},
           "stop_sequence": "END"}  # fmt: skip


def test_every_field_that_chunk_and_answer_share_is_read_from_some_wire():
    nothing, rng = CompletionResponse(), Random(0)
    whole = [whole_of(OpenRouterProvider(), chat_body(FULL)), whole_of(CLAUDE_WIRE, REFUSED)]
    streamed = [
        streamed_of(OpenRouterProvider(), chat_stream(rng, FULL))[1],
        streamed_of(CLAUDE_WIRE, claude_stream(rng, REFUSED | {"usage": {"output_tokens": 1}}))[1],
    ]
    for nodes in (whole, streamed):
        unread = [
            name
            for name in SHARED_FIELDS
            if all(getattr(node.response, name) == getattr(nothing, name) for node in nodes)
        ]
        assert not unread, "read it in a wire's response.py, and put it into an answer above"


def logprob_body(one: TokenLogprob, *, is_top: bool = False) -> dict[str, Any]:
    data = None if one.bytes is None else list(one.bytes)
    body = {"token": one.token, "logprob": one.logprob, "bytes": data}
    top = [logprob_body(other, is_top=True) for other in one.top]
    return body if is_top else body | {"top_logprobs": top}


def without_places(node: ChatNode) -> tuple[Any, ...]:
    """A response and a message whose blocks are only what they are: this wire has no places."""
    response, message = said_by(node.response), node.message
    blocks = tuple(
        msgspec.structs.replace(made, text_before=0, calls_before=0)
        for made in response.reasoning_blocks
    )
    if message.reasoning is not None:
        kept = () if response.refusal else response.reasoning_blocks
        assert message.reasoning.blocks == kept
        reasoning = msgspec.structs.replace(message.reasoning, blocks=blocks)
        message = msgspec.structs.replace(message, reasoning=reasoning)
    return msgspec.structs.replace(response, reasoning_blocks=blocks), message


def asked_next(
    node: ChatNode, provider: Provider, model: str
) -> tuple[bytes, list[dict[str, Any]], bool]:
    """The next request: its body, what it holds of the assistant, and if it left thought out."""
    for call in node.tool_calls:
        node = node.add_tool_result(call.id, "ok")
    answer = CLAUDE if isinstance(provider, AnthropicProvider) else ANSWER
    generator = generator_of(provider, ScriptedReply.json(answer), model)
    again = minillmlib.run(node.chat("and?", generator))
    (request,) = generator.transport.requests
    messages = msgspec.json.decode(request.body)["messages"]
    said = [message for message in messages if message["role"] == "assistant"]
    return request.body, said, "reasoning of earlier turns" in again.response.request_report.omitted


@AGREEMENT
@given(claude_bodies(INTERLEAVED, DONE), RANDOMS, st.booleans())
def test_blocks_go_back_between_text_and_calls_byte_for_byte_and_to_no_other_model(
    body, rng, streams
):
    node = whole_of(CLAUDE_WIRE, body)
    if streams:
        _, node = streamed_of(CLAUDE_WIRE, claude_stream(rng, body))
    blocks = body["content"]
    sent, _, omitted = asked_next(node, CLAUDE_WIRE, "m")
    turn = {"role": "assistant", "content": blocks}
    assert msgspec.json.encode(turn) in sent
    assert not omitted

    is_sealed = any(made["type"] not in ("text", "tool_use") for made in blocks)
    text, calls = text_in(blocks), [made for made in blocks if made["type"] == "tool_use"]
    visible = [*([{"type": "text", "text": text}] if text else []), *calls]
    _, said, omitted = asked_next(node, CLAUDE_WIRE, "another")
    assert said == ([{"role": "assistant", "content": visible}] if visible else [])
    assert omitted == is_sealed

    _, (said,), omitted = asked_next(node, OpenAiProvider(), "another")
    assert said.pop("content") == (text or (None if calls else ""))
    assert len(said.pop("tool_calls", [])) == len(calls)
    assert said == {"role": "assistant"}
    assert omitted == is_sealed


async def test_a_turn_that_paused_is_taken_up_again_as_it_came():
    name = "anthropic_stream_pause_turn_server_tool.sse"
    replies = [reply_of(name), ScriptedReply.json(CLAUDE)]
    generator = golden_generator(name).with_transport(ScriptedTransport(replies))
    async with ChatNode.root("s").chat_streaming("u", generator) as stream:
        async for _ in stream:
            pass
    await stream.node.complete(generator)
    _, request = generator.transport.requests
    (user, paused) = msgspec.json.decode(request.body)["messages"]
    assert user["role"] == "user"
    searched = {
        "type": "server_tool_use", "id": "srvtoolu_01Q2w3E4r5T6y7U8i9O0pAsD",
        "name": "web_search", "input": {"query": "tide tables 2026"},
    }  # fmt: skip
    assert paused == {"role": "assistant", "content": [searched]}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_says_the_same_wherever_its_bytes_are_parted(name):
    data = (GOLDEN / name).read_bytes()
    cuts = range(1, len(data), 101 if name in LONG_STREAMS else 1)
    replies = [ScriptedReply.events(data), ScriptedReply.events(*(bytes([byte]) for byte in data))]
    replies += [ScriptedReply.events(data[:cut], data[cut:]) for cut in cuts]
    generator = golden_generator(name).with_transport(ScriptedTransport(replies))
    root = ChatNode.root("Be brief.")
    whole = await told(root, generator)
    assert await told(root, generator) == whole, "byte by byte"
    for cut in cuts:
        assert await told(root, generator) == whole, f"parted at {cut}"


async def told(root: ChatNode, generator: GeneratorInfo) -> tuple[Any, ...]:
    """All that a stream says: its chunks, and the response or the error at its end."""
    stream = root.chat_streaming("Hi", generator)
    chunks = []
    try:
        async for chunk in stream:
            chunks.append(chunk)
    except MiniLLMError as error:
        facts = {name: value for name, value in vars(error).items() if name != "attempts"}
        return chunks, type(error), str(error), facts
    return chunks, said_by(stream.response), stream.node.message
