"""Servers whose models call tools turn after turn, and that want back what they gave.

Use `StrictHost` as the handler of `server.serving` in tests of tool loops. It refuses, as real
hosts do, a turn of its own that comes back without a signature, without its reasoning, under
another id or with a changed key, and any key that it does not know. `STYLES` are what real hosts
put into their calls.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

Turn = dict[str, Any]
TURNS = 5
SIGNATURE = base64.b64encode(b"sealed thoughts \xff\xfe" * 12).decode()  # with + and /


def _call(style: str, number: int, place: int) -> Turn:
    arguments = json.dumps({"station": f"{number}.{place}"})
    return {
        "id": f"{style}_{number}_{place}",
        "type": "function",
        "function": {"name": "read_gauge", "arguments": arguments},
    }


def _gemini(number: int) -> Turn:
    """Google's compatible endpoint signs the first of parallel calls (pi#3234)."""
    calls = [_call("gemini", number, 0), _call("gemini", number, 1)]
    calls[0]["extra_content"] = {"google": {"thought_signature": f"{number}{SIGNATURE}"}}
    return {"content": None, "tool_calls": calls}


def _kimi(number: int) -> Turn:
    """Kimi and DeepSeek: the key must be there, also in a turn without thoughts."""
    turn = {"content": "", "tool_calls": [_call("kimi", number, 0), _call("kimi", number, 1)]}
    return turn | ({"reasoning_content": f"Thought {number}."} if number != 3 else {})


def _litellm(number: int) -> Turn:
    """LiteLLM hides Gemini's signature in the id, and has a copy in the function."""
    calls = [_call("litellm", number, 0), _call("litellm", number, 1)]
    calls[0]["id"] += f"__thought__{SIGNATURE}"
    calls[1]["function"]["provider_specific_fields"] = {"thought_signature": SIGNATURE}
    return {"content": None, "tool_calls": calls}


def _minimax(number: int) -> Turn:
    """MiniMax with `reasoning_split`: the same thoughts twice; the details are to come back."""
    detail = {"type": "reasoning.text", "id": f"r{number}", "index": 0, "text": f"Hm {number}."}
    calls = [_call("minimax", number, 0)]
    details = {"reasoning_details": [detail], "reasoning_content": f"Hm {number}."}
    return {"content": "I look.", "tool_calls": calls, **details}


def _claude(number: int) -> Turn:
    """LiteLLM in front of Claude: blocks without numbers, and their text once more."""
    blocks = [
        {"type": "thinking", "thinking": f"Hm {number}.", "signature": f"{number}{SIGNATURE}"},
        {"type": "redacted_thinking", "data": SIGNATURE},
        {"type": "thinking", "thinking": "So.", "signature": SIGNATURE},
    ]
    sealed = {"thinking_blocks": blocks, "reasoning_content": f"Hm {number}.So."}
    return {"content": None, **sealed, "tool_calls": [_call("claude", number, 0)]}


def _numbers(number: int) -> Turn:
    """A relay with keys of its own of every JSON type, and ids of odd characters."""
    calls = [_call("numbers", number, 0)]
    calls[0] |= {
        "id": f"fc:{number}|rs/{'x' * 60}",
        "caller": None,
        "step": number,
        "tags": [1, "a"],
    }
    calls[0]["function"]["parsed"] = {"a": {"b": False}, "c": ""}
    return {"content": None, "tool_calls": calls}


def _groq(number: int) -> Turn:
    """Groq sends `reasoning` and refuses it back (gptel#774)."""
    return {"content": None, "tool_calls": [_call("groq", number, 0)], "reasoning": f"Hm {number}."}


STYLES: dict[str, Callable[[int], Turn]] = {
    "gemini": _gemini,
    "kimi": _kimi,
    "litellm": _litellm,
    "minimax": _minimax,
    "claude": _claude,
    "numbers": _numbers,
    "groq": _groq,
}
# Beside the calls, what a turn of each style must have, and what it may not have.
REQUIRED = {"kimi": "reasoning_content", "minimax": "reasoning_details",
            "claude": "thinking_blocks"}  # fmt: skip
