"""JSON of servers and of callers: what is read, what is written, and what is refused in which words."""

from __future__ import annotations

import sys
from fractions import Fraction
from numbers import Integral

import msgspec
import pytest

from minillmlib import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import (
    MAX_REPAIRED_BYTES,
    convert_json,
    convert_plain,
    decode_json,
    encode_json,
    exceeds_value_count,
    excerpt,
    excerpt_of,
    is_json,
    json_text,
    memory_of,
    replace_surrogates,
    string_or_empty,
)

LARGE = 64 * 1024  # characters; of such a text no value is built
EMOJI = "\U0001f600"


def outcome(function, *arguments):
    """What a function returns, or the error that it raises, in words."""
    try:
        return function(*arguments)
    except (InvalidParameterError, MalformedResponseError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def message(problem, start):
    return f"MalformedResponseError: the server sent invalid JSON ({problem}): {start}"


CHARACTER = "JSON is malformed: invalid character (byte {})"
READ = [
    ('{"a":[1,2.5,null,true,"x"]}', {"a": [1, 2.5, None, True, "x"]}),
    ('\ufeff[1]', [1]),
    (b'\xef\xbb\xbf[1]', [1]),
    ('["\ud83d"]', ["?"]),
    ('["\\ud83d"]', ["\ufffd"]),
    ('["\\ud83d\\ude00 \\ud83d x \\\\ud83d"]', [f"{EMOJI} \ufffd x \\ud83d"]),
    ('["\\uD83D\\uDE00", "\\uDE00\\uD83D", "\\ud800a\\udfffb"]', [EMOJI, "\ufffd\ufffd", "\ufffda\ufffdb"]),
    ('["\\udbff\\udfff \\ud800"]', ["\U0010ffff \ufffd"]),
    ('["\\ud800\\ud800\\udc00"]', ["\ufffd\U00010000"]),
    ('["\\n\\"\\\\", "\\ud83d", "\\n"]', ['\n"\\', "\ufffd", "\n"]),
    ("[NaN, Infinity, -Infinity, -NaN]", [None] * 4),
    ('{"a": NaN, "NaN": "Infinity", "b": "-Infinity", "c": -1}', {"a": None, "NaN": "Infinity", "b": "-Infinity", "c": -1}),
    ('["a\\"NaN", NaN, "NaN\\\\", NaN, "I", -2, "-", NaN]', ['a"NaN', None, "NaN\\", None, "I", -2, "-", None]),
    ('["\\ud83d NaN", NaN]', ["\ufffd NaN", None]),
    (b'["\xff\xfe", "ok"]', ["\ufffd\ufffd", "ok"]),
    (b'["\xf0\x9f\x98", "\xf0\x9f\x98\x80"]', ["\ufffd", EMOJI]),
    ("", message("Input data was truncated", "")),
    (b"[1,", message("Input data was truncated", "[1,")),
    ("nope", message("JSON is malformed: invalid character (byte 4)", "nope")),
    ("[Nope, I, -I]", message(CHARACTER.format(1), "[Nope, I, -I]")),
    ("[--Infinity]", message(CHARACTER.format(2), "[--Infinity]")),
    ("[Infinity1]", message(CHARACTER.format(1), "[Infinity1]")),
    ("[1e999]", message("Number out of range - at `$[0]`", "[1e999]")),
    ("\ufeff\ufeff1", message(CHARACTER.format(0), "\ufffd\ufffd1")),
    ("x" * 201, message(CHARACTER.format(0), "x" * 200 + "\u2026")),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), READ, ids=range(len(READ)))
def test_json_of_a_server_is_read_with_three_mistakes_and_refused_with_any_other(data, value):
    assert repr(outcome(decode_json, data)) == repr(value)


@pytest.mark.parametrize("size", [0, LARGE])
def test_a_text_is_json_if_it_can_be_read_however_large_it_is(size):
    for data, value in READ:
        if isinstance(data, str) and data != "[1e999]":  # whose value would have to be built
            is_read = not str(value).startswith("MalformedResponseError")
            assert is_json(data.ljust(size)) is is_read, data


def test_bytes_that_are_no_text_are_replaced_also_where_the_text_is_long():
    size = 1024 * 1024
    before = "x" * (size - 3)  # a piece of a mebibyte ends within the next character
    data = b'["' + before.encode() + "é".encode() + b'\xff", "\xfe"]'
    assert decode_json(data) == [before + "é\ufffd", "\ufffd"]


def nested(depth, kinds="["):
    """A value that is nested so deeply, in containers of these kinds by turns."""
    text = "1"
    for place in range(depth):
        text = f"[{text}]" if kinds[place % len(kinds)] == "[" else f'{{"a":0,"b":{text}}}'
    return text


