"""Which generator is asked when one fails, and that the ledger and the cost are right."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from openrouter_server import COST, PRICE, Router, generation_id, is_stream
from scripted_server import (
    ANSWER,
    BOTH,
    COUNTS,
    DONE,
    FINISH,
    Server,
    Step,
    asked,
    event,
    events,
    hang,
    play,
    says,
    slow,
    stalled,
    status,
    tried,
    whole,
)
from virtual_clock import now, run_virtually

from golden import golden_generator, reply_of
from minillmlib import (
    Attempt,
    Auth,
    AuthenticationError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionContext,
    CompletionParameters,
    ConnectError,
    CostInfo,
    CostResolution,
    GeneratorInfo,
    GenericProvider,
    InvalidParameterError,
    MaxRetriesExceededError,
    Message,
    MiniLLMError,
    OverloadedError,
    ReadError,
    RejectedResponseError,
    RequestTimeoutError,
    Secret,
    StaleConnectionError,
    TokenPrice,
    ToolLoop,
    errors,
    estimate_cost,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

FIRST, SECOND = Decimal("0.000005"), Decimal("0.00005")  # what an answer of each costs
TEXT = '{"ok": 1}'
OTHER = GeneratorInfo.custom("other", "https://other.example/v1", "n").with_token_price(
    TokenPrice(10, 20)
)
RESOLVED, UNKNOWN = CostResolution.RESOLVED, CostResolution.UNKNOWN


pytestmark = pytest.mark.usefixtures("quota")


def other(*steps: Step) -> tuple[GeneratorInfo, Server]:
    server = Server(steps)
    return OTHER.with_transport(server), server


def asked_of(attempts: Sequence[Attempt]) -> list[tuple[str, str, str]]:
    return [(each.generator, each.outcome.value, each.error or "") for each in attempts]


# The matrix: each class of error, whole and streamed, before and after the first chunk.

CURED = {
    "TransportError", "ConnectError", "TlsError", "ReadError", "StaleConnectionError",
    "ProtocolError", "RequestTimeoutError", "ContextLengthError", "AuthenticationError",
    "BillingError", "PermissionDeniedError", "ContentFilterError", "NotFoundError",
    "RequestTooLargeError", "ConflictError", "RateLimitError", "RedirectError", "ServerError",
    "ServerTimeoutError", "OverloadedError", "ModelLoadingError", "MalformedResponseError",
    "LimitExceededError", "IncompleteStreamError", "RejectedResponseError", "EmptyResponseError",
    "NoJsonFoundError", "IncompleteJsonError", "ResponseValidationError", "LocalModelError",
}  # fmt: skip
FINAL = {
    "MiniLLMError", "InvalidParameterError", "EmptyThreadError", "BudgetExceededError", "ApiError",
    "BadRequestError", "MaxRetriesExceededError", "JsonRepairError", "ToolArgumentError",
    "TurnLimitError", "PartialFailureError", "ToolError", "MissingFieldError", "CostCallbackError", "StorageError",
    "MissingExtraError", "NotRecordedError",
}  # fmt: skip


def test_it_is_decided_of_every_error_whether_another_model_may_cure_it():
    assert sorted(CURED | FINAL) == sorted(errors.__all__)
    assert not CURED & FINAL


def after_a_chunk(kind: type[MiniLLMError]) -> Step:
    """A stream whose first piece comes, and then the error."""

    async def begin(request):
        response = await play(events("o"), request)
        pieces = [await response.read()]

        async def read():
            if pieces:
                return pieces.pop()
            raise kind("scripted")

        response.read = read
        return response

    return begin


@dataclass
class Cell:
    """What came of a completion whose first generator fails."""

    result: Any
    info: CostInfo
    first: Server
    second: Server

    @property
    def failed(self) -> Sequence[Attempt]:
        """The attempts of the first one."""
        return self.info.attempts[: len(self.first.requests)]


def run_cell(step: Step, *, streamed: bool, **settings) -> Cell:
    told: list[CostInfo] = []
    first, (fallback, second) = Server([step] * 3), other(says(TEXT))
    generator = first.generator().or_else(fallback)
    given = asked(**{"retry": 1, "cost_callback": told.append, **settings})
    result = run_virtually(tried(first, given, streamed=streamed, generator=generator))
    (info,) = told
    assert info.attempts == result.attempts
    assert [each.number for each in info.attempts] == [*range(1, len(info.attempts) + 1)]
    assert len(info.attempts) == len(first.requests) + len(second.requests)
    cell = Cell(result, info, first, second)
    assert {(each.generator, each.model) for each in cell.failed} == {("own", "m")}
    assert info.cost == sum(each.cost.cost for each in info.attempts if each.cost)
    is_unknown = any(each.cost is not None and each.cost.is_unknown for each in info.attempts)
    assert info.resolution is (UNKNOWN if is_unknown else RESOLVED)
    return cell


def check_cured(cell: Cell) -> None:
    """The other one has answered in the form that was asked for, at its own price."""
    last, (request,) = cell.info.attempts[-1], cell.second.requests
    assert cell.result.text == TEXT
    assert is_stream(request) == is_stream(cell.first.requests[0])
    assert cell.result.origin.endswith(":n@other.example")
    assert (last.generator, last.model, last.outcome.value) == ("other", "n", "answered")
    assert last.cost.cost == SECOND


def check_final(cell: Cell, kind: str) -> MiniLLMError:
    """The other one was not asked."""
    last = getattr(cell.result, "last_error", None) or cell.result
    assert type(last).__name__ == kind
    assert cell.second.requests == []
    return last


@BOTH
@pytest.mark.parametrize("name", errors.__all__)
def test_a_class_of_error_before_the_first_chunk(name, streamed):
    kind = getattr(errors, name)
    cell = run_cell(kind, streamed=streamed)
    if name in CURED:
        check_cured(cell)
    else:
        check_final(cell, name)
    tries = 1 + kind("x").is_retryable + (name == "StaleConnectionError")
    assert [each.error for each in cell.failed] == [name] * tries


@pytest.mark.parametrize("name", errors.__all__)
def test_a_class_of_error_after_the_first_chunk_is_final(name):
    cell = run_cell(after_a_chunk(getattr(errors, name)), streamed=True)
    error = check_final(cell, name)
    assert error.partial == ("" if isinstance(error, RejectedResponseError) else "o")
    (attempt,) = cell.failed
    if isinstance(error, ConnectError):  # which says that nothing was sent
        assert (attempt.outcome.value, attempt.cost) == ("not_sent", None)
    else:
        assert (attempt.outcome.value, attempt.cost.resolution) == ("failed", UNKNOWN)


class Row(NamedTuple):
    """What a server does, and how that is recorded: the error, the outcome, the cost of an attempt.

    `cost` is None for one that cannot have been billed, and "unknown" for one that may have been.
    """

    name: str
    step: Step
    error: str
    outcome: str = "denied"
    cost: Decimal | str | None = None
    settings: Mapping[str, Any] = {}
    is_cured: bool = True
    tries: int = 1


HTML = ScriptedReply(pieces=(b"<html>Hi",), headers={"content-type": "text/html"})
DENIALS = {
    400: "BadRequestError", 401: "AuthenticationError", 402: "BillingError",
    403: "PermissionDeniedError", 404: "NotFoundError", 409: "ConflictError",
    413: "RequestTooLargeError", 422: "BadRequestError", 429: "RateLimitError",
    307: "RedirectError", 503: "OverloadedError", 529: "OverloadedError",
}  # fmt: skip
FAILURES = {408: "ServerTimeoutError", 424: "ServerError", 500: "ServerError",
            504: "ServerTimeoutError"}  # fmt: skip
RETRIED = ("ConflictError", "RateLimitError", "OverloadedError")
ROWS = [
    *(Row(f"{code}", status(code), kind, is_cured=kind != "BadRequestError",
          tries=1 + (kind in RETRIED)) for code, kind in DENIALS.items()),
    *(Row(f"{code}", status(code), kind, "failed", "unknown", tries=2)
      for code, kind in FAILURES.items()),
    Row("a long conversation", status(400, message="x", code="context_length_exceeded"),
        "ContextLengthError"),
    Row("a filter", status(400, message="x", code="content_filter"), "ContentFilterError"),
    Row("a used up quota", status(429, message="x", code="insufficient_quota"), "BillingError"),
    Row("a hint that is too long", status(429, {"retry-after": "86400"}), "RateLimitError"),
    Row("an error in a success", status(200, message="x", type="overloaded_error"),
        "OverloadedError", "failed", "unknown", tries=2),
    Row("a mistake in a success", status(200, message="x", type="invalid_request_error"),
        "BadRequestError", "failed", "unknown", is_cured=False),
    Row("a page", HTML, "MalformedResponseError", "failed", "unknown"),
    Row("silence", hang, "RequestTimeoutError", "failed", "unknown", {"timeout_secs": 3}, tries=2),
    Row("the deadline", hang, "RequestTimeoutError", "failed", "unknown", {"deadline_secs": 3},
        is_cured=False),
    Row("a refusal", whole("no"), "NoJsonFoundError", "rejected", FIRST,
        {"crash_on_refusal": True}, tries=2),
    Row("an empty answer", whole(""), "EmptyResponseError", "rejected", FIRST,
        {"crash_on_empty_response": True}, tries=2),
]  # fmt: skip


def check_row(row: Row, cell: Cell) -> None:
    facts = [(each.outcome.value, each.error) for each in cell.failed]
    assert facts == [(row.outcome, row.error)] * row.tries
    for attempt in cell.failed:
        if row.cost is None:
            assert attempt.cost is None
        elif row.cost == "unknown":
            assert attempt.cost.is_unknown
        else:
            assert (attempt.cost.cost, attempt.cost.resolution) == (row.cost, RESOLVED)


@BOTH
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_a_server_does_before_the_first_chunk(row, streamed):
    cell = run_cell(row.step, streamed=streamed, **row.settings)
    check_row(row, cell)
    if row.is_cured:
        check_cured(cell)
    else:
        check_final(cell, row.error)


OVERLOAD = event(error={"message": "x", "type": "overloaded_error"})
STREAMS = [
    Row("a break", events(breaks_off=True), "ReadError", "failed", "unknown", tries=2),
    Row("an end", events(), "IncompleteStreamError", "failed", "unknown", tries=2),
    Row("no JSON", events(b"data: {\n\n"), "MalformedResponseError", "failed", "unknown", tries=2),
    Row("an overload", events(OVERLOAD), "OverloadedError", "failed", "unknown", tries=2),
    Row("silence", stalled(events()), "RequestTimeoutError", "failed", "unknown",
        {"timeout_secs": 3}, tries=2),
    Row("a break after text", events("o", breaks_off=True), "ReadError", "failed", "unknown",
        is_cured=False),
    Row("an end after text", events("o"), "IncompleteStreamError", "failed", "unknown",
        is_cured=False),
    Row("no JSON after text", events("o", b"data: {\n\n"), "MalformedResponseError", "failed",
        "unknown", is_cured=False),
    Row("an overload after text", events("o", OVERLOAD), "OverloadedError", "failed", "unknown",
        is_cured=False),
    Row("silence after text", stalled(events("o")), "RequestTimeoutError", "failed", "unknown",
        {"timeout_secs": 3}, is_cured=False),
    Row("an answer that is rejected after it was delivered", events("no", FINISH, COUNTS, DONE),
        "NoJsonFoundError", "rejected", FIRST, {"crash_on_refusal": True}, is_cured=False),
]  # fmt: skip


@pytest.mark.parametrize("row", STREAMS, ids=lambda row: row.name)
def test_how_a_stream_breaks_off(row):
    cell = run_cell(row.step, streamed=True, **row.settings)
    check_row(row, cell)
    if row.is_cured:
        check_cured(cell)
    else:
        check_final(cell, row.error)


# When all fail.


@BOTH
def test_when_all_fail_the_error_has_all_attempts_and_says_what_each_generator_said(streamed):
    first = Server([status(503, message="too busy")] * 2)
    (second, _), (third, _) = other(status(401, message="bad key")), other(ReadError, ReadError)
    generator = first.generator().or_else(second, third.replace(name="third"))
    error = run_virtually(tried(first, asked(retry=1), streamed=streamed, generator=generator))
    assert type(error) is MaxRetriesExceededError
    assert type(error.last_error) is type(error.__cause__) is ReadError
    assert error.last_error.attempts == error.attempts
    assert [(each.number, each.generator) for each in error.attempts] == [
        (1, "own"), (2, "own"), (3, "other"), (4, "third"), (5, "third"),
    ]  # fmt: skip
    said = str(error)
    assert said.startswith("all 5 attempts failed; own:m: ")
    for words in ("too busy", "; other:n: ", "bad key", "; third:n: scripted"):
        assert words in said


@BOTH
def test_what_each_generator_said_shows_the_key_of_none(streamed):
    keys = ["sk-canary-of-the-first", "sk-canary-of-the-second"]
    fallback, _ = other(status(401, message=f"bad key {keys[1]}"))
    first = Server([status(401, message=f"bad key {keys[0]}")])
    generator = first.generator().with_api_key(keys[0]).or_else(fallback.with_api_key(keys[1]))
    error = run_virtually(tried(first, asked(retry=0), streamed=streamed, generator=generator))
    assert str(error).count("bad key [hidden]") == 2
    assert "canary" not in f"{error}{error.last_error}{error.attempts}{generator!r}"


def test_without_retries_two_that_fail_are_still_one_error_of_both():
    fallback, _ = other(status(401))
    first = Server([status(503)])
    generator = first.generator().or_else(fallback)
    error = run_virtually(tried(first, asked(retry=0), streamed=False, generator=generator))
    assert type(error) is MaxRetriesExceededError
    assert type(error.last_error) is AuthenticationError


def test_a_final_error_of_a_fallback_ends_all():
    (second, _), (third, unasked) = other(status(400)), other()
    first = Server([status(503)])
    generator = first.generator().or_else(second, third)
    error = run_virtually(tried(first, asked(retry=0), streamed=False, generator=generator))
    assert type(error.last_error) is BadRequestError
    assert unasked.requests == []


@BOTH
def test_each_generator_has_all_retries_and_no_wait_comes_before_the_first(streamed):
    fallback, second = other(status(503), status(503), ANSWER)
    first = Server([status(503)] * 3)
    settings = asked(retry=2, exp_back_off=False, max_back_off=0)
    generator = first.generator().or_else(fallback)
    result = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert result.text == "ok"
    assert [each.generator for each in result.attempts] == ["own"] * 3 + ["other"] * 3
    hinted = Server([status(429, {"retry-after": "60"})])
    fallback, second = other(ANSWER)
    generator = hinted.generator().or_else(fallback)
    run_virtually(tried(hinted, asked(), streamed=streamed, generator=generator))
    assert second.times == [0]


@BOTH
def test_each_generator_has_its_own_second_try_after_a_stale_connection(streamed):
    fallback, second = other(StaleConnectionError, ANSWER)
    first = Server([StaleConnectionError, status(503)])
    generator = first.generator().or_else(fallback)
    result = run_virtually(tried(first, asked(retry=0), streamed=streamed, generator=generator))
    assert result.text == "ok"
    assert [server.requests[1].on_new_connection for server in (first, second)] == [True, True]
    assert not second.requests[0].on_new_connection


class Renewing:
    """A credential that is another one each time."""

    def __init__(self):
        self._numbers = itertools.count()

    def resolve(self) -> Auth:
        return Auth.bearer_token(Secret(f"token-{next(self._numbers)}"))


@BOTH
def test_each_generator_has_its_own_second_try_with_a_renewed_credential(streamed):
    fallback, _ = other(status(401), ANSWER)
    first = Server([status(401)] * 2)
    generator, fallback = (
        each.replace(credential=Renewing()) for each in (first.generator(), fallback)
    )
    generator = generator.or_else(fallback)
    result = run_virtually(tried(first, asked(retry=0), streamed=streamed, generator=generator))
    assert [each.generator for each in result.attempts] == ["own", "own", "other", "other"]


def test_the_retries_of_one_generator_give_nothing_back_to_the_server_of_another(quota):
    server, error = "other.example:443", OverloadedError("x")
    while quota.take(server, error):
        pass
    fallback, _ = other(ANSWER)
    first = Server([status(503)] * 2)
    generator = first.generator().or_else(fallback)
    run_virtually(tried(first, asked(retry=1), streamed=False, generator=generator))
    assert quota.take(server, error) is None


# A fallback that cannot be asked, and a first one.


class Silent(ScriptedTransport):
    """A server that nothing may reach."""

    async def send(self, request):
        raise AssertionError(f"{request.url} was asked")


KEYLESS = GeneratorInfo.openai("k").with_transport(Silent([]))


@BOTH
@pytest.mark.parametrize(
    ("fallback", "settings", "error"),
    [
        (KEYLESS, {}, "AuthenticationError"),
        (KEYLESS, {"force_prepend": "{"}, "InvalidParameterError"),
        (
            KEYLESS.with_api_key("sk"),
            {"params": CompletionParameters(top_k=3)},
            "InvalidParameterError",
        ),
    ],
    ids=["no key", "cannot be prepared", "cannot be built"],
)
def test_a_fallback_that_cannot_be_asked_is_recorded_and_the_next_one_is_asked(
    fallback, settings, error, streamed, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    last, _ = other(ANSWER)
    first = Server([status(503)])
    generator = first.generator().or_else(fallback, last)
    settings = asked(retry=0, **settings)
    result = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert asked_of(result.attempts) == [
        ("own", "denied", "OverloadedError"),
        ("openai", "not_sent", error),
        ("other", "answered", ""),
    ]
    assert [each.number for each in result.attempts] == [1, 2, 3]
    assert CostInfo.of(result.attempts).cost == SECOND
    first, generator = Server([status(503)]), first.generator().or_else(fallback)
    generator = generator.with_transport(first)
    failed = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert type(failed.last_error).__name__ == error
    assert asked_of(failed.attempts)[1] == ("openai", "not_sent", error)
    assert "own:m: " in str(failed)
    assert "openai:k: " in str(failed)


def wrong(*_: object, **__: object) -> Any:
    raise KeyError("a mistake")


class WrongBody(GenericProvider):
    build_request = wrong


class WrongAddress(GenericProvider):
    request_url = wrong


WRONG_FACT = GenericProvider(
    capabilities=GenericProvider.capabilities.replace(why_no_prefill=wrong)
)


@BOTH
@pytest.mark.parametrize("provider", [WrongBody(), WrongAddress(), WRONG_FACT])
def test_a_fallback_whose_provider_has_a_mistake_is_recorded_and_the_next_one_is_asked(
    provider, streamed
):
    last, _ = other(ANSWER)
    first = Server([status(503)])
    generator = first.generator().or_else(KEYLESS.with_provider(provider), last)
    settings = asked(retry=0, force_prepend="{")
    result = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert [each.outcome.value for each in result.attempts] == ["denied", "not_sent", "answered"]


@BOTH
def test_what_keeps_the_first_one_from_being_asked_is_told_at_once(streamed, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fallback, second = other()
    generator = KEYLESS.or_else(fallback)
    error = run_virtually(tried(second, None, streamed=streamed, generator=generator))
    assert (type(error), error.attempts) == (AuthenticationError, ())
    assert "OPENAI_API_KEY" in str(error)
    generator = generator.with_api_key("sk")
    settings = asked(params=CompletionParameters(top_k=3))
    error = run_virtually(tried(second, settings, streamed=streamed, generator=generator))
    assert (type(error), error.attempts) == (InvalidParameterError, ())
    assert second.requests == []


# One deadline and one budget.


@BOTH
def test_the_deadline_spans_all_generators(streamed):
    fallback, second = other(hang)
    first = Server([slow(4, status(503))])
    generator = first.generator().or_else(fallback)
    settings = asked(retry=0, deadline_secs=10)

    async def main():
        return await tried(first, settings, streamed=streamed, generator=generator), now()

    error, ended = run_virtually(main())
    assert (second.times, ended) == ([4], 10)
    assert type(error.last_error) is RequestTimeoutError
    assert error.last_error.clock == "deadline"
    assert [each.generator for each in error.attempts] == ["own", "other"]


def test_nobody_is_asked_once_the_deadline_has_passed():
    fallback, second = other()
    first = Server([slow(10, status(503))])
    generator = first.generator().or_else(fallback)
    settings = asked(retry=0, deadline_secs=10)
    run_virtually(tried(first, settings, streamed=False, generator=generator))
    assert second.requests == []


LIMITED = CompletionParameters(max_tokens=10)


def ceiling(generator: GeneratorInfo) -> Decimal:
    thread = [Message.system("s"), Message.user("u")]
    return estimate_cost(thread, generator, asked(params=LIMITED)).ceiling


@BOTH
def test_one_budget_covers_all_generators_each_attempt_at_its_own_ceiling(streamed):
    fallback, _ = other(says(TEXT))
    first, budget = Server([whole("no")]), Budget(ceiling(OTHER) + FIRST)
    generator = first.generator().or_else(fallback)
    settings = asked(params=LIMITED, retry=0, crash_on_refusal=True, budget=budget)
    result = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert result.text == TEXT
    assert budget.spent == FIRST + SECOND
    assert budget.remaining == budget.limit - budget.spent
    first, budget = Server([whole("no")]), Budget(ceiling(OTHER))
    generator = first.generator().or_else(fallback)
    settings = settings.replace(budget=budget)
    error = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert type(error) is BudgetExceededError
    assert budget.spent == FIRST


@BOTH
def test_a_fallback_that_the_budget_does_not_cover_is_not_asked(streamed):
    (fallback, second), (third, unasked) = other(), other()
    first = Server([status(503)])
    generator = first.generator().or_else(fallback, third)
    assert ceiling(OTHER) > ceiling(first.generator())
    settings = asked(params=LIMITED, retry=0, budget=Budget(ceiling(first.generator())))
    error = run_virtually(tried(first, settings, streamed=streamed, generator=generator))
    assert type(error) is BudgetExceededError
    assert asked_of(error.attempts) == [("own", "denied", "OverloadedError")]
    assert second.requests == unasked.requests == []


def test_the_estimate_of_a_chain_is_that_of_its_dearest_and_names_who_lacks_what():
    params = asked(params=LIMITED)
    cheap = GeneratorInfo.custom("own", "https://own.example/v1", "m")
    priced = cheap.with_token_price(TokenPrice(1, 2))
    node = ChatNode.root("s").add_user("u")
    for chain in (priced.or_else(OTHER), OTHER.or_else(priced)):
        assert node.estimate_cost(chain, params) == node.estimate_cost(OTHER, params)
    estimate = node.estimate_cost(OTHER.or_else(cheap), params)
    assert (estimate.ceiling, estimate.missing) == (None, ("own:m: a price (with_token_price)",))


def test_a_price_of_the_call_is_refused_for_several_generators():
    settings = asked(token_price=TokenPrice(1, 2))
    with pytest.raises(InvalidParameterError, match="token_price of the call"):
        ChatNode.root("s").chat_streaming("u", OTHER.or_else(OTHER), settings)


# What the models are told.

SEALED = "anthropic_stream_thinking_summarized.sse"
EARLIER = "reasoning of earlier turns"


@BOTH
async def test_reasoning_that_is_sealed_for_one_model_is_omitted_for_the_other_and_reported(
    streamed,
):
    claude = golden_generator(SEALED)
    transport = ScriptedTransport([reply_of(SEALED), status(529)])
    root = ChatNode.root("s")
    first = claude.with_transport(transport)
    thought = await root.chat_streaming("u", first).collect()
    fallback, second = other(ANSWER)
    node = await (
        thought.chat_streaming("v", first.or_else(fallback), retry=0).collect()
        if streamed
        else thought.chat("v", first.or_else(fallback), retry=0)
    )
    assert b"signature" in transport.requests[1].body
    assert b"signature" not in second.requests[0].body
    assert thought.message.reasoning.text.encode()[:20] not in second.requests[0].body
    assert node.response.request_report.omitted == {EARLIER: "it was made by another model"}
    assert node.response.origin.endswith(":n@other.example")


def test_each_wire_gets_the_expected_type_in_its_own_form_and_corrections_of_its_own():
    @dataclass
    class City:
        name: str

    refused = {"content": [{"type": "text", "text": "no"}], "stop_reason": "end_turn"}
    transport = ScriptedTransport([ScriptedReply.json(refused)] * 2)
    claude = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k").with_transport(transport)
    fallback, second = other(says("no"), says('{"name": "Oslo"}'))
    settings = asked(retry=1).expecting(City)
    node = run_virtually(ChatNode.root("s").chat("u", claude.or_else(fallback), settings))
    assert node.parsed == City("Oslo")
    first, corrected = (json.loads(request.body) for request in transport.requests)
    assert len(corrected["messages"]) == len(first["messages"]) + 2
    asking, correcting = (json.loads(request.body) for request in second.requests)
    assert asking["response_format"]["type"] == "json_schema"
    assert [message["role"] for message in asking["messages"]] == ["system", "user"]
    assert correcting["messages"][:2] == asking["messages"]
    assert len(correcting["messages"]) == 4


def test_a_long_conversation_goes_whole_to_a_fallback_and_stays_encoded_for_the_first():
    turns = [Message.user("u") if n % 2 else Message.assistant("a") for n in range(1, 40)]
    _, leaf = ChatNode.from_messages([Message.system("s"), *turns])
    first = Server([ANSWER, status(503), ANSWER])
    fallback, second = other(ANSWER)
    generator = first.generator().or_else(fallback)

    async def main():
        node = await leaf.complete(generator, retry=0)
        node = await node.chat("v", generator, retry=0)
        return await node.chat("w", generator, retry=0)

    thread = run_virtually(main()).thread()
    bodies = [json.loads(server.requests[-1].body)["messages"] for server in (first, second)]
    assert [message["content"] for message in bodies[0]] == [m.text for m in thread[:-1]]
    assert [message["content"] for message in bodies[1]] == [m.text for m in thread[:-3]]


# Where chains go.


def test_a_tool_loop_goes_on_with_the_fallback_and_begins_each_turn_with_the_first():
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    asks = ScriptedReply.json({"choices": [
        {"index": 0, "message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    ]})  # fmt: skip
    first = Server([status(503), ANSWER])
    fallback, second = other(asks)

    def now() -> str:
        """Tell the time."""
        return "noon"

    generator = first.generator().or_else(fallback)
    asking = ChatNode.root("s").add_user("u")
    node = run_virtually(asking.run_tools(generator, [now], asked(retry=0), ToolLoop()))
    assert node.text == "ok"
    assert [len(server.requests) for server in (first, second)] == [2, 1]
    assert "noon" in first.requests[1].body.decode()


def test_a_context_reports_all_attempts_and_names_the_program_to_every_generator():
    router = ScriptedTransport([whole("ok")])
    fallback = GeneratorInfo.openrouter("a/m").with_api_key("k").with_transport(router)
    first, told = Server([status(503)]), []

    async def main():
        generator = first.generator().or_else(fallback)
        context = CompletionContext(
            generator, "job", lambda *both: told.append(both), app_title="p"
        )
        async with context:
            await ChatNode.root("s").chat_tracked("u", context, asked(retry=0))

    run_virtually(main())
    ((info, meta),) = told
    assert meta == "job"
    assert [each.generator for each in info.attempts] == ["own", "openrouter"]
    assert "p" in dict(router.requests[0].headers).values()


def test_a_cost_that_is_published_later_is_asked_for_where_it_arose(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    named = {"id": generation_id(1)}
    broken = events(event(**named), event(usage=None, **named), breaks_off=True)
    router = Router([ScriptedReply(pieces=broken.pieces, headers={
        **broken.headers, "x-generation-id": generation_id(1)}, breaks_off=True)])  # fmt: skip
    fallback, _ = other(ANSWER)
    told, budget = [], Budget("1")

    async def main():
        settings = asked(retry=0, cost_callback=told.append, params=LIMITED, budget=budget)
        generator = router.generator().with_token_price(PRICE).or_else(KEYLESS, fallback)
        stream = ChatNode.root("s").chat_streaming("u", generator, settings)
        await stream.collect()
        return await stream.cancel()

    info = run_virtually(main())
    assert told == [info]
    assert [each.cost and each.cost.cost for each in info.attempts] == [COST, None, SECOND]
    assert (info.resolution, budget.spent) == (RESOLVED, COST + SECOND)
    assert set(router.asked) == {generation_id(1)}


def test_the_tree_keeps_who_was_asked_and_counts_every_attempt(tmp_path):
    first = Server([whole("no")])
    fallback, _ = other(says('{"a": 1}'))
    settings = asked(retry=0, crash_on_refusal=True)
    node = run_virtually(
        ChatNode.root("s").chat("u", first.generator().or_else(fallback), settings)
    )
    assert node.path_cost().cost == FIRST + SECOND
    node.root_node.save_tree(tmp_path / "t.tree")
    (leaf,) = ChatNode.load_tree(tmp_path / "t.tree").leaves()
    assert leaf.response.attempts == node.response.attempts
    assert [each.generator for each in leaf.response.attempts] == ["own", "other"]
    assert leaf.path_cost() == node.path_cost()


async def test_a_cache_is_warmed_for_the_first_generator_only():
    transport = ScriptedTransport([status(529)])
    claude = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k").with_transport(transport)
    fallback, second = other()
    with pytest.raises(OverloadedError):
        await (
            ChatNode.root("s").add_user("u").ensure_cached(claude.or_else(fallback), asked(retry=0))
        )
    assert second.requests == []


def test_a_cancelled_call_asks_nobody_else():
    fallback, second = other()
    first, told = Server([hang]), []

    async def main():
        generator = first.generator().or_else(fallback)
        call = ChatNode.root("s").chat("u", generator, asked(cost_callback=told.append))
        task = asyncio.create_task(call)
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtually(main())
    (info,) = told
    assert asked_of(info.attempts) == [("own", "abandoned", "")]
    assert second.requests == []


# The chain itself.


def test_a_chain_is_flat_and_each_of_it_without_fallbacks():
    a, b, c, d = (OTHER.replace(model=name) for name in "abcd")
    chain = a.or_else(b.or_else(c), d)
    assert (chain.fallbacks, chain.or_else(), a.or_else(b, c).or_else(d)) == (
        (b, c, d),
        chain,
        chain,
    )
    assert chain != a
    assert chain.replace(model="x").fallbacks == (b, c, d)
    assert pickle.loads(pickle.dumps(chain)) == chain
    assert repr(chain).endswith(", or else other:b, other:c, other:d)")
    assert "or else" not in repr(a)


@pytest.mark.parametrize("wrong", ["openai:m", None, [OTHER], OTHER.provider])
def test_only_a_generator_is_a_fallback(wrong):
    with pytest.raises(InvalidParameterError, match="must be generators"):
        OTHER.or_else(wrong)
    with pytest.raises(InvalidParameterError, match="must be generators"):
        OTHER.replace(fallbacks=wrong)


def test_a_spec_names_a_chain():
    chain = GeneratorInfo.from_spec("openai:gpt-4o-mini, custom:http://h:1/v1:a:b,anthropic:c")
    assert chain == GeneratorInfo.openai("gpt-4o-mini").or_else(
        GeneratorInfo.custom("custom", "http://h:1/v1", "a:b"), GeneratorInfo.anthropic("c")
    )


@pytest.mark.parametrize("spec", ["openai:m,", ",openai:m", "openai:m,,groq:m", ","])
def test_a_comma_without_a_model_is_an_error(spec):
    with pytest.raises(InvalidParameterError, match="comma"):
        GeneratorInfo.from_spec(spec)


def test_a_wrong_model_in_a_chain_is_named_and_no_password_is_shown():
    with pytest.raises(InvalidParameterError, match="did you mean anthropic"):
        GeneratorInfo.from_spec("openai:m,antropic:m")
    with pytest.raises(InvalidParameterError) as caught:
        GeneratorInfo.from_spec("custom:https://user:pa,ss-canary@h/v1:m")
    assert "canary" not in str(caught.value)
