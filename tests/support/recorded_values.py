"""Expressions with what they are, or how they are refused, as golden files record it.

Such a file has an expression at the beginning of a line, and below it, indented, its value or the
text of its `InvalidParameterError`. `said` is for other errors of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import minillmlib
from golden import GOLDEN
from minillmlib import GeneratorInfo, InvalidParameterError, MiniLLMError

EMPTY = re.compile(r", \w+=(?:None|0|False|''|\(\)|\{\})(?=[,)])")
PUBLIC = {
    **{name: getattr(minillmlib, name) for name in minillmlib.__all__},
    "own": GeneratorInfo.custom("own", "https://x.example/v1", "m"),
}


def recorded(file: str) -> dict[str, str]:
    """The expressions of a golden file, with the text below each."""
    texts: dict[str, list[str]] = {}
    for line in (GOLDEN / "values" / file).read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            texts[next(reversed(texts))].append(line[4:])
        else:
            texts[line] = []
    return {expression: "\n".join(lines) for expression, lines in texts.items()}


def refusal_of(expression: str, names: dict[str, object]) -> str:
    """The text of the error of an expression; an empty one if it has a value."""
    try:
        eval(expression, dict(names))
    except InvalidParameterError as error:
        return str(error)
    return ""


def value_of(expression: str, names: dict[str, object]) -> str:
    """The value of an expression, without the fields that are empty."""
    return EMPTY.sub("", repr(eval(expression, dict(names))))


def said(call: Callable[[], object]) -> str:
    """The name of the class and the text of the error of a call."""
    try:
        call()
    except (MiniLLMError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError
