"""The storage of a tree: one column per fact, one row per node."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat

from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse

__all__ = ["NO_NODE", "Columns"]

NO_NODE = -1


class Columns:
    """All nodes of one conversation, by index; a parent's index is below its children's.

    A subtree that was detached stays in these columns, with a root of its own. Nothing in here
    points to a handle, so all is freed with the last one. Writers hold the lock; rows never
    change except for the links to others, so readers need none.
    """

    __slots__ = (
        "_first_child", "_last_child", "_messages", "_next_sibling", "_parents", "_responses",
        "lock",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._messages: list[Message] = []
        self._parents = array("i")
        self._first_child = array("i")
        self._last_child = array("i")
        self._next_sibling = array("i")
        self._responses: dict[int, CompletionResponse] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def _append_one(self, parent: int, message: Message) -> int:
        index = len(self._messages)
        self._messages.append(message)
        self._parents.append(parent)
        self._first_child.append(NO_NODE)
        self._last_child.append(NO_NODE)
        self._next_sibling.append(NO_NODE)
        if parent != NO_NODE:
            self._link(parent, index)
        return index

    def _link(self, parent: int, index: int) -> None:
        before = self._last_child[parent]
        if before == NO_NODE:
            self._first_child[parent] = index
        else:
            self._next_sibling[before] = index
        self._last_child[parent] = index

    def _append_chain(self, parent: int, messages: Sequence[Message]) -> int:
        """The same for several, each below the one before, in a few steps; the last one's index."""
        first = len(self._messages)
        last = first + len(messages) - 1
        following = range(first + 1, last + 1)
        self._messages.extend(messages)
        self._parents.append(parent)
        self._parents.extend(range(first, last))
        for column in (self._first_child, self._last_child):
            column.extend(following)
            column.append(NO_NODE)
        self._next_sibling.extend(repeat(NO_NODE, len(messages)))
        if parent != NO_NODE:
            self._link(parent, first)
        return last

    def _unlink(self, parent: int, index: int) -> None:
        before = NO_NODE
        for child in self.children(parent):
            if child == index:
                break
            before = child
        after = self._next_sibling[index]
        if before == NO_NODE:
            self._first_child[parent] = after
        else:
            self._next_sibling[before] = after
        if after == NO_NODE:
            self._last_child[parent] = before
        self._next_sibling[index] = NO_NODE
        self._parents[index] = NO_NODE

    def message(self, index: int) -> Message:
        """The message of a node."""
        return self._messages[index]

    def response(self, index: int) -> CompletionResponse | None:
        """The response that a node's message came from, if it came from a model."""
        return self._responses.get(index)

    def parent(self, index: int) -> int:
        """The parent's index, or `NO_NODE` for the root."""
        return self._parents[index]

    def children(self, index: int) -> Iterator[int]:
        """The indexes of the children, oldest first."""
        child = self._first_child[index]
        while child != NO_NODE:
            yield child
            child = self._next_sibling[child]

    def path(self, index: int) -> Iterator[int]:
        """The indexes from a node up to the root."""
        while index != NO_NODE:
            yield index
            index = self._parents[index]

    def root(self, index: int) -> int:
        """The index of the root above a node. O(depth)."""
        while self._parents[index] != NO_NODE:
            index = self._parents[index]
        return index

    def depth_first(self, index: int) -> Iterator[int]:
        """The indexes of a node and all below it, each before its children, oldest first."""
        pending = [index]
        while pending:
            index = pending.pop()
            yield index
            pending.extend(reversed(list(self.children(index))))

    def breadth_first(self, index: int) -> Iterator[int]:
        """The same, level by level."""
        pending = deque([index])
        while pending:
            index = pending.popleft()
            yield index
            pending.extend(self.children(index))

    def is_leaf(self, index: int) -> bool:
        """Whether nothing follows a node."""
        return self._first_child[index] == NO_NODE

    def thread(self, index: int) -> list[Message]:
        """The messages from the root to a node. O(depth)."""
        messages, parents, thread = self._messages, self._parents, []
        while index != NO_NODE:
            thread.append(messages[index])
            index = parents[index]
        thread.reverse()
        return thread
