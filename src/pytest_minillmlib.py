"""The pytest plugin of minillmlib: no real calls by default, and fixtures in place of models.

It stands beside the package and imports nothing of it until a test does, because pytest loads every
plugin that is installed: the package takes a tenth of a second, also where no test uses it.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from minillmlib import Recording
    from minillmlib.testing import ScriptedTransport

NETWORK = "llm_network"
GUARDED = "minillmlib.transport.guard"  # the module that every engine asks
MAX_NAME_CHARS = 150  # of a file, which has a limit of 255 bytes
ADVICE = f"tests make no real calls; use the fixture llm, or mark this test with {NETWORK}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switches for real calls."""
    allow = "let minillmlib call models over the network in every test"
    group = parser.getgroup("minillmlib")
    group.addoption("--llm-network", action="store_true", help=allow)
    group.addoption(
        "--llm-record", choices=("once", "new"),
        help="let tests with recorded_llm call models, and record what is not recorded, or all",
    )  # fmt: skip
    parser.addini(NETWORK, allow, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Forbid real calls, from the collection of tests on."""
    config.addinivalue_line(
        "markers", f"{NETWORK}: minillmlib may call models over the network in this test"
    )
    if not (config.getoption("--llm-network") or config.getini(NETWORK)):
        guard = _NetworkGuard()
        guard.start()
        config.pluginmanager.register(guard, "minillmlib-network")


@pytest.fixture
def llm() -> Iterator[ScriptedTransport]:
    """A script for every model that the program under test calls.

    `llm.script([...])` sets the replies, `llm.requests` are what was sent, and `llm.generator` is
    a generator for code that takes one. Generators that the program makes are answered, too, unless
    they have a transport of their own. No API key is needed.
    """
    from minillmlib import testing  # noqa: PLC0415 - see above

    transport = testing.ScriptedTransport()
    with testing.use_transport(transport), testing.fake_keys():
        yield transport


@pytest.fixture
def recorded_llm(request: pytest.FixtureRequest) -> Iterator[Recording]:
    """A recording of every call to a model that the program under test makes.

    The file is `recordings/MODULE/TEST.jsonl` beside the test's own. It is replayed, without a key
    or a network, and written by `pytest --llm-record=once` (what is missing) or `=new` (all).
    """
    from minillmlib import Recording, testing  # noqa: PLC0415 - see above

    mode = request.config.getoption("--llm-record")
    path = _recording_path(request.path, request.node.nodeid)
    if mode is None and not path.exists():
        pytest.fail(f"{path} does not exist; pytest --llm-record=once writes it", pytrace=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = testing.fake_keys() if mode is None else nullcontext()
    with Recording(path, mode or "replay") as recording, testing.use_transport(recording), keys:
        yield recording
    if not path.exists():  # no model was called, which is to be replayed as well
        Recording(path, "new").close()


def _recording_path(test_file: Path, node_id: str) -> Path:
    """Return the file of a test: its classes and parameters are a part of its name."""
    name = re.sub(r"[^\w.=+,\[\]-]+", "-", ".".join(node_id.split("::")[1:]), flags=re.ASCII)
    if len(name) > MAX_NAME_CHARS:
        name = f"{name[:MAX_NAME_CHARS]}-{zlib.crc32(node_id.encode()):08x}"
    return test_file.parent / "recordings" / test_file.stem / f"{name}.jsonl"


class _NetworkGuard(importlib.abc.MetaPathFinder):
    """Refuses connections to other machines; waits for the library if it is not imported yet."""

    def __init__(self) -> None:
        self.is_open = False
        self._module: ModuleType | None = None
        self._previous: Callable[[str], None] | None = None

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Allow real calls while a test that may make them, and its fixtures, run."""
        is_recording = item.config.getoption("--llm-record") is not None
        self.is_open = item.get_closest_marker(NETWORK) is not None or (
            is_recording and "recorded_llm" in getattr(item, "fixturenames", ())
        )
        yield
        self.is_open = False

    def pytest_unconfigure(self) -> None:
        """Leave the engines as they were."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._module is not None:
            self._module.set_guard(self._previous)

    def start(self) -> None:
        """Guard the engines, now or as soon as they are imported."""
        if GUARDED in sys.modules:
            self._take(sys.modules[GUARDED])
        else:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the guarded module, whose loader calls us."""
        del path, target
        if name != GUARDED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._take)
        return spec

    def _take(self, module: ModuleType) -> None:
        self._module = module
        self._previous = module.set_guard(self._check)

    def _check(self, host: str) -> None:
        if not self.is_open:
            assert self._module is not None
            self._module.forbid_other_machines(host, ADVICE)


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, then passes it on."""

    def __init__(self, loader: importlib.abc.Loader, take: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._take = take

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._take(module)
