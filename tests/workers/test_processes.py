"""Several processes of one job: one budget, one rate, and what is left of those that die."""

from __future__ import annotations

import contextlib
import json
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from row_server import PROMPT, ROW_USD, RowServer
from worker_child import BankManager

from minillmlib import Budget, Bulk, CompletionParameters, NodeCompletionParameters, Pace

CHILD = str(Path(__file__).parents[1] / "support" / "worker_child.py")
CAP = Decimal("0.10")
ROWS = 600  # $0.12, more than the cap
CEILING = 0.0015  # of a row
EVEN_2, UNEVEN_2 = (300, 300), (540, 60)
EVEN_4, UNEVEN_4 = (150, 150, 150, 150), (420, 60, 60, 60)

pytestmark = pytest.mark.long


def job_at(server: RowServer, folder: Path, **settings) -> Bulk:
    params = NodeCompletionParameters(params=CompletionParameters(max_tokens=20), deadline_secs=30)
    settings = {"params": params, "journal": folder / "run", "width": 20} | settings
    return Bulk(server.generator, settings.pop("params"), prompt=PROMPT, prefix="a_", **settings)


@contextlib.contextmanager
def serving_bank(job: Bulk) -> Iterator[int]:
    """Hold the bank of a job in this process; yield its port."""
    bank = job.bank()
    BankManager.register("bank", callable=lambda: bank)
    manager = BankManager(("127.0.0.1", 0), authkey=b"bank").get_server()
    thread = threading.Thread(target=manager.serve_forever, daemon=True)
    thread.start()
    yield manager.address[1]


def start(job: Bulk, folder: Path, first: int, end: int, *, part: int = 1000, bank: int = 0):
    file = folder / "job"
    file.write_bytes(pickle.dumps(job))
    arguments = [str(file), str(first), str(end), str(part), str(bank)]
    return subprocess.Popen(
        [sys.executable, CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def go(*children) -> None:
    """Let processes ask, once all of them have their shares."""
    for child in children:
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        child.stdin.write(b"go\n")
        child.stdin.flush()


def finish(*children) -> list[list[dict]]:
    printed = [child.communicate(timeout=100)[0] for child in children]
    assert [child.returncode for child in children] == [0] * len(children)
    return [[json.loads(line) for line in text.splitlines()] for text in printed]


def ask(job: Bulk, folder: Path, *, spans, bank: int = 0, **settings) -> list[list[dict]]:
    """Ask about as many rows in each process as `spans` says, all at the same time."""
    children, first = [], 0
    for count in spans:
        children.append(start(job, folder, first, first + count, bank=bank, **settings))
        first += count
    go(*children)
    return finish(*children)


def kill(child, server: RowServer, after: int) -> None:
    """End a process after so many requests, as the system does where memory is short."""
    while len(server.taken) < after:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.parametrize("spans", [EVEN_2, EVEN_4], ids=["two", "four"])
def test_shares_of_a_budget_spend_it_and_no_more(tmp_path, spans):
    with RowServer() as server:
        job = job_at(server, tmp_path, budget=Budget(CAP), workers=len(spans))
        parts = ask(job, tmp_path, spans=spans)
    billed = sum(server.billed.values()) * ROW_USD
    assert float(CAP) - len(spans) * CEILING <= billed <= float(CAP)
    assert billed >= 0.9 * float(CAP)
    assert float(job.report().cost) == pytest.approx(billed)
    errors = {row["a_error"].partition(":")[0] for part in parts for row in part if row["a_error"]}
    assert errors == {"BudgetExceededError"}


@pytest.mark.parametrize(
    "spans",
    [EVEN_2, UNEVEN_2, EVEN_4, UNEVEN_4],
    ids=["two", "two uneven", "four", "four uneven"],
)
def test_a_bank_spends_a_budget_however_uneven_the_workers_are(tmp_path, spans):
    with RowServer() as server:
        job = job_at(server, tmp_path, budget=Budget(CAP), workers=len(spans))
        with serving_bank(job) as bank:
            ask(job, tmp_path, spans=spans, bank=bank)
    billed = sum(server.billed.values()) * ROW_USD
    assert 0.9 * float(CAP) <= billed <= float(CAP)
    assert float(CAP) - billed <= CEILING
    report = job.report()
    assert float(report.cost) == pytest.approx(billed)
    assert report.lost == 0


@pytest.mark.parametrize(
    ("spans", "has_bank"),
    [((250, 250), False), ((250, 250), True), ((450, 50), True), ((200, 100, 100, 100), True)],
    ids=["shares", "bank", "bank, uneven", "bank, four"],
)
def test_workers_keep_one_rate_together(tmp_path, spans, has_bank):
    with RowServer(rate=100, secs=0.1) as server:
        job = job_at(server, tmp_path, pace=Pace(6000), workers=len(spans), width=40)
        with serving_bank(job) if has_bank else contextlib.nullcontext(0) as bank:
            parts = ask(job, tmp_path, spans=spans, bank=bank)
    assert {row["a_error"] for part in parts for row in part} == {None}
    began = server.taken[0]
    late = [moment for moment in server.refused if moment > began + 1]
    assert len(late) <= 0.05 * len(server.taken)  # none, unless the machine stands still
    fifth = len(server.taken) // 5
    middle = server.taken[fifth:-fifth]  # while all of them are at work
    # Half of it is lost where a share or a lease is; benchmarks/workers.py measures the rest.
    assert (len(middle) - 1) / (middle[-1] - middle[0]) >= 70


def test_a_killed_process_costs_at_most_its_flight_and_its_heir_gets_its_share(tmp_path):
    with RowServer() as server:
        job = job_at(server, tmp_path, budget=Budget(CAP), workers=2)
        first, second = (
            start(job, tmp_path, 0, 300, part=50), start(job, tmp_path, 300, 600, part=50)
        )  # fmt: skip
        go(first, second)
        kill(first, server, 150)
        heir = start(job, tmp_path, 0, 300, part=50)
        go(heir)
        parts = finish(heir, second)
    billed = sum(server.billed.values())
    report = job.report()
    repaid = billed - len(server.billed)
    assert repaid <= report.maybe_paid <= 20
    assert billed * ROW_USD <= float(CAP)
    # What was in flight at the death counts with its maximum cost, since it may have been paid.
    assert billed * ROW_USD >= float(CAP) - (20 + 2) * CEILING
    assert float(report.cost.cost) == pytest.approx(report.done * ROW_USD)
    assert report.cost.unknown == report.maybe_paid
    answered = {row["text"] for part in parts for row in part if row["a_error"] is None}
    assert len(answered) == report.done


def test_a_worker_that_dies_costs_a_bank_at_most_its_lease(tmp_path):
    with RowServer() as server:
        job = job_at(server, tmp_path, budget=Budget(CAP), workers=2)
        with serving_bank(job) as bank:
            first = start(job, tmp_path, 0, 300, bank=bank)
            go(first)
            kill(first, server, 100)
            before = sum(server.billed.values())
            assert before * ROW_USD <= float(CAP)
            lost = job.report().lost
            assert float(lost) <= 2 * 20 * CEILING
            assert ("leased by workers that died" in str(job.report())) == (lost > 0)
        with serving_bank(job) as bank:  # another one, as after the death of the first
            ask(job, tmp_path, spans=(600,), bank=bank)
    billed = sum(server.billed.values())
    assert billed * ROW_USD <= float(CAP)
    assert billed * ROW_USD >= float(CAP) - 21 * CEILING  # what was in flight at the death
