"""Conversations are trees: building, branching, and what a failed call leaves behind."""

from __future__ import annotations

import asyncio
import copy
import enum
import gc
import json
import pickle

import msgspec
import pytest
from short_answers import CLAUDE, said, scripted, streamed

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionParameters,
    EmptyThreadError,
    GeneratorInfo,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    Role,
    TextPart,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport


def roles(node: ChatNode) -> str:
    return " ".join(message.role.value[0] for message in node.thread())


def test_nodes_chain_and_know_their_history():
    root = ChatNode.root("You are terse.")
    leaf = root.add_user("France?").add_assistant("Paris.").add_user("And Germany?")
    assert roles(leaf) == "s u a u"
    assert [message.text for message in leaf.thread()][-2:] == ["Paris.", "And Germany?"]
    assert (leaf.parent.text, leaf.parent.role) == ("Paris.", Role.ASSISTANT)
    assert root.parent is None


def test_handles_of_one_node_are_equal_and_others_are_not():
    root = ChatNode.root("a")
    child = root.add_user("b")
    assert child.parent == root
    assert hash(child.parent) == hash(root)
    assert root != child
    assert ChatNode.root("a") != root
    assert root != "a"


def test_children_are_listed_oldest_first():
    root = ChatNode.root("a")
    for text in "bcd":
        root.add_user(text).add_assistant(text * 2)
    assert [child.text for child in root.children()] == ["b", "c", "d"]
    assert [child.children()[0].text for child in root.children()] == ["bb", "cc", "dd"]


def test_a_message_list_becomes_a_linear_thread():
    history = [Message.system("s"), Message.user("u"), Message.assistant("a"), Message.user("v")]
    root, leaf = ChatNode.from_messages(history)
    assert (root.text, leaf.text) == ("s", "v")
    assert leaf.thread() == history
    assert ChatNode.from_messages([Message.user("only")])[1].parent is None


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_list_of_messages_is_refused(wrong):
    with pytest.raises(InvalidParameterError, match="a list of messages, not"):
        ChatNode.from_messages(wrong)


def test_an_empty_message_list_is_an_error():
    with pytest.raises(EmptyThreadError):
        ChatNode.from_messages([])


@pytest.mark.parametrize("wrong", [3, "x", None])
def test_a_list_of_something_else_is_an_error_that_names_it(wrong):
    with pytest.raises(InvalidParameterError, match=type(wrong).__name__):
        ChatNode.from_messages([wrong])


@pytest.mark.parametrize("content", [None, 3, {"a": 1}, [], ["text"], b"text"])
def test_content_that_is_no_text_is_refused(content):
    with pytest.raises(InvalidParameterError):
        ChatNode.root("a").add_user(content)


def test_a_message_of_parts_has_the_text_of_all_of_them():
    node = ChatNode.root("a").add_user([TextPart(text="b"), TextPart(text="c")])
    assert node.text == "bc"
    assert node.message.content == (TextPart(text="b"), TextPart(text="c"))
    assert ChatNode.root("").text is None


def test_a_role_can_be_given_as_text_but_must_be_one():
    assert Message(role="user", content="x") == Message.user("x")
    with pytest.raises(InvalidParameterError, match="robot"):
        Message(role="robot", content="x")


async def test_chat_adds_both_turns_and_complete_adds_one():
    root = ChatNode.root("s")
    answer = await root.chat("Hello", scripted(said("Hi.")))
    assert (roles(answer), answer.text) == ("s u a", "Hi.")
    again = await answer.add_user("More").complete(scripted(said("Yes.")))
    assert (roles(again), again.text) == ("s u a u a", "Yes.")
    assert again.response.id == "1"
    assert (again.is_generated, again.parent.is_generated) == (True, False)
    with pytest.raises(InvalidParameterError, match="not generated"):
        _ = again.parent.response


async def test_the_prompt_is_the_path_to_the_node_and_nothing_else():
    root = ChatNode.root("s")
    left = root.add_user("left").add_assistant("l")
    root.add_user("right").add_assistant("r")
    generator = scripted(said("ok"))
    await left.chat("go on", generator)
    body = msgspec.json.decode(generator.transport.requests[0].body)
    assert [message["content"] for message in body["messages"]] == ["s", "left", "l", "go on"]


