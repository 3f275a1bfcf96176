"""Damaged and hostile files: a tree, or a typed error that names the place; and nothing else."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_inputs import FACTOR, SEED, Corpus, broken
from tree_fixture import rich_tree

from minillmlib import ChatNode, StorageError

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SUPPORT = Path(__file__).parents[1] / "support"
NAMES_A_LINE = re.compile(r"', line \d+: ")


@pytest.fixture
async def saved(tmp_path):
    path = tmp_path / "tree"
    (await rich_tree()).save_tree(path)
    return path


def run_child(mode: str, folder: Path) -> dict:
    """What a process did with what is in the folder; it may open nothing else."""
    done = subprocess.run(
        [sys.executable, SUPPORT / "tree_reader.py", mode, folder],
        capture_output=True, text=True, check=False, timeout=850)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_a_hundred_thousand_damaged_files(saved, tmp_path):
    told = run_child("mutations", tmp_path)
    assert told["inputs"] == 100_000 * FACTOR
    assert told["trees"] > 100
    assert told["errors"] > 90_000 * FACTOR
    assert told["forbidden"] == []


def test_a_file_cut_anywhere_is_a_tree_or_a_typed_error(saved, tmp_path):
    told = run_child("truncations", tmp_path)
    assert told["inputs"] == saved.stat().st_size
    assert told["trees"] > told["inputs"] * 0.9
    assert told["forbidden"] == []


def test_a_hundred_thousand_damaged_thread_documents(tmp_path):
    told = run_child("threads", tmp_path)
    assert told["inputs"] == 100_000 * FACTOR
    assert told["trees"] > 1000
    assert told["errors"] > 50_000 * FACTOR
    assert told["forbidden"] == []


def test_every_changed_byte_of_a_small_file_is_noticed(tmp_path):
    """What is still read is what was written: changes that change nothing, such as a blank."""
    path = tmp_path / "tree"
    root = ChatNode.root("s")
    root.add_user("hello").set_format_kwarg("x", "y")
    root.save_tree(path)
    data, ids = path.read_bytes(), [node.id for node in root.depth_first()]
    chance = random.Random(SEED)
    for place in range(data.index(b"\n") + 1, len(data)):
        changed = bytearray(data)
        changed[place] = chance.choice([byte for byte in range(256) if byte != data[place]])
        path.write_bytes(changed)
        try:
            loaded = ChatNode.load_tree(path)
        except StorageError as error:
            assert NAMES_A_LINE.search(str(error))
        else:
            assert [n.id for n in loaded.depth_first()] in (ids, ids[:1])


LINES = {
    "no list": b"{}",
    "unknown kind": b'[{"kind":"code"}]',
    "no version": b'[{"kind":"minillmlib tree"}]',
    "another version": b'[{"kind":"minillmlib tree","version":2}]',
    "a huge version": b'[{"kind":"minillmlib tree","version":%b}]' % (b"9" * 5000),
    "unknown field": b'[{"kind":"mark","node":"x","ttl":"5m","__class__":"os"}]',
    "a mark of nobody": b'[{"kind":"mark","node":"x"}]',
    "a parent of nobody": b'[{"kind":"node","id":"x","parent":"00","message":{"role":"user","content":""}}]',
    "another root": b'[{"kind":"node","id":"x","message":{"role":"user","content":""}}]',
    "another role": b'[{"kind":"node","id":"x","message":{"role":"root","content":""}}]',
    "a result without a call": b'[{"kind":"node","id":"x","message":{"role":"tool","content":""}}]',
    "half a pair": b'[{"kind":"node","id":"\\ud800","message":{"role":"user","content":""}}]',
    "not UTF-8": b'[{"kind":"node","id":"\xff","message":{"role":"user","content":""}}]',
    "too deep": b"[" * 100_000,
    "a blank line": b"",
    "control characters": b"\x1b[31m\x00\xe2\x80\xae",
}


@pytest.mark.parametrize("name", LINES)
def test_a_wrong_line_is_named(name, tmp_path):
    path = tmp_path / "tree"
    root = ChatNode.root("s")
    root.add_user("u")
    root.save_tree(path)
    path.write_bytes(path.read_bytes() + LINES[name] + b"\n")
    with pytest.raises(StorageError, match=r"tree', line 4: ") as caught:
        ChatNode.load_tree(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_a_line_behind_another_is_checked_against_its_parent(tmp_path):
    path = tmp_path / "tree"
    root = ChatNode.root("s")
    root.add_user("first").add_assistant("second")
    root.save_tree(path)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    for wrong in ([lines[0], lines[2], lines[1]], [lines[0], lines[2]], lines[1:][::-1]):
        path.write_bytes(b"".join([head, *wrong]))
        with pytest.raises(StorageError, match=r"its parent \w+ is not before it"):
            ChatNode.load_tree(path)


def test_an_address_in_a_file_is_only_a_text(tmp_path):
    """A file cannot make us open another one."""
    document = [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
        }
    ]
    with pytest.raises(StorageError, match="from_file"):
        ChatNode.from_thread_json(json.dumps(document))


def test_mutations_reach_past_the_first_line():
    """The inputs are no mere noise: some break the last line of many, some only values."""
    seed = b"[1]\n[2]\n[3]\n"
    chance = random.Random(SEED)
    assert any(
        one.startswith(b"[1]\n[2]\n") for one in (broken(chance, [seed]) for _ in range(100))
    )
    assert len(Corpus([b'{"a":[1,{"b":null}]}']).templates) == 5
