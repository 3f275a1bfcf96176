"""Turns a JSON schema into the type of an answer, whose values are plain JSON."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue, excerpt_of

_WORDS = {
    "title", "description", "default", "examples", "deprecated", "$schema", "$id", "$comment",
    "$defs", "definitions",
}  # fmt: skip
_BOUNDS = {
    "minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of", "minLength": "min_length", "maxLength": "max_length",
    "minItems": "min_length", "maxItems": "max_length", "pattern": "pattern",
}  # fmt: skip
_NUMBER_KEYS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_KEYS = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": _NUMBER_KEYS,
    "number": _NUMBER_KEYS,
    "boolean": set[str](),
    "null": set[str](),
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
_PLAIN: dict[str, JsonValue] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "null": None,
}  # fmt: skip
_REFERENCES = ("#/$defs/", "#/definitions/")


def type_of_schema(schema: JsonValue) -> JsonValue:
    """Return a type for `expecting` that has this JSON schema, and whose values are plain JSON.

    Members that the schema does not name are left out of a value. Raises `InvalidParameterError`
    for a keyword that cannot be checked, and names its place.
    """
    if not isinstance(schema, dict):
        raise InvalidParameterError(f"a JSON schema is an object, not {excerpt_of(schema, 60)}")
    return _Types(schema).of(schema, "$", ())


class _Types:
    def __init__(self, root: JsonObject) -> None:
        self._root = root

    def of(self, schema: JsonValue, place: str, within: tuple[str, ...]) -> JsonValue:
        """Return the type of a part of the schema."""
        if schema is True or schema == {}:
            return JsonValue
        if not isinstance(schema, dict):
            raise _refusal(place, f"has {excerpt_of(schema, 60)} in place of a schema")
        if "$ref" in schema:
            _check_keys(schema, {"$ref"}, place)
            return self._annotate(schema, self._resolve(schema["$ref"], place, within))
        for key, find in (
            ("const", lambda value: Literal[value]),
            ("enum", lambda values: Literal[tuple(values)]),
        ):
            if key in schema:
                _check_keys(schema, {key, "type"}, place)
                return self._annotate(schema, _literal(find, schema[key], place))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                _check_keys(schema, {key}, place)
                parts = _list_of(schema[key], f"{place}.{key}")
                kinds = [
                    self.of(part, f"{place}.{key}[{number}]", within)
                    for number, part in enumerate(parts)
                ]
                return self._annotate(schema, _union(kinds, place))
        return self._by_type(schema, place, within)

    def _by_type(self, schema: JsonObject, place: str, within: tuple[str, ...]) -> JsonValue:
        name = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(name, list):
            rest = {key: value for key, value in schema.items() if key != "type"}
            kinds = [self.of({**_only(rest, each), "type": each}, place, within) for each in name]
            return _union(kinds, place)
        if not isinstance(name, str) or name not in _KEYS:
            raise _refusal(place, f"has the type {excerpt_of(name, 60)}, not one of JSON's")
        _check_keys(schema, {"type", *_KEYS[name]}, place)
        if name == "array":
            items = self.of(schema.get("items", True), f"{place}.items", within)
            return self._annotate(schema, list[items])  # type: ignore[valid-type]  # of today
        if name == "object":
            return self._object(schema, place, within)
        return self._annotate(schema, _PLAIN[name])

    def _object(self, schema: JsonObject, place: str, within: tuple[str, ...]) -> JsonValue:
        others = schema.get("additionalProperties", True)
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise _refusal(f"{place}.properties", "is not an object")
        if not properties:
            values = self.of(others or True, f"{place}.additionalProperties", within)
            return self._annotate(schema, dict[str, values])  # type: ignore[valid-type]  # of today
        if not isinstance(others, bool):
            raise _refusal(place, "has properties and a schema for others, which cannot be checked")
        required = _list_of(schema.get("required", []), f"{place}.required")
        members = {
            name: self.of(part, f"{place}.properties.{name}", within)
            for name, part in properties.items()
        }
        fields = {
            name: kind if name in required else NotRequired[kind] for name, kind in members.items()
        }
        kind: JsonValue = TypedDict("the schema", fields)  # type: ignore[misc]  # known only now
        kind.__module__ = "builtins"  # in messages: "the schema", without our module
        kind.__doc__ = schema.get("description")
        return kind

    def _resolve(self, name: JsonValue, place: str, within: tuple[str, ...]) -> JsonValue:
        if name in within:
            raise _refusal(place, "refers to itself, which cannot be checked")
        start = next((one for one in _REFERENCES if str(name).startswith(one)), None)
        definitions = self._root.get(start[2:-1], {}) if start else {}
        target = str(name)[len(start or "") :]
        if not isinstance(definitions, dict) or target not in definitions:
            raise _refusal(place, f"refers to {excerpt_of(name, 60)}, which is not there")
        return self.of(definitions[target], f"{place}({target})", (*within, str(name)))

    def _annotate(self, schema: JsonObject, kind: JsonValue) -> JsonValue:
        """Return the type with the description and the bounds of its schema."""
        bounds = {_BOUNDS[key]: value for key, value in schema.items() if key in _BOUNDS}
        words = schema.get("description")
        extra = {"format": schema["format"]} if "format" in schema else None
        if not (bounds or words or extra):
            return kind
        try:
            meta = msgspec.Meta(
                description=words if isinstance(words, str) else None,
                extra_json_schema=extra,
                **bounds,
            )
        except (TypeError, ValueError, re.error) as error:
            raise InvalidParameterError(f"the JSON schema has a wrong bound: {error}") from None
        return Annotated[kind, meta]


def _literal(find: Callable[[JsonValue], JsonValue], values: JsonValue, place: str) -> JsonValue:
    if values == []:
        raise _refusal(place, "allows no value")
    try:
        return find(values)
    except TypeError:
        raise _refusal(
            place, f"allows only {excerpt_of(values, 60)}, which is not a list"
        ) from None


def _union(kinds: Iterable[JsonValue], place: str) -> JsonValue:
    try:
        return functools.reduce(operator.or_, [type(None) if one is None else one for one in kinds])
    except TypeError:
        raise _refusal(place, "names no schema to choose from") from None


def _only(schema: JsonObject, name: JsonValue) -> JsonObject:
    """Return the schema without the keywords of other types."""
    own = _KEYS.get(name, set()) if isinstance(name, str) else set()
    others = set().union(*_KEYS.values()) - own
    return {key: value for key, value in schema.items() if key not in others}


def _list_of(value: JsonValue, place: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise _refusal(place, "is not a list")
    return value


def _check_keys(schema: JsonObject, known: set[str], place: str) -> None:
    unknown = sorted(set(schema) - _WORDS - known)
    if unknown:
        raise _refusal(place, f"has {unknown[0]!r}, which cannot be checked")


def _refusal(place: str, problem: str) -> InvalidParameterError:
    return InvalidParameterError(f"the JSON schema {problem} - at `{place}`")
