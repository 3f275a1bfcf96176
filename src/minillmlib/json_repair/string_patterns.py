"""What a string or key goes on with for certain, as patterns."""

from __future__ import annotations

import re
from functools import cache

from minillmlib.json_repair.nested_quotes import NOT_IN_BRACKET

__all__ = ["CLOSERS", "INNER_QUOTES", "clean_string", "key_run_of", "run_of", "triple_string"]

# What opens a string, and the characters that may close it.
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
}

_ESCAPE = r"\\(?:[\"\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})"

# Quotes that are text at a glance: what follows could not follow a string, as `quotes`
# would say. Each looks as far as they would, and so at the next two quotes at most. Where a branch
# begins with a set of characters, the engine need not enter it.
_ANY = "\"'`\u201c-\u201e\u2018\u2019\u00ab"
_NO_STRING = r'"[^"\\]*+"\s*+[^\s:,}\]"=/#{\[\-)\w$]'  # a string, and what cannot follow one
_NO_KEY = (
    r"""["'](?:["']\s*+[^\s:]|[^\w$"'\s:]|\s\s*+[^\s:]|[\w$][^"'\\\n]*+(?:[\\\n]|["']\s*+[^\s:]))"""
)
_COMMA_IN_OBJECT = (
    rf",\s*+(?:[^\s}}\]),{{\[/#\\\w$\-{_ANY}]|[\w$-][\w$-]*+\s*+(?:[^\s:\"'\w$-]|{_NO_KEY})"
    rf'|(?!"[\w$-]++:){_NO_STRING})'
)
_IN_OBJECT = (
    r"(?<=[\"'])[\w$][^\"'\\\n]*+(?:[\\\n]|[\"']\s*+[^\s:])|(?<=[^\"'])[\w$]"
    rf"|[^\S\n][^\S\n]*+(?:[^\s}}\]),+/#\w{_ANY}]|\w[\w \t]*+[^\w \t}}\]])"
    rf'|\s\s*+(?:"[^"\\]*+"\s*+[^\s:]|{_COMMA_IN_OBJECT})'
    rf"|{_COMMA_IN_OBJECT}"
)
_COMMA_IN_ARRAY = rf",\s*+[^\s}}\]),{{/#\\\[\-(\d{_ANY}][^\"\]\n,]*+\""
_IN_ARRAY = (
    rf"\s\s*+(?:[^\s}}\]),+/#:{{\w\-{_ANY}]|[^\W\d][\w \t]*+[^\w \t}}\]]|{_NO_STRING}"
    rf"|{_COMMA_IN_ARRAY})|{_COMMA_IN_ARRAY}"
)
# Right after a quote, where no line or comma before it may be the end of a string.
_TEXT_IN_OBJECT = rf"(?<=[^\s,]@)(?=[^\s}}\]),+/#{_ANY}])"
_TEXT_IN_ARRAY = rf"(?<=\S@)(?=[^\s}}\]),+/#:{_ANY}])"
_IN_KEY = r"@(?=[^\s:=,}\]\"'`]|\s\s*+(?:(?![tTfFnN\d])[\w$-]|[^\s:=,}\]\"{\['\u201c\u2018\w]))"
_SINGLE_IN_OBJECT = rf"{_NO_KEY}|[{_ANY[2:].replace('`', '')}]|"
_SINGLE_IN_ARRAY = rf"[{_ANY.replace('`', '')}]|"


def _inner(opener: str, *, in_object: bool) -> str:
    if in_object:
        single, any_, text = _SINGLE_IN_OBJECT, _IN_OBJECT, _TEXT_IN_OBJECT
    else:
        single, any_, text = _SINGLE_IN_ARRAY, _IN_ARRAY, _TEXT_IN_ARRAY
    return f"@(?:(?={single if len(opener) == 1 else ''}{any_})|{text})"


def _triple(quote: str) -> str:
    return f"@(?=[^{quote}])|@@(?=[^{quote}])"


def _run(opener: str, inner: str = "", controls: str = r"\x00-\x1f") -> str:
    """What a string that this quote opens goes on with for certain."""
    closers = re.escape(CLOSERS[opener])
    text = rf"[^{closers}\\{controls}]"
    if opener == '\\"':
        return f"{text}*+"
    inner = inner.replace("@", f"[{closers}]")
    return f"{text}*+(?:(?:{_ESCAPE}{inner and f'|{inner}'}){text}*+)*+"


@cache
def run_of(opener: str, in_object: bool, is_raw: bool, is_told: bool) -> re.Pattern[str]:  # noqa: FBT001 - keywords cost time
    """What a value that this quote opens goes on with for certain, with quotes as a group.

    Where it is told that control characters are in the string, they go on, too.
    """
    inner = _inner(opener, in_object=in_object)
    if len(opener) == 3:
        inner = _triple(opener[0])
    elif is_raw:
        inner = rf"(?<=[^\s}}\]])@|{inner}"
    return re.compile(_run(opener, f"({inner})", "" if is_told else r"\x00-\x1f"))


def clean_string(quote: str, name: str, *, in_object: bool) -> str:
    """A string whose end needs no thought if what follows it could follow a string."""
    run = _run(quote, NOT_IN_BRACKET + _inner(quote, in_object=in_object))
    return rf'{quote}(?!{quote}[{quote}\w]|[{{\[]\s*+")(?P<{name}>{run}){quote}'


def triple_string(quote: str, name: str) -> str:
    """A string in triple quotes."""
    run = _run(quote * 3, _triple(quote))
    return f"{quote * 3}(?P<{name}>{run}){quote * 3}"


@cache
def key_run_of(opener: str, has_inner: bool) -> re.Pattern[str]:  # noqa: FBT001 - as above
    """What a key that this quote opens goes on with for certain.

    With quotes as a group once there was one: the first may be that of the next key or string.
    """
    if not has_inner or len(opener) == 3:
        return re.compile(_run(opener))
    quotes = "|@(?=[\"'`])" if len(opener) == 1 else ""
    return re.compile(_run(opener, f"({_IN_KEY}{quotes})"))


INNER_QUOTES = {
    opener: re.compile(rf"\\.|([{re.escape(closers)}])", re.DOTALL)
    for opener, closers in CLOSERS.items()
}