KEYS = {"role", "content", "tool_calls", "tool_call_id"}


class StrictHost:
    """Answers so many turns with calls, and all further ones with a text.

    On the Messages wire (`/v1/messages`) it is LiteLLM in front of Gemini.
    """

    def __init__(self, style: str, turns: int = TURNS) -> None:
        self.style = style
        self.given: dict[str, Turn] = {}  # by the id of each call
        self.bodies: list[Turn] = []
        self._turns = turns

    async def __call__(self, exchange: Any) -> None:
        body = json.loads(exchange.body)
        self.bodies.append(body)
        is_claude = exchange.path.endswith("/messages")
        problem = (self._claude_problem if is_claude else self._problem)(body["messages"])
        if problem is not None:
            error = {"message": problem, "type": "invalid_request_error"}
            await exchange.answer(json.dumps({"type": "error", "error": error}).encode(), "400 Bad")
        elif is_claude:
            await self._answer_claude(exchange, body)
        else:
            await self._answer(exchange, body)

    def _next(self, body: Turn) -> Turn:
        number = len({message["tool_calls"][0]["id"] for message in self.given.values()}) + 1
        if number > self._turns:
            return {"content": "All read."}
        turn = STYLES[self.style](number)
        self.given |= {call["id"]: copy.deepcopy(turn) for call in turn["tool_calls"]}
        return turn

    def _problem(self, messages: list[Turn]) -> str | None:
        pending: list[str] = []
        for place, message in enumerate(messages):
            calls = message.get("tool_calls", [])
            own = next((self.given[call["id"]] for call in calls if call["id"] in self.given), None)
            known = KEYS | ({REQUIRED[self.style]} if self.style in REQUIRED else set())
            if unknown := set(message) - known:
                return f"messages[{place}]: property {min(unknown)!r} is unsupported"
            if calls and self.style == "kimi" and "reasoning_content" not in message:
                return (
                    f"reasoning_content is missing in assistant tool call message at index {place}"
                )
            if own is not None:
                problem = self._own_problem(message, own, place)
            else:
                problem = next(filter(None, map(_foreign_problem, calls)), None)
            if problem is not None:
                return problem
            if message["role"] == "tool":
                if message["tool_call_id"] not in pending:
                    return f"messages[{place}]: no call has the id {message['tool_call_id']!r}"
                pending.remove(message["tool_call_id"])
            elif pending:
                return f"messages[{place}]: the calls {pending} have no result"
            pending += [call["id"] for call in calls]
        return f"the calls {pending} have no result" if pending else None

    def _own_problem(self, message: Turn, own: Turn, place: int) -> str | None:
        if message["tool_calls"] != own["tool_calls"]:
            return (
                "Function call is missing a thought_signature in functionCall parts: "
                f"{message['tool_calls']} for {own['tool_calls']}"
            )
        key = REQUIRED.get(self.style)
        if key is not None and message.get(key) != own.get(key, ""):
            return f"messages[{place}].{key} is {message.get(key)!r}, not {own.get(key, '')!r}"
        return None

    async def _answer(self, exchange: Any, body: Turn) -> None:
        turn, finish = self._next(body), "stop"
        if "tool_calls" in turn:
            finish = "tool_calls"
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant"} | turn, "finish_reason": finish}
            await exchange.answer(
                json.dumps({"id": "1", "model": "m", "choices": [choice]}).encode()
            )
            return
        deltas = [
            {name: piece}
            for name, value in turn.items()
            if name != "tool_calls"
            for piece in (_block_pieces(value) if name == "thinking_blocks" else [value])
        ]
        for index, call in enumerate(turn.get("tool_calls", ())):
            deltas += [{"tool_calls": [piece]} for piece in _pieces(index, call)]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": finish})
        events = [f"data: {json.dumps({'id': '1', 'choices': [choice]})}\n\n" for choice in choices]
        await exchange.start_events(*(event.encode() for event in (*events, "data: [DONE]\n\n")))
        await exchange.end()

    def _claude_problem(self, messages: list[Turn]) -> str | None:
        blocks = [block for message in messages for block in message["content"]]
        uses = [block for block in blocks if block["type"] == "tool_use"]
        for use, given in zip(uses, self.given.values(), strict=True):
            if use != (wanted := _as_tool_use(given["tool_calls"][0])):
                return f"Function call is missing a thought_signature: {use} for {wanted}"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if results != [use["id"] for use in uses]:
            return f"the results {results} are for other ids"
        return None

    async def _answer_claude(self, exchange: Any, body: Turn) -> None:
        turn = self._next(body)
        if "tool_calls" in turn:  # one call is enough here
            del turn["tool_calls"][1:]
            (use,), reason = map(_as_tool_use, turn["tool_calls"]), "tool_use"
            self.given = {ident: one for ident, one in self.given.items() if "__thought__" in ident}
        else:
            use, reason = {"type": "text", "text": turn["content"]}, "end_turn"
        usage = {"input_tokens": 1, "output_tokens": 1}
        head = {"id": "1", "type": "message", "role": "assistant", "model": "m", "usage": usage}
        if not body.get("stream"):
            whole = head | {"content": [use], "stop_reason": reason}
            await exchange.answer(json.dumps(whole).encode())
            return
        events: list[Turn] = [{"type": "message_start", "message": head | {"content": []}}]
        start, delta = use | {"text": ""}, {"type": "text_delta", "text": use.get("text")}
        if reason == "tool_use":
            start = use | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(use["input"])}
        events += [
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
            {"type": "message_stop"},
        ]
        await exchange.start_events(*(f"data: {json.dumps(one)}\n\n".encode() for one in events))
        await exchange.end()


