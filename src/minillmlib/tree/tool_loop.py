"""The tool loop: run the tools that a model calls, until it answers without a call."""

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Literal, Self, TypeAlias, TypeVar

import msgspec

from minillmlib.deferred_imports import asyncio_module
from minillmlib.errors import (
    InvalidParameterError,
    RequestTimeoutError,
    ToolArgumentError,
    TurnLimitError,
)
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.structured.signature import code_of
from minillmlib.types.messages import PARTS, ContentPart, MessageContent, TextPart
from minillmlib.types.parameters import ParametersLike, node_parameters
from minillmlib.types.responses import StreamChunk
from minillmlib.types.tools import ToolCall, ToolChoice, ToolDefinition, ToolLike, as_tool
from minillmlib.types.values import check_choice, check_kind, check_number

if TYPE_CHECKING:
    from asyncio import Semaphore, Task

    from minillmlib.tree.node import ChatNode

NodeT = TypeVar("NodeT", bound="ChatNode")

STARTED = "_started "  # and the id of a call: a note that it was, for the case of a crash
NOT_ALLOWED = "the user did not allow this call"
CANCELLED = "the call was cancelled before it ended"
INTERRUPTED = (
    "the call was started and the program then stopped, so it is not known whether it took "
    "effect; it was not started again"
)

