"""Paces: limits on requests and tokens a minute, with a line of the requests that wait.

No published limiter does this. aiolimiter has one kind of unit, serves the smallest request first,
refuses one that is larger than its bucket, and belongs to one event loop; limits counts and never
waits; pyrate-limiter keeps a list entry for every token and polls. None of them takes back an
estimate, changes its rate while requests wait, or pauses as a whole.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from itertools import count
from operator import itemgetter, sub
from typing import NamedTuple, NoReturn

from minillmlib.errors import InvalidParameterError, RateLimitError
from minillmlib.json_value import plural
from minillmlib.locks import fork_safe_lock
from minillmlib.types.limits import NO_LIMITS, RateLimits
from minillmlib.types.rates import (
    DOUBT_SECS,
    RECOVERY_SECS,
    Bucket,
    FoundRate,
    LeasedRate,
    Snapshot,
    StatedLimit,
)
from minillmlib.types.usage import Usage
from minillmlib.types.values import check_count, check_number

START = 20  # requests in flight before the first answer; each answer allows one more
PATIENCE_SECS = 600.0  # with nothing but refusals
RECENT_SECS = 5.0
# A request that is refused so often in a row goes to the end of the line, so that others are tried.
# If they are answered, so often, then it is not the rate for which it is refused.
REFUSALS_IN_FRONT = 3
MAX_ROUNDS = 5

# Before the first answer. Few languages need more than a token for three bytes of JSON.
TOKENS_PER_BYTE = 0.3
OUTPUT_TOKENS = 500.0
MEMORY = 0.98  # of what was known before each answer
MAX_RECENT = 300  # answers


class Charge(NamedTuple):
    """The units of a request, for each kind of limit."""

    requests: float
    tokens: float
    input_tokens: float
    output_tokens: float

    def minus(self, other: Charge) -> Charge:
        """Return the difference."""
        return Charge(*map(sub, self, other))


ONE_REQUEST = Charge(1, 0, 0, 0)


class Pace:
    """Limits on the requests and tokens that any number of completions send in a minute.

    A request waits in line, first come, first served, until it may go. Its clocks start only then,
    except that of `deadline_secs`. A refusal (429) is no retry: the request waits again, at the
    front, and a wait that the server asks for holds for all. Beside its numbers, or without any,
    the pace learns from the headers of each answer, and from refusals where a server states
    nothing. After ten minutes of nothing but refusals, those in line end with `RateLimitError`.

    Requests are spread evenly over the minute. The tokens of a request are estimated by the answers
    so far, and corrected by its own. One that is larger than a whole limit goes alone. Tasks,
    threads and event loops may share a pace.

    Args:
        requests_per_minute: The most requests.
        input_tokens_per_minute: The most tokens of prompts, without those read from a cache.
        output_tokens_per_minute: The most tokens of answers.

    Attributes:
        is_shut: Whether the server has long refused everything. The next answer ends that.

    Examples:
        >>> params = NodeCompletionParameters(pace=Pace(requests_per_minute=600))
        >>> run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini"), params)).text
        'Paris.'
    """

    def __init__(
        self,
        requests_per_minute: int | None = None,
        input_tokens_per_minute: int | None = None,
        output_tokens_per_minute: int | None = None,
    ) -> None:
        self.requests_per_minute = requests_per_minute
        self.input_tokens_per_minute = input_tokens_per_minute
        self.output_tokens_per_minute = output_tokens_per_minute
        self._given: dict[str, int] = {}
        for kind in Charge._fields:
            name = f"{kind}_per_minute"
            limit = vars(self).get(name)
            check_number(name, limit, minimum=1, is_whole=True)
            if limit is not None:
                self._given[kind] = int(limit)
        self._lock = fork_safe_lock()
        self._spread = {kind: Bucket.spread(limit) for kind, limit in self._given.items()}
        self._stated: dict[str, StatedLimit] = {}
        self._refuted: dict[str, float] = {}  # what was stated, and contradicted by what was taken
        self._found: FoundRate | None = None  # after a refusal that no limit explains
        self._list_buckets()
        self._line: list[tuple[int, PacedRequest]] = []  # a heap
        self._numbers = count()
        self._in_flight: set[PacedRequest] = set()
        self._answers = 0  # and other ends
        self._taken = 0  # answers alone
        self._blocked_until = self._reacted_at = self._explained_at = -math.inf
        self._refused_since: float | None = None  # without an answer in between
        self._refused_at = -math.inf
        self._sent_at: deque[float] = deque(maxlen=1000)
        self._estimate = _Estimate()
        self.is_shut: bool = False
        self._granted: LeasedRate | None = None
        self._shares = 1  # of what the server states, of which this pace takes one

    def split(self, count: int) -> list[Pace]:
        """Return so many paces with equal shares, for processes that send apart.

        The sum of the shares is exactly the limit. A share also takes only its part of what a
        server states. Raises `InvalidParameterError` if a limit is smaller than `count`.
        """
        check_count(count)
        last = self.last_share(count)  # raises if there is none
        return [*(self._share(place, count) for place in range(count - 1)), last]

    def last_share(self, count: int) -> Pace:
        """Return the last, and smallest, of the shares of `split`, without making the others."""
        for kind, limit in self._given.items():
            if limit < count:
                words = plural(kind.removesuffix("s"), limit)
                raise InvalidParameterError(
                    f"{limit} {words} a minute cannot be shared by {count} processes: take fewer"
                )
        return self._share(count - 1, count)

    def _share(self, place: int, count: int) -> Pace:
        share = Pace(
            **{
                f"{kind}_per_minute": limit // count + (place < limit % count)
                for kind, limit in self._given.items()
            }
        )
        share._shares = self._shares * count
        return share

    def use_grants(self) -> None:
        """Let requests go only as `grant` says from now on."""
        with self._lock:
            self._spread["requests"] = self._granted = LeasedRate()
            self._list_buckets()

    def grant(self, requests: int, start_at: float, interval_secs: float) -> None:
        """Let so many requests go from a time of the event loops on, one each interval."""
        with self._lock:
            if self._granted is not None:
                self._granted.grant(requests, start_at, interval_secs)

    @property
    def shortfall(self) -> int:
        """The number of requests in line for which no grant has come yet."""
        with self._lock:
            if self._granted is None:
                return 0
            return max(len(self._line) - self._granted.balance, 0)

    @property
    def waiting(self) -> int:
        """The number of requests in line."""
        with self._lock:
            return sum(request.is_waiting for _, request in self._line)

    @property
    def has_line(self) -> bool:
        """Whether a request may be in line, so that `serve` may have something to do."""
        return bool(self._line)

    @property
    def limits(self) -> RateLimits:
        """The limits a minute that the server has stated and that are believed."""
        with self._lock:
            return RateLimits(**{f"limit_{kind}": one.limit for kind, one in self._stated.items()})

    def new_request(self) -> PacedRequest:
        """Return a request that is not in line: `join` it."""
        return PacedRequest(next(self._numbers))

    def admit(self, request: PacedRequest, now: float) -> bool:
        """Let a request go at once. Return False if it must `join` the line."""
        with self._lock:
            if self._line:
                return False
            if self._counts_tokens:
                self._estimate_charge(request)
            if self._delay(request.charge, now) > 0:
                return False
            self._let_go(request, now)
            return True

    def join(self, request: PacedRequest) -> None:
        """Put a request in line: at the place that it had, if it had one. Then `serve`."""
        with self._lock:
            if self._counts_tokens:
                self._estimate_charge(request)
            request.is_waiting = True
            heapq.heappush(self._line, (request.number, request))

    def serve(self, now: float) -> float | None:
        """Let go what may go. Return the seconds until the next may, or None if none waits."""
        with self._lock:
            line = self._line
            while line:
                request = line[0][1]
                if request.is_waiting:
                    delay = self._delay(request.charge, now)
                    if delay > 0:
                        return delay
                    self._let_go(request, now)
                heapq.heappop(line)
            return None

    def leave(self, request: PacedRequest) -> bool:
        """Take a request out of the line, or give back all of one that was not sent.

        Return False if it was not there any more.
        """
        with self._lock:
            if request.is_waiting:
                request.is_waiting = False
                request.notify()
                return True
            if self._end_flight(request):
                self._give_back(request, request.charge)
                return True
            return False

    def settle(
        self,
        request: PacedRequest,
        now: float,
        limits: RateLimits,
        *,
        is_answer: bool,
        usage: Usage | None = None,
    ) -> None:
        """Note how a request ended that the server did not refuse."""
        with self._lock:
            if not self._end_flight(request):
                return
            self._learn(request, now, limits, is_refused=False)
            charge = request.charge
            if is_answer:
                self._taken += 1
                self._refused_since, self.is_shut = None, False
                if self._found is not None:
                    self._found.note_answer(now)
                if usage is not None:
                    self._estimate.remember(request.size, usage)
                if self._counts_tokens:
                    charge = request.charge_of(usage)
                    self._check_stated(charge)
            if charge is not request.charge:
                self._give_back(request, request.charge.minus(charge))

    def refuse(
        self, request: PacedRequest, now: float, limits: RateLimits, retry_after: float | None
    ) -> float | None:
        """Pause after a refusal. Return for how long, or None if that would be too long."""
        with self._lock:
            if not self._end_flight(request):
                return None
            is_alone = request.note_refusal(self._taken) > MAX_ROUNDS
            if request.refusals % REFUSALS_IN_FRONT == 0:
                request.number = next(self._numbers)
            is_explained = self._learn(request, now, limits, is_refused=True)
            is_explained &= now - self._explained_at > RECOVERY_SECS
            self._explained_at = now if is_explained else self._explained_at
            # Refusals count, too; a server that states what remains says so itself.
            self._give_back(request, request.charge._replace(requests=0), request.charge)
            pause = retry_after or 0.0
            if request.sent_at > self._reacted_at:  # else it went before the last reaction
                self._reacted_at = now
                if self._found is not None:
                    self._found.note_refusal()
                if not is_explained:
                    is_new = self._doubt_stated(now)
                    pause = max(pause, DOUBT_SECS if is_new else self._cut_rate(now))
            if self._refused_since is None or now > self._refused_at + PATIENCE_SECS:
                self._refused_since = now
            self._refused_at = now
            if now + pause - self._refused_since > PATIENCE_SECS:
                self._end_line()
                return None
            self._blocked_until = max(self._blocked_until, now + pause)
            return None if is_alone else self._blocked_until - now

    def _list_buckets(self) -> None:
        """List what limits the pace: nothing, until a server states a limit or refuses."""
        found = [] if self._found is None else [("requests", self._found)]
        self._buckets = [*self._spread.items(), *self._stated.items(), *found]
        self._counts_tokens = bool(self._given or self._stated)

    def _estimate_charge(self, request: PacedRequest) -> None:
        request.charge = self._estimate.charge(request.size, request.max_output)

    def _delay(self, charge: Charge, now: float) -> float:
        if not self._counts_tokens and len(self._in_flight) >= START + self._answers:
            return math.inf
        delay = max(self._blocked_until - now, 0.0)
        for kind, bucket in self._buckets:
            bucket.refill(now)
            delay = max(delay, bucket.delay(getattr(charge, kind)))
        return delay

    def _let_go(self, request: PacedRequest, now: float) -> None:
        for kind, bucket in self._buckets:
            bucket.take(getattr(request.charge, kind))
        request.is_waiting, request.sent_at = False, now
        request.snapshots = {}
        for kind, stated in self._stated.items():
            request.snapshots[kind] = stated.snapshot(now)
        self._in_flight.add(request)
        self._sent_at.append(now)
        if request.on_decided is not None and not request.notify():
            self._end_flight(request)
            self._give_back(request, request.charge)

    def _end_flight(self, request: PacedRequest) -> bool:
        if request not in self._in_flight:
            return False
        self._in_flight.discard(request)
        self._answers += 1
        return True

    def _give_back(
        self, request: PacedRequest, charge: Charge, stated: Charge | None = None
    ) -> None:
        """Give back a charge, or another one to the stated limits."""
        for kind, bucket in self._buckets:
            if not isinstance(bucket, StatedLimit):
                bucket.take(-getattr(charge, kind))
            elif kind in request.snapshots:
                bucket.take(-getattr(stated or charge, kind))

    def _learn(
        self, request: PacedRequest, now: float, limits: RateLimits, *, is_refused: bool
    ) -> bool:
        """Take over what the headers state. Return whether that explains a refusal."""
        if limits == NO_LIMITS:
            return False
        limits = limits.share(self._shares)
        is_explained = False
        has_parts = limits.limit_input_tokens or limits.limit_output_tokens
        for kind in Charge._fields:
            limit: int | None = getattr(limits, f"limit_{kind}")
            remaining: int | None = getattr(limits, f"remaining_{kind}")
            if not limit or limit <= self._refuted.get(kind, 0) or (kind == "tokens" and has_parts):
                continue
            stated, then = self._stated.get(kind), request.snapshots.get(kind)
            if stated is None:
                if not self._counts_tokens:
                    self._count_tokens(request)
                others = sum(getattr(one.charge, kind) for one in self._in_flight)
                level = min(remaining or 0, limit) - others
                stated = self._stated[kind] = StatedLimit(limit, level, now)
                for one in self._in_flight:
                    one.snapshots[kind] = stated.snapshot(one.sent_at)
                self._list_buckets()
                continue
            stated.state(limit, request.sent_at)
            if remaining is not None and then is not None:
                charge = getattr(request.charge, kind)
                if is_refused:  # the server has not counted it
                    then = then._replace(level=then.level + charge)
                is_explained |= stated.compare(remaining, then, now) > 2 * charge
        return is_explained

    def _count_tokens(self, ended: PacedRequest) -> None:
        """Estimate what all requests count, once tokens do."""
        for request in (*map(itemgetter(1), self._line), *self._in_flight, ended):
            self._estimate_charge(request)

    def _check_stated(self, charge: Charge) -> None:
        """Forget the limits that cannot be true, as the server has taken more."""
        for kind, stated in list(self._stated.items()):
            if not stated.accept(getattr(charge, kind)):
                self._refuted[kind] = math.inf if stated.is_noise else stated.limit
                del self._stated[kind]
                self._list_buckets()

    def _doubt_stated(self, now: float) -> bool:
        """Spread the stated limits evenly. Return whether that changes anything."""
        changes = [stated.doubt(now) for stated in self._stated.values()]  # all of them
        return any(changes)

    def _cut_rate(self, now: float) -> float:
        """Lower the rate that was found out. Return the pause."""
        if self._found is None:
            self._found = FoundRate()
            self._list_buckets()
        return self._found.cut(now, self._recent_rate(now))

    def _recent_rate(self, now: float) -> float:
        recent = [moment for moment in self._sent_at if moment > now - RECENT_SECS]
        return len(recent) / max(now - recent[0], 1.0) if recent else 0.0

    def _end_line(self) -> None:
        self.is_shut = True
        for _, request in self._line:
            if request.is_waiting:
                request.is_waiting = False
                request.error = RateLimitError(
                    f"for {PATIENCE_SECS:.0f} s the server has refused every request, or it asks "
                    "for a longer wait; this request was not sent: try again later"
                )
                request.notify()
        self._line.clear()

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a pace cannot be pickled or copied, because its copies would send as much again; "
            "parameters that hold it are copied by replace(), and pickled after "
            "replace(pace=None): give each process its share, by pace.split(processes)"
        )

    def __repr__(self) -> str:
        given = [f"{kind}_per_minute={limit}" for kind, limit in self._given.items()]
        return f"Pace({', '.join([*given, f'waiting={self.waiting}'])})"


class PacedRequest:
    """A place in the line of a pace, and what the request counts while it is in flight.

    One for all attempts of a completion. `size` are the bytes of the request, and `max_output` the
    most tokens of its answer, if that is known. `on_decided` is called, from any thread, once it no
    longer waits; `error` then says why it may not go.
    """

    size = 0
    max_output: int | None = None
    on_decided: Callable[[], object] | None = None
    error: RateLimitError | None = None
    is_waiting = False
    sent_at = -math.inf
    refusals = _rounds = _taken_before = 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.charge = ONE_REQUEST
        self.snapshots: dict[str, Snapshot] = {}

    def charge_of(self, usage: Usage | None) -> Charge:
        """Return what the request counts by its answer; the estimate if that does not say."""
        if usage is None or not usage.prompt_tokens:
            return self.charge
        output = usage.completion_tokens
        longest = output if self.max_output is None else self.max_output
        input_ = usage.uncached_input_tokens + usage.cache_write_tokens
        return Charge(1, usage.prompt_tokens + longest, input_, output)

    def note_refusal(self, taken: int) -> int:
        """Return how often the request was refused after others were answered, `taken` in all."""
        self.refusals += 1
        self._rounds += taken > self._taken_before
        self._taken_before = taken
        return self._rounds

    def notify(self) -> bool:
        """Call `on_decided`. Return False if its event loop is closed."""
        try:
            if self.on_decided is not None:
                self.on_decided()
        except RecursionError:  # a RuntimeError, too
            raise
        except RuntimeError:
            return False
        return True


class _Estimate:
    """Estimates the charge of the next request by the answers so far."""

    def __init__(self) -> None:
        self._bytes = self._answers = 0.0
        self._prompt = self._input = self._output = 0.0
        # Added up when they are needed. Older ones would weigh next to nothing.
        self._recent: deque[tuple[int, Usage]] = deque(maxlen=MAX_RECENT)

    def charge(self, size: int, max_output: int | None) -> Charge:
        """Return what a request of so many bytes may count."""
        self._add_recent()
        prompt = input_ = size * TOKENS_PER_BYTE
        if self._bytes:
            prompt, input_ = (size * sum_ / self._bytes for sum_ in (self._prompt, self._input))
        output = self._output / self._answers if self._answers else OUTPUT_TOKENS
        if max_output is not None:
            output = min(output, max_output)
        # Vendors that state one limit for both count the longest answer that may come.
        return Charge(1, prompt + (output if max_output is None else max_output), input_, output)

    def remember(self, size: int, usage: Usage) -> None:
        """Remember what an answered request of so many bytes counted."""
        self._recent.append((size, usage))

    def _add_recent(self) -> None:
        while self._recent:
            size, usage = self._recent.popleft()
            if not usage.prompt_tokens:
                continue
            input_ = usage.uncached_input_tokens + usage.cache_write_tokens
            self._bytes = MEMORY * self._bytes + size
            self._prompt = MEMORY * self._prompt + usage.prompt_tokens
            self._input = MEMORY * self._input + input_
            self._answers = MEMORY * self._answers + 1
            self._output = MEMORY * self._output + usage.completion_tokens
