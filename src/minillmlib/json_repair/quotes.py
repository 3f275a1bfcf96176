r"""The rules for where strings and keys end, since models do not always escape inner quotes.

A quote ends its string if what follows could follow a string, judged by the next two quotes at
most. So a character is read for at most three quotes before it, and once more for a list after a
comma, which keeps the repair linear. A string of valid JSON ends where JSON says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import TypeAlias

from minillmlib.json_repair.buffer import SPACE, InputBuffer
from minillmlib.json_repair.parse_stack import OPENERS, ParseStack, StringEnd, split_end

LastText: TypeAlias = Callable[[], str]


class Ending(Enum):
    """The meaning of a quote within a string."""

    CONTENT = auto()
    CLOSES = auto()
    CONCATENATES = auto()  # a plus sign and another string follow
    TRUNCATED = auto()  # there is no quote: the text ends
    MISSING_CLOSER = auto()  # it opens the next key or element: the string has no closing quote
    CLOSED_BY_BRACKETS = auto()  # there is no quote: the text ends with all brackets that are open


# Other characters that models write for commas and brackets.
OTHER_COMMAS = frozenset("\uff0c\u3001;\uff1b")
WIDE_BRACKETS = {"\uff5b": "{", "\uff5d": "}", "\uff3b": "[", "\uff3d": "]"}
OPENING_BRACKETS = frozenset("{[\uff5b\uff3b")
_AFTER_ITEM = frozenset({*OTHER_COMMAS, ",", "]", "\uff3d"})
_RARE = frozenset({*OTHER_COMMAS, *WIDE_BRACKETS, *"/#\\"})

_ENDINGS = {True: Ending.CLOSES, False: Ending.CONTENT}

# The quotes that open a string, and the characters that may close it.
CLOSERS = {
    '"': '"',
    "'": "'",
    "`": "`\u00b4",
    '"""': '"',
    "'''": "'",
    '""': '"',
    "''": "'",
    '\\"': '"',
    "\u201c": '\u201d\u201c"',  # as in English
    "\u201d": '\u201d"',  # as in Swedish
    "\u201e": '\u201d\u201c"',  # as in German
    "\u2018": "\u2019'",
    "\u2019": "\u2019'",
    "\u00ab": "\u00bb",  # as in French
    "\uff02": '\uff02"',  # of full width
}
_QUOTES = frozenset(opener for opener in CLOSERS if len(opener) == 1)
_AFTER_BRACKET = ("", ",", "}", "]", ")")
LITERALS = frozenset({"true", "false", "null", "True", "False", "None"})

# Group 1 is the closing quote.
_STRING = re.compile(r'"(?:[^"\\]++|\\.?+)*+(?:(")\s*+)?+', re.DOTALL)
# Group 1 is the colon of a key.
_COLON = "([:\uff1a])"
_SINGLE_KEY = re.compile(rf"(?:'[^'\\\n]*+(?:'\s*+{_COLON}?+)?+)?+")
_KEY = re.compile(rf"""(?:["'](?:[\w$][^"'\\\n]*+)?+(?:["']\s*+{_COLON}?+)?+)?+""")
_KEY_WITHOUT_QUOTE = re.compile(r'""?+(?:[\w$-]++"?+"?+(:)?+)?+')
_UNQUOTED_KEY = re.compile(r"[\w$-]*+[\"']?+\s*+")
_WORD = re.compile(r"[\w$-]*+\s*+")
# Group 1 is the number.
_SCALAR = re.compile(r"(?:(-?[0-9][0-9.eE+-]*+)|[\w$-]*+)\s*+")
_NUMBER = re.compile(r"-?+([0-9][0-9.]*+\s*+)?+")
_OPENS_ELEMENT = re.compile(r",[ \t]*\n\s*\Z|\]\s*,\s*\Z")
_OPENS_KEY = re.compile(r"[,\n]\s*\Z|\{\s*\Z")
# Group 1 is the bracket.
_WORDS_AND_BRACKET = re.compile(r"[\w \t]*+(?:([}\]])\s*+)?+")
_BRACKET_AND_COMMA = re.compile(r"[}\]]\s*+,\s*+\Z")
# Group 1 is how code goes on.
_BRACKET = re.compile(r"[}\])]([\w(\\+?|^$=]|\*(?!\*))?+")
_LIST_ITEM = r'[^\[\]{}"\\\n]++|"[^"\\\n]*+"?+'
# Group 1 is the closing bracket.
FLAT_LIST = re.compile(rf"\[(?:{_LIST_ITEM})*+(?:(\])\s*+)?+")
_TO_COMMA = re.compile(r'[^"\]\n,]*+')
_BLOCK_COMMENT = r'\*(?:[^*"]++|\*(?!/))*+(?:\*/)?+'
_LINE_COMMENT = r'/[^\n"]*+'
# A plus sign, and comments without quotes.
PLUS = re.compile(rf"\+\s*+(?:/(?:{_BLOCK_COMMENT}|{_LINE_COMMENT})?+\s*+)*+")
_COMMENT = re.compile(r'(?:/?/|#)[^\n"]*+')
_RAW_JSON = re.compile(r'(?:[\[{]\s*+(")?+)?+')

