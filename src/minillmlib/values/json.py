"""JSON that comes from outside, and text of it that may be shown to a person."""

from __future__ import annotations

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
    "json_text",
    "string_or_empty",
]

# The one place where Any is allowed: JSON whose shape nobody has checked yet.
JsonValue: TypeAlias = Any
JsonObject: TypeAlias = dict[str, JsonValue]

T = TypeVar("T")

EXCERPT_CHARS = 200


def decode_json(data: bytes | str) -> JsonValue:
    """The value of a JSON text. Raises `MalformedResponseError` for anything else.

    Two things that servers send although JSON has them not: half a surrogate pair, where texts
    are cut by UTF-16 units, is U+FFFD, and a number that is none (NaN) is null.
    """
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        mended = _mended(data)
        if mended is not None:
            return mended[0]
        raise MalformedResponseError(
            f"the server sent what is not JSON ({excerpt(str(error))}): {excerpt(data)}"
        ) from None


def _mended(data: bytes | str) -> tuple[JsonValue] | None:
    """The value of what is JSON but for those two things, or None."""
    import json  # noqa: PLC0415 - for what hardly ever comes

    text = _without_lone_surrogates(data)
    if text == data and not ("NaN" in text or "Infinity" in text):
        return None
    try:
        return (json.loads(text, parse_constant=lambda _: None),)
    except (ValueError, RecursionError):
        return None


# A pair, or any other escape, so that a backslash which is escaped itself hides nothing.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL
)


def _without_lone_surrogates(data: bytes | str) -> str:
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    text = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return _ESCAPE.sub(_whole_escape, text)


def _whole_escape(found: re.Match[str]) -> str:
    escape = found[0]
    is_lone = len(escape) == 6 and escape[2] in "dD" and escape[3] in "89abcdefABCDEF"
    return r"\ufffd" if is_lone else escape


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
    """The start of a decoded JSON value, however deep it is."""
    try:
        return excerpt(repr(value), limit)
    except RecursionError:
        return "(a value nested too deeply to show)"


def excerpt(data: bytes | str, limit: int = EXCERPT_CHARS) -> str:
    """The start of a foreign text on one line, safe to print: no control characters."""
    text = data[: limit * 4].decode("utf-8", "replace") if isinstance(data, bytes) else data
    line = " ".join(text[: limit * 2].split())
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return shown if len(shown) <= limit else shown[:limit] + "\N{HORIZONTAL ELLIPSIS}"
