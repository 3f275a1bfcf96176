"""Every way in which a call can fail.

    MiniLLMError
    ├── InvalidParameterError        the call cannot be made as asked; nothing was sent
    │   └── EmptyThreadError         there is no message to send or to build from
    ├── BudgetExceededError          the budget cannot cover the request; it was not sent
    ├── TransportError               the exchange broke; the answer never came whole
    │   ├── ConnectError             no connection could be made; nothing was sent
    │   │   └── TlsError             the server's certificate or protocol was refused
    │   ├── ReadError                the connection broke while we sent or read
    │   │   └── StaleConnectionError a kept connection was closed before we used it again
    │   ├── ProtocolError            what came is not HTTP
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
    ├── LimitExceededError           the server sends more than is taken in
    ├── IncompleteStreamError        the stream ended before its end signal
    ├── RejectedResponseError        a whole answer that the call's own settings refuse
    │   ├── EmptyResponseError       it says nothing (crash_on_empty_response)
    │   ├── NoJsonFoundError         it holds no JSON
    │   ├── IncompleteJsonError      it was cut before its JSON came to an end
    │   └── ResponseValidationError  its JSON does not fit the type that is expected
    ├── JsonRepairError              a text holds no JSON, or too deep a one (also a ValueError)
    ├── MissingFieldError            a tool call ended without an argument that was waited for
    ├── MaxRetriesExceededError      every attempt failed; `last_error` is the last one's error
    ├── CostCallbackError            a callback of a CompletionContext raised; see its cause
    ├── StorageError                 a conversation cannot be read from a file or written to one
    ├── LocalModelError              the embedded model could not be installed or run
    └── MissingExtraError            an optional dependency is not installed

`is_retryable` says whether the same call may succeed later without a change.
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from minillmlib.types.attempts import Attempt

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BillingError",
    "BudgetExceededError",
    "ConflictError",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthError",
    "CostCallbackError",
    "EmptyResponseError",
    "EmptyThreadError",
    "IncompleteJsonError",
    "IncompleteStreamError",
    "InvalidParameterError",
    "JsonRepairError",
    "LimitExceededError",
    "LocalModelError",
    "MalformedResponseError",
    "MaxRetriesExceededError",
    "MiniLLMError",
    "MissingExtraError",
    "MissingFieldError",
    "ModelLoadingError",
    "NoJsonFoundError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitError",
    "ReadError",
    "RedirectError",
    "RejectedResponseError",
    "RequestTimeoutError",
    "RequestTooLargeError",
    "ResponseValidationError",
    "ServerError",
    "ServerTimeoutError",
    "StaleConnectionError",
    "StorageError",
    "TlsError",
    "TransportError",
]


class MiniLLMError(Exception):
    """The root of every error this library raises.

    Attributes:
        partial: The text that had arrived when a stream failed, else `""`.
        request_id: The server's id of the exchange, for its support, or None.
        attempts: Every request of the completion, this failure's last. Empty if there was none.
    """

    is_retryable: bool = False
    attempts: "tuple[Attempt, ...]" = ()
    _may_be_sent = False  # when a transport raises it and does not say

    # Everything but the message has a default, so that errors survive pickling.
    def __init__(self, message: str, *, partial: str = "", request_id: str | None = None) -> None:
        super().__init__(message)
        self.partial = partial
        self.request_id = request_id

    @property
    def was_sent(self) -> bool:
        """Whether any request of the completion may have reached the server, and been billed.

        Without `attempts`, what the transport that raised the error says of its one request.
        """
        if self.attempts:
            return any(attempt.was_sent for attempt in self.attempts)
        is_sent: bool = vars(self).get("was_sent", self._may_be_sent)
        return is_sent

    @was_sent.setter
    def was_sent(self, value: bool) -> None:
        vars(self)["was_sent"] = value


class InvalidParameterError(MiniLLMError, ValueError):
    """The call cannot be made as asked. Nothing was sent."""


class EmptyThreadError(InvalidParameterError):
    """A conversation needs at least one message."""


class BudgetExceededError(MiniLLMError):
    """The budget cannot cover the most that the request may cost. It was not sent.

    What was sent before, when the request is a new attempt, is in `attempts`.
    """


class TransportError(MiniLLMError):
    """The exchange with the server broke. The request may have been processed and billed."""

    is_retryable = True
    _may_be_sent = True


class ConnectError(TransportError):
    """No connection could be made. Nothing was sent."""

    _may_be_sent = False


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


class ProtocolError(TransportError):
    """What came is not HTTP, or not an HTTP that can be read. To ask again would not help."""

    is_retryable = False


Clock: TypeAlias = Literal["total", "silence", "progress", "deadline"]


class RequestTimeoutError(TransportError, TimeoutError):
    """A clock ran out.

    Attributes:
        clock: `"total"` for a whole answer and `"silence"` for two pieces of a stream
            (`timeout_secs`), `"progress"` (`progress_timeout_secs`) or `"deadline"`
            (`deadline_secs`, after which nothing is tried again).
    """

    def __init__(self, message: str, *, clock: Clock = "total", partial: str = "") -> None:
        super().__init__(message, partial=partial)
        self.clock = clock
        self.is_retryable = clock != "deadline"


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


class LimitExceededError(MiniLLMError):
    """The server sends more than `GeneratorInfo.limits` lets in. What came was thrown away."""


class RejectedResponseError(MiniLLMError):
    """A whole answer, paid for, that the call's own settings refuse. `partial` is its text."""

    is_retryable = True


