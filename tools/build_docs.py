"""Build the site into `site/VERSION`, and check that it can be read without a network.

    python tools/build_docs.py [FOLDER]

A site with several versions is the folder of a former build, with its versions kept: the list from
which the reader chooses is made from what is there. FOLDER is `site` by default, and may be served
by any web server, or opened as files.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
VERSION = re.compile(r'^__version__ = "(\d+\.\d+)', re.MULTILINE)
EXTERNAL = re.compile(
    r"""<(?:script|img|iframe)[^>]*\ssrc=["']?https?:[^ >]*"""
    r"""|<link[^>]*rel=["']?(?:stylesheet|preconnect)[^>]*https?:[^ >]*"""
)
# An attribute of spans begins with "minillmlib.cost", and no module does.
ROOM = re.compile(
    r"minillmlib\.(?!cost\b|testing\b|local\b|httpx\b|mcp\b|otel\b|dask\b|ray\b)[a-z_]+\.[\w.]+"
    r"|minillmlib\.(?:testing|local|httpx|mcp|otel|dask|ray)\.[a-z_]+\.[\w.]+"
)


def current_version() -> str:
    """Return the version of the source, without its last number."""
    found = VERSION.search((TOP / "src/minillmlib/version.py").read_text())
    assert found, "src/minillmlib/version.py has no version"
    return found[1]


def problems_of(pages: Path) -> list[str]:
    """List what the pages load from elsewhere, and the internal names that the reference shows."""
    problems = []
    for page in sorted(pages.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(pages)
        problems += [f"{name} loads {each}" for each in EXTERNAL.findall(text)]
        if "reference" in name.parts:
            problems += [f"{name} shows {each}" for each in sorted(set(ROOM.findall(text)))]
    return problems


def write_versions(site: Path) -> str:
    """Write the list of the versions that are there, and a first page; return the newest."""
    names = [page.parent.name for page in site.glob("*/index.html")]
    names.sort(key=lambda name: [int(part) for part in name.split(".")], reverse=True)
    rows = [{"version": name, "title": name, "aliases": []} for name in names]
    (site / "versions.json").write_text(json.dumps(rows) + "\n")
    (site / "index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>minillmlib</title>\n'
        f'<meta http-equiv="refresh" content="0; url={names[0]}/index.html">\n'
        f'<a href="{names[0]}/index.html">minillmlib {names[0]}</a>\n'
    )
    return names[0]


def main(folder: str = "site") -> int:
    """Build, check, and say where the first page is."""
    site = (TOP / folder).resolve()
    pages = site / current_version()
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement, not a finding
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run([*command, "--site-dir", str(pages)], cwd=TOP, env=quiet, check=False)  # noqa: S603
    if done.returncode:
        return done.returncode
    problems = problems_of(pages)
    write_versions(site)
    print(*problems or [f"{site / 'index.html'}"], sep="\n")  # noqa: T201
    return len(problems) > 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
