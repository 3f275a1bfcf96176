"""What each composed regular expression of the repair matches, input by input."""

from __future__ import annotations

import re

import pytest
from broken_json import BROKEN, CUT
from broken_texts import broken_texts
from json_documents import mutations, repaired

from minillmlib.json_repair import buffer, fast_path, parse_stack, quotes, scalars, scanner, strings
from minillmlib.json_repair.api import _ONLY_VALUE

# (pattern, text, where the match ends, its groups that are not None); -1 for no match
MATCHES = [
    # A whole text that is one value and prose.
    (_ONLY_VALUE, 'So: {"a": 1} it is', 18, ['{"a": 1}']),
    (_ONLY_VALUE, "```json\n[[1], {}]\n```", 21, ["[[1], {}]"]),
    (_ONLY_VALUE, "see [1] or [2]", -1, []),
    (_ONLY_VALUE, '{"a": 1}, "b": 2', -1, []),
    (_ONLY_VALUE, '<think>{"a": 1}</think>', -1, []),
    # What stands outside of values.
    (scanner._OUTSIDE, 'Here: {"a"', 8, ["Here: ", '"']),
    (scanner._OUTSIDE, "{a: 1}", 3, ["", ":"]),
    (scanner._OUTSIDE, "{so to say}", 10, [""]),
    (scanner._OUTSIDE, "[ {", 3, ["", "{"]),
    (scanner._OUTSIDE, "[1]", 2, ["", "1"]),
    (scanner._OUTSIDE, "[a, b]", 3, ["", ","]),
    (scanner._OUTSIDE, "[sic] it", 5, ["", "]"]),
    (scanner._OUTSIDE, "[https://a.org/b,2]", 17, ["", ","]),
    (scanner._OUTSIDE, "[https://a.org](https://a.org)", 14, [""]),
    (scanner._OUTSIDE, '[a","b"]', 4, ["", ","]),
    (scanner._OUTSIDE, "a < b <think>", 6, ["a < b "]),
    # Members.
    (fast_path.COMMON_MEMBER, '"a": "x", "b": 1', 9, ["a", "x"]),
    (fast_path.COMMON_MEMBER, '"a": "x" "b": 1', 9, ["a", "x"]),
    (fast_path.COMMON_MEMBER, "'a': 'it\\'s'}", 5, ["a"]),
    (fast_path.COMMON_MEMBER, "a-b: 12}", 7, ["a-b", "12"]),
    (fast_path.COMMON_MEMBER, '"a": -0.5e3, "b": 1', 12, ["a", "-0.5e3"]),
    (fast_path.COMMON_MEMBER, '"a": true}', 9, ["a", "true"]),
    (fast_path.COMMON_MEMBER, '"a": {"b": 1}', 5, ["a"]),
    (fast_path.COMMON_MEMBER, '"a": "x", y", "b": 1', 5, ["a"]),
    (fast_path.COMMON_MEMBER, '"a": "say "hi" to me"}', 21, ["a", 'say "hi" to me']),
    (fast_path.COMMON_MEMBER, '"a": "so "hi"."}', 15, ["a", 'so "hi".']),
    (fast_path.COMMON_MEMBER, '"a": "the "x""}', 14, ["a", 'the "x"']),
    (fast_path.COMMON_MEMBER, "'a': 'it's'}", 11, ["a", "it's"]),
    (fast_path.COMMON_MEMBER, '"a": "{"k": 1}"}', 5, ["a"]),
    (fast_path.COMMON_MEMBER, '"a": "see {"k": 1}"}', 5, ["a"]),
    (fast_path.COMMON_MEMBER, '"a" 1', -1, []),
    (fast_path.COMMON_MEMBER, '"a" 1, "b" 2', 6, ["a", " ", "1"]),
    (fast_path.COMMON_MEMBER, '"a""b", "c": 2', 7, ["a", "", "b"]),
    (fast_path.COMMON_MEMBER, '"a" true, b: 2', 9, ["a", " ", "true"]),
    (fast_path.COMMON_MEMBER, '"a" {"b"', 4, ["a", " "]),
    (fast_path.COMMON_MEMBER, '"a" "b" c"', -1, []),
    (fast_path.COMMON_MEMBER, '"a"{"b"', -1, []),
    (fast_path.COMMON_MEMBER, '"a"1 ', -1, []),
    (fast_path.COMMON_MEMBER, '"", "b": 2', -1, []),
    (fast_path.COMMON_MEMBER, '"" 1, "b": 2', -1, []),
    (fast_path.COMMON_MEMBER, '"a": "x", "b" c', 5, ["a"]),
    # Items.
    (fast_path.COMMON_ITEM, '"a", "b"]', 4, ["a"]),
    (fast_path.COMMON_ITEM, '"a" "b"]', 4, ["a"]),
    (fast_path.COMMON_ITEM, "'a']", 3, ["a"]),
    (fast_path.COMMON_ITEM, "12, 3]", 3, ["12"]),
    (fast_path.COMMON_ITEM, "light blue, red]", 11, ["light blue"]),
    (fast_path.COMMON_ITEM, '"a", b", "c"]', -1, []),
    (fast_path.COMMON_ITEM, '"a": 1]', -1, []),
    # Brackets.
    (parse_stack._BRACKET_AND_KEY, '}, "a": 1', 7, [":"]),
    (parse_stack._BRACKET_AND_KEY, '}, "a" "b"}', 11, ["}"]),
    (parse_stack._BRACKET_AND_KEY, '}, {"a": 1}', 3, []),
    (parse_stack._BRACKET_AND_KEY, "}}, 'a': 1", 8, [":"]),
    (parse_stack._BRACKET_AND_ITEM, '] }, {"a"', 6, ["{"]),
    (parse_stack._BRACKET_AND_ITEM, "], [1]", 4, ["1"]),
    (parse_stack._BRACKET_AND_ITEM, "], [[1]]", 4, []),
    (parse_stack._BRACKET_AND_ITEM, '], "b", 3] so', 10, ["]"]),
    (parse_stack._BRACKET_AND_ITEM, "], 3 and 4", 5, []),
    (parse_stack._BRACKET_AND_ITEM, "], so", 5, []),
    (parse_stack.NEXT_OBJECT, '{ "a": 1', 5, ["a"]),
    (parse_stack.NEXT_OBJECT, "{a: 1", 1, []),
    (parse_stack._BRACE_AND_OBJECT, "}, {'a': 1", 7, ["a"]),
    (parse_stack._BRACE_AND_OBJECT, "}]", 1, []),
    (quotes.FLAT_LIST, '["a", b] ,', 9, ["]"]),
    (quotes.FLAT_LIST, "[[1]]", 1, []),
    (quotes._BRACKET, "](", 2, ["("]),
    (quotes._BRACKET, "]**", 1, []),
    # Strings and keys.
    (quotes._STRING, r'"a\"b" :', 7, ['"']),
    (quotes._STRING, '"a', 2, []),
    (quotes._KEY, "\"it is\" :", 9, [":"]),
    (quotes._KEY, '", "b":', 1, []),
    (quotes._KEY_WITHOUT_QUOTE, '"b: x"', 3, [":"]),
    (quotes._KEY_WITHOUT_QUOTE, '"b, x"', 2, []),
    (quotes.PLUS, '+ /* a */ // b\n "c"', 16, []),
    (quotes.PLUS, '+ /* "c"', 5, []),
    # Code in a string.
    (quotes._CODE, '["a", "b"] + c', 10, ["[", "]"]),
    (quotes._CODE, '{"a": [{"b": "c)"}]}; d', 20, ["{", "}"]),
    (quotes._CODE, '("a", f("b"))"', 13, ["(", ")"]),
    (quotes._CODE, '["a", "b": 1}', 13, ["[", "}"]),
    (quotes._CODE, '["a\n"]', 3, ["["]),
    (quotes._AFTER_CODE, '", "b"', 1, ['"']),
    (quotes._AFTER_CODE, ", so it", 6, ["so i", "i"]),
    (quotes._AFTER_CODE, " + 1", 1, []),
    # Around a value.
    (scanner._REST, '"b"]', 4, []),
    (scanner._REST, "3, 4", 2, []),
    (scanner._REST, "b: 2}", 5, []),
    (scanner._REST, "note: so", -1, []),
    (scanner._REST, "3 of them", -1, []),
    (scanner._MEMBER, '\n"a": {', 7, ["{"]),
    (scanner._MEMBER, "'a' : -1", 7, ["-"]),
    (scanner._MEMBER, '"a": nothing', 12, ["nothing"]),
    (scanner._MEMBER, '"a" is', 4, []),
    (scanner._OUTSIDE, '［ "a"', 3, ["", '"']),
    (scanner._SET, '{"a", "b"}', 5, [","]),
    (scanner._SET, '{"a": 1}', 4, []),
    (scanner._SET, "{5}", 3, ["}"]),
    (scanner._ITEM_IN_PARENTHESES, '("x"), 1', 6, [","]),
    (scanner._ITEM_IN_PARENTHESES, "(1, 2)", 2, []),
    (scanner._ITEM_IN_PARENTHESES, "(1)", 3, [""]),
    (scanner._BRACKETS_FOR_KEY, '{{ "a"', 3, []),
    (scanner._BRACKETS_FOR_KEY, "(so) }", 5, []),
    (scanner._BRACKETS_FOR_KEY, "(a: 1)", -1, []),
    (scanner._KEY_AND_VALUE, "a: x y", 6, ["a", "x y"]),
    (scanner._KEY_AND_VALUE, "http://a.org", -1, []),
    (scanner._TAG, "</think> a", 8, ["/", "think"]),
    # Unquoted text.
    (scalars._UNQUOTED, "a {b} c, d", 7, []),
    (scalars._UNQUOTED_IN_OBJECT, "well, yes, b: 1", 9, []),
    (scalars._UNQUOTED_IN_OBJECT, "1,000, b: 1", 5, []),
    (scalars._KEY_AFTER_COMMA, ", b-c : 1", 7, [" ", ":"]),
    (scalars._NONSTANDARD_NUMBER, "+1_000.5e-3,", 11, []),
    (scalars._NONSTANDARD_NUMBER, ".5", 2, []),
    (buffer._BLOCK_COMMENT, "/* a * b */ c", 11, []),
    (buffer._BLOCK_COMMENT, "/* a", 4, []),
    # Escapes.
    (strings._ANY_ESCAPE, r"\ud83d\ude00!", 12, []),
    (strings._ANY_ESCAPE, r"\ud83d!", 6, []),
    (strings._ANY_ESCAPE, r"\x41!", 4, []),
    (strings._ANY_ESCAPE, r"\q!", 2, []),
    (strings._TRUNCATED_ESCAPE, r"\u12", 4, []),
    (strings._TRUNCATED_ESCAPE, "\\", 1, []),
    (strings._text_pattern('"'), r'a\n\u00e9 "b"', 10, []),
    (strings._text_pattern('"'), r"a\ud83d", 1, []),
    (strings._text_pattern("\u201c"), "it\u2019s\u201d", 4, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "text", "end", "groups"),
    [pytest.param(*case, id=f"{number} {case[1]}") for number, case in enumerate(MATCHES)],
)
def test_a_pattern_matches(pattern: re.Pattern[str], text, end, groups):
    match = pattern.match(text)
    found = [group for group in match.groups() if group is not None] if match else []
    assert (match.end() if match else -1, found) == (end, groups)


def test_the_fast_path_decides_as_the_slow_reader(monkeypatch):
    texts = [case[1] for case in BROKEN + CUT] + [one.text for one in broken_texts()]
    texts += [f"{before}{case[1]}" for case in MATCHES for before in ("{", "[", '{"k": ')]
    texts += [text for seed, text in enumerate(texts) for text in mutations(text, seed, 5)]
    fast = [repaired(text) for text in texts]
    for name in ("COMMON_MEMBER", "COMMON_ITEM"):
        monkeypatch.setattr(fast_path, name, re.compile("(?!)"))
    assert fast == [repaired(text) for text in texts]
