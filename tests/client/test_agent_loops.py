"""Agents' loops: what a server gave goes back to it, to the last byte, and to no other server."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import msgspec
import pytest
from server import serving
from strict_hosts import STYLES, StrictHost
from strict_responses import StrictResponses

from minillmlib import (
    AnthropicProvider,
    BadRequestError,
    ChatDialect,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    NodeCompletionParameters,
    Provider,
    ResponsesProvider,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport


def read_gauge(station: str) -> str:
    """The mean water level at a tide gauge, in metres."""
    return f"3.2 m at {station}"


PARAMS = NodeCompletionParameters(retry=0, timeout_secs=10).with_params(
    CompletionParameters(tools=[read_gauge])
)


@pytest.fixture(params=["whole", "streamed"])
def advance(request):
    """Complete a node, whole or streamed."""

    async def whole(node, generator):
        return await node.complete(generator, PARAMS)

    async def streamed(node, generator):
        async with node.complete_streaming(generator, PARAMS) as stream:
            async for _ in stream:
                pass
        return stream.node

    return whole if request.param == "whole" else streamed


def add_results(node: ChatNode) -> ChatNode:
    for call in node.tool_calls:
        node = node.add_tool_result(call.id, read_gauge(**call.arguments_json()))
    return node


async def loop(node: ChatNode, generator: GeneratorInfo, advance, between=lambda node: node):
    """The loop of the guide (docs/tools.md)."""
    node = await advance(node, generator)
    while node.tool_calls:
        node = between(add_results(node))
        node = await advance(node, generator)
    return node


@contextlib.asynccontextmanager
async def hosted(style: str, **options):
    host = StrictHost(style, **options)
    async with serving(host) as (url, _):
        yield host, GeneratorInfo.custom("host", url, "m")


def question() -> ChatNode:
    return ChatNode.root("You watch the tides.").add_user("How high is the water?")


@pytest.mark.parametrize("style", STYLES)
async def test_a_loop_of_five_turns_brings_back_what_the_server_gave(style, advance):
    async with hosted(style) as (_, generator):
        node = await loop(question(), generator, advance)
        assert node.text == "All read."


async def test_the_same_on_the_messages_wire(advance):
    async with hosted("litellm") as (_, generator):
        node = await loop(question(), generator.with_provider(AnthropicProvider()), advance)
        assert node.text == "All read."


def through_thread_file(tmp_path):
    def save_and_load(node):
        node.save_thread(tmp_path / "t.json")
        return ChatNode.from_thread_file(tmp_path / "t.json")[1]

    return save_and_load


def through_tree_file(tmp_path):
    def save_and_load(node):
        node.root_node.save_tree(tmp_path / "t.jsonl")
        return next(ChatNode.load_tree(tmp_path / "t.jsonl").leaves())

    return save_and_load


@pytest.mark.parametrize("between", [through_thread_file, through_tree_file])
@pytest.mark.parametrize("style", STYLES)
async def test_what_goes_back_survives_a_file(style, between, advance, tmp_path):
    async with hosted(style) as (_, generator):
        node = await loop(question(), generator, advance, between(tmp_path))
        assert node.text == "All read."


@pytest.mark.parametrize("style", STYLES)
async def test_a_long_loop_sends_it_though_older_turns_are_encoded_once(style, advance):
    async with hosted(style, turns=20) as (host, generator):
        node = await loop(question(), generator, advance)
        assert node.text == "All read."
        assert len(host.bodies[-1]["messages"]) > 40


class Echoing(Provider):
    """A server whose dialect says that it wants its reasoning back."""

    dialect = ChatDialect(name="Kimi", reasoning_echo="reasoning_content")


OTHERS = {"groq": GenericProvider(), "kimi": Echoing()}
LEFT_OUT = {
    "gemini": "further keys of tool calls",
    "litellm": "further keys of tool calls",
    "minimax": "reasoning of earlier turns",
    "claude": "reasoning of earlier turns",
    "numbers": "further keys of tool calls",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("style", LEFT_OUT)
async def test_another_server_gets_none_of_it_and_the_report_says_so(style, other, advance):
    async with hosted(style, turns=1) as (_, first), hosted(other, turns=2) as (host, second):
        node = await loop(question(), first, advance)
        node = node.add_user("And tomorrow?")
        node = await loop(node, second.with_provider(OTHERS[other]), advance)
        assert node.text == "All read."
        sent = str([m for body in host.bodies for m in body["messages"] if "tool_calls" in m])
        assert f"{style}_1_0" not in sent or style in ("gemini", "minimax", "claude")
        assert LEFT_OUT[style] in node.response.request_report.omitted
        back = await loop(node.add_user("Sure?"), first, advance)
        assert back.text == "All read."


async def test_ids_that_the_other_server_takes_stay_as_they_are(advance):
    async with hosted("gemini", turns=1) as (_, first), hosted("groq", turns=1) as (host, second):
        node = await loop(question(), first, advance)
        await loop(node.add_user("And?"), second, advance)
    sent = [call["id"] for m in host.bodies[0]["messages"] for call in m.get("tool_calls", ())]
    assert sent == ["gemini_1_0", "gemini_1_1"]


async def test_a_detected_name_also_fills_turns_of_other_models(advance):
    async with hosted("kimi", turns=1) as (_, kimi), hosted("gemini", turns=1) as (_, gemini):
        node = await loop(question(), kimi, advance)
        node = await loop(node.add_user("And?"), gemini, advance)
        node = await loop(node.add_user("Sure?"), kimi, advance)
        assert node.text == "All read."


async def test_reasoning_beside_no_call_stays_and_the_report_says_so(advance):
    seen = []

    async def plain(exchange):
        seen.append(msgspec.json.decode(exchange.body))
        message = {"content": "x", "reasoning_content": "Hm."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if exchange.is_stream:
            choice["delta"] = choice.pop("message")
            data = b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"
            await exchange.start_events(data, b"data: [DONE]\n\n")
            await exchange.end()
        else:
            await exchange.answer(msgspec.json.encode({"choices": [choice]}))

    async with serving(plain) as (url, _):
        generator = GeneratorInfo.custom("c", url, "m")
        node = await advance(question(), generator)
        node = await advance(node.add_user("again"), generator)
        assert "reasoning_content" not in seen[1]["messages"][2]
        assert (
            "reasoning_echo" in node.response.request_report.omitted["reasoning of earlier turns"]
        )
        node = await advance(node.add_user("again"), generator.with_provider(Echoing()))
        sent = seen[2]["messages"]
        assert "reasoning_content" not in str(sent)  # another provider's


async def test_a_strict_host_is_strict(advance):
    """The double refuses what it says that it refuses."""
    async with hosted("gemini") as (_, generator):
        node = add_results(await advance(question(), generator))
        _, bare = ChatNode.from_messages([*map(without_extra, node.thread())])
        with pytest.raises(BadRequestError, match="thought_signature"):
            await advance(bare, generator)


def without_extra(message):
    calls = tuple(msgspec.structs.replace(call, extra={}) for call in message.tool_calls)
    return msgspec.structs.replace(message, tool_calls=calls)


# The Responses wire: three calls in each turn, with sealed reasoning before the first and the last.


@contextlib.asynccontextmanager
async def responding(turns: int = 5):
    host = StrictResponses(turns)
    async with serving(host) as (url, _):
        generator = GeneratorInfo.custom("host", url, "m").with_provider(ResponsesProvider())
        yield host, generator


@pytest.mark.parametrize("between", [None, through_thread_file, through_tree_file])
async def test_sealed_reasoning_comes_back_before_the_calls_it_led_to(between, advance, tmp_path):
    keep = between(tmp_path) if between else lambda node: node
    async with responding() as (host, generator):
        node = await loop(question(), generator, advance, keep)
        assert node.text == "All read."
        assert node.response.request_report.omitted == {}
        assert len(host.sealed) == 11
    kinds = [item["type"] for item in host.bodies[-1]["input"][2:]]
    turn = ["reasoning", "function_call", "function_call", "reasoning", "message", "function_call"]
    assert kinds == 5 * [*turn, *3 * ["function_call_output"]]


async def test_a_loop_that_forgets_its_reasoning_is_refused(advance):
    def forget(node):
        *thread, said, one, two, three = (step.message for step in node.path())
        phases = [one for one in said.reasoning.blocks if one.fields["type"] == "message"]
        reasoning = msgspec.structs.replace(said.reasoning, blocks=tuple(phases))
        bare = msgspec.structs.replace(said, reasoning=reasoning)
        return ChatNode.from_messages([*thread, bare, one, two, three])[1]

    async with responding() as (_, generator):
        with pytest.raises(BadRequestError, match="without its required 'reasoning' item"):
            await loop(question(), generator, advance, forget)


# From one vendor's wire to another's in the middle of a conversation.


def chat_answer(number: int, **more: Any) -> dict[str, Any]:
    """Calls at first, then a text."""
    function = {"name": "read_gauge", "arguments": '{"station": "mole"}'}
    calls = [{"id": f"call_{number}_{n}", "type": "function", "function": function} for n in "ab"]
    message = {"content": "Well.", **more} if number % 2 else {"tool_calls": calls, **more}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def router_answer(number: int) -> dict[str, Any]:
    detail = {"type": "reasoning.encrypted", "data": f"ROUTER{number}", "index": 0}
    return chat_answer(number, reasoning_details=[detail])


def claude_answer(number: int) -> dict[str, Any]:
    use = {"type": "tool_use", "name": "read_gauge", "input": {"station": "mole"}}
    uses = [use | {"id": f"toolu_{number}_{n}"} for n in "ab"]
    said = [{"type": "text", "text": "Well."}] if number % 2 else uses
    seal = {"type": "thinking", "thinking": "Hm.", "signature": f"CLAUDE{number}"}
    return {"content": [seal, *said], "stop_reason": "end_turn" if number % 2 else "tool_use"}


class Vendor:
    """One vendor, asked again and again, and what it was sent."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.host = name, 0, StrictResponses(name="OPENAI")
        self.bodies: list[bytes] = []
        presets = {
            "chat": GeneratorInfo.openai("gpt-5.5", wire="chat"),
            "responses": GeneratorInfo.openai("gpt-5.5", wire="responses"),
            "anthropic": GeneratorInfo.anthropic("claude-haiku-4-5"),
            "openrouter": GeneratorInfo.openrouter("openai/gpt-5.5"),
        }
        self.generator = presets[name].with_api_key("k")

    @property
    def mark(self) -> bytes:
        marks = {"responses": b"gAAAAOPENAI", "anthropic": b"CLAUDE", "openrouter": b"ROUTER"}
        return marks.get(self.name, b"(none)")

    def reply(self) -> dict[str, Any]:
        number, self.count = self.count, self.count + 1
        match self.name:
            case "responses":
                return self.host.answer(is_last=bool(number % 2))
            case "anthropic":
                return claude_answer(number)
            case "openrouter":
                return router_answer(number)
        return chat_answer(number)

    async def advance(self, node: ChatNode) -> ChatNode:
        transport = ScriptedTransport([ScriptedReply.json(self.reply())])
        node = await node.complete(self.generator.with_transport(transport), PARAMS)
        self.bodies.append(transport.requests[0].body)
        return node


