"""A job on the workers of a Dask cluster."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from minillmlib.bulk.outcome import BulkOutcome
from minillmlib.errors import InvalidParameterError, MiniLLMError, MissingExtraError
from minillmlib.json_value import JsonObject
from minillmlib.types.values import check_number
from minillmlib.workers.job import Bulk
from minillmlib.workers.runtime import Row, result_columns

try:
    from distributed import Future, KilledWorker, get_client
except ImportError:
    raise MissingExtraError("minillmlib.dask needs Dask: pip install 'minillmlib[dask]'") from None

__all__ = ["map_complete"]

PARTS_PER_WORKER = 2  # one that is asked, and one that waits


def map_complete(rows: Iterable[Row], job: Bulk, *, part_rows: int = 256) -> Iterator[JsonObject]:
    """Ask about rows on the workers of the cluster; yield them with their results, in order.

    Rows are read as there is room. Their results are those of `BulkRuntime.complete`. If a worker
    dies, Dask asks its part again: with a journal, only what was in flight. The rows of a part that
    has ended too many workers have that as their error. Needs `minillmlib[dask]`, and a
    `distributed.Client`.

    Args:
        rows: Mappings of columns to values.
        job: What is asked. Its `workers` are the processes of the cluster.
        part_rows: The rows that one worker asks about at a time.
    """
    check_number("part_rows", part_rows, minimum=1, is_whole=True)
    try:
        client = get_client()
    except ValueError:
        raise InvalidParameterError("make a distributed.Client of the cluster first") from None
    remaining, asked = iter(rows), deque[tuple[list[Row], Future]]()
    while (part := list(islice(remaining, part_rows))) or asked:
        if part:
            asked.append((part, client.submit(_ask, part, job, pure=False)))
        if not part or len(asked) >= PARTS_PER_WORKER * job.workers:
            yield from _results(*asked.popleft(), job)


def _ask(part: list[Row], job: Bulk) -> list[JsonObject]:
    return job.runtime().rows(part)


def _results(part: list[Row], future: Future, job: Bulk) -> list[JsonObject]:
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
