"""A run over many items: each is asked as there is room, and ends as an outcome."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeAlias, TypeVar, overload

from msgspec.structs import replace

from minillmlib.bulk.batch import BatchQueue, check_batches
from minillmlib.bulk.items import Item, ItemCall, Question
from minillmlib.bulk.journal import RunJournal
from minillmlib.bulk.outcome import STOPPING, BulkOutcome, BulkProgress, last_error
from minillmlib.bulk.width import Width, mark_call, width_for
from minillmlib.client.observation import BulkRunEmitter, observers_of
from minillmlib.client.prepare import check_generator
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    InvalidParameterError,
    MiniLLMError,
    PartialFailureError,
    RateLimitError,
    StorageError,
)
from minillmlib.files import FilePath
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import plural
from minillmlib.tree.node import DEFAULT_LOOP, ChatNode
from minillmlib.tree.tool_loop import Tool, ToolLoop, is_async
from minillmlib.types.budgets import Budget
from minillmlib.types.costs import EXACT, Attempt, CostResolution, CostTotal
from minillmlib.types.pace import Pace
from minillmlib.types.parameters import ParametersLike, TypedParameters, node_parameters
from minillmlib.types.tools import ToolLike

if TYPE_CHECKING:
    from asyncio import Task

T = TypeVar("T")

Items: TypeAlias = Iterable[Item] | AsyncIterable[Item]

PROGRESS_SECS = 0.1
TURN_ITEMS = 64  # that are read before the calls in flight have their turn
MAX_ERRORS = 100  # kept for `raise_for_failures`


class BulkRun(Generic[T]):
    """The outcomes of `map_complete`, by `async for`, as they come or in the order of the items.

    Use it with `async with`, which ends the calls in flight when left early. `iterate` reads it
    without async. Items are taken from the input as there is room; none is taken while too many
    outcomes are unread.

    Attributes:
        total: The cost of the run so far, without that of earlier runs.
        earlier: The known cost of earlier runs with the same journal.
        maybe_paid: The number of requests that were in flight when earlier runs were killed. They
            may have been billed: then `earlier` is too low.
        width: The `Width` of the run.
    """

    def __init__(
        self,
        items: Items,
        call: ItemCall,
        *,
        width: int | Width | None,
        is_ordered: bool,
        on_progress: Callable[[BulkProgress], object] | None,
    ) -> None:
        if isinstance(items, str | bytes | Mapping | ChatNode) or not isinstance(
            items, Iterable | AsyncIterable
        ):
            raise InvalidParameterError(
                f"map_complete takes a list or an iterable of items, not {type(items).__name__}"
            )
        if on_progress is not None and is_async(on_progress):
            raise InvalidParameterError(
                "on_progress is called and not awaited, so a coroutine function would do nothing"
            )
        self._items = items
        self._call = call
        self._given_width = width
        self._is_ordered = is_ordered
        self._on_progress = on_progress
        self._count = len(items) if isinstance(items, Sequence) else None
        self.total: CostTotal = CostTotal()
        self.earlier: CostTotal = call.earlier
        self.maybe_paid: int = call.maybe_paid
        self._counts = {"done": 0, "failed": 0, "from_journal": 0}
        self._errors: list[MiniLLMError] = []
        self._ready: deque[BulkOutcome[T]] = deque()
        self._early: dict[int, BulkOutcome[T]] = {}  # whose turn has not come
        self._next = 0  # the index of the next outcome, if they are ordered
        self._unread = 0  # items that were taken and not delivered
        self._tasks: set[Task[Sequence[Attempt]]] = set()
        self._feeder: Task[None] | None = None
        self._is_stopping = self._is_closed = False
        self._is_fed = False  # no further item is taken
        self._problem: BaseException | None = None  # that ended the run
        self._reported_at = 0.0
        self._emitter: BulkRunEmitter | None = None  # if anybody observes it

    @property
    def width(self) -> Width:
        """The `Width` of the run, once it has begun."""
        if self._feeder is None:
            raise InvalidParameterError("the run has not begun")
        return self._width

    @property
    def progress(self) -> BulkProgress:
        """How far the run has come."""
        has_begun = self._feeder is not None
        return BulkProgress(
            items=self._count,
            in_flight=len(self._tasks),
            width=self._width.limit if has_begun else 0,
            elapsed_secs=time.monotonic() - self._started if has_begun else 0.0,
            cost=self.total,
            is_over=self._is_over,
            **self._counts,
        )

    def stop(self) -> None:
        """Ask no further item. The outcomes of those in flight still come; then the run ends.

        Any thread may call it.
        """
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._feeder is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._feeder.get_loop().call_soon_threadsafe(self._interrupt_feeder)

    def _interrupt_feeder(self) -> None:
        """End the waiting for an item, for room or for the width."""
        if self._feeder is not None and not self._is_fed:
            self._feeder.cancel()

    def raise_for_failures(self) -> None:
        """Raise `PartialFailureError` if items failed, with the first hundred of their errors."""
        failed = self._counts["failed"]
        if failed:
            count = failed + self._counts["done"]
            raise PartialFailureError(
                f"{failed} of {count} {plural('item', count)} failed; the first failure: "
                f"{self._errors[0]}",
                errors=self._errors,
            ) from self._errors[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the run and the calls in flight, whose cost then stays unknown."""
        self._is_closed = True
        self.stop()
        tasks = [*self._tasks, *([] if self._feeder is None else [self._feeder])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio_module().wait(tasks)
        self._call.close()
        self._emit_end()

    def __aiter__(self) -> AsyncIterator[BulkOutcome[T]]:
        return self

    async def __anext__(self) -> BulkOutcome[T]:
        if self._feeder is None:
            self._begin()
        while not self._ready:
            if not self._is_over:
                self._arrived.clear()
                await self._arrived.wait()
            elif self._early:  # after an item that has no outcome
                self._ready.extend(self._early.pop(index) for index in sorted(self._early))
            else:
                self._end()
        self._unread -= 1
        self._room.set()
        return self._ready.popleft()

    async def collect(self) -> list[BulkOutcome[T]]:
        """Run to the end; return all outcomes."""
        return [outcome async for outcome in self]

    def _begin(self) -> None:
        asyncio = asyncio_module()
        self._width = width_for(self._given_width, self._call.generator)
        self._call.start_pace()
        self._room, self._arrived = asyncio.Event(), asyncio.Event()
        self._started = time.monotonic()
        observers = observers_of(self._call.generator)
        if observers:
            self._emitter = BulkRunEmitter(observers, self._call.generator, self._count)
        self._feeder = asyncio.ensure_future(self._feed())
        self._feeder.add_done_callback(self._note_input_end)

    @property
    def _is_over(self) -> bool:
        return self._feeder is not None and self._feeder.done() and not self._tasks

    def _end(self) -> NoReturn:
        """Raise what ended the run."""
        self._report(is_last=True)
        self._emit_end()
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        raise StopAsyncIteration

    def _emit_end(self) -> None:
        if self._emitter is not None:
            self._emitter.end(self._counts["done"], self._counts["failed"], self._problem)

    async def _feed(self) -> None:
        """Take items as there is room, and begin to ask each."""
        asyncio = asyncio_module()
        create_task = asyncio.get_running_loop().create_task
        if self._emitter is not None:
            self._emitter.adopt()
        items, width = _each(self._items), self._width
        index = 0
        try:
            while self._has_room() or await self._wait_for_room():
                item = await anext(items)
                self._unread += 1
                question = self._call.prepare(index, item)
                if isinstance(question, BulkOutcome):
                    self._deliver(question)
                else:
                    await width.acquire()
                    if self._is_stopping:
                        width.release()
                        break
                    task = create_task(self._ask(question))
                    self._tasks.add(task)
                    task.add_done_callback(self._note_end)
                index += 1
                if index % TURN_ITEMS == 0:
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - of the input, for the caller
            self._problem = self._problem or error
        finally:
            self._is_fed = True
            await items.aclose()

    def _note_input_end(self, feeder: Task[None]) -> None:
        """Note the end of the input, also if it was cancelled before its first step."""
        if not feeder.cancelled() and (error := feeder.exception()) is not None:
            self._problem = self._problem or error
        elif feeder.cancelled() and not self._is_stopping:
            self._stop_with(MiniLLMError("the input of the run was cancelled before its end"))
        self._call.finish_input()
        self._note_progress()

    def _has_room(self) -> bool:
        return not self._is_stopping and self._unread < 2 * self._width.limit

    async def _wait_for_room(self) -> bool:
        """Wait until few enough outcomes are unread. Return False if the run is to end."""
        while not (self._is_stopping or self._has_room()):
            self._room.clear()
            await self._room.wait()
        return not self._is_stopping

    async def _ask(self, question: Question) -> Sequence[Attempt]:
        """Ask an item and deliver its outcome; return its attempts."""
        mark_call()
        try:
            outcome: BulkOutcome[T] = await self._call.ask(question)
        except asyncio_module().CancelledError:
            self.total += CostTotal(unknown=1)
            raise
        if self._call.problem is not None:
            self._stop_with(self._call.problem)
        self._deliver(outcome)
        return outcome.attempts

    def _note_end(self, task: Task[Sequence[Attempt]]) -> None:
        """Note the end of a call, also if it was cancelled before its first step."""
        self._tasks.discard(task)
        attempts: Sequence[Attempt] = ()
        if task.cancelled():
            if not self._is_closed:
                self._stop_with(MiniLLMError("a call of the run was cancelled from outside"))
        elif (error := task.exception()) is not None:  # not of the library: for the caller
            self._stop_with(error)
        else:
            attempts = task.result()
        self._width.release(attempts)
        if not self._tasks:
            self._note_progress()

    def _note_progress(self) -> None:
        if self._is_over:
            try:
                self._call.close()
            except StorageError as error:
                self._problem = self._problem or error
            self._arrived.set()

    def _stop_with(self, problem: BaseException) -> None:
        self._problem = self._problem or problem
        self.stop()

    def _deliver(self, outcome: BulkOutcome[T]) -> None:
        if outcome.error is None:
            self._counts["done"] += 1
        else:
            self._counts["failed"] += 1
            self._note_failure(outcome.error, is_old=outcome.is_from_journal)
        if outcome.is_from_journal:
            self._counts["from_journal"] += 1
        else:
            self._add_cost(outcome.attempts)
        if self._is_ordered:
            self._early[outcome.index] = outcome
            while (following := self._early.pop(self._next, None)) is not None:
                self._ready.append(following)
                self._next += 1
        else:
            self._ready.append(outcome)
        self._arrived.set()
        if self._on_progress is not None:
            self._report()

    def _add_cost(self, attempts: Sequence[Attempt]) -> None:
        total, cost = self.total, attempts[0].cost if len(attempts) == 1 else None
        if cost is not None and cost.resolution is CostResolution.RESOLVED:  # as of nearly all
            self.total = replace(total, cost=EXACT.add(total.cost, cost.cost))
        else:
            self.total = total + CostTotal.of([attempt.cost for attempt in attempts])

    def _note_failure(self, error: MiniLLMError, *, is_old: bool) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append(error)
        last = last_error(error)
        is_shut = isinstance(last, RateLimitError) and self._call.is_shut
        if (isinstance(last, STOPPING) or is_shut) and not is_old:
            self._stop_with(error)

    def _report(self, *, is_last: bool = False) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        if is_last or now - self._reported_at >= PROGRESS_SECS:
            self._reported_at = now
            self._on_progress(self.progress)


async def _each(items: Items) -> AsyncGenerator[Item]:
    """Yield the items one by one, and close their generator at the end."""
    if isinstance(items, AsyncIterable):
        source = aiter(items)
        try:
            async for item in source:
                yield item
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
    else:
        for item in items:
            yield item


@overload
def map_complete(
    items: Items,
    generator: GeneratorInfo,
    params: TypedParameters[T],
    *,
    prompt: ChatNode | None = ...,
    tools: Sequence[ToolLike | Tool] = ...,
    loop: ToolLoop = ...,
    journal: FilePath | None = ...,
    key: Callable[[Any], str] | None = ...,
    retry_failed: bool = ...,
    budget: Budget | None = ...,
    width: int | Width | None = ...,
    batch: bool = ...,
    pace: Pace | None = ...,
    ordered: bool = ...,
    on_progress: Callable[[BulkProgress], object] | None = ...,
) -> BulkRun[T]: ...


@overload
def map_complete(
    items: Items,
    generator: GeneratorInfo,
    params: ParametersLike = None,
    *,
    prompt: ChatNode | None = ...,
    tools: Sequence[ToolLike | Tool] = ...,
    loop: ToolLoop = ...,
    journal: FilePath | None = ...,
    key: Callable[[Any], str] | None = ...,
    retry_failed: bool = ...,
    budget: Budget | None = ...,
    width: int | Width | None = ...,
    batch: bool = ...,
    pace: Pace | None = ...,
    ordered: bool = ...,
    on_progress: Callable[[BulkProgress], object] | None = ...,
) -> BulkRun[Any]: ...


def map_complete(  # noqa: PLR0913 - the settings of a run
    items: Items,
    generator: GeneratorInfo,
    params: ParametersLike = None,
    *,
    prompt: ChatNode | None = None,
    tools: Sequence[ToolLike | Tool] = (),
    loop: ToolLoop = DEFAULT_LOOP,
    journal: FilePath | None = None,
    key: Callable[[Any], str] | None = None,
    retry_failed: bool = False,
    budget: Budget | None = None,
    width: int | Width | None = None,
    batch: bool = False,
    pace: Pace | None = None,
    ordered: bool = False,
    on_progress: Callable[[BulkProgress], object] | None = None,
) -> BulkRun[Any]:
    """Ask a model about any number of items; yield the outcome of each as it comes.

    An item that fails is an outcome with its error, and harms no other. The run ends with an error
    that would hit every further item too (a refused key, no money, no permission, an unknown
    model, a spent budget), once the outcomes of the items in flight were delivered.

    Args:
        items: Texts, mappings that fill the placeholders of `prompt`, or nodes. Without a `prompt`,
            a mapping has its conversation as `messages`. The input may be lazy, also asynchronous,
            and endless: it is read as there is room.
        generator: The model.
        params: The settings of each call.
        prompt: The conversation before each text, or the one whose `{placeholders}` each mapping
            fills. Every item gets a copy; the answer to a node is its child.
        tools: Tools that `run_tools` runs for each item.
        loop: The settings of `run_tools`.
        journal: A file that records what was asked and answered, so that the same call, after a
            crash or an end, asks only what is missing. One run at a time may use it.
        key: Function of an item that returns its name in the journal. By default that is a hash of
            the request, so that a changed prompt, model, parameter or tool is asked again.
        retry_failed: Whether to ask again the items that failed permanently in an earlier run.
            Those that failed temporarily are asked again in any case.
        budget: The budget that covers the run. It takes precedence over that in `params`.
        width: The maximum calls in flight, or a `Width`; by default as many as the server accepts.
        batch: Whether the items are rows of the provider's batches, at half price and within a day.
            A journal is needed then, from which another process may fetch the results.
        pace: The maximum requests and tokens a minute, instead of the pace in `params`. By default
            it is learned, and shared by all runs that ask one model with one key.
        ordered: Whether the outcomes come in the order of the items.
        on_progress: Function that gets the `BulkProgress`, at most ten times a second, and at the
            end.

    Examples:
        >>> generator = GeneratorInfo.openai("gpt-4o-mini")
        >>> prompt = ChatNode.root("Be brief.").add_user("The capital of {country}?")
        >>> rows = [{"country": "France"}, {"country": "Italy"}]
        >>> for outcome in iterate(map_complete(rows, generator, prompt=prompt, ordered=True)):
        ...     print(outcome.index, outcome.text)
        0 Paris.
        1 Paris.
    """
    check_generator(generator)
    settings = node_parameters(params)
    if budget is not None:
        settings = settings.replace(budget=budget)
    if batch:
        check_batches(generator, settings, tools=tools, width=width, journal=journal)
    if pace is not None:
        settings = settings.replace(pace=pace)
    record = None if journal is None else RunJournal(journal, retries_failed=retry_failed)
    try:
        batches = None
        if batch and record is not None:
            batches = BatchQueue(generator, settings, record)
            width = Width(batches.max_rows, batches.max_rows)
        elif record is not None:
            record.check_no_batches()
        call = ItemCall(
            generator, settings, prompt=prompt, tools=tools, loop=loop, journal=record, key=key,
            batches=batches,
        )  # fmt: skip
        bulk: BulkRun[Any] = BulkRun(
            items, call, width=width, is_ordered=ordered, on_progress=on_progress
        )
        if settings.budget is not None and record is not None:
            settings.budget.charge(record.committed)
    except BaseException:  # whose traceback would hold the journal
        if record is not None:
            record.close()
        raise
    return bulk
