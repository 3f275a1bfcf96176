"""The services that can be chosen by name. A compatible service is one more row."""

from collections.abc import Callable

import msgspec

from minillmlib.auth.credentials import (
    ClaudeSubscriptionToken,
    CredentialSource,
    EnvironmentKey,
    FixedCredential,
)
from minillmlib.auth.secret import Auth
from minillmlib.providers.anthropic import AnthropicProvider
from minillmlib.providers.base import Provider
from minillmlib.providers.generic import GenericProvider
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

    `base_url_variable` is the environment variable that the vendor's own package reads for another
    address. `needs_responses` is asked whether a model needs the Responses wire instead.
    """

    base_url: str
    provider: Provider
    credential: CredentialSource = NO_CREDENTIAL
    base_url_variable: str | None = None
    needs_responses: Callable[[str], bool] = _never

    def provider_for(self, model: str) -> Provider:
        """Return the provider that speaks the wire for a model."""
        return ResponsesProvider() if self.needs_responses(model) else self.provider


PRESETS: dict[str, Preset] = {
    "openrouter": Preset(
        "https://openrouter.ai/api/v1",
        OpenRouterProvider(),
        EnvironmentKey(("OPENROUTER_API_KEY",)),
        "OPENROUTER_BASE_URL",
    ),
    "openai": Preset(
        "https://api.openai.com/v1",
        OpenAiProvider(),
        EnvironmentKey(("OPENAI_API_KEY",)),
        "OPENAI_BASE_URL",
        needs_responses,
    ),
    "anthropic": Preset(
        "https://api.anthropic.com",
        AnthropicProvider(),
        EnvironmentKey(("ANTHROPIC_API_KEY",)),
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
        EnvironmentKey(("OPENAI_API_KEY",)),
        "OPENAI_BASE_URL",
    ),
    "groq": Preset(
        "https://api.groq.com/openai/v1",
        GenericProvider(legacy_token_limit=False, marks_prefill=False),
        EnvironmentKey(("GROQ_API_KEY",)),
    ),
    # Its chat completions know `max_tokens` only.
    "ollama": Preset("http://127.0.0.1:11434/v1", GenericProvider(legacy_token_limit=True)),
    # The transport inserts the port when the server runs.
    "local": Preset("http://127.0.0.1:0/v1", GenericProvider()),
}
