"""Cache marks on messages: where they stand on the wires that have them, and where they do not."""

from __future__ import annotations

import msgspec
import pytest
from short_answers import ANSWER, CLAUDE

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    PromptCache,
    TextPart,
    ToolCall,
)
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.testing import ScriptedReply, ScriptedTransport

FIVE_MINUTES = {"type": "ephemeral"}
AN_HOUR = {"type": "ephemeral", "ttl": "1h"}


def message(role: str, content: str, cache_ttl: str | None = None) -> Message:
    return Message(role=role, content=content, cache_ttl=cache_ttl)


def sent(provider, model: str, *messages: Message):
    """The body, and what the receipt says was left out."""
    answer = CLAUDE if isinstance(provider, AnthropicProvider) else ANSWER
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", model).replace(
        provider=provider, transport=transport
    )
    _, leaf = ChatNode.from_messages(messages)
    node = minillmlib.run(leaf.complete(generator))
    return msgspec.json.decode(transport.requests[0].body), node.response.request_report.omitted


def test_anthropic_gets_the_mark_on_the_last_block_of_the_message():
    body, omitted = sent(
        AnthropicProvider(), "claude-haiku-4-5",
        message("system", "rules", "1h"), message("system", "more"), message("user", "a", "5m"),
        message("user", "b"))  # fmt: skip
    assert body["system"] == [
        {"type": "text", "text": "rules", "cache_control": AN_HOUR}, {"type": "text", "text": "more"}]  # fmt: skip
    assert body["messages"] == [{"role": "user", "content": [
        {"type": "text", "text": "a", "cache_control": FIVE_MINUTES}, {"type": "text", "text": "b"}]}]  # fmt: skip
    assert omitted == {}


def test_a_mark_on_calls_and_results_stands_on_their_blocks():
    call = ToolCall(id="c1", name="f", arguments="{}")
    body, _ = sent(
        AnthropicProvider(), "claude-haiku-4-5", message("user", "u"),
        Message(role="assistant", content="look", tool_calls=(call,), cache_ttl="5m"),
        Message(role="tool", tool_call_id="c1", content="r", cache_ttl="5m"))  # fmt: skip
    _, assistant, results = body["messages"]
    assert [block.get("cache_control") for block in assistant["content"]] == [None, FIVE_MINUTES]
    assert results["content"][0]["cache_control"] == FIVE_MINUTES


@pytest.mark.parametrize(
    ("provider", "model"),
    [(AnthropicProvider(), "claude-haiku-4-5"), (OpenRouterProvider(), "anthropic/claude-opus-4.8")],
)  # fmt: skip
def test_the_last_four_marks_are_sent_longer_lifetimes_first_and_the_receipt_tells(provider, model):
    ttls = ["5m", "5m", None, "5m", "1h", None, "5m", "5m"]
    roles = ["user", "assistant"] * 4
    history = [message(role, role, ttl) for role, ttl in zip(roles, ttls, strict=True)]
    body, omitted = sent(provider, model, *history, message("user", "last"))
    marks = [turn["content"][0].get("cache_control") if isinstance(turn["content"], list) else None
             for turn in body["messages"]]  # fmt: skip
    assert marks == [None, None, None, AN_HOUR, AN_HOUR, None, FIVE_MINUTES, FIVE_MINUTES, None]
    assert "last 4" in omitted["cache breakpoints"]


def test_openrouter_passes_marks_on_for_claude_in_parts():
    parts = Message(role="user", content=(TextPart(text="a"), TextPart(text="b")), cache_ttl="5m")
    body, omitted = sent(
        OpenRouterProvider(), "anthropic/claude-sonnet-4.5", message("system", "s", "1h"), parts)  # fmt: skip
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "s", "cache_control": AN_HOUR}
    ]
    assert [part.get("cache_control") for part in body["messages"][1]["content"]] == [None, FIVE_MINUTES]  # fmt: skip
    assert omitted == {}


@pytest.mark.parametrize(
    "provider", [OpenAiProvider(), GenericProvider(), OpenRouterProvider()], ids=repr
)
def test_where_caching_is_automatic_marks_are_left_out_with_a_word(provider):
    body, omitted = sent(provider, "gpt-4o", message("user", "a", "5m"))
    assert body["messages"] == [{"role": "user", "content": "a"}]
    assert "by itself" in omitted["cache breakpoints"]


def test_a_message_without_a_block_for_the_mark_is_sent_without_it():
    body, _ = sent(AnthropicProvider(), "claude-haiku-4-5", message("user", "a"),
                   message("assistant", " ", "5m"), message("user", "b"))  # fmt: skip
    assert "cache_control" not in str(body)


