"""Conversations in files, as the commands take and make them."""

from __future__ import annotations

import os
from pathlib import Path

from minillmlib import ChatNode, InvalidParameterError
from minillmlib.files import open_regular, write_whole
from minillmlib.tree.tree_file import as_storage_error

__all__ = ["begun", "is_same_file", "opened", "page_beside", "write_page", "written"]

DEFAULT_SYSTEM = "You are a helpful assistant."
TREE_FILE_BEGINS = b'[{"kind":"minillmlib tree"'


def opened(path: Path) -> ChatNode:
    """The root of what a file holds: a tree, a journal or a thread."""
    with as_storage_error("read", path), open_regular(path) as file:
        is_tree = file.read(len(TREE_FILE_BEGINS)) == TREE_FILE_BEGINS
    return ChatNode.load_tree(path) if is_tree else ChatNode.from_thread_file(path)[0]


def begun(path: Path | None, system: str | None) -> ChatNode:
    """Where a conversation begins, or where the one in the file ends; the file keeps it."""
    if path is None:
        return ChatNode.root(DEFAULT_SYSTEM if system is None else system)
    if not _holds_nodes(path):
        root = ChatNode.root(DEFAULT_SYSTEM if system is None else system)
    else:
        root = ChatNode.load_tree(path)
        if system is not None and system != root.text:
            raise InvalidParameterError(
                f"{str(path)!r} holds a conversation with another system prompt; "
                "leave --system out, or name another file"
            )
    root.attach_journal(path)
    return root.in_insertion_order()[-1]


def _holds_nodes(path: Path) -> bool:
    """Whether something was kept: a crash can leave a file that was begun and is still empty."""
    if not path.exists():
        return False
    with as_storage_error("read", path), open_regular(path) as file:
        file.readline()
        return file.readline().endswith(b"\n")


def written(node: ChatNode, path: Path) -> str:
    """Writes what the name of the file asks for, and says what that was."""
    match path.suffix.lower():
        case ".md":
            with as_storage_error("written", path):
                write_whole(path, [node.to_markdown().encode("utf-8", "backslashreplace")])
            return "this conversation, as Markdown"
        case ".html":
            write_page(node.root_node, path, path.stem)
            return "the whole tree, as a page"
        case ".json":
            node.save_thread(path)
            return "this conversation"
    node.root_node.save_tree(path)
    return "the whole tree"


def page_beside(path: Path, output: Path | None) -> Path:
    """Where the page of a file goes; never onto the file itself."""
    page = path.with_suffix(".html") if output is None else output
    if is_same_file(page, path):
        raise InvalidParameterError(f"{str(path)!r} would be overwritten; name a file in --output")
    return page


def write_page(root: ChatNode, path: Path, title: str) -> None:
    """Writes one HTML page of a tree."""
    with as_storage_error("written", path):
        write_whole(path, [root.to_html(title=title).encode("utf-8", "backslashreplace")])


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, through whatever links."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # no file has such a name
        return False
