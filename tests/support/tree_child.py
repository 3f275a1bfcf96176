"""A process that writes trees and dies while it does.

Run it by its path. The first argument says what it does: `step` saves once for each line of JSON on
its input, in a fork that kills itself at a given step between the calls of the system; `journal` grows
a journal and prints the id of each node that is kept; `save` saves the same tree many times;
`writer` shares a journal with others.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillmlib import ChatNode

COUNTED = ("open", "fsync", "replace", "chmod", "close", "stat", "unlink")


def grown(name: str, nodes: int) -> ChatNode:
    """A tree that depends on its name and size only."""
    node = root = ChatNode.root("s")
    for number in range(nodes):
        node = node.add_user(f"{name} {number}")
    return root


class Steps:
    """Counts what is done, and kills this process at one of the counts."""

    def __init__(self, last: int) -> None:
        self.left = last

    def take(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.take()
            result = call(*args, **kwargs)
            self.take()
            return result

        return counted

    def watch(self) -> None:
        """From here on the calls of the system that the library makes are counted."""
        for name in COUNTED:
            setattr(os, name, self.around(getattr(os, name)))
        steps, plain_open = self, io.open

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                steps.take()
                half = super().write(memoryview(data)[: len(data) // 2])
                steps.take()
                return half + super().write(memoryview(data)[half:])

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if "x" not in mode:
                return plain_open(file, mode, *args, **kwargs)
            steps.take()
            return io.BufferedWriter(Raw(file, mode.replace("b", "")), 256)

        io.open = opened


def die_at_steps() -> None:
    os.fsync = os.fstat  # a killed process loses nothing that it has written, only a power cut does
    for line in sys.stdin:
        job = json.loads(line)
        root = grown(job["name"], job["nodes"])
        child = os.fork()
        if not child:
            Steps(job["step"]).watch()
            root.save_tree(job["path"])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"died": os.WIFSIGNALED(status), "status": status}), flush=True)


def grow_a_journal(path: str) -> None:
    root = ChatNode.root("s")
    root.attach_journal(path)
    node = next(root.leaves())
    number = node.depth
    while True:
        number += 1
        node = node.add_user(f"{number} " + "x" * (number * 997 % 5000))
        os.write(1, node.id.encode() + b"\n")


def save_often(path: str, name: str, times: str) -> None:
    root = grown(name, len(name) * 100)
    for _ in range(int(times)):
        root.save_tree(Path(path))


def write_among_others(path: str, seed: str) -> None:
    """Do all that writes to one journal, at random; print the id of each node that is kept."""
    chance = random.Random(seed)
    root = ChatNode.root("s")
    root.attach_journal(path)
    nodes = root.in_insertion_order()
    while True:
        match chance.randrange(12):
            case 0:
                root.attach_journal(path)
            case 1:
                root.save_tree(path)
            case 2:
                assert root.id == ChatNode.load_tree(path).id
            case 3:
                chance.choice(nodes).set_format_kwarg("x", chance.randrange(9))
            case 4:
                chance.choice(nodes).cache_breakpoint("1h")
            case 5:
                root = ChatNode.load_tree(path)
                root.attach_journal(path)
                nodes = root.in_insertion_order()
            case _:
                node = chance.choice(nodes).add_user(f"{seed} {chance.random()}" + "x" * 500)
                nodes.append(node)
                os.write(1, node.id.encode() + b"\n")


if __name__ == "__main__":
    {
        "step": die_at_steps,
        "journal": grow_a_journal,
        "save": save_often,
        "writer": write_among_others,
    }[sys.argv[1]](*sys.argv[2:])
