"""Answers as they come, and a conversation of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    GeneratorInfo,
    InvalidParameterError,
    MiniLLMError,
    Role,
    StorageError,
    StreamingCompletion,
    iterate,
)
from minillmlib.cli.format import closing_line, remark
from minillmlib.cli.terminal import AnswerPrinter, is_watched, show_dim, show_error, show_note

__all__ = ["Conversation", "answer"]

Begin: TypeAlias = Callable[[], StreamingCompletion[ChatNode]]


def answer(stream: StreamingCompletion[ChatNode]) -> ChatNode:
    """Prints an answer as it comes and returns its node.

    What had arrived before an error or Ctrl-C stays printed, on a line that is ended. Both go
    on to the caller, and the tree is then as before.
    """
    printer = AnswerPrinter()
    try:
        for chunk in iterate(stream):
            printer.write(chunk.delta)
    except MiniLLMError as error:
        printer.finish(error.partial)
        raise
    except KeyboardInterrupt:
        printer.break_off()
        raise
    printer.finish(stream.response.text)
    _close(stream.response)
    return stream.node


def _close(response: CompletionResponse) -> None:
    """The last line; of it, what ails the answer goes to scripts as well."""
    ailment = remark(response)
    if is_watched():
        show_dim(closing_line(response))
    elif ailment:
        show_note(ailment)


class Conversation:
    """Where a person is in a tree, and how it goes on.

    An error or Ctrl-C ends an answer only; the conversation goes on from before it.

    Attributes:
        node: What is said next follows this one.
        kept_in: The journal of the tree, if it has one.
    """

    def __init__(
        self,
        node: ChatNode,
        generator: GeneratorInfo,
        params: CompletionParameters,
        kept_in: Path | None = None,
    ) -> None:
        self.node = node
        self.kept_in = kept_in
        self._generator = generator
        self._params = params
        self._is_kept = True
        self._unanswered: tuple[ChatNode, Begin] | None = None  # what to ask again, and where

    def say(self, text: str) -> None:
        """Says something and prints the answer."""
        node = self.node
        self._take_turn(lambda: node.chat_streaming(text, self._generator, self._params))

    def ask_again(self) -> None:
        """Asks the last question again, be it one whose answer was stopped or failed.

        Else the new answer stands beside the old one.
        """
        if self._unanswered is not None and self._unanswered[0] == self.node:
            self._take_turn(self._unanswered[1])
            return
        question = next((one for one in self.node.path()[::-1] if one.role is Role.USER), None)
        if question is None:
            raise InvalidParameterError("nothing was asked yet")
        self._take_turn(lambda: question.complete_streaming(self._generator, self._params))

    def _take_turn(self, begin: Begin) -> None:
        self._keep_again()
        self._unanswered = (self.node, begin)
        try:
            self.node = answer(begin())
            self._unanswered = None
        except KeyboardInterrupt:
            show_dim("(stopped)")
        except StorageError as error:  # the answer is in the tree all the same
            self.node = self.node.root_node.in_insertion_order()[-1]
            self._unanswered = None
            self._is_kept = False
            show_error(str(error))
        except MiniLLMError as error:
            show_error(str(error))

    def _keep_again(self) -> None:
        """Tries the journal anew that the disk refused, with all that it lacks."""
        if self._is_kept or self.kept_in is None:
            return
        try:
            self.node.root_node.attach_journal(self.kept_in)
            self._is_kept = True
        except StorageError as error:
            show_error(str(error))
