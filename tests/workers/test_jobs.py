"""A job is one value that travels; a process asks with it and gives rows back."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import sys
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from bulk_server import answer
from row_server import PROMPT, RowServer
from secret_shapes import SHAPES, Canary

import minillmlib.dask
from minillmlib import (
    Bank,
    Budget,
    Bulk,
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    Lease,
    NodeCompletionParameters,
    Pace,
    StorageError,
    TokenPrice,
    ToolLoop,
)
from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.workers import leases

SHORT = CompletionParameters(max_tokens=20)
ONCE = NodeCompletionParameters(params=SHORT, retry=0)
GENERATOR = GeneratorInfo.custom("t", "http://127.0.0.1:9/v1", "m")


@pytest.fixture
def server():
    with RowServer(secs=0) as server:
        yield server


@pytest.fixture
def ask():
    """Asks about texts in this process."""
    runtimes = []

    def ask(job: Bulk, *texts: str):
        runtimes.append(job.runtime())
        return runtimes[-1].rows([{"text": text} for text in texts])

    yield ask
    for one in runtimes:
        one.close()


def job_at(server: RowServer, **settings) -> Bulk:
    settings = {"params": ONCE, "prompt": PROMPT, "prefix": "a_"} | settings
    return Bulk(server.generator, settings.pop("params"), **settings)


def results(rows):
    return [{name.removeprefix("a_"): value for name, value in row.items()} for row in rows]


@dataclass
class City:
    name: str
    size: Decimal


class LockedTransport:
    def __init__(self):
        self.lock = threading.Lock()

    async def send(self, request):
        raise NotImplementedError


def nested_tool():
    def count() -> int:
        """Count."""
        return 1

    return count


def count_words(text: str) -> int:
    """Count words."""
    return len(text.split())


@pytest.mark.parametrize("part_rows", [0, -1, 1.5, "2", True])
def test_a_part_for_dask_is_a_whole_number_of_rows(part_rows):
    job = Bulk(GENERATOR, ONCE, prompt=PROMPT)
    with pytest.raises(InvalidParameterError, match="part_rows must be"):
        minillmlib.dask.map_complete([], job, part_rows=part_rows)


def test_a_job_is_equal_in_each_process(tmp_path):
    job = Bulk(
        GENERATOR.with_api_key_from_env("SOME_KEY").with_token_price(TokenPrice(1, 5)),
        ONCE.expecting(City),
        prompt=ChatNode.root("{tone}").set_format_kwarg("tone", "Be kind.").add_user("{text}"),
        tools=[count_words],
        loop=ToolLoop(max_turns=3),
        pace=Pace(600),
        budget=Budget("2.50"),
        journal=tmp_path,
        workers=3,
        width=7,
        key="id",
    )
    assert pickle.loads(pickle.dumps(job)) == job
    assert pickle.loads(pickle.dumps(job)) != msgspec.structs.replace(job, workers=4)


def test_a_row_keeps_its_columns_and_gets_those_of_its_answer(server, ask):
    [row] = job_at(server, prefix="").runtime().rows([{"id": 7}])
    assert row["error"] == "InvalidParameterError: item 0 has no value for {text}"
    [row] = job_at(server).runtime().rows([{"id": 7, "text": "hello"}])
    assert row == {
        "id": 7,
        "text": "hello",
        "a_text": "HELLO",
        "a_parsed": None,
        "a_error": None,
        "a_cost_usd": "0.0002",
        "a_cost_resolution": "resolved",
        "a_attempts": 1,
        "a_from_journal": False,
    }


def test_rows_may_be_awaited_in_any_event_loop(server):
    runtime = job_at(server).runtime()

    async def main():
        parts = [[{"text": f"{part} {row}"} for row in range(5)] for part in range(3)]
        return await asyncio.gather(*map(runtime.complete, parts))

    for _ in range(2):
        parts = asyncio.run(main())
        assert [row["a_text"] for part in parts for row in part] == [
            f"{part} {row}" for part in range(3) for row in range(5)
        ]


def test_a_conversation_of_its_own_may_be_in_the_column_of_messages(server):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    job = job_at(server, prompt=None)
    good, bad, none = job.runtime().rows(
        [{"messages": messages}, {"messages": [{"role": "nobody"}]}, {"text": "hi"}]
    )
    assert (good["a_text"], good["messages"]) == ("HI", messages)
    assert bad["a_error"].startswith("InvalidParameterError")
    assert "the item has no list of messages" in none["a_error"]
    assert json.loads(server.requests[0].body)["messages"] == messages


def test_a_bad_row_has_its_error_and_harms_no_other(server, ask):
    rows = results(ask(job_at(server), "a", "bad b", "c"))
    assert [row["text"] for row in rows] == ["A", None, "C"]
    assert re.fullmatch(r"BadRequestError: .*no such row.*", rows[1]["error"])
    assert (rows[1]["cost_usd"], rows[1]["attempts"]) == ("0", 1)


def test_a_row_that_hangs_ends_at_its_deadline_and_holds_up_no_other(server, ask):
    job = job_at(server, params=ONCE.replace(deadline_secs=0.5))
    rows = results(ask(job, "a", "hang b", "c"))
    assert [row["text"] for row in rows] == ["A", None, "C"]
    assert rows[1]["error"].startswith("RequestTimeoutError: ")
    assert (rows[1]["cost_usd"], rows[1]["cost_resolution"]) == (None, "unknown")


def test_a_missing_key_is_the_error_of_all_rows(server, ask):
    job = job_at(server)
    generator = server.generator.with_api_key_from_env("NO_SUCH_KEY")
    generator = generator.replace(credential=EnvironmentKey(("NO_SUCH_KEY",)))
    rows = results(ask(msgspec.structs.replace(job, generator=generator), *"abcdefgh"))
    assert {row["error"].partition(":")[0] for row in rows} == {"AuthenticationError"}
    assert "NO_SUCH_KEY" in rows[7]["error"]
    assert server.taken == []


def test_a_refused_key_ends_all_rows_without_further_requests(server, ask):
    job = job_at(server, width=2)
    rows = results(ask(job, "a", "locked", *"bcdefgh"))
    errors = {row["error"].partition(":")[0] for row in rows if row["error"]}
    assert errors == {"AuthenticationError"}
    asked = len(server.taken)
    assert asked <= 5
    ask(job, *"ijk")
    assert len(server.taken) == asked
    job.runtime().close()  # the key was mended
    assert results(ask(job, "i"))[0]["text"] == "I"


def test_what_was_answered_is_not_asked_again_by_any_part_or_process(server, ask, tmp_path):
    job = job_at(server, journal=tmp_path / "run")
    ask(job, "a", "b", "bad c")
    rows = results(ask(job, "b", "bad c", "d"))
    assert [row["from_journal"] for row in rows] == [True, True, False]
    job.runtime().close()
    rows = results(ask(job, "a", "b", "bad c", "d"))
    assert [row["from_journal"] for row in rows] == [True] * 4
    assert [row["cost_usd"] for row in rows] == ["0.0002", "0.0002", "0", "0.0002"]
    assert len(server.taken) == 4
    assert str(job.report()) == "3 done, 1 failed; $0.0006"


def test_failed_rows_are_asked_again_if_the_job_says_so(server, ask, tmp_path):
    ask(job_at(server, journal=tmp_path), "a", "bad b")
    job = job_at(server, journal=tmp_path, retry_failed=True)
    ask(job, "a", "bad b")
    ask(job, "a", "bad b")  # a part that the engine repeats
    assert len(server.taken) == 3


def test_equal_rows_of_one_part_are_all_asked_and_those_of_two_parts_share_an_answer(
    server, ask, tmp_path
):
    job = job_at(server, journal=tmp_path)
    ask(job, "a", "a")
    ask(job, "a", "a", "a")
    assert len(server.taken) == 3


def test_the_key_column_tells_equal_rows_apart(server, tmp_path):
    job = job_at(server, journal=tmp_path, key="id")
    runtime = job.runtime()
    for number in (1, 2, 2, 1):
        runtime.rows([{"text": "a", "id": number}])
    assert len(server.taken) == 2
    [row] = runtime.rows([{"text": "a"}])
    assert "the key column 'id' must hold texts or whole numbers" in row["a_error"]
    runtime.close()


def test_a_typed_answer_is_plain_json_in_its_column(ask):
    said = json.dumps({"name": "Bern", "size": 51.6})
    transport = ScriptedTransport([ScriptedReply.json(answer(said))])
    job = Bulk(GENERATOR.with_transport(transport), ONCE.expecting(City), prompt=PROMPT)
    [row] = msgspec.structs.replace(job, prefix="a_").runtime().rows([{"text": "Bern?"}])
    assert row["a_parsed"] == {"name": "Bern", "size": "51.6"}


def test_the_budget_is_shared_and_a_process_that_comes_later_gets_what_is_left(
    server, ask, tmp_path
):
    job = job_at(server, journal=tmp_path, budget=Budget("0.10"), workers=2)
    runtime = job.runtime()
    assert runtime.budget.limit == Decimal("0.05")
    ask(job, *map(str, range(50)))
    other = type(runtime)(job)
    assert other.budget.limit == Decimal("0.05")
    third = type(runtime)(job)  # one more than there are shares
    assert third.budget.limit == 0
    third.close()
    runtime.close()  # as if it had died
    heir = type(runtime)(job)
    assert heir.budget.limit == Decimal("0.04")  # without the cent that was spent
    for one in (heir, other):
        one.close()


def test_a_spent_budget_ends_the_remaining_rows_without_requests(server, ask, tmp_path):
    job = job_at(server, journal=tmp_path, budget=Budget("0.01"))
    rows = results(ask(job, *map(str, range(100))))
    answered = [row for row in rows if row["error"] is None]
    assert 40 <= len(answered) == len(server.taken) <= 50
    assert {row["error"].partition(":")[0] for row in rows if row["error"]} == {
        "BudgetExceededError"
    }
    again = results(ask(job, *map(str, range(100))))
    assert sum(row["from_journal"] for row in again) == len(answered)
    assert len(server.taken) == len(answered)


class DeadBank:
    """A bank whose process has died."""

    def lease(self, *_):
        raise ConnectionRefusedError

    give_back = lease


def test_without_an_answer_of_the_bank_nothing_is_sent_and_the_rows_say_why(server, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.3)
    runtime = job_at(server, pace=Pace(6000)).runtime(bank=DeadBank())
    rows = results(runtime.rows([{"text": text} for text in "abc"]))
    assert {row["error"].partition(" (")[0] for row in rows} == {
        "MiniLLMError: the bank of the job has not answered for 0 s"
    }
    assert {(row["cost_usd"], row["cost_resolution"]) for row in rows} == {(None, "unknown")}
    assert server.taken == []
    runtime.close()


def test_a_bank_that_answers_again_in_time_is_used(server):
    bank = Bank(6000)

    class LateBank(DeadBank):
        calls = 0

        def lease(self, *wanted):
            self.calls += 1
            return super().lease() if self.calls < 4 else bank.lease(*wanted)

    runtime = job_at(server, pace=Pace(6000)).runtime(bank=LateBank())
    rows = results(runtime.rows([{"text": text} for text in "abc"]))
    assert [row["text"] for row in rows] == ["A", "B", "C"]
    runtime.close()


class OwnBank:
    """A bank of the caller's own, which grants all that is asked for unless `lease` says otherwise."""

    def __init__(self, lease=lambda asked: asked, give_back=lambda: None):
        self.reply, self.reply_back = lease, give_back

    def lease(self, _worker, requests, usd, _held):
        return self.reply(Lease(requests=requests, usd=usd))

    def give_back(self, *_):
        return self.reply_back()


