"""The contract of a provider: methods that translate, and two values with facts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Self

import msgspec

from minillmlib.auth.secret import Auth
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.cache_control import BREAKPOINTS, PromptCache
from minillmlib.protocols.chat_completions import request, response, usage
from minillmlib.protocols.chat_completions.choices import ask_choices, split_choices
from minillmlib.protocols.chat_completions.dialect import ChatDialect
from minillmlib.protocols.rate_limits import parse_rate_limits
from minillmlib.protocols.stated_costs import StatedCost, parse_usd
from minillmlib.transport.base import HttpRequest
from minillmlib.types.costs import CostOutcome, TokenPrice
from minillmlib.types.limits import RateLimits
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message, has_breakpoint
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.responses import CompletionResponse, StreamChunk
from minillmlib.types.usage import Usage, UsageUpdate
from minillmlib.types.values import replace

# The keys of `extra` that cost nothing beyond the counted tokens. With any other key, the cost of a
# request is not known before it is sent.
PRICED_EXTRA = frozenset({
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "top_k", "min_p", "top_a", "typical_p", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "stop", "seed", "n", "best_of", "logit_bias",
    "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
    "functions", "function_call", "reasoning", "reasoning_effort", "reasoning_format",
    "include_reasoning", "reasoning_split", "verbosity", "thinking", "enable_thinking",
    "thinking_budget", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "metadata", "store", "modalities", "service_tier", "continue_final_message",
    "add_generation_prompt", "chat_template_kwargs", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "structured_outputs", "grammar", "json_schema", "ignore_eos", "min_tokens",
    "stop_token_ids", "skip_special_tokens", "cache_prompt", "keep_alive", "think", "options",
    "safe_prompt", "random_seed", "speed",
})  # fmt: skip

# Keys that cost more than the tokens of the body, but for these values.
_UNPRICED: dict[str, tuple[JsonValue, ...]] = {
    "audio": (),
    "inference_geo": (),
    "mcp_servers": (),
    "modalities": (["text"],),
    "models": (),
    "plugins": (),
    "prediction": (),
    "service_tier": ("auto", "default", "flex", "standard", "standard_only"),
    "speed": ("standard",),
    "web_search_options": (),
}

LITELLM_ID = "x-litellm-call-id"
LITELLM_COST = "x-litellm-response-cost"


def _none(*_: object) -> None:
    return None


def _one(*_: object) -> int:
    return 1


def _true(*_: object) -> bool:
    return True


def _automatic_cache(*_: object) -> PromptCache:
    return PromptCache()


def leave_unmarked(model: str, body: JsonObject) -> JsonObject:
    """Return the body as it is, for a server that continues a last assistant message by itself."""
    del model
    return body


def add_omitted_routing(omitted: dict[str, str], params: CompletionParameters) -> dict[str, str]:
    """Return the report with a routing that only OpenRouter takes."""
    if params.openrouter_routing is None:
        return omitted
    return {"openrouter_routing": "only OpenRouter chooses providers", **omitted}


def ignored_breakpoints(messages: Sequence[Message]) -> dict[str, str]:
    """Return the report of cache breakpoints for a service that caches by itself."""
    if not has_breakpoint(messages):
        return {}
    return {BREAKPOINTS: "this provider caches by itself"}


def _explain_omissions(
    model: str, messages: Sequence[Message], params: CompletionParameters
) -> dict[str, str]:
    del model
    return add_omitted_routing(ignored_breakpoints(messages), params)


_LIMIT_KEYS = frozenset(("max_completion_tokens", "max_tokens"))


def max_output_tokens(body: JsonObject, params: CompletionParameters) -> int | None:
    """Return the most tokens that a body lets the model write, in all of its answers.

    Another wire may have another key for its limit: then `max_tokens` of the parameters counts.
    Some servers take a limit of 0, or less, for none.
    """
    if params.max_tokens is None and _LIMIT_KEYS.isdisjoint(body):  # as in most requests
        return None
    limits = [body[key] for key in _LIMIT_KEYS if key in body] or [params.max_tokens]
    copies = body.get("n", 1), body.get("best_of", 1)
    for number in (*limits, *copies):
        if type(number) is not int or number <= 0:
            return None
    return int(max(limits) * max(copies))


def unpriced_keys(body: Mapping[str, JsonValue]) -> list[str]:
    """Return the keys of a body with which a request may cost more than its tokens."""
    keys = [
        key
        for key, value in body.items()
        if key in _UNPRICED and value is not None and value not in _UNPRICED[key]
    ]
    if str(body.get("model")).endswith(":online"):  # OpenRouter's suffix for searches
        keys.append("model")
    tools = body.get("tools")
    if isinstance(tools, list) and not all(map(_runs_here, tools)):
        keys.append("tools")
    return keys


def _runs_here(tool: JsonValue) -> bool:
    """Whether the caller runs a tool; a vendor's tool has another type and costs fees."""
    return isinstance(tool, dict) and tool.get("type") in (None, "function", "custom")


