"""What holds for JSON that is looked at while it comes, however it is broken and cut."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise

import pytest
from fuzz_inputs import FACTOR
from hypothesis import HealthCheck, Phase, given, settings
from json_documents import CONTAINERS, LAYOUTS, OBJECTS, SEEDS, repaired, written
from live_wires import CHAT, CLAUDE, broken_ones, cuttings, is_beginning, stream_of

from minillmlib import (
    ArgumentStream,
    JsonChangeKind,
    JsonRepairError,
    MissingFieldError,
    iterate,
)
from minillmlib.json_repair import IncrementalJson

pytestmark = pytest.mark.long

EACH = 12
many = settings(
    max_examples=60 * FACTOR, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip


def is_single(found) -> bool:
    """Whether nothing can take the place of what was shown."""
    return len(found.candidates) == 1 and not any(
        change.kind is JsonChangeKind.REPEATED_KEY for change in found.changes
    )


def values_in(pieces):
    """What a loop over partial values sees, without the stream around it."""
    live = IncrementalJson()
    for piece in pieces:
        live.feed(piece)
        yield live.snapshot()
    try:
        yield live.finish().value
    except JsonRepairError:
        yield None


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_a_growing_value_takes_nothing_back_and_ends_as_the_repair_of_the_whole(
    value, layout, seed
):
    chance = random.Random(seed)
    for text in broken_ones(written(value, layout), seed, EACH):
        found = repaired(text)
        for pieces in cuttings(text, chance):
            values = [value for value in values_in(pieces) if value is not None]
            shown = [repr(value) for value in values]
            if found is None:
                assert values == []
                continue
            assert found.value is None or shown[-1] == repr(found.value)
            if is_single(found):
                for old, new in pairwise(values):
                    assert is_beginning(old, new), (text, pieces)


@many
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_a_value_that_was_seen_never_changes(value, layout, seed):
    chance = random.Random(seed)
    for text in broken_ones(written(value, layout), seed, EACH // 4):
        for pieces in cuttings(text, chance):
            seen = [(value, repr(value)) for value in values_in(pieces)]
            assert [repr(value) for value, _ in seen] == [shown for _, shown in seen]


@settings(many, max_examples=30 * FACTOR)
@given(CONTAINERS, LAYOUTS, SEEDS)
def test_the_values_of_a_stream_are_those_without_repetition(value, layout, seed):
    text, chance = written(value, layout), random.Random(seed)
    for make, _, end, provider in (CHAT, CLAUDE):
        pieces = [piece for piece in cuttings(text, chance)[2] if piece]
        stream = stream_of([*make(pieces), *end()], provider)
        values = list(iterate(stream.partial_json()))
        assert all(old != new for old, new in pairwise(values))
        assert repr(values[-1]) == repr(json.loads(text))
        assert stream.node.text == text


async def told_by(args: ArgumentStream, names, pieces) -> tuple[dict, dict, dict]:
    """What was told of each field, when it was told, and the whole."""
    told, read = {}, dict.fromkeys(names, "")

    async def wait(name: str) -> None:
        told[name] = await args.field(name).wait()

    async def pieces_of(name: str) -> None:
        async for piece in args.field(name).delta():
            read[name] += piece

    whole = {}
    tasks = [asyncio.create_task(ask(name)) for name in names for ask in (wait, pieces_of)]
    try:
        for piece in pieces:
            args.feed(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        whole = args.finish()
    finally:
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
        assert {type(result) for result in results} <= {type(None), *ERRORS}
    return told, read, whole


ERRORS = (MissingFieldError, JsonRepairError)


@many
@given(OBJECTS, LAYOUTS, SEEDS)
def test_what_is_told_of_a_field_is_what_the_whole_arguments_say(value, layout, seed):
    chance = random.Random(seed)
    for text in broken_ones(written(value, layout), seed, EACH // 2):
        found = repaired(text)
        for pieces in cuttings(text, chance):
            names = {*value, *(found.value if found and isinstance(found.value, dict) else ())}
            try:
                told, read, whole = asyncio.run(told_by(ArgumentStream(), names, pieces))
            except JsonRepairError:
                is_read = found and isinstance(found.value, dict) and is_single(found)
                assert not is_read, (text, pieces)
                continue
            assert repr(told) == repr({name: whole[name] for name in told})
            assert told.keys() == names & whole.keys()
            strings = {name: text for name, text in whole.items() if isinstance(text, str)}
            assert {name: text for name, text in read.items() if text} == {
                name: text for name, text in strings.items() if text and name in names
            }
            if found and found.candidates and isinstance(found.value, dict):
                assert repr(whole) == repr(found.value)


@many
@given(OBJECTS, LAYOUTS, SEEDS)
def test_strictly_only_json_is_read_and_what_was_told_stays(value, layout, seed):
    chance = random.Random(seed)
    for text in broken_ones(written(value, layout), seed, EACH // 2):
        for pieces in cuttings(text, chance):
            try:
                told, _, whole = asyncio.run(told_by(ArgumentStream(strict=True), [*value], pieces))
            except JsonRepairError:
                assert text != written(value, layout)
                continue
            assert repr(whole) == repr(json.loads(text or "{}"))
            assert repr(told) == repr({name: whole[name] for name in told})
