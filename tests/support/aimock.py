"""Start aimock, an independent server of the vendors' wires that runs on Node.

Use it where a second opinion on a wire is wanted. A file says what it answers, and its journal says
what it was asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

KEY = "aimock-test-key"
OLDEST_NODE = 20
START_SECS = 60
PROGRAM = Path(sys.prefix, "aimock/node_modules/@copilotkit/aimock/dist/cli.js")

# Loaded before the program, so that it ends with this process at the latest.
END_WITH_STDIN = "data:text/javascript,process.stdin.on('end',()=>process.exit()).resume()"


def why_not() -> str | None:
    """Why the server cannot be started here, or None."""
    node = shutil.which("node")
    if node is None:
        return "Node is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip().lstrip("v").split(".")[0]) < OLDEST_NODE:
        return f"aimock needs Node {OLDEST_NODE} or later, and this is {version.strip()}"
    return None if PROGRAM.exists() else "aimock is not installed; `make test` does it where npm is"


class Aimock:
    """A running server at `url`, which answers only to `KEY`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def exchanges(self, test_id: str) -> list[dict]:
        """The exchanges whose header `X-Test-Id` was this, the oldest first.

        The body of a request is in the shape of chat completions, whatever its wire, and has
        lost what this shape does not hold.
        """
        request = urllib.request.Request(
            f"{self.url}/__aimock/journal?{urlencode({'testId': test_id})}",
            headers={"Authorization": f"Bearer {KEY}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=START_SECS) as response:
            return json.load(response)


@contextmanager
def serving(answers: list[dict], folder: Path) -> Iterator[Aimock]:
    """Serve `answers` on 127.0.0.1; its files are in `folder`. What no answer fits is a 503."""
    fixtures, log = folder / "answers.json", folder / "log.txt"
    fixtures.write_text(json.dumps({"fixtures": answers}), encoding="utf-8")
    command = ["node", "--import", END_WITH_STDIN, str(PROGRAM), "--port", "0", "--strict"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "--validate-on-load", "--chunk-size", "5", "--fixtures", str(fixtures)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"AIMOCK_API_KEYS": KEY},
        ) as process,
    ):
        try:
            yield Aimock(_address(process, log))
        finally:
            process.kill()


def _address(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_SECS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text("utf-8")):
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(f"aimock did not start: {log.read_text('utf-8')}")
