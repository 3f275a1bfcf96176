"""Messages that are typed, pasted or piped, and the decoding of texts of other programs."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import sys
import threading
import time
from unittest import mock

import pytest

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from minillmlib.cli import terminal

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX terminal")


class Piped:
    """A standard input that is no terminal."""

    encoding = "latin-1"

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (b"", []),
        (b"\n \n\t\n", []),
        (b"one\ntwo\n\nthree", ["one", "two", "three"]),
        (b" one \r\ntwo\r\n", [" one ", "two"]),
        (b"\xef\xbb\xbfone\ntwo\n", ["one", "two"]),
        ("\ufeffoné\ntwo\n".encode("utf-16-le"), ["oné", "two"]),
        ("\ufeffoné\r\n\r\ntwo".encode("utf-16-be"), ["oné", "two"]),
        ("oné\n".encode() + "twö\n".encode("latin-1"), ["oné", "twö"]),
    ],
)
def test_each_piped_line_is_a_message(monkeypatch, data, messages):
    monkeypatch.setattr(sys, "stdin", Piped(data))
    assert [*terminal.read_messages()] == messages


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        ("oné".encode(), "oné"),
        (b"\xef\xbb\xbfon\xc3\xa9", "oné"),
        (b"\xef\xbb\xbf\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"\xff\xfeo\x00\xe9\x00", "oé"),
        (b"\xfe\xff\x00o\x00\xe9", "oé"),
        (b"\xff\xfeo\x00\xe9", "o\N{REPLACEMENT CHARACTER}"),
        (b"on\xe9", "oné"),
    ],
)
def test_a_text_of_another_program_is_decoded_by_its_mark_or_as_it_can_be(monkeypatch, data, text):
    monkeypatch.setattr(sys, "stdin", Piped(data))
    assert terminal.decode(data) == text
    assert terminal.read_piped() == text


def test_an_argument_is_decoded_too():
    assert terminal.decode_argument(None) is None
    assert terminal.decode_argument("oné") == os.fsencode("oné").decode()


@contextlib.contextmanager
def keyboard():
    """The keys of a terminal that is the standard input, and what is shown on standard error."""
    master, slave = os.openpty()
    errors = io.StringIO()
    with (
        os.fdopen(slave, encoding="utf-8") as stdin,
        os.fdopen(master, "wb", 0) as keys,
        mock.patch.multiple(sys, stdin=stdin, stdout=io.StringIO(), stderr=errors),
    ):
        yield keys, errors
        assert sys.stdout.getvalue() == ""


@needs_terminal
def test_lines_that_were_typed_ahead_are_messages_of_their_own():
    with keyboard() as (keys, errors):
        keys.write("one\n \ntwö\n/three\nfour\n".encode())
        messages = [*itertools.islice(terminal.read_messages(), 3)]
    assert messages == ["one", "twö", "/three"]
    assert errors.getvalue() == "> " * 4


@needs_terminal
def test_lines_that_come_together_after_the_prompt_are_one_message():
    with keyboard() as (keys, errors):

        def paste() -> None:
            while not errors.getvalue():
                time.sleep(0.001)
            keys.write(b"one\n\ntwo\n")

        pasting = threading.Thread(target=paste)
        pasting.start()
        message = next(terminal.read_messages())
        pasting.join()
    assert (message, errors.getvalue()) == ("one\n\ntwo", "> ")


def test_closed_streams_are_made_usable(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    terminal.prepare_streams()
    with sys.stdin, sys.stdout, sys.stderr:
        assert (sys.stdin.read(), sys.stdin.errors) == ("", "replace")
        assert (sys.stdout.errors, sys.stdout.write("x"), sys.stderr.write("x")) == (
            "backslashreplace",
            1,
            1,
        )


def test_open_streams_take_any_text(monkeypatch):
    given = io.TextIOWrapper(io.BytesIO(b"a\xff"), encoding="utf-8")
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", given)
    monkeypatch.setattr(sys, "stdout", output)
    terminal.prepare_streams()
    output.write(given.read() + "é")
    output.flush()
    assert output.buffer.getvalue() == b"a\\ufffd\\xe9"


def test_a_long_wait_for_piped_input_is_explained(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(terminal, "NOTICE_SECS", 0.01)
    is_shown = threading.Event()
    shown.flush = is_shown.set
    with terminal.waiting_notice():
        assert is_shown.wait(10)
    assert shown.getvalue() == (
        "waiting for the end of the piped input; if there is none, add < /dev/null\n"
    )
    monkeypatch.setattr(terminal, "NOTICE_SECS", 1000)
    with terminal.waiting_notice():
        pass
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
            assert not thread.is_alive()
