"""The blocking door, from plain code, notebooks, threads and forked processes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from short_answers import said, scripted, streamed

from minillmlib import (
    ChatNode,
    InvalidParameterError,
    NodeCompletionParameters,
    ReadError,
    blocking,
    iterate,
    run,
)
from minillmlib.testing import ScriptedTransport


def test_run_returns_the_result_and_raises_the_error_of_a_coroutine():
    assert run(ChatNode.root("s").chat("u", scripted(said("ok")))).text == "ok"
    with pytest.raises(InvalidParameterError):
        run(ChatNode.root("s").chat("u", scripted()))


@pytest.mark.skipif(sys.platform == "win32", reason="the alarm of POSIX")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_ctrl_c_at_the_return_of_any_call_of_a_wait_leaves_no_lock_behind():
    run(asyncio.sleep(0))  # the loop has started
    number = count = 0
    former = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it hangs"))
    signal.alarm(20)
    try:
        while count == number:  # else the call has ended without an interrupt
            number, count = number + 1, 0

            def trace(frame, event, _, number=number):
                nonlocal count
                if frame.f_code.co_filename in (threading.__file__, blocking.__file__):
                    count += event == "return"
                    if event == "return" and count == number:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                return trace

            sys.settrace(trace)
            with contextlib.suppress(KeyboardInterrupt):
                run(asyncio.sleep(0.001))
            sys.settrace(None)
            run(asyncio.sleep(0))
    finally:
        sys.settrace(None)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def test_iterate_gives_the_chunks_and_then_the_node():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")))
    assert [chunk.delta for chunk in iterate(stream) if chunk.delta] == ["a", "b"]
    assert stream.node.text == "ab"


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
def test_the_collector_may_find_an_unread_stream_while_another_call_starts():
    class Cycle:
        pass

    async def nothing() -> None:
        pass

    def collect_at_many_places() -> None:
        run(nothing())
        for allocations in range(80):
            chunks = iterate(ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b"))))
            next(chunks)
            gc.collect()
            gc.disable()
            cycle, job = Cycle(), nothing()
            cycle.me, cycle.chunks = cycle, chunks
            del cycle, chunks
            gc.set_threshold(allocations % 40 + 1, 1, 1)
            gc.enable()
            run(job)

    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()  # else each of many collections looks at what all tests before this one left
    # A thread, since what hangs would hang here for ever.
    thread = threading.Thread(target=collect_at_many_places, daemon=True)
    try:
        thread.start()
        thread.join(30)
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    gc.collect()  # the last of them is not left to another test
    assert not thread.is_alive()


def test_leaving_the_loop_of_iterate_ends_the_stream():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")))
    chunks = iterate(stream)
    assert next(chunks).delta == "a"
    chunks.close()
    with pytest.raises(StopAsyncIteration):
        run(anext_of(stream))


async def anext_of(stream):
    return await anext(stream)


def test_iterate_takes_a_generator_over_streams_and_ends_it():
    generator, has_ended = scripted(*[streamed("a", "b")] * 2), []

    async def upper_case():
        try:
            async with ChatNode.root("s").chat_streaming("u", generator) as stream:
                async for chunk in stream:
                    if chunk.delta:
                        yield chunk.delta.upper()
        finally:
            has_ended.append(True)

    assert list(iterate(upper_case())) == ["A", "B"]
    for text in iterate(upper_case()):
        assert text == "A"
        break
    assert has_ended == [True, True]


def test_an_error_thrown_into_iterate_ends_the_stream_and_is_raised():
    stream = ChatNode.root("s").chat_streaming("u", scripted(streamed("a", "b")))
    chunks = iterate(stream)
    assert chunks.send(None).delta == "a"
    with pytest.raises(LookupError, match="mine"):
        chunks.throw(LookupError("mine"))
    assert list(chunks) == []
    with pytest.raises(StopAsyncIteration):
        run(anext_of(stream))


def test_a_stream_that_another_task_reads_is_not_ended_by_iterate():
    class Slow(ScriptedTransport):
        async def send(self, request):
            await asyncio.sleep(0.05)
            return await super().send(request)

    generator = scripted().with_transport(Slow([streamed("a", "b")]))
    stream = ChatNode.root("s").chat_streaming("u", generator)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, stream.collect())
        while stream._completion is None:
            time.sleep(0.001)
        chunks = iterate(stream)
        with pytest.raises(InvalidParameterError, match="one task"):
            next(chunks)
        chunks.close()
        del chunks
        assert first.result(5).text == "ab"


def test_an_exit_that_belongs_to_nobody_is_raised_in_the_main_thread():
    has_begun = threading.Event()

    async def wait() -> str:
        has_begun.set()
        return await asyncio.sleep(0.03, "not mine")

    def nobodys() -> None:
        raise SystemExit

    async def start() -> None:
        asyncio.get_running_loop().call_soon(nobodys, context=contextvars.Context())
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: run(wait()))
        has_begun.wait()
        with pytest.raises(SystemExit):
            run(start())
        assert other.result(5) == "not mine"


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


TASKS = []


class MyExit(SystemExit):
    pass


async def leave(kind, *_):
    raise kind


def leave_now(kind, *_):
    raise kind


async def in_a_task(kind):
    TASKS.append(asyncio.create_task(leave(kind)))
    await asyncio.Event().wait()


async def in_a_task_that_is_awaited(kind):
    await asyncio.create_task(leave(kind))


async def in_a_callback_of_the_loop(kind):
    asyncio.get_running_loop().call_soon(leave_now, kind)
    await asyncio.Event().wait()


async def in_a_task_while_it_refuses_to_be_cancelled(kind):
    TASKS.append(asyncio.create_task(leave(kind)))
    for _ in range(100):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


async def in_a_cost_callback(kind):
    await call_with(functools.partial(leave_now, kind))


async def in_an_async_cost_callback(kind):
    await call_with(functools.partial(leave, kind))


async def in_the_callback_of_a_stream_that_is_dropped(kind):
    await anext(ROOT.chat_streaming("u", scripted(streamed("a", "b")), calling(kind)))
    await asyncio.Event().wait()


ROOT = ChatNode.root("s")


def calling(kind):
    return NodeCompletionParameters(cost_callback=functools.partial(leave_now, kind))


async def call_with(callback):
    settings = NodeCompletionParameters(cost_callback=callback)
    await ROOT.chat("u", scripted(said("ok")), settings)


EXITS = (
    in_a_task, in_a_task_that_is_awaited, in_a_callback_of_the_loop, in_a_cost_callback,
    in_an_async_cost_callback, in_the_callback_of_a_stream_that_is_dropped,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("exit_", EXITS, ids=lambda it: it.__name__)
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MyExit])
def test_an_exit_anywhere_in_a_run_is_raised_by_it_and_the_next_run_works(exit_, kind):
    other = ThreadPoolExecutor(1)
    waiting = other.submit(lambda: run(asyncio.sleep(0.05, "not mine")))
    with pytest.raises(kind):
        run(exit_(kind))
    assert run(ROOT.chat("u", scripted(said("ok")))).text == "ok"
    assert waiting.result(5) == "not mine"
    gc.collect()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("exit_", [in_a_task, in_a_callback_of_the_loop])
def test_an_exit_is_raised_in_the_thread_whose_run_it_comes_from(exit_):
    has_begun = threading.Event()

    async def wait(answer: str) -> str:
        has_begun.set()
        return await asyncio.sleep(0.05, answer)

    with ThreadPoolExecutor(3) as pool:
        before = pool.submit(lambda: run(wait("before")))
        has_begun.wait()
        leaving = pool.submit(lambda: run(exit_(MyExit)))
        after = pool.submit(lambda: run(wait("after")))
        assert run(wait("main")) == "main"
        with pytest.raises(MyExit):
            leaving.result(5)
        assert (before.result(5), after.result(5)) == ("before", "after")


def test_an_exit_is_raised_though_the_coroutine_refuses_to_end(monkeypatch):
    monkeypatch.setattr("minillmlib.blocking.END_SECS", 0.05)
    with pytest.raises(SystemExit):
        run(in_a_task_while_it_refuses_to_be_cancelled(SystemExit))
    assert run(asyncio.sleep(0, "next")) == "next"


def test_an_exit_after_its_run_has_ended_is_logged_and_ends_nothing(caplog):
    async def start() -> None:
        asyncio.get_running_loop().call_later(0.01, leave_now, SystemExit)

    run(start())
    end = time.monotonic() + 5
    while not caplog.records and time.monotonic() < end:
        time.sleep(0.005)
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("minillmlib", "a task of the background event loop raised SystemExit after its run() had "
         "ended"),
    ]  # fmt: skip
    assert caplog.records[0].exc_info[0] is SystemExit
    assert run(asyncio.sleep(0, "next")) == "next"


async def stop_the_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "goes on"


def test_a_coroutine_cannot_stop_the_loop_of_all_others():
    assert run(stop_the_loop()) == run(stop_the_loop()) == "goes on"


def test_when_the_loop_dies_every_run_gets_an_error_and_the_next_one_a_new_loop():
    async def break_the_loop() -> None:
        await asyncio.sleep(0.05)
        asyncio.get_running_loop()._selector.close()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(run, asyncio.sleep(600)) for _ in range(3)]
        waiting.append(pool.submit(run, break_the_loop()))
        for one in waiting:
            with pytest.raises(ReadError) as raised:
                one.result(5)
            assert str(raised.value).startswith("the background event loop has ended (")
            assert str(raised.value).endswith(
                "), and with it all that run() and iterate() ran; call them again to start a new loop"
            )
    assert run(ROOT.chat("u", scripted(said("ok")))).text == "ok"
    stream = ROOT.chat_streaming("u", scripted(streamed("a")))
    assert [chunk.delta for chunk in iterate(stream) if chunk.delta] == ["a"]


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


FORKS = """
import os, signal, sys, threading, time, warnings, minillmlib as m
from minillmlib.testing import ScriptedReply, ScriptedTransport, without_retries
warnings.simplefilter("ignore")  # that the process has threads
body = {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}
price = m.TokenPrice("1", "1")
generator = m.GeneratorInfo.custom("t", "https://t.example/v1", "m").with_token_price(price)
root, budget, stopped = m.ChatNode.root("s"), m.Budget(1000), []

