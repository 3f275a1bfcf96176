"""Nodes as lines of a file, and the ids that follow from what is in them.

A line is a JSON list of records that belong together: they are all there or none is.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.values.messages import CacheTtl, Message
from minillmlib.values.responses import CompletionResponse

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
    "id_of",
    "line_of",
    "node_record",
]

VERSION = 1
ID_BYTES = 16

FormatValue: TypeAlias = str | int | float | None


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

_encode = msgspec.json.Encoder().encode


def content_of(message: Message, response: CompletionResponse | None) -> tuple[bytes, bytes]:
    """What a node holds, as JSON: its message and, if a model wrote it, where it came from."""
    try:
        return _encode(message), b"" if response is None else _encode(response)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(
            f"a message cannot be written as JSON ({error}): {message.text!r:.100}"
        ) from None


def id_of(parent: bytes, content: tuple[bytes, bytes], twin: int = 0) -> bytes:
    """The id of a node: it follows from everything from the root to it, and from nothing else."""
    parts = (parent, *content, b"#%d" % twin) if twin else (parent, *content)
    return hashlib.blake2b(b"".join(parts), digest_size=ID_BYTES).digest()


def node_record(own: bytes, parent: bytes, content: tuple[bytes, bytes], twin: int) -> bytes:
    """The record of a node, put together by hand: a tree may have a million."""
    message, response = content
    return b"".join(
        (
            b'{"kind":"node","id":"',
            own.hex().encode(),
            b'","parent":"%b"' % parent.hex().encode() if parent else b'"',
            b',"message":',
            message,
            b',"response":%b' % response if response else b"",
            b',"twin":%d}' % twin if twin else b"}",
        )
    )


def line_of(*records: bytes | Record) -> bytes:
    """A line of these records."""
    parts = (record if isinstance(record, bytes) else _encode(record) for record in records)
    return b"[%b]\n" % b",".join(parts)


HEADER = line_of(HeaderRecord(version=VERSION))
