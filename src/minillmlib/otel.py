"""Traces and metrics of OpenTelemetry, by its conventions for generative AI.

The names are those of open-telemetry/semantic-conventions-genai v0.1.0; what has no name there
begins with `minillmlib.`.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias, assert_never
from urllib.parse import urlsplit

from minillmlib.errors import InvalidParameterError, MissingExtraError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.costs import Attempt, AttemptOutcome, CostInfo, CostOutcome, CostResolution
from minillmlib.types.events import (
    AttemptEnded,
    AttemptStarted,
    BulkRunEnded,
    BulkRunStarted,
    CompletionEnded,
    CompletionStarted,
    CostUpdated,
    FirstByteReceived,
    HeadersReceived,
    ObservedEvent,
    Observer,
    RequestSent,
    ToolEnded,
    ToolLoopEnded,
    ToolLoopStarted,
    ToolStarted,
)
from minillmlib.types.media import Media
from minillmlib.types.messages import Message, TextPart
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.tools import ToolCall
from minillmlib.types.usage import Usage
from minillmlib.version import __version__

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    raise MissingExtraError(
        "OtelObserver needs opentelemetry-api: pip install 'minillmlib[otel]'"
    ) from None

__all__ = ["OtelObserver"]

Attributes: TypeAlias = dict[str, str | bool | int | float | list[str]]

# The names of the conventions, where they are not those of the presets.
PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock-mantle": "aws.bedrock",
    "bedrock-mantle-anthropic": "aws.bedrock",
    "bedrock-openai": "aws.bedrock",
    "claude_subscription": "anthropic",
    "deepseek-anthropic": "deepseek",
    "gemini-openai": "gcp.gemini",
    "kimi-anthropic": "moonshot_ai",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai-responses": "openai",
    "xai": "x_ai",
}
PARAMETERS = {"stop": "gen_ai.request.stop_sequences"}
SECS_BOUNDARIES = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
MAX_LATE = 1000  # completions whose cost may come later

_propagator = TraceContextTextMapPropagator()


class OtelObserver(Observer):
    """Turns what happens into spans and metrics of OpenTelemetry.

    A completion is a span, and each attempt a child of it; a tool loop, its tools and a bulk run
    are spans around them. Metrics count tokens, seconds and costs. A cost that is not
    known is never a 0: `minillmlib.cost.resolution` says so, and there is no amount. What the SDK
    does with all this is up to your program. Needs `minillmlib[otel]`.

        observe(OtelObserver(), everywhere=True)

    Args:
        tracer_provider: In place of the global one.
        meter_provider: In place of the global one.
        content: Whether spans show messages, answers, arguments and results, without secrets.
        propagate: Whether requests have the header `traceparent`, so that a server or gateway can
            continue the trace.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        content: bool = False,
        propagate: bool = True,
    ) -> None:
        _check_provider("tracer_provider", tracer_provider, "get_tracer")
        _check_provider("meter_provider", meter_provider, "get_meter")
        self.wants_content = content
        self._propagates = propagate
        self._tracer = trace.get_tracer("minillmlib", __version__, tracer_provider)
        self._meters = _Meters(metrics.get_meter("minillmlib", __version__, meter_provider))
        self._open: dict[int, _OpenSpan] = {}
        # Those that have ended, and may have to be told a cost.
        self._late: OrderedDict[int, _OpenSpan] = OrderedDict()

    def on_event(self, event: ObservedEvent) -> None:  # noqa: C901, PLR0912 - a table
        """Take an event."""
        match event:
            case CompletionStarted():
                self._start_completion(event)
            case AttemptStarted():
                self._start_attempt(event)
            case RequestSent():
                if (completion := self._open.get(event.id)) is not None:
                    completion.sent_at = event.at
            case HeadersReceived():
                pass  # the first byte follows soon
            case FirstByteReceived():
                if (completion := self._open.get(event.id)) is not None:
                    completion.first_byte_secs = event.at - completion.sent_at
            case AttemptEnded():
                self._end_attempt(event)
            case CompletionEnded():
                self._end_completion(event)
            case CostUpdated():
                self._update_cost(event)
            case ToolLoopStarted():
                attributes: Attributes = {
                    "gen_ai.operation.name": "invoke_agent",
                    **_model_attributes(event.generator, event.model),
                }
                self._start(event, "invoke_agent", attributes)
            case ToolLoopEnded():
                self._end(event, {"minillmlib.turns": event.turns}, event.error)
            case ToolStarted():
                self._start_tool(event)
            case ToolEnded():
                self._end_tool(event)
            case BulkRunStarted():
                attributes = _model_attributes(event.generator, event.model)
                if event.items is not None:
                    attributes["minillmlib.items"] = event.items
                self._start(event, "map_complete", attributes)
            case BulkRunEnded():
                counts: Attributes = {
                    "minillmlib.items.done": event.done,
                    "minillmlib.items.failed": event.failed,
                }
                self._end(event, counts, event.error)
            case _:
                assert_never(event)

    def request_headers(self, event: AttemptStarted) -> Mapping[str, str]:
        """Return `traceparent`, and `tracestate` if there is one."""
        headers: dict[str, str] = {}
        completion = self._open.get(event.id)
        if self._propagates and completion is not None and completion.attempt is not None:
            _propagator.inject(headers, trace.set_span_in_context(completion.attempt))
        return headers

    def _parent_context(self, parent: int | None) -> Context | None:
        """Return where a span belongs; None is the current context."""
        above = None if parent is None else self._open.get(parent)
        # The span of a tool is in the current context, perhaps with one of the tool's own.
        if above is None or above.is_tool:
            return None
        return trace.set_span_in_context(above.span)

    def _start(
        self,
        event: CompletionStarted | ToolLoopStarted | ToolStarted | BulkRunStarted,
        name: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> _OpenSpan:
        where = self._parent_context(event.parent)
        span = self._tracer.start_span(
            name, where, kind, attributes=attributes, start_time=_nanos(event.at)
        )
        opened = self._open[event.id] = _OpenSpan(span, event.at)
        return opened

    def _end(
        self, event: ToolLoopEnded | ToolEnded | BulkRunEnded, attributes: Attributes,
        error: str | None,
    ) -> None:  # fmt: skip
        opened = self._open.pop(event.id, None)
        if opened is not None:
            _end_span(opened.span, event.at, attributes, error)

    def _start_completion(self, event: CompletionStarted) -> None:
        operation = "chat" if event.is_chat else "text_completion"
        common: Attributes = {
            "gen_ai.operation.name": operation,
            **_model_attributes(event.generator, event.model),
            **_server_attributes(event.base_url),
        }
        attributes = dict(common)
        for name, value in event.parameters.items():
            attributes[PARAMETERS.get(name) or f"gen_ai.request.{name}"] = value
        if event.is_streamed:
            attributes["gen_ai.request.stream"] = True
        if event.choices != 1:
            attributes["gen_ai.request.choice.count"] = event.choices
        name = f"{operation} {event.model}"
        opened = self._start(event, name, attributes, SpanKind.CLIENT)
        opened.generator, opened.common = event.generator, common
        opened.is_streamed = event.is_streamed

    def _start_attempt(self, event: AttemptStarted) -> None:
        completion = self._open.get(event.id)
        if completion is None:
            return
        model = _model_attributes(event.generator, event.model)
        server = _server_attributes(event.url)
        if event.generator != completion.generator:  # a fallback
            completion.generator = event.generator
            completion.common = {**completion.common, **model, **server}
            completion.span.set_attributes(completion.common)
        attributes: Attributes = {
            "http.request.method": event.method,
            "url.full": event.url,
            **model,
            **server,
        }
        if event.number > 1:
            attributes["http.request.resend_count"] = event.number - 1
        if event.messages is not None and completion.span.is_recording():
            shown = _as_json([_message(each) for each in event.messages])
            completion.span.set_attribute("gen_ai.input.messages", shown)
        completion.first_byte_secs = None
        completion.attempt = self._tracer.start_span(
            event.method,
            trace.set_span_in_context(completion.span),
            SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanos(event.at),
        )

    def _end_attempt(self, event: AttemptEnded) -> None:
        completion, attempt = self._open.get(event.id), event.attempt
        if completion is None or completion.attempt is None:
            return
        span, completion.attempt = completion.attempt, None
        attributes: Attributes = {"minillmlib.outcome": attempt.outcome.value}
        if completion.first_byte_secs is not None:
            attributes["minillmlib.first_byte_secs"] = completion.first_byte_secs
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
        if attempt.cost is not None:
            attributes |= _cost_attributes(attempt.cost)
        _end_span(span, event.at, attributes, _error_of(attempt))
        if attempt.cost is not None:
            self._meters.record_cost(completion.common, attempt.cost)

    def _end_completion(self, event: CompletionEnded) -> None:
        completion = self._open.pop(event.id, None)
        if completion is None:
            return
        error = None if event.outcome == "answered" else event.error or event.outcome
        if completion.span.is_recording():
            attributes = _answer_attributes(event) | _total_attributes(event.attempts)
            if completion.first_chunk_secs is not None:
                attributes["gen_ai.response.time_to_first_chunk"] = completion.first_chunk_secs
            _end_span(completion.span, event.at, attributes, error, event.message or "")
        self._meters.record_completion(completion, event, error)
        costs = [attempt.cost for attempt in event.attempts if attempt.cost is not None]
        if any(cost.is_unknown for cost in costs):
            self._late[event.id] = completion
            if len(self._late) > MAX_LATE:
                self._late.popitem(last=False)

    def _update_cost(self, event: CostUpdated) -> None:
        """Add a span for a cost that came after the completion's own span had ended."""
        completion, cost = self._late.get(event.id), event.attempt.cost
        if completion is None or cost is None:
            return
        attributes = {"minillmlib.attempt": event.attempt.number, **_cost_attributes(cost)}
        where, at = trace.set_span_in_context(completion.span), _nanos(event.at)
        span = self._tracer.start_span("cost", where, attributes=attributes, start_time=at)
        span.end(at)
        self._meters.record_cost(completion.common, cost, is_late=True)

    def _start_tool(self, event: ToolStarted) -> None:
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": event.name,
            "gen_ai.tool.call.id": event.call_id,
            "gen_ai.tool.type": "function",
        }
        if event.arguments is not None:
            attributes["gen_ai.tool.call.arguments"] = event.arguments
        opened = self._start(event, f"execute_tool {event.name}", attributes)
        opened.is_tool = True
        # A tool has a task of its own, whose context ends with it: there is nothing to detach.
        context.attach(trace.set_span_in_context(opened.span))

    def _end_tool(self, event: ToolEnded) -> None:
        has_result = event.result is not None and event.error is None
        result: Attributes = {"gen_ai.tool.call.result": event.result or ""} if has_result else {}
        self._end(event, result, event.error)


