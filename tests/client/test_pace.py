"""A paced completion waits in line before its clocks start, and a 429 puts it back in line."""

from __future__ import annotations

import asyncio
import copy
import pickle
import random
import threading
import time
from itertools import count

import pytest
from limited_server import (
    LimitedServer,
    all_tokens,
    answer_to,
    output_tokens,
    prompt_tokens,
    silent,
    stated,
)
from scripted_server import (
    ANSWER,
    BOTH,
    Server,
    asked,
    hang,
    outcomes,
    play,
    slow,
    status,
    tried,
    whole,
)
from virtual_clock import now, run_virtually

from minillmlib import (
    BillingError,
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    OverloadedError,
    Pace,
    RateLimitError,
    RequestTimeoutError,
    map_complete,
)
from minillmlib.client.pacing import MAX_SHARED, serve_line, shared_pace
from minillmlib.testing import ScriptedReply, ScriptedTransport

WORDS = [20, 40, 200]  # of the prompts of a run


def words(number: int) -> str:
    return " ".join(["word"] * WORDS[number % len(WORDS)])


async def ask(server: LimitedServer, number: int, *, text=str, width=64, **settings):
    """Ask a server about so many items; return the outcomes."""
    items = (text(n) for n in range(number))
    params = NodeCompletionParameters(**settings)
    async with map_complete(items, server.generator(), params, width=width) as run:
        return [outcome async for outcome in run]


def run_against(server: LimitedServer, number: int, **how):
    """Ask, and check that no row was lost."""
    outcomes_ = run_virtually(ask(server, number, **how))
    assert [outcome.error for outcome in outcomes_ if outcome.error is not None] == []
    assert sorted(outcome.index for outcome in outcomes_) == list(range(number))
    assert len(server.taken) == number


# --- the rate -----------------------------------------------------------------------------------


def test_a_server_that_allows_a_hundred_a_second_refuses_nothing_and_is_used_to_the_full():
    server = LimitedServer(6000, at_once=100)
    run_against(server, 2000)
    assert server.refused_after(1) == 0
    assert server.taken_after(1) >= 0.95 * 6000


def test_a_server_that_limits_tokens_is_used_to_the_full():
    server = LimitedServer(60_000, headers=stated("tokens"), weight=all_tokens)
    run_against(server, 1500, text=words)
    assert server.taken_after(60) >= 0.9 * 60_000
    assert len(server.refused) <= 15


def test_a_server_that_counts_the_longest_answer_is_not_flooded():
    longest = CompletionParameters(max_tokens=1000)
    server = LimitedServer(
        600_000, headers=stated("tokens"), weight=lambda body: prompt_tokens(body) + 1000
    )
    run_against(server, 1500, text=words, params=longest)
    assert server.taken_after(60) >= 0.9 * 600_000
    assert len(server.refused) <= 15


def test_a_server_that_does_not_count_it_is_used_to_the_full_all_the_same():
    longest = CompletionParameters(max_tokens=1000)
    server = LimitedServer(60_000, headers=stated("tokens"), weight=all_tokens)
    run_against(server, 1500, text=words, params=longest)
    assert server.taken_after(60) >= 0.9 * 60_000


@pytest.mark.parametrize("retry_after", [None, "1"])
@pytest.mark.parametrize("at_once", [10, 600])
def test_a_server_without_headers_is_used_to_the_full(at_once, retry_after):
    server = LimitedServer(600, at_once=at_once, headers=silent, retry_after=retry_after)
    run_against(server, 2100)
    assert server.taken_after(60) >= 0.9 * 600
    assert len(server.refused) <= 210


LIES = {
    "nothing is allowed": {"limit": 0},
    "one a minute": {"limit": 1},
    "one a minute, none left": {"limit": 1, "remaining": 0},
    "a tenth of the truth": {"limit": 60, "remaining": 60},
    "twice the truth": {"limit": 1200},
    "nothing was used": {"limit": 600, "remaining": 600},
    "nothing is left": {"remaining": 0},
    "more is left with each answer": {"remaining": count().__next__},
    "more is left than allowed": {"remaining": 10**9},
    "millions": {"limit": 10**12, "remaining": 10**12},
    "no number": {"limit": "many", "remaining": "-1"},
    "anything": {
        "limit": lambda: random.choice([0, 1, 50, 600, 10**7]),
        "remaining": lambda: random.randrange(10**6),
    },
}