async def test_completing_from_an_inner_node_branches_there():
    root = ChatNode.root("s")
    question = root.add_user("q")
    first = await question.complete(scripted(said("1")))
    second = await question.complete(scripted(said("2")))
    assert question.children() == [first, second]
    assert first.parent == second.parent == question


@pytest.mark.parametrize(
    "reply",
    [ScriptedReply.json({"error": {"message": "no"}}, status=400), ScriptedReply.json(b"{"),
     streamed("cut", finish=None)],
)  # fmt: skip
async def test_a_failed_call_leaves_the_tree_as_it_was_and_can_be_repeated(reply):
    root = ChatNode.root("s")
    generator = scripted(reply, said("now"), reply, streamed("now"))
    with pytest.raises(minillmlib.MiniLLMError):
        await root.chat("Hello", generator)
    assert root.children() == []
    assert (await root.chat("Hello", generator)).text == "now"
    with pytest.raises(minillmlib.MiniLLMError):
        async for _ in root.chat_streaming("Hello", generator):
            pass
    assert len(root.children()) == 1


class Hanging:
    """A server that never answers, and tells when it was asked."""

    def __init__(self):
        self.asked = asyncio.Event()

    async def send(self, _request):
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_cancelled_call_leaves_the_tree_as_it_was():
    root, transport = ChatNode.root("s"), Hanging()
    generator = scripted().with_transport(transport)
    task = asyncio.create_task(root.chat("Hello", generator))
    await transport.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert root.children() == []


async def test_a_stream_left_early_adds_nothing_and_one_read_to_its_end_adds_the_node():
    root = ChatNode.root("s")
    async with root.chat_streaming("Hello", scripted(streamed("a", "b"))) as stream:
        assert (await anext(stream)).delta == "a"
    assert root.children() == []
    with pytest.raises(InvalidParameterError, match="end"):
        _ = stream.node
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    async with root.chat_streaming("Hello", scripted(streamed("a", "b"))) as stream:
        assert [chunk.delta async for chunk in stream if chunk.delta] == ["a", "b"]
    assert (stream.node.text, stream.response.content) == ("ab", "ab")
    assert root.children() == [stream.node.parent]


class Gate:
    """A server that answers when the test opens the gate, and counts what was closed."""

    def __init__(self, *pieces: bytes, kind: str = "text/event-stream"):
        self.opened, self.asked, self.closed = asyncio.Event(), asyncio.Event(), 0
        self.status, self.headers, self.pieces = 200, {"content-type": kind}, list(pieces)

    async def send(self, _request):
        self.asked.set()
        await self.opened.wait()
        return self

    async def read(self):
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    def close(self):
        self.closed += 1


TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
WHOLE = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'


async def read(stream) -> str:
    return "".join([chunk.delta async for chunk in stream])


@pytest.mark.parametrize("gate", [Gate(TEXT, END), Gate(WHOLE, kind="application/json")])
async def test_a_stream_closed_while_it_opens_adds_nothing_and_keeps_no_connection(gate):
    gate.__init__(*gate.pieces, kind=gate.headers["content-type"])
    root = ChatNode.root("s")
    stream = root.chat_streaming("u", scripted().with_transport(gate))
    reader = asyncio.create_task(read(stream))
    await gate.asked.wait()
    await stream.aclose()
    gate.opened.set()
    assert await reader == ""
    assert root.children() == []
    assert gate.closed > 0


class Stalled(Gate):
    """A server whose body never comes, and whose connection breaks when it is closed."""

    def __init__(self, kind: str):
        super().__init__(kind=kind)
        self.opened.set()
        self.reading, self.broken = asyncio.Event(), asyncio.Event()

    async def read(self):
        self.reading.set()
        await self.broken.wait()
        if self.headers["content-type"] == "application/json":
            return b"" if self.pieces == [None] else self.pieces.append(None) or WHOLE
        raise minillmlib.ReadError("closed")

    def close(self):
        super().close()
        self.broken.set()


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_stream_closed_while_it_reads_ends_quietly_and_adds_nothing(kind):
    gate, root = Stalled(kind), ChatNode.root("s")
    stream = root.chat_streaming("u", scripted().with_transport(gate))
    reader = asyncio.create_task(read(stream))
    await gate.reading.wait()
    await stream.aclose()
    assert await reader == ""
    assert root.children() == []


