"""Where a credential comes from, what is said if there is none, and that a wrong one stays hidden."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from minillmlib import (
    Auth,
    AuthenticationError,
    GeneratorInfo,
    InvalidParameterError,
    Secret,
    observe,
)
from minillmlib.auth import credentials
from minillmlib.auth.credentials import (
    AzureCredential,
    ClaudeSubscriptionToken,
    EnvironmentKey,
    FixedCredential,
    TokenCredential,
    set_stand_in,
    token_credential,
)

KEY = "sk-canary-0123456789"
BAD = f"{KEY}\u00e4"
OWN = GeneratorInfo.custom("own", "https://x.example/v1", "m")
KEYS = EnvironmentKey(("KEY_A", "KEY_B"))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in (*credentials.AZURE_VARIABLES, credentials.SUBSCRIPTION_VARIABLE, "OPENAI_BASE_URL",
                 "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION", "KEY_A", "KEY_B", "KEY_C"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def refusal(source) -> str:
    with pytest.raises(AuthenticationError) as caught:
        source.resolve()
    assert caught.value.status is None
    return str(caught.value)


def api_key(text: str) -> Auth:
    return Auth.api_key(Secret(text))


# --- variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"KEY_A": "a", "KEY_B": "b"}, "a"),
        ({"KEY_A": " ", "KEY_B": " b\n"}, "b"),
        ({"KEY_B": "b"}, "b"),
    ],
)
def test_the_first_variable_that_is_set_has_the_key(variables, key, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert KEYS.is_set
    assert KEYS.resolve() == api_key(key)
    assert KEYS.with_fallback(FixedCredential(api_key("f"))).resolve() == api_key(key)


def test_without_a_variable_the_fallback_is_taken_and_else_all_are_named():
    assert not KEYS.is_set
    more = KEYS.with_fallback(EnvironmentKey(("KEY_C",)))
    assert (more.variables, more.fallback) == (("KEY_A", "KEY_B", "KEY_C"), None)
    assert refusal(more) == (
        "no API key: set the environment variable KEY_A or KEY_B or KEY_C, or give the key with "
        "with_api_key(...); nothing was sent"
    )
    fixed = FixedCredential(api_key("f"))
    assert KEYS.with_fallback(fixed).resolve() == api_key("f")
    both = KEYS.with_fallback(EnvironmentKey(("KEY_C",), fixed))
    assert both == EnvironmentKey(("KEY_A", "KEY_B", "KEY_C"), fixed)
    assert (repr(KEYS), repr(both), repr(fixed)) == (
        "EnvironmentKey(KEY_A, KEY_B)", "EnvironmentKey(KEY_A, KEY_B, KEY_C)", "Auth(api_key)",
    )  # fmt: skip


def test_a_key_in_a_variable_that_no_header_can_carry_names_the_variable(monkeypatch):
    monkeypatch.setenv("KEY_B", BAD)
    with pytest.raises(InvalidParameterError) as caught:
        KEYS.resolve()
    assert str(caught.value) == (
        "the key in KEY_B has a character that no HTTP header can carry (position 21 of 21); "
        "check how it was copied or read"
    )


def test_a_token_of_azure_comes_before_a_key(monkeypatch):
    assert refusal(AzureCredential()) == (
        "no credential for Azure: set AZURE_OPENAI_API_KEY to a key of the resource or "
        "AZURE_OPENAI_AD_TOKEN to a token of Entra, or give the key with with_api_key(...); nothing "
        "was sent"
    )
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    assert AzureCredential().resolve() == api_key("k")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "t")
    assert AzureCredential().resolve() == Auth.bearer_token(Secret("t"))
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", BAD)
    with pytest.raises(InvalidParameterError, match="the secret in AZURE_OPENAI_AD_TOKEN has a"):
        AzureCredential().resolve()


def test_a_stand_in_takes_the_place_of_keys_that_are_missing_until_it_is_taken_away(monkeypatch):
    first, second = api_key("1"), api_key("2")
    before = set_stand_in(first)
    try:
        assert set_stand_in(second) is first
        assert KEYS.resolve() is second
        assert AzureCredential().resolve() is second
        monkeypatch.setenv("KEY_A", "a")
        assert KEYS.resolve() == api_key("a")
    finally:
        assert set_stand_in(before) is second


# --- the token of a plan --------------------------------------------------------------------------

ADVICE = "; log in with Claude Code, or use an API key with GeneratorInfo.anthropic(model)"


def plan_file(folder: Path, content: object) -> Path:
    path = folder / ".credentials.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def login(**fields: object) -> dict[str, object]:
    return {"claudeAiOauth": fields}


NO_TOKEN = {
    "{path} holds no claudeAiOauth, so nobody is logged in": [{}, [], "null", {"other": {}}],
    "the login in {path} has no accessToken": [login(), login(accessToken=5), {"claudeAiOauth": None}],
    "the token in {path} has expired; open Claude Code once to renew it": [
        login(accessToken=KEY, expiresAt=1), login(accessToken=BAD, expiresAt="999"),
    ],
    "the token in {path} is empty": [login(accessToken=" ", expiresAt=None)],
    "the token in {path} has a character that no HTTP header can carry (position 21 of 21); check how "
    "it was copied or read": [login(accessToken=BAD)],
    "{path} is not JSON, or only a part of it": ['{"claudeAiOauth": {"accessToken": "' + KEY, "[" * 9**5],
}  # fmt: skip


@pytest.mark.parametrize("reason", NO_TOKEN)
def test_the_error_says_why_a_plan_has_no_token(reason, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path))
    for content in NO_TOKEN[reason]:
        path = plan_file(tmp_path, content)
        assert refusal(ClaudeSubscriptionToken()) == (
            "no Claude subscription token: ANTHROPIC_AUTH_TOKEN is not set and "
            f"{reason.format(path=path)}{ADVICE}"
        )


def test_the_file_of_a_plan_is_looked_for_at_home_and_must_be_readable(tmp_path, monkeypatch):
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = tmp_path / ".claude" / ".credentials.json"
    start = "no Claude subscription token: ANTHROPIC_AUTH_TOKEN is not set and "
    assert refusal(ClaudeSubscriptionToken()) == (
        f"{start}{path} cannot be read (No such file or directory){ADVICE}"
    )
    path.parent.mkdir()
    plan_file(path.parent, json.dumps(login(accessToken=KEY)) + " " * 1_000_000)
    assert refusal(ClaudeSubscriptionToken()) == (
        f"{start}{path} cannot be read (it is larger than 1,000,000 bytes){ADVICE}"
    )
    plan_file(path.parent, login(accessToken=KEY, expiresAt=(time.time() - 9) * 1000))
    assert refusal(ClaudeSubscriptionToken()) == (
        f"{start}the token in {path} has expired; open Claude Code once to renew it{ADVICE}"
    )
    for expires_at in (None, 0, (time.time() + 9) * 1000, [], "never"):
        plan_file(path.parent, login(accessToken=KEY, expiresAt=expires_at))
        assert ClaudeSubscriptionToken().resolve() == Auth.bearer_token(Secret(KEY))
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "other")
    assert ClaudeSubscriptionToken().resolve() == Auth.bearer_token(Secret("other"))
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", BAD)
    with pytest.raises(InvalidParameterError, match="the token in ANTHROPIC_AUTH_TOKEN has a"):
        ClaudeSubscriptionToken().resolve()


def test_without_a_home_there_is_no_file_of_a_plan(monkeypatch):
    def fail() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert refusal(ClaudeSubscriptionToken()) == (
        "no Claude subscription token: ANTHROPIC_AUTH_TOKEN is not set and the home folder is "
        f"unknown{ADVICE}"
    )


# --- tokens of a function -------------------------------------------------------------------------


class Token(NamedTuple):
    token: object
    expires_on: object = 0


NEXT = "; call the function that was given to with_token_provider to see why; nothing was sent"


@pytest.mark.parametrize(
    ("token", "calls"),
    [
        ("t", 3), (Token("t"), 3), (Token("t", 1299.5), 3), (Token("t", 1300), 3), (Token("t", 1301), 1),
        (Token("t", 1301.5), 1), (Token("t", "9999"), 3), (Token("t", None), 3),
    ],
)  # fmt: skip
async def test_a_token_is_asked_for_again_five_minutes_before_its_end(token, calls, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    asked = []
    source = TokenCredential(lambda: asked.append(1) or token)
    assert refusal(source) == f"no token was asked for yet{NEXT}"
    for _ in range(3):
        await source.renew()
    assert (len(asked), source.resolve()) == (calls, Auth.bearer_token(Secret("t")))


async def test_a_token_that_was_refused_is_asked_for_again_and_another_is_not():
    numbers: Iterator[int] = iter(range(9))
    source = TokenCredential(lambda: Token(f"t{next(numbers)}", time.time() + 9999))
    await source.renew()
    await source.renew(Auth.bearer_token(Secret("an older one")))
    assert source.resolve() == Auth.bearer_token(Secret("t0"))
    await source.renew(Auth.bearer_token(Secret("t0")))
    assert source.resolve() == Auth.bearer_token(Secret("t1"))


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (None, "the token provider returned NoneType, not a token"),
        (Token(5), "the token provider returned int, not a token"),
        (KEY.encode(), "the token provider returned bytes, not a token"),
        (" ", "the token of the token provider is empty"),
        (BAD, "the token of the token provider has a character that no HTTP header can carry (position "
              "21 of 21); check how it was copied or read"),
    ],
)  # fmt: skip
async def test_what_is_no_token_is_told(token, problem):
    source = TokenCredential(lambda: token)
    with pytest.raises(AuthenticationError) as caught:
        await source.renew()
    assert str(caught.value) == problem + NEXT
    assert caught.value.__cause__ is None


async def test_an_error_of_the_function_is_the_cause():
    def fail() -> str:
        raise OSError(KEY)

    with pytest.raises(AuthenticationError) as caught:
        await TokenCredential(fail).renew()
    assert str(caught.value) == f"the token provider failed (OSError){NEXT}"
    assert isinstance(caught.value.__cause__, OSError)


def test_which_source_has_a_token_to_renew(monkeypatch):
    tokens = TokenCredential(str)
    chain = EnvironmentKey(("KEY_A",), EnvironmentKey(("KEY_B",), tokens))
    assert token_credential(tokens) is tokens
    assert token_credential(chain) is tokens
    assert token_credential(KEYS) is None
    assert token_credential(FixedCredential(Auth.none())) is None
    monkeypatch.setenv("KEY_B", "b")
    assert token_credential(chain) is None
    with pytest.raises(InvalidParameterError) as caught:
        tokens.__reduce__()
    assert str(caught.value) == (
        "a token provider cannot be pickled or copied, since it may hold a secret; "
        "call with_token_provider(...) in the other process"
    )


# --- what is wrong stays hidden -------------------------------------------------------------------

URL = f"https://user:{KEY}@x.example/v1"
WRONG = {
    "Secret": lambda: Secret(BAD),
    "with_api_key": lambda: OWN.with_api_key(BAD),
    "with_api_key_from_env": lambda: OWN.with_api_key_from_env(KEY),
    "with_bearer_token": lambda: OWN.with_bearer_token(BAD),
    "with_token_provider": lambda: OWN.with_token_provider(KEY),
    "with_header": lambda: OWN.with_header("x-key", BAD),
    "with_base_url": lambda: OWN.with_base_url(URL),
    "with_proxy": lambda: OWN.with_proxy(f"https://user:{KEY}"),
    "with_provider": lambda: OWN.with_provider(KEY),
    "with_token_price": lambda: OWN.with_token_price(KEY),
    "with_transport": lambda: OWN.with_transport(KEY),
    "with_observer": lambda: OWN.with_observer(KEY),
    "with_observer and content": lambda: OWN.with_observer(KEY, content=True),
    "observe": lambda: observe(KEY),
    "or_else": lambda: OWN.or_else(KEY),
    "or_else with another": lambda: OWN.or_else(OWN, KEY),
    "replace": lambda: OWN.replace(credential=KEY),
    "replace proxy": lambda: OWN.replace(proxy=f"https://user:{KEY}"),
    "replace fallbacks": lambda: OWN.replace(fallbacks=KEY),
    "replace observers": lambda: OWN.replace(observers=(KEY,)),
    "replace nothing": lambda: OWN.replace(api_key=KEY),
    "replace limits": lambda: OWN.replace(limits=KEY),
    "an address of the environment": lambda: GeneratorInfo.openai("m"),
    "an endpoint of the environment": lambda: GeneratorInfo.azure("m"),
    "an endpoint": lambda: GeneratorInfo.azure("m", URL),
    "a place": lambda: GeneratorInfo.preset("databricks", "m"),
    "a variable": KEYS.resolve,
}


def shown_by(error: BaseException | None) -> Iterator[str]:
    """What a tool shows of an error that prints the local variables of our functions."""
    while error is not None:
        yield f"{error} {error!r} {vars(error)}"
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename != __file__:
                values = trace.tb_frame.f_locals
                yield f"{trace.tb_frame.f_code.co_name}: {values}"
                for value in values.values():
                    if isinstance(value, msgspec.Struct):  # some tools print every field
                        yield f"{[getattr(value, name) for name in value.__struct_fields__]}"
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", WRONG)
def test_a_secret_in_the_wrong_place_is_in_no_local_variable_of_ours(name, monkeypatch):
    for variable, value in (("OPENAI_BASE_URL", URL), ("AZURE_OPENAI_ENDPOINT", URL), ("KEY_A", BAD),
                            ("DATABRICKS_HOST", f"{KEY}?")):  # fmt: skip
        monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidParameterError) as caught:
        WRONG[name]()
    shown = [text for text in shown_by(caught.value) if KEY in text]
    assert shown == []
    assert KEY in os.environ["KEY_A"]
