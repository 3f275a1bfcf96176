"""Tells observers what happens. A call that nobody observes pays a test or two for it."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Self

import msgspec

from minillmlib.auth.redaction import Redactor, ValueT
from minillmlib.auth.secret import Secret, header_problem, protect_header
from minillmlib.client.attempt import PendingAttempt
from minillmlib.client.http_request import PreparedRequest, secrets_for
from minillmlib.client.prepare import Call
from minillmlib.deferred_imports import asyncio_module, logger
from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.generator import FRAMING_HEADERS, GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.transport.base import HttpRequest, HttpResponse, Transport
from minillmlib.types.costs import Attempt
from minillmlib.types.events import (
    AttemptEnded,
    AttemptStarted,
    BulkRunEnded,
    BulkRunStarted,
    CompletionEnded,
    CompletionStarted,
    CostUpdated,
    EventT,
    FirstByteReceived,
    HeadersReceived,
    ObservedEvent,
    Observer,
    ObserverLike,
    RequestSent,
    ToolEnded,
    ToolLoopEnded,
    ToolLoopStarted,
    ToolStarted,
    as_observer,
    without_content,
)
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.tools import ToolCall

MAX_KEPT_BYTES = 1_000_000  # of the body of a response
SAMPLING = (
    "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed",
    "stop",
)  # fmt: skip


class Observation:
    """An observer at work, from `observe`; `stop`, or leaving `with`, ends it."""

    def __init__(self, observer: Observer, *, everywhere: bool) -> None:
        self.observer = observer
        self._everywhere = everywhere

    def stop(self) -> None:
        """Tell the observer nothing further. May be called again."""
        if self._everywhere:
            observed_everywhere[:] = [each for each in observed_everywhere if each is not self]
        else:
            others = tuple(each for each in observed_here.get() if each is not self)
            observed_here.set(others)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Observation of {'everything' if self._everywhere else 'a context'}>"


# Each completion reads both when it begins. The list is never bound anew.
observed_everywhere: list[Observation] = []
observed_here: ContextVar[tuple[Observation, ...]] = ContextVar("observed_here", default=())

_parent: ContextVar[int | None] = ContextVar("parent", default=None)
_ids = itertools.count(1)


def observe(
    observer: ObserverLike, *, content: bool = False, everywhere: bool = False
) -> Observation:
    """Tell an observer, from now on, each step of what begins in this context.

    That is this task or thread, and the tasks that it starts meanwhile. Leaving `with`, or `stop`,
    ends it; what began before is told to its end. A generator has observers of its own by
    `with_observer`. An observer that is found twice is told once.

    Args:
        observer: A function of an event, or an `Observer`. It is called at once and must not wait.
            What it raises is logged and harms nothing.
        content: Whether a function also gets content: messages, headers and bodies, without the
            secrets of the call.
        everywhere: Whether to tell it of the whole process, in all threads and tasks.

    Examples:
        >>> def show(event):
        ...     print(type(event).__name__)
        >>> with observe(show):
        ...     answer = run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini")))
        CompletionStarted
        AttemptStarted
        RequestSent
        HeadersReceived
        FirstByteReceived
        AttemptEnded
        CompletionEnded
    """
    try:
        observation = Observation(as_observer(observer, content=content), everywhere=everywhere)
    finally:
        del observer  # it may be a misplaced key, and tracebacks show local variables
    if everywhere:
        observed_everywhere.append(observation)
    else:
        observed_here.set((*observed_here.get(), observation))
    return observation


def observers_of(generator: GeneratorInfo) -> tuple[Observer, ...]:
    """Return the observers of a call to a generator that begins now."""
    found = [each.observer for each in (*observed_everywhere, *observed_here.get())]
    found += generator.observers
    return tuple({id(each): each for each in found}.values())


class Emitter:
    """Tells some observers what happens to one thing, which has the number `id`."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self.id = next(_ids)
        self._observers = observers
        self._clock_offset = time.time() - time.monotonic()
        self._is_over = False
        self.wants_content = any(map(_wants_content, observers))

    def now(self) -> float:
        """Return the time since 1970, by a clock that never runs backwards."""
        return time.monotonic() + self._clock_offset

    def emit(self, event: ObservedEvent) -> None:
        """Tell all observers, and log what they raise."""
        for observer in self._observers:
            try:
                observer.on_event(self._strip_for(observer, event))
            except (Exception, asyncio_module().CancelledError) as error:  # noqa: BLE001 - the caller's code
                _log_failure(error)

    def _strip_for(self, observer: Observer, event: EventT) -> EventT:
        is_whole = not self.wants_content or _wants_content(observer)
        return event if is_whole else without_content(event)

    def adopt(self) -> None:
        """Make all that this task begins from now on a child of this."""
        _parent.set(self.id)

    @contextlib.contextmanager
    def as_parent(self) -> Iterator[None]:
        """Make what begins meanwhile a child of this."""
        token = _parent.set(self.id)
        try:
            yield
        finally:
            _parent.reset(token)


