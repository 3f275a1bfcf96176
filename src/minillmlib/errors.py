"""Every error that the library raises.

    MiniLLMError
    ├── InvalidParameterError        the arguments of the call are invalid (also a ValueError)
    │   └── EmptyThreadError         the conversation has no message
    ├── BudgetExceededError          the budget does not cover the request; it was not sent
    ├── TransportError               the exchange with the server failed
    │   ├── ConnectError             no connection was made; nothing was sent
    │   │   └── TlsError             the server's certificate or TLS version was not accepted
    │   ├── ReadError                the connection broke while sending or reading
    │   │   └── StaleConnectionError a pooled connection was already closed
    │   ├── ProtocolError            the server does not speak valid HTTP
    │   └── RequestTimeoutError      a time limit passed (also a TimeoutError)
    ├── ApiError                     the server returned an error, by its status or in a success
    │   ├── BadRequestError          400, 412, 422
    │   │   └── ContextLengthError   the conversation is too long for the model
    │   ├── AuthenticationError      401, or no credential (then nothing was sent)
    │   ├── BillingError             402, or a quota, budget or credit that is used up
    │   ├── PermissionDeniedError    403
    │   ├── ContentFilterError       moderation blocked the request
    │   ├── NotFoundError            404, an unknown model or path
    │   ├── RequestTooLargeError     413
    │   ├── ConflictError            409
    │   ├── RateLimitError           429, solved by waiting
    │   ├── RedirectError            3xx; redirects are not followed
    │   └── ServerError              5xx, 424
    │       ├── ServerTimeoutError   408, 504, 524
    │       └── OverloadedError      503, 529
    │           └── ModelLoadingError  the server is still loading the model
    ├── MalformedResponseError       a success status, but the body is not a completion
    ├── LimitExceededError           the server sent more than `GeneratorInfo.limits` allows
    ├── IncompleteStreamError        the stream stopped before its end marker
    ├── MaxRetriesExceededError      every attempt failed; see `last_error`
    ├── RejectedResponseError        the response is complete, but the call's settings reject it
    │   ├── EmptyResponseError       it is empty
    │   ├── NoJsonFoundError         it contains no JSON
    │   ├── IncompleteJsonError      it was truncated inside its JSON
    │   └── ResponseValidationError  its JSON does not fit the expected type
    ├── JsonRepairError              a text contains no JSON (also a ValueError)
    ├── ToolError                    a tool did not run, or says that it failed
    │   └── ToolArgumentError        arguments do not fit the function (also a ValueError)
    ├── TurnLimitError               the model still asks for tools after `max_turns`
    ├── PartialFailureError          some answers of `complete_many` failed, others did not
    ├── MissingFieldError            arguments ended without an awaited one (also a LookupError)
    ├── CostCallbackError            a callback of a `CompletionContext` raised
    ├── StorageError                 a conversation could not be read from or written to a file
    ├── NotRecordedError             a recording has no answer for a request
    ├── LocalModelError              the local model could not be installed or run
    └── MissingExtraError            an optional dependency is missing (also an ImportError)

`is_retryable`: whether the same call may succeed later without changes.
`allows_fallback`: whether another model may answer the same call. False unless a class sets it.
"""

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minillmlib.tree.node import ChatNode
    from minillmlib.types.costs import Attempt

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
    "NotRecordedError",
    "OverloadedError",
    "PartialFailureError",
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
    "ToolArgumentError",
    "ToolError",
    "TransportError",
    "TurnLimitError",
]


class MiniLLMError(Exception):
    """Base class of every error that this library raises.

    Attributes:
        partial: The text received before a stream failed, else `""`.
        request_id: The server's id of the exchange, which its support may ask for, or None.
        attempts: Every request of the completion, the failed one last. Empty if there was none.

    Examples:
        >>> generator = GeneratorInfo.anthropic("claude-haiku-4-5")
        >>> try:
        ...     run(ChatNode.root().chat("Hello", generator, CompletionParameters(seed=1)))
        ... except MiniLLMError as error:
        ...     print(type(error).__name__, error.was_sent)
        InvalidParameterError False
    """

    is_retryable: bool = False
    allows_fallback: bool = False
    attempts: "tuple[Attempt, ...]" = ()
    _may_be_sent = False  # when a transport raises it and does not say

    # Everything but the message has a default, so that errors can be pickled.
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
    """The arguments of the call are invalid. Nothing was sent."""


