"""Decodes and encodes JSON from untrusted sources, and has words for error messages."""

from __future__ import annotations

import codecs
import re
import sys
from itertools import chain
from numbers import Integral, Real
from typing import Any, TypeAlias, TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError

# The one place where Any is allowed: JSON whose shape is not checked yet.
JsonValue: TypeAlias = Any
JsonObject: TypeAlias = dict[str, JsonValue]

T = TypeVar("T")
TextT = TypeVar("TextT", str, bytes)

_VOWEL = re.compile("[aeio]|u(?!n?i|r[il]|s|u)", re.IGNORECASE)  # a Usage, a URL, an Update
EXCERPT_CHARS = 200
PIECE_BYTES = 1024 * 1024
COUNTED_BYTES = 64 * 1024  # at once: a pattern takes a hundred bytes for each string in them
MAX_REPAIRS = 10_000
LARGE_CHARS = 64 * 1024  # of a text whose values are not built only to check it
MAX_REPAIRED_BYTES = 16 * 1024 * 1024  # a repair holds the text in memory three times
# Far more than any API nests, and little enough to be read and written at any depth of calls.
MAX_DEPTH = 200


def decode_json(data: bytes | str) -> JsonValue:
    """Return the value of a JSON text, or raise `MalformedResponseError`.

    Accepts three mistakes of servers: half a surrogate pair, from texts cut by UTF-16 units,
    becomes U+FFFD, NaN and Infinity become null, and a byte order mark is skipped. Refuses what is
    nested more than `MAX_DEPTH` deep.
    """
    try:
        value = _decode(data)
    except (ValueError, RecursionError) as error:
        value = _decode_repaired(data, str(error))
    if has_many_brackets(data) and is_too_deep(value, MAX_DEPTH):
        raise MalformedResponseError(
            f"the server sent JSON that is nested more than {MAX_DEPTH} deep: {excerpt(data)}"
        )
    return value


def _decode_repaired(data: bytes | str, problem: str) -> JsonValue:
    try:
        return _decode(_repair_encoding(data))
    except (ValueError, RecursionError):
        raise MalformedResponseError(
            f"the server sent invalid JSON ({excerpt(problem)}): {excerpt(data)}"
        ) from None


_decode = msgspec.json.Decoder().decode


def is_json(text: str) -> bool:
    """Whether the text is one JSON value, as `decode_json` reads it.

    Of a large text no value is built, because it could take twenty times as much.
    """
    if len(text) < LARGE_CHARS:
        try:
            decode_json(text)
        except MalformedResponseError:
            return False
        return True
    try:
        _raw_decoder.decode(text)
    except (ValueError, RecursionError):
        try:
            _raw_decoder.decode(_repair_encoding(text))
        except (ValueError, RecursionError):
            return False
    return True


_raw_decoder = msgspec.json.Decoder(msgspec.Raw)  # builds no value


def memory_of(value: JsonValue) -> int:
    """Return about how many bytes a value takes, with all that is in it. O(values)."""
    total, pending = 0, [value]
    while pending:
        one = pending.pop()
        total += sys.getsizeof(one)
        if isinstance(one, dict):
            pending += one
            pending += one.values()
        elif isinstance(one, list | tuple):
            pending += one
        elif isinstance(one, msgspec.Struct):
            pending += [getattr(one, name) for name in one.__struct_fields__]
    return total


def _repair_encoding(data: bytes | str) -> bytes:
    """Replace lone surrogates, NaN, Infinity and bytes that are not UTF-8.

    Works on bytes, because one character above U+FFFF makes every character of a str take four.
    """
    if len(data) > MAX_REPAIRED_BYTES:
        raise ValueError
    if isinstance(data, bytes):
        starts = range(0, len(data), PIECE_BYTES)
        pieces = (data[start : start + PIECE_BYTES] for start in starts)
        data = b"".join(text.encode() for text in codecs.iterdecode(pieces, "utf-8", "replace"))
    else:
        data = data.encode("utf-8", "replace")
    data = data.removeprefix(codecs.BOM_UTF8)
    data = _replace_each(
        data, _LONE_SURROGATE, rb"\ufffd", _UNESCAPED, _SURROGATE_PAIR, _ANY_ESCAPE
    )
    return _replace_each(data, _NOT_A_NUMBER, b"null", _NO_STRING, _STRING, _OTHER_LITERAL)


def _replace_each(data: bytes, target: bytes, by: bytes, *skipped: bytes) -> bytes:
    """Replace the first `MAX_REPAIRS` matches of `target` that stand outside of `skipped`."""
    # Possessive, so that each byte is read once.
    pattern = re.compile(rb"((?:" + rb"|".join(skipped) + rb")*+)" + target, re.DOTALL)
    parts: list[bytes] = []
    position = 0
    while len(parts) < MAX_REPAIRS and (found := pattern.match(data, position)):
        parts.append(found[1])
        position = found.end()
    return by.join([*parts, data[position:]])


# A pair, or any other escape, is skipped whole: an escaped backslash does not start an escape.
_LONE_SURROGATE = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
_SURROGATE_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ANY_ESCAPE = rb"(?!" + _LONE_SURROGATE + rb")\\."
_UNESCAPED = rb"[^\\]++"

_NOT_A_NUMBER = rb"-?(?:NaN|Infinity)"
_STRING = rb'"(?:[^"\\]++|\\(?s:.))*+"'
_OTHER_LITERAL = rb"(?!" + _NOT_A_NUMBER + rb")[NI-]"
_NO_STRING = rb"[^\"NI-]++"