def _as_tool_use(call: Turn) -> Turn:
    arguments = json.loads(call["function"]["arguments"])
    use = {"type": "tool_use", "id": call["id"], "name": "read_gauge", "input": arguments}
    return use | {"caller": {"type": "direct"}, "provider_specific_fields": {"sig": SIGNATURE}}


def _foreign_problem(call: Turn) -> str | None:
    """Return why OpenAI would refuse a call of another model."""
    if unknown := set(call) - {"id", "type", "function"}:
        return f"unknown key {min(unknown)!r} in a tool call"
    if unknown := set(call["function"]) - {"name", "arguments"}:
        return f"unknown key {min(unknown)!r} in a function"
    return "the id of a tool call is too long" if len(call["id"]) > 40 else None


def _pieces(index: int, call: Turn) -> list[Turn]:
    """Return a call in fragments: keys of its own come with the first, and of odd calls the last."""
    function = call["function"]
    text = function["arguments"]
    own = {name: value for name, value in call.items() if name not in ("id", "type", "function")}
    inner = {name: value for name, value in function.items() if name not in ("name", "arguments")}
    first = {"index": index, "id": call["id"], "type": "function"}
    first["function"] = {"name": function["name"], "arguments": ""}
    last: Turn = {"index": index, "function": {"arguments": text[5:]}}
    target = last if index else first
    target |= own
    target["function"] |= inner
    return [first, {"index": index, "function": {"arguments": text[:5]}}, last]


def _block_pieces(blocks: list[Turn]) -> list[list[Turn]]:
    """Return LiteLLM's pieces of blocks: the signature comes last, beside an empty text."""
    pieces = []
    for block in blocks:
        if block["type"] != "thinking":
            pieces.append([block])
            continue
        for text in (block["thinking"][:1], block["thinking"][1:]):
            pieces.append([block | {"thinking": text, "signature": None}])
        pieces.append([block | {"thinking": ""}])
    return pieces
