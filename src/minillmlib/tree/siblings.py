"""Several answers to one prompt: by one request where the wire can, else by several at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import msgspec

from minillmlib.client.completion import Completed, complete
from minillmlib.client.prepare import Call
from minillmlib.client.stream import StreamingCompletion
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import InvalidParameterError, MiniLLMError, PartialFailureError
from minillmlib.types.responses import StreamChunk
from minillmlib.types.values import check_number

if TYPE_CHECKING:
    from asyncio import Queue, Task

    from minillmlib.tree.node import ChatNode

NodeT = TypeVar("NodeT", bound="ChatNode")

MAX_WAITING_CHUNKS = 64  # read, not yet taken by the caller


class _Failure(msgspec.Struct, frozen=True):
    """The error in place of an answer."""

    error: MiniLLMError


async def complete_many(n: int, call: Call, on_answer: Callable[[Completed], NodeT]) -> list[NodeT]:
    """Return the nodes of `n` answers to `call`, which `on_answer` adds to the tree.

    Raises `PartialFailureError` if some of them failed, and the first error if all did.
    """
    _check_count(n)
    nodes: list[NodeT] = []
    if 1 < n <= _max_choices(call):
        nodes = [on_answer(answer) for answer in await _complete_choices(call, n)]
    rest = n - len(nodes)  # a server may give fewer than it was asked for
    outcomes = await _complete_each(rest, call, on_answer) if rest > 0 else []
    return _check([*nodes, *outcomes])[:n]


def _check_count(n: object) -> None:
    if n is None:
        raise InvalidParameterError("n must be the number of answers, not None")
    check_number("n", n, minimum=1, is_whole=True)


def _max_choices(call: Call) -> int:
    """Return how many answers one request may ask for, if each is taken as it comes."""
    if call.needs_validation or call.settings.force_prepend:
        return 1
    return call.generator.provider.capabilities.max_choices(call.generator.model)


async def _complete_choices(call: Call, n: int) -> list[Completed]:
    """Return the answers to one request for all of them."""
    completed = await complete(msgspec.structs.replace(call, choices=n))
    whole = completed.response
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
                async for _ in stream:
                    has_begun.set()
            return stream.node
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
    tasks = [asyncio.ensure_future(_outcome_of(job())) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _cancel(tasks)


async def _outcome_of(answer: Awaitable[NodeT]) -> NodeT | _Failure:
    try:
        return await answer
    except MiniLLMError as error:
        return _Failure(error)


async def _cancel(tasks: Sequence[Task[object]]) -> None:
    """Cancel the tasks that have not ended, and wait until they have let go."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
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
    `nodes` are those of the answers. Each is a request of its own. Made by
    `ChatNode.complete_many_streaming` and `chat_many_streaming`, never directly.
    """

    def __init__(self, n: int, call: Call, on_answer: Callable[[Completed], NodeT]) -> None:
        _check_count(n)
        self._streams = [StreamingCompletion(call, on_answer) for _ in range(n)]
        self._asks_for_cache = n > 1 and _asks_for_cache(call)
        self._outcomes: list[NodeT | _Failure] | None = None
        self._chunks = self._play()

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
        await self._chunks.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, StreamChunk]:
        return await self._chunks.__anext__()

    async def collect(self) -> list[NodeT]:
        """Read all answers to their ends; return their nodes."""
        async for _ in self:
            pass
        return self.nodes

    async def _play(self) -> AsyncGenerator[tuple[int, StreamChunk]]:
        asyncio = asyncio_module()
        queue: Queue[tuple[int, StreamChunk] | None] = asyncio.Queue(MAX_WAITING_CHUNKS)
        has_begun = asyncio.Event()

        async def read(index: int) -> NodeT:
            if index and self._asks_for_cache:
                await has_begun.wait()
            try:
                async with self._streams[index] as stream:
                    async for chunk in stream:
                        has_begun.set()
                        await queue.put((index, chunk))
                return stream.node
            finally:
                has_begun.set()

        async def read_all() -> list[NodeT | _Failure]:
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                await queue.put(None)

        tasks = [
            asyncio.ensure_future(_outcome_of(read(index))) for index in range(len(self._streams))
        ]
        ending = asyncio.ensure_future(read_all())
        try:
            while (item := await queue.get()) is not None:
                yield item
            self._outcomes = await ending
        finally:
            await _cancel([*tasks, ending])
        _check(self._outcomes)
