"""The bodies of calls whose messages are merged, filled, marked or left out, and what is omitted."""

from __future__ import annotations

import json

from msgspec.structs import replace

from golden import GOLDEN
from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    GeneratorInfo,
    ImagePart,
    Message,
    NodeCompletionParameters,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.types.reasoning import Reasoning

OWN = GeneratorInfo.custom("own", "https://own.example/v1", "m")
CLAUDE = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
GPT = GeneratorInfo.openai("gpt-4o").with_api_key("k")
ROUTED = GeneratorInfo.openrouter("google/gemini-3").with_api_key("k")
DEEPSEEK = GeneratorInfo.preset("deepseek", "deepseek-chat").with_api_key("k")
TEXT = OWN.with_provider(CompletionsProvider())
PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")
S, U, A = Message.system, Message.user, Message.assistant
MINE, OTHER = "GenericProvider:m@own.example", "OpenAiProvider:gpt-4o"
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
LOOK = ToolDefinition(name="look", description="Looks.", parameters=SCHEMA)
SETTINGS = NodeCompletionParameters


def call(number: int = 1, **fields) -> ToolCall:
    return ToolCall(id=f"c{number}", name="look", arguments="{}", **fields)


def done(number: int = 1) -> Message:
    return Message.tool_result(f"c{number}", "done")


def thinking(origin: str, text: str = "hm", **fields) -> Reasoning:
    return Reasoning(text=text, origin=origin, **fields)


def thought(origin: str, content: str = "a", calls=(), **fields) -> Message:
    return replace(A(content, calls), reasoning=thinking(origin, **fields))


def marked(message: Message, ttl: str = "5m") -> Message:
    return replace(message, cache_ttl=ttl)


