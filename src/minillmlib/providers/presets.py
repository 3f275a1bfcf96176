"""The services that can be chosen by name. A compatible service is one more row.

Where an address, a key variable or a fact comes from: the profiles of pydantic-ai 2.68 (p),
vercel/ai of November 2026 (v), litellm 1.110 (l), any-llm 1.40 (a), ruby_llm (r), the vendor's own
documentation or package (d).
"""

from collections.abc import Callable

import msgspec

from minillmlib.auth.credentials import (
    AzureCredential,
    ClaudeSubscriptionToken,
    CredentialSource,
    EnvironmentKey,
    FixedCredential,
)
from minillmlib.auth.secret import Auth
from minillmlib.protocols.chat_completions.dialect import (
    ALL_FIELDS,
    ChatDialect,
    MessageCapabilities,
)
from minillmlib.providers.anthropic import AnthropicHost, AnthropicProvider
from minillmlib.providers.azure import AzureProvider
from minillmlib.providers.base import Provider
from minillmlib.providers.generic import GenericProvider
from minillmlib.providers.models.hosts import (
    HostRefusals,
    mark_partial,
    mark_prefix,
    takes_no_schema,
)
from minillmlib.providers.models.openai import needs_responses
from minillmlib.providers.openai import OpenAiProvider
from minillmlib.providers.openrouter import OpenRouterProvider
from minillmlib.providers.responses import ResponsesProvider

NO_CREDENTIAL = FixedCredential(Auth.none())


def _never(model: str) -> bool:
    del model
    return False


class Preset(msgspec.Struct, frozen=True):
    """One service: its address, its wire, and the source of its key.

    Attributes:
        base_url: Its address. `{A|B}` stands for the value of the first of these environment
            variables that is set: a region, an account, a host.
        base_url_variable: The environment variable that the vendor's own package reads for another
            address.
        needs_responses: `(model)`: whether a model needs the Responses wire instead.
        also: The names that other packages give to the service.
    """

    base_url: str
    provider: Provider
    credential: CredentialSource = NO_CREDENTIAL
    base_url_variable: str | None = None
    needs_responses: Callable[[str], bool] = _never
    also: tuple[str, ...] = ()

    def provider_for(self, model: str) -> Provider:
        """Return the provider that speaks the wire for a model."""
        return ResponsesProvider() if self.needs_responses(model) else self.provider


def _key(*variables: str) -> EnvironmentKey:
    return EnvironmentKey(variables)


def _optional_key(variable: str) -> EnvironmentKey:
    """Return the key of a server that may be open: none is sent if the variable is not set."""
    return EnvironmentKey((variable,), NO_CREDENTIAL)


_GENERAL = GenericProvider.capabilities


def _refusals(host: str) -> GenericProvider:
    """Return a host that takes `max_tokens`, with what is known of its refusals."""
    abilities = _GENERAL.replace(explain_refusal=HostRefusals(host))
    return GenericProvider(legacy_token_limit=True, capabilities=abilities)


def _new_limit(host: str) -> GenericProvider:
    """Return the same of a host that takes `max_completion_tokens`."""
    abilities = _GENERAL.replace(explain_refusal=HostRefusals(host))
    return GenericProvider(legacy_token_limit=False, capabilities=abilities)


_MAX_TOKENS = GenericProvider(legacy_token_limit=True)
_BY_MODEL = GenericProvider()
_CLAUDE = AnthropicHost()
_CLAUDE_BY_BEARER = AnthropicHost(is_bearer=True)

