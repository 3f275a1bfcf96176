"""Recorded exchanges: what a line of a recording holds, and how requests are compared."""

from __future__ import annotations

import base64
import contextlib
from functools import cached_property
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from minillmlib import errors
from minillmlib.auth.redaction import Redactor
from minillmlib.auth.secret import (
    HIDDEN,
    SECRET_WORDS,
    Secret,
    header_text_problem,
    protect_header,
)
from minillmlib.errors import MiniLLMError, StorageError, TransportError
from minillmlib.json_value import JsonValue, plural, replace_surrogates
from minillmlib.transport.base import HttpRequest
from minillmlib.transport.proxy import ENVIRONMENT, find_environment_proxy, secrets_of

try:  # as in tree/records.py
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

VERSION = 1
MAX_STATUS = 999
BAD_RECORD = (ValueError, TypeError, RecursionError, StorageError)  # of a line from outside

# Headers that differ between two programs or two calls though the same is asked.
UNCOMPARED_HEADERS = frozenset((
    "user-agent", "accept-encoding", "traceparent", "tracestate", "baggage", "x-request-id",
    "x-client-request-id", "idempotency-key", "x-idempotency-key",
))  # fmt: skip


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class HeaderRecord(_Record, frozen=True, tag="minillmlib recording", tag_field="kind"):
    """The first line of a file. Concatenated files have one each."""

    version: int


class Body(_Record, frozen=True, kw_only=True):
    """The bytes of a body, as readable as they are: as JSON, as text, or else in base64."""

    json: msgspec.Raw = msgspec.Raw()
    text: str | None = None
    base64: str | None = None

    @classmethod
    def of(cls, data: bytes) -> Body:
        """Return these bytes, so that `data` is exactly them."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return cls(base64=base64.b64encode(data).decode())
        if data[:1] in (b"{", b"[") and data[-1:] in (b"}", b"]") and b"\n" not in data:
            body = cls(json=msgspec.Raw(data))
            try:
                if msgspec.json.decode(msgspec.json.encode(body), type=Body).data == data:
                    return body
            except (ValueError, RecursionError):
                pass
        return cls(text=text)

    @property
    def data(self) -> bytes:
        """The bytes."""
        if self.text is not None:
            return self.text.encode()
        if self.base64 is not None:
            return base64.b64decode(self.base64, validate=True)
        return bytes(self.json)


class RecordedRequest(_Record, frozen=True, kw_only=True, dict=True):
    """A request without its secrets; the keys of its JSON are sorted."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body

    @cached_property
    def key(self) -> bytes:
        """A digest that is equal for requests that ask the same."""
        headers = sorted(self.compared_headers.items())
        hasher = blake2b(msgspec.json.encode((self.method, self.url, headers)), digest_size=16)
        hasher.update(canonical_json(self.body.data))
        return hasher.digest()

    @property
    def compared_headers(self) -> dict[str, str]:
        """The headers in which two requests that ask the same are equal."""
        names = self.headers.keys() - UNCOMPARED_HEADERS
        return {name: self.headers[name] for name in names}


class RecordedError(_Record, frozen=True, kw_only=True):
    """An error of the transport."""

    type: str
    message: str
    is_retryable: bool

    def to_error(self) -> MiniLLMError:
        """Return the error as it was raised; in place of one of other code a `TransportError`."""
        kind = vars(errors).get(self.type)
        error: MiniLLMError = TransportError(f"{self.type}: {self.message}")
        if isinstance(kind, type) and issubclass(kind, MiniLLMError):
            error = kind(self.message)
        error.is_retryable = self.is_retryable
        return error


End: TypeAlias = Literal["whole", "left", "cancelled", "failed"]


class RecordedExchange(_Record, frozen=True, kw_only=True, tag="exchange", tag_field="kind"):
    """A request and what came of it.

    Attributes:
        started_at: In seconds since 1970.
        was_sent: Whether the server may have got the request.
        status: The status, or None if no response came.
        headers: The headers of the response, without secrets.
        headers_secs: The seconds until they came.
        body: The part of the body that was read, without secrets.
        pieces: For each piece of it when it came, in seconds since the start, and its bytes.
        ended: Whether the body was read to its end, its reader left or was cancelled, or the
            transport failed.
        error: The error of the transport, if it failed.
    """

    started_at: float
    request: RecordedRequest
    was_sent: bool = True
    status: int | None = None
    headers: dict[str, str] = {}
    headers_secs: float = 0.0
    body: Body = Body()
    pieces: tuple[tuple[float, int], ...] = ()
    ended: End = "whole"
    error: RecordedError | None = None

    def __post_init__(self) -> None:
        size = len(self.body.data)
        if any(length <= 0 for _, length in self.pieces) or size != sum(n for _, n in self.pieces):
            raise StorageError(
                f"the pieces of a body must add up to its {size} {plural('byte', size)}"
            )
        if not 0 < (self.status or 1) <= MAX_STATUS or (self.status is None and self.pieces):
            raise StorageError(f"{self.status} is no status of a response with a body")
        if (self.ended == "failed") != (self.error is not None):
            raise StorageError("an exchange that failed has an error, and no other has one")
        if self.ended in ("whole", "left") and self.status is None:
            raise StorageError("an exchange that was read has a status")


