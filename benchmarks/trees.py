"""A thread of many messages: built, walked, named, saved, loaded, found and freed.

`python benchmarks/trees.py [NODES]`; 1,000,000 unless said otherwise. Prints, for each step, the
seconds of the processor and of the clock, and the memory that the process has after it.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from open_streams import memory_kb

from minillmlib import ChatNode, Message

T = TypeVar("T")


def timed(name: str, step: Callable[[], T]) -> T:
    """Does a step and prints what it took."""
    cpu, wall = time.process_time(), time.monotonic()
    result = step()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(f"{name:<28}{cpu:6.2f} s CPU {wall:6.2f} s {memory_kb() / 1024:8.1f} MB", flush=True)
    return result


def grown(nodes: int) -> ChatNode:
    """The leaf of a thread in which two take turns."""
    node = ChatNode.root("Be brief.")
    for number in range(nodes // 2):
        node = node.add_user(f"question {number}").add_assistant(f"answer {number}")
    return node


def messages(nodes: int) -> list[Message]:
    """The same messages without a tree: what is left is what the tree takes."""
    turns = (Message.user(f"question {n}") for n in range(nodes // 2))
    return [one for turn in turns for one in (turn, Message.assistant(str(turn.content)))]


def main(nodes: int) -> None:
    """Prints a line for each step."""
    gc.disable()  # so that what is freed was freed without it
    print(f"{nodes} nodes, {memory_kb() / 1024:.1f} MB before")
    alone = timed("messages alone", lambda: messages(nodes))
    before = memory_kb()
    _, leaf = timed("from_messages", lambda: ChatNode.from_messages(alone))
    timed("ids", lambda: leaf.id)
    print(f"beside the messages: {(memory_kb() - before) * 1024 / nodes:.0f} bytes a node")
    leaf = alone = None
    leaf = timed("add_user, add_assistant", lambda: grown(nodes))
    timed("depth", lambda: leaf.depth)
    root = leaf.root_node
    timed("depth_first", lambda: sum(1 for _ in root.depth_first()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree.jsonl")
        timed("save_tree", lambda: root.save_tree(path))
        timed("save_tree again", lambda: root.save_tree(path))
        print(f"a file of {path.stat().st_size / 1e6:.0f} MB")
        own = leaf.id
        blocks = sys.getallocatedblocks()
        leaf = root = None
        print(f"freed with the last handle: {blocks - sys.getallocatedblocks()} blocks")
        root = timed("load_tree", lambda: ChatNode.load_tree(path))
        timed("find", lambda: root.find(own))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
