"""Waits for a pace, before the clocks of an attempt start."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from minillmlib.client.http_request import PreparedRequest
from minillmlib.client.prepare import Call
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import MiniLLMError, RateLimitError, RequestTimeoutError
from minillmlib.generator import GeneratorInfo
from minillmlib.transport.timeout import Timeout, TimeoutScope
from minillmlib.types.costs import Attempt, AttemptOutcome
from minillmlib.types.limits import NO_LIMITS
from minillmlib.types.pace import Pace

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event, TimerHandle

T = TypeVar("T")

# The timer of a line waits at least so long, so that it lets several go at once, and at most so
# long, since other loops change the line.
MIN_SECS, MAX_SECS = 0.05, 1.0

ANSWERS = (AttemptOutcome.ANSWERED, AttemptOutcome.REJECTED)

MAX_SHARED = 1000  # in an event loop


class Turn:
    """The place of one completion in the line of its pace."""

    def __init__(self, pace: Pace, call: Call, loop: AbstractEventLoop) -> None:
        self._pace = pace
        self._call = call
        self._loop = loop
        self._request = pace.new_request()
        self._pause: float | None = None  # after the last refusal
        self._holds_place = False  # in line or in flight

    async def wait(self, prepared: PreparedRequest, max_wait: Timeout) -> float:
        """Wait until the request may go. Return the seconds that this took.

        Raises `RateLimitError` if the server refuses everything.
        """
        pace, request, loop = self._pace, self._request, self._loop
        request.size = len(prepared.request.body)
        request.max_output = self._max_output_tokens(prepared)
        request.on_decided = self._pause = None
        self._holds_place = True
        started = loop.time()
        if pace.admit(request, started):
            return 0.0
        decided = asyncio_module().Event()
        request.on_decided = partial(wake, loop, decided)
        pace.join(request)
        self._serve()
        if request.is_waiting:
            try:
                with TimeoutScope().within(max_wait):
                    await decided.wait()
            except RequestTimeoutError as error:
                late = RequestTimeoutError(f"it waited for its pace: {error}", clock=error.clock)
                late.was_sent = False
                raise late from None
        if request.error is not None:
            raise request.error
        return loop.time() - started

    def settle(
        self, attempt: Attempt, headers: Mapping[str, str], error: MiniLLMError | None
    ) -> None:
        """Tell the pace how an attempt ended."""
        pace, request, now = self._pace, self._request, self._loop.time()
        self._holds_place = False
        try:
            limits = self._call.generator.provider.limits_of(headers)
        except Exception:  # noqa: BLE001 - the provider may be the caller's own
            limits = NO_LIMITS
        if isinstance(error, RateLimitError):
            self._pause = pace.refuse(request, now, limits, error.retry_after_secs)
        elif attempt.outcome is AttemptOutcome.NOT_SENT:
            pace.leave(request)
        else:
            usage = None if attempt.cost is None else attempt.cost.usage
            pace.settle(request, now, limits, is_answer=attempt.outcome in ANSWERS, usage=usage)
        self._serve()

    def may_wait(self, secs: float) -> bool:
        """Whether a request that was just refused may go again within that time."""
        return self._pause is not None and self._pause < secs

    def leave(self) -> None:
        """Leave the line, or give back what was not sent."""
        if self._holds_place and self._pace.leave(self._request):
            self._serve()

    def _max_output_tokens(self, prepared: PreparedRequest) -> int | None:
        call = self._call
        try:
            rule = call.generator.provider.billing.max_output_tokens
            return rule(prepared.body, call.settings.params)
        except Exception:  # noqa: BLE001 - the provider may be the caller's own
            return None

    def _serve(self) -> None:
        if not self._pace.has_line:  # as mostly
            return
        if not self._loop.is_running():  # a stream is dropped at the end of its program
            return
        timers: dict[Pace, _Timer] = vars(self._loop).setdefault("_minillmlib_paces", {})
        now = self._loop.time()
        delay, timer = self._pace.serve(now), timers.get(self._pace)
        if timer is None:
            if delay is None:
                return
            timer = timers[self._pace] = _Timer(self._pace, self._loop, timers)
        timer.set(now, delay)


def wake(loop: AbstractEventLoop, decided: Event) -> None:
    """Set an event of a loop, from any thread. Raises `RuntimeError` if the loop is closed."""
    if asyncio_module()._get_running_loop() is loop:  # noqa: SLF001 - documented, and never raises
        decided.set()  # a quarter of the time of the other way, which wakes the loop by a pipe
    else:
        loop.call_soon_threadsafe(decided.set)


def serve_line(pace: Pace) -> None:
    """Let go what may go in the running event loop, after the pace has got more."""
    loop = asyncio_module().get_running_loop()
    timers: dict[Pace, _Timer] = vars(loop).get("_minillmlib_paces", {})
    timer = timers.get(pace)
    if timer is not None:
        now = loop.time()
        timer.set(now, pace.serve(now))


class _Timer:
    """The one timer of a line in an event loop, as long as anybody waits."""

    def __init__(self, pace: Pace, loop: AbstractEventLoop, timers: dict[Pace, _Timer]) -> None:
        self._pace, self._loop, self._timers = pace, loop, timers
        self._handle: TimerHandle | None = None

    def set(self, now: float, delay: float | None) -> None:
        """Let go what may go in `delay` seconds, or end if nobody waits."""
        handle = self._handle
        if delay is None:
            self._timers.pop(self._pace, None)
        else:
            due_at = now + min(max(delay, MIN_SECS), MAX_SECS)
            if handle is not None and handle.when() <= due_at:
                return  # it comes early enough
            self._handle = self._loop.call_at(due_at, self._on_timer)
        if handle is not None:
            handle.cancel()

    def _on_timer(self) -> None:
        self._handle = None
        now = self._loop.time()
        self.set(now, self._pace.serve(now))


_shared: WeakKeyDictionary[AbstractEventLoop, OrderedDict[object, Any]] = WeakKeyDictionary()


def share(kind: type[T], generator: GeneratorInfo, *parts: object) -> T:
    """Return what all users of one server with one key in this event loop share, or a new one."""
    url, credential = urlsplit(generator.base_url), generator.credential
    key: tuple[object, ...] = (kind, url.scheme, url.netloc, credential, *parts)
    try:
        hash(key)
    except TypeError:  # a source of the caller's own
        key = (kind, url.scheme, url.netloc, repr(credential), *parts)
    known = _shared.setdefault(asyncio_module().get_running_loop(), OrderedDict())
    value: T = known.setdefault(key, kind())
    known.move_to_end(key)
    if len(known) > MAX_SHARED:
        known.popitem(last=False)
    return value


def shared_pace(generator: GeneratorInfo) -> Pace:
    """Return the learned pace of all runs in this event loop that ask one model with one key."""
    return share(Pace, generator, generator.model)
