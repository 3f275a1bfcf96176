"""What models write instead of JSON, and the one value that each of them meant."""

from __future__ import annotations

import json
import random

import pytest
from broken_json import BROKEN, CUT
from json_documents import pieces_of

import minillmlib
from minillmlib import JsonChangeKind as Kind
from minillmlib import JsonRepairError, json_repair, loads, repair, repair_json
from minillmlib.json_repair import PartialJson


@pytest.mark.parametrize(
    ("text", "value"), [pytest.param(*case[1:], id=case[0]) for case in BROKEN]
)
def test_what_was_meant_is_found(text, value):
    found = repair(text)
    assert repr(found.value) == repr(value)
    assert found.complete
    assert loads(text) == value
    assert json.loads(repair_json(text)) == value


@pytest.mark.parametrize(("text", "value"), [pytest.param(*case[1:], id=case[0]) for case in CUT])
def test_what_is_cut_keeps_what_it_has_and_says_that_it_is_not_complete(text, value):
    found = repair(text)
    assert repr(found.value) == repr(value)
    assert not found.complete


@pytest.mark.parametrize(
    "text",
    ["", " \n", "I cannot do that.", "It's 5 o'clock.", '"Yes," she said.', "<think>hm</think>", "```json\n```",
     'No. <think>{"a": 1}</think> No.', "{so to say}", "a [remark] in brackets", 'or {"a": 1}\n</think>\nI do not know.', "}]", '"', "(see above)", '"Yes", "no"', '"Yes," she said, "no"', "\ufeff", "nothing", "...",
     'Run:\n```python\nprint("x")\n```', "Run:\n```\nls\n```", "So:\n```\n'tis it\n```", 'So:\n```\n"x"', "1 </think> ```2```", "[https://a.org](https://a.org) has it."],
)  # fmt: skip
def test_where_no_json_is_none_is_invented(text):
    for function in (loads, repair, repair_json):
        with pytest.raises(JsonRepairError):
            function(text)


@pytest.mark.parametrize(
    "text", ["{}", "[ ]", '""', "0", "-0.0", "1E5", "null", ' {"a" : [1,2.50,"\\u00e9\\/"]}\n', "[" * 600 + "]" * 600]
)  # fmt: skip
def test_valid_json_is_returned_as_it_is(text):
    assert repair_json(text) == text
    assert repair(text) == minillmlib.RepairResult(
        value=json.loads(text), candidates=(json.loads(text),)
    )


def test_an_error_is_ours_and_a_value_error():
    assert issubclass(JsonRepairError, ValueError)
    assert issubclass(JsonRepairError, minillmlib.MiniLLMError)


@pytest.mark.parametrize("opening", ["[", '{"a":', "[{b:", "(["])
def test_what_is_nested_too_deeply_is_an_error(opening):
    for depth in (600, 100_000):
        with pytest.raises(JsonRepairError, match="512"):
            repair("[" + opening * depth)


def test_depth_that_is_allowed_is_kept():
    assert repair_json("[" * 512) == "[" * 512 + "]" * 512


def test_every_guess_is_told_with_its_place():
    text = "Well: {'a': True, b: [1 2,],}"
    found = [(change.position, change.kind) for change in repair(text).changes]
    assert found == [
        (0, Kind.SURROUNDINGS),
        (text.index("'a'"), Kind.OTHER_QUOTES),
        (text.index("True"), Kind.OTHER_LITERAL),
        (text.index("b:"), Kind.UNQUOTED_KEY),
        (text.index("2"), Kind.MISSING_COMMA),
        (text.index(",]"), Kind.EXTRA_COMMA),
        (text.index(",}"), Kind.EXTRA_COMMA),
    ]


@pytest.mark.parametrize("colon", ["=", "=>", "\uff1a", ""])
def test_what_stands_for_a_colon_is_told(colon):
    found = repair(f'{{"a" {colon} 1}}')
    assert found.value == {"a": 1}
    assert [change.kind for change in found.changes] == [Kind.MISSING_COLON]


@pytest.mark.parametrize(
    ("text", "value", "kinds"),
    [
        ('{"b": 1, "a: 2"}', {"b": 1, "a": "2"}, [Kind.MISSING_QUOTE]),
        ('{"b": 1, "a"}', {"b": 1}, [Kind.JUNK]),
        ('{"b": ["x"], "a"}', {"b": ["x", "a"]}, [Kind.WRONG_BRACKET, Kind.MISSING_BRACKET]),
    ],
)
def test_what_becomes_of_a_key_without_a_value_is_told_at_its_end(text, value, kinds):
    found = repair(text)
    assert found.value == value
    assert [change.kind for change in found.changes] == kinds
    assert {change.position for change in found.changes} == {text.index("}")}


