"""Each host of the presets table is reached at its address, with its key, in its dialect."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec
import pytest
from golden_expected import usage
from short_answers import ANSWER, CLAUDE

import minillmlib
from minillmlib import (
    AnthropicProvider,
    AuthenticationError,
    AzureProvider,
    AzureResponsesProvider,
    BadRequestError,
    ChatDialect,
    ChatNode,
    CompletionParameters,
    CompletionsProvider,
    FinishReason,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    Message,
    NodeCompletionParameters,
    OpenAiProvider,
    ReasoningConfig,
    ResponseFormat,
    ResponsesProvider,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    VideoPart,
)
from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.providers.anthropic import AnthropicHost
from minillmlib.providers.models.hosts import CONDITIONS, REFUSALS
from minillmlib.providers.presets import PRESETS, Preset
from minillmlib.providers.published_prices import NoPublishedPriceError, find_price
from minillmlib.testing import ScriptedReply, ScriptedTransport

KEY = "sk-canary-0123456789"
ROOT = ChatNode.root("s")
OLD, NEW = "max_tokens", "max_completion_tokens"

# By hand, from the vendors' documentation: the address of a request, the variables of the key, and
# the key of the limit on the answer.
HOSTS = {
    "alibaba": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1/chat/completions",
                "DASHSCOPE_API_KEY", OLD),
    "bedrock-openai": ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1/chat/completions",
                       "AWS_BEARER_TOKEN_BEDROCK", OLD),
    "bedrock-mantle": ("https://bedrock-mantle.eu-west-1.api.aws/v1/chat/completions",
                       "AWS_BEARER_TOKEN_BEDROCK", OLD),
    "cerebras": ("https://api.cerebras.ai/v1/chat/completions", "CEREBRAS_API_KEY", NEW),
    "cloudflare": ("https://api.cloudflare.com/client/v4/accounts/0a1b/ai/v1/chat/completions",
                   "CLOUDFLARE_API_TOKEN CLOUDFLARE_API_KEY", OLD),
    "cohere": ("https://api.cohere.com/compatibility/v1/chat/completions",
               "COHERE_API_KEY CO_API_KEY", OLD),
    "databricks": ("https://dbc-1.cloud.databricks.com/serving-endpoints/chat/completions",
                   "DATABRICKS_TOKEN", OLD),
    "deepinfra": ("https://api.deepinfra.com/v1/openai/chat/completions", "DEEPINFRA_API_KEY", OLD),
    "deepseek": ("https://api.deepseek.com/chat/completions", "DEEPSEEK_API_KEY", OLD),
    "fireworks": ("https://api.fireworks.ai/inference/v1/chat/completions",
                  "FIREWORKS_API_KEY", OLD),
    "gemini-openai": ("https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
                      "GEMINI_API_KEY", OLD),
    "groq": ("https://api.groq.com/openai/v1/chat/completions", "GROQ_API_KEY", NEW),
    "huggingface": ("https://router.huggingface.co/v1/chat/completions", "HF_TOKEN", OLD),
    "meta": ("https://api.meta.ai/v1/chat/completions", "META_API_KEY", OLD),
    "minimax": ("https://api.minimax.io/v1/chat/completions", "MINIMAX_API_KEY", NEW),
    "mistral": ("https://api.mistral.ai/v1/chat/completions", "MISTRAL_API_KEY", OLD),
    "moonshot": ("https://api.moonshot.ai/v1/chat/completions",
                 "MOONSHOT_API_KEY MOONSHOTAI_API_KEY", NEW),
    "nebius": ("https://api.studio.nebius.com/v1/chat/completions", "NEBIUS_API_KEY", OLD),
    "nvidia": ("https://integrate.api.nvidia.com/v1/chat/completions",
               "NVIDIA_API_KEY NVIDIA_NIM_API_KEY", OLD),
    "ollama-cloud": ("https://ollama.com/v1/chat/completions", "OLLAMA_API_KEY", OLD),
    "perplexity": ("https://api.perplexity.ai/chat/completions", "PERPLEXITY_API_KEY", OLD),
    "sambanova": ("https://api.sambanova.ai/v1/chat/completions", "SAMBANOVA_API_KEY", OLD),
    "together": ("https://api.together.xyz/v1/chat/completions", "TOGETHER_API_KEY", OLD),
    "vercel": ("https://ai-gateway.vercel.sh/v1/chat/completions",
               "AI_GATEWAY_API_KEY VERCEL_AI_GATEWAY_API_KEY VERCEL_OIDC_TOKEN", OLD),
    "xai": ("https://api.x.ai/v1/chat/completions", "XAI_API_KEY", NEW),
    "zai": ("https://api.z.ai/api/paas/v4/chat/completions", "ZAI_API_KEY", OLD),
    "litellm": ("http://127.0.0.1:4000/v1/chat/completions", "LITELLM_API_KEY", OLD),
    "llamacpp": ("http://127.0.0.1:8080/v1/chat/completions", "", OLD),
    "lmstudio": ("http://127.0.0.1:1234/v1/chat/completions", "", OLD),
    "ollama": ("http://127.0.0.1:11434/v1/chat/completions", "", OLD),
    "sglang": ("http://127.0.0.1:30000/v1/chat/completions", "", OLD),
    "tgi": ("http://127.0.0.1:8080/v1/chat/completions", "", OLD),
    "vllm": ("http://127.0.0.1:8000/v1/chat/completions", "VLLM_API_KEY", OLD),
}  # fmt: skip
X_API_KEY, BEARER = "x-api-key", "authorization"
SKINS = {
    "alibaba-anthropic": ("https://dashscope-intl.aliyuncs.com/apps/anthropic/v1/messages",
                          "DASHSCOPE_API_KEY", X_API_KEY),
    "bedrock-mantle-anthropic": ("https://bedrock-mantle.eu-west-1.api.aws/anthropic/v1/messages",
                                 "AWS_BEARER_TOKEN_BEDROCK ANTHROPIC_AWS_API_KEY", BEARER),
    "deepseek-anthropic": ("https://api.deepseek.com/anthropic/v1/messages",
                           "DEEPSEEK_API_KEY", X_API_KEY),
    "kimi-anthropic": ("https://api.moonshot.ai/anthropic/v1/messages",
                       "MOONSHOT_API_KEY MOONSHOTAI_API_KEY", BEARER),
    "minimax-anthropic": ("https://api.minimax.io/anthropic/v1/messages",
                          "MINIMAX_API_KEY", X_API_KEY),
    "openrouter-anthropic": ("https://openrouter.ai/api/v1/messages", "OPENROUTER_API_KEY", BEARER),
    "vercel-anthropic": ("https://ai-gateway.vercel.sh/v1/messages",
                         "AI_GATEWAY_API_KEY VERCEL_AI_GATEWAY_API_KEY", X_API_KEY),
    "zai-anthropic": ("https://api.z.ai/api/anthropic/v1/messages", "ZAI_API_KEY", X_API_KEY),
    "litellm-anthropic": ("http://127.0.0.1:4000/v1/messages", "LITELLM_API_KEY", X_API_KEY),
    "llamacpp-anthropic": ("http://127.0.0.1:8080/v1/messages", "", X_API_KEY),
    "vllm-anthropic": ("http://127.0.0.1:8000/v1/messages", "VLLM_API_KEY", X_API_KEY),
}  # fmt: skip
ELSEWHERE = {
    "openrouter",
    "openai",
    "openai-responses",
    "anthropic",
    "claude_subscription",
    "azure",
    "local",
}
PLACES = {"AWS_REGION": "eu-west-1", "CLOUDFLARE_ACCOUNT_ID": "0a1b",
          "DATABRICKS_HOST": "https://dbc-1.cloud.databricks.com/"}  # fmt: skip


@pytest.fixture(autouse=True)
def _places(monkeypatch):
    for variable, value in PLACES.items():
        monkeypatch.setenv(variable, value)


def sent(generator, params=None, leaf=None):
    """The address, the headers and the body of a call."""
    answer = CLAUDE if isinstance(generator.provider, AnthropicProvider) else ANSWER
    transport = ScriptedTransport([ScriptedReply.json(answer)])
    leaf = leaf or ROOT.add_user("u")
    minillmlib.run(leaf.complete(generator.with_transport(transport), params))
    (request,) = transport.requests
    headers = {name.lower(): value for name, value in request.expose_headers()}
    return request.url, headers, msgspec.json.decode(request.body)


class Template:
    def __call__(self, messages):
        return messages[-1].text

    def __repr__(self):
        return "<a template>"


def test_every_row_is_here():
    assert HOSTS.keys() | SKINS.keys() | ELSEWHERE == PRESETS.keys()


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_has_its_address_its_key_and_its_limit(name, monkeypatch):
    url, variables, limit = HOSTS[name]
    generator = GeneratorInfo.from_spec(f"{name}:some/model")
    for variable in variables.split():
        monkeypatch.setenv(variable, KEY)
        sent_to, headers, body = sent(generator, CompletionParameters(max_tokens=9))
        assert (sent_to, headers["authorization"]) == (url, f"Bearer {KEY}")
        monkeypatch.delenv(variable)
    if not variables or name in ("litellm", "vllm"):  # which may be open
        sent_to, headers, body = sent(generator, CompletionParameters(max_tokens=9))
        assert sent_to == url
        assert "authorization" not in headers
    else:
        with pytest.raises(AuthenticationError, match=" or ".join(variables.split())):
            sent(generator)
    assert {key: body[key] for key in body if "tokens" in key} == {limit: 9}
    assert body["model"] == "some/model"


@pytest.mark.parametrize("name", SKINS)
def test_a_skin_of_anthropics_wire_has_its_address_and_its_header(name, monkeypatch):
    url, variables, header = SKINS[name]
    generator = GeneratorInfo.from_spec(f"{name}:m")
    for variable in variables.split():
        monkeypatch.setenv(variable, KEY)
        sent_to, headers, body = sent(generator)
        assert sent_to == url
        assert headers[header] == (KEY if header == X_API_KEY else f"Bearer {KEY}")
        assert len({X_API_KEY, BEARER} & headers.keys()) == 1
        assert headers["anthropic-version"] == "2023-06-01"
        assert "anthropic-beta" not in headers
        assert body["max_tokens"] > 0
        monkeypatch.delenv(variable)
    token = sent(generator.with_bearer_token(KEY))[1]
    assert token[BEARER] == f"Bearer {KEY}"
    assert "anthropic-beta" not in token


ALSO = {
    "azure": "azure_openai azure-openai", "alibaba": "dashscope qwen",
    "fireworks": "fireworks_ai fireworks-ai", "huggingface": "hf", "mistral": "mistralai",
    "moonshot": "kimi moonshotai", "nvidia": "nvidia_nim", "together": "together_ai togetherai",
    "vercel": "vercel_ai_gateway", "xai": "grok", "zai": "z.ai glm",
    "kimi-anthropic": "moonshot-anthropic", "zai-anthropic": "glm-anthropic",
    "llamacpp": "llama.cpp llama_cpp", "lmstudio": "lm_studio lm-studio",
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_other_name_of_a_row_is_the_same_generator(name, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com")
    assert " ".join(PRESETS[name].also) == ALSO.get(name, "")
    for also in ALSO.get(name, "").split():
        assert also not in PRESETS
        assert GeneratorInfo.from_spec(f"{also}:m") == GeneratorInfo.preset(name, "m")


def test_no_two_rows_have_the_same_name():
    names = [*PRESETS, *(also for row in PRESETS.values() for also in row.also)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("gorq", "groq"), ("Mistral", "mistral"), ("deepseek-antropic", "deepseek-anthropic"),
     ("lm-studios", "lmstudio"), ("togetherAI", "together"), ("open_ai", "openai")],
)  # fmt: skip
def test_a_name_with_a_slip_gets_a_suggestion_and_no_list(typed, meant):
    for make in (
        lambda: GeneratorInfo.preset(typed, "m"),
        lambda: GeneratorInfo.from_spec(f"{typed}:m"),
    ):
        with pytest.raises(InvalidParameterError, match=f"did you mean {meant}\\?") as caught:
            make()
        assert len(str(caught.value)) < 200


def test_another_name_gets_the_list_in_lines_that_can_be_read():
    with pytest.raises(InvalidParameterError) as caught:
        GeneratorInfo.preset("zzz", "m")
    lines = str(caught.value).splitlines()
    assert max(map(len, lines)) <= 100
    assert set(PRESETS) <= set(re.split(r"[\s,]+", str(caught.value)))


# Addresses with a part that depends on the caller.


@pytest.mark.parametrize(
    ("name", "variables"),
    [("bedrock-mantle", "AWS_REGION or AWS_DEFAULT_REGION"),
     ("bedrock-mantle-anthropic", "AWS_REGION or AWS_DEFAULT_REGION"),
     ("cloudflare", "CLOUDFLARE_ACCOUNT_ID"), ("databricks", "DATABRICKS_HOST")],
)  # fmt: skip
def test_without_the_part_of_an_address_the_error_names_its_variable(name, variables, monkeypatch):
    first, *others = variables.split(" or ")
    for value in (None, " "):
        monkeypatch.delenv(first, raising=False)
        if value is not None:
            monkeypatch.setenv(first, value)
        with pytest.raises(InvalidParameterError, match=variables):
            GeneratorInfo.preset(name, "m")
    for variable in others:
        monkeypatch.setenv(variable, "us-east-1")
        assert "us-east-1" in GeneratorInfo.preset(name, "m").base_url


@pytest.mark.parametrize(
    "value", ["evil.example/x", "a@evil.example", "eu?", "http://h", "a b", "x#", "..%2f", "ü"]
)
def test_a_part_cannot_lead_to_another_host(value, monkeypatch):
    for variable, name in (("AWS_REGION", "bedrock-openai"), ("CLOUDFLARE_ACCOUNT_ID", "cloudflare"),
                           ("DATABRICKS_HOST", "databricks")):  # fmt: skip
        monkeypatch.setenv(variable, value)
        with pytest.raises(InvalidParameterError, match=variable) as caught:
            GeneratorInfo.preset(name, "m")
        assert value not in str(caught.value)


# Facts of dialect.

TOOLS = [ToolDefinition(name="f")]
SCHEMA = ResponseFormat.json_schema({"type": "object", "properties": {}})


def effort(word):
    return {"reasoning": ReasoningConfig(effort=word)}


# Parameters for which a condition holds; those of no other one.
CASES = {
    "a schema": {"response_format": SCHEMA},
    "a schema and tools": {"response_format": SCHEMA, "tools": TOOLS},
    "any JSON": {"response_format": ResponseFormat.json()},
    "tools": {"tools": TOOLS},
    "tools and logprobs": {"tools": TOOLS, "logprobs": 1},
    "a forced call": {"tools": TOOLS, "tool_choice": "required"},
    "a required call": {"tools": TOOLS, "tool_choice": "required"},
    "no effort": effort("none"),
    "a penalty": {"presence_penalty": 0.5},
    "a frequency_penalty": {"frequency_penalty": 0.5},
    "a seed": {"seed": 1},
    "a stop": {"stop": ["x"]},
    "logprobs": {"logprobs": 1},
    "a temperature of its own": {"temperature": 0.5},
    "a temperature above 1": {"temperature": 1.5},
    "a temperature of 0": {"temperature": 0},
    "a top_p of 1": {"top_p": 1},
}
PLAIN = {"temperature": 1, "top_p": 0.5, "max_tokens": 2000}
# Where only some models refuse something: one that does, and one that does not.
MODELS = {
    "xai": ("grok-4.6", "grok-3"), "together": ("deepseek-ai/DeepSeek-V4", "meta/llama"),
    "cerebras": ("gpt-oss-120b", "qwen-3.8"), "moonshot": ("kimi-k3-thinking", "moonshot-v1"),
    "zai": ("glm-5.3", "glm-4.7"), "zai-anthropic": ("glm-5.3", "glm-4.7"),
}  # fmt: skip
ROWS = [(host, row) for host, rows in REFUSALS.items() for row in rows]


def test_every_condition_and_every_host_with_refusals_is_used():
    assert CASES.keys() == CONDITIONS.keys() == {row.condition for _, row in ROWS}
    assert REFUSALS.keys() <= HOSTS.keys() | SKINS.keys()


# Beside the cases above: their other sides.
SIDES = CASES | {
    "a schema beside tools": {"response_format": SCHEMA, "tools": TOOLS},
    "this call": {"tools": TOOLS, "tool_choice": ToolChoice.tool("f")},
    "any call": {"tools": TOOLS, "tool_choice": "auto"},
    "no call": {"tools": TOOLS, "tool_choice": "none"},
    "JSON and tools": {"response_format": ResponseFormat.json(), "tools": TOOLS},
    "some effort": effort("low"), "a budget": {"reasoning": ReasoningConfig(max_tokens=2000)},
    "no penalty": {"frequency_penalty": 0, "presence_penalty": 0},
    "a negative penalty": {"presence_penalty": -0.5}, "seed 0": {"seed": 0},
    "logprobs 0": {"logprobs": 0}, "tools and logprobs 0": {"tools": TOOLS, "logprobs": 0},
    "no stop": {"stop": []}, "no tools": {"tools": []}, "nothing": {},
    "a temperature of 1": {"temperature": 1}, "a temperature below 1": {"temperature": 0.99},
    "a top_p below 1": {"top_p": 0.99},
}  # fmt: skip
A_SCHEMA = ("a schema", "a schema and tools", "a schema beside tools")
BOTH = A_SCHEMA[1:]
ANY_TOOLS = (*BOTH, "tools", "tools and logprobs", "a forced call", "a required call", "this call",
             "any call", "no call", "JSON and tools", "tools and logprobs 0")  # fmt: skip
FORCED = ("a forced call", "a required call", "this call")
REQUIRED = ("a forced call", "a required call")
PENALTIES = ("a penalty", "a frequency_penalty", "a negative penalty")
SEEDS = ("a seed", "seed 0")
SOME_LOGPROBS = ("tools and logprobs", "logprobs", "logprobs 0", "tools and logprobs 0")
OTHER_TEMPERATURES = (
    "a temperature of its own", "a temperature above 1", "a temperature of 0",
    "a temperature below 1",
)  # fmt: skip
LOW = "use the effort low"
# By host, for all models (*) or for some: the reason, and in which of these cases it is told.
KNOWN = [
    ("groq", "*", A_SCHEMA, "Groq takes a schema for some of its models only, and with neither "
     "tools nor a stream; ResponseFormat.json() and the schema in the prompt work"),
    ("deepseek", "*", A_SCHEMA,
     "DeepSeek has no schemas; use ResponseFormat.json() and state the schema in the prompt"),
    ("deepseek", "*", FORCED, "DeepSeek forces no tool call while it thinks, which it does by "
     "default; extra={'thinking': {'type': 'disabled'}} stops that"),
    ("xai", "grok-4 grok-4.1 Grok-4.5 grok-4.9", ("a stop",), "grok-4 takes no stop; leave it out"),
    ("xai", "grok-4 grok-4.1 Grok-4.5 grok-4.9", ("a frequency_penalty", "no penalty"),
     "grok-4 takes no frequency_penalty; leave it out"),
    ("xai", "Grok-4.5 grok-4.9 grok-5 grok-9", ("no effort",),
     "from grok-4.5 on the effort none is refused; use low"),
    ("together", "deepseek-ai/DeepSeek-V4", FORCED,
     "DeepSeek V4 forces no tool call; use tool_choice='auto'"),
    ("fireworks", "*", BOTH,
     "Fireworks takes a schema and tools not together; leave one of them out"),
    ("cerebras", "gpt-oss-120b kimi-k3 zai-glm-5.3", ("no effort",),
     f"this model always thinks; {LOW}"),
    ("perplexity", "*", ANY_TOOLS, "Perplexity calls no tools; leave them out"),
    ("moonshot", "*", REQUIRED,
     "Kimi has no tool_choice 'required'; use 'auto', and ask for the call in the prompt"),
    ("moonshot", "kimi-k3 kimi-k3-thinking", ("no effort",), f"Kimi K3 always thinks; {LOW}"),
    ("moonshot", "kimi-k2.5 kimi-k2.9 kimi-k3 kimi-k9 kimi-k2-thinking kimi-k3-thinking",
     OTHER_TEMPERATURES,
     "the models of Kimi that think take a temperature of 1 only; leave it out"),
    ("moonshot", "*", ("a temperature above 1",),
     "Kimi's temperature is at most 1"),
    ("zai", "*", A_SCHEMA, "most models of Z.ai have no schemas; use "
     "ResponseFormat.json() and state the schema in the prompt"),
    ("zai", "*", SEEDS, "Z.ai takes no seed; leave it out"),
    ("zai", "*", PENALTIES, "Z.ai takes no penalties; leave them out"),
    ("zai", "*", SOME_LOGPROBS, "Z.ai takes no logprobs; leave it out"),
    ("zai", "glm-5.3 GLM-5.3-air", ("no effort",), f"GLM-5.3 always thinks; {LOW}"),
    ("zai-anthropic", "glm-5.3 GLM-5.3-air", ("no effort",), f"GLM-5.3 always thinks; {LOW}"),
    ("minimax", "*", ("a temperature of 0",),
     "MiniMax's temperature is above 0; 0.01 is close to it"),
    ("minimax-anthropic", "*", ("a temperature of 0",),
     "MiniMax's temperature is above 0; 0.01 is close to it"),
    ("minimax-anthropic", "*", ("a temperature above 1",), "MiniMax's temperature is at most 1"),
    ("sambanova", "*", PENALTIES, "SambaNova takes no penalties; leave them out"),
    ("sambanova", "*", SEEDS, "SambaNova takes no seed; leave it out"),
    ("lmstudio", "*", ("any JSON", "JSON and tools"),
     "LM Studio has no JSON without a schema; give one"),
    ("llamacpp", "*", ("tools and logprobs", "tools and logprobs 0"),
     "llama.cpp streams no logprobs beside tools; leave one of them out"),
    ("tgi", "*", ("a top_p of 1",), "TGI's top_p is below 1; leave it out"),
]  # fmt: skip
# Models that no pattern of their host is of.
OTHERS = {
    "xai": "grok-3 grok-3.5 m", "together": "deepseek-ai/DeepSeek-V3 m",
    "cerebras": "kimi-k2 glm-5.2 gpt-os m", "zai": "glm-5.2 m", "zai-anthropic": "glm-5.2 m",
    "moonshot": "kimi-k2.4 kimi-latest m",
}  # fmt: skip


def asked_models():
    models = {host: set(OTHERS.get(host, "m").split()) for host, *_ in KNOWN}
    for host, names, *_ in KNOWN:
        models[host] |= set(names.replace("*", "").split())
    return [(host, model) for host, names in models.items() for model in sorted(names)]


@pytest.mark.parametrize(("name", "model"), asked_models())
def test_of_each_host_these_refusals_are_known_and_no_others(name, model):
    explain = PRESETS[name].provider.capabilities.explain_refusal
    for case, fields in SIDES.items():
        known = [
            reason
            for host, models, cases, reason in KNOWN
            if host == name and (models == "*" or model in models.split()) and case in cases
        ]
        told = explain(model, CompletionParameters(**fields))
        assert told == ("; ".join(known) or None), case


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_other_hosts_explain_nothing(name):
    if name in {host for host, *_ in KNOWN} | {"openai", "openai-responses", "azure"}:
        return
    explain = PRESETS[name].provider.capabilities.explain_refusal
    for fields in SIDES.values():
        assert explain("some-model", CompletionParameters(**fields)) is None


def refused(name, model, parameters, status=400):
    """The message of the error when a host refuses a request."""
    body = {"error": {"message": "No.", "type": "invalid_request_error"}}
    transport = ScriptedTransport([ScriptedReply.json(body, status=status)])
    generator = GeneratorInfo.preset(name, model).with_api_key(KEY).with_transport(transport)
    with pytest.raises(BadRequestError) as caught:
        minillmlib.run(ROOT.chat("u", generator, CompletionParameters(**parameters)))
    assert len(transport.requests) == 1, "it is sent all the same"
    return str(caught.value)


@pytest.mark.parametrize(
    ("host", "row"), ROWS, ids=lambda value: str(getattr(value, "condition", value))
)
def test_a_known_reason_is_added_to_the_hosts_own_words_and_only_then(host, row):
    thinking, other = MODELS.get(host, ("some-model", "some-model"))
    case = CASES[row.condition]
    for status in (400, 422):
        assert row.reason in refused(host, thinking, case, status)
    assert "No." in refused(host, thinking, case)
    assert row.reason not in refused(host, thinking, PLAIN)
    if row.models:
        assert row.reason not in refused(host, other, case)


def test_a_host_without_known_refusals_says_what_it_says():
    for case in CASES.values():
        assert refused("nebius", "some-model", case).endswith("with status 400: No.")


@pytest.mark.parametrize("name", ["deepseek", "zai"])
def test_where_no_schema_is_taken_the_prompt_states_it(name):
    transport = ScriptedTransport([
        ScriptedReply.json({"choices": [{"message": {"content": '{"a":1}'}, "finish_reason": "stop"}]})
    ])  # fmt: skip
    generator = GeneratorInfo.preset(name, "m").with_api_key(KEY).with_transport(transport)
    settings = NodeCompletionParameters().expecting(dict[str, int])
    node = minillmlib.run(ROOT.chat("u", generator, settings))
    body = msgspec.json.decode(transport.requests[0].body)
    assert "response_format" not in body
    assert "JSON schema" in body["messages"][-1]["content"]
    assert "takes no schema" in node.response.request_report.omitted["the schema of the answer"]


def test_mistral_gets_no_key_that_it_refuses():
    generator = GeneratorInfo.preset("mistral", "m").with_api_key(KEY)
    body = sent(generator, CompletionParameters(seed=3, max_tokens=9))[2]
    assert (body["random_seed"], body["max_tokens"]) == (3, 9)
    assert "seed" not in body
    events = b'data: {"choices":[{"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n'
    transport = ScriptedTransport([ScriptedReply.events(events)])
    minillmlib.run(ROOT.chat_streaming("u", generator.with_transport(transport)).collect())
    assert set(msgspec.json.decode(transport.requests[0].body)) == {"model", "messages", "stream"}


@pytest.mark.parametrize(
    ("call_id", "is_kept"),
    [("Ab3dE6gH9", True), ("call_1", False), ("abcdefgh", False), ("abcdefghij", False),
     ("call_1234", False), ("äbcdefghi", False), ("toolu_01Hn5bQxRk2mYtW8vLcPz4Ds", False)],
)  # fmt: skip
def test_mistral_gets_ids_of_nine_letters_and_digits(call_id, is_kept):
    call = ToolCall(id=call_id, name="f", arguments="{}")
    _, leaf = ChatNode.from_messages([
        Message.user("u"), Message.assistant("", tool_calls=(call,)), Message.tool_result(call_id, "r"),
    ])  # fmt: skip
    body = sent(GeneratorInfo.preset("mistral", "m").with_api_key(KEY), leaf=leaf)[2]
    given = body["messages"][1]["tool_calls"][0]["id"]
    assert body["messages"][2]["tool_call_id"] == given
    assert re.fullmatch(r"[A-Za-z0-9]{9}", given)
    assert (given == call_id) is is_kept


MARKS = {"mistral": {"prefix": True}, "deepseek": {"prefix": True}, "moonshot": {"partial": True},
         "alibaba": {"partial": True}, "groq": {}}  # fmt: skip
CONTINUES = {"continue_final_message": True, "add_generation_prompt": False}  # vLLM's, SGLang's


@pytest.mark.parametrize("name", HOSTS)
def test_a_forced_beginning_has_the_key_of_its_host_and_no_other(name):
    generator = GeneratorInfo.preset(name, "some-model").with_api_key(KEY)
    body = sent(generator, NodeCompletionParameters(force_prepend="So"))[2]
    assert body == {
        "model": "some-model",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "So", **MARKS.get(name, {})},
        ],
        **({} if name in MARKS else CONTINUES),
    }
    mark = generator.provider.capabilities.mark_prefill
    user, assistant = {"role": "user"}, {"role": "assistant"}
    for messages in ([user], [assistant, user], [], [1], None):
        assert mark("some-model", {"messages": messages, "k": 1}) == {"messages": messages, "k": 1}
    assert mark("some-model", {"k": 1}) == {"k": 1}
    one = mark("some-model", {"messages": [assistant], "k": 1})
    assert one["messages"] == [assistant | MARKS.get(name, {})]
    assert one["k"] == 1


@pytest.mark.parametrize("name", [*HOSTS, *SKINS])
def test_a_host_is_known_by_its_address_and_says_whether_it_takes_schemas(name):
    provider = PRESETS[name].provider
    abilities = provider.capabilities
    assert abilities.is_generic
    assert abilities.messages_key == "messages"
    assert abilities.app_url_header is abilities.app_title_header is provider.batches is None
    told = abilities.why_no_schema("some-model", SCHEMA)
    if name in SKINS:
        assert told == "it is not known whether some-model is held to a schema on this wire"
    else:
        is_without = name in ("deepseek", "zai")
        assert told == ("the host of some-model takes no schema" if is_without else None)
    assert PRESETS[name].provider_for("gpt-5.6") is provider


@pytest.mark.parametrize(
    ("model", "is_response"),
    [("gpt-4o", False), ("gpt-5", False), ("gpt-5.5", False), ("gpt-5.6", True),
     ("gpt-5.6-sol", True), ("gpt-6-astra", True), ("gpt-5.6-chat-latest", False), ("o3", False),
     ("openai/gpt-6", False)],
)  # fmt: skip
def test_openai_is_asked_on_the_wire_that_its_model_needs(model, is_response, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    kind = ResponsesProvider if is_response else OpenAiProvider
    assert type(GeneratorInfo.openai(model).provider) is kind
    assert type(PRESETS["azure"].provider_for(model)) is AzureProvider
    assert type(PRESETS["openai-responses"].provider_for(model)) is ResponsesProvider


def test_the_variable_of_anthropics_own_package_leads_to_another_mantle(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_BEDROCK_MANTLE_BASE_URL", "https://gateway.example/mantle")
    generator = GeneratorInfo.preset("bedrock-mantle-anthropic", "m").with_api_key(KEY)
    url, headers, body = sent(generator)
    assert url == "https://gateway.example/mantle/v1/messages"
    assert headers[BEARER] == f"Bearer {KEY}"
    assert body["model"] == "m"
    for name in ("anthropic", "bedrock-mantle"):
        assert "gateway" not in GeneratorInfo.preset(name, "m").base_url


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (AnthropicHost, "AnthropicHost()"),
        (lambda: AnthropicHost(is_bearer=True), "AnthropicHost(is_bearer=True)"),
        (AnthropicProvider, "AnthropicProvider()"),
        (GenericProvider, "GenericProvider(legacy_token_limit=None)"),
        (lambda: GenericProvider(legacy_token_limit=True, marks_prefill=False),
         "GenericProvider(legacy_token_limit=True, marks_prefill=False)"),
        (lambda: GenericProvider(dialect=ChatDialect()), "GenericProvider(legacy_token_limit=True)"),
        (lambda: GenericProvider(dialect=ChatDialect(fields={"seed": "seed"})),
         "GenericProvider(legacy_token_limit=True)"),
        (lambda: GenericProvider(dialect=ChatDialect(fields={"max_tokens": NEW})),
         "GenericProvider(legacy_token_limit=False)"),
        (CompletionsProvider, "CompletionsProvider()"),
        (lambda: CompletionsProvider(sent), "CompletionsProvider(sent)"),
        (lambda: CompletionsProvider(Template()), "CompletionsProvider(<a template>)"),
        (lambda: AzureResponsesProvider("preview"), "AzureResponsesProvider(api_version='preview')"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_text_form_of_a_provider_is_how_it_is_made(make, shown):
    assert repr(make()) == shown


def test_a_refusal_before_sending_names_the_wire():
    film = Message.user((VideoPart.from_url("https://a.example/f.mp4"),))
    _, leaf = ChatNode.from_messages([film])
    for name, wire in (("mistral", "Mistral"), ("groq", "the OpenAI-compatible wire"),
                       ("nebius", "the OpenAI-compatible wire"), ("openai", "OpenAI")):  # fmt: skip
        generator = GeneratorInfo.preset(name, "m").with_api_key(KEY)
        with pytest.raises(InvalidParameterError, match=rf"\b{wire} "):
            sent(generator, leaf=leaf)


@pytest.mark.parametrize(
    ("name", "chars"), [("openrouter", 64), ("openai", 40), ("nebius", 40), ("groq", 40)]
)
def test_an_id_of_a_call_is_kept_up_to_its_greatest_length(name, chars):
    for length in (chars, chars + 1):
        call = ToolCall(id="c" * length, name="f", arguments="{}")
        _, leaf = ChatNode.from_messages([
            Message.user("u"), Message.assistant("", tool_calls=(call,)),
            Message.tool_result(call.id, "r"),
        ])  # fmt: skip
        body = sent(GeneratorInfo.preset(name, "m").with_api_key(KEY), leaf=leaf)[2]
        given = body["messages"][1]["tool_calls"][0]["id"]
        assert (given == call.id) is (length == chars)
        assert len(given) <= chars
        assert body["messages"][2]["tool_call_id"] == given


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_sent_what_any_compatible_server_is_but_for_its_facts(name):
    host = GeneratorInfo.preset(name, "some-model").with_api_key(KEY)
    plain = GeneratorInfo.custom("c", "https://c.example/v1", "some-model")
    facts = {OLD: HOSTS[name][2], "seed": "random_seed" if name == "mistral" else "seed"}
    for case in [*CASES.values(), PLAIN, {"top_k": 3}, effort("low"), {"extra": {"k": 1}}]:
        expected = sent(plain, CompletionParameters(**case))[2]
        expected = {facts.get(key, key): value for key, value in expected.items()}
        assert sent(host, CompletionParameters(**case))[2] == expected


# Reasoning belongs to the host that made it.

THINKING = {
    "model": "m", "stop_reason": "end_turn",
    "content": [{"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="},
                {"type": "text", "text": "ok"}],
}  # fmt: skip


def test_sealed_thoughts_go_back_to_their_host_and_to_no_other():
    def at(name, *replies):
        transport = ScriptedTransport([ScriptedReply.json(reply) for reply in replies])
        return GeneratorInfo.preset(name, "glm-5.2").with_api_key(KEY).with_transport(transport)

    zai = at("zai-anthropic", THINKING, CLAUDE)
    node = minillmlib.run(ROOT.chat("u", zai)).add_user("more")
    for other in ("deepseek-anthropic", "kimi-anthropic", "anthropic"):
        generator = at(other, CLAUDE)
        answer = minillmlib.run(node.complete(generator))
        assert b"c2VhbA" not in generator.transport.requests[0].body
        assert "reasoning of earlier turns" in answer.response.request_report.omitted
    minillmlib.run(node.complete(zai))
    assert b"c2VhbA" in zai.transport.requests[1].body


# A server that writes two answers, though nobody asked for them: the events of llama.cpp with n=2.


def event(index=None, delta=None, finish=None, usage=None):
    choice = {"finish_reason": finish, "index": index, "delta": delta or {}}
    body = {"id": "1", "model": "m", "choices": [] if index is None else [choice]}
    return b"data: %b\n\n" % msgspec.json.encode(body | ({"usage": usage} if usage else {}))


TWO = [
    event(1, {"role": "assistant", "content": None}), event(1, {"content": "tea"}),
    event(0, {"role": "assistant", "content": None}), event(0, {"content": "cof"}),
    event(1, finish="length"), event(0, {"content": "fee"}), event(0, finish="length"),
    event(usage={"completion_tokens": 2, "prompt_tokens": 18, "total_tokens": 20,
                 "prompt_tokens_details": {"cached_tokens": 17}}),
    b"data: [DONE]\n\n",
]  # fmt: skip


async def test_of_two_answers_nothing_is_lost_and_no_cut_makes_them_whole():
    for cut in range(len(TWO) + 1):
        generator = GeneratorInfo.preset("llamacpp", "m").with_transport(
            ScriptedTransport([ScriptedReply.events(*TWO[:cut])])
        )
        stream = ROOT.chat_streaming("u", generator)
        try:
            response = (await stream.collect()).response
        except minillmlib.MiniLLMError as error:
            assert "teacoffee".startswith(error.partial)
            continue
        assert response.finish_reason is FinishReason.LENGTH
        assert "teacoffee".startswith(response.content)
    assert response.content == "teacoffee"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (18, 2)


# Prices.

VENDORS = {
    "cerebras": "cerebras", "cloudflare": "cloudflare", "cohere": "cohere",
    "databricks": "databricks", "deepseek": "deepseek", "fireworks": "fireworks",
    "groq": "groq", "meta": "meta", "minimax": "minimax", "mistral": "mistral",
    "moonshot": "moonshotai", "perplexity": "perplexity", "together": "together", "xai": "x-ai",
    "zai": "zai", "gemini-openai": "google", "bedrock-openai": "aws",
    "deepseek-anthropic": "deepseek", "kimi-anthropic": "moonshotai",
    "minimax-anthropic": "minimax", "zai-anthropic": "zai", "openrouter-anthropic": "openrouter",
}  # fmt: skip


@pytest.mark.parametrize("name", [*HOSTS, *SKINS])
def test_the_table_of_prices_knows_a_host_by_its_address(name):
    generator = GeneratorInfo.preset(name, "no-such-model")
    with pytest.raises(NoPublishedPriceError) as caught:
        find_price(generator.base_url, generator.model)
    known = f"does not know this model of {VENDORS.get(name)}"
    assert (known if name in VENDORS else "knows no vendor") in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "cost"),  # of a million tokens in and one out, as the vendors listed them
    [("groq:llama-3.3-70b-versatile", "0.59"), ("mistral:mistral-small-latest", None),
     ("moonshot:kimi-k2.5", None)],
)  # fmt: skip
def test_a_price_of_a_host_is_the_tables(spec, cost):
    price = GeneratorInfo.from_spec(spec).with_published_price().token_price
    assert "genai-prices" in price.source
    if cost is not None:
        assert price.cost_of(usage(1_000_000, 0, 0, 0)) == Decimal(cost)


@pytest.mark.parametrize(
    "url",
    ["https://api.moonshot.evil/v1", "https://api.moonshot.cn/v1", "https://api.moonshot.ai.x/v1"],
)
def test_an_address_that_only_begins_like_moonshots_has_no_price(url):
    with pytest.raises(NoPublishedPriceError, match="no vendor"):
        find_price(url, "kimi-k2.5")


def test_the_name_of_a_deployment_is_no_model():
    with pytest.raises(NoPublishedPriceError, match="deployment"):
        find_price("https://r.openai.azure.com/openai/v1", "gpt-4o")


def test_a_row_is_plain_data():
    for row in PRESETS.values():
        assert type(row) is Preset
        assert row == msgspec.structs.replace(row)
        with pytest.raises(AttributeError, match="immutable"):
            row.base_url = "https://x.example"
        for variable in row.credential.variables if type(row.credential) is EnvironmentKey else ():
            assert variable.isupper()
