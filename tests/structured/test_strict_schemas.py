"""Schemas in the form of strict modes, and values that are fitted to a schema."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from minillmlib import InvalidParameterError, ToolDefinition
from minillmlib.structured.schemas import count_properties, fit_to_schema


def strict(part, **more):
    """The strict form of one property `p`, which is required."""
    whole = {"properties": {"p": part}, "required": ["p"], **more}
    made = ToolDefinition(name="f", parameters=whole, strict=True).parameters
    assert {key: made[key] for key in made if key != "properties"} == {
        "type": "object", "required": ["p"], "additionalProperties": False,
    }  # fmt: skip
    (one,) = made["properties"].values()
    return one


TEXT, WHOLE, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
CLOSED = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def closed(**properties):
    return CLOSED | {"properties": properties, "required": list(properties)}


@pytest.mark.parametrize(
    ("given", "form"),
    [
        (TEXT, TEXT),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        (TEXT | {"title": "T", "default": "x", "examples": ["y"], "deprecated": True}, TEXT),
        ({"enum": ["a", "b"]}, {"enum": ["a", "b"], "type": "string"}),
        ({"enum": ["a", 1, 1.5, None, True]},
         {"enum": ["a", 1, 1.5, None, True],
          "type": ["boolean", "integer", "null", "number", "string"]}),
        ({"enum": ["a"], "type": "string"}, {"enum": ["a"], "type": "string"}),
        ({"const": 3}, {"enum": [3], "type": "integer"}),
        ({"const": None}, {"enum": [None], "type": "null"}),
        # Bounds are told in words, in the order of their names.
        (WHOLE | {"minimum": 1}, WHOLE | {"description": '{"minimum": 1}'}),
        (WHOLE | {"minimum": 1, "exclusiveMaximum": 9, "multipleOf": 2, "description": "how many"},
         WHOLE | {"description": 'how many {"exclusiveMaximum": 9, "minimum": 1, "multipleOf": 2}'}),
        (WHOLE | {"maximum": 1, "exclusiveMinimum": 0},
         WHOLE | {"description": '{"exclusiveMinimum": 0, "maximum": 1}'}),
        (TEXT | {"minLength": 1, "maxLength": 2, "pattern": "^é$", "contentEncoding": "base64"},
         TEXT | {"description": '{"contentEncoding": "base64", "maxLength": 2, "minLength": 1, '
                                '"pattern": "^é$"}'}),
        ({"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2, "uniqueItems": True},
         {"type": "array", "items": TEXT,
          "description": '{"maxItems": 2, "minItems": 1, "uniqueItems": true}'}),
        # Formats that vendors know stay.
        *((TEXT | {"format": name}, TEXT | {"format": name}) for name in (
            "date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")),
        (TEXT | {"format": "color"}, TEXT | {"description": '{"format": "color"}'}),
        # Objects, lists and unions.
        ({"type": "object", "properties": {}}, CLOSED),
        ({"type": "object", "properties": {"a": TEXT, "b": TEXT}, "required": ["b", "a"]},
         closed(a=TEXT, b=TEXT)),
        ({"type": "object", "properties": {"a": TEXT, "b": WHOLE}, "required": ["a"]},
         closed(a=TEXT, b={"anyOf": [WHOLE, NULL]})),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": False},
         closed(a={"anyOf": [TEXT, NULL]})),
        ({"type": "object", "properties": {"a": NULL, "b": {"anyOf": [TEXT, NULL]}}},
         closed(a=NULL, b={"anyOf": [TEXT, NULL]})),
        ({"type": "object", "properties": {"a": {"anyOf": [TEXT, WHOLE], "description": "d"}}},
         closed(a={"anyOf": [TEXT, WHOLE, NULL], "description": "d"})),
        ({"type": "object", "properties": {"a": TEXT | {"description": "d", "minLength": 1}}},
         closed(a={"anyOf": [TEXT, NULL], "description": 'd {"minLength": 1}'})),
        ({"type": "array", "items": {"type": "array", "items": {"const": 1}}},
         {"type": "array", "items": {"type": "array", "items": {"enum": [1], "type": "integer"}}}),
        ({"oneOf": [TEXT, WHOLE], "discriminator": {"propertyName": "k"}}, {"anyOf": [TEXT, WHOLE]}),
        ({"anyOf": [{"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, NULL]},
         {"anyOf": [closed(a=TEXT), NULL]}),
    ],
)  # fmt: skip
def test_the_form_of_strict_modes(given, form):
    assert strict(given) == form
    assert list(strict({"type": "array", "items": given})) == ["type", "items"]
    assert strict({"type": "array", "items": given})["items"] == form
    assert strict({"anyOf": [NULL, given]}) == {"anyOf": [NULL, form]}


def test_references_are_resolved_and_their_siblings_come_first():
    defs = {
        "A": {"$ref": "#/$defs/B", "description": "of A"},
        "B": TEXT | {"description": "of B", "title": "B"},
        "C": {"type": "object", "properties": {"x": {"$ref": "#/$defs/B"}}, "required": ["x"]},
    }
    of_b = TEXT | {"description": "of B"}
    for given, form in (
        ({"$ref": "#/$defs/B"}, of_b),
        ({"$ref": "#/$defs/A"}, TEXT | {"description": "of A"}),
        ({"$ref": "#/$defs/A", "description": "here"}, TEXT | {"description": "here"}),
        ({"anyOf": [{"$ref": "#/$defs/B"}, {"$ref": "#/$defs/B"}]}, {"anyOf": [of_b, of_b]}),
        ({"type": "array", "items": {"$ref": "#/$defs/C"}},
         {"type": "array", "items": closed(x=of_b)}),
    ):  # fmt: skip
        assert strict(given, **{"$defs": defs}) == form


LOOP = {"A": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}}
WIDE = {f"D{n}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/D{n + 1}"},
                                                  "b": {"$ref": f"#/$defs/D{n + 1}"}}}
        for n in range(12)}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "defs", "problem"),
    [
        ({"$ref": "#/$defs/A"}, LOOP, "it is recursive"),
        ({"$ref": "#/$defs/D0"}, WIDE | {"D12": TEXT}, "it is too large"),
        ({"$ref": "#/$defs/B"}, LOOP, "its reference #/$defs/B leads out of it"),
        ({"$ref": "https://x.example"}, {}, "its reference https://x.example leads out of it"),
        ({"$ref": "#/$defs/A"}, {"A": {"$ref": "#/$defs/A"}}, "its references lead nowhere"),
        (True, {}, "a part of it allows any value"),
        ({"type": "array", "items": False}, {}, "a part of it allows any value"),
        ({}, {}, "it has values of any type"),
        ({"description": "any"}, {}, "it has values of any type"),
        ({"type": "array"}, {}, "it has an array without one type of items"),
        ({"type": "array", "prefixItems": [TEXT], "items": TEXT}, {}, "it has prefixItems"),
        ({"type": "object"}, {}, "it has a mapping of any keys"),
        ({"type": "object", "additionalProperties": TEXT}, {}, "it has a mapping of any keys"),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": True}, {},
         "it has a mapping of any keys"),
        ({"enum": [[1]]}, {}, "it has constants that are no plain values"),
        ({"enum": ["a", {"b": 1}]}, {}, "it has constants that are no plain values"),
        (TEXT | {"not": {}, "if": {}}, {}, "it has if"),
        (5, {}, "a part of it allows any value"),
        ({"type": "object", "properties": [1]}, {}, "it is no JSON schema"),
    ],
)  # fmt: skip
def test_what_has_no_strict_form_is_refused_with_its_reason(part, defs, problem):
    with pytest.raises(InvalidParameterError) as caught:
        strict(part, **{"$defs": defs})
    told = f"the parameters of f do not fit strict mode: {problem}; omit strict"
    assert str(caught.value) == told


def test_a_schema_of_two_thousand_parts_is_not_too_large():
    def of(count):  # the whole and its parts
        whole = {"type": "object", "properties": {f"p{n}": TEXT for n in range(count - 1)}}
        return ToolDefinition(name="f", parameters=whole, strict=True).parameters

    assert len(of(2000)["properties"]) == 1999
    with pytest.raises(InvalidParameterError, match="too large"):
        of(2001)


@pytest.mark.parametrize(
    ("part", "is_kept"),
    [
        ({"$ref": "#/$defs/A", "title": "T"}, True),
        ({"anyOf": [TEXT, NULL]}, True),
        ({"anyOf": [TEXT, {"$ref": "#/$defs/A"}]}, True),
        ({"enum": ["a"]}, True),
        ({"const": "a"}, True),
        (closed(a=TEXT), True),
        ({"type": "array", "items": closed(a=TEXT)}, True),
        (TEXT | {"format": "color", "title": "T"}, True),
        (TEXT | {"default": "x"}, False),
        ({"anyOf": [TEXT, WHOLE | {"minimum": 1}]}, False),
        ({"type": "array", "items": WHOLE | {"minimum": 1}}, False),
        (closed(a=TEXT, b=WHOLE | {"minimum": 1}), False),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, False),
        (closed(a=TEXT) | {"required": []}, False),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}, False),
    ],
)  # fmt: skip
def test_what_is_strict_already_stays_word_by_word(part, is_kept):
    whole = closed(p=part) | {"$defs": {"A": closed(x=TEXT)}}
    made = ToolDefinition(name="f", parameters=whole, strict=True).parameters
    assert (made == whole) is is_kept
    for wrong in ({"description": "any"}, {"type": "array"}, True):
        with pytest.raises(InvalidParameterError):
            ToolDefinition(name="f", parameters=closed(p=part, q=wrong), strict=True)


def test_a_definition_that_is_not_strict_makes_the_whole_be_written_anew():
    whole = closed(p={"$ref": "#/$defs/A"}) | {"$defs": {"A": WHOLE | {"minimum": 1}}}
    made = ToolDefinition(name="f", parameters=whole, strict=True).parameters
    assert made == closed(p=WHOLE | {"description": '{"minimum": 1}'})


# Values for a schema that another library checks.

DEFS = MappingProxyType({
    "Day": {"type": "string", "format": "date"},
    "Nil": NULL,
    "Cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "day": {"$ref": "#/$defs/Day"}}},
    "Dog": {"type": "object", "properties": {"kind": {"enum": ["dog"]}, "day": TEXT}},
})  # fmt: skip
DAY, MOMENT, TIME = ({"type": "string", "format": name} for name in ("date", "date-time", "time"))
ANIMAL = [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]


def members(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("value", "schema", "fitted"),
    [
        # Texts in every form of ISO 8601.
        ("20260210", DAY, "2026-02-10"),
        (" 2026-02-10 ", DAY, "2026-02-10"),
        ("soon", DAY, "soon"),
        ("20260210", TEXT, "20260210"),
        ("20260210", {"format": "color"}, "20260210"),
        ("20260210t0900z", MOMENT, "2026-02-10T09:00:00+00:00"),
        ("2026-02-10", MOMENT, "2026-02-10T00:00:00"),
        ("0900", TIME, "09:00:00"),
        (20260210, DAY, 20260210),
        # Nulls of members that may be missing.
        ({"a": None}, members(a=TEXT), {}),
        ({"a": None}, members(["a"], a=TEXT), {"a": None}),
        ({"a": None, "b": None}, members(["b"], a=TEXT, b=TEXT), {"b": None}),
        ({"x": None}, members(a=TEXT), {"x": None}),
        ({"a": None}, members(a=NULL), {"a": None}),
        ({"a": None}, members(a={"type": ["string", "null"]}), {"a": None}),
        ({"a": None}, members(a={"type": ["string", "integer"]}), {}),
        ({"a": None}, members(a={"anyOf": [TEXT, NULL]}), {"a": None}),
        ({"a": None}, members(a={"oneOf": [TEXT, {"$ref": "#/$defs/Nil"}]}), {"a": None}),
        ({"a": None}, members(a={"anyOf": [TEXT, WHOLE]}), {}),
        ({"a": None}, members(a={"oneOf": [TEXT, WHOLE]}), {}),
        ({"a": None}, members(a={"$ref": "#/$defs/Nil"}), {"a": None}),
        ({"a": None}, members(a={"$ref": "#/$defs/Day"}), {}),
        ({"a": None}, members(a={"enum": ["x", None]}), {"a": None}),
        ({"a": None}, members(a={"enum": ["x"]}), {}),
        ({"a": None}, members(a={"const": None}), {"a": None}),
        ({"a": None}, members(a={"const": "x"}), {}),
        ({"a": None}, members(a={}), {"a": None}),
        ({"a": None}, members(a=True), {"a": None}),
        # Within lists, rows and mappings.
        (["20260210", None], {"type": "array", "items": DAY}, ["2026-02-10", None]),
        (["20260210"] * 3, {"prefixItems": [TEXT, DAY], "items": DAY},
         ["20260210", "2026-02-10", "2026-02-10"]),
        (["20260210"] * 3, {"prefixItems": [DAY]}, ["2026-02-10", "20260210", "20260210"]),
        (["20260210"], {"prefixItems": [DAY, DAY, DAY]}, ["2026-02-10"]),
        (["20260210"], {"type": "array"}, ["20260210"]),
        ({"a": "20260210"}, {"type": "object", "additionalProperties": DAY}, {"a": "2026-02-10"}),
        ({"a": "20260210", "b": "20260210"},
         members(a=TEXT) | {"additionalProperties": DAY}, {"a": "20260210", "b": "2026-02-10"}),
        ({"a": "20260210"}, {"type": "object", "additionalProperties": True}, {"a": "20260210"}),
        # Unions: only where one branch can be meant.
        ("20260210", {"anyOf": [DAY, WHOLE]}, "2026-02-10"),
        ("20260210", {"anyOf": [DAY, TEXT]}, "20260210"),
        ("20260210", {"oneOf": [NULL, {"$ref": "#/$defs/Day"}]}, "2026-02-10"),
        ("20260210", {"$ref": "#/$defs/Day"}, "2026-02-10"),
        ({"kind": "cat", "day": "20260210"}, {"anyOf": ANIMAL}, {"kind": "cat", "day": "2026-02-10"}),
        ({"kind": "dog", "day": "20260210"}, {"anyOf": ANIMAL}, {"kind": "dog", "day": "20260210"}),
        ({"kind": "cow", "day": "20260210"}, {"anyOf": ANIMAL}, {"kind": "cow", "day": "20260210"}),
        ({"day": "20260210"}, {"anyOf": ANIMAL}, {"day": "20260210"}),
        ([{"kind": "cat", "day": "20260210"}], {"items": {"oneOf": ANIMAL}},
         [{"kind": "cat", "day": "2026-02-10"}]),
        (["20260210"], {"anyOf": [{"type": "array", "items": DAY}, TEXT]}, ["2026-02-10"]),
        ({"a": "20260210"}, {"anyOf": [members(a=DAY), {"type": "array"}]}, {"a": "2026-02-10"}),
        ({"a": "20260210"}, {"anyOf": [members(a=DAY), {"type": "string"}, {"anyOf": [NULL]}]},
         {"a": "20260210"}),
        (7, {"anyOf": [{"type": "number"}, TEXT]}, 7),
        (None, {"anyOf": [DAY, NULL]}, None),
        ("20260210", True, "20260210"),
    ],
)  # fmt: skip
def test_a_value_is_fitted_to_its_schema(value, schema, fitted):
    assert fit_to_schema(value, schema, DEFS) == fitted


@pytest.mark.parametrize(
    ("value", "schema", "count"),
    [
        ({}, members(a=TEXT), 0),
        ({"a": 1}, members(a=TEXT), 1),
        ({"a": 1, "x": 2}, members(a=TEXT, b=TEXT), 1),
        ({"a": 1, "b": 2}, members(a=TEXT, b=TEXT), 2),
        ({"a": "x"}, members(a={"const": "x"}), 2),
        ({"a": "y"}, members(a={"const": "x"}), 1),
        ({"a": "x", "b": "y"}, members(a={"enum": ["w", "x"]}, b={"const": "y"}), 4),
        ({"kind": "cat", "day": "x"}, {"$ref": "#/$defs/Cat"}, 3),
        ({"kind": "cat", "day": "x"}, {"anyOf": ANIMAL}, 3),
        ({"kind": "cow"}, {"anyOf": ANIMAL}, 0),
        ({"kind": "cat"}, True, 0),
    ],
)
def test_how_many_members_of_a_value_a_schema_knows(value, schema, count):
    assert count_properties(value, schema, DEFS) == count
