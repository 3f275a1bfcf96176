"""Parses broken JSON text, whole or while it streams; knows nothing of models.

The submodules take a tenth of the time of `import minillmlib`, so they are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillmlib.json_repair.api import (
        IncrementalJson,
        IncrementalObject,
        PartialJson,
        loads,
        repair,
        repair_json,
    )
    from minillmlib.json_repair.changes import JsonChange, JsonChangeKind, RepairResult

__all__ = [
    "IncrementalJson",
    "IncrementalObject",
    "JsonChange",
    "JsonChangeKind",
    "PartialJson",
    "RepairResult",
    "loads",
    "repair",
    "repair_json",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.api"), name)
    globals()[name] = value
    return value
