"""What is measured, a function for each; run by the Python of the peer, in a process of its own.

`run.py` starts it: `python measures.py PEER` takes a line of JSON for each measure from its
standard input, `python measures.py PEER cold` measures what only a fresh process shows. Each
answer is a line of JSON: figures by name, or an error. Nothing is imported at the top that a bare
interpreter has not loaded or that costs: an import is part of what is measured.
"""

from __future__ import annotations

import gc
import sys
import time

from asking import Peer
from peers import PEERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    Figures: TypeAlias = dict[str, float]
    Call: TypeAlias = Callable[[], Awaitable[object]]

SECS = 1.0  # about how long a measurement takes, where a peer is not too slow for that
LIMIT_SECS = 30.0  # some lose an answer at times, and would wait for ten minutes
STREAMS_PACED = 100
HISTORY = 400
TURNS = 20
ANSWER = "word "


async def in_flight(call: Call, width: int, count: int) -> None:
    """Makes `count` calls, `width` at a time."""
    import asyncio

    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in numbers:
            await call()

    await asyncio.gather(*(one_after_the_other() for _ in range(width)))


async def timed(call: Call, width: int, count: int) -> tuple[float, float]:
    """CPU and wall seconds of so many calls."""
    cpu, wall = time.process_time(), time.perf_counter()
    await in_flight(call, width, count)
    return time.process_time() - cpu, time.perf_counter() - wall


async def repeated(call: Call, width: int = 1) -> Figures:
    """CPU per call and calls a second, after a warm-up that says how many calls are enough."""
    probe = max(width, 5)
    _, wall = await timed(call, width, probe)
    if wall < SECS:  # not at its speed yet: connections were opened, code was cold
        _, wall = await timed(call, width, probe)
    count = width * max(5 // width, 1, int(SECS / wall * probe / width))
    gc.collect()
    cpu, wall = await timed(call, width, count)
    return {"cpu_us": cpu / count * 1e6, "calls_a_second": count / wall}


async def checked(peer: Peer) -> str:
    """One call, whose answer must be the right one."""
    text = await peer.call()
    if text.strip() != ANSWER.strip():
        raise AssertionError(f"{text!r} is not the answer")
    return text


async def sequential(peer: Peer) -> Figures:
    """One call after the other."""
    return {"cpu_us": (await repeated(lambda: checked(peer)))["cpu_us"]}


def flight(width: int) -> Callable[[Peer], Awaitable[Figures]]:
    """So many calls in flight."""

    async def measure(peer: Peer) -> Figures:
        return await repeated(lambda: checked(peer), width)

    return measure


async def chunks(peer: Peer, width: int, count: int) -> Figures:
    """CPU per chunk that was handed out."""
    handed_out = 0

    async def read() -> None:
        nonlocal handed_out
        async for text in peer.stream():
            if text:
                if not text.startswith(ANSWER):
                    raise AssertionError(f"{text!r} is not the chunk")
                handed_out += 1

    await in_flight(read, width, 3)
    gc.collect()
    handed_out = 0
    cpu, _ = await timed(read, width, count)
    return {"cpu_us": cpu / handed_out * 1e6, "chunks_a_stream": handed_out / count}


async def burst(peer: Peer) -> Figures:
    """Streams of 500 events that come in one burst, one stream after the other."""
    return await chunks(peer, 1, 10)


async def paced(peer: Peer) -> Figures:
    """100 streams at once of 50 events a second each."""
    return await chunks(peer, STREAMS_PACED, STREAMS_PACED)


async def history(peer: Peer) -> Figures:
    """The same call with 400 messages, again and again."""
    messages = peer.history(HISTORY)
    return {"cpu_us": (await repeated(lambda: peer.complete(messages)))["cpu_us"]}


async def turn(peer: Peer) -> Figures:
    """A conversation of 400 messages that goes on: an answer and a question more each time."""
    messages = await peer.step(peer.history(HISTORY))
    gc.collect()
    cpu = time.process_time()
    for _ in range(TURNS):
        messages = await peer.step(messages)
    return {"cpu_us": (time.process_time() - cpu) / TURNS * 1e6}


# Each measure, and how the server answers.
MEASURES: dict[str, tuple[Callable[[Peer], Awaitable[Figures]], str]] = {
    "sequential": (sequential, "at_once"),
    "flight_64": (flight(64), "later"),
    "flight_256": (flight(256), "later"),
    "flight_512": (flight(512), "later"),
    "burst": (burst, "burst"),
    "paced": (paced, "paced"),
    "history": (history, "at_once"),
    "turn": (turn, "at_once"),
}


def memory_mb(field: str) -> float:
    """The memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    with open("/proc/self/status", encoding="utf-8") as status:  # noqa: PTH123 - no import
        return int(status.read().partition(f"{field}:")[2].split()[0]) / 1024


def cold(kind: type[Peer], origin: str) -> Figures:
    """Import with the first client, the first answer, and 512 calls in flight."""
    wire = kind.wires[0]
    memory, cpu = memory_mb("VmRSS"), time.process_time()
    peer = kind(wire, origin)
    figures = {
        "import_ms": (time.process_time() - cpu) * 1000,
        "import_mb": memory_mb("VmRSS") - memory,
    }
    import asyncio

    async def work() -> None:
        await checked(peer)
        figures["first_answer_ms"] = (time.process_time() - cpu) * 1000
        figures["first_answer_mb"] = memory_mb("VmRSS") - memory
        async with asyncio.timeout(LIMIT_SECS):
            await in_flight(lambda: checked(peer), 512, 512)
        figures["peak_512_mb"] = memory_mb("VmHWM") - memory

    asyncio.run(work())
    from importlib.metadata import distributions

    names = {found.name for found in distributions()} - {"pip", "setuptools"}
    return figures | {"packages": len(names)}


def serve(kind: type[Peer]) -> None:
    """Answers one line after the other, in one event loop, as a program would run."""
    import asyncio
    import json

    async def work(name: str, wire: str, origins: dict[str, str]) -> Figures:
        measure, mode = MEASURES[name]
        async with asyncio.timeout(LIMIT_SECS):
            return await measure(kind(wire, origins[mode]))

    with asyncio.Runner() as runner:
        for line in sys.stdin:
            tell(lambda order: runner.run(work(*order)), json.loads(line))


def tell(measure: Callable[..., Figures], *order: object) -> None:
    """Prints what was measured, or why it could not be."""
    try:
        answer: dict[str, object] = dict(measure(*order))
    except Exception as error:  # noqa: BLE001 - whatever a library raises ends up in the report
        answer = {"error": f"{type(error).__name__}: {error}"[:300]}
    import json

    print(json.dumps(answer), file=OUT, flush=True)


if __name__ == "__main__":
    OUT, sys.stdout = sys.stdout, sys.stderr  # a library may print
    if len(sys.argv) > 2:
        tell(cold, PEERS[sys.argv[1]], sys.argv[2])
    else:
        serve(PEERS[sys.argv[1]])
