"""Asks rows in several processes that share one rate; counts refusals, calls of the bank and bytes.

`python benchmarks/workers.py [--workers 2] [--rows 1500] [--rate 100]`, about half a minute. Each
way to share is measured in turn: by nothing, by equal shares, and by leases of a bank. Four
fifths of the rows are one worker's, so that the workers are uneven. All traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from multiprocessing.managers import BaseManager
from pathlib import Path

from bulk import Server
from minillmlib import Bank, Bulk, ChatNode, GeneratorInfo, Pace, TokenPrice

WAYS = ("nothing", "shares", "bank")


class Manager(BaseManager):
    """Holds the bank for all processes."""


class CountingBank:
    """A bank that counts its calls."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self.calls = 0

    def lease(self, *args: object) -> object:
        """Lease, and count it."""
        self.calls += 1
        return self._bank.lease(*args)  # type: ignore[arg-type] # as the worker calls it

    def give_back(self, *args: object) -> None:
        """Give back, and count it."""
        self.calls += 1
        self._bank.give_back(*args)  # type: ignore[arg-type] # as the worker calls it


def job_of(url: str, folder: str, way: str, workers: int, rate: int) -> Bulk:
    """Return the job of one way to share."""
    return Bulk(
        GeneratorInfo.custom("t", url, "m").with_token_price(TokenPrice(1, 5)),
        prompt=ChatNode.root().add_user("{text}"),
        pace=Pace(60 * rate),
        journal=folder,
        workers=1 if way == "nothing" else workers,
        prefix="a_",
    )


def ask(url: str, folder: str, way: str, numbers: str) -> None:
    """Ask about rows in this process."""
    workers, rate, first, end, port = map(int, numbers.split(","))
    bank = None
    if way == "bank":
        Manager.register("bank")
        manager = Manager(("127.0.0.1", port), authkey=b"bank")
        manager.connect()
        bank = manager.bank()  # type: ignore[attr-defined] # registered
    runtime = job_of(url, folder, way, workers, rate).runtime(bank=bank)
    rows = runtime.rows([{"text": f"row {number}"} for number in range(first, end)])
    failed = sum(row["a_error"] is not None for row in rows)
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([failed, cpu.ru_utime + cpu.ru_stime]))


def size_of(folder: str) -> int:
    """Return the bytes of all shards."""
    return sum(file.stat().st_size for file in Path(folder).glob("*.jsonl"))


async def measure(way: str, workers: int, rows: int, rate: int) -> None:
    """Run one way, and print a line of the table."""
    server = Server(rate)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=1000)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    with tempfile.TemporaryDirectory() as base:
        folder = str(Path(base) / "run")
        bank = CountingBank(job_of(url, folder, way, workers, rate).bank())
        Manager.register("bank", callable=lambda: bank)
        manager = Manager(("127.0.0.1", 0), authkey=b"bank").get_server()
        threading.Thread(target=manager.serve_forever, daemon=True).start()
        first, rest = rows * 4 // 5, rows - rows * 4 // 5
        bounds = [0, *(first + rest * part // (workers - 1) for part in range(workers))]
        started = time.monotonic()
        children = [
            await asyncio.create_subprocess_exec(
                sys.executable, __file__, "--ask", url, folder, way,
                f"{workers},{rate},{first},{end},{manager.address[1]}", stdout=subprocess.PIPE,
            )
            for first, end in pairwise(bounds)
        ]  # fmt: skip
        printed = await asyncio.gather(*(child.communicate() for child in children))
        secs = time.monotonic() - started
        results = [json.loads(out) for out, _ in printed]
        size = size_of(folder)
    listener.close()
    print(
        f"| {way} | {sum(failed for failed, _ in results)} | {server.refused} | {secs:.1f} s | "
        f"{sum(cpu for _, cpu in results):.1f} s | {bank.calls} | {size / rows:.0f} |"
    )


def main() -> None:
    """Measure each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask(*options.ask)
        return
    ideal = options.rows / options.rate
    print(f"{options.workers} workers, {options.rows} rows, ideal {ideal:.0f} s")
    print("| shared by | rows lost | refused | time | CPU | bank calls | bytes a row |")
    print("|---|---|---|---|---|---|---|")
    for way in WAYS:
        asyncio.run(measure(way, options.workers, options.rows, options.rate))


if __name__ == "__main__":
    main()
