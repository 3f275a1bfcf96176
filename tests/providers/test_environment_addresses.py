"""The address of a generator by the variables of the environment, or the whole text of the error."""

from __future__ import annotations

import os

import pytest

from minillmlib import GeneratorInfo, InvalidParameterError

LIKE = "must look like https://host/path or http://host:port/path, not"
RESOURCE = (
    "the environment variable AZURE_OPENAI_ENDPOINT must be the address of your resource, like "
    "https://NAME.openai.azure.com: "
)
REGION = "the environment variable AWS_REGION does not hold a part of an address"
FOUND = {  # the preset, the variables, and the address
    ("openai", ()): "https://api.openai.com/v1",
    ("openai", (("OPENAI_BASE_URL", " https://own.example/v1 \n"),)): "https://own.example/v1",
    ("openai-responses", (("OPENAI_BASE_URL", "https://own.example"),)): "https://own.example",
    ("openai", (("OPENAI_BASE_URL", " "),)): "https://api.openai.com/v1",
    ("groq", (("OPENAI_BASE_URL", "https://own.example"),)): "https://api.groq.com/openai/v1",
    ("anthropic", (("ANTHROPIC_BASE_URL", "https://own.example"),)): "https://own.example",
    ("openrouter", (("OPENROUTER_BASE_URL", "https://own.example"),)): "https://own.example",
    ("bedrock-openai", (("AWS_REGION", "eu-1"), ("AWS_DEFAULT_REGION", "us-2"))):
        "https://bedrock-runtime.eu-1.amazonaws.com/openai/v1",
    ("bedrock-openai", (("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "us-2"))):
        "https://bedrock-runtime.us-2.amazonaws.com/openai/v1",
    ("databricks", (("DATABRICKS_HOST", "https://a.b-c.example:8443/"),)):
        "https://a.b-c.example:8443/serving-endpoints",
    ("databricks", (("DATABRICKS_HOST", "a_b.example"),)): "https://a_b.example/serving-endpoints",
    ("cloudflare", (("CLOUDFLARE_ACCOUNT_ID", "0aB"),)):
        "https://api.cloudflare.com/client/v4/accounts/0aB/ai/v1",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example/"),)): "https://a.example/openai/v1",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example"), ("OPENAI_API_VERSION", "2024-10-21"))):
        "https://a.example/openai",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example/openai/v1"),
               ("OPENAI_API_VERSION", "2024-10-21"))): "https://a.example/openai/v1",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example"), ("OPENAI_API_VERSION", " "))):
        "https://a.example/openai/v1",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example"), ("OPENAI_API_VERSION", "preview"))):
        "https://a.example/openai/v1",
}  # fmt: skip
REFUSED = {
    ("openai", (("OPENAI_BASE_URL", "own.example"),)):
        f"the environment variable OPENAI_BASE_URL: the base_url {LIKE} 'own.example'",
    ("openai", (("OPENAI_BASE_URL", "https://user:password@own.example"),)):
        "the environment variable OPENAI_BASE_URL: the base_url must not hold a user name or "
        "password; use with_api_key",
    ("anthropic", (("ANTHROPIC_BASE_URL", "https://own.example?a=b"),)):
        "the environment variable ANTHROPIC_BASE_URL: the base_url must not hold a query or fragment",
    ("bedrock-openai", ()):
        "the address has a part that depends on you: set the environment variable "
        "AWS_REGION or AWS_DEFAULT_REGION",
    ("databricks", (("DATABRICKS_HOST", "a/b"),)):
        "the environment variable DATABRICKS_HOST does not hold a part of an address",
    **dict.fromkeys(
        (("databricks", ()), ("databricks", (("DATABRICKS_HOST", "https:///"),))),
        "the address has a part that depends on you: set the environment variable DATABRICKS_HOST",
    ),
    ("bedrock-openai", (("AWS_REGION", "eu 1"), ("AWS_DEFAULT_REGION", "us-2"))): REGION,
    ("bedrock-openai", (("AWS_REGION", "eu-1:"),)): REGION,
    ("bedrock-openai", (("AWS_REGION", "\u00e4"),)): REGION,
    ("azure", ()): f"{RESOURCE}it is not set",
    ("azure", (("AZURE_OPENAI_ENDPOINT", " "),)): f"{RESOURCE}it is not set",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "a.example"),)):
        f"{RESOURCE}the base_url {LIKE} 'a.example'",
    ("azure", (("AZURE_OPENAI_ENDPOINT", "https://a.example/openai/deployments/d"),)):
        f"{RESOURCE}the deployment and the api_version do not belong in it",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    names = {name for _, variables in (*FOUND, *REFUSED) for name, _ in variables}
    for name in names & {*os.environ}:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("case", FOUND)
def test_the_environment_says_where_a_preset_leads(case, monkeypatch):
    preset, variables = case
    for name, value in variables:
        monkeypatch.setenv(name, value)
    assert GeneratorInfo.preset(preset, "m").base_url == FOUND[case]


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_variable_is_named(case, monkeypatch):
    preset, variables = case
    for name, value in variables:
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidParameterError) as caught:
        GeneratorInfo.preset(preset, "m")
    assert str(caught.value) == REFUSED[case]
