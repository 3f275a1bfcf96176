"""Whatever a server sends gives a well-formed value or an error of ours, and soon."""

from __future__ import annotations

import contextlib
import json
import random
import re
import string
from collections.abc import Iterator, Mapping

import pytest
from fuzz_inputs import FACTOR, SEED, Corpus, pieces_of, recorded
from fuzz_parsers import COUNTS, PARSERS, check_response, check_usage, decoded, fed, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minillmlib import (
    MalformedResponseError,
    Provider,
    StreamChunk,
    Usage,
)
from minillmlib.client.placeholders import fill_text
from minillmlib.json_value import decode_json
from minillmlib.streaming.accumulator import ResponseAccumulator
from minillmlib.streaming.sse import SseEvent, is_whole_event
from minillmlib.types.usage import UsageUpdate

pytestmark = pytest.mark.long

INPUTS = 20_000 * FACTOR  # for each parser
FOLDED = 20  # chunks of hostile streams that are put together


# The same examples in every run.
FIXED = settings(
    max_examples=250 * FACTOR, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


# What is well-formed.


# The parsers, each as the library calls it.


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
            with contextlib.suppress(MalformedResponseError):  # a piece of a call without a home
                fold.add(values[0])
        if number % FOLDED == 0:
            check_response(fold.response())
            fold = ResponseAccumulator()
    return taken


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_gives_a_well_formed_value_or_an_error_of_ours(name):
    count = INPUTS // PARSERS[name].share
    taken = fuzz(name, count)
    assert taken > count // 20, "the inputs must reach deeper than the first check"


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
    """The standard's events, and of lines that are each whole JSON one event for each."""
    lines = re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events, values, kind, name = [], [], "", ""
    own: list[SseEvent] = []  # each value by itself, with the name and id before it
    for line in lines:
        field, _, rest = line.partition(b":")
        value = text_of(rest[1:] if rest.startswith(b" ") else rest)
        if not line:
            if len(values) > 1 and all(map(is_whole_event, values)):
                events += [*own[:-1], SseEvent(values[-1], kind or "message", name)]
            elif values:
                events.append(SseEvent("\n".join(values), kind or "message", name))
            values, own, kind = [], [], ""
        elif field in (b"data", b"error"):
            values.append(value)
            kind = "error" if field == b"error" else kind
            own.append(SseEvent(value, kind or "message", name))
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


def name_after(text: str, opening: str, place: int) -> str | None:
    """The name between these braces and as many closing ones, if they stand at this place."""
    start = end = place + len(opening)
    if not text.startswith(opening, place) or text[start : start + 1] not in FIRST:
        return None
    while text[end : end + 1] in LATER:
        end += 1
    return text[start:end] if text.startswith("}" * len(opening), end) else None


def filled_by_hand(text: str, values: Mapping[str, object]) -> str:
    out, place = [], 0
    while place < len(text):
        literal, name = name_after(text, "{{", place), name_after(text, "{", place)
        if literal is not None:  # as it is, with all its braces, where the name has no value
            size = len(literal) + 4
            out.append(f"{{{literal}}}" if literal in values else text[place : place + size])
        elif name in values:
            size = len(name) + 2
            out.append(str(values[name]))
        else:
            size = 1
            out.append(text[place])
        place += size
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
