"""A tree as one HTML page that needs no server, no network and no other file.

Models may write anything, so nothing of a message ever becomes markup. The page holds its data as
JSON without a single `<`, `>` or `&`, its script makes text nodes of them, and its policy lets the
browser run this script and this style alone, by their hashes, and fetch nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.tree.records import encode
from minillmlib.tree.render import escape_html, visible_notes
from minillmlib.tree.tree import Tree
from minillmlib.types.costs import CostTotal
from minillmlib.types.media import AudioPart, DocumentPart, ImagePart, MediaPart
from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse, FinishReason, TokenLogprob

PAGE_START = b'<!DOCTYPE html>\n<html lang="en">\n<!-- minillmlib -->\n'  # of our pages only
MAX_MEDIA_BYTES = 2_000_000  # of one image or sound; larger ones are only named
MAX_TOTAL_MEDIA_BYTES = 20_000_000

# Types that a browser shows from a data: URL and that cannot hold a script.
SHOWN_TYPES = frozenset({
    "image/png", "image/jpeg", "image/gif", "image/webp",
    "audio/wav", "audio/mp3", "audio/mpeg", "audio/aac", "audio/flac", "audio/ogg",
})  # fmt: skip
NORMAL_FINISHES = (None, FinishReason.STOP, FinishReason.TOOL_CALLS)
MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def html_page(tree: Tree, root: int, title: str) -> str:
    """Render a node and everything below it as an HTML page. Pure ASCII; O(nodes).

    Costs of paths count from the root of the tree, even where the page begins further down.
    """
    template = Path(__file__).with_name("page.html").read_text("utf-8")
    depth = sum(1 for _ in tree.store.path(root)) - 1
    data = {"title": title, "above": depth, "nodes": list(_rows(tree, root))}
    escaped = escape_html(title).encode("ascii", "xmlcharrefreplace").decode()
    parts = {"TITLE": escaped, "DATA": encode(_to_ascii(data)).decode().translate(MARKUP)}
    # In one pass, so that a message with such a name in it stays a message.
    return re.sub(r"%%(TITLE|DATA)%%", lambda found: parts[found[1]], template)


def _to_ascii(value: JsonValue) -> JsonValue:
    """Escape texts that are not ASCII. Unlike msgspec alone, this also takes lone surrogates."""
    if isinstance(value, dict):
        return {name: _to_ascii(item) for name, item in value.items()}
    if isinstance(value, list):
        return list(map(_to_ascii, value))
    if not isinstance(value, str) or (type(value) is str and value.isascii()):
        return value
    return msgspec.Raw(b'"%b"' % re.sub(r'(?:[^ -~]|["\\])+', _escape, value).encode())


def _escape(found: re.Match[str]) -> str:
    return re.sub("....", r"\\u\g<0>", found[0].encode("utf-16-be", "surrogatepass").hex())


def _rows(tree: Tree, root: int) -> Iterator[JsonObject]:
    """Yield one row a node, each before its children."""
    store = tree.store
    with store.lock:
        nodes = list(store.depth_first(root))
        numbers = {node: number for number, node in enumerate(nodes)}
        parents = [-1, *(numbers[store.parents[node]] for node in nodes[1:])]
    paths, branches = _sum_costs(tree, nodes, parents)
    media = _MediaRows()
    for number, node in enumerate(nodes):
        row = {"id": str(number), "parent": parents[number]}
        costs = {"path": str(paths[number]), "branch": str(branches[number])}
        notes: JsonObject = {"notes": [[*note] for note in visible_notes(tree.notes(node))]}
        yield row | _content(store.messages[node], store.response(node), media) | costs | notes


def _sum_costs(
    tree: Tree, nodes: Sequence[int], parents: Sequence[int]
) -> tuple[list[CostTotal], list[CostTotal]]:
    """Return the cost of the path to each node, and of each node with everything below it."""
    branches = [tree.cost([node]) for node in nodes]
    paths = [tree.cost(tree.store.path(nodes[0]))]
    for cost, parent in zip(branches[1:], parents[1:], strict=True):
        paths.append(paths[parent] + cost)
    for number in range(len(nodes) - 1, 0, -1):
        branches[parents[number]] += branches[number]
    return paths, branches


def _content(
    message: Message, response: CompletionResponse | None, media: _MediaRows
) -> JsonObject:
    row: JsonObject = {
        "calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
        "answers": message.tool_call_id,
        "failed": message.is_error,
        "thought": message.reasoning.text if message.reasoning else "",
        "media": [media.row(part) for part in (*message.attachments, *message.media)],
    }
    if response is not None:
        usage, reason, attempts = response.usage, response.finish_reason, len(response.attempts)
        row |= {
            "cost": _cost_words(response),
            "model": response.model,
            "tokens": usage and [usage.prompt_tokens, usage.completion_tokens],
            "finish": reason not in NORMAL_FINISHES and reason,
            "attempts": attempts > 1 and attempts,
            "logprobs": [
                [*_token_row(one), [*map(_token_row, one.top)]] for one in response.logprobs
            ],
        }
    always = {"role": message.role.value, "text": message.text or ""}
    return always | {key: value for key, value in row.items() if value}


def _cost_words(response: CompletionResponse) -> str:
    count = max((attempt.share_of for attempt in response.attempts), default=1)
    return f"{response.total_cost}{f' (1/{count} of a request)' if count > 1 else ''}"


def _token_row(token: TokenLogprob) -> list[JsonValue]:
    """Return a token and its logarithm, to as many digits as the page can show."""
    return [token.token, round(token.logprob, 4)]


class _MediaRows:
    """Media as data: URLs while there is room; other media are named with the reason."""

    def __init__(self) -> None:
        self._room = MAX_TOTAL_MEDIA_BYTES

    def row(self, part: MediaPart) -> JsonObject:
        """Return the row of an image, a sound, a film or a document."""
        name = part.filename if isinstance(part, DocumentPart) else None
        row = {"kind": part.kind, "name": name or part.media_type or ""}
        if part.data is None:
            return row | {"left_out": f"not loaded from {part.url}"}
        size = len(part.data)
        if not isinstance(part, ImagePart | AudioPart) or part.media_type not in SHOWN_TYPES:
            reason = "this kind is not shown here"
        elif size > MAX_MEDIA_BYTES:
            reason = f"more than {MAX_MEDIA_BYTES:,} bytes"
        elif size > self._room:
            reason = "the page holds enough media already"
        else:
            self._room -= size
            return row | {"url": part.data_url}
        return row | {"left_out": f"{size:,} bytes, left out: {reason}"}
