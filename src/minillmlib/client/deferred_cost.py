"""Polls the provider for costs it publishes only after the response, for a bounded time."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import msgspec

from minillmlib.client.attempt import cost_of_usage
from minillmlib.client.http_request import build_cost_query
from minillmlib.client.prepare import Call
from minillmlib.deferred_imports import asyncio_module
from minillmlib.json_value import decode_json
from minillmlib.transport.exchange import Exchange
from minillmlib.transport.timeout import Timeout
from minillmlib.types.costs import Attempt, CostOutcome

# OpenRouter's record appears half a second to many seconds after the end (Roo-Code#915,
# speakeasy-api/gram#978).
WAITS_SECS = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0)
QUERY_SECS = 10.0
TOTAL_SECS = 30.0
MAX_UNREACHABLE = 3  # times in a row that a server may not answer at all
TEMPORARY = (200, 408, 425, 429)  # the record may still come, like after each 5xx


def lookup_url(call: Call, attempt: Attempt) -> str | None:
    """Return the address at which the unknown cost of an attempt can still be asked for."""
    generator, cost = call.generator, attempt.cost
    if attempt.response_id and cost is not None and cost.is_unknown:
        with contextlib.suppress(Exception):  # the provider may be the caller's own
            return generator.provider.resolve_post_stream(generator.base_url, attempt.response_id)
    return None


async def fetch_deferred_costs(
    calls: Sequence[Call], attempts: tuple[Attempt, ...]
) -> tuple[Attempt, ...]:
    """Return the attempts with the costs their providers publish in time; others stay.

    `calls` are those of the attempts.
    """
    end = asyncio_module().get_running_loop().time() + TOTAL_SECS
    updated = []
    for call, attempt in zip(calls, attempts, strict=True):
        url = lookup_url(call, attempt)
        cost = None if url is None else await _poll(call, url, end)
        updated.append(attempt if cost is None else msgspec.structs.replace(attempt, cost=cost))
    return tuple(updated)


async def _poll(call: Call, url: str, end: float) -> CostOutcome | None:
    asyncio = asyncio_module()
    unreachable = 0
    for wait in WAITS_SECS:
        remaining = end - asyncio.get_running_loop().time()
        if remaining <= wait or unreachable == MAX_UNREACHABLE:
            return None
        await asyncio.sleep(wait)
        reply = await _query(call, url, min(QUERY_SECS, remaining - wait))
        unreachable = unreachable + 1 if reply is None else 0
        if reply is None:
            continue
        status, body = reply
        cost = _parse(call, body) if status == 200 else None
        if cost is not None or not _may_appear_later(call, status, body):
            return cost
    return None


async def _query(call: Call, url: str, secs: float) -> tuple[int, bytes] | None:
    """Return the status and body of the provider's reply, or None if it cannot be reached."""
    try:
        exchange = Exchange(call.transport, build_cost_query(call, url), call.generator.limits)
        body = await exchange.fetch(Timeout(secs, "total"))
    except Exception:  # noqa: BLE001 - also of a transport or a provider of the caller's own
        return None
    return exchange.status or 0, body


def _parse(call: Call, body: bytes) -> CostOutcome | None:
    """Return the cost, or None while it is not there, or if it cannot be read."""
    with contextlib.suppress(Exception):  # the provider may be the caller's own
        usage = call.generator.provider.billing.parse_deferred_usage(decode_json(body))
        if usage is not None:
            return cost_of_usage(call, usage)
    return None


def _may_appear_later(call: Call, status: int, body: bytes) -> bool:
    """Whether the record may follow this reply. Not after a gateway's 404 or a client error."""
    if status != 404:
        return status >= 500 or status in TEMPORARY
    with contextlib.suppress(Exception):  # the provider may be the caller's own
        return call.generator.provider.billing.is_usage_pending(decode_json(body))
    return False
