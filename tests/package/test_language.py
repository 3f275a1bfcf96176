"""The language of the source: functions are verbs, and docstrings start with what a thing does or is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import minillmlib

SOURCE = Path(minillmlib.__file__).parent
FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))

RIDDLES = re.compile(r"(What|Where|The same|Whoever|Whatever|Of)\b")

IRREGULAR = frozenset(
    [
        "begun",
        "bound",
        "built",
        "chosen",
        "done",
        "drawn",
        "fed",
        "felt",
        "filled",
        "found",
        "formed",
        "forgotten",
        "frozen",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "led",
        "left",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "said",
        "seen",
        "sent",
        "shown",
        "spoken",
        "stood",
        "taken",
        "taught",
        "thought",
        "told",
        "torn",
        "understood",
        "withdrawn",
        "won",
        "written",
    ]
)
NO_PARTICIPLES = frozenset(
    ["embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"]
)
BEFORE = frozenset(["all", "already", "never", "not", "once"])
AFTER = frozenset(
    [
        "again",
        "all",
        "alone",
        "anew",
        "apart",
        "at",
        "back",
        "by",
        "down",
        "early",
        "for",
        "from",
        "here",
        "in",
        "into",
        "late",
        "later",
        "of",
        "off",
        "on",
        "out",
        "there",
        "to",
        "up",
        "with",
    ]
)
IS_BOOLEAN = re.compile(r"_*(are|can|had|has|is|may|must|was|were)_")

# A participle that is right, with the reason.
EXCEPTIONS = {
    "Budget.reserved": "a property: the amount that is reserved, beside `spent`",
    "BulkOutcome.parsed": "as ParsedNode.parsed",
    "ParsedNode.parsed": "a property: the value of the answer, as the OpenAI library names it",
    "CostOutcome.resolved": "the name of the resolution that it makes, CostResolution.RESOLVED",
    "CostOutcome.unpriced": "the name of the resolution that it makes, CostResolution.UNPRICED",
    "ToolChoice.required": "the value that it makes, as the wire spells it",
}


def is_participle(word: str) -> bool:
    regular = word.endswith("ed") and len(word) > 4 and word not in NO_PARTICIPLES
    return regular or word in IRREGULAR


def is_named_by_a_participle(name: str) -> bool:
    """Whether a function's name is a participle, alone or with what belongs to it: `all_reported`."""
    words = name.strip("_").split("_")
    if len(words) > 1 and words[0] in BEFORE:
        words = words[1:]
    return is_participle(words[0]) and (len(words) == 1 or words[1] in AFTER)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("told", True), ("_begun", True), ("formed", True), ("all_reported", True),
     ("waited_for", True), ("left_out", True), ("merged", True), ("parse_usage", False),
     ("embed", False), ("note_not_sent", False), ("ensure_cached", False), ("usage", False),
     ("recorded_cost", False), ("__init__", False)],
)  # fmt: skip
def test_a_participle_is_known(name, is_one):
    assert is_named_by_a_participle(name) is is_one


def functions_in(tree: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield all functions, with the names that they have in their module."""
    for node in ast.iter_child_nodes(tree):
        is_scope = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        name = f"{owner}{node.name}" if is_scope else ""
        if is_scope and not isinstance(node, ast.ClassDef):
            yield name, node
        yield from functions_in(node, f"{name}." if is_scope else owner)


def returns_boolean(function: ast.FunctionDef) -> bool:
    returned = ast.unparse(function.returns) if function.returns else ""
    return returned.startswith(("bool", "TypeGuard", "TypeIs"))


@pytest.mark.parametrize("file", FILES)
def test_functions_are_verbs_or_nouns_and_no_participles(file):
    functions = functions_in(ast.parse((SOURCE / file).read_text()))
    named = [
        f"{file}:{node.lineno} {name}"
        for name, node in functions
        if is_named_by_a_participle(node.name)
        and not IS_BOOLEAN.match(node.name)
        and not returns_boolean(node)
        and name not in EXCEPTIONS
    ]
    assert not named, "name the deed (`parse_usage`) or what it returns (`usage`)"


def test_every_exception_is_still_needed():
    trees = (ast.parse((SOURCE / file).read_text()) for file in FILES)
    names = {name for tree in trees for name, _ in functions_in(tree)}
    assert EXCEPTIONS.keys() <= names


def docstrings_in(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield the line and the text of all docstrings, also of fields, and whether it is of a boolean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if text:
                yield node.body[0].lineno, text, is_function and returns_boolean(node)
        body = getattr(node, "body", None)
        for field, after in pairwise(body) if isinstance(body, list) else ():
            if (
                isinstance(field, ast.Assign | ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                is_boolean = isinstance(field, ast.AnnAssign) and "bool" in ast.unparse(
                    field.annotation
                )
                yield after.lineno, after.value.value.strip(), is_boolean


@pytest.mark.parametrize("file", FILES)
def test_docstrings_start_with_what_a_thing_does_or_is(file):
    """ "Return the usage", not "What was used". "Whether" is for booleans."""
    riddles = [
        f"{file}:{line} {text[:60]}"
        for line, text, is_boolean in docstrings_in(ast.parse((SOURCE / file).read_text()))
        if RIDDLES.match(text) or (text.startswith("Whether") and not is_boolean)
    ]
    assert not riddles
