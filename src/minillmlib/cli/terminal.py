"""The three standard streams: answers go to the output, everything else beside it."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from minillmlib import ChatNode, Role
from minillmlib.cli.format import one_line, visible
from minillmlib.cli.tree_view import ASCII, LINES, Row, drawn, summary

__all__ = [
    "AnswerPrinter",
    "abandon_output",
    "is_watched",
    "prepare_streams",
    "prompted_lines",
    "show_dim",
    "show_error",
    "show_line",
    "show_note",
    "show_path",
    "show_tree",
]

PROMPT = "> "
PIPED_WIDTH = 100  # columns of a tree that goes to a file or another program
ROLE_STYLES = {
    Role.SYSTEM: "magenta", Role.USER: "cyan", Role.ASSISTANT: "green", Role.TOOL: "yellow",
}  # fmt: skip


def prepare_streams() -> None:
    """Makes every standard stream usable: one that is closed is empty, and no text is too odd."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - stays open
            setattr(sys, name, nowhere)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def abandon_output() -> None:
    """Sends what is left for a broken standard output nowhere, so that exiting is quiet."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def is_watched() -> bool:
    """Whether a person sees what goes to standard error."""
    return sys.stderr.isatty()


def show_dim(line: str) -> None:
    """A line beside the answer, if a person sees it."""
    if is_watched():
        _show(line, "dim")


def show_note(line: str) -> None:
    """A line beside the answer that a script's log should have, too."""
    _show(line, "dim")


def show_line(line: str) -> None:
    """A line beside the answer that was asked for."""
    _show(line, "")


def show_error(problem: str) -> None:
    """What went wrong, on one line."""
    _show(f"error: {one_line(problem)}", "red")


def _show(line: str, style: str) -> None:
    # Text is shown as it is: no markup, no emoji names, no highlighting.
    Console(stderr=True).print(Text(line, style=style), soft_wrap=True)


def show_path(path: Path) -> None:
    """Where a file is, on the output: safe on a terminal, exactly as it is elsewhere."""
    name = visible(str(path)) if sys.stdout.isatty() else str(path)
    sys.stdout.write(f"{name}\n")


def show_tree(root: ChatNode, here: ChatNode | None = None) -> None:
    """Draws a tree: to the output, or beside the answers if a conversation is `here` in it."""
    console = Console(stderr=here is not None)
    is_seen = console.is_terminal
    width = console.width if is_seen else PIPED_WIDTH
    can_draw = console.encoding.lower().startswith("utf")
    for row in drawn(root, width, here, LINES if can_draw else ASCII):
        if is_seen:
            line = _styled(row)
            line.truncate(width, overflow="ellipsis")
            console.print(line, soft_wrap=True)
        else:
            console.file.write(f"{row.plain}\n")
    console.print(Text(summary(root), style="dim"), soft_wrap=True)


def _styled(row: Row) -> Text:
    return Text.assemble(
        (row.margin + row.strokes, "dim"),
        (row.role.value, ROLE_STYLES[row.role]),
        "  ",
        row.words,
        (row.facts, "dim"),
    )


class AnswerPrinter:
    """Prints one answer piece by piece: made safe on a terminal, exactly as it is elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._pieces: list[str] = []

    def write(self, text: str) -> None:
        """Shows the next piece at once."""
        self._pieces.append(text)
        sys.stdout.write(visible(text) if self._is_terminal else text)
        sys.stdout.flush()

    def finish(self, whole: str) -> None:
        """Shows what of the whole answer did not come in pieces, and ends the line."""
        printed = "".join(self._pieces)
        if whole.startswith(printed):
            self.write(whole[len(printed) :])
        self.end_line()

    def end_line(self) -> None:
        """Ends the last line if something was printed and it is still open."""
        printed = "".join(self._pieces)
        if printed and not printed.endswith("\n"):
            self.write("\n")

    def break_off(self) -> None:
        """Ends the line of an answer that Ctrl-C stopped; a terminal shows `^C` on it."""
        if self._is_terminal:
            self.write("\n")
        else:
            self.end_line()


def prompted_lines() -> Iterator[str]:
    """What the person says, until the end of the input; blank lines are left out.

    At a terminal the lines can be edited, and Ctrl-C gives up a line instead of the program.
    """
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # from now on input() can edit and recall
    while (line := _terminal_line() if is_terminal else _piped_line()) is not None:
        if line.strip():
            yield line


def _piped_line() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\r\n") if line else None


def _terminal_line() -> str | None:
    try:
        return _ask_line()
    except KeyboardInterrupt:
        show_dim("\n(Ctrl-D leaves)")
        return ""
    except EOFError:
        show_dim("")
        return None


def _ask_line() -> str:
    if sys.stdout.isatty():
        return input(PROMPT)
    sys.stderr.write(PROMPT)  # the output is for answers only
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")
