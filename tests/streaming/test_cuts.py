"""An answer that is cut anywhere, in any way, is never taken for a whole one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import msgspec
import pytest
from fuzz_inputs import FACTOR, SEED, event_ends, pieces_of
from golden_expected import ANSWERS, BROKEN_STREAMS, FAILURES, expected_of
from server import Exchange, serving

from golden import GOLDEN, LONG_STREAMS, golden_generator
from minillmlib import (
    ApiError,
    AttemptOutcome,
    ChatNode,
    CompletionResponse,
    CostResolution,
    GeneratorInfo,
    IncompleteStreamError,
    MalformedResponseError,
    MiniLLMError,
    ProtocolError,
    ReadError,
    TokenPrice,
)
from minillmlib.streaming.sse import SseDecoder
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

# Of the long ones a few stand for all: how bytes are cut is not a matter of their wire.
FEW = (
    "responses_stream_tool_call.sse",
    "responses_stream_failed_midway.sse",
    "responses_tool_calls_parallel.json",
    "responses_error_no_tool_output.json",
)
SKIPPED = {name for name in ANSWERS | FAILURES if name.startswith("responses")} | {*LONG_STREAMS}
STREAMS = sorted(
    name
    for name in ANSWERS | BROKEN_STREAMS
    if name.endswith(".sse") and name not in SKIPPED - {*FEW}
)
WHOLE = sorted(name for name in ANSWERS if name.endswith(".json") and name not in SKIPPED - {*FEW})
SPLITS = 10_000 * FACTOR  # in memory: of each stream into events, of all together into answers
AT_ONCE = 40  # connections
RACE_SECS = 0.005  # what was sent before a reset may yet be read

# How a connection ends after the bytes that are sent.
UNENDED = "no last chunk"
SHORT = "less than the content length"
MID_CHUNK = "in the middle of a chunk"
RESET = "a reset"
RESET_LATER = "a reset after a while"
BROKEN_ENDS = (UNENDED, SHORT, MID_CHUNK, RESET, RESET_LATER)
CLOSED = "the end of the connection is the end of the body"
ENDED = "a last chunk"
CLEAN_ENDS = (CLOSED, ENDED)


class Cut(NamedTuple):
    """An answer of which `size` bytes come."""

    name: str
    size: int
    end: str
    streaming: bool = True
    status: str = "200 OK"

    @property
    def data(self) -> bytes:
        return (GOLDEN / self.name).read_bytes()

    def frames(self) -> bytes:
        """All bytes of the answer, head and body."""
        sent = self.data[: self.size]
        kind = "text/event-stream" if self.name.endswith(".sse") else "application/json"
        head = f"HTTP/1.1 {self.status}\r\nContent-Type: {kind}\r\n"
        if self.end == CLOSED:
            return head.encode() + b"Connection: close\r\n\r\n" + sent
        if self.end == SHORT:
            return head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(self.data) + 1, sent)
        head += "Transfer-Encoding: chunked\r\n\r\n"
        if self.end == MID_CHUNK:
            return head.encode() + b"%x\r\n%b" % (len(self.data) + 1, sent)
        pieces = pieces_of(sent, random.Random(self.size), 4)
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
        return head.encode() + chunks + (b"0\r\n\r\n" if self.end == ENDED else b"")


async def end(exchange: Exchange, way: str) -> None:
    """Ends the connection, if its way to end does."""
    if way == RESET_LATER:
        await asyncio.sleep(RACE_SECS)
    if way in (RESET, RESET_LATER):
        exchange.reset()
    elif way != ENDED:
        exchange.close()


@asynccontextmanager
async def cutting(cuts: list[Cut], send: Callable[[Cut], bytes] = Cut.frames):
    """A server that cuts the answer to the request with the header `x-cut` as its cut says."""

    async def play(exchange: Exchange) -> None:
        cut = cuts[int(exchange.headers["x-cut"])]
        await exchange.send(send(cut))
        await end(exchange, cut.end)

    async with serving(play) as (url, _):
        yield url


class Engine(NamedTuple):
    """What carries the requests of a generator, and every how manieth cut is tried there."""

    carrying: Callable[[GeneratorInfo], GeneratorInfo]
    stride: int


@pytest.fixture(params=["aiohttp", "httpx2"])
async def engine(request):
    if request.param == "aiohttp":
        yield Engine(lambda generator: generator, 1)
        return
    httpx2 = pytest.importorskip("httpx2")
    from minillmlib.httpx import HttpxTransport

    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)) as client:
        yield Engine(lambda generator: generator.with_transport(HttpxTransport(client)), 5)


def places_of(data: bytes, special: set[int], count: int, chance: random.Random) -> list[int]:
    """Where to cut: at the special places, and at random ones until there are `count`."""
    places = {place for place in special if 0 <= place <= len(data)}
    while len(places) < min(count, len(data) + 1):
        places.add(chance.randint(0, len(data)))
    return sorted(places)


@contextmanager
def told(cut: object) -> Iterator[None]:
    """Names the case in which a check fails."""
    try:
        yield
    except AssertionError as error:
        error.add_note(str(cut))
        raise


# What came of it.


class Outcome(NamedTuple):
    """What the caller has after the cut."""

    said: str
    root: ChatNode
    response: CompletionResponse | None = None
    error: MiniLLMError | None = None


async def outcome_of(generator: GeneratorInfo, *, streaming: bool) -> Outcome:
    root, said = ChatNode.root("s"), []
    try:
        if not streaming:
            return Outcome("", root, (await root.chat("u", generator)).response)
        async with root.chat_streaming("u", generator) as stream:
            async for chunk in stream:
                said.append(chunk.delta)
    except MiniLLMError as error:
        return Outcome("".join(said), root, error=error)
    return Outcome("".join(said), root, stream.response)


async def outcomes_of(cuts: list[Cut], engine: Engine, send=Cut.frames) -> list[Outcome]:
    """The outcomes of all cuts, many at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int, url: str) -> Outcome:
        cut = cuts[number]
        generator = (
            golden_generator(cut.name).replace(base_url=url).with_header("x-cut", str(number))
        )
        generator = generator.with_api_key("sk-cut").with_token_price(TokenPrice("1", "5"))
        async with gate:
            return await outcome_of(engine.carrying(generator), streaming=cut.streaming)

    async with cutting(cuts, send) as url:
        return await asyncio.gather(*(ask(number, url) for number in range(len(cuts))))


