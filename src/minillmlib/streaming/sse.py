"""Decodes server-sent events by the WHATWG rules for event streams."""

import re

import msgspec

from minillmlib.errors import LimitExceededError
from minillmlib.json_value import is_json

LINE_BYTES = 64  # memory that a line takes beside its text
LARGE_BYTES = 64 * 1024
MAX_TEXT_BYTES = 1024 * 1024  # larger data is not decoded at once
MAX_UNREAD_BYTES = 16 * 1024  # more than a secret in lines of base64
CR = 13  # a number, because a search for a byte string takes three times as long
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)
_PLAIN_START = re.compile(r"\n\n(?:event: (.*)\n)?data: ")  # behind the event before


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event. `id` is the last id that the stream has sent."""

    data: str
    event: str = "message"
    id: str = ""


def limit_error(what: str, limit: int, name: str, unit: str = "bytes") -> LimitExceededError:
    """Return the error for more than the generator's limit `name` allows."""
    return LimitExceededError(
        f"the server sends {what} of more than {limit:,} {unit}; "
        f"raise {name} of the generator's limits if that is right"
    )


def is_whole_event(data: str) -> bool:
    """Whether data is an end marker or a whole JSON object or array, which a cut one never is."""
    data = data.strip()
    if data == "[DONE]":
        return True
    if data[:1] + data[-1:] not in ("{}", "[]"):
        return False
    try:
        _raw_decoder.decode(data)  # builds no value, which could take a hundred times as much
    except (ValueError, RecursionError):
        return len(data) < LARGE_BYTES and is_json(data)
    return True


