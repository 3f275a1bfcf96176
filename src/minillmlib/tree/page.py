"""A tree as one HTML page that needs nothing else: no server, no network, no other file.

Models write what they like, so nothing of a message ever becomes markup. The data stand in the
page as JSON without a single `<`, `>` or `&`; the page's script makes text nodes of them, and a
policy lets the browser run that script and no other, and fetch nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING

from minillmlib.json_value import JsonObject
from minillmlib.types.costs import CostTotal
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart
from minillmlib.types.responses import CompletionResponse, FinishReason

if TYPE_CHECKING:  # node.py imports this module, in a method
    from minillmlib.tree.node import ChatNode

__all__ = ["html_page"]

MOST_MEDIA_BYTES = 2_000_000  # of one image or sound; larger ones are only named
MOST_BYTES_OF_ALL_MEDIA = 20_000_000

# What a browser can show from a data: URL, and what cannot hold a script.
SHOWN_TYPES = frozenset({
    "image/png", "image/jpeg", "image/gif", "image/webp",
    "audio/wav", "audio/mp3", "audio/mpeg", "audio/aac", "audio/flac", "audio/ogg",
})  # fmt: skip
PLAIN_FINISHES = (None, FinishReason.STOP, FinishReason.TOOL_CALLS)
MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def html_page(root: ChatNode, title: str = "Conversation") -> str:
    """The page of a node and everything below it. Pure ASCII; O(nodes).

    Costs of paths count from the root of the tree, even where the page begins further down.
    """
    template = files(__package__).joinpath("page.html").read_text("utf-8")
    data = {"title": title, "above": root.depth, "nodes": list(_rows(root))}
    parts = {"POLICY": _policy(template), "TITLE": _escaped(title), "DATA": _json(data)}
    # In one pass, so that a message with such a mark in it stays a message.
    return re.sub(r"%%(POLICY|TITLE|DATA)%%", lambda mark: parts[mark[1]], template)


def _policy(template: str) -> str:
    style, script = (
        _digest(template.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0])
        for tag in ("style", "script")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _digest(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _escaped(text: str) -> str:
    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode()


def _json(data: JsonObject) -> str:
    """JSON in ASCII, in which half a surrogate pair has a form too."""
    return json.dumps(data, separators=(",", ":")).translate(MARKUP)


def _rows(root: ChatNode) -> Iterator[JsonObject]:
    """One row a node, each before its children."""
    nodes, parents = _listed(root)
    paths, branches = _totals(nodes, parents)
    media = _MediaRows()
    for number, node in enumerate(nodes):
        row = {"id": str(number), "parent": parents[number]}
        costs = {"path": str(paths[number]), "branch": str(branches[number])}
        yield row | _message_row(node, media) | _response_row(node) | costs


def _listed(root: ChatNode) -> tuple[list[ChatNode], list[int]]:
    """All nodes, each before its children, and the places of their parents."""
    nodes: list[ChatNode] = []
    parents: list[int] = []
    pending = [(root, -1)]
    while pending:
        node, parent = pending.pop()
        pending += [(child, len(nodes)) for child in reversed(node.children())]
        nodes.append(node)
        parents.append(parent)
    return nodes, parents


def _totals(nodes: list[ChatNode], parents: list[int]) -> tuple[list[CostTotal], list[CostTotal]]:
    """What the path to each node cost, and what each node cost with everything below it."""
    branches = [node.cost for node in nodes]
    paths = [nodes[0].path_cost()]
    for cost, parent in zip(branches[1:], parents[1:], strict=True):
        paths.append(paths[parent] + cost)
    for number in range(len(nodes) - 1, 0, -1):
        branches[parents[number]] += branches[number]
    return paths, branches


def _message_row(node: ChatNode, media: _MediaRows) -> JsonObject:
    message = node.message
    row = {
        "calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
        "answers": message.tool_call_id,
        "failed": message.is_error,
        "thought": message.reasoning.text if message.reasoning else "",
        "media": [media.row(part) for part in (*message.attachments, *message.media)],
    }
    spoken = {"role": message.role.value, "text": message.text or ""}
    return spoken | {key: value for key, value in row.items() if value}


def _response_row(node: ChatNode) -> JsonObject:
    return _told(node.response) if node.is_generated else {}


def _told(response: CompletionResponse) -> JsonObject:
    row: JsonObject = {"cost": str(response.total_cost), "model": response.model}
    if response.usage is not None:
        row["tokens"] = [response.usage.prompt_tokens, response.usage.completion_tokens]
    if response.finish_reason not in PLAIN_FINISHES:
        row["finish"] = response.finish_reason
    if len(response.attempts) > 1:
        row["attempts"] = len(response.attempts)
    return row


class _MediaRows:
    """Media as data: URLs, as long as there is room; what has none is named, with the reason."""

    def __init__(self) -> None:
        self._room = MOST_BYTES_OF_ALL_MEDIA

    def row(self, part: MediaPart) -> JsonObject:
        name = part.filename if isinstance(part, DocumentPart) else None
        row = {"kind": part.kind, "name": name or part.media_type or ""}
        if part.data is None:
            return row | {"left_out": f"not loaded from {part.url}"}
        size = len(part.data)
        if (reason := self._reason_against(part, size)) is not None:
            return row | {"left_out": f"{size:,} bytes, left out: {reason}"}
        self._room -= size
        return row | {"url": part.data_url}

    def _reason_against(self, part: MediaPart, size: int) -> str | None:
        is_shown = isinstance(part, ImagePart | AudioPart) and part.media_type in SHOWN_TYPES
        if not is_shown:
            return "this kind is not shown here"
        if size > MOST_MEDIA_BYTES:
            return f"more than {MOST_MEDIA_BYTES:,} bytes"
        return None if size <= self._room else "the page holds enough media already"