@pytest.mark.long
@pytest.mark.parametrize("lie", LIES)
def test_a_server_whose_headers_lie_is_neither_flooded_nor_left_unused(lie):
    random.seed(1)
    server = LimitedServer(600, at_once=30, headers=stated("requests", **LIES[lie]))
    run_against(server, 2100)
    assert server.taken_after(60) >= 0.9 * 600
    assert len(server.refused) <= 210


def test_a_limit_that_is_stated_too_high_costs_few_refusals():
    server = LimitedServer(3000, at_once=50, headers=stated("requests", 6000))
    run_against(server, 5000)
    assert server.taken_after(60) >= 0.9 * 3000
    assert len(server.refused) <= 150


@pytest.mark.parametrize("is_told", [True, False])
def test_a_limit_that_drops_in_the_middle_is_obeyed(is_told):
    server = LimitedServer(600, at_once=20, headers=stated("requests", None if is_told else 600))

    async def halve():
        await asyncio.sleep(100)
        server.per_minute = 300.0

    async def run():
        halving = asyncio.create_task(halve())
        outcomes_ = await ask(server, 1500)
        await halving
        return outcomes_

    assert all(outcome.error is None for outcome in run_virtually(run()))
    assert len(server.taken) == 1500
    assert server.taken_after(160) >= 0.9 * 300
    assert server.refused_after(110) <= 40


def test_a_server_that_counts_by_the_second_costs_one_pause_and_no_rate():
    server = LimitedServer(600, at_once=10, headers=stated("requests", 600, 500))
    run_against(server, 40, width=12)
    assert len(server.refused) == 2, "of the twelve that went at once"
    assert server.taken[10][0] == pytest.approx(1, abs=0.1)
    assert server.taken_after(1) >= 0.95 * 600


def test_before_the_first_answer_only_some_are_sent():
    server = LimitedServer(6000, at_once=100)

    async def run():
        root, generator, settings = ChatNode.root(), server.generator(), asked(pace=Pace())
        asking = [asyncio.create_task(root.chat("u", generator, settings)) for _ in range(500)]
        await asyncio.sleep(0.05)
        assert len(server.taken) == 20
        await asyncio.gather(*asking)

    run_virtually(run())
    assert server.refused == []


def test_a_server_that_took_nothing_for_a_while_is_soon_used_to_the_full_again():
    server = LimitedServer(1200, at_once=40, headers=silent)

    async def run():
        asking = asyncio.create_task(ask(server, 4800))
        await asyncio.sleep(60)
        server.per_minute = server.level = 0.0
        await asyncio.sleep(120)
        assert len(server.refused) < 150
        server.per_minute = 1200.0
        return await asking

    assert all(outcome.error is None for outcome in run_virtually(run()))
    assert server.taken_after(210) >= 0.9 * 1200


def test_claudes_input_and_output_are_limited_apart_and_their_sum_says_nothing():
    def headers(limit, remaining):
        at = "anthropic-ratelimit-"
        return {f"{at}input-tokens-limit": "1000000", f"{at}input-tokens-remaining": "1000000",
                f"{at}output-tokens-limit": str(limit), f"{at}output-tokens-remaining": str(remaining),
                f"{at}tokens-limit": "300000", f"{at}tokens-remaining": "0"}  # fmt: skip

    usage = {"input_tokens": 5, "output_tokens": 30}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "usage": usage,
               "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}  # fmt: skip

    class Claude(LimitedServer):
        def generator(self):
            made = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
            return made.with_transport(self)

    server = Claude(3000, headers=headers, weight=lambda _: 30, answer=lambda _: message)
    run_against(server, 300)
    assert server.taken_after(60) >= 0.9 * 3000
    assert server.refused_after(1) <= 10


# --- numbers that the caller gives --------------------------------------------------------------


def most_within(moments, secs: float) -> int:
    """The most of these moments within any time of that length."""
    return max(sum(start <= each < start + secs - 1e-6 for each in moments) for start in moments)


def test_no_minute_has_more_requests_than_the_caller_allows():
    server = LimitedServer(1e9, headers=silent)
    run_against(server, 700, pace=Pace(requests_per_minute=300))
    moments = [moment for moment, _ in server.taken]
    assert most_within(moments, 60) == 300
    assert most_within(moments, 1) <= 7, "they are spread evenly"
    assert server.taken_after(1) >= 0.98 * 300


