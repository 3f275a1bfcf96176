"""Readers of JSON, one for each kind of type, that check it and convert it to values."""

from __future__ import annotations

import datetime as dt
import decimal
import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, encode_json, excerpt_of
from minillmlib.structured.annotations import comparison_problems
from minillmlib.structured.schemas import count_properties, fit_to_schema

_MAX_PROBLEMS = 5
_JSON_NAMES = {
    dict: "object", list: "array", str: "str", bool: "bool", int: "int", float: "float",
    decimal.Decimal: "float", type(None): "null",
}  # fmt: skip
_SPACE_BEFORE_OFFSET = re.compile(r"\s+(?=(?:Z|[+-]\d\d:?\d\d)$)")


class MisfitError(Exception):
    """A value does not fit its type. `problems` are pairs of a text and a path."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{text} - at `{path}`" for text, path in problems))
        self.problems = problems

    @property
    def path(self) -> str:
        """The path of the first problem."""
        return self.problems[0][1]


class Reading(msgspec.Struct, frozen=True):
    """One reading of a value.

    An exact one does not convert between kinds, such as the text "7" to the number 7: that
    decides between the types of a union. `known` holds what unions found, since each of their
    types may read the same inner values anew: the work stays linear.
    """

    is_exact: bool = False
    known: dict[tuple[int, int, bool], JsonValue] = {}


class Reader(Protocol):
    """Converts JSON to a type. The model gets `schema`.

    `read` raises `MisfitError`.
    """

    @property
    def schema(self) -> JsonObject: ...

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue: ...


class Leaf(msgspec.Struct, frozen=True):
    """A type that msgspec converts, with the constraints that it knows."""

    kind: JsonValue
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        if type(value) is decimal.Decimal and self.kind is not decimal.Decimal:
            value = float(value)
        if reading.is_exact and type(value) is int and self.schema.get("type") == "number":
            raise MisfitError((_mismatch("float", value), path))
        try:
            return msgspec.convert(value, self.kind, strict=reading.is_exact)
        except msgspec.ValidationError as error:
            raise MisfitError((str(error), path)) from None


class Anything(msgspec.Struct, frozen=True):
    """Any JSON, as it is."""

    schema: JsonObject = {}

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:  # noqa: ARG002
        return without_decimals(value)


class Moment(msgspec.Struct, frozen=True):
    """A date, a time or both, in any common form of ISO 8601."""

    kind: type[dt.datetime | dt.date | dt.time]
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        if isinstance(value, str):
            text = _SPACE_BEFORE_OFFSET.sub("", value.strip().upper())
            day = _parse_iso(dt.date, text)
            if self.kind is not dt.datetime:
                moment = day if self.kind is dt.date else _parse_iso(dt.time, text)
            else:
                moment = None if reading.is_exact and day else _parse_iso(dt.datetime, text)
            if moment is None and self.kind is dt.date and not reading.is_exact:
                moment = _day_of(_parse_iso(dt.datetime, text))
            if moment is not None:
                return moment
        try:
            return msgspec.convert(value, self.kind, strict=reading.is_exact)
        except msgspec.ValidationError as error:
            raise MisfitError((str(error), path)) from None


def _parse_iso(
    kind: type[dt.datetime | dt.date | dt.time], text: str
) -> dt.datetime | dt.date | dt.time | None:
    try:
        return kind.fromisoformat(text)
    except ValueError:
        return None


def _day_of(moment: JsonValue) -> dt.date | None:
    is_day = moment is not None and moment.time() == dt.time()
    return moment.date() if is_day else None


class Bounded(msgspec.Struct, frozen=True):
    """A type whose values are compared: dates and decimal numbers with bounds."""

    inner: Reader
    bounds: JsonObject
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        found = self.inner.read(value, path, reading)
        try:
            problems = [(problem, path) for problem in comparison_problems(self.bounds, found)]
        except TypeError as error:  # with and without an offset from UTC
            problems = [(str(error), path)]
        if problems:
            raise MisfitError(*problems)
        return found


class Choice(msgspec.Struct, frozen=True):
    """A `Literal` or an `Enum`: pairs of JSON and value."""

    choices: tuple[tuple[JsonValue, JsonValue], ...]
    schema: JsonObject
    lookup: Callable[[JsonValue], JsonValue] | None = None  # an Enum with a `_missing_`

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        value = without_decimals(value)
        for json, found in self.choices:
            if value == json and isinstance(value, bool) == isinstance(json, bool):
                return found
        if not reading.is_exact and isinstance(value, str):
            text = value.strip().lower()
            for json, found in self.choices:
                if not isinstance(json, str) and encode_json(json).decode() == text:
                    return found
        if self.lookup is not None and isinstance(value, str | int):
            try:
                return self.lookup(value)
            except ValueError:
                pass
        allowed = ", ".join(encode_json(json).decode() for json, _ in self.choices)
        raise MisfitError((f"Expected one of {allowed}, got {excerpt_of(value)}", path))


class Items(msgspec.Struct, frozen=True):
    """A list or set of any length within its bounds."""

    build: Callable[[list[JsonValue]], JsonValue]
    item: Reader
    schema: JsonObject
    bounds: JsonObject = {}

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        if not isinstance(value, list):
            raise MisfitError((_mismatch("array", value), path))
        read = self.item.read
        items = [read(item, f"{path}[{number}]", reading) for number, item in enumerate(value)]
        try:
            found = self.build(items)
        except TypeError as error:  # a set of what has no hash
            raise MisfitError((str(error), path)) from None
        check_length(self.bounds, found, path, "array")
        return found


class Row(msgspec.Struct, frozen=True):
    """An array with a type for each place: a tuple, NamedTuple or array-like Struct."""

    build: Callable[..., JsonValue]
    items: tuple[Reader, ...]
    min_items: int
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        if not isinstance(value, list):
            raise MisfitError((_mismatch("array", value), path))
        if not self.min_items <= len(value) <= len(self.items):
            words = f"{self.min_items} to " if self.min_items < len(self.items) else ""
            problem = f"Expected `array` of length {words}{len(self.items)}, got {len(value)}"
            raise MisfitError((problem, path))
        places = enumerate(zip(self.items, value, strict=False))
        found = [
            reader.read(item, f"{path}[{number}]", reading) for number, (reader, item) in places
        ]
        return build(self.build, path, *found)


class Table(msgspec.Struct, frozen=True):
    """A mapping with any keys of one type."""

    key: Reader
    item: Reader
    schema: JsonObject
    bounds: JsonObject = {}

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        if not isinstance(value, dict):
            raise MisfitError((_mismatch("object", value), path))
        place = f"{path}[...]"
        found = {
            self.key.read(key, place, Reading()): self.item.read(item, place, reading)
            for key, item in value.items()
        }
        check_length(self.bounds, found, path, "object")
        return found


class Member(msgspec.Struct, frozen=True):
    """A member of an object. `fill` gives its default, if its class has none itself."""

    name: str
    key: str
    reader: Reader
    is_required: bool
    fill: Callable[[], JsonValue] | None = None


class Record(msgspec.Struct):
    """An object with named members. A null reads as absent if the member may be missing."""

    name: str
    schema: JsonObject  # a reference to its definition, so that types may be recursive
    build: Callable[..., JsonValue]
    members: tuple[Member, ...] = ()
    is_closed: bool = False
    tag: tuple[str, JsonValue] | None = None

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        return build(self.build, path, **self.read_members(value, path, reading))

    def read_members(self, value: JsonValue, path: str, reading: Reading) -> dict[str, JsonValue]:
        """Return the values of the members that are there, by name."""
        if not isinstance(value, dict):
            raise MisfitError((_mismatch("object", value), path))
        if self.tag is not None and value.get(self.tag[0], self.tag[1]) != self.tag[1]:
            raise MisfitError((f"Invalid value {excerpt_of(value[self.tag[0]])}", path))
        found: dict[str, JsonValue] = {}
        problems: list[tuple[str, str]] = []
        for member in self.members:
            if member.key in value:
                try:
                    place = f"{path}.{member.key}"
                    found[member.name] = member.reader.read(value[member.key], place, reading)
                    continue
                except MisfitError as error:
                    if member.is_required or value[member.key] is not None:
                        problems += error.problems
            elif member.is_required:
                problems.append((f"Object missing required field `{member.key}`", path))
            if member.fill is not None:
                found[member.name] = member.fill()
        problems += self._unknown_keys(value, path)
        if problems:
            raise MisfitError(*problems[:_MAX_PROBLEMS])
        return found

    def _unknown_keys(self, value: JsonObject, path: str) -> list[tuple[str, str]]:
        known = {member.key for member in self.members} | set(self.tag or ())
        unknown = [key for key in value if key not in known] if self.is_closed else []
        return [(f"Object contains unknown field `{excerpt_of(key)}`", path) for key in unknown]


class DescribedRecord(msgspec.Struct, frozen=True):
    """An object whose schema has more keywords, such as the description of one member."""

    inner: Record
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        return self.inner.read(value, path, reading)


class Union(msgspec.Struct, frozen=True):
    """A union: the type that knows most members, then one that fits exactly, then the first."""

    name: str
    branches: tuple[Reader, ...]
    schema: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        key = (id(self), id(value), reading.is_exact)
        if key not in reading.known:
            found = self._find(value, path, reading)
            if not isinstance(value, dict | list):
                return _value_of(found)
            reading.known[key] = found
        return _value_of(reading.known[key])

    def _find(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        """Return the value, or the `MisfitError` of the type that is meant."""
        counts = [count_known(branch, value) for branch in self.branches]
        # Another type would only fit because it ignores members that this one knows.
        branches = [
            branch
            for branch, count in zip(self.branches, counts, strict=True)
            if count == max(counts)
        ]
        misfits: list[MisfitError] = []
        for is_exact in (True,) if reading.is_exact else (True, False):
            misfits = []
            for branch in branches:
                try:
                    return branch.read(value, path, Reading(is_exact, reading.known))
                except MisfitError as error:
                    misfits.append(error)
        return self._choose(path, branches, misfits)

    def _choose(
        self, path: str, branches: Sequence[Reader], misfits: Sequence[MisfitError]
    ) -> MisfitError:
        """Return the problem of the only type that may be meant, or name all of them."""
        others = [
            error
            for branch, error in zip(branches, misfits, strict=True)
            if branch.schema.get("type") != "null"
        ]
        if len(others) == 1:
            return others[0]
        problems = "; ".join(dict.fromkeys(text for error in others for text, _ in error.problems))
        return MisfitError((f"Expected `{self.name}`: {problems}", path))


def count_known(reader: Reader, value: JsonValue, depth: int = 2) -> int:  # noqa: PLR0911 - a table
    """Return how many members of the value are known to the type, to find the type meant.

    It looks into no more than the first item of a list, so that its time is that of one object.
    """
    match reader, value:
        case Choice(), _:
            return sum(value == json and type(value) is type(json) for json, _ in reader.choices)
        case Items(), [first, *_] if depth:
            return count_known(reader.item, first, depth - 1)
        case Anything(), dict():
            return len(value)
        case Table(), dict() if depth and value:
            first = next(iter(value.values()))
            return len(value) + count_known(reader.item, first, depth - 1)
        case Row(), list() if depth:
            pairs = zip(reader.items, value, strict=False)
            return sum(count_known(place, item, depth - 1) for place, item in pairs)
        case Record(), dict():
            there = [member for member in reader.members if member.key in value]
            chosen = [member for member in there if isinstance(member.reader, Choice)]
            is_tagged = reader.tag is not None and value.get(reader.tag[0]) == reader.tag[1]
            matches = sum(count_known(member.reader, value[member.key]) for member in chosen)
            return len(there) + matches + 2 * is_tagged
        case DescribedRecord(), _:
            return count_known(reader.inner, value, depth)
        case Union(), _:
            return max(count_known(branch, value, depth) for branch in reader.branches)
        case PydanticReader(), dict():
            return count_properties(value, reader.schema, reader.definitions)
    return 0


def _value_of(found: JsonValue) -> JsonValue:
    if isinstance(found, MisfitError):
        raise found
    return found


class PydanticReader(msgspec.Struct, frozen=True):
    """A type that pydantic validates."""

    adapter: JsonValue
    schema: JsonObject
    definitions: JsonObject

    def read(self, value: JsonValue, path: str, reading: Reading) -> JsonValue:
        import pydantic_core  # noqa: PLC0415 - of the optional package that the type comes from

        value = without_decimals(value)
        prepared = fit_to_schema(value, self.schema, self.definitions)
        error: JsonValue = None
        for attempt in [value] if prepared == value else [value, prepared]:
            try:  # unlike msgspec, it writes numbers of any length
                text = pydantic_core.to_json(attempt)
                return self.adapter.validate_json(text, strict=reading.is_exact or None)
            except Exception as caught:  # noqa: BLE001 - a model may run any code
                error = caught
        listed = error.errors() if hasattr(error, "errors") else ()
        problems = [(problem["msg"], path + _steps(problem["loc"])) for problem in listed]
        raise MisfitError(*problems or [(describe_exception(error), path)]) from None


def build(make: Callable[..., JsonValue], path: str, /, *args: JsonValue, **kwargs: JsonValue
          ) -> JsonValue:  # fmt: skip
    """Make a value of its members. Raises `MisfitError` for any exception of its class."""
    try:
        return make(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the type may run any code
        raise MisfitError((describe_exception(error), path)) from None


def describe_exception(error: object) -> str:
    """Return the text of an exception of the caller's code."""
    return str(error) if isinstance(error, ValueError | TypeError) and str(error) else repr(error)


def check_length(bounds: JsonObject, found: JsonValue, path: str, name: str) -> None:
    """Raise `MisfitError` unless a collection has as many items as it may."""
    if len(found) < bounds.get("min_length", 0):
        raise MisfitError((f"Expected `{name}` of length >= {bounds['min_length']}", path))
    if len(found) > bounds.get("max_length", len(found)):
        raise MisfitError((f"Expected `{name}` of length <= {bounds['max_length']}", path))


def without_decimals(value: JsonValue) -> JsonValue:
    """Return JSON with floats, where a decoder was asked for decimal numbers."""
    if isinstance(value, dict):
        return {key: without_decimals(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_decimals(item) for item in value]
    return float(value) if isinstance(value, decimal.Decimal) else value


def _mismatch(name: str, value: JsonValue) -> str:
    return f"Expected `{name}`, got `{_JSON_NAMES.get(type(value), type(value).__name__)}`"


def _steps(loc: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
