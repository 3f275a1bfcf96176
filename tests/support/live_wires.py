"""Answers in pieces on both wires: text, or the arguments of a tool call.

Use it to watch partial JSON grow while it streams.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
from json_documents import mutations, pieces_of

from minillmlib import AnthropicProvider, ChatNode, GeneratorInfo
from minillmlib.testing import ScriptedReply, ScriptedTransport


def chat_event(delta, finish=None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "1", "choices": [choice]}) + b"\n\n"


def chat_text(pieces: Iterable[str]) -> list[bytes]:
    return [chat_event({"content": piece}) for piece in pieces]


def chat_call(pieces: Iterable[str], index: int = 0) -> list[bytes]:
    begun = {"index": index, "id": f"c{index}", "function": {"name": "write", "arguments": ""}}
    deltas = [begun, *({"index": index, "function": {"arguments": piece}} for piece in pieces)]
    return [chat_event({"tool_calls": [delta]}) for delta in deltas]


def chat_end(reason: str = "stop") -> list[bytes]:
    return [chat_event({}, reason), b"data: [DONE]\n\n"]


def claude_event(kind: str, **fields) -> bytes:
    body = msgspec.json.encode({"type": kind, **fields})
    return f"event: {kind}\ndata: ".encode() + body + b"\n\n"


def claude_start() -> bytes:
    usage = {"input_tokens": 3, "output_tokens": 1}
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": [],
        "usage": usage,
    }
    return claude_event("message_start", message=message)


def claude_block(block, deltas) -> list[bytes]:
    return [
        claude_start(),
        claude_event("content_block_start", index=0, content_block=block),
        *(claude_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        claude_event("content_block_stop", index=0),
    ]


def claude_text(pieces: Iterable[str]) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return claude_block({"type": "text", "text": ""}, deltas)


def claude_call(pieces: Iterable[str]) -> list[bytes]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return claude_block({"type": "tool_use", "id": "c0", "name": "write", "input": {}}, deltas)


CLAUDE_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def claude_end(reason: str = "stop") -> list[bytes]:
    delta = {"stop_reason": CLAUDE_REASONS[reason]}
    usage = {"output_tokens": 9}
    return [claude_event("message_delta", delta=delta, usage=usage), claude_event("message_stop")]


def over(transport, provider=None) -> GeneratorInfo:
    generator = GeneratorInfo.custom("live", "https://live.example/v1", "m")
    generator = generator.with_transport(transport)
    return generator if provider is None else generator.with_provider(provider)


CHAT = (chat_text, chat_call, chat_end, None)
CLAUDE = (claude_text, claude_call, claude_end, AnthropicProvider())


def stream_of(events: Iterable[bytes], provider=None, **reply):
    transport = ScriptedTransport([ScriptedReply.events(*events, **reply)])
    return ChatNode.root("s").chat_streaming("u", over(transport, provider))


def cuttings(text: str, chance: random.Random) -> list[list[str]]:
    """The text character by character, in two parts, and in pieces of random sizes."""
    place = chance.randrange(len(text) + 1)
    return [list(text), [text[:place], text[place:]], pieces_of(text, chance)]


def broken_ones(text: str, seed: int, count: int) -> list[str]:
    """The text, and broken forms of it that hold no tags and no halves of characters."""
    texts = [text, *mutations(text, seed, count)]
    return [one for one in texts if "<" not in one and one.isprintable() | ("\n" in one)]


def is_beginning(old, new) -> bool:
    """Whether one value grows into another: only its last part may be unfinished."""
    if type(old) is not type(new):
        return False
    if isinstance(old, str):
        return new.startswith(old)
    if isinstance(old, dict):
        keys = list(old)
        done = keys == list(new)[: len(keys)]
        return done and are_beginning([old[key] for key in keys], [new[key] for key in keys])
    if isinstance(old, list):
        if is_key_of_next(old, new):
            old = old[:-1]
        return len(old) <= len(new) and are_beginning(old, new)
    return repr(old) == repr(new)


def is_key_of_next(old: list, new: list) -> bool:
    """Whether the string at the end turned out to be a key, since a bracket is missing."""
    if not old or not isinstance(old[-1], str):
        return False
    return len(new) == len(old) - 1 or isinstance(new[len(old) - 1], dict)


def are_beginning(old, new) -> bool:
    same = all(repr(one) == repr(other) for one, other in zip(old[:-1], new, strict=False))
    return same and (not old or is_beginning(old[-1], new[len(old) - 1]))
