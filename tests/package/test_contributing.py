"""CONTRIBUTING.md tells a stranger the truth: its map is that of the code, its paths exist."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md)|[a-z_]+/)`")


def load(name: str):
    """A script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, TOP / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def room_map():
    return load("room_map")


def test_the_map_of_the_rooms_is_that_of_the_code():
    assert room_map().updated(PAGE) == PAGE, "run `make map`"


def test_the_guides_table_of_presets_is_that_of_the_code():
    table = load("preset_table")
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.updated(page) == page, "run `make presets`"
    with pytest.raises(ValueError, match="no table"):
        table.updated("")


def test_imports_of_rooms_have_no_circle():
    assert "-->" in room_map().draw(room_map().rooms())  # raises CycleError over a circle


@pytest.mark.parametrize("path", sorted(set(PATH.findall(PAGE))))
def test_what_it_names_exists(path):
    assert (TOP / path).exists() or (TOP / "src" / "minillmlib" / path).exists()


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared():
    tool = load("lowest_versions")
    assert tool.FILE.read_text() == tool.lowest_versions(), "run tools/lowest_versions.py"


def test_a_mutant_changes_one_thing_and_no_words_for_people(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "tools")
    text = """
def size(words: list[str], limit: int = 8) -> int:
    'Return how many.'
    assert words
    if not words or len(words) > limit:
        raise ValueError("too many words")
    return min(len(words), key("a"))
"""
    changed = [ast.unparse(change) for *_, change in load("mutants").sites(ast.parse(text))]
    condition = "not words or len(words) > limit"
    assert sorted(changed) == sorted([
        "9", "7", f"not ({condition})", "not words and len(words) > limit", "words",
        "len(words) >= limit", "pass", "return None", "max(len(words), key('a'))", "'XXa'",
    ])  # fmt: skip
