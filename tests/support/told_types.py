"""More types, and texts for each: what a model is told of them, and how the texts are read.

`tests/golden/structured/types.json` has all of it, also of the annotations in `annotation_table`. After a
change that is meant, `write` writes it anew; then read the difference.
"""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import typing
from collections import abc
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import annotated_types as at
import attrs
import msgspec
import pydantic
import typing_extensions
from annotation_table import TABLE, Level, Line, Place, PlaceStruct, Plan, Point, Reply, Tree

from minillmlib import (
    InvalidParameterError,
    NodeCompletionParameters,
    ResponseValidationError,
    ToolDefinition,
)

FILE = Path(__file__).parents[1] / "golden" / "structured" / "types.json"
N = msgspec.Meta
T, U = TypeVar("T"), TypeVar("U")


class Shade(enum.Enum):
    """A shade of grey."""

    LIGHT = "light"
    DARK = "dark"

    @classmethod
    def _missing_(cls, value):
        return cls.DARK if value == "black" else None


class Grade(enum.IntEnum):
    ONE = 1
    TWO = 2


class Mixed(enum.Enum):
    TEXT = "t"
    NUMBER = 1.5
    YES = True


class Closed(msgspec.Struct, forbid_unknown_fields=True, tag="closed", tag_field="kind"):
    """A struct that takes no other members."""

    size: int
    note: str = "none"


class Numbered(msgspec.Struct, tag=7):
    size: int = 0


class Arrayed(msgspec.Struct, array_like=True, tag="arrayed"):
    size: int
    word: str = ""


class Made(msgspec.Struct, rename="camel"):
    my_list: list[int] = msgspec.field(default_factory=lambda: [1])
    my_name: str = msgspec.field(default="x", name="called")
    maybe: int | msgspec.UnsetType = msgspec.UNSET


class Plain(NamedTuple):
    x: int
    y: str = "y"


Bare = collections.namedtuple("Bare", ["a", "b"], defaults=[None])  # noqa: PYI024


@attrs.define
class Attributes:
    """Made by attrs."""

    _hidden: int
    other: str = attrs.field(alias="another", default="o")
    many: list[int] = attrs.field(factory=list)
    count: int = attrs.field(init=False, default=0)


@dataclass
class Data:
    """Made by hand."""

    name: str
    many: list[int] = field(default_factory=lambda: [1, 2])
    fixed: Final[int] = 3
    moment: dt.datetime = dt.datetime(2026, 1, 2, 3, 4)  # noqa: DTZ001
    opaque: Any = object
    made: int = field(init=False, default=1)
    shared: ClassVar[int] = 0


class Partial(TypedDict, total=False):
    a: Required[int]
    b: Annotated[int, N(ge=1)]
    c: NotRequired[int | None]


class Base(TypedDict, Generic[T]):
    item: T


class Derived(Base[int]):
    more: NotRequired[str]


@dataclass
class Two(Generic[T, U]):
    first: T
    second: list[U]


@dataclass
class Half(Two[int, U], Generic[U]):
    third: U


class StructTwo(msgspec.Struct, Generic[T, U]):
    first: T
    second: dict[str, U]


@dataclass
class Deep(Two[list[T], int], Generic[T]):
    last: T


class More(Base[list[T]], Generic[T]):
    last: T


class Named(NamedTuple, Generic[T]):
    item: T
    items: list[T] = []  # noqa: RUF012


@attrs.define
class AttributesOf(Generic[T]):
    item: T
    none: T | None = None


@dataclass
class Left(Generic[T]):
    left: T


@dataclass
class Right(Generic[T]):
    right: T


@dataclass
class Sides(Left[int], Right[str]):
    pass


@dataclass
class LeftOfInt(Left[int]):
    pass


@dataclass
class RightOfText(Right[str]):
    pass


@dataclass
class Joined(LeftOfInt, RightOfText):
    pass


