"""Several answers to one prompt: by one request where the wire can, else by several at once."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeAlias, TypeVar

import msgspec

from minillmlib.client.completion import Completed, complete
from minillmlib.client.prepare import Call, model_key
from minillmlib.client.stream import StreamingCompletion
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    MiniLLMError,
    PartialFailureError,
)
from minillmlib.types.responses import StreamChunk
from minillmlib.types.values import check_required_number

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event, Queue, Semaphore, Task

    from minillmlib.tree.node import ChatNode

NodeT = TypeVar("NodeT", bound="ChatNode")

MAX_WAITING_CHUNKS = 64  # read, not yet taken by the caller


class _Failure(msgspec.Struct, frozen=True):
    """The error in place of an answer."""

    error: MiniLLMError


_Arrived: TypeAlias = "Queue[tuple[int, StreamChunk] | Task[NodeT | _Failure]]"


async def complete_many(n: int, call: Call, on_answer: Callable[[Completed], NodeT]) -> list[NodeT]:
    """Return the nodes of `n` answers to `call`, which `on_answer` adds to the tree.

    Raises `PartialFailureError` if some of them failed, and the first error if all did.
    """
    check_required_number("n", n, minimum=1, is_whole=True)
    outcomes: list[NodeT | _Failure] = []
    if 1 < n <= _max_choices(call):
        outcomes = [_add(on_answer, answer) for answer in await _complete_choices(call, n)]
    rest = n - len(outcomes)  # a server may give fewer than it was asked for
    if rest > 0:
        outcomes += await _complete_each(rest, call, on_answer)
    return _check(outcomes)[:n]


def _add(on_answer: Callable[[Completed], NodeT], answer: Completed) -> NodeT | _Failure:
    """Add an answer that is paid, whatever becomes of the others."""
    try:
        return on_answer(answer)
    except MiniLLMError as error:
        return _Failure(error)


def _max_choices(call: Call) -> int:
    """Return how many answers one request may ask for, if each is taken as it comes."""
    if call.needs_validation or call.settings.force_prepend:
        return 1
    return call.generator.provider.capabilities.max_choices(call.generator.model)


async def _complete_choices(call: Call, n: int) -> list[Completed]:
    """Return the answers to one request for all of them."""
    completed = await complete(msgspec.structs.replace(call, choices=n))
    whole = completed.response
    if whole.origin != model_key(call.generator):
        return [completed]  # a fallback was asked for one answer
    capabilities = call.generator.provider.capabilities
    choices = capabilities.split_choices(whole.raw_response)
    if len(choices) < 2:
        return [completed]
    shares = zip(*(attempt.shares(len(choices)) for attempt in whole.attempts), strict=True)
    return [
        Completed(
            msgspec.structs.replace(
                call.generator.provider.parse_response(choice),
                usage=whole.usage,
                cost=attempts[-1].cost or whole.cost,
                origin=whole.origin,
                request_id=whole.request_id,
                request_report=whole.request_report,
                attempts=attempts,
            ),
            prefix=completed.prefix,
        )
        for choice, attempts in zip(choices, shares, strict=True)
    ]


async def _complete_each(
    n: int, call: Call, on_answer: Callable[[Completed], NodeT]
) -> list[NodeT | _Failure]:
    """Return the outcomes of `n` requests, made at once or, to use a cache, after the first."""
    asyncio = asyncio_module()
    has_begun = asyncio.Event()  # the prompt is in the cache once the answer begins

    async def lead() -> NodeT:
        try:
            stream = StreamingCompletion(msgspec.structs.replace(call, stream=True), on_answer)
            async with stream:
                return await stream.read_as_whole(has_begun.set)
        finally:
            has_begun.set()

    async def follow() -> NodeT:
        await has_begun.wait()
        return on_answer(await complete(call))

    jobs = [follow] * n
    if n > 1 and _asks_for_cache(call):
        jobs[0] = lead
    else:
        has_begun.set()
    tasks = [asyncio.create_task(_outcome_of(job)) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _cancel(tasks)


async def _outcome_of(job: Callable[[], Awaitable[NodeT]]) -> NodeT | _Failure:
    try:
        return await job()
    except MiniLLMError as error:
        return _Failure(error)


async def _cancel(tasks: Sequence[Task[object]]) -> None:
    """Cancel the tasks that have not ended, and wait until they have let go."""
    left = [task for task in tasks if not task.done()]
    _cancel_soon(left)
    if left:
        await asyncio_module().wait(left)


def _asks_for_cache(call: Call) -> bool:
    """Whether the call writes a prompt to a cache, so that it pays to let one request go ahead."""
    return call.settings.use_cache or any(message.cache_ttl for message in call.messages)


def _check(outcomes: Sequence[NodeT | _Failure]) -> list[NodeT]:
    """Return the nodes, or raise what the failures say."""
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, _Failure)]
    nodes = [outcome for outcome in outcomes if not isinstance(outcome, _Failure)]
    if not errors:
        return nodes
    if not nodes:
        errors[0].attempts = tuple(attempt for error in errors for attempt in error.attempts)
        raise errors[0]
    raise PartialFailureError(
        f"{len(errors)} of {len(outcomes)} answers failed; the others are in the tree, and in "
        f"nodes of this error; the first failure: {errors[0]}",
        errors=errors,
        nodes=nodes,
    ) from errors[0]


class SiblingStreams(Generic[NodeT]):
    """The chunks of several answers as they come, by `async for`: `(index, chunk)`.

    Use it with `async with`, which ends all requests when left early. After the last chunk,
    `nodes` are those of the answers. Each is a request of its own. As a stream, it belongs to one
    task of one event loop at a time, and after its reader was cancelled it cannot be read on. Made
    by `ChatNode.complete_many_streaming` and `chat_many_streaming`, never directly.
    """

    def __init__(self, n: int, call: Call, on_answer: Callable[[Completed], NodeT]) -> None:
        check_required_number("n", n, minimum=1, is_whole=True)
        asyncio = asyncio_module()
        self._streams = [StreamingCompletion(call, on_answer) for _ in range(n)]
        self._asks_for_cache = n > 1 and _asks_for_cache(call)
        self._arrived: _Arrived[NodeT] = asyncio.Queue()
        self._room = asyncio.Semaphore(MAX_WAITING_CHUNKS)
        self._tasks: list[Task[NodeT | _Failure]] = []  # from the first step on
        self._running = n
        self._loop: AbstractEventLoop | None = None
        self._is_busy = self._is_over = False
        self._why_broken: str | None = None  # why it ended before its end, unless it was closed
        self._outcomes: list[NodeT | _Failure] | None = None

    @property
    def nodes(self) -> list[NodeT]:
        """The nodes of the answers, in the order of their index, once all were read.

        Raises `PartialFailureError` if some failed, and the first error if all did.
        """
        if self._outcomes is None:
            raise InvalidParameterError(
                "the streams have not been read to their ends; read every chunk, or call collect()"
            )
        return _check(self._outcomes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the requests that are under way. Answers that were read stay in the tree."""
        self._is_over = True
        await _cancel(self._tasks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, StreamChunk]:
        loop = asyncio_module().get_running_loop()
        if self._is_busy or self._loop not in (None, loop):
            raise InvalidParameterError("a stream is read by one task of one event loop at a time")
        if self._loop is None and not self._is_over:
            self._loop = loop
            self._start()
        self._is_busy = True
        try:
            while not self._is_over:
                item = await self._arrived.get()
                if isinstance(item, tuple):
                    self._room.release()
                    return item
                self._end(item)
        except BaseException as error:
            self._why_broken = f"its reader was interrupted ({type(error).__name__})"
            await self.aclose()
            raise
        finally:
            self._is_busy = False
        if self._why_broken is not None:
            raise IncompleteStreamError(f"the streams cannot be read on: {self._why_broken}")
        if self._outcomes is not None:
            _check(self._outcomes)
        raise StopAsyncIteration

    async def collect(self) -> list[NodeT]:
        """Read all answers to their ends; return their nodes."""
        async for _ in self:
            pass
        return self.nodes

    def _start(self) -> None:
        asyncio = asyncio_module()
        has_begun = asyncio.Event()
        if not self._asks_for_cache:
            has_begun.set()
        for index, stream in enumerate(self._streams):
            read = partial(_read, index, stream, self._arrived, self._room, has_begun)
            task = asyncio.create_task(_outcome_of(read))
            task.add_done_callback(self._arrived.put_nowait)
            self._tasks.append(task)

    def _end(self, task: Task[NodeT | _Failure]) -> None:
        """Note the end of an answer, which comes after its chunks."""
        if self._is_over:  # closed while a step waited
            return
        task.result()
        self._running -= 1
        if not self._running:
            self._outcomes = [task.result() for task in self._tasks]
            self._is_over = True

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError("streams cannot be pickled or copied; their nodes can be saved")

    def __del__(self) -> None:
        running = [task for task in getattr(self, "_tasks", ()) if not task.done()]
        if running and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_cancel_soon, running)
            warnings.warn(
                "streams were dropped before their end; use `async with` to leave early",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


async def _read(
    index: int,
    stream: StreamingCompletion[NodeT],
    arrived: _Arrived[NodeT],
    room: Semaphore,
    has_begun: Event,
) -> NodeT:
    """Read one of several streams. Holds nothing of those who take the chunks."""
    if index:
        await has_begun.wait()
    try:
        async with stream:
            async for chunk in stream:
                has_begun.set()
                await room.acquire()
                arrived.put_nowait((index, chunk))
        return stream.node
    finally:
        has_begun.set()


def _cancel_soon(tasks: Sequence[Task[object]]) -> None:
    for task in tasks:
        task.cancel()
