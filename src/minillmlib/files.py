"""Reads files from untrusted sources, writes files atomically, and appends to journals."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from minillmlib.errors import StorageError

FilePath: TypeAlias = str | os.PathLike[str]

BATCH_BYTES = 1_000_000


def read_small_file(path: FilePath, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`, or raise `OSError`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def open_regular(path: FilePath) -> IO[bytes]:
    """Open a regular file for reading, or raise `OSError` if it is anything else."""
    # O_NONBLOCK: opening a named pipe must not block.
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    try:
        _check_regular(file.fileno())
    except OSError:
        file.close()
        raise
    return file


def _check_regular(descriptor: int) -> None:
    """Raise `OSError` unless an open file is a regular one."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        kind = "a directory" if stat.S_ISDIR(mode) else kind
        raise OSError(f"it is {kind}, not a regular file")


def write_whole(path: FilePath, pieces: Iterable[bytes]) -> None:
    """Replace a file atomically: at any time, also after a crash, it is the old or the new one.

    Raises `OSError`, or the exception that `pieces` raises; the old file is then unchanged.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    draft = target.with_name(f".{target.name[:50]}.{os.urandom(8).hex()}.tmp")
    try:
        with draft.open("xb") as file:
            with contextlib.suppress(OSError):  # keep the permissions of the old file
                draft.chmod(stat.S_IMODE(target.stat().st_mode))
            file.writelines(_batches(pieces))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)


def _batches(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces in batches of about a megabyte, since every write takes time."""
    batch = bytearray()
    for piece in pieces:
        batch += piece
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)


def _sync_folder(path: Path) -> None:
    """Make a new file name in a folder survive a crash, where the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_name(path: FilePath) -> str:
    """Return the last part of a path."""
    return Path(os.fsdecode(path)).name


class FileJournal:
    """A file opened for appending; everything is on disk when `write` returns."""

    def __init__(self, path: FilePath) -> None:
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(path, flags, 0o666)
        _check_regular(self._descriptor)
        _sync_folder(Path(os.path.realpath(os.fsdecode(path))).parent)

    def read(self) -> bytes:
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
            with contextlib.suppress(OSError):  # the reader ignores a line without an end
                os.ftruncate(self._descriptor, size)
            raise StorageError(
                f"{str(self._path)!r} cannot be written ({error.strerror}); the new nodes are in "
                "memory only: make room and attach the journal again"
            ) from None

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            os.close(self._descriptor)
