"""A process of a job, for tests that run several of them, or kill some.

Run it by its path with a file that holds the pickled job, the numbers of its first row and of the
one after its last, the rows of a part, and the port of a bank or 0. It prints "ready", waits
for a line, and prints the results of each part as lines of JSON.
"""

from __future__ import annotations

import json
import pickle
import sys
from multiprocessing.managers import BaseManager
from pathlib import Path


class BankManager(BaseManager):
    """Holds a bank for processes of one machine."""


BankManager.register("bank")


def main(job_file: str, first: int, end: int, part: int, port: int) -> None:
    job = pickle.loads(Path(job_file).read_bytes())
    bank = None
    if port:
        manager = BankManager(("127.0.0.1", port), authkey=b"bank")
        manager.connect()
        bank = manager.bank()
    runtime = job.runtime(bank=bank)
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(first, end, part):
        rows = [{"text": f"row {number}"} for number in range(start, min(start + part, end))]
        for result in runtime.rows(rows):
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