def call(status=200):
    replies = [ScriptedReply.json(body, status=status)]
    settings = m.NodeCompletionParameters(
        params=m.CompletionParameters(max_tokens=9), budget=budget, retry=0)
    scripted = generator.with_transport(ScriptedTransport(replies))
    return m.run(m.ChatNode.root("s").chat("u", scripted, settings)).text

def go_on():
    while not stopped: call()

def fork(work):
    child = os.fork()
    if not child:
        signal.alarm(5)
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]
"""

IN_THE_MIDDLE_OF_CALLS = """
for _ in range(4): threading.Thread(target=go_on, daemon=True).start()
time.sleep(0.3)
print(sum(fork(call) for _ in range(30)), call())
stopped.append(1)
"""

FIRST_CALL = """
import logging
def first_call():
    try: m.run(m.ChatNode.root("s").chat("u", m.GeneratorInfo.custom("t", "http://127.0.0.1:9", "m")))
    except m.ConnectError: pass
thread = threading.Thread(target=first_call)
"""

IN_THE_MIDDLE_OF_IMPORTS = """
with without_retries():
    thread.start()
    print(sum(fork(first_call) for _ in range(8)))
    thread.join()
"""

IN_THE_MIDDLE_OF_DEFERRED_IMPORTS = """
def use_all(): [getattr(m, name) for name in m.__all__]
call()
thread = threading.Thread(target=use_all)
thread.start()
print(sum(fork(use_all) for _ in range(8)))
thread.join()
"""

# The import of concurrent.futures.thread registers what holds a lock over a fork.
IN_THE_MIDDLE_OF_THE_IMPORT_OF_EXECUTORS = """
begun, parent = threading.Event(), os.getpid()
class SlowImport:
    def find_spec(name, *_):
        if name == "queue" and os.getpid() == parent:  # which it imports in turn
            begun.set()
            time.sleep(0.2)
