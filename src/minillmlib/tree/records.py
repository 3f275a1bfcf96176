"""Nodes as lines of a file, and the ids derived from their content.

A line is a JSON list of records that belong together: a reader takes all of them or none.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import (
    MAX_DEPTH,
    excerpt_of,
    has_many_brackets,
    is_too_deep,
    replace_surrogates,
    with_article,
)
from minillmlib.types.messages import CacheTtl, Message
from minillmlib.types.responses import CompletionResponse

try:  # hashlib loads OpenSSL, 5 % of our import; the standard `random` imports its hash like this
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

VERSION = 1
ID_BYTES = 16
MAX_RECORD_DEPTH = MAX_DEPTH + 20  # what a server nests, within our own records

FormatValue: TypeAlias = str | int | float | bool | None


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class HeaderRecord(_Record, frozen=True, tag="minillmlib tree", tag_field="kind"):
    """The first record of a file. Concatenated files have one each."""

    version: int


class NodeRecord(_Record, frozen=True, tag="node", tag_field="kind"):
    """One node. The first of a file may name a parent elsewhere, which it was detached from."""

    id: str
    message: Message
    parent: str | None = None
    response: CompletionResponse | None = None
    duplicate_index: int = msgspec.field(default=0, name="twin")  # number of equal older siblings


class BreakpointRecord(_Record, frozen=True, tag="mark", tag_field="kind"):
    """The cache breakpoint of a node; without a ttl it has none any more."""

    node: str
    ttl: CacheTtl | None = None


class KwargsRecord(_Record, frozen=True, tag="kwargs", tag_field="kind"):
    """All placeholders that a node gives values to."""

    node: str
    values: dict[str, FormatValue]


class NotesRecord(_Record, frozen=True, tag="notes", tag_field="kind"):
    """All notes on a node."""

    node: str
    values: dict[str, FormatValue]


class DetachRecord(_Record, frozen=True, tag="detached", tag_field="kind"):
    """A node that left this tree, with everything below it."""

    node: str


ValueRecord: TypeAlias = BreakpointRecord | KwargsRecord | NotesRecord
Record: TypeAlias = HeaderRecord | NodeRecord | ValueRecord | DetachRecord

encode = msgspec.json.Encoder().encode
new_hasher = blake2b(digest_size=ID_BYTES).copy  # faster than a call of blake2b


def plain_value(what: str, value: object) -> FormatValue:
    """Return the value of a placeholder or a note as a file would give it back.

    Raises `InvalidParameterError`, which names `what`, for a value that JSON cannot carry.
    """
    plain: object = value
    if isinstance(value, str):
        plain = str.__str__(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        plain = int(value) if isinstance(value, int) else float(value)
    try:
        if isinstance(plain, FormatValue) and msgspec.json.decode(encode(plain)) == plain:
            return plain
    except ValueError:
        pass  # a lone surrogate, or a number of too many digits
    raise InvalidParameterError(
        f"{what} must be a text or a number that JSON can carry, not {excerpt_of(value, 60)}"
    )


def node_content(message: Message, response: CompletionResponse | None) -> bytes:
    """Return a node's message and, if a model wrote it, its response, as JSON members."""
    try:
        content = encode(message)
    except (TypeError, ValueError, RecursionError):
        content = encode_lossy(message)
    if response is not None:
        content += b',"response":' + encode_lossy(response)
    if has_many_brackets(content):
        whole = msgspec.json.decode(b'{"message":%b}' % content)
        if is_too_deep(whole, MAX_RECORD_DEPTH):
            raise InvalidParameterError(
                f"a message is nested more than {MAX_DEPTH} deep, so no file can keep it"
            )
    return content


def encode_lossy(value: object) -> bytes:
    """Encode a value as JSON, with U+FFFD for lone surrogates, which JSON cannot carry."""
    try:
        return encode(value)
    except UnicodeEncodeError:
        return encode(replace_surrogates(msgspec.to_builtins(value)))
    except (TypeError, ValueError, RecursionError) as error:
        what = with_article(type(value).__name__.strip("_"))
        raise InvalidParameterError(f"{what} cannot be written as JSON ({error})") from None


def derive_id(parent_id: bytes | bytearray, content: bytes, duplicate_index: int = 0) -> bytes:
    """Derive a node's id from its parent's id, its content and the number of equal siblings."""
    hasher = new_hasher()
    hasher.update(parent_id)
    hasher.update(content)
    if duplicate_index:
        hasher.update(b"#%d" % duplicate_index)
    return hasher.digest()


def encode_line(*records: bytes | Record) -> bytes:
    """Encode records as one line."""
    parts = (record if isinstance(record, bytes) else encode(record) for record in records)
    return b"[%b]\n" % b",".join(parts)


HEADER = encode_line(HeaderRecord(version=VERSION))