class CompletionEmitter(Emitter):
    """Tells of one completion.

    `response` and `error` are how it ended; without either, it was abandoned.
    """

    response: CompletionResponse | None = None
    error: MiniLLMError | None = None
    _pending: PendingAttempt | None = None  # the last one, whose secrets are to be redacted
    _watch: WatchedTransport | None = None
    _started = 0  # the number of the last attempt

    def __init__(self, call: Call) -> None:
        generator = self._generator = call.generator
        super().__init__(observers_of(generator))
        self.emit(
            CompletionStarted(
                id=self.id,
                at=self.now(),
                parent=_parent.get(),
                generator=generator.name,
                model=generator.model,
                base_url=generator.base_url,
                is_chat=generator.provider.capabilities.prompt_key is None,
                is_streamed=call.stream,
                choices=call.choices,
                parameters=_sampling(call.settings.params),
            )
        )

    def start_attempt(self, pending: PendingAttempt, prepared: PreparedRequest) -> None:
        """Tell that an attempt begins, and watch its exchange."""
        self._pending, self._started = pending, pending.number
        request, generator = prepared.request, pending.call.generator
        url = request.shown_url
        if pending.shows_secret(url.encode()):
            url = pending.redact(url)
        event = AttemptStarted(
            id=self.id,
            at=self.now(),
            number=pending.number,
            generator=generator.name,
            model=generator.model,
            method=request.method,
            url=url,
            sent_bytes=len(request.body),
        )
        if self.wants_content:
            event = msgspec.structs.replace(
                event,
                messages=self.redact(pending.call.messages),
                headers=self.redact({name: str(value) for name, value in request.headers}),
                body=self.redact(request.body),
            )
        self.emit(event)
        headers = self._request_headers(event, request)
        pending.add_secrets([value for _, value in headers if isinstance(value, Secret)])
        self._watch = WatchedTransport(self, pending, headers)
        pending.exchange.wrap_transport(self._watch.wrap)

    def redact(self, value: ValueT) -> ValueT | None:
        """Return content without the secrets of the last attempt; None if that fails.

        Without an attempt, as in a provider's batch, the secrets are those of the generator.
        """
        try:
            if self._pending is None:
                return _redactor_of(self._generator).redact_value(value)
            return self._pending.redact(value)
        except Exception as error:  # noqa: BLE001 - the call does not fail for what is shown of it
            logger().error("content cannot be shown to observers", exc_info=error)
            return None

    def _request_headers(
        self, event: AttemptStarted, request: HttpRequest
    ) -> list[tuple[str, str | Secret]]:
        taken: set[str] = set()
        headers: list[tuple[str, str | Secret]] = []
        for observer in self._observers:
            try:
                wanted = observer.request_headers(self._strip_for(observer, event))
                if wanted and not taken:
                    taken = {*FRAMING_HEADERS, *(name.lower() for name, _ in request.headers)}
                for name, value in wanted.items():
                    _check_header(name, value)
                    if name.lower() not in taken:
                        taken.add(name.lower())
                        headers.append((name, protect_header(name, value)))
            except (Exception, asyncio_module().CancelledError) as error:  # noqa: BLE001 - the caller's code
                _log_failure(error)
        return headers

    def end_attempt(self, attempt: Attempt) -> None:
        """Emit the end of an attempt, and before it the start of one that was never sent."""
        if attempt.number > self._started:
            self._started = attempt.number
            started = AttemptStarted(
                id=self.id,
                at=attempt.started_at,
                number=attempt.number,
                generator=attempt.generator,
                model=attempt.model,
                method="POST",
                url=attempt.url,
                sent_bytes=attempt.sent_bytes,
            )
            self.emit(started)
        watch, self._watch = self._watch, None
        body = None if watch is None else watch.take_body()
        self.emit(AttemptEnded(id=self.id, at=self.now(), attempt=attempt, body=body))

    def end(self, attempts: tuple[Attempt, ...]) -> None:
        """Emit the end of the completion, once."""
        if self._is_over:
            return
        self._is_over = True
        response, error = self.response, self.error
        event = CompletionEnded(id=self.id, at=self.now(), outcome="abandoned", attempts=attempts)
        if response is not None:
            reason = response.finish_reason
            event = msgspec.structs.replace(
                event,
                outcome="answered",
                finish_reason=None if reason is None else reason.value,
                model=response.model,
                response_id=response.id,
                usage=response.usage,
            )
        elif error is not None:
            event = msgspec.structs.replace(event, outcome="failed", error=type(error).__name__)
        if self.wants_content:
            event = msgspec.structs.replace(
                event,
                message=None if error is None else self.redact(str(error)),
                response=self.redact(response),
            )
        self.response = self.error = self._pending = None
        self.emit(event)

    def update_costs(self, before: tuple[Attempt, ...], after: tuple[Attempt, ...]) -> None:
        """Emit the costs that were published since."""
        for old, new in zip(before, after, strict=True):
            if new is not old:
                self.emit(CostUpdated(id=self.id, at=self.now(), attempt=new))


