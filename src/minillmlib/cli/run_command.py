"""Asks a model about every row of a file, and writes the rows with their answers."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import msgspec

from minillmlib import (
    BulkOutcome,
    BulkRun,
    ChatNode,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    ProgressLine,
    iterate,
    map_complete,
)
from minillmlib.bulk.items import Item, ItemCall, Question
from minillmlib.bulk.journal import RunJournal
from minillmlib.cli.conversation_files import is_same_file
from minillmlib.cli.format import name_options, one_line, visible
from minillmlib.cli.row_files import STANDARD, Row, RowFormat, RowReader, RowWriter, format_of
from minillmlib.cli.row_plan import RowPlan, RunPrompt
from minillmlib.cli.run_summary import Tally, count_rows
from minillmlib.cli.terminal import show_line
from minillmlib.cli.tree_view import DIM
from minillmlib.json_value import JsonValue
from minillmlib.tree.node import DEFAULT_LOOP
from minillmlib.types.costs import CostTotal, total_words

PREVIEWS = 3
REFRESH_SECS = 0.1
OPTIONS = {"a price (with_token_price)": "--price", "max_tokens": "--max-tokens"}


class RunFiles(NamedTuple):
    """The files of a run, as its options name them."""

    source: Path
    output: Path | None
    kind: RowFormat | None
    journal: Path | None
    has_journal: bool
    is_forced: bool


class RunSettings(NamedTuple):
    """How a run asks, as its options say."""

    generator: GeneratorInfo
    params: NodeCompletionParameters
    width: int | None
    retries_failed: bool
    is_batch: bool


class RunCommand:
    """One use of `minillmlib run`. Raises `MiniLLMError` if the options do not fit together."""

    def __init__(self, files: RunFiles, prompt: RunPrompt, settings: RunSettings) -> None:
        self._journal = _journal_path(files)
        self._output = files.output
        _check_files(files, self._journal)
        self._rows = RowReader(files.source, format_of(files.source, files.kind))
        try:
            self._plan = RowPlan(self._rows, prompt, settings.params, files.output)
        except BaseException:
            self.close()
            raise
        self._settings = settings
        self._params = self._plan.params
        self._asked: dict[int, tuple[int, Row]] = {}  # by the index of the item
        self._unreadable: deque[tuple[int, Row, MiniLLMError]] = deque()  # to be written
        self._unreadable_count = 0
        self._is_stopping = False

    def close(self) -> None:
        """Close the input."""
        self._rows.close()

    def run(self) -> bool:
        """Ask about all rows; return whether all were answered.

        Raises what ended the run, and `KeyboardInterrupt` if Ctrl-C did.
        """
        self._check_budget()
        run: BulkRun[JsonValue] = map_complete(
            self._items(),
            self._settings.generator,
            self._params,
            prompt=self._plan.prompt,
            journal=self._journal,
            retry_failed=self._settings.retries_failed,
            width=self._settings.width,
            batch=self._settings.is_batch,
        )
        tally, ending = Tally(), None
        writer = RowWriter(self._output, self._plan.columns)
        with contextlib.closing(writer), self._watch(run), self._drain_on_interrupt():
            try:
                self._write_outcomes(run, writer, tally)
            except (MiniLLMError, KeyboardInterrupt) as error:
                ending = error
            remaining = self._rows.count - writer.written
            if not remaining:
                writer.finish()
        for line in tally.lines(run, self._rows.count - tally.answered - tally.failed):
            show_line(one_line(line))
        if isinstance(ending, KeyboardInterrupt) and self._asked:
            count = len(self._asked)
            words = "call in flight was" if count == 1 else "calls in flight were"
            show_line(f"{count} {words} ended, and may have been billed")
        if remaining and writer.draft is not None:
            count = writer.written
            words = "row is" if count == 1 else f"{count} rows are"
            show_line(f"the first {words} in {visible(str(writer.draft))}", DIM)
        for line in tally.advice(remaining, ending) if self._journal is not None else ():
            show_line(line, DIM)
        if remaining and ending is None:
            raise KeyboardInterrupt
        if ending is not None and (remaining or not self._is_stopping):
            raise ending
        return tally.failed == 0

    def _write_outcomes(self, run: BulkRun[JsonValue], writer: RowWriter, tally: Tally) -> None:
        with contextlib.closing(iterate(run)) as outcomes:
            for outcome in outcomes:
                self._write_unreadable(writer, tally)
                position, row = self._asked.pop(outcome.index)
                tally.add(row, outcome)
                writer.put(position, self._plan.values_of(row, outcome))
        self._write_unreadable(writer, tally)

    def _write_unreadable(self, writer: RowWriter, tally: Tally) -> None:
        while self._unreadable:
            position, row, error = self._unreadable.popleft()
            outcome = BulkOutcome[JsonValue](index=position, error=error)
            tally.add(row, outcome)
            writer.put(position, self._plan.values_of(row, outcome))

    def _items(self) -> Iterator[Item]:
        """Yield what to ask. A run calls this in the thread of its event loop."""
        self._asked.clear()
        self._unreadable.clear()
        index = self._unreadable_count = 0
        for position, row in enumerate(self._rows):
            if self._is_stopping:
                return
            try:
                item = self._plan.item_of(row)
            except MiniLLMError as error:
                self._unreadable.append((position, row, error))
                self._unreadable_count += 1
                continue
            self._asked[index] = position, row
            yield item
            index += 1

    def _check_budget(self) -> None:
        """Refuse a budget that could not cover any row, because the maximum cost is unknown."""
        if self._params.budget is None:
            return
        call = self._item_call(None)
        prepared = (call.prepare(0, item) for item in self._items())
        first = next((one for one in prepared if isinstance(one, Question)), None)
        if first is not None and (missing := self._missing_words(first.node)):
            raise InvalidParameterError(
                f"--budget needs the maximum cost of a row, which needs {missing}"
            )

    def _item_call(self, journal: RunJournal | None) -> ItemCall:
        return ItemCall(
            self._settings.generator,
            self._params,
            prompt=self._plan.prompt,
            tools=(),
            loop=DEFAULT_LOOP,
            journal=journal,
            key=None,
        )

    def _missing_words(self, node: ChatNode) -> str:
        """Return what the maximum cost of a request needs, in options."""
        missing = node.estimate_cost(self._settings.generator, self._params).missing
        return " and ".join(OPTIONS.get(one, one) for one in missing)

    @contextlib.contextmanager
    def _watch(self, run: BulkRun[JsonValue]) -> Iterator[None]:
        """Show the progress, unless the rows themselves go to a terminal."""
        if self._output is None and sys.stdout.isatty():
            yield
            return
        line = ProgressLine(items=self._rows.count, budget=self._params.budget)
        has_ended = threading.Event()

        def show() -> None:
            while not has_ended.wait(REFRESH_SECS):
                progress = run.progress
                if self._is_stopping:
                    line.note = "stopping; Ctrl-C again ends calls in flight"
                if progress.width and not progress.is_over:
                    failed = progress.failed + self._unreadable_count
                    line(msgspec.structs.replace(progress, failed=failed))

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            has_ended.set()
            thread.join()
            line.clear()

    @contextlib.contextmanager
    def _drain_on_interrupt(self) -> Iterator[None]:
        """Let the first Ctrl-C end the asking, and the second one the calls in flight."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._is_stopping = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def preview(self) -> bool:
        """Print the first requests and the maximum cost; return whether all rows can be asked.

        Nothing is sent or written. Raises `InvalidParameterError` for a budget that a run refuses.
        """
        self._check_budget()
        path, journal = self._journal, None
        if path is not None and path.exists() and path.stat().st_size:
            journal = RunJournal(path, retries_failed=self._settings.retries_failed)
        call = self._item_call(journal)
        counts: Counter[str] = Counter()
        ceiling, missing = Decimal(0), ""
        for index, item in enumerate(self._items()):
            found = call.prepare(index, item)
            if isinstance(found, BulkOutcome):
                counts["kept" if found.is_from_journal else "bad"] += 1
                continue
            counts["new"] += 1
            if counts["new"] <= PREVIEWS:
                self._print_request(found.node)
            estimate = found.node.estimate_cost(self._settings.generator, self._params)
            ceiling += estimate.ceiling or 0
            missing = missing or self._missing_words(found.node)
        call.close()
        counts["bad"] += self._unreadable_count
        words = {"kept": "in the journal", "bad": "that cannot be asked", "new": "to ask"}
        parts = [f"{counts[name]} {what}" for name, what in words.items() if counts[name]]
        if missing:
            parts.append(f"their maximum cost needs {missing}")
        elif counts["new"]:
            parts.append(f"at most {total_words(CostTotal(cost=ceiling))}")
        _print(" · ".join([count_rows(self._rows.count), *parts]))
        for _, _, error in list(self._unreadable)[:PREVIEWS]:
            show_line(one_line(name_options(str(error))))
        try:
            self._settings.generator.credential.resolve()
        except MiniLLMError as error:
            show_line(one_line(name_options(str(error))))
            return False
        return not counts["bad"]

    def _print_request(self, node: ChatNode) -> None:
        request = node.preview_request(self._settings.generator, self._params)
        headers = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
        body = msgspec.json.format(request.data, indent=2).decode()
        _print(f"POST {request.url}\n{headers}\n{body}\n")


