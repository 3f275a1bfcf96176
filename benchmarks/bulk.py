"""Asks many rows of a server with a rate limit, in several ways; counts what is lost and paid.

`python benchmarks/bulk.py [--rows 2000] [--rate 100]`. Other libraries are measured if an
environment of `make bench` or the option `--python NAME=PATH` has them. Each way is a process of
its own; with `--kill` it is killed at a third of the rows and run again. All traffic stays on
127.0.0.1.
"""

# ruff: noqa: PLC0415 - each way runs where its library is installed

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__)
LATENCY_SECS = 0.1


class Server:
    """Answers `rate` requests a second, by a bucket of one second, and refuses others with 429."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.tokens = rate
        self.at = time.monotonic()
        self.billed = self.refused = 0
        self.prompts: set[str] = set()
        self.chance = random.Random(1)  # noqa: S311 - every run has the same latencies

    def take(self) -> bool:
        """Return whether one more request is within the rate."""
        now = time.monotonic()
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def headers(self) -> str:
        """Return the headers that OpenAI sends, of requests a minute."""
        limit = int(self.rate * 60)
        remaining = int(limit - (self.rate - self.tokens))
        secs = (self.rate - self.tokens) / self.rate
        return (
            f"x-ratelimit-limit-requests: {limit}\r\nx-ratelimit-remaining-requests: {remaining}"
            f"\r\nx-ratelimit-reset-requests: {secs:.3f}s\r\n"
        )

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                if not self.take():
                    self.refused += 1
                    await asyncio.sleep(0.005)
                    self.write(writer, "429 Busy", {"error": {"message": "Rate limit reached"}})
                    continue
                prompt = json.loads(body)["messages"][-1]["content"]
                self.billed += 1
                self.prompts.add(str(prompt))
                await asyncio.sleep(LATENCY_SECS * self.chance.uniform(0.5, 1.5))
                message = {"role": "assistant", "content": f"answer to {prompt}"}
                self.write(writer, "200 OK", {
                    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
                })  # fmt: skip
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def write(self, writer: asyncio.StreamWriter, status: str, answer: object) -> None:
        """Send an answer."""
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{self.headers()}"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


# The ways to ask, each in a process of its own. They write a line for each row that is done.


def done(row: int) -> None:
    """Say that a row has its answer."""
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()


def ask_minillmlib(url: str, rows: int, folder: str) -> None:
    """Ask with map_complete, a journal and its own pace."""
    from minillmlib import ChatNode, GeneratorInfo, TokenPrice, iterate, map_complete

    generator = GeneratorInfo.custom("m", url, "m").with_token_price(TokenPrice(1, 5))
    prompt = ChatNode.root("You are brief.").add_user("Row {n}")
    items = ({"n": number} for number in range(rows))
    for outcome in iterate(map_complete(items, generator, prompt=prompt, journal=f"{folder}/run")):
        if outcome.error is None:
            done(outcome.index)


def ask_gather(url: str, rows: int, folder: str) -> None:
    """Ask with gather and the retries of single calls."""
    from minillmlib import ChatNode, GeneratorInfo, MiniLLMError, NodeCompletionParameters, run

    del folder
    generator = GeneratorInfo.custom("m", url, "m")
    params = NodeCompletionParameters(retry=8)

    async def one(row: int) -> None:
        try:
            await ChatNode.root("You are brief.").chat(f"Row {row}", generator, params)
        except MiniLLMError:
            return
        done(row)

    async def all_rows() -> None:
        await asyncio.gather(*map(one, range(rows)))

    run(all_rows())


def ask_litellm(url: str, rows: int, folder: str) -> None:
    """Ask with litellm's batch_completion."""
    import litellm

    del folder
    messages = [
        [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": f"Row {row}"},
        ]
        for row in range(rows)
    ]
    answers = litellm.batch_completion(
        model="openai/m", messages=messages, api_base=url, api_key="none", num_retries=8
    )
    for row, answer in enumerate(answers):
        if not isinstance(answer, Exception):
            done(row)


