"""Spans and metrics of OpenTelemetry, read back from its SDK, by the names of its conventions."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import SpanKind, StatusCode
from tool_scripts import add, call, greet, model, says

from minillmlib import (
    AttemptStarted,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    TextPart,
    TokenPrice,
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


@pytest.mark.parametrize("wrong", [{"tracer_provider": 5}, {"meter_provider": "x"}])
def test_what_is_no_provider_of_opentelemetry_is_refused(wrong):
    with pytest.raises(InvalidParameterError, match="must have a method get_"):
        OtelObserver(**wrong)
