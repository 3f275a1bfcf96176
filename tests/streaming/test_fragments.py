"""Fragments of calls and of reasoning: which of them belong together, and what they become."""

from __future__ import annotations

import re

import pytest

from minillmlib import MalformedResponseError, ReasoningBlock, ReasoningDelta, ToolCallDelta
from minillmlib.json_value import memory_of
from minillmlib.streaming.reasoning_blocks import ReasoningAccumulator
from minillmlib.streaming.tool_calls import ToolCallAccumulator, append_piece

RANDOM_ID = re.compile("call_[0-9a-f]{24}")


def piece(index: int | None = None, id: str = "", name: str = "", arguments: str = "", **extra):  # noqa: A002 - the field
    return ToolCallDelta(index=index, id=id, name=name, arguments=arguments, extra=extra)


def calls_of(*pieces: ToolCallDelta) -> list[tuple[str, str, str]]:
    accumulator = ToolCallAccumulator()
    for one in pieces:
        accumulator.add(one)
    calls = accumulator.calls()
    assert len(accumulator) == len(calls)
    return [
        ("random" if RANDOM_ID.fullmatch(call.id) else call.id, call.name, call.arguments)
        for call in calls
    ]


FRAGMENTS = {
    "none": ([], []),
    "one": ([piece(0, "c", "f", "{}")], [("c", "f", "{}")]),
    "without arguments": ([piece(0, "c", "f")], [("c", "f", "{}")]),
    "without an id": ([piece(0, "", "f", "{}")], [("random", "f", "{}")]),
    "by turns": ([piece(0, "c", "f"), piece(1, "d", "g"), piece(2, "e", "h"), piece(1, arguments="[1"),
                  piece(2, arguments="[2"), piece(0, arguments="[0"), piece(1, arguments="]"),
                  piece(0, arguments="]"), piece(2, arguments="]")],
                 [("c", "f", "[0]"), ("d", "g", "[1]"), ("e", "h", "[2]")]),
    "an id that comes later": ([piece(0, "", "f", "{"), piece(0, "c", "", "}"), piece(0, "d")],
                               [("c", "f", "{}")]),
    "a name in pieces": ([piece(0, "c", "get_"), piece(0, "", "wea"), piece(0, "", "ther", "{}")],
                         [("c", "get_weather", "{}")]),
    "a name that each repeats": ([piece(0, "c", "f", "{"), piece(0, "c", "f", "}")], [("c", "f", "{}")]),
    "a whole name that is repeated": ([piece(0, "c", "ab"), piece(0, "c", "ab"), piece(0, "c", "a"),
                                       piece(0, "c", "aba")], [("c", "aba", "{}")]),
    "a piece of the same length": ([piece(0, "c", "ab"), piece(0, "c", "cd")], [("c", "abcd", "{}")]),
    "a name behind the arguments": ([piece(0, "c", "f", "{}"), piece(0, "", "g")], [("c", "f", "{}")]),
    "by their ids": ([piece(None, "c", "f", "["), piece(None, "d", "g", "["), piece(None, "c", "", "1]"),
                      piece(None, "d", "", "2]")], [("c", "f", "[1]"), ("d", "g", "[2]")]),
    "of the last call": ([piece(None, "c", "f", "["), piece(None, "d", "g", "["), piece(arguments="2]")],
                         [("c", "f", "["), ("d", "g", "[2]")]),
    "one after the other": ([piece(name="f", arguments="{"), piece(arguments="}"),
                             piece(name="g", arguments='"'), piece(arguments='"')],
                            [("random", "f", "{}"), ("random", "g", '""')]),
    "a name while the call is open": ([piece(name="f", arguments="{"), piece(name="g", arguments="}")],
                                      [("random", "f", "{}")]),
    "Ollama numbers each call 0": ([piece(0, "c", "f", "{}"), piece(0, "d", "g", "[]"),
                                    piece(0, "", "", " ")], [("c", "f", "{}"), ("d", "g", "[] ")]),
    "a proxy gives another id": ([piece(0, "c", "f", "["), piece(0, "d", "", "1]")],
                                 [("c", "f", "[1]")]),
    "an unknown index, one open call": ([piece(0, "c", "f", "[1]"), piece(1, "d", "g", "["),
                                         piece(7, arguments="2]"), piece(7, arguments=" ")],
                                        [("c", "f", "[1]"), ("d", "g", "[2] ")]),
    "an unknown index, then its name": ([piece(0, "c", "f", "[1]"), piece(5, "d", "", "[2"),
                                         piece(5, "", "g", "]")],
                                        [("c", "f", "[1]"), ("d", "", "[2]")]),
    "an id, then its name": ([piece(0, "c", "f", "[1]"), piece(1, "d"), piece(1, "", "g", "[]")],
                             [("c", "f", "[1]"), ("d", "g", "[]")]),
    "nothing at all": ([piece(0), piece(arguments=" "), piece(0, "c", "f", "{}"), piece(1), piece(0)],
                       [("c", "f", "{}")]),
    "brackets in strings": ([piece(name="f", arguments='["]", "\\"]"'), piece(name="x", arguments="]"),
                             piece(name="g", arguments='{"a": "\\\\"}'), piece(name="h", arguments="[[]"),
                             piece(name="x", arguments="]"), piece(name="i", arguments="{}")],
                            [("random", "f", '["]", "\\"]"]'), ("random", "g", '{"a": "\\\\"}'),
                             ("random", "h", "[[]]"), ("random", "i", "{}")]),
    "each repeats what came": ([piece(0, "c", "f", '"a'), piece(0, arguments='"ab'),
                                piece(0, arguments='"ab"')], [("c", "f", '"ab"')]),
    "each repeats, and the end is missing": ([piece(0, "c", "f", '"a'), piece(0, arguments='"ab')],
                                             [("c", "f", '"a"ab')]),
    "what looks repeated and is not": ([piece(0, "c", "f", "1"), piece(0, arguments="11")],
                                       [("c", "f", "111")]),
    "a cut text whose last piece is JSON": ([piece(0, "c", "f", '{"a": '), piece(0, arguments="1")],
                                            [("c", "f", '{"a": 1')]),
    "a cut text that was repeated once": ([piece(0, "c", "f", "[1, "), piece(0, arguments="[1, "),
                                           piece(0, arguments="2")], [("c", "f", "[1, [1, 2")]),
    "not every piece repeats": ([piece(0, "c", "f", '"a'), piece(0, arguments="b"),
                                 piece(0, arguments='b"')], [("c", "f", '"abb"')]),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_become_the_calls_that_were_meant(name):
    pieces, calls = FRAGMENTS[name]
    assert calls_of(*pieces) == calls


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([piece(3, arguments="[1]")], "none of its 0 tool calls (index 3, 3 characters)"),
        (
            [piece(0, "c", "f", "["), piece(1, "d", "g", "["), piece(2, arguments="1]")],
            "none of its 2 tool calls (index 2, 2 characters)",
        ),
        (
            [piece(0, "c", "f", "[]"), piece(1, arguments="x")],
            "none of its 1 tool call (index 1, 1 character)",
        ),
        ([piece(arguments="x")], "none of its 0 tool calls (index None, 1 character)"),
    ],
)
def test_arguments_that_belong_to_no_call_are_an_error(pieces, told):
    with pytest.raises(MalformedResponseError) as caught:
        calls_of(*pieces)
    assert str(caught.value) == f"the stream holds arguments that belong to {told}"