sys.meta_path.insert(0, SlowImport)
with without_retries():
    thread.start()
    begun.wait()
    print(sum(fork(first_call) for _ in range(2)))
    thread.join()
"""

OF_A_STREAM_IN_PROGRESS = """
import asyncio
class Slow:
    status, headers, sent = 200, {"content-type": "text/event-stream"}, 0
    async def send(self, request): return self
    async def read(self):
        await asyncio.sleep(0.01)
        self.sent += 1
        return b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":%s}]}\\n\\n' % (
            b"null" if self.sent < 9 else b'"stop"') if self.sent < 10 else b""
    def close(self): pass
stream = root.chat_streaming("u", generator.with_transport(Slow()))
chunks = m.iterate(stream)
next(chunks)
def use():
    try: next(chunks)
    except m.InvalidParameterError: chunks.close()
    else: os._exit(1)
    call()
print(fork(use), "".join(chunk.delta for chunk in chunks), stream.node.text)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize(
    ("program", "out"),
    [
        (IN_THE_MIDDLE_OF_CALLS, "0 ok\n"),
        (FIRST_CALL + IN_THE_MIDDLE_OF_IMPORTS, "0\n"),
        (FIRST_CALL + IN_THE_MIDDLE_OF_THE_IMPORT_OF_EXECUTORS, "0\n"),
        (IN_THE_MIDDLE_OF_DEFERRED_IMPORTS, "0\n"),
        (OF_A_STREAM_IN_PROGRESS, "0 aaaaaaaa aaaaaaaaa\n"),
    ],
    ids=["calls", "imports", "import of executors", "deferred imports", "stream"],
)
def test_a_child_forked_at_any_moment_does_not_hang(program, out):
    assert in_new_process("-c", FORKS + program) == (out, 0, "")


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


