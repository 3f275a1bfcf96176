"""Measures all libraries: `make bench`, or `python benchmarks/run.py --help` for a part of it.

Each library gets its own environment under `.venv/bench`, with its newest release. Every measure
is taken from all libraries in turn before the next one, so that noise affects all alike, and each
run starts every library again. CPU is the user and system time of the client's process; ratios are
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

from measures import FRESH, MEASURES
from peers import PEERS
from report import Results, save_figures, write

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENTS = ROOT / ".venv" / "bench"
TOOLS = ("matplotlib", "uvloop; sys_platform != 'win32'")
REFERENCE = "aiohttp"
SUBJECT = "minillmlib"
# No library may use the network, nor find a key or a proxy of the user.
SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LLM_USER_PATH": str(ENVIRONMENTS / "llm-user"),
    "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "PYTHONDONTWRITEBYTECODE": "",
}  # fmt: skip
REMOVED = (
    "PYTHONPATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
)


def python_path(name: str) -> str:
    """Return the interpreter of an environment."""
    return str(ENVIRONMENTS / name / "bin" / "python")


def install(name: str, requires: tuple[str, ...], *, upgrades: bool) -> None:
    """Make an environment, unless it exists."""
    done = ENVIRONMENTS / name / "installed"
    if done.exists() and not upgrades:
        return
    print(f"installing {name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / name], check=True)
    options = ("--quiet", "--disable-pip-version-check", "--upgrade")
    subprocess.run([python_path(name), "-m", "pip", "install", *options, *requires], check=True)
    done.touch()


def environment() -> dict[str, str]:
    """Return the environment variables of a library."""
    return {key: value for key, value in os.environ.items() if key not in REMOVED} | SETTINGS


def pin(process_id: int, *, is_server: bool) -> None:
    """Reserve the last processor for the server; the clients use the others."""
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(processors) > 1:
        os.sched_setaffinity(process_id, processors[-1:] if is_server else processors[:-1])


@contextmanager
def start_process(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that reads and writes lines until its input ends."""
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment()
    )
    try:
        yield process
    finally:
        process.communicate()


class Client:
    """A library in its own process."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self.name = name
        self.process = stack.enter_context(
            start_process(python_path(name), str(HERE / "measures.py"), name)
        )
        pin(self.process.pid, is_server=False)

    def measure(self, *order: object) -> dict[str, float | str]:
        """Return the figures by name, or an error."""
        if self.process.poll() is not None:
            return {"error": "the process ended"}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}


def measure_fresh(name: str, measure: str, origins: dict[str, str]) -> dict[str, float | str]:
    """Measure a fresh process."""
    origin = origins[FRESH[measure][1]]
    command = (python_path(name), str(HERE / "measures.py"), name, measure, origin)
    with start_process(*command) as process:
        pin(process.pid, is_server=False)
        assert process.stdout is not None
        line = process.stdout.readline()
    return json.loads(line) if line else {"error": "the process ended"}


def measure_once(
    names: list[str], wanted: list[str], origins: dict[str, str], results: Results, stem: Path
) -> None:
    """Take each measure once from each library, except those that failed it before."""
    for measure in (name for name in FRESH if name in wanted):
        print(f"  {time.strftime('%H:%M:%S')} {measure}", flush=True)
        for name in (name for name in names if not results.has_failed(name, measure)):
            results.add(name, measure, measure_fresh(name, measure, origins))
    with ExitStack() as stack:
        clients = [Client(name, stack) for name in names]
        for wire in ("openai", "anthropic", "responses"):
            for measure in (name for name in MEASURES if name in wanted):
                print(f"  {time.strftime('%H:%M:%S')} {measure} {wire}", flush=True)
                for client in clients:
                    key = f"{measure}/{wire}"
                    if wire in PEERS[client.name].wires and not results.has_failed(
                        client.name, key
                    ):
                        results.add(client.name, key, client.measure(measure, wire, origins))
                save_figures(results, stem)


def find_version(name: str) -> str:
    """Return the version of a library in its environment."""
    package = "msgspec" if name == "sockets" else name
    program = f"from importlib.metadata import version as v; print(v({package!r}))"
    command = [python_path(name), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def describe_machine() -> dict[str, str]:
    """Return the facts about this machine."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        model = info.read_text(encoding="utf-8").partition("model name")[2].split("\n")[0]
    return {
        "processor": model.strip("\t: "),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def parse_args() -> argparse.Namespace:
    """Return the choices of the user."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    measures = [*FRESH, *MEASURES, "features"]
    parser.add_argument("--measures", nargs="+", choices=measures, default=measures)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one run only")
    parser.add_argument("--upgrade", action="store_true", help="install newer releases first")
    return parser.parse_args()


def main() -> None:
    """Install, measure and report."""
    args = parse_args()
    names = list(dict.fromkeys([*args.peers, REFERENCE]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    install("tools", TOOLS, upgrades=args.upgrade)
    for name in names:
        requires = PEERS[name].requires or (str(ROOT),)
        install(name, requires, upgrades=args.upgrade or name == SUBJECT)
    versions = {name: find_version(name) for name in names}
    results = Results(describe_machine(), versions, REFERENCE, SUBJECT)
    is_whole = len(names) == len(PEERS) and len(args.measures) == len(FRESH) + len(MEASURES) + 1
    stem = HERE / "results" / (time.strftime("%Y-%m-%d") + ("" if is_whole else "-part"))
    with start_process(python_path("tools"), str(HERE / "canned.py")) as server:
        pin(server.pid, is_server=True)
        assert server.stdout is not None
        ports = json.loads(server.stdout.readline())
        origins = {mode: f"http://127.0.0.1:{port}" for mode, port in ports.items()}
        for run in range(1 if args.quick else args.runs):
            print(f"run {run + 1}, {time.strftime('%H:%M:%S')}", flush=True)
            first = run % len(names)
            measure_once([*names[first:], *names[:first]], args.measures, origins, results, stem)
            results.run += 1
    if "features" in args.measures and SUBJECT in names:
        command = [python_path(SUBJECT), str(HERE / "features.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.features = json.loads(done.stdout)
    write(results, stem, python_path("tools"))


if __name__ == "__main__":
    main()
