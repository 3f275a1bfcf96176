r"""Where a string ends, when nobody can rely on inner quotes being escaped.

A quote ends its string if what follows could follow a string, as far as the next two quotes tell.
So a character is looked at for the sake of at most three quotes before it, however many there
are, and once more for a list that a comma precedes. Where it is `"` that opens, a string of valid
JSON always ends where JSON says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import TypeAlias

from minillmlib.json_repair.buffer import Window
from minillmlib.json_repair.nested_quotes import InnerQuotes
from minillmlib.json_repair.parse_stack import Growing
from minillmlib.json_repair.string_patterns import CLOSERS

__all__ = [
    "FLAT_LIST",
    "PLUS",
    "Ending",
    "holds_raw_json",
    "is_key_at",
    "is_last_string_at",
    "key_ending",
    "opener_at",
    "quote_size",
    "value_ending",
]

Tail: TypeAlias = Callable[[], str]


class Ending(Enum):
    """What a quote within a string means."""

    CONTENT = auto()
    CLOSES = auto()
    JOINS = auto()  # a plus sign and another string follow
    CUT = auto()  # it is none: the text ends
    LOST = auto()  # it opens the next key: the string's own closing quote is missing


_AFTER_BRACKET = ("", ",", "}", "]", ")")
_QUOTES = frozenset(opener for opener in CLOSERS if len(opener) == 1)

_SPACE = re.compile(r"\s*+")
_STRING = re.compile(r'"(?:[^"\\]++|\\.?+)*+(?:(")\s*+)?+', re.DOTALL)
_SINGLE_KEY = re.compile(r"(?:'[^'\\\n]*+(?:'\s*+(:)?+)?+)?+")
_KEY_HERE = re.compile(r"""(?:["'](?:[\w$][^"'\\\n]*+)?+(?:["']\s*+(:)?+)?+)?+""")
_OPENS_ELEMENT = re.compile(r",[ \t]*\n\s*\Z")
_LITERALS = frozenset({"true", "false", "null", "True", "False", "None"})
_WORDS_AND_BRACKET = re.compile(r"[\w \t]*+(?:([}\]])\s*+)?+")
_BRACKET_AND_COMMA = re.compile(r"[}\]]\s*+,\s*+\Z")
_BRACKET = re.compile(r"[}\])]([\w(\\+?|^$=]|\*(?!\*))?+")  # and what goes on in code
FLAT_LIST = re.compile(r'\[(?:[^\[\]{}"\\\n]++|"[^"\\\n]*+"?+)*+(?:(\])\s*+)?+')
_OPENS_KEY = re.compile(r"[,\n]\s*\Z")
_KEY_WITHOUT_QUOTE = re.compile(r'""?+(?:[\w$-]++"?+"?+(:)?+)?+')
_WORD = re.compile(r"[\w$-]*+\s*+")
_SCALAR = re.compile(r"(?:(-?[0-9][0-9.eE+-]*+)|[\w$-]*+)\s*+")
_BARE_KEY = re.compile(r"[\w$-]*+[\"']?+\s*+")
_NUMBER = re.compile(r"-?+([0-9][0-9.]*+\s*+)?+")
_TO_COMMA = re.compile(r'[^"\]\n,]*+')
# A plus sign and comments without quotes.
PLUS = re.compile(r'\+\s*+(?:/(?:\*(?:[^*"]++|\*(?!/))*+(?:\*/)?+|/[^\n"]*+)?+\s*+)*+')
_COMMENT = re.compile(r'(?:/?/|#)[^\n"]*+')
_RAW = re.compile(r'[\[{]\s*+"?+')


def opener_at(window: Window, pos: int) -> str:
    """The quote that opens a string there, or `""`."""
    char = window.char(pos)
    if char == "\\":
        return '\\"' if window.char(pos + 1) == '"' else ""
    if char not in _QUOTES:
        return ""
    if char not in "\"'" or window.char(pos + 1) != char:
        return char
    third = window.char(pos + 2)
    return char * 3 if third == char else char * 2 if third.isalnum() else char


def quote_size(window: Window, pos: int, opener: str) -> int:
    """How many characters the quote there has that may close a string."""
    if len(opener) == 3:
        return 3 if window.char(pos + 1) == window.char(pos + 2) == opener[0] else 1
    if len(opener) == 2 and opener[0] == opener[1]:
        return 2 if window.char(pos + 1) == opener[0] else 1
    return 2 if window.char(pos) == "\\" else 1


def holds_raw_json(window: Window, pos: int) -> bool:
    """Whether a string begins there with an object or array whose quotes are not escaped."""
    if window.char(pos) not in "{[" or window.char(pos) == "":
        return False
    match = window.look(_RAW, pos)
    return match[0].endswith('"') and window.char(match.end()).isalnum()


def value_ending(
    window: Window, pos: int, growing: Growing, tail: Tail, inner: InnerQuotes
) -> Ending:
    """What the quote before `pos` means in a string; `tail` gives the string's last text."""
    gap = window.look(_SPACE, pos)
    after = gap.end()
    char = window.char(after)
    if char == "" or char in "}])":
        is_within = inner.closers[-1:] == [char]
        is_end = char == "" or _is_end_before_bracket(window, after, growing)
        return _closes_if(is_end and not is_within)
    if char == ",":
        return _closes_if(_is_next_after_comma(window, after + 1, growing, inner))
    if char in _QUOTES:
        return _closes_if(_is_next_string(window, gap, growing))
    if char == "+":
        return Ending.JOINS if opener_at(window, window.look(PLUS, after).end()) else Ending.CONTENT
    if char in "/#":
        return _closes_if(_is_comment(window, after))
    return _ending_before_word(window, gap, growing, tail)


