"""A pytest plugin that notes which functions each test calls, and how long the test takes.

`tools/mutants.py` uses it. Each process writes a file into the folder that the variable names.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

FOLDER = "CALLS_OF_TESTS"
Place = tuple[str, int]  # a file and the first line of a function, or 0 for the module
Calls = dict[str, tuple[float, set[Place]]]  # by the names of tests that pass; "" is the collection


class Tracer:
    """Notes what is called in each thread."""

    def __init__(self, top: Path, folder: Path) -> None:
        self.top, self.folder, self.calls = f"{top}/", folder, Calls()
        self.trace("")

    def trace(self, test: str) -> None:
        self.called: set[Place] = set()
        self.calls[test] = (0, self.called)
        sys.settrace(self.note)
        threading.settrace(self.note)

    def note(self, frame: FrameType, *_: object) -> None:
        """Note a call for the test that runs, also in a thread that an earlier one has started."""
        if (code := frame.f_code).co_filename.startswith(self.top):
            self.called.add((code.co_filename.removeprefix(self.top), code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = time.monotonic()
        self.trace(item.nodeid)
        result = yield
        if item.nodeid in self.calls:
            self.calls[item.nodeid] = (time.monotonic() - began, self.calls[item.nodeid][1])
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.calls.pop(report.nodeid, None)

    def pytest_sessionfinish(self) -> None:
        if len(self.calls) > 1:  # else it is the process that only hands out the tests
            (self.folder / str(os.getpid())).write_bytes(pickle.dumps(self.calls))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tracer(config.rootpath, Path(os.environ[FOLDER])))