class _OpenSpan:
    """A span that has not ended, and what later events need of it."""

    __slots__ = (
        "attempt", "common", "first_byte_secs", "generator", "is_streamed", "is_tool", "sent_at",
        "span", "started_at",
    )  # fmt: skip

    def __init__(self, span: Span, started_at: float) -> None:
        self.span = span
        self.started_at = self.sent_at = started_at
        self.attempt: Span | None = None
        self.common: Attributes = {}  # of the span and the metrics
        self.generator = ""
        self.is_streamed = self.is_tool = False
        self.first_byte_secs: float | None = None  # of the last attempt

    @property
    def first_chunk_secs(self) -> float | None:
        """The delay of the first chunk, if it is a stream."""
        return self.first_byte_secs if self.is_streamed else None


def _check_provider(name: str, provider: object, method: str) -> None:
    if provider is not None and not hasattr(provider, method):
        raise InvalidParameterError(
            f"{name} must have a method {method}, which {provider!r:.80} has not"
        )


class _Meters:
    def __init__(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.inference.duration",
            "s",
            "Duration of a completion with all its attempts.",
            explicit_bucket_boundaries_advisory=SECS_BOUNDARIES,
        )
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.inference.time_to_first_chunk",
            "s",
            "Time from sending the request to the first byte of the stream.",
            explicit_bucket_boundaries_advisory=SECS_BOUNDARIES,
        )
        usage = "gen_ai.client.inference.usage."
        self._input = meter.create_counter(
            f"{usage}input_tokens", "{token}", "Input tokens, cached ones included."
        )
        self._output = meter.create_counter(
            f"{usage}output_tokens", "{token}", "Output tokens, reasoning included."
        )
        self._cache_read = meter.create_counter(
            f"{usage}cache_read.input_tokens", "{token}", "Input tokens read from a cache."
        )
        self._cache_write = meter.create_counter(
            f"{usage}cache_write.input_tokens", "{token}", "Input tokens written to a cache."
        )
        self._reasoning = meter.create_counter(
            f"{usage}reasoning.output_tokens", "{token}", "Output tokens of reasoning."
        )
        self._cost = meter.create_counter("minillmlib.cost", "USD", "Costs that are known.")
        self._missing = meter.create_up_down_counter(
            "minillmlib.cost.missing", "{request}", "Requests whose cost is not in minillmlib.cost."
        )

    def record_cost(self, common: Attributes, cost: CostOutcome, *, is_late: bool = False) -> None:
        """Count what is known for certain, an amount and final tokens; else that it is missing."""
        attributes = _model_of(common)
        if is_late:
            unknown = CostResolution.UNKNOWN.value
            self._missing.add(-1, {**attributes, "minillmlib.cost.resolution": unknown})
        if cost.resolution is CostResolution.RESOLVED:
            if cost.source is not None:
                attributes["minillmlib.cost.source"] = cost.source
            self._cost.add(float(cost.cost), attributes)
        else:
            attributes["minillmlib.cost.resolution"] = cost.resolution.value
            self._missing.add(1, attributes)
        if cost.usage is not None:
            attributes = {
                "gen_ai.operation.name": common["gen_ai.operation.name"],
                "gen_ai.token.modality": "unknown",
                **_model_of(common),
            }
            self._record_usage(attributes, cost.usage)

    def _record_usage(self, attributes: Attributes, usage: Usage) -> None:
        self._input.add(usage.prompt_tokens, attributes)
        self._output.add(usage.completion_tokens, attributes)
        if usage.cache_read_tokens:
            self._cache_read.add(usage.cache_read_tokens, attributes)
        if usage.cache_write_tokens:
            self._cache_write.add(usage.cache_write_tokens, attributes)
        if usage.reasoning_tokens:
            self._reasoning.add(usage.reasoning_tokens, attributes)

    def record_completion(
        self, completion: _OpenSpan, event: CompletionEnded, error: str | None
    ) -> None:
        attributes = dict(completion.common)
        if event.model:
            attributes["gen_ai.response.model"] = event.model
        if completion.first_chunk_secs is not None:
            self._first_chunk.record(completion.first_chunk_secs, attributes)
        if error is not None:
            attributes["error.type"] = error
        self._duration.record(event.at - completion.started_at, attributes)


