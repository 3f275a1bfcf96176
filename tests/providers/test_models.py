"""What is known of single models, by the vendors' documentation: each row, and both sides of it."""

from __future__ import annotations

import pytest

from minillmlib import (
    AnthropicProvider,
    AudioPart,
    AzureResponsesProvider,
    ChatNode,
    CompletionParameters,
    DocumentPart,
    GeneratorInfo,
    GenericProvider,
    ImagePart,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    ToolChoice,
    ToolDefinition,
)
from minillmlib.protocols.cache_control import PromptCache

CLAUDE, OPENAI, RESPONSES = AnthropicProvider(), OpenAiProvider(), ResponsesProvider()
OPENROUTER, COMPATIBLE = OpenRouterProvider(), GenericProvider()
TOOLS = {"tools": [ToolDefinition(name="f")]}
MUST = TOOLS | {"tool_choice": "required"}
THIS = TOOLS | {"tool_choice": ToolChoice.tool("f")}
STRICT = ResponseFormat.json_schema({"type": "object", "properties": {}})
LOOSE = ResponseFormat.json_schema({"type": "object", "properties": {}}, strict=False)
IMAGE = ImagePart.from_url("https://a.example/i.png")


def effort(word, **fields):
    return {"reasoning": ReasoningConfig(effort=word), **fields}


def budget(tokens, **fields):
    return {"reasoning": ReasoningConfig(max_tokens=tokens), **fields}


def reasons(provider, model, fields):
    """The reasons that a refusal of the server gets, without the model's name before each."""
    told = provider.capabilities.explain_refusal(model, CompletionParameters(**fields))
    if told is None:
        return []
    first, *others = told.split("; " + model + " ")
    assert first.startswith(model + " ")
    return [first.removeprefix(model + " "), *others]


# Claude. A name is one of the vendor's, of a gateway or of an older scheme.

NAMES = {
    "claude-3-haiku-20240307": (3, 0), "claude-3-opus-latest": (3, 0),
    "claude-3-5-sonnet-20241022": (3, 5), "claude-3-5-haiku-latest": (3, 5),
    "anthropic/claude-3.5-haiku": (3, 5), "claude-3-7-sonnet-20250219": (3, 7),
    "anthropic/claude-3.7-sonnet": (3, 7), "claude-sonnet-4-20250514": (4, 0),
    "claude-opus-4-0": (4, 0), "claude-opus-4-1-20250805": (4, 1),
    "claude-sonnet-4-5-20250929": (4, 5), "claude-haiku-4-5@20251001": (4, 5),
    "anthropic.claude-opus-4-5-20251101-v1:0": (4, 5), "anthropic/claude-opus-4.5": (4, 5),
    "claude-opus-4-6": (4, 6), "eu.anthropic.claude-sonnet-4.6": (4, 6),
    "claude-opus-4-7": (4, 7), "claude-opus-4-8": (4, 8), "anthropic/claude-opus-4.8": (4, 8),
    "claude-sonnet-5": (5, 0), "claude-opus-5-20260601": (5, 0), "claude-fable-5": (5, 0),
    "claude-mythos-5": (5, 0), "claude-opus-5-5-20261007": (5, 5), "claude-haiku-5.5": (5, 5),
    "claude-sonnet-10": (10, 0), "claude-opus-10-12": (10, 12),
}  # fmt: skip
NO_VERSION = [
    "claude-next", "claude-sonnet", "claude-mythos-preview", "claude-2.1", "claude-instant-1",
    "claude-sonnet-20250514", "claude-opus-latest", "gpt-4o", "sonnet-4-5",
]  # fmt: skip


@pytest.mark.parametrize(("name", "version"), NAMES.items())
def test_the_version_in_a_name_decides_what_a_claude_takes(name, version):
    abilities = CLAUDE.capabilities
    has_efforts = version >= (4, 6)
    message, params = [Message.user("u")], CompletionParameters(**effort("high"))
    body = CLAUDE.build_request(name, message, params, stream=False, include_usage=True)
    assert ("output_config" in body) is has_efforts
    assert (body["thinking"]["type"] == "enabled") is not has_efforts
    refusal = f"{name} refuses a beginning, like all of Claude's models from 4.6 on"
    assert abilities.why_no_prefill(name) == (refusal if has_efforts else None)
    older = f"{name} is older than schemas for answers"
    has_schemas = version >= (4, 5) or version == (4, 1)
    assert abilities.why_no_schema(name, STRICT) == (None if has_schemas else older)
    told = "Claude takes only strict schemas" if has_schemas else older
    assert abilities.why_no_schema(name, LOOSE) == told
    pixels = 4784 if version >= (4, 7) else 1568
    assert CLAUDE.billing.max_media_tokens(name, IMAGE) == pixels


