"""Turns the rows of a file into questions, and the outcomes into the rows of the output."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from minillmlib import (
    BulkOutcome,
    ChatNode,
    CostResolution,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    TypedParameters,
)
from minillmlib.bulk.items import Item
from minillmlib.cli.format import name_options, truncation_notice
from minillmlib.cli.row_files import TEXT, Row, RowFormat, RowReader, output_format
from minillmlib.files import read_small_file
from minillmlib.json_value import JsonObject, JsonValue, json_text
from minillmlib.structured.schema_type import type_of_schema
from minillmlib.tree.tree_file import as_storage_error

MESSAGES = "messages"  # the column with a whole conversation
ANSWER, PARSED = "answer", "parsed"
FACTS = ("notice", "error", "cost_usd", "cost", "attempts")
MAX_FILE_BYTES = 10_000_000  # of a prompt or a schema
MAX_NAMES = 10  # of columns that an error lists


class RunPrompt(NamedTuple):
    """The prompt of a run, as its options name it."""

    text: str | None
    file: Path | None
    system: str | None
    schema: Path | None


class RowPlan:
    """The question about each row, and its columns in the output.

    Without a prompt, the message is the column `text`, or a conversation is the column `messages`.
    Raises `InvalidParameterError` if the prompt does not fit the rows.

    Attributes:
        prompt: The conversation whose placeholders each row fills.
        params: The settings of each call.
        columns: The columns of the output if it is CSV, else None.
    """

    def __init__(
        self,
        rows: RowReader,
        given: RunPrompt,
        params: NodeCompletionParameters,
        output: Path | None,
    ) -> None:
        self._has_prompt = given.text is not None or given.file is not None
        self.prompt = _prompt_node(given)
        self._names = self.prompt.missing_format_kwargs()
        self._inputs = rows.find_columns()
        self._check_prompt(rows.kind)
        self.params = params
        if not self._has_prompt and given.system:
            self.params = params.replace(system_prompt=given.system)
        own = [ANSWER]
        self._members: list[str] = []  # of an object in CSV, which have columns of their own
        is_csv = output_format(output, rows.kind) is RowFormat.CSV
        if given.schema is not None:
            schema = _read_schema(given.schema)
            self.params = self.params.expecting(type_of_schema(schema))
            self._members = [*schema.get("properties", {})] if is_csv else []
            own += [f"{PARSED}.{name}" for name in self._members] or [PARSED]
        own += FACTS
        self._own = frozenset(own)
        self.columns = [*_rename(self._inputs, self._own).values(), *own] if is_csv else None

    def _check_prompt(self, kind: RowFormat) -> None:
        """Refuse a prompt that would be the same for all rows, or fail for each."""
        known = ", ".join(f"{{{name}}}" for name in self._inputs[:MAX_NAMES])
        columns = f"the input has {known or 'no columns'}"
        if self._has_prompt and not self._names:
            raise InvalidParameterError(
                f"the prompt has no {{column}}, so that all rows would ask the same; {columns}"
            )
        missing = [name for name in self._names if name not in self._inputs]
        if missing and kind is not RowFormat.JSONL:
            where = "the prompt has" if self._has_prompt else "without --prompt, the message is"
            raise InvalidParameterError(f"{where} {{{missing[0]}}}, but {columns}")
        texts = "".join(node.text or "" for node in self.prompt.path())
        for name in self._inputs:
            if f"{{{name}}}" in texts and name not in self._names:
                raise InvalidParameterError(
                    f"the column {name!r:.80} cannot be filled in, because its name is not a word "
                    "of letters, digits and _; rename it in the input"
                )

    def item_of(self, row: Row) -> Item:
        """Return what to ask about a row. Raises `InvalidParameterError` with its line."""
        if row.problem:
            raise InvalidParameterError(f"line {row.line}: {row.problem}")
        unknown = set() if self.columns is None else set(row.columns).difference(self._inputs)
        if unknown:
            raise InvalidParameterError(
                f"line {row.line}: it has the column {min(unknown)!r:.80}, which the first row "
                "does not have, so that CSV has no place for it; write JSON lines"
            )
        if not self._has_prompt and MESSAGES in row.columns:
            try:
                return ChatNode.from_messages(row.columns[MESSAGES])[1]
            except MiniLLMError as error:
                raise InvalidParameterError(f"line {row.line}: {error}") from None
        missing = [name for name in self._names if row.columns.get(name) is None]
        if missing:
            raise InvalidParameterError(f"line {row.line}: it has no value for {{{missing[0]}}}")
        return {name: _fill_in(row.columns[name]) for name in self._names}

    def values_of(self, row: Row, outcome: BulkOutcome[JsonValue]) -> JsonObject:
        """Return the columns that the output has for a row."""
        names = _rename(row.columns, self._own)
        values: JsonObject = {names[name]: value for name, value in row.columns.items()}
        values[ANSWER] = outcome.text
        if isinstance(self.params, TypedParameters):
            parsed = outcome.parsed if outcome.error is None else None
            if self._members:
                members = parsed if isinstance(parsed, dict) else {}
                values |= {f"{PARSED}.{name}": members.get(name) for name in self._members}
            else:
                values[PARSED] = parsed
        cost = outcome.cost
        is_known = cost.resolution is CostResolution.RESOLVED
        facts = (
            None if outcome.node is None else truncation_notice(outcome.node.response),
            None if outcome.error is None else name_options(str(outcome.error)),
            f"{cost.cost:f}" if is_known else None,
            cost.resolution.value,
            len(cost.attempts),
        )
        return values | dict(zip(FACTS, facts, strict=True))


def _prompt_node(given: RunPrompt) -> ChatNode:
    if given.text is not None and given.file is not None:
        raise InvalidParameterError("--prompt and --prompt-file exclude each other")
    text = given.text if given.file is None else _read_text(given.file).rstrip("\r\n")
    if text is not None and not text.strip():
        raise InvalidParameterError("the prompt is empty")
    return ChatNode.root(given.system or "").add_user(text or f"{{{TEXT}}}")


def _read_text(path: Path) -> str:
    with as_storage_error("read", path):
        return read_small_file(path, MAX_FILE_BYTES).decode("utf-8-sig")


def _read_schema(path: Path) -> JsonObject:
    problem = "it is not an object"
    try:
        schema: JsonValue = msgspec.json.decode(_read_text(path))
    except (msgspec.DecodeError, RecursionError) as error:
        schema, problem = None, str(error)
    if not isinstance(schema, dict):
        raise InvalidParameterError(f"{str(path)!r} is not a JSON schema: {problem}")
    return schema


def _fill_in(value: JsonValue) -> str:
    return value if isinstance(value, str) else json_text(value)


def _rename(columns: JsonObject | list[str], own: frozenset[str]) -> dict[str, str]:
    """Return the names of the input's columns in the output: with `input_` if it is one of ours."""
    names = {}
    for column in columns:
        name = column
        while name in own or (name != column and name in columns):
            name = f"input_{name}"
        names[column] = name
    return names
