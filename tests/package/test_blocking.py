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
from short_answers import said, scripted, streamed

from minillmlib import ChatNode, InvalidParameterError, iterate, run


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
            await asyncio.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        run(wait())
    assert cancelled.is_set(), "run() waits for the coroutine's own cleaning up"


def test_a_coroutine_that_exits_the_program_does_not_hang_it():
    async def leave():
        sys.exit(3)

    with pytest.raises(SystemExit):
        run(leave())
    assert run(asyncio.sleep(0, "still here")) == "still here"


@pytest.mark.parametrize("wrong", [42, None, "x"])
def test_run_takes_coroutines_and_iterate_takes_streams(wrong):
    with pytest.raises(InvalidParameterError, match="coroutine"):
        run(wrong)
    with pytest.raises(InvalidParameterError, match="stream"):
        iterate(wrong)


def test_a_stream_given_to_run_and_a_coroutine_given_to_iterate_are_told_apart():
    root = ChatNode.root("s")
    with pytest.raises(InvalidParameterError, match="iterate"):
        run(root.chat_streaming("u", scripted()))
    coroutine = root.chat("u", scripted())
    with pytest.raises(InvalidParameterError, match="coroutine"):
        iterate(coroutine)
    coroutine.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_gets_a_loop_of_its_own():
    run(asyncio.sleep(0))
    child = os.fork()
    if child == 0:
        text = run(ChatNode.root("s").chat("u", scripted(said("ok")))).text
        os._exit(0 if text == "ok" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


SERVER = """
import http.server, threading, minillmlib as m
body = b'{"choices":[{"index":0,"message":{"content":"ok"}}]}'
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
generator = m.GeneratorInfo.custom("t", f"http://127.0.0.1:{server.server_port}", "m")
root = m.ChatNode.root("s")
"""


def in_new_process(*arguments: str) -> tuple[str, int, str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout, done.returncode, done.stderr


def test_a_program_that_used_run_leaves_nothing_open():
    program = SERVER + "print(m.run(root.chat('u', generator)).text)"
    out, code, err = in_new_process("-X", "dev", "-c", program)
    noise = [line for line in err.splitlines() if "minillmlib" in line or "aiohttp" in line]
    assert (out, code, noise) == ("ok\n", 0, [])


def test_a_program_that_leaves_a_stream_half_read_ends_without_a_word():
    program = SERVER + "left = m.iterate(root.chat_streaming('u', generator)); next(left)"
    assert in_new_process("-c", program) == ("", 0, "")
