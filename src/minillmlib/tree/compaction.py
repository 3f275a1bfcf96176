"""A long conversation made short: its middle left out, or told by a model in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minillmlib.client.complete import complete
from minillmlib.client.prepare import plan
from minillmlib.errors import InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.tree.render import as_text
from minillmlib.types.messages import Message, Role
from minillmlib.types.parameters import ParametersLike
from minillmlib.types.responses import CompletionResponse

__all__ = ["Collapsed", "collapsed"]

LEFT_OUT = "[{count} earlier messages were left out here]"
SUMMED_UP = "[{count} earlier messages, summed up:]\n{summary}"
ASSIGNMENT = (
    "Sum up the following part of a conversation for somebody who goes on with it without having "
    "read it. Keep every name, number, decision and open question. Write the summary only."
)


class Collapsed(NamedTuple):
    """The short conversation up to its note and after it.

    `summary` is the answer from which the note is, if a model told the middle.
    """

    before: list[Message]
    after: list[Message]
    summary: CompletionResponse | None


async def collapsed(
    messages: Sequence[Message],
    keep_last: int,
    generator: GeneratorInfo | None,
    params: ParametersLike,
) -> Collapsed:
    """The system prompt, a note of what was left out, and the last messages.

    The end never begins with a result whose call was left out: it begins earlier instead.
    """
    if type(keep_last) is not int or keep_last < 0:
        raise InvalidParameterError(f"keep_last is a number of messages, not {keep_last!r}")
    head = next((n for n, m in enumerate(messages) if m.role is not Role.SYSTEM), len(messages))
    tail = max(head, len(messages) - keep_last)
    while tail > head and tail < len(messages) and messages[tail].role is Role.TOOL:
        tail -= 1
    middle = messages[head:tail]
    if not middle:
        return Collapsed(list(messages), [], None)
    response = None
    note = LEFT_OUT.format(count=len(middle))
    if generator is not None:
        asked = [Message.system(ASSIGNMENT), Message.user(as_text(middle))]
        response, _ = await complete(plan(asked, generator, params, stream=False))
        note = SUMMED_UP.replace("{count}", str(len(middle))).replace("{summary}", response.text)
    return Collapsed([*messages[:head], Message.user(note)], list(messages[tail:]), response)
