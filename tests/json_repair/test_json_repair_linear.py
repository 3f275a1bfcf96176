"""Twice as much broken JSON takes twice as long to repair, however it is made."""

from __future__ import annotations

import contextlib
import sys

import pytest
from cost_of_work import check_linear, steps_of

from minillmlib import ArgumentStream, JsonRepairError, loads, repair
from minillmlib.json_repair import PartialJson

pytestmark = pytest.mark.long

MAX_STEPS = 300  # of the interpreter; those of most families are a tenth of that
OTHER_STEPS = {
    # Here each quote is read by the slow reader, which decides about it alone.
    "acute accents": 400, "smart quotes": 350, "wide commas": 350,
    # What the fast path reads.
    "missing colons": 45, "missing colons in rows": 15, "missing colons in records": 55,
}  # fmt: skip
SIZES = (1_000, 4_000)  # in characters, each beside twice as much

# What is repeated, and what stands before and after all of it.
FAMILIES = {
    "open brackets": ("[", "", ""), "open braces": ("{", "", ""), "both": ("[{", "", ""),
    "objects in objects": ('{"a":', "", ""), "closing brackets": ("]", "[", ""), "parentheses": ("(", "[", ""),
    "colons": (":", "{", ""), "commas": (",", "[", ""), "commas of an object": (",", '{"a":1', ""),
    "quotes": ('"', "", ""), "quotes in an array": ('"', "[", ""), "quotes in a value": ('"', '{"a":"', ""),
    "quotes with spaces": ('" ', '{"a":"', ""), "single quotes": ("'", "['", ""), "smart quotes": ("“", "[", ""),
    "inner quotes": ('a "b" ', '{"a":"', '"}'), "inner quotes and commas": ('", "a', '{"a":"', '"}'),
    "inner quotes, commas, words": ('", a', '{"a":"', '"}'), "quoted words in a list": ('"a" b,', "[", ""),
    "strings without commas": ('"a" ', "[", ""), "strings that touch": ('"a"', "[", ""),
    "a string without an end": ("a", '{"a":"', ""), "spaces": (" ", '{"a":', ""), "spaces after a quote": (" ", '{"a":"b"', ""),
    "lines in a string": ("a\n", '{"a":"', ""), "blank lines in a string": ("\n", '{"a":"', ""),
    "quoted lines": ('"a\n', '{"a":"', ""), "keys without an end": ('"a: ', "{", ""), "a key without an end": ("a", '{"', ""),
    "quotes in a key": ('" a', '{"', ""), "bare keys": ("a:", "{", ""), "bare words": ("a ", "{a:", ""),
    "bare words and commas": ("a,", "{a:", ""), "a bare word": ("a", "[", ""), "words in a list": ("a,", "[", ""),
    "digits": ("1", "[", ""), "exponents": ("1e", "[", ""), "signs": ("-", "[", ""), "points": (".", "[", ""),
    "cut literals": ("tru", "[", ""), "literals": ("null,", "[", ""), "strings that are joined": ('"a"+', "[", ""),
    "slashes": ("/", "[", ""), "comments": ("/**/", "[", ""), "open comments": ("/*", "[", ""), "stars": ("*", "[/*", ""),
    "line comments": ("//\n", "[", ""), "hashes": ("#", "[", ""), "backslashes": ("\\", '{"a":"', ""),
    "escaped quotes": ('\\"', '{"a":"', ""), "cut escapes": ("\\u", '{"a":"', ""), "half pairs": ("\\ud83d", '{"a":"', ""),
    "surrogates": ("\ud800", '{"a":"', ""), "controls": ("\0", '{"a":"', ""), "triple quotes": ('"""', "[", ""),
    "raw JSON in strings": ('"{"a', "[", ""), "fences": ("```", "", ""), "fences in an object": ("```\n", '{"a":1,', ""),
    "backticks": ("`", "[", ""), "thoughts": ("<think>", "", ""), "ended thoughts": ("</think>", "", ""),
    "thoughts in pairs": ("<think></think>", "", ""), "angles": ("<", "", ""), "tags in an object": ("<", "{", ""),
    "prose": ("it is so. ", "", ""), "remarks in brackets": ("[so] ", "", ""), "words in braces": ("{so ", "", ""),
    "many objects": ('{"a":1}', "", ""), "many objects in prose": ('{"a":1} and ', "", ""),
    "objects that go on": ('},"a":1', '{"a":1', ""), "wrong brackets": ("[}", "[", ""), "brackets that are missing": ("[{]", "", ""),
    "mixed brackets": ("[{(", "[", ")]}"), "sets": ('{"a",', "[", ""), "a set without an end": ("a", '{"', ""),
    "repeated keys": ("a:1,", "{", ""), "new keys": ("", "{", ""), "equal signs": ("=", "{a", ""), "fat arrows": ("a=>", "{", ""),
    "keys in an array": ('"a":', "[", ""), "keys in arrays": ('["a":1,', "", ""), "arrays that go on": ("],[1", '{"a":[1', ""),
    "objects that touch": ('{"a":1', "[", ""), "stray words": ('"a" b],', '{"a":["c",', ""), "comments and brackets": ('"a" #},', "[", ""),
    "brackets in comments": ("#}", "[", ""), "braces in bare text": ("a{b}", "{a:", ""), "comments in bare text": ("a/*b", "[", ""),
    "valid and broken": ('{"a":1} {b} ', "", ""), "valid in broken": ('{"a":1},b c,', "[", ""), "tuples": ("(1,", "", ")"),
    "smart quotes and words": ("”a", '{"a":“', ""), "brackets before a tag": ("}", '{"', "<"), "smart ends": ("’, a", '{"a":‘', ""),
    "missing commas": ('"a": 1 ', "{", ""), "starred": ("/*a*", "[b", ""), "words after quotes": ('" a b c ', '{"a":"', ""),
    "inner marks of inches": ('5" b", "', '["', ""), "raw JSON in a text": ('{"a": "b", ', '{"a":"b ', ""), "brackets before code": ('"](', '[{"a":"', ""),
    "closed raw JSON in a text": ('{"a": ["b"]}, ', '{"a":"b ', ""), "brackets in a text after raw JSON": ("{[", '{"a":"b {"c', ""),
    "members in quotes": ('"a: b",', '{"a":1,', ""), "keys that swallowed a value": ('"a:b}', "{", ""), "missing colons": ('"a"2,', "{", ""),
    "missing colons in rows": ('"name" "Bob the third", ', "{", ""), "missing colons in records": ('{"a" {"b" 1}, "c" ["d"]}, ', "[", ""),
    "missing colons after words": ('a "b",', "{", ""), "scalars before words": ('1,a "', '{a:', ""), "lists without keys": ("1,[2],", '{"a":', ""),
    "open lists without keys": ('"b", ["', '{"a":"', ""), "blocks with a number": ("```\n1\n```\n", "", ""), "values in parentheses": ("(1),", "[", ""),
    "open values in parentheses": ('("a', "[", ""), "acute accents": ("´", "[`", ""), "comments after a plus": ('"a" + /*', "[", ""),
    "braces before missing colons": ('}, "a" "b"', '{"a":1', ""), "addresses in brackets": ("[a://b ", "", ""), "a word with a quote": ('[a"', "", ""),
    "wide commas": ('"，"a', '["', ""), "wide braces": ("｛", "", ""), "wide brackets": ('"］', '["', ""), "wide colons": ('"："a', '{"', ""),
    "escaped lines": ("\\n", "[", ""), "escaped lines in a string": ('"\\n', '{"a":"', ""), "escaped lines and brackets": ('"\\n}', '{"a":"', ""),
    "lists in a string": ('["a", ', '{"a":"x ', ""), "calls in a string": ('("a" ', '{"a":"x ', ""), "closed calls in a string": ('("a") ', '{"a":"x ', ""),
    "lists in lists of a string": ('[["a"] ', '["x ', ""), "lists in quotes of a string": ('["a [" ', '["x ', ""),
    "brackets after a root": ("]", "[1]", ",2]"), "items after a root": ("],2", "[1", ""), "strings after a root": ('],"b"', '["a"', ""),
    "objects after a root": ('],{"a":1}', '[{"a":1}', ""), "objects after brackets": ('}]},{"a":1', '[{"a":1', ""), "words after a root": ("],a", "[1", ""),
    "objects that commas join": ('{"a":1},', "", ""), "a member without a brace": ('"a":', "", ""), "members without braces": ('"a":1,', "", ""),
    "fences before members": ('```"a":1```', "", ""), "keys before objects": (', "a": {"b":1} ', "so", ""), "strings in brackets": ('"a}, {"b":', '[{"a":', ""),
    "brackets before keys": ('"a], "b":', '{"a":["', ""), "brackets at the end": ("}", '{"a":"x\n', ""), "brackets and spaces at the end": ("} ", '{"a":"x', ""),
    "lone strings after a list": ('"b",', '{"a":["x"],', ""), "lists that go on in an object": ('],{"b":1}', '{"a":[{"b":1}', ""), "words before quotes": ('", b"', '["a', ""),
    "byte order marks": ("\ufeff", "", ""), "dots in a list": ("...,", "[", ""), "semicolons": (";", "[1", ""),
}  # fmt: skip


