"""Whatever frame a server puts an answer in is known by its bytes, or is an error that quotes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillmlib import (
    ChatNode,
    CostResolution,
    GeneratorInfo,
    IncompleteStreamError,
    LimitExceededError,
    Limits,
    MalformedResponseError,
    MiniLLMError,
    NodeCompletionParameters,
    OverloadedError,
    ServerError,
    TokenPrice,
)
from minillmlib.streaming.sse import SseDecoder
from minillmlib.testing import ScriptedReply, ScriptedTransport

ONCE = NodeCompletionParameters(retry=0)
SSE, JSON, NDJSON = "text/event-stream", "application/json", "application/x-ndjson"
BOM = b"\xef\xbb\xbf"
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    said = {} if text is None else {"content": text}
    return {"id": "c1", "model": "m", "choices": [
        {"index": 0, "delta": said, "finish_reason": finish}]} | more  # fmt: skip


CHAT = (delta("Low "), delta("tide"), delta(None, "stop"), {"choices": [], "usage": USAGE})
CLAUDE = (
    {"type": "message_start", "message": {"id": "m1", "model": "c", "usage": {
        "input_tokens": 11, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
      for text in ("Low ", "tide")),
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
    {"type": "message_stop"},
)  # fmt: skip
WIRES = {"chat": CHAT, "anthropic": CLAUDE}
WHOLE = {
    "chat": {"id": "c1", "model": "m", "usage": USAGE, "choices": [
        {"index": 0, "message": {"content": "Low tide"}, "finish_reason": "stop"}]},
    "anthropic": {"id": "m1", "type": "message", "model": "c", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Low tide"}],
        "usage": {"input_tokens": 11, "output_tokens": 5}},
}  # fmt: skip


def sse(*events: dict[str, Any], end: bytes = b"\n\n") -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in events)[:-2] + end


def lines(*events: dict[str, Any], end: bytes = b"\n") -> bytes:
    return end.join(json.dumps(event).encode() for event in events) + end


def generator(wire: str, body: bytes, kind: str | None, size: int, **more: Any) -> GeneratorInfo:
    pieces = tuple(body[at : at + size] for at in range(0, len(body), size))
    headers = {} if kind is None else {"content-type": kind}
    reply = ScriptedReply(pieces=pieces, headers=headers, **more)
    made = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    if wire == "anthropic":
        made = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("sk-none")
    made = made.with_token_price(TokenPrice(1, 5))
    return made.with_transport(ScriptedTransport([reply]))


async def read(made: GeneratorInfo, settings: NodeCompletionParameters = ONCE) -> tuple[Any, list]:
    """The node of a stream, and what came of it piece by piece."""
    async with ChatNode.root("s").chat_streaming("u", made, settings) as stream:
        pieces = [chunk.delta async for chunk in stream if chunk.delta]
    return stream.node, pieces


async def answer_of(way: str, made: GeneratorInfo) -> Any:
    if way == "whole":
        return await ChatNode.root("s").chat("u", made, ONCE)
    return (await read(made))[0]


async def failure_of(way: str, made: GeneratorInfo) -> MiniLLMError:
    with pytest.raises(MiniLLMError) as caught:
        await answer_of(way, made)
    return caught.value


def assert_answered(node: Any) -> None:
    response = node.response
    assert node.text == "Low tide"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (11, 5)
    assert response.cost.resolution is CostResolution.RESOLVED


WAYS = pytest.mark.parametrize("way", ["whole", "streamed"])
EACH_WIRE = pytest.mark.parametrize("wire", WIRES)
SIZES = pytest.mark.parametrize("size", [1, 7, 100_000])
KINDS = [SSE, JSON, NDJSON, "text/plain; charset=utf-8", "text/html", "application/octet-stream",
         "bogus", "", None]  # fmt: skip


# Events without the blank lines between them.

FAILED = b'{"error":{"code":500,"message":"the boiler is cold"}}'
SAID = b"data: " + json.dumps(delta("Low ")).encode()
ERROR_BETWEEN_LINES = {
    "a name before": SAID + b"\nevent: error\ndata: " + FAILED,
    "a field of its own": SAID + b"\nerror: " + FAILED,
    "other names around": b"event: delta\n%s\nevent: error\ndata: %s\nevent: end\ndata: [DONE]"
    % (SAID, FAILED),
    "a name behind, as the standard has it": SAID + b"\ndata: " + FAILED + b"\nevent: error",
}  # fmt: skip


@SIZES
@pytest.mark.parametrize("name", ERROR_BETWEEN_LINES)
async def test_an_error_without_blank_lines_around_it_is_the_only_error(name, size):
    body = ERROR_BETWEEN_LINES[name] + b"\n\n"
    error = await failure_of("streamed", generator("chat", body, SSE, size))
    assert isinstance(error, ServerError)
    assert "the boiler is cold" in str(error)
    assert error.partial == "Low "


# Every frame under every name.


@WAYS
@EACH_WIRE
@SIZES
@pytest.mark.parametrize("kind", KINDS)
async def test_events_are_read_under_any_content_type(kind, size, wire, way):
    assert_answered(await answer_of(way, generator(wire, sse(*WIRES[wire]), kind, size)))


@WAYS
@EACH_WIRE
@SIZES
@pytest.mark.parametrize("kind", KINDS)
async def test_lines_of_json_are_read_under_any_content_type(kind, size, wire, way):
    assert_answered(await answer_of(way, generator(wire, lines(*WIRES[wire]), kind, size)))


@EACH_WIRE
@SIZES
@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "many lines"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_whole_answer_in_place_of_a_stream_is_read_under_any_type(kind, indent, size, wire):
    body = json.dumps(WHOLE[wire], indent=indent).encode() + b"\n\n"
    node, pieces = await read(generator(wire, body, kind, size))
    assert_answered(node)
    assert pieces == ["Low tide"]
    assert node.response.raw_response == WHOLE[wire]


START = {
    "a byte order mark": BOM,
    "blank lines": b"\r\n\n  \n",
    "a mark and blank lines": BOM + b"\n\n",
}


@WAYS
@SIZES
@pytest.mark.parametrize("frame", [sse, lines])
@pytest.mark.parametrize("start", START)
async def test_what_stands_before_the_first_bytes_is_skipped(start, frame, size, way):
    body = START[start] + frame(*CHAT)
    for kind in (SSE, JSON):
        assert_answered(await answer_of(way, generator("chat", body, kind, size)))


@WAYS
@EACH_WIRE
@SIZES
async def test_a_byte_order_mark_before_a_whole_answer_is_skipped(size, wire, way):
    body = BOM + json.dumps(WHOLE[wire]).encode()
    assert_answered(await answer_of(way, generator(wire, body, JSON, size)))


@WAYS
async def test_a_byte_order_mark_before_an_error_is_skipped(way):
    body = BOM + b'{"error": {"message": "The key is wrong.", "code": "invalid_api_key"}}'
    made = generator("chat", body, JSON, 1000, status=401)
    assert "The key is wrong." in str(await failure_of(way, made))


BEGINNINGS = {
    "a comment": b": OPENROUTER PROCESSING\n\n",
    "an id": b"id: 1\n",
    "a time to retry": b"retry: 3000\n\n",
    "a name": b"event: message\n",
    "data without a blank": b'data:{"choices":[]}\n\n',
    "a keep-alive as data": b"data: : keepalive\n\n",
}


@WAYS
@SIZES
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a_stream_is_known_by_any_field_of_an_event(beginning, size, way):
    body = BEGINNINGS[beginning] + sse(*CHAT)
    assert_answered(await answer_of(way, generator("chat", body, "text/plain", size)))


# Lines of JSON.


@WAYS
@SIZES
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b" \n\t"])
@pytest.mark.parametrize("last", [b"[DONE]", b"data: [DONE]\n\n", b""])
async def test_lines_may_end_in_any_way(last, end, size, way):
    body = lines(*CHAT, end=end) + last
    assert_answered(await answer_of(way, generator("chat", body, NDJSON, size)))


async def test_a_line_of_json_is_delivered_before_the_next_but_one_comes():
    made = generator("chat", lines(*CHAT), NDJSON, 10_000)
    reply = ScriptedReply(
        pieces=tuple(lines(event) for event in CHAT[:2]), headers={"content-type": NDJSON},
        breaks_off=True,
    )  # fmt: skip
    made, pieces = made.with_transport(ScriptedTransport([reply])), []
    with pytest.raises(MiniLLMError):
        async for chunk in ChatNode.root("s").chat_streaming("u", made, ONCE):
            pieces.append(chunk.delta)
    assert pieces == ["Low ", "tide"]


@WAYS
@pytest.mark.parametrize("cut", range(1, len(lines(*CHAT[:3])) - 3))
async def test_lines_that_are_cut_are_never_a_success(cut, way):
    made = generator("chat", lines(*CHAT[:3])[:-1][:cut], NDJSON, 10_000)
    error = await failure_of(way, made)
    assert isinstance(error, IncompleteStreamError | MalformedResponseError)


@WAYS
async def test_a_line_that_is_cut_after_the_finish_costs_only_the_counts(way):
    body = lines(*CHAT)[:-9]
    response = (await answer_of(way, generator("chat", body, NDJSON, 10_000))).response
    assert (response.content, response.usage) == ("Low tide", None)
    assert response.cost.resolution is CostResolution.UNKNOWN


@WAYS
async def test_a_bad_line_among_lines_is_an_error_with_the_text_so_far(way):
    body = lines(CHAT[0]) + b'{"choi\n' + lines(*CHAT[1:])
    error = await failure_of(way, generator("chat", body, NDJSON, 10_000))
    assert isinstance(error, MalformedResponseError)
    assert error.partial == "Low "


@WAYS
async def test_an_error_among_lines_is_raised_with_the_text_so_far(way):
    body = lines(CHAT[0], {"error": {"message": "it broke"}}, CHAT[2])
    error = await failure_of(way, generator("chat", body, NDJSON, 10_000))
    assert isinstance(error, ServerError)
    assert error.partial == "Low "
    assert "it broke" in str(error)


# The end of the body.


@WAYS
@EACH_WIRE
@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
async def test_a_last_event_without_its_blank_line_counts_if_its_json_is_whole(end, wire, way):
    made = generator(wire, sse(*WIRES[wire], end=end), SSE, 10_000)
    assert_answered(await answer_of(way, made))


@WAYS
@pytest.mark.parametrize("last", [b"data: [DONE]", b"data:[DONE]\n", b"data: [DONE] \r"])
async def test_a_last_end_marker_without_its_blank_line_counts(last, way):
    made = generator("chat", sse(delta("Low "), delta("tide")) + last, SSE, 10_000)
    assert (await answer_of(way, made)).text == "Low tide"


async def test_the_last_counts_without_a_blank_line_are_the_bill():
    made = generator("chat", sse(*CHAT, end=b""), SSE, 10_000)
    assert (await read(made))[0].response.cost.cost > 0


@WAYS
@EACH_WIRE
async def test_a_whole_event_that_is_no_end_leaves_the_answer_cut(wire, way):
    made = generator(wire, sse(*WIRES[wire][:-2], end=b""), SSE, 10_000)
    error = await failure_of(way, made)
    assert isinstance(error, IncompleteStreamError)
    assert error.partial == "Low tide"


async def test_a_broken_connection_completes_no_event():
    body = sse(delta("Low tide", "stop"), end=b"")
    made = generator("chat", body, SSE, 10_000, breaks_off=True)
    assert (await failure_of("streamed", made)).partial == ""


@WAYS
async def test_an_error_event_without_its_blank_line_is_raised(way):
    body = sse(delta("Low ")) + b"event: error\ndata: it broke"
    error = await failure_of(way, generator("chat", body, SSE, 10_000))
    assert isinstance(error, ServerError)
    assert "it broke" in str(error)
    assert error.partial == "Low "


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), JSON_VALUES), min_size=1, max_size=4), st.data())
def test_a_cut_stream_has_no_event_that_the_whole_one_has_not(events, data):
    body = sse(*events)
    cut = data.draw(st.integers(0, len(body)))
    whole, decoder = SseDecoder().feed(body), SseDecoder()
    found = decoder.feed(body[:cut]) + decoder.finish()
    assert found == whole[: len(found)]


@WAYS
@EACH_WIRE
@SIZES
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_events_parted_by_single_line_ends_are_read(end, size, wire, way):
    events = (json.dumps(event).encode() for event in WIRES[wire])
    body = b"".join(b"event: x%sdata: %s%s" % (end, event, end) for event in events)
    for last in (b"", b"data: [DONE]" + end) if wire == "chat" else (b"",):
        assert_answered(await answer_of(way, generator(wire, body + last, SSE, size)))


async def test_one_json_over_many_data_lines_is_one_event():
    body = b"".join(
        b"".join(b"data: %s\n" % line.encode() for line in json.dumps(event, indent=1).split("\n"))
        + b"\n"
        for event in CHAT
    )
    assert_answered((await read(generator("chat", body, SSE, 10_000)))[0])


# A stream though none was asked.


async def test_a_stream_that_was_not_asked_has_its_calls():
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at":'}}
    more = {"index": 0, "function": {"arguments": ' "sea"}'}}
    body = sse(
        {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [more]}, "finish_reason": "tool_calls"}]},
    )
    node = await answer_of("whole", generator("chat", body, JSON, 10_000))
    assert [(c.id, c.name, c.arguments_json()) for c in node.tool_calls] == [
        ("c1", "look", {"at": "sea"})
    ]


async def test_a_stream_that_was_not_asked_begins_with_the_forced_prefix_once():
    settings = ONCE.with_force_prepend("Low ")
    for texts in (("Low ", "tide"), ("ti", "de")):
        body = sse(*map(delta, texts), delta(None, "stop"))
        node = await ChatNode.root("s").chat("u", generator("chat", body, SSE, 10_000), settings)
        assert node.text == "Low tide"


async def test_a_stream_that_was_not_asked_and_is_cut_is_tried_again():
    cut, good = sse(CHAT[0]), sse(*CHAT)
    replies = [ScriptedReply.events(body) for body in (cut, good)]
    made = generator("chat", b"", SSE, 1).with_transport(ScriptedTransport(replies))
    settings = NodeCompletionParameters(retry=1, back_off_time=0)
    node = await ChatNode.root("s").chat("u", made, settings)
    assert_answered(node)
    assert [attempt.error for attempt in node.response.attempts] == ["IncompleteStreamError", None]


async def test_what_a_cut_stream_that_was_not_asked_cost_at_least_is_known():
    body = sse(*CLAUDE[:4])
    error = await failure_of("whole", generator("anthropic", body, SSE, 10_000))
    assert error.partial == "Low tide"
    (attempt,) = error.attempts
    assert attempt.cost.minimum_usage.prompt_tokens == 11
    assert attempt.response_id == "m1"


# What is not understood.

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
PROSE = b"upstream connect error or disconnect/reset before headers"
NO_FRAMES = {"a page": PAGE, "prose": PROSE, "a number": b"42", "a text": b'"Low tide"',
             "UTF-16": '{"choices": []}'.encode("utf-16"), "XML": b"<?xml version='1.0'?><a/>",
             "compressed": b"\x1f\x8b\x08\0\0\0"}  # fmt: skip


@WAYS
@SIZES
@pytest.mark.parametrize("kind", [SSE, JSON, "text/plain", None])
@pytest.mark.parametrize("name", NO_FRAMES)
async def test_another_frame_is_an_error_that_quotes_its_first_bytes(name, kind, size, way):
    error = await failure_of(way, generator("chat", NO_FRAMES[name], kind, size))
    assert isinstance(error, MalformedResponseError | IncompleteStreamError)
    quoted = {"a page": "Sign in", "prose": "upstream connect error", "XML": "<?xml version"}
    assert quoted.get(name, "") in str(error)


RAW_ERROR = {"error": {"code": 503, "message": "The model is overloaded."}}


@WAYS
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("raw", [RAW_ERROR, [RAW_ERROR]], ids=["an object", "a list"])
async def test_an_error_between_events_is_raised_as_such(raw, indent, way):
    body = sse(CHAT[0]) + json.dumps(raw, indent=indent).encode() + b"\n"
    error = await failure_of(way, generator("chat", body, SSE, 10_000))
    assert isinstance(error, OverloadedError)
    assert error.partial == "Low "


@WAYS
async def test_text_between_events_of_a_cut_stream_is_quoted(way):
    body = sse(CHAT[0]) + b"Traceback (most recent call last):\n\n"
    error = await failure_of(way, generator("chat", body, SSE, 10_000))
    assert isinstance(error, IncompleteStreamError)
    assert "Traceback (most recent call last):" in str(error)


async def test_a_key_that_is_echoed_between_events_is_not_quoted():
    made = generator("chat", sse(CHAT[0]) + b"bad key sk-very-secret-1234567\n\n", SSE, 10_000)
    error = await failure_of("streamed", made.with_api_key("sk-very-secret-1234567"))
    assert "bad key" in str(error)
    assert "sk-very-secret" not in str(error)


# Limits.


@pytest.mark.parametrize(
    ("limits", "body"),
    [
        (Limits(event_bytes=1000), lines(*CHAT[:2], delta("x" * 2000))),
        (Limits(event_bytes=1000), lines(*CHAT[:2]) + b'{"' + b"x" * 5000),
        (Limits(body_bytes=1000), b'{"x":"' + b"x" * 5000),
        (Limits(body_bytes=1000), b"{\n" + b" " * 5000),
        (Limits(body_bytes=1000, event_bytes=1000), b"no frame " * 500),
        (Limits(json_values=10), b"{\n" + b'"x":[' + b"1," * 100 + b"1]}"),
        (Limits(json_values=20), lines(*CHAT[:1]) * 2 + b"[" + b"1," * 100 + b"1]\n"),
        (Limits(json_values=20), sse(*CHAT[:1]) + b"data: [" + b"1," * 100 + b"1]"),
        (Limits(stream_bytes=1000), b"\n" * 5000),
    ],
)
@pytest.mark.parametrize("kind", [SSE, JSON])
async def test_no_frame_escapes_the_limits(kind, limits, body):
    error = await failure_of("streamed", generator("chat", body, kind, 500).replace(limits=limits))
    assert isinstance(error, LimitExceededError)
