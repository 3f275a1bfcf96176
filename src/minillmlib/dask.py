"""A job on the workers of a Dask cluster."""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING

from minillmlib.bulk.outcome import BulkOutcome
from minillmlib.errors import InvalidParameterError, MiniLLMError, MissingExtraError
from minillmlib.json_value import JsonObject
from minillmlib.types.values import check_number
from minillmlib.workers.job import Bulk
from minillmlib.workers.runtime import Row, result_columns

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["map_complete"]

MAX_PART_ROWS = 256
PARTS_PER_WORKER = 2  # one that is asked, and one that waits


def map_complete(
    rows: Iterable[Row], job: Bulk, *, part_rows: int | None = None
) -> Iterator[JsonObject]:
    """Ask about rows on the workers of the cluster; yield them with their results, in order.

    Rows are read as there is room. Their results are those of `BulkRuntime.complete`. If a worker
    dies, Dask asks its part again: with a journal, only what was in flight. The rows of a part that
    has ended too many workers have that as their error. Needs `minillmlib[dask]`, and a
    `distributed.Client`.

    Args:
        rows: Mappings of columns to values.
        job: The job. Its `workers` are the processes of the cluster.
        part_rows: The rows that one worker asks about at a time; by default 256, or fewer of a
            list that is too short to give each worker as many.
    """
    check_number("part_rows", part_rows, minimum=1, is_whole=True)
    if part_rows is None:
        count = len(rows) if isinstance(rows, Sized) else MAX_PART_ROWS * job.workers
        part_rows = max(min(count // job.workers, MAX_PART_ROWS), 1)
    try:
        from distributed import get_client  # noqa: PLC0415 - it takes half a second
    except ImportError:
        raise MissingExtraError(
            "minillmlib.dask needs Dask: pip install 'minillmlib[dask]'"
        ) from None
    try:
        client = get_client()
    except ValueError:
        raise InvalidParameterError("make a distributed.Client of the cluster first") from None
    return _ask_all(iter(rows), job, part_rows, client)


def _ask_all(
    rows: Iterator[Row], job: Bulk, part_rows: int, client: "Client"
) -> Iterator[JsonObject]:
    asked: deque[tuple[list[Row], Future[list[JsonObject]]]] = deque()
    while (part := list(islice(rows, part_rows))) or asked:
        if part:
            asked.append((part, client.submit(_ask, part, job, pure=False)))
        if not part or len(asked) >= PARTS_PER_WORKER * job.workers:
            yield from _read_results(*asked.popleft(), job)


def _ask(part: list[Row], job: Bulk) -> list[JsonObject]:
    return job.runtime().rows(part)


def _read_results(
    part: list[Row], future: "Future[list[JsonObject]]", job: Bulk
) -> list[JsonObject]:
    from distributed import KilledWorker  # noqa: PLC0415 - as above

    try:
        return list(future.result())
    except KilledWorker as error:
        lost = MiniLLMError(
            f"the part of this row was given up after {error.allowed_failures + 1} of its workers "
            "had died; a rerun asks only what is missing, and smaller parts lose fewer rows"
        )
        outcome = BulkOutcome[None](index=0, error=lost)
        columns = result_columns(outcome, job.prefix, is_cost_known=False)
        return [{**row, **columns} for row in part]
