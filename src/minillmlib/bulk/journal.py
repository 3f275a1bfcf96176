"""The journal of a run: what was asked and what came of it, so that a rerun asks only the rest."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import IO, Protocol, TypeAlias

import msgspec

from minillmlib import errors
from minillmlib.bulk.outcome import is_final
from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.files import FilePath, close_in_children, open_regular, try_lock, unlock
from minillmlib.tree.records import encode_lossy
from minillmlib.tree.tree_file import as_storage_error
from minillmlib.types.costs import EXACT, Attempt, CostInfo, CostTotal, exact_sum, parse_usd
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
    """A request that is about to be sent, and the most that it may cost, if that is known.

    `turn` is its place among the requests for the item, from 1: a tool loop needs several.
    """

    key: str
    ceiling: Decimal | None = None
    turn: int = 1

    def __post_init__(self) -> None:
        if self.ceiling is not None:
            parse_usd("a maximum cost", self.ceiling, Decimal)


class Turn(_Record, frozen=True):
    """A message that an item added: an answer with its response, or the result of a tool."""

    message: Message | None = None
    response: CompletionResponse | None = None


class DoneRecord(_Record, frozen=True, tag="done", tag_field="kind"):
    """An item that was answered."""

    key: str
    index: int
    turns: tuple[Turn, ...]

    def __post_init__(self) -> None:
        if not self.turns or self.turns[0].response is None:
            raise StorageError("an item that was answered has no answer")


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


class SubmittingRecord(_Record, frozen=True, tag="submitting", tag_field="kind"):
    """A part that is about to be submitted as a batch, whose rows are named by their places.

    `ceilings` are the most that the rows may cost, if that is known, and `attempts` what was tried
    for each before, if anything was.
    """

    part: str
    url: str
    sent_at: float
    keys: tuple[str, ...]
    ceilings: tuple[Decimal, ...] = ()
    attempts: tuple[tuple[Attempt, ...], ...] = ()

    def __post_init__(self) -> None:
        if {len(self.ceilings), len(self.attempts)} - {0, len(self.keys)}:
            raise StorageError("a part has another number of rows than of facts about them")


class SubmittedRecord(_Record, frozen=True, tag="submitted", tag_field="kind"):
    """The batch that holds a part. `is_certain`: the server said so, and it is no guess."""

    part: str
    batch: str
    is_certain: bool = True


class GrantedRecord(_Record, frozen=True, tag="granted", tag_field="kind"):
    """The USD that the process of a shard may spend, with all that it has spent.

    `is_lease`: a bank has granted them, and does not know what becomes of them if the process dies.
    """

    usd: Decimal
    is_lease: bool = False

    def __post_init__(self) -> None:
        parse_usd("a share", self.usd, Decimal)


class OpenPart(msgspec.Struct):
    """A part that an earlier run submitted, of which some rows have not ended."""

    record: SubmittingRecord
    batches: list[SubmittedRecord] = []


class OpenRow(msgspec.Struct, frozen=True):
    """A row of such a part."""

    part: OpenPart
    place: int

    @property
    def ceiling(self) -> Decimal | None:
        """The most that the row may cost, or None if that is not known."""
        ceilings = self.part.record.ceilings
        return ceilings[self.place] if ceilings else None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The earlier attempts for the row."""
        attempts = self.part.record.attempts
        return attempts[self.place] if attempts else ()

    def committed_cost(self, attempts: Iterable[Attempt]) -> Decimal:
        """Return what attempts for the row count: the ceiling for each of unknown cost."""
        totals = [CostTotal.of([attempt.cost]) for attempt in attempts]
        ceiling = self.ceiling or Decimal(0)
        return exact_sum(
            total.cost if total.is_exact else max(total.cost, ceiling) for total in totals
        )


Record: TypeAlias = (
    HeaderRecord
    | SentRecord
    | SubmittingRecord
    | SubmittedRecord
    | DoneRecord
    | FailedRecord
    | GrantedRecord
)
Ended: TypeAlias = DoneRecord | FailedRecord

BAD_RECORD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MiniLLMError)
decode_record = msgspec.json.Decoder(Record).decode


