"""Members and elements that need little thought, at a glance.

Each pattern looks ahead as far as the slow way would, so that both decide the same.
"""

from __future__ import annotations

import re

from minillmlib.json_repair.string_patterns import clean_string, triple_string

__all__ = [
    "CLEAN_ITEM",
    "CLEAN_MEMBER",
    "JUNK_BEFORE_KEY",
    "KEY_ONLY",
    "PLAIN_ITEM",
    "PLAIN_VALUE",
    "TRIPLE",
]

_NUMBER = r"-?(?:0|[1-9][0-9]{0,15}+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]{1,2}+)?+"
_DOUBLE_KEY, _SINGLE_KEY = r'"([^"\\\x00-\x1f]*+)"', r"'([^'\\\x00-\x1f]*+)'"
_INTEGER = r"0|-?[1-9][0-9]{0,15}+"
_BARE_SCALAR = rf"(?:(?P<integer>{_INTEGER})|(?P<bare>{_NUMBER}|[A-Za-z]\w*+))"


def _strings(*, in_object: bool) -> str:
    names = {'"': "double", "'": "single"}
    return "|".join(clean_string(quote, names[quote], in_object=in_object) for quote in names)


_KEY = rf"\s*+(?:{_DOUBLE_KEY}|{_SINGLE_KEY}|([A-Za-z_$][\w$-]*+))\s*+:\s*+"
_KEY_AHEAD = r"""\s*+(?:\}|(?:"[^"\\]*+"|'[^'\\]*+'|[\w$-]++)\s*+:)"""
_NEXT_STRING_AHEAD = r'"[^"\\\x00-\x1f]++"\s*+[,\]"]'
_QUOTED_KEY_AHEAD = r'"[^"\\\x00-\x1f]*+"\s*+:'
_STRING_AHEAD = r'\s*+"[^"\\]*+"\s*+[:,}\]]'
# A key, and its value if that is clean, too.
CLEAN_MEMBER = re.compile(
    rf"{_KEY}(?:(?:{_strings(in_object=True)}|{_BARE_SCALAR})\s*+"
    rf"(?:(?=\}})|,(?={_KEY_AHEAD})|(?<=\s)(?={_QUOTED_KEY_AHEAD}))|(?=\S))"
)
CLEAN_ITEM = re.compile(
    rf"\s*+(?:(?:{_strings(in_object=False)})\s*+(?:(?=\])|,(?={_STRING_AHEAD}|\s*+['0-9{{\[\]-])"
    rf"|(?<=\s)(?={_NEXT_STRING_AHEAD}))"
    rf"|(?:{_BARE_SCALAR}|(?P<words>[A-Za-z]\w*+(?: [A-Za-z]\w*+)++))\s*+(?:(?=\])|,))"
)
# What stands alone: dots, a number or a literal, before what ends them.
_PLAIN = rf"""(?:(\.++)|(?P<integer>{_INTEGER})|(?P<bare>{_NUMBER}|true|false|null))(?!\w)"""
_PLAIN_END = r"""(?=\s*+[}\])]|\s++["'{\[#/])|(?<!\.)(?=\{)"""
PLAIN_VALUE = re.compile(rf"{_PLAIN}(?:{_PLAIN_END})")
PLAIN_ITEM = re.compile(rf"{_PLAIN}(?:{_PLAIN_END}|(?=\s*+,))")
TRIPLE = re.compile("|".join([triple_string('"', "triple"), triple_string("'", "apostrophes")]))
# A key that a comma or a bracket follows instead of a colon, and that has none within.
KEY_ONLY = re.compile(rf"(?!.[\w$-]++:)(?:{_DOUBLE_KEY}|{_SINGLE_KEY}|(?!)())\s*+(?=[,}}\]])")
# Brackets where a key should be.
JUNK_BEFORE_KEY = re.compile(
    r"[{\[][:={\[\s]*+(?=\S)|\([^:=,{}\[\]\"'\n\u201c\u2018]*+(?=[{}\[\],])"
)
