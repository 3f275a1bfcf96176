"""Each type of a long table: what a model is told of it, and how texts are read as it, in full."""

from __future__ import annotations

import json
from typing import Annotated

import pydantic
import pytest
from told_types import FILE, facts_of, rows

from minillmlib import InvalidParameterError, NodeCompletionParameters

ROWS = rows()
GOLDEN = json.loads(FILE.read_text())


def test_every_type_is_in_the_golden_file():
    assert list(ROWS) == list(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_told_and_read_is_as_in_the_golden_file(name):
    assert facts_of(*ROWS[name]) == GOLDEN[name]


@pytest.mark.parametrize("name", ["alias", "validation_alias", "serialization_alias"])
def test_another_name_of_a_value_has_no_meaning_outside_of_a_model(name):
    kind = Annotated[int, pydantic.Field(**{name: "q"})]
    with pytest.raises(InvalidParameterError, match=rf"the \w*{name} of FieldInfo.*has no meaning"):
        NodeCompletionParameters().expecting(kind)
