"""Spans and metrics of OpenTelemetry, read back from its SDK, by the names of its conventions."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import SpanKind, StatusCode, TraceState
from tool_scripts import add, call, greet, model, says

import minillmlib
from minillmlib import (
    Attempt,
    AttemptEnded,
    AttemptOutcome,
    AttemptStarted,
    AudioPart,
    BulkRunEnded,
    BulkRunStarted,
    ChatNode,
    CompletionEnded,
    CompletionParameters,
    CompletionResponse,
    CompletionStarted,
    CostOutcome,
    CostUpdated,
    FinishReason,
    FirstByteReceived,
    GeneratorInfo,
    HeadersReceived,
    ImagePart,
    InvalidParameterError,
    Message,
    MiniLLMError,
    MissingExtraError,
    NodeCompletionParameters,
    RequestSent,
    TextPart,
    TokenPrice,
    ToolCall,
    ToolEnded,
    ToolLoopEnded,
    ToolLoopStarted,
    ToolStarted,
    Usage,
    map_complete,
    observe,
)
from minillmlib.otel import PROVIDERS, OtelObserver
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import ScriptedReply, ScriptedTransport

HERE = Path(__file__).parents[1] / "support" / "genai_conventions.txt"
OWN = GeneratorInfo.custom("own", "https://own.example:8443/v1", "m")
PRICED = OWN.with_token_price(TokenPrice(1, 5, source="a list of May"))
USAGE = {"prompt_tokens": 100, "completion_tokens": 10}
BUSY = ScriptedReply.json({"error": {"message": "slow down"}}, status=429)
ONCE_MORE = NodeCompletionParameters(retry=1, back_off_time=0)


def conventions(kind: str) -> set[str]:
    lines = HERE.read_text().splitlines()
    return {line.split()[1] for line in lines if line.startswith(f"{kind} ")}


GENERAL = {
    value
    for module in (error_attributes, http_attributes, server_attributes, url_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


@dataclass
class Sdk:
    """The SDK as a program sets it up, with exporters that keep everything."""

    spans_: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self):
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans_))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def observer(self, **switches) -> OtelObserver:
        return OtelObserver(tracer_provider=self.tracers, meter_provider=self.meters, **switches)

    @property
    def spans(self) -> dict[str, object]:
        """The spans by name; of those with one name, the last."""
        return {span.name: span for span in self.spans_.get_finished_spans()}

    def named(self, name: str) -> list[object]:
        return [span for span in self.spans_.get_finished_spans() if span.name == name]

    def points(self) -> dict[str, list[tuple[dict, object]]]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: [(dict(point.attributes), point) for point in metric.data.data_points]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def check_names(self) -> None:
        """That each name is one of the conventions, or begins with ours."""
        known = conventions("attribute") | GENERAL
        attributes = [span.attributes for span in self.spans_.get_finished_spans()]
        for name, points in self.points().items():
            assert name in conventions("metric") or name.startswith("minillmlib."), name
            attributes += [point for point, _ in points]
        assert attributes
        for each in attributes:
            for name in each:
                assert name in known or name.startswith("minillmlib."), name
            operation = each.get("gen_ai.operation.name")
            assert operation is None or operation in conventions("operation")


@pytest.fixture
def sdk():
    """The SDK, whose names are checked at the end."""
    sdk = Sdk()
    yield sdk
    sdk.check_names()


def answer(text: str = "Paris.", usage: object = USAGE, **more: object) -> ScriptedReply:
    choice = {"index": 0, "message": {"content": text, **more}, "finish_reason": "stop"}
    body = {"id": "c-1", "model": "m-2", "choices": [choice]}
    return ScriptedReply.json({**body, "usage": usage} if usage else body)


def stream_of(*words: str, end: bool = True) -> ScriptedReply:
    events = [{"id": "s-1", "choices": [{"delta": {"content": word}}]} for word in words]
    if end:
        events.append({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(each) for each in events))


def on(*replies: ScriptedReply, generator: GeneratorInfo = PRICED) -> GeneratorInfo:
    return generator.with_transport(ScriptedTransport(replies))


async def test_a_whole_answer(sdk):
    params = CompletionParameters(
        max_tokens=9, temperature=0.5, top_p=0.9, top_k=3, seed=7, stop=["END"],
        frequency_penalty=0.1, presence_penalty=0.2,
    )  # fmt: skip
    with observe(sdk.observer()):
        await ChatNode.root("s").chat("u", on(answer()), params)
    attempt, completion = sdk.spans_.get_finished_spans()
    assert (completion.name, completion.kind) == ("chat m", SpanKind.CLIENT)
    assert completion.parent is None
    assert dict(completion.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "own",
        "gen_ai.request.model": "m",
        "server.address": "own.example",
        "server.port": 8443,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 3,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.response.model": "m-2",
        "gen_ai.response.id": "c-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        "minillmlib.attempts": 1,
        "minillmlib.cost.resolution": "resolved",
        "minillmlib.cost.usd": 0.00015,
        "minillmlib.cost.source": "a list of May",
    }
    assert (attempt.name, attempt.kind) == ("POST", SpanKind.CLIENT)
    assert attempt.parent.span_id == completion.context.span_id
    shown = dict(attempt.attributes)
    assert 0 <= shown.pop("minillmlib.first_byte_secs") < 1
    assert shown == {
        "http.request.method": "POST",
        "url.full": "https://own.example:8443/v1/chat/completions",
        "server.address": "own.example",
        "server.port": 8443,
        "gen_ai.provider.name": "own",
        "gen_ai.request.model": "m",
        "minillmlib.outcome": "answered",
        "http.response.status_code": 200,
        "minillmlib.cost.resolution": "resolved",
        "minillmlib.cost.usd": 0.00015,
        "minillmlib.cost.source": "a list of May",
    }
    assert completion.start_time <= attempt.start_time <= attempt.end_time <= completion.end_time
    assert completion.status.status_code is attempt.status.status_code is StatusCode.UNSET
    model = {"gen_ai.provider.name": "own", "gen_ai.request.model": "m"}
    chat = {"gen_ai.operation.name": "chat", **model}
    points = sdk.points()
    ((where, cost),) = points["minillmlib.cost"]
    assert cost.value == 0.00015
    assert where == {**model, "minillmlib.cost.source": "a list of May"}
    assert "minillmlib.cost.missing" not in points
    for name, count in (("input_tokens", 100), ("output_tokens", 10)):
        ((where, tokens),) = points[f"gen_ai.client.inference.usage.{name}"]
        assert (where, tokens.value) == ({**chat, "gen_ai.token.modality": "unknown"}, count)
    ((where, duration),) = points["gen_ai.client.inference.duration"]
    assert where == {
        **chat, "server.address": "own.example", "server.port": 8443, "gen_ai.response.model": "m-2"
    }  # fmt: skip
    assert duration.count == 1
    assert duration.explicit_bounds[0] == 0.01
    assert "gen_ai.client.inference.time_to_first_chunk" not in points


async def test_a_stream(sdk):
    with observe(sdk.observer()):
        await ChatNode.root("s").chat_streaming("u", on(stream_of("a", "b"))).collect()
    shown = sdk.spans["chat m"].attributes
    assert shown["gen_ai.request.stream"] is True
    assert 0 <= shown["gen_ai.response.time_to_first_chunk"] < 1
    assert shown["gen_ai.usage.output_tokens"] == 10
    assert sdk.points()["gen_ai.client.inference.time_to_first_chunk"][0][1].count == 1


async def test_an_answer_after_a_retry(sdk):
    with observe(sdk.observer()):
        await ChatNode.root("s").chat("u", on(BUSY, answer()), ONCE_MORE)
    first, second = sdk.named("POST")
    assert (
        dict(first.attributes).keys() & {"minillmlib.cost.usd", "minillmlib.cost.resolution"}
        == set()
    )
    assert first.attributes["error.type"] == "RateLimitError"
    assert first.attributes["http.response.status_code"] == 429
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["http.request.resend_count"] == 1
    (completion,) = sdk.named("chat m")
    assert completion.attributes["minillmlib.attempts"] == 2
    assert completion.attributes["minillmlib.cost.usd"] == 0.00015
    assert completion.status.status_code is StatusCode.UNSET
    assert [span.attributes["minillmlib.outcome"] for span in (first, second)] == [
        "denied", "answered"
    ]  # fmt: skip
    points = sdk.points()
    assert points["minillmlib.cost"][0][1].value == 0.00015
    assert "minillmlib.cost.missing" not in points, "a 429 is not billed"


async def test_a_failure(sdk):
    with observe(sdk.observer()), pytest.raises(MiniLLMError):
        await ChatNode.root("s").chat("u", on(BUSY), NodeCompletionParameters(retry=0))
    completion = sdk.spans["chat m"]
    assert completion.attributes["error.type"] == "RateLimitError"
    assert completion.status.status_code is StatusCode.ERROR
    assert completion.status.description is None, "what the server said is content"
    # Nothing can have been billed: this zero is known.
    assert completion.attributes["minillmlib.cost.usd"] == 0
    ((where, _),) = sdk.points()["gen_ai.client.inference.duration"]
    assert where["error.type"] == "RateLimitError"
    assert "minillmlib.cost" not in sdk.points()


@pytest.mark.parametrize(
    ("generator", "usage", "resolution"), [(OWN, USAGE, "unpriced"), (PRICED, None, "unknown")]
)
async def test_a_cost_that_is_not_known_is_no_zero(sdk, generator, usage, resolution):
    with observe(sdk.observer()):
        await ChatNode.root("s").chat("u", on(answer(usage=usage), generator=generator))
    for span in (sdk.spans["chat m"], sdk.spans["POST"]):
        assert span.attributes["minillmlib.cost.resolution"] == resolution
        assert "minillmlib.cost.usd" not in span.attributes
    points = sdk.points()
    assert "minillmlib.cost" not in points
    ((where, missing),) = points["minillmlib.cost.missing"]
    assert (where["minillmlib.cost.resolution"], missing.value) == (resolution, 1)
    assert ("gen_ai.client.inference.usage.input_tokens" in points) is (usage is not None)


class Hanging:
    async def send(self, request):
        await asyncio.Event().wait()


async def test_a_call_that_was_cancelled(sdk):
    with observe(sdk.observer()):
        task = asyncio.create_task(ChatNode.root("s").chat("u", PRICED.with_transport(Hanging())))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    for span in (sdk.spans["chat m"], sdk.spans["POST"]):
        assert span.attributes["error.type"] == "abandoned"
        assert span.attributes["minillmlib.cost.resolution"] == "unknown"
        assert "minillmlib.cost.usd" not in span.attributes


async def test_a_cost_that_comes_later(sdk, monkeypatch):
    monkeypatch.setattr("minillmlib.client.deferred_cost.WAITS_SECS", (0.0, 0.0))
    found = {"data": {"total_cost": 0.5, "tokens_prompt": 7, "tokens_completion": 3,
                      "native_tokens_prompt": 7, "native_tokens_completion": 3}}  # fmt: skip
    generator = on(stream_of("a", "b", end=False), ScriptedReply.json(found),
                   generator=GeneratorInfo.openrouter("x/y").with_api_key("k"))  # fmt: skip
    settings = NodeCompletionParameters(cost_callback=lambda _: None)
    with observe(sdk.observer()):
        stream = ChatNode.root("s").chat_streaming("u", generator, settings)
        await anext(stream)
        await stream.cancel()
    completion, late = sdk.spans["chat x/y"], sdk.spans["cost"]
    assert completion.attributes["minillmlib.cost.resolution"] == "unknown"
    assert late.parent.span_id == completion.context.span_id
    assert late.attributes["minillmlib.cost.usd"] == 0.5
    assert late.attributes["minillmlib.cost.resolution"] == "resolved"
    points = sdk.points()
    assert points["minillmlib.cost"][0][1].value == 0.5
    assert points["minillmlib.cost.missing"][0][1].value == 0, "it has come"
    assert points["gen_ai.client.inference.usage.input_tokens"][0][1].value == 7


async def test_a_fallback(sdk):
    other = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    said = ScriptedReply.json({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "word"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 4,
                  "cache_creation_input_tokens": 2},
    })  # fmt: skip
    generator = on(BUSY).or_else(on(said, generator=other))
    with observe(sdk.observer()):
        await ChatNode.root("s").chat("u", generator, NodeCompletionParameters(retry=0))
    first, second = sdk.named("POST")
    assert first.attributes["server.address"] == "own.example"
    assert second.attributes["server.address"] == "api.anthropic.com"
    shown = sdk.spans["chat m"].attributes
    assert shown["gen_ai.provider.name"] == "anthropic"
    assert shown["gen_ai.request.model"] == shown["gen_ai.response.model"] == "claude-haiku-4-5"
    assert shown["gen_ai.usage.input_tokens"] == 15, "cached ones are a part of them"
    assert shown["gen_ai.usage.cache_read.input_tokens"] == 4
    assert shown["gen_ai.usage.cache_write.input_tokens"] == 2
    points = sdk.points()
    assert points["gen_ai.client.inference.usage.cache_read.input_tokens"][0][1].value == 4
    ((where, _),) = points["gen_ai.client.inference.duration"]
    assert where["gen_ai.provider.name"] == "anthropic"


async def test_a_base_model_and_several_answers(sdk):
    base = GeneratorInfo.custom("b", "https://b.example/v1", "base", wire="completions")
    text = {
        "id": "t",
        "model": "base",
        "choices": [{"index": 0, "text": "x", "finish_reason": "stop"}],
    }
    choices = [{"index": n, "message": {"content": "x"}, "finish_reason": "stop"} for n in (0, 1)]
    two = ScriptedReply.json({"id": "c", "model": "gpt-4o", "choices": choices, "usage": USAGE})
    several = on(two, generator=GeneratorInfo.openai("gpt-4o").with_api_key("k"))
    with observe(sdk.observer()):
        await ChatNode.root().chat("u", on(ScriptedReply.json(text), generator=base))
        await ChatNode.root("s").add_user("u").complete_many(2, several)
    assert (
        sdk.spans["text_completion base"].attributes["gen_ai.operation.name"] == "text_completion"
    )
    shown = sdk.spans["chat gpt-4o"].attributes
    assert shown["gen_ai.request.choice.count"] == 2
    assert shown["gen_ai.provider.name"] == "openai"


# Nesting.


def ids(span) -> tuple[int | None, int]:
    return (None if span.parent is None else span.parent.span_id), span.context.span_id


async def test_a_tool_loop_is_a_tree(sdk):
    tracer = sdk.tracers.get_tracer("the program")

    async def ask(question: str) -> str:
        """Ask another model."""
        with tracer.start_as_current_span("inside"):
            return (await ChatNode.root("s").chat(question, on(answer()))).text

    def count(text: str) -> int:
        """Count."""
        with tracer.start_as_current_span("in a thread"):
            return len(text)

    said = says(None, call(1, "ask", question="?"), call(2, "count", text="abc"))
    generator = model(said, says("done")).replace(model="looper")
    with observe(sdk.observer()), tracer.start_as_current_span("request"):
        await ChatNode.root("s").add_user("u").run_tools(generator, [ask, count])
    spans = sdk.spans
    request = ids(spans["request"])[1]
    above, loop = ids(spans["invoke_agent"])
    assert above == request
    assert {ids(span)[0] for span in sdk.named("chat looper")} == {loop}
    tool_above, tool = ids(spans["execute_tool ask"])
    assert tool_above == loop
    inside_above, inside = ids(spans["inside"])
    assert (inside_above, ids(spans["chat m"])[0]) == (tool, inside)
    assert ids(spans["in a thread"])[0] == ids(spans["execute_tool count"])[1]
    assert len({span.context.trace_id for span in sdk.spans_.get_finished_spans()}) == 1
    assert spans["invoke_agent"].kind is SpanKind.INTERNAL
    assert spans["invoke_agent"].attributes["gen_ai.operation.name"] == "invoke_agent"
    assert spans["invoke_agent"].attributes["minillmlib.turns"] == 2
    assert dict(spans["execute_tool ask"].attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "ask",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.type": "function",
    }


async def test_a_bulk_run_is_above_its_calls_and_their_tools(sdk):
    said = [says(None, call(1, "add", a=1, b=2)), says("done")] * 2
    with observe(sdk.observer()):
        await map_complete(["a", "b"], model(*said), tools=[add, greet], width=1).collect()
    bulk = ids(sdk.spans["map_complete"])[1]
    loops = sdk.named("invoke_agent")
    assert [ids(loop)[0] for loop in loops] == [bulk, bulk]
    assert {ids(tool)[0] for tool in sdk.named("execute_tool add")} == {ids(x)[1] for x in loops}
    shown = sdk.spans["map_complete"].attributes
    assert (shown["minillmlib.items"], shown["minillmlib.items.done"]) == (2, 2)
    assert shown["minillmlib.items.failed"] == 0


async def test_a_tool_that_fails_and_a_loop_that_fails(sdk):
    def fail() -> str:
        """Fail."""
        raise ValueError("x")

    bad = ScriptedReply.json({"error": {"message": "no"}}, status=400)
    with observe(sdk.observer()), pytest.raises(MiniLLMError):
        await (
            ChatNode.root("s")
            .add_user("u")
            .run_tools(model(says(None, call(1, "fail")), bad), [fail])
        )
    assert sdk.spans["execute_tool fail"].attributes["error.type"] == "ValueError"
    assert sdk.spans["invoke_agent"].attributes["error.type"] == "BadRequestError"
    assert sdk.spans["invoke_agent"].status.status_code is StatusCode.ERROR


async def test_nothing_is_left_open(sdk):
    observer = sdk.observer()
    with observe(observer):
        await asyncio.gather(*(ChatNode.root("s").chat("u", on(answer())) for _ in range(9)))
    assert observer._open == {}
    assert len(sdk.named("chat m")) == len(sdk.named("POST")) == 9


async def test_what_began_before_the_observer_is_left_alone(sdk):
    stream = ChatNode.root("s").chat_streaming("u", on(stream_of("a")))
    await anext(stream)
    observer = sdk.observer()
    with observe(observer):
        await stream.collect()
        observer.on_event(AttemptStarted(id=-1, at=0.0, number=1, generator="g", model="m",
                                         method="POST", url="https://x", sent_bytes=0))  # fmt: skip
        await ChatNode.root("s").chat("u", on(answer()))
    assert len(sdk.named("chat m")) == 1


# The header, and content.


@pytest.mark.parametrize("propagates", [True, False])
async def test_the_trace_goes_on_at_the_server_only_if_switched_on(sdk, propagates):
    generator = on(answer())
    with observe(sdk.observer(propagate=propagates)):
        await ChatNode.root("s").chat("u", generator)
    headers = dict(generator.transport.requests[0].expose_headers())
    context = sdk.spans["POST"].context
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-"
    assert headers.get("traceparent", "").startswith(expected) is propagates
    assert "baggage" not in headers


async def test_content_is_in_spans_only_if_switched_on(sdk):
    generator = model(says(None, call(1, "add", a=1, b=2)), says("a word of the model"))
    with observe(sdk.observer()):
        await ChatNode.root("s").add_user("a word of mine").run_tools(generator, [add])
    shown = "".join(span.to_json() for span in sdk.spans_.get_finished_spans())
    assert "a word of" not in shown
    assert '"a"' not in shown


async def test_content_follows_the_schema_of_messages(sdk):
    parts = (TextPart("a word"), ImagePart.from_url("https://x.example/i.png"),
             ImagePart(data=b"\x89PNG\r\n\x1a\n"))  # fmt: skip
    thread = [Message.system("s"), Message.user(parts)]
    leaf = ChatNode.from_messages(thread)[1]
    said = says(None, call(1, "add", a=1, b=2))
    generator = model(said, says("done"))
    with observe(sdk.observer(content=True)):
        await leaf.run_tools(generator, [add])
    first, second = sdk.named("chat m")
    assert json.loads(second.attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "s"}]},
        {"role": "user", "parts": [
            {"type": "text", "content": "a word"},
            {"type": "uri", "modality": "image", "uri": "https://x.example/i.png"},
            {"type": "media", "modality": "image", "bytes": 8},
        ]},
        {"role": "assistant", "parts": [
            {"type": "tool_call", "id": "call_1", "name": "add", "arguments": {"a": 1, "b": 2}},
        ]},
        {"role": "tool", "parts": [
            {"type": "tool_call_response", "id": "call_1", "response": "3"},
        ]},
    ]  # fmt: skip
    assert json.loads(first.attributes["gen_ai.output.messages"]) == [{
        "role": "assistant",
        "parts": [
            {"type": "tool_call", "id": "call_1", "name": "add", "arguments": {"a": 1, "b": 2}},
        ],
        "finish_reason": "tool_call",
    }]  # fmt: skip
    assert json.loads(second.attributes["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "done"}],
            "finish_reason": "stop",
        }
    ]
    tool = sdk.spans["execute_tool add"].attributes
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert tool["gen_ai.tool.call.result"] == "3"


async def test_a_secret_that_the_model_repeats_is_not_in_the_content(sdk):
    key = "sk-proj-Ab12_Cd34-Ef56Gh78"
    said = says(f"is {key} yours?", call(1, "greet", name=key))
    generator = model(said, says(key)).with_api_key(key)
    with observe(sdk.observer(content=True)):
        await ChatNode.root("s").add_user(f"{key}?").run_tools(generator, [greet])
    shown = "".join(span.to_json() for span in sdk.spans_.get_finished_spans())
    assert key not in shown
    assert "is [hidden] yours?" in shown


def test_the_names_of_providers_are_those_of_presets_and_of_the_conventions():
    assert set(PROVIDERS) <= set(PRESETS)
    assert set(PROVIDERS.values()) <= conventions("provider")


async def test_without_an_sdk_nothing_happens():
    generator = on(answer()).with_observer(OtelObserver())
    node = await ChatNode.root("s").chat("u", generator)
    assert node.text == "Paris."
    assert "traceparent" not in dict(generator.transport.requests[0].expose_headers())


# Events by hand, so that each time and each number is known: whole spans and whole metrics.


def spans_of(sdk: Sdk) -> list[tuple]:
    """Each span, in the order of their ends: all that is exported of it."""
    spans = sdk.spans_.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans}
    return [
        (
            span.name, span.kind.name, span.parent and names[span.parent.span_id],
            span.start_time / 1e9, span.end_time / 1e9, dict(span.attributes),
            span.status.status_code.name, span.status.description,
        )
        for span in spans
    ]  # fmt: skip


def values_of(sdk: Sdk) -> dict[str, list[tuple]]:
    """The attributes and the value of each point; of a histogram its count and sum."""
    return {
        name: [
            (where, point.value if hasattr(point, "value") else (point.count, point.sum))
            for where, point in points
        ]
        for name, points in sdk.points().items()
    }


def completion(number=1, *, at=100.0, **fields) -> CompletionStarted:
    given = {
        "parent": None, "generator": "own", "model": "m", "base_url": "https://own.example/v1",
        "is_chat": True, "is_streamed": False, "choices": 1, "parameters": {},
    }  # fmt: skip
    return CompletionStarted(id=number, at=at, **(given | fields))


def attempt(number=1, *, of=1, at=101.0, **fields) -> AttemptStarted:
    given = {"generator": "own", "model": "m", "method": "POST", "sent_bytes": 9,
             "url": "https://own.example/v1/chat"}  # fmt: skip
    return AttemptStarted(id=of, at=at, number=number, **(given | fields))


def settled(outcome="answered", *, of=1, at=104.0, number=1, **fields) -> AttemptEnded:
    record = Attempt(number=number, url="", model="m", sent_bytes=9, started_at=0, elapsed_secs=0,
                     outcome=AttemptOutcome(outcome), **fields)  # fmt: skip
    return AttemptEnded(id=of, at=at, attempt=record)


def ended(*attempts: AttemptEnded, of=1, at=105.0, outcome="answered", **fields) -> CompletionEnded:
    records = tuple(event.attempt for event in attempts)
    return CompletionEnded(id=of, at=at, outcome=outcome, attempts=records, **fields)


def play(observer: OtelObserver, *events) -> None:
    for event in events:
        observer.on_event(event)


COUNTS = Usage(uncached_input_tokens=60, cache_read_tokens=30, cache_write_tokens=10,
               completion_tokens=8, reasoning_tokens=3)  # fmt: skip
PAID = CostOutcome.resolved(Decimal("0.25"), COUNTS, source="usage.cost")
FREE = CostOutcome.resolved(Decimal(0), Usage(uncached_input_tokens=1, completion_tokens=1))
UNPRICED = CostOutcome.unpriced(COUNTS)
UNKNOWN = CostOutcome.unknown()
AT_LEAST = CostOutcome.unknown(minimum_usage=COUNTS, minimum_cost=Decimal("0.125"))
MODEL = {"gen_ai.provider.name": "own", "gen_ai.request.model": "m"}
SERVER = {"server.address": "own.example", "server.port": 443}
CHAT = {"gen_ai.operation.name": "chat", **MODEL, **SERVER}
POST = {
    "http.request.method": "POST",
    "url.full": "https://own.example/v1/chat",
    **MODEL,
    **SERVER,
}
IN_SPAN = {
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 8,
    "gen_ai.usage.cache_read.input_tokens": 30,
    "gen_ai.usage.cache_write.input_tokens": 10,
    "gen_ai.usage.reasoning.output_tokens": 3,
}
PAID_IN_SPAN = {"minillmlib.cost.resolution": "resolved", "minillmlib.cost.usd": 0.25,
                "minillmlib.cost.source": "usage.cost"}  # fmt: skip


def test_the_spans_of_a_stream_with_two_attempts(sdk):
    failed = settled("failed", at=102.0, status=503, error="ServerError", cost=AT_LEAST)
    done = settled(at=106.5, number=2, status=200, cost=PAID)
    play(
        sdk.observer(),
        completion(at=100.25, is_streamed=True, choices=2, parameters={"top_k": 3, "stop": ["x"]}),
        attempt(at=100.5),
        RequestSent(id=1, at=100.75, number=1),
        HeadersReceived(id=1, at=101.0, number=1, status=503),
        FirstByteReceived(id=1, at=101.5, number=1),
        failed,
        attempt(2, at=104.0),
        RequestSent(id=1, at=104.5, number=2),
        FirstByteReceived(id=1, at=106.0, number=2),
        done,
        ended(failed, done, at=107.0, model="m-2", response_id="r", usage=COUNTS,
              finish_reason="stop"),
    )  # fmt: skip
    first, second, whole = spans_of(sdk)
    assert first == ("POST", "CLIENT", "chat m", 100.5, 102.0, {
        **POST, "minillmlib.outcome": "failed", "minillmlib.first_byte_secs": 0.75,
        "http.response.status_code": 503, "minillmlib.cost.resolution": "unknown",
        "minillmlib.cost.minimum_usd": 0.125, "error.type": "ServerError",
    }, "ERROR", None)  # fmt: skip
    assert second == ("POST", "CLIENT", "chat m", 104.0, 106.5, {
        **POST, "http.request.resend_count": 1, "minillmlib.outcome": "answered",
        "minillmlib.first_byte_secs": 1.5, "http.response.status_code": 200, **PAID_IN_SPAN,
    }, "UNSET", None)  # fmt: skip
    assert whole == ("chat m", "CLIENT", None, 100.25, 107.0, {
        **CHAT, "gen_ai.request.top_k": 3, "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.stream": True, "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "m-2", "gen_ai.response.id": "r",
        "gen_ai.response.finish_reasons": ("stop",), **IN_SPAN, "minillmlib.attempts": 2,
        "minillmlib.cost.resolution": "unknown", "minillmlib.cost.minimum_usd": 0.375,
        "gen_ai.response.time_to_first_chunk": 1.5,
    }, "UNSET", None)  # fmt: skip
    answered = CHAT | {"gen_ai.response.model": "m-2"}
    counted = {"gen_ai.operation.name": "chat", "gen_ai.token.modality": "unknown", **MODEL}
    usage = "gen_ai.client.inference.usage."
    assert values_of(sdk) == {
        "gen_ai.client.inference.duration": [(answered, (1, 6.75))],
        "gen_ai.client.inference.time_to_first_chunk": [(answered, (1, 1.5))],
        f"{usage}input_tokens": [(counted, 100)],
        f"{usage}output_tokens": [(counted, 8)],
        f"{usage}cache_read.input_tokens": [(counted, 30)],
        f"{usage}cache_write.input_tokens": [(counted, 10)],
        f"{usage}reasoning.output_tokens": [(counted, 3)],
        "minillmlib.cost": [(MODEL | {"minillmlib.cost.source": "usage.cost"}, 0.25)],
        "minillmlib.cost.missing": [(MODEL | {"minillmlib.cost.resolution": "unknown"}, 1)],
    }


def test_the_spans_of_an_answer_that_is_no_stream_and_of_which_little_is_known(sdk):
    done = settled(at=102.0, cost=FREE)
    play(
        sdk.observer(),
        completion(is_chat=False, base_url="http://own.example:0/v1"),
        attempt(url="http://own.example/v1/completions", method="PUT"),
        FirstByteReceived(id=1, at=101.5, number=1),
        done,
        ended(done),
    )
    (request, whole), values = spans_of(sdk), values_of(sdk)
    plain = {**MODEL, "server.address": "own.example", "server.port": 80}
    free = {"minillmlib.cost.resolution": "resolved", "minillmlib.cost.usd": 0.0}
    assert request == ("PUT", "CLIENT", "text_completion m", 101.0, 102.0, {
        "http.request.method": "PUT", "url.full": "http://own.example/v1/completions", **plain,
        "minillmlib.outcome": "answered", "minillmlib.first_byte_secs": 1.5, **free,
    }, "UNSET", None)  # fmt: skip
    assert whole == ("text_completion m", "CLIENT", None, 100.0, 105.0, {
        "gen_ai.operation.name": "text_completion", **plain, "minillmlib.attempts": 1, **free,
    }, "UNSET", None)  # fmt: skip
    usage = "gen_ai.client.inference.usage."
    counted = {"gen_ai.operation.name": "text_completion", "gen_ai.token.modality": "unknown"}
    assert values == {
        "gen_ai.client.inference.duration": [
            ({"gen_ai.operation.name": "text_completion", **plain}, (1, 5.0))
        ],
        f"{usage}input_tokens": [(counted | MODEL, 1)],
        f"{usage}output_tokens": [(counted | MODEL, 1)],
        "minillmlib.cost": [(MODEL, 0)],
    }


def test_an_attempt_without_a_byte_has_not_the_time_of_the_one_before(sdk):
    failed, done = settled("failed", at=103.0), settled(number=2, cost=PAID)
    play(
        sdk.observer(),
        completion(is_streamed=True, base_url="nowhere"),
        attempt(url="http:/x"),
        FirstByteReceived(id=1, at=102.0, number=1),
        failed,
        attempt(2),
        done,
        ended(failed, done),
    )
    first, second, whole = spans_of(sdk)
    assert first[5]["minillmlib.first_byte_secs"] == 2.0
    assert (first[5]["server.address"], first[5]["server.port"]) == ("", 80)
    assert "minillmlib.first_byte_secs" not in second[5]
    assert "gen_ai.response.time_to_first_chunk" not in whole[5]
    assert (whole[5]["server.address"], whole[5]["server.port"]) == ("", 80)


@pytest.mark.parametrize(
    ("costs", "shown"),
    [
        ([None], {"resolution": "resolved", "usd": 0.0}),
        ([None, PAID], {"resolution": "resolved", "usd": 0.25, "source": "usage.cost"}),
        ([PAID, PAID], {"resolution": "resolved", "usd": 0.5}),
        ([UNPRICED], {"resolution": "unpriced"}),
        ([UNPRICED, PAID], {"resolution": "unpriced", "minimum_usd": 0.25}),
        ([UNPRICED, UNPRICED], {"resolution": "unpriced"}),
        ([UNKNOWN], {"resolution": "unknown"}),
        ([AT_LEAST], {"resolution": "unknown", "minimum_usd": 0.125}),
        ([UNPRICED, AT_LEAST], {"resolution": "unknown", "minimum_usd": 0.125}),
        ([PAID, UNKNOWN], {"resolution": "unknown", "minimum_usd": 0.25}),
    ],
)
def test_the_cost_of_all_attempts_is_in_the_span_of_the_completion(sdk, costs, shown):
    records = [settled(number=number, cost=cost) for number, cost in enumerate(costs, 1)]
    play(sdk.observer(), completion(), ended(*records))
    ((*_, attributes, _, _),) = spans_of(sdk)
    assert attributes == CHAT | {"minillmlib.attempts": len(costs)} | {
        f"minillmlib.cost.{name}": value for name, value in shown.items()
    }


@pytest.mark.parametrize(
    ("how", "fields", "error", "description"),
    [
        ("answered", {}, None, None),
        ("answered", {"error": "X", "message": "m"}, None, None),
        ("failed", {"error": "ServerError"}, "ServerError", None),
        ("failed", {"error": "ServerError", "message": "It broke."}, "ServerError", "It broke."),
        ("failed", {}, "failed", None),
        ("abandoned", {}, "abandoned", None),
    ],
)
def test_how_a_completion_ends(sdk, how, fields, error, description):
    play(sdk.observer(), completion(), ended(outcome=how, **fields))
    ((*_, attributes, status, told),) = spans_of(sdk)
    assert (attributes.get("error.type"), told) == (error, description)
    assert status == ("UNSET" if error is None else "ERROR")
    ((where, _),) = values_of(sdk)["gen_ai.client.inference.duration"]
    assert where == CHAT | ({} if error is None else {"error.type": error})


@pytest.mark.parametrize(
    ("outcome", "error", "shown"),
    [("answered", None, None), ("answered", "X", None), ("rejected", "NoJson", "NoJson"),
     ("denied", None, "denied"), ("failed", "ServerError", "ServerError"),
     ("abandoned", None, "abandoned"), ("not_sent", None, "not_sent")],
)  # fmt: skip
def test_how_an_attempt_ends(sdk, outcome, error, shown):
    play(sdk.observer(), completion(), attempt(), settled(outcome, error=error), ended())
    request, _ = spans_of(sdk)
    assert request[5] == POST | {"minillmlib.outcome": outcome} | (
        {} if shown is None else {"error.type": shown}
    )
    assert request[6:] == ("UNSET" if shown is None else "ERROR", None)


def test_a_fallback_counts_for_its_own_server_from_then_on(sdk):
    other = {"generator": "mistral", "model": "n", "url": "https://api.mistral.ai/v1/chat"}
    denied, done = settled("denied", status=429), settled(number=2, cost=UNPRICED)
    play(sdk.observer(), completion(), attempt(), denied, attempt(2, **other), done,
         ended(denied, done))  # fmt: skip
    first, second, whole = spans_of(sdk)
    theirs = {"gen_ai.provider.name": "mistral_ai", "gen_ai.request.model": "n",
              "server.address": "api.mistral.ai", "server.port": 443}  # fmt: skip
    assert {name: first[5][name] for name in theirs} == MODEL | SERVER
    assert {name: second[5][name] for name in theirs} == theirs
    chat = {"gen_ai.operation.name": "chat", **theirs}
    assert whole[5] == {**chat, "minillmlib.attempts": 2, "minillmlib.cost.resolution": "unpriced"}
    values = values_of(sdk)
    assert values["gen_ai.client.inference.duration"] == [(chat, (1, 5.0))]
    assert [where["gen_ai.provider.name"] for where, _ in values["minillmlib.cost.missing"]] == [
        "mistral_ai"
    ]


def test_a_cost_that_comes_later_is_a_span_of_no_length_and_counts_then(sdk):
    observer = sdk.observer()
    lost = settled("abandoned", cost=UNKNOWN)
    play(observer, completion(), attempt(), lost, ended(lost, outcome="abandoned"))
    missing = (MODEL | {"minillmlib.cost.resolution": "unknown"}, 1)
    assert values_of(sdk)["minillmlib.cost.missing"] == [missing]
    late = settled(number=3, cost=PAID)
    play(observer, CostUpdated(id=1, at=130.5, attempt=late.attempt))
    assert spans_of(sdk)[-1] == (
        "cost", "INTERNAL", "chat m", 130.5, 130.5, {"minillmlib.attempt": 3, **PAID_IN_SPAN},
        "UNSET", None,
    )  # fmt: skip
    values = values_of(sdk)
    assert values["minillmlib.cost.missing"] == [(missing[0], 0)]
    assert values["minillmlib.cost"] == [(MODEL | {"minillmlib.cost.source": "usage.cost"}, 0.25)]
    assert values["gen_ai.client.inference.usage.input_tokens"][0][1] == 100
    count = len(spans_of(sdk))
    play(observer, CostUpdated(id=1, at=131.0, attempt=settled(cost=None).attempt),
         CostUpdated(id=2, at=131.0, attempt=late.attempt))  # fmt: skip
    assert len(spans_of(sdk)) == count


def test_only_a_thousand_completions_wait_for_their_cost(sdk):
    observer = sdk.observer()
    lost, known = settled("abandoned", cost=UNKNOWN), settled(cost=PAID)
    for number in range(1002):
        play(observer, completion(number), ended(lost, of=number))
    play(observer, completion(2000), ended(known, of=2000))
    for number in (0, 1, 2, 1001, 2000):
        play(observer, CostUpdated(id=number, at=9.0, attempt=known.attempt))
    assert len(sdk.named("cost")) == 2, "of 2 and 1001"


def test_loops_tools_and_runs_are_spans_around_what_they_ask_for(sdk):
    observer = sdk.observer(content=True)
    names = {"generator": "azure", "model": "m"}
    play(
        observer,
        BulkRunStarted(id=1, at=10.0, parent=None, items=3, **names),
        ToolLoopStarted(id=2, at=11.0, parent=1, tools=("f",), **names),
        completion(3, at=12.0, parent=2),
        ended(of=3, at=13.0),
        ToolLoopEnded(id=2, at=14.0, turns=4),
        ToolLoopStarted(id=4, at=15.0, parent=7, tools=(), **names),
        ToolLoopEnded(id=4, at=16.0, turns=0, error="ValueError"),
        BulkRunEnded(id=1, at=17.0, done=2, failed=1, error="BudgetExceededError"),
        BulkRunStarted(id=5, at=18.0, parent=None, items=None, **names),
        BulkRunEnded(id=5, at=19.0, done=0, failed=0),
        BulkRunEnded(id=5, at=20.0, done=0, failed=0),
    )
    azure = {"gen_ai.provider.name": "azure.ai.openai", "gen_ai.request.model": "m"}
    agent = {"gen_ai.operation.name": "invoke_agent", **azure}
    chat, loop, other, run, second = spans_of(sdk)
    assert chat[:5] == ("chat m", "CLIENT", "invoke_agent", 12.0, 13.0)
    assert loop == ("invoke_agent", "INTERNAL", "map_complete", 11.0, 14.0,
                    {**agent, "minillmlib.turns": 4}, "UNSET", None)  # fmt: skip
    assert other == ("invoke_agent", "INTERNAL", None, 15.0, 16.0,
                     {**agent, "minillmlib.turns": 0, "error.type": "ValueError"}, "ERROR", None)  # fmt: skip
    items = {"minillmlib.items.done": 2, "minillmlib.items.failed": 1}
    assert run == ("map_complete", "INTERNAL", None, 10.0, 17.0,
                   {**azure, "minillmlib.items": 3, **items, "error.type": "BudgetExceededError"},
                   "ERROR", None)  # fmt: skip
    assert second[5] == {**azure, "minillmlib.items.done": 0, "minillmlib.items.failed": 0}


@pytest.mark.parametrize(
    ("given", "end", "shown"),
    [
        ({}, {}, {}),
        ({"arguments": "{}"}, {"result": "r"},
         {"gen_ai.tool.call.arguments": "{}", "gen_ai.tool.call.result": "r"}),
        ({"arguments": ""}, {"result": ""},
         {"gen_ai.tool.call.arguments": "", "gen_ai.tool.call.result": ""}),
        ({}, {"result": "r", "error": "ValueError"}, {"error.type": "ValueError"}),
    ],
)  # fmt: skip
async def test_the_span_of_a_tool(sdk, given, end, shown):
    observer = sdk.observer()

    async def run_tool():
        play(
            observer,
            ToolStarted(id=1, at=1.0, parent=None, name="add", call_id="c", **given),
            completion(2, parent=1),
            ended(of=2),
            ToolEnded(id=1, at=2.0, **end),
            ToolEnded(id=9, at=2.0),
        )

    await asyncio.create_task(run_tool())
    inner, tool = spans_of(sdk)
    assert inner[2] == "execute_tool add"
    assert tool == (
        "execute_tool add", "INTERNAL", None, 1.0, 2.0,
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add",
         "gen_ai.tool.call.id": "c", "gen_ai.tool.type": "function", **shown},
        "ERROR" if "error" in end else "UNSET", None,
    )  # fmt: skip


CALL = ToolCall(id="c", name="f", arguments='{"a": [1]}')
BROKEN = ToolCall(id="d", name="g", arguments='{"a": ')
PICTURE = ImagePart(url="https://x.example/i.png")
SOUND = AudioPart.from_bytes(b"ID3")


def text(words):
    return {"type": "text", "content": words}


CALLED = [
    {"type": "tool_call", "id": "c", "name": "f", "arguments": {"a": [1]}},
    {"type": "tool_call", "id": "d", "name": "g", "arguments": '{"a": '},
]
MEDIA = [
    {"type": "uri", "modality": "image", "uri": "https://x.example/i.png"},
    {"type": "media", "modality": "audio", "bytes": 3},
]


@pytest.mark.parametrize(
    ("message", "role", "parts"),
    [
        (Message.system("s"), "system", [text("s")]),
        (Message.user("ü\ud800"), "user", [text("ü?")]),
        (Message.user((TextPart("a"), PICTURE, SOUND, TextPart("b"))), "user",
         [text("a"), *MEDIA, text("b")]),
        (Message.assistant("hi", tool_calls=(CALL, BROKEN)), "assistant", [text("hi"), *CALLED]),
        (Message.assistant("", tool_calls=(CALL,)), "assistant", CALLED[:1]),
        (Message.assistant("hi", media=(PICTURE, SOUND)), "assistant", [text("hi"), *MEDIA]),
        (Message.tool_result("c", "3"), "tool",
         [{"type": "tool_call_response", "id": "c", "response": "3"}]),
        (Message.tool_result("c", ""), "tool",
         [{"type": "tool_call_response", "id": "c", "response": ""}]),
    ],
)  # fmt: skip
def test_messages_are_shown_by_the_schema_of_the_conventions(sdk, message, role, parts):
    sent = attempt(messages=(message, Message.user("last")))
    play(sdk.observer(content=True), completion(), sent, ended())
    shown = sdk.spans["chat m"].attributes["gen_ai.input.messages"]
    last = {"role": "user", "parts": [text("last")]}
    assert json.loads(shown) == [{"role": role, "parts": parts}, last]
    assert "\\u00" not in shown, "it is text, as it was written"


@pytest.mark.parametrize(
    ("response", "parts", "reason"),
    [
        (CompletionResponse(), [], ""),
        (CompletionResponse(content="hi", finish_reason=FinishReason.STOP), [text("hi")], "stop"),
        (CompletionResponse(content="hi", reasoning="Hm.", media=(PICTURE,), tool_calls=(CALL,),
                            finish_reason=FinishReason.TOOL_CALLS),
         [{"type": "reasoning", "content": "Hm."}, text("hi"), CALLED[0], MEDIA[0]], "tool_call"),
        (CompletionResponse(finish_reason=FinishReason.LENGTH), [], "length"),
    ],
)  # fmt: skip
def test_answers_are_shown_by_the_schema_of_the_conventions(sdk, response, parts, reason):
    play(sdk.observer(content=True), completion(), ended(response=response))
    shown = json.loads(sdk.spans["chat m"].attributes["gen_ai.output.messages"])
    assert shown == [{"role": "assistant", "parts": parts, "finish_reason": reason}]


# By hand, from the conventions' list of providers.
NAMES = {
    "openai": "openai", "openai-responses": "openai", "azure": "azure.ai.openai",
    "anthropic": "anthropic", "claude_subscription": "anthropic", "mistral": "mistral_ai",
    "moonshot": "moonshot_ai", "kimi-anthropic": "moonshot_ai", "xai": "x_ai",
    "deepseek": "deepseek", "deepseek-anthropic": "deepseek", "gemini-openai": "gcp.gemini",
    "bedrock-openai": "aws.bedrock", "bedrock-mantle": "aws.bedrock",
    "bedrock-mantle-anthropic": "aws.bedrock", "groq": "groq", "perplexity": "perplexity",
    "cohere": "cohere", "openrouter": "openrouter", "mine": "mine",
}  # fmt: skip


@pytest.mark.parametrize(("generator", "name"), NAMES.items())
def test_a_generator_is_named_as_the_conventions_name_its_vendor(sdk, generator, name):
    play(sdk.observer(), completion(generator=generator), ended())
    assert sdk.spans["chat m"].attributes["gen_ai.provider.name"] == name


def test_the_tracer_the_meter_and_each_instrument_say_what_they_are(sdk):
    play(sdk.observer(), completion(is_streamed=True), attempt(),
         FirstByteReceived(id=1, at=102.0, number=1), settled(cost=PAID),
         settled(cost=UNPRICED), ended())  # fmt: skip
    play(sdk.observer(), completion(), attempt(), settled(cost=UNPRICED), ended())
    (resource,) = sdk.reader.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    (span, *_) = sdk.spans_.get_finished_spans()
    for one in (scope.scope, span.instrumentation_scope):
        assert (one.name, one.version) == ("minillmlib", minillmlib.__version__)
    usage = "gen_ai.client.inference.usage."
    told = {metric.name: (metric.unit, metric.description) for metric in scope.metrics}
    assert told == {
        "gen_ai.client.inference.duration": (
            "s", "Duration of a completion with all its attempts."),
        "gen_ai.client.inference.time_to_first_chunk": (
            "s", "Time from sending the request to the first byte of the stream."),
        f"{usage}input_tokens": ("{token}", "Input tokens, cached ones included."),
        f"{usage}output_tokens": ("{token}", "Output tokens, reasoning included."),
        f"{usage}cache_read.input_tokens": ("{token}", "Input tokens read from a cache."),
        f"{usage}cache_write.input_tokens": ("{token}", "Input tokens written to a cache."),
        f"{usage}reasoning.output_tokens": ("{token}", "Output tokens of reasoning."),
        "minillmlib.cost": ("USD", "Costs that are known."),
        "minillmlib.cost.missing": (
            "{request}", "Requests whose cost is not in minillmlib.cost."),
    }  # fmt: skip
    bounds = (
        0.01,
        0.02,
        0.04,
        0.08,
        0.16,
        0.32,
        0.64,
        1.28,
        2.56,
        5.12,
        10.24,
        20.48,
        40.96,
        81.92,
    )
    for name in ("duration", "time_to_first_chunk"):
        ((_, point), *_) = sdk.points()[f"gen_ai.client.inference.{name}"]
        assert point.explicit_bounds == bounds
    for metric in scope.metrics:
        if metric.name.startswith("minillmlib.cost"):
            assert metric.data.is_monotonic is (metric.name == "minillmlib.cost")


def test_events_of_what_the_observer_has_not_seen_begin_do_nothing(sdk):
    observer = sdk.observer()
    play(observer, RequestSent(id=8, at=1.0, number=1), FirstByteReceived(id=8, at=1.0, number=1),
         attempt(of=8), settled(of=8), ended(of=8), ToolLoopEnded(id=8, at=1.0, turns=1),
         BulkRunEnded(id=8, at=1.0, done=1, failed=0))  # fmt: skip
    assert spans_of(sdk) == []
    assert observer.request_headers(attempt(of=8)) == {}
    play(observer, completion(), settled(), ended())
    assert [span[0] for span in spans_of(sdk)] == ["chat m"]


class Fixed(Sampler):
    """Samples everything, with a state of the trace; or nothing."""

    def __init__(self, decision):
        self.decision = decision

    def should_sample(self, *_args, **_kwargs):
        return SamplingResult(self.decision, trace_state=TraceState([("vendor", "1")]))

    def get_description(self):
        return "fixed"


def test_the_state_of_a_trace_goes_to_the_server_with_it():
    sampled = TracerProvider(Fixed(Decision.RECORD_AND_SAMPLE), shutdown_on_exit=False)
    observer = OtelObserver(tracer_provider=sampled)
    play(observer, completion(), attempt())
    headers = observer.request_headers(attempt())
    assert headers.keys() == {"traceparent", "tracestate"}
    assert headers["tracestate"] == "vendor=1"
    play(observer, settled())
    assert observer.request_headers(attempt()) == {}, "there is no attempt now"


def test_a_trace_that_is_not_sampled_is_counted_all_the_same(sdk):
    sdk.tracers = TracerProvider(Fixed(Decision.DROP), shutdown_on_exit=False)
    done = settled(cost=PAID)
    play(sdk.observer(content=True), completion(), attempt(messages=(Message.user("u"),)), done,
         ended(done))  # fmt: skip
    assert spans_of(sdk) == []
    values = values_of(sdk)
    assert values["gen_ai.client.inference.duration"] == [(CHAT, (1, 5.0))]
    assert values["minillmlib.cost"][0][1] == 0.25


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [({"tracer_provider": 5}, "tracer_provider must have a method get_tracer, which 5 has not"),
     ({"meter_provider": "x"}, "meter_provider must have a method get_meter, which 'x' has not")],
)  # fmt: skip
def test_the_refusal_of_a_provider_names_what_it_lacks(wrong, problem):
    with pytest.raises(InvalidParameterError) as caught:
        OtelObserver(**wrong)
    assert str(caught.value) == problem


def test_without_opentelemetry_the_error_names_the_command_that_helps(monkeypatch):
    monkeypatch.delitem(sys.modules, "minillmlib.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError) as caught:
        importlib.import_module("minillmlib.otel")
    told = "OtelObserver needs opentelemetry-api: pip install 'minillmlib[otel]'"
    assert str(caught.value) == told
