"""The check of providers passes those that keep the contract and names what others break."""

from __future__ import annotations

import re

import pytest

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    AzureProvider,
    ChatDialect,
    CompletionParameters,
    CompletionsProvider,
    CostOutcome,
    FinishReason,
    GenericProvider,
    InvalidParameterError,
    MessageCapabilities,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    ResponsesProvider,
    ToolCall,
    Usage,
)
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import ProviderCase, check_provider


def events(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"^data: ?(.*)$", (GOLDEN / name).read_text(), re.MULTILINE))


def body(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


GAUGES = (
    ToolCall(id="call_N1", name="read_gauge", arguments='{"station":"north pier"}'),
    ToolCall(id="call_S2", name="read_gauge", arguments='{"station":"south pier"}'),
)
CHAT = [
    ProviderCase(
        name="text",
        body=body("openai_text.json"),
        text="Two high waters on Tuesday.",
        usage=Usage(uncached_input_tokens=27, completion_tokens=6),
    ),
    ProviderCase(
        name="stream",
        events=events("openai_stream_usage.sse"),
        text="Low water at 06:12.",
        usage=Usage(uncached_input_tokens=84, cache_read_tokens=1536, completion_tokens=9),
    ),
    ProviderCase(
        name="calls",
        events=events("openai_stream_tool_calls.sse"),
        text="",
        finish_reason=FinishReason.TOOL_CALLS,
        tool_calls=GAUGES,
        usage=Usage(uncached_input_tokens=140, completion_tokens=61),
    ),
]
MESSAGES = [
    ProviderCase(
        name="text",
        body=body("anthropic_text.json"),
        text="The tide table lists two highs on Tuesday.",
        usage=Usage(uncached_input_tokens=41, completion_tokens=12),
    ),
    ProviderCase(
        name="stream",
        events=events("anthropic_stream_text.sse"),
        text="Low water at 06:12.",
        usage=Usage(uncached_input_tokens=25, cache_read_tokens=4096, completion_tokens=9),
    ),
]
RESPONSES = [
    ProviderCase(
        name="text",
        body=body("responses_text.json"),
        text="Two high waters on Tuesday.",
        usage=Usage(uncached_input_tokens=27, completion_tokens=70, reasoning_tokens=64),
    ),
    ProviderCase(
        name="calls",
        events=events("responses_stream_tool_call.sse"),
        text="",
        finish_reason=FinishReason.TOOL_CALLS,
        tool_calls=(ToolCall(id="", name="read_gauge", arguments='{"station":"north pier"}'),),
        usage=Usage(uncached_input_tokens=96, completion_tokens=84, reasoning_tokens=64),
    ),
    ProviderCase(
        name="llama.cpp",
        events=events("responses_llamacpp_stream_no_index.sse"),
        text="Two high waters\u2028\N{WATER WAVE}.",
        usage=Usage(uncached_input_tokens=1, cache_read_tokens=32, completion_tokens=7),
    ),
]
COMPLETIONS = [
    ProviderCase(
        name="text",
        body=body("completions_openai_text_logprobs.json"),
        text="\nLow water at 06:12.",
        usage=Usage(uncached_input_tokens=6, completion_tokens=8),
    ),
    ProviderCase(
        name="stream",
        events=events("completions_vllm_stream_logprobs.sse"),
        text="Low water at 06:12.",
        finish_reason=FinishReason.LENGTH,
        usage=Usage(uncached_input_tokens=84, completion_tokens=5),
    ),
]


def written_out(messages):
    """A template that loses nothing: a test of what a template may do."""
    return "\n".join(f"{message.text or ''} {message.tool_calls}" for message in messages)


@pytest.mark.parametrize(
    ("provider", "cases"),
    [(OpenAiProvider(), CHAT), (OpenRouterProvider(), CHAT), (GenericProvider(), CHAT),
     (GenericProvider(legacy_token_limit=True), CHAT), (AnthropicProvider(), MESSAGES),
     (AzureProvider(), CHAT), (AzureProvider("2024-10-21"), CHAT),
     *((PRESETS[name].provider, CHAT) for name in ("mistral", "deepseek", "moonshot", "zai")),
     *((PRESETS[name].provider, MESSAGES) for name in ("kimi-anthropic", "zai-anthropic")),
     (ResponsesProvider(), RESPONSES), (CompletionsProvider(), COMPLETIONS),
     (CompletionsProvider(written_out), COMPLETIONS)],
    ids=repr,
)  # fmt: skip
def test_our_own_providers_keep_the_contract(provider, cases):
    check_provider(provider, cases)


class Mistral(Provider):
    """A server that differs only in facts: this is all that is to be written."""

    dialect = ChatDialect(
        name="Mistral",
        fields={"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p",
                "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
                "stop": "stop", "seed": "random_seed"},
        has_stream_options=False,
        messages=MessageCapabilities(tool_id_chars=9),
    )  # fmt: skip


def test_a_provider_that_differs_only_in_facts_is_a_dozen_lines():
    check_provider(Mistral(), CHAT)


class Elsewhere(GenericProvider):
    def endpoint_url(self, base):
        return "https://elsewhere.example/v1/chat/completions"


class NoCredential(GenericProvider):
    def auth_headers(self, auth):
        return []


class Talkative(GenericProvider):
    def __init__(self):
        super().__init__()
        self.seen = []

    def auth_headers(self, auth):
        self.seen.append(auth.secret() and auth.secret().expose_secret())
        return super().auth_headers(auth)

    def __repr__(self):
        return f"Talkative({self.seen})"


class Forgetful(GenericProvider):
    """Drops a parameter and every message but the last."""

    def build_request(self, model, messages, params, **how):
        return super().build_request(model, messages[-1:], params.replace(seed=None), **how)


class Dropping(GenericProvider):
    """Drops one field."""

    def __init__(self, field):
        super().__init__()
        self.fields = [field, *(("tool_choice", "parallel_tool_calls") if field == "tools" else ())]

    def build_request(self, model, messages, params, **how):
        nothing = {field: getattr(CompletionParameters(), field) for field in self.fields}
        return super().build_request(model, messages, params.replace(**nothing), **how)


class Lenient(GenericProvider):
    """Takes whatever content there is for text."""

    def build_request(self, model, messages, params, **how):
        sent = [{"role": m.role, "content": m.text or ""} for m in messages]
        return {**super().build_request(model, (), params, **how), "messages": sent}


class FreeLunch(GenericProvider):
    def cost_of(self, usage, price):
        return CostOutcome.resolved(0, usage)


class Guesser(GenericProvider):
    """Takes the end of the connection for the end of the answer."""

    def parse_chunk(self, data):
        chunk = super().parse_chunk(data)
        if chunk and chunk.delta:
            return type(chunk)(delta=chunk.delta, finish_reason=FinishReason.STOP)
        return chunk


class Miscounting(GenericProvider):
    def parse_usage(self, raw):
        usage = super().parse_usage(raw)
        return usage and Usage(uncached_input_tokens=usage.prompt_tokens + 1, completion_tokens=1)


@pytest.mark.parametrize(
    ("provider", "complaints"),
    [
        (Elsewhere(), ["another server"]),
        (NoCredential(), ["does not send the secret"]),
        (Talkative(), ["secret is in the provider's text form"]),
        (Forgetful(), ["seed is neither sent nor refused", "loses 'first words'"]),
        (Lenient(), ["unknown kind", "'look_up' is lost"]),
        (FreeLunch(), ["not UNPRICED"]),
        (Guesser(), ["it is a success"]),
        (Miscounting(), ["usage is"]),
        (AnthropicProvider(), ["MalformedResponseError"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_provider_is_told_what_it_breaks(provider, complaints):
    with pytest.raises(AssertionError) as caught:
        check_provider(provider, CHAT)
    for complaint in complaints:
        assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "field",
    [name for name in CompletionParameters.__struct_fields__ if name != "openrouter_routing"],
)
def test_no_field_may_be_dropped(field):
    with pytest.raises(AssertionError, match=f"{field} is neither sent nor refused"):
        check_provider(Dropping(field), CHAT)


@pytest.mark.parametrize("cases", [[], [ProviderCase(name="empty", text="")]])
def test_the_check_needs_something_to_check(cases):
    with pytest.raises(InvalidParameterError):
        check_provider(GenericProvider(), cases)
