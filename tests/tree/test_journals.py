"""Journals: what happens to the file from outside, and several processes that write to one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tree_child import grown

from minillmlib import (
    ChatNode,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    StorageError,
    run,
)
from minillmlib.testing import ScriptedReply, ScriptedTransport

CHILD = str(Path(__file__).parents[1] / "support" / "tree_child.py")
WRITERS_SECS = float(os.environ.get("MINILLMLIB_WRITERS_SECS", "8"))


def ids(root: ChatNode) -> set[str]:
    return {node.id for node in root.depth_first()}


def loaded_ids(path: Path) -> set[str]:
    return ids(ChatNode.load_tree(path))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def root(path) -> ChatNode:
    root = ChatNode.root("s")
    root.attach_journal(path)
    root.add_user("before").cache_breakpoint("1h")
    root.set_format_kwarg("x", 1)
    return root


# The file under a journal.


def remove(path: Path) -> None:
    path.unlink()


def move_away(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def replace_by_a_shorter_copy(path: Path) -> None:
    copy = path.with_suffix(".copy")
    copy.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    copy.replace(path)


def replace_by_a_save(path: Path) -> None:
    ChatNode.load_tree(path).save_tree(path)


def replace_by_an_empty_file(path: Path) -> None:
    path.unlink()
    path.touch()


def cut_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(len(file.readline()))


def edit(path: Path) -> None:
    """As editors do, that write a new file and rename it."""
    copy = path.with_suffix(".swp")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize(
    "happens",
    [
        remove,
        move_away,
        replace_by_a_shorter_copy,
        replace_by_a_save,
        replace_by_an_empty_file,
        cut_in_place,
        edit,
    ],
)
def test_a_file_that_was_moved_away_or_replaced_is_written_anew(happens, root, path):
    for text in ("one", "two"):
        happens(path)
        node = root.add_user(text)
        loaded = ChatNode.load_tree(path)
        assert ids(loaded) == ids(root)
        assert loaded.format_kwargs == {"x": 1}
        assert [one.message.cache_ttl for one in loaded.depth_first()] == [
            one.message.cache_ttl for one in root.depth_first()
        ]
        assert loaded.find(node.id).text == text


def test_a_value_that_was_removed_while_the_file_was_away_is_removed_in_the_file(root, path):
    replace_by_a_save(path)
    root.children()[0].clear_cache_breakpoint()
    text = path.read_text()
    assert text.rindex('"ttl"') < text.rindex('"mark"')  # the last of them has none


@pytest.mark.parametrize("content", [b"dear diary\n", b"", b"[]", b"dear diary"])
def test_a_file_that_took_the_place_is_never_written_to_unless_it_is_this_conversation(
    content, root, path
):
    ChatNode.root("another").save_tree(path)
    if content:
        path.write_bytes(content)
    there = path.read_bytes()
    node = root
    for text in ("one", "two"):
        with pytest.raises(StorageError, match="replaced by another file"):
            root.add_user(text)
        assert path.read_bytes() == there
    path.unlink()
    node = root.add_user("three")
    assert [one.text for one in root.children()] == ["before", "one", "two", "three"]
    assert loaded_ids(path) == ids(node.root_node)


def test_a_folder_that_is_gone_is_told_at_every_change_until_it_is_there_again(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    root = ChatNode.root("s")
    root.attach_journal(folder / "journal")
    folder.rename(tmp_path / "elsewhere")
    for text in ("one", "two"):
        with pytest.raises(StorageError, match="memory only"):
            root.add_user(text)
    folder.mkdir()
    root.add_user("three")
    assert loaded_ids(folder / "journal") == ids(root)


def test_a_program_that_changes_its_folder_goes_on_in_the_same_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = ChatNode.root("s")
    root.attach_journal("journal")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    root.add_user("u")
    assert loaded_ids(tmp_path / "journal") == ids(root)
    assert not list((tmp_path / "other").iterdir())


def test_saving_onto_the_own_journal_keeps_what_others_wrote_there(root, path):
    other = ChatNode.load_tree(path)
    other.attach_journal(path)
    theirs = other.add_user("theirs")
    mine = root.add_user("mine")
    root.save_tree(path)
    assert {theirs.id, mine.id} <= loaded_ids(path)
    assert root.find(theirs.id).text == "theirs"
    later = other.add_user("later")
    assert later.id in loaded_ids(path)


def test_each_change_is_written_once(root, path):
    def records_of(change: Callable[[], object]) -> int:
        before = path.read_bytes()
        change()
        assert path.read_bytes().startswith(before)
        (line,) = path.read_bytes().removeprefix(before).splitlines()
        return len(json.loads(line))

    assert records_of(lambda: root.set_format_kwarg("x", 2)) == 1
    child = root.children()[0]
    assert records_of(child.clear_cache_breakpoint) == 1
    assert records_of(lambda: child.add_assistant("a")) == 1
    assert records_of(child.detach) == 1
    assert records_of(lambda: root.add_user("u")) == 1


def test_a_journal_that_is_detached_gets_no_more(root, path):
    there = path.read_bytes()
    root.detach_journal()
    root.add_user("in memory only")
    assert path.read_bytes() == there
    root.detach_journal()
    with pytest.raises(InvalidParameterError, match="root_node"):
        root.children()[0].detach_journal()


def test_an_attach_that_is_refused_leaves_nothing_of_the_file_in_the_tree(tmp_path):
    path = tmp_path / "damaged"
    whole = grown("a", 3)
    whole.set_format_kwarg("x", 1)
    whole.children()[0].cache_breakpoint("1h")
    whole.save_tree(path)
    for damage in (b"[]x\n", b'[{"kind":"node","id":"00","message":{"role":"user"}}]\n', b"\0\n"):
        path.write_bytes(path.read_bytes() + damage)
        mine = ChatNode.root("s")
        mine.add_user("mine")
        before = [(node.id, node.text) for node in mine.depth_first()]
        with pytest.raises(StorageError, match="line"):
            mine.attach_journal(path)
        assert [(node.id, node.text) for node in mine.depth_first()] == before
        assert (mine.format_kwargs, mine.node_count()) == ({}, 2)
        mine.add_user("goes on")


def test_a_second_journal_leaves_the_first_as_it_was(root, tmp_path):
    first = (tmp_path / "journal").read_bytes()
    grown("other", 2).save_tree(tmp_path / "second")
    part = ChatNode.load_tree(tmp_path / "second")
    part.children()[0].set_format_kwarg("y", 2)
    part.save_tree(tmp_path / "second")
    root.attach_journal(tmp_path / "second")
    root.add_user("u")
    assert (tmp_path / "journal").read_bytes() == first
    assert loaded_ids(tmp_path / "second") == ids(root)


def test_a_line_that_a_dead_process_left_is_cut_by_the_next_writer(root, path):
    with path.open("ab") as file:
        file.write(b'[{"kind":"node","id":"' + b"f" * 100_000)
    root.add_user("u")
    assert loaded_ids(path) == ids(root)
    assert b"fff" not in path.read_bytes()


# Several writers.


def test_two_trees_on_one_file_lose_nothing(path):
    trees = [ChatNode.root("s") for _ in range(3)]
    for tree in trees:
        tree.attach_journal(path)
    kept = set()

    def write(tree: ChatNode, name: int) -> None:
        node = tree
        for number in range(40):
            node = node.add_user(f"{name} {number}")
            kept.add(node.id)
            if number % 10 == 0:
                tree.attach_journal(path)
            if number % 15 == 0:
                tree.save_tree(path)

    threads = [
        threading.Thread(target=write, args=one) for one in zip(trees, range(3), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 120
    assert loaded_ids(path) == kept | {trees[0].id}


def test_a_file_that_another_program_locks_for_long_is_told_by_name(root, path, monkeypatch):
    monkeypatch.setattr("minillmlib.files.LOCK_SECS", 0.05)
    code = """
        import fcntl, sys
        file = open(sys.argv[1], "ab"); fcntl.flock(file, fcntl.LOCK_EX); print("locked", flush=True); sys.stdin.read()
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(StorageError, match="another program has locked it"):
            root.add_user("one")
        other.stdin.close()
    root.add_user("two")
    assert loaded_ids(path) == ids(root)


