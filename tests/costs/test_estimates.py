"""Estimates: a ceiling that nothing exceeds, or what is missing for one."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillmlib import (
    AudioPart,
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionParameters,
    DocumentPart,
    GeneratorInfo,
    ImagePart,
    InvalidParameterError,
    Message,
    MiniLLMError,
    NodeCompletionParameters,
    Provider,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    TextPart,
    TokenPrice,
    ToolCall,
    VideoPart,
    estimate_cost,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

# A dollar for each token, so that a ceiling is a number of tokens.
PER_INPUT = TokenPrice(1_000_000, 0)
PER_OUTPUT = TokenPrice(0, 1_000_000)
SOME = CompletionParameters(max_tokens=1)
HELLO = [Message.user("Hello")]
TEMPLATE_TOKENS = 1024  # allowed for what a template adds of itself; the model's adds nothing here
PNG = b"\x89PNG\r\n\x1a\n"
IMAGE = ImagePart.from_bytes(PNG)

MODELS = {
    "openai": "gpt-4o",
    "anthropic": "claude-haiku-4-5",
    "openrouter": "anthropic/claude-haiku-4.5",
}


def generator_of(wire, model=None):
    if wire == "custom":
        return GeneratorInfo.custom("c", "http://127.0.0.1:1/v1", model or "m")
    return getattr(GeneratorInfo, wire)(model or MODELS[wire]).with_api_key("k")


def tokens(generator, messages=HELLO, params=SOME):
    """The most tokens of input."""
    estimate = estimate_cost(messages, generator.with_token_price(PER_INPUT), params)
    assert estimate.missing == ()
    return int(estimate.ceiling)


def written(generator, params, messages=HELLO):
    """The most tokens of output."""
    return estimate_cost(messages, generator.with_token_price(PER_OUTPUT), params).ceiling


def missing(generator, params=SOME, messages=HELLO):
    estimate = estimate_cost(messages, generator.with_token_price(PER_INPUT), params)
    assert (estimate.ceiling is None) == bool(estimate.missing)
    return estimate.missing


def sent_bytes(generator, messages, params):
    """The size of the body that the same call really sends."""
    transport = ScriptedTransport([ScriptedReply.json({"error": {"message": "no"}}, status=400)])
    _, last = ChatNode.from_messages(messages)
    with pytest.raises(MiniLLMError):
        run(last.complete(generator.with_transport(transport), params))
    return len(transport.requests[0].body)


# Long ones reach beyond what is allowed for frames and templates.
texts = st.text(max_size=40) | st.text(min_size=1, max_size=4).map(lambda text: text * 3000)
calls = st.builds(
    ToolCall, id=st.just("call_1"), name=st.just("look"), arguments=texts.map(msgspec.json.encode).map(bytes.decode)
)  # fmt: skip
exchanges = st.one_of(
    texts.map(lambda text: [Message.user("u" + text), Message.assistant("a" + text)]),
    st.builds(
        lambda text, call, result: [
            Message.user([TextPart(text="u" + text), TextPart(text="v")]),
            Message.assistant("", [call]),
            Message.tool_result(call.id, "r" + result),
        ],
        texts, calls, texts,
    ),
)  # fmt: skip
conversations = st.builds(
    lambda pairs, last: [m for pair in pairs for m in pair] + [Message.user("u" + last)],
    st.lists(exchanges, max_size=4), texts,
)  # fmt: skip
asked = st.builds(
    lambda system, filling, beginning, schema, described: NodeCompletionParameters(
        params=CompletionParameters(
            max_tokens=5,
            tools=[{"type": "function", "function": {
                "name": "look", "description": described, "parameters": {"type": "object"}}}],
            response_format=ResponseFormat.json_schema({"title": schema}),
        ),
        system_prompt="s{name}" + system,
        format_kwargs={"name": filling},
        force_prepend=beginning,
    ),
    texts, texts, st.sampled_from([None, "{"]), texts, texts,
)  # fmt: skip


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(conversations, asked)
@pytest.mark.parametrize("wire", ["custom", "openai", "anthropic", "openrouter"])
def test_the_ceiling_counts_no_fewer_tokens_than_the_body_has_bytes(wire, messages, params):
    generator = generator_of(wire)
    if wire == "openai":
        params = params.replace(force_prepend=None)
    assert tokens(generator, messages, params) >= sent_bytes(generator, messages, params)


HARD_TEXTS = {
    "plain": "Hello",
    "far": "👩‍👩‍👧‍👦 𒐫 ﷽ \u0301\u0302" * 5,
    "digits": "1234567890" * 20,
    "blank": " \n\t" * 50,
    "marks": "<|im_start|>x",
    "controls": "\x00\x01\x02" * 20,
}


@pytest.mark.long
@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=list(HARD_TEXTS))
@pytest.mark.parametrize("wire", ["custom", "anthropic"])
def test_a_real_model_counts_no_more_tokens_than_the_ceiling(local_server, wire, text):
    generator = (
        GeneratorInfo.anthropic("smollm2").with_base_url(local_server.url)
        if wire == "anthropic"
        else GeneratorInfo.custom("real", local_server.base_url, "smollm2")
    )
    generator = generator.with_api_key(local_server.key)
    answer = run(ChatNode.root(text).chat("u" + text, generator, SOME))
    most = tokens(generator, [Message.system(text), Message.user("u" + text)])
    assert 0 < answer.response.usage.prompt_tokens <= most - TEMPLATE_TOKENS


def test_an_estimate_of_a_node_is_that_of_its_thread_and_nothing_is_sent():
    transport = ScriptedTransport([])
    generator = generator_of("openai").with_token_price(TokenPrice(1, 2)).with_transport(transport)
    node = ChatNode.root("Be brief.").add_user("Hello")
    assert node.estimate_cost(generator, SOME) == estimate_cost(node.thread(), generator, SOME)
    assert transport.requests == []


def test_what_a_call_could_not_send_cannot_be_estimated():
    with pytest.raises(InvalidParameterError, match="top_k"):
        estimate_cost(HELLO, generator_of("openai"), CompletionParameters(top_k=1))


def test_the_price_of_the_call_goes_before_the_generators():
    params = NodeCompletionParameters(params=SOME, token_price=PER_OUTPUT)
    estimate = estimate_cost(HELLO, generator_of("openai").with_token_price(PER_INPUT), params)
    assert estimate.ceiling == 1


def test_without_a_price_or_a_limit_the_estimate_says_that_they_are_missing():
    estimate = estimate_cost(HELLO, generator_of("openai"))
    assert (estimate.ceiling, estimate.missing) == (
        None,
        ("a price (with_token_price)", "max_tokens"),
    )


LIMIT = CompletionParameters(max_tokens=100)


@pytest.mark.parametrize(
    ("wire", "params", "most"),
    [
        ("openai", LIMIT, 100),
        ("custom", LIMIT.replace(extra={"best_of": 5}), 500),
        ("custom", LIMIT.replace(extra={"max_completion_tokens": 900}), 900),
        ("custom", CompletionParameters(extra={"max_tokens": 7}), 7),
        ("openrouter", LIMIT.replace(reasoning=ReasoningConfig(max_tokens=50)), 100),
        ("anthropic", LIMIT, 100),
        ("anthropic", CompletionParameters(), 4096),
        ("anthropic", CompletionParameters(max_tokens=0), 0),
        ("anthropic", CompletionParameters(reasoning=ReasoningConfig(max_tokens=2000)), 6096),
    ],
)
def test_the_answer_may_be_as_long_as_what_is_really_sent_permits(wire, params, most):
    assert written(generator_of(wire), params) == most


@pytest.mark.parametrize(
    "params",
    [
        CompletionParameters(),
        CompletionParameters(max_tokens=0),
        CompletionParameters(extra={"max_tokens": -1}),
        CompletionParameters(extra={"max_tokens": "9"}),
        LIMIT.replace(extra={"n": None}),
        LIMIT.replace(extra={"n": True}),
    ],
    ids=str,
)
def test_what_is_no_limit_to_some_server_is_none_here(params):
    assert missing(generator_of("custom"), params) == ("max_tokens",)


class Siblings(Provider):
    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"max_tokens": params.max_tokens, "n": 3}


def test_each_of_several_answers_may_be_as_long_as_the_limit():
    assert written(generator_of("custom").with_provider(Siblings()), LIMIT) == 300


class OwnWire(Provider):
    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"prompt": messages[-1].text, "settings": {"length": params.max_tokens}}


def test_a_wire_of_ones_own_is_bounded_by_the_limit_it_was_told():
    generator = generator_of("custom").with_provider(OwnWire())
    assert written(generator, LIMIT) == 100
    assert missing(generator, CompletionParameters()) == ("max_tokens",)


@pytest.mark.parametrize(
    "extra",
    [
        {"service_tier": "priority"}, {"web_search_options": {}}, {"plugins": [{"id": "web"}]},
        {"prediction": {"type": "content", "content": "x"}}, {"modalities": ["text", "audio"]},
        {"models": ["dearer"]}, {"mcp_servers": []}, {"speed": "fast"}, {"inference_geo": "us"},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"audio": {}},
    ],
    ids=str,
)  # fmt: skip
def test_what_costs_more_than_its_tokens_is_missing(extra):
    (key,) = extra
    for wire in ("custom", "anthropic"):
        assert missing(generator_of(wire), LIMIT.replace(extra=extra)) == (
            f"what {key!r} in the request costs",
        )


def test_a_model_of_openrouter_that_searches_is_missing_its_fee():
    generator = generator_of("openrouter", "openai/gpt-4o:online")
    assert missing(generator) == ("what 'model' in the request costs",)


@pytest.mark.parametrize(
    "extra", [{"service_tier": "flex"}, {"speed": "standard"}, {"modalities": ["text"]},
              {"plugins": None}, {"min_p": 0.1}, {"tools": [{"type": "custom", "name": "x"}]}], ids=str
)  # fmt: skip
def test_what_costs_its_tokens_and_no_more_is_not_missing(extra):
    assert missing(generator_of("custom"), LIMIT.replace(extra=extra)) == ()


@pytest.mark.parametrize(
    "extra",
    [{"text": {"verbosity": "low"}}, {"truncation": "auto"}, {"max_tool_calls": 1}],
    ids=str,
)
def test_what_only_the_responses_wire_knows_costs_its_tokens_and_no_more(extra):
    generator = generator_of("custom").with_provider(ResponsesProvider())
    assert missing(generator, LIMIT.replace(extra=extra)) == ()


@pytest.mark.parametrize(
    ("wire", "model", "detail", "most"),
    [
        ("anthropic", "claude-haiku-4-5", None, 1568),
        ("anthropic", "claude-3-5-sonnet-latest", None, 1568),
        ("anthropic", "claude-opus-4-7", None, 4784),
        ("anthropic", "claude-sonnet-5-5", None, 4784),
        ("openrouter", "anthropic/claude-opus-4.7", None, 4784),
        ("openai", "gpt-4o", None, 85 + 8 * 170),
        ("openai", "gpt-4o-2024-08-06", "high", 85 + 8 * 170),
        ("openai", "gpt-4o", "low", 85),
        ("openai", "gpt-4o-mini", "auto", 2833 + 8 * 5667),
        ("openai", "gpt-4o-mini", "low", 2833),
        ("openai", "gpt-4.1-mini", None, 15_115),
        ("openai", "gpt-5", None, 70 + 8 * 140),
        ("openai", "gpt-5.5", "original", 24_600),
        ("openai", "gpt-5.6-sol", None, 36_000),
        ("openrouter", "openai/gpt-4o", None, 85 + 8 * 170),
    ],
)
def test_an_image_counts_as_the_most_that_its_vendor_publishes(wire, model, detail, most):
    """Whatever its size, of which a URL tells nothing."""
    generator = generator_of(wire, model)
    image = ImagePart(url="https://a.b/c", detail=detail)
    thousand = ImagePart(data=PNG + bytes(1_000_000), detail=detail)
    without = tokens(generator, [Message.user([TextPart(text="x")])])
    for part in (image, thousand):
        counted = tokens(generator, [Message.user([TextPart(text="x"), part])]) - without
        assert most < counted < most + 300


@pytest.mark.parametrize(
    ("wire", "model", "part"),
    [
        ("custom", "gpt-4o", IMAGE),
        ("openai", "gpt-4o-audio-preview", IMAGE),
        ("openai", "gpt-7", IMAGE),
        ("openai", "gpt-4o", AudioPart.from_bytes(b"ID3")),
        ("openai", "gpt-4o", DocumentPart.from_bytes(b"%PDF-")),
        ("anthropic", "claude-opus-4-7", DocumentPart.from_bytes(b"%PDF-")),
        ("anthropic", "a-model-of-others", IMAGE),
        ("openrouter", "google/gemini-2.5-flash", IMAGE),
        ("openrouter", "google/gemini-2.5-flash", VideoPart.from_url("https://a.b/c")),
    ],
)
def test_what_no_vendor_has_published_a_rule_for_is_missing(wire, model, part):
    messages = [Message.user([TextPart(text="x"), part])]
    rule = f"a published rule for the tokens of {part.kind} input"
    assert missing(generator_of(wire, model), messages=messages) == (rule,)


def test_images_in_results_and_of_earlier_answers_count_too():
    results = [
        Message.user("u"),
        Message.assistant("", [ToolCall(id="c", name="look", arguments="{}")]),
        Message.tool_result("c", [IMAGE, IMAGE]),
    ]
    assert 2 * 1568 < tokens(generator_of("anthropic"), results) < 2 * 1568 + 2500
    made = [Message.user("u"), Message.assistant("a", media=[IMAGE]), Message.user("v")]
    assert tokens(generator_of("openrouter"), made) > 1568
    assert tokens(generator_of("openai"), made) < 1568 + 400  # it is not sent there


def test_the_input_is_taken_at_its_dearest_rate_on_either_side_of_every_threshold():
    cheap, dear = TokenPrice(1, 0), TokenPrice(1_000_000, 0)
    middle = TokenPrice(0, 0, cache_write=1_000_000, threshold=200, next_tier=cheap)
    late = TokenPrice(0, 0, threshold=300, next_tier=TokenPrice(0, 0, cache_write_1h=1_000_000))
    generator = generator_of("custom")
    most = {
        price: estimate_cost(HELLO, generator.with_token_price(price), SOME).ceiling
        for price in (dear, TokenPrice(0, 0, threshold=100, next_tier=middle), late)
    }
    assert list(most.values()) == [most[dear], 200, most[dear]]
    assert most[dear] > 300


def test_a_budget_refuses_what_has_no_ceiling_and_lets_through_what_has():
    answer = {
        "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1},
    }
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    generator = generator_of("openai").with_token_price(TokenPrice(1, 1)).with_transport(transport)
    asked = NodeCompletionParameters(params=SOME, budget=Budget("0.01"))
    root = ChatNode.root("s")
    with pytest.raises(BudgetExceededError, match="rule for the tokens of document input"):
        run(root.chat([TextPart(text="u"), DocumentPart.from_bytes(b"%PDF-")], generator, asked))
    assert transport.requests == []
    run(root.chat([TextPart(text="u"), IMAGE], generator, asked))
    assert asked.budget.spent == Decimal("0.00001")


LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = Message.assistant("", [ToolCall(id="c", name="look", arguments="{}")])
SEEN = Message.tool_result("c", [TextPart(text="x"), IMAGE])
TWICE = [Message.user([TextPart(text="x"), IMAGE, IMAGE, ImagePart(data=PNG + b"1")])]


@pytest.mark.parametrize(
    ("wire", "messages", "params", "frames", "media"),
    [
        ("openai", HELLO, SOME, 1, []),
        ("openai", [Message.system("s"), Message.user("é\ud800"), Message.assistant("a")], SOME, 3, []),
        ("openai", HELLO, SOME.replace(tools=[LOOK, LOOK]), 3, []),
        ("openai", HELLO, SOME.replace(stop=["x"], temperature=0.5), 1, []),
        ("anthropic", [*HELLO, CALLED, SEEN], SOME.replace(tools=[LOOK]), 5, [IMAGE]),
        ("anthropic", TWICE, SOME, 4, [IMAGE, IMAGE, ImagePart(data=PNG + b"1")]),
    ],
)  # fmt: skip
def test_the_ceiling_is_the_bytes_the_frames_and_the_media(wire, messages, params, frames, media):
    generator = generator_of(wire)
    text_bytes = sent_bytes(generator, messages, params) - sum(len(part.base64) for part in media)
    assert tokens(generator, messages, params) == (
        text_bytes + 64 * frames + TEMPLATE_TOKENS + 1568 * len(media)
    )


def test_all_that_is_missing_is_named_in_one_order():
    params = CompletionParameters(extra={"web_search_options": {}, "service_tier": "priority"})
    parts = [IMAGE, AudioPart.from_bytes(b"ID3"), DocumentPart.from_bytes(b"%PDF-"), IMAGE]
    messages = [Message.user([TextPart(text="x"), *parts])]
    assert estimate_cost(messages, generator_of("openai", "gpt-7"), params).missing == (
        "a price (with_token_price)",
        "max_tokens",
        "a published rule for the tokens of audio input",
        "a published rule for the tokens of document input",
        "a published rule for the tokens of image input",
        "what 'web_search_options' in the request costs",
        "what 'service_tier' in the request costs",
    )


def test_a_stream_has_the_ceiling_of_the_whole_answer():
    generator = generator_of("custom").with_token_price(PER_INPUT)
    reply = ScriptedReply.text("ok", usage=None)
    left = []
    for is_streamed in (False, True):
        asked = NodeCompletionParameters(params=SOME, budget=Budget(10_000))
        leaf = ChatNode.root("s").add_user("u")
        scripted = generator.with_transport(ScriptedTransport([reply]))
        if is_streamed:
            run(leaf.complete_streaming(scripted, asked).collect())
        else:
            run(leaf.complete(scripted, asked))
        left.append(asked.budget.remaining)
    estimate = estimate_cost(leaf.thread(), generator, SOME)
    assert left == [10_000 - estimate.ceiling] * 2