async def test_a_stream_is_read_by_one_task_at_a_time():
    gate = Gate(TEXT, END)
    stream = ChatNode.root("s").chat_streaming("u", scripted().with_transport(gate))
    reader = asyncio.create_task(read(stream))
    await gate.asked.wait()
    with pytest.raises(InvalidParameterError, match="one task"):
        await anext(stream)
    gate.opened.set()
    assert await reader == "a"
    assert stream.node.text == "a"


def test_a_stream_is_read_in_one_event_loop():
    gate = Gate(TEXT, END)
    stream = ChatNode.root("s").chat_streaming("u", scripted().with_transport(gate))

    async def first():
        gate.opened.set()
        return await anext(stream)

    assert asyncio.run(first()).delta == "a"
    with pytest.raises(InvalidParameterError, match="event loop"):
        asyncio.run(read(stream))
    asyncio.run(stream.aclose())


async def test_a_slow_reader_does_not_lose_the_counts_that_come_after_the_finish(monkeypatch):
    monkeypatch.setattr("minillmlib.client.stream_reader.USAGE_GRACE_SECS", 0.05)
    finish, done = END.split(b"data: [DONE]")
    counted = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    gate = Gate(TEXT, finish, b": ping\n\n", counted, b"data: [DONE]" + done)
    gate.opened.set()
    stream = ChatNode.root("s").chat_streaming("u", scripted().with_transport(gate))
    async for _ in stream:
        await asyncio.sleep(0.1)
    assert stream.response.usage.prompt_tokens == 3


async def test_complete_streaming_continues_from_the_node_itself():
    question = ChatNode.root("s").add_user("q")
    stream = question.complete_streaming(scripted(streamed("a")))
    async for _ in stream:
        pass
    assert stream.node.parent == question


async def test_nothing_is_sent_before_a_stream_is_read():
    generator = scripted(streamed("a"))
    stream = ChatNode.root("s").chat_streaming("Hello", generator)
    assert generator.transport.requests == []
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert generator.transport.requests == []


async def test_a_hundred_tasks_may_branch_from_one_node():
    root = ChatNode.root("s")
    generator = scripted(*(said(str(i)) for i in range(100)))
    answers = await asyncio.gather(*(root.chat(str(i), generator) for i in range(100)))
    assert len(root.children()) == 100
    assert len({answer.parent for answer in answers}) == 100


async def test_a_system_prompt_is_put_in_front_only_where_there_is_none():
    settings = NodeCompletionParameters().with_system_prompt("Be nice.")
    for first, system in [
        (Message.user("x"), "Be nice."),
        (Message.system("s"), "s"),
        (Message.system(" \n"), "Be nice."),
        (Message.system([TextPart(" ")]), "Be nice."),
    ]:
        _, leaf = ChatNode.from_messages([first])
        generator = scripted(said("ok"))
        await leaf.chat("y", generator, settings)
        body = msgspec.json.decode(generator.transport.requests[0].body)
        assert body["messages"][0] == {"role": "system", "content": system}
        assert [m["role"] for m in body["messages"]].count("system") == 1


@pytest.mark.parametrize("wrong", ["openai:gpt-4o-mini", None, GeneratorInfo])
async def test_a_generator_of_the_wrong_type_is_an_error_that_helps(wrong):
    with pytest.raises(InvalidParameterError, match="GeneratorInfo"):
        await ChatNode.root("s").chat("x", wrong)


async def test_parameters_of_the_wrong_type_are_refused():
    with pytest.raises(InvalidParameterError, match="dict"):
        await ChatNode.root("s").chat("x", scripted(), {"temperature": 1})


def count_of_trees() -> int:
    return sum(type(thing).__name__ == "Tree" for thing in gc.get_objects())


def test_a_tree_is_freed_at_once_with_its_last_handle():
    gc.collect()
    gc.disable()
    try:
        before = count_of_trees()
        answer = asyncio.run(ChatNode.root("s").chat("u", scripted(said("a"))))
        assert count_of_trees() == before + 1
        del answer
        assert count_of_trees() == before
    finally:
        gc.enable()


