"""Small texts that are broken in each of many ways, and what is said of them now as ever."""

from __future__ import annotations

from repaired_texts import lines, renewed


def test_what_comes_out_of_each_broken_text_is_what_the_file_says():
    old = lines()
    assert len(old) == len(set(old)) > 1000
    changed = [(line, new) for line in old if (new := renewed(line)) != line]
    assert changed == []
