"""Loops, threads, processes and crowds: one generator in every shape that a program can have."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import msgspec
import pytest
from answer_pieces import TEXT, begun, generator_at, streamed, whole, word
from server import Exchange
from threaded_server import HANG_UP_SECS, ThreadedServer, wait_until

from minillmlib import (
    AttemptOutcome,
    ChatNode,
    CostInfo,
    GeneratorInfo,
    InvalidParameterError,
    NodeCompletionParameters,
    iterate,
    run,
)
from minillmlib.transport.aiohttp import AiohttpTransport

WIRES = ("openai", "anthropic")


def is_stream(request: Exchange) -> bool:
    return b'"stream":true' in request.body


def either(wire: str):
    """The answer to a request in the way that it asks for."""
    return lambda request: (streamed if is_stream(request) else whole)(wire)


async def whole_text(root, generator, said="u", settings=None) -> str:
    return (await root.chat(said, generator, settings)).text


async def streamed_text(root, generator, said="u", settings=None) -> str:
    async with root.chat_streaming(said, generator, settings) as stream:
        return "".join([chunk.delta async for chunk in stream])


async def both_texts(generator) -> list[str]:
    root = ChatNode.root("s")
    return [await whole_text(root, generator), await streamed_text(root, generator)]


def said_in(request: Exchange) -> list[str]:
    """The texts of a request's messages, in order."""
    contents = [m["content"] for m in msgspec.json.decode(request.body)["messages"]]
    return [c if isinstance(c, str) else "".join(part["text"] for part in c) for c in contents]


@pytest.mark.parametrize("wire", WIRES)
def test_a_hundred_chats_from_one_node_are_a_hundred_whole_pairs(wire):
    def echo(request: Exchange):
        text = f"answer to {said_in(request)[-1]}"
        return streamed(wire, words=(text,)) if is_stream(request) else whole(wire, text=text)

    async def main() -> list[str]:
        ways = (whole_text, streamed_text)
        calls = [ways[i % 2](node, generator, f"question {i}") for i in range(100)]
        asking = asyncio.gather(*calls)
        await asyncio.sleep(0)
        node.add_user("later")
        return await asking

    node = ChatNode.root("s").add_user("before").add_assistant("so")
    with ThreadedServer(echo) as server:
        server.meeting = 100  # all are under way at once
        generator = generator_at(server, wire)
        texts = asyncio.run(main())
    assert texts == [f"answer to question {i}" for i in range(100)]
    questions = [child for child in node.children() if child.text != "later"]
    assert {child.text for child in questions} == {f"question {i}" for i in range(100)}
    for child in questions:
        assert [answer.text for answer in child.children()] == [f"answer to {child.text}"]
    told = sorted(said_in(request)[-3:] for request in server.requests)
    assert told == sorted(["before", "so", f"question {i}"] for i in range(100))


@pytest.mark.parametrize("wire", WIRES)
def test_three_loops_in_a_row_share_a_generator_and_each_closes_its_connections(wire):
    with ThreadedServer(either(wire)) as server:
        generator = generator_at(server, wire)
        for number in range(1, 4):
            assert asyncio.run(both_texts(generator)) == [TEXT, TEXT]
            wait_until(lambda: not server.open_connections())
            assert len(server.connections) == number


async def half_read(generator) -> None:
    await anext(ChatNode.root("s").chat_streaming("u", generator))


async def through_a_proxy_of_its_own(generator) -> None:
    httpx2 = pytest.importorskip("httpx2", reason="httpx2 is not installed")
    from minillmlib.httpx import HttpxTransport

    async with httpx2.AsyncClient() as client:
        generator = generator.with_transport(HttpxTransport(client)).with_proxy(None)
        assert await both_texts(generator) == [TEXT, TEXT]