@pytest.mark.parametrize("kind", ["input", "output"])
def test_no_more_tokens_are_sent_than_the_caller_allows(kind):
    count_of = prompt_tokens if kind == "input" else output_tokens
    server = LimitedServer(1e9, headers=silent, weight=count_of)
    run_against(server, 300, text=words, pace=Pace(**{f"{kind}_tokens_per_minute": 6000}))
    assert 0.9 * 6000 <= server.taken_after(60) <= 1.1 * 6000


def test_tokens_that_are_read_from_a_cache_do_not_count():
    usage = {
        "prompt_tokens": 10_000, "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 9_990},
    }  # fmt: skip
    server = LimitedServer(
        1e9, headers=silent, answer=lambda body: {**answer_to(body), "usage": usage}
    )
    run_against(server, 100, pace=Pace(input_tokens_per_minute=6000))
    assert server.taken[-1][0] < 60


def test_headers_may_allow_less_than_the_caller():
    server = LimitedServer(300, at_once=20)
    run_against(server, 600, pace=Pace(requests_per_minute=30_000))
    assert server.refused_after(1) == 0
    assert server.taken_after(1) >= 0.9 * 300


def test_a_request_that_is_larger_than_the_whole_limit_goes_alone():
    server = LimitedServer(1e9, headers=silent, weight=prompt_tokens, latency=1)
    pace = Pace(input_tokens_per_minute=60)

    async def run():
        root = ChatNode.root()
        settings = NodeCompletionParameters(pace=pace)
        asking = [root.chat("w " * size, server.generator(), settings) for size in (1, 600, 1)]
        await asyncio.gather(*asking)
        return now()

    assert 200 < run_virtually(run()) < 1500
    first, large, last = (moment for moment, _ in server.taken)
    assert large - first < 60
    assert last - large > 300


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "many", float("inf")])
@pytest.mark.parametrize("name", ["requests", "input_tokens", "output_tokens"])
def test_a_pace_is_a_whole_number_above_zero(name, number):
    with pytest.raises(InvalidParameterError, match=f"{name}_per_minute must be"):
        Pace(**{f"{name}_per_minute": number})


def test_a_pace_is_not_copied_and_the_error_says_what_to_do():
    pace = Pace(requests_per_minute=5)
    for copy_of in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(
            InvalidParameterError, match=r"give each process its share, by pace.split"
        ):
            copy_of(asked(pace=pace) if copy_of is pickle.dumps else pace)
    assert asked(pace=pace).replace(retry=1).pace is pace
    assert repr(pace) == "Pace(requests_per_minute=5, waiting=0)"
    with pytest.raises(InvalidParameterError, match="pace must be a Pace, not int"):
        asked(pace=5)


# --- the line -----------------------------------------------------------------------------------


def test_first_come_first_served():
    server = Server([ANSWER] * 30)
    pace = Pace(requests_per_minute=60)

    async def run():
        asking = []
        for number in range(30):
            asking.append(asyncio.create_task(
                ChatNode.root().chat(str(number), server.generator(), asked(pace=pace))))  # fmt: skip
            await asyncio.sleep(0.01)
        assert pace.waiting == 29
        await asyncio.gather(*asking)

    run_virtually(run())
    said = [request.body.split(b'"content":"')[1].split(b'"')[0] for request in server.requests]
    assert said == [str(number).encode() for number in range(30)]
    assert server.times == pytest.approx(range(30), abs=0.02)


def test_who_is_cancelled_in_line_holds_up_nobody():
    server = Server([ANSWER] * 20)
    pace = Pace(requests_per_minute=60)

    async def run():
        root = ChatNode.root()
        asking = [
            asyncio.create_task(root.chat("u", server.generator(), asked(pace=pace)))
            for _ in range(40)
        ]
        await asyncio.sleep(0.5)
        for task in asking[1::2]:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert pace.waiting == 0

    run_virtually(run())
    assert server.times == pytest.approx(range(20), abs=0.02)


@BOTH
def test_the_time_for_an_answer_runs_only_from_then_on(streamed):
    server = Server([ANSWER] * 10)
    pace = Pace(requests_per_minute=6)

    async def run():
        asking = (tried(server, asked(pace=pace, timeout_secs=5), streamed=streamed)
                  for _ in range(10))  # fmt: skip
        return await asyncio.gather(*asking)

    assert [answer.content for answer in run_virtually(run())] == ["ok"] * 10
    assert server.times[-1] == pytest.approx(90, abs=0.1)