def _nanos(at: float) -> int:
    return int(at * 1e9)


def _end_span(
    span: Span, at: float, attributes: Attributes, error: str | None, message: str = ""
) -> None:
    if error is not None:
        attributes["error.type"] = error
        span.set_status(StatusCode.ERROR, message or None)
    span.set_attributes(attributes)
    span.end(_nanos(at))


def _error_of(attempt: Attempt) -> str | None:
    if attempt.outcome is AttemptOutcome.ANSWERED:
        return None
    return attempt.error or attempt.outcome.value


@lru_cache(maxsize=256)
def _provider_of(generator: str) -> str:
    return PROVIDERS.get(generator, generator)


def _model_of(common: Attributes) -> Attributes:
    return {name: common[name] for name in ("gen_ai.provider.name", "gen_ai.request.model")}


def _model_attributes(generator: str, model: str) -> Attributes:
    return {"gen_ai.provider.name": _provider_of(generator), "gen_ai.request.model": model}


@lru_cache(maxsize=256)
def _server_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _server_attributes(url: str) -> Attributes:
    address, port = _server_of(url)
    return {"server.address": address, "server.port": port}


def _cost_attributes(cost: CostOutcome) -> Attributes:
    """Return what is known of a cost: an amount only if it is one."""
    attributes: Attributes = {"minillmlib.cost.resolution": cost.resolution.value}
    if cost.resolution is CostResolution.RESOLVED:
        attributes["minillmlib.cost.usd"] = float(cost.cost)
    elif cost.minimum_cost:
        attributes["minillmlib.cost.minimum_usd"] = float(cost.minimum_cost)
    if cost.source is not None:
        attributes["minillmlib.cost.source"] = cost.source
    return attributes


