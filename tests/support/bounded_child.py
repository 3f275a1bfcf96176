"""A process that makes calls under a bound on its memory and reports what came of them.

Run it by its path. Each line of JSON on its input is a job, each on its output a result. Each call is
made in a fork, so that it starts from the same memory as all others.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from minillmlib import ChatNode, GeneratorInfo, Limits, MiniLLMError, NodeCompletionParameters
from minillmlib.testing import without_retries
from minillmlib.transport import aiohttp as aiohttp_engine  # noqa: F401 - else every fork would import it anew

MOST_CPU_SECS = 60  # of one call

Job = dict[str, Any]


def status_bytes(name: str) -> int:
    """A figure of this process: `VmSize`, `VmRSS`, or `VmHWM`, the most that VmRSS ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def bound(room: int | None) -> int:
    """Let this process grow by `room` bytes and no more; gives what it has now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    if room is not None:
        most = status_bytes("VmSize") + room
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return status_bytes("VmRSS")


async def ask(generator: GeneratorInfo, job: Job) -> Job:
    params = NodeCompletionParameters(**job.get("params", {}))
    root = ChatNode.root("s")
    if not job["streaming"]:
        answer = await root.chat("u", generator, params)
        return {"text": answer.text}
    async with root.chat_streaming("u", generator, params) as stream:
        chars = 0
        async for chunk in stream:
            chars += len(chunk.delta)
    return {"text": stream.response.content[:100], "chars": chars}


async def outcome_of(job: Job) -> Job:
    generator = GeneratorInfo.custom("bomb", job["url"], "m")
    await ask(generator.with_header("x-warm", "1"), job)  # what is imported late is imported now
    generator = generator.replace(limits=Limits(**job.get("limits", {})))
    before = bound(job["room"])
    started = time.monotonic()
    try:
        result = {"error": None, **await ask(generator, job)}
    except MiniLLMError as error:
        result = {"error": type(error).__name__, "text": str(error)[:500]}
    except MemoryError:
        result = {"error": "MemoryError"}
    secs = time.monotonic() - started
    return {**result, "secs": secs, "peak": status_bytes("VmHWM") - before}


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            status = 1
            try:
                resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECS, MOST_CPU_SECS))
                with without_retries():
                    result = asyncio.run(outcome_of(json.loads(line)))
                sys.stdout.write(json.dumps(result) + "\n")
                sys.stdout.flush()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if status:
            sys.stdout.write(json.dumps({"error": f"it died: {status}"}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
