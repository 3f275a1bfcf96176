"""Generators: presets, credentials, and what is sent because of them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import time
from contextlib import contextmanager

import msgspec
import pytest
from short_answers import CLAUDE, answer_to

import minillmlib
from minillmlib import (
    AnthropicProvider,
    Auth,
    AuthenticationError,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    OpenAiProvider,
    OpenRouterProvider,
    Secret,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

CANARY = "sk-canary-0123456789"


def request_of(generator: GeneratorInfo, params: CompletionParameters | None = None):
    """What a chat sends: address, headers by lower-case name, decoded body."""
    transport = ScriptedTransport([ScriptedReply.json(answer_to(generator.provider))])
    minillmlib.run(ChatNode.root("s").chat("u", generator.with_transport(transport), params))
    (request,) = transport.requests
    headers = {name.lower(): value for name, value in request.expose_headers()}
    assert len(headers) == len(request.headers), "no header is sent twice"
    return request.url, headers, msgspec.json.decode(request.body)


@pytest.mark.parametrize(
    ("preset", "variable", "url", "header", "value"),
    [
        ("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1/chat/completions",
         "authorization", f"Bearer {CANARY}"),
        ("openai", "OPENAI_API_KEY", "https://api.openai.com/v1/chat/completions",
         "authorization", f"Bearer {CANARY}"),
        ("openai-responses", "OPENAI_API_KEY", "https://api.openai.com/v1/responses",
         "authorization", f"Bearer {CANARY}"),
        ("anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com/v1/messages",
         "x-api-key", CANARY),
        ("claude_subscription", "ANTHROPIC_AUTH_TOKEN", "https://api.anthropic.com/v1/messages",
         "authorization", f"Bearer {CANARY}"),
        ("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1/chat/completions",
         "authorization", f"Bearer {CANARY}"),
    ],
)  # fmt: skip
def test_a_preset_goes_to_its_vendor_with_the_key_from_its_variable(
    preset, variable, url, header, value, monkeypatch
):
    monkeypatch.setenv(variable, CANARY + "\n")
    sent_to, headers, body = request_of(GeneratorInfo.preset(preset, "some/model"))
    assert sent_to == url
    assert headers[header] == value
    assert body["model"] == "some/model"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == f"minillmlib/{minillmlib.__version__}"


def test_groq_takes_the_new_key_of_the_token_limit():
    generator = GeneratorInfo.preset("groq", "m").with_api_key(CANARY)
    _, _, body = request_of(generator, CompletionParameters(max_tokens=5))
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


def test_a_subscription_token_carries_the_oauth_beta_and_a_key_does_not(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", CANARY)
    _, by_key, _ = request_of(GeneratorInfo.anthropic("m"))
    _, by_token, _ = request_of(GeneratorInfo.claude_subscription("m"))
    assert by_key["anthropic-version"] == by_token["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in by_key
    assert "authorization" not in by_key
    assert by_token["anthropic-beta"] == "oauth-2025-04-20"
    assert "x-api-key" not in by_token


@pytest.mark.parametrize("preset", ["openrouter", "openai", "anthropic", "groq"])
@pytest.mark.parametrize("key", [None, "", "  \n"])
def test_without_a_key_the_call_fails_before_anything_is_sent_and_names_the_variable(
    preset, key, monkeypatch
):
    variable = f"{preset.upper()}_API_KEY"
    if key is not None:
        monkeypatch.setenv(variable, key)
    transport = ScriptedTransport([])
    generator = GeneratorInfo.preset(preset, "m").with_transport(transport)
    for call in (ChatNode.root("s").chat("u", generator),
                 anext(ChatNode.root("s").chat_streaming("u", generator))):  # fmt: skip
        with pytest.raises(AuthenticationError, match=variable) as caught:
            minillmlib.run(as_coroutine(call))
        assert caught.value.status is None
    assert transport.requests == []


async def as_coroutine(awaitable):
    return await awaitable


def test_the_environment_is_read_at_each_request(monkeypatch):
    generator = GeneratorInfo.openai("m")
    monkeypatch.setenv("OPENAI_API_KEY", "first")
    assert request_of(generator)[1]["authorization"] == "Bearer first"
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    assert request_of(generator)[1]["authorization"] == "Bearer second"


def test_a_key_from_the_environment_changes_nothing_when_unset(monkeypatch):
    custom = GeneratorInfo.custom("c", "http://localhost:1/v1", "m").with_api_key_from_env("MINE")
    assert "authorization" not in request_of(custom)[1]
    monkeypatch.setenv("OPENAI_API_KEY", "preset")
    other = GeneratorInfo.openai("m").with_api_key_from_env("MINE")
    assert request_of(other)[1]["authorization"] == "Bearer preset"
    monkeypatch.setenv("MINE", "mine")
    assert request_of(custom)[1]["authorization"] == "Bearer mine"
    assert request_of(other)[1]["authorization"] == "Bearer mine"


def test_every_variable_that_was_tried_is_named():
    generator = GeneratorInfo.openai("m").with_api_key_from_env("MINE")
    with pytest.raises(AuthenticationError, match="MINE or OPENAI_API_KEY"):
        request_of(generator)


def test_the_provider_picks_the_header_of_a_key_but_a_bearer_token_is_always_bearer():
    claude = GeneratorInfo.anthropic("m")
    assert request_of(claude.with_api_key("k"))[1]["x-api-key"] == "k"
    assert request_of(claude.with_bearer_token("t"))[1]["authorization"] == "Bearer t"
    custom = GeneratorInfo.custom("c", "http://localhost:1/v1/", "m")
    assert request_of(custom.with_api_key("k"))[1]["authorization"] == "Bearer k"
    assert request_of(custom)[0] == "http://localhost:1/v1/chat/completions"


def test_headers_are_added_and_win_over_our_own():
    generator = (
        GeneratorInfo.custom("c", "http://localhost:1/v1", "m")
        .with_header("X-Tenant", "acme")
        .with_header("user-agent", "mine")
        .with_header("x-tenant", "other")
    )
    _, headers, _ = request_of(generator)
    assert headers["x-tenant"] == "other"
    assert headers["user-agent"] == "mine"


def test_builders_change_copies():
    base = GeneratorInfo.openai("m")
    for changed in (
        base.with_api_key("k"), base.with_bearer_token("t"), base.with_header("A", "b"),
        base.with_token_price(TokenPrice(1, 2)), base.with_provider(AnthropicProvider()),
        base.with_base_url("http://localhost:1"), base.with_api_key_from_env("X"),
    ):  # fmt: skip
        assert changed is not base
    assert base == base.replace(model="m")
    assert (base.headers, base.token_price, base.base_url) == (
        (), None, "https://api.openai.com/v1")  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "provider", "model"),
    [
        ("openrouter:google/gemini-2.5-flash-lite", OpenRouterProvider,
         "google/gemini-2.5-flash-lite"),
        ("openrouter:meta/llama:free", OpenRouterProvider, "meta/llama:free"),
        ("openai:gpt-4o-mini", OpenAiProvider, "gpt-4o-mini"),
        ("anthropic:claude-haiku-4-5", AnthropicProvider, "claude-haiku-4-5"),
        ("claude_subscription:claude-haiku-4-5", AnthropicProvider, "claude-haiku-4-5"),
        ("groq:openai/gpt-oss-20b", GenericProvider, "openai/gpt-oss-20b"),
        ("local", GenericProvider, "SmolLM2-135M-Instruct"),
        ("local:folder/file.gguf", GenericProvider, "file.gguf"),
    ],
)  # fmt: skip
def test_a_spec_is_a_generator_in_one_string(spec, provider, model):
    generator = GeneratorInfo.from_spec(spec)
    assert type(generator.provider) is provider
    assert generator.model == model


@pytest.mark.parametrize(
    ("spec", "base_url", "model"),
    [
        ("ollama:llama3", "http://127.0.0.1:11434/v1", "llama3"),
        ("ollama:llama3:8b", "http://127.0.0.1:11434/v1", "llama3:8b"),
        ("custom:http://127.0.0.1:8000/v1:model", "http://127.0.0.1:8000/v1", "model"),
        ("custom:http://127.0.0.1:8000/v1:llama3:8b", "http://127.0.0.1:8000/v1", "llama3:8b"),
        ("custom:http://127.0.0.1:8000:llama3:8b", "http://127.0.0.1:8000", "llama3:8b"),
        ("custom:http://127.0.0.1:8000/:m", "http://127.0.0.1:8000/", "m"),
        ("custom:http://[::1]:8000/v1:m", "http://[::1]:8000/v1", "m"),
        ("custom:http://[::1]:m", "http://[::1]", "m"),
        ("custom:https://own.example:8b", "https://own.example", "8b"),
        ("custom:https://own.example/a/v1:google/gemma-3:free", "https://own.example/a/v1",
         "google/gemma-3:free"),
        ("custom:https://own.example/v1:@cf/meta/llama", "https://own.example/v1", "@cf/meta/llama"),
    ],
)  # fmt: skip
def test_a_spec_reaches_any_server_whatever_colons_its_models_have(spec, base_url, model):
    generator = GeneratorInfo.from_spec(spec)
    assert (generator.base_url, generator.model) == (base_url, model)
    assert type(generator.provider) is GenericProvider
    assert base_url in repr(generator)
    assert spec.startswith(generator.name)


@pytest.mark.parametrize(
    "spec",
    ["custom:", "custom:m", "custom:http://127.0.0.1:8000", "custom:http://127.0.0.1:8000/v1",
     "custom:http://127.0.0.1:8000/v1:", "custom:127.0.0.1:8000:m", "custom:ftp://h/v1:m"],
)  # fmt: skip
def test_a_wrong_custom_spec_is_an_error_with_an_example(spec):
    with pytest.raises(InvalidParameterError, match="custom:http://127.0.0.1:8000/v1:llama3:8b"):
        GeneratorInfo.from_spec(spec)


@pytest.mark.parametrize(
    ("spec", "advice"),
    [("openai:", "write openai:MODEL"), ("local:", "write local, or local:FILE")],
)
def test_a_spec_without_its_model_is_an_error_that_says_how_to_write_it(spec, advice):
    with pytest.raises(InvalidParameterError, match=advice):
        GeneratorInfo.from_spec(spec)


@pytest.mark.parametrize(
    "spec",
    ["custom:https://user:pass-canary@h/v1:m", "custom:https://h:99999/v1:m", "custom:http://:m"],
)
def test_the_address_in_a_spec_is_checked_and_shows_no_password(spec):
    with pytest.raises(InvalidParameterError, match="base_url") as caught:
        GeneratorInfo.from_spec(spec)
    assert "pass-canary" not in str(caught.value)


VARIABLES = {
    "openai": "OPENAI_BASE_URL", "openai-responses": "OPENAI_BASE_URL", "openrouter": "OPENROUTER_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL", "claude_subscription": "ANTHROPIC_BASE_URL",
}  # fmt: skip


@pytest.mark.parametrize(("name", "variable"), VARIABLES.items())
async def test_an_address_in_the_environment_is_where_a_preset_leads(name, variable, monkeypatch):
    monkeypatch.setenv(variable, " http://127.0.0.1:9999/here/v1/\n")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", CANARY)
    answer = answer_to(GeneratorInfo.preset(name, "m").provider)
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    generator = GeneratorInfo.from_spec(f"{name}:m").with_transport(transport)
    monkeypatch.delenv(variable)
    if name != "claude_subscription":
        generator = generator.with_api_key(CANARY)
    assert "at http://127.0.0.1:9999/here/v1/" in repr(generator)
    await ChatNode.root("s").chat("u", generator)
    assert transport.requests[0].url.startswith("http://127.0.0.1:9999/here/v1/")
    assert "127.0.0.1" not in GeneratorInfo.preset(name, "m").base_url


@pytest.mark.parametrize(("name", "variable"), VARIABLES.items())
async def test_a_key_goes_unencrypted_to_no_address_in_the_environment(name, variable, monkeypatch):
    monkeypatch.setenv(variable, "http://gateway.example/v1")
    generator = GeneratorInfo.preset(name, "m").with_api_key(CANARY)
    transport = ScriptedTransport([])
    with pytest.raises(InvalidParameterError, match="gateway.example unencrypted"):
        await ChatNode.root("s").chat("u", generator.with_transport(transport))
    assert transport.requests == []


@pytest.mark.parametrize(
    "url", ["localhost:8000", "https://user:pass-canary@host/v1", "https://h/v1?x"]
)
def test_a_wrong_address_in_the_environment_is_an_error_that_names_the_variable(url, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(
        InvalidParameterError, match="the environment variable OPENAI_BASE_URL: "
    ) as caught:
        GeneratorInfo.openai("m")
    assert "pass-canary" not in str(caught.value)
    assert GeneratorInfo.anthropic("m").base_url == "https://api.anthropic.com"


def test_a_blank_address_in_the_environment_is_none(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    assert GeneratorInfo.openai("m").base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("spec", ["", "gpt-4o-mini", "zzz:m", ":m", None, 3])
def test_a_wrong_spec_is_an_error_that_lists_the_providers(spec):
    with pytest.raises(InvalidParameterError, match="openrouter, openai, anthropic"):
        GeneratorInfo.from_spec(spec)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host/v1", "http://", "https://host:99999/v1", "http://[::1/v1",
     "http://user:pass-canary@host/v1", "https://host/v1?key=1", "https://host/v1#x",
     "https://host/a b", "https://höst/v1", "https://a..b/v1",
        "https://host/v1?",
        "http://user:pass-canary@host/v1\n",
        "https://host\n/v1", None, 3],
)  # fmt: skip
def test_a_base_url_is_checked_when_it_is_given(url):
    with pytest.raises(InvalidParameterError, match="base_url") as caught:
        GeneratorInfo.custom("c", url, "m")
    assert "pass-canary" not in str(caught.value)


def test_white_space_around_a_base_url_is_dropped():
    generator = GeneratorInfo.custom("c", " http://localhost:1/v1\n", "m")
    assert generator.base_url == "http://localhost:1/v1"


@pytest.mark.parametrize(
    "change",
    [lambda g: g.with_transport(3), lambda g: g.with_token_price(3), lambda g: g.with_provider("x"),
     lambda g: g.with_provider(OpenAiProvider), lambda g: g.with_api_key_from_env(None),
     lambda g: g.with_api_key_from_env(""), lambda g: g.with_header("x", None),
     lambda g: g.with_header(3, "x"), lambda g: g.with_header("Content-Length", "5"),
     lambda g: g.with_api_key(3), lambda g: g.replace(credential=CANARY),
     lambda g: g.replace(headers={}), lambda g: g.replace(nothing=1),
     lambda g: g.local(["x"]), lambda g: g.custom("c", None, "m")],
)  # fmt: skip
def test_what_a_generator_cannot_use_is_refused_when_it_is_given(change):
    with pytest.raises(InvalidParameterError) as caught:
        change(GeneratorInfo.openai("m"))
    assert CANARY not in str(caught.value)


def test_generators_made_alike_are_equal():
    for make in (lambda: GeneratorInfo.openai("m"), lambda: GeneratorInfo.claude_subscription("m"),
                 lambda: GeneratorInfo.custom("c", "http://h/v1", "m"), GeneratorInfo.local):  # fmt: skip
        assert make() == make() == pickle.loads(pickle.dumps(make()))
    assert GeneratorInfo.openai("m") != GeneratorInfo.openai("n")
    assert GenericProvider() != GenericProvider(legacy_token_limit=True)
    assert GenericProvider() != OpenAiProvider()


@pytest.mark.parametrize("model", ["", " ", "a\nb", None])
def test_a_model_name_is_a_line_of_text(model):
    with pytest.raises(InvalidParameterError, match="model"):
        GeneratorInfo.openai(model)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX: y", "schlüssel", "a\0b", "", "  "])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key):
    for build in (
        GeneratorInfo.openai("m").with_api_key,
        GeneratorInfo.openai("m").with_bearer_token,
    ):
        with pytest.raises(InvalidParameterError) as caught:
            build(key)
        assert len(key) < 2 or key not in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("a b", "x"), ("", "x"), ("A:", "x"), ("A", "x\ny")])
def test_a_header_that_could_smuggle_another_is_refused(name, value):
    with pytest.raises(InvalidParameterError):
        GeneratorInfo.openai("m").with_header(name, value)


def test_a_secret_is_never_printed_pickled_or_encoded():
    secret = Secret(CANARY)
    generator = GeneratorInfo.openai("m").with_api_key(CANARY).with_header("X-Key", CANARY)
    auth = Auth.api_key(secret)
    shown = [repr(secret), str(secret), f"{secret:>40}", repr(generator), str(generator), repr(auth),
             repr(generator.credential), repr(vars(generator.provider))]  # fmt: skip
    assert CANARY not in "".join(shown)
    for spoil in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(InvalidParameterError, match="environment"):
            spoil(secret)
    with pytest.raises(InvalidParameterError, match="environment"):
        pickle.dumps(generator)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret == Secret(f" {CANARY}\r\n")
    assert secret != Secret("other")
    assert secret != CANARY
    assert secret.expose_secret() == CANARY


def test_a_key_that_a_server_echoes_is_cut_out_of_the_error():
    echo = {"error": {"message": f"Incorrect API key provided: {CANARY}."}}
    replies = [ScriptedReply.json(echo, status=401), ScriptedReply.json(echo)]
    transport = ScriptedTransport(replies)
    generator = GeneratorInfo.openai("m").with_api_key(CANARY).with_transport(transport)
    for _ in replies:
        with pytest.raises(minillmlib.ApiError, match=r"provided: \[hidden\]") as caught:
            minillmlib.run(ChatNode.root("s").chat("u", generator))
        assert CANARY not in repr(caught.value.__dict__)


def test_a_generator_with_its_key_in_the_environment_can_be_pickled(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    for generator in (GeneratorInfo.openai("m"), GeneratorInfo.claude_subscription("m"),
                      GeneratorInfo.local("model.gguf")):  # fmt: skip
        data = pickle.dumps(generator)
        assert CANARY.encode() not in data
        assert repr(pickle.loads(data)) == repr(generator)
    assert request_of(pickle.loads(pickle.dumps(GeneratorInfo.openai("m"))))


def credential_file(folder, **oauth):
    folder.joinpath(".credentials.json").write_text(json.dumps({"claudeAiOauth": oauth}))


def test_a_subscription_token_comes_from_the_file_that_is_kept_fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    generator = GeneratorInfo.claude_subscription("m")
    credential_file(tmp_path, accessToken="one", expiresAt=(time.time() + 60) * 1000)
    assert request_of(generator)[1]["authorization"] == "Bearer one"
    credential_file(tmp_path, accessToken="two", expiresAt=None)
    assert request_of(generator)[1]["authorization"] == "Bearer two"
    file = tmp_path / ".credentials.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as a Windows editor leaves it
    assert request_of(generator)[1]["authorization"] == "Bearer two"
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "override")
    assert request_of(generator)[1]["authorization"] == "Bearer override"


@contextmanager
def without_rights():
    """Root may read every file, so for a moment we are somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def login(**oauth):
    return lambda path: credential_file(path.parent, **oauth)


