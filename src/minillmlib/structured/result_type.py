"""The type that an answer is to have: its schema, and the way from a JSON text to its value."""

from __future__ import annotations

import re
from typing import Generic, TypeVar, cast

import msgspec

from minillmlib.errors import InvalidParameterError, ResponseValidationError
from minillmlib.json_value import JsonObject, JsonValue, encode_json, excerpt

__all__ = ["ResultType"]

T = TypeVar("T")

KEY = "answer"  # vendors want an object, so that what is none becomes this member of one
_PROBLEM_CHARS = 1000
_PLACE = r" - at (?:`key` in )?`(\$[^`]*)`"
_INNER_PLACE = r" - at `(?=[.\[])"


class ResultType(Generic[T]):
    """A type as a model is told it, and as its answer is read.

    `schema` has an object at its root. `is_strict` says whether it is in the subset that vendors
    hold a model to.
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
                shape, strict=False, dec_hook=_read_by_itself
            )
        except Exception as error:  # noqa: BLE001 - the type may bring code of the caller's own
            raise InvalidParameterError(
                f"no answer can be read as {self.name}: {excerpt(str(error), _PROBLEM_CHARS)}"
            ) from None
        self.is_strict = strict is not None
        self.schema: JsonObject = plain_schema(schema) if strict is None else strict

    @property
    def name(self) -> str:
        """The type as people write it."""
        return self.kind.__name__ if isinstance(self.kind, type) else str(self.kind)

    @property
    def schema_text(self) -> str:
        """The schema as it is told to a model."""
        return encode_json(self.schema).decode()

    def parse(self, text: str) -> T:
        """The value in a JSON text. Raises `ResponseValidationError`, which names the place."""
        if self._is_wrapped and not text.lstrip().startswith("{"):
            text = f'{{"{KEY}": {text}}}'
        try:
            found: JsonValue = self._decoder.decode(text)
        except Exception as error:  # noqa: BLE001 - as above
            problem = _located(error)
            raise ResponseValidationError(
                f"the answer does not fit {self.name}: {excerpt(problem, _PROBLEM_CHARS)}",
                path=re.findall(_PLACE, problem)[0],
            ) from None
        return cast("T", found.answer if self._is_wrapped else found)

    def __reduce__(self) -> tuple[type[ResultType[T]], tuple[JsonValue]]:
        return ResultType, (self.kind,)

    def __repr__(self) -> str:
        return f"Expected({self.name})"


def _schema_of(kind: type) -> JsonObject:
    """The schema, with what models of pydantic define at its root, where references look."""
    defs: JsonObject = {}

    def told_by_itself(part: type) -> JsonObject:
        schema = dict(_model(part).model_json_schema())
        defs.update(schema.pop("$defs", {}))
        return schema

    schema = msgspec.json.schema(kind, schema_hook=told_by_itself)
    return {**schema, "$defs": {**defs, **schema.get("$defs", {})}} if defs else schema


def _model(part: type) -> JsonValue:
    """The class if it tells and reads JSON as pydantic's models do."""
    if hasattr(part, "model_json_schema") and hasattr(part, "model_validate_json"):
        return part
    raise TypeError(
        f"{part!r} is unknown to JSON; use dataclasses, TypedDicts, msgspec Structs, "
        "pydantic models, enums, plain types or collections of them"
    )


def _read_by_itself(part: type, value: JsonValue) -> JsonValue:
    import json  # noqa: PLC0415 - few programs need it; unlike msgspec it writes any number

    try:
        return _model(part).model_validate_json(json.dumps(value))
    except Exception as error:  # noqa: BLE001 - as above
        problems = error.errors() if hasattr(error, "errors") else ()
        told = [f"{problem['msg']} - at `{_place(problem['loc'])}`" for problem in problems]
        raise ValueError("; ".join(told) or str(error)) from None


def _place(steps: tuple[str | int, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _located(error: Exception) -> str:
    """What is wrong and where, the places of a model within its own place."""
    told = str(error) if isinstance(error, msgspec.MsgspecError) else repr(error)
    outer = re.findall(_PLACE, told)[-1:] or ["$"]
    if re.search(_INNER_PLACE, told):
        return re.sub(_INNER_PLACE, f" - at `{outer[0]}", re.sub(_PLACE, "", told))
    return told if re.search(_PLACE, told) else f"{told} - at `$`"
