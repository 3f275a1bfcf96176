"""A job on a real Dask cluster of two processes: what it costs if one of them is killed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest
from row_server import PROMPT, ROW_USD, RowServer

import minillmlib.dask
from minillmlib import Budget, Bulk, CompletionParameters, InvalidParameterError

distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # Dask's own, such as sockets of processes that died
]

SHORT = CompletionParameters(max_tokens=20)
WIDTH = 16


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def server():
    with RowServer() as server:
        yield server


def rows(count: int):
    return ({"id": number, "text": f"row {number}"} for number in range(count))


def job_at(server: RowServer, **settings) -> Bulk:
    return Bulk(
        server.generator, SHORT, prompt=PROMPT, prefix="a_", workers=2, width=WIDTH, **settings
    )


def test_without_a_client_the_error_says_so(server):
    job = job_at(server)
    with pytest.raises(InvalidParameterError, match="make a distributed.Client"):
        minillmlib.dask.map_complete(rows(10), job)


def test_rows_come_back_in_order_with_their_results(cluster, server, tmp_path):
    job = job_at(server, journal=tmp_path)
    results = list(minillmlib.dask.map_complete(rows(120), job, part_rows=25))
    assert [row["id"] for row in results] == list(range(120))
    assert [row["a_text"] for row in results] == [f"ROW {number}" for number in range(120)]
    assert {row["a_cost_usd"] for row in results} == {"0.0002"}
    again = list(minillmlib.dask.map_complete(rows(120), job, part_rows=30))
    assert all(row["a_from_journal"] for row in again)
    assert len(server.taken) == 120
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


def test_a_killed_worker_costs_at_most_what_was_in_flight(cluster, server, tmp_path):
    job = job_at(server, journal=tmp_path, budget=Budget("0.60"))
    pids = list(cluster.run(os.getpid).values())

    def kill():
        while len(server.taken) < 150:
            time.sleep(0.005)
        os.kill(pids[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    results = list(minillmlib.dask.map_complete(rows(500), job, part_rows=50))
    killer.join()
    assert [row["a_text"] for row in results] == [f"ROW {number}" for number in range(500)]
    assert {row["a_error"] for row in results} == {None}
    billed = sum(server.billed.values())
    report = job.report()
    assert billed - 500 <= report.maybe_paid <= WIDTH
    assert (report.done, report.failed) == (500, 0)
    assert float(report.cost.cost) == pytest.approx(500 * ROW_USD)
    assert report.cost.unknown == report.maybe_paid
    if report.maybe_paid:
        assert str(report) == f"500 done, 0 failed; at least $0.1 ({report.maybe_paid} maybe paid)"


def test_a_row_that_ends_its_worker_has_that_as_its_error(cluster, server, tmp_path):
    job = job_at(server, journal=tmp_path)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cluster.cluster.scheduler.allowed_failures = 0
    [lost] = minillmlib.dask.map_complete([Lethal(text="row 0", id=os.getpid())], job)
    error = "MiniLLMError: the part of this row was given up after 1 of its workers had died"
    assert lost["a_error"].startswith(error)
    assert (lost["id"], lost["a_cost_usd"], lost["a_cost_resolution"]) == (
        os.getpid(),
        None,
        "unknown",
    )
    [answered] = minillmlib.dask.map_complete(rows(1), job)
    assert answered["a_text"] == "ROW 0"


class Lethal(dict):
    """A row that ends the process that asks about it, as one that needs too much memory does."""

    def keys(self):
        import os
        import signal

        if os.getpid() != self["id"]:  # that of the driver
            os.kill(os.getpid(), signal.SIGKILL)
        return super().keys()

    def __iter__(self):  # else `dict(row)` would not ask for the keys
        return super().__iter__()


def test_a_column_that_a_result_would_replace_is_refused_before_anything_is_sent(cluster, server):
    job = Bulk(server.generator, SHORT, prompt=PROMPT, workers=2)
    with pytest.raises(InvalidParameterError, match="the rows have a column 'text' already"):
        list(minillmlib.dask.map_complete(rows(10), job))
    assert server.taken == []
