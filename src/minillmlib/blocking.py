"""The blocking door: the same library for code that is not asynchronous."""

from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Protocol, TypeVar

from minillmlib.client.stream import StreamingCompletion
from minillmlib.errors import InvalidParameterError
from minillmlib.streaming.partial_json import PartialJsonStream

__all__ = ["iterate", "run"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Readable(Protocol[T_co]):
    """A stream, or the values of its `partial_json()`."""

    def __anext__(self) -> Coroutine[object, object, T_co]: ...

    def aclose(self) -> Coroutine[object, object, None]: ...


def run(coroutine: Coroutine[object, object, T]) -> T:
    """Runs a coroutine to its end and returns its result; works in notebooks too.

    All calls share one background event loop, so connections are kept between them. Ctrl-C
    cancels the coroutine. Raises `InvalidParameterError` when called from that loop itself.
    """
    if not isinstance(coroutine, Coroutine):
        raise InvalidParameterError(
            f"run() takes a coroutine, as in run(node.chat(...)), not {type(coroutine).__name__}; "
            "a stream is read with iterate()"
        )
    return _in_background(lambda: coroutine)


def iterate(stream: Readable[T]) -> Generator[T, None, None]:
    """The chunks of a stream in a plain `for` loop; leaving the loop closes the connection.

    Also the values of `stream.partial_json()`.
    """
    if not isinstance(stream, StreamingCompletion | PartialJsonStream):
        raise InvalidParameterError(
            "iterate() takes a stream, as from node.chat_streaming(...), "
            f"not {type(stream).__name__}"
        )
    return _chunks(stream)


def _chunks(stream: Readable[T]) -> Generator[T, None, None]:
    is_ours = True
    try:
        while chunk := _in_background(lambda: _next_chunk(stream)):
            yield chunk[0]
    except InvalidParameterError:
        is_ours = False  # somebody else reads it
        raise
    finally:
        with suppress(InvalidParameterError):  # the program has ended, and its loop with it
            if is_ours:
                _in_background(stream.aclose)


async def _next_chunk(stream: Readable[T]) -> tuple[T] | None:
    try:
        return (await stream.__anext__(),)
    except StopAsyncIteration:
        return None


def _in_background(make: Callable[[], Coroutine[object, object, T]]) -> T:
    from minillmlib.event_loop_thread import run_in_background  # noqa: PLC0415 - brings asyncio along

    return run_in_background(make)