def _wants_content(observer: Observer) -> bool:
    try:
        return observer.wants_content
    except Exception as error:  # noqa: BLE001 - it may be a property of the caller's own
        _log_failure(error)
        return False


def _log_failure(error: BaseException) -> None:
    if not sys.is_finalizing():  # nothing can be imported then
        logger().error("an observer failed", exc_info=error)


def _check_header(name: str, value: str) -> None:
    problem = header_problem(name, value)
    if problem is not None:
        raise InvalidParameterError(problem)


def _redactor_of(generator: GeneratorInfo) -> Redactor:
    """Return the redactor of the generator's secrets, for texts outside an attempt."""
    try:
        secrets = secrets_for(generator, generator.credential.resolve())
    except MiniLLMError:  # then nothing was sent with them
        secrets = ()
    return Redactor(*secrets, known=f"{generator.base_url} {generator.model}")


def _sampling(params: CompletionParameters) -> dict[str, JsonValue]:
    values = {name: getattr(params, name) for name in SAMPLING}
    return {name: value for name, value in values.items() if value is not None}


class WatchedTransport:
    """The transport of one attempt; what happens to its request is told.

    `kept` is the body of the response so far, if content is wanted.
    """

    def __init__(
        self,
        emitter: CompletionEmitter,
        pending: PendingAttempt,
        headers: list[tuple[str, str | Secret]],
    ) -> None:
        self._emitter = emitter
        self._pending = pending
        self._headers = headers
        self.kept = bytearray() if emitter.wants_content else None

    def wrap(self, transport: Transport) -> Self:
        """Send through `transport`."""
        self._transport = transport
        return self

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Send with the observers' headers."""
        emitter, number = self._emitter, self._pending.number
        if self._headers:
            request = msgspec.structs.replace(request, headers=(*request.headers, *self._headers))
        emitter.emit(RequestSent(id=emitter.id, at=emitter.now(), number=number))
        response = await self._transport.send(request)
        headers = None if self.kept is None else emitter.redact(dict(response.headers))
        try:
            emitter.emit(
                HeadersReceived(
                    id=emitter.id,
                    at=emitter.now(),
                    number=number,
                    status=response.status,
                    headers=headers,
                )
            )
        except BaseException:  # Ctrl-C within an observer
            response.close()
            raise
        return _WatchedResponse(response, self)

    def take_body(self) -> bytes | None:
        """Return the body so far, without secrets, and keep it no longer."""
        kept, self.kept = self.kept, None  # frames of a user's error reference this
        return None if kept is None else self._emitter.redact(bytes(kept))

    def note_piece(self, piece: bytes, *, is_first: bool) -> None:
        """Keep a piece of the body, and tell of the first."""
        if is_first:
            emitter = self._emitter
            at, number = emitter.now(), self._pending.number
            emitter.emit(FirstByteReceived(id=emitter.id, at=at, number=number))
        if self.kept is not None and len(self.kept) < MAX_KEPT_BYTES:
            self.kept += piece[: MAX_KEPT_BYTES - len(self.kept)]


