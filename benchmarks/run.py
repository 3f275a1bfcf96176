"""Everything side by side: `make bench`, or `python benchmarks/run.py --help` for one row of it.

Each library gets an environment of its own under `.venv/bench`, with its newest release. Every
measure is taken from all libraries in turn before the next one, so that noise hits all alike, and
each run starts every library anew. CPU is user and system time of the client's process; ratios are
to aiohttp with msgspec in the same run. All traffic stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measures import MEASURES
from peers import PEERS
from report import Results, keep, write

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = ROOT / ".venv" / "bench"
TOOLS = ("matplotlib", "uvloop; sys_platform != 'win32'")
REFERENCE = "aiohttp"
OWN = "minillmlib"
# No library may go out to the network, nor find a key or a proxy of the user's.
SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LLM_USER_PATH": str(ENVIRONMENTS / "llm-user"),
    "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "PYTHONDONTWRITEBYTECODE": "",
}  # fmt: skip
UNWANTED = ("PYTHONPATH", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")


def python_of(name: str) -> str:
    """The interpreter of an environment."""
    return str(ENVIRONMENTS / name / "bin" / "python")


def install(name: str, requires: tuple[str, ...], *, anew: bool) -> None:
    """Makes an environment, unless it is there."""
    done = ENVIRONMENTS / name / "installed"
    if done.exists() and not anew:
        return
    print(f"installing {name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / name], check=True)
    options = ("--quiet", "--disable-pip-version-check", "--upgrade")
    subprocess.run([python_of(name), "-m", "pip", "install", *options, *requires], check=True)
    done.touch()


def environment() -> dict[str, str]:
    """The variables that a library sees."""
    return {key: value for key, value in os.environ.items() if key not in UNWANTED} | SETTINGS


def pin(process_id: int, *, is_server: bool) -> None:
    """The server gets the last processor for itself, the clients the others."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(processors) > 1:
        os.sched_setaffinity(process_id, processors[-1:] if is_server else processors[:-1])


@contextmanager
def talking(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that takes lines and gives lines, until its input ends."""
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment()
    )
    try:
        yield process
    finally:
        process.communicate()


class Client:
    """A library at work in its own process."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self.process = stack.enter_context(
            talking(python_of(name), str(HERE / "measures.py"), name)
        )
        pin(self.process.pid, is_server=False)

    def measure(self, *order: object) -> dict[str, float | str]:
        """Figures by name, or an error."""
        if self.process.poll() is not None:
            return {"error": "the process ended"}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}


def measure_cold(name: str, origins: dict[str, str]) -> dict[str, float | str]:
    """What a fresh process shows."""
    command = (python_of(name), str(HERE / "measures.py"), name, origins["later"])
    with talking(*command) as process:
        pin(process.pid, is_server=False)
        assert process.stdout is not None
        line = process.stdout.readline()
    return json.loads(line) if line else {"error": "the process ended"}


def one_run(
    names: list[str], wanted: list[str], origins: dict[str, str], results: Results, stem: Path
) -> None:
    """Each measure once for each library; who did not finish one before is not asked again."""
    if "cold" in wanted:
        for name in (name for name in names if not results.has_failed(name, "cold")):
            results.add(name, "cold", measure_cold(name, origins))
    with ExitStack() as stack:
        clients = [Client(name, stack) for name in names]
        for wire in ("openai", "anthropic"):
            for measure in (name for name in MEASURES if name in wanted):
                print(f"  {time.strftime('%H:%M:%S')} {measure} {wire}", flush=True)
                for client in clients:
                    key = f"{measure}/{wire}"
                    if wire in PEERS[client.name].wires and not results.has_failed(
                        client.name, key
                    ):
                        results.add(client.name, key, client.measure(measure, wire, origins))
                keep(results, stem)


def version_of(name: str) -> str:
    """The version of a library in its environment."""
    package = "msgspec" if name == "sockets" else name
    program = f"from importlib.metadata import version as v; print(v({package!r}))"
    command = [python_of(name), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, str]:
    """Where this was measured."""
    model = platform.processor() or platform.machine()
    if (about := Path("/proc/cpuinfo")).exists():
        model = about.read_text(encoding="utf-8").partition("model name")[2].split("\n")[0]
    return {
        "processor": model.strip("\t: "),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def choose() -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    measures = ["cold", *MEASURES, "own"]
    parser.add_argument("--measures", nargs="+", choices=measures, default=measures)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one run only")
    parser.add_argument("--upgrade", action="store_true", help="look for newer releases first")
    return parser.parse_args()


def main() -> None:
    """Installs, measures and reports."""
    chosen = choose()
    names = list(dict.fromkeys([*chosen.peers, REFERENCE]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    install("tools", TOOLS, anew=chosen.upgrade)
    for name in names:
        requires = PEERS[name].requires or (str(ROOT),)
        install(name, requires, anew=chosen.upgrade or name == OWN)
    versions = {name: version_of(name) for name in names}
    results = Results(machine(), versions, REFERENCE, OWN)
    is_whole = len(names) == len(PEERS) and len(chosen.measures) == len(MEASURES) + 2
    stem = HERE / "results" / (time.strftime("%Y-%m-%d") + ("" if is_whole else "-part"))
    with talking(python_of("tools"), str(HERE / "canned.py")) as server:
        pin(server.pid, is_server=True)
        assert server.stdout is not None
        ports = json.loads(server.stdout.readline())
        origins = {mode: f"http://127.0.0.1:{port}" for mode, port in ports.items()}
        for run in range(1 if chosen.quick else chosen.runs):
            print(f"run {run + 1}, {time.strftime('%H:%M:%S')}", flush=True)
            first = run % len(names)
            one_run([*names[first:], *names[:first]], chosen.measures, origins, results, stem)
            results.run += 1
    if "own" in chosen.measures and OWN in names:
        command = [python_of(OWN), str(HERE / "own.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.own = json.loads(done.stdout)
    write(results, stem, python_of("tools"))


if __name__ == "__main__":
    main()
