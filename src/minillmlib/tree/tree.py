"""A tree in memory: its nodes in columns, their ids, and the values set on them."""

from __future__ import annotations

import threading
from array import array
from binascii import hexlify
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, filterfalse, repeat

from msgspec.structs import replace

from minillmlib.client.prefix_cache import EncodedPrefixCache
from minillmlib.errors import InvalidParameterError
from minillmlib.files import FileJournal
from minillmlib.tree.records import (
    ID_BYTES,
    BreakpointRecord,
    DetachRecord,
    FormatValue,
    KwargsRecord,
    NodeRecord,
    Record,
    derive_id,
    encode,
    encode_line,
    new_hasher,
    node_content,
)
from minillmlib.types.costs import CostTotal
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

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
        index = self._store.append(parent, (message,))
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
        may have a million nodes, so `append_record` and `NodeStore.append` are inlined here.
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
        return self.get(index).hex()

    def all_hex(self) -> bytes:
        """Return the ids of all nodes, one behind the other, as hex digits."""
        self.assign_ids()
        return hexlify(self._ids)

    def encode_node(self, index: int, node_id: bytes, parent_id: bytes) -> bytes:
        """Encode a node's record by hand: a tree may have a million. The ids are hex digits."""
        content = node_content(self._store.messages[index], self._store.responses.get(index))
        if index in self.duplicates:
            content += b',"twin":%d' % self.duplicates[index]
        if not parent_id and index in self.former_parents:
            parent_id = hexlify(self.former_parents[index])
        if parent_id:
            parent_id = b'"parent":"%b",' % parent_id
        return b'{"kind":"node","id":"%b",%b"message":%b}' % (node_id, parent_id, content)

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


