"""JSON schemas of users as types of answers: what they accept, and what is refused by name."""

from __future__ import annotations

import pytest

from minillmlib import InvalidParameterError, ResponseValidationError
from minillmlib.structured.result_type import ResultType
from minillmlib.structured.schema_type import type_of_schema

REVIEW = {
    "title": "Review",
    "description": "A judgement.",
    "type": "object",
    "properties": {
        "label": {"enum": ["good", "bad"], "description": "the mood"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "why": {"type": ["string", "null"], "maxLength": 5},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "maxItems": 2},
    },
    "required": ["label"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "string", "pattern": "^[a-z]+$"}},
}


def result_type(schema) -> ResultType:
    return ResultType(type_of_schema(schema))


def test_the_model_gets_the_schema_in_its_strict_form():
    found = result_type(REVIEW)
    assert found.is_strict
    assert found.schema["description"] == "A judgement."
    label = {"enum": ["good", "bad"], "type": "string", "description": "the mood"}
    assert found.schema["properties"]["label"] == label
    assert found.schema["required"] == ["label", "score", "why", "tags"]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (REVIEW, '{"label": "good", "why": null}', {"label": "good", "why": None}),
        (REVIEW, '{"label": "bad", "score": 1, "tags": ["a"]}', {"label": "bad", "score": 1, "tags": ["a"]}),
        ({"enum": ["a", 1, None]}, '{"answer": 1}', 1),
        ({"const": "x"}, '{"answer": "x"}', "x"),
        ({"type": "object"}, '{"a": [1, {"b": null}]}', {"a": [1, {"b": None}]}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1}', {"a": 1}),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, '{"answer": "x"}', "x"),
        ({"type": "array"}, '{"answer": [1, "x"]}', [1, "x"]),
        ({"type": "object", "properties": {"d": {"type": "string", "format": "date"}}},
         '{"d": "2026-01-01"}', {"d": "2026-01-01"}),
        ({"properties": {"my key": {"type": "boolean"}, "class": {}}}, '{"my key": true, "class": 1}',
         {"my key": True, "class": 1}),
    ],
)  # fmt: skip
def test_values_are_plain_json(schema, text, value):
    assert result_type(schema).parse(text) == value


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"label": "ok"}', "$.label"),
        ('{"score": 1}', "$"),
        ('{"label": "bad", "score": 2}', "$.score"),
        ('{"label": "bad", "why": "because"}', "$.why"),
        ('{"label": "bad", "tags": ["A"]}', "$.tags[0]"),
        ('{"label": "bad", "tags": ["a", "b", "c"]}', "$.tags"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_its_place(text, path):
    with pytest.raises(ResponseValidationError, match="does not fit the schema") as caught:
        result_type(REVIEW).parse(text)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ([], "a JSON schema is an object"),
        ({"type": "text"}, "has the type 'text', not one of JSON's - at `$`"),
        ({"type": "string", "if": {}}, "has 'if', which cannot be checked - at `$`"),
        ({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
         "has 'uniqueItems', which cannot be checked - at `$.properties.a`"),
        ({"type": "string", "minimum": 1}, "has 'minimum'"),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}},
         "a schema for others"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
         "refers to itself"),
        ({"$ref": "https://example.com/x.json"}, "which is not there"),
        ({"$ref": 5}, "which is not there"),
        ({"enum": []}, "allows no value"),
        ({"enum": 5}, "which is not a list"),
        ({"anyOf": []}, "names no schema"),
        ({"anyOf": {}}, "is not a list"),
        ({"properties": 5}, "is not an object"),
        ({"type": "object", "properties": {"a": False}}, "in place of a schema"),
        ({"type": "object", "properties": {"a": {}}, "required": "a"}, "is not a list"),
        ({"type": "string", "minLength": "x"}, "a wrong bound"),
        ({"type": "string", "pattern": "("}, "a wrong bound"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_refused_by_name(schema, problem):
    with pytest.raises(InvalidParameterError) as caught:
        type_of_schema(schema)
    assert problem in str(caught.value)
