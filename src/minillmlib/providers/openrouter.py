"""OpenRouter: the chat-completions wire with native costs."""

import re
from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols import cache_control
from minillmlib.protocols.batches.base import BatchApi
from minillmlib.protocols.batches.openrouter import OpenRouterBatches
from minillmlib.protocols.cache_control import PromptCache
from minillmlib.protocols.chat_completions.dialect import (
    ALL_FIELDS,
    IMAGE_TYPES,
    ChatDialect,
    MessageCapabilities,
)
from minillmlib.protocols.chat_completions.usage import usage_record
from minillmlib.protocols.fields import add_extra, trim_last_turn
from minillmlib.providers.base import (
    PRICED_EXTRA,
    Billing,
    Capabilities,
    Provider,
    ignored_breakpoints,
)
from minillmlib.providers.generic import why_no_prefill
from minillmlib.providers.models import claude, openai
from minillmlib.providers.models.claude import Claude
from minillmlib.types.costs import MAX_USD, exact_sum
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.usage import Count, Usage, convert_counts

NO_RECORD = re.compile(r"\bgeneration\b.*\bnot found\b", re.IGNORECASE | re.DOTALL)


class _CostDetails(msgspec.Struct):
    upstream_inference_cost: Decimal | None = None


class _Bill(msgspec.Struct):
    cost: Decimal | None = None
    is_byok: bool = False
    cost_details: _CostDetails | None = None


class _Generation(msgspec.Struct):
    total_cost: Decimal | None = None
    is_byok: bool = False
    upstream_inference_cost: Decimal | None = None
    native_tokens_prompt: Count | None = None
    native_tokens_completion: Count | None = None
    native_tokens_reasoning: Count | None = None
    native_tokens_cached: Count | None = None


def _why_no_schema(model: str, form: ResponseFormat) -> str | None:
    return None if Claude.of(model) is None else claude.why_no_schema(model, form)


def _min_output_tokens(model: str, params: CompletionParameters) -> int:
    """Return 16 for models behind OpenAI's newer API (earendil-works/pi#6265), else 1."""
    del params
    return 16 if model.startswith("openai/") else 1


def _explain_omissions(
    model: str, messages: Sequence[Message], params: CompletionParameters
) -> dict[str, str]:
    del params
    if Claude.of(model) is None:
        return ignored_breakpoints(messages)
    return cache_control.omitted_breakpoints(messages, cache_control.has_text)


def _prompt_cache(model: str) -> PromptCache | None:
    """Return the facts about the cache of the model's vendor, for Claude's and OpenAI's models."""
    if Claude.of(model) is not None:
        return claude.prompt_cache(model, cache_control.has_text)
    vendor, _, name = model.partition("/")
    return openai.prompt_cache(name) if vendor == "openai" else PromptCache()


def _max_media_tokens(model: str, part: MediaPart) -> int | None:
    """Return the published bound of the model's vendor, for Claude's and OpenAI's models."""
    vendor, _, name = model.partition("/")
    if vendor == "openai":
        return openai.max_media_tokens(name, part)
    return claude.max_media_tokens(name, part) if vendor == "anthropic" else None


def _parse_deferred_usage(raw: JsonValue) -> Usage | None:
    """Return the record's counts, by the model's tokenizer, and its cost.

    The record does not count what was written to a cache.
    """
    try:
        record = convert_counts(raw["data"], _Generation)
    except (ValueError, TypeError, KeyError):
        return None
    cost = _sum_bills(record.total_cost, record.upstream_inference_cost, record.is_byok)
    prompt, cached = record.native_tokens_prompt or 0, record.native_tokens_cached or 0
    if cost is None or cached > prompt:
        return None
    return Usage(
        uncached_input_tokens=prompt - cached,
        cache_read_tokens=cached,
        completion_tokens=record.native_tokens_completion or 0,
        reasoning_tokens=record.native_tokens_reasoning or 0,
        native_cost=cost,
        native_cost_source="total_cost of the generation's record",
    )


def _native_cost(usage: JsonValue) -> Decimal | None:
    try:
        bill = msgspec.convert(usage, _Bill)
    except ValueError:
        return None
    details = bill.cost_details or _CostDetails()
    return _sum_bills(bill.cost, details.upstream_inference_cost, bill.is_byok)


def _sum_bills(
    cost: Decimal | None,
    upstream: Decimal | None,
    is_byok: bool,  # noqa: FBT001 - private
) -> Decimal | None:
    """Return the USD of a request, or None if a part is missing or absurd.

    With a key of the user at the vendor, both bills count. Without one, `upstream` repeats
    `cost`: to add it would double the bill.
    """
    bills = (cost, upstream) if is_byok else (cost,)
    known = [
        bill for bill in bills if bill is not None and bill.is_finite() and 0 <= bill <= MAX_USD
    ]
    return exact_sum(known) if len(known) == len(bills) else None


def _is_usage_pending(raw: JsonValue) -> bool:
    """Whether it is OpenRouter that has no record, and not a gateway that has no such page."""
    match raw:
        case {"error": {"message": str(message)}}:
            return NO_RECORD.search(message) is not None
    return False


class OpenRouterProvider(Provider):
    """OpenRouter, which reports the cost of each request and always sends usage."""

    dialect: ChatDialect = ChatDialect(
        name="OpenRouter",
        fields=ALL_FIELDS,
        has_stream_options=False,
        has_reasoning_object=True,
        reasoning_echo="reasoning_details",
        messages=MessageCapabilities(
            images=IMAGE_TYPES,
            audio=("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a"),
            has_video=True,
            has_document_urls=True,
            has_tool_media=True,
            tool_id_chars=64,
            has_answer_images=True,
        ),
    )
    capabilities: Capabilities = Capabilities(
        messages_key="messages",
        why_no_prefill=why_no_prefill,
        why_no_schema=_why_no_schema,
        why_no_warmup=claude.why_no_warmup,
        min_output_tokens=_min_output_tokens,
        prompt_cache=_prompt_cache,
        omitted=_explain_omissions,
        replayable_media=("image",),
        app_url_header="HTTP-Referer",
        app_title_header="X-OpenRouter-Title",
    )
    billing: Billing = Billing(
        parse_deferred_usage=_parse_deferred_usage,
        is_usage_pending=_is_usage_pending,
        max_media_tokens=_max_media_tokens,
        priced_extra=PRICED_EXTRA | {"provider", "transforms", "usage", "cache_control"},
    )
    batches: BatchApi | None = OpenRouterBatches()

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """Return the body, with the routing, and with what Claude's models take and demand."""
        body = super().build_request(
            model, messages, params, stream=stream, include_usage=include_usage
        )
        if Claude.of(model) is not None:
            trim_last_turn(body["messages"])
            breakpoints = cache_control.select_breakpoints(messages, cache_control.has_text)
            for index, ttl in breakpoints.items():
                cache_control.add_breakpoint(body["messages"][index], ttl)
        if params.openrouter_routing is None:
            return body
        return add_extra(body, params.openrouter_routing.as_body())

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """Return the counts, with the cost that OpenRouter states beside them."""
        usage = super().parse_usage(raw)
        if usage is None:
            return None
        cost = _native_cost(usage_record(raw))
        return usage if cost is None else usage.with_native_cost(cost, "usage.cost")

    def resolve_post_stream(self, base: str, response_id: str) -> str | None:
        """Return the address of a generation's record, which appears seconds after its end."""
        return f"{base.rstrip('/')}/generation?id={quote(response_id, safe='')}"

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Whether counts follow: always, even if they were not requested."""
        del requested
        return True
