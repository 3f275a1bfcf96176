"""What holds for the repair of any text (P1 to P10), under thousands of random ones."""

from __future__ import annotations

import copy
import json
import random
import sys
import tracemalloc

import msgspec
import pytest
from broken_json import BROKEN, CUT
from broken_texts import broken_texts
from fuzz_inputs import FACTOR
from hypothesis import HealthCheck, Phase, given, settings
from json_documents import (
    CONTAINERS,
    LAYOUTS,
    SEEDS,
    VALUES,
    documents,
    mutations,
    pieces_of,
    repaired,
    written,
)

from minillmlib import JsonRepairError, loads, repair, repair_json
from minillmlib.json_repair import PartialJson

pytestmark = pytest.mark.long

DOCUMENTS, EACH = 250 * FACTOR, 80  # 20,000 inputs for each property
many = settings(
    max_examples=DOCUMENTS, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


def scanned(text, pieces=None):
    """What the scanner says, without the fast way for valid text."""
    partial = PartialJson()
    for piece in pieces or [text]:
        partial.feed(piece)
    try:
        return partial.finish()
    except JsonRepairError:
        return None


def refuse_constant(name):
    raise AssertionError(name)


@many
@given(VALUES, LAYOUTS, SEEDS)
def test_p1_valid_json_is_unchanged(value, layout, seed):
    for text, _ in documents(value, layout, seed, EACH):
        assert repair_json(text) == text
        assert repr(loads(text)) == repr(json.loads(text))
        assert repair(text).changes == ()
        assert repair(text).complete


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p1_the_scanner_alone_reads_valid_json_as_a_json_parser_does(value, layout, seed):
    for text, _ in documents(value, layout, seed, EACH):
        found = scanned(text, [text])
        assert repr(found.value) == repr(json.loads(text))
        assert found.changes == ()
        assert found.complete


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p2_p3_p4_p10_whatever_comes_in_json_comes_out_that_needs_no_repair(value, layout, seed):
    for broken in broken_documents(value, layout, seed):
        try:
            text = repair_json(broken)
        except JsonRepairError:
            continue
        text.encode()
        again = json.loads(text, parse_constant=refuse_constant)
        assert repr(again) == repr(loads(broken))
        assert msgspec.json.decode(text) == again
        assert repair_json(text) == text
        assert len(text) <= 6 * len(broken) + 64


def broken_documents(value, layout, seed):
    for number, (text, _) in enumerate(documents(value, layout, seed, EACH // 4)):
        yield from mutations(text, seed + number, 4)


def is_part(part, whole, *, at_end=True) -> bool:
    """Whether a value may be the beginning of another: only its last part may be unfinished."""
    if isinstance(part, dict) and isinstance(whole, dict):
        if not part.keys() <= whole.keys():
            return False
        last = list(part)[-1:]
        return all(is_part(part[key], whole[key], at_end=at_end and [key] == last) for key in part)
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(
            is_part(item, whole[place], at_end=at_end and place == len(part) - 1)
            for place, item in enumerate(part)
        )
    if repr(part) == repr(whole):
        return True
    if isinstance(part, str) and isinstance(whole, str):
        return at_end and whole.startswith(part)
    return at_end and (part is None or isinstance(part, int | float))


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p5_what_is_cut_keeps_all_that_was_finished_and_invents_no_key(value, layout, seed):
    text = written(value, layout)
    whole, chance = json.loads(text), random.Random(seed)
    sizes = {len(text) - 1, 1, *(chance.randrange(1, len(text)) for _ in range(EACH))}
    for size in sizes:
        found = repair(text[:size])
        assert is_part(found.value, whole), text[:size]
        assert not found.complete
        shown = partly(text[:size])
        assert is_part(shown, found.value), text[:size]


def partly(text):
    partial = PartialJson()
    partial.feed(text)
    return partial.value if partial.value is not None else type(loads(text))()


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p6_a_growing_value_takes_nothing_back(value, layout, seed):
    chance = random.Random(seed)
    for text, whole in documents(value, layout, seed, EACH):
        partial, before = PartialJson(), None
        for piece in pieces_of(text, chance, chance.choice([5, 40])):
            partial.feed(piece)
            assert before is None or is_part(before, partial.value)
            before = copy.deepcopy(partial.value)
            assert before is None or is_part(before, whole)
        assert repr(partial.finish().value) == repr(json.loads(text))


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p6_however_a_text_is_cut_into_pieces_its_end_is_the_same(value, layout, seed):
    chance = random.Random(seed)
    for broken in broken_documents(value, layout, seed):
        one, other = scanned(broken), scanned(broken, pieces_of(broken, chance))
        assert repr(one) == repr(other)


def without_last(value):
    """What of a growing value is finished."""
    if not isinstance(value, dict | list) or not value:
        return value
    if isinstance(value, list):
        *kept, last = value
        return [*kept, without_last(last)] if isinstance(last, dict | list) else kept
    kept = dict(value)
    key, last = kept.popitem()
    return kept | {key: without_last(last)} if isinstance(last, dict | list) else kept


SAMPLE = {"text": 'say "hi"', "more": [1, {"a": [True, None]}, "it's"], "n": {"x": -1.5e3}}
# Thoughts whose beginning is not in the text are the one thing that is taken back.
SPLIT = [case[1] for case in BROKEN + CUT if case[0] != "thoughts that began in the prompt"]
SPLIT += [one.text for one in broken_texts()]
SPLIT += [text for text, _ in documents(SAMPLE, {}, 1, 70)]
# A string that ends before a key which is known a piece later.
SPLIT += [
    '{"": [[null, -401],\n\u201d  2.225e-309,\n1e999  10702558102)44\n ],\n "a</think>": -401\n}'
]


@pytest.mark.parametrize("text", SPLIT)
def test_every_split_of_a_text_ends_the_same_and_takes_nothing_back_that_was_finished(text):
    chance, whole = random.Random(repr(text)), repr(scanned(text))
    splits = [[text[:place], text[place:]] for place in range(len(text) + 1)]
    splits += [pieces_of(text, chance) for _ in range(5 * FACTOR)]
    for pieces in splits:
        partial, before = PartialJson(), None
        for piece in pieces:
            partial.feed(piece)
            assert before is None or is_part(before, partial.value), pieces
            before = without_last(copy.deepcopy(partial.value))
        assert repr(partial.finish()) == whole, pieces


AROUND = [
    ("", ""), ("Here is the JSON:\n", "\nAnything else?"), ("```json\n", "\n```"), ("```\n", "```"),
    ("Sure, it's done.\n\n```json\n", "\n```\nThat's \"all\", folks."), ('<think>Hm, {"a": 1}</think>', ""),
    ("<think>\nIs it {1}?\n</think>\n\n", ""), ("The [draft] is no more.</think>", ""), ("callback(", ");"),
    ("See [1] and (this):", " See {that}."), ("\ufeff", "\n\n"), ("JSON = ", ";"), ("> ", "\n"), ("**", "**"),
]  # fmt: skip


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p7_an_object_is_found_in_a_fence_and_in_prose(value, layout, seed):
    for inner, _ in documents(value, layout, seed, EACH):
        before, after = random.Random(inner).choice(AROUND)
        text = f'{{"all": {inner}}}'
        found = repair(before + text + after)
        assert repr(found.value) == repr(json.loads(text)), before + text + after
        assert found.complete


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_p9_memory_is_at_most_ten_times_the_input_beside_twice_the_value(value, layout, seed):
    text = ",\n".join(broken_documents(value, layout, seed)) + ",\n"
    text = "[" + text * (8_000 // len(text) + 1)
    repaired(text)
    tracemalloc.start()
    try:
        found = repaired(text)
        held, most = tracemalloc.get_traced_memory()
        del found
        assert most <= 10 * sys.getsizeof(text) + 2 * held
    finally:
        tracemalloc.stop()


ORDINARY = [
    ("'", "{'name': 'A rather ordinary text of some length', 'is_new': True, 'count': 12},\n"),
    ("prose", 'A long story, without any "JSON" in it: it\'s (nearly) all words.\n'),
    ("inner", '{"text": "she said "well, well" and left the room, without a word", "n": 3},\n'),
    (
        "escapes",
        '{"text": "line\\nline\\tline\\u00e9 and more of this and that and all of it"} ,,\n',
    ),
]


@pytest.mark.parametrize(("name", "line"), ORDINARY)
def test_p9_memory_is_at_most_ten_times_the_input(name, line):
    text = "[" * (name != "prose") + line * (1_000_000 // len(line))
    tracemalloc.start()
    try:
        repaired(text)
        assert tracemalloc.get_traced_memory()[1] <= 10 * len(text)
    finally:
        tracemalloc.stop()
