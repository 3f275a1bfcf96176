"""A conversation as deep as you like: nothing recurses, and nothing is left behind."""

from __future__ import annotations

import sys
import time

import pytest
from short_answers import ANSWER

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionResponse,
    CostTotal,
    GeneratorInfo,
    InvalidParameterError,
    Message,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

DEPTH = 100_000

# What a call costs grows with the thread, so these are tried at a depth of a thousand.
ASKS_A_MODEL = {
    "chat", "chat_many", "chat_many_streaming", "chat_streaming", "chat_streaming_tracked",
    "chat_tracked", "collapse_thread",
    "complete", "complete_many", "complete_many_streaming", "complete_streaming",
    "complete_streaming_tracked", "complete_tracked", "ensure_cached", "run_tools",
    "run_tools_streaming",
}  # fmt: skip
FREE = CompletionResponse(content="x").without_cost()
MAKES_A_TREE = {"from_messages", "from_thread_file", "from_thread_json", "load_tree", "root"}


def chain(depth: int) -> ChatNode:
    """The leaf of a thread; its root has a second child, with a leaf of its own."""
    node = ChatNode.root("s")
    node.add_user("aside").add_assistant("aside")
    for number in range(depth):
        node = node.add_assistant("a") if number % 2 else node.add_user("u")
    return node


def answering(replies: int = 1) -> GeneratorInfo:
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_transport(ScriptedTransport([ScriptedReply.json(ANSWER)] * replies))


@pytest.fixture(scope="module")
def leaf():
    return chain(DEPTH)


