"""Recognizes the kind of a document, for the errors of loaders of other kinds."""

from __future__ import annotations

import re
from enum import Enum

START_CHARS = 300


class FileKind(Enum):
    """A kind of document. The value says how to load it."""

    TREE = "it is a tree file; load it with ChatNode.load_tree"
    THREAD = "it is a thread file; load it with ChatNode.from_thread_file"
    TRAINING_DATA = "it is ShareGPT training data, which cannot be loaded again"
    PAGE = "it is a web page; load the file that the page was made from"


_BEGINNINGS = (
    (r'\[\s*\{\s*"kind"\s*:\s*"minillmlib tree"', FileKind.TREE),
    (
        r'\{\s*"kind"\s*:\s*"minillmlib thread"|\{\s*"(prompts|required_kwargs)"\s*:',
        FileKind.THREAD,
    ),
    (r'\[\s*\{\s*"(role|content)"\s*:', FileKind.THREAD),
    (r'\{[^\n{]*"conversations"\s*:', FileKind.TRAINING_DATA),
    (r"(?i)<!doctype html|<html", FileKind.PAGE),
)


def kind_of(document: object) -> FileKind | None:
    """Return the kind of a document by its beginning, or None if it is of no known kind."""
    start = document[:START_CHARS] if isinstance(document, str | bytes | bytearray) else b""
    text = start if isinstance(start, str) else start.decode(errors="replace")
    text = text.lstrip("\ufeff \t\r\n")
    return next((kind for beginning, kind in _BEGINNINGS if re.match(beginning, text)), None)
