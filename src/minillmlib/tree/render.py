"""A conversation as text: for people and logs, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from minillmlib.types.messages import Message, Role, TextPart
from minillmlib.types.tools import ToolCall

__all__ = ["as_html", "as_markdown", "as_text"]

NAMES = {
    Role.SYSTEM: "System", Role.USER: "User", Role.ASSISTANT: "Assistant", Role.TOOL: "Tool",
}  # fmt: skip


def as_text(messages: Iterable[Message], most_chars: int | None = None) -> str:
    """`Role: what it said`, one message after the other, safe to print on a terminal."""
    return "\n\n".join(
        f"{NAMES[message.role]}: {_shortened(_printable(_said(message)), most_chars)}"
        for message in messages
    )


def as_markdown(messages: Iterable[Message]) -> str:
    """A heading for each message, with its text as it is below."""
    return "\n\n".join(f"## {NAMES[m.role]}\n\n{_said(m)}".rstrip() for m in messages) + "\n"


def as_html(messages: Iterable[Message]) -> str:
    """A plain piece of HTML for notebooks; whatever was said stays text."""
    rows = (
        f'<div style="margin:.4em 0"><b>{NAMES[message.role]}</b>'
        f'<div style="white-space:pre-wrap">{escape(_said(message))}</div></div>'
        for message in messages
    )
    return f"<div>{''.join(rows)}</div>"


def _said(message: Message) -> str:
    parts = [message.content] if isinstance(message.content, str) else []
    if not isinstance(message.content, str):
        parts = [
            part.text if isinstance(part, TextPart) else f"[{part.kind}]"
            for part in message.content
        ]
    parts += [f"[{part.kind}]" for part in message.media]
    parts += [_call(call) for call in message.tool_calls]
    return "\n".join(part for part in parts if part)


def _call(call: ToolCall) -> str:
    return f"[calls {call.name}({call.arguments})]"


def _shortened(text: str, most_chars: int | None) -> str:
    if most_chars is None or len(text) <= most_chars:
        return text
    return text[:most_chars] + "\N{HORIZONTAL ELLIPSIS}"


def _printable(text: str) -> str:
    """Without what would move the cursor or change colours."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
