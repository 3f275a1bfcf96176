"""What is tried again, when, how often, and what is told about it."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retry_table import AT_ONCE, TABLE, WALL_CLOCK, Gap
from scripted_server import (
    ANSWER,
    COUNTS,
    FINISH,
    USAGE,
    Server,
    event,
    events,
    outcomes,
    status,
    tried,
)
from virtual_clock import now, run_virtually

from minillmlib import (
    AuthenticationError,
    ChatNode,
    CostResolution,
    InvalidParameterError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    NoJsonFoundError,
    OverloadedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from minillmlib.client.retry import DEFAULT_RETRIES, RetryQuota, retry_delay, set_default_retries

SEED = 20
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def asked(**settings) -> NodeCompletionParameters:
    return NodeCompletionParameters(**settings)


@pytest.fixture(autouse=True)
def quota(monkeypatch) -> RetryQuota:
    """A full bucket for each test; the process has one for all."""
    fresh = RetryQuota()
    monkeypatch.setattr("minillmlib.client.completion.retry_quota", fresh)
    return fresh


# The virtual clock itself.


def test_a_virtual_day_takes_no_time():
    async def main():
        await asyncio.sleep(86_400 * 3)
        return now()

    started = time.monotonic()
    assert run_virtually(main()) == 86_400 * 3
    assert time.monotonic() - started < 1


def test_virtual_timers_go_off_in_order_and_time_outs_on_the_dot():
    async def main():
        seen = []
        for secs in (3, 1, 2):
            asyncio.get_running_loop().call_later(
                secs, lambda secs=secs: seen.append((secs, now()))
            )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.Event().wait()
        return seen, now()

    assert run_virtually(main()) == ([(1, 1), (2, 2)], 2.5)


def test_a_program_that_waits_for_nothing_is_stopped(monkeypatch):
    monkeypatch.setattr("virtual_clock.STUCK_SECS", 0.01)
    with pytest.raises(RuntimeError, match="nothing will ever happen"):
        run_virtually(asyncio.Event().wait())


# The table.


def expected_gap(gap, rng: random.Random) -> float:
    if gap is AT_ONCE:
        return 0.0
    gap = gap if isinstance(gap, Gap) else Gap(gap)
    return gap.attempt + max(gap.hint, rng.uniform(0, gap.most))


def check_end(row, result):
    """An answer, or the error itself, or after a retry the error that holds it."""
    if row.end is None:
        assert not isinstance(result, Exception), result
        return
    retries = sum(gap is not AT_ONCE for gap in row.gaps)
    if retries == 0:
        assert type(result) is row.end
        last = result
    else:
        assert type(result) is MaxRetriesExceededError
        last = result.last_error
        assert type(last) is row.end
        assert result.__cause__ is last
        assert last.attempts == result.attempts
        assert str(len(row.outcomes.split())) in str(result)
    assert (result.partial, last.partial) == (row.partial, row.partial)
    assert result.was_sent == any(word != "not_sent" for word in row.outcomes.split())
    assert result.attempts[-1].error == row.end.__name__


def check_attempts(attempts, requests):
    """C1 and C3: one record for each request, and a cost where something may be billed."""
    assert [attempt.number for attempt in attempts] == list(range(1, len(requests) + 1))
    for attempt, request in zip(attempts, requests, strict=True):
        assert (attempt.url, attempt.sent_bytes) == (request.url, len(request.body))
        match attempt.outcome.value:
            case "not_sent" | "denied":
                assert attempt.cost is None
            case "failed" | "abandoned":
                assert attempt.cost.resolution is CostResolution.UNKNOWN
        assert (attempt.error is None) == (attempt.outcome.value in ("answered", "abandoned"))


@pytest.mark.parametrize(
    ("row", "mode"),
    [
        pytest.param(row, mode, id=f"{part}: {row.name} ({mode})")
        for part, rows in TABLE.items()
        for row in rows
        for mode in row.modes.split()
    ],
)
def test_a_script_gives_these_waits_requests_records_and_this_end(row, mode, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: WALL_CLOCK)
    random.seed(SEED)
    rng = random.Random(SEED)
    gaps = [expected_gap(gap, rng) for gap in row.gaps]
    told, server = [], Server(row.script)
    settings = asked(**{"retry": 3, "cost_callback": told.append, **row.settings})

    async def main():
        return await tried(server, settings, streamed=mode == "streamed"), now()

    result, ended = run_virtually(main())
    measured = [later - sooner for sooner, later in itertools.pairwise(server.times)]
    assert measured == pytest.approx(gaps, abs=1e-9)
    assert next(server.steps, None) is None
    tail = row.settings["deadline_secs"] - sum(gaps) if row.tail is None else row.tail
    assert ended - server.times[-1] == pytest.approx(tail, abs=1e-9)
    assert outcomes(result.attempts) == row.outcomes
    check_end(row, result)
    check_attempts(result.attempts, server.requests)
    (info,) = told
    assert info.attempts == result.attempts


def test_the_table_has_sixty_sequences_and_no_two_of_one_name():
    names = [(part, row.name) for part, rows in TABLE.items() for row in rows]
    assert len(set(names)) == len(names) >= 60


@BOTH
def test_the_error_carries_the_hint_that_was_too_long(streamed):
    server = Server([status(429, {"retry-after": "86400"})])
    error = run_virtually(tried(server, asked(retry=3), streamed=streamed))
    assert (type(error), error.retry_after_secs) == (RateLimitError, 86_400)


@BOTH
@pytest.mark.parametrize(
    ("settings", "clock"), [({"timeout_secs": 2}, None), ({"deadline_secs": 2}, "deadline")]
)
def test_a_time_out_names_its_clock(streamed, settings, clock):
    async def hang_on(_request):
        await asyncio.Event().wait()

    error = run_virtually(tried(Server([hang_on]), asked(retry=0, **settings), streamed=streamed))
    assert (type(error), str(error)[:10]) == (RequestTimeoutError, "within 2 s")
    assert error.clock == (clock or ("silence" if streamed else "total"))
    assert error.is_retryable == (clock is None)


def test_two_retries_are_made_where_the_settings_do_not_say():
    server = Server([status(503)] * 3)
    previous = set_default_retries(DEFAULT_RETRIES)
    try:
        error = run_virtually(tried(server, None, streamed=False))
    finally:
        set_default_retries(previous)
    assert outcomes(error.attempts) == "denied denied denied"


@pytest.mark.parametrize("number", [400, 401, 404, 409, 413, 422, 429, 499, 503, 529])
def test_a_status_that_comes_before_any_work_is_a_denial(number):
    error = run_virtually(tried(Server([status(number)]), asked(retry=0), streamed=False))
    assert outcomes(error.attempts) == "denied"


@pytest.mark.parametrize("number", [408, 424, 500, 502, 504, 599])
def test_a_status_that_may_come_after_some_work_is_a_failure(number):
    error = run_virtually(tried(Server([status(number)]), asked(retry=0), streamed=False))
    assert outcomes(error.attempts) == "failed"


ASCTIME = "Tue Nov 14 22:13:29 2023"  # RFC 9110, 5.6.7: obsolete, and to be read all the same


@pytest.mark.parametrize(
    ("date", "zone"),
    [
        ("Tue, 14 Nov 2023 22:13:29 GMT", "UTC"),
        ("Tue, 14 Nov 2023 22:13:29 GMT", "Asia/Tokyo"),
        (ASCTIME, "UTC"),
        (ASCTIME, "Asia/Tokyo"),
    ],
)
def test_a_date_is_read_as_gmt_wherever_the_program_runs(date, zone):
    server = Server([status(429, {"retry-after": date})])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        patch.setattr(time, "time", lambda: WALL_CLOCK)
        error = run_virtually(tried(server, asked(retry=0), streamed=False))
    time.tzset()
    assert error.retry_after_secs == 9


# Costs of attempts that failed.


@BOTH
def test_counts_that_came_with_a_failure_are_its_cost(streamed):
    costly = status(500, body=json.dumps({"error": {"message": "x"}, "usage": USAGE}).encode())
    response = run_virtually(tried(Server([costly, ANSWER]), asked(retry=1), streamed=streamed))
    assert [a.cost.resolution for a in response.attempts] == [CostResolution.RESOLVED] * 2
    assert [a.cost.cost * 10**6 for a in response.attempts] == [5, 5]


@pytest.mark.parametrize(
    "counts", [{"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": 3}, {}]
)
def test_counts_of_a_failure_that_cannot_be_the_bill_leave_its_cost_unknown(counts):
    body = json.dumps({"error": {"message": "x"}, "usage": counts}).encode()
    error = run_virtually(tried(Server([status(500, body=body)]), asked(retry=0), streamed=False))
    assert error.attempts[0].cost.is_unknown


def test_final_counts_of_a_stream_that_breaks_are_its_cost():
    late_error = event(error={"message": "x", "type": "server_error"})
    server = Server([events("o", FINISH, COUNTS, late_error)])
    error = run_virtually(tried(server, asked(retry=3), streamed=True))
    (attempt,) = error.attempts
    assert (attempt.outcome.value, attempt.cost.resolution.value) == ("failed", "resolved")


def test_a_rejected_stream_says_its_text_once():
    server = Server([events("no ", "braces", FINISH, COUNTS)])
    error = run_virtually(tried(server, asked(crash_on_refusal=True), streamed=True))
    assert type(error) is NoJsonFoundError
    assert error.attempts[0].cost.resolution is CostResolution.RESOLVED
    assert error.partial == "no braces"


# A stream that was closed is not tried again.


class Mute:
    """A stream that says nothing until it is closed, and then ends as if it were over."""

    def __init__(self):
        self.status, self.headers = 200, {"content-type": "text/event-stream"}
        self.closed = asyncio.Event()
        self.close = self.closed.set

    async def read(self) -> bytes:
        await self.closed.wait()
        return b""


@pytest.mark.parametrize("retry", [0, 3])
def test_a_stream_closed_while_it_reads_ends_at_once_and_quietly(retry):
    async def answer(_request):
        return Mute()

    async def main():
        server = Server([answer])
        settings = asked(retry=retry, back_off_time=9)
        stream = ChatNode.root("s").chat_streaming("u", server.generator(), settings)

        async def read():
            return [chunk async for chunk in stream]

        reader = asyncio.create_task(read())
        await asyncio.sleep(1)
        await stream.aclose()
        return await reader, now()

    assert run_virtually(main()) == ([], 1)


# How long is waited.

LEGAL = st.floats(0, 1e308) | st.integers(0, 10**300)
HINTS = st.none() | st.floats(0, exclude_min=True, allow_infinity=False)


@given(
    exp_back_off=st.booleans(),
    back_off_time=LEGAL,
    max_back_off=LEGAL,
    hint=HINTS,
    retries=st.integers(0, 10_000),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None)
def test_a_wait_is_finite_and_within_its_bounds(hint, retries, seed, **changes):
    error = RateLimitError("x", status=429, retry_after_secs=hint)
    random.seed(seed)
    wait = retry_delay(asked(**changes), error, retries)
    most = changes["max_back_off"]
    if hint is not None and hint > most:
        assert wait is None
        return
    assert math.isfinite(wait)
    assert max(0, hint or 0) <= wait <= max(hint or 0, most)
    if not changes["exp_back_off"]:
        assert wait <= max(hint or 0, changes["back_off_time"])


def bound(retries: int, **changes) -> float:
    """A wait, always with the same random part."""
    random.seed(SEED)
    return retry_delay(asked(**changes), ServerError("x"), retries)


@given(back_off_time=LEGAL, max_back_off=LEGAL, retries=st.integers(0, 9_999))
@settings(deadline=None)
def test_the_bound_of_a_wait_never_falls(retries, **changes):
    assert bound(retries, **changes) <= bound(retries + 1, **changes)
    assert bound(retries, exp_back_off=False, **changes) == bound(0, **changes)


@given(back_off_time=st.floats(1e-6, 1e6), retries=st.integers(0, 60))
@settings(deadline=None)
def test_the_bound_of_a_wait_doubles(retries, back_off_time):
    changes = {"back_off_time": back_off_time, "max_back_off": 1e300}
    assert bound(retries + 1, **changes) == pytest.approx(2 * bound(retries, **changes))


def test_a_hint_that_is_no_number_is_ignored_whoever_gives_it():
    error = OverloadedError("x", status=503, retry_after_secs=math.nan)
    assert 0 <= retry_delay(asked(), error, 0) <= 1


@pytest.mark.parametrize("field", ["retry", "back_off_time", "max_back_off", "deadline_secs"])
def test_a_number_that_is_too_large_is_refused_by_name(field):
    with pytest.raises(InvalidParameterError, match=field):
        asked(**{field: 10**400})


@BOTH
def test_a_key_that_is_refused_is_replaced_once(streamed):
    keys = iter("abcdef")

    async def get_token() -> str:
        return f"token-{next(keys)}"

    server = Server([status(401)] * 2)
    generator = server.generator().with_token_provider(get_token)
    error = run_virtually(tried(server, asked(retry=0), streamed=streamed, generator=generator))
    assert isinstance(error, AuthenticationError)
    sent = {dict(request.expose_headers())["Authorization"] for request in server.requests}
    assert len(sent) == len(server.requests) == 2
