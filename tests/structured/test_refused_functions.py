"""What a function is told as a tool, what of it is refused in which words, and what pydantic tells."""

from __future__ import annotations

import decimal
import functools
import inspect
import re
from dataclasses import dataclass
from typing import Annotated, Any

import annotated_types as at
import msgspec
import pydantic
import pydantic_core
import pytest
from annotation_table import LeftA, LeftB

from minillmlib import (
    IncompleteJsonError,
    InvalidParameterError,
    NodeCompletionParameters,
    NoJsonFoundError,
    ResponseValidationError,
    ToolArgumentError,
    ToolCall,
    ToolDefinition,
)
from minillmlib.structured.json_answer import extract_json


def with_kind(**annotations):
    """A function of parameters with these types."""

    def tool(*args, **kwargs):
        """Do."""

    kind = inspect.Parameter.KEYWORD_ONLY
    tool.__signature__ = inspect.Signature([
        inspect.Parameter(name, kind, annotation=one) for name, one in annotations.items()
    ])  # fmt: skip
    tool.__annotations__ = annotations
    return tool


def any_number(*cities: str):
    """Do."""


def any_names(**cities: str):
    """Do."""


def positional(first: int, city: str, /):
    """Do."""


def bare(city):
    """Do."""


def nowhere(city: Nowhere):  # noqa: F821
    """Do."""


def odd_default(city: str = object):
    """Do."""


