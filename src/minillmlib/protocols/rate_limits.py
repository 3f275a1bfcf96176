"""Reads headers about time and quota: how long to wait, and how much is still allowed."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache

from minillmlib.json_value import JsonValue
from minillmlib.types.limits import NO_LIMITS, RateLimits

MAX_COUNT = 2**53
MAX_CHARS = 40  # of a header that we read
MAX_WAIT_SECS = 366 * 24 * 3600.0

# 12ms, 6m0s, 1h2m3.5s and 10, as OpenAI and Azure send them.
_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(
    rf"(?=\d)(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?(?:(?P<s>{_NUMBER})s)?(?:(?P<ms>{_NUMBER})ms)?"
    rf"|(?P<plain>{_NUMBER})",
    re.ASCII,
)
_UNIT_SECS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "plain": 1.0}

# Please try again in 6m0s. Retry after 22 seconds. A number without a unit is none of ours.
_WAIT = (  # a text, which `re` compiles when it is needed
    r"\b(?:try again|retry|wait)[ -](?:in |after:? |for )?(?P<number>\d[\d.]{0,15})"
    r"(?P<rest>[hms][\dhms.]{0,30}| ?(?P<unit>milli|sec|min|hour|day|m?s\b)[a-z]{0,7})\b"
)
_WAIT_UNIT_SECS = {
    "milli": 0.001, "ms": 0.001, "sec": 1.0, "s": 1.0, "min": 60.0, "hour": 3600.0, "day": 86400.0,
}  # fmt: skip

# The three formats of RFC 9110, 5.6.7: all are UTC, whether they say so or not.
_HTTP_DATES = (
    re.compile(
        r"\w+, (?P<day>\d\d?)[ -](?P<month>\w{3})[ -](?P<year>\d{2}|\d{4}) "
        r"(?P<time>\d\d:\d\d:\d\d)(?: (?:GMT|UTC|[+-]0000))?",
        re.ASCII,
    ),
    re.compile(
        r"\w{3} (?P<month>\w{3}) +(?P<day>\d\d?) (?P<time>\d\d:\d\d:\d\d) (?P<year>\d{4})", re.ASCII
    ),
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


# Each kind of quota, and its names in headers; the second ones are Mistral's and Cerebras'.
_KINDS = {
    "requests": ("requests", "req-minute"),
    "tokens": ("tokens", "tokens-minute"),
    "input_tokens": ("input-tokens",),
    "output_tokens": ("output-tokens",),
}


def parse_rate_limits(
    headers: Mapping[str, str], pattern: str = "x-ratelimit-{fact}-{of}"
) -> RateLimits:
    """Return the quota in headers that are named by `pattern`; a value that is odd gives None."""
    names = _headers_of(pattern)
    if headers.keys().isdisjoint(names):  # as of servers without any
        return NO_LIMITS
    found: dict[str, int | float] = {}
    for header, field in names.items():
        text = headers.get(header)
        if text is not None:
            is_time = field.startswith("seconds")
            value = _secs_to_reset(text, headers.get("date")) if is_time else _count(text)
            if value is not None:
                found.setdefault(field, value)
    return RateLimits(**found)  # type: ignore[arg-type] # the names say which is which


@cache
def _headers_of(pattern: str) -> dict[str, str]:
    """Return the headers, each with the field of `RateLimits` that it has."""
    facts = {"limit": "limit", "remaining": "remaining", "reset": "seconds_to_reset"}
    return {
        pattern.format(fact=fact, of=name): f"{field}_{kind}"
        for kind, names in _KINDS.items()
        for name in names
        for fact, field in facts.items()
    }


def _count(text: str) -> int | None:
    if len(text) > MAX_CHARS or not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if int(text) <= MAX_COUNT else None


def _secs_to_reset(text: str, date: str | None) -> float | None:
    """Return a duration as seconds; a moment is compared with the server's clock."""
    if len(text) > MAX_CHARS:
        return None
    with contextlib.suppress(ValueError):
        secs = _duration(text)
        return secs if secs <= MAX_COUNT else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    try:
        now = _timestamp(date or "")
    except ValueError:
        now = time.time()
    return max(0.0, moment.timestamp() - now)


def _duration(text: str) -> float:
    """Return a duration as seconds. Raises `ValueError` for anything else."""
    found = _DURATION.fullmatch(text) if len(text) <= MAX_CHARS else None
    if found is None:
        raise ValueError(text)
    return sum(float(number) * _UNIT_SECS[unit] for unit, number in found.groupdict("0").items())


def parse_wait(message: str) -> float | None:
    """Return how many seconds a message asks to wait ("try again in 1.2s"), or None."""
    found = re.search(_WAIT, message, re.ASCII | re.IGNORECASE)
    if found is None:
        return None
    try:
        if found["unit"]:
            return float(found["number"]) * _WAIT_UNIT_SECS[found["unit"].lower()]
        return _duration((found["number"] + found["rest"]).lower())
    except ValueError:
        return None


def parse_retry_after(headers: Mapping[str, str], in_body: JsonValue) -> float | None:
    """Return how many seconds a server asks to wait, by its headers, else by its body.

    A number that is not above zero says nothing; more than a year is a year.
    """
    candidates: tuple[Callable[[], float], ...] = (
        lambda: _plain_number(headers["retry-after-ms"]) / 1000,
        lambda: _duration(headers["retry-after"].strip(" \t")),
        lambda: _timestamp(headers["retry-after"]) - time.time(),
        lambda: _plain_number(in_body) if isinstance(in_body, str) else _json_number(in_body),
        lambda: _duration(in_body),
    )
    for candidate in candidates:
        try:
            secs = candidate()
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(secs) and secs > 0:
            return min(secs, MAX_WAIT_SECS)
    return None


def server_time(headers: Mapping[str, str]) -> float | None:
    """Return the moment of an answer by the server's clock, in seconds since 1970, or None."""
    try:
        return _timestamp(headers.get("date", ""))
    except ValueError:
        return None


def _plain_number(text: str) -> float:
    """Return a number of ASCII digits. Raises `ValueError` for anything else."""
    if len(text) > MAX_CHARS or not re.fullmatch(_NUMBER, text.strip(" \t"), re.ASCII):
        raise ValueError(text)
    return float(text)


def _json_number(value: JsonValue) -> float:
    if type(value) not in (int, float):  # such as True
        raise TypeError
    return float(value)


def _timestamp(date: str) -> float:
    """Return the moment of an HTTP date. Raises `ValueError` for anything else."""
    for pattern in _HTTP_DATES:
        found = pattern.fullmatch(date.strip())
        if found is not None:
            year, month = int(found["year"]), _MONTHS.index(found["month"]) + 1
            day = f"{year if year > 99 else year + 2000:04}-{month:02}-{int(found['day']):02}"
            return datetime.fromisoformat(f"{day}T{found['time']}Z").timestamp()
    raise ValueError(date)
