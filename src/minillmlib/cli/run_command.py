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
    Budget,
    BulkOutcome,
    BulkRun,
    ChatNode,
    CostResolution,
    GeneratorInfo,
    InvalidParameterError,
    MaxRetriesExceededError,
    MiniLLMError,
    NodeCompletionParameters,
    ProgressLine,
    TypedParameters,
    iterate,
    map_complete,
)
from minillmlib.bulk.items import Item, ItemCall, Question
from minillmlib.bulk.journal import RunJournal
from minillmlib.bulk.progress import duration_words
from minillmlib.cli.conversation_files import is_same_file
from minillmlib.cli.format import name_options, one_line, truncation_notice, visible
from minillmlib.cli.row_files import (
    STANDARD,
    SUFFIXES,
    TEXT,
    Row,
    RowFormat,
    RowReader,
    RowWriter,
    format_of,
)
from minillmlib.cli.terminal import show_line
from minillmlib.cli.tree_view import DIM
from minillmlib.files import read_small_file
from minillmlib.json_value import JsonObject, JsonValue, json_text
from minillmlib.structured.schema_type import type_of_schema
from minillmlib.tree.node import DEFAULT_LOOP
from minillmlib.tree.tree_file import as_storage_error
from minillmlib.types.costs import CostTotal, total_words

MESSAGES = "messages"  # the column with a whole conversation
ANSWER, PARSED = "answer", "parsed"
FACTS = ("notice", "error", "cost_usd", "cost", "attempts")
MAX_FILE_BYTES = 10_000_000  # of a prompt or a schema
MAX_CLASSES = 10  # of errors that are listed
MAX_NAMES = 10  # of columns that an error lists
PREVIEWS = 3
REFRESH_SECS = 0.1


class RunFiles(NamedTuple):
    """The files of a run, as its options name them."""

    source: Path
    output: Path | None
    kind: RowFormat | None
    journal: Path | None
    has_journal: bool
    is_forced: bool


class RunPrompt(NamedTuple):
    """The prompt of a run, as its options name it."""

    text: str | None
    file: Path | None
    system: str | None
    schema: Path | None


