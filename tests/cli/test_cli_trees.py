"""Trees on the command line: drawn, kept in files, and walked within a conversation."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from decimal import Decimal

import pytest

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from cli_program import (
    CTRL_C,
    CTRL_D,
    HOSTILE,
    PATIENCE_SECS,
    PROGRAM,
    Terminal,
    environment,
    needs_terminal,
    run,
)  # fmt: skip

from minillmlib import ChatNode, CostTotal, StorageError
from minillmlib.tree.node import EXPORTS
from minillmlib.types.costs import total_words

pytestmark = pytest.mark.long

CONTROLS = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]"
STYLES = r"\x1b\[\d*m"  # what rich itself sends
PARIS = "It is Paris.\n"


@pytest.fixture
def forked():
    """A tree of three branches; the leaf of the first."""
    root = ChatNode.root("Be brief.")
    answer = root.add_user("Where?").add_assistant("Paris.")
    leaf = answer.add_user("And Italy?").add_assistant("Rome.")
    spain = answer.add_user("And Spain?")
    spain.add_assistant("Madrid.")
    spain.add_assistant("Seville?").add_user("Really?")
    return leaf


def tree_of(service, path):
    """What `tree` prints, without the ids."""
    code, out, err = run(service, "tree", str(path))
    assert (code, err) == (0, "")
    return re.sub("(?m)^( *[0-9]+) [0-9a-f]{6} ", r"\1 ", out).splitlines()


def chat(service, path, *lines, **changes):
    """Says these lines to a conversation in a file; the answers and what is beside them."""
    said = "\n".join(lines).encode()
    code, out, err = run(service, "chat", "--save", str(path), given=said, **changes)
    assert code == 0
    return out, err


def texts(node):
    return [one.text for one in node.path()]


def users(service):
    return [content for role, content in service.said() if role == "user"]


# tree


def test_a_tree_is_drawn_with_chains_flat_and_branches_indented(service, forked, tmp_path):
    forked.root_node.save_tree(tmp_path / "forked.tree")
    assert tree_of(service, tmp_path / "forked.tree") == [
        "1 system  Be brief.",
        "2 user  Where?",
        "3 assistant  Paris.",
        "4 ├─ user  And Italy?",
        "5 │  assistant  Rome.",
        "6 └─ user  And Spain?",
        "7    ├─ assistant  Madrid.",
        "8    └─ assistant  Seville?",
        "9       user  Really?",
        "9 messages in 3 branches · $0",
    ]


def test_a_thread_document_is_drawn_too(service, forked, tmp_path):
    forked.save_thread(tmp_path / "ours.json")
    (tmp_path / "list.json").write_text('[{"role": "user", "content": "Hi"}]')
    assert tree_of(service, tmp_path / "ours.json")[-2:] == [
        "5 assistant  Rome.",
        "5 messages · $0",
    ]
    assert tree_of(service, tmp_path / "list.json") == ["1 user  Hi", "1 message · $0"]


def test_an_answer_is_drawn_with_its_model_and_its_cost(service, tmp_path):
    file = tmp_path / "kept.tree"
    chat(service, file, "priced", MINILLMLIB_MODEL="openrouter:m")
    chat(service, file, "plain")
    drawn = tree_of(service, file)
    assert drawn[2] == "3 assistant  Paris · m · $0.000012"
    assert drawn[4] == "5 assistant  It is Paris. · m · cost unknown (no price set)"
    assert drawn[5] == "5 messages · at least $0.000012"


def test_a_note_is_drawn_beside_its_node_unless_it_is_the_librarys(service, tmp_path):
    ChatNode.root("Be brief.").note("_own", 1).note("score", 3).save_tree(tmp_path / "noted.tree")
    assert tree_of(service, tmp_path / "noted.tree")[0] == "1 system  Be brief. · score: 3"


@needs_terminal
@pytest.mark.parametrize("columns", ["30", "120"])
def test_hostile_text_neither_moves_the_cursor_nor_is_it_markup(service, tmp_path, columns):
    ChatNode.root(HOSTILE).add_user("[bold]" + HOSTILE * 100).save_tree(tmp_path / "sub.tree")
    ChatNode.root(HOSTILE).add_user("[b]x[/b]").save_thread(tmp_path / "all.json")
    for name in ("sub.tree", "all.json"):
        with Terminal(
            service, "tree", str(tmp_path / name), changes={"COLUMNS": columns}
        ) as terminal:
            code, shown = terminal.end()
        assert code == 0
        assert re.search(r"\[b(old)?\]", shown)
        plain = re.sub(STYLES, "", shown)
        assert not re.search(CONTROLS, plain)
        assert all(len(line) <= int(columns) for line in plain.splitlines())


def test_a_pipe_gets_plain_text(service, tmp_path):
    ChatNode.root(HOSTILE).save_tree(tmp_path / "hostile.tree")
    drawn = "\n".join(tree_of(service, tmp_path / "hostile.tree"))
    assert not re.search(CONTROLS, drawn)


@needs_terminal
def test_no_color_is_honoured(service, forked, tmp_path):
    forked.root_node.save_tree(tmp_path / "forked.tree")
    for changes in ({}, {"NO_COLOR": "1"}):
        with Terminal(service, "tree", str(tmp_path / "forked.tree"), changes=changes) as terminal:
            _, shown = terminal.end()
        assert bool(re.search(r"\x1b\[3\dm", shown)) is not bool(changes)


def test_an_output_without_box_characters_gets_plain_strokes(service, forked, tmp_path):
    forked.root_node.save_tree(tmp_path / "forked.tree")
    _, out, _ = run(service, "tree", str(tmp_path / "forked.tree"), PYTHONIOENCODING="ascii")
    assert re.search(r"\|- user  And Italy\?\n", out)


def test_any_depth_is_drawn_in_lines_of_a_bounded_length(service, tmp_path):
    chain = comb = ChatNode.root("deep")
    for number in range(5000):
        chain = chain.add_user(f"link {number}")
    for _ in range(5000):
        comb.add_user("tooth " * 40)
        comb = comb.add_user("comb")
    comb.root_node.save_tree(tmp_path / "deep.tree")
    drawn = tree_of(service, tmp_path / "deep.tree")
    assert len(drawn) == 15002
    assert drawn[4999].endswith("│  user  link 4998")
    assert "⋯" in drawn[-2]
    assert max(map(len, drawn)) <= 100


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read (No such file"),
        (b"", "it is no conversation"),
        (b"\xff\x00", "it is no conversation"),
        (b'{"prompts": [{"role": "judge"}]}', "prompts[0].role"),
        (b'[{"kind":"minillmlib tree","version":9}]\n', "line 1"),
    ],
)
@pytest.mark.parametrize("command", ["tree", "view"])
def test_what_is_no_conversation_is_one_readable_line_and_code_1(
    service, tmp_path, command, content, problem
):
    file = tmp_path / "odd"
    if content is not None:
        file.write_bytes(content)
    code, out, err = run(service, command, str(file))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert problem in err


# view


def test_view_writes_a_page_beside_the_file_and_says_where(service, forked, tmp_path):
    forked.root_node.save_tree(tmp_path / "forked.tree")
    page = tmp_path / "forked.html"
    assert run(service, "view", str(tmp_path / "forked.tree")) == (0, f"{page}\n", "")
    assert "Seville?" in page.read_text()
    other = tmp_path / "other.htm"
    arguments = ["view", str(tmp_path / "forked.tree"), "--output", str(other)]
    assert run(service, *arguments) == (0, f"{other}\n", "")
    assert other.read_text() == page.read_text()


def test_view_opens_the_browser_if_asked(service, forked, tmp_path):
    forked.save_thread(tmp_path / "thread.json")
    browser = f"{sys.executable} -c 'import sys; open(sys.argv[2], \"w\").write(sys.argv[1])' %s "
    arguments = ["view", str(tmp_path / "thread.json"), "--open"]
    code, _, _ = run(service, *arguments, BROWSER=browser + str(tmp_path / "opened"))
    assert code == 0
    assert (tmp_path / "opened").read_text() == (tmp_path / "thread.html").as_uri()


@pytest.mark.parametrize("output", [["--output", "it.html"], []])
def test_view_never_writes_onto_the_file_it_shows(service, forked, tmp_path, output):
    file = tmp_path / "it.html"
    forked.save_thread(file)
    before = file.read_bytes()
    arguments = [str(tmp_path / one) if "." in one else one for one in output]
    code, out, err = run(service, "view", str(file), *arguments)
    assert (code, out) == (2, "")
    assert "would be overwritten" in err
    assert file.read_bytes() == before


# chat --save


def test_a_kept_conversation_goes_on_where_it_was(service, tmp_path):
    file = tmp_path / "kept.tree"
    assert chat(service, file, "first")[0] == PARIS
    assert chat(service, file, "second")[0] == PARIS
    assert users(service) == ["first", "second"]
    assert ChatNode.load_tree(file).node_count() == 5


def test_it_goes_on_in_the_branch_in_which_something_was_said_last(service, tmp_path):
    file = tmp_path / "kept.tree"
    chat(service, file, "one", "two", "/branch 2", "other", "/goto 5")
    chat(service, file, "more")
    assert users(service) == ["other", "more"]


@needs_terminal
def test_the_last_messages_are_shown_and_a_killed_program_has_lost_none(service, tmp_path):
    file = tmp_path / "kept.tree"
    with Terminal(service, "chat", "--save", str(file)) as terminal:
        for said in ("hostile", "kept"):
            terminal.until("> ")
            terminal.type(f"{said}\n")
            terminal.until("35 tokens")
        terminal.until("> ")
        terminal.type("endless\n")
        terminal.until("begun")
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait(PATIENCE_SECS)
    with Terminal(service, "chat", "--save", str(file)) as terminal:
        shown = re.sub(STYLES, "", terminal.until("> "))
        terminal.type(CTRL_D)
        terminal.end()
    assert shown.startswith("5 messages · cost unknown (no price set); /tree")
    assert "user: kept\nassistant: It is Paris.\n" in shown
    assert r"a\x1b[2Jb" in shown
    assert not re.search(CONTROLS.replace(r"\x08", r"\x08\x0d"), shown.replace("\x1b[?2004h", ""))


@needs_terminal
def test_ctrl_c_stops_an_answer_and_the_kept_conversation_goes_on(service, tmp_path):
    file = tmp_path / "kept.tree"
    with Terminal(service, "chat", "--save", str(file)) as terminal:
        terminal.until("> ")
        terminal.type("endless\n")
        terminal.until("begun\n")
        terminal.type(CTRL_C)
        terminal.until(r"\(stopped\)")
        terminal.until("> ")
        terminal.type("again\n")
        terminal.until("35 tokens")
        terminal.until("> ")
        terminal.type(CTRL_D)
        terminal.end()
    root = ChatNode.load_tree(file)
    assert [node.text for node in root.depth_first()][1:] == ["again", "It is Paris."]


def test_another_system_prompt_for_a_kept_conversation_is_a_wrong_use(service, tmp_path):
    file = tmp_path / "kept.tree"
    arguments = ["chat", "x", "--save", str(file), "--system", "Be kind."]
    assert run(service, *arguments)[0] == 0
    assert run(service, *arguments)[0] == 0
    before = file.read_bytes()
    code, out, err = run(service, *arguments[:-1], "Be rude.")
    assert (code, out) == (2, "")
    assert "another system prompt" in err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"a note without an end", b"two\nlines\n", b'[{"kind":"other"}]']
)
def test_a_file_that_is_no_tree_is_not_touched(service, tmp_path, content):
    file = tmp_path / "note"
    file.write_bytes(content)
    code, out, err = run(service, "chat", "x", "--save", str(file))
    assert (code, out, service.bodies) == (1, "", [])
    assert re.fullmatch(r"error: .*'?note'?.*\n", err)
    assert file.read_bytes() == content
    with pytest.raises(StorageError):
        ChatNode.root("s").attach_journal(file)
    assert file.read_bytes() == content


def test_a_file_that_a_crash_left_just_begun_is_a_new_one(service, tmp_path):
    ChatNode.root("s").save_tree(tmp_path / "whole.tree")
    whole = (tmp_path / "whole.tree").read_bytes()
    file = tmp_path / "cut.tree"
    for size in (0, 10, whole.index(b"\n") + 1, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert chat(service, file, "x")[0] == PARIS
        assert ChatNode.load_tree(file).node_count() == 3


@needs_terminal
def test_what_the_disk_refuses_is_said_and_stays_in_the_conversation(service, tmp_path):
    file = tmp_path / "kept.tree"
    command = 'ulimit -f 2; exec "$0" -c "$1" chat --save "$2"'
    done = subprocess.run(
        ["/bin/bash", "-c", command, sys.executable, PROGRAM, str(file)],
        input=f"one {'x' * 3000}\ntwo\n/save {tmp_path}/out.md\n".encode(),
        capture_output=True,
        timeout=PATIENCE_SECS,
        env=environment(service),
        check=False,
    )
    assert done.stdout.decode() == PARIS * 2
    assert re.match(r"error: .*kept.tree' cannot be (written|kept) ", done.stderr.decode())
    assert len(users(service)) == 2
    assert ChatNode.load_tree(file).node_count() == 1


# within a conversation


def test_branch_goes_back_to_before_what_was_said(service, tmp_path):
    file = tmp_path / "kept.tree"
    _, err = chat(service, file, "one", "two", "/branch", "three", "/branch 2", "four")
    assert [body["messages"][-1]["content"] for body in service.bodies] == [
        "one", "two", "three", "four",
    ]  # fmt: skip
    assert users(service) == ["four"]
    assert 'Before "two".' in err
    assert [len(node.children()) for node in ChatNode.load_tree(file).in_insertion_order()[:3]] == [
        2,
        1,
        2,
    ]


def test_retry_asks_again_beside_the_first_answer(service, tmp_path):
    file = tmp_path / "kept.tree"
    chat(service, file, "one", "/retry", "/retry", "two")
    assert users(service) == ["one", "two"]
    question = ChatNode.load_tree(file).children()[0]
    assert [len(answer.children()) for answer in question.children()] == [0, 0, 1]


def test_retry_after_a_failure_asks_what_failed_unless_one_has_moved(service, tmp_path):
    file = tmp_path / "kept.tree"
    chat(
        service, file, "one", "fail", "/retry", "/branch", "/goto 3", "/retry", "/goto 2", "/retry"
    )
    asked = [body["messages"][-1]["content"] for body in service.bodies]
    assert asked == ["one", "fail", "fail", "fail", "one"]
    assert ChatNode.load_tree(file).node_count() == 4


def test_goto_takes_a_number_or_the_beginning_of_an_id(service, forked, tmp_path):
    file = tmp_path / "kept.tree"
    forked.root_node.save_tree(file)
    _, err = chat(service, file, "/goto 5", "more", f"/goto {forked.parent.id[:9].upper()}", "why")
    assert users(service) == ["Where?", "And Italy?\n\nwhy"]
    assert "After 5, assistant: Rome." in err
    assert "After 4, user: And Italy?" in err


def test_the_commands_work_without_a_file(service):
    given = b"one\n/branch\ntwo\n/tree\n/cost\n"
    code, out, err = run(service, "chat", given=given)
    assert (code, out) == (0, PARIS * 2)
    assert re.search(r"(?m)^\*5 [0-9a-f]{6}    assistant  It is Paris\.", err)
    assert "this answer: at least $0 (1 unpriced)\n" in err
    assert "whole tree: at least $0 (2 unpriced)\n" in err


def test_the_cost_is_of_the_answer_the_branch_and_the_tree(service):
    given = b"priced\npriced\n/branch 2\npriced\n/cost\n"
    _, _, err = run(service, "chat", "-m", "openrouter:m", given=given)
    assert "this answer: $0.000012\nthis branch: $0.000012\nwhole tree: $0.000036\n" in err


def test_save_writes_what_the_name_asks_for(service, tmp_path):
    names = ["it.md", "it.json", "it.tree"]
    lines = ["one", "/branch", "two", *(f"/save {tmp_path / name}" for name in names)]
    _, err = chat(service, tmp_path / "kept.tree", *lines)
    assert err.count("Wrote ") == 3
    assert (
        (tmp_path / "it.md")
        .read_text()
        .endswith("## User\n\ntwo\n\n## Assistant\n\nIt is Paris.\n")
    )
    leaf = ChatNode.from_thread_file(tmp_path / "it.json")[1]
    assert texts(leaf)[1:] == ["two", "It is Paris."]
    assert ChatNode.load_tree(tmp_path / "it.tree").node_count() == 5


def test_save_writes_a_page(service, tmp_path):
    chat(service, tmp_path / "kept.tree", "one", f"/save {tmp_path / 'it.html'}")
    assert "It is Paris." in (tmp_path / "it.html").read_text()


def test_save_writes_training_data(service, tmp_path):
    file = tmp_path / "It.ShareGPT.jsonl"
    _, err = chat(service, tmp_path / "kept.tree", "one", "/branch", "two", f"/save {file}")
    assert "Wrote the whole tree, as ShareGPT lines" in err
    said = [json.loads(line)["conversations"] for line in file.read_text().splitlines()]
    assert [[turn["value"] for turn in one][1:] for one in said] == [
        ["one", "It is Paris."],
        ["two", "It is Paris."],
    ]


def test_help_names_every_export(service):
    _, _, err = run(service, "chat", given=b"/help\n")
    assert all(suffix in err for suffix in EXPORTS)


def test_save_never_replaces_the_journal(service, tmp_path):
    file, link = tmp_path / "kept.tree", tmp_path / "link"
    link.symlink_to(file)
    _, err = chat(service, file, "one", f"/save {link}", "/save a\x00b", "two")
    assert re.search("is kept in .*\n.*cannot be written", err)
    assert ChatNode.load_tree(file).node_count() == 5


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/undo", "there is no /undo, only /branch, /tree, /goto"),
        ("/", "there is no /, only"),
        ("/branch", "nothing was said yet"),
        ("/branch 0", "a number like 1"),
        ("/branch \u00b2", "a number like 1"),
        ("/retry", "nothing was asked yet"),
        ("/goto", "takes a number"),
        ("/goto 2", "no number and no id"),
        ("/goto -1", "no number and no id"),
        ("/tree x", "stands alone"),
        ("/save", "takes the name of a file"),
        ("/save /nowhere/x.tree", "No such file"),
        ("/save a\x00b", "cannot be written"),
        ("/save ~nobody-has-this-name/x", "No such file"),
    ],
)
def test_a_command_that_cannot_be_done_is_one_line_and_nothing_is_sent(service, line, problem):
    code, out, err = run(service, "chat", given=f"{line}\n".encode())
    assert (code, out, service.bodies) == (0, "", [])
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert problem in err


def test_a_message_that_begins_with_a_slash_is_sent_when_it_is_doubled(service):
    run(service, "chat", given=b"//help me\n")
    assert users(service) == ["/help me"]


# wording


@pytest.mark.parametrize(
    ("total", "words"),
    [
        (CostTotal(), "$0"),
        (CostTotal(cost=Decimal("0.5")), "$0.5"),
        (CostTotal(cost=Decimal("0.5"), unknown=1), "at least $0.5"),
        (CostTotal(unpriced=1), "cost unknown (no price set)"),
        (CostTotal(unpriced=1, unknown=1), "cost unknown"),
    ],
)
def test_a_sum_of_costs_is_never_a_fake_zero(total, words):
    assert total_words(total) == words