def _within() -> Any:
    @dataclass
    class Chain:
        size: Annotated[int, N(ge=1)]
        next: Chain | None = None

    return Chain


def _lost() -> Any:
    class Unseen:
        pass

    @dataclass
    class Lost:
        size: Unseen

    return Lost


class Documented(enum.Enum):
    """A choice."""

    ONE = 1


class Shut(TypedDict):
    """A dictionary."""

    day: Annotated[dt.date, "a day"]


@dataclass
class Described:
    place: Annotated[Place, "where it is"]
    other: Annotated[Place, N(title="Other", examples=[1])]
    again: Place


@dataclass
class FieldsOfPydantic:
    plain: int = pydantic.Field(3, title="Plain", examples=[1, 2], deprecated=True)
    extra: str = pydantic.Field("x", json_schema_extra={"format": "word"})
    needed: int = pydantic.Field(ge=1)
    made: Annotated[list[int], pydantic.Field(default_factory=list)] = pydantic.Field(max_length=2)  # noqa: RUF009


Pair = typing_extensions.TypeAliasType("Pair", tuple[T, T], type_params=(T,))
Day = typing.NewType("Day", dt.date)
DAY, NEXT = dt.date(2026, 1, 1), dt.date(2026, 1, 2)
HOUR = dt.timedelta(hours=1)


class OwnInit:
    pass


@dataclass(init=False)
class WithInit:
    size: int

    def __init__(self, length: int) -> None:
        self.size = length


@dataclass
class WithMore:
    size: int
    more: Any = field(init=False)

    def __init__(self, size: int, extra: int) -> None:
        self.size, self.more = size, extra


@dataclass
class LifeOne:
    lives: int


@dataclass
class LifeTwo:
    """With words of its own."""

    lives: int


