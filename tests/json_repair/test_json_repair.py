"""What models write instead of JSON, and the one value that each of them meant."""

from __future__ import annotations

import json
import random

import pytest
from json_documents import pieces_of

import minillmlib
from minillmlib import JsonChangeKind as Kind
from minillmlib import JsonRepairError, loads, repair, repair_json
from minillmlib.json_repair import PartialJson

# (what the text is an example of, the text, the value)
BROKEN = [
    # Around the value.
    ("fenced", '```json\n{"city": "Oslo"}\n```', {"city": "Oslo"}),
    ("fenced without a language", "```\n[1, 2]\n```", [1, 2]),
    ("fenced within prose", 'Sure!\n\n```json\n{"city": "Oslo"}\n```\nIs there more?', {"city": "Oslo"}),
    ("a fence that never closes", '```json\n{"city": "Oslo"}', {"city": "Oslo"}),
    ("prose before", 'The answer is {"city": "Oslo"}', {"city": "Oslo"}),
    ("prose after", '{"city": "Oslo"} is what I found.', {"city": "Oslo"}),
    ("a remark in brackets", 'As [asked] above: {"city": "Oslo"}', {"city": "Oslo"}),
    ("words in braces", '{"city": "Oslo"} fills in {city}.', {"city": "Oslo"}),
    ("a footnote", '{"city": "Oslo"}\n\nSee [1].', {"city": "Oslo"}),
    ("thoughts", '<think>{"city": "Rome"}?</think>{"city": "Oslo"}', {"city": "Oslo"}),
    ("thoughts that began in the prompt", 'or {"city": "Rome"}\n</think>\n{"city": "Oslo"}', {"city": "Oslo"}),
    ("an example first", 'Such as {"city": "Rome"}. Mine: {"city": "Oslo"}', {"city": "Oslo"}),
    ("a block before an object in prose", '```json\n{"n": 1}\n```\nreplaces {"n": 2}.', {"n": 1}),
    ("objects in a row", '{"n": 1}\n{"n": 2}\n', {"n": 1}),
    ("a call around it", 'show({"city": "Oslo"});', {"city": "Oslo"}),
    ("a byte order mark", '\ufeff{"city": "Oslo"}', {"city": "Oslo"}),
    ("braces of a template", '{{"city": "Oslo"}}', {"city": "Oslo"}),
    ("quotes escaped as in a string", '{\\"city\\": \\"Oslo\\"}', {"city": "Oslo"}),
    # Commas, colons, brackets.
    ("a trailing comma in an object", '{"a": 1, "b": 2,}', {"a": 1, "b": 2}),
    ("a trailing comma in an array", "[1, 2, ]", [1, 2]),
    ("two commas", '{"a": 1,, "b": [1,,2]}', {"a": 1, "b": [1, 2]}),
    ("commas apart", "[1, , ,2]", [1, 2]),
    ("a comma first", '[, 1]', [1]),
    ("a missing comma", '{"a": 1 "b": 2}', {"a": 1, "b": 2}),
    ("a missing comma after a string", '{"a": "x" "b": "y"}', {"a": "x", "b": "y"}),
    ("a missing comma at the end of a line", '{\n  "a": "x"\n  "b": [1]\n  "c": 2\n}', {"a": "x", "b": [1], "c": 2}),
    ("missing commas of an array", '["x" "y" 1 2 {"a": 3} null]', ["x", "y", 1, 2, {"a": 3}, None]),
    ("a missing colon", '{"a" 1, "b" {"c": 2}}', {"a": 1, "b": {"c": 2}}),
    ("equal signs", '{"a" = 1, b => 2}', {"a": 1, "b": 2}),
    ("a missing bracket before a key", '{"a": [1, 2, "b": 3}', {"a": [1, 2], "b": 3}),
    ("a missing bracket before another", '[{"a": [1, 2}, {"a": [3]}]', [{"a": [1, 2]}, {"a": [3]}]),
    ("a missing brace in an array", '[{"a": 1, "b": [2]]', [{"a": 1, "b": [2]}]),
    ("the wrong bracket", '{"a": [1, 2}, "b": 3}', {"a": [1, 2], "b": 3}),
    ("a brace too many, too early", '{"a": {"b": 1}}, "c": 2}', {"a": {"b": 1}, "c": 2}),
    ("brackets too many at the end", '{"a": [1]}]}', {"a": [1]}),
    ("an object without braces in an array", '["a": 1, "b": "x"]', [{"a": 1, "b": "x"}]),
    ("an array that goes on after its end", '{"a": [1], [2, 3], "b": 4}', {"a": [1, 2, 3], "b": 4}),
    ("a list without a key", '{"a": "x", ["y", z], "b": 1, [2], "c": {"d": null, ["w"]}}', {"a": "x", "b": 1, "c": {"d": None}}),
    ("a list without a key at the end", '{"a": ["x"], "b": "y", ["z"] }', {"a": ["x"], "b": "y"}),
    ("an inner quote before a list in a text", '{"a": "the "x", [1] it is", "b": 1}', {"a": 'the "x", [1] it is', "b": 1}),
    ("objects that never end", '[{"a": 1 {"a": 2}, {"a": 3, {"a": 4}]', [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4}]),
    ("a comma first in an object", '{, "a": 1}', {"a": 1}),
    ("a missing colon before other values", """{"a" 'x', "b": {"c" true}}""", {"a": "x", "b": {"c": True}}),
    ("a missing colon and no space", '{"a"2, "b": {"c"true}, "d""x", "e"-0.5}', {"a": 2, "b": {"c": True}, "d": "x", "e": -0.5}),
    ("a missing colon after a bare key", '{"a": 1, b "x", "c": true, d "y"}', {"a": 1, "b": "x", "c": True, "d": "y"}),
    ("a brace too many before a missing colon", '{"a": "x"}, "b" "y"}', {"a": "x", "b": "y"}),
    ("no opening brace", '"a": 1, "b": 2}', {"a": 1, "b": 2}),
    ("a bracket that closes nothing", '{"a": 1], "b": 2}', {"a": 1, "b": 2}),
    ("a brace too many between objects", '[{"a": 1}}, {"b": 2}]', [{"a": 1}, {"b": 2}]),
    ("a remark between members", '{"a": true, NOTE "b": "x", NOTE "c": 1}', {"a": True, "b": "x", "c": 1}),
    # Quotes.
    ("single quotes", "{'a': 'x', 'b': ['y']}", {"a": "x", "b": ["y"]}),
    ("an apostrophe in single quotes", "{'a': 'it's fine', 'b': 1}", {"a": "it's fine", "b": 1}),
    ("double quotes in single quotes", "{'a': 'say \"hi\"'}", {"a": 'say "hi"'}),
    ("smart quotes", "{“a”: “x”, ‘b’: ‘y’}", {"a": "x", "b": "y"}),
    ("smart quotes inside", '{"a": "a “good” one",}', {"a": "a “good” one"}),
    ("backticks", "{a: `x`}", {"a": "x"}),
    ("backticks and acute accents", "{`a´: `x´, `b`: [`d´accord´]}", {"a": "x", "b": ["d´accord"]}),
    ("triple quotes", '{"a": """x "y" z"""}', {"a": 'x "y" z'}),
    ("doubled quotes", '{"a": ""x"", "b": 1}', {"a": "x", "b": 1}),
    ("inner quotes", '{"a": "say "hi" now"}', {"a": 'say "hi" now'}),
    ("inner quotes at the end", '{"a": "say "hi"", "b": 1}', {"a": 'say "hi"', "b": 1}),
    ("inner quotes before a comma", '{"a": "both "x", and "y", too", "b": 1}', {"a": 'both "x", and "y", too', "b": 1}),
    ("inner quotes, twice, before a comma", '{"a": "both "x", "y" and z", "b": 1}', {"a": 'both "x", "y" and z', "b": 1}),
    ("doubled quotes everywhere", '{""a"": ""x"", ""b"": ""y""}', {"a": "x", "b": "y"}),
    ("a key right after a string", '{"a": "x""b": 1}', {"a": "x", "b": 1}),
    ("a missing opening quote", '{"a": Oslo", "b": 1}', {"a": "Oslo", "b": 1}),
    ("inner quotes in an array", '["say "hi", then", "x"]', ['say "hi", then', "x"]),
    ("an inner quote of a later element", '["one", "5" pipe", "6" pipe", "two"]', ["one", '5" pipe', '6" pipe', "two"]),
    ("inner quotes after an escaped line end", '["of\\n"yes", "no" and left", "x"]', ['of\n"yes", "no" and left', "x"]),
    ("an inner quote of the last element", '{"a": ["one", "24" TV"], "b": 1}', {"a": ["one", '24" TV'], "b": 1}),
    ("inner quotes and commas in an array", '["said "yes", "no" and left", "x"]', ['said "yes", "no" and left', "x"]),
    ("an inner quote before a colon", '{"a": "the "x": a letter"}', {"a": 'the "x": a letter'}),
    ("an inner quote before a bracket", '{"a": "items["x"] is set"}', {"a": 'items["x"] is set'}),
    ("a pattern with quotes in brackets", """[{"a": "['"]([^'"]+)['"]\\\\s*,"}, {"a": "b["]*c", "d": 1}]""", [{"a": """['"]([^'"]+)['"]\\s*,"""}, {"a": 'b["]*c', "d": 1}]),
    ("a missing brace before bold print's end", '**[{"a": "x"]** it is', [{"a": "x"}]),
    ("a missing brace before prose", '[{"a": "x"] is what I found.', [{"a": "x"}]),
    ("code with quotes", '{"code": "print("hi")", "n": 1}', {"code": 'print("hi")', "n": 1}),
    ("JSON in a string", '{"a": "{"k": "v"}", "b": 1}', {"a": '{"k": "v"}', "b": 1}),
    ("JSON within a string", '{"x": "answer is {"b": "5"} ok.", "y": "4"}', {"x": 'answer is {"b": "5"} ok.', "y": "4"}),
    ("a list within a string", '{"x": "see ["a"], ok", "y": 1}', {"x": 'see ["a"], ok', "y": 1}),
    ("an index within an object of an array", """[{'a': 'x['y'] is', "b": "x["y"] is"}]""", [{"a": "x['y'] is", "b": 'x["y"] is'}]),
    ("a missing quote at the end of a line", '{"a": "x,\n "b": 1}', {"a": "x", "b": 1}),
    ("a missing quote", '{"a": "x, "b": 1}', {"a": "x", "b": 1}),
    ("a missing quote at the end of an element's line", '["x,\n"y",\n"z"]', ["x", "y", "z"]),
    ("a missing opening quote of a key", '{a": "x", b": 1}', {"a": "x", "b": 1}),
    ("a missing quote of a key", '{"a: 1, "b": 2}', {"a": 1, "b": 2}),
    ("missing quotes between a key and its value", """{"a": 0, "b: x", "c": [{'d:y'}]}""", {"a": 0, "b": "x", "c": [{"d": "y"}]}),
    ("an address instead of a member", '{"a": 1, "http://x.org"}', {"a": 1}),
    ("strings that are joined", '{"a": "x" + "y" +\n \'z\'}', {"a": "xyz"}),
    ("strings that are joined over a comment", '{"a": "x" + /* one */ "y" + // two\n "z", "b": "5 + /* 6"}', {"a": "xyz", "b": "5 + /* 6"}),
    ("strings alone that are joined over a comment", '"x" + /* one */ "y"', "xy"),
    ("bare addresses", "[https://a.org/b,2]", ["https://a.org/b", 2]),
    ("a missing opening quote at the beginning", '[a","b"]', ["a", "b"]),
    ("bare keys", "{a: 1, b_c: 2, d-e: 3, $f: 4}", {"a": 1, "b_c": 2, "d-e": 3, "$f": 4}),
    ("keys that are numbers", "{1: 'x', 2: 'y'}", {"1": "x", "2": "y"}),
    ("a bare string", '{"a": hello there, "b": 1}', {"a": "hello there", "b": 1}),
    ("bare strings in an array", "[red, light blue]", ["red", "light blue"]),
    ("a bare string with a comma", '{"a": well, yes, "b": 1}', {"a": "well, yes", "b": 1}),
    ("a bare string before a key", '{"a": well said. "b": 1}', {"a": "well said.", "b": 1}),
    ("braces in a bare string", "{a: all of {this} here}", {"a": "all of {this} here"}),
    ("a bare address", "{a: http://x.org/y}", {"a": "http://x.org/y"}),
    # Characters and escapes.
    ("an inner quote after an escaped line end", '{"a": "x,\\n"y": z", "b": 1}', {"a": 'x,\n"y": z', "b": 1}),
    ("an opening quote within a string", "[‘x\\q‘y’]", ["x\\q‘y"]),
    ("inner quotes and escapes", '{"a": "one\\n"two" \\u00e9", "b": 1,}', {"a": 'one\n"two" é', "b": 1}),
    ("lines in a string", '{"a": "one\ntwo"}', {"a": "one\ntwo"}),
    ("a tab in a string", '{"a": "one\ttwo"}', {"a": "one\ttwo"}),
    ("an escaped apostrophe", '{"a": "it\\\'s"}', {"a": "it's"}),
    ("an escape that is none", '{"a": "\\d+ C:\\Users"}', {"a": "\\d+ C:\\Users"}),
    ("a byte as hexadecimal digits", '{"a": "\\x41"}', {"a": "A"}),
    ("a line that goes on", '{"a": "one \\\ntwo"}', {"a": "one two"}),
    ("half a pair", '{"a": "\\ud83d!"}', {"a": "\ufffd!"}),
    ("a half pair as a character", '{"a": "\ud83d!"}', {"a": "\ufffd!"}),
    ("a fence in a string", '{"md": "```json\n{}\n```", "b": 1,}', {"md": "```json\n{}\n```", "b": 1}),
    # Literals and numbers.
    ("Python's literals", '{"a": True, "b": False, "c": None}', {"a": True, "b": False, "c": None}),
    ("JavaScript's undefined", "{a: undefined}", {"a": None}),
    ("capitals", "[TRUE, FALSE, NULL]", [True, False, None]),
    ("what is not a number", "[NaN, Infinity, -Infinity, 1e999]", [None] * 4),
    ("a tuple alone", "(1, 'x', True)", [1, "x", True]),
    ("tuples", "{'a': (1, 2)}", {"a": [1, 2]}),
    ("one value in parentheses", """{"a": (1), "b": ("x"), "c": [( 'y, z' ), (true), (-1.5), ("x",), ()]}""", {"a": 1, "b": "x", "c": ["y, z", True, -1.5, ["x"], []]}),
    ("a number alone in parentheses", "(1)", 1),
    ("a string alone in parentheses", '("x")', "x"),
    ("a set", '{"a": {"x", "y"}}', {"a": ["x", "y"]}),
    ("a set of one number", '{"a": {5}, "b": [{.5}]}', {"a": [5], "b": [[0.5]]}),
    ("points without digits", "[.5, 1., +2]", [0.5, 1.0, 2]),
    ("grouped digits", "[1_000]", [1000]),
    ("commas in a number", '{"a": 1,000, "b": 2}', {"a": "1,000", "b": 2}),
    ("hexadecimal", "[0x1F]", ["0x1F"]),
    ("a date", '{"a": 2024-01-01}', {"a": "2024-01-01"}),
    ("a fraction, a version, a percentage", "[1/3, 1.2.3, 10%]", ["1/3", "1.2.3", "10%"]),
    ("a leading zero", "[007]", ["007"]),
    ("a missing value", '{"a": , "b": }', {"a": None, "b": None}),
    ("dots for a value", '{"a": ..., "b": 1}', {"a": None, "b": 1}),
    ("a number alone", " True\n", True),
    ("a string alone", "'x'", "x"),
    ("smart quotes alone", "“x”", "x"),
    ("a number in a block", "Here:\n```json\n42\n```", 42),
    ("a tuple in a block", "As a tuple:\n```python\n(1, 'x')\n```\nDone.", [1, "x"]),
    ("a string in the last block", 'First\n```\n"x"\n```\nor\n```\n"y"\n```', "y"),
    ("joined strings alone", '"x" + "y"', "xy"),
    # Remarks.
    ("a comment to the end of the line", '{"a": 1, // one\n "b": "x" // two\n}', {"a": 1, "b": "x"}),
    ("a comment within", '{"a": /* one */ 1}', {"a": 1}),
    ("a comment of Python", '{"a": 1, # one\n "b": 2}', {"a": 1, "b": 2}),
    ("a comment on the only line", '{"a": {"b": "x" // one }, "c": "y"}', {"a": {"b": "x"}, "c": "y"}),
    ("comments, the last one on the last line", "[1, // one\n 2 // two ]", [1, 2]),
    ("a comment right after a value", '{"a": 1/* one */, "b": .../* rest */}', {"a": 1, "b": None}),
    ("dots for further members", '{"a": 1, ...}', {"a": 1}),
    ("words after a member", '{"a": true, "b": "x" as said }', {"a": True, "b": "x"}),
    ("words after an element", '{"a": ["x", "y" or so], "b": 1}', {"a": ["x", "y", "or so"], "b": 1}),
    ("dots for the rest", '{"a": [1, 2, ...], ...}', {"a": [1, 2]}),
]  # fmt: skip

