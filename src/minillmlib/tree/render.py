"""Conversations as text: for people and logs, Markdown, HTML for notebooks, and training data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, json_text
from minillmlib.tree.records import encode_lossy
from minillmlib.types.messages import Message, Role, TextPart
from minillmlib.types.tools import ToolCall

if TYPE_CHECKING:
    from minillmlib.tree.node import ChatNode

__all__ = ["EXPORTS", "Export", "as_html", "as_markdown", "as_sharegpt", "as_text", "escape_html"]

# The module `html` loads a table of 2,231 entities, 3 % of our import.
HTML_ENTITIES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"}
)

NAMES = {
    Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant", Role.TOOL: "Tool",
}  # fmt: skip


def as_text(messages: Iterable[Message], max_chars: int | None = None) -> str:
    """Render messages as `Role: text`, safe to print on a terminal."""
    return "\n\n".join(
        f"{NAMES[message.role]}: {_shorten(_make_printable(_render_message(message)), max_chars)}"
        for message in messages
    )


def as_markdown(messages: Iterable[Message]) -> str:
    """Render each message as a heading and its text, which is not escaped."""
    return (
        "\n\n".join(f"## {NAMES[m.role]}\n\n{_render_message(m)}".rstrip() for m in messages) + "\n"
    )


def as_html(messages: Iterable[Message]) -> str:
    """Render messages as a short piece of HTML; their text is escaped."""
    rows = (
        f'<div style="margin:.4em 0"><b>{NAMES[message.role]}</b>'
        f'<div style="white-space:pre-wrap">{escape_html(_render_message(message))}</div></div>'
        for message in messages
    )
    return f"<div>{''.join(rows)}</div>"


def escape_html(text: str) -> str:
    """Replace the characters that mean something in HTML."""
    return text.translate(HTML_ENTITIES)


class _Turn(msgspec.Struct):
    speaker: str = msgspec.field(name="from")
    value: str


class _Example(msgspec.Struct):
    id: str
    conversations: list[_Turn]


SPEAKERS = {
    Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt", Role.TOOL: "observation",
}  # fmt: skip


def as_sharegpt(leaves: Iterable[ChatNode]) -> str:
    """Render the conversation to each leaf as one line of JSON in the ShareGPT format.

    LLaMA-Factory wants the two sides to alternate, so adjacent turns of one speaker become one.
    """
    lines = (encode_lossy(_Example(leaf.id, _turns(leaf))).decode() for leaf in leaves)
    return "".join(f"{line}\n" for line in lines)


def _turns(leaf: ChatNode) -> list[_Turn]:
    turns: list[_Turn] = []
    for node in leaf.path():
        message = node.message
        if message.attachments or message.media:
            raise InvalidParameterError(f"node {node.id} has media, which ShareGPT cannot carry")
        speaker, text = SPEAKERS[message.role], message.text or ""
        if not text and message.tool_calls:
            pass  # the calls are all of it
        elif turns and turns[-1].speaker == speaker:
            turns[-1].value += f"\n\n{text}"
        else:
            turns.append(_Turn(speaker, text))
        if message.tool_calls:
            try:
                calls = [_call_body(call) for call in message.tool_calls]
                value = json_text(calls if len(calls) > 1 else calls[0])
            except MalformedResponseError as error:
                raise InvalidParameterError(
                    f"node {node.id} has a call that ShareGPT cannot carry: {error}"
                ) from None
            turns.append(_Turn("function_call", value))
    return turns


def _call_body(call: ToolCall) -> JsonObject:
    return {"name": call.name, "arguments": call.arguments_json() if call.arguments else {}}


class Export(NamedTuple):
    """A format of text files: what a file holds, and its text, from a node and a title."""

    content: str
    render: Callable[[ChatNode, str], str]


# By the end of a file's name. These are for others to read; `save_thread` and `save_tree` write
# what is loaded again.
EXPORTS: dict[str, Export] = {
    ".md": Export("this conversation, as Markdown", lambda node, _: node.to_markdown()),
    ".html": Export(
        "the whole tree, as a page", lambda node, title: node.root_node.to_html(title=title)
    ),
    ".sharegpt.jsonl": Export(
        "the whole tree, as ShareGPT lines", lambda node, _: node.root_node.to_sharegpt()
    ),
}


def _render_message(message: Message) -> str:
    content = [message.content] if isinstance(message.content, str) else message.content
    parts = [
        part
        if isinstance(part, str)
        else part.text
        if isinstance(part, TextPart)
        else f"[{part.kind}]"
        for part in (*content, *message.media)
    ]
    parts += [f"[calls {call.name}({call.arguments})]" for call in message.tool_calls]
    return "\n".join(part for part in parts if part)


def _shorten(text: str, max_chars: int | None) -> str:
    if max_chars is None or len(text) <= max_chars:
        return text
    return text[:max_chars] + "\N{HORIZONTAL ELLIPSIS}"


def _make_printable(text: str) -> str:
    """Replace characters that would move the cursor or change colours."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