def test_a_list_without_a_key_is_left_out_and_told():
    found = repair('{"a": 1, [2]}')
    assert found.value == {"a": 1}
    assert found.changes == (minillmlib.JsonChange(position=9, kind=Kind.JUNK),)


def test_guesses_around_and_in_a_block_with_a_single_value_are_told():
    text = "Here:\n```\n('x', 1)\n```"
    found = [(change.position, change.kind) for change in repair(text).changes]
    assert found == [
        (0, Kind.SURROUNDINGS),
        (text.index("```"), Kind.FENCE),
        (text.index("("), Kind.WRONG_BRACKET),
        (text.index("'x'"), Kind.OTHER_QUOTES),
        (text.rindex("```"), Kind.FENCE),
    ]


@pytest.mark.parametrize("rest", ["x", "X", "XX", "end.", "5", "ünd", "'"])
def test_brackets_before_more_words_end_no_string_also_before_a_fence(rest):
    for end in ("", "```", "\n```"):
        assert loads('{"a": "b}' + rest + end) == {"a": "b}" + rest + end}
        assert loads('{"a": "b' + rest + "}" + end) == {"a": "b" + rest}


def test_a_key_that_comes_again_is_told_and_its_last_value_counts():
    found = repair('{"a": 1, "a": 2,}')
    assert found.value == {"a": 2}
    assert found.changes[0] == minillmlib.JsonChange(position=9, kind=Kind.REPEATED_KEY)


def test_what_a_json_parser_would_take_silently_is_told_within_prose_too():
    text = 'So: {"a": 1, "a": [1e999, "\\ud800"]}'
    found = repair(text)
    assert found.value == {"a": [None, "\ufffd"]}
    kinds = {change.kind for change in found.changes}
    assert kinds > {Kind.REPEATED_KEY, Kind.NOT_A_NUMBER, Kind.LONE_SURROGATE}
    assert [change.kind for change in repair('So: {"a": 1, "a": 2}').changes][1:] == [
        Kind.REPEATED_KEY
    ]
    assert loads("So: [1e999]") == [None]


def test_all_values_of_a_text_are_candidates_in_their_order():
    found = repair('{"a": 1} {"b": [2]}\nand {"c": 3}')
    assert found.value == {"c": 3}
    assert found.candidates == ({"a": 1}, {"b": [2]}, {"c": 3})
    assert repair('[{"a": 1}]').candidates == ([{"a": 1}],)


def test_the_alternatives_are_other_values_than_the_one_that_is_taken():
    assert repair('So: {"a": 1}').alternatives == ()
    assert repair('{"a": 1} {"b": 2}').alternatives == ([{"a": 1}, {"b": 2}], {"b": 2})


def test_an_object_that_is_complete_is_preferred_to_a_later_one_that_is_cut():
    found = repair('{"a": 1}, or rather {"b": ')
    assert found.value == {"a": 1}
    assert found.complete


def test_guesses_within_other_values_are_not_told():
    kinds = [change.kind for change in repair("{a: 'x'} then {\"b\": 1}").changes]
    assert kinds == [Kind.OTHER_VALUES, Kind.SURROUNDINGS]


def test_many_guesses_are_told_up_to_a_thousand():
    assert len(repair("[" + "a," * 5000 + "]").changes) == 1000


@pytest.mark.parametrize("unit", ["{} ", "[1]so ", '["\ud800"] ', "{a: 1} so "])
def test_many_values_and_many_halves_are_told_up_to_a_thousand(unit):
    places = [change.position for change in repair(unit * 2000).changes]
    assert len(places) == 1000
    assert places == sorted(places)


@pytest.mark.parametrize(("before", "last"), [(998, 2), (999, 1), (1000, 0)])
def test_the_thousandth_guess_is_told_whatever_kind_it_is(before, last):
    for text in ("1 2 3]", "'x', 'y']", '"a"  "b" "c"]', "{'a': 1, 'b': 2}]"):
        kinds = [change.kind for change in repair("[" + "/**/" * before + text).changes]
        assert kinds[:before] == [Kind.COMMENT] * before
        assert len(kinds[before:]) == last


def test_numbers_keep_their_digits():
    big = "9" * 400
    assert loads(f"[{big},]") == [int(big)]
    assert loads(f"[{'1' * 4300},]") == [int("1" * 4300)]
    assert loads(f"[{'1' * 4301},]") == ["1" * 4301]
    assert loads(f'{{"a": {"1" * 5000}}}') == {"a": "1" * 5000}


