"""Keeps answers in a file, so that equal requests are paid once."""

from __future__ import annotations

from functools import partial

import msgspec

from minillmlib.deferred_imports import logger
from minillmlib.errors import StorageError
from minillmlib.files import FilePath
from minillmlib.json_value import JsonValue
from minillmlib.recording.exchanges import ExchangeRecorder, replay
from minillmlib.recording.records import RecordedExchange
from minillmlib.recording.store import RecordingStore
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport, check_transport
from minillmlib.transport.default import transport_below

_SUCCESS = range(200, 300)


class AnswerCache:
    """A transport that keeps whole answers in a file, and sends no equal request again.

    An answer from the cache costs nothing: its attempt has `is_from_cache`, a cost of 0, and in
    `cached_cost` what it cost when it was paid. Only requests with `temperature=0` are looked up,
    unless `any_temperature` is set: then one answer serves all equal requests, also those that
    want another sample. A retry is sent, and its answer takes the place of the one in the cache.
    Only answers that a completion has understood as whole are kept, and no secrets. An answer that
    `max_tokens` has cut is one of them, and one that the settings reject, too.

    Args:
        path: The file; any number of processes may use it. It is that of a `Recording`.
        any_temperature: Whether answers to all completions are kept.
        transport: The transport that asks, by default that of generators without one of their own.

    Raises `StorageError` if the file cannot be read, or is not of a recording. If that happens
    later, or an answer cannot be written, it is logged, and the request is sent.

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
        check_transport(transport)
        self._path = path
        self._any_temperature = any_temperature
        self.inner = transport
        self._store = RecordingStore(path)
        self._store.read_new()

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Return the answer in the cache, or send `request` and keep what is answered."""
        transport = self.inner or transport_below(self)
        if request.repeats is None or not (self._any_temperature or _is_cold(request.body)):
            return await transport.send(request)
        answer = _Answer(self._store)
        recorder = ExchangeRecorder(request, answer.end, answer.accept)
        if request.repeats == 0:
            exchange = self._find(recorder.request.key)
            if exchange is not None:
                return await replay(exchange, was_sent=False)
        return await recorder.send(request, transport)

    def _find(self, key: bytes) -> RecordedExchange | None:
        """Return the last exchange in the file, if it is an answer. A damaged file is logged."""
        try:
            self._store.read_new()
            places = self._store.places(key)
            exchange = self._store.load(places[-1]) if places else None
        except StorageError as problem:
            logger().error("a request is sent, since its answer cannot be looked up: %s", problem)
            return None
        if exchange is None or exchange.ended != "whole" or exchange.status not in _SUCCESS:
            return None  # that of a `Recording` has errors, too
        return exchange

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        self._store.close()

    def __reduce__(self) -> tuple[object, ...]:
        make = partial(
            AnswerCache,
            self._path,
            any_temperature=self._any_temperature,
            transport=self.inner,
        )
        return make, ()

    def __repr__(self) -> str:
        return f"AnswerCache({self._store.name!r})"


class _Answer:
    """An answer that comes. Keeps it once it was read to its end, and understood as whole."""

    def __init__(self, store: RecordingStore) -> None:
        self._store = store
        self._exchange: RecordedExchange | None = None
        self._is_accepted = False

    def end(self, exchange: RecordedExchange) -> None:
        """Take the exchange, of a stream after `accept`, of others before."""
        self._exchange = exchange if exchange.ended == "whole" else None
        self._keep()

    def accept(self) -> None:
        """Note that the answer is whole."""
        self._is_accepted = True
        self._keep()

    def _keep(self) -> None:
        if self._exchange is None or not self._is_accepted:
            return
        exchange, self._exchange = self._exchange, None
        try:
            self._store.append(exchange)
        except StorageError as problem:
            logger().error("an answer was not kept: %s", problem)


def _is_cold(data: bytes) -> bool:
    """Whether the temperature in a body is 0, also within an object of its parameters."""
    body = _decode(data)
    if not isinstance(body, dict):
        return False
    groups = [body, *(value for value in body.values() if isinstance(value, dict))]
    return any(group.get("temperature") == 0 for group in groups)


def _decode(data: bytes | str) -> JsonValue:
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return None
