"""Reading small files that somebody else wrote."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

__all__ = ["FilePath", "file_name", "read_small_file"]

FilePath: TypeAlias = str | os.PathLike[str]


def read_small_file(path: FilePath, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises `OSError` for any other."""
    # O_NONBLOCK, so that a pipe in the file's place cannot hold us up.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(f"it is {_kind_of(facts.st_mode)}, not a regular file")
        if facts.st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)


def file_name(path: FilePath) -> str:
    """The last part of a path."""
    return Path(os.fsdecode(path)).name


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
