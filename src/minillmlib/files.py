"""Reading small files that somebody else wrote."""

from __future__ import annotations

import os
import stat
from typing import TypeAlias

__all__ = ["FilePath", "read_small_file"]

FilePath: TypeAlias = str | os.PathLike[str]


def read_small_file(path: FilePath, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`. Raises `OSError` for any other."""
    # O_NONBLOCK, so that a pipe in the file's place cannot hold us up.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a regular file")
        if facts.st_size > max_bytes:
            raise OSError(f"it is larger than {max_bytes:,} bytes")
        return file.read(max_bytes)
