"""A transport that is OpenRouter: streams that are abandoned, and their records, which appear later.

Use it for costs that are looked up after the call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal

from scripted_server import DONE, Dripping, Step, event, play

from minillmlib import GeneratorInfo, TokenPrice
from minillmlib.testing import ScriptedReply

COST = Decimal("0.0162")
BYOK_COST = Decimal("0.01")
CHUNKS = 240
PRICE = TokenPrice(1, 2)


def generation_id(number: int) -> str:
    """The id of the answer with this number."""
    return f"gen-1795000100-{number}"


def pending(asked_id: str) -> ScriptedReply:
    """The answer of OpenRouter while it has no record yet."""
    error = {"message": f"Generation {asked_id} not found", "code": 404}
    return ScriptedReply.json({"error": error}, status=404)


def record(asked_id: str, **fields) -> ScriptedReply:
    """OpenRouter's record of an answer."""
    data = {
        "id": asked_id, "created_at": "2026-11-18T09:41:07+00:00", "model": "a/m", "origin": "",
        "is_byok": False, "cancelled": True, "upstream_inference_cost": None,
        "native_tokens_prompt": 10500, "native_tokens_completion": 320,
        "native_tokens_cached": 8000, "native_tokens_reasoning": 120,
        "total_cost": float(COST), "usage": float(COST),
    }  # fmt: skip
    return ScriptedReply.json({"data": {**data, **fields}})


def long_stream(number: int, *, chunks: int = CHUNKS, with_id: bool = True) -> ScriptedReply:
    """So many pieces of text, then the finish and the counts with their cost."""
    named = {"id": generation_id(number)} if with_id else {"id": ""}
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "cost": float(COST)}
    reply = ScriptedReply.events(
        *(event({"content": "x"}, **named) for _ in range(chunks)),
        event(finish="stop", **named),
        event(usage=usage, **named),
        DONE,
    )
    headers = {**reply.headers, "x-generation-id": generation_id(number)}
    return ScriptedReply(pieces=reply.pieces, headers=headers)


class Router:
    """A transport that streams to whoever asks, and has a record of it at the n-th query.

    `steps` are the answers to the first requests, in place of a long stream; `replies` those to
    the first queries for each record, in place of a pending one.
    """

    def __init__(
        self,
        steps: Sequence[Step] = (),
        *,
        pendings: int = 1,
        replies: Sequence[Step] = (),
        fields: dict | None = None,
    ) -> None:
        self.asked: list[str] = []  # the ids of the queries, in order
        self.requests = 0
        self._steps = iter(steps)
        self._pendings = pendings
        self._replies = replies
        self._fields = fields or {}

    async def send(self, request):
        if request.method == "GET":
            return await self._told(request)
        self.requests += 1
        step = next(self._steps, None) or long_stream(self.requests)
        return Dripping(await play(step, request))

    async def _told(self, request):
        assert request.body == b""
        (asked_id,) = re.findall(
            r"^https://openrouter.ai/api/v1/generation\?id=(\S+)$", request.url
        )
        before = self.asked.count(asked_id)
        self.asked.append(asked_id)
        if before < len(self._replies):
            return await play(self._replies[before], request)
        is_there = before >= self._pendings
        return await play((record if is_there else _pending)(asked_id, **self._fields), request)

    def generator(self) -> GeneratorInfo:
        return GeneratorInfo.openrouter("a/m").with_api_key("k").with_transport(self)


def _pending(asked_id: str, **_fields) -> ScriptedReply:
    return pending(asked_id)


def is_stream(request) -> bool:
    return bool(json.loads(request.body).get("stream"))
