"""`minillmlib run`: rows of a file in, rows with answers out, through crashes, Ctrl-C and bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_program import (
    CTRL_C,
    PATIENCE_SECS,
    PROGRAM,
    Terminal,
    environment,
    needs_terminal,
    run,
)

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

pytestmark = pytest.mark.long

PRICE = ["--price", "1,5"]
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}},
    "required": ["label"],
}
FORMULA = '=1+1\n"x",\x1b[2J\u202e'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return tmp_path


def read_lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def read_csv(path: str) -> list[dict]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def asked(service) -> list[str]:
    return [body["messages"][-1]["content"] for body in service.bodies]


# What comes out.


def test_a_pace_spreads_the_requests(service, folder):
    Path("in.txt").write_text("a\nb\nc\n")
    started = time.monotonic()
    code, _, _ = run(service, "run", "in.txt", "-o", "out.jsonl", "--rpm", "300")
    assert code == 0
    assert time.monotonic() - started >= 0.4  # two gaps of a fifth of a second
    assert len(asked(service)) == 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--batch", "--model", "ollama:m"], "no batches of ollama are known"),
        (["--batch", "--no-journal", "--model", "openai:gpt-4o"], "batches need a journal"),
        (["--batch", "--rpm", "5", "--model", "openai:gpt-4o"], "the provider's pace"),
    ],
)
def test_batches_are_for_providers_that_have_them(service, folder, options, problem):
    Path("in.txt").write_text("a\n")
    code, _, err = run(service, "run", "in.txt", "-o", "out.jsonl", *options)
    assert code != 0
    assert problem in err
    assert asked(service) == []


def test_500_rows_are_labelled_by_one_command_and_never_twice(service, folder):
    rows = [f"{n},{'I like it' if n % 3 else 'boring'} {n}" for n in range(500)]
    Path("reviews.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    command = [
        "run", "reviews.csv", "-p", "label {text}", "--schema", "schema.json", "-o", "out.csv",
        "--budget", "1", *PRICE, "--max-tokens", "20",
    ]  # fmt: skip
    code, out, err = run(service, *command)
    assert (code, out) == (0, "")
    assert re.fullmatch(r"500 rows · 500 answered · \$0\.0335 · \d+ s\n", err)
    labelled = read_csv("out.csv")
    assert [row["id"] for row in labelled] == [str(n) for n in range(500)]
    labels = ["good" if n % 3 else "bad" for n in range(500)]
    assert [row["parsed.label"] for row in labelled] == labels
    assert {(row["error"], row["cost_usd"], row["attempts"]) for row in labelled} == {
        ("", "0.000067", "1")
    }
    whole = Path("out.csv").read_bytes()
    code, _, err = run(service, *command)
    assert (code, len(service.bodies)) == (0, 500)
    assert "500 from the journal" in err
    assert "earlier runs: $0.0335" in err
    assert Path("out.csv").read_bytes() == whole
    assert not Path("out.csv.part").exists()


def test_json_lines_keep_their_columns_and_get_the_answer(service, folder):
    row = {"id": 12345678901234567890123, "tags": [1, {"a": None}], "text": "Oslo"}
    Path("in.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b'\r\n\n"Rome"\n')
    prompt = ["--prompt", "Where is {text}? {tags}"]
    assert run(service, "run", "in.jsonl", "-o", "out.jsonl", *prompt)[0] == 1
    first, second = read_lines("out.jsonl")
    assert {name: first[name] for name in row} == row
    facts = {"error": None, "notice": None, "cost_usd": None, "cost": "unpriced", "attempts": 1}
    assert first == row | {"answer": 'It is Where is Oslo? [1,{"a":null}].'} | facts
    assert second["text"] == "Rome"
    assert second["error"] == "line 3: it has no value for {tags}"


def test_columns_of_the_input_with_our_names_are_renamed(service, folder):
    Path("in.jsonl").write_text('{"text": "x", "answer": 1, "input_answer": 2, "error": "e"}\n')
    assert run(service, "run", "in.jsonl", "-o", "out.jsonl")[0] == 0
    (row,) = read_lines("out.jsonl")
    assert row["answer"] == "It is x."
    assert (row["input_input_answer"], row["input_answer"], row["input_error"]) == (1, 2, "e")


def test_csv_carries_any_text_as_it_is(service, folder):
    Path("in.csv").write_text('n,text\n1,"formula a,\nb ""c"""\n', encoding="utf-8")
    assert run(service, "run", "in.csv", "-o", "out.csv")[0] == 0
    (row,) = read_csv("out.csv")
    assert (row["text"], row["answer"]) == ('formula a,\nb "c"', FORMULA)
    assert asked(service) == ['formula a,\nb "c"']
    assert run(service, "run", "out.csv", "-p", "Again {n}: {answer}", "-o", "2.csv")[0] == 0
    assert asked(service)[1] == f"Again 1: {FORMULA}"
    assert read_csv("2.csv")[0]["input_answer"] == FORMULA