def test_who_waited_long_is_sent_with_the_key_of_then(monkeypatch):
    server = Server([ANSWER, ANSWER])
    pace = Pace(requests_per_minute=1)
    generator = server.generator().with_api_key_from_env("KEY_OF_THE_LINE")

    async def run():
        monkeypatch.setenv("KEY_OF_THE_LINE", "sk-of-yesterday")
        asking = [
            asyncio.create_task(ChatNode.root().chat("u", generator, asked(pace=pace)))
            for _ in range(2)
        ]
        await asyncio.sleep(30)
        monkeypatch.setenv("KEY_OF_THE_LINE", "sk-of-today")
        await asyncio.gather(*asking)

    monkeypatch.setattr("minillmlib.client.completion.FRESH_SECS", 59.0)
    run_virtually(run())
    first, last = (dict(request.headers)["Authorization"] for request in server.requests)
    assert "yesterday" in str(first.expose_secret() if hasattr(first, "expose_secret") else first)
    assert "today" in str(last.expose_secret() if hasattr(last, "expose_secret") else last)


@BOTH
def test_the_deadline_runs_in_line_as_well(streamed):
    server = Server([ANSWER])
    pace = Pace(requests_per_minute=1)

    async def run():
        first = await tried(server, asked(pace=pace), streamed=streamed)
        late = await tried(server, asked(pace=pace, deadline_secs=7), streamed=streamed)
        return first, late, now(), pace.waiting

    first, late, moment, waiting = run_virtually(run())
    assert first.content == "ok"
    assert isinstance(late, RequestTimeoutError)
    assert (late.clock, late.was_sent, late.attempts, moment, waiting) == (
        "deadline",
        False,
        (),
        7,
        0,
    )
    assert "waited for its pace: within 7 s" in str(late)


def test_a_stream_that_is_closed_in_line_leaves_it():
    server = Server([ANSWER, ANSWER])
    pace = Pace(requests_per_minute=60)

    async def run():
        root, settings = ChatNode.root(), asked(pace=pace)
        await root.chat("u", server.generator(), settings)
        stream = root.chat_streaming("u", server.generator(), settings)
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.5)
        await stream.aclose()
        assert pace.waiting == 0
        with pytest.raises((InvalidParameterError, StopAsyncIteration)):
            await reading
        await root.chat("u", server.generator(), settings)
        return now()

    assert run_virtually(run()) == pytest.approx(1, abs=0.02)


def test_a_budget_is_asked_after_the_pace_and_a_refusal_gives_the_turn_back():
    server = Server([ANSWER, ANSWER])
    pace = Pace(requests_per_minute=1)
    settings = asked(pace=pace, params=CompletionParameters(max_tokens=10))

    async def run():
        root = ChatNode.root()
        with pytest.raises(BudgetExceededError):
            await root.chat("u", server.generator(), settings.replace(budget=Budget("0.000001")))
        budget = Budget("1")
        await root.chat("u", server.generator(), settings.replace(budget=budget))
        assert now() < 1, "the one that was not sent took no turn"
        waiting = asyncio.create_task(
            root.chat("u", server.generator(), settings.replace(budget=budget))
        )
        await asyncio.sleep(30)
        assert budget.reserved == 0
        await waiting

    run_virtually(run())


