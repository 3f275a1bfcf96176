"""Measures one library, in a process that runs the Python of its environment.

`run.py` starts it: `python measures.py PEER` reads a line of JSON for each measure from its
standard input, `python measures.py PEER MEASURE ORIGIN` measures a fresh process. Each answer is a
line of JSON: figures by name, or an error. Nothing expensive is imported at the top, because
imports are measured, too.
"""

from __future__ import annotations

import gc
import sys
import time

from peer import Peer
from peers import PEERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    Figures: TypeAlias = dict[str, float]
    Call: TypeAlias = Callable[[], Awaitable[object]]

SECS = 1.0  # the approximate time of a measurement, unless a peer is too slow
LIMIT_SECS = 30.0  # some libraries lose an answer at times and would wait for ten minutes
STREAMS_PACED = 100
HISTORY = 400
TURNS = 20
TOOL_TURNS = 10
OPEN = 500
KEPT, KEPT_WIDTH = 4096, 256
ANSWER = "word "


async def run_concurrently(call: Call, width: int, count: int) -> None:
    """Make `count` calls, `width` at a time."""
    import asyncio

    numbers = iter(range(count))

    async def call_in_sequence() -> None:
        for _ in numbers:
            await call()

    await asyncio.gather(*(call_in_sequence() for _ in range(width)))


async def time_calls(call: Call, width: int, count: int) -> tuple[float, float]:
    """Return the CPU and wall seconds of `count` calls."""
    cpu, wall = time.process_time(), time.perf_counter()
    await run_concurrently(call, width, count)
    return time.process_time() - cpu, time.perf_counter() - wall