def _journal_path(files: RunFiles) -> Path | None:
    """Return the journal: that of the option, or one beside the output, or else the input."""
    if not files.has_journal:
        if files.journal is not None:
            raise InvalidParameterError("--journal and --no-journal exclude each other")
        return None
    beside = files.output or (None if files.source == STANDARD else files.source)
    if files.journal is not None or beside is None:
        return files.journal
    return Path(f"{beside}.journal")


def _check_files(files: RunFiles, journal: Path | None) -> None:
    """Refuse to overwrite the input, or a file that no run wrote."""
    output = files.output
    for name, path in (("--output", output), ("the journal", journal)):
        if path is not None and is_same_file(path, files.source):
            raise InvalidParameterError(
                f"{name} would overwrite the input, {str(path)!r}; name another file"
            )
    if output is None:
        return
    if journal is not None and is_same_file(output, journal):
        raise InvalidParameterError("--output and --journal name the same file")
    if output.exists() and not output.is_file():
        raise InvalidParameterError(f"{str(output)!r} is no regular file; name one in --output")
    if output.exists() and not files.is_forced and (journal is None or not journal.exists()):
        raise InvalidParameterError(
            f"{str(output)!r} exists, and no journal says that a run wrote it; name another file "
            "in --output, or replace it with --force"
        )


def _print(text: str) -> None:
    sys.stdout.write(f"{visible(text) if sys.stdout.isatty() else text}\n")