@pytest.mark.long
def test_four_processes_that_are_killed_at_random_keep_every_line_they_told_of(path):
    chance = random.Random(os.environ.get("MINILLMLIB_FUZZ_SEED", "0"))
    end = time.monotonic() + WRITERS_SECS
    told: set[str] = set()

    def start(number: int) -> subprocess.Popen:
        args = [sys.executable, CHILD, "writer", str(path), str(chance.randrange(10**6))]
        return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(process: subprocess.Popen) -> None:
        out, problems = process.communicate(timeout=60)
        # What a killed one left of a line is reported by the next.
        others = [line for line in problems.splitlines() if b"is cut off and left out" not in line]
        assert not others, problems.decode()
        told.update(line.decode() for line in out.split(b"\n")[:-1])

    writers = [start(number) for number in range(4)]
    while time.monotonic() < end:
        time.sleep(chance.random() * 0.8)
        number = chance.randrange(4)
        writers[number].send_signal(signal.SIGKILL)
        finish(writers[number])
        if path.exists():
            assert told <= loaded_ids(path)
        writers[number] = start(number)
    for process in writers:
        process.send_signal(signal.SIGKILL)
        finish(process)
    assert told <= loaded_ids(path)
    assert len(told) > 20 * WRITERS_SECS


def test_a_file_can_be_read_while_a_writer_cuts_what_a_killed_one_left(root, path):
    root.add_user("x" * 100)
    line = path.read_bytes().splitlines(keepends=True)[-1]
    stop = threading.Event()

    def write() -> None:
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        while not stop.is_set():
            size = os.fstat(file).st_size
            os.write(file, line[:200])
            os.ftruncate(file, size)
            os.write(file, line)
            time.sleep(0.0002)
        os.close(file)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            assert loaded_ids(path) == ids(root)
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_children_forked_while_a_tree_grows_go_on_with_it(root, path):
    stop = threading.Event()

    def grow() -> None:
        node = root
        while not stop.is_set():
            node = node.add_user("x")

    thread = threading.Thread(target=grow)
    thread.start()
    codes = []
    for number in range(5):
        time.sleep(0.01)
        pid = os.fork()
        if not pid:
            signal.alarm(10)
            child = root.add_user(f"child {number}")
            os._exit(0 if child.id in loaded_ids(path) and child.path()[0] == root else 1)
        codes.append(os.waitpid(pid, 0)[1])
    stop.set()
    thread.join()
    assert codes == [0] * 5
    texts = [node.text for node in ChatNode.load_tree(path).depth_first()]
    assert {f"child {number}" for number in range(5)} <= set(texts)
    assert ids(root) <= loaded_ids(path)