def test_loops_of_several_threads_share_a_pace():
    moments = []

    class Clocked:
        async def send(self, request):
            moments.append(time.monotonic())
            return await play(whole("ok"), request)

    pace = Pace(requests_per_minute=3000)
    generator = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_transport(Clocked())

    async def ask_many():
        root = ChatNode.root()
        await asyncio.gather(*(root.chat("u", generator, asked(pace=pace)) for _ in range(25)))

    started = time.monotonic()
    threads = [threading.Thread(target=asyncio.run, args=(ask_many(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(moments) == 100
    assert 1.5 < time.monotonic() - started < 10
    assert most_within(moments, 1) <= 75


# --- refusals -----------------------------------------------------------------------------------


@BOTH
def test_a_refusal_needs_no_retry_and_takes_nothing_from_the_quota(streamed, quota):
    refusals = [status(429, {"retry-after": "2"}, message="slow down")] * 5
    server = Server([*refusals, ANSWER])

    async def run():
        answer = await tried(server, asked(pace=Pace(), retry=0), streamed=streamed)
        return answer, now()

    answer, moment = run_virtually(run())
    assert outcomes(answer.attempts) == "denied denied denied denied denied answered"
    assert moment >= 10
    assert not quota.is_used


def test_a_wait_that_the_server_asks_for_holds_for_all():
    server = Server([status(429, {"retry-after": "30"}, message="slow down"), *[ANSWER] * 3])
    pace = Pace(requests_per_minute=600)

    async def run():
        asking = []
        for _ in range(3):
            asking.append(asyncio.create_task(tried(server, asked(pace=pace), streamed=False)))
            await asyncio.sleep(1)
        await asyncio.gather(*asking)

    run_virtually(run())
    assert server.times[0] == 0
    assert min(server.times[1:]) >= 30


def test_a_wait_in_the_body_counts_as_well():
    message = "Rate limit reached. Please try again in 8s."
    server = Server([status(429, message=message, code="rate_limit_exceeded"), ANSWER])
    run_virtually(tried(server, asked(pace=Pace()), streamed=False))
    assert server.times[1] == pytest.approx(8, abs=0.6)


def order_of_four(server: Server) -> list[bytes]:
    """Ask four things at once, one a second; return in which order their requests came."""
    pace = Pace(requests_per_minute=60)

    async def run():
        root, generator, settings = ChatNode.root(), server.generator(), asked(pace=pace)
        await asyncio.gather(*(root.chat(str(n), generator, settings) for n in range(4)))

    run_virtually(run())
    return [request.body.split(b'"content":"')[1][:1] for request in server.requests]


def test_who_was_refused_comes_before_those_who_never_went():
    server = Server([slow(0.5, status(429, message="slow down")), *[ANSWER] * 4])
    assert order_of_four(server) == [b"0", b"0", b"1", b"2", b"3"]


def test_who_was_refused_three_times_lets_the_others_go_first():
    server = Server([*[status(429, message="slow down")] * 3, *[ANSWER] * 4])
    assert order_of_four(server) == [b"0", b"0", b"0", b"1", b"2", b"3", b"0"]


def test_a_used_up_quota_is_final():
    server = Server([status(429, code="insufficient_quota", message="You exceeded your quota")])
    error = run_virtually(tried(server, asked(pace=Pace()), streamed=False))
    assert isinstance(error, BillingError)


@pytest.mark.parametrize("number", [503, 529])
def test_an_overload_is_a_retry_and_leaves_the_pace_alone(number):
    server = Server([*[status(number, message="overloaded")] * 2, *[ANSWER] * 20])
    pace = Pace()

    async def run():
        error = await tried(server, asked(pace=pace, retry=0), streamed=False)
        answer = await tried(server, asked(pace=pace, retry=1, back_off_time=0), streamed=False)
        before = now()
        others = (tried(server, asked(pace=pace), streamed=False) for _ in range(19))
        await asyncio.gather(*others)
        return error, answer, now() - before

    error, answer, secs = run_virtually(run())
    assert isinstance(error, OverloadedError)
    assert len(answer.attempts) == 2
    assert secs == 0


def test_the_deadline_ends_the_waiting_of_one_that_was_refused():
    server = Server([status(429, {"retry-after": "30"}, message="slow down")])

    async def run():
        return await tried(server, asked(pace=Pace(), deadline_secs=20), streamed=False), now()

    error, moment = run_virtually(run())
    assert isinstance(error, RateLimitError)
    assert (moment, len(error.attempts)) == (0, 1), "there is no use in waiting"


def test_a_wait_of_more_than_ten_minutes_is_final():
    server = Server([status(429, {"retry-after": "3600"}, message="slow down")])
    error = run_virtually(tried(server, asked(pace=Pace()), streamed=False))
    assert isinstance(error, RateLimitError)
    assert error.retry_after_secs == 3600


@pytest.mark.parametrize("headers", [{}, {"retry-after": "5"}])
def test_a_server_that_refuses_for_ever_ends_a_run_after_ten_minutes(headers):
    async def refuse(request):
        return await play(status(429, headers, message="slow down"), request)

    class Refusing:
        sent = 0

        async def send(self, request):
            self.sent += 1
            return await refuse(request)

    server = Refusing()
    generator = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_transport(server)

    async def run():
        seen = []
        with pytest.raises(RateLimitError):
            async for outcome in map_complete(map(str, range(10_000)), generator):
                seen.append(outcome)
        return seen, now()

    seen, moment = run_virtually(run())
    assert all(isinstance(outcome.error, RateLimitError) for outcome in seen)
    assert 0 < len(seen) < 100
    assert 500 < moment < 700
    assert server.sent < 400


def test_an_answer_lost_in_the_air_does_not_stop_the_line():
    server = Server([hang, *[ANSWER] * 9])
    pace = Pace(requests_per_minute=60)

    async def run():
        asking = (tried(server, asked(pace=pace, timeout_secs=1), streamed=False)
                  for _ in range(10))  # fmt: skip
        return await asyncio.gather(*asking)

    answers = run_virtually(run())
    assert isinstance(answers[0], RequestTimeoutError)
    assert [answer.content for answer in answers[1:]] == ["ok"] * 9


def test_runs_that_ask_one_model_with_one_key_share_what_they_learn():
    server = LimitedServer(600, at_once=40)

    async def run():
        await asyncio.gather(ask(server, 100), ask(server, 100))
        started = now()
        await ask(server, 100)
        return now() - started

    assert run_virtually(run()) > 9
    assert server.refused_after(1) == 0


@pytest.mark.parametrize(
    ("pace", "refused", "moments"),
    [
        (60, {}, [0, 1, 2, 3, 4, 5]),
        (6, {}, [0, 10, 20, 30, 40, 50]),
        (600, {}, [0, 0, 0.05, 0.15, 0.25, 0.35]),
        (6000, {1: 3}, [0, 0, 0, 0, 0, 0, 3.5]),
    ],
)
def test_the_requests_of_a_line_are_sent_at_these_moments(pace, refused, moments):
    class Noting:
        moments = ()

        async def send(self, request):
            self.moments = (*self.moments, round(now(), 2))
            wait = refused.get(len(self.moments))
            step = status(429, {"retry-after": str(wait)}) if wait else ANSWER
            return await play(slow(0.5, step), request)

    async def run():
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(server)
        settings = asked(pace=Pace(requests_per_minute=pace))
        calls = (ChatNode.root("s").chat("u", generator, settings) for _ in range(6))
        return [node.text for node in await asyncio.gather(*calls)]

    server = Noting()
    assert run_virtually(run()) == ["ok"] * 6
    assert list(server.moments) == pytest.approx(moments, abs=0.011)


def test_what_is_granted_is_used_as_soon_as_the_line_is_served():
    class Noting:
        moments = ()

        async def send(self, request):
            self.moments = (*self.moments, round(now(), 2))
            return await play(ANSWER, request)

    async def run():
        pace = Pace()
        pace.use_grants()
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(server)
        chats = [ChatNode.root("s").chat("u", generator, asked(pace=pace)) for _ in range(4)]
        calls = asyncio.gather(*chats)
        await asyncio.sleep(0.2)
        for requests, interval_secs in ((2, 0.3), (1, 1.0), (1, 1.0)):
            pace.grant(requests, now(), interval_secs)
            serve_line(pace)
            await asyncio.sleep(2)
        await calls
        serve_line(pace)
        serve_line(Pace())

    server = Noting()
    run_virtually(run())
    assert server.moments == (0.2, 0.5, 2.2, 4.2)


async def test_of_what_runs_share_the_least_used_is_forgotten():
    models = [GeneratorInfo.openai(f"m{number}") for number in range(MAX_SHARED + 1)]
    first, *_, last = map(shared_pace, models)
    assert shared_pace(models[-1]) is last
    assert shared_pace(models[0]) is not first


def test_a_request_that_is_refused_while_others_are_answered_fails_at_last():
    """Not the rate, then: some servers call other things a 429."""

    class Server:
        refused = refused_after_answers = 0
        has_answered = False

        async def send(self, request):
            if b"bad" in request.body:
                self.refused += 1
                self.refused_after_answers += self.has_answered
                self.has_answered = False
                reply = ScriptedReply.json({"error": {"message": "no"}}, status=429)
            else:
                self.has_answered = True
                reply = ScriptedReply.json({"choices": [{"message": {"content": "ok"}}]})
            return await ScriptedTransport([reply]).send(request)

    server = Server()

    async def ask() -> None:
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m").with_transport(server)
        params = NodeCompletionParameters(pace=Pace(), retry=0)
        await ChatNode.root("s").chat("good", generator, params)
        bad = asyncio.ensure_future(ChatNode.root("s").chat("bad", generator, params))
        while not bad.done():
            await asyncio.sleep(0.5)
            await ChatNode.root("s").chat("good", generator, params)
        with pytest.raises(RateLimitError):
            await bad

    run_virtually(ask())
    assert server.refused_after_answers == 6
    assert server.refused < 30
