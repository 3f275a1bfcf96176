"""The vendors' own libraries agree: with every request we build, and on what every answer says."""

from __future__ import annotations

import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import anthropic
import msgspec
import openai
import pydantic
import pytest
from anthropic.types import message_create_params as claude_params
from anthropic.types.beta import message_create_params as claude_beta_params
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import completion_create_params as openai_params
from sdk_types import Keys, check_body, http_client_with
from sent_bodies import PDF, PNG, WAV, get_weather
from short_answers import ANSWER, CLAUDE

import minillmlib
from golden import GOLDEN, golden_generator, reply_of
from minillmlib import (
    AnthropicProvider,
    AudioPart,
    ChatNode,
    CompletionParameters,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    Provider,
    ProviderSettings,
    ReasoningConfig,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolDefinition,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

# The same examples in every run: what is looked for is a form that was never sent before.
ORACLE = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@dataclass(frozen=True, eq=False)
class Wire:
    """One vendor: our side of its wire, and its own types for it."""

    provider: Provider
    answer: dict[str, Any]
    whole: type
    streamed: type
    efforts: tuple[str, ...]
    has_budget: bool
    fields: tuple[str, ...]
    rules: Callable[[Any], None]
    older_keys: Keys = ()

    def check(self, body: bytes) -> None:
        is_streamed = msgspec.json.decode(body).get("stream", False)
        check_body(body, self.streamed if is_streamed else self.whole, self.older_keys)

    def generator(self, reply: ScriptedReply, model: str = "m") -> GeneratorInfo:
        generator = GeneratorInfo.custom("vendor", "https://vendor.example/v1", model)
        transport = ScriptedTransport([reply])
        return generator.with_provider(self.provider).with_transport(transport)


def openai_rules(body: dict[str, Any]) -> None:
    """What the types cannot say: every call is answered, right after the message it is in."""
    messages, answered = body["messages"], 0
    for place, message in enumerate(messages):
        calls = [call["id"] for call in message.get("tool_calls", ())]
        answers = messages[place + 1 :][: len(calls)]
        assert sorted(calls) == sorted(answer.get("tool_call_id", "") for answer in answers)
        assert all(len(name) <= 40 for name in calls)
        answered += len(calls)
    assert answered == sum(message["role"] == "tool" for message in messages)


def claude_rules(body: dict[str, Any]) -> None:
    """Turns alternate, every call is answered first in the next one, and four marks are most."""
    turns = body["messages"]
    for turn, after in itertools.pairwise([*turns, {"role": None, "content": []}]):
        calls = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        answers = [block.get("tool_use_id") for block in after["content"][: len(calls)]]
        assert turn["role"] != after["role"]
        assert sorted(calls) == sorted(answers)
    marks = [item["cache_control"] for item in objects_in(body) if "cache_control" in item]
    assert len(marks) <= 4


OPENAI = Wire(
    provider=OpenAiProvider(),
    answer=ANSWER,
    whole=openai_params.CompletionCreateParamsNonStreaming,
    streamed=openai_params.CompletionCreateParamsStreaming,
    efforts=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    has_budget=False,
    fields=(
        "max_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "logprobs",
    ),
    rules=openai_rules,
)
CLAUDE_WIRE = Wire(
    provider=AnthropicProvider(),
    answer=CLAUDE,
    whole=claude_params.MessageCreateParamsNonStreaming,
    streamed=claude_params.MessageCreateParamsStreaming,
    efforts=("none", "low", "medium", "high", "xhigh", "max"),
    has_budget=True,
    fields=("max_tokens", "temperature", "top_p", "top_k"),
    rules=claude_rules,
    # We name the API's version 2023-06-01, which has these. The types are those of 2026-10-21.
    older_keys=(("temperature", float), ("top_p", float), ("top_k", int)),
)


class Exchange(NamedTuple):
    """A turn that really takes place: a model's answer, and what its calls gave."""

    answer: ScriptedReply
    results: tuple[tuple[Any, bool], ...]
    streams: bool = False


class Case(NamedTuple):
    """A conversation up to the request that is looked at, and how that one is made."""

    messages: tuple[Message, ...]
    exchanges: tuple[Exchange, ...]
    question: Any
    settings: NodeCompletionParameters
    streams: bool = False
    models: tuple[str, str] = ("m", "m")  # before, and in the last request


def asked(node: ChatNode, question, generator, how, streams: bool) -> ChatNode:
    if not streams:
        return minillmlib.run(node.chat(question, generator, how))
    stream = node.chat_streaming(question, generator, how)
    list(minillmlib.iterate(stream))
    return stream.node


# How a budget or an effort is said depends on the model, where the name tells it.
KNOWN_MODELS = ("claude-sonnet-4-5", "claude-opus-4-8")


def run_of(wire: Wire, case: Case) -> bytes:
    """The body of the last request of a conversation."""
    earlier, last = case.models
    _, node = ChatNode.from_messages(case.messages)
    for exchange in case.exchanges:
        node = asked(
            node, "Go on.", wire.generator(exchange.answer, earlier), None, exchange.streams
        )
        for call, (result, is_error) in zip(node.tool_calls, exchange.results, strict=False):
            node = node.add_tool_result(call.id, result, is_error=is_error)
    generator = wire.generator(ScriptedReply.json(wire.answer), last)
    try:
        asked(node, case.question, generator, case.settings, case.streams)
    except InvalidParameterError:
        if last not in KNOWN_MODELS:
            raise
        reject()  # this model is known to refuse what is asked of it
    (request,) = generator.transport.requests
    return request.body


MP3 = b"ID3" + b"\0" * 8
URLS = st.sampled_from(["https://x.example/a", "http://x.example/b?c=d#e"])
IMAGES = [(PNG, None), (b"\xff\xd8\xff", None), (b"GIF89a", None), (b"any", "image/webp")]
TEXTS = st.text(max_size=8)
VISIBLE = TEXTS.map(lambda text: f"{text}.")
NAMES = st.text("aZ09_-", min_size=1, max_size=64)
VALUES = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats(-9, 9) | TEXTS
OBJECTS = st.dictionaries(TEXTS, VALUES | st.lists(VALUES, max_size=2), max_size=2)
SCHEMAS = OBJECTS.map(lambda rest: {"type": "object", "properties": {"x": {}}} | {"$defs": rest})

TEXT_PARTS = st.builds(TextPart, text=TEXTS)
IMAGE_PARTS = st.one_of(
    st.builds(
        lambda url, detail: ImagePart(url=url, detail=detail),
        URLS,
        st.sampled_from([None, "auto", "low", "high"]),
    ),
    st.sampled_from(IMAGES).map(lambda given: ImagePart.from_bytes(*given)),
)
AUDIO_PARTS = st.sampled_from([AudioPart.from_bytes(WAV), AudioPart.from_bytes(MP3)])
PDF_PARTS = st.builds(DocumentPart, data=st.just(PDF), filename=st.none() | VISIBLE)
PDF_URL_PARTS = st.builds(DocumentPart, url=URLS, filename=st.none() | VISIBLE)

# Who may say what on which wire, beside plain text.
PARTS = {
    OPENAI: {"user": TEXT_PARTS | IMAGE_PARTS | AUDIO_PARTS | PDF_PARTS, "tool": TEXT_PARTS},
    CLAUDE_WIRE: {
        "user": TEXT_PARTS | IMAGE_PARTS | PDF_PARTS | PDF_URL_PARTS,
        "tool": TEXT_PARTS | IMAGE_PARTS | PDF_PARTS | PDF_URL_PARTS,
    },
}


@functools.cache
def contents(wire: Wire, role: str) -> st.SearchStrategy:
    parts = PARTS[wire].get(role, TEXT_PARTS)
    return TEXTS | st.lists(parts, min_size=1, max_size=3)


@functools.cache
def questions(wire: Wire) -> st.SearchStrategy:
    """What is said last: here Anthropic insists on something to see."""
    parts = st.lists(PARTS[wire]["user"], max_size=3)
    last = st.builds(TextPart, text=VISIBLE)
    return VISIBLE | st.builds(lambda first, end: [*first, end], parts, last)


CALLS = st.builds(
    ToolCall,
    id=st.text(min_size=1, max_size=50) | NAMES,  # of any vendor
    name=NAMES,
    arguments=OBJECTS.map(json.dumps) | st.sampled_from(["", "{broken", "[1]", "null"]) | TEXTS,
)


@functools.cache
def results(wire: Wire, count: int) -> st.SearchStrategy:
    each = st.tuples(contents(wire, "tool"), st.booleans())
    return st.lists(each, min_size=count, max_size=count).map(tuple)


SOME_CALLS = st.lists(CALLS, max_size=2, unique_by=lambda call: call.id)
MARKS = st.sampled_from([None, None, None, "5m", "1h"])


@functools.cache
def instructions(wire: Wire) -> st.SearchStrategy:
    return st.lists(contents(wire, "system"), max_size=2)


@st.composite
def histories(draw, wire: Wire) -> tuple[Message, ...]:
    """Messages written by hand: every call in them is answered before anything else is said."""
    messages = [Message.system(text) for text in draw(instructions(wire))]
    messages.append(Message.user(draw(contents(wire, "user"))))
    for _ in range(draw(st.integers(0, 2))):
        calls = draw(SOME_CALLS)
        messages.append(Message.assistant(draw(contents(wire, "assistant")), calls))
        answers = draw(results(wire, len(calls)))
        for call, (result, is_error) in draw(
            st.permutations(list(zip(calls, answers, strict=True)))
        ):
            messages.append(Message.tool_result(call.id, result, is_error=is_error))
        if not calls or draw(st.booleans()):
            messages.append(Message.user(draw(contents(wire, "user"))))
    return tuple(msgspec.structs.replace(one, cache_ttl=draw(MARKS)) for one in messages)


# What the vendor's own tools leave in an answer: it goes back as it came.
VENDOR_BLOCKS = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search",
     "input": {"query": "tides"}, "caller": {"type": "direct"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "caller": {"type": "direct"},
     "content": [{"type": "web_search_result", "url": "https://x.example", "title": "Tides",
                  "encrypted_content": "E", "page_age": None}]},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1",
     "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"}},
    {"type": "web_fetch_tool_result", "tool_use_id": "srvtoolu_2",
     "content": {"type": "web_fetch_result", "url": "https://x.example", "retrieved_at": None,
                 "content": {"type": "document", "title": None, "citations": None,
                             "source": {"type": "text", "media_type": "text/plain", "data": "x"}}}},
    {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_3",
     "content": {"type": "code_execution_result", "stdout": "1", "stderr": "", "return_code": 0,
                 "content": [{"type": "code_execution_output", "file_id": "file_1"}]}},
    {"type": "bash_code_execution_tool_result", "tool_use_id": "srvtoolu_4",
     "content": {"type": "bash_code_execution_result", "stdout": "", "stderr": "no",
                 "return_code": 1, "content": []}},
    {"type": "text_editor_code_execution_tool_result", "tool_use_id": "srvtoolu_5",
     "content": {"type": "text_editor_code_execution_create_result", "is_file_update": False}},
    {"type": "tool_search_tool_result", "tool_use_id": "srvtoolu_6",
     "content": {"type": "tool_search_tool_search_result",
                 "tool_references": [{"type": "tool_reference", "tool_name": "f"}]}},
    {"type": "container_upload", "file_id": "file_1"},
]  # fmt: skip
CLAUDE_BLOCKS = st.one_of(
    st.sampled_from(VENDOR_BLOCKS),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": VISIBLE}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": VISIBLE}),
    st.fixed_dictionaries({"type": st.just("text"), "text": VISIBLE}),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": NAMES, "name": NAMES, "input": OBJECTS}
    ),
)
GROWS = {"thinking": ["thinking", "signature"], "text": ["text"], "tool_use": ["input"],
         "server_tool_use": ["input"]}  # fmt: skip