@pytest.mark.parametrize("name", NO_VERSION)
def test_of_a_name_without_a_version_nothing_is_known(name):
    abilities = CLAUDE.capabilities
    assert abilities.why_no_prefill(name) is None
    is_claude = "claude" in name
    unknown = f"it is not known whether {name} is held to a schema on this wire"
    assert abilities.why_no_schema(name, STRICT) == (None if is_claude else unknown)
    assert CLAUDE.billing.max_media_tokens(name, IMAGE) is None
    everything = {"temperature": 0, "top_p": 0.5, "top_k": 1, **budget(1), **MUST}
    assert reasons(CLAUDE, name, everything) == []
    cache = abilities.prompt_cache(name)
    assert (cache.min_tokens, cache.is_automatic) == (None, not is_claude)


def test_other_media_have_no_published_rule():
    for part in (AudioPart.from_bytes(b"ID3"), DocumentPart.from_bytes(b"%PDF-")):
        assert CLAUDE.billing.max_media_tokens("claude-opus-4-7", part) is None
        assert OPENAI.billing.max_media_tokens("gpt-4o", part) is None


NO_TEMPERATURE, NO_TOP_P, NO_TOP_K = (
    f"takes no {field}; leave it out" for field in ("temperature", "top_p", "top_k")
)
ONE_OF_TWO = "takes temperature or top_p, not both"
NO_BUDGET = "takes no reasoning max_tokens; give an effort"
ALWAYS = "always thinks; leave out the reasoning effort none, or use low"
NO_XHIGH = "has no reasoning effort xhigh; use high or max"
SMALL = "thinks with at least 1024 tokens; raise the max_tokens of reasoning"
NO_ROOM = "counts its thinking against max_tokens; raise max_tokens above the budget"
COLD = "takes no temperature while it thinks; leave it out"
NARROW = "takes no top_p below 0.95 while it thinks; leave it out"
TOP_K = "takes no top_k while it thinks; leave it out"
NOT_REQUIRED = "cannot be forced to call a tool; use auto in place of required"
NOT_THIS = "cannot be forced to call a tool; use auto in place of tool"
THINKS = "cannot be forced to call a tool while it thinks; leave out one of the two"

