"""Writes the figures as tables, as JSON, and as a picture.

`python benchmarks/report.py results/DATE.json` draws the picture again; it needs matplotlib.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# Each row: the figure, its group, its title, its unit.
WIRES = {
    "openai": "OpenAI wire", "anthropic": "Anthropic wire", "responses": "Responses wire",
}  # fmt: skip
ROWS = {
    f"{measure}/{wire}/{figure}": (group, title, unit)
    for wire, group in WIRES.items()
    for measure, figure, title, unit in (
        ("sequential", "cpu_us", "one call after the other", "µs"),
        ("flight_64", "cpu_us", "64 in flight", "µs"),
        ("flight_256", "cpu_us", "256 in flight", "µs"),
        ("flight_512", "cpu_us", "512 in flight", "µs"),
        ("flight_64", "calls_a_second", "64 in flight", "calls/s"),
        ("flight_256", "calls_a_second", "256 in flight", "calls/s"),
        ("flight_512", "calls_a_second", "512 in flight", "calls/s"),
        ("burst", "cpu_us", "chunk in a burst", "µs"),
        ("paced", "cpu_us", "chunk, 50/s in 100 streams", "µs"),
        ("history", "cpu_us", "call with 400 messages", "µs"),
        ("turn", "cpu_us", "next turn after 400", "µs"),
        ("tools", "cpu_us", "turn of a tool loop", "µs"),
    )
} | {
    row: ("Process", title, unit)
    for row, title, unit in (
        ("cold/import_ms", "import and client", "ms"),
        ("cold/first_answer_ms", "import to first answer", "ms"),
        ("cold/import_mb", "memory, import and client", "MB"),
        ("cold/first_answer_mb", "memory, first answer", "MB"),
        ("cold/peak_512_mb", "peak memory, 512 in flight", "MB"),
        ("open_calls/kb", "memory of an open call", "kB"),
        ("open_streams/kb", "memory of an open stream", "kB"),
        ("kept/peak_mb", "peak memory, 4,096 answers kept", "MB"),
        ("cold/packages", "installed packages", "count"),
    )
}


class Results:
    """The figures of all runs."""

    def __init__(
        self, machine: dict[str, str], versions: dict[str, str], reference: str, subject: str
    ) -> None:
        self.machine, self.versions = machine, versions
        self.reference, self.subject = reference, subject
        self.run = 0
        self.samples: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
        self.errors: dict[str, str] = {}
        self.features: dict[str, float] = {}

    def add(self, peer: str, measure: str, answer: dict[str, float | str]) -> None:
        """Add the answer of a measure."""
        if "error" in answer:
            self.errors[f"{peer}, {measure}"] = str(answer["error"])
            print(f"    {peer}: {answer['error']}", flush=True)
        for name, value in answer.items():
            if name != "error":
                runs = self.samples[peer].setdefault(f"{measure}/{name}", {})
                runs[str(self.run)] = float(value)

    def has_failed(self, peer: str, measure: str) -> bool:
        """Whether a library did not finish a measure in any run."""
        return f"{peer}, {measure}" in self.errors

    def median(self, peer: str, row: str) -> float | None:
        """Return the median over the runs."""
        runs = self.samples[peer].get(row)
        return statistics.median(runs.values()) if runs else None

    def ratio(self, peer: str, row: str) -> float | None:
        """Return the median ratio to the reference in the same run."""
        references = self.samples[self.reference].get(row, {})
        runs = self.samples[peer].get(row, {})
        ratios = [value / references[run] for run, value in runs.items() if references.get(run)]
        return statistics.median(ratios) if ratios else None


def format_figure(value: float | None) -> str:
    """Return three significant digits, or nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def tables(results: Results) -> list[tuple[str, list[list[str]]]]:
    """Return titles and rows of cells."""
    peers = list(results.versions)
    result = []
    for group in (*WIRES.values(), "Process"):
        rows = [
            row
            for row, facts in ROWS.items()
            if facts[0] == group and any(row in results.samples[peer] for peer in peers)
        ]
        absolute, ratios = [["", "", *peers]], [["", *peers]]
        for row in rows:
            _, title, unit = ROWS[row]
            absolute.append(
                [title, unit, *(format_figure(results.median(peer, row)) for peer in peers)]
            )
            if unit != "calls/s":
                ratios.append([title, *(format_figure(results.ratio(peer, row)) for peer in peers)])
        if rows:
            result.append((f"{group}: medians of the client's CPU, memory and calls", absolute))
            result.append((f"{group}: ratio to {results.reference} in the same run", ratios))
    if results.features:
        figures = [[name, format_figure(value)] for name, value in results.features.items()]
        result.append((f"{results.subject} alone", [["", ""], *figures]))
    return result


def format_table(rows: list[list[str]]) -> str:
    """Return a table for a terminal and for a page."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["---", *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = (
        " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in [rows[0], rule, *rows[1:]]
    )
    return "\n".join(f"| {line} |" for line in lines)


def describe_run(results: Results) -> str:
    """Return the machine, the versions and the number of runs."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python "
        f"{machine['python']}, load at the start {machine['load']}; "
        f"runs: {results.run}. {versions}."
    )


def save_figures(results: Results, stem: Path) -> None:
    """Write the figures as JSON."""
    stem.parent.mkdir(exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(vars(results), indent=1), encoding="utf-8")


def write(results: Results, stem: Path, python: str) -> None:
    """Print the tables, and write them with the figures and the picture."""
    save_figures(results, stem)
    parts = [f"# Side by side, {stem.name}", describe_run(results)]
    print(f"\n{describe_run(results)}")
    for title, rows in tables(results):
        print(f"\n{title}\n{format_table(rows)}")
        parts += [f"## {title}", format_table(rows)]
    if results.errors:
        parts += ["## Empty cells", *(f"- {k}: {v}" for k, v in results.errors.items())]
    stem.with_suffix(".md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    subprocess.run([python, __file__, stem.with_suffix(".json")], check=True)
    print(f"\nwritten: {stem}.json, .md, .png, .html")


def load_results(path: Path) -> Results:
    """Load figures that were written."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    results = Results(saved["machine"], saved["versions"], saved["reference"], saved["subject"])
    results.samples.update(saved["samples"])
    results.run = saved["run"]
    results.errors, results.features = saved["errors"], saved["features"]
    return results


if __name__ == "__main__":
    from picture import draw

    draw(load_results(Path(sys.argv[1])), Path(sys.argv[1]))
