"""The attempts of a completion, and their cost."""

import enum
from decimal import Decimal

import msgspec

from minillmlib.types.costs import CostOutcome, CostResolution
from minillmlib.types.money import exact_sum
from minillmlib.types.usage import Usage

__all__ = ["Attempt", "AttemptOutcome", "CostInfo"]


class AttemptOutcome(enum.StrEnum):
    """How one attempt ended."""

    ANSWERED = "answered"
    """A whole answer arrived and was accepted."""
    REJECTED = "rejected"
    """A whole answer arrived, but the settings of the call do not accept it."""
    DENIED = "denied"
    """The server denied the request before it did any work."""
    FAILED = "failed"
    """No whole answer arrived. The server may have worked and billed."""
    ABANDONED = "abandoned"
    """The caller cancelled the call, or closed or dropped the stream."""
    NOT_SENT = "not_sent"
    """Nothing left this machine."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request, from start to end.

    `number` counts from 1, `started_at` is in seconds since 1970, and `sent_bytes` is the size of
    the body. `status` is None if no response arrived. `error` is the name of the error's class.
    `cost` is None if nothing can have been billed.
    """

    number: int
    url: str
    model: str
    sent_bytes: int
    started_at: float
    elapsed_secs: float
    outcome: AttemptOutcome
    status: int | None = None
    request_id: str | None = None
    response_id: str = ""
    error: str | None = None
    cost: CostOutcome | None = None

    @property
    def was_sent(self) -> bool:
        """Whether any part of the request may have reached the server."""
        return self.outcome is not AttemptOutcome.NOT_SENT


class CostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of one completion, with all its attempts, in USD and tokens.

    `cost` and the counts are sums of the known parts. They are complete only if `resolution` is
    `RESOLVED`; check it first. `attempts` lists every request, including failed and rejected ones.
    """

    cost: Decimal
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    resolution: CostResolution
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def of(cls, attempts: tuple[Attempt, ...]) -> "CostInfo":
        """Return the sum over the attempts. If none can have been billed, it is a resolved zero."""
        costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
        usages = [cost.usage or Usage() for cost in costs]
        return cls(
            cost=exact_sum(cost.cost for cost in costs),
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cache_read_tokens=sum(usage.cache_read_tokens for usage in usages),
            cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
            resolution=_combine_resolutions([cost.resolution for cost in costs]),
            attempts=attempts,
        )


def _combine_resolutions(resolutions: list[CostResolution]) -> CostResolution:
    gaps = (CostResolution.UNKNOWN, CostResolution.UNPRICED)
    return next((gap for gap in gaps if gap in resolutions), CostResolution.RESOLVED)
