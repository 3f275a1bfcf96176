"""Names of files cannot speak to the terminal, and no file is replaced that the program did not write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest
from cli_program import PATIENCE_SECS, PROGRAM, Terminal, environment, needs_terminal, run

from minillmlib import ChatNode

# Sets the title, clears the screen, rings, reverses what follows, and is no UTF-8.
EVIL = "x\x1b]0;owned\x07\x9b2J\u202egnp\u2066\udcff.tree"
RAW = re.compile("\x1b\\]0|\x07|\x9b|\x1b\\[2J|[\u202e\u2066]")


@pytest.fixture
def evil(tmp_path):
    """A tree in a file of this name, whose last line was cut off."""
    file = tmp_path / EVIL
    ChatNode.root("s").save_tree(file)
    with file.open("ab") as tree:
        tree.write(b'[{"kind')
    return file


def shown(service, *arguments) -> str:
    with Terminal(service, *map(os.fsencode, arguments), stdin=subprocess.DEVNULL) as terminal:
        return terminal.end()[1]


@needs_terminal
@pytest.mark.parametrize(
    "arguments",
    [
        ["tree", "{file}"], ["tree", "{file}.missing"], ["tree", "{folder}"],
        ["view", "{file}"], ["view", "{file}", "-o", "{file}.html"],
        ["view", "{file}", "-o", "{folder}"], ["view", "{file}", "-o", "{file}"],
        ["repair", "{file}.missing"], ["repair", "{folder}"],
        ["chat", "--save", "{file}"], ["chat", "--save", "{folder}"],
        ["chat", "--save", "{file}", "--system", "{file}"],
        ["ask", "q", "-m", "local:{file}"], ["ask", "q", "-m", "{file}:m"],
        ["ask", "q", "-m", "custom:{file}:m"], ["ask", "q", "--base-url", "{file}", "-m", "m"],
        ["ask", "q", "--key-env", "{file}"], ["ask", "q", "--price", "{file}"],
        ["ask", "q", "--max-tokens", "{file}"], ["ask", "q", "--{file}"], ["{file}"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_name_on_the_terminal_is_written_out(service, evil, tmp_path, arguments):
    folder = tmp_path / EVIL.replace("tree", "folder")
    folder.mkdir()
    names = {"file": str(evil), "folder": str(folder)}
    text = shown(service, *(one.format(**names) for one in arguments))
    assert text
    assert not RAW.search(text), text


@needs_terminal
def test_names_within_a_conversation_are_written_out(service, tmp_path):
    lines = [f"/save {tmp_path}/{EVIL[:-6]}.md"] * 2 + ["/goto \u202ex", "/no\u202ex"]
    lines += [f"/save {tmp_path}/{EVIL[:-6]}/y", "/branch \u202e9", "/tree \u202ex"]
    with Terminal(service, "chat", stdin=subprocess.PIPE) as terminal:
        terminal.process.stdin.write("\n".join(lines).encode())
        terminal.process.stdin.close()
        text = terminal.end()[1]
    assert text.count(r"\x1b]0;owned\x07\x9b2J\u202egnp") == 3, text
    assert not RAW.search(text), text


def saved(service, *lines: str) -> str:
    return run(service, "chat", given="\n".join(lines).encode())[2]


NAMES = ["it.md", "it.json", "it.html", "it.sharegpt.jsonl", "it.tree", "it"]


@pytest.mark.parametrize("name", NAMES)
def test_save_replaces_no_file_of_others_without_being_told(service, tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"mine")
    err = saved(service, "one", f"/save {file}", "two")
    assert re.search(rf"error: '.*{name}' exists already; .*: /save! .*{name}\n", err)
    assert file.read_bytes() == b"mine"
    assert service.said()[-1] == ("user", "two")
    assert "Wrote " in saved(service, "one", f"/save! {file}")
    assert file.read_bytes() != b"mine"


def test_save_replaces_what_this_chat_wrote_and_only_that(service, tmp_path):
    file, other = tmp_path / "it.md", tmp_path / "other.md"
    err = saved(service, "one", f"/save {file}", "two", f"/save {file}")
    assert err.count("Wrote ") == 2
    assert file.read_text().count("It is Paris.") == 2
    assert saved(service, "one", f"/save {file}").count("exists already") == 1  # another chat
    other.symlink_to(file)
    assert "exists already" in saved(service, "one", f"/save {other}")
    assert "/save! FILE" in saved(service, "/help")


@pytest.mark.parametrize("content", [b"mine", b"<!DOCTYPE html>\n<html><p>mine", b""])
def test_view_replaces_only_pages_of_its_own_without_being_told(service, tmp_path, content):
    file, page = tmp_path / "it.tree", tmp_path / "it.html"
    ChatNode.root("s").save_tree(file)
    assert run(service, "view", str(file))[0] == 0
    assert run(service, "view", str(file))[0] == 0  # its own page
    page.write_bytes(content)
    for arguments in ([], ["--output", str(page)]):
        code, out, err = run(service, "view", str(file), *arguments)
        assert (code, out, page.read_bytes()) == (2, "", content)
        assert re.search(r"it.html' exists and is no page .*--output.*--force\n", err)
    assert run(service, "view", str(file), "--force")[0] == 0
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")


def replaced_by_another(file):
    file.unlink()
    ChatNode.root("other").save_tree(file)


def replaced_by_a_note(file):
    file.unlink()
    file.write_text("a note\n")


def replaced_by_a_folder(file):
    file.unlink()
    file.mkdir()


CHANGES = {
    "removed": (lambda file: file.unlink(), ""),
    "renamed": (lambda file: file.rename(file.with_name("moved.tree")), ""),
    "replaced by another conversation": (replaced_by_another, "was replaced.*move that one away"),
    "replaced by a note": (replaced_by_a_note, "was replaced.*move that one away"),
    "replaced by a folder": (replaced_by_a_folder, "cannot be written.*/save it elsewhere"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_conversation_goes_on_whatever_happens_to_its_file(service, tmp_path, name):
    change, problem = CHANGES[name]
    file, copy = tmp_path / "kept.tree", tmp_path / "copy.tree"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "chat", "--save", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(service),
    )  # fmt: skip
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"It is Paris.\n"
    while not (file.exists() and ChatNode.load_tree(file).node_count() == 3):
        time.sleep(0.02)
    change(file)
    out, err = process.communicate(f"two\n/save {copy}\nthree\n".encode(), PATIENCE_SECS)
    assert (process.returncode, out) == (0, b"It is Paris.\n" * 2)
    errors = [line for line in err.decode().splitlines() if line.startswith("error")]
    assert len(errors) == (2 if problem else 0), errors  # one for each answer
    assert all(re.search(problem, line) for line in errors)
    assert ChatNode.load_tree(copy).node_count() == 5
    if not problem:
        assert ChatNode.load_tree(file).node_count() == 7