def is_key_at(window: Window, pos: int) -> bool:
    """Whether a quoted key and its colon stand there."""
    return window.look(_KEY_HERE, pos)[1] is not None


def _closes_if(closes: bool) -> Ending:  # noqa: FBT001 - it is the whole question
    return Ending.CLOSES if closes else Ending.CONTENT


def _is_end_before_bracket(window: Window, pos: int, growing: Growing) -> bool:
    closers, char = growing.closers, window.char(pos)
    if closers[-1] == char or (char in closers and window.look(_BRACKET, pos)[1] is None):
        return True
    return _is_stray(window, pos)


def _is_stray(window: Window, pos: int) -> bool:
    """Whether a bracket that closes nothing stands where only brackets and commas do."""
    return window.char(window.look(_SPACE, pos + 1).end()) in _AFTER_BRACKET


def _ending_before_word(window: Window, gap: re.Match[str], growing: Growing, tail: Tail) -> Ending:
    after, char = gap.end(), window.char(gap.end())
    if gap[0] and _is_stray_word(window, after, growing):
        return Ending.CLOSES
    if not growing.is_in_object:
        if not gap[0] and _OPENS_ELEMENT.search(tail()):
            return Ending.LOST
        is_next = gap[0] != "" and (char == "{" or _is_number(window, after))
        return _closes_if(char == ":" or is_next)
    if not gap[0] and _OPENS_KEY.search(tail()):
        return Ending.LOST if is_key_at(window, after - 1) else Ending.CONTENT
    if "\n" not in gap[0]:
        return Ending.CONTENT
    return _closes_if(_is_bare_key(window, after))


def _is_stray_word(window: Window, pos: int, growing: Growing) -> bool:
    """Whether words follow that stand before the end of what holds the string."""
    words = window.look(_WORDS_AND_BRACKET, pos)
    is_before_end = words[1] is not None and growing.awaits(words[1])
    return is_before_end and window.char(words.end()) in _AFTER_BRACKET


def _is_number(window: Window, pos: int) -> bool:
    """Whether a number follows that no word follows."""
    number = window.look(_NUMBER, pos)
    char = window.char(number.end())
    return number[1] is not None and (char == "" or char in '",]}{[-' or char.isdecimal())


def _is_bare_key(window: Window, pos: int) -> bool:
    word = window.look(_BARE_KEY, pos)
    return word[0] != "" and not word[0].isspace() and window.char(word.end()) == ":"


