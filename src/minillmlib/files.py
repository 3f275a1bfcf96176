"""Reads files from untrusted sources, writes files atomically, and appends to journals."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from minillmlib.errors import StorageError

FilePath: TypeAlias = str | os.PathLike[str]

BATCH_BYTES = 1_000_000
BLOCK_BYTES = 60_000
TAIL_BYTES = 4_000
LOCK_SECS = 60.0
LOCK_POLL_SECS = 0.005


def read_small_file(path: FilePath, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`, or raise `OSError`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def open_regular(path: FilePath) -> IO[bytes]:
    """Open a regular file for reading, or raise `OSError` if it is anything else."""
    # O_NONBLOCK: opening a named pipe must not block.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        _check_regular(descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check_regular(descriptor: int) -> None:
    """Raise `OSError` unless an open file is a regular one."""
    _check_mode(os.fstat(descriptor).st_mode)


def _check_replaceable(mode: int) -> None:
    """Raise `OSError` for a pipe or a device, which the system would let be replaced."""
    if not stat.S_ISDIR(mode):
        _check_mode(mode)


def _check_mode(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        kind = "a directory" if stat.S_ISDIR(mode) else kind
        raise OSError(f"it is {kind}, not a regular file")


def write_whole(path: FilePath, pieces: Iterable[bytes]) -> None:
    """Replace a file atomically: at any time, also after a crash, it is the old or the new one.

    Raises `OSError`, or the exception that `pieces` raises; the old file is then unchanged.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    with contextlib.suppress(FileNotFoundError):
        _check_replaceable(target.stat().st_mode)
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


def absolute_path(path: FilePath) -> Path:
    """Return a path as an absolute one. Raises `StorageError` for what is no path."""
    with contextlib.suppress(TypeError, UnicodeError):
        text = os.fsdecode(path)
        if b"\0" not in os.fsencode(text):
            return Path(text).absolute()
    raise StorageError(f"a file is named by a str or a path, not by {path!a:.80}")


def file_name(path: FilePath) -> str:
    """Return the last part of a path."""
    return Path(os.fsdecode(path)).name


class _Closable(Protocol):
    def close(self) -> None: ...


_journals: weakref.WeakSet[_Closable] = weakref.WeakSet()


def close_in_children(journal: _Closable) -> None:
    """Close a locked file in each process that is forked from this one."""
    _journals.add(journal)


def _close_inherited() -> None:
    """Close the files of the parent's journals: a lock belongs to all processes that hold one."""
    for journal in list(_journals):
        journal.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


class FileJournal:
    """A file that any number of processes append to; what `append` wrote is on disk.

    Everything happens within `lock`, which opens the file anew if another one is at its path by
    now, and notices another content. A lock is held for one write, or while a file is read before
    the first one.
    """

    _descriptor = -1

    def __init__(self, path: FilePath) -> None:
        self._path = absolute_path(path)
        self.name = str(path)
        self._identity: tuple[int, int] | None = None  # device and inode of the open file
        self._own: tuple[int, int] | None = None  # of the one that was appended to
        self._size = 0  # when it was
        self._tail = b""  # the end of it, then
        close_in_children(self)

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the file, and say whether it still has what was appended to it.

        Raises `StorageError` if another process holds the lock for a minute, and `OSError`.
        """
        try:
            while not self._lock_if_at_path():
                self._open()
            yield self._identity == self._own and self._read_tail(self._size) == self._tail
        finally:
            if self._descriptor >= 0:
                if sys.platform == "win32":
                    unlock(self._descriptor)
                else:  # without a call of Python, so that no signal comes between
                    fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def is_at(self, path: FilePath) -> bool:
        """Whether the file is the one at a path."""
        try:
            there = Path(os.fsdecode(path)).stat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == self._identity

    def _lock_if_at_path(self) -> bool:
        """Lock the open file, if it is still the one at its path."""
        if self._descriptor < 0:
            return False
        self._wait_for_lock()
        return self.is_at(self._path)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(self._path, flags | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _check_regular(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if self._descriptor >= 0:  # and not after a fork
            self._own = None  # whose inode number another file can get from now on
        self.close()
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self._identity = (found.st_dev, found.st_ino)
        _sync_folder(Path(os.path.realpath(self._path)).parent)

    def _wait_for_lock(self) -> None:
        deadline = time.monotonic() + LOCK_SECS
        while not try_lock(self._descriptor):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"{self.name!r} cannot be written: another program has locked it for "
                    f"{LOCK_SECS:.0f} s; end that program, or record to another file"
                )
            time.sleep(LOCK_POLL_SECS)

    def open_to_read(self) -> IO[bytes]:
        """Return the file, from its beginning."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return open(self._descriptor, "rb", closefd=False)

    def cut(self, size: int) -> None:
        """Remove everything after the first `size` bytes."""
        os.ftruncate(self._descriptor, size)

    def cut_unfinished_line(self) -> int:
        """Remove a last line without an end, which a process that died left; return the size."""
        end = size = os.fstat(self._descriptor).st_size
        while size:
            start = max(0, size - BLOCK_BYTES)
            os.lseek(self._descriptor, start, os.SEEK_SET)
            newline = os.read(self._descriptor, size - start).rfind(b"\n")
            size = start + newline + 1
            if newline >= 0:
                break
        if size != end:
            self.cut(size)
        return size

    def _read_tail(self, size: int) -> bytes:
        """Return the end of the first `size` bytes: no two files have the same there."""
        start = max(0, size - TAIL_BYTES)
        os.lseek(self._descriptor, start, os.SEEK_SET)
        return os.read(self._descriptor, size - start)

    def append(self, lines: Iterable[bytes]) -> None:
        """Append whole lines. All of them are on disk then, or none, with the exception raised."""
        size = self.cut_unfinished_line()
        try:
            for batch in _batches(lines):
                remaining = memoryview(batch)
                while remaining:
                    remaining = remaining[os.write(self._descriptor, remaining) :]
            os.fsync(self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):  # else the next writer cuts an unfinished line
                self.cut(size)
            raise
        self._own = self._identity
        self._size = os.fstat(self._descriptor).st_size
        self._tail = self._read_tail(self._size)

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


if sys.platform == "win32":
    import msvcrt

    LOCKED_BYTE = 2**30  # beyond what is written, since others could not read a locked byte

    def try_lock(descriptor: int) -> bool:
        """Lock a file for this process alone, or return False if another one has it."""
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Unlock a file that this process has locked."""
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        with contextlib.suppress(OSError):  # it was not locked
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock a file for this process alone, or return False if another one has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Unlock a file that this process has locked, also for forks that still have it open."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
