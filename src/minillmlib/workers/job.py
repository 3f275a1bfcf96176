"""The job of many processes: one frozen value that each of them gets."""

import os
import pickle
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from minillmlib.client.prepare import check_generator
from minillmlib.errors import InvalidParameterError, MiniLLMError
from minillmlib.files import FilePath
from minillmlib.generator import GeneratorInfo
from minillmlib.tree.node import DEFAULT_LOOP, ChatNode
from minillmlib.tree.records import FormatValue
from minillmlib.tree.tool_loop import Tool, ToolLoop, tool_settings
from minillmlib.types.budgets import Budget
from minillmlib.types.costs import CostTotal, parse_usd, total_words
from minillmlib.types.messages import Message
from minillmlib.types.pace import Pace
from minillmlib.types.parameters import (
    NodeCompletionParameters,
    ParametersLike,
    node_parameters,
)
from minillmlib.types.tools import ToolLike
from minillmlib.types.values import check_kind, check_number, replace
from minillmlib.workers.bank import Bank, BankLike
from minillmlib.workers.runtime import BulkRuntime, runtime_of
from minillmlib.workers.shards import Shards, open_folder

# What is of one process alone, and what a job has instead.
_LIVE_SETTINGS = {
    "budget": "give it to the job: Bulk(..., budget=...)",
    "pace": "give it to the job: Bulk(..., pace=...)",
    "cost_callback": "it would run in another process; each row has its cost as a column",
}
_PACE = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")


class Prompt(msgspec.Struct, frozen=True):
    """A conversation as plain messages, with the values of its placeholders."""

    messages: tuple[Message, ...]
    format_kwargs: dict[str, FormatValue]

    @classmethod
    def of(cls, node: ChatNode) -> Self:
        """Return the conversation from the root to a node."""
        thread = node.copy_thread()
        return cls(tuple(thread.thread()), thread.format_kwargs)

    def to_node(self) -> ChatNode:
        """Return the last node of the conversation, in a tree of its own."""
        leaf = ChatNode.from_messages(self.messages)[1]
        for name, value in self.format_kwargs.items():
            leaf.set_format_kwarg(name, value)
        return leaf


