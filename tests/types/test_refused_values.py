"""Each value that a user may get wrong, and the whole text of the error; or none, at the bounds."""

from __future__ import annotations

from decimal import Decimal

import pytest
from recorded_values import PUBLIC, recorded, refusal_of

from minillmlib.types.events import as_observer
from minillmlib.types.parameters import node_parameters
from minillmlib.types.tools import as_tool, as_tool_choice

RECORDED = recorded("refused_values.txt")
NAMES = {
    **PUBLIC,
    "Decimal": Decimal,
    "as_observer": as_observer,
    "as_tool": as_tool,
    "as_tool_choice": as_tool_choice,
    "node_parameters": node_parameters,
}


def kind_of(expression: str) -> str:
    return expression.partition("(")[0].partition(".")[0]


@pytest.mark.parametrize("kind", dict.fromkeys(map(kind_of, RECORDED)))
def test_a_wrong_value_is_refused_in_these_words_and_one_at_the_bound_is_not(kind):
    texts = {one: text for one, text in RECORDED.items() if kind_of(one) == kind}
    assert {one: refusal_of(one, NAMES) for one in texts} == texts
