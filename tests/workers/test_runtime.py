"""What a process of a job gives back for its rows, whole, and what it leases for them."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from fractions import Fraction

import msgspec
import pydantic
import pytest
from memory_jobs import ONCE, PROMPT, OwnBank, ask, failed_row, generator_over, job_of, row
from run_records import attempt, done, failed, write_journal

from minillmlib import (
    Budget,
    Bulk,
    BulkReport,
    ChatNode,
    CostTotal,
    InvalidParameterError,
    Lease,
    NodeCompletionParameters,
    Pace,
    StorageError,
    ToolLoop,
)
from minillmlib.bulk.journal import RunJournal, SentRecord
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.workers import runtime as runtimes

# Rows.


def test_each_row_has_its_own_result_whatever_the_others_have(tmp_path):
    job = job_of(journal=tmp_path)
    rows = job.runtime().rows({"n": n, "text": text} for n, text in enumerate("abc"))
    assert rows == [{"n": n, **row(text)} for n, text in enumerate("abc")]
    rows = ask(job, "c", "bad d", "a")
    error = rows[1]["a_error"]
    assert error.startswith("BadRequestError: ")
    assert rows == [
        row("c", a_from_journal=True), failed_row("bad d", error, a_attempts=1),
        row("a", a_from_journal=True),
    ]  # fmt: skip
    rows = ask(job, "bad d", "e")
    again = failed_row("bad d", error, a_attempts=1, a_from_journal=True)
    assert rows == [again, row("e")]
    assert job.runtime().rows([]) == []


def test_a_number_of_any_kind_is_a_plain_one():
    job = job_of(prompt=ChatNode.root().add_user("{a} {b} {c}"))
    (one,) = job.runtime().rows([{"a": Fraction(1, 2), "b": 1.5, "c": 7, "n": Fraction(1, 3)}])
    assert (one["a_text"], one["n"]) == ("0.5 1.5 7", Fraction(1, 3))


class Town(pydantic.BaseModel):
    name: str
    since: int


@dataclass
class Map:
    towns: list[Town]


@dataclass
class Numbered:
    """A value whose answer may leave out what has keys that are no texts."""

    a: int
    names: dict[int, str] = field(default_factory=lambda: {1: "one"})


class Opaque:
    """What nobody can write as JSON."""


@dataclass
class Holding:
    a: int
    rest: Opaque | None = field(default_factory=Opaque, init=False)


@pytest.mark.parametrize(
    ("kind", "said", "parsed"),
    [
        (Numbered, '{"a": 1}', {"a": 1, "names": {"1": "one"}}),
        (int, '{"answer": 3}', 3),
        (list[date], '{"answer": ["2020-01-02"]}', ["2020-01-02"]),
        (Map, '{"towns": [{"name": "Bern", "since": 1191}]}',
         {"towns": [{"name": "Bern", "since": 1191}]}),
        (Town, '{"name": "Bern", "since": 1191}', {"name": "Bern", "since": 1191}),
    ],
)  # fmt: skip
def test_a_typed_answer_is_plain_json(kind, said, parsed):
    assert ask(job_of(ONCE.expecting(kind), [ScriptedReply.text(said)]), "a") == [
        row("a", a_text=said, a_parsed=parsed)
    ]


def test_a_value_that_cannot_be_json_is_the_error_of_its_row():
    job = job_of(ONCE.expecting(Holding), [ScriptedReply.text('{"a": 1}')])
    assert ask(job, "a") == [
        row(
            "a", a_text='{"a": 1}',
            a_error="InvalidParameterError: the parsed answer cannot be written as JSON "
            "(AttributeError)",
        )
    ]  # fmt: skip


def test_rows_that_are_none_are_refused_by_their_number():
    runtime = job_of().runtime()
    for rows, error in (
        (7, "the rows are a list of mappings, not int"),
        ([{"text": "a"}, "b"], "row 1 is str, not a mapping of columns to values"),
        (
            [{"text": "a"}, {"a_parsed": 1, "a_error": 2}],
            "the rows have a column 'a_parsed' already, which the results would replace: give the "
            "job a prefix, such as Bulk(..., prefix='answer_')",
        ),
    ):
        with pytest.raises(InvalidParameterError) as caught:
            runtime.rows(rows)
        assert str(caught.value) == error


@pytest.mark.parametrize("column", runtimes.COLUMNS)
def test_no_column_is_replaced(column):
    with pytest.raises(InvalidParameterError, match=f"the rows have a column 'a_{column}' already"):
        job_of().runtime().rows([{f"a_{column}": None}])


class Unprintable(Fraction):
    def __float__(self):
        raise ZeroDivisionError

    __int__ = __index__ = __str__ = __repr__ = __float__


def test_a_value_that_raises_is_the_error_of_its_row_alone():
    rows = job_of().runtime().rows([{"text": "a"}, {"text": Unprintable()}, {"text": "b"}])
    assert [one["a_text"] for one in rows] == ["A", None, "B"]
    assert rows[1]["a_error"] == (
        "InvalidParameterError: row 1 cannot be asked: one of its values raised "
        "ZeroDivisionError; give it as a text"
    )


def test_the_prompt_of_a_job_has_the_values_that_it_was_given():
    prompt = ChatNode.root("{tone}").set_format_kwarg("tone", "Be kind.").add_user("{text}")
    transport = ScriptedTransport(["A", "B"])
    job = Bulk(generator_over(transport), ONCE, prompt=prompt, prefix="a_", width=1)
    assert ask(job, "a", "b") == [row("a"), row("b")]
    sent = [json.loads(request.body)["messages"] for request in transport.requests]
    assert sent == [
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
        for text in "ab"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "asked"),
    [(["x", "y", "x"], 2), ([1, 2, 1], 2), (["1", 1], 1), ([True, False], 2), ([10**30, 0], 2)],
)
def test_rows_with_the_same_key_share_an_answer_in_later_parts(tmp_path, keys, asked):
    transport = ScriptedTransport(["ok"] * asked)
    job = Bulk(generator_over(transport), ONCE, prompt=PROMPT, prefix="a_", key="id",
               journal=tmp_path)  # fmt: skip
    for key in keys:
        (one,) = job.runtime().rows([{"id": key, "text": "a"}])
        assert one["a_text"] == "ok"
    assert len(transport.requests) == asked


@pytest.mark.parametrize("key", [1.5, None, [1], b"a", 2.0])
def test_a_key_is_a_text_or_a_whole_number(tmp_path, key):
    job = job_of(key="id", journal=tmp_path)
    (one,) = job.runtime().rows([{"id": key, "text": "a"}])
    assert one["a_error"] == (
        f"InvalidParameterError: the key column 'id' must hold texts or whole numbers, not {key!r}"
    )


# What ends a run.


def test_what_ends_a_run_is_the_error_of_all_rows_that_remain_and_of_later_parts(tmp_path):
    transport = ScriptedTransport(["A", ScriptedReply.error(401), "B", "C"])
    job = Bulk(generator_over(transport), ONCE, prompt=PROMPT, prefix="a_", width=1,
               journal=tmp_path)  # fmt: skip
    rows = ask(job, "a", "b", "c", "d")
    error = rows[1]["a_error"]
    assert error.startswith("AuthenticationError: ")
    assert rows == [
        row("a"), failed_row("b", error, a_attempts=1), failed_row("c", error),
        failed_row("d", error),
    ]  # fmt: skip
    assert ask(job, "a", "d") == [row("a", a_from_journal=True), failed_row("d", error)]
    assert len(transport.requests) == 2
    job.runtime().close()
    assert ask(job, "c") == [row("c", a_text="B")]


def explode(_request):
    raise ZeroDivisionError


def test_an_error_of_other_code_ends_its_part_and_leaves_the_cost_unknown():
    job = job_of(reply=explode, width=1)
    error = "MiniLLMError: the run was ended by ZeroDivisionError, of code outside this library"
    lost = {"a_cost_usd": None, "a_cost_resolution": "unknown"}
    for _ in range(2):
        assert ask(job, "a", "b") == [failed_row(text, error, **lost) for text in "ab"]
    assert ask(job) == []


# Runtimes.


def test_a_process_has_one_runtime_for_equal_jobs(tmp_path):
    job = job_of(journal=tmp_path, width=3)
    runtime = job.runtime()
    name = f"{socket.gethostname()}-{os.getpid()}"
    assert (runtime.worker, runtime.job, runtime.budget) == (name, job, None)
    assert repr(runtime) == f"BulkRuntime(worker={name!r}, width=3)"
    assert repr(job_of().runtime()) == f"BulkRuntime(worker={name!r}, width=20)"
    assert job.replace().runtime() is runtime
    assert job.runtime(worker=name) is runtime
    other = job.runtime(worker="another")
    assert (other.worker, other is runtime) == ("another", False)
    assert job.runtime(worker="another") is other
    assert job.replace(width=4).runtime() is not runtime
    assert (runtime.has_bank, runtime.has_share, runtime.is_busy) == (False, False, False)
    bank = OwnBank()
    leasing = job.runtime(bank=bank)
    assert leasing is not runtime
    assert (leasing.has_bank, leasing.has_share) == (True, False)
    assert job.runtime(bank=OwnBank()) is leasing
    assert job.runtime() is runtime
    runtime.close()
    assert job.runtime() is not runtime


def test_a_runtime_with_a_share_closes_those_with_its_journal_that_do_nothing(tmp_path):
    def job(folder: str, **settings) -> Bulk:
        return job_of(budget=Budget(1), journal=tmp_path / folder, **settings)

    elsewhere, first = job("other").runtime(), job("run").runtime()
    plain = job("run").replace(budget=None).runtime()
    assert (first.has_share, elsewhere.has_share, plain.has_share) == (True, True, False)
    assert first.budget.limit == 1
    second = job("run", width=2).runtime()
    assert second.budget.limit == 1
    closed = "the runtime of the job was closed, by close() or by a newer one, which took its share"
    assert closed in first.rows([{"text": "a"}])[0]["a_error"]
    for one, text in ((elsewhere, "a"), (plain, "b"), (second, "c")):
        assert one.rows([{"text": text}]) == [row(text)]
    assert second.job.runtime() is second
    assert first.job.runtime() is not first


def test_the_methods_of_a_bank_are_looked_for_when_it_is_given():
    class Half:
        lease = give_back = None

    for bank, name in (
        (Half(), "lease"),
        (5, "lease"),
        (type("B", (), {"lease": print})(), "give_back"),
    ):
        with pytest.raises(InvalidParameterError) as caught:
            job_of().runtime(bank=bank)
        assert str(caught.value) == (
            f"the bank of a runtime has a method {name}, and {type(bank).__name__} has none"
        )


def test_a_runtime_that_is_closed_leaves_its_shard_once_its_last_part_has_ended(tmp_path):
    going = asyncio.Event()

    class Gate:
        async def send(self, request):
            await going.wait()
            return await ScriptedTransport(["ok"]).send(request)

    def is_free() -> bool:
        try:
            RunJournal(path, retries_failed=False).close()
        except StorageError:
            return False
        return True

    runtime = job_of(journal=tmp_path).runtime()
    (path,) = tmp_path.glob("*.jsonl")
    msgspec.structs.force_setattr(runtime.job, "generator", generator_over(Gate()))

    async def main() -> None:
        parts = [asyncio.ensure_future(runtime.complete([{"text": text}])) for text in "ab"]
        while not runtime.is_busy:
            await asyncio.sleep(0)
        runtime.close()
        assert not is_free()
        going.set()
        assert [rows[0]["a_text"] for rows in await asyncio.gather(*parts)] == ["ok", "ok"]

    asyncio.run(main())
    assert not runtime.is_busy
    assert is_free()


def test_a_runtime_stays_in_its_process_with_these_words():
    with pytest.raises(InvalidParameterError) as caught:
        pickle.dumps(job_of().runtime())
    assert str(caught.value) == (
        "the runtime of a job stays in its process: send the job, and call job.runtime() there"
    )


def test_a_forked_process_keeps_only_what_it_may_use(tmp_path):
    plain, journaled, leasing = (
        job_of().runtime(), job_of(journal=tmp_path).runtime(), job_of().runtime(bank=OwnBank())
    )  # fmt: skip
    for runtime in (plain, journaled, leasing):
        runtime.leave_to_parent()
    assert plain.rows([{"text": "a"}]) == [row("a")]
    error = (
        "InvalidParameterError: the runtime of the job belongs to the process from which this one "
        "was forked: call job.runtime() again, and ask that one"
    )
    for runtime in (journaled, leasing):
        assert runtime.rows([{"text": "a"}]) == [failed_row("a", error)]


# Jobs.


def test_a_job_has_plain_values(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Bulk(generator_over(None))
    assert msgspec.structs.asdict(job) == {
        "generator": generator_over(None), "params": NodeCompletionParameters(), "prompt": None,
        "tools": (), "loop": ToolLoop(), "pace": None, "budget": None, "journal": None,
        "workers": 1, "width": None, "retry_failed": False, "key": None, "prefix": "",
    }  # fmt: skip
    job = job_of(
        pace=Pace(6, input_tokens_per_minute=7, output_tokens_per_minute=8), budget=Budget("2.50"),
        journal="run", tools=[len_of], key="id", retry_failed=True, workers=2, width=5,
    )  # fmt: skip
    assert (job.pace, job.budget, job.journal) == (
        (6, 7, 8),
        Decimal("2.50"),
        str(tmp_path / "run"),
    )
    assert (job.tools, job.key, job.retry_failed, job.workers, job.width) == (
        (len_of,), "id", True, 2, 5,
    )  # fmt: skip
    pace = job.new_pace()
    limits = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
    assert [getattr(pace, name) for name in limits] == [6, 7, 8]
    assert [getattr(job_of().new_pace(), name) for name in limits] == [None] * 3
    assert job.replace(workers=1).workers == 1
    assert [message.text for message in job.prompt.messages] == ["Be brief.", "{text}"]
    assert job_of(prompt=job.prompt).prompt is job.prompt
    assert job_of(budget=Decimal(3), journal="run").budget == 3


def len_of(text: str) -> int:
    """Count."""
    return len(text)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"loop": None}, "the loop of a job cannot be None: leave it out"),
        ({"workers": None}, "the workers of a job cannot be None: leave it out"),
        ({"retry_failed": None}, "the retry_failed of a job cannot be None: leave it out"),
        ({"prefix": None}, "the prefix of a job cannot be None: leave it out"),
        ({"loop": 5}, "the loop of a job must be a ToolLoop, not int"),
        ({"workers": 1.5}, "the workers of a job must be a whole number, not 1.5"),
        ({"width": 0}, "the width of a job must be at least 1, not 0"),
        ({"retry_failed": 1}, "the retry_failed of a job must be a bool, not int"),
        ({"key": 5}, "the key of a job must be a str, not int"),
        ({"prefix": 5}, "the prefix of a job must be a str, not int"),
        ({"tools": "text"}, "the tools of a job are a list of functions, not str"),
        ({"pace": (1, 2)}, "the pace of a job is a Pace(requests_per_minute), not tuple"),
        ({"budget": 5}, "the budget of a job is a Budget(usd), not int"),
        ({"journal": 5}, "the journal of a job is the path of a folder, not int"),
        ({"journal": "a\0"}, "the journal of a job cannot be at 'a\\x00': no folder has such a name"),
        ({"journal": "s3://b"}, "the journal of a job cannot be at 's3://b': object stores cannot "
         "be appended to; name a folder that all nodes share, such as an NFS mount"),
        ({"budget": Budget(1)}, 'the budget of a job needs a journal (journal="a/folder"), from '
         "which a process that takes the place of a dead one learns what was spent"),
        ({"params": NodeCompletionParameters(), "budget": Budget(1), "journal": "j"},
         "the budget of a job needs the maximum cost of each row, for which is missing: max_tokens"),
        ({"params": ONCE.replace(pace=Pace())}, "the params of a job cannot have a pace: give it "
         "to the job: Bulk(..., pace=...)"),
        ({"params": ONCE.replace(budget=Budget(1))}, "the params of a job cannot have a budget: "
         "give it to the job: Bulk(..., budget=...)"),
        ({"params": ONCE.replace(cost_callback=print)}, "the params of a job cannot have a "
         "cost_callback: it would run in another process; each row has its cost as a column"),
        ({"prompt": "{text}"}, "the prompt of a job is a node, not str: "
         "ChatNode.root(...).add_user(...)"),
    ],
)  # fmt: skip
def test_what_a_job_cannot_have_is_refused_in_these_words(settings, error):
    with pytest.raises(InvalidParameterError) as caught:
        job_of(**settings)
    assert str(caught.value) == error


def test_the_bank_of_a_job_has_its_rate_and_what_is_left(tmp_path):
    write_journal(
        tmp_path / "a.jsonl", SentRecord(key="1", ceiling=Decimal("0.1")), done("2", attempt(0, 1))
    )
    job = job_of(budget=Budget(1), journal=tmp_path, pace=Pace(600))
    assert job.bank().remaining == Decimal("0.65")
    assert job.bank().lease("a", 99, Decimal(0)).requests == 9
    assert job_of(pace=Pace(60)).bank().remaining is None
    assert job_of(journal=tmp_path).bank().remaining is None
    assert job_of().bank().lease("a", 99, Decimal(5)) == Lease(requests=99, usd=Decimal(5))


def test_a_report_is_read_from_the_journal(tmp_path):
    write_journal(
        tmp_path / "a.jsonl", SentRecord(key="1"), SentRecord(key="3"), failed("2"),
        done("4", attempt(0, 1)), done("5", attempt(0, 1)),
    )  # fmt: skip
    assert job_of(journal=tmp_path).report() == BulkReport(
        done=2, failed=1, cost=CostTotal(cost=Decimal("0.50"), unknown=2), maybe_paid=2,
        lost=Decimal(0),
    )  # fmt: skip
    with pytest.raises(InvalidParameterError) as caught:
        job_of().report()
    assert str(caught.value) == (
        'a report needs the journal of the job, and it has none: Bulk(..., journal="a/folder")'
    )
    (tmp_path / "b.jsonl").write_text("junk\n")
    with pytest.raises(StorageError):
        job_of(journal=tmp_path).report()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "1,234 done, 5 failed; $0.5"),
        ({"maybe_paid": 1000}, "1,234 done, 5 failed; $0.5 (1,000 maybe paid)"),
        ({"lost": Decimal("0.1")}, "1,234 done, 5 failed; $0.5; $0.1 leased and not given back"),
        ({"maybe_paid": 1, "lost": Decimal(1)},
         "1,234 done, 5 failed; $0.5 (1 maybe paid); $1 leased and not given back"),
        ({"cost": CostTotal(cost=Decimal(2), unknown=1)}, "1,234 done, 5 failed; at least $2"),
    ],
)  # fmt: skip
def test_a_report_is_one_line(fields, text):
    plain = {"done": 1234, "failed": 5, "cost": CostTotal(cost=Decimal("0.5")), "maybe_paid": 0,
             "lost": Decimal(0)}  # fmt: skip
    assert str(BulkReport(**plain | fields)) == text
