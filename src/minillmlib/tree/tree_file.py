"""A tree in a file: one line for each node, and for each change of one."""

from __future__ import annotations

import os
import threading
from bisect import bisect
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import IO, TypeVar

import msgspec

from minillmlib.deferred_imports import logger
from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.files import FilePath, open_regular, write_whole
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
    NotesRecord,
    Record,
    ValueRecord,
    encode_line,
)
from minillmlib.tree.tree import NO_NODE, Tree

T = TypeVar("T")

BLOCK_BYTES = 60_000
PIECE_BYTES = 1_000_000
MAX_LINE_BYTES = 1_000_000_000
MAX_HOLE_BYTES = 16_000_000  # at the end of a file: a crash can leave zeros there
INVALID = (ValueError, TypeError, RecursionError, MiniLLMError)

OTHER_KINDS = set(FileKind) - {FileKind.TREE}

_decode_lines = msgspec.json.Decoder(list[Record]).decode_lines


def save_tree(tree: Tree, root: int, path: FilePath) -> None:
    """Write a subtree to a file, whole or not at all. O(nodes).

    The file that the subtree is recorded to is not replaced: it may hold what other processes
    wrote. It is merged with the tree instead.
    """
    journal = tree.journal(root)
    with as_storage_error("written", path):
        if journal is not None and journal.keeps(root, path):
            journal.attach(tree)
        else:
            write_whole(path, chain([HEADER], tree.lines(root)))


def load_tree(path: FilePath, *more: FilePath) -> Tree:
    """Load the tree of a file, and merge into it what diverged copies of the file add. O(nodes)."""
    return on_deep_stack(lambda: _load_tree(path, *more))


def _load_tree(*paths: FilePath) -> Tree:
    reader = TreeReader(Tree())
    for path in paths:
        with as_storage_error("read", path), open_regular(path) as file:
            reader.read(file, os.fsdecode(path))
    return reader.tree


def on_deep_stack(function: Callable[[], T]) -> T:
    """Call a function; if the caller left too little of the stack, call it in a thread of its own.

    So a file can be loaded at any depth of calls.
    """
    try:
        return function()
    except RecursionError:
        pass
    except StorageError as error:
        if not isinstance(error.__cause__, RecursionError):
            raise
    results: list[T] = []
    problems: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised below
            problems.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    for problem in problems:
        raise problem from None
    return results[0]


@contextmanager
def as_storage_error(done: str, path: FilePath) -> Iterator[None]:
    """Raise errors of the system as `StorageError`: the path "cannot be `done`"."""
    try:
        yield
    except (OSError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, MiniLLMError):
            raise
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        is_new = done != "read" and isinstance(error, FileNotFoundError)
        hint = "; make its folder first" if is_new else ""
        raise StorageError(f"{str(path)!r} cannot be {done} ({reason}){hint}") from None


class TreeReader:
    """Adds the lines of one or more files to a tree, except for nodes that the tree has.

    Every line is checked: a node's id follows from its content and from its parent's id, so a
    line that was changed, or whose parent is missing, is a `StorageError` that names it.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._shared_ids: set[str] = set()  # of nodes in the tree that were read once more
        self.change_lines: set[bytes] = set()  # all lines that are no nodes
        self._old_nodes = len(tree.store)
        hex_id = tree.ids.hex
        self._known = {hex_id(index): index for index in range(len(tree.store))}
        self._has_header = False

    def file_ids(self) -> set[str]:
        """Return the ids of all nodes of the files."""
        added = range(self._old_nodes, len(self.tree.store))
        return self._shared_ids.union(map(self.tree.ids.hex, added))

    def read(self, file: IO[bytes], name: str) -> None:
        """Read the lines of a file. A last line without its end was never finished."""
        self._has_header = False
        number, unfinished = 1, b""
        end = _end_of_lines(file)
        while block := _read_lines(file, end, name, number):
            if number == 1:
                block = block.removeprefix(BOM_UTF8)  # of Windows editors
            lines = block.split(b"\n")
            unfinished = lines.pop()
            if lines:
                self._read_block([line + b"\n" for line in lines], name, number)
            number += len(lines)
            if unfinished and not self._has_header:
                if (kind := kind_of(unfinished)) in OTHER_KINDS:
                    raise StorageError(f"{name!r}: {kind.value}")
                raise _line_error(name, number, "it is no tree file", unfinished)
        unfinished = unfinished or file.readline(PIECE_BYTES)
        if unfinished and not unfinished.endswith(b"\n"):  # else it was added meanwhile
            logger().warning("%r: line %d is cut off and left out", name, number)
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
                raise _line_error(name, number, str(error), lines[0]) from _cause(error)
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
            raise _line_error(name, number + at, str(error), lines[at]) from _cause(error)

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
            self._shared_ids.add(record.id)
            return
        parent = NO_NODE if record.parent is None else known.get(record.parent, NO_NODE)
        if known and record.parent is None:
            raise InvalidParameterError("it is of another conversation")
        if known and parent == NO_NODE:
            raise InvalidParameterError(f"its parent {record.parent} is not before it")
        known[record.id] = self.tree.ids.append_record(parent, record)

    def _apply_change(self, record: ValueRecord | DetachRecord) -> None:
        index = self._known.get(record.node)
        if index is None:
            raise InvalidParameterError(f"the node {record.node} is not before it")
        self.change_lines.add(encode_line(record))
        match record:
            case BreakpointRecord(ttl=ttl):
                self.tree.set_breakpoint(index, ttl)
            case KwargsRecord(values=values):
                self.tree.set_format_kwargs(index, values)
            case NotesRecord(values=values):
                self.tree.set_notes(index, values)
            case DetachRecord():
                self.tree.detach(index)


def _end_of_lines(file: IO[bytes]) -> int:
    """Return where the last whole line of a file ends, or the file if no line near its end does.

    What is before never changes again, while another process may be replacing what a killed one
    left unfinished behind it. Leaves the file at its beginning.
    """
    start = size = file.seek(0, os.SEEK_END)
    newline = -1
    while newline < 0 < start and size - start < MAX_HOLE_BYTES:
        end, start = start, max(0, start - BLOCK_BYTES)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
    file.seek(0)
    return size if newline < 0 else start + newline + 1


def _read_lines(file: IO[bytes], end: int, name: str, number: int) -> bytes:
    """Read some lines, the first of which has this number; only the last of a file may be cut."""
    block, size, has_hole = bytearray(), 0, False
    piece = file.read(min(BLOCK_BYTES, end - file.tell()))
    while piece:
        if not has_hole:
            block += piece
        elif piece.endswith(b"\n"):
            block += b"\n"
        has_hole = has_hole or b"\0" in piece  # no JSON has a zero, but a sparse file has many
        size += len(piece)
        if piece.endswith(b"\n"):
            break
        if size > (MAX_HOLE_BYTES if has_hole else MAX_LINE_BYTES):
            start = block.rfind(b"\n") + 1
            problem = "it has zero bytes" if has_hole else f"it exceeds {MAX_LINE_BYTES:,} bytes"
            number += block.count(b"\n")
            raise _line_error(name, number, problem, bytes(block[start : start + 100]))
        piece = file.readline(min(PIECE_BYTES, end - file.tell()))
    return bytes(block)


def _cause(error: Exception) -> RecursionError | None:
    return error if isinstance(error, RecursionError) else None


def _line_error(name: str, number: int, problem: str, line: bytes) -> StorageError:
    return StorageError(
        f"{name!r}, line {number}: {excerpt(problem)}; the line begins {excerpt(line, 60)!r}"
    )
