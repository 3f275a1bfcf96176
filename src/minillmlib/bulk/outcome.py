"""The outcomes of a run, and its progress."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import msgspec

from minillmlib.errors import (
    AuthenticationError,
    BillingError,
    BudgetExceededError,
    InvalidParameterError,
    MaxRetriesExceededError,
    MiniLLMError,
    NotFoundError,
    PermissionDeniedError,
)
from minillmlib.tree.node import ChatNode, ParsedNode
from minillmlib.types.costs import Attempt, CostInfo, CostTotal

T = TypeVar("T")

# With these, every further item would fail as well, until the user has mended the cause.
STOPPING = (
    AuthenticationError,
    BillingError,
    BudgetExceededError,
    NotFoundError,
    PermissionDeniedError,
)


def last_error(error: MiniLLMError) -> MiniLLMError:
    """Return the error of the last attempt, or the error itself."""
    last = error.last_error if isinstance(error, MaxRetriesExceededError) else None
    return last or error


def is_final(error: MiniLLMError) -> bool:
    """Whether the same item would fail again in a later run."""
    last = last_error(error)
    return not (last.is_retryable or isinstance(last, STOPPING))


class BulkOutcome(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The outcome of one item.

    Attributes:
        index: The place of the item in the input, from 0.
        key: The text that names the item in the journal; "" without one.
        node: The node of the answer, or None if the item failed. Each item has a conversation of
            its own, unless it was a node.
        error: The error that the item failed with, or None.
        attempts: Every request that was made for the item.
        is_from_journal: Whether an earlier run recorded the outcome, so that nothing was sent.
    """

    index: int
    key: str = ""
    node: ChatNode | None = None
    error: MiniLLMError | None = None
    attempts: tuple[Attempt, ...] = ()
    is_from_journal: bool = False

    @property
    def cost(self) -> CostInfo:
        """The cost of all attempts."""
        return CostInfo.of(self.attempts)

    @property
    def text(self) -> str | None:
        """The text of the answer, or None if it failed or has none."""
        return None if self.node is None else self.node.text

    @property
    def parsed(self) -> T:
        """The answer as the type that `params` expected. Raises the error of an item that failed.

        Raises `InvalidParameterError` without an expected type.
        """
        if self.error is not None:
            raise self.error
        if not isinstance(self.node, ParsedNode):
            raise InvalidParameterError(
                "only with params of expecting() does an outcome have a parsed value"
            )
        return cast("T", self.node.parsed)


class BulkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run has come.

    Attributes:
        items: The number of items, or None if the input does not say.
        done: The number of items that were answered, also by an earlier run.
        failed: The number of items that failed.
        from_journal: The number of those items whose outcome an earlier run recorded.
        in_flight: The number of items that are being asked.
        width: The maximum that may be in flight now.
        elapsed_secs: Seconds since the run began.
        cost: The cost of the items so far, without those of earlier runs.
        is_over: Whether the run has ended.
    """

    items: int | None
    done: int
    failed: int
    from_journal: int
    in_flight: int
    width: int
    elapsed_secs: float
    cost: CostTotal
    is_over: bool = False
