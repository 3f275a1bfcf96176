"""The tool loop: run the tools that a model calls, until it answers without a call."""

import contextlib
import contextvars
import inspect
import threading
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeAlias, TypeVar

import msgspec

from minillmlib.client.observation import ToolLoopEmitter, observers_of
from minillmlib.client.stream import StreamingCompletion
from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    IncompleteStreamError,
    InvalidParameterError,
    RequestTimeoutError,
    StorageError,
    ToolError,
    TurnLimitError,
)
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue, plural
from minillmlib.locks import fork_safe_lock
from minillmlib.structured.signature import code_of
from minillmlib.types.messages import (
    PARTS,
    ContentPart,
    MessageContent,
    TextPart,
    content_text,
)
from minillmlib.types.parameters import NodeCompletionParameters, ParametersLike, node_parameters
from minillmlib.types.responses import StreamChunk
from minillmlib.types.tools import ToolCall, ToolChoice, ToolDefinition, ToolLike, as_tool
from minillmlib.types.values import check_choice, check_kind, check_number, check_required_number

if TYPE_CHECKING:
    from asyncio import Future, Semaphore, Task

    from minillmlib.tree.node import ChatNode

NodeT = TypeVar("NodeT", bound="ChatNode")

STARTED = "_started "  # and the place of a call in its message: a note that it was
NOT_ALLOWED = "the user did not allow this call"
NOT_STARTED = "the call was cancelled before it started"
CANCELLED = "the call was cancelled before it ended, so it is not known whether it took effect"
UNCERTAIN = (
    "the call was started before, and it is not known whether it took effect; it was not started "
    "again"
)

_starting = fork_safe_lock()  # two loops may come to one call, each in a thread of its own

Approval: TypeAlias = bool | str | None
Approve: TypeAlias = Callable[[ToolCall], Approval | Awaitable[Approval]]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool with the function that runs it.

    A typed function is a tool by itself; this is for one whose definition is written by hand, or
    comes from elsewhere. `run` takes the `ToolCall` and returns what a tool returns, or a
    coroutine of it. Unless it is a coroutine function, it is called in a thread.

        Tool(definition=definition, run=lambda call: search(**call.arguments_json()))
    """

    definition: ToolDefinition
    run: Callable[[ToolCall], object]

    def __post_init__(self) -> None:
        given: object = self.definition
        if not isinstance(given, ToolDefinition) or not callable(self.run):
            raise InvalidParameterError("a Tool needs a ToolDefinition, and a function as its run")

    @classmethod
    def from_function(cls, function: Callable[..., object]) -> Self:
        """Return the tool of a typed function, with `ToolDefinition.from_function`."""
        definition = ToolDefinition.from_function(function)
        code = code_of(function)
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise InvalidParameterError(
                f"{definition.name} is a generator function, which has no result; a tool returns "
                "its result whole"
            )

        def run(call: ToolCall) -> object:
            return function(**call.bind(function))

        async def run_async(call: ToolCall) -> object:
            value = run(call)
            return await value if inspect.isawaitable(value) else value

        return cls(definition=definition, run=run_async if is_async(function) else run)


class ToolEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a tool loop.

    Attributes:
        kind: `"chunk"`, a piece of an answer that is streamed; `"answer"`, a whole answer;
            `"call"`, a call that comes next; `"result"`, its result.
        node: The node of the answer or the result; for a call, the node that asks for it; for a
            chunk, the node that the answer will follow.
        chunk: The piece of the answer.
        call: The call that comes next, or whose result this is.
    """

    kind: Literal["chunk", "answer", "call", "result"]
    node: "ChatNode"
    chunk: StreamChunk | None = None
    call: ToolCall | None = None