# A name, a type, and texts of JSON.
TYPES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "None": (None, ("null", "1", '{"answer": null}')),
    "LiteralString": (LiteralString, ('"x"', "1")),
    "list": (list, ("[1, null]", "{}", "null")),
    "dict": (dict, ('{"a": [1.5]}', "[]")),
    "tuple": (tuple, ('[1, "a"]', "{}")),
    "tuple[()]": (tuple[()], ("[]", "[1]")),
    "tuple[int, int]": (tuple[int, int], ("[1, 2]", "[1]", "[1, 2, 3]", '[1, "x"]', "1.5", "true")),
    "set[int]": (set[int], ("[1, 1, 2]", '["x"]', '"x"')),
    "set[list[int]]": (set[list[int]], ("[[1]]",)),
    "abc.Set[str]": (abc.Set[str], ('["a"]', "null")),
    "abc.MutableSet[int]": (abc.MutableSet[int], ("[1]",)),
    "abc.Iterable[int]": (abc.Iterable[int], ("[1]",)),
    "abc.Collection[int]": (abc.Collection[int], ("[1]",)),
    "abc.MutableSequence[int]": (abc.MutableSequence[int], ("[1]",)),
    "abc.MutableMapping[str, int]": (abc.MutableMapping[str, int], ('{"a": 1}',)),
    "dict[int, str]": (dict[int, str], ('{"1": "a"}', '{"x": "a"}', '{"1": 2}')),
    "dict[Level, int]": (dict[Level, int], ('{"low": 1}', '{"mid": 1}')),
    "dict[Annotated[str, MinLen(2)], int]": (
        dict[Annotated[str, at.MinLen(2)], int], ('{"ab": 1}', '{"a": 1}')),
    "dict[Annotated[int, Ge(1)], int]": (dict[Annotated[int, at.Ge(1)], int], ('{"1": 2}', '{"0": 2}')),
    "dict[Grade, int]": (dict[Grade, int], ('{"1": 2}', '{"3": 2}')),
    "dict[Literal['a', 1], int]": (dict[Literal["a", 1], int], ('{"a": 1, "1": 2}', '{"b": 2}')),
    "dict[Annotated[Any, 'a name'], int]": (dict[Annotated[Any, "a name"], int], ('{"x": 2}',)),
    "dict[Any, int]": (dict[Any, int], ('{"x": 2}',)),
    "dict[int | None, int]": (dict[int | None, int], ('{"1": 2, "null": 3}', '{"x": 2}')),
    "dict[dt.date, Any]": (dict[dt.date, Any], ('{"20260101": 1}', '{"x": 1}')),
    "Annotated[list[int], Len(1, 2)]": (
        Annotated[list[int], at.Len(1, 2)], ("[]", "[1]", "[1, 2]", "[1, 2, 3]")),
    "Annotated[set[int], MinLen(2)]": (Annotated[set[int], at.MinLen(2)], ("[1, 1]", "[1, 2]")),
    "Annotated[dict[str, int], Len(1, 1)]": (
        Annotated[dict[str, int], at.Len(1, 1)], ("{}", '{"a": 1}', '{"a": 1, "b": 2}')),
    # Numbers, moments and their bounds.
    "Annotated[int, Interval(gt=1, lt=5)]": (
        Annotated[int, at.Interval(gt=1, lt=5)], ("1", "2", "4", "5")),
    "two bounds, the narrower stays": (
        Annotated[Annotated[int, at.Ge(1), at.Le(9)], at.Ge(3), at.Le(5), at.Ge(2)],
        ("2", "3", "5", "6")),
    "Annotated[float, MultipleOf(0.5)]": (Annotated[float, at.MultipleOf(0.5)], ("1.5", "1.4")),
    "Annotated[date, Interval]": (
        Annotated[dt.date, at.Ge(DAY), at.Lt(NEXT)],
        ('"2025-12-31"', '"2026-01-01"', '"2026-01-02"')),
    "Annotated[date, Gt, Le]": (
        Annotated[dt.date, at.Gt(DAY), at.Le(NEXT)],
        ('"2026-01-01"', '"2026-01-02"', '"2026-01-03"', '"x"')),
    "Annotated[timedelta, Le]": (Annotated[dt.timedelta, at.Le(HOUR)], ('"PT1H"', '"PT2H"')),
    "Annotated[datetime, Ge]": (
        Annotated[dt.datetime, at.Ge(dt.datetime(2026, 1, 1))],  # noqa: DTZ001
        ('"2026-01-01T00:00:00"', '"2025-12-31T23:59:59"', '"2026-01-01T00:00:00Z"')),
    "Annotated[time, tz]": (Annotated[dt.time, N(tz=True)], ('"09:00Z"', '"09:00"')),
    "Annotated[time, no tz, Ge]": (
        Annotated[dt.time, at.Timezone(None), at.Ge(dt.time(9))], ('"09:00"', '"08:59"', '"09:00Z"')),
    "Annotated[Decimal, bounds]": (
        Annotated[decimal.Decimal, at.Gt(0), at.Le(1.5), at.MultipleOf(0.25)],
        ("0", "0.25", "1.5", "1.75", "0.3", '"x"')),
    "Annotated[bytes, MaxLen(2)]": (Annotated[bytes, at.MaxLen(2)], ('"AAE="', '"AAEC"')),
    "datetime": (dt.datetime, ('" 2026-01-01t09:00 z "', "1767225600", "true", '"2026-13-01"')),
    "date": (dt.date, ('"2026-01-01T00:00"', '"2026-01-01T00:01"', "null")),
    "float": (float, ("1", "1.5", '"1.5"', "true", "null")),
    "float | str": (float | str, ("1", "1.5", '"1.5"')),
    "beside a Decimal": (
        tuple[decimal.Decimal, list[float], int, Literal[1.5], Any],
        ("[0.10, [2.5], 3, 1.5, [4.5]]", "[0.10, 1.5, 3, 1.5, null]", "[0.10, [], 1.5, 1.5, null]",
         "[0.10, [], 3, 2.5, null]", "[0.10, [true], 3, 1.5, null]")),
    "numbers of any length": (list[int], ("[123456789012345678901234567890]", "[1e3]", "[1.0]")),
    # Words beside types.
    "a text": (Annotated[int, "how many"], ("1",)),
    "an empty text": (Annotated[int, ""], ("1",)),
    "None beside a type": (Annotated[int, None], ("1",)),
    "words of a bound and of its type": (Annotated[dt.date, at.Ge(DAY), "a day"], ()),
    "Meta": (Annotated[int, N(title="Count", description="how many", examples=[3],
                              extra_json_schema={"readOnly": True}, ge=1)], ("0", "1")),
    "Field": (Annotated[int, pydantic.Field(title="Count", description="how many", examples=[3],
                                            deprecated=True, json_schema_extra={"readOnly": True},
                                            ge=1)], ("0", "1")),
    "Described": (Described, ('{"place": {"lat": 1}, "other": {"lat": 2}, "again": {"lat": 3}}',
                              '{"place": {"lat": 91}, "other": {}, "again": 3}')),
    "FieldsOfPydantic": (FieldsOfPydantic, ('{"needed": 1}', '{"needed": 0, "made": [1, 2, 3]}')),
    # Choices.
    "Shade": (Shade, ('"light"', '"black"', '"grey"', "1", "null")),
    "Grade": (Grade, ("1", '" 2 "', "3", "true", "1.0")),
    "Mixed": (Mixed, ('"t"', "1.5", "true", '"true"', '"1.5"', "1", "false")),
    "Literal of all kinds": (
        Literal["a", 1, True, None],  # noqa: PYI061
        ('"a"', "1", "true", "null", '"null"', '"TRUE"', "2", "[1]")),
    "Literal[Level.LOW, 'x']": (Literal[Level.LOW, "x"], ('"low"', '"x"', '"high"')),
    # Classes.
    "Closed": (Closed, ('{"size": 1}', '{"kind": "closed", "size": "1"}', '{"kind": "open", "size": 1}',
                        '{"size": 1, "x": 2, "y": 3}', "{}", "[]")),
    "Numbered": (Numbered, ('{"type": 7}', "{}", '{"type": 8}', '{"type": 7, "size": 2, "x": 1}')),
    "Arrayed": (Arrayed, ('["arrayed", 1]', '["arrayed", 1, "w"]', '["arrayed"]', '["other", 1]',
                          '["arrayed", 1, "w", 2]')),
    "list[Arrayed]": (list[Arrayed], ('[["arrayed", 1]]', '[["arrayed", "x"]]')),
    "Made": (Made, ("{}", '{"myList": [2], "called": "y", "maybe": 3}', '{"myList": null}',
                    '{"maybe": "x"}', '{"my_list": [2]}')),
    "Plain": (Plain, ("[1]", '[1, "b"]', "[]", '[1, "b", 2]', '{"x": 1}')),
    "Bare": (Bare, ("[1]", '[1, "b"]', "[]")),
    "Line": (Line, ("[[1, 2]]", "[[1, 2], 3]", "[[]]")),
    "Attributes": (Attributes, ('{"_hidden": 1}', '{"_hidden": 1, "other": "x", "many": [2]}',
                                '{"hidden": 1}', '{"_hidden": 1, "other": 2}')),
    "Data": (Data, ('{"name": "n"}', '{"name": "n", "many": null, "fixed": 4, "opaque": [1]}',
                    '{"name": null, "many": 1, "moment": "x"}')),
    "Partial": (Partial, ('{"a": 1}', '{"a": 1, "b": null, "c": null}', '{"a": 1, "b": 0}', "{}")),
    "Derived": (Derived, ('{"item": 1}', '{"item": "x"}')),
    "Two[int, str]": (Two[int, str], ('{"first": 1, "second": ["a"]}', '{"first": "x", "second": [1]}')),
    "Two": (Two, ('{"first": [], "second": [1, "a"]}',)),
    "Half[str]": (Half[str], ('{"first": 1, "second": ["a"], "third": "b"}',
                              '{"first": "x", "second": [1], "third": 2}')),
    "StructTwo[int, str]": (StructTwo[int, str], ('{"first": 1, "second": {"a": "b"}}',
                                                  '{"first": "x", "second": {"a": 1}}')),
    "Deep[str]": (Deep[str], ('{"first": ["a"], "second": [1], "last": "b"}',
                              '{"first": [1], "second": ["x"], "last": 2}')),
    "More[int]": (More[int], ('{"item": [1], "last": 2}', '{"item": 1, "last": "x"}')),
    "Named[int]": (Named[int], ("[1]", "[1, [2]]", '["x"]', '[1, ["x"]]')),
    "AttributesOf[int]": (AttributesOf[int], ('{"item": 1}', '{"item": "x", "none": "y"}')),
    "Sides": (Sides, ('{"left": 1, "right": "a"}', '{"left": "x", "right": 1}')),
    "Joined": (Joined, ('{"left": 1, "right": "a"}', '{"left": "x", "right": 1}')),
    "Chain": (_within(), ('{"size": 1, "next": {"size": 2}}', '{"size": 0, "next": {}}')),
    "Lost": (_lost(), ()),
    "Documented": (Documented, ("1", "2")),
    "Shut": (Shut, ('{"day": "20260101"}', '{"day": 1}')),
    "dict[str, Documented]": (dict[str, Documented], ('{"a": 1}', '{"a": 2}')),
    "a list of a union": (list[int | None], ("[1, null]", '["x"]')),
    "a mapping of unions": (dict[str, list[Place | Plan]],
                            ('{"a": [{"lat": 1}, {"kind": "plan", "steps": []}]}',
                             '{"a": [{"lat": 1}, {"kind": "plan"}]}')),
    "Required and optional": (Partial | None, ('{"a": 1}', "null", "{}")),
    "Final": (Final[int], ("1",)),
    "typing.Tuple": (typing.Tuple, ("[1]",)),  # noqa: UP006
    "typing.Tuple[()]": (typing.Tuple[()], ("[]", "[1]")),  # noqa: UP006
    "typing.List[int]": (typing.List[int], ("[1]", '["x"]')),  # noqa: UP006
    "typing.Dict[str, int]": (typing.Dict[str, int], ('{"a": 1}', "[]")),  # noqa: UP006
    "Optional": (typing.Optional[int], ("1", "null", '"x"')),  # noqa: UP045
    "Pair[int]": (Pair[int], ("[1, 2]", '[1, "x"]')),
    "Day": (Day, ('"20260101"',)),
    "Tree": (Tree, ('{"value": 1}', '{"value": 1, "kids": [{"value": 2}, {"value": "x"}, {}, []]}')),
    "six problems": (dict[str, list[Tree]], ('{"a": [{}], "b": [{"value": "x"}]}',)),
    "many problems": (Described, ('{"place": {"lat": "x"}, "other": {"lat": 91}, "again": {}}',)),
    # Unions.
    "Place | Point | None": (Place | Point | None, ('{"lat": 1}', "[1]", "null", "[0, 0]", '"x"')),
    "Place | Plan": (Place | Plan, ('{"lat": 1}', '{"kind": "plan", "steps": []}', '{"lat": "x"}',
                                    '{"kind": "other"}', '{"answer": {"lat": 2}}', "{}", "7")),
    "list[Place] | list[Plan]": (
        list[Place] | list[Plan], ('[{"lat": 1}]', '[{"kind": "plan", "steps": ["a"]}]',
                                   '[{"lat": "x"}]', '[{"kind": "plan"}]', "[]", "[1]")),
    "dict[str, Place] | dict[str, Plan]": (
        dict[str, Place] | dict[str, Plan],
        ('{"a": {"lat": 1}}', '{"a": {"kind": "plan", "steps": []}}', '{"a": {"lat": "x"}}')),
    "tuple[Place, int] | tuple[Plan, int]": (
        tuple[Place, int] | tuple[Plan, int],
        ('[{"lat": 1}, 2]', '[{"kind": "plan", "steps": []}, 2]', '[{"kind": "plan"}, 2]')),
    "Closed | Numbered": (
        Closed | Numbered, ('{"kind": "closed", "size": 1}', '{"type": 7, "size": 1}', '{"size": 1}',
                            '{"type": 7, "size": "x"}', '{"type": 9, "size": 1}')),
    "PlaceStruct | dict[str, Any]": (
        PlaceStruct | dict[str, Any], ('{"lat": 1}', '{"lat": 1, "x": 2}', '{"lat": 99}', "{}")),
    "Plan | Reply | Place": (
        Plan | Reply | Place, ('{"kind": "reply", "text": "x"}', '{"kind": "plan", "text": "x"}',
                               '{"text": "x"}', '{"lat": 1}')),
    "Any | None": (Any | None, ("1", "null")),
    "int | float | None": (int | float | None, ("1", "1.5", '"2"', '"x"', "null")),
    "bounds of a union": (Annotated[int | list[int] | str, at.Le(5), at.MaxLen(1)],
                          ("5", "6", "[1]", "[1, 2]", '"a"', '"ab"')),
    "Annotated[Place | None]": (Annotated[Place | None, "where"], ('{"lat": 1}', "null", "1")),
    "date | str": (dt.date | str, ('"20260210"', '"2026-02-10T00:00:00Z"', '"soon"', "7")),
    "datetime | str": (dt.datetime | str, ('"2026-02-10"', '"2026-02-10 09:00Z"', '"soon"')),
    "time | date | datetime": (
        dt.time | dt.date | dt.datetime,
        ('"09:00"', '"2026-02-10"', '"2026-02-10T00:00"', '"2026-02-10T09:00"', '"x"')),
    "Decimal | str": (decimal.Decimal | str, ("1.5", '"1.5"', "1", '"x"')),
    "Decimal | int | None": (decimal.Decimal | int | None, ("1.5", "null", "[]")),
    "bool | int": (bool | int, ("true", "1", '"1"', '"true"', "1.5")),
    "Level | str": (Level | str, ('"low"', '"mid"', "1")),
    "Grade | int": (Grade | int, ("1", "3", '"2"', "true")),
    "Literal['a'] | Level | None": (Literal["a"] | Level | None, ('"a"', '"low"', "null", '"b"')),
    "Shade | int": (Shade | int, ('"black"', '"light"', "1", '"1"', '"x"')),
    "list[Plan | Place] | Plan": (
        list[Plan | Place] | Plan,
        ('[{"lat": 1}]', '{"kind": "plan", "steps": []}', '[{"kind": "plan"}]', '{"kind": "x"}')),
    "list[dict[str, Place]] | list[dict[str, Plan]]": (
        list[dict[str, Place]] | list[dict[str, Plan]],
        ('[{"a": {"kind": "plan", "steps": []}}]', '[{"a": {"lat": 1}}]', '[{"a": {"x": 1}}]')),
    "Plain | Line": (Plain | Line, ('[1, "a"]', "[[1, 2], 3]", "[1]", "[]")),
    "Partial | Shut | Derived": (
        Partial | Shut | Derived, ('{"a": 1}', '{"day": "20260101"}', '{"item": 1, "more": "x"}',
                                   '{"item": 1, "a": 1, "b": 2}', "{}", '{"answer": {"a": 1}}')),
    "Described places": (
        Annotated[Place, "one"] | Annotated[Plan, "other"],
        ('{"lat": 1}', '{"kind": "plan", "steps": []}', '{"kind": "plan"}', '{"lat": 91}')),
    # What is refused.
    "two patterns": (Annotated[str, N(pattern="a"), N(pattern="b")], ()),
    "one pattern twice": (Annotated[str, N(pattern="a"), N(pattern="a")], ('"a"', '"b"')),
    "a tuple with a bound": (Annotated[tuple[int, int], at.MinLen(1)], ()),
    "a list with a step": (Annotated[list[int], at.MultipleOf(2), at.MinLen(1)], ()),
    "a pattern of a number": (Annotated[int, N(pattern="a")], ()),
    "a step of days": (Annotated[dt.date, at.MultipleOf(2)], ()),
    "an offset of a date": (Annotated[dt.date, N(tz=True)], ()),
    "another zone": (Annotated[dt.datetime, at.Timezone("CET")], ()),
    "a bound of no member of a union": (Annotated[Place | None, at.Ge(1), at.MaxLen(2)], ()),
    "an object of no meaning": (Annotated[int, 5], ()),
    "a predicate": (Annotated[int, at.Not(bool)], ()),
    "an unknown class": (OwnInit, ()),
    "an unknown class within": (list[dict[str, OwnInit]], ()),
    "object": (object, ()),
    "a name in place of a type": ("Place", ()),
    "a constructor with other names": (WithInit, ()),
    "a constructor with more": (WithMore, ()),
    "LifeOne | LifeTwo": (LifeOne | LifeTwo, ()),
    "bytes in a choice": (Literal[b"x", "y"], ()),
    "an unknown member": (msgspec.defstruct("Odd", [("x", OwnInit)]), ()),
}  # fmt: skip

