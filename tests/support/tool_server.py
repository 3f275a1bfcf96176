"""A server in memory whose model calls tools at random, that checks what it is sent and keeps books.

Use it for loops of any shape. It refuses, as strict hosts do, a conversation in which a call has
no result, or a result no call, and it bills each request at once, whatever becomes of the answer.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from minillmlib import GeneratorInfo, ReadError, TokenPrice
from minillmlib.transport.base import HttpRequest

NAMES = (
    "act", "act", "act", "act", "block", "block", "nap", "nap", "hang", "fail", "ask", "vanish",
    "wrong", "stop",
)  # fmt: skip
IDS = ("unique", "turn", "twin", "empty")  # new ones, new in each turn only, all the same, none


@dataclass(frozen=True)
class Bill:
    """What one request costs, and what the server sent."""

    response_id: str
    cost: Decimal
    kind: str


def problem_of(messages: list[dict[str, Any]]) -> str | None:
    """Return what a strict host says to a conversation, or None."""
    pending: list[str] = []
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in pending:
                return f"messages[{place}]: no call has the id {message['tool_call_id']!r}"
            pending.remove(message["tool_call_id"])
        elif pending:
            return f"messages[{place}]: the calls {pending} have no result"
        pending += [call["id"] for call in message.get("tool_calls", [])]
    return f"the calls {pending} have no result" if pending else None


class ToolServer:
    """The transport of a model that asks for tools. `rng` decides what it says next."""

    def __init__(self) -> None:
        self.rng = random.Random(0)
        self.bills: list[Bill] = []
        self.problems: list[str] = []

    def generator(self) -> GeneratorInfo:
        """Return the model, with the price that it is billed at."""
        generator = GeneratorInfo.custom("tools", "https://tools.example/v1", "m")
        return generator.with_token_price(TokenPrice(1, 1000)).with_transport(self)

    async def send(self, request: HttpRequest) -> Answer:
        """Bill the request, and answer it after a while."""
        body = json.loads(request.body)
        number = len(self.bills) + 1
        kind = self.rng.choice((*["calls"] * 6, "text", "text", "error", "broken"))
        problem = problem_of(body["messages"])
        if body["messages"][-1]["role"] == "assistant":
            problem = "the last message is the model's own"
        if problem is not None:
            self.problems.append(problem)
            kind = "error"
        usage = {"prompt_tokens": number, "completion_tokens": number}
        cost = Decimal(0) if kind == "error" else Decimal(number * 1001) / 1_000_000
        self.bills.append(Bill(f"r{number}", cost, kind))
        pieces = self._pieces(number, kind, is_streamed=bool(body.get("stream")), usage=usage)
        for _ in range(self.rng.randint(0, 2)):
            await asyncio.sleep(self.rng.choice((0, 0.1)))
        return Answer(pieces, status=400 if kind == "error" else 200, is_broken=kind == "broken")

    def _pieces(
        self, number: int, kind: str, *, is_streamed: bool, usage: dict[str, int]
    ) -> list[bytes]:
        if kind == "error":
            return [b'{"error": {"message": "no"}}']
        calls = self._calls(number) if kind == "calls" else []
        head = {"id": f"r{number}", "model": "m"}
        reason = "tool_calls" if calls else "stop"
        if not is_streamed:
            message = {"role": "assistant", "content": "said", "tool_calls": calls}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            whole = json.dumps(head | {"choices": [choice], "usage": usage}).encode()
            return [whole] if kind != "broken" else [whole[:9]]
        deltas: list[dict[str, Any]] = [{"content": "said"}]
        deltas += [{"tool_calls": [{"index": place} | call]} for place, call in enumerate(calls)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        events = [head | {"choices": [choice]} for choice in choices]
        if kind == "broken":
            return [f"data: {json.dumps(events[0])}\n\n".encode()]
        events.append(head | {"choices": [], "usage": usage})
        return [*(f"data: {json.dumps(one)}\n\n".encode() for one in events), b"data: [DONE]\n\n"]

    def _calls(self, number: int) -> list[dict[str, Any]]:
        style = self.rng.choice(IDS)
        calls = []
        for place in range(self.rng.choice((1, 1, 2, 3, 4))):
            name = self.rng.choice([name for name in NAMES if style != "twin" or name != "ask"])
            arguments = json.dumps({"key": f"{number}.{place}"})
            if name == "wrong":
                name, arguments = "act", self.rng.choice(('{"key": 3}', "{}", '{"key": "1.1"'))
            ids = {"unique": f"call_{number}_{place}", "turn": f"call_{place}", "twin": "call"}
            call = {"id": ids.get(style, ""), "type": "function"}
            calls.append(call | {"function": {"name": name, "arguments": arguments}})
        return calls


class Answer:
    """A response that arrives piece by piece."""

    def __init__(self, pieces: list[bytes], *, status: int, is_broken: bool) -> None:
        self.status = status
        kind = "text/event-stream" if pieces[0].startswith(b"data:") else "application/json"
        self.headers = {"content-type": kind}
        self._pieces = iter(pieces)
        self._is_broken = is_broken

    async def read(self) -> bytes:
        """Return the next piece, or nothing at the end."""
        await asyncio.sleep(0)
        piece = next(self._pieces, b"")
        if not piece and self._is_broken:
            raise ReadError("the answer broke off")
        return piece

    def close(self) -> None:
        """Send nothing more."""
        self._pieces = iter(())


class Stop(BaseException):
    """What ends a tool, and with it the loop, as KeyboardInterrupt does."""


class ServerTools:
    """What the model of the server calls. `on_begin` gets the key of each call that runs."""

    def __init__(self, on_begin: Callable[[str], None], rng: random.Random) -> None:
        self._on_begin = on_begin
        self._rng = rng

    def functions(self) -> list[Callable[..., object]]:
        """Return the tools."""
        return [self.act, self.block, self.nap, self.hang, self.fail, self.stop]

    async def act(self, key: str) -> str:
        """Act, and take a few turns of the loop."""
        self._on_begin(key)
        for _ in range(self._rng.randint(0, 2)):
            await asyncio.sleep(0)
        return f"did {key}"

    def block(self, key: str) -> str:
        """Act in a thread."""
        self._on_begin(key)
        return f"did {key}"

    async def nap(self, key: str) -> str:
        """Act, and take a while."""
        self._on_begin(key)
        await asyncio.sleep(0.5)
        return f"did {key}"

    async def hang(self, key: str) -> str:
        """Act, and take an hour."""
        self._on_begin(key)
        await asyncio.sleep(3600)
        return f"did {key}"

    def fail(self, key: str) -> str:
        """Act, and fail."""
        self._on_begin(key)
        raise LookupError(key)

    async def stop(self, key: str) -> str:
        """Act, and stop the program, or be stopped."""
        self._on_begin(key)
        raise Stop if self._rng.random() < 0.2 else asyncio.CancelledError