PRESETS: dict[str, Preset] = {
    # d: the variables of the vendors' own packages
    "openrouter": Preset(
        "https://openrouter.ai/api/v1",
        OpenRouterProvider(),
        _key("OPENROUTER_API_KEY"),
        "OPENROUTER_BASE_URL",
    ),
    "openai": Preset(
        "https://api.openai.com/v1",
        OpenAiProvider(),
        _key("OPENAI_API_KEY"),
        "OPENAI_BASE_URL",
        needs_responses,
    ),
    "anthropic": Preset(
        "https://api.anthropic.com",
        AnthropicProvider(),
        _key("ANTHROPIC_API_KEY"),
        "ANTHROPIC_BASE_URL",
    ),
    # ANTHROPIC_AUTH_TOKEN may be a gateway's, which stands in the other variable.
    "claude_subscription": Preset(
        "https://api.anthropic.com",
        AnthropicProvider(),
        ClaudeSubscriptionToken(),
        "ANTHROPIC_BASE_URL",
    ),
    "openai-responses": Preset(
        "https://api.openai.com/v1",
        ResponsesProvider(),
        _key("OPENAI_API_KEY"),
        "OPENAI_BASE_URL",
    ),
    # d: the variables of the package openai. GeneratorInfo.azure reads the address.
    "azure": Preset(
        "{AZURE_OPENAI_ENDPOINT}/openai/v1",
        AzureProvider(),
        AzureCredential(),
        also=("azure_openai", "azure-openai"),
    ),
    # p, l
    "alibaba": Preset(
        # v; in China without "-intl"
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        GenericProvider(
            legacy_token_limit=True, capabilities=_GENERAL.replace(mark_prefill=mark_partial)
        ),
        _key("DASHSCOPE_API_KEY"),
        also=("dashscope", "qwen"),
    ),
    # wire_bedrock: litellm, anthropic's package, pydantic-ai; an API key of Bedrock needs no
    # signature. Few models on the runtime; Mantle has more, some of them below /openai/v1.
    "bedrock-openai": Preset(
        "https://bedrock-runtime.{AWS_REGION|AWS_DEFAULT_REGION}.amazonaws.com/openai/v1",
        _BY_MODEL,
        _key("AWS_BEARER_TOKEN_BEDROCK"),
    ),
    "bedrock-mantle": Preset(
        "https://bedrock-mantle.{AWS_REGION|AWS_DEFAULT_REGION}.api.aws/v1",
        _BY_MODEL,
        _key("AWS_BEARER_TOKEN_BEDROCK"),
    ),
    # v: max_completion_tokens. p: refusals.
    "cerebras": Preset(
        "https://api.cerebras.ai/v1", _new_limit("cerebras"), _key("CEREBRAS_API_KEY")
    ),
    # v, and litellm's other variable
    "cloudflare": Preset(
        "https://api.cloudflare.com/client/v4/accounts/{CLOUDFLARE_ACCOUNT_ID}/ai/v1",
        _MAX_TOKENS,
        _key("CLOUDFLARE_API_TOKEN", "CLOUDFLARE_API_KEY"),
    ),
    # l, d
    "cohere": Preset(
        "https://api.cohere.com/compatibility/v1", _MAX_TOKENS, _key("COHERE_API_KEY", "CO_API_KEY")
    ),
    # l; DATABRICKS_HOST with or without https://
    "databricks": Preset(
        "https://{DATABRICKS_HOST}/serving-endpoints", _MAX_TOKENS, _key("DATABRICKS_TOKEN")
    ),
    # l, a
    "deepinfra": Preset(
        "https://api.deepinfra.com/v1/openai", _MAX_TOKENS, _key("DEEPINFRA_API_KEY")
    ),
    # p: max_completion_tokens is passed over in silence. d: prefixes at /beta.
    "deepseek": Preset(
        "https://api.deepseek.com",
        GenericProvider(
            legacy_token_limit=True,
            capabilities=_GENERAL.replace(
                explain_refusal=HostRefusals("deepseek"),
                why_no_schema=takes_no_schema,
                mark_prefill=mark_prefix,
            ),
        ),
        _key("DEEPSEEK_API_KEY"),
    ),
    # l: model ids are accounts/fireworks/models/...
    "fireworks": Preset(
        "https://api.fireworks.ai/inference/v1",
        _refusals("fireworks"),
        _key("FIREWORKS_API_KEY"),
        also=("fireworks_ai", "fireworks-ai"),
    ),
    # d: Google's compatible address; the other wire is Gemini's own.
    "gemini-openai": Preset(
        "https://generativelanguage.googleapis.com/v1beta/openai", _BY_MODEL, _key("GEMINI_API_KEY")
    ),
    # d: max_completion_tokens; unknown keys are refused.
    "groq": Preset(
        "https://api.groq.com/openai/v1",
        GenericProvider(
            legacy_token_limit=False,
            marks_prefill=False,
            capabilities=_GENERAL.replace(explain_refusal=HostRefusals("groq")),
        ),
        _key("GROQ_API_KEY"),
    ),
    # d: a model is org/name:provider
    "huggingface": Preset(
        "https://router.huggingface.co/v1", _MAX_TOKENS, _key("HF_TOKEN"), also=("hf",)
    ),
    # a; its other variable, MODEL_API_KEY, names no vendor
    "meta": Preset("https://api.meta.ai/v1", _MAX_TOKENS, _key("META_API_KEY")),
    # v: max_completion_tokens; in China api.minimaxi.com
    "minimax": Preset("https://api.minimax.io/v1", _new_limit("minimax"), _key("MINIMAX_API_KEY")),
    # v, l, eca#231, anon-kode#53, opencode#1680: unknown keys are refused, usage always comes in a
    # stream, ids of calls are of nine letters and digits.
    "mistral": Preset(
        "https://api.mistral.ai/v1",
        GenericProvider(
            dialect=ChatDialect(
                name="Mistral",
                fields=ALL_FIELDS | {"seed": "random_seed"},
                has_stream_options=False,
                messages=MessageCapabilities(tool_id_chars=9, has_exact_tool_ids=True),
            ),
            capabilities=_GENERAL.replace(mark_prefill=mark_prefix),
        ),
        _key("MISTRAL_API_KEY"),
        also=("mistralai",),
    ),
    # v, and the other variable of pydantic-ai; in China api.moonshot.cn. d: partial mode.
    "moonshot": Preset(
        "https://api.moonshot.ai/v1",
        GenericProvider(
            legacy_token_limit=False,
            capabilities=_GENERAL.replace(
                explain_refusal=HostRefusals("moonshot"), mark_prefill=mark_partial
            ),
        ),
        _key("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
        also=("kimi", "moonshotai"),
    ),
    # l, a
    "nebius": Preset("https://api.studio.nebius.com/v1", _MAX_TOKENS, _key("NEBIUS_API_KEY")),
    # d, and litellm's other variable
    "nvidia": Preset(
        "https://integrate.api.nvidia.com/v1",
        _MAX_TOKENS,
        _key("NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"),
        also=("nvidia_nim",),
    ),
    # p
    "ollama-cloud": Preset("https://ollama.com/v1", _MAX_TOKENS, _key("OLLAMA_API_KEY")),
    # v, l: no /v1
    "perplexity": Preset(
        "https://api.perplexity.ai", _refusals("perplexity"), _key("PERPLEXITY_API_KEY")
    ),
    # l
    "sambanova": Preset(
        "https://api.sambanova.ai/v1", _refusals("sambanova"), _key("SAMBANOVA_API_KEY")
    ),
    # v, p
    "together": Preset(
        "https://api.together.xyz/v1",
        _refusals("together"),
        _key("TOGETHER_API_KEY"),
        also=("together_ai", "togetherai"),
    ),
    # v, and the other variable of pydantic-ai
    "vercel": Preset(
        "https://ai-gateway.vercel.sh/v1",
        _MAX_TOKENS,
        _key("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY", "VERCEL_OIDC_TOKEN"),
        also=("vercel_ai_gateway",),
    ),
    # v, l
    "xai": Preset("https://api.x.ai/v1", _new_limit("xai"), _key("XAI_API_KEY"), also=("grok",)),
    # p; with a coding plan below /api/coding/paas/v4
    "zai": Preset(
        "https://api.z.ai/api/paas/v4",
        GenericProvider(
            legacy_token_limit=True,
            capabilities=_GENERAL.replace(
                explain_refusal=HostRefusals("zai"), why_no_schema=takes_no_schema
            ),
        ),
        _key("ZAI_API_KEY"),
        also=("z.ai", "glm"),
    ),
    # Anthropic's wire at other hosts (l, v, d). DeepSeek answers an unknown model's name with a
    # model of its own; the response names it.
    "alibaba-anthropic": Preset(
        "https://dashscope-intl.aliyuncs.com/apps/anthropic", _CLAUDE, _key("DASHSCOPE_API_KEY")
    ),
    "bedrock-mantle-anthropic": Preset(
        "https://bedrock-mantle.{AWS_REGION|AWS_DEFAULT_REGION}.api.aws/anthropic",
        _CLAUDE_BY_BEARER,
        _key("AWS_BEARER_TOKEN_BEDROCK", "ANTHROPIC_AWS_API_KEY"),
        "ANTHROPIC_BEDROCK_MANTLE_BASE_URL",
    ),
    "deepseek-anthropic": Preset(
        "https://api.deepseek.com/anthropic", _CLAUDE, _key("DEEPSEEK_API_KEY")
    ),
    "kimi-anthropic": Preset(
        "https://api.moonshot.ai/anthropic",
        _CLAUDE_BY_BEARER,
        _key("MOONSHOT_API_KEY", "MOONSHOTAI_API_KEY"),
        also=("moonshot-anthropic",),
    ),
    "minimax-anthropic": Preset(
        "https://api.minimax.io/anthropic",
        AnthropicHost(explain_refusal=HostRefusals("minimax-anthropic")),
        _key("MINIMAX_API_KEY"),
    ),
    "openrouter-anthropic": Preset(
        "https://openrouter.ai/api", _CLAUDE_BY_BEARER, _key("OPENROUTER_API_KEY")
    ),
    "vercel-anthropic": Preset(
        "https://ai-gateway.vercel.sh",
        _CLAUDE,
        _key("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY"),
    ),
    "zai-anthropic": Preset(
        "https://api.z.ai/api/anthropic",  # in China open.bigmodel.cn/api/anthropic
        AnthropicHost(explain_refusal=HostRefusals("zai-anthropic")),
        _key("ZAI_API_KEY"),
        also=("glm-anthropic",),
    ),
    # On this machine, at the ports that the servers open by themselves (d).
    "litellm": Preset("http://127.0.0.1:4000/v1", _BY_MODEL, _optional_key("LITELLM_API_KEY")),
    "litellm-anthropic": Preset("http://127.0.0.1:4000", _CLAUDE, _optional_key("LITELLM_API_KEY")),
    "llamacpp": Preset(
        "http://127.0.0.1:8080/v1",
        GenericProvider(capabilities=_GENERAL.replace(explain_refusal=HostRefusals("llamacpp"))),
        also=("llama.cpp", "llama_cpp"),
    ),
    "llamacpp-anthropic": Preset("http://127.0.0.1:8080", _CLAUDE),
    "lmstudio": Preset(
        "http://127.0.0.1:1234/v1", _refusals("lmstudio"), also=("lm_studio", "lm-studio")
    ),
    # Its chat completions know `max_tokens` only.
    "ollama": Preset("http://127.0.0.1:11434/v1", _MAX_TOKENS),
    "sglang": Preset("http://127.0.0.1:30000/v1", _MAX_TOKENS),
    "tgi": Preset("http://127.0.0.1:8080/v1", _refusals("tgi")),
    "vllm": Preset("http://127.0.0.1:8000/v1", _BY_MODEL, _optional_key("VLLM_API_KEY")),
    "vllm-anthropic": Preset("http://127.0.0.1:8000", _CLAUDE, _optional_key("VLLM_API_KEY")),
    # The transport inserts the port when the server runs.
    "local": Preset("http://127.0.0.1:0/v1", GenericProvider()),
}


def find_preset(name: str) -> str | None:
    """Return the name of the row for a service under any of its names, or None for no service."""
    if name in PRESETS:
        return name
    return next((row for row, preset in PRESETS.items() if name in preset.also), None)
