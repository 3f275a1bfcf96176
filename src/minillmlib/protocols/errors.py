"""A server's own account of a failure, as one of our errors.

One table serves all wires, since the vendors' words do not collide and gateways answer in
each other's dialects anyway. What is looked at, in this order: the message (a few causes
hide behind a general code), the symbolic codes, then the number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec

from minillmlib.errors import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    ContentFilterError,
    ContextLengthError,
    MalformedResponseError,
    ModelLoadingError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
)
from minillmlib.json_value import JsonObject, JsonValue, decode_json, excerpt, excerpt_of

__all__ = ["error_from_payload", "error_from_reply", "is_error_payload", "request_id_of"]

_RETRY_WORDS = {"true": True, "false": False}  # the word of OpenAI's and Anthropic's servers
ID_HEADERS = ("x-request-id", "request-id", "x-generation-id")
MESSAGE_CHARS = 2000
CODE_CHARS = 100

_BY_MESSAGE: tuple[tuple[str, type[ApiError]], ...] = (
    ("prompt is too long", ContextLengthError),
    ("maximum context length", ContextLengthError),
    ("available context size", ContextLengthError),
    ("context size has been exceeded", ContextLengthError),
    ("request too large for", RequestTooLargeError),
    ("credit balance", BillingError),
    ("extra usage", BillingError),
    ("spend limit", BillingError),
    ("api usage limits", BillingError),
    ("only authorized for use with claude code", AuthenticationError),
    ("oauth authentication is currently not supported", AuthenticationError),
)

_BY_WORD: dict[str, type[ApiError]] = {
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "token_limit_exceeded": ContextLengthError,
    "invalid_api_key": AuthenticationError,
    "authentication": AuthenticationError,
    "authentication_error": AuthenticationError,
    "insufficient_quota": BillingError,
    "exceeded_current_quota_error": BillingError,
    "billing_error": BillingError,
    "payment_required": BillingError,
    "permission_denied": PermissionDeniedError,
    "permission_error": PermissionDeniedError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "refusal": ContentFilterError,
    "model_not_found": NotFoundError,
    "not_found": NotFoundError,
    "not_found_error": NotFoundError,
    "payload_too_large": RequestTooLargeError,
    "request_too_large": RequestTooLargeError,
    "conflict_error": ConflictError,
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "capacity_exhausted": RateLimitError,
    "overloaded_error": OverloadedError,
    "provider_overloaded": OverloadedError,
    "temporarily_unavailable": OverloadedError,
}

# Words so general that a status says more; they count only inside a success.
_BY_GENERAL_WORD: dict[str, type[ApiError]] = {
    **dict.fromkeys(("timeout", "timeout_error"), ServerTimeoutError),
    **dict.fromkeys(("api_error", "provider_unavailable", "server", "server_error"), ServerError),
    **dict.fromkeys(
        (
            "integer_below_min_value",
            "invalid_prompt",
            "invalid_request",
            "invalid_request_error",
            "invalid_value",
            "max_tokens_exceeded",
            "string_above_max_length",
            "string_too_long",
            "unprocessable",
            "unsupported_parameter",
            "unsupported_value",
        ),
        BadRequestError,
    ),
}

_BY_STATUS: dict[int, type[ApiError]] = {
    401: AuthenticationError,
    402: BillingError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerTimeoutError,
    409: ConflictError,
    413: RequestTooLargeError,
    429: RateLimitError,
    503: OverloadedError,
    504: ServerTimeoutError,
    524: ServerTimeoutError,
    529: OverloadedError,
}

_ADVICE: dict[type[ApiError], str] = {
    AuthenticationError: "check that the key is right and meant for this address",
    BillingError: "add credit or raise the limit at the provider; waiting does not help",
    ContextLengthError: "shorten the conversation or lower max_tokens",
    NotFoundError: "check the model's name and the base_url",
    RequestTooLargeError: "send less in one request",
}

_SUBSCRIPTION_ADVICE = (
    "the vendor restricts subscription tokens to its own programs; "
    "use an API key with GeneratorInfo.anthropic(model)"
)


class _Account(msgspec.Struct, frozen=True):
    """What an error body says, whatever its shape."""

    message: str
    words: tuple[str, ...] = ()
    number: int | None = None
    retry_after: JsonValue = None
    is_moderation: bool = False
    is_retryable: bool | None = None
    request_id: str | None = None


def is_error_payload(payload: JsonValue) -> bool:
    """Whether a JSON body that came with a success status is in truth an error."""
    if isinstance(payload, list):  # Gemini sends errors so
        return bool(payload and isinstance(payload[0], dict) and payload[0].get("error"))
    if not isinstance(payload, dict):
        return False
    is_named = payload.get("object") == "error" or payload.get("type") == "error"
    return is_named or bool(payload.get("error"))


def error_from_reply(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error for an answer whose status is not a success."""
    if 300 <= status < 400:
        return _redirect_error(status, headers)
    try:
        payload = decode_json(body)
    except MalformedResponseError:
        account = _Account(message=_page_title(body) or excerpt(body) or "(no text)")
    else:
        account = _account_of(payload)
    return _error(account, status, headers)


def error_from_payload(payload: JsonValue, *, partial: str = "") -> ApiError:
    """The error for a JSON body or stream event that reports a failure inside a success."""
    error = _error(_account_of(payload), 200, {})
    error.partial = partial
    return error