class Bulk(msgspec.Struct, frozen=True):
    """A run over many rows as one value, for processes that a data engine starts.

    Each process gets the job, pickled, and asks with its `runtime()`. Keys never travel: they come
    from the environment of each process. Whatever is of one process alone (an explicit key, a
    budget in `params`, a callback, a connection) is refused when the job is made.

    Args:
        generator: The model.
        params: The settings of each call. Set `deadline_secs`, so that no row can hold up others.
        prompt: The conversation whose `{placeholders}` each row fills, or without which each row
            has a column `messages`.
        tools: Tools that are run for each row: functions of a module.
        loop: The settings of the tools.
        pace: The maximum requests and tokens a minute of all processes together.
        budget: The maximum cost of all processes together. It needs a journal.
        journal: A folder that all processes share, where each records what it asked, so that the
            job, after a crash or an end, asks only what is missing.
        workers: The maximum number of processes at a time. Each takes an equal share of pace and
            budget, or leases what it needs from a `Bank`.
        width: The maximum calls in flight in each process.
        retry_failed: Whether to ask again the rows that failed permanently in an earlier run.
        key: The column that tells apart rows with equal requests. Without one, such rows may share
            one answer.
        prefix: Text before the names of the columns with the results.

    Examples:
        >>> prompt = ChatNode.root("Be brief.").add_user("The capital of {country}?")
        >>> job = Bulk(GeneratorInfo.openai("gpt-4o-mini"), prompt=prompt)
        >>> job.runtime().rows([{"country": "France"}])[0]["text"]
        'Paris.'
    """

    generator: GeneratorInfo
    params: NodeCompletionParameters = NodeCompletionParameters()
    prompt: Prompt | None = None
    tools: tuple[ToolLike | Tool, ...] = ()
    loop: ToolLoop = DEFAULT_LOOP
    pace: tuple[int | None, ...] | None = None
    budget: Decimal | None = None
    journal: str | None = None
    workers: int = 1
    width: int | None = None
    retry_failed: bool = False
    key: str | None = None
    prefix: str = ""

    # For type checkers only: a Struct generates __init__ from the fields, which are plain values.
    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0913 - the settings of a run
            self,
            generator: GeneratorInfo,
            params: ParametersLike = None,
            *,
            prompt: ChatNode | None = None,
            tools: Sequence[ToolLike | Tool] = (),
            loop: ToolLoop = DEFAULT_LOOP,
            pace: Pace | None = None,
            budget: Budget | None = None,
            journal: FilePath | None = None,
            workers: int = 1,
            width: int | None = None,
            retry_failed: bool = False,
            key: str | None = None,
            prefix: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        check_generator(self.generator)
        for name in ("loop", "workers", "retry_failed", "prefix"):
            if getattr(self, name) is None:
                raise InvalidParameterError(f"the {name} of a job cannot be None: leave it out")
        _set(self, "params", _plain_params(self.params))
        _set(self, "prompt", _plain_prompt(self.prompt))
        _set(self, "tools", _plain_tools(self.params, self.tools))
        check_kind("the loop of a job", self.loop, ToolLoop)
        _set(self, "pace", _plain_pace(self.pace))
        _set(self, "budget", _plain_budget(self.budget))
        _set(self, "journal", _plain_folder(self.journal))
        for name in ("workers", "width"):
            check_number(f"the {name} of a job", getattr(self, name), minimum=1, is_whole=True)
        for name, kind in (("retry_failed", bool), ("key", str), ("prefix", str)):
            check_kind(f"the {name} of a job", getattr(self, name), kind)
        if self.budget is not None and self.journal is None:
            raise InvalidParameterError(
                'the budget of a job needs a journal (journal="a/folder"), from which a process '
                "that takes the place of a dead one learns what was spent"
            )
        if self.budget is not None:
            self._check_estimates()
        if self.pace is not None:
            self.new_pace().last_share(self.workers)  # raises if it cannot be shared
        self._check_pickling()

    def _check_estimates(self) -> None:
        """Refuse a budget by which every row would fail."""
        estimate = ChatNode.root().add_user("x").estimate_cost(self.generator, self.params)
        if estimate.ceiling is None:
            raise InvalidParameterError(
                "the budget of a job needs the maximum cost of each row, for which is missing: "
                f"{', '.join(estimate.missing)}"
            )

    def _check_pickling(self) -> None:
        for name in ("generator", "params", "tools", "prompt", "loop"):
            try:
                pickle.dumps(getattr(self, name))
            except MiniLLMError as error:
                raise InvalidParameterError(f"the {name} of a job: {error}") from None
            except Exception as error:  # noqa: BLE001 - of any object
                raise InvalidParameterError(
                    f"the {name} of a job cannot be sent to other processes "
                    f"({type(error).__name__}: {error}): functions and classes must be importable "
                    "there, from a module; connections and own transports stay in their process"
                ) from None

    def replace(self, **changes: object) -> Self:
        """Return a copy with some settings changed."""
        return replace(self, changes)

    def new_pace(self) -> Pace:
        """Return the pace of all processes together, with nothing sent yet."""
        return Pace(*(self.pace or ()))

    def runtime(self, worker: str | None = None, bank: BankLike | None = None) -> BulkRuntime:
        """Return the runtime of this process: the same one again for an equal job.

        Args:
            worker: A name for the process, which no other has; by default its host and number.
            bank: The `Bank` of the job, or a handle of it in another process, to lease from
                instead of taking an equal share.

        Runtimes of several jobs may use one journal. If there is a budget, one that takes a share
        closes the others of the process that do nothing: `Bulk.runtime` makes them anew.

        Raises `StorageError` if the journal cannot be used.
        """
        check_kind("the worker of a runtime", worker, str)
        for name in ("lease", "give_back") if bank is not None else ():
            if not callable(getattr(bank, name, None)):
                raise InvalidParameterError(
                    f"the bank of a runtime has a method {name}, and {type(bank).__name__} has none"
                )
        return runtime_of(self, worker, bank)

    def bank(self) -> Bank:
        """Return a new bank with the rate of the job, and what the journal leaves of its budget.

        To be held in one process. One that takes the place of another bank counts what its
        workers hold as soon as they ask.
        """
        usd = None
        if self.budget is not None and self.journal is not None:
            usd, _ = self._read_journal().remaining(self.budget)
        return Bank(self.new_pace().requests_per_minute, usd)

    def report(self) -> "BulkReport":
        """Return the state of the job by its journal, from any process and at any time.

        O(journal). Raises `InvalidParameterError` without a journal, and `StorageError`.
        """
        if self.journal is None:
            raise InvalidParameterError(
                "a report needs the journal of the job, and it has none: "
                'Bulk(..., journal="a/folder")'
            )
        shards = self._read_journal()
        maybe_paid = shards.maybe_paid
        return BulkReport(
            done=shards.answer_count,
            failed=shards.failure_count,
            cost=shards.spent + CostTotal(unknown=maybe_paid),
            maybe_paid=maybe_paid,
            lost=shards.lost_usd,
        )

    def _read_journal(self) -> Shards:
        return Shards(open_folder(self.journal or ""), retries_failed=self.retry_failed)


