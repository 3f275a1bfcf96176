"""Uses the three standard streams: answers go to the output, everything else to standard error."""

from __future__ import annotations

import codecs
import contextlib
import functools
import importlib
import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

from minillmlib import ChatNode
from minillmlib.cli.format import name_options, one_line, visible
from minillmlib.cli.tree_view import DIM, render_tree, summary

PROMPT = "> "
PASTE_SECS = 0.05  # a pasted line follows the previous one sooner, a typed one later
NOTICE_SECS = 3.0  # the wait for the end of an input after which a note is shown
WAITING_LINE = "waiting for the end of the piped input; if there is none, add < /dev/null"
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
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


def decode(data: bytes) -> str:
    """Decode the text of another program; what cannot be decoded becomes U+FFFD.

    A byte order mark decides (PowerShell writes UTF-16), else UTF-8 is tried, then the encoding of
    the locale.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(sys.stdin.encoding, "replace")


def decode_argument(text: str | None) -> str | None:
    """Return an argument as text. Python keeps bytes that it cannot decode as lone surrogates."""
    return None if text is None else decode(os.fsencode(text))


def read_piped() -> str:
    """Read the piped input to its end. Show a note if that takes long."""
    with waiting_notice():
        return decode(sys.stdin.buffer.read())


@contextlib.contextmanager
def waiting_notice() -> Iterator[None]:
    """Show a note if reading the piped input takes long."""
    notice = threading.Timer(NOTICE_SECS, show_line, [WAITING_LINE, DIM])
    notice.daemon = True
    notice.start()
    try:
        yield
    finally:
        notice.cancel()


def decode_lines(source: IO[bytes]) -> Iterator[str]:
    """Decode the lines of another program's text, each before the next is read."""
    first = source.readline()
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from io.StringIO(decode(first + source.read()), newline="\n")
        return
    yield decode(first)
    yield from map(decode, source)


def read_messages() -> Iterator[str]:
    """Yield the messages of the input until its end, without blank ones.

    Each line of piped input is a message. At a terminal, lines that are pasted together are one
    message, lines can be edited, and Ctrl-C cancels the message instead of the program.
    """
    texts = decode_lines(sys.stdin.buffer)
    if sys.stdin.isatty():
        texts = iter(_Keyboard().read_message, "")
    for text in texts:
        if text.strip():
            yield text.strip("\r\n")


class _Keyboard:
    """The terminal as an input."""

    def __init__(self) -> None:
        self._unread = b""  # lines read together with the last one

    def read_message(self) -> str:
        """Return a message with its line end, or "" at the end of the input."""
        text = ""
        try:
            was_typed_ahead = self._is_more_waiting(0)
            while not text or (not was_typed_ahead and self._is_more_waiting(PASTE_SECS)):
                line = self._read_line("" if text else PROMPT)
                text += line
                if not line:
                    break
        except KeyboardInterrupt:
            self._unread = b""
            with contextlib.suppress(KeyboardInterrupt):  # pressed twice
                show_hint("\n(Ctrl-D leaves)")
            return "\n"
        if not text:
            show_hint("")
        return text

    def _read_line(self, prompt: str) -> str:
        """Return a line with its end, or "" at the end of the input."""
        if sys.stdout.isatty() and _edits_lines():
            try:
                return input(prompt) + "\n"
            except EOFError:
                return ""
        stream = sys.stdout if sys.stdout.isatty() else sys.stderr  # the output is for answers only
        stream.write(prompt)
        stream.flush()
        if sys.platform == "win32":
            return sys.stdin.readline()
        while b"\n" not in self._unread and (more := os.read(sys.stdin.fileno(), 65536)):
            self._unread += more
        line, end, self._unread = self._unread.partition(b"\n")
        return decode(line + end)

    def _is_more_waiting(self, secs: float) -> bool:
        return bool(self._unread) or _is_input_waiting(sys.stdin.fileno(), secs)


if sys.platform == "win32":

    def _is_input_waiting(_terminal: int, _secs: float) -> bool:
        return False

else:
    import termios

    def _is_input_waiting(terminal: int, secs: float) -> bool:
        """Whether input comes within `secs`, even an unfinished line."""
        try:
            mode = termios.tcgetattr(terminal)
            unlined = [*mode[:3], mode[3] & ~termios.ICANON, *mode[4:]]
            termios.tcsetattr(terminal, termios.TCSANOW, unlined)
            try:
                return bool(select.select([terminal], [], [], secs)[0])
            finally:
                termios.tcsetattr(terminal, termios.TCSANOW, mode)
        except termios.error:
            return False


@functools.cache
def _edits_lines() -> bool:
    """Whether `input` edits lines. If so, enable bracketed paste where the terminal has it."""
    try:
        readline = importlib.import_module("readline")
    except ImportError:
        return sys.platform == "win32"  # where the console does
    if "libedit" not in (readline.__doc__ or ""):
        readline.parse_and_bind("set enable-bracketed-paste on")  # Python turns it off
    return True
