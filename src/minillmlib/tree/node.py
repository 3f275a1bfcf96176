"""ChatNode: the handle through which a conversation is used."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Self, get_args

from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.pipeline.complete import complete
from minillmlib.pipeline.estimate import estimated_cost
from minillmlib.pipeline.plan import plan
from minillmlib.pipeline.stream import StreamingCompletion
from minillmlib.pipeline.tracking import CompletionContext, TrackedStream
from minillmlib.pipeline.warm import warmed
from minillmlib.tree.columns import NO_NODE, Tree
from minillmlib.values.attempts import CostInfo
from minillmlib.values.budget import CostEstimate
from minillmlib.values.costs import CostTotal
from minillmlib.values.json import excerpt
from minillmlib.values.media import MediaPart
from minillmlib.values.messages import CacheTtl, ContentPart, Message, Role
from minillmlib.values.parameters import ParametersLike
from minillmlib.values.responses import CompletionResponse
from minillmlib.values.tools import ToolCall

__all__ = ["ChatNode"]


class ChatNode:
    """One message in a conversation tree.

    Made by `ChatNode.root` or `ChatNode.from_messages`, never directly. A handle: cheap to
    make, equal to every other handle of the same node. Holding any node
    keeps its whole tree alive. Nodes are never changed, only added, so any number of tasks may
    branch from one node at once.
    """

    __slots__ = ("_index", "_tree")

    def __init__(self, tree: Tree, index: int) -> None:
        self._tree = tree
        self._index = index

    @classmethod
    def root(cls, system_prompt: str) -> Self:
        """A new conversation; the root is the system prompt."""
        return cls(Tree(Message.system(system_prompt)), 0)

    @classmethod
    def from_messages(cls, messages: Sequence[Message]) -> tuple[Self, Self]:
        """A linear conversation from a list: its root and its leaf.

        Raises `EmptyThreadError` for an empty list.
        """
        if not isinstance(messages, Sequence):
            raise InvalidParameterError(
                f"from_messages takes a list of Message objects, not {type(messages).__name__}"
            )
        for message in messages:
            if not isinstance(message, Message):
                raise InvalidParameterError(
                    f"from_messages takes Message objects, not {type(message).__name__}; "
                    "build them with Message.user(text) and its like"
                )
        if not messages:
            raise EmptyThreadError("from_messages needs at least one message")
        tree = Tree(messages[0])
        return cls(tree, 0), cls(tree, tree.append(0, *messages[1:]))

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
        return self._sum(self._tree.subtree(self._index))

    def _sum(self, indexes: Iterable[int]) -> CostTotal:
        responses = (self._tree.response(index) for index in indexes)
        return sum((r.total_cost for r in responses if r is not None), CostTotal())

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls this message makes; each wants a result before the model goes on."""
        return self.message.tool_calls

    @property
    def media(self) -> tuple[MediaPart, ...]:
        """The images and the sound that the model made beside its text."""
        return self.message.media

    @property
    def parent(self) -> Self | None:
        """The node before this one, or None at the root."""
        index = self._tree.parent(self._index)
        return None if index == NO_NODE else self._at(index)

    def children(self) -> list[Self]:
        """The alternate continuations of this node, oldest first."""
        return [self._at(index) for index in self._tree.children(self._index)]

    def thread(self) -> list[Message]:
        """The messages from the root to this node. O(depth)."""
        return self._tree.thread(self._index)

    def add_user(self, content: str | Iterable[ContentPart]) -> Self:
        """Adds what the person says as a child; returns the new node."""
        return self._add(Message.user(content))

    def add_assistant(self, content: str | Iterable[ContentPart]) -> Self:
        """Adds what the model is to have said as a child; returns the new node."""
        return self._add(Message.assistant(content))

    def add_tool_result(
        self, call_id: str, content: str | Iterable[ContentPart], *, is_error: bool = False
    ) -> Self:
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
        return estimated_cost(self._marked_thread(), generator, params)

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
        return await warmed(self._marked_thread(), generator, params)

    def cache_breakpoint(self, ttl: CacheTtl = "5m") -> Self:
        """Marks the prompt up to and with this node for the provider's cache; returns the node.

        Anthropic, and Claude at OpenRouter, take the last four marks of a conversation. Others
        cache by themselves; the answer's `receipt` says so. `ttl` is `"5m"` or `"1h"`.
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
        self._tree.clear_marks()
        return self

    async def complete(self, generator: GeneratorInfo, params: ParametersLike = None) -> Self:
        """Asks the model to continue from this node; returns the assistant's node.

        The path from the root to this node is the whole context, and the answer becomes a
        child of this node. On any error, and when cancelled, the tree stays as it was.
        """
        return await self._complete(generator, params)

    async def chat(
        self,
        content: str | Iterable[ContentPart],
        generator: GeneratorInfo,
        params: ParametersLike = None,
    ) -> Self:
        """Says something and returns the assistant's node.

        Both nodes are added when the answer is there. On any error, and when cancelled, the
        tree stays as it was, so the same call can be made again.
        """
        return await self._complete(generator, params, Message.user(content))

    def complete_streaming(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> StreamingCompletion[Self]:
        """Like `complete`, but chunk by chunk; the request is sent when reading begins."""
        call = plan(self._marked_thread(), generator, params, stream=True)
        return StreamingCompletion(call, partial(self._keep, ()))

    def chat_streaming(
        self,
        content: str | Iterable[ContentPart],
        generator: GeneratorInfo,
        params: ParametersLike = None,
    ) -> StreamingCompletion[Self]:
        """Like `chat`, but chunk by chunk; the request is sent when reading begins."""
        said = Message.user(content)
        call = plan([*self._marked_thread(), said], generator, params, stream=True)
        return StreamingCompletion(call, partial(self._keep, (said,)))

    async def complete_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> Self:
        """Like `complete`, with the context's model; what it costs is always reported to it."""
        return await self._complete(context.generator, context.parameters(params))

    async def chat_tracked(
        self,
        content: str | Iterable[ContentPart],
        context: CompletionContext,
        params: ParametersLike = None,
    ) -> Self:
        """Like `chat`, with the context's model; what it costs is always reported to it."""
        settings = context.parameters(params)
        return await self._complete(context.generator, settings, Message.user(content))

    def complete_streaming_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> TrackedStream[Self]:
        """Like `complete_streaming`; its cost is reported when it ends, however it ends."""
        settings = context.parameters(params)
        call = plan(self._marked_thread(), context.generator, settings, stream=True)
        return TrackedStream(call, partial(self._keep, ()))

    async def _complete(
        self, generator: GeneratorInfo, params: ParametersLike, *said: Message
    ) -> Self:
        call = plan([*self._marked_thread(), *said], generator, params, stream=False)
        return self._keep(said, await complete(call))

    def _marked_thread(self) -> list[Message]:
        return self._tree.marked_thread(self._index)

    def _add(self, message: Message) -> Self:
        return self._at(self._tree.append(self._index, message))

    def _keep(self, said: tuple[Message, ...], response: CompletionResponse) -> Self:
        answer = response.to_assistant_message()
        return self._at(self._tree.append(self._index, *said, answer, response=response))

    def _at(self, index: int) -> Self:
        return type(self)(self._tree, index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatNode):
            return NotImplemented
        return self._tree is other._tree and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._tree), self._index))

    def __repr__(self) -> str:
        return f"<ChatNode {self._index} {self.role.value}: {excerpt(self.text or '', 60)!r}>"
