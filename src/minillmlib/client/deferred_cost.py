"""Costs that a provider tells only later: asked for until they are there, within a bound."""

from __future__ import annotations

import contextlib

import msgspec

from minillmlib.client.http_request import encode_query
from minillmlib.client.parse import cost_of
from minillmlib.client.prepare import Call
from minillmlib.client.timeouts import sleep
from minillmlib.json_value import decode_json
from minillmlib.transport.exchange import HttpReply, exchange
from minillmlib.transport.timeout import Bound, running_loop
from minillmlib.types.attempts import Attempt
from minillmlib.types.costs import CostOutcome, CostResolution

__all__ = ["has_late_cost", "with_late_costs"]

# OpenRouter's record appears half a second to many seconds after the end (Roo-Code#915,
# speakeasy-api/gram#978).
WAITS_SECS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
QUERY_SECS = 10.0
TOTAL_SECS = 30.0
MOST_UNREACHABLE = 3  # times in a row that a server may not answer at all
AGAIN = (408, 425, 429)  # refusals that are only for now; like each 5xx


def has_late_cost(call: Call, attempt: Attempt) -> bool:
    """Whether the cost of an attempt is not known and can still be asked for."""
    is_unknown = attempt.cost is not None and attempt.cost.resolution is CostResolution.UNKNOWN
    return is_unknown and _address(call, attempt) is not None


def _address(call: Call, attempt: Attempt) -> str | None:
    generator = call.generator
    if attempt.response_id:
        with contextlib.suppress(Exception):  # the provider may be the caller's own
            return generator.provider.resolve_post_stream(generator.base_url, attempt.response_id)
    return None


async def with_late_costs(call: Call, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The attempts with what the provider tells of them by now; what it does not tell stays."""
    end = running_loop().time() + TOTAL_SECS
    known = []
    for attempt in attempts:
        cost = None
        if has_late_cost(call, attempt):
            cost = await _late_cost(call, attempt, end)
        known.append(attempt if cost is None else msgspec.structs.replace(attempt, cost=cost))
    return tuple(known)


async def _late_cost(call: Call, attempt: Attempt, end: float) -> CostOutcome | None:
    url = _address(call, attempt)
    assert url is not None
    unreachable = 0
    for wait in WAITS_SECS:
        left = end - running_loop().time()
        if left <= wait or unreachable == MOST_UNREACHABLE:
            return None
        await sleep(wait)
        reply = await _asked(call, url, min(QUERY_SECS, left - wait))
        unreachable = unreachable + 1 if reply is None else 0
        if reply is not None and reply.status == 200:
            cost = _read(call, reply)
            if cost is not None:
                return cost
        elif reply is not None and not _may_come(call, reply):
            return None
    return None


async def _asked(call: Call, url: str, secs: float) -> HttpReply | None:
    """What the provider answers, or None if it could not be asked."""
    bound, limits = Bound(secs, "total"), call.generator.limits
    try:
        request = encode_query(call, url)
        return await exchange(call.transport, request, bound, limits, lambda *_: {})
    except Exception:  # noqa: BLE001 - also of a transport or a provider of the caller's own
        return None


def _read(call: Call, reply: HttpReply) -> CostOutcome | None:
    """The cost, or None while it is not there, or if it cannot be read."""
    with contextlib.suppress(Exception):  # the provider may be the caller's own
        usage = call.generator.provider.billing.parse_deferred_usage(decode_json(reply.body))
        if usage is not None:
            return cost_of(call, usage)
    return None


def _may_come(call: Call, reply: HttpReply) -> bool:
    """Whether an answer without the record says that it may be there later.

    What a gateway says that knows no such address does not, nor does a refusal.
    """
    if reply.status != 404:
        return reply.status >= 500 or reply.status in AGAIN
    with contextlib.suppress(Exception):  # the provider may be the caller's own
        return call.generator.provider.billing.is_usage_pending(decode_json(reply.body))
    return False