DELTAS = {"thinking": "thinking_delta", "signature": "signature_delta", "text": "text_delta"}


def claude_events(blocks: list[dict[str, Any]], end: dict[str, Any]) -> Iterator[bytes]:
    """An answer as Anthropic streams it: blocks begin empty and grow."""
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "i", "model": "m"}}]
    for index, block in enumerate(blocks):
        grown = GROWS.get(block["type"], [])
        empty = {name: type(block[name])() for name in grown}
        events.append({"type": "content_block_start", "content_block": block | empty})
        for name in grown:
            delta = {"type": DELTAS.get(name), name: block[name]}
            if name == "input":
                delta = {
                    "type": "input_json_delta",
                    "partial_json": json.dumps(block[name]) if block[name] else "",
                }
            events.append({"type": "content_block_delta", "delta": delta})
        events.append({"type": "content_block_stop"})
        for event in events[-len(grown) - 2 :]:
            event["index"] = index
    events += [{"type": "message_delta", "delta": end}, {"type": "message_stop"}]
    return (b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


@st.composite
def claude_exchanges(draw) -> Exchange:
    """An answer of Claude that thinks before, between and after what it says and calls."""
    by_id = lambda block: block.get("id", id(block))  # noqa: E731
    blocks = draw(st.lists(CLAUDE_BLOCKS, min_size=1, max_size=5, unique_by=by_id))
    calls = [block for block in blocks if block["type"] == "tool_use"]
    end = {"stop_reason": "tool_use" if calls else "end_turn"}
    given_back = draw(results(CLAUDE_WIRE, len(calls)))
    if draw(st.booleans()):
        reply = ScriptedReply.events(*claude_events(blocks, end))
        return Exchange(reply, given_back, streams=True)
    return Exchange(ScriptedReply.json({"content": blocks} | end), given_back)


@st.composite
def openai_exchanges(draw) -> Exchange:
    calls = draw(SOME_CALLS)
    calls = [call for call in calls if len(call.id) <= 40]  # it makes no other, and takes none
    message = {
        "content": draw(st.none() | VISIBLE),
        "refusal": draw(st.none() | VISIBLE),
        "tool_calls": [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ],
    }  # fmt: skip
    reply = ScriptedReply.json({"choices": [{"message": message, "finish_reason": "stop"}]})
    return Exchange(reply, draw(results(OPENAI, len(calls))))


SOME_EXCHANGES = {
    OPENAI: st.lists(openai_exchanges(), max_size=2),
    CLAUDE_WIRE: st.lists(claude_exchanges(), max_size=2),
}
NUMBERS = {
    "max_tokens": st.integers(0, 2**31),
    "temperature": st.floats(0, 2) | st.integers(0, 2),
    "top_p": st.floats(0, 1) | st.integers(0, 1),
    "top_k": st.integers(0, 500),
    "frequency_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "presence_penalty": st.floats(-2, 2) | st.integers(-2, 2),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "logprobs": st.integers(0, 20),
}
STRICT_SCHEMAS = (
    {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "array", "items": {"type": "number"}},
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    },
)
TOOLS = st.one_of(
    st.just(get_weather),
    st.builds(
        ToolDefinition,
        name=NAMES,
        description=st.none() | TEXTS,
        parameters=SCHEMAS | st.just({}),
        strict=st.none() | st.just(False),
    ),
    st.builds(  # strict mode takes some schemas only
        ToolDefinition,
        name=NAMES,
        description=st.none() | TEXTS,
        parameters=st.sampled_from(STRICT_SCHEMAS),
        strict=st.just(True),
    ),
    st.builds(
        lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}},
        NAMES,
        SCHEMAS,
    ),
)
FORMATS = st.one_of(
    st.just(ResponseFormat.json()),
    st.builds(ResponseFormat, schema=SCHEMAS, name=NAMES, strict=st.booleans()),
)
CHOICES = st.one_of(
    st.sampled_from(["auto", "none", "required", ToolChoice.auto(), ToolChoice.none()]),
    NAMES.map(ToolChoice.tool),
)
ROUTING = ProviderSettings(order=["a"])  # must never be seen on these wires


