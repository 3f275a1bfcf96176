"""How one item is asked, and how its outcome is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral
from typing import Any, TypeAlias

import msgspec

from minillmlib.bulk.batch import BatchQueue
from minillmlib.bulk.batch_parts import RunProblem
from minillmlib.bulk.journal import DoneRecord, Ended, Journal, Turn
from minillmlib.bulk.outcome import BulkOutcome
from minillmlib.client.pacing import shared_pace
from minillmlib.errors import InvalidParameterError, MiniLLMError, StorageError
from minillmlib.generator import GeneratorInfo
from minillmlib.json_value import JsonValue
from minillmlib.tree.node import ChatNode
from minillmlib.tree.records import new_hasher
from minillmlib.tree.tool_loop import Tool, ToolLoop, ToolRun, open_calls, tool_settings
from minillmlib.types.costs import Attempt, CostTotal
from minillmlib.types.parameters import NodeCompletionParameters
from minillmlib.types.tools import ToolLike

Item: TypeAlias = str | Mapping[str, JsonValue] | ChatNode


class Question(msgspec.Struct, frozen=True):
    """An item that is to be asked: the node whose answer is wanted."""

    index: int
    node: ChatNode
    key: str = ""


class ItemCall:
    """Asks a model about one item at a time, with the settings of a run.

    Attributes:
        earlier: The cost of earlier runs with the same journal.
        maybe_paid: The number of their requests whose end is not known.
        problem: Why the journal could not be written, if it could not.
    """

    problem: StorageError | None = None

    def __init__(  # noqa: PLR0913 - made by map_complete only
        self,
        generator: GeneratorInfo,
        settings: NodeCompletionParameters,
        *,
        prompt: ChatNode | None,
        tools: Sequence[ToolLike | Tool],
        loop: ToolLoop,
        journal: Journal | None,
        key: Callable[[Any], str] | str | None,
        batches: BatchQueue | None = None,
    ) -> None:
        if prompt is not None and not isinstance(prompt, ChatNode):
            raise InvalidParameterError(
                f"the prompt of a run is a node, not {type(prompt).__name__}: "
                "ChatNode.root(...).add_user(...)"
            )
        self.generator = generator
        self._settings = settings
        self._first_settings = tool_settings(settings, tools) if tools else settings
        self._prompt = prompt
        self._names = [] if prompt is None else prompt.missing_format_kwargs()
        self._tools = tools
        self._loop = loop
        self._journal = journal
        self._key = key
        self._batches = batches
        self.earlier = CostTotal() if journal is None else journal.spent
        self.maybe_paid = 0 if journal is None else journal.maybe_paid

    def prepare(self, index: int, item: Item) -> Question | BulkOutcome[Any]:
        """Return what to ask, or the outcome that the item has without asking."""
        try:
            node = self._node_of(index, item)
            if self._journal is None:
                return Question(index, node)
            key = self._journal.key_of(self._name_of(item, node))
        except MiniLLMError as error:
            return BulkOutcome(index=index, error=error)
        return self._find(self._journal, Question(index, node, key))

    def _find(self, journal: Journal, question: Question) -> Question | BulkOutcome[Any]:
        """Return the outcome that the journal has, or the question if it has none."""
        try:
            ended = journal.find(question.key)
            return question if ended is None else _restore(self._settings, question, ended)
        except MiniLLMError as error:  # such as an answer that does not fit the type of now
            if journal.retries_failed:
                return question
            index, key = question.index, question.key
            return BulkOutcome(index=index, key=key, error=error, is_from_journal=True)

    def start_pace(self) -> None:
        """Let the calls share the pace of all runs, if they have none of their own."""
        if self._settings.pace is None:
            self._settings = self._settings.replace(pace=shared_pace(self.generator))

    @property
    def is_shut(self) -> bool:
        """Whether the server has long refused everything."""
        return self._settings.pace is not None and self._settings.pace.is_shut

    async def ask(self, question: Question) -> BulkOutcome[Any]:
        """Return the outcome of an item."""
        index, node, key = question.index, question.node, question.key
        if self._journal is not None and self._batches is None:
            self._record_sent(key, node)
        if self.problem is not None:
            return BulkOutcome(index=index, key=key, error=self.problem)
        try:
            answer = await self._answer(question)
        except RunProblem as problem:
            raise problem.error from None
        except MiniLLMError as error:
            failure = error
            self._record(lambda journal: journal.record_failed(key, index, failure))
            return BulkOutcome(index=index, key=key, error=error, attempts=error.attempts)
        if self._journal is not None:
            self._record(lambda journal: journal.record_done(key, index, _turns(node, answer)))
        attempts = _attempts_since(node, answer) if self._tools else answer.response.attempts
        return BulkOutcome(index=index, key=key, node=answer, attempts=attempts)

    def _answer(self, question: Question) -> Awaitable[ChatNode]:
        """Return the answer to an item, to be awaited."""
        if self._batches is not None:
            return self._batches.ask(question.node, question.key)
        if not self._tools:
            return question.node.complete(self.generator, self._settings)
        return self._answer_by_tools(question)

    async def _answer_by_tools(self, question: Question) -> ChatNode:
        node = question.node
        run = ToolRun(
            node, self.generator, self._tools, self._settings, self._loop, is_streamed=False
        )
        try:
            async with run:
                await self._run_tools(run, question.key)
        except MiniLLMError as error:
            error.attempts = (*_attempts_since(node, run.node), *error.attempts)
            raise
        return run.node

    async def _run_tools(self, run: ToolRun[ChatNode], key: str) -> None:
        """Run a tool loop, and record each turn before its request."""
        turn = 1
        async for event in run:
            node = event.node
            if event.kind == "result" and not open_calls(node)[1]:
                turn += 1
                self._record_sent(key, node, turn)
                if self.problem is not None:
                    raise self.problem

    def _node_of(self, index: int, item: Item) -> ChatNode:
        """Return the node whose answer is asked for. Raises `InvalidParameterError`."""
        if isinstance(item, ChatNode):
            return item
        if isinstance(item, str):
            before = ChatNode.root() if self._prompt is None else self._prompt.copy_thread()
            return before.add_user(item)
        if not isinstance(item, Mapping):
            raise InvalidParameterError(
                f"item {index} is {type(item).__name__}; the items of a run are texts, mappings "
                "for the placeholders of its prompt, or nodes"
            )
        if self._prompt is None:
            return _read_messages(index, item)
        missing = [f"{{{name}}}" for name in self._names if item.get(name) is None]
        if missing:
            raise InvalidParameterError(f"item {index} has no value for {', '.join(missing)}")
        values: dict[str, Any] = {name: item[name] for name in self._names}
        return self._prompt.copy_thread(values)

    def _name_of(self, item: Item, node: ChatNode) -> str:
        """Return the name of an item: the caller's, or a hash of the request."""
        if not callable(self._key):
            request = node.preview_request(self.generator, self._first_settings)
            hasher = new_hasher()
            hasher.update(request.url.encode())
            hasher.update(request.data)
            if self._key is not None:
                hasher.update(_read_column(item, self._key))
            return hasher.hexdigest()
        name: object = self._key(item)
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise InvalidParameterError(f"key() returns a line of text, not {name!r:.80}")
        return name

    def _ceiling(self, node: ChatNode) -> Decimal | None:
        if self._settings.budget is None:
            return None
        return node.estimate_cost(self.generator, self._first_settings).ceiling

    def _record_sent(self, key: str, node: ChatNode, turn: int = 1) -> None:
        self._record(lambda journal: journal.record_sent(key, self._ceiling(node), turn))

    def _record(self, write: Callable[[Journal], None]) -> None:
        if self._journal is not None and self.problem is None:
            try:
                write(self._journal)
            except StorageError as error:
                self.problem = error

    def finish_input(self) -> None:
        """Note that there is no further item."""
        if self._batches is not None:
            self._batches.finish_input()

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()


