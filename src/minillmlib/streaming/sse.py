"""Server-sent events: bytes in, events out, by the WHATWG rules for event streams."""

import msgspec

from minillmlib.errors import LimitExceededError

__all__ = ["SseDecoder", "SseEvent"]

LINE_BYTES = 64  # what a line takes in memory beside its text
LARGE_BYTES = 64 * 1024
MOST_AT_ONCE = 1024 * 1024  # bytes that may be in memory as text, too
CR = 13  # as a number, since to look for one byte as bytes takes three times as long
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event. `id` is the last id the stream has named."""

    data: str
    event: str = "message"
    id: str = ""


class SseDecoder:
    """Turns the bytes of an event stream into events, cut in any way whatever.

    Works on bytes, since only CR, LF and CRLF end a line here: text methods also split at
    U+2028, U+0085 and others that stand unescaped inside JSON. Each byte costs O(1).

    One departure from the standard: a field `error` is taken as the data of an `error` event.
    llama.cpp's server reported failures that way (llama.cpp#14566), and to ignore the field
    would turn them into an empty success.

    Raises `LimitExceededError` for an event, or a line, of more than `most_bytes`; if events were
    complete before it, only when it is fed again.
    """

    __slots__ = (
        "_after_cr", "_data", "_event", "_event_bytes", "_id", "_is_between_events",
        "_is_first_line", "_line_bytes", "_most_bytes", "_pending", "_short_chars", "too_much",
    )  # fmt: skip

    def __init__(self, most_bytes: int = 16 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        # So few that no bound can be near: a character has at most four bytes.
        self._short_chars = min(LARGE_BYTES, most_bytes // 4 - LINE_BYTES)
        self.too_much: LimitExceededError | None = None  # what feeding it again raises
        self._line_bytes = 0  # of the line that has not ended
        self._event_bytes = 0  # of the data of the event that has not ended
        self._pending: list[bytes] = []  # the pieces of a line that has not ended
        self._after_cr = False  # the last byte was a CR: an LF now belongs to it
        self._is_first_line = True
        self._is_between_events = False
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that `data` completes. An event ends with its blank line."""
        if self.too_much is not None:
            raise self.too_much
        events: list[SseEvent] = []
        is_whole = self._is_between_events and data.endswith(b"\n\n") and CR not in data
        if is_whole and len(data) <= MOST_AT_ONCE:  # as nearly all
            self._take_events(data, events)
        else:
            self._take_any(data, events)
        if self.too_much is not None and not events:
            raise self.too_much
        return events  # what came before the excess is told before it

    def _take_any(self, data: bytes, events: list[SseEvent]) -> None:
        if CR in data and not self._after_cr and data.count(b"\r") == data.count(b"\r\n"):
            data = data.replace(b"\r\n", b"\n")
        start, end = self._whole_events(data)
        if start:
            self._take_lines(data[:start], events)
        if start < end:
            self._take_events(data[start:end], events)
        if end < len(data):
            self._take_lines(data[end:], events)

    def _whole_events(self, data: bytes) -> tuple[int, int]:
        """Where the events begin and end that are whole in `data`; none if a line ends in CR."""
        if CR in data or len(data) > MOST_AT_ONCE:
            return 0, 0
        start = 0 if self._is_between_events else data.find(b"\n\n") + 2
        end = data.rfind(b"\n\n") + 2
        return (0, 0) if end < 2 else (start, end)

    def _take_events(self, data: bytes, events: list[SseEvent]) -> None:
        """Whole events. Nearly all are one line of data, perhaps with a name before it."""
        if self.too_much is not None:
            return
        for block in data[:-2].decode("utf-8", "replace").split("\n\n"):
            name, line = "", block
            if block.startswith("event: "):
                name, _, line = block.partition("\n")
            if line.startswith("data: ") and "\n" not in line and len(line) < self._short_chars:
                events.append(SseEvent(line[6:], name[7:] or "message", self._id))
            elif block:
                self._take_lines(block.encode() + b"\n\n", events)
                if self.too_much is not None:
                    return

    def _take_lines(self, data: bytes, events: list[SseEvent]) -> None:
        if self.too_much is not None:
            return
        if self._after_cr:
            data = data.removeprefix(b"\n")
        # For bytes, splitlines knows just the three line ends of the standard.
        for line in data.splitlines(keepends=True):
            if line[-1] not in b"\r\n":
                self._keep(line)
                break
            event = self._take_line(line.rstrip(b"\r\n"))
            if self.too_much is not None:
                break
            if event is not None:
                events.append(event)
        self._after_cr = data.endswith(b"\r")
        self._is_between_events = not (
            self._data or self._pending or self._event or self._after_cr or self._is_first_line
        )

    def _keep(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._line_bytes += len(piece)
        self._check(self._line_bytes)

    def _check(self, size: int) -> None:
        if size > self._most_bytes:
            self.too_much = LimitExceededError(
                f"the server sends an event of more than {self._most_bytes:,} bytes; "
                "raise event_bytes of the generator's limits if that is right"
            )

    def _take_line(self, line: bytes) -> SseEvent | None:
        if self._pending:
            self._keep(line)
            line = b"".join(self._pending)
            self._pending.clear()
            self._line_bytes = 0
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            return self._dispatch()
        if not line.startswith(b":"):
            self._take_field(line)
        return None

    def _take_field(self, line: bytes) -> None:
        if line.startswith(b"data: ") and len(line) < LARGE_BYTES:  # as nearly all
            self._keep_data(str(line[6:], "utf-8", "replace"), len(line))
            return
        colon = line.find(b":")
        end = len(line) if colon < 0 else colon
        start = end + 2 if line[end + 1 : end + 2] == b" " else end + 1
        source = line if len(line) < LARGE_BYTES else memoryview(line)  # which is not copied
        value = str(source[start:], "utf-8", "replace")
        match line[:end]:
            case b"data":
                self._keep_data(value, len(line))
            case b"event":
                self._event = value
            case b"id" if "\0" not in value:
                self._id = value
            case b"error":
                self._event = "error"
                self._keep_data(value, len(line))

    def _keep_data(self, value: str, size: int) -> None:
        self._data.append(value)
        self._event_bytes += size + LINE_BYTES
        self._check(self._event_bytes)

    def _dispatch(self) -> SseEvent | None:
        event = None
        if self._data:
            event = SseEvent("\n".join(self._data), self._event or "message", self._id)
            self._data.clear()
            self._event_bytes = 0
        self._event = ""
        return event
