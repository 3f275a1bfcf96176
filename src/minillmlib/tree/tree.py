"""A tree that grows, has marks and values on its nodes, and is kept in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain
from typing import Protocol

import msgspec

from minillmlib.client.prefix_cache import History, Past
from minillmlib.tree.ids import NamedColumns
from minillmlib.tree.records import (
    ID_BYTES,
    DetachRecord,
    FormatValue,
    KwargsRecord,
    MarkRecord,
    Record,
    content_of,
    line_of,
    node_record,
)
from minillmlib.tree.store import NO_NODE
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

__all__ = ["Journal", "Tree", "joined"]

PIECE_BYTES = 1_000_000
CHAIN = 4  # from so many messages on it pays to add them together


class Journal(Protocol):
    """Where a tree is kept as it grows."""

    def write(self, lines: bytes) -> None:
        """Returns when the lines are kept, or raises."""
        ...


class Tree(NamedColumns):
    """All nodes of one conversation, and what is put on them."""

    __slots__ = ("_history", "_journals", "_kwargs", "_marks")

    def __init__(self) -> None:
        super().__init__()
        self._journals: dict[int, Journal] = {}  # by the root of what they keep
        self._marks: dict[int, CacheTtl | None] = {}  # in place of the message's own
        self._kwargs: dict[int, dict[str, FormatValue]] = {}
        self._history: History | None = None  # of long conversations, as they were sent

    def append(
        self, parent: int, *messages: Message, response: CompletionResponse | None = None
    ) -> int:
        """Adds a chain of messages below `parent` in one step; the index of the last. O(1) each.

        `response` is what the last message came from. If the journal fails, the nodes are there
        all the same, and its error is raised.
        """
        with self.lock:
            first = len(self._messages)
            if len(messages) >= CHAIN:
                parent = self._append_chain(parent, messages)
            else:
                for message in messages:
                    parent = self._append_one(parent, message)
            if response is not None:
                self._responses[parent] = response
            if self._journals:
                added = range(first, len(self._messages))
                self._keep(parent, *(self.record(index) for index in added))
        return parent

    def graft(self, parent: int, other: Tree, root: int) -> int:
        """Adds a copy of another tree's subtree, or of one's own, below `parent`; its index."""
        with other.lock:
            rows = [(one, other._parents[one], *other._row(one)) for one in other.depth_first(root)]
        with self.lock:
            first = len(self._messages)
            copies: dict[int, int] = {}
            for one, above, message, response in rows:
                copy = self._append_one(parent if one == root else copies[above], message)
                if response is not None:
                    self._responses[copy] = response.without_cost()
                copies[one] = copy
            if self._journals:
                self._keep(parent, *map(self.record, range(first, len(self._messages))))
            for one, copy in copies.items():
                if one in other._kwargs:
                    self.set_kwargs(copy, other._kwargs[one])
                if one in other._marks:
                    self.mark(copy, other._marks[one])
        return copies[root]

    def detach(self, index: int) -> None:
        """Makes a node the root of what is below it. O(siblings), and once O(nodes) for the ids."""
        with self.lock:
            parent = self._parents[index]
            if parent == NO_NODE:
                return
            own = self.id(index)  # made of its parent's, while it has one
            self._known_siblings(parent)  # so that no later child takes this one's id
            try:
                self._keep(index, DetachRecord(node=own.hex()))
            finally:  # a journal that fails is told of, and it is detached all the same
                self._history = None  # counts from the root that was
                self._origins[index] = self.id(parent)
                self._unlink(parent, index)

    def past(self, index: int) -> Past | None:
        """What earlier calls wrote of the messages up to a node, unless marks change those."""
        if self._marks:
            return None
        if self._history is None:
            self._history = History()
        return Past(self._history, index, self.path(index))

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
        with self.lock:
            if ttl == self._messages[index].cache_ttl:
                self._marks.pop(index, None)
            else:
                self._marks[index] = ttl
            if self._journals:
                self._keep(index, MarkRecord(node=self.id(index).hex(), ttl=ttl))

    def clear_marks(self, root: int) -> None:
        """Takes all cache marks of a tree away. O(nodes)."""
        with self.lock:
            for index in self.depth_first(root):
                if index in self._marks or self._messages[index].cache_ttl:
                    self.mark(index, None)

    def kwargs(self, index: int) -> Mapping[str, FormatValue]:
        """The placeholders that a node itself gives values to."""
        return self._kwargs.get(index, {})

    def thread_kwargs(self, index: int) -> dict[str, FormatValue]:
        """The placeholders with values from the root to a node; the nearest wins. O(depth)."""
        values: dict[str, FormatValue] = {}
        if self._kwargs:
            for place in self.path(index):
                values = {**self.kwargs(place), **values}
        return values

    def set_kwargs(self, index: int, values: Mapping[str, FormatValue]) -> None:
        """Replaces the placeholders that a node gives values to."""
        with self.lock:
            self._kwargs[index] = dict(values)
            if self._journals:
                self._keep(index, KwargsRecord(node=self.id(index).hex(), values=dict(values)))

    def _row(self, index: int) -> tuple[Message, CompletionResponse | None]:
        return self._messages[index], self._responses.get(index)

    def record(self, index: int) -> bytes:
        """The record of a node for a file."""
        parent = self._parents[index]
        above = b"" if parent == NO_NODE else self.id(parent).hex().encode()
        return self._record(index, self.id(index).hex().encode(), above)

    def _record(self, index: int, own: bytes, above: bytes) -> bytes:
        if not above and index in self._origins:
            above = self._origins[index].hex().encode()
        content = content_of(self._messages[index], self._responses.get(index))
        return node_record(own, above, content, self._twins.get(index, 0))

    def lines(self, root: int, held: AbstractSet[str] = frozenset()) -> Iterator[bytes]:
        """A subtree as lines of a file, parents first, without the nodes that are held there.

        Sees what is there when it begins.
        """
        with self.lock:
            end = len(self._messages)
            self.name_all()
            digits = self._ids.hex().encode()  # all at once, and not a million times
            marks, kwargs = dict(self._marks), dict(self._kwargs)
        size, parents = 2 * ID_BYTES, self._parents
        inside = bytearray(end)
        inside[root] = 1
        for index in range(root, end):
            parent = parents[index]
            if parent != NO_NODE and inside[parent]:
                inside[index] = 1
            if not inside[index]:
                continue
            own = digits[index * size : (index + 1) * size]
            above = b"" if parent == NO_NODE else digits[parent * size : (parent + 1) * size]
            if not held or own.decode() not in held:
                yield b"[%b]\n" % self._record(index, own, above)
            if index in marks:
                yield line_of(MarkRecord(node=own.decode(), ttl=marks[index]))
            if index in kwargs:
                yield line_of(KwargsRecord(node=own.decode(), values=kwargs[index]))

    def keep_in(
        self, journal: Journal, root: int, held: AbstractSet[str], told: AbstractSet[bytes]
    ) -> None:
        """From here on all of the tree of `root` is in `journal`.

        It holds the nodes with the ids `held` already, and the lines `told` about nodes.
        """
        with self.lock:
            gone = (self.id(index).hex() for index in self._origins if index != root)
            detached = (line_of(DetachRecord(node=own)) for own in gone if own in held)
            lines = chain(detached, self.lines(root, held))
            for piece in joined(line for line in lines if line not in told):
                journal.write(piece)
            self._journals[root] = journal

    def _keep(self, index: int, *records: bytes | Record) -> None:
        root = self.root(index) if self._origins else 0
        journal = self._journals.pop(root, None)  # one that fails is not used again
        if journal is not None:
            journal.write(line_of(*records))
            self._journals[root] = journal


def joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in pieces, since every write takes its time."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
