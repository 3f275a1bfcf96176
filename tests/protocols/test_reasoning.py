"""Reasoning: how it is asked for, shown, kept, and sent back to the model that made it."""

from __future__ import annotations

import msgspec
import pytest
from golden_expected import ANSWERS
from sent_bodies import CHAT, CLAUDE_WIRE, asked, body_of

import minillmlib
from golden import GOLDEN, golden_generator, reply_of
from minillmlib import (
    ChatDialect,
    ChatNode,
    CompletionParameters,
    GenericProvider,
    InvalidParameterError,
    OpenAiProvider,
    OpenRouterProvider,
    ReasoningConfig,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

EFFORT = CompletionParameters(reasoning=ReasoningConfig(effort="low"))
BUDGET = CompletionParameters(reasoning=ReasoningConfig(max_tokens=2000))


def test_an_effort_is_said_in_each_wires_words():
    for provider in (OpenAiProvider(), GenericProvider()):
        assert body_of(provider, asked("u"), EFFORT)["reasoning_effort"] == "low"
    assert body_of(OpenRouterProvider(), asked("u"), EFFORT)["reasoning"] == {"effort": "low"}
    body = body_of(CLAUDE_WIRE, asked("u"), EFFORT)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "low"}
    none = CompletionParameters(reasoning=ReasoningConfig(effort="none"))
    body = body_of(CLAUDE_WIRE, asked("u"), none)
    assert body["thinking"] == {"type": "disabled"}
    assert "output_config" not in body


def test_a_budget_goes_where_there_is_one_and_is_an_error_elsewhere():
    assert body_of(OpenRouterProvider(), asked("u"), BUDGET)["reasoning"] == {"max_tokens": 2000}
    body = body_of(CLAUDE_WIRE, asked("u"), BUDGET)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    for provider in (OpenAiProvider(), GenericProvider()):
        with pytest.raises(InvalidParameterError, match="max_tokens"):
            body_of(provider, asked("u"), BUDGET)


@pytest.mark.parametrize("wrong", [{}, {"effort": "low", "max_tokens": 1}, {"effort": "lots"}])
def test_a_reasoning_that_is_no_choice_is_refused(wrong):
    with pytest.raises(InvalidParameterError):
        ReasoningConfig(**wrong)


# What a model refused leaves no sealed blocks.
THOUGHTFUL = [
    name
    for name, said in ANSWERS.items()
    if said.reasoning or (said.reasoning_blocks and not said.refusal)
]


async def answer_of(name: str) -> ChatNode:
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    if name.endswith(".sse"):
        async with ChatNode.root("s").chat_streaming("u", generator) as stream:
            async for _ in stream:
                pass
        return stream.node
    return await ChatNode.root("s").chat("u", generator)


@pytest.mark.parametrize("name", [*THOUGHTFUL, "openai_text.json"])
async def test_what_a_model_thought_is_on_the_node_under_the_models_name(name):
    node = await answer_of(name)
    text, blocks = ANSWERS[name].reasoning, ANSWERS[name].reasoning_blocks
    kept = node.message.reasoning
    assert (kept is not None) == (name in THOUGHTFUL)
    if kept is not None:
        assert (kept.text, kept.blocks) == (text, blocks)
        assert kept.origin == node.response.origin
        assert kept.key == ANSWERS[name].reasoning_key


def blocks_of(name: str) -> list[dict]:
    return [block.fields for block in ANSWERS[name].reasoning_blocks]


def asked_again(node: ChatNode, generator) -> list[dict]:
    reply = ScriptedReply.json((GOLDEN / "openai_text.json").read_bytes())
    if isinstance(generator.provider, minillmlib.AnthropicProvider):
        reply = ScriptedReply.json((GOLDEN / "anthropic_text.json").read_bytes())
    transport = ScriptedTransport([reply])
    again = minillmlib.run(node.chat("and?", generator.with_transport(transport)))
    sent = msgspec.json.decode(transport.requests[0].body)["messages"]
    omitted = again.response.request_report.omitted
    is_own = node.message.reasoning.origin == again.response.origin
    assert bool(omitted) == (not is_own)
    return [message for message in sent if message["role"] == "assistant"]