def gateway_cost(headers: Mapping[str, str], record: JsonObject | None) -> StatedCost | None:
    """Return the cost that LiteLLM's proxy states: in a header, or of a stream in the counts.

    A `cost` among the counts of another server may be in any unit.
    """
    if LITELLM_ID not in headers and LITELLM_COST not in headers:
        return None
    usd, source = parse_usd(headers.get(LITELLM_COST)), f"header {LITELLM_COST}"
    if usd is None:
        usd, source = parse_usd((record or {}).get("cost")), "usage.cost of LiteLLM"
    return None if usd is None else (usd, source)


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The abilities of a service. Functions may depend on the model; each default is neutral.

    Attributes:
        messages_key: The key of the body with the encoded messages, one item for each, in order,
            so that the client may insert bytes of an earlier call. None: it never does.
        prompt_key: The key of the body with the whole conversation as one text, for a wire without
            messages. Neighbours of one role are then not merged, and a prefix (`force_prepend`)
            is the end of that text, to the last space. None: the prefix is the last message.
        why_no_prefill: `(model)`: why a model does not continue a prefix (`force_prepend`), or
            None if it may.
        mark_prefill: `(model, body)`: the body, which ends with the prefix (`force_prepend`), with
            the keys that make the server continue it instead of beginning anew.
        why_no_schema: `(model, response_format)`: why a model is not held to a schema, or None
            if it is. With `expecting`, the prompt then states the schema.
        why_no_warmup: `(model, params)`: why `ensure_cached` would be refused or useless, or None.
        min_output_tokens: `(model, params)`: the smallest `max_tokens` of a request that only
            writes a cache.
        max_choices: `(model)`: the most answers that one request may ask for, if the counts of its
            tokens are those of all answers; else 1.
        ask_choices: `(body, count)`: the body that asks for so many answers.
        split_choices: `(raw)`: a body with several answers as bodies with one answer each.
        prompt_cache: `(model)`: the facts about its prompt cache, or None if it has none.
        omitted: `(model, messages, params)`: the settings that are not sent though no error says
            so, with the reason for each. The client may ask only for the messages that it encodes
            anew; earlier ones have no cache breakpoint.
        explain_refusal: `(model, params)`: known reasons for which the server refuses such a
            request, or None. The client adds them to the message of its 400 or 422.
        replayable_media: The kinds of generated media that go back to the model with its answers.
        mergeable_headers: Headers, in lower case, that hold a list: the caller's values join it.
        app_url_header: The header for the address of the calling program, if there is one.
        app_title_header: The header for its name.
        stream_accept: The `Accept` header of a request for a stream.
        is_generic: Whether the provider is for any number of servers, so that only the address
            says which of them made an answer.
    """

    messages_key: str | None = None
    prompt_key: str | None = None
    why_no_prefill: Callable[[str], str | None] = _none
    mark_prefill: Callable[[str, JsonObject], JsonObject] = leave_unmarked
    why_no_schema: Callable[[str, ResponseFormat], str | None] = _none
    why_no_warmup: Callable[[str, CompletionParameters], str | None] = _none
    min_output_tokens: Callable[[str, CompletionParameters], int] = _one
    max_choices: Callable[[str], int] = _one
    ask_choices: Callable[[JsonObject, int], JsonObject] = ask_choices
    split_choices: Callable[[JsonValue], list[JsonValue]] = split_choices
    prompt_cache: Callable[[str], PromptCache | None] = _automatic_cache
    omitted: Callable[[str, Sequence[Message], CompletionParameters], dict[str, str]] = (
        _explain_omissions
    )
    explain_refusal: Callable[[str, CompletionParameters], str | None] = _none
    replayable_media: tuple[str, ...] = ()
    mergeable_headers: tuple[str, ...] = ()
    app_url_header: str | None = None
    app_title_header: str | None = None
    stream_accept: str = "text/event-stream"
    is_generic: bool = False

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)


class Billing(msgspec.Struct, frozen=True, kw_only=True):
    """The rules by which a service counts and bills.

    Attributes:
        merge_usage: `(earlier, later)`: two records of counts of one request as one.
        is_billed: `(response)`: whether an answer with counts is on the bill at all.
        parse_deferred_usage: `(raw)`: the counts, with their cost, in a reply of the address that
            `resolve_post_stream` returns; None if they are not there yet.
        is_usage_pending: `(raw)`: whether a 404 of that address means that the record is not there
            yet, and not that there is no such address.
        max_media_tokens: `(model, part)`: the most tokens that an image or the like counts as, or
            None if no rule is published.
        max_output_tokens: `(body, params)`: the most tokens that a request lets the model write,
            reasoning included; None if unlimited.
        unpriced_keys: `(body)`: the keys with which a request may cost more than its tokens.
        priced_extra: The keys of `extra` that cost nothing beyond the tokens. With any other the
            cost of a request is not known before it is sent.
        stated_cost: `(headers, record)`: the USD that a gateway states for an answer, by its
            headers and its record of counts, and the name of the field or header that states them;
            or None. It takes precedence over the service's own figure and any price.
    """

    merge_usage: Callable[[UsageUpdate, UsageUpdate], UsageUpdate] = usage.merge_usage
    is_billed: Callable[[CompletionResponse], bool] = _true
    parse_deferred_usage: Callable[[JsonValue], Usage | None] = _none
    is_usage_pending: Callable[[JsonValue], bool] = _true
    max_media_tokens: Callable[[str, MediaPart], int | None] = _none
    max_output_tokens: Callable[[JsonObject, CompletionParameters], int | None] = max_output_tokens
    unpriced_keys: Callable[[Mapping[str, JsonValue]], Sequence[str]] = unpriced_keys
    priced_extra: Collection[str] = PRICED_EXTRA
    stated_cost: Callable[[Mapping[str, str], JsonObject | None], StatedCost | None] = gateway_cost

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, changes)


class Provider:
    """Translates messages and parameters to the wire of one service, and its answers back.

    The defaults speak the chat-completions wire: override what differs. A provider does no I/O
    and keeps no state, so one instance serves any number of calls at once. A method refuses what
    it cannot represent with `InvalidParameterError`, and what is not an answer with
    `MalformedResponseError` or an `ApiError`.

    A class that defines `build_request` and no `capabilities` inherits them with `messages_key`
    None, since its body may have any shape.
    """

    dialect: ChatDialect = ChatDialect()
    """The facts of a server that speaks the chat-completions wire."""
    capabilities: Capabilities = Capabilities(
        messages_key="messages", mark_prefill=request.mark_prefill
    )
    """The abilities of the service."""
    billing: Billing = Billing()
    """The rules by which it counts and bills."""
    batches: BatchApi | None = None
    """How it takes batches (`map_complete` with `batch=True`), or None if it does not."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for base in cls.__mro__:
            if "capabilities" in vars(base):
                return
            if "build_request" in vars(base):
                cls.capabilities = cls.capabilities.replace(messages_key=None)
                return

    def endpoint_url(self, base: str) -> str:
        """Return the address of completion requests, from the generator's base URL."""
        return f"{base.rstrip('/')}/chat/completions"

    def request_url(self, base: str, model: str, *, stream: bool) -> str:
        """Return the address of the requests, for wires with the model in it."""
        del model, stream
        return self.endpoint_url(base)

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """Return the headers that carry the credential.

        A generator keeps the address and the headers of its requests while its credential is the
        same. What is new in each request, such as a signature, belongs into `finalize`.
        """
        secret = auth.secret()
        if secret is None:
            return []
        return [("Authorization", f"Bearer {secret.expose_secret()}")]

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the JSON body of a request. `include_usage` asks for token counts in a stream."""
        return request.build_body(
            self.dialect, model, messages, params, stream=stream, include_usage=include_usage
        )

    def finalize(self, request: HttpRequest, auth: Auth) -> HttpRequest:
        """Return the complete request as it is sent, once for each attempt; for signatures."""
        del auth
        return request

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """Return the answer in a decoded body that came with a success status."""
        return response.parse_completion(raw, self.parse_usage)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """Return the chunk in one event of a stream, or None for an event without content."""
        return response.parse_chunk(data, self.parse_usage)

    def chunk_reader(self) -> Callable[[str], StreamChunk | None]:
        """Return the reader of one stream, for wires whose events depend on earlier ones."""
        return self.parse_chunk

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """Return the token counts in a decoded body or event, or None if none can be trusted."""
        return usage.parse_usage(raw)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the guide's signature
        """Whether token counts may follow the finish reason of a stream.

        If not, the stream is over at the finish reason; else counts are awaited for a short time.
        """
        return requested

    def cost_of(self, usage: Usage, price: TokenPrice | None) -> CostOutcome:
        """Return the cost of the tokens: the figure of the provider, else by `price`."""
        if usage.native_cost is not None:
            return CostOutcome.resolved(usage.native_cost, usage, source=usage.native_cost_source)
        if price is not None and price.has_rates_for(usage):
            return CostOutcome.resolved(price.cost_of(usage), usage, source=price.source)
        return CostOutcome.unpriced(usage)

    def resolve_post_stream(self, base: str, response_id: str) -> str | None:
        """Return the address that reports the cost of a past answer, if there is one."""
        del base, response_id
        return None

    def limits_of(self, headers: Mapping[str, str]) -> RateLimits:
        """Return the remaining quota that the headers of an answer state."""
        return parse_rate_limits(headers)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