class BulkCommand:
    """One use of `minillmlib run`: its rows, its prompt and its settings, all checked."""

    def __init__(
        self,
        files: RunFiles,
        prompt: RunPrompt,
        generator: GeneratorInfo,
        params: NodeCompletionParameters,
        *,
        retries_failed: bool,
    ) -> None:
        self._generator = generator
        self._retries_failed = retries_failed
        self._output = files.output
        self._journal = _journal_path(files)
        self._params = params
        properties: list[str] = []
        if prompt.schema is not None:
            schema = _read_schema(prompt.schema)
            self._params = params.expecting(type_of_schema(schema))
            properties = list(schema.get("properties", {}))
        kind = format_of(files.source, files.kind)
        self._has_prompt = prompt.text is not None or prompt.file is not None
        self._prompt = _prompt_node(prompt)
        self._names = self._prompt.missing_format_kwargs()
        if not self._has_prompt and prompt.system:
            self._params = self._params.replace(system_prompt=prompt.system)
        self._check_files(files)
        self._rows = RowReader(files.source, kind)
        self._is_csv = _is_csv(files.output, kind)
        self._inputs = self._input_columns(kind)
        self._properties = properties if self._is_csv else []
        own = [*self._answer_columns(), *FACTS]
        self._own = frozenset(own)
        self._columns = [*_rename(self._inputs, self._own).values(), *own] if self._is_csv else None
        self._check_prompt(kind)
        self._asked: dict[int, tuple[int, Row]] = {}  # by the index of the item
        self._unreadable: deque[tuple[int, Row, MiniLLMError]] = deque()
        self._is_stopping = False

    def _answer_columns(self) -> list[str]:
        if not isinstance(self._params, TypedParameters):
            return [ANSWER]
        return [ANSWER, *([f"{PARSED}.{name}" for name in self._properties] or [PARSED])]

    def _check_files(self, files: RunFiles) -> None:
        used = [("--output", files.output), ("the journal", self._journal)]
        for name, path in used:
            if path is not None and is_same_file(path, files.source):
                raise InvalidParameterError(
                    f"{name} would overwrite the input, {str(path)!r}; name another file"
                )
        if files.output is None or files.is_forced:
            return
        if self._journal is not None and is_same_file(files.output, self._journal):
            raise InvalidParameterError("--output and --journal are one file; name another")
        if files.output.exists() and not (self._journal is not None and self._journal.exists()):
            raise InvalidParameterError(
                f"{str(files.output)!r} exists, and no journal says that a run wrote it; name "
                "another file in --output, or replace it with --force"
            )

    def _input_columns(self, kind: RowFormat) -> list[str]:
        """Return the columns of the input; those of JSON lines are the first row's."""
        if kind is RowFormat.CSV:
            return self._rows.header
        if kind is RowFormat.LINES:
            return [TEXT]
        return list(next((row.columns for row in self._rows if not row.problem), []))

    def _check_prompt(self, kind: RowFormat) -> None:
        """Refuse a prompt that would fail for every row, or be the same for all."""
        known = [f"{{{name}}}" for name in self._inputs[:MAX_NAMES]]
        columns = f"the input has {', '.join(known)}" if known else "the input has no columns"
        if self._has_prompt and not self._names:
            raise InvalidParameterError(
                "the prompt has no {column}, so that all rows would ask the same; " + columns
            )
        missing = [name for name in self._names if name not in self._inputs]
        if missing and kind is not RowFormat.JSONL and self._inputs:
            where = "the prompt has" if self._has_prompt else "without --prompt, the message is"
            raise InvalidParameterError(f"{where} {{{missing[0]}}}, but {columns}")
        texts = "".join(node.text or "" for node in self._prompt.path())
        for name in self._inputs:
            if f"{{{name}}}" in texts and name not in self._names:
                raise InvalidParameterError(
                    f"the column {name!r:.80} cannot be filled in, because its name is no word of "
                    "letters, digits and _; rename it in the input"
                )

    def run(self) -> None:
        """Ask about all rows. Raises what ended the run, and `KeyboardInterrupt` if stopped."""
        run: BulkRun[JsonValue] = map_complete(
            self._items(),
            self._generator,
            self._params,
            prompt=self._prompt,
            journal=self._journal,
            retry_failed=self._retries_failed,
        )
        tally = _Tally()
        ending: BaseException | None = None
        writer = RowWriter(self._output, self._columns)
        with contextlib.closing(writer), self._watch(run), self._drain_on_interrupt():
            try:
                with contextlib.closing(iterate(run)) as outcomes:
                    for outcome in outcomes:
                        self._write_unreadable(writer, tally)
                        index, row = self._asked.pop(outcome.index)
                        tally.add(row, outcome)
                        writer.put(index, self._values(row, outcome))
                self._write_unreadable(writer, tally)
            except (MiniLLMError, KeyboardInterrupt) as error:
                ending = error
        is_whole = writer.written == self._rows.count
        if is_whole:
            writer.finish()
        elif ending is None and self._is_stopping:
            ending = KeyboardInterrupt()
        self._show_end(run, tally, writer, is_whole=is_whole)
        if ending is not None and not (is_whole and isinstance(ending, KeyboardInterrupt)):
            raise ending
        self.has_failures = tally.failed > 0

    def _items(self) -> Iterator[Item]:
        """Yield what to ask, in the thread of the event loop."""
        index = 0
        for position, row in enumerate(self._rows):
            if self._is_stopping:
                return
            try:
                item = self._item_of(row)
            except MiniLLMError as error:
                self._unreadable.append((position, row, error))
                continue
            self._asked[index] = position, row
            yield item
            index += 1

    def _item_of(self, row: Row) -> Item:
        if row.problem:
            raise InvalidParameterError(f"line {row.line}: {row.problem}")
        unknown = set(row.columns).difference(self._inputs) if self._is_csv else ()
        if unknown:
            raise InvalidParameterError(
                f"line {row.line}: it has the column {min(unknown)!r:.80}, which the first row has "
                "not, so that CSV has no place for it; write JSON lines"
            )
        if not self._has_prompt and MESSAGES in row.columns:
            try:
                return ChatNode.from_messages(row.columns[MESSAGES])[1]
            except MiniLLMError as error:
                raise InvalidParameterError(f"line {row.line}: {error}") from None
        missing = [name for name in self._names if row.columns.get(name) is None]
        if missing:
            raise InvalidParameterError(f"line {row.line}: it has no value for {{{missing[0]}}}")
        values = ((name, row.columns[name]) for name in self._names)
        return {
            name: value if isinstance(value, str) else json_text(value) for name, value in values
        }

    def _write_unreadable(self, writer: RowWriter, tally: _Tally) -> None:
        while self._unreadable:
            position, row, error = self._unreadable.popleft()
            outcome = BulkOutcome[JsonValue](index=position, error=error)
            tally.add(row, outcome)
            writer.put(position, self._values(row, outcome))

    def _values(self, row: Row, outcome: BulkOutcome[JsonValue]) -> JsonObject:
        """Return the columns of a row of the output."""
        names = _rename(row.columns, self._own)
        values = {names[name]: value for name, value in row.columns.items()}
        values[ANSWER] = outcome.text
        notice = None
        if outcome.node is not None:
            notice = truncation_notice(outcome.node.response)
        if isinstance(self._params, TypedParameters):
            parsed = outcome.parsed if outcome.error is None else None
            members = parsed if isinstance(parsed, dict) else {}
            values |= {f"{PARSED}.{name}": members.get(name) for name in self._properties}
            if not self._properties:
                values[PARSED] = parsed
        cost = outcome.cost
        is_known = cost.resolution is CostResolution.RESOLVED
        error = None if outcome.error is None else name_options(str(outcome.error))
        facts = (
            notice, error, f"{cost.cost:f}" if is_known else None, cost.resolution.value,
            len(cost.attempts),
        )  # fmt: skip
        return values | dict(zip(FACTS, facts, strict=True))

    @contextlib.contextmanager
    def _watch(self, run: BulkRun[JsonValue]) -> Iterator[None]:
        """Show the progress, unless the rows themselves go to the same terminal."""
        line = ProgressLine(items=self._rows.count, budget=self._params.budget)
        has_ended = threading.Event()

        def show() -> None:
            while not has_ended.wait(REFRESH_SECS):
                progress = run.progress
                if self._is_stopping:
                    line.note = "stopping; Ctrl-C again ends the calls in flight"
                failed = progress.failed + len(self._unreadable)
                if progress.elapsed_secs and not progress.is_over:
                    line(msgspec.structs.replace(progress, failed=failed))

        if self._output is None and sys.stdout.isatty():
            yield
            return
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
        """Let the first Ctrl-C stop the asking, and the second one the calls in flight."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._is_stopping = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _show_end(
        self, run: BulkRun[JsonValue], tally: _Tally, writer: RowWriter, *, is_whole: bool
    ) -> None:
        count = self._rows.count
        ended = f"{tally.answered + tally.failed}"
        parts = [
            f"{ended} rows" if is_whole else f"{ended} of {count} rows",
            f"{tally.answered} answered",
        ]
        if tally.failed:
            parts.append(f"{tally.failed} failed")
        if tally.from_journal:
            parts.append(f"{tally.from_journal} from the journal")
        parts += [total_words(run.total), duration_words(run.progress.elapsed_secs)]
        show_line(" · ".join(parts))
        for line in tally.lines():
            show_line(line)
        if not is_whole and writer.draft is not None:
            show_line(f"the first {writer.written} rows are in {visible(str(writer.draft))}", DIM)
        if self._journal is None:
            return
        if not is_whole:
            show_line("run the same command again for the rest", DIM)
        elif tally.passing:
            show_line(f"run the same command again to ask {tally.passing} failed rows again", DIM)
        if tally.final:
            show_line(f"--retry-failed asks {tally.final} rows again that failed for good", DIM)

    def preview(self) -> None:
        """Print the first requests, and what all of them may cost. Nothing is sent or written."""
        path, journal = self._journal, None
        if path is not None and path.exists() and path.stat().st_size:
            journal = RunJournal(path, retries_failed=self._retries_failed)
        call = ItemCall(
            self._generator, self._params, prompt=self._prompt, tools=(), loop=DEFAULT_LOOP,
            journal=journal, key=None,
        )  # fmt: skip
        asked = kept = 0
        ceiling, missing = Decimal(0), ""
        problems = list[MiniLLMError]()
        for index, item in enumerate(self._items()):
            question = call.prepare(index, item)
            if isinstance(question, Question):
                if asked < PREVIEWS:
                    _print_request(question.node, self._generator, self._params)
                asked += 1
                estimate = question.node.estimate_cost(self._generator, self._params)
                ceiling += estimate.ceiling or 0
                missing = missing or "; ".join(estimate.missing)
            elif question.is_from_journal:
                kept += 1
            elif question.error is not None:
                problems.append(question.error)
        call.close()
        problems += [error for _, _, error in self._unreadable]
        parts = [f"{self._rows.count} rows"]
        if kept:
            parts.append(f"{kept} in the journal")
        if problems:
            parts.append(f"{len(problems)} that cannot be asked ({problems[0]})")
        most = total_words(CostTotal(cost=ceiling))
        cost = f"at most {most}" if not missing else f"their maximum cost is unknown: {missing}"
        parts.append(f"{asked} to ask, {cost}")
        _print(one_line(name_options(" · ".join(parts))))
        self.has_failures = bool(problems)

    has_failures = False


class _Tally:
    """The counts of a run, and the first failure of each class."""

    def __init__(self) -> None:
        self.answered = self.failed = self.from_journal = self.passing = self.final = 0
        self._classes: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._notices: Counter[str] = Counter()

    def add(self, row: Row, outcome: BulkOutcome[JsonValue]) -> None:
        """Count an outcome."""
        self.from_journal += outcome.is_from_journal
        if outcome.error is None:
            self.answered += 1
            notice = outcome.node and truncation_notice(outcome.node.response)
            if notice:
                self._notices[notice.partition(":")[0]] += 1
            return
        self.failed += 1
        error = last = outcome.error
        if isinstance(error, MaxRetriesExceededError) and error.last_error is not None:
            last = error.last_error
        if outcome.index >= 0 and outcome.key:
            self.passing += last.is_retryable
            self.final += not last.is_retryable
        name = type(last).__name__
        self._classes[name] += 1
        self._first.setdefault(name, f"line {row.line}: {str(error).removeprefix(f'line {row.line}: ')}")

    def lines(self) -> Iterator[str]:
        """Yield a line about each kind of failure, and about each kind of odd answer."""
        for name, count in self._classes.most_common(MAX_CLASSES):
            yield one_line(f"{count} {name}, first on {name_options(self._first[name])}")
        for notice, count in self._notices.most_common(MAX_CLASSES):
            yield one_line(f"{count} answered, but {notice}")


def _journal_path(files: RunFiles) -> Path | None:
    """Return the journal: that of the option, or one beside the output, or else the input."""
    if not files.has_journal:
        if files.journal is not None:
            raise InvalidParameterError("--journal and --no-journal exclude each other")
        return None
    beside = files.output or (None if files.source == STANDARD else files.source)
    if files.journal is not None or beside is None:
        return files.journal
    return beside.with_name(beside.name + ".journal")


def _prompt_node(prompt: RunPrompt) -> ChatNode:
    if prompt.text is not None and prompt.file is not None:
        raise InvalidParameterError("--prompt and --prompt-file exclude each other")
    text = prompt.text
    if prompt.file is not None:
        text = _read_text(prompt.file).rstrip("\r\n")
    if text is not None and not text.strip():
        raise InvalidParameterError("the prompt is empty")
    return ChatNode.root(prompt.system or "").add_user(text or f"{{{TEXT}}}")


def _read_text(path: Path) -> str:
    with as_storage_error("read", path):
        return read_small_file(path, MAX_FILE_BYTES).decode("utf-8-sig")


def _read_schema(path: Path) -> JsonObject:
    try:
        schema: JsonValue = msgspec.json.decode(_read_text(path))
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParameterError(f"{str(path)!r} is no JSON schema: {error}") from None
    if not isinstance(schema, dict):
        raise InvalidParameterError(f"{str(path)!r} is no JSON schema: it is no object")
    return schema


def _is_csv(output: Path | None, kind: RowFormat) -> bool:
    named = None if output is None else SUFFIXES.get(output.suffix.lower())
    return (named or kind) is RowFormat.CSV


def _rename(columns: JsonObject | list[str], own: frozenset[str]) -> dict[str, str]:
    """Return the names of the input's columns in the output: `input_` before those of ours."""
    names = {}
    for column in columns:
        name = column
        while name in own or (name != column and name in columns):
            name = f"input_{name}"
        names[column] = name
    return names


def _print_request(
    node: ChatNode, generator: GeneratorInfo, params: NodeCompletionParameters
) -> None:
    request = node.preview_request(generator, params)
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    body = msgspec.json.format(request.data, indent=2).decode()
    _print(f"POST {request.url}\n{headers}\n{body}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{visible(text) if sys.stdout.isatty() else text}\n")