def complexes(city: str, wave: list[complex] = ()):
    """Do."""


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (any_number, "the parameter 'cities' of {} takes any number of values; a tool needs named "
         "parameters"),
        (any_names, "the parameter 'cities' of {} takes any number of values; a tool needs named "
         "parameters"),
        (positional, "the parameter 'first' of {} has no name for callers (it stands before the "
         "`/`); a tool needs named parameters"),
        (bare, "the parameter 'city' of {} needs a type annotation"),
        (nowhere, "{} cannot be a tool: its annotations cannot be read (name 'Nowhere' is not "
         "defined)"),
        (odd_default, "the parameter 'city' of {} has a default that is not JSON: <class 'object'>"),
        (complexes, "{} cannot be a tool: a parameter has a type that is not JSON (<class "
         "'complex'> has no JSON schema; use dataclasses, TypedDicts, msgspec Structs, pydantic "
         "models, enums, plain types or collections of them, in `wave`)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_why_a_function_is_no_tool(function, problem):
    for form in (function, functools.partial(function)):
        with pytest.raises(InvalidParameterError) as caught:
            ToolDefinition.from_function(form)
        assert str(caught.value) == problem.format(repr(form))


class Named:
    """The class's own words."""

    def __call__(self, size: int = 1):
        return size


class Silent:
    def __call__(self, size: int = 1):
        return size


@dataclass
class Made:
    """Made of a size."""

    size: Annotated[int, "how large"]


def three(first: int, second: str = "b", third: Annotated[float | None, "the third"] = None):
    """Three.

    Args:
        first: The first.
        third: not this one
        fourth: no parameter
    """


def nothing():
    """Do."""


@pytest.mark.parametrize(
    ("function", "tool"),
    [
        (three, ToolDefinition(name="three", description="Three.", parameters={
            "type": "object",
            "properties": {
                "first": {"type": "integer", "description": "The first."},
                "second": {"type": "string", "default": "b"},
                "third": {"anyOf": [{"type": "number"}, {"type": "null"}],
                          "description": "the third", "default": None},
            },
            "required": ["first"], "additionalProperties": False})),
        (functools.partial(three, 1, second="x"), ToolDefinition(
            name="three", description="Three.", parameters={
                "type": "object",
                "properties": {"third": {"anyOf": [{"type": "number"}, {"type": "null"}],
                                         "description": "the third", "default": None}},
                "required": [], "additionalProperties": False})),
        (nothing, ToolDefinition(name="nothing", description="Do.", parameters={
            "type": "object", "properties": {}, "required": [], "additionalProperties": False})),
        (Named(), ToolDefinition(name="Named", description="The class's own words.", parameters={
            "type": "object", "properties": {"size": {"type": "integer", "default": 1}},
            "required": [], "additionalProperties": False})),
        (Silent(), ToolDefinition(name="Silent", parameters={
            "type": "object", "properties": {"size": {"type": "integer", "default": 1}},
            "required": [], "additionalProperties": False})),
        (Made, ToolDefinition(name="Made", description="Made of a size.", parameters={
            "type": "object", "properties": {"size": {"type": "integer", "description": "how large"}},
            "required": ["size"], "additionalProperties": False})),
    ],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_the_whole_definition_of_a_function(function, tool):
    assert ToolDefinition.from_function(function) == tool


# Models of pydantic, whose definitions join ours.


class Part(pydantic.BaseModel):
    size: int
    next: Part | None = None


class Whole(pydantic.BaseModel):
    """A whole."""

    parts: list[Part]


@dataclass
class Owner:
    whole: Annotated[Whole, "what is owned"]
    part: Part


def test_the_definitions_of_a_model_are_where_its_references_lead():
    parameters = ToolDefinition.from_function(with_kind(one=Owner, two=Part)).parameters
    assert parameters["properties"] == {
        "one": {"$ref": "#/$defs/Owner"}, "two": {"$ref": "#/$defs/Part"},
    }  # fmt: skip
    defs = parameters["$defs"]
    assert defs.keys() == {"Part", "Owner"}
    assert defs["Owner"]["properties"]["part"] == {"$ref": "#/$defs/Part"}
    whole = defs["Owner"]["properties"]["whole"]
    assert whole["description"] == "what is owned"
    assert whole["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert defs["Part"]["properties"]["next"]["anyOf"][0] == {"$ref": "#/$defs/Part"}
    assert defs["Part"]["properties"]["size"]["type"] == "integer"


def test_models_of_one_name_have_definitions_of_their_own():
    parameters = ToolDefinition.from_function(with_kind(one=LeftA, two=LeftB)).parameters
    leads_to = [
        parameters["$defs"][one["properties"]["part"]["$ref"].removeprefix("#/$defs/")]
        for one in parameters["properties"].values()
    ]
    assert [list(part["properties"]) for part in leads_to] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Annotated[Whole, msgspec.Meta(title="W")],
         "Whole is checked by pydantic, which does not know the msgspec.Meta in it; use "
         "pydantic.Field or annotated_types"),
        (Annotated[int, pydantic.AfterValidator(abs), msgspec.Meta(ge=1)],
         "int is checked by pydantic, which does not know the msgspec.Meta in it; use "
         "pydantic.Field or annotated_types"),
    ],
)  # fmt: skip
def test_pydantic_knows_no_meta_of_msgspec(kind, problem):
    with pytest.raises(InvalidParameterError) as caught:
        NodeCompletionParameters().expecting(kind)
    assert str(caught.value).endswith(f": {problem}")


class Even:
    """A number that pydantic reads, though the class is none of its models."""

    def __init__(self, number: int) -> None:
        self.number = number

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return pydantic_core.core_schema.no_info_after_validator_function(cls, handler(int))


def test_a_class_with_a_hook_for_pydantic_is_read_by_it():
    result = NodeCompletionParameters().expecting(list[Even]).result_type
    assert result.schema["properties"]["answer"] == {"type": "array", "items": {"type": "integer"}}
    (even,) = result.parse("[4]")
    assert (type(even), even.number) == (Even, 4)


def double(value: int) -> int:
    return 2 * value


def test_functions_of_pydantic_beside_a_type_are_run():
    kind = Annotated[int, at.Ge(1), pydantic.AfterValidator(double), "twice"]
    result = NodeCompletionParameters().expecting(kind).result_type
    assert result.schema["properties"]["answer"] == {
        "type": "integer", "description": 'twice {"minimum": 1}',
    }  # fmt: skip
    assert result.parse("3") == result.parse('{"answer": 3}') == 6
    with pytest.raises(ResponseValidationError) as caught:
        result.parse("0")
    assert caught.value.path == "$.answer"