# What stands in the file's place, and what the error says about it.
NO_TOKEN = {
    "nothing": (lambda _path: None, "No such file"),
    "a directory": (os.mkdir, "a directory"),
    "a pipe": (os.mkfifo, "a pipe"),
    "too large": (lambda path: path.write_bytes(b" " * 2_000_000), "larger than"),
    "cut": (lambda path: path.write_text('{"claudeAiOauth": {"accessToken": "' + CANARY), "JSON"),
    "deep": (lambda path: path.write_text("[" * 100_000), "JSON"),
    "logged out": (lambda path: path.write_text("{}"), "nobody is logged in"),
    "no object": (lambda path: path.write_text("[]"), "nobody is logged in"),
    "no token": (login(expiresAt=1), "no accessToken"),
    "a number": (login(accessToken=5), "no accessToken"),
    "blank": (login(accessToken=" "), "is empty"),
    "two lines": (login(accessToken=f"{CANARY}\n{CANARY}"), "no HTTP header"),
    "expired": (login(accessToken=CANARY, expiresAt=1000), "expired"),
    "expired, as text": (login(accessToken=CANARY, expiresAt="1000"), "expired"),
}


@pytest.mark.parametrize("case", NO_TOKEN)
def test_without_a_usable_subscription_token_the_error_says_what_is_wrong_with_the_file(
    case, tmp_path, monkeypatch
):
    make, words = NO_TOKEN[case]
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    make(tmp_path / ".credentials.json")
    with pytest.raises(AuthenticationError, match=r"\.credentials\.json") as caught:
        request_of(GeneratorInfo.claude_subscription("m"))
    assert words in str(caught.value)
    assert caught.value.status is None
    assert CANARY not in str(caught.value)


