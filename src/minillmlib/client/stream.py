"""One streamed completion: chunks as they come, and at the end the same response as a whole."""

from __future__ import annotations

import enum
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from minillmlib.client.attempt import StreamAttempt
from minillmlib.client.completion import Run
from minillmlib.client.prepare import Call
from minillmlib.errors import InvalidParameterError, MiniLLMError, RejectedResponseError
from minillmlib.event_loop import running_loop
from minillmlib.json_value import JsonValue
from minillmlib.streaming.partial_json import PartialJsonStream
from minillmlib.types.attempts import Attempt, CostInfo
from minillmlib.types.responses import CompletionResponse, StreamChunk

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["StreamingCompletion"]

NodeT_co = TypeVar("NodeT_co", covariant=True)


class _Phase(enum.Enum):
    """Where a stream stands. It moves down this list, but for a new attempt, which is READING."""

    NEW = enum.auto()
    READING = enum.auto()
    OVER = enum.auto()


class StreamingCompletion(Generic[NodeT_co]):
    """The chunks of an answer as they come, by `async for`.

    Best used with `async with`, which ends the connection when left early; a stream that is
    dropped in the middle ends its connection too, with a `ResourceWarning`. Once the loop has
    come to its end, `node` is the new assistant node and `response` the whole answer. A stream
    that is left early or fails adds nothing to the tree.

    What fails before the first chunk was taken is tried again as the settings allow; after that
    nothing is. It belongs to one task and one event loop at a time: `InvalidParameterError` for
    others.
    """

    def __init__(
        self, call: Call, keep: Callable[[CompletionResponse, JsonValue], NodeT_co]
    ) -> None:
        self._call = call
        self._keep = keep
        self._phase = _Phase.NEW
        self._is_busy = False
        self._ready: deque[StreamChunk] = deque()  # read, not yet taken by the caller
        self._delivered = 0
        self._loop: AbstractEventLoop | None = None  # in which it is read
        self._run: Run | None = None
        self._attempt: StreamAttempt | None = None
        self._result: tuple[CompletionResponse, NodeT_co] | None = None

    @property
    def response(self) -> CompletionResponse:
        """The whole answer, once the stream was read to its end."""
        return self._finished()[0]

    @property
    def node(self) -> NodeT_co:
        """The assistant's node, once the stream was read to its end."""
        return self._finished()[1]

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every request made so far that has ended, also when the stream failed or was left."""
        return () if self._run is None else self._run.attempts

    def _finished(self) -> tuple[CompletionResponse, NodeT_co]:
        if self._result is None:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._result

    async def __aenter__(self) -> Self:
        if self._phase is _Phase.NEW:
            await self._advance()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Exception):
            await self.aclose()
        else:  # cancelled, or Ctrl-C: nothing is waited for
            self._close()
            self._leave()

    async def aclose(self) -> None:
        """Ends the stream and its connection at once. May be called again."""
        self._close()
        if self._run is not None:
            await self._run.end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        if self._ready:
            self._check_reader()
        while not self._ready:
            if self._phase is _Phase.OVER:
                raise StopAsyncIteration
            await self._advance()
        self._delivered += 1
        return self._ready.popleft()

    def partial_json(self) -> PartialJsonStream:
        """The JSON of the answer as it grows, by `async for`: a value for each change.

        What is finished is never taken back: keys, elements and finished scalars stay, strings
        and containers only grow. Numbers and literals appear when they are finished. Three things
        take the place of what was there: a later value in the text, where it turns out to be
        the answer, the last value of a key given twice, and a key that looked like the last
        string of an array, since a bracket is missing. The last value of all is `repair`'s of
        the whole text, and the only one where that begins with a quote.

        No value changes any more once you have it, but they share their finished parts: copy
        what you want to change. Each costs O(length of its open string and containers).

        It reads the stream, in the place of `async for chunk in stream` and from its beginning,
        keeps the node and raises what that raises. An answer without JSON ends with no value.

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
            if self._result is None:
                raise  # it was closed
            return None

    async def _advance(self) -> None:
        """Opens, reads or ends; what goes wrong is tried again or ends the stream."""
        self._check_reader()
        self._is_busy = True
        failure = None
        try:
            try:
                # No local names for what an attempt holds: an error keeps this frame.
                if self._attempt is None:
                    await self._open()
                elif self._attempt.answer is None:
                    await self._attempt.read_more()
                else:
                    await self._finish()
            except MiniLLMError as error:
                failure = error  # handled below, so that it is the context of no other
            if failure is not None:
                await self._recover(failure)
        except MiniLLMError:
            await self.aclose()
            raise
        except BaseException as error:  # noqa: BLE001 - goes on as it is
            self._close()
            self._leave()
            # The frames of the exchange hold what was sent and what came.
            raise error.with_traceback(None) from None
        finally:
            self._is_busy = False
            del failure  # this frame would hold it, and it this frame

    async def _open(self) -> None:
        self._phase = _Phase.READING
        if self._run is None:
            self._run = Run(self._call)
            self._loop = running_loop()
        self._run.clocks.progressed()
        self._attempt = StreamAttempt(self._run, self._ready)
        await self._attempt.open()

    async def _recover(self, error: MiniLLMError) -> None:
        """Returns when the next attempt may begin, or at once when the stream was left."""
        if self._phase is _Phase.OVER:
            return  # closed by aclose while a step waited
        run, attempt = self._run, self._attempt
        if run is None or attempt is None:
            raise error
        if not isinstance(error, RejectedResponseError):  # which holds the whole text
            error.partial = attempt.partial + error.partial
        attempt.close()
        run.failed(error)
        self._attempt = attempt = None  # an error shall not keep alive what was sent and what came
        if self._delivered:
            run.give_up(error)
        await run.recover(error)

    async def _finish(self) -> None:
        """The caller has taken the last chunk: only now the answer is kept."""
        attempt, run = self._attempt, self._run
        assert attempt is not None
        assert run is not None
        await attempt.linger()
        await run.end()
        if self._phase is _Phase.OVER or attempt.answer is None:
            return
        self._result = (attempt.answer[0], self._keep(*attempt.answer))
        self._phase = _Phase.OVER

    def _check_reader(self) -> None:
        if self._is_busy or self._loop not in (None, running_loop()):
            raise InvalidParameterError("a stream is read by one task of one event loop at a time")

    async def _settled(self) -> CostInfo:
        return CostInfo.of(()) if self._run is None else await self._run.settled()

    def _close(self) -> None:
        self._phase = _Phase.OVER
        self._ready.clear()
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None

    def _leave(self) -> None:
        if self._run is not None:
            self._run.leave()

    def __del__(self) -> None:
        run: Run | None = getattr(self, "_run", None)
        if run is None or self._phase is _Phase.OVER:
            return
        if self._attempt is not None:
            self._attempt.close_from_anywhere()
        run.leave_from_anywhere()
        warnings.warn(
            "a completion stream was dropped before its end; use `async with` to leave early",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def __repr__(self) -> str:
        model = self._call.generator.model
        return f"<StreamingCompletion of {model}: {self._phase.name.lower()}>"
