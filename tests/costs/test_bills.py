"""What a request consumed and what it costs, on every wire, to the last part of a cent."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from bill_records import (
    BILLS,
    COMPACTED,
    FEES,
    LOOPED,
    PLAIN,
    SONNET,
    Bill,
    answered,
    chat,
    claude,
)
from bill_wires import (
    WIRES,
    Record,
    generator_of,
    read_stream,
    response_with,
    responses_events,
    stream_of,
    streamed,
    whole,
)

import minillmlib
from minillmlib import (
    AnthropicProvider,
    ChatNode,
    CostResolution,
    CostTotal,
    GeneratorInfo,
    ServerError,
    TokenPrice,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

WAYS = ("whole", "streamed")
Path = tuple[str | int, ...]

COUNTS = {
    "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens",
    "reasoning_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "input_tokens",
    "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
    "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "thinking_tokens",
    "web_search_requests",
}  # fmt: skip
NO_COUNTS = {
    "whole": [-1, 0.5, True, "7", "NaN", 10**30, 2**53 + 1, [1], {}],
    "streamed": [-1, 0.5, True, "7", 10**30],
}
LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def ways_of(bill: Bill) -> tuple[str, ...]:
    """A record of a whole body may come in a stream, too; those of a stream have but one way."""
    return WAYS if isinstance(bill.records, dict) else ("streamed",)


def records_of(bill: Bill, way: str) -> list[Record]:
    """Copies of what the server is to send."""
    records = copy.deepcopy(bill.records)
    if isinstance(records, list):
        return records
    return [records] if way == "whole" else WIRES[bill.wire].cut(records)


def asked(bill: Bill, way: str, records: list[Record], price=PLAIN) -> ChatNode:
    return (
        whole(bill.wire, records[0], price)
        if way == "whole"
        else streamed(bill.wire, records, price)
    )


def what_is_known_of(name: str, node: ChatNode, sent: list[Record]) -> dict[str, Any]:
    """Empty, if nothing was made up and one of the records that came can be looked at."""
    response = node.response
    told = (response.cost.resolution, response.cost.cost, response.usage, response.cost.usage)
    is_unknown = told == (CostResolution.UNKNOWN, Decimal(0), None, None)
    is_kept = response.usage_record in sent and response.cost.record == response.usage_record
    is_missing = node.cost == CostTotal(unknown=1)
    return {} if is_unknown and is_kept and is_missing else {name: (told, response.usage_record)}


# The corpus.


def bill_cases() -> Iterator[Any]:
    for name, bill in BILLS.items():
        for way in ways_of(bill):
            yield pytest.param(bill, way, id=f"{name}, {way}")


@pytest.mark.parametrize(("bill", "way"), list(bill_cases()))
def test_a_bill_is_what_it_comes_to_by_hand(bill, way):
    node = asked(bill, way, records_of(bill, way), bill.price)
    response = node.response
    assert response.usage == bill.buckets
    assert response.cost.usage == bill.buckets
    assert response.usage_record is None
    if bill.cost is None:
        assert response.cost.resolution is CostResolution.UNPRICED
        assert response.cost.cost == Decimal(0)
        assert node.cost == CostTotal(unpriced=1)
    else:
        assert response.cost.resolution is CostResolution.RESOLVED
        assert response.cost.cost == Decimal(bill.cost)
        assert node.cost == CostTotal(cost=Decimal(bill.cost))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FEES)
def test_fees_and_tiers_decide_whether_there_is_a_bill(name, way):
    fee, record = FEES[name], answered(100, 20)
    if way == "whole":
        reply = ScriptedReply.json(response_with(record, **fee.facts))
        generator = generator_of("responses", fee.price, reply)
        node = minillmlib.run(ChatNode.root("Be brief.").chat("Hi", generator))
    else:
        reply = stream_of(responses_events([record], **fee.facts))
        node = read_stream(generator_of("responses", fee.price, reply))
    usage, cost = node.response.usage, node.response.cost
    assert (usage.prompt_tokens, usage.completion_tokens) == (100, 20)
    assert (usage.non_token_charges, usage.service_tier) == (fee.charges, fee.tier)
    if fee.cost is None:
        assert cost.resolution is CostResolution.UNPRICED
    else:
        assert (cost.resolution, cost.cost) == (CostResolution.RESOLVED, Decimal(fee.cost))


def test_the_corpus_has_every_style_of_every_wire():
    assert len(BILLS) >= 40
    assert {bill.wire for bill in BILLS.values()} == WIRES.keys()


@pytest.mark.parametrize("way", WAYS)
def test_an_advisor_of_another_model_has_no_price(way):
    parts = [claude(10, 5, type="message"), claude(99, 50, type="advisor_message", model="opus")]
    bill = Bill("anthropic", claude(10, 5, iterations=parts), PLAIN, None, None)
    response = asked(bill, way, records_of(bill, way)).response
    assert response.usage.non_token_charges is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (109, 55)
    assert response.cost.resolution is CostResolution.UNPRICED


def test_output_that_only_the_total_tells_is_billed():
    record = chat(30, 0, 42) | {"completion_tokens": None}
    node = whole("openai", record, PLAIN)
    # 42 - 30 = 12 written: 30 x 1 + 12 x 5
    assert node.response.cost.cost == Decimal("0.00009")


# Records that contradict themselves.


def changed(record: Record, path: Path, value: Any) -> Record:
    """A copy with another value in one place; None takes the key away."""
    copied = copy.deepcopy(record)
    *parents, name = path
    place = copied
    for key in parents:
        place = place[key]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return copied


def contradictions(record: Record) -> Iterator[tuple[str, Record]]:
    """The ways in which a record could contradict itself, each with the record that does."""
    if "prompt_tokens" in record:
        yield from chat_contradictions(record)
        yield from deepseek_contradictions(record)
        return
    if "input_tokens_details" in record or "total_tokens" in record:
        yield from responses_contradictions(record)
        return
    parts = record.get("iterations") or ()
    for label, wrong in claude_contradictions(record):
        yield f"Claude{', beside iterations' if parts else ''}: {label}", wrong
    for place, part in enumerate(parts):
        for label, wrong in claude_contradictions(part):
            yield f"an iteration: {label}", changed(record, ("iterations", place), wrong)


def chat_contradictions(record: Record) -> Iterator[tuple[str, Record]]:
    prompt, completion = record["prompt_tokens"], record["completion_tokens"]
    total = record.get("total_tokens")
    yield "no prompt_tokens", changed(record, ("prompt_tokens",), None)
    yield "prompt_tokens of null", record | {"prompt_tokens": None}
    if total is None:
        yield "no completion_tokens", changed(record, ("completion_tokens",), None)
    else:
        yield "a total below its parts", record | {"total_tokens": prompt + completion - 1}
    details = record.get("prompt_tokens_details") or {}
    if details.get("cached_tokens") is not None:
        wrong = details | {"cached_tokens": prompt + 1}
        yield "more read than came in", record | {"prompt_tokens_details": wrong}
        wrong = details | {"cached_tokens": prompt, "cache_write_tokens": 1}
        yield "more read and written than came in", record | {"prompt_tokens_details": wrong}
    if record.get("completion_tokens_details"):
        written = max(completion, (total or 0) - prompt)
        wrong = {"reasoning_tokens": written + 1}
        yield "more thought than written", record | {"completion_tokens_details": wrong}


def responses_contradictions(record: Record) -> Iterator[tuple[str, Record]]:
    came, written = record["input_tokens"], record["output_tokens"]
    total = record.get("total_tokens", came + written)
    yield "no input_tokens", changed(record, ("input_tokens",), None)
    yield "a total below its parts", record | {"total_tokens": came + written - 1}
    wrong = {"input_tokens_details": {"cached_tokens": came, "cache_write_tokens": 1}}
    yield "more read and written than came in", record | wrong
    wrong = {"output_tokens_details": {"reasoning_tokens": total - came + 1}}
    yield "more thought than written", record | wrong


def deepseek_contradictions(record: Record) -> Iterator[tuple[str, Record]]:
    beside = " beside cached_tokens" if record.get("prompt_tokens_details") else ""
    for name in ("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"):
        for label, step in (("too many", 1), ("too few", -1)):
            if name in record and record[name] + step >= 0:
                yield f"{label} {name}{beside}", record | {name: record[name] + step}


def claude_contradictions(record: Record) -> Iterator[tuple[str, Record]]:
    beside = " beside a cache" if has_cache(record) else ""
    yield "no output_tokens", changed(record, ("output_tokens",), None)
    if not record.get("iterations"):  # they tell the input again
        yield f"no input_tokens{beside}", changed(record, ("input_tokens",), None)
        yield f"input_tokens of null{beside}", record | {"input_tokens": None}
    told = record.get("cache_creation") or {}
    for name in LIFETIMES:
        if told.get(name) is not None:
            wrong = told | {name: told[name] + 1}
            yield "too much for a lifetime", record | {"cache_creation": wrong}
        if told.get(name):
            wrong = told | {name: told[name] - 1}
            yield "too little for a lifetime", record | {"cache_creation": wrong}
    if any(told.values()):
        yield "lifetimes of nothing", record | {"cache_creation_input_tokens": None}
    details = record.get("output_tokens_details") or {}
    if details.get("thinking_tokens") is not None:
        wrong = {"thinking_tokens": record["output_tokens"] + 1}
        yield "more thought than written", record | {"output_tokens_details": wrong}


def has_cache(record: Record) -> bool:
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    return any(record.get(name) for name in names)


def wholes() -> Iterator[tuple[str, Bill]]:
    """The bills of the corpus whose record may come whole or in a stream."""
    for name, bill in BILLS.items():
        if isinstance(bill.records, dict):
            yield name, bill


def contradictory_bills() -> dict[str, list[tuple[str, Bill]]]:
    found: dict[str, list[tuple[str, Bill]]] = {}
    for name, bill in wholes():
        for label, wrong in contradictions(bill.records):
            found.setdefault(label, []).append((name, bill._replace(records=wrong)))
    return found


CONTRADICTORY = contradictory_bills()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("label", CONTRADICTORY)
def test_a_record_that_contradicts_itself_is_unknown_and_kept(label, way):
    known = {}
    for name, bill in CONTRADICTORY[label]:
        sent = records_of(bill, way)
        if all(sent):  # one without any key says nothing
            known |= what_is_known_of(name, asked(bill, way, sent), sent)
    assert known == {}


# Counts that cannot be.


def counts_in(record: Any, above: Path = ()) -> Iterator[Path]:
    """Where every count stands that a bill hangs on."""
    items = record.items() if isinstance(record, dict) else enumerate(record)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from counts_in(value, (*above, key))
        elif key in COUNTS and value is not None:
            yield (*above, key)


def shapes() -> dict[tuple[str, ...], Bill]:
    """One bill for each set of counts on each wire."""
    return {(bill.wire, *counts_in(bill.records)): bill for _, bill in wholes()}


@pytest.mark.parametrize(
    ("count", "way"),
    [(name, way) for name in sorted(COUNTS) for way in WAYS],
)
def test_a_count_that_cannot_be_makes_the_bill_unknown(count, way):
    known, tried = {}, 0
    for bill in shapes().values():
        for path in counts_in(bill.records):
            for value in NO_COUNTS[way] if path[-1] == count else ():
                sent = records_of(bill._replace(records=changed(bill.records, path, value)), way)
                name = f"{bill.wire}: {path} of {value!r}"
                known |= what_is_known_of(name, asked(bill, way, sent), sent)
                tried += 1
    assert tried >= len(NO_COUNTS[way])
    assert known == {}


def last_counts_of_streams() -> Iterator[tuple[Bill, Path]]:
    for bill in BILLS.values():
        if isinstance(bill.records, list):
            yield from ((bill, path) for path in counts_in(bill.records[-1]))


@pytest.mark.parametrize("value", [-1, "7"])
def test_a_stream_whose_last_record_cannot_be_is_unknown(value):
    known = {}
    for bill, path in last_counts_of_streams():
        sent = copy.deepcopy(bill.records)
        sent[-1] = changed(sent[-1], path, value)
        known |= what_is_known_of(f"{bill.wire}: {path}", streamed(bill.wire, sent, PLAIN), sent)
    assert known == {}


@pytest.mark.parametrize(
    ("wire", "records"),
    [
        ("openai", [chat(9, 4, 13), chat(9, 4, 12)]),
        ("openai", [chat(9, 4, 13), chat(9, -4)]),
        ("openrouter", [chat(9, 4, 13, cost=0.1), chat(9, 4, 12, cost=0.2)]),
        ("anthropic over", [{"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 4},
                            {"output_tokens": -4}]),
    ],
)  # fmt: skip
def test_an_earlier_record_does_not_stand_in_for_a_broken_last_one(wire, records):
    if wire == "anthropic over":
        events = WIRES["anthropic"].events(records)
        for event in events[-3:-1]:
            event["delta"]["stop_reason"] = "end_turn"
        node = read_stream(generator_of("anthropic", PLAIN, stream_of(events)))
    else:
        node = streamed(wire, records, PLAIN)
    assert what_is_known_of(wire, node, records) == {}


@pytest.mark.parametrize("start", [{"input_tokens": -5, "output_tokens": 1}, {"input_tokens": 500}])
def test_fresh_input_that_only_a_broken_start_tells_is_not_left_out(start):
    records = [start, {"cache_read_input_tokens": 1000, "output_tokens": 7}]
    node = streamed("anthropic", records, SONNET)
    assert what_is_known_of("cache", node, records) == {}


@pytest.mark.parametrize("record", [COMPACTED, LOOPED])
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_iterations_never_come_to_less_than_the_whole(record, name):
    sum_of_parts = sum(part[name] for part in record["iterations"])
    wrong = record | {name: sum_of_parts + 1}
    node = whole("anthropic", wrong, PLAIN)
    assert what_is_known_of(name, node, [wrong]) == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wire", "record"),
    [
        ("openai", chat(0, 4, 4)),
        ("openrouter", chat(0, 0, 0, cost=None)),
        ("llama.cpp as anthropic", {"input_tokens": 0, "output_tokens": 4}),
    ],
)
def test_a_record_without_input_is_unknown_and_kept(wire, record, way):
    bill = Bill(wire, record, PLAIN, None, None)
    sent = records_of(bill, way)
    assert what_is_known_of(wire, asked(bill, way, sent), sent) == {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_null_instead_of_a_record_is_unknown_and_there_is_nothing_to_keep(wire, way):
    sent = [None] if way == "whole" else [None for _ in WIRES[wire].cut({})]
    node = asked(Bill(wire, {}, PLAIN, None, None), way, sent)
    assert node.response.cost.resolution is CostResolution.UNKNOWN
    assert node.response.usage is None
    assert node.response.cost.record is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("record", ["lots", 7, [1], False])
def test_what_is_no_record_at_all_is_unknown_and_kept(wire, way, record):
    sent = [record] if way == "whole" else [record for _ in WIRES[wire].cut({})]
    node = asked(Bill(wire, {}, PLAIN, None, None), way, sent)
    assert what_is_known_of(wire, node, [{"usage": record}]) == {}


# Streams of several records.


def test_on_other_wires_each_record_is_whole_so_an_early_broken_one_does_not_matter():
    node = streamed("vllm", [chat(9, -1), chat(9, 2, 10), chat(9, 3, 12)], PLAIN)
    # 9 x 1 + 3 x 5
    assert node.cost == CostTotal(cost=Decimal("0.000024"))


def test_what_is_no_record_spoils_the_one_before_it():
    node = streamed("openai", [chat(9, 4, 13), "lots"], PLAIN)
    assert what_is_known_of("openai", node, [{"usage": "lots"}]) == {}


def test_the_input_that_an_anthropic_stream_tells_last_stands_though_it_is_zero():
    records = [
        {"input_tokens": 900, "cache_read_input_tokens": 100, "output_tokens": 8},
        {"input_tokens": 1000, "cache_read_input_tokens": 0, "output_tokens": 4},
    ]
    usage = streamed("anthropic", records, PLAIN).response.usage
    assert (usage.uncached_input_tokens, usage.cache_read_tokens) == (1000, 0)
    assert usage.completion_tokens == 8  # a cumulative count does not shrink


@pytest.mark.parametrize("value", [-1, "7"])
@pytest.mark.parametrize("name", ["input_tokens", "cache_read_input_tokens", "output_tokens"])
def test_a_broken_start_is_not_mended_by_an_end_that_tells_the_same_count(name, value):
    records = [claude(25, 1, 4096) | {name: value}, claude(25, 9, 4096)]
    node = streamed("anthropic", records, PLAIN)
    assert what_is_known_of(name, node, records[:1]) == {}


def test_a_cache_without_the_fresh_input_is_no_bill():
    records = [None, {"cache_read_input_tokens": 1000, "output_tokens": 7}]
    node = streamed("anthropic", records, PLAIN)
    assert what_is_known_of("cache", node, records) == {}


def grown(for_5m: int, for_1h: int, **more) -> ChatNode:
    """A stream that writes 600 tokens more to the cache than its start tells the lifetimes of."""
    written = for_5m + for_1h + 600
    end = {"cache_creation_input_tokens": written, "output_tokens": 9, **more}
    return streamed("anthropic", [claude(10, 1, 0, for_5m, for_1h), end], SONNET)


@pytest.mark.parametrize("for_5m", [0, 400])
def test_later_writes_are_for_five_minutes_like_those_without_lifetimes(for_5m):
    usage = grown(for_5m, 0).response.usage
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (for_5m + 600, 0)


def test_nobody_knows_the_lifetimes_of_later_writes_if_some_were_for_an_hour():
    response = grown(400, 200).response
    assert response.cost.resolution is CostResolution.UNKNOWN
    assert response.cost.record == {"cache_creation_input_tokens": 1200, "output_tokens": 9}


def test_the_lifetimes_of_a_model_that_fell_back_are_those_of_its_iteration():
    iterations = [
        claude(10, 0, 0, 0, 2000, type="message", model="fable"),
        claude(10, 9, 0, 700, 0, type="fallback_message", model="opus"),
    ]
    end = {"input_tokens": 10, "cache_creation_input_tokens": 700, "output_tokens": 9}
    records = [claude(10, 1, 0, 0, 2000), end | {"iterations": iterations}]
    usage = streamed("anthropic", records, SONNET).response.usage
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (2700, 2000)
    assert usage.non_token_charges == "several models: fable, opus"


@pytest.mark.parametrize("name", ["cache_read_input_tokens", "cache_creation_input_tokens"])
def test_iterations_hold_all_of_the_cache_that_the_whole_tells(name):
    record = {"input_tokens": 10, "output_tokens": 5, name: 101, "iterations": [
        {"input_tokens": 10, "output_tokens": 5, name: 100}]}  # fmt: skip
    assert what_is_known_of(name, whole("anthropic", record, PLAIN), [record]) == {}


def test_a_stream_that_ends_without_its_last_counts_cost_at_least_the_first():
    events = WIRES["anthropic"].events([claude(25, 1, 4096), None])
    node = read_stream(generator_of("anthropic", PLAIN, stream_of(events)))
    cost = node.response.cost
    assert (cost.resolution, node.response.usage) == (CostResolution.UNKNOWN, None)
    assert (cost.minimum_usage.prompt_tokens, cost.minimum_usage.completion_tokens) == (4121, 1)


def test_a_failed_answer_without_input_is_not_free():
    body = {"error": {"message": "broke"}, "usage": chat(0, 0, 0)}
    generator = generator_of("openai", PLAIN, ScriptedReply.json(body, status=500))
    with pytest.raises(ServerError) as caught:
        minillmlib.run(ChatNode.root("Be brief.").chat("Hi", generator))
    assert CostTotal.of(attempt.cost for attempt in caught.value.attempts) == CostTotal(unknown=1)


# An answer that is on no bill.

STARTED = {"type": "message_start", "message": {"id": "m", "usage": claude(20, 1)}}
SAYS = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I "}}
REFUSES = {"type": "message_delta", "delta": {"stop_reason": "refusal"}, "usage": claude(20, 2)}
STOPPED = {"type": "message_stop"}


@pytest.mark.parametrize(
    ("events", "cost"),
    [([STARTED, REFUSES, STOPPED], "0"), ([STARTED, SAYS, REFUSES, STOPPED], "0.00003")],
    ids=["before any output", "in the middle of it"],
)
def test_anthropic_bills_a_refusal_only_after_it_has_begun_to_answer(events, cost):
    transport = ScriptedTransport([stream_of(events)])
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("sk")
    generator = generator.with_transport(transport).with_token_price(TokenPrice(1, 5))
    stream = ChatNode.root("s").chat_streaming("u", generator)
    list(minillmlib.iterate(stream))
    assert stream.response.cost.resolution is CostResolution.RESOLVED
    assert stream.response.cost.cost == Decimal(cost)
    assert stream.response.usage.prompt_tokens == 20


class KeepsNoRecord(AnthropicProvider):
    """Hands on some of the counts without the record they are of."""

    def __init__(self, *kinds: str) -> None:
        super().__init__()
        self._kinds = kinds

    def parse_chunk(self, data):
        chunk = super().parse_chunk(data)
        if chunk is None or not any(kind in data for kind in self._kinds):
            return chunk
        return msgspec.structs.replace(chunk, usage_record=None)


@pytest.mark.parametrize(
    "kinds", [("message_start",), ("message_delta",), ("message_start", "message_delta")]
)
def test_counts_without_their_record_are_merged_as_totals(kinds):
    reply = stream_of(WIRES["anthropic"].events([claude(25, 1), {"output_tokens": 9}]))
    generator = generator_of("anthropic", PLAIN, reply).with_provider(KeepsNoRecord(*kinds))
    usage = read_stream(generator).response.usage
    assert (usage.uncached_input_tokens, usage.completion_tokens) == (25, 9)
