"""Starting and ending the process of a local model, with a process in memory in place of the child."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import os
import platform
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from minillmlib import (
    ConnectError,
    HttpRequest,
    LocalModelError,
    MissingExtraError,
    ReadError,
    Secret,
)
from minillmlib.local import LocalServer, LocalTransport, process
from minillmlib.local import server as server_module
from minillmlib.local.model import MODEL_BYTES, MODEL_FILE
from minillmlib.local.process import ServerProcess, Settings, check_engine
from minillmlib.local.server import shared_server
from minillmlib.transport import default

URL = "http://127.0.0.1:4711"
SETTINGS = Settings(model="/m.gguf", alias="m", key="k-1")


class Pipe(io.BytesIO):
    """Keeps what was written to it after it is closed, and may be broken."""

    error: OSError | None = None

    def close(self) -> None:
        self.written = self.getvalue()
        super().close()
        if self.error is not None:
            raise self.error


class Child:
    """A process in memory: what it replies, and what is done to it."""

    reply = json.dumps({"url": URL}).encode() + b"\n"
    words, code, ends_late, refuses = b"", 0, False, None
    started: list[Child]

    def __init__(self, command: list[str], **how: object) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.command, self.how, self.done = command, how, []
        self.stdin, self.stdout = Pipe(), Pipe(self.reply)
        self.log = how["stderr"]
        self.log.write(self.words)
        self.pid, self.is_over = 1000 + len(self.started), not self.reply
        self.started.append(self)

    def poll(self) -> int | None:
        return self.code if self.is_over else None

    def wait(self, secs: float | None = None) -> int:
        self.done.append(f"wait {secs}")
        if self.stdin.closed and not self.ends_late:
            self.is_over = True
        if not self.is_over:
            raise subprocess.TimeoutExpired("child", secs)
        return self.code

    def kill(self) -> None:
        self.done.append("kill")
        self.is_over = True


@pytest.fixture
def child(monkeypatch):
    """The class of the children; the last one that was started is `child.started[-1]`."""
    kind = type("Child", (Child,), {"started": []})
    monkeypatch.setattr(subprocess, "Popen", kind)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "xllamacpp" or None)
    yield kind
    for started in kind.started:
        started.log.close()


def failure(call) -> str:
    with pytest.raises(LocalModelError) as caught:
        call()
    return str(caught.value)


def test_the_child_gets_its_settings_by_its_input_and_tells_its_address(child):
    running = ServerProcess(SETTINGS)
    (started,) = child.started
    assert (running.url, running.process_id, running.is_running) == (URL, 1000, True)
    script = Path(process.__file__).with_name("child.py")
    assert started.command == [sys.executable, "-P", str(script)]
    log = started.how.pop("stderr")
    assert started.how == {
        "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True,
        "creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0),
    }  # fmt: skip
    running.end()
    assert started.stdin.written == (
        b'{"model":"/m.gguf","alias":"m","key":"k-1","n_ctx":4096,"n_threads":1,"temperature":null,'
        b'"n_predict":null}\n'
    )
    assert (started.done, running.is_running, log.closed) == (["wait 2.0"], False, True)
    assert (started.stdin.closed, started.stdout.closed) == (True, True)


def test_a_child_that_does_not_end_is_killed_after_two_seconds(child):
    child.ends_late = True
    running = ServerProcess(SETTINGS)
    running.end()
    assert child.started[0].done == ["wait 2.0", "kill", "wait None"]


def test_a_pipe_that_is_broken_is_closed_all_the_same(child):
    running = ServerProcess(SETTINGS)
    started = child.started[0]
    started.stdin.error = BrokenPipeError()
    running.end()
    assert started.stdout.closed
    assert not running.is_running


NO_LOAD = (
    "the model /m.gguf could not be served ({}); check that the file is a complete GGUF model and "
    "fits in memory"
)


@pytest.mark.parametrize(
    ("reply", "words", "said"),
    [
        (b'{"error": "RuntimeError: no"}\n', b"", "RuntimeError: no; exit code 3"),
        (b'{"error": "RuntimeError: no"}\n', b"1\n2\n", "RuntimeError: no; exit code 3: 1 2"),
        (b"{}\n", b"words", "no answer; exit code 3: words"),
        (b"", b"", "no answer; exit code 3"),
    ],
)
def test_a_child_that_does_not_load_is_told_with_its_words(reply, words, said, child):
    child.reply, child.words, child.code = reply, words, 3
    child.wait = lambda self, secs=None: self.done.append(f"wait {secs}") or self.code
    found = failure(lambda: ServerProcess(SETTINGS))
    assert found == NO_LOAD.format(said)
    assert child.started[0].done == ["wait 2.0", "kill", "wait 2.0"]


def test_a_child_that_still_runs_has_no_end(child):
    child.reply = b"{}\n"
    found = failure(lambda: ServerProcess(SETTINGS))
    assert found == NO_LOAD.format("no answer; still running")


def test_only_the_last_words_of_a_child_are_told(child):
    child.words, child.code = b"x" * 500 + b"y" * 800, 1
    running = ServerProcess(SETTINGS)
    child.started[0].is_over = True
    assert running.describe_end() == f"exit code 1: {'y' * 800}"
    running._log.close()
    assert running.describe_end() == "exit code 1"


def test_a_child_that_loads_for_too_long_is_killed_and_told_as_late(child, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, secs: float, function: object) -> None:
            self.secs, self.function, self.steps = secs, function, []
            timers.append(self)

        def start(self) -> None:
            self.steps.append("start")

        def cancel(self) -> None:
            self.steps.append("cancel")

    monkeypatch.setattr(threading, "Timer", Timer)
    moments = iter([50.0, 350.0, 50.0, 349.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    child.reply = b"{}\n"
    late, other = (failure(lambda: ServerProcess(SETTINGS)) for _ in range(2))
    assert late == NO_LOAD.format("not loaded within 300 s; still running")
    assert other == NO_LOAD.format("no answer; still running")
    assert (timers[0].secs, timers[0].steps) == (300.0, ["start", "cancel"])
    assert timers[0].function == child.started[0].kill


def test_a_process_that_cannot_be_started_is_told(child):
    child.refuses = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert failure(lambda: ServerProcess(SETTINGS)) == (
        "the local model's process could not be started ([Errno 12] Cannot allocate memory); "
        "check that this Python can run itself and that memory and processes are available"
    )


def test_settings_show_no_key():
    assert repr(SETTINGS) == "Settings(model='/m.gguf', alias='m')"
    assert SETTINGS.__rich_repr__() == [("model", "/m.gguf"), ("alias", "m")]


# --- the engine -----------------------------------------------------------------------------------

PLATFORMS = {  # whether the engine is published for it, and else what is said
    ("linux", "linux-x86_64", "glibc", 2**63 - 1, "cpython", 0): None,
    ("linux", "linux-aarch64", "glibc", 2**63 - 1, "cpython", None): None,
    ("darwin", "macosx-11.0-arm64", "", 2**63 - 1, "cpython", 0): None,
    ("darwin", "macosx-10.9-universal2", "", 2**63 - 1, "cpython", 0): None,
    ("darwin", "macosx-10.9-x86_64", "", 2**63 - 1, "cpython", 0): None,
    ("win32", "win-amd64", "", 2**63 - 1, "cpython", 0): None,
    ("win32", "win-arm64", "", 2**63 - 1, "cpython", 0): "win-arm64, 64 bit, cpython",
    ("linux", "linux-riscv64", "glibc", 2**63 - 1, "cpython", 0):
        "linux-riscv64, glibc-2.3, 64 bit, cpython",
    ("linux", "linux-x86_64", "musl", 2**63 - 1, "cpython", 0):
        "linux-x86_64, musl-2.3, 64 bit, cpython",
    ("linux", "linux-x86_64", "glibc", 2**31 - 1, "cpython", 0):
        "linux-x86_64, glibc-2.3, 32 bit, cpython",
    ("linux", "linux-x86_64", "glibc", 2**32, "cpython", 0):
        "linux-x86_64, glibc-2.3, 32 bit, cpython",
    ("linux", "linux-x86_64", "glibc", 2**63 - 1, "pypy", 0):
        "linux-x86_64, glibc-2.3, 64 bit, pypy",
    ("linux", "linux-x86_64", "glibc", 2**63 - 1, "cpython", 1):
        "linux-x86_64, glibc-2.3, 64 bit, cpython free-threaded",
}  # fmt: skip


@pytest.mark.parametrize("given", PLATFORMS)
def test_without_the_engine_the_error_says_whether_it_can_be_installed(given, monkeypatch):
    system, name, libc, size, python, is_free_threaded = given
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sysconfig, "get_platform", lambda: name)
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": is_free_threaded}.get)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.3"))
    for attribute, value in (("platform", system), ("maxsize", size)):
        monkeypatch.setattr(sys, attribute, value)
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name=python))
    if PLATFORMS[given] is None:
        with pytest.raises(MissingExtraError) as caught:
            check_engine()
        assert str(caught.value) == (
            "the local model needs an extra that is not installed; "
            'install it with: pip install "minillmlib[local]"'
        )
    else:
        assert failure(check_engine) == (
            f"the local model's engine is not built for this platform ({PLATFORMS[given]}); "
            "run your own model server and use GeneratorInfo.custom(...)"
        )


# --- the server -----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.Q4.gguf"
    path.write_bytes(b"GGUF....")
    return path


def test_a_server_starts_one_child_and_a_new_one_when_that_died(child, file):
    server = LocalServer(file)
    assert repr(server) == f"LocalServer({str(file)!r})"
    with server as same:
        assert same is server
        server.start()
        assert (server.url, server.base_url, server.process_id) == (URL, f"{URL}/v1", 1000)
        child.started[0].is_over = True
        assert not server.is_running
        assert server.describe_end() == "exit code 0"
        server.start()
        assert (len(child.started), server.process_id, server.is_running) == (2, 1001, True)
        assert server.describe_end() is None
    assert child.started[0].stdin.closed
    assert not server.is_running
    assert server.describe_end() is None
    assert failure(lambda: server.url) == f"{server!r} is not running; call its start() first"
    sent = [json.loads(started.stdin.written) for started in child.started]
    assert sent == 2 * [{
        "model": str(file), "alias": "own.Q4", "key": server.key, "n_ctx": 4096, "n_threads": 1,
        "temperature": None, "n_predict": None,
    }]  # fmt: skip
    assert len(server.key) == 43
    assert LocalServer(file).key != server.key


def test_the_built_in_model_is_served_without_randomness_and_with_an_end(
    child, tmp_path, monkeypatch
):
    monkeypatch.setenv("MINILLMLIB_CACHE_DIR", str(tmp_path))
    with (tmp_path / MODEL_FILE).open("wb") as model:
        model.truncate(MODEL_BYTES)
    server = LocalServer()
    assert repr(server) == "LocalServer(None)"
    with server:
        pass
    assert json.loads(child.started[0].stdin.written) == {
        "model": str(tmp_path / MODEL_FILE), "alias": "smollm2-135m-instruct", "key": server.key,
        "n_ctx": 4096, "n_threads": 1, "temperature": 0.0, "n_predict": 512,
    }  # fmt: skip


def test_a_server_that_is_released_keeps_its_child_and_closes_its_pipes(child, file):
    server = LocalServer(file)
    server.release()
    server.start()
    server.release()
    assert child.started[0].stdin.closed
    assert child.started[0].done == []


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read (No such file or directory); name a GGUF file"),
     (b"GGU", "is not in the GGUF format; convert it with llama.cpp's tools, or name another file"),
     (b"gguf....", "is not in the GGUF format; convert it with llama.cpp's tools, or name another file")],
)  # fmt: skip
def test_what_is_no_model_is_refused_before_a_child_is_started(content, said, child, tmp_path):
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    assert failure(LocalServer(path).start) == f"the model file {str(path)!r} {said}"
    assert child.started == []


def test_a_path_may_begin_with_a_tilde_and_is_that_of_now(child, file, monkeypatch):
    monkeypatch.setenv("HOME", str(file.parent))
    monkeypatch.chdir(file.parent)
    servers = [
        LocalServer("~/own.Q4.gguf"),
        LocalServer("own.Q4.gguf"),
        shared_server("~/own.Q4.gguf"),
    ]
    monkeypatch.chdir("/")
    assert [repr(server) for server in servers] == [f"LocalServer({str(file)!r})"] * 3


def test_at_the_end_only_the_servers_of_this_process_are_stopped(child, file, monkeypatch):
    own, other = LocalServer(file), LocalServer(file)
    shared = {(os.getpid(), file): own, (1, file): other}
    monkeypatch.setattr(server_module, "_shared", shared)
    for server in shared.values():
        server.start()
    server_module._stop_shared()
    assert (own.is_running, other.is_running) == (False, True)
    server_module._release_shared()
    assert child.started[1].stdin.closed


# --- the transport --------------------------------------------------------------------------------


class Engine:
    """Notes the requests, and ends them, perhaps with the child."""

    def __init__(self, error: Exception | None, dying: Child | None) -> None:
        self.sent, self.error, self.dying = [], error, dying

    async def send(self, request: HttpRequest) -> str:
        self.sent.append(request)
        if self.dying is not None:
            self.dying.is_over = True
        if self.error is not None:
            raise self.error
        return "answer"


ASKED = HttpRequest(
    url="https://elsewhere.example:8443/v1/messages?beta=true",
    headers=(("Authorization", "theirs"), ("X-API-Key", "theirs"), ("x-other", "1"), ("x-last", "2")),
    body=b"{}", proxy="http://proxy.example:80",
)  # fmt: skip


async def send(monkeypatch, path, error=None, dying=None):
    engine = Engine(error, dying)
    monkeypatch.setattr(default, "shared_engine", lambda: engine)
    return await LocalTransport(path).send(ASKED), engine.sent


async def test_a_request_goes_to_the_childs_address_with_its_key_and_no_proxy(
    child, file, monkeypatch
):
    answer, (sent,) = await send(monkeypatch, file)
    await send(monkeypatch, file)
    server = shared_server(file)
    assert answer == "answer"
    assert sent.url == f"{URL}/v1/messages?beta=true"
    assert sent.headers == (
        ("x-other", "1"), ("x-last", "2"), ("authorization", Secret(f"Bearer {server.key}")),
    )  # fmt: skip
    assert (sent.body, sent.proxy, len(child.started)) == (b"{}", None, 1)
    server.stop()


async def test_an_error_of_the_start_says_that_nothing_was_sent(child, tmp_path, monkeypatch):
    def fail(_: str) -> None:
        raise ReadError("of another")

    with pytest.raises(LocalModelError, match="cannot be read") as caught:
        await send(monkeypatch, tmp_path / "none.gguf")
    assert caught.value.was_sent is False
    monkeypatch.setattr(importlib.util, "find_spec", fail)
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    with pytest.raises(ReadError) as broken:
        await send(monkeypatch, tmp_path / "own.gguf")
    assert broken.value.was_sent is False


@pytest.mark.parametrize(("error", "was_sent"), [(ReadError, True), (ConnectError, False)])
async def test_a_child_that_died_during_a_call_is_told(error, was_sent, child, file, monkeypatch):
    child.code = -9
    with pytest.raises(error, match="broken"):
        await send(monkeypatch, file, error("broken"))
    with pytest.raises(LocalModelError) as caught:
        await send(monkeypatch, file, error("broken"), child.started[0])
    assert str(caught.value) == (
        "the local model's process ended during the call (exit code -9); "
        "the next call starts a new one"
    )
    assert caught.value.was_sent is was_sent
    assert isinstance(caught.value.__cause__, error)
    shared_server(file).stop()