class Ledger:
    """The sum of what a journal records.

    Attributes:
        spent: The cost of all items that have ended.
    """

    def __init__(self) -> None:
        self.spent = CostTotal()
        self._known = Decimal(0)
        # The ceilings of what was sent, by its key: a list for each time that it was asked, since
        # a process may have died, and two threads may ask the same at a time.
        self._open: dict[str, list[list[Decimal]]] = {}
        self._lost: list[Decimal] = []

    @property
    def maybe_paid(self) -> int:
        """The number of requests that were sent and whose end is not recorded."""
        return len(self._lost) + sum(map(len, chain(*self._open.values())))

    @property
    def max_cost(self) -> Decimal:
        """USD: what is spent, and the ceilings of what is unknown."""
        return exact_sum([self._known, *self._lost, *chain(*chain(*self._open.values()))])

    def note_sent(self, record: SentRecord) -> None:
        """Note a request."""
        asked = self._open.setdefault(record.key, [])
        if record.turn == 1 or not asked:
            asked.append([])
        asked[-1].append(record.ceiling or Decimal(0))

    def note_submitted(self, keys: Sequence[str]) -> None:
        """Note that items are in a batch, and no longer asked alone."""
        for key in keys:
            self._lost += chain(*self._open.pop(key, ()))

    def note_end(self, record: Ended, row: OpenRow | None = None) -> None:
        """Note how an item ended, which may have been a row of a batch."""
        asked = self._open.get(record.key, [])
        ceiling = exact_sum(asked.pop() if asked else ())
        if not asked:
            self._open.pop(record.key, None)
        cost = CostTotal.of([CostInfo.of(attempts_of(record))])
        self.spent += cost
        if row is None:
            known = cost.cost if cost.is_exact else max(cost.cost, ceiling)
        else:
            known = row.committed_cost(attempts_of(record))
        self._known = EXACT.add(self._known, known)


class Journal(Protocol):
    """The part of a journal that a run uses."""

    spent: CostTotal
    maybe_paid: int
    retries_failed: bool

    def key_of(self, name: str) -> str:
        """Return the key of the next item with this name."""

    def find(self, key: str) -> Ended | None:
        """Return what became of an item, if it need not be asked again."""

    def record_sent(self, key: str, ceiling: Decimal | None, turn: int) -> None:
        """Record that a request for an item is about to be sent."""

    def record_done(self, key: str, index: int, turns: tuple[Turn, ...]) -> None:
        """Record the answer to an item."""

    def record_failed(self, key: str, index: int, error: MiniLLMError) -> None:
        """Record the failure of an item."""

    def close(self) -> None:
        """Write everything to the disk at the end of the run."""


def next_key(name: str, counts: Counter[str]) -> str:
    """Return the key of the next item with this name: equal items are counted.

    A tab is in no name, so that no count makes the name of another item.
    """
    counts[name] += 1
    count = counts[name]
    return name if count == 1 else f"{name}\t{count}"


