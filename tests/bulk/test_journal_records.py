"""The lines of a journal, whole; what they sum up to; and when they are on the disk."""

from __future__ import annotations

import os
from collections import Counter
from decimal import Decimal

import msgspec
import pytest
from manual_clock import Clock
from run_records import attempt, done, failed, write_journal
from system_words import null_byte_words

from minillmlib import (
    AuthenticationError,
    BadRequestError,
    BillingError,
    BudgetExceededError,
    BulkOutcome,
    ChatNode,
    ConnectError,
    CostOutcome,
    InvalidParameterError,
    MaxRetriesExceededError,
    Message,
    MiniLLMError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    StorageError,
)
from minillmlib.bulk.journal import (
    GrantedRecord,
    Ledger,
    RunJournal,
    SentRecord,
    SubmittedRecord,
    SubmittingRecord,
    Turn,
    decode_record,
    next_key,
    read_records,
)
from minillmlib.bulk.outcome import is_final, last_error

HEADER = b'{"kind":"minillmlib run","version":1}\n'
UNKNOWN = CostOutcome.unknown()
PART = SubmittingRecord(part="p", url="https://t.example", sent_at=7.5, keys=("a", "b", "c"))
FULL = SubmittingRecord(
    part="q", url="u", sent_at=8.5, keys=("d", "e"), ceilings=(Decimal("0.1"), Decimal("0.2")),
    attempts=((), (attempt(0, 1), attempt(1, 1))),
)  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    return Clock().install(monkeypatch)


@pytest.fixture
def syncs(monkeypatch):
    """The sizes that the journal had each time when it was written to the disk."""
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    return sizes


def journal_at(path, **settings) -> RunJournal:
    return RunJournal(path, **{"retries_failed": False} | settings)


def test_each_event_is_a_line(tmp_path, clock):
    journal = journal_at(tmp_path / "j")
    response = done("x", attempt(0, 1)).turns[0].response
    journal.record_sent("k", None, 1)
    journal.record_sent("k", Decimal("0.10"), 2)
    journal.record_done("k", 3, (Turn(response=response),
                                 Turn(message=Message.tool_result("c", "5"))))  # fmt: skip
    error = BadRequestError("no \ud800", status=400)
    error.attempts = (attempt(0, 1, 400, "BadRequestError"),)
    journal.record_failed("f", 4, error)
    journal.record_failed("g", 5, ConnectError("nobody"))
    journal.record_batch(PART)
    journal.record_batch(SubmittedRecord(part="p", batch="b"))
    journal.record_batch(SubmittedRecord(part="p", batch="b", is_certain=False))
    journal.record_grant(Decimal("0.5"))
    journal.record_grant(Decimal("0.6"), is_lease=True)
    journal.close()
    header, sent, again, good, bad, lost, *rest = (
        (tmp_path / "j").read_bytes().splitlines(keepends=True)
    )
    assert header == HEADER
    assert sent == b'{"kind":"sent","key":"k"}\n'
    assert again == b'{"kind":"sent","key":"k","ceiling":"0.10","turn":2}\n'
    assert good.startswith(
        b'{"kind":"done","key":"k","index":3,"turns":[{"response":{"model":"m-1"'
    )
    assert good.endswith(b',{"message":{"role":"tool","content":"5","tool_call_id":"c"}}]}\n')
    assert bad.startswith(
        b'{"kind":"failed","key":"f","index":4,"error":"BadRequestError",'
        b'"text":"no \xef\xbf\xbd","is_final":true,"attempts":[{"number":1,'
    )
    assert lost == (
        b'{"kind":"failed","key":"g","index":5,"error":"ConnectError","text":"nobody",'
        b'"is_final":false}\n'
    )
    assert rest == [
        b'{"kind":"submitting","part":"p","url":"https://t.example","sent_at":7.5,'
        b'"keys":["a","b","c"]}\n',
        b'{"kind":"submitted","part":"p","batch":"b"}\n',
        b'{"kind":"submitted","part":"p","batch":"b","is_certain":false}\n',
        b'{"kind":"granted","usd":"0.5"}\n',
        b'{"kind":"granted","usd":"0.6","is_lease":true}\n',
    ]
    kinds = [type(record).__name__ for record in read_records(tmp_path / "j")]
    assert kinds == [
        "HeaderRecord", "SentRecord", "SentRecord", "DoneRecord", "FailedRecord", "FailedRecord",
        "SubmittingRecord", "SubmittedRecord", "SubmittedRecord", "GrantedRecord", "GrantedRecord",
    ]  # fmt: skip