DEEP = "GenericProvider:deepseek-chat@api.deepseek.com"
DEEP_KEY = {"key": "reasoning_content"}
CALLS: dict[str, tuple] = {
    # Neighbours.
    "one": ([U("a")], OWN),
    "turns": ([S("s"), U("a"), A("b"), U("c")], OWN),
    "neighbours": ([S("s"), U("a"), U("b"), U("c"), A("d"), A("e"), U("f")], OWN),
    "system neighbours": ([S("s"), S("t"), U("a")], OWN),
    "blank neighbours": ([S("s"), U(" "), U("b"), U("\n"), A("c"), A(""), U(""), U("d")], OWN),
    "only blank neighbours": ([S("s"), U(" "), U("\n")], OWN),
    "parts and text": ([S("s"), U([TextPart("a"), PNG]), U("b"), U([TextPart("c")])], OWN),
    "text and parts": ([S("s"), U("b"), U([TextPart("a"), PNG])], OWN),
    "calls and words": ([U("a"), A("b"), A("c", [call()]), done(), A("d"), U("e")], OWN),
    "words and calls": ([U("a"), A("c", [call()]), done(), U("e"), U("f")], OWN),
    "two results": ([U("a"), A("", [call(1), call(2)]), done(1), done(2), U("e")], OWN),
    "neighbours of claude": ([S("s"), S("t"), U("a"), U("b"), A("c"), A("d"), U("e")], CLAUDE),
    "a breakpoint before": ([S("s"), marked(U("a")), U("b"), U("c")], CLAUDE),
    "a breakpoint between": ([S("s"), U("a"), marked(U("b")), U("c")], CLAUDE),
    "a breakpoint behind": ([S("s"), U("a"), U("b"), marked(U("c"), "1h")], CLAUDE),
    "neighbours of one text": ([S("s"), U("a"), U("b"), A("c")], TEXT),
    # Roots, system prompts and placeholders.
    "a blank root": ([S(""), U("a")], OWN),
    "only a blank root": ([S("")], OWN),
    "a blank root and a system prompt": ([S(" "), U("a")], OWN, SETTINGS(system_prompt="of the settings")),
    "a system prompt beside one": ([S("s"), U("a")], OWN, SETTINGS(system_prompt="of the settings")),
    "a late system text": ([U("a"), S("s")], OWN, SETTINGS(system_prompt="of the settings")),
    "placeholders": ([S("s{x}"), U("u{x}{y}"), A("a{x}"), U([TextPart("p{x}"), PNG, TextPart("{{x}}")])], OWN,
                     SETTINGS(format_kwargs={"x": "1"})),
    "placeholders of the settings": ([U("u")], OWN, SETTINGS(format_kwargs={"x": 1}, system_prompt="s{x}{y}", force_prepend="p{x} ")),
    "a forced beginning": ([U("u"), A("a")], OWN, SETTINGS(force_prepend="It is\n")),
    "a forced blank": ([U("u")], OWN, SETTINGS(force_prepend=" \n")),
    "a forced beginning of one text": ([U("u")], TEXT, SETTINGS(force_prepend="It is\n")),
    # Breakpoints.
    "the cache of the whole": ([S("s"), U("a"), A("b"), U("c")], CLAUDE, SETTINGS(use_cache=True)),
    "the cache of the whole for an hour": ([S("s"), marked(U("a"), "1h")], CLAUDE, SETTINGS(use_cache=True)),
    "the cache of the whole and a system prompt": ([U("a")], CLAUDE, SETTINGS(use_cache=True, system_prompt="s")),
    # The form of the answer.
    "a type": ([U("u")], GPT, SETTINGS().expecting(int)),
    "a type that is not strict": ([U("u")], GPT, SETTINGS().expecting(int | dict[str, int])),
    "a type by the prompt": ([U("u")], OWN, SETTINGS().expecting(int)),
    "a type and a form": ([U("u")], GPT, SETTINGS(params=CompletionParameters(response_format=ResponseFormat.json_schema(SCHEMA))).expecting(int)),
    "a type and a beginning": ([U("u")], OWN, SETTINGS(force_prepend="[").expecting(list[int])),
    "a type by the prompt and the cache": ([S("s"), A("u")], GeneratorInfo.anthropic("claude-2").with_api_key("k"), SETTINGS(use_cache=True).expecting(int)),
    # What only other models read.
    "reasoning of this model": ([U("u"), thought(MINE, key="reasoning_content"), U("v")], OWN),
    "reasoning of another model": ([U("u"), thought(OTHER), U("v"), thought(OTHER, "b"), U("w")], OWN),
    "reasoning of both": ([U("u"), thought(OTHER), U("v"), thought(MINE, "b"), U("w")], ROUTED),
    "calls of another model": ([U("u"), A("", [call(1, origin=OTHER, extra={"x": 1}), call(2)]), done(1), done(2)], OWN),
    "plain calls of another model": ([U("u"), A("", [call(1, origin=OTHER)]), done(1)], OWN),
    "calls of this model": ([U("u"), A("", [call(1, origin=MINE, extra={"x": 1})]), done(1)], OWN),
    "media of earlier answers": ([U("u"), A("a", media=[PNG]), U("v")], GPT),
    "media of earlier answers that go back": ([U("u"), A("a", media=[PNG]), U("v")], ROUTED),
    "all of it": ([U("u"), replace(A("a", [call(1, origin=OTHER, extra={"x": 1})]), media=(PNG,), reasoning=thinking(OTHER)), done(1)], GPT),
    # Reasoning that a server wants back.
    "calls without reasoning": ([U("u"), A("", [call()]), done()], DEEPSEEK),
    "calls after reasoning": ([U("u"), thought(DEEP, "", [call()], **DEEP_KEY), done(), A("b"), U("v"), A("", [call(2)]), done(2)], DEEPSEEK),
    "calls before reasoning": ([U("u"), A("", [call()]), done(), thought(DEEP, **DEEP_KEY), U("v")], DEEPSEEK),
    "calls after another model's reasoning": ([U("u"), thought(OTHER, "", [call()]), done(), A("b"), U("v"), A("", [call(2)]), done(2)], DEEPSEEK),
}  # fmt: skip


async def line_of(messages, generator, params=None) -> str:
    transport = ScriptedTransport([ScriptedReply.text("7")])
    leaf = ChatNode.from_messages(messages)[1]
    node = await leaf.complete(generator.with_transport(transport), params)
    (request,) = transport.requests
    return f"{request.body.decode()} {json.dumps(node.response.request_report.omitted)}"


async def test_each_thread_is_sent_like_this():
    found = {name: await line_of(*given) for name, given in CALLS.items()}
    lines = (GOLDEN / "texts/prepared_calls.txt").read_text().splitlines()
    assert found == dict(line.split(": ", 1) for line in lines)
