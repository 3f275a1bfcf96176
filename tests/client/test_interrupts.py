"""Ctrl-C at any line of ours in a call or a stream: tree and budget stay whole, the next call works.

The interrupt is raised by the tracer, at one line after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import sys
from pathlib import Path

import pytest
from short_answers import said, scripted, streamed

import minillmlib
from minillmlib import (
    Budget,
    ChatNode,
    CompletionParameters,
    NodeCompletionParameters,
    TokenPrice,
    iterate,
    run,
)

SOURCE = str(Path(minillmlib.__file__).parent)
PRICE = TokenPrice("1", "1")


class InterruptAt:
    """Raises `KeyboardInterrupt` at the line of ours that comes as number `at`."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.lines = 0
        self._last: dict[int, int] = {}  # by the id of the frame

    def __enter__(self) -> None:
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame, _event, _arg):
        return self._step if frame.f_code.co_filename.startswith(SOURCE) else None

    def _step(self, frame, event, _arg):
        if event == "line" and not self._is_leaving_with(frame):
            self.lines += 1
            if self.lines == self.at:
                raise KeyboardInterrupt
        return self._step

    def _is_leaving_with(self, frame) -> bool:
        """Whether the line is a `with` that ends: no signal comes between its body and its exit."""
        line, last = frame.f_lineno, self._last.get(id(frame), 0)
        self._last[id(frame)] = line
        text = linecache.getline(frame.f_code.co_filename, line).lstrip()
        return last > line and text.startswith(("with ", "async with "))


def whole_in_a_loop(root, settings, interrupt):
    async def main() -> None:
        with interrupt:
            await root.chat("u", priced(said("ok")), settings)

    asyncio.run(main())


def streamed_in_a_loop(root, settings, interrupt):
    async def main() -> None:
        with interrupt:
            async with root.chat_streaming("u", priced(streamed("a", "b")), settings) as stream:
                async for _ in stream:
                    pass

    asyncio.run(main())


def whole_by_run(root, settings, interrupt):
    with interrupt:
        run(root.chat("u", priced(said("ok")), settings))


def streamed_by_iterate(root, settings, interrupt):
    stream = root.chat_streaming("u", priced(streamed("a", "b")), settings)
    with interrupt:
        for _ in iterate(stream):
            pass


def priced(reply):
    return scripted(reply).with_token_price(PRICE)


def check(root: ChatNode, budget: Budget, settings: NodeCompletionParameters) -> None:
    nodes = root.in_insertion_order()
    assert len(nodes) == root.node_count() == len(list(root.depth_first()))
    assert all(node.path()[0] == root for node in nodes)
    assert run(root.chat("v", priced(said("next")), settings)).text == "next"
    assert budget.reserved == 0
    assert budget.spent >= 0


# How far apart the lines are. All 3,400 of them take half a minute.
CALLS = {
    whole_in_a_loop: 7,
    streamed_in_a_loop: 13,
    whole_by_run: 1,
    streamed_by_iterate: 1,
}


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # in a destructor
@pytest.mark.filterwarnings("ignore:a completion stream was dropped:ResourceWarning")
@pytest.mark.parametrize("call", CALLS, ids=lambda it: it.__name__)
def test_an_interrupt_at_any_line_leaves_everything_whole(call):
    gc.collect()
    gc.disable()  # else it is destructors of earlier rounds that are interrupted
    try:
        count = 0
        for at in range(1, 10_000, CALLS[call]):
            root, budget, interrupt = ChatNode.root("s"), Budget(10), InterruptAt(at)
            settings = NodeCompletionParameters(
                params=CompletionParameters(max_tokens=9), budget=budget, retry=0
            )
            with contextlib.suppress(KeyboardInterrupt):
                call(root, settings, interrupt)
            check(root, budget, settings)
            if interrupt.lines < at:
                break
            count += 1
        assert count >= 30
    finally:
        gc.enable()
