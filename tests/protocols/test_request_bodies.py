"""The whole bodies of many requests: every kind of content, and every parameter."""

from __future__ import annotations

import pytest
from request_bodies import FOLDER, WIRES, bodies


@pytest.mark.parametrize("wire", WIRES)
def test_the_bodies_of_requests(wire):
    assert bodies(wire).split("\n## ") == (FOLDER / f"{wire}.txt").read_text().split("\n## ")
