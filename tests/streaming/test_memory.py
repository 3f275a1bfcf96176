"""No answer, however many small things it is made of, takes more than twice the limit in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from memory_child import KINDS, LIMIT, SPARE
from short_answers import scripted, streamed

from minillmlib import (
    AnthropicProvider,
    ChatNode,
    LimitExceededError,
    Limits,
    NodeCompletionParameters,
    run,
)
from minillmlib.testing import ScriptedReply

ONCE = NodeCompletionParameters(retry=0)
MAX_CHARS = 4000  # of an error's message

# What does not end with a `LimitExceededError`: it is refused sooner, is an error of the server,
# or is a good answer within the limits.
OTHER_ENDS = {
    "chat: halves of characters": "MalformedResponseError",
    "streamed: a text": None,
    "whole: a text": None,
    "streamed: a body of events": "IncompleteStreamError",
    **dict.fromkeys(
        (f"{how}: {what}" for how in ("streamed", "whole") for what in
         ("an error", "a short error with a wide character")), "BadRequestError"),
    **dict.fromkeys(
        ("streamed: an error inside a success", "whole: an error inside a success",
         "event: an error", "event: a named error", "event: an error of Claude"), "ServerError"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
def test_no_answer_takes_more_than_twice_the_limit():
    child = Path(__file__).parents[1] / "support" / "memory_child.py"
    # With one arena the allocator does not reserve what it does not use.
    env = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, child], capture_output=True, env=env, check=True)
    outcomes = list(map(json.loads, done.stdout.splitlines()))
    assert [one["name"] for one in outcomes] == list(KINDS)
    assert not [
        one
        for one in outcomes
        if one["error"] != OTHER_ENDS.get(one["name"], "LimitExceededError")
        or one["peak"] > 2 * LIMIT + SPARE
        or one.get("chars", 0) > MAX_CHARS
    ]


def heads(count: int, start: int = 0) -> bytes:
    calls = [
        {"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": ""}}
        for n in range(start, start + count)
    ]
    return (
        b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": calls}}]}).encode() + b"\n\n"
    )


END = b'data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}\n\n'


def call_of(limits: Limits, *pieces: bytes) -> ChatNode:
    generator = scripted(ScriptedReply.events(*pieces)).replace(limits=limits)
    return run(ChatNode.root("s").chat_streaming("u", generator, ONCE).collect())


@pytest.mark.parametrize("name", ["text_chars", "stream_bytes"])
def test_each_call_counts_against_both_limits_of_a_stream(name):
    """A call takes some 300 bytes beside its texts."""
    assert len(call_of(Limits(**{name: 50_000}), heads(100), END).response.tool_calls) == 100
    with pytest.raises(LimitExceededError, match=name):
        call_of(Limits(**{name: 50_000}), *(heads(50, 50 * n) for n in range(4)), END)


def test_a_text_in_many_pieces_is_joined_and_counts_its_characters_only():
    words = [f"{n} " for n in range(5000)]
    generator = scripted(streamed(*words)).replace(limits=Limits(text_chars=30_000))
    node = run(ChatNode.root("s").chat_streaming("u", generator, ONCE).collect())
    assert node.text == "".join(words)


@pytest.mark.parametrize("is_burst", [True, False])
def test_text_beyond_the_limit_is_not_given_nor_added_twice(is_burst):
    events = [b'data: {"choices":[{"delta":{"content":"tick "}}]}\n\n'] * 9 + [END]
    reply = ScriptedReply.events(*([b"".join(events)] if is_burst else events))
    generator = scripted(reply).replace(limits=Limits(text_chars=22))
    texts = []

    async def read() -> None:
        async with ChatNode.root("s").chat_streaming("u", generator, ONCE) as stream:
            async for chunk in stream:
                texts.append(chunk.delta)

    with pytest.raises(LimitExceededError, match="text_chars") as caught:
        run(read())
    assert texts == ["tick "] * 4
    assert caught.value.partial == "tick " * 5


PIECES = ['{"a": [', *(f'"{n} {{",' for n in range(3000)), '"]"]}']


def call_event(**fields: object) -> bytes:
    event = {"choices": [{"delta": {"tool_calls": [fields]}}]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def test_arguments_in_many_pieces_are_joined_as_they_came():
    head = call_event(index=0, id="c", function={"name": "f", "arguments": ""})
    rest = (call_event(index=0, function={"arguments": piece}) for piece in PIECES)
    (call,) = call_of(Limits(text_chars=60_000), head, *rest, END).response.tool_calls
    assert call.arguments == "".join(PIECES)


def test_a_next_call_without_an_index_begins_after_arguments_in_many_pieces():
    def one(name: str) -> list[bytes]:
        return [call_event(function={"name": name, "arguments": PIECES[0]}),
                *(call_event(function={"arguments": piece}) for piece in PIECES[1:])]  # fmt: skip

    first, second = call_of(Limits(), *one("f"), *one("g"), END).response.tool_calls
    assert (first.name, second.name) == ("f", "g")
    assert first.arguments == second.arguments == "".join(PIECES)


def test_arguments_that_each_piece_repeats_are_the_last_piece_after_any_number_of_them():
    text = '"' + "x" * 1500 + '"'
    pieces = (call_event(index=0, id="c", function={"name": "f", "arguments": text[:n]})
              for n in range(1, len(text) + 1))  # fmt: skip
    (call,) = call_of(Limits(), *pieces, END).response.tool_calls
    assert call.arguments == text


def test_the_input_of_a_vendors_tool_in_many_pieces_is_read_as_one():
    pieces = ['{"a": [', *(f"{n}," for n in range(3000)), "0]}"]
    start = {"type": "content_block_start", "index": 0, "content_block": {
        "type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}}  # fmt: skip
    deltas = ({"type": "content_block_delta", "index": 0, "delta": {
        "type": "input_json_delta", "partial_json": piece}} for piece in pieces)  # fmt: skip
    end = [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    reply = ScriptedReply.events(
        *(b"data: " + json.dumps(event).encode() + b"\n\n" for event in (start, *deltas, *end))
    )
    generator = scripted(reply).with_provider(AnthropicProvider())
    node = run(ChatNode.root("s").chat_streaming("u", generator, ONCE).collect())
    (block,) = node.response.reasoning_blocks
    assert block.fields["input"] == {"a": [*range(3000), 0]}
