"""The characters of a string, part by part, with escapes decoded."""

from __future__ import annotations

import re
from typing import TypeAlias

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.changes import JsonChangeKind as Kind

__all__ = ["ODD_RUNS", "REPLACEMENT", "decoded", "odd_part"]

Part: TypeAlias = "tuple[str, int, Kind | None]"

_CONTROLS = re.compile(r"[\x00-\x1f]*+")
_HEX = "[0-9a-fA-F]"
_ODD = re.compile(rf"\\(?:u{_HEX}{{0,4}}+(?:\\(?:u{_HEX}{{0,4}}+)?+)?+|x{_HEX}{{0,2}}+|(?s:.))?+")
_PAIR = re.compile(r"\\u([dD][89abAB]..)\\u([dD][c-fC-F]..)")
_CUT = re.compile(rf"\\(?:u(?:{_HEX}{{0,3}}|[dD][89abAB]..(?:\\(?:u{_HEX}{{0,3}})?)?)|x{_HEX}?)?")
_LONE = re.compile(r"\\u[dD][89a-fA-F]..")
_BYTE = re.compile(r"\\x(..)")
_ESCAPE = re.compile(r"\\(?:u(....)|(.))")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Runs of escapes that are none, and stay as they are written, and of halves of surrogate pairs;
# how long each is, and what it is.
ODD_RUNS = (
    (
        re.compile(r"(?:\\(?:[^\"'`\\/bfnrtux\x00-\x1f](?!\Z)|u(?=[^0-9a-fA-F])))++"),
        2,
        Kind.ODD_ESCAPE,
    ),
    (
        re.compile(
            rf"(?:\\u[dD](?:[89abAB]{_HEX}{{2}}(?=[^\\]|\\[^u]|\\u(?![dD][c-fC-F]){_HEX}{{4}})"
            rf"|[c-fC-F]{_HEX}{{2}}(?=[^\\]|\\[^u]|\\u{_HEX}{{4}})))++"
        ),
        6,
        Kind.LONE_SURROGATE,
    ),
)
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def odd_part(window: Window, pos: int, char: str) -> Part:
    """What a control character or an odd escape means, where it ends, and what was guessed."""
    if char == "\\":
        return _odd_escape(window, pos)
    end = _CONTROLS.match(window.text, pos).end()  # type: ignore[union-attr]  # it always matches
    return window.text[pos:end], end, Kind.CONTROL_CHARACTER


def decoded(text: str) -> str:
    """The text without its escapes, all of which are JSON's."""
    return _ESCAPE.sub(_decoded, text)


def _decoded(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _SIMPLE.get(escape[2], escape[2])


def _odd_escape(window: Window, pos: int) -> Part:
    """What JSON has no escape for, halves of surrogate pairs, and what the text's end cut."""
    match = window.look(_ODD, pos)
    escape, end = match[0], match.end()
    is_last = end == len(window.text)
    if pair := _PAIR.fullmatch(escape):
        return bytes.fromhex(pair[1] + pair[2]).decode("utf-16-be"), end, None
    if is_last and _CUT.fullmatch(escape):
        return "", end, Kind.CUT_VALUE
    if _LONE.match(escape):
        return REPLACEMENT, pos + 6, Kind.LONE_SURROGATE
    if byte := _BYTE.fullmatch(escape):
        return chr(int(byte[1], 16)), end, Kind.ODD_ESCAPE
    return _other_escape(escape[1]), pos + 2, Kind.ODD_ESCAPE


def _other_escape(char: str) -> str:
    if char == "\n":
        return ""  # a line that goes on in the next
    return char if char in "\"'`\\/" else _SIMPLE.get(char, "\\" + char)