CLAUDE_REFUSALS = [
    # Sampling: from 4.7 on only the defaults are taken, from 4 on one of two.
    ("claude-opus-4-6", {"temperature": 0, "top_k": 3}, []),
    ("claude-opus-4-7", {"temperature": 0}, [NO_TEMPERATURE]),
    ("claude-opus-4-7", {"temperature": 2}, [NO_TEMPERATURE]),
    ("claude-opus-4-7", {"top_p": 0.5}, [NO_TOP_P]),
    ("claude-opus-4-7", {"top_k": 1}, [NO_TOP_K]),
    ("claude-opus-4-7", {"temperature": 1}, []),
    ("claude-opus-4-7", {"top_p": 1}, []),
    ("claude-sonnet-5", {"temperature": 0, "top_p": 0.5, "top_k": 1},
     [NO_TEMPERATURE, NO_TOP_P, NO_TOP_K, ONE_OF_TWO]),
    ("claude-3-7-sonnet-latest", {"temperature": 0, "top_p": 0.5}, []),
    ("claude-sonnet-4-20250514", {"temperature": 0, "top_p": 0.5}, [ONE_OF_TWO]),
    ("claude-sonnet-4-20250514", {"temperature": 0}, []),
    ("claude-sonnet-4-20250514", {"top_p": 0.5}, []),
    # Efforts and budgets.
    ("claude-opus-4-6", budget(2000), []),
    ("claude-opus-4-7", budget(2000), [NO_BUDGET]),
    ("claude-opus-4-8", effort("none"), []),
    ("claude-opus-5", effort("none"), []),
    ("claude-sonnet-5", effort("none"), []),
    ("claude-haiku-5-5", effort("none"), []),
    ("claude-opus-5-5", effort("none"), [ALWAYS]),
    ("claude-sonnet-5-5", effort("none"), [ALWAYS]),
    ("claude-fable-5", effort("none"), [ALWAYS]),
    ("claude-mythos-5", effort("none"), [ALWAYS]),
    ("claude-fable-5", effort("low"), []),
    ("claude-sonnet-4-6", effort("xhigh"), [NO_XHIGH]),
    ("claude-sonnet-4-6", effort("max"), []),
    ("claude-opus-4-7", effort("xhigh"), []),
    ("claude-haiku-4-5", effort("xhigh"), []),
    ("claude-haiku-4-5", budget(1023), [SMALL]),
    ("claude-haiku-4-5", budget(1024), []),
    ("claude-haiku-4-5", budget(2000, max_tokens=2000), [NO_ROOM]),
    ("claude-haiku-4-5", budget(2000, max_tokens=2001), []),
    ("claude-haiku-4-5", effort("low", max_tokens=1024), [NO_ROOM]),
    ("claude-haiku-4-5", effort("low", max_tokens=1025), []),
    ("claude-haiku-4-5", effort("low", temperature=0), [COLD]),
    ("claude-haiku-4-5", effort("low", temperature=1), []),
    ("claude-haiku-4-5", effort("none", temperature=0, top_k=1, max_tokens=1), []),
    ("claude-haiku-4-5", budget(2000, top_p=0.94), [NARROW]),
    ("claude-haiku-4-5", budget(2000, top_p=0.95), []),
    ("claude-haiku-4-5", budget(2000, top_k=1), [TOP_K]),
    ("claude-opus-4-6", effort("low", temperature=0, top_k=1, max_tokens=1), []),
    ("claude-opus-4-6", budget(2000, temperature=0), [COLD]),
    ("claude-opus-4-5", budget(9, max_tokens=9, temperature=0, top_p=0.5, top_k=1),
     [ONE_OF_TWO, SMALL, NO_ROOM, COLD, NARROW, TOP_K]),
    # Forced calls.
    ("claude-opus-5", MUST, []),
    ("claude-haiku-5-5", MUST, []),
    ("claude-opus-5-5", MUST, [NOT_REQUIRED]),
    ("claude-opus-5-5", THIS, [NOT_THIS]),
    ("claude-sonnet-5-5", THIS, [NOT_THIS]),
    ("claude-sonnet-6", MUST, [NOT_REQUIRED]),
    ("claude-fable-5", MUST, [NOT_REQUIRED]),
    ("claude-mythos-5", THIS, [NOT_THIS]),
    ("claude-fable-5", TOOLS, []),
    ("claude-fable-5", TOOLS | {"tool_choice": "auto"}, []),
    ("claude-fable-5", TOOLS | {"tool_choice": "none"}, []),
    ("claude-haiku-4-5", MUST | effort("low"), [THINKS]),
    ("claude-haiku-4-5", THIS | budget(2000), [THINKS]),
    ("claude-haiku-4-5", MUST | effort("none"), []),
    ("claude-opus-4-6", MUST | effort("low"), []),
    ("claude-opus-4-6", TOOLS | budget(2000), []),
    ("claude-fable-5", MUST | budget(2000, top_p=1), [NO_BUDGET, NOT_REQUIRED, THINKS]),
]  # fmt: skip


@pytest.mark.parametrize(("model", "fields", "expected"), CLAUDE_REFUSALS)
def test_what_a_claude_is_known_to_refuse(model, fields, expected):
    assert reasons(CLAUDE, model, fields) == expected


WARMUP = "{} would think up to its budget first; leave the reasoning out"


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        ("claude-haiku-4-5", {}, None),
        ("claude-haiku-4-5", effort("low"), WARMUP),
        ("claude-haiku-4-5", effort("none"), None),
        ("claude-haiku-4-5", budget(2000), WARMUP),
        ("claude-opus-4-6", effort("low"), None),
        ("claude-opus-4-6", budget(2000), WARMUP),
        ("claude-opus-4-7", budget(2000), WARMUP),
        ("glm-5.3", effort("low"), None),
        ("glm-5.3", budget(2000), WARMUP),
    ],
)
def test_a_cache_is_not_warmed_by_a_model_that_thinks_up_to_a_budget(model, fields, reason):
    for provider in (CLAUDE, OPENROUTER):
        told = provider.capabilities.why_no_warmup(model, CompletionParameters(**fields))
        assert told == (reason and reason.format(model))


