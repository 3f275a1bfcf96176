"""The cost of a piece of work: in steps of the interpreter, and in how it grows with its input.

Use `steps_of` for a bound that no machine moves, and `check_linear` for work on hostile input.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path

import minillmlib

OURS = str(Path(minillmlib.__file__).parent)


def steps_of(work, counts=lambda _frame: True, *, packages=(OURS,)) -> int:
    """How many instructions of our own code are executed, the second time that it is done.

    `counts` says of the frame of each instruction whether it counts, of those in the folders of
    `packages`.
    """
    work()
    steps = 0

    def trace(frame, event, _argument):
        nonlocal steps
        if event == "call":
            if not frame.f_code.co_filename.startswith(packages):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            steps += counts(frame)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


MAX_RATIO = 2.6  # times as long, for twice as much


MIN_ROUNDS, MAX_ROUNDS = 2, 40  # in turn; the best of each size counts


Work = Callable[[int], object]


def cpu_secs(work: Work, size: int) -> float:
    started = time.thread_time()  # and not of threads that other tests left
    work(size)
    return time.thread_time() - started


def check_linear(work: Work, size: int) -> None:
    """Measure until the best times are near enough: other work can only make them longer."""
    gc.disable()  # its pauses grow with everything else that is alive
    try:
        once = twice = float("inf")
        for number in range(MAX_ROUNDS):
            once = min(once, cpu_secs(work, size))
            twice = min(twice, cpu_secs(work, 2 * size))
            if number + 1 >= MIN_ROUNDS and twice <= MAX_RATIO * once:
                return
    finally:
        gc.enable()
    raise AssertionError(f"twice as much takes {twice / once:.1f} times as long")
