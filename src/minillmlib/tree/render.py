"""Conversations as text: for people and logs, Markdown, HTML for notebooks, and training data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import json_text
from minillmlib.tree.records import FormatValue, encode_lossy
from minillmlib.types.messages import Message, Role, TextPart

# The module `html` loads a table of 2,231 entities, 3 % of our import.
HTML_ENTITIES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}
)


def visible_notes(notes: Mapping[str, FormatValue]) -> list[tuple[str, str]]:
    """Return the notes that are shown, as text. A name that begins with `_` is the library's."""
    return [(name, str(value)) for name, value in notes.items() if not name.startswith("_")]


def as_text(messages: Iterable[Message], max_chars: int | None = None) -> str:
    """Render messages as `Role: text`, safe to print on a terminal."""
    rows = []
    for message in messages:
        text = message_text(message)
        if max_chars is not None and len(text) > max_chars:
            text = text[:max_chars] + "\N{HORIZONTAL ELLIPSIS}"
        rows.append(f"{message.role.capitalize()}: {_make_printable(text)}")
    return "\n\n".join(rows)


def as_markdown(messages: Iterable[Message]) -> str:
    """Render each message as a heading and its text.

    The text is Markdown already, so it is changed only where it would reach beyond its message:
    an open block is closed, and a heading that looks like one of ours is escaped.
    """
    rows = (
        f"## {one.role.capitalize()}\n\n{_contain_markdown(message_text(one))}".rstrip()
        for one in messages
    )
    return "\n\n".join(rows) + "\n"


# What begins a block that a heading does not end, in CommonMark (4.5, 4.6), and what ends it.
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HTML_BLOCKS = (
    (re.compile(r" {0,3}<(?:script|pre|style|textarea)(?:[\s>]|$)", re.IGNORECASE), "</pre>"),
    (re.compile(r" {0,3}<!--"), "-->"),
    (re.compile(r" {0,3}<\?"), "?>"),
    (re.compile(r" {0,3}<!\[CDATA\["), "]]>"),
    (re.compile(r" {0,3}<![A-Za-z]"), ">"),
)
_HTML_ENDS = re.compile("</(?:script|pre|style|textarea)>", re.IGNORECASE)
_ROLE = "|".join(Role)
_TURN = re.compile(rf" {{0,3}}##[ \t]+(?:{_ROLE})[ \t]*#*[ \t]*", re.IGNORECASE)
_TURN_ABOVE = re.compile(rf" {{0,3}}(?:{_ROLE})[ \t]*", re.IGNORECASE)
_LINE_ENDS = re.compile("(\r\n|\n|\r)")
_UNDERLINE = re.compile(r" {0,3}(?:-+|=+)[ \t]*")


def _contain_markdown(text: str) -> str:
    """Close the block that is open at the end of a text, and escape headings like ours."""
    pieces = _LINE_ENDS.split(text)  # the lines, and their ends between them
    end, previous = "", ""
    for place in range(0, len(pieces), 2):
        line = pieces[place]
        if end:
            end = "" if _ends_block(line, end) else end
        elif fence := _FENCE.match(line):
            end = fence[1]
        elif closer := next((closer for start, closer in _HTML_BLOCKS if start.match(line)), ""):
            end = "" if _ends_block(line, closer) else closer
        elif _TURN.fullmatch(line) or (
            _UNDERLINE.fullmatch(line) and _TURN_ABOVE.fullmatch(previous)
        ):
            pieces[place] = re.sub(r"(?=[#=-])", r"\\", line, count=1)
        previous = line
    return "".join([*pieces, f"\n{end}"] if end else pieces)


def _ends_block(line: str, end: str) -> bool:
    if end[0] in "`~":
        closing = line.strip(" \t")
        return set(closing) == {end[0]} and len(closing) >= len(end) and line[:4] != " " * 4
    return bool(_HTML_ENDS.search(line)) if end == "</pre>" else end in line


def as_html(messages: Iterable[Message]) -> str:
    """Render messages as a short piece of HTML; their text is escaped."""
    rows = (
        f'<div style="margin:.4em 0"><b>{message.role.capitalize()}</b>'
        f'<div style="white-space:pre-wrap">{escape_html(message_text(message))}</div></div>'
        for message in messages
    )
    return f"<div>{''.join(rows)}</div>"


def escape_html(text: str) -> str:
    """Replace the characters that mean something in HTML."""
    return text.translate(HTML_ENTITIES)


SPEAKERS = {
    Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt", Role.TOOL: "observation",
}  # fmt: skip


def as_sharegpt(threads: Iterable[Sequence[tuple[str, Message]]]) -> str:
    """Render each thread, of node ids and messages, as one line of JSON in the ShareGPT format.

    LLaMA-Factory wants the two sides to alternate, so adjacent turns of one speaker become one.
    """
    examples = ({"id": thread[-1][0], "conversations": _turns(thread)} for thread in threads)
    return "".join(f"{encode_lossy(example).decode()}\n" for example in examples)


def _turns(thread: Sequence[tuple[str, Message]]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for node_id, message in thread:
        if message.attachments or message.media:
            raise InvalidParameterError(f"node {node_id} has media, which ShareGPT cannot carry")
        speaker, text, calls = SPEAKERS[message.role], message.text or "", message.tool_calls
        if turns and turns[-1]["from"] == speaker and (text or not calls):
            turns[-1]["value"] += f"\n\n{text}"
        elif text or not calls:
            turns.append({"from": speaker, "value": text})
        if calls:
            turns.append({"from": "function_call", "value": _calls_text(node_id, message)})
    return turns


def _calls_text(node_id: str, message: Message) -> str:
    try:
        calls = [
            {"name": call.name, "arguments": call.arguments_json() if call.arguments else {}}
            for call in message.tool_calls
        ]
        return json_text(calls if len(calls) > 1 else calls[0])
    except MalformedResponseError as error:
        raise InvalidParameterError(
            f"node {node_id} has a call that ShareGPT cannot carry: {error}"
        ) from None


def message_text(message: Message) -> str:
    """Return the text of a message, with its media and calls in brackets, one part a line."""
    content = message.content
    parts = [TextPart(text=content)] if isinstance(content, str) else content
    lines = [
        part.text if isinstance(part, TextPart) else f"[{part.kind}]"
        for part in (*parts, *message.media)
    ]
    lines += [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    return "\n".join(filter(None, lines))


def _make_printable(text: str) -> str:
    """Replace characters that would move the cursor or change colours."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
