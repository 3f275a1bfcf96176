"""Probabilities of tokens: asked for, read whole and streamed, kept, and never a danger."""

from __future__ import annotations

import msgspec
import pytest
from sent_bodies import CHAT, CLAUDE_WIRE, asked, body_of
from short_answers import scripted

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionParameters,
    InvalidParameterError,
    LimitExceededError,
    Limits,
    TokenLogprob,
)
from minillmlib.testing import ScriptedReply

HI = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
HALF = {"token": "\ufffd", "logprob": -1, "bytes": [195]}
TOKENS = [{**HI, "top_logprobs": [HI, HALF]}, {**HALF, "top_logprobs": []}]
READ_HI = TokenLogprob(token="Hi", logprob=-0.5, bytes=b"Hi")
READ_HALF = TokenLogprob(token="\ufffd", logprob=-1.0, bytes=b"\xc3")
READ = (msgspec.structs.replace(READ_HI, top=(READ_HI, READ_HALF)), READ_HALF)


def whole(logprobs: object) -> ScriptedReply:
    choice = {"message": {"content": "Hi"}, "finish_reason": "stop", "logprobs": logprobs}
    return ScriptedReply.json({"choices": [choice]})


def streamed(*logprobs: object) -> ScriptedReply:
    choices = [{"delta": {"content": "Hi"}, "logprobs": one} for one in logprobs]
    events = [{"choices": [one]} for one in (*choices, {"delta": {}, "finish_reason": "stop"})]
    return ScriptedReply.events(*(b"data: %b\n\n" % msgspec.json.encode(one) for one in events))


def chunks_and_node(reply: ScriptedReply, limits: Limits | None = None):
    generator = scripted(reply).replace(limits=limits or Limits())
    stream = ChatNode.root("s").chat_streaming("u", generator)
    return list(minillmlib.iterate(stream)), stream.node


@pytest.mark.parametrize("provider", CHAT)
def test_the_chosen_tokens_are_asked_for_with_or_without_others(provider):
    def sent(count: int | None) -> dict:
        body = body_of(provider, asked("u"), CompletionParameters(logprobs=count))
        return {key: body[key] for key in body if "logprobs" in key}

    assert sent(3) == {"logprobs": True, "top_logprobs": 3}
    assert sent(0) == {"logprobs": True}
    assert sent(None) == {}


def test_anthropic_has_none_and_says_so():
    with pytest.raises(InvalidParameterError, match="logprobs"):
        body_of(CLAUDE_WIRE, asked("u"), CompletionParameters(logprobs=0))


@pytest.mark.parametrize("wrong", [True, -1, 1.5, "3"])
def test_another_value_than_a_count_is_an_error_that_names_the_field(wrong):
    with pytest.raises(InvalidParameterError, match="logprobs"):
        CompletionParameters(logprobs=wrong)


def test_they_are_read_whole_and_in_pieces():
    node = minillmlib.run(ChatNode.root("s").chat("u", scripted(whole({"content": TOKENS}))))
    assert node.response.logprobs == READ
    pieces = [{"content": [token]} for token in TOKENS]
    chunks, streamed_node = chunks_and_node(streamed(pieces[0], None, pieces[1]))
    assert [chunk.logprobs for chunk in chunks[:3]] == [READ[:1], (), READ[1:]]
    assert streamed_node.response.logprobs == READ


def test_a_tree_file_keeps_them(tmp_path):
    node = minillmlib.run(ChatNode.root("s").chat("u", scripted(whole({"content": TOKENS}))))
    node.root_node.save_tree(tmp_path / "t")
    (leaf,) = ChatNode.load_tree(tmp_path / "t").leaves()
    assert (leaf.id, leaf.response.logprobs) == (node.id, READ)


DEEP = {"token": "x", "logprob": 0}
for _ in range(50):
    DEEP = {**DEEP, "top_logprobs": [DEEP]}

# What a server sends, and what is understood of it.
ODD = {
    "none": (None, ()), "a text": ("x", ()), "a list": ([HI], ()), "no content": ({}, ()),
    "content null": ({"content": None}, ()), "content a number": ({"content": 7}, ()),
    "the completions wire": ({"tokens": ["Hi"], "token_logprobs": [-0.5]}, ()),
    "items that are none": ({"content": [None, 1, "x", {}, [], HI]}, (READ_HI,)),
    "a token that is a number": ({"content": [{**HI, "token": 1}, HI]}, (READ_HI,)),
    "a probability that is none": ({"content": [{**HI, "logprob": None}, HI]}, (READ_HI,)),
    "bytes that are none": (
        {"content": [{**HI, "bytes": odd} for odd in ([300], [-1], [10**30], ["a"], "Hi", 2, {})]},
        (TokenLogprob(token="Hi", logprob=-0.5),) * 7),
    "others that are none": (
        {"content": [{**HI, "top_logprobs": odd} for odd in (1, "x", {}, [1], None)]},
        (READ_HI,) * 5),
    "others within others": (
        {"content": [DEEP]},
        (TokenLogprob(token="x", logprob=0.0, top=(TokenLogprob(token="x", logprob=0.0),)),)),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_what_is_not_understood_is_left_out_and_the_answer_is_not_lost(odd):
    sent, expected = ODD[odd]
    node = minillmlib.run(ChatNode.root("s").chat("u", scripted(whole(sent))))
    assert (node.text, node.response.logprobs) == ("Hi", expected)
    _, streamed_node = chunks_and_node(streamed(sent))
    assert (streamed_node.text, streamed_node.response.logprobs) == ("Hi", expected)


def test_they_count_as_content_of_a_stream():
    with pytest.raises(LimitExceededError, match="text_chars"):
        chunks_and_node(streamed(*[{"content": TOKENS}] * 9), Limits(text_chars=1000))
