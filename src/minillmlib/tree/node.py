"""ChatNode: the handle through which a conversation is used."""

from collections.abc import Callable, Iterable
from typing import Generic, Self, TypeAlias, TypeVar, cast, get_args, overload

from minillmlib.client.cache_warmup import warmed
from minillmlib.client.complete import complete
from minillmlib.client.context import CompletionContext, TrackedStream
from minillmlib.client.estimate import estimate_cost
from minillmlib.client.placeholders import PLACEHOLDER, filled, placeholders_in
from minillmlib.client.prefix_cache import LONG
from minillmlib.client.prepare import Call, plan
from minillmlib.client.stream import StreamingCompletion
from minillmlib.client.validate import NOT_PARSED
from minillmlib.errors import InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue, excerpt
from minillmlib.tree.compaction import collapsed
from minillmlib.tree.kept import KeptPlace
from minillmlib.tree.records import FormatValue, plain_value
from minillmlib.tree.render import as_html, as_markdown, as_text
from minillmlib.tree.store import NO_NODE
from minillmlib.tree.tree import Tree
from minillmlib.types.attempts import CostInfo
from minillmlib.types.budget import CostEstimate
from minillmlib.types.costs import CostTotal
from minillmlib.types.media import Media
from minillmlib.types.messages import CacheTtl, ContentPart, Message, Role
from minillmlib.types.parameters import ParametersLike, TypedParameters, node_parameters
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.tools import ToolCall

__all__ = ["ChatNode", "ParsedNode"]

T = TypeVar("T")
Said: TypeAlias = str | Iterable[ContentPart]

SHOWN_CHARS = 2000


