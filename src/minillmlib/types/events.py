"""Frozen events for observers, one for each step of a call, a tool loop or a bulk run."""

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from typing import Literal, TypeAlias, TypeVar

import msgspec

from minillmlib.errors import InvalidParameterError
from minillmlib.json_value import JsonValue
from minillmlib.types.costs import Attempt
from minillmlib.types.messages import Message
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.usage import Usage


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of all events.

    `id` is the number of the completion, tool loop, tool or bulk run in this process, and `at` the
    time in seconds since 1970.
    """

    id: int
    at: float


class CompletionStarted(_Event, frozen=True, kw_only=True):
    """A completion begins: one answer, with all attempts that it takes.

    Attributes:
        id: Its number.
        at: The time, in seconds since 1970.
        parent: The number of the tool loop, tool or bulk run that it belongs to, if any.
        generator: The name of the generator.
        model: The model that is asked for.
        base_url: The address of the server.
        is_chat: Whether it is a conversation. A base model continues a text.
        is_streamed: Whether it is a stream.
        choices: The number of answers that the one request asks for.
        parameters: The sampling parameters that are set.
    """

    parent: int | None
    generator: str
    model: str
    base_url: str
    is_chat: bool
    is_streamed: bool
    choices: int
    parameters: Mapping[str, JsonValue]


class AttemptStarted(_Event, frozen=True, kw_only=True):
    """A request is ready to be sent: built, within its pace, its cost reserved.

    Attributes:
        id: The number of its completion.
        at: The time, in seconds since 1970.
        number: The number of the attempt, from 1.
        generator: The name of the generator, which with a fallback tells who is asked.
        model: The model.
        method: The method.
        url: The address. What follows a "?" is "[hidden]".
        sent_bytes: The size of the body.
        messages: Content: the messages to send, without secrets.
        headers: Content: the headers; a secret value is "[hidden]".
        body: Content: the body, without secrets.
    """

    number: int
    generator: str
    model: str
    method: str
    url: str
    sent_bytes: int
    messages: tuple[Message, ...] | None = None
    headers: Mapping[str, str] | None = None
    body: bytes | None = None


class RequestSent(_Event, frozen=True, kw_only=True):
    """The request was given to the HTTP engine, which connects and sends."""

    number: int


class HeadersReceived(_Event, frozen=True, kw_only=True):
    """The status and the headers of the response have arrived.

    Attributes:
        id: The number of the completion.
        at: The time, in seconds since 1970.
        number: The number of the attempt.
        status: The HTTP status.
        headers: Content: the headers, without secrets.
    """

    number: int
    status: int
    headers: Mapping[str, str] | None = None


class FirstByteReceived(_Event, frozen=True, kw_only=True):
    """The first piece of the response's body has arrived."""

    number: int


class AttemptEnded(_Event, frozen=True, kw_only=True):
    """An attempt was settled: answered, rejected, denied, failed, abandoned or not sent.

    Attributes:
        id: The number of the completion.
        at: The time, in seconds since 1970.
        attempt: The record: outcome, status, ids, and the cost with its resolution and usage.
        body: Content: the body of the response as far as it was read, at most 1 MB, without
            secrets.
    """

    attempt: Attempt
    body: bytes | None = None


class CompletionEnded(_Event, frozen=True, kw_only=True):
    """A completion was answered, failed, or was abandoned (cancelled, closed or dropped).

    Attributes:
        id: Its number.
        at: The time, in seconds since 1970.
        outcome: How it ended.
        attempts: The records of all attempts.
        finish_reason: Why the model stopped, if there is an answer.
        model: The model that answered, as the server names it, or "".
        response_id: The server's id of the answer, or "".
        usage: The tokens of the answer, if they are known.
        error: The name of the class of the error that ended it.
        message: Content: the text of that error.
        response: Content: the answer, without secrets.
    """

    outcome: Literal["answered", "failed", "abandoned"]
    attempts: tuple[Attempt, ...]
    finish_reason: str | None = None
    model: str = ""
    response_id: str = ""
    usage: Usage | None = None
    error: str | None = None
    message: str | None = None
    response: CompletionResponse | None = None


class CostUpdated(_Event, frozen=True, kw_only=True):
    """The unknown cost of an attempt was published later. Comes after `CompletionEnded`.

    Attributes:
        id: The number of the completion.
        at: The time, in seconds since 1970.
        attempt: The record, with its cost.
    """

    attempt: Attempt


class ToolLoopStarted(_Event, frozen=True, kw_only=True):
    """A tool loop begins. Its completions and tools have its number as their `parent`."""

    parent: int | None
    generator: str
    model: str
    tools: tuple[str, ...]


class ToolLoopEnded(_Event, frozen=True, kw_only=True):
    """A tool loop has ended: by an answer, by calls that wait, or by an error.

    Attributes:
        id: Its number.
        at: The time, in seconds since 1970.
        turns: The number of answers.
        error: The name of the class of the error that ended it.
    """

    turns: int
    error: str | None = None


