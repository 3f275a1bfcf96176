"""What the tests of jobs share: no runtime outlives its test."""

from __future__ import annotations

import pytest

from minillmlib.workers import runtime as runtimes


@pytest.fixture(autouse=True)
def _no_runtime_stays():
    yield
    for one in list(runtimes._runtimes):
        one.close()
