"""Defines the commands and their options, and turns every ending into an exit code."""

from __future__ import annotations

import signal
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from minillmlib import CompletionParameters, GeneratorInfo, InvalidParameterError, MiniLLMError
from minillmlib.cli import terminal
from minillmlib.cli.chat import ChatSession, print_answer, run_chat_loop, show_recent
from minillmlib.cli.conversation_files import load_root, open_or_create, page_path, write_text
from minillmlib.cli.format import visible
from minillmlib.cli.repair_command import repair_stream
from minillmlib.cli.tree_view import DIM
from minillmlib.local import check_engine
from minillmlib.providers.presets import PRESETS
from minillmlib.version import __version__

MODEL_VARIABLE = "MINILLMLIB_MODEL"
DEMO_LINE = (
    "This is SmolLM2-135M, a tiny demo model. "
    f"For a real one: --model openai:gpt-4o-mini, or set {MODEL_VARIABLE}."
)

FAILED = 1
MISUSED = 2
INTERRUPTED = 128 + 2  # as shells report SIGINT
PIPE_CLOSED = 128 + 13  # as shells report SIGPIPE

Prompt = Annotated[str | None, Argument(help="The question; piped input is appended.")]
FirstMessage = Annotated[str | None, Argument(metavar="MESSAGE", help="A message to send first.")]
Model = Annotated[
    str | None,
    Option(
        "--model",
        "-m",
        envvar=MODEL_VARIABLE,
        metavar="PROVIDER:MODEL",
        help="For example openai:gpt-4o-mini. By default a tiny local demo model answers. "
        f"The providers are {', '.join(PRESETS)}.",
    ),
]
System = Annotated[str | None, Option("--system", "-s", metavar="TEXT", help="The system prompt.")]
MaxTokens = Annotated[
    int | None, Option(min=1, metavar="NUMBER", help="Maximum tokens of an answer.")
]
Temperature = Annotated[
    float | None, Option(min=0, metavar="NUMBER", help="Randomness, 0 or more.")
]
Save = Annotated[
    Path | None, Option(metavar="FILE", help="Record the conversation here, or continue it.")
]
File = Annotated[
    Path, Argument(metavar="FILE", help="A tree, a journal of chat --save, or a thread.")
]
Output = Annotated[
    Path | None, Option("--output", "-o", metavar="FILE", help="The page; by default beside FILE.")
]
Open = Annotated[bool, Option("--open", help="Show the page in the browser.")]
BrokenFile = Annotated[
    Path | None,
    Argument(
        metavar="FILE", exists=True, dir_okay=False, help="The text; by default standard input."
    ),
]
Strict = Annotated[bool, Option("--strict", help="Accept only valid JSON.")]
Changes = Annotated[bool, Option("--changes", help="Report each repair on standard error.")]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn an exception into the exit code of a command, with at most one line about it."""
    try:
        yield
    except MiniLLMError as error:
        terminal.show_error(error)
        code = MISUSED if isinstance(error, InvalidParameterError) else FAILED
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the cleanup, too
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        terminal.discard_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        terminal.discard_output()
        terminal.show_error(f"standard input or output failed: {error.strerror or error}")
        raise typer.Exit(FAILED) from None


def run_app() -> None:
    """Run the command that the arguments name and exit with its code."""
    terminal.prepare_streams()
    app()


def _show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"minillmlib {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Talk to a large language model from the terminal."""


@app.command()
@_exit_codes()
def ask(
    prompt: Prompt = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
) -> None:
    """Ask one question. The answer is streamed to standard output."""
    question = _question(prompt)
    params = CompletionParameters(max_tokens=max_tokens, temperature=temperature)
    generator = _generator(model)
    print_answer(open_or_create(None, system).chat_streaming(question, generator, params))


@app.command()
@_exit_codes()
def chat(  # noqa: PLR0913, PLR0917 - each is an option of the command
    message: FirstMessage = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    save: Save = None,
) -> None:
    """Hold a conversation. Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands."""
    params = CompletionParameters(max_tokens=max_tokens, temperature=temperature)
    generator = _generator(model)
    node = open_or_create(save, system)
    show_recent(node)
    run_chat_loop(ChatSession(node, generator, params, save), message)


@app.command()
@_exit_codes()
def tree(file: File) -> None:
    """Draw the tree in a file: the messages, models and costs."""
    terminal.show_tree(load_root(file))


@app.command()
@_exit_codes()
def view(file: File, output: Output = None, open_it: Open = False) -> None:
    """Write the tree in a file as one HTML page, and print its path."""
    page = page_path(file, output)
    write_text(page, load_root(file).to_html(title=file.name))
    printed = visible(str(page)) if sys.stdout.isatty() else page
    sys.stdout.write(f"{printed}\n")
    if open_it and not webbrowser.open(page.resolve().as_uri()):
        terminal.show_line("no browser could be opened", DIM)


@app.command()
@_exit_codes()
def repair(file: BrokenFile = None, strict: Strict = False, changes: Changes = False) -> None:
    """Repair JSON, or JSON lines, and write it to standard output."""
    if not repair_stream(file, is_strict=strict, shows_changes=changes):
        raise typer.Exit(FAILED)


def _question(prompt: str | None) -> str:
    """Return the argument, the piped input, or both with a blank line between."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    parts = [part for part in (prompt, piped) if part and part.strip()]
    if not parts:
        raise InvalidParameterError(
            'there is no question; give one, for example: minillmlib ask "What is HTTP?"'
        )
    return "\n\n".join(parts)


def _generator(model: str | None) -> GeneratorInfo:
    if model is not None:
        return GeneratorInfo.from_spec(model)
    check_engine()
    terminal.show_line(DEMO_LINE, DIM)
    return GeneratorInfo.local()