def test_plain_lines_are_the_messages_and_standard_output_gets_json_lines(service, folder):
    Path("in.txt").write_text("one\n\n  two  \n{three}")
    code, out, _ = run(service, "run", "in.txt", "--system", "Be brief.")
    assert code == 0
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["one", "  two  ", "{three}"]
    assert sorted(asked(service)) == ["  two  ", "one", "{three}"]
    assert service.said()[0] == ("system", "Be brief.")
    assert Path("in.txt.journal").exists()


def test_standard_input_and_a_prompt_in_a_file(service, folder):
    Path("prompt.txt").write_text("Where is {text}?\n")
    command = ["run", "-", "--prompt-file", "prompt.txt"]
    assert run(service, *command, given=b"Oslo\n")[0] == 2
    code, out, _ = run(service, *command, "--format", "lines", given="Malmö\n".encode("utf-16"))
    assert (code, json.loads(out)["text"]) == (0, "Malmö")
    assert asked(service) == ["Where is Malmö?"]
    assert sorted(path.name for path in folder.iterdir()) == ["prompt.txt", "schema.json"]


def test_conversations_are_a_column_of_json_lines(service, folder):
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Oslo {x}"}]
    Path("in.jsonl").write_text(
        json.dumps({"messages": messages}) + '\n{"messages": [{"role": "judge"}]}\n'
    )
    code, out, _ = run(service, "run", "in.jsonl")
    assert (code, service.said()) == (1, [("system", "S"), ("user", "Oslo {x}")])
    assert json.loads(out.splitlines()[1])["error"].startswith("line 2: ")


def test_an_answer_that_was_cut_says_so(service, folder):
    Path("in.txt").write_text("cut it\n")
    code, out, err = run(service, "run", "in.txt")
    assert (code, json.loads(out)["notice"]) == (0, "the answer was cut at its length limit")
    assert "1 answered, but the answer was cut" in err


def test_a_terminal_gets_rows_that_it_does_not_obey(service, folder):
    Path("in.jsonl").write_text('{"text": "formula"}\n')
    with Terminal(service, "run", "in.jsonl") as terminal:
        code, shown = terminal.end()
    assert code == 0
    assert "\u202e" not in shown
    assert json.loads(shown.splitlines()[0].replace("\\u202e", ""))["answer"].startswith("=1+1")


# Bad input.


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("in.jsonl", b'{"text": 1', "it is not JSON"),
        ("in.jsonl", b"[1]", "neither an object nor a string"),
        ("in.jsonl", b'{"text": "a", "text": "b"}', "has a name twice"),
        ("in.jsonl", b'{"text": NaN}', "NaN is not JSON"),
        ("in.jsonl", b'{"text": 1e999}', "too large a number"),
        ("in.jsonl", b'{"text": ' + b"[" * 100_000, "nested too deep"),
        ("in.jsonl", b'{"text": ' + b"[" * 300 + b"]" * 300 + b"}", "nested more than 200 deep"),
        ("in.jsonl", b'{"text": "\xff"}', "not text in UTF-8"),
        ("in.jsonl", b'{"text": null}', "no value for {text}"),
        ("in.txt", b"caf\xe9", "not text in UTF-8"),
        ("in.csv", b"1,2", "it has 2 cells, but the header 1"),
    ],
)
def test_a_row_that_cannot_be_read_fails_and_the_others_go_on(
    service, folder, name, content, problem
):
    good = b'{"text": "x"}' if name == "in.jsonl" else b"x"
    head = b"text\n" if name == "in.csv" else b""
    Path(name).write_bytes(head + b"\n".join([good, content, good]) + b"\n")
    code, _, err = run(service, "run", name, "-o", "out.jsonl")
    rows = read_lines("out.jsonl")
    assert (code, len(service.bodies)) == (1, 2)
    assert [row["answer"] for row in rows] == ["It is x.", None, "It is x."]
    line = 3 if head else 2
    assert rows[1]["error"].startswith(f"line {line}: ")
    assert problem in rows[1]["error"]
    assert f"1 InvalidParameterError, first on line {line}: " in err
    assert err.splitlines()[-1] == "1 row could not be asked: correct the input"