# JSON in a string begins with a quote right after a bracket, but for one space.
_JSON_START = re.compile(r'([{\[(])\s?"\w')
_JSON_BRACKET = re.compile(r"[{}\[\]]")
_JSON_CLOSERS = {"{": "}", "[": "]"}
# Code in a string: a list, object or call with quotes, three deep. Groups: its brackets.
_CODE_STRING = r'"(?:[^"\\\n]++|\\.?+)*+"?+'
_CODE_PART = rf'[^\[\]{{}}()"\n]++|{_CODE_STRING}'
_INNER_CODE = rf"{_CODE_PART}|[\[{{(](?:{_CODE_PART})*+[\]}})]?+"
_CODE = re.compile(rf"([\[{{(])(?:{_CODE_PART}|[\[{{(](?:{_INNER_CODE})*+[\]}})]?+)*+([\]}})])?+")
_KEY_IN_CODE = re.compile(r'"\s*+:')
# What may be after it in a text. Groups: a quote, a word after a comma, and what ends the word.
_AFTER_CODE = re.compile(r'\s*+(?:(")|,\s*+([A-Za-z][\w$]*+\s*+(.)?+)?+)?+', re.DOTALL)
# A quote that opens a quotation, with one or two characters before it and one after it.
_QUOTATION = re.compile(r"""(?:.?\W|\\[nrt])?"[^\s,.;:!?)\]}]""", re.DOTALL)


class NestedQuotes:
    """Follows the inner quotes of one string: quotations in it, or JSON."""

    __slots__ = ("_may_hold_json", "closers", "is_quoting", "may_start")

    def __init__(self, opener: str) -> None:
        self._may_hold_json = opener in {'"', "'"}
        self.may_start = self._may_hold_json  # whether JSON may start
        self.closers: list[str] = []  # of the JSON in the string, if some began with a quote
        # Whether the last quote opened a quotation; None before the first.
        self.is_quoting: bool | None = None

    def record_quote(self, surroundings: str) -> None:
        """Record an inner quote with two characters before it and one after it."""
        self.is_quoting = _QUOTATION.fullmatch(surroundings) is not None

    def start(self, bracket: str) -> None:
        """Record the bracket of what may be JSON."""
        if bracket in _JSON_CLOSERS:
            self.closers.append(_JSON_CLOSERS[bracket])
            self.may_start = False

    def record_text(self, text: str) -> None:
        """Record the brackets of the JSON, if there is any."""
        for bracket in _JSON_BRACKET.findall(text):
            if bracket in _JSON_CLOSERS:
                self.closers.append(_JSON_CLOSERS[bracket])
            elif self.closers[-1:] == [bracket]:
                self.closers.pop()
            if not self.closers:
                self.may_start = self._may_hold_json
                return


def bracket_of_code(surroundings: str) -> str:
    """Return the bracket right before a quote with one character after it, or `""`."""
    start = _JSON_START.search(surroundings)
    return start[1] if start else ""