def test_sealed_blocks_go_back_unchanged_and_first_to_the_model_that_made_them():
    name = "anthropic_stream_thinking_summarized.sse"
    node = minillmlib.run(answer_of(name))
    (sent,) = asked_again(node, golden_generator(name))
    assert sent["content"] == [*blocks_of(name), {"type": "text", "text": "gcd = 21"}]


def test_openrouters_details_go_back_to_it():
    name = "openrouter_claude_cache_cost.json"
    node = minillmlib.run(answer_of(name))
    (sent,) = asked_again(node, golden_generator(name))
    assert sent["reasoning_details"] == blocks_of(name)


@pytest.mark.parametrize("provider", [*CHAT, CLAUDE_WIRE])
def test_no_other_model_gets_what_one_has_thought(provider):
    for name in ("anthropic_stream_thinking_summarized.sse", "openrouter_claude_cache_cost.json"):
        node = minillmlib.run(answer_of(name))
        other = golden_generator(name).replace(provider=provider, model="another")
        (sent,) = asked_again(node, other)
        assert "Sig" not in str(sent)
        assert "reasoning" not in str(sent)


def test_details_of_different_kinds_stay_apart_though_they_share_a_number():
    details = [{"type": "reasoning.summary", "summary": "I think", "index": 0},
               {"type": "reasoning.encrypted", "data": "SEALED", "index": 0}]  # fmt: skip
    message = {"content": "ok", "reasoning_details": details}
    whole = ScriptedReply.json({"choices": [{"message": message, "finish_reason": "stop"}]})
    pieces = [{"choices": [{"index": 0, "delta": {"reasoning_details": [detail]}}]} for detail in (
        details[0] | {"summary": None}, details[0] | {"summary": "I "}, details[0] | {"summary": "think"},
        details[1])]  # fmt: skip
    end = {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
    events = (b"data: " + msgspec.json.encode(item) + b"\n\n" for item in (*pieces, end))
    for reply in (whole, ScriptedReply.events(*events)):
        generator = golden_generator("openrouter").with_transport(ScriptedTransport([reply]))
        stream = ChatNode.root("s").chat_streaming("u", generator)
        list(minillmlib.iterate(stream))
        assert [block.fields for block in stream.response.reasoning_blocks] == details


class DeepSeek(minillmlib.Provider):
    """DeepSeek wants the reasoning back as text."""

    dialect = ChatDialect(name="DeepSeek", reasoning_echo="reasoning_content")


def test_a_server_that_wants_the_text_back_gets_it():
    name = "compat_deepseek_usage.json"
    generator = golden_generator(name).with_provider(DeepSeek())
    scripted = generator.with_transport(ScriptedTransport([reply_of(name)]))
    node = minillmlib.run(ChatNode.root("s").chat("u", scripted))
    (sent,) = asked_again(node, generator)
    assert sent["reasoning_content"] == "Use Euclid."


def test_what_a_model_wrote_before_it_refused_goes_back_without_its_blocks():
    content = [{"type": "text", "text": "I will "},
               {"type": "thinking", "thinking": "No.", "signature": "Sig"},
               {"type": "text", "text": "not"}]  # fmt: skip
    body = {"content": content, "stop_reason": "refusal",
            "stop_details": {"type": "refusal", "explanation": "The request could harm."}}  # fmt: skip
    generator = golden_generator("anthropic")
    scripted = generator.with_transport(ScriptedTransport([ScriptedReply.json(body)]))
    node = minillmlib.run(ChatNode.root("s").chat("u", scripted))
    assert node.message.text == "I will not"
    assert node.response.refusal == "The request could harm."
    (sent,) = asked_again(node, generator)
    assert sent["content"] == [{"type": "text", "text": "I will not"}]


def test_a_whole_answer_to_a_streaming_request_brings_its_blocks_in_its_chunk():
    name = "openrouter_claude_cache_cost.json"
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    stream = ChatNode.root("s").chat_streaming("u", generator)
    (chunk,) = minillmlib.iterate(stream)
    blocks = [block.fields for block in stream.response.reasoning_blocks]
    assert [delta.fields for delta in chunk.reasoning_blocks] == blocks


def test_counts_before_an_end_without_a_finish_are_the_bill():
    text = {"choices": [{"index": 0, "delta": {"content": "ok"}}]}
    counted = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    events = [b"data: " + msgspec.json.encode(item) + b"\n\n" for item in (text, counted)]
    for end, prompt_tokens in ((b"data: [DONE]\n\n", 3), (b"", None)):
        generator = golden_generator("openai").with_transport(
            ScriptedTransport([ScriptedReply.events(*events, end)])
        )
        stream = ChatNode.root("s").chat_streaming("u", generator)
        if prompt_tokens is None:
            with pytest.raises(minillmlib.IncompleteStreamError):
                list(minillmlib.iterate(stream))
        else:
            list(minillmlib.iterate(stream))
            assert stream.response.usage.prompt_tokens == prompt_tokens


@pytest.mark.parametrize("word", ["thoughts", "reasoning_contents", "REASONING", "", 3])
def test_a_name_under_which_no_server_takes_reasoning_is_refused_when_the_dialect_is_made(word):
    with pytest.raises(InvalidParameterError, match="reasoning_echo must be 'reasoning_content'"):
        ChatDialect(reasoning_echo=word)


def asked_twice(provider, message: dict, *, is_streamed: bool) -> tuple[dict, dict]:
    """Return the assistant's turn as it was sent back, and what was omitted."""
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    first = ScriptedReply.json(answer)
    if is_streamed:
        pieces = [
            {"choices": [{"index": 0, "delta": {name: value}}]} for name, value in message.items()
        ]
        pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        first = ScriptedReply.events(
            *(b"data: " + msgspec.json.encode(p) + b"\n\n" for p in pieces)
        )
    transport = ScriptedTransport([first, ScriptedReply.json(answer)])
    generator = golden_generator("compat").with_provider(provider).with_transport(transport)
    stream = ChatNode.root("s").chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    node = stream.node
    for call in node.tool_calls:
        node = node.add_tool_result(call.id, "ok")
    node = minillmlib.run(
        node.complete(generator) if stream.node.tool_calls else node.chat("v", generator)
    )
    sent = msgspec.json.decode(transport.requests[1].body)["messages"][2]
    return sent, node.response.request_report.omitted


def speaking(echo: str | None) -> minillmlib.Provider:
    kind = {"dialect": ChatDialect(name="Own", reasoning_echo=echo)}
    return type("Own", (minillmlib.Provider,), kind)()


CALL = {
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
}
DETAILS = [{"type": "reasoning.text", "text": "hm", "index": 0}]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("echo", "message", "sent_back"),
    [
        ("as_sent", {"reasoning_content": "hm"} | CALL, {"reasoning_content": "hm"}),
        ("as_sent", {"content": "x", "reasoning_content": "hm"}, None),
        ("as_sent", {"reasoning": "hm"} | CALL, None),
        ("as_sent", {"content": "x", "reasoning_details": DETAILS}, {"reasoning_details": DETAILS}),
        ("as_sent", {"reasoning_content": "hm", "reasoning_details": DETAILS} | CALL,
         {"reasoning_details": DETAILS}),
        ("as_sent", {"reasoning_content": ""} | CALL, {"reasoning_content": ""}),
        ("as_sent", {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                                 {"type": "text", "text": "x"}]}, None),
        ("reasoning", {"reasoning_content": "hm"} | CALL, {"reasoning": "hm"}),
        ("reasoning", {"content": "x", "reasoning": "hm"}, {"reasoning": "hm"}),
        ("reasoning_content", {"content": "x", "reasoning": "hm"}, {"reasoning_content": "hm"}),
        ("reasoning_content", dict(CALL), {"reasoning_content": ""}),
        ("reasoning", dict(CALL), {}),
        ("reasoning_details", {"content": "x", "reasoning": "hm"}, None),
        (None, {"reasoning_content": "hm"} | CALL, None),
        (None, {"content": "x", "reasoning_details": DETAILS}, None),
    ],
)  # fmt: skip
def test_reasoning_goes_back_as_the_dialect_says_or_the_report_says_why_not(
    echo, message, sent_back, is_streamed
):
    sent, omitted = asked_twice(speaking(echo), message, is_streamed=is_streamed)
    echoed = {key: value for key, value in sent.items() if key.startswith("reasoning")}
    assert echoed == (sent_back or {})
    assert ("reasoning of earlier turns" in omitted) == (sent_back is None)