# What cannot be written, and what is nested deeply.


def nested_answer(depth: int) -> GeneratorInfo:
    """A model whose answer has a part that is nested so deeply."""
    body = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}],"usage":{"a":%b}}' % (
        b"[" * depth + b"]" * depth
    )
    generator = GeneratorInfo.custom("t", "https://t.example/v1", "m")
    return generator.with_transport(ScriptedTransport([ScriptedReply.json(body)]))


def test_an_answer_that_is_nested_too_deeply_is_refused_and_the_journal_stays_whole(root, path):
    for depth in (150, 198):  # below the two objects of the answer
        node = run(root.chat("q", nested_answer(depth)))
        node.add_user("goes on")
    for depth in (199, 500, 900, 980):
        with pytest.raises(MiniLLMError, match="nested|recursion"):
            run(root.chat("q", nested_answer(depth)))
    root.add_user("goes on")
    assert loaded_ids(path) == ids(root)


def at_depth(depth: int, function):
    return function() if depth == 0 else at_depth(depth - 1, function)


def test_what_can_be_saved_can_be_loaded_at_any_depth_of_calls(root, path, tmp_path):
    run(root.chat("q", nested_answer(198)))
    room = sys.getrecursionlimit() - len(list(iter_frames()))
    kept = ids(root)
    for depth in range(0, room - 60, 37):
        loaded = at_depth(depth, lambda: ChatNode.load_tree(path))
        assert ids(loaded) == kept
        again = ChatNode.root("s")
        at_depth(depth, lambda again=again: again.attach_journal(path))
        assert ids(again) == kept


def iter_frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_a_change_at_the_end_of_the_stack_is_written_with_the_next_one(path):
    root = ChatNode.root("s")
    root.attach_journal(path)
    room = sys.getrecursionlimit() - len(list(iter_frames()))
    for left in range(60):
        with contextlib.suppress(RecursionError, MiniLLMError):
            at_depth(room - left, lambda: root.add_user("deep"))
        node = root.add_user("shallow")
        assert node.id in loaded_ids(path)
        assert ids(root) == loaded_ids(path)


@pytest.mark.parametrize("where", ["from the start", "after a line", "within a record"])
def test_a_sparse_file_is_an_error_and_needs_no_memory(where, root, path):
    start = {
        "from the start": b"",
        "after a line": path.read_bytes(),
        "within a record": path.read_bytes() + b'[{"kind":',
    }
    path.write_bytes(start[where])
    with path.open("ab") as file:
        file.truncate(50 * 10**9)
    for use in (ChatNode.load_tree, ChatNode.root("s").attach_journal):
        with pytest.raises(StorageError, match="line .* zero bytes"):
            use(path)
