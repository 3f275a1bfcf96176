"""The same type as dataclass, TypedDict, Struct and pydantic model: told and read alike."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
from dataclasses import asdict, dataclass, is_dataclass
from typing import Annotated, Literal, NotRequired, TypedDict

import msgspec
import pydantic
import pytest

from minillmlib import (
    NodeCompletionParameters,
    ResponseValidationError,
    ToolArgumentError,
    ToolCall,
)


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


Count = Annotated[int, pydantic.Field(ge=1, le=9, description="how many")]
Tags = Annotated[list[Annotated[str, pydantic.Field(min_length=1)]], pydantic.Field(max_length=2)]


@dataclass
class ItemDataclass:
    kind: Literal["item"]
    count: Count
    size: Size = Size.SMALL
    due: dt.date | None = None


@dataclass
class OrderDataclass:
    items: list[ItemDataclass]
    at: dt.datetime
    price: decimal.Decimal
    tags: Tags
    note: str = "none"
    by_day: dict[str, Count] | None = None


class ItemDict(TypedDict):
    kind: Literal["item"]
    count: Count
    size: NotRequired[Size]
    due: NotRequired[dt.date | None]


class OrderDict(TypedDict):
    items: list[ItemDict]
    at: dt.datetime
    price: decimal.Decimal
    tags: Tags
    note: NotRequired[str]
    by_day: NotRequired[dict[str, Count] | None]


class ItemStruct(msgspec.Struct):
    kind: Literal["item"]
    count: Count
    size: Size = Size.SMALL
    due: dt.date | None = None


class OrderStruct(msgspec.Struct):
    items: list[ItemStruct]
    at: dt.datetime
    price: decimal.Decimal
    tags: Tags
    note: str = "none"
    by_day: dict[str, Count] | None = None


class ItemModel(pydantic.BaseModel):
    kind: Literal["item"]
    count: Count
    size: Size = Size.SMALL
    due: dt.date | None = None


class OrderModel(pydantic.BaseModel):
    items: list[ItemModel]
    at: dt.datetime
    price: decimal.Decimal
    tags: Tags
    note: str = "none"
    by_day: dict[str, Count] | None = None


TWINS = pytest.mark.parametrize("kind", [OrderDataclass, OrderDict, OrderStruct, OrderModel])
DEFAULTS = {"note": "none", "by_day": None}
GOOD = {
    "items": [{"kind": "item", "count": 2, "size": "l", "due": "2026-02-10"}],
    "at": "2026-02-10T09:00:00Z", "price": "1.50", "tags": ["a"], "note": "x", "by_day": {"mon": 1},
}  # fmt: skip
VALUE = {
    "items": [{"kind": "item", "count": 2, "size": Size.LARGE, "due": dt.date(2026, 2, 10)}],
    "at": dt.datetime(2026, 2, 10, 9, tzinfo=dt.UTC), "price": decimal.Decimal("1.50"),
    "tags": ["a"], "note": "x", "by_day": {"mon": 1},
}  # fmt: skip


def changed(**changes):
    whole = {**GOOD, **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def item(**changes):
    first = {**GOOD["items"][0], **changes}
    return [{key: value for key, value in first.items() if value is not ...}]


def plain(value):
    """The value as dictionaries, with the defaults that a TypedDict has not."""
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump()
    elif isinstance(value, msgspec.Struct):
        value = {
            **msgspec.structs.asdict(value),
            "items": list(map(msgspec.structs.asdict, value.items)),
        }
    elif is_dataclass(value):
        value = asdict(value)
    items = [{"size": Size.SMALL, "due": None, **one} for one in value["items"]]
    return {**DEFAULTS, **value, "items": items}


def result(kind, value):
    text = msgspec.json.encode(value).decode()
    return NodeCompletionParameters().expecting(kind).result_type.parse(text)


def argument(kind, value):
    def tool(value):
        """A tool."""

    tool.__annotations__ = {"value": kind}
    text = msgspec.json.encode({"value": value}).decode()
    return ToolCall(id="c", name="tool", arguments=text).bind(tool)["value"]


@TWINS
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (GOOD, VALUE),
        (changed(note=None), VALUE | {"note": "none"}),
        (changed(note=..., by_day=...), VALUE | DEFAULTS),
        (changed(by_day=None), VALUE | {"by_day": None}),
        (changed(items=item(size=None, due=None)),
         VALUE | {"items": [VALUE["items"][0] | {"size": Size.SMALL, "due": None}]}),
        (changed(items=item(size=..., due=...)),
         VALUE | {"items": [VALUE["items"][0] | {"size": Size.SMALL, "due": None}]}),
        (changed(items=item(count="2", due="20260210")), VALUE),
        (changed(at="20260210T090000Z"), VALUE),
        (changed(at="2026-02-10 09:00 +00:00"), VALUE),
        (changed(at="2026-02-10 09:00"), VALUE | {"at": dt.datetime(2026, 2, 10, 9)}),  # noqa: DTZ001
        (changed(at="2026-02-10"), VALUE | {"at": dt.datetime(2026, 2, 10)}),  # noqa: DTZ001
        (changed(price=1.5), VALUE),
        (changed(unknown=1), VALUE),
    ],
)  # fmt: skip
def test_twins_read_the_same(kind, given, expected):
    assert plain(result(kind, given)) == expected
    assert plain(argument(kind, given)) == expected


@TWINS
@pytest.mark.parametrize(
    ("given", "path"),
    [
        (changed(items=item(count=0)), "$.items[0].count"),
        (changed(items=item(count=10)), "$.items[0].count"),
        (changed(items=item(count=None)), "$.items[0].count"),
        (changed(items=item(kind="other")), "$.items[0].kind"),
        (changed(items=item(size="m")), "$.items[0].size"),
        (changed(items=item(due="soon")), "$.items[0].due"),
        (changed(at="soon"), "$.at"),
        (changed(at=None), "$.at"),
        (changed(price="much"), "$.price"),
        (changed(tags=[""]), "$.tags[0]"),
        (changed(tags=["a", "b", "c"]), "$.tags"),
        (changed(by_day={"mon": 0}), "$.by_day"),
        (changed(items={}), "$.items"),
    ],
)  # fmt: skip
def test_twins_refuse_the_same_at_the_same_place(kind, given, path):
    with pytest.raises(ResponseValidationError) as wrong:
        result(kind, given)
    assert wrong.value.path.startswith(path)
    with pytest.raises(ToolArgumentError) as caught:
        argument(kind, given)
    assert caught.value.path.startswith(path.replace("$", "$.value"))


@TWINS
def test_twins_tell_the_model_the_same_constraints(kind):
    schema = NodeCompletionParameters().expecting(kind).result_type.schema
    text = msgspec.json.encode(schema).decode()
    for word in (
        "how many",
        '\\"minimum\\"',
        '\\"maximum\\"',
        '\\"minLength\\"',
        '\\"maxItems\\"',
        "date-time",
    ):
        assert word in text or word.replace("\\", "") in text, word
    assert list(schema["properties"]) == list(GOOD)


def test_twins_without_mappings_are_told_the_same_strict_schema():
    kinds = [ItemDataclass, ItemDict, ItemStruct, ItemModel]
    types = [NodeCompletionParameters().expecting(kind).result_type for kind in kinds]
    assert [one.is_strict for one in types] == [True] * 4
    first = types[0].schema["properties"]
    assert first["size"] == {"anyOf": [{"enum": ["s", "l"], "type": "string"}, {"type": "null"}]}
    assert [one.schema for one in types[1:]] == [types[0].schema] * 3
