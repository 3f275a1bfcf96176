"""The rules of a pace, for any requests at any times: how much goes, in which order, and all of it."""

from __future__ import annotations

import heapq
import itertools
import math
from operator import itemgetter

from hypothesis import given, settings
from hypothesis import strategies as st

from minillmlib import Pace, RateLimits
from minillmlib.types.usage import Usage

NOTHING = RateLimits()
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 90),  # when it comes
        st.sampled_from([10, 400, 3000]),  # bytes
        st.sampled_from(["answered", "failed", "refused", "cancelled", "cancelled in line"]),
        st.floats(0, 20),  # how long it takes
        st.sampled_from([None, 0.5, 7.0]),  # the wait that a refusal asks for
    ),
    max_size=40,
)


class Trial:
    """Plays requests on a clock of its own; notes which went, and when."""

    def __init__(self, pace, limits=NOTHING):
        self.pace, self.limits = pace, limits
        self.now, self.events, self.numbers = 0.0, [], itertools.count()
        self.went, self.charges, self.ended = [], [], []

    def at(self, moment, what):
        heapq.heappush(self.events, (moment, next(self.numbers), what))

    def add(self, number, event):
        moment, size, fate, secs, retry_after = event
        refusals = itertools.count()
        request = self.pace.new_request()
        request.size = size

        def go():
            if request.error is not None or fate == "cancelled in line":
                self.ended.append(number)
                return
            if fate != "cancelled":  # before it was sent, which gives its turn back
                self.went.append((self.now, number))
            self.charges.append((self.now, request.charge))
            self.at(self.now + secs, end)

        def end():
            if fate == "refused" and next(refusals) < 2:
                if self.pace.refuse(request, self.now, self.limits, retry_after) is not None:
                    self.pace.join(request)
                    self.serve()
                    return
            elif fate == "cancelled":
                self.pace.leave(request)
            else:
                usage = Usage(uncached_input_tokens=size // 3 + 1, completion_tokens=size // 5)
                is_answer = fate != "failed"
                self.pace.settle(request, self.now, self.limits, is_answer=is_answer, usage=usage)
            self.ended.append(number)
            self.serve()

        def come():
            self.begin(request, go)
            if fate == "cancelled in line" and request.is_waiting:
                self.at(self.now + secs, lambda: (self.pace.leave(request), self.serve()))

        self.at(moment, come)

    def begin(self, request, go):
        is_admitted = self.pace.admit(request, self.now)
        request.on_decided = go
        if is_admitted:
            go()
        else:
            self.pace.join(request)
            self.serve()

    def serve(self):
        delay = self.pace.serve(self.now)
        if delay is not None and delay < math.inf:
            self.at(self.now + max(delay, 0.001), self.serve)

    def play(self, events):
        for number, event in enumerate(sorted(events, key=itemgetter(0))):
            self.add(number, event)
        steps = 0
        while self.events and steps < 200_000:
            steps += 1
            self.now, _, what = heapq.heappop(self.events)
            what()
        assert not self.events, "the line comes to an end"
        return self


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.integers(1, 600))
def test_no_minute_has_more_requests_than_given(events, limit):
    trial = Trial(Pace(requests_per_minute=limit)).play(events)
    moments = [moment for moment, _ in trial.went]
    for start in moments:
        assert sum(start <= each < start + 60 - 1e-6 for each in moments) <= limit


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.integers(50, 20_000))
def test_no_minute_has_more_tokens_than_given_and_one_request(events, limit):
    unrefunded = [event for event in events if event[2] == "answered"]
    trial = Trial(Pace(input_tokens_per_minute=limit)).play(unrefunded)
    largest = max((charge.input_tokens for _, charge in trial.charges), default=0)
    for start, _ in trial.charges:
        within = [charge.input_tokens for moment, charge in trial.charges
                  if start <= moment < start + 60]  # fmt: skip
        first_estimate_was_too_high = 3000 * 0.3 * len(within)
        assert sum(within) <= limit + largest + first_estimate_was_too_high


