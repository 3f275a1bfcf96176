"""Tools that a model may call, and its calls."""

import copy
import re
from collections.abc import Callable, Mapping
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError, ToolArgumentError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, excerpt, excerpt_of
from minillmlib.structured.readers import MisfitError
from minillmlib.structured.result_type import PROBLEM_CHARS
from minillmlib.structured.schemas import NotStrictError, is_strict, strict_schema
from minillmlib.structured.signature import Signature
from minillmlib.types.values import check_choice, check_kind, copy_nested

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call.

    `parameters` is the JSON schema of its arguments, an object. `strict` asks the vendor to
    enforce the schema, which is then written in the form of strict modes: what may be missing may
    be null instead. Raises `InvalidParameterError` unless the name is 1 to 64 letters, digits,
    `_` or `-`, and for a strict schema that has no such form.
    """

    name: str
    description: str | None = None
    parameters: JsonObject = {}
    strict: bool | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        given: object = self.parameters
        if not isinstance(given, Mapping) or given.get("type", "object") != "object":
            raise InvalidParameterError(
                f"the parameters of {self.name} must be a JSON schema of the type object"
            )
        check_kind(f"the description of {self.name}", self.description, str)
        check_kind(f"the strict of {self.name}", self.strict, bool)
        schema = {"type": "object", "properties": {}} | copy.deepcopy(dict(given))
        if self.strict:
            schema = _strict_form(self.name, schema)
        msgspec.structs.force_setattr(self, "parameters", schema)

    @classmethod
    def from_function(cls, function: Callable[..., object]) -> Self:
        """Return a definition from the signature and the docstring of a typed Python function.

        The first paragraph of the docstring is the description; its section of parameters, in the
        style of Google, NumPy or Sphinx, describes those that have no description in an
        `Annotated`. Methods, partials and callable objects are functions as well; what a partial
        gives by name is no parameter. Raises `InvalidParameterError` for a parameter without a
        type that JSON can represent.

        Examples:
            >>> def weather(city: str) -> str:
            ...     "Tell the weather."
            >>> ToolDefinition.from_function(weather).parameters["required"]
            ['city']
        """
        signature = Signature(function)
        return cls(
            name=signature.name, description=signature.description, parameters=signature.schema
        )


def _strict_form(name: str, schema: JsonObject) -> JsonObject:
    try:
        return schema if is_strict(schema) else strict_schema(schema)
    except NotStrictError as error:
        problem = str(error)
    except (AttributeError, KeyError, TypeError):
        problem = "it is no JSON schema"
    raise InvalidParameterError(
        f"the parameters of {name} do not fit strict mode: {problem}; omit strict"
    )


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidParameterError(
            f"the name of a tool must be 1 to 64 letters, digits, _ or -, not {name!r}"
        )


ToolLike: TypeAlias = ToolDefinition | Mapping[str, JsonValue] | Callable[..., object]


def as_tool(tool: ToolLike) -> ToolDefinition:
    """Return a definition from a `ToolDefinition`, OpenAI's dictionary, or a function."""
    if isinstance(tool, ToolDefinition):
        return tool
    if isinstance(tool, Mapping):
        return _from_openai(tool)
    if callable(tool):
        return ToolDefinition.from_function(tool)
    raise InvalidParameterError(
        f"a tool must be a ToolDefinition, a dictionary or a function, not {type(tool).__name__}"
    )


ToolMode: TypeAlias = Literal["auto", "none", "required", "tool"]


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The choice of a tool: the model may, must or must not call one, or must call this one.

    Examples:
        >>> ToolChoice.tool("weather").name
        'weather'
    """

    mode: ToolMode
    name: str | None = None

    def __post_init__(self) -> None:
        check_choice("the mode of a ToolChoice", str(self.mode), get_args(ToolMode))
        if (self.mode == "tool") != (self.name is not None):
            raise InvalidParameterError(
                "a ToolChoice needs a name if its mode is tool, and only then"
            )
        if self.name is not None:
            _check_name(self.name)

    @classmethod
    def auto(cls) -> Self:
        """Return the choice that lets the model decide."""
        return cls(mode="auto")

    @classmethod
    def none(cls) -> Self:
        """Return the choice that forbids calls."""
        return cls(mode="none")

    @classmethod
    def required(cls) -> Self:
        """Return the choice that demands at least one call."""
        return cls(mode="required")

    @classmethod
    def tool(cls, name: str) -> Self:
        """Return the choice that demands a call of this tool."""
        return cls(mode="tool", name=name)


def as_tool_choice(choice: object) -> ToolChoice:
    """Return a choice from a `ToolChoice`, the name of a mode, or OpenAI's dictionary."""
    match choice:
        case ToolChoice():
            return choice
        case "auto" | "none" | "required":
            return ToolChoice(mode=choice)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice.tool(name)
    raise InvalidParameterError(
        "tool_choice must be a ToolChoice, 'auto', 'none', 'required' or OpenAI's dictionary, "
        f"not {choice!r}"
    )