def test_csv_has_the_columns_of_the_first_json_line(service, folder):
    Path("in.jsonl").write_text('{"text": "a", "n": [1]}\n{"text": "b", "m": 2}\n{"text": "c"}\n')
    assert run(service, "run", "in.jsonl", "-o", "out.csv")[0] == 1
    first, second, third = read_csv("out.csv")
    assert (first["n"], first["answer"], third["n"], third["answer"]) == (
        "[1]",
        "It is a.",
        "",
        "It is c.",
    )
    assert "the column 'm', which the first row does not have" in second["error"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["in.csv", "-p", "Hello"], "the prompt has no {column}"),
        (["in.csv", "-p", "{txt}"], "the prompt has {txt}, but the input has {id}, {my text}"),
        (["in.csv", "-p", "{id} {my text}"], "'my text' cannot be filled in"),
        (["in.csv"], "without --prompt, the message is {text}, but the input has {id}"),
        (["in.csv", "-p", "{id}", "--prompt-file", "in.csv"], "exclude each other"),
        (["in.csv", "-p", " "], "the prompt is empty"),
        (["twice.csv", "-p", "{a}"], "has the column 'a' twice"),
        (["open.csv", "-p", "{a}"], "line 2 of the input is not CSV"),
        (["rows.dat", "-p", "{a}"], "--format jsonl, csv or lines"),
        ([".", "--format", "csv"], "cannot be read (Is a directory)"),
        (["none.csv"], "cannot be read (No such file or directory)"),
        (["in.csv", "-p", "{id}", "-o", "in.csv"], "would overwrite the input"),
        (["in.csv", "-p", "{id}", "--journal", "./in.csv"], "would overwrite the input"),
        (["in.csv", "-p", "{id}", "-o", "x.csv", "--journal", "x.csv"], "name the same file"),
        (["in.csv", "-p", "{id}", "-o", "mine.csv"], "no journal says that a run wrote it"),
        (["in.csv", "-p", "{id}", "-o", "mine.csv", "--no-journal"], "--force"),
        (["in.csv", "-p", "{id}", "-o", "pipe", "--force"], "is no regular file"),
        (["in.csv", "-p", "{id}", "-o", ".", "--force"], "is no regular file"),
        (["in.csv", "-p", "{id}", "--no-journal", "--journal", "j"], "exclude each other"),
        (["in.csv", "-p", "{id}", "--budget", "lots"], "--budget takes dollars"),
        (["in.csv", "-p", "{id}", "--budget", "1"], "needs --price and --max-tokens"),
        (["in.csv", "-p", "{id}", "--budget", "1", "--dry-run"], "needs --price and --max-tokens"),
        (["in.csv", "-p", "{id}", "--schema", "in.csv"], "'in.csv' is not a JSON schema"),
        (["in.csv", "-p", "{id}", "--schema", "odd.json"], "has 'if', which cannot be checked"),
    ],
)  # fmt: skip
def test_wrong_use_is_an_error_and_nothing_is_sent_or_written(service, folder, options, problem):
    Path("in.csv").write_text("id,my text\n1,x\n")
    Path("twice.csv").write_text("a,a\n1,2\n")
    Path("open.csv").write_text('a,b\n1,"2\n')
    Path("odd.json").write_text('{"type": "string", "if": {}}')
    Path("mine.csv").write_text("precious\n")
    os.mkfifo("pipe")
    before = sorted(folder.iterdir())
    code, out, err = run(service, "run", *options)
    assert (code, out) == (1 if "cannot be read" in problem else 2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert problem in err
    assert service.bodies == []
    assert sorted(folder.iterdir()) == before
    assert Path("mine.csv").read_text() == "precious\n"


def test_force_replaces_a_file_that_no_run_wrote(service, folder):
    Path("in.txt").write_text("x\n")
    Path("out.jsonl").write_text("old\n")
    assert run(service, "run", "in.txt", "-o", "out.jsonl", "--no-journal", "--force")[0] == 0
    assert read_lines("out.jsonl")[0]["answer"] == "It is x."
    assert not list(folder.glob("*.journal"))


# Failures, and the run after them.


def test_failed_rows_are_told_by_class_and_asked_again_only_if_that_may_help(service, folder):
    Path("in.txt").write_text("fail a\nOslo\nbroken b\nfail c\n")
    code, _, err = run(service, "run", "in.txt", "-o", "out.jsonl")
    assert (code, len(service.bodies)) == (1, 2 + 1 + 3)
    assert [row["attempts"] for row in read_lines("out.jsonl")] == [1, 1, 3, 1]
    lines = err.splitlines()
    assert lines[0].startswith("4 rows · 1 answered · 3 failed · cost unknown")
    assert lines[1].startswith("2 BadRequestError, first on line 1: ")
    assert lines[2].startswith("1 ServerError, first on line 3: ")
    assert lines[3] == "run the same command again to retry 1 row"
    assert lines[4] == "2 rows failed permanently; --retry-failed asks again"
    assert err.replace("\n", "").isprintable()
    service.forget().is_mended = True
    assert run(service, "run", "in.txt", "-o", "out.jsonl")[0] == 1
    assert asked(service) == ["broken b"]
    assert run(service, "run", "in.txt", "-o", "out.jsonl", "--retry-failed")[0] == 0
    assert sorted(asked(service)) == ["broken b", "fail a", "fail c"]


def test_a_refused_key_ends_the_run_and_the_next_one_asks_all_that_is_missing(service, folder):
    Path("in.txt").write_text("Oslo\nkey\n" + "".join(f"row {n}\n" for n in range(100)))
    command = ["run", "in.txt", "-o", "out.jsonl", "--width", "1"]
    code, _, err = run(service, *command)
    assert code == 1
    assert err.splitlines()[0].startswith("2 of 102 rows · 1 answered · 1 failed")
    assert "the first 2 rows are in out.jsonl.part" in err
    assert err.splitlines()[-1].startswith("error: the server reported an error with status 401")
    assert "a key is set, or name its variable with --key-env" in err
    assert "correct the cause of the error, and run the same command again for the rest" in err
    assert not Path("out.jsonl").exists()
    assert len(service.bodies) == 2
    service.forget().is_mended = True
    assert run(service, *command)[0] == 0
    assert len(service.bodies) == 101
    assert {row["error"] for row in read_lines("out.jsonl")} == {None}


def test_a_spent_budget_ends_the_run_and_a_larger_one_goes_on(service, folder):
    Path("in.txt").write_text("".join(f"row {n}\n" for n in range(20)))
    command = ["run", "in.txt", "-o", "out.jsonl", "--max-tokens", "8", *PRICE, "--budget"]
    code, _, err = run(service, *command, "0.002")
    assert code == 1
    assert "error: the request may cost" in err
    assert "run the same command with a larger --budget for the rest" in err
    first = len(service.bodies)
    assert 5 < first <= 14
    assert run(service, *command, "1")[0] == 0
    assert len(service.bodies) == 20
    assert len(read_lines("out.jsonl")) == 20


def test_a_second_run_of_the_same_output_is_refused(service, folder):
    Path("in.txt").write_text("gate\n")
    command = [sys.executable, "-c", PROGRAM, "run", "in.txt", "-o", "out.jsonl"]
    with subprocess.Popen(command, env=environment(service), stdin=subprocess.DEVNULL) as first:
        wait_for(lambda: len(service.bodies) == 1)
        code, _, err = run(service, "run", "in.txt", "-o", "out.jsonl")
        assert (code, "still going on" in err) == (1, True)
        code, _, err = run(service, "run", "in.txt", "-o", "out.jsonl", "--journal", "j", "--force")
        assert (code, "being written by another run" in err) == (1, True)
        service.gate.set()
        assert first.wait(PATIENCE_SECS) == 0
    assert len(read_lines("out.jsonl")) == 1


def wait_for(is_so) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_prefix(path: str, rows: list[str]) -> int:
    """How many rows a draft has; each is whole, and they are the first ones."""
    written = Path(path).read_text()
    assert not written or written.endswith("\n")
    texts = [json.loads(line)["text"] for line in written.splitlines()]
    assert texts == rows[: len(texts)]
    return len(texts)


def test_a_killed_run_leaves_whole_rows_and_the_next_one_asks_only_what_is_missing(service, folder):
    rows = [f"slow {n}" for n in range(120)]
    Path("in.txt").write_text("\n".join(rows) + "\n")
    command = ["run", "in.txt", "-o", "out.jsonl", "--width", "20"]
    for kills in (1, 2):
        before = len(service.bodies)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *command],
            env=environment(service),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            wait_for(lambda seen=before: len(service.bodies) > seen + 30)
            process.kill()
        assert not Path("out.jsonl").exists()
        assert is_prefix("out.jsonl.part", rows) >= 20 * (kills - 1)
    code, _, err = run(service, *command)
    assert code == 0
    assert is_prefix("out.jsonl", rows) == 120
    assert len(service.bodies) <= 120 + 2 * 20
    assert re.search(r"\d+ requests were in flight when earlier runs ended", err)


