"""A place in a tree: where it is, what is around it, and how it is told from others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Self

from minillmlib.errors import InvalidParameterError
from minillmlib.tree.records import ID_BYTES
from minillmlib.tree.store import NO_NODE
from minillmlib.tree.tree import Tree

__all__ = ["Place"]


class Place:
    """A handle of one node: cheap to make, equal to every other handle of the same node.

    Holding any node keeps its whole tree alive. No walk recurses, so a thread may be as long as
    memory allows.
    """

    __slots__ = ("_index", "_tree")

    def __init__(self, tree: Tree, index: int) -> None:
        self._tree = tree
        self._index = index

    @property
    def id(self) -> str:
        """32 hexadecimal digits that name this node, in this process, in files and in any other.

        They follow from everything that is said from the root to here, and from nothing else; of
        equal siblings the later have others. O(1), but for the first time O(nodes).
        """
        return self._tree.id(self._index).hex()

    @property
    def parent(self) -> Self | None:
        """The node before this one, or None at the root. O(1)."""
        index = self._tree.parent(self._index)
        return None if index == NO_NODE else self._at(index)

    @property
    def root_node(self) -> Self:
        """The node with which the conversation begins. O(depth)."""
        return self._at(self._tree.root(self._index))

    @property
    def depth(self) -> int:
        """How many nodes are before this one; 0 for the root. O(depth)."""
        return sum(1 for _ in self._tree.path(self._index)) - 1

    @property
    def is_root(self) -> bool:
        """Whether nothing is before this node. O(1)."""
        return self._tree.parent(self._index) == NO_NODE

    @property
    def is_leaf(self) -> bool:
        """Whether nothing follows this node. O(1)."""
        return self._tree.is_leaf(self._index)

    def children(self) -> list[Self]:
        """The alternate continuations of this node, oldest first. O(children)."""
        return self._all(self._tree.children(self._index))

    def siblings(self) -> list[Self]:
        """The other continuations of this node's parent, oldest first. O(siblings)."""
        parent = self.parent
        return [] if parent is None else [node for node in parent.children() if node != self]

    def path(self) -> list[Self]:
        """The nodes from the root to this one. O(depth)."""
        return self._all(self._tree.path(self._index))[::-1]

    def depth_first(self) -> Iterator[Self]:
        """This node and all below it, each before its children, oldest first. O(1) a node."""
        return map(self._at, self._tree.depth_first(self._index))

    def breadth_first(self) -> Iterator[Self]:
        """This node and all below it, level by level. O(1) a node."""
        return map(self._at, self._tree.breadth_first(self._index))

    def in_insertion_order(self) -> list[Self]:
        """This node and all below it, in the order in which they were added. O(n log n).

        The last is the newest. A file keeps this order.
        """
        return self._all(sorted(self._tree.depth_first(self._index)))

    def leaves(self) -> Iterator[Self]:
        """The ends of all branches from here, oldest first. O(nodes below)."""
        tree = self._tree
        return (self._at(one) for one in tree.depth_first(self._index) if tree.is_leaf(one))

    def node_count(self) -> int:
        """How many nodes there are from this one on, with itself. O(nodes below)."""
        return sum(1 for _ in self._tree.depth_first(self._index))

    def find(self, what: str | Callable[[Self], object]) -> Self | None:
        """The first node from this one on that is looked for, or None.

        `what` is an id, which is looked up in the whole tree at once, or a function of a node.
        """
        if callable(what):
            return next((node for node in self.depth_first() if what(node)), None)
        try:
            own = bytes.fromhex(what)
        except (TypeError, ValueError):
            own = b""
        if len(own) != ID_BYTES:
            raise InvalidParameterError(
                f"find takes an id of {2 * ID_BYTES} hexadecimal digits, or a function of a node, "
                f"not {what!r:.80}"
            )
        index = self._tree.find(own, self._index)
        return None if index == NO_NODE else self._at(index)

    def detach(self) -> Self:
        """Makes this node, with all below it, a tree of its own; returns it.

        Every handle stays what it was, and so does every id. The root is a tree of its own
        already. O(siblings), but for the first time O(nodes).
        """
        self._tree.detach(self._index)
        return self

    def _grafted(self, other: Place) -> Self:
        return self._at(self._tree.graft(self._index, other._tree, other._index))

    def _at(self, index: int) -> Self:
        return type(self)(self._tree, index)

    def _all(self, indexes: Iterable[int]) -> list[Self]:
        return list(map(self._at, indexes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Place):
            return NotImplemented
        return self._tree is other._tree and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._tree), self._index))