def test_a_task_that_a_run_has_left_behind_cleans_up_before_the_program_ends():
    program = """if 1:
        import asyncio, minillmlib as m
        async def fail():
            try: await asyncio.sleep(600)
            finally: raise LookupError
        async def stay():
            try: await asyncio.sleep(600)
            finally:
                await asyncio.sleep(0.05)
                print("cleaned up")
        async def generate():
            try: yield
            finally: print("generated")
        async def start():
            global tasks
            tasks = generate(), *map(asyncio.create_task, (fail(), stay(), fail()))
            await anext(tasks[0])
            await asyncio.sleep(0)
        m.run(start())
    """
    assert in_new_process("-c", program) == ("cleaned up\ngenerated\n", 0, "")


def test_a_program_that_leaves_a_stream_half_read_ends_without_a_word():
    program = SERVER + "left = m.iterate(root.chat_streaming('u', generator)); next(left)"
    assert in_new_process("-c", program) == ("", 0, "")


DAEMONS = """
import itertools, time
server.handle_error = lambda *_: None
def call():
    while True: m.run(root.chat('u', generator))
def read():
    while True:
        for _ in m.iterate(root.chat_streaming('u', generator)): has_begun.set()
def wait():
    import asyncio
    m.run(asyncio.sleep(600))
def leave():
    for number in itertools.count():
        for _ in m.iterate(root.chat_streaming('u', generator)): break
has_begun = threading.Event()
for work in (call, call, read, read, wait, leave): threading.Thread(target=work, daemon=True).start()
has_begun.wait()
time.sleep(0.05)
"""


def test_daemon_threads_in_the_middle_of_calls_end_with_the_program_without_a_word():
    assert in_new_process("-c", SERVER + DAEMONS) == ("", 0, "")


def test_what_main_code_runs_after_the_end_is_refused():
    program = """if 1:
        import atexit, asyncio, minillmlib as m
        def late():
            try: m.run(asyncio.sleep(0))
            except m.InvalidParameterError as error: print(error)
        atexit.register(late)
        m.run(asyncio.sleep(0))
    """
    out = "run() cannot be used after the program has ended\n"
    assert in_new_process("-c", program) == (out, 0, "")