def find_code(buffer: InputBuffer, pos: int) -> tuple[int, bool]:
    """Return the end of what may be code in a string, whose first quote is there, and if it is.

    Code is a list, object or call in brackets. After it, the string ends or goes on with words.
    """
    code = buffer.match(_CODE, pos - 1 - buffer.text[pos - 1].isspace())
    is_paired = code[2] is not None and OPENERS[code[2]] == code[1]
    if not is_paired or (code[1] == "(" and _KEY_IN_CODE.search(code[0])):
        return code.end(), False
    return code.end(), _goes_on(buffer, code)


def _goes_on(buffer: InputBuffer, code: re.Match[str]) -> bool:
    after = buffer.match(_AFTER_CODE, code.end())
    char = buffer.char_at(after.end())
    if after[1]:
        char = buffer.char_at(buffer.skip_space(after.end()))
        return char == "" or char in ",}])"
    if after[0].lstrip()[:1] == ",":
        return after[3] is not None and after[3] not in ":=\"',}]"
    return char != "" and char not in "}]{["


def opener_at(buffer: InputBuffer, pos: int) -> str:
    """Return the quote that opens a string there, or `""`."""
    char = buffer.char_at(pos)
    if char == "\\":
        return '\\"' if buffer.char_at(pos + 1) == '"' else ""
    if char not in _QUOTES:
        return ""
    if char not in "\"'" or buffer.char_at(pos + 1) != char:
        return char
    third = buffer.char_at(pos + 2)
    return char * 3 if third == char else char * 2 if third.isalnum() else char


def closer_size(buffer: InputBuffer, pos: int, opener: str) -> int:
    """Return how many characters the quote there has that may close a string, or 0."""
    char = buffer.text[pos]
    if char not in CLOSERS[opener]:
        is_escaped = char == "\\" and opener == '\\"' and buffer.char_at(pos + 1) == '"'
        return 2 if is_escaped else 0
    if len(opener) == 1:
        return 1
    if len(opener) == 3:
        return 3 if buffer.char_at(pos + 1) == buffer.char_at(pos + 2) == char else 1
    return 2 if opener[0] == opener[1] == buffer.char_at(pos + 1) else 1


def starts_raw_json(buffer: InputBuffer, pos: int) -> bool:
    """Whether a string begins there with an object or array whose quotes are not escaped."""
    match = buffer.match(_RAW_JSON, pos)
    return match[1] is not None and buffer.char_at(match.end()).isalnum()


def value_ending(
    buffer: InputBuffer, pos: int, stack: ParseStack, last_text: LastText, nested: NestedQuotes
) -> Ending:
    """Return the meaning of the quote before `pos` in a string whose end is `last_text()`."""
    gap = buffer.match(SPACE, pos)
    after = gap.end()
    char = buffer.char_at(after)
    if char == "" or char in "}])":
        is_nested = nested.closers[-1:] == [char]
        is_end = char == "" or _is_end_before_bracket(buffer, after, stack)
        return _ENDINGS[is_end and not is_nested]
    if char == ",":
        return _ENDINGS[_is_next_after_comma(buffer, after + 1, stack, nested)]
    if char in _QUOTES:
        return _ENDINGS[_is_next_string(buffer, gap, stack)]
    if char == "+":
        is_plus = opener_at(buffer, buffer.match(PLUS, after).end()) != ""
        return Ending.CONCATENATES if is_plus else Ending.CONTENT
    if char in _RARE:
        return _ENDINGS[_is_end_before_rare(buffer, after, stack)]
    return _ending_before_word(buffer, gap, stack, last_text)


def brackets_before_key(
    buffer: InputBuffer, pos: int, stack: ParseStack, last_text: LastText
) -> StringEnd | None:
    """Return the end of a string without a closing quote, if brackets and the key there end it."""
    end = split_end(last_text(), stack.closers)
    if not end.closers or not is_key_at(buffer, pos):
        return None
    around = stack.containers[: len(stack.containers) - len(end.closers)]
    is_fitting = around and type(around[-1]) is (list if end.opens_object else dict)
    return end if is_fitting else None


def is_key_at(buffer: InputBuffer, pos: int) -> bool:
    """Whether a quoted key and its colon are there."""
    return buffer.match(_KEY, pos)[1] is not None