@needs_terminal
def test_ctrl_c_lets_the_calls_in_flight_end_and_the_next_run_goes_on(service, folder):
    rows = [f"slow {n}" for n in range(100)]
    Path("in.txt").write_text("\n".join(rows) + "\n")
    command = ["run", "in.txt", "-o", "out.jsonl", "--width", "10", *PRICE]
    with Terminal(service, *command) as terminal:
        terminal.until(r"\r[1-9]0/100 · 10 in flight of 10 · [\d.]+/s · \$0\.[0-9]+ · \d+ s left")
        terminal.type(CTRL_C)
        terminal.until("stopping; Ctrl-C again ends calls in flight")
        code, shown = terminal.end()
    count = len(service.bodies)
    assert (code, count < 100) == (130, True)
    assert f"\r{count} of 100 rows · {count} answered · $" in shown
    assert "run the same command again for the rest" in shown
    assert "ended, and may" not in shown
    assert is_prefix("out.jsonl.part", rows) == count
    code, _, err = run(service, *command)
    assert (code, len(service.bodies)) == (0, 100)
    assert f"{count} from the journal" in err
    assert is_prefix("out.jsonl", rows) == 100


@needs_terminal
def test_a_second_ctrl_c_ends_the_calls_in_flight(service, folder):
    Path("in.txt").write_text("Oslo\n" + "gate\n" * 5)
    with Terminal(service, "run", "in.txt", "-o", "out.jsonl") as terminal:
        terminal.until("1/6 · 5 in flight")
        terminal.type(CTRL_C)
        terminal.until("stopping")
        terminal.type(CTRL_C)
        code, shown = terminal.end()
    assert code == 130
    assert "5 calls in flight were ended, and may have been billed" in shown
    assert "Traceback" not in shown
    assert is_prefix("out.jsonl.part", ["Oslo"]) == 1
    service.gate.set()
    code, _, err = run(service, "run", "in.txt", "-o", "out.jsonl")
    assert (code, "5 requests were in flight" in err) == (0, True)