@functools.cache
def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """None, or what a strategy gives; made once, since to make one takes longer than to draw."""
    return st.none() | strategy


@functools.cache
def efforts(wire: Wire) -> st.SearchStrategy:
    reasoning = st.sampled_from(wire.efforts).map(lambda effort: ReasoningConfig(effort=effort))
    if wire.has_budget:
        reasoning |= st.integers(1, 2**20).map(lambda count: ReasoningConfig(max_tokens=count))
    return maybe(reasoning)


SOME_TOOLS = st.lists(TOOLS, min_size=1, max_size=3)
STOPS = st.none() | TEXTS | st.lists(TEXTS, max_size=3)


@st.composite
def parameters(draw, wire: Wire) -> CompletionParameters:
    given = {name: draw(maybe(NUMBERS[name])) for name in wire.fields}
    tools = draw(maybe(SOME_TOOLS))
    if tools:
        given["tool_choice"] = draw(maybe(CHOICES))
        given["parallel_tool_calls"] = draw(maybe(st.booleans()))
    return CompletionParameters(
        tools=tools,
        stop=draw(STOPS),
        response_format=draw(maybe(FORMATS)),
        reasoning=draw(efforts(wire)),
        openrouter_routing=draw(st.sampled_from([None, ROUTING])),
        **given,
    )


