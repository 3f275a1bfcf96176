"""A tree against a plain model: whatever is done in whatever order, they agree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from minillmlib import ChatNode

MOST_NODES = 60
TEXTS = st.sampled_from(["a", "b", "{name}"])
PLACES = st.integers(0, 10**6)
VALUES = st.sampled_from([None, "Ann", "", 0, -1, 1.5, 1e300, True, 2**70, "\U0001f600"])

Label = int
_labels: dict[tuple[Label | None, str, int], Label] = {}


def label_of(above: Label | None, message: str, number: int) -> Label:
    """A number that stands for all that is said from the root to a node."""
    return _labels.setdefault((above, message, number), len(_labels))


@dataclass(eq=False)
class Said:
    """One node as the model sees it. `label` stands for its id."""

    group: object  # what shares memory
    label: Label
    text: str
    node: ChatNode
    parent: Said | None = None
    children: list[Said] = field(default_factory=list)
    used: set[Label] = field(default_factory=set)  # the labels given below it, ever
    mark: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def label_below(self, message: str) -> Label:
        """What tells a new child from all others: of equals, the later have a number."""
        number = 0
        while label_of(self.label, message, number) in self.used:
            number += 1
        return label_of(self.label, message, number)

    def walk(self) -> Iterator[Said]:
        yield self
        for child in self.children:
            yield from child.walk()

    def path(self) -> list[Said]:
        return [*(self.parent.path() if self.parent else []), self]


def nodes_of(many: list[Said]) -> list[ChatNode]:
    return [one.node for one in many]


class Trees(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.files = 0
        self.said: list[Said] = []
        self.ids: dict[Label, str] = {}
        self.journals: dict[Said, Path] = {}  # by their roots
        self.start("a")

    def teardown(self) -> None:
        self.folder.cleanup()

    # Helpers.

    def pick(self, place: int) -> Said:
        return self.said[place % len(self.said)]

    def pick_root(self, place: int) -> Said:
        roots = self.roots()
        return roots[place % len(roots)]

    def roots(self) -> list[Said]:
        return [one for one in self.said if one.parent is None]

    def has_room(self) -> bool:
        return len(self.said) < MOST_NODES

    def new_file(self) -> Path:
        self.files += 1
        return Path(self.folder.name, f"{self.files}.jsonl")

    def add_below(self, parent: Said, text: str, node: ChatNode) -> Said:
        label = parent.label_below(f"{node.role}: {text}")
        child = Said(parent.group, label, text, node, parent)
        parent.children.append(child)
        parent.used.add(child.label)
        self.said.append(child)
        return child

    def take_over(self, handle: ChatNode, model: Said, *, in_order: bool = True) -> Said:
        """A loaded tree, which must be what the model says, as a tree of its own."""
        group = object()
        root = Said(group, model.label, model.text, handle)
        pending = [(model, root)]
        while pending:
            old, new = pending.pop()
            assert new.node.id == self.ids.get(old.label, new.node.id)
            new.mark, new.values = old.mark, dict(old.values)
            self.said.append(new)
            children = new.node.children()
            expected = [self.ids[child.label] for child in old.children]
            assert len(set(expected)) == len(expected)
            assert [c.id for c in children] == expected or not in_order
            by_id = {self.ids[child.label]: child for child in old.children}
            assert sorted(by_id) == sorted(child.id for child in children)
            for child in children:
                twin = by_id[child.id]
                copy = Said(group, twin.label, twin.text, child, new)
                new.children.append(copy)
                new.used.add(copy.label)
                pending.append((twin, copy))
        return root

    def merge_into(self, one: Said, other: Said) -> None:
        """In the model: what the other has more is added, and its marks and values win."""
        mine = {said.label: said for said in self.said if said.group is one.group}
        for said in other.walk():
            if said.label not in mine:
                assert said.parent is not None
                parent = mine.get(said.parent.label)
                if parent is None or said.label in parent.used:
                    continue  # it was detached here before a restart, with all below it
                copy = Said(one.group, said.label, said.text, said.node, parent)
                parent.children.append(copy)
                parent.used.add(copy.label)
                self.said.append(copy)
                mine[copy.label] = copy
            known = mine[said.label]
            known.mark = said.mark or known.mark
            known.values = dict(said.values) or known.values

    def forget(self, group: object) -> None:
        self.said = [one for one in self.said if one.group is not group]
        self.journals = {one: path for one, path in self.journals.items() if one.group is not group}

    # What is done.

    @rule(text=TEXTS)
    @precondition(has_room)
    def start(self, text: str) -> None:
        self.said.append(
            Said(object(), label_of(None, f"system: {text}", 0), text, ChatNode.root(text))
        )

    @rule(place=PLACES, text=TEXTS)
    @precondition(has_room)
    def add(self, place: int, text: str) -> None:
        parent = self.pick(place)
        self.add_below(parent, text, parent.node.add_user(text))

    @rule(place=PLACES, texts=st.lists(TEXTS, min_size=2, max_size=6))
    @precondition(has_room)
    def add_several(self, place: int, texts: list[str]) -> None:
        parent = self.pick(place)
        for text in texts:
            self.add_below(parent, text, parent.node.add_user(text))

    @rule(place=PLACES)
    def detach(self, place: int) -> None:
        said = self.pick(place)
        assert said.node.detach() == said.node
        if said.parent is not None:
            said.parent.children.remove(said)
            said.parent = None

    @rule(place=PLACES, from_place=PLACES)
    @precondition(has_room)
    def graft(self, place: int, from_place: int) -> None:
        parent, other = self.pick(place), self.pick(from_place)
        sources = list(other.walk())
        copy = parent.node.graft(other.node)
        copies: dict[Said, Said] = {}
        for source, node in zip(sources, copy.depth_first(), strict=True):
            above = parent if source is other else copies[source.parent]
            copies[source] = self.add_below(above, source.text, node)
            copies[source].mark, copies[source].values = source.mark, dict(source.values)

    @rule(place=PLACES, ttl=st.sampled_from(["5m", "1h"]))
    def mark(self, place: int, ttl: Any) -> None:
        said = self.pick(place)
        said.node.cache_breakpoint(ttl)
        said.mark = ttl

    @rule(place=PLACES)
    def clear_mark(self, place: int) -> None:
        said = self.pick(place)
        said.node.clear_cache_breakpoint()
        said.mark = None

    @rule(place=PLACES)
    def clear_marks(self, place: int) -> None:
        said = self.pick(place)
        said.node.clear_all_cache_breakpoints()
        for one in said.path()[0].walk():
            one.mark = None

    @rule(place=PLACES, name=st.sampled_from(["name", "other"]), value=VALUES)
    def set_value(self, place: int, name: str, value: Any) -> None:
        said = self.pick(place)
        said.node.set_format_kwarg(name, value)
        said.values[name] = value

    # Files.

    @rule(place=PLACES)
    @precondition(has_room)
    def save_and_load(self, place: int) -> None:
        said, path, again = self.pick(place), self.new_file(), self.new_file()
        said.node.save_tree(path)
        self.note_ids()
        loaded = self.take_over(ChatNode.load_tree(path), said)
        loaded.node.save_tree(again)
        assert path.read_bytes() == again.read_bytes()
        for leaf in [one for one in loaded.walk() if not one.children][:5]:
            self.check_thread(leaf)

    @rule(place=PLACES, order=st.booleans())
    @precondition(has_room)
    def merge(self, place: int, order: bool) -> None:
        one = self.pick_root(place)
        twins = [root for root in self.roots() if root.label == one.label and root is not one]
        if not twins:
            return
        pair = [one, twins[place % len(twins)]][:: 1 if order else -1]
        paths = [self.new_file(), self.new_file()]
        for said, path in zip(pair, paths, strict=True):
            said.node.save_tree(path)
        self.note_ids()
        first = self.take_over(ChatNode.load_tree(paths[0]), pair[0])
        self.merge_into(first, pair[1])
        self.forget(first.group)
        merged = self.take_over(ChatNode.load_tree(*paths), first)
        twice = ChatNode.load_tree(*paths, *reversed(paths))
        assert [node.id for node in twice.depth_first()] == [
            node.id for node in merged.node.depth_first()
        ]

    @rule(place=PLACES)
    def attach(self, place: int) -> None:
        root = self.pick_root(place)
        path = self.journals[root] = self.new_file()
        root.node.attach_journal(path)

    @rule(place=PLACES)
    @precondition(has_room)
    def attach_to_a_copy_that_grew_apart(self, place: int) -> None:
        one = self.pick_root(place)
        twins = [r for r in self.roots() if r.label == one.label and r.group is not one.group]
        if not twins:
            return
        other, path = twins[place % len(twins)], self.new_file()
        other.node.save_tree(path)
        one.node.attach_journal(path)
        self.journals[one] = path
        self.note_ids()
        self.merge_into(one, other)
        by_id = {node.id: node for root in self.roots() if root.group is one.group
                 for node in root.node.depth_first()}  # fmt: skip
        for said in self.said:
            if said.group is one.group:
                said.node = by_id[self.ids[said.label]]

    @rule(place=PLACES, cut=st.integers(0, 60))
    def restart(self, place: int, cut: int) -> None:
        """The process dies, perhaps in the middle of a line, and a new one goes on."""
        if not self.journals:
            return
        root = list(self.journals)[place % len(self.journals)]
        path = self.journals[root]
        self.note_ids()
        if cut:
            with path.open("ab") as file:
                file.write(
                    b'[{"kind":"node","id":"914109cf98dde21f3a240a3713937d4e","message"'[:cut]
                )
        self.forget(root.group)
        loaded = self.take_over(ChatNode.load_tree(path), root, in_order=False)
        # The ids of children that were detached while they were in the journal are in it, too.
        written = path.read_text()
        for new, old in zip(self.by_label(loaded), self.by_label(root), strict=True):
            new.used |= {one for one in old.used if f'"id":"{self.ids.get(one)}"' in written}
        loaded.node.attach_journal(path)
        self.journals[loaded] = path

    @staticmethod
    def by_label(root: Said) -> list[Said]:
        return sorted(root.walk(), key=lambda said: said.label)

    @rule(place=PLACES)
    def thread_file(self, place: int) -> None:
        self.check_thread(self.pick(place))

    def check_thread(self, said: Said) -> None:
        path = self.new_file()
        said.node.save_thread(path)
        root, leaf = ChatNode.from_thread_file(path)
        assert [m.content for m in leaf.thread()] == [one.text for one in said.path()]
        assert [m.cache_ttl for m in leaf.thread()] == [one.mark for one in said.path()]
        assert root.format_kwargs == said.node.format_kwargs

    # What must be so.

    def note_ids(self) -> None:
        for said in self.said:
            assert self.ids.setdefault(said.label, said.node.id) == said.node.id

    @invariant()
    def they_agree(self) -> None:
        for root in self.roots():
            self.check_walks(root)
            for said in root.walk():
                self.check_node(said)

    @rule()
    def ids_tell_nodes_apart(self) -> None:
        self.note_ids()
        assert len(set(self.ids.values())) == len(self.ids)
        for root in self.roots():
            for other in self.roots():
                found = other.node.find(root.node.id)
                labels = [one.label for one in other.walk()]
                assert (found is None) == (root.label not in labels)
            for said in root.walk():
                assert root.node.find(self.ids[said.label]) == said.node

    def check_walks(self, root: Said) -> None:
        saids = list(root.walk())
        assert list(root.node.depth_first()) == nodes_of(saids)
        assert list(root.node.leaves()) == nodes_of([s for s in saids if not s.children])
        assert root.node.node_count() == len(saids)
        levels = [root]
        for said in levels:
            levels.extend(said.children)
        assert list(root.node.breadth_first()) == nodes_of(levels)

    def check_node(self, said: Said) -> None:
        node, path = said.node, said.path()
        assert node.text == said.text
        assert node.children() == nodes_of(said.children)
        assert node.parent == (said.parent.node if said.parent else None)
        others = [one for one in said.parent.children if one is not said] if said.parent else []
        assert node.siblings() == nodes_of(others)
        assert node.path() == nodes_of(path)
        assert node.depth == len(path) - 1
        assert node.root_node == path[0].node
        assert (node.is_root, node.is_leaf) == (said.parent is None, not said.children)
        values: dict[str, Any] = {}
        for one in path:
            values |= one.values
        assert node.format_kwargs == values


RUNS = settings(deadline=None, derandomize=True, database=None)


def test_a_tree_is_what_was_said():
    run_state_machine_as_test(
        Trees, settings=settings(RUNS, max_examples=5, stateful_step_count=20)
    )


@pytest.mark.long
def test_a_tree_is_what_was_said_whatever_comes_next():
    run_state_machine_as_test(
        Trees, settings=settings(RUNS, max_examples=150, stateful_step_count=30)
    )
