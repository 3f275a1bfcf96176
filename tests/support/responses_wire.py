"""Answers of the Responses wire by hypothesis, and their streams in the ways of real servers.

Use `bodies` for a whole answer and `stream_of` for the same in events, in tests of this wire that
are not about one recorded answer.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from minillmlib.testing import ScriptedReply

Item = dict[str, Any]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
SOME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
NAMES = st.text("abcdef0123456789", min_size=8, max_size=8)
PHASES = st.sampled_from(["commentary", "final_answer"])
USAGE = {
    "input_tokens": 40,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 49,
}


@st.composite
def _reasoning(draw: st.DrawFn) -> Item:
    summary = [{"type": "summary_text", "text": text} for text in draw(st.lists(SOME, max_size=2))]
    texts = draw(st.lists(SOME, max_size=1))
    content = [{"type": "reasoning_text", "text": text} for text in texts]
    item = {"id": "rs_" + draw(NAMES), "type": "reasoning", "summary": summary, "content": content}
    if draw(st.booleans()) or not content:
        item["encrypted_content"] = "gAAAA" + draw(NAMES)
    return item


@st.composite
def _messages(draw: st.DrawFn) -> Item:
    annotation = {"type": "url_citation", "url": "https://t.example", "start_index": 0}
    parts = [
        {
            "type": "output_text",
            "text": text,
            "annotations": [annotation] * draw(st.integers(0, 2)),
            "logprobs": [],
        }
        for text in draw(st.lists(TEXTS, min_size=1, max_size=2))
    ]
    item = {"id": "msg_" + draw(NAMES), "type": "message", "status": "completed",
            "role": "assistant", "content": parts}  # fmt: skip
    return item | ({"phase": draw(PHASES)} if draw(st.booleans()) else {})


@st.composite
def _calls(draw: st.DrawFn) -> Item:
    item = {"status": "completed", "call_id": "call_" + draw(NAMES), "name": "read_gauge"}
    if draw(st.integers(0, 3)) == 0:
        return item | {"id": "ctc_" + draw(NAMES), "type": "custom_tool_call", "input": draw(SOME)}
    arguments = msgspec.json.encode({"station": draw(TEXTS)}).decode()
    item |= {"id": "fc_" + draw(NAMES), "type": "function_call", "arguments": arguments}
    return item | ({"namespace": "tides"} if draw(st.booleans()) else {})


@st.composite
def _hosted(draw: st.DrawFn) -> Item:
    kind = draw(st.sampled_from(["web_search_call", "mcp_call", "not_yet_invented"]))
    action = {"type": "search", "query": draw(TEXTS)}
    return {"id": "ws_" + draw(NAMES), "type": kind, "status": "completed", "action": action}


@st.composite
def bodies(draw: st.DrawFn) -> Item:
    """A whole answer, of any items in any order."""
    kinds = st.one_of(_reasoning(), _messages(), _calls(), _hosted())
    output = draw(st.lists(kinds, min_size=1, max_size=7, unique_by=lambda item: item["id"]))
    calls = [item["call_id"] for item in output if "call_id" in item]
    if len(set(calls)) < len(calls):
        output = output[:1]
    end = draw(st.sampled_from([
        {"status": "completed"},
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "incomplete", "incomplete_details": {"reason": "steered"}},
    ]))  # fmt: skip
    return {"id": "resp_" + draw(NAMES), "object": "response", "model": "gpt-5.6-terra",
            "created_at": 1795000000, "service_tier": "default", "output": output,
            "usage": USAGE, "error": None, **end}  # fmt: skip


def _cut(rng: Random, text: str) -> list[str]:
    places = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 3)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


class _Server:
    """The habits of one server."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.has_indexes = rng.random() < 0.8
        self.has_deltas = rng.random() < 0.85
        self.has_parts = rng.random() < 0.8
        self.rotates_ids = self.has_indexes and rng.random() < 0.2
        self.repeats_output = rng.random() < 0.8
        self.names_events = rng.random() < 0.8

    def events_of(self, index: int, item: Item) -> list[Item]:
        place = {"item_id": item["id"]} | ({"output_index": index} if self.has_indexes else {})
        start = {key: item[key] for key in item.keys() & {"id", "type", "call_id", "name", "phase"}}
        start |= {"content": []} if item["type"] == "message" else {}
        start |= {"encrypted_content": "half"} if "encrypted_content" in item else {}
        index_only = {key: place[key] for key in place.keys() & {"output_index"}}
        return [
            {"type": "response.output_item.added", "item": start, **index_only},
            *(self._pieces(item, place) if self.has_deltas else ()),
            {"type": "response.output_item.done", "item": item, **index_only},
        ]

    def _pieces(self, item: Item, place: Item) -> list[Item]:
        match item["type"]:
            case "message":
                parts = enumerate(item["content"])
                return [event for n, part in parts for event in self._part(n, part, place)]
            case "function_call":
                return self._text("function_call_arguments", "arguments", item["arguments"], place)
            case "custom_tool_call":
                return self._text("custom_tool_call_input", "input", item["input"], place)
            case "reasoning":
                events = []
                for n, part in enumerate(item["summary"]):
                    events += self._text("reasoning_summary_text", "text", part["text"],
                                         place | {"summary_index": n})  # fmt: skip
                for n, part in enumerate(item["content"]):
                    events += self._text("reasoning_text", "text", part["text"],
                                         place | {"content_index": n})  # fmt: skip
                return events
        return [{"type": f"response.{item['type']}.in_progress", **place}]

    def _part(self, number: int, part: Item, place: Item) -> list[Item]:
        place = {**place, "content_index": number}
        events = self._text("output_text", "text", part["text"], place)
        count = self.rng.randint(0, len(part["annotations"]))
        events[-1:-1] = [
            {"type": "response.output_text.annotation.added", "annotation": one, **place}
            for one in part["annotations"][:count]
        ]
        if self.has_parts:
            events.insert(0, {"type": "response.content_part.added",
                              "part": part | {"text": "", "annotations": []}, **place})  # fmt: skip
            events.append({"type": "response.content_part.done", "part": part, **place})
        return events

    def _text(self, name: str, key: str, text: str, place: Item) -> list[Item]:
        more = {"logprobs": [], "obfuscation": "x"} if name == "output_text" else {}
        deltas = [
            {"type": f"response.{name}.delta", "delta": piece, **place, **more}
            for piece in _cut(self.rng, text)
        ]
        return [*deltas, {"type": f"response.{name}.done", key: text, **place}]


