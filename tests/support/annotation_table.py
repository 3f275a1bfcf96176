"""Sixty annotations: what a model is told of each, what is read, and what is refused.

Use it for tests of the one engine behind typed results and tools.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)

import annotated_types as at
import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import typing_extensions

T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
OneOf = TypeVar("OneOf", int, bool)
UserId = NewType("UserId", int)
Small = NewType("Small", Annotated[int, at.Le(9)])
Names = typing_extensions.TypeAliasType("Names", list[Annotated[str, at.MinLen(1)]])


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Rank(enum.IntEnum):
    FIRST = 1
    SECOND = 2


@dataclass
class Place:
    lat: Annotated[float, pydantic.Field(ge=-90, le=90, description="degrees north")]
    name: str | None = None


@dataclass
class Trip:
    stops: list[Place]
    start: dt.date
    level: Level = Level.LOW


class PlaceDict(TypedDict):
    lat: Annotated[float, at.Interval(ge=-90, le=90)]
    name: NotRequired[str]


class Marked(TypedDict):
    fixed: typing_extensions.ReadOnly[int]
    loose: NotRequired[typing_extensions.ReadOnly[int]]


class PlaceStruct(msgspec.Struct):
    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    name: str | None = None


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    is_open: bool
    opened_at: dt.time


class PlaceModel(pydantic.BaseModel):
    lat: float = pydantic.Field(ge=-90, le=90)
    name: str | None = None
    seen: dt.datetime | None = None


@pydantic.dataclasses.dataclass
class PlaceOfPydantic:
    lat: Annotated[float, pydantic.Field(ge=-90)]


@attrs.define
class PlaceOfAttrs:
    lat: Annotated[float, at.Ge(-90)]
    names: list[str] = attrs.field(factory=list)


class Point(NamedTuple):
    x: int
    y: Annotated[int, at.Gt(0)] = 1


class Line(msgspec.Struct, array_like=True):
    start: Point
    width: int = 1


@dataclass
class Box(Generic[T]):
    item: T
    more: list[T] = field(default_factory=list)


@dataclass
class DateBox(Box[dt.date]):
    label: str = ""


class StructBox(msgspec.Struct, Generic[T]):
    item: T


@dataclass
class Plan:
    kind: Literal["plan"]
    steps: list[str]


@dataclass
class Reply:
    kind: Literal["reply"]
    text: str


@dataclass
class Greeting:
    """Has the members of another type, and nothing that tells them apart."""

    lives: int


@dataclass
class Life:
    lives: int


class Mixed(pydantic.BaseModel):
    places: list[MetaPlace]


@dataclass
class MetaPlace:
    lat: Annotated[float, msgspec.Meta(ge=-90)]


@dataclass
class Defaults:
    note: str | None = None


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    tricks: list[str]


class Alarm(pydantic.BaseModel):
    decibel: float


@dataclass
class Tree:
    value: int
    kids: list[Tree] = field(default_factory=list)


@dataclass
class Add:
    left: Expression
    right: Expression
    op: Literal["add"]


@dataclass
class Times:
    left: Expression
    right: Expression
    op: Literal["times"]


Expression = Add | Times | int


@dataclass
class Fields:
    """Defaults as pydantic writes them."""

    amount: int = pydantic.Field(3, ge=1, description="how many")
    tags: list[str] = pydantic.Field(default_factory=list, max_length=2)  # noqa: RUF009


def _made() -> tuple[type, type]:
    @dataclass
    class Inner:
        a: int

    first = Inner

    @dataclass
    class Inner:
        b: str

    return first, Inner


First, Second = _made()


@dataclass
class Both:
    first: First
    second: Second


def _models() -> tuple[type, type]:
    class Part(pydantic.BaseModel):
        a: int

    class Left(pydantic.BaseModel):
        part: Part

    left = Left

    class Part(pydantic.BaseModel):  # noqa: F811
        b: str

    class Left(pydantic.BaseModel):
        part: Part

    return left, Left


LeftA, LeftB = _models()


class Optionals(TypedDict, total=False):
    x: typing_extensions.Required[int]
    y: Annotated[str, "a name"]
    z: dt.datetime


class Row(msgspec.Struct):
    """One row of the table.

    `told` are words of the schema that a model gets, `good` pairs of JSON and value, `bad` is JSON
    that does not fit. Instead of these, `refused` is what the refusal of the annotation names.
    """

    kind: Any
    told: tuple[str, ...] = ()
    good: tuple[tuple[str, Any], ...] = ()
    bad: tuple[str, ...] = ()
    refused: str = ""


DAY = dt.date(2026, 2, 10)
MOMENT = dt.datetime(2026, 2, 10, 9, 0)  # noqa: DTZ001
UTC = MOMENT.replace(tzinfo=dt.UTC)
OSLO = Place(59.9, "Oslo")
PLACE = '{"lat": 59.9, "name": "Oslo"}'
AWAY = '{"lat": 99}'
N = msgspec.Meta

TABLE = [
    # Plain types, with and without constraints of every origin.
    Row(int, ("integer",), (("7", 7), ('"7"', 7), ("7.0", 7)), ('"x"', "7.5", "null", "true")),
    Row(str, ("string",), (('"x"', "x"), ('"7"', "7")), ("7", "null", "[]")),
    Row(bool, ("boolean",), (("true", True), ('"false"', False)), ('"maybe"', "7")),
    Row(float, ("number",), (("1", 1.0), ('"2.5"', 2.5)), ('"x"', "[]")),
    Row(Annotated[int, pydantic.Field(ge=1, description="how many")], ("minimum", "how many"),
        (("1", 1), ('"2"', 2)), ("0", '"0"')),
    Row(Annotated[int, at.Gt(0), at.Lt(5)], ("exclusiveMinimum", "exclusiveMaximum"),
        (("4", 4),), ("0", "5")),
    Row(Annotated[int, at.Interval(ge=1, le=3)], ("minimum", "maximum"), (("3", 3),), ("4",)),
    Row(Annotated[int, N(multiple_of=5)], ("multipleOf",), (("10", 10),), ("12",)),
    Row(Annotated[str, at.Len(2, 3)], ("minLength", "maxLength"), (('"ab"', "ab"),), ('"a"', '"abcd"')),
    Row(Annotated[str, pydantic.Field(pattern="^[A-Z]+$")], ("pattern",), (('"AB"', "AB"),), ('"ab"',)),
    Row(Annotated[str, pydantic.StringConstraints(to_lower=True, min_length=2)], ("minLength",),
        (('"AB"', "ab"),), ('"a"',)),
    Row(Annotated[str, "a name", typing_extensions.Doc("a city's name")], ("a city's name",),
        (('"x"', "x"),), ("1",)),
    Row(pydantic.PositiveInt, ("exclusiveMinimum",), (("1", 1),), ("0",)),
    Row(Marked, ("integer", "fixed", "loose"), (('{"fixed": 1}', {"fixed": 1}),
        ('{"fixed": 1, "loose": "2"}', {"fixed": 1, "loose": 2})), ("{}", '{"fixed": "x"}')),
    Row(T, (), (("1", 1), ('"x"', "x"), ("[null]", [None]))),
    Row(Bound, ("integer",), (("1", 1),), ("null", '"x"')),
    Row(OneOf, ("integer", "boolean"), (("1", 1), ("true", True)), ("null", '"x"')),
    Row(pydantic.conlist(int, min_length=1), ("minItems",), (("[1]", [1]),), ("[]",)),
    Row(Annotated[list[Place], at.Len(1, 2)], ("minItems", "maxItems"),
        ((f"[{PLACE}]", [OSLO]),), ("[]", f"[{PLACE}, {PLACE}, {PLACE}]")),
    Row(Annotated[dict[str, Place], at.Len(1, 2)], ('"minProperties": 1', '"maxProperties": 2'),
        ((f'{{"a": {PLACE}}}', {"a": OSLO}),), ("{}", f'{{"a": {PLACE}, "b": {PLACE}, "c": {PLACE}}}')),
    Row(Annotated[pydantic.PositiveInt, at.Le(9)], ("exclusiveMinimum", "maximum"), (("9", 9),), ("0", "10")),
    Row(decimal.Decimal, ("decimal",), (("0.10000000000000000001", decimal.Decimal("0.10000000000000000001")),
        ('"1.5"', decimal.Decimal("1.5"))), ('"x"',)),
    Row(Annotated[decimal.Decimal, at.Ge(1)], ("at least 1",), (("1.5", decimal.Decimal("1.5")),), ("0.5",)),
    Row(Annotated[decimal.Decimal, N(multiple_of=0.5)], ("a multiple of 0.5",),
        (("1.5", decimal.Decimal("1.5")),), ("0.7",)),
    Row(uuid.UUID, ("uuid",), ((f'"{uuid.UUID(int=7)}"', uuid.UUID(int=7)),), ('"7"',)),
    Row(bytes, ("base64",), (('"AAE="', b"\0\1"),), ('"?"',)),
    # Dates, in every common form.
    Row(dt.datetime, ("date-time",), (
        ('"2026-02-10T09:00:00"', MOMENT), ('"2026-02-10 09:00:00Z"', UTC), ('"2026-02-10T09:00"', MOMENT),
        ('"20260210T090000"', MOMENT), ('"2026-02-10 09:00:00 +00:00"', UTC), ('"2026-02-10t09:00:00.000z"', UTC),
        ('"2026-02-10"', dt.datetime(2026, 2, 10))), ('"tomorrow"', '"10.02.2026"', "null")),  # noqa: DTZ001
    Row(dt.date, ("date",), (('"2026-02-10"', DAY), ('"20260210"', DAY), ('"2026-02-10T00:00:00Z"', DAY)),
        ('"2026-02-10T09:00:00"', '"x"', "7")),
    Row(dt.time, ("time",), (('"09:00"', dt.time(9)), ('"09:00:00Z"', dt.time(9, tzinfo=dt.UTC))), ('"9 am"',)),
    Row(dt.timedelta, ("duration",), (('"PT1H"', dt.timedelta(hours=1)),), ('"an hour"',)),
    Row(Annotated[dt.date, pydantic.Field(ge=dt.date(2026, 1, 1))], ("at least 2026-01-01",),
        (('"2026-02-10"', DAY),), ('"2025-02-10"',)),
    Row(Annotated[dt.datetime, at.Timezone(...)], ("with an offset",), (('"2026-02-10 09:00Z"', UTC),),
        ('"2026-02-10T09:00:00"',)),
    Row(Annotated[dt.datetime, N(tz=False)], ("without an offset",), (('"2026-02-10 09:00"', MOMENT),),
        ('"2026-02-10T09:00:00Z"',)),
    # Choices.
    Row(Level, ("low", "high"), (('"high"', Level.HIGH),), ('"mid"', "null")),
    Row(Rank, ("1", "2"), (("2", Rank.SECOND), ('"1"', Rank.FIRST)), ("3", "true")),
    Row(Literal["a", 1, None], ('"a"', "1", "null"), (('"a"', "a"), ("1", 1), ("null", None)), ('"b"', "true")),  # noqa: PYI061
    Row(Literal[Level.LOW], ("low",), (('"low"', Level.LOW),), ('"high"',)),
    # Collections.
    Row(list[Annotated[int, at.Ge(0)]], ("array", "minimum"), (("[0]", [0]), ("[]", [])), ("[-1]", "1", "{}")),
    Row(Annotated[list[dt.date], at.MaxLen(1)], ("maxItems", "date"), (('["20260210"]', [DAY]),),
        ('["20260210", "20260210"]',)),
    Row(Sequence[Level], ("array", "low"), (('["low"]', [Level.LOW]),), ('"low"',)),
    Row(frozenset[int], ("uniqueItems",), (("[1, 1]", frozenset([1])),), ("1",)),
    Row(tuple[int, ...], ("array",), (("[1, 2]", (1, 2)),), ('["x"]',)),
    Row(tuple[int, Annotated[str, at.MinLen(1)]], ("prefixItems", "minLength"), (('[1, "a"]', (1, "a")),),
        ('[1, ""]', "[1]", '[1, "a", 2]')),
    Row(dict[str, Annotated[int, at.Ge(0)]], ("additionalProperties", "minimum"), (('{"a": 1}', {"a": 1}),),
        ('{"a": -1}', "[]")),
    Row(Annotated[Mapping[int, Level], at.MinLen(1)], ("minProperties",), (('{"1": "low"}', {1: Level.LOW}),),
        ("{}", '{"a": "low"}')),
    Row(Names, ("minLength",), (('["a"]', ["a"]),), ('[""]',)),
    Row(dict[str, list[UserId]], ("integer",), (('{"a": [1]}', {"a": [1]}),), ('{"a": ["x"]}',)),
    Row(Small | None, ("maximum", "null"), (("9", 9), ("null", None)), ("10",)),
    # Classes, and classes within classes.
    Row(Place, ("degrees north", "minimum"), ((PLACE, OSLO), ('{"lat": 1, "name": null}', Place(1.0))), (AWAY, "{}")),
    Row(list[Place], ("degrees north", "maximum"), ((f"[{PLACE}]", [OSLO]),), (f"[{AWAY}]", PLACE)),
    Row(Trip, ("degrees north", "date", "low"), (
        (f'{{"stops": [{PLACE}], "start": "20260210", "level": null}}', Trip([OSLO], DAY)),),
        (f'{{"stops": [{AWAY}], "start": "20260210"}}', '{"stops": []}')),
    Row(PlaceDict, ("minimum",), ((PLACE, {"lat": 59.9, "name": "Oslo"}), ('{"lat": 1, "name": null}', {"lat": 1.0})),
        (AWAY, '{"lat": null}', '{"lat": 1, "name": 2}')),
    Row(dict[str, PlaceStruct], ("minimum",), ((f'{{"a": {PLACE}}}', {"a": PlaceStruct(59.9, "Oslo")}),),
        (f'{{"a": {AWAY}}}',)),
    Row(Renamed, ("isOpen", "openedAt"), (('{"isOpen": true, "openedAt": "09:00"}', Renamed(True, dt.time(9))),),
        ('{"is_open": true, "openedAt": "09:00"}', '{"isOpen": true, "openedAt": "09:00", "x": 1}')),
    Row(PlaceModel, ("minimum", "date-time"), ((PLACE, PlaceModel(lat=59.9, name="Oslo")),
        ('{"lat": 1, "seen": "20260210T0900Z"}', PlaceModel(lat=1, seen=UTC))), (AWAY, "{}")),
    Row(Optional[list[PlaceModel]], ("minimum", "null"), ((f"[{PLACE}]", [PlaceModel(lat=59.9, name="Oslo")]),  # noqa: UP045
        ("null", None)), (f"[{AWAY}]",)),
    Row(PlaceOfPydantic, ("minimum",), (('{"lat": 1}', PlaceOfPydantic(1)),), ('{"lat": -91}',)),
    Row(PlaceOfAttrs, ("minimum",), (('{"lat": 1, "names": null}', PlaceOfAttrs(1.0)),), ('{"lat": -91}',)),
    Row(Optionals, ("a name", "date-time"), (('{"x": 1, "y": null, "z": null}', {"x": 1}),
        ('{"x": 1, "z": "2026-02-10 09:00"}', {"x": 1, "z": MOMENT})), ("{}", '{"x": null}')),
    Row(Fields, ("how many", "minimum", "maxItems"), (("{}", Fields(3, [])), ('{"amount": null}', Fields(3, [])),
        ('{"amount": 2, "tags": ["a"]}', Fields(2, ["a"]))), ('{"amount": 0}', '{"tags": ["a", "b", "c"]}')),
    Row(Point, ("prefixItems", "exclusiveMinimum"), (("[1]", Point(1)), ("[1, 2]", Point(1, 2))), ("[1, 0]", "[]")),
    Row(list[Line], ("prefixItems",), (("[[[1, 2], 3]]", [Line(Point(1, 2), 3)]),), ("[[[1, 0], 3]]",)),
    Row(Box[Place], ("degrees north",), ((f'{{"item": {PLACE}}}', Box(OSLO)),), (f'{{"item": {AWAY}}}',)),
    Row(DateBox, ("date",), (('{"item": "20260210", "more": ["2026-02-10"]}', DateBox(DAY, [DAY])),),
        ('{"item": "x"}',)),
    Row(list[StructBox[Annotated[int, at.Ge(1)]]], ("minimum",), (('[{"item": 1}]', [StructBox(1)]),),
        ('[{"item": 0}]',)),
    Row(Tree, ("kids",), (('{"value": 1, "kids": [{"value": 2}]}', Tree(1, [Tree(2)])),), ('{"value": 1, "kids": [{}]}',)),
    Row(Both, ('"a"', '"b"'), (('{"first": {"a": 1}, "second": {"b": "x"}}', Both(First(1), Second("x"))),),
        ('{"first": {"b": "x"}, "second": {"b": "x"}}',)),
    Row(tuple[LeftA, LeftB], ('"a"', '"b"'), (
        ('[{"part": {"a": 1}}, {"part": {"b": "x"}}]', (LeftA(part={"a": 1}), LeftB(part={"b": "x"}))),),
        ('[{"part": {"b": "x"}}, {"part": {"b": "x"}}]',)),
    # Unions.
    Row(Plan | Reply, ("plan", "reply"), (('{"kind": "reply", "text": "hi"}', Reply("reply", "hi")),),
        ('{"kind": "other"}', '{"kind": "reply"}', "1")),
    Row(list[Plan | Reply | str], ("plan", "reply"), (('["x", {"kind": "plan", "steps": []}]', ["x", Plan("plan", [])]),),
        ("[1]",)),
    Row(Cat | Dog | None, ("cat", "dog"), (('{"type": "dog", "tricks": []}', Dog([])), ("null", None)),
        ('{"type": "cow", "tricks": []}',)),
    Row(PlaceModel | Alarm | PlaceDict, ("decibel",), (('{"decibel": 1}', Alarm(decibel=1)),
        ('{"lat": 1, "seen": "2026-02-10"}', PlaceModel(lat=1, seen=dt.datetime(2026, 2, 10)))), ('{"decibel": "x"}',)),  # noqa: DTZ001
    Row(PlaceStruct | Defaults, ("minimum",), (('{"lat": "1"}', PlaceStruct(1.0)), ('{"note": null}', Defaults())), (AWAY,)),
    Row(Plan | dict[str, int], ("plan",), (('{"kind": 1, "b": 2}', {"kind": 1, "b": 2}),
        ('{"kind": "plan", "steps": []}', Plan("plan", []))), ('{"kind": "plan"}',)),
    Row(int | str, ("integer", "string"), (('"7"', "7"), ("7", 7)), ("null",)),
    Row(list[str] | list[int], ("string", "integer"), (('["1"]', ["1"]), ("[1]", [1])), ("[null]", "1")),
    Row(dt.date | str, ("date",), (('"2026-02-10"', DAY), ('"soon"', "soon")), ("[]",)),
    Row(dt.datetime | dt.date, ("date-time",), (('"2026-02-10"', DAY), ('"2026-02-10T09:00"', MOMENT)), ('"x"',)),
    Row(Annotated[int | str | None, pydantic.Field(ge=1, max_length=2)], ("minimum", "maxLength"),
        (("1", 1), ('"ab"', "ab"), ("null", None)), ("0", '"abc"')),
    Row(float | int | bool, ("number", "boolean"), (("1", 1), ("1.0", 1.0), ("true", True)), ('"x"',)),
    Row(Expression, ("add", "times"), (
        ('{"op": "times", "left": 1, "right": {"op": "add", "left": 2, "right": 3}}', Times(1, Add(2, 3, "add"), "times")),),
        ('{"op": "times", "left": 1, "right": {"op": "add", "left": 2, "right": "x"}}',)),
    # What is refused, by name.
    Row(Annotated[str, at.Ge(1)], refused="ge=1"),
    Row(Annotated[bool, pydantic.Field(gt=1)], refused="gt=1"),
    Row(Annotated[Level, at.MinLen(1)], refused="min_length=1"),
    Row(Annotated[Place, at.MinLen(1)], refused="min_length=1"),
    Row(Annotated[str, at.Predicate(str.islower)], refused="islower"),
    Row(Annotated[dt.date, at.Ge(3)], refused="ge=3"),
    Row(Annotated[int | str, at.MultipleOf(2), N(tz=True)], refused="tz=True"),
    Row(list[Annotated[int, object]], refused="class 'object'"),
    Row(Annotated[int, pydantic.Field(alias="q")], refused="alias"),
    Row(Annotated[PlaceStruct, pydantic.AfterValidator(id)], refused="PlaceStruct"),
    Row(Annotated[int, N(ge=1), pydantic.AfterValidator(abs)], refused="msgspec.Meta"),
    Row(dict[str, list[complex]], refused="complex"),
    Row(Literal[b"x"], refused="b'x'"),
    Row(object, refused="object"),
    Row(Life | Greeting, refused="same members"),
    Row(list[Mixed], refused="msgspec.Meta"),
]  # fmt: skip