def check_failure(outcome: Outcome, text: str) -> None:
    """A failed attempt: its text is the beginning of the whole, its cost is unknown."""
    error = outcome.error
    assert error is not None
    assert error.partial == outcome.said
    assert text.startswith(outcome.said)
    assert outcome.root.children() == []
    for attempt in error.attempts:
        assert attempt.outcome is AttemptOutcome.FAILED
        assert attempt.cost.resolution is CostResolution.UNKNOWN
    assert error.attempts[-1].error == type(error).__name__


class Marks(NamedTuple):
    """After how many bytes of a stream what has come, read off the bytes by hand."""

    finished: int  # the end signal
    counted: int  # first counts that may be final
    told: int  # the last counts


def marks_of(name: str) -> Marks:
    data = (GOLDEN / name).read_bytes()
    never = len(data) + 1
    if name in BROKEN_STREAMS:
        return Marks(never, never, never)
    word = b'"stop_reason":"' if "anthropic" in name else b'"finish_reason":"'
    if name.startswith("responses"):
        word = b'{"type":"response.completed"'
    ends = event_ends(data)
    finished = next(end for end in ends if end > data.rindex(word))
    counts = [end for start, end in zip([0, *ends], ends, strict=False)
              if b'"usage":{' in data[start:end] and end >= finished]  # fmt: skip
    return Marks(finished, *((counts[0], counts[-1]) if counts else (never, never)))


def stream_cuts(count: int, seed: object = SEED) -> Iterator[Cut]:
    chance = random.Random(f"{seed} streams")
    for name in STREAMS:
        data, marks = (GOLDEN / name).read_bytes(), marks_of(name)
        special = {0, marks.finished - 1, marks.finished, marks.counted, len(data)}
        for way in (*BROKEN_ENDS, *CLEAN_ENDS):
            for size in places_of(data, special, count, chance):
                yield Cut(name, size, way)


