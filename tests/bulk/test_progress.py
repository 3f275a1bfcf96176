"""The line that shows how far a run has come: at a terminal, in a notebook, in a log."""

from __future__ import annotations

import io
import sys
import types
from decimal import Decimal

import pytest
from manual_clock import Clock
from scripted_server import GENERATOR, whole

from minillmlib import Budget, BulkProgress, CostTotal, ProgressLine, map_complete, run
from minillmlib.bulk.progress import duration_words
from minillmlib.testing import ScriptedTransport


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch):
    """Puts a stream of this kind, 80 columns wide, in the place of standard error."""

    def put(kind):
        made = kind()
        monkeypatch.setattr(sys, "stderr", made)
        monkeypatch.setenv("COLUMNS", "80")
        return made

    return put


def at(secs, done=0, *, failed=0, items=100, is_over=False, from_journal=0, cost="0.5"):
    return BulkProgress(
        items=items, done=done, failed=failed, from_journal=from_journal, in_flight=0 if is_over else 7,
        width=20, elapsed_secs=secs, cost=CostTotal(cost=Decimal(cost)), is_over=is_over,
    )  # fmt: skip


def test_a_terminal_has_one_line_written_anew(stream):
    shown, line = stream(Terminal), ProgressLine()
    line(at(1, 10, failed=2))
    line(at(2, 30, failed=2))
    line(at(4, 98, failed=2, is_over=True))
    first, second, last = shown.getvalue().split("\r")[1:]
    assert first == "12/100 · 2 failed · 7 in flight of 20 · 12.0/s · $0.5 · 7 s left"
    assert second.rstrip() == "32/100 · 2 failed · 7 in flight of 20 · 16.0/s · $0.5 · 4 s left"
    assert last.endswith("\n")
    assert last.rstrip() == "100/100 · 2 failed · 25.0/s · $0.5"
    assert len(last) > len(first)  # nothing of the longer line stays
    line(at(5, 98, failed=2, is_over=True))
    assert shown.getvalue().count("\n") == 1


def test_a_narrow_terminal_gets_as_much_as_fits(stream, monkeypatch):
    shown, line = stream(Terminal), ProgressLine()
    monkeypatch.setenv("COLUMNS", "20")
    line(at(1, 10))
    assert shown.getvalue() == "\r10/100 · 7 in fligh"
    line.clear()
    assert shown.getvalue().endswith("\r" + " " * 19 + "\r")


def test_what_is_unknown_is_not_shown_and_a_budget_and_a_note_are(stream):
    shown = stream(Terminal)
    budget = Budget("5")
    budget.charge(Decimal("1.25"))
    line = ProgressLine(budget=budget)
    line.note = "stopping"
    line(at(0, items=None))
    assert shown.getvalue() == "\rstopping · 0 · 7 in flight of 20 · $1.25 of $5"
    ProgressLine(items=10)(at(60, 2, items=None))
    assert (
        shown.getvalue().split("\r")[-1]
        == "2/10 · 7 in flight of 20 · 2.0/min · $0.5 · 4 min 0 s left"
    )


def test_the_pace_is_that_of_late_and_leaves_out_the_journal(stream):
    shown, line = stream(Terminal), ProgressLine()
    for secs in range(100):
        line(
            at(
                secs,
                1000 + (secs if secs < 60 else 60 + 5 * (secs - 60)),
                items=5000,
                from_journal=1000,
            )
        )
    assert " 5.0/s " in shown.getvalue().split("\r")[-1]


def test_a_log_has_a_line_now_and_then_and_at_the_end(stream, monkeypatch):
    shown, line = stream(io.StringIO), ProgressLine()
    for secs in range(100):
        monkeypatch.setattr("time.monotonic", lambda now=line._shown_at + 1: now)
        line(at(secs, secs))
    assert shown.getvalue() == ""
    monkeypatch.setattr("time.monotonic", lambda now=line._shown_at + 31: now)
    line(at(100, 100, items=200))
    line(at(101, 200, items=200, is_over=True))
    assert shown.getvalue().count("\n") == 2
    assert "\r" not in shown.getvalue()


@pytest.fixture
def clock(monkeypatch):
    return Clock().install(monkeypatch)


@pytest.mark.parametrize(
    ("secs", "is_terminal", "words"),
    [
        (29.5, False, ""),
        (30, False, "10/100 · 7 in flight of 20 · 10.0/s · $0.5 · 9 s left\n"),
        (0, True, "\r10/100 · 7 in flight of 20 · 10.0/s · $0.5 · 9 s left"),
    ],
)
def test_a_log_has_a_line_every_half_a_minute_and_a_terminal_all(
    stream, clock, secs, is_terminal, words
):
    shown, line = stream(Terminal if is_terminal else io.StringIO), ProgressLine()
    clock.now += secs
    line(at(1, 10))
    assert shown.getvalue() == words
    clock.now += 29.5
    line(at(2, 20))
    assert (shown.getvalue() == words) == (not is_terminal and bool(words))


