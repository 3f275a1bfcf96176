"""The command line, as a person and as another program use it.

The program runs in a process of its own, at a terminal of its own where that matters. Its
models are a server on this machine whose behaviour the question names, and the built-in one.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from cli_program import (
    CTRL_C,
    CTRL_D,
    DIM,
    HOSTILE,
    PATIENCE_SECS,
    PLAIN,
    PROGRAM,
    RED,
    SHOWN,
    Terminal,
    environment,
    needs_terminal,
    run,
)

from minillmlib import CompletionResponse, CostOutcome, FinishReason, Usage, __version__

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from minillmlib.cli.format import closing_line, name_options, one_line, visible

GUIDE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


# The guide


def test_the_guide_has_every_command_of_the_program(service):
    _, out, _ = run(service, "--help", COLUMNS="100")
    names = re.findall(r"(?m)^\W+([a-z]+)  ", out.partition("Commands")[2])
    assert {"ask", "repair"} <= set(names)
    assert [name for name in names if f"minillmlib {name}" not in GUIDE] == []


def test_the_guide_has_every_command_of_a_chat(service):
    _, out, err = run(service, "chat", given=b"/help\n")
    names = set(re.findall(r"(?m)^/[\w!]+", err))
    assert out == ""
    assert {"/branch", "/save!"} <= names == {*re.findall(r"(?m)^\| `(/[\w!]+)", GUIDE)}


# ask, between programs


def test_ask_prints_the_answer_and_nothing_else_when_nothing_is_a_terminal(service):
    assert run(service, "ask", "Where?") == (0, "It is Paris.\n", "")
    assert service.said() == [("system", "You are a helpful assistant."), ("user", "Where?")]


def test_options_reach_the_model(service):
    options = ["-s", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "-m", "openrouter:x"]
    assert run(service, "ask", "Where?", *options)[0] == 0
    body = service.bodies[0]
    assert service.said() == [("system", "Be brief."), ("user", "Where?")]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("x", 7, 0.5)


def test_the_model_comes_from_the_environment_unless_it_is_named(service):
    run(service, "ask", "Where?", MINILLMLIB_MODEL="openai:from-env")
    run(service, "ask", "Where?", "--model", "openai:named", MINILLMLIB_MODEL="openai:from-env")
    assert [body["model"] for body in service.bodies] == ["from-env", "named"]


@pytest.mark.parametrize(
    ("arguments", "given", "question"),
    [
        ([], b"Where is\nit?\n", "Where is\nit?"),
        (["Sum up:"], b"one\n  two\n\n", "Sum up:\n\none\n  two"),
        (["Alone"], b"\n", "Alone"),
        ([], b"odd \xff bytes", "odd \N{REPLACEMENT CHARACTER} bytes"),
    ],
)
def test_ask_reads_what_is_piped_in(service, arguments, given, question):
    assert run(service, "ask", *arguments, given=given) == (0, "It is Paris.\n", "")
    assert service.said()[-1] == ("user", question)


def test_without_a_question_nothing_is_sent_and_the_code_is_2(service):
    code, out, err = run(service, "ask", given=b" \n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: there is no question")
    assert service.bodies == []


@needs_terminal
def test_closed_streams_are_empty_streams(service):
    command = '"$0" -c "$1" ask <&-; echo $?; "$0" -c "$1" ask Where? <&- >&- 2>&-; echo $?'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, PROGRAM],
        capture_output=True,
        timeout=PATIENCE_SECS,
        env=environment(service),
        check=False,
    )
    assert done.stdout == b"2\n0\n"
    assert len(service.bodies) == 1


def test_a_pipe_gets_the_text_exactly_as_the_model_wrote_it(service):
    assert run(service, "ask", "hostile") == (0, HOSTILE + "\n", "")


def test_text_that_the_output_cannot_encode_is_written_out(service):
    code, out, _ = run(service, "ask", "hostile", PYTHONIOENCODING="ascii")
    assert code == 0
    assert r"\u202e" in out


def test_a_refusal_is_the_answer(service):
    noted = "the answer was refused or filtered\n"
    assert run(service, "ask", "refuse") == (0, "I will not.\n", noted)


@pytest.mark.parametrize(
    ("arguments", "changes", "problem"),
    [
        (["fail"], {}, r"no [bold]such"),
        (["x"], {"OPENAI_API_KEY": ""}, "OPENAI_API_KEY"),
        (["x"], {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "127.0.0.1"),
    ],
)
def test_an_error_is_one_readable_line_and_code_1(service, arguments, changes, problem):
    code, out, err = run(service, "ask", *arguments, **changes)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert problem in err
    assert err[:-1].isprintable()


@pytest.mark.parametrize(
    ("model", "option"),
    [("openai:m", "set the environment variable OPENAI_API_KEY"),
     ("claude_subscription:m", "--model anthropic:MODEL")],
)  # fmt: skip
def test_advice_names_options_and_no_python_method(service, tmp_path, model, option):
    keys = {"OPENAI_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "", "CLAUDE_CONFIG_DIR": str(tmp_path)}
    code, _, err = run(service, "ask", "x", "-m", model, HOME=str(tmp_path), **keys)
    assert (code, service.bodies) == (1, [])
    assert option in err
    assert not re.search(r"GeneratorInfo|with_|\w\(", err)


@pytest.mark.parametrize(
    ("advice", "option"),
    [
        ("run again, or give GeneratorInfo.local('file.gguf')", "run again, or give --model local:file.gguf"),
        ("shorten it or lower max_tokens", "shorten it or lower --max-tokens"),
        ("more than 9 bytes; raise body_bytes of the generator's limits if that is right",
         "more than 9 bytes"),
        ("not built; run your own server and use GeneratorInfo.custom(...)",
         "not built; choose another model with --model"),
        ("the server says: max_tokens is too large", "the server says: max_tokens is too large"),
    ],
)  # fmt: skip
def test_python_methods_become_options(advice, option):
    assert name_options(advice) == option


def test_a_wrong_model_name_is_a_wrong_use(service):
    code, out, err = run(service, "ask", "x", MINILLMLIB_MODEL="gpt")
    assert (code, out) == (2, "")
    assert "'gpt' is not a model" in err


@pytest.mark.parametrize(
    ("question", "text"), [("half", "half an answer\n"), ("broken", "some text\n")]
)
def test_text_before_an_error_stays(service, question, text):
    code, out, err = run(service, "ask", question)
    assert (code, out) == (1, text)
    assert re.fullmatch(r"error: [^\n]+\n", err)


@needs_terminal
def test_a_reader_that_leaves_ends_the_program_quietly(service):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "ask", "endless"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(service),
    ) as process:
        assert process.stdout.readline() == b"begun\n"
        process.stdout.close()
        assert process.wait(PATIENCE_SECS) == 141
        assert process.stderr.read() == b""
    assert service.hung_up.wait(PATIENCE_SECS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_an_output_that_cannot_be_written_is_an_error(service):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "ask", "Where?"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_SECS,
            env=environment(service),
            check=False,
        )
    assert done.returncode == 1
    assert re.fullmatch(rb"error: [^\n]*No space left[^\n]*\n", done.stderr)


# ask, at a terminal


@needs_terminal
def test_ask_streams_live_and_ends_with_a_dim_line_of_usage_and_cost(service):
    with Terminal(service, "ask", "gate") as terminal:
        assert terminal.until("first ") == "first "
        service.gate.set()
        line = f"{DIM}35 tokens (27 in, 8 out) · cost unknown (no price set){PLAIN}"
        assert terminal.end() == (0, f"second\n{line}\n")


@needs_terminal
def test_the_dim_line_goes_beside_an_answer_that_is_piped(service):
    pipe = subprocess.PIPE
    with Terminal(service, "ask", "priced", "-m", "openrouter:m", stdout=pipe) as terminal:
        line = f"{DIM}35 tokens (27 in, 8 out) · $0.000012{PLAIN}\n"
        assert terminal.end() == (0, line)
        assert terminal.process.stdout.read() == b"Paris\n"


@needs_terminal
def test_the_dim_line_says_that_an_answer_was_cut(service):
    with Terminal(service, "ask", "cut") as terminal:
        line = "no token counts · cost unknown · the answer was cut at its length limit"
        assert terminal.end() == (0, f"Once upon\n{DIM}{line}{PLAIN}\n")


@needs_terminal
def test_a_terminal_is_not_given_what_it_would_obey(service):
    with Terminal(service, "ask", "hostile") as terminal:
        shown = terminal.until("35 tokens").removesuffix(f"\n{DIM}35 tokens")
        assert re.sub("[\t ]+tab$", "", shown) == SHOWN


@needs_terminal
@pytest.mark.parametrize("changes", [{}, {"NO_COLOR": "1"}])
def test_an_error_is_red_unless_colour_is_unwanted(service, changes):
    with Terminal(service, "ask", "broken", changes=changes) as terminal:
        code, shown = terminal.end()
    text, line, rest = shown.split("\n")
    assert (code, text, rest) == (1, "some text", "")
    assert line.startswith("error: " if changes else f"{RED}error: ")
    assert "\x1b[31m" not in line.removeprefix(RED)


@needs_terminal
def test_ctrl_c_ends_ask_quietly_and_closes_the_connection(service):
    with Terminal(service, "ask", "endless") as terminal:
        terminal.until("begun\n")
        terminal.type(CTRL_C)
        code, shown = terminal.end()
    assert code == 130
    assert re.fullmatch(r"(line \d+\n)*(\^C)?(line \d+\n)*\n?", shown)
    assert service.hung_up.wait(PATIENCE_SECS)


# chat


@needs_terminal
def test_chat_goes_on_after_ctrl_c_and_errors_and_forgets_those_turns(service):
    with Terminal(service, "chat", "Hello") as terminal:
        assert terminal.until("> ").startswith("It is Paris.\n")
        terminal.type("endless\n")
        terminal.until("begun\n")
        terminal.type(CTRL_C)
        terminal.until(re.escape(f"\n{DIM}(stopped){PLAIN}\n"))
        assert service.hung_up.wait(PATIENCE_SECS)
        terminal.until("> ")
        terminal.type("fail\n")
        terminal.until(r"error: .*no \[bold\]such.*\n")
        terminal.until("> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.give_up_the_line()
        terminal.until("> ")
        terminal.type("\nagain\n")
        terminal.until(r"It is Paris\.\n")
        terminal.until("> ")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "Traceback" not in shown
    assert [content for _, content in service.said()[1:]] == ["Hello", "It is Paris.", "again"]


@needs_terminal
def test_chat_lines_can_be_edited_and_recalled(service):
    pytest.importorskip("readline")
    with Terminal(service, "chat") as terminal:
        terminal.until("> ")
        terminal.type("Whree\b\b\bere\n")
        terminal.until("tokens")
        terminal.until("> ")
        terminal.type("\x1b[A\n")  # the arrow up
        terminal.until("tokens")
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert service.said()[1::2] == [("user", "Where"), ("user", "Where")]


@needs_terminal
def test_chat_with_a_piped_output_keeps_the_prompt_out_of_it(service):
    with Terminal(service, "chat", stdout=subprocess.PIPE) as terminal:
        terminal.until("> ")
        terminal.type("Hello\n")
        terminal.until("35 tokens")
        terminal.until("> ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
        assert terminal.process.stdout.read() == b"It is Paris.\n"


def test_a_chat_goes_to_any_number_of_its_tree_and_to_no_other(service):
    given = "one\n" + "".join(f"/goto {number}\n" for number in (1, 2, 3, "0" * 40, "4" * 40))
    _, _, err = run(service, "chat", given=given.encode())
    went = re.findall(r"(?m)^After (\d+), (\w+): ", err)
    assert went == [("1", "system"), ("2", "user"), ("3", "assistant")], err
    assert err.count("no number and no id") == 2


def test_chat_reads_messages_line_by_line_when_piped(service):
    code, out, err = run(service, "chat", "first", given=b"fail\n\nthird\r\nfourth")
    assert (code, out) == (0, "It is Paris.\n" * 3)
    assert re.fullmatch(r"error: .* no \[bold\]such.*\n", err)
    users = [content for role, content in service.said() if role == "user"]
    assert users == ["first", "third", "fourth"]


def test_chat_answers_its_first_message_without_any_input(service):
    assert run(service, "chat", "first", "-s", "Be kind.") == (0, "It is Paris.\n", "")
    assert service.said()[0] == ("system", "Be kind.")


@pytest.mark.parametrize(
    ("options", "files"),
    [([], {"out.jsonl", "out.jsonl.journal"}), (["--no-journal"], {"out.jsonl"})],
)
def test_run_keeps_a_journal_unless_told_not_to(service, tmp_path, monkeypatch, options, files):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a\n")
    assert run(service, "run", "in.txt", "-o", "out.jsonl", *options)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", *files}


def test_run_writes_its_output_over_nothing_but_a_file(service, tmp_path):
    (tmp_path / "in.txt").write_text("a\n")
    code, _, err = run(service, "run", str(tmp_path / "in.txt"), "-o", str(tmp_path), "--force")
    assert code != 0
    assert "is no regular file" in err
    assert service.bodies == []


# without a model, without extras, without a command


@needs_terminal
@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)
def test_without_a_model_the_local_one_answers_and_says_that_it_is_a_demo(service):
    question = "What is the capital of France?"
    unset, pipe = {"MINILLMLIB_MODEL": ""}, subprocess.PIPE
    with Terminal(service, "ask", question, changes=unset, stdout=pipe) as terminal:
        code, shown = terminal.end()
        assert code == 0
        assert "Paris" in terminal.process.stdout.read().decode()
    lines = shown.removesuffix("\n").split("\n")
    demo, usage = [line for line in lines if "downloading" not in line]  # once for each machine
    assert re.fullmatch(r"\x1b\[2m.*tiny demo model.*--model .*MINILLMLIB_MODEL.*\x1b\[0m", demo)
    assert re.fullmatch(r"\x1b\[2m\d+ tokens \(\d+ in, \d+ out\) · \$0\x1b\[0m", usage)


@pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the extra `local` is not installed"
)
def test_the_program_as_it_is_installed_answers():
    done = subprocess.run(
        [sys.executable, "-m", "minillmlib", "ask"],
        input=b"What is the capital of France?",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"Paris" in done.stdout


@pytest.mark.parametrize(
    ("missing", "extra"),
    [("xllamacpp", "minillmlib[local]"), ("typer", "minillmlib[cli]"), ("rich", "minillmlib[cli]")],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(service, missing, extra):
    code, out, err = run(service, "ask", "x", NOT_INSTALLED=missing, MINILLMLIB_MODEL="")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert f'pip install "{extra}"' in err


def test_the_version_is_shown(service):
    assert run(service, "--version") == (0, f"minillmlib {__version__}\n", "")


@pytest.mark.parametrize("arguments", [["sing"], ["ask", "x", "--max-tokens", "0"], ["chat", "-x"]])
def test_wrong_usage_is_code_2_and_nothing_is_sent(service, arguments):
    code, out, err = run(service, *arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err
    assert service.bodies == []


# wording


def test_controls_are_made_visible_wherever_a_text_is_cut():
    text = "".join(map(chr, itertools.chain(range(0xA1), range(0x2000, 0x2070), [0x61C]))) + "é🙂"
    shown = visible(text)
    assert shown.count("\n") == shown.count("\t") == 1
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u061c]", shown
    )
    for cut in range(len(text)):
        assert visible(text[:cut]) + visible(text[cut:]) == shown
    assert visible("é🙂 ü\n\tשלם [b]:x:\\x1b") == "é🙂 ü\n\tשלם [b]:x:\\x1b"


def test_an_error_stays_on_its_line():
    assert one_line("a\n b\r\n\x1bc\u2028d") == r"a b \x1bc d"


USAGE = Usage(uncached_input_tokens=20, cache_read_tokens=7, completion_tokens=8)
COUNTED = "35 tokens (27 in, 8 out)"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0"),
        ("0.000", "$0"),
        ("0E-10", "$0"),
        ("0.000012", "$0.000012"),
        ("1.2E-9", "$0.0000000012"),
        ("0.00001234567", "$0.00001235"),
        ("0.0123", "$0.0123"),
        ("1.50", "$1.5"),
        ("20", "$20"),
        ("1E+3", "$1000"),
        ("123.45678", "$123.4568"),
    ],
)
def test_a_known_cost_is_shown_in_plain_digits(amount, shown):
    cost = CostOutcome.resolved(Decimal(amount), USAGE)
    response = CompletionResponse(content="x", usage=USAGE, cost=cost)
    assert closing_line(response) == f"{COUNTED} · {shown}"


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (
            {"usage": USAGE, "cost": CostOutcome.unpriced(USAGE)},
            f"{COUNTED} · cost unknown (no price set)",
        ),
        ({}, "no token counts · cost unknown"),
        (
            {"finish_reason": FinishReason.LENGTH},
            "no token counts · cost unknown · the answer was cut at its length limit",
        ),
        (
            {"finish_reason": FinishReason.CONTENT_FILTER},
            "no token counts · cost unknown · the answer was refused or filtered",
        ),
        (
            {"finish_reason": FinishReason.TOOL_CALLS, "content": ""},
            "no token counts · cost unknown · the answer has no text",
        ),
    ],
)
def test_what_is_not_known_or_not_plain_is_said(facts, shown):
    assert closing_line(CompletionResponse(**{"content": "x", **facts})) == shown
