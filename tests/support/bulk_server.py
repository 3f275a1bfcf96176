"""A server in memory for runs over many items: what it answers depends on the last message.

Use it where nothing but the run is of interest; a socket would make it slow.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable

from minillmlib import ChatNode, GeneratorInfo, HttpRequest, HttpResponse, TokenPrice
from minillmlib.testing import ScriptedReply, ScriptedTransport

PROMPT = ChatNode.root("Be brief.").add_user("The capital of {country}?")


def answer(text: str, *calls: object) -> dict[str, object]:
    message: dict[str, object] = {"content": text}
    if calls:
        message["tool_calls"] = calls
    choice = {"message": message, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}


NUMBERS = itertools.count()


class Server:
    """Answers in memory what `reply` says to the last message; counts what is in flight."""

    def __init__(self, reply: Callable[[str], ScriptedReply] | None = None, secs: float = 0):
        self._reply = reply or (lambda said: ScriptedReply.json(answer(said.upper())))
        self._secs = secs
        self.said: list[str] = []
        self._number = next(NUMBERS)
        self.in_flight = self.most = 0

    async def send(self, request: HttpRequest) -> HttpResponse:
        last = json.loads(request.body)["messages"][-1]
        said = last["content"]
        self.said.append(said)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self._secs)
            return await ScriptedTransport([self._reply(said)]).send(request)
        finally:
            self.in_flight -= 1

    @property
    def generator(self) -> GeneratorInfo:
        generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
        generator = generator.with_api_key(f"key-{self._number}")  # and so a pace of its own
        return generator.with_transport(self).with_token_price(TokenPrice(1, 5))


def refuses(status: int, *said: str) -> Callable[[str], ScriptedReply]:
    """A server that refuses some items and answers the others."""

    def reply(text: str) -> ScriptedReply:
        if text in said:
            return ScriptedReply.json({"error": {"message": f"no {text}"}}, status=status)
        return ScriptedReply.json(answer(text.upper()))

    return reply
