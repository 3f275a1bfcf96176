"""Costs that are always reported: a context for many completions, and streams that settle."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Self, TypeAlias, TypeGuard, TypeVar

from minillmlib.client.cost_reporting import all_reported, log_failure
from minillmlib.client.stream import StreamingCompletion
from minillmlib.errors import CostCallbackError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.types.attempts import CostInfo
from minillmlib.types.parameters import NodeCompletionParameters, ParametersLike, node_parameters

__all__ = ["CompletionContext", "CompletionMeta", "ContextCallback", "TrackedStream"]

CompletionMeta: TypeAlias = JsonValue
ContextCallback: TypeAlias = Callable[[CostInfo, CompletionMeta], Awaitable[None] | None]
NodeT_co = TypeVar("NodeT_co", covariant=True)


class CompletionContext:
    """A generator whose every completion is reported, whatever becomes of it.

    `callback` is called once for each completion of `complete_tracked` and its kin, with its
    `CostInfo` and with `meta`, which the library does not look at. Where the provider tells a
    cost only later (OpenRouter, of a stream that was left), the report waits for it, at most
    half a minute. What the callback raises loses neither record nor answer: it is logged, and
    `aclose`, or leaving `async with`, raises it as a `CostCallbackError`.

    Args:
        generator: The model.
        meta: Anything that tells the caller what the completions were for.
        callback: A plain function or a coroutine function.
        app_url: The program's address, for OpenRouter's statistics.
        app_title: The program's name, likewise.
    """

    def __init__(
        self,
        generator: GeneratorInfo,
        meta: CompletionMeta,
        callback: ContextCallback,
        app_url: str | None = None,
        app_title: str | None = None,
    ) -> None:
        if not isinstance(generator, GeneratorInfo):
            raise InvalidParameterError(
                f"a CompletionContext needs a GeneratorInfo, not {type(generator).__name__}"
            )
        if not callable(callback):
            raise InvalidParameterError("the callback of a CompletionContext must be a function")
        named = {"app_url": app_url, "app_title": app_title}
        self.generator = generator.replace(
            **{name: value for name, value in named.items() if value is not None}
        )
        self.meta = meta
        self._callback = callback
        self._failure: BaseException | None = None

    def parameters(self, params: ParametersLike = None) -> NodeCompletionParameters:
        """The settings of one completion with this context's callback, before their own."""
        settings = node_parameters(params)
        own = settings.cost_callback

        def tell(info: CostInfo) -> Awaitable[None] | None:
            answers = [self._called(lambda: self._callback(info, self.meta))]
            if own is not None and settings.cost_tracking:
                answers.append(self._called(lambda: own(info)))
            waiting = [answer for answer in answers if inspect.isawaitable(answer)]
            return _Answers(waiting, self._awaited) if waiting else None

        return settings.replace(cost_callback=tell, cost_tracking=True)

    def _called(self, call: Callable[[], Awaitable[None] | None]) -> Awaitable[None] | None:
        import asyncio  # noqa: PLC0415 - see `transport.watchdog`

        try:
            return call()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller's code
            self._note(error)
            return None

    async def _awaited(self, answer: Awaitable[None]) -> None:
        import asyncio  # noqa: PLC0415 - see `transport.watchdog`

        try:
            await answer
        except asyncio.CancelledError as error:  # it took too long
            self._failure = self._failure or error
            raise
        except Exception as error:  # noqa: BLE001 - the caller's own code
            self._note(error)

    def _note(self, error: BaseException) -> None:
        log_failure(error)
        self._failure = self._failure or error

    async def aclose(self) -> None:
        """Waits for the reports that are under way; raises what a callback has raised."""
        await all_reported()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise CostCallbackError(
                f"the callback of a CompletionContext failed ({type(failure).__name__}); "
                "the answers and their records are whole"
            ) from failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.aclose()

    def __repr__(self) -> str:
        return f"CompletionContext({self.generator!r})"


class _Answers:
    """Some coroutines of callbacks as one, which closes all of them if it is never awaited."""

    def __init__(
        self,
        answers: list[Awaitable[None]],
        awaited: Callable[[Awaitable[None]], Coroutine[object, object, None]],
    ) -> None:
        self._answers = answers
        self._awaited = awaited

    def __await__(self) -> Generator[object, None, None]:
        return self._all().__await__()

    async def _all(self) -> None:
        import asyncio  # noqa: PLC0415 - see `transport.watchdog`

        first, *others = self._answers
        tasks = [asyncio.ensure_future(self._awaited(answer)) for answer in others]
        try:
            await self._awaited(first)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            for answer in filter(_is_unbegun, others):  # the loop ends before their first step
                await self._awaited(answer)

    def close(self) -> None:
        for answer in filter(_is_unbegun, self._answers):
            answer.close()


def _is_unbegun(answer: object) -> TypeGuard[Coroutine[object, object, None]]:
    return inspect.iscoroutine(answer) and inspect.getcoroutinestate(answer) == "CORO_CREATED"


class TrackedStream(StreamingCompletion[NodeT_co]):
    """A stream whose cost is settled and reported when it ends, in any way."""

    async def cancel(self) -> CostInfo:
        """Ends the stream and its connection, and waits until its cost is known and reported.

        Where the provider tells the cost of a broken stream later, at most half a minute; and
        for a callback that is a coroutine function at most 10 s.
        """
        self._close()
        return await self._settled()

    async def collect(self) -> NodeT_co:
        """Reads the stream to its end; returns the assistant's node."""
        async for _ in self:
            pass
        return self.node