def talk(start: int, count: int, cache_ttl: str | None = None) -> tuple[ChatNode, ChatNode]:
    """The first and the last node of these turns, beginning with the user's."""
    roles = ("user", "assistant") * (count // 2)
    return ChatNode.from_messages(
        [message(role, f"turn {n}", cache_ttl) for n, role in enumerate(roles, start)]
    )


def test_a_long_conversation_is_sent_with_its_last_four_marks_whatever_was_sent_before():
    """Its messages are encoded once, and each call may mark others."""
    transport = ScriptedTransport([ScriptedReply.json(CLAUDE)] * 5)
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    generator = generator.with_transport(transport)

    def asked(node: ChatNode) -> ChatNode:
        return minillmlib.run(node.chat("say", generator))

    node = asked(talk(0, 40)[1])
    next(turn for turn in node.path() if turn.text == "turn 3").cache_breakpoint()
    node = asked(node)
    node.clear_all_cache_breakpoints()
    node = asked(node)
    for start in (40, 44):
        node.graft(talk(start, 4, "5m")[0])
        node = asked(list(node.depth_first())[-1])
    marked = [
        [turn["content"][0]["text"] for turn in msgspec.json.decode(request.body)["messages"]
         if "cache_control" in str(turn)]
        for request in transport.requests
    ]  # fmt: skip
    forties = [f"turn {n}" for n in range(40, 48)]
    assert marked == [[], ["turn 3"], [], forties[:4], forties[4:]]


def test_a_lifetime_is_one_of_two():
    with pytest.raises(InvalidParameterError, match="cache_ttl"):
        message("user", "a", "2h")


def test_a_plan_counts_what_the_marks_reach_from_the_least_on():
    claude = GeneratorInfo.anthropic("claude-sonnet-4-5")
    node = ChatNode.root("w" * 8000).cache_breakpoint()
    reached = node.cache_plan(claude).breakpoints[0].tokens
    assert 1024 < reached < 4096
    assert node.cache_plan(claude).cached_tokens == reached
    further = node.add_user("w" * 8000).cache_breakpoint().add_assistant("w" * 8000)
    first, second = further.cache_plan(claude).breakpoints
    assert first.tokens == reached < second.tokens
    assert further.cache_plan(claude).cached_tokens == second.tokens
    assert node.cache_plan(GeneratorInfo.anthropic("claude-haiku-4-5")).cached_tokens == 0
    openai = node.cache_plan(GeneratorInfo.openai("gpt-4o"))
    assert openai.cached_tokens == openai.prompt_tokens > 0
    assert ChatNode.root("w").cache_plan(GeneratorInfo.openai("gpt-4o")).cached_tokens == 0


class Caching(OpenAiProvider):
    """A provider whose cache has no facts of its own."""

    capabilities = OpenAiProvider.capabilities.replace(prompt_cache=lambda model: PromptCache())
    dialect = ChatDialect()


IGNORED = {
    "max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "top_k": 5, "frequency_penalty": 0.5,
    "presence_penalty": 0.5, "repetition_penalty": 0.5, "stop": ["x"], "seed": 5, "logprobs": 0,
}  # fmt: skip
IGNORED_KEYS = {"metadata": {"a": "b"}, "user": "me", "safety_identifier": "me", "store": True}


@pytest.mark.parametrize("name", [*IGNORED, *IGNORED_KEYS, "reasoning_effort"])
async def test_a_miss_is_not_blamed_on_a_parameter_that_no_cache_depends_on(name):
    def reply(read: int) -> ScriptedReply:
        details = {"cached_tokens": read}
        usage = {"prompt_tokens": 9000, "completion_tokens": 1, "prompt_tokens_details": details}
        return ScriptedReply.json(ANSWER | {"usage": usage})

    transport = ScriptedTransport([reply(8000), reply(0)])
    generator = GeneratorInfo.custom("t", f"https://{name.replace('_', '-')}.example/v1", "m")
    generator = generator.with_provider(Caching()).with_transport(transport)
    root = ChatNode.root("s")
    await root.chat("a", generator)
    extra = {name: IGNORED_KEYS.get(name, "low")}
    params = {name: IGNORED[name]} if name in IGNORED else {"extra": extra}
    verdict = (await root.chat("a", generator, CompletionParameters(**params))).cache_verdict
    blamed = "parameter reasoning_effort" if name == "reasoning_effort" else None
    assert (verdict.kind, verdict.changed) == ("miss", blamed)
