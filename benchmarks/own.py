"""What only this library has: a tree's memory and files, the repair of JSON, the import itself.

`run.py` starts it with our Python; it prints one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from import_cost import cpu_ms
from open_streams import memory_kb
from trees import messages

from minillmlib import ChatNode

NODES = 200_000
IMPORTS = 9


def micros_a_node(step: Callable[[], object]) -> float:
    """The CPU time of a step, by node."""
    started = time.process_time()
    step()
    return (time.process_time() - started) / NODES * 1e6


def of_trees() -> dict[str, float]:
    """One long thread."""
    alone = messages(NODES)
    before = memory_kb()
    root, _ = ChatNode.from_messages(alone)
    figures = {"tree: bytes a node beside its message": (memory_kb() - before) * 1024 / NODES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree.jsonl")
        figures["tree: µs CPU a node to save"] = micros_a_node(lambda: root.save_tree(path))
        figures["tree: µs CPU a node to load"] = micros_a_node(lambda: ChatNode.load_tree(path))
    return figures


def of_json() -> dict[str, float]:
    """A short broken answer repaired, and valid JSON beside the standard library."""
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


def of_import() -> dict[str, float]:
    """In turn with the import of msgspec alone."""
    pairs = [(cpu_ms("msgspec"), cpu_ms("minillmlib")) for _ in range(IMPORTS)]
    ratios = [ours / theirs for theirs, ours in pairs]
    return {"import: ratio to import msgspec": statistics.median(ratios)}


if __name__ == "__main__":
    print(json.dumps(of_import() | of_json() | of_trees()))
