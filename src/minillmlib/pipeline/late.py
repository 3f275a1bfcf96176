"""Costs that a provider tells only later: asked for until they are there, within a bound."""

from __future__ import annotations

import contextlib

import msgspec

from minillmlib.pipeline.clocks import running_loop, sleep
from minillmlib.pipeline.encode import encode_query
from minillmlib.pipeline.plan import Call
from minillmlib.pipeline.read import cost_of
from minillmlib.transport.exchange import Bound, exchange
from minillmlib.values.attempts import Attempt
from minillmlib.values.costs import CostOutcome, CostResolution
from minillmlib.values.json import decode_json

__all__ = ["has_late_cost", "with_late_costs"]

# OpenRouter's record appears half a second to many seconds after the end (Roo-Code#915,
# speakeasy-api/gram#978).
WAITS_SECS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
QUERY_SECS = 10.0
TOTAL_SECS = 30.0


def has_late_cost(call: Call, attempt: Attempt) -> bool:
    """Whether the cost of an attempt is not known and can still be asked for."""
    is_unknown = attempt.cost is not None and attempt.cost.resolution is CostResolution.UNKNOWN
    return is_unknown and _address(call, attempt) is not None


def _address(call: Call, attempt: Attempt) -> str | None:
    generator = call.generator
    if not attempt.response_id:
        return None
    return generator.provider.resolve_post_stream(generator.base_url, attempt.response_id)


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
    for wait in WAITS_SECS:
        left = end - running_loop().time()
        if left <= wait:
            return None
        await sleep(wait)
        # Not there yet, broken, or a provider of the caller's own that cannot read it.
        with contextlib.suppress(Exception):
            cost = await _asked(call, url, min(QUERY_SECS, left - wait))
            if cost is not None:
                return cost
    return None


async def _asked(call: Call, url: str, secs: float) -> CostOutcome | None:
    request = encode_query(call, url)
    bound, limits = Bound(secs, "total"), call.generator.limits
    reply = await exchange(call.transport, request, bound, limits, lambda *_: None)
    if reply.status != 200:
        return None
    usage = call.generator.provider.parse_late_usage(decode_json(reply.body))
    return None if usage is None else cost_of(call, usage)
