"""The type of an answer: its JSON schema, and the reading of an answer as a value."""

from __future__ import annotations

import decimal
from typing import Generic, TypeVar, cast

import msgspec

from minillmlib.errors import InvalidParameterError, ResponseValidationError
from minillmlib.json_value import JsonObject, JsonValue, encode_json, excerpt
from minillmlib.structured.builder import ReaderBuilder, name_of
from minillmlib.structured.readers import MisfitError, Reading, count_known
from minillmlib.structured.schemas import NotStrictError, plain_schema, strict_schema

T = TypeVar("T")

KEY = "answer"  # vendors want an object; any other type becomes this member of one
PROBLEM_CHARS = 1000


class ResultType(Generic[T]):
    """A type, its JSON schema, and its decoder.

    `schema` has an object at its root. `is_strict` says whether it is in the subset that vendors
    can enforce.
    """

    def __init__(self, kind: type[T]) -> None:
        self.kind: JsonValue = kind
        builder = ReaderBuilder()
        try:
            self._reader = builder.build(kind)
            schema = with_definitions(self._reader.schema, builder)
            self._is_wrapped = plain_schema(schema).get("type") != "object"
            if self._is_wrapped:
                wrapper = {"type": "object", "properties": {KEY: self._reader.schema}}
                schema = with_definitions({**wrapper, "required": [KEY]}, builder)
            self.schema: JsonObject = plain_schema(schema)
        except Exception as error:  # noqa: BLE001 - the type may run the caller's code
            raise InvalidParameterError(
                f"no answer can be read as {self.name}: {excerpt(str(error), PROBLEM_CHARS)}"
            ) from None
        try:
            self.schema = strict_schema(schema)
            self.is_strict = True
        except NotStrictError:
            self.is_strict = False
        self._decoder: msgspec.json.Decoder[JsonValue] = msgspec.json.Decoder(
            float_hook=decimal.Decimal if builder.has_decimals else None
        )

    @property
    def name(self) -> str:
        """The name of the type, as written in code."""
        return name_of(self.kind)

    @property
    def schema_text(self) -> str:
        """The schema as JSON text."""
        return encode_json(self.schema).decode()

    def parse(self, text: str) -> T:
        """Return the value of a JSON text. Raises `ResponseValidationError` with the path."""
        try:
            return cast("T", self._read(self._decoder.decode(text)))
        except MisfitError as error:
            path, problem = error.path, str(error)
        except Exception as error:  # noqa: BLE001 - as above
            path, problem = "$", f"{error!r} - at `$`"
        raise ResponseValidationError(
            f"the answer does not fit {self.name}: {excerpt(problem, PROBLEM_CHARS)}", path=path
        )

    def _read(self, value: JsonValue) -> JsonValue:
        if not self._is_wrapped:
            return self._reader.read(value, "$", Reading())
        if not isinstance(value, dict):
            return self._reader.read(value, f"$.{KEY}", Reading())
        is_whole = count_known(self._reader, value) > 0  # a model may leave the wrapper out
        if KEY in value:
            try:
                return self._reader.read(value[KEY], f"$.{KEY}", Reading())
            except MisfitError:
                if not is_whole:
                    raise
        if is_whole:
            return self._reader.read(value, "$", Reading())
        raise MisfitError((f"Object missing required field `{KEY}`", "$"))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResultType):
            return NotImplemented
        return bool(self.kind == other.kind)

    def __hash__(self) -> int:
        return hash(self.kind)

    def __reduce__(self) -> tuple[type[ResultType[T]], tuple[JsonValue]]:
        return ResultType, (self.kind,)

    def __repr__(self) -> str:
        return f"ResultType({self.name})"


def with_definitions(schema: JsonObject, builder: ReaderBuilder) -> JsonObject:
    """Return a schema with the definitions that its builder made."""
    return {**schema, "$defs": builder.definitions} if builder.definitions else schema
