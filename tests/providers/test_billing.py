"""What the bill of each wire depends on: keys, limits, figures that a server states, records."""

from __future__ import annotations

from decimal import Decimal

import pytest

from minillmlib import (
    AnthropicProvider,
    CompletionParameters,
    CompletionResponse,
    CompletionsProvider,
    CostResolution,
    GeneratorInfo,
    GenericProvider,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    ReasoningBlock,
    ResponseFormat,
    ResponsesProvider,
    TokenPrice,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    Usage,
    estimate_cost,
)
from minillmlib.types.costs import MAX_USD

CHAT, CLAUDE, RESPONSES = GenericProvider(), AnthropicProvider(), ResponsesProvider()
OPENROUTER = OpenRouterProvider()


class Bare(Provider):
    """A wire whose body has no key of its own."""

    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"max_tokens": 9} | params.extra


def missing(provider, extra, model="m"):
    """What an estimate lacks to be a ceiling."""
    generator = GeneratorInfo.custom("c", "http://127.0.0.1:1/v1", model).with_provider(provider)
    params = CompletionParameters(max_tokens=5, extra=extra)
    return estimate_cost(
        [Message.user("u")], generator.with_token_price(TokenPrice(1, 1)), params
    ).missing


# The keys that buy nothing beyond tokens.

OF_OPENAI = """
    frequency_penalty presence_penalty logit_bias logprobs top_logprobs n seed stop temperature
    top_p response_format tools tool_choice parallel_tool_calls functions function_call
    reasoning_effort verbosity user safety_identifier prompt_cache_key prompt_cache_retention
    metadata store modalities service_tier max_completion_tokens max_tokens model messages stream
    stream_options
"""
OF_SERVERS = """
    top_k min_p top_a typical_p repetition_penalty best_of continue_final_message
    add_generation_prompt chat_template_kwargs guided_json guided_regex guided_choice
    guided_grammar structured_outputs grammar json_schema ignore_eos min_tokens stop_token_ids
    skip_special_tokens cache_prompt
"""
OF_HOSTS = """
    reasoning reasoning_format include_reasoning reasoning_split thinking enable_thinking
    thinking_budget keep_alive think options safe_prompt random_seed speed
"""
OF_CLAUDE = """
    system metadata stop_sequences temperature top_p top_k tools tool_choice thinking
    output_config service_tier speed cache_control
"""
OF_RESPONSES = """
    instructions store include max_output_tokens max_tool_calls reasoning text temperature top_p
    top_logprobs tools tool_choice parallel_tool_calls truncation service_tier prompt_cache_key
    prompt_cache_retention metadata safety_identifier user
"""
PRICED = {"service_tier": "default", "speed": "standard", "modalities": ["text"], "n": 1,
          "best_of": 1, "max_tokens": 9, "max_completion_tokens": 9}  # fmt: skip
CHAT_KEYS = (OF_OPENAI + OF_SERVERS + OF_HOSTS).split()


class BareClaude(Bare):
    billing = CLAUDE.billing


class BareResponses(Bare):
    billing = RESPONSES.billing


class BareOpenRouter(Bare):
    billing = OPENROUTER.billing


@pytest.mark.parametrize(
    ("provider", "keys"),
    [
        (Bare(), CHAT_KEYS),
        (BareClaude(), OF_CLAUDE.split()),
        (BareResponses(), OF_RESPONSES.split()),
        (BareOpenRouter(), [*CHAT_KEYS, "provider", "transforms", "usage", "cache_control"]),
    ],
)
def test_these_keys_cost_nothing_beyond_tokens_and_all_others_may(provider, keys):
    assert missing(provider, {key: PRICED.get(key, 1) for key in keys}) == ()
    for key in keys:
        for other in (f"{key}_", f"x{key}"):
            assert missing(provider, {other: 1}) == (f"what {other!r} in the request costs",)
    foreign = {*CHAT_KEYS, *OF_CLAUDE.split(), *OF_RESPONSES.split()} - {*keys}
    told = missing(provider, {key: PRICED.get(key, 1) for key in sorted(foreign)})
    known = ("cache_control",) if provider == BareOpenRouter() else ()
    assert told == tuple(
        f"what {key!r} in the request costs" for key in sorted(foreign) if key not in known
    )


