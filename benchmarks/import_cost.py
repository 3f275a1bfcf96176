"""Compares the CPU time of `import minillmlib` with `import msgspec` alone.

Run it with `python benchmarks/import_cost.py`. Each import is timed in a fresh interpreter, in
turn, so that both run under the same load; the minimum of many runs is the cost itself.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

RUNS = 25
PROGRAM = "import time; start = time.process_time(); import {}; print(time.process_time() - start)"


def cpu_ms(module: str) -> float:
    """Return the CPU time of one import in a fresh interpreter."""
    command = [sys.executable, "-c", PROGRAM.format(module)]
    return 1000 * float(subprocess.run(command, capture_output=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    modules = ("msgspec", "minillmlib")
    runs = [tuple(cpu_ms(module) for module in modules) for _ in range(RUNS)]
    for module, times in zip(modules, zip(*runs, strict=True), strict=True):
        print(f"import {module}: min {min(times):.1f} ms, median {statistics.median(times):.1f} ms")
    ratios = [library / msgspec for msgspec, library in runs]
    print(f"ratio: median {statistics.median(ratios):.2f} over {RUNS} pairs (limit 3.5)")


if __name__ == "__main__":
    main()
