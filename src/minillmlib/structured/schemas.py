"""JSON schemas: the subset that vendors enforce, and the fitting of values to a schema."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, encode_json

# The subset of JSON schemas that vendors can enforce.
_MAX_NODES = 2000
_SUPPORTED = {"type", "properties", "items", "anyOf", "enum", "const", "description", "format"}
_IGNORED = {
    "title", "default", "examples", "discriminator", "deprecated", "required", "$defs",
    "additionalProperties",
}  # fmt: skip
_KEPT = {"$ref", "$defs", "title", "required", "additionalProperties"}
_KINDS = {"type", "anyOf", "enum", "const", "$ref"}
# Keywords outside the subset that become part of the description, where the model can read them.
_DESCRIBED = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "contentEncoding",
}  # fmt: skip
_FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_NAMES: dict[type, str] = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
    dict: "object", list: "array",
}  # fmt: skip
_ISO: dict[str, Callable[[str], dt.datetime | dt.date | dt.time]] = {
    "date-time": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
}


class NotStrictError(Exception):
    """The subset cannot express the schema; the text says why."""


def plain_schema(schema: JsonObject) -> JsonObject:
    """Return the schema with the reference at its root resolved."""
    root = resolve(schema, schema.get("$defs", {}))
    return {**root, "$defs": schema["$defs"]} if "$defs" in schema else root


def resolve(schema: JsonObject, defs: Mapping[str, JsonValue]) -> JsonObject:
    """Return the schema with its reference resolved; its other keys take precedence."""
    for _ in range(_MAX_NODES):
        if "$ref" not in schema:
            return schema
        siblings = {key: value for key, value in schema.items() if key not in ("$ref", "$defs")}
        name = schema["$ref"].removeprefix("#/$defs/")
        if name not in defs:
            raise NotStrictError(f"its reference {schema['$ref']} leads out of it")
        schema = {**defs[name], **siblings}
    raise NotStrictError("its references lead nowhere")


def strict_schema(schema: JsonObject) -> JsonObject:
    """Return the schema in the subset of OpenAI's and Anthropic's strict modes.

    All properties are required and no others allowed, references are resolved, and bounds become
    part of the description. A property that may be missing may be null instead. The subset has no
    mappings, tuples, values of any type, or recursive types: these raise `NotStrictError`.
    O(schema with its references resolved).
    """
    return _Strict(schema.get("$defs", {})).of(schema, ())


def is_strict(schema: JsonValue) -> bool:
    """Whether the schema is in the form of strict modes as it is; it may be recursive."""
    if not isinstance(schema, dict) or not set(schema) <= _SUPPORTED | _KEPT:
        return False
    if not set(schema) & _KINDS or (schema.get("type") == "array" and "items" not in schema):
        return False
    properties = schema.get("properties", {})
    if schema.get("type") == "object" or properties:
        required = schema.get("required", ())
        if schema.get("additionalProperties") is not False or set(properties) - set(required):
            return False
    parts = [*properties.values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    return all(map(is_strict, [*parts, *([schema["items"]] if "items" in schema else [])]))


class _Strict:
    def __init__(self, defs: JsonObject) -> None:
        self._defs = defs
        self._nodes = 0

    def of(self, schema: JsonValue, within: tuple[str, ...]) -> JsonObject:
        self._nodes += 1
        if not isinstance(schema, dict):  # `true`, or the rest of a tuple
            raise NotStrictError("a part of it allows any value")
        name = schema.get("$ref")
        if name in within:
            raise NotStrictError("it is recursive")
        if self._nodes > _MAX_NODES:
            raise NotStrictError("it is too large")
        if name is not None:
            within = (*within, name)
            schema = resolve(schema, self._defs)
        if "oneOf" in schema:
            schema = {("anyOf" if key == "oneOf" else key): schema[key] for key in schema}
        parts = {key: schema[key] for key in schema if key in _SUPPORTED}
        if "const" in parts:  # Gemini does not read it
            parts["enum"] = [parts.pop("const")]
        strict = {key: self._part(key, value, schema, within) for key, value in parts.items()}
        described = {key: schema[key] for key in sorted(_DESCRIBED & set(schema))}
        if strict.get("format") not in {None, *_FORMATS}:
            described["format"] = strict.pop("format")
        if described:
            bounds = msgspec.json.format(encode_json(described), indent=0).decode()
            strict["description"] = f"{strict.get('description', '')} {bounds}".strip()
        if unknown := set(schema) - _SUPPORTED - _IGNORED - _DESCRIBED:
            raise NotStrictError(f"it has {min(unknown)}")
        return _complete_node(strict, schema)

    def _part(
        self, key: str, value: JsonValue, schema: JsonObject, within: tuple[str, ...]
    ) -> JsonValue:
        if key == "properties":
            required = schema.get("required", ())
            parts = {name: self.of(one, within) for name, one in value.items()}
            return {
                name: one if name in required else _nullable(one) for name, one in parts.items()
            }
        if key == "anyOf":
            return [self.of(one, within) for one in value]
        return self.of(value, within) if key == "items" else value


def _nullable(schema: JsonObject) -> JsonObject:
    branches = schema.get("anyOf", [schema])
    null = {"type": "null"}
    if null in branches or schema.get("type") == "null":
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*branches, null]}
    outer = {"description": schema["description"]} if "description" in schema else {}
    inner = {key: value for key, value in schema.items() if key != "description"}
    return {"anyOf": [inner, null], **outer}


def _complete_node(strict: JsonObject, schema: JsonObject) -> JsonObject:
    """Return the node with every keyword that the subset demands."""
    values = strict.get("enum", [])
    if values and "type" not in strict:
        names = sorted({_NAMES.get(type(value), "") for value in values})
        if {"", "object", "array"} & set(names):
            raise NotStrictError("it has constants that are no plain values")
        strict["type"] = names[0] if len(names) == 1 else names
    kind: JsonValue = strict.get("type")
    is_open = kind == "array" and "items" not in strict
    if kind == "object":
        is_open = "properties" not in strict or bool(schema.get("additionalProperties"))
        strict |= {"required": list(strict.get("properties", ())), "additionalProperties": False}
    if is_open or not (kind or "anyOf" in strict):
        raise NotStrictError(f"it has {_NAMED_OPEN.get(kind, 'values of any type')}")
    return strict


_NAMED_OPEN = {"object": "a mapping of any keys", "array": "an array without one type of items"}


# Values for a schema that another library checks.


def fit_to_schema(value: JsonValue, schema: JsonValue, defs: Mapping[str, JsonValue]) -> JsonValue:
    """Return the value without nulls for members that may be missing, and with dates in RFC 3339.

    What the schema does not decide stays as it is.
    """
    schema = _branch_for(value, schema, defs)
    match value:
        case dict():
            parts, rest = schema.get("properties", {}), schema.get("additionalProperties")
            required = schema.get("required", ())
            return {
                key: fit_to_schema(item, parts.get(key, rest), defs)
                for key, item in value.items()
                if item is not None or key not in parts or key in required
                or _takes_null(parts[key], defs)
            }  # fmt: skip
        case list():
            first, rest = schema.get("prefixItems", ()), schema.get("items")
            schemas = [*first, *[rest] * len(value)]
            return [fit_to_schema(*pair, defs) for pair in zip(value, schemas, strict=False)]
        case str() if schema.get("format") in _ISO:
            try:
                return _ISO[schema["format"]](value.strip().upper()).isoformat()
            except ValueError:
                return value
    return value


def count_properties(value: JsonObject, schema: JsonObject, defs: Mapping[str, JsonValue]) -> int:
    """Return how many members of a value the schema knows; constants that match count twice."""
    schema = _branch_for(value, schema, defs)
    parts = schema.get("properties", {})
    constants = sum(_matches(value[key], parts[key], defs) for key in parts if key in value)
    return sum(key in parts for key in value) + constants


def _branch_for(value: JsonValue, schema: JsonValue, defs: Mapping[str, JsonValue]) -> JsonObject:
    """Return the one branch of a union that the value may be meant for, else `{}`."""
    if not isinstance(schema, dict):
        return {}
    found = resolve(schema, defs)
    branches = found.get("anyOf") or found.get("oneOf")
    if not branches:
        return found
    branches = [resolve(branch, defs) for branch in branches]
    fitting = [branch for branch in branches if _may_fit(value, branch, defs)]
    return _branch_for(value, fitting[0], defs) if len(fitting) == 1 else {}


def _may_fit(value: JsonValue, branch: JsonObject, defs: Mapping[str, JsonValue]) -> bool:
    name = _NAMES.get(type(value))
    if branch.get("type", name) != name:
        return False
    parts = branch.get("properties", {})
    if not isinstance(value, dict):
        return True
    constants = [key for key in parts if _constants(parts[key], defs) and key in value]
    return all(_matches(value[key], parts[key], defs) for key in constants)


def _constants(schema: JsonValue, defs: Mapping[str, JsonValue]) -> list[JsonValue]:
    schema = resolve(schema, defs) if isinstance(schema, dict) else {}
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def _matches(value: JsonValue, schema: JsonValue, defs: Mapping[str, JsonValue]) -> bool:
    return value in _constants(schema, defs)


def _takes_null(schema: JsonValue, defs: Mapping[str, JsonValue]) -> bool:
    if not isinstance(schema, dict):
        return True
    schema = resolve(schema, defs)
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        return any(_takes_null(branch, defs) for branch in branches)
    kind = schema.get("type")
    if kind is not None:
        return kind == "null" or (isinstance(kind, list) and "null" in kind)
    constants = _constants(schema, defs)
    return not constants or None in constants
