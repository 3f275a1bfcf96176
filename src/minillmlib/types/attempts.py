"""What a completion did, attempt by attempt, and what that cost."""

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
    """A whole answer came and was taken."""
    REJECTED = "rejected"
    """A whole answer came, but the call's own settings refuse it."""
    DENIED = "denied"
    """The server said no before it did any work."""
    FAILED = "failed"
    """No whole answer came. The server may have worked, and billed."""
    ABANDONED = "abandoned"
    """The caller went away: cancelled, left the stream or dropped it."""
    NOT_SENT = "not_sent"
    """Nothing left this machine."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request, from its beginning to its end.

    `number` counts from 1, `started_at` is in seconds since 1970, `sent_bytes` the size of the
    body. `status` is None if no answer began. `error` is the name of the error's class. `cost` is
    None where nothing can have been billed.
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
        """Whether any of it may have reached the server."""
        return self.outcome is not AttemptOutcome.NOT_SENT


class CostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What one completion cost in all its attempts, in USD and tokens.

    `cost` and the counts are sums over what is known. They are all of it only if `resolution` is
    `RESOLVED`; look there first. `attempts` lists every request, also failed and rejected ones.
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
        """The sum over some attempts. Without one that may be billed it is a resolved zero."""
        costs = [attempt.cost for attempt in attempts if attempt.cost is not None]
        usages = [cost.usage or Usage() for cost in costs]
        return cls(
            cost=exact_sum(cost.cost for cost in costs),
            prompt_tokens=sum(usage.prompt_tokens for usage in usages),
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            cache_read_tokens=sum(usage.cache_read_tokens for usage in usages),
            cache_write_tokens=sum(usage.cache_write_tokens for usage in usages),
            resolution=_least_known([cost.resolution for cost in costs]),
            attempts=attempts,
        )


def _least_known(resolutions: list[CostResolution]) -> CostResolution:
    for resolution in (CostResolution.UNKNOWN, CostResolution.UNPRICED):
        if resolution in resolutions:
            return resolution
    return CostResolution.RESOLVED
