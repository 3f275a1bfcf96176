"""Uses the three standard streams: answers go to the output, everything else to standard error."""

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

from minillmlib import ChatNode
from minillmlib.cli.format import name_options, one_line, visible
from minillmlib.cli.tree_view import DIM, render_tree, summary

PROMPT = "> "
PIPED_WIDTH = 100  # columns of a tree that goes to a file or another program


def prepare_streams() -> None:
    """Make every standard stream usable: a closed one is empty, and no text fails to be encoded."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - stays open
            setattr(sys, name, null)
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def discard_output() -> None:
    """Discard the pending text of a broken standard output, so that exiting reports no error."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def show_line(line: str, style: str = "") -> None:
    """Show a line on standard error, unchanged: no markup, no emoji names, no highlighting."""
    Console(stderr=True).print(Text(line, style=style), soft_wrap=True)


def show_hint(line: str) -> None:
    """Show a dim line on standard error, but only to a person; scripts do not need it."""
    if sys.stderr.isatty():
        show_line(line, DIM)


def show_error(problem: object) -> None:
    """Show an error on one line of standard error."""
    show_line(f"error: {one_line(name_options(str(problem)))}", "red")


def show_tree(root: ChatNode, here: ChatNode | None = None) -> None:
    """Draw a tree on the output, or on standard error if a conversation is at `here`."""
    console = Console(stderr=here is not None)
    is_terminal = console.is_terminal
    width = console.width if is_terminal else PIPED_WIDTH
    is_ascii = not console.encoding.lower().startswith("utf")
    for line in render_tree(root, width, here, is_ascii):
        if is_terminal:
            line.truncate(width, overflow="ellipsis")
            console.print(line, soft_wrap=True)
        else:
            console.file.write(f"{line.plain}\n")
    console.print(Text(summary(root), style=DIM), soft_wrap=True)


class AnswerPrinter:
    """Prints one answer piece by piece: made safe on a terminal, unchanged elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._pieces: list[str] = []

    def write(self, text: str) -> None:
        """Print the next piece at once."""
        self._pieces.append(text)
        sys.stdout.write(visible(text) if self._is_terminal else text)
        sys.stdout.flush()

    def finish(self, whole: str = "") -> None:
        """Print the part of the complete answer that was not printed yet, and end the line."""
        printed = "".join(self._pieces)
        if whole.startswith(printed):
            self.write(whole[len(printed) :])
            printed = whole
        if printed and not printed.endswith("\n"):
            self.write("\n")

    def interrupt(self) -> None:
        """End the line of an answer that Ctrl-C stopped; a terminal shows `^C` on it."""
        if self._is_terminal:
            self.write("\n")
        else:
            self.finish()


def read_lines() -> Iterator[str]:
    """Yield the lines of the input until its end, without blank ones.

    At a terminal the lines can be edited, and Ctrl-C cancels a line instead of the program.
    """
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives input() editing and history
    while line := _read_terminal() if is_terminal else sys.stdin.readline():
        if line.strip():
            yield line.rstrip("\r\n")


def _read_terminal() -> str:
    """Return a line with its end, or "" at the end of the input."""
    try:
        if sys.stdout.isatty():
            return input(PROMPT) + "\n"
        sys.stderr.write(PROMPT)  # the output is for answers only
        sys.stderr.flush()
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        show_hint("\n(Ctrl-D leaves)")
        return "\n"
    except EOFError:
        line = ""
    if not line:
        show_hint("")
    return line
