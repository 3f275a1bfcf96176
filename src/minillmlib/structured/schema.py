"""JSON schemas in the subset that vendors hold a model to."""

from __future__ import annotations

import json

from minillmlib.json_value import JsonObject, JsonValue

__all__ = ["plain_schema", "strict_schema"]

_MOST_NODES = 2000
_KEPT = {"type", "properties", "items", "anyOf", "enum", "const", "description", "format"}
_MEANINGLESS = {
    "title", "default", "examples", "discriminator", "deprecated", "required", "$defs",
    "additionalProperties",
}  # fmt: skip
# What the subset lacks and the model can still read, as a part of the description.
_TOLD = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "contentEncoding",
}  # fmt: skip
_FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NAMES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip


class _NotStrictError(Exception):
    """The schema says what the subset cannot."""


def plain_schema(schema: JsonObject) -> JsonObject:
    """The schema with an object at its root in place of a reference."""
    root = _resolved(schema, schema.get("$defs", {}))
    return {**root, "$defs": schema["$defs"]} if "$defs" in schema else root


def strict_schema(schema: JsonObject) -> JsonObject | None:
    """The same schema in what OpenAI's and Anthropic's strict modes share, or None.

    All properties are required and no others allowed, references are replaced by what they mean,
    and bounds become a part of the description. Mappings, tuples, values of any kind and types
    that hold themselves cannot be said that way. O(schema with its references replaced).
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
        if not isinstance(schema, dict):  # `true`, or what follows a tuple
            raise _NotStrictError
        name = schema.get("$ref")
        if name in within or self._nodes > _MOST_NODES:
            raise _NotStrictError
        if name is not None:
            within = (*within, name)
            schema = _resolved(schema, self._defs)
        if "oneOf" in schema:
            schema = {("anyOf" if key == "oneOf" else key): schema[key] for key in schema}
        strict = {key: self._part(key, schema[key], within) for key in schema if key in _KEPT}
        told = {key: value for key, value in schema.items() if key in _TOLD}
        if strict.get("format") not in {None, *_FORMATS}:
            told["format"] = strict.pop("format")
        if told:
            strict["description"] = f"{strict.get('description', '')} {json.dumps(told)}".strip()
        if set(schema) - _KEPT - _MEANINGLESS - _TOLD:
            raise _NotStrictError
        return _closed(strict, schema)

    def _part(self, key: str, value: JsonValue, within: tuple[str, ...]) -> JsonValue:
        if key == "properties":
            return {name: self.of(one, within) for name, one in value.items()}
        if key == "anyOf":
            return [self.of(one, within) for one in value]
        return self.of(value, within) if key == "items" else value


def _closed(strict: JsonObject, schema: JsonObject) -> JsonObject:
    """The node with everything that the subset demands to be said."""
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


def _resolved(schema: JsonObject, defs: JsonObject) -> JsonObject:
    """The schema with what its reference means, besides what it says itself."""
    while "$ref" in schema:
        own = {key: value for key, value in schema.items() if key not in ("$ref", "$defs")}
        schema = {**defs[schema["$ref"].removeprefix("#/$defs/")], **own}
    return schema