Record: TypeAlias = HeaderRecord | RecordedExchange
decode_record = msgspec.json.Decoder(Record).decode


def encode_record(record: Record) -> bytes:
    """Return a record as a line."""
    return msgspec.json.encode(record) + b"\n"


HEADER = encode_record(HeaderRecord(version=VERSION))


def redactor_for(request: HttpRequest) -> Redactor:
    """Return what removes the secrets of a request: of its headers, its address and its proxy."""
    secrets = [value for _, value in _protected_headers(request) if isinstance(value, Secret)]
    secrets += map(Secret, filter(_is_header_text, _divide_url(request.url)[1]))
    if isinstance(request.proxy, Secret):
        secrets += secrets_of(request.proxy)
    elif request.proxy == ENVIRONMENT:
        with contextlib.suppress(MiniLLMError, ImportError):
            proxy = find_environment_proxy(request.url)
            secrets += [] if proxy is None or proxy.authorization is None else [proxy.authorization]
    return Redactor(*secrets, known=f"{urlsplit(request.url).hostname} {_model_in(request.body)}")


def redact_request(request: HttpRequest, redactor: Redactor) -> RecordedRequest:
    """Return a request as files keep it."""
    url = replace_surrogates(_divide_url(request.url)[0])
    headers = {name.lower(): str(value) for name, value in _protected_headers(request)}
    parts = url, headers, canonical_json(request.body)
    url, headers, body = redactor.redact_value(parts)  # at once, which takes half as long
    return RecordedRequest(
        method=request.method, url=url, headers=plain_texts(headers), body=Body.of(body)
    )


def _protected_headers(request: HttpRequest) -> list[tuple[str, str | Secret]]:
    return [
        (name, protect_header(name, value) if _is_header_text(value) else value)
        for name, value in request.headers
    ]


def _is_header_text(value: str | Secret) -> bool:
    """Whether a header can carry a text, so that it can be a `Secret`."""
    return isinstance(value, Secret) or header_text_problem(value, "") is None


def _divide_url(url: str) -> tuple[str, list[str]]:
    """Return an address without its secrets, and these: user, password and named parameters."""
    parts, pairs = urlsplit(url), []
    login, at, host = parts.netloc.rpartition("@")
    secrets = [login] if login else []
    for pair in parts.query.split("&"):
        name, _, value = pair.partition("=")
        is_secret = bool(value) and any(word in name.lower() for word in (*SECRET_WORDS, "sig"))
        secrets += [value] if is_secret else []
        pairs.append(f"{name}={HIDDEN}" if is_secret else pair)
    netloc = f"{HIDDEN}@{host}" if at else host
    return parts._replace(netloc=netloc, query="&".join(pairs)).geturl(), secrets


def redact_headers(headers: dict[str, str], redactor: Redactor) -> dict[str, str]:
    """Return the headers of a response as files keep them; the counts of tokens are no secrets."""
    redacted = redactor.redact_all(headers)
    for name in redacted:
        is_count = "ratelimit" in name or "tokens" in name or redacted[name].isdigit()
        if not is_count and any(word in name for word in SECRET_WORDS):
            redacted[name] = HIDDEN
    return plain_texts(redacted)


def plain_texts(texts: dict[str, str]) -> dict[str, str]:
    """Return texts that JSON can carry: some engines decode headers with half surrogate pairs."""
    plain: dict[str, str] = replace_surrogates(texts)
    return plain


def record_error(error: BaseException, redactor: Redactor) -> RecordedError:
    """Return an error as files keep it."""
    message = replace_surrogates(redactor.redact(str(error)))
    is_retryable = isinstance(error, MiniLLMError) and error.is_retryable
    return RecordedError(type=type(error).__name__, message=message, is_retryable=is_retryable)


def canonical_json(data: bytes) -> bytes:
    """Return JSON with sorted keys and without white space, anything else as it is."""
    try:
        return msgspec.json.encode(msgspec.json.decode(data), order="sorted")
    except (ValueError, OverflowError, RecursionError):
        return data


def _model_in(body: bytes) -> str:
    try:
        model = msgspec.json.decode(body, type=_Model).model
    except (ValueError, RecursionError):
        return ""
    return model if isinstance(model, str) else ""


class _Model(msgspec.Struct):
    model: JsonValue = ""
