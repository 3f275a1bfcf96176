"""`minillmlib report`: the journal of a run as a page that needs nothing and believes nobody."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import browser as chromium
import pytest
from cli_program import HOSTILE, run
from run_records import attempt, done, failed, write_journal

from minillmlib import CostOutcome, StorageError, Usage
from minillmlib.bulk.journal import SentRecord
from minillmlib.bulk.report import percentile, run_report

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")


@pytest.fixture
def journal(tmp_path):
    """Writes records as a journal, with a last line that a crash left."""
    return partial(write_journal, tmp_path / "run.journal", end=b'{"kind": "do')


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen, self.facts, self._tag, self._name = [], {}, "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, sorted(name for name, _ in attributes)))
        self._tag = tag

    def handle_data(self, data):
        if self._tag == "dt":
            self._name = data
        elif self._tag == "dd":
            self.facts[self._name] = data
        self._tag = ""


def facts_of(path: Path) -> dict[str, str]:
    return Elements(run_report(path)).facts


def test_the_page_sums_up_what_was_asked_and_what_came_of_it(journal):
    path = journal(
        SentRecord(key="a"), done("a", attempt(0, 1)),
        SentRecord(key="b"), failed("b", attempt(0, 2, 400, "BadRequestError")),
        SentRecord(key="c"), done("c", attempt(1, 0.1, 429, "RateLimitError"), attempt(2, 8)),
        SentRecord(key="lost"),
    )  # fmt: skip
    assert facts_of(path) == {
        "items": "3", "answered": "2", "failed": "1", "requests": "4", "time": "10 s",
        "answers per second": "0.2", "cost": "$0.5", "tokens in": "20", "tokens out": "4",
        "in flight when a run ended": "1", "model": "m-1",
    }  # fmt: skip
    page = run_report(path)
    assert re.search(r"<td>BadRequestError \(400\)</td><td>1</td><td>1</td><td>no</td>", page)
    assert re.search(r"<td>RateLimitError \(429\)</td><td>0</td><td>1</td><td></td>", page)
    assert "p50 1 s, p90 8 s" in page


@pytest.mark.parametrize(
    ("cost", "shown"),
    [("0.25", "$0.25"), ("1234.56789", "$1234.5679"), ("0.0000123456", "$0.00001235"),
     ("0.0010004", "$0.001"), ("0.0012349", "$0.001235"), ("12", "$12")],
)  # fmt: skip
def test_a_cost_is_shown_with_four_places_and_four_digits_at_least(cost, shown, journal):
    outcome = CostOutcome.resolved(Decimal(cost), Usage(uncached_input_tokens=1))
    path = journal(SentRecord(key="a"), done("a", attempt(0, 1, cost=outcome)))
    assert facts_of(path)["cost"] == shown


def test_the_latency_is_told_in_percentiles_up_to_the_longest(journal):
    page = run_report(journal(*(done(str(n), attempt(n, n)) for n in range(1, 201))))
    assert "p50 100 s, p90 180 s, p95 190 s, p99 198 s, max 200 s" in page


def test_an_item_counts_as_it_ended_last(journal):
    path = journal(
        SentRecord(key="a"), failed("a", attempt(0, 1, 500, "ServerError")),
        SentRecord(key="a"), done("a", attempt(3, 1)),
    )  # fmt: skip
    facts = facts_of(path)
    assert (facts["items"], facts["answered"], facts["failed"]) == ("1", "1", "0")


def test_a_pause_between_two_runs_is_left_out_and_marked(journal):
    page = run_report(journal(done("a", attempt(0, 10)), done("b", attempt(3610, 10))))
    assert Elements(page).facts["time"] == "20 s"
    assert "a pause of 1 h 0 min" in page


def test_an_unknown_cost_is_at_least(journal):
    path = journal(done("a", attempt(0, 1), attempt(1, 1, cost=CostOutcome.unknown())))
    assert facts_of(path)["cost"] == "at least $0.25"


def test_a_journal_without_an_item_is_a_page(journal, tmp_path):
    assert "Nothing was asked yet" in run_report(journal())
    (tmp_path / "empty").write_bytes(b"")
    assert "Nothing was asked yet" in run_report(tmp_path / "empty")


def test_nothing_of_a_server_becomes_markup(journal):
    texts = [f"</td><script>x</script>{HOSTILE}\ud800", "<img src=x onerror=y>&\"'", "%%FACTS%%"]
    plain = run_report(journal(*(failed(str(n), attempt(0, 1, 400, "E")) for n in range(3))))
    odd = run_report(
        journal(*(
            failed(str(n), attempt(0, 1, 400, "E", model=text), text=text)
            for n, text in enumerate(texts)
        ))
    )  # fmt: skip
    kinds = {json.dumps(one) for one in Elements(odd).seen}
    assert kinds == {json.dumps(one) for one in Elements(plain).seen}
    assert odd.isascii()
    assert not {tag for tag, _ in Elements(odd).seen} & {"script", "img", "a", "link"}
    assert "default-src 'none'" in odd


def test_a_page_of_a_long_run_is_small(journal):
    records = [done(str(n), attempt(n / 10, 1 + n % 7)) for n in range(20_000)]
    assert len(run_report(journal(*records))) < 25_000


@pytest.mark.parametrize("changes", [{"started_at": 1e300}, {"elapsed_secs": -1.0}])
def test_an_impossible_time_is_an_error(journal, changes):
    with pytest.raises(StorageError, match="impossible time"):
        run_report(journal(done("a", attempt(0, 1, **changes))))


@pytest.mark.parametrize(
    ("count", "percent", "value"),
    [(1, 50, 1), (2, 50, 1), (100, 95, 95), (100, 100, 100), (3, 99, 3), (10, 90, 9)],
)
def test_a_percentile_is_the_smallest_value_that_is_enough(count, percent, value):
    assert percentile(range(1, count + 1), percent) == value


def test_the_command_writes_the_page_beside_the_journal_and_spares_other_files(service, tmp_path):
    (tmp_path / "in.txt").write_text("fail\nOslo\n")
    run(service, "run", str(tmp_path / "in.txt"), "--price", "1,5")
    path = tmp_path / "in.txt.journal"
    page = tmp_path / "in.txt.html"
    assert run(service, "report", str(path)) == (0, f"{page}\n", "")
    facts = Elements(page.read_text()).facts
    assert (facts["answered"], facts["failed"], facts["cost"]) == ("1", "1", "$0.000067")
    assert ">$0.000067</text>" in page.read_text()
    assert run(service, "report", str(path))[0] == 0
    page.write_text("mine")
    code, _, err = run(service, "report", str(path))
    assert (code, "--force" in err, page.read_text()) == (2, True, "mine")
    code, out, err = run(service, "report", str(tmp_path / "in.txt"))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: [^\n]*line 1 is no record of a run[^\n]*\n", err)
    assert "map_complete" not in err


@pytest.mark.long
@pytest.mark.skipif(chromium.why_not() is not None, reason=str(chromium.why_not()))
def test_a_browser_shows_the_plots_and_fetches_nothing(journal, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(run_report(journal(*(done(str(n), attempt(n, 2)) for n in range(50)))))
    with chromium.browsing() as window:
        colours = set()
        for dark in (False, True):
            window.look(1200, 900, dark=dark)
            window.open(page)
            window.settle()
            assert [u for u in window.requests() if not u.startswith(("file:", "about:"))] == []
            script = """const paths = [...document.querySelectorAll("svg path[class='plain']")];
                return [paths.map(path => path.getBBox().height),
                        getComputedStyle(paths[0]).stroke, getComputedStyle(document.body).color]"""
            heights, stroke, ink = window.run(script)
            assert len(heights) == 2
            assert min(heights) > 50
            colours.add((stroke, ink))
        assert len(colours) == 2
