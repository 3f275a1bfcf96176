"""Serves canned bytes, fast enough not to be the bottleneck; `run.py` starts it as a process.

Run by hand, `python benchmarks/canned.py` prints the port of each mode, and serves all wires on
all of them until its standard input ends. It reads the path and the length of the body, and counts
the results of tools.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

EVENTS_PER_BURST = 500
EVENTS_PACED = 75
PACE_SECS = 1 / 50
LATENCY_SECS = 0.05
HELD_SECS = 0.5
EVENTS_HELD = 8
TOOL_CALLS = 9

WORD = "word "
CHAT_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini",
    "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
}  # fmt: skip
ANTHROPIC_ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": WORD}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 1},
}  # fmt: skip
MESSAGE_ITEM = {
    "id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
    "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": WORD}],
}  # fmt: skip
RESPONSES_ANSWER = {
    "id": "resp_1", "object": "response", "created_at": 1795000000, "status": "completed",
    "background": False, "billing": {"payer": "developer"}, "completed_at": 1795000001,
    "error": None, "frequency_penalty": 0.0, "incomplete_details": None, "instructions": None,
    "max_output_tokens": None, "max_tool_calls": None, "model": "gpt-4o-mini", "moderation": None,
    "output": [MESSAGE_ITEM], "parallel_tool_calls": True, "presence_penalty": 0.0,
    "previous_response_id": None, "prompt_cache_key": None, "prompt_cache_retention": None,
    "reasoning": {"effort": None, "summary": None}, "safety_identifier": None,
    "service_tier": "default", "store": True, "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tool_choice": "auto",
    "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled",
    "usage": {
        "input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
    },
    "user": None, "metadata": {},
}  # fmt: skip
PLACE = '{"place":"here"}'


def chat_answer(text: str) -> dict[str, object]:
    """Return an answer of the chat-completions wire."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return CHAT_ANSWER | {"choices": [choice]}


def chat_tool_call(number: int) -> dict[str, object]:
    """Return an answer of the chat-completions wire that calls the tool."""
    function = {"name": "measure_place", "arguments": PLACE}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    return CHAT_ANSWER | {"choices": [choice]}


def anthropic_answer(text: str) -> dict[str, object]:
    """Return an answer of the Anthropic wire."""
    return ANTHROPIC_ANSWER | {"content": [{"type": "text", "text": text}]}


def anthropic_tool_call(number: int) -> dict[str, object]:
    """Return an answer of the Anthropic wire that calls the tool."""
    call = {
        "type": "tool_use", "id": f"toolu_{number}", "name": "measure_place",
        "input": json.loads(PLACE),
    }  # fmt: skip
    return ANTHROPIC_ANSWER | {"content": [call], "stop_reason": "tool_use"}


def responses_answer(text: str) -> dict[str, object]:
    """Return an answer of the Responses wire."""
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return RESPONSES_ANSWER | {"output": [MESSAGE_ITEM | {"content": [part]}]}


def responses_tool_call(number: int) -> dict[str, object]:
    """Return an answer of the Responses wire that calls the tool."""
    call = {
        "id": f"fc_{number}", "type": "function_call", "status": "completed",
        "call_id": f"call_{number}", "name": "measure_place", "arguments": PLACE,
    }  # fmt: skip
    return RESPONSES_ANSWER | {"output": [call]}


