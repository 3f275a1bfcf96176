"""Defines the commands and their options, and turns every ending into an exit code."""

from __future__ import annotations

import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from typer import Argument, Option

from minillmlib import (
    Budget,
    CompletionParameters,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    Pace,
)
from minillmlib.bulk.report import run_report
from minillmlib.cli import terminal
from minillmlib.cli.chat import ChatSession, print_answer, run_chat_loop, show_recent
from minillmlib.cli.conversation_files import load_root, open_or_create, page_path, write_text
from minillmlib.cli.format import visible
from minillmlib.cli.models import MODEL_VARIABLE, choose_generator
from minillmlib.cli.repair_command import repair_stream
from minillmlib.cli.row_files import RowFormat
from minillmlib.cli.row_plan import RunPrompt
from minillmlib.cli.run_command import RunCommand, RunFiles, RunSettings
from minillmlib.cli.tree_view import DIM
from minillmlib.providers.presets import PRESETS
from minillmlib.version import __version__

_P = ParamSpec("_P")

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
        metavar="PROVIDER:MODEL,...",
        help="For example openai:gpt-4o-mini. By default a tiny local demo model answers. "
        "Each further one, after a comma, is asked if those before it fail. "
        f"The providers are {', '.join(PRESETS)}; any other server is custom:URL:MODEL, "
        "and a base model of one completions:URL:MODEL.",
    ),
]
BaseUrl = Annotated[
    str | None,
    Option(metavar="URL", help="The address of the server, if it is not the provider's own."),
]
KeyEnv = Annotated[
    str | None, Option(metavar="VARIABLE", help="The environment variable that holds the key.")
]
Price = Annotated[
    str | None,
    Option(metavar="IN,OUT", help="Dollars for a million tokens of input and of output."),
]
System = Annotated[str | None, Option("--system", "-s", metavar="TEXT", help="The system prompt.")]
MaxTokens = Annotated[
    int | None, Option(min=1, metavar="NUMBER", help="Maximum tokens of an answer.")
]
Temperature = Annotated[
    float | None, Option(min=0, metavar="NUMBER", help="Randomness, 0 or more.")
]
Timeout = Annotated[
    float | None, Option(metavar="SECONDS", help="How long the server may be silent.")
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
Force = Annotated[bool, Option("--force", help="Replace a file that is no page of this program.")]
Rows = Annotated[
    Path,
    Argument(metavar="FILE", help="The rows: JSON lines, CSV or plain lines; - is standard input."),
]
RowPrompt = Annotated[
    str | None,
    Option("--prompt", "-p", metavar="TEXT", help="The question, with {columns} of the row in it."),
]
PromptFile = Annotated[Path | None, Option(metavar="FILE", help="A file that holds the prompt.")]
RowKind = Annotated[
    RowFormat | None, Option("--format", help="The format of FILE, if its name does not tell.")
]
Answers = Annotated[
    Path | None,
    Option(
        "--output", "-o", metavar="FILE",
        help="The rows with their answers, as JSON lines or .csv; by default standard output.",
    ),
]  # fmt: skip
Schema = Annotated[
    Path | None, Option(metavar="FILE", help="A JSON schema that each answer must fit.")
]
Journal = Annotated[
    Path | None,
    Option(metavar="FILE", help="The journal of the run; by default beside the output."),
]
NoJournal = Annotated[bool, Option("--no-journal", help="Keep no journal.")]
BudgetUsd = Annotated[
    str | None, Option("--budget", metavar="USD", help="The most that all runs may spend.")
]
WidthOption = Annotated[
    int | None,
    Option("--width", min=1, metavar="NUMBER", help="Calls in flight; by default, adapted."),
]
Rpm = Annotated[
    int | None,
    Option("--rpm", min=1, metavar="NUMBER", help="The most requests a minute."),
]
Batch = Annotated[
    bool,
    Option("--batch", help="Use the provider's batches: half the price, within a day."),
]
RetryFailed = Annotated[
    bool, Option("--retry-failed", help="Ask also the rows that failed permanently.")
]
DryRun = Annotated[
    bool, Option("--dry-run", help="Show the first requests and the maximum cost; send nothing.")
]
ForceOutput = Annotated[bool, Option("--force", help="Replace an output that no run wrote.")]
RunJournalFile = Annotated[Path, Argument(metavar="JOURNAL", help="The journal of a run.")]
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


def _command(function: Callable[_P, None]) -> Callable[_P, None]:
    """Add a command of the program, with an exit code for each of its exceptions."""
    return app.command()(_exit_codes()(function))


def run_app() -> None:
    """Run the command that the arguments name and exit with its code."""
    terminal.prepare_streams()
    sys.argv[1:] = map(_visible_option, sys.argv[1:])
    app()


def _visible_option(argument: str) -> str:
    """Return an option whose name is safe to show: an unknown one is shown by typer."""
    name, sign, value = argument.partition("=")
    return visible(name) + sign + value if argument.startswith("-") else argument


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


@_command
def ask(  # noqa: PLR0913, PLR0917 - each is an option of the command
    prompt: Prompt = None,
    model: Model = None,
    base_url: BaseUrl = None,
    key_env: KeyEnv = None,
    price: Price = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    timeout: Timeout = None,
) -> None:
    """Ask one question. The answer is streamed to standard output."""
    params = _parameters(max_tokens, temperature, timeout)
    question = _question(terminal.decode_argument(prompt))
    generator = choose_generator(model, base_url=base_url, key_env=key_env, price=price)
    root = open_or_create(None, terminal.decode_argument(system))
    print_answer(root.chat_streaming(question, generator, params))


@_command
def chat(  # noqa: PLR0913, PLR0917 - each is an option of the command
    message: FirstMessage = None,
    model: Model = None,
    base_url: BaseUrl = None,
    key_env: KeyEnv = None,
    price: Price = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    timeout: Timeout = None,
    save: Save = None,
) -> None:
    """Hold a conversation. Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands."""
    params = _parameters(max_tokens, temperature, timeout)
    generator = choose_generator(model, base_url=base_url, key_env=key_env, price=price)
    node = open_or_create(save, terminal.decode_argument(system))
    show_recent(node)
    run_chat_loop(ChatSession(node, generator, params, save), terminal.decode_argument(message))


@_command
def tree(file: File) -> None:
    """Draw the tree in a file: the messages, models and costs."""
    terminal.show_tree(load_root(file))


@_command
def view(file: File, output: Output = None, force: Force = False, open_it: Open = False) -> None:
    """Write the tree in a file as one HTML page, and print its path."""
    page = page_path(file, output, is_forced=force)
    _write_page(page, load_root(file).to_html(title=file.name), opens=open_it)


@app.command()
@_exit_codes()
def run(  # noqa: PLR0913, PLR0917 - each is an option of the command
    file: Rows,
    prompt: RowPrompt = None,
    prompt_file: PromptFile = None,
    output: Answers = None,
    model: Model = None,
    system: System = None,
    schema: Schema = None,
    budget: BudgetUsd = None,
    width: WidthOption = None,
    rpm: Rpm = None,
    batch: Batch = False,
    journal: Journal = None,
    no_journal: NoJournal = False,
    retry_failed: RetryFailed = False,
    dry_run: DryRun = False,
    kind: RowKind = None,
    force: ForceOutput = False,
    base_url: BaseUrl = None,
    key_env: KeyEnv = None,
    price: Price = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    timeout: Timeout = None,
) -> None:
    """Ask about every row of a file. Run the same command again to resume."""
    files = RunFiles(file, output, kind, journal, not no_journal, force)
    words = RunPrompt(
        terminal.decode_argument(prompt), prompt_file, terminal.decode_argument(system), schema
    )
    params = _parameters(max_tokens, temperature, timeout).replace(
        budget=_budget(budget), pace=None if rpm is None else Pace(requests_per_minute=rpm)
    )
    generator = choose_generator(model, base_url=base_url, key_env=key_env, price=price)
    settings = RunSettings(generator, params, width, retry_failed, batch)
    with closing(RunCommand(files, words, settings)) as command:
        is_done = command.preview() if dry_run else command.run()
    if not is_done:
        raise typer.Exit(FAILED)


@app.command()
@_exit_codes()
def report(
    file: RunJournalFile, output: Output = None, force: Force = False, open_it: Open = False
) -> None:
    """Write the journal of a run as one HTML page, and print its path."""
    _write_page(page_path(file, output, is_forced=force), run_report(file), opens=open_it)


@_command
def repair(file: BrokenFile = None, strict: Strict = False, changes: Changes = False) -> None:
    """Repair JSON, or JSON lines, and write it to standard output."""
    if not repair_stream(file, is_strict=strict, shows_changes=changes):
        raise typer.Exit(FAILED)


def _write_page(page: Path, text: str, *, opens: bool) -> None:
    write_text(page, text)
    printed = visible(str(page)) if sys.stdout.isatty() else page
    sys.stdout.write(f"{printed}\n")
    if opens and not webbrowser.open(page.resolve().as_uri()):
        terminal.show_line("no browser could be opened", DIM)


def _budget(usd: str | None) -> Budget | None:
    try:
        return None if usd is None else Budget(usd)
    except InvalidParameterError:
        raise InvalidParameterError(
            f"--budget takes dollars, for example 5 or 0.50, not {usd!r:.60}"
        ) from None


def _parameters(
    max_tokens: int | None, temperature: float | None, timeout_secs: float | None
) -> NodeCompletionParameters:
    if timeout_secs is not None and not timeout_secs > 0:
        raise InvalidParameterError(f"--timeout takes more than 0 seconds, not {timeout_secs:g}")
    params = CompletionParameters(max_tokens=max_tokens, temperature=temperature)
    return NodeCompletionParameters(params=params, timeout_secs=timeout_secs)


def _question(prompt: str | None) -> str:
    """Return the argument, the piped input, or both with a blank line between."""
    piped = "" if sys.stdin.isatty() else terminal.read_piped().rstrip("\r\n")
    parts = [part for part in (prompt, piped) if part and part.strip()]
    if not parts:
        raise InvalidParameterError(
            'there is no question; give one, for example: minillmlib ask "What is HTTP?"'
        )
    return "\n\n".join(parts)
