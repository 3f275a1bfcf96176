"""The commands between pipes: all that they print, write and send, in many uses."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("typer", reason="the extra `cli` is not installed")
pytest.importorskip("rich", reason="the extra `cli` is not installed")

from cli_transcripts import FOLDER, ROOMS, drawings, options, transcript

TEXTS = {room: (FOLDER / f"{room}.txt").read_text().split("\n\n#### ") for room in ROOMS}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="errors of files differ there")
USES = [(room, use) for room, uses in ROOMS.items() for use in uses]


@pytest.mark.parametrize(("room", "use"), USES, ids=[f"{room}: {use.name}" for room, use in USES])
def test_a_use_of_the_commands_goes_as_written(room, use):
    (written,) = (
        one for one in TEXTS[room] if one.removeprefix("#### ").startswith(f"{use.name}\n")
    )
    lines = written.removeprefix("#### ").splitlines()
    assert transcript(use).removeprefix("#### ").splitlines() == lines


def test_a_tree_is_drawn_at_many_widths():
    assert drawings().splitlines() == (FOLDER / "drawings.txt").read_text().splitlines()


def test_the_options_of_each_command_and_their_help():
    assert options().splitlines() == (FOLDER / "options.txt").read_text().splitlines()
