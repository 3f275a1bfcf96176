"""The storage of a tree: one column per fact, one row per node."""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, repeat
from typing import Protocol

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.pipeline.history import History, Past
from minillmlib.tree.records import (
    ID_BYTES,
    DetachRecord,
    FormatValue,
    KwargsRecord,
    MarkRecord,
    NodeRecord,
    Record,
    content_of,
    encode,
    id_of,
    line_of,
    new_hasher_maker,
    node_record,
)
from minillmlib.values.messages import CacheTtl, Message
from minillmlib.values.responses import CompletionResponse

__all__ = ["NO_NODE", "Journal", "Tree", "joined"]

NO_NODE = -1
PIECE_BYTES = 1_000_000
CHAIN = 4  # from so many messages on it pays to add them together


class Journal(Protocol):
    """Where a tree is kept as it grows."""

    def write(self, lines: bytes) -> None:
        """Returns when the lines are kept, or raises."""
        ...


class Tree:
    """All nodes of one conversation, by index; a parent's index is below its children's.

    A subtree that was detached stays in these columns, with a root of its own. Nothing in here
    points to a handle, so all is freed with the last one. Writers hold the lock; rows never
    change except for the links to others, so readers need none.
    """

    __slots__ = (
        "_by_id", "_first_child", "_history", "_ids", "_journals", "_kwargs", "_last_child",
        "_marks", "_messages", "_next_sibling", "_next_twins", "_origins", "_parents",
        "_responses", "_siblings", "_twins", "lock",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._journals: dict[int, Journal] = {}  # by the root of what they keep
        self._messages: list[Message] = []
        self._parents = array("i")
        self._first_child = array("i")
        self._last_child = array("i")
        self._next_sibling = array("i")
        self._responses: dict[int, CompletionResponse] = {}
        self._marks: dict[int, CacheTtl | None] = {}  # in place of the message's own
        self._kwargs: dict[int, dict[str, FormatValue]] = {}
        self._ids = bytearray()  # of the first nodes, as far as anybody asked
        self._siblings: dict[int, set[bytes]] = {}  # the ids below a node that has several
        self._by_id: dict[bytes, int] = {}
        self._twins: dict[int, int] = {}  # how many older siblings are a node's equals
        self._next_twins: dict[bytes, int] = {}  # the number after that, by the id of the eldest
        self._origins: dict[int, bytes] = {}  # the ids of the former parents of detached nodes
        self._history: History | None = None  # of long conversations, as they were sent

    def __len__(self) -> int:
        return len(self._messages)

    # Growing.

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

    def append_record(self, parent: int, record: NodeRecord) -> int:
        """Adds a node of a file to a tree whose nodes all have their ids; its index.

        Raises `InvalidParameterError` if the record's id is not that of what it holds.
        """
        message, response, twin = record.message, record.response, record.twin
        above = b"" if record.parent is None else bytes.fromhex(record.parent)
        own = id_of(above, content_of(message, response), twin)
        if own.hex() != record.id:
            raise InvalidParameterError("it was changed after it was written, or is damaged")
        index = self._append_one(parent, message)
        self._ids += own
        if response is not None:
            self._responses[index] = response
        if twin:
            self._twins[index] = twin
        if parent == NO_NODE and above:
            self._origins[index] = above
        if parent in self._siblings:
            self._siblings[parent].add(own)
        return index

    def append_plain(self, records: Sequence[Record], start: int, known: dict[str, int]) -> int:
        """Does what `append_record` does for all records from `start` on; where it stopped.

        It stops at one that is no node, is known or needs care. `known` are the indexes by id.
        One loop without calls of methods, since a file may have a million of them.
        """
        ids, messages, parents = self._ids, self._messages, self._parents
        first_child, last_child = self._first_child, self._last_child
        next_sibling = self._next_sibling
        none, size, new_hasher = NO_NODE, ID_BYTES, new_hasher_maker()
        name, own, index = "", b"", none
        for place in range(start, len(records)):
            record = records[place]
            if type(record) is not NodeRecord or record.twin or record.id in known:
                return place
            if record.parent == name:  # most follow the one before
                above, parent = own, index
            elif record.parent is None:
                return place
            else:
                parent = known.get(record.parent, none)
                if parent == none or parent in self._siblings:
                    return place
                above = bytes(ids[parent * size : (parent + 1) * size])
            message, response, name = record.message, record.response, record.id
            hasher = new_hasher()
            hasher.update(above)
            hasher.update(encode(message) if response is None else content_of(message, response))
            own = hasher.digest()
            if own.hex() != name:
                return place
            ids += own
            index = known[name] = len(messages)
            messages.append(message)
            parents.append(parent)
            first_child.append(none)
            last_child.append(none)
            next_sibling.append(none)
            before = last_child[parent]
            if before == none:
                first_child[parent] = index
            else:
                next_sibling[before] = index
            last_child[parent] = index
            if response is not None:
                self._responses[index] = response
        return len(records)

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
                    self._responses[copy] = response.unpaid()
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

    # Reading.

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

    # What is put on nodes.

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

    # Ids and files.

    def id(self, index: int) -> bytes:
        """The id of a node. O(1) if it was asked for before, else O(nodes before it)."""
        end = (index + 1) * ID_BYTES
        if len(self._ids) < end:
            self.name_all(index + 1)
        return bytes(self._ids[end - ID_BYTES : end])

    def name_all(self, end: int | None = None) -> None:
        """Gives the nodes below `end`, or all, their ids. O(those that have none)."""
        with self.lock:
            ids, parents, first_child = self._ids, self._parents, self._first_child
            siblings = self._siblings
            end = len(self._messages) if end is None else end
            for index in range(len(ids) // ID_BYTES, end):
                parent = parents[index]
                above = ids[parent * ID_BYTES : (parent + 1) * ID_BYTES]  # of NO_NODE: none
                content = content_of(self._messages[index], self._responses.get(index))
                own = id_of(above, content)
                is_eldest = parent == NO_NODE or first_child[parent] == index
                if not is_eldest or parent in siblings:
                    own = self._told_apart(index, above, content)
                ids += own

    def _told_apart(self, index: int, above: bytearray, content: bytes) -> bytes:
        """The id of a node with older siblings, of which some may hold the same."""
        siblings = self._known_siblings(self._parents[index])
        first = own = id_of(above, content)
        twin = self._next_twins.get(first, 0)
        while own in siblings:
            own = id_of(above, content, twin)
            twin += 1
        siblings.add(own)
        if own != first:
            self._twins[index] = twin - 1
            self._next_twins[first] = twin
        return own

    def _known_siblings(self, parent: int) -> set[bytes]:
        """The ids that were given below a node, also those of children it has no more."""
        if parent not in self._siblings:
            end = len(self._ids) // ID_BYTES
            self._siblings[parent] = {
                bytes(self._ids[child * ID_BYTES : (child + 1) * ID_BYTES])
                for child in self.children(parent)
                if child < end
            }
        return self._siblings[parent]

    def find(self, own: bytes, near: int) -> int:
        """The index of a node in `near`'s tree, or `NO_NODE`. O(nodes added since the last)."""
        with self.lock:
            self.name_all()
            for index in range(len(self._by_id), len(self._messages)):
                self._by_id[self.id(index)] = index
            index = self._by_id.get(own, NO_NODE)
            if index == NO_NODE or not self._origins:
                return index
            return index if self.root(index) == self.root(near) else NO_NODE

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