def test_a_credential_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    credential_file(tmp_path, accessToken=CANARY)
    tmp_path.joinpath(".credentials.json").chmod(0)
    with without_rights(), pytest.raises(AuthenticationError, match="Permission denied"):
        request_of(GeneratorInfo.claude_subscription("m"))


@pytest.mark.parametrize("odd", [None, "never", [], {}, 10**400, "1e400"], ids=range(6))
def test_a_login_with_an_odd_expiry_is_used(odd, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    credential_file(tmp_path, accessToken="t", expiresAt=odd)
    _, headers, _ = request_of(GeneratorInfo.claude_subscription("m"))
    assert headers["authorization"] == "Bearer t"


def test_more_betas_join_the_one_that_a_subscription_needs(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "t")
    beta = ("anthropic-beta", "context-1m-2025-08-07")
    _, headers, _ = request_of(GeneratorInfo.claude_subscription("m").with_header(*beta))
    assert headers["anthropic-beta"] == "oauth-2025-04-20,context-1m-2025-08-07"
    _, headers, _ = request_of(GeneratorInfo.anthropic("m").with_api_key("k").with_header(*beta))
    assert headers["anthropic-beta"] == "context-1m-2025-08-07"


def test_a_subscription_pretends_to_be_nobody_else(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "t")
    _, headers, body = request_of(GeneratorInfo.claude_subscription("m"))
    assert headers["user-agent"].startswith("minillmlib/")
    assert "x-app" not in headers
    assert "claude code" not in str(body).lower()


def test_the_program_is_named_to_openrouter_only():
    app = {"app_url": "https://tides.example", "app_title": "Tides"}
    _, headers, _ = request_of(GeneratorInfo.openrouter("m").with_api_key("k").replace(**app))
    assert headers["http-referer"] == "https://tides.example"
    assert headers["x-openrouter-title"] == "Tides"
    _, headers, _ = request_of(GeneratorInfo.openai("m").with_api_key("k").replace(**app))
    assert not {"http-referer", "x-openrouter-title"} & headers.keys()
    for wrong in ("a\nb", "", 5, "caf\xe9"):
        with pytest.raises(InvalidParameterError, match="app_title"):
            GeneratorInfo.openrouter("m").replace(app_title=wrong)


def test_a_rejected_subscription_token_is_explained():
    body = {"type": "error", "error": {"type": "invalid_request_error", "message":
            "This credential is only authorized for use with Claude Code."}}  # fmt: skip
    transport = ScriptedTransport([ScriptedReply.json(body, status=400)])
    generator = GeneratorInfo.claude_subscription("m").with_bearer_token("t")
    with pytest.raises(AuthenticationError, match=r"GeneratorInfo\.anthropic"):
        minillmlib.run(ChatNode.root("s").chat("u", generator.with_transport(transport)))


FULL = CompletionParameters(
    max_tokens=9, temperature=0.5, top_p=0.9, frequency_penalty=0.1, presence_penalty=0.2,
    stop=["END"], seed=7,
)  # fmt: skip


def test_parameters_are_sent_under_each_wires_own_names():
    custom = GeneratorInfo.custom("c", "http://localhost:1/v1", "m")
    openai = {"temperature": 0.5, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2,
              "stop": ["END"], "seed": 7}  # fmt: skip
    for provider, limit in [(OpenAiProvider(), "max_completion_tokens"),
                            (OpenRouterProvider(), "max_tokens"),
                            (GenericProvider(), "max_tokens"),
                            (GenericProvider(legacy_token_limit=False), "max_completion_tokens"),
                            (GenericProvider(legacy_token_limit=True), "max_tokens")]:  # fmt: skip
        _, _, body = request_of(custom.with_provider(provider), FULL)
        del body["model"], body["messages"]
        assert body == openai | {limit: 9}
    more = CompletionParameters(top_k=3, repetition_penalty=1.1)
    assert request_of(custom, more)[2]["top_k"] == 3
    for_claude = CompletionParameters(max_tokens=9, temperature=0.5, top_p=0.9, top_k=3, stop=["X"])
    _, _, body = request_of(custom.with_provider(AnthropicProvider()), for_claude)
    assert body == {
        "model": "m", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 3,
        "stop_sequences": ["X"], "system": "s",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]}],
    }  # fmt: skip


