"""Answers of both wires, made up by hypothesis and rendered twice: whole, and as a stream.

Use it for properties that hold of every answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import chain, pairwise
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from minillmlib import ToolCall
from minillmlib.testing import ScriptedReply

RANDOMS = st.randoms(use_true_random=True)  # seeded by hypothesis
TEXTS = st.text(max_size=12)
VISIBLE = TEXTS.map(lambda text: f"{text}.")
NAMES = st.text("aZ09_-", min_size=1, max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=2)
COUNTS = st.integers(0, 9999)


def parted(rng: Random, whole: Any) -> list[Any]:
    """A text or bytes in pieces, of which some may be empty."""
    cuts = sorted(rng.randint(0, len(whole)) for _ in range(rng.randint(0, 3)))
    return [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]


def compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def as_events(rng: Random, events: list[dict[str, Any] | str]) -> ScriptedReply:
    """A stream that keeps itself alive now and then, in pieces that the network chose."""
    end = rng.choice(["\n", "\r\n", "\r"])
    lines = []
    for event in events:
        if rng.random() < 0.1:
            lines.append(f": OPENROUTER PROCESSING{end}{end}")
        if isinstance(event, dict) and "type" in event and rng.random() < 0.5:
            lines.append(f"event: {event['type']}{end}")
        data = event if isinstance(event, str) else compact(event)
        lines.append(f"data: {data}{end}{end}")
    pieces = parted(rng, "".join(lines).encode())
    return ScriptedReply.events(*(part for piece in pieces for part in parted(rng, piece)))


def merged(rng: Random, *channels: list[Any]) -> Iterator[Any]:
    """Mix what the channels hold; each keeps its order."""
    waiting = [list(channel) for channel in channels if channel]
    while waiting:
        channel = rng.choice(waiting)
        yield channel.pop(0)
        waiting = [channel for channel in waiting if channel]


# Anthropic's wire.

GROWN = {
    "text": {"text": "text_delta"},
    "thinking": {"thinking": "thinking_delta", "signature": "signature_delta"},
    "tool_use": {"input": "input_json_delta"},
    "server_tool_use": {"input": "input_json_delta"},
    "compaction": {"content": "compaction_delta"},
}


def block(kind: str, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """A block of our own making, whose keys have the order in which we send them."""
    values = st.tuples(*fields.values())
    return values.map(lambda drawn: {"type": kind, **dict(zip(fields, drawn, strict=True))})


def sealed(kind: str, **fields: st.SearchStrategy) -> st.SearchStrategy:
    """A block that is not ours, with its keys in any order."""
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


MODELS = st.fixed_dictionaries({"model": NAMES})
FOUND = st.fixed_dictionaries({"type": st.just("web_search_result"), "encrypted_content": TEXTS})
SEALED = st.one_of(
    sealed("thinking", thinking=TEXTS, signature=TEXTS),
    sealed("redacted_thinking", data=TEXTS),
    sealed("server_tool_use", id=NAMES, name=NAMES, input=OBJECTS),
    sealed("web_search_tool_result", tool_use_id=NAMES, content=st.lists(FOUND, max_size=2)),
    sealed("compaction", content=TEXTS),
    sealed("fallback", **{"from": MODELS, "to": MODELS}),
    sealed("not_yet_invented", anything=VALUES),
)
TOOL_USES = block("tool_use", id=st.just(""), name=NAMES, input=OBJECTS)
TEXT_BLOCKS = block("text", text=TEXTS)


def numbered(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks, in which each call has an id of its own."""
    return [
        made | ({"id": f"toolu_{place}"} if made["type"] == "tool_use" else {})
        for place, made in enumerate(blocks)
    ]


BLOCKS = st.lists(TEXT_BLOCKS | TOOL_USES | SEALED, max_size=7).map(numbered)
# Sealed blocks before, between and after what is said and called, as models put them.
OPEN_STRETCHES = st.tuples(
    st.lists(block("text", text=VISIBLE), max_size=1), st.lists(TOOL_USES, max_size=2)
).map(lambda kinds: [*kinds[0], *kinds[1]])
STRETCHES = st.tuples(st.lists(SEALED, min_size=1, max_size=2), OPEN_STRETCHES)
INTERLEAVED = (
    st.tuples(OPEN_STRETCHES, st.lists(STRETCHES.map(lambda two: two[0] + two[1]), max_size=3))
    .map(lambda drawn: numbered([*drawn[0], *(made for stretch in drawn[1] for made in stretch)]))
    .filter(bool)
)
DONE = st.sampled_from(
    ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn",
     "model_context_window_exceeded", "not_yet_invented"]
).map(lambda reason: {"stop_reason": reason, "stop_sequence": None})  # fmt: skip
REFUSED = st.fixed_dictionaries({
    "stop_reason": st.just("refusal"),
    "stop_details": st.none() | st.fixed_dictionaries(
        {"type": st.just("refusal"), "category": st.none() | NAMES,
         "explanation": st.none() | VISIBLE}),
})  # fmt: skip
CLAUDE_COUNTS = st.fixed_dictionaries(
    {
        "input_tokens": COUNTS,
        "cache_read_input_tokens": st.none() | COUNTS,
        "cache_creation_input_tokens": st.none() | COUNTS,
        "output_tokens": COUNTS,
    },
    optional={"output_tokens_details": st.fixed_dictionaries({"thinking_tokens": COUNTS})},
).map(lambda usage: usage | thoughts_within(usage))


