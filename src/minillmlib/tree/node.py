"""ChatNode: the handle through which a conversation is used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minillmlib.errors import EmptyThreadError, InvalidParameterError
from minillmlib.generator import GeneratorInfo
from minillmlib.pipeline.complete import complete
from minillmlib.pipeline.plan import Call, plan
from minillmlib.pipeline.stream import CompletionStream
from minillmlib.tree.columns import NO_NODE, Tree
from minillmlib.values.json import excerpt
from minillmlib.values.messages import ContentPart, Message, Role
from minillmlib.values.parameters import ParametersLike
from minillmlib.values.responses import CompletionResponse

__all__ = ["ChatNode", "StreamingCompletion"]


class ChatNode:
    """One message in a conversation tree.

    A handle: cheap to make, equal to every other handle of the same node. Holding any node
    keeps its whole tree alive. Nodes are never changed, only added, so any number of tasks may
    branch from one node at once.
    """

    __slots__ = ("_index", "_tree")

    def __init__(self, tree: Tree, index: int) -> None:
        self._tree = tree
        self._index = index

    @classmethod
    def root(cls, system_prompt: str) -> ChatNode:
        """A new conversation; the root is the system prompt."""
        return cls(Tree(Message.system(system_prompt)), 0)

    @classmethod
    def from_messages(cls, messages: Sequence[Message]) -> tuple[ChatNode, ChatNode]:
        """A linear conversation from a list: its root and its leaf.

        Raises `EmptyThreadError` for an empty list.
        """
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
    def response(self) -> CompletionResponse | None:
        """The response this node came from (usage, cost, finish reason), if a model wrote it."""
        return self._tree.response(self._index)

    @property
    def parent(self) -> ChatNode | None:
        """The node before this one, or None at the root."""
        index = self._tree.parent(self._index)
        return None if index == NO_NODE else ChatNode(self._tree, index)

    def children(self) -> list[ChatNode]:
        """The alternate continuations of this node, oldest first."""
        return [ChatNode(self._tree, index) for index in self._tree.children(self._index)]

    def thread(self) -> list[Message]:
        """The messages from the root to this node. O(depth)."""
        return self._tree.thread(self._index)

    def add_user(self, content: str | Iterable[ContentPart]) -> ChatNode:
        """Adds what the person says as a child; returns the new node."""
        return self._add(Message.user(content))

    def add_assistant(self, content: str | Iterable[ContentPart]) -> ChatNode:
        """Adds what the model is to have said as a child; returns the new node."""
        return self._add(Message.assistant(content))

    async def complete(self, generator: GeneratorInfo, params: ParametersLike = None) -> ChatNode:
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
    ) -> ChatNode:
        """Says something and returns the assistant's node.

        Both nodes are added when the answer is there. On any error, and when cancelled, the
        tree stays as it was, so the same call can be made again.
        """
        return await self._complete(generator, params, Message.user(content))

    def complete_streaming(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> StreamingCompletion:
        """Like `complete`, but chunk by chunk; the request is sent when reading begins."""
        return StreamingCompletion(self, plan(self.thread(), generator, params, stream=True), ())

    def chat_streaming(
        self,
        content: str | Iterable[ContentPart],
        generator: GeneratorInfo,
        params: ParametersLike = None,
    ) -> StreamingCompletion:
        """Like `chat`, but chunk by chunk; the request is sent when reading begins."""
        said = Message.user(content)
        call = plan([*self.thread(), said], generator, params, stream=True)
        return StreamingCompletion(self, call, (said,))

    async def _complete(
        self, generator: GeneratorInfo, params: ParametersLike, *said: Message
    ) -> ChatNode:
        call = plan([*self.thread(), *said], generator, params, stream=False)
        return self._keep(said, await complete(call))

    def _add(self, message: Message) -> ChatNode:
        return ChatNode(self._tree, self._tree.append(self._index, message))

    def _keep(self, said: tuple[Message, ...], response: CompletionResponse) -> ChatNode:
        answer = Message.assistant(response.text)
        index = self._tree.append(self._index, *said, answer, response=response)
        return ChatNode(self._tree, index)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatNode):
            return NotImplemented
        return self._tree is other._tree and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._tree), self._index))

    def __repr__(self) -> str:
        return f"<ChatNode {self._index} {self.role.value}: {excerpt(self.text or '', 60)!r}>"


class StreamingCompletion(CompletionStream):
    """The chunks of an answer as they come, by `async for`.

    Best used with `async with`, which ends the connection when left early. Once the last chunk
    was taken, `node` is the new assistant node and `response` the whole answer. A stream that
    is left early or fails adds nothing to the tree.
    """

    def __init__(self, origin: ChatNode, call: Call, said: tuple[Message, ...]) -> None:
        super().__init__(call)
        self._origin = origin
        self._said = said
        self._node: ChatNode | None = None

    @property
    def node(self) -> ChatNode:
        """The assistant's node, once the stream was read to its end."""
        if self._node is None:
            raise InvalidParameterError("the stream has not been read to its end")
        return self._node

    def _deliver(self, response: CompletionResponse) -> None:
        self._node = self._origin._keep(self._said, response)  # noqa: SLF001 - the same room