def stream_of(rng: Random, body: Item) -> ScriptedReply:
    """The same answer in events."""
    server = _Server(rng)
    start = {"id": body["id"], "model": body["model"], "status": "in_progress", "output": []}
    end = copy.deepcopy(body) if server.repeats_output else body | {"output": []}
    events = [
        {"type": "response.created", "response": start},
        {"type": "response.in_progress", "response": start},
        *(one for n, item in enumerate(body["output"]) for one in server.events_of(n, item)),
        {"type": f"response.{body['status']}", "response": end},
    ]
    for number, event in enumerate(events):
        event["sequence_number"] = number
        if server.rotates_ids and "item_id" in event:
            event["item_id"] = f"odd{number}"
    return as_events(events, names=server.names_events)


def as_events(events: list[Item], *, names: bool = True) -> ScriptedReply:
    """A stream of these events."""
    return ScriptedReply.events(
        *(
            (b"event: %b\n" % str(event.get("type")).encode() if names else b"")
            + b"data: %b\n\n" % msgspec.json.encode(event)
            for event in events
        )
    )


def sent_back(item: Item) -> list[Item]:
    """The items in which an item goes back to its server, as the facts of the wire have it."""
    match item["type"]:
        case "message":
            text = "".join(part["text"] for part in item["content"])
            phase = {"phase": item["phase"]} if "phase" in item else {}
            said = {"type": "message", "role": "assistant", "content": text, **phase}
            return [said] if text else []
        case "function_call" | "custom_tool_call":
            return [{key: item[key] for key in item.keys() - {"id", "status"}}]
        case "reasoning":
            omitted = {"id"} | ({"content"} if not item["content"] else set())
            return [{key: item[key] for key in item.keys() - omitted}]
    return [item]
