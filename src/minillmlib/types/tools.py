"""Tools that a model may call, and its calls."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from minillmlib.errors import InvalidParameterError, MalformedResponseError
from minillmlib.json_value import JsonObject, JsonValue, decode_json, encode_json, excerpt_of
from minillmlib.types.values import check_choice, check_kind

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call.

    `parameters` is the JSON schema of its arguments, an object. `strict` asks the vendor to
    enforce the schema. Raises `InvalidParameterError` unless the name is 1 to 64 letters, digits,
    `_` or `-`.
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
        msgspec.structs.force_setattr(self, "parameters", schema)

    @classmethod
    def from_function(cls, function: Callable[..., object]) -> Self:
        """Return a definition from the signature and the docstring of a typed Python function.

        The first paragraph of the docstring is the description; a Google style `Args:` section
        describes the parameters. Raises `InvalidParameterError` for a parameter without a type
        that JSON can represent.
        """
        doc = inspect.getdoc(function) or ""
        description = " ".join(doc.partition("\n\n")[0].split())
        return cls(
            name=getattr(function, "__name__", ""),
            description=description or None,
            parameters=_schema_of(function, _parse_descriptions(doc)),
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
    """The choice of a tool: the model may, must or must not call one, or must call this one."""

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


# Every wire that we know takes such an id, but those that say so in `tool_id_chars` (Mistral's).
_PORTABLE_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call that the model asks for. `arguments` is the JSON text exactly as it wrote it.

    `extra` are the other keys that the server gave the call, such as Gemini's signature; those of
    the object within that has its name are under `"function"`. They go back unchanged, as does an
    id of any form, but only to `origin`, the model that made the call. Without an origin, `extra`
    is the caller's own and goes to every model.
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
            msgspec.structs.force_setattr(self, "extra", dict(self.extra))

    def with_origin(self, origin: str) -> Self:
        """Return the call as made by this model; one that every wire takes needs no origin."""
        is_portable = not self.extra and _PORTABLE_ID.fullmatch(self.id)
        return self if is_portable else msgspec.structs.replace(self, origin=origin)

    def __hash__(self) -> int:  # `extra` has none
        return hash((self.id, self.name, self.arguments))

    def arguments_json(self) -> JsonObject:
        """Return the arguments as an object, or raise `MalformedResponseError` if they are none.

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


def _schema_of(function: Callable[..., object], descriptions: Mapping[str, str]) -> JsonObject:
    """Return the JSON schema of a function's parameters, from their annotations and defaults."""
    parameters = _parameters_of(function)
    annotations = [parameter.annotation for parameter in parameters]
    try:
        schemas, parts = msgspec.json.schema_components(annotations, ref_template="#/$defs/{name}")
    except Exception as error:
        raise InvalidParameterError(
            f"{function!r} cannot be a tool: a parameter has a type that is not JSON ({error})"
        ) from error
    properties: JsonObject = {}
    for parameter, schema in zip(parameters, schemas, strict=True):
        if parameter.name in descriptions:
            schema["description"] = descriptions[parameter.name]
        if parameter.default is not parameter.empty:
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    encode_json(properties)  # a default that is not JSON cannot be sent
    return {
        "type": "object",
        "properties": properties,
        "required": [p.name for p in parameters if p.default is p.empty],
        "additionalProperties": False,
        **({"$defs": parts} if parts else {}),
    }


def _parameters_of(function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception as error:
        raise InvalidParameterError(
            f"{function!r} cannot be a tool: its annotations cannot be read ({error})"
        ) from error
    for parameter in parameters:
        place = f"the parameter {parameter.name!r} of {function!r}"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidParameterError(
                f"{place} takes any number of values; a tool needs named parameters"
            )
        if parameter.annotation is parameter.empty:
            raise InvalidParameterError(f"{place} needs a type annotation")
    return parameters


def _parse_descriptions(doc: str) -> dict[str, str]:
    """Return the descriptions in the `Args:` section of a Google style docstring."""
    section = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    descriptions: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(section).splitlines():
        head, colon, text = line.partition(":")
        if colon and not line.startswith(" "):
            name = head.partition(" ")[0]
            descriptions[name] = text.strip()
        elif name:
            descriptions[name] += " " + line.strip()
    return descriptions
