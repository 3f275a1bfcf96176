"""A process that reads damaged conversations and reports what came of them.

Run it by its path. It notes every file, socket, process and piece of code that anything opens, starts
or compiles meanwhile, beside the file that it was given to read.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - the library imports these when it needs them, which is no harm
import concurrent.futures.thread  # noqa: F401
import hashlib  # noqa: F401
import json
import logging
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fuzz_inputs import FACTOR, SEED, Corpus, broken
from tree_fixture import written_messages

from minillmlib import ChatNode, StorageError

FORBIDDEN = re.compile(
    r"open|socket\..*|exec|compile|import|subprocess\..*|os\.(system|exec|fork|posix_spawn|spawn|"
    r"remove|rename|mkdir|listdir|scandir|truncate|chmod|putenv)|ctypes\..*|pickle\..*|marshal\..*|"
    r"shutil\..*|urllib\..*|webbrowser\..*"
)
PLACE = re.compile(r"', line \d+: |holds no conversation")


class Guard:
    """Notes what is forbidden while it is on; there is no way to take a hook away."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.is_on = False
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.is_on and FORBIDDEN.fullmatch(event):
            if event == "open" and (args[0] == self.allowed or isinstance(args[0], int)):
                return
            self.seen.append(f"{event} {args!r:.200}")


def told(inputs: Iterator[bytes], read: Callable[[bytes], object], guard: Guard) -> dict[str, Any]:
    counts = {"inputs": 0, "trees": 0, "errors": 0}
    for data in inputs:
        counts["inputs"] += 1
        guard.is_on = True
        try:
            read(data)
        except StorageError as error:
            counts["errors"] += 1
            message = str(error)
        else:
            counts["trees"] += 1
            message = ""
        guard.is_on = False
        assert message.isprintable(), message
        assert len(message) < 1000, message
        if read != ChatNode.from_thread_json and message:
            assert PLACE.search(message), message
    return {**counts, "forbidden": guard.seen[:20]}


def parts_of(data: bytes) -> list[bytes]:
    """Files of a line or two each, small enough for many."""
    head, *lines = data.splitlines(keepends=True)
    return [b"".join([head, *lines[: 2 + size]]) for size in range(0, len(lines), 4)]


def hostile_lines(data: bytes) -> Iterator[bytes]:
    """The file with one line in which a value is another."""
    lines = data.splitlines(keepends=True)
    chance = random.Random(SEED)
    corpora = [Corpus([line.strip()]) for line in lines]
    while True:
        place = chance.randrange(len(lines))
        yield b"".join([*lines[:place], corpora[place].hostile(chance), b"\n", *lines[place + 1 :]])


def mutations(data: bytes) -> Iterator[bytes]:
    chance = random.Random(SEED)
    seeds, lines = parts_of(data), hostile_lines(b"".join(data.splitlines(keepends=True)[:8]))
    for number in range(100_000 * FACTOR):
        yield next(lines) if number % 2 else broken(chance, seeds)


def documents(path: Path) -> Iterator[bytes]:
    _, leaf = ChatNode.from_messages(written_messages())
    leaf.set_format_kwarg("x", 1).save_thread(path)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "t"},
         {"type": "image_url", "image_url": {"url": "https://h/i", "detail": "low"}}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "r", "tool_call_id": "c", "is_error": True},
    ]  # fmt: skip
    crate = {"prompts": plain, "required_kwargs": {"name": None, "n": 1}}
    seeds = [path.read_bytes(), json.dumps(plain).encode(), json.dumps(crate).encode()]
    for seed in seeds:
        ChatNode.from_thread_json(seed)  # what is compiled once, of ours, is compiled now
    yield from Corpus(seeds).inputs(100_000 * FACTOR, "threads")


def main(mode: str, folder: str) -> None:
    logging.getLogger("minillmlib").addHandler(logging.NullHandler())
    logging.getLogger("minillmlib").propagate = False
    tree, path = Path(folder, "tree"), Path(folder, "damaged")
    guard = Guard(path)
    damaged = path.open("wb", buffering=0)  # kept open: to empty a file and close it takes the disk

    def load(data: bytes) -> ChatNode:
        guard.is_on = False
        damaged.seek(0)
        damaged.write(data)
        damaged.truncate(len(data))
        guard.is_on = True
        return ChatNode.load_tree(path)

    if mode == "threads":
        result = told(documents(path), ChatNode.from_thread_json, guard)
    else:
        data = tree.read_bytes()
        load(data)
        cuts = (data[:size] for size in range(len(data)))
        result = told(mutations(data) if mode == "mutations" else cuts, load, guard)
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
