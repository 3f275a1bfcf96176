"""Rows for `test_retries.py`: what a server does, and what a client makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scripted_server import (
    ANSWER,
    DONE,
    FINISH,
    Step,
    event,
    events,
    hang,
    hang_before_departure,
    says,
    slow,
    stalled,
    status,
    whole,
)

from minillmlib import (
    AuthenticationError,
    BadRequestError,
    BillingError,
    ConflictError,
    ConnectError,
    ContextLengthError,
    EmptyResponseError,
    IncompleteStreamError,
    LimitExceededError,
    MalformedResponseError,
    MiniLLMError,
    ModelLoadingError,
    NoJsonFoundError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ReadError,
    RedirectError,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerError,
    ServerTimeoutError,
    StaleConnectionError,
    TlsError,
)
from minillmlib.testing import ScriptedReply

WALL_CLOCK = 1_700_000_000  # Tue, 14 Nov 2023 22:13:20 GMT; what `time.time` says meanwhile


class Gap(NamedTuple):
    """The time between two requests: the first one's own, and then the wait."""

    most: float
    hint: float = 0.0
    attempt: float = 0.0


AT_ONCE = None  # no wait, and none was drawn


class Row(NamedTuple):
    """The steps of the server, the gaps between the requests, and the outcome.

    A gap that is a number is the bound of its random part. `end` is the class of the error that
    ends the completion, or None for an answer; `tail` the time from the last request to the end.
    """

    name: str
    script: Sequence[Step]
    gaps: Sequence[Gap | float | None]
    outcomes: str
    end: type[MiniLLMError] | None = None
    settings: Mapping[str, Any] = {}
    tail: float = 0.0
    partial: str = ""
    modes: str = "whole streamed"


def hinted(value: str, name: str = "retry-after", code: int = 429) -> list[Step]:
    return [status(code, {name: value}), ANSWER]


ROLE, TOOL = event({"role": "assistant", "content": ""}), event(
    {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}
)  # fmt: skip
THOUGHT = event({"reasoning_content": "hm"})
BUSY = event(error={"message": "x", "type": "overloaded_error"})
BROKEN = events(breaks_off=True)
HTML = ScriptedReply(pieces=(b"<html><title>Hi</title>",), headers={"content-type": "text/html"})
NO_JSON, EMPTY = {"crash_on_refusal": True}, {"crash_on_empty_response": True}
OPENAI_QUOTA = status(429, {"retry-after": "1"}, message="quota", code="insufficient_quota")
SPENT = "You have reached your specified API usage limits. You will regain access later."
ANTHROPIC_QUOTA = status(429, message=SPENT, type="rate_limit_error")
LOW_CREDIT = status(400, message="Your credit balance is too low", type="invalid_request_error")
REFUSED, FAILED, SENT_NOTHING = "denied answered", "failed answered", "not_sent answered"

STATUSES = [
    *(Row(f"{code} may have worked and is tried again", [status(code), ANSWER], [1], FAILED)
      for code in (408, 424, 500, 502, 504, 524)),
    *(Row(f"{code} did no work and is tried again", [status(code), ANSWER], [1], REFUSED)
      for code in (409, 429, 503, 529)),
    *(Row(f"{code} is final", [status(code)], [], "denied", kind) for code, kind in {
        300: RedirectError, 307: RedirectError, 400: BadRequestError, 401: AuthenticationError,
        402: BillingError, 403: PermissionDeniedError, 404: NotFoundError, 413: RequestTooLargeError,
        418: BadRequestError, 422: BadRequestError, 499: BadRequestError}.items()),
    Row("a model that loads is waited for", [status(503, message="Loading model"), ANSWER], [1],
        REFUSED),
    Row("a model that never loads", [status(503, message="Loading model")] * 2, [1],
        "denied denied", ModelLoadingError, {"retry": 1}),
    Row("OpenAI's used up quota is no rate limit", [OPENAI_QUOTA], [], "denied", BillingError),
    Row("Anthropic's used up limit is no rate limit", [ANTHROPIC_QUOTA], [], "denied",
        BillingError),
    Row("Anthropic's low credit", [LOW_CREDIT], [], "denied", BillingError),
    Row("a long conversation", [status(400, message="x", code="context_length_exceeded")], [],
        "denied", ContextLengthError),
    Row("an overload inside a success", [status(200, message="x", type="overloaded_error"), ANSWER],
        [1], FAILED),
    Row("an overload inside the last success",
        [status(299, message="x", type="overloaded_error"), ANSWER], [1], FAILED),
    Row("a used up quota inside a success", [status(200, message="x", type="insufficient_quota")],
        [], "failed", BillingError),
    Row("a 409 that stays", [status(409)] * 4, [1, 2, 4], "denied denied denied denied",
        ConflictError),
    Row("a 504 that stays", [status(504)] * 4, [1, 2, 4], "failed failed failed failed",
        ServerTimeoutError),
    Row("the server says no to a second try", [status(503, {"x-should-retry": "false"})], [],
        "denied", OverloadedError),
    Row("the server says yes to one", [status(400, {"x-should-retry": "true"}), ANSWER], [1],
        REFUSED),
    Row("the server says neither", [status(503, {"x-should-retry": "maybe"}), ANSWER], [1],
        REFUSED),
    Row("the body says no to a second try", [status(500, message="x",
        availability={"retryable": False})], [], "failed", ServerError),
    Row("a refusal after a retry ends all", [status(503), status(400)], [1], "denied denied",
        BadRequestError),
    Row("one of everything", [status(429), status(500), ConnectError, ANSWER], [1, 2, 4],
        "denied failed not_sent answered"),
]  # fmt: skip