@pytest.mark.parametrize("provider", [CHAT, OPENROUTER, OpenAiProvider(), CompletionsProvider()])
@pytest.mark.parametrize(
    ("extra", "is_priced"),
    [
        *(({"service_tier": tier}, tier != "priority")
          for tier in ("auto", "default", "flex", "standard", "standard_only", "priority")),
        ({"service_tier": None}, True),
        ({"speed": "standard"}, True), ({"speed": "fast"}, False),
        ({"modalities": ["text"]}, True), ({"modalities": ["audio"]}, False),
        ({"modalities": None}, True),
        *(({key: 1}, False) for key in
          ("audio", "inference_geo", "mcp_servers", "models", "plugins", "prediction",
           "web_search_options")),
        *(({key: None}, True) for key in ("audio", "plugins", "prediction")),
        ({"tools": [{"type": "function"}, {"type": "custom"}, {"name": "x"}]}, True),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, False),
        ({"tools": [{"type": "web_search"}, {"type": "function"}]}, False),
        ({"tools": ["web_search"]}, False), ({"tools": "none"}, True), ({"tools": []}, True),
    ],
)  # fmt: skip
def test_a_key_costs_more_by_its_value(provider, extra, is_priced):
    (key,) = extra
    assert missing(provider, extra) == (
        () if is_priced else (f"what {key!r} in the request costs",)
    )


def test_all_keys_that_cost_more_are_named_in_their_order():
    body = {"plugins": [], "model": "a/m:online", "speed": "fast", "x": 1, "audio": None,
            "tools": [{"type": "code_interpreter"}], "models": ["b"]}  # fmt: skip
    unpriced = CHAT.billing.unpriced_keys
    assert unpriced(body) == ["plugins", "speed", "models", "model", "tools"]
    assert unpriced({"model": "a/m:online:free", "tools": None}) == []
    for key in ("audio", "inference_geo", "mcp_servers", "modalities", "models", "plugins",
                "prediction", "service_tier", "speed", "web_search_options"):  # fmt: skip
        assert unpriced({key: "x"}) == [key]
    assert unpriced({}) == []


# The most tokens of an answer.


@pytest.mark.parametrize(
    ("body", "limit", "most"),
    [
        ({}, None, None),
        ({}, 7, 7),
        ({"max_tokens": 5}, None, 5),
        ({"max_tokens": 5}, 7, 5),
        ({"max_completion_tokens": 6}, None, 6),
        ({"max_completion_tokens": 6, "max_tokens": 8}, None, 8),
        ({"max_completion_tokens": 9, "max_tokens": 8}, 1, 9),
        ({"max_tokens": 5, "n": 3}, None, 15),
        ({"max_tokens": 5, "best_of": 4}, None, 20),
        ({"max_tokens": 5, "n": 3, "best_of": 2}, None, 15),
        ({"max_tokens": 5, "n": 2, "best_of": 4}, None, 20),
        ({"n": 3}, 7, 21),
        ({"n": 3}, None, None),
        ({"max_tokens": 1}, None, 1),
        ({"max_tokens": 0}, None, None),
        ({"max_tokens": -1}, None, None),
        ({"max_tokens": None}, 7, None),
        ({"max_tokens": 5.0}, None, None),
        ({"max_tokens": True}, None, None),
        ({"max_tokens": 5, "n": 0}, None, None),
        ({"max_tokens": 5, "best_of": "2"}, None, None),
        ({"max_tokens": 5, "max_completion_tokens": 0}, None, None),
    ],
)
def test_the_most_that_a_body_lets_a_model_write(body, limit, most):
    params = CompletionParameters(max_tokens=limit)
    assert CHAT.billing.max_output_tokens(body, params) == most
    if "max_tokens" in body:  # which Anthropic's demands; a warm-up asks for none
        expected = 0 if body["max_tokens"] == 0 else most
        assert CLAUDE.billing.max_output_tokens(body, params) == expected


FORCED = {"tools": [ToolDefinition(name="f")], "tool_choice": "required"}
A_SCHEMA = {"response_format": ResponseFormat.json_schema({"type": "object", "properties": {}})}


@pytest.mark.parametrize(
    ("fields", "of_claude"),
    [
        ({}, 0), (FORCED, 1), (A_SCHEMA, 1), (FORCED | A_SCHEMA, 1),
        (FORCED | {"tool_choice": ToolChoice.tool("f")}, 1), (FORCED | {"tool_choice": "auto"}, 0),
        (FORCED | {"tool_choice": "none"}, 0), ({"tools": FORCED["tools"]}, 0),
    ],
)  # fmt: skip
def test_what_is_the_least_that_a_warm_up_may_ask_for(fields, of_claude):
    params = CompletionParameters(**fields)
    for provider, least in (
        (CHAT, 1), (OpenAiProvider(), 1), (CLAUDE, of_claude), (RESPONSES, 16), (OPENROUTER, 1),
    ):  # fmt: skip
        assert provider.capabilities.min_output_tokens("m", params) == least


