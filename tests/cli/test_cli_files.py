"""Names of files cannot speak to the terminal, and no file is replaced that the program did not write."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from cli_program import Terminal, needs_terminal, run

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
