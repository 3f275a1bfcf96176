"""The bytes that a script sends, whole and streamed, on every wire."""

from __future__ import annotations

import pytest
from scripted_bytes import ADDRESSES, FOLDER, written


@pytest.mark.parametrize("wire", ADDRESSES)
def test_the_bytes_of_every_reply(wire):
    assert written(wire).split("\n## ") == (FOLDER / f"{wire}.txt").read_text().split("\n## ")