def ask_with(server, bank, folder, **settings):
    job = job_at(server, pace=Pace(6000), budget=Budget(1), journal=folder, **settings)
    runtime = job.runtime(bank=bank)
    try:
        rows = results(runtime.rows([{"text": text} for text in "abc"]))
    finally:
        runtime.close()
    return rows, job.report()


def test_a_bank_of_the_callers_own_may_grant_requests_and_money(server, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0)  # each lease is of use
    rows, report = ask_with(server, OwnBank(), tmp_path)
    assert [row["text"] for row in rows] == ["A", "B", "C"]
    assert report.lost == 0


def test_a_bank_that_hangs_ends_the_rows_once_the_patience_is_over(server, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.2)
    monkeypatch.setattr(leases, "LAST_SECS", 0.2)
    hanging = threading.Event()
    rows, _ = ask_with(server, OwnBank(lambda _: hanging.wait(20)), tmp_path)
    hanging.set()
    assert {row["error"] for row in rows} == {
        "MiniLLMError: the bank of the job has not answered for 0 s (it does not return); what "
        "waited for it was not sent"
    }
    assert server.taken == []


def test_answers_come_back_although_the_bank_hangs_when_it_gets_money_back(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.2)
    monkeypatch.setattr(leases, "LAST_SECS", 0.2)
    hanging = threading.Event()
    rows, report = ask_with(server, OwnBank(give_back=lambda: hanging.wait(20)), tmp_path)
    hanging.set()
    assert [row["text"] for row in rows] == ["A", "B", "C"]
    assert report.lost > 0  # perhaps it has it, and perhaps not


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda _: None, "the bank returned NoneType, not a Lease"),
        (lambda _: 5, "the bank returned int, not a Lease"),
        (lambda _: {}, "the bank returned dict, not a Lease"),
        (lambda _: Lease(usd=Decimal("NaN")), "InvalidParameterError"),
        (lambda _: Lease(usd=Decimal(-1)), "InvalidParameterError"),
        (lambda asked: Lease(requests=asked.requests + 1), "a Lease of more than was asked for"),
        (lambda asked: Lease(usd=asked.usd + 1), "a Lease of more than was asked for"),
        (lambda _: sys.exit(1), "SystemExit"),
    ],
    ids=["None", "5", "{}", "NaN", "-1", "more requests", "more money", "exit"],
)
def test_a_reply_of_a_bank_that_makes_no_sense_is_none(
    server, tmp_path, monkeypatch, reply, reason
):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.1)
    rows, _ = ask_with(server, OwnBank(reply), tmp_path)
    assert all(reason in row["error"] for row in rows)
    assert server.taken == []


