"""Answers in pieces on two wires, as scripts for `ThreadedServer`, and generators for them.

Use it where each piece of an answer is a step of its own.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from threaded_server import Pieces, ThreadedServer

from minillmlib import (
    AnthropicProvider,
    GeneratorInfo,
    OpenAiProvider,
    TokenPrice,
)

PROVIDERS = {"openai": OpenAiProvider, "anthropic": AnthropicProvider}
PRICE = TokenPrice(1, 5)
USD = Decimal("0.000013")  # what every whole answer here costs: 3 tokens in and 2 out
WORDS = ("one ", "two ", "three ", "four ", "five")
TEXT = "".join(WORDS)


def generator_at(server: ThreadedServer, wire: str) -> GeneratorInfo:
    """A generator on this wire, with a price, so that an exact cost is known to be exact."""
    plain = GeneratorInfo.custom("ledger", server.url, "m").with_provider(PROVIDERS[wire]())
    return plain.with_token_price(PRICE)


def whole(wire: str, *, keeps: bool = True, text: str = TEXT) -> Pieces:
    """A whole answer, its body cut in several pieces."""
    body = msgspec.json.encode(_openai_whole(text) if wire == "openai" else _anthropic_whole(text))
    head = _head(b"200 OK", b"application/json", keeps=keeps)
    return (head + b"Content-Length: %d\r\n\r\n" % len(body), *_cut(body, 6))


def streamed(wire: str, *, keeps: bool = True, words: tuple[str, ...] = WORDS) -> Pieces:
    """A streamed answer: a piece for each event and for the end of the body."""
    events = _openai_events(words) if wire == "openai" else _anthropic_events(words)
    return (*begun(keeps=keeps), *(chunk(event) for event in events), b"0\r\n\r\n")


def begun(*, keeps: bool = True) -> Pieces:
    """The head of a streamed answer."""
    head = _head(b"200 OK", b"text/event-stream", keeps=keeps)
    return (head + b"Transfer-Encoding: chunked\r\n\r\n",)


def word(wire: str, text: str) -> bytes:
    """The event of one word of the answer."""
    events = _openai_events((text,)) if wire == "openai" else _anthropic_events((text,))
    return next(chunk(event) for event in events if text.encode() in event)


def refused(*, keeps: bool = True) -> Pieces:
    """A server without room at the moment."""
    body = b'{"error":{"message":"busy"}}'
    head = _head(b"503 Busy", b"application/json", keeps=keeps)
    return (head + b"Content-Length: %d\r\n\r\n" % len(body), body)


def chunk(data: bytes) -> bytes:
    """One piece of a body of unknown length."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: bytes, kind: bytes, *, keeps: bool) -> bytes:
    connection = b"keep-alive" if keeps else b"close"
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: %b\r\n" % (status, kind, connection)


def _cut(body: bytes, count: int) -> Pieces:
    size = len(body) // count + 1
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def _openai_whole(text: str) -> dict:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return {"id": "1", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def _anthropic_whole(text: str) -> dict:
    return {
        "type": "message",
        "id": "1",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def _openai_events(words: tuple[str, ...]) -> list[bytes]:
    choices = [{"index": 0, "delta": {"content": text}} for text in words]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks = [{"id": "1", "choices": [choice]} for choice in choices]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    encoded = [msgspec.json.encode(one) for one in chunks]
    return [b"data: %b\n\n" % one for one in (*encoded, b"[DONE]")]


def _anthropic_events(words: tuple[str, ...]) -> list[bytes]:
    counts = {"input_tokens": 3, "output_tokens": 1}
    delta = {"type": "content_block_delta", "index": 0}
    events = [
        {"type": "message_start", "message": {"id": "1", "content": [], "usage": counts}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({**delta, "delta": {"type": "text_delta", "text": text}} for text in words),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"},
         "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return [
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))
        for event in events
    ]
