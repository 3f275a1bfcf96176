"""Rates: how many units may go now, by a limit that is given, stated or found out."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

MINUTE_SECS = 60.0
SMOOTH_SECS = 0.25  # of the rate may go at once where it is spread evenly
MARGIN = 0.98  # of a limit that others share, for clocks and networks that are not ours

GROWTH, GROWTH_SECS = 1.25, 1.0  # of a stated rate that turns out too small
DOUBT_SECS = 1.0  # of pause before it is spread evenly, since some servers count by the second
MAX_CHANGES = 10  # of a limit, before it says nothing

# The rate after a refusal that nothing explains: CUBIC (RFC 9438), by time and without units.
CUT, DEEP_CUT = 0.1, 0.5
RECOVERY_SECS, MAX_RECOVERY_SECS = 10.0, 60.0
RECOVERY_REQUESTS = 30.0  # a slow rate recovers over as many
PAUSE_SECS, MAX_PAUSE_SECS = 0.5, 30.0


class Bucket:
    """So many units a second, of which so many may go at once.

    A request that is larger than the bucket goes when it is full; the next one waits longer.
    """

    def __init__(self, rate: float, capacity: float) -> None:
        self.rate, self.capacity = rate, capacity
        self.level = capacity
        self.updated_at = -math.inf  # full, until something is taken

    @classmethod
    def spread(cls, limit: int) -> Bucket:
        """Return a bucket that lets no minute have more than `limit` units and one request."""
        capacity = max(1.0, limit * SMOOTH_SECS / MINUTE_SECS)
        return cls((limit - capacity + 1) / MINUTE_SECS, capacity)

    def refill(self, now: float) -> None:
        """Add what has become free since the last time."""
        if now > self.updated_at:
            freed = (now - self.updated_at) * self.rate
            self.level = min(self.capacity, self.level + freed)
            self.updated_at = now

    def delay(self, amount: float) -> float:
        """Return the seconds until so much may go."""
        missing = min(amount, self.capacity) - self.level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        """Count so much as gone; less than nothing comes back."""
        self.level -= amount


class LeasedRate(Bucket):
    """Units that may go at times which somebody else grants.

    One that is due waits for its request, but only so many at once.
    """

    def __init__(self) -> None:
        super().__init__(0.0, 0.0)
        self._leases: deque[tuple[float, float, int]] = deque()  # start, interval, count
        self._next_at = math.inf

    @property
    def balance(self) -> int:
        """The units that were granted and neither taken nor lost."""
        return int(self.level) + sum(count for _, _, count in self._leases)

    def grant(self, count: int, start_at: float, interval_secs: float) -> None:
        """Let so many units go, one each interval, from a time on."""
        self._leases.append((start_at, interval_secs, count))

    def refill(self, now: float) -> None:
        """Add what has become due since the last time."""
        while self._leases and self._leases[0][0] <= now:
            start_at, interval, count = self._leases.popleft()
            due = min(count, int((now - start_at) / interval) + 1) if interval else count
            capacity = max(1, int(SMOOTH_SECS / interval)) if interval else count
            self.level = min(self.level + due, capacity)
            if due < count:
                self._leases.appendleft((start_at + due * interval, interval, count - due))
                break
        self._next_at = self._leases[0][0] if self._leases else math.inf
        self.updated_at = now

    def delay(self, amount: float) -> float:
        """Return the seconds until so much may go, as far as that is known."""
        return 0.0 if self.level >= min(amount, 1.0) else self._next_at - self.updated_at


class Snapshot(NamedTuple):
    """The state of a limit when a request went."""

    sent_at: float
    level: float
    corrected: float


class StatedLimit(Bucket):
    """A limit a minute that the server states in its headers.

    What it states as remaining is compared with the level at the time when that request went, since
    answers come in any order. Less lowers the level. Much more shows that the rate is too small.
    """

    def __init__(self, limit: int, level: float, now: float) -> None:
        super().__init__(0.0, 0.0)
        self.updated_at = now
        self._corrected = self._accepted = 0.0
        self._stated_at = self._compared_at = self._doubted_at = -math.inf
        self._growth, self._remaining, self._changes = 1.0, 0, 0
        self._is_doubted = False
        self.limit = limit
        self._set_rate()
        self.level = min(level, self.capacity)

    def state(self, limit: int, sent_at: float) -> None:
        """Take over the limit that came with the answer to a request of that time."""
        if sent_at >= self._stated_at:
            self._stated_at = sent_at
            if limit != self.limit:
                self.limit, self._growth = limit, 1.0
                self._accepted = min(self._accepted, limit)
                self._changes += 1
                self._set_rate()

    def _set_rate(self) -> None:
        self.rate = self.limit * MARGIN * self._growth / MINUTE_SECS
        self.capacity = max(1.0, self.rate * SMOOTH_SECS) if self._is_doubted else self.limit
        self.level = min(self.level, self.capacity)

    def snapshot(self, now: float) -> Snapshot:
        """Return the state to compare a statement with."""
        return Snapshot(now, self.level, self._corrected)

    def doubt(self, now: float) -> bool:
        """Spread the limit evenly after a pause. Return whether that changes anything."""
        is_new, self._is_doubted, self._doubted_at = not self._is_doubted, True, now
        self._set_rate()
        if is_new:
            self.level, self.updated_at = min(self.level, 0.0), now + DOUBT_SECS
        return is_new

    def refill(self, now: float) -> None:
        """Add what has become free since the last time."""
        leaked = max(0.0, now - self.updated_at) * self.rate
        self._accepted = max(0.0, self._accepted - leaked)
        super().refill(now)

    def accept(self, amount: float) -> bool:
        """Note what the server took. Return whether its limit can be true.

        A minute's worth may go at the end of one minute and again at the beginning of the next.
        """
        self._accepted += amount
        return self._accepted <= 2 * self.limit + amount and not self.is_noise

    @property
    def is_noise(self) -> bool:
        """Whether the limit changes so often that it says nothing."""
        return self._changes > MAX_CHANGES

    def compare(self, remaining: int, then: Snapshot, now: float) -> float:
        """Lower the level by what it was too high, and return that."""
        remaining = min(remaining, self.limit)
        excess = then.level - (self._corrected - then.corrected) - remaining
        if excess > 0:
            self._corrected += excess
            self.level -= excess
        if then.sent_at > self._compared_at + GROWTH_SECS:
            growth, is_doubtful = self._growth, now < self._doubted_at + RECOVERY_SECS
            if -excess < self.limit / 4:
                self._growth = max(1.0, growth / GROWTH)
            elif -excess > self.limit / 2 and remaining >= self._remaining and not is_doubtful:
                self._growth *= GROWTH
            self._compared_at, self._remaining = now, remaining
            if self._growth != growth:
                self._set_rate()
        return excess


class FoundRate(Bucket):
    """The rate of requests that a server takes which does not state it, from the first `cut` on.

    After a refusal the rate is a part of what it was, is back after `RECOVERY_SECS`, stays there
    for a while, and then grows faster and faster. If the server takes nothing at all, the pauses
    double, and the rate begins again at one request a second.
    """

    def __init__(self) -> None:
        super().__init__(math.inf, math.inf)
        self._resumes_at = -math.inf
        self._peak = self._sustained = math.inf
        self._cut, self._recovery_secs = CUT, RECOVERY_SECS
        self._shut_secs = 0.0  # of the last pause in which the server took nothing
        self._sent = self._refused = 0.0  # since the cut

    def _rate_at(self, now: float) -> float:
        elapsed = max(0.0, now - self._resumes_at)
        rate = self._peak * (1 + self._cut * (elapsed / self._recovery_secs - 1) ** 3)
        return min(rate, 2.0 ** min(elapsed, 64.0)) if self._shut_secs else rate

    def refill(self, now: float) -> None:
        """Add what has become free since the last time."""
        self.rate = self._rate_at(now)
        self.capacity = max(1.0, self.rate * SMOOTH_SECS)
        super().refill(now)

    def take(self, amount: float) -> None:
        """Count requests as gone; less than none comes back."""
        self._sent += amount
        super().take(amount)

    def note_answer(self, now: float) -> None:
        """Note that the server takes requests."""
        if now - self._resumes_at > RECOVERY_SECS:
            self._shut_secs = 0.0

    def note_refusal(self) -> None:
        """Count a refusal."""
        self._refused += 1

    def cut(self, now: float, recent: float) -> float:
        """Lower the rate after a refusal; `recent` is the rate of late. Return the pause."""
        is_first = self._peak == math.inf
        rate = max(recent if is_first else min(self._rate_at(now), recent), 1 / MAX_PAUSE_SECS)
        is_soon = now - self._resumes_at < self._recovery_secs / 4
        if is_soon and self._refused >= self._sent:
            self._shut_secs = min(2 * (self._shut_secs or PAUSE_SECS), MAX_PAUSE_SECS)
            self._peak = self._sustained
        else:
            self._peak = rate
            self._sustained = self._sustained if is_soon else rate
        self._cut = DEEP_CUT if is_soon or is_first else CUT
        recovery_secs = RECOVERY_REQUESTS / self._peak
        self._recovery_secs = min(max(recovery_secs, RECOVERY_SECS), MAX_RECOVERY_SECS)
        pause = self._shut_secs or PAUSE_SECS
        self._resumes_at = now + pause
        self._sent = self._refused = 0.0
        self.level, self.updated_at = min(self.level, 0.0), now + pause
        return pause

    def __repr__(self) -> str:
        return f"{self.rate:.3g}/s"
