"""Chunks add up to a response: every field that both share, and a refusal with what was written."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typed_wires import Chat, Claude

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionResponse,
    FinishReason,
    ImagePart,
    NodeCompletionParameters,
    ReasoningBlock,
    ReasoningDelta,
    StreamChunk,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from minillmlib.streaming.accumulator import ResponseAccumulator, chunk_of, is_plain, whole_response

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
