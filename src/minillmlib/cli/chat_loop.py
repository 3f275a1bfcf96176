"""Reads the lines of a conversation: messages, and the commands that start with a slash."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minillmlib import ChatNode, InvalidParameterError, MiniLLMError, Role
from minillmlib.cli.chat_session import ChatSession
from minillmlib.cli.conversation_files import export, is_same_file
from minillmlib.cli.format import one_line, visible
from minillmlib.cli.terminal import read_lines, show_error, show_hint, show_line, show_tree
from minillmlib.cli.tree_view import excerpt, summary
from minillmlib.tree.render import EXPORTS

__all__ = ["run_chat_loop", "show_recent"]

SLASH = "/"
RECENT_MESSAGES = 4
MAX_CHARS = 500
MAX_COLUMNS = 50


class Command(NamedTuple):
    """A slash command; `run` takes the words after its name."""

    usage: str
    run: Callable[[ChatSession, str], None]
    meaning: str


def run_chat_loop(session: ChatSession, first: str | None) -> None:
    """Answer `first`, if any, and then line by line until the end of the input."""
    if first and first.strip():
        session.say(first)
    for line in read_lines():
        if line.startswith(SLASH * 2):
            session.say(line[1:])
        elif line.startswith(SLASH):
            _run_command(session, line)
        else:
            session.say(line)


def _run_command(session: ChatSession, line: str) -> None:
    name, _, words = line.strip().partition(" ")
    try:
        if name not in COMMANDS:
            raise InvalidParameterError(
                f"there is no {name[:MAX_COLUMNS]}, only {', '.join(COMMANDS)}; "
                "double the slash to send a message that starts with one; Ctrl-D leaves"
            )
        COMMANDS[name].run(session, words.strip())
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
    count = _parse_count(words or "1")
    asked = [node for node in session.node.path() if node.role is Role.USER]
    if not asked:
        raise InvalidParameterError("nothing was said yet on this branch; write a message first")
    if count > len(asked):
        things = f"{len(asked)} thing{'s' * (len(asked) != 1)}"
        raise InvalidParameterError(f"you said only {things} on this branch; give a smaller number")
    before = asked[-count].parent
    if before is None:
        raise InvalidParameterError("there is nothing before the first message; /tree shows all")
    previous = session.node
    session.node = before
    question = excerpt(asked[-count].message, MAX_COLUMNS)
    show_line(f'Before "{question}". Say something else, or /goto {_number(previous)} to return.')


def _parse_count(words: str) -> int:
    if not (words.isascii() and words.isdigit() and int(words[:9])):
        raise InvalidParameterError(f"/branch takes a number like 1, not {words!r:.60}")
    return int(words[:9])


def _number(node: ChatNode) -> int:
    return node.root_node.in_insertion_order().index(node) + 1


def _tree(session: ChatSession, words: str) -> None:
    _check_no_words("/tree", words)
    show_tree(session.node.root_node, session.node)


def _goto(session: ChatSession, words: str) -> None:
    session.node = _find_node(session.node.root_node, words)
    node = session.node
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


def _retry(session: ChatSession, words: str) -> None:
    _check_no_words("/retry", words)
    session.retry()


def _save(session: ChatSession, words: str) -> None:
    if not words:
        where = f"; --save keeps all in {str(session.journal)!r} already" if session.journal else ""
        raise InvalidParameterError(f"/save takes the name of a file{where}")
    path = Path(os.path.expanduser(words))  # noqa: PTH111 - the other raises for unknown users
    if session.journal and is_same_file(path, session.journal):
        raise InvalidParameterError(f"all is kept in {words!r} already; name another file")
    show_line(one_line(f"Wrote {export(session.node, path)}, to {path}"))


def _cost(session: ChatSession, words: str) -> None:
    _check_no_words("/cost", words)
    node = session.node
    show_line(f"this answer: {node.cost}")
    show_line(f"this branch: {node.path_cost()}")
    show_line(f"whole tree: {node.root_node.subtree_cost()}")


def _help(session: ChatSession, words: str) -> None:
    del session, words
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        show_line(f"{command.usage:<{width}}  {command.meaning}")
    show_line(f"{'//...':<{width}}  send a message that starts with a slash")


def _check_no_words(name: str, words: str) -> None:
    if words:
        raise InvalidParameterError(f"{name} stands alone; omit {words!r:.60}")


COMMANDS = {
    command.usage.split()[0]: command
    for command in (
        Command(
            "/branch [N]", _branch, "go back to before the last thing you said, or the Nth last"
        ),
        Command("/tree", _tree, "draw the tree; * is where you are"),
        Command("/goto NODE", _goto, "continue after this node: a number or id of /tree"),
        Command("/retry", _retry, "ask the last question again; both answers stay"),
        Command(
            "/save FILE",
            _save,
            f"write this branch (.json), an export ({', '.join(EXPORTS)}) or the whole tree (else)",
        ),
        Command("/cost", _cost, "show the cost of this answer, this branch and the whole tree"),
        Command("/help", _help, "show this list"),
    )
}
