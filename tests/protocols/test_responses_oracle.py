"""OpenAI's own library agrees on the Responses wire: with each request, and on each answer."""

from __future__ import annotations

import functools
import operator
from typing import Any

import msgspec
import openai
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import response_create_params as params_types
from responses_wire import bodies, stream_of
from sdk_types import check_body, http_client_with
from sent_bodies import PDF, PNG, get_weather
from short_answers import RESPONSE

import minillmlib
from golden import GOLDEN, golden_generator, reply_of
from minillmlib import (
    ChatNode,
    CompletionParameters,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    TextPart,
    ToolChoice,
    ToolDefinition,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

ORACLE = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TEXTS = st.text(max_size=8)
NAMES = st.text("aZ09_-", min_size=1, max_size=64)
URL = "https://x.example/a"
PARTS = st.one_of(
    st.builds(TextPart, text=TEXTS),
    st.sampled_from(["low", "original", None]).map(lambda how: ImagePart(url=URL, detail=how)),
    st.sampled_from(
        [ImagePart.from_bytes(PNG), DocumentPart.from_bytes(PDF), DocumentPart(url=URL)]
    ),
)
CONTENTS = TEXTS | st.lists(PARTS, min_size=1, max_size=3)
SCHEMAS = st.sampled_from([{"type": "object"}, {"type": "object", "properties": {"x": {}}}])
TOOLS = st.just(get_weather) | st.builds(
    ToolDefinition, name=NAMES, description=st.none() | TEXTS, parameters=SCHEMAS,
    strict=st.none() | st.just(False),
)  # fmt: skip
FORMATS = st.just(ResponseFormat.json()) | st.builds(
    ResponseFormat, schema=SCHEMAS, name=NAMES, strict=st.booleans()
)
EFFORTS = st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "max"])


@st.composite
def parameters(draw: st.DrawFn) -> CompletionParameters:
    tools = draw(st.none() | st.lists(TOOLS, min_size=1, max_size=2))
    choices = st.sampled_from(["auto", "none", "required", ToolChoice.tool("f")])
    return CompletionParameters(
        max_tokens=draw(st.none() | st.integers(16, 2**31)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1)),
        logprobs=draw(st.none() | st.integers(0, 20)),
        reasoning=draw(st.none() | EFFORTS.map(lambda effort: ReasoningConfig(effort=effort))),
        response_format=draw(st.none() | FORMATS),
        tools=tools,
        tool_choice=draw(st.none() | choices) if tools else None,
        parallel_tool_calls=draw(st.none() | st.booleans()) if tools else None,
    )


