"""Joins characters that a server cut into halves between two events."""

import re
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, replace_surrogates
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import StreamChunk
from minillmlib.types.tools import ToolCallDelta

MAX_HELD = 1000  # halves of as many texts; a half of one more is replaced at once
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# No JSON decoder takes half a pair. It goes through the parser as one of the last 2048 characters
# of Unicode, which are for private use.
_SHIFT = 0x10F800 - 0xD800
_PRIVATE = re.compile("[\U0010f800-\U0010ffff]")
_PRIVATE_ESCAPE = re.compile(r"\\u[dD][bB][fF][eEfF]")

# A whole pair, half a pair (the group), or any other escape.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u([dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)

# A text of the answer: a field of the chunk, the arguments of the call with an index, or a field of
# the reasoning block with an index.
_Place: TypeAlias = tuple[str, int | None, str]
_TEXTS = ("delta", "reasoning", "refusal")
_JOINED = (*_TEXTS, "tool_calls", "reasoning_blocks")


class SurrogateJoiner:
    """Joins the halves of surrogate pairs in the texts of one stream.

    A half at the end of a text waits for the next piece of that text; one that stays alone becomes
    U+FFFD. Servers that count in UTF-16 cut characters like this (elizaOS/eliza#30904).
    """

    def __init__(self) -> None:
        self._held: dict[_Place, str] = {}

    def parse(self, parse: Callable[[str], StreamChunk | None], data: str) -> StreamChunk | None:
        """Return the chunk that `parse` makes of an event, with whole characters only."""
        carried = _carry_halves(data) if "\\u" in data else data
        if carried is data:
            chunk = parse(data)
            return self._join(chunk) if self._held and chunk is not None else chunk
        try:
            chunk = parse(carried)
        except Exception:  # noqa: BLE001 - an error quotes what the server sent
            chunk = parse(data)
        return None if chunk is None else self._join(chunk)

    def _join(self, chunk: StreamChunk) -> StreamChunk:
        is_last = chunk.finish_reason is not None or chunk.is_end
        fields = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
        joined = {
            name: value if name in _JOINED else _mend(value) for name, value in fields.items()
        }
        for name in _TEXTS:
            joined[name] = self._join_text((name, None, ""), fields[name] or "", is_last)
        joined["refusal"] = joined["refusal"] or None
        calls = [self._join_call(call, is_last) for call in chunk.tool_calls]
        blocks = [self._join_block(block, is_last) for block in chunk.reasoning_blocks]
        if is_last:  # of texts that this chunk does not go on with
            for kind, index, name in self._held:
                if kind == "call":
                    calls.append(ToolCallDelta(index=index, arguments=REPLACEMENT))
                else:
                    blocks.append(ReasoningDelta(index=index or 0, fields={name: REPLACEMENT}))
            self._held.clear()
        return StreamChunk(**{**joined, "tool_calls": (*calls,), "reasoning_blocks": (*blocks,)})

    def _join_call(self, call: ToolCallDelta, is_last: bool) -> ToolCallDelta:  # noqa: FBT001 - private
        arguments = self._join_text(("call", call.index, ""), call.arguments, is_last)
        rest: ToolCallDelta = _mend(msgspec.structs.replace(call, arguments=""))
        return msgspec.structs.replace(rest, arguments=arguments)

    def _join_block(self, block: ReasoningDelta, is_last: bool) -> ReasoningDelta:  # noqa: FBT001
        fields: JsonObject = {
            name: self._join_text(("block", block.index, name), value, is_last)
            if isinstance(value, str)
            else _mend(value)
            for name, value in block.fields.items()
        }
        return msgspec.structs.replace(block, fields=fields)

    def _join_text(self, place: _Place, text: str, is_last: bool) -> str:  # noqa: FBT001 - private
        if not text and not is_last:
            return text
        text = self._held.pop(place, "") + _restore_halves(text)
        if not is_last and "\ud800" <= text[-1:] <= "\udbff" and len(self._held) < MAX_HELD:
            self._held[place] = text[-1]
            text = text[:-1]
        return str(replace_surrogates(text))


def _carry_halves(data: str) -> str:
    """Return the event with a private character for each half; `data` itself if it has none."""
    carried = _ESCAPE.sub(
        lambda found: chr(int(found[1], 16) + _SHIFT) if found[1] else found[0], data
    )
    is_used = _PRIVATE.search(data) or _PRIVATE_ESCAPE.search(data)
    return data if carried == data or is_used else carried


def _restore_halves(text: str) -> str:
    return _PRIVATE.sub(lambda found: chr(ord(found[0]) - _SHIFT), text)


def _mend(value: JsonValue) -> JsonValue:
    """Return a value of a chunk with U+FFFD for each half of a pair."""
    match value:
        case str() if type(value) is str:  # and not a word of an enum
            return replace_surrogates(_restore_halves(value))
        case dict():
            return {_mend(name): _mend(part) for name, part in value.items()}
        case list():
            return list(map(_mend, value))
        case tuple():
            return tuple(map(_mend, value))
        case msgspec.Struct():
            fields = {name: _mend(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
    return value
