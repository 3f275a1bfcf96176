"""Changed copies of frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError

__all__ = ["replace"]

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
