"""Functions as tools: what is read of their signatures and docstrings, and calls bound to them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import pickle
from dataclasses import dataclass
from typing import Annotated

import msgspec
import pydantic
import pytest
from sent_bodies import CHAT, CLAUDE_WIRE, asked, body_of

from minillmlib import (
    ChatNode,
    CompletionParameters,
    InvalidParameterError,
    Message,
    ToolArgumentError,
    ToolCall,
    ToolDefinition,
)


class Unit(enum.Enum):
    METRIC = "m"
    IMPERIAL = "i"


@dataclass
class Place:
    lat: Annotated[float, pydantic.Field(ge=-90)]
    lon: float = 0.0


class Edit(pydantic.BaseModel):
    old: str
    new: str = ""


def forecast(place: Place, day: dt.date, unit: Unit = Unit.METRIC, *, hours: int = 1) -> str:
    """The weather."""
    return f"{place.lat} {day:%d.%m.%Y} {unit.name} {hours}"


def call(arguments, name="forecast"):
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return ToolCall(id="c", name=name, arguments=text)


def parameters(function):
    return ToolDefinition.from_function(function).parameters


def test_a_call_has_the_types_of_the_signature():
    made = call({"place": {"lat": 59.9}, "day": "2026-02-10", "unit": "i", "hours": "2"})
    bound = made.bind(forecast)
    assert bound == {
        "place": Place(59.9), "day": dt.date(2026, 2, 10), "unit": Unit.IMPERIAL, "hours": 2,
    }  # fmt: skip
    assert forecast(**bound) == "59.9 10.02.2026 IMPERIAL 2"


class Window(msgspec.Struct):
    width: int | msgspec.UnsetType = msgspec.UNSET


def test_what_may_be_unset_is_told_as_what_it_is_when_it_is_set():
    def resize(window: Window):
        pass

    resize.__annotations__ = {"window": Window}
    assert parameters(resize)["$defs"]["Window"]["properties"] == {"width": {"type": "integer"}}
    assert call({"window": {"width": "3"}}, "resize").bind(resize) == {"window": Window(3)}
    assert call({"window": {}}, "resize").bind(resize) == {"window": Window()}


def test_types_of_one_name_have_definitions_of_their_own():
    one, other = (msgspec.defstruct("Place", [("x", kind)]) for kind in (int, str))

    def compare(one, other):
        pass

    compare.__annotations__ = {"one": one, "other": other}
    made = parameters(compare)
    assert made["properties"] == {
        "one": {"$ref": "#/$defs/Place"}, "other": {"$ref": "#/$defs/Place_2"},
    }  # fmt: skip
    kinds = [made["$defs"][name]["properties"]["x"]["type"] for name in ("Place", "Place_2")]
    assert kinds == ["integer", "string"]


@pytest.mark.parametrize("null", [{}, {"unit": None, "hours": None}, {"hours": None}])
def test_a_null_reads_as_absent_where_there_is_a_default(null):
    bound = call({"place": {"lat": 1, "lon": None}, "day": "20260210", **null}).bind(forecast)
    assert bound == {"place": Place(1.0), "day": dt.date(2026, 2, 10)}


@pytest.mark.parametrize(
    ("arguments", "path", "words"),
    [
        ({"day": "2026-02-10"}, "$", "missing required field `place`"),
        ({"place": {"lat": -91}, "day": "2026-02-10"}, "$.place.lat", ">= -90"),
        ({"place": {}, "day": "2026-02-10"}, "$.place", "`lat`"),
        ({"place": {"lat": 1}, "day": "soon"}, "$.day", "date"),
        ({"place": {"lat": 1}, "day": None}, "$.day", "date"),
        ({"place": {"lat": 1}, "day": "2026-02-10", "unit": "k"}, "$.unit", '"m", "i"'),
        ({"place": {"lat": 1}, "day": "2026-02-10", "town": "x"}, "$", "unknown field `'town'`"),
        ('{"place": ', "$", "not JSON"),
        ("[1]", "$", "object"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_an_error_for_the_model(arguments, path, words):
    with pytest.raises(ToolArgumentError) as caught:
        call(arguments).bind(forecast)
    assert caught.value.path == path
    assert words in str(caught.value)
    assert "forecast" in str(caught.value)
    assert not caught.value.is_retryable
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == (str(caught.value), path)


def test_every_wrong_argument_is_named_at_once():
    with pytest.raises(ToolArgumentError) as caught:
        call({"place": {"lat": "north"}, "unit": "k"}).bind(forecast)
    for place in ("$.place.lat", "`day`", "$.unit"):
        assert place in str(caught.value)


@pytest.mark.parametrize("arguments", ["", "{}", "null"])
def test_a_call_without_arguments_is_bound(arguments):
    def now() -> str:
        """The time."""

    assert call(arguments, "now").bind(now) == {}


def pay(amount: decimal.Decimal, to: list[Edit]):
    """Pay."""


def test_decimals_keep_their_digits_and_models_are_made():
    bound = call(
        '{"amount": 0.10000000000000000001, "to": [{"old": "a", "new": null}]}', "pay"
    ).bind(pay)
    assert bound == {"amount": decimal.Decimal("0.10000000000000000001"), "to": [Edit(old="a")]}


def defaults(
    count: int = pydantic.Field(3, ge=1, description="how many"),
    tags: list[str] = pydantic.Field(default_factory=list),  # noqa: B008
    at: Annotated[dt.date, pydantic.Field(description="when")] = dt.date(2026, 1, 2),
    unit: Unit = Unit.METRIC,
    place: Place = Place(1.0),  # noqa: B008
):
    """Do."""


def test_defaults_of_any_type_are_told_and_those_of_pydantic_filled_in():
    parts = parameters(defaults)["properties"]
    assert parts["count"] == {
        "type": "integer", "minimum": 1, "description": "how many", "default": 3,
    }  # fmt: skip
    assert parts["tags"]["default"] == []
    assert parts["at"] == {
        "type": "string", "format": "date", "description": "when", "default": "2026-01-02",
    }  # fmt: skip
    assert (parts["unit"]["default"], parts["place"]["default"]) == ("m", {"lat": 1.0, "lon": 0.0})
    assert parameters(defaults)["required"] == []
    assert call("{}").bind(defaults) == {"count": 3, "tags": []}
    with pytest.raises(ToolArgumentError, match=r"\$\.count"):
        call('{"count": 0}').bind(defaults)


# Callables of every kind.


class Station:
    """A tide gauge."""

    def __init__(self, key: str) -> None:
        self.key = key

    def level(self, hours: int = 1) -> str:
        """The level."""
        return f"{self.key} {hours}"

    @classmethod
    def of(cls, city: str) -> str:
        """One of a city."""
        return f"{cls.__name__} {city}"

    @staticmethod
    def count(unit: Unit) -> str:
        """How many."""
        return unit.name

    def __call__(self, day: dt.date) -> str:
        """Look it up.

        Args:
            day: Of which day.
        """
        return f"{self.key} {day.year}"


def secret(key: str, city: str, *, days: int = 1) -> str:
    """The weather of a city."""
    return f"{key} {city} {days}"


@functools.wraps(secret)
def wrapped(*args, **kwargs):
    return secret(*args, **kwargs)


async def later(city: str) -> str:
    """Later."""


@pytest.mark.parametrize(
    ("function", "name", "description", "names", "arguments", "result"),
    [
        (Station("k").level, "level", "The level.", ["hours"], {"hours": "2"}, "k 2"),
        (Station.of, "of", "One of a city.", ["city"], {"city": "Oslo"}, "Station Oslo"),
        (Station.count, "count", "How many.", ["unit"], {"unit": "i"}, "IMPERIAL"),
        (Station("k"), "Station", "Look it up.", ["day"], {"day": "2026-02-10"}, "k 2026"),
        (functools.partial(secret, "k"), "secret", "The weather of a city.", ["city", "days"],
         {"city": "Oslo"}, "k Oslo 1"),
        (functools.partial(secret, key="k"), "secret", "The weather of a city.", ["city", "days"],
         {"city": "Oslo", "days": None}, "k Oslo 1"),
        (functools.partial(functools.partial(secret, "k"), days=3), "secret",
         "The weather of a city.", ["city"], {"city": "Oslo"}, "k Oslo 3"),
        (functools.partial(Station("k").level, hours=4), "level", "The level.", [], {}, "k 4"),
        (functools.partial(Station("k")), "Station", "Look it up.", ["day"], {"day": "20260210"},
         "k 2026"),
        (wrapped, "secret", "The weather of a city.", ["key", "city", "days"],
         {"key": "k", "city": "Oslo"}, "k Oslo 1"),
    ],
)  # fmt: skip
def test_any_callable_is_a_tool(function, name, description, names, arguments, result):
    tool = ToolDefinition.from_function(function)
    assert (tool.name, tool.description) == (name, description)
    assert list(tool.parameters["properties"]) == names
    assert function(**call(arguments, name).bind(function)) == result


def test_coroutine_functions_are_tools():
    assert ToolDefinition.from_function(later).parameters["required"] == ["city"]


def positional(city: str, /):
    """Do."""


def test_a_parameter_without_a_name_is_refused():
    with pytest.raises(InvalidParameterError, match="'city'.*needs named parameters"):
        ToolDefinition.from_function(positional)


# Docstrings.


def documented(doc):
    def tool(query: str, top_k: int = 5):
        pass

    tool.__doc__ = doc
    made = ToolDefinition.from_function(tool)
    parts = made.parameters["properties"]
    return made.description, *(parts[name].get("description") for name in ("query", "top_k"))


GOOGLE = """Search the
    base.

    More than needed.

    {heading}
        query (str, optional): What to look for
            in the base: important ones

            also in a second paragraph.
        top_k: How many

    Returns:
        query: not this one
    """
NUMPY = """Search the base.

    Parameters
    ----------
    query : str
        What to look for
        in the base: important ones

        also in a second paragraph.
    top_k : int, optional
        How many

    Returns
    -------
    query : str
        not this one
    """
SPHINX = """Search the base.

    :param query: What to look for
        in the base: important ones

        also in a second paragraph.
    :type query: str
    :param int top_k: How many
    :returns: not this one
    """
EPYTEXT = """Search the base.
    @param query: What to look for in the base: important ones
        also in a second paragraph.
    @param top_k: How many
    @return: not this one
    """
FOUND = (
    "Search the base.",
    "What to look for in the base: important ones also in a second paragraph.",
    "How many",
)


@pytest.mark.parametrize(
    "doc",
    [GOOGLE.format(heading=heading) for heading in ("Args:", "Arguments:", "Parameters:", "Keyword Args:")]
    + [NUMPY, NUMPY.replace("----------", "--------------"), SPHINX, EPYTEXT],
)  # fmt: skip
def test_docstrings_of_every_style_describe_the_parameters(doc):
    assert documented(doc) == FOUND


@pytest.mark.parametrize(
    ("doc", "found"),
    [
        ("Args:\n    query: What.\n    top_k: How many.", (None, "What.", "How many.")),
        ("Search.\n\nArgs:\n    query: One of:\n        fast: quick\n        deep: all", ("Search.", "One of: fast: quick deep: all", None)),
        ("Search.\n\nParameters\n----------\nquery, top_k\n    Both.", ("Search.", "Both.", "Both.")),
        ("Search.\n\nArgs:\n    query (Dict[str, List[int]]): What.", ("Search.", "What.", None)),
        ("Search.\n\nArgs:\n  `query`: What.\n  **top_k: How many.", ("Search.", "What.", "How many.")),
        ("Search.\n:param query: What.", ("Search.", "What.", None)),
        ("Note: this\n  is text.", ("Note: this is text.", None, None)),
        ("Search.\n\nExample:\n    query: not this one", ("Search.", None, None)),
        ("Search.\n\nArgs:\n\nquery: not this one", ("Search.", None, None)),
        ("Search.\n\nArgs:\n    query:\n        On a line\n        of its own.\nRaises:\n    top_k: no", ("Search.", "On a line of its own.", None)),
        ("", (None, None, None)),
    ],
)  # fmt: skip
def test_odd_docstrings(doc, found):
    assert documented(doc) == found


def test_a_description_beside_the_type_comes_before_the_docstring():
    def tool(query: Annotated[str, "beside"], top_k: Annotated[int, pydantic.Field(ge=1)]):
        """Search.

        Args:
            query: in the docstring
            top_k: how many
        """

    tool.__annotations__ = {
        "query": Annotated[str, "beside"], "top_k": Annotated[int, pydantic.Field(ge=1)],
    }  # fmt: skip
    parts = parameters(tool)["properties"]
    assert parts["query"]["description"] == "beside"
    assert parts["top_k"] == {"type": "integer", "minimum": 1, "description": "how many"}


# Strict tools.


def optional(a: Annotated[int, pydantic.Field(ge=1)], b: str = "x", place: Place | None = None):
    """Do."""


@pytest.mark.parametrize("provider", [*CHAT, CLAUDE_WIRE])
def test_a_strict_tool_goes_out_in_the_form_of_strict_modes(provider):
    tool = msgspec.structs.replace(ToolDefinition.from_function(optional), strict=True)
    (sent,) = body_of(provider, asked("u"), CompletionParameters(tools=[tool]))["tools"]
    sent = sent.get("function", sent)
    schema = sent.get("parameters") or sent["input_schema"]
    assert sent["strict"] is True
    assert schema["required"] == ["a", "b", "place"]
    text = msgspec.json.encode(schema).decode()
    assert all(word not in text for word in ('"default"', '"minimum":', "$ref", "title"))
    assert '{\\"minimum\\": 1}' in text, "the bound is told in words"
    assert schema["properties"]["b"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schema["properties"]["place"]["anyOf"][0]["additionalProperties"] is False
    assert call({"a": 1, "b": None, "place": None}).bind(optional) == {"a": 1, "place": None}


NODE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        "required": ["kids"], "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
         "additionalProperties": False},
        {**NODE, "$defs": {"Node": NODE}},
        {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
    ],
)  # fmt: skip
def test_a_schema_that_is_strict_already_stays_as_it_is(schema):
    assert ToolDefinition(name="f", parameters=schema, strict=True).parameters == schema


def test_a_schema_of_the_callers_own_is_made_strict():
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
              "required": ["a"]}  # fmt: skip
    assert ToolDefinition(name="f", parameters=schema).parameters == schema
    assert ToolDefinition(name="f", parameters=schema, strict=True).parameters == {
        "type": "object",
        "properties": {"a": {"type": "string"},
                       "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "required": ["a", "b"], "additionalProperties": False,
    }  # fmt: skip


def with_mapping(a: dict[str, int]):
    """Do."""


def with_anything(a: list):
    """Do."""


LOOP = {"$ref": "#/$defs/A"}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (parameters(with_mapping), "a mapping of any keys"),
        (parameters(with_anything), "without one type of items"),
        ({"properties": {"a": {"not": {}}}}, "it has not"),
        ({"properties": {"a": LOOP}, "$defs": {"A": LOOP}}, "lead nowhere"),
        ({"properties": {"a": {"$ref": "#/definitions/A"}}}, "#/definitions/A"),
        ({"properties": {"a": {}}}, "values of any type"),
        ({"properties": {"a": {"enum": [{"x": 1}]}}}, "no plain values"),
        ({"properties": ["a"]}, "no JSON schema"),
    ],
)
def test_a_strict_tool_without_a_strict_form_is_refused_by_name(parts, words):
    with pytest.raises(InvalidParameterError) as caught:
        ToolDefinition(name="look", parameters=parts, strict=True)
    assert words in str(caught.value)
    assert "look" in str(caught.value)


def test_the_text_of_an_error_can_go_back_to_the_model():
    made = Message.assistant("", [call({"day": "soon"})])
    _, node = ChatNode.from_messages([Message.user("u"), made])
    try:
        node.tool_calls[0].bind(forecast)
    except ToolArgumentError as error:
        node = node.add_tool_result("c", str(error), is_error=True)
    assert isinstance(node.message, Message)
    sent = body_of(CLAUDE_WIRE, node)["messages"][-1]["content"][0]
    assert sent["is_error"] is True
    assert "`place`" in str(sent["content"])
