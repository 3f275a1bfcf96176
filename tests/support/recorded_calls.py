"""Calls of every kind over every wire, to be made while they are recorded and again in a replay.

Use it for what a replay has to repeat byte for byte, and `count_sockets` for what needs no network.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from fault_cells import GENERATORS, KEY
from fault_plays import DONE, ENDING, REST, SAY, START, fails, streams
from fault_server import FaultExchange, FaultServer, Play
from fault_wires import WIRES

from golden import GOLDEN
from minillmlib import (
    ChatNode,
    CompletionParameters,
    MiniLLMError,
    NodeCompletionParameters,
    ToolDefinition,
    Transport,
)

__all__ = ["Tap", "all_calls", "count_sockets", "kind_server", "outcome_of"]

WITH_TOOLS = CompletionParameters(tools=(ToolDefinition(name="read_gauge"),))
TOOLS = {
    ("openai", "tools"): "openai_tool_calls_parallel.json",
    ("openai", "streamed tools"): "openai_stream_tool_calls.sse",
    ("anthropic", "streamed tools"): "anthropic_stream_tool_use.sse",
    ("responses", "tools"): "responses_commentary_then_tool_call.json",
}


async def _good(exchange: FaultExchange) -> None:
    await exchange.good()


async def _tools(exchange: FaultExchange) -> None:
    wire = exchange.path.split("/")[1]
    if exchange.is_stream:
        data = (GOLDEN / TOOLS[wire, "streamed tools"]).read_bytes()
        await exchange.start_events(data[:100], data[100:])
        await exchange.end()
    else:
        await exchange.answer((GOLDEN / TOOLS[wire, "tools"]).read_bytes())


# By the prompt.
KINDS: dict[str, Play] = {
    "whole": _good,
    "streamed": streams(START, SAY, 0.01, REST, ENDING, DONE),
    "denied": fails(429, "retry-after: 7"),
    "streamed and cut": streams(START, SAY, then="reset"),
    "streamed and cancelled": streams(START, SAY, then="silence"),
    "streamed and left": streams(START, SAY, 0.01, REST, ENDING, DONE),
    "tools": _tools,
    "streamed tools": _tools,
}


def all_calls() -> list[tuple[str, str]]:
    """Every kind of call over every wire."""
    calls = [(wire, kind) for wire in WIRES for kind in KINDS]
    return [call for call in calls if "tools" not in call[1] or call in TOOLS]


def kind_server() -> FaultServer:
    """Return a server that does as the prompt says."""

    async def play(exchange: FaultExchange) -> None:
        prompts = (kind for kind in KINDS if b'"%b"' % kind.encode() in exchange.body)
        await KINDS[max(prompts, key=len)](exchange)

    return FaultServer(play)


async def outcome_of(call: tuple[str, str], url: str, transport: Transport) -> list[object]:
    """Make a call; return its text, its error and its attempts, without their times."""
    wire, kind = call
    generator = GENERATORS[wire](f"{url}/{wire}/v1").with_api_key(KEY).with_transport(transport)
    params = NodeCompletionParameters(retry=0)
    if "tools" in kind:
        params = params.with_params(WITH_TOOLS)
    root, text = ChatNode.root(), ""
    stream = root.chat_streaming(kind, generator, params)
    try:
        if "streamed" not in kind:
            node = await root.chat(kind, generator, params)
            return [node.text, node.message, _timeless(node.response.attempts)]
        async with stream:
            async for chunk in stream:
                text += chunk.delta
                if text and "left" in kind:
                    break
                if text and "cancelled" in kind:
                    asyncio.get_running_loop().call_later(0.02, asyncio.current_task().cancel)
    except MiniLLMError as error:
        return [text, repr(error), error.partial, _timeless(error.attempts)]
    except asyncio.CancelledError:
        asyncio.current_task().uncancel()
    return [text, _timeless(stream.attempts)]


def _timeless(attempts) -> list[object]:
    return [msgspec.structs.replace(one, started_at=0, elapsed_secs=0) for one in attempts]


@dataclass
class Tap:
    """A transport that notes what passes: statuses, headers, pieces, ends and errors."""

    transport: Transport
    noted: list[object] = field(default_factory=list)

    async def send(self, request):
        with self.noting_errors():
            response = await self.transport.send(request)
        self.noted.append((response.status, dict(response.headers)))
        return _TappedResponse(response, self)

    @contextmanager
    def noting_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.noted.append(repr(error))
            raise


class _TappedResponse:
    def __init__(self, response, tap: Tap) -> None:
        self._response, self._tap = response, tap
        self.status, self.headers, self.close = response.status, response.headers, response.close

    async def read(self) -> bytes:
        with self._tap.noting_errors():
            piece = await self._response.read()
        self._tap.noted.append(bytes(piece))
        return piece


_listeners: list[list[str]] = []


@contextmanager
def count_sockets() -> Iterator[list[str]]:
    """Note whatever this process does with sockets meanwhile."""
    events: list[str] = []
    if not _listeners:
        sys.addaudithook(_note_socket)  # which stays for ever
        _listeners.append([])
    _listeners[0] = events
    try:
        yield events
    finally:
        _listeners[0] = []


def _note_socket(event: str, _arguments: object) -> None:
    if event.startswith("socket."):
        _listeners[0].append(event)
