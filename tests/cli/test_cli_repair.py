"""`minillmlib repair`, as another program uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import cli_program
import pytest

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

MEASURED = """
import atexit, sys
from minillmlib.cli import main
def show_peak():
    lines = open("/proc/self/status").read().splitlines()
    print([line.split()[1] for line in lines if line.startswith("VmHWM")][0], file=sys.stderr)
atexit.register(show_peak)
main()
"""
BROKEN_LINES = '{"n": 1,}\n\n{"n": True}\n[1, 2'


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(given, *arguments):
    command = ["repair", *map(str, arguments)]
    return Done(*cli_program.run_program(command, given.encode(), dict(os.environ)))


def peak_kib(given):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "repair"],
        input=given, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout.count("\n") == given.count("\n")
    return int(done.stderr)


def test_what_is_piped_in_comes_out_as_json():
    done = run("Sure! {city: 'Oslo',}")
    assert (done.stdout, done.stderr, done.returncode) == ('{"city": "Oslo"}\n', "", 0)


def test_a_single_value_with_more_repairs_than_are_listed_is_whole():
    done = run("Sure! [" + "1,," * 1500 + "1]")
    assert (done.stdout.count("1"), done.returncode) == (1501, 0)


def test_valid_json_is_written_as_it_is(tmp_path):
    file = tmp_path / "valid.json"
    file.write_text('{\n  "n": 1.50\n}\n')
    assert run("", file).stdout == '{\n  "n": 1.50\n}\n'


def test_json_lines_are_repaired_one_by_one():
    done = run(BROKEN_LINES)
    assert done.stdout == '{"n": 1}\n{"n": true}\n[1, 2]\n'
    assert done.returncode == 0


@pytest.mark.parametrize("opens_a_file", [True, False])
def test_a_byte_order_mark_before_json_lines_is_skipped(opens_a_file, tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text("\ufeff" + BROKEN_LINES)
    done = run("", file) if opens_a_file else run("\ufeff" + BROKEN_LINES)
    assert (done.stdout, done.stderr) == ('{"n": 1}\n{"n": true}\n[1, 2]\n', "")


@pytest.mark.parametrize(("name", "problem"), [("", "directory"), ("nothing", "not exist")])
def test_what_is_no_file_is_refused_as_an_argument(name, problem, tmp_path):
    done = run("{}", tmp_path / name)
    assert (done.stdout, done.returncode) == ("", 2)
    assert "FILE" in done.stderr
    assert problem in " ".join(done.stderr.replace("│", "").split())


def test_a_line_without_json_is_named_and_the_others_are_written():
    done = run('{"n": 1}\n{"n": 2}\nI cannot do that.\n{"n": 3}\n')
    assert done.stdout == '{"n": 1}\n{"n": 2}\n{"n": 3}\n'
    assert "line 3" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("given", "written", "code", "problem"),
    [
        # one record a line, some of them none
        ('{"a": 1}\nINFO started\n{"b": 2}\n', '{"a": 1}\n{"b": 2}\n', 1, "line 2"),
        ('INFO x\n{"a":1}\n{"b":2,}', '{"a":1}\n{"b": 2}\n', 1, "line 1"),
        ('{"a":1}\nINFO\n\n5\n', '{"a":1}\n5\n', 1, "line 2"),
        ('[1]\nINFO {x}\n{"b": 2}', '[1]\n{"b": 2}\n', 1, "line 2"),
        # of any kind
        ('1\n2.50\n"x"\nnull\n', '1\n2.50\n"x"\nnull\n', 0, None),
        ('null\n{"a":1,}\ntrue', 'null\n{"a": 1}\ntrue\n', 0, None),
        ('{"a":1}\n"x"\n{"b":2}', '{"a":1}\n"x"\n{"b":2}\n', 0, None),
        # several values without a word between them
        ('{"a":1}{"b":2,}', '{"a": 1}\n{"b": 2}\n', 0, None),
        ('{"a":\n1}\n{"b":\n2}\n', '{"a": 1}\n{"b": 2}\n', 0, None),
        ('{"a":1}\n{\n"b": 2\n}\n[3', '{"a": 1}\n{"b": 2}\n[3]\n', 0, None),
        ('{"a": 1}{"b": 2}\n{"c": 3}\n', '{"a": 1}\n{"b": 2}\n{"c": 3}\n', 0, None),
        # with words between them
        ('Here: {"a":1} and {"b":2}', '{"b": 2}\n', 1, "character 6"),
        ('INFO {"a":1}\nINFO {"b":2}', '{"b": 2}\n', 1, "character 5"),
        ('{"n":1}\n{"n":2} {"m":2}\n{"n":3} or {"n":4}', '{"n":1}\n{"n": 2}\n{"m": 2}\n{"n": 4}\n',
         1, "line 3: the value at character 0"),
        # a record that is cut off before the next one
        ('{"n": 1}\n{"n": 2}\n{"n": 3\n{"n": 4', '{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n": 4}\n', 1, "line 3"),
        ('{"n": 1\n{"n": 2\n', '{"n": 1}\n{"n": 2}\n', 1, "line 1"),
        ('{"n": 1}\n\n{"n": "2\n{ "n": 3}\n', '{"n": 1}\n{"n": "2"}\n{ "n": 3}\n', 1, "line 3"),
        ("{'n': 1,\r\n{'n': 2,\r\n", '{"n": 1}\n{"n": 2}\n', 1, "line 1"),
        # one value, and nothing is missing
        ('{"c": "f()\n{ return; }"}', '{"c": "f()\\n{ return; }"}\n', 0, None),
        ('{"a": 1}\nThat is all.', '{"a": 1}\n', 0, None),
        ('<think>\n{"x":1}\n</think>\n```json\n{"a":1}\n```', '{"a": 1}\n', 0, None),
        ('{"m":\n[1, 2],\n"n":\n5,\n}', '{"m": [1, 2], "n": 5}\n', 0, None),
        # of Windows
        ('\ufeff{"a":1,}\r\n{"b":2}\r\n', '{"a": 1}\n{"b":2}\n', 0, None),
    ],
)  # fmt: skip
def test_no_record_is_lost_with_code_0(given, written, code, problem, tmp_path):
    (tmp_path / "given").write_bytes(given.encode())
    for done in (run(given), run("", tmp_path / "given")):
        assert (done.stdout, done.returncode) == (written, code)
        assert (problem is None and done.stderr == "") or problem in done.stderr


def test_a_file_of_powershell_is_read(tmp_path):
    (tmp_path / "x.json").write_text("\ufeff{città: 'Forlì',}\n", encoding="utf-16-le")
    assert run("", tmp_path / "x.json").stdout == '{"città": "Forlì"}\n'


def test_nothing_is_written_where_no_json_is():
    done = run("I cannot do that.")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "no JSON" in done.stderr


def test_changes_are_shown_beside_the_output():
    done = run(BROKEN_LINES, "--changes")
    assert done.stdout == run(BROKEN_LINES).stdout
    assert done.stderr.splitlines()[:2] == [
        "line 1: character 7: there was an extra comma",
        "line 3: character 6: a literal was not written as JSON does",
    ]


def test_strict_takes_only_json():
    done = run('{"n": 1}\n{"n": 2,}\n', "--strict")
    assert done.stdout == '{"n": 1}\n'
    assert "line 2" in done.stderr
    assert done.returncode == 1


def test_a_file_that_is_not_there_is_a_wrong_use(tmp_path):
    assert run("", tmp_path / "nowhere.json").returncode == 2


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_json_lines_go_through_in_bounded_memory():
    line = '{"number": 1, "text": "' + "x" * 1000 + '",}\n'
    assert peak_kib(line * 20_000) - peak_kib(line * 10) < 8 * 1024
