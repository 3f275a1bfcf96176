"""Reading files that somebody else wrote, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TypeAlias

__all__ = [
    "FilePath",
    "check_regular",
    "file_name",
    "open_regular",
    "read_small_file",
    "sync_folder",
    "write_whole",
]

FilePath: TypeAlias = str | os.PathLike[str]


def read_small_file(path: FilePath, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises `OSError` for any other."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def open_regular(path: FilePath) -> IO[bytes]:
    """A regular file for reading. Raises `OSError` for any other."""
    # O_NONBLOCK, so that a pipe in the file's place cannot hold us up.
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    try:
        check_regular(file.fileno())
    except OSError:
        file.close()
        raise
    return file


def check_regular(descriptor: int) -> None:
    """Raises `OSError` unless an open file is a regular one."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(f"it is {_kind_of(mode)}, not a regular file")


def write_whole(path: FilePath, pieces: Iterable[bytes]) -> None:
    """Writes a file so that there is, at any time and after any crash, the old or the new one.

    Raises `OSError`; the old file is then untouched. What `pieces` raises goes on.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))
    draft = target.with_name(f".{target.name[:50]}.{os.urandom(8).hex()}.tmp")
    try:
        with draft.open("xb") as file:
            with contextlib.suppress(OSError):  # it keeps the permissions of the one it replaces
                draft.chmod(stat.S_IMODE(target.stat().st_mode))
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Makes a new name in a folder outlast a crash, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def file_name(path: FilePath) -> str:
    """The last part of a path."""
    return Path(os.fsdecode(path)).name


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
