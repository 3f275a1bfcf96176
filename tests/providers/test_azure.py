"""Azure OpenAI: its addresses and headers are those of the vendor's client; filters are told."""

from __future__ import annotations

import json
import pickle

import httpx2
import msgspec
import openai
import pytest
from golden_expected import expected_of
from short_answers import ANSWER

import minillmlib
from golden import GOLDEN, reply_of
from minillmlib import (
    AuthenticationError,
    AzureProvider,
    AzureResponsesProvider,
    BadRequestError,
    ChatNode,
    CompletionParameters,
    ContentFilterError,
    FinishReason,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    OpenAiProvider,
    RateLimitError,
    ReasoningConfig,
    ResponsesProvider,
    ToolDefinition,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

ENDPOINT = "https://tides.openai.azure.com"
KEY, TOKEN = "azure-key-0123456789", "eyJ-azure-token"
ROOT = ChatNode.root("s")


def sent_by_us(generator: GeneratorInfo, params=None):
    is_chat = isinstance(generator.provider, OpenAiProvider)
    reply = ScriptedReply.json(ANSWER) if is_chat else reply_of("responses_azure_text.json")
    transport = ScriptedTransport([reply])
    minillmlib.run(ROOT.chat("u", generator.with_transport(transport), params))
    (request,) = transport.requests
    headers = {name.lower(): value for name, value in request.expose_headers()}
    return request.url, headers, msgspec.json.decode(request.body)


def sent_by_the_vendor(wire):
    """The address and the credential of the vendor's own client, for the deployment `tide`."""
    seen = []
    transport = httpx2.MockTransport(
        lambda request: seen.append(request) or httpx2.Response(200, json=ANSWER)
    )
    client = openai.AzureOpenAI(http_client=httpx2.Client(transport=transport), max_retries=0)
    if wire == "chat":
        client.chat.completions.create(model="tide", messages=[{"role": "user", "content": "u"}])
    else:
        client.responses.create(model="tide", input="u")
    return str(seen[0].url), seen[0].headers


@pytest.fixture(autouse=True)
def _no_azure_from_outside(monkeypatch):
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN",
                 "OPENAI_API_VERSION", "OPENAI_API_KEY"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


ENVIRONMENTS = [
    {"AZURE_OPENAI_API_KEY": KEY},
    {"AZURE_OPENAI_AD_TOKEN": TOKEN},
    {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_AD_TOKEN": TOKEN},
]


@pytest.mark.parametrize(
    "endpoint", [ENDPOINT, f"{ENDPOINT}/", "https://tides.services.ai.azure.com"]
)
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids="+".join)
@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_a_dated_request_goes_where_the_vendors_client_sends_it(
    wire, endpoint, environment, monkeypatch
):
    environment = environment | {
        "AZURE_OPENAI_ENDPOINT": endpoint, "OPENAI_API_VERSION": "2024-10-21"}  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    url, theirs = sent_by_the_vendor(wire)
    ours, headers, body = sent_by_us(GeneratorInfo.azure("tide", wire=wire))
    assert ours == url.replace("azure.com//", "azure.com/")
    for name in ("api-key", "authorization"):
        assert headers.get(name) == theirs.get(name), name
    assert body["model"] == "tide"
    assert GeneratorInfo.from_spec("azure:tide") == GeneratorInfo.azure("tide")


@pytest.mark.parametrize(
    ("endpoint", "version", "url"),
    [
        (ENDPOINT, None, f"{ENDPOINT}/openai/v1/chat/completions"),
        (f"{ENDPOINT}/openai/v1/", None, f"{ENDPOINT}/openai/v1/chat/completions"),
        (f"{ENDPOINT}/openai", None, f"{ENDPOINT}/openai/v1/chat/completions"),
        (ENDPOINT, "preview", f"{ENDPOINT}/openai/v1/chat/completions?api-version=preview"),
        (f"{ENDPOINT}/openai/v1", "v1", f"{ENDPOINT}/openai/v1/chat/completions?api-version=v1"),
        (ENDPOINT, "2024-10-21",
         f"{ENDPOINT}/openai/deployments/my%20tide%2F1/chat/completions?api-version=2024-10-21"),
        (f"{ENDPOINT}/openai/", "2025-04-01-preview", f"{ENDPOINT}/openai/deployments/"
         "my%20tide%2F1/chat/completions?api-version=2025-04-01-preview"),
        ("https://gateway.example/ai", "2024-10-21", "https://gateway.example/ai/openai/deployments/"
         "my%20tide%2F1/chat/completions?api-version=2024-10-21"),
    ],
)  # fmt: skip
def test_the_version_chooses_the_address(endpoint, version, url):
    generator = GeneratorInfo.azure("my tide/1", endpoint, version).with_api_key(KEY)
    sent_to, headers, body = sent_by_us(generator)
    assert sent_to == url
    assert headers["api-key"] == KEY
    assert "authorization" not in headers
    assert body["model"] == "my tide/1"
    assert KEY not in repr(generator)
    plain = generator.replace(credential=GeneratorInfo.azure("m", ENDPOINT).credential)
    assert pickle.loads(pickle.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("version", "url"),
    [(None, "/openai/v1/responses"), ("preview", "/openai/v1/responses?api-version=preview"),
     ("2025-04-01-preview", "/openai/responses?api-version=2025-04-01-preview")],
)  # fmt: skip
def test_on_the_responses_wire_the_deployment_is_in_the_body_alone(version, url):
    generator = GeneratorInfo.azure("tide", ENDPOINT, version, wire="responses").with_api_key(KEY)
    sent_to, headers, body = sent_by_us(generator)
    assert sent_to == ENDPOINT + url
    assert (headers["api-key"], body["model"], body["store"]) == (KEY, "tide", False)
    assert "authorization" not in headers
    assert sent_by_us(generator.with_provider(ResponsesProvider()))[2] == body
    assert AzureResponsesProvider(version) == generator.provider


def test_sealed_reasoning_is_not_asked_for_where_it_is_said_that_the_model_has_none():
    azure = GeneratorInfo.azure("tide", ENDPOINT, wire="responses").with_api_key(KEY)
    assert sent_by_us(azure)[2]["include"] == ["reasoning.encrypted_content"]
    plain = azure.with_provider(AzureResponsesProvider(seals_reasoning=False))
    assert "include" not in sent_by_us(plain)[2]
    error = {"error": {"message": "Encrypted content is not supported with this model."}}
    transport = ScriptedTransport([ScriptedReply.json(error, status=400)])
    with pytest.raises(BadRequestError, match="seals_reasoning=False"):
        minillmlib.run(ROOT.chat("u", azure.with_transport(transport)))


def test_a_wire_that_azure_has_not_is_refused():
    with pytest.raises(InvalidParameterError, match="the wire must be 'chat' or 'responses'"):
        GeneratorInfo.azure("tide", ENDPOINT, wire="anthropic")


def test_a_version_in_the_environment_does_not_change_an_endpoint_of_version_1(monkeypatch):
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    generator = GeneratorInfo.azure("m", f"{ENDPOINT}/openai/v1")
    assert sent_by_us(generator.with_api_key(KEY))[0] == f"{ENDPOINT}/openai/v1/chat/completions"
    with pytest.raises(InvalidParameterError, match="has no api_version 2024-10-21"):
        GeneratorInfo.azure("m", f"{ENDPOINT}/openai/v1", "2024-10-21")


@pytest.mark.parametrize(
    "endpoint",
    ["", "tides", "ftp://tides", f"{ENDPOINT}?api-version=2024-10-21", "https://u:pass-canary@h",
     f"{ENDPOINT}/openai/deployments/tide/chat/completions?api-version=2024-10-21",
     f"{ENDPOINT}/openai/deployments/tide"],
)  # fmt: skip
def test_a_wrong_endpoint_is_an_error_with_an_example(endpoint, monkeypatch):
    with pytest.raises(InvalidParameterError, match=r"https://NAME\.openai\.azure\.com") as caught:
        GeneratorInfo.azure("m", endpoint)
    assert "pass-canary" not in str(caught.value)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint)
    for make in (GeneratorInfo.azure, lambda name: GeneratorInfo.from_spec(f"azure:{name}")):
        with pytest.raises(InvalidParameterError, match="variable AZURE_OPENAI_ENDPOINT") as caught:
            make("m")
        assert "pass-canary" not in str(caught.value)


