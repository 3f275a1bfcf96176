"""Records of token counts on their wires: whole in a body, or where each vendor's stream has them.

Use it to send a record of `bill_records`, or one of your own, as an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    GeneratorInfo,
    GenericProvider,
    OpenAiProvider,
    OpenRouterProvider,
    Provider,
    ResponsesProvider,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

Record = dict[str, Any]
Events = list[Record | str]

SAID = {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": None}]}
FINISHED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
SAID_AND_FINISHED = {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
REPEATED = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]}
ALONE: Record = {"choices": []}


class Wire(NamedTuple):
    """A vendor's way to say what a request consumed.

    `cut` gives the records of a stream from the one of a whole body, `events` the stream.
    """

    provider: Provider
    events: Callable[[Sequence[Record]], Events]
    cut: Callable[[Record], list[Record]] = lambda record: [record]

    @property
    def is_claude(self) -> bool:
        return isinstance(self.provider, AnthropicProvider)


def after_the_finish(records: Sequence[Record]) -> Events:
    return [SAID, FINISHED, *(ALONE | {"usage": record} for record in records), "[DONE]"]


def with_a_repeated_choice(records: Sequence[Record]) -> Events:
    return [SAID, FINISHED, *(REPEATED | {"usage": record} for record in records), "[DONE]"]


def with_the_finish(records: Sequence[Record]) -> Events:
    return [SAID, *(FINISHED | {"usage": record} for record in records), "[DONE]"]


def in_the_only_chunk(records: Sequence[Record]) -> Events:
    return [*(SAID_AND_FINISHED | {"usage": record} for record in records), "[DONE]"]


def on_every_chunk(records: Sequence[Record]) -> Events:
    *early, last = records
    texts = [SAID | {"usage": record} for record in early or [None]]
    return [*texts, FINISHED | {"usage": last}, ALONE | {"usage": last}, "[DONE]"]


def under_two_names(records: Sequence[Record]) -> Events:
    (record,) = records
    return [SAID, FINISHED | {"x_groq": {"usage": record}}, ALONE | {"usage": record}, "[DONE]"]


def inside_the_choice(records: Sequence[Record]) -> Events:
    (record,) = records
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": record}
    return [SAID, {"choices": [choice]}, "[DONE]"]


def claude_events(records: Sequence[Record]) -> Events:
    """The first record opens the message, the others follow the text; the last has the reason."""
    start, *later = records
    opened = {"id": "msg_1", "model": "m", "content": [], "usage": start}
    reasons = [None] * (len(later) - 1) + ["end_turn"]
    return [
        {"type": "message_start", "message": opened},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "ok"},
        },
        {"type": "content_block_stop", "index": 0},
        *(
            {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": record}
            for record, reason in zip(later, reasons, strict=True)
        ),
        {"type": "message_stop"},
    ]


MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "ok"}]}


def response_with(record: Record | None, **facts: Any) -> Record:
    """An answer of the Responses wire with this record, and other facts about its bill."""
    return {"id": "resp_1", "model": "m", "status": "completed", "service_tier": "default",
            "output": [MESSAGE], "usage": record, **facts}  # fmt: skip


def responses_events(records: Sequence[Record], **facts: Any) -> Events:
    (record,) = records
    start = response_with(None, status="in_progress", service_tier="auto", output=[])
    place = {"output_index": 0}
    return [
        {"type": "response.created", "response": start},
        {"type": "response.output_item.added", "item": {"type": "message"}, **place},
        {"type": "response.output_text.delta", "delta": "ok", "content_index": 0, **place},
        {"type": "response.output_item.done", "item": MESSAGE, **place},
        {"type": "response.completed", "response": response_with(record, **facts)},
    ]


# What Anthropic's first event tells; the lifetimes are in no other.
FIRST = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation")


def cut_like_claude(record: Record) -> list[Record]:
    start = {name: record[name] for name in FIRST if name in record}
    return [
        start | {"output_tokens": 1 if record.get("output_tokens") else 0},
        {name: value for name, value in record.items() if name != "cache_creation"},
    ]


def cut_like_llama(record: Record) -> list[Record]:
    end = {name: value for name, value in record.items() if name == "output_tokens"}
    return [record | {"output_tokens": 0}, end]


WIRES = {
    "anthropic": Wire(AnthropicProvider(), claude_events, cut_like_claude),
    "llama.cpp as anthropic": Wire(AnthropicProvider(), claude_events, cut_like_llama),
    "openai": Wire(OpenAiProvider(), after_the_finish),
    "responses": Wire(ResponsesProvider(), responses_events),
    "openrouter": Wire(OpenRouterProvider(), with_a_repeated_choice),
    "deepseek": Wire(GenericProvider(), with_the_finish),
    "xai": Wire(GenericProvider(), after_the_finish),
    "gemini": Wire(GenericProvider(), on_every_chunk),
    "vllm": Wire(GenericProvider(), on_every_chunk),
    "llama.cpp": Wire(GenericProvider(), with_the_finish),
    "groq": Wire(GenericProvider(), under_two_names),
    "moonshot": Wire(GenericProvider(), inside_the_choice),
    "mistral": Wire(GenericProvider(), in_the_only_chunk),
}


def body_of(wire: Wire, record: Record) -> Record:
    if wire.is_claude:
        said = {"type": "text", "text": "ok"}
        return {"id": "msg_1", "model": "m", "content": [said], "stop_reason": "end_turn",
                "usage": record}  # fmt: skip
    if isinstance(wire.provider, ResponsesProvider):
        return response_with(record)
    choice = {"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}
    return {"id": "1", "model": "m", "choices": [choice], "usage": record}


def stream_of(events: Events) -> ScriptedReply:
    encoded = (
        event.encode() if isinstance(event, str) else msgspec.json.encode(event) for event in events
    )
    return ScriptedReply.events(b"".join(b"data: %s\n\n" % event for event in encoded))


def generator_of(wire: str, price: TokenPrice | None, *replies: ScriptedReply) -> GeneratorInfo:
    """A generator on a wire, with or without a price, that is answered by script."""
    generator = GeneratorInfo.custom("vendor", "https://vendor.example/v1", "m")
    generator = generator.replace(provider=WIRES[wire].provider, token_price=price)
    return generator.with_transport(ScriptedTransport(replies))


def whole(wire: str, record: Record, price: TokenPrice | None = None) -> ChatNode:
    """The node of an answer that came in one piece with this record."""
    reply = ScriptedReply.json(body_of(WIRES[wire], record))
    return minillmlib.run(ChatNode.root("Be brief.").chat("Hi", generator_of(wire, price, reply)))


def read_stream(generator: GeneratorInfo) -> ChatNode:
    """The node of an answer that was read chunk by chunk."""
    stream = ChatNode.root("Be brief.").chat_streaming("Hi", generator)
    for _ in minillmlib.iterate(stream):
        pass
    return stream.node


def streamed(wire: str, records: Sequence[Record], price: TokenPrice | None = None) -> ChatNode:
    """The node of an answer that came as a stream with these records."""
    reply = stream_of(WIRES[wire].events(records))
    return read_stream(generator_of(wire, price, reply))
