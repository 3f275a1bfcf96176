"""JSON documents, and what becomes of them: cut, broken, wrapped, or never JSON at all.

Use it for properties of JSON repair and of partial JSON. `broken_json` has examples by name.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from hypothesis import strategies as st

from minillmlib import JsonRepairError, RepairResult, repair

TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab\",:{}[]\\ \n'`</", max_size=12),
    st.sampled_from(
        ["", 'say "hi"', "```json\n{}\n```", "C:\\", "a, b", "it's", '\\"', "//", "😀"]
    ),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CONTAINERS = st.lists(VALUES, max_size=4) | st.dictionaries(TEXTS, VALUES, max_size=4)
OBJECTS = st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4)
LAYOUTS = st.sampled_from([
    {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}, {"indent": 1, "ensure_ascii": False},
])  # fmt: skip
SEEDS = st.integers(0, 2**32)

INSERTED = [*'{}[]()",:\'`\\/#+-=.\n\t \r\0e1tfn“”‘\ud800é', "```", "```json\n", "<think>", "</think>",
            "null", "NaN", "True", "//", "/*", "*/", "...", '""', '"a"', "'a'", '\\"', "\\u", "1e999"]  # fmt: skip


def written(value, layout) -> str:
    return json.dumps(value, **layout)


def repaired(text: str) -> RepairResult | None:
    """Return what `repair` finds, or None if there is nothing."""
    try:
        return repair(text)
    except JsonRepairError:
        return None


def documents(value, layout, seed: int, count: int) -> Iterator[tuple[str, object]]:
    """JSON texts of arrays and objects made of a value's parts, and what they stand for."""
    chance = random.Random(seed)
    parts, keys = [value, "", "a", 0], ["", "a", "it's", 'say "hi"']
    for part in parts:  # it grows meanwhile
        if isinstance(part, list | dict):
            parts += part.values() if isinstance(part, dict) else part
            keys += [key for key in part if isinstance(key, str)]
    small = [part for part in parts if len(repr(part)) < 60]
    yield written(value, layout), value
    for _ in range(count - 1):
        made = chance.choices(small, k=chance.randrange(4))
        for _ in range(chance.randrange(1, 4)):
            made = [made, *chance.choices(small, k=chance.randrange(2))]
            if chance.randrange(2):
                made = {chance.choice(keys): item for item in made}
        yield written(made, layout), made


def mutations(text: str, seed: int, count: int) -> Iterator[str]:
    """The text with one to six changes, as many times; now and then garbage alone."""
    chance = random.Random(seed)
    for _ in range(count):
        if chance.random() < 0.1:
            yield "".join(chance.choices(INSERTED, k=chance.randrange(30)))
            continue
        changed = text
        for _ in range(chance.randrange(1, 7)):
            changed = _mutated(changed, chance)
        yield changed


def _mutated(text: str, chance: random.Random) -> str:
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.randrange(4))
    match chance.randrange(5):
        case 0:
            return text[:start] + text[end:]
        case 1:
            return text[:start]
        case 2:
            return text[:start] + text[start:end] * 2 + text[end:]
        case _:
            return text[:start] + chance.choice(INSERTED) + text[start:]


def pieces_of(text: str, chance: random.Random, most: int = 0) -> list[str]:
    """The text in pieces of random sizes."""
    most = most or chance.choice([1, 3, 20])
    pieces, place = [], 0
    while place < len(text):
        size = chance.randint(1, most)
        pieces.append(text[place : place + size])
        place += size
    return pieces