VENDORS = ("chat", "responses", "anthropic", "openrouter")


@pytest.mark.parametrize("order", list(itertools.permutations(VENDORS)), ids="-".join)
async def test_a_conversation_goes_from_vendor_to_vendor_and_back(order):
    vendors = {name: Vendor(name) for name in order}
    node, seen = ChatNode.root("You watch the tides."), []
    for name in (*order, *order):
        vendor = vendors[name]
        node = node.add_user("How high is the water?")
        node = await vendor.advance(node)
        assert node.tool_calls
        node = await vendor.advance(add_results(node))
        assert node.text
        others = [vendors[other] for other in seen if other != name]
        foreign = {other.mark for other in others} - {b"(none)"}
        for body in vendor.bodies[-2:]:
            assert not any(mark in body for mark in foreign)
        # Its own reasoning of the first visit goes back, and of the others' the report tells.
        if name in seen and name != "chat":
            assert vendor.bodies[-1].count(vendor.mark) > vendor.bodies[1].count(vendor.mark)
        omitted = node.response.request_report.omitted
        assert ("reasoning of earlier turns" in omitted) == bool(foreign)
        seen.append(name)
    host = vendors["responses"].host
    assert all(
        host.problem(msgspec.json.decode(body)) is None for body in vendors["responses"].bodies
    )
