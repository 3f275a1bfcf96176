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
        functions = functions_of(self.top)
        todo = [
            (number, mutant)
            for number, mutant in enumerate(self.mutants)
            if mutant.place in functions and mutant.place in self.calling
        ]
        running: dict[int, tuple[int, int, float]] = {}
        with (self.folder / "verdicts").open("w", encoding="utf-8") as verdicts:
            while todo or running:
                while todo and len(running) < self.workers:
                    number, mutant = todo.pop()
                    pipe, pid = self.fork(number, mutant, functions[mutant.place], session)
                    running[pipe] = (number, pid, time.monotonic() + MAX_SECS)
                ended = select.select(list(running), [], [], 1)[0]
                for pipe, (number, pid, latest) in list(running.items()):
                    if pipe in ended or time.monotonic() > latest:
                        said = os.read(pipe, MAX_BYTES).decode() if pipe in ended else "late"
                        self.end(number, pipe, pid)
                        del running[pipe]
                        print(json.dumps([number, said]), file=verdicts, flush=True)
        return True

    def end(self, number: int, pipe: int, pid: int) -> None:
        os.close(pipe)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(self.folder / str(number), ignore_errors=True)

    def fork(
        self, number: int, mutant: Mutant, functions: list[FunctionType], session: pytest.Session
    ) -> tuple[int, int]:
        """Start a fork that writes which test fails, "alive", or why it could not be tried."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid:
            os.close(writing)
            return reading, pid
        said = "error: "
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 2)
            said = self.meet(number, mutant, functions, session)
        except BaseException as error:  # noqa: BLE001
            said += repr(error)
        finally:
            os.write(writing, said.encode()[:MAX_BYTES])
            os._exit(0)

    def meet(
        self, number: int, mutant: Mutant, functions: list[FunctionType], session: pytest.Session
    ) -> str:
        factory = vars(session.config)["_tmp_path_factory"]
        factory._basetemp = self.folder / str(number)  # noqa: SLF001
        (self.folder / str(number)).mkdir()
        file, first = mutant.place
        module = compile(mutant.source, f"{self.top}{file}", "exec")
        name = functions[0].__qualname__
        (code,) = [
            code for code in codes_of(module)
            if (code.co_firstlineno, code.co_qualname) == (first, name)
        ]  # fmt: skip
        for function in functions:
            function.__code__ = code
        room = Path(file).parts[2].removesuffix(".py")
        collected = {item.nodeid: item for item in session.items}
        names = [test for test in self.calling[mutant.place] if test in collected]
        items = [collected[test] for test in in_turn(names, room, self.known)]
        for item, following in pairwise([*items, None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return f"killed: {self.failed}"
        return "alive"


def pytest_configure(config: pytest.Config) -> None:
    fast = hypothesis.settings(
        database=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]
    )
    hypothesis.settings.register_profile("forks", fast)
    hypothesis.settings.load_profile("forks")
    config.pluginmanager.register(Forks(config.rootpath, Path(os.environ[FOLDER])))