# Every known wire takes such an id, except those with a shorter `tool_id_chars` (Mistral's).
_PORTABLE_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that the model asks for. `arguments` is the JSON text exactly as it wrote it.

    `extra` holds the further keys that the server gave the call, such as Gemini's signature; those
    within its `function` or `custom` object are under that name. They go back unchanged, as does
    an id of any form, but only to `origin`, the model that made the call. Without an origin,
    `extra` is the caller's own and goes to every model.
    """

    id: str
    name: str
    arguments: str
    extra: JsonObject = {}
    origin: str = ""

    def __post_init__(self) -> None:
        texts = (self.id, self.name, self.arguments, self.origin)
        if not all(isinstance(text, str) for text in texts):
            raise InvalidParameterError(
                "the id, the name, the arguments (JSON text) and the origin of a ToolCall "
                "must be strings"
            )
        if self.extra:
            check_kind("the extra of a ToolCall", self.extra, Mapping)
            msgspec.structs.force_setattr(
                self, "extra", copy_nested("the extra of a ToolCall", self.extra)
            )

    def with_origin(self, origin: str) -> Self:
        """Return the call with its origin, which a call that every wire takes does not need."""
        is_portable = not self.extra and _PORTABLE_ID.fullmatch(self.id)
        return self if is_portable else msgspec.structs.replace(self, origin=origin)

    def __hash__(self) -> int:  # `extra` has none
        return hash((self.id, self.name, self.arguments))

    def arguments_json(self) -> JsonObject:
        """Return the arguments as an object. Raises `MalformedResponseError` for anything else.

        No text and `null` mean no arguments. An object that was encoded twice, as some servers
        do, is decoded twice (FoundationAgents/OpenManus#989, vllm-project/vllm#54964).
        """
        value: JsonValue = self.arguments
        try:
            while isinstance(value, str) and value.strip():  # each round takes off two quotes
                value = decode_json(value)
        except MalformedResponseError:
            problem = "arguments that are not JSON"
        else:
            if isinstance(value, dict):
                return value
            if value is None or isinstance(value, str):
                return {}
            problem = "arguments that are no JSON object"
        raise MalformedResponseError(
            f"the model called {self.name} with {problem}: {excerpt_of(self.arguments)}"
        )

    def bind(self, function: Callable[..., object]) -> dict[str, JsonValue]:
        """Return the arguments as keyword arguments, in the types of the function's signature.

        A null reads as absent if the parameter has a default. Raises `ToolArgumentError`, with a
        text for the model, if the arguments do not fit.

        Examples:
            >>> def remind(day: date, note: str = "") -> None: ...
            >>> call = ToolCall(id="1", name="remind", arguments='{"day": "2026-02-10"}')
            >>> call.bind(remind)
            {'day': datetime.date(2026, 2, 10)}
        """
        signature = Signature(function)
        try:
            return signature.read(self.arguments_json(), self.arguments)
        except MalformedResponseError as error:
            problem, path = str(error), "$"
        except MisfitError as error:
            text = excerpt(str(error), PROBLEM_CHARS)
            problem, path = f"the arguments of {self.name} do not fit: {text}", error.path
        raise ToolArgumentError(f"{problem}; call it again with other arguments", path=path)


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A fragment of a call in a stream. Servers omit, repeat or misnumber any of its fields."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: JsonObject = {}


def _from_openai(tool: Mapping[str, JsonValue]) -> ToolDefinition:
    if tool.get("type", "function") != "function":
        raise InvalidParameterError(
            f"a tool of the type {tool['type']!r} runs at the vendor; pass it in extra"
        )
    function = tool.get("function", tool)
    if function is not tool and (odd := set(tool) - {"type", "function"}):
        raise InvalidParameterError(
            f"the dictionary of a tool has no key {min(odd)!r} beside function"
        )
    if not isinstance(function, Mapping) or "name" not in function:
        raise InvalidParameterError(
            "a dictionary of a tool must look like {'type': 'function', 'function': {'name': ...}}"
        )
    known = {name: function[name] for name in ToolDefinition.__struct_fields__ if name in function}
    if unknown := [name for name in function if name not in (*known, "type")]:
        raise InvalidParameterError(f"the dictionary of a tool has no key {unknown[0]!r}")
    return ToolDefinition(**known)
