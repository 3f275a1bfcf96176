"""What a process of a job leases of a bank for its calls, and gives back."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar
from decimal import Decimal

import msgspec
import pytest
from memory_jobs import PROMPT, ROW_USD, OwnBank, ask, failed_row, generator_over, job_of, row

from minillmlib import (
    Budget,
    Lease,
    Pace,
    map_complete,
)
from minillmlib.testing import ScriptedTransport
from minillmlib.types.budgets import LeasedBudget
from minillmlib.workers import leases


def test_a_process_leases_what_its_calls_need_and_gives_back_the_rest(tmp_path):
    job = job_of(budget=Budget(1), journal=tmp_path, pace=Pace(6000), workers=3)
    ceiling = PROMPT.copy_thread({"text": "a"}).estimate_cost(job.generator, job.params).ceiling
    bank = OwnBank()
    assert ask(job, "a", "b", bank=bank, worker="w") == [row("a"), row("b")]
    leased = bank.told("lease")
    assert sum(requests for _, requests, _, _ in leased) == 2
    assert sum(usd for _, _, usd, _ in leased) == 2 * ceiling
    assert {worker for worker, *_ in leased} == {"w"}
    assert leased[0][3] == 0
    spent = 2 * Decimal(ROW_USD)
    assert bank.told("give back") == [("w", 2 * ceiling - spent, 0)]
    (path,) = tmp_path.glob("*.jsonl")
    grants = [line for line in path.read_text().splitlines() if "granted" in line]
    amounts = [Decimal(line.split('"')[7]) for line in grants]
    assert (amounts[-2], amounts[-1]) == (2 * ceiling, spent)
    assert all(line.endswith(',"is_lease":true}') for line in grants)
    assert (job.report().lost, str(job.report())) == (0, "2 done, 0 failed; $0.00007")


def test_nothing_is_leased_that_the_job_does_not_limit(tmp_path):
    bank = OwnBank()
    assert ask(job_of(), "a", bank=bank) == [row("a")]
    assert bank.calls == []
    assert ask(job_of(pace=Pace(6000)), "a", bank=bank) == [row("a")]
    assert [call[1:] for call in bank.told("lease")] == [(1, 0, 0)]
    assert bank.told("give back") == []


def test_parts_at_the_same_time_give_back_what_is_left_once(tmp_path):
    class Slow:
        async def send(self, request):
            await asyncio.sleep(0.15 if b"slow" in request.body else 0)
            return await ScriptedTransport(["ok"]).send(request)

    generator = generator_over(Slow())
    job = job_of(budget=Budget(1), journal=tmp_path)
    runtime = job.runtime(bank=(bank := OwnBank()))
    runtime.job = msgspec.structs.replace(job)  # a transport of this test stays here
    msgspec.structs.force_setattr(runtime.job, "generator", generator)

    async def main() -> None:
        slow = asyncio.ensure_future(runtime.complete([{"text": "slow"}]))
        while not bank.calls:
            await asyncio.sleep(0.005)
        rows = await runtime.complete([{"text": "b"}])
        assert rows[0]["a_text"] == "ok"
        assert not slow.done()
        assert bank.told("give back") == []
        await slow

    asyncio.run(main())
    assert len(bank.told("give back")) == 1


def test_a_request_goes_when_its_lease_says_so():
    began = time.monotonic()
    bank = OwnBank(wait_secs=0.15, interval_secs=0.05)
    assert ask(job_of(pace=Pace(6000)), "a", "b", bank=bank) == [row("a"), row("b")]
    assert 0.19 <= time.monotonic() - began < 2


def test_a_worker_without_needs_gives_a_sign_of_life(monkeypatch):
    for sign_secs, is_told in ((0.0, True), (10.0, False)):
        monkeypatch.setattr(leases, "SIGN_SECS", sign_secs)
        job = job_of(width=3 if is_told else 4)
        runtime = job.runtime(bank=(bank := OwnBank()))
        runtime.rows([{"text": "a"}])
        assert (bank.told("lease")[:1] == [(runtime.worker, 0, 0, 0)]) is is_told


def test_a_budget_that_a_bank_refuses_fails_the_rows_and_not_the_others(tmp_path):
    class Poor(OwnBank):
        def lease(self, worker, requests, usd, held):
            super().lease(worker, requests, usd, held)
            return Lease(requests=requests, usd=Decimal(0), may_come=len(self.calls) < 3)

    bank = Poor()
    (lost,) = ask(job_of(budget=Budget(1), journal=tmp_path), "a", bank=bank)
    assert lost["a_error"].startswith("BudgetExceededError: ")
    assert len(bank.told("lease")) == 3


def test_without_a_bank_the_rows_say_so_and_their_cost_is_unknown(monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.0)

    class Dead(OwnBank):
        def lease(self, *_arguments):
            raise ConnectionRefusedError

    error = (
        "MiniLLMError: the bank of the job has not answered for 0 s (ConnectionRefusedError); what "
        "waited for it was not sent"
    )
    lost = {"a_cost_usd": None, "a_cost_resolution": "unknown"}
    job = job_of(pace=Pace(6000))
    assert ask(job, "a", bank=Dead()) == [failed_row("a", error, **lost)]


def test_the_patience_with_a_bank_has_these_times():
    assert (leases.PATIENCE_SECS, leases.SIGN_SECS, leases.POLL_SECS, leases.LAST_SECS) == (
        60.0, 10.0, 0.05, 1.0,
    )  # fmt: skip


def test_a_bank_is_called_in_a_thread_of_its_own():
    class Noting(OwnBank):
        def lease(self, *arguments):
            thread = threading.current_thread()
            self.thread = (thread.name, thread.daemon)
            return super().lease(*arguments)

    bank = Noting()
    ask(job_of(pace=Pace(6000)), "a", bank=bank)
    assert bank.thread == ("bank of a job", True)


WORKER = ContextVar("WORKER", default="none")


def test_a_bank_is_called_in_the_context_of_the_rows():
    class Noting(OwnBank):
        def lease(self, *arguments):
            self.seen = WORKER.get()
            return super().lease(*arguments)

    bank = Noting()
    token = WORKER.set("of an engine")
    ask(job_of(pace=Pace(6000)), "a", bank=bank)
    WORKER.reset(token)
    assert bank.seen == "of an engine"


def test_a_bank_that_fails_for_a_while_is_asked_again():
    class Shaky(OwnBank):
        def lease(self, *arguments):
            if len(self.calls) < 2:
                self.calls.append(("failed", *arguments))
                raise ConnectionResetError
            return super().lease(*arguments)

    bank = Shaky()
    assert ask(job_of(pace=Pace(6000)), "a", bank=bank) == [row("a")]
    assert [call[0] for call in bank.calls] == ["failed", "failed", "lease"]


def test_what_breaks_the_leasing_ends_the_run_and_is_raised():
    def record(_usd) -> None:
        raise ZeroDivisionError

    budget, bank = LeasedBudget(), OwnBank()
    job = job_of()
    leasing = leases.Leases(bank, "w", Pace(), budget, record)

    async def main() -> None:
        params = job.params.replace(budget=budget)
        bulk = map_complete(["a"], job.generator, params)
        async with leasing.during(bulk):
            assert await bulk.collect() == []

    with pytest.raises(ZeroDivisionError):
        asyncio.run(asyncio.wait_for(main(), 5))
    assert len(bank.told("lease")) == 1


@pytest.mark.parametrize(
    ("more", "is_taken"), [({}, True), ({"requests": 1}, False), ({"usd": Decimal("1e-9")}, False)]
)
def test_a_lease_of_more_than_was_asked_for_is_none(monkeypatch, tmp_path, more, is_taken):
    monkeypatch.setattr(leases, "PATIENCE_SECS", 0.0)

    class Generous(OwnBank):
        def lease(self, worker, requests, usd, held):
            return Lease(requests=requests + more.get("requests", 0), usd=usd + more.get("usd", 0))

    job = job_of(pace=Pace(6000), budget=Budget(1), journal=tmp_path)
    (one,) = ask(job, "a", bank=Generous())
    assert one["a_error"] == (None if is_taken else (
        "MiniLLMError: the bank of the job has not answered for 0 s (the bank returned a Lease of "
        "more than was asked for); what waited for it was not sent"
    ))  # fmt: skip
