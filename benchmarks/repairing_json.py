"""Measure broken, valid and growing JSON, also with the other libraries that are installed.

Run it in a separate environment: `pip install . json-repair fast-json-repair jiter`, then
`python benchmarks/repairing_json.py`. Prints the best of several rounds, in microseconds.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import TypeAlias

import minillmlib
from minillmlib.json_repair import PartialJson

Work: TypeAlias = Callable[[str], object]

ROUNDS = 9
PIECES = 1000
SHORT = (
    '{\'name\': "Bob", "tags": ["a", \'b\',], age: 33, "ok": True, "text": "he said "hi" to '
    'me", "address": {"street": "Main", "no": 5,}, "x": None, "more": [1,2,3,], "end": "text", }'
)
FENCED = 'Sure:\n```json\n{"city": "Oslo", "n": [1, 2]}\n```\n'


def long_document() -> str:
    """Return about 14 kB of valid JSON, like an answer with many records."""
    records = [
        {"id": number, "name": f"user {number}", "tags": ["alpha", "beta"], "score": number * 1.5,
         "ok": number % 2 == 0, "note": "some text that is a bit longer, with commas"}
        for number in range(80)
    ]  # fmt: skip
    return json.dumps({"users": records}, indent=1)


def best_micros(work: Work, text: str) -> float:
    """Return the shortest time of one call."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work(text)
        best = min(best, time.perf_counter() - started)
    return best * 1e6


def read_growing(text: str) -> object:
    """Look at the known part of the value after each piece, as ours does."""
    partial, size = PartialJson(), len(text) // PIECES + 1
    for start in range(0, len(text), size):
        partial.feed(text[start : start + size])
        assert partial.value is not None or start < size
    return partial.finish()


def parse_growing(parse: Work) -> Work:
    """Parse the whole text so far after each piece, as others do."""

    def work(text: str) -> None:
        size = len(text) // PIECES + 1
        for start in range(0, len(text), size):
            parse(text[: start + size])

    return work


def optional(name: str) -> ModuleType | None:
    """Return a library if it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def main() -> None:
    """Print a line for each library and text."""
    valid = long_document()
    comma = valid[:-1] + ",}"
    broken = comma.replace("true", "True").replace('"id"', "id").replace('"alpha"', "'alpha'")
    texts = {
        "a fence around valid JSON": FENCED,
        "190 broken characters": SHORT,
        "14 kB, one comma": comma,
        "14 kB, broken": broken,
    }
    repairers: dict[str, Work] = {"minillmlib": minillmlib.loads}
    for name in ("json_repair", "fast_json_repair"):
        if library := optional(name):
            repairers[name] = library.loads
    rows = [
        (name, title, work, text)
        for title, text in texts.items()
        for name, work in repairers.items()
    ]
    rows += [
        ("minillmlib", "14 kB, valid", minillmlib.loads, valid),
        ("json", "14 kB, valid", json.loads, valid),
    ]
    rows.append(("minillmlib", "growing", read_growing, valid))
    if jiter := optional("jiter"):
        parse = jiter.from_json
        rows.append(
            (
                "jiter",
                "growing",
                parse_growing(lambda text: parse(text.encode(), partial_mode="trailing-strings")),
                valid,
            )
        )
    for name, title, work, text in rows:
        print(f"{title:28} {name:18} {best_micros(work, text):10,.0f} us")


if __name__ == "__main__":
    main()
