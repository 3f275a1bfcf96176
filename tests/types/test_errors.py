"""What an error holds, also in another process, and whether its request was sent."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest

from minillmlib import (
    ApiError,
    Attempt,
    AttemptOutcome,
    ChatNode,
    ConnectError,
    CostOutcome,
    IncompleteStreamError,
    InvalidParameterError,
    MaxRetriesExceededError,
    MiniLLMError,
    MissingFieldError,
    PartialFailureError,
    RateLimitError,
    ReadError,
    RequestTimeoutError,
    ResponseValidationError,
    ToolArgumentError,
    Usage,
)


def attempt(outcome: AttemptOutcome = AttemptOutcome.FAILED, number: int = 1) -> Attempt:
    return Attempt(
        number=number, url="https://x.example", model="m", sent_bytes=5, started_at=0.0,
        elapsed_secs=1.0, outcome=outcome, cost=CostOutcome.resolved(Decimal(1), Usage()),
    )  # fmt: skip


LAST = RateLimitError(
    "last", status=429, code="c", retry_after_secs=5.0, partial="p", request_id="r"
)
HOLDS = [
    (MiniLLMError("x"), {"partial": "", "request_id": None, "attempts": ()}),
    (MiniLLMError("x", partial="p", request_id="r"), {"partial": "p", "request_id": "r"}),
    (LAST, {"status": 429, "code": "c", "retry_after_secs": 5.0, "partial": "p", "request_id": "r"}),
    (ApiError("x"), {"status": None, "code": None, "retry_after_secs": None, "partial": ""}),
    (ResponseValidationError("x", path="$.a", partial="p"), {"path": "$.a", "partial": "p"}),
    (ToolArgumentError("x", path="$.a"), {"path": "$.a", "partial": ""}),
    (MissingFieldError("x", fields=("a",)), {"fields": ("a",)}),
    (MaxRetriesExceededError("x", last_error=LAST), {"partial": "p", "request_id": "r"}),
    (MaxRetriesExceededError("x"), {"partial": "", "request_id": None, "last_error": None}),
    *(
        (RequestTimeoutError("x", clock=clock, partial="p"),
         {"clock": clock, "partial": "p", "is_retryable": may, "allows_fallback": may})
        for clock, may in (("total", True), ("silence", True), ("progress", True), ("deadline", False))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("error", "fields"), HOLDS)
def test_an_error_holds_what_it_was_given_also_in_another_process(error, fields):
    error.attempts = (attempt(),)
    for each in (error, pickle.loads(pickle.dumps(error))):
        found = {name: getattr(each, name) for name in fields}
        assert found == {**fields, **({"attempts": (attempt(),)} if "attempts" in fields else {})}
        assert (type(each), str(each), each.attempts) == (type(error), str(error), (attempt(),))
        assert each.is_retryable is error.is_retryable


def test_the_error_behind_the_last_attempt_comes_along():
    found = pickle.loads(pickle.dumps(MaxRetriesExceededError("x", last_error=LAST))).last_error
    assert (type(found), str(found), vars(found)) == (RateLimitError, "last", vars(LAST))


@pytest.mark.parametrize(
    ("kinds", "may_pass"),
    [((), False), ((InvalidParameterError,), False), ((RateLimitError, InvalidParameterError), True),
     ((InvalidParameterError, IncompleteStreamError), True)],
)  # fmt: skip
def test_of_several_errors_all_attempts_are_kept_and_one_that_may_pass_is_enough(kinds, may_pass):
    errors = [kind("x") for kind in kinds]
    for number, error in enumerate(errors):
        error.attempts = (attempt(number=number), attempt(number=number + 10))
    nodes = [ChatNode.root("s")]
    error = PartialFailureError("some failed", errors=errors, nodes=nodes)
    assert (error.errors, error.nodes) == (tuple(errors), tuple(nodes))
    numbers = [number for place in range(len(kinds)) for number in (place, place + 10)]
    assert [one.number for one in error.attempts] == numbers
    assert error.is_retryable is may_pass
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.nodes, again.attempts) == ("some failed", (), error.attempts)
    assert [type(one) for one in again.errors] == list(kinds)
    assert again.is_retryable is may_pass


SENT, NOT_SENT = AttemptOutcome.FAILED, AttemptOutcome.NOT_SENT


@pytest.mark.parametrize(
    ("error", "given", "attempts", "was_sent"),
    [
        (ReadError("x"), None, (), True), (ConnectError("x"), None, (), False),
        (ApiError("x"), None, (), False), (ReadError("x"), False, (), False),
        (ConnectError("x"), True, (), True), (ReadError("x"), None, (NOT_SENT,), False),
        (ConnectError("x"), None, (NOT_SENT, SENT), True), (ReadError("x"), True, (NOT_SENT,), False),
    ],
)  # fmt: skip
def test_whether_a_request_was_sent_is_what_its_attempts_say(error, given, attempts, was_sent):
    if given is not None:
        error.was_sent = given
    if attempts:
        error.attempts = tuple(map(attempt, attempts))
    assert error.was_sent is was_sent
    assert pickle.loads(pickle.dumps(error)).was_sent is was_sent
