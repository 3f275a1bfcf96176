"""Whatever dies, and wherever: a file is the old one or the new one, and never a broken one."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from short_answers import ANSWER
from tree_child import grown

from minillmlib import ChatNode, GeneratorInfo, StorageError
from minillmlib.testing import ScriptedReply, ScriptedTransport

pytestmark = pytest.mark.long

CHILD = str(Path(__file__).parents[1] / "support" / "tree_child.py")


def child(*args: object, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, CHILD, *map(str, args)], **kwargs)


def ids(root: ChatNode) -> list[str]:
    return [node.id for node in root.depth_first()]


def loaded_ids(path: Path) -> list[str]:
    return ids(ChatNode.load_tree(path))


@contextmanager
def room_for(size: int):
    """No file grows beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def answering() -> GeneratorInfo:
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_transport(ScriptedTransport([ScriptedReply.json(ANSWER)]))


# A journal.

CHANGES = {
    "add": lambda root: root.add_user("more \U0001f600"),
    "graft": lambda root: root.graft(root),
    "mark": lambda root: root.cache_breakpoint("1h"),
    "value": lambda root: root.set_format_kwarg("x", "\u00e9"),
    "detach": lambda root: root.children()[0].detach(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_journal_cut_in_its_last_line_is_as_it_was_before_and_goes_on(name, tmp_path, caplog):
    path, cut = tmp_path / "journal", tmp_path / "cut"
    root = grown("a", 2)
    root.attach_journal(path)
    old, old_ids = path.read_bytes(), ids(root)
    CHANGES[name](root)
    new = path.read_bytes()
    assert new.startswith(old)
    assert new.count(b"\n") == old.count(b"\n") + 1
    for size in range(len(old), len(new)):
        caplog.clear()
        cut.write_bytes(new[:size])
        again = ChatNode.load_tree(cut)
        assert ids(again) == old_ids
        assert again.format_kwargs == {}
        assert [r.levelname for r in caplog.records] == ["WARNING"] * (size > len(old))
        again.attach_journal(cut)
        assert cut.read_bytes() == old
        again.add_user("after the crash")
        assert loaded_ids(cut) == ids(again)
    cut.write_bytes(new)
    assert loaded_ids(cut) == ids(root)


def test_a_journal_cut_before_it_held_anything_begins_anew(tmp_path):
    path = tmp_path / "journal"
    root = grown("a", 2)
    root.attach_journal(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        again = grown("a", 2)
        again.attach_journal(path)
        assert path.read_bytes() == whole
        del again


def test_a_process_killed_while_it_writes_loses_at_most_what_was_being_written(tmp_path):
    path, chance = tmp_path / "journal", random.Random(1)
    kept: list[str] = []
    for _ in range(8):
        process = child("journal", path, stdout=subprocess.PIPE)
        first = process.stdout.readline()
        time.sleep(chance.random() * 0.3)
        process.kill()
        told = (first + process.stdout.read()).split(b"\n")[:-1]
        process.stdout.close()
        process.wait()
        kept += [line.decode() for line in told]
        there = loaded_ids(path)[1:]
        assert there[: len(kept)] == kept
        assert len(there) <= len(kept) + 1
        kept = there
    assert len(kept) > 8


async def test_a_journal_that_cannot_be_written_is_told_and_nothing_in_memory_is_lost(tmp_path):
    path = tmp_path / "journal"
    root = ChatNode.root("s")
    root.attach_journal(path)
    old = path.read_bytes()
    with room_for(len(old) + 10):
        with pytest.raises(StorageError, match="memory only, and the next change writes it"):
            await root.chat("u", answering())
    assert path.read_bytes() == old
    (question,) = root.children()
    (answer,) = question.children()
    assert (question.text, answer.text) == ("u", "ok")
    answer.add_user("and now all of it is kept")
    assert loaded_ids(path) == ids(root)


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_that_a_full_disk_refuses_is_told(name, tmp_path):
    path = tmp_path / "journal"
    root = grown("a", 2)
    root.attach_journal(path)
    size = path.stat().st_size
    with room_for(size + 1), pytest.raises(StorageError):
        CHANGES[name](root)
    assert path.stat().st_size == size
    root.attach_journal(path)
    assert loaded_ids(path) == ids(root)
    assert ChatNode.load_tree(path).format_kwargs == root.format_kwargs


def test_a_journal_that_has_no_room_to_begin_is_told(tmp_path):
    path, root = tmp_path / "journal", grown("a", 100)
    for size in (0, 10, 50, 1000):
        with room_for(size), pytest.raises(StorageError):
            root.attach_journal(path)
    root.attach_journal(path)
    assert loaded_ids(path) == ids(root)


# A save.


@pytest.fixture
def stepper():
    process = child("step", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(path: Path, nodes: int, number: int) -> dict:
        job = {"path": str(path), "step": number, "name": "new", "nodes": nodes}
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield step
    process.stdin.close()
    process.stdout.close()
    process.wait()


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(("nodes", "least"), [(10, 13), (30_000, 20)])  # in one write, in several
def test_a_save_killed_at_any_step_leaves_the_old_file_or_the_new_one(
    tmp_path, stepper, nodes, least, is_there
):
    path = tmp_path / "tree"
    old, new = grown("old", 5), ids(grown("new", nodes))
    if is_there:
        old.save_tree(path)
    states = []
    for number in range(1000):
        told = stepper(path, nodes, number)
        if not told["died"]:
            break
        states.append(loaded_ids(path) if path.exists() else None)
        if states[-1] == new:
            old.save_tree(path) if is_there else path.unlink()
    assert told["status"] == 0
    assert number > least
    first_new = states.index(new)
    assert states[:first_new] == [ids(old) if is_there else None] * first_new
    assert states[first_new:] == [new] * (len(states) - first_new)
    assert loaded_ids(path) == new


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 8192, 20_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, size):
    path = tmp_path / "tree"
    grown("old", 5).save_tree(path)
    old, large = path.read_bytes(), grown("new", 1000)
    for save in (large.save_tree, next(large.leaves()).save_thread):
        with room_for(size), pytest.raises(StorageError, match="cannot be written"):
            save(path)
        assert path.read_bytes() == old
        assert [one.name for one in tmp_path.iterdir()] == ["tree"]


@contextmanager
def mere_user():
    """Root may write everywhere, so it is somebody else for a while."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_read_only_folder_leaves_the_old_file():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tree")
        grown("old", 5).save_tree(path)
        old, new = path.read_bytes(), grown("new", 5)
        Path(folder).chmod(0o555)
        with mere_user():
            for save in (new.save_tree, new.save_thread, new.attach_journal):
                with pytest.raises(StorageError, match="denied"):
                    save(path)
        assert path.read_bytes() == old
        assert [one.name for one in Path(folder).iterdir()] == ["tree"]
        Path(folder).chmod(0o700)


@pytest.mark.parametrize("place", ["/proc/tree", "/dev/null/tree", "/nowhere/tree"])
def test_a_place_where_no_file_can_be_is_a_typed_error(place):
    root = grown("a", 2)
    for use in (root.save_tree, root.save_thread, root.attach_journal):
        with pytest.raises(StorageError, match=place):
            use(place)
    root.add_user("goes on")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is a pipe"):
        grown("a", 3).save_tree(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_eight_processes_that_save_to_one_file_leave_one_whole_winner(tmp_path):
    path = tmp_path / "tree"
    names = [letter * (number + 1) for number, letter in enumerate("abcdefgh")]
    trees = {name: ids(grown(name, len(name) * 100)) for name in names}
    processes = [child("save", path, name, 200) for name in names]
    seen = 0
    while any(process.poll() is None for process in processes):
        if path.exists():
            assert loaded_ids(path) in trees.values()
            seen += 1
    assert [process.wait() for process in processes] == [0] * 8
    assert seen > 0
    assert loaded_ids(path) in trees.values()
    assert [one.name for one in tmp_path.iterdir()] == ["tree"]