HINTS = [
    Row("seconds", hinted("7"), [Gap(1, 7)], REFUSED),
    Row("parts of a second", hinted("1.5"), [Gap(1, 1.5)], REFUSED),
    Row("less than the random part", hinted("0.001"), [Gap(1, 0.001)], REFUSED),
    Row("a date", hinted("Tue, 14 Nov 2023 22:13:29 GMT"), [Gap(1, 9)], REFUSED),
    Row("a date of RFC 850", hinted("Tuesday, 14-Nov-23 22:13:29 GMT"), [Gap(1, 9)], REFUSED),
    Row("a date that has passed", hinted("Tue, 14 Nov 2023 22:13:10 GMT"), [1], REFUSED),
    Row("a date of tomorrow", hinted("Wed, 15 Nov 2023 22:13:20 GMT")[:1], [], "denied",
        RateLimitError),
    Row("milliseconds", hinted("250", "retry-after-ms"), [Gap(1, 0.25)], REFUSED),
    Row("milliseconds before seconds",
        [status(429, {"retry-after-ms": "2500", "retry-after": "9"}), ANSWER], [Gap(1, 2.5)],
        REFUSED),
    Row("bad milliseconds leave the seconds",
        [status(429, {"retry-after-ms": "nan", "retry-after": "9"}), ANSWER], [Gap(1, 9)],
        REFUSED),
    *(Row(f"{value!r} says nothing", hinted(value), [1], REFUSED)
      for value in ("-3", "0", "nan", "inf", "-inf", "1e400", "soon", "", "Tue, 99 Nov 2023")),
    Row("in the body", [status(429, message="x", availability={"retry_after": 3}), ANSWER],
        [Gap(1, 3)], REFUSED),
    Row("on a 500", hinted("5", code=500), [Gap(1, 5)], FAILED),
    Row("on a 503", hinted("5", code=503), [Gap(1, 5)], REFUSED),
    Row("on a 400", hinted("5", code=400)[:1], [], "denied", BadRequestError),
    Row("a day", hinted("86400")[:1], [], "denied", RateLimitError),
    Row("as much as is waited at all", hinted("15"), [Gap(1, 15)], REFUSED),
    Row("a little more than that", hinted("15.001")[:1], [], "denied", RateLimitError),
    Row("more is waited for if asked", hinted("90"), [Gap(1, 90)], REFUSED, None,
        {"max_back_off": 90}),
    Row("none is waited for if asked", hinted("0.5")[:1], [], "denied", RateLimitError,
        {"max_back_off": 0}),
    Row("anew each time", [*hinted("7")[:1], *hinted("0.25")[:1], status(429), ANSWER],
        [Gap(1, 7), Gap(2, 0.25), 4], "denied denied denied answered"),
    Row("too long after a retry", [status(429), *hinted("60")[:1]], [1], "denied denied",
        RateLimitError),
]  # fmt: skip

