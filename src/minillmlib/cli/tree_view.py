"""A tree as lines: what is said one after the other stands below each other, branches are indented.

Nothing recurses, and no line grows with the depth, so a tree may have any shape and any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from minillmlib import ChatNode, Message, Role
from minillmlib.cli.format import one_line, total_words

__all__ = ["ASCII", "LINES", "Guides", "Row", "drawn", "excerpt", "summary"]

SHORT_ID = 6
WIDE = 60  # below this many columns a line has no room for ids
LEAST_WORDS = 12  # columns; what else is known goes before the words get less
MOST_CHARS = 2000  # of a message that are looked at for its first words


class Guides(NamedTuple):
    """The strokes that lead to a node from the one it follows."""

    branch: str
    last: str
    beside: str
    under: str
    hidden: str


LINES = Guides("├─ ", "└─ ", "│  ", "   ", "⋯  ")
ASCII = Guides("|- ", "`- ", "|  ", "   ", ".. ")


class Row(NamedTuple):
    """One node as it is shown: its number and id, the strokes, the words, the model and cost."""

    margin: str
    strokes: str
    role: Role
    words: str
    facts: str

    @property
    def plain(self) -> str:
        """The row for a file or a pipe."""
        return f"{self.margin}{self.strokes}{self.role.value}  {self.words}{self.facts}"


def drawn(
    root: ChatNode, width: int, here: ChatNode | None = None, guides: Guides = LINES
) -> Iterator[Row]:
    """Return the rows of a tree for lines of `width` columns, numbered by age."""
    nodes = root.in_insertion_order()
    numbers = {node: number for number, node in enumerate(nodes, start=1)}
    digits = len(str(len(nodes)))
    for node, strokes in _placed(root, guides, most_levels=max(2, width // 8)):
        margin = f"{numbers[node]:>{digits}} "
        if here is not None:
            margin = ("*" if node == here else " ") + margin
        if width >= WIDE:
            margin += node.id[:SHORT_ID] + " "
        yield _row(node, margin, strokes, width)


class Place(NamedTuple):
    """A node that is still to be shown, the levels around it, its own stroke and level."""

    node: ChatNode
    around: tuple[str, ...]
    stroke: str = ""
    level: tuple[str, ...] = ()


def _placed(root: ChatNode, guides: Guides, most_levels: int) -> Iterator[tuple[ChatNode, str]]:
    """Each node with the strokes before it, of which only the last levels are shown."""
    pending = [Place(root, ())]
    while pending:
        place = pending.pop()
        hidden = guides.hidden if len(place.around) > most_levels else ""
        yield place.node, hidden + "".join(place.around[-most_levels:]) + place.stroke
        inside = (*place.around, *place.level)[-most_levels - 1 :]
        pending.extend(_next_places(place.node.children(), inside, guides))


def _next_places(
    children: list[ChatNode], inside: tuple[str, ...], guides: Guides
) -> Iterator[Place]:
    """Where the children stand, the last one first."""
    if len(children) == 1:
        yield Place(children[0], inside)
        return
    for child in reversed(children):
        if child == children[-1]:
            yield Place(child, inside, guides.last, (guides.under,))
        else:
            yield Place(child, inside, guides.branch, (guides.beside,))


def _row(node: ChatNode, margin: str, strokes: str, width: int) -> Row:
    facts = _facts(node)
    taken = cell_len(margin + strokes + node.role) + 2
    if width - taken - cell_len(facts) < LEAST_WORDS:
        facts = ""
    room = max(LEAST_WORDS, width - taken - cell_len(facts))
    return Row(margin, strokes, node.role, excerpt(node.message, room), facts)


def _facts(node: ChatNode) -> str:
    if not node.is_generated:
        return ""
    model = one_line(node.response.model[:MOST_CHARS])
    return "".join(f" · {fact}" for fact in (model, total_words(node.cost)) if fact)


def excerpt(message: Message, columns: int) -> str:
    """The first words of a message, safe to show, in so many columns."""
    words = one_line(_beginning(message))
    if cell_len(words) <= columns:
        return words
    return set_cell_size(words, columns - 1).rstrip() + "…"


def _beginning(message: Message) -> str:
    said = [(message.text or "")[:MOST_CHARS]]
    said += [f"[{part.kind}]" for part in (*message.attachments, *message.media)]
    said += [f"[calls {call.name[:MOST_CHARS]}]" for call in message.tool_calls]
    return " ".join(said)


def summary(root: ChatNode) -> str:
    """The counts of a tree and what all of it cost."""
    count, ends = root.node_count(), sum(1 for _ in root.leaves())
    messages = f"{count} message{'s' * (count != 1)}"
    branches = f" in {ends} branches" if ends > 1 else ""
    return f"{messages}{branches} · {total_words(root.subtree_cost())}"