class ToolStarted(_Event, frozen=True, kw_only=True):
    """A tool begins to run. What it asks of models has its number as `parent`.

    Attributes:
        id: The number of this run of the tool.
        at: The time, in seconds since 1970.
        parent: The number of the tool loop.
        name: The name of the tool.
        call_id: The id of the model's call.
        arguments: Content: the arguments, as the JSON that the model wrote.
    """

    parent: int | None
    name: str
    call_id: str
    arguments: str | None = None


class ToolEnded(_Event, frozen=True, kw_only=True):
    """A tool has ended.

    Attributes:
        id: The number of this run of the tool.
        at: The time, in seconds since 1970.
        error: The name of the class of what it raised.
        result: Content: the text of its result for the model.
    """

    error: str | None = None
    result: str | None = None


class BulkRunStarted(_Event, frozen=True, kw_only=True):
    """A `map_complete` begins. Its completions and tool loops have its number as `parent`.

    `items` is their number, unless the input is lazy.
    """

    parent: int | None
    generator: str
    model: str
    items: int | None


class BulkRunEnded(_Event, frozen=True, kw_only=True):
    """A `map_complete` has ended.

    Attributes:
        id: Its number.
        at: The time, in seconds since 1970.
        done: The number of items with an answer.
        failed: The number of those with an error.
        error: The name of the class of the error that ended the run.
    """

    done: int
    failed: int
    error: str | None = None


ObservedEvent: TypeAlias = (
    CompletionStarted
    | AttemptStarted
    | RequestSent
    | HeadersReceived
    | FirstByteReceived
    | AttemptEnded
    | CompletionEnded
    | CostUpdated
    | ToolLoopStarted
    | ToolLoopEnded
    | ToolStarted
    | ToolEnded
    | BulkRunStarted
    | BulkRunEnded
)

EventT = TypeVar("EventT", bound=ObservedEvent)

# The fields that hold what the user or the model wrote, or what the server sent.
CONTENT_FIELDS = frozenset((
    "messages", "headers", "body", "message", "response", "arguments", "result",
))  # fmt: skip


def without_content(event: EventT) -> EventT:
    """Return the event for an observer that has not asked for content."""
    names = [
        name
        for name in event.__struct_fields__
        if name in CONTENT_FIELDS and getattr(event, name) is not None
    ]
    return msgspec.structs.replace(event, **dict.fromkeys(names)) if names else event


class Observer:
    """Base class of observers. A plain function of an event is an observer, too.

    An observer is called at once, in the thread and task of the call, so it must be quick and may
    not wait. What it raises is logged and harms nothing. See `observe`.

    Attributes:
        wants_content: Whether events show content: messages, headers, bodies, the model's words,
            arguments and results, all without the secrets of the call. False by default.

    Examples:
        >>> class Costs(Observer):
        ...     def on_event(self, event):
        ...         if isinstance(event, AttemptEnded):
        ...             print(event.attempt.outcome.value, event.attempt.cost)
        >>> generator = GeneratorInfo.openai("gpt-4o-mini").with_token_price(TokenPrice(1, 5))
        >>> with observe(Costs()):
        ...     answer = run(ChatNode.root().chat("Hello", generator))
        answered $0.000015
    """

    wants_content: bool = False

    def on_event(self, event: ObservedEvent) -> None:
        """Take an event."""

    def request_headers(self, event: AttemptStarted) -> Mapping[str, str]:  # noqa: ARG002
        """Return headers to send with an attempt, such as those of a trace; none by default.

        Called after `on_event` with the same event. A header that the request has already stays as
        it is.
        """
        return {}


ObserverLike: TypeAlias = Observer | Callable[[ObservedEvent], object]


class _FunctionObserver(Observer):
    def __init__(self, function: Callable[[ObservedEvent], object], *, content: bool) -> None:
        self._function = function
        self.wants_content = content

    def on_event(self, event: ObservedEvent) -> None:
        self._function(event)

    def __repr__(self) -> str:
        return f"<observer {self._function!r}>"


def as_observer(observer: ObserverLike, *, content: bool) -> Observer:
    """Return an observer; of a function, one that calls it. Raises `InvalidParameterError`."""
    if isinstance(observer, Observer):
        if content and not observer.wants_content:
            raise InvalidParameterError(
                "content=True is for functions; an Observer says so itself, by wants_content"
            )
        return observer
    if isinstance(observer, type) or not callable(observer):
        given: object = observer
        shown = given if isinstance(given, type) else type(given).__name__
        del observer, given  # it may be a misplaced key, and tracebacks show local variables
        raise InvalidParameterError(
            f"an observer is a function of an event, or an Observer, not {shown}"
        )
    if iscoroutinefunction(observer):
        raise InvalidParameterError(
            "an observer is called and not awaited, so a coroutine function would do nothing; give "
            "a plain function, which may put the event into a queue"
        )
    return _FunctionObserver(observer, content=content)
