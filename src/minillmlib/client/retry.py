"""Whether a failed attempt is tried again, and when."""

from __future__ import annotations

import math
import random
import threading
from collections import OrderedDict

from minillmlib.errors import ApiError, MiniLLMError, RateLimitError
from minillmlib.types.parameters import NodeCompletionParameters

__all__ = ["RetryQuota", "default_retries", "retry_quota", "set_default_retries", "wait_secs"]

DEFAULT_RETRIES = 2
_default_retries = DEFAULT_RETRIES


def default_retries() -> int:
    """How often a call tries again whose settings do not say it."""
    return _default_retries


def set_default_retries(count: int) -> int:
    """Changes that for the process; returns the number before."""
    global _default_retries
    previous, _default_retries = _default_retries, count
    return previous


def wait_secs(
    settings: NodeCompletionParameters, error: MiniLLMError, retries: int
) -> float | None:
    """How long to wait after `error` before the next attempt; None if too long to wait at all.

    `retries` counts those made before. The random part is of the whole wait ("full jitter"), and
    the wait is capped before it is taken. What the server asks for is the least.
    """
    hint = error.retry_after_secs if isinstance(error, ApiError) else None
    if hint is not None and not math.isfinite(hint):
        hint = None
    if hint is not None and hint > settings.max_back_off:
        return None
    doubled = settings.back_off_time * 2.0 ** min(retries, 64) if settings.exp_back_off else None
    most = min(settings.back_off_time if doubled is None else doubled, settings.max_back_off)
    # Not for secrets: it only spreads callers over time.
    return max(hint or 0.0, random.uniform(0, most))  # noqa: S311


class RetryQuota:
    """What keeps many callers from hammering a server that is down.

    A bucket per server, shared by the process. A retry takes from it and a success gives back, so
    that a server which answers at times is tried again as often as anybody likes, and a dead one
    some three dozen times in all. The numbers are those of the AWS SDKs' standard mode.
    """

    CAPACITY = 500
    FAILURE_COST = 14
    RATE_LIMIT_COST = 5
    MOST_SERVERS = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: OrderedDict[str, int] = OrderedDict()

    @property
    def is_full(self) -> bool:
        """Whether no server needs anything back."""
        return not self._left

    def take(self, server: str, error: MiniLLMError) -> int | None:
        """What a retry after `error` takes, or None if there is not enough left."""
        cost = self.RATE_LIMIT_COST if isinstance(error, RateLimitError) else self.FAILURE_COST
        with self._lock:
            left = self._left.get(server, self.CAPACITY)
            if left < cost:
                return None
            self._left[server] = left - cost
            self._left.move_to_end(server)
            while len(self._left) > self.MOST_SERVERS:
                self._left.popitem(last=False)
        return cost

    def give_back(self, server: str, taken: int) -> None:
        """After a success: what its last retry took, or one for a success without a retry."""
        if server not in self._left:  # full
            return
        with self._lock:
            left = self._left.get(server, self.CAPACITY) + max(taken, 1)
            if left < self.CAPACITY:
                self._left[server] = left
            else:
                self._left.pop(server, None)


retry_quota = RetryQuota()
