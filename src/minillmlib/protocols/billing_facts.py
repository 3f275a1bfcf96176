"""Reads the facts of an answer that make its tokens more or less expensive than usual."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, excerpt, excerpt_of
from minillmlib.types.usage import Usage

# The values that mean the standard price, beside null. Any other value, also one of another type,
# means another price.
_StandardTier: TypeAlias = Literal["", "default", "standard", "on_demand"]
_StandardGeo: TypeAlias = Literal["", "global", "not_available"]
_StandardSpeed: TypeAlias = Literal["", "standard"]
# By the key of the answer or of its record of counts.
STANDARD: dict[str, tuple[str, ...]] = {
    "service_tier": get_args(_StandardTier),
    "inference_geo": get_args(_StandardGeo),
    "speed": get_args(_StandardSpeed),
}


class StandardPrice(msgspec.Struct, gc=False):
    """The facts of a body, or of a record of counts, whose tokens have the standard price."""

    service_tier: _StandardTier | None = None
    inference_geo: _StandardGeo | None = None
    speed: _StandardSpeed | None = None


_MEDIA_TOKENS = re.compile(r"(audio|image|video)_(?:tokens|seconds|count)")
# The counts of tokens that are read, are parts of others that are, or are billed by no vendor. Any
# other one may have a price of its own.
_COUNTED_TOKENS = frozenset((
    "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens",
    "cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens",
    "cache_read_input_tokens", "cache_creation_input_tokens", "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens", "cache_write_tokens", "cache_creation_tokens",
    "reasoning_tokens", "thinking_tokens", "text_tokens", "accepted_prediction_tokens",
    "rejected_prediction_tokens", "citation_tokens",
))  # fmt: skip
# Counts of a vendor's tools, whose use costs a fee; fetches of pages cost tokens only.
_FEES = re.compile(r"tool_us|search|sources|requests|_calls|fees?$|grounding")
_FREE = ("web_fetch_requests", "search_context_size")
_FEE_NAMES = {"num_search_queries": "searches", "num_sources_used": "sources"}
MAX_DEPTH = 3  # of a record of counts


def add_billing_facts(usage: Usage, raw: JsonObject, record: JsonObject) -> Usage:
    """Return the counts with the tier, the surcharges and the fees that the answer states."""
    tier = _find_value("service_tier", raw, record)
    items = list(_items(record, MAX_DEPTH))
    surcharges = list(dict.fromkeys(_dear_tokens(items)))
    for key in ("inference_geo", "speed"):
        value = _find_value(key, raw, record)
        if value is not None:
            surcharges.append(f"{key} {value}")
    fees = usage.non_token_charges
    if fees is None and (found := ", ".join(_fees(items))):
        fees = excerpt(found)
    if tier is None and not surcharges and fees is None:
        return usage
    return msgspec.structs.replace(
        usage, service_tier=tier, surcharges=tuple(surcharges), non_token_charges=fees
    )


def _find_value(key: str, raw: JsonObject, record: JsonObject) -> str | None:
    """Return the value of a key as text, or None if it means the standard price."""
    value = record.get(key, raw.get(key))
    if value is None or (isinstance(value, str) and value in STANDARD[key]):
        return None
    return excerpt(value) if isinstance(value, str) else excerpt_of(value)


def _dear_tokens(items: list[tuple[str, JsonValue]]) -> Iterator[str]:
    for key, _ in items:
        if key in _COUNTED_TOKENS:  # as nearly all
            continue
        found = _MEDIA_TOKENS.search(key)
        if found:
            yield f"{found[1]} tokens"
        elif key.endswith("_tokens"):
            yield excerpt(key)


def _fees(items: list[tuple[str, JsonValue]]) -> Iterator[str]:
    for key, value in items:
        if _FEES.search(key) and key not in _FREE:
            yield f"{_FEE_NAMES.get(key, key)}: {value}"


def _items(record: JsonObject, depth: int) -> Iterator[tuple[str, JsonValue]]:
    """Yield the names and values of all counts that are not zero, at any depth."""
    for key, value in record.items():
        if isinstance(value, dict) and depth:
            yield from _items(value, depth - 1)
        elif value and not isinstance(value, list):
            yield key, value