async def measure_calls(call: Call, width: int = 1) -> Figures:
    """Return CPU per call and calls a second, after a warm-up that decides the number of calls."""
    probe = max(width, 5)
    _, wall = await time_calls(call, width, probe)
    if wall < SECS:  # a second warm-up: the first one opened connections and ran cold code
        _, wall = await time_calls(call, width, probe)
    count = width * max(5 // width, 1, int(SECS / wall * probe / width))
    gc.collect()
    cpu, wall = await time_calls(call, width, count)
    return {"cpu_us": cpu / count * 1e6, "calls_a_second": count / wall}


async def check_call(peer: Peer) -> str:
    """Make one call and check its answer."""
    text = await peer.call()
    if text.strip() != ANSWER.strip():
        raise AssertionError(f"{text!r} is not the answer")
    return text


async def sequential(peer: Peer) -> Figures:
    """Measure sequential calls."""
    return {"cpu_us": (await measure_calls(lambda: check_call(peer)))["cpu_us"]}


def concurrent_calls(width: int) -> Callable[[Peer], Awaitable[Figures]]:
    """Return a measure of `width` concurrent calls."""

    async def measure(peer: Peer) -> Figures:
        return await measure_calls(lambda: check_call(peer), width)

    return measure


async def measure_chunks(peer: Peer, width: int, count: int) -> Figures:
    """Return CPU per chunk that the library returned."""
    received = 0

    async def read() -> None:
        nonlocal received
        async for text in peer.stream():
            if text:
                if not text.startswith(ANSWER):
                    raise AssertionError(f"{text!r} is not the chunk")
                received += 1

    await run_concurrently(read, width, 3)
    gc.collect()
    received = 0
    cpu, _ = await time_calls(read, width, count)
    return {"cpu_us": cpu / received * 1e6, "chunks_a_stream": received / count}


async def burst(peer: Peer) -> Figures:
    """Measure sequential streams of 500 events that arrive in one burst."""
    return await measure_chunks(peer, 1, 10)


async def paced(peer: Peer) -> Figures:
    """Measure 100 concurrent streams of 50 events a second each."""
    return await measure_chunks(peer, STREAMS_PACED, STREAMS_PACED)


async def history(peer: Peer) -> Figures:
    """Measure a repeated call with 400 messages."""
    messages = peer.history(HISTORY)
    return {"cpu_us": (await measure_calls(lambda: peer.complete(messages)))["cpu_us"]}


async def turn(peer: Peer) -> Figures:
    """Measure a growing conversation of 400 messages, by one answer and one question a turn."""
    messages = await peer.step(peer.history(HISTORY))
    gc.collect()
    cpu = time.process_time()
    for _ in range(TURNS):
        messages = await peer.step(messages)
    return {"cpu_us": (time.process_time() - cpu) / TURNS * 1e6}


async def tools(peer: Peer) -> Figures:
    """Measure a turn of a tool loop of ten turns with one tool."""

    async def run() -> None:
        text = await peer.run_tools()
        if text.strip() != ANSWER.strip():
            raise AssertionError(f"{text!r} is not the answer")

    return {"cpu_us": (await measure_calls(run))["cpu_us"] / TOOL_TURNS}


# Each measure, and the mode of the server.
MEASURES: dict[str, tuple[Callable[[Peer], Awaitable[Figures]], str]] = {
    "sequential": (sequential, "at_once"),
    "flight_64": (concurrent_calls(64), "later"),
    "flight_256": (concurrent_calls(256), "later"),
    "flight_512": (concurrent_calls(512), "later"),
    "burst": (burst, "burst"),
    "paced": (paced, "paced"),
    "history": (history, "at_once"),
    "turn": (turn, "at_once"),
    "tools": (tools, "tools"),
}


class Start:
    """The memory and the CPU time of this process before the library was imported."""

    def __init__(self) -> None:
        self.memory, self.cpu = memory_mb("VmRSS"), time.process_time()
        self.imported: Figures = {}

    def end_import(self) -> None:
        """Take the figures of the import with the first client."""
        self.imported["import_ms"] = (time.process_time() - self.cpu) * 1000
        self.imported["import_mb"] = memory_mb("VmRSS") - self.memory


def memory_mb(field: str) -> float:
    """Return the memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    with open("/proc/self/status", encoding="utf-8") as status:  # noqa: PTH123 - no import
        return int(status.read().partition(f"{field}:")[2].split()[0]) / 1024


async def cold(peer: Peer, start: Start) -> Figures:
    """Measure the import with the first client, the first answer, and 512 concurrent calls."""
    figures = dict(start.imported)
    await check_call(peer)
    figures["first_answer_ms"] = (time.process_time() - start.cpu) * 1000
    figures["first_answer_mb"] = memory_mb("VmRSS") - start.memory
    await run_concurrently(lambda: check_call(peer), 512, 512)
    figures["peak_512_mb"] = memory_mb("VmHWM") - start.memory
    from importlib.metadata import distributions

    names = {found.name for found in distributions()} - {"pip", "setuptools"}
    return figures | {"packages": len(names)}


async def measure_open(use: Call) -> Figures:
    """Return the memory of each of 500 calls or streams that are open at the same time."""
    import asyncio

    await use()
    gc.collect()
    before = peak = memory_mb("VmRSS")
    work = asyncio.gather(*(use() for _ in range(OPEN)))
    while not work.done():
        await asyncio.sleep(0.02)
        peak = max(peak, memory_mb("VmRSS"))
    await work
    return {"kb": (peak - before) / OPEN * 1024}


async def open_calls(peer: Peer, _start: Start) -> Figures:
    """Measure the memory of an open call."""
    return await measure_open(lambda: check_call(peer))


async def open_streams(peer: Peer, _start: Start) -> Figures:
    """Measure the memory of an open stream."""

    async def read() -> None:
        async for _ in peer.stream():
            pass

    return await measure_open(read)


async def kept(peer: Peer, start: Start) -> Figures:
    """Measure the peak of thousands of calls, 256 at a time, all of whose answers are kept."""
    answers: list[object] = []

    async def keep() -> None:
        answers.append(await peer.keep())

    await run_concurrently(keep, KEPT_WIDTH, KEPT)
    return {"peak_mb": memory_mb("VmHWM") - start.memory}


# The measures of a fresh process.
FRESH: dict[str, tuple[Callable[[Peer, Start], Awaitable[Figures]], str]] = {
    "cold": (cold, "later"),
    "open_calls": (open_calls, "held"),
    "open_streams": (open_streams, "held"),
    "kept": (kept, "long"),
}


def measure_fresh(name: str, kind: type[Peer], origin: str) -> Figures:
    """Measure in this process, which has done nothing before."""
    start = Start()
    peer = kind(kind.wires[0], origin)
    start.end_import()
    measure = FRESH[name][0]
    import asyncio

    async def work() -> Figures:
        async with asyncio.timeout(2 * LIMIT_SECS):
            return await measure(peer, start)

    return asyncio.run(work())


def serve(kind: type[Peer]) -> None:
    """Answer line by line, in one event loop, as a program would run."""
    import asyncio
    import json

    async def work(name: str, wire: str, origins: dict[str, str]) -> Figures:
        measure, mode = MEASURES[name]
        async with asyncio.timeout(LIMIT_SECS):
            return await measure(kind(wire, origins[mode]))

    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print_figures(lambda order: runner.run(work(*order)), json.loads(line))


def print_figures(measure: Callable[..., Figures], *order: object) -> None:
    """Print the figures, or the error."""
    try:
        answer: dict[str, object] = dict(measure(*order))
    except Exception as error:  # noqa: BLE001 - every error of a library is reported
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    import json

    print(json.dumps(answer), file=OUT, flush=True)


if __name__ == "__main__":
    OUT, sys.stdout = sys.stdout, sys.stderr  # a library may print
    if len(sys.argv) > 2:
        print_figures(measure_fresh, sys.argv[2], PEERS[sys.argv[1]], sys.argv[3])
    else:
        serve(PEERS[sys.argv[1]])