def ask_inspect(url: str, rows: int, folder: str) -> None:
    """Ask with inspect_ai's eval; a rerun recovers the log of the killed one, and retries it."""
    from inspect_ai import Task, eval, eval_retry, task  # noqa: A004 - its name
    from inspect_ai.dataset import Sample
    from inspect_ai.log import recover_eval_log, recoverable_eval_logs
    from inspect_ai.model import get_model
    from inspect_ai.solver import generate, system_message

    @task
    def ask_rows() -> Task:
        samples = [Sample(input=f"Row {row}", id=row + 1) for row in range(rows)]
        return Task(dataset=samples, solver=[system_message("You are brief."), generate()])

    model = get_model("openai/m", base_url=url, api_key="none", responses_api=False)
    options = {"log_dir": folder, "display": "none", "fail_on_error": False}
    if logs := recoverable_eval_logs(folder):
        found = eval_retry(recover_eval_log(logs[0].log.name), **options)
    else:
        found = eval(ask_rows(), model=model, **options)
    for sample in found[0].samples or ():
        if sample.output.choices and sample.error is None:
            done(int(sample.id) - 1)


def ask_script(url: str, rows: int, folder: str) -> None:
    """Ask with a script: openai's client, a semaphore, retries, and a file of answers."""
    import openai

    path = Path(folder) / "answers.jsonl"
    known = {json.loads(line)["row"] for line in path.open()} if path.exists() else set()

    async def all_rows() -> None:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=8)
        width = asyncio.Semaphore(100)
        with path.open("a") as file:

            async def one(row: int) -> None:
                async with width:
                    try:
                        answer = await client.chat.completions.create(
                            model="m",
                            messages=[
                                {"role": "system", "content": "You are brief."},
                                {"role": "user", "content": f"Row {row}"},
                            ],
                        )
                    except openai.OpenAIError:
                        return
                file.write(json.dumps({"row": row, "text": answer.choices[0].message.content}))
                file.write("\n")
                file.flush()
                done(row)

            for row in known:
                done(row)
            await asyncio.gather(*(one(row) for row in range(rows) if row not in known))

    asyncio.run(all_rows())


WAYS = {
    "minillmlib, map_complete": ask_minillmlib,
    "minillmlib, gather": ask_gather,
    "litellm, batch_completion": ask_litellm,
    "inspect_ai, eval": ask_inspect,
    "openai, a script": ask_script,
}


async def measure(way: str, python: str, rows: int, rate: float, *, kills: bool) -> list[str]:
    """Return the row of the table for one way."""
    server = Server(rate)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=8192)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    settings = {**os.environ, "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    settings["OPENAI_BASE_URL"] = url
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = (python, str(HERE), "--way", way, url, str(rows), folder)
        done_rows: set[int] = set()
        for is_killed in (True, False) if kills else (False,):
            child = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=settings
            )
            assert child.stdout is not None
            reading = asyncio.ensure_future(child.stdout.read())
            while is_killed and server.billed < rows // 3 and child.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if is_killed and child.returncode is None:
                child.send_signal(signal.SIGKILL)
            text = await reading
            await child.wait()
            done_rows = {int(line) for line in text.split() if line.isdigit()}
    secs = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    listener.close()
    again = server.billed - len(server.prompts)
    cells = [way, rows - len(done_rows), server.refused, again, f"{secs:.1f} s", f"{cpu:.1f} s"]
    return list(map(str, cells))


def main() -> None:
    """Measure each way and print a Markdown table."""
    if sys.argv[1:2] == ["--way"]:
        way, url, rows, folder = sys.argv[2:]
        WAYS[way](url, int(rows), folder)
        return
    parser = argparse.ArgumentParser(description="Many rows and a rate limit.")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--kill", action="store_true", help="kill each at a third, and go on")
    parser.add_argument("--only", help="part of the name of a way")
    parser.add_argument("--python", action="append", default=[], metavar="LIBRARY=PATH")
    args = parser.parse_args()
    pythons = dict(each.split("=", 1) for each in args.python)
    print("| Way | rows lost | refused | paid again | time | CPU |\n|---|---|---|---|---|---|")
    for way in WAYS:
        if args.only and args.only not in way:
            continue
        python = pythons.get(way.split(",")[0], sys.executable)
        row = asyncio.run(measure(way, python, args.rows, args.rate, kills=args.kill))
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
