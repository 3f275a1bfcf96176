"""What a node refuses and how it says so, and what every walk over a tree gives."""

from __future__ import annotations

import copy
import json
import pickle
from unittest.mock import ANY

import pytest
from short_answers import said, scripted, streamed

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    EmptyThreadError,
    InvalidParameterError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    StorageError,
    ToolCall,
    run,
)
from minillmlib.testing import ScriptedReply


def root() -> ChatNode:
    return ChatNode.root("s")


def with_calls(*ids: str) -> ChatNode:
    calls = [ToolCall(id=one, name="f", arguments="{}") for one in ids]
    return ChatNode.from_messages([Message.user("u"), Message.assistant("", calls)])[1]


REFUSED = {
    "a text as messages": (
        lambda: ChatNode.from_messages("hello"), "from_messages takes a list of messages, not str"),
    "bytes as messages": (
        lambda: ChatNode.from_messages(b"hello"), "from_messages takes a list of messages, not bytes"),
    "an iterator as messages": (
        lambda: ChatNode.from_messages(iter(())),
        "from_messages takes a list of messages, not tuple_iterator"),
    "no messages": (lambda: ChatNode.from_messages([]), "from_messages needs at least one message"),
    "a second message of another kind": (
        lambda: ChatNode.from_messages([Message.user("u"), 5]),
        "a message is a Message, such as Message.user(text), or a dictionary such as "
        "{'role': 'user', 'content': text}; message 1 is an int"),
    "a dictionary that is no message": (
        lambda: ChatNode.from_messages([Message.user("u"), {"role": "x", "content": "a"}]),
        "message 1.role is 'x'"),
    "the response of what was not generated": (
        lambda: root().response, "this message was not generated, so it has no response"),
    "the verdict on what was not generated": (
        lambda: root().cache_verdict, "this message was not generated, so it has no response"),
    "an id of the wrong length": (
        lambda: root().find("00"),
        "find takes an id of 32 hexadecimal digits, or a function of a node, not '00'"),
    "an id of other letters": (
        lambda: root().find("x" * 100),
        f"find takes an id of 32 hexadecimal digits, or a function of a node, not '{'x' * 79}"),
    "no id": (
        lambda: root().find(None),
        "find takes an id of 32 hexadecimal digits, or a function of a node, not None"),
    "a result where there is no call": (
        lambda: root().add_tool_result("c", "r"),
        "no call of this conversation has the id 'c'; its calls are none"),
    "a result of another call": (
        lambda: with_calls("a", "b").add_user("u").add_tool_result("c", "r"),
        "no call of this conversation has the id 'c'; its calls are 'a', 'b'"),
    "a graft of a text": (lambda: root().graft("s"), "graft takes a node, not str"),
    "a name with a blank": (
        lambda: root().set_format_kwarg("a b", 1), "a placeholder has a name like a variable, not 'a b'"),
    "a name that is no text": (
        lambda: root().set_format_kwarg(5, 1), "a placeholder has a name like a variable, not 5"),
    "a value that JSON cannot carry": (
        lambda: root().set_format_kwarg("a", [1]),
        "the value of {a} must be a text or a number that JSON can carry, not [1]"),
    "a copy with such a value": (
        lambda: root().copy_thread({"b": float("nan")}),
        "b must be a text or a number that JSON can carry, not nan"),
    "a note without a name": (
        lambda: root().note("", 1), "the name of a note is a line of text, not ''"),
    "a note with two lines": (
        lambda: root().note("a\nb", 1), "the name of a note is a line of text, not 'a\\nb'"),
    "a note under a number": (
        lambda: root().note(5, 1), "the name of a note is a line of text, not 5"),
    "a note that JSON cannot carry": (
        lambda: root().note("a", "\ud800"),
        "the note 'a' must be a text or a number that JSON can carry, not '\\ud800'"),
    "another ttl": (
        lambda: root().cache_breakpoint("1d"), "the ttl of a cache breakpoint is '5m' or '1h', not '1d'"),
    "no ttl": (
        lambda: root().cache_breakpoint(None), "the ttl of a cache breakpoint is '5m' or '1h', not None"),
    "a journal of a child": (
        lambda: root().add_user("u").attach_journal("x"), "a journal is attached to the root: see root_node"),
    "a journal taken from a child": (
        lambda: root().add_user("u").detach_journal(),
        "a journal is detached from the root: see root_node"),
    "a copy": (
        lambda: copy.copy(root()),
        "a node belongs to a tree and cannot be pickled or copied alone; save_tree or save_thread it "
        "and load the file there, or graft a copy of it onto another node"),
    "a pickle": (
        lambda: pickle.dumps([root()]),
        "a node belongs to a tree and cannot be pickled or copied alone; save_tree or save_thread it "
        "and load the file there, or graft a copy of it onto another node"),
    "placeholders without a value": (
        lambda: root().set_format_kwarg("a", None).set_format_kwarg("b", 1).set_format_kwarg("c", None)
        .preview_request(scripted()),
        "these placeholders must have a value: a, c; see set_format_kwarg and "
        "NodeCompletionParameters.with_format_kwargs"),
    "a part of a conversation to keep": (
        lambda: run(root().collapse_thread(keep_last=-1)), "keep_last is a number of messages, not -1"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_node_refuses_is_told_with_what_it_takes(name):
    act, told = REFUSED[name]
    with pytest.raises(MiniLLMError) as caught:
        act()
    assert str(caught.value) == told
    kind = EmptyThreadError if name == "no messages" else InvalidParameterError
    assert type(caught.value) is kind


async def test_an_answer_that_asks_for_tools_first_has_no_parsed_value_yet():
    params = NodeCompletionParameters().expecting(list[int])
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    choice = {"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    reply = ScriptedReply.json({"choices": [choice]})
    node = await root().add_user("u").complete(scripted(reply), params)
    with pytest.raises(InvalidParameterError) as caught:
        _ = node.parsed
    assert str(caught.value) == (
        "the model asks for tools before it answers: add their results, and complete with the same "
        "parameters"
    )
    answered = await root().add_user("u").complete(scripted(said("[1, 2]")), params)
    assert answered.parsed == [1, 2]
    again = answered._at(answered._index)
    with pytest.raises(InvalidParameterError) as caught:
        _ = again.parsed
    assert str(caught.value) == (
        "this handle has no parsed value: keep the node that the call with expecting() returned, "
        "or use response.json()"
    )
    assert again.response.json() == [1, 2]


async def test_an_answer_from_elsewhere_is_parsed_unless_it_asks_for_tools():
    node, params = root().add_user("u"), NodeCompletionParameters().expecting(list[int])
    response = CompletionResponse(content="[1]")
    made = node.add_response(response, params)
    assert (made.parsed, made.text, made.response, made.parent) == ([1], "[1]", response, node)
    plain = node.add_response(response)
    assert (type(plain), plain.response) == (ChatNode, response)
    asking = CompletionResponse(tool_calls=[ToolCall(id="c", name="f", arguments="{}")])
    assert type(node.add_response(asking, params)) is ChatNode
    assert type(node.add_response(response, CompletionParameters())) is ChatNode
    assert len(node.children()) == 4


#          r
#     /    |    \
#    a     b     c
#   / \          |
#  d   e         f
#  |            / \
#  g           h   i


@pytest.fixture
def nodes() -> dict[str, ChatNode]:
    made = {"r": ChatNode.root("r")}
    for name, above in ("ar", "br", "da", "cr", "ea", "fc", "gd", "hf", "if"):
        made[name] = (
            made[above].add_user(name)
            if made[above].role != "user"
            else made[above].add_assistant(name)
        )
    return made


WALKS = {
    "depth_first": {"r": "radgebcfhi", "a": "adge", "b": "b", "c": "cfhi", "i": "i"},
    "breadth_first": {"r": "rabcdefghi", "a": "adeg", "b": "b", "c": "cfhi", "i": "i"},
    "in_insertion_order": {"r": "rabdcefghi", "a": "adeg", "b": "b", "c": "cfhi", "i": "i"},
    "leaves": {"r": "gebhi", "a": "ge", "b": "b", "c": "hi", "i": "i"},
    "path": {"r": "r", "a": "ra", "g": "radg", "i": "rcfi"},
    "thread": {"r": "r", "a": "ra", "g": "radg", "i": "rcfi"},
    "children": {"r": "abc", "a": "de", "b": "", "f": "hi", "g": ""},
    "siblings": {"r": "", "a": "bc", "b": "ac", "d": "e", "g": "", "i": "h"},
}


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_gives_its_nodes_in_its_order(walk, nodes):
    for name, order in WALKS[walk].items():
        assert "".join(one.text for one in getattr(nodes[name], walk)()) == order


def test_every_node_knows_its_place(nodes):
    depths = dict.fromkeys("abc", 1) | dict.fromkeys("def", 2) | dict.fromkeys("ghi", 3)
    assert {name: one.depth for name, one in nodes.items()} == {"r": 0} | depths
    assert {name for name, one in nodes.items() if one.is_leaf} == set("beghi")
    assert [name for name, one in nodes.items() if one.is_root] == ["r"]
    assert {one.root_node.text for one in nodes.values()} == {"r"}
    parents = {name: one.parent and one.parent.text for name, one in nodes.items()}
    assert parents == {"r": None, "a": "r", "b": "r", "c": "r", "d": "a", "e": "a", "f": "c",
                       "g": "d", "h": "f", "i": "f"}  # fmt: skip
    assert [one.node_count() for one in nodes.values()] == [10, 4, 1, 2, 4, 1, 3, 1, 1, 1]
    for one in nodes.values():
        assert nodes["g"].find(one.id) == one
        assert one.find(lambda node, name=one.text: node.text == name) == one


@pytest.mark.parametrize(
    ("order", "left"),
    [("a", "rbcfhi"), ("b", "radgecfhi"), ("c", "radgeb"), ("ab", "rcfhi"), ("cb", "radge"),
     ("bca", "r"), ("ha", "rbcfi"), ("fha", "rbc"), ("hia", "rbcf"), ("dgc", "raeb")],
)  # fmt: skip
def test_a_part_that_leaves_is_a_tree_of_its_own_and_the_rest_stays(order, left, nodes, tmp_path):
    equal = {one.id for one in nodes["r"].depth_first()} if len(order) > 1 else set()
    for name in order:
        assert nodes[name].detach() == nodes[name]
        assert nodes[name].detach() == nodes[name]
    assert "".join(one.text for one in nodes["r"].depth_first()) == left
    for name in order:
        one = nodes[name]
        assert (one.is_root, one.parent, one.depth, one.siblings()) == (True, None, 0, [])
        assert one.root_node == one
        assert nodes["r"].find(one.id) is None
        assert one.find(one.id) == one
    assert not equal or equal == {one.id for one in nodes.values()}
    new = nodes["r"].add_user("new")
    assert nodes["r"].children()[-1] == new
    assert nodes[order[0]].add_user("below").parent == nodes[order[0]]
    for start in (nodes["r"], *map(nodes.get, order)):
        start.save_tree(tmp_path / "tree")
        loaded = ChatNode.load_tree(tmp_path / "tree")
        assert [one.id for one in loaded.depth_first()] == [one.id for one in start.depth_first()]


def test_a_part_that_leaves_before_any_id_was_asked_for_has_the_same_ids():
    def grown() -> tuple[ChatNode, ChatNode]:
        top = ChatNode.root("s")
        for _ in range(3):
            part = top.add_user("a")
            part.add_assistant("b")
        return top, part

    (_, kept), (_, left) = grown(), grown()
    left.detach()
    assert [one.id for one in left.depth_first()] == [one.id for one in kept.depth_first()]


def test_what_comes_after_a_part_that_left_has_another_id_than_it():
    top = ChatNode.root("s")
    ids = set()
    for number in range(5):
        one = top.add_user("a")
        ids.add(one.id)
        assert len(ids) == number + 1
        if number % 2:
            one.detach()
    assert len(top.children()) == 3


def test_a_graft_copies_values_and_not_costs(nodes):
    source = nodes["a"]
    source.note("n", 1).set_format_kwarg("x", 2).cache_breakpoint("1h")
    nodes["d"].note("m", 3)
    for target in (nodes["i"], ChatNode.root("t")):
        copied = target.graft(source)
        assert copied.parent == target
        assert "".join(one.text for one in copied.depth_first()) == "adge"
        below = copied.children()[0]
        assert (copied.notes, below.notes) == ({"n": 1}, {"m": 3})
        assert copied.format_kwargs == {"x": 2}
        assert copied.cache_plan(scripted()).breakpoints
    assert "".join(one.text for one in source.depth_first()) == "adge"
    inside = source.graft(source)
    assert "".join(one.text for one in inside.depth_first()) == "adge"
    assert inside.parent == source


def test_placeholders_of_nodes_and_calls_are_filled_by_the_nearest():
    top = ChatNode.root("{a} {b} {c} {d}").set_format_kwarg("a", 1).set_format_kwarg("b", 2)
    leaf = top.add_user("{a}{e}").set_format_kwarg("b", 3).set_format_kwarg("c", None)
    assert leaf.format_kwargs == {"a": 1, "b": 3, "c": None}
    assert top.format_kwargs == {"a": 1, "b": 2}
    assert leaf.missing_format_kwargs() == ["c", "d", "e"]
    assert [one.text for one in leaf.formatted_thread()] == ["1 3 {c} {d}", "1{e}"]
    assert [one.text for one in leaf.formatted_thread(c="x", a=9, d=0.5)] == ["9 3 x 0.5", "9{e}"]
    params = NodeCompletionParameters().with_format_kwargs({"c": "y", "b": "z"})
    preview = leaf.preview_request(scripted(), params)
    assert preview.url == "https://scripted.example/v1/chat/completions"
    assert preview.body == {"model": "m", "messages": [
        {"role": "system", "content": "1 z y {d}"}, {"role": "user", "content": "1{e}"}]}  # fmt: skip
    copied = leaf.copy_thread({"c": 5, "f": True})
    assert copied.format_kwargs == {"a": 1, "b": 3, "c": 5, "f": True}
    assert (copied.depth, copied.root_node != top) == (1, True)
    assert copied.thread() == leaf.thread()


def test_handles_are_told_apart_by_their_tree_and_their_place(nodes):
    other = ChatNode.root("r")
    assert repr(nodes["a"]) == "<ChatNode 1 user: 'a'>"
    assert repr(other.add_user("x" * 100)) == f"<ChatNode 1 user: '{'x' * 60}\u2026'>"
    assert repr(with_calls("c")) == "<ChatNode 1 assistant: ''>"
    assert nodes["a"] != nodes["b"]
    assert other != nodes["r"]
    assert (nodes["a"] == "a") is False
    assert nodes["a"] == ANY  # the other decides
    assert len({nodes["a"], nodes["a"]._at(1), nodes["b"], other}) == 3


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("is_chat", [False, True])
async def test_the_keywords_of_a_call_are_fields_of_its_request(is_chat, is_streamed):
    def add(a: int) -> int:
        """Add."""
        return a

    fields = {"temperature": 0.5, "max_tokens": 7, "tools": [add], "retry": 0, "timeout_secs": 9}
    generator = scripted(streamed("ok") if is_streamed else said("ok"))
    node = root().add_user("u").add_assistant("a") if is_chat else root().add_user("u")
    given = ("more", generator) if is_chat else (generator,)
    if is_streamed:
        call = (node.chat_streaming if is_chat else node.complete_streaming)(*given, **fields)
        answer = await call.collect()
    else:
        answer = await (node.chat if is_chat else node.complete)(*given, **fields)
    (request,) = generator.transport.requests
    body = json.loads(request.body)
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)
    assert [one["function"]["name"] for one in body["tools"]] == ["add"]
    assert body.get("stream") == (True if is_streamed else None)
    said_before = ["s", "u", "a", "more"] if is_chat else ["s", "u"]
    assert [one["content"] for one in body["messages"]] == said_before
    assert answer.text == "ok"
    assert answer.depth == len(said_before)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1_000_000_001)
    with pytest.raises(StorageError, match="1,000,000,000"):
        ChatNode.from_thread_file(path)


def test_what_is_added_to_a_loaded_tree_has_another_id_than_all_that_was_ever_there(tmp_path):
    root = ChatNode.root("s")
    root.attach_journal(tmp_path / "journal")
    left = root.add_user("a")
    left.detach()
    for text in "bcb":
        root.add_user(text).add_assistant("d")
    loaded = ChatNode.load_tree(tmp_path / "journal")
    for text in "abcb":
        loaded.add_user(text)
        root.add_user(text)
    ids = [one.id for one in loaded.depth_first()]
    assert ids == [one.id for one in root.depth_first()]
    assert len({*ids, left.id}) == len(ids) + 1