class Tree:
    """All nodes of one conversation and the values set on them.

    Every change is also written to the journal. If the journal fails, the change is made all the
    same, and the journal's error is raised.
    """

    __slots__ = ("_breakpoints", "_format_kwargs", "_journals", "_prefix_cache", "ids", "store")

    def __init__(self) -> None:
        self.store = NodeStore()
        self.ids = NodeIds(self.store)
        self._breakpoints: dict[int, CacheTtl | None] = {}  # override those of the messages
        self._format_kwargs: dict[int, dict[str, FormatValue]] = {}
        self._journals: dict[int, FileJournal] = {}  # by the root of the tree that they record
        self._prefix_cache = EncodedPrefixCache()

    def append(
        self, parent: int, *messages: Message, response: CompletionResponse | None = None
    ) -> int:
        """Append a chain of messages below `parent` and return the index of the last. O(1) each.

        `response` is that of the last message.
        """
        store = self.store
        with store.lock:
            first = len(store)
            last = store.append(parent, messages)
            if response is not None:
                store.responses[last] = response
            if self._journals:
                self._append_to_journal(last, *map(self._record, range(first, len(store))))
        return last

    def graft(self, parent: int, other: Tree, root: int) -> int:
        """Append a copy of a subtree of any tree below `parent`; return the index of its root."""
        source, store = other.store, self.store
        with source.lock:
            parents = {index: source.parents[index] for index in source.depth_first(root)}
        with store.lock:
            copies = {parents[root]: parent}
            for index, above in parents.items():
                copy = copies[index] = store.append(copies[above], (source.messages[index],))
                if index in source.responses:
                    store.responses[copy] = source.responses[index].without_cost()
            if self._journals:
                self._append_to_journal(parent, *(self._record(copies[index]) for index in parents))
            for index in parents:
                if index in other._format_kwargs:
                    self.set_format_kwargs(copies[index], other._format_kwargs[index])
                if index in other._breakpoints:
                    self.set_breakpoint(copies[index], other._breakpoints[index])
        return copies[root]

    def detach(self, index: int) -> None:
        """Turn a node into a root. O(siblings) after a first O(nodes) pass for the ids."""
        with self.store.lock:
            parent = self.store.parents[index]
            if parent == NO_NODE:
                return
            node_id = self.ids.hex(index)  # derived from the parent's, so while it has one
            self.ids.reserve_siblings(parent)
            try:
                self._append_to_journal(index, DetachRecord(node=node_id))
            finally:  # also if the journal fails
                self._prefix_cache = EncodedPrefixCache()  # it counts messages from the root
                self.ids.former_parents[index] = self.ids.get(parent)
                self.store.detach(index)

    def cost(self, indexes: Iterable[int]) -> CostTotal:
        """Return the sum of the costs of these nodes."""
        responses = map(self.store.responses.get, indexes)
        return sum((r.total_cost for r in responses if r is not None), CostTotal())

    @property
    def prefix_cache(self) -> EncodedPrefixCache | None:
        """The encoded messages of long conversations, or None if breakpoints change them."""
        return None if self._breakpoints else self._prefix_cache

    def thread_with_breakpoints(self, index: int) -> list[Message]:
        """Return the messages from the root to a node, with their nodes' cache breakpoints."""
        if not self._breakpoints:
            return self.store.thread(index)
        ttls, messages = self._breakpoints, self.store.messages
        thread = [
            replace(messages[node], cache_ttl=ttls[node]) if node in ttls else messages[node]
            for node in self.store.path(index)
        ]
        return thread[::-1]

    def set_breakpoint(self, index: int, ttl: CacheTtl | None) -> None:
        """Set the cache breakpoint of a node, or remove it if `ttl` is None."""
        with self.store.lock:
            if ttl == self.store.messages[index].cache_ttl:
                self._breakpoints.pop(index, None)
            else:
                self._breakpoints[index] = ttl
            if self._journals:
                record = BreakpointRecord(node=self.ids.hex(index), ttl=ttl)
                self._append_to_journal(index, record)

    def clear_breakpoints(self, root: int) -> None:
        """Remove all cache breakpoints of a node and all below it. O(nodes)."""
        with self.store.lock:
            for index in self.store.depth_first(root):
                if index in self._breakpoints or self.store.messages[index].cache_ttl:
                    self.set_breakpoint(index, None)

    def format_kwargs(self, index: int) -> dict[str, FormatValue]:
        """Return the placeholders set from the root to a node; the nearest wins. O(depth)."""
        values: dict[str, FormatValue] = {}
        if self._format_kwargs:
            for node in self.store.path(index):
                values = {**self._format_kwargs.get(node, {}), **values}
        return values

    def set_format_kwarg(self, index: int, name: str, value: FormatValue) -> None:
        with self.store.lock:
            self.set_format_kwargs(index, {**self._format_kwargs.get(index, {}), name: value})

    def set_format_kwargs(self, index: int, values: Mapping[str, FormatValue]) -> None:
        """Replace all placeholders set at a node."""
        with self.store.lock:
            self._format_kwargs[index] = dict(values)
            if self._journals:
                record = KwargsRecord(node=self.ids.hex(index), values=dict(values))
                self._append_to_journal(index, record)

    def lines(self, root: int, existing: AbstractSet[str] = frozenset()) -> Iterator[bytes]:
        """Yield a subtree as lines of a file, parents first, without the nodes `existing` there.

        Nodes that are added later are not included.
        """
        with self.store.lock:
            end, digits = len(self.store), self.ids.all_hex()
            breakpoints, format_kwargs = dict(self._breakpoints), dict(self._format_kwargs)
        size, is_inside = 2 * ID_BYTES, bytearray(end)
        for index in range(root, end):
            parent = self.store.parents[index]
            if index != root and (parent == NO_NODE or not is_inside[parent]):
                continue
            is_inside[index] = 1
            node_id = digits[index * size : (index + 1) * size]
            parent_id = b"" if parent == NO_NODE else digits[parent * size : (parent + 1) * size]
            if not existing or node_id.decode() not in existing:
                yield b"[%b]\n" % self.ids.encode_node(index, node_id, parent_id)
            if index in breakpoints:
                yield encode_line(BreakpointRecord(node=node_id.decode(), ttl=breakpoints[index]))
            if index in format_kwargs:
                yield encode_line(KwargsRecord(node=node_id.decode(), values=format_kwargs[index]))

    def _record(self, index: int) -> bytes:
        parent = self.store.parents[index]
        parent_id = b"" if parent == NO_NODE else self.ids.hex(parent).encode()
        return self.ids.encode_node(index, self.ids.hex(index).encode(), parent_id)

    def attach_journal(
        self, journal: FileJournal, root: int, existing: AbstractSet[str], lines: AbstractSet[bytes]
    ) -> None:
        """Write the tree of `root` to a journal, and every change of it from now on.

        `existing` are the ids of the nodes that the journal has, `lines` its other lines.
        """
        with self.store.lock:
            gone = (self.ids.hex(index) for index in self.ids.former_parents if index != root)
            detached = (encode_line(DetachRecord(node=one)) for one in gone if one in existing)
            all_lines = chain(detached, self.lines(root, existing))
            journal.write(b"".join(filterfalse(lines.__contains__, all_lines)))
            self._journals[root] = journal

    def _append_to_journal(self, index: int, *records: bytes | Record) -> None:
        root = self.store.root(index) if self.ids.former_parents else 0
        journal = self._journals.pop(root, None)  # a journal that fails is not used again
        if journal is not None:
            journal.write(encode_line(*records))
            self._journals[root] = journal