class Prompt(enum.StrEnum):
    HELLO = "Hello"


async def test_any_kind_of_string_is_text():
    generator = scripted(said("ok"))
    await ChatNode.root("s").chat(Prompt.HELLO, generator)
    assert b'"content":"Hello"' in generator.transport.requests[0].body


def test_a_long_thread_needs_no_recursion():
    node = ChatNode.root("s")
    for i in range(50_000):
        node = node.add_user(str(i))
    assert len(node.thread()) == 50_001
    assert node.parent.children() == [node]


def test_values_do_not_change_and_copies_do():
    params = CompletionParameters(max_tokens=5, stop=["END"])
    changed = params.with_temperature(0.5).with_max_tokens(6).with_stop(["A", "B"])
    assert (params.max_tokens, params.temperature, params.stop) == (5, None, ("END",))
    assert (changed.max_tokens, changed.temperature, changed.stop) == (6, 0.5, ("A", "B"))
    with pytest.raises(AttributeError):
        params.max_tokens = 7
    with pytest.raises(InvalidParameterError, match="max_token"):
        params.replace(max_token=7)
    assert pickle.loads(pickle.dumps(changed)) == changed


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", 1.5), ("max_tokens", True), ("max_tokens", -1), ("temperature", float("nan")),
     ("temperature", "hot"), ("top_p", float("inf")), ("stop", 3), ("stop", [1]), ("seed", "x"),
     ("top_k", -1), ("extra", [("a", 1)])],
)  # fmt: skip
def test_a_parameter_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(InvalidParameterError, match=field):
        CompletionParameters(**{field: value})


def test_no_tools_are_the_same_as_none_given():
    assert CompletionParameters(tools=[]) == CompletionParameters()


def test_a_mapping_given_as_extra_is_copied():
    given = {"top_a": 1}
    params = CompletionParameters(extra=given)
    given["top_a"] = 2
    assert params.extra == {"top_a": 1}


@pytest.mark.parametrize("price", [-1, "x", float("nan"), float("inf"), True, None])
def test_a_price_is_checked_when_it_is_made(price):
    with pytest.raises(InvalidParameterError):
        minillmlib.TokenPrice(price, 1)


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_node_and_a_stream_are_refused_by_pickle_with_what_to_do(take):
    node = ChatNode.root("s").add_user("q")
    with pytest.raises(InvalidParameterError, match="save_tree or save_thread"):
        take(node)
    with pytest.raises(InvalidParameterError, match="send its response"):
        take(node.complete_streaming(GeneratorInfo.openai("m")))


OPENAI_THREAD = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "q"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "r"},
]


def test_a_conversation_comes_from_dictionaries_as_openai_takes_them_and_goes_back_so():
    _, leaf = ChatNode.from_messages(OPENAI_THREAD)
    assert leaf.to_openai() == OPENAI_THREAD
    assert ChatNode.from_messages(leaf.to_openai())[1].thread() == leaf.thread()
    mixed = ChatNode.from_messages([*OPENAI_THREAD, Message.assistant("done")])[1]
    assert mixed.to_openai()[-1] == {"role": "assistant", "content": "done"}
    assert all(type(key) is str for item in leaf.to_openai() for key in item)
    assert type(leaf.to_openai()[0]["role"]) is str


def test_dictionaries_for_openai_can_be_sent_by_any_program():
    root = ChatNode.root("half: \ud83d {name}").set_format_kwarg("name", "a pair: \U0001f600")
    asked = root.add_user([TextPart("\udc00"), TextPart("q")])
    assert json.loads(json.dumps(asked.to_openai(), ensure_ascii=False).encode()) == [
        {"role": "system", "content": "half: \ufffd a pair: \U0001f600"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "\ufffd"}, {"type": "text", "text": "q"}],
        },
    ]


def test_what_goes_to_openai_is_filled_in_and_without_an_empty_system_prompt():
    node = ChatNode.root().set_format_kwarg("name", "Ann").add_user("I am {name}, {age}")
    assert node.to_openai() == [{"role": "user", "content": "I am Ann, {age}"}]


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"role": "robot", "content": "x"}, "message 1.role"),
        ({"role": "user", "content": [{"type": "smell"}]}, "message 1.content"),
        ({"role": "user", "content": "x", "mood": 1}, "message 1 has what is not known"),
    ],
)
def test_a_dictionary_that_is_no_message_is_refused_with_its_place(wrong, place):
    with pytest.raises(InvalidParameterError, match=place):
        ChatNode.from_messages([{"role": "user", "content": "a"}, wrong])


