"""Turns the failure that a server reports into one of our errors.

One table, `error_words`, serves all wires, since the vendors' words do not collide and gateways
answer in each other's dialects anyway. The message is read first (a few causes hide behind a
general code), then the symbolic codes, then the number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from minillmlib import errors
from minillmlib.errors import ApiError, BadRequestError, BillingError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, excerpt, excerpt_of
from minillmlib.protocols.error_words import (
    BASE_RESP_CODES,
    GENERAL_WORDS,
    MESSAGE_KEYS,
    MORE_MESSAGE_KEYS,
    PHRASE_STATUSES,
    PHRASES,
    WORDS,
    ZAI_BILLING_CODES,
)
from minillmlib.protocols.rate_limits import parse_retry_after, parse_wait
from minillmlib.streaming.sse import SseDecoder

MESSAGE_CHARS = 2000
CODE_CHARS = 100
READ_CHARS = 8000  # of a message, where its phrases are looked for
GAP_CHARS = 40  # at the `...` of a phrase
ECHO_CHARS = 400
KEY_CHARS = 16
MAX_EVENT_BYTES = 1024 * 1024
RETRY_WORDS = {"true": True, "false": False}  # of OpenAI's and Anthropic's servers

Explanation: TypeAlias = Callable[[], str | None]

_BY_STATUS: dict[int | None, type[ApiError]] = {
    401: errors.AuthenticationError,
    402: BillingError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.ServerTimeoutError,
    409: errors.ConflictError,
    413: errors.RequestTooLargeError,
    424: errors.ServerError,  # the model failed: Bedrock, TGI
    429: errors.RateLimitError,
    503: errors.OverloadedError,
    504: errors.ServerTimeoutError,
    524: errors.ServerTimeoutError,
    529: errors.OverloadedError,
}

_ADVICE: dict[type[ApiError], str] = {
    errors.AuthenticationError: "check that a key is set, and that it is meant for this address",
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


# Patterns are texts, so that `re` compiles them at the first failure and not at import.
# Quoted text of several words is a value that the server echoes, unless it is the message of
# another error. An apostrophe inside a word is no quote.
_QUOTED = (
    r"""(?<![\w\\])(?:"[^"\n]{1,N}+"|“[^”\n]{1,N}+”|`[^`\n]{1,N}+`|'(?:[^'\n]|'(?=\w)){1,N}+'(?!\w))"""
).replace("N", str(ECHO_CHARS))
_OF_A_MESSAGE = r"""(?:message|error|detail|msg|reason|raw)['"]?\s?[:=]\s?$"""
_EVENTS = rb"\s*(?:data|event|error|id|retry)?:"


class _ErrorBody(msgspec.Struct, frozen=True):
    """The facts of an error body, whatever its shape. `kind` is what a vendor's number means."""

    message: str
    words: tuple[str, ...] = ()
    number: int | None = None
    kind: type[ApiError] | None = None
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
        error_body = _parse_error_body(_decode_error(body))
    except MalformedResponseError:
        error_body = _ErrorBody(message=_page_title(body) or excerpt(body) or "(no text)")
    return _error(error_body, status, headers, explain)


def error_from_payload(payload: JsonValue, *, partial: str = "") -> ApiError:
    """Return the error for a JSON body or stream event that reports a failure inside a success."""
    error = _error(_parse_error_body(payload), 200, {})
    error.partial = partial
    return error


def error_without_key(payload: JsonValue) -> ApiError | None:
    """Return the error for a JSON body or event with a message and no answer, or None.

    Servers report failures so inside a success, without the key `error`. A cause that is not in
    our tables is final: nothing says that it passes.
    """
    if not isinstance(payload, dict):
        return None
    if base_resp_code(payload):
        return error_from_payload(payload)
    if not payload.get("errors") and not any(_is_message(payload.get(key)) for key in MESSAGE_KEYS):
        return None
    error = error_from_payload(payload)
    if _kind(_parse_error_body(payload), 200, {}) is None:
        error.is_retryable = False
    return error


def error_from_page(headers: Mapping[str, str], body: bytes) -> MalformedResponseError | None:
    """Return the error for a success with a page for people, or None for a body for programs."""
    text = body.lstrip()
    kind = headers.get("content-type", "").lower()
    is_page = text.startswith(b"<") or (
        kind.startswith(("text/html", "text/plain")) and not text.startswith((b"{", b"[", b'"'))
    )
    if not is_page:
        return None
    page = _page_title(body) or "a text: " + excerpt(body)
    return MalformedResponseError(
        f"the server answered with {page}; check that base_url is the address of an API, "
        "which often ends in /v1"
    )


