"""The script that serves the local model, with an engine that only notes what it is given."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest

from minillmlib.local import child

SETTINGS = {
    "model": "/models/one.gguf", "alias": "one", "key": "k-123", "n_ctx": 4096, "n_threads": 2,
    "temperature": None, "n_predict": None,
}  # fmt: skip
GIVEN = {
    "model.path": "/models/one.gguf", "model_alias": {"one"}, "api_keys": ["k-123"],
    "hostnames": ["127.0.0.1"], "port": 0, "n_ctx": 4096, "cpuparams.n_threads": 2,
    "cpuparams_batch.n_threads": 2, "ui": False, "verbosity": 1,
}  # fmt: skip


class Params(SimpleNamespace):
    """The parameters of the engine, with all that was set."""

    def __init__(self) -> None:
        parts = ("model", "cpuparams", "cpuparams_batch", "sampling")
        super().__init__(**{part: SimpleNamespace() for part in parts})

    def shown(self) -> dict[str, object]:
        found = {}
        for name, value in vars(self).items():
            if isinstance(value, SimpleNamespace):
                found |= {f"{name}.{each}": one for each, one in vars(value).items()}
            else:
                found[name] = value
        return found


@pytest.fixture
def engine(monkeypatch):
    """The parameters of the servers that are started; `error` is raised instead of starting one."""
    given = SimpleNamespace(shown=[], error=None)

    def serve(params: Params) -> SimpleNamespace:
        os.write(1, b"native words\n")
        if given.error is not None:
            raise given.error
        given.shown.append(params.shown())
        return SimpleNamespace(listening_address="http://127.0.0.1:5")

    module = ModuleType("xllamacpp")
    module.CommonParams, module.Server = Params, serve
    monkeypatch.setitem(sys.modules, "xllamacpp", module)
    return given


@pytest.fixture
def run(engine, monkeypatch, capfd):
    """Runs the script with one line of settings; returns its reply, its code, and what it left."""
    ends = []

    def leave(code: int) -> None:
        ends.append(code)

    monkeypatch.setattr(os, "_exit", leave)
    handler, output = signal.getsignal(signal.SIGINT), os.dup(1)

    def call(settings: dict[str, object]) -> tuple[str, str, list[int], bytes]:
        lines = io.BytesIO(json.dumps(settings).encode() + b"\nmore\n")
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines))
        try:
            child.main()
        except SystemExit as error:
            ends.append(error.code)
        finally:
            os.dup2(output, 1)
        printed = capfd.readouterr()
        return printed.out, printed.err, ends, lines.read()

    yield call
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, handler)
    os.close(output)


def test_the_engine_gets_all_settings_and_the_reply_is_the_address(engine, run):
    reply, noise, ends, unread = run(SETTINGS)
    assert engine.shown == [GIVEN]
    assert json.loads(reply) == {"url": "http://127.0.0.1:5"}
    assert reply.endswith("}\n")
    assert noise == "native words\n", "not on the standard output"
    assert (ends, unread) == ([0], b""), "it ends when its input does"


@pytest.mark.parametrize(
    ("settings", "also"),
    [
        ({"temperature": 0.0}, {"sampling.temp": 0.0}),
        ({"n_predict": 512}, {"n_predict": 512}),
        ({"temperature": 0.5, "n_predict": 0}, {"sampling.temp": 0.5, "n_predict": 0}),
    ],
)
def test_what_is_not_set_is_left_to_the_engine(settings, also, engine, run):
    run({**SETTINGS, **settings})
    assert engine.shown == [{**GIVEN, **also}]


def test_a_failure_is_the_reply_with_the_name_of_its_class(engine, run):
    engine.error = RuntimeError("no such file")
    reply, _, ends, unread = run(SETTINGS)
    assert json.loads(reply) == {"error": "RuntimeError: no such file"}
    assert (ends, unread) == ([1], b"more\n")
