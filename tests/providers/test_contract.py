"""The contract: what a provider may override, and that one of a caller's is like one of ours."""

from __future__ import annotations

import inspect
import json
import re
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minillmlib
from minillmlib import (
    AnthropicProvider,
    BadRequestError,
    Billing,
    Capabilities,
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    CompletionsProvider,
    CostResolution,
    FinishReason,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    RateLimits,
    StreamChunk,
    TokenPrice,
    Usage,
    parse_finish_reason,
)
from minillmlib.providers.presets import PRESETS
from minillmlib.testing import ScriptedReply, ScriptedTransport

GUIDE_METHODS = {
    "endpoint_url", "auth_headers", "build_request", "parse_response", "parse_chunk",
    "parse_usage", "emits_stream_usage", "cost_of", "resolve_post_stream",
}  # fmt: skip
MORE_METHODS = {"request_url", "chunk_reader", "finalize", "limits_of"}
ANSWER = {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}
KEY = "sk-contract-0123456789"


def generator_of(provider, *replies, base_url="https://t.example/v1"):
    transport = ScriptedTransport(replies or [ScriptedReply.json(ANSWER)])
    made = GeneratorInfo.custom("t", base_url, "m").replace(provider=provider, transport=transport)
    return made.with_api_key(KEY), transport


def ask(generator, params=None):
    return minillmlib.run(ChatNode.root("s").chat("u", generator, params))


def stream(generator):
    chunks = ChatNode.root("s").chat_streaming("u", generator)
    return [chunk.delta for chunk in minillmlib.iterate(chunks)], chunks


def test_the_contract_is_the_guides_nine_methods_and_four_more():
    methods = {
        name for name, value in vars(Provider).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }  # fmt: skip
    assert methods == GUIDE_METHODS | MORE_METHODS
    for provider in (
        OpenAiProvider(),
        OpenRouterProvider(),
        AnthropicProvider(),
        GenericProvider(),
        CompletionsProvider(),
    ):
        assert {name for name in dir(provider) if not name.startswith("_")} <= methods | {
            "dialect", "capabilities", "billing", "batches", "legacy_token_limit", "marks_prefill", "template",
        }  # fmt: skip


class Facts(Provider):
    """Differs in facts only."""


class Body(Provider):
    """Builds its body itself."""

    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"text": [message.text for message in messages]}


class BodyWithKey(Body):
    capabilities = Capabilities(messages_key="text")


class BodyMixin:
    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"text": [message.text for message in messages]}


class Mixed(BodyMixin, GenericProvider):
    pass


class Again(BodyWithKey):
    def build_request(self, model, messages, params, *, stream, include_usage):
        return {"other": len(messages)}