@pytest.mark.parametrize(
    ("make", "reply"),
    [(GeneratorInfo.openai, said("a")), (GeneratorInfo.anthropic, ScriptedReply.json(CLAUDE))],
)
async def test_a_root_without_a_system_prompt_is_not_sent_and_leaves_room_for_one(make, reply):
    transport = ScriptedTransport([reply, reply])
    generator = make("m").with_api_key("sk-key-of-tests").with_transport(transport)
    answer = await ChatNode.root().chat("hi", generator)
    await answer.chat("again", generator, NodeCompletionParameters(system_prompt="be brief"))
    bodies = [json.loads(request.body) for request in transport.requests]
    assert [message["role"] for message in bodies[0]["messages"]] == ["user"]
    assert "system" not in bodies[0]
    assert "be brief" in json.dumps(bodies[1])


@pytest.mark.parametrize(
    ("make", "reply"),
    [(GeneratorInfo.openai, said("a")), (GeneratorInfo.anthropic, ScriptedReply.json(CLAUDE))],
)
async def test_a_root_of_spaces_gives_way_to_the_system_prompt_of_the_settings(make, reply):
    transport = ScriptedTransport([reply])
    generator = make("m").with_api_key("sk-key-of-tests").with_transport(transport)
    root = ChatNode.root(" ").cache_breakpoint()
    await root.chat("hi", generator, NodeCompletionParameters(system_prompt="be brief"))
    body = transport.requests[0].json()
    assert json.dumps(body).count("be brief") == 1
    assert '" "' not in json.dumps(body)
    assert ("cache_control" in json.dumps(body)) == (make == GeneratorInfo.anthropic)


async def test_the_common_fields_are_keywords_and_win_over_the_parameters():
    transport = ScriptedTransport([said("a"), said("b")])
    generator = GeneratorInfo.openai("m").with_api_key("sk-key-of-tests").with_transport(transport)
    params = CompletionParameters(temperature=1.0, top_p=0.5)
    await ChatNode.root().chat("hi", generator, params, temperature=0, max_tokens=7)
    await ChatNode.root().add_user("hi").complete(generator, max_tokens=8, timeout_secs=3)
    first, second = (json.loads(request.body) for request in transport.requests)
    assert (first["temperature"], first["top_p"], first["max_completion_tokens"]) == (0, 0.5, 7)
    assert second["max_completion_tokens"] == 8
    with pytest.raises(InvalidParameterError, match="retry"):
        await ChatNode.root().chat("hi", generator, retry=-1)
    with pytest.raises(TypeError):
        await ChatNode.root().chat("hi", generator, temprature=1)


async def test_typed_parameters_stay_typed_beside_keywords():
    generator = scripted(said("[1, 2]"))
    params = NodeCompletionParameters().expecting(list[int])
    node = await ChatNode.root().chat("numbers", generator, params, max_tokens=9)
    assert node.parsed == [1, 2]


async def test_the_text_of_a_stream_comes_without_an_empty_piece():
    generator = scripted(streamed("a", "", "b"))
    stream = ChatNode.root("s").chat_streaming("hi", generator)
    assert [piece async for piece in stream.text()] == ["a", "b"]
    assert stream.node.text == "ab"


def test_a_result_of_a_call_that_nobody_made_is_refused_with_the_calls_there_are():
    _, leaf = ChatNode.from_messages(OPENAI_THREAD[:3])
    assert leaf.add_tool_result("c1", "r").add_user("and?").text == "and?"
    with pytest.raises(InvalidParameterError, match="its calls are 'c1'"):
        leaf.add_tool_result("c2", "r")
    with pytest.raises(InvalidParameterError, match="its calls are none"):
        ChatNode.root("s").add_tool_result("c1", "r")


def test_a_text_part_takes_its_text_by_position():
    assert TextPart("x") == TextPart(text="x")