def test_lines_are_on_the_disk_five_times_a_second_and_what_is_urgent_at_once(
    tmp_path, clock, syncs
):
    journal = journal_at(tmp_path / "j")
    assert syncs == [len(HEADER)]

    def is_synced(write) -> bool:
        before = len(syncs)
        write()
        return len(syncs) > before and syncs[-1] == (tmp_path / "j").stat().st_size

    def send() -> None:
        journal.record_sent("k", None, 1)

    assert not is_synced(send)
    clock.now += 0.19
    assert not is_synced(send)
    clock.now += 0.011
    assert is_synced(send)
    assert not is_synced(send)
    assert is_synced(lambda: journal.record_batch(PART))
    assert is_synced(lambda: journal.record_grant(Decimal(1)))
    assert not is_synced(lambda: journal.record_grant(Decimal(1), is_lease=True))
    assert not is_synced(lambda: journal.record_failed("f", 0, MiniLLMError("no")))
    assert not is_synced(lambda: journal.record_done("d", 0, done("d").turns))
    assert is_synced(journal.flush)
    assert is_synced(journal.close)
    assert not is_synced(journal.close)
    assert not is_synced(journal.flush)


def sent(key: str, ceiling: str | None = None, turn: int = 1) -> SentRecord:
    return SentRecord(key=key, ceiling=None if ceiling is None else Decimal(ceiling), turn=turn)


LOST = done("a", attempt(0, 1), attempt(1, 1, cost=UNKNOWN))


@pytest.mark.parametrize(
    ("records", "spent", "unknown", "maybe_paid", "most"),
    [
        ([], "0", 0, 0, "0"),
        ([sent("a")], "0", 0, 1, "0"),
        ([sent("a", "0.5")], "0", 0, 1, "0.5"),
        ([sent("a", "0.5"), sent("a", "0.4", 2)], "0", 0, 2, "0.9"),
        ([sent("a", "0.5"), sent("a", "0.4"), sent("b", "0.1")], "0", 0, 3, "1.0"),
        ([sent("a", "0.5", 2)], "0", 0, 1, "0.5"),
        ([sent("a", "0.5"), done("a", attempt(0, 1))], "0.25", 0, 0, "0.25"),
        ([sent("a", "0.5"), LOST], "0.25", 1, 0, "0.5"),
        ([sent("a", "0.1"), LOST], "0.25", 1, 0, "0.25"),
        ([LOST], "0.25", 1, 0, "0.25"),
        ([sent("a", "0.5"), sent("a", "0.4", 2), LOST], "0.25", 1, 0, "0.9"),
        ([sent("a", "0.5"), sent("a", "0.4"), LOST], "0.25", 1, 1, "0.9"),
        ([sent("a", "0.5"), sent("a", "0.4"), LOST, LOST], "0.50", 2, 0, "0.9"),
        ([sent("a", "0.5"), sent("a", "0.4"), LOST, LOST, LOST], "0.75", 3, 0, "1.15"),
        ([sent("a", "0.5"), sent("b", "0.4"), failed("a")], "0", 0, 1, "0.4"),
        ([sent("a", "0.5"), failed("a"), sent("a", "0.3")], "0", 0, 1, "0.3"),
    ],
)  # fmt: skip
def test_a_ledger_sums_up_what_was_paid_and_what_may_have_been(
    records, spent, unknown, maybe_paid, most, tmp_path
):
    ledger = Ledger()
    for record in records:
        (ledger.note_sent if isinstance(record, SentRecord) else ledger.note_end)(record)
    assert (str(ledger.spent.cost), ledger.spent.unknown) == (spent, unknown)
    assert (ledger.maybe_paid, ledger.max_cost) == (maybe_paid, Decimal(most))
    journal = journal_at(write_journal(tmp_path / "j", *records))
    assert (journal.spent, journal.maybe_paid) == (ledger.spent, maybe_paid)
    assert (journal.committed, journal.open_rows, journal.batches) == (Decimal(most), {}, set())
    journal.close()


def test_what_was_in_flight_before_a_batch_is_lost():
    ledger = Ledger()
    for record in (sent("a", "0.5"), sent("a", "0.2"), sent("b", "0.3"), sent("c", "0.1")):
        ledger.note_sent(record)
    ledger.note_submitted(("a", "b", "d"))
    assert (ledger.maybe_paid, ledger.max_cost) == (4, Decimal("1.1"))
    ledger.note_end(done("a", attempt(0, 1)))
    assert (ledger.maybe_paid, ledger.max_cost) == (4, Decimal("1.35"))


