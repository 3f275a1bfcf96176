"""JSON that comes from outside, and text of it that may be shown to a person."""

from __future__ import annotations

import codecs
import re
from typing import Any, TypeAlias, TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError

__all__ = [
    "JsonObject",
    "JsonValue",
    "convert_json",
    "decode_json",
    "encode_json",
    "excerpt",
    "excerpt_of",
    "has_more_values",
    "json_text",
    "string_or_empty",
]

# The one place where Any is allowed: JSON whose shape nobody has checked yet.
JsonValue: TypeAlias = Any
JsonObject: TypeAlias = dict[str, JsonValue]

T = TypeVar("T")
TextT = TypeVar("TextT", str, bytes)

EXCERPT_CHARS = 200
PIECE = 1024 * 1024
MOST_MENDED = 10_000
MOST_MENDED_BYTES = 16 * 1024 * 1024  # what is mended is in memory three times


def decode_json(data: bytes | str) -> JsonValue:
    """The value of a JSON text. Raises `MalformedResponseError` for anything else.

    Two things that servers send although JSON has them not: half a surrogate pair, where texts
    are cut by UTF-16 units, is U+FFFD, and a number that is none (NaN) is null.
    """
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        try:
            return msgspec.json.decode(_mended(data))
        except (ValueError, RecursionError):
            raise MalformedResponseError(
                f"the server sent what is not JSON ({excerpt(str(error))}): {excerpt(data)}"
            ) from None


def _mended(data: bytes | str) -> bytes:
    """The text without those two things, and without bytes that are not UTF-8.

    Works on bytes: as text, one character beyond the first 65,536 makes each take four.
    """
    if len(data) > MOST_MENDED_BYTES:
        raise ValueError
    if isinstance(data, bytes):
        pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
        data = b"".join(text.encode() for text in codecs.iterdecode(pieces, "utf-8", "replace"))
    else:
        data = data.encode("utf-8", "replace")
    return _replaced(_replaced(data, _UP_TO_LONE_HALF, rb"\ufffd"), _UP_TO_NO_NUMBER, b"null")


def _replaced(data: bytes, up_to: re.Pattern[bytes], by: bytes) -> bytes:
    """`data` with what `up_to` finds after its first group replaced, unless that is often."""
    parts: list[bytes] = []
    place = 0
    while len(parts) < MOST_MENDED and (found := up_to.match(data, place)):
        parts.append(found[1])
        place = found.end()
    return by.join([*parts, data[place:]])


# Possessive, so that each byte is read once. A pair, or any other escape, is passed over as one,
# so that a backslash which is escaped itself hides nothing.
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_UP_TO_LONE_HALF = re.compile(
    rb"((?:[^\\]++|" + _HIGH + _LOW + rb"|(?!" + _LONE + rb")\\.)*+)" + _LONE, re.DOTALL
)
_STRING = rb'"(?:[^"\\]++|\\(?s:.))*+"'
_WHOLE = rb'(?:[^"]++|' + _STRING + rb")*+"
_NO_NUMBER = rb"-?(?:NaN|Infinity)"
_UP_TO_NO_NUMBER = re.compile(
    rb"((?:[^\"NI-]++|" + _STRING + rb"|(?!" + _NO_NUMBER + rb")[NI-])*+)" + _NO_NUMBER, re.DOTALL
)


def has_more_values(data: bytes | str, limit: int) -> bool:
    """Whether a JSON text has more values than that, by its commas and brackets.

    Takes a few MiB beside `data`, so that it can come before the decoding.
    """
    if len(data) <= limit or _marks_in(data) <= limit:
        return False
    if isinstance(data, str):
        return _has_more(data, limit, re.compile(_STRING.decode()), re.compile(_WHOLE.decode()))
    return _has_more(data, limit, re.compile(_STRING), re.compile(_WHOLE))


def _has_more(data: TextT, limit: int, string: re.Pattern[TextT], whole: re.Pattern[TextT]) -> bool:
    """Counts outside strings, from piece to piece, none of which ends in a string."""
    marks, strings, place, size = 0, 0, 0, PIECE
    while place < len(data) and (found := whole.match(data, place, place + size)):
        rest, count = string.subn(data[:0], found[0])
        marks, strings = marks + _marks_in(rest), strings + count
        if max(marks, strings // 2) > limit:  # a string needs a comma, a bracket or a colon
            return True
        if found.end() == place and place + size >= len(data):
            return False  # the last string has no end
        size = PIECE if found.end() > place else 2 * size
        place = found.end()
    return False


def _marks_in(data: bytes | str) -> int:
    if isinstance(data, str):
        return data.count(",") + data.count("[") + data.count("{")
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def convert_json(value: JsonValue, shape: type[T]) -> T:
    """`value` checked against `shape`; the error names the place that does not fit."""
    try:
        return msgspec.convert(value, shape)
    except (ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"the server's answer has an unexpected shape ({excerpt(str(error))}): "
            f"{excerpt_of(value)}"
        ) from None


def encode_json(value: JsonValue) -> bytes:
    """The JSON text of a value of ours. Raises `InvalidParameterError` if it has none."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(f"the request cannot be written as JSON: {error}") from None


def json_text(value: JsonValue) -> str:
    """The JSON text of a value that a server sent. Raises `MalformedResponseError` if too deep."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"the server sent a value that cannot be written again ({error})"
        ) from None


def string_or_empty(value: JsonValue) -> str:
    """The value if it is a text, else no text: for fields whose type nobody can rely on."""
    return value if isinstance(value, str) else ""


def excerpt_of(value: JsonValue, limit: int = EXCERPT_CHARS) -> str:
    """The start of a decoded JSON value, however deep it is, or long its numbers are."""
    try:
        return excerpt(repr(value), limit)
    except RecursionError:
        return "(a value nested too deeply to show)"
    except ValueError:
        return "(a number too long to show)"


def excerpt(data: bytes | str, limit: int = EXCERPT_CHARS) -> str:
    """The start of a foreign text on one line, safe to print: no control characters."""
    text = data[: limit * 4].decode("utf-8", "replace") if isinstance(data, bytes) else data
    line = " ".join(text[: limit * 2].split())
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return shown if len(shown) <= limit else shown[:limit] + "\N{HORIZONTAL ELLIPSIS}"
