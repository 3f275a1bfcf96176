"""One engine for results and tools: each annotation is told, checked and converted, or refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, make_dataclass
from functools import partial
from typing import Annotated, TypedDict

import pydantic
import pytest
from annotation_table import TABLE, Defaults, Expression, PlaceStruct, Plan
from cost_of_work import steps_of

from minillmlib import (
    InvalidParameterError,
    NodeCompletionParameters,
    ResponseValidationError,
    ToolArgumentError,
    ToolCall,
    ToolDefinition,
)

HELD = [row for row in TABLE if not row.refused]
REFUSED = [row for row in TABLE if row.refused]


def ids(rows):
    return [str(row.kind).replace("annotation_table.", "")[:60] for row in rows]


def tool_with(kind):
    def tool(value):
        """A tool."""

    tool.__annotations__ = {"value": kind}
    return tool


def told(kind):
    return NodeCompletionParameters().expecting(kind).result_type.schema


def read(kind, text):
    return NodeCompletionParameters().expecting(kind).result_type.parse(text)


def bound(kind, text):
    call = ToolCall(id="c", name="tool", arguments=f'{{"value": {text}}}')
    return call.bind(tool_with(kind))["value"]


def test_the_table_has_sixty_annotations():
    assert len(TABLE) >= 60


@pytest.mark.parametrize("row", HELD, ids=ids(HELD))
def test_an_annotation_is_told_to_the_model_in_results_and_tools(row):
    tool = ToolDefinition.from_function(tool_with(row.kind))
    for schema in (told(row.kind), tool.parameters):
        text = json.dumps(schema)
        assert [word for word in row.told if word not in text] == []
        assert schema["type"] == "object"
        references_lead_somewhere(schema, schema)


def references_lead_somewhere(schema, root):
    for key, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if key == "$ref":
            assert root["$defs"][value.removeprefix("#/$defs/")]
        elif isinstance(value, dict | list):
            references_lead_somewhere(value, root)


@pytest.mark.parametrize("row", HELD, ids=ids(HELD))
def test_an_answer_and_an_argument_are_converted_alike(row):
    is_wrapped = list(told(row.kind).get("properties", ())) == ["answer"]
    for text, value in row.good:
        found = [read(row.kind, text), bound(row.kind, text)]
        if is_wrapped:
            found.append(read(row.kind, f'{{"answer": {text}}}'))
        for one in found:
            assert one == value, text
            assert shape_of(one) == shape_of(value), "also the types of what is within"


def shape_of(value):
    return repr(value).replace("TzInfo(0)", "datetime.timezone.utc")  # pydantic's own


@pytest.mark.parametrize("row", HELD, ids=ids(HELD))
def test_an_annotation_within_classes_and_lists_is_held_as_well(row):
    inner = make_dataclass("Inner", [("value", row.kind)])
    outer = make_dataclass("Outer", [("parts", dict[str, list[inner]])])
    words = json.dumps(told(outer))
    assert [word for word in row.told if word not in words] == []
    for text, value in row.good:
        for found in (read(outer, nested(text)), bound(outer, nested(text))):
            assert found.parts == {"a": [inner(value)]}
    for text in row.bad:
        with pytest.raises(ResponseValidationError) as wrong:
            read(outer, nested(text))
        assert wrong.value.path.startswith("$.parts[...][0].value")
        with pytest.raises(ToolArgumentError) as caught:
            bound(outer, nested(text))
        assert caught.value.path.startswith("$.value.parts[...][0].value")


def nested(text):
    return f'{{"parts": {{"a": [{{"value": {text}}}]}}}}'


@pytest.mark.parametrize("row", HELD, ids=ids(HELD))
def test_what_does_not_fit_is_refused_with_its_place(row):
    for text in row.bad:
        with pytest.raises(ResponseValidationError) as wrong:
            read(row.kind, text)
        assert wrong.value.path.startswith("$")
        assert "``" not in str(wrong.value)
        with pytest.raises(ToolArgumentError) as caught:
            bound(row.kind, text)
        assert caught.value.path.startswith("$.value"), text
        assert "``" not in str(caught.value)


@pytest.mark.parametrize("row", REFUSED, ids=ids(REFUSED))
def test_what_cannot_be_told_and_checked_is_refused_by_name(row):
    with pytest.raises(InvalidParameterError) as caught:
        told(row.kind)
    assert row.refused in str(caught.value)
    with pytest.raises(InvalidParameterError) as caught:
        ToolDefinition.from_function(tool_with(row.kind))
    assert row.refused in str(caught.value)
    assert "value" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "path"),
    [('{"answer": 5}', "$.answer"), ("{}", "$"), ('{"other": 1}', "$"), ('{"lat": 99}', "$.lat"),
     ('{"answer": {"lat": 99}}', "$.answer.lat")],
)  # fmt: skip
def test_a_union_of_classes_may_stand_without_its_wrapper_but_nothing_else_passes(text, path):
    kind = PlaceStruct | Defaults
    assert read(kind, '{"lat": 1}') == read(kind, '{"answer": {"lat": 1}}') == PlaceStruct(1.0)
    with pytest.raises(ResponseValidationError) as wrong:
        read(kind, text)
    assert wrong.value.path == path


@dataclass
class Answered:
    answer: int


def test_a_class_with_a_member_of_the_wrappers_name_is_read_both_ways():
    for text in ('{"answer": 1}', '{"answer": {"answer": 1}}'):
        assert read(Answered | Plan, text) == Answered(1)


class Filled(TypedDict):
    tags: Annotated[list[str], pydantic.Field(default=[])]


def test_defaults_of_pydantic_are_not_shared():
    first, second = read(Filled, "{}"), read(Filled, "{}")
    first["tags"].append("a")
    assert second == {"tags": []}


def test_unions_that_nest_and_do_not_fit_take_linear_time():
    def work(depth):
        text = '"x"'
        for _ in range(depth):
            text = f'{{"left": 1, "right": {text}, "op": "add"}}'
        with pytest.raises(ResponseValidationError):
            read(Expression, text)

    assert steps_of(partial(work, 80)) < 3 * steps_of(partial(work, 40))
