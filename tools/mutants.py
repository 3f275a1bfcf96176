"""Breaks the library at random places, one at a time, and says which breaks no test sees.

`make mutants` breaks 100 places; `make mutants MUTANTS="--seed 7 --count 20"` breaks fewer, and
the same ones again. It works in copies of the tree. First all but the long tests run once, traced,
to learn which functions each of them calls. Then each break of a function meets the tests that call
it, in forks of one process. A break that an import would see meets the tests that use its module,
those of its own room first, in a process of its own. What survives meets all tests of its folders,
also the long ones.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from queue import SimpleQueue

import forked_mutants
from calls_of_tests import FOLDER, Calls
from forked_mutants import Mutant

TOP = Path(__file__).parents[1]
SOURCE = Path("src/minillmlib")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "site", "dist", "__pycache__", ".hypothesis")
MAX_SECS = 600  # for the tests that one break meets, quick or long
TEST_SECS = 120  # for one test, which a break may let run for ever
COMPILES = {"PYTHONDONTWRITEBYTECODE": ""}  # each test file once, not once for each break
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div,
    ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def changed_values(value: object) -> list[object]:
    match value:
        case bool():
            return [not value]
        case int() | float():
            return [value + 1, value - 1]
        case str() if " " not in value:  # no test reads all prose
            return [f"XX{value}"]
    return []


def changed_expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield what an expression may be replaced by."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield ast.Compare(node.left, [SWAPS[type(op)]()], node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(SWAPS[type(node.op)](), node.values)
        case ast.BinOp() if type(node.op) in SWAPS:
            yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.Constant(value=value):
            yield from map(ast.Constant, changed_values(value))
        case ast.IfExp(test=test):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), node.body, node.orelse)
        case ast.Call(func=ast.Name(id=name)) if name in NAMES:
            yield ast.Call(ast.Name(NAMES[name]), node.args, node.keywords)
        case ast.Call(keywords=[*first, _]):
            yield ast.Call(node.func, node.args, first)


def changed_statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield what a statement may be replaced by."""
    match node:
        case ast.Return(value=value) if value and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Break() | ast.Continue():
            yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()
        case (
            ast.Raise() | ast.AugAssign() | ast.Delete() | ast.Expr(value=ast.Call() | ast.Await())
        ):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()


def sites(node: ast.AST, function: int = 0) -> Iterator[tuple[ast.AST, int, ast.AST]]:
    """Yield each node that does something, the function around it, and a change of it."""
    for name, value in ast.iter_fields(node):
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
                    yield from sites(child.args, function)  # the defaults
                    yield from sites(ast.Module(child.body), function or min(lines))
                case ast.AST() if name not in {"annotation", "returns"}:
                    if name in {"test", "guard", "ifs"} and not isinstance(node, ast.IfExp):
                        yield child, function, ast.UnaryOp(ast.Not(), child)
                    for change in (*changed_expressions(child), *changed_statements(child)):
                        yield child, function, change
                    yield from sites(child, function)


def mutant_of(file: str, node: ast.AST, function: int, change: ast.AST) -> Mutant | None:
    """Return the mutant, or None if it is no Python."""
    lines = (TOP / file).read_text(encoding="utf-8").splitlines(keepends=True)
    *first, last = (line.encode() for line in lines[node.lineno - 1 : node.end_lineno])
    new = ast.unparse(ast.fix_missing_locations(change))
    if isinstance(change, ast.expr) and not isinstance(change, ast.Constant):
        new = f"({new})"
    start = b"".join([*first, last])[: node.col_offset] + new.encode()
    changed = (start + last[node.end_col_offset :]).decode()
    source = "".join([*lines[: node.lineno - 1], changed, *lines[node.end_lineno :]])
    try:
        compile(source, file, "exec")
    except SyntaxError:
        return None
    return Mutant((file, function), node.lineno, source)


def mutants(seed: int) -> Iterator[Mutant]:
    every = [
        (str(path.relative_to(TOP)), *site)
        for path in sorted((TOP / SOURCE).rglob("*.py"))
        for site in sites(ast.parse(path.read_text(encoding="utf-8")))
    ]
    random.Random(seed).shuffle(every)  # noqa: S311
    yield from (mutant for site in every if (mutant := mutant_of(*site)))


def run_tests(
    tree: Path, *options: str, max_secs: float | None = None, **folders: str
) -> tuple[int, str]:
    """Return how pytest ends in a tree, and the first test that fails.

    The folders are those of the plugins, by their variables.
    """
    command = [sys.executable, "-m", "pytest", "-qrfE", f"--timeout={TEST_SECS}", *options]
    path = os.pathsep.join([str(tree / "src"), str(tree / "tools")])
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=tree, env=os.environ | {"PYTHONPATH": path} | COMPILES | folders,
            capture_output=True, text=True, check=False, timeout=max_secs,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 0, ""
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return done.returncode, failed[1] if failed else ""