def _is_end_before_bracket(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    closers, char = stack.closers, buffer.char_at(pos)
    if closers[-1] == char or (char in closers and buffer.match(_BRACKET, pos)[1] is None):
        return True
    # A bracket that closes nothing, among brackets and commas.
    return buffer.char_at(buffer.skip_space(pos + 1)) in _AFTER_BRACKET


def _ending_before_word(
    buffer: InputBuffer, gap: re.Match[str], stack: ParseStack, last_text: LastText
) -> Ending:
    after, char = gap.end(), buffer.char_at(gap.end())
    if gap[0] and _is_stray_word(buffer, after, stack):
        return Ending.CLOSES
    if not stack.is_in_object:
        comma = None if gap[0] else _OPENS_ELEMENT.search(last_text())
        if comma and ("\n" in comma[0] or brackets_before_key(buffer, after - 1, stack, last_text)):
            return Ending.MISSING_CLOSER
        is_next = gap[0] != "" and (char == "{" or _is_number(buffer, after))
        return _ENDINGS[char == ":" or is_next]
    if not gap[0] and (opened := _OPENS_KEY.search(last_text())):
        if opened[0][0] == "{":
            is_next = brackets_before_key(buffer, after - 1, stack, last_text) is not None
        else:
            is_next = is_key_at(buffer, after - 1)
        return Ending.MISSING_CLOSER if is_next else Ending.CONTENT
    return _ENDINGS["\n" in gap[0] and _is_unquoted_key(buffer, after)]


def _is_stray_word(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    """Whether words follow, and then the end of the container of the string."""
    words = buffer.match(_WORDS_AND_BRACKET, pos)
    is_before_end = words[1] is not None and words[1] in stack.closers
    return is_before_end and buffer.char_at(words.end()) in _AFTER_BRACKET


def _is_number(buffer: InputBuffer, pos: int) -> bool:
    """Whether a number follows, and no word after it."""
    number = buffer.match(_NUMBER, pos)
    char = buffer.char_at(number.end())
    return number[1] is not None and (char == "" or char in '",]}{[-' or char.isdecimal())


def _is_unquoted_key(buffer: InputBuffer, pos: int) -> bool:
    word = buffer.match(_UNQUOTED_KEY, pos)
    if word[0] == "" or word[0].isspace():
        return False
    char = buffer.char_at(word.end())
    return char == ":" or (char == "=" and buffer.char_at(word.end() + 1) == ">")


def _is_next_after_comma(
    buffer: InputBuffer, pos: int, stack: ParseStack, nested: NestedQuotes
) -> bool:
    """Whether the next key or element begins there."""
    in_object = stack.is_in_object
    after = buffer.skip_space(pos)
    char = buffer.char_at(after)
    if char == '"':
        is_next = not (in_object or nested.is_quoting) or _is_string(buffer, after, stack)
        return is_next or (in_object and buffer.match(_KEY_WITHOUT_QUOTE, after)[1] is not None)
    if char == "\\":
        return _is_next_after_escaped_space(buffer, after, stack)
    if char == "" or char in "}]),{/#" or char in _QUOTES:
        return True
    if in_object and char == "[":
        return _is_list_without_key(buffer, after)
    if in_object:
        end = buffer.match(_WORD, after).end()
        return _is_unquoted_key(buffer, after) or (end > after and is_key_at(buffer, end))
    return char in "[-(" or char.isdecimal() or _is_bare_element(buffer, after, nested)


def _is_next_after_escaped_space(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    end = buffer.skip_escaped_space(pos)
    opener = opener_at(buffer, end)
    is_string = opener == '\\"' or (opener != "" and not stack.is_in_object)
    return end == pos or is_string or is_key_at(buffer, end)


def _is_bare_element(buffer: InputBuffer, pos: int, nested: NestedQuotes) -> bool:
    """Whether an element without an opening quote is there, and not the text of this one."""
    end = buffer.match(_TO_COMMA, pos).end()
    if buffer.char_at(end) != '"':
        return True
    return nested.is_quoting is None and buffer.char_at(buffer.skip_space(end + 1)) in (",", "]")


def _is_next_after_other_comma(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    """Whether the next key or element surely begins after another character than a comma."""
    after = buffer.skip_space(pos)
    if stack.is_in_object:
        return is_key_at(buffer, after)
    if buffer.char_at(after) in OPENING_BRACKETS:
        return True
    if buffer.char_at(after) != '"':
        return False
    item = buffer.match(_STRING, after)
    return item[1] is not None and buffer.char_at(item.end()) in _AFTER_ITEM


def _is_end_before_rare(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    char = buffer.char_at(pos)
    if char in "/#":
        return _is_comment(buffer, pos)
    if char in OTHER_COMMAS:
        return _is_next_after_other_comma(buffer, pos + 1, stack)
    if char == "\\":
        return _is_end_before_escaped_space(buffer, pos, stack)
    return WIDE_BRACKETS[char] == stack.closers[-1]


def _is_end_before_escaped_space(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    """Whether escaped line breaks follow, and brackets that end the text or are before a comma."""
    after, closers = buffer.skip_escaped_space(pos), stack.closers[::-1]
    found = 0
    while found < len(closers) and buffer.char_at(after) == closers[found]:
        after = buffer.skip_escaped_space(after + 1)
        found += 1
    return found > 0 and buffer.char_at(after) in ("", ",", "`")


def _is_list_without_key(buffer: InputBuffer, pos: int) -> bool:
    """Whether a flat list is there, and then the end of the object or its next key."""
    match = buffer.match(FLAT_LIST, pos)
    char = buffer.char_at(match.end())
    if match[1] is None or char != ",":
        return match[1] is not None and char == "}"
    return is_key_at(buffer, buffer.skip_space(match.end() + 1))


def _is_string(buffer: InputBuffer, pos: int, stack: ParseStack) -> bool:
    """Whether the quote there opens a string, and is not part of the string before."""
    match = buffer.match(_STRING, pos)
    if match[1] is None:
        return True  # the text ends within it
    char = buffer.char_at(match.end())
    if char == "" or char in ':,}]"=/#{[-' or char.isdecimal():
        return True
    if char == ")":
        return char in stack.closers
    return _is_stray_word(buffer, match.end(), stack)


def _is_next_string(buffer: InputBuffer, gap: re.Match[str], stack: ParseStack) -> bool:
    """Whether a string follows without a comma, or the fence that ends the code block."""
    pos, in_object = gap.end(), stack.is_in_object
    char = buffer.char_at(pos)
    if char == "`":
        return buffer.char_at(pos + 1) == "`" == buffer.char_at(pos + 2)
    if not gap[0]:
        return in_object and is_key_at(buffer, pos)
    if char != '"':
        return "\n" in gap[0] or buffer.match(_SINGLE_KEY, pos)[1] is not None
    if not in_object:
        return _is_string(buffer, pos, stack)
    match = buffer.match(_STRING, pos)
    return match[1] is None or buffer.char_at(match.end()) == ":"


def _is_comment(buffer: InputBuffer, pos: int) -> bool:
    if buffer.char_at(pos) == "/":
        following = buffer.char_at(pos + 1)
        if following != "/":
            return following == "*"
    match = buffer.match(_COMMENT, pos)
    if buffer.char_at(match.end()) in ("", "\n"):
        return True
    return bool(_BRACKET_AND_COMMA.search(match[0])) and buffer.is_last_line(pos)


def is_key_end(buffer: InputBuffer, pos: int, *, has_inner: bool) -> bool:
    """Whether the quote before `pos` ends a key, which may have inner quotes before."""
    gap = buffer.match(SPACE, pos)
    after = gap.end()
    char = buffer.char_at(after)
    if char == "" or char in ":=,}]\uff1a":
        return True
    if has_inner and not gap[0]:
        return False
    if char == '"':
        return is_last_string_at(buffer, after)
    if gap[0] and (char in "{['\u201c\u2018" or char.isdecimal()):
        return True
    word = buffer.match(_SCALAR, after)
    is_scalar = word[1] is not None or word[0].rstrip() in LITERALS
    return is_scalar and buffer.char_at(word.end()) in (_AFTER_BRACKET if gap[0] else ",}")


def is_last_string_at(buffer: InputBuffer, pos: int) -> bool:
    """Whether a string is there, and then a comma or the end of an object."""
    match = buffer.match(_STRING, pos)
    return match[1] is not None and buffer.char_at(match.end()) in (",", "}")
