"""What the library tells Ray and Dask, and what it makes of their rows, without these engines."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import pytest
from memory_jobs import ONCE, PROMPT, echo, generator_over
from memory_jobs import job_of as make_job
from ray_like import Dask, Dataset, Pool, Ray, install, pyarrow, table_of

import minillmlib.dask
import minillmlib.ray
from minillmlib import (
    Budget,
    Bulk,
    InvalidParameterError,
    Lease,
    MissingExtraError,
    Pace,
)
from minillmlib.auth.credentials import EnvironmentKey
from minillmlib.testing import ScriptedReply, ScriptedTransport
from minillmlib.workers import runtime as runtimes

job_of = partial(make_job, workers=2)


@pytest.fixture
def ray(monkeypatch):
    cluster = Ray()
    install(monkeypatch, cluster.module(), pyarrow())
    return cluster


GOOD = {
    "a_parsed": None, "a_error": None, "a_cost_usd": Decimal("0.000035"),
    "a_cost_resolution": "resolved", "a_attempts": 1, "a_from_journal": False,
}  # fmt: skip


@pytest.mark.usefixtures("ray")
def test_ray_is_told_how_many_workers_get_how_many_rows_at_once():
    job = job_of()
    pool = {"max_concurrent_calls_per_actor": 4, "enable_true_multi_threading": True}
    for options, asked, workers, rows in (
        ({}, job, 2, 256),
        ({"workers": 3}, job.replace(workers=3), 3, 256),
        ({"part_rows": 1}, job, 2, 1),
    ):
        answers = minillmlib.ray.map_complete(Dataset({"row": "a"}), job, **options)
        assert answers.settings == {
            "fn_constructor_args": (asked, None),
            "batch_format": "pyarrow",
            "batch_size": rows,
            "compute": Pool({"size": workers, **pool}),
            "num_cpus": 0,
        }


@pytest.mark.usefixtures("ray")
def test_a_worker_of_ray_adds_columns_of_these_kinds():
    rows = [{"n": n, "text": text} for n, text in enumerate(["a", "bad b", "c", "d"])]
    answers = minillmlib.ray.map_complete(Dataset(*rows), job_of(), part_rows=3)
    first, second = answers.tables()
    kinds = {
        "n": "of the caller", "text": "of the caller", "a_text": "string", "a_parsed": "string",
        "a_error": "string", "a_cost_usd": "decimal128(38, 18)", "a_cost_resolution": "string",
        "a_attempts": "int64", "a_from_journal": "bool_",
    }  # fmt: skip
    assert first.kinds == second.kinds == kinds
    assert first.rows[0] == {"n": 0, "text": "a", "a_text": "A", **GOOD}
    assert first.rows[2] == {"n": 2, "text": "c", "a_text": "C", **GOOD}
    assert second.rows == [{"n": 3, "text": "d", "a_text": "D", **GOOD}]
    bad = first.rows[1]
    assert bad.pop("a_error").startswith("BadRequestError: ")
    assert bad == {
        "n": 1, "text": "bad b", "a_text": None, "a_parsed": None, "a_cost_usd": Decimal(0),
        "a_cost_resolution": "resolved", "a_attempts": 1, "a_from_journal": False,
    }  # fmt: skip
    assert str(first.rows[0]["a_cost_usd"]) == "0.000035000000000000"


@dataclass
class City:
    name: str
    size: int


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("kind", "said", "parsed"),
    [
        (City, '{"name": "Bern", "size": 3}', '{"name":"Bern","size":3}'),
        (str, '{"answer": "a \\"text\\""}', 'a "text"'),
        (int, '{"answer": 3}', "3"),
        (list[str], '{"answer": ["a"]}', '["a"]'),
    ],
)
def test_a_value_is_a_text_as_it_is_or_json(kind, said, parsed):
    job = job_of(ONCE.expecting(kind), [ScriptedReply.text(said)], workers=1)
    (table,) = minillmlib.ray.map_complete(Dataset({"n": "x", "text": "a"}), job).tables()
    assert [row["a_parsed"] for row in table.rows] == [parsed]


@pytest.mark.usefixtures("ray")
def test_a_worker_of_ray_takes_only_the_columns_that_are_asked_about(tmp_path):
    messages = [{"role": "user", "content": "hi"}]
    dataset = Dataset({"n": 1, "other": object(), "messages": messages})
    job = job_of(prompt=None)
    (table,) = minillmlib.ray.map_complete(dataset, job).tables()
    assert table.rows[0]["a_text"] == "HI"
    keyed = job.replace(key="n", journal=str(tmp_path))
    (table,) = minillmlib.ray.map_complete(dataset, keyed).tables()
    assert (table.rows[0]["a_text"], table.rows[0]["a_error"]) == ("HI", None)
    (table,) = minillmlib.ray.map_complete(dataset, keyed).tables()
    assert table.rows[0]["a_from_journal"] is True
    (table,) = minillmlib.ray.map_complete(Dataset({"n": 1}), job_of()).tables()
    assert table.rows[0]["a_error"] == "InvalidParameterError: item 0 has no value for {text}"


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("column", runtimes.COLUMNS)
def test_no_column_of_a_dataset_is_replaced(column):
    dataset = Dataset({"row": "a", f"a_{column}": "b"})
    error = (
        f"the dataset has a column 'a_{column}' already, which the results would replace: give "
        "the job a prefix, such as Bulk(..., prefix='answer_')"
    )
    with pytest.raises(InvalidParameterError) as caught:
        minillmlib.ray.map_complete(dataset, job_of())
    assert str(caught.value) == error
    transport = ScriptedTransport(echo)
    job = Bulk(generator_over(transport), ONCE, prompt=PROMPT, prefix="a_")
    unknown = Dataset({"row": "a", f"a_{column}": "b"}, has_schema=False)
    answers = minillmlib.ray.map_complete(unknown, job)
    with pytest.raises(InvalidParameterError) as caught:
        list(answers.tables())
    assert str(caught.value) == error
    assert transport.requests == []


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("part_rows", [0, -1, 1.5, "2", True])
def test_a_part_for_ray_is_a_whole_number_of_rows(part_rows):
    with pytest.raises(InvalidParameterError, match="part_rows must be"):
        minillmlib.ray.map_complete(Dataset({"row": "a"}), job_of(), part_rows=part_rows)


KEYS = EnvironmentKey(("FIRST_KEY", "SECOND_KEY"), EnvironmentKey(("THIRD_KEY",)))


@pytest.mark.parametrize(
    "variable",
    [
        "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "FIRST_KEY",
        "SECOND_KEY", "THIRD_KEY", "FALLBACK_KEY",
    ],
)  # fmt: skip
def test_a_key_in_the_runtime_environment_is_refused_whoever_would_use_it(monkeypatch, variable):
    job = job_of()
    generator = job.generator.replace(credential=KEYS)
    fallback = job.generator.replace(model="n", credential=EnvironmentKey(("FALLBACK_KEY",)))
    job = job.replace(generator=generator.or_else(fallback))
    install(monkeypatch, Ray({variable: "sk-x"}).module())
    with pytest.raises(InvalidParameterError) as caught:
        minillmlib.ray.map_complete(Dataset({"row": "a"}), job)
    assert str(caught.value) == (
        f"{variable} is in the runtime_env, which Ray writes into its logs in the clear: set it "
        "in the environment in which Ray is started on each node, and replace the key, since it "
        "is in the logs"
    )
    install(monkeypatch, Ray({"ANOTHER_KEY": "sk-x"}).module())
    minillmlib.ray.map_complete(Dataset({"row": "a"}), job)


def test_the_datasets_of_a_job_share_one_bank(ray, tmp_path):
    job = job_of(pace=Pace(6000), budget=Budget("0.5"), journal=tmp_path)
    handles = []
    for workers in (2, 3):
        answers = minillmlib.ray.map_complete(
            Dataset({"n": "x", "text": "a"}), job, workers=workers
        )
        handles.append(answers.settings["fn_constructor_args"][1])
    shared = (str(tmp_path), Decimal("0.5"), (6000, None, None), "https://t.example/v1", "m")
    assert ray.options == [{
        "name": f"bank {shared!r}", "namespace": "minillmlib", "get_if_exists": True, "num_cpus": 0,
        "max_restarts": -1,
    }] * 2  # fmt: skip
    (actor,) = ray.actors.values()
    first, second = handles
    lease = first.lease("w", 3, Decimal("0.2"), Decimal(0))
    assert lease == Lease(
        requests=3, wait_secs=0.0, interval_secs=lease.interval_secs, usd=Decimal("0.2")
    )
    assert second.lease("v", 1, Decimal("0.4"), Decimal(0)).usd == Decimal("0.3")
    assert second.give_back("w", Decimal("0.1"), Decimal("0.1")) is None
    assert actor.bank.remaining == Decimal("0.1")
    assert ray.waits == [10.0] * 3
    (table,) = answers.tables()
    assert table.rows[0] == {"n": "x", "text": "a", "a_text": "A", **GOOD}
    assert len(ray.waits) > 3, "the worker leases from the bank"


def test_what_cannot_be_shared_needs_no_bank(ray, tmp_path):
    dataset = Dataset({"row": "a"})
    bank = {
        "nothing": job_of(),
        "tokens": job_of(pace=Pace(input_tokens_per_minute=600)),
        "requests": job_of(pace=Pace(600)),
        "money": job_of(budget=Budget(1), journal=tmp_path),
    }
    has_bank = {
        name: minillmlib.ray.map_complete(dataset, job).settings["fn_constructor_args"][1]
        is not None
        for name, job in bank.items()
    }
    assert has_bank == {"nothing": False, "tokens": False, "requests": True, "money": True}
    assert len(ray.actors) == 2


def test_the_report_of_a_job_is_read_in_the_cluster(ray, tmp_path):
    job = job_of(journal=tmp_path)
    list(minillmlib.ray.map_complete(Dataset({"n": "x", "text": "a"}), job).tables())
    assert str(minillmlib.ray.report(job)) == "1 done, 0 failed; $0.000035"
    assert ray.options == [{"num_cpus": 0}]
    assert ray.waits == [None]


# Dask.


@pytest.fixture
def dask(monkeypatch):
    cluster = Dask()
    install(monkeypatch, cluster.module())
    return cluster


@pytest.mark.parametrize(
    ("count", "is_list", "options", "parts"),
    [
        (5, True, {}, [2, 2, 1]),
        (1, True, {}, [1]),
        (0, True, {}, []),
        (600, True, {}, [256, 256, 88]),
        (510, True, {}, [255, 255]),
        (300, False, {}, [256, 44]),
        (5, False, {"part_rows": 2}, [2, 2, 1]),
        (4, True, {"part_rows": 1}, [1, 1, 1, 1]),
        (4, True, {"part_rows": 9}, [4]),
    ],
)
def test_a_part_for_dask_gives_each_worker_as_many_rows(dask, count, is_list, options, parts):
    rows = [{"n": n} for n in range(count)]  # which are not asked about, as they have no text
    job = job_of()
    results = list(minillmlib.dask.map_complete(rows if is_list else iter(rows), job, **options))
    assert [len(part) for part in dask.parts] == parts
    assert [row["n"] for row in results] == list(range(count))


def test_rows_for_dask_are_read_as_there_is_room(dask):
    taken = []

    def rows():
        for n in range(100):
            taken.append(n)
            yield {"n": n, "text": "a"}

    results = minillmlib.dask.map_complete(rows(), job_of(), part_rows=3)
    assert taken == []
    assert next(results) == {
        "n": 0, "text": "a", "a_text": "A", **GOOD, "a_cost_usd": "0.000035",
    }  # fmt: skip
    assert (len(taken), len(dask.parts), dask.read) == (12, 4, 1)
    for _ in range(2):
        next(results)
    assert (len(taken), len(dask.parts), dask.read) == (12, 4, 1)
    assert next(results)["n"] == 3
    assert (len(taken), len(dask.parts), dask.read) == (15, 5, 2)


def test_the_rows_of_a_part_that_ended_its_workers_have_that_as_their_error(dask):
    dask.lethal = lambda row: row["text"] == "b"
    rows = [{"text": text} for text in "abcd"]
    results = list(minillmlib.dask.map_complete(rows, job_of(), part_rows=2))
    lost = {
        "a_text": None, "a_parsed": None,
        "a_error": "MiniLLMError: the part of this row was given up after 4 of its workers had "
        "died; a rerun asks only what is missing, and smaller parts lose fewer rows",
        "a_cost_usd": None, "a_cost_resolution": "unknown", "a_attempts": 0,
        "a_from_journal": False,
    }  # fmt: skip
    assert results[:2] == [{"text": "a", **lost}, {"text": "b", **lost}]
    assert [row["a_text"] for row in results[2:]] == ["C", "D"]


def test_without_dask_or_a_client_the_error_says_what_to_do(monkeypatch):
    job = job_of()
    install(monkeypatch, Dask(has_client=False).module())
    with pytest.raises(InvalidParameterError) as caught:
        minillmlib.dask.map_complete([], job)
    assert str(caught.value) == "make a distributed.Client of the cluster first"
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtraError) as missing:
        minillmlib.dask.map_complete([], job)
    assert str(missing.value) == "minillmlib.dask needs Dask: pip install 'minillmlib[dask]'"


def test_a_table_of_the_stand_in_is_what_it_was_made_of():
    rows = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert table_of(*rows).rows == rows