def test_a_job_leases_from_the_bank_that_it_was_given_last(server, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.1)
    job = job_at(server, pace=Pace(6000), budget=Budget(1), journal=tmp_path)
    runtime = job.runtime(bank=DeadBank())
    assert job.runtime(bank=OwnBank()) is runtime
    assert results(runtime.rows([{"text": "a"}]))[0]["text"] == "A"
    runtime.close()


def test_two_jobs_of_one_process_may_use_one_journal(server, tmp_path):
    first = job_at(server, journal=tmp_path)
    one, other = first.runtime(), first.replace(width=3).runtime()
    named = first.runtime(worker="b")
    for runtime, text in ((one, "a"), (other, "b"), (named, "c"), (one, "d"), (other, "a")):
        assert results(runtime.rows([{"text": text}]))[0]["text"] == text.upper()
    assert len(server.taken) == 4
    for runtime in (one, other, named):
        runtime.close()


def test_a_runtime_that_was_closed_says_so(server, ask, tmp_path):
    job = job_at(server, journal=tmp_path, budget=Budget(1))
    closed = job.runtime()
    ask(job.replace(width=3), "a")  # which takes the share of the first
    old, new = results(closed.rows([{"text": "a"}, {"text": "b"}]))
    assert (old["text"], old["from_journal"]) == ("A", True)
    assert new["error"] == (
        "InvalidParameterError: the runtime of the job was closed, by close() or by a newer one, "
        "which took its share of the budget: call job.runtime() again, and ask that one"
    )
    assert (new["cost_usd"], len(server.taken)) == ("0", 1)


