"""The records of a run, as a journal has them.

Use it to write the journal of a run that never took place.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from minillmlib import Attempt, AttemptOutcome, CompletionResponse, CostOutcome, Usage
from minillmlib.bulk.journal import DoneRecord, FailedRecord, HeaderRecord, Record, Turn
from minillmlib.tree.records import encode_lossy

START = 1_790_000_000.0


def attempt(
    at: float, secs: float, status: int | None = 200, error: str | None = None, **fields
) -> Attempt:
    is_good = error is None
    cost = CostOutcome.resolved(
        Decimal("0.25"), Usage(uncached_input_tokens=10, completion_tokens=2)
    )
    given = {
        "number": 1, "url": "http://127.0.0.1/v1", "model": "m-1", "sent_bytes": 1,
        "started_at": START + at, "elapsed_secs": secs, "status": status, "error": error,
        "outcome": AttemptOutcome.ANSWERED if is_good else AttemptOutcome.DENIED,
        "cost": cost if is_good else None,
    }  # fmt: skip
    return Attempt(**given | fields)


def done(key: str, *attempts: Attempt) -> DoneRecord:
    response = CompletionResponse(model="m-1", content="x", attempts=attempts)
    return DoneRecord(key=key, index=0, turns=(Turn(response=response),))


def failed(key: str, *attempts: Attempt, text: str = "no", error: str = "X") -> FailedRecord:
    return FailedRecord(key=key, index=0, error=error, text=text, is_final=True, attempts=attempts)


def write_journal(path: Path, *records: Record, end: bytes = b"") -> Path:
    lines = [encode_lossy(one) + b"\n" for one in (HeaderRecord(version=1), *records)]
    path.write_bytes(b"".join(lines) + end)
    return path