# Those that pydantic tells and reads, in words that change with its version.
OF_PYDANTIC = ("Model", "OfPydantic", "StringConstraints", "Alarm", "Left", "Mixed]", "Validator")


def tool_with(kind: Any):
    def tool(value):
        """A tool."""

    tool.__annotations__ = {"value": kind}
    return tool


def facts_of(kind: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    """What a model is told of a type, and what each text is read as; or why it is refused.

    `schema` and `definitions` are those of a parameter of a tool. `strict` is the schema of an
    answer in the form of strict modes; `loose` is that of another one, if it is not just the same.
    """
    try:
        result = NodeCompletionParameters().expecting(kind).result_type
    except InvalidParameterError as error:
        return {"refused": str(error)}
    tool = ToolDefinition.from_function(tool_with(kind)).parameters
    schema, definitions = tool["properties"]["value"], tool.get("$defs", {})
    defined = {"$defs": definitions} if definitions else {}
    assert tool == {**of_object({"value": schema}), "additionalProperties": False, **defined}
    facts = {"schema": schema, "definitions": definitions}
    told = result.schema
    if result.is_strict:
        facts["strict"] = told["properties"]["answer"] if is_wrapped(told) else told
        wrapper = {**of_object({"answer": facts["strict"]}), "additionalProperties": False}
        assert told == (wrapper if is_wrapped(told) else facts["strict"])
    elif told not in ({**of_object({"answer": schema}), **defined}, {**schema, **defined}):
        facts["loose"] = told
    return {**facts, "read": {text: what_is_read(result, text) for text in texts}}


def of_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def is_wrapped(schema: dict[str, Any]) -> bool:
    return list(schema["properties"]) == ["answer"]


def what_is_read(result: Any, text: str) -> str:
    """The value as Python writes it, or the text of the error, which ends with the place."""
    try:
        return repr(result.parse(text))
    except ResponseValidationError as error:
        assert f"at `{error.path}`" in str(error)
        start = f"the answer does not fit {result.name}: "
        assert str(error).startswith(start)
        return str(error).removeprefix(start)


def rows() -> dict[str, tuple[Any, tuple[str, ...]]]:
    """The types above and those of `annotation_table`, by name."""
    return TYPES | {
        f"annotation {number}": (row.kind, (*(text for text, _ in row.good), *row.bad))
        for number, row in enumerate(TABLE)
        if not any(word in str(row.kind) for word in OF_PYDANTIC)
    }


def write() -> None:
    """Write the golden file."""
    lines = [f"{json.dumps(name)}: {json.dumps(facts_of(*row))}" for name, row in rows().items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
