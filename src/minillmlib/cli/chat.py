"""Conversations at a terminal: answers as they arrive, and the commands that start with a slash."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from minillmlib import (
    ChatNode,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    NodeCompletionParameters,
    Role,
    StorageError,
    StreamingCompletion,
    iterate,
)
from minillmlib.cli import terminal
from minillmlib.cli.conversation_files import FileId, export, identify_file, is_same_file
from minillmlib.cli.format import closing_line, notices, one_line, visible
from minillmlib.cli.terminal import show_error, show_hint, show_line
from minillmlib.cli.tree_view import DIM, excerpt, summary
from minillmlib.json_value import plural
from minillmlib.tree.node import EXPORTS

RECENT_MESSAGES = 4
MAX_CHARS = 500
MAX_COLUMNS = 50

OpenStream: TypeAlias = Callable[[], StreamingCompletion[ChatNode]]


def print_answer(stream: StreamingCompletion[ChatNode]) -> ChatNode:
    """Print an answer as it arrives and return its node.

    After an error or Ctrl-C, which are raised again, the text received before stays printed, its
    line is ended, and the tree is unchanged.
    """
    printer = terminal.AnswerPrinter()
    try:
        for chunk in iterate(stream):
            printer.write(chunk.delta)
    except MiniLLMError as error:
        printer.finish(error.partial)
        raise
    except KeyboardInterrupt:
        printer.interrupt()
        raise
    printer.finish(stream.response.text)
    show_hint(closing_line(stream.response))
    if not sys.stderr.isatty() and (unusual := notices(stream.response)):
        show_line(" · ".join(unusual), DIM)
    return stream.node


class ChatSession:
    """A person's position in a tree.

    An error or Ctrl-C ends only the answer; the conversation continues from before it.
    """

    def __init__(
        self,
        node: ChatNode,
        generator: GeneratorInfo,
        params: NodeCompletionParameters,
        journal: Path | None = None,
    ) -> None:
        self.node = node  # the next message is added below it
        self.journal = journal  # the file that records the tree
        self._generator = generator
        self._params = params
        self.written = set[FileId | None]()  # the files of /save, as they were then
        self._unanswered: tuple[ChatNode, OpenStream] | None = None  # the question to retry, where

    def say(self, text: str) -> None:
        """Send a message and print the answer."""
        node = self.node
        self._take_turn(lambda: node.chat_streaming(text, self._generator, self._params))

    def retry(self) -> None:
        """Ask the last question again, also one whose answer was stopped or failed.

        If it was answered, the new answer is added beside the old one.
        """
        if self._unanswered is not None and self._unanswered[0] == self.node:
            self._take_turn(self._unanswered[1])
            return
        question = next((node for node in self.node.path()[::-1] if node.role is Role.USER), None)
        if question is None:
            raise InvalidParameterError("nothing was asked yet; write a message first")
        self._take_turn(lambda: question.complete_streaming(self._generator, self._params))

    def _take_turn(self, open_stream: OpenStream) -> None:
        self._unanswered = (self.node, open_stream)
        count = self.node.root_node.node_count()
        try:
            self.node = print_answer(open_stream())
            self._unanswered = None
        except KeyboardInterrupt:
            show_hint("(stopped)")
        except StorageError as error:
            nodes = self.node.root_node.in_insertion_order()
            if len(nodes) > count:  # the answer is in the tree nevertheless
                self.node = nodes[-1]
                self._unanswered = None
            show_error(error)
        except MiniLLMError as error:
            show_error(error)


class Command(NamedTuple):
    """A slash command; `run` takes the words after its name, if `usage` has any."""

    usage: str
    run: Callable[[ChatSession, str], None]
    meaning: str


def run_chat_loop(session: ChatSession, first: str | None) -> None:
    """Answer `first`, if any, and then message by message until the end of the input.

    A command is one line. Several lines were pasted, and are sent as they are.
    """
    if first and first.strip():
        session.say(first)
    for text in terminal.read_messages():
        if "\n" in text or not text.startswith("/"):
            session.say(text)
        elif text.startswith("//"):
            session.say(text[1:])
        else:
            _run_command(session, text)


def _run_command(session: ChatSession, line: str) -> None:
    name, _, words = line.strip().partition(" ")
    try:
        if name not in COMMANDS:
            raise InvalidParameterError(
                f"there is no {name[:MAX_COLUMNS]}, only {', '.join(COMMANDS)}; "
                "double the slash to send a message that starts with one; Ctrl-D leaves"
            )
        command, words = COMMANDS[name], words.strip()
        if words and command.usage == name and command.run is not _help:
            raise InvalidParameterError(f"{name} stands alone; omit {words!r:.60}")
        command.run(session, words)
    except KeyboardInterrupt:
        show_hint("(stopped)")
    except MiniLLMError as error:
        show_error(error)


def show_recent(node: ChatNode) -> None:
    """Show the last messages before a node to a person who continues a conversation."""
    if node.is_root:
        return
    show_hint(f"{summary(node.root_node)}; /tree draws them, /help lists all commands")
    for one in node.path()[-RECENT_MESSAGES:]:
        if one.role is not Role.SYSTEM:
            text = visible((one.text or "")[: MAX_CHARS + 1])
            if len(text) > MAX_CHARS:
                text = text[:MAX_CHARS] + "…"
            show_hint(f"{one.role.value}: {text or excerpt(one.message, MAX_COLUMNS)}")


def _branch(session: ChatSession, words: str) -> None:
    words = words or "1"
    count = int(words[:9]) if words.isascii() and words.isdigit() else 0
    if not count:
        raise InvalidParameterError(f"/branch takes a number like 1, not {words!r:.60}")
    asked = [node for node in session.node.path() if node.role is Role.USER]
    if not asked:
        raise InvalidParameterError("nothing was said yet on this branch; write a message first")
    if count > len(asked):
        things = f"{len(asked)} {plural('thing', len(asked))}"
        raise InvalidParameterError(f"you said only {things} on this branch; give a smaller number")
    before = asked[-count].parent
    if before is None:
        raise InvalidParameterError("there is nothing before the first message; /tree shows all")
    previous, session.node = session.node, before
    question = excerpt(asked[-count].message, MAX_COLUMNS)
    show_line(f'Before "{question}". Say something else, or /goto {_number(previous)} to return.')


def _number(node: ChatNode) -> int:
    return node.root_node.in_insertion_order().index(node) + 1


def _tree(session: ChatSession, _words: str) -> None:
    terminal.show_tree(session.node.root_node, session.node)


def _goto(session: ChatSession, words: str) -> None:
    node = session.node = _find_node(session.node.root_node, words)
    text = excerpt(node.message, MAX_COLUMNS)
    show_line(f"After {_number(node)}, {node.role.value}: {text}")


def _find_node(root: ChatNode, name: str) -> ChatNode:
    """Return the node with this number, or whose id starts with `name`."""
    if not name:
        raise InvalidParameterError("/goto takes a number of /tree, or the beginning of an id")
    nodes = root.in_insertion_order()
    if name.isascii() and name.isdigit() and 0 < int(name[:32]) <= len(nodes):
        return nodes[int(name[:32]) - 1]
    found = [node for node in nodes if node.id.startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} ids begin with" if found else "no number and no id is"
    raise InvalidParameterError(f"{problem} {name!r:.60}; /tree shows all")


def _save(session: ChatSession, words: str, *, is_forced: bool = False) -> None:
    if not words:
        where = f"; --save keeps all in {str(session.journal)!r} already" if session.journal else ""
        raise InvalidParameterError(f"/save takes the name of a file{where}")
    path = Path(os.path.expanduser(words))  # noqa: PTH111 - the other raises for unknown users
    if session.journal and is_same_file(path, session.journal):
        raise InvalidParameterError(f"all is kept in {words!r} already; name another file")
    found = identify_file(path)
    if not is_forced and found is not None and found not in session.written:
        raise InvalidParameterError(
            f"{words!r} exists already; name another file, or replace it: /save! {words}"
        )
    show_line(one_line(f"Wrote {export(session.node, path)}, to {path}"))
    session.written.add(identify_file(path))


def _cost(session: ChatSession, _words: str) -> None:
    node = session.node
    show_line(f"this answer: {node.cost}")
    show_line(f"this branch: {node.path_cost()}")
    show_line(f"whole tree: {node.root_node.subtree_cost()}")


def _help(_session: ChatSession, _words: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        show_line(f"{command.usage:<{width}}  {command.meaning}")
    show_line(f"{'//...':<{width}}  send a message that starts with a slash")


COMMANDS = {
    command.usage.split()[0]: command
    for command in (
        Command(
            "/branch [N]", _branch, "go back to before the last thing you said, or the Nth last"
        ),
        Command("/tree", _tree, "draw the tree; * is where you are"),
        Command("/goto NODE", _goto, "continue after this node: a number or id of /tree"),
        Command(
            "/retry",
            lambda session, _: session.retry(),
            "ask the last question again; both answers stay",
        ),
        Command(
            "/save FILE",
            _save,
            f"write this branch (.json), an export ({', '.join(EXPORTS)}) or the whole tree (else)",
        ),
        Command(
            "/save! FILE",
            lambda session, words: _save(session, words, is_forced=True),
            "the same, in place of a file that exists",
        ),
        Command("/cost", _cost, "show the cost of this answer, this branch and the whole tree"),
        Command("/help", _help, "show this list"),
    )
}
