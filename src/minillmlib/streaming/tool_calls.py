"""Assembles tool calls from the fragments of a stream."""

from uuid import uuid4

from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, is_json, plural
from minillmlib.types.tools import ToolCall, ToolCallDelta

EMPTY: tuple[object, ...] = (None, "", [], {})
MAX_PIECES = 1024  # of a text, before they are joined


def append_piece(pieces: list[JsonValue], piece: str) -> None:
    """Append to a text in pieces, which are joined before their number takes memory.

    The first piece may be a value of another kind. Amortized O(piece).
    """
    pieces.append(piece)
    if len(pieces) >= MAX_PIECES:
        start = 0 if isinstance(pieces[0], str) else 1
        if len(pieces) >= len(pieces[start]) // 256:
            pieces[start:] = ["".join(pieces[start:])]


class _PendingCall:
    """A call whose arguments may still grow."""

    __slots__ = (
        "_depth", "_in_string", "_is_cumulative", "_is_escaped", "_last", "_name_chars", "_names",
        "_offset", "_scanned", "_scanned_chars", "extras", "id", "pieces",
    )  # fmt: skip

    def __init__(self, delta: ToolCallDelta) -> None:
        self.id = delta.id
        self._names = [delta.name]
        self._name_chars = len(delta.name)
        self.pieces: list[str] = []
        self.extras = [delta.extra] if delta.extra else []
        self._last = ""  # the last piece
        self._is_cumulative = True  # whether each piece repeats the one before it
        self._scanned = self._scanned_chars = 0  # pieces that `is_closed` has seen
        self._offset = 0  # characters that it has seen of the first other piece
        self._depth = 0
        self._in_string = self._is_escaped = False
        if delta.arguments:
            self.add_arguments(delta.arguments)

    @property
    def name(self) -> str:
        if len(self._names) > 1:
            self._names = ["".join(self._names)]
        return self._names[0]

    def add_name(self, piece: str) -> None:
        """Append a piece of the name. Some servers repeat the whole name with each fragment."""
        if len(piece) != self._name_chars or piece != self.name:
            append_piece(self._names, piece)
            self._name_chars += len(piece)

    def add_arguments(self, piece: str) -> None:
        """Append a piece of the arguments."""
        self._is_cumulative = self._is_cumulative and piece.startswith(self._last)
        self._last = piece
        count = len(self.pieces)
        append_piece(self.pieces, piece)
        if len(self.pieces) <= count:  # they were joined
            self._scanned, self._offset = 0, self._scanned_chars

    def is_closed(self) -> bool:
        """Whether every bracket of the arguments so far is closed. Reads each character once."""
        for piece in self.pieces[self._scanned :]:
            self._scanned_chars += len(piece) - self._offset
            for char in piece[self._offset :]:
                if self._in_string:
                    self._in_string = self._is_escaped or char != '"'
                    self._is_escaped = char == "\\" and not self._is_escaped
                elif char == '"':
                    self._in_string = True
                elif char in "{[":
                    self._depth += 1
                elif char in "}]":
                    self._depth -= 1
            self._offset = 0
        self._scanned = len(self.pieces)
        return bool(self.pieces) and self._depth == 0 and not self._in_string

    @property
    def arguments(self) -> str:
        """The concatenated pieces. Some relays repeat all earlier text with each piece."""
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
            self._scanned, self._offset = 0, self._scanned_chars
        text = self.pieces[0] if self.pieces else ""
        if not self._is_cumulative or len(text) == len(self._last) or is_json(text):
            return text
        return self._last if is_json(self._last) else text


class ToolCallAccumulator:
    """Assembles calls from fragments. O(1) for each fragment that carries an index."""

    def __init__(self) -> None:
        self._calls: list[_PendingCall] = []
        self._open: list[_PendingCall] = []  # some may be closed by now
        self._by_id: dict[str, _PendingCall] = {}
        self._by_index: dict[int, _PendingCall] = {}

    def add(self, delta: ToolCallDelta) -> None:
        """Add the next fragment, in the order of arrival."""
        call = self._find_call(delta)
        if call is None and not delta.name:
            if delta.arguments.strip():
                call = self._only_open_call(delta)
            elif not delta.id:
                return
        if call is None:
            call = _PendingCall(delta)
            self._calls.append(call)
            self._open.append(call)
        else:
            call.id = call.id or delta.id
            if delta.name and not call.pieces:
                call.add_name(delta.name)
            if delta.arguments:
                call.add_arguments(delta.arguments)
            if delta.extra:
                call.extras.append(delta.extra)
        if delta.index is not None:
            self._by_index[delta.index] = call
        if call.id:
            self._by_id.setdefault(call.id, call)

    def _only_open_call(self, delta: ToolCallDelta) -> _PendingCall | None:
        """Return the call for a fragment under an unknown index (dirac-run/dirac#215).

        None for one with an id, whose name may follow.
        """
        self._open = [call for call in self._open if not call.is_closed()]
        if len(self._open) == 1:
            return self._open[0]
        if delta.id:
            return None
        count, size = len(self._calls), len(delta.arguments)
        raise MalformedResponseError(
            f"the stream holds arguments that belong to none of its {count} "
            f"{plural('tool call', count)} (index {delta.index}, "
            f"{size} {plural('character', size)})"
        )

    def __len__(self) -> int:
        return len(self._calls)

    def check_names(self) -> None:
        """Raise `MalformedResponseError` if a call has no name."""
        for number, call in enumerate(self._calls, start=1):
            if not call.name:
                raise MalformedResponseError(
                    f"the answer holds a tool call without a name (number {number} of "
                    f"{len(self._calls)})"
                )

    def is_complete(self) -> bool:
        """Whether there is a call, and the arguments of every call are valid JSON."""
        return bool(self._calls) and all(is_json(call.arguments) for call in self._calls)

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls. A missing id becomes a random one, missing arguments become `{}`."""
        return tuple(
            ToolCall(
                id=call.id or f"call_{uuid4().hex[:24]}",
                name=call.name,
                arguments=call.arguments or "{}",
                extra=_merge_extras(call.extras),
            )
            for call in self._calls
        )

    def _find_call(self, delta: ToolCallDelta) -> _PendingCall | None:
        """Return the call that a fragment continues, or None if it starts a new one."""
        if delta.index is not None:
            call = self._by_index.get(delta.index)
        elif delta.id:
            call = self._by_id.get(delta.id)
        else:
            call = self._calls[-1] if self._calls else None
        if call is None:
            return None
        # Ollama numbers every call 0, but gives each a different id and a name. A new id without
        # a name comes from a proxy (litellm#40040) and continues the same call.
        if delta.id and call.id and delta.id != call.id and delta.name:
            return None
        if delta.index is None and not delta.id and delta.name and call.is_closed():
            return None
        return call


def _merge_extras(extras: list[JsonObject]) -> JsonObject:
    """Return the keys of all fragments; a later value replaces an earlier one unless it is empty.

    Objects are merged, at any depth.
    """
    merged: JsonObject = {}
    pending = [(merged, extra) for extra in reversed(extras)]
    while pending:
        target, source = pending.pop()
        for name, value in source.items():
            if name in target and value in EMPTY:
                continue
            if not isinstance(value, dict):
                target[name] = value
                continue
            if not isinstance(target.get(name), dict):
                target[name] = {}
            pending.append((target[name], value))
    return merged