def broken(value: int) -> int:
    raise KeyError(value)


def silent(value: int) -> int:
    raise ValueError


@pytest.mark.parametrize(
    ("function", "told"),
    [(broken, "KeyError(3) - at `$.answer`"), (silent, "Value error, - at `$.answer`")],
)
def test_what_a_function_of_pydantic_raises_is_told(function, told):
    kind = Annotated[int, pydantic.AfterValidator(function)]
    with pytest.raises(ResponseValidationError) as caught:
        NodeCompletionParameters().expecting(kind).result_type.parse("3")
    assert str(caught.value).endswith(told)


class Grown(msgspec.Struct):
    size: int

    def __post_init__(self):
        if self.size == 1:
            raise ValueError
        if self.size == 2:
            raise TypeError("too odd")
        if self.size == 3:
            raise RuntimeError("too large")


@pytest.mark.parametrize(
    ("size", "told"),
    [(1, "ValueError()"), (2, "too odd"), (3, "RuntimeError('too large')")],
)
def test_what_a_class_raises_is_told_with_its_place(size, told):
    result = NodeCompletionParameters().expecting(list[Grown]).result_type
    assert result.parse('[{"size": 0}]') == [Grown(0)]
    with pytest.raises(ResponseValidationError) as caught:
        result.parse(f'[{{"size": 0}}, {{"size": {size}}}]')
    assert str(caught.value).endswith(f": {told} - at `$.answer[1]`")


@dataclass
class Filled:
    none: Annotated[int | None, pydantic.Field(default=None)]
    many: Annotated[list[int], pydantic.Field(default_factory=lambda: [1])]
    word: Annotated[str, pydantic.Field("x")]


def test_defaults_of_pydantic_are_told_and_filled_in_anywhere():
    result = NodeCompletionParameters().expecting(list[Filled]).result_type
    assert result.parse("[{}]") == [Filled(None, [1], "x")]
    parameters = ToolDefinition.from_function(with_kind(one=Filled)).parameters
    properties = parameters["$defs"]["Filled"]["properties"]
    assert {name: part["default"] for name, part in properties.items()} == {
        "none": None, "many": [1], "word": "x",
    }  # fmt: skip
    assert parameters["$defs"]["Filled"]["required"] == []


def test_a_pattern_with_flags_cannot_be_told():
    plain = Annotated[str, pydantic.Field(pattern=re.compile("^a"))]
    schema = ToolDefinition.from_function(with_kind(one=plain)).parameters["properties"]["one"]
    assert schema == {"type": "string", "pattern": "^a"}
    flagged = Annotated[str, pydantic.Field(pattern=re.compile("^a", re.IGNORECASE))]
    with pytest.raises(
        InvalidParameterError, match="JSON schemas have no flags as those of re.comp"
    ):
        ToolDefinition.from_function(with_kind(one=flagged))


def add_word(schema):
    schema["readOnly"] = True


@pytest.mark.parametrize(
    ("field", "told"),
    [(pydantic.Field(json_schema_extra=add_word), {"type": "integer", "readOnly": True}),
     (pydantic.Field(json_schema_extra={"readOnly": True}), {"type": "integer", "readOnly": True}),
     (pydantic.Field(strict=True), {"type": "integer"})],
    ids=["a function", "words", "strict"],
)  # fmt: skip
def test_what_only_pydantic_knows_of_a_field_is_left_to_it(field, told):
    parameters = ToolDefinition.from_function(with_kind(one=Annotated[int, field])).parameters
    assert parameters["properties"]["one"] == told
    result = NodeCompletionParameters().expecting(Annotated[int, field]).result_type
    if field.metadata:  # it is strict
        with pytest.raises(ResponseValidationError):
            result.parse('"3"')
    else:
        assert result.parse('"3"') == 3