NOTHING = dict.fromkeys(
    ("max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
     "repetition_penalty", "stop", "seed", "logprobs", "metadata", "user", "safety_identifier",
     "store"), "nothing",
)  # fmt: skip
OF_CLAUDE = NOTHING | {
    "response_format": "system", "speed": "system", "tool_choice": "messages",
    "parallel_tool_calls": "messages", "images": "messages", "reasoning": "messages",
    "thinking": "messages",
}  # fmt: skip
OF_OPENAI = NOTHING | {"response_format": "everything", "prompt_cache_key": "everything"}


@pytest.mark.parametrize(
    ("provider", "model"),
    [(CLAUDE, "claude-opus-4-8"), (OPENROUTER, "anthropic/claude-sonnet-4.6")],
)
def test_the_cache_of_a_claude(provider, model):
    cache = provider.capabilities.prompt_cache(model)
    assert cache == PromptCache(
        supports_breakpoint=cache.supports_breakpoint, is_automatic=False, min_tokens=1024,
        lifetime_secs=None, has_system_first=True, effects=OF_CLAUDE,
    )  # fmt: skip
    marks = [cache.supports_breakpoint(Message.user(content)) for content in ("u", IMAGE_ONLY)]
    assert marks == [True, provider is CLAUDE], "OpenRouter passes on those of texts only"


IMAGE_ONLY = (IMAGE,)


@pytest.mark.parametrize(
    ("minimum", "models"),
    [
        (512, ["opus-5", "fable-5", "mythos-5", "opus-5-5", "sonnet-5.5", "haiku-5.5"]),
        (1024, ["opus-4-8", "sonnet-5", "sonnet-4-6", "sonnet-4-5-20250929", "sonnet-4-20250514",
                "opus-4.1", "opus-4-20250514", "3-7-sonnet-20250219", "3.7-sonnet"]),
        (2048, ["opus-4-7", "3-5-haiku-20241022"]),
        (4096, ["opus-4-6", "opus-4-5-20251101", "haiku-4.5"]),
        (None, ["sonnet-2-7", "opus-6", "mythos-preview"]),
    ],
)  # fmt: skip
def test_a_plan_knows_the_shortest_prefix_that_a_claude_caches(minimum, models):
    node = ChatNode.root("s").cache_breakpoint()
    for model in models:
        plan = node.cache_plan(GeneratorInfo.anthropic(f"claude-{model}"))
        assert plan.min_tokens == minimum, model


# OpenAI. The cache, choices, schemas and sealed reasoning of each family.

OLD, SINCE_4O, LONG = None, 300, 1800


@pytest.mark.parametrize(
    ("model", "lifetime", "has_schemas", "choices", "seals"),
    [
        ("gpt-3.5-turbo", OLD, False, 128, False),
        ("gpt-4", OLD, False, 128, False),
        ("gpt-4-turbo", OLD, False, 128, False),
        ("gpt-4o", SINCE_4O, True, 128, False),
        ("gpt-4o-2024-05-13", SINCE_4O, False, 128, False),
        ("gpt-4o-2024-08-06", SINCE_4O, True, 128, False),
        ("gpt-4o-mini", SINCE_4O, True, 128, False),
        ("gpt-4.1-nano", SINCE_4O, True, 128, False),
        ("chatgpt-4o-latest", SINCE_4O, False, 128, False),
        ("o1-mini", SINCE_4O, False, 1, True),
        ("o1-preview", SINCE_4O, False, 1, True),
        ("o1", SINCE_4O, True, 1, True),
        ("o1-pro", SINCE_4O, True, 1, True),
        ("o4-mini", SINCE_4O, True, 1, True),
        ("gpt-5", SINCE_4O, True, 1, True),
        ("gpt-5-chat-latest", SINCE_4O, True, 128, False),
        ("gpt-5.1-chat-latest", SINCE_4O, True, 128, False),
        ("gpt-5.5", SINCE_4O, True, 1, True),
        ("gpt-5.6", LONG, True, 1, True),
        ("gpt-5.9", LONG, True, 1, True),
        ("gpt-6-astra", LONG, True, 1, True),
        ("gpt-9", LONG, True, 1, True),
    ],
)
def test_what_a_model_of_openai_has(model, lifetime, has_schemas, choices, seals):
    older = f"{model} is older than schemas for answers"
    for provider in (OPENAI, RESPONSES):
        told = provider.capabilities.why_no_schema(model, STRICT)
        assert told == (None if has_schemas else older)
    expected = lifetime and PromptCache(
        is_automatic=True, min_tokens=1024, lifetime_secs=lifetime, effects=OF_OPENAI
    )
    for provider, name in ((OPENAI, model), (RESPONSES, model), (OPENROUTER, f"openai/{model}")):
        assert provider.capabilities.prompt_cache(name) == expected
    assert OPENAI.capabilities.max_choices(model) == choices
    body = RESPONSES.build_request(
        model, [Message.user("u")], CompletionParameters(), stream=False, include_usage=True
    )
    assert body.get("include") == (["reasoning.encrypted_content"] if seals else None)
    unsealed = AzureResponsesProvider(seals_reasoning=False).build_request(
        model, [Message.user("u")], CompletionParameters(), stream=False, include_usage=True
    )
    assert "include" not in unsealed


