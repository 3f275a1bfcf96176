"""A tree: nodes, their ids, breakpoints and placeholders, and the journals that record changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import chain, filterfalse

from msgspec.structs import replace

from minillmlib.client.prefix_cache import EncodedPrefixCache
from minillmlib.files import FileJournal
from minillmlib.tree.records import (
    ID_BYTES,
    BreakpointRecord,
    DetachRecord,
    FormatValue,
    KwargsRecord,
    NodeIds,
    Record,
    encode_line,
)
from minillmlib.tree.store import NO_NODE, NodeStore
from minillmlib.types.costs import CostTotal
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

__all__ = ["Tree"]


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
            rows = [
                (index, source.parents[index], source.messages[index], source.responses.get(index))
                for index in source.depth_first(root)
            ]
        with store.lock:
            copies = {rows[0][1]: parent}
            for index, parent_index, message, response in rows:
                copy = copies[index] = store.append(copies[parent_index], (message,))
                if response is not None:
                    store.responses[copy] = response.without_cost()
            if self._journals:
                self._append_to_journal(parent, *(self._record(copies[row[0]]) for row in rows))
            for index, *_ in rows:
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
        """Set the value of one placeholder at a node."""
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
            journal.write_all(filterfalse(lines.__contains__, all_lines))
            self._journals[root] = journal

    def _append_to_journal(self, index: int, *records: bytes | Record) -> None:
        root = self.store.root(index) if self.ids.former_parents else 0
        journal = self._journals.pop(root, None)  # a journal that fails is not used again
        if journal is not None:
            journal.write(encode_line(*records))
            self._journals[root] = journal
