"""Every way in which a call can fail.

    MiniLLMError
    ├── InvalidParameterError        the call cannot be made as asked; nothing was sent
    │   └── EmptyThreadError         there is no message to send or to build from
    ├── TransportError               the exchange broke; the answer never came whole
    │   ├── ConnectError             no connection could be made; nothing was sent
    │   │   └── TlsError             the server's certificate or protocol was refused
    │   ├── ReadError                the connection broke while we sent or read
    │   │   └── StaleConnectionError a kept connection was closed before we used it again
    │   └── RequestTimeoutError      a clock ran out (also a TimeoutError)
    ├── ApiError                     the server said no, by status or inside a 200
    │   ├── BadRequestError          400, 412, 422
    │   │   └── ContextLengthError   the conversation does not fit the model
    │   ├── AuthenticationError      401, or no credential (then nothing was sent)
    │   ├── BillingError             402, a quota or a credit that is used up
    │   ├── PermissionDeniedError    403
    │   ├── ContentFilterError       the request was refused by moderation
    │   ├── NotFoundError            404, unknown model or path
    │   ├── RequestTooLargeError     413
    │   ├── ConflictError            409
    │   ├── RateLimitError           429 that waiting solves
    │   ├── RedirectError            3xx: redirects are never followed
    │   └── ServerError              5xx
    │       ├── ServerTimeoutError   408, 504, 524
    │       └── OverloadedError      503, 529
    │           └── ModelLoadingError  a local server that is still loading
    ├── MalformedResponseError       a success status, but not a completion
    ├── IncompleteStreamError        the stream ended before its end signal
    ├── LocalModelError              the embedded model could not be installed or run
    └── MissingExtraError            an optional dependency is not installed

`is_retryable` says whether the same call may succeed later without a change.
"""

from typing import ClassVar

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "ConflictError",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthError",
    "EmptyThreadError",
    "IncompleteStreamError",
    "InvalidParameterError",
    "LocalModelError",
    "MalformedResponseError",
    "MiniLLMError",
    "MissingExtraError",
    "ModelLoadingError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "RateLimitError",
    "ReadError",
    "RedirectError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "ServerError",
    "ServerTimeoutError",
    "StaleConnectionError",
    "TlsError",
    "TransportError",
]


class MiniLLMError(Exception):
    """The root of every error this library raises.

    Attributes:
        partial: The text that had arrived when a stream failed, else `""`.
        request_id: The server's id of the exchange, for its support, or None.
    """

    is_retryable: ClassVar[bool] = False

    # Everything but the message has a default, so that errors survive pickling.
    def __init__(self, message: str, *, partial: str = "", request_id: str | None = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.request_id = request_id


class InvalidParameterError(MiniLLMError, ValueError):
    """The call cannot be made as asked. Nothing was sent."""


class EmptyThreadError(InvalidParameterError):
    """A conversation needs at least one message."""


class TransportError(MiniLLMError):
    """The exchange with the server broke. The request may have been processed and billed."""

    is_retryable = True


class ConnectError(TransportError):
    """No connection could be made. Nothing was sent."""


class TlsError(ConnectError):
    """The server's certificate or TLS version was refused. Nothing was sent."""

    is_retryable = False


class ReadError(TransportError):
    """The connection broke while the request was sent or the answer was read."""


class StaleConnectionError(ReadError):
    """A kept connection turned out to be closed before any byte of an answer came.

    A transport raises it; the library then sends once more, so callers see it only when that
    fails in the same way.
    """


class RequestTimeoutError(TransportError, TimeoutError):
    """A clock ran out: the whole call, or the silence between two pieces of a stream."""


class ApiError(MiniLLMError):
    """The server answered with an error, by its status or inside a success.

    Attributes:
        status: The HTTP status, or None if nothing was sent. 200 for an error inside a stream.
        code: The server's symbolic code or type, as it was sent, or None.
        retry_after_secs: How long the server asks to wait, or None.
    """

    def __init__(  # noqa: PLR0913 - facts of a failure, all optional
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        retry_after_secs: float | None = None,
        partial: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, partial=partial, request_id=request_id)
        self.status = status
        self.code = code
        self.retry_after_secs = retry_after_secs


class BadRequestError(ApiError):
    """The server does not accept the request as it is."""


class ContextLengthError(BadRequestError):
    """The conversation, with the room for its answer, does not fit the model's context."""


class AuthenticationError(ApiError):
    """The credential is missing, wrong, expired, or not meant for this use.

    `status` is None when no credential was found: then nothing was sent.
    """


class BillingError(ApiError):
    """Credit, quota or plan is used up. Waiting does not help."""


class PermissionDeniedError(ApiError):
    """The credential is known but may not do this."""


class ContentFilterError(ApiError):
    """The request was refused by moderation."""


class NotFoundError(ApiError):
    """The model or the path does not exist at this address."""


class RequestTooLargeError(ApiError):
    """The request's body is larger than the server takes."""


class ConflictError(ApiError):
    """The server was busy with a conflicting change."""

    is_retryable = True


class RateLimitError(ApiError):
    """Too many requests or tokens at the moment. `retry_after_secs` may say how long."""

    is_retryable = True


class RedirectError(ApiError):
    """The server points elsewhere. Redirects are not followed: a key belongs to one origin."""


class ServerError(ApiError):
    """The server failed."""

    is_retryable = True


class ServerTimeoutError(ServerError):
    """The server, or a gateway before it, gave up waiting."""


class OverloadedError(ServerError):
    """The server has no room at the moment and refused before working."""


class ModelLoadingError(OverloadedError):
    """The server is up but is still loading the model."""


class MalformedResponseError(MiniLLMError):
    """The server reported success, but what it sent is not a completion."""


class IncompleteStreamError(MiniLLMError):
    """The stream ended without the wire's end signal. `partial` holds the text so far."""

    is_retryable = True


class LocalModelError(MiniLLMError):
    """The embedded model could not be downloaded, checked, stored or served."""


class MissingExtraError(MiniLLMError, ImportError):
    """A feature needs an optional dependency that is not installed."""
