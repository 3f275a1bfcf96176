"""The journal of a run: what was asked and what came of it, so that a rerun asks only the rest."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from minillmlib import errors
from minillmlib.bulk.outcome import is_final
from minillmlib.errors import MiniLLMError, StorageError
from minillmlib.files import FilePath, open_regular, try_lock
from minillmlib.tree.records import encode_lossy
from minillmlib.tree.tree_file import as_storage_error
from minillmlib.types.costs import Attempt, CostInfo, CostTotal
from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse

VERSION = 1
SYNC_SECS = 0.2


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class HeaderRecord(_Record, frozen=True, tag="minillmlib run", tag_field="kind"):
    """The first line of a journal."""

    version: int


class SentRecord(_Record, frozen=True, tag="sent", tag_field="kind"):
    """An item that is about to be asked, and the most that it may cost, if that is known."""

    key: str
    ceiling: Decimal | None = None


class Turn(_Record, frozen=True):
    """A message that an item added: an answer with its response, or the result of a tool."""

    message: Message | None = None
    response: CompletionResponse | None = None


class DoneRecord(_Record, frozen=True, tag="done", tag_field="kind"):
    """An item that was answered."""

    key: str
    index: int
    turns: tuple[Turn, ...]


class FailedRecord(_Record, frozen=True, tag="failed", tag_field="kind"):
    """An item that failed. `is_final`: asking again would fail again."""

    key: str
    index: int
    error: str
    text: str
    is_final: bool
    attempts: tuple[Attempt, ...] = ()

    def to_error(self) -> MiniLLMError:
        """Return the error as it was raised, as far as it was recorded."""
        kind = vars(errors).get(self.error)
        if not (isinstance(kind, type) and issubclass(kind, MiniLLMError)):
            raise StorageError(f"the journal has an unknown error, {self.error!r:.80}")
        error = kind(self.text)
        error.attempts = self.attempts
        return error


Record: TypeAlias = HeaderRecord | SentRecord | DoneRecord | FailedRecord
Ended: TypeAlias = DoneRecord | FailedRecord

_decode = msgspec.json.Decoder(Record).decode


class RunJournal:
    """A file that one run at a time appends to, and that says what earlier ones did.

    Attributes:
        spent: The cost of what earlier runs did.
        maybe_paid: The number of requests that were in flight when earlier runs were killed; they
            may have been billed.
        committed: USD that count against a budget: `spent`, and the ceilings of what is unknown.
    """

    _descriptor = -1
    _reader: IO[bytes] | None = None

    def __init__(self, path: FilePath, *, retries_failed: bool) -> None:
        self._name = str(path)
        self._path = Path(os.fsdecode(path)).absolute()
        self._retries_failed = retries_failed
        self._places: dict[str, tuple[int, int]] = {}  # of the line of each item that has ended
        self._counts: Counter[str] = Counter()
        self._synced_at = 0.0
        self.spent = CostTotal()
        self.maybe_paid = 0
        self.committed = Decimal(0)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._reader = open_regular(self._path)
            self._lock()
            self._read()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                problem = f"{self._name!r} cannot be used as a journal"
                raise StorageError(f"{problem} ({error.strerror or error})") from None
            raise

    def _lock(self) -> None:
        if not try_lock(self._descriptor):
            raise StorageError(
                f"{self._name!r} is the journal of a run that is still going on; wait for it, or "
                "name another file"
            )

    def _read(self) -> None:
        """Read what earlier runs did, and cut off a last line that has no end."""
        sent: dict[str, Decimal] = {}
        lost: list[Decimal] = []
        spent: list[CostTotal] = []
        assert self._reader is not None
        end = 0
        for number, line in enumerate(self._reader, start=1):
            if not line.endswith(b"\n"):
                break
            record = _decode_line(line, number, self._name)
            if isinstance(record, SentRecord):
                if record.key in sent:  # in flight at a crash, and asked again since
                    lost.append(sent[record.key])
                sent[record.key] = record.ceiling or Decimal(0)
            elif isinstance(record, Ended):
                ceiling = sent.pop(record.key, Decimal(0))
                cost = CostTotal.of([CostInfo.of(attempts_of(record))])
                spent.append(cost)
                self.committed += cost.cost if cost.is_exact else max(cost.cost, ceiling)
                self._note(record, end, len(line))
            end += len(line)
        os.ftruncate(self._descriptor, end)
        if end == 0:
            self._append(HeaderRecord(version=VERSION))
        self.spent = sum(spent, CostTotal())
        lost += sent.values()
        self.maybe_paid = len(lost)
        self.committed += sum(lost, Decimal(0))

    def _note(self, record: Ended, start: int, size: int) -> None:
        if isinstance(record, DoneRecord) or (record.is_final and not self._retries_failed):
            self._places[record.key] = (start, size)
        else:
            self._places.pop(record.key, None)

    def key_of(self, name: str) -> str:
        """Return the key of the next item with this name: equal items are counted."""
        self._counts[name] += 1
        count = self._counts[name]
        return name if count == 1 else f"{name}#{count}"

    def find(self, key: str) -> Ended | None:
        """Return what became of an item in an earlier run, if it need not be asked again."""
        place = self._places.get(key)
        if place is None or self._reader is None:
            return None
        start, size = place
        self._reader.seek(start)
        record = _decode(self._reader.read(size))
        return record if isinstance(record, Ended) else None

    def record_sent(self, key: str, ceiling: Decimal | None) -> None:
        """Record that an item is about to be asked."""
        self._append(SentRecord(key=key, ceiling=ceiling))

    def record_done(self, key: str, index: int, turns: tuple[Turn, ...]) -> None:
        """Record the answer to an item."""
        self._append(DoneRecord(key=key, index=index, turns=turns))

    def record_failed(self, key: str, index: int, error: MiniLLMError) -> None:
        """Record the failure of an item."""
        self._append(
            FailedRecord(
                key=key,
                index=index,
                error=type(error).__name__,
                text=str(error),
                is_final=is_final(error),
                attempts=error.attempts,
            )
        )

    def _append(self, record: Record) -> None:
        """Append a line: all of it, or nothing, with a `StorageError`."""
        line = encode_lossy(record) + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            if time.monotonic() - self._synced_at >= SYNC_SECS:
                os.fsync(self._descriptor)
                self._synced_at = time.monotonic()
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise StorageError(
                f"the journal {self._name!r} cannot be written ({error.strerror or error}); the "
                "run has ended: make room and run it again, and only what is missing is asked"
            ) from None

    def close(self) -> None:
        """Write everything to the disk and unlock the file. May be called again."""
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            finally:
                self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if self._reader is not None:
            self._reader.close()
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self._release()


def read_records(path: FilePath) -> Iterator[Record]:
    """Yield the records of a journal, also of a run that is going on. Raises `StorageError`."""
    name = str(path)
    with as_storage_error("read", path), open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield _decode_line(line, number, name)


def _decode_line(line: bytes, number: int, name: str) -> Record:
    try:
        record: Record = _decode(line)
    except (msgspec.DecodeError, RecursionError, MiniLLMError) as error:
        raise StorageError(
            f"{name!r}: line {number} is no record of a run ({error}); the journal of a "
            "run is written by map_complete only: name another file"
        ) from None
    is_header = isinstance(record, HeaderRecord) and record.version == VERSION
    if is_header != (number == 1):
        raise StorageError(
            f"{name!r}: line {number} does not belong there: this is no journal of this "
            f"version ({VERSION})"
        )
    return record


def attempts_of(record: Ended) -> tuple[Attempt, ...]:
    """Return all requests for an item."""
    if isinstance(record, FailedRecord):
        return record.attempts
    responses = (turn.response for turn in record.turns)
    return tuple(one for each in responses if each is not None for one in each.attempts)
