"""What is shown of a model's text, of its counts and costs, and of an error."""

from __future__ import annotations

from decimal import Decimal

from minillmlib import (
    CompletionResponse,
    CostOutcome,
    CostResolution,
    CostTotal,
    FinishReason,
    Usage,
)

__all__ = ["closing_line", "one_line", "remark", "total_words", "visible"]

# A terminal obeys control characters, and bidi controls reorder what a person reads.
_KEPT = "\n\t"
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_BIDI_CONTROLS = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*_CONTROLS, *_BIDI_CONTROLS)
    if chr(code) not in _KEPT
}

_REMARKS = {
    FinishReason.LENGTH: "the answer was cut at its length limit",
    FinishReason.CONTENT_FILTER: "the answer was refused or filtered",
    FinishReason.ERROR: "the server broke the answer off",
}

NO_PRICE = "cost unknown (no price set)"
NO_COST = "cost unknown"
LEAST_PLACES = 4
COST_DIGITS = 4


def visible(text: str) -> str:
    r"""`text` with every control but the line end and the tab written out, like `\x1b`.

    Each character stands for itself, so a text may be shown piece by piece.
    """
    return text.translate(_VISIBLE)


def one_line(text: str) -> str:
    """`text` on one line, safe to show."""
    return visible(" ".join(text.split()))


def closing_line(response: CompletionResponse) -> str:
    """The counts and the cost of an answer, and why it ended if that is not plain."""
    parts = [_tokens(response.usage), _cost(response.cost), remark(response)]
    return " · ".join(part for part in parts if part)


def remark(response: CompletionResponse) -> str | None:
    """Why the answer is not what it seems, or None for one that is whole."""
    if response.refusal_reason is not None:
        return f"the answer was refused: {one_line(response.refusal_reason)}"
    if response.finish_reason in _REMARKS:
        return _REMARKS[response.finish_reason]
    return None if response.text else "the answer has no text"


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "no token counts"
    return f"{usage.total_tokens} tokens ({usage.prompt_tokens} in, {usage.completion_tokens} out)"


def _cost(outcome: CostOutcome) -> str:
    match outcome.resolution:
        case CostResolution.RESOLVED:
            return _dollars(outcome.cost)
        case CostResolution.UNPRICED:
            return NO_PRICE
        case CostResolution.UNKNOWN:
            return NO_COST


def total_words(total: CostTotal) -> str:
    """A sum of costs, in few words; never an amount where nothing is known."""
    if total.is_exact:
        return _dollars(total.cost)
    if total.cost:
        return f"at least {_dollars(total.cost)}"
    return NO_COST if total.unknown else NO_PRICE


def _dollars(cost: Decimal) -> str:
    """The amount in plain digits; a small one keeps its first four."""
    places = max(LEAST_PLACES, COST_DIGITS - 1 - cost.adjusted())
    return "$" + f"{cost:.{places}f}".rstrip("0").rstrip(".")
