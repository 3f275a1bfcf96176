"""A long run with random faults: memory, descriptors, tasks, and the record of every request.

`python benchmarks/soak.py [CALLS]`; 1,000,000 unless said otherwise. One request in a hundred gets
a 503 or loses its connection. In the end the requests that the server saw must be the attempts that
were recorded, and memory must not have grown.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from open_streams import memory_kb
from servers import serving

from minillmlib import ChatNode, CostInfo, GeneratorInfo, MiniLLMError, NodeCompletionParameters

WORKERS = 32


class Ledger:
    """What the callbacks were told."""

    def __init__(self) -> None:
        self.reports = 0
        self.sent = 0

    def take(self, info: CostInfo) -> None:
        """One completion has ended."""
        self.reports += 1
        self.sent += sum(attempt.was_sent for attempt in info.attempts)


def descriptors() -> int:
    """How many files and sockets are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def work(calls: int, generator: GeneratorInfo, ledger: Ledger) -> int:
    """Makes some calls, a tenth of them streamed; gives how many failed for good."""
    failed = 0
    settings = NodeCompletionParameters(
        cost_callback=ledger.take, retry=3, back_off_time=0.001, timeout_secs=30
    )
    root = ChatNode.root("s")
    for number in range(calls):
        question = ChatNode.root("s").add_user("u")
        try:
            if number % 10:
                await question.complete(generator, settings)
            else:
                async with question.complete_streaming(generator, settings) as stream:
                    async for _ in stream:
                        pass
        except MiniLLMError:
            failed += 1
    assert not root.children()
    return failed


async def main(calls: int) -> None:
    """Runs in ten parts and prints a line for each."""
    ledger, failed = Ledger(), 0
    with serving(events=3, fault_share=0.01) as server:
        generator = GeneratorInfo.custom("soak", server.url, "m")
        for part in range(10):
            started = time.monotonic()
            shares = [calls // 10 // WORKERS] * WORKERS
            failed += sum(await asyncio.gather(*(work(n, generator, ledger) for n in shares)))
            print(
                f"part {part}: {memory_kb() / 1024:.1f} MB, {descriptors()} descriptors, "
                f"{len(asyncio.all_tasks())} task, {ledger.reports} reports, "
                f"{sum(shares) / (time.monotonic() - started):.0f} calls a second",
                flush=True,
            )
    print(f"{failed} failed for good; the server saw {server.seen}, recorded as sent {ledger.sent}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
