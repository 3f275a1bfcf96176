"""The journal of a run: a rerun asks only what is missing, whatever ended the run before."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from bulk_server import PROMPT, Server, answer, refuses
from server import Exchange, serving

from minillmlib import (
    ApiError,
    BadRequestError,
    Budget,
    BudgetExceededError,
    ChatNode,
    CompletionParameters,
    InvalidParameterError,
    MaxRetriesExceededError,
    NodeCompletionParameters,
    StorageError,
    iterate,
    map_complete,
    run,
)
from minillmlib.testing import ScriptedReply

CHILD = str(Path(__file__).parents[1] / "support" / "bulk_child.py")
ONCE = NodeCompletionParameters(retry=0, deadline_secs=0.2)  # a 429 is not waited for
HEADER = b'{"kind":"minillmlib run","version":1}\n'
ROW_USD = Decimal("0.0002")


def ask(server: Server, items, journal, **settings):
    bulk = map_complete(items, server.generator, ONCE, journal=journal, ordered=True, **settings)
    return run(bulk.collect()), bulk


def test_a_rerun_asks_nothing_and_has_the_same_outcomes(tmp_path):
    server = Server()
    first, bulk = ask(server, list("abc"), tmp_path / "j")
    assert bulk.total.cost == 3 * ROW_USD
    again, rerun = ask(server, list("abc"), tmp_path / "j")
    assert len(server.said) == 3
    assert [one.is_from_journal for one in again] == [True] * 3
    assert [(one.index, one.key, one.text, one.cost) for one in again] == [
        (one.index, one.key, one.text, one.cost) for one in first
    ]
    assert again[0].node.response.finish_reason == first[0].node.response.finish_reason
    assert (rerun.total.cost, rerun.earlier.cost, rerun.maybe_paid) == (0, 3 * ROW_USD, 0)
    assert rerun.progress.from_journal == 3


def test_only_what_is_new_is_asked(tmp_path):
    server = Server()
    ask(server, ["a", "b"], tmp_path / "j")
    outcomes, _ = ask(server, ["b", "c", "a"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["B", "C", "A"]
    assert server.said == ["a", "b", "c"]


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": ChatNode.root("Be long.").add_user("The capital of {country}?")},
        {"params": CompletionParameters(temperature=0.5)},
        {"model": "other"},
    ],
    ids=["prompt", "params", "model"],
)
def test_a_changed_request_is_asked_anew(tmp_path, changed):
    server = Server()
    rows = [{"country": "France"}]
    for given in ({}, changed):
        generator = server.generator.replace(model=given.get("model", "m"))
        prompt, params = given.get("prompt", PROMPT), given.get("params")
        run(map_complete(rows, generator, params, prompt=prompt, journal=tmp_path / "j").collect())
    assert len(server.said) == 2


def test_equal_items_are_asked_each(tmp_path):
    server = Server()
    ask(server, ["a", "a"], tmp_path / "j")
    assert len(server.said) == 2
    ask(server, ["a", "a", "a"], tmp_path / "j")
    assert len(server.said) == 3


def test_the_caller_may_name_the_items(tmp_path):
    server = Server()
    ask(server, ["1 a"], tmp_path / "j", key=lambda item: item.split()[0])
    outcomes, _ = ask(server, ["1 b"], tmp_path / "j", key=lambda item: item.split()[0])
    assert server.said == ["1 a"]
    assert (outcomes[0].key, outcomes[0].text) == ("1", "1 A")
    (bad,), _ = ask(server, ["c"], tmp_path / "j", key=lambda item: 7)
    assert isinstance(bad.error, InvalidParameterError)


def test_a_count_of_equal_names_is_no_name_of_another_item(tmp_path):
    server = Server()
    for _ in range(2):
        items = ["a 1", "a 2", "a#2 3"]
        outcomes, _ = ask(server, items, tmp_path / "j", key=lambda item: item.split()[0])
        assert [one.text for one in outcomes] == ["A 1", "A 2", "A#2 3"]
    assert len(server.said) == 3


def test_other_tools_are_another_request(tmp_path):
    def add() -> str:
        """Add."""
        return ""

    def subtract() -> str:
        """Subtract."""
        return ""

    server = Server()
    for tools in ([add], [subtract], [], [add]):
        ask(server, ["a"], tmp_path / "j", tools=tools)
    assert len(server.said) == 3


def test_an_answer_of_another_type_fails_its_item_until_told_to_ask_again(tmp_path):
    server = Server(lambda said: ScriptedReply.json(answer('{"answer": [1, 2]}')))

    def asked(kind: type, *, again: bool = False):
        params = NodeCompletionParameters(retry=0).expecting(kind)
        bulk = map_complete(
            ["a"], server.generator, params, journal=tmp_path / "j", key=str, retry_failed=again
        )
        return run(bulk.collect())[0]

    assert asked(list[int]).parsed == [1, 2]
    other = asked(dict[str, int])
    assert (other.key, other.is_from_journal) == ("a", True)
    assert "does not fit" in str(other.error)
    assert asked(list[int]).parsed == [1, 2]
    assert len(server.said) == 1
    assert asked(dict[str, int], again=True).error is not None
    assert len(server.said) == 2


def test_typed_answers_are_read_from_the_journal(tmp_path):
    server = Server(lambda said: ScriptedReply.json(answer('{"answer": [1, 2]}')))
    params = NodeCompletionParameters().expecting(list[int])
    for _ in range(2):
        bulk = map_complete(["a"], server.generator, params, journal=tmp_path / "j")
        (outcome,) = run(bulk.collect())
        assert outcome.parsed == [1, 2]
    assert len(server.said) == 1


def test_a_tool_loop_is_kept_with_all_its_turns(tmp_path):
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a":1,"b":2}'},
    }

    def reply(said: str) -> ScriptedReply:
        return ScriptedReply.json(answer("", call) if said == "sum" else answer(f"It is {said}"))

    server = Server(reply)
    first, _ = ask(server, ["sum"], tmp_path / "j", tools=[add])
    again, bulk = ask(server, ["sum"], tmp_path / "j", tools=[add])
    assert len(server.said) == 2
    assert [m.text for m in again[0].node.thread()] == [m.text for m in first[0].node.thread()]
    assert again[0].cost == first[0].cost
    assert bulk.earlier.cost == 2 * ROW_USD


def test_every_turn_of_a_tool_loop_that_was_killed_may_have_been_paid(tmp_path):
    path = tmp_path / "j"

    def kill() -> str:
        """Stop as a kill does: nothing more is written."""
        shutil.copy(path, tmp_path / "killed")
        return "stopped"

    call = {"id": "c", "type": "function", "function": {"name": "kill", "arguments": "{}"}}
    turns = iter([answer("", call), answer("", call), answer("the end")])
    server = Server(lambda said: ScriptedReply.json(next(turns)))
    ask(server, ["stop"], path, tools=[kill])
    # A tool ran for the second time: two requests had been sent for the item.
    _, bulk = ask(Server(), [], tmp_path / "killed", tools=[kill])
    assert (bulk.maybe_paid, bulk.earlier.cost) == (2, 0)
    _, bulk = ask(Server(), [], path, tools=[kill])
    assert (bulk.maybe_paid, bulk.earlier.cost) == (0, 3 * ROW_USD)


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.rename(f"{path}.old")])
def test_a_journal_that_is_taken_away_ends_the_run(tmp_path, change):
    path = tmp_path / "j"

    def reply(said: str) -> ScriptedReply:
        if said == "1":
            change(path)
        return ScriptedReply.json(answer(said))

    bulk = map_complete(["1", "2"], Server(reply).generator, width=1, journal=path)
    outcomes = []

    async def read() -> None:
        async for outcome in bulk:
            outcomes.append(outcome)

    with pytest.raises(StorageError, match="was removed or replaced during the run"):
        run(read())
    assert [outcome.text for outcome in outcomes] == ["1", "2"]


# Failures.


def test_what_may_pass_is_asked_again_and_what_is_final_is_not(tmp_path):
    for status, count in ((400, 1), (429, 2), (500, 2)):
        servers = [Server(refuses(status, "a")) for _ in range(2)]
        for server in servers:
            (outcome,), _ = ask(server, ["a"], tmp_path / str(status))
            assert "no a" in str(outcome.error)
        assert sum(len(server.said) for server in servers) == count
    (outcome,), _ = ask(Server(), ["a"], tmp_path / "400")
    assert isinstance(outcome.error, BadRequestError)
    assert outcome.is_from_journal


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_ended_a_run_is_asked_again_when_the_user_has_mended_it(tmp_path, status):
    bulk = map_complete(["a"], Server(refuses(status, "a")).generator, ONCE, journal=tmp_path / "j")
    with pytest.raises(ApiError):
        run(bulk.collect())
    outcomes, _ = ask(Server(), ["a"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A"]


def test_what_a_budget_refused_is_asked_again_with_a_larger_one(tmp_path):
    params = CompletionParameters(max_tokens=20)
    for limit in ("0.0001", "1"):
        server = Server()
        bulk = map_complete(
            ["a"], server.generator, params, budget=Budget(limit), journal=tmp_path / "j"
        )
        if limit == "1":
            assert run(bulk.collect())[0].text == "A"
            continue
        with pytest.raises(BudgetExceededError):
            run(bulk.collect())


def test_retries_that_ran_out_may_pass_the_next_time(tmp_path):
    patient = NodeCompletionParameters(retry=1, back_off_time=0)
    server = Server(refuses(500, "a"))
    bulk = map_complete(["a"], server.generator, patient, journal=tmp_path / "j")
    assert isinstance(run(bulk.collect())[0].error, MaxRetriesExceededError)
    outcomes, _ = ask(Server(), ["a"], tmp_path / "j")
    assert [one.text for one in outcomes] == ["A"]


def test_final_failures_are_asked_again_if_told_to(tmp_path):
    ask(Server(refuses(400, "a")), ["a"], tmp_path / "j")
    (outcome,), _ = ask(Server(), ["a"], tmp_path / "j", retry_failed=True)
    assert outcome.text == "A"
    (outcome,), _ = ask(Server(refuses(400, "a")), ["a"], tmp_path / "j")
    assert outcome.text == "A"


# The file.


def test_a_line_that_a_crash_cut_off_is_asked_again(tmp_path):
    server = Server()
    ask(server, list("abc"), tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    end = whole.rindex(b"\n", 0, -1) + 1
    for cut in (end + 1, len(whole) - 1):
        (tmp_path / "j").write_bytes(whole[:cut])
        server.said.clear()
        outcomes, bulk = ask(server, list("abc"), tmp_path / "j")
        assert [one.text for one in outcomes] == ["A", "B", "C"]
        assert len(server.said) == 1
        assert bulk.maybe_paid == 1


def test_an_interrupted_header_is_written_anew(tmp_path):
    (tmp_path / "j").write_bytes(b'{"kind":"mini')
    ask(Server(), ["a"], tmp_path / "j")
    assert (tmp_path / "j").read_bytes().startswith(b'{"kind":"minillmlib run"')


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b'{"a": 1}\n',
        b'[{"kind":"minillmlib tree","version":1}]\n',
        b'{"kind":"minillmlib run","version":2}\n',
        b'{"kind":"sent","key":"a"}\n',
        b'{"kind":"minillmlib run","version":1}\n{"kind":"done","key":"a"}\n',
        b'{"kind":"minillmlib run","version":1}\n{"kind":"minillmlib run","version":1}\n',
        b"\xff\xfe\n",
        HEADER + b'{"kind":"sent","key":"\xff"}\n',
        HEADER + b'{"kind":"sent","key":"a","ceiling":"-5"}\n',
        HEADER + b'{"kind":"sent","key":"a","ceiling":"sNaN"}\n',
        HEADER + b'{"kind":"done","key":"a","index":0,"turns":[]}\n',
        HEADER + b'{"kind":"done","key":"a","index":0,"turns":[{}]}\n',
    ],
)
def test_a_file_of_another_kind_stays_as_it_is(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    server = Server()
    with pytest.raises(StorageError, match=r"'.*j': line \d"):
        ask(server, ["a"], tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == content
    assert server.said == []


@pytest.mark.parametrize("path", ["", "nowhere/j", "j\0"])
def test_a_journal_that_cannot_be_opened_is_named(tmp_path, path):
    with pytest.raises(StorageError, match="cannot be used as a journal"):
        ask(Server(), ["a"], tmp_path / path)


def test_a_second_run_with_the_same_journal_is_refused(tmp_path):
    async def two() -> None:
        server = Server(secs=0.01)
        async with map_complete(list("ab"), server.generator, journal=tmp_path / "j") as bulk:
            await anext(bulk)
            with pytest.raises(StorageError, match="run that is still going on"):
                map_complete(list("ab"), server.generator, journal=tmp_path / "j")
        await map_complete(list("ab"), server.generator, journal=tmp_path / "j").collect()

    run(two())


def test_a_journal_that_another_program_cuts_is_named(tmp_path):
    server = Server()
    ask(server, list("ab"), tmp_path / "j")
    bulk = map_complete(list("ab"), server.generator, journal=tmp_path / "j")
    os.truncate(tmp_path / "j", 60)
    for outcome in iterate(bulk):
        assert isinstance(outcome.error, StorageError)


@pytest.mark.parametrize("wrong", [{"prompt": "Be brief."}, {"items": "abc"}, {"tools": [3]}])
def test_a_run_that_was_called_wrongly_leaves_the_journal_and_the_budget(tmp_path, wrong):
    server, budget = Server(), Budget("1")
    settings = {"items": ["a"], "params": CompletionParameters(max_tokens=20), "budget": budget}
    settings |= {"generator": server.generator, "journal": tmp_path / "j"}
    run(map_complete(**settings).collect())
    spent = budget.spent
    with pytest.raises(InvalidParameterError) as raised:  # whose traceback is kept
        map_complete(**settings | wrong)
    assert budget.spent == spent
    assert run(map_complete(**settings).collect())[0].is_from_journal
    del raised


def test_closing_that_is_cancelled_closes_the_journal_all_the_same(tmp_path):
    class Slow:
        async def send(self, request):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.01)

    async def main() -> None:
        generator = Server().generator.with_transport(Slow())
        bulk = map_complete(["a"], generator, journal=tmp_path / "j")
        reader = asyncio.ensure_future(bulk.collect())
        await asyncio.sleep(0.01)
        reader.cancel()
        closing = asyncio.ensure_future(bulk.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.sleep(0.05)
        await map_complete(["a"], generator, journal=tmp_path / "j").aclose()

    run(main())


def test_a_disk_that_fails_at_the_end_is_told_after_all_outcomes(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    outcomes = []
    with pytest.raises(StorageError, match="Input/output error"):
        bulk = map_complete(list("ab"), Server(secs=0.01).generator, journal=tmp_path / "j")
        monkeypatch.setattr("minillmlib.bulk.journal.SYNC_SECS", 60)
        monkeypatch.setattr(os, "fsync", fail)
        for outcome in iterate(bulk):
            outcomes.append(outcome.text)
    assert sorted(outcomes) == ["A", "B"]
    monkeypatch.undo()
    assert (
        len(run(map_complete(list("ab"), Server().generator, journal=tmp_path / "j").collect()))
        == 2
    )


def test_a_forked_process_does_not_hold_the_journal(tmp_path):
    bulk = map_complete(["a"], Server().generator, journal=tmp_path / "j")
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        run(bulk.collect())
        run(map_complete(["a"], Server().generator, journal=tmp_path / "j").aclose())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_full_disk_ends_the_run_and_loses_no_answer(tmp_path, monkeypatch):
    server = Server(secs=0.001)
    plain, left = os.write, [2000]

    def write(descriptor: int, data: bytes) -> int:
        room, left[0] = left[0], max(0, left[0] - len(data))
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(descriptor, data[:room])

    bulk = map_complete(map(str, range(100)), server.generator, journal=tmp_path / "j", width=4)
    monkeypatch.setattr(os, "write", write)
    outcomes = []
    with pytest.raises(StorageError, match="No space left on device.*run it again"):
        outcomes.extend(iterate(bulk))
    monkeypatch.undo()
    assert len([one for one in outcomes if one.text]) == len(server.said) < 100
    asked = len(server.said)
    again, _ = ask(server, list(map(str, range(100))), tmp_path / "j")
    assert [one.text or one.error for one in again] == list(map(str, range(100)))
    assert len(server.said) <= 100 + 8
    assert asked < 20


# Money.


def test_the_budget_of_a_run_includes_what_earlier_runs_spent(tmp_path):
    params = CompletionParameters(max_tokens=20)
    spent = Decimal(0)
    for _ in range(3):
        server, budget = Server(secs=0.001), Budget("0.01")
        bulk = map_complete(
            (str(n) for n in range(1000)), server.generator, params, budget=budget,
            journal=tmp_path / "j",
        )  # fmt: skip
        with pytest.raises(BudgetExceededError):
            list(iterate(bulk))
        spent += len(server.said) * ROW_USD
        assert budget.spent == spent <= budget.limit
    assert spent > Decimal("0.008")


def test_what_was_in_flight_at_a_crash_counts_with_its_ceiling(tmp_path):
    params = CompletionParameters(max_tokens=20)
    server, budget = Server(), Budget("1")
    with (tmp_path / "j").open("w") as file:
        file.write('{"kind":"minillmlib run","version":1}\n')
        file.write('{"kind":"sent","key":"x","ceiling":"0.25"}\n')
    bulk = map_complete(["a"], server.generator, params, budget=budget, journal=tmp_path / "j")
    assert (bulk.maybe_paid, budget.spent) == (1, Decimal("0.25"))
    run(bulk.collect())
    assert budget.spent == Decimal("0.25") + ROW_USD


# Kills.


def test_kills_lose_no_row_and_pay_at_most_what_was_in_flight_again(tmp_path):
    kills = int(os.environ.get("MINILLMLIB_RUN_KILLS", "4"))
    rows, width = 100 * kills, 16
    billed: list[str] = []

    async def reply(exchange: Exchange) -> None:
        said = json.loads(exchange.body)["messages"][-1]["content"]
        await asyncio.sleep(random.uniform(0, 0.02))
        billed.append(said)
        await exchange.answer(json.dumps(answer(said.upper())).encode())

    async def run_child(url: str, *, kill_after: int | None) -> list[object]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, CHILD, url, str(tmp_path / "j"), str(rows), stdout=subprocess.PIPE
        )
        lines: list[object] = []
        assert child.stdout is not None
        async for line in child.stdout:
            lines.append(json.loads(line))
            if kill_after is not None and len(lines) > kill_after:
                child.send_signal(signal.SIGKILL)
                break
        await child.wait()
        return lines

    async def main() -> None:
        async with serving(reply) as (url, _):
            for kill in range(kills):
                await run_child(url, kill_after=100 * kill + random.randrange(50))
            lines = await run_child(url, kill_after=None)
        outcomes, end = lines[:-1], lines[-1]
        assert isinstance(end, dict)
        assert sorted(outcomes) == [[number, f"ROW {number}"] for number in range(rows)]
        repaid = len(billed) - rows
        assert repaid == len(billed) - len(set(billed))
        assert repaid <= end["maybe_paid"] <= kills * width

    asyncio.run(main())
