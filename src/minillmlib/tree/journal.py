"""A file that a tree appends its changes to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from minillmlib.errors import StorageError
from minillmlib.files import FilePath, check_regular, sync_folder

__all__ = ["FileJournal", "batch_lines"]

BATCH_BYTES = 1_000_000


class FileJournal:
    """A file opened for appending; everything is on disk when `write` returns."""

    def __init__(self, path: FilePath) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(path, flags, 0o666)
        check_regular(self._descriptor)
        sync_folder(Path(os.path.realpath(os.fsdecode(path))).parent)

    def read(self) -> bytes:
        """Return the content of the file."""
        with open(self._descriptor, "rb", closefd=False) as file:
            return file.read()

    def truncate(self, size: int) -> None:
        """Cut the file off after `size` bytes, to remove a line that was never finished."""
        os.ftruncate(self._descriptor, size)

    def write(self, lines: bytes) -> None:
        """Append lines, or remove what was written of them and raise `StorageError`."""
        size = os.fstat(self._descriptor).st_size
        try:
            remaining = memoryview(lines)
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # the reader ignores a line without an end
                os.ftruncate(self._descriptor, size)
            raise StorageError(
                f"{str(self._path)!r} cannot be written ({error.strerror}); the new nodes are in "
                "memory only: make room and attach the journal again"
            ) from None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)


def batch_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Concatenate lines to batches of about a megabyte, since every write takes time."""
    batch = bytearray()
    for line in lines:
        batch += line
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)