def test_a_log_ends_with_its_last_line(stream, clock):
    shown, line = stream(io.StringIO), ProgressLine()
    line(at(10, 10, is_over=True))
    clock.now += 100
    line(at(11, 11))
    assert shown.getvalue() == "10/100 · 1.0/s · $0.5\n"


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (at(0), "0/100 · 7 in flight of 20 · $0.5"),
        (at(5), "0/100 · 7 in flight of 20 · $0.5"),
        (at(0, 3, items=None), "3 · 7 in flight of 20 · $0.5"),
        (at(4, 3, failed=1), "4/100 · 1 failed · 7 in flight of 20 · 1.0/s · $0.5 · 1 min 36 s left"),
        (at(8, 7), "7/100 · 7 in flight of 20 · 52.5/min · $0.5 · 1 min 46 s left"),
        (at(60, 1, items=61), "1/61 · 7 in flight of 20 · 1.0/min · $0.5 · 1 h 0 min left"),
        (at(2, 9, from_journal=5), "9/100 · 7 in flight of 20 · 2.0/s · $0.5 · 46 s left"),
        (at(2, 9, from_journal=9), "9/100 · 7 in flight of 20 · $0.5"),
        (at(2, 10, items=None), "10 · 7 in flight of 20 · 5.0/s · $0.5"),
        (at(2, 10, is_over=True), "10/100 · 5.0/s · $0.5\n"),
        (at(2, 100, items=100), "100/100 · 7 in flight of 20 · 50.0/s · $0.5 · 0 s left"),
    ],
)  # fmt: skip
def test_each_figure_is_shown_if_it_is_known(stream, progress, words):
    shown = stream(Terminal)
    ProgressLine()(progress)
    assert shown.getvalue() == f"\r{words}"


@pytest.mark.parametrize(("last", "pace"), [(39.9, "6.5/s"), (40, "5.3/s"), (49, "4.1/s")])
def test_the_pace_is_that_of_half_a_minute_or_a_little_more(stream, last, pace):
    shown, line = stream(Terminal), ProgressLine(items=1000)
    for secs, done in ((10, 100), (20, 110), (last, 260)):
        line(at(secs, done, items=None))
    assert f" · {pace} · " in shown.getvalue().split("\r")[-1]


def test_a_given_number_of_items_counts_only_where_the_run_knows_none(stream):
    shown = stream(Terminal)
    ProgressLine(items=7)(at(0, 1, items=9))
    ProgressLine(items=7)(at(0, 1, items=None))
    first, second = shown.getvalue().split("\r")[1:]
    assert first.startswith("1/9 ")
    assert second.startswith("1/7 ")


def test_a_line_that_was_longer_is_written_over_up_to_the_width_of_the_terminal(
    stream, monkeypatch
):
    shown, line = stream(Terminal), ProgressLine()
    line.clear()
    assert shown.getvalue() == ""
    line.note = "a note"
    line(at(0))
    line.note = ""
    line(at(0))
    line(at(0))
    long, padded, plain = shown.getvalue().split("\r")[1:]
    assert long == "a note · 0/100 · 7 in flight of 20 · $0.5"
    assert padded == plain + " " * len("a note · ")
    monkeypatch.setenv("COLUMNS", "11")
    line(at(0))
    line.clear()
    assert shown.getvalue().split("\r")[4:] == ["0/100 · 7 ", " " * 10, ""]
    line(at(0, is_over=True))
    line.clear()
    assert shown.getvalue().endswith("\r0/100 · $0\n")


@pytest.mark.parametrize(
    ("secs", "words"),
    [
        (0, "0 s"), (0.4, "0 s"), (0.6, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (61, "1 min 1 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min"), (3660, "1 h 1 min"),
        (7325, "2 h 2 min"), (90061, "25 h 1 min"),
    ],
)  # fmt: skip
def test_a_time_is_told_in_its_two_largest_units(secs, words):
    assert duration_words(secs) == words


def test_a_notebook_has_one_output_that_changes_twice_a_second(stream, clock, monkeypatch):
    shown, outputs = stream(io.StringIO), []

    class Output(list):
        def update(self, content, *, raw):
            assert raw
            self.append(content["text/plain"])

    def display(content, *, raw, display_id):
        assert (raw, display_id) == (True, True)
        outputs.append(Output([content["text/plain"]]))
        return outputs[-1]

    module = types.ModuleType("IPython.display")
    module.display = display
    for name in ("ipykernel", "IPython"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    line = ProgressLine()
    for secs, done in ((0.49, 5), (0.01, 10), (0.49, 15), (0.01, 20), (0.01, 25)):
        clock.now += secs
        line(at(1, done))
    line(at(2, 100, is_over=True))
    line(at(2, 101, is_over=True))
    assert [[text.split(" ")[0] for text in one] for one in outputs] == [
        ["10/100", "20/100", "100/100"]
    ]
    assert shown.getvalue() == ""


def test_it_follows_a_run(stream):
    shown = stream(Terminal)
    transport = ScriptedTransport([whole("x")] * 5)
    generator = GENERATOR.with_transport(transport)
    run(map_complete(["a"] * 5, generator, on_progress=ProgressLine()).collect())
    assert shown.getvalue().endswith("\n")
    assert shown.getvalue().count("\n") == 1
    assert "5/5" in shown.getvalue().split("\r")[-1]