@functools.cache
def models(wire: Wire) -> st.SearchStrategy:
    known = KNOWN_MODELS if wire is CLAUDE_WIRE else ()
    same = st.sampled_from(["m", "m", *known]).map(lambda name: (name, name))
    return same | st.just(("m", "another"))


@st.composite
def cases(draw, wire: Wire) -> Case:
    prefill = st.none() if wire is OPENAI else maybe(VISIBLE)
    how = NodeCompletionParameters(
        params=draw(parameters(wire)),
        system_prompt=draw(maybe(TEXTS)),
        force_prepend=draw(prefill),
    )
    return Case(
        messages=draw(histories(wire)),
        exchanges=tuple(draw(SOME_EXCHANGES[wire])),
        question=draw(questions(wire)),
        settings=how,
        streams=draw(st.booleans()),
        models=draw(models(wire)),
    )


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a body whose keys the vendor lays down: not the schemas, nor arguments."""
    if isinstance(value, dict):
        yield value
        for name, inner in value.items():
            if name not in ("parameters", "schema", "input_schema", "input"):
                yield from objects_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects_in(inner)


def forms_in(body: dict[str, Any]) -> set[str]:
    """What there is in a body: all its keys, and the kinds and roles of what it holds."""
    keys = {name for item in objects_in(body) for name in item}
    return keys | {str(item.get(tag)) for item in objects_in(body) for tag in ("type", "role")}


# What the examples must have held, so that a test which passes has said something.
FORMS = {
    OPENAI: """
        model messages max_completion_tokens temperature top_p frequency_penalty presence_penalty
        seed stop tools tool_choice parallel_tool_calls reasoning_effort response_format stream
        stream_options include_usage system user assistant tool content text image_url url detail
        input_audio data format file file_data filename function name description parameters
        strict tool_calls id arguments tool_call_id json_object json_schema schema
    """,
    CLAUDE_WIRE: """
        model messages system max_tokens temperature top_p top_k stop_sequences tools tool_choice
        thinking output_config stream user assistant content text image document source url base64
        media_type data title thinking signature redacted_thinking tool_use id name input
        tool_result tool_use_id is_error server_tool_use cache_control ephemeral ttl description
        input_schema strict auto any none tool disable_parallel_tool_use enabled budget_tokens
        adaptive display disabled effort format json_schema schema
    """,
}
WIRES = pytest.mark.parametrize("wire", [OPENAI, CLAUDE_WIRE], ids=["openai", "anthropic"])


@WIRES
def test_every_request_is_of_the_vendors_own_type_and_has_no_other_key(wire):
    seen = set()

    # The rarest form is in one example of fifty; fewer would miss it in some environment.
    @settings(ORACLE, max_examples=600)
    @given(cases(wire))
    def check(case):
        body = run_of(wire, case)
        wire.check(body)
        wire.rules(msgspec.json.decode(body))
        seen.update(forms_in(msgspec.json.decode(body)))

    check()
    assert seen >= set(FORMS[wire].split())


def unknown_key(body: Any, draw: Callable) -> None:
    draw(st.sampled_from(list(objects_in(body))))["surprise"] = 1


def wrong_type(body: Any, draw: Callable) -> None:
    places = [
        (item, name)
        for item in objects_in(body)
        for name, value in item.items()
        if not isinstance(value, dict)
    ]
    item, name = draw(st.sampled_from(places))
    item[name] = {"odd": [1]}


def missing_key(body: Any, draw: Callable) -> None:
    keys = ("type", "role", "model", "messages", "name")
    places = [(item, name) for item in objects_in(body) for name in keys if name in item]
    item, name = draw(st.sampled_from(places))
    del item[name]


@WIRES
def test_the_oracle_refuses_a_request_with_one_fault_wherever_it_is(wire):
    @settings(ORACLE, max_examples=120)
    @given(cases(wire), st.sampled_from([unknown_key, wrong_type, missing_key]), st.data())
    def check(case, spoil, data):
        body = msgspec.json.decode(run_of(wire, case))
        spoil(body, data.draw)
        with pytest.raises(pydantic.ValidationError):
            wire.check(msgspec.json.encode(body))

    check()


def a_rich_request(wire: Wire) -> dict[str, Any]:
    params = CompletionParameters(
        tools=[get_weather], response_format=ResponseFormat.json_schema({"type": "object"})
    )
    call = ToolCall(id="a", name="get_weather", arguments="{}")
    messages = (
        Message.system("s"),
        Message.user([TextPart(text="see"), ImagePart.from_bytes(PNG)]),
        Message.assistant("", [call]),
        Message.tool_result("a", [TextPart(text="1")]),
    )
    case = Case(messages, (), "and?", NodeCompletionParameters(params=params))
    return msgspec.json.decode(run_of(wire, case))


# Where something is put that does not belong there.
FAULTS = {
    OPENAI: [
        (("surprise",), 1),
        (("messages", 0, "surprise"), 1),
        (("messages", 1, "content", 0, "surprise"), 1),
        (("messages", 1, "content", 1, "image_url", "surprise"), 1),
        (("messages", 2, "tool_calls", 0, "surprise"), 1),
        (("messages", 2, "tool_calls", 0, "function", "surprise"), 1),
        (("messages", 3, "surprise"), 1),
        (("messages", 3, "content", 0, "surprise"), 1),
        (("messages", 3, "content", 0, "cache_control"), {"type": "ephemeral"}),
        (("tools", 0, "surprise"), 1),
        (("tools", 0, "function", "surprise"), 1),
        (("response_format", "json_schema", "surprise"), 1),
        (("model",), 1),
        (("temperature",), "1"),
        (("temperature",), True),
        (("seed",), 1.5),
        (("stream",), 0),
        (("messages", 0, "role"), "narrator"),
        (("messages", 1, "content", 0, "text"), None),
        (("messages", 1, "content", 1, "image_url", "detail"), "very"),
        (("tools", 0, "function", "parameters"), []),
        (("tools", 0, "function", "strict"), "yes"),
    ],
    CLAUDE_WIRE: [
        (("surprise",), 1),
        (("messages", 0, "surprise"), 1),
        (("messages", 0, "content", 0, "surprise"), 1),
        (("messages", 0, "content", 1, "source", "surprise"), 1),
        (("messages", 1, "content", 0, "surprise"), 1),
        (("messages", 2, "content", 0, "surprise"), 1),
        (("messages", 2, "content", 0, "content", 0, "surprise"), 1),
        (("tools", 0, "surprise"), 1),
        (("output_config", "surprise"), 1),
        (("output_config", "format", "surprise"), 1),
        (("model",), 1),
        (("temperature",), "1"),
        (("temperature",), True),
        (("max_tokens",), 1.5),
        (("max_tokens",), None),
        (("seed",), 1),
        (("stream",), 0),
        (("system",), 1),
        (("stop_sequences",), "END"),
        (("messages", 0, "role"), "tool"),
        (("messages", 0, "content", 0, "text"), None),
        (("messages", 0, "content", 0, "cache_control"), {"type": "ephemeral", "ttl": "2h"}),
        (("messages", 0, "content", 1, "source", "media_type"), "image/bmp"),
        (("messages", 1, "content", 0, "input"), "{}"),
        (("tools", 0, "input_schema"), []),
        (("tools", 0, "input_schema", "type"), "array"),
    ],
}


@pytest.mark.parametrize(
    ("wire", "place", "value"),
    [(wire, place, value) for wire, faults in FAULTS.items() for place, value in faults],
    ids=lambda given: ".".join(map(str, given)) if isinstance(given, tuple) else None,
)
def test_the_oracle_names_the_fault_that_it_refuses(wire, place, value):
    body = a_rich_request(wire)
    wire.check(msgspec.json.encode(body))
    *path, name = place
    functools.reduce(operator.getitem, path, body)[name] = value
    with pytest.raises(pydantic.ValidationError) as refused:
        wire.check(msgspec.json.encode(body))
    complaints = refused.value.errors()
    assert any(name in one["loc"] or f"'{name}'" in one["msg"] for one in complaints), complaints


class Facts(NamedTuple):
    """What an answer says, whoever read it. The counts are named by hand on both sides."""

    id: str
    model: str
    text: str
    refusal: str | None
    finish: str | None
    calls: list[tuple[str, str, Any]]
    counts: tuple[int, int, int, int, int] | None  # uncached, read, written, output, reasoning


def ours(name: str) -> Facts:
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    node = ChatNode.root("Be brief.")
    if name.endswith(".sse"):
        stream = node.chat_streaming("Hi", generator)
        list(minillmlib.iterate(stream))
        response = stream.response
    else:
        response = minillmlib.run(node.chat("Hi", generator)).response
    counts = response.usage and (
        response.usage.uncached_input_tokens,
        response.usage.cache_read_tokens,
        response.usage.cache_write_tokens,
        response.usage.completion_tokens,
        response.usage.reasoning_tokens,
    )
    # OpenAI's arguments are a text, which must be the same; Anthropic's are an object.
    is_text = name.startswith("openai")
    return Facts(
        id=response.id,
        model=response.model,
        text=response.content,
        refusal=response.refusal,
        finish=response.raw_finish_reason,
        calls=[
            (call.id, call.name, call.arguments if is_text else call.arguments_json())
            for call in response.tool_calls
        ],
        counts=counts,
    )


def openai_facts(completion: openai.types.chat.ChatCompletion) -> Facts:
    (choice,) = completion.choices
    usage = completion.usage
    read = usage.prompt_tokens_details.cached_tokens
    written = usage.prompt_tokens_details.cache_write_tokens
    return Facts(
        id=completion.id,
        model=completion.model,
        text=choice.message.content or "",
        refusal=choice.message.refusal,
        finish=choice.finish_reason,
        calls=[
            (call.id, call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or ()
        ],
        counts=(
            usage.prompt_tokens - read - written,
            read,
            written,
            usage.completion_tokens,
            usage.completion_tokens_details.reasoning_tokens,
        ),
    )


def claude_facts(message: anthropic.types.Message) -> Facts:
    usage = message.usage
    details = usage.output_tokens_details
    return Facts(
        id=message.id,
        model=message.model,
        text="".join(block.text for block in message.content if block.type == "text"),
        refusal=message.stop_details.explanation if message.stop_reason == "refusal" else None,
        finish=message.stop_reason,
        calls=[
            (block.id, block.name, block.input)
            for block in message.content
            if block.type == "tool_use"
        ],
        counts=(
            usage.input_tokens,
            usage.cache_read_input_tokens,
            usage.cache_creation_input_tokens,
            usage.output_tokens,
            details.thinking_tokens if details else 0,
        ),
    )


def openai_chunks(body: bytes) -> Iterator[openai.types.chat.ChatCompletionChunk]:
    """The chunks as OpenAI's client finds them in the bytes, each held against its type."""
    with http_client_with(body, "text/event-stream") as http_client:
        client = openai.OpenAI(api_key="key", http_client=http_client)
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            yield openai.types.chat.ChatCompletionChunk.model_validate(chunk.to_dict())