DROPPED = (both_texts, half_read, through_a_proxy_of_its_own)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
@pytest.mark.parametrize("call", DROPPED, ids=lambda it: it.__name__)
def test_loops_that_are_dropped_without_a_word_keep_no_connections(call, caplog):
    loops = []
    with ThreadedServer(either("openai")) as server:
        generator = generator_at(server, "openai")
        asyncio.run(both_texts(generator))  # imports the engine
        gc.collect()
        wait_until(lambda: not server.open_connections())
        before = open_files()
        for _ in range(20):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(call(generator))
            loops.append(weakref.ref(loop))
            del loop
        gc.collect()
        assert [each for each in loops if each() is not None] == []
        wait_until(lambda: not server.open_connections())
        wait_until(lambda: open_files() <= before)  # the server closes its own a turn later
    assert [record.getMessage() for record in caplog.records] == []


def test_a_loop_that_is_closed_closes_its_connections_at_once(caplog):
    with ThreadedServer(either("openai")) as server:
        generator = generator_at(server, "openai")
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(both_texts(generator)) == [TEXT, TEXT]
        loop.close()
        wait_until(lambda: not server.open_connections())
        assert loop.is_closed()
        loop.close()  # may be closed again
    gc.collect()
    assert caplog.records == []


def test_a_dropped_transport_leaves_its_loop_to_close_what_it_opened():
    async def main() -> None:
        generator = generator_at(server, "openai").with_transport(AiohttpTransport())
        assert await both_texts(generator) == [TEXT, TEXT]
        del generator
        gc.collect()
        await asyncio.sleep(0.01)

    with ThreadedServer(either("openai")) as server:
        asyncio.run(main())
        wait_until(lambda: not server.open_connections())


def test_a_dropped_transport_closes_at_once_what_it_opened_in_a_loop_at_rest():
    loop = asyncio.new_event_loop()
    with ThreadedServer(either("openai")) as server:
        generator = generator_at(server, "openai").with_transport(AiohttpTransport())
        assert loop.run_until_complete(both_texts(generator)) == [TEXT, TEXT]
        assert server.open_connections()
        del generator
        gc.collect()
        wait_until(lambda: not server.open_connections())
        loop.close()


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_loop_in_each_of_many_threads_at_once_has_connections_of_its_own():
    def work() -> None:
        async def main() -> list[str]:
            return [text for _ in range(3) for text in await both_texts(generator)]

        together.wait()
        texts.extend(asyncio.run(main()))

    texts, together = [], threading.Barrier(8)
    with ThreadedServer(either("openai")) as server:
        generator = generator_at(server, "openai")
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == [TEXT] * 48
        assert len(server.connections) == 8
        wait_until(lambda: not server.open_connections())


def test_blocking_calls_of_many_threads_share_the_connections_of_one_loop():
    def work() -> None:
        together.wait()
        root = ChatNode.root("s")
        texts.append(run(root.chat("u", generator)).text)
        texts.append("".join(c.delta for c in iterate(root.chat_streaming("u", generator))))

    texts, together = [], threading.Barrier(8)
    with ThreadedServer(either("openai")) as server:
        generator = generator_at(server, "openai")
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert texts == [TEXT] * 16
        assert len(server.connections) <= 8


@pytest.mark.parametrize("wire", WIRES)
async def test_blocking_calls_work_inside_a_running_loop_as_in_a_notebook(wire):
    root = ChatNode.root("s")
    with ThreadedServer(either(wire)) as server:
        generator = generator_at(server, wire)
        assert run(root.chat("u", generator)).text == TEXT
        assert "".join(c.delta for c in iterate(root.chat_streaming("u", generator))) == TEXT
        assert await both_texts(generator) == [TEXT, TEXT]
        assert len(server.connections) == 2, "one of each loop"


def silent_stream() -> ThreadedServer:
    return ThreadedServer((*begun(), word("openai", "one ")))


