"""The runtime of a job in one of its processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import msgspec

from minillmlib.blocking import run
from minillmlib.bulk.items import Item, ItemCall, Question
from minillmlib.bulk.journal import RunJournal
from minillmlib.bulk.outcome import STOPPING, BulkOutcome, last_error
from minillmlib.bulk.run import BulkRun
from minillmlib.bulk.width import Width
from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.json_value import JsonObject, JsonValue, plain_value
from minillmlib.locks import fork_safe_lock
from minillmlib.tree.node import ParsedNode
from minillmlib.types.budgets import Budget, LeasedBudget
from minillmlib.types.costs import CostResolution
from minillmlib.types.pace import Pace
from minillmlib.workers.bank import BankLike
from minillmlib.workers.leases import Leases
from minillmlib.workers.shards import PartJournal, Shards, new_shard, open_folder, take_share

if TYPE_CHECKING:
    from minillmlib.workers.job import Bulk

Row: TypeAlias = Mapping[str, JsonValue]

COLUMNS = (
    "text", "parsed", "error", "cost_usd", "cost_resolution", "attempts", "from_journal",
)  # fmt: skip


class _RowCall(ItemCall):
    """Asks about rows, whose values may be objects of any kind."""

    def prepare(self, index: int, item: Item) -> Question | BulkOutcome[Any]:
        """Return what to ask, or the outcome that the row has without asking."""
        try:
            return super().prepare(index, _plain_row(item))
        except Exception as error:  # noqa: BLE001 - of a value of any type
            problem = InvalidParameterError(
                f"row {index} cannot be asked: one of its values raised {type(error).__name__}; "
                "give it as a text"
            )
            return BulkOutcome(index=index, error=problem)


class _End(NamedTuple):
    """The error that ended a run. `is_drained`: all that was in flight had a result."""

    error: MiniLLMError
    is_drained: bool


class BulkRuntime:
    """Asks about rows in one process of a job. Made by `Bulk.runtime`.

    All parts of the rows that come to the process share its width, its pace, its budget and its
    shard of the journal. Threads and event loops may share it.

    Attributes:
        job: The job.
        worker: The name of this process.
        width: The `Width` of its calls.
        budget: Its share of the budget, or what it has leased; None without one.
    """

    _is_closed = False

    def __init__(self, job: Bulk, worker: str | None = None, bank: BankLike | None = None) -> None:
        self.job = job
        self.worker: str = worker or f"{socket.gethostname()}-{os.getpid()}"
        self.width: Width = Width() if job.width is None else Width(job.width, job.width)
        self._prompt = None if job.prompt is None else job.prompt.to_node()
        self._end: _End | None = None  # that every further row would have
        self._parts = 0  # that are asked now
        self._lock = fork_safe_lock()
        self._shards: Shards | None = None
        self._own: RunJournal | None = None
        if job.journal is not None:
            self._shards = Shards(open_folder(job.journal), retries_failed=job.retry_failed)
            self._own = new_shard(self._shards.folder, self.worker)
        whole = job.new_pace()
        pace = whole.last_share(job.workers)
        self.budget: Budget | None = None
        self._leases: Leases | None = None
        if bank is not None:
            budget = None if job.budget is None else LeasedBudget()
            requests = whole.requests_per_minute
            pace = Pace(requests, pace.input_tokens_per_minute, pace.output_tokens_per_minute)
            if requests is not None:
                pace.use_grants()
            self._leases = Leases(bank, self.worker, pace, budget, self._record_lease)
            self.budget = budget
        elif job.budget is not None and self._shards is not None and self._own is not None:
            self.budget = Budget(take_share(self._shards, self._own, job.budget, job.workers))
        self._settings = job.params.replace(budget=self.budget, pace=pace)

    def _record_lease(self, usd: Decimal) -> None:
        if self._own is not None:
            self._own.record_grant(usd, is_lease=True)

    def rows(self, rows: Iterable[Row]) -> list[JsonObject]:
        """Ask about rows and return them with their results, in their order; blocks.

        See `complete`.
        """
        return run(self.complete(rows))

    async def complete(self, rows: Iterable[Row]) -> list[JsonObject]:
        """Ask about rows and return them with their results, in their order.

        Each row keeps its columns and gets these, after the `prefix` of the job: `text`; `parsed`,
        as plain JSON, if the answer has a type; `error`, the class and the message, or None;
        `cost_usd`, a text, or None if it is not known exactly; `cost_resolution`; `attempts`, the
        number of requests; and `from_journal`, whether nothing was asked. No row raises: what ends
        the run (a refused key, a spent budget) is the error of all rows that remain.

        Raises `InvalidParameterError` if a row is no mapping, or has a column of such a name.
        """
        given: object = rows
        if not isinstance(given, Iterable):
            raise InvalidParameterError(
                f"the rows are a list of mappings, not {type(given).__name__}"
            )
        part = [self._check_row(place, row) for place, row in enumerate(rows)]
        results: list[JsonObject | None] = [None] * len(part)
        with self._lock:
            end = self._end
            self._parts += end is None
        if end is None:
            try:
                end = await self._ask(part, results)
            finally:
                self._leave()
        if end is not None:
            self._fill(part, results, end)
        return [{**row, **(result or {})} for row, result in zip(part, results, strict=True)]

    def _leave(self) -> None:
        """Note the end of a part, of the last one also in the shard of a closed runtime."""
        with self._lock:
            self._parts -= 1
            if self._is_closed and not self._parts and self._own is not None:
                self._own.close()

    def _check_row(self, place: int, row: Row) -> JsonObject:
        given: object = row
        if not isinstance(given, Mapping):
            raise InvalidParameterError(
                f"row {place} is {type(given).__name__}, not a mapping of columns to values"
            )
        try:
            columns = dict(row)
        except Exception as error:
            raise InvalidParameterError(
                f"row {place} cannot be read ({type(error).__name__})"
            ) from error
        names = (self.job.prefix + name for name in COLUMNS)
        taken = [name for name in names if name in columns]
        if taken:
            raise InvalidParameterError(
                f"the rows have a column {taken[0]!r} already, which the results would replace: "
                "give the job a prefix, such as Bulk(..., prefix='answer_')"
            )
        return columns

    def _new_call(self) -> ItemCall:
        journal = None
        if self._shards is not None and self._own is not None:
            self._shards.refresh()
            journal = PartJournal(self._shards, self._own)
        job = self.job
        return _RowCall(
            job.generator, self._settings, prompt=self._prompt, tools=job.tools, loop=job.loop,
            journal=journal, key=job.key,
        )  # fmt: skip

    async def _ask(self, part: list[JsonObject], results: list[JsonObject | None]) -> _End | None:
        """Ask about rows. Return what ended the run before all of them had a result."""
        prefix = self.job.prefix
        try:
            bulk: BulkRun[Any] = BulkRun(
                part, self._new_call(),
                width=self.width, is_ordered=False, on_progress=None,
            )  # fmt: skip
            async with bulk, self._leasing(bulk):
                async for outcome in bulk:
                    results[outcome.index] = result_columns(outcome, prefix)
        except MiniLLMError as error:
            end = _End(error, is_drained=True)
            if isinstance(last_error(error), (*STOPPING, StorageError)):
                self._end = end
            return end
        except Exception as error:  # noqa: BLE001 - of the caller's own provider, for example
            foreign = f"the run was ended by {type(error).__name__}, of code outside this library"
            return _End(MiniLLMError(foreign), is_drained=False)
        problem = None if self._leases is None else self._leases.problem
        return None if problem is None else _End(problem, is_drained=False)

    def _leasing(self, bulk: BulkRun[Any]) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._leases is None else self._leases.during(bulk)

    def _fill(self, part: list[JsonObject], results: list[JsonObject | None], end: _End) -> None:
        """Give the rows without a result that of the journal, else what ended the run."""
        call, prefix = None, self.job.prefix
        with suppress(MiniLLMError):  # such as a journal that cannot be read
            call = self._new_call()
        for place, row in enumerate(part):
            found = None if call is None else call.prepare(place, row)
            if results[place] is None:
                is_cost_known = True
                if not isinstance(found, BulkOutcome):
                    found = BulkOutcome(index=place, error=end.error)
                    is_cost_known = end.is_drained
                results[place] = result_columns(found, prefix, is_cost_known=is_cost_known)

    def close(self) -> None:
        """Close the shard of this process, so that others may take its share of the budget.

        Parts that are asked about now come to their end; further rows get an error that says so.
        The next `Bulk.runtime` makes a new runtime. At the end of the process nothing is lost
        without this.
        """
        with _lock:
            if self in _runtimes:
                _runtimes.remove(self)
        self._close("was closed, by close() or by a newer one, which took its share of the budget")

    def _close(self, reason: str) -> None:
        with self._lock:
            self._is_closed = True
            problem = InvalidParameterError(
                f"the runtime of the job {reason}: call job.runtime() again, and ask that one"
            )
            self._end = _End(problem, is_drained=True)
            if self._own is not None and not self._parts:
                self._own.close()

    def leave_to_parent(self) -> None:
        """End the runtime in a forked process, if it has what only the parent may use."""
        if self._own is not None or self._leases is not None:
            self._close("belongs to the process from which this one was forked")

    def use_bank(self, bank: BankLike | None) -> None:
        """Lease from another bank, or by another handle of the bank, from now on."""
        if self._leases is not None and bank is not None:
            self._leases.bank = bank

    @property
    def has_bank(self) -> bool:
        """Whether rate and money are leased of a bank."""
        return self._leases is not None

    @property
    def has_share(self) -> bool:
        """Whether a share of the budget is set aside for it."""
        return self.budget is not None and self._leases is None

    @property
    def is_busy(self) -> bool:
        """Whether rows are asked about now."""
        return self._parts > 0

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "the runtime of a job stays in its process: send the job, and call job.runtime() there"
        )

    def __repr__(self) -> str:
        return f"BulkRuntime(worker={self.worker!r}, width={self.width.limit})"


def result_columns(
    outcome: BulkOutcome[Any], prefix: str, *, is_cost_known: bool = True
) -> JsonObject:
    """Return the results of a row as plain values."""
    error, parsed = outcome.error, None
    if isinstance(outcome.node, ParsedNode):
        try:
            parsed = msgspec.to_builtins(outcome.node.parsed, enc_hook=_plain_object, str_keys=True)
        except Exception as problem:  # noqa: BLE001 - of a type of the caller's own
            error = InvalidParameterError(
                f"the parsed answer cannot be written as JSON ({type(problem).__name__})"
            )
    cost = outcome.cost
    resolution = cost.resolution if is_cost_known else CostResolution.UNKNOWN
    values = (
        outcome.text,
        parsed,
        None if error is None else f"{type(error).__name__}: {error}",
        f"{cost.cost:f}" if resolution is CostResolution.RESOLVED else None,
        resolution.value,
        len(outcome.attempts),
        outcome.is_from_journal,
    )
    return {prefix + name: value for name, value in zip(COLUMNS, values, strict=True)}


def _plain_row(row: JsonValue) -> JsonObject:
    """Return a row whose numbers are plain ones, as those of placeholders must be."""
    return {name: _plain_number(value) for name, value in row.items()}


def _plain_number(value: JsonValue) -> JsonValue:
    """Return a number of numpy, for example, as a plain one."""
    is_foreign = isinstance(value, Real) and not isinstance(value, int | float)
    return plain_value(value) if is_foreign else value


def _plain_object(value: JsonValue) -> JsonValue:
    return value.model_dump(mode="json")  # of pydantic; others raise


_runtimes: list[BulkRuntime] = []  # of this process: engines unpickle the job for each part
_lock = fork_safe_lock()


def runtime_of(job: Bulk, worker: str | None, bank: BankLike | None) -> BulkRuntime:
    """Return the runtime of a job in this process; make it on the first call."""
    with _lock:
        for one in _runtimes:
            if (
                one.job == job
                and one.has_bank == (bank is not None)
                and worker in (None, one.worker)
            ):
                one.use_bank(bank)
                return one
        if job.budget is not None and bank is None:
            for one in [one for one in _runtimes if one.job.journal == job.journal]:
                if one.has_share and not one.is_busy:
                    one.close()
        runtime = BulkRuntime(job, worker, bank)
        _runtimes.append(runtime)
        return runtime


def _leave_to_parent() -> None:
    while _runtimes:
        _runtimes.pop().leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
