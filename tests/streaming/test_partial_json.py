"""The JSON of an answer while it streams."""

from __future__ import annotations

import asyncio
import copy
import json

import pytest
from live_wires import CHAT, CLAUDE, chat_end, chat_event, chat_text, over, stream_of
from openrouter_server import Router, long_stream

import minillmlib
from minillmlib import (
    ChatNode,
    CompletionContext,
    EmptyResponseError,
    IncompleteStreamError,
    InvalidParameterError,
    JsonRepairError,
    NodeCompletionParameters,
    ReadError,
    iterate,
    repair,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

WIRES = pytest.mark.parametrize("wire", [CHAT, CLAUDE], ids=["chat", "claude"])


def values_of(*pieces: str) -> list:
    return list(iterate(stream_of([*chat_text(pieces), *chat_end()]).partial_json()))


@WIRES
def test_each_change_gives_the_value_so_far_and_the_end_keeps_the_node(wire):
    text, _, end, provider = wire
    pieces = [
        '```json\n{"ci',
        'ty": "Os',
        "l",
        'o", "rivers"',
        ": [",
        '"Aker',
        'selva", 1',
        "2",
        ", tru",
        "e]",
        "}",
        "\n```",
    ]
    stream = stream_of([*text(pieces), *end()], provider)
    assert list(iterate(stream.partial_json())) == [
        {"city": "Os"},
        {"city": "Osl"},
        {"city": "Oslo"},
        {"city": "Oslo", "rivers": []},
        {"city": "Oslo", "rivers": ["Aker"]},
        {"city": "Oslo", "rivers": ["Akerselva"]},
        {"city": "Oslo", "rivers": ["Akerselva", 12]},
        {"city": "Oslo", "rivers": ["Akerselva", 12, True]},
    ]
    assert stream.node.text == stream.response.text == "".join(pieces)


@pytest.mark.parametrize(
    ("text", "count"),
    [('[{"a": "bc", "d": [1, 2]}, "xy"]', 9), ('{"a": [1, [2]], [3], "b": [4], [5, 6]}', 10)],
)
def test_a_value_that_was_given_changes_no_more(text, count):
    stream = stream_of([*chat_text(text), *chat_end()])
    values, copies = [], []
    for value in iterate(stream.partial_json()):
        values.append(value)
        copies.append(copy.deepcopy(value))
    assert values == copies
    assert len(values) == count


def test_what_may_not_belong_to_a_string_is_shown_once_it_surely_does():
    text = '{"a": "x,  \n"b": 1, "c": "y, z"}'  # the quote of x is missing
    shown = [value["a"] for value in values_of(*text) if "a" in value]
    assert set(shown) == {"x"}
    assert values_of(*text)[-1] == {"a": "x", "b": 1, "c": "y, z"}


def test_an_answer_that_is_cut_ends_with_its_repair():
    cut = [*chat_text(['{"a": [1, 2', ', "b', ""]), *chat_end("length")]
    stream = stream_of(cut)
    assert list(iterate(stream.partial_json()))[-1] == {"a": [1, 2, "b"]}
    assert stream.response.finish_reason is minillmlib.FinishReason.LENGTH


@pytest.mark.parametrize("pieces", [["I can", "not do that."], [" "], ["```", "\n```"], []])
def test_an_answer_without_json_has_no_value_and_is_kept(pieces):
    stream = stream_of([*chat_text(pieces), *chat_end()])
    assert list(iterate(stream.partial_json())) == []
    assert (stream.node.text or "") == "".join(pieces)


@pytest.mark.parametrize(
    ("text", "value"),
    [("42", 42), (" null", None), ("true\n", True), ('"Use [1] or {2}"', "Use [1] or {2}"),
     ('"a": 1, "b": [2]', {"a": 1, "b": [2]}), ('"a": 1, "b": 2', {"a": 1, "b": 2}), ('"["', "[")],
)  # fmt: skip
def test_what_could_be_one_scalar_has_one_value_at_the_end(text, value):
    assert values_of(*text) == [value] == [repair(text).value]


def test_the_last_value_is_the_answer_where_several_are_in_the_text():
    text = 'For example {"n": 1}. The answer: {"n": 2, "m": 3}'
    assert values_of(*text) == [{}, {"n": 1}, {"n": 2, "m": 3}]
    assert values_of('{"a": 1, "', 'a": 2}') == [{"a": 1}, {"a": 2}]
    assert values_of("<think>{", '"a": 1}</think>', "[2]")[-1] == [2]
    assert values_of('{"a": 1}', "</think>", " [2]") == [{"a": 1}, [2]]
    assert values_of('{"a": 1} {"b": 1} ', "-", "</think>", " [2, 3")[-1] == [2, 3]


def test_a_key_that_comes_again_grows_in_its_place():
    values = values_of('{"a": 1, "b": [2], "a": {"c": "', "x", '"}}')
    assert values[1:] == [{"a": {"c": "x"}, "b": [2]}]


def test_an_answer_that_was_only_thought_is_no_answer():
    stream = stream_of([*chat_text(['{"a": 1}', "</think>", "No."]), *chat_end()])
    values = iterate(stream.partial_json())
    assert next(values) == {"a": 1}
    with pytest.raises(JsonRepairError):
        next(values)


def test_a_value_may_be_as_deep_as_512_levels_and_one_that_is_deeper_stops_only_the_values():
    assert values_of("[" * 512, "]" * 512)[-1] == json.loads("[" * 512 + "]" * 512)

    async def main() -> None:
        async with stream_of([*chat_text(["[1, ", "[" * 512, "2"]), *chat_end()]) as stream:
            values = stream.partial_json()
            assert await anext(values) == [1]
            with pytest.raises(JsonRepairError, match="512"):
                await anext(values)
            assert await anext(values, "none") == "none"
            assert (await anext(stream)).delta == "2"
            assert "".join([chunk.delta async for chunk in stream]) == ""
            assert stream.node.text.endswith("2")

    asyncio.run(main())


def test_the_errors_of_the_stream_come_out_as_they_do_from_its_chunks():
    begun = chat_text(['{"a": 1', ', "b"'])
    for kind, stream in (
        (IncompleteStreamError, stream_of(begun)),
        (ReadError, stream_of(begun, breaks_off=True)),
    ):
        seen = []
        with pytest.raises(kind) as caught:
            seen.extend(iterate(stream.partial_json()))
        assert seen == [{}, {"a": 1}]
        assert caught.value.partial == '{"a": 1, "b"'

    settings = NodeCompletionParameters(crash_on_empty_response=True, retry=0)
    nothing = ScriptedTransport([ScriptedReply.events(*chat_end())])
    stream = ChatNode.root("s").chat_streaming("u", over(nothing), settings)
    with pytest.raises(EmptyResponseError):
        list(iterate(stream.partial_json()))


def test_what_fails_before_the_first_chunk_is_tried_again():
    failed = ScriptedReply.json({"error": {"message": "no"}}, status=503)
    transport = ScriptedTransport([failed, ScriptedReply.events(*chat_text(["[1]"]), *chat_end())])
    settings = NodeCompletionParameters(retry=1, back_off_time=0.0)
    stream = ChatNode.root("s").chat_streaming("u", over(transport), settings)
    assert list(iterate(stream.partial_json())) == [[1]]
    assert len(stream.attempts) == 2


async def test_a_stream_is_read_in_one_way_at_a_time():
    for first in (anext, lambda stream: anext(stream.partial_json())):
        async with stream_of([*chat_text(["[1, ", "2, ", "3]"]), *chat_end()]) as stream:
            await first(stream)
            with pytest.raises(InvalidParameterError, match="every chunk"):
                await anext(stream.partial_json())
    async with stream_of([*chat_text(["[1, ", "2, ", "3]"]), *chat_end()]) as stream:
        values = stream.partial_json()
        assert await anext(values) == [1]
        await anext(stream)
        with pytest.raises(InvalidParameterError, match="every chunk"):
            await anext(values)


async def test_values_that_are_left_leave_the_stream_to_its_block():
    async with stream_of([*chat_text(["[1, ", "2, ", "3]"]), *chat_end()]) as stream:
        async for value in stream.partial_json():
            assert value == [1]
            break
    with pytest.raises(InvalidParameterError):
        _ = stream.node
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_values_that_are_dropped_drop_their_stream():
    values = stream_of([*chat_text(["[1, ", "2, ", "3]"]), *chat_end()]).partial_json()
    await anext(values)
    held = [values]
    del values
    with pytest.warns(ResourceWarning, match="dropped"):
        held.clear()


async def test_a_stream_that_is_closed_while_it_is_read_has_no_further_value():
    stream = stream_of([*chat_text(['["a", 1', "2", "]"]), *chat_end()])
    values = stream.partial_json()
    assert await anext(values) == ["a"]
    await stream.aclose()
    assert [value async for value in values] == []


def test_a_tracked_stream_has_values_and_reports_its_cost():
    async def main() -> None:
        async with CompletionContext(router.generator(), {}, told) as context:
            stream = ChatNode.root("s").add_user("u").complete_streaming_tracked(context)
            assert [value async for value in stream.partial_json()] == []
            assert stream.node.text == "xxx"

    def told(info, _meta) -> None:
        reports.append(info)

    reports, router = [], Router([long_stream(1, chunks=3)])
    run(main())
    assert len(reports) == 1


def test_leaving_the_values_in_a_plain_loop_ends_the_stream():
    stream = stream_of([*chat_text(["[1, ", "2, ", "3]"]), *chat_end()])
    values = iterate(stream.partial_json())
    assert next(values) == [1]
    values.close()
    assert list(iterate(stream)) == []


def test_a_forced_beginning_belongs_to_the_value():
    transport = ScriptedTransport(
        [ScriptedReply.events(*chat_text(['"a": [1', "2]}"]), *chat_end())]
    )
    settings = NodeCompletionParameters(force_prepend="{")
    stream = ChatNode.root("s").chat_streaming("u", over(transport), settings)
    assert list(iterate(stream.partial_json()))[-1] == {"a": [12]}
    assert stream.node.text == '{"a": [12]}'


def test_an_answer_in_one_piece_has_its_value():
    body = {"choices": [{"message": {"content": '[1, "a"]'}, "finish_reason": "stop"}]}
    stream = ChatNode.root("s").chat_streaming(
        "u", over(ScriptedTransport([ScriptedReply.json(body)]))
    )
    assert list(iterate(stream.partial_json())) == [[1, "a"]]


def test_chunks_without_text_are_passed_over():
    thought = chat_event({"reasoning_content": '{"no": 1}'})
    stream = stream_of([thought, *chat_text(["[1"]), thought, *chat_text(["]"]), *chat_end()])
    assert list(iterate(stream.partial_json())) == [[1]]
