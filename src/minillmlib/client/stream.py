"""The public stream: chunks as they come, and at the end the same response as a whole."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, NoReturn, Self, TypeVar

from minillmlib.client.completion import Completed, Completion, hide_frames
from minillmlib.client.prepare import Call
from minillmlib.client.stream_reader import StreamReader
from minillmlib.deferred_imports import asyncio_module, no_loop_error
from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    MiniLLMError,
    RejectedResponseError,
)
from minillmlib.streaming.accumulator import chunk_of
from minillmlib.streaming.partial_json import PartialJsonStream
from minillmlib.types.costs import Attempt, CostInfo
from minillmlib.types.responses import CompletionResponse, StreamChunk

NodeT_co = TypeVar("NodeT_co", covariant=True)


class StreamingCompletion(Generic[NodeT_co]):
    """The chunks of an answer as they come, by `async for`.

    Use it with `async with`, which ends the connection when left early; a stream dropped in the
    middle ends it too, with a `ResourceWarning`. After the last chunk, `node` is the new assistant
    node and `response` the whole answer. A stream left early or failed adds nothing to the tree.

    A failure before the first chunk was taken is retried as the settings allow, and then a fallback
    is asked; after that nothing is. A stream belongs to one task and one event loop at a time:
    `InvalidParameterError` for others. After a failure, or when its reader was cancelled, it
    cannot be read on: `IncompleteStreamError`, so that a part never passes for the whole.

    Examples:
        >>> async def read():
        ...     generator = GeneratorInfo.openai("gpt-4o-mini")
        ...     async with ChatNode.root().chat_streaming("Hello", generator) as stream:
        ...         async for chunk in stream:
        ...             print(chunk.delta, end="")
        ...     return stream.response.finish_reason
        >>> run(read())
        Paris.<FinishReason.STOP: 'stop'>
    """

    def __init__(self, call: Call, on_answer: Callable[[Completed], NodeT_co]) -> None:
        self._call = call
        self._on_answer = on_answer
        self._is_busy = self._is_over = False
        self._chunks: deque[StreamChunk] = deque()  # read, not yet taken by the caller
        self._delivered = 0
        self._completion: Completion | None = None  # from the first step on
        self._reader: StreamReader | None = None
        self._held_back: MiniLLMError | None = None  # until the chunks before it were taken
        self._completed: Completed | None = None
        self._node: NodeT_co | None = None
        self._why_broken: str | None = None  # why it ended before its end, unless it was closed
        self._partial = ""  # the text that had arrived by then

    @property
    def response(self) -> CompletionResponse:
        """The whole answer, once the stream was read to its end."""
        if self._node is None or self._completed is None:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._completed.response

    @property
    def node(self) -> NodeT_co:
        """The assistant's node, once the stream was read to its end."""
        if self._node is None:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._node

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every request made so far that has ended, also when the stream failed or was left."""
        return () if self._completion is None else self._completion.attempts

    async def __aenter__(self) -> Self:
        try:
            if self._completion is None and not self._is_over:
                await self._advance()
            return self  # noqa: TRY300 - interrupts are caught here, too
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C: there will be no `__aexit__`
                self._interrupt()
            raise

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Exception):
            await self.aclose()
        else:  # cancelled, or Ctrl-C: wait for nothing
            self._interrupt()

    async def aclose(self) -> None:
        """End the stream and its connection at once. May be called again."""
        self._close()
        if self._completion is not None and (report := self._completion.close()).ends:
            await report

    async def cancel(self) -> CostInfo:
        """End the stream and its connection; wait until its cost is known and reported.

        Where the provider publishes the cost of a broken stream later, at most half a minute;
        and for a callback that is a coroutine function at most 10 s.
        """
        self._close()
        completion = self._completion
        return CostInfo.of(()) if completion is None else await completion.settled_cost()

    async def collect(self) -> NodeT_co:
        """Read the stream to its end; return the assistant's node."""
        async for _ in self:
            pass
        return self.node

    async def read_as_whole(self, on_chunks: Callable[[], object]) -> NodeT_co:
        """Read to the end a stream of which nobody takes a chunk, so that it may be retried.

        `on_chunks` is called when some have come.
        """
        while not self._is_over:
            await self._advance()
            if self._chunks:
                on_chunks()
                self._chunks.clear()
        return self.node

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        if self._chunks:
            self._check_reader()
        while not self._chunks:
            if self._is_over:
                self._check_whole()
                raise StopAsyncIteration
            await self._advance()
        self._delivered += 1
        return self._chunks.popleft()

    def text(self) -> AsyncIterator[str]:
        """Yield the text of the answer as it grows, piece by piece, and no empty piece.

        Reads the stream, so read it in no other way beside this one.
        """
        return _TextPieces(self)

    def partial_json(self) -> PartialJsonStream:
        """Return the JSON of the answer as it grows, by `async for`: a value for each change.

        Keys, elements and finished scalars stay, strings and containers only grow; numbers and
        literals appear when finished. Three things replace what was there: a later value in the
        text that turns out to be the answer, the last value of a key given twice, and a key that
        looked like the last string of an array, since a bracket is missing. The last value is
        `repair`'s of the whole text, and the only one if the text begins with a quote.

        A value never changes, but values share their finished parts: copy before you change one.
        Each costs O(length of its open string and containers).

        Read it in place of the stream and from its beginning; it adds the node and raises the
        errors of the stream. An answer without JSON yields no value.

        Raises:
            JsonRepairError: The value is nested too deeply; the stream may be read on.
            InvalidParameterError: Chunks of the stream were read otherwise.
        """
        return PartialJsonStream(self._next_text, self.aclose)

    async def _next_text(self, number: int) -> str | None:
        if number != self._delivered:
            raise InvalidParameterError(
                "partial_json() needs every chunk of the stream; some were read in another way"
            )
        try:
            return (await self.__anext__()).delta
        except StopAsyncIteration:
            if self._node is None:
                raise  # it was closed
            return None

    async def _advance(self) -> None:
        """Open, read or finish; a failure is retried or ends the stream."""
        self._check_reader()
        completion = self._completion = self._completion or Completion(self._call)
        self._is_busy = True
        try:
            try:
                if self._reader is None:  # not a local: this frame stays in the error's traceback
                    await self._open(completion)
                elif self._completed is None:
                    await self._read(completion, self._reader)
                else:
                    await self._finish(completion, self._reader)
            except MiniLLMError as error:
                await self._recover(completion, error)
        except MiniLLMError as error:
            self._why_broken = f"it failed ({type(error).__name__}: {error})"
            self._partial = error.partial
            await self.aclose()
            raise
        except BaseException as error:
            self._interrupt()
            hide_frames(error)
            raise
        finally:
            self._is_busy = False

    async def _open(self, completion: Completion) -> None:
        completion.timeouts.record_progress()
        attempt = await completion.start_attempt()
        self._reader = StreamReader(attempt, completion.timeouts, self._chunks)
        body = await self._reader.open()
        if body is not None and completion.pending is attempt:
            self._accept_whole(completion, body)

    def _accept_whole(self, completion: Completion, body: bytes) -> None:
        """Take the body of an answer that is no stream as the only chunk."""
        self._completed = completion.finish(body)
        self._chunks.append(chunk_of(self._completed.response))

    async def _read(self, completion: Completion, reader: StreamReader) -> None:
        """Read the next events. An error is held back until the chunks before it are delivered."""
        if self._held_back is not None:
            raise self._held_back
        try:
            response = await reader.read()
            if response is not None and completion.pending is not None:
                if isinstance(response, bytes):
                    self._accept_whole(completion, response)
                else:
                    self._completed = completion.accept(response)
        except MiniLLMError as error:
            if not self._chunks:
                raise
            # Drop the traceback: its frames reference this stream, which ends when it is dropped.
            self._held_back = error.with_traceback(None)
        if self._chunks:
            completion.timeouts.record_progress()

    async def _recover(self, completion: Completion, error: MiniLLMError) -> None:
        """Return when the next attempt may begin, or at once when the stream was closed."""
        if self._is_over:
            return  # closed by aclose while a step waited
        if self._reader is not None:
            if not isinstance(error, RejectedResponseError):  # which holds the whole text
                error.partial = self._reader.partial + error.partial
            self._reader.close()
        self._reader = self._held_back = None
        if self._delivered:
            completion.give_up(error)
        await completion.retry_or_raise(error)

    async def _finish(self, completion: Completion, reader: StreamReader) -> None:
        """Add the answer to the tree: only now has the caller taken the last chunk."""
        await reader.drain()
        if (report := completion.close()).ends:
            await report
        if not self._is_over and self._completed is not None:
            self._node = self._on_answer(self._completed)
            self._is_over = True

    def _check_reader(self) -> None:
        try:
            loop, completion = asyncio_module().get_running_loop(), self._completion
        except RuntimeError as error:
            raise no_loop_error(error) from None
        if self._is_busy or (completion is not None and completion.loop is not loop):
            raise InvalidParameterError("a stream is read by one task of one event loop at a time")

    def _close(self) -> None:
        self._is_over = True
        self._chunks.clear()
        if self._reader is not None:
            if self._why_broken is not None:
                self._partial = self._reader.redacted_partial()
            self._reader.close()
            self._reader = None

    def _interrupt(self) -> None:
        """Abandon the stream, whose reader was cancelled or interrupted."""
        if not self._is_over:
            self._why_broken = (
                "its reader was cancelled or interrupted. To wait for a chunk only so long, set "
                "timeout_secs or progress_timeout_secs, or keep the task of "
                "`anext(stream)` and give it to asyncio.wait(..., timeout=...)"
            )
        self._close()
        if self._completion is not None:
            self._completion.abandon()

    def _check_whole(self) -> None:
        """Raise if the stream is over because of a failure or an interruption."""
        if self._why_broken is None:
            return
        error = IncompleteStreamError(
            f"the stream cannot be read on, and what was read is not the whole: {self._why_broken}",
            partial=self._partial,
        )
        error.attempts = self.attempts
        raise error

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a stream cannot be pickled or copied: it belongs to one event loop; read it to its "
            "end and send its response, which can be"
        )

    def __del__(self) -> None:
        completion: Completion | None = getattr(self, "_completion", None)
        if completion is None or self._is_over:
            return
        if self._reader is not None:
            self._reader.close_threadsafe()
        completion.abandon_threadsafe()
        warnings.warn(
            "a completion stream was dropped before its end; use `async with` to leave early",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def __repr__(self) -> str:
        state = "over" if self._is_over else "reading" if self._completion else "new"
        return f"<StreamingCompletion of {self._call.generator.model}: {state}>"


class _TextPieces:
    """The pieces of `StreamingCompletion.text`. A generator would end when it is cancelled."""

    def __init__(self, stream: StreamingCompletion[object]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not (delta := (await self._stream.__anext__()).delta):
            pass
        return delta


TrackedStream = StreamingCompletion  # the name of the guide: every stream settles its cost