class EmptyThreadError(InvalidParameterError):
    """The conversation has no message; it needs at least one."""


class BudgetExceededError(MiniLLMError):
    """The budget does not cover the maximum cost of the request. It was not sent.

    If the request was a retry, `attempts` lists the requests sent before it.
    """


class TransportError(MiniLLMError):
    """The exchange with the server failed. The request may have been processed and billed."""

    is_retryable = True
    allows_fallback = True
    _may_be_sent = True


class ConnectError(TransportError):
    """No connection was made. Nothing was sent.

    Not retryable if this program itself blocked the connection, as `forbid_network` does.
    """

    _may_be_sent = False


class TlsError(ConnectError):
    """The server's certificate or TLS version was not accepted. Nothing was sent."""

    is_retryable = False


class ReadError(TransportError):
    """The connection broke while the request was sent or the response was read."""


class StaleConnectionError(ReadError):
    """A pooled connection was closed before any byte of a response came.

    Transports raise it. The library then sends the request once more, so callers see it only if
    that fails in the same way.
    """


class ProtocolError(TransportError):
    """The server does not speak HTTP, or speaks it in an invalid way. A retry would not help."""

    is_retryable = False


Clock: TypeAlias = Literal["total", "silence", "progress", "deadline"]


class RequestTimeoutError(TransportError, TimeoutError):
    """A time limit passed.

    Attributes:
        clock: `"total"` for a complete response or `"silence"` between two pieces of a stream
            (`timeout_secs`), `"progress"` (`progress_timeout_secs`), or `"deadline"`
            (`deadline_secs`, after which there is no retry).
    """

    def __init__(self, message: str, *, clock: Clock = "total", partial: str = "") -> None:
        super().__init__(message, partial=partial)
        self.clock = clock
        self.is_retryable: bool = clock != "deadline"
        self.allows_fallback: bool = self.is_retryable