def openai_completion(body: bytes) -> openai.types.chat.ChatCompletion:
    """A stream's chunks, put together by OpenAI's library."""
    state = ChatCompletionStreamState()
    for chunk in openai_chunks(body):
        list(state.handle_chunk(chunk))
    return state.get_final_completion()


def claude_message(body: bytes, *, is_beta: bool = False) -> anthropic.types.Message:
    """A stream's events, found, put together and held against its type by Anthropic's library."""
    kinds = anthropic.types.beta if is_beta else anthropic.types
    prefix = "Beta" if is_beta else ""
    event_kind = pydantic.TypeAdapter(getattr(kinds, f"{prefix}RawMessageStreamEvent"))
    with http_client_with(body, "text/event-stream") as http_client:
        client = anthropic.Anthropic(api_key="key", http_client=http_client)
        messages = client.beta.messages if is_beta else client.messages
        for event in messages.create(model="m", max_tokens=1, messages=[], stream=True):
            event_kind.validate_python(event.to_dict())
        with messages.stream(model="m", max_tokens=1, messages=[]) as stream:
            message = stream.get_final_message()
    return getattr(kinds, f"{prefix}Message").model_validate(message.to_dict())


BROKEN = ("error", "truncated")  # these have tests of their own
OPENAI_ANSWERS, CLAUDE_ANSWERS = (
    sorted(
        path.name
        for path in GOLDEN.glob(f"{vendor}_*")
        if not any(word in path.name for word in BROKEN)
    )
    for vendor in ("openai", "anthropic")
)


