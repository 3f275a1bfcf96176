"""Files: what is read and refused, what a crash can leave, and the journal under trees and runs."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest

from minillmlib import StorageError
from minillmlib.files import (
    FileJournal,
    absolute_path,
    file_name,
    open_regular,
    read_small_file,
    try_lock,
    unlock,
    write_whole,
)

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="pipes, modes and locks of POSIX")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def synced(monkeypatch):
    """The inodes of what was written to disk, in order, and of a file how large it was then."""
    inodes, real = [], os.fsync

    def sync(descriptor):
        found = os.fstat(descriptor)
        inodes.append(found.st_ino)
        if stat.S_ISREG(found.st_mode):
            inodes.append(found.st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return inodes


def inode(path):
    return path.stat().st_ino


# Reading.


def test_a_file_is_read_if_it_is_no_larger_than_allowed(path):
    path.write_bytes(b"x" * 1234)
    assert read_small_file(path, 1234) == read_small_file(str(path), 1235) == b"x" * 1234
    with pytest.raises(OSError, match=r"^it is larger than 1,233 bytes$"):
        read_small_file(path, 1233)


def refused(path, kind):
    for use in (open_regular, lambda path: read_small_file(path, 9), kept_at):
        with pytest.raises(OSError, match=f"^it is {kind}, not a regular file$"):
            use(path)


def kept_at(path):
    with FileJournal(path).lock():
        pass


@POSIX
def test_what_is_no_regular_file_is_neither_read_nor_written_and_told_by_its_kind(path):
    path.mkdir()
    with pytest.raises(OSError, match="^it is a directory, not a regular file$"):
        open_regular(path)
    with pytest.raises(IsADirectoryError):
        write_whole(path, [b"x"])
    assert list(path.parent.iterdir()) == [path]
    path.rmdir()
    os.mkfifo(path)
    refused(path, "a pipe")
    with pytest.raises(OSError, match="^it is a pipe, not a regular file$"):
        write_whole(path, [b"x"])
    refused(Path(os.devnull), "a device or socket")
    with pytest.raises(OSError, match="^it is a device or socket, not a regular file$"):
        write_whole(os.devnull, [b"x"])
    assert stat.S_ISFIFO(path.stat().st_mode)


# Writing a whole file.


def test_a_file_is_written_whole_beside_the_old_one_and_then_takes_its_place(path, synced):
    path.write_bytes(b"old")
    seen = []

    def pieces():
        yield b"new "
        seen.extend(one for one in path.parent.iterdir() if one != path)
        seen.append(path.read_bytes())
        yield b"content"

    write_whole(path, pieces())
    draft, old = seen
    assert draft.name.startswith(".file.")
    assert draft.name.endswith(".tmp")
    assert len(draft.name) == len(".file..tmp") + 16
    assert old == b"old"
    assert path.read_bytes() == b"new content"
    assert list(path.parent.iterdir()) == [path]
    assert synced == [inode(path), len(b"new content"), inode(path.parent)]


def test_a_long_name_is_shortened_for_the_draft(path):
    path = path.with_name("n" * 255)
    drafts = []

    def pieces():
        drafts.extend(path.parent.iterdir())
        yield b"x"

    write_whole(path, pieces())
    assert [one.name[:52] for one in drafts] == ["." + "n" * 50 + "."]
    assert [len(one.name) for one in drafts] == [52 + 16 + 4]
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_is_unchanged_if_the_new_content_fails(path, error):
    path.write_bytes(b"old")

    def pieces():
        yield b"x" * 2_000_000
        raise error

    with pytest.raises(error):
        write_whole(path, pieces())
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


@POSIX
def test_a_file_keeps_its_mode_and_a_link_its_target(path):
    target = path.with_name("target")
    write_whole(target, [b"one"])
    target.chmod(0o640)
    path.symlink_to(target)
    write_whole(os.fsencode(path), [b"two", b"three"])
    assert path.is_symlink()
    assert target.read_bytes() == b"twothree"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert {one.name for one in path.parent.iterdir()} == {"file", "target"}


# Paths.


class Named:
    """A path of another library."""

    def __fspath__(self):
        return "folder/name.txt"


def test_a_path_is_made_absolute_whatever_type_it_has(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expected = tmp_path / "folder" / "name.txt"
    for path in ("folder/name.txt", Path("folder/name.txt"), b"folder/name.txt", Named(), expected):
        assert absolute_path(path) == expected
        assert file_name(path) == "name.txt"


@pytest.mark.parametrize(
    ("path", "shown"),
    [(None, "None"), (7, "7"), ("a\0b", "'a\\x00b'"), ("\ud800", "'\\ud800'"), (["x" * 99], "['" + "x" * 78), (object, "<class 'object'>")],
)  # fmt: skip
def test_what_is_no_path_is_told(path, shown):
    with pytest.raises(StorageError) as caught:
        absolute_path(path)
    assert str(caught.value) == f"a file is named by a str or a path, not by {shown}"


# Journals.


@pytest.fixture
def journal(path):
    journal = FileJournal(path)
    yield journal
    journal.close()


def kept(journal):
    """Whether the file still has what was appended to it."""
    with journal.lock() as is_kept:
        return is_kept


def append(journal, *lines):
    with journal.lock() as is_kept:
        journal.append(lines)
        return is_kept


def test_a_journal_knows_whether_its_file_has_what_was_appended(journal, path):
    assert journal.name == str(path)
    assert not append(journal, b"one\n")
    assert append(journal, b"two\n", b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    path.write_bytes(b"one\ntwo\nthree\nof another\n")
    assert kept(journal)
    path.write_bytes(b"one\ntwo\nthrea\n")
    assert not kept(journal)
    path.write_bytes(b"one\ntwo\nthree")
    assert not kept(journal)
    path.write_bytes(b"One\ntwo\nthree\n")
    assert not kept(journal)
    path.write_bytes(b"one\ntwo\nthree\n")
    assert kept(journal)


@pytest.mark.parametrize(("back", "is_noticed"), [(1, True), (4000, True), (4001, False)])
def test_another_content_is_noticed_in_the_last_4000_bytes(journal, path, back, is_noticed):
    append(journal, b"x" * 4999 + b"\n")
    content = bytearray(path.read_bytes())
    content[-back] = ord("y")
    path.write_bytes(content)
    assert kept(journal) is not is_noticed


def test_a_file_that_took_the_place_is_another_one_also_after_the_first_came_back(journal, path):
    append(journal, b"one\n")
    aside = path.with_name("aside")
    path.rename(aside)
    path.write_bytes(b"one\n")
    assert not journal.is_at(path)
    assert not kept(journal)
    assert journal.is_at(path)
    assert not journal.is_at(aside)
    assert not journal.is_at(path.with_name("nothing"))
    aside.replace(path)
    assert not kept(journal)
    assert not append(journal, b"two\n")
    assert append(journal, b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@POSIX
def test_a_journal_is_locked_while_it_is_used_and_only_then(journal, path):
    append(journal, b"one\n")
    other = os.open(path, os.O_RDWR)
    try:
        with journal.lock():
            assert not try_lock(other)
        with pytest.raises(ValueError), journal.lock():
            raise ValueError
        assert try_lock(other)
        assert try_lock(other)
        unlock(other)
        assert append(journal, b"two\n")
    finally:
        os.close(other)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def sleep(self, secs):
        self.slept.append(secs)
        self.now += secs


@POSIX
def test_a_lock_of_another_program_is_waited_for_a_minute(journal, path, monkeypatch):
    append(journal, b"one\n")
    clock, other = Clock(), os.open(path, os.O_RDWR)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    assert try_lock(other)
    with pytest.raises(StorageError) as caught:
        kept(journal)
    assert str(caught.value) == (
        f"{str(path)!r} cannot be written: another program has locked it for 60 s; "
        "end that program, or record to another file"
    )
    assert set(clock.slept) == {0.005}
    assert 60 <= clock.now - 1000 <= 60.01
    monkeypatch.setattr(time, "sleep", lambda _: unlock(other))
    assert kept(journal)
    os.close(other)


@POSIX
def test_a_new_journal_is_readable_as_other_files_are_and_its_name_is_on_disk(
    journal, path, synced
):
    former = os.umask(0o027)
    try:
        assert not kept(journal)
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert synced == [inode(path.parent)]
    append(journal, b"one\n", b"two\n")
    assert synced == [inode(path.parent), inode(path), len(b"one\ntwo\n")]


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"", 0), (b"a", 0), (b"\n", 1), (b"one\n", 4), (b"one\ntwo", 4), (b"\ntwo", 1), (b"one\ntwo\n", 8),
        (b"x" * 60_000, 0), (b"\n" + b"x" * 59_999, 1), (b"\n" + b"x" * 60_000, 1), (b"\n" + b"x" * 60_001, 1),
        (b"one\n" + b"x" * 125_000, 4), (b"one\n" + b"x" * 125_000 + b"\n", 125_005), (b"x" * 125_000, 0),
        (b"a\n" * 40_000 + b"b", 80_000),
    ],
    ids=range(15),
)  # fmt: skip
def test_a_last_line_without_an_end_is_cut(journal, path, content, size):
    path.write_bytes(content)
    with journal.lock():
        assert journal.cut_unfinished_line() == size
    assert path.read_bytes() == content[:size]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_lines_of_which_one_fails_are_all_left_out(journal, path, error):
    append(journal, b"one\n")

    def lines():
        yield b"x" * 2_000_000 + b"\n"
        assert path.stat().st_size > 2_000_000
        raise error

    with pytest.raises(error), journal.lock():
        journal.append(lines())
    assert path.read_bytes() == b"one\n"
    assert append(journal, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_lines_are_written_in_batches_of_a_megabyte(journal, path, monkeypatch):
    sizes, real = [], os.write

    def write(descriptor, data):
        sizes.append(len(data))
        return real(descriptor, data[:700_000])

    monkeypatch.setattr(os, "write", write)
    lines = [b"a" * 499_999 + b"\n", b"b" * 499_999 + b"\n", b"c" * 999_998 + b"\n", b"d\n"]
    append(journal, *lines, b"e\n")
    assert sizes == [1_000_000, 300_000, 1_000_001, 300_001, 2]
    assert path.read_bytes() == b"".join([*lines, b"e\n"])


def test_a_journal_is_read_from_its_beginning_and_cut_anywhere(journal, path):
    append(journal, b"one\n", b"two\n")
    with journal.lock():
        for _ in range(2):
            with journal.open_to_read() as file:
                assert file.read() == b"one\ntwo\n"
        journal.cut(5)
    assert path.read_bytes() == b"one\nt"
    append(journal, b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


COUNTED = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="open files cannot be counted"
)


@COUNTED
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_holds_no_journal_of_its_parent(path):
    before = open_files()
    journals = [FileJournal(path.with_name(name)) for name in "ab"]
    for journal in journals:
        append(journal, b"one\n")
    assert open_files() == before + 2
    pid = os.fork()
    if not pid:
        is_closed = open_files() == before
        os._exit(0 if is_closed and append(journals[0], b"two\n") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert open_files() == before + 2
    assert append(journals[0], b"three\n")
    assert path.with_name("a").read_bytes() == b"one\ntwo\nthree\n"
    for journal in journals:
        journal.close()


@COUNTED
def test_no_file_stays_open(path):
    before = open_files()
    path.mkdir()
    with pytest.raises(OSError):
        open_regular(path)
    assert open_files() == before
    path.rmdir()
    write_whole(path, [b"x\n"])
    for use in range(3):
        journal = FileJournal(path)
        append(journal, b"one\n")
        path.replace(path.with_name("aside"))
        append(journal, b"two\n")
        assert open_files() == before + 1
        if use:
            journal.close()
            journal.close()
            assert open_files() == before
        del journal
        assert open_files() == before
    os.mkfifo(path.with_name("pipe"))
    with pytest.raises(OSError, match="pipe"):
        kept(FileJournal(path.with_name("pipe")))
    assert open_files() == before


def test_a_closed_journal_is_opened_again_by_its_next_use(journal, path):
    append(journal, b"one\n")
    journal.close()
    assert kept(journal)
    assert append(journal, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
