"""The files of a run: rows come in as JSON lines, CSV or lines, and go out as JSON lines or CSV."""

from __future__ import annotations

import contextlib
import csv
import enum
import io
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from minillmlib import InvalidParameterError, StorageError
from minillmlib.cli.format import visible
from minillmlib.cli.terminal import waiting_notice
from minillmlib.files import try_lock
from minillmlib.json_value import MAX_DEPTH, JsonObject, JsonValue, excerpt, is_too_deep, plural
from minillmlib.tree.records import encode_lossy
from minillmlib.tree.tree_file import as_storage_error

STANDARD = Path("-")  # standard input
MAX_CELL_CHARS = 1_000_000_000
TEXT = "text"  # the one column of a plain line


class RowFormat(enum.StrEnum):
    """The format of the rows."""

    JSONL = "jsonl"
    CSV = "csv"
    LINES = "lines"


SUFFIXES = {
    ".jsonl": RowFormat.JSONL,
    ".ndjson": RowFormat.JSONL,
    ".csv": RowFormat.CSV,
    ".txt": RowFormat.LINES,
}


class Row(NamedTuple):
    """A row, where it begins, and why it cannot be read, if it cannot."""

    line: int
    columns: JsonObject
    problem: str = ""


def format_of(path: Path, given: RowFormat | None) -> RowFormat:
    """Return the format of an input, by the option or its name."""
    found = given or SUFFIXES.get(path.suffix.lower())
    if found is None:
        name = "standard input" if path == STANDARD else repr(str(path))
        raise InvalidParameterError(
            f"the name of {name} does not tell its format; name it with --format jsonl, csv or "
            "lines"
        )
    return found


def output_format(path: Path | None, source: RowFormat) -> RowFormat:
    """Return the format of an output: that of its name, or else that of the input."""
    named = None if path is None else SUFFIXES.get(path.suffix.lower())
    return RowFormat.CSV if (named or source) is RowFormat.CSV else RowFormat.JSONL


