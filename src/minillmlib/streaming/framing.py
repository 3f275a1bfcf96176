"""Finds the framing of a body by its first bytes: events, lines of JSON, or one document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from minillmlib.errors import LimitExceededError
from minillmlib.streaming.sse import (
    BYTE_ORDER_MARK,
    SseDecoder,
    SseEvent,
    is_whole_event,
    limit_error,
)
from minillmlib.types.limits import Limits

PIECE_BYTES = 64 * 1024

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:")
_BLANK = re.compile(rb"\s*+")
_EVENT_START = re.compile(rb"(?:data|event|id|retry|error)?:")


class JsonDecoder:
    """Decodes lines of JSON, each an event, or keeps a body that is one `document`.

    The first line may be the whole of either, so it is held back until a second one begins.
    """

    def __init__(self, limits: Limits, *, is_document: bool = False) -> None:
        self.document: bytes | None = None  # set by `finish`
        self.unread = b""  # a last line that is cut
        self.limit_error: LimitExceededError | None = None  # raised by the next `feed`
        self._limits = limits
        self._rest = bytearray()
        self._searched = 0  # bytes of the rest that need no further search
        self._line_end = -1  # of the first line
        self.is_stream = False  # until a second line shows that it is one
        self._is_decided = is_document

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the lines that `data` completes; none of a document."""
        if self.limit_error is not None:
            raise self.limit_error
        self._rest += data
        if not self._is_decided:
            self._decide()
        events = self._take_lines() if self.is_stream and b"\n" in data else []
        limits = self._limits
        if not self.is_stream and len(self._rest) > limits.body_bytes:
            self.limit_error = limit_error("a response", limits.body_bytes, "body_bytes")
        elif self.is_stream and len(self._rest) > limits.event_bytes:
            self.limit_error = limit_error("an event", limits.event_bytes, "event_bytes")
        if self.limit_error is not None and not events:
            raise self.limit_error
        return events

    def finish(self) -> list[SseEvent]:
        """Return the last line, at the end of the body, if its JSON is whole."""
        if not self.is_stream:
            self.document = bytes(self._rest)
            self._rest.clear()  # what follows takes memory of its own
            return []
        self._rest += b"\n"
        events = self._take_lines()
        if events and not is_whole_event(events[-1].data):
            self.unread = events.pop().data.encode()
        return events

    def _decide(self) -> None:
        """Find out, once a second line begins, whether the first one is whole JSON."""
        if self._line_end < 0:
            self._line_end = end = self._rest.find(b"\n", self._searched)
            self._searched = max(end, self._searched)
        if self._line_end >= 0 and self._rest[self._searched :].strip():
            first = self._rest[: self._line_end].decode("utf-8", "replace")
            self.is_stream, self._is_decided = is_whole_event(first), True
        self._searched = len(self._rest)

    def _take_lines(self) -> list[SseEvent]:
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        texts = (line.strip().removeprefix(b"data:").strip() for line in lines)
        return [SseEvent(str(text, "utf-8", "replace")) for text in texts if text]


Decoder: TypeAlias = SseDecoder | JsonDecoder


def trim_start(data: bytes) -> bytes:
    """Return the start of a body without a byte order mark and blank lines before it."""
    return data.removeprefix(BYTE_ORDER_MARK).lstrip()


def choose_decoder(start: bytes, limits: Limits, *, is_declared: bool = False) -> Decoder | None:
    """Return the decoder for a body with this trimmed start, or None if it is too short to tell.

    The first bytes outrank the declared content type, which proxies change. A body that is neither
    events nor JSON is read as events if it `is_declared` as such, else it is a document.
    """
    if BYTE_ORDER_MARK.startswith(start):
        return None
    if start.startswith((b"{", b"[")):
        return JsonDecoder(limits)
    if start.startswith(b"<"):  # a page
        return JsonDecoder(limits, is_document=True)
    if is_declared or _EVENT_START.match(start):
        return SseDecoder(limits.event_bytes)
    if any(field.startswith(start) for field in _FIELDS):
        return None
    return JsonDecoder(limits, is_document=True)


def events_of(body: bytes, limits: Limits) -> tuple[Iterator[list[SseEvent]], Decoder] | None:
    """Return the events of a whole body, some at a time, and the decoder that makes them.

    None if the body is one document.
    """
    body = trim_start(body)
    decoder = choose_decoder(body, limits)
    if decoder is None or not (decoder.is_stream or _has_json_lines(body, limits.event_bytes)):
        return None
    return _decode(body, decoder), decoder


def _decode(body: bytes, decoder: Decoder) -> Iterator[list[SseEvent]]:
    for start in range(0, len(body), PIECE_BYTES):  # a large body is not split at once
        yield decoder.feed(body[start : start + PIECE_BYTES])
    yield decoder.finish()


def _has_json_lines(body: bytes, max_bytes: int) -> bool:
    """Whether a first line of JSON is followed by another one. Copies no more than it."""
    end = body.find(b"\n", 0, max_bytes)
    if end < 0 or not body.startswith(b"{") or _BLANK.fullmatch(body, end):
        return False
    return is_whole_event(body[:end].decode("utf-8", "replace"))
