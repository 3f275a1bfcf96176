"""What is read of many events and whole answers, beside them: `golden/read`.

A line with ">" is an event of a stream, one with "<" a whole answer, one with "+" the records of
counts in the events of a stream, one after another. The line after it is what it is read as: the
fields that are set, an error after "!", or nothing. Each title begins a new stream. After a change
that is meant, or for new lines with one of these marks,
`python tests/support/read_events.py` writes the other lines again, and their difference is to be
read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path

import msgspec

from minillmlib import AnthropicProvider, MiniLLMError, Provider, ResponsesProvider
from minillmlib.types.usage import UsageUpdate

FOLDER = Path(__file__).parents[1] / "golden" / "read"
WIRES: dict[str, Provider] = {"anthropic": AnthropicProvider(), "responses": ResponsesProvider()}


WORDS_OF_MSGSPEC = re.compile(r"\((Expected|Object|Input) [^)]*\)")


def set_fields(value: object) -> object:
    """Return a value for JSON: of objects of the library, the fields that are not their defaults."""
    if isinstance(value, msgspec.Struct):
        fields = {field.name: field for field in msgspec.structs.fields(value)}
        return {
            name: set_fields(getattr(value, name))
            for name, field in fields.items()
            if name not in ("raw_response", "cost")
            and getattr(value, name) not in (field.default, {})
        }
    if isinstance(value, dict):
        return {key: set_fields(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [set_fields(item) for item in value]
    return msgspec.to_builtins(value)


def result(read: Callable[[], object]) -> str:
    try:
        found = read()
    except MiniLLMError as error:
        return f"! {type(error).__name__}: {WORDS_OF_MSGSPEC.sub('(...)', str(error))}"
    return "= nothing" if found is None else f"= {json.dumps(set_fields(found))}"


def merged(provider: Provider, records: list[dict[str, object]]) -> UsageUpdate:
    """Return the counts of a stream whose events have these records."""
    events = [{"type": "message_start" if not number else "message_delta", "usage": record}
              for number, record in enumerate(records)]  # fmt: skip
    updates = [
        UsageUpdate(usage=provider.parse_usage(event), record=event["usage"]) for event in events
    ]
    return reduce(provider.billing.merge_usage, updates)


def with_results(wire: str, text: str) -> str:
    """Return the lines with the results that they have now."""
    provider, lines = WIRES[wire], []
    reader = provider.chunk_reader()
    for line in text.splitlines():
        mark, data = line[:2], line[2:]
        if mark in ("= ", "! "):
            continue
        lines.append(line)
        if mark == "##":
            reader = provider.chunk_reader()
        elif mark == "> ":
            lines.append(result(partial(reader, data)))
        elif mark == "< ":
            lines.append(result(partial(provider.parse_response, json.loads(data))))
        elif mark == "+ ":
            lines.append(result(partial(merged, provider, json.loads(data))))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in WIRES:
        file = FOLDER / f"{each}.txt"
        file.write_text(with_results(each, file.read_text()))
