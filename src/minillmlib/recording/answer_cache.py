"""Keeps answers in a file, so that equal requests are paid once."""

from __future__ import annotations

import re
from functools import partial

import msgspec

from minillmlib.deferred_imports import logger
from minillmlib.errors import StorageError
from minillmlib.files import FilePath
from minillmlib.json_value import JsonValue
from minillmlib.protocols.chat_completions.response import is_error_payload
from minillmlib.recording.exchanges import ExchangeRecorder, replay
from minillmlib.recording.recording import engine_below
from minillmlib.recording.records import RecordedExchange
from minillmlib.recording.store import RecordingStore
from minillmlib.streaming.framing import events_of
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.types.limits import Limits


class AnswerCache:
    """A transport that keeps whole answers in a file, and sends no equal request again.

    An answer from the cache costs nothing: its attempt has `is_from_cache`, a cost of 0, and in
    `cached_cost` what it cost when it was paid. Only requests with `temperature=0` are looked up,
    unless `any_temperature` is set: then one answer serves all equal requests, also those that
    want another sample. A retry is sent, and its answer takes the place of the one in the cache.
    Requests that are no completions, errors and broken answers are not kept, and nor are secrets.

    Args:
        path: The file; any number of processes may use it. It is that of a `Recording`.
        any_temperature: Whether answers to all completions are kept.
        transport: The transport that asks, by default that of generators without one of their own.

    Raises `StorageError` if the file cannot be read, or is not of a recording. If an answer cannot
    be written, that is logged.

    Examples:
        >>> cache = AnswerCache("answers.jsonl")
        >>> cached = GeneratorInfo.openai("gpt-4o-mini").with_transport(cache)
        >>> params = CompletionParameters(temperature=0)
        >>> for _ in range(2):
        ...     answer = run(ChatNode.root().chat("Hello", cached, params))
        ...     print(answer.text, answer.response.attempts[0].is_from_cache)
        Paris. False
        Paris. True
    """

    def __init__(
        self, path: FilePath, *, any_temperature: bool = False, transport: Transport | None = None
    ) -> None:
        self._path = path
        self._any_temperature = any_temperature
        self._transport = transport
        self._store = RecordingStore(path)
        self._store.read_new()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the answer in the cache, or send `request` and keep what is answered."""
        transport = self._transport or engine_below(self)
        if request.repeats is None or not (self._any_temperature or _is_cold(request.body)):
            return await transport.send(request)
        recorder = ExchangeRecorder(request, self._keep)
        if request.repeats == 0:
            self._store.read_new()
            places = self._store.places(recorder.request.key)
            if places:
                return await replay(self._store.load(places[-1]), was_sent=False)
        return await recorder.send(request, transport)

    def _keep(self, exchange: RecordedExchange) -> None:
        if not _is_whole_answer(exchange):
            return
        try:
            self._store.append(exchange)
        except StorageError as problem:
            logger().error("an answer was not kept: %s", problem)

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._store.close()

    def __reduce__(self) -> tuple[object, ...]:
        make = partial(
            AnswerCache,
            self._path,
            any_temperature=self._any_temperature,
            transport=self._transport,
        )
        return make, ()

    def __repr__(self) -> str:
        return f"AnswerCache({self._store.name!r})"


def _is_cold(data: bytes) -> bool:
    """Whether the temperature in a body is 0, also within an object of its parameters."""
    body = _decode(data)
    if not isinstance(body, dict):
        return False
    groups = [body, *(value for value in body.values() if isinstance(value, dict))]
    return any(group.get("temperature") == 0 for group in groups)


def _is_whole_answer(exchange: RecordedExchange) -> bool:
    """Whether an answer was read to its end, says that it has one, and is no error."""
    if exchange.status != 200 or exchange.ended != "whole":
        return False
    data = exchange.body.data
    found = events_of(data, Limits())
    if found is None:
        value = _decode(data)
        return isinstance(value, dict) and not is_error_payload(value)
    if _END.search(data) is None:
        return False
    events = [event for batch in found[0] for event in batch]
    suspects = (event.data for event in events if "error" in event.data)
    is_failed = any(event.event == "error" for event in events)
    return not is_failed and not any(is_error_payload(_decode(data)) for data in suspects)


# Of the wires that are known: the words with which a stream says that it is whole.
_END = re.compile(
    rb"(?m)^data: ?\[DONE\]"
    rb'|"(?:message_stop|response\.(?:completed|incomplete))"'
    rb'|"(?:finish_?[rR]eason|stop_?[rR]eason|done)"\s*:\s*(?:"|true)'
)


def _decode(data: bytes | str) -> JsonValue:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
