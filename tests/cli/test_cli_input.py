"""What is typed, pasted or piped into the command line is what the model is asked, in any encoding."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from cli_program import (
    CTRL_D,
    PATIENCE_SECS,
    PROGRAM,
    Terminal,
    environment,
    needs_terminal,
    run,
)

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

ANSWERED = r"It is Paris\."
CODE = "fix this:\n\tfirst line\n\n  second line"
BEGIN, END = "\x1b[200~", "\x1b[201~"


def asked(service) -> list[str]:
    """The last message of each request."""
    return [body["messages"][-1]["content"] for body in service.bodies]


# Pasted at a terminal.


@needs_terminal
@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "one line",
        "/usr/bin/x: not found\nwhy?",
        "// main\nint main() {}",
        "\n> a\n> b\n",
        "a\r\nb",
    ],
)
def test_a_paste_that_the_terminal_marks_is_one_message(service, text):
    pytest.importorskip("readline")
    with Terminal(service, "chat") as terminal:
        terminal.until("\\x1b\\[\\?2004h> ")  # the terminal is asked to mark what is pasted
        terminal.type(BEGIN + text.replace("\n", "\r") + END)
        terminal.type("\r")
        terminal.until(ANSWERED)
        terminal.until("> ")
        terminal.type("and this\r")
        terminal.until(ANSWERED)
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert asked(service) == [
        re.sub("\r\n?", "\n", text.replace("\r\n", "\r\r")).strip("\n"),
        "and this",
    ]


@needs_terminal
@pytest.mark.parametrize("missing", ["", "readline"])
@pytest.mark.parametrize("is_piped", [False, True])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_paste_that_no_terminal_marks_is_one_message_too(service, missing, is_piped, end):
    streams = {"stdout": subprocess.PIPE} if is_piped else {}
    with Terminal(service, "chat", changes={"NOT_INSTALLED": missing}, **streams) as terminal:
        terminal.until("> ")
        terminal.type("/x:\n  y\nz" + end)
        if not end:
            terminal.type("\n")
        terminal.until("35 tokens")
        terminal.until("> ")
        terminal.type("next\n")
        terminal.until("35 tokens")
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert asked(service) == ["/x:\n  y\nz", "next"]


@needs_terminal
@pytest.mark.parametrize("missing", ["", "readline"])
def test_lines_typed_one_after_another_are_messages_of_their_own_also_ahead(service, missing):
    with Terminal(service, "chat", "gate", changes={"NOT_INSTALLED": missing}) as terminal:
        terminal.until("first ")
        terminal.type("one\n")
        terminal.type("/cost\n")
        terminal.type("two\n")
        service.gate.set()
        terminal.until("second")
        terminal.until(ANSWERED)
        terminal.until("whole tree: ")
        terminal.until(ANSWERED)
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert asked(service) == ["gate", "one", "two"]


@needs_terminal
def test_ctrl_c_discards_a_whole_paste(service):
    pytest.importorskip("readline")
    with Terminal(service, "chat") as terminal:
        terminal.until("> ")
        terminal.type("a\nb")
        terminal.until("b")
        terminal.give_up_the_line()
        terminal.until("> ")
        terminal.type("c\n")
        terminal.until(ANSWERED)
    assert asked(service) == ["c"]


# Piped in.

ENCODED = [
    ("Größe? 日本".encode(), {"PYTHONIOENCODING": "cp1252"}, "Größe? 日本"),
    ("Größe? 日本".encode(), {"LC_ALL": "C", "LANG": "C"}, "Größe? 日本"),
    ("Größe? 日本".encode(), {"PYTHONIOENCODING": "ascii"}, "Größe? 日本"),
    ("Größe?".encode("cp1252"), {"PYTHONIOENCODING": "cp1252"}, "Größe?"),
    ("日本".encode("shift_jis"), {"PYTHONIOENCODING": "shift_jis"}, "日本"),
    ("Größe?".encode("cp1252"), {}, "Gr\ufffd\ufffde?"),
    ("\ufeffGröße?".encode(), {}, "Größe?"),
    ("\ufeffGröße? 日本\u2028x".encode("utf-16-le"), {}, "Größe? 日本\u2028x"),
    ("\ufeffGröße?".encode("utf-16-be"), {"PYTHONIOENCODING": "cp1252"}, "Größe?"),
    ("a\u2028b\x0cc".encode(), {}, "a\u2028b\x0cc"),
]


@pytest.mark.long
@pytest.mark.parametrize(("given", "changes", "text"), ENCODED)
@pytest.mark.parametrize("command", ["ask", "chat"])
def test_what_is_piped_in_is_understood_in_its_encoding(service, command, given, changes, text):
    code, out, err = run(service, command, given=given, **changes)
    assert (code, out, err) == (0, "It is Paris.\n", "")
    assert asked(service) == [text]


@pytest.mark.parametrize("command", ["ask", "chat"])
def test_bytes_without_any_meaning_are_no_error(service, command):
    code, out, err = run(service, command, given=bytes(range(256)))
    assert (code, err) == (0, "")
    assert set(out.splitlines()) == {"It is Paris."}
    assert "\ufffd" in asked(service)[-1]


def test_line_ends_of_windows_end_lines(service):
    run(service, "ask", "Sum up:\r\n", given=b"first\r\nlast\r\n\r\n")
    run(service, "chat", given=b"one\r\n\r\ntwo\r\n")
    assert asked(service) == ["Sum up:\r\n\n\nfirst\r\nlast", "one", "two"]


def test_each_line_of_a_piped_chat_is_decoded_by_itself(service):
    given = "Größe?\n".encode() + "Größe?\n".encode("cp1252") + "日本".encode()
    run(service, "chat", given=given, PYTHONIOENCODING="cp1252")
    assert asked(service) == ["Größe?", "Größe?", "日本"]


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are no bytes there")
def test_an_argument_that_is_no_utf8_is_asked_all_the_same(service):
    code, out, _ = run(service, "ask", os.fsdecode(b"Gr\xf6\xdfe?"), "-s", os.fsdecode(b"\xe9"))
    assert (code, out) == (0, "It is Paris.\n")
    assert service.said() == [("system", "\ufffd"), ("user", "Gr\ufffd\ufffde?")]


@pytest.mark.long
def test_a_pipe_that_stays_open_is_named_after_a_while_and_loses_nothing(service):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "ask", "Where?"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(service),
    ) as process:
        note = process.stderr.readline().decode()
        assert note == "waiting for the end of the piped input; if there is none, add < /dev/null\n"
        assert service.bodies == []
        out, err = process.communicate(b"more", timeout=PATIENCE_SECS)
    assert (process.returncode, out, err) == (0, b"It is Paris.\n", b"")
    assert asked(service) == ["Where?\n\nmore"]
