"""The child process: serves one model until its standard input ends.

Run by its path, with xllamacpp as its only dependency. Standard input brings one line of JSON,
the settings, and then nothing: it ends when the parent closes it or dies, even by kill -9.
Standard output carries one line of JSON, `{"url": ...}` or `{"error": ...}`. The key travels in
the settings because arguments and environments of a process are readable by others.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Protocol, TextIO


class _Server(Protocol):
    listening_address: str


def main() -> None:
    # Ctrl-C in a terminal is meant for the parent, which may want to keep the model.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.stdin.buffer.readline())
    with _reserved_stdout() as answer:
        try:
            server = _serve(settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear it
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answer)
            sys.exit(1)
        print(json.dumps({"url": server.listening_address}), file=answer)
    sys.stdin.buffer.read()
    os._exit(0)  # at once, whatever the server's threads are doing


def _reserved_stdout() -> TextIO:
    """The protocol's own channel; native code that prints goes to standard error instead."""
    channel = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(channel, "w", encoding="utf-8")


def _serve(settings: dict[str, object]) -> _Server:
    """Returns when the model is loaded and the port listens."""
    import xllamacpp  # noqa: PLC0415 - a failure to load it is an answer, too

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.api_keys = [settings["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = settings["n_ctx"]
    # Several threads wait for each other at every layer, so a busy machine stops them all.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["n_threads"]
    if settings["temperature"] is not None:
        params.sampling.temp = settings["temperature"]
    if settings["n_predict"] is not None:
        params.n_predict = settings["n_predict"]
    params.ui = False
    params.verbosity = 1  # errors only: they are the text of a failed start
    server: _Server = xllamacpp.Server(params)
    return server


if __name__ == "__main__":
    main()