@pytest.mark.parametrize(
    "read",
    [
        lambda stream: asyncio.run(anext_of(stream)),
        lambda stream: run(anext_of(stream)),
        lambda stream: next(iterate(stream)),
    ],
    ids=["another loop", "run", "iterate"],
)
def test_a_stream_is_not_read_in_another_loop_and_the_first_may_go_on(read):
    def elsewhere(stream) -> None:
        with pytest.raises(InvalidParameterError, match="event loop"):
            read(stream)

    async def main() -> str:
        async with ChatNode.root("s").chat_streaming("u", generator) as stream:
            first = (await anext(stream)).delta
            await asyncio.to_thread(elsewhere, stream)
            return first + "".join([chunk.delta async for chunk in stream])

    with ThreadedServer(streamed("openai")) as server:
        generator = generator_at(server, "openai")
        assert asyncio.run(main()) == TEXT


async def anext_of(stream):
    return await anext(stream)


async def test_a_stream_is_read_by_one_task_at_a_time_and_the_other_hears_of_it():
    with silent_stream() as server:
        async with ChatNode.root("s").chat_streaming("u", generator_at(server, "openai")) as stream:
            await anext(stream)
            reading = asyncio.create_task(anext_of(stream))
            await asyncio.sleep(0)
            with pytest.raises(InvalidParameterError, match="one task"):
                await anext(stream)
            assert not reading.done()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: not server.open_connections())


