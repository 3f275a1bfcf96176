"""Serves the built-in model with a chat template or a schema of a test's choice. Run by its path.

Standard input brings one line of JSON, `{"model": ..., "key": ..., "template": ..., "schema": ...}`,
of which the last two may be null, and then nothing: the server ends when it is closed. A schema
holds every answer. Standard output carries one line, `{"url": ...}`.
"""

from __future__ import annotations

import json
import os
import sys


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