@settings(max_examples=40, deadline=None)
@given(
    EVENTS, st.sampled_from([Pace, lambda: Pace(60), lambda: Pace(output_tokens_per_minute=900)])
)
def test_each_request_ends_once_and_nothing_stays_behind(events, make):
    trial = Trial(make()).play(events)
    assert sorted(trial.ended) == list(range(len(events)))
    assert trial.pace.waiting == 0
    assert trial.pace.serve(trial.now) is None


@settings(max_examples=40, deadline=None)
@given(EVENTS)
def test_who_came_first_goes_first(events):
    calm = [(*event[:2], "answered", *event[3:]) for event in events]
    trial = Trial(Pace(requests_per_minute=7)).play(calm)
    assert [number for _, number in trial.went] == list(range(len(calm)))


@settings(max_examples=100, deadline=None)
@given(
    EVENTS,
    st.builds(
        RateLimits,
        **{
            f"{fact}_{kind}": st.none() | st.integers(0, 2**53) | st.integers(0, 100)
            for fact in ("limit", "remaining")
            for kind in ("requests", "tokens", "input_tokens", "output_tokens")
        },
    ),
)
def test_whatever_the_headers_say_every_request_ends(events, limits):
    trial = Trial(Pace(), limits).play(events)
    assert sorted(trial.ended) == list(range(len(events)))


def admit(pace, now=0.0, max_output=None):
    """Return a request of a hundred bytes that went, or None if it has to wait."""
    request = pace.new_request()
    request.size, request.max_output = 100, max_output
    return request if pace.admit(request, now) else None


def test_what_is_in_flight_counts_when_a_server_first_states_a_limit():
    pace = Pace()
    first, *_ = [admit(pace, max_output=1000) for _ in range(3)]
    limits = RateLimits(limit_tokens=4000, remaining_tokens=3000)
    usage = Usage(uncached_input_tokens=30, completion_tokens=10)
    pace.settle(first, 0.1, limits, is_answer=True, usage=usage)
    assert admit(pace, 0.1, max_output=1000) is None  # two of 1,030 tokens are still to be counted


def test_answers_without_a_limit_are_remembered_for_the_first_that_states_one():
    pace = Pace()
    for _ in range(5):
        usage = Usage(uncached_input_tokens=1000, completion_tokens=10)
        pace.settle(admit(pace), 0.1, NOTHING, is_answer=True, usage=usage)
    limits = RateLimits(limit_input_tokens=10_000, remaining_input_tokens=1500)
    pace.settle(admit(pace), 0.1, limits, is_answer=True)
    assert admit(pace, 0.1) is not None
    assert admit(pace, 0.1) is None


def come_at(*moments):
    """Requests that are answered at once."""
    return [(moment, 10, "answered", 0.0, None) for moment in moments]


def test_with_grants_a_request_goes_at_a_time_that_was_granted_and_no_earlier():
    pace = Pace()
    pace.use_grants()
    for start, interval, number in ((10.0, 5.0, 2), (40.0, 0.5, 3), (60.0, 0.0, 2)):
        pace.grant(number, start, interval)
    trial = Trial(pace).play(come_at(*[0.0] * 7))
    assert [moment for moment, _ in trial.went] == [10.0, 15.0, 40.0, 40.5, 41.0, 60.0, 60.0]


def test_a_grant_that_nobody_used_is_lost_but_for_a_quarter_of_a_second():
    pace = Pace()
    pace.use_grants()
    pace.grant(100, 0.0, 0.125)
    trial = Trial(pace).play(come_at(*[5.0] * 5))
    assert [moment for moment, _ in trial.went] == [5.0, 5.0, 5.125, 5.25, 5.375]


def test_without_a_grant_nobody_goes_and_the_shortfall_is_the_line():
    pace = Pace()
    pace.use_grants()
    for number in range(3):
        pace.join(pace.new_request())
        assert pace.shortfall == number + 1
    assert pace.serve(100.0) == math.inf
    pace.grant(2, 100.0, 1.0)
    assert pace.shortfall == 1
    assert pace.serve(100.0) == 1.0
    assert (pace.waiting, pace.shortfall) == (2, 1)
    assert pace.serve(101.0) == math.inf
    assert (pace.waiting, pace.shortfall) == (1, 1)
