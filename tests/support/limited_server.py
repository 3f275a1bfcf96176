"""A server with a rate limit, in memory and at virtual time.

Use it for paces: it takes what its limit allows, refuses the rest with 429, and states in its
headers whatever the test wants. Add up what it took with `taken_after`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from scripted_server import GENERATOR, play
from virtual_clock import now

from minillmlib import GeneratorInfo
from minillmlib.testing import ScriptedReply

Weight = Callable[[dict], float]


class LimitedServer:
    """A bucket of `per_minute` units, of which `at_once` may go at once; a request has a weight.

    `headers(limit, remaining)` are what it states; by default the truth of its requests.
    """

    def __init__(
        self,
        per_minute: float,
        *,
        at_once: float | None = None,
        headers: Callable[[int, int], dict[str, str]] | None = None,
        weight: Weight = lambda _body: 1,
        retry_after: str | None = None,
        latency: float = 0.1,
        answer: Callable[[dict], dict] | None = None,
    ):
        self.per_minute = per_minute
        self.at_once = self.level = per_minute if at_once is None else at_once
        self.headers = stated("requests") if headers is None else headers
        self.weight, self.retry_after, self.latency = weight, retry_after, latency
        self.answer = answer or answer_to
        self.filled_at = 0.0
        self.taken: list[tuple[float, float]] = []  # when, and the weight
        self.refused: list[float] = []

    def generator(self) -> GeneratorInfo:
        return GENERATOR.with_transport(self)

    async def send(self, request):
        body = msgspec.json.decode(request.body)
        weight, moment = self.weight(body), now()
        freed = (moment - self.filled_at) * self.per_minute / 60
        self.level, self.filled_at = min(self.at_once, self.level + freed), moment
        is_taken = self.level >= weight
        if is_taken:
            self.level -= weight
            self.taken.append((moment, weight))
        else:
            self.refused.append(moment)
        headers = {"content-type": "application/json"}
        headers |= self.headers(int(self.per_minute), int(self.level))
        if not is_taken and self.retry_after is not None:
            headers["retry-after"] = self.retry_after
        await asyncio.sleep(self.latency if is_taken else self.latency / 5)
        answer = self.answer(body) if is_taken else {"error": {"message": "slow down"}}
        reply = ScriptedReply(
            pieces=(msgspec.json.encode(answer),), status=200 if is_taken else 429, headers=headers
        )
        return await play(reply, request)

    def taken_after(self, secs: float) -> float:
        """The units a minute that the server took, on average, from a moment on."""
        taken = sum(weight for moment, weight in self.taken if moment > secs)
        return taken / (self.taken[-1][0] - secs) * 60

    def refused_after(self, secs: float) -> int:
        return sum(moment > secs for moment in self.refused)


def prompt_tokens(body: dict) -> int:
    """The tokens of a prompt: one for each word of it."""
    return sum(len(str(message["content"]).split()) for message in body["messages"])


def output_tokens(body: dict) -> int:
    """The tokens of the answer: as many as the prompt has words, up to a hundred."""
    return min(prompt_tokens(body), 100)


def all_tokens(body: dict) -> int:
    return prompt_tokens(body) + output_tokens(body)


def answer_to(body: dict) -> dict:
    usage = {"prompt_tokens": prompt_tokens(body), "completion_tokens": output_tokens(body)}
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    return {"id": "1", "choices": [choice], "usage": usage}


def stated(kind: str, limit=None, remaining=None) -> Callable[[int, int], dict[str, str]]:
    """Headers in OpenAI's form, with the truth or with what is given instead."""

    def headers(true_limit: int, true_remaining: int) -> dict[str, str]:
        return {
            f"x-ratelimit-limit-{kind}": str(_value(limit, true_limit)),
            f"x-ratelimit-remaining-{kind}": str(_value(remaining, true_remaining)),
        }

    return headers


def _value(given, truth: int):
    return truth if given is None else given() if callable(given) else given


def silent(_limit: int, _remaining: int) -> dict[str, str]:
    """No headers about limits."""
    return {}
