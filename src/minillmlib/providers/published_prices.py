"""Prices from a public table: the package genai-prices, an extra.

The table is read as it is installed; nothing is fetched. A price that is not certain, or not one
per token, is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from minillmlib.deferred_imports import logger
from minillmlib.errors import MissingExtraError
from minillmlib.json_value import JsonValue
from minillmlib.locks import import_lock
from minillmlib.types.costs import RATES, TokenPrice

if TYPE_CHECKING:
    from genai_prices import types as tables
    from genai_prices.data_snapshot import DataSnapshot

Steps: TypeAlias = list[tuple[int, Decimal]]  # the rate of requests with more input than a number

TABLE = "genai-prices"

RATE_KEYS = {f"{name}_mtok": name for name in RATES}  # ours, by the table's names
# Fees of a vendor's tools; at these vendors only requests that ask for the tools pay them.
FEES = ("web_searches_kcount", "storage_searches_kcount")
FEES_ON_DEMAND = ("anthropic", "openai", "openrouter")
# Models that also bill searches, sounds or images, though the table may not say so.
MORE_THAN_TEXT = re.compile(r"search|sonar|audio|realtime|image|transcribe|tts")
# The domain that Moonshot's prices in USD are of; elsewhere it bills in another currency.
OPEN_DOMAIN = "ai"
# Where a model has the name that its user gave to a deployment.
NAMED_BY_USERS = ("azure",)
# The suffix that a model's name may add to a prefix in the table: a date or a tag.
SAME_MODEL = re.compile(r"(?:[-@]\d{8}|[-@]\d{4}-\d{2}-\d{2}|-latest|-\d{8}-v\d(?::\d)?)?")


class NoPublishedPriceError(Exception):
    """The table has no price for a model."""


def published_price(base_url: str, model: str) -> TokenPrice | None:
    """Return the price of a model at the server with that address, as of today.

    None, with a warning in the log, if the table has none that can be used unchanged. Raises
    `MissingExtraError` without the table.
    """
    try:
        return find_price(base_url, model)
    except NoPublishedPriceError as error:
        logger().warning("%s has no price for %s: %s", TABLE, model, error)
        return None


def find_price(base_url: str, model: str) -> TokenPrice:
    """Return the published price of a model. Raises `NoPublishedPriceError` without one."""
    try:
        with import_lock:
            from genai_prices import __version__, data_snapshot  # noqa: PLC0415 - when asked for
    except ImportError:
        raise MissingExtraError(
            'published prices need genai-prices: pip install "minillmlib[prices]"'
        ) from None
    snapshot = data_snapshot.get_snapshot()  # the caller may have fetched a newer one
    return _price_in(snapshot, f"{TABLE} {__version__}", base_url, model)


def is_published(price: TokenPrice | None) -> bool:
    """Whether a price comes from the table."""
    return price is not None and (price.source or "").startswith(TABLE)


def _price_in(snapshot: DataSnapshot, table: str, base_url: str, model: str) -> TokenPrice:
    now = datetime.now(tz=UTC)
    vendor = _vendor_at(snapshot, base_url)
    if vendor.id in NAMED_BY_USERS:
        raise NoPublishedPriceError("the name of a deployment does not say which model it is")
    entry = next((entry for entry in vendor.models if _is_named(entry.match, model.lower())), None)
    if entry is None:
        raise NoPublishedPriceError(f"it does not know this model of {vendor.id}")
    rates = dict(_rates_of(vendor, _standard_prices(entry, now)))
    if MORE_THAN_TEXT.search(model) or "input" not in rates or "output" not in rates:
        raise NoPublishedPriceError("the model is not billed by the token alone")
    fetched = f", fetched {snapshot.timestamp:%Y-%m-%d}" if snapshot.from_auto_update else ""
    source = f"{table}{fetched}: {vendor.id} {entry.id}, as of {now:%Y-%m-%d}"
    return _price(rates, 0, source)


def _vendor_at(snapshot: DataSnapshot, base_url: str) -> tables.Provider:
    """Return the vendor at an address. A relay may ask another price, so names do not count."""
    for vendor in snapshot.providers:
        found = re.match(vendor.api_pattern, base_url)
        if found is None:
            continue
        rest = base_url[found.end() :]
        if found[0].endswith("."):  # the table leaves the top-level domain open
            rest = rest.removeprefix(OPEN_DOMAIN)
        if found[0].endswith("/") or rest[:1] in ("", "/"):
            return vendor
    raise NoPublishedPriceError(f"it knows no vendor at {base_url}")


def _is_named(rule: tables.MatchLogic, model: str) -> bool:
    """Whether a rule names this model: a prefix or a part of the name is not enough."""
    from genai_prices import types as tables  # noqa: PLC0415 - as above

    if isinstance(rule, tables.ClauseOr):
        return any(_is_named(each, model) for each in rule.or_)
    if isinstance(rule, tables.ClauseStartsWith):
        is_prefix = rule.is_match(model)
        return is_prefix and SAME_MODEL.fullmatch(model[len(rule.starts_with) :]) is not None
    if isinstance(rule, tables.ClauseContains | tables.ClauseEndsWith | tables.ClauseAnd):
        return False
    return rule.is_match(model)


def _standard_prices(entry: tables.ModelInfo, now: datetime) -> tables.ModelPrice:
    """Return the prices of a day: of several, the last that is in force."""
    from genai_prices import types as tables  # noqa: PLC0415 - as above

    if isinstance(entry.prices, tables.ModelPrice):
        return entry.prices
    for each in reversed(entry.prices):
        if isinstance(each.constraint, tables.TimeOfDateConstraint):
            raise NoPublishedPriceError("the price changes with the hour")
        if each.constraint is None or each.constraint.active(now):
            return each.prices
    raise NoPublishedPriceError("the price is not in force yet")


def _rates_of(vendor: tables.Provider, prices: tables.ModelPrice) -> Iterator[tuple[str, Steps]]:
    for key, rate in vars(prices).items():
        if rate is None:
            continue
        if key in RATE_KEYS:
            tiers = [] if isinstance(rate, Decimal) else rate.tiers
            base = rate if isinstance(rate, Decimal) else rate.base
            yield RATE_KEYS[key], [(0, base), *((tier.start, tier.price) for tier in tiers)]
        elif key not in FEES or vendor.id not in FEES_ON_DEMAND:
            raise NoPublishedPriceError(f"its price has a part that is not of plain tokens, {key}")


def _price(rates: dict[str, Steps], tokens: int, source: str) -> TokenPrice:
    """Return the price of requests with more input than `tokens`.

    The table's tiers are for the whole request, by its input, as ours are.
    """
    starts = [start for steps in rates.values() for start, _ in steps if start > tokens]
    threshold = min(starts, default=None)
    rates_here: dict[str, JsonValue] = {
        name: [rate for start, rate in steps if start <= tokens][-1]
        for name, steps in rates.items()
    }
    return TokenPrice(
        **rates_here,
        threshold=threshold,
        next_tier=None if threshold is None else _price(rates, threshold, source),
        source=source,
    )
