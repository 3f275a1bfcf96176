"""OpenAI's Responses without state, as strict as it is: it refuses what a client may get wrong.

Use `StrictResponses` as the handler of `server.serving` in tests of tool loops, or its `problem` to
look at one request. Each turn thinks, calls two tools at once, thinks again, says something and
calls a third.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from typing import Any

from responses_wire import USAGE, stream_of

Item = dict[str, Any]
CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
KEYS = {
    "message": {"type", "role", "content", "phase"},
    "reasoning": {"type", "summary", "content", "encrypted_content"},
    "function_call": {"type", "call_id", "name", "arguments", "namespace"},
    "custom_tool_call": {"type", "call_id", "name", "input"},
    "web_search_call": {"type", "id", "status", "action"},
    "function_call_output": {"type", "call_id", "output"},
    "custom_tool_call_output": {"type", "call_id", "output"},
}
BODY_KEYS = {"model", "input", "store", "include", "stream", "tools", "max_output_tokens"}
NOT_STORED = "Items are not persisted when `store` is set to false."


class StrictResponses:
    """Answers so many turns with calls, and all further ones with a text."""

    def __init__(self, turns: int = 5, name: str = "own") -> None:
        self.name = name
        self.sealed: dict[str, Item] = {}  # the reasoning given, by its cipher
        self.followers: dict[str, Item] = {}  # the item after it
        self.phases: dict[str, str] = {}  # of the messages given
        self.bodies: list[Item] = []
        self._turns = turns
        self._number = 0

    async def __call__(self, exchange: Any) -> None:
        body = json.loads(exchange.body)
        problem = self.problem(body)
        if problem is not None:
            error = {"message": problem, "type": "invalid_request_error", "param": "input"}
            await exchange.answer(json.dumps({"error": error}).encode(), "400 Bad Request")
            return
        answer = self.answer(is_last=self._number >= self._turns)
        if not body.get("stream"):
            await exchange.answer(json.dumps(answer).encode())
            return
        reply = stream_of(random.Random(self._number), answer)
        await exchange.start_events(*reply.pieces)
        await exchange.end()

    def answer(self, *, is_last: bool) -> Item:
        """Return the next answer: calls, or the last text."""
        self._number += 1
        number = self._number
        output = [self._reasoning(number, 0)]
        if is_last:
            output.append(self._message("All read.", "final_answer"))
        else:
            output += [self._call(number, 0), self._call(number, 1), self._reasoning(number, 1),
                       self._message(f"Now {number}.", "commentary"), self._call(number, 2)]  # fmt: skip
        for item, after in itertools.pairwise(output):
            if item["type"] == "reasoning":
                self.sealed[item["encrypted_content"]] = item
                self.followers[item["encrypted_content"]] = after
        return {"id": f"resp_{number}", "status": "completed", "model": "m", "usage": USAGE,
                "output": copy.deepcopy(output)}  # fmt: skip

    def _reasoning(self, number: int, place: int) -> Item:
        cipher = f"gAAAA{self.name}{number}-{place}"
        return {"id": f"rs_{self.name}{number}{place}", "type": "reasoning", "content": [],
                "summary": [], "encrypted_content": cipher}  # fmt: skip

    def _call(self, number: int, place: int) -> Item:
        station = json.dumps({"station": f"{number}.{place}"})
        return {"id": f"fc_{number}{place}", "type": "function_call", "status": "completed",
                "call_id": f"call_{self.name}_{number}_{place}", "name": "read_gauge",
                "arguments": station}  # fmt: skip

    def _message(self, text: str, phase: str) -> Item:
        self.phases[text] = phase
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"id": f"msg_{self._number}", "type": "message", "status": "completed",
                "role": "assistant", "phase": phase, "content": [part]}  # fmt: skip

    def problem(self, body: Item) -> str | None:
        """Return why the server refuses a request, or None."""
        self.bodies.append(body)
        if unknown := set(body) - BODY_KEYS:
            return f"Unknown parameter: {min(unknown)!r}."
        if body.get("store") is not False or body["include"] != ["reasoning.encrypted_content"]:
            return "this organization keeps no data: send store false, and ask for the cipher"
        if any(tool.get("strict") is None or "name" not in tool for tool in body.get("tools", ())):
            return "Missing required parameter: 'tools[0].name'."
        items = body["input"]
        for place, item in enumerate(items):
            after = items[place + 1] if place + 1 < len(items) else None
            problem = self._item_problem(item, after)
            if problem is not None:
                return f"input[{place}]: {problem}"
        return self._missing(items) or _unpaired(items)

    def _item_problem(self, item: Item, after: Item | None) -> str | None:
        kind, own_id = item.get("type"), item.get("id", "")
        if kind == "reasoning":
            problem = self._reasoning_problem(item, after)
        elif kind == "message" and item.get("role") == "assistant":
            problem = self._message_problem(item)
        else:
            problem = None if len(item.get("call_id", "")) <= 64 else "Invalid 'call_id': too long."
        if own_id.startswith(("rs_", "fc_", "msg_")):
            problem = f"Item with id {own_id!r} not found. {NOT_STORED}"
        unknown = set(item) - KEYS.get(kind, set())
        return f"Unknown parameter: {min(unknown)!r}." if unknown else problem

    def _message_problem(self, item: Item) -> str | None:
        if not isinstance(item["content"], str):
            return "Invalid value: 'input_text'."
        phase, given = self.phases.get(item["content"]), item.get("phase")
        return None if given == phase else f"the phase of a message was {phase} and is {given}"

    def _reasoning_problem(self, item: Item, after: Item | None) -> str | None:
        cipher = item.get("encrypted_content")
        if cipher not in self.sealed:
            return f"The encrypted content {cipher} could not be verified."
        if "summary" not in item:
            return "Missing required parameter: 'summary'."
        follower = self.followers[cipher]
        if after is None or after["type"] != follower["type"] or (
            after.get("call_id") != follower.get("call_id")
        ):  # fmt: skip
            return "Item of type 'reasoning' was provided without its required following item."
        return None

    def _missing(self, items: list[Item]) -> str | None:
        """Return the call that came without the reasoning that led to it."""
        own = {item["call_id"]: place for place, item in enumerate(items) if item["type"] in CALLS}
        for cipher, follower in self.followers.items():
            place = own.get(follower.get("call_id", ""))
            if place is not None and items[place - 1].get("encrypted_content") != cipher:
                return (
                    f"Item {follower['id']!r} of type 'function_call' was provided without its "
                    f"required 'reasoning' item: {self.sealed[cipher]['id']!r}."
                )
        return None


def _unpaired(items: list[Item]) -> str | None:
    pending: dict[str, str] = {}
    for item in items:
        if item["type"] in CALLS:
            pending[item["call_id"]] = CALLS[item["type"]]
        elif item["type"] in CALLS.values():
            if pending.pop(item["call_id"], None) != item["type"]:
                return (
                    f"No tool call found for function call output with call_id {item['call_id']}."
                )
        elif pending and item.get("role") == "user":
            break
    names = ", ".join(pending)
    return f"No tool output found for function call {names}." if pending else None