def _decode_error(body: bytes) -> JsonValue:
    """Return the JSON of an error's body; of events, the first JSON in them, else their text."""
    if not re.match(_EVENTS, body):
        return decode_json(body)
    texts = [event.data for event in SseDecoder().feed(body[:MAX_EVENT_BYTES] + b"\n\n")]
    for text in texts:
        if text.lstrip().startswith(("{", "[")):
            return decode_json(text)
    return {"message": texts[0] if texts else excerpt(body)}


def _error(
    body: _ErrorBody, status: int, headers: Mapping[str, str], explain: Explanation | None = None
) -> ApiError:
    # A failure inside a success without a known cause is a failure of the server.
    kind = _kind(body, status, headers) or errors.ServerError
    advice = explain() if explain and kind is BadRequestError else _ADVICE.get(kind)
    start = body.message[:READ_CHARS].lower()  # of a long text it would take twelve times as much
    is_subscription = any(words in start for words in SUBSCRIPTION_WORDS)
    if is_subscription and kind in (errors.AuthenticationError, BillingError):
        advice = SUBSCRIPTION_ADVICE
    message = excerpt(body.message, MESSAGE_CHARS)
    where = f"with status {status}" if status >= 400 else "inside a successful response"
    error = kind(
        f"the server reported an error {where}: {message}" + (f" ({advice})" if advice else ""),
        status=status,
        code=next((excerpt(word, CODE_CHARS) for word in _all_words(body, headers)), None),
        retry_after_secs=_wait(body, headers, kind),
        request_id=body.request_id,
    )
    is_retryable = RETRY_WORDS.get(headers.get("x-should-retry", ""), body.is_retryable)
    if is_retryable is not None and kind is not BillingError:  # but money does not come by itself
        error.is_retryable = is_retryable
    return error


def _wait(body: _ErrorBody, headers: Mapping[str, str], kind: type[ApiError]) -> float | None:
    if not kind.is_retryable:  # Google names a delay even for a quota of the day
        return parse_retry_after(headers, None)
    in_text = parse_wait(body.message[:READ_CHARS])
    return parse_retry_after(headers, body.retry_after) or parse_retry_after({}, in_text)


def _all_words(body: _ErrorBody, headers: Mapping[str, str]) -> Iterator[str]:
    yield from body.words
    name = headers.get("x-amzn-errortype", "").partition(":")[0]  # where AWS alone has it
    if name:
        yield name


def _kind(body: _ErrorBody, status: int, headers: Mapping[str, str]) -> type[ApiError] | None:
    """Return the class of a failure, or None if nothing of it is known."""
    number = status if status >= 400 else body.number
    by_phrase = _kind_by_phrase(body.message, number)
    by_word = _kind_by_word(_all_words(body, headers), is_success=status < 400)
    if status == 413 and errors.ContextLengthError not in (by_phrase, by_word):
        return errors.RequestTooLargeError  # Groq calls it a rate limit, but one is too large
    if body.is_moderation:
        return errors.ContentFilterError
    by_vendor = body.kind if status < 400 or status == 429 else None
    return by_phrase or by_vendor or by_word or _kind_by_number(number)


def _kind_by_phrase(message: str, number: int | None) -> type[ApiError] | None:
    text = re.sub(_QUOTED, _drop_echo, message[:READ_CHARS]).lower()
    for kind, phrases in PHRASES.items():
        statuses = PHRASE_STATUSES.get(kind)
        if statuses is not None and number not in statuses:
            continue
        if any(_occurs(phrase, text) for phrase in phrases):
            return kind
    return None


def _drop_echo(quoted: re.Match[str]) -> str:
    start = quoted.start()
    key = quoted.string[max(0, start - KEY_CHARS) : start]
    is_kept = " " not in quoted[0] or re.search(_OF_A_MESSAGE, key)
    return quoted[0] if is_kept else "(...)"


def _occurs(phrase: str, text: str) -> bool:
    first, *rest = phrase.split("...")
    if first not in text:
        return False
    pattern = f"[^.;\n]{{0,{GAP_CHARS}}}?".join(map(re.escape, (first, *rest)))
    return not rest or re.search(pattern, text) is not None


def _kind_by_word(words: Iterator[str], *, is_success: bool) -> type[ApiError] | None:
    lower = [word.lower() for word in words]
    tables = (WORDS, GENERAL_WORDS) if is_success else (WORDS,)
    return next((table[word] for table in tables for word in lower if word in table), None)


def _kind_by_number(number: int | None) -> type[ApiError] | None:
    if number is None or number in _BY_STATUS:
        return _BY_STATUS.get(number)
    return BadRequestError if number < 500 else errors.ServerError


