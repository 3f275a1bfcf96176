"""The file of a recording or a cache: where the exchanges of each request are in it."""

from __future__ import annotations

import os
from bisect import insort
from collections.abc import Iterator
from typing import IO, NamedTuple

from minillmlib.errors import StorageError
from minillmlib.files import FileJournal, FilePath, absolute_path, open_regular, write_whole
from minillmlib.locks import fork_safe_lock
from minillmlib.recording.records import (
    BAD_RECORD,
    HEADER,
    VERSION,
    HeaderRecord,
    Record,
    RecordedExchange,
    decode_record,
    encode_record,
)

MAX_LINE_BYTES = 1_000_000_000


class Place(NamedTuple):
    """The place of an exchange in a file. Those of equal requests are sorted by their start."""

    started_at: float
    start: int
    size: int
    line: int


class RecordingStore:
    """A file of exchanges, which other processes may append to as well.

    Only the places of the exchanges are kept in memory.
    """

    def __init__(self, path: FilePath) -> None:
        self._path = absolute_path(path)
        self.name = str(path)
        self._journal = FileJournal(self._path)
        self._lock = fork_safe_lock()
        self._forget()

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._end = self._lines = 0  # of what was read
        self._places: dict[bytes, list[Place]] = {}

    @property
    def exists(self) -> bool:
        """Whether there was a file when it was last read."""
        return self._identity is not None

    def read_new(self) -> None:
        """Read what the file has more than before. Raises `StorageError`, with the line."""
        with self._lock:
            try:
                with open_regular(self._path) as file:
                    self._read(file)
            except FileNotFoundError:
                self._forget()
            except OSError as error:
                raise self._problem("read", error) from None

    def _read(self, file: IO[bytes]) -> None:
        found = os.fstat(file.fileno())
        if (found.st_dev, found.st_ino) != self._identity or found.st_size < self._end:
            self._forget()
            self._identity = (found.st_dev, found.st_ino)
        file.seek(self._end)
        while line := file.readline(MAX_LINE_BYTES):
            if not line.endswith(b"\n"):  # it is being written, or its writer has died
                self._check_start(line)
                return
            record = self._decode(line, self._lines + 1)
            if isinstance(record, RecordedExchange):
                place = Place(record.started_at, self._end, len(line), self._lines + 1)
                insort(self._places.setdefault(record.request.key, []), place)
            self._lines += 1
            self._end += len(line)

    def _check_start(self, line: bytes) -> None:
        """Refuse a file of another kind, which would be lost when this one is appended to."""
        if self._end == 0 and not HEADER.startswith(line[: len(HEADER)]):
            raise self._no_recording(1, "it is no header")

    def _decode(self, line: bytes, number: int) -> Record:
        try:
            record: Record = decode_record(line)
        except BAD_RECORD as error:
            raise self._no_recording(number, error) from None
        if number == 1 and not isinstance(record, HeaderRecord):
            raise self._no_recording(number, "it is no header")
        if isinstance(record, HeaderRecord) and record.version != VERSION:
            raise self._no_recording(number, f"its version is {record.version}, not {VERSION}")
        return record

    def _no_recording(self, number: int, reason: object) -> StorageError:
        return StorageError(
            f"{self.name!r}: line {number} is not of a recording ({reason}); mend or remove the "
            "line, or name another file"
        )

    def _problem(self, done: str, error: OSError) -> StorageError:
        is_new = done == "written" and isinstance(error, FileNotFoundError)
        hint = "; make its folder first" if is_new else ""
        return StorageError(f"{self.name!r} cannot be {done} ({error.strerror or error}){hint}")

    def places(self, key: bytes) -> list[Place]:
        """Return where the exchanges of a request are, in the order in which they started."""
        return self._places.get(key, [])

    def load(self, place: Place) -> RecordedExchange:
        """Return the exchange at a place."""
        try:
            with open_regular(self._path) as file:
                file.seek(place.start)
                record = self._decode(file.read(place.size), place.line)
        except OSError as error:
            raise self._problem("read", error) from None
        if isinstance(record, RecordedExchange) and record.started_at == place.started_at:
            return record
        raise StorageError(f"{self.name!r} was changed by another program; read it anew")

    def exchanges(self) -> Iterator[tuple[int, RecordedExchange]]:
        """Yield all exchanges with the numbers of their lines."""
        for place in sorted((p for ps in self._places.values() for p in ps), key=_line):
            yield place.line, self.load(place)

    def append(self, exchange: RecordedExchange) -> None:
        """Write an exchange to the end of the file. Raises `StorageError`."""
        try:
            with self._lock, self._journal.lock():
                is_new = self._journal.cut_unfinished_line() == 0
                lines = [HEADER] if is_new else []
                self._journal.append([*lines, encode_record(exchange)])
        except OSError as error:
            raise self._problem("written", error) from None

    def replace(self, exchanges: list[RecordedExchange]) -> None:
        """Replace the file by these exchanges, whole or not at all. Raises `StorageError`."""
        try:
            write_whole(self._path, [HEADER, *map(encode_record, exchanges)])
        except OSError as error:
            raise self._problem("written", error) from None

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        with self._lock:
            self._journal.close()


def _line(place: Place) -> int:
    return place.line
