"""OpenRouter: the chat-completions wire with native costs."""

import re
from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import quote

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.protocols.cache_control import has_text, kept_marks, mark_message, marks_left_out
from minillmlib.protocols.chat_completions.messages import MessageCapabilities
from minillmlib.protocols.chat_completions.response import ALL_FIELDS, ChatDialect
from minillmlib.protocols.fields import add_extra
from minillmlib.providers.base import Headers, Provider
from minillmlib.providers.models.claude import Claude, budget_refusal, schema_refusal
from minillmlib.providers.models.token_limits import claude_media_tokens, openai_media_tokens
from minillmlib.types.costs import MAX_USD
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.money import exact_sum
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.usage import Count, Usage

__all__ = ["OpenRouterProvider"]

NO_RECORD = re.compile(r"\bgeneration\b.*\bnot found\b", re.IGNORECASE | re.DOTALL)


class OpenRouterProvider(Provider):
    """OpenRouter, which says what each request cost and always sends usage."""

    dialect = ChatDialect(
        name="OpenRouter",
        fields={**ALL_FIELDS, "max_tokens": "max_tokens"},
        has_stream_options=False,
        has_reasoning_object=True,
        reasoning_echo="reasoning_details",
        messages=MessageCapabilities(
            audio=("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a"),
            has_video=True,
            has_document_urls=True,
            has_tool_media=True,
            tool_id_chars=64,
            has_answer_images=True,
        ),
    )

    answer_media = ("image",)

    def prefill_refusal(self, model: str) -> str | None:
        """What the model's vendor says: Claude's newer models refuse it here, too."""
        claude = Claude.of(model)
        if claude is None or claude.takes_prefill:
            return None
        return f"{model} refuses a beginning, like all of Claude's models from 4.6 on"

    def schema_refusal(self, model: str, form: ResponseFormat) -> str | None:
        """What the model's vendor says of Claude's models."""
        return None if Claude.of(model) is None else schema_refusal(model, form)

    def attribution_headers(self, app_url: str | None, app_title: str | None) -> Headers:
        """The program's address and name, for OpenRouter's statistics."""
        pairs = (("HTTP-Referer", app_url), ("X-OpenRouter-Title", app_title))
        return [(name, value) for name, value in pairs if value is not None]

    def omitted(
        self, model: str, messages: Sequence[Message], params: CompletionParameters
    ) -> dict[str, str]:
        """Cache marks for models that cache by themselves, and those that cannot be sent."""
        unrouted = params.replace(openrouter_routing=None)
        if Claude.of(model) is None:
            return super().omitted(model, messages, unrouted)
        return super().omitted(model, (), unrouted) | marks_left_out(messages, has_text)

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """The body, with OpenRouter's own routing, and cache marks for Claude's models."""
        body = super().build_request(
            model, messages, params, stream=stream, include_usage=include_usage
        )
        if Claude.of(model) is not None:
            for place, ttl in kept_marks(messages, has_text).items():
                mark_message(body["messages"][place], ttl)
        if params.openrouter_routing is None:
            return body
        return add_extra(body, params.openrouter_routing.as_body())

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """The counts, with the cost OpenRouter states beside them."""
        usage = super().parse_usage(raw)
        if usage is None:
            return None
        return msgspec.structs.replace(usage, native_cost=_native_cost(raw["usage"]))

    def most_media_tokens(self, model: str, part: MediaPart) -> int | None:
        """What the model's vendor has published, for Claude's and OpenAI's models."""
        vendor, _, name = model.partition("/")
        if vendor == "openai":
            return openai_media_tokens(name, part)
        return claude_media_tokens(name, part) if vendor == "anthropic" else None

    def least_output_tokens(self, model: str, params: CompletionParameters) -> int:
        """16 where OpenAI's own interface stands behind (earendil-works/pi#6265), else 1."""
        del params
        return 16 if model.startswith("openai/") else 1

    def warm_refusal(self, model: str, params: CompletionParameters) -> str | None:
        """A budget for thinking, which Claude would have to be given in full."""
        return budget_refusal(model, params)

    def resolve_post_stream(self, base: str, response_id: str) -> str | None:
        """OpenRouter's record of a generation, which appears some seconds after its end."""
        return f"{base.rstrip('/')}/generation?id={quote(response_id, safe='')}"

    def parse_late_usage(self, raw: JsonValue) -> Usage | None:
        """The record's counts, by the model's own tokenizer, and its cost.

        It does not count what was written to a cache. With the user's own key at the vendor the
        vendor's bill is added, here as in an answer.
        """
        try:
            record = msgspec.convert(raw["data"], _Generation)
        except (ValueError, TypeError, KeyError):
            return None
        parts = [record.total_cost]
        if record.is_byok:
            parts.append(record.upstream_inference_cost)
        cost = _sum_of(parts)
        cached = record.native_tokens_cached or 0
        if cost is None or cached > (record.native_tokens_prompt or 0):
            return None
        return Usage(
            uncached_input_tokens=(record.native_tokens_prompt or 0) - cached,
            cache_read_tokens=cached,
            completion_tokens=record.native_tokens_completion or 0,
            reasoning_tokens=record.native_tokens_reasoning or 0,
            native_cost=cost,
        )

    def is_usage_pending(self, raw: JsonValue) -> bool:
        """Whether it is OpenRouter that has no record, and not a gateway that has no such page."""
        try:
            told = msgspec.convert(raw["error"], _NoRecord).message
        except (ValueError, TypeError, KeyError):
            return False
        return NO_RECORD.search(told) is not None

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Always: OpenRouter needs no asking."""
        del requested
        return True


class _NoRecord(msgspec.Struct):
    message: str


class _Details(msgspec.Struct):
    upstream_inference_cost: Decimal | None = None


class _Cost(msgspec.Struct):
    cost: Decimal | None = None
    is_byok: bool = False
    cost_details: _Details | None = None


def _native_cost(usage: JsonValue) -> Decimal | None:
    """USD for the request. With the user's own key at the vendor, both bills count.

    Without one, `upstream_inference_cost` repeats `cost`: to add it would double the bill.
    """
    try:
        bill = msgspec.convert(usage, _Cost)
    except ValueError:
        return None
    parts = [bill.cost]
    if bill.is_byok:
        parts.append((bill.cost_details or _Details()).upstream_inference_cost)
    return _sum_of(parts)


class _Generation(msgspec.Struct):
    total_cost: Decimal | None = None
    is_byok: bool = False
    upstream_inference_cost: Decimal | None = None
    native_tokens_prompt: Count | None = None
    native_tokens_completion: Count | None = None
    native_tokens_reasoning: Count | None = None
    native_tokens_cached: Count | None = None


def _sum_of(parts: Sequence[Decimal | None]) -> Decimal | None:
    """The sum of some amounts of USD, or None if one is missing or absurd."""
    known = [
        part for part in parts if part is not None and part.is_finite() and 0 <= part <= MAX_USD
    ]
    return exact_sum(known) if len(known) == len(parts) else None
