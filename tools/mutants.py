"""Breaks the library at random places, one at a time, and says which breaks no test sees.

`make mutants` breaks 100 places; `make mutants MUTANTS="--seed 7 --count 20"` fewer, and the same
ones again. It works in a copy of the tree. First all but the long tests run once, traced, to learn
which functions each calls: minutes. A break within a function replaces its code in a forked
process, which runs the tests that call it, the quickest first; a break that an import would see
runs them in a fresh process. What survives meets the long tests of the same folders. A test that
fails without the break, too, does not count.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import os
import pickle
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import pytest

TOP = Path(__file__).parents[1]
NOT_COPIED = (".git", ".venv", "site", "dist", "__pycache__", ".hypothesis", "node_modules")
MAX_SECS = 300.0  # for the tests that one break meets, quick or long
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    path: Path
    function: int  # the first line of the outermost function around it, or 0
    line: int
    source: str

    def room(self, source: Path) -> str:
        return self.path.relative_to(source).parts[0].removesuffix(".py")

    def diff(self) -> str:
        lines = [text.splitlines() for text in (self.path.read_text("utf-8"), self.source)]
        return "\n".join(list(difflib.unified_diff(*lines, lineterm="", n=2))[2:])


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node may be replaced by."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield ast.Compare(node.left, [SWAPS[type(op)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(SWAPS[type(node.op)](), node.values)
        case ast.BinOp() if type(node.op) in SWAPS:
            yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        # Not prose: no test compares all words of a message.
        case ast.Constant(value=str(value)) if " " not in value:
            yield ast.Constant(f"XX{value}")
        case ast.IfExp(test=test):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Return(value=value) if value and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Raise() | ast.AugAssign() | ast.Delete():
            yield ast.Pass()
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield ast.Call(ast.Name(NAMES[name]), node.args, node.keywords)
        case ast.Call(keywords=[_, *_]):
            yield ast.Call(node.func, node.args, node.keywords[:-1])


def places(node: ast.AST, function: int = 0) -> Iterator[tuple[ast.AST, int, ast.AST]]:
    """Yield each node that runs, the function that holds it, and a change of it."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "type_params", "msg"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            match child:
                case ast.Assert() | ast.JoinedStr() | ast.Expr(value=ast.Constant()):
                    continue
                case ast.If(test=test) if ast.unparse(test).endswith("TYPE_CHECKING"):
                    continue
                case ast.Assign(targets=[ast.Name(id=str(target))]) if target.startswith("__"):
                    continue
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    lines = [child.lineno, *(line.lineno for line in child.decorator_list)]
                    yield from places(child.args, function)
                    for part in child.body:
                        yield from places(ast.Module([part]), function or min(lines))
                case ast.AST():
                    if name in {"test", "guard", "ifs"} and not isinstance(node, ast.IfExp):
                        yield child, function, ast.UnaryOp(ast.Not(), child)
                    for change in changes(child):
                        yield child, function, change
                    yield from places(child, function)


def mutant_of(path: Path, node: ast.AST, function: int, change: ast.AST) -> Mutant | None:
    """Return the mutant, whose lines have the numbers they had, or None if it is no Python."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    before, after = "".join(lines[: node.lineno - 1]), "".join(lines[node.end_lineno :])
    text = "".join(lines[node.lineno - 1 : node.end_lineno]).encode()
    end = len(text) - len(lines[node.end_lineno - 1].encode()) + node.end_col_offset
    new = ast.unparse(ast.fix_missing_locations(change))
    new += "\n" * (node.end_lineno - node.lineno)
    if not isinstance(change, ast.stmt | ast.Constant):
        new = f"({new})"
    source = before + (text[: node.col_offset] + new.encode() + text[end:]).decode() + after
    try:
        compile(source, str(path), "exec")
    except SyntaxError:
        return None
    return Mutant(path, function, node.lineno, source)


def codes_of(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_of(constant)


def replace_code(mutant: Mutant) -> None:
    """Give the functions of this process the mutant's code."""
    new = {
        (code.co_qualname, code.co_firstlineno): code
        for code in codes_of(compile(mutant.source, str(mutant.path), "exec"))
    }
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == str(mutant.path):
            code = function.__code__
            function.__code__ = new.get((code.co_qualname, code.co_firstlineno), code)


