"""The page of a journal, whole, and what its plots and its tables have where."""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Decimal

import pytest
from run_records import attempt, done, failed, write_journal

from golden import GOLDEN
from minillmlib import AttemptOutcome, CostOutcome, StorageError
from minillmlib.bulk.journal import GrantedRecord, SentRecord
from minillmlib.bulk.report import run_report

UNKNOWN = CostOutcome.unknown()
# Three bursts: a busy one, one that begins exactly a minute after it, which is no pause, and one
# after an hour.
RECORDS = [
    SentRecord(key="a"),
    done("a", attempt(0, 1)),
    SentRecord(key="b"),
    done("b", attempt(0.5, 0.25, 429, "RateLimitError"), attempt(1, 4, model="m-2")),
    SentRecord(key="c"),
    failed("c", attempt(2, 0.1, 400, "BadRequestError"), text="The first <text>."),
    SentRecord(key="d"),
    failed("d", attempt(3, 0.1, 400, "BadRequestError"), text="The second text."),
    failed("e", attempt(3, 0.5, 503, "ServerError"), attempt(4, 3, 529, "OverloadedError"),
           text="Overloaded."),
    failed("f", text="Nothing was sent.", error="BudgetExceededError"),
    failed("g", attempt(5, 7, None, "ReadError", cost=UNKNOWN), text="Cut."),
    failed("h", attempt(6, 2, 200, "NoJsonFoundError", outcome=AttemptOutcome.REJECTED),
           text="No JSON."),
    failed("i", attempt(6, 1, 500, outcome=AttemptOutcome.DENIED), error="Named", text="Of the run."),
    SentRecord(key="j"),
    SentRecord(key="j", turn=2),
    done("j", attempt(7, 2), attempt(9.5, 1.5)),
    GrantedRecord(usd=Decimal(1)),
    SentRecord(key="killed"),
    SentRecord(key="killed", turn=2),
    SentRecord(key="killed"),
    done("k", attempt(71, 0)),
    done("l", attempt(72, 3, model="m-3"), attempt(76, 3, model="m-3")),
    done("m", attempt(3700, 9, model="m-4"), attempt(3709.5, 0.25)),
    SentRecord(key="lost"),
]  # fmt: skip


def body_of(*records, folder) -> str:
    page = run_report(write_journal(folder / "a & b", *records))
    return page[page.index("<body>") : page.index("</body>")]


def test_the_page_of_a_run_is_as_it_was(tmp_path):
    assert body_of(*RECORDS, folder=tmp_path) == (GOLDEN / "bulk" / "run_report.html").read_text()


def test_the_policy_of_the_page_permits_its_style_and_nothing_else(tmp_path):
    page = run_report(write_journal(tmp_path / "a & b", *RECORDS))
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert re.findall("%%.*?%%", page) == []
    assert "<title>a &amp; b" in page


