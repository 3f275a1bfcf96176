"""The parts of Ray, Ray Data, PyArrow and Dask that the library calls, in one process.

Use them for what the library tells an engine and makes of its rows; `test_ray.py` and
`test_dask.py` run the engines themselves, which takes minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Column(list):
    kind = "of the caller"

    def to_pylist(self) -> list[Any]:
        return list(self)


class Table:
    """A table of Arrow."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = dict(columns)

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> Column:
        return self.columns[name]

    def append_column(self, name: str, column: Column) -> Table:
        assert len(column) == self.num_rows
        return Table({**self.columns, name: column})

    @property
    def rows(self) -> list[dict[str, Any]]:
        cells = zip(*self.columns.values(), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in cells]

    @property
    def kinds(self) -> dict[str, str]:
        return {name: column.kind for name, column in self.columns.items()}


def table_of(*rows: Mapping[str, Any]) -> Table:
    return Table({name: Column(row[name] for row in rows) for name in rows[0]})


def pyarrow() -> ModuleType:
    module: Any = ModuleType("pyarrow")
    for name in ("string", "int64", "bool_"):
        setattr(module, name, lambda name=name: name)
    module.decimal128 = lambda digits, places: f"decimal128({digits}, {places})"

    def array(cells: list[Any], kind: str) -> Column:
        column = Column(cells)
        column.kind = kind
        return column

    module.array = array
    return module


class Dataset:
    """Rows in blocks; it notes how it is mapped."""

    def __init__(self, *rows: Mapping[str, Any], has_schema: bool = True) -> None:
        self._table = table_of(*rows)
        self._has_schema = has_schema
        self.settings: dict[str, Any] = {}

    def schema(self, *, fetch_if_missing: bool) -> Any:
        assert not fetch_if_missing, "the rows would be computed twice"
        return SimpleNamespace(names=self._table.column_names) if self._has_schema else None

    def map_batches(self, kind: type, **settings: Any) -> Dataset:
        answers = Dataset(*self._table.rows)
        answers._kind, answers.settings = kind, settings
        return answers

    def tables(self) -> Iterator[Table]:
        """The tables that one worker returns."""
        worker = self._kind(*self.settings["fn_constructor_args"])
        rows, size = self._table.rows, self.settings["batch_size"]
        for start in range(0, len(rows), size):
            yield worker(table_of(*rows[start : start + size]))


@dataclass
class Pool:
    """What an `ActorPoolStrategy` was given."""

    settings: dict[str, Any]


@dataclass
class Method:
    call: Any

    def remote(self, *args: Any) -> Any:
        return lambda: self.call(*args)


@dataclass
class Ray:
    """A cluster in this process. `actors` are its actors, by namespace and name."""

    variables: dict[str, str] | None = None
    actors: dict[tuple[str, str], Any] = field(default_factory=dict)
    options: list[dict[str, Any]] = field(default_factory=list)
    waits: list[float | None] = field(default_factory=list)

    def module(self) -> ModuleType:
        module: Any = ModuleType("ray")
        module.data = ModuleType("ray.data")
        module.data.ActorPoolStrategy = lambda **settings: Pool(settings)
        environment = {} if self.variables is None else {"env_vars": self.variables}
        module.get_runtime_context = lambda: SimpleNamespace(runtime_env=environment)
        module.remote, module.get = self.remote, self.get
        return module

    def get(self, reference: Any, *, timeout: float | None = None) -> Any:
        self.waits.append(timeout)
        return reference()

    def remote(self, *kinds: type, **options: Any) -> Any:
        if not kinds:
            self.options.append(options)
            return Method
        return SimpleNamespace(options=lambda **options: self.named(kinds[0], options))

    def named(self, kind: type, options: dict[str, Any]) -> Any:
        self.options.append(options)
        key = (options["namespace"], options["name"])

        def remote(*args: Any) -> Any:
            if not (options["get_if_exists"] and key in self.actors):
                actor = kind(*args)
                self.actors[key] = SimpleNamespace(
                    lease=Method(actor.lease), give_back=Method(actor.give_back), bank=actor._bank
                )
            return self.actors[key]

        return SimpleNamespace(remote=remote)


class KilledWorker(Exception):  # noqa: N818 - its name there
    """As of `distributed`."""

    def __init__(self, allowed_failures: int) -> None:
        self.allowed_failures = allowed_failures


@dataclass
class Dask:
    """A cluster in this process, whose workers die with the rows that `lethal` says.

    `parts` are the parts that were submitted, and `read` those whose results were asked for.
    """

    lethal: Any = lambda row: False
    allowed_failures: int = 3
    has_client: bool = True
    parts: list[list[Any]] = field(default_factory=list)
    read: int = 0

    def module(self) -> ModuleType:
        module: Any = ModuleType("distributed")
        module.get_client, module.KilledWorker = self.get_client, KilledWorker
        return module

    def get_client(self) -> Dask:
        if not self.has_client:
            raise ValueError("No global client found and no address provided")
        return self

    def submit(self, call: Any, part: list[Any], *args: Any, pure: bool) -> Any:
        assert not pure, "equal parts would be asked once"
        self.parts.append(part)
        return SimpleNamespace(result=lambda: self.result(call, part, *args))

    def result(self, call: Any, part: list[Any], *args: Any) -> Any:
        self.read += 1
        if any(map(self.lethal, part)):
            raise KilledWorker(self.allowed_failures)
        return call(part, *args)


def install(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Put these in the place of what is or is not installed."""
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)
        for name, value in vars(module).items():
            if isinstance(value, ModuleType):
                monkeypatch.setitem(sys.modules, f"{module.__name__}.{name}", value)
