"""Turns the failure that a server reports into one of our errors.

One table serves all wires, since the vendors' words do not collide and gateways answer in each
other's dialects anyway. The message is read first (a few causes hide behind a general code), then
the symbolic codes, then the number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from minillmlib import errors
from minillmlib.errors import ApiError, BadRequestError, BillingError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, excerpt, excerpt_of
from minillmlib.protocols.rate_limits import parse_retry_after

MESSAGE_CHARS = 2000
CODE_CHARS = 100
RETRY_WORDS = {"true": True, "false": False}  # of OpenAI's and Anthropic's servers

Explanation: TypeAlias = Callable[[], str | None]

# A few causes hide behind a general code.
_BY_PHRASE: dict[str, type[ApiError]] = {
    "prompt is too long": errors.ContextLengthError,
    "maximum context length": errors.ContextLengthError,
    "available context size": errors.ContextLengthError,
    "context size has been exceeded": errors.ContextLengthError,
    "request too large for": errors.RequestTooLargeError,
    "credit balance": BillingError,
    "extra usage": BillingError,
    "spend limit": BillingError,
    "api usage limits": BillingError,
    "only authorized for use with claude code": errors.AuthenticationError,
    "oauth authentication is currently not supported": errors.AuthenticationError,
}


def _by_word(words: dict[type[ApiError], str]) -> dict[str, type[ApiError]]:
    return {word: kind for kind, each in words.items() for word in each.split()}


_BY_WORD = _by_word(
    {
        errors.ContextLengthError: (
            "context_length_exceeded exceed_context_size_error token_limit_exceeded"
        ),
        errors.AuthenticationError: "invalid_api_key authentication authentication_error",
        BillingError: (
            "insufficient_quota exceeded_current_quota_error billing_error payment_required"
        ),
        errors.PermissionDeniedError: "permission_denied permission_error",
        errors.ContentFilterError: "content_filter content_policy_violation refusal",
        errors.NotFoundError: "model_not_found not_found not_found_error",
        errors.RequestTooLargeError: "payload_too_large request_too_large",
        errors.ConflictError: "conflict_error",
        errors.RateLimitError: "rate_limit_exceeded rate_limit_error capacity_exhausted",
        errors.OverloadedError: "overloaded_error provider_overloaded temporarily_unavailable",
    }
)

# Words so general that a status says more; they count only inside a success.
_BY_GENERAL_WORD = _by_word(
    {
        errors.ServerTimeoutError: "timeout timeout_error",
        errors.ServerError: "api_error provider_unavailable server server_error",
        BadRequestError: (
            "integer_below_min_value invalid_prompt invalid_request invalid_request_error "
            "invalid_value max_tokens_exceeded string_above_max_length string_too_long "
            "unprocessable unsupported_parameter unsupported_value"
        ),
    }
)

_BY_STATUS: dict[int | None, type[ApiError]] = {
    401: errors.AuthenticationError,
    402: BillingError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.ServerTimeoutError,
    409: errors.ConflictError,
    413: errors.RequestTooLargeError,
    429: errors.RateLimitError,
    503: errors.OverloadedError,
    504: errors.ServerTimeoutError,
    524: errors.ServerTimeoutError,
    529: errors.OverloadedError,
}

_ADVICE: dict[type[ApiError], str] = {
    errors.AuthenticationError: "check that the key is right and meant for this address",
    BillingError: "add credit or raise the limit at the provider; waiting does not help",
    errors.ContextLengthError: "shorten the conversation or lower max_tokens",
    errors.NotFoundError: "check the model's name and the base_url",
    errors.RequestTooLargeError: "send less in one request",
}

SUBSCRIPTION_WORDS = ("claude code", "extra usage", "oauth")
SUBSCRIPTION_ADVICE = (
    "the vendor restricts subscription tokens to its own programs; "
    "use an API key with GeneratorInfo.anthropic(model)"
)


class _ErrorBody(msgspec.Struct, frozen=True):
    """The facts of an error body, whatever its shape."""

    message: str
    words: tuple[str, ...] = ()
    number: int | None = None
    retry_after: JsonValue = None
    is_moderation: bool = False
    is_retryable: bool | None = None
    request_id: str | None = None


def error_from_reply(
    status: int, headers: Mapping[str, str], body: bytes, explain: Explanation | None = None
) -> ApiError:
    """Return the error for an answer whose status is not a success.

    `explain` gives known reasons why the server refuses such a request; they are added to the
    message of a `BadRequestError`.
    """
    if 300 <= status < 400:
        target = excerpt(headers.get("location", "(nowhere)"))
        return errors.RedirectError(
            f"the server answered with a redirect ({status}) to {target}; redirects are not "
            "followed, so that key and prompt stay with one server: set base_url to the right one",
            status=status,
        )
    try:
        payload = decode_json(body)
    except MalformedResponseError:
        error_body = _ErrorBody(message=_page_title(body) or excerpt(body) or "(no text)")
    else:
        error_body = _parse_error_body(payload)
    return _error(error_body, status, headers, explain)


def error_from_payload(payload: JsonValue, *, partial: str = "") -> ApiError:
    """Return the error for a JSON body or stream event that reports a failure inside a success."""
    error = _error(_parse_error_body(payload), 200, {})
    error.partial = partial
    return error


def _error(
    body: _ErrorBody, status: int, headers: Mapping[str, str], explain: Explanation | None = None
) -> ApiError:
    kind = _kind(body, status)
    advice = explain() if explain and kind is BadRequestError else _ADVICE.get(kind)
    is_subscription = any(words in body.message.lower() for words in SUBSCRIPTION_WORDS)
    if is_subscription and kind in (errors.AuthenticationError, BillingError):
        advice = SUBSCRIPTION_ADVICE
    message = excerpt(body.message, MESSAGE_CHARS)
    where = f"with status {status}" if status >= 400 else "inside a successful response"
    error = kind(
        f"the server reported an error {where}: {message}" + (f" ({advice})" if advice else ""),
        status=status,
        code=excerpt(body.words[0], CODE_CHARS) if body.words else None,
        retry_after_secs=parse_retry_after(headers, body.retry_after),
        request_id=body.request_id,
    )
    is_retryable = RETRY_WORDS.get(headers.get("x-should-retry", ""), body.is_retryable)
    if is_retryable is not None and kind is not BillingError:  # but money does not come by itself
        error.is_retryable = is_retryable
    return error


def _kind(body: _ErrorBody, status: int) -> type[ApiError]:
    if status == 413:  # Groq calls it a rate limit, but the one request is too large
        return errors.RequestTooLargeError
    if body.is_moderation:
        return errors.ContentFilterError
    message = body.message.lower()
    if status == 503 and "loading model" in message:
        return errors.ModelLoadingError
    for phrase, kind in _BY_PHRASE.items():
        if phrase in message:
            return kind
    tables = (_BY_WORD,) if status >= 400 else (_BY_WORD, _BY_GENERAL_WORD)
    by_word = [table[word] for table in tables for word in body.words if word in table]
    number = status if status >= 400 else body.number
    if by_word or number in _BY_STATUS:
        return by_word[0] if by_word else _BY_STATUS[number]
    # A failure inside a success without a usual number is a failure of the server.
    return BadRequestError if number is not None and 400 <= number < 500 else errors.ServerError


def _parse_error_body(payload: JsonValue) -> _ErrorBody:
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return _ErrorBody(message=excerpt_of(payload))
    error = payload.get("error")
    fields: JsonObject = error if isinstance(error, dict) else payload
    metadata = _object(fields.get("metadata"))
    availability = _object(fields.get("availability"))
    is_retryable, request_id = availability.get("retryable"), payload.get("request_id")
    return _ErrorBody(
        message=error if isinstance(error, str) else _message(fields, metadata),
        words=tuple(_words(fields, metadata, availability)),
        number=_number(fields.get("code")),
        retry_after=availability.get("retry_after"),
        is_moderation=bool(metadata.get("reasons")),
        is_retryable=is_retryable if isinstance(is_retryable, bool) else None,
        request_id=excerpt(request_id) if isinstance(request_id, str) and request_id else None,
    )


def _message(error: JsonObject, metadata: JsonObject) -> str:
    message = error.get("message") or error.get("detail")
    if isinstance(message, dict):
        message = message.get("detail") or message
    if isinstance(message, list):
        message = "; ".join(_validation_error(item) for item in message)
    raw = metadata.get("raw")
    upstream = f" (upstream: {excerpt(_text_of(raw))})" if raw else ""
    text = message if isinstance(message, str) else excerpt_of(message or error)
    return text + upstream


def _validation_error(item: JsonValue) -> str:
    fields = _object(item)  # of FastAPI's kind
    place = fields.get("loc")
    path = ".".join(map(_text_of, place)) if isinstance(place, list) else ""
    return f"{path}: {_text_of(fields.get('msg', item))}"


def _text_of(value: JsonValue) -> str:
    return value if isinstance(value, str) else excerpt_of(value)


def _words(*places: JsonObject) -> Iterator[str]:
    for fields in places:
        for key in ("code", "type", "error_type", "status"):
            word = fields.get(key)
            if isinstance(word, str) and word not in ("", "error") and not word.isdigit():
                yield word


def _number(code: JsonValue) -> int | None:
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        return int(code)
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _page_title(body: bytes) -> str | None:
    """Return the title of an HTML page: a gateway's error page in short."""
    lower = body[:65536].lower()
    start = lower.find(b"<title>")
    end = lower.find(b"</title>", start)
    if start < 0 or end < 0:
        return None
    return "an HTML page: " + excerpt(body[start + len("<title>") : end])
