"""Reads the corpus of broken texts, each with one clear meaning.

Use it beside `broken_json`, whose examples are about single rules.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

CORPUS = Path(__file__).parents[1] / "json_repair" / "broken_texts.txt"


class BrokenText(NamedTuple):
    """A text, the value that it means, and whether it may have been truncated."""

    name: str
    text: str
    value: Any
    is_truncated: bool


@cache
def broken_texts() -> list[BrokenText]:
    """Return all texts of the corpus."""
    blocks = re.split(r"(?m)^### (?=[a-z]+: )", CORPUS.read_text(encoding="utf-8"))
    return [_read(block) for block in blocks[1:]]


def _read(block: str) -> BrokenText:
    name, rest = block.split("\n", 1)
    text, meaning = rest.split("\n=>\n")
    value = meaning.rstrip("\n")
    is_truncated = value.endswith("\n...")
    return BrokenText(name, text, json.loads(value.removesuffix("\n...")), is_truncated)