def thoughts_within(usage: dict[str, Any]) -> dict[str, Any]:
    """The details of the output: what was thought is a part of what was written."""
    if "output_tokens_details" not in usage:
        return {}
    thought = usage["output_tokens_details"]["thinking_tokens"]
    return {"output_tokens_details": {"thinking_tokens": min(thought, usage["output_tokens"])}}


@st.composite
def claude_bodies(
    draw, blocks: st.SearchStrategy = BLOCKS, ends: st.SearchStrategy = DONE | REFUSED
) -> dict[str, Any]:
    """A whole answer of Claude's."""
    usage = draw(st.none() | CLAUDE_COUNTS)
    body = {"id": draw(NAMES), "type": "message", "role": "assistant", "model": draw(NAMES),
            "content": draw(blocks), **draw(ends)}  # fmt: skip
    return body if usage is None else body | {"usage": usage}


def claude_stream(rng: Random, body: dict[str, Any]) -> ScriptedReply:
    """Stream the answer: blocks begin empty and grow."""
    events: list[dict[str, Any]] = [{"type": "message_start", "message": first_of(rng, body)}]
    for index, whole in enumerate(body["content"]):
        events += block_events(rng, whole, index)
    end = {name: body[name] for name in body if name.startswith("stop")}
    events.append({"type": "message_delta", "delta": end} | last_counts(rng, body))
    events.append({"type": "message_stop"})
    odd = [{"type": "ping"}, {"type": "not_yet_invented"}]
    for place in sorted(rng.sample(range(1, len(events)), rng.randint(0, 2)), reverse=True):
        events.insert(place, rng.choice(odd))
    return as_events(rng, events)


def block_events(rng: Random, whole: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
    grown = GROWN.get(whole["type"], {})
    empty = {name: type(whole[name])() for name in grown}
    yield {"type": "content_block_start", "index": index, "content_block": whole | empty}
    for name, kind in grown.items():
        key, written = name, whole[name]
        if name == "input":
            key, written = "partial_json", written_input(rng, whole)
        for piece in parted(rng, written):
            delta = {"type": kind, key: piece}
            yield {"type": "content_block_delta", "index": index, "delta": delta}
    if rng.random() < 0.2:
        odd = {"type": "not_yet_invented", "text": "x", "thinking": "y"}
        yield {"type": "content_block_delta", "index": index, "delta": odd}
    yield {"type": "content_block_stop", "index": index}


def written_input(rng: Random, whole: dict[str, Any]) -> str:
    """The input as it is streamed: that of our own tools is compared as a text."""
    if not whole["input"] and rng.random() < 0.5:
        return ""
    return compact(whole["input"]) if whole["type"] == "tool_use" else json.dumps(whole["input"])


def first_of(rng: Random, body: dict[str, Any]) -> dict[str, Any]:
    """The message as it begins: no content yet, and hardly any output counted."""
    start = body | {"content": [], "stop_reason": None}
    if "usage" in body:
        counts = {name: count for name, count in body["usage"].items() if "details" not in name}
        few = min(counts["output_tokens"], rng.randint(0, 8))
        start["usage"] = counts | {"output_tokens": few}
    return start


def last_counts(rng: Random, body: dict[str, Any]) -> dict[str, Any]:
    """The counts at the end; any of those of the input may be left out, since they came before."""
    counts = dict(body.get("usage", {}))
    for name in [name for name in counts if "input" in name]:
        match rng.randrange(3):
            case 0:
                del counts[name]
            case 1:
                counts[name] = None
    return {"usage": counts} if counts else {}


def calls_in(blocks: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(id=made["id"], name=made["name"], arguments=compact(made["input"]))
        for made in blocks
        if made["type"] == "tool_use"
    )


def text_in(blocks: list[dict[str, Any]]) -> str:
    return "".join(made["text"] for made in blocks if made["type"] == "text")


# The chat-completions wire.

FINISHES = st.sampled_from(
    ["stop", "length", "tool_calls", "function_call", "content_filter", "eos", "not_yet_invented"]
)
DETAILS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("reasoning.text"), "text": TEXTS}, optional={"signature": VISIBLE}
    ),
    st.fixed_dictionaries({"type": st.just("reasoning.summary"), "summary": TEXTS}),
    st.fixed_dictionaries({"type": st.just("reasoning.encrypted"), "data": TEXTS}),
)
CALLS = st.lists(
    st.builds(ToolCall, id=NAMES, name=NAMES, arguments=OBJECTS.map(json.dumps)),
    max_size=3,
    unique_by=lambda call: call.id,
)
TOKENS = {
    "token": TEXTS,
    "logprob": st.floats(-99, 0) | st.integers(-99, 0),
    "bytes": st.none() | st.binary(max_size=3).map(list),
}
LOGPROBS = st.fixed_dictionaries(
    TOKENS | {"top_logprobs": st.lists(st.fixed_dictionaries(TOKENS), max_size=2)}
)
SOUNDS = st.binary(max_size=9).map(lambda data: b"\0" + data)  # bare samples
PNG = "data:image/png;base64,iVBORw0KGgo="


