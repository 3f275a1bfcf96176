"""Finds the members of classes: dataclasses, TypedDicts, Structs, attrs classes, NamedTuples."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable

import msgspec

from minillmlib.json_value import JsonObject, JsonValue
from minillmlib.structured.annotations import is_field, origin_of

_OPTIONAL = ("NotRequired", "Required")
_GENERATED_DOCS = ("An enumeration.", "dict() -> new empty dictionary")


class MemberType(msgspec.Struct, frozen=True):
    """A member as its class declares it. `field` is a `pydantic.Field` in place of a default."""

    name: str
    key: str
    annotation: JsonValue
    is_required: bool
    default: JsonValue = msgspec.UNSET
    field: JsonValue = None


class RecordType(msgspec.Struct, frozen=True):
    """A class with named members. Those of an array come in their order, after its `tag`."""

    build: Callable[..., JsonValue]
    members: tuple[MemberType, ...]
    is_closed: bool = False
    is_array: bool = False
    tag: tuple[str, JsonValue] | None = None


def is_record(kind: object) -> bool:
    """Whether this is a class with members, of a kind that is read here."""
    if not isinstance(kind, type):
        return False
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    is_struct = issubclass(kind, msgspec.Struct)
    has_fields = dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__")
    return is_named_tuple or is_struct or has_fields or _is_typed_dict(kind)


def record_type(kind: JsonValue) -> RecordType:
    """Return the members of a class. Raises `TypeError` if it cannot be built from them."""
    origin = origin_of(kind)
    if issubclass(origin, msgspec.Struct):
        return _struct(kind, origin)
    try:
        annotations = _annotations_of(kind, origin)
    except NameError as error:
        raise TypeError(
            f"an annotation of {origin.__name__} cannot be read ({error}); "
            "define the types that it names outside of functions"
        ) from None
    if _is_typed_dict(origin):
        members = [_typed_dict_member(*pair, origin) for pair in annotations.items()]
        return RecordType(dict, tuple(members))
    if issubclass(origin, tuple):
        defaults = origin._field_defaults
        members = [
            _member(name, annotations.get(name, typing.Any), defaults.get(name, msgspec.UNSET))
            for name in origin._fields
        ]
        return RecordType(origin, tuple(members), is_array=True)
    members = _fields_of(origin, annotations)
    _check_constructor(origin, [member.name for member in members])
    return RecordType(origin, tuple(members))


def doc_of(kind: type) -> str:
    """Return the docstring that the user wrote for a class, else `""`."""
    doc = inspect.cleandoc(vars(kind).get("__doc__") or "")
    is_made = doc.startswith(f"{kind.__name__}(") and doc.endswith(")")
    return "" if is_made or doc.startswith(_GENERATED_DOCS) else doc


def without_qualifiers(annotation: JsonValue) -> tuple[JsonValue, bool | None]:
    """Return a TypedDict's annotation without `Required` and the like, and what they say."""
    is_required = None
    while name := getattr(origin_of(annotation), "_name", None):
        if name not in (*_OPTIONAL, "ReadOnly", "Final"):
            break
        if name in _OPTIONAL:
            is_required = name == "Required"
        annotation = typing.get_args(annotation)[0]
    return annotation, is_required


