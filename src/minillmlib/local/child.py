"""Serves one model in a child process until its standard input ends.

Run by its path, with xllamacpp as its only dependency. Standard input has one line of JSON, the
settings, and ends when the parent closes it or dies, even by kill -9. Standard output has one line
of JSON, `{"url": ...}` or `{"error": ...}`. The key is part of the settings because other users
can read the arguments and environment of a process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Protocol


class _Server(Protocol):
    listening_address: str


def main() -> None:
    # Ctrl-C in a terminal is for the parent, which may keep the model running.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(sys.stdin.buffer.readline())
    reply_channel = os.dup(1)
    os.dup2(2, 1)  # what native code prints is not part of the reply
    with os.fdopen(reply_channel, "w", encoding="utf-8") as reply:
        try:
            server = _serve(settings)
        except Exception as error:  # noqa: BLE001 - the parent reports every failure
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=reply)
            sys.exit(1)
        print(json.dumps({"url": server.listening_address}), file=reply)
    sys.stdin.buffer.read()
    os._exit(0)  # at once, without waiting for the server's threads


def _serve(settings: dict[str, object]) -> _Server:
    """Start the server; return when the model is loaded and the port listens."""
    import xllamacpp  # noqa: PLC0415 - an optional package; failing to load it is reported

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.api_keys = [settings["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = settings["n_ctx"]
    # Threads wait for each other at every layer, so on a busy machine several are slower than one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["n_threads"]
    if settings["temperature"] is not None:
        params.sampling.temp = settings["temperature"]
    if settings["n_predict"] is not None:
        params.n_predict = settings["n_predict"]
    params.ui = False
    params.verbosity = 1  # errors only: they become the message of a failed start
    server: _Server = xllamacpp.Server(params)
    return server


if __name__ == "__main__":
    main()