def chat_events(count: int) -> Iterator[bytes]:
    """Yield a stream of the chat-completions wire."""

    def event(choices: list[object], **more: object) -> bytes:
        chunk = {
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000,
            "model": "gpt-4o-mini", "choices": choices, **more,
        }  # fmt: skip
        return b"data: %s\n\n" % json.dumps(chunk, separators=(",", ":")).encode()

    for number in range(count):
        delta = {"content": f"{WORD}{number} "}
        yield event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    yield event([], usage={"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9})
    yield b"data: [DONE]\n\n"


def anthropic_events(count: int) -> Iterator[bytes]:
    """Yield a stream of the Anthropic wire."""

    def event(kind: str, **more: object) -> bytes:
        data = json.dumps({"type": kind, **more}, separators=(",", ":")).encode()
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)

    yield event("message_start", message=ANTHROPIC_ANSWER | {"content": [], "stop_reason": None})
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for number in range(count):
        delta = {"type": "text_delta", "text": f"{WORD}{number} "}
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    yield event(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": count},
    )
    yield event("message_stop")


def responses_events(count: int) -> Iterator[bytes]:
    """Yield a stream of the Responses wire."""
    numbers = itertools.count()

    def event(kind: str, **more: object) -> bytes:
        fields = {"type": f"response.{kind}", **more, "sequence_number": next(numbers)}
        data = json.dumps(fields, separators=(",", ":")).encode()
        return b"event: response.%s\ndata: %s\n\n" % (kind.encode(), data)

    begun = RESPONSES_ANSWER | {
        "status": "in_progress", "completed_at": None, "output": [], "usage": None,
    }  # fmt: skip
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = MESSAGE_ITEM | {"status": "in_progress", "content": []}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    yield event("output_item.added", output_index=0, item=item)
    yield event("content_part.added", **place, part=part)
    words = [f"{WORD}{number} " for number in range(count)]
    for word in words:
        yield event("output_text.delta", **place, delta=word, logprobs=[], obfuscation="s5Uk0zKq")
    text = "".join(words)
    answer = responses_answer(text)
    yield event("output_text.done", **place, text=text, logprobs=[])
    yield event("content_part.done", **place, part=part | {"text": text})
    yield event("output_item.done", output_index=0, item=answer["output"][0])  # type: ignore[index] # a list
    yield event("completed", response=answer)


def whole_response(answer: dict[str, object]) -> bytes:
    """Return a complete response with its head."""
    body = json.dumps(answer, separators=(",", ":")).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame_chunks(events: Iterator[bytes]) -> list[bytes]:
    """Return the writes of a stream: the head, a chunk for each event, the end."""
    return [HEAD, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


STREAMS = {"openai": chat_events, "anthropic": anthropic_events, "responses": responses_events}
ANSWERS = {"openai": chat_answer, "anthropic": anthropic_answer, "responses": responses_answer}
CALLS = {
    "openai": chat_tool_call, "anthropic": anthropic_tool_call, "responses": responses_tool_call,
}  # fmt: skip
RESULT_MARKS = {
    "openai": b"tool_call_id", "anthropic": b"tool_result", "responses": b"function_call_output",
}  # fmt: skip
WHOLE = {wire: whole_response(answer(WORD)) for wire, answer in ANSWERS.items()}
LONG = {wire: whole_response(answer(WORD * 200)) for wire, answer in ANSWERS.items()}
TOOL_TURNS = {
    wire: [*(whole_response(call(number)) for number in range(TOOL_CALLS)), WHOLE[wire]]
    for wire, call in CALLS.items()
}
BURST = {wire: b"".join(frame_chunks(events(EVENTS_PER_BURST))) for wire, events in STREAMS.items()}
PACED = {wire: frame_chunks(events(EVENTS_PACED)) for wire, events in STREAMS.items()}


WIRES = {b"/messages": "anthropic", b"/responses": "responses"}
Answer = Callable[["CannedConnection", str, bytes], None]


class CannedConnection(asyncio.Protocol):
    """One connection, which stays open for any number of requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's class is none of asyncio's

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) > 0:
            head = bytes(self.buffer[:end]).lower()
            rest = head.partition(b"content-length:")[2]
            size = end + 4 + int(rest.partition(b"\r\n")[0])
            if len(self.buffer) < size:
                return
            body = bytes(self.buffer[end + 4 : size])
            del self.buffer[:size]
            path = head.partition(b"\r\n")[0]
            self.answer(self, next((WIRES[p] for p in WIRES if p in path), "openai"), body)

    def write(self, data: bytes) -> None:
        """Write, unless the client has disconnected."""
        if not self.transport.is_closing():
            self.transport.write(data)


def answer_at_once(connection: CannedConnection, wire: str, _body: bytes) -> None:
    """Send a complete response."""
    connection.write(WHOLE[wire])


def answer_later(connection: CannedConnection, wire: str, _body: bytes) -> None:
    """Send a complete response after the latency."""
    asyncio.get_running_loop().call_later(LATENCY_SECS, connection.write, WHOLE[wire])


def answer_long(connection: CannedConnection, wire: str, _body: bytes) -> None:
    """Send a response with a text of a kilobyte after the latency."""
    asyncio.get_running_loop().call_later(LATENCY_SECS, connection.write, LONG[wire])


def answer_with_tools(connection: CannedConnection, wire: str, body: bytes) -> None:
    """Call the tool until the request has all of its results."""
    connection.write(TOOL_TURNS[wire][body.count(RESULT_MARKS[wire])])


class Hold:
    """Keeps calls, and streams after some events, open until no request has come for a while."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.timer: asyncio.TimerHandle | None = None

    def __call__(self, connection: CannedConnection, wire: str, body: bytes) -> None:
        rest = WHOLE[wire]
        if b'"stream":true' in body.replace(b" ", b""):
            connection.write(b"".join(PACED[wire][:EVENTS_HELD]))
            rest = b"".join(PACED[wire][EVENTS_HELD:])
        self.waiting.append(partial(connection.write, rest))
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(HELD_SECS, self.release)

    def release(self) -> None:
        """Answer all."""
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer()


def stream_burst(connection: CannedConnection, wire: str, _body: bytes) -> None:
    """Send a stream in one write."""
    connection.write(BURST[wire])


def stream_paced(connection: CannedConnection, wire: str, _body: bytes) -> None:
    """Send a stream of 50 events a second. The streams start at different times."""
    loop = asyncio.get_running_loop()
    pieces = iter(PACED[wire])
    start = loop.time() + PACE_SECS * (id(connection) // 64 % 97) / 97

    def step(number: int) -> None:
        if (piece := next(pieces, None)) is not None:
            connection.write(piece)
            loop.call_at(start + number * PACE_SECS, step, number + 1)

    step(0)


MODES: dict[str, Answer] = {
    "at_once": answer_at_once, "later": answer_later, "long": answer_long, "held": Hold(),
    "tools": answer_with_tools, "burst": stream_burst, "paced": stream_paced,
}  # fmt: skip


async def main() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    servers = {
        name: await loop.create_server(
            lambda a=answer: CannedConnection(a), "127.0.0.1", 0, backlog=4096
        )
        for name, answer in MODES.items()
    }
    ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
