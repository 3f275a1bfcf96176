"""ChatNode: the handle through which a conversation is used."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Generic, NoReturn, Self, TypeAlias, TypeVar, cast, get_args, overload

import msgspec

from minillmlib.client.cache_plan import plan_cache
from minillmlib.client.cache_verdict import explain_cache
from minillmlib.client.cache_warmup import warm_cache
from minillmlib.client.completion import Completed, complete
from minillmlib.client.context import CompletionContext
from minillmlib.client.estimate import estimate_cost
from minillmlib.client.http_request import RequestPreview, preview_request
from minillmlib.client.placeholders import PLACEHOLDER, fill_placeholders, find_placeholders
from minillmlib.client.prefix_cache import PREFIX_CACHE_MIN_MESSAGES
from minillmlib.client.prepare import Call, check_generator, model_key, prepare
from minillmlib.client.stream import StreamingCompletion
from minillmlib.client.validate import NOT_PARSED
from minillmlib.errors import EmptyThreadError, InvalidParameterError, StorageError
from minillmlib.files import FilePath, read_small_file, write_whole
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonObject, excerpt
from minillmlib.protocols.chat_completions.request import encode_messages
from minillmlib.providers.openai import OpenAiProvider
from minillmlib.tree.compaction import compact_thread
from minillmlib.tree.journal import attach_journal
from minillmlib.tree.page import html_page
from minillmlib.tree.records import ID_BYTES, FormatValue, encode_lossy, plain_value
from minillmlib.tree.render import as_html, as_markdown, as_sharegpt, as_text
from minillmlib.tree.siblings import SiblingStreams, complete_many
from minillmlib.tree.thread_file import as_message, thread_from_json, thread_json
from minillmlib.tree.tool_loop import Tool, ToolLoop, ToolRun
from minillmlib.tree.tree import NO_NODE, Tree
from minillmlib.tree.tree_file import as_storage_error, load_tree, save_tree
from minillmlib.types.caching import CachePlan, CacheVerdict
from minillmlib.types.costs import CostEstimate, CostInfo, CostTotal, TokenPrice
from minillmlib.types.media import Media
from minillmlib.types.messages import CacheTtl, ContentPart, Message, Role
from minillmlib.types.parameters import (
    CALL_FIELDS,
    ParametersLike,
    TypedParameters,
    node_parameters,
)
from minillmlib.types.responses import CompletionResponse
from minillmlib.types.tools import ToolCall, ToolLike

T = TypeVar("T")
ContentLike: TypeAlias = str | Iterable[ContentPart]

OPENAI = OpenAiProvider.dialect
NO_FIELDS = (None,) * len(CALL_FIELDS)
DEFAULT_LOOP = ToolLoop()
MAX_STR_CHARS = 2000
MAX_FILE_BYTES = 1_000_000_000


class ChatNode:
    """One message in a conversation tree.

    Made by `ChatNode.root` or `from_messages`, never directly. A node is a handle: cheap to
    make, equal to every other handle of the same node, and enough to keep its whole tree alive.
    Nodes are added and never changed, so any number of tasks may branch from one node at once. No
    walk recurses, so a thread may be as long as memory allows.

    Examples:
        >>> root = ChatNode.root("Be brief.")
        >>> leaf = root.add_user("The capital of France?").add_assistant("Paris.")
        >>> leaf.depth, [message.role.value for message in leaf.thread()]
        (2, ['system', 'user', 'assistant'])
    """

    __slots__ = ("_index", "_tree")

    def __init__(self, tree: Tree, index: int) -> None:
        self._tree = tree
        self._index = index

    @classmethod
    def root(cls, system_prompt: str = "") -> Self:
        """Start a conversation. The root is the system prompt; an empty one is not sent."""
        return cls(Tree((Message.system(system_prompt),)), 0)

    @classmethod
    def from_messages(cls, messages: Sequence[Message | JsonObject]) -> tuple[Self, Self]:
        """Build a linear conversation from a list and return its root and its leaf.

        A message is a `Message`, or a dictionary as OpenAI's chat completions take it and as
        `to_openai` returns it. Raises `EmptyThreadError` for an empty list.

        Examples:
            >>> root, leaf = ChatNode.from_messages([{"role": "user", "content": "Hello"}])
            >>> leaf.text
            'Hello'
        """
        given: object = messages
        if isinstance(given, str | bytes) or not isinstance(given, Sequence):
            raise InvalidParameterError(
                f"from_messages takes a list of messages, not {type(given).__name__}"
            )
        if not messages:
            raise EmptyThreadError("from_messages needs at least one message")
        return cls._from_thread([as_message(each, place) for place, each in enumerate(messages)])

    @classmethod
    def from_thread_json(cls, document: bytes | str) -> tuple[Self, Self]:
        """Build a conversation from a JSON document and return its root and its leaf.

        Takes a document of `save_thread`, the Rust crate's `{"prompts": ..., "required_kwargs":
        ...}`, or a plain list of `{"role": ..., "content": ...}`. Raises `StorageError`, which
        names the place, for anything else.
        """
        return cls._from_thread(*thread_from_json(document))

    @classmethod
    def from_thread_file(cls, path: FilePath) -> tuple[Self, Self]:
        """Build a conversation as `from_thread_json` does, from a file of at most 1 GB."""
        with as_storage_error("read", path):
            document = read_small_file(path, MAX_FILE_BYTES)
        try:
            return cls.from_thread_json(document)
        except StorageError as error:
            raise StorageError(f"{str(path)!r}: {error}") from None

    @classmethod
    def load_tree(cls, path: FilePath, *more: FilePath) -> Self:
        """Load the whole tree of a file of `save_tree` or of a journal; return its root. O(nodes).

        `more` are diverged copies of that file: their additional nodes are added, shared ones are
        there once. A last line that a crash left unfinished is ignored, with a warning in the log.
        Nothing in a file is run, opened or fetched. Raises `StorageError`, which names the line,
        for a line that was changed or damaged.
        """
        return cls(load_tree(path, *more), 0)

    @classmethod
    def _from_thread(
        cls, messages: Sequence[Message], format_kwargs: Mapping[str, FormatValue] | None = None
    ) -> tuple[Self, Self]:
        tree = Tree(messages)
        if format_kwargs:
            tree.set_format_kwargs(0, format_kwargs)
        return cls(tree, 0), cls(tree, len(messages) - 1)

    def _at(self, index: int) -> Self:
        return type(self)(self._tree, index)

    @property
    def message(self) -> Message:
        """The message of this node."""
        return self._tree.store.messages[self._index]

    @property
    def text(self) -> str | None:
        """The text of the message, or None if it has none."""
        return self.message.text

    @property
    def role(self) -> Role:
        """The role of the message: system, user, assistant or tool."""
        return self.message.role

    @property
    def media(self) -> tuple[Media, ...]:
        """The images and the sound that the model made beside its text."""
        return self.message.media

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in this message; the model needs a result of each before it continues."""
        return self.message.tool_calls

    @property
    def is_generated(self) -> bool:
        """Whether a model wrote this message in a call of this library."""
        return self._tree.store.response(self._index) is not None

    @property
    def response(self) -> CompletionResponse:
        """The response behind this node: finish reason, usage, cost, the raw answer.

        Raises `InvalidParameterError` for a message that was not generated (`is_generated`).
        """
        response = self._tree.store.response(self._index)
        if response is None:
            raise InvalidParameterError("this message was not generated, so it has no response")
        return response

    @property
    def id(self) -> str:
        """A stable id: 32 hex digits derived from all messages from the root to this node.

        It is the same in every process and file. Identical siblings get different ids. O(1) after
        a first O(nodes) pass.
        """
        return self._tree.ids.hex(self._index)

    @property
    def parent(self) -> Self | None:
        """The node before this one, or None at the root. O(1)."""
        index = self._tree.store.parents[self._index]
        return None if index == NO_NODE else self._at(index)

    @property
    def root_node(self) -> Self:
        """The node that the conversation starts with. O(depth)."""
        return self._at(self._tree.store.root(self._index))

    @property
    def depth(self) -> int:
        """The number of nodes before this one; 0 for the root. O(depth)."""
        return sum(1 for _ in self._tree.store.path(self._index)) - 1

    @property
    def is_root(self) -> bool:
        """Whether this node has no parent. O(1)."""
        return self._tree.store.parents[self._index] == NO_NODE

    @property
    def is_leaf(self) -> bool:
        """Whether this node has no children. O(1)."""
        return self._tree.store.is_leaf(self._index)

    def children(self) -> list[Self]:
        """List the alternate continuations of this node, oldest first. O(children)."""
        return list(map(self._at, self._tree.store.children(self._index)))

    def siblings(self) -> list[Self]:
        """List the other children of this node's parent, oldest first. O(siblings)."""
        parent = self.parent
        return [] if parent is None else [node for node in parent.children() if node != self]

    def path(self) -> list[Self]:
        """List the nodes from the root to this one. O(depth)."""
        return list(map(self._at, self._tree.store.path(self._index)))[::-1]

    def thread(self) -> list[Message]:
        """List the messages from the root to this node. O(depth)."""
        return self._tree.store.thread(self._index)

    def depth_first(self) -> Iterator[Self]:
        """Iterate over this node and all below it, parents first, oldest first. O(1) a node."""
        return map(self._at, self._tree.store.depth_first(self._index))

    def breadth_first(self) -> Iterator[Self]:
        """Iterate over this node and all below it, level by level. O(1) a node."""
        return map(self._at, self._tree.store.breadth_first(self._index))

    def in_insertion_order(self) -> list[Self]:
        """List this node and all below it in the order they were added. O(n log n).

        The last is the newest. A file keeps this order.
        """
        return list(map(self._at, sorted(self._tree.store.depth_first(self._index))))

    def leaves(self) -> Iterator[Self]:
        """Iterate over the ends of all branches from here, oldest first. O(nodes below)."""
        store = self._tree.store
        return map(self._at, filter(store.is_leaf, store.depth_first(self._index)))

    def node_count(self) -> int:
        """Count this node and all below it. O(nodes below)."""
        return sum(1 for _ in self._tree.store.depth_first(self._index))

    def find(self, what: str | Callable[[Self], object]) -> Self | None:
        """Find a node by its id or by a function; return it, or None.

        An id is looked up in the whole tree. A function is called with this node and those below,
        depth first, until it returns a true value.
        """
        if callable(what):
            return next((node for node in self.depth_first() if what(node)), None)
        try:
            node_id = bytes.fromhex(what)
        except (TypeError, ValueError):
            node_id = b""
        if len(node_id) != ID_BYTES:
            raise InvalidParameterError(
                f"find takes an id of {2 * ID_BYTES} hexadecimal digits, or a function of a node, "
                f"not {what!r:.80}"
            )
        index = self._tree.ids.find(node_id, self._index)
        return None if index == NO_NODE else self._at(index)

    def add_user(self, content: ContentLike) -> Self:
        """Add a user message as a child and return the new node."""
        return self._add(Message.user(content))

    def add_assistant(self, content: ContentLike) -> Self:
        """Add an assistant message as a child and return the new node."""
        return self._add(Message.assistant(content))

    def add_tool_result(
        self, call_id: str, content: ContentLike, *, is_error: bool = False
    ) -> Self:
        """Add the result of the tool call with this id as a child and return the new node.

        Chain the results of parallel calls: add each to the node of the one before. Raises
        `InvalidParameterError` if no message of the thread has such a call.
        """
        store, ids = self._tree.store, []
        for index in store.path(self._index):
            ids += [call.id for call in store.messages[index].tool_calls]
            if call_id in ids:
                break
        else:
            names = ", ".join(map(repr, ids)) or "none"
            raise InvalidParameterError(
                f"no call of this conversation has the id {call_id!r}; its calls are {names}"
            )
        return self._add(Message.tool_result(call_id, content, is_error=is_error))

    @overload
    def add_response(
        self, response: CompletionResponse, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    def add_response(self, response: CompletionResponse, params: ParametersLike = None) -> Self: ...

    def add_response(
        self, response: CompletionResponse, params: ParametersLike = None
    ) -> "ChatNode":
        """Add an answer that was completed elsewhere, with its cost, as a child; return the node.

        With `params` of `expecting` the answer is parsed: raises `ResponseValidationError` if it
        does not fit.
        """
        message = response.to_assistant_message()
        if isinstance(params, TypedParameters) and not response.tool_calls:
            parsed = params.result_type.parse(response.content)
            return ParsedNode(
                self._tree, self._tree.append(self._index, (message,), response), parsed
            )
        return self._at(self._tree.append(self._index, (message,), response))

    def _add(self, message: Message) -> Self:
        return self._at(self._tree.append(self._index, (message,)))

    def graft(self, other: "ChatNode") -> Self:
        """Add a copy of a node, with all below it, as a child of this one; return the copy.

        The other may be in any tree, and stays as it is. The copy's costs are zero: they stay
        with the nodes that were paid for. O(nodes).
        """
        if not isinstance(other, ChatNode):
            raise InvalidParameterError(f"graft takes a node, not {type(other).__name__}")
        tree, index = other._tree, other._index  # noqa: SLF001 - of this class, too
        return self._at(self._tree.graft(self._index, tree, index))

    def copy_thread(self, format_kwargs: Mapping[str, FormatValue] | None = None) -> Self:
        """Copy the conversation from the root to this node into a tree of its own; return the leaf.

        Cache breakpoints and placeholders come along, with the values in `format_kwargs`. The
        copy's costs are zero. O(depth).
        """
        values = {name: plain_value(name, value) for name, value in (format_kwargs or {}).items()}
        thread = self._tree.thread_with_breakpoints(self._index)
        return self._from_thread(thread, self.format_kwargs | values)[1]

    def detach(self) -> Self:
        """Turn this node, with all below it, into a separate tree, and return it.

        Handles and ids stay valid and unchanged. Does nothing at the root. O(siblings) after a
        first O(nodes) pass.
        """
        self._tree.detach(self._index)
        return self

    def set_format_kwarg(self, name: str, value: FormatValue) -> Self:
        """Set the value of `{name}` for every call at or below this node; return the node.

        A call's values win over those of nodes, and nodes nearer to the leaf over those above.
        None is a placeholder that they must fill. The texts in the tree do not change.
        """
        given: object = name
        if not isinstance(given, str) or PLACEHOLDER.fullmatch(f"{{{given}}}") is None:
            raise InvalidParameterError(f"a placeholder has a name like a variable, not {name!r}")
        self._tree.set_format_kwarg(
            self._index, name, plain_value(f"the value of {{{name}}}", value)
        )
        return self

    @property
    def format_kwargs(self) -> dict[str, FormatValue]:
        """The placeholders set from the root to this node, with their values. O(depth)."""
        return self._tree.format_kwargs(self._index)

    def missing_format_kwargs(self) -> list[str]:
        """List the placeholders of the thread that have no value yet, in order. O(text)."""
        values = self._given_kwargs()
        found = (name for message in self.thread() for name in find_placeholders(message))
        names = dict.fromkeys([*self.format_kwargs, *found])
        return [name for name in names if name not in values]

    def formatted_thread(self, /, **values: str | float) -> list[Message]:
        """Fill in the placeholders of the thread; those without a value stay as they are."""
        return list(fill_placeholders(self.thread(), self._given_kwargs() | values))

    def _given_kwargs(self) -> dict[str, str | int | float]:
        return {name: value for name, value in self.format_kwargs.items() if value is not None}

    def note(self, name: str, value: FormatValue) -> Self:
        """Write a note on this node, such as a label or a score; None removes it.

        Notes are kept in files and shown with the tree. No model sees them. Returns the node.

            leaf.note("score", 0.9).note("label", "polite")
            best = max(root.leaves(), key=lambda leaf: leaf.notes.get("score", 0))
        """
        given: object = name
        if not isinstance(given, str) or not given or not given.isprintable():
            raise InvalidParameterError(f"the name of a note is a line of text, not {name!r}")
        self._tree.set_note(self._index, name, plain_value(f"the note {name!r}", value))
        return self

    @property
    def notes(self) -> dict[str, FormatValue]:
        """The notes on this node, by name. Names that begin with `_` are of the library."""
        return self._tree.notes(self._index)

    def cache_breakpoint(self, ttl: CacheTtl = "5m") -> Self:
        """Set a cache breakpoint: the prompt up to and with this node is cached; return the node.

        Anthropic, and Claude at OpenRouter, take the last four breakpoints of a conversation.
        Others cache by themselves; the answer's `request_report` says so.
        """
        if ttl not in get_args(CacheTtl):
            raise InvalidParameterError(
                f"the ttl of a cache breakpoint is '5m' or '1h', not {ttl!r}"
            )
        self._tree.set_breakpoint(self._index, ttl)
        return self

    def clear_cache_breakpoint(self) -> Self:
        """Remove the cache breakpoint of this node, if it has one; return the node."""
        self._tree.set_breakpoint(self._index, None)
        return self

    def clear_all_cache_breakpoints(self) -> Self:
        """Remove the cache breakpoints of the whole tree; return the node."""
        self._tree.clear_breakpoints(self._tree.store.root(self._index))
        return self

    @overload
    async def complete(
        self,
        generator: GeneratorInfo,
        params: TypedParameters[T],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "ParsedNode[T]": ...

    @overload
    async def complete(
        self,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> Self: ...

    async def complete(  # noqa: PLR0913 - the common fields
        self,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "ChatNode":
        """Ask the model to continue from this node and return the assistant's node.

        The path from the root to this node is the whole context, and the answer becomes a
        child of this node. On any error, and when cancelled, the tree stays as it was.

        The keywords are fields of the parameters, for this call; they win over those in `params`.

        Examples:
            >>> question = ChatNode.root("Be brief.").add_user("The capital of France?")
            >>> run(question.complete(GeneratorInfo.openai("gpt-4o-mini"))).text
            'Paris.'
        """
        fields = (temperature, max_tokens, tools, retry, timeout_secs)
        call, on_answer = self._prepare(generator, params, fields, stream=False)
        return on_answer(await complete(call))

    @overload
    async def chat(
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: TypedParameters[T],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "ParsedNode[T]": ...

    @overload
    async def chat(
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> Self: ...

    async def chat(  # noqa: PLR0913 - the common fields
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "ChatNode":
        """Send a user message and return the assistant's node.

        Both nodes are added when the answer is complete. On any error, and when cancelled, the
        tree stays as it was, so the same call can be made again. The keywords are those of
        `complete`.

            answer = await node.chat("Hello", generator, max_tokens=100, temperature=0)

        Examples:
            >>> generator = GeneratorInfo.openai("gpt-4o-mini")
            >>> answer = run(ChatNode.root("Be brief.").chat("The capital of France?", generator))
            >>> answer.text
            'Paris.'
        """
        fields = (temperature, max_tokens, tools, retry, timeout_secs)
        message = Message.user(content)
        call, on_answer = self._prepare(generator, params, fields, message, stream=False)
        return on_answer(await complete(call))

    @overload
    def complete_streaming(
        self,
        generator: GeneratorInfo,
        params: TypedParameters[T],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def complete_streaming(
        self,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> StreamingCompletion[Self]: ...

    def complete_streaming(  # noqa: PLR0913 - the common fields
        self,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "StreamingCompletion[ChatNode]":
        """Stream what `complete` returns; the request is sent when reading begins."""
        fields = (temperature, max_tokens, tools, retry, timeout_secs)
        return StreamingCompletion(*self._prepare(generator, params, fields, stream=True))

    @overload
    def chat_streaming(
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: TypedParameters[T],
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def chat_streaming(
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> StreamingCompletion[Self]: ...

    def chat_streaming(  # noqa: PLR0913 - the common fields
        self,
        content: ContentLike,
        generator: GeneratorInfo,
        params: ParametersLike = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        retry: int | None = None,
        timeout_secs: float | None = None,
    ) -> "StreamingCompletion[ChatNode]":
        """Stream what `chat` returns; the request is sent when reading begins.

        Examples:
            >>> generator = GeneratorInfo.openai("gpt-4o-mini")
            >>> stream = ChatNode.root().chat_streaming("The capital of France?", generator)
            >>> "".join(chunk.delta for chunk in iterate(stream))
            'Paris.'
        """
        fields = (temperature, max_tokens, tools, retry, timeout_secs)
        message = Message.user(content)
        return StreamingCompletion(*self._prepare(generator, params, fields, message, stream=True))

    @overload
    async def complete_many(
        self, n: int, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "list[ParsedNode[T]]": ...

    @overload
    async def complete_many(
        self, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> list[Self]: ...

    async def complete_many(
        self, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "Sequence[ChatNode]":
        """Ask the model for `n` answers and return their nodes, each a child of this node.

        OpenAI's chat models that do not reason answer one request `n` times, so the prompt is paid
        once; each node then has an equal share of the cost. Otherwise there are `n` requests at the
        same time, or, if the call writes a cache (`cache_breakpoint`, `with_cache`), one that goes
        ahead until its answer begins, so that the others read what it wrote.

        Raises `PartialFailureError` if some answers failed: it has the nodes of the others, which
        stay in the tree. If all failed, raises the first error. When cancelled, answers that have
        come stay in the tree.

        Examples:
            >>> question = ChatNode.root("Be brief.").add_user("The capital of France?")
            >>> answers = run(question.complete_many(3, GeneratorInfo.openai("gpt-4o-mini")))
            >>> [answer.text for answer in answers], question.children() == answers
            (['Paris.', 'Paris.', 'Paris.'], True)
        """
        call, on_answer = self._prepare(generator, params, NO_FIELDS, stream=False)
        return await complete_many(n, call, on_answer)

    @overload
    async def chat_many(
        self, content: ContentLike, n: int, generator: GeneratorInfo, params: TypedParameters[T]
    ) -> "list[ParsedNode[T]]": ...

    @overload
    async def chat_many(
        self, content: ContentLike, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> list[Self]: ...

    async def chat_many(
        self, content: ContentLike, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "Sequence[ChatNode]":
        """Send a user message and return the nodes of `n` answers, its children.

        The message is added with the first answer. Otherwise as `complete_many`.
        """
        message = Message.user(content)
        call, on_answer = self._prepare(generator, params, NO_FIELDS, message, stream=False)
        return await complete_many(n, call, on_answer)

    def complete_many_streaming(
        self, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "SiblingStreams[ChatNode]":
        """Stream what `complete_many` returns, in a request for each answer.

        async with question.complete_many_streaming(3, generator) as streams:
            async for index, chunk in streams:
                texts[index] += chunk.delta
        best = max(streams.nodes, key=score)
        """
        return SiblingStreams(n, *self._prepare(generator, params, NO_FIELDS, stream=True))

    def chat_many_streaming(
        self, content: ContentLike, n: int, generator: GeneratorInfo, params: ParametersLike = None
    ) -> "SiblingStreams[ChatNode]":
        """Stream what `chat_many` returns, in a request for each answer."""
        message = Message.user(content)
        return SiblingStreams(n, *self._prepare(generator, params, NO_FIELDS, message, stream=True))

    @overload
    async def run_tools(
        self,
        generator: GeneratorInfo,
        tools: Sequence[ToolLike | Tool],
        params: TypedParameters[T],
        loop: ToolLoop = ...,
    ) -> "ParsedNode[T]": ...

    @overload
    async def run_tools(
        self,
        generator: GeneratorInfo,
        tools: Sequence[ToolLike | Tool],
        params: ParametersLike = None,
        loop: ToolLoop = ...,
    ) -> Self: ...

    async def run_tools(
        self,
        generator: GeneratorInfo,
        tools: Sequence[ToolLike | Tool],
        params: ParametersLike = None,
        loop: ToolLoop = DEFAULT_LOOP,
    ) -> "ChatNode":
        """Complete this node, run the tools that the model calls, and go on until it answers.

        Tools are typed functions, run in threads, or coroutine functions; `Tool` and
        `ToolDefinition` are for others. The calls of one answer run at the same time. An unknown
        tool, wrong arguments, an exception or a time-out become an error result for the model.
        Each answer and each result is a node; the last node is returned. If `loop.approve` says
        "not now", or a call is of a `ToolDefinition`, which has no function, that is the node
        with the calls: add results yourself, or call `run_tools` on it later, also after loading
        it from a file. A call runs once: where it was started before, in another branch or, if the
        tree has a journal, before a crash, its recorded result is taken.

            answer = await root.add_user("How warm is it in Oslo?").run_tools(generator, [weather])

        On an error of the model or of `approve`, everything before it stays in the tree, so
        `run_tools` on the newest node goes on. When cancelled, calls without a result get one that
        says so. Raises `TurnLimitError` after `loop.max_turns` calls of the model.
        """
        run: ToolRun[ChatNode] = ToolRun(self, generator, tools, params, loop, is_streamed=False)
        async with run:
            return await run.collect()

    def run_tools_streaming(
        self,
        generator: GeneratorInfo,
        tools: Sequence[ToolLike | Tool],
        params: ParametersLike = None,
        loop: ToolLoop = DEFAULT_LOOP,
    ) -> ToolRun[Self]:
        """Do as `run_tools`, and yield each `ToolEvent`: chunks, answers, calls and results.

        async with node.run_tools_streaming(generator, [weather]) as run:
            async for event in run:
                if event.chunk is not None:
                    print(event.chunk.delta, end="")
        print(run.node.text)
        """
        return ToolRun(self, generator, tools, params, loop, is_streamed=True)

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
        """Do as `complete` with the context's model, and report the cost to the context."""
        return await self.complete(context.generator, context.parameters(params))

    @overload
    async def chat_tracked(
        self, content: ContentLike, context: CompletionContext, params: TypedParameters[T]
    ) -> "ParsedNode[T]": ...

    @overload
    async def chat_tracked(
        self, content: ContentLike, context: CompletionContext, params: ParametersLike = None
    ) -> Self: ...

    async def chat_tracked(
        self, content: ContentLike, context: CompletionContext, params: ParametersLike = None
    ) -> "ChatNode":
        """Do as `chat` with the context's model, and report the cost to the context."""
        return await self.chat(content, context.generator, context.parameters(params))

    @overload
    def complete_streaming_tracked(
        self, context: CompletionContext, params: TypedParameters[T]
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def complete_streaming_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> StreamingCompletion[Self]: ...

    def complete_streaming_tracked(
        self, context: CompletionContext, params: ParametersLike = None
    ) -> "StreamingCompletion[ChatNode]":
        """Do as `complete_streaming`, and report the cost to the context, however it ends."""
        return self.complete_streaming(context.generator, context.parameters(params))

    @overload
    def chat_streaming_tracked(
        self, content: ContentLike, context: CompletionContext, params: TypedParameters[T]
    ) -> "StreamingCompletion[ParsedNode[T]]": ...

    @overload
    def chat_streaming_tracked(
        self, content: ContentLike, context: CompletionContext, params: ParametersLike = None
    ) -> StreamingCompletion[Self]: ...

    def chat_streaming_tracked(
        self, content: ContentLike, context: CompletionContext, params: ParametersLike = None
    ) -> "StreamingCompletion[ChatNode]":
        """Do as `chat_streaming`, and report the cost to the context, however it ends."""
        return self.chat_streaming(content, context.generator, context.parameters(params))

    async def collapse_thread(
        self,
        *,
        keep_last: int,
        generator: GeneratorInfo | None = None,
        params: ParametersLike = None,
    ) -> Self:
        """Build a new, shorter conversation and return its leaf. This one stays as it is.

        It has the system prompt, a note in place of the middle, and the last `keep_last`
        messages. With a generator the note is the model's summary of the middle, a paid call
        whose response the note has. Without one it gives the number of messages left out.
        """
        tree, leaf = await compact_thread(self.thread(), keep_last, generator, params)
        if values := self.format_kwargs:
            tree.set_format_kwargs(0, values)
        return type(self)(tree, leaf)

    async def ensure_cached(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> CostInfo:
        """Write the prompt up to this node to the provider's cache, or refresh it there.

        Asks for no output where the wire can (Anthropic), else for the minimum it permits. The
        prompt ends at its last breakpoint; without one, or with `with_cache(True)`, this node gets
        one for the call. Where breakpoints are needed, later calls need the same ones to read the
        cache. The tree stays as it is. The cost is returned, and reported to a `cost_callback`; a
        prompt that is too short shows as no token read or written. Fallbacks are not asked. Raises
        `InvalidParameterError` where no cache can be written.
        """
        thread = self._tree.thread_with_breakpoints(self._index)
        return await warm_cache(thread, generator, self._with_node_placeholders(params))

    def cache_plan(self, generator: GeneratorInfo, params: ParametersLike = None) -> CachePlan:
        """Return what happens to each cache breakpoint if this node is completed; send nothing.

        The lengths are estimates, of four bytes a token. O(text).

        Examples:
            >>> root = ChatNode.root("Be brief.").cache_breakpoint()
            >>> print(root.add_user("Hi").cache_plan(GeneratorInfo.openai("gpt-4o-mini")))
            gpt-4o-mini, a prompt of about 4 tokens, cache minimum 1,024
            system prompt: automatic (this service caches by itself), 5m, about 3 tokens
            Probably nothing will be cached: the whole prompt is shorter than the minimum.
        """
        thread = self._tree.thread_with_breakpoints(self._index)
        return plan_cache(thread, generator, self._with_node_placeholders(params))

    @property
    def cache_verdict(self) -> CacheVerdict:
        """The verdict on the prompt cache: hit, partial, miss or expired, and what changed first.

        The call behind this node is compared with earlier ones of this process, of which digests
        are kept and no text. A prompt below 512 tokens is too short for that. Raises
        `InvalidParameterError` for a message that was not generated (`is_generated`).

            answer = await node.chat("Hello", generator)
            print(answer.cache_verdict)
        """
        return explain_cache(self.response)

    def _prepare(
        self,
        generator: GeneratorInfo,
        params: ParametersLike,
        fields: tuple[object, ...],
        *new: Message,
        stream: bool,
    ) -> "tuple[Call, Callable[[Completed], ChatNode]]":
        """Return the call, and a function that adds the new messages and the answer to the tree.

        It may be called again, with another answer to the same messages. `fields` are the values of
        `CALL_FIELDS` that the call gives.
        """
        check_generator(generator)
        if fields != NO_FIELDS:
            params = node_parameters(params).with_fields(
                dict(zip(CALL_FIELDS, fields, strict=True))
            )
        params = self._with_node_placeholders(params)
        tree, end = self._tree, self._index
        thread = [*tree.thread_with_breakpoints(end), *new]
        cache = tree.prefix_cache if len(thread) >= PREFIX_CACHE_MIN_MESSAGES else None
        prefix = None
        if cache is not None:
            if not new:
                end = tree.store.parents[end]
            path = tree.store.path(end)
            prefix = cache.find(path, generator.provider, model_key(generator))
        call = prepare(thread, generator, params, stream=stream, prefix=prefix)
        parent, unsaved = self._index, new

        def on_answer(completed: Completed) -> ChatNode:
            nonlocal parent, unsaved
            response = completed.response
            answer = response.to_assistant_message()
            index = tree.append(parent, (*unsaved, answer), response)
            if unsaved:
                parent, unsaved = tree.store.parents[index], ()
            if cache is not None and completed.prefix is not None:
                cache.store(end, completed.prefix)
            if call.result_type is None:
                return self._at(index)
            return ParsedNode(tree, index, completed.parsed)

        return call, on_answer

    def _with_node_placeholders(self, params: ParametersLike) -> ParametersLike:
        """Add the placeholders set on nodes to the parameters, whose values win."""
        named = self._tree.format_kwargs(self._index)
        if not named:
            return params
        settings = node_parameters(params)
        values = {name: value for name, value in named.items() if value is not None}
        values |= settings.format_kwargs
        missing = [name for name in named if name not in values]
        if missing:
            raise InvalidParameterError(
                f"these placeholders must have a value: {', '.join(missing)}; "
                "see set_format_kwarg and NodeCompletionParameters.with_format_kwargs"
            )
        filled = copy(settings)  # every value was checked, and all others were before
        msgspec.structs.force_setattr(filled, "format_kwargs", values)
        return filled

    @property
    def cost(self) -> CostTotal:
        """The cost of this message, with all attempts; zero for one that no model wrote."""
        return self._tree.cost([self._index])

    def path_cost(self) -> CostTotal:
        """Sum the costs of the conversation from the root to this node. O(depth)."""
        return self._tree.cost(self._tree.store.path(self._index))

    def subtree_cost(self) -> CostTotal:
        """Sum the costs of this node and everything below it, each node once. O(nodes)."""
        return self._tree.cost(self._tree.store.depth_first(self._index))

    def reprice(self, price: TokenPrice) -> CostTotal:
        """Return what this node and everything below it would have cost at another price. O(nodes).

        The tokens stay those that were counted: see `CostInfo.reprice`.

        Examples:
            >>> answer = run(ChatNode.root().chat("Hello", GeneratorInfo.openai("gpt-4o-mini")))
            >>> print(answer.root_node.reprice(TokenPrice(3, 15)))
            $0.000045
        """
        return self._tree.reprice(self._tree.store.depth_first(self._index), price)

    def estimate_cost(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> CostEstimate:
        """Estimate the maximum cost of one attempt to complete this node. Nothing is sent.

        Where it cannot be estimated, the result names what is missing; see `CostEstimate`.
        """
        thread = self._tree.thread_with_breakpoints(self._index)
        return estimate_cost(thread, generator, self._with_node_placeholders(params))

    def preview_request(
        self, generator: GeneratorInfo, params: ParametersLike = None
    ) -> RequestPreview:
        """Return the request that `complete` would send. Nothing is sent.

        Examples:
            >>> question = ChatNode.root("Be brief.").add_user("The capital of France?")
            >>> request = question.preview_request(GeneratorInfo.openai("gpt-4o-mini"))
            >>> request.url, [message["role"] for message in request.body["messages"]]
            ('https://api.openai.com/v1/chat/completions', ['system', 'user'])
        """
        return preview_request(self._prepare(generator, params, NO_FIELDS, stream=False)[0])

    def save_thread(self, path: FilePath) -> None:
        """Write the conversation from the root to this node as one JSON document.

        The file is replaced as a whole or not at all. Raises `StorageError`.
        """
        thread = self._tree.thread_with_breakpoints(self._index)
        document = thread_json(thread, self.format_kwargs)
        with as_storage_error("written", path):
            write_whole(path, [document])

    def save_tree(self, path: FilePath) -> None:
        """Write this node and all below it, with costs and ids, one line each. O(nodes).

        The file is replaced as a whole or not at all. Raises `StorageError`.
        """
        save_tree(self._tree, self._index, path)

    def attach_journal(self, path: FilePath) -> None:
        """Append this tree to a file as it grows: a new node is on disk before its call returns.

        The file and the tree are merged first, so a restarted program can load the file and
        continue. A crash loses at most the line being written. Only the root takes a journal.

        Several processes may append to one file, each with its own tree: no line is lost, and
        each sees the nodes of the others when it attaches or loads the file. A file that was
        removed or replaced meanwhile is written again, unless what replaced it is no journal.

        A call whose lines cannot be written raises `StorageError`. Its nodes stay in the tree,
        and the next change writes them too. `detach_journal` stops recording.
        """
        attach_journal(self._tree, self._root_index("attached to"), path)

    @property
    def is_recorded(self) -> bool:
        """Whether the tree is being recorded to a file; see `attach_journal`. O(depth)."""
        return self._tree.journal(self._index) is not None

    def detach_journal(self) -> None:
        """Stop appending this tree to the file of `attach_journal`, if it is."""
        self._tree.remove_journal(self._root_index("detached from"))

    def _root_index(self, done: str) -> int:
        if not self.is_root:
            raise InvalidParameterError(f"a journal is {done} the root: see root_node")
        return self._index

    def pretty(self, max_chars: int | None = None) -> str:
        """Render the conversation from the root to here as text for people and logs.

        Each message is cut to `max_chars`, if that is set.
        """
        return as_text(self.thread(), max_chars)

    def to_openai(self) -> list[JsonObject]:
        """Return the conversation as dictionaries, as OpenAI's chat completions take them.

        Placeholders that have a value are filled in. Reasoning, generated media and cache
        breakpoints, which that wire does not take, are left out, and a lone surrogate is U+FFFD.
        `from_messages` takes such a list.
        """
        messages = [message for message in self.formatted_thread() if not message.is_blank]
        items: list[JsonObject] = msgspec.json.decode(
            encode_lossy(encode_messages(OPENAI, messages))
        )
        return items

    def to_markdown(self) -> str:
        """Render the conversation from the root to here as Markdown."""
        return as_markdown(self.thread())

    def to_sharegpt(self) -> str:
        """Render the conversations to the leaves from here down as ShareGPT, a line of JSON each.

        This is training data for LLaMA-Factory and axolotl. Tool calls are `function_call`, their
        results `observation`; reasoning is left out, and placeholders stay. Media, or arguments of
        a call that are not JSON, raise an `InvalidParameterError` that names the node. O(text of
        all conversations).
        """
        return as_sharegpt(
            [(node.id, node.message) for node in leaf.path()] for leaf in self.leaves()
        )

    def to_html(self, title: str = "Conversation") -> str:
        """Render this node and all below it as one HTML page for any browser; it works offline."""
        return html_page(self._tree, self._index, title)

    def __reduce__(self) -> NoReturn:
        raise InvalidParameterError(
            "a node belongs to a tree and cannot be pickled or copied alone; save_tree or "
            "save_thread it and load the file there, or graft a copy of it onto another node"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatNode):
            return NotImplemented
        return self._tree is other._tree and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._tree), self._index))

    def __str__(self) -> str:
        return self.pretty(MAX_STR_CHARS)

    def _repr_html_(self) -> str:
        return as_html(self.thread())

    def __repr__(self) -> str:
        return f"<ChatNode {self._index} {self.role.value}: {excerpt(self.text or '', 60)!r}>"


class ParsedNode(ChatNode, Generic[T]):
    """A node whose answer was parsed as the type that the call expected.

    Only the handle that the call returned has `parsed`. Other handles of the node have its JSON
    as `text`, and the value of that as `response.json()`.
    """

    __slots__ = ("_parsed",)

    def __init__(self, tree: Tree, index: int, parsed: object = NOT_PARSED) -> None:
        super().__init__(tree, index)
        self._parsed = parsed

    @property
    def parsed(self) -> T:
        """The answer as the type that the call expected.

        Raises `InvalidParameterError` for an answer that asks for tools first, and for a handle
        that no call with `expecting()` returned.
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


def prepare_call(
    node: ChatNode, generator: GeneratorInfo, params: ParametersLike
) -> tuple[Call, Callable[[Completed], ChatNode]]:
    """Return the call of `complete`, for another way of sending, and how its answer is added."""
    return node._prepare(generator, params, NO_FIELDS, stream=False)  # noqa: SLF001 - of this module


# By the end of a file's name: what such a file holds, and its text, from a node and a title. These
# are for others to read; `save_thread` and `save_tree` write what is loaded again.
EXPORTS: dict[str, tuple[str, Callable[[ChatNode, str], str]]] = {
    ".md": ("this conversation, as Markdown", lambda node, _: node.to_markdown()),
    ".html": ("the whole tree, as a page", lambda node, title: node.root_node.to_html(title)),
    ".sharegpt.jsonl": (
        "the whole tree, as ShareGPT lines",
        lambda node, _: node.root_node.to_sharegpt(),
    ),
}