def test_what_is_not_set_is_not_sent_except_the_limit_anthropic_demands():
    custom = GeneratorInfo.custom("c", "http://localhost:1/v1", "m")
    assert request_of(custom)[2].keys() == {"model", "messages"}
    body = request_of(custom.with_provider(AnthropicProvider()))[2]
    assert body.keys() == {"model", "messages", "system", "max_tokens"}
    assert body["max_tokens"] == 4096


@pytest.mark.parametrize(
    ("provider", "field"),
    [(OpenAiProvider(), "top_k"), (OpenAiProvider(), "repetition_penalty"),
     *((AnthropicProvider(), name) for name in (
         "seed", "frequency_penalty", "presence_penalty", "repetition_penalty"))],
)  # fmt: skip
def test_a_field_the_wire_cannot_carry_is_an_error_that_names_it(provider, field):
    generator = GeneratorInfo.custom("c", "http://localhost:1/v1", "m").with_provider(provider)
    with pytest.raises(InvalidParameterError, match=field):
        request_of(generator, CompletionParameters(**{field: 1}))


@pytest.mark.parametrize("provider", [OpenAiProvider(), AnthropicProvider(), GenericProvider()])
def test_extra_keys_are_sent_but_none_may_collide(provider):
    generator = GeneratorInfo.custom("c", "http://localhost:1/v1", "m").with_provider(provider)
    assert request_of(generator, CompletionParameters(extra={"top_a": 1}))[2]["top_a"] == 1
    clash = CompletionParameters(temperature=1, extra={"temperature": 0})
    with pytest.raises(InvalidParameterError, match="temperature"):
        request_of(generator, clash)
    with pytest.raises(InvalidParameterError, match="JSON"):
        request_of(generator, CompletionParameters(extra={"x": object()}))
    with pytest.raises(InvalidParameterError, match="stream"):
        request_of(generator, CompletionParameters(extra={"stream": True}))