class RunJournal:
    """A file that one run at a time appends to, and that says what earlier ones did.

    Attributes:
        spent: The cost of what earlier runs did.
        maybe_paid: The number of requests that were in flight when earlier runs were killed; they
            may have been billed.
        committed: USD that count against a budget: `spent`, and the ceilings of what is unknown,
            without the rows in `open_rows`.
        batches: The names of all batches that earlier runs are certain to have created.
        open_rows: The rows that were submitted in batches and have not ended, by their keys.
        retries_failed: Whether what failed permanently is asked again.
    """

    _descriptor = -1

    def __init__(self, path: FilePath, *, retries_failed: bool) -> None:
        self._name = str(path)
        self._path = Path(os.fsdecode(path)).absolute()
        self._process_id = os.getpid()
        self.retries_failed = retries_failed
        self.open_rows: dict[str, OpenRow] = {}
        self.batches: set[str] = set()
        self._parts: dict[str, OpenPart] = {}
        self._places: dict[str, tuple[int, int]] = {}  # of the line of each item that has ended
        self._counts: Counter[str] = Counter()
        self._synced_at = 0.0
        self.spent = CostTotal()
        self.maybe_paid = 0
        self.committed = Decimal(0)
        close_in_children(self)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            with open_regular(self._path) as file:
                self._lock()
                self._read(file)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError | ValueError) and not isinstance(error, MiniLLMError):
                reason = getattr(error, "strerror", None) or error
                raise StorageError(
                    f"{self._name!r} cannot be used as a journal ({reason})"
                ) from None
            raise

    def _lock(self) -> None:
        if not try_lock(self._descriptor):
            raise StorageError(
                f"{self._name!r} is the journal of a run that is still going on; wait for it, or "
                "name another file"
            )

    def _read(self, file: IO[bytes]) -> None:
        """Read what earlier runs did, and cut off a last line that has no end."""
        ledger = Ledger()
        end = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            record = decode_line(line, number, self._name)
            if isinstance(record, SentRecord):
                ledger.note_sent(record)
            elif isinstance(record, SubmittingRecord | SubmittedRecord):
                ledger.note_submitted(self._note_batch(record))
            elif isinstance(record, Ended):
                ledger.note_end(record, self.open_rows.pop(record.key, None))
                self._note(record, end, len(line))
            end += len(line)
        os.ftruncate(self._descriptor, end)
        if end == 0:
            self._append(HeaderRecord(version=VERSION))
        self.spent, self.maybe_paid = ledger.spent, ledger.maybe_paid
        before = exact_sum(row.committed_cost(row.attempts) for row in self.open_rows.values())
        self.committed = EXACT.add(ledger.max_cost, before)

    def _note(self, record: Ended, start: int, size: int) -> None:
        if isinstance(record, DoneRecord) or (record.is_final and not self.retries_failed):
            self._places[record.key] = (start, size)
        else:
            self._places.pop(record.key, None)

    def _note_batch(self, record: SubmittingRecord | SubmittedRecord) -> tuple[str, ...]:
        """Note a part or the batch that holds it; return the keys of the rows in a new part."""
        if isinstance(record, SubmittingRecord):
            part = self._parts[record.part] = OpenPart(record)
            for place, key in enumerate(record.keys):
                self.open_rows[key] = OpenRow(part, place)
            return record.keys
        if record.part not in self._parts:
            raise StorageError(f"{self._name!r} names a part that was not submitted")
        self._parts[record.part].batches.append(record)
        if record.is_certain:
            self.batches.add(record.batch)
        return ()

    def check_no_batches(self) -> None:
        """Raise `InvalidParameterError` if items are in batches of the provider."""
        count = len(self.open_rows)
        if count:
            words = "items of this journal are in batches"
            if count == 1:
                words = "item of this journal is in a batch"
            raise InvalidParameterError(
                f"{count} {words} whose results were not fetched yet: run it with batch=True, or "
                "name another journal"
            )

    def key_of(self, name: str) -> str:
        """Return the key of the next item with this name."""
        return next_key(name, self._counts)

    def find(self, key: str) -> Ended | None:
        """Return what became of an item in an earlier run, if it need not be asked again."""
        place = self._places.get(key)
        if place is None or self._descriptor < 0:
            return None
        start, size = place
        os.lseek(self._descriptor, start, os.SEEK_SET)
        with contextlib.suppress(*BAD_RECORD):
            record = decode_record(os.read(self._descriptor, size))
            if isinstance(record, Ended) and record.key == key:
                return record
        raise StorageError(
            f"{self._name!r} was changed by another program during the run; run it again"
        )

    def record_sent(self, key: str, ceiling: Decimal | None, turn: int) -> None:
        """Record that a request for an item is about to be sent."""
        self._append(SentRecord(key=key, ceiling=ceiling, turn=turn))

    def record_batch(self, record: SubmittingRecord | SubmittedRecord) -> None:
        """Record that a part is submitted, or the batch that holds it. It is on the disk then."""
        self._append(record, is_urgent=True)

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

    def record_grant(self, usd: Decimal, *, is_lease: bool = False) -> None:
        """Record how much the process may spend. A share is on the disk then."""
        self._append(GrantedRecord(usd=usd, is_lease=is_lease), is_urgent=not is_lease)

    def _append(self, record: Record, *, is_urgent: bool = False) -> None:
        """Append a line: all of it, or nothing, with a `StorageError`."""
        line = encode_lossy(record) + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            remaining = memoryview(line)
            while remaining:
                remaining = remaining[os.write(self._descriptor, remaining) :]
            if is_urgent or time.monotonic() - self._synced_at >= SYNC_SECS:
                self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):  # else the next run cuts it off
                os.ftruncate(self._descriptor, size)
            raise self._no_room(error) from None

    def _sync(self) -> None:
        """Write everything to the disk. Raises `StorageError` if the file is no longer in place."""
        os.fsync(self._descriptor)
        self._synced_at = time.monotonic()
        try:
            is_there = os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise StorageError(
                f"the journal {self._name!r} was removed or replaced during the run, which ended "
                "for that reason; its answers so far are lost, except for the outcomes you have"
            )

    def _no_room(self, error: OSError) -> StorageError:
        return StorageError(
            f"the journal {self._name!r} cannot be written ({error.strerror or error}); the "
            "run has ended: make room and run it again, and only what is missing is asked"
        )

    def flush(self) -> None:
        """Write everything to the disk."""
        if self._descriptor >= 0:
            try:
                self._sync()
            except OSError as error:
                raise self._no_room(error) from None

    def close(self) -> None:
        """Write everything to the disk and unlock the file. May be called again."""
        try:
            self.flush()
        finally:
            self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            if self._process_id == os.getpid():  # else the lock is the parent's
                with contextlib.suppress(OSError):
                    unlock(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        self._release()


def read_records(path: FilePath) -> Iterator[Record]:
    """Yield the records of a journal, also of a run that is going on. Raises `StorageError`."""
    name = str(path)
    with as_storage_error("read", path), open_regular(path) as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield decode_line(line, number, name)


def decode_line(line: bytes, number: int, name: str) -> Record:
    """Return the record of a line of a journal. Raises `StorageError`."""
    try:
        record: Record = decode_record(line)
    except BAD_RECORD as error:
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