@st.composite
def numbered_details(draw) -> list[dict[str, Any]]:
    """Blocks of reasoning; those of different types may share a number."""
    details: list[dict[str, Any]] = []
    for made in draw(st.lists(DETAILS, max_size=4)):
        index = details[-1]["index"] if details else 0
        shares = bool(details) and details[-1]["type"] != made["type"] and draw(st.booleans())
        rest = {"format": "anthropic-claude-v1", "id": None}
        details.append(made | rest | {"index": index if shares or not details else index + 1})
    return details


@st.composite
def chat_usages(draw) -> dict[str, Any]:
    uncached, read, written, output, thought = (draw(COUNTS) for _ in range(5))
    prompt = uncached + read + written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thought},
        "cost": draw(st.sampled_from([0, 0.0162, 6.3e-05])),
        "is_byok": False,
    }


class ChatAnswer(msgspec.Struct):
    """An answer of a model of this wire; `thinks_in` is the field that its server uses for reasoning."""

    id: str
    model: str
    text: str
    refusal: str | None
    thinks_in: str
    thought: str
    details: list[dict[str, Any]]
    calls: list[ToolCall]
    images: int
    sound: bytes | None
    finish: str | None
    native: str | None
    usage: dict[str, Any] | None
    logprobs: list[dict[str, Any]]


@st.composite
def chat_answers(draw) -> ChatAnswer:
    text, usage = draw(TEXTS), draw(st.none() | chat_usages())
    # An end without a reason is one only after text, and then no counts are the last.
    has_finish = not text or usage is not None or draw(st.booleans())
    thinks_in = draw(st.sampled_from(["reasoning_content", "reasoning", "details", "content"]))
    details = draw(numbered_details()) if thinks_in == "details" else []
    thought = "".join(made.get("text", "") + made.get("summary", "") for made in details)
    return ChatAnswer(
        id=draw(NAMES),
        model=draw(NAMES),
        text=text,
        refusal=draw(st.none() | VISIBLE),
        thinks_in=thinks_in,
        thought=thought if thinks_in == "details" else draw(TEXTS),
        details=details,
        calls=draw(CALLS),
        images=draw(st.integers(0, 2)),
        sound=None if thinks_in == "content" else draw(st.none() | SOUNDS),
        finish=draw(FINISHES) if has_finish else None,
        native=draw(st.none() | NAMES) if has_finish else None,
        usage=usage,
        logprobs=draw(st.just([]) | st.lists(LOGPROBS, max_size=4)),
    )


def image_body() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": PNG}}


def sound_body(data: bytes, text: str) -> dict[str, Any]:
    return {"data": base64.b64encode(data).decode(), "transcript": text}


def content_body(answer: ChatAnswer, text: str, thought: str) -> dict[str, Any]:
    """Text and thought, as the one server has them and as the other."""
    match answer.thinks_in:
        case "content":  # Mistral's
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": thought}]}
            pieces = [thinking] if thought else []
            return {"content": [*pieces, {"type": "text", "text": text}]}
        case "details":
            return {"content": text}
    return {"content": text, answer.thinks_in: thought}


def logprobs_body(tokens: list[dict[str, Any]]) -> dict[str, Any]:
    return {"logprobs": {"content": tokens, "refusal": None} if tokens else None}


