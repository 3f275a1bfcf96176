"""Anthropic's own Messages API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.providers.chat_completions import Count
from minillmlib.providers.contract import Provider
from minillmlib.providers.failures import error_from_payload, is_error_payload
from minillmlib.providers.fields import add_extra, write_parameters
from minillmlib.values.auth import Auth, AuthKind
from minillmlib.values.json import JsonObject, JsonValue, convert_json, decode_json
from minillmlib.values.messages import Message, Role, content_text
from minillmlib.values.parameters import CompletionParameters
from minillmlib.values.responses import (
    CompletionResponse,
    FinishReason,
    StreamChunk,
    settled_finish,
)
from minillmlib.values.usage import Usage

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
            id=message.id,
            model=message.model,
            content="".join(block.text for block in message.content if block.type == "text"),
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
        event = convert_json(raw, _Event)
        match event.type:
            case "message_start" if event.message:
                start = event.message
                return StreamChunk(id=start.id, model=start.model, usage=self.parse_usage(raw))
            case "content_block_start" if event.content_block:
                return _text_chunk(event.content_block.type == "text", event.content_block.text)
            case "content_block_delta" if event.delta:
                return _text_chunk(event.delta.type == "text_delta", event.delta.text)
            case "message_delta" if event.delta:
                return self._end_chunk(event.delta, raw)
            case "message_stop":
                return StreamChunk(is_end=True)
        return None

    def _end_chunk(self, delta: _Delta, raw: JsonValue) -> StreamChunk:
        return StreamChunk(
            finish_reason=FinishReason.of(delta.stop_reason),
            raw_finish_reason=delta.stop_reason,
            refusal=_refusal(delta.stop_reason, delta.stop_details),
            usage=self.parse_usage(raw),
        )

    def parse_usage(self, raw: JsonValue) -> Usage | None:
        """The counts: on this wire `input_tokens` leaves out what the cache read or wrote."""
        try:
            usage = msgspec.convert(raw.get("message", raw)["usage"], _Usage)
        except (ValueError, TypeError, KeyError, AttributeError):
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
        if turns and turns[-1]["role"] is message.role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": message.role, "content": blocks})
    if not turns:
        raise InvalidParameterError(
            "Anthropic needs at least one user message with text besides the system prompt"
        )
    return turns


def _blocks(message: Message) -> Iterator[JsonObject]:
    """The content blocks; one without visible text would be refused with status 400."""
    content = message.content
    texts = (content,) if isinstance(content, str) else (part.text for part in content)
    return ({"type": "text", "text": text} for text in texts if text.strip())


def _text_chunk(is_text: bool, text: str) -> StreamChunk | None:  # noqa: FBT001 - private
    return StreamChunk(delta=text) if is_text and text else None


class _StopDetails(msgspec.Struct):
    category: str | None = None
    explanation: str | None = None


def _refusal(stop_reason: str | None, details: _StopDetails | None) -> str | None:
    if stop_reason != "refusal":
        return None
    details = details or _StopDetails()
    return details.explanation or f"the model refused ({details.category or 'no reason given'})"


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _WholeMessage(msgspec.Struct):
    content: list[_Block]
    id: str = ""
    model: str = ""
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _StartedMessage(msgspec.Struct):
    id: str = ""
    model: str = ""


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _StartedMessage | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class _Usage(msgspec.Struct):
    output_tokens: Count
    input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None
