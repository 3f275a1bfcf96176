"""Every place in which a key could come to light after a call, as texts to look through."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import json
import logging
import pickle
import traceback
import types
import warnings
from asyncio import AbstractEventLoop, Future, Handle
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import TypeAlias

import msgspec
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from minillmlib import (
    ChatNode,
    CostInfo,
    GeneratorInfo,
    HttpRequest,
    HttpResponse,
    ObservedEvent,
    Secret,
    Transport,
    log_requests,
    observe,
)
from minillmlib.otel import OtelObserver

__all__ = ["SINKS", "Catch", "Surroundings", "Witness", "watched"]

Text: TypeAlias = str | bytes | bytearray
MOST_DEPTH = 6
call_at_work: ContextVar[str | None] = ContextVar("call_at_work", default=None)
HERE = str(Path(__file__).parents[1])

# What holds a key because it must, what belongs to the test, and what leads to everything.
_OUTSIDE = (
    AbstractEventLoop, Future, Handle, GeneratorInfo, Secret,
    type, types.ModuleType, types.BuiltinFunctionType, property,
)  # fmt: skip
_WITHOUT_TEXT = (int, float, complex, Decimal, Enum, type(None))


@dataclass
class Surroundings:
    """What was logged, warned of and printed meanwhile, for all calls that ran."""

    records: list[logging.LogRecord] = field(default_factory=list)
    warned: list[warnings.WarningMessage] = field(default_factory=list)
    printed: io.StringIO = field(default_factory=io.StringIO)
    events: list[tuple[str | None, ObservedEvent]] = field(default_factory=list)
    whole_events: list[tuple[str | None, ObservedEvent]] = field(default_factory=list)
    spans: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    meters: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)


@dataclass
class Catch:
    """What one call left behind."""

    name: str
    generator: GeneratorInfo
    transport: Transport
    surroundings: Surroundings
    error: BaseException | None = None
    requests: list[str] = field(default_factory=list)
    costs: list[CostInfo] = field(default_factory=list)
    values: list[object] = field(default_factory=list)
    """Nodes, responses, streams, chunks: what the caller holds besides the error."""
    files: list[Path] = field(default_factory=list)
    """What was recorded."""

    @cached_property
    def on_error(self) -> list[object]:
        return list(_walk(self.error))

    @cached_property
    def on_values(self) -> list[object]:
        return list(_walk(*self.values, *self.costs))

    @cached_property
    def unfolded(self) -> list[tuple[traceback.TracebackException, bool]]:
        """The error and those behind it, each with its frames, and whether a traceback shows it."""
        if self.error is None:
            return []
        whole = traceback.TracebackException.from_exception(self.error, capture_locals=True)
        found, waiting = [], [(whole, True)]
        while waiting:
            each, is_shown = waiting.pop()
            found.append((each, is_shown))
            if each.__cause__ is not None:
                waiting.append((each.__cause__, is_shown))
            if each.__context__ is not None:
                follows = each.__cause__ is None and not each.__suppress_context__
                waiting.append((each.__context__, is_shown and follows))
        return found

    @property
    def records(self) -> list[logging.LogRecord]:
        """What was logged in this call's context, or in nobody's."""
        names = (self.name, None)
        return [record for record in self.surroundings.records if record.call in names]

    def told(self, events: list[tuple[str | None, ObservedEvent]]) -> list[ObservedEvent]:
        """What observers were told in this call's context, or in nobody's."""
        return [event for name, event in events if name in (self.name, None)]


class Witness:
    """A transport that writes down how each request shows itself, and passes it on."""

    def __init__(self, engine: Transport, requests: list[str]) -> None:
        self._engine = engine
        self._requests = requests

    async def send(self, request: HttpRequest) -> HttpResponse:
        self._requests += (repr(request), str(request), f"{request}", repr(request.headers))
        return await self._engine.send(request)


class _Recorder(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        record.call = call_at_work.get()
        self._records.append(record)


@contextlib.contextmanager
def watched(*, logs_bodies: bool = True) -> Iterator[Surroundings]:
    """Hears every logger at DEBUG, every warning, every print and every observer."""
    seen = Surroundings()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(seen.spans))
    meters = MeterProvider([seen.meters], shutdown_on_exit=False)
    otel = OtelObserver(tracer_provider=tracers, meter_provider=meters, content=True)
    recorder = _Recorder(seen.records)
    root = logging.getLogger()
    loggers = [root, *(each for each in root.manager.loggerDict.values() if hasattr(each, "level"))]
    levels = [each.level for each in loggers]
    handlers, root.handlers = root.handlers, [recorder]  # the key is to go nowhere else
    for each in loggers:
        each.setLevel(logging.DEBUG)
    try:
        with (
            observe(lambda event: seen.events.append((call_at_work.get(), event)), everywhere=True),
            observe(
                lambda event: seen.whole_events.append((call_at_work.get(), event)),
                content=True,
                everywhere=True,
            ),
            observe(otel, everywhere=True),
            log_requests() if logs_bodies else contextlib.nullcontext(),
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stdout(seen.printed),
            contextlib.redirect_stderr(seen.printed),
        ):
            warnings.simplefilter("always")
            yield seen
    finally:
        seen.warned += warned
        root.handlers = handlers
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that hang on it, also those that a traceback would leave out."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or any(each is other for other in found):
            continue
        found.append(each)
        waiting += (each.__cause__, each.__context__, getattr(each, "last_error", None))
        waiting += getattr(each, "exceptions", ())
    return found


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The public attributes of a class that are no methods."""
    names = (name for name in dir(kind) if not name.startswith("_"))
    return tuple(name for name in names if not callable(getattr(kind, name, None)))


