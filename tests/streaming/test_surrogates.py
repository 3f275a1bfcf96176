"""Characters that a server cut into two halves, each in an event of its own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minillmlib
from minillmlib import (
    ChatNode,
    FinishReason,
    GeneratorInfo,
    ReasoningDelta,
    StreamChunk,
    ToolCallDelta,
)
from minillmlib.streaming.surrogates import SurrogateJoiner
from minillmlib.testing import ScriptedReply, ScriptedTransport

FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
GRIN = "\U0001f600"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"  # half a pair is an escape


def chat(*deltas: dict, finish: dict = FINISH) -> ChatNode:
    events = [event({"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return played(generator, *events, event(finish), b"data: [DONE]\n\n")


def claude(*events: dict) -> ChatNode:
    start = {"type": "message_start", "message": {"id": "m", "model": "c", "content": []}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}
    stop = {"type": "message_stop"}
    generator = GeneratorInfo.anthropic("claude-haiku-4-5").with_api_key("k")
    return played(generator, *map(event, (start, *events, end, stop)))


def played(generator: GeneratorInfo, *events: bytes) -> ChatNode:
    transport = ScriptedTransport([ScriptedReply.events(*events)])
    stream = ChatNode.root("s").chat_streaming("q", generator.with_transport(transport))
    chunks = list(minillmlib.iterate(stream))
    for chunk in chunks:
        texts = (chunk.delta, chunk.reasoning, *(c.arguments for c in chunk.tool_calls))
        "".join(texts).encode()  # no piece has half a pair
    assert "".join(chunk.delta for chunk in chunks) == stream.node.response.content
    return stream.node


def text(*pieces: str) -> list[dict]:
    return [{"content": piece} for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["hi \ud83d", "\ude00 there"], f"hi {GRIN} there"),
        (["\ud83d", "\ude00", "\ud83d", "\ude00"], GRIN * 2),
        (["\ud83d", "", "\ude00"], GRIN),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a", "\ude00b"], "a\ufffdb"),
        (["\ude00\ud83d", "\ud83d\ude00"], f"\ufffd\ufffd{GRIN}"),
        (["end \ud83d"], "end \ufffd"),
        (["é\ud83d", "\ude00é"], f"é{GRIN}é"),
        (["a\ud83db", "c"], "a\ufffdbc"),
    ],
)
def test_the_halves_of_a_text_are_joined_and_a_lone_one_is_replaced(pieces, whole):
    assert chat(*text(*pieces)).text == whole
    blocks = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces
    ]
    assert claude(*blocks).text == whole


def test_a_half_that_comes_with_the_end_of_the_stream_is_not_lost():
    last = {"choices": [{"index": 0, "delta": {"content": "\ude00!"}, "finish_reason": "stop"}]}
    assert chat(*text("a\ud83d"), finish=last).text == f"a{GRIN}!"


def test_reasoning_and_text_between_its_halves_do_not_mix():
    deltas = [{"reasoning_content": "\ud83d"}, {"content": "x"}, {"reasoning_content": "\ude00"}]
    node = chat(*deltas)
    assert (node.text, node.response.reasoning) == ("x", GRIN)


def test_arguments_of_calls_that_come_by_turns_are_joined_each():
    def piece(index: int, arguments: str, **more) -> dict:
        function = {"arguments": arguments, **more}
        return {"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]}

    node = chat(
        piece(0, '{"a": "\ud83d', name="f"), piece(1, '{"b": "\ud83c', name="g"),
        piece(0, '\ude00"}'), piece(1, '\udf89"}'),
    )  # fmt: skip
    assert [call.arguments_json() for call in node.tool_calls] == [{"a": GRIN}, {"b": "\U0001f389"}]


def test_a_half_at_the_very_end_of_arguments_or_thoughts_is_one_replacement():
    function = {"name": "f", "arguments": "{}\ud83d"}
    node = chat({"tool_calls": [{"index": 0, "id": "c", "function": function}]})
    assert [call.arguments for call in node.tool_calls] == ["{}\ufffd"]
    thoughts = {"type": "thinking", "thinking": "", "signature": ""}
    last = {"type": "thinking_delta", "thinking": "hm \ud83d"}
    node = claude(
        {"type": "content_block_start", "index": 0, "content_block": thoughts},
        {"type": "content_block_delta", "index": 0, "delta": last},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "text", "text": "ok"},
        },
    )
    (sealed,) = node.response.reasoning_blocks
    assert (node.text, sealed.fields["thinking"]) == ("ok", "hm \ufffd")


def test_what_a_call_holds_besides_stays_with_it():
    extra = {"extra_content": {"google": {"thought_signature": "s\ud83d"}}}
    function = {"name": "f", "arguments": '{"a": "\ud83d'}
    node = chat(
        {"tool_calls": [{"index": 0, "id": "c", "function": function, **extra}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '\ude00"}'}}]},
    )
    (call,) = node.tool_calls
    assert call.arguments_json() == {"a": GRIN}
    assert call.extra == {"extra_content": {"google": {"thought_signature": "s\ufffd"}}}


def test_claudes_arguments_and_sealed_thoughts_are_joined():
    def block(index: int, **start) -> dict:
        return {"type": "content_block_start", "index": index, "content_block": start}

    def delta(index: int, **fields) -> dict:
        return {"type": "content_block_delta", "index": index, "delta": fields}

    node = claude(
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="hm \ud83d"),
        delta(0, type="thinking_delta", thinking="\ude00"),
        delta(0, type="signature_delta", signature="s"),
        block(1, type="tool_use", id="t", name="f", input={}),
        delta(1, type="input_json_delta", partial_json='{"a": "\ud83d'),
        delta(1, type="input_json_delta", partial_json='\ude00"}'),
    )
    (call,) = node.tool_calls
    (sealed,) = node.response.reasoning_blocks
    assert call.arguments_json() == {"a": GRIN}
    assert node.response.reasoning == sealed.fields["thinking"] == f"hm {GRIN}"


def test_a_half_in_a_place_that_is_no_text_of_the_answer_is_replaced():
    last = {**FINISH, "id": "\ud83d", "model": "m\ude00", "usage": {"\ud83d": "\ude00"}}
    response = chat(*text("ok"), finish=last).response
    assert (response.content, response.model) == ("ok", "m\ufffd")
    assert response.finish_reason is minillmlib.FinishReason.STOP
    json.dumps(response.usage_record, ensure_ascii=False).encode()


def test_what_only_looks_like_a_half_stays_as_it_is():
    assert chat(*text(r"\\ud83d is no escape", "!")).text == r"\\ud83d is no escape!"
    assert chat(*text("é \ud83d\ude00", "!")).text == f"é {GRIN}!"
    private = chat(*text("\U0010f83d is for private use, \ud83d", "!")).text
    assert private == "\U0010f83d is for private use, \ufffd!"


def test_an_error_that_quotes_half_a_character_is_still_an_error():
    error = event({"error": {"message": "no \ud83d room", "code": 503}})
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    with pytest.raises(minillmlib.ApiError, match="no \ufffd room"):
        played(generator, error)


@given(st.text(alphabet="aé\U0001f600\U0001f389", max_size=12), st.data())
def test_any_cut_between_utf16_units_gives_the_text_that_was_cut(whole, data):
    units = whole.encode("utf-16-le")
    halves = [
        units[i : i + 2].decode("utf-16-le", "surrogatepass") for i in range(0, len(units), 2)
    ]
    pieces = []
    while halves:
        size = data.draw(st.integers(1, 4))
        pieces.append("".join(halves[:size]))
        halves = halves[size:]
    joined = [
        piece.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        for piece in pieces
    ]
    assert (chat(*text("<", *joined, ">")).text) == f"<{whole}>"


# Chunk by chunk.


def chunk_from(data: str) -> StreamChunk:
    fields = json.loads(data)
    calls = tuple(ToolCallDelta(**one) for one in fields.pop("tool_calls", ()))
    blocks = tuple(ReasoningDelta(**one) for one in fields.pop("reasoning_blocks", ()))
    if "finish_reason" in fields:
        fields["finish_reason"] = FinishReason(fields["finish_reason"])
    return StreamChunk(tool_calls=calls, reasoning_blocks=blocks, **fields)


def joined(*events: dict) -> list[StreamChunk]:
    joiner = SurrogateJoiner()
    return [joiner.parse(chunk_from, json.dumps(one)) for one in events]


def call_piece(index: int | None, arguments: str, **more) -> dict:
    return {"tool_calls": [{"index": index, "arguments": arguments, **more}]}


def block_piece(index: int, **fields) -> dict:
    return {"reasoning_blocks": [{"index": index, "fields": fields}]}


LOW, HIGH, LONE = "\ud83d", "\ude00", "\ufffd"
END = {"finish_reason": "stop"}

# The events of a stream, and what becomes of each.
STREAMS = {
    "every text": (
        [{"delta": f"a{LOW}", "reasoning": f"b{LOW}", "refusal": f"c{LOW}"},
         {"delta": f"{HIGH}d", "reasoning": f"{HIGH}e", "refusal": f"{HIGH}f"}],
        [{"delta": "a", "reasoning": "b", "refusal": "c"},
         {"delta": f"{GRIN}d", "reasoning": f"{GRIN}e", "refusal": f"{GRIN}f"}]),
    "only a half": ([{"refusal": LOW}, {"refusal": HIGH}], [{}, {"refusal": GRIN}]),
    "a longer text": ([{"delta": f"abc{LOW}"}, {"delta": f"{HIGH}def{LOW}"}, {"delta": HIGH}],
                      [{"delta": "abc"}, {"delta": f"{GRIN}def"}, {"delta": GRIN}]),
    "a half that is first": ([{"delta": f"{HIGH}abc"}], [{"delta": f"{LONE}abc"}]),
    "the smallest and the largest halves": (
        [{"delta": "\ud800"}, {"delta": "\udc00\udbff"}, {"delta": "\udfff\ud7ff\ue000"}],
        [{}, {"delta": "\U00010000"}, {"delta": "\U0010ffff\ud7ff\ue000"}]),
    "the end comes with a half": ([{"delta": f"a{LOW}"} | END], [{"delta": f"a{LONE}"} | END]),
    "the end comes behind halves": (
        [{"delta": f"a{LOW}", "reasoning": LOW, "refusal": LOW}, END],
        [{"delta": "a"}, {"delta": LONE, "reasoning": LONE, "refusal": LONE} | END]),
    "the end marker comes behind a half": ([{"delta": f"a{LOW}"}, {"is_end": True}],
                                           [{"delta": "a"}, {"delta": LONE, "is_end": True}]),
    "calls by their index": (
        [call_piece(0, f"0{LOW}", id="c", name="f"), call_piece(1, f"1{LOW}"), call_piece(1, f"{HIGH}!"),
         call_piece(0, HIGH)],
        [call_piece(0, "0", id="c", name="f"), call_piece(1, "1"), call_piece(1, f"{GRIN}!"),
         call_piece(0, GRIN)]),
    "a call without an index": ([call_piece(None, LOW), call_piece(None, HIGH)],
                                [call_piece(None, ""), call_piece(None, GRIN)]),
    "what a call holds besides": (
        [call_piece(0, "", id=f"c{LOW}", name=f"f{HIGH}", extra={LOW: [HIGH, 1, None, {"a": LOW}]})],
        [call_piece(0, "", id=f"c{LONE}", name=f"f{LONE}", extra={LONE: [LONE, 1, None, {"a": LONE}]})]),
    "the end of a call": (
        [call_piece(2, LOW), END],
        [call_piece(2, ""), {"tool_calls": [{"index": 2, "arguments": LONE}]} | END]),
    "the end of a call that comes with it": (
        [call_piece(2, LOW), call_piece(3, "x") | END],
        [call_piece(2, ""), {"tool_calls": [{"index": 3, "arguments": "x"},
                                            {"index": 2, "arguments": LONE}]} | END]),
    "blocks by their index and field": (
        [block_piece(0, thinking=f"a{LOW}", n=[LOW]), block_piece(1, thinking=LOW),
         block_piece(0, text=LOW), block_piece(0, thinking=f"{HIGH}b"), block_piece(1, thinking=HIGH),
         block_piece(0, text=HIGH)],
        [block_piece(0, thinking="a", n=[LONE]), block_piece(1, thinking=""), block_piece(0, text=""),
         block_piece(0, thinking=f"{GRIN}b"), block_piece(1, thinking=GRIN), block_piece(0, text=GRIN)]),
    "the end of a block": (
        [block_piece(4, thinking=f"a{LOW}"), END],
        [block_piece(4, thinking="a"), block_piece(4, thinking=LONE) | END]),
    "other fields": (
        [{"id": LOW, "model": HIGH, "reasoning_key": LOW, "extra": {"k": LOW}, "usage_record": {LOW: 1},
          "raw_finish_reason": f"s{LOW}"} | END],
        [{"id": LONE, "model": LONE, "reasoning_key": LONE, "extra": {"k": LONE},
          "usage_record": {LONE: 1}, "raw_finish_reason": f"s{LONE}"} | END]),
    "nothing behind the end": ([{"delta": LOW} | END, {"delta": f"{HIGH}a"}],
                               [{"delta": LONE} | END, {"delta": f"{LONE}a"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_each_chunk_has_the_characters_that_are_whole_by_then(name):
    events, expected = STREAMS[name]
    assert joined(*events) == [chunk_from(json.dumps(one)) for one in expected]


@pytest.mark.parametrize("private", ["\U0010f800", "\U0010ffff"])
@pytest.mark.parametrize("is_escaped", [True, False])
def test_an_event_with_characters_for_private_use_keeps_them(private, is_escaped):
    data = json.dumps({"delta": f"{private}{LOW}"})
    if not is_escaped:
        data = data.replace(json.dumps(private)[1:-1], private)
    (chunk,) = [SurrogateJoiner().parse(chunk_from, data)]
    assert chunk.delta == f"{private}{LOW}"  # the wires' parsers replace the half themselves
    near = "\U0010f7ff"
    assert joined({"delta": f"{near}{LOW}"}, {"delta": HIGH})[0].delta == near


def test_halves_of_a_thousand_texts_wait_and_that_of_one_more_is_replaced():
    joiner = SurrogateJoiner()
    for index in range(1001):
        chunk = joiner.parse(chunk_from, json.dumps(call_piece(index, LOW)))
        assert chunk.tool_calls[0].arguments == ("" if index < 1000 else LONE)
    for index, arguments in ((0, GRIN), (999, GRIN), (1000, LONE)):
        chunk = joiner.parse(chunk_from, json.dumps(call_piece(index, HIGH)))
        assert chunk.tool_calls[0].arguments == arguments


def test_an_event_that_is_no_chunk_has_none():
    joiner = SurrogateJoiner()
    for data in ('{"delta": "a"}', json.dumps(LOW)):
        assert joiner.parse(lambda _: None, data) is None
    assert joiner.parse(chunk_from, json.dumps({"delta": LOW})).delta == ""
    assert joiner.parse(lambda _: None, "{}") is None
    assert joiner.parse(chunk_from, json.dumps({"delta": HIGH})).delta == GRIN