@needs_terminal
def test_ctrl_c_after_the_last_row_was_asked_waits_for_it_alone(service, folder):
    Path("in.txt").write_bytes(b"caf\xe9\ngate\n")
    with Terminal(service, "run", "in.txt", "-o", "out.jsonl") as terminal:
        terminal.until("1/2 · 1 failed · 1 in flight")
        terminal.type(CTRL_C)
        terminal.until("stopping")
        service.gate.set()
        assert terminal.end()[0] == 1
    assert [row["error"] is None for row in read_lines("out.jsonl")] == [False, True]


@needs_terminal
def test_a_reader_that_leaves_ends_the_run_quietly(service, folder):
    Path("in.txt").write_text("slow\n" * 500)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "in.txt", "--width", "5"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(service),
    ) as process:
        assert json.loads(process.stdout.readline())["answer"] == "It is slow."
        process.stdout.close()
        assert process.wait(PATIENCE_SECS) == 141
        assert process.stderr.read() == b""
    assert len(service.bodies) < 100


@needs_terminal
def test_a_full_disk_ends_the_run_and_leaves_whole_rows(service, folder):
    import resource

    rows = [f"row {n}" for n in range(40)]
    Path("in.txt").write_text("\n".join(rows) + "\n")
    command = ["run", "in.txt", "-o", "out.jsonl", "--no-journal"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_SECS,
        env=environment(service),
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
    )
    assert done.returncode == 1
    assert re.search(rb"error: 'out.jsonl.part' cannot be written \(File too large\)", done.stderr)
    assert 0 < is_prefix("out.jsonl.part", rows) < 40
    assert not Path("out.jsonl").exists()