# Figures that LiteLLM's proxy states.

ID, COST = "x-litellm-call-id", "x-litellm-response-cost"


@pytest.mark.parametrize(
    ("headers", "record", "stated"),
    [
        ({}, {"cost": 0.5}, None),
        ({"x-request-id": "1"}, {"cost": 0.5}, None),
        ({ID: "1"}, {"cost": 0.5}, ("0.5", "usage.cost of LiteLLM")),
        ({ID: "1"}, {"cost": 0}, None),
        ({ID: "1"}, {"costs": 0.5}, None),
        ({ID: "1"}, {}, None),
        ({ID: "1"}, None, None),
        ({COST: "0.25"}, None, ("0.25", f"header {COST}")),
        ({ID: "1", COST: "0.25"}, {"cost": 0.5}, ("0.25", f"header {COST}")),
        ({ID: "1", COST: "0"}, {"cost": 0.5}, ("0.5", "usage.cost of LiteLLM")),
        ({COST: "much"}, {"cost": 0.5}, ("0.5", "usage.cost of LiteLLM")),
        ({COST: "much"}, {"cost": "free"}, None),
    ],
)
def test_a_gateway_states_the_cost_in_a_header_or_else_in_the_counts(headers, record, stated):
    found = CHAT.billing.stated_cost(headers, record)
    assert found == (stated and (Decimal(stated[0]), stated[1]))


# Anthropic's refusals.


@pytest.mark.parametrize(
    ("fields", "is_billed"),
    [
        ({"content": "Hi.", "raw_finish_reason": "end_turn"}, True),
        ({"raw_finish_reason": "end_turn"}, True),
        ({}, True),
        ({"raw_finish_reason": "refusal"}, False),
        ({"content": "I will", "raw_finish_reason": "refusal"}, True),
        ({"tool_calls": (ToolCall(id="c", name="f", arguments="{}"),),
          "raw_finish_reason": "refusal"}, True),
        ({"reasoning_blocks": (ReasoningBlock(fields={"type": "thinking"}),),
          "raw_finish_reason": "refusal"}, True),
    ],
)  # fmt: skip
def test_a_refusal_before_any_output_is_not_billed(fields, is_billed):
    assert CLAUDE.billing.is_billed(CompletionResponse(**fields)) is is_billed


# OpenRouter's costs.

COUNTS = {"prompt_tokens": 10, "completion_tokens": 4}