@pytest.mark.parametrize(
    ("provider", "key"),
    [(Provider(), "messages"), (Facts(), "messages"), (GenericProvider(), "messages"),
     (OpenAiProvider(), "messages"), (OpenRouterProvider(), "messages"),
     (AnthropicProvider(), "messages"), (Body(), None), (BodyWithKey(), "text"), (Mixed(), None),
     (Again(), None)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_who_builds_the_body_says_where_the_messages_are(provider, key):
    assert provider.capabilities.messages_key == key


def test_a_class_that_only_builds_its_body_keeps_the_other_abilities():
    class Claude(AnthropicProvider):
        def build_request(self, model, messages, params, *, stream, include_usage):
            return {}

    before, after = AnthropicProvider.capabilities, Claude.capabilities
    assert after == before.replace(messages_key=None)
    with pytest.raises(InvalidParameterError, match="no field 'mesages_key'"):
        before.replace(mesages_key=None)


def bodies_of(provider, turns):
    """The bodies of the last two calls of a long conversation."""
    generator, transport = generator_of(provider, *[ScriptedReply.json(ANSWER)] * 2)
    roles = (Message.assistant, Message.user)
    history = [Message.system("s"), *(roles[n % 2](f"turn {n}") for n in range(1, turns))]
    _, leaf = ChatNode.from_messages(history)
    minillmlib.run(minillmlib.run(leaf.complete(generator)).chat("more", generator))
    return [msgspec.json.decode(request.body) for request in transport.requests]


def test_a_long_conversation_is_the_same_for_a_provider_of_the_callers_and_one_of_ours():
    assert bodies_of(Facts(), 60) == bodies_of(GenericProvider(), 60)
    assert len(bodies_of(Body(), 60)[1]["text"]) == 62


class InTheAddress(GenericProvider):
    def request_url(self, base, model, *, stream):
        return f"{base}/models/{model}:{'stream' if stream else 'generate'}"


def test_the_address_may_hold_the_model_and_the_stream():
    generator, transport = generator_of(InTheAddress(), *[ScriptedReply.json(ANSWER)] * 2)
    ask(generator)
    stream(generator)
    assert [request.url for request in transport.requests] == [
        "https://t.example/v1/models/m:generate", "https://t.example/v1/models/m:stream",
    ]  # fmt: skip


class Signing(GenericProvider):
    def finalize(self, request, auth):
        digest = f"{len(request.body)}-{auth.secret() is not None}"
        return msgspec.structs.replace(request, headers=(*request.headers, ("X-Signature", digest)))


def test_each_attempt_is_signed_when_it_is_complete():
    replies = [
        ScriptedReply.json({"error": {"message": "x"}}, status=500),
        ScriptedReply.json(ANSWER),
    ]
    generator, transport = generator_of(Signing(), *replies)
    ask(generator, NodeCompletionParameters(retry=1, back_off_time=0.001))
    for request in transport.requests:
        assert dict(request.headers)["X-Signature"] == f"{len(request.body)}-True"
    assert len(transport.requests) == 2


class SendsElsewhere(GenericProvider):
    def finalize(self, request, auth):
        return msgspec.structs.replace(request, url="https://elsewhere.example/v1")


class FailsToSign(GenericProvider):
    def finalize(self, request, auth):
        raise ValueError(auth.secret().expose_secret())


@pytest.mark.parametrize(
    ("provider", "words"), [(SendsElsewhere(), "leads to"), (FailsToSign(), "finalize")]
)
def test_a_signature_takes_no_key_to_another_server_and_shows_none(provider, words):
    generator, transport = generator_of(provider)
    with pytest.raises(InvalidParameterError, match=words) as caught:
        ask(generator)
    assert KEY not in repr(caught.value)
    assert transport.requests == []


class Numbered(GenericProvider):
    """Sends a table of words first, and then their numbers."""

    capabilities = GenericProvider.capabilities.replace(
        stream_accept="application/x-numbers", app_url_header="X-From", app_title_header="X-Name"
    )

    def chunk_reader(self):
        words = []

        def read(data):
            value = json.loads(data)
            if isinstance(value, list):
                words.extend(value)
                return None
            if value is None:
                return StreamChunk(finish_reason=FinishReason.STOP, is_end=True)
            return StreamChunk(delta=words[value])

        return read


def test_each_stream_has_a_reader_with_a_memory_of_its_own():
    events = [f"data: {data}\n\n".encode() for data in ('["a","b"]', 1, 0, "null")]
    other = [f"data: {data}\n\n".encode() for data in ('["c"]', 0, "null")]
    generator, transport = generator_of(
        Numbered(), ScriptedReply.events(*events), ScriptedReply.events(*other)
    )
    generator = generator.replace(app_url="https://a.example", app_title="A")
    assert "".join(stream(generator)[0]) == "ba"
    assert "".join(stream(generator)[0]) == "c"
    headers = dict(transport.requests[0].headers)
    assert headers["Accept"] == "application/x-numbers"
    assert (headers["X-From"], headers["X-Name"]) == ("https://a.example", "A")


REFUSAL = {"error": {"message": "no", "type": "invalid_request_error"}}


def explaining(explain):
    class Explaining(GenericProvider):
        capabilities = GenericProvider.capabilities.replace(explain_refusal=explain)

    return Explaining()


def broken(model, params):
    raise KeyError(model)


@pytest.mark.parametrize(
    ("reply", "explain", "message"),
    [
        (ScriptedReply.json(REFUSAL, status=400), lambda m, p: f"{m} has {p.seed}", "no (m has 5)"),
        (ScriptedReply.json(REFUSAL, status=400), broken, "no"),
        (ScriptedReply.json(REFUSAL, status=400), lambda *_: None, "no"),
        (ScriptedReply.json(REFUSAL, status=500), lambda *_: "why", "no"),
        (ScriptedReply.json(REFUSAL), lambda *_: "why", "no"),
    ],
)
def test_an_explanation_is_added_to_the_servers_refusal_and_to_nothing_else(
    reply, explain, message
):
    generator, _ = generator_of(explaining(explain), reply)
    with pytest.raises(minillmlib.ApiError) as caught:
        ask(generator, NodeCompletionParameters(params=CompletionParameters(seed=5), retry=0))
    assert str(caught.value).partition(": ")[2] == message


def test_a_refused_stream_is_explained_too():
    generator, _ = generator_of(
        explaining(lambda *_: "why"), ScriptedReply.json(REFUSAL, status=422)
    )
    with pytest.raises(BadRequestError, match=r"no \(why\)"):
        stream(generator)


def test_the_words_of_all_wires_are_one_vocabulary_and_news_is_unknown():
    assert parse_finish_reason("end_turn") is parse_finish_reason("stop") is FinishReason.STOP
    assert parse_finish_reason("model_context_window_exceeded") is FinishReason.LENGTH
    assert parse_finish_reason("bored") is FinishReason.UNKNOWN
    assert parse_finish_reason(None) is None


def test_values_are_neutral_by_default():
    plain = Billing()
    assert plain.is_billed(minillmlib.CompletionResponse()) is True
    assert plain.parse_deferred_usage({"data": {}}) is None
    assert plain.is_usage_pending({}) is True
    assert plain.unpriced_keys({"service_tier": "priority", "x": 1}) == ["service_tier"]
    assert Capabilities().omitted("m", [Message.user("u")], CompletionParameters()) == {}


OPENAI = {
    "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms", "x-ratelimit-limit-tokens": "160000",
    "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s",
}  # fmt: skip
CLAUDE = {
    "date": "Tue, 14 Nov 2023 22:13:20 GMT",
    "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:29Z",
    "anthropic-ratelimit-tokens-remaining": "30000",
    "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:19Z",
}  # fmt: skip
CLAUDE_PARTS = {
    "date": "Tue, 14 Nov 2023 22:13:20 GMT",
    "anthropic-ratelimit-input-tokens-limit": "20000",
    "anthropic-ratelimit-input-tokens-remaining": "19000",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-reset": "2023-11-14T22:13:21Z",
}
MISTRAL = {
    "x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "59",
    "x-ratelimit-limit-tokens-minute": "500000",
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "headers", "expected"),
    [
        (OpenAiProvider(), OPENAI, RateLimits(
            remaining_requests=4999, limit_requests=5000, seconds_to_reset_requests=0.012,
            remaining_tokens=0, limit_tokens=160_000, seconds_to_reset_tokens=3723.5)),
        (AnthropicProvider(), CLAUDE, RateLimits(
            remaining_requests=49, limit_requests=50, seconds_to_reset_requests=9,
            remaining_tokens=30_000, seconds_to_reset_tokens=0)),
        (AnthropicProvider(), CLAUDE_PARTS, RateLimits(
            limit_input_tokens=20_000, remaining_input_tokens=19_000,
            limit_output_tokens=8000, seconds_to_reset_output_tokens=1)),
        (Provider(), MISTRAL, RateLimits(
            limit_requests=60, remaining_requests=59, limit_tokens=500_000)),
        (AnthropicProvider(), OPENAI, RateLimits()),
        (GenericProvider(), CLAUDE, RateLimits()),
        (GenericProvider(), {}, RateLimits()),
    ],
)  # fmt: skip
def test_the_remaining_quota_is_read_from_the_headers(provider, headers, expected):
    assert provider.limits_of(headers) == expected


@pytest.mark.parametrize(
    ("text", "secs"),
    [("0s", 0), ("0", 0), ("10", 10), ("1.5", 1.5), ("6m0s", 360), ("250ms", 0.25), ("2m", 120),
     ("1h", 3600), ("1m250ms", 60.25), ("", None), ("s", None), ("-1", None), ("1d", None),
     ("1s1m", None), ("inf", None), ("nan", None), ("1e9", None), ("\u0661s", None), ("9" * 39, None),
     ("9" * 5000 + "s", None), ("2023-11-14", None), ("2023-11-14T22:13:29", None),
     ("0001-01-01T00:00:00+23:59", 0), ("9999-99-99T00:00:00Z", None)],
)  # fmt: skip
def test_a_reset_is_a_duration_or_a_moment(text, secs):
    headers = {"x-ratelimit-reset-tokens": text}
    assert Provider().limits_of(headers).seconds_to_reset_tokens == secs


def test_without_the_servers_clock_ours_counts():
    moment = datetime.fromtimestamp(time.time() + 60, UTC)
    for date in ({}, {"date": "yesterday"}, {"date": format_datetime(moment)[:-5]}):
        headers = {**date, "x-ratelimit-reset-requests": moment.isoformat()}
        secs = Provider().limits_of(headers).seconds_to_reset_requests
        assert secs == pytest.approx(0 if len(date.get("date", "")) > 20 else 60, abs=1)


@given(st.text(max_size=60) | st.from_regex(r"\A[0-9T:.+hmsZ-]{0,60}\Z"), st.text(max_size=40))
@pytest.mark.parametrize("provider", [Provider(), AnthropicProvider()])
def test_headers_of_any_text_are_no_error(provider, text, date):
    names = [name for name in (*OPENAI, *CLAUDE) if name != "date"]
    limits = provider.limits_of({**dict.fromkeys(names, text), "date": date})
    for name in RateLimits.__struct_fields__:
        value = getattr(limits, name)
        assert value is None or 0 <= value <= 2**53


PLACES = {"AWS_REGION": "eu-west-1", "CLOUDFLARE_ACCOUNT_ID": "0a1b", "DATABRICKS_HOST": "w.example",
          "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com"}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_row_that_every_door_reads(name, monkeypatch):
    address = PRESETS[name].base_url
    for variable, value in PLACES.items():
        monkeypatch.setenv(variable, value)
        address = re.sub(rf"\{{{variable}[^}}]*\}}", value, address)
    spec = GeneratorInfo.from_spec(f"{name}:m.gguf")
    assert spec == GeneratorInfo.preset(name, "m.gguf")
    if hasattr(GeneratorInfo, name):  # some have a method of their own
        assert spec == getattr(GeneratorInfo, name)("m.gguf")
    assert (spec.name, spec.base_url) == (name, address)
    assert spec.provider is PRESETS[name].provider


def test_a_new_row_is_all_that_a_compatible_service_needs(monkeypatch):
    row = msgspec.structs.replace(PRESETS["openai"], base_url="https://new.example/v1")
    monkeypatch.setitem(PRESETS, "newcomer", row)
    assert GeneratorInfo.from_spec("newcomer:m").base_url == "https://new.example/v1"
    for wrong in (lambda: GeneratorInfo.from_spec("x:m"), lambda: GeneratorInfo.preset("x", "m")):
        with pytest.raises(
            InvalidParameterError, match="(?s)openrouter, openai, .*local, newcomer"
        ):
            wrong()


@pytest.mark.parametrize("reply", ["whole", "streamed"])
def test_counts_without_any_input_are_no_bill_whole_as_streamed(reply):
    class OutputOnly(GenericProvider):
        def parse_response(self, raw):
            return CompletionResponse(content="ok", usage=self.parse_usage(raw))

        def parse_usage(self, raw):
            return Usage(completion_tokens=5) if raw.get("usage") else None

    counts = {"prompt_tokens": 9, "completion_tokens": 5}
    end = {"index": 0, "finish_reason": "stop"}
    whole = {"choices": [{**end, "message": {"content": "ok"}}], "usage": counts}
    event = {"choices": [{**end, "delta": {"content": "ok"}}], "usage": counts}
    data = b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(event).encode()
    replies = {"whole": ScriptedReply.json(whole), "streamed": ScriptedReply.events(data)}
    generator, _ = generator_of(OutputOnly(), replies[reply])
    generator = generator.with_token_price(TokenPrice(1, 5))
    if reply == "whole":
        cost = minillmlib.run(ChatNode.root("s").chat("u", generator)).response.cost
    else:
        cost = minillmlib.run(
            ChatNode.root("s").chat_streaming("u", generator).collect()
        ).response.cost
    assert cost.resolution is CostResolution.UNKNOWN
    assert cost.cost == 0
