"""Reads and writes the conversation files of the commands."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from minillmlib import ChatNode, InvalidParameterError
from minillmlib.files import open_regular, write_whole
from minillmlib.tree.file_kinds import START_CHARS, FileKind, kind_of
from minillmlib.tree.node import EXPORTS
from minillmlib.tree.page import PAGE_START
from minillmlib.tree.tree_file import as_storage_error

DEFAULT_SYSTEM = "You are a helpful assistant."


def load_root(path: Path) -> ChatNode:
    """Load a tree, a journal or a thread, and return its root."""
    with as_storage_error("read", path), open_regular(path) as file:
        is_tree = kind_of(file.read(START_CHARS)) is FileKind.TREE
    return ChatNode.load_tree(path) if is_tree else ChatNode.from_thread_file(path)[0]


def open_or_create(path: Path | None, system: str | None) -> ChatNode:
    """Start or continue a conversation, which `path` records if given; return its newest node."""
    if path is not None and _has_nodes(path):
        root = ChatNode.load_tree(path)
        if system is not None and system != root.text:
            raise InvalidParameterError(
                f"{str(path)!r} has a conversation with another system prompt; "
                "omit --system, or name another file in --save"
            )
    else:
        root = ChatNode.root(DEFAULT_SYSTEM if system is None else system)
    if path is not None:
        root.attach_journal(path)
    return root.in_insertion_order()[-1]


def _has_nodes(path: Path) -> bool:
    """Whether a file has any node: a crash can leave one that was created and is still empty."""
    if not path.exists():
        return False
    with as_storage_error("read", path), open_regular(path) as file:
        file.readline()
        return file.readline().endswith(b"\n")


FileId: TypeAlias = tuple[int, ...]


def identify_file(path: Path) -> FileId | None:
    """Return what tells a file from any other and from later versions.

    None if there is none that could be replaced.
    """
    try:
        found = path.stat()
    except (OSError, ValueError):  # writing it says why, if that fails too
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def export(node: ChatNode, path: Path) -> str:
    """Write the format that the file's name asks for, and return what was written."""
    name = path.name.lower()
    for suffix, (content, render) in EXPORTS.items():
        if name.endswith(suffix):
            write_text(path, render(node, path.stem))
            return content
    if name.endswith(".json"):
        node.save_thread(path)
        return "this conversation"
    node.root_node.save_tree(path)
    return "the whole tree"


def page_path(path: Path, output: Path | None, *, is_forced: bool) -> Path:
    """Return where the page of a file goes.

    Never onto the file itself, and only if `is_forced` onto a file that is no page of ours.
    """
    page = path.with_suffix(".html") if output is None else output
    if is_same_file(page, path):
        raise InvalidParameterError(
            f"{str(path)!r} would be overwritten; name another file in --output"
        )
    if not is_forced and identify_file(page) is not None and not _is_our_page(page):
        raise InvalidParameterError(
            f"{str(page)!r} exists and is no page of this program; name another file in --output, "
            "or replace it with --force"
        )
    return page


def _is_our_page(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(PAGE_START)) == PAGE_START
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or raise `StorageError`."""
    with as_storage_error("written", path):
        write_whole(path, [text.encode("utf-8", "backslashreplace")])


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths name one file, through any links."""
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # not a possible file name
        return False