def _parts(value: object) -> Iterator[object]:
    """What an object holds: items, fields and attributes; of an error also the private ones."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, BaseException):
        yield from (value.args, vars(value), value.__cause__, value.__context__)
    else:
        own = getattr(value, "__dict__", {})
        yield from (part for name, part in own.items() if not name.startswith("_"))
    for name in _names(type(value)):
        with contextlib.suppress(Exception):
            yield getattr(value, name)


def _walk(*roots: object) -> Iterator[object]:
    """Everything to be had from the roots by attributes, six steps deep."""
    level, seen = list(roots), set()
    for _ in range(MOST_DEPTH + 1):
        below: list[object] = []
        for value in level:
            if id(value) in seen or isinstance(value, (*_OUTSIDE, *_WITHOUT_TEXT)):
                continue
            seen.add(id(value))
            yield value
            if not isinstance(value, str | bytes):
                below += _parts(value)
        level = below


def _texts(values: Iterable[object]) -> Iterator[Text]:
    return (value for value in values if isinstance(value, str | bytes | bytearray))


def _shown(values: Iterable[object]) -> Iterator[str]:
    """How everything among the values shows itself."""
    for value in values:
        if not isinstance(value, str | bytes):
            yield from (repr(value), str(value))
            with contextlib.suppress(TypeError):
                yield f"{value}"


def _pickled(*values: object) -> Iterator[bytes]:
    for value in values:
        for protocol in (0, pickle.HIGHEST_PROTOCOL):
            with contextlib.suppress(Exception):  # to refuse is right, too
                yield pickle.dumps(value, protocol)


def _copied(*values: object) -> Iterator[Text]:
    for value in values:
        for make in (copy.copy, copy.deepcopy):
            with contextlib.suppress(Exception):
                yield from _texts(_walk(make(value)))


def _encoded(*values: object) -> Iterator[Text]:
    """As JSON and as plain values by msgspec, strictly and with a hook."""
    for value in values:
        for make in (
            msgspec.json.encode,
            lambda value: msgspec.json.encode(value, enc_hook=repr),
            lambda value: repr(msgspec.to_builtins(value)),
            lambda value: repr(msgspec.structs.asdict(value)),
        ):
            with contextlib.suppress(Exception):
                yield make(value)


def _as_json(*values: object) -> Iterator[str]:
    for value in values:
        for default in (str, repr, vars):
            with contextlib.suppress(Exception):
                yield json.dumps(value, default=default)


def _said(catch: Catch) -> Iterator[str]:
    for error in _chain(catch.error):
        yield from (str(error), f"{error}", "%s" % error)  # noqa: UP031 - one more way


def _variables(error: traceback.TracebackException) -> Iterator[str]:
    for frame in error.stack:
        if not frame.filename.startswith(HERE):  # the test's own hold the key
            yield from (f"{frame.name}: {k} = {v}" for k, v in (frame.locals or {}).items())


def _with_locals(catch: Catch, *, shown: bool) -> Iterator[str]:
    """The variables in every frame, of the errors that a traceback shows or of the others."""
    for error, is_shown in catch.unfolded:
        if is_shown is shown:
            yield from _variables(error)


def _traceback(catch: Catch) -> Iterator[str]:
    for error, _ in catch.unfolded:
        yield from error.format_exception_only()
        yield from (f"{frame.line}" for frame in error.stack)


def _logged(catch: Catch) -> Iterator[str]:
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    for record in catch.records:
        yield formatter.format(record)


def _log_fields(catch: Catch) -> Iterator[str]:
    for record in catch.records:
        yield repr({**vars(record), "exc_text": None, "call": None})
        if record.exc_info and record.exc_info[1]:
            again = replace(catch, error=record.exc_info[1])
            yield from _with_locals(again, shown=True)


def _warned(catch: Catch) -> Iterator[str]:
    for warning in catch.surroundings.warned:
        yield from (str(warning.message), repr(warning), repr(warning.source))


def _generator(catch: Catch) -> Iterator[str]:
    generator = catch.generator
    yield from (repr(generator), str(generator), f"{generator}", repr([generator]))
    yield from (repr(generator.provider), repr(vars(generator.provider)))


def _credential(catch: Catch) -> Iterator[Text]:
    credential = catch.generator.credential
    yield from (repr(credential), str(credential), f"{credential}", repr(dir(credential)))
    yield from _pickled(credential)
    yield from _encoded(credential)
    with contextlib.suppress(Exception):  # a key that no header can carry
        auth = credential.resolve()
        yield from (repr(auth), str(auth), f"{auth}", repr(auth.secret()), str(auth.secret()))
        yield from _pickled(auth)
        yield from _encoded(auth, auth.secret())


def _transport(catch: Catch) -> Iterator[str]:
    yield from (repr(catch.transport), str(catch.transport), repr(vars(catch.transport)))


def _held(catch: Catch, *, frames: bool) -> Iterator[Text]:
    """Every text that the error keeps alive, with or without the frames of its tracebacks."""
    outside = {id(each) for each in (catch.transport, catch.surroundings, vars(catch), catch)}
    waiting: list[object] = [catch.error, *catch.costs]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or id(value) in outside or isinstance(value, _OUTSIDE):
            continue
        seen.add(id(value))
        if isinstance(value, str | bytes | bytearray):
            yield value
        elif isinstance(value, types.TracebackType):
            waiting += _locals(value) if frames else ()
        elif isinstance(value, types.FunctionType):
            waiting += (value.__closure__, value.__defaults__, value.__kwdefaults__)
        elif not isinstance(value, types.FrameType) and not _is_of_tests(value):
            waiting += gc.get_referents(value)


def _locals(trace: types.TracebackType | None) -> Iterator[object]:
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(HERE):
            yield from trace.tb_frame.f_locals.values()
        trace = trace.tb_next


def _is_of_tests(value: object) -> bool:
    return type(value).__module__.startswith(("loopback", "secret_", "test_", "tests.", "_pytest"))


def _preview(catch: Catch) -> Iterator[Text]:
    with contextlib.suppress(Exception):  # as the call does
        preview = ChatNode.root("s").add_user("u").preview_request(catch.generator)
        yield from (repr(preview), str(preview), preview.data, repr(preview.headers))


def _observed(events: list[ObservedEvent]) -> Iterator[Text]:
    found = list(_walk(*events))
    yield from _texts(found)
    yield from _shown(events)
    yield from _pickled(*events)
    yield from _encoded(*events)


def _measured(catch: Catch) -> Iterator[str]:
    data = catch.surroundings.meters.get_metrics_data()
    if data is not None:
        yield data.to_json()


def _values(catch: Catch) -> list[object]:
    return [*catch.values, *catch.costs]


# The error means it and every other that hangs on it.
SINKS: dict[str, Callable[[Catch], Iterable[Text]]] = {
    "the error's text": _said,
    "the error's repr": lambda catch: map(repr, _chain(catch.error)),
    "the error's args": lambda catch: (repr(error.args) for error in _chain(catch.error)),
    "the error's vars": lambda catch: (repr(vars(error)) for error in _chain(catch.error)),
    "the error's notes": lambda catch: (
        repr(getattr(error, "__notes__", None)) for error in _chain(catch.error)
    ),
    "the error's attributes": lambda catch: _texts(catch.on_error),
    "the text forms of what is on the error": lambda catch: _shown(catch.on_error),
    "the error pickled": lambda catch: _pickled(*_chain(catch.error)),
    "the error copied": lambda catch: _copied(*_chain(catch.error)),
    "the error by msgspec": lambda catch: _encoded(*map(vars, _chain(catch.error))),
    "the error by json": lambda catch: _as_json(*map(vars, _chain(catch.error))),
    "the traceback": _traceback,
    "the traceback with variables": lambda catch: _with_locals(catch, shown=True),
    "the tracebacks behind it": lambda catch: _with_locals(catch, shown=False),
    "what the error keeps alive": lambda catch: _held(catch, frames=False),
    "what its frames keep alive": lambda catch: _held(catch, frames=True),
    "the log": _logged,
    "the fields of the log": _log_fields,
    "warnings": _warned,
    "what was printed": lambda catch: [catch.surroundings.printed.getvalue()],
    "the generator": _generator,
    "the credential": _credential,
    "the transport": _transport,
    "the preview of the request": _preview,
    "events": lambda catch: _observed(catch.told(catch.surroundings.events)),
    "events with content": lambda catch: _observed(catch.told(catch.surroundings.whole_events)),
    "spans": lambda catch: (
        span.to_json() for span in catch.surroundings.spans.get_finished_spans()
    ),
    "metrics": _measured,
    "the requests": lambda catch: catch.requests,
    "costs, nodes, responses and streams": lambda catch: _shown(catch.on_values),
    "their attributes": lambda catch: _texts(catch.on_values),
    "their JSON": lambda catch: _encoded(*_values(catch)),
    "recordings and caches": lambda catch: (path.read_bytes() for path in catch.files),
    "their pickles": lambda catch: _pickled(*_values(catch)),
}  # fmt: skip
