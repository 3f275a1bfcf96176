"""Reads the costs that servers state themselves."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.costs import EXACT, MAX_USD

StatedCost: TypeAlias = tuple[Decimal, str]  # USD, and where the server states them

MIN_USD = Decimal("1e-20")  # far below any price; each has digits that can be written out
TICKS_PER_USD = Decimal(10**10)  # xAI's unit


def parse_usd(amount: JsonValue) -> Decimal | None:
    """Return USD that a server states, or None for an impossible cost.

    That includes 0: none of these servers is free, and LiteLLM states 0 for a model whose price it
    does not know (BerriAI/litellm#36561).
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        return None
    if isinstance(amount, str) and (not amount.isascii() or "_" in amount):  # `Decimal` reads more
        return None
    try:
        value = Decimal(str(amount))
    except (InvalidOperation, ValueError):
        return None
    return value if value.is_finite() and MIN_USD <= value <= MAX_USD else None


def cost_in_record(record: JsonObject) -> StatedCost | None:
    """Return the cost in a record of counts, if the record also states its unit.

    A plain `cost` may be in any unit.
    """
    ticks: JsonValue = record.get("cost_in_usd_ticks")
    if type(ticks) in (int, float) and 0 < ticks < 2**63:
        usd = parse_usd(EXACT.divide(Decimal(str(ticks)), TICKS_PER_USD))
        return None if usd is None else (usd, "usage.cost_in_usd_ticks")
    cost = record.get("cost")
    if record.get("is_byok") is False:  # OpenRouter's, in USD; with a key of the user, a part of it
        usd = parse_usd(cost)
        return None if usd is None else (usd, "usage.cost")
    match cost:
        # Perplexity's, in USD, beside the cost of each part.
        case {"total_cost": total, "input_tokens_cost": _, "output_tokens_cost": _, **more}:
            usd = None if {"currency", "unit"} & more.keys() else parse_usd(total)
            return None if usd is None else (usd, "usage.cost.total_cost")
    return None
