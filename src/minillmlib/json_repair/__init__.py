"""Parses broken JSON text, whole or while it streams; knows nothing of models.

The submodules take a tenth of the time of `import minillmlib`, so each is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minillmlib.json_repair.api import PartialJson, loads, repair, repair_json
    from minillmlib.json_repair.changes import JsonChange, JsonChangeKind, RepairResult
    from minillmlib.json_repair.incremental import IncrementalJson, IncrementalObject

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

_MODULES = {
    "api": ("PartialJson", "loads", "repair", "repair_json"),
    "changes": ("JsonChange", "JsonChangeKind", "RepairResult"),
    "incremental": ("IncrementalJson", "IncrementalObject"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
