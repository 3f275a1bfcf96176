"""The journal of a tree: a file that grows with it, also when several processes write to it."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from itertools import chain

from minillmlib.errors import StorageError
from minillmlib.files import FileJournal, FilePath
from minillmlib.tree.records import (
    HEADER,
    BreakpointRecord,
    DetachRecord,
    KwargsRecord,
    NotesRecord,
    Record,
    encode_line,
)
from minillmlib.tree.tree import NO_NODE, Tree
from minillmlib.tree.tree_file import BLOCK_BYTES, TreeReader, as_storage_error, on_deep_stack


def attach_journal(tree: Tree, root: int, path: FilePath) -> None:
    """Merge a tree and a file, and append every later change of the tree to the file.

    Both stay as they were if that fails.
    """
    journal = tree.journal(root)
    with as_storage_error("used as a journal", path):
        if journal is None or not journal.keeps(root, path):
            journal = Journal(FileJournal(path), root)
        journal.attach(tree)


class Journal:
    """Keeps what changes in the tree of one root.

    Knows what it has not written yet, so that the next change writes it, whatever the reason was:
    a full disk, a signal, or a file that was moved away.
    """

    def __init__(self, file: FileJournal, root: int) -> None:
        self._file = file
        self._root = root
        self._end = 0  # the nodes before this index are in the file
        self._changes: list[tuple[type[Record], int]] = []

    def keeps(self, root: int, path: FilePath) -> bool:
        """Whether this is the journal of that tree, in that file."""
        return root == self._root and self._file.is_at(path)

    def attach(self, tree: Tree) -> None:
        """Merge the tree with the file, and become its journal."""
        on_deep_stack(lambda: tree.attach(lambda: self._merge(tree)))

    def _merge(self, tree: Tree) -> None:
        merged = tree.copy()
        with self._file.lock():
            self._write_missing(merged, self._read(merged))
        self._end = len(merged.store)
        self._changes.clear()
        tree.adopt(merged, self._root, self)

    def note_change(self, kind: type[Record], index: int) -> None:
        """Note that a node will change as this kind of record tells."""
        self._changes.append((kind, index))

    def write(self, tree: Tree) -> None:
        """Write what the file lacks. Raises `StorageError`; the next call then writes it all."""
        end, changes = len(tree.store), len(self._changes)
        if end == self._end and not changes:
            return
        try:
            with self._file.lock() as is_same_file:
                if is_same_file:
                    self._file.append([encode_line(*self._missing_records(tree))])
                else:
                    self._write_anew(tree)
        except OSError as error:
            raise StorageError(
                f"{self._file.name!r} cannot be written ({error.strerror or error}); what is new "
                "is in memory only, and the next change writes it, too: make room, or attach "
                "another file"
            ) from None
        self._end = end
        del self._changes[:changes]

    def _write_anew(self, tree: Tree) -> None:
        """Write to a file that is in the place of the former one. Leave the tree as it is."""
        try:
            # The thread that it may take does not get the lock of the tree.
            reading = on_deep_stack(lambda: self._read(Tree()))
            self._write_missing(tree, reading)
        except StorageError as error:
            raise StorageError(
                f"the journal {self._file.name!r} was replaced by another file, which stays as it "
                f"is ({error}); what is new is in memory only: attach another file, or move that "
                "one away"
            ) from None

    def _missing_records(self, tree: Tree) -> Iterator[bytes | Record]:
        ids, store = tree.ids, tree.store
        # A part that was detached since the last write belongs to the file until it has that.
        roots = {self._root, *(index for kind, index in self._changes if kind is DetachRecord)}
        unwritten: set[int] = set()  # what left such a part before it was written
        for index in range(self._end, len(store)):
            if ids.former_parents and store.root(index) not in roots:
                unwritten.add(index)
                continue
            parent = store.parents[index]
            parent_id = b"" if parent == NO_NODE else ids.hex(parent).encode()
            yield ids.encode_node(index, ids.hex(index).encode(), parent_id)
        for kind, index in self._changes:
            if kind is DetachRecord:
                yield DetachRecord(node=ids.hex(index))
            elif index not in unwritten:
                yield _value_record(tree, kind, index)

    def _read(self, tree: Tree) -> TreeReader:
        """Add what the file has to a tree."""
        reader = TreeReader(tree)
        with self._file.open_to_read() as file:
            start = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)
            start += file.readline(len(HEADER)) + file.readline(BLOCK_BYTES)
            # It is new, or a crash left it without its header or without a whole node.
            is_cut = len(start) < BLOCK_BYTES and not start.endswith(b"\n")
            is_empty = (is_cut and start.startswith(HEADER)) or HEADER.startswith(start)
            if not is_empty:
                file.seek(0)
                reader.read(file, self._file.name)
        return reader

    def _write_missing(self, tree: Tree, reader: TreeReader) -> None:
        """Append what the file, which was read, lacks of `tree`."""
        existing = reader.file_ids()
        lines = self._lines(tree, reader, existing)
        if not existing:
            self._file.cut(0)
            lines = chain([HEADER], lines)
        elif reader.tree is not tree and reader.tree.ids.hex(0) != tree.ids.hex(self._root):
            raise StorageError("it is of another conversation")
        self._file.append(lines)

    def _lines(self, tree: Tree, reader: TreeReader, existing: AbstractSet[str]) -> Iterator[bytes]:
        gone = (tree.ids.hex(index) for index in tree.ids.former_parents if index != self._root)
        detached = (encode_line(DetachRecord(node=one)) for one in gone if one in existing)
        for line in chain(detached, tree.lines(self._root, existing)):
            if line not in reader.change_lines:
                yield line
        for kind, index in self._changes:  # values that were removed are in no line of the tree
            if kind is not DetachRecord and tree.store.root(index) == self._root:
                yield encode_line(_value_record(tree, kind, index))


def _value_record(tree: Tree, kind: type[Record], index: int) -> Record:
    node = tree.ids.hex(index)
    if kind is BreakpointRecord:
        return BreakpointRecord(node=node, ttl=tree.breakpoint(index))
    if kind is NotesRecord:
        return NotesRecord(node=node, values=tree.notes(index))
    return KwargsRecord(node=node, values=tree.own_format_kwargs(index))