Approval: TypeAlias = bool | str | None
Approve: TypeAlias = Callable[[ToolCall], Approval | Awaitable[Approval]]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool with the function that runs it.

    A typed function is a tool by itself; this is for one whose definition is written by hand, or
    comes from elsewhere. `run` takes the `ToolCall` and returns what a tool returns, or a
    coroutine of it.

        Tool(definition=definition, run=lambda call: search(**call.arguments_json()))
    """

    definition: ToolDefinition
    run: Callable[[ToolCall], object]

    @classmethod
    def from_function(cls, function: Callable[..., object]) -> Self:
        """Return the tool of a typed function, with `ToolDefinition.from_function`."""
        definition = ToolDefinition.from_function(function)
        if inspect.iscoroutinefunction(inspect.unwrap(code_of(function))):
            return cls(definition=definition, run=lambda call: function(**call.bind(function)))
        return cls(definition=definition, run=_InThread(function))


class _InThread:
    """Runs a function that blocks in a thread, so that other calls go on."""

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    async def __call__(self, call: ToolCall) -> object:
        arguments = call.bind(self._function)
        return await asyncio_module().to_thread(self._function, **arguments)


class ToolEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a tool loop.

    Attributes:
        kind: `"chunk"`, a piece of an answer that is streamed; `"answer"`, a whole answer;
            `"call"`, a tool that is about to run; `"result"`, what it returned.
        node: The node of the answer or the result; for a call, the node that asks for it; for a
            chunk, the node that the answer will follow.
        chunk: The piece of the answer.
        call: The call that is run, or whose result this is.
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
        tool_timeout_secs: Maximum seconds for one tool; the model is told of one that takes
            longer. A blocking function goes on in its thread. None is no bound.
        deadline_secs: Maximum seconds for the whole loop. None is no bound.
        max_result_chars: Maximum characters of one result; a note in it says what was cut off.
        on_error: `"tell"` gives the model the text of a tool's exception, without a traceback;
            `"raise"` raises it once the results are in the tree.
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
            check_number(name, getattr(self, name), minimum=1, is_whole=True)
        for name in ("tool_timeout_secs", "deadline_secs"):
            check_number(name, getattr(self, name), minimum=0)
        check_choice("on_error", self.on_error, ("tell", "raise"))


class _Result(msgspec.Struct, frozen=True):
    content: MessageContent
    is_error: bool = False
    error: Exception | None = None


def open_calls(node: "ChatNode") -> tuple[ToolCall, ...]:
    """Return the calls that a node leaves without a result, in order."""
    answered = set()
    while node.message.tool_call_id is not None and node.parent is not None:
        answered.add(node.message.tool_call_id)
        node = node.parent
    return tuple(call for call in node.tool_calls if call.id not in answered)


def _asking_node(node: NodeT) -> NodeT:
    """Return the node whose calls are answered by a node, or by those before it."""
    while node.message.tool_call_id is not None and node.parent is not None:
        node = node.parent
    return node


class ToolRun(Generic[NodeT]):
    """The events of a tool loop as they happen, by `async for`; see `ChatNode.run_tools_streaming`.

    Use it with `async with`. `node` is the newest node; after the last event, that of the answer,
    or the one whose calls wait for an approval or have no function.
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
        definitions = [_definition_of(tool) for tool in self._tools.values()]
        settings = node_parameters(params)
        for tool in settings.params.tools or ():
            if as_tool(tool).name not in self._tools:
                raise InvalidParameterError(
                    f"the parameters have a tool {as_tool(tool).name!r} that run_tools was not "
                    "given; give all tools to run_tools"
                )
        choice = settings.params.tool_choice
        self._settings = settings.with_params(settings.params.replace(tools=definitions))
        self._later_settings = self._settings
        if isinstance(choice, ToolChoice) and choice.mode in ("required", "tool"):
            free = self._settings.params.replace(tool_choice=None)  # else it would never answer
            self._later_settings = self._settings.with_params(free)
        self._node = self._asking = node
        self._generator = generator
        self._loop = loop
        self._is_streamed = is_streamed
        self._ends: float | None = None
        self._events = self._play()

    @property
    def node(self) -> NodeT:
        """The newest node of the conversation."""
        return self._node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop. Calls without a result get one that says so. May be called again."""
        await self._events.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolEvent:
        event = await self._events.__anext__()
        if self._loop.on_event is not None:
            self._loop.on_event(event)
        return event

    async def collect(self) -> NodeT:
        """Run the loop to its end; return the last node."""
        async for _ in self:
            pass
        return self._node

    async def _play(self) -> AsyncGenerator[ToolEvent]:
        if self._loop.deadline_secs is not None:
            self._ends = time.monotonic() + self._loop.deadline_secs
        try:
            async for event in self._take_turns():
                yield event
        except Exception:
            raise
        except BaseException:  # left early, or cancelled
            for call in open_calls(self._node):
                self._add_result(call, _failure(CANCELLED))
            raise

    async def _take_turns(self) -> AsyncGenerator[ToolEvent]:
        turns = 0
        while True:
            calls = open_calls(self._node)
            if calls:
                approvals = await self._ask_approval(calls)
                if approvals is None or any(self._is_for_caller(call) for call in calls):
                    return
                async for event in self._run_calls(calls, approvals):
                    yield event
            elif turns:
                return
            if turns == self._loop.max_turns:
                raise TurnLimitError(
                    f"the model still asks for tools after {turns} turns; call run_tools on the "
                    "last node to go on, or raise max_turns",
                )
            async for event in self._ask_model(is_first=turns == 0):
                yield event
            turns += 1

    async def _ask_model(self, *, is_first: bool) -> AsyncGenerator[ToolEvent]:
        settings = self._settings if is_first else self._later_settings
        if self._ends is not None:
            limits = [settings.deadline_secs, self._remaining()]
            settings = settings.replace(deadline_secs=min(x for x in limits if x is not None))
        before = self._node
        if self._is_streamed:
            async with before.complete_streaming(self._generator, settings) as stream:
                async for chunk in stream:
                    yield ToolEvent(kind="chunk", node=before, chunk=chunk)
            self._node = stream.node
        else:
            self._node = await before.complete(self._generator, settings)
        yield ToolEvent(kind="answer", node=self._node)

    def _remaining(self) -> float | None:
        """Return the seconds until the deadline, if there is one; raise if it has passed."""
        if self._ends is None:
            return None
        remaining = self._ends - time.monotonic()
        if remaining <= 0:
            raise RequestTimeoutError(
                f"the tool loop did not end within {self._loop.deadline_secs} s (deadline_secs)"
            )
        return remaining

    def _is_for_caller(self, call: ToolCall) -> bool:
        """Whether the tool has no function, so that the caller adds its result."""
        tool = self._tools.get(call.name)
        return tool is not None and not isinstance(tool, Tool)

    async def _ask_approval(self, calls: Sequence[ToolCall]) -> list[bool | str] | None:
        """Return the approval of each call, or None if one has to wait."""
        approvals: list[bool | str] = []
        for call in calls:
            approval: object = True
            if self._loop.approve is not None:
                approval = self._loop.approve(call)
                if inspect.isawaitable(approval):
                    approval = await approval
            if approval is None:
                return None
            if not isinstance(approval, bool | str):
                raise InvalidParameterError(
                    f"approve returns True, False, a reason or None, not {approval!r:.80}"
                )
            approvals.append(approval)
        return approvals

    async def _run_calls(
        self, calls: Sequence[ToolCall], approvals: Sequence[bool | str]
    ) -> AsyncGenerator[ToolEvent]:
        """Run the tools at once and add their results in the order of the calls."""
        asyncio = asyncio_module()
        asking = self._asking = _asking_node(self._node)
        width = asyncio.Semaphore(self._loop.max_parallel)
        tasks: list[Task[_Result]] = []
        done = 0
        problem: Exception | None = None
        try:
            for call in calls:
                yield ToolEvent(kind="call", node=asking, call=call)
            tasks += [
                asyncio.ensure_future(self._run_call(call, approval, width))
                for call, approval in zip(calls, approvals, strict=True)
            ]
            for call, task in zip(calls, tasks, strict=True):
                await asyncio.wait((task,), timeout=self._remaining())
                self._remaining()
                result = task.result()
                problem = problem or result.error
                self._add_result(call, result)
                done += 1
                yield ToolEvent(kind="result", node=self._node, call=call)
        finally:
            for task in tasks:
                task.cancel()
            for number, call in enumerate(calls[done:], start=done):
                self._add_result(call, _result_of(tasks[number : number + 1]))
        if problem is not None and self._loop.on_error == "raise":
            raise problem

    def _add_result(self, call: ToolCall, result: _Result) -> None:
        self._node = self._node.add_tool_result(call.id, result.content, is_error=result.is_error)

    def _mark_started(self, call: ToolCall) -> bool:
        """Note in the file that a call is started; return False if it was before a crash."""
        if not self._asking.is_recorded:
            return True  # nothing survives a crash
        name = STARTED + call.id
        if name in self._asking.notes:
            return False
        self._asking.note(name, value=True)
        return True

    def _why_not(self, call: ToolCall, approval: bool | str) -> str | None:  # noqa: FBT001
        """Return what the model is told about a call that does not run, or None."""
        if not isinstance(self._tools.get(call.name), Tool):
            names = ", ".join(self._tools) or "none"
            return f"there is no tool {call.name!r:.80}; the tools are {names}"
        if approval is not True:
            return approval if isinstance(approval, str) else NOT_ALLOWED
        return None if self._mark_started(call) else INTERRUPTED

    async def _run_call(
        self,
        call: ToolCall,
        approval: bool | str,  # noqa: FBT001
        width: "Semaphore",
    ) -> _Result:
        limit = self._loop.tool_timeout_secs
        async with width:
            problem = self._why_not(call, approval)
            tool = self._tools.get(call.name)
            if problem is not None or not isinstance(tool, Tool):
                return _failure(problem or "")
            clock = asyncio_module().timeout(limit)
            try:
                async with clock:
                    value = tool.run(call)
                    if inspect.isawaitable(value):
                        value = await value
            except ToolArgumentError as error:
                return _failure(str(error))
            except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
                if isinstance(error, TimeoutError) and clock.expired():
                    return _failure(f"{call.name} did not end within {limit} s")
                return _failure(_describe(error), error)
        return _Result(_as_content(value, self._loop.max_result_chars))


def _by_name(tools: Sequence[ToolLike | Tool]) -> dict[str, Tool | ToolDefinition]:
    given: object = tools
    if not isinstance(given, list | tuple):
        raise InvalidParameterError("the tools of run_tools must be a list of functions or tools")
    by_name: dict[str, Tool | ToolDefinition] = {}
    for each in tools:
        tool: Tool | ToolDefinition
        if isinstance(each, Tool):
            tool = each
        elif isinstance(each, ToolDefinition | Mapping):
            tool = as_tool(each)
        else:
            tool = Tool.from_function(each)
        name = _definition_of(tool).name
        if name in by_name:
            raise InvalidParameterError(f"two of the tools have the name {name!r}")
        by_name[name] = tool
    return by_name


def _definition_of(tool: Tool | ToolDefinition) -> ToolDefinition:
    return tool.definition if isinstance(tool, Tool) else tool


def _result_of(tasks: "Sequence[Task[_Result]]") -> _Result:
    """Return the result of the one task, or that of a call that did not end."""
    for task in tasks:
        if task.done() and not task.cancelled():
            return task.result()
    return _failure(CANCELLED)


def _failure(text: str, error: Exception | None = None) -> _Result:
    return _Result(text, is_error=True, error=error)


def _describe(error: BaseException) -> str:
    text = str(error)
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
    return f"{text[:max_chars]}\n[{len(text) - max_chars:,} more characters were cut off]"


def _as_json(value: object) -> str:
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, RecursionError):
        return str(value)


def _plain(value: object) -> JsonValue:
    dump = getattr(value, "model_dump", None)  # of pydantic
    return dump(mode="json") if callable(dump) else str(value)
