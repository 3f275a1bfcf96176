"""Models that play a script of tool calls, in memory, and some tools for them to call.

Use it for what a tool loop does with calls; `strict_hosts` is for what a server wants back.
"""

from __future__ import annotations

import asyncio
import json

from minillmlib import ChatNode, GeneratorInfo
from minillmlib.testing import ScriptedReply, ScriptedTransport

CANCELLED = "the call was cancelled before it ended, so it is not known whether it took effect"
NOT_STARTED = "the call was cancelled before it started"
UNCERTAIN = (
    "the call was started before, and it is not known whether it took effect; it was not started "
    "again"
)


def call(number: int, name: str, /, **arguments: object) -> dict[str, object]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{number}", "type": "function", "function": function}


def says(text: str | None = None, *calls: object) -> ScriptedReply:
    message: dict[str, object] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = calls
    choice = {"message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return ScriptedReply.json({"choices": [choice]})


def streams(text: str = "", *calls: dict[str, object]) -> ScriptedReply:
    deltas: list[dict[str, object]] = [{"content": piece} for piece in text.split("|") if piece]
    deltas += [{"tool_calls": [{"index": n} | call]} for n, call in enumerate(calls)]
    choices: list[dict[str, object]] = [{"index": 0, "delta": delta} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"})
    events = [f"data: {json.dumps({'choices': [choice]})}\n\n".encode() for choice in choices]
    return ScriptedReply.events(*events, b"data: [DONE]\n\n")


def model(*replies: ScriptedReply) -> GeneratorInfo:
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_transport(ScriptedTransport(replies))


def sent(generator: GeneratorInfo, number: int) -> dict:
    return json.loads(generator.transport.requests[number].body)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def greet(name: str) -> str:
    """Greet somebody."""
    await asyncio.sleep(0)
    return f"Hello {name}"


def fail(what: str) -> str:
    """Fail."""
    raise LookupError(f"no {what}")


async def sleep() -> str:
    """Sleep."""
    await asyncio.sleep(60)
    return "never"


def asked() -> ChatNode:
    return ChatNode.root("s").add_user("u")


def texts(node: ChatNode) -> list[str | None]:
    return [message.text for message in node.thread()][2:]


def flags(node: ChatNode) -> list[bool]:
    return [message.is_error for message in node.thread() if message.tool_call_id]
