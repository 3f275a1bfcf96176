"""A transport that takes one step after the other, and notes what it was asked, and when.

Use it for attempts, retries, budgets and times, with `virtual_clock`. Nothing goes over a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

import msgspec
import pytest
from virtual_clock import now

from minillmlib import (
    ChatNode,
    GeneratorInfo,
    MiniLLMError,
    NodeCompletionParameters,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

# One answer: a reply byte for byte, an error to raise, or a function of the request.
Step: TypeAlias = ScriptedReply | type[MiniLLMError] | Callable[..., Awaitable]

GENERATOR = GeneratorInfo.custom("own", "https://own.example/v1", "m").with_token_price(
    TokenPrice(1, 2)
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 1}
DONE = b"data: [DONE]\n\n"


class Server:
    """A transport that takes its steps one after the other; asking for more fails the test."""

    def __init__(self, steps: Iterable[Step]):
        self.steps = iter(steps)
        self.requests, self.times, self.readers = [], [], []

    async def send(self, request):
        self.requests.append(request)
        self.times.append(now())
        return await play(next(self.steps, one_too_many), request)

    def generator(self, base_url: str = GENERATOR.base_url) -> GeneratorInfo:
        return GENERATOR.with_base_url(base_url).with_transport(self)


class Wire(Server):
    """Like a real engine: says when a request leaves, and suspends at every chance."""

    def __init__(self, steps: Iterable[Step]):
        super().__init__(steps)
        self.left = 0

    async def send(self, request):
        await before_departure(asyncio.sleep(0))
        self.left += 1
        await asyncio.sleep(0)
        return Dripping(await super().send(request))


class Dripping:
    """A response that suspends before each piece, and waits `pause` before the last."""

    def __init__(self, response, pause: float = 0.0):
        self.status, self.headers = response.status, response.headers
        self.close, self._read, self._pause = response.close, response.read, pause

    async def read(self):
        await asyncio.sleep(0)
        piece = await self._read()
        if not piece:
            await asyncio.sleep(self._pause)
        return piece


async def play(step: Step, request):
    if isinstance(step, ScriptedReply):
        return await ScriptedTransport([step]).send(request)
    if isinstance(step, type):
        raise step("scripted")
    return await step(request)


async def one_too_many(_request):
    raise AssertionError("one request more than the script has answers")


async def hang(_request):
    await asyncio.Event().wait()


async def before_departure(waiting):
    """Waits like an engine that has written nothing yet."""
    try:
        await waiting
    except BaseException as error:
        error.was_sent = False
        raise


async def hang_before_departure(request):
    await before_departure(hang(request))


def slow(secs: float, step: Step) -> Step:
    """The step, after some time."""

    async def play_later(request):
        await asyncio.sleep(secs)
        return await play(step, request)

    return play_later


def busy(secs: float, step: Step) -> Step:
    """The step, after some time in which the whole program stood still."""

    async def play_late(request):
        asyncio.get_running_loop().be_busy(secs)
        return await play(step, request)

    return play_late


def stalled(reply: ScriptedReply) -> Step:
    """The reply, whose body then never ends."""

    async def play_on(request):
        return Dripping(await play(reply, request), pause=1e6)

    return play_on


def status(number: int, headers=None, /, body=b"{}", **error) -> ScriptedReply:
    """An answer with this status; `error` are the fields of an error object in its body."""
    return ScriptedReply(
        pieces=(msgspec.json.encode({"error": error}) if error else body,),
        status=number,
        headers={"content-type": "application/json", **(headers or {})},
    )


def event(delta=None, finish=None, **fields) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "1", "choices": [choice], **fields}) + b"\n\n"


FINISH, COUNTS = event(finish="stop"), event(usage=USAGE)


def whole(text: str, **fields) -> ScriptedReply:
    """A whole answer with its counts."""
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return ScriptedReply.json({"id": "1", "choices": [choice], "usage": USAGE, **fields})


def events(*pieces: bytes | str, breaks_off: bool = False) -> ScriptedReply:
    """A stream of these events; a string is a piece of text."""
    raw = [event({"content": piece}) if isinstance(piece, str) else piece for piece in pieces]
    return ScriptedReply.events(*raw, breaks_off=breaks_off)


def says(text: str) -> Step:
    """An answer in the form that the request asks for."""

    async def answer(request):
        is_stream = b'"stream":true' in request.body
        reply = events(text, FINISH, COUNTS, DONE) if is_stream else whole(text)
        return await play(reply, request)

    return answer


ANSWER = says("ok")


async def tried(server: Server, settings=None, *, streamed: bool, generator=None):
    """Make a completion, and return its response or its error."""
    generator = server.generator() if generator is None else generator
    root = ChatNode.root("s")
    try:
        if not streamed:
            return (await root.chat("u", generator, settings)).response
        async with root.chat_streaming("u", generator, settings) as stream:
            async for _ in stream:
                pass
    except MiniLLMError as error:
        return error
    return stream.response


def outcomes(attempts) -> str:
    """How the attempts ended, in order."""
    return " ".join(attempt.outcome.value for attempt in attempts)


BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def asked(**settings) -> NodeCompletionParameters:
    return NodeCompletionParameters(**settings)