class BulkReport(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a job by its journal. Its text is one line.

    Attributes:
        done: The number of rows that were answered.
        failed: The number of rows that failed.
        cost: The cost of all processes, also of those that died.
        maybe_paid: The number of requests whose end no process has recorded: those in flight now,
            and those that were when a process died. They may have been billed.
        lost: USD that workers had leased from a `Bank` and not spent when they died. That bank
            does not grant them again; a new one does.
    """

    done: int
    failed: int
    cost: CostTotal
    maybe_paid: int
    lost: Decimal

    def __str__(self) -> str:
        words = f"{self.done:,} done, {self.failed:,} failed; {total_words(self.cost)}"
        if self.maybe_paid:
            words += f" ({self.maybe_paid:,} maybe paid)"
        if self.lost:
            words += f"; {total_words(CostTotal(cost=self.lost))} leased and not given back"
        return words


def _set(job: Bulk, name: str, value: object) -> None:
    msgspec.structs.force_setattr(job, name, value)


def _plain_params(params: object) -> NodeCompletionParameters:
    settings = node_parameters(params)  # type: ignore[arg-type] # it refuses anything else
    for name, instead in _LIVE_SETTINGS.items():
        if getattr(settings, name) is not None:
            raise InvalidParameterError(f"the params of a job cannot have a {name}: {instead}")
    return settings


def _plain_prompt(prompt: object) -> Prompt | None:
    if isinstance(prompt, ChatNode):
        return Prompt.of(prompt)
    if prompt is None or isinstance(prompt, Prompt):
        return prompt
    raise InvalidParameterError(
        f"the prompt of a job is a node, not {type(prompt).__name__}: "
        "ChatNode.root(...).add_user(...)"
    )


def _plain_tools(params: NodeCompletionParameters, tools: object) -> tuple[ToolLike | Tool, ...]:
    if not isinstance(tools, list | tuple):
        raise InvalidParameterError(
            f"the tools of a job are a list of functions, not {type(tools).__name__}"
        )
    if tools:
        tool_settings(params, tools)  # raises if one is no tool
    return tuple(tools)


def _plain_pace(pace: object) -> tuple[int | None, ...] | None:
    if isinstance(pace, Pace):
        return tuple(getattr(pace, name) for name in _PACE)
    if pace is None or (isinstance(pace, tuple) and len(pace) == len(_PACE)):
        return pace
    raise InvalidParameterError(
        f"the pace of a job is a Pace(requests_per_minute), not {type(pace).__name__}"
    )


def _plain_budget(budget: object) -> Decimal | None:
    if isinstance(budget, Budget):
        return budget.split(1)[0].limit
    if budget is None:
        return None
    if isinstance(budget, Decimal):
        return parse_usd("the budget of a job", budget, Decimal)
    raise InvalidParameterError(
        f"the budget of a job is a Budget(usd), not {type(budget).__name__}"
    )


def _plain_folder(path: object) -> str | None:
    if path is None:
        return None
    if not isinstance(path, str | os.PathLike):
        raise InvalidParameterError(
            f"the journal of a job is the path of a folder, not {type(path).__name__}"
        )
    folder = os.fsdecode(path)
    try:
        has_name = b"\0" not in os.fsencode(folder)
    except UnicodeEncodeError:
        has_name = False
    if not has_name:
        raise InvalidParameterError(
            f"the journal of a job cannot be at {folder!r}: no folder has such a name"
        )
    if "://" in folder:
        raise InvalidParameterError(
            f"the journal of a job cannot be at {folder!r}: object stores cannot be appended to; "
            "name a folder that all nodes share, such as an NFS mount"
        )
    return str(Path(folder).absolute())  # each process has a working directory of its own