CUT = [
    ("in an array", '{"a": [1, 2', {"a": [1, 2]}),
    ("in a string", '{"a": "one tw', {"a": "one tw"}),
    ("in an escape", '{"a": "one\\', {"a": "one"}),
    ("in a pair", '{"a": "one\\ud83d', {"a": "one"}),
    ("in a key", '{"a": 1, "b', {"a": 1}),
    ("in a key with a colon", '{"a": 1, "b:c', {"a": 1}),
    ("in a key with a colon and a bracket", '{"a": 1, "b:c}', {"a": 1}),
    ("after a key", '{"a": 1, "b"', {"a": 1}),
    ("after a colon", '{"a": 1, "b":', {"a": 1, "b": None}),
    ("after a comma", '{"a": 1,', {"a": 1}),
    ("in a literal", '{"a": tr', {"a": True}),
    ("in Python's literal", '{"a": Fal', {"a": False}),
    ("in a number", "[1, 2.", [1, 2]),
    ("after a sign", "[1, -", [1, None]),
    ("by the end of a block", 'So:\n```json\n{"a": [1, {"b": "c"\n```\nDone.', {"a": [1, {"b": "c"}]}),
    ("by a fence right after a string", '```json\n{"a": "b"```', {"a": "b"}),
    ("with a fence in a string", '{"md": "```json\n{}\n```", "b": 1', {"md": "```json\n{}\n```", "b": 1}),
]  # fmt: skip


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


def test_an_object_that_is_complete_is_preferred_to_a_later_one_that_is_cut():
    found = repair('{"a": 1}, or rather {"b": ')
    assert found.value == {"a": 1}
    assert found.complete


def test_guesses_within_other_values_are_not_told():
    kinds = [change.kind for change in repair("{a: 'x'} then {\"b\": 1}").changes]
    assert kinds == [Kind.OTHER_VALUES, Kind.SURROUNDINGS]


def test_many_guesses_are_told_up_to_a_thousand():
    assert len(repair("[" + "a," * 5000 + "]").changes) == 1000


def test_numbers_keep_their_digits():
    big = "9" * 400
    assert loads(f"[{big},]") == [int(big)]
    assert loads(f'{{"a": {"1" * 5000}}}') == {"a": "1" * 5000}


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


def test_thoughts_and_prose_are_not_shown_while_they_come():
    assert values_of('<think>[{"no": 1}]</think>So: {"a": "b"}')[:3] == ["null", "{}", '{"a": "b"}']