def text_of(name, chars):
    unit, before, after = FAMILIES[name]
    if not unit:
        return before + "".join(f"k{number}:1," for number in range(chars // 8))
    return before + unit * (chars // len(unit)) + after


def repairing(name, repaired=repair):
    def work(chars):
        with contextlib.suppress(JsonRepairError):
            repaired(text_of(name, chars))

    return work


def feeding(name):
    def work(chars):
        text, partial = text_of(name, chars), PartialJson()
        with contextlib.suppress(JsonRepairError):
            for start in range(0, len(text), 7):
                partial.feed(text[start : start + 7])
            partial.finish()

    return work


@pytest.mark.parametrize("name", FAMILIES)
def test_repairing_is_linear(name):
    for chars in SIZES:
        check_linear(repairing(name), chars)
        check_linear(repairing(name, loads), chars)


@pytest.mark.parametrize("name", FAMILIES)
def test_repairing_piece_by_piece_is_linear(name):
    for chars in SIZES:
        check_linear(feeding(name), chars)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other interpreters take other steps")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_character_costs_few_steps(name):
    steps = [steps_of(lambda chars=chars: repairing(name)(chars)) for chars in (2000, 3000)]
    assert (steps[1] - steps[0]) / 1000 <= OTHER_STEPS.get(name, MAX_STEPS)


def test_a_growing_document_that_is_looked_at_after_each_piece_takes_linear_time():
    def work(objects):
        partial = PartialJson()
        partial.feed("[")
        for number in range(objects):
            partial.feed('{"number": ')
            partial.feed(f"{number}, ")
            partial.feed('"text": "some words of a text"},\n')
            assert len(partial.value) == number + 1

    check_linear(work, 1000)


def test_many_values_that_are_looked_at_after_each_piece_take_linear_time():
    def work(values):
        partial = PartialJson()
        for number in range(values):
            partial.feed(f'["{number}"], ')
            assert partial.value == ["0"]

    check_linear(work, 1000)


def test_arguments_that_are_looked_at_after_each_piece_take_linear_time():
    def work(fields):
        args = ArgumentStream()
        args.field("none")
        args.feed("[]" * fields + "{")
        for number in range(fields):
            args.feed(f'"{number}": ')
            args.feed(f'"text {number}", ')
        assert len(args.finish()) == fields

    check_linear(work, 1000)