def test_anthropic_gets_alternating_turns_without_empty_blocks():
    transport = ScriptedTransport([ScriptedReply.json(CLAUDE)])
    generator = GeneratorInfo.anthropic("m").with_api_key("k").with_transport(transport)
    leaf = ChatNode.root("s").add_user("a").add_user(" ").add_user("b").add_assistant("")
    minillmlib.run(leaf.chat("c", generator))
    body = msgspec.json.decode(transport.requests[0].body)
    texts = [{"type": "text", "text": text} for text in ("a\n\nb", "c")]
    assert body["messages"] == [{"role": "user", "content": texts}]


def test_a_parameter_that_cannot_be_sent_is_reported_before_a_missing_key():
    with pytest.raises(InvalidParameterError, match="seed"):
        call = ChatNode.root("s").chat(
            "u", GeneratorInfo.anthropic("m"), CompletionParameters(seed=1)
        )
        minillmlib.run(call)


def test_anthropic_refuses_a_message_without_visible_text_instead_of_dropping_it():
    generator = GeneratorInfo.anthropic("m").with_api_key("k")
    leaf = ChatNode.root("s").add_user("a").add_assistant("b")
    with pytest.raises(InvalidParameterError, match="visible"):
        minillmlib.run(leaf.chat(" ", generator))