class Sample:
    """A pytest plugin that runs the tests once for each mutant."""

    def __init__(self, tree: Path, options: argparse.Namespace, out: Callable[[str], None]) -> None:
        self.tree, self.options, self.out = tree, options, out
        self.source = tree / "src" / "minillmlib"
        self.called: set[tuple[str, int]] = set()
        self.known: dict[str, tuple[float, set[tuple[str, int]]]] = {}
        self.failed = False
        self.broken: set[str] = set()
        self.trace()

    def trace(self) -> None:
        """Note the functions of the library that are called from now on, in each thread."""
        root, self.called = str(self.source), set()

        def note(frame: FrameType, *_: object) -> None:
            code = frame.f_code
            if code.co_filename.startswith(root):
                self.called.add((code.co_filename[len(root) + 1 :], code.co_firstlineno))

        sys.settrace(note)
        threading.settrace(note)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self.imported = self.called
        self.items = {item.nodeid: item for item in session.items}
        self.long = {name for name, item in self.items.items() if item.get_closest_marker("long")}
        learned = self.options.map or self.tree / "map"
        if not learned.exists():
            self.out(f"{len(self.items) - len(self.long)} tests are traced")
            learned.write_bytes(pickle.dumps(self.learn()))
        self.known = pickle.loads(learned.read_bytes())  # noqa: S301
        self.out(f"{len(self.known)} tests pass; seed {self.options.seed}")
        found, counts = [], Counter[str]()
        for number, mutant in enumerate(self.sample()):
            began = time.monotonic()
            how, by = self.verdict(mutant)
            counts[how] += 1
            place = f"{mutant.path.relative_to(self.source)}:{mutant.line}"
            self.out(f"{number + 1} {how} {place} {by} {time.monotonic() - began:.0f} s")
            if how == "survives":
                found.append(mutant)
                self.out(mutant.diff())
        self.out(f"seed {self.options.seed}: {dict(counts)} of {counts.total()}")
        return True

    def learn(self) -> dict[str, tuple[float, set[tuple[str, int]]]]:
        """Run the quick tests in two processes; return their time and what they call."""
        files = sorted({name.split("::")[0] for name in self.items.keys() - self.long})
        found = {}
        for half in (0, 1):
            chosen = set(files[half::2])
            names = [
                name
                for name in self.items
                if name not in self.long and name.split("::")[0] in chosen
            ]
            if not os.fork():
                self.fork(names, None, 1e9, self.tree / f"map{half}")
                os._exit(0)
        for half in (0, 1):
            os.wait()
        for half in (0, 1):
            found |= pickle.loads((self.tree / f"map{half}").read_bytes())  # noqa: S301
        return found

    def sample(self) -> Iterator[Mutant]:
        every = [
            (path, *place)
            for path in sorted(self.source.rglob("*.py"))
            for place in places(ast.parse(path.read_text(encoding="utf-8")))
        ]
        random.Random(self.options.seed).shuffle(every)  # noqa: S311
        mutants = (mutant for place in every if (mutant := mutant_of(*place)))
        return islice(mutants, self.options.count)

    def verdict(self, mutant: Mutant) -> tuple[str, str]:
        """Return whether quick or long tests kill a mutant, and the first of them."""
        key = (str(mutant.path.relative_to(self.source)), mutant.function)
        room = mutant.room(self.source)
        fresh = not mutant.function or key in self.imported
        meets = {
            name: secs
            for name, (secs, called) in self.known.items()
            if key in called or (fresh and any(path == key[0] for path, _ in called))
        }
        folders = {name.split("/")[1] for name in meets} if len(meets) < 20 else set()  # noqa: PLR2004
        folders.add(room)
        home = {name for name in self.items if name.split("/")[1] in folders}
        quick = sorted(meets or home - self.long, key=lambda name: meets.get(name, 0))
        if fresh:
            quick.sort(key=lambda name: name.split("/")[1] != room)
        run = self.fresh if fresh else self.fork
        for how, names in (("quick", quick), ("long", sorted(home & self.long))):
            while names := [name for name in names if name not in self.broken]:
                killer = run(names, mutant, MAX_SECS)
                if killer in self.items and self.fork([killer], None, MAX_SECS):
                    self.broken.add(killer)
                elif killer:
                    return how, killer
                else:
                    break
        return "survives", ""

    def fresh(self, names: list[str], mutant: Mutant, secs: float) -> str:
        """Run the files of tests in a new process; return the first test that fails, or ''."""
        whole = mutant.path.read_text(encoding="utf-8")
        mutant.path.write_text(mutant.source, encoding="utf-8")
        marked = "long" if names[0] in self.long else "not long"
        files = dict.fromkeys(name.split("::")[0] for name in names)
        try:
            done = subprocess.run(  # noqa: S603
                [sys.executable, "-m", "pytest", "-xqrfE", "--timeout=60", "-m", marked, *files]
                + [word for name in sorted(self.broken) for word in ("--deselect", name)],
                cwd=self.tree, capture_output=True, text=True, timeout=secs, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return ""
        finally:
            mutant.path.write_text(whole, encoding="utf-8")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else "import" if done.returncode not in {0, 5} else ""

    def fork(
        self, names: list[str], mutant: Mutant | None, secs: float, learned: Path | None = None
    ) -> str:
        """Run tests in a forked process; return the first that fails, or ''."""
        read, write = os.pipe()
        if not (child := os.fork()):
            os.setsid()
            if mutant:
                replace_code(mutant)
            items = [self.items[name] for name in names]
            known = {}
            for item, following in zip(items, [*items[1:], None], strict=True):
                if item.nodeid in self.known:
                    limit = 20 + 10 * self.known[item.nodeid][0]
                    item.add_marker(pytest.mark.timeout(limit), append=False)
                os.write(write, f"{item.nodeid}\n".encode())
                began = time.monotonic()
                if learned:
                    self.trace()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if learned and len(known) % 500 == 0:
                    self.out(f"{learned.name} {len(known)}")
                if learned and not self.failed:
                    known[item.nodeid] = time.monotonic() - began, self.called
                elif self.failed and not learned:
                    item.session._setupstate.teardown_exact(None)  # noqa: SLF001
                    os._exit(1)
                self.failed = False
            if learned:
                sys.settrace(None)
                learned.write_bytes(pickle.dumps(known))
            os._exit(0)
        os.close(write)
        ends, told = time.monotonic() + secs, b""
        while select.select([read], [], [], max(ends - time.monotonic(), 0))[0]:
            if not (more := os.read(read, 65536)):
                break
            told += more
        os.close(read)
        over = time.monotonic() > ends
        if over:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # servers that a failed test has left behind
        return "" if over or not status else told.decode().split("\n")[-2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--map", type=Path, help="where to keep what each test calls")
    options = parser.parse_args()
    options.map = options.map and options.map.resolve()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(TOP, tree, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
        os.chdir(tree)
        os.environ["PYTHONPATH"] = str(tree / "src")
        sys.path.insert(0, str(tree / "src"))
        out = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        plugin = Sample(tree, options, lambda text: print(text, file=out))  # noqa: T201
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        return pytest.main(["-q"], plugins=[plugin])


if __name__ == "__main__":
    sys.exit(main())
