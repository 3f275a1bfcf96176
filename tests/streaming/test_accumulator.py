"""Chunks add up to a response: every field that both share, and a refusal with what was written."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed_wires import Chat, Claude

import minillmlib
from minillmlib import (
    AudioPart,
    ChatNode,
    CompletionResponse,
    FinishReason,
    ImagePart,
    MalformedResponseError,
    NodeCompletionParameters,
    ReasoningBlock,
    ReasoningDelta,
    StreamChunk,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from minillmlib.json_value import memory_of
from minillmlib.streaming.accumulator import ResponseAccumulator, chunk_of, is_plain, whole_response
from minillmlib.types.usage import UsageUpdate

A, B = (TokenLogprob(token=token, logprob=-0.5) for token in "ab")
IMAGE = ImagePart(url="https://a.example/1.png")
# Of each shared field: the value of a chunk, and of the response, if that is another.
VALUES = {
    "id": ("i",),
    "model": ("m",),
    "finish_reason": (FinishReason.LENGTH,),
    "raw_finish_reason": ("cut",),
    "refusal": ("No.",),
    "refusal_reason": ("harm",),
    "tool_calls": (
        (ToolCallDelta(index=0, id="c", name="f", arguments="{}"),),
        (ToolCall(id="c", name="f", arguments="{}"),),
    ),
    "media": ((IMAGE,),),
    "reasoning": ("hm",),
    "reasoning_key": ("reasoning",),
    "logprobs": ((A, B),),
    "reasoning_blocks": (
        (ReasoningDelta(index=0, fields={"type": "t"}),),
        (ReasoningBlock(fields={"type": "t"}),),
    ),
    "usage": (Usage(uncached_input_tokens=1),),
    "usage_record": ({"in": 1},),
    "extra": ({"citations": ["a"]},),
}
SHARED = set(StreamChunk.__struct_fields__) & set(CompletionResponse.__struct_fields__)
CONTENT = ("refusal", "refusal_reason", "tool_calls", "media", "reasoning", "logprobs")


def test_what_only_a_chunk_has_is_its_text_the_end_marker_and_the_names_of_pieces():
    assert set(StreamChunk.__struct_fields__) - SHARED == {"delta", "is_end", "extra_pieces"}


@pytest.mark.parametrize("field", sorted(SHARED))
def test_a_field_of_a_chunk_is_the_responses_streamed_and_whole_and_of_the_chunk_of_it(field):
    sent, *other = VALUES[field]
    expected = other[0] if other else sent
    end = {"finish_reason": FinishReason.LENGTH, "raw_finish_reason": "cut"}
    chunk = msgspec.structs.replace(StreamChunk(**end), **{field: sent})
    accumulator = ResponseAccumulator()
    assert accumulator.add(chunk) == (field in CONTENT)
    assert bool(accumulator.chars) == (field in CONTENT or field == "reasoning_blocks")
    assert bool(accumulator.extra_chars) == (field == "extra")
    for response in (accumulator.response(), whole_response([chunk], None)):
        assert getattr(response, field) == expected
        assert getattr(chunk_of(response), field) == sent


@pytest.mark.parametrize("field", sorted({*SHARED, "is_end"} - {"raw_finish_reason"}))
def test_a_chunk_is_plain_if_it_says_nothing_but_its_text_and_whose_it_is(field):
    value = True if field == "is_end" else VALUES[field][0]
    chunk = msgspec.structs.replace(StreamChunk(delta="w"), **{field: value})
    assert is_plain(chunk) == (field in ("id", "model"))


CHUNKS = st.builds(StreamChunk, delta=st.sampled_from(["a", "\u00e9", "bc"]),
                   id=st.sampled_from(["", "1", "2"]), model=st.sampled_from(["", "m", "n"]))  # fmt: skip


@given(st.lists(CHUNKS, max_size=9), st.integers(0, 9))
def test_chunks_of_text_are_added_together_as_one_by_one(chunks, count):
    one_by_one, together = ResponseAccumulator(), ResponseAccumulator()
    for chunk in chunks:
        one_by_one.add(chunk)
    assert together.add_texts(chunks[:count], 99)
    assert together.add_texts(chunks[count:], 99)
    assert together.response() == one_by_one.response()
    assert together.memory_bytes == one_by_one.memory_bytes


def test_a_field_that_comes_in_two_chunks_is_added_up():
    pieces = ({"reasoning": "a", "refusal": "N", "media": (IMAGE,), "logprobs": (A,)},
              {"reasoning": "b", "refusal": "o", "refusal_reason": "harm", "media": (IMAGE,),
               "logprobs": (B, A)})  # fmt: skip
    response = whole_response([StreamChunk(**piece) for piece in pieces], None)
    assert (response.reasoning, response.refusal, response.media) == ("ab", "No", (IMAGE, IMAGE))
    assert response.refusal_reason == "harm"
    assert response.logprobs == (A, B, A)


@pytest.mark.parametrize("text", ["To begin", ""])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_refusal_without_words_of_the_model_leaves_what_it_wrote(text, is_streamed):
    reply = (
        Claude.streamed(text, finish="refusal") if is_streamed else Claude.whole(text, "refusal")
    )
    wire = Claude(reply)
    params = NodeCompletionParameters(crash_on_empty_response=True)
    if is_streamed:
        stream = ChatNode.root("s").chat_streaming("u", wire.generator, params)
        assert "".join(chunk.delta for chunk in minillmlib.iterate(stream)) == text
        node = stream.node
    else:
        node = minillmlib.run(ChatNode.root("s").chat("u", wire.generator, params))
    assert (node.text or "") == node.response.text == node.response.content == text
    assert node.response.refusal == node.response.refusal_reason
    assert node.response.refusal == "the model refused (no reason given)"
    assert node.response.refusal_words is None
    assert node.response.finish_reason is FinishReason.CONTENT_FILTER


@pytest.mark.parametrize("text", ["To begin", ""])
def test_words_with_which_the_model_refuses_are_its_text_if_it_wrote_nothing_else(text):
    node = minillmlib.run(
        ChatNode.root("s").chat("u", Chat(Chat.whole(text, refusal="I will not.")).generator)
    )
    assert node.text == node.response.text == (text or "I will not.")
    assert (node.response.refusal, node.response.refusal_reason) == ("I will not.", None)


def test_a_refusal_always_says_that_and_why():
    assert CompletionResponse(refusal_reason="harm").refusal == "harm"
    assert CompletionResponse(refusal="No.", refusal_reason="harm").refusal == "No."
    assert CompletionResponse(refusal="No.", refusal_reason="harm").text == "No."


# What each kind of content counts for, and when the parts of an answer are final.

SOUND = AudioPart(data=b"abc", media_type="audio/wav")
CALL_BYTES = MEDIUM_BYTES = KEY_BYTES = 320
BLOCK_BYTES, FIELD_BYTES = 256, 128


def added(*chunks: StreamChunk) -> ResponseAccumulator:
    accumulator = ResponseAccumulator()
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator


def call(index: int | None, arguments: str = "", **fields) -> StreamChunk:
    return StreamChunk(tool_calls=(ToolCallDelta(index=index, arguments=arguments, **fields),))


def block(index: int, **fields) -> StreamChunk:
    return StreamChunk(reasoning_blocks=(ReasoningDelta(index=index, fields=fields),))


def extra(*pieces: str, **values) -> StreamChunk:
    return StreamChunk(extra=values, extra_pieces=pieces)


COUNTED = {
    "nothing": ([StreamChunk()], 0, 0, 0),
    "a text": ([StreamChunk(delta="ab"), StreamChunk(delta="c")], 3, 0, 3),
    "a wide text": ([StreamChunk(delta="a\u00e9")], 2, 0, 8),
    "a wide thought": ([StreamChunk(reasoning="\u00e9"), StreamChunk(delta="a")], 2, 0, 8),
    "wide arguments": ([call(0, "\u00e9", id="c", name="fu")], 324, 0, 4 * 324),
    "two calls": ([call(0, "{", id="c", name="fu"), call(0, "}"), call(1, id="d", name="g")],
                  3 + 2 + 2 + 2 * CALL_BYTES, 0, 7 + 2 * CALL_BYTES),
    "a refusal": ([StreamChunk(refusal="No", refusal_reason="harm")], 6, 0, 6),
    "an image": ([StreamChunk(media=(IMAGE,))], MEDIUM_BYTES, 0, MEDIUM_BYTES),
    "two sounds": ([StreamChunk(media=(SOUND, SOUND))], 6 + 2 * MEDIUM_BYTES, 0,
                   6 + 2 * MEDIUM_BYTES),
    "a block": ([block(0, thinking="hm"), block(0, thinking="!")], BLOCK_BYTES + FIELD_BYTES + 3, 0,
                BLOCK_BYTES + FIELD_BYTES + 3),
    "a wide block": ([block(0, thinking="\u00e9")], BLOCK_BYTES + FIELD_BYTES + 1, 0,
                     4 * (BLOCK_BYTES + FIELD_BYTES + 1)),
    "two blocks": ([block(0, thinking="hm"), block(1, text="a")],
                   2 * (BLOCK_BYTES + FIELD_BYTES) + 3, 0, 2 * (BLOCK_BYTES + FIELD_BYTES) + 3),
    "a key": ([extra(key="abcd")], 0, 7, 7 + KEY_BYTES),
    "a key that grows": ([extra(key="ab"), extra(key="abcdef")], 0, 9, 9 + KEY_BYTES),
    "a key that shrinks": ([extra(key="abcdef"), extra(key="ab")], 0, 5, 5 + KEY_BYTES),
    "a key that stays": ([extra(key="ab"), extra(key="ab")], 0, 5, 5 + KEY_BYTES),
    "two keys": ([extra(one="a"), extra(two="b")], 0, 8, 8 + 2 * KEY_BYTES),
    "a key in pieces": ([extra("key", key="ab"), extra("key", key="c")], 0, 6,
                        6 + KEY_BYTES + 2 * 72),
    "two keys in pieces": ([extra("k", "l", k="ab", l="c")], 0, 5, 5 + 2 * (KEY_BYTES + 72)),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_everything_in_an_answer_counts_against_its_limits(name):
    chunks, chars, extra_chars, memory = COUNTED[name]
    accumulator = added(*chunks)
    assert accumulator.chars == chars
    assert accumulator.extra_chars == extra_chars
    assert accumulator.memory_bytes == memory


def test_what_a_call_or_a_key_holds_besides_counts_as_much_as_it_takes():
    values = {"a": [1, 2, {"b": "c"}]}
    plain = added(call(0, id="c", name="f")).chars
    assert added(call(0, id="c", name="f", extra=values)).chars == plain + memory_of(values)
    assert added(extra(key=values)).extra_chars == 3 + memory_of(values)
    assert added(block(0, more=values)).chars == BLOCK_BYTES + FIELD_BYTES + memory_of(values)
    logprobs = (A, B)
    assert added(StreamChunk(logprobs=logprobs)).chars == memory_of(logprobs)


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        (["a"], "a"),
        (["a", "b", "c"], "abc"),
        (["a", "a", "a"], "a"),
        ([[1], [], [2, 3]], [1, 2, 3]),
        ([[1], "a", [2]], [2]),
        (["a", 1], 1),
        ([1, 2, 3], 3),
        ([{"a": 1}], {"a": 1}),
        ([{"a": 1, "b": "x", "c": [1]}, {"a": 2, "b": "y", "c": [2]}], {"a": 2, "b": "y", "c": [1, 2]}),
        ([{"a": {"b": 1}}, {"a": {"c": 2}}, {"d": 3}], {"a": {"c": 2}, "d": 3}),
        ([{"a": 1}, None], None),
    ],
)  # fmt: skip
def test_pieces_of_a_key_become_one_value(values, joined):
    chunks = [extra("k", k=value) for value in values]
    assert added(*chunks, extra(other=1)).response().extra == {"k": joined, "other": 1}


def test_of_a_key_that_is_not_in_pieces_the_last_value_counts_at_any_depth():
    deep: list[list] = [["old"], ["new"]]
    for _ in range(10_000):
        deep = [[value] for value in deep]
    old, new = deep
    found = added(extra(k=old, l=1), extra(k=new, l=2)).response().extra
    assert found["k"] is new
    assert found["l"] == 2


def test_images_come_before_the_sound_whose_pieces_are_one():
    other = AudioPart(data=b"def", media_type="audio/mp3")
    response = added(StreamChunk(media=(SOUND, IMAGE)), StreamChunk(media=(other,))).response()
    assert response.media == (IMAGE, AudioPart(data=b"abcdef", media_type="audio/wav"))
    assert added(StreamChunk(media=(SOUND,))).response().media == (SOUND,)


STOP, CALLS, LENGTH, FILTER = (
    FinishReason.STOP, FinishReason.TOOL_CALLS, FinishReason.LENGTH, FinishReason.CONTENT_FILTER,
)  # fmt: skip


def end(reason: FinishReason, raw: str = "", **fields) -> StreamChunk:
    return StreamChunk(finish_reason=reason, raw_finish_reason=raw or str(reason), **fields)


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([STOP], STOP),
        ([STOP, CALLS], STOP),
        ([CALLS, STOP], CALLS),
        ([STOP, LENGTH], LENGTH),
        ([CALLS, FILTER], FILTER),
        ([LENGTH, STOP], LENGTH),
        ([LENGTH, FILTER], LENGTH),
        ([STOP, FILTER, LENGTH], FILTER),
    ],
)
def test_of_several_reasons_the_first_counts_unless_a_later_one_is_not_plain(reasons, expected):
    accumulator = added(StreamChunk(delta="a"), *map(end, reasons))
    assert accumulator.finish_reason is expected
    assert accumulator.raw_finish_reason == str(expected)
    assert accumulator.is_complete
    assert not accumulator.is_finish_refuted


COUNTS = Usage(uncached_input_tokens=3)
MORE = Usage(uncached_input_tokens=5)
NONE = Usage(completion_tokens=2)  # a prompt is never empty
LAST = StreamChunk(is_end=True)
TEXT = StreamChunk(delta="a")


def counts(usage: Usage | None, **record: int) -> StreamChunk:
    return StreamChunk(usage=usage, usage_record=record or None)


# The chunks; the counts that are final, those so far, and the record that is not the bill.
BILLS = {
    "none": ([TEXT, end(STOP)], None, None, None),
    "before the reason": ([TEXT, counts(COUNTS, n=3), end(STOP)], None, COUNTS, {"n": 3}),
    "with the reason": ([TEXT, end(STOP, usage=COUNTS, usage_record={"n": 3})], COUNTS, COUNTS, None),
    "after the reason": ([TEXT, end(STOP), counts(COUNTS, n=3)], COUNTS, COUNTS, None),
    "without input": ([TEXT, end(STOP), counts(NONE, n=2)], None, None, {"n": 2}),
    "unreadable": ([TEXT, end(STOP), counts(None, n=2)], None, None, {"n": 2}),
    "of a reason that content follows": (
        [TEXT, end(STOP), counts(COUNTS, n=3), TEXT], None, COUNTS, {"n": 3}),
    "before the end marker": ([TEXT, counts(COUNTS, n=3), LAST], COUNTS, COUNTS, None),
    "before text and the end marker": ([counts(COUNTS, n=3), TEXT, LAST], None, COUNTS, {"n": 3}),
    "before a call and the end marker": (
        [counts(COUNTS, n=3), call(0, "{}", name="f"), LAST], None, COUNTS, {"n": 3}),
    "twice": ([counts(COUNTS, n=3), TEXT, end(STOP), counts(MORE, n=5)], MORE, MORE, None),
    "early, then the reason": (
        [TEXT, counts(COUNTS, n=3), end(STOP), LAST], None, COUNTS, {"n": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", BILLS)
def test_counts_are_the_bill_if_nothing_of_the_answer_follows_them(name):
    chunks, final, so_far, record = BILLS[name]
    accumulator = added(*chunks)
    assert (accumulator.usage, accumulator.partial_usage) == (final, so_far)
    assert accumulator.usage_record == record
    response = accumulator.response()
    assert (response.usage, response.usage_record) == (final, record)


def test_records_of_counts_are_merged_as_the_wire_says():
    def merge(old: UsageUpdate, new: UsageUpdate) -> UsageUpdate:
        return UsageUpdate(usage=MORE, record={**old.record, **new.record})

    accumulator = ResponseAccumulator(merge)
    for chunk in (counts(COUNTS, a=1), counts(None, b=2)):
        accumulator.add(chunk)
    assert (accumulator.partial_usage, accumulator.last_record) == (MORE, {"b": 2})
    assert accumulator.usage_record == {"b": 2}
    unreadable = ResponseAccumulator(lambda _, new: new)
    for chunk in (counts(COUNTS, a=1), counts(None, b=2)):
        unreadable.add(chunk)
    assert (unreadable.partial_usage, unreadable.usage_record) == (None, {"b": 2})


@pytest.mark.parametrize(
    ("chunks", "is_complete"),
    [
        ([], False),
        ([TEXT], False),
        ([LAST], False),
        ([TEXT, LAST], True),
        ([StreamChunk(reasoning="a"), LAST], False),
        ([call(0, "{}", name="f"), LAST], True),
        ([call(0, "{", name="f"), LAST], False),
        ([call(0, "{}", name="f"), call(1, "{", name="g"), LAST], False),
        ([call(0, "{}", name="f")], False),
        ([end(LENGTH)], True),
        ([end(STOP), TEXT], False),
        ([end(STOP), TEXT, end(STOP)], True),
        ([end(STOP), StreamChunk(reasoning="a")], False),
        ([end(STOP), block(0, signature="s")], True),
        ([end(STOP), extra(k=1)], True),
    ],
)
def test_an_answer_is_complete_once_the_wire_said_so(chunks, is_complete):
    accumulator = added(*chunks)
    assert accumulator.is_complete is is_complete
    is_refuted = bool(chunks) and chunks[0] == end(STOP) and not (is_complete and len(chunks) == 2)
    assert accumulator.is_finish_refuted is is_refuted


WHOLE_CALL, CUT_CALL = call(0, "{}", name="f"), call(0, "{", name="f")
REFUSED, ACCUSED = StreamChunk(refusal="No."), StreamChunk(refusal_reason="harm")


@pytest.mark.parametrize(
    ("chunks", "reason", "expected"),
    [
        ([TEXT], None, FinishReason.UNKNOWN),
        ([TEXT], STOP, STOP),
        ([TEXT], CALLS, STOP),
        ([TEXT], LENGTH, LENGTH),
        ([WHOLE_CALL], None, CALLS),
        ([WHOLE_CALL], STOP, CALLS),
        ([WHOLE_CALL], CALLS, CALLS),
        ([WHOLE_CALL], LENGTH, LENGTH),
        ([CUT_CALL], None, FinishReason.UNKNOWN),
        ([CUT_CALL], STOP, CALLS),
        ([WHOLE_CALL, call(1, "{", name="g")], None, FinishReason.UNKNOWN),
        ([REFUSED], None, FILTER),
        ([REFUSED], STOP, FILTER),
        ([REFUSED], CALLS, FILTER),
        ([REFUSED], LENGTH, LENGTH),
        ([ACCUSED], STOP, FILTER),
        ([REFUSED, WHOLE_CALL], STOP, CALLS),
        ([REFUSED, CUT_CALL], None, FILTER),
    ],
)
def test_what_an_answer_holds_outranks_a_plain_reason(chunks, reason, expected):
    ends = [] if reason is None else [end(reason, "raw")]
    assert added(*chunks, *ends).response().finish_reason is expected
    whole = whole_response([*chunks, *ends], None)
    assert whole.finish_reason is expected
    assert whole.raw_finish_reason == ("raw" if ends else None)


def test_a_whole_answer_has_every_field_of_its_chunks():
    chunk = end(STOP, "end", id="i", model="m", delta="a", usage=COUNTS, usage_record={"n": 3},
                extra={"k": 1})  # fmt: skip
    expected = CompletionResponse(
        id="i", model="m", content="a", finish_reason=STOP, raw_finish_reason="end", usage=COUNTS,
        extra={"k": 1}, raw_response={"raw": 1},
    )  # fmt: skip
    assert whole_response([chunk], {"raw": 1}) == expected
    thought = msgspec.structs.replace(chunk, reasoning="hm")
    assert whole_response([thought], {"raw": 1}) == msgspec.structs.replace(
        expected, reasoning="hm"
    )
    parts = [StreamChunk(id="i", model="l", delta="b", usage=MORE), chunk]
    assert whole_response(parts, {"raw": 1}) == msgspec.structs.replace(expected, content="ba")
    unreadable = msgspec.structs.replace(chunk, usage=NONE)
    for chunks in ([unreadable], [StreamChunk(reasoning="hm"), unreadable]):
        whole = whole_response(chunks, None)
        assert (whole.usage, whole.usage_record) == (None, {"n": 3})


def test_the_first_id_and_the_last_model_are_those_of_the_answer():
    chunks = [StreamChunk(model="m"), StreamChunk(id="1", delta="a"),
              StreamChunk(id="2", model="n"), StreamChunk(id="", model="")]  # fmt: skip
    response = added(*chunks).response()
    assert (response.id, response.model) == ("1", "n")


def test_a_call_without_a_name_makes_the_answer_unusable():
    accumulator = added(call(0, "{}", name="f"), call(1, id="c"), call(2, name="g"))
    with pytest.raises(MalformedResponseError) as caught:
        accumulator.check()
    assert str(caught.value) == "the answer holds a tool call without a name (number 2 of 3)"
    with pytest.raises(MalformedResponseError):
        whole_response([call(0, id="c")], None)


def test_the_chunk_of_an_answer_numbers_its_calls_and_blocks():
    made = [ToolCall(id=one, name=one, arguments="{}", extra={"x": one}) for one in "ab"]
    blocks = [ReasoningBlock(fields={"type": one}) for one in "cd"]
    response = CompletionResponse(content="t", tool_calls=made, reasoning_blocks=blocks)
    chunk = chunk_of(response)
    assert chunk.delta == "t"
    assert chunk.tool_calls == tuple(
        ToolCallDelta(index=n, id=one, name=one, arguments="{}", extra={"x": one})
        for n, one in enumerate("ab")
    )
    assert chunk.reasoning_blocks == tuple(
        ReasoningDelta(index=n, fields={"type": one}) for n, one in enumerate("cd")
    )
    assert chunk.refusal is None


def test_a_block_knows_how_much_text_and_how_many_calls_came_before_it():
    response = added(
        StreamChunk(delta="ab", reasoning="long thought"), call(0, "{}", id="c", name="f"),
        block(0, thinking="x"), StreamChunk(delta="cde", refusal="No"), block(1, thinking="y"),
        call(1, "{}", id="d", name="g"), block(1, thinking="z"), block(2, data="w"),
    ).response()  # fmt: skip
    assert response.reasoning_blocks == (
        ReasoningBlock(fields={"thinking": "x"}, text_before=2, calls_before=1),
        ReasoningBlock(fields={"thinking": "yz"}, text_before=5, calls_before=1),
        ReasoningBlock(fields={"data": "w"}, text_before=5, calls_before=2),
    )


def test_the_input_of_a_block_is_no_call_and_that_of_a_call_no_block():
    vendors = StreamChunk(
        reasoning_blocks=(ReasoningDelta(index=3, fields={"input": '{"q":'}),),
        tool_calls=(ToolCallDelta(index=3, arguments='{"q":'),),
    )
    response = added(block(3, type="server_tool_use", input={}), vendors).response()
    assert (len(response.reasoning_blocks), response.tool_calls) == (1, ())
    response = added(call(3, id="c", name="f"), vendors).response()
    assert response.reasoning_blocks == ()
    assert [one.arguments for one in response.tool_calls] == ['{"q":']
    named = msgspec.structs.replace(
        vendors, tool_calls=(ToolCallDelta(index=3, name="g", arguments="{}"),)
    )
    response = added(block(3, type="server_tool_use", input={}), named).response()
    assert [(one.name, one.arguments) for one in response.tool_calls] == [("g", "{}")]


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        (["reasoning"], "reasoning"),
        (["", "reasoning", ""], "reasoning"),
        (["reasoning", "reasoning_details"], "reasoning_details"),
        (["reasoning_details", "reasoning"], "reasoning_details"),
        (["content", "reasoning_content", "reasoning"], "reasoning_content"),
        (["other"], "other"),
        (["other", "another"], "another"),
        (["other", ""], "other"),
    ],
)
def test_of_several_names_of_the_reasoning_the_one_that_is_sent_back_is_kept(keys, kept):
    accumulator = added(*(StreamChunk(reasoning_key=key) for key in keys))
    assert accumulator.response().reasoning_key == kept


def test_texts_beyond_a_limit_or_after_an_end_are_not_added_together():
    two = [StreamChunk(delta="ab"), StreamChunk(delta="c", id="i", model="m")]
    accumulator = ResponseAccumulator()
    assert not accumulator.add_texts(two, 2)
    assert (accumulator.text, accumulator.chars, accumulator.id) == ("", 0, "")
    assert accumulator.add_texts(two, 3)
    assert (accumulator.text, accumulator.chars, accumulator.model) == ("abc", 3, "m")
    assert not accumulator.add_texts([StreamChunk(delta="d")], 3)
    assert accumulator.add_texts([StreamChunk()], 3)
    accumulator.add(end(STOP))
    assert not accumulator.add_texts([StreamChunk(delta="d")], 99)
    assert accumulator.text == "abc"
    counted = added(counts(COUNTS, n=3), LAST)
    assert counted.usage == COUNTS
    assert counted.add_texts([TEXT], 99)
    assert counted.usage is None  # the counts are older than the text


def test_a_text_stays_the_same_however_often_its_pieces_are_joined():
    accumulator = ResponseAccumulator()
    for number in range(3000):
        accumulator.add(StreamChunk(delta=f"{number},"))
        accumulator.join_pieces()
    assert accumulator.text == "".join(f"{number}," for number in range(3000))