@pytest.mark.parametrize("model", ["gpt-oss-120b", "openai/gpt-oss-20b", "smollm2", "qwen-o3x"])
def test_of_a_model_that_openai_does_not_serve_nothing_is_known(model):
    assert OPENAI.capabilities.prompt_cache(model) == PromptCache()
    assert COMPATIBLE.capabilities.why_no_prefill(model) is None
    assert OPENAI.billing.max_media_tokens(model, IMAGE) is None
    sampling = {"temperature": 0, "top_p": 0.5, "stop": ["x"]}
    assert reasons(OPENAI, model, sampling | MUST | effort("none")) == []


@pytest.mark.parametrize(
    ("model", "key"),
    [("gpt-4o", "max_tokens"), ("openai/gpt-4.1", "max_tokens"), ("gpt-3.5-turbo", "max_tokens"),
     ("chatgpt-4o-latest", "max_tokens"), ("gpt-oss-120b", "max_tokens"), ("foo1", "max_tokens"),
     ("proto1", "max_tokens"), ("o1", "max_completion_tokens"), ("x.o9-y", "max_completion_tokens"),
     ("openai/o3-mini", "max_completion_tokens"), ("gpt-5", "max_completion_tokens"),
     ("openai/gpt-9", "max_completion_tokens"), ("gpt-10", "max_completion_tokens"),
     ("azure.gpt-5.4-mini", "max_completion_tokens")],
)  # fmt: skip
def test_a_compatible_server_gets_the_limit_under_the_key_of_the_model(model, key):
    params = CompletionParameters(max_tokens=9)
    body = COMPATIBLE.build_request(
        model, [Message.user("u")], params, stream=False, include_usage=True
    )
    assert body == {"model": model, "messages": [{"role": "user", "content": "u"}], key: 9}


@pytest.mark.parametrize(
    ("model", "begins"),
    [("gpt-4o", True), ("openai/gpt-4o", True), ("o3", True), ("eu.o3", True), ("gpt-6", True),
     ("chatgpt-4o-latest", True), ("openai/chatgpt-4o", True), ("gpt-oss-20b", False),
     ("openai/gpt-oss-20b", False), ("qwen3", False), ("foo3", False), ("mygpt-4", False)],
)  # fmt: skip
def test_a_model_of_openai_begins_a_new_answer_behind_any_server(model, begins):
    reason = f"{model} begins a new answer after an assistant message, like all of OpenAI's models"
    for provider in (COMPATIBLE, OPENROUTER):
        assert provider.capabilities.why_no_prefill(model) == (reason if begins else None)
    told = OPENAI.capabilities.why_no_prefill(model)
    assert told == "OpenAI begins a new answer after an assistant message"
    told = RESPONSES.capabilities.why_no_prefill(model)
    assert told == "a server of the Responses wire begins a new answer after an assistant message"


# Images: base and tile, or patches times a factor, as the guide to vision has them.

