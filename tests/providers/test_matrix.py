"""Every parameter on every provider is sent, is an error that names it, or is ignored and said so.

The table of the guide is the expectation.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from short_answers import answer_to

import minillmlib
from minillmlib import (
    AnthropicProvider,
    BadRequestError,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    ProviderSettings,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    ToolChoice,
    ToolDefinition,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

GUIDE = Path(__file__).parents[2] / "docs" / "parameters.md"
PROVIDERS = [
    OpenAiProvider(), ResponsesProvider(), OpenRouterProvider(), GenericProvider(),
    AnthropicProvider(), CompletionsProvider(),
]  # fmt: skip
TOOLS = [ToolDefinition(name="f"), ToolDefinition(name="g")]
SCHEMA = {"type": "object", "properties": {}}

# Two values of each row of the table that must not look alike on the wire.
VALUES = {
    ("max_tokens", "maximum tokens of the answer"): (3000, 4000),
    ("temperature", "randomness"): (0.25, 1),
    ("top_p", "nucleus sampling"): (0.96, 0.97),
    ("top_k", "number of most likely tokens"): (3, 4),
    ("frequency_penalty", "penalty for repetition, by count"): (0.5, -0.5),
    ("presence_penalty", "penalty for any repetition"): (0.5, -0.5),
    ("repetition_penalty", "multiplicative penalty"): (1.1, 1.2),
    ("stop", "stop sequences"): (["A"], ["B"]),
    ("seed", "reproducible sampling"): (1, 2),
    ("logprobs", "probabilities of the tokens"): (3, 0),
    ("response_format", "JSON that fits a schema"): (
        ResponseFormat.json_schema(SCHEMA), ResponseFormat.json_schema({"type": "array"})),
    ("response_format", "any JSON"): (ResponseFormat.json(), None),
    ("reasoning", "an effort"): (ReasoningConfig(effort="low"), ReasoningConfig(effort="high")),
    ("reasoning", "a budget of tokens"): (
        ReasoningConfig(max_tokens=1500), ReasoningConfig(max_tokens=1600)),
    ("tools", "tools that the model may call"): (TOOLS, TOOLS[1:]),
    ("tool_choice", "whether it must call one"): (ToolChoice.none(), ToolChoice.tool("f")),
    ("parallel_tool_calls", "several calls at once"): (True, False),
    ("openrouter_routing", "OpenRouter's choice of a provider"): (
        ProviderSettings(sort="price"), ProviderSettings(sort="latency")),
    ("extra", "keys of one provider only"): ({"k": 1}, {"k": 2}),
}  # fmt: skip

NEEDS_TOOLS = ("tool_choice", "parallel_tool_calls")


def table() -> dict[tuple[str, str], list[str]]:
    """The cells of each row, by field and meaning."""
    rows = {}
    for line in GUIDE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 + len(PROVIDERS) and cells[0].startswith("`"):
            rows[cells[0].strip("`"), cells[1]] = cells[2:]
    return rows


def sent(provider, params, model="m", leaf=None):
    """The body and the request report of a call with these parameters."""
    transport = ScriptedTransport([ScriptedReply.json(answer_to(provider))])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", model).replace(
        provider=provider, transport=transport
    )
    leaf = leaf or ChatNode.root("s").add_user("u")
    node = minillmlib.run(leaf.complete(generator, params))
    return msgspec.json.decode(transport.requests[0].body), node.response.request_report


def test_the_guide_tells_of_every_field():
    rows = table()
    assert {field for field, _ in rows} == set(CompletionParameters.__struct_fields__)
    assert rows.keys() == VALUES.keys()


@pytest.mark.parametrize("row", VALUES, ids=" - ".join)
@pytest.mark.parametrize("column", range(len(PROVIDERS)), ids=[type(p).__name__ for p in PROVIDERS])
def test_a_field_does_what_the_guide_says(row, column):
    field, cell, provider = row[0], table()[row][column], PROVIDERS[column]
    first, second = VALUES[row]
    plain = CompletionParameters(max_tokens=2000, tools=TOOLS if field in NEEDS_TOOLS else None)
    if cell == "error":
        with pytest.raises(InvalidParameterError, match=f"no tools;|{field}"):
            sent(provider, plain.replace(**{field: first}))
        return
    before, _ = sent(provider, plain)
    after, request_report = sent(provider, plain.replace(**{field: first}))
    again, _ = sent(provider, plain.replace(**{field: second}))
    assert set(request_report.sent) == set(after)
    if cell == "ignored":
        assert after == before == again
        assert field in request_report.omitted
        return
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    keys = {"k"} if cell == "as given" else set(re.findall(r"`(\w+)`", cell))
    assert changed == keys
    assert after != again
    assert field not in request_report.omitted


@pytest.mark.parametrize("field", CompletionParameters.__struct_fields__)
def test_a_value_of_another_kind_is_an_error_that_names_the_field(field):
    tools = {"tools": TOOLS} if field in NEEDS_TOOLS else {}
    with pytest.raises(InvalidParameterError, match=field):
        CompletionParameters(**{**tools, field: object()})


SAMPLING = ("temperature", "top_p")
OPENAI_THINKING = {"temperature": 0, "top_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1,
                   "stop": ["x"]}  # fmt: skip


def effort(word):
    return {"reasoning": ReasoningConfig(effort=word)}


def budget(tokens):
    return {"reasoning": ReasoningConfig(max_tokens=tokens)}


FORCED = [{"tools": TOOLS, "tool_choice": choice} for choice in ("required", ToolChoice.tool("f"))]

# What a model refuses, as the vendors document it: the parameters, and a word of the error.
REFUSED = {
    "o3": [*({name: value} for name, value in OPENAI_THINKING.items()), effort("none")],
    "o4-mini-2025-04-16": [{"temperature": 0}, effort("minimal"), effort("xhigh")],
    "gpt-5": [{"temperature": 0}, effort("none"), effort("max")],
    "gpt-5-mini": [{"stop": ["x"]}],
    "gpt-5.1": [{"temperature": 0, **effort("low")}],
    "gpt-5.5": [{"temperature": 0}],
    "gpt-5.6": [{"tools": TOOLS}, {"tools": TOOLS, **effort("low")}, effort("minimal")],
    "gpt-6-astra": [{"tools": TOOLS}, effort("none"), effort("minimal"), {"top_p": 0.5}],
    "claude-haiku-4-5": [
        {"temperature": 0, "top_p": 0.5}, budget(1000), {"max_tokens": 2000, **budget(2000)},
        {"temperature": 0, **budget(2000)}, {"top_p": 0.5, **budget(2000)},
        {"top_k": 5, **budget(2000)}, *(forced | budget(2000) for forced in FORCED),
        {"max_tokens": 1024, **effort("high")}, {"temperature": 0, **effort("low")}],
    "claude-3-7-sonnet-20250219": [{"top_k": 3, **budget(2000)}],
    "claude-sonnet-4-6": [effort("xhigh"), {"temperature": 0, "top_p": 0.5},
                          {"temperature": 0, **budget(2000)}],
    "claude-opus-4-7": [{"temperature": 0}, {"top_p": 0.5}, {"top_k": 1}, budget(2000)],
    "claude-opus-4-8": [{"temperature": 0}, budget(2000)],
    "claude-sonnet-5": [{"temperature": 0}, budget(2000)],
    "claude-opus-5-5-20261007": [effort("none"), *FORCED, {"top_k": 1}],
    "claude-sonnet-5-5": [effort("none"), *FORCED],
    "claude-fable-5": [effort("none"), *FORCED],
    "claude-mythos-5": [effort("none"), *FORCED],
}  # fmt: skip

TAKEN = {
    "gpt-4o": [OPENAI_THINKING, {"tools": TOOLS}],
    "gpt-5-chat-latest": [OPENAI_THINKING],
    "o3": [{"temperature": 1, "top_p": 1, "frequency_penalty": 0}, effort("low"), {"tools": TOOLS}],
    "gpt-5": [effort("minimal"), {"tools": TOOLS}],
    "gpt-5.1": [OPENAI_THINKING, OPENAI_THINKING | effort("none"), effort("xhigh")],
    "gpt-5.5": [OPENAI_THINKING | effort("none"), {"tools": TOOLS}],
    "gpt-5.6": [{"tools": TOOLS, **effort("none")}, effort("high")],
    "gpt-6-astra": [effort("low"), {"max_tokens": 5}],
    "claude-3-5-sonnet-20241022": [{"temperature": 0, "top_p": 0.5, "top_k": 3}, budget(1024)],
    "claude-haiku-4-5": [{"temperature": 0}, {"top_p": 0.5}, budget(1024), effort("none"), *FORCED],
    "claude-sonnet-4-20250514": [{"temperature": 0}],
    "claude-opus-4-6": [budget(2000), effort("max"), effort("none"), {"temperature": 0}],
    "claude-opus-4-7": [effort("xhigh"), effort("none"), {"temperature": 1}, *FORCED],
    "claude-opus-5": [effort("none"), *FORCED],
    "claude-haiku-5-5": [effort("none"), *FORCED],
    "claude-mythos-preview": [{"temperature": 0}, budget(2000)],
    "smollm2": [{"temperature": 0, "top_p": 0.5, **budget(4)}],
}  # fmt: skip


# What a model refuses on the Responses wire; with tools it thinks there.
REFUSED_BY_RESPONSES = {
    "gpt-5.6": [{"max_tokens": 5}, {"temperature": 0}, effort("minimal")],
    "gpt-6-astra": [effort("none"), {"top_p": 0.5}],
    "gpt-4o": [{"max_tokens": 15}],
}
TAKEN_BY_RESPONSES = {
    "gpt-5.6": [{"tools": TOOLS}, {"tools": TOOLS, **effort("low")}, {"max_tokens": 16}],
    "gpt-6-astra": [{"tools": TOOLS}],
    "gpt-4o": [{"temperature": 0, "top_p": 0.5}],
}
RESPONSES = ResponsesProvider()


def cases_of(table, responses):
    """Each model with each of its cases, and with the wire that has them."""
    return [
        (provider_of(model) if wire is None else wire, model, fields)
        for rows, wire in ((table, None), (responses, RESPONSES))
        for model in rows
        for fields in rows[model]
    ]


def provider_of(model: str):
    is_openai = model.startswith(("gpt", "o3", "o4"))
    return OpenAiProvider() if is_openai else AnthropicProvider()


@pytest.mark.parametrize(("provider", "model", "fields"), cases_of(REFUSED, REFUSED_BY_RESPONSES))
@pytest.mark.parametrize("status", [400, 422])
def test_what_a_model_is_known_to_refuse_is_sent_and_explains_the_servers_refusal(
    provider, model, fields, status
):
    refusal = {"error": {"message": "not supported", "type": "invalid_request_error"}}
    transport = ScriptedTransport([ScriptedReply.json(refusal, status=status)])
    generator = GeneratorInfo.custom("t", "https://t.example/v1", model).replace(
        provider=provider, transport=transport
    )
    with pytest.raises(BadRequestError, match=rf"not supported \({model} ") as caught:
        call = ChatNode.root("s").chat("u", generator, CompletionParameters(**fields))
        minillmlib.run(call)
    assert caught.value.status == status
    assert len(transport.requests) == 1


@pytest.mark.parametrize(("provider", "model", "fields"), cases_of(TAKEN, TAKEN_BY_RESPONSES))
def test_what_a_model_takes_is_sent_and_explains_no_refusal(provider, model, fields):
    params = CompletionParameters(**fields)
    body, _ = sent(provider, params, model)
    assert body["model"] == model
    assert provider.capabilities.explain_refusal(model, params) is None


def test_an_effort_is_a_budget_for_models_that_know_only_budgets():
    claude = AnthropicProvider()
    for word, limit, expected in [("low", None, 4096), ("high", None, 16_384), ("max", 4000, 3800),
                                  ("minimal", 2000, 1024)]:  # fmt: skip
        params = CompletionParameters(max_tokens=limit, **effort(word))
        body, _ = sent(claude, params, "claude-haiku-4-5")
        assert body["thinking"] == {"type": "enabled", "budget_tokens": expected}
        assert body["max_tokens"] == (limit or 4096 + expected)
        assert "output_config" not in body


@pytest.mark.parametrize(
    ("provider", "model"),
    [(AnthropicProvider(), "claude-opus-4-6"), (AnthropicProvider(), "claude-haiku-5-5"),
     (OpenRouterProvider(), "anthropic/claude-opus-4.8"), (OpenAiProvider(), "gpt-4o"),
     (ResponsesProvider(), "any")],
)  # fmt: skip
def test_a_model_that_refuses_a_beginning_is_told_by_name(provider, model):
    with pytest.raises(InvalidParameterError, match=r"beginning|begins"):
        sent(provider, NodeCompletionParameters(force_prepend="A"), model)


@pytest.mark.parametrize(
    ("provider", "model"),
    [(AnthropicProvider(), "claude-haiku-4-5"), (AnthropicProvider(), "claude-3-5-haiku-20241022"),
     (OpenRouterProvider(), "anthropic/claude-sonnet-4.5"), (OpenRouterProvider(), "qwen/qwen3"),
     (GenericProvider(), "m")],
)  # fmt: skip
def test_other_models_continue_it(provider, model):
    body, _ = sent(provider, NodeCompletionParameters(force_prepend="A"), model)
    assert body["messages"][-1]["role"] == "assistant"
