"""Anthropic's own Messages API."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.providers.contract import Provider
from minillmlib.providers.failures import error_from_payload, is_error_payload
from minillmlib.providers.fields import add_extra, write_parameters
from minillmlib.values.auth import Auth, AuthKind
from minillmlib.values.json import (
    JsonObject,
    JsonValue,
    convert_json,
    decode_json,
    excerpt,
    excerpt_of,
)
from minillmlib.values.messages import Message, Role, content_text
from minillmlib.values.parameters import CompletionParameters
from minillmlib.values.responses import (
    CompletionResponse,
    FinishReason,
    StreamChunk,
    settled_finish,
)
from minillmlib.values.usage import Count, Usage

__all__ = ["AnthropicProvider"]

# The version that still takes temperature, top_p and top_k; 2026-10-21 refuses them.
API_VERSION = "2023-06-01"
OAUTH_BETA = "oauth-2025-04-20"
DEFAULT_MAX_TOKENS = 4096  # the wire demands a limit

_FIELDS: Mapping[str, str] = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop": "stop_sequences",
}


class AnthropicProvider(Provider):
    """The native `/v1/messages` wire, with an API key or a subscription's token."""

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
        body: JsonObject = {"model": model, "messages": _turns(messages)}
        body |= {"max_tokens": DEFAULT_MAX_TOKENS} | write_parameters(params, _FIELDS, "Anthropic")
        system = _system_text(messages)
        if system:
            body["system"] = system
        if stream:
            body["stream"] = True
        return add_extra(body, params.extra)

    def parse_response(self, raw: JsonValue) -> CompletionResponse:
        """The text blocks of the answer, joined."""
        if is_error_payload(raw):
            raise error_from_payload(raw)
        message = convert_json(raw, _WholeMessage)
        refusal = _refusal(message.stop_reason, message.stop_details)
        return CompletionResponse(
            id=_string(message.id),
            model=_string(message.model),
            content="".join(_text_of(block) for block in message.content),
            finish_reason=settled_finish(FinishReason.of(message.stop_reason), refusal),
            raw_finish_reason=message.stop_reason,
            refusal=refusal,
            usage=self.parse_usage(raw),
            raw_response=raw,
        )

    def parse_chunk(self, data: str) -> StreamChunk | None:
        """One event, told by the `type` inside its JSON. Unknown types say nothing."""
        raw = decode_json(data)
        if is_error_payload(raw):
            raise error_from_payload(raw)
        match raw:
            case {"type": "message_start", "message": message}:
                start = convert_json(message, _StartedMessage)
                name, model = _string(start.id), _string(start.model)
                return StreamChunk(id=name, model=model, usage=self.parse_usage(raw))
            case {"type": "content_block_start", "content_block": {"type": "text"} as block}:
                return _text_chunk(convert_json(block, _Block))
            case {"type": "content_block_delta", "delta": {"type": "text_delta"} as delta}:
                return _text_chunk(convert_json(delta, _Block))
            case {"type": "message_delta", "delta": delta}:
                return self._end_chunk(convert_json(delta, _End), raw)
            case {"type": "message_stop"}:
                return StreamChunk(is_end=True)
            case {"type": str()}:
                return None
        raise MalformedResponseError(f"a stream event has no type: {excerpt(data)}")

    def _end_chunk(self, end: "_End", raw: JsonValue) -> StreamChunk:
        return StreamChunk(
            finish_reason=FinishReason.of(end.stop_reason),
            raw_finish_reason=end.stop_reason,
            refusal=_refusal(end.stop_reason, end.stop_details),
            usage=self.parse_usage(raw),
        )

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """The counts: on this wire `input_tokens` leaves out what the cache read or wrote."""
        try:
            usage = msgspec.convert(raw.get("message", raw)["usage"], _Usage)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        if usage.input_tokens is None and raw.get("type") != "message_delta":
            return None
        details = usage.output_tokens_details or _OutputDetails()
        return Usage(
            uncached_input_tokens=usage.input_tokens or 0,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_write_tokens=usage.cache_creation_input_tokens or 0,
            completion_tokens=usage.output_tokens,
            reasoning_tokens=details.thinking_tokens or 0,
        )

    def emits_stream_usage(self, requested: bool) -> bool:  # noqa: FBT001 - the contract's
        """Always: the counts come with the stop reason."""
        del requested
        return True


def _system_text(messages: Sequence[Message]) -> str:
    texts = (content_text(m.content) for m in messages if m.role is Role.SYSTEM)
    return "\n\n".join(text for text in texts if text.strip())


def _turns(messages: Sequence[Message]) -> list[JsonObject]:
    """User and assistant turns, alternating: old relays insist on it."""
    turns: list[JsonObject] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        blocks = list(_blocks(message))
        if not blocks and message is messages[-1]:
            raise InvalidParameterError("Anthropic takes no message without visible text")
        if turns and turns[-1]["role"] is message.role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": message.role, "content": blocks})
    if not turns:
        raise InvalidParameterError("Anthropic needs a user message besides the system prompt")
    return turns


def _blocks(message: Message) -> Iterator[JsonObject]:
    """The content blocks; one without visible text would be refused with status 400."""
    content = message.content
    texts = (content,) if isinstance(content, str) else (part.text for part in content)
    return ({"type": "text", "text": text} for text in texts if text.strip())


class _StopDetails(msgspec.Struct):
    category: str | None = None
    explanation: str | None = None


class _Block(msgspec.Struct):
    type: str
    text: JsonValue = ""


class _WholeMessage(msgspec.Struct):
    content: list[_Block]
    id: JsonValue = None
    model: JsonValue = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _StartedMessage(msgspec.Struct):
    id: JsonValue = None
    model: JsonValue = None


class _End(msgspec.Struct):
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


def _refusal(stop_reason: str | None, details: _StopDetails | None) -> str | None:
    if stop_reason != "refusal":
        return None
    details = details or _StopDetails()
    return details.explanation or f"the model refused ({details.category or 'no reason given'})"


def _text_of(block: _Block) -> str:
    """The text of a text block or delta; other kinds of block have none."""
    if block.type not in ("text", "text_delta"):
        return ""
    if not isinstance(block.text, str):
        raise MalformedResponseError(f"a text block holds {excerpt_of(block.text)}")
    return block.text


def _text_chunk(block: _Block) -> StreamChunk | None:
    text = _text_of(block)
    return StreamChunk(delta=text) if text else None


def _string(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class _Usage(msgspec.Struct):
    output_tokens: Count
    input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None
