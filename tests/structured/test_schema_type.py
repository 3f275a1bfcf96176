"""JSON schemas of users as types of answers: what they accept, and what is refused by name."""

from __future__ import annotations

import json

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


BOUNDED = [
    # A keyword on its type: the bound, texts that are within it, and texts that are not.
    ("integer", "minimum", 2, ["2", "3"], ["1"]),
    ("integer", "maximum", 2, ["2", "1"], ["3"]),
    ("integer", "exclusiveMinimum", 2, ["3"], ["2"]),
    ("integer", "exclusiveMaximum", 2, ["1"], ["2"]),
    ("integer", "multipleOf", 2, ["4"], ["3"]),
    ("number", "minimum", 1.5, ["1.5"], ["1.4"]),
    ("number", "maximum", 1.5, ["1.5"], ["1.6"]),
    ("number", "exclusiveMinimum", 1.5, ["1.6"], ["1.5"]),
    ("number", "exclusiveMaximum", 1.5, ["1.4"], ["1.5"]),
    ("number", "multipleOf", 0.5, ["1.5"], ["1.4"]),
    ("string", "minLength", 2, ['"ab"'], ['"a"']),
    ("string", "maxLength", 2, ['"ab"'], ['"abc"']),
    ("string", "pattern", "^a", ['"ab"'], ['"ba"']),
    ("array", "minItems", 2, ["[1, 2]"], ["[1]"]),
    ("array", "maxItems", 2, ["[1, 2]"], ["[1, 2, 3]"]),
]
KINDS = {"string", "integer", "number", "boolean", "null", "array", "object"}
OWN = {
    **{kind: {row[1] for row in BOUNDED if row[0] == kind} for kind in KINDS},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "array": {"minItems", "maxItems", "items"},
    "object": {"properties", "required", "additionalProperties"},
}


def read(schema, text):
    """The value, or where the text does not fit."""
    try:
        return result_type(schema).parse(text)
    except ResponseValidationError as error:
        return error.path


@pytest.mark.parametrize(("kind", "keyword", "bound", "within", "beyond"), BOUNDED)
def test_a_bound_is_told_and_checked(kind, keyword, bound, within, beyond):
    schema = {"type": kind, keyword: bound, "description": "some"}
    found = result_type(schema)
    told = found.schema["properties"]["answer"]
    if found.is_strict:
        text = json.dumps({keyword: bound})
        assert told == {"type": kind, "description": f"some {text}"}
    else:  # a list of anything
        assert told == {**schema}
    for text in within:
        assert found.parse(text) == json.loads(text)
    for text in beyond:
        assert read(schema, text) == "$.answer"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_type_has_its_own_keywords_and_no_others(kind):
    values = {row[1]: row[2] for row in BOUNDED} | {
        "format": "word", "items": {}, "properties": {"a": {}}, "required": [],
        "additionalProperties": False,
    }  # fmt: skip
    for keyword, value in values.items():
        schema = {"type": kind, keyword: value}
        if keyword in OWN[kind]:
            type_of_schema(schema)
        else:
            assert refusal(schema) == f"has {keyword!r}, which cannot be checked - at `$`"
    words = ["title", "default", "examples", "deprecated", "$schema", "$id", "$comment",
             "definitions", "$defs"]  # fmt: skip
    for word in words:
        type_of_schema({"type": kind, word: {}})


def refusal(schema):
    with pytest.raises(InvalidParameterError) as caught:
        type_of_schema(schema)
    return str(caught.value).removeprefix("the JSON schema ")


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        (True, {}),
        ({}, {"1": 1, '{"answer": [null]}': [None]}),
        ({"type": "string"}, {'"x"': "x", "1": "$.answer"}),
        ({"type": "integer"}, {"1": 1, "1.5": "$.answer", "true": "$.answer"}),
        ({"type": "number"}, {"1": 1, "1.5": 1.5, '"x"': "$.answer"}),
        ({"type": "boolean"}, {"true": True, "2": "$.answer"}),
        ({"type": "null"}, {"null": None, "0": "$.answer"}),
        ({"type": ["string", "null"]}, {'"x"': "x", "null": None, "1": "$.answer"}),
        ({"type": ["string", "integer"], "minLength": 2, "maximum": 5},
         {'"ab"': "ab", '"a"': "$.answer", "5": 5, "6": "$.answer"}),
        ({"type": ["array", "null"], "items": {"type": "integer"}},
         {"[1]": [1], "null": None, '["x"]': "$.answer[0]"}),
        ({"const": 1}, {"1": 1, "2": "$.answer"}),
        ({"const": "a", "type": "string"}, {'"a"': "a", '"b"': "$.answer"}),
        ({"enum": ["a", 2], "type": ["string", "integer"]}, {'"a"': "a", "2": 2, "3": "$.answer"}),
        ({"oneOf": [{"type": "integer"}, {"const": "x"}]}, {"1": 1, '"x"': "x", '"y"': "$.answer"}),
        ({"anyOf": [{"type": "null"}, {"type": "null"}]}, {"null": None, "1": "$.answer"}),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
         {"[[1]]": [[1]], '[[1], ["x"]]': "$.answer[1][0]"}),
        ({"type": "array", "items": True}, {"[1, null]": [1, None]}),
        ({"type": "object"}, {'{"a": 1}': {"a": 1}}),
        ({"type": "object", "additionalProperties": False}, {'{"a": 1}': {"a": 1}, "[]": "$"}),
        ({"type": "object", "additionalProperties": {"type": "integer"}},
         {'{"a": 1}': {"a": 1}, '{"a": "x"}': "$[...]"}),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}},
         {'{"a": "x"}': "$[...]"}),
        ({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]},
         {'{"b": "x"}': {"b": "x"}, '{"a": 1, "b": "x", "c": 2}': {"a": 1, "b": "x"},
          '{"a": null, "b": "x"}': {"b": "x"}, '{"a": 1}': "$", '{"a": "x", "b": "y"}': "$.a"}),
        ({"properties": {"a": {"type": "integer"}}, "additionalProperties": True},
         {"{}": {}, '{"a": 1}': {"a": 1}}),
        ({"type": "object", "properties": {"a": {"$ref": "#/definitions/A"}},
          "definitions": {"A": {"type": "array", "items": {"$ref": "#/definitions/B"}},
                          "B": {"type": "integer", "minimum": 1}}},
         {'{"a": [1]}': {"a": [1]}, '{"a": [0]}': "$.a[0]"}),
        ({"properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/A"}},
          "$defs": {"A": {"type": "integer"}}}, {'{"a": 1, "b": 2}': {"a": 1, "b": 2}}),
    ],
)  # fmt: skip
def test_a_schema_is_read_as_it_says(schema, texts):
    type_of_schema({"properties": {"p": schema}} if schema is True else schema)
    for text, value in texts.items():
        assert read(schema, text) == value, text