def _total_attributes(attempts: tuple[Attempt, ...]) -> Attributes:
    counted: Attributes = {"minillmlib.attempts": len(attempts)}
    costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
    if len(costs) == 1:
        return counted | _cost_attributes(costs[0])
    info = CostInfo.of(attempts)
    counted["minillmlib.cost.resolution"] = info.resolution.value
    if info.resolution is CostResolution.RESOLVED:
        counted["minillmlib.cost.usd"] = float(info.cost)
    elif info.cost:
        counted["minillmlib.cost.minimum_usd"] = float(info.cost)
    return counted


def _answer_attributes(event: CompletionEnded) -> Attributes:
    attributes: Attributes = {}
    if event.model:
        attributes["gen_ai.response.model"] = event.model
    if event.response_id:
        attributes["gen_ai.response.id"] = event.response_id
    if event.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = [event.finish_reason]
    usage = event.usage
    if usage is not None:
        attributes["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        attributes["gen_ai.usage.output_tokens"] = usage.completion_tokens
        if usage.cache_read_tokens:
            attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
        if usage.cache_write_tokens:
            attributes["gen_ai.usage.cache_write.input_tokens"] = usage.cache_write_tokens
        if usage.reasoning_tokens:
            attributes["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    if event.response is not None:
        attributes["gen_ai.output.messages"] = _as_json([_answer(event.response)])
    return attributes


def _as_json(value: JsonValue) -> str:
    # A lone surrogate, which a model may write, cannot be exported.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _answer(response: CompletionResponse) -> JsonObject:
    reason = response.finish_reason
    return {
        "role": "assistant",
        "parts": [
            *([{"type": "reasoning", "content": response.reasoning}] if response.reasoning else []),
            *([{"type": "text", "content": response.text}] if response.text else []),
            *map(_tool_call, response.tool_calls),
            *map(_media, response.media),
        ],
        # The word of the schema of messages, which is in the singular.
        "finish_reason": "tool_call" if reason == "tool_calls" else reason or "",
    }


def _message(message: Message) -> JsonObject:
    parts: list[JsonValue]
    if message.tool_call_id is not None:
        response = {"type": "tool_call_response", "id": message.tool_call_id}
        parts = [{**response, "response": message.text or ""}]
    elif isinstance(message.content, str):
        parts = [{"type": "text", "content": message.content}] if message.content else []
    else:
        parts = [
            {"type": "text", "content": part.text} if isinstance(part, TextPart) else _media(part)
            for part in message.content
        ]
    parts += [*map(_tool_call, message.tool_calls), *map(_media, message.media)]
    return {"role": message.role.value, "parts": parts}


def _tool_call(call: ToolCall) -> JsonObject:
    arguments: JsonValue = call.arguments
    with suppress(ValueError, RecursionError):  # else it stays as the model wrote it
        arguments = json.loads(call.arguments)
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}


def _media(part: Media) -> JsonObject:
    """Return a part without its bytes, which would make spans too large to be exported."""
    if part.url is not None:
        return {"type": "uri", "modality": part.kind, "uri": part.url}
    return {"type": "media", "modality": part.kind, "bytes": len(part.data or b"")}