def facts_in(body: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", body))


def test_the_requests_of_a_killed_run_count_until_its_item_ends(tmp_path):
    sent = [SentRecord(key="a"), SentRecord(key="a", turn=2), SentRecord(key="b")]
    for records, count in (
        (sent, "3"),
        ([*sent, SentRecord(key="a")], "4"),
        ([*sent, SentRecord(key="a"), done("a", attempt(0, 1))], "3"),
        ([*sent, done("a", attempt(0, 1))], "1"),
        ([*sent, done("a", attempt(0, 1)), failed("b")], None),
    ):
        facts = facts_in(body_of(*records, folder=tmp_path))
        assert facts.get("in flight when a run ended") == count


def test_the_three_models_that_were_asked_most_are_named(tmp_path):
    models = ["m-1", "m-2", "m-2", "m-3", "m-3", "m-3", "m-4", "m-4", "x" * 70] * 2
    records = [done(str(n), attempt(n, 1, model=model)) for n, model in enumerate(models)]
    body = body_of(*records, done("l", attempt(9, 1, model="y" * 70)), folder=tmp_path)
    assert re.findall("<dt>model</dt><dd>(.*?)</dd>", body) == ["m-3", "m-2", "m-4"]
    body = body_of(done("l", attempt(9, 1, model="y" * 70)), folder=tmp_path)
    assert re.findall("<dt>model</dt><dd>(.*?)</dd>", body) == ["y" * 60 + "&#8230;"]


def rows_in(body: str) -> list[list[str]]:
    rows = re.findall("<tr>(<td>.*?)</tr>", body)
    return [re.findall("<td>(.*?)</td>", row) for row in rows]


def test_the_table_has_the_twenty_errors_that_ended_most_items(tmp_path):
    records = []
    for number in range(25):
        name = f"Error{number:02}"
        records += [
            failed(f"{name} {item}", attempt(item, 1, 400, name), text=f"{name} {item}")
            for item in range(1 + number % 3)
        ]
    busy = done("x", *(attempt(n, 1, 400, "Error03") for n in range(3)), attempt(9, 1))
    rows = rows_in(body_of(*records, busy, folder=tmp_path))
    twice = [f"Error{number:02}" for number in range(1, 25, 3)]
    thrice = [f"Error{number:02}" for number in range(2, 25, 3)]
    once = ["Error03", "Error00", "Error06", "Error09"]
    assert [row[0] for row in rows] == [f"{name} (400)" for name in (*thrice, *twice, *once)]
    assert [row[1] for row in rows] == ["3"] * 8 + ["2"] * 8 + ["1"] * 4
    assert rows[0] == ["Error02 (400)", "3", "3", "Error02 0"]
    assert rows[16] == ["Error03 (400)", "1", "4", "Error03 0"]


def test_a_long_text_of_an_error_is_shortened(tmp_path):
    (row,) = rows_in(body_of(failed("a", text="x" * 400), folder=tmp_path))
    assert row[3] == "x" * 300 + "&#8230;"


@pytest.mark.parametrize(
    ("records", "plots"),
    [
        ([failed("a", attempt(0, 1, 400, "E"))], ["Throughput", "Width"]),
        ([failed("a", attempt(0, 1, 400, "E", cost=attempt(0, 1).cost))],
         ["Throughput", "Width", "Cost"]),
        ([done("a", attempt(0, 1, cost=UNKNOWN))], ["Throughput", "Width", "Latency"]),
        ([done("a", attempt(0, 1))], ["Throughput", "Width", "Latency", "Cost"]),
        ([failed("a")], []),
    ],
)  # fmt: skip
def test_a_plot_is_there_if_it_has_something_to_show(tmp_path, records, plots):
    body = body_of(*records, folder=tmp_path)
    assert re.findall("<h2>(.*?)</h2>", body) == [*plots, "Errors"]
    assert ("Nothing was asked yet." in body) == (not plots)
    assert ("No request failed." in body) == (type(records[0]).__name__ == "DoneRecord")


@pytest.mark.parametrize(
    ("gaps", "time", "pauses"),
    [
        ([60.0], "1 min 2 s", []),
        ([61.0], "2 s", ["1 min 1 s"]),
        ([61.0, 59.0, 3600.0], "1 min 3 s", ["1 min 1 s", "1 h 0 min"]),
    ],
)
def test_a_pause_is_more_than_a_minute_without_a_request(tmp_path, gaps, time, pauses):
    moment, records = 0.0, [done("a", attempt(0, 1), attempt(0, 0.5))]
    for number, gap in enumerate(gaps):
        moment += 1 + gap
        records.append(done(str(number), attempt(moment, 1)))
    body = body_of(*records, folder=tmp_path)
    assert facts_in(body)["time"] == time
    shown = re.findall("<title>a pause of (.*?)</title>", body)
    assert shown == pauses * body.count("<svg")


@pytest.mark.parametrize(
    "wrong", [{"started_at": -1.0}, {"started_at": 1.1e11}, {"elapsed_secs": 1.1e11}]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_moment_that_is_none_is_refused(tmp_path, wrong, place):
    attempts = [attempt(0, 1), attempt(0, 1)]
    attempts[place] = attempt(0, 1, **wrong)
    with pytest.raises(StorageError) as caught:
        body_of(done("a", *attempts), folder=tmp_path)
    assert str(caught.value) == "the journal has a request at an impossible time"


@pytest.mark.parametrize(
    "bound", [{"started_at": 0.0}, {"started_at": 1e11}, {"elapsed_secs": 0.0}]
)
def test_the_first_and_the_last_moment_are_some(tmp_path, bound):
    assert "<h2>Width</h2>" in body_of(done("a", attempt(0, 1, **bound)), folder=tmp_path)