def _parse_error_body(payload: JsonValue) -> _ErrorBody:
    if isinstance(payload, list) and payload:
        payload = payload[0]
    if not isinstance(payload, dict):
        return _ErrorBody(message=excerpt_of(payload))
    error, failures = payload.get("error"), payload.get("errors")
    fields: JsonObject = error if isinstance(error, dict) else payload
    if base_resp_code(payload):
        fields = _object(payload["base_resp"])
    elif not error and isinstance(failures, list) and failures:  # Cloudflare's
        fields = {**_object(failures[0]), **payload}
    metadata = _object(fields.get("metadata"))
    availability = _object(fields.get("availability"))
    details = _details(fields)
    is_retryable, request_id = availability.get("retryable"), payload.get("request_id")
    code = fields.get("code")
    return _ErrorBody(
        message=_message(fields, metadata) + _filter_note(fields),
        words=(*_words(fields, metadata, availability), *_detail_words(details)),
        number=_number(code) or _number(fields.get("status")),
        kind=_vendors_kind(payload, code),
        retry_after=availability.get("retry_after") or _retry_delay(details),
        is_moderation=bool(metadata.get("reasons")),
        is_retryable=is_retryable if isinstance(is_retryable, bool) else None,
        request_id=excerpt(request_id) if isinstance(request_id, str) and request_id else None,
    )


def _filter_note(fields: JsonObject) -> str:
    """Return what Azure's filter found in a prompt."""
    inner = _object(fields.get("innererror"))
    results = _object(inner.get("content_filter_result") or inner.get("content_filter_results"))
    found = [name for name, result in results.items() if _object(result).get("filtered") is True]
    return f" (filtered: {', '.join(found)})" if found else ""


def base_resp_code(payload: JsonObject) -> int:
    """Return MiniMax's code of a failure inside a success, or 0."""
    code = _object(payload.get("base_resp")).get("status_code")
    return code if isinstance(code, int) else 0


def _vendors_kind(payload: JsonObject, code: JsonValue) -> type[ApiError] | None:
    if number := base_resp_code(payload):
        return BASE_RESP_CODES.get(number)
    return BillingError if isinstance(code, str) and code in ZAI_BILLING_CODES else None


def _details(fields: JsonObject) -> list[JsonObject]:
    """Return Google's typed details."""
    details = fields.get("details")
    return [_object(item) for item in details] if isinstance(details, list) else []


def _detail_words(details: list[JsonObject]) -> Iterator[str]:
    for detail in details:
        if isinstance(reason := detail.get("reason"), str):
            yield reason
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else ():
            if "PerDay" in str(_object(violation).get("quotaId")):
                yield "quota_per_day"


def _retry_delay(details: list[JsonObject]) -> JsonValue:
    return next((detail["retryDelay"] for detail in details if "retryDelay" in detail), None)


def _is_message(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("detail"), list | str)
    return isinstance(value, list | str) and bool(value)


def _message(error: JsonObject, metadata: JsonObject) -> str:
    keys = (*MESSAGE_KEYS, *MORE_MESSAGE_KEYS)
    message = next((error[key] for key in keys if error.get(key)), None)
    for key in ("error", "detail", "message"):  # it may be an error again
        if isinstance(message, dict):
            message = message.get(key) or message
    name, several = error.get("error"), error.get("errors")
    raw = metadata.get("raw")
    parts = [
        name if isinstance(name, str) else "",
        _texts_of(message) if message else "",
        _texts_of(several) if several else "",
    ]
    text = ": ".join(dict.fromkeys(filter(None, parts))) or excerpt_of(error)
    return text + (f" (upstream: {excerpt(_text_of(raw))})" if raw else "")


def _texts_of(message: JsonValue) -> str:
    if isinstance(message, list):
        return "; ".join(map(_validation_error, message))
    return _text_of(message)


def _validation_error(item: JsonValue) -> str:
    fields = _object(item)  # of FastAPI's kind
    place = fields.get("loc")
    path = ".".join(map(_text_of, place)) if isinstance(place, list) else ""
    text = _text_of(fields.get("msg") or fields.get("message") or item)
    return f"{path}: {text}" if path else text


def _text_of(value: JsonValue) -> str:
    return value if isinstance(value, str) else excerpt_of(value)


def _words(*places: JsonObject) -> Iterator[str]:
    for fields in places:
        for key in ("code", "type", "error_type", "error_code", "status"):
            word = fields.get(key)
            if isinstance(word, str) and word not in ("", "error") and not word.isdigit():
                yield word


def _number(code: JsonValue) -> int | None:
    """Return a code that is the status of a failure."""
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdecimal():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


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
