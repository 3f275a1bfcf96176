"""Turns parameters into the keys of a body; nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from uuid import NAMESPACE_OID, uuid5

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.types.messages import Message
from minillmlib.types.parameters import CompletionParameters
from minillmlib.types.tools import ToolLike, as_tool

# The library itself decides these.
RESERVED = ("stream", "stream_options")

# `add_extra` writes the one, and the other goes to OpenRouter only.
COMMON = ("extra", "openrouter_routing")
FIELDS = tuple(name for name in CompletionParameters.__struct_fields__ if name not in COMMON)
NOTHING_SET = CompletionParameters()


def write_parameters(
    params: CompletionParameters, keys: Mapping[str, str], encoded: Collection[str], wire: str
) -> JsonObject:
    """Return the body keys of the plain fields that are set; `keys` maps a field to its key.

    The fields in `encoded` are left to the wire, which has a shape of its own for them. Raises
    `InvalidParameterError` for any other field that is set and that has no key.
    """
    body: JsonObject = {}
    for field in FIELDS:
        value = getattr(params, field)
        if value is None or field in encoded:
            continue
        if field not in keys:
            raise InvalidParameterError(f"{wire} has no {field}; leave it out for this provider")
        body[keys[field]] = value
    return body


def add_extra(body: JsonObject, extra: Mapping[str, JsonValue]) -> JsonObject:
    """Return `body` with the caller's keys.

    Raises `InvalidParameterError` for a key given twice, and for several answers at once.
    """
    if extra.get("n") not in (None, 1):
        raise InvalidParameterError(
            f"extra['n'] asks for {extra['n']} answers, of which all but one would be lost; "
            "use complete_many(), which adds a node for each"
        )
    for key in extra:
        if key in body or key in RESERVED:
            raise InvalidParameterError(
                f"extra[{key!r}] collides with a key that the call itself sets; "
                "leave it out of extra"
            )
    return {**body, **extra}


def trim_last_turn(turns: list[JsonObject]) -> None:
    """Remove white space at the end of an assistant's last turn: Claude's models refuse it.

    Its text stays if it is nothing else, or if calls follow it.
    """
    last = turns[-1] if turns else {}
    content = last.get("content")
    if last.get("role") != "assistant" or last.get("tool_calls") or not content:
        return
    if isinstance(content, str):
        turns[-1] = {**last, "content": content.rstrip() or content}
    elif content[-1]["type"] == "text":
        text = content[-1]["text"]
        block = {**content[-1], "text": text.rstrip() or text}
        turns[-1] = {**last, "content": [*content[:-1], block]}


def encode_tool(like: ToolLike, schema_key: str) -> JsonObject:
    """Return the definition of a tool, with the schema of its arguments under `schema_key`."""
    tool = as_tool(like)
    options = {"description": tool.description, "strict": tool.strict}
    given = {key: value for key, value in options.items() if value is not None}
    return {"name": tool.name, schema_key: tool.parameters, **given}


def has_calls(messages: Sequence[Message]) -> bool:
    """Whether a model called tools in them."""
    for message in messages:  # noqa: SIM110 - `any` takes three times as long
        if message.tool_calls:
            return True
    return False


def own_ids(messages: Sequence[Message]) -> Collection[str]:
    """Return the ids of tool calls that go back unchanged, since this model made them."""
    return {call.id for message in messages for call in message.tool_calls if call.origin}


def normalize_tool_call_id(call_id: str, prefix: str, max_chars: int = 64) -> str:
    """Return an id that the wire accepts in place of one that it refuses, always the same one."""
    digest = uuid5(NAMESPACE_OID, call_id).hex[:24]
    return prefix + digest if len(prefix + digest) <= max_chars else digest[:max_chars]
