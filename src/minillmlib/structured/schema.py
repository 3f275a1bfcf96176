"""JSON schemas in the subset that vendors can enforce."""

from __future__ import annotations

import json

from minillmlib.json_value import JsonObject, JsonValue

__all__ = ["plain_schema", "strict_schema"]

_MAX_NODES = 2000
_SUPPORTED = {"type", "properties", "items", "anyOf", "enum", "const", "description", "format"}
_IGNORED = {
    "title", "default", "examples", "discriminator", "deprecated", "required", "$defs",
    "additionalProperties",
}  # fmt: skip
# Keywords outside the subset that become part of the description, where the model can read them.
_DESCRIBED = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "contentEncoding",
}  # fmt: skip
_FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NAMES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


class _NotStrictError(Exception):
    """The subset cannot express the schema."""


def plain_schema(schema: JsonObject) -> JsonObject:
    """Return the schema with the reference at its root resolved."""
    root = _resolve(schema, schema.get("$defs", {}))
    return {**root, "$defs": schema["$defs"]} if "$defs" in schema else root


def strict_schema(schema: JsonObject) -> JsonObject | None:
    """Return the schema in the subset of OpenAI's and Anthropic's strict modes, or None.

    All properties are required and no others allowed, references are resolved, and bounds become
    part of the description. The subset has no mappings, tuples, values of any type, or recursive
    types. O(schema with its references resolved).
    """
    try:
        return _Strict(schema.get("$defs", {})).of(schema, ())
    except _NotStrictError:
        return None


class _Strict:
    def __init__(self, defs: JsonObject) -> None:
        self._defs = defs
        self._nodes = 0

    def of(self, schema: JsonValue, within: tuple[str, ...]) -> JsonObject:
        self._nodes += 1
        if not isinstance(schema, dict):  # `true`, or the rest of a tuple
            raise _NotStrictError
        name = schema.get("$ref")
        if name in within or self._nodes > _MAX_NODES:
            raise _NotStrictError
        if name is not None:
            within = (*within, name)
            schema = _resolve(schema, self._defs)
        if "oneOf" in schema:
            schema = {("anyOf" if key == "oneOf" else key): schema[key] for key in schema}
        strict = {key: self._part(key, schema[key], within) for key in schema if key in _SUPPORTED}
        described = {key: value for key, value in schema.items() if key in _DESCRIBED}
        if strict.get("format") not in {None, *_FORMATS}:
            described["format"] = strict.pop("format")
        if described:
            strict["description"] = (
                f"{strict.get('description', '')} {json.dumps(described)}".strip()
            )
        if set(schema) - _SUPPORTED - _IGNORED - _DESCRIBED:
            raise _NotStrictError
        return _complete_node(strict, schema)

    def _part(self, key: str, value: JsonValue, within: tuple[str, ...]) -> JsonValue:
        if key == "properties":
            return {name: self.of(one, within) for name, one in value.items()}
        if key == "anyOf":
            return [self.of(one, within) for one in value]
        return self.of(value, within) if key == "items" else value


def _complete_node(strict: JsonObject, schema: JsonObject) -> JsonObject:
    """Return the node with every keyword that the subset demands."""
    values = strict.get("enum", [strict["const"]] if "const" in strict else [])
    if values and "type" not in strict:
        names = sorted({_NAMES.get(type(value), "") for value in values})
        if "" in names:
            raise _NotStrictError
        strict["type"] = names[0] if len(names) == 1 else names
    kind = strict.get("type")
    is_open = kind == "array" and "items" not in strict
    if kind == "object":
        is_open = "properties" not in strict or bool(schema.get("additionalProperties"))
        strict |= {"required": list(strict.get("properties", ())), "additionalProperties": False}
    if is_open or not (kind or "anyOf" in strict):
        raise _NotStrictError
    return strict


def _resolve(schema: JsonObject, defs: JsonObject) -> JsonObject:
    """Return the schema with its reference resolved; its other keys take precedence."""
    while "$ref" in schema:
        siblings = {key: value for key, value in schema.items() if key not in ("$ref", "$defs")}
        schema = {**defs[schema["$ref"].removeprefix("#/$defs/")], **siblings}
    return schema
