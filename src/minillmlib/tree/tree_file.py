"""A tree in a file: one line for each node, and for each change of one."""

from __future__ import annotations

import io
import os
from bisect import bisect
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import IO

import msgspec

from minillmlib.deferred_imports import logger
from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.files import FileJournal, FilePath, open_regular, write_whole
from minillmlib.json_value import excerpt
from minillmlib.tree.file_kinds import FileKind, kind_of
from minillmlib.tree.records import (
    HEADER,
    VERSION,
    BreakpointRecord,
    DetachRecord,
    HeaderRecord,
    KwargsRecord,
    NodeRecord,
    Record,
    encode_line,
)
from minillmlib.tree.tree import NO_NODE, Tree

BLOCK_BYTES = 60_000
INVALID = (ValueError, TypeError, RecursionError, MiniLLMError)

OTHER_KINDS = set(FileKind) - {FileKind.TREE}

_decode_lines = msgspec.json.Decoder(list[Record]).decode_lines


def save_tree(tree: Tree, root: int, path: FilePath) -> None:
    """Write a subtree to a file, whole or not at all. O(nodes)."""
    with as_storage_error("written", path):
        write_whole(path, chain([HEADER], tree.lines(root)))


def load_tree(path: FilePath, *more: FilePath) -> Tree:
    """Load the tree of a file, and merge into it what diverged copies of the file add. O(nodes)."""
    reader = TreeReader(Tree())
    for one in (path, *more):
        with as_storage_error("read", one), open_regular(one) as file:
            reader.read(file, os.fsdecode(one))
    return reader.tree


def attach_journal(tree: Tree, root: int, path: FilePath) -> None:
    """Merge a tree and a file, and append every later change of the tree to the file."""
    with as_storage_error("kept", path), tree.store.lock:
        journal = FileJournal(path)
        content, old_nodes = journal.read(), len(tree.store)
        reader = TreeReader(tree)
        if HEADER.startswith(
            content.removeprefix(BOM_UTF8)
        ):  # a new file, or one that a crash left without its header
            journal.truncate(0)
            journal.write(HEADER)
        else:
            reader.read(io.BytesIO(content), os.fsdecode(path))
            journal.truncate(content.rfind(b"\n") + 1)
        loaded = map(tree.ids.hex, range(old_nodes, len(tree.store)))
        tree.attach_journal(journal, root, reader.shared_ids.union(loaded), reader.change_lines)


@contextmanager
def as_storage_error(done: str, path: FilePath) -> Iterator[None]:
    """Raise errors of the system as `StorageError`: the path "cannot be `done`"."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, MiniLLMError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{str(path)!r} cannot be {done} ({reason})") from None


class TreeReader:
    """Adds the lines of one or more files to a tree, except for nodes that the tree has.

    Every line is checked: a node's id follows from its content and from its parent's id, so a
    line that was changed, or whose parent is missing, is a `StorageError` that names it.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.shared_ids: set[str] = set()  # of nodes in the tree that were read once more
        self.change_lines: set[bytes] = set()  # all lines that are no nodes
        self._known = {tree.ids.hex(index): index for index in range(len(tree.store))}
        self._has_header = False

    def read(self, file: IO[bytes], name: str) -> None:
        """Read the lines of a file. A last line without its end was never finished."""
        self._has_header = False
        number = 1
        while lines := file.readlines(BLOCK_BYTES):
            if number == 1:
                lines[0] = lines[0].removeprefix(BOM_UTF8)  # of Windows editors
            unfinished = b"" if lines[-1].endswith(b"\n") else lines.pop()
            self._read_block(lines, name, number)
            number += len(lines)
            if unfinished and not self._has_header:
                if (kind := kind_of(unfinished)) in OTHER_KINDS:
                    raise StorageError(f"{name!r}: {kind.value}")
                raise _line_error(name, number, "it is no tree file", unfinished)
            if unfinished:
                logger().warning("%s: line %d is cut off and left out", name, number)
        if not self._known:
            raise StorageError(f"{name!r} holds no conversation")

    def _read_block(self, lines: list[bytes], name: str, number: int) -> None:
        """Read lines, the first of which has this number."""
        try:
            decoded = _decode_lines(b"".join(lines))  # all at once is faster
            if len(decoded) != len(lines):
                raise InvalidParameterError("it is not one list")
        except INVALID as error:
            if not self._has_header and (kind := kind_of(b"".join(lines))) in OTHER_KINDS:
                raise StorageError(f"{name!r}: {kind.value}") from None
            if len(lines) == 1:
                raise _line_error(name, number, str(error), lines[0]) from None
            for at, line in enumerate(lines):
                self._read_block([line], name, number + at)
            return
        records, place = list(chain.from_iterable(decoded)), 0
        try:
            while place < len(records):
                self._apply(records[place])
                place = self.tree.ids.append_plain(records, place + 1, self._known)
        except INVALID as error:
            at = bisect(list(accumulate(map(len, decoded))), place)
            raise _line_error(name, number + at, str(error), lines[at]) from None

    def _apply(self, record: Record) -> None:
        if isinstance(record, HeaderRecord):
            if record.version != VERSION:
                raise InvalidParameterError(
                    f"it is of version {record.version}, this library reads version {VERSION}"
                )
            self._has_header = True
        elif not self._has_header:
            raise InvalidParameterError("a tree file begins with its version")
        elif isinstance(record, NodeRecord):
            self._add_node(record)
        else:
            self._apply_change(record)

    def _add_node(self, record: NodeRecord) -> None:
        known = self._known
        if record.id in known:
            self.shared_ids.add(record.id)
            return
        parent = NO_NODE if record.parent is None else known.get(record.parent, NO_NODE)
        if known and record.parent is None:
            raise InvalidParameterError("it is of another conversation")
        if known and parent == NO_NODE:
            raise InvalidParameterError(f"its parent {record.parent} is not before it")
        known[record.id] = self.tree.ids.append_record(parent, record)

    def _apply_change(self, record: BreakpointRecord | KwargsRecord | DetachRecord) -> None:
        index = self._known.get(record.node)
        if index is None:
            raise InvalidParameterError(f"the node {record.node} is not before it")
        self.change_lines.add(encode_line(record))
        match record:
            case BreakpointRecord(ttl=ttl):
                self.tree.set_breakpoint(index, ttl)
            case KwargsRecord(values=values):
                self.tree.set_format_kwargs(index, values)
            case DetachRecord():
                self.tree.detach(index)


def _line_error(name: str, number: int, problem: str, line: bytes) -> StorageError:
    return StorageError(
        f"{name!r}, line {number}: {excerpt(problem)}; the line begins {excerpt(line, 60)!r}"
    )