class EmptyResponseError(RejectedResponseError):
    """The answer says nothing, and `crash_on_empty_response` is set."""


class NoJsonFoundError(RejectedResponseError):
    """The answer holds no JSON, or, with `crash_on_refusal`, an empty one."""


class IncompleteJsonError(RejectedResponseError):
    """The answer was cut before its JSON came to an end. To ask again would end at the same limit.

    Raise `max_tokens`, or take what there is with `allow_incomplete_json`.
    """

    is_retryable = False


class ResponseValidationError(RejectedResponseError):
    """The JSON of the answer does not fit the type that the call expects.

    Attributes:
        path: The place of the problem in the answer, like `$.city.population`.
    """

    def __init__(self, message: str, *, path: str = "$", partial: str = "") -> None:
        super().__init__(message, partial=partial)
        self.path = path


class JsonRepairError(MiniLLMError, ValueError):
    """A text holds nothing that could be JSON, or is nested too deeply.

    Of streamed arguments also: they are no object, or contradict what was told of them, or are
    not JSON where they are read strictly.
    """


class MissingFieldError(MiniLLMError, LookupError):
    """The arguments of a tool call ended without one that was waited for.

    Attributes:
        fields: The names of the arguments that came.
    """

    def __init__(self, message: str, *, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class MaxRetriesExceededError(MiniLLMError):
    """Every attempt failed, and at least one of them was a retry.

    Attributes:
        last_error: The error of the last attempt; it is the `__cause__`, too.
    """

    def __init__(self, message: str, *, last_error: MiniLLMError | None = None) -> None:
        super().__init__(
            message,
            partial=last_error.partial if last_error else "",
            request_id=last_error.request_id if last_error else None,
        )
        self.last_error = last_error


class IncompleteStreamError(MiniLLMError):
    """The stream ended without the wire's end signal. `partial` holds the text so far."""

    is_retryable = True


class CostCallbackError(MiniLLMError):
    """A callback of a `CompletionContext` raised. Neither record nor answer was lost by it."""


class StorageError(MiniLLMError):
    """A conversation cannot be read from a file, or not be written to one.

    Nothing that is in memory is lost by it, and a file that was there before a save still is.
    """


class LocalModelError(MiniLLMError):
    """The embedded model could not be downloaded, checked, stored or served."""


class MissingExtraError(MiniLLMError, ImportError):
    """A feature needs an optional dependency that is not installed."""
