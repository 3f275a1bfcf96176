"""Measures the overhead of map_complete: CPU a row beside gather, and memory.

`python benchmarks/bulk_rows.py [ROWS]`; 1,000,000 by default. The rows are lazy, and a server on
loopback answers at once. Each way is a process of its own.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from servers import run_server

from minillmlib import ChatNode, GeneratorInfo, TokenPrice, map_complete

WIDTH = 100
WAYS = ("gather", "map_complete", "journal", "rerun")


def rows_of(count: int) -> Iterator[dict[str, object]]:
    """Yield the rows one by one."""
    for number in range(count):
        yield {"n": number}


async def ask_by_gather(count: int, generator: GeneratorInfo) -> int:
    """Make the calls with a semaphore; return how many were answered."""
    width = asyncio.Semaphore(WIDTH)

    async def one(number: int) -> bool:
        async with width:
            node = await ChatNode.root("Be brief.").chat(f"Row {number}", generator)
        return node.text is not None

    return sum(await asyncio.gather(*map(one, range(count))))


async def ask_by_run(count: int, generator: GeneratorInfo, journal: str | None) -> int:
    """Make the calls with map_complete; return how many were answered."""
    prompt = ChatNode.root("Be brief.").add_user("Row {n}")
    done = 0
    async with map_complete(
        rows_of(count), generator, prompt=prompt, journal=journal, width=WIDTH
    ) as bulk:
        async for outcome in bulk:
            done += outcome.error is None
    return done


def measure(way: str, url: str, count: int, journal: str) -> None:
    """Make the calls in one way, and print what they took."""
    generator = GeneratorInfo.custom("m", url, "m").with_token_price(TokenPrice(1, 5))
    started, cpu = time.monotonic(), time.process_time()
    if way == "gather":
        done = asyncio.run(ask_by_gather(count, generator))
    else:
        path = None if way == "map_complete" else journal
        done = asyncio.run(ask_by_run(count, generator, path))
    cpu, secs = time.process_time() - cpu, time.monotonic() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{way:12} {done:,} of {count:,} rows, {cpu / count * 1e6:.0f} us of CPU a row, "
        f"{count / secs:,.0f} rows/s, {peak_mb:.0f} MB at most",
        flush=True,
    )


def main() -> None:
    """Measure each way in a process of its own."""
    if sys.argv[1:2] == ["--way"]:
        way, url, count, journal = sys.argv[2:]
        measure(way, url, int(count), journal)
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with run_server() as server, tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            if way == "gather" and count > 100_000:
                continue  # it holds all calls at once
            journal = str(Path(folder) / "rows.journal")
            command = [sys.executable, __file__, "--way", way, server.url, str(count), journal]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
