"""A context whose every completion is reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias

from minillmlib.client.cost_reporting import Report, flush, report
from minillmlib.errors import CostCallbackError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.types.costs import CostInfo
from minillmlib.types.parameters import NodeCompletionParameters, ParametersLike, node_parameters

CompletionMeta: TypeAlias = JsonValue
ContextCallback: TypeAlias = Callable[[CostInfo, CompletionMeta], Awaitable[None] | None]


class CompletionContext:
    """A generator whose every completion is reported, however it ends.

    `callback` is called once for each completion of `complete_tracked` and the like, with its
    `CostInfo` and with `meta`. Where the provider publishes a cost only later (OpenRouter, for an
    abandoned stream), the report waits for it, at most half a minute. An error of the callback
    loses neither record nor answer: it is logged, and `aclose`, or leaving `async with`, raises
    it as a `CostCallbackError`.

    Args:
        generator: The model.
        meta: What the completions were for; the library does not read it.
        callback: A plain function or a coroutine function.
        app_url: The program's address, for OpenRouter's statistics.
        app_title: The program's name, likewise.

    Examples:
        >>> async def ask():
        ...     generator = GeneratorInfo.openai("gpt-4o-mini").with_token_price(TokenPrice(1, 5))
        ...     async with CompletionContext(generator, {"user": 7}, print) as context:
        ...         await ChatNode.root().chat_tracked("Hello", context)
        >>> run(ask())
        $0.000015 in 1 attempt {'user': 7}
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
        app = {name: value for name, value in named.items() if value is not None}
        fallbacks = tuple([each.replace(**app) for each in generator.fallbacks])
        self.generator: GeneratorInfo = generator.replace(**app, fallbacks=fallbacks)
        self.meta = meta
        self._callback = callback
        self._failure: BaseException | None = None

    def parameters(self, params: ParametersLike = None) -> NodeCompletionParameters:
        """Return the settings with this context's callback, called before their own."""
        settings = node_parameters(params)
        settings_callback = settings.cost_callback

        def report_to_both(info: CostInfo) -> Report:
            first = report(lambda info: self._callback(info, self.meta), info, self._note_failure)
            if settings_callback is None or not settings.cost_tracking:
                return first
            return Report(*first.ends, *report(settings_callback, info, self._note_failure).ends)

        return settings.replace(cost_callback=report_to_both, cost_tracking=True)

    def _note_failure(self, error: BaseException) -> None:
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

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            await self.aclose()

    def __repr__(self) -> str:
        return f"CompletionContext({self.generator!r})"
