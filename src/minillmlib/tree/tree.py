"""A tree in memory: its nodes in columns, their ids, and the values set on them."""

from __future__ import annotations

import sys
from array import array
from binascii import hexlify
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from threading import RLock
from types import FrameType, MappingProxyType
from typing import NamedTuple, Never, Protocol, Self

from msgspec.structs import replace

from minillmlib import locks
from minillmlib.client.prefix_cache import EncodedPrefixCache
from minillmlib.errors import InvalidParameterError
from minillmlib.files import FilePath
from minillmlib.locks import fork_safe_lock
from minillmlib.tree.records import (
    ID_BYTES,
    BreakpointRecord,
    DetachRecord,
    FormatValue,
    KwargsRecord,
    NodeRecord,
    NotesRecord,
    Record,
    derive_id,
    encode,
    encode_line,
    new_hasher,
    node_content,
)
from minillmlib.types.costs import CostTotal, TokenPrice
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

NO_NODE = -1
_PARENT_OF_ROOT = array("i", [NO_NODE])

_renewing = fork_safe_lock()


class NodeValues(NamedTuple):
    """The values set on nodes, by index. The inner dictionaries are replaced, never changed."""

    breakpoints: dict[int, CacheTtl | None]  # override those of the messages
    format_kwargs: dict[int, dict[str, FormatValue]]
    notes: dict[int, dict[str, FormatValue]]

    def copy(self) -> NodeValues:
        return NodeValues(dict(self.breakpoints), dict(self.format_kwargs), dict(self.notes))


_NOTHING: Mapping[int, Never] = MappingProxyType({})
NO_VALUES = NodeValues(_NOTHING, _NOTHING, _NOTHING)  # type: ignore[arg-type] # until one is set


class ChildLinks:
    """The children of the first `end` nodes, as links from one node to the next."""

    __slots__ = ("end", "first_child", "last_child", "next_sibling")

    def __init__(self) -> None:
        self.end = 0  # -1 while nodes are added, and for ever if a signal ended that
        self.first_child = array("i")
        self.last_child = array("i")
        self.next_sibling = array("i")

    def extend(self, parents: Sequence[int], end: int) -> None:
        """Add the nodes up to `end`. O(nodes added)."""
        start = self.end
        if start < 0:
            return
        self.end = -1
        first_child, last_child, next_sibling = self.first_child, self.last_child, self.next_sibling
        for child in range(start, end):
            first_child.append(NO_NODE)
            last_child.append(NO_NODE)
            next_sibling.append(NO_NODE)
            parent = parents[child]
            if parent == NO_NODE:
                continue
            before = last_child[parent]
            if before == NO_NODE:
                first_child[parent] = child
            else:
                next_sibling[before] = child
            last_child[parent] = child
        self.end = end

    def remove(self, index: int, parent: int) -> None:
        """Remove a node from the children of its parent. O(siblings). May be repeated."""
        before, child = NO_NODE, self.first_child[parent]
        while child not in (index, NO_NODE):
            before, child = child, self.next_sibling[child]
        if child == NO_NODE:  # a signal came before the end
            self.last_child[parent] = before
            return
        following = self.next_sibling[index]
        if before == NO_NODE:
            self.first_child[parent] = following
        else:
            self.next_sibling[before] = following
        if following == NO_NODE:
            self.last_child[parent] = before