def killers_in_forks(
    some: list[Mutant], plain: Path, known: Calls, folder: Path, options: argparse.Namespace
) -> dict[int, str]:
    """Return the quick test that kills a mutant, by its number, or "" if none does."""
    folder.mkdir()
    setup = {"mutants": some, "known": known, "workers": options.workers}
    (folder / "setup").write_bytes(pickle.dumps(setup))
    as_forks = ("-p", "forked_mutants", "-p", "no:xdist", "--capture=sys", "-m", "not long")
    run_tests(plain, *as_forks, **{forked_mutants.FOLDER: str(folder)})
    return dict(map(json.loads, (folder / "verdicts").read_text().splitlines()))


def verdict(
    mutant: Mutant, tree: Path, known: Calls, max_secs: float, *, has_survived: bool
) -> tuple[str, str]:
    """Return what kills a mutant, "quick" or "long" tests or nothing, and the first such test.

    One that has survived its forks meets the tests of its folders; of them some start programs.
    """
    file, function = mutant.place
    room = Path(file).parts[2].removesuffix(".py")
    is_imported = not function or mutant.place in known[""][1]
    files: dict[str, list[str]] = {}
    for test, (_, called) in known.items():
        if mutant.place in called or (is_imported and any(place[0] == file for place in called)):
            files.setdefault(test.split("::")[0], []).append(test)
    files.pop("", None)
    secs = {name: sum(known[test][0] for test in tests) for name, tests in files.items()}
    order = sorted(files, key=lambda name: (name.split("/")[1] != room, secs[name]))
    folders = {f"tests/{room}", *(str(Path(name).parent) for name in order[:3])}
    homes = sorted(folder for folder in folders if (tree / folder).is_dir()) or ["tests/package"]
    quick = [[test for name in some for test in files[name]] for some in (order[:3], order[3:])]
    if not order or (has_survived and not is_imported):
        quick = [homes]
    text = (tree / file).read_text(encoding="utf-8")
    for how, names in (*(("quick", some) for some in quick if some), ("long", homes)):
        (tree / "names").write_text("\n".join(names), encoding="utf-8")
        (tree / file).write_text(mutant.source, encoding="utf-8")
        marked = "long" if how == "long" else "not long"
        code, killer = run_tests(tree, "-x", "-m", marked, "@names", max_secs=max_secs)
        (tree / file).write_text(text, encoding="utf-8")
        if code in {0, 5}:  # none fails, none is chosen
            continue
        if killer in known or "::" not in killer or not run_tests(tree, killer)[0]:
            return how, killer
    return "", ""


def show(mutant: Mutant) -> str:
    old = (TOP / mutant.place[0]).read_text(encoding="utf-8").splitlines()
    lines = difflib.unified_diff(old, mutant.source.splitlines(), lineterm="", n=1)
    return "\n".join([f"{mutant.place[0]}:{mutant.line}", *list(lines)[3:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--max-secs", type=float, default=MAX_SECS, help="for the tests that one break meets"
    )
    parser.add_argument(
        "--map", type=Path, help="a folder for what the tests call, to use it again"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        plain, *trees = (Path(folder) / str(number) for number in range(options.workers + 1))
        for tree in (plain, *trees):
            shutil.copytree(TOP, tree, ignore=NOT_COPIED, symlinks=True)
        kept = (options.map or Path(folder) / "map").resolve()
        if not kept.exists():
            kept.mkdir()
            spread = ("-n", str(options.workers), "--dist", "loadfile", "-p", "calls_of_tests")
            run_tests(plain, *spread, "-m", "not long", **{FOLDER: str(kept)})
        known = Calls()
        for part in kept.iterdir():
            known |= pickle.loads(part.read_bytes())  # noqa: S301
        some = list(islice(mutants(options.seed), options.count))
        killers = killers_in_forks(some, plain, known, Path(folder) / "forks", options)
        free: SimpleQueue[Path] = SimpleQueue()
        for tree in trees:
            free.put(tree)

        def judge(number: int, mutant: Mutant) -> str:
            how, killer = "quick", killers.get(number)
            if not killer:
                tree, has_survived = free.get(), killer is not None
                max_secs = options.max_secs
                how, killer = verdict(mutant, tree, known, max_secs, has_survived=has_survived)
                free.put(tree)
            place = f"{mutant.place[0]}:{mutant.line}"
            print(f"{how}: {place}: {killer}" if how else show(mutant), flush=True)  # noqa: T201
            return how

        with ThreadPoolExecutor(options.workers) as pool:
            counts = Counter(pool.map(judge, count(), some))
    print(  # noqa: T201
        f"seed {options.seed}: of {counts.total()} mutants, quick tests killed {counts['quick']}, "
        f"long ones {counts['long']} more"
    )


if __name__ == "__main__":
    main()