AROUND = [
    "[0,, @]", "[0,, [@]]", '[{"a": 1,, "b": @}]', "[0,, @, 7]", "[0,, @ 7]", "[0,, @,, 7]", "[0,, @, [8],]",
    '{"a": 0,, "b": @ "c": @}', '{"a": 0,, "b": @, "c": 1}',
]  # fmt: skip
LONG = [  # a value within a long text, what it means, and the kind of what is changed in it
    ('{"k": [1, {"z": 2.5}], "s": "\\ud83d\\ude00 \\u00e9"}', {"k": [1, {"z": 2.5}], "s": "\U0001f600 \u00e9"}, []),
    ('{"k": 1, "k": 2, "i": 3}', {"k": 2, "i": 3}, [Kind.REPEATED_KEY]),
    ('[{"k": 1, "k": 2}]', [{"k": 2}], [Kind.REPEATED_KEY]),
    ("[1e999]", [None], [Kind.NOT_A_NUMBER]),
    ("[-1e999, 1.5]", [None, 1.5], [Kind.NOT_A_NUMBER]),
    ("[NaN]", [None], [Kind.NOT_A_NUMBER]),
    ("[-Infinity]", [None], [Kind.NOT_A_NUMBER]),
    ('["\\ud83d"]', ["\ufffd"], [Kind.LONE_SURROGATE]),
    ('{"k": "x" "i": 1}', {"k": "x", "i": 1}, [Kind.MISSING_COMMA]),
    ("[]", [], []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "kinds"), LONG, ids=range(len(LONG)))
def test_valid_and_broken_parts_of_a_long_text_are_read_as_those_of_a_short_one(text, value, kinds):
    for around in AROUND:
        whole = around.replace("@", text)
        found = repair(whole + " " * 600)
        assert found == repair(whole)
        assert repr(value) in repr(found.value)
        told = [change.kind for change in found.changes]
        assert told[: len(kinds) + 1] == [Kind.EXTRA_COMMA, *kinds]


@pytest.mark.parametrize("text", [case[1] for case in BROKEN])
def test_what_is_meant_does_not_depend_on_how_much_white_space_follows(text):
    assert repair(text + " " * 600) == repair(text)


def test_a_result_cannot_be_changed():
    found = repair("[1,]")
    with pytest.raises(AttributeError):
        found.value = 2
    with pytest.raises(AttributeError):
        found.changes[0].position = 1
    for kind in (minillmlib.RepairResult, minillmlib.JsonChange):
        with pytest.raises(TypeError):
            kind(1, Kind.EXTRA_COMMA)
    assert hash(found.changes[0]) == hash(minillmlib.JsonChange(position=2, kind=Kind.EXTRA_COMMA))


@pytest.mark.parametrize("text", [case[1] for case in BROKEN + CUT])
def test_a_text_in_pieces_ends_as_the_whole_text_does(text):
    chance = random.Random(7)
    cuts = [[text[:place], text[place:]] for place in range(len(text) + 1)]
    whole = finished([text])
    for pieces in cuts + [pieces_of(text, chance) for _ in range(10)]:
        assert finished(pieces) == whole


def finished(pieces):
    partial = PartialJson()
    for piece in pieces:
        partial.feed(piece)
    return repr(partial.finish())


def values_of(text):
    partial, shown = PartialJson(), []
    for char in text:
        partial.feed(char)
        shown.append(json.dumps(partial.value))
    return list(dict.fromkeys(shown))


def test_a_value_grows_while_its_text_comes():
    assert values_of('{"a": [12, "xy"], "b": true}') == [
        "null", "{}", '{"a": []}', '{"a": [12]}', '{"a": [12, "x"]}', '{"a": [12, "xy"]}',
        '{"a": [12, "xy"], "b": true}',
    ]  # fmt: skip


def chars_until_seen(size):
    """After how many characters the end of a key is seen, of which so many are known."""
    partial = PartialJson()
    partial.feed('{"a":1,"' + "k" * (size - 1))
    assert partial.value == {"a": 1}
    for count, char in enumerate('": [' + "1, " * 30, 1):
        partial.feed(char)
        if len(partial.value) > 1:
            return count
    return None


@pytest.mark.parametrize(
    ("size", "count"), [(63, 4), (64, 18), (65, 17), (68, 17), (69, 18), (80, 20)]
)
def test_a_long_part_that_is_undecided_is_read_again_when_it_has_grown_by_a_quarter(size, count):
    assert chars_until_seen(size) == count


def test_a_text_that_nobody_looks_at_is_read_in_portions_of_128_characters():
    partial = PartialJson()
    partial.feed("[" * 512)
    for _ in range(127):
        partial.feed("[")
    with pytest.raises(JsonRepairError, match="nested more than 512 levels deep"):
        partial.feed("[")


def test_a_name_that_the_module_does_not_have_is_told():
    with pytest.raises(AttributeError) as caught:
        json_repair.loadz  # noqa: B018
    assert str(caught.value) == "module 'minillmlib.json_repair' has no attribute 'loadz'"


def test_thoughts_and_prose_are_not_shown_while_they_come():
    assert values_of('<think>[{"no": 1}]</think>So: {"a": "b"}')[:3] == ["null", "{}", '{"a": "b"}']
