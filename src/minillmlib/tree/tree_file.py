"""A tree in a file: one line for each node, and for each change of one."""

from __future__ import annotations

import io
import os
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, chain
from pathlib import Path
from typing import IO

import msgspec

from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.files import FilePath, check_regular, open_regular, sync_folder, write_whole
from minillmlib.json_value import excerpt
from minillmlib.tree.records import (
    HEADER,
    VERSION,
    DetachRecord,
    HeaderRecord,
    KwargsRecord,
    MarkRecord,
    NodeRecord,
    Record,
    line_of,
)
from minillmlib.tree.store import NO_NODE
from minillmlib.tree.tree import Tree, joined

__all__ = ["attach", "explained", "read_tree", "save_tree"]

BLOCK_BYTES = 60_000
WRONG = (ValueError, TypeError, RecursionError, MiniLLMError)

_decode_lines = msgspec.json.Decoder(list[Record]).decode_lines


def save_tree(tree: Tree, root: int, path: FilePath) -> None:
    """Writes a subtree to a file, whole or not at all. O(nodes)."""
    with explained("written", path):
        write_whole(path, joined(chain([HEADER], tree.lines(root))))


def read_tree(path: FilePath, *more: FilePath) -> Tree:
    """The tree in a file, and what diverged copies of the file have more. O(nodes)."""
    reader = TreeReader(Tree())
    for one in (path, *more):
        with explained("read", one), open_regular(one) as file:
            reader.read(file, os.fsdecode(one))
    return reader.tree


def attach(tree: Tree, root: int, path: FilePath) -> None:
    """Keeps a tree in a file from here on. What one has more than the other is added to it."""
    with explained("kept", path), tree.lock:
        journal = FileJournal(path)
        held, before = journal.read(), len(tree)
        reader = TreeReader(tree)
        if HEADER.startswith(held):  # it is new, or was cut off before it held anything
            journal.cut(0)
            journal.write(HEADER)
        else:
            reader.read(io.BytesIO(held), os.fsdecode(path))
            journal.cut(held.rfind(b"\n") + 1)
        read = (tree.id(index).hex() for index in range(before, len(tree)))
        tree.keep_in(journal, root, reader.taken.union(read), reader.told)


@contextmanager
def explained(done: str, path: FilePath) -> Iterator[None]:
    """What the system refuses, as our error."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, MiniLLMError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"{str(path)!r} cannot be {done} ({reason})") from None


class TreeReader:
    """Puts the lines of one or more files together to a tree. A node that is there is passed over.

    Every line is checked: a node's id follows from what it holds and from its parent's id, so a
    line that was changed, or whose parent is missing, is a `StorageError` that names it.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.taken: set[str] = set()  # the ids of nodes that were there and in the file
        self.told: set[bytes] = set()  # the lines about nodes in the file
        self._known = {tree.id(index).hex(): index for index in range(len(tree))}
        self._has_header = False

    def read(self, file: IO[bytes], name: str) -> None:
        """Takes in the lines of a file. A last line without its end was never finished."""
        self._has_header = False
        number = 1
        while lines := file.readlines(BLOCK_BYTES):
            cut = b"" if lines[-1].endswith(b"\n") else lines.pop()
            self._take_block(lines, name, number)
            number += len(lines)
            if cut and not self._has_header:
                raise self._wrong(name, number, "it is no tree file", cut)
            if cut:
                _warn_of_cut(name, number)
        if not self._known:
            raise StorageError(f"{name!r} holds no conversation")

    @staticmethod
    def _wrong(name: str, number: int, what: str, line: bytes) -> StorageError:
        return StorageError(
            f"{name!r}, line {number}: {excerpt(what)}; the line begins {excerpt(line, 60)!r}"
        )

    def _take_block(self, lines: list[bytes], name: str, number: int) -> None:
        """Takes in lines, of which the first has this number."""
        try:
            decoded = _decode_lines(b"".join(lines))  # all at once is faster
            if len(decoded) != len(lines):
                raise InvalidParameterError("it is not one list")
        except WRONG as error:
            if len(lines) == 1:
                raise self._wrong(name, number, str(error), lines[0]) from None
            for at, line in enumerate(lines):
                self._take_block([line], name, number + at)
            return
        records, place = list(chain.from_iterable(decoded)), 0
        try:
            while place < len(records):
                self._take(records[place])
                place = self.tree.append_plain(records, place + 1, self._known)
        except WRONG as error:
            at = bisect(list(accumulate(map(len, decoded))), place)
            raise self._wrong(name, number + at, str(error), lines[at]) from None

    def _take(self, record: Record) -> None:
        if isinstance(record, HeaderRecord):
            self._take_header(record)
        elif not self._has_header:
            raise InvalidParameterError("a tree file begins with its version")
        elif isinstance(record, NodeRecord):
            self._take_node(record)
        else:
            self._take_change(record)

    def _take_header(self, record: HeaderRecord) -> None:
        if record.version != VERSION:
            raise InvalidParameterError(
                f"it is of version {record.version}, this library reads version {VERSION}"
            )
        self._has_header = True

    def _take_node(self, record: NodeRecord) -> None:
        known, own, above = self._known, record.id, record.parent
        if own in known:
            self.taken.add(own)
            return
        parent = NO_NODE if above is None else known.get(above, NO_NODE)
        if parent == NO_NODE and known:
            if above is None:
                raise InvalidParameterError("it is of another conversation")
            raise InvalidParameterError(f"its parent {above} is not before it")
        known[own] = self.tree.append_record(parent, record)

    def _take_change(self, record: MarkRecord | KwargsRecord | DetachRecord) -> None:
        index = self._known.get(record.node)
        if index is None:
            raise InvalidParameterError(f"the node {record.node} is not before it")
        self.told.add(line_of(record))
        match record:
            case MarkRecord(ttl=ttl):
                self.tree.mark(index, ttl)
            case KwargsRecord(values=values):
                self.tree.set_kwargs(index, values)
            case DetachRecord():
                self.tree.detach(index)


def _warn_of_cut(name: str, number: int) -> None:
    import logging  # noqa: PLC0415 - a tenth of our import

    log = logging.getLogger("minillmlib")
    log.warning("%s: line %d is cut off and left out", name, number)


class FileJournal:
    """A file that a tree is appended to as it grows; all is on disk when `write` returns."""

    def __init__(self, path: FilePath) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(path, flags, 0o666)
        check_regular(self._descriptor)
        sync_folder(Path(os.path.realpath(os.fsdecode(path))).parent)

    def read(self) -> bytes:
        """What the file holds."""
        with open(self._descriptor, "rb", closefd=False) as file:
            return file.read()

    def cut(self, size: int) -> None:
        """Takes away what is behind `size`: a last line that was never finished."""
        os.ftruncate(self._descriptor, size)

    def write(self, lines: bytes) -> None:
        """Appends lines, or raises `StorageError` and takes back what of it was written."""
        size = os.fstat(self._descriptor).st_size
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # the reader leaves out a line without an end
                os.ftruncate(self._descriptor, size)
            raise StorageError(
                f"{str(self._path)!r} cannot be written ({error.strerror}); the new nodes are in "
                "memory only: make room and attach the journal again"
            ) from None

    def close(self) -> None:
        """Ends it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()