def _is_typed_dict(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def _member(name: str, annotation: JsonValue, default: JsonValue, *, has_factory: bool = False,
            key: str | None = None) -> MemberType:  # fmt: skip
    if is_field(default):
        return MemberType(name, key or name, annotation, is_required=True, field=default)
    is_required = default is msgspec.UNSET and not has_factory
    return MemberType(name, key or name, annotation, is_required, default)


def _struct(kind: JsonValue, origin: type[msgspec.Struct]) -> RecordType:
    config = origin.__struct_config__
    members = [
        _member(
            field.name, field.type,
            msgspec.UNSET if field.default is msgspec.NODEFAULT else field.default,
            has_factory=field.default is msgspec.UNSET
            or field.default_factory is not msgspec.NODEFAULT,
            key=field.encode_name,
        )
        for field in msgspec.structs.fields(kind)
    ]  # fmt: skip
    tag = None if config.tag is None else (config.tag_field or "type", config.tag)
    return RecordType(
        origin, tuple(members), config.forbid_unknown_fields, bool(config.array_like), tag
    )


def _typed_dict_member(name: str, annotation: JsonValue, origin: JsonValue) -> MemberType:
    # `__required_keys__` does not see a NotRequired within annotations that are texts.
    annotation, is_required = without_qualifiers(annotation)
    if is_required is None:
        is_required = name in origin.__required_keys__
    return MemberType(name, name, annotation, is_required)


def _fields_of(origin: JsonValue, annotations: JsonObject) -> list[MemberType]:
    if dataclasses.is_dataclass(origin):
        return [
            _member(
                field.name, annotations[field.name],
                msgspec.UNSET if field.default is dataclasses.MISSING else field.default,
                has_factory=field.default_factory is not dataclasses.MISSING,
            )
            for field in dataclasses.fields(origin) if field.init
        ]  # fmt: skip
    members = []
    for field in origin.__attrs_attrs__:
        if field.init:
            kind_of_default = type(field.default).__name__
            is_required = kind_of_default == "_Nothing"
            has_value = kind_of_default not in ("_Nothing", "Factory")
            default = field.default if has_value else msgspec.UNSET
            annotation = annotations.get(field.name, typing.Any)
            name = field.alias or field.name
            members.append(MemberType(name, field.name, annotation, is_required, default))
    return members


def _check_constructor(origin: type, names: list[str]) -> None:
    parameters = inspect.signature(origin).parameters.values()
    known = {parameter.name for parameter in parameters}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if not takes_any and (unknown := set(names) - known):
        raise TypeError(f"{origin.__name__} cannot be made with its member {min(unknown)}")
    for parameter in parameters:
        is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if is_named and parameter.default is parameter.empty and parameter.name not in names:
            raise TypeError(f"{origin.__name__} also needs {parameter.name}, which is no member")


def _annotations_of(kind: JsonValue, origin: JsonValue) -> JsonObject:
    """Return the annotations, with the parameters of generic classes filled in."""
    try:
        annotations = typing.get_type_hints(origin, include_extras=True)
    except NameError:  # a class within a function that names itself
        local = {origin.__name__: origin}
        annotations = typing.get_type_hints(origin, localns=local, include_extras=True)
    bindings: dict[type, dict[JsonValue, JsonValue]] = {}
    _bind(kind, {}, bindings)
    if not any(bindings.values()):
        return annotations
    filled = {}
    for name, annotation in annotations.items():
        if _is_typed_dict(origin):  # its bases are not in its `__mro__`; each has those of its own
            declaring = [base for base in bindings if name in getattr(base, "__annotations__", ())]
            own = bindings[declaring[-1]]
        else:
            declaring = [
                base for base in origin.__mro__ if name in vars(base).get("__annotations__", ())
            ]
            own = bindings.get(declaring[0], {})
        filled[name] = _fill(annotation, own)
    return filled


def _bind(
    kind: JsonValue,
    outer: dict[JsonValue, JsonValue],
    bindings: dict[type, dict[JsonValue, JsonValue]],
) -> None:
    origin, args = origin_of(kind), typing.get_args(kind)
    parameters = getattr(origin, "__parameters__", ())
    own = dict(zip(parameters, (_fill(arg, outer) for arg in args), strict=False))
    bindings.setdefault(origin, own)
    for base in getattr(origin, "__orig_bases__", ()):
        generic = typing.get_origin(base)
        if isinstance(generic, type) and generic is not typing.Generic:
            _bind(base, own, bindings)
    for base in getattr(origin, "__bases__", ()):
        if base not in bindings and base is not object:
            _bind(base, own, bindings)


def _fill(annotation: JsonValue, bound: dict[JsonValue, JsonValue]) -> JsonValue:
    if isinstance(annotation, typing.TypeVar) and annotation in bound:
        return bound[annotation]
    parameters = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    return annotation[tuple(bound.get(parameter, parameter) for parameter in parameters)]