BREAKS = [
    Row("no connection", [ConnectError, ConnectError, ANSWER], [1, 2], f"not_sent {SENT_NOTHING}"),
    Row("never a connection", [ConnectError] * 4, [1, 2, 4], "not_sent not_sent not_sent not_sent",
        ConnectError),
    Row("no valid certificate", [TlsError], [], "not_sent", TlsError),
    Row("a connection that breaks", [ReadError, ANSWER], [1], FAILED),
    Row("no HTTP", [ProtocolError], [], "failed", ProtocolError),
    Row("too much", [LimitExceededError], [], "failed", LimitExceededError),
    Row("headers that are too long", [status(200, {"x": "y" * 70_000})], [], "failed",
        LimitExceededError),
    Row("an answer that is compressed", [status(200, {"content-encoding": "gzip"})], [], "failed",
        MalformedResponseError),
    Row("a stale connection is replaced at once", [StaleConnectionError, ANSWER], [AT_ONCE],
        FAILED, None, {"retry": 0}),
    Row("a second stale connection is a failure", [StaleConnectionError] * 2, [AT_ONCE],
        "failed failed", StaleConnectionError, {"retry": 0}),
    Row("which is tried again", [StaleConnectionError, StaleConnectionError, ANSWER], [AT_ONCE, 1],
        "failed failed answered", None, {"retry": 1}),
    Row("a stale connection among retries",
        [status(503), StaleConnectionError, status(503), ANSWER], [1, AT_ONCE, 2],
        "denied failed denied answered", None, {"retry": 2}),
    Row("silence", [hang, ANSWER], [Gap(1, 0, 5)], FAILED, None, {"timeout_secs": 5}),
    Row("silence before anything left", [hang_before_departure, ANSWER], [Gap(1, 0, 5)],
        SENT_NOTHING, None, {"timeout_secs": 5}),
    Row("silence without end", [hang] * 2, [Gap(1, 0, 5)], "failed failed", RequestTimeoutError,
        {"timeout_secs": 5, "retry": 1}, tail=5),
    Row("silence as long as the default", [hang, ANSWER], [Gap(1, 0, 600)], FAILED, modes="whole"),
    Row("an answer that stalls",
        [slow(3, stalled(whole("ok"))), ANSWER], [Gap(1, 0, 5)], FAILED, None,
        {"timeout_secs": 5}, modes="whole"),
    Row("a body that is cut", [ScriptedReply(pieces=(b'{"cho',), breaks_off=True), ANSWER], [1],
        FAILED, modes="whole"),
    *(Row(f"{body!r} is no answer", [status(200, body=body)], [], "failed", MalformedResponseError)
      for body in (b"", b"{", b"null", b"[]", b'{"choices":[]}', b"<html>")),
    Row("a page of a gateway", [HTML], [], "failed", MalformedResponseError),
]  # fmt: skip

SETTINGS = [
    Row("no retry, no wait", [status(503)], [], "denied", OverloadedError, {"retry": 0}),
    Row("no retry of what was not sent", [ConnectError], [], "not_sent", ConnectError,
        {"retry": 0}),
    Row("one retry", [status(500)] * 2, [1], "failed failed", ServerError, {"retry": 1}),
    Row("eight retries, the cap before the jitter", [status(429)] * 9,
        [1, 2, 4, 8, 15, 15, 15, 15], " ".join(["denied"] * 9), RateLimitError, {"retry": 8}),
    Row("a back-off that does not double", [status(429)] * 4, [1, 1, 1],
        "denied denied denied denied", RateLimitError, {"exp_back_off": False}),
    Row("a back-off that does not double is capped, too", [status(429), ANSWER], [3],
        REFUSED, None, {"exp_back_off": False, "back_off_time": 50, "max_back_off": 3}),
    Row("a first back-off of its own", [status(429)] * 4, [0.25, 0.5, 1],
        "denied denied denied denied", RateLimitError, {"back_off_time": 0.25}),
    Row("a first back-off above the cap", [status(429), ANSWER], [15], REFUSED, None,
        {"back_off_time": 1000}),
    Row("a cap of its own", [status(429)] * 4, [1, 1.5, 1.5], "denied denied denied denied",
        RateLimitError, {"max_back_off": 1.5}),
    Row("no back-off", [status(503)] * 4, [0, 0, 0], "denied denied denied denied",
        OverloadedError, {"back_off_time": 0}),
    Row("a cap of nothing", [status(503), ANSWER], [0], REFUSED, None, {"max_back_off": 0}),
    Row("no wait as long as the deadline", hinted("7")[:1], [], "denied", RateLimitError,
        {"deadline_secs": 7}),
    Row("a wait shorter than the deadline", hinted("7"), [Gap(1, 7)], REFUSED, None,
        {"deadline_secs": 7.5}),
    Row("no second wait behind the deadline", hinted("7")[:1] * 2, [Gap(1, 7)], "denied denied",
        RateLimitError, {"deadline_secs": 7.5}),
    Row("an attempt counts against the deadline", [slow(6, hinted("5")[0])], [], "denied",
        RateLimitError, {"deadline_secs": 10}, tail=6),
    Row("the deadline ends an attempt", [hang], [], "failed", RequestTimeoutError,
        {"deadline_secs": 3}, tail=3),
    Row("the deadline ends a second attempt", [*hinted("5")[:1], hang], [Gap(1, 5)],
        "denied failed", RequestTimeoutError, {"deadline_secs": 8}, tail=3),
    Row("a time-out and then the deadline", [hang, hang], [Gap(0.01, 0, 5)], "failed failed",
        RequestTimeoutError, {"timeout_secs": 5, "deadline_secs": 6, "back_off_time": 0.01},
        tail=None),
    Row("a first wait behind the deadline", [status(503)], [], "denied", OverloadedError,
        {"deadline_secs": 0.001, "back_off_time": 1000}),
]  # fmt: skip