def _read_messages(index: int, item: Mapping[str, JsonValue]) -> ChatNode:
    """Return the last node of the conversation that an item brings along."""
    messages = item.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InvalidParameterError(
            f"item {index} is a mapping, but the run has no prompt whose placeholders it fills, "
            "and the item has no list of messages"
        )
    return ChatNode.from_messages(messages)[1]


def _read_column(item: Item, name: str) -> bytes:
    """Return the value in a column as one that tells items apart."""
    value = item.get(name) if isinstance(item, Mapping) else None
    if isinstance(value, str | Integral):
        return f"\t{value}".encode()
    raise InvalidParameterError(
        f"the key column {name!r} must hold texts or whole numbers, not {value!r:.80}"
    )


def _restore(
    settings: NodeCompletionParameters, question: Question, ended: Ended
) -> BulkOutcome[Any]:
    """Return the outcome that an earlier run recorded."""
    index, key, node = question.index, question.key, question.node
    if not isinstance(ended, DoneRecord):
        error, attempts = ended.to_error(), ended.attempts
        return BulkOutcome(
            index=index, key=key, error=error, attempts=attempts, is_from_journal=True
        )
    last = node
    for turn in ended.turns:
        if turn.response is not None:
            last = last.add_response(turn.response, settings)
        elif turn.message is not None and turn.message.tool_call_id is not None:
            content, is_error = turn.message.content, turn.message.is_error
            last = last.add_tool_result(turn.message.tool_call_id, content, is_error=is_error)
    attempts = _attempts_since(node, last)
    return BulkOutcome(index=index, key=key, node=last, attempts=attempts, is_from_journal=True)


def _since(node: ChatNode, last: ChatNode) -> Iterator[ChatNode]:
    """Yield the nodes after a node, from the last one back."""
    while last != node and last.parent is not None:
        yield last
        last = last.parent


def _turns(node: ChatNode, last: ChatNode) -> tuple[Turn, ...]:
    turns = [
        Turn(response=msgspec.structs.replace(each.response, raw_response=None))
        if each.is_generated
        else Turn(message=each.message)
        for each in _since(node, last)
    ]
    return tuple(reversed(turns))


def _attempts_since(node: ChatNode, last: ChatNode) -> tuple[Attempt, ...]:
    """Return the attempts of the answers after a node."""
    answers = [each.response for each in _since(node, last) if each.is_generated]
    return tuple([one for answer in reversed(answers) for one in answer.attempts])