def test_uvloop_runs_calls_and_hangs_up_at_once_when_one_is_left():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")

    async def leave(records: list[CostInfo]) -> float:
        settings = NodeCompletionParameters(cost_callback=records.append)
        task = asyncio.create_task(streamed_text(ChatNode.root("s"), generator, "u", settings))
        await asyncio.to_thread(wait_until, lambda: len(server.requests) == 3)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return time.monotonic()

    with (
        ThreadedServer(either("openai")) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        generator = generator_at(server, "openai")
        assert runner.run(both_texts(generator)) == [TEXT, TEXT]
        server.usual, records = (*begun(), word("openai", "one ")), []
        left_at = runner.run(leave(records))
        wait_until(lambda: not server.open_connections())
        assert server.connections[-1].ended_at - left_at < HANG_UP_SECS
        assert [attempt.outcome for attempt in records[0].attempts] == [AttemptOutcome.ABANDONED]
        server.usual = either("openai")
        assert runner.run(both_texts(generator)) == [TEXT, TEXT]
    gc.collect(1)


BEGIN = """
import asyncio, gc, os, resource, sys, threading, time
from minillmlib import *

generator = GeneratorInfo.custom("t", sys.argv[1], "m").with_token_price(TokenPrice(1, 5))
root, records = ChatNode.root("s"), []
settings = NodeCompletionParameters(retry=0, cost_callback=records.append)

def show_attempts():
    for record in records:
        for attempt in record.attempts:
            print(attempt.outcome.value, attempt.cost)

def open_files():
    return len(os.listdir("/dev/fd"))

def say(line):  # in one piece, beside what another process says
    os.write(1, f"{line}\\n".encode())
"""


def in_new_process(program: str, server: ThreadedServer, **environment: str) -> list[str]:
    """The lines that a program prints, which must end well and complain of nothing."""
    options = ("-W", "default", "-W", "ignore::DeprecationWarning")  # of forks beside threads
    done = subprocess.run(
        [sys.executable, *options, "-c", BEGIN + program, server.url],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


FORK_IN_PLAIN_CODE = """
def ask(who):
    say(run(root.chat(who, generator)).text)

ask("first")
child = os.fork()
if child == 0:
    ask("child")
    os._exit(0)
ask("again")
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

FORK_IN_A_LOOP = """
async def ask(who):
    say((await root.chat(who, generator)).text)

async def main():
    await ask("first")
    child = os.fork()
    if child == 0:
        asyncio.run(ask("child"))
        os._exit(0)
    await ask("again")
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("program", [FORK_IN_PLAIN_CODE, FORK_IN_A_LOOP], ids=["run", "loop"])
def test_both_sides_of_a_fork_call_and_share_no_connection(program):
    with ThreadedServer(whole("openai")) as server:
        server.pause_secs = 0.02
        assert in_new_process(program, server) == [TEXT, TEXT, TEXT, "0"]
        at = {said_in(request)[-1]: request.connection for request in server.requests}
    assert at["first"] is at["again"]
    assert at["child"] is not at["first"]


# Where warnings are errors, that of a dropped loop keeps asyncio from closing it.
WARNINGS_ARE_ERRORS = """
import warnings
unraisable = []
def raise_warnings():
    warnings.simplefilter("error", ResourceWarning)
    sys.unraisablehook = lambda it: unraisable.append(str(it.exc_value))
"""

DROPPED_LOOPS = """
async def ask():
    say((await root.chat("u", generator)).text)

raise_warnings()
for _ in range(3):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask())
    del loop
    gc.collect()
say(sum("unclosed event loop" in each for each in unraisable))
say([each for each in unraisable if "raddr" in each])  # of sockets with a connection
"""


def test_a_dropped_loop_that_is_not_closed_leaves_no_open_connection_either():
    with ThreadedServer(whole("openai")) as server:
        lines = in_new_process(WARNINGS_ARE_ERRORS + DROPPED_LOOPS, server)
    assert lines == [TEXT, TEXT, TEXT, "3", "[]"]


FORK_BESIDE_A_LOOP_AT_REST = """
async def ask(who):
    say((await root.chat(who, generator)).text)

loop = asyncio.new_event_loop()
loop.run_until_complete(ask("first"))
child = os.fork()
if child == 0:
    raise_warnings()
    if DROPS_LOOP:
        del loop
        gc.collect()
    asyncio.run(ask("child"))
    sys.exit()
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
loop.run_until_complete(asyncio.wait_for(ask("again"), 10))
say(status)
loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("drops_loop", [False, True], ids=["ends", "drops the loop"])
def test_a_child_that_cleans_up_leaves_the_connections_of_its_parent_as_they_were(drops_loop):
    with ThreadedServer(whole("openai")) as server:
        program = f"DROPS_LOOP = {drops_loop}" + WARNINGS_ARE_ERRORS + FORK_BESIDE_A_LOOP_AT_REST
        assert in_new_process(program, server) == [TEXT, TEXT, TEXT, "0"]
        at = {said_in(request)[-1]: request.connection for request in server.requests}
    assert at["first"] is at["again"]


FIRST_CALLS = """
def work():
    async def main():
        for _ in range(2):
            assert (await root.chat("u", generator)).text
            gc.collect()
    together.wait()
    asyncio.run(main())

together = threading.Barrier(8)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_very_first_calls_of_a_process_may_come_from_many_threads_at_once():
    with ThreadedServer(whole("openai")) as server:
        server.pause_secs = 0.01
        assert in_new_process(FIRST_CALLS, server) == []
        assert (len(server.requests), len(server.connections)) == (16, 8)


CANCELLED_FIRST = """
async def main():
    task = asyncio.create_task(root.chat("u", generator, settings))
    await asyncio.sleep(0)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    print(type(ended).__name__)
    show_attempts()
    print((await root.chat("u", generator)).text)

asyncio.run(main())
"""


def test_a_first_call_cancelled_while_the_engine_is_imported_was_not_sent():
    with ThreadedServer(whole("openai")) as server:
        lines = in_new_process(CANCELLED_FIRST, server)
        assert server.started == 1
    assert lines == ["CancelledError", "not_sent None", TEXT]


OUT_OF_FILES = """
async def main():
    if WARM:
        await root.chat("u", generator)
        await asyncio.sleep(0.05)
    before, held = open_files(), []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        await root.chat("u", generator, settings)
    except Exception as error:
        print(type(error).__name__)
    for file in held:
        os.close(file)
    show_attempts()
    print((await root.chat("u", generator)).text)
    await asyncio.sleep(0.05)
    print(open_files() - before)

asyncio.run(main())
"""

TOO_MANY_CALLS = """
async def main():
    await root.chat("u", generator)
    await asyncio.sleep(0.05)
    before = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
    calls = (root.chat("u", generator, settings) for _ in range(100))
    ended = await asyncio.gather(*calls, return_exceptions=True)
    print(*sorted({type(one).__name__ for one in ended}))
    print(len(records))
    print((await root.chat("u", generator)).text)
    await asyncio.sleep(0.05)
    print(open_files() - before)

asyncio.run(main())
"""


@pytest.mark.parametrize("warm", ["True", "False"])
def test_a_process_out_of_files_gets_a_connect_error_and_leaks_none(warm):
    with ThreadedServer(whole("openai", keeps=False)) as server:
        lines = in_new_process(f"WARM = {warm}" + OUT_OF_FILES, server)
    assert lines == ["ConnectError", "not_sent None", TEXT, "0"]


def test_of_more_calls_than_a_process_may_have_files_the_rest_gets_connect_errors():
    with ThreadedServer(whole("openai", keeps=False)) as server:
        server.pause_secs = 0.01
        lines = in_new_process(TOO_MANY_CALLS, server)
    assert lines == ["ChatNode ConnectError", "100", TEXT, "0"]


CANCELLED_OVER_TLS = """
async def read():
    async for _ in root.chat_streaming("u", generator, settings):
        begun.set()

async def main():
    global begun
    begun = asyncio.Event()
    try:
        await root.chat("u", generator.with_base_url("http://127.0.0.1:9"), settings)
    except ConnectError:
        before = open_files()
    for make in (lambda: root.chat("u", generator, settings), read):
        files = open_files()
        task = asyncio.create_task(make())
        while open_files() == files and not task.done():
            await asyncio.sleep(0.01)
        await (begun.wait() if make is read and READS else asyncio.sleep(0.2))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        print(time.monotonic())
        await asyncio.sleep(0.1)
    print(len(records), open_files() - before)

asyncio.run(main())
"""


def test_a_call_left_over_tls_hangs_up_at_once(certified):
    context, file = certified
    talk = (*begun(), word("openai", "one "))
    with ThreadedServer(lambda it: talk if is_stream(it) else (), tls=context) as server:
        program = "READS = True" + CANCELLED_OVER_TLS
        *left_at, last = in_new_process(program, server, SSL_CERT_FILE=file)
        wait_until(lambda: not server.open_connections())
        delays = [
            connection.ended_at - float(at)
            for connection, at in zip(server.connections, left_at, strict=True)
        ]
    assert max(delays) < HANG_UP_SECS
    assert last == "3 0"


def test_a_call_left_over_tls_is_closed_though_the_server_hears_nothing(certified):
    context, file = certified
    with ThreadedServer((), tls=context, reads=False) as server:
        program = "READS = False" + CANCELLED_OVER_TLS
        assert in_new_process(program, server, SSL_CERT_FILE=file)[-1] == "3 0"


MANY = 1000
CROWD_SERVER = f"""
import resource, sys
from threaded_server import ThreadedServer
from answer_pieces import streamed

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, {4 * MANY}), hard))
with ThreadedServer(streamed("openai")) as server:
    server.meeting = {MANY}
    print(server.url, flush=True)
    sys.stdin.readline()
    print(len(server.requests), len(server.connections), len(server.open_connections()))
"""


@pytest.fixture
def _room_for_many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * MANY:
        pytest.skip(f"this system allows only {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * MANY)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_room_for_many_files")
def test_a_thousand_streams_are_open_at_once_and_all_of_them_end_well():
    async def main(url: str) -> list[str]:
        generator, root = GeneratorInfo.custom("crowd", url, "m"), ChatNode.root("s")
        calls = (streamed_text(root, generator, str(i)) for i in range(MANY))
        return await asyncio.gather(*calls)

    server = subprocess.Popen(
        [sys.executable, "-c", CROWD_SERVER],
        cwd=Path(__file__).parents[1] / "support", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with server:
        texts = asyncio.run(main(server.stdout.readline().strip()))
        time.sleep(0.1)
        seen, _ = server.communicate("\n", timeout=30)
    assert texts == [TEXT] * MANY
    assert seen.split() == [str(MANY), str(MANY), "0"]