class IdColumns:
    """The ids of the nodes of a store, as far as they were needed, and what they depend on."""

    __slots__ = (
        "by_id", "duplicates", "former_parents", "ids", "last_duplicates", "siblings",
    )  # fmt: skip

    def __init__(self) -> None:
        self.ids = bytearray()  # of the first nodes
        # the ids below a node that has several children, and whose they are
        self.siblings: dict[int, dict[bytes, int]] = {}
        self.by_id: dict[bytes, int] = {}
        self.duplicates: dict[int, int] = {}  # `duplicate_index` of nodes with equal older siblings
        self.last_duplicates: dict[bytes, int] = {}  # the highest of them, by the eldest's id
        self.former_parents: dict[int, bytes] = {}  # ids of the former parents of detached nodes

    def copy(self, end: int) -> Self:
        """Return a copy for a copy of the store, which has so many nodes."""
        copy = type(self)()
        copy.ids = self.ids[: end * ID_BYTES]
        copy.siblings = {parent: dict(ids) for parent, ids in self.siblings.items()}
        copy.by_id, copy.duplicates = dict(self.by_id), dict(self.duplicates)
        copy.last_duplicates = dict(self.last_duplicates)
        copy.former_parents = dict(self.former_parents)
        return copy


class NodeStore:
    """All nodes of one conversation, by index; a parent's index is below its children's.

    A detached subtree stays in these columns, with its root. Nothing here points to a handle, so
    the last handle frees everything. Writers hold `lock`; rows never change, except that a detached
    node loses its parent, so readers need no lock. Most stores hold a question and its answer, and
    there may be a million: what those do not need is made when it is first asked for.
    """

    __slots__ = (
        "_detach_count", "_fork_count", "_ids", "_links", "_lock", "end", "messages", "parents",
        "responses", "values",
    )  # fmt: skip

    def __init__(self, thread: Sequence[Message] = ()) -> None:
        self.end = len(thread)  # nodes from here on belong to an append that was interrupted
        self.messages = list(thread)
        self.parents = _PARENT_OF_ROOT[: self.end]
        if self.end > 1:
            self.parents.extend(range(self.end - 1))
        self.responses: list[CompletionResponse | None] = []  # up to the last one
        self.values = NO_VALUES
        self._links: ChildLinks | None = None
        self._detach_count = 0
        self._ids: IdColumns | None = None
        self._lock = RLock()
        self._fork_count = locks.fork_count

    def __len__(self) -> int:
        return self.end

    @property
    def lock(self) -> RLock:
        """The lock of writers. It is not a `fork_safe_lock`, whose registration costs more."""
        if self._fork_count != locks.fork_count:
            with _renewing:
                if self._fork_count != locks.fork_count:
                    self._lock = RLock()  # free: who may have held it is not in this process
                    self._fork_count = locks.fork_count
        return self._lock

    def share_lock(self, other: NodeStore) -> None:
        """Take over the lock of the store that this one replaces."""
        self._lock, self._fork_count = other.lock, locks.fork_count

    def copy(self) -> Self:
        """Return a copy with a lock of its own."""
        copy, end = type(self)(), self.end
        copy.messages, copy.parents = self.messages[:end], self.parents[:end]
        copy.responses, copy.end = self.responses[:end], end
        copy.values = self.values.copy()
        copy._ids = self._ids and self._ids.copy(end)  # noqa: SLF001 - own
        return copy

    @property
    def id_columns(self) -> IdColumns:
        columns = self._ids
        if columns is None:
            columns = IdColumns()
            self._ids = self._ids or columns  # another thread or a signal handler may have made it
        return self._ids or columns

    @property
    def own_values(self) -> NodeValues:
        """The values, to be changed by the holder of the lock."""
        if self.values is NO_VALUES:
            self.values = self.values.copy()
        return self.values

    def append(
        self, parent: int, messages: Sequence[Message], response: CompletionResponse | None = None
    ) -> int:
        """Append a chain of messages below `parent` and return the index of the last. O(1) each.

        `response` is that of the last message. `NodeIds.append_plain` inlines this.

        A signal can interrupt this at any line. The messages come first, so that the next append
        sees it, then the other columns, then the end that makes the nodes visible.
        """
        first = self.end
        if first != len(self.messages):
            self._remove_from(first)
        self.messages.extend(messages)
        last = first + len(messages) - 1
        self.parents.append(parent)
        if last > first:
            self.parents.extend(range(first, last))
        if response is not None:
            self.responses.extend([None] * (last - len(self.responses)) + [response])
        self.publish(last + 1)
        return last

    def publish(self, end: int) -> None:
        """Make the nodes up to `end` visible: all columns have them."""
        self.end = end
        links = self._links
        if links is not None:
            links.extend(self.parents, end)

    def _remove_from(self, end: int) -> None:
        """Remove the nodes from `end` on, of an append that was interrupted."""
        del self.responses[end:], self.parents[end:]
        del self.messages[end:]  # last, as long as there is more to remove

    def response(self, index: int) -> CompletionResponse | None:
        """Return the response behind a node, if a model wrote it."""
        return self.responses[index] if index < len(self.responses) else None

    def detach(self, index: int, parent: int) -> None:
        """Turn a child of `parent` into a root. O(siblings). May be repeated after a signal."""
        self.parents[index] = NO_NODE
        self._detach_count += 1
        links = self._links
        if links is not None and index < links.end:
            links.remove(index, parent)

    def links(self) -> ChildLinks:
        """Return the links to the children of all nodes. O(nodes) the first time.

        From then on each append extends them. If one has not done so yet, or a signal ended it,
        its links are left alone and new ones are made, without the lock of writers; they stay,
        unless a node was detached meanwhile.
        """
        links = self._links
        if links is None or links.end < self.end:
            links, detach_count = ChildLinks(), self._detach_count
            while links.end < self.end:
                links.extend(self.parents, self.end)
            self._links = links if self._detach_count == detach_count else None
        return links

    def children(self, index: int) -> Iterator[int]:
        """Yield the children, oldest first."""
        links = self.links()
        child = links.first_child[index]
        while child != NO_NODE:
            yield child
            child = links.next_sibling[child]

    def is_leaf(self, index: int) -> bool:
        return self.links().first_child[index] == NO_NODE

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

    __slots__ = ("_columns", "_store")

    def __init__(self, store: NodeStore) -> None:
        self._store = store
        self._columns = store.id_columns

    @property
    def former_parents(self) -> dict[int, bytes]:
        """The ids of the former parents of detached nodes."""
        return self._columns.former_parents

    def append_record(self, parent: int, record: NodeRecord) -> int:
        """Append a node of a file and return its index. All nodes of the store must have ids.

        Raises `InvalidParameterError` if the record's id does not match its content.
        """
        message, response, duplicate_index = record.message, record.response, record.duplicate_index
        parent_id = b"" if record.parent is None else bytes.fromhex(record.parent)
        node_id = derive_id(parent_id, node_content(message, response), duplicate_index)
        if node_id.hex() != record.id:
            raise InvalidParameterError("it was changed after it was written, or is damaged")
        index = self._store.append(parent, (message,), response)
        columns = self._columns
        columns.ids += node_id
        if duplicate_index:
            columns.duplicates[index] = duplicate_index
        if parent == NO_NODE and parent_id:
            columns.former_parents[index] = parent_id
        if parent in columns.siblings:
            columns.siblings[parent][node_id] = index
        return index

    def append_plain(self, records: Sequence[Record], start: int, known: dict[str, int]) -> int:
        """Append records from `start` on and return the place of the first one it cannot take.

        That is one which is no node, is `known` (indexes by id), or needs `append_record`. A file
        may have a million nodes, so `append_record` and `NodeStore.append` are inlined here.
        """
        store = self._store
        try:
            return self._append_plain(records, start, known)
        finally:
            store.publish(len(store.parents))

    def _append_plain(self, records: Sequence[Record], start: int, known: dict[str, int]) -> int:
        messages, parents, responses = (
            self._store.messages, self._store.parents, self._store.responses,
        )  # fmt: skip
        ids, siblings = self._columns.ids, self._columns.siblings
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
                if parent == none or parent in siblings:
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
            if response is not None:
                responses.extend([None] * (index - len(responses)) + [response])
        return len(records)

    def get(self, index: int) -> bytes:
        """Return the id of a node. O(1) if it is assigned, else O(nodes before it)."""
        end, ids = (index + 1) * ID_BYTES, self._columns.ids
        if len(ids) < end:
            self.assign_ids(index + 1)
        return bytes(ids[end - ID_BYTES : end])

    def hex(self, index: int) -> str:
        return self.get(index).hex()

    def all_hex(self) -> bytes:
        """Return the ids of all nodes, one behind the other, as hex digits."""
        self.assign_ids()
        return hexlify(self._columns.ids)

    def encode_node(self, index: int, node_id: bytes, parent_id: bytes) -> bytes:
        """Encode a node's record by hand: a tree may have a million. The ids are hex digits."""
        content = node_content(self._store.messages[index], self._store.response(index))
        columns = self._columns
        if index in columns.duplicates:
            content += b',"twin":%d' % columns.duplicates[index]
        if not parent_id and index in columns.former_parents:
            parent_id = hexlify(columns.former_parents[index])
        if parent_id:
            parent_id = b'"parent":"%b",' % parent_id
        return b'{"kind":"node","id":"%b",%b"message":%b}' % (node_id, parent_id, content)

    def assign_ids(self, end: int | None = None) -> None:
        """Derive the ids of the nodes below `end`, or of all. O(nodes without ids)."""
        store, ids, siblings = self._store, self._columns.ids, self._columns.siblings
        with store.lock:
            end = len(store) if end is None else end
            for index in range(len(ids) // ID_BYTES, end):
                parent = store.parents[index]
                parent_id = ids[parent * ID_BYTES : (parent + 1) * ID_BYTES]  # of NO_NODE: none
                content = node_content(store.messages[index], store.response(index))
                node_id = derive_id(parent_id, content)
                is_eldest = (
                    parent in (NO_NODE, index - 1) or store.links().first_child[parent] == index
                )
                if not is_eldest or parent in siblings:
                    node_id = self._disambiguate(index, node_id, parent_id, content)
                # Not appended: a signal handler may have saved the tree, and with that assigned it.
                ids[index * ID_BYTES : (index + 1) * ID_BYTES] = node_id

    def _disambiguate(
        self, index: int, first: bytes, parent_id: bytearray, content: bytes
    ) -> bytes:
        """Return the id of a node with older siblings, some of which may have the same content."""
        # A signal can interrupt this; the next call finds its own entry and takes it again.
        siblings, columns = self.reserve_siblings(self._store.parents[index]), self._columns
        node_id, duplicate_index = first, columns.last_duplicates.get(first, 0)
        while siblings.get(node_id, index) != index:
            node_id = derive_id(parent_id, content, duplicate_index)
            duplicate_index += 1
        siblings[node_id] = index
        if node_id != first:
            columns.duplicates[index] = columns.last_duplicates[first] = duplicate_index - 1
        return node_id

    def reserve_siblings(self, parent: int) -> dict[bytes, int]:
        """Return the ids assigned below a node; they stay taken when their nodes are detached."""
        siblings = self._columns.siblings
        if parent not in siblings:
            end = len(self._columns.ids) // ID_BYTES
            children = (child for child in self._store.children(parent) if child < end)
            siblings[parent] = {self.get(child): child for child in children}
        return siblings[parent]

    def find(self, node_id: bytes, near: int) -> int:
        """Return the node with this id in `near`'s tree, or `NO_NODE`. O(nodes added since)."""
        with self._store.lock:
            self.assign_ids()
            by_id = self._columns.by_id
            for index in range(len(by_id), len(self._store)):
                by_id[self.get(index)] = index
            index = by_id.get(node_id, NO_NODE)
            if index == NO_NODE or not self.former_parents:
                return index
            return index if self._store.root(index) == self._store.root(near) else NO_NODE


class TreeJournal(Protocol):
    """A file that keeps what changes in a tree."""

    def write(self, tree: Tree) -> None:
        """Write what the file lacks. Raises `StorageError`; the next call then writes it all."""

    def note_change(self, kind: type[Record], index: int) -> None:
        """Note that a node will change as this kind of record tells."""

    def keeps(self, root: int, path: FilePath) -> bool:
        """Whether this is the journal of that tree, in that file."""

    def attach(self, tree: Tree) -> None:
        """Merge the tree with the file."""


NO_JOURNALS: Mapping[int, TreeJournal] = MappingProxyType({})


class Tree:
    """All nodes of one conversation and the values set on them.

    Every change is also written to the journal. If the journal fails, the change is made all the
    same, and the journal's error is raised; the next change writes what is missing.
    """

    __slots__ = ("_detaching", "_journals", "_prefix_cache", "store")

    def __init__(self, thread: Sequence[Message] = ()) -> None:
        self.store = NodeStore(thread)  # replaced by one to which a file was added
        self._journals = (
            NO_JOURNALS  # replaced, never changed; by the root of the tree that they record
        )
        self._prefix_cache: EncodedPrefixCache | None = None
        self._detaching: tuple[int, int] | None = None  # a node and its parent, until all is done

    @property
    def ids(self) -> NodeIds:
        return NodeIds(self.store)

    def copy(self) -> Tree:
        """Return a copy without journals, to which a file can be added. O(nodes)."""
        copy = Tree()
        copy.store = self.store.copy()
        return copy

    def adopt(self, other: Tree, root: int, journal: TreeJournal) -> None:
        """Take over the nodes of a copy that was added to, and record changes of `root`'s tree."""
        other.store.share_lock(self.store)
        self.store = other.store
        self._prefix_cache = None
        self._journals = {**self._journals, root: journal}

    def lock_to_change(self) -> RLock:
        """Return the lock of writers. Raises `InvalidParameterError` in the middle of a change."""
        lock = self.store.lock
        if lock._is_owned() and self._is_interrupted(2):  # type: ignore[attr-defined] # noqa: SLF001 - as in `Condition`
            raise InvalidParameterError(
                "a signal handler or __del__ cannot change the tree whose change it interrupts; "
                "set a flag there, and change the tree where you read the flag"
            )
        return lock

    def _is_interrupted(self, depth: int) -> bool:
        """Whether a signal handler or `__del__`, so many calls below, interrupts a change."""
        if not self.store.lock._is_owned():  # type: ignore[attr-defined] # noqa: SLF001 - as in `Condition`
            return False
        frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - as in `inspect`
        while frame is not None and frame.f_locals.get("self") is not self:
            frame = frame.f_back
        return frame is not None

    def attach(self, merge: Callable[[], None]) -> None:
        """Call a function that merges this tree with a file, as one change."""
        with self.lock_to_change():
            self.begin_change()
            merge()

    def begin_change(self) -> NodeStore:
        """Complete what a signal interrupted, and return the store. The caller holds its lock."""
        if self._detaching is not None:
            self._complete_detach(*self._detaching)
        return self.store

    def append(
        self, parent: int, messages: Sequence[Message], response: CompletionResponse | None = None
    ) -> int:
        """Append a chain of messages below `parent` and return the index of the last. O(1) each.

        `response` is that of the last message.
        """
        with self.lock_to_change():
            last = self.begin_change().append(parent, messages, response)
            if self._journals:
                self._write_journal(last)
        return last

    def graft(self, parent: int, other: Tree, root: int) -> int:
        """Append a copy of a subtree of any tree below `parent`; return the index of its root."""
        with other.store.lock:
            source, (breakpoints, format_kwargs, notes) = other.store, other.store.values
            parents = {index: source.parents[index] for index in source.depth_first(root)}
        with self.lock_to_change():
            store = self.begin_change()
            copies = {parents[root]: parent}
            for index, above in parents.items():
                response = source.response(index)
                copy = copies[index] = store.append(
                    copies[above],
                    (source.messages[index],),
                    None if response is None else response.without_cost(),
                )
                if index in format_kwargs:
                    self._set_format_kwargs(copy, format_kwargs[index])
                if index in notes:
                    self._set_notes(copy, notes[index])
                if index in breakpoints:
                    self._set_breakpoint(copy, breakpoints[index])
            self._write_journal(parent)
        return copies[root]

    def detach(self, index: int) -> None:
        """Turn a node into a root. O(siblings) after a first O(nodes) pass for the ids."""
        with self.lock_to_change():
            parent = self.begin_change().parents[index]
            if parent == NO_NODE:
                return
            self.ids.hex(index)  # derived from the parent's, so while it has one
            self.ids.reserve_siblings(parent)
            self._detaching = (index, parent)
            self._complete_detach(index, parent)
            self._write_journal(parent)

    def _complete_detach(self, index: int, parent: int) -> None:
        self._prefix_cache = None  # it counts messages from the root
        self._note_change(DetachRecord, index, parent)
        self.ids.former_parents[index] = self.ids.get(parent)
        self.store.detach(index, parent)
        self._detaching = None

    def cost(self, indexes: Iterable[int]) -> CostTotal:
        """Return the sum of the costs of these nodes."""
        responses = map(self.store.response, indexes)
        return sum((r.total_cost for r in responses if r is not None), CostTotal())

    def reprice(self, indexes: Iterable[int], price: TokenPrice) -> CostTotal:
        """Return what these nodes would have cost at another price."""
        responses = map(self.store.response, indexes)
        return sum((r.reprice(price) for r in responses if r is not None), CostTotal())

    @property
    def prefix_cache(self) -> EncodedPrefixCache | None:
        """The encoded messages of long conversations, or None if breakpoints change them."""
        if self.store.values.breakpoints:
            return None
        if self._prefix_cache is None:  # as of most trees, whose threads are short
            self._prefix_cache = EncodedPrefixCache()
        return self._prefix_cache

    def thread_with_breakpoints(self, index: int) -> list[Message]:
        """Return the messages from the root to a node, with their nodes' cache breakpoints."""
        store, ttls = self.store, self.store.values.breakpoints
        if not ttls:
            return store.thread(index)
        messages = store.messages
        thread = [
            replace(messages[node], cache_ttl=ttls[node]) if node in ttls else messages[node]
            for node in store.path(index)
        ]
        return thread[::-1]

    def set_breakpoint(self, index: int, ttl: CacheTtl | None) -> None:
        """Set the cache breakpoint of a node, or remove it if `ttl` is None."""
        with self.lock_to_change():
            self.begin_change()
            self._set_breakpoint(index, ttl)
            self._write_journal(index)

    def clear_breakpoints(self, root: int) -> None:
        """Remove all cache breakpoints of a node and all below it. O(nodes)."""
        with self.lock_to_change():
            store = self.begin_change()
            for index in store.depth_first(root):
                if self.breakpoint(index) is not None:
                    self._set_breakpoint(index, None)
            self._write_journal(root)

    def breakpoint(self, index: int) -> CacheTtl | None:
        """Return the cache breakpoint of a node: the one set on it, else its message's."""
        return self.store.values.breakpoints.get(index, self.store.messages[index].cache_ttl)

    def _set_breakpoint(self, index: int, ttl: CacheTtl | None) -> None:
        self._note_change(BreakpointRecord, index, index)
        if ttl == self.store.messages[index].cache_ttl:
            self.store.own_values.breakpoints.pop(index, None)
        else:
            self.store.own_values.breakpoints[index] = ttl

    def own_format_kwargs(self, index: int) -> dict[str, FormatValue]:
        """Return the placeholders set at a node itself."""
        return dict(self.store.values.format_kwargs.get(index, {}))

    def format_kwargs(self, index: int) -> dict[str, FormatValue]:
        """Return the placeholders set from the root to a node; the nearest wins. O(depth)."""
        values: dict[str, FormatValue] = {}
        if self.store.values.format_kwargs:
            for node in self.store.path(index):
                values = {**self.store.values.format_kwargs.get(node, {}), **values}
        return values

    def set_format_kwarg(self, index: int, name: str, value: FormatValue) -> None:
        with self.lock_to_change():
            self.begin_change()
            self._set_format_kwargs(index, {**self.own_format_kwargs(index), name: value})
            self._write_journal(index)

    def set_format_kwargs(self, index: int, values: Mapping[str, FormatValue]) -> None:
        """Replace all placeholders set at a node."""
        with self.lock_to_change():
            self.begin_change()
            self._set_format_kwargs(index, values)
            self._write_journal(index)

    def _set_format_kwargs(self, index: int, values: Mapping[str, FormatValue]) -> None:
        self._note_change(KwargsRecord, index, index)
        self.store.own_values.format_kwargs[index] = dict(values)

    def notes(self, index: int) -> dict[str, FormatValue]:
        """Return the notes on a node."""
        return dict(self.store.values.notes.get(index, {}))

    def set_note(self, index: int, name: str, value: FormatValue) -> None:
        """Set a note on a node, or remove it if the value is None."""
        with self.lock_to_change():
            self.begin_change()
            notes = {**self.notes(index), name: value}
            if value is None:
                del notes[name]
            self._set_notes(index, notes)
            self._write_journal(index)

    def set_notes(self, index: int, values: Mapping[str, FormatValue]) -> None:
        """Replace all notes on a node."""
        with self.lock_to_change():
            self.begin_change()
            self._set_notes(index, values)
            self._write_journal(index)

    def _set_notes(self, index: int, values: Mapping[str, FormatValue]) -> None:
        self._note_change(NotesRecord, index, index)
        self.store.own_values.notes[index] = dict(values)

    def lines(self, root: int, existing: AbstractSet[str] = frozenset()) -> Iterator[bytes]:
        """Yield a subtree as lines of a file, parents first, without the nodes `existing` there.

        Nodes that are added later are not included.
        """
        is_interrupted = self._is_interrupted(1)
        with self.store.lock:
            store, ids = self.store if is_interrupted else self.begin_change(), self.ids
            end, digits = len(store), ids.all_hex()
            breakpoints, format_kwargs, notes = store.values.copy()
        size, is_inside = 2 * ID_BYTES, bytearray(end)
        for index in range(root, end):
            parent = store.parents[index]
            if index != root and (parent == NO_NODE or not is_inside[parent]):
                continue
            is_inside[index] = 1
            node_id = digits[index * size : (index + 1) * size]
            parent_id = b"" if parent == NO_NODE else digits[parent * size : (parent + 1) * size]
            if not existing or node_id.decode() not in existing:
                yield b"[%b]\n" % ids.encode_node(index, node_id, parent_id)
            if index in breakpoints:
                yield encode_line(BreakpointRecord(node=node_id.decode(), ttl=breakpoints[index]))
            if index in format_kwargs:
                yield encode_line(KwargsRecord(node=node_id.decode(), values=format_kwargs[index]))
            if index in notes:
                yield encode_line(NotesRecord(node=node_id.decode(), values=notes[index]))

    def journal(self, index: int) -> TreeJournal | None:
        """Return the journal of the tree that a node is in."""
        root = self.store.root(index) if self.ids.former_parents else 0
        return self._journals.get(root)

    def remove_journal(self, root: int) -> None:
        self._journals = {key: one for key, one in self._journals.items() if key != root}

    def _note_change(self, kind: type[Record], index: int, near: int) -> None:
        if self._journals and (journal := self.journal(near)) is not None:
            journal.note_change(kind, index)

    def _write_journal(self, index: int) -> None:
        if self._journals and (journal := self.journal(index)) is not None:
            journal.write(self)