REJECTIONS = [
    Row("an empty answer is taken", [says("")], [], "answered"),
    Row("an empty answer is refused if asked", [whole(""), whole(" \n"), ANSWER], [1, 2],
        "rejected rejected answered", None, EMPTY),
    Row("nothing but empty answers", [whole("")] * 2, [1], "rejected rejected", EmptyResponseError,
        {**EMPTY, "retry": 1}),
    Row("nothing is empty twice without retries", [whole("")], [], "rejected", EmptyResponseError,
        {**EMPTY, "retry": 0}),
    Row("an answer without JSON is refused if asked", [whole("no"), whole("{}"), whole('["ok"]')],
        [1, 2], "rejected rejected answered", None, NO_JSON),
    Row("never any JSON", [whole("no")] * 2, [1], "rejected rejected", NoJsonFoundError,
        {**NO_JSON, "retry": 1}, partial="no"),
    Row("a broken answer, then one without JSON", [status(500), whole("no"), whole('{"ok":1}')],
        [1, 2], "failed rejected answered", None, NO_JSON),
]  # fmt: skip

STREAMS = [Row(*row[:-1], modes="streamed") for row in (
    Row("a break before anything came", [BROKEN, ANSWER], [1], FAILED),
    Row("nothing but breaks", [BROKEN] * 4, [1, 2, 4], "failed failed failed failed", ReadError),
    Row("a break after the role", [events(ROLE, breaks_off=True), ANSWER], [1], FAILED),
    Row("a break after a comment", [events(b": hi\n\n", breaks_off=True), ANSWER], [1], FAILED),
    Row("an end before anything came", [events(), ANSWER], [1], FAILED),
    Row("an end mark before anything came", [events(DONE), ANSWER], [1], FAILED),
    Row("no JSON before anything came", [events(b"data: {\n\n"), ANSWER], [1], FAILED),
    Row("an overload before anything came", [events(BUSY), ANSWER], [1], FAILED),
    Row("a mistake before anything came",
        [events(event(error={"message": "x", "type": "invalid_request_error"}))], [], "failed",
        BadRequestError),
    Row("silence before anything came", [slow(3, stalled(events())), ANSWER], [Gap(1, 0, 8)],
        FAILED, None, {"timeout_secs": 5}),
    Row("silence as long as a stream's default", [hang, ANSWER], [Gap(1, 0, 120)], FAILED),
    Row("a break after text", [events("o", breaks_off=True)], [], "failed", ReadError, partial="o"),
    Row("an end after text", [events("o")], [], "failed", IncompleteStreamError, partial="o"),
    Row("no JSON after text", [events("o", b"data: {\n\n")], [], "failed", MalformedResponseError,
        partial="o"),
    Row("an overload after text", [events("o", BUSY)], [], "failed", OverloadedError, partial="o"),
    Row("silence after text", [stalled(events("o"))], [], "failed", RequestTimeoutError,
        {"timeout_secs": 5}, 5, "o"),
    Row("a break after a thought", [events(THOUGHT, breaks_off=True)], [], "failed", ReadError),
    Row("a break after a call began", [events(TOOL, breaks_off=True)], [], "failed", ReadError),
    Row("a break after text in the second attempt", [status(503), events("o", breaks_off=True)],
        [1], "denied failed", ReadError, partial="o"),
    Row("an empty answer whose end was delivered", [events(FINISH, DONE)], [], "rejected",
        EmptyResponseError, EMPTY),
    Row("an answer that breaks after its finish", [events("ok", FINISH, breaks_off=True)], [],
        "answered"),
)]  # fmt: skip

TABLE = {
    "status": STATUSES,
    "hint": HINTS,
    "break": BREAKS,
    "setting": SETTINGS,
    "rejection": REJECTIONS,
    "stream": STREAMS,
}
