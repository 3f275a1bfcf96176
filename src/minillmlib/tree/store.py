"""The storage of a tree: one column per fact, one row per node."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat

from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse

__all__ = ["NO_NODE", "NodeStore"]

NO_NODE = -1


class NodeStore:
    """All nodes of one conversation, by index; a parent's index is below its children's.

    A detached subtree stays in these columns, with its root. Nothing here points to a handle, so
    the last handle frees everything. Writers hold `lock`; rows never change except for their links
    to others, so readers need no lock.
    """

    __slots__ = (
        "first_child", "last_child", "lock", "messages", "next_sibling", "parents", "responses",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.messages: list[Message] = []
        self.parents = array("i")
        self.first_child = array("i")
        self.last_child = array("i")
        self.next_sibling = array("i")
        self.responses: dict[int, CompletionResponse] = {}

    def __len__(self) -> int:
        return len(self.messages)

    def append(self, parent: int, messages: Sequence[Message]) -> int:
        """Append a chain of messages below `parent` and return the index of the last. O(1) each.

        `NodeIds.append_plain` inlines this for one message.
        """
        first = len(self.messages)
        last = first + len(messages) - 1
        self.messages.extend(messages)
        self.parents.append(parent)
        self.parents.extend(range(first, last))
        following = (*range(first + 1, last + 1), NO_NODE)
        self.first_child.extend(following)
        self.last_child.extend(following)
        self.next_sibling.extend(repeat(NO_NODE, len(messages)))
        if parent != NO_NODE:
            before = self.last_child[parent]
            if before == NO_NODE:
                self.first_child[parent] = first
            else:
                self.next_sibling[before] = first
            self.last_child[parent] = first
        return last

    def detach(self, index: int) -> None:
        """Turn a node that has a parent into a root. O(siblings)."""
        parent, before = self.parents[index], NO_NODE
        for child in self.children(parent):
            if child == index:
                break
            before = child
        after = self.next_sibling[index]
        if before == NO_NODE:
            self.first_child[parent] = after
        else:
            self.next_sibling[before] = after
        if after == NO_NODE:
            self.last_child[parent] = before
        self.next_sibling[index] = NO_NODE
        self.parents[index] = NO_NODE

    def children(self, index: int) -> Iterator[int]:
        """Yield the children, oldest first."""
        child = self.first_child[index]
        while child != NO_NODE:
            yield child
            child = self.next_sibling[child]

    def is_leaf(self, index: int) -> bool:
        """Whether a node has no children."""
        return self.first_child[index] == NO_NODE

    def path(self, index: int) -> Iterator[int]:
        """Yield the nodes from `index` up to the root."""
        while index != NO_NODE:
            yield index
            index = self.parents[index]

    def root(self, index: int) -> int:
        """Return the root above a node. O(depth)."""
        while self.parents[index] != NO_NODE:
            index = self.parents[index]
        return index

    def thread(self, index: int) -> list[Message]:
        """Return the messages from the root to a node. O(depth)."""
        messages, parents, thread = self.messages, self.parents, []
        while index != NO_NODE:
            thread.append(messages[index])
            index = parents[index]
        thread.reverse()
        return thread

    def depth_first(self, index: int) -> Iterator[int]:
        """Yield a node and all below it, each before its children, oldest first."""
        pending = [index]
        while pending:
            index = pending.pop()
            yield index
            pending.extend(reversed(list(self.children(index))))

    def breadth_first(self, index: int) -> Iterator[int]:
        """Yield a node and all below it, level by level."""
        pending = deque([index])
        while pending:
            index = pending.popleft()
            yield index
            pending.extend(self.children(index))
