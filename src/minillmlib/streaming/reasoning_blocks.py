"""Assembles reasoning blocks from the pieces of a stream."""

from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, memory_of
from minillmlib.streaming.tool_calls import append_piece
from minillmlib.types.reasoning import ReasoningBlock, ReasoningDelta

# Later texts of these fields are appended; those of any other field replace the earlier value.
APPENDED_FIELDS = ("thinking", "signature", "text", "summary", "data", "content", "input")


BLOCK_BYTES = 256  # memory of a block beside its fields
FIELD_BYTES = 128  # memory of a field beside its value


class _PendingBlock:
    """A block whose fields may still grow."""

    __slots__ = ("calls_before", "pieces", "text_before")

    def __init__(self, text_before: int, calls_before: int) -> None:
        self.pieces: dict[str, list[object]] = {}
        self.text_before = text_before
        self.calls_before = calls_before

    def add(self, fields: JsonObject) -> int:
        """Add a piece of some fields. Return by how much the block grew."""
        grown = 0
        for name, value in fields.items():
            pieces = self.pieces.get(name)
            is_text = isinstance(value, str) and name in APPENDED_FIELDS
            if is_text and pieces not in (None, [None]):
                append_piece(pieces, value)
                grown += len(value)
            elif pieces is None:
                self.pieces[name] = [value]
                grown += FIELD_BYTES + (len(value) if is_text else memory_of(value))
            elif value is not None:
                grown += memory_of(value) - memory_of(pieces)
                self.pieces[name] = [value]
        return grown

    def is_over(self, kind: JsonValue, fields: JsonObject) -> bool:
        """Whether a piece of this type, with these fields, belongs to another block."""
        if kind not in self.pieces.get("type", [None]):
            return True
        return bool(fields.get("thinking")) and any(self.pieces.get("signature", ()))

    def block(self) -> ReasoningBlock:
        fields = {name: _join(name, pieces) for name, pieces in self.pieces.items()}
        return ReasoningBlock(
            fields=fields, text_before=self.text_before, calls_before=self.calls_before
        )


class ReasoningAccumulator:
    """Assembles blocks from pieces, in the order in which the blocks started.

    A piece continues the block of its index unless it names another type than the block has:
    OpenRouter gives a summary and the sealed block beside it the same index. LiteLLM numbers none
    of its thinking blocks, each of which ends with its signature.
    """

    def __init__(self) -> None:
        self._blocks: list[_PendingBlock] = []
        self._by_index: dict[int, _PendingBlock] = {}
        self.size = 0  # characters of the texts, and about the memory of all else
        self.is_ascii = True  # whether all texts are

    def add(self, delta: ReasoningDelta, text_before: int, calls_before: int) -> bool:
        """Add the next piece. Return False for an input of a call, which is no block.

        The counts are the characters and calls of the message so far.
        """
        kind = delta.fields.get("type")
        block = self._by_index.get(delta.index)
        if block is None and delta.fields.keys() == {"input"}:
            return False  # a call is assembled elsewhere
        if block is None or (kind is not None and block.is_over(kind, delta.fields)):
            block = self._by_index[delta.index] = _PendingBlock(text_before, calls_before)
            self._blocks.append(block)
            self.size += BLOCK_BYTES
        self.size += block.add(delta.fields)
        texts = (value for value in delta.fields.values() if isinstance(value, str))
        self.is_ascii = self.is_ascii and all(map(str.isascii, texts))
        return True

    def blocks(self) -> tuple[ReasoningBlock, ...]:
        """Return the blocks so far."""
        return tuple(block.block() for block in self._blocks)


def _join(name: str, pieces: list[object]) -> JsonValue:
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if name == "input" and 0 < len(texts) < len(pieces):  # it started as an empty object
        text = "".join(texts)
        try:
            return decode_json(text)
        except MalformedResponseError:
            return text
    return "".join(texts) if texts and len(texts) == len(pieces) else pieces[-1]
