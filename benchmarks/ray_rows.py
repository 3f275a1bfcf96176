"""Asks many rows of a Ray dataset: minillmlib.ray beside Ray's own HTTP processor.

`python benchmarks/ray_rows.py [--rows 200 2000]`, where `ray[data]` and pydantic are installed. The
server takes 0.1 s for an answer, refuses one row of a hundred with 400, and is busy (503) for one
row once. Each way is a process of its own with two workers. All traffic stays on 127.0.0.1.
"""

# ruff: noqa: PLC0415 - each way imports its own library

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulk import LATENCY_SECS, Server

if TYPE_CHECKING:
    from ray.data import Dataset

HERE = Path(__file__)
WORKERS = 2
SYSTEM = "You are brief."


class FaultyServer(Server):
    """Has no rate limit, refuses row 7 of each hundred, and is busy once if `is_busy`."""

    def __init__(self, *, is_busy: bool) -> None:
        super().__init__(1e9)
        self.is_busy = is_busy
        self.in_flight = self.most = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                prompt = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
                self.billed += 1
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                await asyncio.sleep(LATENCY_SECS * self.chance.uniform(0.5, 1.5))
                self.in_flight -= 1
                self.reply(writer, int(prompt.split()[-1]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def reply(self, writer: asyncio.StreamWriter, row: int) -> None:
        """Send the answer to a row."""
        if row % 100 == 7:
            self.write(writer, "400 Bad Request", {"error": {"message": f"no row {row}"}})
        elif row == 11 and self.is_busy:
            self.is_busy = False
            self.write(writer, "503 Busy", {"error": {"message": "busy"}})
        else:
            message = {"role": "assistant", "content": f"answer to {row}"}
            self.write(writer, "200 OK", {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
            })  # fmt: skip


def ask_processor(data: Dataset, url: str, folder: str, *, max_retries: int = 3) -> Dataset:
    """Ask with HttpRequestProcessor."""
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    del folder
    config = HttpRequestProcessorConfig(
        url=f"{url}/chat/completions",
        concurrency=(WORKERS, WORKERS),
        batch_size=64,
        max_retries=max_retries,
    )
    processor = build_processor(
        config,
        preprocess=lambda row: {
            "n": row["n"],
            "payload": {
                "model": "m",
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": f"Row {row['n']}"},
                ],
            },
        },
        postprocess=lambda row: {
            "n": row["n"], "text": json.dumps(row["http_response"]), "error": None,
        },
    )  # fmt: skip
    return processor(data)


def ask_minillmlib(data: Dataset, url: str, folder: str) -> Dataset:
    """Ask with minillmlib.ray."""
    from minillmlib import Bulk, ChatNode, GeneratorInfo, TokenPrice
    from minillmlib.ray import map_complete

    generator = GeneratorInfo.custom("m", url, "m").with_token_price(TokenPrice(1, 5))
    prompt = ChatNode.root(SYSTEM).add_user("Row {n}")
    return map_complete(data, Bulk(generator, prompt=prompt, journal=folder), workers=WORKERS)


WAYS = {
    "`HttpRequestProcessor`": partial(ask_processor, max_retries=0),
    "`HttpRequestProcessor`, `max_retries=3`": ask_processor,
    "`minillmlib.ray`": ask_minillmlib,
}


def ask(way: str, url: str, count: int, folder: str) -> None:
    """Ask in one way; print what became of the rows, as JSON."""
    import ray

    ray.init(num_cpus=2 * WORKERS, include_dashboard=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = [{"n": number} for number in range(count)]
    data = ray.data.from_items(numbers, override_num_blocks=8)
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    try:
        rows = WAYS[way](data, url, folder).take_all()
    except ray.exceptions.RayError as error:
        sys.stderr.write(f"{type(error).__name__}: {str(error).splitlines()[-1][:300]}\n")
    secs = time.monotonic() - started
    kept = {row["n"] for row in rows}
    answers = [row for row in rows if row["error"] is None]
    print(json.dumps({
        "lost": count - len(kept),
        "failed": len(rows) - len(answers),
        "as_answers": sum("answer to" not in row["text"] for row in answers),
        "secs": secs,
    }))  # fmt: skip


async def measure(way: str, count: int, *, is_busy: bool) -> str:
    """Return the row of the table for one way."""
    server = FaultyServer(is_busy=is_busy)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=8192)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE), "--way", way, url, str(count), folder,
            stdout=subprocess.PIPE, env={**os.environ, "OPENAI_API_KEY": "none"},
        )  # fmt: skip
        output, _ = await child.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    listener.close()
    found = json.loads(output.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cells = (way, count, server.most, server.billed, found["lost"], found["as_answers"],
             found["failed"], f"{found['secs']:.1f} s", f"{cpu:.1f} s")  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Measure each way and print a Markdown table."""
    if sys.argv[1:2] == ["--way"]:
        way, url, count, folder = sys.argv[2:]
        ask(way, url, int(count), folder)
        return
    parser = argparse.ArgumentParser(description="Many rows of a Ray dataset.")
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--only", help="part of the name of a way")
    parser.add_argument("--no-busy", action="store_true", help="no 503")
    args = parser.parse_args()
    print("| way | rows | in flight | requests | lost | errors as answers | errors | time | CPU |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count in args.rows:
        for way in WAYS:
            if not args.only or args.only in way:
                print(asyncio.run(measure(way, count, is_busy=not args.no_busy)), flush=True)


if __name__ == "__main__":
    main()
