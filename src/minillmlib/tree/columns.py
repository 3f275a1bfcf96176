"""The storage of a tree: one column per fact, one row per node."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator

import msgspec

from minillmlib.values.messages import CacheTtl, Message
from minillmlib.values.responses import CompletionResponse

__all__ = ["NO_NODE", "Tree"]

NO_NODE = -1


class Tree:
    """All nodes of one conversation, by index; a parent's index is below its children's.

    Nothing in it points to a handle, so it is freed with the last one. Writers hold the lock;
    rows never change except for the links to younger nodes, so readers need none.
    """

    __slots__ = (
        "_first_child", "_last_child", "_lock", "_marks", "_messages", "_next_sibling", "_parents",
        "_responses",
    )  # fmt: skip

    def __init__(self, root: Message) -> None:
        self._lock = threading.Lock()
        self._messages = [root]
        self._parents = array("i", [NO_NODE])
        self._first_child = array("i", [NO_NODE])
        self._last_child = array("i", [NO_NODE])
        self._next_sibling = array("i", [NO_NODE])
        self._responses: dict[int, CompletionResponse] = {}
        self._marks: dict[int, CacheTtl | None] = {}  # in place of the message's own

    def append(
        self, parent: int, *messages: Message, response: CompletionResponse | None = None
    ) -> int:
        """Adds a chain of messages below `parent` in one step; the index of the last. O(1) each.

        `response` is what the last message came from.
        """
        with self._lock:
            for message in messages:
                parent = self._append_one(parent, message)
            if response is not None:
                self._responses[parent] = response
        return parent

    def _append_one(self, parent: int, message: Message) -> int:
        index = len(self._messages)
        self._messages.append(message)
        self._parents.append(parent)
        for column in (self._first_child, self._last_child, self._next_sibling):
            column.append(NO_NODE)
        if self._first_child[parent] == NO_NODE:
            self._first_child[parent] = index
        else:
            self._next_sibling[self._last_child[parent]] = index
        self._last_child[parent] = index
        return index

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

    def subtree(self, index: int) -> Iterator[int]:
        """The indexes of a node and all below it, each before its children. O(1) each."""
        pending = [index]
        while pending:
            index = pending.pop()
            yield index
            pending.extend(self.children(index))

    def thread(self, index: int) -> list[Message]:
        """The messages from the root to a node. O(depth)."""
        messages = [self._messages[place] for place in self.path(index)]
        messages.reverse()
        return messages

    def marked_thread(self, index: int) -> list[Message]:
        """The same with the cache marks of its nodes on them."""
        if not self._marks:
            return self.thread(index)
        messages = []
        for place in self.path(index):
            message = self._messages[place]
            if place in self._marks:
                message = msgspec.structs.replace(message, cache_ttl=self._marks[place])
            messages.append(message)
        messages.reverse()
        return messages

    def mark(self, index: int, ttl: CacheTtl | None) -> None:
        """Sets or takes away the cache mark of a node."""
        with self._lock:
            if ttl == self._messages[index].cache_ttl:
                self._marks.pop(index, None)
            else:
                self._marks[index] = ttl

    def clear_marks(self) -> None:
        """Takes all cache marks away. O(nodes)."""
        with self._lock:
            own = (index for index, message in enumerate(self._messages) if message.cache_ttl)
            self._marks = dict.fromkeys(own)
