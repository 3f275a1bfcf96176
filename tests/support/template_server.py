"""The built-in model in a process of its own, with a chat template or a schema of a test's choice.

Use it for what only a real server shows: calls, thoughts and grammars on its wires. It is
also the program of that process, run by its path. Standard input brings one line of JSON,
`{"model": ..., "key": ..., "template": ..., "schema": ...}`, of which the last two may be null, and
then nothing: the server ends when it is closed. A schema holds every answer. Standard output
carries one line, `{"url": ...}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

KEY = "key-of-the-template-server"
WIRES = ("chat completions", "messages")


@contextmanager
def served_with(template: str | None, schema: dict | None = None):
    """Serve with this template, and yield the address; the server ends with its standard input."""
    from minillmlib.local.model import default_model_path

    settings = {"model": str(default_model_path()), "key": KEY, "template": template,
                "schema": schema}  # fmt: skip
    command = [sys.executable, "-P", __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(json.dumps(settings).encode() + b"\n")
        child.stdin.flush()
        yield json.loads(child.stdout.readline())["url"]


def over(wire: str, url: str, key: str = KEY):
    """Return a generator for one wire of such a server."""
    from minillmlib import GeneratorInfo, ResponsesProvider

    if wire == "messages":
        return GeneratorInfo.anthropic("smollm2").with_base_url(url).with_api_key(key)
    generator = GeneratorInfo.custom("real", f"{url}/v1", "smollm2").with_api_key(key)
    return generator.with_provider(ResponsesProvider()) if wire == "responses" else generator


def main() -> None:
    import xllamacpp

    settings = json.loads(sys.stdin.buffer.readline())
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what native code prints must not come between
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.api_keys = [settings["key"]]
    if settings["template"] is not None:
        params.chat_template = settings["template"]
    if settings["schema"] is not None:
        grammar = xllamacpp.json_schema_to_grammar(settings["schema"])
        kind = xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER
        params.sampling.grammar = xllamacpp.CommonGrammar(kind, grammar)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 2048
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.ui = False
    params.verbosity = 1  # errors only
    server = xllamacpp.Server(params)  # the model is loaded and the port listens
    with channel:
        print(json.dumps({"url": server.listening_address}), file=channel)
    sys.stdin.buffer.read()
    os._exit(0)  # at once, whatever the server's threads are doing


if __name__ == "__main__":
    main()
