"""Hostile inputs for parsers: recorded answers, broken in every way, and values nobody expects.

Use it with `fuzz_parsers`, or for any other reader of bytes. All of it follows from a seed, so that a
run can be repeated. `MINILLMLIB_FUZZ_INPUTS` multiplies the number of inputs, for long runs, and
`MINILLMLIB_FUZZ_SEED` gives others.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from golden_expected import FAILURES

from golden import GOLDEN, LONG_STREAMS

FACTOR = int(os.environ.get("MINILLMLIB_FUZZ_INPUTS", "1"))
SEED = int(os.environ.get("MINILLMLIB_FUZZ_SEED", "0"))

HOLE = '"@hole@"'
NOISE_BYTES = 200

# As JSON writes them, since not all of them are JSON.
TOKENS = (
    "null", "true", "false", "0", "-0", "-1", "1", "1.5", "-0.1", "1e308", "1e999", "-1e999",
    "9007199254740993", "9223372036854775808", "18446744073709551616", "1" + "0" * 30,
    "9" * 4000, "9" * 5000, "NaN", "-Infinity", "", "nul", "'x'", "01", "1.", '"', "}", "]", ",",
    '""', '" "', '"x"', '"\\ud800"', '"a\\udfffb"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\x"',
    '"\\u001b[31m"', '"\\u202e"', '"\\u2028"', '"\u2028"', '"\U0001f600"', '"a\nb"',
    '"0"', '"429"', '"-1"', '"nan"', '"1e9999"', '"[]"', '"{}"', '"{"', '"' + "x" * 3000 + '"',
    '"stop"', '"error"', '"length"', '"tool_calls"', '"tool_use"', '"refusal"', '"text"',
    '"thinking"', '"fallback"', '"data:image/png;base64,iVBORw0KGgo="', '"data:image/png;base64,x"',
    '"data:;base64,"', '"https://h.example/x"', "[]", "{}", "[null]", "[[]]", "[{}]", '{"":null}',
    '["text"]', '[{"type":"text","text":null}]', '[{"type":"text","text":"t"}]', '{"type":"text"}',
    '{"type":[]}', '{"error":{}}', '{"error":[]}', '{"message":{}}', '{"url":1}', '{"data":"AAAA"}',
    '{"a":1,"a":2}', '{"text":"\\ud800"}', '{"\\ud800":1}', "[" * 100 + "]" * 100,
    '{"a":' * 100 + "1" + "}" * 100, "[" * 20_000, "[" * 2000 + "]" * 2000, '{"a":' * 20_000,
)  # fmt: skip

# What breaks a text where it is put.
SCRAPS = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"\xff",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf0\x9f", b"\xe2\x80\xa8", b"data:", b"data: ", b"event:",
    b"event: error\n", b"error: ", b"id: \0\n", b": ", b"[DONE]", b"null", b"\\ud800", b"\\u",
    b"1e999", b"-", b"9" * 25,
)  # fmt: skip


def noise(chance: random.Random) -> bytes:
    """Any bytes, or scraps of the wire's own words."""
    if chance.random() < 0.5:
        return chance.randbytes(chance.randrange(NOISE_BYTES))
    return b"".join(chance.choices(SCRAPS, k=chance.randrange(40)))


def _slice(data: bytearray, chance: random.Random) -> slice:
    start = chance.randrange(len(data) + 1)
    return slice(start, start + chance.choice((1, 2, 4, 16, 64, 256)))


