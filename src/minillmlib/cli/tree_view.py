"""Renders a tree as lines: a thread runs straight down, and branches are indented.

Nothing recurses, and no line grows with the depth, so a tree may have any shape and size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from minillmlib import ChatNode, Message, Role
from minillmlib.cli.format import one_line
from minillmlib.json_value import plural
from minillmlib.tree.render import message_text, visible_notes
from minillmlib.types.costs import total_words

DIM = "dim"
ROLE_STYLES = {
    Role.SYSTEM: "magenta", Role.USER: "cyan", Role.ASSISTANT: "green", Role.TOOL: "yellow",
}  # fmt: skip
ASCII = str.maketrans("├└─│⋯", "|`-|.")  # for a terminal without these strokes
SHORT_ID = 6
WIDE = 60  # a narrower terminal has no room for ids
MIN_WORDS = 12  # columns of text; narrower lines omit the facts first
MAX_CHARS = 2000  # of a message that are read to find its first words


def render_tree(
    root: ChatNode, width: int, here: ChatNode | None, is_ascii: bool
) -> Iterator[Text]:
    """Yield the lines of a tree, of about `width` columns, numbered in insertion order."""
    nodes = root.in_insertion_order()
    numbers = {node: number for number, node in enumerate(nodes, start=1)}
    digits = len(str(len(nodes)))
    for node, strokes in _lay_out(root, max_levels=max(2, width // 8)):
        margin = f"{numbers[node]:>{digits}} "
        if here is not None:
            margin = ("*" if node == here else " ") + margin
        if width >= WIDE:
            margin += node.id[:SHORT_ID] + " "
        yield _render_node(node, margin, strokes.translate(ASCII) if is_ascii else strokes, width)


class _Pending(NamedTuple):
    """A node still to be rendered: the levels around it, its stroke, and the level it opens."""

    node: ChatNode
    around: tuple[str, ...]
    stroke: str = ""
    level: tuple[str, ...] = ()


def _lay_out(root: ChatNode, max_levels: int) -> Iterator[tuple[ChatNode, str]]:
    """Yield each node with the strokes before it; only the last levels are shown."""
    pending = [_Pending(root, ())]
    while pending:
        node, around, stroke, level = pending.pop()
        hidden = "⋯  " if len(around) > max_levels else ""
        yield node, hidden + "".join(around[-max_levels:]) + stroke
        inside = (*around, *level)[-max_levels - 1 :]
        children = node.children()
        if len(children) == 1:
            pending.append(_Pending(children[0], inside))
        elif children:
            *others, last = children
            pending.append(_Pending(last, inside, "└─ ", ("   ",)))
            pending += [_Pending(child, inside, "├─ ", ("│  ",)) for child in reversed(others)]


def _render_node(node: ChatNode, margin: str, strokes: str, width: int) -> Text:
    facts = ""
    if node.is_generated:
        known = one_line(node.response.model[:MAX_CHARS]), total_words(node.cost)
        facts = "".join(f" · {fact}" for fact in known if fact)
    for name, value in visible_notes(node.notes):
        facts += f" · {one_line(f'{name}: {value}'[:MAX_CHARS])}"
    taken = cell_len(margin + strokes + node.role) + 2
    if width - taken - cell_len(facts) < MIN_WORDS:
        facts = ""
    room = max(MIN_WORDS, width - taken - cell_len(facts))
    role, words = (node.role.value, ROLE_STYLES[node.role]), excerpt(node.message, room)
    return Text.assemble((margin + strokes, DIM), role, "  ", words, (facts, DIM))


def excerpt(message: Message, columns: int) -> str:
    """Return the first words of a message, safe to show, in at most that many columns."""
    words = one_line(message_text(message)[:MAX_CHARS])
    if cell_len(words) <= columns:
        return words
    return set_cell_size(words, columns - 1).rstrip() + "…"


def summary(root: ChatNode) -> str:
    """Return the counts of a tree and its total cost."""
    count, ends = root.node_count(), sum(1 for _ in root.leaves())
    messages = f"{count} {plural('message', count)}"
    branches = f" in {ends} branches" if ends > 1 else ""
    return f"{messages}{branches} · {total_words(root.subtree_cost())}"
