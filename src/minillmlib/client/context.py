"""A context whose every completion is reported."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Self, TypeAlias, TypeGuard

from minillmlib.client.cost_reporting import flush, log_failure
from minillmlib.errors import CostCallbackError, InvalidParameterError
from minillmlib.event_loop import asyncio_module
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.types.costs import CostInfo
from minillmlib.types.parameters import NodeCompletionParameters, ParametersLike, node_parameters

__all__ = ["CompletionContext", "CompletionMeta", "ContextCallback"]

CompletionMeta: TypeAlias = JsonValue
ContextCallback: TypeAlias = Callable[[CostInfo, CompletionMeta], Awaitable[None] | None]


class CompletionContext:
    """A generator whose every completion is reported, however it ends.

    `callback` is called once for each completion of `complete_tracked` and its kin, with its
    `CostInfo` and with `meta`, which the library does not read. Where the provider publishes a
    cost only later (OpenRouter, for a stream that was abandoned), the report waits for it, at
    most half a minute. What the callback raises loses neither record nor answer: it is logged,
    and `aclose`, or leaving `async with`, raises it as a `CostCallbackError`.

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
        app = {"app_url": app_url, "app_title": app_title}
        self.generator = generator.replace(
            **{name: value for name, value in app.items() if value is not None}
        )
        self.meta = meta
        self._callback = callback
        self._failure: BaseException | None = None

    def parameters(self, params: ParametersLike = None) -> NodeCompletionParameters:
        """Return the settings with this context's callback, called before their own."""
        settings = node_parameters(params)
        settings_callback = settings.cost_callback

        def call_both(info: CostInfo) -> Awaitable[None] | None:
            answers = [self._call(lambda: self._callback(info, self.meta))]
            if settings_callback is not None and settings.cost_tracking:
                answers.append(self._call(lambda: settings_callback(info)))
            awaitables = [answer for answer in answers if inspect.isawaitable(answer)]
            return _Together(awaitables, self._await) if awaitables else None

        return settings.replace(cost_callback=call_both, cost_tracking=True)

    def _call(self, call: Callable[[], Awaitable[None] | None]) -> Awaitable[None] | None:
        try:
            return call()
        except (Exception, asyncio_module().CancelledError) as error:  # noqa: BLE001 - the caller's code
            self._record_failure(error)
            return None

    async def _await(self, answer: Awaitable[None]) -> None:
        try:
            await answer
        except asyncio_module().CancelledError as error:  # it took too long
            self._failure = self._failure or error
            raise
        except Exception as error:  # noqa: BLE001 - the caller's own code
            self._record_failure(error)

    def _record_failure(self, error: BaseException) -> None:
        log_failure(error)
        self._failure = self._failure or error

    async def aclose(self) -> None:
        """Wait for the reports that are under way; raise what a callback has raised."""
        await flush()
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


class _Together:
    """Several callbacks' coroutines as one, which closes all of them if it is never awaited."""

    def __init__(
        self,
        answers: list[Awaitable[None]],
        await_one: Callable[[Awaitable[None]], Coroutine[object, object, None]],
    ) -> None:
        self._answers = answers
        self._await_one = await_one

    def __await__(self) -> Generator[object, None, None]:
        return self._await_all().__await__()

    async def _await_all(self) -> None:
        asyncio = asyncio_module()
        first, *others = self._answers
        tasks = [asyncio.ensure_future(self._await_one(answer)) for answer in others]
        try:
            await self._await_one(first)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            for answer in filter(_has_not_started, others):  # the loop ends before their first step
                await self._await_one(answer)

    def close(self) -> None:
        for answer in filter(_has_not_started, self._answers):
            answer.close()


def _has_not_started(answer: object) -> TypeGuard[Coroutine[object, object, None]]:
    return inspect.iscoroutine(answer) and inspect.getcoroutinestate(answer) == "CORO_CREATED"
