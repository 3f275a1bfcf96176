"""The commands and their options, and how each way of ending becomes an exit code."""

from __future__ import annotations

import signal
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from minillmlib import (
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    __version__,
)
from minillmlib.cli.chat_loop import converse, show_end
from minillmlib.cli.chat_session import Conversation, answer
from minillmlib.cli.conversation_files import begun, opened, page_beside, write_page
from minillmlib.cli.repair_command import mend
from minillmlib.cli.terminal import (
    abandon_output,
    prepare_streams,
    show_error,
    show_note,
    show_path,
    show_tree,
)
from minillmlib.local import check_engine
from minillmlib.providers.presets import PRESETS

__all__ = ["run_app"]

MODEL_VARIABLE = "MINILLMLIB_MODEL"
DEMO_LINE = (
    "This is SmolLM2-135M, a tiny demo model. "
    f"For a real one: --model openai:gpt-4o-mini, or set {MODEL_VARIABLE}."
)

FAILED = 1
USED_WRONGLY = 2
INTERRUPTED = 128 + 2  # what a shell says of a program that SIGINT ended
PIPE_CLOSED = 128 + 13  # and SIGPIPE

Prompt: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT", help="The question. Piped input is added to it, or is the question."
    ),
]
FirstMessage: TypeAlias = Annotated[
    str | None, typer.Argument(metavar="MESSAGE", help="Asked at once; the prompt follows.")
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=MODEL_VARIABLE,
        metavar="PROVIDER:MODEL",
        help="For example openai:gpt-4o-mini. Without it a tiny local demo model answers. "
        f"The providers are {', '.join(PRESETS)}.",
    ),
]
System: TypeAlias = Annotated[
    str | None, typer.Option("--system", "-s", metavar="TEXT", help="The system prompt.")
]
MaxTokens: TypeAlias = Annotated[
    int | None, typer.Option(min=1, metavar="NUMBER", help="Most tokens of an answer.")
]
Temperature: TypeAlias = Annotated[
    float | None, typer.Option(min=0, metavar="NUMBER", help="Randomness, 0 or more.")
]
Save: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep the conversation in this file, or go on with it."),
]
File: TypeAlias = Annotated[
    Path, typer.Argument(metavar="FILE", help="A tree, a journal of chat --save, or a thread.")
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Instead of a page beside the file."),
]
Open: TypeAlias = Annotated[bool, typer.Option("--open", help="Show the page in the browser.")]
BrokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="The text; without it the standard input is read.",
    ),
]
Strict: TypeAlias = Annotated[
    bool, typer.Option("--strict", help="Only take what is JSON already; say what is not.")
]
Changes: TypeAlias = Annotated[
    bool, typer.Option("--changes", help="Show beside the output what was guessed, and where.")
]

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_app() -> None:
    """Runs the command that the arguments name and exits with its code."""
    prepare_streams()
    app()


def _show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"minillmlib {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Talk to a large language model from the terminal."""
    del version


@app.command()
def ask(
    prompt: Prompt = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
) -> None:
    """Ask one question. The answer goes to standard output as it comes."""
    with _exit_codes():
        question = _question(prompt)
        params = CompletionParameters(max_tokens=max_tokens, temperature=temperature)
        generator = _generator(model)
        answer(begun(None, system).chat_streaming(question, generator, params))


@app.command()
def chat(  # noqa: PLR0913, PLR0917 - each is an option of the command
    message: FirstMessage = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    save: Save = None,
) -> None:
    """Hold a conversation. Ctrl-C stops an answer, Ctrl-D leaves, /help tells more."""
    with _exit_codes():
        params = CompletionParameters(max_tokens=max_tokens, temperature=temperature)
        generator = _generator(model)
        node = begun(save, system)
        show_end(node)
        converse(Conversation(node, generator, params, save), message)


@app.command()
def tree(file: File) -> None:
    """Draw the tree in a file: who said what, the models and the costs."""
    with _exit_codes():
        show_tree(opened(file))


@app.command()
def view(file: File, output: Output = None, open_it: Open = False) -> None:
    """Write the tree in a file as one HTML page, and say where it is."""
    with _exit_codes():
        page = page_beside(file, output)
        write_page(opened(file), page, file.name)
        show_path(page)
        if open_it and not webbrowser.open(page.resolve().as_uri()):
            show_note("no browser could be opened")


@app.command()
def repair(file: BrokenFile = None, strict: Strict = False, changes: Changes = False) -> None:
    """Repair JSON, or JSON lines, to the standard output."""
    with _exit_codes():
        if not mend(file, is_strict=strict, shows_changes=changes):
            raise typer.Exit(FAILED)


def _question(prompt: str | None) -> str:
    """The argument, what is piped in, or both with a blank line between."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    parts = [part for part in (prompt, piped) if part and part.strip()]
    if not parts:
        show_error('there is no question; give one, as in: minillmlib ask "What is HTTP?"')
        raise typer.Exit(USED_WRONGLY)
    return "\n\n".join(parts)


def _generator(model: str | None) -> GeneratorInfo:
    if model is not None:
        return GeneratorInfo.from_spec(model)
    check_engine()
    show_note(DEMO_LINE)
    return GeneratorInfo.local()


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turns what ends a command into its exit code, with at most one line about it."""
    try:
        yield
    except MiniLLMError as error:
        show_error(str(error))
        is_misuse = isinstance(error, InvalidParameterError)
        raise typer.Exit(USED_WRONGLY if is_misuse else FAILED) from None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends even the cleaning up
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        abandon_output()
        raise typer.Exit(PIPE_CLOSED) from None
    except OSError as error:
        abandon_output()
        show_error(f"the standard input or output failed: {error.strerror or error}")
        raise typer.Exit(FAILED) from None
