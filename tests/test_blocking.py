"""The blocking door, from plain code, notebooks, threads and forked processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from minillmlib import ChatNode, InvalidParameterError, iterate, run
from test_conversation import said, scripted, streamed


def test_run_returns_the_result_and_raises_the_error_of_a_coroutine():
    assert run(ChatNode.root("s").chat("u", scripted(said("ok")))).text == "ok"
    with pytest.raises(InvalidParameterError):
        run(ChatNode.root("s").chat("u", scripted()))


def test_iterate_gives_the_chunks_and_then_the_node():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")))
    assert [chunk.delta for chunk in iterate(stream) if chunk.delta] == ["a", "b"]
    assert stream.node.text == "ab"


def test_leaving_the_loop_of_iterate_ends_the_stream():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")))
    chunks = iterate(stream)
    assert next(chunks).delta == "a"
    chunks.close()
    with pytest.raises(StopAsyncIteration):
        run(anext_of(stream))


async def anext_of(stream):
    return await anext(stream)


async def test_run_works_while_another_loop_is_running_as_in_a_notebook():
    assert run(ChatNode.root("s").chat("u", scripted(said("ok")))).text == "ok"


def test_run_inside_its_own_loop_is_an_error_instead_of_a_deadlock():
    async def nested():
        return run(asyncio.sleep(0))

    with pytest.raises(InvalidParameterError, match="await"):
        run(nested())


def test_many_threads_may_run_at_once():
    def call(number: int) -> str:
        return run(ChatNode.root("s").chat("u", scripted(said(str(number))))).text

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(64))) == [str(number) for number in range(64)]


def test_an_interrupt_cancels_the_coroutine():
    cancelled = threading.Event()

    async def wait():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        run(wait())
    assert cancelled.wait(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_a_loop_of_its_own():
    run(asyncio.sleep(0))
    child = os.fork()
    if child == 0:
        text = run(ChatNode.root("s").chat("u", scripted(said("ok")))).text
        os._exit(0 if text == "ok" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_program_that_used_run_ends_without_a_word(tmp_path):
    program = (
        "import http.server, threading, minillmlib as m\n"
        'body = b\'{"choices":[{"index":0,"message":{"content":"ok"}}]}\'\n'
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def log_message(self, *args): pass\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200); self.send_header('content-length', str(len(body)))\n"
        "        self.end_headers(); self.wfile.write(body)\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "generator = m.GeneratorInfo.custom('t', f'http://127.0.0.1:{server.server_port}', 'm')\n"
        "print(m.run(m.ChatNode.root('s').chat('u', generator)).text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    noise = [line for line in done.stderr.splitlines() if "minillmlib" in line or "aiohttp" in line]
    assert (done.stdout, done.returncode, noise) == ("ok\n", 0, [])
