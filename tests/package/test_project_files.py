"""The files around the code that nobody runs here: they agree with it, and pin what they use."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import minillmlib

TOP = Path(__file__).parents[2]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (TOP / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_pins_its_actions_and_has_no_right_that_no_job_asks_for(file):
    text = file.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.*)", text)
    assert actions
    assert [action for action in actions if not PINNED.fullmatch(action)] == []
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    checkouts = text.count("actions/checkout@")
    assert text.count("persist-credentials: false") == checkouts
    rights = set(re.findall(r"([\w-]+): write", text))
    assert rights <= {
        "docs.yml": {"id-token", "pages"},
        "release.yml": {"id-token", "attestations"},
    }.get(file.name, set())
    assert "secrets." not in text


def test_one_action_has_one_version():
    pins = {one for file in WORKFLOWS for one in re.findall(r"uses: (.*)", file.read_text())}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_runs_what_the_makefile_has(file):
    wanted = set(re.findall(r"run: make (\w+)", file.read_text(encoding="utf-8")))
    assert wanted - {"docs"} <= TARGETS


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "examples/README.md", "tests/README.md"])
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", (TOP / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (TOP / page).parent.joinpath(link).exists()] == []


def test_the_citation_names_this_version():
    text = (TOP / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {minillmlib.__version__}\n" in text
    assert f"\nlicense: {PROJECT['license']}\n" in text


def test_every_tool_is_pinned_with_hashes_and_no_address():
    files = {file.name: file for file in (TOP / "requirements").glob("*.txt")}
    del files["lowest.txt"]  # what users may have, not what we run tools from
    assert {"dev.txt", "tools.txt"} <= files.keys()
    for file in files.values():
        text = file.read_text(encoding="utf-8")
        pins = re.findall(r"^[\w.-]+==.*$", text, re.MULTILINE)
        assert pins
        assert all(pin.endswith(" \\") for pin in pins), "each line goes on with its hashes"
        assert "://" not in text
        assert not re.search(r"^--(index|extra-index|find-links|trusted)", text, re.MULTILINE)
