"""Single steps of a pace at both sides of each of its bounds, and of the limits that a server states."""

from __future__ import annotations

import math

import pytest

from minillmlib import Pace, RateLimitError, RateLimits
from minillmlib.types.pace import PacedRequest
from minillmlib.types.rates import Bucket, FoundRate, LeasedRate, StatedLimit
from minillmlib.types.usage import Usage

NOTHING = RateLimits()


def requests(limit: int, remaining: int | None = None) -> RateLimits:
    return RateLimits(limit_requests=limit, remaining_requests=remaining)


def admit(pace: Pace, now: float = 0.0, size: int = 100) -> PacedRequest | None:
    """Return a request that went, or None if it has to wait."""
    request = pace.new_request()
    request.size = size
    return request if pace.admit(request, now) else None


def answer(pace: Pace, request: PacedRequest, now: float, limits: RateLimits = NOTHING) -> None:
    pace.settle(request, now, limits, is_answer=True)


def pace_with(limits: RateLimits) -> Pace:
    """A pace whose first answer stated limits at the time 0."""
    pace = Pace()
    answer(pace, admit(pace), 0.0, limits)
    return pace


def test_twenty_are_in_flight_before_the_first_answer_and_one_more_for_each():
    pace = Pace()
    went = [admit(pace) for _ in range(25)]
    assert [request is not None for request in went] == [True] * 20 + [False] * 5
    answer(pace, went[0], 1.0)
    assert [admit(pace, 1.0) is not None for _ in range(3)] == [True, True, False]


def test_a_new_request_is_in_no_line_and_counts_as_one():
    pace = Pace(input_tokens_per_minute=60)
    requests = [pace.new_request() for _ in range(3)]
    assert [request.number for request in requests] == [0, 1, 2]
    request = requests[0]
    assert (request.size, request.max_output, request.error, request.is_waiting) == (
        0,
        None,
        None,
        False,
    )
    assert (request.charge, request.sent_at, request.refusals) == ((1, 0, 0, 0), -math.inf, 0)
    assert pace.admit(request, 0.0)
    assert request.charge == (1, 500, 0, 500)


def test_a_request_that_is_refused_in_a_sixth_round_of_answers_is_no_longer_asked_for():
    pace, now, pauses = Pace(), 0.0, []
    refused = admit(pace, now)
    for turn in range(7):
        now += 100.0
        if turn:
            answer(pace, admit(pace, now), now)
        pauses.append(pace.refuse(refused, now, NOTHING, 1.0))
        pace.join(refused)
        now += 100.0
        assert pace.serve(now) is None
    assert pauses == [1.0] * 6 + [None]


def test_refusals_in_one_round_are_counted_once():
    pace, now, pauses = Pace(), 0.0, []
    refused = admit(pace, now)
    answer(pace, admit(pace, now), now)
    for _ in range(7):
        pauses.append(pace.refuse(refused, now, NOTHING, 1.0))
        pace.join(refused)
        now += 75.0
        assert pace.serve(now) is None
    assert None not in pauses


def test_when_nothing_was_taken_for_too_long_all_in_line_may_not_go():
    pace, told = Pace(), []
    first, *_ = [admit(pace) for _ in range(20)]
    late = [pace.new_request() for _ in range(3)]
    for request in late:
        request.on_decided = lambda request=request: told.append(request)
        pace.join(request)
    assert pace.serve(0.0) == math.inf
    assert pace.leave(late[1])
    assert pace.refuse(first, 0.0, NOTHING, 600.0) == 600.0
    other = admit(Pace(requests_per_minute=60))
    assert other is not None
    assert not pace.is_shut
    second = next(iter(pace._in_flight))
    assert pace.refuse(second, 0.5, NOTHING, 600.0) is None
    assert pace.is_shut
    assert told == [late[1], late[0], late[2]]
    assert [type(request.error) for request in late] == [RateLimitError, type(None), RateLimitError]
    assert [request.is_waiting for request in late] == [False] * 3
    assert str(late[0].error) == (
        "for 600 s the server has refused every request, or it asks for a longer wait; this request "
        "was not sent: try again later"
    )
    assert (pace.waiting, pace.has_line, pace.serve(1.0)) == (0, False, None)
    answer(pace, next(iter(pace._in_flight)), 2.0)
    assert not pace.is_shut, "the next answer ends that"


