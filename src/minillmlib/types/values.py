"""Changed copies of frozen values, and checks of their fields. None, an unset field, passes."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.json_value import JsonValue, excerpt_of, plain_value, with_article

StructT = TypeVar("StructT", bound=msgspec.Struct)


def replace(value: StructT, changes: Mapping[str, object]) -> StructT:
    """Return a copy of `value` with some fields changed and validated."""
    fields = value.__struct_fields__
    for name in changes:
        if name not in fields:
            raise InvalidParameterError(
                f"there is no field {name!r}; the fields are {', '.join(fields)}"
            )
    return msgspec.structs.replace(value, **changes)


def check_fields(
    value: msgspec.Struct, checks: Mapping[str, Callable[[str, object], None]]
) -> None:
    """Check the fields of a new value that are set, and make their numbers plain ones.

    Neither JSON nor our sums know the numbers of numpy and of enums, for example.
    """
    for name, check in checks.items():
        field = getattr(value, name)
        if field is None:
            continue
        check(name, field)
        if type(field) not in _PLAIN and isinstance(field, Real):
            msgspec.structs.force_setattr(value, name, plain_value(field))


def copy_nested(name: str, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a deep copy of a mapping of the caller, who may change it later."""
    try:
        return copy.deepcopy(dict(values))
    except MiniLLMError:
        raise
    except Exception as error:
        raise InvalidParameterError(
            f"{name} must hold JSON values, and one cannot be copied ({type(error).__name__})"
        ) from error


_PLAIN = (int, float, bool, str)


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Raise `InvalidParameterError` unless `value` has this type."""
    if value is not None and not isinstance(value, kind):
        wanted = with_article(kind.__name__ if isinstance(kind, type) else str(kind))
        raise InvalidParameterError(f"{name} must be {wanted}, not {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InvalidParameterError` unless `value` is one of the choices."""
    if value is not None and value not in choices:
        *others, last = map(repr, choices)
        raise InvalidParameterError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


def check_number(
    name: str, value: object, *, minimum: float | None = None, is_whole: bool = False
) -> None:
    """Raise `InvalidParameterError` unless this is None or a finite number from `minimum` on."""
    if value is None:
        return
    number: JsonValue = value
    if (
        isinstance(value, bool)
        or not isinstance(value, Integral if is_whole else Real)
        or not abs(number) <= sys.float_info.max  # also NaN, and an integer that no float can hold
    ):
        wanted = "a whole number" if is_whole else "a finite number"
        raise InvalidParameterError(f"{name} must be {wanted}, not {excerpt_of(value)}")
    if minimum is not None and number < minimum:
        raise InvalidParameterError(f"{name} must be at least {minimum}, not {value!r}")


def check_required_number(
    name: str, value: object, *, minimum: float | None = None, is_whole: bool = False
) -> None:
    """Do what `check_number` does, and refuse None."""
    if value is None:
        wanted = "a whole number" if is_whole else "a number"
        raise InvalidParameterError(f"{name} must be {wanted}, not None")
    check_number(name, value, minimum=minimum, is_whole=is_whole)


def check_count(count: object) -> None:
    """Raise `InvalidParameterError` unless this is a number of shares."""
    if type(count) is not int or count < 1:
        raise InvalidParameterError(f"the number of shares must be at least 1, not {count!r}")
