"""The journal of many processes: a folder with a shard for each, which all of them read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from itertools import count
from pathlib import Path

from minillmlib.bulk.journal import (
    BAD_RECORD,
    DoneRecord,
    Ended,
    GrantedRecord,
    Ledger,
    Record,
    RunJournal,
    SentRecord,
    decode_line,
    decode_record,
    next_key,
)
from minillmlib.errors import StorageError
from minillmlib.files import FileJournal, open_regular, try_lock
from minillmlib.locks import fork_safe_lock
from minillmlib.tree.tree_file import as_storage_error
from minillmlib.types.costs import EXACT, ZERO, CostTotal, exact_sum, first_share

LOCK = ".lock"  # of the folder, held while a process gets its share


class Shard:
    """The journal of one process, read as far as it is written."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number  # in the order in which the shards were found
        self.ledger = Ledger()
        self.granted = ZERO
        self.is_leasing = False  # of a bank
        self._end = self._line = 0

    def read_on(self) -> Iterator[tuple[Ended, int, int]]:
        """Read what was added. Yield the ends of items in it, and where each line is."""
        with as_storage_error("read", self.path), open_regular(self.path) as file:
            if os.fstat(file.fileno()).st_size == self._end:
                return
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._line += 1
                record = decode_line(line, self._line, str(self.path))
                self._note(record)
                start = self._end
                self._end += len(line)
                if isinstance(record, Ended):
                    yield record, start, len(line)

    def _note(self, record: Record) -> None:
        if isinstance(record, SentRecord):
            self.ledger.note_sent(record)
        elif isinstance(record, Ended):
            self.ledger.note_end(record)
        elif isinstance(record, GrantedRecord):
            self.granted = record.usd
            self.is_leasing = record.is_lease

    def is_live(self) -> bool:
        """Whether the process still runs. Also if that cannot be found out."""
        try:
            descriptor = os.open(self.path, os.O_RDWR)
        except OSError:
            return True
        try:
            return not try_lock(descriptor)
        except OSError:
            return True
        finally:
            os.close(descriptor)

    @property
    def claim(self) -> Decimal:
        """USD that the process has spent or may still spend."""
        return max(self.granted, self.ledger.max_cost)


class Shards:
    """The shards of a folder, and an index of the items that have ended.

    Threads may share it.
    """

    def __init__(self, folder: Path, *, retries_failed: bool) -> None:
        self.folder = folder
        self.retries_failed = retries_failed
        self._shards: dict[str, Shard] = {}
        self._places: dict[str, tuple[Shard, int, int]] = {}  # of each item that has ended
        self._failed: set[str] = set()
        self._lock = fork_safe_lock()
        self.refresh()
        self._old = len(self._shards)  # shards of earlier processes

    def refresh(self) -> None:
        """Read what all processes have added. O(it), and a few file calls for each shard."""
        with self._lock:
            with as_storage_error("read", self.folder):
                names = sorted(path.name for path in self.folder.glob("*.jsonl"))
            for name in names:
                shard = self._shards.get(name)
                if shard is None:
                    shard = self._shards[name] = Shard(self.folder / name, len(self._shards))
                for record, start, size in shard.read_on():
                    self._note(record, shard, start, size)

    def _note(self, record: Ended, shard: Shard, start: int, size: int) -> None:
        key = record.key
        if isinstance(record, DoneRecord):
            self._failed.discard(key)
        elif key in self._places and key not in self._failed:
            return  # another process has answered it
        else:
            self._failed.add(key)
        self._places[key] = shard, start, size

    def find(self, key: str) -> Ended | None:
        """Return how an item ended, if it need not be asked again."""
        with self._lock:
            place = self._places.get(key)
        if place is None:
            return None
        shard, start, size = place
        with as_storage_error("read", shard.path), open_regular(shard.path) as file:
            file.seek(start)
            line = file.read(size)
        with suppress(*BAD_RECORD):
            record = decode_record(line)
            if isinstance(record, Ended) and record.key == key:
                return None if self._is_asked_again(record, shard) else record
        raise StorageError(f"{str(shard.path)!r} was changed by another program during the run")

    def _is_asked_again(self, record: Ended, shard: Shard) -> bool:
        if isinstance(record, DoneRecord):
            return False
        is_of_earlier_run = shard.number < self._old
        return not record.is_final or (self.retries_failed and is_of_earlier_run)

    @property
    def answer_count(self) -> int:
        """The number of items that were answered."""
        return len(self._places) - len(self._failed)

    @property
    def failure_count(self) -> int:
        """The number of items that have failed and were not answered since."""
        return len(self._failed)

    @property
    def spent(self) -> CostTotal:
        """The cost of all items that have ended."""
        return sum((shard.ledger.spent for shard in self._shards.values()), CostTotal())

    @property
    def maybe_paid(self) -> int:
        """The number of requests whose end is not recorded: in flight, or lost with a process."""
        return sum(shard.ledger.maybe_paid for shard in self._shards.values())

    @property
    def lost_usd(self) -> Decimal:
        """USD that were leased of a bank by processes that died before they gave them back."""
        unspent = (
            EXACT.subtract(one.granted, one.ledger.max_cost)
            for one in self._shards.values()
            if one.is_leasing and not one.is_live()
        )
        return exact_sum(amount for amount in unspent if amount > 0)

    def remaining(self, limit: Decimal) -> tuple[Decimal, int]:
        """Return what is left of a budget, and the number of live processes with a share.

        A process that has died counts with what it spent and the maximum cost of what was in
        flight; a live one, or one of which that is not known, with its whole share.
        """
        live = [one for one in self._shards.values() if one.granted and one.is_live()]
        dead = [one for one in self._shards.values() if one not in live]
        held = exact_sum([*(one.claim for one in live), *(one.ledger.max_cost for one in dead)])
        return max(EXACT.subtract(limit, held), ZERO), len(live)


def open_folder(name: str) -> Path:
    """Return the folder of a journal; make it if there is none."""
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be the journal of a job ({error.strerror}): it is a folder that "
            "all processes share, with a file for each"
        ) from None
    return path


def new_shard(folder: Path, worker: str) -> RunJournal:
    """Make the shard of this process."""
    name = re.sub(r"[^\w.-]", "_", worker)
    for number in count():
        path = folder / f"{name}-{number}.jsonl"
        with as_storage_error("written", path), suppress(FileExistsError):
            path.touch(exist_ok=False)
            return RunJournal(path, retries_failed=False)
    raise AssertionError


def take_share(shards: Shards, own: RunJournal, limit: Decimal, workers: int) -> Decimal:
    """Return the USD that this process may spend, and record it. Processes do so one by one."""
    path = shards.folder / LOCK
    with as_storage_error("locked", path), FileJournal(path).lock():
        shards.refresh()
        remaining, live = shards.remaining(limit)
        share = ZERO if live >= workers else first_share(remaining, workers - live)
        own.record_grant(share)
        return share


class PartJournal:
    """The journal for one part of the rows: equal rows are counted within it.

    So the same part has the same keys in any process.
    """

    spent = CostTotal()
    maybe_paid = 0

    def __init__(self, shards: Shards, own: RunJournal) -> None:
        self._counts: Counter[str] = Counter()
        self.retries_failed = shards.retries_failed
        self.find = shards.find
        self.record_sent, self.close = own.record_sent, own.flush
        self.record_done, self.record_failed = own.record_done, own.record_failed

    def key_of(self, name: str) -> str:
        """Return the key of the next item with this name."""
        return next_key(name, self._counts)
