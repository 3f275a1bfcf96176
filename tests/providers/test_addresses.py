"""Where each wire sends its requests, and the headers in which it carries each credential."""

from __future__ import annotations

import pytest

from minillmlib import (
    AnthropicProvider,
    Auth,
    AzureProvider,
    AzureResponsesProvider,
    CompletionsProvider,
    GenericProvider,
    InvalidParameterError,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
    Secret,
)
from minillmlib.providers.anthropic import AnthropicHost

CHAT = [GenericProvider(), OpenAiProvider(), OpenRouterProvider()]
KEY, TOKEN, NONE = Auth.api_key(Secret("k")), Auth.bearer_token(Secret("t")), Auth.none()
BEARER_KEY, BEARER_TOKEN = ("Authorization", "Bearer k"), ("Authorization", "Bearer t")
VERSION, BETA = ("anthropic-version", "2023-06-01"), ("anthropic-beta", "oauth-2025-04-20")


@pytest.mark.parametrize(
    ("provider", "base", "address"),
    [
        *((provider, base, "https://h/v1/chat/completions")
          for provider in (*CHAT, AzureProvider()) for base in ("https://h/v1", "https://h/v1//")),
        *((provider, base, "https://h/v1/responses")
          for provider in (ResponsesProvider(), AzureResponsesProvider())
          for base in ("https://h/v1", "https://h/v1/")),
        *((provider, base, "https://h/v1/messages")
          for provider in (AnthropicProvider(), AnthropicHost())
          for base in ("https://h", "https://h/", "https://h/v1", "https://h/v1/")),
        (AnthropicProvider(), "https://h/v1/x", "https://h/v1/x/v1/messages"),
        (CompletionsProvider(), "https://h/v1/", "https://h/v1/completions"),
        (AzureProvider("2024-10-21"), "https://h/openai/",
         "https://h/openai/deployments/a%2Fm/chat/completions?api-version=2024-10-21"),
        (AzureProvider("2024-10-21-preview"), "https://h",
         "https://h/deployments/a%2Fm/chat/completions?api-version=2024-10-21-preview"),
        (AzureProvider("v2024-10-21"), "https://h", "https://h/chat/completions?api-version=v2024-10-21"),
        (AzureProvider("2024-10-21-"), "https://h", "https://h/chat/completions?api-version=2024-10-21-"),
        (AzureProvider("preview"), "https://h", "https://h/chat/completions?api-version=preview"),
        (AzureResponsesProvider("2024-10-21"), "https://h", "https://h/responses?api-version=2024-10-21"),
    ],
)  # fmt: skip
def test_the_address_of_requests(provider, base, address):
    for stream in (False, True):
        assert provider.request_url(base, "a/m", stream=stream) == address


@pytest.mark.parametrize(
    ("provider", "of_key", "of_token", "of_none"),
    [
        *((provider, [BEARER_KEY], [BEARER_TOKEN], [])
          for provider in (*CHAT, ResponsesProvider(), CompletionsProvider())),
        *((provider, [("api-key", "k")], [BEARER_TOKEN], [])
          for provider in (AzureProvider(), AzureResponsesProvider("preview"))),
        (AnthropicProvider(), [VERSION, ("x-api-key", "k")], [VERSION, BEARER_TOKEN, BETA], [VERSION]),
        (AnthropicHost(), [VERSION, ("x-api-key", "k")], [VERSION, BEARER_TOKEN], [VERSION]),
        (AnthropicHost(is_bearer=True), [VERSION, BEARER_KEY], [VERSION, BEARER_TOKEN], [VERSION]),
    ],
)  # fmt: skip
def test_the_headers_of_a_credential(provider, of_key, of_token, of_none):
    headers = [provider.auth_headers(auth) for auth in (KEY, TOKEN, NONE)]
    assert headers == [of_key, of_token, of_none]


def test_providers_made_alike_are_equal_and_others_are_not():
    same = [lambda: AzureProvider("preview"), lambda: AnthropicHost(is_bearer=True),
            lambda: GenericProvider(legacy_token_limit=False), OpenAiProvider]  # fmt: skip
    for make in same:
        assert make() == make()
        assert hash(make()) == hash(make())
    made = [AzureProvider("preview"), AzureProvider(), AzureResponsesProvider("preview"),
            AzureResponsesProvider("preview", seals_reasoning=False), AnthropicHost(),
            AnthropicHost(is_bearer=True), AnthropicProvider(), GenericProvider(),
            GenericProvider(legacy_token_limit=True), GenericProvider(marks_prefill=False),
            CompletionsProvider(), CompletionsProvider(str), OpenAiProvider()]  # fmt: skip
    for number, one in enumerate(made):
        assert [one == other for other in made] == [number == place for place in range(len(made))]


@pytest.mark.parametrize("name", ["anthropic-ratelimit-requests-remaining", "x-ratelimit-remaining-requests"])  # fmt: skip
def test_each_wire_reads_the_quota_in_headers_of_its_own(name):
    for provider in (*CHAT, ResponsesProvider(), AnthropicProvider()):
        is_own = name.startswith("anthropic") is isinstance(provider, AnthropicProvider)
        assert provider.limits_of({name: "7"}).remaining_requests == (7 if is_own else None)


@pytest.mark.parametrize(
    ("provider", "facts"),
    [
        (GenericProvider(), {"is_generic": True}),
        (OpenAiProvider(), {}),
        (AzureProvider(), {"is_generic": True}),
        (ResponsesProvider(), {"messages_key": "input", "replayable_media": ("image",),
                               "is_generic": True}),
        (AzureResponsesProvider(), {"messages_key": "input", "replayable_media": ("image",),
                                    "is_generic": True}),
        (OpenRouterProvider(), {"replayable_media": ("image",), "app_url_header": "HTTP-Referer",
                                "app_title_header": "X-OpenRouter-Title"}),
        (AnthropicProvider(), {"mergeable_headers": ("anthropic-beta",)}),
        (AnthropicHost(), {"mergeable_headers": ("anthropic-beta",), "is_generic": True}),
        (CompletionsProvider(), {"messages_key": None, "prompt_key": "prompt", "is_generic": True}),
    ],
    ids=repr,
)  # fmt: skip
def test_the_abilities_of_each_wire(provider, facts):
    neutral = {
        "messages_key": "messages", "prompt_key": None, "replayable_media": (),
        "mergeable_headers": (), "app_url_header": None, "app_title_header": None,
        "stream_accept": "text/event-stream", "is_generic": False,
    }  # fmt: skip
    abilities = provider.capabilities
    assert {name: getattr(abilities, name) for name in neutral} == neutral | facts
    without_batches = (GenericProvider, AnthropicHost, CompletionsProvider)
    assert (provider.batches is None) is (type(provider) in without_batches)


def test_what_no_template_is_is_refused_and_names_its_type():
    with pytest.raises(InvalidParameterError, match="must be a function of messages, not str"):
        CompletionsProvider("{text}")
