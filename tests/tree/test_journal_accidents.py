"""Accidents of a journal: another content in the same file, parts that leave, signals."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import pytest

from minillmlib import ChatNode, InvalidParameterError, StorageError
from minillmlib.tree.records import HEADER

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals, pipes and limits of POSIX")


def texts(root):
    return [node.text for node in root.in_insertion_order()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.tree"


@pytest.fixture
def root(path):
    root = ChatNode.root("s")
    root.attach_journal(path)
    root.add_user("one")
    return root


def test_another_conversation_copied_into_the_file_is_noticed_and_stays(root, path):
    other = ChatNode.root("other")
    for _ in range(9):
        other.add_user("longer than what was there")
    other.save_tree(path.with_name("other"))
    content = path.with_name("other").read_bytes()
    path.write_bytes(content)  # the same inode, as by `cp`
    with pytest.raises(StorageError, match="another conversation"):
        root.add_user("two")
    assert path.read_bytes() == content


def test_a_longer_copy_of_another_machine_gets_what_it_lacks(root, path):
    one = root.children()[0]
    other = ChatNode.root("s")
    for number in range(9):
        other.add_user(f"of another machine {number}")
    other.save_tree(path.with_name("other"))
    path.write_bytes(path.with_name("other").read_bytes())
    two = one.add_assistant("two")
    kept = ChatNode.load_tree(path)
    assert kept.find(two.id)
    assert kept.node_count() == 12


def test_a_longer_text_in_place_of_the_last_line_is_noticed(root, path):
    path.write_bytes(path.read_bytes()[:-9] + b"\n" * 30)
    with pytest.raises(StorageError, match="line 3"):
        root.add_user("two")


@POSIX
def test_a_journal_goes_on_after_a_pipe_stood_in_its_place(root, path):
    path.rename(path.with_name("aside"))
    os.mkfifo(path)
    with pytest.raises(StorageError, match="a pipe"):
        root.add_user("two")
    path.unlink()
    path.with_name("aside").rename(path)
    root.add_user("three")
    assert texts(ChatNode.load_tree(path)) == ["s", "one", "two", "three"]


@pytest.mark.parametrize("size", [3, len(HEADER), len(HEADER) + 1, len(HEADER) + 40])
def test_a_file_that_a_crash_left_without_a_node_is_begun_anew(root, path, size):
    content = path.read_bytes()
    path.write_bytes(content[:size])
    root.add_user("two")
    assert texts(ChatNode.load_tree(path)) == ["s", "one", "two"]
    path.write_bytes(content[:size])
    again = ChatNode.root("s")
    again.attach_journal(path)
    assert texts(ChatNode.load_tree(path)) == ["s"]


@POSIX
def test_a_part_of_a_part_that_left_unwritten_does_not_spoil_the_file(root, path):
    import resource

    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        with suppress(StorageError):
            root.add_user("part")
        part = root.children()[-1]
        with suppress(StorageError):
            part.add_assistant("part of it")
        inner = part.children()[0]
        with suppress(StorageError):
            inner.set_format_kwarg("name", "value")
        with suppress(StorageError):
            part.detach()
        inner.detach()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    root.add_user("later")
    assert texts(ChatNode.load_tree(path)) == ["s", "one", "later"]


def test_a_file_is_replaced_while_the_stack_is_nearly_at_its_end(root, path):
    def call_below(depth):
        return call_below(depth - 1) if depth else root.add_user("two")

    for room in range(20, 80, 3):
        ChatNode.load_tree(path).save_tree(path.with_name("copy"))
        path.with_name("copy").replace(path)
        frame, depth = sys._getframe(), 0
        while frame:
            frame, depth = frame.f_back, depth + 1
        with suppress(RecursionError, StorageError):
            call_below(sys.getrecursionlimit() - depth - room)
    root.add_user("three")
    assert texts(ChatNode.load_tree(path)) == texts(root)


def during(monkeypatch, action):
    """Call `action` where a signal handler is most likely to be called: in the writing to disk."""
    real, problems = os.fsync, []

    def sync(descriptor):
        monkeypatch.setattr(os, "fsync", real)
        try:
            action()
        except InvalidParameterError as error:
            problems.append(str(error))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return problems


@pytest.mark.parametrize("change", ["add_user", "detach", "set_format_kwarg", "save_tree"])
def test_a_signal_handler_cannot_change_the_tree_that_it_interrupts(
    root, path, monkeypatch, change
):
    changes = {
        "add_user": lambda: root.add_user("in the handler"),
        "detach": root.children()[0].detach,
        "set_format_kwarg": lambda: root.set_format_kwarg("name", "value"),
        "save_tree": lambda: root.save_tree(path),  # merges tree and file
    }
    problems = during(monkeypatch, changes[change])
    root.add_user("two")
    assert "signal handler" in problems[0]
    root.add_user("three")
    assert texts(root) == texts(ChatNode.load_tree(path)) == ["s", "one", "two", "three"]


def test_a_signal_handler_can_save_the_tree_that_it_interrupts(root, path, monkeypatch):
    copy = path.with_name("copy")
    problems = during(monkeypatch, lambda: root.save_tree(copy))
    root.add_user("two")
    assert not problems
    assert texts(ChatNode.load_tree(copy)) == ["s", "one", "two"]


@POSIX
def test_signals_that_save_a_tree_leave_the_ids_whole(tmp_path):
    root, former = ChatNode.root("s"), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, lambda *_: root.children()[-1].id)
    try:
        for number in range(150):
            for _ in range(20):
                root.add_user("same")
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number))
            root.add_user("last").id  # noqa: B018 - derives all ids
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert len({node.id for node in root.depth_first()}) == root.node_count()
    root.save_tree(tmp_path / "copy")
    assert ChatNode.load_tree(tmp_path / "copy").node_count() == root.node_count()