def test_the_rows_of_batches_are_open_until_they_end(tmp_path):
    guess = SubmittedRecord(part="p", batch="guess", is_certain=False)
    sure, last = SubmittedRecord(part="p", batch="sure"), SubmittedRecord(part="q", batch="last")
    path = write_journal(
        tmp_path / "j", sent("a", "0.5"), PART, guess, sure, FULL, last,
        failed("b"), sent("z", "0.4"),
    )  # fmt: skip
    journal = journal_at(path)
    rows = journal.open_rows
    assert {key: (row.place, row.ceiling, len(row.attempts)) for key, row in rows.items()} == {
        "a": (0, None, 0), "c": (2, None, 0), "d": (0, Decimal("0.1"), 0),
        "e": (1, Decimal("0.2"), 2),
    }  # fmt: skip
    assert rows["a"].part is rows["c"].part
    assert (rows["a"].part.record, rows["a"].part.batches) == (PART, [guess, sure])
    assert (rows["e"].part.record, rows["e"].part.batches) == (FULL, [last])
    assert journal.batches == {"sure", "last"}
    assert (journal.maybe_paid, journal.committed) == (2, Decimal("0.9") + Decimal("0.5"))
    with pytest.raises(InvalidParameterError) as caught:
        journal.check_no_batches()
    assert str(caught.value) == (
        "4 items of this journal are in batches whose results were not fetched yet: run it with "
        "batch=True, or name another journal"
    )
    journal.close()
    ends = [failed("a"), done("b", attempt(0, 1)), failed("c")]
    again = journal_at(write_journal(tmp_path / "k", PART, *ends))
    again.check_no_batches()
    again.close()


