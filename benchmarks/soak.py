"""Makes many calls with random faults: memory, descriptors, tasks, and the record of every request.

`python benchmarks/soak.py [CALLS]`; 1,000,000 by default. One request in a hundred gets a 503 or
loses its connection. At the end, the requests that the server received must equal the recorded
attempts, and memory must not have grown.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from open_streams import memory_kb
from servers import run_server

from minillmlib import ChatNode, CostInfo, GeneratorInfo, MiniLLMError, NodeCompletionParameters

WORKERS = 32


class Ledger:
    """Counts the reports of the cost callback."""

    def __init__(self) -> None:
        self.reports = 0
        self.sent = 0

    def record(self, info: CostInfo) -> None:
        """Count one completion that has ended."""
        self.reports += 1
        self.sent += sum(attempt.was_sent for attempt in info.attempts)


def descriptors() -> int:
    """Return the number of open files and sockets."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def make_calls(calls: int, generator: GeneratorInfo, ledger: Ledger) -> int:
    """Make calls, a tenth of them streamed; return how many failed after all retries."""
    failed = 0
    settings = NodeCompletionParameters(
        cost_callback=ledger.record, retry=3, back_off_time=0.001, timeout_secs=30
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
    """Run in ten parts and print a line for each."""
    ledger, failed = Ledger(), 0
    with run_server(events=3, fault_share=0.01) as server:
        generator = GeneratorInfo.custom("soak", server.url, "m")
        for part in range(10):
            started = time.monotonic()
            shares = [calls // 10 // WORKERS] * WORKERS
            failed += sum(await asyncio.gather(*(make_calls(n, generator, ledger) for n in shares)))
            print(
                f"part {part}: {memory_kb() / 1024:.1f} MB, {descriptors()} descriptors, "
                f"{len(asyncio.all_tasks())} task, {ledger.reports} reports, "
                f"{sum(shares) / (time.monotonic() - started):.0f} calls a second",
                flush=True,
            )
    print(f"{failed} failed; the server received {server.seen}, recorded as sent {ledger.sent}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
