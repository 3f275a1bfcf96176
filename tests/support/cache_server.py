"""A loopback server with the prompt cache that Anthropic documents, on three wires.

Use it to see which breakpoints a request has, and what they read and write. What is written can be
read once the answer to the request that wrote it begins. A token is four bytes of text here, so that
a test can count by hand. It refuses, with the same status, what the real server refuses about
breakpoints and about requests without output.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from server import Exchange, serving

SECS = {"5m": 300, "1h": 3600}
MOST_MARKS = 4
LOOK_BACK = 20  # blocks before a mark, with its own
LEAST = {"claude-sonnet-4-5": 1024, "claude-haiku-4-5": 4096, "claude-opus-5-0": 512}
ANSWER = "yes!" * 5  # five tokens
ANSWER_TOKENS = 5
UNLIMITED = 1_000_000
OPENAI_LEAST, OPENAI_STEP = 1024, 128


class RefusalError(Exception):
    """A request that the real server answers with status 400."""


@dataclass
class Block:
    """One piece of a prompt, by which it is looked up; `digest` is that of all before it, too."""

    digest: str
    tokens: int
    ttl: str | None


@dataclass
class Counts:
    """The tokens of one request, by what the cache did with them."""

    uncached: int = 0
    read: int = 0
    for_5m: int = 0
    for_1h: int = 0
    output: int = 0

    @property
    def written(self) -> int:
        return self.for_5m + self.for_1h

    @property
    def prompt(self) -> int:
        return self.uncached + self.read + self.written


@dataclass
class CacheServer:
    """The server's state: a clock that a test moves, and what the cache holds until when."""

    url: str = ""
    now: float = 0
    ends: dict[str, float] = field(default_factory=dict)
    lifetimes: dict[str, str] = field(default_factory=dict)
    bodies: list[dict] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)
    at_once: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(1))

    def advance(self, secs: float) -> None:
        self.now += secs

    async def handle(self, exchange: Exchange) -> None:
        body = json.loads(exchange.body)
        self.bodies.append(body)
        wire = messages_wire if "/messages" in exchange.request_line else chat_wire
        try:
            await wire(self, exchange, body)
        except RefusalError as refusal:
            error = {"type": "invalid_request_error", "message": str(refusal)}
            text = json.dumps({"type": "error", "error": error}).encode()
            await exchange.answer(text, "400 Bad Request")

    async def ask(self, body: dict, model: str, limit: int) -> Counts:
        """Return what a request in Anthropic's shape reads and writes."""
        blocks = list(blocks_of(body, model))
        if body.get("cache_control") and not blocks[-1].ttl:
            blocks[-1].ttl = body["cache_control"].get("ttl", "5m")
        check_marks(blocks)
        hit = self._look_up(blocks)
        await self.at_once.wait()
        marks = self._written_marks(blocks, hit, LEAST.get(model, 1024))
        long = max((place for place in marks if blocks[place].ttl == "1h"), default=hit)
        last = max(marks, default=hit)
        counts = Counts(
            read=total(blocks, hit),
            for_1h=total(blocks, long) - total(blocks, hit),
            for_5m=total(blocks, last) - total(blocks, long),
            uncached=total(blocks, len(blocks) - 1) - total(blocks, last),
            output=min(limit, ANSWER_TOKENS),
        )
        self.counts.append(counts)
        return counts

    def ask_openai(self, body: dict, limit: int) -> Counts:
        """Return the counts where the cache is automatic: whole steps of the beginning of a prompt."""
        text = json.dumps([body.get("tools"), body["messages"]])
        whole = len(text) // 4
        steps = range(OPENAI_LEAST, whole + 1, OPENAI_STEP)
        before = json.dumps([body["model"], body.get("response_format")])
        digests = {step: digest_of(before + text[: step * 4]) for step in steps}
        read = max((step for step in steps if self._is_held(digests[step])), default=0)
        for digest in digests.values():
            self._hold(digest, "5m")
        counts = Counts(uncached=whole - read, read=read, output=min(limit, ANSWER_TOKENS))
        self.counts.append(counts)
        return counts

    def _look_up(self, blocks: list[Block]) -> int:
        """The last block of the longest prefix that is held, or -1; a hit refreshes it."""
        places = (
            place
            for end, block in enumerate(blocks)
            if block.ttl
            for place in range(max(0, end - LOOK_BACK + 1), end + 1)
            if self._is_held(blocks[place].digest)
        )
        hit = max(places, default=-1)
        for block in blocks[: hit + 1]:
            if self._is_held(block.digest):
                self._hold(block.digest, self.lifetimes[block.digest])
        return hit

    def _written_marks(self, blocks: list[Block], hit: int, least: int) -> list[int]:
        """The marks behind the hit which are long enough; they are held from now on."""
        marks = [
            place
            for place in range(hit + 1, len(blocks))
            if blocks[place].ttl and total(blocks, place) >= least
        ]
        for place in marks:
            self._hold(blocks[place].digest, blocks[place].ttl)
        return marks

    def _is_held(self, digest: str) -> bool:
        return self.ends.get(digest, -1) > self.now

    def _hold(self, digest: str, ttl: str) -> None:
        self.lifetimes[digest] = ttl
        self.ends[digest] = self.now + SECS[ttl]


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def total(blocks: list[Block], place: int) -> int:
    return sum(block.tokens for block in blocks[: place + 1])