def has_many_brackets(data: bytes | str) -> bool:
    """Whether a JSON text has so many brackets that it may be nested too deeply."""
    if len(data) <= 2 * MAX_DEPTH:  # as most short answers and events
        return False
    if isinstance(data, str):
        return data.count("[") + data.count("{") > MAX_DEPTH
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH


def is_too_deep(value: JsonValue, max_depth: int) -> bool:
    """Whether a decoded value is nested more than `max_depth` deep. O(values)."""
    level: list[dict[str, JsonValue] | list[JsonValue]] = [[value]]
    for _ in range(max_depth + 1):
        values = (each.values() if isinstance(each, dict) else each for each in level)
        level = [each for each in chain.from_iterable(values) if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def exceeds_value_count(data: bytes | str, limit: int) -> bool:
    """Whether a JSON text has more than `limit` values, judged by its commas and brackets.

    Takes little besides `data`, so that it can run before decoding.
    """
    if len(data) <= limit or _count_separators(data) <= limit:
        return False
    outside = rb'(?:[^"]++|' + _STRING + rb")*+"
    if isinstance(data, str):
        return _exceeds(data, limit, re.compile(_STRING.decode()), re.compile(outside.decode()))
    return _exceeds(data, limit, re.compile(_STRING), re.compile(outside))


def _exceeds(
    data: TextT, limit: int, string: re.Pattern[TextT], complete: re.Pattern[TextT]
) -> bool:
    """Count the separators outside strings, in pieces that `complete` ends between strings."""
    separators, strings, start, size = 0, 0, 0, COUNTED_BYTES
    while start < len(data) and (found := complete.match(data, start, start + size)):
        rest, count = string.subn(data[:0], found[0])
        separators, strings = separators + _count_separators(rest), strings + count
        if max(separators, strings // 2) > limit:  # a string needs a comma, a bracket or a colon
            return True
        if found.end() == start and start + size >= len(data):
            return False  # the last string has no end
        size = COUNTED_BYTES if found.end() > start else 2 * size
        start = found.end()
    return False


def _count_separators(data: bytes | str) -> int:
    if isinstance(data, str):
        return data.count(",") + data.count("[") + data.count("{")
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def convert_json(value: JsonValue, shape: type[T]) -> T:
    """Convert `value` to `shape`, or raise `MalformedResponseError` with the path that differs."""
    try:
        return msgspec.convert(value, shape)
    except (ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"the response has an unexpected shape ({excerpt(str(error))}): {excerpt_of(value)}"
        ) from None


def convert_plain(value: JsonValue, shape: type[T]) -> T | None:
    """Convert `value` to the shape that most values have, or return None for any other."""
    try:
        return msgspec.convert(value, shape)
    except (ValueError, RecursionError):
        return None


def encode_json(value: JsonValue) -> bytes:
    """Encode a value of the caller as JSON, or raise `InvalidParameterError`.

    Numbers of other types, such as numpy's, are written as plain ones. Half a surrogate pair,
    which JSON cannot carry, becomes U+FFFD, and two halves in a row their character.
    """
    try:
        try:
            return _encode(value)
        except UnicodeEncodeError:
            return _encode(replace_surrogates(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(f"the request cannot be written as JSON: {error}") from None


def plain_value(value: object) -> object:
    """Return a number or text of a subclass, or of another library's type, as a plain one.

    Raises `TypeError` for anything else.
    """
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encode = msgspec.json.Encoder(enc_hook=plain_value).encode


def replace_surrogates(value: JsonValue) -> JsonValue:
    """Join surrogate pairs in the texts of a value, and replace single halves by U+FFFD.

    Recurses no deeper than a server's JSON can be.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(v) for name, v in value.items()}
    return list(map(replace_surrogates, value)) if isinstance(value, list | tuple) else value


def json_text(value: JsonValue) -> str:
    """Return a decoded value as JSON text, or raise `MalformedResponseError` if it is too deep."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedResponseError(
            f"the server sent a value that cannot be written again ({error})"
        ) from None


def string_or_empty(value: JsonValue) -> str:
    """Return the value if it is a text, else `""`."""
    return value if isinstance(value, str) else ""


def with_article(name: str) -> str:
    """Return the name of a type or thing with "a" or "an" before it, by its first sound."""
    return f"an {name}" if _VOWEL.match(name) else f"a {name}"


def plural(noun: str, count: int) -> str:
    """Return a noun as it stands after a count."""
    return noun if count == 1 else f"{noun}s"


def excerpt_of(value: JsonValue, limit: int = EXCERPT_CHARS) -> str:
    """Return the start of a decoded JSON value of any depth and with numbers of any length."""
    try:
        return excerpt(repr(value), limit)
    except RecursionError:
        return "(a value nested too deeply to show)"
    except ValueError:
        return "(a number too long to show)"


def excerpt(data: bytes | str, limit: int = EXCERPT_CHARS) -> str:
    """Return the start of an untrusted text on one line, without control characters."""
    if type(data) is str and len(data) <= limit and data.isprintable() and " " not in data:
        return data  # an id, as in most calls
    text = data[: limit * 4].decode("utf-8", "replace") if isinstance(data, bytes) else data
    line = " ".join(text[: limit * 2].split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else "\ufffd" for char in line)
    return line if len(line) <= limit else line[:limit] + "\N{HORIZONTAL ELLIPSIS}"