def check_stream(cut: Cut, outcome: Outcome) -> None:
    marks = marks_of(cut.name)
    is_broken = cut.name in BROKEN_STREAMS
    text = BROKEN_STREAMS[cut.name].partial if is_broken else expected_of(cut.name).content
    if outcome.error is not None:
        check_failure(outcome, text)
        kinds = (
            (ReadError, ApiError) if cut.end in BROKEN_ENDS else (IncompleteStreamError, ApiError)
        )
        assert isinstance(outcome.error, kinds if is_broken else kinds[0])
        assert cut.end in BROKEN_ENDS or cut.size < marks.finished
        return
    response = outcome.response
    # At a proper end of the body the JSON of its last event need only be whole.
    line_ends = len(b"\n\n") if cut.end in CLEAN_ENDS else 0
    assert cut.size >= marks.finished - line_ends, "a success before the end signal"
    assert outcome.said == response.content == text
    assert len(outcome.root.children()) == 1
    assert response.attempts[-1].cost == response.cost
    if response.cost.resolution is not CostResolution.UNKNOWN:
        assert cut.size >= marks.counted - line_ends, "a cost before the final counts"
    if cut.end in CLEAN_ENDS and cut.size >= marks.told:
        assert response.usage == expected_of(cut.name).usage


async def in_memory(cut: Cut) -> Outcome:
    """What the same bytes come to when nothing can be lost on the way."""
    reply = ScriptedReply.events(cut.data[: cut.size], breaks_off=cut.end in BROKEN_ENDS)
    generator = golden_generator(cut.name).with_transport(ScriptedTransport([reply]))
    return await outcome_of(generator, streaming=True)


async def test_a_stream_cut_on_its_way_is_no_success_before_its_end_signal(engine):
    cuts = list(stream_cuts(7 * FACTOR))[:: engine.stride]
    outcomes = await outcomes_of(cuts, engine)
    for cut, outcome in zip(cuts, outcomes, strict=True):
        with told(cut):
            check_stream(cut, outcome)
            if cut.end not in (RESET, RESET_LATER):  # these may destroy what has come
                same = await in_memory(cut)
                assert (outcome.said, type(outcome.error)) == (same.said, type(same.error))
    broken = [o.error is None for c, o in zip(cuts, outcomes, strict=True) if c.end in BROKEN_ENDS]
    assert 0 < sum(broken) < len(broken), "some have come to their end signal before the cut"


@pytest.mark.parametrize("way", [UNENDED, SHORT, MID_CHUNK, RESET_LATER])
async def test_a_reader_who_is_late_gets_all_that_came_before_the_cut(way, engine):
    name = "openai_stream_usage.sse"
    cut = Cut(name, marks_of(name).finished - 1, way)
    head, _, rest = cut.frames().partition(b"\r\n\r\n")
    opened, ended = asyncio.Event(), asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.send(head + b"\r\n\r\n")
        await opened.wait()
        await exchange.send(rest)
        await end(exchange, way)
        ended.set()

    async with serving(play) as (url, _):
        generator = engine.carrying(golden_generator(name).replace(base_url=url))
        said = []
        with pytest.raises(ReadError) as caught:
            async with ChatNode.root("s").chat_streaming("u", generator) as stream:
                opened.set()
                await ended.wait()
                await asyncio.sleep(0.05)
                async for chunk in stream:
                    said.append(chunk.delta)
    assert "".join(said) == caught.value.partial == (await in_memory(cut)).said != ""


def whole_cuts(count: int, seed: object = SEED) -> Iterator[Cut]:
    chance = random.Random(f"{seed} whole")
    for name in WHOLE:
        data = (GOLDEN / name).read_bytes()
        for way in (*BROKEN_ENDS, CLOSED):
            for size in places_of(data, {0, len(data) - 1, len(data)}, count, chance):
                yield Cut(name, size, way, streaming=chance.random() < 0.3)


def is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except ValueError:
        return False
    return True