def test_words_are_told_and_those_that_are_none_are_not():
    schema = {"properties": {
        "a": {"$ref": "#/$defs/A", "description": "here"}, "b": {"$ref": "#/$defs/A"},
        "c": {"type": "string", "format": "color", "description": "of it"},
        "d": {"enum": ["x"], "description": "one"}, "e": {"type": "array", "items": {"type": "string"}},
        "f": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "or none"},
        "g": {"type": "integer", "description": 5},
    }, "required": list("abcdefg"), "$defs": {"A": {"type": "integer", "description": "there"}}}  # fmt: skip
    assert result_type(schema).schema == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "here"},
            "b": {"type": "integer", "description": "there"},
            "c": {"type": "string", "description": 'of it {"format": "color"}'},
            "d": {"enum": ["x"], "type": "string", "description": "one"},
            "e": {"type": "array", "items": {"type": "string"}},
            "f": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "or none"},
            "g": {"type": "integer"},
        },
        "required": list("abcdefg"),
        "additionalProperties": False,
    }
    assert "description" not in result_type({"properties": {"a": {"type": "string"}}}).schema


def within(part):
    return {"properties": {"p": {"type": "array", "items": part}}}


NO_TYPE = "not one of JSON's - at `$.properties.p.items`"


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (False, "has False in place of a schema - at `$.properties.p.items`"),
        ({"type": "text"}, f"has the type 'text', {NO_TYPE}"),
        ({"type": 5}, f"has the type 5, {NO_TYPE}"),
        ({"description": "any"}, f"has the type None, {NO_TYPE}"),
        ({"type": ["text"]}, f"has the type 'text', {NO_TYPE}"),
        ({"type": []}, "names no schema to choose from - at `$.properties.p.items`"),
        ({"anyOf": []}, "names no schema to choose from - at `$.properties.p.items`"),
        ({"oneOf": {}}, "is not a list - at `$.properties.p.items.oneOf`"),
        ({"anyOf": [{"type": "string"}, {"type": "x"}]},
         "has the type 'x', not one of JSON's - at `$.properties.p.items.anyOf[1]`"),
        ({"anyOf": [{"type": "string"}], "minLength": 1},
         "has 'minLength', which cannot be checked - at `$.properties.p.items`"),
        ({"enum": []}, "allows no value - at `$.properties.p.items`"),
        ({"enum": 5}, "allows only 5, which is not a list - at `$.properties.p.items`"),
        ({"enum": ["a"], "minLength": 1},
         "has 'minLength', which cannot be checked - at `$.properties.p.items`"),
        ({"const": "a", "z": 1, "pattern": "a"},
         "has 'pattern', which cannot be checked - at `$.properties.p.items`"),
        ({"$ref": "#/$defs/X"},
         "refers to '#/$defs/X', which is not there - at `$.properties.p.items`"),
        ({"$ref": "X"}, "refers to 'X', which is not there - at `$.properties.p.items`"),
        ({"$ref": "#/$defs/X", "type": "string"},
         "has 'type', which cannot be checked - at `$.properties.p.items`"),
        ({"properties": []}, "is not an object - at `$.properties.p.items.properties`"),
        ({"properties": {"a": {}}, "required": {}},
         "is not a list - at `$.properties.p.items.required`"),
        ({"properties": {"a": {}}, "additionalProperties": {}},
         "has properties and a schema for others, which cannot be checked - at "
         "`$.properties.p.items`"),
        ({"properties": {"a": {"type": "x"}}},
         "has the type 'x', not one of JSON's - at `$.properties.p.items.properties.a`"),
        ({"type": "object", "additionalProperties": {"type": "x"}},
         "has the type 'x', not one of JSON's - at `$.properties.p.items.additionalProperties`"),
        ({"type": "array", "items": {"type": "x"}},
         "has the type 'x', not one of JSON's - at `$.properties.p.items.items`"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_and_where(part, problem):
    assert refusal(within(part)) == problem


def test_the_place_of_a_problem_within_a_definition_names_the_definition():
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"type": "x"}}}}
    assert refusal(schema) == "has the type 'x', not one of JSON's - at `$(A).items`"
    loop = {"A": {"type": "array", "items": {"$ref": "#/$defs/B"}}, "B": {"$ref": "#/$defs/A"}}
    told = "refers to itself, which cannot be checked - at `$(A).items(B)`"
    assert refusal({"$ref": "#/$defs/A", "$defs": loop}) == told
    assert refusal({"$ref": "#/$defs/A", "$defs": []}) == (
        "refers to '#/$defs/A', which is not there - at `$`"
    )
    assert refusal([1]) == "a JSON schema is an object, not [1]"