@pytest.mark.parametrize("version", ["2024 10 21", "a&b=c", "x/y", "#"])
def test_a_version_that_would_change_the_address_is_refused(version):
    with pytest.raises(InvalidParameterError, match="api_version"):
        GeneratorInfo.azure("m", ENDPOINT, version)


def test_without_a_credential_the_error_names_both_variables_and_nothing_is_sent():
    generator = GeneratorInfo.azure("m", ENDPOINT).with_transport(ScriptedTransport([]))
    with pytest.raises(AuthenticationError) as caught:
        minillmlib.run(ROOT.chat("u", generator))
    for name in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "nothing was sent"):
        assert name in str(caught.value)
    assert generator.transport.requests == []


def test_a_token_provider_is_sent_as_a_bearer_token_in_place_of_the_key(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    generator = GeneratorInfo.azure("m", ENDPOINT).with_token_provider(lambda: TOKEN)
    _, headers, _ = sent_by_us(generator)
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert "api-key" not in headers


PARAMETERS = [
    CompletionParameters(max_tokens=9, temperature=0.5, stop=["x"], seed=3, logprobs=2),
    CompletionParameters(reasoning=ReasoningConfig(effort="low")),
    CompletionParameters(tools=[ToolDefinition(name="f")], tool_choice="required"),
    CompletionParameters(extra={"user": "u"}),
]


@pytest.mark.parametrize("params", PARAMETERS, ids=range(len(PARAMETERS)))
@pytest.mark.parametrize("version", [None, "2024-10-21"])
def test_the_body_is_openais(params, version):
    azure = GeneratorInfo.azure("tide", ENDPOINT, version).with_api_key(KEY)
    openai_body = sent_by_us(azure.with_provider(OpenAiProvider()), params)[2]
    assert sent_by_us(azure, params)[2] == openai_body


def test_its_text_form_is_how_it_is_made():
    assert repr(AzureProvider()) == "AzureProvider()"
    assert repr(AzureProvider("2024-10-21")) == "AzureProvider(api_version='2024-10-21')"


@pytest.mark.parametrize("field", ["top_k", "repetition_penalty"])
def test_what_azure_has_not_is_an_error_that_names_it(field):
    azure = GeneratorInfo.azure("tide", ENDPOINT).with_api_key(KEY)
    with pytest.raises(InvalidParameterError, match=f"Azure OpenAI has no {field}"):
        sent_by_us(azure, CompletionParameters(**{field: 1}))


# Filters.


def azure_with(*replies: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.azure("tide", ENDPOINT).with_api_key(KEY)
    return generator.with_transport(ScriptedTransport(replies))


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_filtered_prompt_names_its_categories(streaming):
    generator = azure_with(reply_of("azure_error_content_filter.json", 400))
    with pytest.raises(ContentFilterError, match="filtered: jailbreak") as caught:
        if streaming:
            await ROOT.chat_streaming("u", generator).collect()
        else:
            await ROOT.chat("u", generator)
    assert caught.value.code == "content_filter"


BLOCKED = "azure_stream_async_filter_blocked.sse"
EVENTS = (GOLDEN / BLOCKED).read_bytes().split(b"\n\n")
STOP = (
    EVENTS[3]
    .replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    .replace(b'{"content":" begin"}', b"{}")
)
LATE = [*EVENTS[:4], STOP, *EVENTS[4:]]


async def read_late(events, usage_asked: bool):
    settings = NodeCompletionParameters(cost_tracking=usage_asked)
    generator = azure_with(ScriptedReply.events(*(event + b"\n\n" for event in events if event)))
    stream = ROOT.chat_streaming("u", generator, settings)
    return (await stream.collect()).response


@pytest.mark.parametrize("usage_asked", [True, False])
async def test_an_answer_that_is_blocked_after_its_end_is_filtered(usage_asked):
    assert b'"finish_reason":"stop"' in STOP
    response = await read_late(LATE, usage_asked)
    expected = expected_of(BLOCKED)
    assert response.finish_reason is FinishReason.CONTENT_FILTER
    assert response.raw_finish_reason == "content_filter"
    assert response.content == "To begin"
    assert response.extra["content_filter_results"] == expected.extra["content_filter_results"]


async def test_no_later_end_makes_a_filtered_answer_whole():
    response = await read_late([*EVENTS[:5], STOP, *EVENTS[5:]], usage_asked=True)
    assert response.finish_reason is FinishReason.CONTENT_FILTER


async def test_a_failed_filter_is_told_and_the_answer_is_kept():
    body = json.loads((GOLDEN / "azure_chat_text.json").read_bytes())
    failed = {"error": {"code": "content_filter_error", "message": "The filter is down."}}
    body["choices"][0]["content_filter_results"] = failed
    response = (await ROOT.chat("u", azure_with(ScriptedReply.json(body)))).response
    assert response.finish_reason is FinishReason.STOP
    assert response.extra["content_filter_results"] == failed


@pytest.mark.parametrize("code", ["too_many_requests", "429", "RateLimitReached"])
async def test_a_rate_limit_inside_a_stream_is_one(code):
    event = json.dumps({"error": {"code": code, "message": "Wait."}}).encode()
    generator = azure_with(ScriptedReply.events(EVENTS[1] + b"\n\n", b"data: " + event + b"\n\n"))
    with pytest.raises(RateLimitError):
        await ROOT.chat_streaming("u", generator).collect()


async def test_the_quota_and_the_ids_in_azures_headers_are_read():
    headers = {"x-ratelimit-remaining-tokens": "991", "x-ratelimit-reset-tokens": "17",
               "apim-request-id": "a-1"}  # fmt: skip
    limits = AzureProvider().limits_of(headers)
    assert (limits.remaining_tokens, limits.seconds_to_reset_tokens) == (991, 17.0)
    reply = reply_of("azure_error_rate_limit_429.json", 429)
    reply = msgspec.structs.replace(reply, headers={**headers, "retry-after-ms": "0"})
    with pytest.raises(RateLimitError) as caught:
        await ROOT.chat("u", azure_with(reply))
    assert (caught.value.request_id, caught.value.retry_after_secs) == ("a-1", 22)


@pytest.mark.parametrize("cut", [1, 2])
async def test_a_stream_of_azure_without_an_end_is_no_success(cut):
    events = [event + b"\n\n" for event in EVENTS[:-2][: cut + 1]]
    root = ChatNode.root("s")
    with pytest.raises(MiniLLMError):
        await root.chat_streaming("u", azure_with(ScriptedReply.events(*events))).collect()
    assert root.children() == []


def test_what_a_resource_made_is_known_by_its_address():
    origins = set()
    for endpoint in (ENDPOINT, ENDPOINT.replace("tides", "ebbs")):
        transport = ScriptedTransport([ScriptedReply.json(ANSWER)])
        generator = GeneratorInfo.azure("d", endpoint).with_api_key(KEY).with_transport(transport)
        origins.add(minillmlib.run(ROOT.chat("u", generator)).response.origin)
    assert origins == {f"AzureProvider:d@{name}.openai.azure.com" for name in ("tides", "ebbs")}