async def test_a_whole_answer_cut_on_its_way_is_never_a_success(engine):
    cuts = list(whole_cuts(5 * FACTOR))[:: engine.stride]
    outcomes = await outcomes_of(cuts, engine)
    for cut, outcome in zip(cuts, outcomes, strict=True):
        with told(cut):
            if outcome.error is not None:
                check_failure(outcome, "")
                is_truncated = cut.end in BROKEN_ENDS
                assert isinstance(
                    outcome.error, ReadError if is_truncated else MalformedResponseError
                )
                assert is_truncated or not is_json(cut.data[: cut.size])
            else:
                assert cut.end == CLOSED
                assert is_json(cut.data[: cut.size])
                assert outcome.response.content == expected_of(cut.name).content
                assert outcome.response.usage == expected_of(cut.name).usage


def failure_cuts(count: int, seed: object = SEED) -> Iterator[Cut]:
    chance = random.Random(f"{seed} failures")
    for name, failure in FAILURES.items():
        if failure.status == 200 or name in SKIPPED - {*FEW}:
            continue
        data = (GOLDEN / name).read_bytes()
        for way in (*BROKEN_ENDS, *CLEAN_ENDS):
            for size in places_of(data, {0}, count, chance):
                yield Cut(name, size, way, chance.random() < 0.3, f"{failure.status} Because")


async def test_an_error_answer_cut_on_its_way_is_an_error(engine):
    cuts = list(failure_cuts(2 * FACTOR))[:: engine.stride]
    outcomes = await outcomes_of(cuts, engine)
    for cut, outcome in zip(cuts, outcomes, strict=True):
        with told(cut):
            assert outcome.response is None
            assert outcome.root.children() == []
            if not (cut.end in (RESET, RESET_LATER) and type(outcome.error) is ReadError):
                assert isinstance(outcome.error, ApiError)
                assert outcome.error.status == int(cut.status.partition(" ")[0])
            if cut.size == len(cut.data) and cut.end in CLEAN_ENDS:
                assert type(outcome.error).__name__ == FAILURES[cut.name].kind


async def test_an_answer_cut_in_its_head_is_an_error(engine):
    name = "openai_stream_usage.sse"
    whole = Cut(name, 0, ENDED).frames()
    sizes = range(whole.index(b"\r\n\r\n") + 2)
    cuts = [Cut(name, size, way, size % 2 == 0) for size in sizes for way in (UNENDED, RESET_LATER)]
    cuts = cuts[:: engine.stride]
    outcomes = await outcomes_of(cuts, engine, lambda cut: whole[: cut.size])
    for cut, outcome in zip(cuts, outcomes, strict=True):
        with told(cut):
            check_failure(outcome, "")
            assert isinstance(outcome.error, ReadError | ProtocolError)


# In memory: how the bytes of an answer come makes no difference.


async def result_of(name: str, pieces: list[bytes]) -> tuple[object, ...]:
    """Everything the wire decides of what a caller sees."""
    transport = ScriptedTransport([ScriptedReply.events(*pieces)])
    outcome = await outcome_of(golden_generator(name).with_transport(transport), streaming=True)
    if outcome.error is not None:
        return (outcome.said, type(outcome.error), str(outcome.error), outcome.error.partial)
    costs = [attempt.cost for attempt in outcome.response.attempts]
    return (outcome.said, costs, msgspec.structs.replace(outcome.response, attempts=()))


@pytest.mark.parametrize("name", STREAMS)
async def test_how_a_stream_is_cut_into_pieces_makes_no_difference(name):
    chance = random.Random(f"{SEED} {name}")
    data = (GOLDEN / name).read_bytes()
    expected = await result_of(name, [data])
    for _ in range(-(-SPLITS // len(STREAMS))):
        pieces = pieces_of(data, chance, chance.choice((1, 2, 4, 12, 40)))
        assert await result_of(name, pieces) == expected, pieces


@pytest.mark.parametrize("name", STREAMS)
def test_the_events_of_a_stream_are_the_same_however_its_bytes_come(name):
    chance = random.Random(f"{SEED} {name}")
    data = (GOLDEN / name).read_bytes()
    whole = SseDecoder().feed(data)
    for _ in range(SPLITS):
        decoder = SseDecoder()
        pieces = pieces_of(data, chance, chance.choice((1, 2, 4, 12, 40)))
        assert [event for piece in pieces for event in decoder.feed(piece)] == whole, pieces
