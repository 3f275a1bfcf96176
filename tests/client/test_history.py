"""A long conversation is sent as if it were sent for the first time, whatever was sent before."""

from __future__ import annotations

import asyncio

import pytest
from fuzz_inputs import FACTOR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    TextPart,
    ToolCall,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

LONG = 40  # turns
PNG = ImagePart.from_bytes(b"\x89PNG\r\n\x1a\n")
CHAT = {"choices": [{"index": 0, "message": {"content": "so"}, "finish_reason": "stop"}]}
THOUGHT = {
    "choices": [
        {
            "index": 0,
            "message": {"content": "so", "reasoning": "hm", "reasoning_details": [{"x": 1}]},
            "finish_reason": "stop",
        }
    ]
}
CLAUDE = {
    "type": "message", "model": "c", "stop_reason": "end_turn",
    "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "so"}],
}  # fmt: skip
WIRES = {
    "openai": (GeneratorInfo.openai("gpt-4o"), CHAT),
    "openrouter": (GeneratorInfo.openrouter("anthropic/claude-haiku-4.5"), THOUGHT),
    "custom": (GeneratorInfo.custom("c", "https://c.example/v1", "m"), THOUGHT),
    "anthropic": (GeneratorInfo.anthropic("claude-haiku-4-5"), CLAUDE),
    "claude": (GeneratorInfo.anthropic("claude-sonnet-4-5"), CLAUDE),
}
SETTINGS = (
    None,
    CompletionParameters(temperature=0.5),
    CompletionParameters().with_json_response(),
    NodeCompletionParameters(system_prompt="Be brief."),
    NodeCompletionParameters(use_cache=True),
    NodeCompletionParameters(format_kwargs={"name": "Ada"}),
)


def apart(generator: GeneratorInfo) -> GeneratorInfo:
    """Give the model a provider of a user's, whose bodies are always made as a whole."""
    kind = type(generator.provider)

    def build_request(self, *given, **how):
        return kind.build_request(self, *given, **how)

    return generator.replace(
        provider=type(kind.__name__, (kind,), {"build_request": build_request})()
    )


def asked(node: ChatNode, wire: str, params=None, said: str | None = None, *, whole: bool = False):
    """The body of the request and its receipt, or the error instead, and the node of the answer."""
    generator, answer = WIRES[wire]
    generator = apart(generator) if whole else generator
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    generator = generator.with_api_key("none").with_transport(transport)
    try:
        if said is None:
            node = asyncio.run(node.complete(generator, params))
        else:
            node = asyncio.run(node.chat(said, generator, params))
    except MiniLLMError as error:
        return (type(error), str(error)), node
    return (transport.requests[0].body, node.response.request_report), node


def talk(turns: int, first: Message | None = None) -> ChatNode:
    said = [(Message.user, Message.assistant)[n % 2](f"turn {n} of {{name}}") for n in range(turns)]
    return ChatNode.from_messages([first or Message.system("s"), *said])[1]


def calls_of(*ids: str) -> Message:
    return Message.assistant("", [ToolCall(id=one, name="f", arguments="{}") for one in ids])


def grown(node: ChatNode, *messages: Message) -> ChatNode:
    """The node with these turns below it; also such as no method adds alone."""
    node = node.graft(ChatNode.from_messages(messages)[0])
    return list(node.depth_first())[-1]


