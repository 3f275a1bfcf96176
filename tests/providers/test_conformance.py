"""The check of providers passes those that keep the contract and names what others break."""

from __future__ import annotations

import json
import re

import pytest
from msgspec.structs import replace

from golden import GOLDEN
from minillmlib import (
    AnthropicProvider,
    AzureProvider,
    BadRequestError,
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
    ProviderSettings,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    ToolCall,
    ToolChoice,
    ToolDefinition,
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


class Slashed(GenericProvider):
    def endpoint_url(self, base):
        return base + "/chat/completions"


class Insistent(GenericProvider):
    """Sends a credential where there is none."""

    def auth_headers(self, auth):
        return super().auth_headers(auth) or [("Authorization", "Bearer none")]


class Leaking(Talkative):
    """Writes the secret into one of the places where it is not to be."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def leaked(self, place):
        return next(filter(None, self.seen)) if place == self.place and self.seen else ""

    def __repr__(self):
        return f"Leaking({self.place!r})"

    def endpoint_url(self, base):
        return super().endpoint_url(base) + self.leaked("address")

    def build_request(self, model, messages, params, **how):
        body = super().build_request(model, messages, params, **how)
        return body | {"user": self.leaked("body")}

    def parse_response(self, raw):
        return replace(super().parse_response(raw), id=self.leaked("response"))


class Strict(GenericProvider):
    def limits_of(self, headers):
        return [int(value) for value in headers.values()]


class Numbering(OpenAiProvider):
    """Encodes a message otherwise once another one follows."""

    capabilities = OpenAiProvider.capabilities

    def build_request(self, model, messages, params, **how):
        body = super().build_request(model, messages, params, **how)
        body["messages"][0]["name"] = str(len(messages))
        return body


class Merging(OpenAiProvider):
    """Sends all messages as one."""

    capabilities = OpenAiProvider.capabilities

    def build_request(self, model, messages, params, **how):
        body = super().build_request(model, messages, params, **how)
        return body | {"messages": [{"role": "user", "content": str(body["messages"])}]}


class Overpriced(GenericProvider):
    def cost_of(self, usage, price):
        return super().cost_of(usage, price) if price is None else CostOutcome.resolved(1, usage)


class Raising(GenericProvider):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def build_request(self, *asked, **how):
        raise self.error


class Misreading(GenericProvider):
    def parse_response(self, raw):
        answer = super().parse_response(raw)
        return replace(answer, content="other", finish_reason=FinishReason.LENGTH)

    def parse_chunk(self, data):
        chunk = super().parse_chunk(data)
        renamed = [replace(call, id=call.id and f"x{call.id}") for call in chunk.tool_calls]
        return replace(chunk, tool_calls=tuple(renamed))


class Uncounted(GenericProvider):
    """Takes answers without counts for free."""

    def parse_usage(self, raw):
        return None


def problems_of(provider, cases):
    with pytest.raises(AssertionError) as caught:
        check_provider(provider, cases)
    first, *problems = str(caught.value).split("\n- ")
    assert first == f"{provider!r} breaks its contract:"
    return problems


ALL = ("text, whole", "stream, streamed", "calls, streamed")
COUNTED = [case.usage for case in CHAT]
RENAMED, NAMED = (
    [(f"{start}{call.id}", call.name, call.arguments) for call in GAUGES] for start in ("x", "")
)
RENAMED = f"tool_calls is {RENAMED}, not {NAMED}"


def in_all_cases(problem):
    return [f"case {case}: {problem}" for case in ALL]


LOST_CALLS = [
    f"tool calls are not refused, but {words!r} is lost"
    for words in ("look_up", "heron", "a wading bird")
]
LOST_TEXTS = [
    f"a conversation of plain text loses {words!r}"
    for words in ("first words", "second words", "third words")
]


@pytest.mark.parametrize(
    ("provider", "problems"),
    [
        (Elsewhere(), [
            *["request_url leads to another server: https://elsewhere.example/v1/chat/completions"]
            * 2,
            "a plain call fails with InvalidParameterError: the provider leads to "
            "https://elsewhere.example, but the credential is for https://provider.example; set "
            "base_url to the server that is meant"]),
        (Slashed(), [
            f"request_url(stream={stream}) depends on a slash at the end of the base URL: use "
            "base.rstrip('/')" for stream in (False, True)]),
        (NoCredential(), [
            "auth_headers does not send the secret of Auth(api_key)",
            "auth_headers does not send the secret of Auth(bearer_token)"]),
        (Insistent(), ["auth_headers sends a credential where there is none"]),
        (Leaking("body"), ["the secret is in the body"]),
        (Leaking("address"), ["the secret is in the address", "the secret is in the response"]),
        (Leaking("response"), ["the secret is in the response"]),
        (Forgetful(), ["seed is neither sent nor refused nor reported as omitted", *LOST_CALLS,
                       *LOST_TEXTS[:2]]),
        (Lenient(), ["content of an unknown kind is not refused", *LOST_CALLS[:2]]),
        (Numbering(), ["a message is encoded otherwise once another one follows it"] * 2),
        (Merging(), ["the body has no item for each message under the messages_key 'messages'"]),
        (Strict(), [f"limits_of raises ValueError over a header {value!r}"
                    for value in ("", "999999999", "1e999", "soon", "\x00")]),
        (FreeLunch(), in_all_cases("without a price the cost is not UNPRICED")),
        (Overpriced(), in_all_cases("with a price the cost is 1, not tokens times price")),
        (Guesser(), ["case stream: truncated after 2 events it is a success: text is 'Low water', "
                     "not 'Low water at 06:12.'"]),
        (Miscounting(), [
            f"case {case}: usage is {Usage(uncached_input_tokens=count, completion_tokens=1)!r}, not "
            f"{usage!r}"
            for case, count, usage in zip(ALL, (28, 1621, 141), COUNTED, strict=True)]),
        (Uncounted(), [f"case {case}: usage is None, not {usage!r}"
                       for case, usage in zip(ALL, COUNTED, strict=True)]),
        (Misreading(), [
            "case text, whole: text is 'other', not 'Two high waters on Tuesday.'",
            "case text, whole: finish_reason is <FinishReason.LENGTH: 'length'>, not "
            "<FinishReason.STOP: 'stop'>",
            f"case calls, streamed: {RENAMED}",
            f"case calls: truncated after 5 events it is a success: {RENAMED}",
            f"case calls: truncated after 6 events it is a success: {RENAMED}"]),
        (Raising(BadRequestError("no")), [
            *["a plain call fails with BadRequestError: no"] * 3,
            *in_all_cases("BadRequestError: no")]),
        (Raising(InvalidParameterError("no")), [
            "a plain call fails with InvalidParameterError: no", *LOST_TEXTS,
            *in_all_cases("InvalidParameterError: no")]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_broken_provider_is_told_all_that_it_breaks(provider, problems):
    assert problems_of(provider, CHAT) == problems


def test_a_secret_in_the_text_form_of_a_provider_is_a_problem():
    with pytest.raises(AssertionError, match="- the secret is in the provider's text form$"):
        check_provider(Talkative(), CHAT)


def test_a_provider_of_another_wire_reads_no_case():
    problems = problems_of(AnthropicProvider(), CHAT)
    begins = ["a plain call fails with MalformedResponseError: "] * 3
    begins += in_all_cases("MalformedResponseError: ")
    assert [
        problem[: len(begin)] for problem, begin in zip(problems, begins, strict=True)
    ] == begins


class Listening(GenericProvider):
    """Notes what it is asked for."""

    capabilities = OpenAiProvider.capabilities

    def __init__(self):
        super().__init__()
        self.models, self.asked, self.headers, self.texts = set(), {}, [], []
        self.streams = set()

    def build_request(self, model, messages, params, **how):
        self.models.add(model)
        self.texts.append([message.text for message in messages])
        self.streams.add((messages[0].text, how["stream"]))
        nothing = CompletionParameters()
        for name in CompletionParameters.__struct_fields__:
            if (value := getattr(params, name)) != getattr(nothing, name):
                self.asked[name] = value
        return super().build_request(model, messages, params, **how)

    def limits_of(self, headers):
        if len(headers) > 1:
            self.headers.append(dict(headers))
        return super().limits_of(headers)


def test_each_parameter_and_each_header_of_a_rate_limit_is_tried():
    provider = Listening()
    check_provider(provider, CHAT, model="the-model")
    assert provider.models == {"the-model"}
    assert provider.asked == {
        "max_tokens": 77, "temperature": 0.25, "top_p": 0.75, "top_k": 5, "frequency_penalty": 0.5,
        "presence_penalty": 0.5, "repetition_penalty": 1.5, "stop": ("STOP",), "seed": 5,
        "logprobs": 2, "response_format": ResponseFormat.json(),
        "reasoning": ReasoningConfig(effort="low"), "tools": (ToolDefinition(name="look_up"),),
        "tool_choice": ToolChoice.none(), "parallel_tool_calls": False,
        "openrouter_routing": ProviderSettings(sort="price"), "extra": {"conformance_key": 1},
    }  # fmt: skip
    names = {
        *(f"x-ratelimit-{fact}-{of}" for fact in ("limit", "remaining", "reset")
          for of in ("requests", "tokens")),
        *(f"anthropic-ratelimit-{of}-{fact}" for fact in ("limit", "remaining", "reset")
          for of in ("requests", "tokens")),
    }  # fmt: skip
    values = ("", "-1", "9" * 5000, "1e999", "soon", "\x00")
    assert provider.headers == [dict.fromkeys(names, value) for value in values]
    assert provider.streams == {("s", False), ("s", True), ("one", False)}
    assert ["s", None, "a wading bird", "u"] in provider.texts
    assert ["s", "first words", "second words", "third words"] in provider.texts


def test_tool_calls_without_ids_are_compared_without_them():
    nameless = [replace(call, id="") for call in GAUGES]
    check_provider(GenericProvider(), [replace(CHAT[2], tool_calls=tuple(nameless))])
    other = replace(CHAT[2], tool_calls=(nameless[0], replace(GAUGES[1], name="x")))
    (problem, *_) = problems_of(GenericProvider(), [other])
    read, wanted = (
        [("", call.name, call.arguments) for call in calls] for calls in (GAUGES, other.tool_calls)
    )
    assert problem == f"case calls, streamed: tool_calls is {read}, not {wanted}"


def test_a_case_has_two_forms_of_one_answer_and_events_of_several_lines():
    text = "Low water at 06:12."
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    event = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    case = ProviderCase(
        name="two forms",
        text="other",
        body=json.dumps(body).encode(),
        events=(json.dumps(event, indent=1), "[DONE]"),
    )
    problem = f"text is {text!r}, not 'other'"
    assert problems_of(GenericProvider(), [case]) == [
        f"case two forms, whole: {problem}",
        f"case two forms, streamed: {problem}",
        f"case two forms: truncated after 1 events it is a success: {problem}",
    ]
    check_provider(GenericProvider(), [replace(case, text=text)])


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
