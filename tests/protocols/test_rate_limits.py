"""Headers and words about time and quota: how long to wait, and how much is still allowed."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from minillmlib import AnthropicProvider, Provider
from minillmlib.protocols.rate_limits import (
    parse_rate_limits,
    parse_retry_after,
    parse_wait,
    server_time,
)
from minillmlib.types.limits import NO_LIMITS, RateLimits

YEAR_SECS = 366 * 24 * 3600
KINDS = {
    "requests": "requests", "req-minute": "requests", "tokens": "tokens", "tokens-minute": "tokens",
    "input-tokens": "input_tokens", "output-tokens": "output_tokens",
}  # fmt: skip
FACTS = {"limit": "limit", "remaining": "remaining", "reset": "seconds_to_reset"}
FIELDS = [(fact, kind, f"{field}_{of}") for kind, of in KINDS.items() for fact, field in FACTS.items()]  # fmt: skip


@pytest.mark.parametrize(("fact", "kind", "field"), FIELDS)
def test_each_header_of_a_quota_has_its_field(fact, kind, field):
    assert parse_rate_limits({f"x-ratelimit-{fact}-{kind}": "7"}) == RateLimits(**{field: 7})
    headers = {f"anthropic-ratelimit-{kind}-{fact}": "8", "x-ratelimit-limit-requests": "9"}
    assert AnthropicProvider().limits_of(headers) == RateLimits(**{field: 8})


def test_of_two_names_of_one_fact_the_first_counts_if_it_can_be_read():
    names = ("x-ratelimit-limit-req-minute", "x-ratelimit-limit-requests")
    assert parse_rate_limits(dict.fromkeys(names, "3")).limit_requests == 3
    assert parse_rate_limits(dict(zip(names, "34", strict=True))).limit_requests == 4
    assert parse_rate_limits(dict(zip(names, ("3", "many"), strict=True))).limit_requests == 3


def test_a_server_without_quota_states_none():
    assert parse_rate_limits({}) is NO_LIMITS
    assert parse_rate_limits({"date": "x", "retry-after": "3"}) is NO_LIMITS


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("00012", 12), (str(2**53), 2**53), (str(2**53 + 1), None), ("", None), ("-1", None),
     ("+1", None), ("1.0", None), ("1_0", None), (" 1", None), ("\u0663", None), ("\u00b2", None),
     ("0" * 39 + "1", 1), ("0" * 40 + "1", None), ("9" * 40, None), ("nan", None)],
)  # fmt: skip
def test_a_count_is_a_whole_number_of_ascii_digits(text, count):
    assert parse_rate_limits({"x-ratelimit-limit-tokens": text}).limit_tokens == count


@pytest.mark.parametrize(
    ("text", "secs"),
    [("1h", 3600), ("2m", 120), ("3s", 3), ("4ms", 0.004), ("1h2m3s4ms", 3723.004), ("2h5s", 7205),
     ("1h4ms", 3600.004), ("1.5s", 1.5), ("1.5ms", 0.0015), ("7.25", 7.25), ("1.5h", None),
     ("1.5m", None), ("1m1h", None), (".5s", None), ("1.s", None), ("ms", None), ("h", None),
     (str(2**53), 2**53), (str(2**53 + 2), None), ("0" * 39 + "1", 1), ("0" * 40 + "1", None),
     ("1 s", None), ("1S", None), ("2000-01-01T00:00:07Z", 7), ("2000-01-01T00:00:00Z", 0),
     ("1999-12-31T23:59:59Z", 0), ("2000-01-01T01:00:07+01:00", 7), ("2000-01-01T00:00:07", None),
     ("2000-01-01T00:00:07.5Z", 7.5)],
)  # fmt: skip
def test_a_reset_is_in_units_or_by_the_servers_clock(text, secs):
    headers = {"x-ratelimit-reset-tokens": text, "date": "Sat, 01 Jan 2000 00:00:00 GMT"}
    found = Provider().limits_of(headers).seconds_to_reset_tokens
    assert found == (None if secs is None else pytest.approx(secs))


# Dates.

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@pytest.mark.parametrize("number", range(1, 13))
def test_each_month_is_read_in_every_format_of_http(number):
    month, moment = MONTHS[number - 1], datetime(2031, number, 9, 8, 49, 37, tzinfo=UTC).timestamp()
    for date in (
        f"Sun, 09 {month} 2031 08:49:37 GMT", f"Sunday, 09-{month}-31 08:49:37 GMT",
        f"Sun {month}  9 08:49:37 2031", f"Sun, 9 {month} 2031 08:49:37",
        f"Sun, 09 {month} 2031 08:49:37 UTC", f"Sun, 09 {month} 2031 08:49:37 +0000",
        f" Sun, 09 {month} 2031 08:49:37 -0000 ",
    ):  # fmt: skip
        assert server_time({"date": date}) == moment, date


@pytest.mark.parametrize(
    ("year", "full"), [("00", 2000), ("99", 2099), ("0099", 2099), ("0100", 100), ("1994", 1994)]
)
def test_a_year_of_two_digits_is_of_this_century(year, full):
    moment = datetime(full, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
    assert server_time({"date": f"Sun, 06 Nov {year} 08:49:37 GMT"}) == moment


@pytest.mark.parametrize(
    "date",
    ["", "yesterday", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov 1994 08:49:37 +0100",
     "Sun, 06 nov 1994 08:49:37 GMT", "Sun, 32 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 94",
     "Sun, 06 Nov 194 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "1994-11-06T08:49:37Z",
     "Sun, 06 Nov 1994 25:49:37 GMT", "Sun, 06/Nov/1994 08:49:37 GMT", "784111777"],
)  # fmt: skip
def test_what_is_no_date_of_http_says_no_time(date):
    assert server_time({"date": date}) is None
    assert parse_retry_after({"retry-after": date if date != "784111777" else ""}, None) is None


def test_without_a_date_a_server_says_no_time():
    assert server_time({}) is None


# Waits.


@pytest.mark.parametrize(
    ("headers", "in_body", "secs"),
    [
        ({"retry-after-ms": "1500"}, None, 1.5), ({"retry-after-ms": "\t20 "}, None, 0.02),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 4, 1.5),
        ({"retry-after-ms": "0", "retry-after": "9"}, 4, 9),
        ({"retry-after-ms": "1s", "retry-after": "9"}, 4, 9),
        ({"retry-after-ms": "0" * 39 + "9"}, None, 0.009), ({"retry-after-ms": "0" * 40 + "9"}, None, None),
        ({"retry-after": " 2m\t"}, None, 120), ({"retry-after": "0"}, 4, 4), ({"retry-after": "-1"}, 4, 4),
        ({"retry-after": str(YEAR_SECS)}, None, YEAR_SECS),
        ({"retry-after": str(YEAR_SECS + 1)}, None, YEAR_SECS),
        ({"retry-after": str(YEAR_SECS - 1)}, None, YEAR_SECS - 1),
        ({"retry-after": "1e3"}, "5", 5),
        ({}, 7, 7), ({}, 7.5, 7.5), ({}, "7", 7), ({}, "7.5s", 7.5), ({}, " 7 ", 7), ({}, "1m1s", 61),
        ({}, 0, None), ({}, -1, None), ({}, True, None), ({}, "0", None), ({}, "soon", None),
        ({}, [7], None), ({}, {"secs": 7}, None), ({}, None, None), ({}, 10**400, None),
        ({}, float("inf"), None), ({}, float("nan"), None), ({}, 1e-9, 1e-9),
    ],
)  # fmt: skip
def test_a_wait_is_read_from_the_most_exact_place_that_states_one(headers, in_body, secs):
    assert parse_retry_after(headers, in_body) == secs


@pytest.mark.parametrize("days", [0, 1, 40, 365])
def test_a_wait_until_a_date_counts_from_now(days):
    moment = datetime.now(UTC) + timedelta(days=days, seconds=90)
    found = parse_retry_after({"retry-after": format_datetime(moment, usegmt=True)}, None)
    assert found == pytest.approx(moment.timestamp() - time.time(), abs=2)


def test_a_date_of_the_past_asks_for_no_wait_and_one_too_far_away_for_a_year():
    past = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert parse_retry_after({"retry-after": past}, 5) == 5
    assert parse_retry_after({"retry-after": past.replace("1994", "9994")}, 5) == YEAR_SECS


@pytest.mark.parametrize(
    ("message", "secs"),
    [
        ("Try again in 5 seconds", 5), ("retry-after: 5s", 5), ("retry after 5s", 5), ("wait for 5s", 5),
        ("please wait 5s.", 5), ("TRY AGAIN IN 5 MINUTES", 300), ("retry in 5 min", 300),
        ("retry in 2 hours", 7200), ("retry in 2 days", 172_800), ("retry in 5 sec", 5),
        ("retry in 5 ms", 0.005), ("retry in 5 milliseconds", 0.005), ("retry in 5 s", 5),
        ("retry in 1.5 hours", 5400), ("retry in 1h2m3.5s", 3723.5), ("retry in 500ms", 0.5),
        ("retry in 1.5S", 1.5), ("retry in 2m", 120), ("retry in 2m.", 120), ("retry after 5", None),
        ("retry in 5 months", None), ("retry in 5 smurfs", None), ("retry in 5d", None),
        ("retrying in 5s", None), ("entry in 5s", None), ("await 5s", None), ("retry in 1..5s", None),
        ("retry in 1.2.3 seconds", None), ("retry in about 5s", None), ("retry 5s", 5), ("", None),
        ("first 9s, then retry in 3s or wait 4s", 3), ("retry in 12345678901234.5s", 12345678901234.5),
        ("retry in 123456789012345.5s", None), ("try again 5s", 5), ("try again after 5s", 5),
        ("try again after: 5s", 5), ("try again-in 5s", 5), ("retry in \u0665s", None),
        ("retry in 5 secondsabc", 5), ("retry in 5 secondsabcd", None),
    ],
)  # fmt: skip
def test_a_message_may_say_how_long_to_wait(message, secs):
    found = parse_wait(message)
    assert found == (None if secs is None else pytest.approx(secs))
