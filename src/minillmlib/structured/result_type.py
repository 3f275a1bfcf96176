"""The type of an answer: its JSON schema, and the decoding of an answer to a value."""

from __future__ import annotations

import re
from typing import Generic, TypeVar, cast

import msgspec

from minillmlib.errors import InvalidParameterError, ResponseValidationError
from minillmlib.json_value import JsonObject, JsonValue, encode_json, excerpt

T = TypeVar("T")

KEY = "answer"  # vendors want an object; any other type becomes this member of one
_PROBLEM_CHARS = 1000
_PATH = r" - at (?:`key` in )?`(\$[^`]*)`"
_INNER_PATH = r" - at `(?=[.\[])"

# The subset of JSON schemas that vendors can enforce.
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


class ResultType(Generic[T]):
    """A type, its JSON schema, and its decoder.

    `schema` has an object at its root. `is_strict` says whether it is in the subset that vendors
    can enforce.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind: JsonValue = kind
        try:
            schema, shape = _schema_of(kind), cast("type", kind)
            self._is_wrapped = _plain_schema(schema).get("type") != "object"
            if self._is_wrapped:
                shape = msgspec.defstruct("Answer", [(KEY, kind)])
                schema = _schema_of(shape)
            strict = _strict_schema(schema)
            self._decoder: msgspec.json.Decoder[JsonValue] = msgspec.json.Decoder(
                shape, strict=False, dec_hook=_decode_model
            )
        except Exception as error:  # noqa: BLE001 - the type may run the caller's code
            raise InvalidParameterError(
                f"no answer can be read as {self.name}: {excerpt(str(error), _PROBLEM_CHARS)}"
            ) from None
        self.is_strict = strict is not None
        self.schema: JsonObject = _plain_schema(schema) if strict is None else strict

    @property
    def name(self) -> str:
        """The name of the type, as written in code."""
        return self.kind.__name__ if isinstance(self.kind, type) else str(self.kind)

    @property
    def schema_text(self) -> str:
        """The schema as JSON text."""
        return encode_json(self.schema).decode()

    def parse(self, text: str) -> T:
        """Return the value of a JSON text. Raises `ResponseValidationError` with the path."""
        if self._is_wrapped and not text.lstrip().startswith("{"):
            text = f'{{"{KEY}": {text}}}'
        try:
            found: JsonValue = self._decoder.decode(text)
        except Exception as error:  # noqa: BLE001 - as above
            problem = _describe_error(error)
            raise ResponseValidationError(
                f"the answer does not fit {self.name}: {excerpt(problem, _PROBLEM_CHARS)}",
                path=re.findall(_PATH, problem)[0],
            ) from None
        return cast("T", found.answer if self._is_wrapped else found)

    def __reduce__(self) -> tuple[type[ResultType[T]], tuple[JsonValue]]:
        return ResultType, (self.kind,)

    def __repr__(self) -> str:
        return f"ResultType({self.name})"


def _schema_of(kind: type) -> JsonObject:
    """Return the schema. Definitions of pydantic models move to its root."""
    defs: JsonObject = {}

    def describe_model(part: type) -> JsonObject:
        schema = dict(_as_model(part).model_json_schema())
        defs.update(schema.pop("$defs", {}))
        return schema

    schema = msgspec.json.schema(kind, schema_hook=describe_model)
    return {**schema, "$defs": {**defs, **schema.get("$defs", {})}} if defs else schema


def _as_model(part: type) -> JsonValue:
    """Return the class if it has the methods of a pydantic model."""
    if hasattr(part, "model_json_schema") and hasattr(part, "model_validate_json"):
        return part
    raise TypeError(
        f"{part!r} has no JSON schema; use dataclasses, TypedDicts, msgspec Structs, "
        "pydantic models, enums, plain types or collections of them"
    )


def _decode_model(part: type, value: JsonValue) -> JsonValue:
    import pydantic_core  # noqa: PLC0415 - of the optional package that the model comes from

    try:  # unlike msgspec it writes numbers of any length
        return _as_model(part).model_validate_json(pydantic_core.to_json(value))
    except Exception as error:  # noqa: BLE001 - as above
        problems = error.errors() if hasattr(error, "errors") else ()
        messages = [f"{problem['msg']} - at `{_path(problem['loc'])}`" for problem in problems]
        raise ValueError("; ".join(messages) or str(error)) from None


def _path(steps: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _describe_error(error: Exception) -> str:
    """Return the problem and its path; paths inside a pydantic model are made absolute."""
    message = str(error) if isinstance(error, msgspec.MsgspecError) else repr(error)
    outer = re.findall(_PATH, message)[-1:] or ["$"]
    if re.search(_INNER_PATH, message):
        return re.sub(_INNER_PATH, f" - at `{outer[0]}", re.sub(_PATH, "", message))
    return message if re.search(_PATH, message) else f"{message} - at `$`"


class _NotStrictError(Exception):
    """The subset cannot express the schema."""


def _plain_schema(schema: JsonObject) -> JsonObject:
    """Return the schema with the reference at its root resolved."""
    root = _resolve(schema, schema.get("$defs", {}))
    return {**root, "$defs": schema["$defs"]} if "$defs" in schema else root


def _strict_schema(schema: JsonObject) -> JsonObject | None:
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
            bounds = msgspec.json.format(encode_json(described), indent=0).decode()
            strict["description"] = f"{strict.get('description', '')} {bounds}".strip()
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
