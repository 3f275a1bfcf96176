"""Runs in provider batches: the same outcomes as other runs, at half price, at the vendor's pace."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from batch_vendors import ROW_USD, VENDORS, Anthropic, OpenAi, OpenRouter, Vendor, refuse
from server import Exchange, serving
from virtual_clock import now, run_virtually

from minillmlib import (
    AttemptOutcome,
    AuthenticationError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    BulkOutcome,
    ChatNode,
    CompletionEnded,
    CompletionParameters,
    CostResolution,
    GeneratorInfo,
    HttpRequest,
    InvalidParameterError,
    MalformedResponseError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    NotFoundError,
    PermissionDeniedError,
    ServerTimeoutError,
    StorageError,
    TokenPrice,
    map_complete,
    observe,
)
from minillmlib.httpx import HttpxTransport
from minillmlib.testing import ScriptedReply

BRIEF = CompletionParameters(max_tokens=50)
AGAIN = NodeCompletionParameters(params=BRIEF, retry=1)


def ask(
    vendor: Vendor, items: Any, journal: Path, params: Any = BRIEF, **settings: Any
) -> list[BulkOutcome[Any]]:
    generator = settings.pop("generator", vendor.generator)

    async def collect() -> list[BulkOutcome[Any]]:
        bulk = map_complete(
            items, generator, params, journal=journal, batch=True, ordered=True, **settings
        )
        return await bulk.collect()

    return run_virtually(collect())


# Every vendor.


def test_observers_are_told_of_each_row_as_of_any_call(tmp_path):
    events: list[Any] = []
    vendor, key = OpenAi(), "KEY-OF-THE-VENDOR"  # which answers in capitals
    generator = vendor.generator.with_api_key(key)
    with observe(events.append, content=True):
        ask(vendor, [f"is {key.lower()}?", "b", "c"], tmp_path / "j", generator=generator)
    by_id: dict[int, list[str]] = {}
    for event in events:
        by_id.setdefault(event.id, []).append(type(event).__name__)
    steps = ["CompletionStarted", "AttemptStarted", "AttemptEnded", "CompletionEnded"]
    assert list(by_id.values()) == [["BulkRunStarted", "BulkRunEnded"], *[steps] * 3]
    assert [each.outcome for each in events if isinstance(each, CompletionEnded)] == [
        "answered", "answered", "answered"
    ]  # fmt: skip
    assert "IS [hidden]?" in repr(events)
    assert key not in repr(events)


@pytest.mark.parametrize("kind", VENDORS)
def test_items_are_answered_in_one_batch_at_half_price(kind, tmp_path):
    vendor = kind()
    outcomes = ask(vendor, list("abcdefgh"), tmp_path / "j")
    assert [one.text for one in outcomes] == list("ABCDEFGH")
    assert vendor.created == 1
    assert {one.cost.cost for one in outcomes} == {ROW_USD}
    assert {one.cost.resolution for one in outcomes} == {CostResolution.RESOLVED}
    (attempt,) = outcomes[0].cost.attempts
    assert (attempt.outcome, attempt.status) == (AttemptOutcome.ANSWERED, 200)
    assert attempt.url.endswith("/batches/batch_0001")


@pytest.mark.parametrize("kind", VENDORS)
def test_a_row_is_what_a_single_call_would_send(kind, tmp_path):
    vendor = kind()
    prompt = ChatNode.root("Be brief.").add_user("The capital of {country}?")
    ask(vendor, [{"country": "France"}], tmp_path / "j", prompt=prompt)
    node = prompt.copy_thread({"country": "France"})
    expected = node.preview_request(vendor.generator, BRIEF).body
    ((_, body),) = vendor.batches["batch_0001"].rows
    if kind is OpenRouter:  # names the model once
        assert expected.pop("model") == "m"
    assert body == expected


@pytest.mark.parametrize("kind", VENDORS)
def test_a_row_that_is_refused_fails_alone_with_its_own_error(kind, tmp_path):
    vendor = kind()
    good, bad = ask(vendor, ["a", "b!400"], tmp_path / "j")
    assert good.text == "A"
    assert type(bad.error) is BadRequestError
    assert "no 400" in str(bad.error)
    assert bad.cost.cost == 0
    assert bad.cost.resolution is CostResolution.RESOLVED
    assert bad.error.attempts[0].outcome is AttemptOutcome.DENIED
    assert vendor.created == 1


@pytest.mark.parametrize("kind", VENDORS)
@pytest.mark.parametrize("fate", ["500", "429", "expired", "canceled"])
def test_what_may_pass_is_submitted_again_in_a_next_batch(kind, fate, tmp_path):
    vendor = kind()
    outcomes = ask(vendor, ["a", f"b!{fate}", f"c!{fate}"], tmp_path / "j", AGAIN)
    assert all(one.error is None for one in outcomes)
    assert [len(each.rows) for each in vendor.batches.values()] == [3, 2]
    assert [len(one.cost.attempts) for one in outcomes] == [1, 2, 2]
    assert sum(one.cost.cost for one in outcomes) == vendor.bill == 3 * ROW_USD


@pytest.mark.parametrize("kind", [OpenAi, Anthropic])
def test_what_results_tell_slowly_is_submitted_again_in_one_batch(kind, tmp_path):
    vendor = kind(piece_secs=2)
    outcomes = ask(vendor, [f"{name}!expired" for name in "abcd"], tmp_path / "j", AGAIN)
    assert all(one.error is None for one in outcomes)
    assert [len(each.rows) for each in vendor.batches.values()] == [4, 4]


def test_only_anthropic_is_known_to_bill_no_failure(tmp_path):
    resolutions = {}
    for kind in VENDORS:
        (outcome,) = ask(kind(), ["a!500"], tmp_path / kind.__name__)
        resolutions[kind] = outcome.cost.resolution
    assert resolutions == {
        OpenAi: CostResolution.UNKNOWN,
        Anthropic: CostResolution.RESOLVED,
        OpenRouter: CostResolution.UNKNOWN,
    }


@pytest.mark.parametrize("kind", VENDORS)
def test_what_expires_too_often_fails_with_all_attempts(kind, tmp_path):
    (outcome,) = ask(kind(), ["a!expired,expired"], tmp_path / "j", AGAIN)
    assert isinstance(outcome.error, MaxRetriesExceededError)
    assert isinstance(outcome.error.last_error, ServerTimeoutError)
    assert len(outcome.error.attempts) == 2
    assert outcome.cost.cost == 0
    assert outcome.cost.resolution is CostResolution.RESOLVED


@pytest.mark.parametrize("kind", VENDORS)
def test_a_row_without_a_result_is_an_error_of_its_own_that_may_be_billed(kind, tmp_path):
    good, lost = ask(kind(), ["a", "b!missing"], tmp_path / "j", AGAIN)
    assert good.text == "A"
    assert isinstance(lost.error, MalformedResponseError)
    assert "have none for this request" in str(lost.error)
    assert lost.cost.resolution is CostResolution.UNKNOWN


@dataclass
class City:
    name: str


@pytest.mark.parametrize("kind", VENDORS)
def test_typed_answers_are_read_and_wrong_ones_corrected_in_a_next_batch(kind, tmp_path):
    vendor = kind()
    texts = {"right": '{"name": "Paris"}', "wrong": '{"city": 1}'}
    plain = vendor.answer

    def answer(text: str) -> Any:
        first = text.startswith("B") and vendor.created == 1
        return plain(texts["wrong" if first else "right"])

    vendor.answer = answer
    params = AGAIN.expecting(City)
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j", params)
    assert [one.parsed for one in outcomes] == [City("Paris")] * 2
    ((_, corrected),) = vendor.batches["batch_0002"].rows
    assert "Answer again" in json.dumps(corrected)
    rejected, _ = outcomes[1].cost.attempts
    assert (rejected.outcome, rejected.cost.cost) == (AttemptOutcome.REJECTED, ROW_USD)
    again = ask(vendor, ["a", "b"], tmp_path / "j", params)
    assert [(one.parsed, one.is_from_journal) for one in again] == [(City("Paris"), True)] * 2
    assert [one.cost.cost for one in again] == [ROW_USD, 2 * ROW_USD]


@pytest.mark.parametrize("kind", VENDORS)
def test_the_credential_goes_along_and_no_error_shows_it(kind, tmp_path):
    echo = ScriptedReply.json(refuse(403, "key-of-the-vendor may not do that"), status=403)
    vendor = kind(fault=lambda number, request: echo)
    with pytest.raises(PermissionDeniedError) as caught:
        ask(vendor, ["a"], tmp_path / "j")
    headers = {name.lower(): value for name, value in vendor.requests[0].expose_headers()}
    assert "key-of-the-vendor" in headers.get("authorization", headers.get("x-api-key"))
    assert "key-of-the-vendor" not in f"{caught.value} {vars(caught.value)}"
    assert "key-of-the-vendor" not in (tmp_path / "j").read_text()


# Parts.


def test_parts_are_as_large_as_the_vendor_permits(tmp_path):
    batches = type("Small", (type(OpenAi.provider.batches),), {"max_rows": 3, "max_bytes": 700})
    provider = type("Provider", (type(OpenAi.provider),), {"batches": batches()})()
    vendor = OpenAi()
    generator = vendor.generator.with_provider(provider)
    outcomes = ask(vendor, list("abcdefg"), tmp_path / "j", generator=generator)
    assert [one.text for one in outcomes] == list("ABCDEFG")
    assert [len(each.rows) for each in vendor.batches.values()] == [3, 3, 1]
    long = ["x" * 100 + name for name in "abcd"]
    outcomes = ask(vendor, [*long, "y" * 600], tmp_path / "k", generator=generator)
    assert [len(each.rows) for each in list(vendor.batches.values())[3:]] == [2, 2]
    assert all(len(file) <= 700 for file in vendor.files.values())
    assert isinstance(outcomes[-1].error, InvalidParameterError)
    assert "bytes" in str(outcomes[-1].error)


def test_items_that_come_slowly_do_not_wait_for_the_last_one(tmp_path):
    async def slow() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(500)
        yield "b"

    vendor = OpenAi()
    outcomes = ask(vendor, slow(), tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]
    assert [len(each.rows) for each in vendor.batches.values()] == [1, 1]
    assert vendor.times[0] == pytest.approx(61)


# The pace.


def test_the_vendors_pace_is_kept(tmp_path):
    vendor = Anthropic(polls=5)
    ask(vendor, ["a"], tmp_path / "j")
    polls = [at for at, what in zip(vendor.times, vendor.log, strict=True) if "batch_" in what]
    waits = [later - earlier for earlier, later in itertools.pairwise(polls)][:-1]
    assert len(waits) == 4
    assert all(10 <= wait <= 12 for wait in waits)


def test_polls_become_rarer_up_to_a_minute(tmp_path):
    vendor = OpenAi(polls=20)
    ask(vendor, ["a"], tmp_path / "j")
    polls = [at for at, what in zip(vendor.times, vendor.log, strict=True) if "batch_" in what]
    waits = [later - earlier for earlier, later in itertools.pairwise(polls)][:-1]
    assert 10 <= waits[0] <= 12
    assert all(60 <= wait <= 72 for wait in waits[8:])


@pytest.mark.parametrize("kind", VENDORS)
def test_a_poll_that_fails_is_no_failure_of_the_batch(kind, tmp_path):
    page = ScriptedReply(pieces=(b"<html>",), headers={"content-type": "text/html"})
    bad = ScriptedReply.json({"error": "x"}, status=502)
    faults = {5: page, 6: bad, 7: "before", 8: "after"}
    vendor = kind(fault=lambda number, request: faults.get(number))
    outcomes = ask(vendor, ["a"], tmp_path / "j")
    assert outcomes[0].text == "A"
    assert vendor.created == 1


def test_a_vendor_that_is_down_ends_the_run_after_half_an_hour_and_a_rerun_goes_on(tmp_path):
    down = ScriptedReply.json({"error": "x"}, status=500)
    vendor = OpenAi(fault=lambda number, request: down if number > 2 else None)

    async def wait() -> None:
        bulk = map_complete(["a"], vendor.generator, journal=tmp_path / "j", batch=True)
        with pytest.raises(Exception, match="status 500"):
            await bulk.collect()
        assert 1200 < now() < 3600

    run_virtually(wait())
    vendor.fault = lambda number, request: None
    (outcome,) = ask(vendor, ["a"], tmp_path / "j", None)
    assert outcome.text == "A"
    assert vendor.created == 1


# Refused batches.


def test_a_file_that_is_refused_fails_each_row_with_the_vendors_words(tmp_path):
    vendor = OpenAi(refusals=[("invalid_json_line", "This line is no JSON.", 2)])
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j", AGAIN)
    assert vendor.created == 1
    for one in outcomes:
        assert isinstance(one.error, BadRequestError)
        assert "line 2: This line is no JSON. (invalid_json_line)" in str(one.error)
        assert (one.cost.cost, one.cost.resolution) == (0, CostResolution.RESOLVED)


def test_a_full_pool_is_waited_for_and_the_same_file_submitted_again(tmp_path):
    vendor = OpenAi(refusals=[("token_limit_exceeded", "The pool is full.", None)] * 2)
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]
    assert vendor.log.count("POST /v1/files") == 1
    assert vendor.log.count("POST /v1/batches") == 3
    creations = [at for at, what in zip(vendor.times, vendor.log, strict=True) if "POST" in what]
    assert creations[2] - creations[1] > 60


@pytest.mark.parametrize("kind", VENDORS)
def test_a_refused_creation_ends_the_run_and_no_item_is_recorded_as_failed(kind, tmp_path):
    no = ScriptedReply.json({"error": {"message": "Bad key."}}, status=401)
    vendor = kind(fault=lambda number, request: no)
    with pytest.raises(AuthenticationError, match="Bad key"):
        ask(vendor, ["a", "b"], tmp_path / "j", budget=(budget := Budget(1)))
    assert budget.spent == budget.reserved == 0
    vendor.fault = lambda number, request: None
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]


def test_a_file_without_a_batch_is_deleted(tmp_path):
    no = ScriptedReply.json(refuse(400, "No batches today."), status=400)
    vendor = OpenAi(fault=lambda number, request: no if number == 2 else None)
    with pytest.raises(BadRequestError, match="No batches today"):
        ask(vendor, ["a"], tmp_path / "j")
    assert vendor.files == {}


def test_the_file_of_a_batch_that_may_exist_is_kept(tmp_path):
    no = ScriptedReply.json({"error": {"message": "Bad key."}}, status=401)
    faults = {2: "after", 3: no}
    vendor = OpenAi(fault=lambda number, request: faults.get(number))
    with pytest.raises(AuthenticationError):
        ask(vendor, ["a"], tmp_path / "j")
    assert len(vendor.files) == 1
    vendor.fault = lambda number, request: None
    assert ask(vendor, ["a"], tmp_path / "j")[0].text == "A"
    assert vendor.created == 1


@pytest.mark.parametrize("others", [1, 2, 9])
def test_another_programs_batch_is_not_taken_for_ours(others, tmp_path):
    vendor = OpenRouter()  # does not count the rows of a batch that it still checks
    plain = vendor.create

    def create(rows: Any, tag: str | None = None) -> Any:
        ours = plain(rows, tag)
        names = [f"theirs-{place}" for place in range(others)]
        plain([(name, rows[0][1]) for name in names]).results = [
            (name, "ok", vendor.answer("theirs")) for name in names
        ]
        vendor.create = plain
        return ours

    vendor.create = create
    vendor.fault = lambda number, request: "after" if number == 1 else None
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]
    assert vendor.created == 2
    assert any("batch_0002/results" in what for what in vendor.log)


# Another process.


def leave(
    vendor: Vendor, items: list[str], journal: Path, secs: float = 5, **settings: Any
) -> None:
    """Begin a run, and leave it while its batch is at the vendor."""

    async def begin() -> None:
        bulk = map_complete(items, vendor.generator, BRIEF, journal=journal, batch=True, **settings)
        async with bulk:
            reading = asyncio.ensure_future(bulk.collect())
            await asyncio.sleep(secs)
            reading.cancel()

    run_virtually(begin())


@pytest.mark.parametrize("kind", VENDORS)
def test_a_run_that_was_left_goes_on_with_the_batch_it_knows(kind, tmp_path):
    vendor = kind()
    leave(vendor, ["a", "b"], tmp_path / "j")
    assert vendor.created == 1
    begun = len(vendor.log)
    outcomes = ask(vendor, ["b", "new", "a"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["B", "NEW", "A"]
    assert [one.is_from_journal for one in outcomes] == [False] * 3
    assert [len(each.rows) for each in vendor.batches.values()] == [2, 1]
    assert not any(what.endswith("/batches") and "GET" in what for what in vendor.log[begun:])


def test_results_wait_for_items_that_come_late(tmp_path):
    vendor = OpenAi()
    leave(vendor, ["a", "b"], tmp_path / "j")

    async def late() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(5000)
        yield "b"

    outcomes = ask(vendor, late(), tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]
    assert vendor.created == 1


def test_a_journal_with_open_batches_is_for_batches_only(tmp_path):
    vendor = OpenAi()
    leave(vendor, ["a", "b"], tmp_path / "j")
    with pytest.raises(InvalidParameterError, match="2 items of this journal are in batches"):
        map_complete(["a", "b"], vendor.generator, BRIEF, journal=tmp_path / "j")
    assert [one.text for one in ask(vendor, ["a", "b"], tmp_path / "j")] == ["A", "B"]
    map_complete(["a", "b"], vendor.generator, BRIEF, journal=tmp_path / "j")


def test_a_batch_that_the_vendor_does_not_know_ends_the_run_until_it_is_given_up(tmp_path):
    vendor = OpenAi()
    leave(vendor, ["a"], tmp_path / "j")
    vendor.batches.clear()
    with pytest.raises(NotFoundError, match="retry_failed=True"):
        ask(vendor, ["a"], tmp_path / "j")
    (outcome,) = ask(vendor, ["a"], tmp_path / "j", retry_failed=True)
    assert outcome.text == "A"
    assert vendor.created == 2


def test_a_journal_of_another_address_is_refused(tmp_path):
    vendor = OpenAi()
    leave(vendor, ["a"], tmp_path / "j", key=str)
    generator = vendor.generator.with_base_url("https://other.example/v1")
    with pytest.raises(InvalidParameterError, match=r"submitted to https://vendor.example/v1, not"):
        ask(vendor, ["a"], tmp_path / "j", generator=generator, key=str)


@pytest.mark.parametrize("kind", VENDORS)
def test_a_record_that_was_torn_is_made_up_for_by_asking_the_vendor(kind, tmp_path):
    vendor = kind()
    leave(vendor, ["a", "b"], tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    assert b'"submitted"' in whole.splitlines()[-1]
    (tmp_path / "j").write_bytes(whole[:-9])
    outcomes = ask(vendor, ["a", "b"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A", "B"]
    assert vendor.created == 1


@pytest.mark.parametrize("kind", [Anthropic, OpenRouter])
def test_the_clock_of_the_vendor_may_go_wrong(kind, tmp_path):
    ahead = 7 * 3600.0
    vendor = kind()
    plain = vendor.create

    def create(rows: Any, tag: str | None = None) -> Any:
        batch = plain(rows, tag)
        batch.created_at += ahead
        return batch

    date = formatdate(time.time() + ahead, usegmt=True)
    vendor.create, vendor.headers = create, {"date": date}
    vendor.fault = lambda number, request: "after" if number == 1 else None
    assert ask(vendor, ["a"], tmp_path / "j")[0].text == "A"
    assert vendor.created == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"submitted","part":"p","batch":"b"}',
        b'{"kind":"submitting","part":"p","url":"u","sent_at":0,"keys":["a"],"ceilings":["1","2"]}',
        b'{"kind":"submitting","part":"p","url":"u","sent_at":0,"keys":7}',
    ],
)
def test_a_journal_that_contradicts_itself_is_refused(line, tmp_path):
    vendor = OpenAi()
    ask(vendor, [], tmp_path / "j")
    with (tmp_path / "j").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(StorageError):
        ask(vendor, ["a"], tmp_path / "j")


# Money.


def test_a_budget_reserves_half_the_ceiling_and_settles_each_row(tmp_path):
    vendor = OpenAi()
    node = ChatNode.root().add_user("a")
    ceiling = node.estimate_cost(vendor.generator, BRIEF).ceiling / 2
    budget = Budget(1)
    seen = []
    vendor.fault = lambda number, request: seen.append(budget.reserved)
    ask(vendor, ["a", "b"], tmp_path / "j", budget=budget)
    assert seen[:3] == [2 * ceiling] * 3
    assert (budget.spent, budget.reserved) == (2 * ROW_USD, 0)


def test_rows_that_a_budget_does_not_cover_wait_for_those_that_settle(tmp_path):
    vendor = OpenAi()
    ceiling = ChatNode.root().add_user("a").estimate_cost(vendor.generator, BRIEF).ceiling / 2
    budget = Budget(ceiling * 2)
    outcomes = ask(vendor, list("abcd"), tmp_path / "j", budget=budget)
    assert [one.text for one in outcomes] == list("ABCD")
    assert len(vendor.batches) > 1
    with pytest.raises(BudgetExceededError):
        ask(vendor, list("efgh"), tmp_path / "k", budget=Budget(ceiling / 2))
    assert budget.spent == 4 * ROW_USD


def test_what_is_at_the_vendor_counts_against_the_budget_of_a_rerun(tmp_path):
    vendor = OpenAi()
    first = Budget(1)
    leave(vendor, ["a", "b"], tmp_path / "j", budget=first)
    ceilings = first.spent  # nothing is known of them
    assert ceilings > 2 * ROW_USD
    again = Budget(1)
    vendor.fault = lambda number, request: seen.append(again.reserved)
    seen: list[Decimal] = []
    ask(vendor, ["a"], tmp_path / "j", budget=again)
    assert seen[0] == ceilings
    assert seen[-1] == ceilings / 2  # b did not come
    assert again.spent == ROW_USD + ceilings / 2


def test_a_price_of_batches_is_taken_as_it_is(tmp_path):
    for kind in (OpenAi, Anthropic):
        vendor = kind()
        price = TokenPrice(2, 10, service_tier="batch")
        generator = vendor.generator.with_token_price(price)
        (outcome,) = ask(vendor, ["a"], tmp_path / kind.__name__, generator=generator)
        assert outcome.cost.cost == 4 * ROW_USD


def test_another_tier_than_that_of_batches_is_unpriced(tmp_path):
    vendor = OpenAi()
    plain = vendor.answer
    vendor.answer = lambda text: {**plain(text), "service_tier": "priority"}
    (outcome,) = ask(vendor, ["a"], tmp_path / "j")
    assert outcome.cost.resolution is CostResolution.UNPRICED


def test_a_price_for_batches_is_a_share_of_each_rate():
    price = TokenPrice(2, 4, cache_read=1, threshold=100, next_tier=TokenPrice(4, 8), source="s")
    half = price.for_batch()
    assert (half.input, half.output, half.cache_read, half.cache_write) == (
        1,
        2,
        Decimal("0.5"),
        None,
    )
    assert (half.next_tier.input, half.next_tier.output) == (2, 4)
    assert half.source == "s, 0.5 of it in a batch"
    flex = TokenPrice(2, 4, service_tier="flex")
    assert flex.for_batch() is flex


def test_the_cost_is_reported_once_for_each_item(tmp_path):
    costs = []
    params = AGAIN.with_cost_callback(lambda info: costs.append(info.cost))
    ask(OpenAi(), ["a!500", "b!400"], tmp_path / "j", params)
    assert sorted(costs) == [0, ROW_USD]


# Over sockets.


@pytest.mark.parametrize("kind", VENDORS)
@pytest.mark.parametrize("engine", ["aiohttp", "httpx"])
async def test_batches_go_over_a_real_engine(kind, engine, tmp_path, monkeypatch):
    monkeypatch.setattr("minillmlib.bulk.batch.FIRST_WAIT_SECS", 0.01)
    monkeypatch.setattr("minillmlib.bulk.batch.SETTLE_SECS", 0.01)
    vendor = kind(polls=1)

    async def play(exchange: Exchange) -> None:
        url = urlsplit(exchange.path)
        headers = (("Content-Type", exchange.headers["content-type"]),)
        request = HttpRequest(url=exchange.path, headers=headers, body=exchange.body)
        reply = vendor.serve(exchange.method, url.path, parse_qs(url.query), request)
        await exchange.answer(b"".join(reply.pieces), f"{reply.status} OK")

    async with serving(play) as (url, exchanges):
        base = url.removesuffix("/v1") + urlsplit(vendor.base).path
        generator = vendor.generator.with_base_url(base).replace(transport=None)
        if engine == "httpx":
            client = httpx2.AsyncClient()
            generator = generator.with_transport(HttpxTransport(client))
        bulk = map_complete(list("abc"), generator, BRIEF, journal=tmp_path / "j", batch=True)
        outcomes = await bulk.collect()
        if engine == "httpx":
            await client.aclose()
    assert sorted(one.text for one in outcomes) == list("ABC")
    assert all(b"key-of" not in exchange.body for exchange in exchanges)


def test_a_transport_that_raises_anything_ends_the_run_with_it(tmp_path):
    def fail(number: int, request: HttpRequest) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(OpenAi(fault=fail), ["a"], tmp_path / "j")


@pytest.mark.parametrize("kind", VENDORS)
def test_a_key_that_a_result_repeats_is_in_no_error_and_no_record(kind, tmp_path):
    vendor = kind()
    plain = vendor.line

    def line(name: str, fate: str, body: Any) -> Any:
        text = json.dumps(plain(name, fate, body))
        return json.loads(text.replace("no 400", "no key-of-the-vendor"))

    vendor.line = line
    (outcome,) = ask(vendor, ["a!400"], tmp_path / "j")
    assert isinstance(outcome.error, BadRequestError)
    assert "key-of-the-vendor" not in f"{outcome} {outcome.error} {vars(outcome.error)}"
    assert "key-of-the-vendor" not in (tmp_path / "j").read_text()


# What cannot be.


def test_what_batches_cannot_do_is_refused_before_anything_is_sent(tmp_path):
    vendor = OpenAi()
    journal = tmp_path / "j"

    def refused(problem: str, generator: GeneratorInfo = vendor.generator, **settings: Any) -> None:
        settings = {"journal": journal, **settings}
        with pytest.raises(InvalidParameterError, match=problem):
            map_complete(["a"], generator, batch=True, **settings)

    refused("need a journal", journal=None)
    refused("tools cannot run", tools=[print])
    refused("have no width", width=3)
    refused("cannot keep a deadline", params=NodeCompletionParameters(deadline_secs=5))
    fallbacks = vendor.generator.or_else(vendor.generator.replace(model="other"))
    refused("have no fallbacks", fallbacks)
    refused("no batches of t are known", GeneratorInfo.custom("t", "https://t.example/v1", "m"))
    assert not journal.exists()
    assert vendor.log == []


def test_tools_that_are_only_defined_are_sent(tmp_path):
    vendor = OpenAi()
    ask(vendor, ["a"], tmp_path / "j", BRIEF.replace(tools=(print_both,)))
    ((_, body),) = vendor.batches["batch_0001"].rows
    assert body["tools"][0]["function"]["name"] == "print_both"


def print_both(one: str, other: str) -> None:
    """Print both."""


@pytest.mark.parametrize("is_inline", [True, False])
def test_openrouters_results_come_in_the_batch_or_in_pages(is_inline, tmp_path):
    vendor = OpenRouter(is_inline=is_inline)
    outcomes = ask(vendor, list("abcde"), tmp_path / "j")
    assert [one.text for one in outcomes] == list("ABCDE")
    assert sum("results" in what for what in vendor.log) == (0 if is_inline else 3)


def test_azure_has_its_own_endpoint_and_the_version_in_each_address(tmp_path):
    class Azure(OpenAi):
        endpoint = "/chat/completions"

    vendor = Azure()
    generator = GeneratorInfo.azure("m", "https://vendor.example", "preview").with_api_key("k" * 9)
    generator = generator.with_base_url(vendor.base).with_transport(vendor)
    outcomes = ask(vendor, ["a"], tmp_path / "j", generator=generator)
    assert outcomes[0].text == "A"
    assert all("api-version=preview" in request.url for request in vendor.requests)


def test_more_strange_results_than_rows_are_no_results(tmp_path):
    lines = b"".join(b'{"custom_id":"x%d","error":{"code":"x"}}\n' % place for place in range(100))
    strange = ScriptedReply(pieces=(lines,))
    vendor = OpenAi(
        fault=lambda number, request: strange if request.url.endswith("content") else None
    )
    with pytest.raises(MalformedResponseError, match="more rows than their batch"):
        ask(vendor, ["a"], tmp_path / "j")
    vendor.fault = lambda number, request: None
    assert ask(vendor, ["a"], tmp_path / "j")[0].text == "A"
