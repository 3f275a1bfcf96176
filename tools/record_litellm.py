"""Records `tests/golden/recordings/litellm_local.jsonl`: litellm's proxy before the local model.

Run it with an interpreter that has minillmlib[local], and give the program `litellm` of an
environment with `litellm[proxy]`: `python tools/record_litellm.py path/to/litellm`. Nothing but
127.0.0.1 is asked; the model must have been fetched before.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    MiniLLMError,
    Recording,
)
from minillmlib.local import LocalServer, LocalTransport

PATH = Path(__file__).parents[1] / "tests/golden/recordings/litellm_local.jsonl"
KEY = "sk-litellm-master-0123456789"
START_SECS = 120
CONFIG = """
model_list:
  - model_name: smollm2
    litellm_params:
      model: openai/SmolLM2-135M-Instruct
      api_base: {url}/v1
      api_key: {key}
      input_cost_per_token: 0.0000001
      output_cost_per_token: 0.0000002
general_settings:
  master_key: {master}
"""


@contextmanager
def run_proxy(program: str, server: LocalServer) -> Iterator[str]:
    """Run litellm's proxy before a server; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(url=server.url, key=server.key, master=KEY))
        command = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port)]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        environment.pop("PYTHONPATH", None)
        process = subprocess.Popen([*command, "--telemetry", "False"], env=environment)  # noqa: S603 - what the caller named
        try:
            wait_for(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def wait_for(url: str) -> None:
    """Wait until the proxy is up."""
    for _ in range(START_SECS):
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/health/liveliness", timeout=2).close()  # noqa: S310 - http
            return
        time.sleep(1)
    raise SystemExit("litellm's proxy did not start")


async def talk(url: str) -> None:
    """Record both wires of the proxy, whole and streamed, an error, and the model itself."""
    root = ChatNode.root("You are a helpful assistant.")
    question, params = (
        "What is the capital of France?",
        CompletionParameters(temperature=0, max_tokens=12),
    )
    recording = Recording(PATH)
    chat = GeneratorInfo.custom("litellm", f"{url}/v1", "smollm2").with_api_key(KEY)
    claude = GeneratorInfo.anthropic("smollm2").with_base_url(url).with_api_key(KEY)
    for generator in (chat, claude):
        generator = generator.with_transport(recording)  # noqa: PLW2901
        await root.chat(question, generator, params)
        await root.chat_streaming(question, generator, params).collect()
    with suppress(MiniLLMError):
        await root.chat(question, chat.replace(model="nobody").with_transport(recording), retry=0)
    recording = Recording(PATH, transport=LocalTransport())
    await root.chat(question, GeneratorInfo.local().with_transport(recording), params)


def main() -> None:
    """Record all anew."""
    PATH.unlink(missing_ok=True)
    with LocalServer() as server, run_proxy(sys.argv[1], server) as url:
        asyncio.run(talk(url))
    sys.stdout.write(f"{PATH}: {PATH.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
