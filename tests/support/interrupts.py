"""A signal at a given place: KeyboardInterrupt where Python could raise it.

`interrupt_at(files, number)` raises it at the given line, counted over all lines of those files that
are executed inside of the `with` block, as Ctrl-C does when it comes at that moment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import minillmlib

SOURCE = str(Path(minillmlib.__file__).parent)


@contextmanager
def interrupt_at(
    number: int,
    *,
    folder: str = "",
    opcodes: bool = False,
    handler: Callable[[], object] | None = None,
) -> Iterator[list[str]]:
    """Raise KeyboardInterrupt at the given step below a folder of our source; swallow it.

    Or call a handler there, as that of a signal, after which the work goes on. Yields a list that
    gets the place of the interrupt, and stays empty if there were fewer steps.
    """
    below, place, steps = f"{SOURCE}/{folder}", list[str](), 0

    def local(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        if event == ("opcode" if opcodes else "line") and not place:
            if steps == number:
                place.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                sys.settrace(None)
                if handler is None:
                    raise KeyboardInterrupt
                handler()
            steps += 1
        return local

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        if place or not frame.f_code.co_filename.startswith(below):
            return None
        frame.f_trace_opcodes = opcodes
        return local

    former = sys.gettrace()
    sys.settrace(enter)
    try:
        yield place
    except KeyboardInterrupt:
        if not place:
            raise
    finally:
        sys.settrace(former)
