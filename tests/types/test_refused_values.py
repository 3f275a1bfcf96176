"""Each value that a user may get wrong, and the whole text of the error; or none, at the bounds.

`tests/golden/refused_values.txt` has them: an expression, and below it the text, indented.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

import minillmlib
from golden import GOLDEN
from minillmlib import GeneratorInfo, InvalidParameterError
from minillmlib.types.events import as_observer
from minillmlib.types.parameters import node_parameters
from minillmlib.types.tools import as_tool, as_tool_choice

RECORDED = GOLDEN / "refused_values.txt"
NAMES = {
    **{name: getattr(minillmlib, name) for name in minillmlib.__all__},
    "Decimal": Decimal,
    "as_observer": as_observer,
    "as_tool": as_tool,
    "as_tool_choice": as_tool_choice,
    "node_parameters": node_parameters,
    "own": GeneratorInfo.custom("own", "https://x.example/v1", "m"),
}


def said_of(expression: str) -> str:
    """The text of the error of an expression; an empty one if it has a value."""
    try:
        eval(expression, dict(NAMES))
    except InvalidParameterError as error:
        return str(error)
    return ""


def recorded() -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            texts[next(reversed(texts))].append(line[4:])
        else:
            texts[line] = []
    return {expression: "\n".join(lines) for expression, lines in texts.items()}


def kind_of(expression: str) -> str:
    return expression.partition("(")[0].partition(".")[0]


@pytest.mark.parametrize("kind", dict.fromkeys(map(kind_of, recorded())))
def test_a_wrong_value_is_refused_in_these_words_and_one_at_the_bound_is_not(kind):
    texts = {one: text for one, text in recorded().items() if kind_of(one) == kind}
    assert {one: said_of(one) for one in texts} == texts