def _flip(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _insert(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.choice(SCRAPS)


def _delete(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    del data[_slice(data, chance)]


def _duplicate(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    part = _slice(data, chance)
    data[part.start : part.start] = bytes(data[part]) * chance.choice((1, 1, 2, 9))


def _truncate(data: bytearray, chance: random.Random, _seeds: Sequence[bytes]) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


WAYS = (_flip, _insert, _delete, _duplicate, _truncate, _splice)


def broken(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after a few changes of its bytes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        chance.choice(WAYS)(data, chance, seeds)
    return bytes(data)


def pieces_of(data: bytes, chance: random.Random, most: int = 12) -> list[bytes]:
    """The bytes, cut at random places into at most `most` pieces and one."""
    cuts = sorted(chance.randint(0, len(data)) for _ in range(chance.randint(1, most)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _items(value: Any) -> list[tuple[Any, Any]]:
    """The keys or places of a value, with what is there."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _with(value: Any, key: Any, inner: Any) -> Any:
    changed = value.copy()
    changed[key] = inner
    return changed


def _holes(value: Any) -> Iterator[Any]:
    """The value once for each value inside it, with a hole in the place of that one."""
    yield HOLE.strip('"')
    for key, inner in _items(value):
        for holed in _holes(inner):
            yield _with(value, key, holed)


def _without_a_key(value: Any) -> Iterator[Any]:
    """The value once for each key inside it, without that key."""
    for key, inner in _items(value):
        if isinstance(value, dict):
            yield {name: kept for name, kept in value.items() if name != key}
        for less in _without_a_key(inner):
            yield _with(value, key, less)


def _parts(value: Any) -> Iterator[Any]:
    """Every object and array in the value."""
    if isinstance(value, dict | list):
        yield value
        for _, inner in _items(value):
            yield from _parts(inner)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class Corpus:
    """Recorded inputs of one parser, and the hostile ones that are made of them."""

    def __init__(self, seeds: Sequence[bytes]) -> None:
        self.seeds = tuple(dict.fromkeys(seeds))
        values = [json.loads(seed) for seed in self.seeds if _is_json(seed)]
        self.values = values
        holed = [json.dumps(one, ensure_ascii=False) for value in values for one in _holes(value)]
        self.templates = [tuple(text.split(HOLE)) for text in dict.fromkeys(holed)]
        self.thinned = [json.dumps(less) for value in values for less in _without_a_key(value)]
        self.parts = [json.dumps(part) for value in values for part in _parts(value)]

    def hostile(self, chance: random.Random) -> bytes:
        """A recorded answer in which one value is any other value, or one key is missing."""
        if chance.random() < 0.1:
            return chance.choice(self.thinned).encode()
        before, after = chance.choice(self.templates)
        token = chance.choice(self.parts if chance.random() < 0.2 else TOKENS)
        return (before + token + after).encode("utf-8", "surrogatepass")

    def inputs(self, count: int, seed: object) -> Iterator[bytes]:
        """Yield inputs: of ten, one is noise, three are broken bytes, four hostile JSON and two are both."""
        chance = random.Random(f"{SEED} {seed}")
        for number in range(count):
            way = number % 10
            if way == 0:
                yield noise(chance)
            elif way < 4 or not self.templates:
                yield broken(chance, self.seeds)
            elif way < 8:
                yield self.hostile(chance)
            else:
                yield broken(chance, (self.hostile(chance), *self.seeds[:3]))


class Recorded(NamedTuple):
    """The corpora of all parsers."""

    streams: Corpus
    chat_streams: Corpus
    claude_streams: Corpus
    chat_whole: Corpus
    chat_chunk: Corpus
    claude_whole: Corpus
    claude_chunk: Corpus
    responses_streams: Corpus
    responses_whole: Corpus
    responses_chunk: Corpus
    completions_streams: Corpus
    completions_whole: Corpus
    completions_chunk: Corpus
    failures: Corpus
    counts: Corpus


def wire_of(name: str) -> str:
    """The wire that a golden file is in."""
    if name.startswith(("responses", "completions")):
        return name.partition("_")[0]
    return "claude" if name.startswith("anthropic") or "anthropic_skin" in name else "chat"


LINE_END = rb"(?>\r\n|\r|\n)"


def event_ends(stream: bytes) -> list[int]:
    """The place of the end of each event, read off the bytes without our decoder."""
    return [found.end() for found in re.finditer(LINE_END + rb"{2}", stream)]


def event_data(stream: bytes) -> list[bytes]:
    """The data of each event, read off the bytes without our decoder."""
    ends = event_ends(stream)
    blocks = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    lines = [re.split(LINE_END, block) for block in blocks]
    data = [[line[5:].strip() for line in block if line.startswith(b"data:")] for block in lines]
    return [b"\n".join(part) for part in data if part]


def _counts_in(body: bytes) -> bytes:
    """A body without anything but its token counts, if it has some."""
    value = json.loads(body) if _is_json(body) else None
    if not isinstance(value, dict):
        return b""
    message = value.get("message", value.get("response"))
    inner = message if isinstance(message, dict) else value
    kept = {"type": value.get("type"), "usage": inner.get("usage")}
    return json.dumps(kept).encode() if inner.get("usage") else b""


@cache
def recorded() -> Recorded:
    """The corpora, made of the golden files."""
    files = {path.name: path.read_bytes() for path in sorted(GOLDEN.iterdir()) if path.is_file()}
    whole = {name: data for name, data in files.items() if name.endswith(".json")}
    streams = {name: data for name, data in files.items() if name.endswith(".sse")}
    events = [(wire_of(name), event) for name in streams for event in event_data(streams[name])]
    bodies = [*whole.values(), *(event for _, event in events)]
    by_wire = {}
    for wire in ("chat", "claude", "responses", "completions"):
        for kind, found in (("streams", streams), ("whole", whole)):
            own = [data for name, data in found.items() if wire_of(name) == wire]
            by_wire[f"{wire}_{kind}"] = Corpus(own)
        by_wire[f"{wire}_chunk"] = Corpus([event for of, event in events if of == wire])
    return Recorded(
        streams=Corpus(tuple(data for name, data in streams.items() if name not in LONG_STREAMS)),
        **by_wire,
        failures=Corpus([whole[name] for name in FAILURES if name in whole]),
        counts=Corpus([counts for body in bodies if (counts := _counts_in(body))]),
    )