# --- refusals that the headers explain ----------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "pause"), [(0, 0.0), (596, 0.0), (597, 1.0), (599, 1.0), (600, 1.0), (None, 1.0)]
)
def test_a_refusal_is_explained_if_far_less_remains_than_was_thought(remaining, pause):
    pace = pace_with(requests(600, 599))
    assert pace.refuse(admit(pace), 0.0, requests(600, remaining), None) == pause


@pytest.mark.parametrize(("secs", "pause"), [(1.0, 1.0), (10.0, 1.0), (10.5, 0.0), (60.0, 0.0)])
def test_what_explains_a_refusal_does_not_explain_another_within_ten_seconds(secs, pause):
    pace = pace_with(requests(600, 599))
    assert pace.refuse(admit(pace, 1.0), 1.0, requests(600, 0), None) == 0.0
    assert pace.refuse(admit(pace, 1.0 + secs), 1.0 + secs, requests(600, 0), None) == pause


def test_the_first_unexplained_refusal_pauses_for_a_second_and_the_next_for_half_of_one():
    pace = pace_with(requests(600, 599))
    assert pace.refuse(admit(pace, 1.0), 1.0, NOTHING, None) == 1.0
    assert pace.refuse(admit(pace, 9.0), 9.0, NOTHING, None) == 0.5
    assert pace.refuse(admit(pace, 19.0), 19.0, NOTHING, 3.25) == 3.25


def test_who_went_before_the_last_reaction_changes_nothing():
    pace = Pace()
    early, also = admit(pace), admit(pace)
    assert pace.refuse(early, 1.0, NOTHING, None) == 0.5
    assert pace.refuse(also, 1.25, NOTHING, None) == 0.25, "of the pause is left"


# --- limits that are stated ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "believed"),
    [
        (requests(1, 1), requests(1)), (requests(0, 1), NOTHING), (RateLimits(remaining_tokens=5), NOTHING),
        (RateLimits(limit_tokens=5), RateLimits(limit_tokens=5)),
        (RateLimits(limit_tokens=5, limit_input_tokens=4), RateLimits(limit_input_tokens=4)),
        (RateLimits(limit_tokens=5, limit_output_tokens=4), RateLimits(limit_output_tokens=4)),
        (RateLimits(limit_tokens=5, limit_requests=4), RateLimits(limit_tokens=5, limit_requests=4)),
    ],
)  # fmt: skip
def test_which_of_the_stated_limits_are_believed(stated, believed):
    assert pace_with(stated).limits == believed


def test_a_share_takes_its_part_of_what_is_stated():
    for pace in Pace(60).split(3):
        answer(pace, admit(pace), 0.0, requests(100, 50))
        assert pace.limits == requests(33)
        for part in pace.split(2):
            answer(part, admit(part), 0.0, requests(100, 50))
            assert part.limits == requests(16)


def test_a_limit_is_forgotten_when_more_than_twice_as_much_is_taken_at_once():
    pace = Pace()
    went = [admit(pace) for _ in range(20)]
    found = []
    for request in went:
        answer(pace, request, 0.0, requests(5, 5))
        found.append(pace.limits.limit_requests)
    assert found == [5] * 11 + [None] * 9
    answer(pace, admit(pace), 0.0, requests(6, 5))
    assert pace.limits == requests(6), "a higher one is believed"


def test_a_limit_that_is_kept_to_for_long_stays_believed():
    pace = pace_with(requests(60, 59))
    for number in range(1, 300):
        request = admit(pace, 1.1 * number)
        assert request is not None
        answer(pace, request, 1.1 * number, requests(60, 59))
    assert pace.limits == requests(60)


def test_who_waits_is_charged_for_tokens_once_a_server_states_such_a_limit():
    pace = Pace()
    first, *_ = [admit(pace) for _ in range(20)]
    late = pace.new_request()
    late.size = 1000
    pace.join(late)
    assert late.charge == (1, 0, 0, 0)
    usage = Usage(uncached_input_tokens=50, completion_tokens=10)
    stated = RateLimits(limit_tokens=100_000, remaining_tokens=99_000)
    pace.settle(first, 0.0, stated, is_answer=True, usage=usage)
    assert late.charge == (1, 800, 300, 500), "by its bytes, before the first answer is counted"
    assert pace.serve(0.0) is None


def test_what_each_answer_counted_is_forgotten_a_fiftieth_with_each_later_one():
    pace = Pace(output_tokens_per_minute=10**9)
    for tokens in (100, 0, 0):
        usage = Usage(uncached_input_tokens=30, completion_tokens=tokens)
        pace.settle(admit(pace), 0.0, NOTHING, is_answer=True, usage=usage)
    expected = 100 * 0.98**2 / (1 + 0.98 + 0.98**2)
    assert admit(pace).charge.output_tokens == pytest.approx(expected)


