"""What a person can ask for within a conversation, with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minillmlib import ChatNode, InvalidParameterError, MiniLLMError, Role
from minillmlib.cli.chat_session import Conversation
from minillmlib.cli.conversation_files import is_same_file, written
from minillmlib.cli.format import one_line, visible
from minillmlib.cli.terminal import prompted_lines, show_dim, show_error, show_line, show_tree
from minillmlib.cli.tree_view import excerpt, summary

__all__ = ["converse", "show_end"]

SLASH = "/"
LAST_SHOWN = 4
SHOWN_CHARS = 500
SHOWN_COLUMNS = 50


class Command(NamedTuple):
    """What a command does with the words after it."""

    run: Callable[[Conversation, str], None]
    usage: str
    meaning: str


def converse(talk: Conversation, first: str | None) -> None:
    """Answers `first`, if any, and then line by line until the end of the input."""
    if first and first.strip():
        talk.say(first)
    for line in prompted_lines():
        if line.startswith(SLASH * 2):
            talk.say(line[1:])
        elif line.startswith(SLASH):
            _obey(talk, line)
        else:
            talk.say(line)


def _obey(talk: Conversation, line: str) -> None:
    name, _, rest = line.strip().partition(" ")
    try:
        _command(name).run(talk, rest.strip())
    except KeyboardInterrupt:
        show_dim("(stopped)")
    except MiniLLMError as error:
        show_error(str(error))


def _command(name: str) -> Command:
    if name not in COMMANDS:
        raise InvalidParameterError(
            f"there is no {name[:SHOWN_COLUMNS]}, only {', '.join(COMMANDS)}; "
            "to say something that begins with a slash, double it; Ctrl-D leaves"
        )
    return COMMANDS[name]


def show_end(node: ChatNode) -> None:
    """The last messages up to a node, for a person who comes back to it."""
    if node.is_root:
        return
    show_dim(f"{summary(node.root_node)}; /tree draws them, /help lists what else there is")
    spoken = [one for one in node.path()[-LAST_SHOWN:] if one.role is not Role.SYSTEM]
    for one in spoken:
        text = visible((one.text or "")[: SHOWN_CHARS + 1])
        if len(text) > SHOWN_CHARS:
            text = text[:SHOWN_CHARS] + "…"
        show_dim(f"{one.role.value}: {text or excerpt(one.message, SHOWN_COLUMNS)}")


def _branch(talk: Conversation, words: str) -> None:
    count = _count(words or "1")
    said = [node for node in talk.node.path() if node.role is Role.USER]
    if count > len(said):
        have = f"{len(said)} things were" if len(said) != 1 else "one thing was"
        raise InvalidParameterError(f"only {have} said on this branch" if said else NOTHING_SAID)
    before = said[-count].parent
    if before is None:
        raise InvalidParameterError("nothing is before the first message of this conversation")
    left = talk.node
    talk.node = before
    question = excerpt(said[-count].message, SHOWN_COLUMNS)
    show_line(f'Before "{question}". Say something else, or /goto {_number(left)} to return.')


NOTHING_SAID = "nothing was said yet on this branch"


def _count(words: str) -> int:
    if not (words.isascii() and words.isdigit() and int(words[:9])):
        raise InvalidParameterError(f"/branch takes a number like 1, not {words!r:.60}")
    return int(words[:9])


def _number(node: ChatNode) -> int:
    return node.root_node.in_insertion_order().index(node) + 1


def _tree(talk: Conversation, words: str) -> None:
    _refuse_words("/tree", words)
    show_tree(talk.node.root_node, talk.node)


def _goto(talk: Conversation, words: str) -> None:
    talk.node = _named(talk.node.root_node, words)
    words = excerpt(talk.node.message, SHOWN_COLUMNS)
    show_line(f"After {_number(talk.node)}, {talk.node.role.value}: {words}")


def _named(root: ChatNode, name: str) -> ChatNode:
    """The node with this number, or whose id begins so."""
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


def _retry(talk: Conversation, words: str) -> None:
    _refuse_words("/retry", words)
    talk.ask_again()


def _save(talk: Conversation, words: str) -> None:
    if not words:
        where = f"; all is kept in {str(talk.kept_in)!r} already" if talk.kept_in else ""
        raise InvalidParameterError(f"/save takes the name of a file{where}")
    path = _expanded(words)
    if talk.kept_in and is_same_file(path, talk.kept_in):
        raise InvalidParameterError(f"all is kept in {words!r} already; name another file")
    what = written(talk.node, path)
    show_line(one_line(f"Wrote {what}, to {path}"))


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # nobody has that name
        return Path(name)


def _cost(talk: Conversation, words: str) -> None:
    _refuse_words("/cost", words)
    node = talk.node
    show_line(f"this answer: {node.cost}")
    show_line(f"this branch: {node.path_cost()}")
    show_line(f"whole tree: {node.root_node.subtree_cost()}")


def _help(talk: Conversation, words: str) -> None:
    del talk, words
    width = max(len(command.usage) for command in COMMANDS.values())
    for command in COMMANDS.values():
        show_line(f"{command.usage:<{width}}  {command.meaning}")
    show_line(f"{'//...':<{width}}  say something that begins with a slash")


def _refuse_words(name: str, words: str) -> None:
    if words:
        raise InvalidParameterError(f"{name} stands alone, without {words!r:.60}")


COMMANDS = {
    "/branch": Command(
        _branch, "/branch [N]", "go back to before the last thing you said, or the Nth last"
    ),
    "/tree": Command(_tree, "/tree", "draw the tree; * is where you are"),
    "/goto": Command(_goto, "/goto NODE", "go on after this node: a number or id of /tree"),
    "/retry": Command(_retry, "/retry", "ask the last question again; both answers stay"),
    "/save": Command(
        _save,
        "/save FILE",
        "write this branch (.json, .md), a page (.html) or the whole tree (any other name)",
    ),
    "/cost": Command(_cost, "/cost", "what this answer, this branch and the whole tree cost"),
    "/help": Command(_help, "/help", "this list"),
}
