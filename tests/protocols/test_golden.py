"""Recorded answers of real servers give the right response or the right typed error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from decimal import Decimal

import msgspec
import pytest
from golden_expected import ANSWERS, BROKEN_STREAMS, FAILURES, expected_of

import minillmlib
from golden import GOLDEN, LONG_STREAMS, STREAMS, golden_generator, reply_of
from minillmlib import (
    ChatNode,
    CompletionResponse,
    CostOutcome,
    CostResolution,
    GeneratorInfo,
    IncompleteStreamError,
    MiniLLMError,
)
from minillmlib.streaming.accumulator import ResponseAccumulator
from minillmlib.streaming.sse import SseDecoder
from minillmlib.testing import ScriptedReply, ScriptedTransport

RETRYABLE = {
    "IncompleteStreamError", "ModelLoadingError", "OverloadedError", "RateLimitError", "ServerError",
}  # fmt: skip


def scripted(name: str, replies: Iterable[ScriptedReply]) -> GeneratorInfo:
    """The generator for a golden file's wire, to be asked once for each reply."""
    return golden_generator(name).with_transport(ScriptedTransport(replies))


def of_the_wire(response: CompletionResponse) -> CompletionResponse:
    """A response without what the call puts into it: only what the server said is left."""
    return msgspec.structs.replace(
        response,
        request_report=None,
        attempts=(),
        raw_response=None,
        origin="",
        cost=CostOutcome.unknown(),
    )


def test_every_golden_file_has_an_expectation():
    names = {path.name for path in GOLDEN.iterdir() if path.is_file()}
    assert names == ANSWERS.keys() | FAILURES.keys() | BROKEN_STREAMS.keys()


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_to_the_last_field(name):
    expected = expected_of(name)
    root = ChatNode.root("Be brief.")
    generator = scripted(name, [reply_of(name)])
    raw = None
    if name.endswith(".sse"):
        async with root.chat_streaming("Hi", generator) as stream:
            chunks = [chunk async for chunk in stream]
        answer = stream.node
        assert stream.response == answer.response
        assert "".join(chunk.delta for chunk in chunks) == expected.content
        assert "".join(chunk.reasoning for chunk in chunks) == expected.reasoning
    else:
        answer = await root.chat("Hi", generator)
        raw = msgspec.json.decode((GOLDEN / name).read_bytes())
    assert of_the_wire(answer.response) == expected
    assert answer.response.raw_response == raw
    assert answer.response.cost.usage == expected.usage


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_node_of_an_answer_says_calls_and_shows_the_same(name):
    expected = expected_of(name)
    stream = ChatNode.root("Be brief.").chat_streaming("Hi", scripted(name, [reply_of(name)]))
    async for _ in stream:
        pass
    message = stream.node.message
    assert message.content == expected.text == (expected.content or expected.refusal_words or "")
    assert message.tool_calls == stream.node.tool_calls
    calls = [msgspec.structs.replace(call, origin="") for call in message.tool_calls]
    assert tuple(calls) == expected.tool_calls
    assert message.media == stream.node.media == expected.media


@pytest.mark.parametrize("name", [name for name in ANSWERS if name.endswith(".json")])
async def test_a_whole_answer_to_a_streaming_request_is_delivered_as_one_chunk(name):
    expected = expected_of(name)
    generator = scripted(name, [reply_of(name)])
    async with ChatNode.root("Be brief.").chat_streaming("Hi", generator) as stream:
        (chunk,) = [chunk async for chunk in stream]
    assert of_the_wire(stream.response) == expected
    for field in ("id", "model", "refusal_reason", "media", "reasoning", "usage",
                  "finish_reason", "raw_finish_reason"):  # fmt: skip
        assert getattr(chunk, field) == getattr(expected, field), field
    assert chunk.delta == expected.content
    assert chunk.refusal == expected.refusal_words
    calls = [(call.id, call.name, call.arguments) for call in expected.tool_calls]
    assert [(call.id, call.name, call.arguments) for call in chunk.tool_calls] == calls


def assert_failure(error: MiniLLMError, expected) -> None:
    assert type(error).__name__ == expected.kind
    facts = (getattr(error, field, None) for field in ("status", "code", "retry_after_secs"))
    assert tuple(facts) == (expected.status, expected.code, expected.retry_after_secs)
    assert error.request_id == expected.request_id
    assert error.partial == expected.partial
    assert expected.said in str(error)
    assert error.is_retryable == (expected.kind in RETRYABLE)


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
async def test_an_error_answer_is_the_right_error(name, streaming):
    root = ChatNode.root("Be brief.")
    generator = scripted(name, [reply_of(name, FAILURES[name].status)])
    with pytest.raises(minillmlib.ApiError) as caught:
        if streaming:
            await anext(root.chat_streaming("Hi", generator))
        else:
            await root.chat("Hi", generator)
    assert_failure(caught.value, FAILURES[name])
    assert root.children() == []


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_broken_stream_is_an_error_that_carries_the_text_so_far(name):
    root = ChatNode.root("Be brief.")
    delivered = []
    with pytest.raises(MiniLLMError) as caught:
        async with root.chat_streaming("Hi", scripted(name, [reply_of(name)])) as stream:
            async for chunk in stream:
                delivered.append(chunk.delta)
    assert_failure(caught.value, BROKEN_STREAMS[name])
    assert caught.value.partial == "".join(delivered)
    assert root.children() == []


