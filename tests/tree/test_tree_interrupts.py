"""A signal at any place: the tree and its file stay consistent, and the next call works."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from interrupts import interrupt_at
from tree_child import grown

from minillmlib import ChatNode, InvalidParameterError

# A file object is dropped when the signal comes before its `with` block.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# A long run looks at every position.
STEP = int(os.environ.get("MINILLMLIB_INTERRUPT_STEP", "13"))


def twins(root: ChatNode) -> ChatNode:
    """Three equal siblings, so that ids depend on their number."""
    for _ in range(3):
        node = root.add_user("twin")
    return node


CHANGES: dict[str, Callable[[ChatNode, Path], object]] = {
    "add a user message": lambda root, _: root.add_user("new"),
    "add below a leaf": lambda root, _: next(root.leaves()).add_assistant("new"),
    "add equal siblings": lambda root, _: twins(root).id,
    "graft": lambda root, _: root.graft(root.children()[0]),
    "detach the eldest": lambda root, _: root.children()[0].detach(),
    "detach the youngest": lambda root, _: root.children()[-1].detach(),
    "detach one between": lambda root, _: root.children()[1].detach(),
    "set a breakpoint": lambda root, _: root.children()[0].cache_breakpoint("1h"),
    "set a value": lambda root, _: root.set_format_kwarg("x", 2),
    "find": lambda root, _: root.find("0" * 32),
    "save": lambda root, path: root.save_tree(path.with_suffix(".other")),
    "save onto the journal": lambda root, path: root.save_tree(path),
    "attach again": lambda root, path: root.attach_journal(path),
    "attach another": lambda root, path: root.attach_journal(path.with_suffix(".second")),
    "load": lambda _, path: ChatNode.load_tree(path),
}


def facts(root: ChatNode) -> list[tuple[object, ...]]:
    """All that holds for each node, seen in every way in which it can be seen."""
    nodes = list(root.depth_first())
    assert len({node.id for node in nodes}) == len(nodes) == root.node_count()
    assert set(root.breadth_first()) == set(nodes) == set(root.in_insertion_order())
    for node in nodes:
        assert node.path()[0] == root
        assert all(child.parent == node for child in node.children())
        assert root.find(node.id) == node
    return [
        (node.id, [one.text for one in node.path()], node.message.cache_ttl, node.format_kwargs)
        for node in nodes
    ]


def positions(name: str, tmp_path: Path, *, is_journaled: bool, opcodes: bool, step: int) -> int:
    """Interrupt a change at each of its positions, and look at the tree and the file after it."""
    path, number = tmp_path / "journal", 0
    while True:
        for old in tmp_path.iterdir():
            old.unlink()
        root = grown("a", 2)
        kept = [root, root.add_user("second"), root.add_user("third")]
        before = [[one.text for one in node.path()] for node in kept]
        grown("a", 1).save_tree(path.with_suffix(".second"))
        if is_journaled:
            root.attach_journal(path)
        else:
            root.save_tree(path)
        with interrupt_at(number, folder="", opcodes=opcodes) as place:
            CHANGES[name](root, path)
        if not place:
            return number // step
        detached = "detach" in name and not all(node.is_root or node.parent for node in kept)
        assert [[o.text for o in node.path()] for node in kept if node.root_node == root] == [
            texts for node, texts in zip(kept, before, strict=True) if node.root_node == root
        ], place
        assert not detached
        below = root.add_user("next")
        assert [one.text for one in below.path()] == ["s", "next"], place
        seen = facts(root)
        if is_journaled:
            file = path.with_suffix(".second") if name == "attach another" else path
            loaded = ChatNode.load_tree(file)
            if name == "attach another" and loaded.find(below.id) is None:  # interrupted before
                loaded = ChatNode.load_tree(path)
            assert sorted(facts(loaded), key=str) == sorted(seen, key=str), place
        number += step


@pytest.mark.parametrize("is_journaled", [True, False], ids=["journal", "memory"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_signal_at_any_line_of_a_change_leaves_a_whole_tree_and_file(
    name, is_journaled, tmp_path
):
    step = 1 if STEP == 1 else 3
    positions(name, tmp_path, is_journaled=is_journaled, opcodes=False, step=step)


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_a_signal_at_any_instruction_of_a_change_leaves_a_whole_tree_and_file(name, tmp_path):
    positions(name, tmp_path, is_journaled=True, opcodes=True, step=STEP)


READS: dict[str, Callable[[ChatNode, Path], object]] = {
    "children": lambda root, _: root.children(),
    "leaves": lambda root, _: list(root.leaves()),
    "an id": lambda root, _: root.children()[-1].id,
    "find": lambda root, _: root.find("0" * 32),
    "save": lambda root, path: root.save_tree(path),
    "add": lambda root, _: root.add_user("added"),
}


@pytest.mark.parametrize("is_known", [True, False], ids=["derived before", "new"])
@pytest.mark.parametrize("name", READS)
def test_a_signal_handler_at_any_line_of_a_read_finds_and_leaves_a_whole_tree(
    name, is_known, tmp_path
):
    number, place = 0, ["begin"]
    while place:
        root = ChatNode.root("s")
        nodes = [root.add_user(text) for text in ("twin", "second", "third")]
        if is_known:
            facts(root)
            nodes.append(root.add_user("fourth"))

        def handle(root: ChatNode = root, nodes: list[ChatNode] = nodes) -> None:
            assert root.children()[1].id
            with suppress(InvalidParameterError):  # where it interrupts a change
                nodes.append(root.add_user("twin"))
                nodes[0].detach()

        with interrupt_at(number, handler=handle) as place:
            READS[name](root, tmp_path / "saved")
        nodes += [node for node in root.children() if node not in nodes]
        children = sorted((node for node in nodes if node.parent == root), key=hash)
        assert sorted(root.children(), key=hash) == children, place
        facts(root)
        number += 1
