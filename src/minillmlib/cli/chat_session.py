"""Prints answers as they arrive, and holds the state of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from minillmlib import (
    ChatNode,
    CompletionParameters,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    Role,
    StorageError,
    StreamingCompletion,
    iterate,
)
from minillmlib.cli.format import closing_line, truncation_notice
from minillmlib.cli.terminal import DIM, AnswerPrinter, is_watched, show_error, show_hint, show_line

__all__ = ["ChatSession", "print_answer"]

OpenStream: TypeAlias = Callable[[], StreamingCompletion[ChatNode]]


def print_answer(stream: StreamingCompletion[ChatNode]) -> ChatNode:
    """Print an answer as it arrives and return its node.

    After an error or Ctrl-C, which are raised again, the text received before stays printed, its
    line is ended, and the tree is unchanged.
    """
    printer = AnswerPrinter()
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
    if not is_watched() and (notice := truncation_notice(stream.response)):
        show_line(notice, DIM)
    return stream.node


class ChatSession:
    """A person's position in a tree.

    An error or Ctrl-C ends only the answer; the conversation continues from before it.

    Attributes:
        node: The next message is added below this node.
        journal: The file that records the tree, or None.
    """

    def __init__(
        self,
        node: ChatNode,
        generator: GeneratorInfo,
        params: CompletionParameters,
        journal: Path | None = None,
    ) -> None:
        self.node = node
        self.journal = journal
        self._generator = generator
        self._params = params
        self._is_recorded = True
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
        self._resume_journal()
        self._unanswered = (self.node, open_stream)
        try:
            self.node = print_answer(open_stream())
            self._unanswered = None
        except KeyboardInterrupt:
            show_hint("(stopped)")
        except StorageError as error:  # the answer is in the tree nevertheless
            self.node = self.node.root_node.in_insertion_order()[-1]
            self._unanswered = None
            self._is_recorded = False
            show_error(error)
        except MiniLLMError as error:
            show_error(error)

    def _resume_journal(self) -> None:
        """Write the nodes that the journal lacks since the disk refused one."""
        if self._is_recorded or self.journal is None:
            return
        try:
            self.node.root_node.attach_journal(self.journal)
            self._is_recorded = True
        except StorageError as error:
            show_error(error)
