"""The type of an answer: its JSON schema, and the decoding of an answer to a value."""

from __future__ import annotations

import re
from typing import Generic, TypeVar, cast

import msgspec

from minillmlib.errors import InvalidParameterError, ResponseValidationError
from minillmlib.json_value import JsonObject, JsonValue, encode_json, excerpt

__all__ = ["ResultType"]

T = TypeVar("T")

KEY = "answer"  # vendors want an object; any other type becomes this member of one
_PROBLEM_CHARS = 1000
_PATH = r" - at (?:`key` in )?`(\$[^`]*)`"
_INNER_PATH = r" - at `(?=[.\[])"


class ResultType(Generic[T]):
    """A type, its JSON schema, and its decoder.

    `schema` has an object at its root. `is_strict` says whether it is in the subset that vendors
    can enforce.
    """

    def __init__(self, kind: type[T]) -> None:
        from minillmlib.structured.schema import (  # noqa: PLC0415 - few programs need it
            plain_schema,
            strict_schema,
        )

        self.kind: JsonValue = kind
        try:
            schema, shape = _schema_of(kind), cast("type", kind)
            self._is_wrapped = plain_schema(schema).get("type") != "object"
            if self._is_wrapped:
                shape = msgspec.defstruct("Answer", [(KEY, kind)])
                schema = _schema_of(shape)
            strict = strict_schema(schema)
            self._decoder: msgspec.json.Decoder[JsonValue] = msgspec.json.Decoder(
                shape, strict=False, dec_hook=_decode_model
            )
        except Exception as error:  # noqa: BLE001 - the type may run the caller's code
            raise InvalidParameterError(
                f"no answer can be read as {self.name}: {excerpt(str(error), _PROBLEM_CHARS)}"
            ) from None
        self.is_strict = strict is not None
        self.schema: JsonObject = plain_schema(schema) if strict is None else strict

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
    import json  # noqa: PLC0415 - few programs need it; unlike msgspec it encodes any number

    try:
        return _as_model(part).model_validate_json(json.dumps(value))
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