class SseDecoder:
    """Decodes the bytes of an event stream, in pieces of any size, to events.

    Works on bytes, because only CR, LF and CRLF end a line: text methods also split at U+2028,
    U+0085 and others that may stand unescaped inside JSON. O(1) for each byte.

    Three departures from the standard. A field `error` is the data of an `error` event: llama.cpp's
    server has reported failures that way (llama.cpp#14566), and ignoring the field would turn
    them into an empty success. Data lines that are each whole JSON are events of their own: some
    servers put no blank line between events. Each has the name and id that stand before it, the
    last also those behind it. An event without its blank line at the end of the body counts if
    its JSON is whole (openai-node#2725). Other text is kept as `unread`, for an error message.

    Raises `LimitExceededError` for an event, or a line, of more than `max_bytes`. If the same data
    completed other events first, they are returned, and the next call raises.
    """

    is_stream = True

    def __init__(self, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        # No event in a piece this short can exceed the bound.
        self._text_bytes = min(MAX_TEXT_BYTES, max_bytes - LINE_BYTES)
        self.limit_error: LimitExceededError | None = None  # raised by the next `feed`
        self._line_bytes = 0  # of the incomplete line
        self._event_bytes = 0  # of the data of the incomplete event
        self._pending: list[bytes] = []  # pieces of the incomplete line
        self._after_cr = False  # the last byte was a CR, so a following LF belongs to it
        self._is_first_line = True
        self._is_between_events = False
        self._data: list[str] = []
        # For a name or id amid the data: how many lines of data have the earlier ones, and those.
        self._earlier_labels: list[tuple[int, str, str]] = []
        self._event = ""
        self._id = ""
        # What the plain events begin with that came last, behind the event before, and their name.
        self._start, self._name = "\n\ndata: ", "message"
        self.unread = b""  # the start of what belongs to no event

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that `data` completes. An event ends with its blank line."""
        if self.limit_error is not None:
            raise self.limit_error
        events: list[SseEvent] = []
        is_fast = self._is_between_events and data.endswith(b"\n\n") and CR not in data
        if is_fast and len(data) <= self._text_bytes:  # nearly always
            self._decode_events(data, events)
        else:
            self._decode_any(data, events)
        if self.limit_error is not None and not events:
            raise self.limit_error
        return events

    def _decode_any(self, data: bytes, events: list[SseEvent]) -> None:
        if CR in data and not self._after_cr and data.count(b"\r") == data.count(b"\r\n"):
            data = data.replace(b"\r\n", b"\n")
        start, end = 0, 0  # of the whole events
        if CR not in data and len(data) <= self._text_bytes and b"\n\n" in data:
            start = 0 if self._is_between_events else data.find(b"\n\n") + 2
            end = data.rfind(b"\n\n") + 2
        self._decode_lines(data[:start], events)
        self._decode_events(data[start:end], events)
        self._decode_lines(data[end:], events)

    def _decode_events(self, data: bytes, events: list[SseEvent]) -> None:
        """Decode whole events. Nearly all are one line of data, below the same name or none.

        So the text is split at what they begin with, in a third of the time that each by itself
        would take. What is not of that kind is decoded by lines.
        """
        if not data:
            return
        text = "\n\n" + data[:-2].decode("utf-8", "replace")
        if not text.startswith(self._start):
            middle = text.rfind("\n\n", 0, len(text) // 2 + 2)
            if (start := _PLAIN_START.match(text, middle)) is not None:
                self._start, self._name = start[0], start[1] or "message"
        before, *texts = text.split(self._start)
        if before:
            self._decode_lines(f"{before[2:]}\n\n".encode(), events)
        for text in texts:
            if "\n" in text:
                self._decode_lines(f"{self._start[2:]}{text}\n\n".encode(), events)
            elif self.limit_error is None:
                events.append(SseEvent(text, self._name, self._id))

    def _decode_lines(self, data: bytes, events: list[SseEvent]) -> None:
        if self.limit_error is not None or not data:
            return
        if self._after_cr:
            data = data.removeprefix(b"\n")
        # On bytes, splitlines splits at the three line ends of the standard only.
        for line in data.splitlines(keepends=True):
            if line[-1] not in b"\r\n":
                self._add_piece(line)
                break
            self._decode_line(line.rstrip(b"\r\n"), events)
            if self.limit_error is not None:
                break
        self._after_cr = data.endswith(b"\r")
        self._is_between_events = not (
            self._data or self._pending or self._event or self._after_cr or self._is_first_line
        )

    def _add_piece(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._line_bytes += len(piece)
        self._check_size(self._line_bytes)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            self.limit_error = limit_error("an event", self._max_bytes, "event_bytes")

    def finish(self) -> list[SseEvent]:
        """Return the last event, at the end of the body, if only its blank line is missing."""
        events: list[SseEvent] = []
        if self.limit_error is not None:
            return events
        if self._pending:
            self._decode_line(b"", events)
        self._dispatch(events)
        for event in events:
            if event.event != "error" and not is_whole_event(event.data):
                self._note_unread(event.data.encode())
                return []
        return events

    def _decode_line(self, line: bytes, events: list[SseEvent]) -> None:
        if self._pending:
            self._add_piece(line)
            line = b"".join(self._pending)
            self._pending.clear()
            self._line_bytes = 0
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        if not line:
            self._dispatch(events)
        elif not line.startswith(b":"):
            self._decode_field(line)

    def _decode_field(self, line: bytes) -> None:
        if line.startswith(b"data: ") and len(line) < LARGE_BYTES:  # nearly always
            self._add_data(str(line[6:], "utf-8", "replace"), len(line))
            return
        colon = line.find(b":")
        end = len(line) if colon < 0 else colon
        start = end + 2 if line[end + 1 : end + 2] == b" " else end + 1
        source = line if len(line) < LARGE_BYTES else memoryview(line)  # to avoid a copy
        value = str(source[start:], "utf-8", "replace")
        match line[:end]:
            case b"data":
                self._add_data(value, len(line))
            case b"event":
                self._keep_label(len(line))
                self._event = value
            case b"id" if "\0" not in value:
                self._keep_label(len(line))
                self._id = value
            case b"error":
                self._keep_label(0)
                self._event = "error"
                self._add_data(value, len(line))
            case b"id" | b"retry":
                pass
            case _:
                self._note_unread(line)

    def _note_unread(self, text: bytes) -> None:
        if len(self.unread) < MAX_UNREAD_BYTES:  # a line is kept whole: it may echo a secret
            self.unread += text + b"\n"

    def _keep_label(self, size: int) -> None:
        count = len(self._data)
        if not count:
            return
        if not self._earlier_labels or self._earlier_labels[-1][0] < count:
            self._earlier_labels.append((count, self._event, self._id))
        self._event_bytes += size + LINE_BYTES
        self._check_size(self._event_bytes)

    def _add_data(self, value: str, size: int) -> None:
        self._data.append(value)
        self._event_bytes += size + LINE_BYTES
        self._check_size(self._event_bytes)

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            if len(self._data) == 1 or not all(map(is_whole_event, self._data)):
                text = "\n".join(self._data)
            else:
                text = self._data.pop()
                self._split_data(events)
            events.append(SseEvent(text, self._event or "message", self._id))
            self._data.clear()
            self._earlier_labels.clear()
            self._event_bytes = 0
        self._event = ""

    def _split_data(self, events: list[SseEvent]) -> None:
        start = 0
        for end, event, event_id in (
            *self._earlier_labels,
            (len(self._data), self._event, self._id),
        ):
            texts = self._data[start:end]
            events.extend(SseEvent(text, event or "message", event_id) for text in texts)
            start = end