@pytest.mark.parametrize("name", OPENAI_ANSWERS)
def test_openais_library_reads_the_same_facts_in_an_answer(name):
    body = (GOLDEN / name).read_bytes()
    if name.endswith(".sse"):
        theirs = openai_completion(body)
    else:
        theirs = openai.types.chat.ChatCompletion.model_validate_json(body)
    assert ours(name) == openai_facts(theirs)


FALLBACK = "anthropic_beta_stream_fallback.sse"


def theirs_of_claude(name: str) -> Facts:
    body = (GOLDEN / name).read_bytes()
    if name.endswith(".sse"):
        return claude_facts(claude_message(body, is_beta="_beta_" in name))
    return claude_facts(anthropic.types.Message.model_validate_json(body))


@pytest.mark.parametrize("name", CLAUDE_ANSWERS)
def test_anthropics_library_reads_the_same_facts_in_an_answer(name):
    mine, theirs = ours(name), theirs_of_claude(name)
    if name == FALLBACK:
        mine = mine._replace(model=theirs.model, counts=theirs.counts)
    assert mine == theirs


def test_an_answer_that_fell_back_is_of_the_model_that_gave_it():
    # Its counts are told apart by `iterations` only, which the SDK does not add up either.
    assert ours(FALLBACK).model == theirs_of_claude(FALLBACK).model


