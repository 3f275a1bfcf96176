"""What can be said of the site without building it (`make docs` builds it, strictly)."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
from doors import DOORS

import minillmlib
import minillmlib.errors
import minillmlib.testing

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
CHAPTERS = sorted(DOCS.glob("*.md"))
REFERENCE = sorted(DOCS.glob("reference/*.md"))
PAGES = [*CHAPTERS, *REFERENCE, *(TOP / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"))]  # fmt: skip
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAX_WORDS = 1500
LONGER: dict[str, str] = {"providers.md": "it has the table of all presets"}  # page: reason


def directives(page: Path) -> list[str]:
    return re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)


def test_every_public_name_is_on_one_page_of_the_reference():
    shown = [name for page in REFERENCE for name in directives(page)]
    public = [f"{door.__name__}.{name}" for door in DOORS for name in door.__all__]
    assert sorted(shown) == sorted(public)


def test_the_index_of_the_reference_lists_the_names_of_each_page():
    rows = re.findall(
        r"^\| \[.*?\]\((\S+)\) \| (.*) \|$", (DOCS / "reference/index.md").read_text(), re.MULTILINE
    )
    listed = {page: re.findall(r"`(\w+)`", names) for page, names in rows}
    assert listed == {
        page.name: [name.rpartition(".")[2] for name in directives(page)]
        for page in REFERENCE if page.name != "index.md"
    }  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_in_a_chapter(door):
    text = "\n".join(page.read_text() for page in CHAPTERS)
    assert [name for name in door.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_page_has_its_place_in_the_site():
    nav = re.findall(r"- (?:\w+: )?(\S+\.md)$", (TOP / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(nav) == sorted(str(page.relative_to(DOCS)) for page in [*CHAPTERS, *REFERENCE])


@cache
def anchors_of(page: Path) -> set[str]:
    """The anchors of a page as Python-Markdown, and the hosts of repositories, make them."""
    anchors: set[str] = set(directives(page))
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        plain = re.sub(r"[`*]|\]\(.*?\)|\[", "", heading)
        anchors.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_and_picture_leads_somewhere(page):
    dead = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            if not there.exists() or (anchor and anchor not in anchors_of(there.resolve())):
                dead.append(target)
            if page.is_relative_to(DOCS) and not there.resolve().is_relative_to(DOCS):
                dead.append(f"{target} is not part of the site")
    assert dead == []


def test_no_table_escapes_a_bar_which_the_site_would_show():
    assert [page.name for page in CHAPTERS if "\\|" in page.read_text()] == []


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)
def test_no_page_is_long_without_a_reason(page):
    words = len(page.read_text().split())
    assert (words > MAX_WORDS) == (page.name in LONGER), f"{words} words"


def test_the_pins_of_the_site_name_no_host_and_have_hashes():
    text = (TOP / "requirements/docs.txt").read_text()
    pins = re.findall(r"^\S+==\S+", text, re.MULTILINE)
    assert len(pins) > 10
    assert all(f"{pin} \\\n    --hash=sha256:" in text for pin in pins)
    assert "://" not in text


def test_the_catalogue_has_every_error_with_its_base_and_whether_it_is_retried_or_cured():
    text = (DOCS / "error-catalogue.md").read_text()
    rows = re.findall(
        r"^### (\w+)\n\n.+\n\n\*A kind of `(\w+)`; ((?:not )?retried)(, falls back)?\.\*$",
        text,
        re.MULTILINE,
    )
    errors = [getattr(minillmlib.errors, name) for name in minillmlib.errors.__all__]
    assert sorted(rows) == sorted(
        (
            error.__name__,
            error.__bases__[0].__name__,
            "retried" if error("x").is_retryable else "not retried",
            ", falls back" if error("x").allows_fallback else "",
        )
        for error in errors
    )


def tool(name: str):
    spec = importlib.util.spec_from_file_location(name, TOP / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_of_the_package_has_absolute_links_once_the_repository_has_an_address():
    text = (TOP / "README.md").read_text()
    absolute_links = tool("readme_links").absolute_links
    absolute = absolute_links(text, "https://code.example/us/minillmlib/")
    assert [target for target in LINK.findall(absolute) if not target.startswith("https://")] == []
    assert "](https://code.example/us/minillmlib/blob/HEAD/docs/faq.md)" in absolute
    assert "](https://code.example/us/minillmlib/raw/HEAD/docs/pictures/" in absolute
    assert absolute_links(text, None) == text


def test_the_site_lists_the_versions_that_are_there_and_opens_the_newest(tmp_path):
    for version in ("0.9", "0.10", "0.1"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "index.html").touch()
    assert tool("build_docs").write_versions(tmp_path) == "0.10"
    rows = json.loads((tmp_path / "versions.json").read_text())
    assert [row["version"] for row in rows] == ["0.10", "0.9", "0.1"]
    assert "url=0.10/index.html" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    "shown",
    [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="https://fonts.example/x.css">',
        "<code>minillmlib.tree.node.ChatNode</code>",
        "<code>minillmlib.testing.scripted.ScriptedReply</code>",
    ],
)
def test_the_build_fails_over_what_another_host_serves_and_over_internal_names(tmp_path, shown):
    page = tmp_path / "reference" / "x.html"
    page.parent.mkdir()
    page.write_text("<a href='https://example.org'>minillmlib.testing.ScriptedReply</a>")
    assert tool("build_docs").problems_of(tmp_path) == []
    page.write_text(shown)
    assert len(tool("build_docs").problems_of(tmp_path)) == 1