def _is_next_after_comma(window: Window, pos: int, growing: Growing, inner: InnerQuotes) -> bool:
    """Whether the next key or element begins there."""
    in_object = growing.is_in_object
    after = window.look(_SPACE, pos).end()
    char = window.char(after)
    if char == '"':
        is_next = not (in_object or inner.is_quoting) or _is_string(window, after, growing)
        return is_next or (in_object and _is_unclosed_key(window, after))
    if char == "" or char in "}]),{/#\\" or char in _QUOTES:
        return True
    if in_object and char == "[":
        return _is_list_without_key(window, after)
    if in_object:
        word_end = window.look(_WORD, after).end()
        return _is_bare_key(window, after) or (word_end > after and is_key_at(window, word_end))
    if char in "[-(" or char.isdecimal():
        return True
    return window.char(window.look(_TO_COMMA, after).end()) != '"'


def _is_list_without_key(window: Window, pos: int) -> bool:
    """Whether a list of words or strings stands there before the object's end or its next key."""
    match = window.look(FLAT_LIST, pos)
    char = window.char(match.end())
    if match[1] is None or char != ",":
        return match[1] is not None and char == "}"
    return is_key_at(window, window.look(_SPACE, match.end() + 1).end())


def _is_unclosed_key(window: Window, pos: int) -> bool:
    return window.look(_KEY_WITHOUT_QUOTE, pos)[1] is not None


def _is_string(window: Window, pos: int, growing: Growing) -> bool:
    """Whether what begins with that quote is a string, and not the rest of the one before."""
    match = window.look(_STRING, pos)
    if match[1] is None:
        return True  # the text ends within it
    char = window.char(match.end())
    if char == "" or char in ':,}]"=/#{[-' or char.isdecimal():
        return True
    if char == ")":
        return growing.awaits(char)
    return _is_stray_word(window, match.end(), growing)


def _is_next_string(window: Window, gap: re.Match[str], growing: Growing) -> bool:
    """Whether a string follows, with the comma missing, or the end of a code block."""
    place, in_object = gap.end(), growing.is_in_object
    if window.char(place) == "`":  # or the fence of the code block that holds all of this
        return window.char(place + 1) == "`" == window.char(place + 2)
    if not gap[0]:
        return in_object and is_key_at(window, place)
    if window.char(place) != '"':
        return "\n" in gap[0] or window.look(_SINGLE_KEY, place)[1] is not None
    if not in_object:
        return _is_string(window, place, growing)
    match = window.look(_STRING, place)
    return match[1] is None or window.char(match.end()) == ":"


def _is_comment(window: Window, pos: int) -> bool:
    if window.char(pos) == "/" and window.char(pos + 1) not in ("/", "*"):
        return False
    if window.char(pos + 1) == "*" and window.char(pos) == "/":
        return True
    match = window.look(_COMMENT, pos)
    if window.char(match.end()) in ("", "\n"):
        return True
    return bool(_BRACKET_AND_COMMA.search(match[0])) and window.is_last_line(pos)


def key_ending(window: Window, pos: int) -> bool:
    """Whether the quote before `pos` ends a key."""
    gap = window.look(_SPACE, pos)
    char = window.char(gap.end())
    if char == "" or char in ":=,}]":
        return True
    if char == '"':
        return is_last_string_at(window, gap.end())
    if not gap[0]:
        return _is_scalar(window, gap.end(), ",}")
    if char in "{['\u201c\u2018" or char.isdecimal():
        return True
    return _is_scalar(window, gap.end(), _AFTER_BRACKET)


def is_last_string_at(window: Window, pos: int) -> bool:
    """Whether a string stands there, and a comma or the end of an object behind it."""
    match = window.look(_STRING, pos)
    return match[1] is not None and window.char(match.end()) in (",", "}")


def _is_scalar(window: Window, pos: int, ends: Collection[str]) -> bool:
    word = window.look(_SCALAR, pos)
    is_one = word[1] is not None or word[0].rstrip() in _LITERALS
    return is_one and window.char(word.end()) in ends