def test_an_answer_that_fell_back_goes_back_in_the_form_of_the_vendors_beta():
    generator = golden_generator(FALLBACK).with_transport(ScriptedTransport([reply_of(FALLBACK)]))
    node = asked(ChatNode.root("Be brief."), "Hi", generator, None, streams=True)
    again = generator.with_transport(ScriptedTransport([ScriptedReply.json(CLAUDE)]))
    asked(node, "And?", again, None, streams=False)
    (request,) = again.transport.requests
    check_body(request.body, claude_beta_params.MessageCreateParamsNonStreaming)
    said = msgspec.json.decode(request.body)["messages"][1]["content"]
    assert [block["type"] for block in said] == ["fallback", "text"]


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("block", VENDOR_BLOCKS, ids=lambda block: block["type"])
def test_what_the_vendors_own_tools_leave_goes_back_as_it_came(block, streams):
    kind = pydantic.TypeAdapter(anthropic.types.ContentBlock)
    assert kind.dump_python(kind.validate_python(block), exclude_unset=True) == block
    blocks = [{"type": "text", "text": "Before."}, block, {"type": "text", "text": "After."}]
    end = {"stop_reason": "end_turn"}
    reply = ScriptedReply.json({"content": blocks} | end)
    if streams:
        reply = ScriptedReply.events(*claude_events(blocks, end))
    how = NodeCompletionParameters()
    case = Case((Message.user("Hi"),), (Exchange(reply, (), streams),), "And?", how)
    body = run_of(CLAUDE_WIRE, case)
    CLAUDE_WIRE.check(body)
    assert msgspec.json.decode(body)["messages"][1]["content"] == blocks