def generator_of(reply: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.custom("vendor", "https://vendor.example/v1", "m")
    return generator.with_provider(ResponsesProvider()).with_transport(ScriptedTransport([reply]))


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """The body of the last request of a conversation with answers of the vendor."""
    node, rng = ChatNode.root(draw(TEXTS)), draw(st.randoms(use_true_random=False))
    for _ in range(draw(st.integers(0, 3))):
        answer = draw(bodies())
        kinds = ("mcp_call", "not_yet_invented")  # of which the types know more, or nothing
        answer["output"] = [item for item in answer["output"] if item["type"] not in kinds]
        is_streamed = draw(st.booleans())
        reply = stream_of(rng, answer) if is_streamed else ScriptedReply.json(answer)
        node = asked(node, draw(CONTENTS), generator_of(reply), None, streams=is_streamed)
        for call in node.tool_calls:
            result = draw(CONTENTS)
            node = node.add_tool_result(call.id, result, is_error=draw(st.booleans()))
    generator = generator_of(ScriptedReply.json(RESPONSE))
    asked(node, draw(CONTENTS), generator, draw(parameters()), streams=draw(st.booleans()))
    return generator.transport.requests[0].body


def asked(node: ChatNode, content: Any, generator, how, *, streams: bool) -> ChatNode:
    if not streams:
        return minillmlib.run(node.chat(content, generator, how))
    stream = node.chat_streaming(content, generator, how)
    list(minillmlib.iterate(stream))
    return stream.node


def check(body: dict[str, Any]) -> None:
    """Check a body, but for the ids of reasoning: the types want one, and the API takes it without.

    OpenAI's own advice for requests without state is to leave them out.
    """
    items = [
        item | {"id": "rs_1"} if item.get("type") == "reasoning" else item for item in body["input"]
    ]
    kinds = (
        params_types.ResponseCreateParamsNonStreaming,
        params_types.ResponseCreateParamsStreaming,
    )
    check_body(msgspec.json.encode(body | {"input": items}), kinds[bool(body.get("stream"))])


def check_pairs(items: list[dict[str, Any]]) -> None:
    """Check what the types cannot say: each call has one output, and reasoning a follower."""
    calls = [
        item["call_id"] for item in items if item["type"] in ("function_call", "custom_tool_call")
    ]
    outputs = {item["call_id"]: item["type"] for item in items if item["type"].endswith("_output")}
    assert sorted(set(calls)) == sorted(outputs)
    for item, after in zip(items, [*items[1:], None], strict=True):
        if item["type"] in ("function_call", "custom_tool_call"):
            assert outputs[item["call_id"]] == item["type"].removesuffix("_call") + "_call_output"
        if item["type"] == "reasoning":
            assert "id" not in item
            assert after is not None
            assert after.get("role") != "user"


# What the examples must have held, so that a test which passes has said something.
FORMS = {
    "model", "input", "store", "include", "stream", "max_output_tokens", "temperature", "top_p",
    "top_logprobs", "reasoning", "text", "tools", "tool_choice", "parallel_tool_calls", "message",
    "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
    "web_search_call", "phase", "summary", "encrypted_content", "content", "namespace",
}  # fmt: skip


def test_every_request_is_of_the_vendors_own_type_and_has_no_other_key():
    seen: set[str] = set()

    @ORACLE
    @given(conversations())
    def run(data):
        body = msgspec.json.decode(data)
        check(body)
        check_pairs(body["input"])
        seen.update(body, (item["type"] for item in body["input"]))
        seen.update(key for item in body["input"] for key in item)

    run()
    assert seen >= FORMS


RICH = CompletionParameters(
    tools=[get_weather], response_format=ResponseFormat.json_schema({"type": "object"})
)
FAULTS = [
    (("surprise",), 1), (("model",), 1), (("temperature",), "1"), (("stream",), 0), (("stop",), ["a"]),
    (("input", 1, "surprise"), 1), (("input", 1, "content", 0, "surprise"), 1),
    (("input", 1, "content", 1, "image_url"), {"url": URL}), (("input", 1, "role"), "tool"),
    (("tools", 0, "surprise"), 1), (("tools", 0, "strict"), "yes"), (("tools", 0, "function"), {}),
    (("text", "format", "json_schema"), {}), (("reasoning",), "low"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), FAULTS)
def test_the_oracle_refuses_a_fault(place, value):
    generator = generator_of(ScriptedReply.json(RESPONSE))
    content = [TextPart(text="see"), ImagePart.from_bytes(PNG)]
    asked(ChatNode.root("s"), content, generator, RICH, streams=False)
    body = msgspec.json.decode(generator.transport.requests[0].body)
    check(body)
    *path, name = place
    functools.reduce(operator.getitem, path, body)[name] = value
    with pytest.raises(pydantic.ValidationError):
        check(body)


# Those whose bodies deviate from the types by the habits of another server.
OTHERS = ("deepseek", "ollama", "xai", "llamacpp", "lmstudio", "openrouter")
ANSWERS = sorted(
    path.name
    for path in GOLDEN.glob("responses_*")
    if not any(word in path.name for word in ("error", "failed", "truncated", *OTHERS))
)


def facts_of(response: openai.types.responses.Response) -> tuple[Any, ...]:
    usage, output = response.usage, response.output
    parts = [part for item in output if item.type == "message" for part in item.content]
    return (
        response.id,
        response.model,
        response.output_text,
        "".join(part.refusal for part in parts if part.type == "refusal") or None,
        [
            (item.call_id, item.name, item.input if "custom" in item.type else item.arguments)
            for item in output
            if item.type in ("function_call", "custom_tool_call")
        ],
        "\n\n".join(
            part.text for item in output if item.type == "reasoning" for part in item.summary
        ),
        (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens,
         usage.output_tokens_details.reasoning_tokens),
    )  # fmt: skip


def their_answer(name: str) -> openai.types.responses.Response:
    """The answer as OpenAI's client reads it; of a stream, as its last event has it."""
    body = (GOLDEN / name).read_bytes()
    kind = "application/json" if name.endswith(".json") else "text/event-stream"
    with http_client_with(body, kind) as http_client:
        client = openai.OpenAI(api_key="key", http_client=http_client)
        if name.endswith(".json"):
            return client.responses.create(model="m", input="u")
        *events, last = client.responses.create(model="m", input="u", stream=True)
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(said) == last.response.output_text
    return last.response


@pytest.mark.parametrize("name", ANSWERS)
def test_openais_library_reads_the_same_facts_in_an_answer(name):
    generator = golden_generator(name).with_transport(ScriptedTransport([reply_of(name)]))
    node = asked(ChatNode.root("s"), "u", generator, None, streams=name.endswith(".sse"))
    ours, theirs = node.response, their_answer(name)
    assert (
        ours.id, ours.model, ours.content, ours.refusal,
        [(call.id, call.name, call.arguments) for call in ours.tool_calls], ours.reasoning,
        (ours.usage.prompt_tokens, ours.usage.cache_read_tokens, ours.usage.completion_tokens,
         ours.usage.reasoning_tokens),
    ) == facts_of(theirs)  # fmt: skip
    # A refusal counts as the end of a filter, which the wire calls completed.
    assert ours.is_truncated == (theirs.status == "incomplete" or ours.refusal is not None)


def test_there_are_answers_to_compare():
    assert len(ANSWERS) >= 20
