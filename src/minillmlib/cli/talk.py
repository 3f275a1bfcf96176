"""Answers as they come, and a conversation of them."""

from __future__ import annotations

from minillmlib import (
    ChatNode,
    CompletionParameters,
    CompletionResponse,
    GeneratorInfo,
    MiniLLMError,
    iterate,
)
from minillmlib.cli.terminal import (
    AnswerPrinter,
    is_watched,
    prompted_lines,
    show_dim,
    show_error,
    show_note,
)
from minillmlib.cli.wording import closing_line, remark

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
    _close(stream.response)
    return stream.node


def _close(response: CompletionResponse) -> None:
    """The last line; of it, what ails the answer goes to scripts as well."""
    ailment = remark(response)
    if is_watched():
        show_dim(closing_line(response))
    elif ailment:
        show_note(ailment)


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
