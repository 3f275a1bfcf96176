"""Joins characters that a server cut into halves between two chunks."""

import msgspec

from minillmlib.json_value import JsonValue, replace_surrogates
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import StreamChunk
from minillmlib.types.tools import ToolCallDelta

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# A text of the answer: a field of the chunk, the arguments of the call with an index, or a field of
# the reasoning block with an index.
_Place = tuple[str, int | None, str]


class SurrogateJoiner:
    """Joins the halves of surrogate pairs in the texts of one stream.

    A half at the end of a text waits for the next piece of that text; one that stays alone becomes
    U+FFFD. Servers that count in UTF-16 cut characters like this (elizaOS/eliza#30904).
    """

    def __init__(self) -> None:
        self.held: dict[_Place, str] = {}

    def join(self, chunk: StreamChunk) -> StreamChunk:
        """Return the chunk with whole characters only."""
        is_last = chunk.finish_reason is not None or chunk.is_end
        texts: dict[str, JsonValue] = {
            name: self._join((name, None, ""), getattr(chunk, name) or "", is_last=is_last)
            for name in ("delta", "reasoning", "refusal")
        }
        calls = [
            msgspec.structs.replace(
                call,
                arguments=self._join(("", call.index, ""), call.arguments, is_last=is_last),
                name=replace_surrogates(call.name),
                id=replace_surrogates(call.id),
            )
            for call in chunk.tool_calls
        ]
        blocks = [
            msgspec.structs.replace(block, fields=self._join_block(block, is_last=is_last))
            for block in chunk.reasoning_blocks
        ]
        if is_last:  # of texts that this chunk does not go on with
            for kind, index, name in self.held:
                if kind:
                    blocks.append(ReasoningDelta(index=index or 0, fields={name: REPLACEMENT}))
                else:
                    calls.append(ToolCallDelta(index=index, arguments=REPLACEMENT))
            self.held.clear()
        texts["refusal"] = texts["refusal"] or None
        others = {
            name: _mend(getattr(chunk, name))
            for name in chunk.__struct_fields__
            if name not in (*texts, "tool_calls", "reasoning_blocks")
        }
        return StreamChunk(
            **texts, **others, tool_calls=tuple(calls), reasoning_blocks=tuple(blocks)
        )

    def _join_block(self, block: ReasoningDelta, *, is_last: bool) -> dict[str, JsonValue]:
        return {
            replace_surrogates(name): self._join(("block", block.index, name), value, is_last=is_last)
            if isinstance(value, str)
            else replace_surrogates(value)
            for name, value in block.fields.items()
        }

    def _join(self, place: _Place, text: str, *, is_last: bool) -> str:
        if not text and not is_last:
            return text
        text = self.held.pop(place, "") + text
        if not is_last and "\ud800" <= text[-1:] <= "\udbff":
            self.held[place] = text[-1]
            text = text[:-1]
        return str(replace_surrogates(text))


def _mend(value: JsonValue) -> JsonValue:
    """Return a value of a chunk in which a lone half is U+FFFD."""
    if isinstance(value, tuple):
        return tuple(map(_mend, value))
    if isinstance(value, msgspec.Struct):
        texts = {name: getattr(value, name) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **{name: _mend(part) for name, part in texts.items()})
    return replace_surrogates(value) if type(value) in (str, dict, list) else value