def test_anthropic_gets_all_system_texts_joined_and_no_blank_one():
    history = [minillmlib.Message.system(text) for text in ("a", " ", "b")]
    _, leaf = ChatNode.from_messages([*history, minillmlib.Message.user("u")])
    transport = ScriptedTransport([ScriptedReply.json(CLAUDE)] * 2)
    generator = GeneratorInfo.anthropic("m").with_api_key("k").with_transport(transport)
    minillmlib.run(leaf.complete(generator))
    minillmlib.run(ChatNode.root(" ").chat("u", generator))
    joined, none = (msgspec.json.decode(request.body) for request in transport.requests)
    assert joined["system"] == "a\n\nb"
    assert "system" not in none


def test_anthropic_without_a_user_message_is_an_error_that_says_so():
    generator = GeneratorInfo.anthropic("m").with_api_key("k")
    with pytest.raises(InvalidParameterError, match="user message"):
        minillmlib.run(ChatNode.root("s").complete(generator))


@pytest.mark.parametrize(
    ("model", "key"),
    [("m", "max_tokens"), ("openai/gpt-oss-20b", "max_tokens"), ("gpt-4o", "max_tokens"),
     ("deepseek-chat", "max_tokens"), ("gpt-5-mini", "max_completion_tokens"),
     ("openai/gpt-5.1", "max_completion_tokens"), ("o4-mini", "max_completion_tokens"),
     ("azure/o3", "max_completion_tokens"), ("gpt-6-astra", "max_completion_tokens")],
)  # fmt: skip
def test_a_limit_goes_to_a_compatible_server_under_the_key_that_the_model_obeys(model, key):
    custom = GeneratorInfo.custom("c", "http://localhost:1/v1", model)
    limit = CompletionParameters(max_tokens=9)
    _, _, body = request_of(custom, limit)
    assert {name: body[name] for name in body if "tokens" in name} == {key: 9}
    for is_legacy, given in [(True, "max_tokens"), (False, "max_completion_tokens")]:
        provider = GenericProvider(legacy_token_limit=is_legacy)
        _, _, body = request_of(custom.with_provider(provider), limit)
        assert {name: body[name] for name in body if "tokens" in name} == {given: 9}