def _error(account: _Account, status: int, headers: Mapping[str, str]) -> ApiError:
    kind = _kind_of(account, status)
    advice = _ADVICE.get(kind)
    if kind in (AuthenticationError, BillingError) and _is_about_subscription(account.message):
        advice = _SUBSCRIPTION_ADVICE
    said = excerpt(account.message, MESSAGE_CHARS)
    where = f"with status {status}" if status >= 400 else "inside a successful response"
    error = kind(
        f"the server reported an error {where}: {said}" + (f" ({advice})" if advice else ""),
        status=status,
        code=excerpt(account.words[0], CODE_CHARS) if account.words else None,
        retry_after_secs=_retry_after_secs(headers, account.retry_after),
        request_id=request_id_of(headers) or account.request_id,
    )
    told = _RETRY_WORDS.get(headers.get("x-should-retry", ""), account.is_retryable)
    if told is not None and kind is not BillingError:  # the server knows best, but for money
        error.is_retryable = told
    return error


def _kind_of(account: _Account, status: int) -> type[ApiError]:
    if status == 413:  # Groq calls it a rate limit, but the one request is too large
        return RequestTooLargeError
    if account.is_moderation:
        return ContentFilterError
    told = _kind_of_message(account.message.lower(), status) or _kind_of_words(account, _BY_WORD)
    if told is not None:
        return told
    if status >= 400:
        return _kind_of_number(status)
    return _kind_of_words(account, _BY_GENERAL_WORD) or _kind_of_number(account.number)


def _kind_of_message(message: str, status: int) -> type[ApiError] | None:
    if status == 503 and "loading model" in message:
        return ModelLoadingError
    return next((kind for phrase, kind in _BY_MESSAGE if phrase in message), None)


def _kind_of_words(account: _Account, kinds: Mapping[str, type[ApiError]]) -> type[ApiError] | None:
    return next((kinds[word] for word in account.words if word in kinds), None)


def _kind_of_number(number: int | None) -> type[ApiError]:
    if number in _BY_STATUS:
        return _BY_STATUS[number]
    # A failure inside a success that gives no usual number is the server's own.
    return BadRequestError if number is not None and 400 <= number < 500 else ServerError


def _account_of(payload: JsonValue) -> _Account:
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return _Account(message=excerpt_of(payload))
    error = payload.get("error")
    fields: JsonObject = error if isinstance(error, dict) else payload
    metadata = _object(fields.get("metadata"))
    availability = _object(fields.get("availability"))
    return _Account(
        message=_message_of(error if isinstance(error, str) else fields, metadata),
        words=tuple(_words(fields, metadata, availability)),
        number=_number(fields.get("code")),
        retry_after=availability.get("retry_after"),
        is_moderation=bool(metadata.get("reasons")),
        is_retryable=_bool_or_none(availability.get("retryable")),
        request_id=_text(payload.get("request_id")),
    )


def _message_of(said: str | JsonObject, metadata: JsonObject) -> str:
    if isinstance(said, str):
        return said
    message = said.get("message") or said.get("detail")
    if isinstance(message, dict):
        message = message.get("detail") or message
    if isinstance(message, list):
        message = "; ".join(_complaint(item) for item in message)
    raw = metadata.get("raw")
    shown = raw if isinstance(raw, str) else excerpt_of(raw)
    detail = f" (upstream: {excerpt(shown)})" if raw else ""
    return (message if isinstance(message, str) else excerpt_of(message or said)) + detail


def _complaint(item: JsonValue) -> str:
    """One validation error of FastAPI's kind: where, and what."""
    fields = _object(item)
    place = fields.get("loc")
    path = (
        ".".join(p if isinstance(p, str) else excerpt_of(p) for p in place)
        if isinstance(place, list)
        else ""
    )
    said = fields.get("msg", item)
    return f"{path}: {said if isinstance(said, str) else excerpt_of(said)}"


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


def _bool_or_none(value: JsonValue) -> bool | None:
    return value if isinstance(value, bool) else None


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(value: JsonValue) -> str | None:
    return excerpt(value) if isinstance(value, str) and value else None


def _is_about_subscription(message: str) -> bool:
    said = message.lower()
    return "claude code" in said or "extra usage" in said or "oauth" in said


def _redirect_error(status: int, headers: Mapping[str, str]) -> RedirectError:
    target = excerpt(headers.get("location", "(nowhere)"))
    return RedirectError(
        f"the server answered with a redirect ({status}) to {target}; redirects are not "
        "followed, so that key and prompt stay with one server: set base_url to the right one",
        status=status,
        request_id=request_id_of(headers),
    )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The server's name for the exchange, under any of the vendors' headers."""
    for name in ID_HEADERS:
        if name in headers:
            return excerpt(headers[name])
    return None


def _page_title(body: bytes) -> str | None:
    """The title of an HTML page, which is what a gateway's error page says in short."""
    lower = body[:65536].lower()
    start = lower.find(b"<title>")
    end = lower.find(b"</title>", start)
    if start < 0 or end < 0:
        return None
    return "an HTML page: " + excerpt(body[start + len("<title>") : end])


def _retry_after_secs(headers: Mapping[str, str], in_body: JsonValue) -> float | None:
    candidates: tuple[Callable[[], float], ...] = (
        lambda: float(headers["retry-after-ms"]) / 1000,
        lambda: float(headers["retry-after"]),
        lambda: _secs_until(headers["retry-after"]),
        lambda: float(in_body),
    )
    for candidate in candidates:
        try:
            secs = candidate()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(secs) and secs > 0:
            return secs
    return None


def _secs_until(date: str) -> float:
    import datetime as dt  # noqa: PLC0415 - as below
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - costs half of our import

    moment = parsedate_to_datetime(date)
    if moment.tzinfo is None:  # the dates of HTTP are UTC, also where they do not say so
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp() - time.time()
