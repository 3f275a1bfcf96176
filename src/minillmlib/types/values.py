"""Changed copies of frozen values, and checks of their fields. None, an unset field, passes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError

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


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise `InvalidParameterError` unless `value` has this type."""
    if value is not None and not isinstance(value, kind):
        raise InvalidParameterError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `InvalidParameterError` unless `value` is one of the choices."""
    if value is not None and value not in choices:
        *others, last = map(repr, choices)
        raise InvalidParameterError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


def check_number(
    name: str, value: object, *, minimum: float | None = None, is_whole: bool = False
) -> None:
    """Raise `InvalidParameterError` unless `value` is a finite number of at least `minimum`."""
    if value is None:
        return
    if (
        not isinstance(value, int if is_whole else int | float)
        or isinstance(value, bool)
        or not abs(value) <= sys.float_info.max  # also NaN, and an integer that no float can hold
    ):
        wanted = "a whole number" if is_whole else "a finite number"
        raise InvalidParameterError(f"{name} must be {wanted}, not {value!r}")
    if minimum is not None and value < minimum:
        raise InvalidParameterError(f"{name} must be at least {minimum}, not {value!r}")
