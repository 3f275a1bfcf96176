"""Builds the reader of a type, and with it the schema that a model gets."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import functools
import operator
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Sequence

import msgspec

from minillmlib.json_value import JsonObject, JsonValue, encode_json
from minillmlib.structured.annotations import Metadata, describe_comparisons, origin_of
from minillmlib.structured.members import (
    MemberType,
    RecordType,
    doc_of,
    is_record,
    record_type,
    without_qualifiers,
)
from minillmlib.structured.readers import (
    Anything,
    Bounded,
    Choice,
    DescribedRecord,
    Items,
    Leaf,
    Member,
    Moment,
    PydanticReader,
    Reader,
    Record,
    Row,
    Table,
    Union,
)

_LISTS: dict[object, Callable[[list[JsonValue]], JsonValue]] = {
    list: list, abc.Sequence: list, abc.MutableSequence: list, abc.Collection: list,
    abc.Iterable: list, set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset,
}  # fmt: skip
_TABLES = (dict, abc.Mapping, abc.MutableMapping)
_COMPARED = (dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal)
_MOMENTS: dict[object, str] = {dt.datetime: "date-time", dt.date: "date", dt.time: "time"}
_LENGTHS = {"min_length": "min", "max_length": "max"}
_WITHOUT_OFFSET = {
    dt.datetime: "ISO 8601 without an offset from UTC, such as 2026-02-10T09:00:00",
    dt.time: "ISO 8601 without an offset from UTC, such as 09:00:00",
}
_UNIONS = (typing.Union, types.UnionType)
_PYDANTIC_HOOKS = (
    "__get_pydantic_core_schema__", "__pydantic_core_schema__", "__pydantic_config__",
)  # fmt: skip
_NOT_SHAPE = ("title", "description")


class ReaderBuilder:
    """Builds readers of types that share their definitions.

    `definitions` are the schemas of objects, by name: classes of one name get different ones.
    """

    def __init__(self) -> None:
        self.definitions: JsonObject = {}
        self.has_decimals = False
        self._records: list[tuple[JsonValue, Record]] = []
        self._origins: dict[str, object] = {}

    def build(self, kind: JsonValue) -> Reader:
        """Return the reader of a type. Raises `TypeError` if JSON cannot be read as it."""
        metadata = Metadata()
        return self._with_metadata(_unwrap(kind, metadata), metadata)

    def member(self, of: MemberType) -> Member:
        """Return the reader of a member, and what it is by default."""
        metadata = Metadata()
        try:
            kind, is_optional = _without_unset(_unwrap(of.annotation, metadata))
            if of.field is not None:
                metadata.add(of.field)
            reader = self._with_metadata(kind, metadata)
        except Exception as error:  # noqa: BLE001 - the type may run the caller's code
            raise TypeError(f"{error}, in `{of.name}`") from None
        fill = _fill_of(metadata) if of.is_required else None
        is_required = of.is_required and fill is None and not is_optional
        return Member(of.name, of.key, reader, is_required, fill)

    def properties(self, members: Sequence[tuple[Member, MemberType]]) -> JsonObject:
        """Return the keywords of an object with these members."""
        properties = {}
        for member, of in members:
            default = json_of(of.default if member.fill is None else member.fill())
            has_default = not member.is_required and default is not msgspec.UNSET
            schema = member.reader.schema
            properties[member.key] = {**schema, "default": default} if has_default else schema
        required = [member.key for member, _ in members if member.is_required]
        return {"type": "object", "properties": properties, "required": required}

    def _with_metadata(self, kind: JsonValue, metadata: Metadata) -> Reader:
        if metadata.for_pydantic or any(hasattr(kind, name) for name in _PYDANTIC_HOOKS):
            return self._pydantic(kind, metadata)
        reader = self._with_bounds(kind, metadata.bounds)
        if not metadata.keywords:
            return reader
        own = reader.schema.get("description") if metadata.bounds else None
        schema = {**reader.schema, **metadata.keywords}
        if own and "description" in metadata.keywords:
            schema["description"] += f" ({own})"
        if isinstance(reader, Record):  # it may not have all its members yet
            return DescribedRecord(reader, schema)
        return _with_schema(reader, schema)

    def _with_bounds(self, kind: JsonValue, bounds: JsonObject) -> Reader:
        """Return the reader of a type with constraints; `TypeError` names one that it has not."""
        if not bounds:
            return self._plain(kind)
        if origin_of(kind) in _UNIONS:
            return self._union(kind, bounds)
        if kind in _COMPARED:
            return self._comparable(kind, bounds)
        reader = self._plain(kind)
        if isinstance(reader, Items | Table):
            unknown = {name: bound for name, bound in bounds.items() if name not in _LENGTHS}
            if not unknown:
                word = "Items" if isinstance(reader, Items) else "Properties"
                lengths = {_LENGTHS[key] + word: value for key, value in bounds.items()}
                schema = {**reader.schema, **lengths}
                return msgspec.structs.replace(reader, schema=schema, bounds=bounds)
            bounds = unknown
        if not isinstance(reader, Leaf):
            raise TypeError(f"{name_of(kind)} cannot have the constraint {_first_bound(bounds)}")
        try:
            return _leaf(typing.Annotated[kind, msgspec.Meta(**bounds)])
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name_of(kind)} cannot have the constraint {_first_bound(bounds)} ({error})"
            ) from None

    def _comparable(self, kind: JsonValue, bounds: JsonObject) -> Reader:
        reader, bounds = self._plain(kind), dict(bounds)
        for key, bound in list(bounds.items()):
            if kind is decimal.Decimal and type(bound) in (int, float):
                bounds[key] = decimal.Decimal(str(bound))
            is_known = kind in (dt.datetime, dt.time) if key == "tz" else type(bounds[key]) is kind
            if not is_known or (key == "multiple_of" and kind is not decimal.Decimal):
                raise TypeError(f"{name_of(kind)} cannot have the constraint {key}={bound!r}")
        schema = {**reader.schema, "description": describe_comparisons(bounds)}
        if bounds.get("tz") is False:
            del schema["format"]  # RFC 3339 demands an offset
            without = "without an offset from UTC"
            schema["description"] = schema["description"].replace(without, _WITHOUT_OFFSET[kind])
        return Bounded(reader, bounds, schema)

    def _plain(self, kind: JsonValue) -> Reader:  # noqa: PLR0911 - a table of kinds
        origin, args = origin_of(kind), typing.get_args(kind)
        if kind is typing.Any:
            return Anything()
        if origin in _UNIONS:
            return self._union(kind, {})
        if origin is typing.Literal:
            return _choice([(_json_of_choice(value), value) for value in args])
        if origin in _MOMENTS:
            return Moment(origin, {"type": "string", "format": _MOMENTS[origin]})
        if origin in _LISTS:
            return self._items(_LISTS[origin], args[0] if args else typing.Any)
        if origin is tuple:
            return self._tuple(kind, args)
        if origin in _TABLES:
            return self._table(*(args or (str, typing.Any)))
        if isinstance(origin, type) and issubclass(origin, enum.Enum):
            return _enum(origin)
        if is_record(origin):
            return self._record(kind, origin)
        self.has_decimals = self.has_decimals or kind is decimal.Decimal
        return _leaf(kind)

    def _items(self, make: Callable[[list[JsonValue]], JsonValue], kind: JsonValue) -> Reader:
        item = self.build(kind)
        schema: JsonObject = {"type": "array"}
        if item.schema:
            schema["items"] = item.schema
        if make in (set, frozenset):
            schema["uniqueItems"] = True
        return Items(make, item, schema)

    def _tuple(self, kind: JsonValue, args: tuple[JsonValue, ...]) -> Reader:
        if kind in (tuple, typing.Tuple) or args[1:] == (...,):  # noqa: UP006 - as given
            return self._items(tuple, args[0] if args else typing.Any)
        readers = tuple(map(self.build, args))
        return Row(_make_tuple, readers, len(readers), _row_schema(readers, len(readers)))

    def _table(self, key_kind: JsonValue, kind: JsonValue) -> Reader:
        key, item = self.build(key_kind), self.build(kind)
        if not _reads_text(key):
            raise TypeError(
                f"the keys of a JSON object are texts, and none of them is {name_of(key_kind)}; "
                f"use list[tuple[{name_of(key_kind)}, {name_of(kind)}]]"
            )
        schema: JsonObject = {"type": "object", "additionalProperties": item.schema or True}
        bounds = {name: value for name, value in key.schema.items() if name != "type"}
        is_text = key.schema.get("type", "string") == "string" and "anyOf" not in bounds
        if is_text and bounds and all(isinstance(one, str) for one in bounds.get("enum", ())):
            schema["propertyNames"] = key.schema  # names are texts, also those of numbers
        return Table(key, item, schema)

    def _union(self, kind: JsonValue, bounds: JsonObject) -> Reader:
        """Return the reader of a union. Each constraint is that of the types that can have it."""
        readers, held = [], set()
        for arg in typing.get_args(kind):
            own: JsonObject = {}
            for name, bound in bounds.items() if arg is not type(None) else ():
                try:
                    self._restrict(arg, {name: bound})
                except TypeError:
                    continue
                own[name] = bound
            held |= set(own)
            readers.append(self._restrict(arg, own))
        if unused := {name: bound for name, bound in bounds.items() if name not in held}:
            raise TypeError(f"{name_of(kind)} cannot have the constraint {_first_bound(unused)}")
        names = [name_of(arg) for arg in typing.get_args(kind)]
        schemas = [reader.schema for reader in readers]
        self._check_distinct(names, schemas)
        return Union(" | ".join(names), tuple(readers), {"anyOf": schemas})

    def _restrict(self, kind: JsonValue, bounds: JsonObject) -> Reader:
        metadata = Metadata()
        kind = _unwrap(kind, metadata)
        for name, bound in bounds.items():
            metadata.add_bound(name, bound)
        return self._with_metadata(kind, metadata)

    def _check_distinct(self, names: Sequence[str], schemas: Sequence[JsonObject]) -> None:
        shapes: list[JsonObject] = []
        for name, schema in zip(names, schemas, strict=True):
            found = self.definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"))
            shape = {key: value for key, value in (found or {}).items() if key not in _NOT_SHAPE}
            if shape and shape in shapes:
                raise TypeError(
                    f"{name} and another type of the union have the same members; "
                    "give each a Literal that tells them apart"
                )
            shapes.append(shape)

    def _record(self, kind: JsonValue, origin: type) -> Reader:
        for known, record in self._records:
            if known == kind:
                return record
        of = record_type(kind)
        if of.is_array:
            return self._row(of)
        name = self._define(re.sub(r"[^a-zA-Z0-9_.-]", "_", name_of(kind)), kind)
        record = Record(name, {"$ref": f"#/$defs/{name}"}, of.build, is_closed=of.is_closed,
                        tag=of.tag)  # fmt: skip
        self._records.append((kind, record))
        members = [(self.member(member), member) for member in of.members]
        record.members = tuple(member for member, _ in members)
        doc = doc_of(origin)
        schema: JsonObject = {"title": name_of(kind), **({"description": doc} if doc else {})}
        schema |= self.properties(members)
        if of.tag is not None:
            tag, value = of.tag
            schema["properties"] = {tag: {"enum": [value]}, **schema["properties"]}
            schema["required"] = [tag, *schema["required"]]
        if of.is_closed:
            schema["additionalProperties"] = False
        self.definitions[name] = schema
        return record

    def _row(self, of: RecordType) -> Reader:
        members = [self.member(member) for member in of.members]
        readers = [member.reader for member in members]
        count = sum(member.is_required for member in members)
        if of.tag is None:
            return Row(of.build, tuple(readers), count, _row_schema(readers, count))
        readers.insert(0, _choice([(of.tag[1], of.tag[1])]))
        make = _after_tag(of.build)
        return Row(make, tuple(readers), count + 1, _row_schema(readers, count + 1))

    def _pydantic(self, kind: JsonValue, metadata: Metadata) -> Reader:
        """Return the reader of what only pydantic knows, for which it has to be installed."""
        if metadata.has_meta or _has_meta(kind, set()):
            raise TypeError(
                f"{name_of(kind)} is checked by pydantic, which does not know the msgspec.Meta "
                "in it; use pydantic.Field or annotated_types"
            )
        import pydantic  # noqa: PLC0415 - optional; the type comes from it

        whole: JsonValue = kind
        if metadata.items:
            whole = typing.Annotated[(kind, *metadata.items)]
        adapter = pydantic.TypeAdapter(whole)
        schema = self._move_definitions(adapter.json_schema())
        return PydanticReader(adapter, {**schema, **metadata.keywords}, self.definitions)

    def _move_definitions(self, schema: JsonObject) -> JsonObject:
        """Move the definitions of a schema to ours, under names that are free."""
        own = schema.pop("$defs", {})
        origin = encode_json(own)  # a definition of the same text may refer to another one
        names = {name: self._define(name, origin) for name in own}
        renamed = {name: new for name, new in names.items() if name != new}
        for name, new in names.items():
            self.definitions[new] = _rename(own[name], renamed)
        return typing.cast("JsonObject", _rename(schema, renamed))

    def _define(self, name: str, origin: object) -> str:
        """Return a name that no definition of another origin has."""
        number, free = 1, name
        while self._origins.setdefault(free, origin) != origin:
            number += 1
            free = f"{name}_{number}"
        return free


def name_of(kind: JsonValue) -> str:
    """The name of a type, as written in code."""
    is_class = isinstance(kind, type) and typing.get_args(kind) == ()
    return kind.__name__ if is_class else str(kind).replace("typing.", "")


def json_of(value: JsonValue) -> JsonValue:
    """Return a value as JSON, or `UNSET` if it has no form in it."""
    if value is msgspec.UNSET:
        return msgspec.UNSET

    def dump(model: JsonValue) -> JsonValue:
        if hasattr(model, "model_dump"):
            return model.model_dump(mode="json")
        raise TypeError

    try:
        return msgspec.to_builtins(value, enc_hook=dump)
    except Exception:  # noqa: BLE001 - the value may run the caller's code
        return msgspec.UNSET


def _has_meta(kind: JsonValue, seen: set[int]) -> bool:
    """Whether there is a `msgspec.Meta` anywhere within a type."""
    if any(isinstance(item, msgspec.Meta) for item in getattr(kind, "__metadata__", ())):
        return True
    parts = list(typing.get_args(kind))
    if isinstance(kind, type) and id(kind) not in seen:
        seen.add(id(kind))
        try:
            parts += typing.get_type_hints(kind, include_extras=True).values()
        except (NameError, TypeError):
            return False
    return any(_has_meta(part, seen) for part in parts)


def _with_schema(reader: JsonValue, schema: JsonObject) -> Reader:
    return typing.cast("Reader", msgspec.structs.replace(reader, schema=schema))


def _unwrap(kind: JsonValue, metadata: Metadata) -> JsonValue:
    """Return the type within aliases and `Annotated`, whose metadata is added."""
    layers: list[tuple[JsonValue, ...]] = []
    while True:
        kind, _ = without_qualifiers(kind)
        origin, args = origin_of(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            layers.append(kind.__metadata__)
            kind = kind.__origin__
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        elif type(origin).__name__ == "TypeAliasType":
            kind = origin.__value__[args] if args else origin.__value__
        elif isinstance(kind, typing.TypeVar):
            kind = kind.__bound__ or _union_of(kind.__constraints__ or (typing.Any,))
        else:
            break
    for items in reversed(layers):
        for item in items:
            metadata.add(item)
    if kind is typing.LiteralString:
        return str
    return type(None) if kind is None else kind


def _without_unset(kind: JsonValue) -> tuple[JsonValue, bool]:
    if origin_of(kind) not in _UNIONS or msgspec.UnsetType not in typing.get_args(kind):
        return kind, False
    args = tuple(arg for arg in typing.get_args(kind) if arg is not msgspec.UnsetType)
    return _union_of(args), True


def _union_of(kinds: tuple[JsonValue, ...]) -> JsonValue:
    return functools.reduce(operator.or_, kinds)


def _fill_of(metadata: Metadata) -> Callable[[], JsonValue] | None:
    if metadata.default_factory is not msgspec.UNSET:
        return typing.cast("Callable[[], JsonValue]", metadata.default_factory)
    default = metadata.default
    return None if default is msgspec.UNSET else functools.partial(copy.deepcopy, default)


def _leaf(kind: JsonValue) -> Reader:
    """Return the reader of a type that msgspec knows."""
    if kind is object or isinstance(kind, str):
        raise TypeError(f"{kind!r} has no JSON schema")

    def refuse(part: type) -> JsonObject:
        raise TypeError(
            f"{part!r} has no JSON schema; use dataclasses, TypedDicts, msgspec Structs, "
            "pydantic models, enums, plain types or collections of them"
        )

    schema = msgspec.json.schema(kind, schema_hook=refuse)
    return Leaf(kind, schema) if schema else Leaf(kind, refuse(kind))


def _reads_text(reader: Reader) -> bool:
    """Whether a text may fit a type."""
    if isinstance(reader, Union):
        return any(map(_reads_text, reader.branches))
    return not isinstance(reader, Items | Row | Table | Record | DescribedRecord)


def _choice(choices: Sequence[tuple[JsonValue, JsonValue]]) -> Choice:
    return Choice(tuple(choices), {"enum": [json for json, _ in choices]})


def _enum(kind: type[enum.Enum]) -> Reader:
    reader = _choice([(_json_of_choice(member), member) for member in kind])
    doc = doc_of(kind)
    schema = {**reader.schema, **({"description": doc} if doc else {})}
    has_hook = kind._missing_.__func__ is not enum.Enum._missing_.__func__  # type: ignore[attr-defined]
    return Choice(reader.choices, schema, kind if has_hook else None)


def _json_of_choice(value: JsonValue) -> JsonValue:
    plain = value.value if isinstance(value, enum.Enum) else value
    if plain is None or isinstance(plain, str | int | float):
        return plain
    raise TypeError(f"{value!r} has no JSON schema; choices are texts, numbers, bools or None")


def _make_tuple(*values: JsonValue) -> tuple[JsonValue, ...]:
    return values


def _after_tag(make: Callable[..., JsonValue]) -> Callable[..., JsonValue]:
    return lambda _, *values: make(*values)


def _row_schema(readers: Sequence[Reader], min_items: int) -> JsonObject:
    schema: JsonObject = {"type": "array", "minItems": min_items, "maxItems": len(readers)}
    places = {"prefixItems": [reader.schema for reader in readers], "items": False}
    return {**schema, **places} if readers else schema


def _first_bound(bounds: JsonObject) -> str:
    name = min(bounds)
    return f"{name}={bounds[name]!r}"


def _rename(schema: JsonValue, names: dict[str, str]) -> JsonValue:
    """Return a schema whose references have new names."""
    if isinstance(schema, list):
        return [_rename(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    renamed = {key: _rename(value, names) for key, value in schema.items()}
    if isinstance(ref := schema.get("$ref"), str):
        name = ref.removeprefix("#/$defs/")
        renamed["$ref"] = f"#/$defs/{names.get(name, name)}"
    return renamed
