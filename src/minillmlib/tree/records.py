"""Nodes as lines of a file, and the ids that follow from what is in them.

A line is a JSON list of records that belong together: they are all there or none is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonValue, excerpt_of
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

if TYPE_CHECKING:
    from hashlib import blake2b

__all__ = [
    "HEADER",
    "ID_BYTES",
    "VERSION",
    "DetachRecord",
    "FormatValue",
    "HeaderRecord",
    "KwargsRecord",
    "MarkRecord",
    "NodeRecord",
    "Record",
    "content_of",
    "encode",
    "id_of",
    "line_of",
    "new_hasher_maker",
    "node_record",
    "plain_value",
    "written",
]

VERSION = 1
ID_BYTES = 16

FormatValue: TypeAlias = str | int | float | bool | None


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class HeaderRecord(_Record, frozen=True, tag="minillmlib tree", tag_field="kind"):
    """The first of a file; others follow where files were put one behind the other."""

    version: int


class NodeRecord(_Record, frozen=True, tag="node", tag_field="kind"):
    """One node. The first of a file may have a parent elsewhere: it was detached from it."""

    id: str
    message: Message
    parent: str | None = None
    response: CompletionResponse | None = None
    twin: int = 0  # how many older siblings are its equals


class MarkRecord(_Record, frozen=True, tag="mark", tag_field="kind"):
    """The cache mark of a node, or that it has none any more."""

    node: str
    ttl: CacheTtl | None = None


class KwargsRecord(_Record, frozen=True, tag="kwargs", tag_field="kind"):
    """All the placeholders that a node gives values to."""

    node: str
    values: dict[str, FormatValue]


class DetachRecord(_Record, frozen=True, tag="detached", tag_field="kind"):
    """A node, with everything below it, that is no part of this tree any more."""

    node: str


Record: TypeAlias = HeaderRecord | NodeRecord | MarkRecord | KwargsRecord | DetachRecord

encode = msgspec.json.Encoder().encode


@cache
def new_hasher_maker() -> Callable[[], blake2b]:
    """What makes hashers for ids, faster than hashlib's own function."""
    from hashlib import blake2b  # noqa: PLC0415 - slow to import, and few programs ask for ids

    return blake2b(digest_size=ID_BYTES).copy


def plain_value(name: str, value: object) -> FormatValue:
    """The value of a placeholder as a file gives it back. Raises `InvalidParameterError`."""
    plain: object = value
    if isinstance(value, str):
        plain = str.__str__(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        plain = int(value) if isinstance(value, int) else float(value)
    try:
        if isinstance(plain, FormatValue) and msgspec.json.decode(encode(plain)) == plain:
            return plain
    except ValueError:
        pass  # half a surrogate pair, a number of too many digits
    raise InvalidParameterError(
        f"the value of {{{name}}} is a text or a number that JSON can carry, "
        f"not {excerpt_of(value, 60)}"
    )


def content_of(message: Message, response: CompletionResponse | None) -> bytes:
    """What a node holds, as JSON: its message and, if a model wrote it, where it came from."""
    try:
        content = encode(message)
    except (TypeError, ValueError, RecursionError):
        content = written(message)
    return content if response is None else content + b',"response":' + written(response)


def written(value: msgspec.Struct) -> bytes:
    """A value of ours as JSON, in which half a surrogate pair, which none can carry, is U+FFFD."""
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(_whole(msgspec.to_builtins(value)))
    except (TypeError, ValueError, RecursionError) as error:
        what = type(value).__name__.strip("_")
        raise InvalidParameterError(f"a {what} cannot be written as JSON ({error})") from None


def _whole(value: JsonValue) -> JsonValue:
    """The same without halves of surrogate pairs. No deeper than what a server could send."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def id_of(parent: bytes | bytearray, content: bytes, twin: int = 0) -> bytes:
    """The id of a node: it follows from everything from the root to it, and from nothing else."""
    hasher = new_hasher_maker()()
    hasher.update(parent)
    hasher.update(content)
    if twin:
        hasher.update(b"#%d" % twin)
    return hasher.digest()


def node_record(own: bytes, parent: bytes, content: bytes, twin: int) -> bytes:
    """The record of a node, put together by hand: a tree may have a million.

    The ids are in hexadecimal digits.
    """
    if twin:
        content += b',"twin":%d' % twin
    if not parent:
        return b'{"kind":"node","id":"%b","message":%b}' % (own, content)
    return b'{"kind":"node","id":"%b","parent":"%b","message":%b}' % (own, parent, content)


def line_of(*records: bytes | Record) -> bytes:
    """A line of these records."""
    if len(records) == 1 and isinstance(records[0], bytes):
        return b"[%b]\n" % records[0]
    parts = (record if isinstance(record, bytes) else encode(record) for record in records)
    return b"[%b]\n" % b",".join(parts)


HEADER = line_of(HeaderRecord(version=VERSION))
