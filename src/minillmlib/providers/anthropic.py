"""Anthropic's Messages API."""

from collections.abc import Callable, Mapping, Sequence

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.anthropic import request, response, usage
from minillmlib.protocols.batches.anthropic import AnthropicBatches
from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.cache_control import PromptCache, has_block, omitted_breakpoints
from minillmlib.protocols.rate_limits import parse_rate_limits
from minillmlib.providers.base import (
    Billing,
    Capabilities,
    Provider,
    add_omitted_routing,
    max_output_tokens,
)
from minillmlib.providers.models import claude
from minillmlib.types.limits import RateLimits
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.tools import as_tool_choice
from minillmlib.types.usage import Usage

# The version that still takes temperature, top_p and top_k; 2026-10-21 refuses them.
API_VERSION = "2023-06-01"
OAUTH_BETA = "oauth-2025-04-20"


def _min_output_tokens(model: str, params: CompletionParameters) -> int:
    """Return 0 unless the request has something that is refused then (docs of November 2026)."""
    del model
    choice, form = as_tool_choice(params.tool_choice or "auto"), params.response_format
    is_forced = choice.mode in ("required", "tool")
    has_schema = form is not None and form.schema is not None
    return 1 if is_forced or has_schema else 0


def _explain_omissions(
    model: str, messages: Sequence[Message], params: CompletionParameters
) -> dict[str, str]:
    del model
    return add_omitted_routing(omitted_breakpoints(messages, has_block), params)


def _prompt_cache(model: str) -> PromptCache:
    return claude.prompt_cache(model, has_block)


# See `Billing.priced_extra`.
PRICED_EXTRA = frozenset({
    "system", "metadata", "stop_sequences", "temperature", "top_p", "top_k", "tools", "tool_choice",
    "thinking", "output_config", "service_tier", "speed", "cache_control",
})  # fmt: skip


def _is_billed(response: CompletionResponse) -> bool:
    """Not for a refusal before any output (documentation of stop reasons, November 2026)."""
    has_output = response.content or response.tool_calls or response.reasoning_blocks
    return response.raw_finish_reason != "refusal" or bool(has_output)


def _max_output_tokens(body: JsonObject, params: CompletionParameters) -> int | None:
    """Return the limit that this wire demands; the budget for reasoning counts against it."""
    return 0 if body["max_tokens"] == 0 else max_output_tokens(body, params)


class AnthropicProvider(Provider):
    """The native `/v1/messages` wire, with an API key or a subscription's token."""

    capabilities: Capabilities = Capabilities(
        messages_key="messages",
        why_no_prefill=claude.why_no_prefill,
        why_no_schema=claude.why_no_schema,
        why_no_warmup=claude.why_no_warmup,
        min_output_tokens=_min_output_tokens,
        prompt_cache=_prompt_cache,
        omitted=_explain_omissions,
        explain_refusal=claude.explain_refusal,
        mergeable_headers=("anthropic-beta",),
    )
    billing: Billing = Billing(
        merge_usage=usage.merge_usage,
        is_billed=_is_billed,
        max_media_tokens=claude.max_media_tokens,
        max_output_tokens=_max_output_tokens,
        priced_extra=PRICED_EXTRA,
    )
    batches: BatchApi | None = AnthropicBatches()

    def endpoint_url(self, base: str) -> str:
        """Return `/v1/messages` below `base`, which may or may not end in `/v1` itself."""
        return base.rstrip("/").removesuffix("/v1") + "/v1/messages"

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return `x-api-key` for a key; `Authorization` and the OAuth beta for a token."""
        version = ("anthropic-version", API_VERSION)
        secret = auth.secret()
        if secret is None:
            return [version]
        if auth.kind is AuthKind.API_KEY:
            return [version, ("x-api-key", secret.expose_secret())]
        bearer = ("Authorization", f"Bearer {secret.expose_secret()}")
        return [version, bearer, ("anthropic-beta", OAUTH_BETA)]

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the body; usage is always sent, so it need not be requested."""
        del include_usage
        known = claude.Claude.of(model)
        has_efforts = known is None or known.has_efforts
        return request.build_body(model, messages, params, stream=stream, has_efforts=has_efforts)

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """Return the answer; its blocks are put together as those of a stream are."""
        return response.parse_message(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """Return one event, by the `type` inside its JSON, or None for an unknown type."""
        return response.parse_event(data, self.parse_usage)

    def chunk_reader(self) -> Callable[[str], StreamChunk | None]:
        """Return a reader that refuses a second message within one stream."""
        return response.EventReader(self.parse_chunk)

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """Return the counts: on this wire `input_tokens` excludes what the cache read or wrote."""
        return usage.parse_usage(raw)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Whether counts follow: always, with the stop reason."""
        del requested
        return True

    def limits_of(self, headers: Mapping[str, str]) -> RateLimits:
        """Return the quota in the `anthropic-ratelimit-*` headers."""
        return parse_rate_limits(headers, "anthropic-ratelimit-{of}-{fact}")


class AnthropicHost(AnthropicProvider):
    """Another vendor's or server's `/v1/messages`, without betas.

    Args:
        is_bearer: Whether a key goes into `Authorization: Bearer`, and not into `x-api-key`.
        explain_refusal: See `Capabilities`.
    """

    capabilities = AnthropicProvider.capabilities.replace(is_generic=True)
    batches = None

    def __init__(
        self,
        *,
        is_bearer: bool = False,
        explain_refusal: Callable[[str, CompletionParameters], str | None] | None = None,
    ) -> None:
        self.is_bearer = is_bearer
        if explain_refusal is not None:
            self.capabilities = self.capabilities.replace(explain_refusal=explain_refusal)

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return the header that this host reads; a token is always `Authorization`."""
        secret = auth.secret()
        if secret is not None and (self.is_bearer or auth.kind is AuthKind.BEARER_TOKEN):
            bearer = ("Authorization", f"Bearer {secret.expose_secret()}")
            return [("anthropic-version", API_VERSION), bearer]
        return super().auth_headers(auth)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'is_bearer=True' if self.is_bearer else ''})"
