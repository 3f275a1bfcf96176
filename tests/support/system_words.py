"""What Python says of failures, which differs by its version."""

from __future__ import annotations

import os


def null_byte_words() -> str:
    """Return what is said of a path with a null byte."""
    try:
        return str(os.open("\0", os.O_RDONLY))
    except ValueError as error:
        return str(error)
