"""The ids of nodes, which follow from what is said, and nodes that come with theirs."""

from __future__ import annotations

from collections.abc import Sequence

from minillmlib.errors import InvalidParameterError
from minillmlib.tree.records import (
    ID_BYTES,
    NodeRecord,
    Record,
    content_of,
    encode,
    id_of,
    new_hasher_maker,
)
from minillmlib.tree.store import NO_NODE, Columns

__all__ = ["NamedColumns"]


class NamedColumns(Columns):
    """Nodes with ids, which are made when somebody asks for them."""

    __slots__ = ("_by_id", "_ids", "_next_twins", "_origins", "_siblings", "_twins")

    def __init__(self) -> None:
        super().__init__()
        self._ids = bytearray()  # of the first nodes, as far as anybody asked
        self._siblings: dict[int, set[bytes]] = {}  # the ids below a node that has several
        self._by_id: dict[bytes, int] = {}
        self._twins: dict[int, int] = {}  # how many older siblings are a node's equals
        self._next_twins: dict[bytes, int] = {}  # the number after that, by the id of the eldest
        self._origins: dict[int, bytes] = {}  # the ids of the former parents of detached nodes

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