def test_a_part_that_is_asked_about_ends_before_its_runtime_is_closed(tmp_path):
    with RowServer(secs=0.2) as server:
        runtime = job_at(server, journal=tmp_path).runtime()
        rows = []
        thread = threading.Thread(target=lambda: rows.extend(runtime.rows([{"text": "a"}])))
        thread.start()
        while not runtime.is_busy:
            time.sleep(0.01)
        runtime.close()
        thread.join()
    assert results(rows)[0]["text"] == "A"


def test_the_same_part_in_two_threads_leaves_nothing_that_is_maybe_paid(tmp_path):
    with RowServer(secs=0.2) as server:
        job = job_at(server, journal=tmp_path)
        runtime = job.runtime()
        threads = [threading.Thread(target=runtime.rows, args=([{"text": "a"}],)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        runtime.close()
    assert str(job.report()) == "1 done, 0 failed; $0.0004"


class Unprintable:
    def __repr__(self):
        raise RuntimeError

    __str__ = __repr__


class Uncountable(float):
    __float__ = __repr__ = Unprintable.__repr__


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        10**5000,
        Fraction(10**400),
        Unprintable(),
        Uncountable(),
    ],
    ids=["surrogate", "integer", "fraction", "repr", "float"],
)
@pytest.mark.parametrize("column", ["text", "id"])
def test_a_row_with_a_value_that_cannot_be_used_harms_no_other(server, tmp_path, column, value):
    runtime = job_at(server, journal=tmp_path, key="id").runtime()
    given = [{"text": text, "id": text} for text in "abc"]
    given[1][column] = value
    rows = results(runtime.rows(given))
    runtime.close()
    assert [row["text"] for row in rows[::2]] == ["A", "C"]
    assert rows[1]["error"].startswith("InvalidParameterError: ")
    assert len(server.taken) == 2