TILES = {
    "gpt-4o-mini": (2833, 5667), "gpt-4o-mini-2024-07-18": (2833, 5667), "gpt-4o": (85, 170),
    "gpt-4o-2024-11-20": (85, 170), "gpt-4.1": (85, 170), "gpt-4.1-2025-04-14": (85, 170),
    "chatgpt-4o-latest": (85, 170), "o1": (75, 150), "o1-2024-12-17": (75, 150),
    "o1-pro": (75, 150), "o3": (75, 150), "gpt-5": (70, 140), "gpt-5.1": (70, 140),
    "gpt-5-chat-latest": (70, 140), "gpt-5.1-chat-latest": (70, 140),
    "gpt-5-2025-08-07": (70, 140),
}  # fmt: skip
PATCHES = {  # 6144 and 10000 of them at 2.46, or 30000 at 1.2
    "gpt-4.1-mini": 15_115, "gpt-4.1-nano": 15_115, "o4-mini": 15_115,
    "o4-mini-2025-04-16": 15_115, "gpt-5-mini": 15_115, "gpt-5-nano": 15_115,
    "gpt-5.4-mini": 15_115, "gpt-5.4-nano-2026-03-17": 15_115, "gpt-5.2": 15_115,
    "gpt-5.4": 24_600, "gpt-5.5": 24_600, "gpt-5.5-2026-04-23": 24_600, "gpt-5.6": 36_000,
    "gpt-5.6-sol": 36_000, "gpt-5.6-terra": 36_000, "gpt-5.6-luna": 36_000,
    "gpt-5.6-luna-2026-09-01": 36_000,
}  # fmt: skip
NO_RULE = [
    "gpt-4o-audio-preview", "gpt-4o-search-preview", "gpt-5.3", "gpt-5.1-mini", "gpt-5-pro",
    "gpt-5.6-mars", "o1-mini", "o3-mini", "gpt-4", "gpt-6", "my-gpt-4o", "gpt-4o-2024-11-20x",
]  # fmt: skip


@pytest.mark.parametrize("model", [*TILES, *PATCHES, *NO_RULE])
def test_an_image_counts_as_the_most_that_openai_publishes(model):
    base, tile = TILES.get(model, (None, None))
    most = PATCHES.get(model) if base is None else base + 8 * tile
    low = most if base is None else base
    for provider, name in ((OPENAI, model), (RESPONSES, model), (OPENROUTER, f"openai/{model}")):
        for detail in (None, "auto", "high"):
            part = ImagePart(url="https://a.example/i.png", detail=detail)
            assert provider.billing.max_media_tokens(name, part) == most
        part = ImagePart(url="https://a.example/i.png", detail="low")
        assert provider.billing.max_media_tokens(name, part) == low


def test_behind_openrouter_the_vendor_in_the_name_decides():
    count = OPENROUTER.billing.max_media_tokens
    assert count("anthropic/claude-opus-4.6", IMAGE) == 1568
    for model in ("google/claude-opus-4.6", "claude-opus-4.6", "azure/gpt-4o", "gpt-4o"):
        assert count(model, IMAGE) is None
    cache = OPENROUTER.capabilities.prompt_cache
    assert cache("azure/gpt-3.5-turbo") == cache("gpt-3.5-turbo") == PromptCache()
    least = OPENROUTER.capabilities.min_output_tokens
    params = CompletionParameters()
    assert [least(name, params) for name in ("openai/o3", "x/openai/o3", "google/g")] == [16, 1, 1]
    assert OPENROUTER.capabilities.why_no_schema("google/g", LOOSE) is None
    assert OPENROUTER.capabilities.why_no_schema("anthropic/claude-opus-4.5", STRICT) is None
    told = OPENROUTER.capabilities.why_no_schema("anthropic/claude-opus-4.5", LOOSE)
    assert told == "Claude takes only strict schemas"


# What OpenAI's models refuse.

SAMPLING = {"temperature": 0, "top_p": 0.5, "frequency_penalty": 1, "presence_penalty": 1,
            "stop": ["x"]}  # fmt: skip
DEFAULTS = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
NO_TOOLS = "calls no tools on the chat-completions wire; use the Responses wire for tools"
NO_TOOLS_NOW = (
    "calls tools on this wire only without reasoning: use the Responses wire, or set "
    "reasoning=ReasoningConfig(effort='none')"
)
NO_LIMIT = "takes no max_tokens below 16 on the Responses wire"
ANY = "leave it out"
STOP = "leave it out or set the reasoning effort to none"


