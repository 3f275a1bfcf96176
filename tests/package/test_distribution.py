"""The sdist and the wheel: their files, their metadata, and that two builds have the same bytes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import minillmlib

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"minillmlib-{minillmlib.__version__}"
SUFFIXES = {".py", ".html", ".typed"}  # of the files in the package


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both forms, by the end of their names; two builds of them were compared."""
    spec = importlib.util.spec_from_file_location("build_dist", TOP / "tools" / "build_dist.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    files = tool.build_twice(tmp_path_factory.mktemp("dist"), "1700000000")
    return {file.name.removeprefix(NAME): file for file in files}


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built["-py3-none-any.whl"]) as archive:
        yield archive


@pytest.fixture(scope="module")
def metadata(wheel):
    return Parser().parsestr(wheel.read(f"{NAME}.dist-info/METADATA").decode())


def test_there_is_one_of_each(built):
    assert built.keys() == {".tar.gz", "-py3-none-any.whl"}


def test_the_wheel_is_the_package_and_its_metadata(wheel):
    files = {Path(name) for name in wheel.namelist()}
    package = {file for file in files if file.parts[0] == "minillmlib"}
    source = TOP / "src"
    assert {file.suffix or file.name for file in package} <= SUFFIXES | {"py.typed"}
    assert package == {
        file.relative_to(source) for file in (source / "minillmlib").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }  # fmt: skip
    information = Path(f"{NAME}.dist-info")
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    plugin = Path("pytest_minillmlib.py")
    assert files - package == {plugin} | {information / name for name in names}
    assert Path("minillmlib/py.typed") in package


def test_pytest_finds_the_plugin(wheel):
    points = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert "[pytest11]\nminillmlib = pytest_minillmlib\n" in points


def test_the_licence_is_inside(wheel):
    assert wheel.read(f"{NAME}.dist-info/licenses/LICENSE") == (TOP / "LICENSE").read_bytes()


def test_the_metadata_is_complete(metadata):
    assert metadata["Name"] == "minillmlib"
    assert metadata["Version"] == minillmlib.__version__
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# minillmlib\n")
    plain = [one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one]
    assert sorted(re.match(r"[\w.-]+", one)[0] for one in plain) == ["aiohttp", "msgspec"]
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras == PROJECT["optional-dependencies"].keys()
    assert not [one for one in metadata.get_all("Classifier") if one.startswith("License ::")]


def test_the_addresses_are_those_of_pyproject(metadata):
    """One place to set them; none is invented."""
    urls = {tuple(url.split(", ", 1)) for url in metadata.get_all("Project-URL", [])}
    assert urls == set(PROJECT["urls"].items())


def test_the_sdist_has_all_that_building_and_testing_need_and_no_more(built):
    with tarfile.open(built[".tar.gz"]) as archive:
        members = archive.getmembers()
    files = [Path(member.name).relative_to(NAME) for member in members if member.isfile()]
    assert all(member.isfile() for member in members)
    assert {file.parts[0] for file in files} == {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO",
        "README.md", "SECURITY.md", ".gitignore", "mkdocs.yml", "pyproject.toml",
        "benchmarks", "docs", "examples", "requirements", "src", "tests", "tools",
    }  # fmt: skip
    assert not [file for file in files if "__pycache__" in file.parts or file.suffix == ".pyc"]
    assert Path("tests/package/test_distribution.py") in files
    assert {member.mtime for member in members} == {1700000000}
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}


def test_the_wheel_works_without_its_source(wheel, tmp_path):
    """From a folder of its own, beside the two dependencies."""
    wheel.extractall(tmp_path)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; "
    program += f"runpy.run_path({str(TOP / 'tools' / 'try_package.py')!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"minillmlib {minillmlib.__version__} works" in done.stdout