@pytest.mark.parametrize(
    ("bill", "cost"),
    [
        ({}, None),
        ({"cost": 0.5}, "0.5"),
        ({"cost": 0}, "0"),
        ({"cost": None}, None),
        ({"cost": -0.5}, None),
        ({"cost": "much"}, None),
        ({"cost": "NaN"}, None),
        ({"cost": int(MAX_USD)}, str(int(MAX_USD))),
        ({"cost": int(MAX_USD) + 1}, None),
        ({"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.25}}, "0.5"),
        ({"cost": 0.5, "cost_details": None}, "0.5"),
        ({"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 9}}, "0.5"),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, "0.75"),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0.5, "is_byok": True}, None),
        ({"is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, None),
        ({"cost": 0.5, "is_byok": "perhaps"}, None),
    ],
)
def test_openrouters_cost_beside_the_counts(bill, cost):
    plain = Usage(uncached_input_tokens=10, completion_tokens=4)
    expected = plain.with_native_cost(Decimal(cost), "usage.cost") if cost else plain
    assert OPENROUTER.parse_usage({"usage": COUNTS | bill}) == expected


def test_without_counts_openrouter_has_no_cost():
    assert OPENROUTER.parse_usage({"usage": {"cost": 0.5}}) is None
    assert OPENROUTER.parse_usage({}) is None


RECORD = {"total_cost": 0.5, "native_tokens_prompt": 100, "native_tokens_cached": 30,
          "native_tokens_completion": 20, "native_tokens_reasoning": 5}  # fmt: skip


def found_in(**changes):
    data = {key: value for key, value in (RECORD | changes).items() if value is not ...}
    return OPENROUTER.billing.parse_deferred_usage({"data": data})


def of_record(**fields):
    counts = {"uncached_input_tokens": 70, "cache_read_tokens": 30, "completion_tokens": 20,
              "reasoning_tokens": 5}  # fmt: skip
    usage = Usage(**(counts | fields))
    cost = fields.get("native_cost", Decimal("0.5"))
    return usage.with_native_cost(cost, "total_cost of the generation's record")


def test_openrouters_record_of_a_generation():
    assert found_in() == of_record()
    assert found_in(native_tokens_cached=...) == of_record(
        uncached_input_tokens=100, cache_read_tokens=0
    )
    assert found_in(native_tokens_cached=100) == of_record(
        uncached_input_tokens=0, cache_read_tokens=100
    )
    assert found_in(native_tokens_completion=None, native_tokens_reasoning=None) == of_record(
        completion_tokens=0, reasoning_tokens=0
    )
    assert found_in(upstream_inference_cost=0.25) == of_record()
    assert found_in(upstream_inference_cost=0.25, is_byok=True) == of_record(
        native_cost=Decimal("0.75")
    )
    assert found_in(total_cost=0) == of_record(native_cost=Decimal(0))
    nothing = dict.fromkeys(RECORD, 0)
    assert found_in(**nothing) == of_record(
        uncached_input_tokens=0, cache_read_tokens=0, completion_tokens=0, reasoning_tokens=0,
        native_cost=Decimal(0),
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"total_cost": ...}, {"total_cost": -1}, {"native_tokens_cached": 101}, {"is_byok": True},
     {"native_tokens_prompt": ...}, {"native_tokens_prompt": -1}, {"native_tokens_prompt": "many"}],
    ids=str,
)  # fmt: skip
def test_a_record_that_is_not_complete_is_no_bill(changes):
    assert found_in(**changes) is None


@pytest.mark.parametrize("raw", [None, {}, [], "x", {"data": None}, {"data": []}, 3])
def test_what_is_no_record_is_no_bill(raw):
    assert OPENROUTER.billing.parse_deferred_usage(raw) is None


@pytest.mark.parametrize(
    ("raw", "is_pending"),
    [
        ({"error": {"message": "Generation gen-1 not found", "code": 404}}, True),
        ({"error": {"message": "generation\nnot found"}}, True),
        ({"error": {"message": "not found: generation"}}, False),
        ({"error": {"message": "Regenerations not found"}}, False),
        ({"error": {"message": "Not Found"}}, False),
        ({"error": "Generation not found"}, False),
        ({"error": {"message": None}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_404_of_openrouter_says_whether_the_record_is_yet_to_come(raw, is_pending):
    assert OPENROUTER.billing.is_usage_pending(raw) is is_pending


def test_where_the_record_is_and_who_sends_counts_unasked():
    for base in ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/"):
        address = OPENROUTER.resolve_post_stream(base, "gen 1/é")
        assert address == "https://openrouter.ai/api/v1/generation?id=gen%201%2F%C3%A9"
    assert CHAT.resolve_post_stream("https://c.example", "gen-1") is None
    for asked in (True, False):
        assert [p.emits_stream_usage(asked) for p in (OPENROUTER, CLAUDE, RESPONSES)] == [True] * 3
        assert [p.emits_stream_usage(asked) for p in (CHAT, OpenAiProvider())] == [asked] * 2


def test_the_figure_of_the_provider_comes_before_the_price():
    usage = Usage(uncached_input_tokens=1_000_000, completion_tokens=1_000_000)
    price = TokenPrice(1, 2, source="a list")
    by_price = CHAT.cost_of(usage, price)
    assert (by_price.cost, by_price.source, by_price.usage) == (3, "a list", usage)
    stated = usage.with_native_cost(Decimal(5), "usage.cost")
    cost = CHAT.cost_of(stated, price)
    assert (cost.cost, cost.source, cost.usage) == (5, "usage.cost", stated)
    nothing = usage.with_native_cost(Decimal(0), "usage.cost")
    assert CHAT.cost_of(nothing, price).cost == 0
    assert CHAT.cost_of(usage, None).is_unknown is False
    assert CHAT.cost_of(usage, None).usage == usage
    assert CHAT.cost_of(usage, None).resolution is CostResolution.UNPRICED
    of_a_tier = Usage(uncached_input_tokens=1, service_tier="priority")
    assert CHAT.cost_of(of_a_tier, price).resolution is CostResolution.UNPRICED
