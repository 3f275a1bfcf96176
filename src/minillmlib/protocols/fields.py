"""From parameters to the keys of a body, with nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import NAMESPACE_OID, uuid5

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.parameters import CompletionParameters

__all__ = ["add_extra", "stand_in_id", "write_parameters"]

# What the library itself decides.
RESERVED = ("stream", "stream_options")

# Every field that is a plain value; a wire names those it can carry. The others have a shape
# of their own on each wire.
STRUCTURED = (
    "response_format",
    "reasoning",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "openrouter_routing",
    "extra",
)
FIELDS = tuple(name for name in CompletionParameters.__struct_fields__ if name not in STRUCTURED)
NOTHING_SET = CompletionParameters()


def write_parameters(
    params: CompletionParameters, keys: Mapping[str, str], wire: str
) -> JsonObject:
    """The body keys of the fields that are set; `keys` maps a field to the wire's own word.

    Raises `InvalidParameterError` for a field that is set but that the wire does not have.
    """
    body: JsonObject = {}
    if params == NOTHING_SET:  # as for most calls
        return body
    for field in FIELDS:
        value = getattr(params, field)
        if value is None:
            continue
        if field not in keys:
            raise InvalidParameterError(f"{wire} has no {field}; leave it out for this provider")
        body[keys[field]] = value
    return body


def add_extra(body: JsonObject, extra: Mapping[str, JsonValue]) -> JsonObject:
    """`body` with the caller's own keys. Raises `InvalidParameterError` for a key given twice."""
    if not extra:
        return body
    for key in extra:
        if key in body or key in RESERVED:
            raise InvalidParameterError(
                f"extra[{key!r}] collides with a key that the call itself sets; "
                "leave it out of extra"
            )
    return {**body, **extra}


def stand_in_id(call_id: str, prefix: str, most_chars: int = 64) -> str:
    """An id for a tool call in place of one this wire would refuse: always the same for it."""
    digest = uuid5(NAMESPACE_OID, call_id).hex[:24]
    whole = prefix + digest
    return whole if len(whole) <= most_chars else digest[:most_chars]
