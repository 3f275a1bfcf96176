"""The line that shows how far a run has come: at a terminal, in a notebook, in a log."""

from __future__ import annotations

import io
import sys
import types
from decimal import Decimal

import pytest
from scripted_server import GENERATOR, whole

from minillmlib import Budget, BulkProgress, CostTotal, ProgressLine, map_complete, run
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


def test_a_notebook_has_one_output(stream, monkeypatch):
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
    line._shown_at -= 10
    line(at(1, 10))
    line(at(2, 100, is_over=True))
    assert [[text.split(" ")[0] for text in one] for one in outputs] == [["10/100", "100/100"]]
    assert shown.getvalue() == ""


def test_it_follows_a_run(stream):
    shown = stream(Terminal)
    transport = ScriptedTransport([whole("x")] * 5)
    generator = GENERATOR.with_transport(transport)
    run(map_complete(["a"] * 5, generator, on_progress=ProgressLine()).collect())
    assert shown.getvalue().endswith("\n")
    assert shown.getvalue().count("\n") == 1
    assert "5/5" in shown.getvalue().split("\r")[-1]