class ChatNode(KeptPlace):
    """One message in a conversation tree.

    Made by `ChatNode.root` and its kin, never directly. A handle: cheap to make, equal to every
    other handle of the same node. What is said is never changed, only added to, so any number of
    tasks may branch from one node at once.
    """

    __slots__ = ()

    @property
    def message(self) -> Message:
        """The message of this node."""
        return self._tree.message(self._index)

    @property
    def text(self) -> str | None:
        """The text of the message, or None if it has none."""
        return self.message.text

    @property
    def role(self) -> Role:
        """Who said it."""
        return self.message.role

    @property
    def is_generated(self) -> bool:
        """Whether a model wrote this message in a call of this library."""
        return self._tree.response(self._index) is not None

    @property
    def response(self) -> CompletionResponse:
        """The response this node came from: finish reason, usage, cost, the raw answer.

        Raises `InvalidParameterError` for a message that was not generated (`is_generated`).
        """
        response = self._tree.response(self._index)
        if response is None:
            raise InvalidParameterError("this message was not generated, so it has no response")
        return response

    @property
    def cost(self) -> CostTotal:
        """What this message cost, with all attempts at it; zero for one that no model wrote."""
        response = self._tree.response(self._index)
        return CostTotal() if response is None else response.total_cost

    def path_cost(self) -> CostTotal:
        """What the conversation from the root to this node cost. O(depth)."""
        return self._sum(self._tree.path(self._index))

    def subtree_cost(self) -> CostTotal:
        """What this node and everything below it cost, each node once. O(nodes)."""
        return self._sum(self._tree.depth_first(self._index))

    def _sum(self, indexes: Iterable[int]) -> CostTotal:
        responses = (self._tree.response(index) for index in indexes)
        return sum((r.total_cost for r in responses if r is not None), CostTotal())

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls this message makes; each wants a result before the model goes on."""
        return self.message.tool_calls

    @property
    def media(self) -> tuple[Media, ...]:
        """The images and the sound that the model made beside its text."""
        return self.message.media

    def graft(self, other: "ChatNode") -> Self:
        """Adds a copy of a node, with all below it, as a child of this one; returns the copy.

        The other may be of any tree, and stays as it is. A copy costs nothing: the costs stay
        where they were paid. O(nodes).
        """
        if not isinstance(other, ChatNode):
            raise InvalidParameterError(f"graft takes a node, not {type(other).__name__}")
        return self._grafted(other)

    def set_format_kwarg(self, name: str, value: FormatValue) -> Self:
        """Gives `{name}` a value in every call at or below this node; returns the node.

        Values of nodes nearer to the leaf, and those of a call, come first. None is a placeholder
        that they must fill. The texts in the tree stay as they are.
        """
        if PLACEHOLDER.fullmatch(f"{{{name}}}") is None:
            raise InvalidParameterError(f"a placeholder has a name like a variable, not {name!r}")
        values = {**self._tree.kwargs(self._index), name: plain_value(name, value)}
        self._tree.set_kwargs(self._index, values)
        return self

    @property
    def format_kwargs(self) -> dict[str, FormatValue]:
        """The placeholders with values here, from this node and all before it. O(depth)."""
        return self._tree.thread_kwargs(self._index)

    def missing_format_kwargs(self) -> list[str]:
        """The placeholders of the thread that have no value yet, in order. O(text)."""
        values = self._given_kwargs()
        found = [name for message in self.thread() for name in placeholders_in(message)]
        named = [name for name in self.format_kwargs if name not in values]
        return list(dict.fromkeys([*named, *(name for name in found if name not in values)]))

    def formatted_thread(self, /, **values: str | float) -> list[Message]:
        """The thread with its placeholders filled in; those without a value stay as they are."""
        return list(filled(self.thread(), self._given_kwargs() | values))

    def _given_kwargs(self) -> dict[str, str | int | float]:
        """The placeholders that have a value here, without those that must get one."""
        return {name: value for name, value in self.format_kwargs.items() if value is not None}

    async def collapse_thread(
        self,
        *,
        keep_last: int,
        generator: GeneratorInfo | None = None,
        params: ParametersLike = None,
    ) -> Self:
        """A new, shorter conversation; returns its leaf. This one stays as it is.

        It has the system prompt, a note in place of the middle, and the last `keep_last`
        messages. With a generator the note is the model's summary of the middle, which is a paid
        call: its response, with the cost, is that of the note. Without one it says how many
        messages were left out.
        """
        short = await collapsed(self.thread(), keep_last, generator, params)
        tree = Tree()
        index = tree.append(NO_NODE, *short.before, response=short.summary)
        if self.format_kwargs:
            tree.set_kwargs(tree.root(index), self.format_kwargs)
        return type(self)(tree, tree.append(index, *short.after) if short.after else index)

    def pretty(self, most_chars: int | None = None) -> str:
        """The conversation from the root to here as text for people and logs.

        Each message is cut to `most_chars`, if that is set.
        """
        return as_text(self.thread(), most_chars)

    def to_markdown(self) -> str:
        """The conversation from the root to here as Markdown."""
        return as_markdown(self.thread())

    def thread(self) -> list[Message]:
        """The messages from the root to this node. O(depth)."""
        return self._tree.thread(self._index)

    def to_html(self, title: str = "Conversation") -> str:
        """This node and all below it as one HTML page for any browser; it works offline."""
        from minillmlib.tree.page import html_page  # noqa: PLC0415 - few programs need it

        return html_page(self, title)

    def add_user(self, content: Said) -> Self:
        """Adds what the person says as a child; returns the new node."""
        return self._add(Message.user(content))

    def add_assistant(self, content: Said) -> Self:
        """Adds what the model is to have said as a child; returns the new node."""
        return self._add(Message.assistant(content))

    def add_tool_result(self, call_id: str, content: Said, *, is_error: bool = False) -> Self:
        """Adds what a tool gave for the call with this id; returns the new node.

        Results of parallel calls are chained: each is added to the node of the one before.
        """
        return self._add(Message.tool_result(call_id, content, is_error=is_error))

    def estimate_cost(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> CostEstimate:
        """The most that one attempt to complete this node can cost, or what is missing to say so.

        Nothing is sent. See `CostEstimate`.
        """
        return estimate_cost(
            self._tree.marked_thread(self._index), generator, self._filling(params)
        )

    async def ensure_cached(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> CostInfo:
        """Writes the prompt up to this node to the provider's cache, or refreshes it there.

        With no output where the wire can (Anthropic), else with the least it permits. The prompt
        ends at its last mark; without one, or with `with_cache(True)`, this node is marked for
        the call. Where marks are needed, the calls that follow need theirs to read what was
        written. Nothing is added to the tree. What it cost is returned, and told to a
        `cost_callback` as well; a prompt that is too short shows as no token read or written.
        Raises `InvalidParameterError` where nothing can be warmed.
        """
        return await warmed(self._tree.marked_thread(self._index), generator, self._filling(params))

    def cache_breakpoint(self, ttl: CacheTtl = "5m") -> Self:
        """Marks the prompt up to and with this node for the provider's cache; returns the node.

        Anthropic, and Claude at OpenRouter, take the last four marks of a conversation. Others
        cache by themselves; the answer's `request_report` says so. `ttl` is `"5m"` or `"1h"`.
        """
        if ttl not in get_args(CacheTtl):
            raise InvalidParameterError(f"the ttl of a cache mark is '5m' or '1h', not {ttl!r}")
        self._tree.mark(self._index, ttl)
        return self

    def clear_cache_breakpoint(self) -> Self:
        """Takes the mark of this node away, if it has one; returns the node."""
        self._tree.mark(self._index, None)
        return self

    def clear_all_cache_breakpoints(self) -> Self:
        """Takes the marks of the whole tree away; returns the node."""
        self._tree.clear_marks(self._tree.root(self._index))
        return self

    @overload
    async def complete(
        self, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    async def complete(self, generator: GeneratorInfo, params: ParametersLike = None) -> Self: ...

    async def complete(self, generator: GeneratorInfo, params: ParametersLike = None) -> "ChatNode":
        """Asks the model to continue from this node; returns the assistant's node.

        The path from the root to this node is the whole context, and the answer becomes a
        child of this node. On any error, and when cancelled, the tree stays as it was.
        """
        return await self._complete(generator, params)

    @overload
    async def chat(
        self, content: Said, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    async def chat(
        self, content: Said, generator: GeneratorInfo, params: ParametersLike = None
    ) -> Self: ...

    async def chat(
        self, content: Said, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "ChatNode":
        """Says something and returns the assistant's node.

        Both nodes are added when the answer is there. On any error, and when cancelled, the
        tree stays as it was, so the same call can be made again.
        """
        return await self._complete(generator, params, Message.user(content))

    @overload
    def complete_streaming(
        self, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def complete_streaming(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> StreamingCompletion[Self]: ...

    def complete_streaming(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "StreamingCompletion[ChatNode]":
        """Like `complete`, but chunk by chunk; the request is sent when reading begins."""
        call = self._call(generator, params, stream=True)
        return StreamingCompletion(call, self._keeper(call))

    @overload
    def chat_streaming(
        self, content: Said, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def chat_streaming(
        self, content: Said, generator: GeneratorInfo, params: ParametersLike = None
    ) -> StreamingCompletion[Self]: ...

    def chat_streaming(
        self, content: Said, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "StreamingCompletion[ChatNode]":
        """Like `chat`, but chunk by chunk; the request is sent when reading begins."""
        said = Message.user(content)
        call = self._call(generator, params, said, stream=True)
        return StreamingCompletion(call, self._keeper(call, said))

    @overload
    async def complete_tracked(
        self, context: CompletionContext, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    async def complete_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> Self: ...

    async def complete_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> "ChatNode":
        """Like `complete`, with the context's model; what it costs is always reported to it."""
        return await self._complete(context.generator, context.parameters(params))

    @overload
    async def chat_tracked(
        self, content: Said, context: CompletionContext, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    async def chat_tracked(
        self, content: Said, context: CompletionContext, params: ParametersLike = None
    ) -> Self: ...

    async def chat_tracked(
        self, content: Said, context: CompletionContext, params: ParametersLike = None
    ) -> "ChatNode":
        """Like `chat`, with the context's model; what it costs is always reported to it."""
        settings = context.parameters(params)
        return await self._complete(context.generator, settings, Message.user(content))

    @overload
    def complete_streaming_tracked(
        self, context: CompletionContext, params: TypedParameters[T]
    ) -> "TrackedStream[ParsedNode[T]]": ...

    @overload
    def complete_streaming_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> TrackedStream[Self]: ...

    def complete_streaming_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> "TrackedStream[ChatNode]":
        """Like `complete_streaming`; its cost is reported when it ends, however it ends."""
        settings = context.parameters(params)
        call = self._call(context.generator, settings, stream=True)
        return TrackedStream(call, self._keeper(call))

    async def _complete(
        self, generator: GeneratorInfo, params: ParametersLike, *said: Message
    ) -> "ChatNode":
        call = self._call(generator, params, *said, stream=False)
        return self._keeper(call, *said)(*await complete(call))

    def _call(
        self, generator: GeneratorInfo, params: ParametersLike, *said: Message, stream: bool
    ) -> Call:
        thread = [*self._tree.marked_thread(self._index), *said]
        past = None
        if len(thread) >= LONG:
            place = self._index if said else self._tree.parent(self._index)
            past = self._tree.past(place)
        return plan(thread, generator, self._filling(params), stream=stream, past=past)

    def _filling(self, params: ParametersLike) -> ParametersLike:
        """The parameters with the values that nodes give to placeholders, unless they have them."""
        named = self.format_kwargs
        if not named:
            return params
        settings = node_parameters(params)
        values = {**self._given_kwargs(), **settings.format_kwargs}
        missing = [name for name in named if name not in values]
        if missing:
            raise InvalidParameterError(
                f"these placeholders must have a value: {', '.join(missing)}; "
                "see set_format_kwarg and NodeCompletionParameters.with_format_kwargs"
            )
        return settings.replace(format_kwargs=values)

    def _add(self, message: Message) -> Self:
        return self._at(self._tree.append(self._index, message))

    def _keeper(
        self, call: Call, *said: Message
    ) -> Callable[[CompletionResponse, JsonValue], "ChatNode"]:
        """Adds what was said and answered when the answer is there."""

        def keep(response: CompletionResponse, parsed: JsonValue) -> ChatNode:
            answer = response.to_assistant_message()
            index = self._tree.append(self._index, *said, answer, response=response)
            if call.result_type is None:
                return self._at(index)
            return ParsedNode(self._tree, index, parsed)

        return keep

    def __str__(self) -> str:
        return self.pretty(SHOWN_CHARS)

    def _repr_html_(self) -> str:
        return as_html(self.thread())

    def __repr__(self) -> str:
        return f"<ChatNode {self._index} {self.role.value}: {excerpt(self.text or '', 60)!r}>"


class ParsedNode(ChatNode, Generic[T]):
    """The node of an answer that was to have a type, as the call that asked for it returns it.

    `parsed` belongs to this handle. Other handles of the node, and those reached from this one,
    are without it; their text is the JSON, and `response.json()` its value.
    """

    __slots__ = ("_parsed",)

    def __init__(self, tree: Tree, index: int, parsed: object = NOT_PARSED) -> None:
        super().__init__(tree, index)
        self._parsed = parsed

    @property
    def parsed(self) -> T:
        """The answer as the type that the call expected.

        Raises `InvalidParameterError` for an answer that asks for tools first, and for a handle
        that no such call returned.
        """
        if self._parsed is not NOT_PARSED:
            return cast("T", self._parsed)
        if self.tool_calls:
            raise InvalidParameterError(
                "the model asks for tools before it answers: add their results, and complete "
                "with the same parameters"
            )
        raise InvalidParameterError(
            "this handle has no parsed value: keep the node that the call with expecting() "
            "returned, or use response.json()"
        )
