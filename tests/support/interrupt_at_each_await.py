"""A coroutine that can be interrupted at each of its waits in turn.

Use it to cancel, or to abandon, at every place where that can happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Literal

Deed = Callable[[asyncio.Task], None]


class Stepped:
    """A coroutine whose waits are counted, and which is interrupted at the one numbered `at`.

    `deed` interrupts its task, either while it waits, or when what it waits for has come but
    before it can know. With `again` it is done once more at the wait after that, and in the turn
    of the loop between them: in the middle of whatever cleaning up there is.
    """

    def __init__(
        self,
        coroutine: Coroutine,
        at: int,
        deed: Deed,
        *,
        when: Literal["waiting", "ready"] = "waiting",
        again: bool = False,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.waits = 0
        self.interrupted_at: float | None = None
        self._coroutine = coroutine
        self._at = at
        self._deed = deed
        self._when = when
        self._again = again
        self._on_wait = on_wait

    async def run(self) -> object:
        """Run it to its end in the current task."""
        return await self

    def __await__(self) -> Generator:
        error = None
        while True:
            try:
                if error is None:
                    awaited = self._coroutine.send(None)
                else:
                    awaited = self._coroutine.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            self._look(awaited)
            self._on_wait()
            error = None
            try:
                yield awaited
            except BaseException as thrown:  # noqa: BLE001 - passed on to the coroutine
                error = thrown

    def _look(self, awaited: asyncio.Future | None) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if self.waits == self._at:
            if self._when == "waiting":
                self._interrupt(task)
            elif awaited is None:  # a bare turn of the loop
                loop.call_soon(self._interrupt, task)
            else:
                awaited.add_done_callback(lambda _: self._interrupt(task))
            if self._again:
                loop.call_soon(self._deed, task)
        elif self.waits == self._at + 1 and self._again:
            self._deed(task)

    def _interrupt(self, task: asyncio.Task) -> None:
        self.interrupted_at = time.monotonic()
        self._deed(task)