def middle(node: ChatNode) -> ChatNode:
    return node.path()[node.depth // 2]


TURNS = {
    "asks": lambda node: node.add_user("more"),
    "asks for JSON": lambda node: node.add_user("as JSON"),
    "asks with a placeholder": lambda node: node.add_user("and {name}"),
    "says": lambda node: node.add_assistant("yes"),
    "says nothing": lambda node: node.add_user(" "),
    "shows": lambda node: node.add_user([TextPart(text="see"), PNG]),
    "instructs": lambda node: grown(node, Message.system("anew")),
    "calls": lambda node: grown(node, calls_of("a"), Message.tool_result("a", "1")),
    "calls twice": lambda node: grown(
        node, calls_of("a", "b"), Message.tool_result("a", "1"), Message.tool_result("b", "2")
    ),
    "has a mark": lambda node: grown(node, Message(role="user", content="m", cache_ttl="5m")),
    "is marked": lambda node: node.add_user("kept").cache_breakpoint(),
    "is marked before": lambda node: middle(node).cache_breakpoint() and node,
    "has no marks": lambda node: node.clear_all_cache_breakpoints(),
    "is detached": lambda node: node.path()[min(3, node.depth)].detach() and node,
    "goes back": lambda node: node.parent or node,
    "goes back far": lambda node: node.path()[-min(5, node.depth + 1)],
}


@settings(
    max_examples=60 * FACTOR,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_what_was_sent_before_never_shows(tmp_path, data):
    node = talk(LONG, data.draw(st.sampled_from([None, Message.user("no system")])))
    wires = data.draw(st.lists(st.sampled_from(sorted(WIRES)), min_size=1, max_size=2))
    _, node = asked(node, wires[0])
    for _ in range(data.draw(st.integers(3, 12))):
        for turn in data.draw(st.lists(st.sampled_from(sorted(TURNS)), max_size=2)):
            node = TURNS[turn](node)
        wire = data.draw(st.sampled_from(wires))
        params = data.draw(st.sampled_from(SETTINGS)) if data.draw(st.booleans()) else None
        said = data.draw(st.sampled_from([None, "next"]))
        node.root_node.save_tree(tmp_path / "tree.jsonl")
        fresh = ChatNode.load_tree(tmp_path / "tree.jsonl").find(node.id)
        expected, _ = asked(fresh, wire, params, said, whole=True)
        body, node = asked(node, wire, params, said)
        assert body == expected


@pytest.mark.parametrize(
    ("wire", "first"), [("claude", None), ("openrouter", None), ("custom", Message.user("none"))]
)
def test_each_turn_after_a_long_conversation_is_sent_as_if_for_the_first_time(wire, first):
    node = talk(LONG, first)
    for turn in (lambda node: node, *TURNS.values()):
        node = turn(node)
        expected, _ = asked(node, wire, whole=True)
        found, node = asked(node, wire)
        assert found == expected


@pytest.mark.parametrize("wire", sorted(WIRES))
@pytest.mark.parametrize(
    "last", [[Message.user("u")], [Message.user("u"), calls_of("a"), Message.tool_result("a", "1")]]
)
def test_neighbours_are_joined_of_which_one_was_sent_before(wire, last):
    node = grown(talk(LONG), *last)
    asked(node.add_assistant("yes"), wire)
    more = node.add_user("more")
    assert asked(more, wire)[0] == asked(more, wire, whole=True)[0]


@pytest.mark.parametrize("wire", sorted(WIRES))
def test_an_earlier_turn_is_not_written_again(wire):
    """The second time, only what is new is worked on."""
    from cost_of_work import steps_of

    def steps(turns: int) -> int:
        node = talk(turns)
        asked(node.add_user("first"), wire)
        return steps_of(lambda: asked(node.add_user("second"), wire))

    assert steps(400) - steps(200) < 20 * 200


@pytest.mark.parametrize("wire", WIRES)
def test_an_instruction_alone_after_what_was_sent_before_is_sent(wire):
    generator, reply = WIRES[wire]
    transport = ScriptedTransport([ScriptedReply.json(reply)] * 3)
    generator = generator.with_api_key("k").with_transport(transport)
    turns = [(Message.user, Message.assistant)[n % 2](f"turn {n}") for n in range(LONG)]
    _, leaf = ChatNode.from_messages(turns)
    asyncio.run(leaf.chat("go on", generator))
    late = leaf.graft(ChatNode.root("Be brief."))
    asyncio.run(late.complete(generator))
    asyncio.run(ChatNode.from_messages(late.thread())[1].complete(generator))
    assert transport.requests[1].body == transport.requests[2].body
