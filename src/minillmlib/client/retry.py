"""Decides whether a failed attempt is tried again, and when."""

from __future__ import annotations

import math
import random
from collections import OrderedDict

from minillmlib.errors import ApiError, MiniLLMError, RateLimitError
from minillmlib.locks import fork_safe_lock
from minillmlib.types.parameters import NodeCompletionParameters

DEFAULT_RETRIES = 2
_default_retries = DEFAULT_RETRIES


def default_retries() -> int:
    """Return the number of retries of calls whose settings do not name one."""
    return _default_retries


def set_default_retries(count: int) -> int:
    """Change that number for the process; return the number before."""
    global _default_retries
    previous, _default_retries = _default_retries, count
    return previous


def retry_delay(
    settings: NodeCompletionParameters, error: MiniLLMError, retries: int
) -> float | None:
    """Return the seconds to wait after `error` before the next attempt; None if that is too long.

    `retries` counts those made before. The random part covers the whole wait ("full jitter"), and
    the wait is capped before it is drawn. What the server asks for is the minimum.
    """
    hint = error.retry_after_secs if isinstance(error, ApiError) else None
    if hint is None or not math.isfinite(hint):
        hint = 0.0
    if hint > settings.max_back_off:
        return None
    factor = 2.0 ** min(retries, 64) if settings.exp_back_off else 1
    ceiling = min(settings.back_off_time * factor, settings.max_back_off)
    return max(hint, random.uniform(0, ceiling))  # noqa: S311 - no secret, it spreads callers


class RetryQuota:
    """Keeps many callers from hammering a server that is down.

    A bucket per server, shared by the process. A retry takes from it and a success gives back: a
    server that answers sometimes is retried without end, and a dead one some three dozen times in
    all. The numbers are those of the AWS SDKs' standard mode.
    """

    CAPACITY = 500
    FAILURE_COST = 14
    RATE_LIMIT_COST = 5
    MAX_SERVERS = 1000

    def __init__(self) -> None:
        self._lock = fork_safe_lock()
        self._remaining: OrderedDict[str, int] = OrderedDict()
        self.is_used = False  # whether any server may need something back

    def take(self, server: str, error: MiniLLMError) -> int | None:
        """Return what a retry after `error` takes, or None if too little remains."""
        cost = self.RATE_LIMIT_COST if isinstance(error, RateLimitError) else self.FAILURE_COST
        with self._lock:
            remaining = self._remaining.get(server, self.CAPACITY)
            if remaining < cost:
                return None
            self._remaining[server] = remaining - cost
            self._remaining.move_to_end(server)
            if len(self._remaining) > self.MAX_SERVERS:
                self._remaining.popitem(last=False)
            self.is_used = True
        return cost

    def give_back(self, server: str, taken: int) -> None:
        """Give back, after a success, what its last retry took, or one if it took none."""
        with self._lock:
            remaining = self._remaining.get(server, self.CAPACITY) + max(taken, 1)
            if remaining < self.CAPACITY:
                self._remaining[server] = remaining
            else:
                self._remaining.pop(server, None)
            self.is_used = bool(self._remaining)


retry_quota = RetryQuota()