@pytest.mark.parametrize("kinds", ["[", "{", "[{", "{{["])
def test_what_is_nested_200_deep_is_read_and_one_level_more_is_refused(kinds):
    start = nested(201, kinds)
    expected = (
        "MalformedResponseError: the server sent JSON that is nested more than 200 deep: "
        f"{start[:200]}\u2026"
    )
    for text in (nested(200, kinds), f"[0,{nested(199, kinds)}]", f"[{'[],' * 300}0]"):
        assert decode_json(text) == decode_json(text.encode()) == msgspec.json.decode(text)
    assert outcome(decode_json, start) == outcome(decode_json, start.encode()) == expected
    for deep in (f"[0,{nested(200, kinds)}]", f'{{"a":1,"b":{nested(200, kinds)},"c":2}}'):
        assert outcome(decode_json, deep).startswith(expected[:75])


def test_of_a_large_text_no_value_is_built_so_that_its_depth_does_not_matter():
    assert not is_json(nested(201).ljust(LARGE - 1))
    assert is_json(nested(201).ljust(LARGE))
    assert not is_json("[NaN" + "," * LARGE)


@pytest.mark.parametrize("mistake", ["NaN,", '"\\ud800",'])
def test_ten_thousand_mistakes_are_repaired_and_no_more(mistake):
    assert len(decode_json(f"[{mistake * 10_000}1]")) == 10_001
    with pytest.raises(MalformedResponseError):
        decode_json(f"[{mistake * 10_001}1]")


def test_a_text_of_16_mib_is_repaired_and_a_longer_one_is_refused():
    assert MAX_REPAIRED_BYTES == 16 * 2**20
    text = "NaN".ljust(MAX_REPAIRED_BYTES)
    assert decode_json(text) is None
    with pytest.raises(MalformedResponseError, match=r"invalid character \(byte 0\)\): NaN$"):
        decode_json(text + " ")


class Point(msgspec.Struct):
    """A value with two fields."""

    x: int
    y: list[int]


def test_the_memory_of_a_value_counts_all_that_is_in_it():
    size = sys.getsizeof
    key, inner, text = "k" * 50, [1, 2**80], "t" * 99
    assert memory_of(text) == size(text)
    assert memory_of(inner) == size(inner) + size(1) + size(2**80)
    value = {key: inner, "b": (text, text)}
    expected = size(value) + size(key) + memory_of(inner) + size("b") + size(value["b"])
    assert memory_of(value) == expected + 2 * size(text)
    point = Point(7, inner)
    assert memory_of([point]) == size([point]) + size(point) + size(7) + memory_of(inner)


COUNTS = [  # a text, and how many commas and opening brackets it has outside of strings
    ('{"a":1,"b":[2,3]}', 4),
    ('{"a":{"b":{"c":0}}}', 3),
    ("[[],[],[]]", 6),
    ('["a,b,c","[[[[",1]', 3),
    ('["\\",,,,","{{{{"]', 2),
    ('["' + "," * 50 + '"', 1),
    ('["' + "," * 50, 1),
    ('[",","' + "\\\\" * 9 + '",1,2,3,4,5,6,7,8,9]', 11),
    ("[" + "1," * 40_000 + '",,,",' + "2," * 40_000 + "3]", 80_002),
    ('["' + "," * 100_000 + '",1,2,3,4,5]', 6),
    ('["' + "," * 300_000 + '",1,"' + "[" * 150_000 + '",5]', 4),
    ("[" + '"a,",' * 30_000 + "0]", 30_001),
]


@pytest.mark.parametrize(("text", "count"), COUNTS, ids=range(len(COUNTS)))
def test_the_values_of_a_text_are_counted_by_its_commas_and_brackets(text, count):
    for data in (text, text.encode()):
        assert not exceeds_value_count(data, count)
        assert exceeds_value_count(data, count - 1)


def test_strings_alone_count_as_half_a_value_each():
    for strings in (20, 22):
        text = '"a,"' * strings + "," * 12
        assert exceeds_value_count(text, 12) is False
        assert exceeds_value_count('"a,"' * strings + " ", 10) is (strings > 21)
        assert exceeds_value_count(b'"a,"' * strings + b" ", 10) is (strings > 21)


def test_a_value_takes_a_shape_or_is_told_with_the_path_that_differs():
    shape, value = dict[str, list[int]], {"a": [1], "b": [2, "x"]}
    assert convert_json({"a": [1]}, shape) == convert_plain({"a": [1]}, shape) == {"a": [1]}
    assert convert_plain(value, shape) is None
    assert outcome(convert_json, value, shape) == (
        "MalformedResponseError: the response has an unexpected shape "
        "(Expected `int`, got `str` - at `$[...][1]`): {'a': [1], 'b': [2, 'x']}"
    )