def test_there_are_answers_of_both_vendors_to_compare():
    assert len(OPENAI_ANSWERS) >= 8
    assert len(CLAUDE_ANSWERS) >= 10


def text_before_the_break(name: str) -> tuple[str, minillmlib.MiniLLMError]:
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    with pytest.raises(minillmlib.MiniLLMError) as broken:
        list(minillmlib.iterate(ChatNode.root("Be brief.").chat_streaming("Hi", generator)))
    return broken.value.partial, broken.value


def test_openais_library_stops_at_the_same_error_in_a_stream():
    name = "openai_stream_error_midway.sse"
    pieces = []
    with pytest.raises(openai.APIError) as theirs:
        for chunk in openai_chunks((GOLDEN / name).read_bytes()):
            pieces.append(chunk.choices[0].delta.content)
    partial, error = text_before_the_break(name)
    assert partial == "".join(pieces)
    assert theirs.value.message in str(error)


def test_anthropics_library_stops_at_the_same_error_in_a_stream():
    name = "anthropic_stream_error_midway.sse"
    pieces = []
    with http_client_with((GOLDEN / name).read_bytes(), "text/event-stream") as http_client:
        client = anthropic.Anthropic(api_key="key", http_client=http_client)
        with pytest.raises(anthropic.APIStatusError) as theirs:
            for event in client.messages.create(model="m", max_tokens=1, messages=[], stream=True):
                if event.type == "content_block_delta":
                    pieces.append(event.delta.text)
    partial, error = text_before_the_break(name)
    assert partial == "".join(pieces)
    assert theirs.value.body["error"]["type"] == error.code
    assert theirs.value.body["error"]["message"] in str(error)


def test_a_cut_stream_holds_the_same_text_though_openais_library_takes_it_for_whole():
    name = "openai_stream_truncated.sse"
    pieces = [
        chunk.choices[0].delta.content for chunk in openai_chunks((GOLDEN / name).read_bytes())
    ]
    partial, error = text_before_the_break(name)
    assert partial == "".join(pieces)
    assert isinstance(error, minillmlib.IncompleteStreamError)
