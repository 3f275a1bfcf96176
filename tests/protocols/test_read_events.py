"""Many events and whole answers, usual and odd ones, and all that is read of each."""

from __future__ import annotations

import pytest
from read_events import FOLDER, WIRES, with_results


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_read_of_events_and_answers(wire):
    text = (FOLDER / f"{wire}.txt").read_text()
    assert with_results(wire, text).split("\n## ") == text.split("\n## ")
