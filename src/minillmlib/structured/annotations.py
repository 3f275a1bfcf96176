"""Reads the descriptions and constraints beside a type in `Annotated[...]`."""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Iterable, Iterator
from operator import ge, gt, le, lt

import msgspec

from minillmlib.json_value import JsonObject, JsonValue

_MIN, _MAX = ("ge", "gt", "min_length"), ("le", "lt", "max_length")
_CONSTRAINTS = (*_MIN, *_MAX, "multiple_of", "pattern", "tz")
_COMPARISONS = {
    "ge": (ge, "at least"), "gt": (gt, "greater than"),
    "le": (le, "at most"), "lt": (lt, "less than"),
}  # fmt: skip
_KEYWORDS = ("title", "description", "examples", "deprecated")
_MODEL_ONLY = {"alias", "validation_alias", "serialization_alias"}


class UnknownMetadataError(TypeError):
    """An object beside a type has no meaning here."""


class Metadata(msgspec.Struct):
    """The metadata of one type.

    `keywords` are for its schema; `bounds` are the constraints, in msgspec's names. A
    `for_pydantic` type has constraints that only pydantic knows.
    """

    keywords: JsonObject = {}
    bounds: JsonObject = {}
    default: JsonValue = msgspec.UNSET
    default_factory: JsonValue = msgspec.UNSET
    for_pydantic: bool = False
    has_meta: bool = False
    items: tuple[JsonValue, ...] = ()

    def add(self, item: JsonValue) -> None:
        """Add one object of an `Annotated`. Raises `UnknownMetadataError` if it has no meaning."""
        self.items = (*self.items, item)
        self._read(item)

    def add_bound(self, name: str, bound: JsonValue) -> None:
        """Add a constraint; of two, the narrower one stays."""
        if isinstance(bound, re.Pattern):
            if bound.flags & ~re.UNICODE:
                raise UnknownMetadataError(f"JSON schemas have no flags as those of {bound!r}")
            bound = bound.pattern
        given = self.bounds.setdefault(name, bound)
        if name in (*_MIN, *_MAX):
            self.bounds[name] = (max if name in _MIN else min)(given, bound)
        elif given != bound:
            raise UnknownMetadataError(f"one type has two of {name}: {given!r} and {bound!r}")

    def _read(self, item: JsonValue) -> None:
        documentation = item if isinstance(item, str) else getattr(item, "documentation", None)
        if isinstance(documentation, str):  # also that of a `typing.Doc`
            self.keywords["description"] = documentation
        elif isinstance(item, msgspec.Meta):
            self._add_meta(item)
        elif is_field(item):
            self._add_field(item)
        elif hasattr(item, "__is_annotated_types_grouped_metadata__"):
            for part in item:
                self._read(part)
        elif item is not None:
            self._read_constraint(item)

    def _read_constraint(self, item: JsonValue) -> None:
        if _module_of(item) == "annotated_types" and (known := _constraints_of(item)):
            for name, bound in known:
                self.add_bound(name, bound)
        elif _module_of(item) != "pydantic":
            raise UnknownMetadataError(
                f"{item!r} in an Annotated has no meaning here; use a text, msgspec.Meta, "
                "pydantic.Field or a constraint of annotated_types"
            )
        elif [name for name, value in _attributes(item) if value is not None] == ["pattern"]:
            self.add_bound("pattern", item.pattern)
        else:
            self.for_pydantic = True

    def _add_meta(self, meta: msgspec.Meta) -> None:
        self.has_meta = True
        self._add_keywords(meta, ("title", "description", "examples"))
        self.keywords.update(meta.extra_json_schema or {})
        for name in _CONSTRAINTS:
            if (bound := getattr(meta, name)) is not None:
                self.add_bound(name, bound)

    def _add_field(self, field: JsonValue) -> None:
        if set_names := [name for name in _MODEL_ONLY if getattr(field, name) is not None]:
            raise UnknownMetadataError(
                f"the {min(set_names)} of {field!r} has no meaning outside of a pydantic model"
            )
        self._add_keywords(field, _KEYWORDS)
        if isinstance(field.json_schema_extra, dict):
            self.keywords.update(field.json_schema_extra)
        is_callable = callable(field.json_schema_extra)
        if is_callable or not isinstance(field.discriminator, str | None):
            self.for_pydantic = True
        if not field.is_required():
            self.default = field.default if field.default_factory is None else msgspec.UNSET
            self.default_factory = field.default_factory or msgspec.UNSET
        for part in field.metadata:
            self._read(part)

    def _add_keywords(self, source: JsonValue, names: Iterable[str]) -> None:
        for name in names:
            if (value := getattr(source, name)) is not None:
                self.keywords[name] = value


def origin_of(kind: JsonValue) -> JsonValue:
    """Return the class of a generic type, or the type itself."""
    origin: JsonValue = typing.get_origin(kind)
    return kind if origin is None else origin


def is_field(item: JsonValue) -> bool:
    """Whether this is a `pydantic.Field(...)`."""
    fields = sys.modules.get("pydantic.fields")
    return fields is not None and isinstance(item, fields.FieldInfo)


def comparison_problems(bounds: JsonObject, value: JsonValue) -> Iterator[str]:
    """Yield the problems of a value that can be compared."""
    for name, (holds, words) in _COMPARISONS.items():
        if name in bounds and not holds(value, bounds[name]):
            yield f"Expected a value {words} {bounds[name]}"
    if value is not None and (step := bounds.get("multiple_of")) and value % step:
        yield f"Expected a multiple of {step}"
    if "tz" in bounds and bounds["tz"] != (value.tzinfo is not None):
        yield f"Expected a value with{'' if bounds['tz'] else 'out'} an offset from UTC"


def describe_comparisons(bounds: JsonObject) -> str:
    """Return the constraints as words, for values that JSON schemas cannot compare."""
    parts = [
        f"{words} {bounds[name]}" for name, (_, words) in _COMPARISONS.items() if name in bounds
    ]
    if "multiple_of" in bounds:
        parts.append(f"a multiple of {bounds['multiple_of']}")
    if "tz" in bounds:
        parts.append(f"with{'' if bounds['tz'] else 'out'} an offset from UTC")
    return ", ".join(parts)


def _constraints_of(item: JsonValue) -> list[tuple[str, JsonValue]]:
    """Return the constraints of an object of annotated_types; none if it has other meanings."""
    if type(item).__name__ == "Timezone":
        return [("tz", item.tz is ...)] if item.tz in (None, ...) else []
    return [(name, value) for name, value in _attributes(item) if name in _CONSTRAINTS]


def _attributes(item: JsonValue) -> list[tuple[str, JsonValue]]:
    names = getattr(item, "__dict__", getattr(item, "__slots__", ()))
    return [(name, getattr(item, name)) for name in names]


def _module_of(item: JsonValue) -> str:
    kind = item if isinstance(item, type) else type(item)
    return kind.__module__.partition(".")[0]
