"""Repair of broken JSON."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    return getattr(import_module("minillmlib.json_repair.repair"), name)