class ToolLoop(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `run_tools`.

    Attributes:
        max_turns: Maximum calls of the model; `TurnLimitError` if it still asks for tools then.
        max_parallel: Maximum tools of one answer that run at the same time.
        tool_timeout_secs: Maximum seconds for one tool. A blocking function goes on in its
            thread, at most to the end of the program. None is no bound.
        deadline_secs: Maximum seconds for the whole loop, approvals included; then
            `RequestTimeoutError`. None is no bound.
        max_result_chars: Maximum characters of one result; a note in it says what was cut off.
        on_error: What becomes of an unknown tool, wrong arguments, an exception and a time-out.
            `"tell"` tells the model, without a traceback; `"raise"` raises the tool's exception,
            or a `ToolError`, once the results are in the tree.
        approve: Function of a call, or a coroutine function, asked before any tool of an answer
            runs. True runs it; False, or a text with the reason, tells the model that it may not;
            None means not now: the loop returns the node with the calls, and `run_tools` on that
            node goes on later, also in another process.
        on_event: Function that gets each `ToolEvent` at once.
    """

    max_turns: int = 8
    max_parallel: int = 8
    tool_timeout_secs: float | None = None
    deadline_secs: float | None = None
    max_result_chars: int = 100_000
    on_error: Literal["tell", "raise"] = "tell"
    approve: Approve | None = None
    on_event: Callable[[ToolEvent], object] | None = None

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_parallel", "max_result_chars"):
            check_required_number(name, getattr(self, name), minimum=1, is_whole=True)
        for name in ("tool_timeout_secs", "deadline_secs"):
            check_number(name, getattr(self, name), minimum=0)
        check_choice("on_error", self.on_error, ("tell", "raise"))
        for name in ("approve", "on_event"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise InvalidParameterError(f"{name} must be a function, not {function!r:.80}")
        if self.on_event is not None and is_async(self.on_event):
            raise InvalidParameterError(
                "on_event is called and not awaited, so a coroutine function would do nothing; "
                "read the events of run_tools_streaming instead"
            )


class _Result(msgspec.Struct, frozen=True):
    content: MessageContent
    is_error: bool = False
    error: Exception | None = None


class _RunningCall(msgspec.Struct, frozen=True):
    """A call of an answer, and the result or the task that will return it."""

    place: int
    call: ToolCall
    result: "_Result | Task[_Result]"

    def result_now(self) -> _Result | None:
        """Return the result if there is one already."""
        if isinstance(self.result, _Result):
            return self.result
        is_done = self.result.done() and not self.result.cancelled()
        return self.result.result() if is_done and self.result.exception() is None else None


def open_calls(node: NodeT) -> tuple[NodeT, dict[int, ToolCall]]:
    """Return the node whose calls are answered up to `node`, and by place those that are not.

    Of calls with the same id, the first is answered first.
    """
    answered = []
    while node.message.tool_call_id is not None and node.parent is not None:
        answered.append(node.message.tool_call_id)
        node = node.parent
    calls = dict(enumerate(node.tool_calls))
    for call_id in reversed(answered):
        place = next((place for place, call in calls.items() if call.id == call_id), None)
        calls.pop(-1 if place is None else place, None)
    return node, calls


def _recorded_result(asking: "ChatNode", place: int) -> _Result | None:
    """Return the result of a call in whatever branch has one."""
    pending = deque(asking.children())
    while pending:
        node = pending.popleft()
        message = node.message
        if message.tool_call_id is not None:
            if place not in open_calls(node)[1]:
                return _Result(message.content, is_error=message.is_error)
            pending.extend(node.children())
    return None


class ToolRun(Generic[NodeT]):
    """The events of a tool loop as they happen, by `async for`; see `ChatNode.run_tools_streaming`.

    Use it with `async with`. `node` is the newest node; after the last event, that of the answer,
    or the one whose calls wait for an approval or have no function. As a stream, it belongs to one
    task at a time, and after a failure or a cancellation it cannot be read on.
    """

    def __init__(  # noqa: PLR0913 - made by ChatNode only
        self,
        node: NodeT,
        generator: GeneratorInfo,
        tools: Sequence[ToolLike | Tool],
        params: ParametersLike,
        loop: ToolLoop,
        *,
        is_streamed: bool,
    ) -> None:
        check_kind("the settings of a tool loop", loop, ToolLoop)
        self._tools = _by_name(tools)
        settings = node_parameters(params)
        choice = settings.params.tool_choice
        self._settings = tool_settings(settings, tools)
        self._later_settings = self._settings
        if isinstance(choice, ToolChoice) and choice.mode in ("required", "tool"):
            free = self._settings.params.replace(tool_choice=None)  # else it would never answer
            self._later_settings = self._settings.with_params(free)
        self._node = self._asking = node
        self._generator = generator
        self._loop = loop
        self._is_streamed = is_streamed
        self._is_begun = self._is_busy = self._is_over = False
        self._why_broken: str | None = None  # why it ended before its end, unless it was closed
        self._ends: float | None = None
        self._turns = 0
        self._stream: StreamingCompletion[NodeT] | None = None  # of the answer that arrives
        self._running: deque[_RunningCall] = deque()
        self._problem: Exception | None = None  # raised once all results are in the tree
        self._emitter: ToolLoopEmitter | None = None  # if anybody observes it
        self._events: deque[ToolEvent] = deque()  # not yet taken by the caller

    @property
    def node(self) -> NodeT:
        """The newest node of the conversation."""
        return self._node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        stream, self._stream = self._stream, None
        self._leave()
        if stream is not None:
            await stream.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Stop. Calls without a result get one that says so. May be called again."""
        await self.__aexit__(None, None, None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolEvent:
        if self._is_busy:
            raise InvalidParameterError("a tool run is read by one task at a time")
        try:
            event = await self._next_event()
        except StopAsyncIteration as error:  # it would pass for the end
            raise RuntimeError("a function of the tool run raised StopAsyncIteration") from error
        if event is None:
            raise StopAsyncIteration
        return event

    async def _next_event(self) -> ToolEvent | None:
        while not self._events:
            if self._why_broken is not None:
                raise IncompleteStreamError(f"the tool run cannot be read on: {self._why_broken}")
            if self._is_over:
                return None
            await self._step()
        event = self._events.popleft()
        if self._loop.on_event is not None:
            self._loop.on_event(event)
        return event

    async def collect(self) -> NodeT:
        """Run the loop to its end; return the last node."""
        async for _ in self:
            pass
        return self._node

    async def _step(self) -> None:
        """Take the next step of the loop, which adds events or ends it."""
        if not self._is_begun:
            self._begin()
        self._is_begun = self._is_busy = True
        try:
            if self._emitter is None:
                await self._advance()
            else:
                with self._emitter.as_parent():
                    await self._advance()
        except Exception as error:
            self._is_over = True
            self._why_broken = f"it failed ({type(error).__name__}: {error})"
            self._end_running()
            self._emit_end(error)
            raise
        except BaseException as error:
            self._why_broken = "its reader was cancelled or interrupted"
            self._emit_end(error)
            self._leave()
            raise
        finally:
            self._is_busy = False
            if self._is_over:
                self._emit_end()

    def _begin(self) -> None:
        if self._loop.deadline_secs is not None:
            self._ends = _now() + self._loop.deadline_secs
        observers = observers_of(self._generator)
        if observers:
            self._emitter = ToolLoopEmitter(observers, self._generator, tuple(self._tools))

    def _emit_end(self, error: BaseException | None = None) -> None:
        if self._emitter is not None:
            self._emitter.end(self._turns, error)

    async def _advance(self) -> None:
        if self._stream is not None:
            await self._read(self._stream)
        elif self._running:
            await self._take_result(self._running[0])
        else:
            await self._go_on()

    async def _go_on(self) -> None:
        if self._problem is not None:
            raise self._problem
        self._asking, calls = open_calls(self._node)
        await (self._start_calls(calls) if calls else self._ask_model())

    async def _ask_model(self) -> None:
        if self._turns == self._loop.max_turns:
            turns = f"{self._turns} {plural('turn', self._turns)}"
            raise TurnLimitError(
                f"the model still asks for tools after {turns}; call run_tools on the "
                "last node to go on, or raise max_turns",
            )
        settings = self._later_settings if self._turns else self._settings
        remaining = self._remaining()
        if remaining is not None:
            limits = [remaining, settings.deadline_secs]
            settings = settings.replace(deadline_secs=min(x for x in limits if x is not None))
        if self._is_streamed:
            self._stream = self._node.complete_streaming(self._generator, settings)
        else:
            self._take_answer(await self._node.complete(self._generator, settings))

    async def _read(self, stream: StreamingCompletion[NodeT]) -> None:
        chunk = await anext(stream, None)
        if chunk is not None:
            self._events.append(ToolEvent(kind="chunk", node=self._node, chunk=chunk))
        elif not self._is_over:
            self._stream = None
            self._take_answer(stream.node)

    def _take_answer(self, node: NodeT) -> None:
        self._node = node
        self._turns += 1
        self._is_over = not node.tool_calls
        self._events.append(ToolEvent(kind="answer", node=node))

    def _remaining(self) -> float | None:
        """Return the seconds until the deadline, if there is one; raise if it has passed."""
        remaining = None if self._ends is None else self._ends - _now()
        if remaining is not None and remaining <= 0:
            raise self._late_error()
        return remaining

    def _late_error(self) -> RequestTimeoutError:
        return RequestTimeoutError(
            f"the tool loop did not end within {self._loop.deadline_secs} s (deadline_secs)"
        )

    async def _start_calls(self, calls: Mapping[int, ToolCall]) -> None:
        """Start the tools of an answer, or end the loop where some of them have to wait."""
        if any(isinstance(self._tools.get(c.name), ToolDefinition) for c in calls.values()):
            self._is_over = True  # the caller adds the results
            return
        known: dict[int, _Result | Task[_Result] | None] = {}
        for place, call in calls.items():
            known[place] = self._known_result(place, call)
            if known[place] is None and self._loop.approve is not None:
                approval = await self._ask_approval(self._loop.approve, call)
                if approval is None or self._is_over:
                    self._is_over = True
                    return
                if approval is not True:
                    known[place] = _failure(approval or NOT_ALLOWED)
        width = asyncio_module().Semaphore(self._loop.max_parallel)
        for place, call in calls.items():
            self._events.append(ToolEvent(kind="call", node=self._asking, call=call))
            result = known[place]
            if result is None:
                result = asyncio_module().create_task(self._run_call(place, call, width))
            self._running.append(_RunningCall(place, call, result))

    async def _ask_approval(self, approve: Approve, call: ToolCall) -> Approval:
        clock = asyncio_module().timeout(self._remaining())
        approval: object = approve(call)
        if inspect.isawaitable(approval):
            try:
                async with clock:
                    approval = await approval
            except TimeoutError:
                if clock.expired():
                    raise self._late_error() from None
                raise
        if not isinstance(approval, Approval):
            raise InvalidParameterError(
                f"approve returns True, False, a reason or None, not {approval!r:.80}"
            )
        return approval

    async def _take_result(self, first: _RunningCall) -> None:
        result = first.result
        if not isinstance(result, _Result):
            await asyncio_module().wait((result,), timeout=self._remaining())
            if self._is_over:  # closed meanwhile
                return
            if not result.done():
                raise self._late_error()
            if result.cancelled():  # by the tool itself: this loop goes on
                text = f"what {first.call.name} waited for was cancelled"
                result = _failure(text, ToolError(text))
            else:
                result = result.result()
        self._running.popleft()
        if self._loop.on_error == "raise":
            self._problem = self._problem or result.error
        self._add_result(first.call, result)
        self._events.append(ToolEvent(kind="result", node=self._node, call=first.call))

    def _add_result(self, call: ToolCall, result: _Result) -> None:
        content, is_error = result.content, result.is_error
        try:
            self._node = self._node.add_tool_result(call.id, content, is_error=is_error)
        except StorageError as error:  # the node is in the tree, if not in its file
            self._node = self._node.children()[-1]
            self._problem = self._problem or error

    def _leave(self) -> None:
        """End the loop before its end: each call without a result gets one that says so."""
        was_over, self._is_over = self._is_over, True
        if was_over or not self._is_begun:
            return
        self._events.clear()
        self._end_running()
        self._asking, calls = open_calls(self._node)
        for place, call in calls.items():
            self._add_result(call, self._cancelled_result(place))
        self._emit_end()

    def _end_running(self) -> None:
        """Cancel the tools that run, and add a result for each call."""
        running, self._running = self._running, deque()
        for one in running:
            if not isinstance(one.result, _Result):
                one.result.cancel()
        for one in running:
            self._add_result(one.call, one.result_now() or self._cancelled_result(one.place))

    def _cancelled_result(self, place: int) -> _Result:
        return _failure(CANCELLED if self._is_started(place) else NOT_STARTED)

    def _is_started(self, place: int) -> bool:
        return f"{STARTED}{place}" in self._asking.notes

    def _note_start(self, place: int) -> _Result | None:
        """Note that a call is started, for other branches and after a crash."""
        try:
            self._asking.note(f"{STARTED}{place}", value=True)
        except StorageError as error:  # after a crash, it could run again
            self._problem = self._problem or error
            return _failure(NOT_STARTED)
        return None

    def _known_result(self, place: int, call: ToolCall) -> _Result | None:
        """Return the result of a call that does not run: of no tool, or started before."""
        if call.name not in self._tools:
            names = ", ".join(self._tools) or "none"
            text = f"there is no tool {call.name!r:.80}; the tools are {names}"
            return _failure(text, ToolError(text))
        if self._is_started(place):
            return _recorded_result(self._asking, place) or _failure(UNCERTAIN)
        return None

    async def _run_call(self, place: int, call: ToolCall, width: "Semaphore") -> _Result:
        async with width:
            with _starting:
                known = self._known_result(place, call) or self._note_start(place)
            if known is not None:
                return known
            tool = self._tools[call.name]
            assert isinstance(tool, Tool)
            if self._emitter is None:
                return await self._call_tool(tool, call)
            with self._emitter.watch_tool(call) as note_end:
                result = await self._call_tool(tool, call)
                note_end(content_text(result.content), result.error)
            return result

    async def _call_tool(self, tool: Tool, call: ToolCall) -> _Result:
        limit = self._loop.tool_timeout_secs
        clock = asyncio_module().timeout(limit)
        problem: Exception
        try:
            async with clock:
                runs_here = is_async(tool.run)
                value = tool.run(call) if runs_here else await _run_in_thread(tool.run, call)
                if inspect.isawaitable(value):
                    value = await value
            return _Result(_as_content(value, self._loop.max_result_chars))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
            problem = error
            if isinstance(error, TimeoutError) and clock.expired():
                problem = ToolError(f"{call.name} did not end within {limit} s")
        return _failure(_cut(_describe(problem), self._loop.max_result_chars), problem)

    def __del__(self) -> None:
        is_begun = getattr(self, "_is_begun", False)
        if not is_begun or self._is_over:
            return
        self._emit_end()
        if self._stream is None:  # which warns, too
            warnings.warn(
                "a tool run was dropped before its end; use `async with` to leave early",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


def _now() -> float:
    now: float = asyncio_module().get_running_loop().time()
    return now


def is_async(function: Callable[..., object]) -> bool:
    """Whether a function returns a coroutine."""
    return inspect.iscoroutinefunction(code_of(function))


async def _run_in_thread(function: Callable[[ToolCall], object], call: ToolCall) -> object:
    """Call a function in a thread of its own.

    Those of a pool run out when tools hang, and then the program could not end either.
    """
    loop = asyncio_module().get_running_loop()
    ended: Future[tuple[object, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        value: object = None
        problem: BaseException | None = None
        try:
            value = context.run(function, call)
        except BaseException as error:  # noqa: BLE001 - raised where the tool is awaited
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, value, problem)

    def end(value: object, problem: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((value, problem))
        elif inspect.iscoroutine(value):
            value.close()

    threading.Thread(target=run, name=f"minillmlib {call.name}", daemon=True).start()
    value, problem = await ended
    try:
        if problem is not None:
            raise problem
        return value
    finally:
        del problem  # its traceback has this frame


def tool_settings(
    settings: NodeCompletionParameters, tools: Sequence[ToolLike | Tool]
) -> NodeCompletionParameters:
    """Return the settings of the first call of a loop with these tools."""
    by_name = _by_name(tools)
    for tool in settings.params.tools or ():
        if as_tool(tool).name not in by_name:
            raise InvalidParameterError(
                f"the parameters have a tool {as_tool(tool).name!r} that run_tools was not "
                "given; give all tools to run_tools"
            )
    definitions = [_definition_of(tool) for tool in by_name.values()]
    return settings.with_params(settings.params.replace(tools=definitions))


def _by_name(tools: Sequence[ToolLike | Tool]) -> dict[str, Tool | ToolDefinition]:
    given: object = tools
    if not isinstance(given, list | tuple):
        raise InvalidParameterError("the tools of run_tools must be a list of functions or tools")
    by_name: dict[str, Tool | ToolDefinition] = {}
    for each in tools:
        tool: Tool | ToolDefinition
        if isinstance(each, Tool):
            tool = each
        elif callable(each):
            tool = Tool.from_function(each)
        else:
            tool = as_tool(each)
        name = _definition_of(tool).name
        if name in by_name:
            raise InvalidParameterError(f"two of the tools have the name {name!r}")
        by_name[name] = tool
    return by_name


def _definition_of(tool: Tool | ToolDefinition) -> ToolDefinition:
    return tool.definition if isinstance(tool, Tool) else tool


def _failure(text: str, error: Exception | None = None) -> _Result:
    return _Result(text, is_error=True, error=error)


def _describe(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - of whatever class it is
        text = ""
    if isinstance(error, ToolError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _as_content(value: object, max_chars: int) -> MessageContent:
    """Return what a tool returned as the content of its result: text, parts, or JSON."""
    if isinstance(value, PARTS):
        value = (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(part, PARTS) for part in value):
        return _cut_parts(value, max_chars)
    if value is None:
        return ""
    return _cut(value if isinstance(value, str) else _as_json(value), max_chars)


def _cut_parts(parts: Iterable[ContentPart], max_chars: int) -> tuple[ContentPart, ...]:
    cut: list[ContentPart] = []
    for part in parts:
        if isinstance(part, TextPart):
            text = _cut(part.text, max_chars)
            max_chars = max(0, max_chars - len(part.text))
            part = TextPart(text)  # noqa: PLW2901 - the part as it is kept
        cut.append(part)
    return tuple(cut)


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    count = len(text) - max_chars
    words = "character was" if count == 1 else "characters were"
    return f"{text[:max_chars]}\n[{count:,} more {words} cut off]"


def _as_json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _plain(value: object) -> JsonValue:
    dump = getattr(value, "model_dump", None)  # of pydantic
    return dump(mode="json") if callable(dump) else str(value)
