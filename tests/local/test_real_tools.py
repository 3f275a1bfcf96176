"""Calls, schemas and thoughts of a real model over its wires.

The built-in model was taught neither tools nor thinking. A chat template of our own, a grammar
on the server's side and a forced beginning bring it to both: what it says is of no worth, but
every byte of it comes from a real server.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

import msgspec
import pytest
from template_server import WIRES, over, served_with

from minillmlib import (
    ChatDialect,
    ChatNode,
    CompletionParameters,
    FinishReason,
    GeneratorInfo,
    Message,
    NodeCompletionParameters,
    Provider,
    ReasoningConfig,
    ResponseFormat,
    ServerError,
    ToolCall,
    iterate,
    loads,
    run,
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)

GREEDY = CompletionParameters(temperature=0, max_tokens=40)
QUESTION = "What is the capital of France?"
RESULT_TOKENS = 12  # of each tool's result, at least

# Says which functions there are, and shows the server how calls and results are written.
TOOLS_TEMPLATE = r"""
{%- macro turn(role, text) %}{{- '<|im_start|>' + role + '\n' + text + '<|im_end|>\n' }}{% endmacro %}
{%- if tools %}
{{- '<|im_start|>system\nYou can call these functions:\n' }}
{%- for tool in tools %}{{- tool | tojson + '\n' }}{% endfor %}
{{- 'Write a call as <tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- turn('user', 'The function returned: ' + message.content) }}
{%- elif message.tool_calls %}
{{- '<|im_start|>assistant\n' }}
{%- for call in message.tool_calls %}
{%- set arguments = call.function.arguments %}
{{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- arguments if arguments is string else arguments | tojson }}
{{- '}\n</tool_call>\n' }}
{%- endfor %}
{{- '<|im_end|>\n' }}
{%- else %}
{{- turn(message.role, message.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}
"""

# Opens a thought before every answer, and shows the server how earlier ones are written.
THINKING_TEMPLATE = r"""
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\n' }}
{%- if message.reasoning_content %}
{{- '<think>\n' + message.reasoning_content + '\n</think>\n\n' }}
{%- endif %}
{{- message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{% endif %}
"""


@pytest.fixture(scope="module")
def tools_url():
    with served_with(TOOLS_TEMPLATE) as url:
        yield url


@pytest.fixture(scope="module")
def thinking_url():
    with served_with(THINKING_TEMPLATE) as url:
        yield url


def asked(question: str, system: str = "You are a helpful assistant.") -> ChatNode:
    return ChatNode.root(system).add_user(question)


def streamed(leaf: ChatNode, generator: GeneratorInfo, params) -> tuple[ChatNode, list]:
    stream = leaf.complete_streaming(generator, params)
    chunks = list(iterate(stream))
    assert "".join(chunk.delta for chunk in chunks) == stream.response.content
    assert "".join(chunk.reasoning for chunk in chunks) == stream.response.reasoning
    return stream.node, chunks


def assert_same_counts(whole: ChatNode, stream: ChatNode) -> None:
    counts, again = whole.response.usage, stream.response.usage
    assert again.prompt_tokens == counts.prompt_tokens
    assert again.completion_tokens == counts.completion_tokens > 0


def get_weather(city: str) -> str:
    """The weather in a city."""
    return "rain " * RESULT_TOKENS


WEATHER = "What is the weather in Paris?"
# Even under a grammar so small a model tells stories, unless its call is begun for it.
BEGINNING = "<tool_call>"
TOOLS = GREEDY.replace(tools=[get_weather], max_tokens=64)
MUST_CALL = NodeCompletionParameters(
    params=TOOLS.replace(tool_choice="required"), force_prepend=BEGINNING
)
MUST_ANSWER = TOOLS.replace(tool_choice="none", max_tokens=12)


@pytest.fixture(scope="module", params=WIRES)
def called(request, tools_url):
    """The generator of a wire, a node with calls, and one whose calls were streamed."""
    generator = over(request.param, tools_url)
    whole = run(asked(WEATHER).complete(generator, MUST_CALL))
    return generator, whole, *streamed(asked(WEATHER), generator, MUST_CALL)


def test_a_call_is_the_same_whole_and_streamed(called):
    _, whole, stream, chunks = called
    for node in (whole, stream):
        assert node.tool_calls
        for call in node.tool_calls:
            assert call.name == "get_weather"
            assert call.arguments_json().keys() == {"city"}
            assert isinstance(call.arguments_json()["city"], str)
        assert len({call.id for call in node.tool_calls} - {""}) == len(node.tool_calls)
        assert node.text == BEGINNING, "a call is no text"
        assert node.response.finish_reason is FinishReason.TOOL_CALLS
    arguments = [[call.arguments_json() for call in node.tool_calls] for node in (whole, stream)]
    assert arguments[0] == arguments[1]
    assert_same_counts(whole, stream)
    pieces = [delta.arguments for chunk in chunks for delta in chunk.tool_calls]
    assert "".join(pieces) == "".join(call.arguments for call in stream.tool_calls)
    assert len(pieces) > len(stream.tool_calls), "they came in fragments"


def test_results_go_back_to_the_model_which_then_answers(called):
    generator, whole, stream, _ = called
    whole_answer = run(with_results(whole).complete(generator, MUST_ANSWER))
    streamed_answer, _ = streamed(with_results(stream), generator, MUST_ANSWER)
    assert whole_answer.text == streamed_answer.text
    for before, answer in ((whole, whole_answer), (stream, streamed_answer)):
        assert answer.text
        assert not answer.tool_calls
        assert answer.response.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
        results = ["tool"] * len(before.tool_calls)
        roles = [message.role.value for message in answer.thread()]
        assert roles == ["system", "user", "assistant", *results, "assistant"]
        # The server read its own calls and all results besides what it had read before.
        added = answer.response.usage.prompt_tokens - before.response.usage.total_tokens
        assert added > RESULT_TOKENS * len(results)


def with_results(node: ChatNode) -> ChatNode:
    """The last of the added results; all but the first are failures."""
    calls = node.tool_calls
    for call in calls:
        result = get_weather(**call.arguments_json())
        node = node.add_tool_result(call.id, result, is_error=call is not calls[0])
    return node


@pytest.mark.parametrize("wire", WIRES)
def test_an_answer_that_the_server_itself_cannot_read_is_its_error(wire, tools_url):
    # Without the grammar that the choice `required` brings, what follows is no call.
    may_call = MUST_CALL.with_params(TOOLS.replace(tool_choice="auto"))
    leaf = asked(WEATHER)
    with pytest.raises(ServerError, match="format"):
        run(leaf.complete(over(wire, tools_url), may_call))
    with pytest.raises(ServerError, match="format"):
        list(iterate(leaf.complete_streaming(over(wire, tools_url), may_call)))
    assert leaf.children() == []


def thinking(wire: str) -> CompletionParameters:
    """A budget of a few tokens: this wire's own word, or what llama.cpp adds to the other."""
    if wire == "messages":
        return GREEDY.replace(reasoning=ReasoningConfig(max_tokens=4))
    return GREEDY.replace(extra={"thinking_budget_tokens": 4})


@pytest.mark.parametrize("wire", [*WIRES, "responses"])
def test_thoughts_come_before_the_answer_and_are_no_part_of_it(wire, thinking_url):
    whole = run(asked(QUESTION).complete(over(wire, thinking_url), thinking(wire)))
    stream, chunks = streamed(asked(QUESTION), over(wire, thinking_url), thinking(wire))
    assert whole.response.reasoning == stream.response.reasoning != ""
    assert whole.text == stream.text
    for node in (whole, stream):
        assert node.text
        assert node.response.reasoning.strip() not in node.text
        assert "think>" not in node.text + node.response.reasoning
        assert node.message.reasoning.text == node.response.reasoning
    kinds = [bool(chunk.reasoning) for chunk in chunks if chunk.reasoning or chunk.delta]
    assert kinds == sorted(kinds, reverse=True), "the answer begins when the thought has ended"
    assert kinds.count(True) > 1
    assert_same_counts(whole, stream)


class EchoingProvider(Provider):
    """llama.cpp's server, told to get thoughts back as text."""

    dialect = ChatDialect(name="llama.cpp", reasoning_echo="reasoning_content")


def test_thoughts_go_back_where_the_wire_takes_them_and_nowhere_else(thinking_url):
    over_chat, over_messages = (over(wire, thinking_url) for wire in WIRES)
    ways = {
        "left out": (over_chat, thinking(WIRES[0])),
        "as text": (over_chat.with_provider(EchoingProvider()), thinking(WIRES[0])),
        "as blocks": (over_messages, thinking(WIRES[1])),
    }
    read = {}
    for way, (generator, params) in ways.items():
        first = run(asked(QUESTION).complete(generator, params))
        assert first.response.reasoning
        second, short = first.add_user("And of Italy?"), params.with_max_tokens(2)
        read[way] = run(second.complete(generator, short)).response.usage.prompt_tokens
        assert second.thread()[2].reasoning.text == first.response.reasoning
        if way == "as blocks":
            other = run(second.complete(generator.replace(model="another"), short))
            read["as another's"] = other.response.usage.prompt_tokens
            assert list(other.response.request_report.omitted) == ["reasoning of earlier turns"]
    assert read["left out"] == read["as another's"] < read["as text"] == read["as blocks"]


def test_items_of_thoughts_and_calls_go_back_on_the_responses_wire(thinking_url, tools_url):
    generator, short = over("responses", thinking_url), thinking("responses").with_max_tokens(16)
    for first in (
        run(asked(QUESTION).complete(generator, thinking("responses"))),
        streamed(asked(QUESTION), generator, thinking("responses"))[0],
    ):
        second = first.add_user("And of Italy?")
        again = run(second.complete(generator, short))
        assert again.response.request_report.omitted == {}
        other = run(second.complete(generator.replace(model="another"), short))
        read = [node.response.usage.prompt_tokens for node in (other, again)]
        assert read[0] < read[1]
    # Calls of another vendor, and what they gave, are read by the template.
    call = ToolCall(id="toolu_1", name="get_weather", arguments='{"city": "Paris"}')
    thread = [*(node.message for node in asked(WEATHER).path()), Message.assistant("", [call])]
    leaf = ChatNode.from_messages(thread)[1].add_tool_result("toolu_1", get_weather("Paris"))
    for generator in (over("responses", tools_url), over("chat completions", tools_url)):
        answer = run(leaf.complete(generator, MUST_ANSWER))
        assert answer.text
        read.append(answer.response.usage.prompt_tokens)
    assert read[-2] == read[-1] > RESULT_TOKENS


class Capital(msgspec.Struct, forbid_unknown_fields=True):
    """What an answer in JSON must look like."""

    city: Literal["Paris", "Rome"]
    is_certain: bool


HELD = GREEDY.replace(response_format=ResponseFormat.json_schema(msgspec.json.schema(Capital)))


def test_a_schema_with_references_holds_an_answer_whole_and_streamed(local_server):
    generator = over("chat completions", local_server.url, local_server.key)
    leaf = asked(QUESTION, "Answer in JSON.")
    whole = run(leaf.complete(generator, HELD))
    stream, _ = streamed(leaf, generator, HELD)
    assert whole.text == stream.text
    assert msgspec.json.decode(whole.text, type=Capital).city in ("Paris", "Rome")
    anything = GREEDY.with_json_response().with_max_tokens(64)
    assert isinstance(loads(run(leaf.complete(generator, anything)).text), dict)  # perhaps cut


def test_llama_cpp_takes_a_schema_on_the_messages_wire_and_does_not_keep_to_it(local_server):
    generator = over("messages", local_server.url, local_server.key)
    leaf = asked(QUESTION, "Answer in JSON.")
    free = run(leaf.complete(generator, GREEDY))
    held = run(leaf.complete(generator, HELD))
    assert "output_config" in held.response.request_report.sent
    assert held.text == free.text


def test_the_same_seed_gives_the_same_answer_again(local_server):
    generator = over("chat completions", local_server.url, local_server.key)
    # A cached prompt is summed up in another order, so its last digits differ.
    warm = CompletionParameters(temperature=1, max_tokens=12, extra={"cache_prompt": False})
    first, again, other = (
        run(asked("Tell me a story.").complete(generator, warm.replace(seed=seed))).text
        for seed in (7, 7, 8)
    )
    assert first == again != other