class UnreadableRow(dict):
    def keys(self):
        raise RuntimeError

    __iter__ = keys


def test_rows_are_mappings_that_can_be_read(server):
    runtime = job_at(server).runtime()
    with pytest.raises(InvalidParameterError, match="the rows are a list of mappings, not int"):
        runtime.rows(5)
    with pytest.raises(InvalidParameterError, match=r"row 0 cannot be read \(RuntimeError\)"):
        runtime.rows([UnreadableRow(text="a")])
    with pytest.raises(InvalidParameterError, match="the worker of a runtime must be a str"):
        job_at(server).runtime(worker=5)
    with pytest.raises(InvalidParameterError, match="has a method lease, and int has none"):
        job_at(server).runtime(bank=5)


def test_a_job_for_very_many_processes_is_made_at_once(server, tmp_path):
    began_at = time.monotonic()
    job = job_at(server, pace=Pace(10**9), budget=Budget(1), journal=tmp_path, workers=10**8)
    job.runtime().close()
    assert time.monotonic() - began_at < 2


def test_a_lock_that_is_a_folder_is_an_error_of_the_storage(server, tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(StorageError, match=r"\.lock' cannot be locked"):
        job_at(server, journal=tmp_path, budget=Budget(1)).runtime()


REFUSALS = {
    "a budget in the params": (
        {"params": NodeCompletionParameters(budget=Budget(1))},
        "give it to the job",
    ),
    "a pace in the params": ({"params": NodeCompletionParameters(pace=Pace())}, "give it to the"),
    "a callback": (
        {"params": NodeCompletionParameters(cost_callback=print)},
        "each row has its cost as a column",
    ),
    "a key": ({"generator": GENERATOR.with_api_key("sk-1")}, "with_api_key_from_env"),
    "a secret header": (
        {"generator": GENERATOR.with_header("Authorization", "Bearer 1")},
        "with_api_key_from_env",
    ),
    "a token provider": (
        {"generator": GENERATOR.with_token_provider(lambda: "t")},
        "token provider cannot be pickled",
    ),
    "a proxy with a password": (
        {"generator": GENERATOR.with_proxy("http://u:p@127.0.0.1:1")},
        "a secret cannot be pickled",
    ),
    "a key of a fallback": (
        {"generator": GENERATOR.or_else(GENERATOR.with_api_key("sk-1"))},
        "with_api_key_from_env",
    ),
    "an own transport": (
        {"generator": GENERATOR.with_transport(LockedTransport())},
        "the generator of a job cannot be sent.*connections and own transports stay",
    ),
    "a function within a function": (
        {"params": NodeCompletionParameters(), "tools": [nested_tool()]},
        "the tools of a job cannot be sent.*importable",
    ),
    "a budget without a journal": ({"budget": Budget(1)}, "needs a journal"),
    "a budget without a price": (
        {"budget": Budget(1), "journal": "j"},
        r"needs the maximum cost of each row.*missing: a price \(with_token_price\)",
    ),
    "a budget without a bound": (
        {
            "generator": GENERATOR.with_token_price(TokenPrice(1, 5)),
            "params": NodeCompletionParameters(),
            "budget": Budget(1),
            "journal": "j",
        },
        "missing: max_tokens",
    ),
    "a number as budget": ({"budget": 5, "journal": "j"}, "the budget of a job is a Budget"),
    "a number as pace": ({"pace": 5}, "the pace of a job is a Pace"),
    "a pace that is too small": ({"pace": Pace(3), "workers": 8}, "cannot be shared by 8"),
    "a text as prompt": ({"prompt": "{text}"}, "the prompt of a job is a node, not str"),
    "an object store": ({"journal": "s3://bucket/run"}, "object stores cannot be appended to"),
    "no prefix": ({"prefix": None}, "the prefix of a job cannot be None"),
    "no loop": ({"loop": None}, "the loop of a job cannot be None"),
    "no workers": ({"workers": 0}, "the workers of a job must be at least 1"),
    "no amount as budget": ({"budget": Decimal("NaN"), "journal": "j"}, "an amount of USD, finite"),
    "a debt as budget": ({"budget": Decimal(-1), "journal": "j"}, "finite and not negative"),
    "a pace of four": ({"pace": (1, 2, 3, 4)}, "the pace of a job is a Pace"),
    "a number as tools": ({"tools": 5}, "the tools of a job are a list of functions, not int"),
    "no tools": ({"tools": None}, "the tools of a job are a list of functions, not NoneType"),
    "a number as tool": ({"tools": [1]}, "tool"),
    "a null in the journal": ({"journal": "a\0b"}, "no folder has such a name"),
    "a surrogate in the journal": ({"journal": "\ud800"}, "no folder has such a name"),
    "a list as journal": ({"journal": ["j"]}, "is the path of a folder, not list"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_travel_is_refused_when_the_job_is_made(what):
    settings, sentence = REFUSALS[what]
    settings = {"generator": GENERATOR, "params": ONCE, "prompt": PROMPT} | settings
    with pytest.raises(InvalidParameterError, match=sentence):
        Bulk(settings.pop("generator"), settings.pop("params"), **settings)


def test_a_budget_of_which_something_is_spent_is_refused(tmp_path):
    budget = Budget(1)
    budget.charge(Decimal("0.1"))
    with pytest.raises(InvalidParameterError, match="make a new one of what remains"):
        Bulk(GENERATOR, prompt=PROMPT, budget=budget, journal=tmp_path)


def test_a_result_never_replaces_a_column(server):
    with pytest.raises(InvalidParameterError, match="have a column 'text' already.*prefix="):
        job_at(server, prefix="").runtime().rows([{"text": "a"}])
    with pytest.raises(InvalidParameterError, match="row 0 is str, not a mapping"):
        job_at(server).runtime().rows(["a"])


def test_a_runtime_stays_in_its_process(server):
    runtime = job_at(server).runtime()
    assert pickle.loads(pickle.dumps(job_at(server))).runtime() is runtime
    with pytest.raises(InvalidParameterError, match=r"call job.runtime\(\) there"):
        pickle.dumps(runtime)


def test_a_file_cannot_be_the_journal_of_a_job(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="it is a folder that all processes share"):
        job_at(server, journal=tmp_path / "file").runtime()


def test_a_shard_that_is_no_journal_is_an_error_that_names_it(server, tmp_path):
    (tmp_path / "x.jsonl").write_text("hello\n")
    with pytest.raises(StorageError, match=r"x.jsonl.*line 1 is no record"):
        job_at(server, journal=tmp_path).runtime()


def test_a_shard_that_is_damaged_later_is_the_error_of_the_rows(server, ask, tmp_path):
    job = job_at(server, journal=tmp_path)
    ask(job, "a")
    (tmp_path / "x.jsonl").write_text("hello\n")
    [row] = results(ask(job, "b"))
    assert row["error"].startswith("StorageError: ")
    assert len(server.taken) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_process_has_a_runtime_of_its_own(server, ask, tmp_path):
    job = job_at(server, journal=tmp_path)
    ask(job, "a")
    runtime = job.runtime()
    child = os.fork()
    if child == 0:
        try:
            rows = job.runtime().rows([{"text": "a"}, {"text": "b"}])
            is_good = [row["a_from_journal"] for row in rows] == [True, False]
            os._exit(0 if is_good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [row["a_from_journal"] for row in ask(job, "b")] == [True]
    child = os.fork()
    if child == 0:
        try:
            [row] = runtime.rows([{"text": "c"}])
            os._exit(0 if "process from which this one was forked" in row["a_error"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [row["a_text"] for row in ask(job, "d")] == ["D"]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_no_key_is_in_the_pickle_or_in_the_journal(shape, tmp_path, monkeypatch):
    key = Canary(shape)
    monkeypatch.setenv("ROW_SERVER_KEY", key.given)
    with RowServer(secs=0) as server:
        generator = server.generator.with_api_key_from_env("ROW_SERVER_KEY")
        job = Bulk(generator, ONCE, prompt=PROMPT, prefix="a_", journal=tmp_path)
        rows = job.runtime().rows([{"text": "a"}, {"text": f"bad {key.sent}"}])
        job.runtime().close()
        assert server.requests[0].headers["authorization"] == f"Bearer {key.sent}"
    assert rows[0]["a_text"] == "A"
    texts = [pickle.dumps(job), repr(job).encode(), str(rows[0]).encode(), str(rows[1]["a_error"])]
    texts += [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(texts) >= 5
    for text in texts:
        assert key.trace_in(text) is None
    with pytest.raises(InvalidParameterError) as refusal:
        Bulk(server.generator.with_api_key(key.given), prompt=PROMPT)
    assert key.trace_in(str(refusal.value)) is None
