"""Answers as they come, and a conversation of them."""

from __future__ import annotations

from minillmlib import ChatNode, CompletionParameters, GeneratorInfo, MiniLLMError, iterate
from minillmlib.cli.terminal import AnswerPrinter, prompted_lines, show_dim, show_error
from minillmlib.cli.wording import closing_line

__all__ = ["answer", "converse"]


def answer(
    node: ChatNode, said: str, generator: GeneratorInfo, params: CompletionParameters
) -> ChatNode:
    """Says something, prints the answer as it comes, and returns the answer's node.

    What had arrived before an error or Ctrl-C stays printed, on a line that is ended. Both go
    on to the caller, and the tree is then as before.
    """
    stream = node.chat_streaming(said, generator, params)
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
    show_dim(closing_line(stream.response))
    return stream.node


def converse(
    node: ChatNode, first: str | None, generator: GeneratorInfo, params: CompletionParameters
) -> None:
    """Answers `first`, if any, and then line by line until the end of the input.

    An error or Ctrl-C ends an answer only; the conversation goes on from before it.
    """
    if first and first.strip():
        node = _turn(node, first, generator, params)
    for said in prompted_lines():
        node = _turn(node, said, generator, params)


def _turn(
    node: ChatNode, said: str, generator: GeneratorInfo, params: CompletionParameters
) -> ChatNode:
    try:
        return answer(node, said, generator, params)
    except KeyboardInterrupt:
        show_dim("(stopped)")
    except MiniLLMError as error:
        show_error(str(error))
    return node