@pytest.fixture(autouse=True)
def _little_stack():
    """What recursed by even a hundredth of the depth would fail."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(500)
    yield
    sys.setrecursionlimit(limit)


def refuses_result(leaf: ChatNode) -> bool:
    """A result of no call, which is looked for up to the root."""
    with pytest.raises(InvalidParameterError, match="its calls are none"):
        leaf.add_tool_result("c", "x")
    return True


def document(leaf: ChatNode, path) -> bytes:
    leaf.save_thread(path)
    return path.read_bytes()


def copied(leaf: ChatNode, path) -> ChatNode:
    leaf.root_node.save_tree(path)
    return ChatNode.load_tree(path)


def refusal(leaf: ChatNode, name: str = "response") -> Exception:
    with pytest.raises(minillmlib.InvalidParameterError) as caught:
        getattr(leaf, name)
    return caught.value


USES = {
    "add_assistant": lambda leaf, _: leaf.add_assistant("x").depth == DEPTH + 1,
    "add_tool_result": lambda leaf, _: refuses_result(leaf),
    "add_user": lambda leaf, _: leaf.add_user("x").depth == DEPTH + 1,
    "in_insertion_order": lambda leaf, _: len(leaf.root_node.in_insertion_order())
        == leaf.root_node.node_count(),
    "to_html": lambda leaf, _: leaf.root_node.to_html().count('"role":') >= DEPTH,
    "attach_journal": lambda leaf, path: (
        leaf.root_node.attach_journal(path), leaf.add_user("kept"),
        ChatNode.load_tree(path).node_count() == leaf.root_node.node_count())[2],
    "breadth_first": lambda leaf, _: sum(1 for _ in leaf.root_node.breadth_first()) > DEPTH,
    "cache_breakpoint": lambda leaf, _: leaf.cache_breakpoint() == leaf,
    "cache_plan": lambda leaf, _: leaf.clear_all_cache_breakpoints().cache_plan(answering())
        .breakpoints == (),
    "cache_verdict": lambda leaf, _: "not generated" in str(refusal(leaf, "cache_verdict")),
    "children": lambda leaf, _: len(leaf.root_node.children()) == 2,
    "clear_all_cache_breakpoints": lambda leaf, _: leaf.clear_all_cache_breakpoints() == leaf,
    "clear_cache_breakpoint": lambda leaf, _: leaf.clear_cache_breakpoint() == leaf,
    "add_response": lambda leaf, _: leaf.add_response(FREE).depth
        == DEPTH + 1,
    "copy_thread": lambda leaf, _: leaf.copy_thread().depth == DEPTH,
    "cost": lambda leaf, _: leaf.cost == CostTotal(),
    "depth": lambda leaf, _: leaf.depth == DEPTH,
    "depth_first": lambda leaf, _: sum(1 for _ in leaf.root_node.depth_first()) > DEPTH,
    "is_recorded": lambda leaf, _: (leaf.root_node.detach_journal(), not leaf.is_recorded)[1],
    "note": lambda leaf, _: leaf.note("score", 1).notes == {"score": 1},
    "notes": lambda leaf, _: leaf.parent.notes == {},
    "detach_journal": lambda leaf, _: leaf.root_node.detach_journal() is None,
    "detach": lambda leaf, path: (
        copy := copied(leaf, path).children()[1]).detach().node_count() >= DEPTH and copy.is_root,
    "estimate_cost": lambda leaf, _: leaf.estimate_cost(answering()) is not None,
    "preview_request": lambda leaf, _: len(
        leaf.preview_request(answering()).body["messages"]) == DEPTH + 1,
    "find": lambda leaf, _: leaf.root_node.find(leaf.id) == leaf
        == leaf.root_node.find(lambda node: node == leaf),
    "format_kwargs": lambda leaf, _: leaf.format_kwargs is not None,
    "formatted_thread": lambda leaf, _: len(leaf.formatted_thread(x="y")) == DEPTH + 1,
    "from_messages": lambda leaf, _: ChatNode.from_messages(leaf.thread())[1].depth == DEPTH,
    "from_thread_file": lambda leaf, path: document(leaf, path)
        and ChatNode.from_thread_file(path)[1].depth == DEPTH,
    "from_thread_json": lambda leaf, path: ChatNode.from_thread_json(document(leaf, path))[1].depth
        == DEPTH,
    "graft": lambda leaf, _: ChatNode.root("t").graft(leaf.root_node).node_count() > DEPTH,
    "id": lambda leaf, _: len(leaf.id) == 32,
    "is_generated": lambda leaf, _: not leaf.is_generated,
    "is_leaf": lambda leaf, _: not leaf.root_node.is_leaf,
    "is_root": lambda leaf, _: not leaf.is_root,
    "leaves": lambda leaf, _: leaf in leaf.root_node.leaves() or not leaf.is_leaf,
    "load_tree": lambda leaf, path: copied(leaf, path).find(leaf.id).depth == DEPTH,
    "media": lambda leaf, _: leaf.media == (),
    "message": lambda leaf, _: isinstance(leaf.message, Message),
    "missing_format_kwargs": lambda leaf, _: leaf.missing_format_kwargs() == [],
    "node_count": lambda leaf, _: leaf.root_node.node_count() > DEPTH,
    "parent": lambda leaf, _: leaf.parent.depth == DEPTH - 1,
    "path": lambda leaf, _: len(leaf.path()) == DEPTH + 1,
    "path_cost": lambda leaf, _: leaf.path_cost() == CostTotal(),
    "pretty": lambda leaf, _: leaf.pretty(10).count("\n\n") == DEPTH,
    "response": lambda leaf, _: isinstance(refusal(leaf), minillmlib.InvalidParameterError),
    "role": lambda leaf, _: leaf.role == "assistant",
    "reprice": lambda leaf, _: leaf.root_node.reprice(TokenPrice(1, 2)) == CostTotal(),
    "root": lambda leaf, _: ChatNode.root("s").is_root,
    "root_node": lambda leaf, _: leaf.root_node.is_root,
    "save_thread": lambda leaf, path: len(document(leaf, path)) > DEPTH,
    "save_tree": lambda leaf, path: leaf.root_node.save_tree(path) is None,
    "set_format_kwarg": lambda leaf, _: leaf.set_format_kwarg("x", "y").format_kwargs == {"x": "y"},
    "siblings": lambda leaf, _: len(leaf.root_node.children()[0].siblings()) == 1,
    "subtree_cost": lambda leaf, _: leaf.root_node.subtree_cost() == CostTotal(),
    "text": lambda leaf, _: leaf.text == "a",
    "thread": lambda leaf, _: len(leaf.thread()) == DEPTH + 1,
    "to_openai": lambda leaf, _: len(leaf.to_openai()) == DEPTH + 1,
    "to_sharegpt": lambda leaf, _: leaf.to_sharegpt().count('"from":') >= DEPTH,
    "to_markdown": lambda leaf, _: leaf.to_markdown().count("## ") == DEPTH + 1,
    "tool_calls": lambda leaf, _: leaf.tool_calls == (),
    "__eq__": lambda leaf, _: leaf == leaf.path()[-1],
    "__hash__": lambda leaf, _: len({leaf, leaf.path()[-1]}) == 1,
    "__repr__": lambda leaf, _: len(repr(leaf)) < 200,
    "__str__": lambda leaf, _: len(str(leaf)) > DEPTH,
    "_repr_html_": lambda leaf, _: len(leaf._repr_html_()) > DEPTH,
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_a_use_of_a_deep_tree_works(name, leaf, tmp_path):
    assert USES[name](leaf, tmp_path / "file")


def test_every_public_name_is_tried():
    public = {name for name in vars(ChatNode) if not name.startswith("_")}
    assert public == {name for name in USES if not name.startswith("_")} | ASKS_A_MODEL


async def test_calls_at_the_end_of_a_thread_of_a_thousand_messages(tmp_path):
    leaf = chain(1000)
    generator = answering(3)
    assert (await leaf.chat("u", generator)).depth == 1002
    assert (await leaf.complete(generator)).depth == 1001
    short = await leaf.collapse_thread(keep_last=10, generator=generator)
    assert short.depth == 11


def test_a_tree_is_freed_at_once_with_its_last_handle(tmp_path):
    leaf = chain(1000)  # whatever is made once is made now
    copied(leaf, tmp_path / "file").find(leaf.id)
    del leaf
    before = sys.getallocatedblocks()
    leaf = chain(DEPTH)
    root = copied(leaf, tmp_path / "file")
    assert root.find(leaf.id).depth == DEPTH
    assert sys.getallocatedblocks() - before > 4 * DEPTH
    del leaf, root
    assert sys.getallocatedblocks() - before < 1000


def test_a_walk_that_is_left_keeps_nothing():
    root = chain(10).root_node
    walks = [root.depth_first(), root.breadth_first(), root.leaves()]
    firsts = [next(walk).depth for walk in walks]
    assert firsts[:2] == [0, 0]
    before = sys.getallocatedblocks()
    del walks
    assert sys.getallocatedblocks() < before


def test_a_node_with_many_equal_answers_tells_them_apart_in_linear_time(tmp_path):
    root = ChatNode.root("s")
    for number in range(DEPTH // 5):
        root.add_user("twin" if number % 2 else str(number))
    started = time.process_time()
    assert len({child.id for child in root.children()}) == DEPTH // 5
    loaded = copied(root, tmp_path / "file")
    assert [c.id for c in loaded.children()] == [c.id for c in root.children()]
    assert time.process_time() - started < 20
