"""A corpus of broken texts with one clear meaning each: nearly all of them come out right."""

from __future__ import annotations

import random

import pytest
from broken_texts import broken_texts
from json_documents import pieces_of, repaired

from minillmlib import loads
from minillmlib.json_repair import PartialJson

# Texts that this library is known to read in another way.
MISREAD = {
    "quote: one kind opens, the other closes",
    "inner: quotes at both ends",
}


def test_the_corpus_is_large_and_nearly_all_of_it_comes_out_right():
    texts = broken_texts()
    right = [one for one in texts if is_right(one)]
    assert len(texts) >= 120
    assert len({one.text for one in texts}) == len(texts)
    assert len(right) >= 0.97 * len(texts)
    assert {one.name for one in texts} - {one.name for one in right} <= MISREAD


def is_right(one) -> bool:
    found = repaired(one.text)
    if found is None or repr(found.value) != repr(one.value):
        return False
    return found.complete is not one.is_truncated and repr(loads(one.text)) == repr(one.value)


@pytest.mark.parametrize("one", broken_texts(), ids=lambda one: one.name)
def test_a_text_of_the_corpus_in_pieces_ends_as_the_whole(one):
    chance, whole = random.Random(5), finished([one.text])
    cuts = [[one.text[:place], one.text[place:]] for place in range(len(one.text) + 1)]
    for pieces in cuts + [pieces_of(one.text, chance) for _ in range(10)]:
        assert finished(pieces) == whole


def finished(pieces):
    partial = PartialJson()
    for piece in pieces:
        partial.feed(piece)
    return repr(partial.finish())
