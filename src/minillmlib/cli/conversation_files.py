"""Reads and writes the conversation files of the commands."""

from __future__ import annotations

import os
from pathlib import Path

from minillmlib import ChatNode, InvalidParameterError
from minillmlib.files import open_regular, write_whole
from minillmlib.tree.file_kinds import START_CHARS, FileKind, kind_of
from minillmlib.tree.node import EXPORTS
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


def page_path(path: Path, output: Path | None) -> Path:
    """Return where the page of a file goes; never onto the file itself."""
    page = path.with_suffix(".html") if output is None else output
    if is_same_file(page, path):
        raise InvalidParameterError(
            f"{str(path)!r} would be overwritten; name another file in --output"
        )
    return page


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
