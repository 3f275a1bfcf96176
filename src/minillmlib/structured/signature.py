"""The parameters of a function as one type: their schema, and the reading of arguments."""

from __future__ import annotations

import contextlib
import decimal
import functools
import inspect
import typing
from collections.abc import Callable

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.structured.annotations import is_field
from minillmlib.structured.builder import ReaderBuilder, json_of
from minillmlib.structured.docstrings import parameters_of, summary_of
from minillmlib.structured.members import MemberType
from minillmlib.structured.readers import Reading, Record
from minillmlib.structured.result_type import with_definitions


class Signature:
    """The name, the description and the parameters of a function, a method or another callable.

    Raises `InvalidParameterError` for a parameter without a type that JSON can represent. What a
    `functools.partial` gives by name is no parameter.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        inner, fixed = _unwrap(function)
        code = code_of(function)
        is_object = code is not inner
        self.name: str = type(inner).__name__ if is_object else inner.__name__
        # Of a `__call__` without a docstring, `getdoc` would find that of `type`.
        doc = (code.__doc__ or inspect.getdoc(type(inner))) if is_object else inspect.getdoc(code)
        doc = doc or ""
        self.description = summary_of(doc) or None
        descriptions = parameters_of(doc)
        builder = ReaderBuilder()
        members = []
        for parameter in _parameters_of(function, code):
            if parameter.name in fixed:
                continue
            of = _member_type(parameter, function)
            try:
                member = builder.member(of)
            except Exception as error:
                raise InvalidParameterError(
                    f"{function!r} cannot be a tool: a parameter has a type that is not JSON "
                    f"({error})"
                ) from error
            members.append((member, of))
        schema = builder.properties(members)
        for name, part in schema["properties"].items():
            if name in descriptions and "description" not in part:
                schema["properties"][name] = {**part, "description": descriptions[name]}
        schema["additionalProperties"] = False
        self.schema: JsonObject = with_definitions(schema, builder)
        readers = tuple(member for member, _ in members)
        self._has_decimals = builder.has_decimals
        self._record = Record(self.name, {}, dict, members=readers, is_closed=True)

    def read(self, arguments: JsonValue, text: str) -> JsonObject:
        """Return the values of the arguments that are given. Raises `MisfitError`.

        Numbers for a `Decimal` are read from the text, which has all of their digits.
        """
        if self._has_decimals:
            with contextlib.suppress(ValueError, RecursionError):
                exact = msgspec.json.Decoder(float_hook=decimal.Decimal).decode(text)
                arguments = exact if isinstance(exact, dict) else arguments
        return self._record.read_members(arguments, "$", Reading())


def _unwrap(function: Callable[..., object]) -> tuple[Callable[..., object], set[str]]:
    """Return the function within a partial, and the names of the arguments that it gives."""
    fixed: set[str] = set()
    while isinstance(function, functools.partial):
        fixed |= set(function.keywords)
        function = function.func
    return function, fixed


def code_of(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function that a partial, or an instance of a class with `__call__`, runs."""
    inner, _ = _unwrap(function)
    return inner if hasattr(inner, "__name__") else type(inner).__call__


def _parameters_of(
    function: Callable[..., object], code: Callable[..., object]
) -> list[inspect.Parameter]:
    """Return the parameters with their annotations read."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
        where: object = (
            vars(code).get("__init__") if isinstance(code, type) else inspect.unwrap(code)
        )
        hints = typing.get_type_hints(where, include_extras=True)
    except Exception as error:
        raise InvalidParameterError(
            f"{function!r} cannot be a tool: its annotations cannot be read ({error})"
        ) from error
    return [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in parameters
    ]


def _member_type(parameter: inspect.Parameter, function: Callable[..., object]) -> MemberType:
    name, default = parameter.name, parameter.default
    place = f"the parameter {name!r} of {function!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise InvalidParameterError(
            f"{place} takes any number of values; a tool needs named parameters"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise InvalidParameterError(
            f"{place} has no name for callers (it stands before the `/`); a tool needs named "
            "parameters"
        )
    if parameter.annotation is parameter.empty:
        raise InvalidParameterError(f"{place} needs a type annotation")
    if is_field(default):
        return MemberType(name, name, parameter.annotation, is_required=True, field=default)
    if default is parameter.empty:
        return MemberType(name, name, parameter.annotation, is_required=True)
    if json_of(default) is msgspec.UNSET:
        raise InvalidParameterError(f"{place} has a default that is not JSON: {default!r}")
    return MemberType(name, name, parameter.annotation, is_required=False, default=default)
