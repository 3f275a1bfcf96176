"""A provider that keeps the true bill of every request, whatever its answer says.

Use it with a `ThreadedServer` to compare every recorded cost with the truth. A play decides whether
an answer has all its counts, a part, none or nonsense. The books alone have what was consumed and
what that costs, added up in whole numbers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from answer_pieces import begun, chunk
from bill_records import cached, chat, claude, thought
from bill_wires import WIRES, Events, Record, body_of, on_every_chunk
from server import Exchange
from threaded_server import HANG_UP, Pieces

from minillmlib import TokenPrice, Usage

TEXTS = {"prose": "ok", "json": '{"a":1}', "empty": ""}

# What a contract asks, in hundred-millionths of a dollar for a token: of input, read from a
# cache, written to it, written for an hour, output. And what of it the customer has written down.
CONTRACTS: dict[str, tuple[tuple[int, int, int, int, int], TokenPrice | None]] = {
    "all rates": ((300, 30, 375, 600, 1500), TokenPrice(3, 15).with_cache_rates(0.3, 3.75, 6)),
    "two rates": ((300, 300, 300, 600, 1500), TokenPrice(3, 15)),
    "no price": ((300, 30, 375, 600, 1500), None),
}


class Line(NamedTuple):
    """One request in the books: what it consumed, what it costs, and how it was answered."""

    call: int
    wire: str
    contract: str
    text: str
    play: Play
    usage: Usage
    usd: Decimal
    id: str
    is_stream: bool
    is_kept: bool
    """Whether its cost can be asked for later."""

    @property
    def owed(self) -> Decimal:
        """The true bill."""
        return self.usd if self.play.is_billed else Decimal(0)

    @property
    def has_price(self) -> bool:
        """Whether the counts are enough to know the bill."""
        if self.wire == "openrouter":
            return True
        price = CONTRACTS[self.contract][1]
        is_covered = not self.usage.cache_write_1h_tokens or self.contract == "all rates"
        return price is not None and is_covered

    @property
    def tells_all(self) -> bool:
        """Whether a client that reads the answer to its end knows the counts."""
        return self.play.tells_streamed if self.is_stream else self.play.tells_whole


class Play(NamedTuple):
    """How a request is answered. `tells_...`: whether it has the final counts, and they are sound."""

    answer: Callable[[Line], Pieces]
    tells_whole: bool = False
    tells_streamed: bool = False
    is_billed: bool = True
    is_silent: bool = False


class Plan(NamedTuple):
    """The plays of the first requests of a call, after which all is well."""

    wire: str
    contract: str
    text: str
    plays: tuple[str, ...]
    seed: str


class MoneyProvider:
    """Answers the requests of a `ThreadedServer`, and keeps the books."""

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self.lines: dict[int, list[Line]] = {}
        self.asked_later: set[str] = set()
        self._by_id: dict[str, Line] = {}

    def expect(self, call: int, plan: Plan) -> None:
        """Expect a call, whose requests have its number in their text."""
        self.plans[call], self.lines[call] = plan, []

    def answer(self, request: Exchange) -> Pieces:
        """Record the request, and return the answer that its call plans."""
        if request.method == "GET":
            return self._asked_later(request.path)
        call = int(re.findall(rb"call (\d+)\b", request.body)[-1])
        line = _line(call, self.plans[call], len(self.lines[call]), request.body)
        self._by_id[line.id] = line
        self.lines[call].append(line)
        return line.play.answer(line)

    def _asked_later(self, path: str) -> Pieces:
        line = self._by_id[re.search(r"id=([\w-]+)", path)[1]]
        self.asked_later.add(line.id)
        if not line.is_kept:
            return reply(b"{}", "404 Not Found")
        usage = line.usage
        record = {
            "total_cost": float(line.owed),
            "native_tokens_prompt": usage.prompt_tokens,
            "native_tokens_completion": usage.completion_tokens,
            "native_tokens_reasoning": usage.reasoning_tokens,
            "native_tokens_cached": usage.cache_read_tokens,
        }
        return reply(msgspec.json.encode({"data": record}))


def _line(call: int, plan: Plan, number: int, body: bytes) -> Line:
    rng = random.Random(f"{plan.seed}.{number}")
    usage = _consumed(rng, plan.wire)
    rates = CONTRACTS[plan.contract][0]
    buckets = (
        usage.uncached_input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens - usage.cache_write_1h_tokens,
        usage.cache_write_1h_tokens,
        usage.completion_tokens,
    )
    amount = sum(count * rate for count, rate in zip(buckets, rates, strict=True))
    if plan.wire == "openrouter":
        amount = rng.randint(1, 10**8)
    name = plan.plays[number] if number < len(plan.plays) else "good"
    return Line(
        call=call,
        wire=plan.wire,
        contract=plan.contract,
        text=TEXTS[plan.text],
        play=PLAYS[name],
        usage=usage,
        usd=Decimal(amount).scaleb(-8),
        id=f"gen-{call}-{number}",
        is_stream=b'"stream":true' in body,
        is_kept=plan.wire == "openrouter" and rng.random() < 0.5,
    )


def _consumed(rng: random.Random, wire: str) -> Usage:
    """Counts of which no two are alike."""
    written = rng.choice((0, rng.randint(1, 9999)))
    output = rng.randint(2, 9999)
    return Usage(
        uncached_input_tokens=rng.randint(1, 99_999),
        cache_read_tokens=rng.choice((0, rng.randint(1, 99_999))),
        # OpenRouter's record of a past request does not tell what was written to a cache.
        cache_write_tokens=0 if wire == "openrouter" else written,
        cache_write_1h_tokens=rng.choice((0, written)) if wire == "anthropic" else 0,
        completion_tokens=output,
        reasoning_tokens=rng.randint(0, output),
    )


# What the wires say.


def record_of(line: Line) -> Record:
    """The record of counts as the vendor sends it."""
    usage = line.usage
    if line.wire == "anthropic":
        for_5m = usage.cache_write_tokens - usage.cache_write_1h_tokens
        return claude(
            usage.uncached_input_tokens, usage.completion_tokens, usage.cache_read_tokens, for_5m,
            usage.cache_write_1h_tokens,
            output_tokens_details={"thinking_tokens": usage.reasoning_tokens},
        )  # fmt: skip
    record = chat(
        usage.prompt_tokens, usage.completion_tokens, usage.total_tokens,
        prompt_tokens_details=cached(usage.cache_read_tokens, usage.cache_write_tokens),
        completion_tokens_details=thought(usage.reasoning_tokens),
    )  # fmt: skip
    return record | ({"cost": float(line.usd)} if line.wire == "openrouter" else {})


def nonsense_of(line: Line) -> Record:
    """A record that contradicts itself: more was read from the cache, or thought, than there is."""
    record = record_of(line)
    if line.wire == "anthropic":
        return record | {"output_tokens_details": {"thinking_tokens": record["output_tokens"] + 1}}
    return record | {"prompt_tokens_details": cached(record["prompt_tokens"] + 1)}


def part_of(line: Line) -> Record:
    """The record as it was when half of the output was written."""
    record, half = record_of(line), line.usage.completion_tokens // 2
    if line.wire == "anthropic":
        return record | {"output_tokens": half, "output_tokens_details": {"thinking_tokens": 0}}
    part = {"completion_tokens": half, "total_tokens": line.usage.prompt_tokens + half,
            "completion_tokens_details": thought(0)}  # fmt: skip
    return record | part


def reply(body: bytes, status: str = "200 OK", *headers: str) -> Pieces:
    """A whole answer in two pieces."""
    lines = (f"HTTP/1.1 {status}", "Content-Type: application/json", *headers)
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode()
    return (head + body[:20], body[20:])


def _named(line: Line, data: bytes) -> bytes:
    """Put the id and the text of this answer into the bytes of a wire."""
    text = msgspec.json.encode(line.text)
    return data.replace(b'"ok"', text).replace(b'"msg_1"', b'"%b"' % line.id.encode())


def _whole(line: Line, record: Record | None) -> Pieces:
    body: dict[str, Any] = body_of(WIRES[line.wire], record or {})
    body["id"] = line.id
    if record is None:
        del body["usage"]
    return reply(_named(line, msgspec.json.encode(body)))


def _streamed(line: Line, events: Events) -> Pieces:
    """The head, a piece for each event, and the end of the body."""
    encoded = []
    for event in events:
        if isinstance(event, str):
            encoded.append(event.encode())
        else:
            named = event if line.wire == "anthropic" else {"id": line.id} | event
            encoded.append(_named(line, msgspec.json.encode(named)))
    return (*begun(), *(chunk(b"data: %b\n\n" % event) for event in encoded), b"0\r\n\r\n")


def _told(line: Line, record: Record) -> Pieces:
    if not line.is_stream:
        return _whole(line, record)
    wire = WIRES[line.wire]
    return _streamed(line, wire.events(wire.cut(record)))


# The plays.


def good(line: Line) -> Pieces:
    """All is well."""
    return _told(line, record_of(line))


def growing(line: Line) -> Pieces:
    """Counts on every chunk, each record the whole so far."""
    if not line.is_stream or line.wire == "anthropic":
        return good(line)
    return _streamed(line, on_every_chunk([part_of(line), record_of(line)]))


def uncounted(line: Line) -> Pieces:
    """An answer without a record of counts."""
    if not line.is_stream:
        return _whole(line, None)
    wire = WIRES[line.wire]
    events = wire.events(wire.cut(record_of(line)))
    return _streamed(line, [_without_usage(event) for event in events])


def _without_usage(event: Record | str) -> Record | str:
    if isinstance(event, str):
        return event
    bare = {name: part for name, part in event.items() if name != "usage"}
    return bare | ({"message": _without_usage(bare["message"])} if "message" in bare else {})


def contradictory(line: Line) -> Pieces:
    """Counts that cannot be."""
    return _told(line, nonsense_of(line))


def broken_at_last(line: Line) -> Pieces:
    """Sound counts, and then a last record that is not."""
    if not line.is_stream:
        return contradictory(line)
    first = WIRES[line.wire].cut(record_of(line))[0]
    count = "output_tokens" if line.wire == "anthropic" else "completion_tokens"
    return _streamed(line, WIRES[line.wire].events([first, {**record_of(line), count: -1}])
                     if line.wire == "anthropic"
                     else on_every_chunk([part_of(line), {**record_of(line), count: -1}]))  # fmt: skip


def refused(status: str) -> Play:
    """The server says no before it does any work."""
    body = b'{"error":{"message":"no","type":"none"}}'
    return Play(
        lambda _: reply(body, status, "Location: https://elsewhere.example"), is_billed=False
    )


def worked(status: str) -> Play:
    """The server says no after it has worked."""
    return Play(lambda _: reply(b'{"error":{"message":"broke"}}', status))


def hung_up(_line: Line) -> Pieces:
    """The connection ends before an answer."""
    return (HANG_UP,)


def cut(at: int) -> Callable[[Line], Pieces]:
    """The connection breaks after so many pieces: the head is one, each event another."""
    return lambda line: (*good(line)[:at], HANG_UP)


def cut_growing(line: Line) -> Pieces:
    """The connection breaks when half of the counts is out."""
    return (*growing(line)[:2], HANG_UP) if line.is_stream else cut(1)(line)


def cut_late(line: Line) -> Pieces:
    """The connection breaks when all is out but the end."""
    return (*good(line)[:-2], HANG_UP) if line.is_stream else good(line)


def silent(at: int) -> Callable[[Line], Pieces]:
    """Nothing more comes after so many pieces, and the connection stays."""
    return lambda line: good(line)[:at]


def unfinished(line: Line) -> Pieces:
    """The answer ends as HTTP wants it, but in the middle of what it says."""
    if line.is_stream:
        return (*good(line)[:2], b"0\r\n\r\n")
    return reply(b'{"id":"%b","choices":[{"mess' % line.id.encode())


def failing(line: Line) -> Pieces:
    """An error after the answer has begun, with the status of a success."""
    error: Record = {"error": {"message": "broke", "type": "overloaded_error"}}
    if not line.is_stream:
        return reply(msgspec.json.encode(error))
    failure: Record = {"type": "error"} | error
    return (*good(line)[:2], *_streamed(line, [failure])[1:])


def unreadable(line: Line) -> Pieces:
    """Counts beside an answer that nobody can read, in one piece also if a stream was asked for."""
    body = {"type": "message", "choices": "?", "content": 7, "usage": record_of(line)}
    return reply(msgspec.json.encode(body))


REFUSALS = ("400 Bad", "404 None", "413 Large", "422 Wrong", "429 Slowly", "302 Elsewhere",
            "503 Busy", "529 Overloaded")  # fmt: skip
PLAYS: dict[str, Play] = {
    "good": Play(good, tells_whole=True, tells_streamed=True),
    "growing": Play(growing, tells_whole=True, tells_streamed=True),
    "unreadable": Play(unreadable, tells_whole=True, tells_streamed=True),
    "cut late": Play(cut_late, tells_whole=True, tells_streamed=True),
    "uncounted": Play(uncounted),
    "contradictory": Play(contradictory),
    "broken at last": Play(broken_at_last),
    "hung up": Play(hung_up),
    "cut at the head": Play(cut(1)),
    "cut early": Play(lambda line: cut(2 if line.is_stream else 1)(line)),
    "cut before the counts": Play(lambda line: cut(3 if line.is_stream else 1)(line)),
    "cut while growing": Play(cut_growing),
    "unfinished": Play(unfinished),
    "failing": Play(failing),
    "silent": Play(silent(0), is_silent=True),
    "silent in the middle": Play(lambda line: silent(2 if line.is_stream else 1)(line),
                                 is_silent=True),
    **{status: refused(status) for status in REFUSALS},
    **{status: worked(status) for status in ("408 Late", "500 Broke", "504 Late")},
}  # fmt: skip
SILENT: Sequence[str] = [name for name, play in PLAYS.items() if play.is_silent]
