"""The form of every value: its fields with their defaults, whether it can change, how it is saved.

`tests/golden/forms.txt` has a line for each value, each enumeration, each choice of words and each error.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from enum import Enum
from typing import Literal, get_args, get_origin

import msgspec
import pytest

import minillmlib
import minillmlib.types
from golden import GOLDEN
from minillmlib import CompletionParameters, Message, MiniLLMError, Usage

MODULES = [
    importlib.import_module(name)
    for name in (
        *(f"minillmlib.types.{module.name}" for module in pkgutil.iter_modules(minillmlib.types.__path__)),
        "minillmlib.auth.credentials", "minillmlib.auth.secret", "minillmlib.errors",
        "minillmlib.generator", "minillmlib.local.process", "minillmlib.local.transport",
    )
]  # fmt: skip


def form_of(value: type) -> str:
    """Fields and defaults as they are written, and what else can be seen of a struct."""
    signature, config = inspect.signature(value), value.__struct_config__
    fields = [str(one.replace(annotation=one.empty)) for one in signature.parameters.values()]
    first = next((n for n, one in enumerate(signature.parameters.values())
                  if one.kind is one.KEYWORD_ONLY), None)  # fmt: skip
    if first is not None:
        fields.insert(first, "*")
    can = ["may change"] if not config.frozen else []
    can += ["omits defaults"] if config.omit_defaults else []
    can += [f"tagged {config.tag}"] if config.tag is not None else []
    can += ["weakly referenced"] if config.weakref else []
    can += ["has a dict"] if config.dict else []
    return "; ".join([f"{value.__name__}({', '.join(fields)})", *can])


def written(signature: inspect.Signature) -> str:
    """A signature without its annotations."""
    some = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=some, return_annotation=signature.empty))


def defaults_of(value: type) -> dict[str, str]:
    """The methods of a class that have defaults, as they are written."""
    found = {}
    for name, method in vars(value).items():
        function = inspect.unwrap(getattr(method, "__func__", method))
        if inspect.isfunction(function) and not name.startswith("_"):
            signature = inspect.signature(function)
            if any(one.default is not one.empty for one in signature.parameters.values()):
                found[f"{value.__name__}.{name}"] = f"{value.__name__}.{name}{written(signature)}"
    return found


def kind_of(error: type[MiniLLMError]) -> str:
    """The bases of an error, and what a caller may conclude from it."""
    made = error("x")
    says = ["retryable"] if made.is_retryable else []
    says += ["allows a fallback"] if made.allows_fallback else []
    says += ["may be sent"] if made.was_sent else []
    bases = ", ".join(base.__name__ for base in error.__bases__)
    takes = written(inspect.signature(error)) if "__init__" in vars(error) else ""
    return "; ".join([f"{error.__name__}({bases}){takes}", *says])


def forms() -> list[str]:
    lines = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if name.startswith("_") or name == "Preset":  # a row of our own
                continue
            if isinstance(value, type) and value.__module__.startswith("minillmlib"):
                lines |= defaults_of(value)
            if isinstance(value, type) and issubclass(value, MiniLLMError):
                lines[name] = kind_of(value)
            elif isinstance(value, type) and issubclass(value, msgspec.Struct):
                lines[value.__name__] = form_of(value)
            elif isinstance(value, type) and issubclass(value, Enum) and list(value):
                members = (f"{one.name}={one.value}" for one in value)
                lines[name] = f"{name}: {', '.join(members)}"
            elif get_origin(value) is Literal:
                lines[name] = f"{name}: {' | '.join(get_args(value))}"
    return sorted(lines.values())


def test_each_value_has_the_fields_and_defaults_that_are_recorded():
    assert forms() == (GOLDEN / "values" / "forms.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("value", [Message.user("x"), Usage(), CompletionParameters()])
def test_a_value_cannot_be_changed(value):
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)
