"""How often many callers together ask a server that is down."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from scripted_server import ANSWER, BOTH, Server, asked, outcomes, play, status, tried, whole
from virtual_clock import run_virtually

from minillmlib import (
    ConnectError,
    MaxRetriesExceededError,
    StaleConnectionError,
)
from minillmlib.client.retry import RetryQuota

pytestmark = pytest.mark.usefixtures("quota")


async def crowd(count: int, server: Server, settings, *, streamed=False, base_url=None):
    """Many callers at once."""
    generator = server.generator() if base_url is None else server.generator(base_url)
    calls = (tried(server, settings, streamed=streamed, generator=generator) for _ in range(count))
    return await asyncio.gather(*calls)


@BOTH
@pytest.mark.parametrize("step", [ConnectError, status(503)], ids=["unreachable", "overloaded"])
def test_a_thousand_callers_ask_a_dead_server_three_dozen_times_more(streamed, step):
    server = Server(itertools.repeat(step))
    errors = run_virtually(crowd(1000, server, asked(retry=3), streamed=streamed))
    assert len(server.requests) == 1000 + RetryQuota.CAPACITY // RetryQuota.FAILURE_COST == 1035
    assert sum(len(error.attempts) for error in errors) == len(server.requests)  # C2, C11
    plain = [error for error in errors if not isinstance(error, MaxRetriesExceededError)]
    assert all(len(error.attempts) == 1 for error in plain)
    assert len(errors) - len(plain) == len({id(e) for e in errors if len(e.attempts) > 1})


def test_an_empty_bucket_lets_no_further_call_try_again():
    async def main():
        server = Server(itertools.repeat(ConnectError))
        await crowd(100, server, asked(retry=3))
        return await tried(server, asked(retry=3), streamed=False)

    assert type(run_virtually(main())) is ConnectError


def test_a_rate_limit_takes_less_from_the_bucket_than_a_failure():
    server = Server(itertools.repeat(status(429)))
    run_virtually(crowd(1000, server, asked(retry=3)))
    assert len(server.requests) == 1000 + RetryQuota.CAPACITY // RetryQuota.RATE_LIMIT_COST == 1100


@BOTH
def test_a_server_that_answers_the_second_time_is_always_asked_a_second_time(streamed):
    async def main():
        server = Server(itertools.cycle([status(503), ANSWER]))
        for _ in range(200):
            response = await tried(server, asked(retry=1), streamed=streamed)
            assert outcomes(response.attempts) == "denied answered"

    run_virtually(main())


def test_each_success_gives_one_back_and_a_full_bucket_takes_no_more():
    async def main():
        dead, well = Server(itertools.repeat(ConnectError)), Server(itertools.repeat(ANSWER))
        await crowd(1, Server([status(503), ANSWER]), asked(retry=1))
        await crowd(600, well, None)
        await crowd(600, dead, asked(retry=1))
        assert len(dead.requests) == 600 + 35  # 10 are left, and a retry takes 14
        for answers, more in ((3, 1), (1, 2)):
            await crowd(answers, well, None)
            before = len(dead.requests)
            await crowd(1, dead, asked(retry=1))
            assert len(dead.requests) - before == more

    run_virtually(main())


def test_a_rejected_answer_gives_nothing_back():
    async def main():
        server = Server(itertools.repeat(whole("")))
        await crowd(100, server, asked(retry=1, crash_on_empty_response=True))
        return len(server.requests)

    assert run_virtually(main()) == 100 + 35


def test_two_servers_do_not_share_a_bucket():
    async def main():
        dead, flaky = Server(itertools.repeat(ConnectError)), Server([status(503), ANSWER])
        await crowd(100, dead, asked(retry=3), base_url="https://dead.example/v1")
        other = flaky.generator("https://flaky.example/v1")
        return await tried(flaky, asked(retry=1), streamed=False, generator=other)

    assert outcomes(run_virtually(main()).attempts) == "denied answered"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://one.example/v1", "https://one.example/v1/"),
        ("https://one.example/v1", "https://ONE.example/v1"),
        ("https://one.example/v1", "https://one.example:443/v1"),
        ("http://127.0.0.1/v1", "http://127.0.0.1:80/v1"),
    ],
)
def test_one_server_has_one_bucket_however_its_address_is_written(one, other):
    async def main():
        dead = Server(itertools.repeat(ConnectError))
        await crowd(100, dead, asked(retry=3), base_url=one)
        before = len(dead.requests)
        await crowd(1, dead, asked(retry=3), base_url=other)
        return len(dead.requests) - before

    assert run_virtually(main()) == 1


def test_neither_a_stale_connection_nor_a_new_key_takes_from_the_bucket(monkeypatch):
    monkeypatch.setenv("OWN_KEY", "sk-old-000000")

    async def refuse(request):
        monkeypatch.setenv("OWN_KEY", "sk-new-000000")
        return await play(status(401), request)

    async def main():
        await crowd(100, Server(itertools.repeat(ConnectError)), asked(retry=3))
        server = Server([StaleConnectionError, refuse, ANSWER])
        generator = server.generator().with_api_key_from_env("OWN_KEY")
        return await tried(server, asked(retry=3), streamed=False, generator=generator)

    assert outcomes(run_virtually(main()).attempts) == "failed denied answered"


def test_the_bucket_remembers_no_more_than_a_thousand_servers(quota):
    error = ConnectError("x")
    servers = [f"https://{number}.example" for number in range(RetryQuota.MAX_SERVERS + 1)]
    for server in (servers[0], *servers):
        assert quota.take(server, error) == RetryQuota.FAILURE_COST
    left = {
        server: sum(quota.take(server, error) is not None for _ in range(40))
        for server in (servers[-1], servers[0])
    }
    assert left == {servers[-1]: 34, servers[0]: 35}  # the oldest was forgotten, so it is full
