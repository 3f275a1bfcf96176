"""Ids derived from content, and loading nodes that already have one."""

from __future__ import annotations

from collections.abc import Sequence

from minillmlib.errors import InvalidParameterError
from minillmlib.tree.records import (
    ID_BYTES,
    NodeRecord,
    Record,
    derive_id,
    encode,
    new_hasher,
    node_content,
)
from minillmlib.tree.store import NO_NODE, NodeStore

__all__ = ["NodeIds"]


class NodeIds:
    """The ids of the nodes in a store, derived when they are first needed."""

    __slots__ = (
        "_by_id", "_ids", "_next_duplicates", "_siblings", "_store", "duplicates", "former_parents",
    )  # fmt: skip

    def __init__(self, store: NodeStore) -> None:
        self._store = store
        self._ids = bytearray()  # of the first nodes, as far as they were needed
        self._siblings: dict[int, set[bytes]] = {}  # ids below a node that has several children
        self._by_id: dict[bytes, int] = {}
        self.duplicates: dict[int, int] = {}  # `duplicate_index` of nodes with equal older siblings
        self._next_duplicates: dict[bytes, int] = {}  # the index after that, by the eldest's id
        self.former_parents: dict[int, bytes] = {}  # ids of the former parents of detached nodes

    def append_record(self, parent: int, record: NodeRecord) -> int:
        """Append a node of a file and return its index. All nodes of the store must have ids.

        Raises `InvalidParameterError` if the record's id does not match its content.
        """
        message, response, duplicate_index = record.message, record.response, record.duplicate_index
        parent_id = b"" if record.parent is None else bytes.fromhex(record.parent)
        node_id = derive_id(parent_id, node_content(message, response), duplicate_index)
        if node_id.hex() != record.id:
            raise InvalidParameterError("it was changed after it was written, or is damaged")
        index = self._store.append_one(parent, message)
        self._ids += node_id
        if response is not None:
            self._store.responses[index] = response
        if duplicate_index:
            self.duplicates[index] = duplicate_index
        if parent == NO_NODE and parent_id:
            self.former_parents[index] = parent_id
        if parent in self._siblings:
            self._siblings[parent].add(node_id)
        return index

    def append_plain(self, records: Sequence[Record], start: int, known: dict[str, int]) -> int:
        """Append records from `start` on and return the place of the first one it cannot take.

        That is one which is no node, is `known` (indexes by id), or needs `append_record`. A file
        may have a million nodes, so `append_record` and `NodeStore.append_one` are inlined here.
        """
        store, ids = self._store, self._ids
        messages, parents, first_child = store.messages, store.parents, store.first_child
        last_child, next_sibling = store.last_child, store.next_sibling
        none, size, make_hasher = NO_NODE, ID_BYTES, new_hasher
        name, node_id, index = "", b"", none
        for place in range(start, len(records)):
            record = records[place]
            if type(record) is not NodeRecord or record.duplicate_index or record.id in known:
                return place
            if record.parent == name:  # most nodes follow the one before them
                parent_id, parent = node_id, index
            elif record.parent is None:
                return place
            else:
                parent = known.get(record.parent, none)
                if parent == none or parent in self._siblings:
                    return place
                parent_id = bytes(ids[parent * size : (parent + 1) * size])
            message, response, name = record.message, record.response, record.id
            hasher = make_hasher()
            hasher.update(parent_id)
            hasher.update(encode(message) if response is None else node_content(message, response))
            node_id = hasher.digest()
            if node_id.hex() != name:
                return place
            ids += node_id
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
                store.responses[index] = response
        return len(records)

    def get(self, index: int) -> bytes:
        """Return the id of a node. O(1) if it is assigned, else O(nodes before it)."""
        end = (index + 1) * ID_BYTES
        if len(self._ids) < end:
            self.assign_ids(index + 1)
        return bytes(self._ids[end - ID_BYTES : end])

    def hex(self, index: int) -> str:
        """Return the id of a node as hex digits."""
        return self.get(index).hex()

    def all_hex(self) -> bytes:
        """Return the ids of all nodes, one behind the other, as hex digits."""
        self.assign_ids()
        return self._ids.hex().encode()

    def assign_ids(self, end: int | None = None) -> None:
        """Derive the ids of the nodes below `end`, or of all. O(nodes without ids)."""
        store, ids, siblings = self._store, self._ids, self._siblings
        with store.lock:
            parents, first_child = store.parents, store.first_child
            end = len(store) if end is None else end
            for index in range(len(ids) // ID_BYTES, end):
                parent = parents[index]
                parent_id = ids[parent * ID_BYTES : (parent + 1) * ID_BYTES]  # of NO_NODE: none
                content = node_content(store.messages[index], store.responses.get(index))
                node_id = derive_id(parent_id, content)
                is_eldest = parent == NO_NODE or first_child[parent] == index
                if not is_eldest or parent in siblings:
                    node_id = self._disambiguate(index, node_id, parent_id, content)
                ids += node_id

    def _disambiguate(
        self, index: int, first: bytes, parent_id: bytearray, content: bytes
    ) -> bytes:
        """Return the id of a node with older siblings, some of which may have the same content."""
        siblings = self.reserve_siblings(self._store.parents[index])
        node_id, duplicate_index = first, self._next_duplicates.get(first, 0)
        while node_id in siblings:
            node_id = derive_id(parent_id, content, duplicate_index)
            duplicate_index += 1
        siblings.add(node_id)
        if node_id != first:
            self.duplicates[index] = duplicate_index - 1
            self._next_duplicates[first] = duplicate_index
        return node_id

    def reserve_siblings(self, parent: int) -> set[bytes]:
        """Return the ids assigned below a node; they stay taken when their nodes are detached."""
        if parent not in self._siblings:
            end = len(self._ids) // ID_BYTES
            children = (child for child in self._store.children(parent) if child < end)
            self._siblings[parent] = set(map(self.get, children))
        return self._siblings[parent]

    def find(self, node_id: bytes, near: int) -> int:
        """Return the node with this id in `near`'s tree, or `NO_NODE`. O(nodes added since)."""
        with self._store.lock:
            self.assign_ids()
            for index in range(len(self._by_id), len(self._store)):
                self._by_id[self.get(index)] = index
            index = self._by_id.get(node_id, NO_NODE)
            if index == NO_NODE or not self.former_parents:
                return index
            return index if self._store.root(index) == self._store.root(near) else NO_NODE