class _WatchedResponse:
    def __init__(self, response: HttpResponse, watch: WatchedTransport) -> None:
        self.status, self.headers = response.status, response.headers
        self.was_sent = getattr(response, "was_sent", True)
        self.accept = getattr(response, "accept", None)
        self.close = response.close
        self._read = response.read
        self._watch = watch
        self._has_begun = False

    async def read(self) -> bytes:
        piece = await self._read()
        if piece and (not self._has_begun or self._watch.kept is not None):
            is_first, self._has_begun = not self._has_begun, True
            self._watch.note_piece(piece, is_first=is_first)
        return piece


class ToolLoopEmitter(Emitter):
    """Tells of one tool loop."""

    def __init__(
        self, observers: tuple[Observer, ...], generator: GeneratorInfo, tools: tuple[str, ...]
    ) -> None:
        super().__init__(observers)
        self._generator = generator
        self.emit(
            ToolLoopStarted(
                id=self.id,
                at=self.now(),
                parent=_parent.get(),
                generator=generator.name,
                model=generator.model,
                tools=tools,
            )
        )

    def end(self, turns: int, error: BaseException | None) -> None:
        """Tell, once, that the loop has ended."""
        if not self._is_over:
            self._is_over = True
            name = None if error is None else type(error).__name__
            self.emit(ToolLoopEnded(id=self.id, at=self.now(), turns=turns, error=name))

    @contextlib.contextmanager
    def watch_tool(self, call: ToolCall) -> Iterator[Callable[[str, Exception | None], None]]:
        """Tell that a tool runs meanwhile. The function that is yielded takes how it ended."""
        tool = Emitter(self._observers)
        show = _redactor_of(self._generator).redact if self.wants_content else _hide
        tool.emit(
            ToolStarted(
                id=tool.id,
                at=tool.now(),
                parent=self.id,
                name=call.name,
                call_id=call.id,
                arguments=show(call.arguments),
            )
        )
        ended = ToolEnded(id=tool.id, at=0.0)

        def note_end(result: str, error: Exception | None) -> None:
            nonlocal ended
            name = None if error is None else type(error).__name__
            ended = ToolEnded(id=tool.id, at=0.0, error=name, result=show(result))

        try:
            with tool.as_parent():
                yield note_end
        except BaseException as error:
            ended = msgspec.structs.replace(ended, error=type(error).__name__)
            raise
        finally:
            tool.emit(msgspec.structs.replace(ended, at=tool.now()))


def _hide(_text: str) -> None:
    return None


class BulkRunEmitter(Emitter):
    """Tells of one bulk run."""

    def __init__(
        self, observers: tuple[Observer, ...], generator: GeneratorInfo, items: int | None
    ) -> None:
        super().__init__(observers)
        self.emit(
            BulkRunStarted(
                id=self.id,
                at=self.now(),
                parent=_parent.get(),
                generator=generator.name,
                model=generator.model,
                items=items,
            )
        )

    def end(self, done: int, failed: int, error: BaseException | None) -> None:
        """Tell, once, that the run has ended."""
        if not self._is_over:
            self._is_over = True
            name = None if error is None else type(error).__name__
            event = BulkRunEnded(id=self.id, at=self.now(), done=done, failed=failed, error=name)
            self.emit(event)