async def test_a_resolved_cost_comes_from_the_provider_or_a_price_and_else_is_unpriced():
    name = "openai_text.json"
    price = minillmlib.TokenPrice("1", "5")
    for generator, resolution, cost in [
        (golden_generator(name), CostResolution.UNPRICED, "0"),
        (golden_generator(name).with_token_price(price), CostResolution.RESOLVED, "0.000057"),
    ]:
        asked = generator.with_transport(ScriptedTransport([reply_of(name)]))
        answer = await ChatNode.root("Be brief.").chat("Hi", asked)
        assert answer.response.cost.resolution is resolution
        assert answer.response.cost.cost == Decimal(cost)


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in LONG_STREAMS])
@pytest.mark.parametrize("breaks_off", [False, True], ids=["clean end", "broken connection"])
async def test_a_stream_cut_anywhere_is_never_a_success_before_its_end_signal(name, breaks_off):
    data = (GOLDEN / name).read_bytes()
    text = ANSWERS[name].content if name in ANSWERS else BROKEN_STREAMS[name].partial
    finishes_at = end_signal_of(name, data)
    if not breaks_off:
        finishes_at -= len(b"\n\n")  # at a proper end the JSON need only be whole
    replies = (ScriptedReply.events(data[:cut], breaks_off=breaks_off) for cut in range(len(data)))
    generator = scripted(name, replies)
    for cut in range(len(data)):
        root = ChatNode.root("Be brief.")
        delivered = []
        try:
            async for chunk in root.chat_streaming("Hi", generator):
                delivered.append(chunk.delta)
        except MiniLLMError as error:
            assert cut < finishes_at or name in BROKEN_STREAMS, f"no success when cut at {cut}"
            assert error.partial == "".join(delivered)
            assert root.children() == []
            kinds = (minillmlib.ReadError, minillmlib.ApiError, IncompleteStreamError)
            assert isinstance(error, kinds)
        else:
            assert cut >= finishes_at, f"a success when cut at {cut} of {finishes_at}"
            assert len(root.children()) == 1
        assert text.startswith("".join(delivered))


def end_signal_of(name: str, data: bytes) -> int:
    """Where the event that holds the finish reason has ended, read off the bytes by hand."""
    if name in BROKEN_STREAMS:
        return len(data)
    if name.startswith("responses"):
        return re.search(
            rb"data: ?{\"type\":\"response.(?:completed|incomplete)\".*\n\n", data
        ).end()
    word = b'"stop_reason":"' if "anthropic" in name else b'"finish_reason":"'
    return data.index(b"\n\n", data.rindex(word)) + 2


@pytest.mark.parametrize("name", LONG_STREAMS)
def test_no_byte_before_the_end_of_a_long_stream_completes_it(name):
    """As above, with one look after each byte, so that a long stream is read once."""
    data, provider = (GOLDEN / name).read_bytes(), golden_generator(name).provider
    decoder, read = SseDecoder(), provider.chunk_reader()
    accumulator = ResponseAccumulator(provider.billing.merge_usage)
    finishes_at = end_signal_of(name, data)
    text = ANSWERS[name].content if name in ANSWERS else BROKEN_STREAMS[name].partial
    with nullcontext() if name in ANSWERS else suppress(minillmlib.ApiError):
        for place in range(len(data)):
            for event in decoder.feed(data[place : place + 1]):
                chunk = read(event.data)
                if chunk is not None and not accumulator.has_ended:
                    accumulator.add(chunk)
            is_whole = name in ANSWERS and place + 1 >= finishes_at
            assert accumulator.is_complete == is_whole, f"after {place + 1} bytes"
            assert text.startswith(accumulator.text)
    assert accumulator.text == text
    if name in ANSWERS:
        assert of_the_wire(accumulator.response()) == expected_of(name)


@pytest.mark.parametrize("name", LONG_STREAMS)
def test_a_long_stream_is_the_same_in_any_two_pieces(name):
    data = (GOLDEN / name).read_bytes()
    whole = SseDecoder().feed(data)
    ends = [found.end() for found in re.finditer(rb"\n", data)]
    places = {end + step for end in ends for step in range(-2, 3)} | {*range(0, len(data), 97)}
    for place in places:
        decoder = SseDecoder()
        assert [*decoder.feed(data[:place]), *decoder.feed(data[place:])] == whole


FLAGGED = "compat_portkey_anthropic_skin_stream_flagged.sse"
GATEWAYS = [
    b'{"hook_results":{"verdict":false}}',
    b'{"gateway":{"cache":"miss"}}',
    b'{"trace_id":7}',
]
PARTS = [b'{"delta":{"text":"lost"}}', b'{"choices":[{"delta":{"content":"lost"}}]}',
         b'{"content_block":{"text":"lost"},"index":0}', b'{"usage":{"output_tokens":9}}', b"{}",
         b"[]", b'{"candidates":[{"content":{"parts":[{"text":"lost"}]}}]}']  # fmt: skip


async def read_with(event: bytes, place: str) -> str | None:
    data = (GOLDEN / FLAGGED).read_bytes()
    data = data.replace(place.encode(), b"data: " + event + b"\n\n" + place.encode(), 1)
    generator = scripted(FLAGGED, [ScriptedReply.events(data)])
    return (await ChatNode.root("Be brief.").chat_streaming("Hi", generator).collect()).text


@pytest.mark.parametrize("place", ["event: message_start", "event: message_stop"])
@pytest.mark.parametrize("event", GATEWAYS)
async def test_an_event_of_a_gateways_own_does_not_lose_the_answer(event, place):
    assert await read_with(event, place) == expected_of(FLAGGED).content


@pytest.mark.parametrize("event", PARTS)
async def test_an_event_without_a_type_that_may_be_a_part_of_the_answer_is_an_error(event):
    with pytest.raises(minillmlib.MalformedResponseError, match="no type"):
        await read_with(event, "event: message_stop")


async def test_an_event_without_a_type_that_has_a_message_is_an_error_that_quotes_it():
    with pytest.raises(minillmlib.ApiError, match="the tide is out"):
        await read_with(b'{"message":"the tide is out"}', "event: message_stop")
