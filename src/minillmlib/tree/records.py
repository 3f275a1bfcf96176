"""Nodes as lines of a file, and the ids derived from their content.

A line is a JSON list of records that belong together: a reader takes all of them or none.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonValue, excerpt_of
from minillmlib.tree.store import NO_NODE, NodeStore
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

try:  # hashlib loads OpenSSL, 5 % of our import; the standard `random` imports its hash like this
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

__all__ = [
    "HEADER",
    "ID_BYTES",
    "VERSION",
    "BreakpointRecord",
    "DetachRecord",
    "FormatValue",
    "HeaderRecord",
    "KwargsRecord",
    "NodeIds",
    "NodeRecord",
    "Record",
    "encode",
    "encode_line",
    "encode_lossy",
    "plain_value",
]

VERSION = 1
ID_BYTES = 16

FormatValue: TypeAlias = str | int | float | bool | None


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class HeaderRecord(_Record, frozen=True, tag="minillmlib tree", tag_field="kind"):
    """The first record of a file. Concatenated files have one each."""

    version: int


class NodeRecord(_Record, frozen=True, tag="node", tag_field="kind"):
    """One node. The first of a file may name a parent elsewhere, which it was detached from."""

    id: str
    message: Message
    parent: str | None = None
    response: CompletionResponse | None = None
    duplicate_index: int = msgspec.field(default=0, name="twin")  # number of equal older siblings


class BreakpointRecord(_Record, frozen=True, tag="mark", tag_field="kind"):
    """The cache breakpoint of a node; without a ttl it has none any more."""

    node: str
    ttl: CacheTtl | None = None


class KwargsRecord(_Record, frozen=True, tag="kwargs", tag_field="kind"):
    """All placeholders that a node gives values to."""

    node: str
    values: dict[str, FormatValue]


class DetachRecord(_Record, frozen=True, tag="detached", tag_field="kind"):
    """A node that left this tree, with everything below it."""

    node: str


Record: TypeAlias = HeaderRecord | NodeRecord | BreakpointRecord | KwargsRecord | DetachRecord

encode = msgspec.json.Encoder().encode
_new_hasher = blake2b(digest_size=ID_BYTES).copy  # faster than a call of blake2b


def plain_value(name: str, value: object) -> FormatValue:
    """Return the value of a placeholder as a file would give it back.

    Raises `InvalidParameterError` for a value that JSON cannot carry.
    """
    plain: object = value
    if isinstance(value, str):
        plain = str.__str__(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        plain = int(value) if isinstance(value, int) else float(value)
    try:
        if isinstance(plain, FormatValue) and msgspec.json.decode(encode(plain)) == plain:
            return plain
    except ValueError:
        pass  # a lone surrogate, or a number of too many digits
    raise InvalidParameterError(
        f"the value of {{{name}}} is a text or a number that JSON can carry, "
        f"not {excerpt_of(value, 60)}"
    )


def node_content(message: Message, response: CompletionResponse | None) -> bytes:
    """Return a node's message and, if a model wrote it, its response, as JSON members."""
    try:
        content = encode(message)
    except (TypeError, ValueError, RecursionError):
        content = encode_lossy(message)
    return content if response is None else content + b',"response":' + encode_lossy(response)


def encode_lossy(value: msgspec.Struct) -> bytes:
    """Encode a value as JSON, with U+FFFD for lone surrogates, which JSON cannot carry."""
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(_replace_surrogates(msgspec.to_builtins(value)))
    except (TypeError, ValueError, RecursionError) as error:
        what = type(value).__name__.strip("_")
        raise InvalidParameterError(f"a {what} cannot be written as JSON ({error})") from None


def _replace_surrogates(value: JsonValue) -> JsonValue:
    """Replace lone surrogates by U+FFFD. Recurses no deeper than a server's JSON can be."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_replace_surrogates(name): _replace_surrogates(v) for name, v in value.items()}
    return list(map(_replace_surrogates, value)) if isinstance(value, list | tuple) else value


def _derive_id(parent_id: bytes | bytearray, content: bytes, duplicate_index: int = 0) -> bytes:
    """Derive a node's id from its parent's id, its content and the number of equal siblings."""
    hasher = _new_hasher()
    hasher.update(parent_id)
    hasher.update(content)
    if duplicate_index:
        hasher.update(b"#%d" % duplicate_index)
    return hasher.digest()


def encode_line(*records: bytes | Record) -> bytes:
    """Encode records as one line."""
    parts = (record if isinstance(record, bytes) else encode(record) for record in records)
    return b"[%b]\n" % b",".join(parts)


HEADER = encode_line(HeaderRecord(version=VERSION))


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
        node_id = _derive_id(parent_id, node_content(message, response), duplicate_index)
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
        none, size, make_hasher = NO_NODE, ID_BYTES, _new_hasher
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
                node_id = _derive_id(parent_id, content)
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
            node_id = _derive_id(parent_id, content, duplicate_index)
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