GROWS = [  # remaining beside a level of 40 of 100, and the part of the rate that is used then
    (100, 1.25), (91, 1.25), (90, 1.0), (65, 1.0), (0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("remaining", "growth"), GROWS)
def test_a_rate_grows_if_much_more_remains_than_was_thought(remaining, growth):
    limit = StatedLimit(100, 40.0, 0.0)
    limit.compare(remaining, limit.snapshot(0.0), 0.0)
    assert limit.rate == pytest.approx(100 * 0.98 * growth / 60)


@pytest.mark.parametrize(
    ("remaining", "growth"), [(64, 1.0), (65, 1.25), (90, 1.25), (100, 1.5625)]
)
def test_a_rate_that_has_grown_shrinks_again_if_little_more_remains(remaining, growth):
    limit = StatedLimit(100, 40.0, 0.0)
    limit.compare(95, limit.snapshot(0.0), 0.0)
    limit.compare(remaining, limit.snapshot(1.5), 1.5)
    assert limit.rate == pytest.approx(100 * 0.98 * growth / 60)


@pytest.mark.parametrize(("sent_at", "remaining", "growth"), [
    (1.0, 100, 1.25), (1.5, 94, 1.25), (1.5, 95, 1.5625),
])  # fmt: skip
def test_a_rate_grows_once_a_second_and_only_while_what_remains_does(sent_at, remaining, growth):
    limit = StatedLimit(100, 40.0, 0.0)
    limit.compare(95, limit.snapshot(0.0), 0.0)
    limit.compare(remaining, limit.snapshot(sent_at), 2.0)
    assert limit.rate == pytest.approx(100 * 0.98 * growth / 60)


@pytest.mark.parametrize(("now", "growth"), [(9.5, 1.0), (10.0, 1.25)])
def test_a_rate_that_was_doubted_does_not_grow_for_ten_seconds(now, growth):
    limit = StatedLimit(100, 40.0, 0.0)
    assert limit.doubt(0.0)
    assert not limit.doubt(0.0)
    limit.level = 40.0
    limit.compare(100, limit.snapshot(0.0), now)
    assert limit.rate == pytest.approx(100 * 0.98 * growth / 60)


def test_a_level_is_lowered_by_what_it_was_too_high_and_no_statement_does_so_twice():
    limit = StatedLimit(100, 80.0, 0.0)
    before = limit.snapshot(0.0)
    assert (limit.compare(50, before, 0.0), limit.level) == (30.0, 50.0)
    assert (limit.compare(50, before, 0.0), limit.level) == (0.0, 50.0)
    assert (limit.compare(45, before, 0.0), limit.level) == (5.0, 45.0)
    assert (limit.compare(200, before, 0.0), limit.level) == (-55.0, 45.0)


def test_a_limit_that_changed_more_than_ten_times_says_nothing():
    limit = StatedLimit(100, 100.0, 0.0)
    for number in range(11):
        assert limit.accept(1.0), number
        limit.state(101 + number, 1.0)
    assert not limit.accept(1.0)
    limit = StatedLimit(100, 100.0, 0.0)
    for number in range(50):
        limit.state(100, 1.0)
        limit.state(200 + number, 0.5)  # of an earlier request
    assert (limit.limit, limit.accept(1.0)) == (100, True)


def test_a_bucket_is_full_at_first_and_never_fuller():
    bucket = Bucket.spread(6001)
    assert (bucket.capacity, bucket.rate) == (6001 / 240, (6001 - 6001 / 240 + 1) / 60)
    assert (Bucket.spread(240).capacity, Bucket.spread(1).rate) == (1.0, 1 / 60)
    bucket = Bucket(2.0, 10.0)
    bucket.take(10.0)
    bucket.refill(5.0)
    assert bucket.level == 10.0, "since nobody knows when it began"
    bucket.take(8.0)
    bucket.refill(4.0)
    assert bucket.level == 2.0
    bucket.refill(6.0)
    assert (bucket.level, bucket.delay(4.0), bucket.delay(5.0), bucket.delay(50.0)) == (
        4,
        0,
        0.5,
        3,
    )
    bucket.refill(100.0)
    assert bucket.level == 10.0


def test_a_leased_rate_has_what_is_due_and_keeps_what_is_not():
    rate = LeasedRate()
    assert (rate.level, rate.balance, rate.delay(1.0)) == (0, 0, math.inf)
    rate.grant(3, 10.0, 2.0)
    rate.grant(5, 20.0, 0.0)
    rate.refill(9.0)
    assert (rate.level, rate.balance, rate.delay(1.0)) == (0, 8, 1.0)
    rate.refill(10.0)
    assert (rate.level, rate.balance, rate.delay(1.0), rate.delay(0.0)) == (1, 8, 0.0, 0.0)
    rate.take(1.0)
    rate.refill(11.0)
    assert (rate.level, rate.balance, rate.delay(1.0)) == (0, 7, 1.0)
    rate.refill(14.0)
    assert (rate.level, rate.balance) == (1, 6), "one of two that were due is lost"
    rate.refill(25.0)
    assert (rate.level, rate.balance) == (5, 5)


def test_what_was_taken_of_a_limit_leaks_away_as_the_limit_allows():
    for secs, is_true in ((10.0, False), (11.0, True)):
        limit = StatedLimit(600, 600.0, 0.0)
        assert limit.accept(1300.0), "one request may be of any size"
        limit.refill(secs)
        assert limit.accept(1.0) is is_true


def test_a_new_limit_begins_without_the_growth_of_the_old_one_and_with_no_more_than_it_taken():
    limit = StatedLimit(100, 40.0, 0.0)
    limit.compare(100, limit.snapshot(0.0), 0.0)
    limit.accept(190.0)
    limit.state(100, 0.5)
    assert limit.rate == pytest.approx(100 * 0.98 * 1.25 / 60), "the same limit changes nothing"
    limit.state(30, 1.0)
    assert limit.rate == pytest.approx(30 * 0.98 / 60)
    assert (limit.capacity, limit.level) == (30, 30.0)
    assert limit.accept(1.0)


@pytest.mark.parametrize(("secs", "part"), [(3.0, 0.9), (2.75, 0.5)])
def test_a_refusal_soon_after_another_halves_the_rate_and_a_later_one_takes_a_tenth(secs, part):
    rate = FoundRate()
    assert rate.cut(0.0, 10.0) == 0.5
    rate.take(5.0)
    rate.refill(secs)
    before = rate.rate
    rate.cut(secs, 10.0)
    rate.refill(secs + 0.5)
    assert rate.rate == pytest.approx(before * part)


def test_the_pauses_double_while_nothing_is_taken_and_the_rate_begins_again_slowly():
    rate, now, pauses = FoundRate(), 0.0, []
    for _ in range(8):
        rate.take(1.0)
        rate.note_refusal()
        pauses.append(rate.cut(now, 5.0))
        now += pauses[-1]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    rates = []
    for secs in (0.0, 0.5, 1.0, 2.0, 10.0):
        rate.refill(now + secs)
        rates.append(rate.rate)
    assert rates[:3] == pytest.approx([1.0, 2**0.5, 2.0])
    rate.note_answer(now + 10.0)
    rate.refill(now + 0.0)
    assert rate.rate == pytest.approx(1.0), "not yet"
    rate.note_answer(now + 10.5)
    rate.refill(now + 0.0)
    assert rate.rate == pytest.approx(5.0 * 0.5)
    assert repr(rate) == "2.5/s"


def test_who_cannot_be_told_because_its_loop_is_closed_gives_its_turn_back():
    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    pace = Pace(requests_per_minute=60)
    pace.join(first := pace.new_request())
    first.on_decided = closed
    pace.join(second := pace.new_request())
    assert pace.serve(0.0) is None
    assert (first.is_waiting, second.is_waiting) == (False, False)
    assert not pace.leave(first)
    assert pace.leave(second)


def test_an_error_of_the_stack_is_no_closed_loop():
    def deep() -> None:
        raise RecursionError

    pace = Pace()
    pace.join(request := pace.new_request())
    request.on_decided = deep
    with pytest.raises(RecursionError):
        pace.serve(0.0)


def test_the_third_refusal_in_a_row_lets_the_others_go_first():
    pace, numbers = Pace(), []
    request = admit(pace)
    for number in range(7):
        numbers.append(request.number)
        pace.refuse(request, 60.0 * number, NOTHING, 1.0)
        pace.join(request)
        pace.serve(60.0 * number + 59.0)
    assert numbers == [0, 0, 0, 1, 1, 1, 2]
