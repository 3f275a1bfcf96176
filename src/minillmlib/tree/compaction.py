"""Compaction of a long conversation: its middle becomes a note, or a summary by a model."""

from __future__ import annotations

from collections.abc import Sequence

from minillmlib.client.completion import complete
from minillmlib.client.placeholders import fill_placeholders, without_placeholders
from minillmlib.client.prepare import prepare
from minillmlib.errors import InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.tree.render import as_text
from minillmlib.tree.tree import NO_NODE, Tree
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import ParametersLike, node_parameters

OMITTED = "[{count} earlier messages were left out here]"
SUMMARIZED = "[{count} earlier messages, summed up:]\n{summary}"
INSTRUCTION = (
    "Sum up the following part of a conversation for somebody who goes on with it without having "
    "read it. Keep every name, number, decision and open question. Write the summary only."
)


async def compact_thread(
    messages: Sequence[Message],
    keep_last: int,
    generator: GeneratorInfo | None,
    params: ParametersLike,
) -> tuple[Tree, int]:
    """Return a tree of the system prompt, a note in place of the middle, and the last messages.

    The index is that of the leaf. The note has its response, if a model summed up the middle. The
    kept end never begins with a tool result whose call was removed: it begins earlier then.
    """
    if type(keep_last) is not int or keep_last < 0:
        raise InvalidParameterError(f"keep_last is a number of messages, not {keep_last!r}")
    head = next((n for n, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    tail = max(head, len(messages) - keep_last)
    while head < tail < len(messages) and messages[tail].role is Role.TOOL:
        tail -= 1
    tree, middle = Tree(), messages[head:tail]
    if not middle:
        return tree, tree.append(NO_NODE, messages)
    response = None
    note = OMITTED.format(count=len(middle))
    if generator is not None:
        settings = node_parameters(params)
        text = as_text(fill_placeholders(middle, settings.format_kwargs))
        prompt = [Message.system(INSTRUCTION), Message.user(without_placeholders(text))]
        response = (await complete(prepare(prompt, generator, settings, stream=False))).response
        note = SUMMARIZED.format(count=len(middle), summary=response.text)
    summary = Message.user(without_placeholders(note))
    leaf = tree.append(NO_NODE, (*messages[:head], summary), response)
    return tree, tree.append(leaf, messages[tail:]) if tail < len(messages) else leaf
