"""A conversation as text: for people and logs, as Markdown, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable

from minillmlib.types.messages import Message, Role, TextPart

__all__ = ["as_html", "as_markdown", "as_text", "escape_html"]

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
