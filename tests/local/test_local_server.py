"""The embedded model, served for real by a child process."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from minillmlib.errors import LocalModelError
from minillmlib.local import LocalServer, LocalTransport
from minillmlib.local.model import default_model_path
from minillmlib.local.server import shared_server
from minillmlib.transport.base import HttpRequest, Transport

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PARIS = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ],
    "max_tokens": 16,
    "temperature": 0,
}
ENDLESS = {**PARIS, "max_tokens": 3000, "ignore_eos": True}

# What parents in processes of their own begin with; they print the model's process id.
PARENT = """
import os, signal, sys, time
from minillmlib.local.server import shared_server
server = shared_server(None)
server.start()
print(server.process_id, flush=True)
"""


@pytest.fixture(scope="module")
def server():
    with LocalServer() as running:
        yield running


@pytest.fixture
def shared():
    """The server that transports share, stopped before and after."""
    server = shared_server(None)
    server.stop()
    yield server
    server.stop()


def post(server: LocalServer, key: str | None = None, body: dict | None = None) -> dict:
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions",
        json.dumps(body or PARIS).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {key or server.key}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return json.load(response)


def text_of(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


def is_gone(process_id: int) -> bool:
    """Whether a process is no more; one that only waits to be reaped is no more."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state == "Z"
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def becomes_true(condition, secs: float = 5) -> bool:
    deadline = time.monotonic() + secs
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def model_children() -> list[int]:
    """The model processes whose parent is this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            is_ours = stat.read_text().rsplit(")", 1)[1].split()[1] == str(os.getpid())
            if is_ours and b"child.py" in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def parent_process(script: str):
    """Runs PARENT and `script`; yields the process and the model's process id."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        try:
            yield parent, int(parent.stdout.readline())
        finally:
            parent.kill()


def request_to(url: str, body: dict = PARIS) -> HttpRequest:
    headers = (("Content-Type", "application/json"), ("Authorization", "Bearer wrong"))
    return HttpRequest(url=url, headers=headers, body=json.dumps(body).encode())


async def send(body: dict = PARIS) -> dict:
    url = "https://elsewhere.invalid/v1/chat/completions"
    response = await LocalTransport().send(request_to(url, body))
    try:
        pieces = [piece async for piece in pieces_of(response)]
    finally:
        response.close()
    return json.loads(b"".join(pieces))


async def pieces_of(response):
    while piece := await response.read():
        yield piece


def test_it_answers_to_its_key_at_a_local_address(server):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
    assert server.base_url == f"{server.url}/v1"
    assert "Paris" in text_of(post(server))


def test_it_refuses_every_other_key(server):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(server, key="another")
    refusal.value.close()
    assert refusal.value.code == 401


@needs_proc
def test_its_key_is_in_no_place_that_others_can_read(server):
    process = Path(f"/proc/{server.process_id}")
    assert server.key.encode() not in (process / "cmdline").read_bytes()
    assert server.key.encode() not in (process / "environ").read_bytes()
    assert server.key not in repr(server)
    assert server.key != LocalServer().key


def test_starting_it_again_changes_nothing(server):
    before = (server.process_id, server.url)
    server.start()
    assert (server.process_id, server.url) == before


@needs_posix
def test_ctrl_c_leaves_it_alive(server):
    os.kill(server.process_id, signal.SIGINT)
    assert "Paris" in text_of(post(server))


def test_before_its_start_it_has_no_address():
    server = LocalServer()
    assert not server.is_running
    with pytest.raises(LocalModelError, match=r"not running; call its start\(\)"):
        server.url  # noqa: B018 - reading it is the test
    server.stop()