@pytest.mark.parametrize(
    ("extras", "merged"),
    [
        ([{}], {}),
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a": 1}, {"a": 2}, {"a": 3}], {"a": 3}),
        ([{"a": 1, "b": 1, "c": 1, "d": 1}, {"a": None, "b": "", "c": [], "d": {}}],
         {"a": 1, "b": 1, "c": 1, "d": 1}),
        ([{"a": None}, {"b": {}}, {"c": []}], {"a": None, "b": {}, "c": []}),
        ([{"a": 1}, {"a": False}, {"b": 0}], {"a": False, "b": 0}),
        ([{"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 3}, "e": 4}}],
         {"a": {"b": {"c": 3, "d": 2}, "e": 4}}),
        ([{"a": {"b": 1}}, {"a": 2}], {"a": 2}),
        ([{"a": 2}, {"a": {"b": 1}}], {"a": {"b": 1}}),
        ([{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": {"b": 3}}], {"a": {"b": 3}}),
    ],
)  # fmt: skip
def test_what_fragments_hold_besides_is_merged_at_any_depth(extras, merged):
    accumulator = ToolCallAccumulator()
    accumulator.add(piece(0, "c", "f"))
    for extra in extras:
        accumulator.add(piece(0, **extra))
    (call,) = accumulator.calls()
    assert call.extra == merged


def test_calls_are_complete_if_there_is_one_and_the_arguments_of_all_are_json():
    accumulator = ToolCallAccumulator()
    assert not accumulator.is_complete()
    for one, is_complete in (
        (piece(0, "c", "f", "{"), False), (piece(0, arguments="}"), True),
        (piece(1, "d", "g", "["), False), (piece(1, arguments="]"), True),
    ):  # fmt: skip
        accumulator.add(one)
        assert accumulator.is_complete() is is_complete
    accumulator.check_names()
    accumulator.add(piece(2, "e"))
    with pytest.raises(MalformedResponseError) as caught:
        accumulator.check_names()
    assert str(caught.value) == "the answer holds a tool call without a name (number 3 of 3)"


@pytest.mark.parametrize(
    ("first", "count", "left"),
    [
        ([], 1023, 1023),
        ([], 1024, 1),
        ([], 2046, 1023),
        ([], 2047, 1),
        ([{}], 1022, 1023),
        ([{}], 1023, 2),
        (["x" * 256 * 1030], 1028, 1029),
        (["x" * 256 * 1030], 1029, 1),
        ([{}, "x" * 256 * 1030], 1027, 1029),
        ([{}, "x" * 256 * 1030], 1028, 2),
    ],
)  # fmt: skip
def test_pieces_are_joined_before_their_number_takes_memory(first, count, left):
    pieces = list(first)
    for _ in range(count):
        append_piece(pieces, "y")
    assert len(pieces) == left
    texts = [one for one in pieces if isinstance(one, str)]
    assert "".join(texts) == "".join(one for one in first if isinstance(one, str)) + "y" * count


@pytest.mark.parametrize("repeats", [False, True])
def test_whether_a_call_is_closed_is_known_after_any_number_of_pieces(repeats):
    accumulator = ToolCallAccumulator()
    accumulator.add(piece(None, "", "f", "["))
    for number in range(2100):
        accumulator.add(piece(arguments=f'"{number % 10}]",'))
        if repeats:
            accumulator.add(piece(None, "", "x", ""))  # the call is open, so this is no next one
        if number == 1500:
            assert not accumulator.is_complete()  # joins what came
    accumulator.add(piece(arguments="0]"))
    accumulator.add(piece(None, "", "g", "{}"))
    first, second = accumulator.calls()
    assert (first.name, second.name, second.arguments) == ("f", "g", "{}")
    assert len(first.arguments) == 2100 * 5 + 3
    assert accumulator.is_complete()


# Reasoning.


def thought(index: int = 0, /, **fields) -> ReasoningDelta:
    return ReasoningDelta(index=index, fields=fields)


THOUGHTS = {
    "none": ([], []),
    "appended": ([thought(**{name: name[0] for name in names}) for names in [
        ("thinking", "signature", "text", "summary", "data", "content", "input")] * 2],
        [{"thinking": "tt", "signature": "ss", "text": "tt", "summary": "ss", "data": "dd",
          "content": "cc", "input": "ii"}]),
    "replaced": ([thought(type="t", id="a", format="f"), thought(id="b", format=None)],
                 [{"type": "t", "id": "b", "format": "f"}]),
    "a value that is first missing": ([thought(thinking=None, n=None), thought(thinking="a", n=1),
                                       thought(thinking="b")], [{"thinking": "ab", "n": 1}]),
    "other values of an appended field": ([thought(data=[1]), thought(data="a"), thought(data="b")],
                                          [{"data": "b"}]),
    "a value instead of a text": ([thought(text="a"), thought(text=[1])], [{"text": [1]}]),
    "by index": ([thought(1, text="a"), thought(0, text="b"), thought(1, text="c"), thought(0, text="d")],
                 [{"text": "ac"}, {"text": "bd"}]),
    "another type": ([thought(type="summary", summary="a"), thought(type="encrypted", data="b"),
                      thought(data="c"), thought(type="summary", summary="d")],
                     [{"type": "summary", "summary": "a"}, {"type": "encrypted", "data": "bc"},
                      {"type": "summary", "summary": "d"}]),
    "the same type": ([thought(type="t", text="a"), thought(type="t", text="b")],
                      [{"type": "t", "text": "ab"}]),
    "a type that comes later": ([thought(text="a"), thought(type="t", text="b"), thought(text="c")],
                                [{"text": "a"}, {"type": "t", "text": "bc"}]),
    "LiteLLM ends each with its signature": (
        [thought(type="thinking", thinking="a", signature=""), thought(type="thinking", thinking="b"),
         thought(type="thinking", thinking="", signature="s"),
         thought(type="thinking", thinking="c", signature=""),
         thought(type="thinking", thinking="", signature="u")],
        [{"type": "thinking", "thinking": "ab", "signature": "s"},
         {"type": "thinking", "thinking": "c", "signature": "u"}]),
    "an input of a call": ([thought(input="{}"), thought(3, input="{}", type="x")],
                           [{"input": "{}", "type": "x"}]),
    "an input in pieces": ([thought(type="use", input={}), thought(input='{"a":'), thought(input="[1]}")],
                           [{"type": "use", "input": {"a": [1]}}]),
    "an input that is cut": ([thought(type="use", input={}), thought(input='{"a":')],
                             [{"type": "use", "input": '{"a":'}]),
    "an input that is whole": ([thought(type="use", input={"a": 1})],
                               [{"type": "use", "input": {"a": 1}}]),
    "an input that is a text": ([thought(type="use", input='{"a":'), thought(input="1}")],
                                [{"type": "use", "input": '{"a":1}'}]),
}  # fmt: skip


@pytest.mark.parametrize("name", THOUGHTS)
def test_pieces_of_reasoning_become_the_blocks_that_were_meant(name):
    pieces, blocks = THOUGHTS[name]
    accumulator = ReasoningAccumulator()
    for number, one in enumerate(pieces):
        is_input = name == "an input of a call" and number == 0
        assert accumulator.add(one, 0, 0) is not is_input
    assert [block.fields for block in accumulator.blocks()] == blocks


@pytest.mark.parametrize(
    ("pieces", "size", "is_ascii"),
    [
        ([], 0, True),
        ([thought(thinking="ab")], 256 + 128 + 2, True),
        ([thought(thinking="ab"), thought(thinking="\u00e9", text="")], 256 + 2 * 128 + 3, False),
        ([thought(thinking="\u00e9"), thought(thinking="a")], 256 + 128 + 2, False),
        ([thought(n=1), thought(1, n=1)], 2 * (256 + 128 + memory_of(1)), True),
        ([thought(n=1), thought(n="abc")], 256 + 128 + memory_of(1) + memory_of("abc") - memory_of([1]), True),
        ([thought(n=1), thought(n=None)], 256 + 128 + memory_of(1), True),
        ([thought(input="ab")], 0, True),
    ],
)  # fmt: skip
def test_reasoning_counts_its_texts_and_about_the_memory_of_all_else(pieces, size, is_ascii):
    accumulator = ReasoningAccumulator()
    for one in pieces:
        accumulator.add(one, 0, 0)
    assert accumulator.size == size
    assert accumulator.is_ascii is is_ascii


def test_a_block_has_the_counts_of_its_first_piece():
    accumulator = ReasoningAccumulator()
    for number, one in enumerate([thought(text="a"), thought(text="b"), thought(1, text="c")]):
        accumulator.add(one, number + 5, number)
    assert accumulator.blocks() == (
        ReasoningBlock(fields={"text": "ab"}, text_before=5, calls_before=0),
        ReasoningBlock(fields={"text": "c"}, text_before=7, calls_before=2),
    )