@pytest.mark.parametrize("retries_failed", [True, False])
def test_what_has_ended_is_found_by_its_key(tmp_path, retries_failed):
    answer, passing = done("a", attempt(0, 1)), failed("p", error="ReadError")
    path = write_journal(
        tmp_path / "j", answer, failed("f"), failed("g"), done("g", attempt(0, 1)),
        done("h", attempt(0, 1)), failed("h"), sent("s"),
    )  # fmt: skip
    with path.open("ab") as file:
        file.write(b'{"kind":"failed","key":"p","index":0,"error":"ReadError","text":"",'
                   b'"is_final":false}\n')  # fmt: skip
    journal = journal_at(path, retries_failed=retries_failed)
    found = {key: journal.find(key) for key in "afghpsx"}
    assert found["a"] == answer
    assert {key: type(record).__name__ for key, record in found.items() if record is not None} == {
        "a": "DoneRecord", "g": "DoneRecord",
        **({} if retries_failed else {"f": "FailedRecord", "h": "FailedRecord"}),
    }  # fmt: skip
    assert passing.is_final
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"key":"a"', b'"key":"b"'))
    with pytest.raises(StorageError) as caught:
        journal.find("a")
    assert str(caught.value) == (
        f"{str(path)!r} was changed by another program during the run; run it again"
    )
    path.write_bytes(b"x" * len(data))
    with pytest.raises(StorageError, match="was changed by another program"):
        journal.find("g")
    journal.close()
    assert journal.find("a") is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"kind":"sent"}', "line 2 is no record of a run (Object missing required field `key`)"),
        (b'{"kind":"done","key":"a","index":0,"turns":[]}',
         "line 2 is no record of a run (an item that was answered has no answer)"),
        (b'{"kind":"done","key":"a","index":0,"turns":[{}]}',
         "line 2 is no record of a run (an item that was answered has no answer)"),
        (b'{"kind":"granted","usd":"-1"}', "line 2 is no record of a run (a share must be an amount "
         "of USD, finite and not negative, not Decimal('-1'))"),
        (b'{"kind":"sent","key":"a","ceiling":"-1"}', "line 2 is no record of a run (a maximum cost "
         "must be an amount of USD, finite and not negative, not Decimal('-1'))"),
        (b'{"kind":"submitting","part":"p","url":"u","sent_at":0,"keys":["a"],"ceilings":["1","2"]}',
         "line 2 is no record of a run (a part has another number of rows than of facts about them)"),
        (b'{"kind":"submitting","part":"p","url":"u","sent_at":0,"keys":["a"],"attempts":[[],[]]}',
         "line 2 is no record of a run (a part has another number of rows than of facts about them)"),
        (HEADER[:-1], "line 2 does not belong there: this is no journal of this version (1)"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_named(tmp_path, line, problem):
    path = tmp_path / "j"
    path.write_bytes(HEADER + line + b"\n")
    with pytest.raises(StorageError) as caught:
        journal_at(path)
    text = str(caught.value)
    if "no record" in problem:
        problem += "; the journal of a run is written by map_complete only: name another file"
    assert text == f"{str(path)!r}: {problem}"


def test_a_part_that_nobody_submitted_has_no_batch(tmp_path):
    path = write_journal(tmp_path / "j", SubmittedRecord(part="x", batch="b"))
    with pytest.raises(StorageError) as caught:
        journal_at(path)
    assert str(caught.value) == f"{str(path)!r} names a part that was not submitted"


def test_a_line_that_a_crash_cut_is_cut_off_and_the_next_one_stands_alone(tmp_path, clock):
    path = write_journal(tmp_path / "j", sent("a"), end=b'{"kind":"se')
    journal = journal_at(path)
    journal.record_sent("b", None, 1)
    journal.close()
    assert path.read_bytes() == (HEADER + b'{"kind":"sent","key":"a"}\n{"kind":"sent","key":"b"}\n')


def test_a_journal_in_use_is_refused_by_its_name(tmp_path):
    journal = journal_at(tmp_path / "j")
    with pytest.raises(StorageError) as caught:
        journal_at(tmp_path / "j")
    assert str(caught.value) == (
        f"{str(tmp_path / 'j')!r} is the journal of a run that is still going on; wait for it, or "
        "name another file"
    )
    journal.close()
    journal_at(tmp_path / "j").close()


def test_a_file_that_is_none_is_refused_with_the_reason(tmp_path):
    for path, reason in (
        (tmp_path, "Is a directory"), (tmp_path / "no" / "j", "No such file or directory"),
        ("a\0", null_byte_words()),
    ):  # fmt: skip
        with pytest.raises(StorageError) as caught:
            journal_at(path)
        assert str(caught.value) == f"{str(path)!r} cannot be used as a journal ({reason})"


def test_names_are_counted_from_the_second_on():
    counts = Counter()
    keys = [next_key(name, counts) for name in ("a", "b", "a", "a", "b")]
    assert keys == ["a", "b", "a\t2", "a\t3", "b\t2"]


def test_records_are_what_they_were():
    for record in (PART, FULL, GrantedRecord(usd=Decimal(1), is_lease=True), sent("a", "0.1", 2)):
        assert decode_record(msgspec.json.encode(record)) == record


# Outcomes.


def exceeded(last: MiniLLMError) -> MaxRetriesExceededError:
    return MaxRetriesExceededError("all failed", last_error=last)


STOPPING = [AuthenticationError, BillingError, NotFoundError, PermissionDeniedError]


@pytest.mark.parametrize(
    ("error", "will_fail_again"),
    [
        *((kind("no", status=400), False) for kind in STOPPING),
        (BudgetExceededError("spent"), False), (BadRequestError("no", status=400), True),
        (RateLimitError("slow", status=429), False), (ConnectError("nobody"), False),
        (InvalidParameterError("wrong"), True),
    ],
)  # fmt: skip
def test_an_error_is_final_if_the_same_item_would_meet_it_again(error, will_fail_again):
    assert is_final(error) is will_fail_again
    assert is_final(exceeded(error)) is will_fail_again
    assert last_error(error) is error
    assert last_error(exceeded(error)) is error


def test_an_error_comes_back_from_the_journal_as_it_was():
    record = failed("a", attempt(0, 1, 400, "X"), text="no", error="BadRequestError")
    error = record.to_error()
    assert (type(error), str(error), error.attempts) == (BadRequestError, "no", record.attempts)
    for unknown in ("KeyError", "annotations", "Enum", "x" * 99):
        with pytest.raises(StorageError) as caught:
            failed("a", error=unknown).to_error()
        assert str(caught.value) == f"the journal has an unknown error, {unknown!r:.80}"


def test_an_outcome_is_what_came_of_its_node():
    node = ChatNode.root().add_user("a")
    answer = node.add_assistant("b")
    outcome = BulkOutcome(index=3, node=answer, attempts=(attempt(0, 1), attempt(1, 1)))
    assert (outcome.text, outcome.cost.cost, outcome.key) == ("b", Decimal("0.50"), "")
    assert (outcome.error, outcome.is_from_journal) == (None, False)
    with pytest.raises(InvalidParameterError) as caught:
        _ = outcome.parsed
    assert str(caught.value) == (
        "only with params of expecting() does an outcome have a parsed value"
    )
    lost = BulkOutcome(index=0, error=BadRequestError("no", status=400))
    assert (lost.text, lost.node, lost.attempts, lost.cost.cost) == (None, None, (), 0)
    with pytest.raises(BadRequestError):
        _ = lost.parsed