def chat_body(answer: ChatAnswer) -> dict[str, Any]:
    message = {"role": "assistant", "refusal": answer.refusal}
    message |= content_body(answer, answer.text, answer.thought)
    if answer.sound is not None:  # what is spoken is not written
        message |= {"content": None, "audio": sound_body(answer.sound, answer.text)}
    if answer.details:
        message |= {"reasoning_details": answer.details, "reasoning": answer.thought}
    if answer.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.calls
        ]  # fmt: skip
    if answer.images:
        message["images"] = [image_body() for _ in range(answer.images)]
    choice = {"index": 0, "message": message, "finish_reason": answer.finish}
    choice |= {"native_finish_reason": answer.native} | logprobs_body(answer.logprobs)
    return {"id": answer.id, "model": answer.model, "choices": [choice], "usage": answer.usage}


def chat_stream(rng: Random, answer: ChatAnswer) -> ScriptedReply:
    """Stream the answer: what a server mixes comes mixed."""
    if answer.sound is None:
        texts = [content_body(answer, piece, "") for piece in parted(rng, answer.text)]
    else:
        sounds = [sound_body(piece, "") for piece in parted(rng, answer.sound)]
        texts = [{"audio": sound} for sound in sounds]
        texts += [{"audio": {"transcript": piece}} for piece in parted(rng, answer.text)]
        texts.append({"audio": {"expires_at": 1}})
    thoughts = [content_body(answer, "", piece) for piece in parted(rng, answer.thought)]
    if answer.thinks_in == "details":
        thoughts = [piece for made in answer.details for piece in detail_deltas(rng, made)]
    refusals = [{"refusal": piece} for piece in parted(rng, answer.refusal or "")]
    images = [{"images": [image_body()]} for _ in range(answer.images)]
    deltas = [{"role": "assistant", "content": ""}]
    deltas += merged(rng, texts, thoughts, refusals, call_deltas(rng, answer.calls), images)
    return as_events(rng, [*chunks_of(rng, answer, deltas)])


def chunks_of(
    rng: Random, answer: ChatAnswer, deltas: list[dict[str, Any]]
) -> Iterator[dict[str, Any] | str]:
    """The deltas in their chunks, with the reason and the counts in one of the usual places."""
    head = {"id": answer.id, "model": answer.model, "object": "chat.completion.chunk"}
    end = {"finish_reason": answer.finish, "native_finish_reason": answer.native}
    last = deltas.pop() if rng.random() < 0.3 else {}
    *pieces, rest = parted(rng, answer.logprobs)
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        choice |= logprobs_body(pieces.pop(0) if pieces else [])
        yield head | {"choices": [choice], "usage": None}
    usage_beside = rng.choice([True, False])
    final = {"index": 0, "delta": last} | end | logprobs_body([*chain(*pieces), *rest])
    yield head | {"choices": [final], "usage": answer.usage if usage_beside else None}
    if not usage_beside and answer.usage is not None:
        again = rng.choice([[], [{"index": 0, "delta": {"content": ""}} | end]])
        yield head | {"choices": again, "usage": answer.usage}
    if answer.finish is None or rng.random() < 0.8:
        yield "[DONE]"


def detail_deltas(rng: Random, made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A block of reasoning in pieces; a signature comes last, beside an empty text."""
    (name,) = made.keys() & {"text", "summary", "data"}
    rest = {key: made[key] for key in made if key not in (name, "signature")}
    for piece in parted(rng, made[name]):
        shown = piece if name != "data" else ""
        yield {"reasoning_details": [rest | {name: piece}], "reasoning": shown, "content": ""}
    if "signature" in made:
        signed = rest | {name: "", "signature": made["signature"]}
        yield {"reasoning_details": [signed], "reasoning": None, "content": ""}


def call_deltas(rng: Random, calls: list[ToolCall]) -> list[dict[str, Any]]:
    """Each call begins after the one before it, and their arguments come mixed."""
    deltas: list[dict[str, Any]] = []
    waiting: list[tuple[int, list[str]]] = []
    for index, call in enumerate(calls):
        first, *rest = [*rng.choice([[], [""]]), *parted(rng, call.arguments)]
        function = {"name": call.name, "arguments": first}
        deltas.append({"index": index, "id": call.id, "type": "function", "function": function})
        waiting.append((index, rest))
        while any(pieces for _, pieces in waiting):
            if index < len(calls) - 1 and rng.random() < 0.3:
                break
            place, pieces = rng.choice([entry for entry in waiting if entry[1]])
            deltas.append({"index": place, "function": {"arguments": pieces.pop(0)}})
    return [{"tool_calls": [delta]} for delta in deltas]
