"""Builds, walks, saves, loads, searches and frees a thread of many messages.

`python benchmarks/trees.py [NODES]`; 1,000,000 by default. Prints the CPU and wall seconds of each
step, and the memory of the process after it.
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


def time_step(name: str, step: Callable[[], T]) -> T:
    """Run a step and print its time."""
    cpu, wall = time.process_time(), time.monotonic()
    result = step()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(f"{name:<28}{cpu:6.2f} s CPU {wall:6.2f} s {memory_kb() / 1024:8.1f} MB", flush=True)
    return result


def grow_thread(nodes: int) -> ChatNode:
    """Return the leaf of a thread of alternating user and assistant messages."""
    node = ChatNode.root("Be brief.")
    for number in range(nodes // 2):
        node = node.add_user(f"question {number}").add_assistant(f"answer {number}")
    return node


def make_messages(nodes: int) -> list[Message]:
    """Return the messages without a tree, to find the memory of the tree alone."""
    turns = (Message.user(f"question {n}") for n in range(nodes // 2))
    return [one for turn in turns for one in (turn, Message.assistant(str(turn.content)))]


def main(nodes: int) -> None:
    """Print a line for each step."""
    gc.disable()  # memory must be freed without the cycle collector
    print(f"{nodes} nodes, {memory_kb() / 1024:.1f} MB before")
    alone = time_step("messages alone", lambda: make_messages(nodes))
    before = memory_kb()
    _, leaf = time_step("from_messages", lambda: ChatNode.from_messages(alone))
    time_step("ids", lambda: leaf.id)
    print(f"beside the messages: {(memory_kb() - before) * 1024 / nodes:.0f} bytes a node")
    leaf = alone = None
    leaf = time_step("add_user, add_assistant", lambda: grow_thread(nodes))
    time_step("depth", lambda: leaf.depth)
    root = leaf.root_node
    time_step("depth_first", lambda: sum(1 for _ in root.depth_first()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree.jsonl")
        time_step("save_tree", lambda: root.save_tree(path))
        time_step("save_tree again", lambda: root.save_tree(path))
        print(f"a file of {path.stat().st_size / 1e6:.0f} MB")
        node_id = leaf.id
        blocks = sys.getallocatedblocks()
        leaf = root = None
        print(f"freed with the last handle: {blocks - sys.getallocatedblocks()} blocks")
        root = time_step("load_tree", lambda: ChatNode.load_tree(path))
        time_step("find", lambda: root.find(node_id))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