# Arguments of a call.


def test_of_many_problems_the_first_five_are_told():
    function = with_kind(**dict.fromkeys("abcdefg", int))
    with pytest.raises(ToolArgumentError) as caught:
        ToolCall(id="c", name="tool", arguments="{}").bind(function)
    text = str(caught.value)
    assert [f"`{name}`" in text for name in "abcdefg"] == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": 1, "b": 2, "c": 3}', "Object contains unknown field `'b'` - at `$`; Object contains "
         "unknown field `'c'` - at `$`"),
        ('{"a": "x"}', "Expected `int`, got `str` - at `$.a`"),
        ("{}", "Object missing required field `a` - at `$`"),
        ("[1]", "the model called tool with arguments that are no JSON object: '[1]'; call it again "
         "with other arguments"),
    ],
)  # fmt: skip
def test_the_text_for_the_model_names_each_problem_and_its_place(arguments, told):
    with pytest.raises(ToolArgumentError) as caught:
        ToolCall(id="c", name="tool", arguments=arguments).bind(with_kind(a=int))
    assert told in str(caught.value)


def test_any_value_of_an_argument_has_floats_where_another_is_a_decimal():
    function = with_kind(price=decimal.Decimal, rest=Any, share=float)
    call = ToolCall(
        id="c", name="tool", arguments='{"price": 0.10, "rest": [{"a": 1.5}], "share": 2.5}'
    )
    bound = call.bind(function)
    assert bound == {"price": decimal.Decimal("0.10"), "rest": [{"a": 1.5}], "share": 2.5}
    assert [type(bound["rest"][0]["a"]), type(bound["share"])] == [float, float]
    assert str(bound["price"]) == "0.10"


# JSON in the text of an answer.


@pytest.mark.parametrize(
    ("text", "fields", "told"),
    [
        ("x", {"refusal": "No."}, "the answer holds no JSON, the model refused: No."),
        ("hello", {}, None),
        ('{"a": 1} and {"b": [1, 2', {"is_truncated": True}, "the answer was cut before the end of "
         "its JSON; raise its limit on tokens if there is one, or accept the JSON so far with "
         "allow_incomplete_json"),
    ],
)  # fmt: skip
def test_why_there_is_no_json(text, fields, told):
    with pytest.raises((NoJsonFoundError, IncompleteJsonError)) as caught:
        extract_json(text, **({"refusal": None, "is_truncated": False} | fields))
    partial = fields.get("refusal", text)
    assert caught.value.partial == partial
    if told is None:
        assert str(caught.value).startswith("the answer cannot be read as JSON: ")
    else:
        assert str(caught.value) == told


@pytest.mark.parametrize(
    ("text", "is_truncated", "is_end_known", "accepts_part", "value"),
    [
        ('{"a": 1}', False, True, False, {"a": 1}),
        ('{"a": 1}', True, True, False, {"a": 1}),
        ('{"a": 1}', True, False, False, {"a": 1}),
        ('{"a": 1', False, True, False, {"a": 1}),
        ('{"a": 1', False, True, True, {"a": 1}),
        ('{"a": 1', False, False, True, None),
        ('{"a": 1', True, True, True, None),
        ("17", False, True, False, 17),
        ("17", True, True, False, None),
        ("17", False, False, False, 17),
        ("[]", True, True, False, []),
        ('{"a": 1}, {"b": 2}', True, True, False, [{"a": 1}, {"b": 2}]),
        ('{"a": 1} then {"b": ', True, True, False, None),
    ],
)
def test_what_is_whole_where_a_text_is_cut(text, is_truncated, is_end_known, accepts_part, value):
    try:
        found = extract_json(
            text, refusal=None, is_truncated=is_truncated, is_end_known=is_end_known,
            accepts_part=accepts_part,
        ).value  # fmt: skip
    except IncompleteJsonError as error:
        assert error.partial == text
        found = None
    assert found == value