def test_a_pipe_that_is_read_slowly_holds_back_the_asking_and_no_answer(service, folder):
    Path("in.txt").write_text("".join(f"row {n} {'x' * 5000}\n" for n in range(200)))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "in.txt", "--width", "5", "--timeout", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(service),
    ) as process:
        wait_for(lambda: len(service.bodies) >= 5)
        time.sleep(2.5)
        count = len(service.bodies)
        assert 5 <= count < 100
        rows = [json.loads(line) for line in process.stdout]
        assert process.wait(PATIENCE_SECS) == 0
    assert [row["text"].split()[1] for row in rows] == [str(n) for n in range(200)]
    assert {row["error"] for row in rows} == {None}


# Before anything is sent.


def test_a_dry_run_shows_the_first_requests_and_the_most_that_all_may_cost(service, folder):
    Path("in.txt").write_text("Oslo\nRome\nBern\nBonn\n")
    options = ["-p", "Where is {text}?", "--max-tokens", "10", *PRICE, "-o", "out.jsonl"]
    before = sorted(folder.iterdir())
    code, out, err = run(service, "run", "in.txt", *options, "--dry-run")
    assert (code, err, service.bodies) == (0, "", [])
    assert sorted(folder.iterdir()) == before
    assert re.findall(r"Where is (\w+)\?", out) == ["Oslo", "Rome", "Bern"]
    assert f"POST {service.url}/chat/completions\n" in out
    assert "Authorization: [hidden]" in out
    assert "sk-1" not in out
    last = out.splitlines()[-1]
    assert re.fullmatch(r"4 rows · 4 to ask · at most \$0\.\d+", last)
    run(service, "run", "in.txt", *options)
    Path("in.txt").write_text("Oslo\nRome\nBern\nBonn\nOslo\ncaf\udce9\n", errors="surrogateescape")
    code, out, err = run(service, "run", "in.txt", *options, "--dry-run")
    assert (code, err) == (1, "line 6: it is not text in UTF-8\n")
    pattern = r"6 rows · 4 in the journal · 1 that cannot be asked · 1 to ask · at most \$0\.\d+"
    assert re.fullmatch(pattern, out.splitlines()[-1])
    code, out, _ = run(service, "run", "in.txt", "--dry-run")
    assert "their maximum cost needs --price and --max-tokens" in out
    Path("in.txt").write_text("Oslo\n")
    code, _, err = run(service, "run", "in.txt", "--dry-run", OPENAI_API_KEY="")
    assert (code, "set the environment variable OPENAI_API_KEY" in err) == (1, True)


def test_a_schema_is_enforced_by_the_server_and_checked_here(service, folder):
    Path("in.txt").write_text("I like it\nlabel it\n")
    command = ["run", "in.txt", "-o", "out.jsonl", "--schema", "schema.json"]
    assert run(service, *command)[0] == 1
    wrong, right = read_lines("out.jsonl")
    assert (wrong["answer"], wrong["parsed"]) == (None, None)
    assert "does not fit the schema: " in wrong["error"]
    assert (right["answer"], right["parsed"]) == ('{"label": "bad"}', {"label": "bad"})
    sent = service.bodies[0]["response_format"]["json_schema"]["schema"]
    assert sent["properties"]["label"]["enum"] == ["good", "bad"]


def test_ctrl_c_without_a_terminal_says_how_to_go_on(service, folder):
    Path("in.txt").write_text("slow\n" * 200)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "run", "in.txt", "-o", "out.jsonl", "--width", "5"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(service),
    ) as process:
        wait_for(lambda: len(service.bodies) > 10)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECS) == 130
        assert b"run the same command again for the rest" in process.stderr.read()
