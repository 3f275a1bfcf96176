"""A job over a dataset of Ray Data: each worker asks about the rows that lie where it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from types import ModuleType
from typing import Any, Protocol, TypeVar

from minillmlib.auth.credentials import (
    AZURE_VARIABLES,
    SUBSCRIPTION_VARIABLE,
    CredentialSource,
    EnvironmentKey,
)
from minillmlib.errors import InvalidParameterError, MissingExtraError
from minillmlib.json_value import JsonObject, JsonValue, encode_json
from minillmlib.types.costs import EXACT
from minillmlib.types.values import check_number
from minillmlib.workers.bank import Lease
from minillmlib.workers.job import Bulk, BulkReport
from minillmlib.workers.runtime import COLUMNS

__all__ = ["RayDataset", "map_complete", "report"]

CALLS_PER_WORKER = 4  # parts that a worker asks about at once, so that none waits for a slow row
CALL_SECS = 10.0  # for an answer of the bank; a call that is late is not repeated
DIGITS, FRACTION_DIGITS = 38, 18  # of the column of costs; Parquet has no more than 38


class RayDataset(Protocol):
    """The part of a `ray.data.Dataset` that `map_complete` uses."""

    @property
    def map_batches(self) -> Callable[..., Any]:
        """Apply a class to parts of the rows."""

    def schema(self, *, fetch_if_missing: bool) -> Any:
        """Return the columns, or None if they are not known."""


DatasetT = TypeVar("DatasetT", bound=RayDataset)


def map_complete(
    dataset: DatasetT, job: Bulk, *, workers: int | None = None, part_rows: int = 256
) -> DatasetT:
    """Return a dataset with the answers to the rows as columns. It is lazy, as all of Ray Data.

    Each row keeps its columns and gets `text`; `parsed`, a text as it is and any other value as
    JSON; `error`, the class and the message, or null; `cost_usd`, a decimal, or null if it is not
    known exactly; `cost_resolution`; `attempts`; and `from_journal`. The `prefix` of the job stands
    before these names. A row that fails is a row with an `error`, so that Ray never drops or
    repeats a part of the data for it.

    Each worker is a process with a share of the job's pace and budget. Ray replaces one that dies,
    and repeats what it had; with a journal, only what was in flight is asked again.

    Keys come from the environment of each node: start Ray there with the variable set. One in a
    `runtime_env` is refused, since Ray writes it into its logs. Needs `minillmlib[ray]`.

    Args:
        dataset: The rows: a column for each placeholder of the job's prompt, or `messages`.
        job: What is asked.
        workers: The number of processes, instead of the job's.
        part_rows: The rows of a part. A worker has four parts at once.
    """
    ray = _import_ray()
    if workers is not None:
        job = job.replace(workers=workers)
    check_number("part_rows", part_rows, minimum=1, is_whole=True)
    _check_environment(ray, job)
    schema = dataset.schema(fetch_if_missing=False)
    _check_columns(() if schema is None else schema.names, job)
    pool = ray.data.ActorPoolStrategy(
        size=job.workers,
        max_concurrent_calls_per_actor=CALLS_PER_WORKER,
        enable_true_multi_threading=True,
    )
    answers: DatasetT = dataset.map_batches(
        _Worker, fn_constructor_args=(job, _bank_of(ray, job)), batch_format="pyarrow",
        batch_size=part_rows, compute=pool, num_cpus=0,
    )  # fmt: skip
    return answers


def report(job: Bulk) -> BulkReport:
    """Return what became of the rows of a job so far. The journal is read in the cluster.

    So it works from a machine that does not have the folder. Elsewhere `job.report()` does.
    """
    ray = _import_ray()
    found: BulkReport = ray.get(ray.remote(num_cpus=0)(_report).remote(job))
    return found


def _report(job: Bulk) -> BulkReport:
    return job.report()


def _import_ray() -> ModuleType:
    try:
        import ray.data  # noqa: PLC0415 - it takes a second, and is an extra
    except ImportError:
        raise MissingExtraError(
            "minillmlib.ray needs Ray Data: pip install 'minillmlib[ray]'"
        ) from None
    module: ModuleType = ray
    return module


def _check_environment(ray: ModuleType, job: Bulk) -> None:
    """Raise `InvalidParameterError` if a key would travel in the clear."""
    given = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    for variable in _variables(job):
        if variable in given:
            raise InvalidParameterError(
                f"{variable} is in the runtime_env, which Ray writes into its logs in the clear: "
                "set it in the environment in which Ray is started on each node, and replace the "
                "key, since it is in the logs"
            )


def _variables(job: Bulk) -> Iterator[str]:
    """Yield the environment variables that may hold a key of the job."""
    yield from (*AZURE_VARIABLES, SUBSCRIPTION_VARIABLE)
    for generator in (job.generator, *job.generator.fallbacks):
        source: CredentialSource | None = generator.credential
        while isinstance(source, EnvironmentKey):
            yield from source.variables
            source = source.fallback


def _check_columns(names: Sequence[str], job: Bulk) -> None:
    """Raise `InvalidParameterError` if a result would replace a column."""
    for column in COLUMNS:
        if job.prefix + column in names:
            raise InvalidParameterError(
                f"the dataset has a column {job.prefix + column!r} already, which the results "
                "would replace: give the job a prefix, such as Bulk(..., prefix='answer_')"
            )


class _BankActor:
    """The bank of a job, in a process of its own. A new one reads the journal."""

    def __init__(self, job: Bulk) -> None:
        self._bank = job.bank()

    def lease(self, *args: JsonValue) -> Lease:
        return self._bank.lease(*args)

    def give_back(self, *args: JsonValue) -> None:
        self._bank.give_back(*args)


class _BankHandle:
    """The bank of a job, as its workers see it."""

    def __init__(self, actor: JsonValue) -> None:
        self._actor = actor

    def lease(self, *args: JsonValue) -> Lease:
        lease: Lease = _call(self._actor.lease, args)
        return lease

    def give_back(self, *args: JsonValue) -> None:
        _call(self._actor.give_back, args)


def _call(method: JsonValue, args: tuple[JsonValue, ...]) -> JsonValue:
    return _import_ray().get(method.remote(*args), timeout=CALL_SECS)


def _bank_of(ray: ModuleType, job: Bulk) -> _BankHandle | None:
    """Return the bank that all datasets of a job share, or None if there is nothing to share."""
    if job.budget is None and job.new_pace().requests_per_minute is None:
        return None
    shared = (job.journal, job.budget, job.pace, job.generator.base_url, job.generator.model)
    actor = ray.remote(_BankActor).options(
        name=f"bank {shared!r}", namespace="minillmlib", get_if_exists=True,
        num_cpus=0, max_restarts=-1,
    )  # fmt: skip
    return _BankHandle(actor.remote(job))


class _Worker:
    """One process of a job: Ray makes it once, and calls it with each part of the rows."""

    def __init__(self, job: Bulk, bank: _BankHandle | None) -> None:
        self._runtime = job.runtime(bank=bank)
        prompt = job.prompt
        names = ["messages"] if prompt is None else prompt.to_node().missing_format_kwargs()
        self._names = names if job.key is None else [*names, job.key]

    def __call__(self, table: JsonValue) -> JsonValue:
        """Return a table of Arrow with the columns of the results."""
        import pyarrow as pa  # noqa: PLC0415 - it comes with Ray Data

        kinds = (
            pa.string(), pa.string(), pa.string(), pa.decimal128(DIGITS, FRACTION_DIGITS),
            pa.string(), pa.int64(), pa.bool_(),
        )  # fmt: skip
        prefix = self._runtime.job.prefix
        _check_columns(table.column_names, self._runtime.job)  # before anything is asked
        results = self._runtime.rows(self._rows_of(table))
        for column, kind in zip(COLUMNS, kinds, strict=True):
            cells = [_cell(column, result[prefix + column]) for result in results]
            table = table.append_column(prefix + column, pa.array(cells, kind))
        return table

    def _rows_of(self, table: JsonValue) -> list[JsonObject]:
        """Return what the prompt needs of the rows; the other columns stay as they are."""
        names = [name for name in self._names if name in table.column_names]
        columns = {name: table.column(name).to_pylist() for name in names}
        places = range(table.num_rows)
        return [{name: column[at] for name, column in columns.items()} for at in places]


def _cell(column: str, value: JsonValue) -> JsonValue:
    """Return a value as its column has it: of one kind, whatever the rows are."""
    if value is None:
        return None
    if column == "cost_usd":
        return EXACT.quantize(Decimal(value), Decimal(1).scaleb(-FRACTION_DIGITS))
    is_json = column == "parsed" and not isinstance(value, str)
    return encode_json(value).decode() if is_json else value
