"""How conversations begin, go to files and come back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from minillmlib.errors import EmptyThreadError, InvalidParameterError, StorageError
from minillmlib.files import FilePath, read_small_file, write_whole
from minillmlib.tree.place import Place
from minillmlib.tree.store import NO_NODE
from minillmlib.tree.thread_file import Thread, thread_from_json, thread_json
from minillmlib.tree.tree import Tree
from minillmlib.tree.tree_file import attach, explained, read_tree, save_tree
from minillmlib.types.messages import Message

__all__ = ["KeptPlace"]

MOST_FILE_BYTES = 1_000_000_000


class KeptPlace(Place):
    """A place in a tree that can be kept."""

    __slots__ = ()

    @classmethod
    def root(cls, system_prompt: str) -> Self:
        """A new conversation; the root is the system prompt."""
        return cls._grown([Message.system(system_prompt)])

    @classmethod
    def from_messages(cls, messages: Sequence[Message]) -> tuple[Self, Self]:
        """A linear conversation from a list: its root and its leaf.

        Raises `EmptyThreadError` for an empty list.
        """
        if not isinstance(messages, Sequence):
            raise InvalidParameterError(
                f"from_messages takes a list of Message objects, not {type(messages).__name__}"
            )
        for message in messages:
            if not isinstance(message, Message):
                raise InvalidParameterError(
                    f"from_messages takes Message objects, not {type(message).__name__}; "
                    "build them with Message.user(text) and its like"
                )
        if not messages:
            raise EmptyThreadError("from_messages needs at least one message")
        leaf = cls._grown(messages)
        return leaf.root_node, leaf

    @classmethod
    def from_thread_json(cls, document: bytes | str) -> tuple[Self, Self]:
        """A conversation from a JSON document: its root and its leaf.

        Takes what `save_thread` writes, the Rust crate's `{"prompts": ..., "required_kwargs": ...}`
        and a plain list of `{"role": ..., "content": ...}`. Raises `StorageError`, which names the
        place, for anything else.
        """
        thread = thread_from_json(document)
        leaf = cls._grown(thread.messages)
        if thread.format_kwargs:
            leaf._tree.set_kwargs(0, thread.format_kwargs)  # noqa: SLF001 - our own
        return leaf.root_node, leaf

    @classmethod
    def from_thread_file(cls, path: FilePath) -> tuple[Self, Self]:
        """The same from a file, of at most 1 GB."""
        with explained("read", path):
            document = read_small_file(path, MOST_FILE_BYTES)
        try:
            return cls.from_thread_json(document)
        except StorageError as error:
            raise StorageError(f"{str(path)!r}: {error}") from None

    @classmethod
    def load_tree(cls, path: FilePath, *more: FilePath) -> Self:
        """The whole tree in a file of `save_tree` or of a journal; its root. O(nodes).

        `more` are copies of that file that have grown apart: what they have more is added, and
        what they share is there once. A last line that a crash left unfinished is left out, with
        a warning in the log. Nothing in a file is run, opened or fetched. Raises `StorageError`,
        which names the line, for what was changed or damaged.
        """
        return cls(read_tree(path, *more), 0)

    @classmethod
    def _grown(cls, messages: Sequence[Message]) -> Self:
        tree = Tree()
        return cls(tree, tree.append(NO_NODE, *messages))

    def save_thread(self, path: FilePath) -> None:
        """Writes the conversation from the root to this node as one JSON document.

        There is the old file or the new one at any time, whatever happens. Raises `StorageError`.
        """
        values = self._tree.thread_kwargs(self._index)
        document = thread_json(Thread(self._tree.marked_thread(self._index), values))
        with explained("written", path):
            write_whole(path, [document])

    def save_tree(self, path: FilePath) -> None:
        """Writes this node and all below it, with costs and ids, one line each. O(nodes).

        There is the old file or the new one at any time, whatever happens. Raises `StorageError`.
        """
        save_tree(self._tree, self._index, path)

    def attach_journal(self, path: FilePath) -> None:
        """Keeps this tree in a file from here on: what is added is on disk before a call returns.

        What the file has already is added to the tree, and the other way, so a program that
        starts anew loads it and goes on. A crash loses at most what was being written. Belongs to
        the root. If the disk refuses a line, the call raises `StorageError`; its nodes are in
        the tree, and the journal is attached no more.
        """
        if not self.is_root:
            raise InvalidParameterError("a journal is attached to the root: see root_node")
        attach(self._tree, self._index, path)