def no_effort(word):
    return f"has no reasoning effort {word}; use another one or leave it out"


def no_sampling(advice, *fields):
    return [f"takes no {field} while it thinks; {advice}" for field in fields or SAMPLING]


# Of each family: the models, the efforts that it refuses, and how it thinks.
ALL_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FAMILIES = [
    (["o1", "o3", "o4-mini", "o3-pro"], ["none", "minimal", "xhigh", "max"], True, ANY),
    (["gpt-5", "gpt-5-mini", "gpt-5-pro"], ["none", "xhigh", "max"], True, ANY),
    (["gpt-5.1", "gpt-5.2", "gpt-5.4-mini", "gpt-5.3-codex"], [], False, STOP),
    (["gpt-5.5", "gpt-5.5-pro"], [], True, STOP),
    (["gpt-5.6", "gpt-5.6-sol"], ["minimal"], True, STOP),
    (["gpt-6", "gpt-6-astra"], ["none", "minimal"], True, ANY),
    (["gpt-5-chat-latest", "gpt-5.1-chat-latest", "gpt-4o", "gpt-5.7", "o1x", "o2", "my-o3"],
     [], None, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "refused", "thinks", "advice"),
    [(model, *facts) for models, *facts in FAMILIES for model in models],
)
def test_what_a_family_of_openais_models_refuses(model, refused, thinks, advice):
    for provider in (OPENAI, RESPONSES):
        for word in ALL_EFFORTS:
            expected = [no_effort(word)] if word in refused else []
            assert reasons(provider, model, effort(word)) == expected
            if word != "none":
                expected += no_sampling(advice) if thinks is not None else []
            if word != "none" or word not in refused:
                assert reasons(provider, model, effort(word, **SAMPLING)) == expected
        assert reasons(provider, model, SAMPLING) == (no_sampling(advice) if thinks else [])
        for field in SAMPLING if thinks else ():
            only = {field: SAMPLING[field]}
            assert reasons(provider, model, only) == no_sampling(advice, field)
        assert reasons(provider, model, DEFAULTS | {"max_tokens": 16}) == []
    assert reasons(OPENAI, model, {"max_tokens": 1}) == []
    assert reasons(RESPONSES, model, {"max_tokens": 15}) == [NO_LIMIT]


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("gpt-5.5", TOOLS, []),
        ("gpt-5.1", TOOLS | effort("high"), []),
        ("o3", TOOLS, []),
        ("gpt-4o", TOOLS, []),
        ("gpt-5.6", {}, []),
        ("gpt-5.6", TOOLS, [NO_TOOLS_NOW]),
        ("gpt-5.6", TOOLS | effort("low"), [NO_TOOLS_NOW]),
        ("gpt-5.6", TOOLS | effort("none"), []),
        ("gpt-5.6", {"tools": []}, []),
        ("gpt-6-astra", {}, []),
        ("gpt-6-astra", TOOLS, [NO_TOOLS, NO_TOOLS_NOW]),
        ("gpt-6-astra", TOOLS | effort("none"), [NO_TOOLS, no_effort("none")]),
        ("gpt-6-astra", TOOLS | effort("minimal", stop=["x"]),
         [NO_TOOLS, NO_TOOLS_NOW, no_effort("minimal"), *no_sampling(ANY, "stop")]),
    ],
)  # fmt: skip
def test_where_a_model_of_openai_calls_no_tools(model, fields, expected):
    assert reasons(OPENAI, model, fields) == expected
    on_responses = [reason for reason in expected if "tools" not in reason]
    assert reasons(RESPONSES, model, fields) == on_responses


def test_at_azure_the_hint_about_sealed_reasoning_stands_where_no_other_reason_is_known():
    hint = (
        "a deployment whose model does not reason refuses encrypted content: use "
        "with_provider(AzureResponsesProvider(seals_reasoning=False))"
    )
    explain = AzureResponsesProvider().capabilities.explain_refusal
    low = CompletionParameters(max_tokens=15)
    assert explain("tide", CompletionParameters()) == hint
    assert explain("tide", low) == f"tide {NO_LIMIT}"
    assert explain("gpt-4o", CompletionParameters()) is None
    assert explain("gpt-4o", low) == f"gpt-4o {NO_LIMIT}"
