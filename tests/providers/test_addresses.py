"""Where each wire sends its requests, and the headers in which it carries each credential."""

from __future__ import annotations

import pytest

from minillmlib import (
    AnthropicProvider,
    AudioPart,
    Auth,
    AzureProvider,
    AzureResponsesProvider,
    CompletionParameters,
    CompletionsProvider,
    DocumentPart,
    GenericProvider,
    ImagePart,
    InvalidParameterError,
    Message,
    OpenAiProvider,
    OpenRouterProvider,
    ResponsesProvider,
    Secret,
    ToolCall,
    VideoPart,
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


USER = {"role": "user", "content": "u"}
STREAMED = {"model": "m", "stream": True}


@pytest.mark.parametrize(
    ("provider", "whole", "streamed"),
    [
        *((provider, {"model": "m", "messages": [USER]},
           STREAMED | {"messages": [USER], "stream_options": {"include_usage": True}})
          for provider in (OpenAiProvider(), AzureProvider(), GenericProvider())),
        (OpenRouterProvider(), {"model": "m", "messages": [USER]}, STREAMED | {"messages": [USER]}),
        (CompletionsProvider(), {"model": "m", "prompt": "u"},
         STREAMED | {"prompt": "u", "stream_options": {"include_usage": True}}),
        *((provider,
           {"model": "m", "max_tokens": 4096, "messages": [
               {"role": "user", "content": [{"type": "text", "text": "u"}]}]}, None)
          for provider in (AnthropicProvider(), AnthropicHost())),
        *((provider,
           {"model": "m", "input": [{"type": "message", **USER}], "store": False,
            "include": ["reasoning.encrypted_content"]}, None)
          for provider in (ResponsesProvider(), AzureResponsesProvider())),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_least_body_of_each_wire(provider, whole, streamed):
    def body(*, stream, include_usage):
        message, params = [Message.user("u")], CompletionParameters()
        return provider.build_request("m", message, params, stream=stream,
                                      include_usage=include_usage)  # fmt: skip

    assert body(stream=False, include_usage=True) == whole
    expected = whole | {"stream": True} if streamed is None else streamed
    assert body(stream=True, include_usage=True) == expected
    without = {key: expected[key] for key in expected if key != "stream_options"}
    assert body(stream=True, include_usage=False) == without


OPENAI_IMAGES = {"image/jpeg", "image/png", "image/gif", "image/webp"}
BMP = "image/bmp"
FACTS = {  # the types of images and sounds, films, addresses of documents, media of tools
    OpenAiProvider(): (OPENAI_IMAGES, {"wav", "mp3"}, False, False, False),
    AzureProvider(): (OPENAI_IMAGES, {"wav", "mp3"}, False, False, False),
    GenericProvider(): (OPENAI_IMAGES | {BMP}, {"wav", "mp3"}, False, False, False),
    OpenRouterProvider(): (
        OPENAI_IMAGES, {"wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a"}, True, True, True),
}  # fmt: skip
SOUNDS = ("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a", "opus")


@pytest.mark.parametrize("provider", FACTS, ids=repr)
def test_the_media_that_a_server_of_the_chat_wire_takes(provider):
    def takes(*messages):
        params = CompletionParameters()
        try:
            provider.build_request("m", messages, params, stream=False, include_usage=False)
        except InvalidParameterError:
            return False
        return True

    def takes_part(part):
        return takes(Message.user((part,)))

    images, sounds, has_films, has_documents, has_tool_media = FACTS[provider]
    for kind in OPENAI_IMAGES | {BMP}:
        part = ImagePart.from_bytes(b"x", media_type=kind)
        assert takes_part(part) is (kind in images), kind
    for sound in SOUNDS:
        part = AudioPart.from_bytes(b"x", media_type=f"audio/{sound}")
        assert takes_part(part) is (sound in sounds), sound
    assert takes_part(VideoPart.from_url("https://a.example/f.mp4")) is has_films
    assert takes_part(DocumentPart.from_url("https://a.example/f.pdf")) is has_documents
    call = ToolCall(id="c", name="f", arguments="{}")
    result = Message.tool_result("c", (ImagePart.from_url("https://a.example/i.png"),))
    asked = (Message.user("u"), Message.assistant("", tool_calls=(call,)), result)
    assert takes(*asked) is has_tool_media


def test_a_host_has_the_abilities_that_it_is_given():
    def explain(model, params):
        return f"{model} takes none of it"

    plain = CompletionParameters()
    host = AnthropicHost(explain_refusal=explain)
    assert host.capabilities == AnthropicHost().capabilities.replace(explain_refusal=explain)
    assert host.capabilities.explain_refusal("m", plain) == "m takes none of it"
    assert AnthropicHost().capabilities == AnthropicProvider().capabilities.replace(is_generic=True)
    abilities = GenericProvider.capabilities.replace(explain_refusal=explain)
    host = GenericProvider(capabilities=abilities)
    assert host.capabilities == abilities
    assert GenericProvider().capabilities == GenericProvider.capabilities
    silent = GenericProvider(capabilities=abilities, marks_prefill=False).capabilities
    body = {"messages": [{"role": "assistant", "content": "So"}]}
    assert silent.mark_prefill("m", body) == body != abilities.mark_prefill("m", body)
    assert silent.explain_refusal("m", plain) == "m takes none of it"


@pytest.mark.parametrize(
    ("provider", "model", "is_trimmed"),
    [
        (GenericProvider(), "claude-haiku-4-5", True), (GenericProvider(), "m", False),
        (GenericProvider(), "claude-next", False),
        (OpenRouterProvider(), "anthropic/claude-haiku-4.5", True),
        (OpenRouterProvider(), "a/m", False), (OpenAiProvider(), "claude-haiku-4-5", False),
    ],
)  # fmt: skip
def test_a_beginning_of_claude_ends_without_white_space(provider, model, is_trimmed):
    def sent(*messages):
        params = CompletionParameters()
        body = provider.build_request(model, messages, params, stream=False, include_usage=False)
        return body["messages"][-1]["content"]

    beginning = Message.assistant("So \n")
    assert sent(Message.user("u"), beginning) == ("So" if is_trimmed else "So \n")
    assert sent(Message.user("u"), beginning, Message.user("v \n")) == "v \n"


def test_what_no_template_is_is_refused_and_names_its_type():
    with pytest.raises(InvalidParameterError, match="must be a function of messages, not str"):
        CompletionsProvider("{text}")
