"""The folder of a job: what its shards say together, who lives, and what is left of a budget."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from run_records import attempt, done, failed, write_journal

from minillmlib import CostOutcome, StorageError
from minillmlib.bulk.journal import GrantedRecord, RunJournal, SentRecord
from minillmlib.workers.shards import PartJournal, Shards, new_shard, open_folder, take_share

UNKNOWN = CostOutcome.unknown()


def sent(key: str, ceiling: str | None = None, turn: int = 1) -> SentRecord:
    return SentRecord(key=key, ceiling=None if ceiling is None else Decimal(ceiling), turn=turn)


def granted(usd: str, *, is_lease: bool = False) -> GrantedRecord:
    return GrantedRecord(usd=Decimal(usd), is_lease=is_lease)


def passing(key: str):
    """A failure that may pass."""
    record = failed(key, attempt(0, 1, 500, "ServerError", cost=attempt(0, 1).cost))
    return msgspec.structs.replace(record, is_final=False)


def shards_of(folder: Path, *, retries_failed: bool = False, **files) -> Shards:
    for name, records in files.items():
        write_journal(folder / f"{name}.jsonl", *records)
    return Shards(folder, retries_failed=retries_failed)


def state_of(shards: Shards) -> tuple:
    return (
        shards.answer_count, shards.failure_count, str(shards.spent.cost), shards.spent.unknown,
        shards.maybe_paid, str(shards.lost_usd),
    )  # fmt: skip


def test_a_folder_is_the_sum_of_its_shards(tmp_path):
    shards = shards_of(
        tmp_path,
        a=[sent("1"), done("1", attempt(0, 1)), sent("2", "0.5"), sent("3")],
        b=[sent("4"), failed("4", attempt(0, 1, 400, "X")), sent("5"), passing("5"),
           done("7", attempt(0, 1), attempt(1, 1, cost=UNKNOWN))],
        c=[failed("1"), done("4", attempt(0, 1)), failed("5"), failed("6"), sent("8", turn=2)],
    )  # fmt: skip
    assert state_of(shards) == (3, 2, "1.00", 1, 3, "0")
    assert [type(shards.find(key)).__name__ for key in "1234567"] == [
        "DoneRecord", "NoneType", "NoneType", "DoneRecord", "FailedRecord", "FailedRecord",
        "DoneRecord",
    ]  # fmt: skip
    assert (shards.find("4").key, shards.find("6").key) == ("4", "6")
    assert state_of(shards_of(tmp_path)) == state_of(shards)


def test_what_processes_add_is_read_line_by_line(tmp_path):
    shards = shards_of(tmp_path, a=[sent("1")])
    assert state_of(shards) == (0, 0, "0", 0, 1, "0")
    whole = write_journal(tmp_path / "other", done("1", attempt(0, 1)), failed("2"), done("2"))
    lines = whole.read_bytes().splitlines(keepends=True)[1:-1]
    for part, state in (
        (lines[0][:20], (0, 0, "0", 0, 1, "0")),
        (lines[0][20:], (1, 0, "0.25", 0, 0, "0")),
        (b"", (1, 0, "0.25", 0, 0, "0")),
        (lines[1], (1, 1, "0.25", 0, 0, "0")),
    ):
        with (tmp_path / "a.jsonl").open("ab") as file:
            file.write(part)
        shards.refresh()
        assert state_of(shards) == state
    assert shards.find("1").key == "1"
    assert shards.find("2").key == "2"
    write_journal(tmp_path / "b.jsonl", done("2", attempt(0, 1)))
    shards.refresh()
    assert state_of(shards) == (2, 0, "0.50", 0, 0, "0")
    assert type(shards.find("2")).__name__ == "DoneRecord"
    path = tmp_path / "a.jsonl"
    old = path.read_bytes()
    other = old.replace(b'"kind":"done","key":"1"', b'"kind":"done","key":"9"')
    pad = b'{"kind":"sent","key":"1"}'
    unended = old.replace(lines[0], pad.ljust(len(lines[0]) - 1) + b"\n")
    for changed in (b"x" * 2000, other, unended):
        assert changed != old
        path.write_bytes(changed)
        with pytest.raises(StorageError) as caught:
            shards.find("1")
        assert str(caught.value) == (f"{str(path)!r} was changed by another program during the run")
    assert shards.find("2").key == "2"


@pytest.mark.parametrize("retries_failed", [True, False])
def test_a_failure_is_asked_again_if_it_may_pass_or_the_job_says_so(tmp_path, retries_failed):
    old = [failed("old"), passing("p"), done("good", attempt(0, 1))]
    shards = shards_of(tmp_path, retries_failed=retries_failed, a=old)
    write_journal(tmp_path / "b.jsonl", failed("new"), passing("q"))
    shards.refresh()
    found = {key: shards.find(key) is not None for key in ("old", "p", "good", "new", "q", "none")}
    assert found == {
        "old": not retries_failed, "p": False, "good": True, "new": True, "q": False, "none": False,
    }  # fmt: skip


def test_a_live_process_keeps_its_share_and_a_dead_one_leaves_what_it_did_not_spend(tmp_path):
    limit = Decimal(10)
    shards = shards_of(
        tmp_path,
        a=[granted("2"), sent("1", "0.5"), done("1", attempt(0, 1)), sent("2", "0.7")],
        b=[granted("3"), sent("3", "0.5"), done("3", attempt(0, 1, cost=UNKNOWN))],
        c=[sent("4", "4"), granted("0")],
        d=[granted("0.1"), sent("5", "0.2")],
    )
    dead = Decimal("0.25") + Decimal("0.7") + Decimal("0.5") + 4 + Decimal("0.2")
    assert shards.remaining(limit) == (limit - dead, 0)
    assert shards.remaining(Decimal(5)) == (0, 0)
    alive = [RunJournal(tmp_path / f"{name}.jsonl", retries_failed=False) for name in "acd"]
    assert shards.remaining(limit) == (limit - dead + Decimal("0.95") - 2, 2)
    for one in alive:
        one.close()
    assert shards.remaining(limit) == (limit - dead, 0)


def test_what_cannot_be_asked_whether_it_lives_counts_as_alive(tmp_path, monkeypatch):
    shards = shards_of(tmp_path, a=[granted("2")])
    assert shards.remaining(Decimal(5)) == (5, 0)
    (tmp_path / "a.jsonl").rename(tmp_path / "gone")
    assert shards.remaining(Decimal(5)) == (3, 1)
    (tmp_path / "gone").rename(tmp_path / "a.jsonl")

    def fail(_descriptor: int) -> bool:
        raise OSError("no locks here")

    monkeypatch.setattr("minillmlib.workers.shards.try_lock", fail)
    assert shards.remaining(Decimal(5)) == (3, 1)


def test_a_lease_is_lost_with_its_process_as_far_as_it_was_not_spent(tmp_path):
    shards = shards_of(
        tmp_path,
        a=[granted("1", is_lease=True), granted("2", is_lease=True), sent("1", "0.5")],
        b=[granted("0.2", is_lease=True), sent("2", "0.5")],
        c=[granted("7")],
        d=[granted("4", is_lease=True)],
        e=[granted("0.4", is_lease=True), sent("3", "0.5"), done("3", attempt(0, 1))],
    )
    assert shards.lost_usd == Decimal("1.5") + 4 + Decimal("0.15")
    living = RunJournal(tmp_path / "d.jsonl", retries_failed=False)
    assert shards.lost_usd == Decimal("1.65")
    living.close()


def test_each_process_gets_an_equal_share_of_what_is_left(tmp_path):
    journals = [new_shard(tmp_path, name) for name in "abcd"]
    known = [Shards(tmp_path, retries_failed=False) for _ in journals]  # as nobody has a share yet
    limit = Decimal("0.9")
    shares = [
        take_share(shards, own, limit, 3) for shards, own in zip(known, journals, strict=True)
    ]
    assert shares == [Decimal("0.3")] * 3 + [0]
    for path, usd in zip(sorted(tmp_path.glob("*.jsonl")), ["0.3", "0.3", "0.3", "0"], strict=True):
        _, line = path.read_text().splitlines()
        kind, _, amount = line.rpartition(":")
        assert kind == '{"kind":"granted","usd"'
        assert Decimal(amount.strip('"}')) == Decimal(usd)
    for one in journals:
        one.close()


@pytest.mark.parametrize(
    ("worker", "names"),
    [
        ("host-12", ["host-12-0.jsonl", "host-12-1.jsonl", "host-12-2.jsonl"]),
        ("a/b c:\u00e9.1", ["a_b_c_\u00e9.1-0.jsonl", "a_b_c_\u00e9.1-1.jsonl",
                            "a_b_c_\u00e9.1-2.jsonl"]),
    ],
)  # fmt: skip
def test_a_process_has_a_new_file_each_time(tmp_path, worker, names):
    journals = [new_shard(tmp_path, worker) for _ in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert not any(one.retries_failed for one in journals)
    for one in journals:
        one.close()


def test_a_folder_is_made_with_those_above_it_or_named(tmp_path):
    folder = open_folder(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert folder.is_dir()
    assert open_folder(str(folder)) == folder
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as caught:
        open_folder(str(tmp_path / "file"))
    assert str(caught.value) == (
        f"{str(tmp_path / 'file')!r} cannot be the journal of a job (File exists): it is a folder "
        "that all processes share, with a file for each"
    )
    with pytest.raises(StorageError, match="cannot be written"):
        new_shard(tmp_path / "missing", "a")


def test_equal_rows_are_counted_in_each_part_anew(tmp_path):
    shards = shards_of(tmp_path, retries_failed=True)
    own = new_shard(tmp_path, "a")
    for _ in range(2):
        part = PartJournal(shards, own)
        assert [part.key_of(name) for name in ("x", "x", "y", "x")] == ["x", "x\t2", "y", "x\t3"]
    assert (part.spent.cost, part.maybe_paid, part.retries_failed) == (0, 0, True)
    own.close()