class RowReader:
    """The rows of a file or of standard input, as often as they are wanted.

    Anything but a regular file is copied to a temporary one first. Blank lines are skipped.

    Attributes:
        kind: The format of the rows.
        count: The number of rows.
    """

    def __init__(self, path: Path, kind: RowFormat) -> None:
        self.kind = kind
        with as_storage_error("read", path):
            self._text = _as_text(_open_seekable(path))
        self._header: list[str] = []
        try:
            with as_storage_error("read", path):
                self.count = sum(1 for _ in self._records())
            self._check_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._text.close()

    def _check_header(self) -> None:
        if not _is_unicode("".join(self._header)):
            raise InvalidParameterError("the header of the input is not text in UTF-8")
        repeated = {name for name in self._header if self._header.count(name) > 1}
        if repeated:
            raise InvalidParameterError(
                f"the header of the input has the column {min(repeated)!r:.80} twice; rename one"
            )

    def find_columns(self) -> list[str]:
        """Return the columns of the rows; those of JSON lines are the first row's."""
        if self.kind is not RowFormat.JSONL:
            return [TEXT] if self.kind is RowFormat.LINES else self._header
        return list(next((row.columns for row in self if not row.problem), []))

    def __iter__(self) -> Iterator[Row]:
        return (self._row(line, record) for line, record in self._records())

    def _records(self) -> Iterator[tuple[int, str | list[str]]]:
        """Yield each line, or the cells of each row, with the number of its line."""
        self._text.seek(0)
        if self.kind is RowFormat.CSV:
            yield from self._csv_records()
            return
        for number, line in enumerate(self._text, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")

    def _csv_records(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(min(MAX_CELL_CHARS, sys.maxsize))
        reader = csv.reader(self._text, strict=True)
        try:
            self._header = next(reader, [])
            start = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            raise InvalidParameterError(
                f"line {reader.line_num} of the input is not CSV ({error}); quote cells that have "
                'commas, quotes or line ends in "...", with "" for a quote'
            ) from None

    def _row(self, line: int, record: str | list[str]) -> Row:
        whole = record if isinstance(record, str) else "".join(record)
        if not whole.isascii() and not _is_unicode(whole):
            return Row(line, {}, "it is not text in UTF-8")
        if isinstance(record, list):
            if len(record) == len(self._header):
                return Row(line, dict(zip(self._header, record, strict=True)))
            cells = f"{len(record)} {plural('cell', len(record))}"
            return Row(line, {}, f"it has {cells}, but the header {len(self._header)}")
        if self.kind is RowFormat.LINES:
            return Row(line, {TEXT: record})
        try:
            return Row(line, _read_json(record))
        except json.JSONDecodeError as error:
            problem = f"it is not JSON: {error.msg} at character {error.pos + 1}"
        except RecursionError:
            problem = "it is nested too deep"
        except ValueError as error:
            problem = str(error)
        return Row(line, {}, problem)


def _open_seekable(path: Path) -> IO[bytes]:
    """Open a file; copy what is not a regular one, such as a pipe."""
    source = sys.stdin.buffer if path == STANDARD else path.open("rb")
    if stat.S_ISREG(os.fstat(source.fileno()).st_mode) and path != STANDARD:
        return source
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the rows are read
    with waiting_notice():
        shutil.copyfileobj(source, copy)
    copy.seek(0)
    return copy


def _as_text(source: IO[bytes]) -> io.TextIOWrapper:
    """Decode UTF-8, or UTF-16 with a mark, as PowerShell writes it. Wrong bytes are surrogates."""
    is_utf16 = source.read(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    return io.TextIOWrapper(source, encoding, errors="surrogateescape", newline="")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_json(text: str) -> JsonObject:
    value = json.loads(
        text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant
    )
    if isinstance(value, str):
        return {TEXT: value}
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004 - as for all that JSON lines cannot be
            f"it is neither an object nor a string: {excerpt(text, 60)}"
        )
    if is_too_deep(value, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("one of its objects has a name twice")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits:.40} is too large a number")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class RowWriter:
    """Writes the rows in the order of the input, each as soon as those before it are written.

    A file is a draft beside its name, with whole rows only, until `finish` puts it in place.
    """

    def __init__(self, path: Path | None, columns: Sequence[str] | None) -> None:
        self.written = 0
        self.draft = None if path is None else Path(f"{path}.part")
        self._path = path
        self._columns = columns  # of CSV
        self._early: dict[int, JsonObject] = {}
        self._is_terminal = path is None and sys.stdout.isatty()
        self._file: IO[bytes] | None = None
        if self.draft is not None:
            with as_storage_error("written", self.draft):
                self._file = _open_draft(self.draft)
        if columns is not None:
            self._write(_csv_line(columns))

    def put(self, index: int, values: JsonObject) -> None:
        """Write a row, and those that waited for it, unless it has to wait itself."""
        self._early[index] = values
        lines = list[str]()
        while (row := self._early.pop(self.written + len(lines), None)) is not None:
            lines.append(self._line(row))
        if lines:
            self._write("".join(lines))
            self.written += len(lines)

    def _line(self, values: JsonObject) -> str:
        if self._columns is None:
            return encode_lossy(values).decode() + "\n"
        return _csv_line([_cell(values.get(name)) for name in self._columns])

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        if self._file is not None and self.draft is not None:
            size = self._file.tell()
            remaining = memoryview(data)
            try:
                while remaining:
                    remaining = remaining[self._file.write(remaining) :]
            except OSError as error:
                with contextlib.suppress(OSError):
                    self._file.truncate(size)
                raise StorageError(
                    f"{str(self.draft)!r} cannot be written ({error.strerror or error}); make room "
                    "and run the same command again"
                ) from None
        elif self._is_terminal:
            sys.stdout.write(visible(text))
            sys.stdout.flush()
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def finish(self) -> None:
        """Put the file in its place. The one that was there is replaced as a whole."""
        if self._file is not None and self.draft is not None and self._path is not None:
            with as_storage_error("written", self._path):
                os.fsync(self._file.fileno())
                self._file.close()
                self.draft.replace(os.path.realpath(self._path))

    def close(self) -> None:
        """Close the draft; it stays."""
        if self._file is not None:
            self._file.close()


def _open_draft(path: Path) -> IO[bytes]:
    """Open and empty a draft that no other program is writing."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
    if not try_lock(file.fileno()):
        file.close()
        raise StorageError(
            f"{str(path)!r} is being written by another run; wait for it, or name another file in "
            "--output"
        )
    file.truncate(0)
    return file


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cell(value: JsonValue) -> str:
    """Return a value as a cell: a text as it is, nothing for null, and others as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode_lossy(value).decode()
