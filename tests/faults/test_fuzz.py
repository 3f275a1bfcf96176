"""Whatever a server sends gives a well-formed value or an error of ours, and soon."""

from __future__ import annotations

import json
import random
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

import pytest
from fuzz_inputs import FACTOR, SEED, Corpus, pieces_of, recorded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ApiError,
    CompletionResponse,
    FinishReason,
    InvalidParameterError,
    MalformedResponseError,
    MiniLLMError,
    OpenRouterProvider,
    Provider,
    StreamChunk,
    Usage,
)
from minillmlib.client.placeholders import fill_text
from minillmlib.json_value import decode_json
from minillmlib.protocols.errors import error_from_payload, error_from_reply
from minillmlib.streaming.accumulator import ResponseAccumulator
from minillmlib.streaming.sse import SseDecoder, SseEvent
from minillmlib.types.usage import UsageUpdate

pytestmark = pytest.mark.long

INPUTS = 20_000 * FACTOR  # for each parser
FOLDED = 20  # chunks of hostile streams that are put together

SHOWN = 2_000  # bytes of an input that fails

# What an input may take, in CPU time.
BASE_SECS = 0.020
SECS_PER_BYTE = 2e-6

# The same examples in every run.
FIXED = settings(
    max_examples=250 * FACTOR, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

ROUTER, CLAUDE = OpenRouterProvider(), AnthropicProvider()
GENERIC = minillmlib.GenericProvider()


# What is well-formed.


def check_text(*texts: object) -> None:
    for text in texts:
        assert isinstance(text, str)
        text.encode()  # no half of a surrogate pair


def texts_in(value: object) -> Iterator[str]:
    """Every text in a JSON value, however deep."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            yield value


def check_count(count: object) -> None:
    assert type(count) is int
    assert count >= 0


COUNTS = [name for name in Usage.__struct_fields__ if name.endswith("_tokens")]


def check_usage(usage: Usage | None) -> None:
    if usage is None:
        return
    for name in COUNTS:
        check_count(getattr(usage, name))
    assert isinstance(usage.non_token_charges, str | None)
    cost = usage.native_cost
    assert cost is None or (isinstance(cost, Decimal) and cost.is_finite() and cost >= 0)


def check_chunk(chunk: StreamChunk) -> None:
    check_text(chunk.id, chunk.model, chunk.delta, chunk.reasoning)
    check_text(chunk.refusal or "", chunk.raw_finish_reason or "")
    assert isinstance(chunk.finish_reason, FinishReason | None)
    for call in chunk.tool_calls:
        check_text(call.id, call.name, call.arguments)
        assert isinstance(call.index, int | None)
    for block in chunk.reasoning_blocks:
        assert isinstance(block.index, int)
        check_text(*texts_in(block.fields))
    check_usage(chunk.usage)


def check_response(response: CompletionResponse) -> None:
    check_text(response.id, response.model, response.content, response.reasoning, response.text)
    check_text(response.refusal or "", response.raw_finish_reason or "")
    assert isinstance(response.finish_reason, FinishReason)
    for call in response.tool_calls:
        check_text(call.id, call.name, call.arguments)
        assert call.id
    for block in response.reasoning_blocks:
        check_text(*texts_in(block.fields))
        assert 0 <= block.text_before <= len(response.content)
        assert 0 <= block.calls_before <= len(response.tool_calls)
    check_usage(response.usage)
    check_text(response.to_assistant_message().content)


def check_error(error: MiniLLMError) -> None:
    # A server's answer is never the caller's fault.
    assert not isinstance(error, InvalidParameterError)
    said = str(error)
    check_text(said, error.partial, error.request_id or "")
    assert said.isprintable()
    assert len(said) < 3000
    if isinstance(error, ApiError):
        check_text(error.code or "")
        wait = error.retry_after_secs
        assert wait is None or 0 < wait < float("inf")


def check(value: object) -> None:
    match value:
        case MiniLLMError():
            check_error(value)
        case CompletionResponse():
            check_response(value)
        case StreamChunk():
            check_chunk(value)
        case Usage():
            check_usage(value)
        case list():
            for texts in value:
                check_text(*texts)
        case _:
            assert value is None


# The parsers, each as the library calls it.


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def decoded(pieces: list[bytes]) -> list[SseEvent]:
    decoder = SseDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def whole_reader(provider: Provider) -> Callable[[bytes], CompletionResponse]:
    return lambda data: provider.parse_response(decode_json(text_of(data)))


def chunk_reader(provider: Provider) -> Callable[[bytes], StreamChunk | None]:
    return lambda data: provider.parse_chunk(text_of(data))


def usage_reader(provider: Provider) -> Callable[[bytes], Usage | None]:
    return lambda data: provider.parse_usage(decode_json(data))


WAITS = ("7", "1.5", "-3", "nan", "1e999", "9" * 400, "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "",
         "Thu, 99 Foo 20269 99:99:99 +9999", "Mon, 1 Jan 0001 00:00:00 +2359", "1 Jan 99999", "\x00",
         "Fri, 31 Dec 9999 23:59:59 -2359", ",,,", "(((", '"')  # fmt: skip


def read_failure(data: bytes) -> ApiError:
    chance = random.Random(data)
    names = ("retry-after", "retry-after-ms", "location", "x-request-id", "request-id")
    values = (*WAITS, text_of(data[:50]))
    headers = {name: chance.choice(values) for name in names if chance.random() < 0.4}
    status = chance.choice((300, 307, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529, 599))
    error = error_from_reply(status, headers, data)
    assert error.status == status
    return error


def read_failure_inside_success(data: bytes) -> ApiError:
    return error_from_payload(decode_json(text_of(data)))


class Parser(NamedTuple):
    """One parser: what it is fed with, and its readers, which all get every input."""

    corpus: str
    readers: tuple[Callable[[bytes], object], ...]


PARSERS = {
    "events": Parser("streams", (lambda data: [astuple(one) for one in decoded([data])],)),
    "chat completion": Parser("chat_whole", (whole_reader(GENERIC), whole_reader(ROUTER))),
    "chat chunk": Parser("chat_chunk", (chunk_reader(GENERIC), chunk_reader(ROUTER))),
    "claude message": Parser("claude_whole", (whole_reader(CLAUDE),)),
    "claude event": Parser("claude_chunk", (chunk_reader(CLAUDE),)),
    "failure": Parser("failures", (read_failure, read_failure_inside_success)),
    "usage": Parser("counts", tuple(map(usage_reader, (GENERIC, ROUTER, CLAUDE)))),
}


def outcome_of(read: Callable[[bytes], object], data: bytes) -> object:
    """What came of it: a value, or an error of ours. Anything else fails, and shows the input."""
    try:
        return read(data)
    except MiniLLMError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error} over {data[:SHOWN]!r}") from error


def cpu_secs(read: Callable[[bytes], object], data: bytes) -> float:
    started = time.thread_time()
    outcome_of(read, data)
    return time.thread_time() - started


def fed(read: Callable[[bytes], object], data: bytes) -> object:
    """The checked outcome, which was there in time: at once, or in the best of three more runs."""
    most = BASE_SECS + SECS_PER_BYTE * len(data)
    started = time.thread_time()
    value = outcome_of(read, data)
    if time.thread_time() - started > most:
        assert min(cpu_secs(read, data) for _ in range(3)) <= most, data[:SHOWN]
    try:
        check(value)
    except Exception as error:
        raise AssertionError(f"{value!r:.2000} of {data[:SHOWN]!r}") from error
    return value


def fuzz(name: str, count: int, seed: object = SEED) -> int:
    """Feeds a parser with so many inputs; gives how many of them it took."""
    parser = PARSERS[name]
    corpus: Corpus = getattr(recorded(), parser.corpus)
    taken = 0
    fold = ResponseAccumulator()
    for number, data in enumerate(corpus.inputs(count, (name, seed))):
        values = [fed(read, data) for read in parser.readers]
        taken += not isinstance(values[0], MalformedResponseError)
        if isinstance(values[0], StreamChunk):
            fold.add(values[0])
        if number % FOLDED == 0:
            check_response(fold.response())
            fold = ResponseAccumulator()
    return taken


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_gives_a_well_formed_value_or_an_error_of_ours(name):
    taken = fuzz(name, INPUTS)
    assert taken > INPUTS // 20, "the inputs must reach deeper than the first check"


@pytest.mark.parametrize("read", PARSERS["usage"].readers[:2], ids=["generic", "openrouter"])
def test_a_total_below_the_input_counts_nothing(read):
    assert read(b'{"usage":{"prompt_tokens":9,"total_tokens":3}}') is None


def test_an_error_is_short_though_its_place_is_deep():
    with pytest.raises(MalformedResponseError) as caught:
        decode_json("[" * 700 + "1e999")
    assert len(str(caught.value)) < 1000


# Any JSON value in the place of any value of a recorded answer, shrunk by hypothesis.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(
        ["\ud800", "text", "error", "tool_use", "stop", "data:image/png;base64,AAAA"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=3) | st.sampled_from(
        ["type", "text", "error", "message", "content", "index", "usage", "input"]), inner,
        max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in PARSERS if name != "events"])
def test_any_json_value_may_stand_in_any_place(name):
    parser = PARSERS[name]
    templates = getattr(recorded(), parser.corpus).templates

    @FIXED
    @given(st.sampled_from(templates), JSON)
    def place(template, value):
        data = json.dumps(value).join(template).encode()
        for read in parser.readers:
            fed(read, data)

    place()


# The decoder of streams, against the standard's rules written down a second time.


def events_by_the_rules(data: bytes) -> list[SseEvent]:
    lines = re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events, values, kind, name = [], [], "", ""
    for line in lines:
        field, _, rest = line.partition(b":")
        value = text_of(rest[1:] if rest.startswith(b" ") else rest)
        if not line:
            if values:
                events.append(SseEvent("\n".join(values), kind or "message", name))
            values, kind = [], ""
        elif field in (b"data", b"error"):
            values.append(value)
            kind = "error" if field == b"error" else kind
        elif field == b"event":
            kind = value
        elif field == b"id" and "\0" not in value:
            name = value
    return events


def test_a_stream_is_decoded_by_the_rules_however_it_is_cut():
    chance = random.Random(f"{SEED} cut")
    for data in recorded().streams.inputs(INPUTS, "decoded"):
        events = events_by_the_rules(data)
        assert decoded([data]) == events, data
        assert decoded(pieces_of(data, chance)) == events, data


# Placeholders, against a scanner without a regular expression.

FIRST = set(string.ascii_letters + "_")
LATER = FIRST | set(string.digits)
VALUES: Mapping[str, str | int | float] = {
    "a": "{b}", "b": "\\1{a}", "_c9": 7, "D": float("inf"), "self": "", "__class__": "canary", "e": -0.5,
}  # fmt: skip
SCRAPS = ("{", "}", "{{", "}}", "{a}", "{b}", "{_c9}", "{D}", "{e}", "{self}", "{__class__}", "{a.b}",
          "{a[0]}", "{a!r}", "{a:>9}", "{}", "{0}", "{9a}", "{ä}", "{a\n}", "{ a}", "a", "é", "\0",
          "{" * 50, "{a" * 50, "%s", "$a", "\\g<1>", "{unknown}", "{a}}", "{{a}", "\u2028")  # fmt: skip


def filled_by_hand(text: str, values: Mapping[str, object]) -> str:
    out, place = [], 0
    while place < len(text):
        end = place + 1
        if text[place] == "{" and text[end : end + 1] in FIRST:
            while text[end : end + 1] in LATER:
                end += 1
            name = text[place + 1 : end]
            if text[end : end + 1] == "}" and name in values:
                out.append(str(values[name]))
                place = end + 1
                continue
        out.append(text[place])
        place += 1
    return "".join(out)


def templates(count: int, seed: object = SEED) -> Iterator[str]:
    """Texts full of braces."""
    chance = random.Random(f"{seed} templates")
    for _ in range(count):
        yield "".join(chance.choices(SCRAPS, k=chance.randrange(30)))


def test_placeholders_are_filled_by_name_in_one_pass_and_nothing_else_is():
    for template in templates(INPUTS):
        filled = fed(lambda data: [(fill_text(data.decode(), VALUES),)], template.encode())
        assert filled == [(filled_by_hand(template, VALUES),)], template


@FIXED
@given(
    st.text(alphabet="{}a_b1.é", max_size=40),
    st.dictionaries(st.text("ab_", max_size=2), st.text()),
)
def test_any_values_fill_any_template(template, values):
    assert fill_text(template, values) == filled_by_hand(template, values)


# Counts of one request that came twice.

COUNT = st.integers(min_value=0, max_value=2**53)
USAGE = st.builds(
    Usage, uncached_input_tokens=COUNT, cache_read_tokens=COUNT, cache_write_tokens=COUNT,
    completion_tokens=COUNT, reasoning_tokens=COUNT,
    native_cost=st.none() | st.decimals(min_value=0, max_value=10**9),
)  # fmt: skip


@FIXED
@given(USAGE, USAGE)
def test_counts_that_come_twice_are_never_added(first, second):
    def merged(earlier, later):
        return Provider.billing.merge_usage(
            UsageUpdate(usage=earlier), UsageUpdate(usage=later)
        ).usage

    usage = merged(first, second)
    check_usage(usage)
    for name in (*COUNTS, "native_cost"):
        assert getattr(usage, name) in (getattr(first, name), getattr(second, name))
    assert merged(first, first) == first