def check_marks(blocks: list[Block]) -> None:
    ttls = [block.ttl for block in blocks if block.ttl]
    if len(ttls) > MOST_MARKS:
        raise RefusalError(f"a maximum of 4 blocks with cache_control; found {len(ttls)}")
    if ttls != sorted(ttls):  # "1h" sorts before "5m"
        raise RefusalError("a ttl='1h' cache_control block must not come after a ttl='5m' one")


def blocks_of(body: dict, model: str) -> Iterator[Block]:
    """Tools, then the system text, then the messages, as they are looked up and counted."""
    digest = model
    for section, raw in pieces_of(body):
        plain = {name: value for name, value in raw.items() if name != "cache_control"}
        digest = digest_of(digest + section + json.dumps(plain, sort_keys=True))
        mark = raw.get("cache_control")
        text = text_of(raw)
        if mark and not text:
            raise RefusalError("cache_control cannot be set for empty text blocks")
        yield Block(digest, -(-len(text.encode()) // 4), mark and mark.get("ttl", "5m"))


def pieces_of(body: dict) -> Iterator[tuple[str, dict]]:
    for tool in body.get("tools", ()):
        yield "tools", tool
    for block in as_blocks(body.get("system", ())):
        yield f"system at speed {body.get('speed')}", block
    # What touches how the messages are read makes other messages of them.
    keys = ("tool_choice", "thinking", "output_config", "speed")
    has_images = any(
        block["type"] == "image"
        for message in body["messages"]
        for block in as_blocks(message["content"])
    )
    reading = json.dumps([*map(body.get, keys), has_images])
    for message in body["messages"]:
        for block in as_blocks(message["content"]):
            yield reading + message["role"], block


def as_blocks(content: str | list[dict]) -> list[dict]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(block: dict) -> str:
    """The text by which a block counts; of a call or a tool its JSON."""
    if block.get("type") == "text":
        return block["text"]
    if block.get("type") == "tool_result":
        return "".join(part["text"] for part in as_blocks(block.get("content", ())))
    plain = {name: value for name, value in block.items() if name != "cache_control"}
    return json.dumps(plain)


# Anthropic's own wire.


async def messages_wire(server: CacheServer, exchange: Exchange, body: dict) -> None:
    check_messages(body["messages"], body["model"])
    check_limit(body)
    counts = await server.ask(body, body["model"], body["max_tokens"])
    if body.get("stream"):
        await stream_messages(exchange, body, counts)
        return
    answer = {**message_start(body, counts), "usage": messages_usage(counts)}
    answer["content"] = [{"type": "text", "text": said(counts)}] if counts.output else []
    answer["stop_reason"] = stop_reason(counts)
    await exchange.answer(json.dumps(answer).encode())


def check_limit(body: dict) -> None:
    if body["max_tokens"] > 0:
        return
    is_forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
    has_format = "format" in body.get("output_config", {})
    is_budgeted = body.get("thinking", {}).get("type") == "enabled"
    if body.get("stream") or is_forced or has_format or is_budgeted:
        raise RefusalError("max_tokens: 0 is not supported with this parameter")


def check_messages(messages: list[dict], model: str) -> None:
    """The results of calls stand in the very next message, and texts are not blank."""
    open_calls: list[str] = []
    for message in messages:
        blocks = as_blocks(message["content"])
        given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(given) != sorted(open_calls):
            raise RefusalError(
                "tool_use ids were found without tool_result blocks immediately after"
            )
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            raise RefusalError("text content blocks must contain non-whitespace text")
    if open_calls or (messages[-1]["role"] != "user" and not model.endswith("-4-5")):
        raise RefusalError("the conversation must end with a user message")


def message_start(body: dict, counts: Counts) -> dict:
    usage = {**messages_usage(counts), "output_tokens": min(counts.output, 1)}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": [], "stop_reason": None, "usage": usage}  # fmt: skip


def messages_usage(counts: Counts) -> dict:
    by_lifetime = {
        "ephemeral_5m_input_tokens": counts.for_5m,
        "ephemeral_1h_input_tokens": counts.for_1h,
    }
    return {
        "input_tokens": counts.uncached,
        "cache_read_input_tokens": counts.read,
        "cache_creation_input_tokens": counts.written,
        "cache_creation": by_lifetime,
        "output_tokens": counts.output,
    }


def said(counts: Counts) -> str:
    return ANSWER[: counts.output * 4]


def stop_reason(counts: Counts) -> str:
    return "end_turn" if counts.output == ANSWER_TOKENS else "max_tokens"


async def stream_messages(exchange: Exchange, body: dict, counts: Counts) -> None:
    delta = {"type": "text_delta", "text": said(counts)}
    events = [
        {"type": "message_start", "message": message_start(body, counts)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop_reason(counts)},
         "usage": {"output_tokens": counts.output}},
        {"type": "message_stop"},
    ]  # fmt: skip
    await exchange.start_events()
    for event in events:
        await exchange.chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    await exchange.end()


# The chat-completions wire: OpenAI's, and OpenRouter's with Claude behind it.


async def chat_wire(server: CacheServer, exchange: Exchange, body: dict) -> None:
    is_claude = body["model"].startswith("anthropic/")
    limit = body.get("max_completion_tokens", body.get("max_tokens", UNLIMITED))
    least = 16 if body["model"].startswith("openai/") else 1
    if limit < least:
        raise RefusalError(f"Invalid 'max_tokens': integer below minimum value {least}")
    if is_claude:
        model = body["model"].removeprefix("anthropic/").replace(".", "-")
        as_claude = as_messages_body(body)
        check_messages(as_claude["messages"], model)
        counts = await server.ask(as_claude, model, limit)
    else:
        counts = server.ask_openai(body, limit)
    await exchange.answer(json.dumps(chat_answer(body, counts)).encode())


def chat_answer(body: dict, counts: Counts) -> dict:
    reason = "stop" if counts.output == ANSWER_TOKENS else "length"
    message = {"role": "assistant", "content": said(counts)}
    details = {"cached_tokens": counts.read, "cache_write_tokens": counts.written}
    usage = {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.output,
        "total_tokens": counts.prompt + counts.output,
        "prompt_tokens_details": details,
    }
    if "/" in body["model"]:
        usage["cost"] = native_cost(counts)
    return {"id": "gen-1", "model": body["model"], "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}]}  # fmt: skip


def native_cost(counts: Counts) -> float:
    """USD at $3 in, $15 out, and the usual factors for the cache."""
    micro = 3 * counts.uncached + 15 * counts.output
    micro += 0.3 * counts.read + 3.75 * counts.for_5m + 6 * counts.for_1h
    return round(micro / 1_000_000, 10)


def as_messages_body(body: dict) -> dict:
    """A request as OpenRouter hands it on to Anthropic: system texts first, one turn for results."""
    system: list[dict] = []
    messages: list[dict] = []
    for message in body["messages"]:
        blocks = [block for block in as_blocks(message["content"] or "") if block["text"]]
        role = message["role"]
        if role == "system":
            system += blocks
            continue
        if role == "tool":
            marks = [block["cache_control"] for block in blocks if "cache_control" in block]
            plain = "".join(block["text"] for block in blocks)
            result = {"type": "tool_result", "tool_use_id": message["tool_call_id"]}
            blocks = [result | {"content": plain} | ({"cache_control": marks[-1]} if marks else {})]
        for call in message.get("tool_calls", ()):
            called = json.loads(call["function"]["arguments"])
            name = call["function"]["name"]
            blocks.append({"type": "tool_use", "id": call["id"], "name": name, "input": called})
        role = "user" if role == "tool" else role
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    return {"system": system, "messages": messages, "tools": body.get("tools", []),
            "tool_choice": body.get("tool_choice")}  # fmt: skip


@asynccontextmanager
async def caching() -> AsyncIterator[CacheServer]:
    """A server with an empty cache."""
    server = CacheServer()
    async with serving(server.handle) as (url, _):
        server.url = url
        yield server
