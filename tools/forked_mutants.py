"""A pytest plugin that meets breaks of the library by forks of one process that has loaded it.

`tools/mutants.py` uses it: a process that starts anew for each break spends its time on imports.
Only a break within a function can be met so; the function gets new code in a fork.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import select
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

import hypothesis
import pytest
from calls_of_tests import Calls, Place

FOLDER = "FORKED_MUTANTS"  # where `setup` is read and `verdicts` are written
MAX_SECS = 120  # for what one fork runs
MAX_BYTES = 4096  # of what it says


class Mutant(NamedTuple):
    place: Place
    line: int
    source: str


def functions_of(folder: str) -> dict[Place, list[FunctionType]]:
    """Return the functions of the files below a folder, by their first lines."""
    gc.unfreeze()
    found: dict[Place, list[FunctionType]] = {}
    for value in gc.get_objects():
        if isinstance(value, FunctionType) and value.__code__.co_filename.startswith(folder):
            code = value.__code__
            place = (code.co_filename.removeprefix(folder), code.co_firstlineno)
            found.setdefault(place, []).append(value)
    gc.collect()
    gc.freeze()
    return found


def codes_of(code: CodeType) -> Iterator[CodeType]:
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield value
            yield from codes_of(value)


def in_turn(tests: Sequence[str], room: str, known: Calls) -> list[str]:
    """Return the tests so that different ones come first, those of the room and the fast before."""
    kinds: dict[str, list[str]] = {}
    for test in sorted(tests, key=lambda test: known[test][0]):
        kinds.setdefault(test.split("[")[0], []).append(test)
    order = sorted(kinds.values(), key=lambda kind: (f"/{room}/" not in kind[0], known[kind[0]][0]))
    return list(filter(None, chain.from_iterable(zip_longest(*order))))


class Job(NamedTuple):
    number: int  # of the mutant
    killer: str = ""  # the test that it failed, to be run without it


class Forks:
    """Runs no test in this process, and the tests that a break may meet in a fork for each."""

    def __init__(self, top: Path, folder: Path) -> None:
        self.top, self.folder, self.failed = f"{top}/", folder, ""
        setup = pickle.loads((folder / "setup").read_bytes())  # noqa: S301
        self.mutants: list[Mutant] = setup["mutants"]
        self.known: Calls = setup["known"]
        self.workers: int = setup["workers"]
        self.calling: dict[Place, list[str]] = {}
        for test, (_, called) in self.known.items():
            for place in called if test else ():
                self.calling.setdefault(place, []).append(test)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.collected = {item.nodeid: item for item in session.items}
        self.functions = functions_of(self.top)
        factory = vars(session.config)["_tmp_path_factory"]
        jobs = [
            Job(number)
            for number, mutant in enumerate(self.mutants)
            if mutant.place in self.functions and mutant.place in self.calling
        ]
        running: dict[int, tuple[Job, int, float]] = {}
        with (self.folder / "verdicts").open("w", encoding="utf-8") as verdicts:
            while jobs or running:
                while jobs and len(running) < self.workers:
                    job = jobs.pop()
                    factory._basetemp = self.folder / str(job.number)  # noqa: SLF001
                    pipe, pid = self.fork(job)
                    running[pipe] = (job, pid, time.monotonic() + MAX_SECS)
                ended = select.select(list(running), [], [], 1)[0]
                for pipe, (job, pid, latest) in list(running.items()):
                    if pipe not in ended and time.monotonic() < latest:
                        continue
                    del running[pipe]
                    killer = os.read(pipe, MAX_BYTES).decode() if pipe in ended else ""
                    self.end(job, pipe, pid)
                    if killer and not job.killer:
                        jobs.append(Job(job.number, killer))
                    else:  # a test that fails without the break, too, says nothing about it
                        print(json.dumps([job.number, "" if killer else job.killer]), file=verdicts)
        return True

    def end(self, job: Job, pipe: int, pid: int) -> None:
        os.close(pipe)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(self.folder / str(job.number), ignore_errors=True)

    def fork(self, job: Job) -> tuple[int, int]:
        """Start a fork that writes the first test that fails in it, or nothing."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return reading, pid
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 2)
            (self.folder / str(job.number)).mkdir()
            if not job.killer:
                self.break_function(self.mutants[job.number])
            self.run_tests([job.killer] if job.killer else self.tests_for(job.number))
        finally:
            os.write(writing, self.failed.encode()[:MAX_BYTES])
            os._exit(0)

    def break_function(self, mutant: Mutant) -> None:
        file, first = mutant.place
        functions = self.functions[mutant.place]
        name = functions[0].__qualname__
        (code,) = (
            code
            for code in codes_of(compile(mutant.source, f"{self.top}{file}", "exec"))
            if (code.co_firstlineno, code.co_qualname) == (first, name)
        )
        for function in functions:
            function.__code__ = code

    def tests_for(self, number: int) -> list[str]:
        """Return the tests that call the function of a mutant, in their order."""
        place = self.mutants[number].place
        names = [test for test in self.calling[place] if test in self.collected]
        return in_turn(names, Path(place[0]).parts[2].removesuffix(".py"), self.known)

    def run_tests(self, names: Sequence[str]) -> None:
        items = [self.collected[name] for name in names]
        for item, following in pairwise([*items, None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break


def pytest_configure(config: pytest.Config) -> None:
    fast = hypothesis.settings(
        database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.register_profile("forks", fast)
    hypothesis.settings.load_profile("forks")
    config.pluginmanager.register(Forks(config.rootpath, Path(os.environ[FOLDER])))