class ApiError(MiniLLMError):
    """The server returned an error, by its status or inside a success.

    Attributes:
        status: The HTTP status, or None if nothing was sent. 200 for an error inside a stream.
        code: The server's symbolic code or type, unchanged, or None.
        retry_after_secs: The wait that the server asks for, in a header, in the body or in words,
            or None. At most a year.
    """

    def __init__(  # noqa: PLR0913 - optional facts about a failure
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
    """The server considers the request invalid (400, 412, 422, or a 500 that says so)."""


class ContextLengthError(BadRequestError):
    """The conversation and `max_tokens` together exceed the model's context.

    Recognized by the words of some thirty servers and gateways, also with 413, 422 or 500.
    """

    allows_fallback = True


class AuthenticationError(ApiError):
    """The credential is missing, wrong, expired, or not meant for this use (401).

    `status` is None if no credential was found; then nothing was sent.
    """

    allows_fallback = True


class BillingError(ApiError):
    """The credit, budget, quota or plan is used up (402, or any status). Waiting does not help."""

    allows_fallback = True


class PermissionDeniedError(ApiError):
    """The credential is valid but does not permit this (403)."""

    allows_fallback = True


class ContentFilterError(ApiError):
    """Moderation blocked the request."""

    allows_fallback = True


class NotFoundError(ApiError):
    """The model or the path does not exist at this address (404)."""

    allows_fallback = True


class RequestTooLargeError(ApiError):
    """The body of the request is larger than the server accepts (413)."""

    allows_fallback = True


class ConflictError(ApiError):
    """The request conflicts with another change on the server (409)."""

    is_retryable = True
    allows_fallback = True


class RateLimitError(ApiError):
    """The rate limit is reached (429). `retry_after_secs` may say how long to wait."""

    is_retryable = True
    allows_fallback = True


class RedirectError(ApiError):
    """The server redirects (3xx). That is not followed, because a key belongs to one origin."""

    allows_fallback = True


class ServerError(ApiError):
    """The server failed (5xx)."""

    is_retryable = True
    allows_fallback = True


class ServerTimeoutError(ServerError):
    """The server, or a gateway in front of it, timed out (408, 504, 524)."""


class OverloadedError(ServerError):
    """The server is overloaded and did not start to work on the request (503, 529)."""


class ModelLoadingError(OverloadedError):
    """The server is still loading the model."""


class MalformedResponseError(MiniLLMError):
    """The server reported success, but the body is not a completion."""

    allows_fallback = True


class LimitExceededError(MiniLLMError):
    """The server sent more than `GeneratorInfo.limits` allows. The response was discarded."""

    allows_fallback = True


class RejectedResponseError(MiniLLMError):
    """The response, in `partial`, is complete and billed, but the call's settings reject it."""

    is_retryable = True
    allows_fallback = True


class EmptyResponseError(RejectedResponseError):
    """The response is empty, and `crash_on_empty_response` is set."""


class NoJsonFoundError(RejectedResponseError):
    """The response contains no JSON, or, with `crash_on_refusal`, an empty value."""


class IncompleteJsonError(RejectedResponseError):
    """The response was truncated inside its JSON. A retry would end at the same limit.

    Raise `max_tokens`, or accept the incomplete value with `allow_incomplete_json`.
    """

    is_retryable = False


class ResponseValidationError(RejectedResponseError):
    """The JSON of the response does not fit the type that the call expects.

    Attributes:
        path: The place of the problem in the JSON, like `$.city.population`.
    """

    def __init__(self, message: str, *, path: str = "$", partial: str = "") -> None:
        super().__init__(message, partial=partial)
        self.path = path


class JsonRepairError(MiniLLMError, ValueError):
    """A text contains no JSON, or is nested too deeply.

    Also raised for streamed arguments that are not an object, that contradict a value already
    delivered, or, in strict mode, that are not valid JSON.
    """


class ToolError(MiniLLMError):
    """A tool did not run, timed out, or reports a failure.

    The text is for the model. Raise it in a tool to give the model this text and nothing else.
    """


class ToolArgumentError(ToolError, ValueError):
    """The arguments of a tool call do not fit the function. The text is written for the model.

    Attributes:
        path: The place of the first problem in the arguments, like `$.city`.
    """

    def __init__(self, message: str, *, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class TurnLimitError(MiniLLMError):
    """The model still asks for tools after `max_turns` turns. Its last results are in the tree."""


class PartialFailureError(MiniLLMError):
    """Some of the answers of `complete_many` failed; the others are in the tree.

    Attributes:
        errors: The error of each answer that failed, in order. `attempts` are those of all.
        nodes: The nodes of the other answers, in order. They are not pickled with the error.
    """

    def __init__(
        self,
        message: str,
        *,
        errors: "Sequence[MiniLLMError]" = (),
        nodes: "Sequence[ChatNode]" = (),
    ) -> None:
        super().__init__(message)
        self.errors: tuple[MiniLLMError, ...] = tuple(errors)
        self.nodes: tuple[ChatNode, ...] = tuple(nodes)
        self.attempts: tuple[Attempt, ...] = tuple(
            attempt for error in errors for attempt in error.attempts
        )
        self.is_retryable: bool = any(error.is_retryable for error in errors)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self.args, {**vars(self), "nodes": ()}


class MissingFieldError(MiniLLMError, LookupError):
    """The arguments of a tool call ended without one that the caller awaited.

    Attributes:
        fields: The names of the arguments that were received.
    """

    def __init__(self, message: str, *, fields: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.fields = fields


class MaxRetriesExceededError(MiniLLMError):
    """Every attempt failed, and at least one of them was a retry or went to a fallback.

    Attributes:
        last_error: The error of the last attempt, also the `__cause__`.
    """

    def __init__(self, message: str, *, last_error: MiniLLMError | None = None) -> None:
        super().__init__(
            message,
            partial=last_error.partial if last_error else "",
            request_id=last_error.request_id if last_error else None,
        )
        self.last_error = last_error


class IncompleteStreamError(MiniLLMError):
    """The stream stopped without the wire's end marker. `partial` is the text so far.

    Also raised when a stream is read on that has failed or whose reader was cancelled.
    """

    is_retryable = True
    allows_fallback = True


class CostCallbackError(MiniLLMError):
    """A callback of a `CompletionContext` raised. The cost record and the answer are kept."""


class StorageError(MiniLLMError):
    """A conversation, a recording or a cache could not be read from or written to a file.

    The tree in memory is unchanged, and a file that existed before a save still exists.
    """


class NotRecordedError(MiniLLMError):
    """A recording that is replayed has no answer for the request. Nothing was sent.

    The message shows the recorded request that is nearest, and how the two differ.
    """


class LocalModelError(MiniLLMError):
    """The local model could not be downloaded, checked, stored or served."""

    allows_fallback = True


class MissingExtraError(MiniLLMError, ImportError):
    """A feature needs an optional dependency that is not installed."""
