"""Compaction of a long conversation: its middle becomes a note, or a summary by a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minillmlib.client.completion import complete
from minillmlib.client.prepare import prepare
from minillmlib.errors import InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.tree.render import as_text
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import ParametersLike
from minillmlib.types.responses import CompletionResponse

__all__ = ["CompactedThread", "compact_thread"]

OMITTED = "[{count} earlier messages were left out here]"
SUMMARIZED = "[{count} earlier messages, summed up:]\n{summary}"
INSTRUCTION = (
    "Sum up the following part of a conversation for somebody who goes on with it without having "
    "read it. Keep every name, number, decision and open question. Write the summary only."
)


class CompactedThread(NamedTuple):
    """A compacted conversation: the messages up to the note, and those after it.

    `summary` is the response that the note was made from, if a model summed up the middle.
    """

    before: list[Message]
    after: list[Message]
    summary: CompletionResponse | None


async def compact_thread(
    messages: Sequence[Message],
    keep_last: int,
    generator: GeneratorInfo | None,
    params: ParametersLike,
) -> CompactedThread:
    """Keep the system prompt and the last messages, and replace the others by a note.

    The kept end never begins with a tool result whose call was removed: it begins earlier then.
    """
    if type(keep_last) is not int or keep_last < 0:
        raise InvalidParameterError(f"keep_last is a number of messages, not {keep_last!r}")
    head = next((n for n, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    tail = max(head, len(messages) - keep_last)
    while tail > head and tail < len(messages) and messages[tail].role is Role.TOOL:
        tail -= 1
    middle = messages[head:tail]
    if not middle:
        return CompactedThread(list(messages), [], None)
    response = None
    note = OMITTED.format(count=len(middle))
    if generator is not None:
        prompt = [Message.system(INSTRUCTION), Message.user(as_text(middle))]
        completed = await complete(prepare(prompt, generator, params, stream=False))
        response = completed.response
        note = SUMMARIZED.replace("{count}", str(len(middle))).replace("{summary}", response.text)
    return CompactedThread([*messages[:head], Message.user(note)], list(messages[tail:]), response)
