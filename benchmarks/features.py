"""Measures what only this library has, trees, files, bulk runs, JSON repair, and its import.

`run.py` starts it in the environment of the library; it prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bulk_rows import ask_by_gather, ask_by_run
from import_cost import cpu_ms
from open_streams import memory_kb
from servers import run_server
from trees import make_messages

from minillmlib import ChatNode, GeneratorInfo, Recording

NODES = 200_000
IMPORTS = 9
ROWS, BULK_ROUNDS = 3000, 5
REPLAYED = 2000


def micros_per_node(step: Callable[[], object]) -> float:
    """Return the CPU time of a step per node."""
    started = time.process_time()
    step()
    return (time.process_time() - started) / NODES * 1e6


def measure_trees() -> dict[str, float]:
    """Measure one long thread."""
    alone = make_messages(NODES)
    before = memory_kb()
    root, _ = ChatNode.from_messages(alone)
    figures = {"tree: bytes a node beside its message": (memory_kb() - before) * 1024 / NODES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree.jsonl")
        figures["tree: µs CPU a node to save"] = micros_per_node(lambda: root.save_tree(path))
        figures["tree: µs CPU a node to load"] = micros_per_node(lambda: ChatNode.load_tree(path))
    return figures


def measure_json() -> dict[str, float]:
    """Measure the repair of a short answer, and valid JSON beside the standard library."""
    try:
        repairing = importlib.import_module("repairing_json")
    except ImportError:
        return {}
    best, valid = repairing.best_micros, repairing.long_document()
    loads = repairing.minillmlib.loads
    return {
        "JSON: µs to repair 190 characters": best(loads, repairing.SHORT),
        "JSON: valid 14 kB, ratio to json.loads": best(loads, valid) / best(json.loads, valid),
    }


async def measure_rows(generator: GeneratorInfo) -> tuple[float, float]:
    """Return the CPU time of a row with `map_complete`, and its ratio to `gather`, in turn."""
    rows, ratios = [], []
    for _ in range(BULK_ROUNDS):
        started = time.process_time()
        await ask_by_gather(ROWS, generator)
        between = time.process_time()
        await ask_by_run(ROWS, generator, None)
        rows.append(time.process_time() - between)
        ratios.append(rows[-1] / (between - started))
    return statistics.median(rows) / ROWS * 1e6, statistics.median(ratios)


def measure_bulk() -> dict[str, float]:
    """Measure a row of a bulk run, beside a call with `gather`."""
    with run_server() as server:
        generator = GeneratorInfo.custom("bench", server.url, "m")
        row, ratio = asyncio.run(measure_rows(generator))
    return {"bulk: µs CPU a row": row, "bulk: ratio to gather": ratio}


async def ask_all(generator: GeneratorInfo) -> None:
    """Make the calls of a recording one after the other."""
    for number in range(REPLAYED):
        await ChatNode.root("Be brief.").chat(f"Row {number}", generator)


def measure_replay() -> dict[str, float]:
    """Measure a call that is answered from a recording."""
    with run_server() as server, tempfile.TemporaryDirectory() as folder:
        generator, path = GeneratorInfo.custom("bench", server.url, "m"), Path(folder, "calls")
        with Recording(path) as recording:
            asyncio.run(ask_all(generator.with_transport(recording)))
        with Recording(path, mode="replay") as recording:
            started = time.process_time()
            asyncio.run(ask_all(generator.with_transport(recording)))
            secs = time.process_time() - started
    return {"recording: µs CPU a replayed call": secs / REPLAYED * 1e6}


def measure_import() -> dict[str, float]:
    """Measure the import in turn with the import of msgspec alone."""
    pairs = [(cpu_ms("msgspec"), cpu_ms("minillmlib")) for _ in range(IMPORTS)]
    ratios = [library / msgspec for msgspec, library in pairs]
    return {"import: ratio to import msgspec": statistics.median(ratios)}


if __name__ == "__main__":
    alone = measure_import() | measure_json() | measure_bulk() | measure_replay()
    print(json.dumps(alone | measure_trees()))