class Whole(Integral):
    """A whole number of another library."""

    def __int__(self):
        return 7


Whole.__abstractmethods__ = frozenset()


class Text(str):  # noqa: SLOT000 - as users write them
    """A text with another way to show itself."""

    def __str__(self):
        return "hidden"


def cycle():
    values = []
    values.append(values)
    return values


WRITTEN = [
    ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'),
    ([Whole(), Fraction(1, 4), Text("shown"), (1, 2)], '[7,0.25,"shown",[1,2]]'),
    ({1: 2**70}, '{"1":1180591620717411303424}'),
    ({"\ud83d\ude00": ["\ud83d", (["\ude00\ud83d"],)], "b": 1}, f'{{"{EMOJI}":["\ufffd",[["\ufffd\ufffd"]]],"b":1}}'),
    ([{"a": object()}], "InvalidParameterError: the request cannot be written as JSON: Encoding objects of type object is unsupported"),
    (cycle(), "InvalidParameterError: the request cannot be written as JSON: maximum recursion depth exceeded while serializing an object"),
    ({(1, 2): 3}, "InvalidParameterError: the request cannot be written as JSON: Encoding objects of type tuple is unsupported"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=range(len(WRITTEN)))
def test_a_value_of_a_caller_is_written_as_json_or_refused(value, text):
    written = outcome(encode_json, value)
    assert (written.decode() if isinstance(written, bytes) else written) == text


def test_surrogate_pairs_are_joined_and_single_halves_replaced_at_any_depth():
    value = {"\ud83d\ude00": [1, "\ud83dx", ("\ude00", None)], "b": {"c": "\ude00\ud83d"}}
    assert replace_surrogates(value) == {
        EMOJI: [1, "\ufffdx", ["\ufffd", None]],
        "b": {"c": "\ufffd\ufffd"},
    }


def test_a_value_of_a_server_is_written_again_or_told_to_be_too_deep():
    assert json_text({"a": [1, "é"]}) == '{"a":[1,"é"]}'
    refusal = "MalformedResponseError: the server sent a value that cannot be written again"
    assert outcome(json_text, cycle()) == (
        f"{refusal} (maximum recursion depth exceeded while serializing an object)"
    )
    assert outcome(json_text, [object()]) == (
        f"{refusal} (Encoding objects of type object is unsupported)"
    )


def test_only_a_text_is_a_text():
    assert [string_or_empty(value) for value in ("a", "", None, 1, ["a"])] == ["a", "", "", "", ""]


EXCERPTS = [  # a text or bytes, a limit, and what is shown
    ("abc", 3, "abc"),
    ("abcd", 3, "abc…"),
    ("a b", 3, "a b"),
    ("a  b\n\tc", 9, "a b c"),
    (" a ", 9, "a"),
    ("a\x00b\x1b[0m", 9, "a\ufffdb\ufffd[0m"),
    ("é\u200bx", 9, "é\ufffdx"),
    ("a\x00bc", 3, "a\ufffdb…"),
    (b"abc", 3, "abc"),
    (b"abcd", 3, "abc…"),
    (b"a\xffb", 9, "a\ufffdb"),
    ("é".encode() * 3, 3, "ééé"),
    (f"{EMOJI * 3}x".encode(), 3, f"{EMOJI * 3}"),
    (f"{EMOJI * 4}".encode(), 3, f"{EMOJI * 3}"),
    ("  a  b  c  d", 3, "a b"),
    (" " * 5 + "abcd", 3, "a"),
    ("", 3, ""),
]


@pytest.mark.parametrize(("data", "limit", "shown"), EXCERPTS, ids=range(len(EXCERPTS)))
def test_an_excerpt_is_the_start_of_a_text_on_one_line(data, limit, shown):
    assert excerpt(data, limit) == shown


def test_an_excerpt_has_200_characters():
    assert excerpt("x" * 200) == excerpt(b"x" * 200) == "x" * 200
    assert excerpt("x" * 201) == excerpt(b"x" * 201) == "x" * 200 + "…"
    assert excerpt_of("x" * 198) == repr("x" * 198)
    assert excerpt_of("x" * 199) == "'" + "x" * 199 + "…"


def test_an_excerpt_of_a_value_can_be_shown_whatever_the_value_is():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert excerpt_of({"a": [1, "b  c"]}) == "{'a': [1, 'b c']}"
    assert excerpt_of(["abcdef"], 4) == "['ab…"
    assert excerpt_of(deep) == "(a value nested too deeply to show)"
    assert excerpt_of(10**5000) == "(a number too long to show)"