@needs_proc
def test_threads_that_start_it_at_once_make_one_child_which_stop_ends():
    server = LocalServer()
    others = set(model_children())
    threads = [threading.Thread(target=server.start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process_id = server.process_id
    assert set(model_children()) - others == {process_id}
    server.stop()
    server.stop()
    assert is_gone(process_id)
    assert not server.is_running


@needs_posix
def test_a_child_that_died_is_replaced_by_the_next_start():
    with LocalServer() as server:
        dead = server.process_id
        os.kill(dead, signal.SIGKILL)
        assert becomes_true(lambda: not server.is_running)
        server.start()
        assert server.process_id != dead
        assert "Paris" in text_of(post(server))


def test_a_file_of_ones_own_is_served_under_its_name(tmp_path, monkeypatch):
    (tmp_path / "mine.gguf").symlink_to(default_model_path())
    monkeypatch.chdir(tmp_path)
    server = LocalServer("mine.gguf")
    monkeypatch.chdir("/")
    with server:
        answer = post(server)
    assert answer["model"] == "mine"
    assert "Paris" in text_of(answer)


def test_the_process_shares_one_server_per_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shared_server("a.gguf") is shared_server(tmp_path / "a.gguf")
    assert shared_server("a.gguf") is not shared_server("b.gguf")
    assert shared_server(None) is shared_server(None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nothing.gguf", "cannot be read"), (".", "cannot be read"), ("text.gguf", "GGUF format")],
)
def test_what_is_no_model_file_is_refused_before_any_child_is_started(tmp_path, name, reason):
    (tmp_path / "text.gguf").write_text("plain text")
    with pytest.raises(LocalModelError, match=reason) as caught:
        LocalServer(tmp_path / name).start()
    assert str(tmp_path) in str(caught.value)


def test_a_broken_model_file_is_told_in_the_engines_words(tmp_path):
    broken = tmp_path / "broken.gguf"
    with default_model_path().open("rb") as whole:
        broken.write_bytes(whole.read(5_000_000))
    server = LocalServer(broken)
    with pytest.raises(LocalModelError, match="corrupted or incomplete") as caught:
        server.start()
    assert str(broken) in str(caught.value)
    assert not server.is_running


def test_loading_takes_no_longer_than_its_limit(monkeypatch):
    monkeypatch.setattr("minillmlib.local.process.LOADING_SECS", 0.05)
    with pytest.raises(LocalModelError, match=r"not loaded within 0\.05 s"):
        LocalServer().start()


@needs_posix
def test_it_ends_when_its_parent_is_killed():
    with parent_process("time.sleep(60)") as (parent, model):
        assert not is_gone(model)
        parent.kill()
        assert becomes_true(lambda: is_gone(model))


def test_it_ends_when_its_parent_exits():
    with parent_process("") as (parent, model):
        assert parent.wait(10) == 0
        assert becomes_true(lambda: is_gone(model))


@needs_posix
def test_a_forked_process_neither_stops_it_nor_keeps_it_alive():
    script = """
if (fork := os.fork()) == 0:
    sys.exit()
os.waitpid(fork, 0)
print(server.is_running, flush=True)
if os.fork() == 0:
    print(os.getpid(), shared_server(None) is not server, flush=True)
    time.sleep(60)
time.sleep(60)
"""
    with parent_process(script) as (parent, model):
        assert parent.stdout.readline() == b"True\n"
        fork, has_its_own = parent.stdout.readline().split()
        parent.kill()
        try:
            assert becomes_true(lambda: is_gone(model))
            assert not is_gone(int(fork))
            assert has_its_own == b"True"
        finally:
            os.kill(int(fork), signal.SIGKILL)


@needs_posix
def test_ctrl_c_in_a_terminal_reaches_only_the_parent():
    script = """
signal.signal(signal.SIGINT, lambda *_: print("stopped", flush=True))
print("ready", flush=True)
time.sleep(60) if not sys.stdin.readline() else print(server.is_running, flush=True)
"""
    with parent_process(script) as (parent, model):
        assert parent.stdout.readline() == b"ready\n"
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline() == b"stopped\n"
        parent.stdin.write(b"\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"True\n"
        assert os.getpgid(model) != os.getpgid(parent.pid)


def test_the_transport_starts_the_server_and_brings_its_address_and_key(shared):
    assert isinstance(LocalTransport(), Transport)
    assert "Paris" in text_of(asyncio.run(send()))
    assert shared.is_running


def test_the_transport_passes_on_everything_but_the_origin_and_the_credentials(shared, monkeypatch):
    class Recorder:
        async def send(self, request):
            self.sent = request

    recorder = Recorder()
    monkeypatch.setattr("minillmlib.transport.default.shared_engine", lambda: recorder)
    asked = HttpRequest(
        url="https://elsewhere.invalid:8443/v1/messages?beta=true",
        headers=(("Authorization", "Bearer theirs"), ("X-Api-Key", "theirs"), ("x-other", "1")),
        body=b"{}",
    )
    asyncio.run(LocalTransport().send(asked))
    assert recorder.sent.url == f"{shared.base_url}/messages?beta=true"
    headers = [("x-other", "1"), ("authorization", f"Bearer {shared.key}")]
    assert recorder.sent.expose_headers() == headers
    assert recorder.sent.body == b"{}"


def test_the_transport_is_a_plain_value():
    transport = LocalTransport("file.gguf")
    assert pickle.loads(pickle.dumps(transport)) == transport
    assert repr(transport) == "LocalTransport(model='file.gguf')"


@needs_proc
def test_a_call_cancelled_during_the_start_leaves_a_server_for_the_next(shared):
    async def cancel_then_send() -> dict:
        first = asyncio.create_task(send())
        await asyncio.sleep(0.1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await send()

    others = set(model_children())
    assert "Paris" in text_of(asyncio.run(cancel_then_send()))
    assert set(model_children()) - others == {shared.process_id}


@needs_posix
def test_a_server_that_dies_during_a_call_is_told_and_replaced(shared):
    async def kill_then_send() -> dict:
        await asyncio.to_thread(shared.start)
        call = asyncio.create_task(send(ENDLESS))
        await asyncio.sleep(0.5)
        os.kill(shared.process_id, signal.SIGKILL)
        with pytest.raises(LocalModelError, match=r"ended during the call \(exit code -9"):
            await call
        return await send()

    assert "Paris" in text_of(asyncio.run(kill_then_send()))
