"""Anthropic's own Messages API."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from minillmlib.auth.secret import Auth, AuthKind
from minillmlib.errors import MalformedResponseError
from minillmlib.json_value import (
    JsonObject,
    JsonValue,
    convert_json,
    decode_json,
    excerpt,
    excerpt_of,
    json_text,
    string_or_empty,
)
from minillmlib.protocols.anthropic.request import build_body
from minillmlib.protocols.anthropic.usage import AnthropicUsage, counted, merged
from minillmlib.protocols.cache_control import has_block, marks_left_out
from minillmlib.protocols.chat_completions.usage import usage_record
from minillmlib.protocols.errors import error_from_payload, is_error_payload
from minillmlib.providers.base import Provider
from minillmlib.providers.models.claude import Claude, budget_refusal, schema_refusal
from minillmlib.providers.models.token_limits import claude_media_tokens
from minillmlib.streaming.accumulator import whole_response
from minillmlib.types.media import MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters, ResponseFormat
from minillmlib.types.reasoning import ReasoningDelta
from minillmlib.types.responses import CompletionResponse, FinishReason, StreamChunk
from minillmlib.types.tools import ToolCallDelta, as_tool_choice
from minillmlib.types.usage import Usage, UsageUpdate

__all__ = ["AnthropicProvider"]

# The version that still takes temperature, top_p and top_k; 2026-10-21 refuses them.
API_VERSION = "2023-06-01"
# The field that each kind of delta makes longer, in a block that must come back as it was.
GROWN = {
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "compaction_delta": "content",
}
OAUTH_BETA = "oauth-2025-04-20"


class AnthropicProvider(Provider):
    """The native `/v1/messages` wire, with an API key or a subscription's token."""

    list_headers = ("anthropic-beta",)

    def prefill_refusal(self, model: str) -> str | None:
        """Claude's models from 4.6 on refuse it; servers of other models on this wire may not."""
        claude = Claude.of(model)
        if claude is None or claude.takes_prefill:
            return None
        return f"{model} refuses a beginning, like all of Claude's models from 4.6 on"

    def schema_refusal(self, model: str, form: ResponseFormat) -> str | None:
        """Claude's older models know no schemas, and none knows those that are not strict."""
        return schema_refusal(model, form)

    def endpoint_url(self, base: str) -> str:
        """`/v1/messages` below `base`, which may or may not end in `/v1` itself."""
        return base.rstrip("/").removesuffix("/v1") + "/v1/messages"

    def auth_headers(self, auth: Auth) -> list[tuple[str, str]]:
        """`x-api-key` for a key; `Authorization` and the OAuth beta for a token."""
        headers = [("anthropic-version", API_VERSION)]
        secret = auth.secret()
        if secret is None:
            return headers
        if auth.kind is AuthKind.API_KEY:
            return [*headers, ("x-api-key", secret.expose_secret())]
        bearer = ("Authorization", f"Bearer {secret.expose_secret()}")
        return [*headers, bearer, ("anthropic-beta", OAUTH_BETA)]

    def build_request(
        self,
        model: str,
        messages: Sequence[Message],
        params: CompletionParameters,
        *,
        stream: bool,
        include_usage: bool,
    ) -> JsonObject:
        """The body: system text apart, neighbours of one role joined, empty text left out."""
        del include_usage  # always sent
        return build_body(model, messages, params, stream=stream)

    def omitted(
        self, model: str, messages: Sequence[Message], params: CompletionParameters
    ) -> dict[str, str]:
        """OpenRouter's routing, and cache marks that are too many or have nowhere to stand."""
        return super().omitted(model, (), params) | marks_left_out(messages, has_block)

    def most_media_tokens(self, model: str, part: MediaPart) -> int | None:
        """Of an image, by the model's version. How much text a PDF gives is not published."""
        return claude_media_tokens(model, part)

    def most_output_tokens(self, body: JsonObject, params: CompletionParameters) -> int | None:
        """The limit that this wire demands; the budget to think counts against it."""
        limit = body["max_tokens"]
        return 0 if limit == 0 else super().most_output_tokens(body, params)

    def least_output_tokens(self, model: str, params: CompletionParameters) -> int:
        """None at all, unless the request holds what is refused then (docs of November 2026)."""
        del model
        choice, form = as_tool_choice(params.tool_choice or "auto"), params.response_format
        is_forced = choice.mode in ("required", "tool")
        has_schema = form is not None and form.schema is not None
        return 1 if is_forced or has_schema else 0

    def warm_refusal(self, model: str, params: CompletionParameters) -> str | None:
        """A budget for thinking, which would have to be given in full."""
        return budget_refusal(model, params)

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """The blocks of the answer, put together as those of a stream are."""
        if is_error_payload(raw):
            raise error_from_payload(raw)
        message = convert_json(raw, _WholeMessage)
        answer: JsonObject = {
            "id": string_or_empty(message.id),
            "model": string_or_empty(message.model),
        }
        end = self._end_chunk(message, raw)
        if len(message.content) == 1 and message.content[0].get("type") == "text":
            answer["delta"] = _checked_text(message.content[0].get("text", ""))
            return whole_response([msgspec.structs.replace(end, **answer)], raw)
        blocks = (_block_chunk(block, index) for index, block in enumerate(message.content))
        return whole_response([StreamChunk(**answer), *filter(None, blocks), end], raw)

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """One event, told by the `type` inside its JSON. Unknown types say nothing."""
        try:
            event = _delta_decoder.decode(data)
        except (ValueError, RecursionError):
            return self._parse_other(data)
        return _delta_chunk(event.delta, _number(event.index))

    def _parse_other(self, data: str) -> StreamChunk | None:
        raw = decode_json(data)
        if is_error_payload(raw):
            raise error_from_payload(raw)
        match raw:
            case {"type": "message_start", "message": message}:
                start = convert_json(message, _StartedMessage)
                name, model = string_or_empty(start.id), string_or_empty(start.model)
                return StreamChunk(id=name, model=model, **self._counted(raw))
            case {"type": "content_block_start", "content_block": {"type": str()} as block}:
                return _block_chunk(block, _number(raw.get("index")))
            case {"type": "content_block_delta", "delta": {"type": str()} as delta}:
                return _delta_chunk(convert_json(delta, _BlockDelta), _number(raw.get("index")))
            case {"type": "message_delta", "delta": delta}:
                return self._end_chunk(convert_json(delta, _End), raw)
            case {"type": str() as kind}:
                return StreamChunk(is_end=True) if kind == "message_stop" else None
        raise MalformedResponseError(f"a stream event has no type: {excerpt(data)}")

    def _end_chunk(self, end: "_End | _WholeMessage", raw: JsonValue) -> StreamChunk:
        return StreamChunk(
            finish_reason=FinishReason.of(end.stop_reason),
            raw_finish_reason=end.stop_reason,
            refusal_reason=_refusal_reason(end.stop_reason, end.stop_details),
            **self._counted(raw),
        )

    def _counted(self, raw: JsonValue) -> JsonObject:
        record = usage_record(raw.get("message", raw))
        return {"usage": self.parse_usage(raw), "usage_record": record}

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """The counts: on this wire `input_tokens` leaves out what the cache read or wrote."""
        try:
            usage = msgspec.convert(raw.get("message", raw)["usage"], AnthropicUsage)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if usage.input_tokens is None and raw.get("type") != "message_delta":
            return None
        return counted(usage)

    def is_billed(self, response: CompletionResponse) -> bool:
        """Not for a refusal before any output (documentation of stop reasons, November 2026)."""
        wrote = response.content or response.tool_calls or response.reasoning_blocks
        return response.raw_finish_reason != "refusal" or bool(wrote)

    def merge_usage(self, earlier: UsageUpdate, later: UsageUpdate) -> UsageUpdate:
        """Of each count the last that is told. One record that cannot be used spoils the bill."""
        if earlier.usage is None or later.usage is None:
            return later if later.usage is None else earlier
        if earlier.record is None or later.record is None:  # a subclass that sends none
            return super().merge_usage(earlier, later)
        record = merged(earlier.record, later.record)
        # A record of both, as partial as the last event of a stream may be.
        usage = self.parse_usage({"type": "message_delta", "usage": record})
        return UsageUpdate(usage=usage, record=later.record if usage is None else record)

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Always: the counts come with the stop reason."""
        del requested
        return True


class _StopDetails(msgspec.Struct):
    category: str | None = None
    explanation: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: JsonValue = ""
    id: JsonValue = None
    name: JsonValue = None
    input: JsonValue = None
    thinking: JsonValue = ""
    to: JsonObject = {}


class _BlockDelta(msgspec.Struct, gc=False):
    type: str
    text: JsonValue = ""
    partial_json: JsonValue = ""
    thinking: JsonValue = ""
    signature: JsonValue = ""
    content: JsonValue = ""


class _DeltaEvent(msgspec.Struct, gc=False):
    """Nearly every event of a stream. What fits it is no other one, and no error."""

    type: Literal["content_block_delta"]
    delta: _BlockDelta
    index: JsonValue = 0
    error: None = None
    object: None = None


_delta_decoder = msgspec.json.Decoder(_DeltaEvent)


class _StartedMessage(msgspec.Struct):
    id: JsonValue = None
    model: JsonValue = None


class _End(msgspec.Struct):
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _WholeMessage(msgspec.Struct):
    content: list[JsonObject]
    id: JsonValue = None
    model: JsonValue = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


def _refusal_reason(stop_reason: str | None, details: _StopDetails | None) -> str | None:
    if stop_reason != "refusal":
        return None
    details = details or _StopDetails()
    return details.explanation or f"the model refused ({details.category or 'no reason given'})"


def _checked_text(text: JsonValue) -> str:
    if not isinstance(text, str):
        raise MalformedResponseError(f"a text block holds {excerpt_of(text)}")
    return text


def _block_chunk(raw: JsonObject, index: int) -> StreamChunk | None:
    """A block as it begins, or a whole one. What is neither text nor call is kept as it is."""
    block = convert_json(raw, _Block)
    if block.type == "text":
        text = _checked_text(block.text)
        return StreamChunk(delta=text) if text else None
    if block.type == "tool_use":
        return StreamChunk(tool_calls=(_call_delta(block, index),))
    # From a fallback on, another model answers.
    model = string_or_empty(block.to.get("model")) if block.type == "fallback" else ""
    sealed = ReasoningDelta(index=index, fields=raw)
    thought = string_or_empty(block.thinking)
    return StreamChunk(model=model, reasoning=thought, reasoning_blocks=(sealed,))


def _delta_chunk(delta: _BlockDelta, index: int) -> StreamChunk | None:
    if delta.type == "text_delta":
        text = _checked_text(delta.text)
        return StreamChunk(delta=text) if text else None
    if delta.type == "input_json_delta":
        return _input_chunk(string_or_empty(delta.partial_json), index)
    name = GROWN.get(delta.type)
    if name is None:
        return None
    text = string_or_empty(getattr(delta, name))
    sealed = ReasoningDelta(index=index, fields={name: text})
    return StreamChunk(reasoning=text if name == "thinking" else "", reasoning_blocks=(sealed,))


def _input_chunk(piece: str, index: int) -> StreamChunk | None:
    """A piece of the input of a call, which may be ours to make or the vendor's own."""
    call = ToolCallDelta(index=index, arguments=piece)
    sealed = ReasoningDelta(index=index, fields={"input": piece})
    return StreamChunk(tool_calls=(call,), reasoning_blocks=(sealed,)) if piece else None


def _number(index: JsonValue) -> int:
    """The number of a block; a relay that leaves it out has but one."""
    return index if isinstance(index, int) else 0


def _call_delta(block: _Block, index: int) -> ToolCallDelta:
    """A call as its block begins; the input of a streamed one is empty and comes in pieces."""
    arguments = json_text(block.input) if block.input else ""
    return ToolCallDelta(
        index=index,
        id=string_or_empty(block.id),
        name=string_or_empty(block.name),
        arguments=arguments,
    )
